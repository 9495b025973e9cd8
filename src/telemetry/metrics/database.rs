//! The handles one request of a database touches.

use std::{sync::OnceLock, time::Duration};

use super::{Counter, Histogram, LabelCounters, SharedMetrics, families};

/// Where a request was answered: the `route` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// By the primary.
    Primary,
    /// By a replica.
    Replica,
    /// From memory or Redis.
    Cache,
    /// By the proxy itself: refused, or an answer of its own.
    Proxy,
}

impl Route {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Primary, Self::Replica, Self::Cache, Self::Proxy];

    /// As in metrics, logs and the console.
    pub fn label(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Cache => "cache",
            Self::Proxy => "proxy",
        }
    }
}

/// What the cache did for a request: the `cache` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheOutcome {
    /// The cache is switched off for this database.
    Off,
    /// It was not asked; the reason says why.
    Bypass,
    /// Asked in vain.
    Miss,
    /// Answered from the first level.
    Hit,
    /// Answered from the second level.
    SharedHit,
    /// Answered by another client's read that was under way.
    Joined,
    /// The cache only observes, and would have answered.
    WouldHit,
}

/// Why the cache had no answer to a question that it was asked: the `reason` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Absence {
    /// It was not asked before, or what was kept has left for want of room.
    New,
    /// Its time was over.
    Expired,
    /// Something that it depends on was written, or redefined.
    Written,
    /// Something was written and nobody knew what, so that it voided everything.
    Unforeseen,
}

impl Absence {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::New, Self::Expired, Self::Written, Self::Unforeseen];

    /// As in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Expired => "expired",
            Self::Written => "written",
            Self::Unforeseen => "unforeseen",
        }
    }
}

impl CacheOutcome {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] =
        [Self::Off, Self::Bypass, Self::Miss, Self::Hit, Self::SharedHit, Self::Joined, Self::WouldHit];

    /// As in metrics, logs and the console.
    pub fn label(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Bypass => "bypass",
            Self::Miss => "miss",
            Self::Hit => "hit",
            Self::SharedHit => "shared_hit",
            Self::Joined => "joined",
            Self::WouldHit => "would_hit",
        }
    }

    /// No server was asked for this request.
    pub fn is_hit(self) -> bool {
        matches!(self, Self::Hit | Self::SharedHit | Self::Joined)
    }
}

/// What is counted about one request, in words.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// Where it was answered.
    pub route: Route,
    /// Why there.
    pub route_reason: &'a str,
    /// What the cache did.
    pub cache: CacheOutcome,
    /// Why.
    pub cache_reason: &'a str,
    /// Why it had no answer, if it was asked in vain.
    pub absence: Option<Absence>,
    /// Waiting for a server connection.
    pub queue: Duration,
    /// On a server connection.
    pub server: Duration,
    /// First byte of the request to last byte of the answer.
    pub total: Duration,
    /// Rows sent.
    pub rows: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Of the error it ended in.
    pub sqlstate: Option<&'a str>,
}

/// The handles of one database, registered once.
pub struct DatabaseMetrics {
    metrics: SharedMetrics,
    database: Box<str>,
    requests: [LabelCounters; Route::ALL.len()],
    cache: [LabelCounters; CacheOutcome::ALL.len()],
    absences: [Counter; Absence::ALL.len()],
    /// By route and cache outcome; most pairs never happen and have no series.
    latency: [[OnceLock<Latency>; CacheOutcome::ALL.len()]; Route::ALL.len()],
    errors: LabelCounters,
    rows: Counter,
    bytes: Counter,
    slow: Counter,
}

struct Latency {
    queue: Histogram,
    server: Histogram,
    total: Histogram,
}

impl DatabaseMetrics {
    /// Registers every series that is known in advance.
    pub fn new(metrics: &SharedMetrics, name: &str) -> Self {
        let database = ("database", name);
        Self {
            metrics: SharedMetrics::clone(metrics),
            database: name.into(),
            requests: Route::ALL.map(|route| {
                let labels = [database, ("route", route.label())];
                LabelCounters::new(metrics, &families::REQUESTS, &labels, "reason")
            }),
            cache: CacheOutcome::ALL.map(|outcome| {
                let labels = [database, ("outcome", outcome.label())];
                LabelCounters::new(metrics, &families::CACHE_REQUESTS, &labels, "reason")
            }),
            absences: Absence::ALL
                .map(|absence| metrics.counter(&families::CACHE_MISSES, &[database, ("reason", absence.label())])),
            latency: Default::default(),
            errors: LabelCounters::new(metrics, &families::REQUEST_ERRORS, &[database], "sqlstate"),
            rows: metrics.counter(&families::REQUEST_ROWS, &[database]),
            bytes: metrics.counter(&families::REQUEST_BYTES, &[database]),
            slow: metrics.counter(&families::SLOW_QUERIES, &[database]),
        }
    }

    /// Counts one request. Allocates only when a label value is met for the first time.
    pub fn observe(&self, seen: &Observation<'_>) {
        let (route, cache) = (seen.route as usize, seen.cache as usize);
        if let Some(requests) = self.requests.get(route) {
            requests.at(seen.route_reason).increment();
        }
        if seen.cache != CacheOutcome::Off
            && let Some(outcomes) = self.cache.get(cache)
        {
            outcomes.at(seen.cache_reason).increment();
        }
        if let Some(absence) = seen.absence.and_then(|absence| self.absences.get(absence as usize)) {
            absence.increment();
        }
        if let Some(latency) = self.latency.get(route).and_then(|row| row.get(cache)) {
            latency.get_or_init(|| self.latency(seen)).record(seen);
        }
        if let Some(sqlstate) = seen.sqlstate {
            self.errors.at(sqlstate).increment();
        }
        self.rows.add(seen.rows);
        self.bytes.add(seen.bytes);
    }

    fn latency(&self, seen: &Observation<'_>) -> Latency {
        let (route, cache) = (seen.route.label(), seen.cache.label());
        let labels = [("database", &*self.database), ("route", route), ("cache", cache)];
        Latency::new(&self.metrics, &labels)
    }

    /// Counts a request that the slow log was told about.
    pub fn slow(&self) {
        self.slow.increment();
    }
}

impl Latency {
    fn new(metrics: &SharedMetrics, labels: &[(&'static str, &str)]) -> Self {
        Self {
            queue: metrics.histogram(&families::REQUEST_QUEUE_SECONDS, labels),
            server: metrics.histogram(&families::REQUEST_SERVER_SECONDS, labels),
            total: metrics.histogram(&families::REQUEST_SECONDS, labels),
        }
    }

    /// What never met a server has no queue and no server time to speak of.
    fn record(&self, seen: &Observation<'_>) {
        self.total.record(seen.total);
        if matches!(seen.route, Route::Primary | Route::Replica) {
            self.queue.record(seen.queue);
            self.server.record(seen.server);
        }
    }
}
