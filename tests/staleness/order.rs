//! What a linearizable cache promises beyond the newest acknowledged write: time does not run backwards for anybody, and
//! what one transaction wrote is seen as a whole.

use std::collections::HashMap;

use super::checker::{Cell, Found, History, Outcome, Read, Time, Write};

/// An observation that contradicts another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disorder {
    /// Somebody had seen a newer version before this read began.
    Backwards { shape: u16, session: u16, cell: Cell, found: i64, seen: i64 },
    /// It shows one of the cells that a transaction wrote, and another one as it was before.
    Half { shape: u16, session: u16, writer: i64, cell: Cell, found: i64, written: i64 },
}

/// Every read against the newest version that any read before it has shown.
pub fn check_order(history: &History, known: &HashMap<Cell, i64>) -> Vec<Disorder> {
    let mut seen: HashMap<Cell, Vec<(Time, i64)>> = HashMap::new();
    for read in &history.reads {
        for (cell, found) in &read.found {
            if let Found::Row { version, .. } = found {
                seen.entry(*cell).or_default().push((read.ended, *version));
            }
        }
    }
    for (cell, observations) in &mut seen {
        observations.sort_unstable();
        let mut highest = known.get(cell).copied().unwrap_or(i64::MIN);
        for (_, version) in observations {
            highest = highest.max(*version);
            *version = highest;
        }
    }
    let mut disorders = Vec::new();
    for Read { session, began, shape, found, .. } in &history.reads {
        for (cell, found) in found {
            let Found::Row { version, .. } = *found else { continue };
            let earlier = seen.get(cell).map(Vec::as_slice).unwrap_or_default();
            let count = earlier.partition_point(|(ended, _)| ended < began);
            let newest = count.checked_sub(1).map_or_else(|| known.get(cell).copied(), |last| Some(earlier[last].1));
            if let Some(newest) = newest.filter(|newest| version < *newest) {
                let (shape, session) = (*shape, *session);
                disorders.push(Disorder::Backwards { shape, session, cell: *cell, found: version, seen: newest });
            }
        }
    }
    disorders
}

/// Every read of several cells against the transactions that wrote several of them.
pub fn check_cuts(history: &History) -> Vec<Disorder> {
    let several = history.writes.iter().filter(|write| write.outcome != Outcome::Aborted && write.cells.len() > 1);
    let several: HashMap<i64, &Write> = several.map(|write| (write.id, write)).collect();
    let mut disorders = Vec::new();
    for Read { session, shape, found, .. } in &history.reads {
        let versions = |wanted: Cell| {
            found.iter().filter_map(move |(cell, found)| match found {
                Found::Row { version, .. } if *cell == wanted => Some(*version),
                _ => None,
            })
        };
        for (_, shown) in found {
            let Found::Row { writer, .. } = shown else { continue };
            let Some(write) = several.get(writer) else { continue };
            for (cell, written) in &write.cells {
                for found in versions(*cell).filter(|found| found < written) {
                    let (shape, session, writer) = (*shape, *session, *writer);
                    disorders.push(Disorder::Half { shape, session, writer, cell: *cell, found, written: *written });
                }
            }
        }
    }
    disorders
}

const ONE: Cell = Cell(1);
const OTHER: Cell = Cell(2);

fn read(began: Time, ended: Time, found: &[(Cell, i64, i64)]) -> Read {
    let row = |(cell, version, writer): &(Cell, i64, i64)| (*cell, Found::Row { version: *version, writer: *writer });
    Read { session: 1, began, ended, shape: 0, found: found.iter().map(row).collect() }
}

fn reads(reads: Vec<Read>) -> History {
    History { writes: vec![], reads }
}

#[test]
fn a_version_that_somebody_has_seen_is_not_taken_back() {
    let (old, new) = (read(30, 40, &[(ONE, 1, 0)]), read(10, 20, &[(ONE, 2, 7)]));
    assert_eq!(check_order(&reads(vec![new.clone(), old]), &HashMap::new()).len(), 1);
    let overlapping = read(15, 40, &[(ONE, 1, 0)]);
    assert!(check_order(&reads(vec![new, overlapping]), &HashMap::new()).is_empty());
}

#[test]
fn what_was_known_at_the_beginning_counts() {
    let old = reads(vec![read(10, 20, &[(ONE, 1, 0)])]);
    assert_eq!(check_order(&old, &HashMap::from([(ONE, 2)])).len(), 1);
    assert!(check_order(&old, &HashMap::from([(OTHER, 2)])).is_empty());
}

#[test]
fn half_a_transaction_is_found() {
    let write = |outcome| Write { session: 1, id: 7, began: 0, ended: 5, outcome, cells: vec![(ONE, 2), (OTHER, 4)] };
    let history = |outcome, other| History {
        writes: vec![write(outcome)],
        reads: vec![read(10, 20, &[(ONE, 2, 7), (OTHER, other, 0)])],
    };
    assert_eq!(check_cuts(&history(Outcome::Committed, 3)).len(), 1);
    assert_eq!(check_cuts(&history(Outcome::Unknown, 3)).len(), 1);
    assert!(check_cuts(&history(Outcome::Committed, 4)).is_empty());
    assert!(check_cuts(&history(Outcome::Committed, 5)).is_empty());
}
