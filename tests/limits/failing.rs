//! Servers that refuse, stall or are not there.

use std::time::{Duration, Instant};

use super::last_words;
use crate::support::{FakeServer, Frame, Proxy, RawClient, frames, scratch::free_port, wait_until};

const LOGIN: &[(&str, &str)] = &[("user", "app"), ("database", "x")];

fn bland() -> FakeServer {
    FakeServer::start(|session| {
        loop {
            let frame = session.frame()?;
            session.answer_blandly(&frame)?;
        }
    })
}

fn refusal(code: &str, text: &str) -> Option<Vec<u8>> {
    Some(frames::response(b'E', "FATAL", code, text))
}

fn words(error: &Frame) -> (String, String) {
    (error.field(b'C').unwrap(), error.field(b'M').unwrap())
}

/// What a client hears that logs in now.
fn refused(proxy: &Proxy) -> (String, String) {
    words(&RawClient::connect(&proxy.address()).log_in(LOGIN, "").unwrap_err())
}

#[test]
fn everybody_who_waits_hears_why_the_server_refuses_and_later_ones_hear_it_at_once() {
    let server = bland();
    server.refuse(refusal("28000", "no entry for you"));
    let proxy = Proxy::builder().database("x", server.port, "").set("server_login_retry", 1000).start();
    assert_eq!(refused(&proxy), ("28000".to_owned(), "no entry for you".to_owned()));
    let cached = "server login has been failing, cached error: no entry for you (server_login_retry)";
    assert_eq!(refused(&proxy), ("28000".to_owned(), cached.to_owned()));
    assert_eq!(server.attempts(), 1, "nothing is tried before server_login_retry has passed");
}

#[test]
fn after_the_time_a_login_is_tried_again() {
    let server = bland();
    server.refuse(refusal("28000", "no"));
    let proxy = Proxy::builder().database("x", server.port, "").set("server_login_retry", 1).start();
    refused(&proxy);
    server.refuse(None);
    wait_until("a login succeeds", || RawClient::connect(&proxy.address()).log_in(LOGIN, "").is_ok());
    assert_eq!(server.attempts(), 2);
}

#[test]
fn clients_wait_for_a_server_that_is_starting_up() {
    let server = bland();
    server.refuse(refusal("57P03", "the database system is starting up"));
    let proxy = Proxy::builder().database("x", server.port, "").set("server_login_retry", "0.2").start();
    let mut client = RawClient::connect(&proxy.address());
    client.send(&frames::startup(LOGIN));
    wait_until("it has been tried twice", || server.attempts() >= 2);
    server.refuse(None);
    assert!(client.until(b'Z').iter().all(|frame| frame.tag != b'E'));
}

#[test]
fn a_client_waits_for_a_server_that_is_not_there_and_others_are_refused_meanwhile() {
    let port = free_port();
    let proxy =
        Proxy::builder().database("x", port, "").set("server_login_retry", 1000).set("query_wait_timeout", 2).start();
    let started = Instant::now();
    let mut first = RawClient::connect(&proxy.address());
    first.send(&frames::startup(LOGIN));
    wait_until("it was tried", || proxy.log().contains("server login failed"));
    let cached = "server login has been failing, cached error: connect failed (server_login_retry)";
    assert_eq!(refused(&proxy), ("08P01".to_owned(), cached.to_owned()));
    assert_eq!(last_words(&mut first), ("08P01".to_owned(), "query_wait_timeout".to_owned()));
    assert!(started.elapsed() >= Duration::from_secs(2));
}

#[test]
fn a_refusal_disturbs_nobody_while_another_server_works() {
    let server = bland();
    let proxy = Proxy::builder().database("x", server.port, "").set("server_login_retry", 1000).start();
    let mut first = proxy.session("x");
    let mut second = proxy.session("x");
    first.send(&frames::query("hold"));
    assert!(first.reply().error().is_none());
    server.refuse(refusal("53300", "too many"));
    // Both ask at the same time: one of them needs a second server, or waits for the first.
    first.send(&frames::query("select 1"));
    second.send(&frames::query("select 2"));
    assert!(first.reply().error().is_none());
    assert!(second.reply().error().is_none());
}

#[test]
fn a_login_that_gets_no_answer_ends_in_time() {
    let server = bland();
    server.stall();
    let proxy = Proxy::builder()
        .database("x", server.port, "")
        .set("server_connect_timeout", 1)
        .set("query_wait_timeout", 3)
        .set("server_login_retry", 1000)
        .start();
    let mut first = RawClient::connect(&proxy.address());
    first.send(&frames::startup(LOGIN));
    wait_until("the login has failed", || proxy.log().contains("connect timeout"));
    let cached = "server login has been failing, cached error: connect timeout (server_login_retry)";
    assert_eq!(refused(&proxy).1, cached);
    assert_eq!(last_words(&mut first).1, "query_wait_timeout");
}
