//! How many server connections there are.

use std::{collections::HashSet, thread};

use super::{backends, session_of, waiting};
use crate::support::{Proxy, RawClient, cluster, cluster::USER, frames, proxy::Builder, wait_until};

const OTHER: &str = "stranger";

/// Server connections of these databases that were open at the same time, at most, since the log was `from` bytes long.
/// The proxy logs a closing before its place is free again, and an opening while it holds one: no moment is missed.
fn most_at_once(log: &str, from: usize, databases: &[String]) -> usize {
    let (mut open, mut most, mut at) = (HashSet::new(), 0, 0);
    for line in log.split_inclusive('\n') {
        at += line.len();
        let Some((_, rest)) = line.split_once(" S-") else { continue };
        let Some((id, rest)) = rest.split_once(": ") else { continue };
        if !databases.iter().any(|database| rest.starts_with(&format!("{database}/"))) {
            continue;
        }
        if rest.contains("new connection to server") {
            open.insert(id);
        } else if rest.contains("closing because") {
            assert!(open.remove(id), "{line}");
        }
        if at > from {
            most = most.max(open.len());
        }
    }
    // Perhaps nothing was opened or closed since then.
    most.max(open.len())
}

/// So many clients of each user run transactions at the same time; at no moment have the databases more server
/// connections than `most`, and every client is served.
#[track_caller]
fn storm(proxy: &Proxy, databases: &[String], most: usize) {
    let from = proxy.log().len();
    thread::scope(|scope| {
        for number in 0..16 {
            let user = if number % 2 == 0 { USER } else { OTHER };
            let database = &databases[number / 2 % databases.len()];
            scope.spawn(move || {
                let mut client = session_of(proxy, user, database);
                for _ in 0..12 {
                    client.rows("select pg_sleep(0.005)");
                }
            });
        }
    });
    let seen = most_at_once(&proxy.log(), from, databases);
    assert!((1..=most).contains(&seen), "{seen} server connections, allowed {most}");
}

fn two_workers(database: &str) -> Builder {
    Proxy::of(cluster(), database).set("workers", 2).set("default_pool_size", 8)
}

/// Beside the database there is one whose pool is filled for nobody: once it is, all pools have had their turn.
fn with_witness(database: &str, set: impl FnOnce(Builder) -> Builder) -> (Proxy, String) {
    let witness = cluster().database();
    let builder = Proxy::of(cluster(), database).database(&witness, cluster().primary.port, &format!("user={USER}"));
    (set(builder).start(), witness)
}

/// Sets `min_pool_size`, one more at a time: that takes as many turns as there are connections to open.
fn fill_elsewhere(proxy: &Proxy, witness: &str, most: usize) {
    for least in 1..=most {
        proxy.tell(&format!("SET min_pool_size = {least}"));
        wait_until("the pool of the witness is filled", || backends(witness).len() == least);
    }
}

/// Server connections opened since the start.
fn opened(proxy: &Proxy, database: &str) -> f64 {
    proxy.metrics().sum("pgweir_server_connections_opened_total", &[&format!("database=\"{database}\"")])
}

fn evicted(proxy: &Proxy) -> f64 {
    proxy.metrics().sum("pgweir_server_connections_closed_total", &["reason=\"evicted\""])
}

#[test]
fn a_database_has_no_more_servers_than_allowed_whoever_asks_and_each_client_has_its_turn() {
    let database = cluster().database();
    let proxy = two_workers(&database).set("max_db_connections", 3).start();
    storm(&proxy, std::slice::from_ref(&database), 3);
    proxy.tell("SET max_db_connections = 5");
    storm(&proxy, std::slice::from_ref(&database), 5);
    proxy.tell("SET max_db_connections = 2");
    wait_until("what is beyond the limit is closed", || {
        // What is idle closes as it is used again, or as others need the room.
        session_of(&proxy, USER, &database).rows("select 1");
        backends(&database).len() <= 2
    });
    storm(&proxy, std::slice::from_ref(&database), 2);
}

#[test]
fn a_user_has_no_more_servers_than_allowed_in_all_databases_together() {
    let databases = [cluster().database(), cluster().database()];
    let proxy = two_workers(&databases[0])
        .database(&databases[1], cluster().primary.port, "")
        .section("users", USER, "max_user_connections=2")
        .section("users", OTHER, "max_user_connections=1")
        .start();
    storm(&proxy, &databases, 3);
    proxy.rewrite(|text| text.replace("max_user_connections=2", "max_user_connections=1"));
    proxy.tell("RELOAD");
    wait_until("what is beyond the limit is closed", || {
        session_of(&proxy, USER, &databases[0]).rows("select 1");
        databases.iter().map(|database| backends(database).len()).sum::<usize>() <= 2
    });
    storm(&proxy, &databases, 2);
}

#[test]
fn the_idle_server_of_another_user_makes_room() {
    let database = cluster().database();
    let proxy = two_workers(&database).set("max_db_connections", 1).start();
    let mut first = proxy.session(&database);
    first.rows("select 1");
    assert_eq!(backends(&database), [USER]);
    let mut second = session_of(&proxy, OTHER, &database);
    second.rows("select 1");
    wait_until("the first one's server is closed", || backends(&database) == [OTHER]);
    first.rows("select 1");
    wait_until("the second one's server is closed", || backends(&database) == [USER]);
}

#[test]
fn a_busy_server_of_another_user_is_waited_for_and_the_one_who_waits_is_woken() {
    let database = cluster().database();
    let proxy = two_workers(&database).set("max_db_connections", 1).start();
    let mut second = session_of(&proxy, OTHER, &database);
    second.rows("select 1");
    let mut first = proxy.session(&database);
    first.query("begin");
    second.send(&crate::support::frames::query("select 2"));
    wait_until("the second one waits", || waiting(&proxy, &database) == 1);
    first.query("commit");
    assert_eq!(second.reply().rows(), [["2"]]);
}

#[test]
fn a_pool_keeps_its_least_size_for_a_database_with_a_user_of_its_own() {
    let database = cluster().database();
    let proxy = Proxy::builder()
        .database(&database, cluster().primary.port, &format!("user={USER} min_pool_size=3"))
        .set("server_idle_timeout", 1)
        .start();
    wait_until("the pool is filled", || backends(&database).len() == 3);
    cluster().primary.session("postgres").rows(&format!(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{database}' and usename = '{USER}'"
    ));
    wait_until("the pool is filled again", || backends(&database).len() == 3);
    let mut clients: Vec<_> = (0..5).map(|_| session_of(&proxy, OTHER, &database)).collect();
    clients.iter_mut().for_each(|client| _ = client.query("begin"));
    assert_eq!(backends(&database).len(), 5);
    clients.iter_mut().for_each(|client| _ = client.query("commit"));
    wait_until("what is beyond it is closed when it has rested", || backends(&database).len() == 3);
}

#[test]
fn without_a_user_of_its_own_a_pool_is_filled_only_while_a_client_is_connected() {
    let database = cluster().database();
    let (proxy, witness) =
        with_witness(&database, |builder| builder.set("min_pool_size", 2).set("server_idle_timeout", "0.5"));
    let client = proxy.session(&database);
    wait_until("the pool is filled", || backends(&database).len() == 2);
    client.terminate();
    proxy.tell("SET min_pool_size = 0");
    wait_until("the pools are empty", || backends(&database).is_empty() && backends(&witness).is_empty());
    let before = opened(&proxy, &database);
    fill_elsewhere(&proxy, &witness, 2);
    assert_eq!(opened(&proxy, &database), before, "nobody is connected");
    assert!(backends(&database).is_empty());
}

#[test]
fn filling_a_pool_closes_nobody_elses_server() {
    let database = cluster().database();
    let (proxy, witness) = with_witness(&database, |builder| builder.set("workers", 2).set("max_db_connections", 2));
    let mut first = session_of(&proxy, USER, &database);
    first.rows("select 1");
    // Each of the two has a pool, and the other's servers have taken all the room.
    let mut others: Vec<_> = (0..2).map(|_| session_of(&proxy, OTHER, &database)).collect();
    others.iter_mut().for_each(|other| _ = other.query("begin"));
    others.iter_mut().for_each(|other| _ = other.query("commit"));
    wait_until("the first one's pool is empty", || backends(&database) == [OTHER, OTHER]);
    let before = (opened(&proxy, &database), evicted(&proxy));
    fill_elsewhere(&proxy, &witness, 2);
    assert_eq!((opened(&proxy, &database), evicted(&proxy)), before);
    assert_eq!(backends(&database), [OTHER, OTHER]);
    // There is something to fill: it is, as soon as there is room.
    proxy.tell("SET max_db_connections = 4");
    wait_until("it is filled", || backends(&database).iter().filter(|user| *user == USER).count() == 2);
}

#[test]
fn the_reserve_is_used_when_a_client_has_waited_long_enough() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database)
        .set("default_pool_size", 1)
        .set("reserve_pool_size", 1)
        .set("reserve_pool_timeout", 1)
        .start();
    let mut clients: Vec<RawClient> = (0..3).map(|_| proxy.session(&database)).collect();
    clients[0].query("begin");
    let started = std::time::Instant::now();
    assert!(clients[1].query("begin").error().is_none());
    assert!(started.elapsed() >= std::time::Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(backends(&database).len(), 2);
    assert!(proxy.log().contains("taking connection from reserve_pool"), "{}", proxy.log());
    clients[2].send(&crate::support::frames::query("select 3"));
    assert!(clients[2].is_silent_for(std::time::Duration::from_secs(2)), "the reserve is used up");
    clients[0].query("commit");
    assert_eq!(clients[2].reply().rows(), [["3"]]);
}

#[test]
fn a_lowered_pool_size_closes_idle_servers() {
    let database = cluster().database();
    let proxy = two_workers(&database).start();
    let mut clients: Vec<_> = (0..4).map(|_| proxy.session(&database)).collect();
    clients.iter_mut().for_each(|client| _ = client.query("begin"));
    clients.iter_mut().for_each(|client| _ = client.query("commit"));
    assert_eq!(backends(&database).len(), 4);
    proxy.tell("SET default_pool_size = 2");
    wait_until("two are closed", || backends(&database).len() == 2);
}

#[test]
fn a_first_login_does_not_wait_for_a_server_only_to_hear_what_others_have_heard() {
    let database = cluster().database();
    cluster()
        .primary
        .session("postgres")
        .rows(&format!("alter role plainer in database {database} set timezone = 'Asia/Kathmandu'"));
    let proxy = Proxy::of(cluster(), &database).set("max_db_connections", 1).start();
    let mut busy = proxy.session(&database);
    busy.query("begin");
    let mut late = session_of(&proxy, OTHER, &database);
    assert_eq!(waiting(&proxy, &database), 0);
    assert_eq!(late.parameter("session_authorization"), Some(OTHER));
    for name in ["server_version", "TimeZone", "DateStyle", "is_superuser"] {
        assert_eq!(late.parameter(name), busy.parameter(name), "{name}");
    }
    late.send(&frames::query("select current_user"));
    wait_until("it waits", || waiting(&proxy, &database) == 1);
    // Whose sessions begin with something else is told by a server and nobody else.
    let mut peculiar = RawClient::connect(&proxy.address());
    peculiar.send(&frames::startup(&[("user", "plainer"), ("database", &database)]));
    wait_until("both wait", || waiting(&proxy, &database) == 2);
    assert!(peculiar.is_silent_for(std::time::Duration::from_millis(200)));
    busy.query("commit");
    assert_eq!(late.reply().rows(), [[OTHER]]);
    let told = peculiar.until(b'Z');
    let zone = frames::parameter_status("TimeZone", "Asia/Kathmandu");
    assert!(told.iter().any(|frame| frame.bytes() == zone), "{told:?}");
}
