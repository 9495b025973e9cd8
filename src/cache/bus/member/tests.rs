//! One member, and what others say to it.

use std::sync::Arc;

use super::Member;
use crate::{
    cache::{
        UnderWay,
        bus::{
            Times,
            frame::{Message, NodeId, Note, Told, Unfinished},
        },
        invalidation::{Cells, Totals, WriteId, WriteSet},
    },
    catalog::RelationOid,
};

const MS: u64 = 1_000_000;
const T: RelationOid = RelationOid(16_400);
const ME: NodeId = NodeId(2);
const OTHER: NodeId = NodeId(1);

fn write_of(relation: RelationOid) -> WriteSet {
    WriteSet { relations: [relation].into(), ..WriteSet::default() }
}

fn in_flight(cells: &Cells) -> u32 {
    cells.report().iter().filter(|cell| cell.relation == T).map(|cell| cell.in_flight).sum()
}

/// One that has joined at zero and knows another one, in whose process 7 a write to [`T`] is under way.
fn beside_one_that_writes() -> (Member, Arc<Cells>) {
    let cells = Arc::new(Cells::new(5, 1));
    let mut member = Member::new(ME, Times::default(), &cells);
    member.joined(&cells, 0);
    member.listed(&cells, 0, 0, &[OTHER, ME].into());
    member.tick(&cells, 0, 3);
    let unfinished = vec![Unfinished { write: WriteId(9), process_id: 7, set: write_of(T) }];
    let welcome = Note::Welcome { to: ME, sent_at: 0, is_settled: true, unfinished };
    let message = Message { from: OTHER, sequence: 5, told: Vec::new(), notes: vec![welcome] };
    member.hear(&cells, message, 1, 4);
    assert_eq!(in_flight(&cells), 1);
    (member, cells)
}

fn under_way(process_id: i32, transaction: &str) -> UnderWay {
    let relations = [T].into();
    UnderWay { process_id, transaction: transaction.into(), relations, catalog: false, is_busy: false }
}

#[test]
fn what_a_lost_proxy_had_begun_is_marked_until_its_transaction_is_over_and_no_longer() {
    let (mut member, cells) = beside_one_that_writes();
    for at in [900, 1_800, 2_700] {
        member.listed(&cells, at * MS, at * MS, &[ME].into());
        member.tick(&cells, at * MS, 3);
    }
    assert_eq!((member.figures().lost, in_flight(&cells)), (1, 1));
    member.looked(&cells, 2_800 * MS, 2_800 * MS, 3, &[]);
    assert_eq!(in_flight(&cells), 1, "what it has sent may still be on its way");
    member.looked(&cells, 3_900 * MS, 3_900 * MS, 3, &[under_way(7, "3/8"), under_way(8, "4/1")]);
    assert!(in_flight(&cells) >= 1 && member.wants_look(4_300 * MS));
    member.looked(&cells, 4_100 * MS, 4_100 * MS, 3, &[under_way(7, "3/9"), under_way(8, "4/2")]);
    assert_eq!(in_flight(&cells), 0, "its server process lives on, with another transaction");
    assert!(!member.wants_look(4_200 * MS));
}

#[test]
fn what_is_under_way_when_one_joins_is_marked_and_what_begins_later_is_told() {
    let cells = Arc::new(Cells::new(5, 1));
    let mut member = Member::new(ME, Times::default(), &cells);
    member.joined(&cells, 0);
    for at in [0, 900, 1_800] {
        member.listed(&cells, at * MS, at * MS, &[ME].into());
        member.tick(&cells, at * MS, 3);
        assert!(!member.is_settled(), "nobody has looked");
    }
    member.looked(&cells, 1_850 * MS, 1_860 * MS, 3, &[under_way(7, "3/8")]);
    member.tick(&cells, 1_860 * MS, 3);
    assert!(member.is_settled() && in_flight(&cells) == 1);
    member.looked(&cells, 2_000 * MS, 2_010 * MS, 3, &[under_way(7, "3/8"), under_way(8, "4/1")]);
    assert_eq!(in_flight(&cells), 1);
    member.looked(&cells, 2_200 * MS, 2_210 * MS, 3, &[under_way(8, "4/1")]);
    assert_eq!(in_flight(&cells), 0);
}

#[test]
fn stamps_that_come_late_are_taken_though_they_were_asked_for_again() {
    let (mut member, cells) = beside_one_that_writes();
    for at in [900, 1_800] {
        member.listed(&cells, at * MS, at * MS, &[OTHER, ME].into());
    }
    member.looked(&cells, 1_850 * MS, 1_850 * MS, 3, &[]);
    let mut asked = Vec::new();
    for at in [1_850, 1_960, 2_070] {
        member.tick(&cells, at * MS, 3);
        let notes = member.take_message(&cells, at * MS).map(|message| message.notes).unwrap_or_default();
        asked.extend(notes.into_iter().filter_map(|note| match note {
            Note::Ask { sent_at, .. } => Some(sent_at),
            _ => None,
        }));
    }
    assert_eq!(asked, [1_850 * MS, 1_960 * MS, 2_070 * MS]);
    let answer = |sent_at| {
        let (heard, totals) = (vec![(ME, 100), (OTHER, 5)], Totals::default());
        let note = Note::Totals { to: ME, sent_at, heard, totals, unfinished: Vec::new() };
        Message { from: OTHER, sequence: 5, told: Vec::new(), notes: vec![note] }
    };
    member.hear(&cells, answer(1_700 * MS), 2_080 * MS, 4);
    assert!(!member.is_settled(), "what somebody else was told, or it in another life");
    member.hear(&cells, answer(1_850 * MS), 2_090 * MS, 4);
    assert!(member.is_settled());
}

#[test]
fn who_waits_for_stamps_that_do_not_come_remembers_no_more_than_a_bound() {
    let (mut member, cells) = beside_one_that_writes();
    member.listed(&cells, 900 * MS, 900 * MS, &[OTHER, ME].into());
    member.listed(&cells, 1_800 * MS, 1_800 * MS, &[OTHER, ME].into());
    member.looked(&cells, 1_850 * MS, 1_850 * MS, 3, &[]);
    member.tick(&cells, 1_850 * MS, 3);
    for number in 6..100_006 {
        let told = vec![Told::Bump { set: write_of(T), draw: number }];
        member.hear(&cells, Message { from: OTHER, sequence: number, told, notes: Vec::new() }, 1_900 * MS, 4);
        let remembered = member.remembered();
        assert!(remembered <= 16_384, "{remembered}");
    }
    assert!(!member.is_settled());
}
