//! The console as operators, their scripts and their tools use it: commands, tables, statistics.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails loudly"
)]

#[path = "../support/mod.rs"]
mod support;

mod control;
mod metrics;
mod reload;
mod show;
mod states;
mod statistics;
mod suspend;
mod tools;

use support::{Proxy, RawClient, cluster, raw_client::Reply};

/// pgweir in front of one database, with `pool_size` server connections.
fn pooled(pool_size: u32) -> (Proxy, String) {
    let database = cluster().database();
    (Proxy::of(cluster(), &database).set("default_pool_size", pool_size).start(), database)
}

/// The error of a command: SQLSTATE and text. It has no more fields than PgBouncer's, and the session lives on.
#[track_caller]
fn refused(console: &mut RawClient, command: &str) -> (String, String) {
    refused_reply(&console.query(command))
}

/// The error of a reply.
#[track_caller]
fn refused_reply(reply: &Reply) -> (String, String) {
    let error = reply.error().unwrap_or_else(|| panic!("{reply:?}"));
    assert_eq!(error.field(b'S').as_deref(), Some("ERROR"), "{reply:?}");
    assert_eq!(error.field(b'V'), None, "{reply:?}");
    assert_eq!(reply.status(), 'I', "{reply:?}");
    (reply.sqlstate(), error.field(b'M').unwrap())
}

/// What a client is told last.
fn last_words(client: &mut RawClient) -> (String, String) {
    let frames = client.until_closed();
    let error = frames.iter().find(|frame| frame.tag == b'E').unwrap_or_else(|| panic!("{frames:?}"));
    assert_eq!(error.field(b'S').as_deref(), Some("FATAL"));
    (error.field(b'C').unwrap(), error.field(b'M').unwrap())
}

/// Asks for one column of the row with this value.
fn column(proxy: &Proxy, what: &str, key: (&str, &str), wanted: &str) -> String {
    proxy.show(what).select(key.0, key.1, wanted).join(",")
}

/// The tag of a command that succeeds.
#[track_caller]
fn tag(reply: &Reply) -> String {
    assert!(reply.error().is_none(), "{reply:?}");
    reply.tags().join(",")
}
