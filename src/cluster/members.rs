//! Health and roles of one cluster together; pure. A [`SampleSink`](super::monitor::SampleSink) keeps it behind a
//! mutex, tells it of every probe and acts on the changes it returns.

use super::{
    health::{Health, State, Thresholds, Transition},
    roles::{self, Known, Lineage, Reason, Report, Said, Verdict},
};
use crate::{
    control::FailureKind,
    routing::{MemberId, MemberSet},
};

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
    known: Known,
    verdict: Verdict,
}

#[derive(Clone, Debug)]
struct Member {
    health: Health,
    report: Report,
}

impl Members {
    /// `ids` in configured order; `equals` are those that the file calls equal; `known` is what is remembered of the primary, or the configured one where that is
    /// believed.
    pub fn new(
        ids: impl IntoIterator<Item = MemberId>,
        equals: MemberSet,
        known: Known,
        detection: RoleDetection,
        thresholds: Thresholds,
    ) -> Self {
        let member = |member| Member {
            health: Health::new(thresholds),
            report: Report {
                member,
                said: Said::Unasked,
                lineage: Lineage::default(),
                is_equal: equals.contains(member),
            },
        };
        let members = ids.into_iter().map(member).collect();
        let reason = if known.primary.is_some() { Reason::KnownSilent } else { Reason::Asking };
        let verdict = Verdict { primary: known.primary, reason, has_rivals: false, equals: known.equals };
        Self { members, detection, known, verdict }
    }

    /// `id` answered a probe.
    pub fn sampled(&mut self, id: MemberId, in_recovery: bool, lineage: Lineage) -> Change {
        let said = if in_recovery { Said::Replica } else { Said::Primary };
        self.update(id, |member| {
            member.report = Report { said, lineage, ..member.report };
            member.health.succeeded()
        })
    }

    /// A probe of `id` failed.
    pub fn failed(&mut self, id: MemberId, kind: FailureKind) -> Change {
        self.update(id, |member| {
            let transition = member.health.failed(kind);
            let is_down = matches!(member.health.state(), State::Down(_));
            // Nobody waits for the first word of one that cannot be asked.
            member.report.said = match member.report.said {
                Said::Unasked | Said::Closed if is_there(kind) => Said::Closed,
                Said::Unasked | Said::Closed => Said::Silent,
                _ if is_down => Said::Silent,
                said => said,
            };
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

    /// What is to be remembered when somebody else asks the members.
    pub fn known(&self) -> Known {
        self.known
    }

    fn member(&self, id: MemberId) -> Option<&Member> {
        self.members.iter().find(|member| member.report.member == id)
    }

    fn update(&mut self, id: MemberId, change: impl FnOnce(&mut Member) -> Option<Transition>) -> Change {
        let Some(member) = self.members.iter_mut().find(|member| member.report.member == id) else {
            return Change::default();
        };
        Change { health: change(member), roles: self.judge() }
    }

    /// Another one has asked the members meanwhile: what it has seen of a later timeline holds here, too.
    pub fn learn(&mut self, known: Known) -> Option<Verdict> {
        if self.detection == RoleDetection::Configured || known.lineage.timeline <= self.known.lineage.timeline {
            return None;
        }
        self.known = Known { equals: self.known.equals, ..known };
        self.judge()
    }

    fn judge(&mut self) -> Option<Verdict> {
        if self.detection == RoleDetection::Configured {
            return None;
        }
        let reports: Vec<_> = self.members.iter().map(|member| member.report).collect();
        let verdict = roles::primary(&reports, self.known);
        self.known = roles::remember(self.known, &reports, verdict);
        let essence = |verdict: Verdict| (verdict.primary, verdict.has_rivals, verdict.equals);
        let is_news = essence(verdict) != essence(self.verdict);
        self.verdict = verdict;
        is_news.then_some(verdict)
    }
}

/// A server that has no room for us, or does not let us in, may be well.
fn is_there(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::Full | FailureKind::Rejected | FailureKind::Statement | FailureKind::Proxy)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MemberId = MemberId(0);
    const B: MemberId = MemberId(1);

    fn on(timeline: u32) -> Lineage {
        Lineage { system_identifier: Some(7), timeline: Some(timeline) }
    }

    fn began_with(primary: Option<MemberId>, detection: RoleDetection) -> Members {
        let known = Known { primary, ..Known::default() };
        Members::new([A, B], MemberSet::default(), known, detection, Thresholds { rise: 1, fall: 2 })
    }

    fn members(detection: RoleDetection) -> Members {
        let mut members = began_with(Some(A), detection);
        members.sampled(A, false, on(1));
        members.sampled(B, true, on(1));
        members
    }

    fn verdict(primary: Option<MemberId>, reason: Reason, has_rivals: bool) -> Option<Verdict> {
        Some(Verdict { primary, reason, has_rivals, equals: MemberSet::default() })
    }

    #[test]
    fn a_quiet_cluster_reports_no_change() {
        let mut members = members(RoleDetection::Auto);
        assert_eq!(members.sampled(A, false, on(1)), Change::default());
        assert_eq!(members.sampled(B, true, on(1)), Change::default());
        assert!(members.serves(A) && members.serves(B));
    }

    #[test]
    fn a_failover_is_followed_and_the_old_primary_does_not_take_it_back() {
        let mut members = members(RoleDetection::Auto);
        assert_eq!(members.failed(A, FailureKind::Refused).roles, None);
        assert_eq!(members.verdict().primary, Some(A));
        assert_eq!(members.sampled(B, false, on(2)).roles, verdict(Some(B), Reason::OnlyOne, false));
        assert_eq!(members.sampled(A, false, on(1)).roles, verdict(Some(B), Reason::OnlyOne, true));
        assert_eq!(members.failed(B, FailureKind::Refused).roles, None, "nor while the new one is silent");
        assert_eq!(Some(members.verdict()), verdict(Some(B), Reason::KnownSilent, true));
        assert_eq!(members.sampled(A, true, on(2)).roles, verdict(Some(B), Reason::KnownSilent, false));
    }

    #[test]
    fn what_is_remembered_outlives_those_who_ask() {
        let mut before = members(RoleDetection::Auto);
        before.sampled(B, false, on(2));
        let mut members =
            Members::new([A, B], MemberSet::default(), before.known(), RoleDetection::Auto, Thresholds::default());
        assert_eq!(members.verdict().primary, Some(B));
        assert_eq!(members.sampled(A, false, on(1)).roles, verdict(Some(B), Reason::KnownSilent, true));
    }

    #[test]
    fn who_begins_to_ask_believes_nobody_before_all_have_been_heard() {
        let mut members = began_with(None, RoleDetection::Auto);
        assert_eq!(members.sampled(A, false, on(1)).roles, None);
        assert_eq!(members.failed(B, FailureKind::Timeout).roles, verdict(Some(A), Reason::OnlyOne, false));
    }

    #[test]
    fn members_that_are_full_or_let_nobody_in_leave_the_file_in_force() {
        let mut members = began_with(None, RoleDetection::Auto);
        assert_eq!(members.failed(A, FailureKind::Full).roles, None);
        assert_eq!(members.failed(B, FailureKind::Rejected).roles, verdict(Some(A), Reason::Configured, false));
        assert_eq!(members.sampled(A, false, on(1)).roles, None);
    }

    #[test]
    fn a_promotion_that_others_have_seen_counts() {
        let seen = Known { primary: Some(B), lineage: on(2), ..Known::default() };
        let mut early = began_with(Some(A), RoleDetection::Auto);
        assert_eq!(early.learn(seen), verdict(Some(B), Reason::KnownSilent, false));
        assert_eq!(early.learn(Known { primary: Some(A), lineage: on(1), ..Known::default() }), None);
        let mut late = members(RoleDetection::Auto);
        assert_eq!(late.learn(seen), verdict(None, Reason::NoPrimary, true), "until the promoted one says so here");
        assert_eq!(late.sampled(B, false, on(2)).roles, verdict(Some(B), Reason::OnlyOne, true));
    }

    #[test]
    fn while_nobody_takes_writes_there_is_no_primary() {
        let mut members = members(RoleDetection::Auto);
        assert_eq!(members.sampled(A, true, on(1)).roles, verdict(None, Reason::NoPrimary, false));
        assert_eq!(members.failed(A, FailureKind::Refused).roles, None);
        assert_eq!(members.verdict().primary, None);
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
        assert_eq!(members.sampled(B, false, on(2)).roles, None);
        assert_eq!(members.verdict().primary, Some(A));
    }

    #[test]
    fn a_stranger_changes_nothing() {
        let mut members = members(RoleDetection::Auto);
        assert_eq!(members.sampled(MemberId(7), false, on(1)), Change::default());
    }
}
