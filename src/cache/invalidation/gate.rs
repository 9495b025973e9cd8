//! What every answer of a database depends on: its catalog, the database as a whole, and whether the
//! cache may be used at all; folded into one word that a hit reads first.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// Why the cache of a database refuses everything until further notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Closure {
    /// There is no catalog snapshot, or it cannot be watched.
    Catalog = 1,
    /// The primary is unknown or cannot be reached.
    Primary = 2,
    /// Lock sets cannot be read.
    LockSet = 4,
    /// An operator switched it off.
    Operator = 8,
    /// What other proxies write may not reach this one.
    Peers = 16,
    /// Writes that bypass the proxy shall be heard of, and are not.
    DirectWrites = 32,
    /// What an earlier process may have left running is not known.
    UnderWay = 64,
}

impl Closure {
    const ALL: [Self; 7] =
        [Self::Catalog, Self::Primary, Self::LockSet, Self::Operator, Self::Peers, Self::DirectWrites, Self::UnderWay];

    /// The `reason` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Catalog => "catalog_unknown",
            Self::Primary => "primary_unknown",
            Self::LockSet => "lock_set_unavailable",
            Self::Operator => "switched_off",
            Self::Peers => "peers_unknown",
            Self::DirectWrites => "direct_writes_unknown",
            Self::UnderWay => "under_way_unknown",
        }
    }
}

/// No generation: somebody writes to all of it, or the cache is closed.
const SHUT: u64 = 0;

/// Changes are rare and take the lock; the outcome is one word, so that no reader can see half of one.
#[derive(Debug)]
pub(super) struct Gate {
    generation: AtomicU64,
    /// Until when what is known of other proxies holds, on the process clock.
    trusted_until: AtomicU64,
    catalog_stamp: AtomicU64,
    database_stamp: AtomicU64,
    /// Until then writes that bypass the proxy are known early enough; beside the word that a hit reads anyway.
    heard_until: AtomicU64,
    parts: Mutex<Parts>,
}

#[derive(Debug)]
struct Parts {
    catalog_stamp: u64,
    database_stamp: u64,
    catalog_in_flight: u32,
    database_in_flight: u32,
    closures: u8,
}

impl Parts {
    fn generation(&self) -> u64 {
        if self.closures != 0 || self.catalog_in_flight != 0 || self.database_in_flight != 0 {
            return SHUT;
        }
        self.catalog_stamp.wrapping_add(self.database_stamp)
    }
}

/// The two things that can be marked here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wide {
    pub(super) catalog: bool,
    pub(super) database: bool,
}

impl Wide {
    pub(super) fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl Gate {
    /// `base` is a random draw of this process.
    pub(super) fn new(base: u64) -> Self {
        let parts = Parts {
            catalog_stamp: 0,
            database_stamp: base.max(1),
            catalog_in_flight: 0,
            database_in_flight: 0,
            closures: 0,
        };
        Self {
            generation: AtomicU64::new(parts.generation()),
            trusted_until: AtomicU64::new(u64::MAX),
            catalog_stamp: AtomicU64::new(parts.catalog_stamp),
            database_stamp: AtomicU64::new(parts.database_stamp),
            heard_until: AtomicU64::new(u64::MAX),
            parts: Mutex::new(parts),
        }
    }

    /// The word that all answers of this database carry; `None` while it is shut.
    pub(super) fn generation(&self) -> Option<u64> {
        Some(self.generation.load(Ordering::SeqCst)).filter(|generation| *generation != SHUT)
    }

    /// The stamp of the catalog alone. Whoever loads the generation first cannot miss a change of the
    /// catalog that the generation contains.
    pub(super) fn catalog_stamp(&self) -> u64 {
        self.catalog_stamp.load(Ordering::SeqCst)
    }

    /// The stamp of the database as a whole, which other proxies may share. Loaded behind the generation it is at least
    /// as new as that.
    pub(super) fn database_stamp(&self) -> u64 {
        self.database_stamp.load(Ordering::SeqCst)
    }

    /// Takes another proxy's stamp.
    pub(super) fn adopt(&self, database_stamp: u64) {
        self.change(|parts| parts.database_stamp = database_stamp);
    }

    /// Does what is known of other proxies hold at that time?
    pub(super) fn is_trusted_at(&self, now: u64) -> bool {
        now < self.trusted_until.load(Ordering::SeqCst)
    }

    pub(super) fn trust_until(&self, until: u64) {
        self.trusted_until.store(until, Ordering::SeqCst);
    }

    /// `u64::MAX`: nobody has to hear of them.
    pub(super) fn heard_until(&self) -> u64 {
        self.heard_until.load(Ordering::SeqCst)
    }

    pub(super) fn hear_until(&self, until: u64) {
        self.heard_until.store(until, Ordering::SeqCst);
    }

    pub(super) fn mark(&self, wide: Wide) {
        self.change(|parts| {
            parts.catalog_in_flight += u32::from(wide.catalog);
            parts.database_in_flight += u32::from(wide.database);
        });
    }

    pub(super) fn unmark(&self, wide: Wide) {
        self.change(|parts| {
            let less = |count: u32, is_marked: bool| count.saturating_sub(u32::from(is_marked));
            parts.catalog_in_flight = less(parts.catalog_in_flight, wide.catalog);
            parts.database_in_flight = less(parts.database_in_flight, wide.database);
        });
    }

    pub(super) fn bump(&self, wide: Wide, draw: u64) {
        self.change(|parts| {
            if wide.catalog {
                parts.catalog_stamp = parts.catalog_stamp.wrapping_add(draw);
            }
            if wide.database {
                parts.database_stamp = parts.database_stamp.wrapping_add(draw);
            }
        });
    }

    pub(super) fn close(&self, reason: Closure) {
        self.change(|parts| parts.closures |= reason as u8);
    }

    /// Ends a closure. What it hid is not served again only if the stamps move as well.
    pub(super) fn reopen(&self, reason: Closure) {
        self.change(|parts| parts.closures &= !(reason as u8));
    }

    pub(super) fn is_closed(&self, reason: Closure) -> bool {
        self.lock().closures & reason as u8 != 0
    }

    /// The first reason why it is closed, if it is.
    pub(super) fn closure(&self) -> Option<Closure> {
        let closures = self.lock().closures;
        Closure::ALL.into_iter().find(|reason| closures & *reason as u8 != 0)
    }

    /// Writes in flight to the catalog, and to the whole database.
    pub(super) fn in_flight(&self) -> (u32, u32) {
        let parts = self.lock();
        (parts.catalog_in_flight, parts.database_in_flight)
    }

    fn change(&self, change: impl FnOnce(&mut Parts)) {
        let mut parts = self.lock();
        change(&mut parts);
        self.catalog_stamp.store(parts.catalog_stamp, Ordering::SeqCst);
        self.database_stamp.store(parts.database_stamp, Ordering::SeqCst);
        self.generation.store(parts.generation(), Ordering::SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CATALOG: Wide = Wide { catalog: true, database: false };
    const DATABASE: Wide = Wide { catalog: false, database: true };

    #[test]
    fn any_mark_shuts_the_gate_until_it_is_gone() {
        let gate = Gate::new(7);
        let before = gate.generation();
        gate.mark(CATALOG);
        gate.mark(DATABASE);
        gate.unmark(CATALOG);
        assert_eq!(gate.generation(), None);
        gate.unmark(DATABASE);
        assert_eq!(gate.generation(), before);
    }

    #[test]
    fn a_bump_of_either_moves_the_generation_and_only_the_catalogs_moves_its_stamp() {
        let gate = Gate::new(7);
        let (generation, catalog) = (gate.generation(), gate.catalog_stamp());
        gate.bump(DATABASE, 3);
        assert_eq!(gate.catalog_stamp(), catalog);
        assert_ne!(gate.generation(), generation);
        gate.bump(CATALOG, 5);
        assert_ne!(gate.catalog_stamp(), catalog);
    }

    #[test]
    fn it_is_open_again_when_the_last_closure_has_ended() {
        let gate = Gate::new(7);
        let before = gate.generation();
        gate.close(Closure::Catalog);
        gate.close(Closure::Operator);
        gate.reopen(Closure::Catalog);
        assert_eq!((gate.generation(), gate.closure()), (None, Some(Closure::Operator)));
        assert!(gate.is_closed(Closure::Operator) && !gate.is_closed(Closure::Catalog));
        gate.reopen(Closure::Operator);
        assert_eq!(gate.generation(), before);
    }

    #[test]
    fn what_is_known_of_other_proxies_holds_until_its_time_and_no_longer() {
        let gate = Gate::new(7);
        assert!(gate.is_trusted_at(u64::MAX - 1), "there are none");
        gate.trust_until(10);
        assert!(gate.is_trusted_at(9) && !gate.is_trusted_at(10));
    }
}
