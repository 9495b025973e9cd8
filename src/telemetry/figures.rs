//! The rows of PgBouncer's SHOW POOLS, DATABASES, STATS and LISTS: read by the console and by the
//! Prometheus families of pgbouncer_exporter, so that both say the same.

use serde::Serialize;

/// One pool as SHOW POOLS shows it; members of a database are summed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PoolRow {
    /// Database name as clients use it.
    pub database: String,
    /// User the pool's servers are logged in as.
    pub user: String,
    /// Clients linked to a server or idle without a query.
    pub cl_active: u64,
    /// Clients waiting for a server.
    pub cl_waiting: u64,
    /// Cancel requests forwarded and not answered yet.
    pub cl_active_cancel_req: u64,
    /// Cancel requests not forwarded yet.
    pub cl_waiting_cancel_req: u64,
    /// Servers linked to a client.
    pub sv_active: u64,
    /// Servers carrying a cancel request.
    pub sv_active_cancel: u64,
    /// Servers that wait for a cancel request in flight before they are idle.
    pub sv_being_canceled: u64,
    /// Servers ready for a client.
    pub sv_idle: u64,
    /// Idle servers that need a check first.
    pub sv_used: u64,
    /// Servers running the reset or the check query.
    pub sv_tested: u64,
    /// Servers logging in.
    pub sv_login: u64,
    /// Age of the oldest waiting client, in microseconds.
    pub maxwait_us: u64,
    /// `session`, `transaction` or `statement`.
    pub pool_mode: String,
    /// Only for databases with a list of hosts.
    pub load_balance_hosts: Option<String>,
}

/// One database (or member, as `shop.r1`) as SHOW DATABASES shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DatabaseRow {
    /// Name as clients use it.
    pub name: String,
    /// Host of the connect string; `None` for the console.
    pub host: Option<String>,
    /// Port of the connect string.
    pub port: u16,
    /// Database on the server.
    pub database: String,
    /// User forced by the connect string.
    pub force_user: Option<String>,
    /// Servers per user.
    pub pool_size: u64,
    /// Servers kept open.
    pub min_pool_size: u64,
    /// Servers on top for clients that waited long.
    pub reserve_pool_size: u64,
    /// Seconds until a server is replaced.
    pub server_lifetime: u64,
    /// Set only where the connect string overrides it.
    pub pool_mode: Option<String>,
    /// Only for databases with a list of hosts.
    pub load_balance_hosts: Option<String>,
    /// `max_db_connections`; 0 is unlimited.
    pub max_connections: u64,
    /// Servers open.
    pub current_connections: u64,
    /// `max_db_client_connections`; 0 is unlimited.
    pub max_client_connections: u64,
    /// Clients connected.
    pub current_client_connections: u64,
    /// By PAUSE.
    pub paused: bool,
    /// By DISABLE.
    pub disabled: bool,
}

/// PgBouncer's statistics of one database, in the order of its console.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StatsFigures {
    /// Times a server was given to a client.
    pub server_assignment_count: u64,
    /// Transactions.
    pub xact_count: u64,
    /// Queries and pipelines.
    pub query_count: u64,
    /// Bytes from clients.
    pub received: u64,
    /// Bytes to clients.
    pub sent: u64,
    /// Microseconds in transactions.
    pub xact_time: u64,
    /// Microseconds in queries, waiting for a server included.
    pub query_time: u64,
    /// Microseconds waiting for a server.
    pub wait_time: u64,
    /// Parse messages of clients.
    pub client_parse_count: u64,
    /// Parse messages sent to servers.
    pub server_parse_count: u64,
    /// Bind messages of clients.
    pub bind_count: u64,
    /// Successful logins of clients.
    pub client_login_count: u64,
}

/// Figures in one row of SHOW STATS_TOTALS.
pub const STATS_FIGURES: usize = 12;

impl StatsFigures {
    /// In the order of the console's columns.
    pub fn values(&self) -> [u64; STATS_FIGURES] {
        [
            self.server_assignment_count,
            self.xact_count,
            self.query_count,
            self.received,
            self.sent,
            self.xact_time,
            self.query_time,
            self.wait_time,
            self.client_parse_count,
            self.server_parse_count,
            self.bind_count,
            self.client_login_count,
        ]
    }

    /// The inverse of `values`.
    pub fn from_values(values: [u64; STATS_FIGURES]) -> Self {
        let [
            server_assignment_count,
            xact_count,
            query_count,
            received,
            sent,
            xact_time,
            query_time,
            wait_time,
            client_parse_count,
            server_parse_count,
            bind_count,
            client_login_count,
        ] = values;
        Self {
            server_assignment_count,
            xact_count,
            query_count,
            received,
            sent,
            xact_time,
            query_time,
            wait_time,
            client_parse_count,
            server_parse_count,
            bind_count,
            client_login_count,
        }
    }

    /// Sum, figure by figure.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.zip(other, u64::wrapping_add)
    }

    /// What came on top of `old`.
    #[must_use]
    pub fn since(&self, old: &Self) -> Self {
        self.zip(old, u64::saturating_sub)
    }

    /// Averages of a period: counts and bytes per second, times per event, as PgBouncer's `stats.c`.
    #[must_use]
    pub fn averages(&self, old: &Self, period: std::time::Duration) -> Self {
        let micros = u64::try_from(period.as_micros()).unwrap_or(u64::MAX);
        if micros == 0 {
            return Self::default();
        }
        let grown = self.since(old);
        let per_event = |time: u64, events: u64| time.checked_div(events).unwrap_or(0);
        let per_second = |count: u64| {
            let scaled = u128::from(count) * 1_000_000 / u128::from(micros);
            u64::try_from(scaled).unwrap_or(u64::MAX)
        };
        Self {
            xact_time: per_event(grown.xact_time, grown.xact_count),
            query_time: per_event(grown.query_time, grown.query_count),
            wait_time: per_event(grown.wait_time, grown.server_assignment_count),
            ..Self::from_values(grown.values().map(per_second))
        }
    }

    fn zip(&self, other: &Self, combine: fn(u64, u64) -> u64) -> Self {
        let mut values = self.values();
        for (value, other) in values.iter_mut().zip(other.values()) {
            *value = combine(*value, other);
        }
        Self::from_values(values)
    }
}

/// One database as SHOW STATS shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StatsRow {
    /// Database name as clients use it.
    pub database: String,
    /// Since the start.
    pub totals: StatsFigures,
    /// Over the last `stats_period`.
    pub averages: StatsFigures,
}

/// One line of SHOW LISTS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ListRow {
    /// PgBouncer's name of the list.
    pub list: &'static str,
    /// Its length.
    pub items: u64,
}

/// What PgBouncer's own tools may ask; implemented once, by the composition root.
pub trait PgbouncerView: Send + Sync {
    /// First line of `--version`; also SHOW VERSION.
    fn version(&self) -> String;
    /// SHOW POOLS.
    fn pools(&self) -> Vec<PoolRow>;
    /// SHOW DATABASES.
    fn databases(&self) -> Vec<DatabaseRow>;
    /// SHOW STATS.
    fn stats(&self) -> Vec<StatsRow>;
    /// SHOW LISTS.
    fn lists(&self) -> Vec<ListRow>;
    /// A numeric setting of SHOW CONFIG.
    fn config_number(&self, key: &str) -> Option<f64>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn counts_are_averaged_per_second_and_times_per_event() {
        let old = StatsFigures::default();
        let now = StatsFigures {
            query_count: 100,
            query_time: 5000,
            xact_count: 50,
            xact_time: 10_000,
            server_assignment_count: 10,
            wait_time: 300,
            sent: 4000,
            ..old
        };
        let averages = now.averages(&old, Duration::from_secs(2));
        assert_eq!(averages.query_count, 50);
        assert_eq!(averages.query_time, 50);
        assert_eq!(averages.xact_time, 200);
        assert_eq!(averages.wait_time, 30);
        assert_eq!(averages.sent, 2000);
    }

    #[test]
    fn a_period_without_length_or_events_averages_to_nothing() {
        let figures = StatsFigures { query_time: 7, ..StatsFigures::default() };
        assert_eq!(figures.averages(&StatsFigures::default(), Duration::ZERO), StatsFigures::default());
        let averages = figures.averages(&StatsFigures::default(), Duration::from_secs(1));
        assert_eq!(averages.query_time, 0);
    }
}
