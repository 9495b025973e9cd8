//! What the analysis finds of a statement is compared with what the primary makes of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails loudly")]

mod support;

use support::{
    Proxy, cluster,
    cluster::USER,
    frames::{bind, execute, parse, sync},
    hits::{is_hit, mark, warm_up},
    proxy::Builder,
    wait_until,
};

const SCHEMA: &str = "
    create table t(id int primary key, v int); insert into t values (1, 0);
    create view shown as select v from t where id = 1;
    create table moods(m text); insert into moods values ('fine');
    create schema hidden; create table hidden.own(v int)";

fn database() -> String {
    let database = cluster().database();
    cluster().prepare(&database, SCHEMA);
    cluster().log_statements(&database);
    database
}

fn checking(database: &str) -> Builder {
    Proxy::of(cluster(), database).cached().section("cache", "cross_check", 1)
}

fn outcomes(proxy: &Proxy, outcome: &str) -> f64 {
    proxy.metrics().sum("pgweir_cache_cross_checks_total", &[&format!("outcome=\"{outcome}\"")])
}

#[test]
fn the_primary_is_asked_once_for_each_shape_and_agrees() {
    let database = database();
    let proxy = checking(&database).start();
    let mut session = proxy.session(&database);
    for (checked, read) in [
        "select v from t where id = 1",
        "select v from shown",
        "select count(*) from hidden.own",
        "with x as (select sum(v) as s from t) select s, upper('a') from x",
    ]
    .into_iter()
    .enumerate()
    {
        warm_up(&mut session, read, &mark());
        warm_up(&mut session, read, &mark());
        wait_until("it is checked", || outcomes(&proxy, "agreed") >= (checked + 1) as f64);
    }
    let read = "select v + $1 from t where id = $2";
    session.send(&[parse("", read), bind("", &["1", "1"]), execute("", 0), sync()].concat());
    assert!(session.reply().error().is_none());
    wait_until("parameters are understood", || outcomes(&proxy, "agreed") == 5.0);
    assert_eq!(outcomes(&proxy, "not_checked") + outcomes(&proxy, "missed_relation"), 0.0, "{}", proxy.log());
    assert!(!cluster().primary.log().contains("rewritten parse tree"), "statements are not for the server's log");
}

#[test]
fn a_shape_of_which_something_was_missed_is_not_cached_any_more() {
    let database = database();
    let proxy = checking(&database).environment("PGWEIR_ABLATE", "views").start();
    let (mut reader, mut writer) = (proxy.session(&database), proxy.session(&database));
    wait_until("it is doubted", || {
        assert_eq!(reader.value("select v from shown"), "0");
        outcomes(&proxy, "missed_relation") == 1.0
    });
    assert!(proxy.log().contains("it reads public.t"), "{}", proxy.log());
    for v in 1..4 {
        assert!(writer.query(&format!("update t set v = {v}")).error().is_none());
        assert_eq!(reader.value("select v from shown"), v.to_string());
    }
    let mark = mark();
    assert!(!is_hit(&mut reader, "select v from shown", &mark) && !is_hit(&mut reader, "select v from shown", &mark));
    assert!(proxy.metrics().sum("pgweir_cache_requests_total", &["reason=\"doubted\""]) > 0.0);
    warm_up(&mut reader, "select v from t where id = 1", &mark);
}

#[test]
fn who_may_not_keep_statements_out_of_the_servers_log_checks_none() {
    let database = database();
    let proxy = checking(&database).section("control", "user", USER).start();
    let mut session = proxy.session(&database);
    warm_up(&mut session, "select v from t where id = 1", &mark());
    wait_until("it is said", || outcomes(&proxy, "not_checked") > 0.0);
    assert!(proxy.log().contains("may not set log_min_messages"), "{}", proxy.log());
    assert!(!cluster().primary.log().contains("rewritten parse tree"));
}

#[test]
fn a_text_that_is_several_statements_to_others_runs_nothing() {
    let database = database();
    let proxy = checking(&database).start();
    let mut session = proxy.session(&database);
    // To a session that reads backslashes in literals this is one statement.
    assert!(session.query("set standard_conforming_strings = off").error().is_none());
    for _ in 0..3 {
        let reply = session.query(r"select v, 'a\'; drop table moods; --' from t where id = 1");
        assert!(reply.error().is_none(), "{reply:?}");
    }
    let mut other = proxy.session(&database);
    warm_up(&mut other, "select v from t where id = 1", &mark());
    wait_until("what can be checked is", || outcomes(&proxy, "agreed") > 0.0);
    assert_eq!(other.value("select count(*) from moods"), "1");
}
