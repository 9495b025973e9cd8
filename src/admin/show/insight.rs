//! What PgBouncer does not have: SHOW REPLICAS, CACHE, CACHE TABLES, CACHE ADVICE, QUERIES, SLOW, PINS, ROUTE.

use crate::admin::{
    rows::{AdviceRow, CacheRow, CacheTableRow, PinRow, QueryRow, ReplicaRow, RouteRow, SlowRow},
    table::{
        Cell, Column,
        Type::{Int4, Int8, Numeric, Text},
        cell, decimal, int4,
    },
};

pub(super) const REPLICAS: &[Column] = &[
    ("database", Text),
    ("member", Text),
    ("host", Text),
    ("port", Int4),
    ("role", Text),
    ("state", Text),
    ("reason", Text),
    ("weight", Int4),
    ("lag_seconds", Numeric),
    ("lsn", Text),
    ("in_flight", Int4),
    ("connections", Int4),
    ("requests", Int8),
    ("errors", Int8),
];

pub(super) fn replicas(rows: &[ReplicaRow]) -> Vec<Vec<Cell>> {
    let row = |row: &ReplicaRow| {
        vec![
            cell(&row.database),
            cell(&row.member),
            cell(&row.host),
            cell(row.port),
            cell(row.role),
            cell(row.state),
            row.reason.clone(),
            int4(row.weight),
            row.lag_seconds.and_then(decimal),
            row.lsn.clone(),
            int4(row.in_flight),
            int4(row.connections),
            cell(row.requests),
            cell(row.errors),
        ]
    };
    rows.iter().map(row).collect()
}

pub(super) const CACHE: &[Column] = &[
    ("database", Text),
    ("state", Text),
    ("guarantee", Text),
    ("entries", Int8),
    ("bytes", Int8),
    ("max_bytes", Int8),
    ("hits", Int8),
    ("shared_hits", Int8),
    ("joined", Int8),
    ("misses", Int8),
    ("bypasses", Int8),
    ("hit_ratio", Numeric),
    ("would_hits", Int8),
    ("would_save_ms", Numeric),
    ("fills", Int8),
    ("void_fills", Int8),
    ("invalidations", Int8),
    ("evictions", Int8),
    ("shared_state", Text),
    ("shared_timeouts", Int8),
    ("shared_errors", Int8),
    ("shared_refused", Int8),
    ("direct_writes", Text),
    ("direct_age", Numeric),
    ("direct_gaps", Int8),
    ("peers", Int8),
    ("lease", Text),
    ("lease_left", Numeric),
    ("bus_ms", Numeric),
];

pub(super) fn cache(rows: &[CacheRow]) -> Vec<Vec<Cell>> {
    let row = |row: &CacheRow| {
        vec![
            cell(&row.database),
            cell(row.state),
            cell(&row.guarantee),
            cell(row.entries),
            cell(row.bytes),
            cell(row.max_bytes),
            cell(row.hits),
            cell(row.shared_hits),
            cell(row.joined),
            cell(row.misses),
            cell(row.bypasses),
            row.hit_ratio.and_then(decimal),
            cell(row.would_hits),
            decimal(row.would_save_ms),
            cell(row.fills),
            cell(row.void_fills),
            cell(row.invalidations),
            cell(row.evictions),
            cell(row.shared_state),
            cell(row.shared_timeouts),
            cell(row.shared_errors),
            cell(row.shared_refused),
            cell(row.direct_writes),
            row.direct_age.and_then(decimal),
            cell(row.direct_gaps),
            cell(row.peers),
            cell(row.lease),
            row.lease_left.and_then(decimal),
            row.bus_ms.and_then(decimal),
        ]
    };
    rows.iter().map(row).collect()
}

pub(super) const CACHE_TABLES: &[Column] = &[
    ("database", Text),
    ("relation", Text),
    ("invalidations", Int8),
    ("by_key", Int8),
    ("in_flight_writes", Int4),
    ("watermark", Text),
    ("ttl", Text),
];

pub(super) fn cache_tables(rows: &[CacheTableRow]) -> Vec<Vec<Cell>> {
    let row = |row: &CacheTableRow| {
        vec![
            cell(&row.database),
            cell(&row.relation),
            cell(row.invalidations),
            row.by_key.and_then(cell),
            int4(row.in_flight_writes),
            row.watermark.clone(),
            cell(&row.ttl),
        ]
    };
    rows.iter().map(row).collect()
}

pub(super) const CACHE_ADVICE: &[Column] = &[
    ("fingerprint", Text),
    ("database", Text),
    ("user", Text),
    ("advice", Text),
    ("reason", Text),
    ("calls", Int8),
    ("bypasses", Int8),
    ("hits", Int8),
    ("hit_ratio", Numeric),
    ("saved_ms", Numeric),
    ("unsure_hits", Int8),
    ("unsure_ms", Numeric),
    ("voided", Int8),
    ("server_ms", Numeric),
    ("query", Text),
];

pub(super) fn cache_advice(rows: &[AdviceRow]) -> Vec<Vec<Cell>> {
    let row = |row: &AdviceRow| {
        vec![
            cell(&row.fingerprint),
            cell(&row.database),
            cell(&row.user),
            cell(row.advice),
            cell(row.reason),
            cell(row.calls),
            cell(row.bypasses),
            cell(row.hits),
            row.hit_ratio.and_then(decimal),
            decimal(row.saved_ms),
            cell(row.unsure_hits),
            decimal(row.unsure_ms),
            cell(row.voided),
            decimal(row.server_ms),
            cell(&row.query),
        ]
    };
    rows.iter().map(row).collect()
}

pub(super) const QUERIES: &[Column] = &[
    ("fingerprint", Text),
    ("database", Text),
    ("user", Text),
    ("calls", Int8),
    ("errors", Int8),
    ("rows", Int8),
    ("bytes", Int8),
    ("total_ms", Numeric),
    ("mean_ms", Numeric),
    ("min_ms", Numeric),
    ("max_ms", Numeric),
    ("p50_ms", Numeric),
    ("p95_ms", Numeric),
    ("p99_ms", Numeric),
    ("queue_ms", Numeric),
    ("server_ms", Numeric),
    ("cache_hits", Int8),
    ("would_hits", Int8),
    ("would_save_ms", Numeric),
    ("bypasses", Int8),
    ("cache_reason", Text),
    ("replica_calls", Int8),
    ("would_replica", Int8),
    ("query", Text),
];

pub(super) fn queries(rows: &[QueryRow]) -> Vec<Vec<Cell>> {
    let row = |row: &QueryRow| {
        vec![
            cell(&row.fingerprint),
            cell(&row.database),
            cell(&row.user),
            cell(row.calls),
            cell(row.errors),
            cell(row.rows),
            cell(row.bytes),
            decimal(row.total_ms),
            decimal(row.mean_ms),
            decimal(row.min_ms),
            decimal(row.max_ms),
            decimal(row.p50_ms),
            decimal(row.p95_ms),
            decimal(row.p99_ms),
            decimal(row.queue_ms),
            decimal(row.server_ms),
            cell(row.cache_hits),
            cell(row.would_hits),
            decimal(row.would_save_ms),
            cell(row.bypasses),
            cell(row.cache_reason),
            cell(row.replica_calls),
            cell(row.would_replica),
            cell(&row.query),
        ]
    };
    rows.iter().map(row).collect()
}

pub(super) const SLOW: &[Column] = &[
    ("at", Text),
    ("database", Text),
    ("user", Text),
    ("fingerprint", Text),
    ("total_ms", Numeric),
    ("queue_ms", Numeric),
    ("server_ms", Numeric),
    ("rows", Int8),
    ("bytes", Int8),
    ("sqlstate", Text),
    ("route", Text),
    ("route_reason", Text),
    ("member", Text),
    ("cache", Text),
    ("cache_reason", Text),
    ("query", Text),
];

pub(super) fn slow(rows: &[SlowRow]) -> Vec<Vec<Cell>> {
    let row = |row: &SlowRow| {
        vec![
            cell(&row.at),
            cell(&row.database),
            cell(&row.user),
            cell(&row.fingerprint),
            decimal(row.total_ms),
            decimal(row.queue_ms),
            decimal(row.server_ms),
            cell(row.rows),
            cell(row.bytes),
            row.sqlstate.clone(),
            cell(row.route),
            cell(row.route_reason),
            row.member.clone(),
            cell(row.cache),
            cell(row.cache_reason),
            cell(&row.query),
        ]
    };
    rows.iter().map(row).collect()
}

pub(super) const PINS: &[Column] = &[
    ("database", Text),
    ("user", Text),
    ("client_id", Int4),
    ("client_addr", Text),
    ("server_id", Int4),
    ("remote_pid", Int4),
    ("reason", Text),
    ("age_seconds", Numeric),
];

pub(super) fn pins(rows: &[PinRow]) -> Vec<Vec<Cell>> {
    let row = |row: &PinRow| {
        vec![
            cell(&row.database),
            cell(&row.user),
            int4(row.client_id),
            cell(&row.client_addr),
            int4(row.server_id),
            int4(row.remote_pid.into()),
            cell(&row.reason),
            decimal(row.age_seconds),
        ]
    };
    rows.iter().map(row).collect()
}

pub(super) const ROUTE: &[Column] = &[
    ("statement", Text),
    ("access", Text),
    ("route", Text),
    ("member", Text),
    ("reason", Text),
    ("cache", Text),
    ("cache_reason", Text),
    ("relations", Text),
];

pub(super) fn routes(rows: &[RouteRow]) -> Vec<Vec<Cell>> {
    let row = |row: &RouteRow| {
        vec![
            cell(&row.statement),
            cell(row.access),
            cell(row.route),
            row.member.clone(),
            cell(row.reason),
            cell(row.cache),
            cell(row.cache_reason),
            cell(&row.relations),
        ]
    };
    rows.iter().map(row).collect()
}
