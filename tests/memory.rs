//! What clients cost while they do nothing, and what is left of a burst.
//!
//! `IDLE_CLIENTS=9000 PGWEIR_BIN=target/release/pgweir cargo test --test memory -- --nocapture` prints the figures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails loudly")]
#![allow(clippy::print_stdout, reason = "its figures")]

mod support;

use std::env;

use support::{
    Proxy, RawClient, cluster,
    frames::{bind, execute, parse, query, sync},
    programs::allow_descriptors,
    proxy::Builder,
    wait_until,
};

/// Bytes of memory for a client that is logged in and silent.
const BUDGET: u64 = 6 * 1024;
/// Clients that ask for a megabyte at the same time.
const BURST: usize = 1000;

fn idle_clients() -> usize {
    env::var("IDLE_CLIENTS").map_or(2000, |count| count.parse().expect("IDLE_CLIENTS is a number"))
}

/// Pool, caches of the allocator and everything else that the first clients bring.
fn warm_up(proxy: &Proxy, database: &str) {
    let mut first: Vec<_> = (0..50).map(|_| proxy.session(database)).collect();
    for client in &mut first {
        client.value("select repeat('x', 3000)");
        client.extended("select $1::text", &["x"]);
    }
}

/// Bytes for each of so many clients: after their login, after a simple and after an extended query.
fn bytes_per_client(builder: Builder, database: &str, count: usize) -> [u64; 3] {
    let proxy = builder.set("max_client_conn", count + 100).start();
    warm_up(&proxy, database);
    let before = proxy.resident();
    let per_client = || proxy.resident().saturating_sub(before) / count as u64;
    let mut clients: Vec<RawClient> = (0..count).map(|_| proxy.session(database)).collect();
    let after_login = per_client();
    for client in &mut clients {
        client.value("select repeat('x', 3000)");
    }
    let after_a_query = per_client();
    for client in &mut clients {
        client.exchange(&[parse("", "select $1"), bind("", &["x"]), execute("", 0), sync()].concat());
    }
    [after_login, after_a_query, per_client()]
}

#[test]
fn an_idle_client_takes_less_than_6_kb() {
    let count = idle_clients();
    allow_descriptors(idle_clients() + BURST);
    let database = cluster().database();
    let proxied = || Proxy::of(cluster(), &database);
    let ours = bytes_per_client(proxied(), &database, count);
    let theirs = bytes_per_client(proxied().pgbouncer(), &database, count);
    println!("{count} clients, bytes for each after login, after a query, after an extended query:");
    println!("pgweir {ours:?}, PgBouncer {theirs:?}");
    assert!(ours.iter().all(|bytes| *bytes < BUDGET), "{ours:?}");
}

#[test]
fn what_a_burst_of_large_results_took_is_given_back() {
    let count = BURST;
    allow_descriptors(idle_clients() + BURST);
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).set("max_client_conn", count + 100).start();
    let mut clients: Vec<RawClient> = (0..count).map(|_| proxy.session(&database)).collect();
    for client in &mut clients {
        client.value("select repeat('x', 3000)");
    }
    let before = proxy.resident();
    for client in &mut clients {
        client.send(&query("select repeat('x', 1000000)"));
    }
    // While the first answers are read, the others pile up.
    wait_until("answers wait for their clients", || {
        proxy.show("POOLS").number("database", &database, "cl_waiting") > 0
    });
    let peak = proxy.resident();
    for client in &mut clients {
        client.reply();
    }
    let at_once = proxy.resident();
    assert!(at_once > before + before / 5, "no burst: {before} {peak} {at_once}");
    // The allocator returns pages that nobody has used for ten seconds.
    wait_until("memory is given back", || proxy.resident() < before + before / 5);
    println!("resident: {before} bytes before, {peak} while answers wait, {at_once} when all were read, then");
    println!("{} bytes", proxy.resident());
}
