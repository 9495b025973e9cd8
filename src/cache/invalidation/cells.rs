//! The cells of one database.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering, fence},
    },
};

use dashmap::DashMap;

use super::{
    deps::Deps,
    direct::VoidCounts,
    gate::{Closure, Gate, Wide},
    peers::{Peers, Places, WriteSet},
    table::{Part, Table},
    write::{InDoubt, Marks, Suspect, Touched, WriteGuard},
};
use crate::{
    ablation::Ablation,
    catalog::{KeyId, RelationOid, Row},
    routing::{Fence, PrimarySamples, Watermark},
};

/// Cells that nothing refers to are dropped whenever this many more have come into being.
const CELLS_BETWEEN_SWEEPS: usize = 16_384;
/// Relations whose rows have cells, 48 kB each. Once they do, they keep them.
const MOST_WITH_ROWS: usize = 128;

/// Any relation may have changed.
pub(super) static EVERYTHING: std::sync::LazyLock<WriteSet> =
    std::sync::LazyLock::new(|| WriteSet { database: true, ..WriteSet::default() });

/// Which catalog a statement was understood with.
///
/// Taken with [`Cells::catalog_epoch`] *before* the load of a snapshot begins. A snapshot loaded before
/// a change of the catalog may name the wrong relations, so it cannot be used to fill afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatalogEpoch {
    stamp: u64,
    /// What the server calls this state of the catalog, which is the same for every proxy.
    fingerprint: u64,
}

impl CatalogEpoch {
    /// The same, of a snapshot with that fingerprint.
    #[must_use]
    pub fn with_fingerprint(self, fingerprint: u64) -> Self {
        Self { fingerprint, ..self }
    }
}

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
    /// The parts of the generation that other proxies may share.
    database: u64,
    fingerprint: u64,
    cells: Arc<Cells>,
    stamps: Box<[Stamped]>,
    fence: Fence,
}

/// One cell and its stamp at that moment.
#[derive(Clone, Debug)]
struct Stamped {
    relation: RelationOid,
    part: Part,
    table: Arc<Table>,
    stamp: u64,
}

impl Stamped {
    fn is_settled(&self) -> bool {
        self.table.cell(self.part).settled_stamp() == Some(self.stamp)
    }

    fn has_moved(&self) -> bool {
        self.table.cell(self.part).stamp() != self.stamp
    }

    fn name(&self) -> (RelationOid, Part, u64) {
        (self.relation, self.part, self.stamp)
    }
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
    /// How many of these were writes of rows known by key, which voided nothing else that is asked for by key; `None`:
    /// every write voids everything.
    pub by_key: Option<u32>,
    /// When its last write had been acknowledged.
    pub written_at: u64,
}

/// One per database: what was written, what is being written, and since when.
#[derive(Debug)]
pub struct Cells {
    pub(super) gate: Gate,
    pub(super) relations: DashMap<RelationOid, Arc<Table>>,
    created: AtomicUsize,
    /// Relations whose rows have cells.
    with_rows: AtomicUsize,
    /// The newest write to anything.
    written_at: AtomicU64,
    /// The newest write that is in no cell: of everything, of the catalog, of a cell that is gone.
    floor: AtomicU64,
    peers: OnceLock<Arc<dyn Peers>>,
    in_doubt: Mutex<Vec<Suspect>>,
    pub(super) voids: VoidCounts,
}

impl Cells {
    /// `base` is a random draw. `now` counts as the time of a write to everything, because an earlier
    /// process may have acknowledged one a moment ago.
    pub fn new(base: u64, now: u64) -> Self {
        Self {
            gate: Gate::new(base),
            relations: DashMap::new(),
            created: AtomicUsize::new(0),
            with_rows: AtomicUsize::new(0),
            written_at: AtomicU64::new(now),
            floor: AtomicU64::new(now),
            peers: OnceLock::new(),
            in_doubt: Mutex::default(),
            voids: VoidCounts::default(),
        }
    }

    /// Marks a write on everything it may touch; call it before any byte that may commit is forwarded.
    pub fn begin_write(self: &Arc<Self>, touched: Touched<'_>, catalog_change: bool) -> WriteGuard {
        self.sweep_now_and_then();
        let mut guard = WriteGuard::new(Arc::clone(self), Marks::default());
        guard.widen(touched, catalog_change);
        guard
    }

    /// The stamps of `deps`; call it before any byte of the query is sent.
    pub fn capture<'a>(
        self: &Arc<Self>,
        deps: impl Into<Deps<'a>>,
        epoch: CatalogEpoch,
    ) -> Result<Captured, Uncaptured> {
        let deps = deps.into();
        self.sweep_now_and_then();
        let generation = self.gate.generation().ok_or_else(|| self.why_shut())?;
        if !self.is_in_force(epoch) {
            return Err(Uncaptured::CatalogMoved);
        }
        let database = self.gate.database_stamp();
        let mut written_at = 0;
        let mut stamps = Vec::with_capacity(deps.relations.len() + 1);
        let mut stamp = |relation, part, table: Arc<Table>| {
            let cell = table.cell(part);
            let stamp = cell.settled_stamp().ok_or(Uncaptured::InFlight)?;
            written_at = written_at.max(cell.written_at());
            stamps.push(Stamped { relation, part, table, stamp });
            Ok(())
        };
        for relation in deps.relations {
            let table = self.table(*relation);
            match deps.row.and_then(|row| self.place_of_reader(&table, *relation, row)) {
                Some(place) => {
                    stamp(*relation, Part::Unknown, Arc::clone(&table))?;
                    stamp(*relation, Part::Rows(place), table)?;
                }
                None => stamp(*relation, Part::Any, table)?,
            }
        }
        let written_at = written_at.max(self.floor());
        fence(Ordering::SeqCst);
        let cells = Arc::clone(self);
        let fingerprint = epoch.fingerprint;
        Ok(Captured {
            generation,
            database,
            fingerprint,
            cells,
            stamps: stamps.into(),
            fence: Fence::after(written_at),
        })
    }

    /// Whether the answer that carries these stamps may be served at this moment.
    pub fn is_current(&self, captured: &Captured) -> bool {
        self.gate.generation() == Some(captured.generation) && captured.stamps.iter().all(Stamped::is_settled)
    }

    /// Another number whenever one of them was written: good for guesses, it says nothing of writes in flight.
    pub fn sum<'a>(&self, deps: impl Into<Deps<'a>>) -> u64 {
        let deps = deps.into();
        let of = |relation: &RelationOid| {
            let Some(table) = self.relations.get(relation) else { return 0 };
            match deps.row.and_then(|row| self.place_of_reader(&table, *relation, row)) {
                Some(place) => table.unknown().stamp().wrapping_add(table.cell(Part::Rows(place)).stamp()),
                None => table.any().stamp(),
            }
        };
        deps.relations.iter().map(of).fold(self.gate.database_stamp(), u64::wrapping_add)
    }

    /// The epoch of a catalog snapshot whose load begins now.
    pub fn catalog_epoch(&self) -> CatalogEpoch {
        let epoch = CatalogEpoch { stamp: self.gate.catalog_stamp(), fingerprint: 0 };
        fence(Ordering::SeqCst);
        epoch
    }

    /// Whether the catalog is the one of that epoch, and what was understood with it still holds.
    pub fn is_in_force(&self, epoch: CatalogEpoch) -> bool {
        self.gate.catalog_stamp() == epoch.stamp || Ablation::CatalogEpoch.is_left_out()
    }

    /// The same, unless definitions may have changed that no stamp tells of yet: another proxy's change of them is under way.
    pub fn is_certainly_in_force(&self, epoch: CatalogEpoch) -> bool {
        self.is_in_force(epoch) && (self.peers.get().is_none() || self.gate.in_flight().0 == 0)
    }

    /// What a read of `deps` must not miss; `None`: it may read anything in the database.
    pub fn fence(&self, deps: Option<&[RelationOid]>) -> Fence {
        let Some(deps) = deps else {
            return Fence::after(self.written_at.load(Ordering::SeqCst));
        };
        let of = |relation| self.relations.get(relation).map_or(0, |table| table.any().written_at());
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
        self.voids.definitions();
        self.bump_gate(Wide { catalog: true, database: false }, draw);
    }

    /// What definitions say was read from the primary by `now`: a replica that has not replayed so far may still know
    /// others, by which the same statement reads other relations. To be called before anybody judges by them.
    pub fn note_definitions(&self, now: u64) {
        self.note_write(now, true);
    }

    /// Voids the answers that use one relation, or all of them, here and at the other proxies.
    pub fn flush(&self, relation: Option<RelationOid>, now: u64, mut draw: impl FnMut() -> u64) {
        self.voids.console();
        let relations = relation.into_iter().collect();
        let set = WriteSet { relations, database: relation.is_none(), ..WriteSet::default() };
        self.void_everywhere(&set, now, draw().max(1));
    }

    /// Moves the stamps of a set, here and at the other proxies.
    pub(super) fn void_everywhere(&self, set: &WriteSet, now: u64, draw: u64) {
        let mut here = || self.move_stamps(set, now, draw);
        match self.peers() {
            Some(peers) => _ = peers.bump(set.clone(), draw, &mut here),
            None => here(),
        }
        fence(Ordering::SeqCst);
    }

    /// Marks a write of another proxy.
    pub fn mark_for_peer(self: &Arc<Self>, set: &WriteSet) -> WriteGuard {
        let mut guard = WriteGuard::new(Arc::clone(self), Marks::default());
        guard.mark_for_peer(set);
        guard
    }

    /// Moves the stamps of a set, here and nowhere else: another proxy has told of it, or will be told. `now` is a clock read
    /// after the write was visible.
    pub fn move_stamps(&self, set: &WriteSet, now: u64, draw: u64) {
        self.note_write(now, set.database || set.catalog);
        for relation in &set.relations {
            self.table(*relation).bump(now, draw);
        }
        for rows in &set.rows {
            let is_whole = set.relations.contains(&rows.relation);
            match self.table_of_places(rows) {
                Ok(table) => table.bump_rows(&rows.places, !is_whole, now, draw),
                Err(table) if !is_whole => table.bump(now, draw),
                Err(_) => {}
            }
        }
        if set.database || set.catalog {
            // Whoever shares no catalog stamp with us is to notice by this one.
            self.gate.bump(Wide { catalog: set.catalog, database: true }, draw);
        }
        fence(Ordering::SeqCst);
    }

    /// Whom to tell of writes from now on; the first call counts.
    pub fn join(&self, peers: Arc<dyn Peers>) {
        _ = self.peers.set(peers);
    }

    /// Whom writes are told to.
    pub fn peers(&self) -> Option<&Arc<dyn Peers>> {
        self.peers.get()
    }

    /// Nothing is served from then on, nanoseconds on the process clock: what other proxies write is known until then.
    pub fn trust_until(&self, until: u64) {
        self.gate.trust_until(until);
    }

    /// Is what other proxies write known at that time?
    pub fn is_trusted_at(&self, now: u64) -> bool {
        self.gate.is_trusted_at(now)
    }

    /// Refuses every hit and every fill until [`Self::reopen`] is called with the same reason.
    pub fn close(&self, reason: Closure) {
        self.gate.close(reason);
        fence(Ordering::SeqCst);
    }

    /// Ends one closure, if there is one. Nothing from before it is served again.
    pub fn reopen(&self, reason: Closure, now: u64, mut draw: impl FnMut() -> u64) {
        if self.gate.is_closed(reason) {
            self.void_everywhere(&EVERYTHING, now, draw().max(1));
            self.gate.reopen(reason);
            fence(Ordering::SeqCst);
        }
    }

    /// Ends one closure that has hidden nothing: what happened meanwhile has moved the stamps.
    pub fn resume(&self, reason: Closure) {
        self.gate.reopen(reason);
        fence(Ordering::SeqCst);
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

    /// Writes in flight to the catalog and to the whole database.
    pub fn wide_writes_in_flight(&self) -> (u32, u32) {
        self.gate.in_flight()
    }

    /// Every cell there is, in no order.
    pub fn report(&self) -> Vec<CellReport> {
        let line = |relation: &RelationOid, table: &Table| CellReport {
            relation: *relation,
            in_flight: table.any().in_flight(),
            bumps: table.any().bumps(),
            by_key: table.has_rows().then(|| table.any().bumps().wrapping_sub(table.unknown().bumps())),
            written_at: table.any().written_at(),
        };
        self.relations.iter().map(|item| line(item.key(), item.value())).collect()
    }

    /// Relations whose rows have cells, and how many there may be.
    pub fn with_rows(&self) -> (usize, usize) {
        (self.with_rows.load(Ordering::Relaxed), MOST_WITH_ROWS)
    }

    pub(super) fn table(&self, relation: RelationOid) -> Arc<Table> {
        if let Some(table) = self.relations.get(&relation) {
            return Arc::clone(&table);
        }
        self.created.fetch_add(1, Ordering::Relaxed);
        Arc::clone(&self.relations.entry(relation).or_default())
    }

    /// The table, if what is told of these rows is known of them here; otherwise it stands for all rows of the table.
    pub(super) fn table_of_places(&self, rows: &Places) -> Result<Arc<Table>, Arc<Table>> {
        let table = self.table(rows.relation);
        self.divide(&table, rows.key);
        if table.is_divided_by(rows.key) { Ok(table) } else { Err(table) }
    }

    /// The cell of the row that a read of `relation` asks for.
    fn place_of_reader(&self, table: &Table, relation: RelationOid, row: Row) -> Option<u16> {
        if row.relation != relation {
            return None;
        }
        table.ask();
        table.place(row)
    }

    /// The cell of a row that is written. Where rows have none yet, they get some if that is worth the room.
    pub(super) fn place_of_writer(&self, table: &Table, row: Row) -> Option<u16> {
        if table.wants_rows(self.peers.get().is_some()) {
            self.divide(table, row.key);
        }
        table.place(row)
    }

    pub(super) fn divide(&self, table: &Table, key: KeyId) {
        let has_room = |count: usize| (count < MOST_WITH_ROWS).then_some(count + 1);
        table.divide(key, || self.with_rows.fetch_update(Ordering::Relaxed, Ordering::Relaxed, has_room).is_ok());
    }

    pub(super) fn note_write(&self, now: u64, is_wide: bool) {
        self.written_at.fetch_max(now, Ordering::SeqCst);
        if is_wide {
            self.floor.fetch_max(now, Ordering::SeqCst);
        }
    }

    pub(super) fn keep_in_doubt(&self, suspect: Suspect) {
        lock(&self.in_doubt).push(suspect);
    }

    /// To be read after the cells: the time of one that was dropped in between is in here by then.
    fn floor(&self) -> u64 {
        self.floor.load(Ordering::SeqCst)
    }

    /// Not where cells are looked up: whoever tells peers of a write does that in their order.
    fn sweep_now_and_then(&self) {
        if self.created.load(Ordering::Relaxed) >= CELLS_BETWEEN_SWEEPS {
            self.created.store(0, Ordering::Relaxed);
            self.sweep();
        }
    }

    /// Drops the cells that no answer, no fill and no write holds: whoever holds one took it under the
    /// lock of its shard, which is held while the holders are counted. The time of its last write
    /// outlives it in the floor, its stamp in that of the database: an answer that is kept elsewhere under a stamp that
    /// its relation will have again must not be found.
    fn sweep(&self) {
        let wide = Wide { catalog: false, database: true };
        self.gate.mark(wide);
        let is_held = |table: &Arc<Table>| Arc::strong_count(table) > 1 || table.has_rows();
        let idle = self.relations.iter().filter(|entry| !is_held(entry.value()) && entry.any().stamp() != 0);
        let stamps: HashMap<_, _> = idle.map(|entry| (*entry.key(), entry.any().stamp())).collect();
        let dropped = stamps.values().fold(0_u64, |sum, stamp| sum.wrapping_add(*stamp));
        if dropped != 0 {
            // Before they go: whoever takes these stamps over meanwhile has the cells or what stands for them.
            self.void_everywhere(&EVERYTHING, 0, dropped);
        }
        self.relations.retain(|relation, table| {
            let stamp = table.any().stamp();
            let is_kept = is_held(table) || stamp != 0 && stamps.get(relation) != Some(&stamp);
            if !is_kept {
                self.floor.fetch_max(table.any().written_at(), Ordering::SeqCst);
            }
            is_kept
        });
        self.gate.unmark(wide);
    }

    pub(super) fn bump_gate(&self, wide: Wide, mut draw: impl FnMut() -> u64) {
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
        if Ablation::Watermark.is_left_out() { Fence::NONE } else { self.fence }
    }

    /// The state of the same relations at this moment: what a fill must not be stored with.
    #[cfg(debug_assertions)]
    pub(in crate::cache) fn taken_late(self) -> Self {
        let mut relations: Vec<_> = self.stamps.iter().map(|stamped| stamped.relation).collect();
        relations.dedup();
        let row = self.stamps.iter().find_map(|stamped| match stamped.part {
            Part::Rows(place) => {
                Some(Row { relation: stamped.relation, key: stamped.table.key()?, number: u64::from(place) })
            }
            _ => None,
        });
        let late = self.cells.capture(Deps { relations: &relations, row }, self.cells.catalog_epoch());
        late.unwrap_or(self)
    }

    /// Whether nothing has moved and nothing is in flight.
    pub fn is_current(&self) -> bool {
        self.cells.is_current(self)
    }

    /// Of an answer that is void: whether nothing that it depends on by name has moved, nor any definition, but the
    /// database as a whole, as by a write of which nobody knew what it touches.
    pub fn is_void_with_everything(&self) -> bool {
        let catalog = self.generation.wrapping_sub(self.database);
        self.cells.gate.catalog_stamp() == catalog && !self.stamps.iter().any(Stamped::has_moved)
    }

    /// Whether it was captured here: a reload may have put another database behind the same name.
    pub fn is_of(&self, cells: &Arc<Cells>) -> bool {
        Arc::ptr_eq(&self.cells, cells)
    }

    /// Whether it depends on that relation.
    pub fn depends_on(&self, relation: RelationOid) -> bool {
        self.stamps.iter().any(|stamped| stamped.relation == relation)
    }

    /// How many stamps it depends on.
    pub fn stamps(&self) -> usize {
        self.stamps.len()
    }

    /// Whether both were captured of the same cells and saw the same stamps: what was written before the one was
    /// written before the other.
    pub fn is_same(&self, other: &Self) -> bool {
        let is_same = |(one, two): (&Stamped, &Stamped)| one.name() == two.name();
        Arc::ptr_eq(&self.cells, &other.cells)
            && self.generation == other.generation
            && self.stamps.len() == other.stamps.len()
            && self.stamps.iter().zip(&other.stamps).all(is_same)
    }

    /// The stamps as bytes, the same for the same stamps in whatever order they were captured, and for no others: what
    /// an answer outside of this process is found by. Other proxies may have the same: that of the catalog, which is each
    /// one's own, is not among them, but what the server says of it.
    pub fn encode_into(&self, bytes: &mut Vec<u8>) {
        let mut stamps: Vec<_> = self.stamps.iter().map(Stamped::name).collect();
        stamps.sort_unstable();
        bytes.extend_from_slice(&self.database.to_le_bytes());
        bytes.extend_from_slice(&self.fingerprint.to_le_bytes());
        bytes.extend_from_slice(&(stamps.len() as u64).to_le_bytes());
        for (relation, part, stamp) in stamps {
            bytes.extend_from_slice(&relation.0.to_le_bytes());
            bytes.extend_from_slice(&part.number().to_le_bytes());
            bytes.extend_from_slice(&stamp.to_le_bytes());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
