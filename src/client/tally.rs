//! What becomes of clients, counted as they come and go; no plain request touches anything here.

use super::{ClientError, read_only::Escape};
use crate::telemetry::metrics::{Counter, LabelCounters, SharedMetrics, families};

/// Counters of the process.
pub struct Tally {
    connections: Counter,
    refused: LabelCounters,
    ended: LabelCounters,
    wait_timeouts: Counter,
    cancels: LabelCounters,
    unknown_hints: Counter,
    healed: LabelCounters,
    escapes: LabelCounters,
}

/// What became of a cancel request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cancelled {
    /// The server was told.
    Sent,
    /// It could not be told.
    NotSent,
    /// The client waited for a server, or on the console.
    Waiting,
    /// The client had nothing running.
    Idle,
    /// Nobody has this key.
    Unknown,
    /// It went to another process.
    Forwarded,
    /// It had been forwarded too often.
    NoHopsLeft,
}

impl Cancelled {
    fn label(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::NotSent => "not_sent",
            Self::Waiting => "waiting",
            Self::Idle => "idle",
            Self::Unknown => "unknown_key",
            Self::Forwarded => "forwarded",
            Self::NoHopsLeft => "no_hops_left",
        }
    }
}

impl Tally {
    /// Counts in these.
    #[must_use]
    pub fn new(metrics: &SharedMetrics) -> Self {
        Self {
            connections: metrics.counter(&families::CLIENT_CONNECTIONS, &[]),
            refused: LabelCounters::new(metrics, &families::CLIENT_LOGINS_REFUSED, &[], "reason"),
            ended: LabelCounters::new(metrics, &families::CLIENT_DISCONNECTS, &[], "reason"),
            wait_timeouts: metrics.counter(&families::QUERY_WAIT_TIMEOUTS, &[]),
            healed: LabelCounters::new(metrics, &families::SELF_HEALS, &[], "reason"),
            unknown_hints: metrics.counter(&families::UNKNOWN_HINTS, &[]),
            escapes: LabelCounters::new(metrics, &families::READ_ONLY_ESCAPES, &[], "outcome"),
            cancels: LabelCounters::new(metrics, &families::CANCEL_REQUESTS, &[], "outcome"),
        }
    }

    /// Somebody has connected.
    pub(super) fn accepted(&self) {
        self.connections.increment();
    }

    /// A login came to nothing.
    pub(super) fn refused(&self, error: &ClientError) {
        self.refused.at(error.label()).increment();
        self.note_timeout(error);
    }

    /// A session has ended.
    pub(super) fn ended(&self, error: &ClientError) {
        self.ended.at(error.label()).increment();
        self.note_timeout(error);
    }

    /// A request held hints that were not understood.
    pub(super) fn unknown_hints(&self, count: u32) {
        self.unknown_hints.add(count.into());
    }

    /// A read runs once more.
    pub(super) fn healed(&self, reason: &str) {
        self.healed.at(reason).increment();
    }

    /// A cancel request has been acted on.
    pub(super) fn cancelled(&self, outcome: Cancelled) {
        self.cancels.at(outcome.label()).increment();
    }

    /// A READ ONLY transaction on a replica has met a statement that wants the primary.
    pub(super) fn escaped(&self, escape: Escape) {
        self.escapes.at(escape.label()).increment();
    }

    fn note_timeout(&self, error: &ClientError) {
        if error.is_wait_timeout() {
            self.wait_timeouts.increment();
        }
    }
}
