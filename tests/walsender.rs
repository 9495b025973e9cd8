//! SQL on replication connections, beside the cache.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails loudly"
)]

mod support;

use support::{
    Proxy, RawClient, cluster, cluster::SUPERUSER, proxy::Builder, redis::Redis, scratch::scratch, wait_until,
};

const SCHEMA: &str = "create table t(id int primary key, v int); insert into t values (1, 0)";

fn database() -> String {
    let database = cluster().database();
    cluster().prepare(&database, SCHEMA);
    cluster().log_statements(&database);
    database
}

fn read() -> String {
    format!("select v from t where id = 1 /* mark {} */", scratch().unique())
}

fn walsender(proxy: &Proxy, database: &str) -> RawClient {
    let mut walsender = RawClient::connect(&proxy.address());
    let parameters = [("user", SUPERUSER), ("database", database), ("replication", "database")];
    walsender.log_in(&parameters, "").unwrap();
    walsender
}

#[track_caller]
fn warm_up(reader: &mut RawClient, read: &str) {
    wait_until("a hit", || {
        let before = cluster().primary.executions(read);
        reader.value(read);
        cluster().primary.executions(read) == before
    });
}

#[track_caller]
fn succeed(session: &mut RawClient, statement: &str) {
    let reply = session.query(statement);
    assert!(reply.error().is_none(), "{statement}: {reply:?}");
}

fn writes_are_seen(walsender: &mut RawClient, reader: &mut RawClient) {
    let read = read();
    for (expected, statements) in (1..).zip([
        &["update t set v = v + 1 where id = 1"][..],
        &["begin", "update t set v = v + 1 where id = 1", "commit"],
        &["begin; update t set v = v + 1 where id = 1; commit"],
        &["begin; update t set v = v + 1 where id = 1", "select 1", "end"],
        &["set search_path = pg_catalog, public", "with w as (update t set v = v + 1 returning v) select v from w"],
        &["do $$ begin update t set v = v + 1; commit; end $$"],
    ]) {
        warm_up(reader, &read);
        statements.iter().for_each(|statement| succeed(walsender, statement));
        assert_eq!(reader.value(&read), expected.to_string(), "{statements:?}");
    }
}

#[test]
fn what_a_replication_connection_writes_voids_what_was_answered_before() {
    let database = database();
    let proxy = Proxy::of(cluster(), &database).cached().start();
    writes_are_seen(&mut walsender(&proxy, &database), &mut proxy.session(&database));
}

#[test]
fn other_proxies_hear_of_it_too() {
    let (redis, database) = (Redis::start(), database());
    let sharing = || -> Builder {
        let url = format!("redis://127.0.0.1:{}/0", redis.port);
        let builder = Proxy::of(cluster(), &database).cached().section("cache", "redis_url", url);
        builder.section("cache", "redis_timeout", "0.5").section("cache", "secret", "known to both and nobody else")
    };
    let (left, right) = (sharing().start(), sharing().start());
    writes_are_seen(&mut walsender(&left, &database), &mut right.session(&database));
}

#[test]
fn what_a_replication_connection_reads_and_its_own_commands_void_nothing() {
    let database = database();
    let proxy = Proxy::of(cluster(), &database).cached().start();
    let (mut walsender, mut reader) = (walsender(&proxy, &database), proxy.session(&database));
    let read = read();
    warm_up(&mut reader, &read);
    let before = cluster().primary.executions(&read);
    for statement in [
        "IDENTIFY_SYSTEM",
        "select v from t",
        "begin read only isolation level repeatable read",
        "CREATE_REPLICATION_SLOT pgweir_test TEMPORARY LOGICAL pgoutput USE_SNAPSHOT",
        "select v from t",
        "commit",
        "show server_version",
    ] {
        succeed(&mut walsender, statement);
        assert_eq!(reader.value(&read), "0");
    }
    assert_eq!(cluster().primary.executions(&read), before, "all of it from the cache");
}
