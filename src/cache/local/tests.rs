use bytes::Bytes;

use super::*;
use crate::cache::{invalidation::Touched, shared::Value};
use crate::catalog::RelationOid;

const TABLE: RelationOid = RelationOid(16_384);
const KEY: &[u8] = b"question";

struct Bench {
    cache: Arc<ResultCache>,
    cells: Arc<Cells>,
}

impl Bench {
    fn new() -> Self {
        Self { cache: ResultCache::new(1 << 20, 1 << 10), cells: Arc::new(Cells::new(1, 1)) }
    }

    fn lookup(&self, now: u64) -> Lookup {
        self.cache.lookup(KEY, &self.cells, &[TABLE], self.cells.catalog_epoch(), now)
    }

    fn holds(&self, now: u64) -> bool {
        self.cache.holds(KEY, &self.cells, self.cells.catalog_epoch(), now)
    }

    #[track_caller]
    fn miss(&self, now: u64) -> FillGuard {
        match self.lookup(now) {
            Lookup::Miss(fill) => fill,
            other => panic!("expected a miss: {other:?}"),
        }
    }

    #[track_caller]
    fn hit(&self, now: u64) -> Arc<Entry> {
        match self.lookup(now) {
            Lookup::Hit(entry) => entry,
            other => panic!("expected a hit: {other:?}"),
        }
    }

    fn write(&self) {
        self.cells.begin_write(Touched::Relations(&[TABLE]), false).committed(2, || 7);
    }
}

fn answer() -> Vec<u8> {
    [&b"D\0\0\0\x0B\0\x01\0\0\0\x01x"[..], b"C\0\0\0\x0DSELECT 1\0", b"Z\0\0\0\x05I"].concat()
}

fn commit(mut fill: FillGuard, ttl: Option<u64>, now: u64) -> FillOutcome {
    assert!(fill.feed(&answer()));
    fill.commit(b'I', ttl, now)
}

#[test]
fn a_question_of_an_older_catalog_finds_nothing_that_was_brought_since() {
    let bench = Bench::new();
    let before = bench.cells.catalog_epoch();
    bench.cells.bump_catalog(|| 5);
    assert_eq!(commit(bench.miss(1), None, 2), FillOutcome::Stored);
    assert!(bench.holds(3) && !bench.cache.holds(KEY, &bench.cells, before, 3));
    let late = bench.cache.lookup(KEY, &bench.cells, &[TABLE], before, 3);
    assert!(matches!(late, Lookup::Refused(_)), "{late:?}");
    bench.hit(4);
}

#[test]
fn an_answer_that_was_brought_is_found_again() {
    let bench = Bench::new();
    assert_eq!(commit(bench.miss(1_000), None, 5_000), FillOutcome::Stored);
    let entry = bench.hit(9_000);
    assert_eq!((entry.rows.as_ref(), entry.row_count), (&answer()[..12], 1));
    assert_eq!((entry.cost_us, entry.filled_at, entry.age(9_000)), (4, 5_000, 4_000));
}

#[test]
fn a_write_between_lookup_and_answer_voids_the_fill() {
    let bench = Bench::new();
    let fill = bench.miss(1);
    bench.write();
    assert_eq!(commit(fill, None, 2), FillOutcome::Overtaken);
    drop(bench.miss(3));
}

#[test]
fn a_write_after_the_answer_voids_it_and_its_memory_is_freed() {
    let bench = Bench::new();
    commit(bench.miss(1), None, 1);
    bench.write();
    drop(bench.miss(3));
    bench.cache.settle();
    let stats = bench.cache.stats();
    assert_eq!((stats.entries, stats.bytes, stats.stale), (0, 0, 1));
}

#[test]
fn an_answer_survives_a_write_that_is_rolled_back() {
    let bench = Bench::new();
    commit(bench.miss(1), None, 1);
    let guard = bench.cells.begin_write(Touched::Relations(&[TABLE]), false);
    assert!(matches!(bench.lookup(2), Lookup::Refused(Uncaptured::InFlight)));
    guard.rolled_back();
    bench.hit(3);
}

#[test]
fn an_answer_is_not_served_beyond_its_time() {
    let bench = Bench::new();
    commit(bench.miss(1), Some(10), 100);
    bench.hit(109);
    drop(bench.miss(110));
}

#[test]
fn an_answer_that_cannot_be_kept_says_why() {
    let bench = Bench::new();
    let mut fill = bench.miss(1);
    fill.discard(Discard::Status);
    assert!(!fill.feed(&answer()));
    let outcome = fill.commit(b'I', None, 1);
    assert_eq!((outcome, outcome.label()), (FillOutcome::Discarded(Discard::Status), "transaction_status"));
}

#[test]
fn another_question_has_another_answer() {
    let bench = Bench::new();
    commit(bench.miss(1), None, 1);
    let other = bench.cache.lookup(b"questioN", &bench.cells, &[TABLE], bench.cells.catalog_epoch(), 1);
    assert!(matches!(other, Lookup::Miss(_)));
}

#[test]
fn the_weight_of_the_answers_stays_within_the_capacity() {
    let bench = Bench::new();
    let epoch = bench.cells.catalog_epoch();
    for number in 0..20_000u32 {
        let lookup = bench.cache.lookup(&number.to_le_bytes(), &bench.cells, &[TABLE], epoch, 1);
        let Lookup::Miss(fill) = lookup else { panic!("never asked before") };
        commit(fill, None, 1);
    }
    bench.cache.settle();
    let stats = bench.cache.stats();
    assert!(stats.bytes <= stats.capacity_bytes && stats.entries > 1000, "{stats:?}");
}

#[test]
fn no_reader_joins_the_fill_of_an_earlier_one() {
    let source = include_str!("../local.rs");
    let code: String = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    for call in ["get_with", "try_get_with", "and_compute", "and_upsert", "or_insert"] {
        assert!(!code.contains(call), "{call}");
    }
}

#[test]
fn what_it_did_is_counted() {
    let bench = Bench::new();
    commit(bench.miss(1), None, 1);
    bench.hit(1);
    bench.write();
    drop(bench.miss(1));
    bench.cache.settle();
    let CacheStats { hits, misses, stale, stored, .. } = bench.cache.stats();
    assert_eq!((hits, misses, stale, stored), (1, 2, 1, 1));
}

const SHAPE: Fingerprint = Fingerprint(7 << 32);

fn found(remaining: u64) -> Found {
    let value = Value {
        row_description: None,
        rows: Bytes::copy_from_slice(&answer()[..12]),
        command_complete: Bytes::from_static(b"C\0\0\0\x0DSELECT 1\0"),
        row_count: 1,
        cost_us: 900,
        filled_at_ms: 0,
        lifetime_ms: 60_000,
    };
    Found { value, remaining }
}

fn leading(bench: &Bench, now: u64) -> Box<FillGuard> {
    let mut fill = bench.miss(now);
    fill.is_of(SHAPE, &"shop".into());
    assert!(fill.board().is_none());
    Box::new(fill)
}

#[test]
fn what_level_two_brings_is_kept_for_its_rest_of_time_or_a_shorter_one() {
    for (ttl, last) in [(None, 149), (Some(20), 119), (Some(1_000), 149)] {
        let bench = Bench::new();
        leading(&bench, 1).adopt(found(50), ttl, 100).unwrap();
        bench.hit(last);
        drop(bench.miss(last + 1));
        assert_eq!(bench.cache.usual_cost(SHAPE), Some(900));
        let CacheStats { shared_hits, misses, .. } = bench.cache.stats();
        assert_eq!((shared_hits, misses), (1, 1));
    }
}

#[test]
fn what_a_write_has_overtaken_on_its_way_from_level_two_is_neither_kept_nor_handed_out() {
    let bench = Bench::new();
    let fill = leading(&bench, 1);
    bench.write();
    let fill = fill.adopt(found(50), None, 3).unwrap_err();
    assert!(!fill.is_current());
    drop(fill);
    drop(bench.miss(4));
    let guard = bench.cells.begin_write(Touched::Relations(&[TABLE]), false);
    assert!(matches!(bench.lookup(5), Lookup::Refused(_)));
    guard.rolled_back();
    let fill = leading(&bench, 6);
    let in_flight = bench.cells.begin_write(Touched::Relations(&[TABLE]), false);
    assert!(fill.adopt(found(50), None, 7).is_err(), "nor while one is in flight");
    in_flight.rolled_back();
}

#[test]
fn what_fills_or_cannot_be_kept_tells_what_its_shape_costs() {
    let bench = Bench::new();
    let mut fill = bench.miss(1_000);
    fill.is_of(SHAPE, &"shop".into());
    fill.sent_at(500_000);
    commit(fill, None, 2_500_000);
    assert_eq!(bench.cache.usual_cost(SHAPE), Some(2_000), "from when it was sent");
    bench.write();
    let mut fill = bench.miss(1);
    fill.is_of(SHAPE, &"shop".into());
    fill.discard(Discard::TooLarge);
    fill.commit(b'I', None, 2_000_000);
    assert_eq!(bench.cache.usual_cost(SHAPE), Some(1_750), "it is worth less than it was");
}

#[test]
fn an_answer_heavier_than_all_memory_is_not_put_there() {
    let bench = Bench { cache: ResultCache::new(100, 1 << 10), cells: Arc::new(Cells::new(1, 1)) };
    assert_eq!(commit(bench.miss(1), None, 1), FillOutcome::Stored);
    drop(bench.miss(1));
    assert_eq!(bench.cache.stats().evicted, 1);
}

#[test]
fn nothing_is_served_later_than_writes_that_bypass_the_proxy_are_known() {
    let bench = Bench::new();
    bench.cells.need_hearing();
    let refused = |now| matches!(bench.lookup(now), Lookup::Refused(Uncaptured::Closed(Closure::DirectWrites)));
    assert!(refused(1));
    bench.cells.begin_hearing(1, || 7);
    bench.cells.hear_until(100);
    commit(bench.miss(10), None, 20);
    bench.hit(99);
    assert!(bench.holds(99) && !bench.holds(100));
    assert!(refused(100), "nobody has to be there to close it");
    bench.cells.hear_until(200);
    bench.hit(100);
    bench.cells.void(Some(&[TABLE]), 101, || 7);
    assert!(!bench.holds(102));
    assert!(matches!(bench.lookup(102), Lookup::Miss(_)));
}

fn observing(capacity: u64) -> Bench {
    Bench { cache: ResultCache::observing(capacity, 1 << 10), cells: Arc::new(Cells::new(1, 1)) }
}

#[test]
fn a_cache_that_observes_hits_as_another_one_does_and_keeps_no_bytes() {
    let (bench, other) = (observing(1 << 20), Bench::new());
    commit(bench.miss(1), Some(10), 100);
    commit(other.miss(1), Some(10), 100);
    let (entry, kept) = (bench.hit(109), other.hit(109));
    assert_eq!((entry.rows.len(), entry.command_complete.len(), entry.row_count), (0, 0, 1));
    assert_eq!(entry.weight(16), kept.weight(KEY.len().max(16)), "it counts as if they were there");
    assert_eq!(bench.miss(110).absence(), Absence::Expired);
    bench.cache.note_saved(7);
    let stats = bench.cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.saved), (1, 2, 7));
    assert!(bench.cache.observes() && !other.cache.observes());
}

#[test]
fn an_answer_that_is_missed_says_why() {
    let bench = observing(1 << 20);
    let first = bench.miss(1);
    assert_eq!(first.absence(), Absence::New);
    commit(first, None, 1);
    bench.write();
    let second = bench.miss(2);
    assert_eq!(second.absence(), Absence::Written);
    commit(second, None, 2);
    bench.cells.begin_write(Touched::Database, false).committed(3, || 7);
    let third = bench.miss(3);
    assert_eq!(third.absence(), Absence::Unforeseen);
    commit(third, None, 3);
    bench.cells.begin_write(Touched::Database, false).committed(4, || 7);
    bench.write();
    let fourth = bench.miss(4);
    assert_eq!(fourth.absence(), Absence::Written, "it would be void by its own table alone");
    commit(fourth, None, 4);
    bench.cells.bump_catalog(|| 7);
    assert_eq!(bench.miss(5).absence(), Absence::Written, "a definition has changed");
}

#[test]
fn no_more_answers_are_observed_than_there_is_room_for() {
    let bench = observing(1 << 12);
    for question in 0..100_u32 {
        let question = question.to_le_bytes();
        let found = bench.cache.lookup(&question, &bench.cells, &[TABLE], bench.cells.catalog_epoch(), 1);
        let Lookup::Miss(fill) = found else { panic!("{found:?}") };
        commit(fill, None, 1);
    }
    bench.cache.settle();
    let stats = bench.cache.stats();
    assert!(stats.entries < 20 && stats.bytes <= 1 << 12, "{stats:?}");
}
