//! The families prometheus-community/pgbouncer_exporter exports, under its names and labels, so
//! that boards made for it go on working.

use super::exposition::{Exposition, Value};
use crate::telemetry::figures::{DatabaseRow, ListRow, PgbouncerView, PoolRow, StatsRow};

const MICROSECOND: f64 = 1e-6;

/// A family over the rows of one SHOW: name after the prefix, help, value.
type Column<Row> = (&'static str, &'static str, fn(&Row) -> f64);

pub(super) fn render(text: &mut Exposition, view: &dyn PgbouncerView) {
    text.family("pgbouncer_up", "gauge", "The pgbouncer scrape succeeded");
    text.sample("pgbouncer_up", &[], Value::Number(1.0));
    text.family("pgbouncer_version_info", "gauge", "The pgbouncer version info");
    text.sample("pgbouncer_version_info", &[("version", &view.version())], Value::Number(1.0));
    render_config(text, view);
    render_lists(text, &view.lists());
    render_rows(text, ("pgbouncer_pools", "gauge"), POOLS, &view.pools(), |pool| {
        vec![("database", pool.database.clone()), ("user", pool.user.clone())]
    });
    render_rows(text, ("pgbouncer_databases", "gauge"), DATABASES, &view.databases(), database_labels);
    let stats = view.stats();
    // The exporter read SHOW STATS up to 0.10 and SHOW STATS_TOTALS since 0.11; boards exist for both.
    for prefix in ["pgbouncer_stats", "pgbouncer_stats_totals"] {
        render_rows(text, (prefix, "counter"), STATS, &stats, |row| vec![("database", row.database.clone())]);
    }
}

fn render_rows<Row>(
    text: &mut Exposition,
    (prefix, kind): (&str, &str),
    columns: &[Column<Row>],
    rows: &[Row],
    labels: impl Fn(&Row) -> Vec<(&'static str, String)>,
) {
    for (name, help, value) in columns {
        if rows.is_empty() {
            continue;
        }
        let name = format!("{prefix}_{name}");
        text.family(&name, kind, help);
        for row in rows {
            let labels = labels(row);
            let labels: Vec<_> = labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
            text.sample(&name, &labels, Value::Number(value(row)));
        }
    }
}

fn database_labels(row: &DatabaseRow) -> Vec<(&'static str, String)> {
    vec![
        ("database", row.database.clone()),
        ("force_user", row.force_user.clone().unwrap_or_default()),
        ("host", row.host.clone().unwrap_or_default()),
        ("name", row.name.clone()),
        ("pool_mode", row.pool_mode.clone().unwrap_or_default()),
        ("port", row.port.to_string()),
    ]
}

fn render_config(text: &mut Exposition, view: &dyn PgbouncerView) {
    for (key, name, help) in CONFIG {
        if let Some(value) = view.config_number(key) {
            text.family(name, "gauge", help);
            text.sample(name, &[], Value::Number(value));
        }
    }
}

fn render_lists(text: &mut Exposition, lists: &[ListRow]) {
    for (list, name, help) in LISTS {
        if let Some(row) = lists.iter().find(|row| row.list == *list) {
            text.family(name, "gauge", help);
            text.sample(name, &[], Value::Count(row.items));
        }
    }
}

const CONFIG: &[(&str, &str, &str)] = &[
    ("max_client_conn", "pgbouncer_config_max_client_connections", "Config maximum number of client connections"),
    (
        "max_user_connections",
        "pgbouncer_config_max_user_connections",
        "Config maximum number of server connections per user",
    ),
];

const LISTS: &[(&str, &str, &str)] = &[
    ("databases", "pgbouncer_databases", "Count of databases"),
    ("users", "pgbouncer_users", "Count of users"),
    ("pools", "pgbouncer_pools", "Count of pools"),
    ("free_clients", "pgbouncer_free_clients", "Count of free clients"),
    ("used_clients", "pgbouncer_used_clients", "Count of used clients"),
    ("login_clients", "pgbouncer_login_clients", "Count of clients in login state"),
    ("free_servers", "pgbouncer_free_servers", "Count of free servers"),
    ("used_servers", "pgbouncer_used_servers", "Count of used servers"),
    ("dns_names", "pgbouncer_cached_dns_names", "Count of DNS names in the cache"),
    ("dns_zones", "pgbouncer_cached_dns_zones", "Count of DNS zones in the cache"),
    ("dns_queries", "pgbouncer_in_flight_dns_queries", "Count of in-flight DNS queries"),
];

#[rustfmt::skip]
const POOLS: &[Column<PoolRow>] = &[
    ("client_active_connections", "Client connections linked to server connection and able to process queries, shown as connection", |p| p.cl_active as f64),
    ("client_active_cancel_connections", "Client connections that have forwarded query cancellations to the server and are waiting for the server response", |p| p.cl_active_cancel_req as f64),
    ("client_waiting_connections", "Client connections waiting on a server connection, shown as connection", |p| p.cl_waiting as f64),
    ("client_waiting_cancel_connections", "Client connections that have not forwarded query cancellations to the server yet", |p| p.cl_waiting_cancel_req as f64),
    ("server_active_connections", "Server connections linked to a client connection, shown as connection", |p| p.sv_active as f64),
    ("server_active_cancel_connections", "Server connections that are currently forwarding a cancel request.", |p| p.sv_active_cancel as f64),
    ("server_being_canceled_connections", "Servers that normally could become idle but are waiting to do so until all in-flight cancel requests have completed that were sent to cancel a query on this server.", |p| p.sv_being_canceled as f64),
    ("server_idle_connections", "Server connections idle and ready for a client query, shown as connection", |p| p.sv_idle as f64),
    ("server_used_connections", "Server connections idle more than server_check_delay, needing server_check_query, shown as connection", |p| p.sv_used as f64),
    ("server_testing_connections", "Server connections currently running either server_reset_query or server_check_query, shown as connection", |p| p.sv_tested as f64),
    ("server_login_connections", "Server connections currently in the process of logging in, shown as connection", |p| p.sv_login as f64),
    ("client_maxwait_seconds", "Age of oldest unserved client connection, shown as second", |p| (p.maxwait_us / 1_000_000) as f64),
];

#[rustfmt::skip]
const DATABASES: &[Column<DatabaseRow>] = &[
    ("pool_size", "Maximum number of server connections", |d| d.pool_size as f64),
    ("reserve_pool", "Maximum number of additional connections for this database", |d| d.reserve_pool_size as f64),
    ("max_connections", "Maximum number of allowed connections for this database", |d| d.max_connections as f64),
    ("current_connections", "Current number of connections for this database", |d| d.current_connections as f64),
    ("paused", "1 if this database is currently paused, else 0", |d| f64::from(u8::from(d.paused))),
    ("disabled", "1 if this database is currently disabled, else 0", |d| f64::from(u8::from(d.disabled))),
];

#[rustfmt::skip]
const STATS: &[Column<StatsRow>] = &[
    ("queries_pooled_total", "Total number of SQL queries pooled", |s| s.totals.query_count as f64),
    ("queries_duration_seconds_total", "Total number of seconds spent by pgbouncer when actively connected to PostgreSQL, executing queries", |s| s.totals.query_time as f64 * MICROSECOND),
    ("received_bytes_total", "Total volume in bytes of network traffic received by pgbouncer, shown as bytes", |s| s.totals.received as f64),
    ("sent_bytes_total", "Total volume in bytes of network traffic sent by pgbouncer, shown as bytes", |s| s.totals.sent as f64),
    ("client_wait_seconds_total", "Time spent by clients waiting for a server in seconds", |s| s.totals.wait_time as f64 * MICROSECOND),
    ("sql_transactions_pooled_total", "Total number of SQL transactions pooled", |s| s.totals.xact_count as f64),
    ("server_in_transaction_seconds_total", "Total number of seconds spent by pgbouncer when connected to PostgreSQL in a transaction, either idle in transaction or executing queries", |s| s.totals.xact_time as f64 * MICROSECOND),
    ("client_parses_total", "Total number of prepared statement Parse messages received from clients", |s| s.totals.client_parse_count as f64),
    ("server_parses_total", "Total number of prepared statement Parse messages sent by pgbouncer to PostgreSQL", |s| s.totals.server_parse_count as f64),
    ("binds_total", "Total number of prepared statements readied for execution with a Bind message", |s| s.totals.bind_count as f64),
];
