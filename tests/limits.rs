//! Limits and timeouts, exact for the whole process: counted in `pg_stat_activity`, with several workers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails loudly"
)]

mod support;

#[path = "limits/clients.rs"]
mod clients;
#[path = "limits/dns.rs"]
mod dns;
#[path = "limits/entries.rs"]
mod entries;
#[path = "limits/failing.rs"]
mod failing;
#[path = "limits/pools.rs"]
mod pools;
#[path = "limits/servers.rs"]
mod servers;

#[path = "limits/timeouts.rs"]
mod timeouts;

use support::{Proxy, RawClient, cluster};

/// Backends of the clients' users in a database, as PostgreSQL counts them.
fn backends(database: &str) -> Vec<String> {
    let mut session = cluster().primary.session("postgres");
    let rows = session.rows(&format!(
        "select usename from pg_stat_activity where datname = '{database}' and usename in ('app', 'stranger')"
    ));
    rows.into_iter().map(|row| row[0].clone()).collect()
}

/// A session of any user.
#[track_caller]
fn session_of(proxy: &Proxy, user: &str, database: &str) -> RawClient {
    RawClient::session(&proxy.address(), user, database)
}

fn waiting(proxy: &Proxy, database: &str) -> i64 {
    let rows = proxy.show("POOLS");
    rows.select("database", database, "cl_waiting").iter().map(|number| number.parse::<i64>().unwrap()).sum()
}

/// The error of the `ErrorResponse` that a client gets last: code and text.
fn last_words(client: &mut RawClient) -> (String, String) {
    let frames = client.until_closed();
    let error = frames.iter().rev().find(|frame| frame.tag == b'E').unwrap_or_else(|| panic!("{frames:?}"));
    (error.field(b'C').unwrap(), error.field(b'M').unwrap())
}
