//! What becomes of server connections, for metrics; nothing here is touched by a request.

use std::sync::Arc;

use super::PoolKey;
use crate::{
    session::PinSet,
    telemetry::metrics::{Counter, LabelCounters, SharedMetrics, families},
};

/// Counters of one pool. Another pool of the same database and member counts in the same ones, so that they outlive it.
#[derive(Clone)]
pub struct Tally {
    pub(super) opened: Counter,
    pub(super) failed: Counter,
    pins: [Counter; PinSet::LABELS.len()],
    closed: Arc<LabelCounters>,
}

/// What pools count in.
#[derive(Clone)]
pub struct Tallies {
    metrics: SharedMetrics,
    closed: Arc<LabelCounters>,
}

impl Tallies {
    /// Counts in these.
    #[must_use]
    pub fn new(metrics: &SharedMetrics) -> Self {
        let closed = LabelCounters::new(metrics, &families::SERVER_CONNECTIONS_CLOSED, &[], "reason");
        Self { metrics: SharedMetrics::clone(metrics), closed: Arc::new(closed) }
    }

    /// The counters of a pool.
    #[must_use]
    pub fn of(&self, key: &PoolKey) -> Tally {
        let database = ("database", &*key.database);
        let member = [database, ("member", &*key.member)];
        Tally {
            opened: self.metrics.counter(&families::SERVER_CONNECTIONS_OPENED, &member),
            failed: self.metrics.counter(&families::SERVER_CONNECT_ERRORS, &member),
            pins: PinSet::LABELS
                .map(|(_, label)| self.metrics.counter(&families::PINS, &[database, ("reason", label)])),
            closed: Arc::clone(&self.closed),
        }
    }
}

impl Tally {
    /// A connection was closed.
    pub(super) fn closed(&self, reason: &'static str) {
        self.closed.at(reason).increment();
    }

    /// A client keeps its connection for one more reason.
    pub(super) fn pinned(&self, reason: usize) {
        if let Some(counter) = self.pins.get(reason) {
            counter.increment();
        }
    }
}
