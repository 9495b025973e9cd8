//! The cells of one database.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering, fence},
    },
};

use dashmap::DashMap;

use super::{
    cell::Cell,
    gate::{Closure, Gate, Wide},
    write::{InDoubt, Marks, Suspect, Touched, WriteGuard},
};
use crate::{
    catalog::RelationOid,
    routing::{Fence, PrimarySamples, Watermark},
};

/// Cells that nothing refers to are dropped whenever this many more have come into being.
const CELLS_BETWEEN_SWEEPS: usize = 16_384;

/// Which catalog a statement was understood with.
///
/// Taken with [`Cells::catalog_epoch`] *before* the load of a snapshot begins. A snapshot loaded before
/// a change of the catalog may name the wrong relations, so it cannot be used to fill afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatalogEpoch(u64);

/// Why no stamps could be captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uncaptured {
    /// The cache is closed.
    Closed(Closure),
    /// A write to something it depends on is in flight.
    InFlight,
    /// The statement was understood with an older catalog.
    CatalogMoved,
}

impl Uncaptured {
    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Closed(closure) => closure.label(),
            Self::InFlight => "write_in_flight",
            Self::CatalogMoved => "catalog_moved",
        }
    }
}

/// The state of everything one answer depends on, at a moment before its query was sent.
#[derive(Clone, Debug)]
pub struct Captured {
    generation: u64,
    cells: Arc<Cells>,
    stamps: Box<[(RelationOid, Arc<Cell>, u64)]>,
    fence: Fence,
}

/// One line of `SHOW CACHE TABLES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CellReport {
    /// The relation.
    pub relation: RelationOid,
    /// Writes in flight.
    pub in_flight: u32,
    /// How often its answers were voided; wraps.
    pub bumps: u32,
    /// When its last write had been acknowledged.
    pub written_at: u64,
}

/// One per database: what was written, what is being written, and since when.
#[derive(Debug)]
pub struct Cells {
    pub(super) gate: Gate,
    relations: DashMap<RelationOid, Arc<Cell>>,
    created: AtomicUsize,
    /// The newest write to anything.
    written_at: AtomicU64,
    /// The newest write that is in no cell: of everything, of the catalog, of a cell that is gone.
    floor: AtomicU64,
    prepared: Mutex<HashMap<Box<str>, Marks>>,
    in_doubt: Mutex<Vec<Suspect>>,
    #[cfg(debug_assertions)]
    pub(super) is_ablated: bool,
}

impl Cells {
    /// `base` is a random draw. `now` counts as the time of a write to everything, because an earlier
    /// process may have acknowledged one a moment ago.
    pub fn new(base: u64, now: u64) -> Self {
        Self {
            gate: Gate::new(base),
            relations: DashMap::new(),
            created: AtomicUsize::new(0),
            written_at: AtomicU64::new(now),
            floor: AtomicU64::new(now),
            prepared: Mutex::default(),
            in_doubt: Mutex::default(),
            #[cfg(debug_assertions)]
            is_ablated: false,
        }
    }

    /// Writes void nothing any more: shows that a test finds stale answers where there are some.
    #[cfg(debug_assertions)]
    #[must_use]
    pub fn ablated(self) -> Self {
        Self { is_ablated: true, ..self }
    }

    /// Marks a write on everything it may touch; call it before any byte that may commit is forwarded.
    pub fn begin_write(self: &Arc<Self>, touched: Touched<'_>, catalog_change: bool) -> WriteGuard {
        let mut guard = WriteGuard::new(Arc::clone(self), Marks::default());
        guard.widen(touched, catalog_change);
        guard
    }

    /// The stamps of `deps`; call it before any byte of the query is sent.
    pub fn capture(self: &Arc<Self>, deps: &[RelationOid], epoch: CatalogEpoch) -> Result<Captured, Uncaptured> {
        let generation = self.gate.generation().ok_or_else(|| self.why_shut())?;
        if self.gate.catalog_stamp() != epoch.0 {
            return Err(Uncaptured::CatalogMoved);
        }
        let mut written_at = 0;
        let mut stamps = Vec::with_capacity(deps.len());
        for relation in deps {
            let cell = self.cell(*relation);
            let stamp = cell.settled_stamp().ok_or(Uncaptured::InFlight)?;
            written_at = written_at.max(cell.written_at());
            stamps.push((*relation, cell, stamp));
        }
        let written_at = written_at.max(self.floor());
        fence(Ordering::SeqCst);
        Ok(Captured { generation, cells: Arc::clone(self), stamps: stamps.into(), fence: Fence::after(written_at) })
    }

    /// Whether the answer that carries these stamps may be served at this moment.
    pub fn is_current(&self, captured: &Captured) -> bool {
        self.gate.generation() == Some(captured.generation)
            && captured.stamps.iter().all(|(_, cell, stamp)| cell.settled_stamp() == Some(*stamp))
    }

    /// The epoch of a catalog snapshot whose load begins now.
    pub fn catalog_epoch(&self) -> CatalogEpoch {
        let epoch = CatalogEpoch(self.gate.catalog_stamp());
        fence(Ordering::SeqCst);
        epoch
    }

    /// Whether the catalog is the one of that epoch, and what was understood with it still holds.
    pub fn is_in_force(&self, epoch: CatalogEpoch) -> bool {
        self.gate.catalog_stamp() == epoch.0
    }

    /// What a read of `deps` must not miss; `None`: it may read anything in the database.
    pub fn fence(&self, deps: Option<&[RelationOid]>) -> Fence {
        let Some(deps) = deps else {
            return Fence::after(self.written_at.load(Ordering::SeqCst));
        };
        let of = |relation| self.relations.get(relation).map_or(0, |cell| cell.written_at());
        let in_cells = deps.iter().map(of).max().unwrap_or(0);
        Fence::after(in_cells.max(self.floor()))
    }

    /// [`Self::fence`] as the position a replica must have replayed.
    pub fn watermark(&self, deps: Option<&[RelationOid]>, samples: &PrimarySamples) -> Watermark {
        samples.resolve(self.fence(deps))
    }

    /// The catalog was changed behind our back: everything is void, and fills wait for a snapshot
    /// whose epoch was taken after this. So: notice, bump, take the epoch, load, publish both.
    pub fn bump_catalog(&self, draw: impl FnMut() -> u64) {
        self.bump_gate(Wide { catalog: true, database: false }, draw);
    }

    /// Voids the answers that use one relation, or all of them.
    pub fn flush(&self, relation: Option<RelationOid>, now: u64, mut draw: impl FnMut() -> u64) {
        match relation {
            Some(relation) => self.cell(relation).bump(now, draw().max(1)),
            None => self.bump_gate(Wide { catalog: false, database: true }, draw),
        }
        fence(Ordering::SeqCst);
    }

    /// Refuses every hit and every fill until [`Self::reopen`] is called with the same reason.
    pub fn close(&self, reason: Closure) {
        self.gate.close(reason);
        fence(Ordering::SeqCst);
    }

    /// Ends one closure. Nothing from before it is served again.
    pub fn reopen(&self, reason: Closure, mut draw: impl FnMut() -> u64) {
        self.gate.reopen(reason, draw().max(1));
        fence(Ordering::SeqCst);
    }

    /// [`Self::reopen`] or [`Self::close`].
    pub fn set_usable(&self, usable: bool, reason: Closure, draw: impl FnMut() -> u64) {
        if usable { self.reopen(reason, draw) } else { self.close(reason) }
    }

    /// Why the cache is closed, if it is.
    pub fn closure(&self) -> Option<Closure> {
        self.gate.closure()
    }

    /// The writes whose outcome nobody knows, to be resolved once their server process is gone. A
    /// record dropped unresolved comes back.
    pub fn take_in_doubt(self: &Arc<Self>) -> Vec<InDoubt> {
        let suspects = std::mem::take(&mut *lock(&self.in_doubt));
        suspects.into_iter().map(|suspect| InDoubt::new(Arc::clone(self), suspect)).collect()
    }

    /// How many writes are in doubt.
    pub fn in_doubt(&self) -> usize {
        lock(&self.in_doubt).len()
    }

    /// The marks of a prepared transaction, to be settled by `COMMIT PREPARED` or `ROLLBACK PREPARED`.
    /// `None`: it was prepared elsewhere, and may have written anything.
    pub fn take_prepared(self: &Arc<Self>, gid: &str) -> Option<WriteGuard> {
        let marks = lock(&self.prepared).remove(gid)?;
        Some(WriteGuard::new(Arc::clone(self), marks))
    }

    /// Prepared transactions whose end has not been seen.
    pub fn prepared(&self) -> usize {
        lock(&self.prepared).len()
    }

    /// Writes in flight to the catalog and to the whole database.
    pub fn wide_writes_in_flight(&self) -> (u32, u32) {
        self.gate.in_flight()
    }

    /// Every cell there is, in no order.
    pub fn report(&self) -> Vec<CellReport> {
        let line = |relation: &RelationOid, cell: &Cell| CellReport {
            relation: *relation,
            in_flight: cell.in_flight(),
            bumps: cell.bumps(),
            written_at: cell.written_at(),
        };
        self.relations.iter().map(|item| line(item.key(), item.value())).collect()
    }

    pub(super) fn cell(&self, relation: RelationOid) -> Arc<Cell> {
        if let Some(cell) = self.relations.get(&relation) {
            return Arc::clone(&cell);
        }
        if self.created.fetch_add(1, Ordering::Relaxed) % CELLS_BETWEEN_SWEEPS == CELLS_BETWEEN_SWEEPS - 1 {
            self.sweep();
        }
        Arc::clone(&self.relations.entry(relation).or_default())
    }

    pub(super) fn note_write(&self, now: u64, is_wide: bool) {
        self.written_at.fetch_max(now, Ordering::SeqCst);
        if is_wide {
            self.floor.fetch_max(now, Ordering::SeqCst);
        }
    }

    pub(super) fn keep_prepared(&self, gid: &str, marks: Marks) {
        let mut prepared = lock(&self.prepared);
        prepared.entry(gid.into()).or_default().absorb(self, marks);
    }

    pub(super) fn keep_in_doubt(&self, suspect: Suspect) {
        lock(&self.in_doubt).push(suspect);
    }

    /// To be read after the cells: the time of one that was dropped in between is in here by then.
    fn floor(&self) -> u64 {
        self.floor.load(Ordering::SeqCst)
    }

    /// Drops the cells that no answer, no fill and no write holds: whoever holds one took it under the
    /// lock of its shard, which is held while the holders are counted. The time of its last write
    /// outlives it in the floor.
    fn sweep(&self) {
        self.relations.retain(|_, cell| {
            let is_held = Arc::strong_count(cell) > 1;
            if !is_held {
                self.floor.fetch_max(cell.written_at(), Ordering::SeqCst);
            }
            is_held
        });
    }

    fn bump_gate(&self, wide: Wide, mut draw: impl FnMut() -> u64) {
        self.gate.bump(wide, draw().max(1));
        fence(Ordering::SeqCst);
    }

    fn why_shut(&self) -> Uncaptured {
        self.gate.closure().map_or(Uncaptured::InFlight, Uncaptured::Closed)
    }
}

impl Captured {
    /// What the fill must not miss if it is sent to a replica: `pg_last_wal_replay_lsn()` asked on the
    /// same connection, before the query, must have passed it.
    pub fn fence(&self) -> Fence {
        self.fence
    }

    /// Whether nothing has moved and nothing is in flight.
    pub fn is_current(&self) -> bool {
        self.cells.is_current(self)
    }

    /// Whether it was captured here: a reload may have put another database behind the same name.
    pub fn is_of(&self, cells: &Arc<Cells>) -> bool {
        Arc::ptr_eq(&self.cells, cells)
    }

    /// Whether it depends on that relation.
    pub fn depends_on(&self, relation: RelationOid) -> bool {
        self.stamps.iter().any(|(of, ..)| *of == relation)
    }

    /// How many relations it depends on.
    pub fn relations(&self) -> usize {
        self.stamps.len()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
