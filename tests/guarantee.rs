//! SHOW CACHE says which guarantee holds at this moment, and what it rests on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails loudly"
)]

mod support;

use support::{Proxy, Redis, cluster, proxy::Builder, wait_until};

fn database() -> String {
    let database = cluster().database();
    cluster().prepare(&database, "create table t(id int primary key, v int)");
    database
}

fn sharing(database: &str, redis: &Redis, coherence: &str) -> Builder {
    let url = format!("redis://127.0.0.1:{}/0", redis.port);
    let proxy = Proxy::of(cluster(), database).cached().section("cache", "redis_url", url);
    proxy.section("cache", "secret", "known to both and nobody else").section("cache", "coherence", coherence)
}

/// One column of the database's row.
fn shown(proxy: &Proxy, database: &str, column: &str) -> String {
    proxy.show("CACHE").select("database", database, column).concat()
}

fn wait_until_on(proxy: &Proxy, database: &str) {
    wait_until("the cache answers", || shown(proxy, database, "state") == "on");
}

#[test]
fn one_process_promises_for_itself_and_says_what_it_does_not_hear_of() {
    let database = database();
    let proxy = Proxy::of(cluster(), &database).cached().start();
    wait_until_on(&proxy, &database);
    assert_eq!(
        shown(&proxy, &database, "guarantee"),
        "G1: reads include every write acknowledged through this process; G2: and those that others can see already; \
         writes that bypass it: unheard, 60 s later at most (ttl)"
    );
    let found = ["peers", "lease", "lease_left", "bus_ms"].map(|column| shown(&proxy, &database, column));
    assert_eq!(found, ["0", "none", "NULL", "NULL"]);
    let observing = Proxy::of(cluster(), &database).section("cache", "enabled", "observe").start();
    assert_eq!(
        shown(&observing, &database, "guarantee"),
        "nothing is answered from the cache: the cache only observes"
    );
}

#[test]
fn several_processes_say_how_many_they_are_and_lose_their_lease_with_the_way_to_each_other() {
    let (redis, database) = (Redis::start(), database());
    let (left, right) = (sharing(&database, &redis, "strict").start(), sharing(&database, &redis, "strict").start());
    for proxy in [&left, &right] {
        wait_until("both promise for both", || {
            let row = proxy.show("CACHE");
            let of = |column| row.select("database", &database, column).concat();
            let lease_left: f64 = of("lease_left").parse().unwrap();
            of("guarantee").starts_with(
                "G1: reads include every write acknowledged through this process and 1 other; G2: and those that others can \
                 see already;",
            ) && (of("state"), of("peers"), of("lease")) == ("on".into(), "1".into(), "held".into())
                && lease_left > 0.0
                && lease_left <= 0.5
                && of("bus_ms") != "NULL"
        });
        assert!(proxy.metrics().sum("pgweir_bus_round_trip_seconds", &[&database]) > 0.0);
    }
    drop(redis);
    wait_until("the lease is lost", || shown(&left, &database, "lease") == "lost");
    assert_eq!(shown(&left, &database, "state"), "peers_unknown");
    assert_eq!(shown(&left, &database, "guarantee"), "nothing is answered from the cache: peers_unknown");
}

#[test]
fn with_bounded_coherence_the_bound_is_named() {
    let (redis, database) = (Redis::start(), database());
    let proxies = [(); 2].map(|()| sharing(&database, &redis, "bounded").start());
    wait_until("the bound is named", || {
        let guarantee = shown(&proxies[0], &database, "guarantee");
        guarantee.contains("acknowledged through this process; G2")
            && guarantee.contains("writes through 1 other proxy: 0.5 s later at most")
    });
}
