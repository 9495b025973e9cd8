//! Which members take writes where some are configured as equal (`role = any`): clusters of their own, each with its part
//! of the traffic. Pure.

use std::cmp::Reverse;

use super::roles::{Known, Report, Said, is_of_the_past};
use crate::routing::MemberSet;

/// Those that take writes by what they say of themselves; of one that has fallen silent, what it said last still holds.
///
/// Each must have shown a system identifier of its own: copies of one cluster are never equal, whatever the file says. Of
/// several that claim to go on with one cluster it is the one that was promoted last, else the one that did so before,
/// else the first one of the file. A replica that is promoted takes the place of the equal member that it is a copy of.
pub(super) fn writers(reports: &[Report], known: Known) -> MemberSet {
    let writes = |report: &&Report| takes_writes(report, reports, known);
    reports.iter().filter(writes).fold(MemberSet::default(), |writers, report| writers.with(report.member))
}

fn takes_writes(report: &Report, reports: &[Report], known: Known) -> bool {
    let stands_for_equal = || reports.iter().any(|other| other.is_equal && is_same_cluster(other, report));
    if !(report.is_equal || stands_for_equal()) || is_beaten(report, reports, known) {
        return false;
    }
    match report.said {
        Said::Primary => {
            let is_known = known.lineage.system_identifier == report.lineage.system_identifier;
            report.lineage.system_identifier.is_some() && !(is_known && is_of_the_past(known.lineage, report.lineage))
        }
        Said::Replica => false,
        Said::Unasked | Said::Silent | Said::Closed => has_written(report, known),
    }
}

/// Does another one go on with the same cluster instead?
fn is_beaten(report: &Report, reports: &[Report], known: Known) -> bool {
    let rank = |report: &Report| (report.lineage.timeline, has_written(report, known), Reverse(report.member));
    let copies = reports.iter().filter(|other| other.member != report.member && is_same_cluster(other, report));
    copies.into_iter().any(|other| match other.said {
        Said::Primary => rank(other) > rank(report),
        _ => other.lineage.timeline > report.lineage.timeline,
    })
}

fn has_written(report: &Report, known: Known) -> bool {
    known.primary == Some(report.member) || known.equals.contains(report.member)
}

fn is_same_cluster(one: &Report, other: &Report) -> bool {
    one.lineage.system_identifier.is_some() && one.lineage.system_identifier == other.lineage.system_identifier
}

#[cfg(test)]
mod tests {
    use super::{
        super::roles::{Lineage, Reason, primary, remember},
        *,
    };
    use crate::routing::MemberId;
    use Said::{Primary, Replica, Silent, Unasked};

    fn of(system_identifier: u64, timeline: u32) -> Lineage {
        Lineage { system_identifier: Some(system_identifier), timeline: Some(timeline) }
    }

    fn set(members: &[u16]) -> MemberSet {
        members.iter().fold(MemberSet::default(), |set, member| set.with(MemberId(*member)))
    }

    fn known(primary: Option<u16>, lineage: Lineage, equals: &[u16]) -> Known {
        Known { primary: primary.map(MemberId), lineage, equals: set(equals) }
    }

    /// Equal members, but for `replicas`.
    fn reports(said: &[(Said, Lineage)], replicas: &[u16]) -> Vec<Report> {
        let report = |((said, lineage), id): (&(Said, Lineage), u16)| Report {
            member: MemberId(id),
            said: *said,
            lineage: *lineage,
            is_equal: !replicas.contains(&id),
        };
        said.iter().zip(0..).map(report).collect()
    }

    #[track_caller]
    fn check(known: Known, reports: &[Report], first: u16, others: &[u16], has_rivals: bool) {
        let verdict = primary(reports, known);
        let found = (verdict.primary, verdict.equals, verdict.has_rivals);
        assert_eq!(found, (Some(MemberId(first)), set(others), has_rivals), "{verdict:?}");
    }

    #[test]
    fn clusters_that_are_configured_as_equal_all_take_writes() {
        let three = reports(&[(Primary, of(7, 1)), (Primary, of(8, 1)), (Primary, of(9, 3))], &[]);
        check(known(None, Lineage::default(), &[]), &three, 0, &[1, 2], false);
        check(known(Some(1), of(8, 1), &[0, 2]), &three, 1, &[0, 2], false);
        assert_eq!(primary(&three, known(Some(1), of(8, 1), &[0, 2])).reason, Reason::Equals);
        let one_reads = reports(&[(Primary, of(7, 1)), (Replica, of(8, 1)), (Primary, of(9, 3))], &[]);
        check(known(Some(0), of(7, 1), &[1, 2]), &one_reads, 0, &[2], false);
    }

    #[test]
    fn one_that_falls_silent_stays_what_it_was_and_another_one_speaks_for_them() {
        let first_is_silent = reports(&[(Silent, of(7, 1)), (Primary, of(8, 1)), (Primary, of(9, 3))], &[]);
        let before = known(Some(0), of(7, 1), &[1, 2]);
        check(before, &first_is_silent, 1, &[0, 2], false);
        let next = remember(before, &first_is_silent, primary(&first_is_silent, before));
        assert_eq!(next, known(Some(1), of(8, 1), &[0, 2]));
        let all_are_silent = reports(&[(Silent, of(7, 1)), (Silent, of(8, 1)), (Silent, of(9, 3))], &[]);
        check(next, &all_are_silent, 1, &[0, 2], false);
        let first_is_back = reports(&[(Primary, of(7, 1)), (Silent, of(8, 1)), (Silent, of(9, 3))], &[]);
        check(next, &first_is_back, 0, &[1, 2], false);
    }

    #[test]
    fn who_begins_to_ask_waits_for_all_and_after_a_reload_goes_on_with_those_it_knows() {
        let nothing = Lineage::default();
        let first = reports(&[(Primary, of(7, 1)), (Unasked, nothing), (Unasked, nothing)], &[]);
        assert_eq!(primary(&first, known(None, nothing, &[])).primary, None);
        check(known(Some(0), of(7, 1), &[1, 2]), &first, 0, &[1, 2], false);
        check(known(Some(0), of(7, 1), &[2]), &first, 0, &[2], false);
    }

    #[test]
    fn copies_of_one_cluster_are_not_equal_whatever_the_file_says() {
        let copies = reports(&[(Primary, of(7, 1)), (Primary, of(7, 2)), (Primary, of(8, 1))], &[]);
        check(known(Some(0), of(7, 1), &[2]), &copies, 1, &[2], true);
        let outdated = reports(&[(Primary, of(7, 1)), (Silent, of(7, 2))], &[]);
        check(known(Some(1), of(7, 2), &[]), &outdated, 1, &[], true);
        let alike = reports(&[(Primary, of(7, 1)), (Primary, of(7, 1))], &[]);
        check(known(Some(1), of(7, 1), &[]), &alike, 1, &[], true);
        check(known(None, Lineage::default(), &[]), &alike, 0, &[], true);
        let nameless = reports(&[(Primary, Lineage::default()), (Primary, Lineage::default())], &[]);
        check(known(Some(0), Lineage::default(), &[]), &nameless, 0, &[], true);
    }

    #[test]
    fn a_promoted_replica_takes_the_place_of_the_equal_member_that_it_was_a_copy_of() {
        let promoted = reports(&[(Silent, of(7, 1)), (Primary, of(8, 1)), (Primary, of(7, 2))], &[2]);
        check(known(Some(0), of(7, 1), &[1]), &promoted, 1, &[2], false);
        let is_back = reports(&[(Primary, of(7, 1)), (Primary, of(8, 1)), (Primary, of(7, 2))], &[2]);
        check(known(Some(1), of(8, 1), &[2]), &is_back, 1, &[2], true);
        let stranger = reports(&[(Primary, of(7, 1)), (Primary, of(8, 1)), (Primary, of(9, 1))], &[2]);
        check(known(Some(0), of(7, 1), &[1]), &stranger, 0, &[1], true);
    }
}
