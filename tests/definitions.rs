//! Definitions change while statements are judged by them: by statements that pass the proxy, and behind its back.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails loudly")]

mod support;

use std::time::{Duration, Instant};

use support::{Proxy, RawClient, cluster, proxy::Builder, wait_until};

/// What the catalog watch waits between two looks of its own accord.
const INTERVAL: Duration = Duration::from_secs(2);

const SCHEMA: &str = "
    create table t(a int);
    create sequence ids;
    create function f() returns bigint stable language sql as 'select count(*) from t';";

fn routed(configure: impl FnOnce(Builder) -> Builder) -> (Proxy, String) {
    let database = cluster().database();
    cluster().prepare(&database, SCHEMA);
    let builder = Proxy::of(cluster(), &database).replicas(&database, &[(&cluster().replicas[0], 1)]);
    let proxy = configure(builder).start();
    wait_until("a replica serves", || route(&proxy, &database, "select f()").0 == "replica");
    (proxy, database)
}

/// Route and reason.
fn route(proxy: &Proxy, database: &str, sql: &str) -> (String, String) {
    let table = proxy.show(&format!("ROUTE FOR {database} {sql}"));
    let cell = |name| table.rows[0][table.position(name)].clone();
    (cell("route"), cell("reason"))
}

fn loads(proxy: &Proxy) -> f64 {
    proxy.metrics().sum("pgweir_catalog_reloads_total", &["outcome=\"loaded\""])
}

/// The catalog cannot be read while one of its tables is locked, so nobody has a newer snapshot.
fn old_snapshots_judge_no_more(configure: impl FnOnce(Builder) -> Builder) {
    let (proxy, database) = routed(configure);
    let mut other = proxy.session(&database);
    assert!(other.query("select f()").error().is_none());
    let mut lock = cluster().primary.session(&database);
    lock.rows("begin; lock table pg_policy in access exclusive mode");
    let changed = "create or replace function f() returns bigint volatile language sql as $$ select nextval('ids') $$";
    let reply = proxy.session(&database).query(changed);
    assert!(reply.error().is_none(), "{reply:?}");
    // The replica would refuse it now.
    cluster().catch_up();
    for _ in 0..5 {
        let reply = other.query("select f()");
        assert!(reply.error().is_none(), "{reply:?}");
    }
    assert_eq!(route(&proxy, &database, "select f()"), ("primary".into(), "catalog_not_loaded".into()));
    lock.rows("rollback");
    wait_until("the function is known as it is", || {
        route(&proxy, &database, "select f()") == ("primary".into(), "volatile_function".into())
    });
    wait_until("other reads go to the replica again", || route(&proxy, &database, "select a from t").0 == "replica");
}

#[test]
fn a_snapshot_from_before_a_change_judges_nobodys_statements() {
    old_snapshots_judge_no_more(|builder| builder);
}

#[test]
fn a_snapshot_from_before_a_change_judges_nobodys_statements_while_answers_are_cached() {
    old_snapshots_judge_no_more(Builder::cached);
}

/// From the last look on, how long until a change made behind the proxy is known, if an error tells of one.
fn noticed_after(proxy: &Proxy, database: &str, direct: &mut RawClient, number: usize, error: &str) -> Duration {
    let mut session = proxy.session(database);
    let before = loads(proxy);
    assert!(session.query(&format!("create table announced_{number}()")).error().is_none());
    wait_until("what passed is known", || loads(proxy) > before);
    // Now the timer has begun anew.
    let (began, before) = (Instant::now(), loads(proxy));
    direct.rows(&format!("create table unannounced_{number}()"));
    assert!(session.query(error).error().is_some(), "{error}");
    wait_until("the change is known", || loads(proxy) > before);
    began.elapsed()
}

#[test]
fn an_error_that_says_something_is_missing_brings_a_look_at_the_catalog() {
    let (proxy, database) = routed(|builder| builder);
    let mut direct = cluster().primary.session(&database);
    // Nothing but such an error brings a look before the timer's; the fastest of a few is as fast as the machine is.
    let errors = ["select * from nowhere", "select nothing()", "select nothing from t", "select 1::nothing"];
    let times = (0..).zip(errors).map(|(number, error)| noticed_after(&proxy, &database, &mut direct, number, error));
    let times: Vec<_> = times.collect();
    assert!(times.iter().min().unwrap() < &(INTERVAL * 3 / 4), "{times:?}");
}

#[test]
fn an_unchanged_catalog_is_not_loaded_for_an_error() {
    let (proxy, database) = routed(|builder| builder);
    let mut session = proxy.session(&database);
    let before = loads(&proxy);
    for _ in 0..100 {
        assert_eq!(session.query("select * from nowhere").sqlstate(), "42P01");
    }
    // A load that they had brought about would be over before this one.
    assert!(session.query("create table more()").error().is_none());
    wait_until("what passed is known", || route(&proxy, &database, "select from more").1 == "read");
    assert!(loads(&proxy) <= before + 1.0, "{}", loads(&proxy));
}
