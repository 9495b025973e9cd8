//! A database of a server, however many entries of the configuration lead to it.

use std::{
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use super::{DirectWrites, LearnedWrites, LoadedCatalog};
use crate::{
    cache::{Cells, Unattended, bus::Bus, invalidation::Peers},
    catalog::SessionDefaults,
    routing::SharedFence,
    session::CustomSettings,
};

/// What is true of the data itself: its stamps, its catalog, when it was last written.
///
/// Entries that name the same server and database share it, and so do an entry before and after a reload:
/// a write through one must void what was cached through another.
pub struct RealDatabase {
    /// Stamps of its relations.
    pub cells: Arc<Cells>,
    /// What is known of writes that bypass the proxy.
    pub direct: DirectWrites,
    /// Everybody's writes.
    pub fence: SharedFence,
    /// Names of settings that its sessions may set, as far as they must be known.
    pub custom_settings: CustomSettings,
    /// What the catalog takes for reads and replicas for writes.
    pub learned_writes: LearnedWrites,
    /// Asks for a new catalog snapshot.
    pub catalog_wanted: Notify,
    /// Asks whether the catalog is still what it was.
    pub catalog_doubted: Notify,
    catalog_arrived: Notify,
    catalog: RwLock<Known>,
    catalog_version: AtomicU64,
    ddl_epoch: AtomicU64,
    defaults_since: AtomicU64,
    is_cached: AtomicBool,
    is_observed: AtomicBool,
    keeps_rows: AtomicBool,
    bus: OnceLock<Arc<Bus>>,
    /// Entries that would carry its messages, and the turn of the one that does.
    pub(super) carriers: AtomicUsize,
    pub(super) carrying: tokio::sync::Mutex<()>,
    entries: AtomicU64,
    /// Has anybody looked at what ran before answers were kept?
    is_looked_at: AtomicBool,
    /// What was found then; whoever looks holds it.
    pub(super) unattended: tokio::sync::Mutex<Unattended>,
}

/// The catalog, and what the last one said of new sessions.
#[derive(Default)]
struct Known {
    catalog: Option<Arc<LoadedCatalog>>,
    session_defaults: Option<Arc<SessionDefaults>>,
}

impl std::fmt::Debug for RealDatabase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RealDatabase").finish_non_exhaustive()
    }
}

impl RealDatabase {
    /// One whose catalog nobody has read; `cells` are new.
    #[must_use]
    pub fn new(cells: Cells, now: u64) -> Self {
        let cells = Arc::new(cells);
        Self {
            direct: DirectWrites::new(Arc::clone(&cells)),
            cells,
            fence: SharedFence::new(now),
            custom_settings: CustomSettings::default(),
            learned_writes: LearnedWrites::default(),
            catalog_wanted: Notify::new(),
            catalog_doubted: Notify::new(),
            catalog_arrived: Notify::new(),
            catalog: RwLock::default(),
            catalog_version: AtomicU64::new(0),
            ddl_epoch: AtomicU64::new(0),
            defaults_since: AtomicU64::new(0),
            is_cached: AtomicBool::new(false),
            is_observed: AtomicBool::new(false),
            keeps_rows: AtomicBool::new(false),
            bus: OnceLock::new(),
            carriers: AtomicUsize::new(0),
            carrying: tokio::sync::Mutex::default(),
            entries: AtomicU64::new(0),
            is_looked_at: AtomicBool::new(false),
            unattended: tokio::sync::Mutex::default(),
        }
    }

    /// Has anybody looked at what ran before answers were kept?
    pub(super) fn is_looked_at(&self) -> bool {
        self.is_looked_at.load(Ordering::Acquire)
    }

    /// Somebody has.
    pub(super) fn looked_at(&self) {
        self.is_looked_at.store(true, Ordering::Release);
    }

    /// A number that no other entry has.
    pub(super) fn enter(&self) -> u64 {
        self.entries.fetch_add(1, Ordering::Relaxed)
    }

    /// Answers of it are cached from now on: every write has to void them, also those of sessions that began
    /// when nothing was cached.
    pub fn begin_caching(&self) {
        self.is_cached.store(true, Ordering::SeqCst);
    }

    /// Answers whose rows policies choose are kept from now on: nobody may go on with what his role was before.
    pub fn begin_keeping_rows(&self) {
        if !self.keeps_rows.swap(true, Ordering::SeqCst) {
            let mut known = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
            // Whoever has connected before counts as one with other settings, once the catalog is read again.
            *known = Known::default();
            self.catalog_version.fetch_add(1, Ordering::Release);
            self.catalog_wanted.notify_one();
        }
    }

    /// It is observed from now on what a cache would do: every write marks what it touches, as far as that is known without
    /// a question to the server.
    pub fn begin_observing(&self) {
        self.is_observed.store(true, Ordering::SeqCst);
    }

    /// Has it been observed?
    #[must_use]
    pub fn is_observed(&self) -> bool {
        self.is_observed.load(Ordering::SeqCst)
    }

    /// Have answers of it been cached?
    #[must_use]
    pub fn is_cached(&self) -> bool {
        self.is_cached.load(Ordering::SeqCst)
    }

    /// Other proxies that cache it are told of every write from now on, by what `bus` makes; the first call counts.
    pub fn share(&self, bus: impl FnOnce(&Arc<Cells>) -> Arc<Bus>) -> Arc<Bus> {
        let bus = self.bus.get_or_init(|| bus(&self.cells));
        self.cells.join(Arc::clone(bus) as Arc<dyn Peers>);
        Arc::clone(bus)
    }

    /// How other proxies are told of writes, where there may be any.
    #[must_use]
    pub fn bus(&self) -> Option<&Arc<Bus>> {
        self.bus.get()
    }

    /// Changes when a statement parsed before may mean something else.
    #[must_use]
    pub fn ddl_epoch(&self) -> u64 {
        self.ddl_epoch.load(Ordering::Acquire)
    }

    /// The catalog has changed: statements are parsed anew, a new snapshot is wanted, and the one there is judges no
    /// more. A draw is a random number.
    pub fn catalog_changed(&self, draw: impl FnMut() -> u64) {
        self.catalog_differs(draw);
        self.catalog_wanted.notify_one();
    }

    /// The same where the new snapshot is about to be read already.
    pub fn catalog_differs(&self, draw: impl FnMut() -> u64) {
        self.cells.bump_catalog(draw);
        self.ddl_epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Changes when the catalog does.
    #[must_use]
    pub fn catalog_version(&self) -> u64 {
        self.catalog_version.load(Ordering::Acquire)
    }

    /// The catalog, once it is loaded.
    #[must_use]
    pub fn catalog(&self) -> Option<Arc<LoadedCatalog>> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner).catalog.clone()
    }

    /// A new snapshot, or none: what it says can no longer be trusted. One that is out of date already does not
    /// replace one in force, which another entry has loaded.
    pub fn set_catalog(&self, catalog: Option<Arc<LoadedCatalog>>) {
        let mut known = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        let is_in_force = |catalog: &LoadedCatalog| self.cells.is_in_force(catalog.epoch);
        let replaces_another = known.catalog.as_deref().is_some_and(is_in_force);
        if catalog.as_deref().is_some_and(|catalog| !is_in_force(catalog)) && replaces_another {
            return;
        }
        if let Some(catalog) = &catalog {
            self.custom_settings.learn(catalog.snapshot.custom_settings().iter().map(String::as_str));
            let defaults = catalog.snapshot.session_defaults();
            let keeps_rows = self.keeps_rows.load(Ordering::SeqCst);
            let differ = |earlier: &Arc<SessionDefaults>| {
                defaults.differ_from(earlier) || keeps_rows && defaults.show_other_rows(earlier)
            };
            if known.session_defaults.as_ref().is_none_or(differ) {
                self.defaults_since.fetch_max(catalog.loaded_at, Ordering::AcqRel);
            }
            known.session_defaults = Some(Arc::clone(defaults));
        }
        known.catalog = catalog;
        self.learned_writes.forget();
        self.catalog_version.fetch_add(1, Ordering::Release);
        self.catalog_arrived.notify_waiters();
    }

    /// Server connections opened before this have, or may have, other settings than the catalog says: their names are
    /// looked up along another path. Nanoseconds on the process clock.
    #[must_use]
    pub fn defaults_since(&self) -> u64 {
        self.defaults_since.load(Ordering::Acquire)
    }

    /// Another server is the primary: what its connections began with was that of a replica, and what the one before
    /// tells of writes counts no more.
    pub fn primary_changed(&self, now: u64) {
        self.direct.forget();
        self.defaults_since.fetch_max(now, Ordering::AcqRel);
    }

    /// Waits until a catalog is there, or `at_most` so long; false if there is none.
    pub(super) async fn wait_for_catalog(&self, at_most: Duration) -> bool {
        let arrived = self.catalog_arrived.notified();
        self.catalog().is_some() || tokio::time::timeout(at_most, arrived).await.is_ok()
    }
}
