//! One slow request.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::Serialize;

use crate::{
    insight::{
        RequestRecord,
        record::{CacheOutcome, Route, sqlstate_text},
    },
    sql::Fingerprint,
    telemetry::timestamp::Utc,
};

/// What is kept of a slow request; cheap to make, spelled out only when read.
#[derive(Clone, Debug)]
pub struct SlowEntry {
    ended: SystemTime,
    database: Arc<str>,
    user: Arc<str>,
    fingerprint: Fingerprint,
    text: Arc<str>,
    route: Route,
    route_reason: &'static str,
    member: Option<Arc<str>>,
    cache: CacheOutcome,
    cache_reason: &'static str,
    queue: Duration,
    server: Duration,
    total: Duration,
    rows: u64,
    bytes: u64,
    sqlstate: Option<[u8; 5]>,
}

/// One line of the slow log and of SHOW SLOW. Times in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SlowRow {
    /// When it ended, RFC 3339.
    pub at: String,
    /// Name as clients use it.
    pub database: String,
    /// Login name.
    pub user: String,
    /// 32 hex digits.
    pub fingerprint: String,
    /// Normalised text.
    pub query: String,
    /// Where it was answered.
    pub route: &'static str,
    /// Why there.
    pub route_reason: &'static str,
    /// Member that ran it.
    pub member: Option<String>,
    /// What the cache did.
    pub cache: &'static str,
    /// Why.
    pub cache_reason: &'static str,
    /// Waiting for a server connection.
    pub queue_ms: f64,
    /// On a server connection.
    pub server_ms: f64,
    /// First byte of the request to last byte of the answer.
    pub total_ms: f64,
    /// Rows sent.
    pub rows: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Of the error it ended in.
    pub sqlstate: Option<String>,
}

impl SlowEntry {
    pub(super) fn new(record: &RequestRecord<'_>, text: Arc<str>) -> Self {
        Self {
            ended: record.ended,
            database: Arc::clone(record.account.database()),
            user: Arc::clone(record.account.user()),
            fingerprint: record.fingerprint,
            text,
            route: record.route,
            route_reason: record.route_reason,
            member: record.member.map(Arc::clone),
            cache: record.cache,
            cache_reason: record.cache_reason,
            queue: record.queue,
            server: record.server,
            total: record.total,
            rows: record.rows,
            bytes: record.sent,
            sqlstate: record.sqlstate,
        }
    }

    pub(super) fn row(&self) -> SlowRow {
        SlowRow {
            at: Utc::new(self.ended).rfc3339().to_string(),
            database: self.database.to_string(),
            user: self.user.to_string(),
            fingerprint: self.fingerprint.to_string(),
            query: self.text.to_string(),
            route: self.route.label(),
            route_reason: self.route_reason,
            member: self.member.as_deref().map(str::to_owned),
            cache: self.cache.label(),
            cache_reason: self.cache_reason,
            queue_ms: millis(self.queue),
            server_ms: millis(self.server),
            total_ms: millis(self.total),
            rows: self.rows,
            bytes: self.bytes,
            sqlstate: self.sqlstate.as_ref().map(|code| sqlstate_text(code).to_owned()),
        }
    }
}

/// To the microsecond; more digits are noise.
fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}
