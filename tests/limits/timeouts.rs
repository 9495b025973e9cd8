//! Deadlines: each is kept within a third of a second by those it is for, and by nobody else.

use std::time::{Duration, Instant};

use super::{backends, last_words, session_of};
use crate::support::{FakeServer, Proxy, RawClient, cluster, cluster::USER, frames, proxy::Builder, wait_until};

const OTHER: &str = "stranger";

fn words(text: &str) -> (String, String) {
    ("08P01".to_owned(), text.to_owned())
}

fn pooled(size: u32) -> (Builder, String) {
    let database = cluster().database();
    (Proxy::of(cluster(), &database).set("default_pool_size", size).set("workers", 2), database)
}

/// Statements that run in the database.
fn running(database: &str) -> String {
    cluster().primary.session("postgres").value(&format!(
        "select count(*) from pg_stat_activity where datname = '{database}' and usename in ('{USER}', '{OTHER}') \
         and state = 'active'"
    ))
}

#[test]
fn a_query_that_takes_too_long_is_cancelled_and_ends_the_session() {
    let (builder, database) = pooled(2);
    let proxy = builder.set("query_timeout", 1).start();
    let mut client = proxy.session(&database);
    client.rows("select pg_sleep(0.3)");
    let started = Instant::now();
    client.send(&frames::query("select pg_sleep(600)"));
    assert_eq!(last_words(&mut client), words("query timeout"));
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    wait_until("the server has stopped working on it", || running(&database) == "0");
    assert_eq!(proxy.session(&database).value("select 1"), "1");
}

#[test]
fn the_time_of_a_pipelined_query_begins_when_the_one_before_it_has_ended() {
    let (builder, database) = pooled(2);
    let proxy = builder.set("query_timeout", 2).start();
    let mut client = proxy.session(&database);
    let nap = frames::query("select pg_sleep(0.9)");
    client.send(&nap.repeat(4));
    (0..4).for_each(|_| assert!(client.reply().error().is_none()));
}

#[test]
fn a_user_may_have_another_time_for_queries_and_reload_changes_it_for_those_who_are_there() {
    let (builder, database) = pooled(4);
    let proxy = builder.set("query_timeout", 1).section("users", OTHER, "query_timeout=1000").start();
    let mut patient = session_of(&proxy, OTHER, &database);
    patient.rows("select pg_sleep(2)");
    patient.send(&frames::query("select pg_sleep(600)"));
    wait_until("it runs", || running(&database) == "1");
    proxy.rewrite(|text| text.replace("query_timeout=1000", "query_timeout=1"));
    proxy.tell("RELOAD");
    assert_eq!(last_words(&mut patient), words("query timeout"));
}

#[test]
fn a_client_that_waits_longer_than_a_query_may_take_hears_so() {
    let (builder, database) = pooled(1);
    let proxy = builder.start();
    let mut holder = proxy.session(&database);
    holder.query("begin");
    let mut client = proxy.session(&database);
    proxy.tell("SET query_timeout = 1");
    client.send(&frames::query("select 1"));
    assert_eq!(last_words(&mut client), words("query_timeout"));
    holder.query("commit");
}

#[test]
fn whoever_waits_too_long_is_disconnected_by_the_settings_of_the_moment() {
    let (builder, database) = pooled(1);
    let proxy = builder.section("users", OTHER, "query_wait_timeout=1").start();
    let mut holder = proxy.session(&database);
    holder.query("begin");
    let mut own = session_of(&proxy, USER, &database);
    let started = Instant::now();
    own.send(&frames::query("select 1"));
    assert!(own.is_silent_for(Duration::from_secs(2)));
    proxy.tell("SET query_wait_timeout = 1");
    assert_eq!(last_words(&mut own), words("query_wait_timeout"));
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[test]
fn the_wait_of_a_user_comes_before_that_of_the_database_and_the_general_one() {
    let database = cluster().database();
    let own = format!("pool_size=1 user={USER} query_wait_timeout=1000");
    let proxy = Proxy::builder()
        .database(&database, cluster().primary.port, &own)
        .set("query_wait_timeout", 1)
        .section("users", OTHER, "query_wait_timeout=1")
        .start();
    let mut holder = proxy.session(&database);
    holder.query("begin");
    let mut patient = proxy.session(&database);
    let mut other = session_of(&proxy, OTHER, &database);
    patient.send(&frames::query("select 'patient'"));
    other.send(&frames::query("select 1"));
    assert_eq!(last_words(&mut other), words("query_wait_timeout"));
    holder.query("commit");
    assert_eq!(patient.reply().rows(), [["patient"]]);
}

#[test]
fn a_client_that_waits_is_told_so_once() {
    let (builder, database) = pooled(1);
    let proxy = builder.set("query_wait_notify", 1).start();
    let mut holder = proxy.session(&database);
    holder.query("begin");
    let mut client = proxy.session(&database);
    client.send(&frames::query("select 1"));
    let notice = client.frame();
    let text = "No server connection available in postgres backend, client being queued";
    assert_eq!((notice.tag, notice.field(b'M').as_deref()), (b'N', Some(text)));
    assert!(client.is_silent_for(Duration::from_secs(2)), "it is said once");
    holder.query("commit");
    assert_eq!(client.reply().rows(), [["1"]]);
}

#[test]
fn a_transaction_that_rests_too_long_ends_with_its_session() {
    let (builder, database) = pooled(2);
    let proxy = builder.set("idle_transaction_timeout", 1).start();
    let mut client = proxy.session(&database);
    client.query("begin");
    for _ in 0..3 {
        client.rows("select pg_sleep(0.6)");
    }
    let started = Instant::now();
    assert_eq!(last_words(&mut client), words("idle transaction timeout"));
    assert!(started.elapsed() >= Duration::from_millis(900), "{:?}", started.elapsed());
    wait_until("its server is closed", || backends(&database).is_empty());
}

#[test]
fn in_session_pooling_a_later_transaction_is_timed_as_well_and_an_idle_session_is_not() {
    let (builder, database) = pooled(2);
    let proxy = builder.set("pool_mode", "session").set("transaction_timeout", 2).set("client_idle_timeout", 1).start();
    let mut client = proxy.session(&database);
    client.rows("select 1");
    assert!(client.is_silent_for(Duration::from_secs(3)), "it holds a server");
    client.query("begin");
    let started = Instant::now();
    assert_eq!(last_words(&mut client), words("transaction timeout"));
    assert!(started.elapsed() >= Duration::from_millis(1900), "{:?}", started.elapsed());
}

#[test]
fn a_transaction_that_takes_too_long_is_ended_while_it_works() {
    let (builder, database) = pooled(2);
    let proxy = builder.section("users", USER, "transaction_timeout=1").start();
    let mut client = proxy.session(&database);
    client.query("begin");
    client.send(&frames::query("select pg_sleep(600)"));
    assert_eq!(last_words(&mut client), words("transaction timeout"));
    wait_until("the server has stopped working on it", || running(&database) == "0");
}

#[test]
fn a_client_without_a_server_may_be_idle_for_so_long() {
    let (builder, database) = pooled(2);
    let proxy = builder.set("client_idle_timeout", 1).section("users", OTHER, "client_idle_timeout=1000").start();
    let mut never_asked = proxy.session(&database);
    let mut patient = session_of(&proxy, OTHER, &database);
    let mut busy = proxy.session(&database);
    for _ in 0..5 {
        busy.rows("select pg_sleep(0.4)");
    }
    assert_eq!(last_words(&mut never_asked), words("client_idle_timeout"));
    assert_eq!(last_words(&mut busy), words("client_idle_timeout"));
    assert_eq!(patient.value("select 1"), "1");
    proxy.rewrite(|text| text.replace("client_idle_timeout=1000", "client_idle_timeout=1"));
    proxy.tell("RELOAD");
    assert_eq!(last_words(&mut patient), words("client_idle_timeout"));
}

#[test]
fn a_login_must_end_in_time_and_says_when_the_server_is_to_blame() {
    let server = FakeServer::start(|_| Ok(()));
    server.stall();
    let proxy = Proxy::builder().database("x", server.port, "").set("client_login_timeout", 1).start();
    let mut silent = RawClient::connect(&proxy.address());
    assert_eq!(last_words(&mut silent), words("client_login_timeout"));
    let mut client = RawClient::connect(&proxy.address());
    client.send(&frames::startup(&[("user", "app"), ("database", "x")]));
    assert_eq!(last_words(&mut client), words("client_login_timeout (server down)"));
}

#[test]
fn a_cancel_request_that_cannot_be_delivered_is_given_up_in_time() {
    // The first connection takes queries and says nothing; nobody answers the others.
    let server = FakeServer::start(|session| {
        session.until_asked("hang")?;
        loop {
            session.frame()?;
        }
    });
    let proxy = Proxy::builder().database("x", server.port, "").set("cancel_wait_timeout", 1).start();
    let mut client = proxy.session("x");
    client.send(&frames::query("select 'hang'"));
    wait_until("it runs", || proxy.servers("x") == ["active"]);
    let started = Instant::now();
    client.cancel();
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(server.cancels().len(), 1);
}
