use super::*;
use crate::cache::invalidation::Touched;

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
