//! SHOW STATS, STATS_TOTALS, STATS_AVERAGES and TOTALS.

use crate::{
    admin::{
        rows::{StatsFigures, StatsRow},
        table::{
            Cell, Column,
            Type::{Numeric, Text},
            cell,
        },
    },
    config::StatsColumns,
    telemetry::figures::STATS_FIGURES,
};

const STATS: [Column; 25] = [
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

const STATS_WITHOUT_LOGINS: [Column; 23] = without(STATS, 12);
const TOTALS_WITHOUT_LOGINS: [Column; 12] = without(STATS_TOTALS, 12);
const AVERAGES_WITHOUT_LOGINS: [Column; 12] = without(STATS_AVERAGES, 12);

/// Leaves out column `first`, and what does not fit any more.
#[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn without<const ALL: usize, const LEFT: usize>(columns: [Column; ALL], first: usize) -> [Column; LEFT] {
    let mut left = [("", Text); LEFT];
    let mut at = 0;
    while at < LEFT {
        left[at] = columns[if at < first { at } else { at + 1 }];
        at += 1;
    }
    left
}

/// Those that client_login_count, the last one, belongs to or not.
fn figures(all: &StatsFigures, layout: StatsColumns) -> impl Iterator<Item = u64> + use<> {
    let count = match layout {
        StatsColumns::WithLogins => STATS_FIGURES,
        StatsColumns::WithoutLogins => STATS_FIGURES - 1,
    };
    all.values().into_iter().take(count)
}

pub(super) fn stats_columns(layout: StatsColumns) -> &'static [Column] {
    match layout {
        StatsColumns::WithLogins => &STATS,
        StatsColumns::WithoutLogins => &STATS_WITHOUT_LOGINS,
    }
}

pub(super) fn totals_columns(layout: StatsColumns) -> &'static [Column] {
    match layout {
        StatsColumns::WithLogins => &STATS_TOTALS,
        StatsColumns::WithoutLogins => &TOTALS_WITHOUT_LOGINS,
    }
}

pub(super) fn averages_columns(layout: StatsColumns) -> &'static [Column] {
    match layout {
        StatsColumns::WithLogins => &STATS_AVERAGES,
        StatsColumns::WithoutLogins => &AVERAGES_WITHOUT_LOGINS,
    }
}

pub(super) fn stats(rows: &[StatsRow], layout: StatsColumns) -> Vec<Vec<Cell>> {
    let row = |row: &StatsRow| {
        let figures = figures(&row.totals, layout).chain(figures(&row.averages, layout));
        [cell(&row.database)].into_iter().chain(figures.map(cell)).collect()
    };
    rows.iter().map(row).collect()
}

const STATS_TOTALS: [Column; 13] = [
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

pub(super) fn stats_totals(rows: &[StatsRow], layout: StatsColumns) -> Vec<Vec<Cell>> {
    rows.iter().map(|row| named(&row.database, &row.totals, layout)).collect()
}

const STATS_AVERAGES: [Column; 13] = [
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

pub(super) fn stats_averages(rows: &[StatsRow], layout: StatsColumns) -> Vec<Vec<Cell>> {
    rows.iter().map(|row| named(&row.database, &row.averages, layout)).collect()
}

fn named(database: &str, all: &StatsFigures, layout: StatsColumns) -> Vec<Cell> {
    [cell(database)].into_iter().chain(figures(all, layout).map(cell)).collect()
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
pub(super) fn totals(rows: &[StatsRow], layout: StatsColumns) -> Vec<Vec<Cell>> {
    let totals = rows.iter().fold(StatsFigures::default(), |sum, row| sum.plus(&row.totals));
    let averages = averages(rows);
    let lines = |prefix: &'static str, all: StatsFigures| {
        let named = TOTALS_NAMES.into_iter().zip(figures(&all, layout));
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
