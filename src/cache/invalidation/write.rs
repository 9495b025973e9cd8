//! A write from the moment it may commit to the moment everybody may know.

use std::sync::{
    Arc,
    atomic::{Ordering, fence},
};

use super::{
    cell::Cell,
    cells::{CatalogEpoch, Cells},
    gate::Wide,
};
use crate::{catalog::RelationOid, routing::MemberId};

/// What a write may change.
#[derive(Clone, Copy, Debug)]
pub enum Touched<'a> {
    /// These relations and no other.
    Relations(&'a [RelationOid]),
    /// Nobody knows.
    Database,
}

/// The server process that ran a write, to find out when it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Which entry of the configuration it came through: the number of a member is its own.
    pub entry: u64,
    /// Where it ran.
    pub member: MemberId,
    /// From BackendKeyData, as `pg_stat_activity` shows it.
    pub process_id: i32,
}

/// The marks that a write has set.
#[derive(Debug, Default)]
pub(super) struct Marks {
    relations: Vec<(RelationOid, Arc<Cell>)>,
    wide: Wide,
}

impl Marks {
    fn is_empty(&self) -> bool {
        self.relations.is_empty() && self.wide.is_empty()
    }

    fn add(&mut self, cells: &Cells, touched: Touched<'_>, catalog_change: bool) {
        let more = Wide {
            catalog: catalog_change && !self.wide.catalog,
            database: matches!(touched, Touched::Database) && !self.wide.database,
        };
        if !more.is_empty() {
            cells.gate.mark(more);
            self.wide.catalog |= more.catalog;
            self.wide.database |= more.database;
        }
        if let Touched::Relations(relations) = touched {
            for relation in relations {
                self.add_relation(cells, *relation);
            }
        }
        fence(Ordering::SeqCst);
    }

    fn add_relation(&mut self, cells: &Cells, relation: RelationOid) {
        if self.relations.iter().all(|(marked, _)| *marked != relation) {
            let cell = cells.cell(relation);
            cell.mark();
            self.relations.push((relation, cell));
        }
    }

    fn bump(&self, cells: &Cells, understood: Option<CatalogEpoch>, now: u64, draw: u64) {
        if self.is_empty() {
            return;
        }
        #[cfg(debug_assertions)]
        if cells.is_ablated {
            return;
        }
        let is_outdated = understood.is_some_and(|epoch| !cells.is_in_force(epoch));
        let wide = Wide { database: self.wide.database || is_outdated, ..self.wide };
        cells.note_write(now, !wide.is_empty());
        for (_, cell) in &self.relations {
            cell.bump(now, draw);
        }
        if !wide.is_empty() {
            cells.gate.bump(wide, draw);
        }
        fence(Ordering::SeqCst);
    }

    fn release(self, cells: &Cells) {
        for (_, cell) in &self.relations {
            cell.unmark();
        }
        if !self.wide.is_empty() {
            cells.gate.unmark(self.wide);
        }
        fence(Ordering::SeqCst);
    }

    /// Takes over the marks of another write. A relation may then be marked twice, and is released
    /// twice; of two wide marks one is enough.
    pub(super) fn absorb(&mut self, cells: &Cells, other: Self) {
        let twice = Wide {
            catalog: self.wide.catalog && other.wide.catalog,
            database: self.wide.database && other.wide.database,
        };
        cells.gate.unmark(twice);
        self.relations.extend(other.relations);
        self.wide.catalog |= other.wide.catalog;
        self.wide.database |= other.wide.database;
    }
}

/// A write of which nobody knows how it ended.
#[derive(Debug)]
pub(super) struct Suspect {
    marks: Marks,
    origin: Option<Origin>,
    understood: Option<CatalogEpoch>,
}

/// A write that is marked in flight.
///
/// Settle it with [`Self::committed`] or [`Self::rolled_back`]. Dropped, its marks stay and
/// [`Cells::take_in_doubt`] hands it to whoever can find out.
///
/// `now` is a clock read *after* the server's answer arrived; a draw is a random number.
#[must_use]
#[derive(Debug)]
pub struct WriteGuard {
    cells: Arc<Cells>,
    marks: Marks,
    origin: Option<Origin>,
    understood: Option<CatalogEpoch>,
}

impl WriteGuard {
    pub(super) fn new(cells: Arc<Cells>, marks: Marks) -> Self {
        Self { cells, marks, origin: None, understood: None }
    }

    /// What it touches was worked out with the catalog of that epoch. If another is in force when it commits,
    /// a trigger, a rule or a partition that nobody looked at may have been at work: everything is void.
    pub fn understood_with(&mut self, epoch: Option<CatalogEpoch>) {
        self.understood = self.understood.or(epoch);
    }

    /// Remembers where it runs, for the case that its outcome is never told.
    pub fn runs_on(&mut self, origin: Origin) {
        self.origin = Some(origin);
    }

    /// It may touch more than was thought.
    pub fn widen(&mut self, more: Touched<'_>, catalog_change: bool) {
        self.marks.add(&self.cells, more, catalog_change);
    }

    /// It turned out to touch exactly this: the lock set arrived. What is no longer named is released
    /// without being voided.
    pub fn replace(&mut self, touched: Touched<'_>, catalog_change: bool) {
        let mut exact = Marks::default();
        exact.add(&self.cells, touched, catalog_change);
        std::mem::replace(&mut self.marks, exact).release(&self.cells);
    }

    /// Whether it has marked nothing, so that nothing needs to be held back for it.
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// A byte that may reveal a commit is about to go out, and more may be written: moves the stamps
    /// and keeps the marks.
    pub fn reveal(&self, now: u64, mut draw: impl FnMut() -> u64) {
        self.marks.bump(&self.cells, self.understood, now, draw().max(1));
    }

    /// It is committed, and no client knows yet.
    pub fn committed(mut self, now: u64, draw: impl FnMut() -> u64) {
        self.reveal(now, draw);
        std::mem::take(&mut self.marks).release(&self.cells);
    }

    /// It wrote nothing, or nothing that stayed.
    pub fn rolled_back(mut self) {
        std::mem::take(&mut self.marks).release(&self.cells);
    }

    /// `PREPARE TRANSACTION` succeeded: whoever commits it, and wherever, the marks are under its name.
    pub fn prepared(mut self, gid: &str) {
        let marks = std::mem::take(&mut self.marks);
        self.cells.keep_prepared(gid, marks);
    }
}

impl Drop for WriteGuard {
    fn drop(&mut self) {
        if !self.marks.is_empty() {
            let marks = std::mem::take(&mut self.marks);
            self.cells.keep_in_doubt(Suspect { marks, origin: self.origin, understood: self.understood });
        }
    }
}

/// A write whose outcome nobody knows. Its marks stay until it is resolved; dropped, it goes back to
/// where it came from.
#[must_use]
#[derive(Debug)]
pub struct InDoubt(WriteGuard);

impl InDoubt {
    pub(super) fn new(cells: Arc<Cells>, suspect: Suspect) -> Self {
        let Suspect { marks, origin, understood } = suspect;
        Self(WriteGuard { cells, marks, origin, understood })
    }

    /// Where it ran, if that is known.
    pub fn origin(&self) -> Option<Origin> {
        self.0.origin
    }

    /// Whether it may have changed definitions.
    pub fn changes_catalog(&self) -> bool {
        self.0.marks.wide.catalog
    }

    /// Its server process is gone, so whatever it did is visible by `now`: counts as committed.
    pub fn resolve(self, now: u64, draw: impl FnMut() -> u64) {
        self.0.committed(now, draw);
    }
}
