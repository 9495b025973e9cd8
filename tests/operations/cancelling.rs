//! Cancel requests of many clients that share few server connections.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use crate::support::{
    Proxy, cluster,
    frames::query,
    random::{Random, seeds},
};

const CLIENTS: u64 = 200;
const ROUNDS: usize = 12;

/// What befalls a client in one round.
#[derive(Clone, Copy)]
enum Round {
    /// It cancels its query, whether that waits for a server or runs.
    Cancelled,
    /// It cancels while it runs nothing; what it asks then is answered.
    TooLate,
    /// It runs undisturbed, on a server that others cancel on.
    Undisturbed,
}

#[test]
fn of_two_hundred_clients_that_cancel_at_random_only_the_intended_queries_end() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).set("default_pool_size", 20).set("query_wait_timeout", 120).start();
    let [cancelled, undisturbed] = [const { AtomicU64::new(0) }; 2];
    let seed = seeds(1..2).start;
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (proxy, database, cancelled, undisturbed) = (&proxy, &database, &cancelled, &undisturbed);
            scope.spawn(move || {
                let mut random = Random::new(seed + number);
                let mut client = proxy.session(database);
                client.patience(Duration::from_secs(120));
                // Settings that are brought along: a cancel request must not hit the query that does.
                let time_zone = format!("Etc/GMT+{}", number % 12);
                client.query(&format!("set timezone = '{time_zone}'"));
                for _ in 0..ROUNDS {
                    match [Round::Cancelled, Round::TooLate, Round::Undisturbed][random.below(3)] {
                        Round::Cancelled => {
                            client.send(&query("select pg_sleep(100)"));
                            // One that comes before the query is for nobody.
                            loop {
                                client.cancel();
                                if !client.is_silent_for(Duration::from_millis(20)) {
                                    break;
                                }
                            }
                            assert_eq!(client.reply().sqlstate(), "57014", "seed {seed}, client {number}");
                            cancelled.fetch_add(1, Ordering::Relaxed);
                        }
                        Round::TooLate => client.cancel(),
                        Round::Undisturbed => {}
                    }
                    let ask = format!("select current_setting('timezone'), pg_sleep(0.00{})", random.below(9));
                    assert_eq!(client.rows(&ask), [[time_zone.as_str(), ""]], "seed {seed}, client {number}");
                    undisturbed.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(undisturbed.into_inner(), CLIENTS * ROUNDS as u64);
    assert!(cancelled.into_inner() > CLIENTS, "seed {seed}");
    assert!(proxy.servers(&database).len() <= 20);
    proxy.wait_until_idle(&database);
}
