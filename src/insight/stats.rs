//! PgBouncer's statistics of one (database, user).

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::RequestRecord;
use crate::telemetry::figures::StatsFigures;

/// Totals since the start and what they were at the last two ends of a period.
///
/// A request adds to most figures at once: one short lock is cheaper than an atomic add for each.
#[derive(Debug, Default)]
pub struct Statistics {
    periods: Mutex<Periods>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Periods {
    totals: StatsFigures,
    newer: StatsFigures,
    older: StatsFigures,
}

impl Statistics {
    pub(super) fn count_request(&self, record: &RequestRecord<'_>) {
        let work = &record.work;
        let totals = &mut self.periods().totals;
        totals.query_count += 1;
        totals.query_time += micros(record.total);
        totals.wait_time += micros(record.queue);
        totals.received += record.received;
        totals.sent += record.sent;
        totals.server_assignment_count += work.assignments;
        totals.client_parse_count += work.client_parses;
        totals.server_parse_count += work.server_parses;
        totals.bind_count += work.binds;
        totals.xact_count += work.transactions;
        totals.xact_time += micros(work.transaction_time);
    }

    /// Bytes came from a client before its request was over (long COPY).
    pub fn received(&self, bytes: u64) {
        self.periods().totals.received += bytes;
    }

    /// Bytes went to a client before its request was over (long answers).
    pub fn sent(&self, bytes: u64) {
        self.periods().totals.sent += bytes;
    }

    /// A transaction ended without a request of its own, as when its client went away.
    pub fn transaction(&self, duration: Duration) {
        let totals = &mut self.periods().totals;
        totals.xact_count += 1;
        totals.xact_time += micros(duration);
    }

    /// A command of the console was answered: a request and a transaction without a server.
    pub fn command(&self, duration: Duration) {
        let totals = &mut self.periods().totals;
        totals.query_count += 1;
        totals.query_time += micros(duration);
        totals.xact_count += 1;
        totals.xact_time += micros(duration);
    }

    /// A client logged in.
    pub fn login(&self) {
        self.periods().totals.client_login_count += 1;
    }

    /// Since the start.
    pub fn totals(&self) -> StatsFigures {
        self.periods().totals
    }

    /// Totals, and what they were at the end of the period before the last one.
    pub(super) fn totals_and_older(&self) -> (StatsFigures, StatsFigures) {
        let periods = self.periods();
        (periods.totals, periods.older)
    }

    /// Ends a period.
    pub(super) fn roll(&self) {
        let mut periods = self.periods();
        periods.older = periods.newer;
        periods.newer = periods.totals;
    }

    fn periods(&self) -> MutexGuard<'_, Periods> {
        self.periods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The `stats:` line PgBouncer logs each period; scripts grep it.
pub fn log_line(averages: &StatsFigures) -> String {
    format!(
        "stats: {} xacts/s, {} queries/s, {} client parses/s, {} server parses/s, {} binds/s, \
         {} client logins/s, in {} B/s, out {} B/s, xact {} us, query {} us, wait {} us",
        averages.xact_count,
        averages.query_count,
        averages.client_parse_count,
        averages.server_parse_count,
        averages.bind_count,
        averages.client_login_count,
        averages.received,
        averages.sent,
        averages.xact_time,
        averages.query_time,
        averages.wait_time,
    )
}
