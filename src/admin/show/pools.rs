//! SHOW POOLS, DATABASES, LISTS, USERS, PEERS and PEER_POOLS.

use crate::admin::{
    rows::{DatabaseRow, ListRow, PeerPoolRow, PeerRow, PoolRow, UserRow},
    table::{
        Cell, Column,
        Type::{Int4, Text},
        cell, flag, int4,
    },
};

const MICROS: u64 = 1_000_000;

pub(super) const POOLS: &[Column] = &[
    ("database", Text),
    ("user", Text),
    ("cl_active", Int4),
    ("cl_waiting", Int4),
    ("cl_active_cancel_req", Int4),
    ("cl_waiting_cancel_req", Int4),
    ("sv_active", Int4),
    ("sv_active_cancel", Int4),
    ("sv_being_canceled", Int4),
    ("sv_idle", Int4),
    ("sv_used", Int4),
    ("sv_tested", Int4),
    ("sv_login", Int4),
    ("maxwait", Int4),
    ("maxwait_us", Int4),
    ("pool_mode", Text),
    ("load_balance_hosts", Text),
];

pub(super) fn pools(rows: &[PoolRow]) -> Vec<Vec<Cell>> {
    let row = |row: &PoolRow| {
        vec![
            cell(&row.database),
            cell(&row.user),
            int4(row.cl_active),
            int4(row.cl_waiting),
            int4(row.cl_active_cancel_req),
            int4(row.cl_waiting_cancel_req),
            int4(row.sv_active),
            int4(row.sv_active_cancel),
            int4(row.sv_being_canceled),
            int4(row.sv_idle),
            int4(row.sv_used),
            int4(row.sv_tested),
            int4(row.sv_login),
            int4(row.maxwait_us / MICROS),
            int4(row.maxwait_us % MICROS),
            cell(&row.pool_mode),
            row.load_balance_hosts.clone(),
        ]
    };
    rows.iter().map(row).collect()
}

pub(super) const DATABASES: &[Column] = &[
    ("name", Text),
    ("host", Text),
    ("port", Int4),
    ("database", Text),
    ("force_user", Text),
    ("pool_size", Int4),
    ("min_pool_size", Int4),
    ("reserve_pool_size", Int4),
    ("server_lifetime", Int4),
    ("pool_mode", Text),
    ("load_balance_hosts", Text),
    ("max_connections", Int4),
    ("current_connections", Int4),
    ("max_client_connections", Int4),
    ("current_client_connections", Int4),
    ("paused", Int4),
    ("disabled", Int4),
];

pub(super) fn databases(rows: &[DatabaseRow]) -> Vec<Vec<Cell>> {
    let row = |row: &DatabaseRow| {
        vec![
            cell(&row.name),
            row.host.clone(),
            cell(row.port),
            cell(&row.database),
            row.force_user.clone(),
            int4(row.pool_size),
            int4(row.min_pool_size),
            int4(row.reserve_pool_size),
            int4(row.server_lifetime),
            row.pool_mode.clone(),
            row.load_balance_hosts.clone(),
            int4(row.max_connections),
            int4(row.current_connections),
            int4(row.max_client_connections),
            int4(row.current_client_connections),
            flag(row.paused),
            flag(row.disabled),
        ]
    };
    rows.iter().map(row).collect()
}

pub(super) const LISTS: &[Column] = &[("list", Text), ("items", Int4)];

pub(super) fn lists(rows: &[ListRow]) -> Vec<Vec<Cell>> {
    rows.iter().map(|row| vec![cell(row.list), int4(row.items)]).collect()
}

pub(super) const USERS: &[Column] = &[
    ("name", Text),
    ("pool_size", Text),
    ("reserve_pool_size", Text),
    ("pool_mode", Text),
    ("max_user_connections", Int4),
    ("current_connections", Int4),
    ("max_user_client_connections", Int4),
    ("current_client_connections", Int4),
];

pub(super) fn users(rows: &[UserRow]) -> Vec<Vec<Cell>> {
    // Text, padded or empty: PgBouncer's way.
    let size = |size: Option<u64>| cell(size.map(|size| format!("{size:9}")).unwrap_or_default());
    let row = |row: &UserRow| {
        vec![
            cell(&row.name),
            size(row.pool_size),
            size(row.reserve_pool_size),
            row.pool_mode.clone(),
            int4(row.max_user_connections),
            int4(row.current_connections),
            int4(row.max_user_client_connections),
            int4(row.current_client_connections),
        ]
    };
    rows.iter().map(row).collect()
}

pub(super) const PEERS: &[Column] = &[("peer_id", Int4), ("host", Text), ("port", Int4), ("pool_size", Int4)];

pub(super) fn peers(rows: &[PeerRow]) -> Vec<Vec<Cell>> {
    let row = |row: &PeerRow| vec![int4(row.peer_id), row.host.clone(), cell(row.port), int4(row.pool_size)];
    rows.iter().map(row).collect()
}

pub(super) const PEER_POOLS: &[Column] = &[
    ("peer_id", Int4),
    ("cl_active_cancel_req", Int4),
    ("cl_waiting_cancel_req", Int4),
    ("sv_active_cancel", Int4),
    ("sv_login", Int4),
];

pub(super) fn peer_pools(rows: &[PeerPoolRow]) -> Vec<Vec<Cell>> {
    let row = |row: &PeerPoolRow| {
        vec![
            int4(row.peer_id),
            int4(row.cl_active_cancel_req),
            int4(row.cl_waiting_cancel_req),
            int4(row.sv_active_cancel),
            int4(row.sv_login),
        ]
    };
    rows.iter().map(row).collect()
}
