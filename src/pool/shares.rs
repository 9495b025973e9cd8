//! What the pools of the process share: the limits of databases and users.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, Weak,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use dashmap::DashMap;

use super::{
    Pool,
    quota::{Claim, Full, PoolNumber, Quotas},
};

/// The limits and the pools that count in them. Its lock is the innermost: it is taken while a pool's is held.
#[derive(Debug, Default)]
pub struct Shares {
    quotas: Mutex<Quotas>,
    /// [`Quotas::is_tight`], for those who give a connection back.
    is_tight: AtomicBool,
    pools: DashMap<PoolNumber, Weak<Pool>>,
    next: AtomicU64,
}

impl Shares {
    fn quotas(&self) -> MutexGuard<'_, Quotas> {
        self.quotas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, change: impl FnOnce(&mut Quotas) -> T) -> T {
        let mut quotas = self.quotas();
        let outcome = change(&mut quotas);
        self.is_tight.store(quotas.is_tight(), Ordering::Release);
        outcome
    }

    pub(super) fn next_number(&self) -> PoolNumber {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn join(&self, number: PoolNumber, pool: Weak<Pool>) {
        self.pools.insert(number, pool);
    }

    pub(super) fn leave(&self, number: PoolNumber) {
        self.pools.remove(&number);
        self.forget(number);
    }

    /// `max_db_connections` and `max_user_connections` of whoever counts in this claim; 0 is unlimited.
    pub fn limit(&self, claim: &Claim, database: usize, user: usize) {
        self.with(|quotas| quotas.limit(claim, database, user));
    }

    /// Connections of the database and of the user.
    #[must_use]
    pub fn used(&self, claim: &Claim) -> (usize, usize) {
        self.quotas().used(claim)
    }

    pub(super) fn take(&self, claim: &Claim, number: PoolNumber, since: Option<u64>) -> Result<(), Full> {
        self.with(|quotas| quotas.take(claim, number, since))
    }

    pub(super) fn give_back(&self, claim: &Claim) {
        self.with(|quotas| quotas.give_back(claim));
    }

    pub(super) fn forget(&self, number: PoolNumber) {
        self.with(|quotas| quotas.forget(number));
    }

    /// Nearly always no, without a lock.
    pub(super) fn must_yield(&self, claim: &Claim, number: PoolNumber, own: Option<u64>) -> bool {
        self.is_tight.load(Ordering::Acquire) && self.quotas().must_yield(claim, number, own)
    }

    /// Those who had no room and have some now ask again, oldest first. No pool's lock may be held.
    pub fn wake(&self) {
        while self.is_tight.load(Ordering::Acquire) {
            let Some(number) = self.with(Quotas::next_to_wake) else { return };
            let pool = self.pools.get(&number).and_then(|pool| pool.upgrade());
            if let Some(pool) = pool {
                pool.look_again();
            }
        }
    }

    /// Closes idle connections of other pools, the oldest of each limit that is full. No pool's lock may be held.
    pub(super) fn evict(&self, full: Full, claim: &Claim, number: PoolNumber) {
        let others: Vec<Arc<Pool>> = self.pools.iter().filter_map(|pool| pool.upgrade()).collect();
        let others: Vec<_> = others.into_iter().filter(|other| other.number() != number).collect();
        let of_database = |other: &&Arc<Pool>| other.claim().database == claim.database;
        let of_user = |other: &&Arc<Pool>| other.claim().user == claim.user;
        let oldest = |found: Vec<&Arc<Pool>>| {
            let aged = found.into_iter().filter_map(|pool| Some((pool.rests_since()?, pool)));
            aged.min_by_key(|(since, _)| *since).map(|(_, pool)| Arc::clone(pool))
        };
        let mut by_user = full.user.then(|| oldest(others.iter().filter(of_user).collect())).flatten();
        let mut by_database = full.database.then(|| oldest(others.iter().filter(of_database).collect())).flatten();
        // One connection may do for both.
        if full.user && full.database {
            let both = oldest(others.iter().filter(of_user).filter(of_database).collect());
            match both {
                Some(both) => (by_user, by_database) = (Some(both), None),
                None if by_user.is_none() || by_database.is_none() => return,
                None => {}
            }
        }
        for pool in by_user.take().into_iter().chain(by_database.take()) {
            pool.evict_oldest();
        }
    }
}
