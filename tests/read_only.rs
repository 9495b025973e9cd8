//! READ ONLY transactions run on a replica until a statement needs the primary.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails loudly"
)]

mod support;

use support::{
    Member, Proxy, RawClient, cluster,
    frames::{bind, execute, parse, query, sync},
    scratch::scratch,
    wait_until,
};

const REPEATABLE: &str = "begin isolation level repeatable read read only";

fn replica() -> &'static Member {
    &cluster().replicas[0]
}

/// A table and one replica, which logs what it runs.
fn routed() -> (Proxy, String) {
    let database = cluster().database();
    cluster().log_statements(&database);
    cluster().prepare(&database, "create table t(v int); insert into t values (1)");
    let proxy = Proxy::of(cluster(), &database).replicas(&database, &[(replica(), 1)]).start();
    (proxy, database)
}

/// The replica has an idle connection that is old enough to be trusted.
fn wait_until_it_serves(proxy: &Proxy, database: &str) {
    let mut session = proxy.session(database);
    let mark = format!("/* serves {} */", scratch().unique());
    wait_until("the replica serves", || {
        session.query(&format!("select v from t {mark}"));
        replica().executions(&mark) > 0
    });
}

fn moved(proxy: &Proxy) -> f64 {
    proxy.metrics().sum("pgweir_read_only_escapes_total", &["outcome=\"moved\""])
}

/// Begins with these statements, the last of which reads on the replica.
fn begun(proxy: &Proxy, database: &str, begin: &str) -> RawClient {
    wait_until_it_serves(proxy, database);
    let mut session = proxy.session(database);
    session.rows(begin);
    let mark = format!("/* in it {} */", scratch().unique());
    assert_eq!(session.value(&format!("select v from t {mark}")), "1");
    assert_eq!(replica().executions(&mark), 1, "{begin} is not on the replica");
    session
}

#[test]
fn behind_plain_reads_the_transaction_goes_on_at_the_primary() {
    let (proxy, database) = routed();
    let mut listener = proxy.session(&database);
    listener.rows("listen news");
    let mut session = begun(&proxy, &database, "begin read only");
    assert_eq!(session.query("notify news, 'sent'").tags(), ["NOTIFY"]);
    assert_eq!(session.value("select pg_is_in_recovery()"), "f");
    assert_eq!(session.value("show transaction_read_only"), "on");
    let refused = session.query("insert into t values (2)");
    assert_eq!((refused.sqlstate(), refused.status()), ("25006".to_owned(), 'E'));
    session.query("rollback");
    let mut session = begun(&proxy, &database, "begin read only");
    session.rows("notify news, 'committed'");
    assert_eq!(session.query("commit").tags(), ["COMMIT"]);
    let heard = listener.until(b'A').pop().unwrap();
    assert!(String::from_utf8_lossy(&heard.body).contains("committed"), "{heard:?}");
    assert_eq!(moved(&proxy), 2.0);
    assert_eq!(session.query("insert into t values (3)").tags(), ["INSERT 0 1"]);
}

#[test]
fn the_first_statement_decides_whatever_the_isolation() {
    let (proxy, database) = routed();
    wait_until_it_serves(&proxy, &database);
    let primary = &cluster().primary;
    let mut session = proxy.session(&database);
    session.rows(REPEATABLE);
    session.rows("select pg_advisory_lock(77)");
    let held = "select count(*) from pg_locks where locktype = 'advisory' and objid = 77";
    assert_eq!(primary.session(&database).value(held), "1");
    session.rows("commit");
    assert_eq!(session.query("insert into t values (2)").tags(), ["INSERT 0 1"], "what it holds is on the primary");
    session.rows("select pg_advisory_unlock(77)");

    session.rows("begin read only");
    session.rows("set transaction read write");
    assert_eq!(session.query("insert into t values (3)").tags(), ["INSERT 0 1"]);
    session.rows("commit");
    assert_eq!(primary.session(&database).value("select count(*) from t where v = 3"), "1");
}

/// The replica replays nothing until this is dropped.
struct Paused;

impl Paused {
    fn now() -> Self {
        replica().pause_replay();
        Self
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        replica().resume_replay();
    }
}

/// Sessions see what others were told of, as they would on the primary.
#[test]
fn a_query_that_must_see_what_its_replica_lacks_takes_the_transaction_to_the_primary() {
    let database = cluster().database();
    cluster().log_statements(&database);
    cluster().prepare(&database, "create table t(v int); insert into t values (1)");
    let proxy = Proxy::of(cluster(), &database).replicas(&database, &[(replica(), 1)]);
    let proxy = proxy.section("routing", "read_your_writes", "database").start();
    let mut writer = proxy.session(&database);
    let mut first = begun(&proxy, &database, "begin read only");
    let mut second = begun(&proxy, &database, REPEATABLE);
    let mut prepared = begun(&proxy, &database, "begin read only");
    prepared.exchange(&[parse("p", "select count(*) from t"), sync()].concat());
    let mut unread = proxy.session(&database);
    let begin = format!("{REPEATABLE} /* {} */", scratch().unique());
    wait_until("it begins on the replica", || {
        unread.query("rollback");
        unread.rows(&begin);
        replica().executions(&begin) > 0
    });
    let mut cursor = begun(&proxy, &database, "begin read only");
    cursor.rows("declare c cursor for select v from t");
    {
        let _paused = Paused::now();
        writer.rows("insert into t values (2)");
        let count = "select count(*) from t";
        assert_eq!(first.value(count), "2", "a statement under READ COMMITTED has a snapshot of its own");
        assert_eq!(unread.value(count), "2", "the first query makes the snapshot");
        assert_eq!(second.value(count), "1", "the first query has made the snapshot");
        let run = [bind("p", &[]), execute("", 0), sync()].concat();
        assert_eq!(prepared.exchange(&run).rows(), [["2"]]);
        assert_eq!(cursor.rows("fetch all from c"), [["1"]], "a cursor has its own snapshot");
    }
    assert_eq!(moved(&proxy), 3.0);
    for mut session in [first, second, prepared, unread, cursor] {
        assert_eq!(session.query("commit").tags(), ["COMMIT"]);
    }
    // On what nobody has written since, it stays.
    let _quiet = begun(&proxy, &database, "begin read only");
    assert_eq!(moved(&proxy), 3.0);
}

#[test]
fn what_is_prepared_in_it_ties_nobody_to_a_replica() {
    let (proxy, database) = routed();
    let mut session = begun(&proxy, &database, "begin read only");
    session.rows("prepare p as select v from t");
    session.rows("commit");
    assert_eq!(session.query("insert into t values (2)").tags(), ["INSERT 0 1"]);
    assert_eq!(session.rows("execute p").len(), 2);
}

#[test]
fn too_late_to_move_the_replica_answers_and_what_it_cannot_do_is_refused() {
    let (proxy, database) = routed();
    let mut session = begun(&proxy, &database, REPEATABLE);
    assert_eq!(session.value("select random() < 2"), "t");
    let refused = session.query("select pg_advisory_lock(78)");
    assert_eq!((refused.sqlstate(), refused.status()), ("25006".to_owned(), 'E'));
    assert!(refused.error().unwrap().field(b'H').is_some());
    assert_eq!(session.query("select 1").sqlstate(), "25P02", "the transaction has failed on the server, too");
    assert_eq!(session.query("rollback").status(), 'I');
    assert_eq!(session.value("select v from t"), "1");
    let metrics = proxy.metrics();
    let count = |outcome: &str| metrics.sum("pgweir_read_only_escapes_total", &[&format!("outcome=\"{outcome}\"")]);
    assert_eq!((count("moved"), count("stayed"), count("refused")), (0.0, 1.0, 1.0));

    // The same as an extended request, with the statement's name free again.
    let mut session = begun(&proxy, &database, REPEATABLE);
    let lock =
        |name: &str| [parse(name, "select pg_advisory_lock(78)"), bind(name, &[]), execute("", 0), sync()].concat();
    let refused = session.exchange(&lock("p"));
    assert_eq!((refused.sqlstate(), refused.status()), ("25006".to_owned(), 'E'));
    session.rows("rollback");
    assert!(session.exchange(&lock("p")).error().is_none());
    assert_eq!(session.value("select pg_advisory_unlock(78)"), "t");
}

#[test]
fn a_write_behind_the_commit_in_one_message_runs_on_the_primary() {
    let (proxy, database) = routed();
    let mut session = begun(&proxy, &database, REPEATABLE);
    assert_eq!(session.query("commit; insert into t values (2)").tags(), ["COMMIT", "INSERT 0 1"]);
    let mut session = begun(&proxy, &database, REPEATABLE);
    let batch = [
        parse("", "rollback"),
        bind("", &[]),
        execute("", 0),
        parse("", "insert into t values (3)"),
        bind("", &[]),
        execute("", 0),
        sync(),
    ];
    let reply = session.exchange(&batch.concat());
    assert_eq!(reply.tags(), ["ROLLBACK", "INSERT 0 1"]);
    assert_eq!(cluster().primary.session(&database).value("select count(*) from t where v in (2, 3)"), "2");
}

#[test]
fn prepared_statements_and_pipelines_move_with_their_transaction() {
    let (proxy, database) = routed();
    let mut session = begun(&proxy, &database, "begin read only");
    session.prepare("read", "select v from t where v = $1");
    assert_eq!(session.execute("read", &["1"]).rows(), [["1"]]);
    session.prepare("lock", "select pg_advisory_xact_lock(79), pg_is_in_recovery()");
    // All of it was sent before anything is answered.
    let run = |name: &str, value: &[&str]| [bind(name, value), execute("", 0), sync()].concat();
    session.send(&[run("read", &["1"]), run("lock", &[]), run("read", &["1"]), query("commit")].concat());
    assert_eq!(session.reply().rows(), [["1"]]);
    assert_eq!(session.reply().rows(), [["", "f"]]);
    assert_eq!(session.reply().rows(), [["1"]]);
    assert_eq!(session.reply().tags(), ["COMMIT"]);
    assert_eq!(moved(&proxy), 1.0);
}

#[test]
fn a_cursor_keeps_its_transaction_on_the_replica() {
    let (proxy, database) = routed();
    let mut session = begun(&proxy, &database, "begin read only");
    session.rows("declare c cursor for select v from t");
    assert_eq!(session.query("notify news").sqlstate(), "25006");
    session.rows("rollback");
    assert_eq!(moved(&proxy), 0.0);
}
