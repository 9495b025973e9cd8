//! The cells of one relation.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use super::cell::Cell;
use crate::{
    ablation::Ablation,
    catalog::{KeyId, Row},
};

/// Cells for the rows of one relation that has them; rows that share one are written together, as far as answers go. Other
/// proxies are told of places: another number of them is another version of [`crate::cache::bus::frame`].
pub const CELLS: u16 = 2048;
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
    /// Whether its rows have cells is settled once: whoever is told of a write marks and moves the same ones.
    rows: OnceLock<Option<Rows>>,
    /// Somebody reads it by key.
    is_asked: AtomicBool,
    /// Writes by key, until its rows have cells.
    keyed: AtomicU32,
}

/// Cells of rows, by one key of the relation: nothing is known of rows that are told by another one.
#[derive(Debug)]
struct Rows {
    key: KeyId,
    cells: Box<[Cell]>,
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
                self.rows().and_then(|rows| rows.cells.get(usize::from(place))).unwrap_or_else(|| self.any())
            }
        }
    }

    fn rows(&self) -> Option<&Rows> {
        self.rows.get().and_then(Option::as_ref)
    }

    /// The cell of a row, if rows have cells by this key.
    pub(super) fn place(&self, row: Row) -> Option<u16> {
        self.is_divided_by(row.key).then_some((row.number % u64::from(CELLS)) as u16)
    }

    pub(super) fn is_divided_by(&self, key: KeyId) -> bool {
        self.key() == Some(key)
    }

    /// By which key its rows have cells, if they do.
    pub(super) fn key(&self) -> Option<KeyId> {
        self.rows().map(|rows| rows.key)
    }

    pub(super) fn has_rows(&self) -> bool {
        self.rows().is_some()
    }

    /// The sums of its cells of rows, where there is one.
    pub(super) fn sums(&self) -> Vec<(u16, u64)> {
        let cells = self.rows().map_or(&[][..], |rows| &rows.cells);
        (0..).zip(cells.iter().map(Cell::stamp)).filter(|(_, stamp)| *stamp != 0).collect()
    }

    pub(super) fn set_row_stamp(&self, place: u16, stamp: u64) {
        if let Some(cell) = self.rows().and_then(|rows| rows.cells.get(usize::from(place))) {
            cell.set_stamp(stamp);
        }
    }

    /// Goes on from another proxy's sums, which are one for all of its rows.
    pub(super) fn set_stamps(&self, stamp: u64) {
        [self.any(), self.unknown()].into_iter().for_each(|cell| cell.set_stamp(stamp));
        self.rows().into_iter().flat_map(|rows| &rows.cells).for_each(|cell| cell.set_stamp(0));
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

    /// A write of these rows and no others; `with_any` unless it moves the whole table as well.
    pub(super) fn bump_rows(&self, places: &[u16], with_any: bool, now: u64, draw: u64) {
        if with_any {
            self.any().bump(now, draw);
        }
        if !Ablation::RowsByKey.is_left_out() {
            places.iter().for_each(|place| self.cell(Part::Rows(*place)).bump(now, draw));
        }
    }

    /// Somebody reads it by key.
    pub(super) fn ask(&self) {
        if !self.is_asked.load(Ordering::Relaxed) {
            self.is_asked.store(true, Ordering::Relaxed);
        }
    }

    /// Another write by key: should its rows have cells by now? `is_shared`: others may ask for them who do not ask here.
    pub(super) fn wants_rows(&self, is_shared: bool) -> bool {
        let is_open = self.rows.get().is_none() && (is_shared || self.is_asked.load(Ordering::Relaxed));
        is_open && self.keyed.fetch_add(1, Ordering::Relaxed) >= WRITES_BEFORE
    }

    /// Gives its rows cells, if there is room and that has not been settled before.
    pub(super) fn divide(&self, key: KeyId, is_let_in: impl FnOnce() -> bool) {
        let cells = || (0..CELLS).map(|_| Cell::default()).collect();
        self.rows.get_or_init(|| is_let_in().then(|| Rows { key, cells: cells() }));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::catalog::RelationOid;

    const ID: KeyId = KeyId(1);

    fn row(number: u64) -> Row {
        Row { relation: RelationOid(16_400), key: ID, number }
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
        table.divide(ID, || true);
        table.divide(KeyId(2), || true);
        assert_eq!(table.place(Row { key: KeyId(2), ..row(5) }), None, "cells are those of the first key");
        assert_eq!(table.place(row(5 + u64::from(CELLS))), Some(5));
        assert!(!std::ptr::eq(table.cell(Part::Rows(5)), table.any()));
    }

    #[test]
    fn cells_are_wanted_for_rows_that_are_asked_for_and_written_by_key() {
        let table = Table::default();
        assert!((0..100).all(|_| !table.wants_rows(false)), "nobody asks");
        table.ask();
        let wanted = (0..10).map(|_| table.wants_rows(false)).collect::<Vec<_>>();
        assert_eq!(wanted.iter().filter(|wanted| **wanted).count(), 2);
        let shared = Table::default();
        assert_eq!((0..10).filter(|_| shared.wants_rows(true)).count(), 2, "somebody elsewhere may ask");
    }

    #[test]
    fn rows_that_found_no_room_once_find_none_later() {
        let table = Table::default();
        table.divide(ID, || false);
        table.divide(ID, || true);
        assert!(!table.has_rows() && !table.wants_rows(true));
    }

    #[test]
    fn parts_have_numbers_of_their_own() {
        let parts = [Part::Any, Part::Unknown, Part::Rows(0), Part::Rows(1), Part::Rows(CELLS - 1)];
        let numbers: BTreeSet<_> = parts.iter().map(|part| part.number()).collect();
        assert_eq!(numbers.len(), parts.len());
    }
}
