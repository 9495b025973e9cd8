use std::sync::Weak;

use super::*;
use crate::{
    cache::invalidation::{Origin, Ticket, Totals, WriteId},
    routing::{MemberId, PrimarySamples},
};

const A: RelationOid = RelationOid(1);
const B: RelationOid = RelationOid(2);
const ALL: Touched<'_> = Touched::Database;

fn cells() -> Arc<Cells> {
    Arc::new(Cells::new(1, 1))
}

/// Distinct draws are enough where nothing is left to chance.
fn draw() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(3);
    NEXT.fetch_add(1_000_003, Ordering::Relaxed)
}

fn capture(cells: &Arc<Cells>, deps: &[RelationOid]) -> Result<Captured, Uncaptured> {
    cells.capture(deps, cells.catalog_epoch())
}

fn write(cells: &Arc<Cells>, relation: RelationOid) -> WriteGuard {
    cells.begin_write(Touched::Relations(&[relation]), false)
}

#[test]
fn a_commit_voids_what_was_captured_before_it_and_nothing_else() {
    let cells = cells();
    let (a, b) = (capture(&cells, &[A]).unwrap(), capture(&cells, &[B]).unwrap());
    write(&cells, A).committed(2, draw);
    assert!(!a.is_current() && b.is_current());
    assert!(capture(&cells, &[A]).unwrap().is_current());
}

#[test]
fn a_write_understood_with_an_older_catalog_voids_everything() {
    let cells = cells();
    let epoch = cells.catalog_epoch();
    let mut guard = write(&cells, A);
    guard.understood_with(Some(epoch));
    cells.bump_catalog(draw);
    let b = capture(&cells, &[B]).unwrap();
    guard.committed(2, draw);
    assert!(!b.is_current());
    let mut guard = write(&cells, A);
    guard.understood_with(Some(cells.catalog_epoch()));
    let b = capture(&cells, &[B]).unwrap();
    guard.committed(3, draw);
    assert!(b.is_current());
}

#[test]
fn while_a_write_is_in_flight_nothing_is_served_or_captured() {
    let cells = cells();
    let captured = capture(&cells, &[A, B]).unwrap();
    let guard = write(&cells, A);
    assert!(!captured.is_current());
    assert_eq!(capture(&cells, &[B, A]).unwrap_err(), Uncaptured::InFlight);
    assert!(capture(&cells, &[B]).is_ok());
    guard.rolled_back();
    assert!(captured.is_current(), "a rollback changes nothing");
}

#[test]
fn a_reveal_voids_at_once_and_keeps_the_mark() {
    let cells = cells();
    let captured = capture(&cells, &[A]).unwrap();
    let guard = write(&cells, A);
    guard.reveal(2, draw);
    assert_eq!(capture(&cells, &[A]).unwrap_err(), Uncaptured::InFlight);
    guard.rolled_back();
    assert!(!captured.is_current());
}

#[test]
fn a_write_to_anything_stops_and_voids_everything() {
    let cells = cells();
    let captured = capture(&cells, &[A]).unwrap();
    let nothing = capture(&cells, &[]).unwrap();
    let guard = cells.begin_write(ALL, false);
    assert!(!captured.is_current() && !nothing.is_current());
    assert_eq!(capture(&cells, &[]).unwrap_err(), Uncaptured::InFlight);
    guard.committed(2, draw);
    assert!(!captured.is_current() && !nothing.is_current());
    assert!(capture(&cells, &[A]).is_ok());
}

#[test]
fn a_lock_set_narrows_a_write_to_what_it_touched() {
    let cells = cells();
    let (a, b) = (capture(&cells, &[A]).unwrap(), capture(&cells, &[B]).unwrap());
    let mut guard = cells.begin_write(ALL, true);
    guard.replace(Touched::Relations(&[A]), false);
    assert!(b.is_current() && !a.is_current());
    guard.committed(2, draw);
    assert!(b.is_current() && !a.is_current());
}

#[test]
fn a_widened_write_covers_the_old_and_the_new() {
    let cells = cells();
    let (a, b) = (capture(&cells, &[A]).unwrap(), capture(&cells, &[B]).unwrap());
    let mut guard = write(&cells, A);
    guard.widen(Touched::Relations(&[A, B, B]), false);
    guard.widen(ALL, false);
    guard.widen(ALL, false);
    guard.committed(2, draw);
    assert!(!a.is_current() && !b.is_current());
    assert!(capture(&cells, &[A, B]).is_ok(), "every mark is gone");
}

#[test]
fn a_write_of_nothing_marks_nothing_and_is_never_in_doubt() {
    let cells = cells();
    let guard = cells.begin_write(Touched::Relations(&[]), false);
    assert!(guard.is_empty());
    drop(guard);
    assert_eq!(cells.in_doubt(), 0);
}

#[test]
fn a_change_of_the_catalog_voids_all_and_bars_what_was_understood_before() {
    let cells = cells();
    let epoch = cells.catalog_epoch();
    let captured = cells.capture(&[A], epoch).unwrap();
    cells.begin_write(Touched::Relations(&[B]), true).committed(2, draw);
    assert!(!captured.is_current());
    assert_eq!(cells.capture(&[A], epoch).unwrap_err(), Uncaptured::CatalogMoved);
    assert!(capture(&cells, &[A]).is_ok());
}

#[test]
fn a_load_that_began_before_a_change_of_the_catalog_gives_no_right_to_fill() {
    let cells = cells();
    let guard = cells.begin_write(Touched::Relations(&[]), true);
    let epoch_of_load = cells.catalog_epoch();
    guard.committed(2, draw);
    assert_eq!(cells.capture(&[A], epoch_of_load).unwrap_err(), Uncaptured::CatalogMoved);
}

#[test]
fn a_guard_without_a_verdict_stays_in_flight_until_it_is_resolved() {
    let cells = cells();
    let captured = capture(&cells, &[A]).unwrap();
    let origin = Origin { entry: 1, member: MemberId(3), process_id: 77 };
    let mut guard = write(&cells, A);
    guard.runs_on(origin);
    drop(guard);
    assert_eq!(capture(&cells, &[A]).unwrap_err(), Uncaptured::InFlight);
    let [in_doubt] = <[InDoubt; 1]>::try_from(cells.take_in_doubt()).unwrap();
    assert_eq!((in_doubt.origin(), cells.in_doubt()), (Some(origin), 0));
    in_doubt.resolve(2, draw);
    assert!(!captured.is_current() && capture(&cells, &[A]).is_ok());
}

#[test]
fn a_doubt_that_is_not_resolved_comes_back() {
    let cells = cells();
    drop(write(&cells, A));
    drop(cells.take_in_doubt());
    assert_eq!(cells.in_doubt(), 1);
}

#[test]
fn a_closed_cache_refuses_and_serves_nothing_from_before_when_it_reopens() {
    let cells = cells();
    let captured = capture(&cells, &[A]).unwrap();
    cells.close(Closure::Primary);
    assert!(!captured.is_current());
    assert_eq!(capture(&cells, &[A]).unwrap_err(), Uncaptured::Closed(Closure::Primary));
    cells.reopen(Closure::Primary, 2, draw);
    assert!(!captured.is_current() && capture(&cells, &[A]).is_ok());
}

#[test]
fn a_flush_voids_one_relation_or_all() {
    let cells = cells();
    let (a, b) = (capture(&cells, &[A]).unwrap(), capture(&cells, &[B]).unwrap());
    cells.flush(Some(A), 2, draw);
    assert!(!a.is_current() && b.is_current());
    cells.flush(None, 2, draw);
    assert!(!b.is_current());
}

#[test]
fn the_fence_of_a_read_is_the_last_write_to_anything_it_reads() {
    let cells = cells();
    write(&cells, A).committed(10, draw);
    write(&cells, B).committed(20, draw);
    let check = |deps, written_at| assert_eq!(cells.fence(deps), Fence::after(written_at));
    check(Some(&[A][..]), 10);
    check(Some(&[A, B][..]), 20);
    check(Some(&[RelationOid(9)][..]), 1);
    check(None, 20);
    assert_eq!(capture(&cells, &[A]).unwrap().fence(), Fence::after(10));
}

#[test]
fn a_write_to_anything_or_to_the_catalog_fences_every_read() {
    let cells = cells();
    cells.begin_write(ALL, false).committed(10, draw);
    assert_eq!(cells.fence(Some(&[A])), Fence::after(10));
    cells.begin_write(Touched::Relations(&[B]), true).committed(20, draw);
    assert_eq!(capture(&cells, &[A]).unwrap().fence(), Fence::after(20));
}

#[test]
fn a_watermark_is_unknown_until_the_primary_was_asked_after_the_write() {
    let cells = cells();
    write(&cells, A).committed(10, draw);
    assert_eq!(cells.watermark(Some(&[A]), &PrimarySamples::new(8)), Watermark::Unknown);
}

#[test]
fn cells_that_nobody_holds_go_and_leave_their_time_behind() {
    let cells = cells();
    let held = capture(&cells, &[A]).unwrap();
    let in_flight = write(&cells, B);
    cells.begin_write(Touched::Relations(&[RelationOid(3)]), false).committed(50, draw);
    cells.sweep();
    let mut left: Vec<_> = cells.report().iter().map(|line| line.relation).collect();
    left.sort();
    assert_eq!(left, [A, B]);
    assert_eq!(cells.fence(Some(&[RelationOid(3)])), Fence::after(50));
    in_flight.rolled_back();
    assert!(!held.is_current(), "what moved the stamp of the third moves the generation");
    let held = capture(&cells, &[A]).unwrap();
    write(&cells, B).rolled_back();
    cells.sweep();
    assert!(held.is_current(), "a cell that was never written leaves without a trace");
}

#[test]
fn stamps_of_before_never_come_again_though_a_cell_begins_anew() {
    let cells = cells();
    let encoded = || {
        let mut bytes = Vec::new();
        capture(&cells, &[A]).unwrap().encode_into(&mut bytes);
        bytes
    };
    let before = encoded();
    write(&cells, A).committed(7, draw);
    let written = encoded();
    cells.sweep();
    let swept = encoded();
    assert!(before != written && written != swept && before != swept);
}

/// Who asks for the sums of stamps in front of each move of them.
#[derive(Debug)]
struct Asker {
    cells: Weak<Cells>,
    told: Mutex<Vec<Totals>>,
}

impl Peers for Asker {
    fn begin(&self, _: WriteSet, _: i32) -> (WriteId, Ticket) {
        (WriteId(1), Ticket::NONE)
    }

    fn bump(&self, _: WriteSet, _: u64, here: &mut dyn FnMut()) -> Ticket {
        lock(&self.told).push(self.cells.upgrade().unwrap().totals());
        here();
        Ticket::NONE
    }

    fn end(&self, _: WriteId) {}
}

#[test]
fn whoever_asks_for_stamps_during_a_sweep_is_told_of_a_cell_or_of_what_stands_for_it() {
    let cells = cells();
    let asker = Arc::new(Asker { cells: Arc::downgrade(&cells), told: Mutex::default() });
    cells.join(Arc::clone(&asker) as Arc<dyn Peers>);
    write(&cells, A).committed(7, draw);
    let before = cells.totals();
    cells.sweep();
    let told = lock(&asker.told).pop().unwrap();
    assert_eq!((told, cells.totals().relations), (before.clone(), vec![]));
    assert_ne!(cells.totals().database, before.database);
}

#[test]
fn stamps_are_encoded_alike_in_any_order_and_otherwise_only_if_they_are_the_same() {
    let cells = cells();
    let encoded = |deps: &[RelationOid]| {
        let mut bytes = Vec::new();
        capture(&cells, deps).unwrap().encode_into(&mut bytes);
        bytes
    };
    write(&cells, A).committed(1, draw);
    assert_eq!(encoded(&[A, B]), encoded(&[B, A]));
    let all = [encoded(&[]), encoded(&[A]), encoded(&[B]), encoded(&[A, B])];
    for (at, one) in all.iter().enumerate() {
        assert!(all.iter().skip(at + 1).all(|other| one != other));
    }
    let held = capture(&cells, &[A, B]).unwrap();
    assert!(held.is_same(&capture(&cells, &[A, B]).unwrap()));
    assert!(!held.is_same(&capture(&cells, &[A]).unwrap()));
    write(&cells, B).committed(2, draw);
    assert!(!held.is_same(&capture(&cells, &[A, B]).unwrap()));
}

#[test]
fn the_number_of_cells_stays_bounded_by_what_is_in_use() {
    let cells = cells();
    for oid in 0..3 * u32::try_from(CELLS_BETWEEN_SWEEPS).unwrap() {
        write(&cells, RelationOid(oid)).rolled_back();
    }
    assert!(cells.report().len() <= CELLS_BETWEEN_SWEEPS);
}

mod rows {
    use super::*;
    use crate::{
        cache::invalidation::{Deps, Totals},
        catalog::KeyId,
    };

    /// More than there are cells, so that two are in the same one.
    const CELLS: u64 = 2048;

    fn row(number: u64) -> Row {
        Row { relation: A, key: KeyId(1), number }
    }

    fn ask(cells: &Arc<Cells>, number: u64) -> Result<Captured, Uncaptured> {
        cells.capture(Deps { relations: &[A], row: Some(row(number)) }, cells.catalog_epoch())
    }

    fn write_row(cells: &Arc<Cells>, number: u64) -> WriteGuard {
        cells.begin_write(Touched::Rows(&[row(number)]), false)
    }

    fn is_divided(cells: &Arc<Cells>) -> bool {
        cells.report().iter().any(|line| line.by_key.is_some())
    }

    /// A table whose rows have cells.
    fn divided() -> Arc<Cells> {
        let cells = cells();
        ask(&cells, 1).unwrap();
        (0..10).for_each(|_| write_row(&cells, 1).rolled_back());
        assert!(is_divided(&cells));
        cells
    }

    #[test]
    fn a_write_by_key_voids_that_key_and_whoever_reads_the_table() {
        let cells = divided();
        let (one, two, all) = (ask(&cells, 1).unwrap(), ask(&cells, 2).unwrap(), capture(&cells, &[A]).unwrap());
        let guard = write_row(&cells, 1);
        assert!(!one.is_current() && two.is_current() && !all.is_current(), "while it is under way");
        assert_eq!(ask(&cells, 1).unwrap_err(), Uncaptured::InFlight);
        assert_eq!(ask(&cells, 1 + CELLS).unwrap_err(), Uncaptured::InFlight, "they share a cell");
        guard.committed(2, draw);
        assert!(!one.is_current() && two.is_current() && !all.is_current());
        assert!(ask(&cells, 1).unwrap().is_current() && capture(&cells, &[A]).unwrap().is_current());
    }

    #[test]
    fn a_write_of_unknown_rows_voids_every_key() {
        let cells = divided();
        let (one, all) = (ask(&cells, 1).unwrap(), capture(&cells, &[A]).unwrap());
        let guard = write(&cells, A);
        assert!(!one.is_current() && ask(&cells, 1).is_err());
        guard.committed(2, draw);
        assert!(!one.is_current() && !all.is_current() && ask(&cells, 1).unwrap().is_current());
    }

    #[test]
    fn what_voids_everything_voids_keys() {
        type Void = fn(&Arc<Cells>);
        let voids: [Void; 7] = [
            |cells| cells.flush(None, 2, draw),
            |cells| cells.flush(Some(A), 2, draw),
            |cells| cells.void(Some(&[A]), 2, draw),
            |cells| cells.void(None, 2, draw),
            |cells| cells.bump_catalog(draw),
            |cells| _ = cells.begin_write(Touched::Database, false).committed(2, draw),
            |cells| cells.move_stamps(&WriteSet { relations: [A].into(), ..WriteSet::default() }, 2, 77),
        ];
        for (number, void) in voids.iter().enumerate() {
            let cells = divided();
            let one = ask(&cells, 1).unwrap();
            void(&cells);
            assert!(!one.is_current(), "void {number}");
        }
    }

    #[test]
    fn a_write_that_began_before_rows_had_cells_keeps_out_who_asks_for_one() {
        let cells = cells();
        ask(&cells, 1).unwrap();
        let early = write_row(&cells, 1);
        assert!(!is_divided(&cells));
        (0..10).for_each(|_| write_row(&cells, 2).rolled_back());
        assert!(is_divided(&cells));
        assert_eq!(ask(&cells, 1).unwrap_err(), Uncaptured::InFlight);
        early.committed(2, draw);
        assert!(ask(&cells, 1).is_ok());
    }

    #[test]
    fn an_answer_from_before_rows_had_cells_is_voided_by_every_write() {
        let cells = cells();
        let one = ask(&cells, 1).unwrap();
        (0..10).for_each(|_| write_row(&cells, 2).rolled_back());
        assert!(is_divided(&cells) && one.is_current());
        write_row(&cells, 2).committed(2, draw);
        assert!(!one.is_current());
    }

    #[test]
    fn rows_get_cells_where_they_are_asked_for_and_written_and_while_there_is_room() {
        let cells = cells();
        (0..10).for_each(|_| write_row(&cells, 1).rolled_back());
        assert!(!is_divided(&cells), "nobody asks for a key");
        let of = |table| Row { relation: RelationOid(table), key: KeyId(1), number: 1 };
        for table in 0..200 {
            let relations = [RelationOid(table)];
            cells.capture(Deps { relations: &relations, row: Some(of(table)) }, cells.catalog_epoch()).unwrap();
            (0..10).for_each(|_| cells.begin_write(Touched::Rows(&[of(table)]), false).rolled_back());
        }
        assert_eq!(cells.with_rows(), (MOST_WITH_ROWS, MOST_WITH_ROWS));
        assert_eq!(cells.report().iter().filter(|line| line.by_key.is_some()).count(), MOST_WITH_ROWS);
    }

    #[test]
    fn what_bypassed_the_proxy_and_what_did_not_raise_the_fence_of_a_key() {
        let cells = divided();
        let fence = |number| ask(&cells, number).unwrap().fence();
        write_row(&cells, 1).committed(50, draw);
        assert_eq!((fence(1), fence(2)), (Fence::after(50), Fence::after(1)));
        cells.void(Some(&[A]), 60, draw);
        assert_eq!((fence(1), fence(2)), (Fence::after(60), Fence::after(60)));
    }

    #[test]
    fn a_transaction_of_several_rows_marks_and_releases_each_once() {
        let cells = divided();
        let (one, two, three) = (ask(&cells, 1).unwrap(), ask(&cells, 2).unwrap(), ask(&cells, 3).unwrap());
        let mut guard = cells.begin_write(Touched::Rows(&[row(1), row(2), row(1), row(1 + CELLS)]), false);
        assert_eq!(guard.set(), told(&[], &[1, 2]));
        guard.widen(Touched::Relations(&[A]), false);
        guard.widen(Touched::Rows(&[row(3)]), false);
        assert!(!three.is_current(), "the table is marked by then");
        guard.reveal(2, draw);
        guard.committed(3, draw);
        assert!(!one.is_current() && !two.is_current() && !three.is_current());
        assert!([1, 2, 3].into_iter().all(|number| ask(&cells, number).is_ok()) && capture(&cells, &[A]).is_ok());
    }

    #[test]
    fn rows_of_a_write_in_doubt_stay_marked_until_it_is_resolved() {
        let cells = divided();
        let one = ask(&cells, 1).unwrap();
        drop(write_row(&cells, 1));
        assert!(ask(&cells, 1).is_err() && ask(&cells, 2).is_ok());
        cells.take_in_doubt().into_iter().for_each(|doubt| doubt.resolve(2, draw));
        assert!(ask(&cells, 1).is_ok() && !one.is_current());
    }

    #[test]
    fn a_lock_set_in_place_of_rows_is_a_write_of_unknown_rows() {
        let cells = divided();
        let two = ask(&cells, 2).unwrap();
        let mut guard = write_row(&cells, 1);
        guard.replace(Touched::Relations(&[A]), false);
        guard.committed(2, draw);
        assert!(!two.is_current() && ask(&cells, 1).is_ok());
    }

    #[test]
    fn names_and_sums_tell_a_key_from_its_table_and_from_other_keys() {
        let cells = divided();
        let named = |captured: &Captured| {
            let mut bytes = Vec::new();
            captured.encode_into(&mut bytes);
            bytes
        };
        let (one, two, all) = (ask(&cells, 1).unwrap(), ask(&cells, 2).unwrap(), capture(&cells, &[A]).unwrap());
        assert!(named(&one) != named(&two) && named(&one) != named(&all) && !one.is_same(&two) && !one.is_same(&all));
        assert!(one.depends_on(A) && !one.depends_on(B));
        let sum = |number| cells.sum(Deps { relations: &[A], row: Some(row(number)) });
        let before = (sum(1), sum(2), cells.sum(&[A]));
        write_row(&cells, 1).committed(2, draw);
        assert!(sum(1) != before.0 && sum(2) == before.1 && cells.sum(&[A]) != before.2);
        write(&cells, A).committed(2, draw);
        assert!(sum(2) != before.1);
    }

    #[test]
    fn a_direct_write_of_rows_voids_these_where_rows_have_cells_and_else_their_tables() {
        let cells = divided();
        let (one, two, b) = (ask(&cells, 1).unwrap(), ask(&cells, 2).unwrap(), capture(&cells, &[B]).unwrap());
        cells.void_rows(&[], &[row(1), row(7)], 2, draw);
        assert!(!one.is_current() && two.is_current() && b.is_current());
        cells.void_rows(&[], &[Row { key: KeyId(2), ..row(1) }], 3, draw);
        assert!(!two.is_current(), "by another key");
        cells.void_rows(&[], &[Row { relation: B, ..row(1) }], 4, draw);
        assert!(!b.is_current() && !cells.report().iter().any(|line| line.relation == B && line.by_key.is_some()));
        let two = ask(&cells, 2).unwrap();
        cells.void_rows(&[A], &[row(1)], 5, draw);
        assert!(!two.is_current());
        assert_eq!(ask(&cells, 2).unwrap().fence(), Fence::after(5));
    }

    fn told(relations: &[RelationOid], places: &[u16]) -> WriteSet {
        let rows = [Places { relation: A, key: KeyId(1), places: places.into() }];
        WriteSet { relations: relations.into(), rows: rows.into(), ..WriteSet::default() }
    }

    #[test]
    fn what_another_proxy_tells_of_rows_divides_the_table_and_spares_other_keys() {
        let cells = cells();
        let before = ask(&cells, 2).unwrap();
        let guard = cells.mark_for_peer(&told(&[], &[1]));
        assert!(is_divided(&cells) && !before.is_current(), "who has asked before hangs on the table");
        assert_eq!(guard.set(), told(&[], &[1]));
        let two = ask(&cells, 2).unwrap();
        assert!(ask(&cells, 1).is_err() && ask(&cells, 1 + CELLS).is_err() && capture(&cells, &[A]).is_err());
        cells.move_stamps(&told(&[], &[1]), 2, 77);
        guard.rolled_back();
        assert!(two.is_current() && !before.is_current() && ask(&cells, 1).is_ok());
        let one = ask(&cells, 1).unwrap();
        cells.move_stamps(&told(&[], &[2]), 3, 77);
        assert!(one.is_current() && !two.is_current());
        cells.move_stamps(&told(&[A], &[2]), 3, 77);
        assert!(!one.is_current(), "all rows");
    }

    #[test]
    fn rows_that_are_told_by_another_key_are_any_rows() {
        let cells = divided();
        let two = ask(&cells, 2).unwrap();
        let mut other = told(&[], &[1]);
        other.rows[0].key = KeyId(2);
        let guard = cells.mark_for_peer(&other);
        assert!(ask(&cells, 2).is_err() && capture(&cells, &[A]).is_err());
        cells.move_stamps(&other, 2, 77);
        assert_eq!(guard.set().relations, [A].into());
        guard.rolled_back();
        assert!(!two.is_current());
        let stranger = Row { key: KeyId(2), ..row(2) };
        let deps = Deps { relations: &[A], row: Some(stranger) };
        let by_other = cells.capture(deps, cells.catalog_epoch()).unwrap();
        write_row(&cells, 7).committed(3, draw);
        assert!(!by_other.is_current(), "whoever asks by it hangs on the table");
        let three = ask(&cells, 3).unwrap();
        cells.begin_write(Touched::Rows(&[stranger]), false).committed(4, draw);
        assert!(!three.is_current());
    }

    #[test]
    fn where_there_is_no_room_rows_that_are_told_are_the_table() {
        let cells = cells();
        for table in 100..100 + u32::try_from(MOST_WITH_ROWS).unwrap() {
            let mut set = told(&[], &[1]);
            set.rows[0].relation = RelationOid(table);
            cells.move_stamps(&set, 2, 77);
        }
        let guard = cells.mark_for_peer(&told(&[], &[1]));
        assert!(cells.with_rows().0 == MOST_WITH_ROWS && ask(&cells, 2).is_err());
        assert_eq!(guard.set().relations, [A].into());
        guard.rolled_back();
        let two = ask(&cells, 2).unwrap();
        cells.move_stamps(&told(&[], &[1]), 2, 77);
        assert!(!two.is_current());
    }

    #[test]
    fn sums_are_the_same_in_any_order_and_as_they_are_handed_on() {
        let sets = [told(&[], &[1, 2]), told(&[A], &[]), told(&[A], &[2, 3]), told(&[], &[3]), told(&[B], &[9])];
        let moves = || (1_u64..).zip(&sets);
        let (one, other, third) = (divided(), cells(), cells());
        let mut totals = Totals::default();
        for (at, set) in moves() {
            one.move_stamps(set, 2, at << 32);
            totals.add(set, at << 32);
        }
        moves().collect::<Vec<_>>().into_iter().rev().for_each(|(at, set)| other.move_stamps(set, 2, at << 32));
        third.adopt(&one.totals(), 2);
        let of = |cells: &Arc<Cells>| {
            let mut totals = cells.totals();
            totals.relations.sort_unstable();
            (totals.relations, totals.rows)
        };
        assert_eq!(of(&one), of(&other));
        assert_eq!(of(&one), of(&third));
        totals.rows.iter_mut().for_each(|rows| rows.places.sort_unstable());
        totals.relations.sort_unstable();
        assert_eq!(of(&one), (totals.relations, totals.rows));
    }

    fn named(cells: &Arc<Cells>, number: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        ask(cells, number).unwrap().encode_into(&mut bytes);
        bytes
    }

    #[test]
    fn who_takes_stamps_without_sums_of_rows_counts_every_write_as_one_of_any_row() {
        let (cells, other) = (divided(), divided());
        write_row(&other, 1).committed(2, draw);
        let mut totals = other.totals();
        totals.rows.clear();
        cells.adopt(&totals, 3);
        assert_eq!(cells.totals().rows[0].unknown, totals.relations[0].1);
        assert!(named(&cells, 2) != named(&other, 2) && named(&cells, 1) != named(&other, 1));
        cells.adopt(&other.totals(), 3);
        assert_eq!(named(&cells, 2), named(&other, 2));
    }

    #[test]
    fn sums_of_rows_that_are_not_handed_on_name_an_answer_of_before() {
        let (cells, other) = (divided(), divided());
        let before = named(&other, 1);
        write_row(&other, 1).committed(2, draw);
        let mut totals = other.totals();
        cells.adopt(&totals, 3);
        assert_ne!(named(&cells, 1), before);
        totals.rows[0].places.clear();
        cells.adopt(&totals, 3);
        assert_eq!(named(&cells, 1), before, "so they are");
    }

    #[test]
    fn a_table_whose_rows_have_cells_is_not_swept_away() {
        let cells = divided();
        write_row(&cells, 1).committed(2, draw);
        cells.sweep();
        assert!(is_divided(&cells));
    }
}
