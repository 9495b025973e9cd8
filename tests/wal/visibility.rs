//! The stream tells of commits that nobody can see yet.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    BOUND, TABLE, direct, hearing, is_hit, mark, published, started, superuser,
    support::{Cluster, Proxy, RawClient, wait::wait_at_most},
    wait_until, warm_up,
};

/// A primary whose commits can be made to wait: every other server would wait as well, so it is nobody else's.
fn waiting_for_nobody(primary: &Cluster, is_waiting: bool) {
    primary.primary.configure("synchronous_standby_names", if is_waiting { "nobody" } else { "" });
    // It is the checkpointer that lets commits wait, as soon as it has read the configuration itself.
    primary.primary.session("postgres").rows("checkpoint");
}

/// A direct write hangs behind a standby that does not exist; while it is in the stream and cannot be seen, the read is
/// cached again. Then it becomes visible. Returns whether the read is still the old one, later than promised.
fn refill_in_the_window(
    configure: impl FnOnce(super::Builder) -> super::Builder,
    is_told: fn(&Proxy, &str) -> bool,
) -> bool {
    let cluster = Cluster::start();
    let database = published(&cluster, TABLE);
    let proxy = started(configure(hearing(&cluster, &database)), &database);
    let mut reader = proxy.session(&database);
    let read = format!("select v from t {}", mark());
    warm_up(&cluster, &mut reader, &read);
    waiting_for_nobody(&cluster, true);
    let mut writer = direct(&cluster, &database);
    let writing = thread::spawn(move || writer.query("update t set v = 1"));
    wait_until("the commit waits", || {
        superuser(&cluster, &database).value("select count(*) from pg_stat_activity where wait_event = 'SyncRep'")
            == "1"
    });
    wait_until("the stream has told of it", || is_told(&proxy, &database));
    assert_eq!(superuser(&cluster, &database).value("select v from t"), "0", "nobody can see it");
    warm_up(&cluster, &mut reader, &read);
    assert_eq!(reader.value(&read), "0");
    waiting_for_nobody(&cluster, false);
    assert!(writing.join().unwrap().error().is_none());
    let acknowledged = Instant::now();
    assert_eq!(superuser(&cluster, &database).value("select v from t"), "1");
    loop {
        let began = Instant::now();
        let found = reader.value(&read);
        if found == "1" {
            return false;
        }
        if began > acknowledged + BOUND + Duration::from_millis(500) {
            return true;
        }
    }
}

#[test]
fn an_answer_brought_while_a_commit_cannot_be_seen_does_not_survive_it() {
    let is_told =
        |proxy: &Proxy, database: &str| proxy.metrics().sum("pgweir_wal_transactions_waiting", &[database]) >= 1.0;
    assert!(!refill_in_the_window(|builder| builder, is_told), "it is stale");
}

/// A test that never finds anything proves nothing.
#[cfg(debug_assertions)]
#[test]
fn without_the_look_at_what_can_be_seen_a_stale_answer_is_found() {
    let is_told = |proxy: &Proxy, database: &str| {
        proxy.metrics().sum("pgweir_cache_invalidations_total", &["source=\"wal\"", database]) >= 1.0
    };
    // A machine that is late would close the cache in time, and then there would be nothing to find.
    let configure = |builder: super::Builder| {
        builder.environment("PGWEIR_ABLATE", "visibility").section("cache", "max_staleness_direct", 60)
    };
    assert!(refill_in_the_window(configure, is_told));
}

/// Such a commit stands before the slot, so that the stream will not tell of it.
#[test]
fn a_commit_that_cannot_be_seen_when_the_stream_begins_voids_once_it_can() {
    let cluster = Cluster::start();
    let database = published(&cluster, TABLE);
    // Transactions that run when a slot is asked for hold it up, and so would this one: it commits meanwhile.
    let proxy = started(hearing(&cluster, &database), &database);
    waiting_for_nobody(&cluster, true);
    let mut writer = direct(&cluster, &database);
    let writing = thread::spawn(move || writer.query("update t set v = 1"));
    wait_until("the commit waits", || {
        superuser(&cluster, &database).value("select count(*) from pg_stat_activity where wait_event = 'SyncRep'")
            == "1"
    });
    let gaps = |proxy: &Proxy| proxy.show("CACHE").number("database", &database, "direct_gaps");
    super::faults::end_stream(&cluster, &database);
    wait_until("the stream is lost", || gaps(&proxy) == 1);
    // Nothing is kept while the cache is closed, so what is read is what can be seen.
    let mut reader = proxy.session(&database);
    let read = format!("select v from t {}", mark());
    assert_eq!(reader.value(&read), "0");
    assert!(!is_hit(&cluster, &mut reader, &read));
    waiting_for_nobody(&cluster, false);
    assert!(writing.join().unwrap().error().is_none());
    let acknowledged = Instant::now();
    loop {
        let began = Instant::now();
        let found = reader.value(&read);
        assert!(found == "1" || began < acknowledged + BOUND, "stale");
        if found == "1" {
            break;
        }
    }
    super::wait_until_heard(&proxy, &database);
    warm_up(&cluster, &mut reader, &read);
}

/// Asynchronous commits can be seen before they are in the log on disk, from which the stream is read.
#[test]
fn asynchronous_commits_are_seen_in_time() {
    let (proxy, database) = super::proxied(TABLE);
    let mut writer = direct(super::cluster(), &database);
    writer.rows("set synchronous_commit = off");
    let mut reader: RawClient = proxy.session(&database);
    let read = format!("select v from t {}", mark());
    warm_up(super::cluster(), &mut reader, &read);
    for value in 1..=20 {
        writer.rows(&format!("update t set v = {value}"));
        let acknowledged = Instant::now();
        loop {
            let began = Instant::now();
            if reader.value(&read) == value.to_string() {
                break;
            }
            assert!(began < acknowledged + BOUND, "stale");
        }
        wait_at_most(Duration::from_secs(30), "it is cached again", || is_hit(super::cluster(), &mut reader, &read));
    }
}
