//! One database as its clients share it: members, catalog, stamps, fences.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use crate::{
    cache::{CatalogEpoch, Cells, ResultCache},
    catalog::{self, Meaning, RelationOid},
    config::{CacheMode, ReadYourWrites},
    routing::{Demand, Fence, Freshness, MemberId, SharedFence, Topology},
    sql::Statement,
};

/// What the configuration says of one database.
#[derive(Clone, Debug, PartialEq)]
pub struct DatabaseSettings {
    /// Reads may go to replicas.
    pub splits_reads: bool,
    /// Whose writes a read must see.
    pub read_your_writes: ReadYourWrites,
    /// Whether answers are cached.
    pub cache: CacheMode,
    /// Upper bound of an answer's age in nanoseconds; `None`: until it is void.
    pub cache_ttl: Option<u64>,
}

/// A catalog snapshot and the epoch from which it is valid.
pub struct LoadedCatalog {
    /// What the database says about itself.
    pub snapshot: catalog::Snapshot,
    /// Taken before the load began.
    pub epoch: CatalogEpoch,
}

/// One database.
pub struct Database {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Its settings.
    pub settings: DatabaseSettings,
    /// Names of the members, by id.
    pub member_names: Box<[Arc<str>]>,
    /// Members and their state.
    pub topology: Topology,
    /// Stamps of its relations.
    pub cells: Arc<Cells>,
    /// Level one of the cache, if it is on.
    pub cache: Option<Arc<ResultCache>>,
    /// Everybody's writes.
    pub fence: SharedFence,
    /// Asks for a new catalog snapshot.
    pub catalog_wanted: Notify,
    catalog_arrived: Notify,
    catalog: RwLock<Option<Arc<LoadedCatalog>>>,
    catalog_version: AtomicU64,
    ddl_epoch: AtomicU64,
    is_retired: AtomicBool,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Database {
    /// A database whose catalog nobody has read.
    #[must_use]
    pub fn new(
        name: Arc<str>,
        settings: DatabaseSettings,
        topology: Topology,
        member_names: Vec<Arc<str>>,
        cache: Option<Arc<ResultCache>>,
        cells: Cells,
        now: u64,
    ) -> Self {
        Self {
            name,
            settings,
            member_names: member_names.into(),
            topology,
            cells: Arc::new(cells),
            cache,
            fence: SharedFence::new(now),
            catalog_wanted: Notify::new(),
            catalog_arrived: Notify::new(),
            catalog: RwLock::new(None),
            catalog_version: AtomicU64::new(0),
            ddl_epoch: AtomicU64::new(0),
            is_retired: AtomicBool::new(false),
        }
    }

    /// The configuration has changed: another one is served under its name, and nobody watches this one any more.
    pub fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
    }

    /// Is another one served under its name?
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Acquire)
    }

    /// Changes when a statement parsed before may mean something else.
    #[must_use]
    pub fn ddl_epoch(&self) -> u64 {
        self.ddl_epoch.load(Ordering::Acquire)
    }

    /// The catalog has changed: statements are parsed anew and a new snapshot is wanted.
    pub fn catalog_changed(&self) {
        self.ddl_epoch.fetch_add(1, Ordering::AcqRel);
        self.catalog_wanted.notify_one();
    }

    /// Changes when the catalog does.
    #[must_use]
    pub fn catalog_version(&self) -> u64 {
        self.catalog_version.load(Ordering::Acquire)
    }

    /// The catalog, once it is loaded.
    #[must_use]
    pub fn catalog(&self) -> Option<Arc<LoadedCatalog>> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A new snapshot, or none: what it says can no longer be trusted.
    pub fn set_catalog(&self, catalog: Option<LoadedCatalog>) {
        *self.catalog.write().unwrap_or_else(PoisonError::into_inner) = catalog.map(Arc::new);
        self.catalog_version.fetch_add(1, Ordering::Release);
        self.catalog_arrived.notify_waiters();
    }

    /// Waits until a catalog is there, or `at_most` so long.
    pub async fn wait_for_catalog(&self, at_most: Duration) {
        let arrived = self.catalog_arrived.notified();
        if self.catalog().is_none() && tokio::time::timeout(at_most, arrived).await.is_err() {
            tracing::info!(db = %self.name, "going on without a catalog");
        }
    }

    /// What a statement means now, without memo of the caller's.
    #[must_use]
    pub fn meaning(&self, statement: &Arc<Statement>, user: &str) -> Arc<Meaning> {
        match self.catalog() {
            Some(catalog) => catalog.snapshot.meaning(statement, user),
            None => Arc::new(catalog::meaning_without_catalog(statement)),
        }
    }

    /// The member that takes writes; the configured one while nobody has been asked.
    #[must_use]
    pub fn primary(&self) -> MemberId {
        self.topology.primary().unwrap_or(MemberId(0))
    }

    /// A member's name.
    #[must_use]
    pub fn member_name(&self, member: MemberId) -> Option<&Arc<str>> {
        self.member_names.get(usize::from(member.0))
    }

    /// Is the result cache on?
    #[must_use]
    pub fn caches(&self) -> bool {
        self.cache.is_some()
    }

    /// What a read must not miss. `relations` are all that it reads, where that is known.
    #[must_use]
    pub fn read_fence(&self, session: Fence, relations: Option<&[RelationOid]>) -> Fence {
        match self.settings.read_your_writes {
            ReadYourWrites::Off => Fence::NONE,
            ReadYourWrites::Session => session,
            ReadYourWrites::Database if self.caches() => session.and(self.cells.fence(relations)),
            ReadYourWrites::Database => session.and(self.fence.fence()),
        }
    }

    /// A write was acknowledged by the server at `now`; call before its client can learn of it.
    pub fn note_write(&self, now: u64) {
        if self.settings.read_your_writes == ReadYourWrites::Database {
            self.fence.note_write(now);
        }
    }

    /// Where a read goes.
    #[must_use]
    pub fn route(&self, fence: Fence, freshness: Freshness, now: u64) -> crate::routing::Choice {
        self.topology.choose(&Demand { fence, freshness, avoid: None }, now)
    }
}
