//! SHOW CONFIG, VERSION, STATE, MEM, DNS_HOSTS, DNS_ZONES and what drivers ask at login.

use crate::admin::{
    command::FAKED_PARAMETERS,
    rows::{ConfigRow, DnsHostRow, MemoryRow, PauseState},
    table::{
        Cell, Column,
        Type::{Int4, Int8, Text},
        cell, int4,
    },
};

pub(super) const CONFIG: &[Column] = &[("key", Text), ("value", Text), ("default", Text), ("changeable", Text)];

pub(super) fn config(rows: &[ConfigRow]) -> Vec<Vec<Cell>> {
    let row = |row: &ConfigRow| vec![cell(&row.key), row.value.clone(), row.default.clone(), yes_or_no(row.changeable)];
    rows.iter().map(row).collect()
}

pub(super) const VERSION: &[Column] = &[("version", Text)];

pub(super) fn version(version: &str) -> Vec<Vec<Cell>> {
    vec![vec![cell(version)]]
}

pub(super) const STATE: &[Column] = &[("key", Text), ("value", Text)];

pub(super) fn state(state: PauseState) -> Vec<Vec<Cell>> {
    [("active", PauseState::Active), ("paused", PauseState::Paused), ("suspended", PauseState::Suspended)]
        .map(|(key, shown)| vec![cell(key), yes_or_no(state == shown)])
        .to_vec()
}

pub(super) const MEM: &[Column] = &[("name", Text), ("size", Int4), ("used", Int4), ("free", Int4), ("memtotal", Int4)];

pub(super) fn memory(rows: &[MemoryRow]) -> Vec<Vec<Cell>> {
    let row =
        |row: &MemoryRow| vec![cell(&row.name), int4(row.size), int4(row.used), int4(row.free), int4(row.memtotal)];
    rows.iter().map(row).collect()
}

pub(super) const DNS_HOSTS: &[Column] = &[("hostname", Text), ("ttl", Int8), ("addrs", Text)];

pub(super) fn dns_hosts(rows: &[DnsHostRow]) -> Vec<Vec<Cell>> {
    rows.iter().map(|row| vec![cell(&row.hostname), cell(row.ttl), cell(&row.addrs)]).collect()
}

pub(super) const DNS_ZONES: &[Column] = &[("zonename", Text), ("serial", Int8), ("count", Int4)];

/// One column, named after the parameter.
const PARAMETERS: [[Column; 1]; FAKED_PARAMETERS.len()] = {
    let [a, b, c, d, e] = FAKED_PARAMETERS;
    [[(a.0, Text)], [(b.0, Text)], [(c.0, Text)], [(d.0, Text)], [(e.0, Text)]]
};

pub(super) fn parameter_columns(index: usize) -> &'static [Column] {
    PARAMETERS.get(index).map_or(&[], |columns| columns)
}

pub(super) fn parameter(index: usize) -> Vec<Vec<Cell>> {
    FAKED_PARAMETERS.get(index).map(|(_, value)| vec![cell(value)]).into_iter().collect()
}

fn yes_or_no(value: bool) -> Cell {
    cell(if value { "yes" } else { "no" })
}
