//! Who is primary, by what the members say of themselves; pure.

use crate::routing::MemberId;

/// What a member last said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It does not answer, or has not been asked.
    Nothing,
    /// It takes writes.
    Primary,
    /// It is in recovery.
    Replica,
}

/// Why the verdict is what it is: the `reason` label of role metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// One member says it is primary.
    OnlyOne,
    /// Several say so, and one of them is the one we knew.
    KnownAmongSeveral,
    /// Several say so, and none of them is the one we knew: the first configured.
    FirstOfSeveral,
    /// Nobody says so, and the known one is silent: nothing better is known.
    KnownSilent,
    /// Nobody says so, and the known one says it is a replica.
    NoPrimary,
}

impl Reason {
    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::OnlyOne => "only_one",
            Self::KnownAmongSeveral => "known_among_several",
            Self::FirstOfSeveral => "first_of_several",
            Self::KnownSilent => "known_silent",
            Self::NoPrimary => "no_primary",
        }
    }

    /// Two members take writes: the operator must act.
    pub fn is_conflict(self) -> bool {
        matches!(self, Self::KnownAmongSeveral | Self::FirstOfSeveral)
    }
}

/// Who is primary, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Where writes go; `None` while there is no primary.
    pub primary: Option<MemberId>,
    /// Why.
    pub reason: Reason,
}

/// Decides from what each member said; `members` is in configured order, `known` is the last primary (at first the
/// configured one).
pub fn primary(members: &[(MemberId, Said)], known: MemberId) -> Verdict {
    let says = |wanted| members.iter().filter(move |(_, said)| *said == wanted).map(|(id, _)| *id);
    let is_known = |id: &MemberId| *id == known;
    let mut primaries = says(Said::Primary);
    let (primary, reason) = match (primaries.next(), primaries.next()) {
        (Some(only), None) => (Some(only), Reason::OnlyOne),
        (Some(_), Some(_)) if says(Said::Primary).any(|id| is_known(&id)) => (Some(known), Reason::KnownAmongSeveral),
        (Some(first), Some(_)) => (Some(first), Reason::FirstOfSeveral),
        (None, _) if says(Said::Replica).any(|id| is_known(&id)) => (None, Reason::NoPrimary),
        (None, _) => (Some(known), Reason::KnownSilent),
    };
    Verdict { primary, reason }
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
    use Said::{Nothing, Primary, Replica};

    const KNOWN: MemberId = MemberId(0);

    #[track_caller]
    fn check(said: &[Said], expected: Option<u16>, reason: Reason) {
        let members: Vec<_> = said.iter().zip(0..).map(|(said, id)| (MemberId(id), *said)).collect();
        assert_eq!(primary(&members, KNOWN), Verdict { primary: expected.map(MemberId), reason });
    }

    #[test]
    fn the_only_member_out_of_recovery_is_the_primary() {
        check(&[Primary, Replica, Replica], Some(0), Reason::OnlyOne);
        check(&[Replica, Primary, Replica], Some(1), Reason::OnlyOne);
        check(&[Nothing, Nothing, Primary], Some(2), Reason::OnlyOne);
    }

    #[test]
    fn of_two_primaries_the_known_one_stays() {
        check(&[Primary, Primary], Some(0), Reason::KnownAmongSeveral);
        assert!(Reason::KnownAmongSeveral.is_conflict());
    }

    #[test]
    fn of_two_unknown_primaries_the_first_configured_is_taken() {
        check(&[Nothing, Primary, Primary], Some(1), Reason::FirstOfSeveral);
    }

    #[test]
    fn a_silent_primary_stays_primary_until_another_speaks_up() {
        check(&[Nothing, Replica, Replica], Some(0), Reason::KnownSilent);
        check(&[Nothing, Nothing], Some(0), Reason::KnownSilent);
    }

    #[test]
    fn a_primary_that_became_a_replica_takes_no_writes() {
        check(&[Replica, Replica], None, Reason::NoPrimary);
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
