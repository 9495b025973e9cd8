//! One (database, user): what a client holds to be counted under.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use super::Statistics;
use crate::telemetry::{
    figures::{StatsFigures, StatsRow},
    metrics::{Counter, DatabaseMetrics, SharedMetrics, families},
};

/// Pairs counted by name. Names can come from clients where a `*` database or auth_query exists,
/// so a flood of them must not grow this without end.
const ACCOUNTS_LIMIT: usize = 10_000;
const OTHERS: &str = "(other)";

/// Database and user of a client, with everything counted per pair or per database.
pub struct Account {
    index: u32,
    database: Arc<str>,
    user: Arc<str>,
    metrics: Arc<DatabaseMetrics>,
    stats: Statistics,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.database, self.user)
    }
}

impl Account {
    /// Number of the pair, in order of first use.
    pub(super) fn index(&self) -> u32 {
        self.index
    }

    /// Name as clients use it.
    pub fn database(&self) -> &Arc<str> {
        &self.database
    }

    /// Login name.
    pub fn user(&self) -> &Arc<str> {
        &self.user
    }

    /// Handles of the database.
    pub fn metrics(&self) -> &DatabaseMetrics {
        &self.metrics
    }

    /// PgBouncer's statistics of the pair.
    pub fn stats(&self) -> &Statistics {
        &self.stats
    }
}

/// All pairs met since the start.
pub struct Accounts {
    metrics: SharedMetrics,
    known: Mutex<BTreeMap<Arc<str>, Database>>,
    next_index: AtomicU32,
    stamps: Mutex<Stamps>,
    overflowed: Counter,
}

struct Database {
    metrics: Arc<DatabaseMetrics>,
    users: BTreeMap<Arc<str>, Arc<Account>>,
}

/// Ends of the last two periods.
#[derive(Clone, Copy)]
struct Stamps {
    newer: Instant,
    older: Instant,
}

impl Accounts {
    /// PgBouncer reckons as if a period without a request had ended at the start.
    pub(super) fn new(metrics: &SharedMetrics, period: Duration, now: Instant) -> Self {
        let older = now.checked_sub(period).unwrap_or(now);
        Self {
            overflowed: metrics.counter(&families::ACCOUNTS_REFUSED, &[]),
            metrics: SharedMetrics::clone(metrics),
            known: Mutex::default(),
            next_index: AtomicU32::new(0),
            stamps: Mutex::new(Stamps { newer: now, older }),
        }
    }

    pub(super) fn account(&self, database: &str, user: &str) -> Arc<Account> {
        let mut known = self.known();
        if let Some(account) = known.get(database).and_then(|d| d.users.get(user)) {
            return Arc::clone(account);
        }
        let is_full = self.next_index.load(Ordering::Relaxed) as usize >= ACCOUNTS_LIMIT;
        let (database, user) = match (is_full, known.contains_key(database)) {
            (false, _) => (database, user),
            (true, true) => (database, OTHERS),
            (true, false) => (OTHERS, OTHERS),
        };
        if is_full {
            self.overflowed.increment();
        }
        self.add(&mut known, database, user)
    }

    fn add(&self, known: &mut BTreeMap<Arc<str>, Database>, database: &str, user: &str) -> Arc<Account> {
        let name: Arc<str> = database.into();
        let entry = known.entry(Arc::clone(&name)).or_insert_with(|| Database {
            metrics: Arc::new(DatabaseMetrics::new(&self.metrics, database)),
            users: BTreeMap::new(),
        });
        let metrics = Arc::clone(&entry.metrics);
        let account = entry.users.entry(user.into()).or_insert_with_key(|user| {
            Arc::new(Account {
                index: self.next_index.fetch_add(1, Ordering::Relaxed),
                database: name,
                user: Arc::clone(user),
                metrics,
                stats: Statistics::default(),
            })
        });
        Arc::clone(account)
    }

    pub(super) fn stats(&self, now: Instant) -> Vec<StatsRow> {
        let period = now.saturating_duration_since(self.stamps().older);
        let row = |(name, database): (&Arc<str>, &Database)| {
            let (totals, older) = sums(database.users.values());
            StatsRow { database: name.to_string(), totals, averages: totals.averages(&older, period) }
        };
        self.known().iter().map(row).collect()
    }

    pub(super) fn roll(&self, now: Instant) -> StatsFigures {
        let older = {
            let mut stamps = self.stamps();
            *stamps = Stamps { older: stamps.newer, newer: now };
            stamps.older
        };
        let known = self.known();
        let accounts = known.values().flat_map(|database| database.users.values());
        accounts.clone().for_each(|account| account.stats.roll());
        let (totals, before) = sums(accounts);
        totals.averages(&before, now.saturating_duration_since(older))
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Database>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stamps(&self) -> MutexGuard<'_, Stamps> {
        self.stamps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Totals, and what they were at the older stamp.
fn sums<'a>(accounts: impl Iterator<Item = &'a Arc<Account>>) -> (StatsFigures, StatsFigures) {
    accounts.fold(Default::default(), |(totals, older), account| {
        let (these_totals, these_older) = account.stats.totals_and_older();
        (totals.plus(&these_totals), older.plus(&these_older))
    })
}
