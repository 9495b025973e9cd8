//! Judges a history of writes and reads.
//!
//! Every write adds one to the version of each cell it changes, and the row lock makes versions the order of commits. So a
//! read is fresh if each version it returned is at least the highest one acknowledged before the read began.

use std::collections::{BTreeMap, HashMap};

/// Nanoseconds since the history began, on the one clock of this process.
pub type Time = u64;

/// A row whose versions are counted; several tables may show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cell(pub u16);

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Committed,
    Aborted,
    /// The connection was lost: it may have happened, now or later.
    Unknown,
}

/// A transaction that wrote.
#[derive(Clone, Debug)]
pub struct Write {
    pub session: u16,
    /// What it leaves in the rows, so that a reader knows whose version it has.
    pub id: i64,
    pub began: Time,
    /// When its client was told.
    pub ended: Time,
    pub outcome: Outcome,
    /// The versions it made.
    pub cells: Vec<(Cell, i64)>,
}

/// What a read found of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Row {
        version: i64,
        writer: i64,
    },
    /// Rows that come and go are absent at even versions.
    Nothing,
}

/// A statement that read.
#[derive(Clone, Debug)]
pub struct Read {
    pub session: u16,
    pub began: Time,
    pub ended: Time,
    /// Which of the read shapes it was.
    pub shape: u16,
    pub found: Vec<(Cell, Found)>,
}

/// All of it, in no particular order.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub writes: Vec<Write>,
    pub reads: Vec<Read>,
}

/// Whose writes a read must not miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    Everybodys,
    OwnSessions,
}

/// A read that should not have been possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Older than what was acknowledged before the read began.
    Stale { shape: u16, session: u16, cell: Cell, found: Found, acknowledged: i64 },
    /// Not what any transaction that may have committed by then has written.
    Phantom { shape: u16, session: u16, cell: Cell, found: Found },
    /// One statement saw two states of one cell.
    Torn { shape: u16, session: u16, cell: Cell, found: Found, also: Found },
}

/// Versions of a cell as they were acknowledged: each entry is the highest version known from its time on.
#[derive(Default)]
struct Acknowledged(Vec<(Time, i64)>);

impl Acknowledged {
    fn of(mut versions: Vec<(Time, i64)>) -> Self {
        versions.sort_unstable();
        let mut highest = i64::MIN;
        for (_, version) in &mut versions {
            highest = highest.max(*version);
            *version = highest;
        }
        Self(versions)
    }

    /// The highest version acknowledged before this time.
    fn before(&self, time: Time) -> i64 {
        let count = self.0.partition_point(|(acknowledged, _)| *acknowledged < time);
        count.checked_sub(1).map_or(0, |last| self.0[last].1)
    }
}

/// Every violation of the promise.
pub fn check(history: &History, promise: Promise) -> Vec<Violation> {
    check_due(history, promise, |write| write.ended)
}

/// The same, where writes may be missed by reads that begin before they are `due`.
pub fn check_due(history: &History, promise: Promise, due: impl Fn(&Write) -> Time) -> Vec<Violation> {
    let writer_of = |session: u16| if promise == Promise::OwnSessions { session } else { 0 };
    let mut acknowledged: HashMap<(u16, Cell), Vec<(Time, i64)>> = HashMap::new();
    let mut begun: HashMap<Cell, Vec<(Time, i64)>> = HashMap::new();
    let mut writes: HashMap<i64, &Write> = HashMap::new();
    for write in &history.writes {
        writes.insert(write.id, write);
        for (cell, version) in &write.cells {
            if write.outcome == Outcome::Committed {
                acknowledged.entry((writer_of(write.session), *cell)).or_default().push((due(write), *version));
            }
            if write.outcome != Outcome::Aborted {
                begun.entry(*cell).or_default().push((write.began, *version));
            }
        }
    }
    let acknowledged: HashMap<_, _> =
        acknowledged.into_iter().map(|(key, versions)| (key, Acknowledged::of(versions))).collect();
    let begun: HashMap<_, _> = begun.into_iter().map(|(cell, versions)| (cell, Acknowledged::of(versions))).collect();
    let mut violations = Vec::new();
    for read in &history.reads {
        let (shape, session) = (read.shape, read.session);
        let mut seen: BTreeMap<Cell, Found> = BTreeMap::new();
        for (cell, found) in &read.found {
            let (cell, found) = (*cell, *found);
            let known = acknowledged.get(&(writer_of(session), cell));
            let known = known.map_or(0, |versions| versions.before(read.began));
            let possible = begun.get(&cell).map_or(0, |versions| versions.before(read.ended));
            if !is_fresh(found, known, possible) {
                violations.push(Violation::Stale { shape, session, cell, found, acknowledged: known });
            }
            if !is_somebodys(found, cell, read, &writes) {
                violations.push(Violation::Phantom { shape, session, cell, found });
            }
            match seen.insert(cell, found) {
                Some(also) if also != found => {
                    violations.push(Violation::Torn { shape, session, cell, found, also });
                }
                _ => {}
            }
        }
    }
    violations
}

fn is_fresh(found: Found, known: i64, possible: i64) -> bool {
    match found {
        Found::Row { version, .. } => version >= known,
        // Absent is right if some even version lies between what must and what may have happened.
        Found::Nothing => known % 2 == 0 || known < possible,
    }
}

fn is_somebodys(found: Found, cell: Cell, read: &Read, writes: &HashMap<i64, &Write>) -> bool {
    let Found::Row { version, writer } = found else {
        return true;
    };
    // Writer 0 laid out the tables.
    writer == 0
        || writes.get(&writer).is_some_and(|write| {
            let did = write.cells.contains(&(cell, version)) || write.outcome == Outcome::Unknown;
            did && write.outcome != Outcome::Aborted && write.began <= read.ended
        })
}

const CELL: Cell = Cell(7);

fn write(id: i64, version: i64, began: Time, ended: Time) -> Write {
    Write { session: 1, id, began, ended, outcome: Outcome::Committed, cells: vec![(CELL, version)] }
}

fn read(session: u16, began: Time, ended: Time, found: &[Found]) -> Read {
    Read { session, began, ended, shape: 0, found: found.iter().map(|found| (CELL, *found)).collect() }
}

fn row(version: i64, writer: i64) -> Found {
    Found::Row { version, writer }
}

#[track_caller]
fn judge(writes: Vec<Write>, read: Read, promise: Promise, violations: usize) {
    let found = check(&History { writes, reads: vec![read] }, promise);
    assert_eq!(found.len(), violations, "{found:?}");
}

#[test]
fn a_read_of_the_newest_acknowledged_version_is_fine() {
    let writes = vec![write(11, 1, 0, 10), write(12, 2, 20, 30)];
    judge(writes.clone(), read(2, 40, 50, &[row(2, 12)]), Promise::Everybodys, 0);
    judge(writes, read(2, 15, 25, &[row(2, 12)]), Promise::Everybodys, 0);
}

#[test]
fn a_read_of_an_older_version_is_stale() {
    let writes = vec![write(11, 1, 0, 10), write(12, 2, 20, 30)];
    judge(writes, read(2, 40, 50, &[row(1, 11)]), Promise::Everybodys, 1);
}

#[test]
fn a_write_that_was_not_yet_acknowledged_may_be_missed() {
    let writes = vec![write(11, 1, 0, 10), write(12, 2, 20, 45)];
    judge(writes, read(2, 40, 50, &[row(1, 11)]), Promise::Everybodys, 0);
}

#[test]
fn a_write_that_is_due_later_may_be_missed_until_then() {
    let history = |began| History { writes: vec![write(11, 1, 0, 10), write(12, 2, 20, 30)], reads: vec![began] };
    let found = |began| {
        let history = history(read(2, began, 90, &[row(1, 11)]));
        check_due(&history, Promise::Everybodys, |write| write.ended + if write.id == 12 { 30 } else { 0 }).len()
    };
    assert_eq!((found(55), found(65)), (0, 1));
}

#[test]
fn another_sessions_write_may_be_missed_when_only_own_writes_are_promised() {
    let writes = vec![write(11, 1, 0, 10), write(12, 2, 20, 30)];
    judge(writes.clone(), read(2, 40, 50, &[row(1, 11)]), Promise::OwnSessions, 0);
    judge(writes, read(1, 40, 50, &[row(1, 11)]), Promise::OwnSessions, 1);
}

#[test]
fn an_aborted_write_must_not_be_seen_and_an_unknown_one_may() {
    let mut ended = write(12, 2, 20, 30);
    ended.outcome = Outcome::Aborted;
    judge(vec![write(11, 1, 0, 10), ended.clone()], read(2, 40, 50, &[row(2, 12)]), Promise::Everybodys, 1);
    ended.outcome = Outcome::Unknown;
    judge(vec![write(11, 1, 0, 10), ended.clone()], read(2, 40, 50, &[row(2, 12)]), Promise::Everybodys, 0);
    judge(vec![write(11, 1, 0, 10), ended], read(2, 40, 50, &[row(1, 11)]), Promise::Everybodys, 0);
}

#[test]
fn a_version_from_the_future_is_a_phantom() {
    judge(vec![write(11, 1, 60, 70)], read(2, 40, 50, &[row(1, 11)]), Promise::Everybodys, 1);
    judge(vec![], read(2, 40, 50, &[row(1, 99)]), Promise::Everybodys, 1);
}

#[test]
fn an_absent_row_is_right_only_where_it_may_have_been_deleted() {
    let writes = vec![write(11, 1, 0, 10), write(12, 2, 20, 30), write(13, 3, 50, 60)];
    judge(writes.clone(), read(2, 35, 40, &[Found::Nothing]), Promise::Everybodys, 0);
    judge(writes.clone(), read(2, 12, 18, &[Found::Nothing]), Promise::Everybodys, 1);
    judge(writes, read(2, 70, 80, &[Found::Nothing]), Promise::Everybodys, 1);
}

#[test]
fn one_statement_sees_one_state() {
    let writes = vec![write(11, 1, 0, 10), write(12, 2, 20, 100)];
    judge(writes, read(2, 40, 50, &[row(1, 11), row(2, 12)]), Promise::Everybodys, 1);
}
