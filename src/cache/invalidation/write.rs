//! A write from the moment it may commit to the moment everybody may know.

use std::sync::{
    Arc,
    atomic::{Ordering, fence},
};

use super::{
    cells::{CatalogEpoch, Cells},
    gate::Wide,
    peers::{Places, Ticket, WriteId, WriteSet},
    table::{Part, Table},
};
use crate::{
    ablation::Ablation,
    catalog::{RelationOid, Row},
    routing::MemberId,
};

/// What a write may change.
#[derive(Clone, Copy, Debug)]
pub enum Touched<'a> {
    /// These relations and no other.
    Relations(&'a [RelationOid]),
    /// These rows of their relations and no other.
    Rows(&'a [Row]),
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

/// Are writes marked while they are under way?
fn is_marking() -> bool {
    let left_out = [Ablation::Mark, Ablation::BumpBehindCommit, Ablation::BumpBeforeReply];
    !left_out.into_iter().any(Ablation::is_left_out)
}

/// The marks that a write has set.
#[derive(Debug, Default)]
pub(super) struct Marks {
    relations: Vec<(RelationOid, Arc<Table>)>,
    /// Relations of which it touches rows that are known.
    by_key: Vec<ByKey>,
    wide: Wide,
}

#[derive(Debug)]
struct ByKey {
    relation: RelationOid,
    table: Arc<Table>,
    /// Cells of its rows, each once.
    places: Vec<u16>,
}

impl ByKey {
    /// `None`: they have none, and never will be without those that they have.
    fn told(&self) -> Option<Places> {
        let key = self.table.key()?;
        Some(Places { relation: self.relation, key, places: self.places.as_slice().into() })
    }

    fn unmark(&self) {
        self.table.any().unmark();
        for place in &self.places {
            self.table.cell(Part::Rows(*place)).unmark();
        }
    }
}

impl Marks {
    fn is_empty(&self) -> bool {
        self.relations.is_empty() && self.by_key.is_empty() && self.wide.is_empty()
    }

    fn add(&mut self, cells: &Cells, touched: Touched<'_>, catalog_change: bool) {
        let more = Wide {
            catalog: catalog_change && !self.wide.catalog,
            database: matches!(touched, Touched::Database) && !self.wide.database,
        };
        if !more.is_empty() {
            if is_marking() {
                cells.gate.mark(more);
            }
            if Ablation::BumpBehindCommit.is_left_out() {
                cells.gate.bump(more, 1);
            }
            self.wide.catalog |= more.catalog;
            self.wide.database |= more.database;
        }
        match touched {
            Touched::Relations(relations) => relations.iter().for_each(|relation| self.add_relation(cells, *relation)),
            Touched::Rows(rows) => rows.iter().for_each(|row| self.add_row(cells, *row)),
            Touched::Database => {}
        }
        fence(Ordering::SeqCst);
    }

    fn add_relation(&mut self, cells: &Cells, relation: RelationOid) {
        if !self.has(relation) {
            let table = cells.table(relation);
            if is_marking() {
                table.mark();
            }
            if Ablation::BumpBehindCommit.is_left_out() {
                table.bump(0, 1);
            }
            self.relations.push((relation, table));
        }
    }

    fn has(&self, relation: RelationOid) -> bool {
        self.relations.iter().any(|(marked, _)| *marked == relation)
    }

    /// A row without a cell stands for all rows of its relation.
    fn add_row(&mut self, cells: &Cells, row: Row) {
        if self.has(row.relation) {
            return;
        }
        let known = self.by_key.iter().position(|known| known.relation == row.relation);
        let table = match known.and_then(|at| self.by_key.get(at)) {
            Some(known) => Arc::clone(&known.table),
            None => cells.table(row.relation),
        };
        match cells.place_of_writer(&table, row) {
            Some(place) => self.add_place(row.relation, table, place),
            None => self.add_relation(cells, row.relation),
        }
    }

    fn add_place(&mut self, relation: RelationOid, table: Arc<Table>, place: u16) {
        let known = self.by_key.iter().position(|known| known.relation == relation);
        if known.is_none() {
            if is_marking() {
                table.any().mark();
            }
            self.by_key.push(ByKey { relation, table, places: Vec::new() });
        }
        let at = known.unwrap_or(self.by_key.len().saturating_sub(1));
        let known = self.by_key.get_mut(at);
        let Some(known) = known.filter(|known| !known.places.contains(&place)) else { return };
        known.places.push(place);
        if is_marking() {
            known.table.cell(Part::Rows(place)).mark();
        }
        if Ablation::BumpBehindCommit.is_left_out() {
            known.table.bump_rows(&known.places, true, 0, 1);
        }
    }

    /// What another proxy has told of.
    fn add_told(&mut self, cells: &Cells, set: &WriteSet) {
        let touched = if set.database { Touched::Database } else { Touched::Relations(&[]) };
        self.add(cells, touched, set.catalog);
        for rows in &set.rows {
            match cells.table_of_places(rows) {
                Ok(table) => {
                    rows.places.iter().for_each(|place| self.add_place(rows.relation, Arc::clone(&table), *place));
                }
                Err(_) => self.add_relation(cells, rows.relation),
            }
        }
        self.add(cells, Touched::Relations(&set.relations), false);
    }

    fn set(&self) -> WriteSet {
        let relations = self.relations.iter().map(|(relation, _)| *relation).collect();
        let rows = self.by_key.iter().filter_map(ByKey::told).collect();
        WriteSet { relations, rows, database: self.wide.database, catalog: self.wide.catalog }
    }

    fn bump(&self, cells: &Cells, understood: Option<CatalogEpoch>, now: u64, draw: u64) -> Ticket {
        let is_kept = Ablation::Invalidation.is_left_out() || Ablation::BumpBehindCommit.is_left_out();
        if self.is_empty() || is_kept {
            return Ticket::NONE;
        }
        let is_outdated = understood.is_some_and(|epoch| !cells.is_certainly_in_force(epoch));
        let wide = Wide { database: self.wide.database || is_outdated, ..self.wide };
        cells.voids.proxy();
        let mut here = || {
            cells.note_write(now, !wide.is_empty());
            self.relations.iter().for_each(|(_, table)| table.bump(now, draw));
            // What others are told of once is to move once here, too.
            self.by_key.iter().for_each(|ByKey { relation, table, places }| {
                table.bump_rows(places, !self.has(*relation), now, draw);
            });
            if !wide.is_empty() {
                // Others share the stamp of the database, and not that of the catalog.
                cells.gate.bump(Wide { database: true, ..wide }, draw);
            }
        };
        let ticket = match cells.peers() {
            Some(peers) => peers.bump(WriteSet { database: wide.database, ..self.set() }, draw, &mut here),
            None => {
                here();
                Ticket::NONE
            }
        };
        fence(Ordering::SeqCst);
        ticket
    }

    fn release(self, cells: &Cells) {
        if !is_marking() {
            return;
        }
        self.relations.iter().for_each(|(_, table)| table.unmark());
        self.by_key.iter().for_each(ByKey::unmark);
        if !self.wide.is_empty() {
            cells.gate.unmark(self.wide);
        }
        fence(Ordering::SeqCst);
    }
}

/// A write of which nobody knows how it ended.
#[derive(Debug)]
pub(super) struct Suspect {
    marks: Marks,
    origin: Option<Origin>,
    understood: Option<CatalogEpoch>,
    told: Option<WriteId>,
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
    /// What the other proxies call it.
    told: Option<WriteId>,
}

impl WriteGuard {
    pub(super) fn new(cells: Arc<Cells>, marks: Marks) -> Self {
        Self { cells, marks, origin: None, understood: None, told: None }
    }

    /// Tells the other proxies, where there are any: nothing of the commit may be sent before they have heard.
    pub fn announce(&mut self) -> Ticket {
        let Some(peers) = self.cells.peers().filter(|_| self.told.is_none() && !self.marks.is_empty()) else {
            return Ticket::NONE;
        };
        let process_id = self.origin.map_or(0, |origin| origin.process_id);
        let (told, ticket) = peers.begin(self.marks.set(), process_id);
        self.told = Some(told);
        ticket
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

    /// It covers what the other one does, which runs in the same server process, and will be settled in its place.
    pub fn stands_for(&mut self, other: &Self) {
        (self.origin, self.understood) = (other.origin, other.understood);
    }

    /// It may touch more than was thought.
    pub fn widen(&mut self, more: Touched<'_>, catalog_change: bool) {
        self.marks.add(&self.cells, more, catalog_change);
    }

    /// Another proxy has told of it.
    pub(super) fn mark_for_peer(&mut self, set: &WriteSet) {
        self.marks.add_told(&self.cells, set);
    }

    /// It turned out to touch exactly this: the lock set arrived. What is no longer named is released
    /// without being voided.
    pub fn replace(&mut self, touched: Touched<'_>, catalog_change: bool) {
        let mut exact = Marks::default();
        exact.add(&self.cells, touched, catalog_change);
        std::mem::replace(&mut self.marks, exact).release(&self.cells);
    }

    /// What it may change.
    pub fn set(&self) -> WriteSet {
        self.marks.set()
    }

    /// Whether it has marked nothing, so that nothing needs to be held back for it.
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// A byte that may reveal a commit is about to go out, and more may be written: moves the stamps
    /// and keeps the marks.
    ///
    /// No byte may go out before the other proxies have heard.
    pub fn reveal(&self, now: u64, mut draw: impl FnMut() -> u64) -> Ticket {
        if Ablation::BumpBeforeReply.is_left_out() {
            return Ticket::NONE;
        }
        self.marks.bump(&self.cells, self.understood, now, draw().max(1))
    }

    /// It is committed, and no client knows yet, nor may before the other proxies have heard.
    pub fn committed(mut self, now: u64, draw: impl FnMut() -> u64) -> Ticket {
        #[cfg(debug_assertions)]
        if Ablation::BumpBeforeReply.is_left_out() {
            self.committed_late(now, draw);
            return Ticket::NONE;
        }
        let ticket = self.reveal(now, draw);
        self.end();
        ticket
    }

    /// The client is told while others may still hit what was true before.
    #[cfg(debug_assertions)]
    fn committed_late(mut self, now: u64, mut draw: impl FnMut() -> u64) {
        let (marks, draw) = (std::mem::take(&mut self.marks), draw().max(1));
        let (cells, understood) = (Arc::clone(&self.cells), self.understood);
        std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(5));
            marks.bump(&cells, understood, now, draw);
        });
    }

    /// It wrote nothing, or nothing that stayed.
    pub fn rolled_back(mut self) {
        self.end();
    }

    fn end(&mut self) {
        std::mem::take(&mut self.marks).release(&self.cells);
        if let (Some(told), Some(peers)) = (self.told.take(), self.cells.peers()) {
            peers.end(told);
        }
    }
}

impl Drop for WriteGuard {
    fn drop(&mut self) {
        if Ablation::InDoubt.is_left_out() {
            return self.end();
        }
        if !self.marks.is_empty() || self.told.is_some() {
            let marks = std::mem::take(&mut self.marks);
            let Self { origin, understood, told, .. } = *self;
            self.cells.keep_in_doubt(Suspect { marks, origin, understood, told });
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
        let Suspect { marks, origin, understood, told } = suspect;
        Self(WriteGuard { cells, marks, origin, understood, told })
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
        // No client waits to be told.
        _ = self.0.committed(now, draw);
    }
}
