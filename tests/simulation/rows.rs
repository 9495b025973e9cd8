//! Readers and writers of one table by key, one step at a time in random order, from before its rows have cells of their own.
//!
//! Every row holds one number, raised by each commit. No hit may show less of a row than what was visible on the primary when
//! it was asked for.

use std::sync::Arc;

use pgweir::{
    cache::{
        CatalogEpoch, Cells, Lookup, ResultCache, Touched, WriteGuard,
        invalidation::{Deps, Origin},
        local::FillGuard,
    },
    catalog::{KeyId, RelationOid, Row},
    routing::MemberId,
};

use crate::random::{Random, seeds};

const TABLE: RelationOid = RelationOid(16_384);
/// The last two share the cells of the first two.
const ROWS: usize = 6;
const CELLS: u64 = 2048;
const STEPS: usize = 2_000;
const SEEDS: u64 = 500;

/// A rule left out. Each of them must be noticed, or the simulation proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ablation {
    Nothing,
    UnknownRowsTakenForOne,
    SeveralRowsTakenForOne,
    AnotherRowsCellForAReader,
    TableReadTakenForARow,
    LostCommitTakenForARollback,
    NoMarkBeforeTheCommit,
}

type Versions = [u64; ROWS];

fn row(at: usize) -> Row {
    let number = if at < ROWS - 2 { at as u64 } else { (at - (ROWS - 2)) as u64 + CELLS };
    Row { relation: TABLE, key: KeyId(1), number }
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &u32::try_from(body.len() + 4).unwrap().to_be_bytes(), body].concat()
}

fn wire(versions: &Versions) -> Vec<u8> {
    let body: Vec<u8> = versions.iter().flat_map(|version| version.to_be_bytes()).collect();
    [message(b'D', &body), message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat()
}

fn read_row(bytes: &[u8]) -> Versions {
    std::array::from_fn(|at| u64::from_be_bytes(bytes[5 + 8 * at..][..8].try_into().unwrap()))
}

/// One row, or all of them.
type Question = Option<usize>;

enum Reader {
    Idle,
    Asking(Question, FillGuard),
    Answered(FillGuard, Versions),
}

enum Writer {
    Idle,
    Sent(Vec<usize>, Option<WriteGuard>),
    Visible(Vec<usize>, Option<WriteGuard>),
    /// Under a name: of what was prepared nothing is known when it is committed.
    Prepared(Vec<usize>),
}

#[derive(Debug, Default)]
struct Coverage {
    hits: u64,
    /// Of them by key, though the table was written meanwhile.
    spared: u64,
    fills: u64,
    prepared: u64,
    in_doubt: u64,
    divided: u64,
}

struct World {
    random: Random,
    ablation: Ablation,
    now: u64,
    visible: Versions,
    writes: u64,
    /// Writes when the answer to each question was kept.
    kept_at: [u64; ROWS + 1],
    cells: Arc<Cells>,
    cache: Arc<ResultCache>,
    epoch: CatalogEpoch,
    readers: Vec<Reader>,
    writers: Vec<Writer>,
    coverage: Coverage,
}

impl World {
    fn new(seed: u64, ablation: Ablation) -> Self {
        let mut random = Random::new(seed);
        let cells = Arc::new(Cells::new(random.draw(), 1));
        Self {
            epoch: cells.catalog_epoch(),
            cells,
            random,
            ablation,
            now: 1,
            visible: [0; ROWS],
            writes: 0,
            kept_at: [0; ROWS + 1],
            cache: ResultCache::new(1 << 20, 1 << 10),
            readers: (0..4).map(|_| Reader::Idle).collect(),
            writers: (0..3).map(|_| Writer::Idle).collect(),
            coverage: Coverage::default(),
        }
    }

    fn step(&mut self) -> Result<(), String> {
        self.now += 1;
        match self.random.below(16) {
            0..=3 => {
                let at = self.random.below(self.writers.len());
                let writer = std::mem::replace(&mut self.writers[at], Writer::Idle);
                self.writers[at] = self.write(writer);
            }
            4 => {
                for doubt in self.cells.take_in_doubt() {
                    doubt.resolve(self.now, || self.random.draw());
                    self.coverage.in_doubt += 1;
                }
            }
            5 if self.random.one_in(64) => self.cells.flush(Some(TABLE), self.now, || self.random.draw()),
            _ => {
                let at = self.random.below(self.readers.len());
                let reader = std::mem::replace(&mut self.readers[at], Reader::Idle);
                self.readers[at] = self.read(reader)?;
            }
        }
        Ok(())
    }

    fn lookup(&self, question: Question) -> Lookup {
        let asked = match (question, self.ablation) {
            (Some(at), Ablation::AnotherRowsCellForAReader) => Some((at + 1) % ROWS),
            (None, Ablation::TableReadTakenForARow) => Some(0),
            (question, _) => question,
        };
        let deps = Deps { relations: &[TABLE], row: asked.map(row) };
        self.cache.lookup(format!("{question:?}").as_bytes(), &self.cells, deps, self.epoch, self.now)
    }

    fn read(&mut self, reader: Reader) -> Result<Reader, String> {
        match reader {
            Reader::Idle => {
                let question = Some(self.random.below(ROWS + 1)).filter(|at| *at < ROWS);
                match self.lookup(question) {
                    Lookup::Hit(entry) => {
                        self.coverage.hits += 1;
                        let shown = read_row(&entry.rows);
                        self.coverage.spared += u64::from(question.is_some_and(|at| self.kept_at[at] < self.writes));
                        let mut rows = question.map_or(0..ROWS, |at| at..at + 1);
                        match rows.find(|at| shown[*at] < self.visible[*at]) {
                            Some(at) => Err(format!("a hit of {question:?} is stale at {at}: {shown:?}")),
                            None => Ok(Reader::Idle),
                        }
                    }
                    Lookup::Miss(fill) => Ok(Reader::Asking(question, fill)),
                    Lookup::Refused(_) => Ok(Reader::Idle),
                }
            }
            Reader::Asking(question, fill) => {
                self.kept_at[question.unwrap_or(ROWS)] = self.writes;
                Ok(Reader::Answered(fill, self.visible))
            }
            Reader::Answered(mut fill, shown) => {
                fill.feed(&wire(&shown));
                fill.commit(b'I', None, self.now);
                self.coverage.fills += 1;
                Ok(Reader::Idle)
            }
        }
    }

    /// One row mostly, sometimes several, or all; what is known of them beforehand is another matter.
    fn some_rows(&mut self) -> Vec<usize> {
        match self.random.below(8) {
            0 => (0..ROWS).collect(),
            1 => vec![self.random.below(ROWS), self.random.below(ROWS)],
            _ => vec![self.random.below(ROWS)],
        }
    }

    fn begin(&mut self, rows: &[usize]) -> WriteGuard {
        let by_key: Vec<_> = rows.iter().map(|at| row(*at)).collect();
        let is_known = rows.len() < ROWS && !self.random.one_in(6);
        let mut guard = match (is_known, self.ablation) {
            (false, Ablation::UnknownRowsTakenForOne) | (true, Ablation::SeveralRowsTakenForOne) => {
                self.cells.begin_write(Touched::Rows(&by_key[..1]), false)
            }
            (true, _) => self.cells.begin_write(Touched::Rows(&by_key), false),
            (false, _) if self.random.one_in(3) => {
                let mut guard = self.cells.begin_write(Touched::Database, false);
                guard.replace(Touched::Relations(&[TABLE]), false);
                guard
            }
            (false, _) => self.cells.begin_write(Touched::Relations(&[TABLE]), false),
        };
        if is_known && self.random.one_in(8) {
            // The same transaction writes more than it has said so far.
            guard.widen(Touched::Relations(&[TABLE]), false);
        }
        guard.runs_on(Origin { entry: 0, member: MemberId(0), process_id: 1 });
        guard
    }

    fn write(&mut self, writer: Writer) -> Writer {
        match writer {
            Writer::Idle if self.random.one_in(2) => Writer::Idle,
            Writer::Idle => {
                let rows = self.some_rows();
                let guard = (self.ablation != Ablation::NoMarkBeforeTheCommit).then(|| self.begin(&rows));
                Writer::Sent(rows, guard)
            }
            Writer::Sent(rows, guard) => match (self.random.below(10), guard) {
                (0, Some(guard)) => {
                    guard.rolled_back();
                    Writer::Idle
                }
                (1, Some(guard)) => {
                    // It is lost, and has happened or not.
                    if self.random.one_in(2) {
                        self.commit(&rows);
                    }
                    match self.ablation {
                        Ablation::LostCommitTakenForARollback => guard.rolled_back(),
                        _ => drop(guard),
                    }
                    Writer::Idle
                }
                (2, Some(guard)) => {
                    guard.rolled_back();
                    self.coverage.prepared += 1;
                    Writer::Prepared(rows)
                }
                (_, guard) => {
                    self.commit(&rows);
                    Writer::Visible(rows, guard)
                }
            },
            Writer::Prepared(rows) => {
                let guard = self.cells.begin_write(Touched::Database, false);
                self.commit(&rows);
                Writer::Visible(rows, Some(guard))
            }
            Writer::Visible(rows, guard) => {
                let guard = match guard {
                    Some(guard) => guard,
                    None => self.begin(&rows),
                };
                _ = guard.committed(self.now, || self.random.draw());
                Writer::Idle
            }
        }
    }

    fn commit(&mut self, rows: &[usize]) {
        self.writes += 1;
        rows.iter().for_each(|at| self.visible[*at] += 1);
    }
}

fn run(seed: u64, ablation: Ablation) -> Result<Coverage, String> {
    let mut world = World::new(seed, ablation);
    for step in 0..STEPS {
        world.step().map_err(|violation| format!("step {step}: {violation}"))?;
    }
    world.coverage.divided = world.cells.with_rows().0 as u64;
    Ok(world.coverage)
}

#[test]
fn no_hit_by_key_is_older_than_what_was_visible() {
    let mut total = Coverage::default();
    for seed in seeds(0..SEEDS) {
        let more = run(seed, Ablation::Nothing).unwrap_or_else(|violation| panic!("SEED={seed} {violation}"));
        let Coverage { hits, spared, fills, prepared, in_doubt, divided } = more;
        for (total, more) in [
            (&mut total.hits, hits),
            (&mut total.spared, spared),
            (&mut total.fills, fills),
            (&mut total.prepared, prepared),
            (&mut total.in_doubt, in_doubt),
            (&mut total.divided, divided),
        ] {
            *total += more;
        }
    }
    println!("{total:?}");
    let Coverage { hits, spared, fills, prepared, in_doubt, divided } = total;
    let runs = seeds(0..SEEDS).count() as u64;
    let least = [hits, spared, fills, prepared, in_doubt].into_iter().min().unwrap();
    assert!(least > runs && divided > runs / 2, "these runs prove little");
}

#[track_caller]
fn check_is_noticed(ablation: Ablation) {
    let is_noticed = (0..50).any(|seed| run(seed, ablation).is_err());
    assert!(is_noticed, "{ablation:?} goes unnoticed");
}

#[test]
fn unknown_rows_taken_for_one_are_noticed() {
    check_is_noticed(Ablation::UnknownRowsTakenForOne);
}

#[test]
fn several_rows_taken_for_one_are_noticed() {
    check_is_noticed(Ablation::SeveralRowsTakenForOne);
}

#[test]
fn another_rows_cell_for_a_reader_is_noticed() {
    check_is_noticed(Ablation::AnotherRowsCellForAReader);
}

#[test]
fn a_read_of_the_table_taken_for_one_of_a_row_is_noticed() {
    check_is_noticed(Ablation::TableReadTakenForARow);
}

#[test]
fn a_lost_commit_of_rows_taken_for_a_rollback_is_noticed() {
    check_is_noticed(Ablation::LostCommitTakenForARollback);
}

#[test]
fn rows_that_are_not_marked_in_flight_are_noticed() {
    check_is_noticed(Ablation::NoMarkBeforeTheCommit);
}
