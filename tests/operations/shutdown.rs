//! Signals: who may stay, who is told what, until when.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{
    Proxy, RawClient, cluster,
    cluster::USER,
    frames::query,
    proxy::{ADMIN, Builder},
    wait_until,
};

fn one_server() -> (Builder, String) {
    let database = cluster().database();
    (Proxy::of(cluster(), &database).set("default_pool_size", 1), database)
}

fn is_deaf(proxy: &Proxy) -> bool {
    RawClient::try_connect(&proxy.address()).is_err()
}

#[test]
fn sigint_tells_clients_that_wait_for_a_server_to_go() {
    let (builder, database) = one_server();
    let mut proxy = builder.start();
    let (mut busy, mut waiting) = (proxy.session(&database), proxy.session(&database));
    busy.query("begin");
    waiting.send(&query("select 1"));
    wait_until("it waits", || proxy.show("POOLS").number("database", &database, "cl_waiting") == 1);
    proxy.signal(Signal::SIGINT);
    let told = waiting.until_closed();
    assert_eq!(told[0].field(b'S').as_deref(), Some("FATAL"));
    assert_eq!(told[0].field(b'M').as_deref(), Some("server shutting down"));
    assert_eq!(busy.value("select 'still served'"), "still served");
    assert!(proxy.is_alive());
    busy.query("commit");
    assert_eq!(proxy.wait_for_end().code(), Some(0));
}

#[test]
fn while_it_drains_the_unix_socket_serves_the_console_and_nobody_else() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (builder, database) = one_server();
        let mut proxy = builder.start();
        let mut busy = proxy.session(&database);
        busy.query("begin");
        proxy.signal(signal);
        wait_until("TCP is closed", || is_deaf(&proxy));
        let mut refused = RawClient::connect(&proxy.unix());
        let told = refused.log_in(&[("user", USER), ("database", &database)], "").unwrap_err();
        assert_eq!(told.field(b'S').as_deref(), Some("FATAL"));
        assert_eq!(told.field(b'M').as_deref(), Some("pooler is shutting down"));
        let mut console = RawClient::session(&proxy.unix(), ADMIN, "pgbouncer");
        assert_eq!(console.query("SHOW POOLS").tags(), ["SHOW"]);
        let refused = console.query("RESUME");
        assert_eq!(refused.error().unwrap().field(b'M').as_deref(), Some("pooler is shutting down"));
        console.terminate();
        busy.query("commit");
        busy.terminate();
        assert_eq!(proxy.wait_for_end().code(), Some(0), "{signal}");
        assert!(RawClient::try_connect(&proxy.unix()).is_err());
    }
}

#[test]
fn shutdown_timeout_ends_the_wait() {
    let (builder, database) = one_server();
    let mut proxy = builder.set("shutdown_timeout", 1).start();
    let mut busy = proxy.session(&database);
    busy.query("begin");
    proxy.signal(Signal::SIGTERM);
    let told = busy.until_closed();
    assert_eq!(told[0].field(b'S').as_deref(), Some("FATAL"));
    assert_eq!(proxy.wait_for_end().code(), Some(0));
    assert!(proxy.log().contains("shutdown_timeout"), "{}", proxy.log());
}

#[test]
fn sigusr1_pauses_and_sigusr2_resumes_but_not_while_it_stops() {
    let (builder, database) = one_server();
    let mut proxy = builder.start();
    let mut client = proxy.session(&database);
    client.rows("select 1");
    let state = |key: &str| proxy.show("STATE").select("key", key, "value").concat();
    proxy.signal(Signal::SIGUSR1);
    wait_until("it is paused", || state("paused") == "yes");
    wait_until("no server is left", || proxy.servers(&database).is_empty());
    client.send(&query("select 'later'"));
    assert!(client.is_silent_for(Duration::from_millis(200)));
    proxy.signal(Signal::SIGUSR2);
    assert_eq!(client.reply().rows(), [["later"]]);
    assert_eq!(state("active"), "yes");
    proxy.signal(Signal::SIGUSR2);
    wait_until("it says so", || proxy.log().contains("got SIGUSR2, but not paused/suspended"));
    client.query("begin");
    proxy.signal(Signal::SIGTERM);
    wait_until("TCP is closed", || is_deaf(&proxy));
    proxy.signal(Signal::SIGUSR2);
    wait_until("it says so", || proxy.log().contains("got SIGUSR2 while shutting down, ignoring"));
    client.terminate();
    assert_eq!(proxy.wait_for_end().code(), Some(0));
}
