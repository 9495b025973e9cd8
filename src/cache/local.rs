//! Level one: answers in this process, in moka.
//!
//! Only `get`, `insert` and `invalidate` of moka are used. Its `get_with` would let a reader join the
//! fill of an earlier one, whose query may have missed a write that the later reader must see.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use moka::sync::Cache;

use super::{
    entry::Entry,
    fill::{Discard, Fill},
    invalidation::{Captured, CatalogEpoch, Cells, Uncaptured},
    key::Key,
};
use crate::{catalog::RelationOid, routing::Fence};

/// What the cache holds and has done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Answers held.
    pub entries: u64,
    /// Bytes they take, and may take.
    pub bytes: u64,
    /// Bytes they may take.
    pub capacity_bytes: u64,
    /// Answers given.
    pub hits: u64,
    /// Rights to fill given.
    pub misses: u64,
    /// Answers found void or out of date.
    pub stale: u64,
    /// Answers stored.
    pub stored: u64,
    /// Fills that a write overtook.
    pub overtaken: u64,
    /// Fills whose answer could not be kept.
    pub discarded: u64,
}

#[derive(Debug, Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    stale: AtomicU64,
    stored: AtomicU64,
    overtaken: AtomicU64,
    discarded: AtomicU64,
}

/// Level one of the cache: one for the process, whatever databases it serves.
#[derive(Debug)]
pub struct ResultCache {
    store: Cache<Key, Arc<Entry>, foldhash::fast::RandomState>,
    capacity_bytes: u64,
    max_result_bytes: AtomicUsize,
    counters: Counters,
}

/// The outcome of a lookup.
#[derive(Debug)]
pub enum Lookup {
    /// The answer.
    Hit(Arc<Entry>),
    /// No answer, and the right to bring one.
    Miss(FillGuard),
    /// No answer, and none may be brought.
    Refused(Uncaptured),
}

impl ResultCache {
    /// A cache of `capacity_bytes` that keeps answers of up to `max_result_bytes`.
    pub fn new(capacity_bytes: u64, max_result_bytes: usize) -> Arc<Self> {
        let store = Cache::builder()
            .max_capacity(capacity_bytes)
            .weigher(|key: &Key, entry: &Arc<Entry>| entry.weight(key.len()))
            .build_with_hasher(foldhash::fast::RandomState::default());
        Arc::new(Self {
            store,
            capacity_bytes,
            max_result_bytes: AtomicUsize::new(max_result_bytes),
            counters: Counters::default(),
        })
    }

    /// The answer to the question that `key` encodes, or the right to bring it. `deps` are all that
    /// the statement reads, as understood with the catalog of `epoch`.
    ///
    /// Call it before any byte of the query is sent: a miss captures the stamps.
    pub fn lookup(
        self: &Arc<Self>,
        key: &[u8],
        cells: &Arc<Cells>,
        deps: &[RelationOid],
        epoch: CatalogEpoch,
        now: u64,
    ) -> Lookup {
        let Some(entry) = self.store.get(key) else {
            return self.miss(key, cells, deps, epoch, now);
        };
        if entry.captured.is_of(cells) && entry.is_current() && !entry.is_expired(now) {
            count(&self.counters.hits);
            return Lookup::Hit(entry);
        }
        let outcome = self.miss(key, cells, deps, epoch, now);
        // While a write is in flight the entry may yet come through; captured stamps say it did not.
        if matches!(outcome, Lookup::Miss(_)) {
            count(&self.counters.stale);
            self.store.invalidate(key);
        }
        outcome
    }

    fn miss(
        self: &Arc<Self>,
        key: &[u8],
        cells: &Arc<Cells>,
        deps: &[RelationOid],
        epoch: CatalogEpoch,
        now: u64,
    ) -> Lookup {
        match cells.capture(deps, epoch) {
            Ok(captured) => {
                count(&self.counters.misses);
                Lookup::Miss(FillGuard::new(Arc::clone(self), key, captured, now))
            }
            Err(why) => Lookup::Refused(why),
        }
    }

    /// Frees the memory of every answer. To make answers void, [`Cells::flush`] is what counts.
    pub fn clear(&self) {
        self.store.invalidate_all();
    }

    /// After a reload; answers that are held stay.
    pub fn set_max_result_bytes(&self, max_result_bytes: usize) {
        self.max_result_bytes.store(max_result_bytes, Ordering::Relaxed);
    }

    /// What it holds and has done. The first two figures lag a moment behind.
    pub fn stats(&self) -> CacheStats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheStats {
            entries: self.store.entry_count(),
            bytes: self.store.weighted_size(),
            capacity_bytes: self.capacity_bytes,
            hits: of(&self.counters.hits),
            misses: of(&self.counters.misses),
            stale: of(&self.counters.stale),
            stored: of(&self.counters.stored),
            overtaken: of(&self.counters.overtaken),
            discarded: of(&self.counters.discarded),
        }
    }

    /// Does the housekeeping that otherwise happens now and then, so that figures are exact.
    pub fn settle(&self) {
        self.store.run_pending_tasks();
    }
}

/// How a fill ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillOutcome {
    /// The next reader finds it.
    Stored,
    /// Something it depends on was written meanwhile.
    Overtaken,
    /// It cannot be kept; [`Discard::UnknownRelation`] is an alarm.
    Discarded(Discard),
}

impl FillOutcome {
    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Overtaken => "overtaken",
            Self::Discarded(why) => why.label(),
        }
    }
}

/// The right to bring an answer, with the stamps from before its query. Dropped, it brings none.
#[must_use]
#[derive(Debug)]
pub struct FillGuard {
    cache: Arc<ResultCache>,
    key: Key,
    captured: Captured,
    fill: Fill,
    started_at: u64,
}

impl FillGuard {
    fn new(cache: Arc<ResultCache>, key: &[u8], captured: Captured, now: u64) -> Self {
        let fill = Fill::new(cache.max_result_bytes.load(Ordering::Relaxed));
        Self { cache, key: Key::from(key), captured, fill, started_at: now }
    }

    /// What the query must not miss, if a replica runs it: resolve it with
    /// [`crate::routing::PrimarySamples::resolve`] and compare with `pg_last_wal_replay_lsn()` asked on
    /// the same connection in front of the query. Unresolved: the primary must run it.
    pub fn fence(&self) -> Fence {
        self.captured.fence()
    }

    /// Takes the server's answer as it comes, cut anywhere; replies to messages of the proxy's own are
    /// left out. `false`: it has given up and needs no more.
    pub fn feed(&mut self, bytes: &[u8]) -> bool {
        self.fill.feed(bytes)
    }

    /// Gives up, for a reason the bytes do not show.
    pub fn discard(&mut self, why: Discard) {
        self.fill.discard(why);
    }

    /// The answer is complete: keeps it for at most `ttl` nanoseconds, unless it was overtaken.
    /// `status` is that of the ReadyForQuery that followed.
    pub fn commit(self, status: u8, ttl: Option<u64>, now: u64) -> FillOutcome {
        let Self { cache, key, captured, fill, started_at } = self;
        let answer = match fill.finish(status, |relation| captured.depends_on(relation)) {
            Ok(answer) => answer,
            Err(why) => {
                count(&cache.counters.discarded);
                return FillOutcome::Discarded(why);
            }
        };
        if !captured.is_current() {
            count(&cache.counters.overtaken);
            return FillOutcome::Overtaken;
        }
        let entry = Entry {
            row_description: answer.row_description,
            rows: answer.rows,
            command_complete: answer.command_complete,
            row_count: answer.row_count,
            filled_at: now,
            cost_us: u32::try_from(now.saturating_sub(started_at) / 1000).unwrap_or(u32::MAX),
            expires_at: ttl.map(|ttl| now.saturating_add(ttl)),
            captured,
        };
        cache.store.insert(key, Arc::new(entry));
        count(&cache.counters.stored);
        FillOutcome::Stored
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
