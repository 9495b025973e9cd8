//! The pools by their names.

use std::sync::Arc;

use dashmap::DashMap;

use super::{Pool, PoolKey, Shares};

/// Every pool of the process.
#[derive(Debug, Default)]
pub struct Pools {
    pools: DashMap<PoolKey, Arc<Pool>>,
    shares: Arc<Shares>,
}

impl Pools {
    /// The limits that they share.
    #[must_use]
    pub fn shares(&self) -> &Arc<Shares> {
        &self.shares
    }

    /// The pool of this name, made by `make` if there is none.
    pub fn get_or_try_insert(&self, key: &PoolKey, make: impl FnOnce() -> Option<Arc<Pool>>) -> Option<Arc<Pool>> {
        if let Some(pool) = self.pools.get(key) {
            return Some(Arc::clone(&pool));
        }
        match self.pools.entry(key.clone()) {
            dashmap::Entry::Occupied(found) => Some(Arc::clone(found.get())),
            dashmap::Entry::Vacant(vacant) => Some(Arc::clone(&vacant.insert(make()?))),
        }
    }

    /// Every pool, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Pool>> {
        self.pools.iter().map(|entry| Arc::clone(entry.value())).collect()
    }

    /// Forgets pools, which are closed.
    pub fn retain(&self, mut keep: impl FnMut(&PoolKey) -> bool) {
        self.pools.retain(|key, pool| {
            let kept = keep(key);
            if !kept {
                pool.close();
            }
            kept
        });
    }
}
