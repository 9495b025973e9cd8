//! SUSPEND: between it and RESUME nothing is read.

use crate::{
    last_words, pooled, refused, refused_reply,
    support::{Proxy, RawClient, Table, cluster, cluster::USER, frames::query, frames::startup, wait_until},
    tag,
};

const CLOCK: &str = "select extract(epoch from clock_timestamp())";

/// What SHOW STATE says on this console: while all is suspended no other is let in.
fn state(console: &mut RawClient) -> String {
    let table = Table::of(&console.query("SHOW STATE"));
    ["active", "paused", "suspended"].map(|key| table.select("key", key, "value").join(",")).join(" ")
}

fn seconds(value: &str) -> f64 {
    value.parse().unwrap()
}

/// A client of which half a message has arrived.
fn stammering(proxy: &Proxy, database: &str) -> RawClient {
    let mut client = proxy.session(database);
    client.send(&query("select 1")[..7]);
    let active = || proxy.show("ACTIVE_SOCKETS").select("database", database, "state");
    wait_until("half of it is there", || active() == ["cl_active"]);
    client
}

#[test]
fn nothing_is_read_from_suspend_to_resume_and_nobody_is_let_in() {
    let (proxy, database) = pooled(3);
    let (mut idle, mut busy) = (proxy.session(&database), proxy.session(&database));
    busy.query("begin");
    let mut console = proxy.console();
    assert_eq!(tag(&console.query("SUSPEND")), "SUSPEND");
    assert_eq!(state(&mut console), "no no yes");
    for command in ["SUSPEND", "PAUSE", "KILL"] {
        assert_eq!(refused(&mut console, command).1, "already suspended/paused", "{command}");
    }
    idle.send(&query(CLOCK));
    busy.send(&query(CLOCK));
    let mut late = RawClient::connect(&proxy.address());
    late.send(&startup(&[("user", USER), ("database", &database)]));
    for _ in 0..50 {
        let lists = Table::of(&console.query("SHOW LISTS"));
        assert_eq!(lists.number("list", "used_clients", "items"), 3, "two clients and the console");
    }
    let before_resume = seconds(&cluster().primary.session("postgres").value(CLOCK));
    assert_eq!(tag(&console.query("RESUME")), "RESUME");
    assert_eq!(state(&mut console), "yes no no");
    for client in [&mut idle, &mut busy] {
        let ran_at = seconds(&client.reply().rows()[0][0]);
        assert!(ran_at > before_resume, "it ran at {ran_at}, before RESUME at {before_resume}");
    }
    assert_eq!(busy.query("commit").tags(), ["COMMIT"]);
    late.until(b'Z');
}

#[test]
fn who_does_not_come_to_rest_is_disconnected_after_suspend_timeout() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).set("suspend_timeout", "0.3").start();
    let mut idle = proxy.session(&database);
    let mut stuck = stammering(&proxy, &database);
    let mut console = proxy.console();
    assert_eq!(tag(&console.query("SUSPEND")), "SUSPEND");
    assert_eq!(last_words(&mut stuck), ("57P01".to_owned(), "suspend_timeout".to_owned()));
    console.query("RESUME");
    assert_eq!(idle.value("select 1"), "1");
}

#[test]
fn a_suspension_that_waits_ends_by_the_resume_of_another_console() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).set("suspend_timeout", 0).start();
    let mut stuck = stammering(&proxy, &database);
    let (mut first, mut second) = (proxy.console(), proxy.console());
    first.send(&query("SUSPEND"));
    wait_until("it is suspended", || state(&mut second) == "no no yes");
    assert_eq!(tag(&second.query("RESUME")), "RESUME");
    assert_eq!(refused_reply(&first.reply()), ("57014".to_owned(), "resumed by another command".to_owned()));
    stuck.send(&query("select 1")[7..]);
    assert_eq!(stuck.reply().rows(), [["1"]]);
}

#[test]
fn a_suspension_ends_when_no_console_is_left_that_could_end_it() {
    let (proxy, database) = pooled(1);
    let mut client = proxy.session(&database);
    let mut console = proxy.console();
    assert_eq!(tag(&console.query("SUSPEND")), "SUSPEND");
    client.send(&query("select 1"));
    drop(console);
    assert_eq!(client.reply().rows(), [["1"]]);
    assert!(proxy.log().contains("admin disappeared when suspended, doing RESUME"));
}

#[test]
fn paused_databases_are_not_suspended() {
    let (proxy, database) = pooled(1);
    let mut console = proxy.console();
    console.query(&format!("PAUSE {database}"));
    let text = "cannot suspend with paused databases";
    assert_eq!(refused(&mut console, "SUSPEND"), ("08P01".to_owned(), text.to_owned()));
    assert_eq!(state(&mut console), "yes no no");
}
