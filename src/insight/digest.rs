//! Figures per query shape: who runs it, how often, how long it takes, where the time goes.

use std::{
    cmp::Reverse,
    sync::{Arc, Mutex},
    time::Duration,
};

use dashmap::DashMap;
use serde::Serialize;

use super::{LatencyDistribution, RequestRecord, Route, WOULD_REPLICA, advice::AdviceRow, asked::Asked};
use crate::{
    sql::Fingerprint,
    telemetry::metrics::{Counter, SharedMetrics, families},
};

/// Account and shape.
type Key = (u32, Fingerprint);

/// A full table gives up this share of its shapes at once, so that finding the least-called ones
/// is paid for once in a while.
const EVICTED_SHARE: usize = 20;

/// Bytes of one shape's figures, without its text.
pub const SHAPE_BYTES: usize = size_of::<Key>() + size_of::<Digest>();

/// Figures of the shapes met, at most `capacity` of them; the least-called ones make room.
pub struct DigestTable {
    digests: DashMap<Key, Digest, foldhash::fast::RandomState>,
    capacity: usize,
    making_room: Mutex<()>,
    evictions: Counter,
}

/// Plain figures: the map's own lock, needed to find them, is all that guards them. A request
/// changes ten, and ten atomic adds would cost several times that lock.
struct Digest {
    database: Arc<str>,
    user: Arc<str>,
    text: Arc<str>,
    latency: LatencyDistribution,
    calls: u64,
    total: Duration,
    min: Duration,
    max: Duration,
    queue: Duration,
    server: Duration,
    errors: u64,
    rows: u64,
    bytes: u64,
    asked: Asked,
    replica_calls: u64,
    would_replica: u64,
}

/// One line of SHOW QUERIES. Times in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DigestRow {
    /// 32 hex digits.
    pub fingerprint: String,
    /// Name as clients use it.
    pub database: String,
    /// Login name.
    pub user: String,
    /// Requests.
    pub calls: u64,
    /// Requests that ended in an error.
    pub errors: u64,
    /// Rows sent.
    pub rows: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Sum of all requests' durations.
    pub total_ms: f64,
    /// Mean duration.
    pub mean_ms: f64,
    /// Shortest.
    pub min_ms: f64,
    /// Longest.
    pub max_ms: f64,
    /// Half were shorter.
    pub p50_ms: f64,
    /// 95 % were shorter.
    pub p95_ms: f64,
    /// 99 % were shorter.
    pub p99_ms: f64,
    /// Sum of the time waited for a server connection.
    pub queue_ms: f64,
    /// Sum of the time on a server connection.
    pub server_ms: f64,
    /// Requests answered from the cache.
    pub cache_hits: u64,
    /// Requests that would have been, did the cache not only observe.
    pub would_hits: u64,
    /// Sum of the time on a server connection of those.
    pub would_save_ms: f64,
    /// Requests that the cache was not, or would not have been, asked for.
    pub bypasses: u64,
    /// What most of the requests that brought nothing into the cache have in common: its `label()`.
    pub cache_reason: &'static str,
    /// Requests answered by a replica.
    pub replica_calls: u64,
    /// Requests that would have been, were they not only counted (`read_write_split = log`).
    pub would_replica: u64,
    /// Normalised text.
    pub query: String,
}

impl DigestTable {
    pub(super) fn new(capacity: usize, metrics: &SharedMetrics) -> Self {
        Self {
            digests: DashMap::with_hasher(foldhash::fast::RandomState::default()),
            capacity: capacity.max(1),
            making_room: Mutex::new(()),
            evictions: metrics.counter(&families::DIGEST_EVICTIONS, &[]),
        }
    }

    pub(super) fn observe(&self, record: &RequestRecord<'_>) {
        let key = key(record);
        if let Some(mut digest) = self.digests.get_mut(&key) {
            digest.count(record);
            return;
        }
        if self.digests.len() >= self.capacity {
            self.make_room();
        }
        self.digests.entry(key).or_insert_with(|| Digest::new(record)).count(record);
    }

    /// The shape's text, shared with the table where the shape is still in it.
    pub(super) fn text(&self, record: &RequestRecord<'_>) -> Arc<str> {
        let known = self.digests.get(&key(record)).map(|digest| Arc::clone(&digest.text));
        known.unwrap_or_else(|| record.normalized.into())
    }

    pub(super) fn limit(&self) -> usize {
        self.capacity
    }

    pub(super) fn len(&self) -> usize {
        self.digests.len()
    }

    pub(super) fn top(&self, count: usize) -> Vec<DigestRow> {
        let mut keys: Vec<(Duration, Key)> = self.digests.iter().map(|d| (d.total, *d.key())).collect();
        keys.sort_unstable_by_key(|&(total, key)| (Reverse(total), key));
        let rows = keys.into_iter().take(count);
        rows.filter_map(|(_, key)| self.digests.get(&key).map(|d| d.row(key.1))).collect()
    }

    /// What the cache does, or would do, for each shape that it could be asked for; those that gain most first.
    pub(super) fn advice(&self, count: usize) -> Vec<AdviceRow> {
        let judged = |d: &Digest| (!d.asked.is_nothing()).then(|| d.asked.rank(d.server));
        let mut keys: Vec<_> = self.digests.iter().filter_map(|d| Some((judged(&d)?, *d.key()))).collect();
        keys.sort_unstable_by_key(|&(rank, key)| (Reverse(rank), key));
        let rows = keys.into_iter().take(count);
        rows.filter_map(|(_, key)| self.digests.get(&key).map(|d| d.advice(key.1))).collect()
    }

    /// Takes the least-called shapes out. Somebody else doing so already is good enough.
    fn make_room(&self) {
        let Ok(_only_me) = self.making_room.try_lock() else {
            return;
        };
        let mut calls: Vec<(u64, Key)> = self.digests.iter().map(|d| (d.calls, *d.key())).collect();
        let excess = (calls.len() + 1).saturating_sub(self.capacity);
        let leaving = excess.max(self.capacity / EVICTED_SHARE).min(calls.len());
        if let Some(last) = leaving.checked_sub(1) {
            calls.select_nth_unstable(last);
        }
        for (_, key) in calls.iter().take(leaving) {
            self.digests.remove(key);
        }
        self.evictions.add(leaving as u64);
    }
}

fn key(record: &RequestRecord<'_>) -> Key {
    (record.account.index(), record.fingerprint)
}

impl Digest {
    fn new(record: &RequestRecord<'_>) -> Self {
        Self {
            database: Arc::clone(record.account.database()),
            user: Arc::clone(record.account.user()),
            text: record.normalized.into(),
            latency: LatencyDistribution::default(),
            calls: 0,
            total: Duration::ZERO,
            min: Duration::MAX,
            max: Duration::ZERO,
            queue: Duration::ZERO,
            server: Duration::ZERO,
            errors: 0,
            rows: 0,
            bytes: 0,
            asked: Asked::default(),
            replica_calls: 0,
            would_replica: 0,
        }
    }

    fn count(&mut self, record: &RequestRecord<'_>) {
        self.latency.record(record.total);
        self.calls += 1;
        self.total = self.total.saturating_add(record.total);
        self.min = self.min.min(record.total);
        self.max = self.max.max(record.total);
        self.queue = self.queue.saturating_add(record.queue);
        self.server = self.server.saturating_add(record.server);
        self.errors += u64::from(record.sqlstate.is_some());
        self.rows += record.rows;
        self.bytes += record.sent;
        self.asked.count(record);
        self.replica_calls += u64::from(record.route == Route::Replica);
        self.would_replica += u64::from(record.route_reason == WOULD_REPLICA);
    }

    fn advice(&self, fingerprint: Fingerprint) -> AdviceRow {
        let asked = &self.asked;
        AdviceRow {
            fingerprint: fingerprint.to_string(),
            database: self.database.to_string(),
            user: self.user.to_string(),
            advice: asked.advice().label(),
            reason: asked.reason(),
            calls: self.calls,
            bypasses: asked.bypasses,
            hits: asked.all_hits(),
            hit_ratio: asked.hit_ratio(),
            saved_ms: millis(asked.all_saved()),
            unsure_hits: asked.unsure,
            unsure_ms: millis(asked.unsure_time),
            voided: asked.voided,
            server_ms: millis(self.server),
            query: self.text.to_string(),
        }
    }

    fn row(&self, fingerprint: Fingerprint) -> DigestRow {
        let quantiles = self.latency.quantiles([0.5, 0.95, 0.99]);
        // A bucket reaches beyond what was seen in it.
        let [p50, p95, p99] = quantiles.map(|q| q.max(self.min.min(self.max)).min(self.max));
        let total_ms = millis(self.total);
        DigestRow {
            fingerprint: fingerprint.to_string(),
            database: self.database.to_string(),
            user: self.user.to_string(),
            calls: self.calls,
            errors: self.errors,
            rows: self.rows,
            bytes: self.bytes,
            total_ms,
            mean_ms: total_ms / self.calls.max(1) as f64,
            min_ms: millis(self.min.min(self.max)),
            max_ms: millis(self.max),
            p50_ms: millis(p50),
            p95_ms: millis(p95),
            p99_ms: millis(p99),
            queue_ms: millis(self.queue),
            server_ms: millis(self.server),
            cache_hits: self.asked.hits,
            would_hits: self.asked.would_hits,
            would_save_ms: millis(self.asked.saved),
            bypasses: self.asked.bypasses,
            cache_reason: self.asked.reason(),
            replica_calls: self.replica_calls,
            would_replica: self.would_replica,
            query: self.text.to_string(),
        }
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
