//! The cells of one relation.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use super::cell::Cell;
use crate::{ablation::Ablation, catalog::Row};

/// Cells for the rows of one relation that has them; rows that share one are written together, as far as answers go.
const CELLS: u16 = 2048;
/// What the cells of one relation's rows take.
pub const ROWS_BYTES: usize = CELLS as usize * size_of::<Cell>();
/// Writes by key of rows that are asked for by key, before these get cells.
const WRITES_BEFORE: u32 = 8;

/// A cache line of its own, because hits of every thread read it and only writers of this relation touch it.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line(Cell);

/// What is known of the content of one relation.
#[derive(Debug, Default)]
pub(super) struct Table {
    any: Line,
    unknown: Line,
    rows: OnceLock<Box<[Cell]>>,
    /// Somebody reads it by key.
    is_asked: AtomicBool,
    /// Writes by key, until its rows have cells.
    keyed: AtomicU32,
}

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// Moved by every write.
    Any,
    /// Moved by writes of which nobody knows which rows they touch.
    Unknown,
    /// Moved by those that touch one of these rows and no others.
    Rows(u16),
}

impl Part {
    /// The same for the same part in every process.
    pub(super) fn number(self) -> u32 {
        match self {
            Self::Any => 0,
            Self::Unknown => 1,
            Self::Rows(place) => 2 + u32::from(place),
        }
    }
}

impl Table {
    pub(super) fn any(&self) -> &Cell {
        &self.any.0
    }

    pub(super) fn unknown(&self) -> &Cell {
        &self.unknown.0
    }

    /// A cell for rows is asked for only where there are some; in its place stands the one that every write moves.
    pub(super) fn cell(&self, part: Part) -> &Cell {
        match part {
            Part::Any => self.any(),
            Part::Unknown => self.unknown(),
            Part::Rows(place) => {
                self.rows.get().and_then(|rows| rows.get(usize::from(place))).unwrap_or_else(|| self.any())
            }
        }
    }

    /// The cell of a row, if rows have cells.
    pub(super) fn place(&self, row: Row) -> Option<u16> {
        self.rows.get().map(|_| (row.number % u64::from(CELLS)) as u16)
    }

    pub(super) fn has_rows(&self) -> bool {
        self.rows.get().is_some()
    }

    /// A write of rows that nobody knows is about to commit.
    pub(super) fn mark(&self) {
        self.any().mark();
        self.unknown().mark();
    }

    pub(super) fn unmark(&self) {
        self.any().unmark();
        self.unknown().unmark();
    }

    pub(super) fn bump(&self, now: u64, draw: u64) {
        self.any().bump(now, draw);
        if !Ablation::UnknownRows.is_left_out() {
            self.unknown().bump(now, draw);
        }
    }

    /// Somebody reads it by key.
    pub(super) fn ask(&self) {
        if !self.is_asked.load(Ordering::Relaxed) {
            self.is_asked.store(true, Ordering::Relaxed);
        }
    }

    /// Another write by key: should its rows have cells by now?
    pub(super) fn wants_rows(&self) -> bool {
        self.is_asked.load(Ordering::Relaxed) && self.keyed.fetch_add(1, Ordering::Relaxed) >= WRITES_BEFORE
    }

    /// Gives its rows cells; false if they have some.
    pub(super) fn divide(&self) -> bool {
        let mut is_first = false;
        self.rows.get_or_init(|| {
            is_first = true;
            (0..CELLS).map(|_| Cell::default()).collect()
        });
        is_first
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::catalog::RelationOid;

    fn row(number: u64) -> Row {
        Row { relation: RelationOid(16_400), number }
    }

    #[test]
    fn cells_of_whole_relations_fill_cache_lines_of_their_own() {
        assert_eq!((size_of::<Line>(), align_of::<Line>()), (64, 64));
        assert!(size_of::<Cell>() <= 24, "those of rows are many");
    }

    #[test]
    fn rows_have_no_cells_until_they_are_given_some() {
        let table = Table::default();
        assert!(!table.has_rows() && table.place(row(5)).is_none());
        assert!(std::ptr::eq(table.cell(Part::Rows(5)), table.any()));
        assert!(table.divide() && !table.divide());
        assert_eq!(table.place(row(5 + u64::from(CELLS))), Some(5));
        assert!(!std::ptr::eq(table.cell(Part::Rows(5)), table.any()));
    }

    #[test]
    fn cells_are_wanted_for_rows_that_are_asked_for_and_written_by_key() {
        let table = Table::default();
        assert!((0..100).all(|_| !table.wants_rows()), "nobody asks");
        table.ask();
        let wanted = (0..10).map(|_| table.wants_rows()).collect::<Vec<_>>();
        assert_eq!(wanted.iter().filter(|wanted| **wanted).count(), 2);
    }

    #[test]
    fn parts_have_numbers_of_their_own() {
        let parts = [Part::Any, Part::Unknown, Part::Rows(0), Part::Rows(1), Part::Rows(CELLS - 1)];
        let numbers: BTreeSet<_> = parts.iter().map(|part| part.number()).collect();
        assert_eq!(numbers.len(), parts.len());
    }
}
