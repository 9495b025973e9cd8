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

/// What was shown of each cell, in the order in which nobody may be shown less any more: each entry is the newest version from
/// its time on.
#[derive(Debug, Default)]
pub struct Shown(HashMap<Cell, Vec<(Time, i64)>>);

impl Shown {
    /// Adds what these reads were shown. Nobody may be shown less once the version's time has come: `due` says for its writer and
    /// the end of the read when that is.
    pub fn add(&mut self, reads: &[Read], due: impl Fn(i64, Time) -> Time) {
        for read in reads {
            for (cell, found) in &read.found {
                if let Found::Row { version, writer } = found {
                    self.0.entry(*cell).or_default().push((due(*writer, read.ended), *version));
                }
            }
        }
        for observations in self.0.values_mut() {
            observations.sort_unstable();
            let mut highest = i64::MIN;
            // Only what is newer than everything before it tells anything.
            observations.retain(|(_, version)| {
                let is_newer = *version > highest;
                highest = highest.max(*version);
                is_newer
            });
        }
    }

    /// The newest version that a read that begins then must show at least.
    fn before(&self, cell: Cell, began: Time) -> Option<i64> {
        let shown = self.0.get(&cell)?;
        let count = shown.partition_point(|(due, _)| *due < began);
        count.checked_sub(1).map(|last| shown[last].1)
    }
}

/// Every read against the newest version that any read before it has shown.
pub fn check_order(reads: &[Read], shown: &Shown) -> Vec<Disorder> {
    let mut disorders = Vec::new();
    for Read { session, began, shape, found, .. } in reads {
        for (cell, found) in found {
            let Found::Row { version, .. } = *found else { continue };
            if let Some(newest) = shown.before(*cell, *began).filter(|newest| version < *newest) {
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

fn disorders(before: &[Read], reads: &[Read], due: impl Fn(i64, Time) -> Time) -> usize {
    let mut shown = Shown::default();
    shown.add(before, &due);
    shown.add(reads, due);
    check_order(reads, &shown).len()
}

#[test]
fn a_version_that_somebody_has_seen_is_not_taken_back() {
    let at_once = |_, ended| ended;
    let (old, new) = (read(30, 40, &[(ONE, 1, 0)]), read(10, 20, &[(ONE, 2, 7)]));
    assert_eq!(disorders(&[], &[new.clone(), old], at_once), 1);
    let overlapping = read(15, 40, &[(ONE, 1, 0)]);
    assert_eq!(disorders(&[], &[new, overlapping], at_once), 0);
}

#[test]
fn what_was_known_at_the_beginning_counts() {
    let at_once = |_, ended| ended;
    let old = read(10, 20, &[(ONE, 1, 0)]);
    assert_eq!(disorders(&[read(1, 2, &[(ONE, 2, 7)])], std::slice::from_ref(&old), at_once), 1);
    assert_eq!(disorders(&[read(1, 2, &[(OTHER, 2, 7)])], &[old], at_once), 0);
}

#[test]
fn what_somebody_wrote_who_is_heard_late_may_be_missed_until_then() {
    let late = |writer, ended| if writer == 7 { ended + 100 } else { ended };
    let new = read(10, 20, &[(ONE, 2, 7)]);
    let old = |began| read(began, began + 5, &[(ONE, 1, 0)]);
    assert_eq!(disorders(std::slice::from_ref(&new), &[old(90)], late), 0);
    assert_eq!(disorders(std::slice::from_ref(&new), &[old(130)], late), 1);
    // What is written on top of it is heard at once.
    let newer = read(30, 40, &[(ONE, 3, 8)]);
    assert_eq!(disorders(&[new, newer], &[old(90)], late), 1);
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
