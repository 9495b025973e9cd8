//! Writes that bypass the proxy make cached answers void: within a bound that is enforced, or at once where it is asked for.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails loudly"
)]

#[path = "../support/mod.rs"]
mod support;

mod checker;
mod coverage;
mod faults;
mod strict;
mod visibility;
mod voids;

use std::time::Duration;

use support::{
    Cluster, Proxy, RawClient, Reply, cluster,
    cluster::{SUPERUSER, USER},
    hits::mark,
    proxy::Builder,
    wait_until,
};

/// `max_staleness_direct`, the default.
const BOUND: Duration = Duration::from_secs(1);

const TABLE: &str = "create table t(id int primary key, v int); insert into t values (1, 0)";

/// A database of which every table is published.
fn published(cluster: &Cluster, schema: &str) -> String {
    let database = cluster.database();
    cluster.prepare(&database, schema);
    cluster.log_statements(&database);
    cluster.primary.session(&database).rows("create publication pgweir for all tables");
    database
}

/// A proxy that caches and hears of direct writes.
fn hearing(cluster: &Cluster, database: &str) -> Builder {
    Proxy::of(cluster, database).cached().section("cache", "wal_invalidation", 1)
}

/// Waits until the cache is open.
#[track_caller]
fn wait_until_heard(proxy: &Proxy, database: &str) {
    let is_open = || {
        let cache = proxy.show("CACHE");
        cache.select("database", database, "state") == ["on"]
            && cache.select("database", database, "direct_writes") == ["heard"]
    };
    let patience = Duration::from_secs(60);
    support::wait::wait_at_most(patience, &format!("the cache opens; {}", proxy.last_words()), is_open);
}

#[track_caller]
fn started(builder: Builder, database: &str) -> Proxy {
    let proxy = builder.start();
    wait_until_heard(&proxy, database);
    proxy
}

/// A proxy that hears of direct writes to a database of its own, on the shared cluster.
#[track_caller]
fn proxied(schema: &str) -> (Proxy, String) {
    let database = published(cluster(), schema);
    (started(hearing(cluster(), &database), &database), database)
}

/// A session of the application without the proxy.
#[track_caller]
fn direct(cluster: &Cluster, database: &str) -> RawClient {
    RawClient::session(&cluster.primary.address(), USER, database)
}

/// One of a superuser.
#[track_caller]
fn superuser(cluster: &Cluster, database: &str) -> RawClient {
    RawClient::session(&cluster.primary.address(), SUPERUSER, database)
}

#[track_caller]
fn succeed(reply: &Reply) {
    assert!(reply.error().is_none(), "{reply:?}");
}

/// Whether the server had nothing to do with this read, which carries a mark.
#[track_caller]
fn is_hit(cluster: &Cluster, session: &mut RawClient, read: &str) -> bool {
    let before = cluster.primary.executions(read);
    succeed(&session.query(read));
    cluster.primary.executions(read) == before
}

/// Repeats the read until it is a hit.
#[track_caller]
fn warm_up(cluster: &Cluster, session: &mut RawClient, read: &str) {
    wait_until(&format!("a hit of {read}"), || is_hit(cluster, session, read));
}
