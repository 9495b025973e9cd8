//! One request, as the client's task tells it.

use std::{
    str,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::Account;
pub use crate::telemetry::metrics::{Absence, CacheOutcome, Route};
use crate::{sql::Fingerprint, telemetry::metrics::Observation};

/// One request, socket to socket: a Query, or a pipeline up to its Sync.
///
/// Holds no literal and no parameter; nothing that is made of it can.
#[derive(Clone, Copy, Debug)]
pub struct RequestRecord<'a> {
    /// Whose request.
    pub account: &'a Account,
    /// Its shape.
    pub fingerprint: Fingerprint,
    /// The shape's text, literals replaced; copied only when the shape is met first.
    pub normalized: &'a str,
    /// Where it was answered.
    pub route: Route,
    /// `label()` of the reason.
    pub route_reason: &'static str,
    /// Member that ran it.
    pub member: Option<&'a Arc<str>>,
    /// What the cache did.
    pub cache: CacheOutcome,
    /// `label()` of the reason.
    pub cache_reason: &'static str,
    /// Why the cache had no answer, if it was asked in vain.
    pub absence: Option<Absence>,
    /// Waiting for a server connection.
    pub queue: Duration,
    /// On a server connection.
    pub server: Duration,
    /// From the first byte of the request to the last byte of its answer.
    pub total: Duration,
    /// Rows sent.
    pub rows: u64,
    /// Bytes received from the client that were not yet counted with `Statistics::received`.
    pub received: u64,
    /// Bytes sent to the client that were not yet counted with `Statistics::sent`.
    pub sent: u64,
    /// What PgBouncer counts besides.
    pub work: Work,
    /// Of the error it ended in.
    pub sqlstate: Option<[u8; 5]>,
    /// Wall clock at the end.
    pub ended: SystemTime,
}

/// The reason of reads on the primary that a replica would serve, were they not only counted (`read_write_split = log`).
pub const WOULD_REPLICA: &str = "would_replica";

/// What a request made the proxy do, for SHOW STATS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Times a server was given to the client.
    pub assignments: u64,
    /// Transactions that ended in the request; a statement outside of one is one.
    pub transactions: u64,
    /// From their first request to their end.
    pub transaction_time: Duration,
    /// Parse messages from the client.
    pub client_parses: u64,
    /// Parse messages sent to a server.
    pub server_parses: u64,
    /// Bind messages from the client.
    pub binds: u64,
}

impl RequestRecord<'_> {
    pub(super) fn observation<'b>(&'b self, sqlstate: Option<&'b str>) -> Observation<'b> {
        Observation {
            route: self.route,
            route_reason: self.route_reason,
            cache: self.cache,
            cache_reason: self.cache_reason,
            absence: self.absence,
            queue: self.queue,
            server: self.server,
            total: self.total,
            rows: self.rows,
            bytes: self.sent,
            sqlstate,
        }
    }
}

/// A server may send any bytes as SQLSTATE; what is none must not become a label.
pub(super) fn sqlstate_text(code: &[u8; 5]) -> &str {
    let is_code = code.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
    if is_code { str::from_utf8(code).unwrap_or("other") } else { "other" }
}
