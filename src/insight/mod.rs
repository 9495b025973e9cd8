//! What each request left behind: latency histograms, figures per query shape, the slow log and
//! PgBouncer's statistics. One call per request, [`Insight::observe`].

mod account;
mod advice;
mod asked;
mod digest;
mod latency;
mod record;
mod slow_log;
mod stats;

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

pub use self::{
    account::{Account, Accounts},
    advice::AdviceRow,
    digest::{DigestRow, DigestTable, SHAPE_BYTES},
    latency::LatencyDistribution,
    record::{Absence, CacheOutcome, RequestRecord, Route, WOULD_REPLICA, Work},
    slow_log::{SlowEntry, SlowLog, SlowRow},
    stats::{Statistics, log_line},
};
use crate::telemetry::{
    figures::{StatsFigures, StatsRow},
    metrics::SharedMetrics,
};

/// `[insight]`, as plain values.
#[derive(Clone, Debug)]
pub struct InsightSettings {
    /// Requests at least this long are slow; `None` finds none slow.
    pub slow_query_threshold: Option<Duration>,
    /// JSON lines; without it slow requests are kept in memory only.
    pub slow_query_log: Option<PathBuf>,
    /// Slow requests kept for SHOW SLOW.
    pub slow_kept: usize,
    /// Query shapes with statistics.
    pub shapes: usize,
    /// `stats_period`.
    pub stats_period: Duration,
}

impl Default for InsightSettings {
    fn default() -> Self {
        Self {
            slow_query_threshold: Some(Duration::from_millis(100)),
            slow_query_log: None,
            slow_kept: 500,
            shapes: 5000,
            stats_period: Duration::from_secs(60),
        }
    }
}

/// All of it; shared by every worker.
pub struct Insight {
    accounts: Accounts,
    digests: DigestTable,
    slow: SlowLog,
}

impl Insight {
    /// Starts the slow log's writer where there is a file.
    pub fn new(settings: &InsightSettings, metrics: &SharedMetrics, now: Instant) -> io::Result<Self> {
        Ok(Self {
            accounts: Accounts::new(metrics, settings.stats_period, now),
            digests: DigestTable::new(settings.shapes, metrics),
            slow: SlowLog::new(settings, metrics)?,
        })
    }

    /// The handle a client keeps from login to close; logins of the same pair share it.
    pub fn account(&self, database: &str, user: &str) -> Arc<Account> {
        self.accounts.account(database, user)
    }

    /// Takes note of one request. Allocates nothing for a known shape that is not slow.
    pub fn observe(&self, record: &RequestRecord<'_>) {
        let sqlstate = record.sqlstate.as_ref().map(record::sqlstate_text);
        record.account.metrics().observe(&record.observation(sqlstate));
        record.account.stats().count_request(record);
        self.digests.observe(record);
        if self.slow.is_slow(record.total) {
            record.account.metrics().slow();
            self.slow.observe(record, self.digests.text(record));
        }
    }

    /// The shapes that took the most time, with all users of all databases.
    pub fn top(&self, count: usize) -> Vec<DigestRow> {
        self.digests.top(count)
    }

    /// What the cache does, or would do, for each shape; those that gain most first.
    pub fn advice(&self, count: usize) -> Vec<AdviceRow> {
        self.digests.advice(count)
    }

    /// The latest slow requests, latest first.
    pub fn slow(&self, count: usize) -> Vec<SlowRow> {
        self.slow.latest(count)
    }

    /// Query shapes with statistics right now.
    pub fn shapes(&self) -> usize {
        self.digests.len()
    }

    /// Query shapes that may have statistics.
    pub fn shapes_limit(&self) -> usize {
        self.digests.limit()
    }

    /// SHOW STATS: a row per database, in the order of their names.
    pub fn stats(&self, now: Instant) -> Vec<StatsRow> {
        self.accounts.stats(now)
    }

    /// Ends a `stats_period`; returns its averages over all databases, for the log.
    pub fn roll(&self, now: Instant) -> StatsFigures {
        self.accounts.roll(now)
    }

    /// After RELOAD or SET.
    pub fn set_slow_threshold(&self, threshold: Option<Duration>) {
        self.slow.set_threshold(threshold);
    }

    /// After a rotation.
    pub fn reopen_slow_log(&self) {
        self.slow.reopen();
    }

    /// Writes what is queued and ends the writer. Blocks until it did.
    pub fn close(&self) {
        self.slow.close();
    }
}

#[cfg(test)]
mod tests;
