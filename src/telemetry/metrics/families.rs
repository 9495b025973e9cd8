//! Every family of ours, with its help text. Base units, `_total` on counters.

use metrics::{KeyName, Recorder};
use metrics_exporter_prometheus::PrometheusRecorder;

/// What Prometheus is told about a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Seconds in explicit buckets.
    Histogram,
}

/// One family: its name, its kind and the sentence for `# HELP`.
#[derive(Debug)]
pub struct Family {
    /// As Prometheus sees it.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// One sentence.
    pub help: &'static str,
}

impl Family {
    pub(super) fn describe(&self, recorder: &PrometheusRecorder) {
        let name = KeyName::from_const_str(self.name);
        match self.kind {
            Kind::Counter => recorder.describe_counter(name, None, self.help.into()),
            Kind::Gauge => recorder.describe_gauge(name, None, self.help.into()),
            Kind::Histogram => {}
        }
    }
}

macro_rules! families {
    ($($constant:ident: $kind:ident $name:literal, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $constant: Family =
                Family { name: $name, kind: Kind::$kind, help: $help };
        )*
        /// In the order of this file.
        pub static ALL: &[&Family] = &[$(&$constant),*];
    };
}

families! {
    BUILD_INFO: Gauge "pgweir_build_info", "1, labelled with the version.";
    START_TIME: Gauge "pgweir_start_time_seconds", "When the process started, seconds since 1970.";
    SERIES_REFUSED: Counter "pgweir_metrics_series_refused_total", "Series not registered because the limit of series is reached.";

    REQUESTS: Counter "pgweir_requests_total", "Requests by where they ran and why.";
    REQUEST_ERRORS: Counter "pgweir_request_errors_total", "Requests that ended in an error, by SQLSTATE.";
    REQUEST_ROWS: Counter "pgweir_request_rows_total", "Rows sent to clients.";
    REQUEST_BYTES: Counter "pgweir_request_bytes_total", "Bytes sent to clients.";
    REQUEST_SECONDS: Histogram "pgweir_request_seconds", "From a request's first byte to the last byte of its answer.";
    REQUEST_QUEUE_SECONDS: Histogram "pgweir_request_queue_seconds", "Time a request waited for a server connection.";
    REQUEST_SERVER_SECONDS: Histogram "pgweir_request_server_seconds", "Time a request spent on a server connection.";
    UNKNOWN_HINTS: Counter "pgweir_hints_unknown_total", "Hints that were not understood and therefore ignored.";

    CLIENT_CONNECTIONS: Counter "pgweir_client_connections_total", "Accepted client connections.";
    CLIENT_LOGINS_REFUSED: Counter "pgweir_client_logins_refused_total", "Clients turned away before or during login, by reason.";
    CLIENT_DISCONNECTS: Counter "pgweir_client_disconnects_total", "Sessions of clients that ended, by reason.";
    CLIENTS: Gauge "pgweir_clients", "Connected clients.";
    CANCEL_REQUESTS: Counter "pgweir_cancel_requests_total", "Cancel requests, by what became of them.";

    SERVER_CONNECTIONS_OPENED: Counter "pgweir_server_connections_opened_total", "Server connections opened, by member.";
    SERVER_CONNECTIONS_CLOSED: Counter "pgweir_server_connections_closed_total", "Server connections closed, by reason.";
    SERVER_CONNECT_ERRORS: Counter "pgweir_server_connect_errors_total", "Server connections that could not be opened, by member.";
    QUERY_WAIT_TIMEOUTS: Counter "pgweir_query_wait_timeouts_total", "Clients disconnected because no server connection became free.";

    PINS: Counter "pgweir_pins_total", "Server connections pinned to a client, by reason.";
    PINNED: Gauge "pgweir_pinned_servers", "Server connections pinned to a client.";
    SELF_HEALS: Counter "pgweir_self_heals_total", "Statements run again on another member, by SQLSTATE or reason.";
    READ_ONLY_ESCAPES: Counter "pgweir_read_only_escapes_total", "Transactions on a replica that met a statement needing the primary, by what happened.";

    REPLICA_UP: Gauge "pgweir_member_up", "1 if the member may serve statements.";
    REPLICA_LAG: Gauge "pgweir_replica_lag_seconds", "How far a replica is behind; NaN while unknown.";
    REPLICA_IN_FLIGHT: Gauge "pgweir_member_in_flight", "Requests running on the member.";
    MEMBER_REQUESTS: Counter "pgweir_member_requests_total", "Requests sent to the member.";
    ROLE_CHANGES: Counter "pgweir_role_changes_total", "Times another member became the primary.";
    PROBE_ERRORS: Counter "pgweir_probe_errors_total", "Probes of a member that failed.";

    CACHE_REQUESTS: Counter "pgweir_cache_requests_total", "Requests by what the cache did and why.";
    CACHE_MISSES: Counter "pgweir_cache_misses_total", "Reads that the cache was asked for and had no answer to, by why.";
    CACHE_WOULD_SAVE: Counter "pgweir_cache_would_save_seconds_total", "Server time of reads that would have been answered, were the cache not only observing.";
    CACHE_FILLS: Counter "pgweir_cache_fills_total", "Answers stored or not stored, by outcome.";
    CACHE_INVALIDATIONS: Counter "pgweir_cache_invalidations_total", "Times answers were made void, by what has brought it about.";
    BUS_PEERS: Gauge "pgweir_bus_peers", "Other proxies of the database that this one knows.";
    BUS_ROUND_TRIP: Gauge "pgweir_bus_round_trip_seconds", "How long another proxy took for its last answer; NaN before the first.";
    BUS_MESSAGES: Counter "pgweir_bus_messages_total", "What proxies tell each other of writes, by direction.";
    BUS_EVENTS: Counter "pgweir_bus_events_total", "Trouble among proxies: something missed, one not waited for any more, one gone without a word, stamps taken anew.";
    WAL_STREAM_LAG: Gauge "pgweir_wal_stream_lag_seconds", "Age of the oldest position of the primary's log that the stream has not reached.";
    WAL_HORIZON_AGE: Gauge "pgweir_wal_horizon_age_seconds", "Time since everything was known that could be seen on the primary; NaN while nothing is.";
    WAL_GAPS: Counter "pgweir_wal_stream_gaps_total", "Times the stream of writes that bypass the proxy was lost, and with it all answers.";
    WAL_STREAM_FAILURES: Counter "pgweir_wal_stream_failures_total", "Streams that ended or did not begin, by reason.";
    WAL_WAITING: Gauge "pgweir_wal_transactions_waiting", "Transactions that the stream has told of and nobody can see yet.";
    CACHE_EVICTIONS: Counter "pgweir_cache_evictions_total", "Answers that left the cache, by cause.";
    CACHE_ENTRIES: Gauge "pgweir_cache_entries", "Answers in the cache.";
    CACHE_BYTES: Gauge "pgweir_cache_bytes", "Bytes in the cache.";
    CACHE_CAPACITY: Gauge "pgweir_cache_capacity_bytes", "Bytes the cache may hold.";
    CACHE_SHARED_READS: Counter "pgweir_cache_shared_reads_total", "Questions to Redis, by outcome.";
    CACHE_SHARED_WRITES: Counter "pgweir_cache_shared_writes_total", "Answers offered to Redis, by outcome.";
    CACHE_SHARED_REFUSED: Counter "pgweir_cache_shared_refused_total", "Values in Redis that were no answers, by what was wrong with them.";
    CACHE_SHARED_OPENINGS: Counter "pgweir_cache_shared_breaker_opened_total", "Times Redis was left alone, by reason.";
    CACHE_SHARED_UP: Gauge "pgweir_cache_shared_up", "1 if Redis is asked, 0 while it is left alone.";
    CACHE_CROSS_CHECKS: Counter "pgweir_cache_cross_checks_total", "Statements whose meaning was compared with what the primary makes of them, by outcome.";
    CATALOG_RELOADS: Counter "pgweir_catalog_reloads_total", "Catalog snapshots loaded, by outcome.";

    TABLE_ENTRIES: Gauge "pgweir_table_entries", "Entries of each table that is kept in memory, by table.";
    TABLE_LIMIT: Gauge "pgweir_table_limit", "Entries that a table may have, by table.";
    STATEMENT_MEMO: Gauge "pgweir_statement_memo_entries", "Analysed statements remembered.";
    DIGESTS: Gauge "pgweir_query_shapes", "Query shapes with statistics.";
    DIGEST_EVICTIONS: Counter "pgweir_query_shapes_evicted_total", "Query shapes dropped because the table was full.";
    SLOW_QUERIES: Counter "pgweir_slow_queries_total", "Requests over slow_query_threshold.";
    SLOW_LOG_DROPPED: Counter "pgweir_slow_log_dropped_total", "Slow requests not written because the writer was behind.";
    SLOW_LOG_ERRORS: Counter "pgweir_slow_log_errors_total", "Lines of the slow log that could not be written.";
    ACCOUNTS_REFUSED: Counter "pgweir_accounts_overflowed_total", "Users counted together because too many were seen.";
}
