//! The catalog of the primary, as the control plane reads it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::ControlPlane;
use crate::{
    cache::invalidation::Closure,
    catalog::Snapshot,
    cluster::{
        LoadedCatalog,
        catalog_loader::{self, CatalogLoadError},
        catalog_watch::CatalogSource,
    },
    control::{ControlError, Lease},
    telemetry::metrics::families,
};

/// For one look at the catalog.
const CATALOG_DEADLINE: Duration = Duration::from_secs(10);

/// The catalog of the primary.
pub(super) struct Catalog {
    pub(super) plane: Arc<ControlPlane>,
    /// No connection of the control user shows what sessions of others begin with.
    pub(super) is_blind: AtomicBool,
}

impl Catalog {
    async fn read(&self) -> Result<(Lease, Snapshot), CatalogError> {
        let primary = self.plane.database.primary().ok_or(CatalogError::NoPrimary)?;
        let lease = self.plane.control.lease(primary.0).await?;
        let snapshot = lease
            .within(CATALOG_DEADLINE, catalog_loader::load(lease.client()?, self.plane.database.publication()))
            .await??;
        Ok((lease, snapshot))
    }
}

/// Why the catalog is not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum CatalogError {
    #[error("no member is primary")]
    NoPrimary,
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Load(#[from] CatalogLoadError),
}

impl CatalogSource for Catalog {
    type Snapshot = Arc<LoadedCatalog>;
    type Failure = CatalogError;

    async fn fingerprint(&self) -> Result<u64, CatalogError> {
        let primary = self.plane.database.primary().ok_or(CatalogError::NoPrimary)?;
        let lease = self.plane.control.lease(primary.0).await?;
        Ok(lease
            .within(CATALOG_DEADLINE, catalog_loader::fingerprint(lease.client()?, self.plane.database.publication()))
            .await??)
    }

    /// The epoch is taken before the load begins: what changes meanwhile makes the snapshot too old at once.
    async fn load(&self, fingerprint: u64) -> Result<Arc<LoadedCatalog>, CatalogError> {
        let database = &self.plane.database;
        let is_same = |known: &Arc<LoadedCatalog>| known.fingerprint == fingerprint;
        if let Some(known) = database.catalog().filter(is_same).filter(|_| !self.is_outdated()) {
            // Another entry has loaded it.
            return Ok(known);
        }
        database.real.catalog_differs(crate::client::random);
        let epoch = database.cells.catalog_epoch().with_fingerprint(fingerprint);
        let (lease, mut snapshot) = self.read().await?;
        if !snapshot.knows_session_defaults() && !self.is_blind.load(Ordering::Relaxed) {
            // Settings that the connection began with are in force no more. A new one has what is.
            lease.close();
            snapshot = self.read().await?.1;
            if !snapshot.knows_session_defaults() {
                self.is_blind.store(true, Ordering::Relaxed);
                tracing::warn!(
                    db = %database.name,
                    "the control user has settings of its own that hide those of others: reads stay on the primary, uncached"
                );
            }
        }
        Ok(Arc::new(LoadedCatalog { snapshot, epoch, fingerprint, loaded_at: self.plane.clock.now() }))
    }

    fn is_outdated(&self) -> bool {
        let database = &self.plane.database;
        database.catalog().is_none_or(|catalog| !database.cells.is_in_force(catalog.epoch))
    }

    fn publish(&self, snapshot: Option<Arc<LoadedCatalog>>) {
        let database = &self.plane.database;
        let is_known = snapshot.is_some();
        tracing::debug!(db = %database.name, is_known, "catalog");
        match &snapshot {
            Some(loaded) => database.cells.note_definitions(loaded.loaded_at),
            None => database.cells.close(Closure::Catalog),
        }
        database.real.set_catalog(snapshot);
        if is_known && database.cells.closure() == Some(Closure::Catalog) {
            // Reopening voids everything, so the snapshot's epoch must be taken again.
            database.cells.reopen(Closure::Catalog, self.plane.clock.now(), crate::client::random);
        }
        let outcome = if is_known { "loaded" } else { "lost" };
        let labels = [("database", &*database.name), ("outcome", outcome)];
        self.plane.metrics.counter(&families::CATALOG_RELOADS, &labels).increment();
    }
}
