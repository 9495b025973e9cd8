//! SHOW CLIENTS, SERVERS, SOCKETS and ACTIVE_SOCKETS.

use crate::{
    admin::{
        rows::ConnectionRow,
        state::ConsoleState,
        table::{
            Cell, Column,
            Type::{Int4, Text},
            cell, flag, int4,
        },
    },
    telemetry::timestamp::Utc,
};

pub(super) const CONNECTIONS: &[Column] = &[
    ("type", Text),
    ("user", Text),
    ("database", Text),
    ("replication", Text),
    ("state", Text),
    ("addr", Text),
    ("port", Int4),
    ("local_addr", Text),
    ("local_port", Int4),
    ("connect_time", Text),
    ("request_time", Text),
    ("wait", Int4),
    ("wait_us", Int4),
    ("close_needed", Int4),
    ("ptr", Text),
    ("link", Text),
    ("remote_pid", Int4),
    ("tls", Text),
    ("application_name", Text),
    ("prepared_statements", Int4),
    ("id", Int4),
];

pub(super) const SOCKETS: &[Column] = &[
    ("type", Text),
    ("user", Text),
    ("database", Text),
    ("replication", Text),
    ("state", Text),
    ("addr", Text),
    ("port", Int4),
    ("local_addr", Text),
    ("local_port", Int4),
    ("connect_time", Text),
    ("request_time", Text),
    ("wait", Int4),
    ("wait_us", Int4),
    ("close_needed", Int4),
    ("ptr", Text),
    ("link", Text),
    ("remote_pid", Int4),
    ("tls", Text),
    ("application_name", Text),
    ("prepared_statements", Int4),
    ("id", Int4),
    ("recv_pos", Int4),
    ("pkt_pos", Int4),
    ("pkt_remain", Int4),
    ("send_pos", Int4),
    ("send_remain", Int4),
    ("pkt_avail", Int4),
    ("send_avail", Int4),
];

const MICROS: u64 = 1_000_000;

pub(super) fn clients(rows: &[ConnectionRow]) -> Vec<Vec<Cell>> {
    rows.iter().map(|row| connection("C", row.state, row)).collect()
}

pub(super) fn servers(rows: &[ConnectionRow]) -> Vec<Vec<Cell>> {
    rows.iter().map(|row| connection("S", row.state, row)).collect()
}

/// Everything connected; `active`: only what has bytes in its buffers.
pub(super) fn sockets(state: &dyn ConsoleState, active: bool) -> Vec<Vec<Cell>> {
    let clients = state.clients().into_iter().map(|row| ("C", client_state(row.state), row));
    let servers = state.servers().into_iter().map(|row| ("S", server_state(row.state), row));
    let logins = state.logins().into_iter().map(|row| ("C", Some("cl_login"), row));
    clients
        .chain(servers)
        .chain(logins)
        .filter(|(_, _, row)| !active || row.buffers.pkt_avail + row.buffers.send_avail > 0)
        .filter_map(|(kind, state, row)| Some(socket(kind, state?, &row)))
        .collect()
}

/// SHOW SOCKETS has no cancel requests.
fn client_state(state: &str) -> Option<&'static str> {
    match state {
        "active" | "idle" => Some("cl_active"),
        "waiting" => Some("cl_waiting"),
        _ => None,
    }
}

fn server_state(state: &str) -> Option<&'static str> {
    match state {
        "active" => Some("sv_active"),
        "idle" => Some("sv_idle"),
        "used" => Some("sv_used"),
        "tested" => Some("sv_tested"),
        "new" => Some("sv_login"),
        _ => None,
    }
}

fn socket(kind: &str, state: &str, row: &ConnectionRow) -> Vec<Cell> {
    let b = &row.buffers;
    let buffers = [b.recv_pos, b.pkt_pos, b.pkt_remain, b.send_pos, b.send_remain, b.pkt_avail, b.send_avail];
    let mut cells = connection(kind, state, row);
    cells.extend(buffers.map(int4));
    cells
}

fn connection(kind: &str, state: &str, row: &ConnectionRow) -> Vec<Cell> {
    vec![
        cell(kind),
        cell(row.user.as_deref().unwrap_or("(nouser)")),
        cell(row.database.as_deref().unwrap_or("(nodb)")),
        cell(row.replication),
        cell(state),
        cell(&row.addr),
        cell(row.port),
        cell(&row.local_addr),
        cell(row.local_port),
        cell(Utc::new(row.connect_time).console()),
        cell(Utc::new(row.request_time).console()),
        int4(row.wait_us / MICROS),
        int4(row.wait_us % MICROS),
        flag(row.close_needed),
        cell(format_args!("{:#x}", row.ptr)),
        cell(row.link.map(|link| format!("{link:#x}")).unwrap_or_default()),
        int4(row.remote_pid.into()),
        cell(&row.tls),
        cell(&row.application_name),
        int4(row.prepared_statements),
        int4(row.id),
    ]
}
