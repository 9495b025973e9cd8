//! Several processes on one port that pass cancel requests on to each other.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use crate::support::{
    Proxy, RawClient, cluster,
    cluster::USER,
    frames,
    frames::query,
    raw_client::{Address, cancel},
    wait_until,
};

/// Two processes on one port, which know each other by their unix sockets.
fn peers(database: &str) -> [Proxy; 2] {
    let of = |id: u16| Proxy::of(cluster(), database).set("so_reuseport", 1).set("peer_id", id);
    let first = of(1).start();
    let second = of(2).port(first.port).start();
    let sections = format!(
        "\n[peers]\n1 = host={} port={port}\n2 = host={} port={port} pool_size=5\n",
        first.home().display(),
        second.home().display(),
        port = first.port
    );
    for proxy in [&first, &second] {
        wait_until("it serves its own socket", || RawClient::try_connect(&proxy.unix()).is_ok());
        proxy.rewrite(|text| text + &sections);
        let mut console = RawClient::session(&proxy.unix(), "admin", "pgbouncer");
        assert_eq!(console.query("RELOAD").tags(), ["RELOAD"]);
    }
    [first, second]
}

/// Bytes 1 and 2 of a key.
fn issuer(key: &[u8]) -> u16 {
    u16::from_le_bytes([key[1], key[2]])
}

#[test]
fn a_cancel_storm_over_two_processes_on_one_port_hits_the_intended_queries_only() {
    const VICTIMS: usize = 8;
    const ROUNDS: usize = 25;
    let database = cluster().database();
    let proxies = peers(&database);
    let address = proxies[0].address();
    let over = AtomicBool::new(false);
    let (undisturbed, by_peer) = (AtomicU64::new(0), [AtomicU64::new(0), AtomicU64::new(0)]);
    thread::scope(|scope| {
        // They run short queries on the connections that victims have just used, and are idle in between.
        let bystanders: Vec<_> = (0..6)
            .map(|_| {
                let (address, database, over, undisturbed) = (&address, &database, &over, &undisturbed);
                scope.spawn(move || {
                    let mut client = RawClient::session(address, USER, database);
                    while !over.load(Ordering::Acquire) {
                        let reply = client.query("select pg_sleep(0.002)");
                        assert!(reply.error().is_none(), "{reply:?}");
                        undisturbed.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let victims: Vec<_> = (0..VICTIMS)
            .map(|number| {
                let (address, database, by_peer) = (&address, &database, &by_peer);
                scope.spawn(move || {
                    let mut client = RawClient::session(address, USER, database);
                    by_peer[usize::from(issuer(&client.key)) - 1].fetch_add(1, Ordering::Relaxed);
                    let mut watcher = RawClient::session(&cluster().primary.address(), "postgres", database);
                    for round in 0..ROUNDS {
                        let mark = format!("victim {number} round {round}");
                        client.send(&query(&format!("select pg_sleep(60) /* {mark} */")));
                        let running = format!(
                            "select count(*) from pg_stat_activity where state = 'active' and pid <> pg_backend_pid()
                             and query like '%{mark} %'"
                        );
                        wait_until("the query runs", || watcher.value(&running) == "1");
                        client.cancel();
                        assert_eq!(client.reply().sqlstate(), "57014", "{mark}");
                        // A request without a query is for nobody.
                        client.cancel();
                        assert_eq!(client.value("select 'mine'"), "mine");
                    }
                })
            })
            .collect();
        for victim in victims {
            victim.join().unwrap();
        }
        over.store(true, Ordering::Release);
        for bystander in bystanders {
            bystander.join().unwrap();
        }
    });
    assert!(undisturbed.load(Ordering::Relaxed) > 100);
    let issued = by_peer.map(|count| count.load(Ordering::Relaxed));
    assert_eq!(issued.iter().sum::<u64>(), VICTIMS as u64);
    for (proxy, other) in [(&proxies[0], "2"), (&proxies[1], "1")] {
        let mut console = RawClient::session(&proxy.unix(), "admin", "pgbouncer");
        let pools = console.rows("SHOW PEER_POOLS");
        assert_eq!(pools.iter().map(|row| row[0].as_str()).collect::<Vec<_>>(), ["1", "2"]);
        assert!(pools.iter().all(|row| row[1..].iter().all(|figure| figure == "0")), "nothing is left over: {pools:?}");
        let peers = console.rows("SHOW PEERS");
        let other = peers.iter().find(|row| row[0] == other).unwrap();
        assert_eq!(other[2], proxy.port.to_string());
        assert_eq!(other[3], if other[0] == "2" { "5" } else { "20" });
    }
}

/// A client of the first process, and the second one's socket.
#[test]
fn a_request_that_reaches_the_wrong_process_is_passed_on_to_the_right_one() {
    let database = cluster().database();
    let [first, second] = peers(&database);
    for (own, other) in [(&first, &second), (&second, &first)] {
        let mut client = RawClient::session(&own.unix(), USER, &database);
        assert_eq!(client.key.len(), 8);
        assert_eq!(issuer(&client.key), if std::ptr::eq(own, &first) { 1 } else { 2 });
        assert_eq!(client.key[7] & 3, 3);
        client.send(&query("select pg_sleep(60)"));
        let activity = "select count(*) from pg_stat_activity where state = 'active' and query = 'select pg_sleep(60)'
                        and datname = current_database()";
        let mut watcher = RawClient::session(&cluster().primary.address(), "postgres", &database);
        wait_until("the query runs", || watcher.value(activity) == "1");
        // Its hops are used up: it goes no further.
        let mut exhausted = client.key.clone();
        exhausted[7] &= !3;
        cancel(&other.unix(), &exhausted);
        assert!(client.is_silent_for(Duration::from_millis(100)));
        cancel(&other.unix(), &client.key);
        assert_eq!(client.reply().sqlstate(), "57014");
    }
}

#[test]
fn requests_for_a_peer_are_bounded_and_do_not_wait_for_ever() {
    // The kernel takes its connections, and nobody ever says anything.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database)
        .set("peer_id", 1)
        .set("cancel_wait_timeout", 2)
        .section("peers", "7", format!("host=127.0.0.1 port={} pool_size=2", silent.local_addr().unwrap().port()))
        .start();
    let key = [1, 7, 0, 2, 3, 4, 5, 7];
    let mut requests: Vec<_> = (0..5)
        .map(|_| {
            let mut request = RawClient::connect(&Address::Tcp(proxy.port));
            request.send(&frames::cancel_request(&key));
            request
        })
        .collect();
    let row = || proxy.show("PEER_POOLS").rows[0].clone();
    wait_until("two are passed on, three wait", || row() == ["7", "2", "3", "2", "0"]);
    for request in &mut requests {
        assert_eq!(request.until_closed(), []);
    }
    wait_until("all are given up", || row() == ["7", "0", "0", "0", "0"]);
    assert!(proxy.log().contains("cancel request not forwarded: cancel_wait_timeout"), "{}", proxy.log());
}
