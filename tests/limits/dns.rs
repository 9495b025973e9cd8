//! Names of servers.

use crate::support::{
    FakeServer, Proxy, RawClient, cluster,
    forwarder::Forwarder,
    frames,
    frames::query,
    names::{Meaning, NAME},
    wait_until,
};

/// Host names, as SHOW DNS_HOSTS lists them.
fn hosts(proxy: &Proxy) -> Vec<Vec<String>> {
    proxy.show("DNS_HOSTS").rows
}

#[test]
fn a_name_is_looked_up_once_and_shown_with_its_addresses() {
    let database = cluster().database();
    let server = format!("host=localhost port={} dbname={database}", cluster().primary.port);
    let proxy = Proxy::builder().section("databases", &database, server).set("dns_max_ttl", 1000).start();
    assert!(hosts(&proxy).is_empty());
    assert_eq!(proxy.session(&database).value("select 1"), "1");
    let rows = hosts(&proxy);
    let [name, ttl, addresses] = &rows[0][..] else { panic!("{rows:?}") };
    assert_eq!((rows.len(), name.as_str()), (1, "localhost"));
    assert!((900..=1000).contains(&ttl.parse::<u32>().unwrap()), "{ttl}");
    assert!(addresses.contains("127.0.0.1"), "{addresses}");
    assert_eq!(proxy.show("LISTS").number("list", "dns_names", "items"), 1);
}

#[test]
fn a_name_that_means_nothing_refuses_clients() {
    let server = "host=no-such-host.invalid dbname=x";
    let proxy = Proxy::builder().section("databases", "x", server).set("query_wait_timeout", 1).start();
    let mut client = RawClient::connect(&proxy.address());
    client.log_in(&[("user", "app"), ("database", "x")], "").unwrap_err();
    assert_eq!(hosts(&proxy)[0][0], "no-such-host.invalid");
    assert_eq!(hosts(&proxy)[0][2], "");
}

fn bland(address: &str) -> FakeServer {
    FakeServer::start_at(address, |session| {
        loop {
            let frame = session.frame()?;
            session.answer_blandly(&frame)?;
        }
    })
}

/// Two servers on one port of two addresses, and a proxy that knows the name that means the first of them.
fn moving() -> (Meaning, [FakeServer; 2], Proxy) {
    let first = bland("127.0.0.1:0");
    let second = bland(&format!("127.0.0.2:{}", first.port));
    let meaning = Meaning::new("127.0.0.1");
    let mut builder = Proxy::builder().set("dns_max_ttl", "0.5").section(
        "databases",
        "x",
        format!("host={NAME} port={}", first.port),
    );
    for (name, value) in meaning.environment() {
        builder = builder.environment(name, &value);
    }
    (meaning, [first, second], builder.start())
}

#[test]
fn connections_to_an_address_that_has_left_are_replaced() {
    let (meaning, [first, second], proxy) = moving();
    let (mut idle, mut busy) = (proxy.session("x"), proxy.session("x"));
    busy.send(&frames::parse("", "select 1"));
    busy.send(&frames::flush());
    wait_until("its server is held", || proxy.servers("x") == ["active"]);
    assert!(idle.query("select 1").error().is_none());
    assert_eq!((first.attempts(), second.attempts()), (2, 0));
    meaning.change("127.0.0.2");
    wait_until("the idle one is closed", || proxy.servers("x") == ["active"]);
    assert_eq!(proxy.show("SERVERS").select("database", "x", "close_needed"), ["1"]);
    assert!(idle.query("select 1").error().is_none());
    assert_eq!((first.attempts(), second.attempts()), (2, 1), "{}", proxy.log());
    busy.send(&frames::sync());
    busy.reply();
    wait_until("the other one is closed as it comes back", || proxy.show("SERVERS").column("close_needed") == ["0"]);
    assert!(busy.query("select 1").error().is_none());
    assert_eq!(first.attempts(), 2);
}

#[test]
fn a_connection_that_was_being_opened_when_its_address_left_is_replaced_as_well() {
    let (meaning, [first, second], proxy) = moving();
    let (mut one, mut other) = (proxy.session("x"), proxy.session("x"));
    one.send(&frames::parse("", "select 1"));
    one.send(&frames::flush());
    wait_until("its server is held", || proxy.servers("x") == ["active"]);
    first.stall();
    other.send(&query("select 1"));
    wait_until("it logs in", || first.attempts() == 2);
    meaning.change("127.0.0.2");
    wait_until("the address has left", || proxy.show("SERVERS").select("state", "active", "close_needed") == ["1"]);
    first.go_on();
    // It is used once.
    assert!(other.reply().error().is_none());
    assert!(other.query("select 1").error().is_none());
    assert_eq!((first.attempts(), second.attempts()), (2, 1));
}

#[test]
fn without_a_time_to_live_each_connection_asks_anew() {
    let (meaning, [first, second], proxy) = moving();
    proxy.tell("SET dns_max_ttl = 0");
    proxy.tell("SET server_lifetime = 0");
    let mut client = proxy.session("x");
    let before = first.attempts();
    assert!(client.query("select 1").error().is_none());
    assert_eq!((first.attempts(), second.attempts()), (before + 1, 0));
    meaning.change("127.0.0.2");
    assert!(client.query("select 1").error().is_none());
    assert_eq!((first.attempts(), second.attempts()), (before + 1, 1));
}

#[test]
fn the_proxys_own_connections_follow_a_name_as_well() {
    let database = cluster().database();
    let first = Forwarder::start("127.0.0.1:0", cluster().primary.port);
    let second = Forwarder::start(&format!("127.0.0.2:{}", first.port), cluster().primary.port);
    let meaning = Meaning::new("127.0.0.1");
    let server = format!("host={NAME} port={} dbname={database}", first.port);
    let mut builder = Proxy::builder().section("databases", &database, server).cached().set("dns_max_ttl", "0.5");
    for (name, value) in meaning.environment() {
        builder = builder.environment(name, &value);
    }
    let proxy = builder.start();
    let mut client = proxy.session(&database);
    assert_eq!(client.value("select 1"), "1");
    let is_on = || proxy.show("CACHE").select("database", &database, "state") == ["on"];
    wait_until("it caches", is_on);
    assert!(first.open() > 1, "a client's and the proxy's own");
    meaning.change("127.0.0.2");
    wait_until("nobody is left there", || first.open() == 0);
    wait_until("the proxy's own is at the other address", || second.open() > 0);
    wait_until("it caches again", is_on);
    assert_eq!(client.value("select 2"), "2");
    assert_eq!(first.open(), 0);
}
