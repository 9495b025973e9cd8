//! What a proxy that was killed has left running on the primary: the one that comes after it answers nothing from before.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails loudly"
)]

mod support;

use std::time::{Duration, Instant};

use pgweir::cluster::under_way::QUERY;
use support::{
    Proxy, RawClient, cluster,
    cluster::{Member, SUPERUSER, USER},
    hits::mark,
    redis::Redis,
    wait_until,
};

const SCHEMA: &str = "create table t(id int primary key, v int); insert into t values (1, 0); \
     create table gate(id int); \
     create function wait() returns void language plpgsql as $$ begin perform pg_advisory_lock(42); end $$; \
     create function wait_and_write() returns void language plpgsql as \
       $$ begin perform wait(); update t set v = v + 1 where id = 1; end $$; \
     create function late() returns trigger language plpgsql as $$ begin perform wait(); return null; end $$; \
     create constraint trigger late after insert on gate deferrable initially deferred for each row execute function late()";
const READ: &str = "select v from t where id = 1";

/// A session on the primary that lets nobody through its gate, until it is told to.
struct Gate(RawClient);

impl Gate {
    fn closed(database: &str) -> Self {
        let mut session = cluster().primary.session(database);
        session.rows("select pg_advisory_lock(42)");
        Self(session)
    }

    /// Waits until somebody stands in front of it.
    fn is_waited_at(&mut self) {
        let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted \
                       and database = (select oid from pg_database where datname = current_database())";
        wait_until("somebody waits", || self.0.value(waiting) == "1");
    }

    /// Lets them through and waits until they are done.
    fn open(&mut self) {
        self.0.rows("select pg_advisory_unlock(42)");
        let running = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() \
                       and query like any (array['%commit%', '%wait_and_write%', '%late%'])";
        wait_until("nothing runs on", || self.0.value(running) == "0");
    }
}

/// The proxy is killed while the last of these statements is on its way, and comes back: a session of the new one, which has
/// read `read`.
fn killed_behind(statements: &[&str], read: &str) -> (String, Proxy, Gate, RawClient) {
    let database = cluster().database();
    cluster().prepare(&database, SCHEMA);
    cluster().log_statements(&database);
    let mut proxy = Proxy::of(cluster(), &database).cached().start();
    let mut gate = Gate::closed(&database);
    let mut writer = proxy.session(&database);
    let (last, first) = statements.split_last().unwrap();
    for statement in first {
        let reply = writer.query(statement);
        assert!(reply.error().is_none(), "{reply:?}");
    }
    writer.send(&support::frames::query(last));
    gate.is_waited_at();
    proxy.die();
    proxy.come_back();
    proxy.wait_for_catalog(&database);
    let mut reader = proxy.session(&database);
    wait_until("the cache answers, or says why not", || {
        assert_eq!(reader.value(read), "0", "nothing is committed yet");
        let figures = proxy.metrics();
        let requests = |of: &str| figures.sum("pgweir_cache_requests_total", &[of]);
        requests("\"hit\"") + requests("write_in_flight") > 0.0
    });
    (database, proxy, gate, reader)
}

fn check(statements: &[&str]) {
    let read = format!("{READ} {}", mark());
    let (database, _proxy, mut gate, mut reader) = killed_behind(statements, &read);
    gate.open();
    let truth = cluster().primary.session(&database).value(&read);
    assert_eq!(truth, "1", "it has run on");
    assert_eq!(reader.value(&read), truth, "{statements:?}");
    wait_until("answers are kept again", || {
        let before = cluster().primary.executions(&read);
        assert_eq!(reader.value(&read), truth);
        cluster().primary.executions(&read) == before
    });
}

#[test]
fn a_commit_that_hangs_while_its_proxy_is_replaced_is_never_answered_without() {
    check(&["begin", "update t set v = v + 1 where id = 1", "insert into gate values (1)", "commit"]);
}

#[test]
fn a_statement_that_writes_only_after_its_proxy_was_replaced_is_never_answered_without() {
    check(&["select wait_and_write()"]);
}

#[test]
fn statements_that_wait_behind_one_another_for_a_server_whose_proxy_is_gone_are_never_answered_without() {
    check(&["begin; insert into gate values (1); commit; update t set v = v + 1 where id = 1"]);
}

#[test]
fn rights_that_are_taken_away_after_their_proxy_was_replaced_are_gone() {
    let read = format!("{READ} {}", mark());
    let revoke = format!("revoke select on t from {USER}");
    let statements = ["begin", &revoke, "insert into gate values (1)", "commit"];
    let (_, _proxy, mut gate, mut reader) = killed_behind(&statements, &read);
    gate.open();
    assert_eq!(reader.query(&read).sqlstate(), "42501");
}

#[test]
fn who_has_locked_a_table_before_a_proxy_came_keeps_no_other_from_the_cache() {
    let database = cluster().database();
    cluster().prepare(&database, SCHEMA);
    cluster().log_statements(&database);
    let mut idle = cluster().primary.session(&database);
    idle.query("begin");
    idle.query("update t set v = v + 1");
    let proxy = Proxy::of(cluster(), &database).cached().start();
    let mut reader = proxy.session(&database);
    let (here, elsewhere) = (format!("{READ} {}", mark()), format!("select count(*) from gate {}", mark()));
    wait_until("a hit elsewhere", || {
        let before = cluster().primary.executions(&elsewhere);
        reader.value(&elsewhere);
        cluster().primary.executions(&elsewhere) == before
    });
    for round in 1..=3 {
        assert_eq!(reader.value(&here), "0");
        assert_eq!(cluster().primary.executions(&here), round, "it may be another one any time");
    }
    idle.query("commit");
    assert_eq!(reader.value(&here), "1");
    wait_until("a hit", || {
        let before = cluster().primary.executions(&here);
        assert_eq!(reader.value(&here), "1");
        cluster().primary.executions(&here) == before
    });
}

#[test]
fn whoever_joins_learns_what_a_killed_proxy_has_left_running() {
    let redis = Redis::start();
    let database = cluster().database();
    cluster().prepare(&database, SCHEMA);
    cluster().log_statements(&database);
    let start = || {
        let url = format!("redis://127.0.0.1:{}/0", redis.port);
        let builder = Proxy::of(cluster(), &database).cached().section("cache", "redis_url", url);
        builder.section("cache", "redis_timeout", "0.5").section("cache", "secret", "known to all of them").start()
    };
    let (mut left, right) = (start(), start());
    let mut gate = Gate::closed(&database);
    let mut writer = left.session(&database);
    writer.send(&support::frames::query("select wait_and_write()"));
    gate.is_waited_at();
    left.die();
    let third = start();
    // The one that came last is asked first: nobody can have told it that what ran is over.
    let mut readers = [&third, &right].map(|proxy| proxy.session(&database));
    let read = format!("{READ} {}", mark());
    for (reader, proxy) in readers.iter_mut().zip([&third, &right]) {
        wait_until("the cache answers, or says why not", || {
            assert_eq!(reader.value(&read), "0", "nothing is committed yet");
            let figures = proxy.metrics();
            let requests = |of: &str| figures.sum("pgweir_cache_requests_total", &[of]);
            requests("\"hit\"") + requests("write_in_flight") > 0.0
        });
    }
    gate.open();
    for reader in &mut readers {
        assert_eq!(reader.value(&read), "1");
        wait_until("answers are kept again", || {
            let before = cluster().primary.executions(&read);
            assert_eq!(reader.value(&read), "1");
            cluster().primary.executions(&read) == before
        });
    }
}

#[test]
fn a_prepared_transaction_whose_commit_hangs_while_its_proxy_is_replaced_is_never_answered_without() {
    let server = Member::alone();
    let mut admin = server.session("postgres");
    admin.rows(SCHEMA);
    let mut other = server.session("postgres");
    other.rows("create table ballast(id int)");
    let mut proxy = Proxy::builder().database("postgres", server.port, "").cached().start();
    let session = |proxy: &Proxy| RawClient::session(&proxy.address(), SUPERUSER, "postgres");
    let mut writer = session(&proxy);
    for statement in ["begin", "update t set v = v + 1 where id = 1", "prepare transaction 'x'"] {
        assert!(writer.query(statement).error().is_none(), "{statement}");
    }
    // No commit ends before a standby has it that does not exist.
    server.configure("synchronous_standby_names", "nobody");
    wait_until("commits wait", || {
        other.send(&support::frames::query("insert into ballast values (1)"));
        admin.value("select count(*) from pg_stat_activity where wait_event = 'SyncRep'") == "1"
    });
    writer.send(&support::frames::query("commit prepared 'x'"));
    let running =
        |count: &str| format!("select count(*) = {count} from pg_stat_activity where query like 'commit prepared%'");
    wait_until("it hangs", || admin.value(&format!("{} and wait_event = 'SyncRep'", running("1"))) == "t");
    proxy.die();
    proxy.come_back();
    let mut reader = session(&proxy);
    wait_until("the cache answers, or says why not", || {
        assert_eq!(reader.value(READ), "0", "nothing is visible yet");
        let figures = proxy.metrics();
        let requests = |of: &str| figures.sum("pgweir_cache_requests_total", &[of]);
        requests("\"hit\"") + requests("write_in_flight") > 0.0
    });
    server.configure("synchronous_standby_names", "");
    wait_until("it is committed", || admin.value(READ) == "1");
    assert_eq!(reader.value(READ), "1");
}

#[test]
fn a_look_at_a_server_with_many_sessions_and_locks_takes_milliseconds() {
    const SESSIONS: usize = 300;
    const TABLES: usize = 25;
    let server = Member::alone();
    let mut admin = server.session("postgres");
    let numbers = 0..TABLES;
    let create: Vec<_> = numbers.clone().map(|table| format!("create table part{table}(id int)")).collect();
    admin.rows(&create.join("; "));
    let lock: Vec<_> = numbers.map(|table| format!("lock table part{table} in row exclusive mode")).collect();
    let lock = format!("begin; {}", lock.join("; "));
    let mut sessions: Vec<_> = (0..SESSIONS).map(|_| server.session("postgres")).collect();
    for session in &mut sessions {
        assert!(session.query(&lock).error().is_none());
    }
    let look = |admin: &mut RawClient| {
        let since = Instant::now();
        let reply = admin.extended(QUERY, &["pgweir-control"]);
        assert!(reply.error().is_none(), "{reply:?}");
        (since.elapsed(), reply.rows())
    };
    let (_, rows) = look(&mut admin);
    // One of them asks.
    assert_eq!(rows.len(), SESSIONS + 1);
    assert_eq!(rows.iter().filter(|row| row[3].split(',').count() == TABLES).count(), SESSIONS);
    let mut times: Vec<Duration> = (0..9).map(|_| look(&mut admin).0).collect();
    times.sort_unstable();
    println!("{SESSIONS} sessions with {TABLES} locks each: a look takes {:?}, at most {:?}", times[4], times[8]);
    assert!(times[4] < Duration::from_secs(1), "{times:?}");
}
