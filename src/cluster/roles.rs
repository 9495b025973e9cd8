//! Who is primary, by what the members say of themselves; pure.

use super::equals;
use crate::routing::{MemberId, MemberSet};

/// What a member last said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It has not been asked.
    Unasked,
    /// It does not answer.
    Silent,
    /// It is there and tells us nothing: it has no room, or does not let us in.
    Closed,
    /// It takes writes.
    Primary,
    /// It is in recovery.
    Replica,
}

/// What is known of one member's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Who.
    pub member: MemberId,
    /// Its last word.
    pub said: Said,
    /// Whose history it writes or replays.
    pub lineage: Lineage,
    /// The file says that it is equal to others (`role = any`).
    pub is_equal: bool,
}

/// What is remembered of primaries, whoever asks the members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The last one; `None` before the first and once it has said that it is a replica.
    pub primary: Option<MemberId>,
    /// Its cluster, and the highest timeline that a primary of it has shown.
    pub lineage: Lineage,
    /// Those that take writes as well, and shall.
    pub equals: MemberSet,
}

/// Why the verdict is what it is: the `reason` label of role metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// One member says it is primary.
    OnlyOne,
    /// Several say so, and one of them has been promoted after the others.
    NewestTimeline,
    /// Several say so on one timeline, and one of them is the one we knew.
    KnownAmongSeveral,
    /// Several say so on one timeline, and none of them is the one we knew: the first configured.
    FirstOfSeveral,
    /// The known one says so, of another cluster or of a timeline before: it was restored or upgraded in its place.
    Replaced,
    /// Nobody may be primary who says so, and the known one is silent: nothing better is known.
    KnownSilent,
    /// Nobody may be primary who says so, and none is known.
    NoPrimary,
    /// None is known yet, and not all members have been asked.
    Asking,
    /// Nobody says so, none is known, and the first one cannot be asked: the file is believed.
    Configured,
    /// Several take writes that the file calls equal, and this one speaks for them.
    Equals,
}

impl Reason {
    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::OnlyOne => "only_one",
            Self::NewestTimeline => "newest_timeline",
            Self::KnownAmongSeveral => "known_among_several",
            Self::FirstOfSeveral => "first_of_several",
            Self::Replaced => "replaced",
            Self::KnownSilent => "known_silent",
            Self::NoPrimary => "no_primary",
            Self::Asking => "asking",
            Self::Configured => "configured",
            Self::Equals => "equals",
        }
    }
}

/// Who is primary, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Where writes go; `None` while there is no primary.
    pub primary: Option<MemberId>,
    /// Why.
    pub reason: Reason,
    /// Another member takes writes, too: the operator must act.
    pub has_rivals: bool,
    /// Members that take writes beside the primary, and shall (`role = any`).
    pub equals: MemberSet,
}

impl Verdict {
    /// Shall it be given writes?
    pub fn takes_writes(&self, member: MemberId) -> bool {
        self.primary == Some(member) || self.equals.contains(member)
    }
}

/// Decides from what each member reports; `reports` is in configured order.
///
/// A member that takes writes is primary only if it may continue the history that the known primary has written: one of
/// another cluster, or of a timeline before that of a promotion that was seen, never is. Of several the one that was
/// promoted last is, because a promotion is somebody's decision; and the known one of those that are equal.
///
/// Where the file calls members equal, all that [`equals::writers`] names take writes. One of them is the primary to
/// everything that needs a single one: it is asked for the catalog, and replicas are measured by it.
pub fn primary(reports: &[Report], known: Known) -> Verdict {
    let writers = equals::writers(reports, known);
    let claims = || reports.iter().filter(|report| report.said == Said::Primary);
    let equals = || claims().filter(|report| writers.contains(report.member)).map(|report| report.member);
    let is_asking = known.primary.is_none() && reports.iter().any(|report| report.said == Said::Unasked);
    let first = equals().find(|member| Some(*member) == known.primary).or_else(|| equals().next());
    match first.filter(|_| !is_asking) {
        Some(primary) => Verdict {
            primary: Some(primary),
            reason: if equals().count() > 1 { Reason::Equals } else { Reason::OnlyOne },
            has_rivals: claims().any(|report| !writers.contains(report.member)),
            equals: writers.without(primary),
        },
        None => {
            let verdict = of_one_cluster(reports, known);
            let equals = verdict.primary.map_or(writers, |primary| writers.without(primary));
            Verdict { equals, ..verdict }
        }
    }
}

fn of_one_cluster(reports: &[Report], known: Known) -> Verdict {
    let claims = || reports.iter().filter(|report| report.said == Said::Primary);
    let of_known = reports.iter().find(|report| Some(report.member) == known.primary);
    let continues = |report: &&Report| !is_of_the_past(known.lineage, report.lineage);
    let newest = claims().filter(continues).map(|report| report.lineage.timeline).max();
    let equals = || claims().filter(continues).filter(|report| Some(report.lineage.timeline) == newest);
    let (primary, reason) = if known.primary.is_none() && reports.iter().any(|report| report.said == Said::Unasked) {
        (None, Reason::Asking)
    } else if let Some(first) = equals().next() {
        let chosen = equals().find(|report| Some(report.member) == known.primary).unwrap_or(first);
        let reason = match (claims().filter(continues).count(), equals().count()) {
            (1, _) => Reason::OnlyOne,
            (_, 1) => Reason::NewestTimeline,
            _ if Some(chosen.member) == known.primary => Reason::KnownAmongSeveral,
            _ => Reason::FirstOfSeveral,
        };
        (Some(chosen.member), reason)
    } else {
        match of_known.map(|report| report.said) {
            Some(Said::Primary) => (known.primary, Reason::Replaced),
            Some(Said::Silent | Said::Closed | Said::Unasked) => (known.primary, Reason::KnownSilent),
            Some(Said::Replica) => (None, Reason::NoPrimary),
            None => match reports.first().filter(|first| first.said == Said::Closed) {
                Some(first) if known.lineage == Lineage::default() => (Some(first.member), Reason::Configured),
                _ => (None, Reason::NoPrimary),
            },
        }
    };
    let is_rival = |report: &Report| Some(report.member) != primary;
    let has_rivals = reason != Reason::Asking && claims().any(is_rival);
    Verdict { primary, reason, has_rivals, equals: MemberSet::default() }
}

/// What is remembered once `verdict` has been reached from `reports`.
pub fn remember(known: Known, reports: &[Report], verdict: Verdict) -> Known {
    let chosen = reports.iter().find(|report| Some(report.member) == verdict.primary && report.said == Said::Primary);
    let lineage = match (chosen, verdict.reason) {
        (None, _) => known.lineage,
        (Some(chosen), Reason::Replaced) => chosen.lineage,
        // Another cluster of those that are equal.
        (Some(chosen), _) if differ(known.lineage.system_identifier, chosen.lineage.system_identifier) => {
            chosen.lineage
        }
        (Some(chosen), _) => Lineage {
            system_identifier: chosen.lineage.system_identifier.or(known.lineage.system_identifier),
            timeline: chosen.lineage.timeline.max(known.lineage.timeline),
        },
    };
    Known { primary: verdict.primary, lineage, equals: verdict.equals }
}

/// May who shows `lineage` not continue what a primary of `known` has written?
pub(super) fn is_of_the_past(known: Lineage, lineage: Lineage) -> bool {
    let is_stranger = differ(known.system_identifier, lineage.system_identifier);
    is_stranger || known.timeline.zip(lineage.timeline).is_some_and(|(known, own)| own < known)
}

/// Which history of which cluster a member's positions belong to, as far as it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    /// Same for all members of one cluster.
    pub system_identifier: Option<u64>,
    /// Another one after each promotion.
    pub timeline: Option<u32>,
}

/// Does `replica` certainly follow another history than `primary` writes? Then its positions say nothing.
pub fn is_split_off(primary: Lineage, replica: Lineage) -> bool {
    let is_stranger = differ(primary.system_identifier, replica.system_identifier);
    is_stranger || differ(primary.timeline, replica.timeline)
}

/// What is known of the history that the primary writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct History {
    primary: Lineage,
    has_moved: bool,
}

impl History {
    /// The primary has answered.
    pub fn continues(&mut self, primary: Lineage) {
        self.primary = primary;
    }

    /// There is another primary: a replica may have been left behind on the old one's history.
    pub fn moves(&mut self) {
        *self = Self { primary: Lineage::default(), has_moved: true };
    }

    /// Must the positions of this replica not be compared with the primary's? After a change of primary a replica
    /// has to say which timeline it streams.
    pub fn leaves_out(&self, replica: Lineage) -> bool {
        is_split_off(self.primary, replica) || (self.has_moved && replica.timeline.is_none())
    }
}

fn differ<T: PartialEq>(one: Option<T>, other: Option<T>) -> bool {
    one.zip(other).is_some_and(|(one, other)| one != other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Said::{Closed, Primary, Replica, Silent, Unasked};

    fn of(system_identifier: u64, timeline: u32) -> Lineage {
        Lineage { system_identifier: Some(system_identifier), timeline: Some(timeline) }
    }

    fn reports(said: &[(Said, Lineage)]) -> Vec<Report> {
        let report = |((said, lineage), id): (&(Said, Lineage), u16)| Report {
            member: MemberId(id),
            said: *said,
            lineage: *lineage,
            is_equal: false,
        };
        said.iter().zip(0..).map(report).collect()
    }

    fn known(primary: Option<u16>, lineage: Lineage) -> Known {
        Known { primary: primary.map(MemberId), lineage, equals: MemberSet::default() }
    }

    #[track_caller]
    fn check(known: Known, said: &[(Said, Lineage)], primary: Option<u16>, reason: Reason, has_rivals: bool) {
        let expected = Verdict { primary: primary.map(MemberId), reason, has_rivals, equals: MemberSet::default() };
        assert_eq!(super::primary(&reports(said), known), expected);
    }

    /// Members of one cluster on one timeline; the first is the known primary.
    #[track_caller]
    fn check_alike(said: &[Said], primary: Option<u16>, reason: Reason, has_rivals: bool) {
        let said: Vec<_> = said.iter().map(|said| (*said, of(7, 1))).collect();
        check(known(Some(0), of(7, 1)), &said, primary, reason, has_rivals);
    }

    #[test]
    fn the_only_member_out_of_recovery_is_the_primary() {
        check_alike(&[Primary, Replica, Replica], Some(0), Reason::OnlyOne, false);
        check_alike(&[Replica, Primary, Replica], Some(1), Reason::OnlyOne, false);
        check_alike(&[Silent, Silent, Primary], Some(2), Reason::OnlyOne, false);
    }

    #[test]
    fn of_primaries_on_one_timeline_the_known_one_stays_or_the_first_configured_is_taken() {
        check_alike(&[Primary, Primary], Some(0), Reason::KnownAmongSeveral, true);
        check_alike(&[Silent, Primary, Primary], Some(1), Reason::FirstOfSeveral, true);
    }

    #[test]
    fn who_was_promoted_last_is_the_primary() {
        let both = [(Primary, of(7, 1)), (Primary, of(7, 2))];
        check(known(Some(0), of(7, 1)), &both, Some(1), Reason::NewestTimeline, true);
        check(known(None, Lineage::default()), &both, Some(1), Reason::NewestTimeline, true);
    }

    #[test]
    fn a_primary_of_the_past_takes_no_writes_though_the_new_one_is_silent() {
        let members = [(Primary, of(7, 1)), (Silent, of(7, 2))];
        check(known(Some(1), of(7, 2)), &members, Some(1), Reason::KnownSilent, true);
        check(known(None, of(7, 2)), &members, None, Reason::NoPrimary, true);
        check(known(Some(1), of(7, 2)), &[(Primary, of(7, 1)), (Primary, of(7, 2))], Some(1), Reason::OnlyOne, true);
    }

    #[test]
    fn a_server_of_another_cluster_never_takes_the_primarys_place() {
        let members = [(Silent, of(7, 1)), (Primary, of(8, 3))];
        check(known(Some(0), of(7, 1)), &members, Some(0), Reason::KnownSilent, true);
    }

    #[test]
    fn a_cluster_that_is_restored_or_upgraded_in_place_stays_where_it_was() {
        for lineage in [of(8, 1), of(7, 1)] {
            let members = [(Primary, lineage), (Silent, of(7, 2))];
            check(known(Some(0), of(7, 2)), &members, Some(0), Reason::Replaced, false);
            let verdict = super::primary(&reports(&members), known(Some(0), of(7, 2)));
            let next = remember(known(Some(0), of(7, 2)), &reports(&members), verdict);
            assert_eq!(next, known(Some(0), lineage));
        }
        let promoted = [(Primary, of(8, 1)), (Primary, of(7, 3))];
        check(known(Some(0), of(7, 2)), &promoted, Some(1), Reason::OnlyOne, true);
    }

    #[test]
    fn a_silent_primary_stays_primary_until_another_speaks_up() {
        check_alike(&[Silent, Replica, Replica], Some(0), Reason::KnownSilent, false);
        check_alike(&[Silent, Silent], Some(0), Reason::KnownSilent, false);
        check_alike(&[Unasked, Replica], Some(0), Reason::KnownSilent, false);
    }

    #[test]
    fn a_primary_that_became_a_replica_takes_no_writes_though_it_is_silent_then() {
        check_alike(&[Replica, Replica], None, Reason::NoPrimary, false);
        let members = reports(&[(Replica, of(7, 1)), (Replica, of(7, 1))]);
        let before = known(Some(0), of(7, 1));
        let next = remember(before, &members, super::primary(&members, before));
        assert_eq!(next, known(None, of(7, 1)));
        check(next, &[(Silent, of(7, 1)), (Replica, of(7, 1))], None, Reason::NoPrimary, false);
    }

    #[test]
    fn at_first_every_member_is_heard_before_one_is_believed() {
        let nobody = Known::default();
        check(nobody, &[(Primary, of(7, 1)), (Unasked, Lineage::default())], None, Reason::Asking, false);
        check(nobody, &[(Primary, of(7, 1)), (Silent, Lineage::default())], Some(0), Reason::OnlyOne, false);
        check(nobody, &[(Silent, Lineage::default()), (Silent, Lineage::default())], None, Reason::NoPrimary, false);
    }

    #[test]
    fn where_nobody_can_be_asked_the_file_is_believed() {
        let (nobody, nothing) = (Known::default(), Lineage::default());
        check(nobody, &[(Closed, nothing), (Closed, nothing)], Some(0), Reason::Configured, false);
        check(nobody, &[(Closed, nothing), (Replica, of(7, 1))], Some(0), Reason::Configured, false);
        check(nobody, &[(Closed, nothing), (Primary, of(7, 1))], Some(1), Reason::OnlyOne, false);
        check(nobody, &[(Silent, nothing), (Closed, nothing)], None, Reason::NoPrimary, false);
        check(known(None, of(7, 1)), &[(Closed, nothing), (Replica, of(7, 1))], None, Reason::NoPrimary, false);
    }

    #[test]
    fn without_lineages_members_are_believed() {
        let nothing = Lineage::default();
        check(known(Some(0), nothing), &[(Silent, nothing), (Primary, nothing)], Some(1), Reason::OnlyOne, false);
        check(known(Some(0), of(7, 2)), &[(Silent, of(7, 2)), (Primary, nothing)], Some(1), Reason::OnlyOne, false);
    }

    #[test]
    fn after_a_change_of_primary_a_replica_must_say_which_timeline_it_streams() {
        let lineage = |timeline| Lineage { system_identifier: Some(7), timeline };
        let mut history = History::default();
        history.continues(lineage(Some(1)));
        assert!(!history.leaves_out(lineage(None)));
        history.moves();
        assert!(history.leaves_out(lineage(None)));
        history.continues(lineage(Some(2)));
        assert!(history.leaves_out(lineage(Some(1))));
        assert!(!history.leaves_out(lineage(Some(2))));
    }

    #[test]
    fn a_replica_of_another_cluster_or_timeline_is_split_off() {
        let lineage = |system, timeline| Lineage { system_identifier: system, timeline };
        let primary = lineage(Some(7), Some(2));
        for (replica, expected) in [
            (lineage(Some(7), Some(2)), false),
            (lineage(Some(8), Some(2)), true),
            (lineage(Some(7), Some(1)), true),
            (lineage(None, Some(1)), true),
            (lineage(Some(7), None), false),
            (lineage(None, None), false),
        ] {
            assert_eq!(is_split_off(primary, replica), expected, "{replica:?}");
        }
    }
}
