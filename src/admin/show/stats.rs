//! SHOW STATS, STATS_TOTALS, STATS_AVERAGES and TOTALS.

use crate::admin::{
    rows::{StatsFigures, StatsRow},
    table::{
        Cell, Column,
        Type::{Numeric, Text},
        cell,
    },
};

pub(super) const STATS: &[Column] = &[
    ("database", Text),
    ("total_server_assignment_count", Numeric),
    ("total_xact_count", Numeric),
    ("total_query_count", Numeric),
    ("total_received", Numeric),
    ("total_sent", Numeric),
    ("total_xact_time", Numeric),
    ("total_query_time", Numeric),
    ("total_wait_time", Numeric),
    ("total_client_parse_count", Numeric),
    ("total_server_parse_count", Numeric),
    ("total_bind_count", Numeric),
    ("total_client_login_count", Numeric),
    ("avg_server_assignment_count", Numeric),
    ("avg_xact_count", Numeric),
    ("avg_query_count", Numeric),
    ("avg_recv", Numeric),
    ("avg_sent", Numeric),
    ("avg_xact_time", Numeric),
    ("avg_query_time", Numeric),
    ("avg_wait_time", Numeric),
    ("avg_client_parse_count", Numeric),
    ("avg_server_parse_count", Numeric),
    ("avg_bind_count", Numeric),
    ("avg_client_login_count", Numeric),
];

pub(super) fn stats(rows: &[StatsRow]) -> Vec<Vec<Cell>> {
    let row = |row: &StatsRow| {
        let figures = row.totals.values().into_iter().chain(row.averages.values());
        [cell(&row.database)].into_iter().chain(figures.map(cell)).collect()
    };
    rows.iter().map(row).collect()
}

pub(super) const STATS_TOTALS: &[Column] = &[
    ("database", Text),
    ("server_assignment_count", Numeric),
    ("xact_count", Numeric),
    ("query_count", Numeric),
    ("bytes_received", Numeric),
    ("bytes_sent", Numeric),
    ("xact_time", Numeric),
    ("query_time", Numeric),
    ("wait_time", Numeric),
    ("client_parse_count", Numeric),
    ("server_parse_count", Numeric),
    ("bind_count", Numeric),
    ("client_login_count", Numeric),
];

pub(super) fn stats_totals(rows: &[StatsRow]) -> Vec<Vec<Cell>> {
    rows.iter().map(|row| named(&row.database, &row.totals)).collect()
}

pub(super) const STATS_AVERAGES: &[Column] = &[
    ("database", Text),
    ("server_assignment_count", Numeric),
    ("xact_count", Numeric),
    ("query_count", Numeric),
    ("bytes_received", Numeric),
    ("bytes_sent", Numeric),
    ("xact_time", Numeric),
    ("query_time", Numeric),
    ("wait_time", Numeric),
    ("avg_client_parse_count", Numeric),
    ("avg_server_parse_count", Numeric),
    ("avg_bind_count", Numeric),
    ("avg_client_login_count", Numeric),
];

pub(super) fn stats_averages(rows: &[StatsRow]) -> Vec<Vec<Cell>> {
    rows.iter().map(|row| named(&row.database, &row.averages)).collect()
}

fn named(database: &str, figures: &StatsFigures) -> Vec<Cell> {
    [cell(database)].into_iter().chain(figures.values().map(cell)).collect()
}

pub(super) const TOTALS: &[Column] = &[("name", Text), ("value", Numeric)];

const TOTALS_NAMES: [&str; 12] = [
    "server_assignment_count",
    "xact_count",
    "query_count",
    "client_bytes",
    "server_bytes",
    "xact_time",
    "query_time",
    "wait_time",
    "ps_client_parse_count",
    "ps_server_parse_count",
    "ps_bind_count",
    "client_login_count",
];

/// Over all databases. A time's average over all of them is weighed by their events per second.
pub(super) fn totals(rows: &[StatsRow]) -> Vec<Vec<Cell>> {
    let totals = rows.iter().fold(StatsFigures::default(), |sum, row| sum.plus(&row.totals));
    let averages = averages(rows);
    let lines = |prefix: &'static str, figures: StatsFigures| {
        let named = TOTALS_NAMES.into_iter().zip(figures.values());
        named.map(move |(name, value)| vec![cell(format_args!("{prefix}_{name}")), cell(value)])
    };
    lines("total", totals).chain(lines("avg", averages)).collect()
}

fn averages(rows: &[StatsRow]) -> StatsFigures {
    let sum = rows.iter().fold(StatsFigures::default(), |sum, row| sum.plus(&row.averages));
    let weighed = |time: fn(&StatsFigures) -> u64, events: fn(&StatsFigures) -> u64| {
        let spent = rows.iter().map(|row| time(&row.averages) * events(&row.averages));
        spent.sum::<u64>().checked_div(events(&sum)).unwrap_or(0)
    };
    StatsFigures {
        xact_time: weighed(|f| f.xact_time, |f| f.xact_count),
        query_time: weighed(|f| f.query_time, |f| f.query_count),
        wait_time: weighed(|f| f.wait_time, |f| f.server_assignment_count),
        ..sum
    }
}
