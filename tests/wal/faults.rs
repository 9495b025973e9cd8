//! The stream is lost: the cache is closed at once, opens again, and nobody gets an answer that is older than promised.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    BOUND, TABLE,
    checker::{Read, Write, stale},
    hearing, mark, proxied, published, started, superuser,
    support::{
        Address, Cluster, Proxy, RawClient, cluster,
        cluster::{Member, USER},
    },
    wait_until, wait_until_heard, warm_up,
};

/// Ends the walsender that serves this database.
pub(crate) fn end_stream(cluster: &Cluster, database: &str) {
    let end = format!(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity \
         where backend_type = 'walsender' and application_name = 'pgweir-wal' and datname = '{database}'"
    );
    assert_eq!(superuser(cluster, "postgres").value(&end), "1");
}

fn gaps(proxy: &Proxy, database: &str) -> i64 {
    proxy.show("CACHE").number("database", database, "direct_gaps")
}

/// Says so when it is dropped, also by a test that fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A writer without the proxy and a reader through it, neither of which minds being cut off, while `disturb` runs.
fn stale_while(
    cluster: &Cluster,
    proxy: &Proxy,
    database: &str,
    disturb: impl FnOnce(&dyn Fn()),
) -> (usize, Vec<(Read, Write)>) {
    let read = format!("select v from t {}", mark());
    let (is_over, next) = (AtomicBool::new(false), AtomicI64::new(1));
    let (reads, writes) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    // A session that is opened again whenever it has ended.
    let ask = |session: &mut Option<RawClient>, address: &Address, sql: &str| -> Option<String> {
        if session.is_none() {
            let mut client = RawClient::try_connect(address).ok()?;
            client.try_send(&super::support::frames::startup(&[("user", USER), ("database", database)])).ok()?;
            let greeting = client.until_closed_or(b'Z');
            *session = greeting.last().is_some_and(|last| last.tag == b'Z').then_some(client);
        }
        let client = session.as_mut()?;
        let is_sent = client.try_send(&super::support::frames::query(sql)).is_ok();
        let frames = client.until_closed_or(b'Z');
        if !is_sent || frames.last().is_none_or(|last| last.tag != b'Z') {
            *session = None;
            return None;
        }
        let reply = super::support::Reply { frames };
        reply.error().is_none().then(|| reply.rows().first().map_or(String::new(), |row| row[0].clone()))
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut session = None;
            while !is_over.load(Ordering::Relaxed) {
                let value = next.fetch_add(1, Ordering::Relaxed);
                if ask(&mut session, &cluster.primary.address(), &format!("update t set v = {value}")).is_some() {
                    writes.lock().unwrap().push(Write { acknowledged: Instant::now(), value });
                }
                thread::sleep(Duration::from_millis(20));
            }
        });
        scope.spawn(|| {
            let mut session = None;
            while !is_over.load(Ordering::Relaxed) {
                let began = Instant::now();
                if let Some(found) = ask(&mut session, &proxy.address(), &read) {
                    reads.lock().unwrap().push(Read { began, found: found.parse().unwrap() });
                }
            }
        });
        let _over = Over(&is_over);
        disturb(&|| {
            let before = reads.lock().unwrap().len();
            wait_until("it is read again and again", || reads.lock().unwrap().len() > before + 30);
        });
    });
    let (reads, writes) = (reads.into_inner().unwrap(), writes.into_inner().unwrap());
    println!("{} reads, {} direct writes", reads.len(), writes.len());
    (reads.len(), stale(&reads, &writes, BOUND))
}

#[test]
fn a_stream_that_is_ended_closes_the_cache_until_there_is_another_one() {
    let (proxy, database) = proxied(TABLE);
    let (reads, stale) = stale_while(cluster(), &proxy, &database, |read_on| {
        read_on();
        for round in 1..=6 {
            end_stream(cluster(), &database);
            wait_until("it is noticed", || gaps(&proxy, &database) == round);
            wait_until_heard(&proxy, &database);
            read_on();
        }
    });
    assert!(stale.is_empty() && reads > 100, "{} of {reads}: {:?}", stale.len(), stale.first());
    warm_up(cluster(), &mut proxy.session(&database), &format!("select v from t {}", mark()));
    let metrics = proxy.metrics();
    assert_eq!(metrics.sum("pgweir_wal_stream_gaps_total", &[&database]), 6.0);
    assert!(metrics.sum("pgweir_wal_horizon_age_seconds", &[&database]) < 1.5);
}

#[test]
fn a_primary_that_restarts_or_crashes_is_followed_again() {
    let own = Cluster::start();
    let database = published(&own, TABLE);
    let proxy = started(hearing(&own, &database).set("server_login_retry", "0.2"), &database);
    let (reads, stale) = stale_while(&own, &proxy, &database, |read_on| {
        read_on();
        for stop in [Member::stop_fast, Member::stop] {
            let before = gaps(&proxy, &database);
            stop(&own.primary);
            // A server that shuts down may begin another stream, and end that as well.
            wait_until("it is noticed", || gaps(&proxy, &database) > before);
            own.primary.start();
            wait_until_heard(&proxy, &database);
            read_on();
        }
    });
    assert!(stale.is_empty() && reads > 100, "{} of {reads}: {:?}", stale.len(), stale.first());
}

#[test]
fn a_primary_that_stands_still_closes_the_cache_without_a_word() {
    let own = Cluster::start();
    let database = published(&own, TABLE);
    let proxy = started(hearing(&own, &database), &database);
    let mut reader = proxy.session(&database);
    let read = format!("select v from t {}", mark());
    warm_up(&own, &mut reader, &read);
    let direct_writes = || proxy.show("CACHE").select("database", &database, "direct_writes");
    let frozen = own.primary.freeze();
    let since = Instant::now();
    // Nobody says anything: what is known is old by itself.
    wait_until("it is too old", || direct_writes() == ["unheard"]);
    println!("closed after {:?}", since.elapsed());
    reader.send(&super::support::frames::query(&read));
    assert!(reader.is_silent_for(Duration::from_millis(300)), "the server is asked, and stands still");
    drop(frozen);
    assert_eq!(reader.reply().rows(), [["0"]]);
    wait_until_heard(&proxy, &database);
    warm_up(&own, &mut reader, &read);
}
