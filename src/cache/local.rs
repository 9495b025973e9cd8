//! Level one: answers in this process, in moka.
//!
//! Only `get`, `insert` and `invalidate` of moka are used. Its `get_with` would let a reader join the
//! fill of an earlier one, whose query may have missed a write that the later reader must see.

use std::{
    borrow::Cow,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use moka::{notification::RemovalCause, sync::Cache};

use super::{
    admission::Admission,
    costs::Costs,
    entry::Entry,
    fill::{Discard, Fill},
    flights::{Boarded, Flight, Flights, Landing, Lead},
    invalidation::{Captured, CatalogEpoch, Cells, Closure, Deps, Uncaptured},
    key::Key,
    observed::{self, Observed},
    shared::{Found, Question, SharedCache, SharedStats},
};
use crate::{ablation::Ablation, routing::Fence, sql::Fingerprint, telemetry::metrics::Absence};

/// What an answer has beside its rows: description and tag.
const ANSWER_ALLOWANCE_BYTES: usize = 64 * 1024;

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
    /// Answers that level two has given.
    pub shared_hits: u64,
    /// Answers of others' reads that were under way.
    pub joined: u64,
    /// Questions that nobody here had an answer to.
    pub misses: u64,
    /// Answers found void or out of date.
    pub stale: u64,
    /// Answers stored.
    pub stored: u64,
    /// Fills that a write overtook.
    pub overtaken: u64,
    /// Fills whose answer could not be kept.
    pub discarded: u64,
    /// Answers that left for want of room, or were not let in for others that are asked for more often.
    pub evicted: u64,
    /// Where nothing is answered: what the server has spent on answers that would have been there, nanoseconds.
    pub saved: u64,
}

#[derive(Debug, Default)]
struct Counters {
    hits: AtomicU64,
    shared_hits: AtomicU64,
    joined: AtomicU64,
    misses: AtomicU64,
    stale: AtomicU64,
    stored: AtomicU64,
    overtaken: AtomicU64,
    discarded: AtomicU64,
    evicted: Arc<AtomicU64>,
}

/// Level one of the cache: one for the process, whatever databases it serves.
///
/// One that only observes keeps everything but the answers: its hits are what hits would be.
#[derive(Debug)]
pub struct ResultCache {
    store: Cache<Key, Arc<Entry>, foldhash::fast::RandomState>,
    capacity_bytes: u64,
    max_result_bytes: AtomicUsize,
    flights: Arc<Flights>,
    costs: Costs,
    admission: Admission,
    shared: RwLock<Option<Arc<SharedCache>>>,
    is_shared: AtomicBool,
    observed: Option<Observed>,
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
        Self::build(capacity_bytes, max_result_bytes, None)
    }

    /// One that says what such a cache would do, and keeps no answers.
    pub fn observing(capacity_bytes: u64, max_result_bytes: usize) -> Arc<Self> {
        Self::build(capacity_bytes, max_result_bytes, Some(Observed::default()))
    }

    fn build(capacity_bytes: u64, max_result_bytes: usize, observed: Option<Observed>) -> Arc<Self> {
        let least = if observed.is_some() { observed::least_weight(capacity_bytes) } else { 0 };
        let evicted = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&evicted);
        let store = Cache::builder()
            .max_capacity(capacity_bytes)
            .eviction_listener(move |_, _, cause| {
                if cause == RemovalCause::Size {
                    count(&counter);
                }
            })
            .weigher(move |key: &Key, entry: &Arc<Entry>| entry.weight(key.len()).max(least))
            .build_with_hasher(foldhash::fast::RandomState::default());
        Arc::new(Self {
            store,
            capacity_bytes,
            max_result_bytes: AtomicUsize::new(max_result_bytes),
            flights: Arc::default(),
            costs: Costs::default(),
            admission: Admission::default(),
            shared: RwLock::default(),
            is_shared: AtomicBool::new(false),
            observed,
            counters: Counters { evicted, ..Counters::default() },
        })
    }

    /// Is this question to be looked up? Where hardly any answer of a shape is asked for again, only questions are that come
    /// a second time while nothing of `deps` was written, and some by chance; `draw` is any number. One that is not
    /// counts as a miss.
    pub fn admits<'a>(
        &self,
        key: &[u8],
        shape: Fingerprint,
        cells: &Cells,
        deps: impl FnOnce() -> Deps<'a>,
        draw: u64,
    ) -> bool {
        let admits = self.admission.admits(shape, key, || cells.sum(deps()), || self.costs.usual(shape), draw);
        if !admits {
            count(&self.counters.misses);
        }
        admits
    }

    /// The answer to the question that `key` encodes, or the right to bring it. `deps` are all that
    /// the statement reads, as understood with the catalog of `epoch`.
    ///
    /// Call it before any byte of the query is sent: a miss captures the stamps.
    pub fn lookup<'a>(
        self: &Arc<Self>,
        key: &[u8],
        cells: &Arc<Cells>,
        deps: impl Into<Deps<'a>>,
        epoch: CatalogEpoch,
        now: u64,
    ) -> Lookup {
        self.lookup_with(key, cells, || deps.into(), epoch, now)
    }

    /// The same; what it depends on is asked for only if there is no answer.
    pub fn lookup_with<'a>(
        self: &Arc<Self>,
        key: &[u8],
        cells: &Arc<Cells>,
        deps: impl FnOnce() -> Deps<'a>,
        epoch: CatalogEpoch,
        now: u64,
    ) -> Lookup {
        if !cells.is_trusted_at(now) {
            return Lookup::Refused(Uncaptured::Closed(Closure::Peers));
        }
        if !cells.is_heard(now) {
            return Lookup::Refused(Uncaptured::Closed(Closure::DirectWrites));
        }
        let name = self.name(key);
        let Some(entry) = self.store.get(&*name) else {
            return self.miss(key, &name, Absence::New, (cells, deps(), epoch, now));
        };
        if is_answer(&entry, cells, epoch, now) {
            self.note_hit(&entry);
            return Lookup::Hit(entry);
        }
        let absence = observed::absence(&entry, cells, now);
        let outcome = self.miss(key, &name, absence, (cells, deps(), epoch, now));
        // While a write is in flight the entry may yet come through; captured stamps say it did not.
        if matches!(outcome, Lookup::Miss(_)) {
            count(&self.counters.stale);
            self.store.invalidate(&*name);
        }
        outcome
    }

    /// What a question is kept under.
    fn name<'a>(&self, key: &'a [u8]) -> Cow<'a, [u8]> {
        self.observed.as_ref().map_or(Cow::Borrowed(key), |observed| Cow::Owned(observed.name(key).to_vec()))
    }

    /// Does it keep no answers?
    pub fn observes(&self) -> bool {
        self.observed.is_some()
    }

    /// An answer would have been there for which the server took so many nanoseconds.
    pub fn note_saved(&self, nanos: u64) {
        if let Some(observed) = &self.observed {
            observed.note_saved(nanos);
        }
    }

    /// Would [`Self::lookup`] answer? Counts nothing.
    pub fn holds(&self, key: &[u8], cells: &Arc<Cells>, epoch: CatalogEpoch, now: u64) -> bool {
        self.peek(key, cells, epoch, now).is_some()
    }

    /// The longest answer that is kept (`max_result_size`).
    pub fn max_result_bytes(&self) -> usize {
        self.max_result_bytes.load(Ordering::Relaxed)
    }

    /// What [`Self::lookup`] would answer. It is not counted: [`Self::note_hit`] does that if the client gets it.
    pub fn peek(&self, key: &[u8], cells: &Arc<Cells>, epoch: CatalogEpoch, now: u64) -> Option<Arc<Entry>> {
        if !(cells.is_trusted_at(now) && cells.is_heard(now)) {
            return None;
        }
        self.store.get(&*self.name(key)).filter(|entry| is_answer(entry, cells, epoch, now))
    }

    /// A client is answered with it.
    pub fn note_hit(&self, entry: &Entry) {
        count(&self.counters.hits);
        entry.first_asked().into_iter().for_each(|shape| self.admission.asked(shape));
    }

    fn miss(
        self: &Arc<Self>,
        key: &[u8],
        name: &[u8],
        absence: Absence,
        (cells, deps, epoch, now): (&Arc<Cells>, Deps<'_>, CatalogEpoch, u64),
    ) -> Lookup {
        match cells.capture(deps, epoch) {
            Ok(captured) => {
                count(&self.counters.misses);
                let left_out = u32::try_from(key.len().saturating_sub(name.len())).unwrap_or(u32::MAX);
                let fill = FillGuard::new(Arc::clone(self), name, captured, now);
                Lookup::Miss(FillGuard { absence, left_out, ..fill })
            }
            Err(why) => Lookup::Refused(why),
        }
    }

    /// Puts an answer into memory, unless it alone is more than may be there.
    fn keep(&self, key: &Key, entry: &Arc<Entry>) {
        if u64::from(entry.weight(key.len())) > self.capacity_bytes {
            count(&self.counters.evicted);
        } else {
            self.store.insert(key.clone(), Arc::clone(entry));
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

    /// Level two, where there is one from now on.
    pub fn set_shared(&self, shared: Option<Arc<SharedCache>>) {
        let is_shared = shared.is_some();
        *self.shared.write().unwrap_or_else(PoisonError::into_inner) = shared;
        self.is_shared.store(is_shared, Ordering::Release);
    }

    /// Level two, if there is one.
    pub fn shared(&self) -> Option<Arc<SharedCache>> {
        let shared = || self.shared.read().unwrap_or_else(PoisonError::into_inner).clone();
        if self.is_shared.load(Ordering::Acquire) { shared() } else { None }
    }

    /// What level two has done.
    pub fn shared_stats(&self) -> Option<SharedStats> {
        self.shared().map(|shared| shared.stats())
    }

    /// What it holds and has done. The first two figures lag a moment behind.
    pub fn stats(&self) -> CacheStats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (joined, shared_hits) = (of(&self.counters.joined), of(&self.counters.shared_hits));
        CacheStats {
            entries: self.store.entry_count(),
            bytes: self.store.weighted_size(),
            capacity_bytes: self.capacity_bytes,
            hits: of(&self.counters.hits),
            shared_hits,
            joined,
            misses: of(&self.counters.misses).saturating_sub(joined + shared_hits),
            stale: of(&self.counters.stale),
            stored: of(&self.counters.stored),
            overtaken: of(&self.counters.overtaken),
            discarded: of(&self.counters.discarded),
            evicted: of(&self.counters.evicted),
            saved: self.observed.as_ref().map_or(0, Observed::saved),
        }
    }

    /// A reader was given the answer of a flight that he had joined, in place of one of his own.
    pub fn note_joined(&self) {
        count(&self.counters.joined);
    }

    /// What a statement of that shape usually costs the server, in microseconds; `None` if nobody has measured it lately.
    pub fn usual_cost(&self, shape: Fingerprint) -> Option<u32> {
        self.costs.usual(shape)
    }

    /// Questions under way that others may join.
    pub fn flights(&self) -> usize {
        self.flights.len()
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
    shape: Option<(Fingerprint, Arc<str>)>,
    lead: Option<Lead>,
    absence: Absence,
    /// Bytes of the question that are not kept.
    left_out: u32,
}

/// Is it the answer now to a question that was understood, and whose rights were looked at, by that catalog? An answer is
/// void with the catalog under which it was brought; but who has waited may come with a question of an older one, and find
/// what somebody has brought since who may see more. So the catalog is looked at last.
fn is_answer(entry: &Entry, cells: &Arc<Cells>, epoch: CatalogEpoch, now: u64) -> bool {
    entry.captured.is_of(cells) && entry.is_current() && !entry.is_expired(now) && cells.is_in_force(epoch)
}

impl FillGuard {
    fn new(cache: Arc<ResultCache>, key: &[u8], captured: Captured, now: u64) -> Self {
        let fill = Fill::new(cache.max_result_bytes.load(Ordering::Relaxed));
        let (absence, left_out) = (Absence::New, 0);
        Self { cache, key: Key::from(key), captured, fill, started_at: now, shape: None, lead: None, absence, left_out }
    }

    /// Why there was no answer.
    pub fn absence(&self) -> Absence {
        self.absence
    }

    /// Is what it brings only looked at?
    pub fn observes(&self) -> bool {
        self.cache.observes()
    }

    /// The flight that asks the same already, to be waited for in place of asking. `None`: others may wait for this one
    /// from now on. Call it right after the lookup: what was captured there must be what a reader of now must see.
    pub fn board(&mut self) -> Option<Arc<Flight>> {
        match self.cache.flights.board(&self.key, &self.captured) {
            Boarded::Joins(flight) => Some(flight),
            Boarded::Leads(lead) => {
                self.lead = Some(lead);
                None
            }
        }
    }

    /// What it costs says something about the next one of its shape; `cluster` is what its name in level two begins with.
    pub fn is_of(&mut self, shape: Fingerprint, cluster: &Arc<str>) {
        self.shape = Some((shape, Arc::clone(cluster)));
    }

    /// Level two, and what to ask it: if there is one, if it is not to be left alone, and if statements of this shape
    /// usually cost enough to be worth the way.
    pub fn question(&self) -> Option<SharedQuestion> {
        let shared = self.cache.shared()?;
        let (shape, cluster) = self.shape.as_ref()?;
        if !shared.is_worth(self.cache.usual_cost(*shape)) || !shared.admits() {
            return None;
        }
        let question = shared.question(&self.key, &self.captured);
        let max_bytes = self.cache.max_result_bytes.load(Ordering::Relaxed).saturating_add(ANSWER_ALLOWANCE_BYTES);
        Some(SharedQuestion { shared, cluster: Arc::clone(cluster), question, max_bytes })
    }

    /// Keeps what level two has brought, for at most `ttl` nanoseconds, and hands it out: if its stamps are still what
    /// they were when it was asked for.
    pub fn adopt(self: Box<Self>, found: Found, ttl: Option<u64>, now: u64) -> Result<Arc<Entry>, Box<Self>> {
        let shared = self.cache.shared();
        if !self.captured.is_current() {
            shared.into_iter().for_each(|shared| shared.note_overtaken());
            return Err(self);
        }
        let Self { cache, key, captured, shape, lead, .. } = *self;
        let value = found.value;
        if let Some((shape, _)) = &shape {
            cache.costs.learn(*shape, value.cost_us);
            // Somebody had kept it, and it is asked for.
            cache.admission.asked(*shape);
        }
        let entry = Arc::new(Entry {
            row_description: value.row_description,
            rows: value.rows,
            command_complete: value.command_complete,
            row_count: value.row_count,
            filled_at: now,
            cost_us: value.cost_us,
            expires_at: Some(now.saturating_add(ttl.map_or(found.remaining, |ttl| ttl.min(found.remaining)))),
            left_out: 0,
            captured,
            shape: shape.map(|(shape, _)| shape),
            asked: AtomicBool::new(true),
        });
        cache.keep(&key, &entry);
        count(&cache.counters.shared_hits);
        shared.into_iter().for_each(|shared| shared.note_hit());
        land(lead, Landing::Arrived(Arc::clone(&entry)));
        Ok(entry)
    }

    /// Whether what it brings could still be kept.
    pub fn is_current(&self) -> bool {
        self.captured.is_current()
    }

    /// The query is sent at `now`: what it costs is counted from there.
    pub fn sent_at(&mut self, now: u64) {
        self.started_at = now;
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
        let goes_on = self.fill.feed(bytes);
        if !goes_on {
            self.land(Landing::Unshared);
        }
        goes_on
    }

    /// Gives up, for a reason the bytes do not show.
    pub fn discard(&mut self, why: Discard) {
        self.fill.discard(why);
        self.land(Landing::Unshared);
    }

    fn land(&mut self, landing: Landing) {
        land(self.lead.take(), landing);
    }

    /// The answer is complete: keeps it for at most `ttl` nanoseconds, unless it was overtaken.
    /// `status` is that of the ReadyForQuery that followed.
    pub fn commit(self, status: u8, ttl: Option<u64>, now: u64) -> FillOutcome {
        let Self { cache, key, captured, fill, started_at, shape, lead, left_out, .. } = self;
        let cost_us = u32::try_from(now.saturating_sub(started_at) / 1000).unwrap_or(u32::MAX);
        let learn = |cost_us| shape.iter().for_each(|(shape, _)| cache.costs.learn(*shape, cost_us));
        let answer = match fill.finish(status, |relation| captured.depends_on(relation)) {
            Ok(answer) => answer,
            Err(why) => {
                count(&cache.counters.discarded);
                // What cannot be kept is not worth a way to level two.
                learn(0);
                land(lead, Landing::Unshared);
                return FillOutcome::Discarded(why);
            }
        };
        learn(cost_us);
        #[cfg(debug_assertions)]
        let captured = match Ablation::CaptureBeforeQuery.is_left_out() {
            true => captured.taken_late(),
            false => captured,
        };
        if !captured.is_current() && !Ablation::JoinAtEqualStamps.is_left_out() {
            count(&cache.counters.overtaken);
            return FillOutcome::Overtaken;
        }
        let entry = Entry {
            row_description: answer.row_description,
            rows: answer.rows,
            command_complete: answer.command_complete,
            row_count: answer.row_count,
            filled_at: now,
            cost_us,
            expires_at: ttl.map(|ttl| now.saturating_add(ttl)),
            left_out: 0,
            captured,
            shape: shape.as_ref().map(|(shape, _)| *shape),
            asked: AtomicBool::new(false),
        };
        entry.shape.into_iter().for_each(|shape| cache.admission.kept(shape));
        let entry = Arc::new(if cache.observes() { entry.without_bytes(left_out as usize) } else { entry });
        cache.keep(&key, &entry);
        count(&cache.counters.stored);
        land(lead, Landing::Arrived(Arc::clone(&entry)));
        if let (Some(shared), Some((shape, cluster))) = (cache.shared(), shape)
            && shared.is_worth(Some(cache.costs.usual(shape).unwrap_or(cost_us)))
        {
            shared.offer(cluster, key, entry);
        }
        FillOutcome::Stored
    }
}

/// One question to level two.
#[derive(Debug)]
pub struct SharedQuestion {
    shared: Arc<SharedCache>,
    cluster: Arc<str>,
    question: Question,
    max_bytes: usize,
}

impl SharedQuestion {
    /// Asks; never for longer than the deadline.
    pub async fn ask(self) -> Option<Found> {
        self.shared.get(self.cluster, self.question, self.max_bytes).await
    }
}

fn land(lead: Option<Lead>, landing: Landing) {
    if let Some(lead) = lead {
        lead.land(landing);
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
