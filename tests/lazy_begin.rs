//! A plain BEGIN is placed by its first statement, and nobody can tell but by where it ran (`lazy_begin`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails loudly"
)]

mod support;

use support::{
    Member, Proxy, RawClient, Reply, cluster,
    frames::{bind, describe_portal, execute, parse, query, sync},
    hits::mark,
    random::{Random, seeds},
    wait_until,
};

const TABLE: &str = "create table t(id int primary key, v int); insert into t select i, i from generate_series(1, 9) i";
const WHERE: &str = "select pg_is_in_recovery()";

fn replica() -> &'static Member {
    &cluster().replicas[0]
}

fn routed(lazy_begin: u8) -> (Proxy, String) {
    routed_with(lazy_begin, "session")
}

fn routed_with(lazy_begin: u8, read_your_writes: &str) -> (Proxy, String) {
    let database = cluster().database();
    cluster().log_statements(&database);
    cluster().prepare(&database, TABLE);
    let proxy = Proxy::of(cluster(), &database).replicas(&database, &[(replica(), 1)]);
    let proxy = proxy.section("routing", "lazy_begin", lazy_begin);
    let proxy = proxy.section("routing", "read_your_writes", read_your_writes).start();
    proxy.wait_for_catalog(&database);
    let (mut session, mark) = (proxy.session(&database), mark());
    wait_until("the replica serves", || {
        session.query(&format!("select v from t {mark}"));
        replica().executions(&mark) > 0
    });
    (proxy, database)
}

/// One statement by the extended protocol.
fn extended(session: &mut RawClient, sql: &str) -> Reply {
    session.exchange(&[parse("", sql), bind("", &[]), describe_portal(""), execute("", 0), sync()].concat())
}

/// Begins a transaction whose first read runs on the replica.
#[track_caller]
fn begun(proxy: &Proxy, database: &str) -> RawClient {
    let mut session = proxy.session(database);
    wait_until("its read runs on the replica", || {
        session.query("rollback");
        let begun = session.query("begin");
        assert_eq!((begun.tags(), begun.status()), (vec!["BEGIN".to_owned()], 'T'));
        let mark = mark();
        let read = session.query(&format!("select v from t where id = 1 {mark}"));
        assert_eq!((read.rows(), read.status()), (vec![vec!["1".to_owned()]], 'T'));
        replica().executions(&mark) == 1
    });
    session
}

#[test]
fn reads_between_begin_and_commit_reach_a_replica() {
    let (proxy, database) = routed(1);
    let mut session = begun(&proxy, &database);
    let done = session.query("commit");
    assert_eq!((done.tags(), done.status()), (vec!["COMMIT".to_owned()], 'I'));
    let begun = extended(&mut session, "START TRANSACTION");
    assert_eq!((begun.shape(), begun.tags()), ("12nCZ".to_owned(), vec!["START TRANSACTION".to_owned()]));
    assert_eq!(begun.status(), 'T');
    assert_eq!(extended(&mut session, "select v from t where id = 2").rows(), [["2"]]);
    assert_eq!(extended(&mut session, "rollback").tags(), ["ROLLBACK"]);
    wait_until("the same by the extended protocol", || {
        let mark = mark();
        extended(&mut session, "begin");
        assert_eq!(extended(&mut session, &format!("select v from t where id = 2 {mark}")).status(), 'T');
        extended(&mut session, "commit");
        replica().executions(&mark) == 1
    });
    assert!(proxy.metrics().sum("pgweir_requests_total", &["route=\"replica\""]) > 0.0);
    let before = proxy.show("stats").number("database", &database, "total_xact_count");
    session.query("begin");
    session.query("select v from t");
    session.query("commit");
    let count = || proxy.show("stats").number("database", &database, "total_xact_count") - before;
    assert_eq!(count(), 1);
}

#[test]
fn a_transaction_in_which_nothing_runs_needs_no_server() {
    let (proxy, database) = routed(1);
    let mut session = proxy.session(&database);
    for (begin, end, tag) in [("begin", "end", "COMMIT"), ("BEGIN work", "abort", "ROLLBACK")] {
        assert_eq!(session.query(begin).status(), 'T');
        let ended = session.query(end);
        assert_eq!((ended.tags(), ended.status()), (vec![tag.to_owned()], 'I'));
        assert_eq!(extended(&mut session, begin).status(), 'T');
        let ended = extended(&mut session, end);
        assert_eq!((ended.shape(), ended.tags(), ended.status()), ("12nCZ".to_owned(), vec![tag.to_owned()], 'I'));
    }
    assert_eq!(session.query("insert into t values (100, 1)").tags(), ["INSERT 0 1"]);
}

#[test]
fn a_write_behind_reads_moves_with_all_that_follows_and_is_seen() {
    let (proxy, database) = routed(1);
    let mut session = begun(&proxy, &database);
    assert_eq!(session.query("insert into t values (50, 1)").tags(), ["INSERT 0 1"]);
    assert_eq!(session.value("select count(*) from t"), "10");
    assert_eq!(extended(&mut session, "update t set v = 7 where id = 50").tags(), ["UPDATE 1"]);
    assert_eq!(session.query("commit").tags(), ["COMMIT"]);
    assert_eq!(cluster().primary.session(&database).value("select v from t where id = 50"), "7");
    // Its next transaction sees it, wherever that runs.
    session.query("begin");
    assert_eq!(session.value("select v from t where id = 50"), "7");
    session.query("delete from t where id = 50");
    session.query("rollback");
    assert_eq!(session.value("select v from t where id = 50"), "7");
    assert!(proxy.metrics().sum("pgweir_read_only_escapes_total", &["outcome=\"moved\""]) >= 1.0);
}

#[test]
fn the_time_of_a_transaction_is_one_and_the_primarys() {
    let (proxy, database) = routed(1);
    let mut session = begun(&proxy, &database);
    let first = session.value("select now()");
    assert_eq!(session.value(WHERE), "f");
    session.value("select v from t where id = 1");
    assert_eq!(session.value("select now()"), first);
    session.rows("insert into t values (60, 1)");
    assert_eq!(session.value("select current_timestamp = now() and transaction_timestamp() = now()"), "t");
    assert_eq!(session.value("select now()"), first);
    session.rows("commit");
    // A value may name the clock as well.
    let mut session = begun(&proxy, &database);
    session.prepare("at", "select $1::timestamptz");
    let bound = session.execute("at", &["now"]).rows();
    assert_eq!(session.rows("select now()"), bound);
}

#[test]
fn what_ties_a_transaction_to_its_server_runs_on_the_primary_as_ever() {
    let (proxy, database) = routed(1);
    for statement in [
        "savepoint s",
        "declare c cursor for select v from t",
        "set local work_mem = '8MB'",
        "set transaction isolation level read committed",
        "lock table t in share mode",
        "show transaction_read_only",
        "select 1 from t for update",
        "prepare p as select 1",
        "select pg_advisory_xact_lock(5)",
        "select v from t; select v from t",
        "select txid_current() is not null",
    ] {
        let mut session = begun(&proxy, &database);
        let reply = session.query(statement);
        assert!(reply.error().is_none(), "{statement}: {reply:?}");
        assert_eq!(session.value(WHERE), "f", "{statement}");
        assert_eq!(session.value("show transaction_read_only"), "off", "{statement}");
        assert_eq!(session.query("commit").tags(), ["COMMIT"]);
    }
    let mut session = begun(&proxy, &database);
    let limited = [parse("", "select v from t order by id"), bind("", &[]), execute("", 2), sync()].concat();
    assert_eq!(session.exchange(&limited).rows(), [["1"], ["2"]]);
    assert_eq!(session.exchange(&[execute("", 2), sync()].concat()).rows(), [["3"], ["4"]]);
    assert_eq!(session.query("insert into t values (70, 1)").tags(), ["INSERT 0 1"]);
    session.query("rollback");
}

#[test]
fn an_error_fails_the_transaction_until_it_ends() {
    let (proxy, database) = routed(1);
    let mut session = begun(&proxy, &database);
    let failed = session.query("select v / (v - v) from t");
    assert_eq!((failed.sqlstate(), failed.status()), ("22012".to_owned(), 'E'));
    let refused = session.query("insert into t values (80, 1)");
    assert_eq!((refused.sqlstate(), refused.status()), ("25P02".to_owned(), 'E'));
    let ended = session.query("commit");
    assert_eq!((ended.tags(), ended.status()), (vec!["ROLLBACK".to_owned()], 'I'));
    // A write behind the end, in one message.
    let mut session = begun(&proxy, &database);
    assert_eq!(session.query("select v / (v - v) from t").status(), 'E');
    let both = session.query("rollback; insert into t values (81, 1)");
    assert_eq!((both.tags(), both.status()), (vec!["ROLLBACK".to_owned(), "INSERT 0 1".to_owned()], 'I'));
}

#[test]
fn whoever_says_more_than_begin_begins_at_the_primary() {
    let (proxy, database) = routed(1);
    let mut session = proxy.session(&database);
    for begin in [
        "begin isolation level repeatable read",
        "begin isolation level serializable",
        "begin read write",
        "begin /* pgweir: primary */",
    ] {
        let mark = mark();
        assert_eq!(session.query(begin).status(), 'T');
        session.rows(&format!("select v from t where id = 1 {mark}"));
        let ran = (replica().executions(&mark), cluster().primary.executions(&mark));
        assert_eq!(ran, (0, 1), "{begin}");
        session.query("commit");
    }
    let (proxy, database) = routed(0);
    let (mut session, mark) = (proxy.session(&database), mark());
    session.query("begin");
    session.rows(&format!("select v from t where id = 1 {mark}"));
    assert_eq!(replica().executions(&mark), 0, "it is switched off");
}

#[test]
fn a_pipeline_of_requests_is_answered_in_order_wherever_they_run() {
    let (proxy, database) = routed(1);
    let mut session = proxy.session(&database);
    let texts = ["begin", "select v from t where id = 1", "insert into t values (90, 1)", "select 1", "commit"];
    for _ in 0..2 {
        session.send(&texts.map(query).concat());
        let tags: Vec<_> = texts.iter().map(|_| session.reply().tags().concat()).collect();
        assert_eq!(tags, ["BEGIN", "SELECT 1", "INSERT 0 1", "SELECT 1", "COMMIT"]);
        session.query("delete from t where id = 90");
    }
}

#[test]
fn who_rests_in_a_transaction_that_no_server_knows_is_late_as_any_other() {
    let database = cluster().database();
    cluster().prepare(&database, TABLE);
    let proxy = Proxy::of(cluster(), &database).replicas(&database, &[(replica(), 1)]);
    let proxy = proxy.section("routing", "lazy_begin", 1).set("idle_transaction_timeout", 1).start();
    proxy.wait_for_catalog(&database);
    let mut session = proxy.session(&database);
    assert_eq!(session.query("begin").status(), 'T');
    let words = session.until_closed();
    assert!(words.iter().any(|frame| frame.field(b'M').is_some_and(|it| it.contains("idle transaction"))), "{words:?}");
}

const STEPS: &[&str] = &[
    "begin",
    "begin",
    "begin",
    "start transaction",
    "begin isolation level repeatable read",
    "commit",
    "commit",
    "rollback",
    "commit and chain",
    "rollback and chain",
    "commit; insert into t values (1000, 1)",
    "rollback; delete from t where id = 1000",
    "select * from t order by id",
    "select * from t order by id",
    "select v from t where id = 3",
    "select count(*), sum(v) from t",
    "select 1",
    "select v / (v - 3) from t where id < 5 order by id",
    "select nothing from t",
    "selec",
    "",
    "select now() = current_timestamp",
    "show transaction_read_only",
    "show transaction_isolation",
    "update t set v = v + 1 where id = 3",
    "insert into t values (1000, 5)",
    "delete from t where id = 1000",
    "savepoint s",
    "rollback to s",
    "release s",
    "declare c cursor for select id from t order by id",
    "fetch 2 from c",
    "set local work_mem = '8MB'",
    "show work_mem",
    "select v from t where id = 1 for update",
    "select 1; select 2",
    "select pg_advisory_xact_lock(9)",
    "set transaction read only",
    "set transaction isolation level serializable",
];

/// What a client can tell of an answer.
fn told(reply: &Reply) -> (String, Vec<Vec<String>>, Vec<String>, String, char) {
    let sqlstate = if reply.error().is_some() { reply.sqlstate() } else { String::new() };
    (reply.shape(), reply.rows(), reply.tags(), sqlstate, reply.status())
}

#[test]
fn random_transactions_are_answered_as_by_the_primary_itself() {
    // Fences would keep nearly all of it on the primary: what is committed is waited for here.
    let (proxy, database) = routed_with(1, "off");
    let direct = cluster().database();
    cluster().prepare(&direct, TABLE);
    for seed in seeds(5..13) {
        println!("SEED={seed}");
        let mut random = Random::new(seed);
        let (mut through, mut beside) = (proxy.session(&database), cluster().primary.session(&direct));
        let mut said = Vec::new();
        for _ in 0..500 {
            let sql = STEPS[random.below(STEPS.len())];
            let by_extended = random.one_in(2) && !sql.contains(';');
            said.push(sql);
            let run = |session: &mut RawClient| match by_extended {
                true => extended(session, sql),
                false => session.query(sql),
            };
            let (ours, theirs) = (run(&mut through), run(&mut beside));
            assert_eq!(told(&ours), told(&theirs), "seed {seed}: {:?}", &said[said.len().saturating_sub(12)..]);
            if ours.status() == 'I' && ["commit", "insert", "update", "delete"].iter().any(|word| sql.contains(word)) {
                cluster().catch_up();
            }
        }
        through.query("rollback");
        beside.query("rollback");
        proxy.wait_until_idle(&database);
    }
    let moved = proxy.metrics().sum("pgweir_read_only_escapes_total", &["outcome=\"moved\""]);
    let on_replica = proxy.metrics().sum("pgweir_requests_total", &["route=\"replica\""]);
    println!("moved {moved}, on a replica {on_replica}");
    assert!(moved > 4.0 && on_replica > 100.0, "moved {moved}, on a replica {on_replica}");
}
