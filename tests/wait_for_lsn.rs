//! A read that no replica can serve yet waits on one, where PostgreSQL 19 says when it can (`wait_for_lsn_timeout`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails loudly"
)]

mod support;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use support::{Member, Proxy, RawClient, cluster, frames::query, hits::mark, standby19::Standby19, wait_until};

/// The replica of these tests; its replay goes on when the test has ended.
struct Turn(#[allow(dead_code, reason = "held")] MutexGuard<'static, ()>);

fn turn() -> Turn {
    static TURN: Mutex<()> = Mutex::new(());
    Turn(TURN.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Drop for Turn {
    fn drop(&mut self) {
        replica().resume_replay();
    }
}

fn replica() -> &'static Member {
    &cluster().replicas[0]
}

/// One replica on that port serves reads.
fn routed(port: u16, timeout: &str) -> (Proxy, String) {
    let database = cluster().database();
    cluster().log_statements(&database);
    cluster().prepare(&database, "create table t(v int); insert into t values (0)");
    let proxy = Proxy::of(cluster(), &database)
        .section("replicas", &format!("{database}.r1"), format!("host=127.0.0.1 port={port}"))
        .section("routing", "read_write_split", 1)
        .section("routing", "lag_check_interval", "0.05")
        .section("routing", "max_replica_lag", 600)
        .section("routing", "wait_for_lsn_timeout", timeout)
        .start();
    let mut session = proxy.session(&database);
    wait_until("the replica serves", || {
        let mark = mark();
        session.rows(&format!("select v from t {mark}"));
        replica().executions(&mark) == 1
    });
    (proxy, database)
}

/// How often it ran on the primary and on the replica.
fn ran(mark: &str) -> [usize; 2] {
    [cluster().primary.executions(mark), replica().executions(mark)]
}

/// Reads what the session has just written, once more each time, until a read of its has waited: that one's mark.
fn read_until_one_waits(session: &mut RawClient, door: &Standby19, value: &str) -> String {
    let before = door.waits();
    let mut last = String::new();
    wait_until("a read waits", || {
        last = mark();
        assert_eq!(session.value(&format!("select v from t {last}")), value);
        door.waits() > before
    });
    last
}

#[test]
fn a_read_behind_a_write_waits_on_the_replica_until_that_has_replayed_it() {
    let _turn = turn();
    let door = Standby19::start(replica().port);
    let (proxy, database) = routed(door.port, "10");
    let mut session = proxy.session(&database);
    replica().pause_replay();
    session.query("update t set v = 1");
    // Until the primary has been asked how far it is, the primary serves.
    let mut last = String::new();
    wait_until("a read waits", || {
        last = mark();
        session.send(&query(&format!("select v from t {last}")));
        let waits = session.is_silent_for(Duration::from_millis(500));
        if !waits {
            assert_eq!(session.reply().rows(), [["1"]]);
        }
        waits
    });
    assert_eq!((door.waits(), ran(&last)), (1, [0, 0]));
    replica().resume_replay();
    assert_eq!(session.reply().rows(), [["1"]]);
    assert_eq!(ran(&last), [0, 1]);
    assert!(proxy.metrics().sum("pgweir_requests_total", &["reason=\"waited\""]) >= 1.0);
}

#[test]
fn what_is_not_replayed_in_time_is_read_on_the_primary() {
    let _turn = turn();
    let door = Standby19::start(replica().port);
    let (proxy, database) = routed(door.port, "0.2");
    let mut session = proxy.session(&database);
    replica().pause_replay();
    session.query("update t set v = 1");
    let last = read_until_one_waits(&mut session, &door, "1");
    assert_eq!(ran(&last), [1, 0]);
    assert!(proxy.metrics().sum("pgweir_requests_total", &["reason=\"wait_timeout\""]) >= 1.0);
    let waits = door.waits();
    assert_eq!(session.value("/* pgweir: max_staleness=600s */ select v from t"), "0", "that may be old");
    session.query("begin read only");
    assert_eq!(session.value("select v from t"), "1");
    session.query("commit");
    assert_eq!(door.waits(), waits, "whole transactions do not wait");
}

#[test]
fn a_replica_that_cannot_say_leaves_the_read_to_the_primary() {
    let _turn = turn();
    let door = Standby19::start(replica().port);
    door.refuse();
    let (proxy, database) = routed(door.port, "10");
    let mut session = proxy.session(&database);
    replica().pause_replay();
    session.query("update t set v = 1");
    let last = read_until_one_waits(&mut session, &door, "1");
    assert_eq!(ran(&last), [1, 0]);
    assert!(proxy.metrics().sum("pgweir_requests_total", &["reason=\"wait_failed\""]) >= 1.0);
}

#[test]
fn nobody_waits_unless_that_is_asked_for_nor_where_the_server_is_older() {
    let _turn = turn();
    let door = Standby19::start(replica().port);
    for (port, timeout) in [(door.port, "0"), (replica().port, "10")] {
        let (proxy, database) = routed(port, timeout);
        let mut session = proxy.session(&database);
        replica().pause_replay();
        session.query("update t set v = 1");
        wait_until("the primary has said how far it is", || {
            assert_eq!(session.value("select v from t"), "1");
            proxy.metrics().sum("pgweir_requests_total", &["reason=\"not_replayed\""]) >= 10.0
        });
        assert_eq!((door.waits(), replica().executions("WAIT FOR")), (0, 0));
        replica().resume_replay();
    }
}
