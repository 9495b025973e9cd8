//! Health and roles of one cluster together; pure. A [`SampleSink`](super::monitor::SampleSink) keeps it behind a
//! mutex, tells it of every probe and acts on the changes it returns.

use super::{
    health::{Health, State, Thresholds, Transition},
    roles::{self, Reason, Said, Verdict},
};
use crate::{control::FailureKind, routing::MemberId};

/// `role_detection`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleDetection {
    /// Believe the members, follow a failover.
    Auto,
    /// The configured primary is the primary.
    Configured,
}

/// What a probe changed; nothing, nearly always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The member's health.
    pub health: Option<Transition>,
    /// Who is primary.
    pub roles: Option<Verdict>,
}

/// All members of one database.
#[derive(Clone, Debug)]
pub struct Members {
    members: Vec<Member>,
    detection: RoleDetection,
    known: MemberId,
    verdict: Verdict,
}

#[derive(Clone, Debug)]
struct Member {
    id: MemberId,
    health: Health,
    said: Said,
}

impl Members {
    /// `ids` in configured order; `primary` is the configured one, or the one that is known already.
    pub fn new(
        ids: impl IntoIterator<Item = MemberId>,
        primary: MemberId,
        detection: RoleDetection,
        thresholds: Thresholds,
    ) -> Self {
        let member = |id| Member { id, health: Health::new(thresholds), said: Said::Nothing };
        let members = ids.into_iter().map(member).collect();
        let verdict = Verdict { primary: Some(primary), reason: Reason::KnownSilent };
        Self { members, detection, known: primary, verdict }
    }

    /// `id` answered a probe.
    pub fn sampled(&mut self, id: MemberId, in_recovery: bool) -> Change {
        let said = if in_recovery { Said::Replica } else { Said::Primary };
        self.update(id, |member| {
            member.said = said;
            member.health.succeeded()
        })
    }

    /// A probe of `id`, or a login there for a client, failed.
    pub fn failed(&mut self, id: MemberId, kind: FailureKind) -> Change {
        self.update(id, |member| {
            let transition = member.health.failed(kind);
            if matches!(member.health.state(), State::Down(_)) {
                member.said = Said::Nothing;
            }
            transition
        })
    }

    /// May `id` be given work?
    pub fn serves(&self, id: MemberId) -> bool {
        self.member(id).is_some_and(|member| member.health.serves())
    }

    /// What is believed of `id`.
    pub fn state(&self, id: MemberId) -> State {
        self.member(id).map_or(State::Unknown, |member| member.health.state())
    }

    /// Who is primary now.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    fn member(&self, id: MemberId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    fn update(&mut self, id: MemberId, change: impl FnOnce(&mut Member) -> Option<Transition>) -> Change {
        let Some(member) = self.members.iter_mut().find(|member| member.id == id) else {
            return Change::default();
        };
        Change { health: change(member), roles: self.judge() }
    }

    fn judge(&mut self) -> Option<Verdict> {
        if self.detection == RoleDetection::Configured {
            return None;
        }
        let said: Vec<_> = self.members.iter().map(|member| (member.id, member.said)).collect();
        let verdict = roles::primary(&said, self.known);
        self.known = verdict.primary.unwrap_or(self.known);
        let is_news = verdict.primary != self.verdict.primary
            || verdict.reason.is_conflict() != self.verdict.reason.is_conflict();
        self.verdict = verdict;
        is_news.then_some(verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MemberId = MemberId(0);
    const B: MemberId = MemberId(1);

    fn members(detection: RoleDetection) -> Members {
        let mut members = Members::new([A, B], A, detection, Thresholds { rise: 1, fall: 2 });
        members.sampled(A, false);
        members.sampled(B, true);
        members
    }

    #[test]
    fn a_quiet_cluster_reports_no_change() {
        let mut members = members(RoleDetection::Auto);
        assert_eq!(members.sampled(A, false), Change::default());
        assert_eq!(members.sampled(B, true), Change::default());
        assert!(members.serves(A) && members.serves(B));
    }

    #[test]
    fn a_failover_is_followed_and_the_old_primary_does_not_take_it_back() {
        let mut members = members(RoleDetection::Auto);
        assert_eq!(members.failed(A, FailureKind::Refused).roles, None);
        assert_eq!(members.verdict().primary, Some(A));
        let promoted = members.sampled(B, false).roles;
        assert_eq!(promoted, Some(Verdict { primary: Some(B), reason: Reason::OnlyOne }));
        let split = members.sampled(A, false).roles;
        assert_eq!(split, Some(Verdict { primary: Some(B), reason: Reason::KnownAmongSeveral }));
        let healed = members.sampled(A, true).roles;
        assert_eq!(healed, Some(Verdict { primary: Some(B), reason: Reason::OnlyOne }));
    }

    #[test]
    fn while_nobody_takes_writes_there_is_no_primary() {
        let mut members = members(RoleDetection::Auto);
        let demoted = members.sampled(A, true).roles;
        assert_eq!(demoted, Some(Verdict { primary: None, reason: Reason::NoPrimary }));
    }

    #[test]
    fn one_slow_probe_changes_no_role() {
        let mut members = members(RoleDetection::Auto);
        assert_eq!(members.failed(A, FailureKind::Timeout), Change::default());
        assert_eq!(members.verdict().primary, Some(A));
    }

    #[test]
    fn a_configured_primary_stays_whatever_the_members_say() {
        let mut members = members(RoleDetection::Configured);
        assert_eq!(members.sampled(B, false).roles, None);
        assert_eq!(members.verdict().primary, Some(A));
    }

    #[test]
    fn a_stranger_changes_nothing() {
        let mut members = members(RoleDetection::Auto);
        assert_eq!(members.sampled(MemberId(7), false), Change::default());
    }
}
