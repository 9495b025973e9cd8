//! Reads go to the replicas by weight, everything else to the primary, and nobody reads older data than he wrote.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails loudly"
)]

mod support;

#[path = "routing/placing.rs"]
mod placing;
#[path = "routing/tokens.rs"]
mod tokens;

use std::{
    sync::{Barrier, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use support::{
    Member, Proxy, RawClient, cluster,
    frames::{bind, execute, parse, sync},
    proxy::Builder,
    wait_until,
};

/// The replicas are disturbed here, so one test runs at a time; dropping it puts them right again.
struct Turn {
    _guard: MutexGuard<'static, ()>,
}

fn turn() -> Turn {
    static TURN: Mutex<()> = Mutex::new(());
    Turn { _guard: TURN.lock().unwrap_or_else(PoisonError::into_inner) }
}

impl Drop for Turn {
    fn drop(&mut self) {
        for replica in replicas() {
            replica.resume_replay();
        }
    }
}

fn replicas() -> &'static [Member; 2] {
    &cluster().replicas
}

/// Weights 2 and 1; every server logs the statements of this database, so that their marks can be counted.
fn routed(configure: impl FnOnce(Builder) -> Builder) -> (Proxy, String) {
    let database = cluster().database();
    cluster().log_statements(&database);
    cluster().prepare(&database, "create table t(id int primary key, v int); insert into t values (1, 0)");
    let builder = Proxy::of(cluster(), &database).replicas(&database, &[(&replicas()[0], 2), (&replicas()[1], 1)]);
    let proxy = configure(builder.section("routing", "max_replica_lag", 2)).start();
    wait_until_replicas_serve(&proxy, &database);
    (proxy, database)
}

/// How often a mark occurs in the statement logs of primary, first and second replica.
fn counts(mark: &str) -> [usize; 3] {
    let [first, second] = replicas();
    [&cluster().primary, first, second].map(|member| member.executions(mark))
}

/// Reads until both replicas have served one.
#[track_caller]
fn wait_until_replicas_serve(proxy: &Proxy, database: &str) -> Duration {
    let mut session = proxy.session(database);
    let mark = format!("/* warm up {} */", support::scratch::scratch().unique());
    wait_until("both replicas serve reads", || {
        session.rows(&format!("select v from t {mark}"));
        let [_, first, second] = counts(&mark);
        first > 0 && second > 0
    })
}

/// Runs statements of one session; where each of them was executed.
fn executed(session: &mut RawClient, statement: &str) -> [usize; 3] {
    let mark = format!("/* mark {} */", support::scratch::scratch().unique());
    let reply = session.query(&format!("{statement} {mark}"));
    assert!(reply.error().is_none(), "{statement}: {reply:?}");
    counts(&mark)
}

#[test]
fn reads_are_shared_out_by_weight() {
    let _turn = turn();
    let (proxy, database) = routed(|builder| builder);
    let mut session = proxy.session(&database);
    for _ in 0..300 {
        session.rows("select v from t /* by weight */");
    }
    let [primary, first, second] = counts("/* by weight */");
    assert_eq!(primary, 0);
    assert!((190..=210).contains(&first) && first + second == 300, "{first} and {second} at weights 2 and 1");
    // Side by side; what little is read on the primary waited for a connection to be opened.
    let all_are_open = Barrier::new(4);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut session = proxy.session(&database);
                // The connections that they need are opened before it counts, and have grown old enough.
                (0..500).for_each(|_| _ = session.rows("select v from t /* before that */"));
                all_are_open.wait();
                (0..2500).for_each(|_| _ = session.rows("select v from t /* by weight, side by side */"));
            });
        }
    });
    let [primary, first, second] = counts("/* by weight, side by side */");
    let (all, share) = (primary + first + second, (first + second) * 2 / 3);
    assert!(all == 10_000 && primary <= 100, "{primary} of {all} on the primary");
    assert!(first.abs_diff(share) <= share / 20, "{first} and {second} at weights 2 and 1");
}

#[test]
fn a_replica_of_weight_zero_serves_nothing() {
    let _turn = turn();
    let database = cluster().database();
    cluster().log_statements(&database);
    cluster().prepare(&database, "create table t(id int primary key, v int); insert into t values (1, 0)");
    let proxy =
        Proxy::of(cluster(), &database).replicas(&database, &[(&replicas()[0], 0), (&replicas()[1], 1)]).start();
    let mut session = proxy.session(&database);
    wait_until("the other replica serves", || executed(&mut session, "select v from t")[2] == 1);
    for _ in 0..50 {
        session.rows("select v from t /* weight zero */");
    }
    assert_eq!(counts("/* weight zero */"), [0, 0, 50]);
}

#[test]
fn extended_and_prepared_reads_go_to_replicas_too() {
    let _turn = turn();
    let (proxy, database) = routed(|builder| builder);
    let mut session = proxy.session(&database);
    session.prepare("s", "select v from t where id = $1 /* prepared */");
    for _ in 0..30 {
        assert_eq!(session.execute("s", &["1"]).rows(), [["0"]]);
        assert_eq!(session.extended("select v + $1::int from t /* unnamed */", &["1"]).rows(), [["1"]]);
    }
    for mark in ["/* prepared */", "/* unnamed */"] {
        let [primary, first, second] = counts(mark);
        assert_eq!((primary, first > 0, second > 0), (0, true, true), "{mark}");
    }
}

#[test]
fn whatever_may_write_runs_on_the_primary() {
    let _turn = turn();
    let (proxy, database) = routed(|builder| builder);
    cluster().prepare(
        &database,
        "create sequence s; create function writes() returns int language sql volatile as 'insert into t values (50, 0) returning v';
         create view hiding as select writes() as v",
    );
    let mut session = proxy.session(&database);
    for statement in [
        "insert into t values (2, 0)",
        "update t set v = 1 where id = 2",
        "delete from t where id = 2",
        "with w as (insert into t values (3, 0) returning v) select v from w",
        "select v from t for update",
        "select v from t for share",
        "select nextval('s')",
        "select writes()",
        "delete from t where id = 50; select v from hiding",
        "select pg_advisory_xact_lock(1)",
        "select random()",
        "explain analyze update t set v = v",
    ] {
        assert_eq!(executed(&mut session, statement), [1, 0, 0], "{statement}");
    }
}

#[test]
fn a_transaction_runs_where_it_began() {
    let _turn = turn();
    let (proxy, database) = routed(|builder| builder);
    let mut session = proxy.session(&database);
    session.query("begin");
    for _ in 0..5 {
        assert_eq!(executed(&mut session, "select v from t"), [1, 0, 0]);
    }
    session.query("commit");
    for begin in ["begin read only", "start transaction isolation level repeatable read, read only"] {
        session.query(begin);
        let place = executed(&mut session, "select v from t");
        assert_eq!(place[0], 0, "a read-only transaction is a replica's work");
        for _ in 0..5 {
            assert_eq!(executed(&mut session, "select v from t"), place);
        }
        assert_eq!(session.query("insert into t values (9, 9)").sqlstate(), "25006");
        session.query("rollback");
    }
    session.query("begin isolation level serializable read only");
    assert_eq!(executed(&mut session, "select v from t"), [1, 0, 0]);
    session.query("commit");
}

#[test]
fn a_pipeline_with_a_write_is_not_torn_apart() {
    let _turn = turn();
    let (proxy, database) = routed(|builder| builder);
    let mut session = proxy.session(&database);
    let statement = |sql: &str| [parse("", sql), bind("", &[]), execute("", 0)].concat();
    let reply = session.exchange(
        &[statement("select v from t"), statement("update t set v = 77"), statement("select v from t"), sync()]
            .concat(),
    );
    assert_eq!(reply.rows(), [["0"], ["77"]]);
}

#[test]
fn hints_choose_the_place() {
    let _turn = turn();
    let (proxy, database) = routed(|builder| builder);
    let mut session = proxy.session(&database);
    assert_eq!(executed(&mut session, "/* pgweir: primary */ select v from t"), [1, 0, 0]);
    assert_eq!(executed(&mut session, "select '/* pgweir: primary */', v from t")[0], 0, "not inside a literal");
    session.query("update t set v = v");
    assert_eq!(executed(&mut session, "select v from t /* pgweir: replica */")[0], 0, "however old");
    session.query("set pgweir.route = 'primary'");
    assert_eq!(executed(&mut session, "select v from t"), [1, 0, 0]);
    session.query("set pgweir.route = 'auto'");
    wait_until("reads go to replicas again", || executed(&mut session, "select v from t")[0] == 0);
}

#[test]
fn the_client_sees_one_server() {
    let _turn = turn();
    let (proxy, database) = routed(|builder| builder);
    let mut session = proxy.session(&database);
    for _ in 0..5 {
        session.rows("select v from t");
        assert_eq!(session.parameter("in_hot_standby"), Some("off"));
        assert_eq!(session.value("select pg_is_in_recovery()"), "f");
        assert_eq!(session.value("show transaction_read_only"), "off");
    }
}

#[test]
fn every_session_reads_what_it_wrote_while_both_replicas_stand_still() {
    let _turn = turn();
    let (proxy, database) = routed(|builder| builder);
    cluster().prepare(&database, "create table w(session int primary key, v int)");
    for replica in replicas() {
        replica.pause_replay();
    }
    thread::scope(|scope| {
        for number in 0..16 {
            let (proxy, database) = (&proxy, &database);
            scope.spawn(move || write_and_read_back(&mut proxy.session(database), number, 32));
        }
    });
    for replica in replicas() {
        replica.resume_replay();
    }
    let took = wait_until_replicas_serve(&proxy, &database);
    assert!(took < Duration::from_secs(1), "reads came back to the replicas after {took:?}");
}

fn write_and_read_back(session: &mut RawClient, number: i32, times: i32) {
    let read = format!("select v from w where session = {number}");
    session.rows(&format!("insert into w values ({number}, 0)"));
    for v in 1..=times {
        match v % 4 {
            0 => drop(session.rows(&format!("begin; update w set v = {v} where session = {number}; commit"))),
            1 => drop(session.rows(&format!("update w set v = {v} where session = {number}"))),
            2 => {
                let update = "update w set v = $1::int where session = $2::int";
                session.extended(update, &[&v.to_string(), &number.to_string()]);
            }
            _ => {
                session.rows("begin");
                session.rows(&format!("update w set v = {v} where session = {number}"));
                session.rows("commit");
            }
        }
        assert_eq!(session.value(&read), v.to_string(), "session {number} reads its own write");
    }
}

#[test]
fn with_freshness_per_database_a_session_reads_what_another_wrote() {
    let _turn = turn();
    let (proxy, database) = routed(|builder| builder.section("routing", "read_your_writes", "database"));
    let (mut writer, mut reader) = (proxy.session(&database), proxy.session(&database));
    for replica in replicas() {
        replica.pause_replay();
    }
    for v in 1..=30 {
        writer.rows(&format!("update t set v = {v}"));
        assert_eq!(reader.value("select v from t"), v.to_string());
    }
}

#[test]
fn a_dead_replica_is_left_out_and_comes_back() {
    let _turn = turn();
    let (proxy, database) = routed(|builder| builder);
    let mut session = proxy.session(&database);
    replicas()[0].stop();
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        session.rows("select v from t");
    }
    assert_eq!(executed(&mut session, "select v from t"), [0, 0, 1]);
    replicas()[0].start();
    wait_until_replicas_serve(&proxy, &database);
}

#[test]
fn reads_that_wait_for_a_connection_to_a_replica_that_dies_run_on_the_primary() {
    let _turn = turn();
    let database = cluster().database();
    cluster().log_statements(&database);
    cluster().prepare(&database, "create table t(id int primary key, v int); insert into t values (1, 0)");
    let replica = &replicas()[0];
    let proxy =
        Proxy::of(cluster(), &database).replicas(&database, &[(replica, 1)]).set("default_pool_size", 1).start();
    let mut long = proxy.session(&database);
    wait_until("the replica serves", || executed(&mut long, "select v from t")[1] == 1);
    let mut queued: Vec<RawClient> = (0..3).map(|_| proxy.session(&database)).collect();
    long.send(&support::frames::query("select count(*) from t, generate_series(1, 2000000000) /* endless */"));
    wait_until("it runs on the replica", || replica.executions("/* endless */") == 1);
    for (number, client) in queued.iter_mut().enumerate() {
        client.send(&support::frames::query(&format!("select v from t /* queued {number} */")));
    }
    let waiting = || -> i64 {
        proxy.show("POOLS").select("database", &database, "cl_waiting").iter().map(|n| n.parse::<i64>().unwrap()).sum()
    };
    wait_until("they wait", || waiting() == 3);
    replica.stop();
    wait_until("what ran there runs on the primary", || cluster().primary.executions("/* endless */") == 1);
    long.cancel();
    assert_eq!(long.reply().sqlstate(), "57014");
    for (number, client) in queued.iter_mut().enumerate() {
        assert_eq!(client.reply().rows(), [["0"]]);
        assert_eq!(counts(&format!("/* queued {number} */")), [1, 0, 0]);
    }
    replica.start();
    wait_until("the replica serves again", || executed(&mut queued[0], "select v from t")[1] == 1);
}

#[test]
fn with_no_replica_alive_the_primary_serves_the_reads() {
    let _turn = turn();
    let (proxy, database) = routed(|builder| builder);
    let mut session = proxy.session(&database);
    for replica in replicas() {
        replica.stop();
    }
    for _ in 0..50 {
        assert_eq!(session.value("select v from t"), "0");
    }
    assert_eq!(executed(&mut session, "select v from t"), [1, 0, 0]);
    for replica in replicas() {
        replica.start();
    }
    wait_until_replicas_serve(&proxy, &database);
}

#[test]
fn a_replica_that_lags_too_far_is_left_out_and_comes_back() {
    let _turn = turn();
    let (proxy, database) = routed(|builder| builder.section("routing", "read_your_writes", "off"));
    let mut session = proxy.session(&database);
    replicas()[0].pause_replay();
    // The clock of the lag runs only while the primary writes.
    wait_until("the lagging replica serves nothing", || {
        session.rows("update t set v = v + 1");
        (0..6).all(|_| executed(&mut session, "select v from t")[1] == 0)
    });
    replicas()[0].resume_replay();
    wait_until_replicas_serve(&proxy, &database);
}

/// Process ids of the server connections to a member that are to be kept.
fn servers(proxy: &Proxy, member: &Member) -> Vec<String> {
    let mut table = proxy.show("SERVERS");
    let needed = table.position("close_needed");
    table.rows.retain(|row| row[needed] == "0");
    table.select("port", &member.port.to_string(), "remote_pid")
}

#[test]
fn a_replica_that_comes_or_goes_by_reload_leaves_the_connections_to_other_members_alone() {
    let _turn = turn();
    let (proxy, database) = routed(|builder| builder.set("default_pool_size", 1));
    let [first, second] = replicas();
    let primary = &cluster().primary;
    let mut session = proxy.session(&database);
    session.rows("select v from t for update");
    let kept = [servers(&proxy, primary), servers(&proxy, second)];
    assert_eq!(kept.each_ref().map(Vec::len), [1, 1]);
    let mut busy = proxy.session(&database);
    let line = format!("{database}.r1 = host=127.0.0.1 port={} weight=2\n", first.port);
    let change = |change: fn(String, &str, &str) -> String, busy: &mut RawClient| {
        busy.query("begin");
        busy.query("insert into t values ((select max(id) + 1 from t), 0)");
        let mut waiting = proxy.session(&database);
        waiting.send(&support::frames::query("update t set v = v + 1 where id = 1"));
        wait_until("it waits", || proxy.show("POOLS").column("cl_waiting").contains(&"1".to_owned()));
        proxy.rewrite(|text| change(text, &line, &format!("{database}.r2 = ")));
        proxy.tell("RELOAD");
        assert!(waiting.is_silent_for(Duration::from_millis(100)));
        assert_eq!(busy.query("commit").tags(), ["COMMIT"]);
        assert_eq!(waiting.reply().tags(), ["UPDATE 1"]);
        assert_eq!([servers(&proxy, primary), servers(&proxy, second)], kept);
    };
    // The one that stays is the first replica from then on.
    change(|text, line, _| text.replace(line, ""), &mut busy);
    assert!(servers(&proxy, first).is_empty());
    wait_until("the other one serves", || executed(&mut session, "select v from t") == [0, 0, 1]);
    assert_eq!(servers(&proxy, second), kept[1]);
    change(|text, line, other| text.replace(other, &format!("{line}{other}")), &mut busy);
    wait_until("the new one serves", || executed(&mut session, "select v from t") == [0, 1, 0]);
    assert_eq!([servers(&proxy, primary), servers(&proxy, second)], kept);
}

#[test]
fn a_reload_does_not_forget_who_the_primary_is() {
    let _turn = turn();
    let database = cluster().database();
    cluster().prepare(&database, "create table t(id serial primary key, v int)");
    cluster().prepare(&database, "grant all on all sequences in schema public to app");
    // As after a failover: the file names a standby first.
    let (standby, primary) = (&replicas()[0], &cluster().primary);
    let proxy = Proxy::builder()
        .database(&database, standby.port, "pool_size=4")
        .section("replicas", &format!("{database}.r1"), format!("host=127.0.0.1 port={} role=any", primary.port))
        .section("routing", "read_write_split", 1)
        .section("routing", "lag_check_interval", "0.05")
        .start();
    let mut writer = proxy.session(&database);
    wait_until("the primary is found", || writer.query("insert into t(v) values (0)").error().is_none());
    let kept = servers(&proxy, primary);
    for size in 5..10 {
        proxy.rewrite(|text| text.replace(&format!("pool_size={}", size - 1), &format!("pool_size={size}")));
        proxy.tell("RELOAD");
        for _ in 0..20 {
            let reply = writer.query("insert into t(v) values (0)");
            assert!(reply.error().is_none(), "{reply:?}");
        }
    }
    assert_eq!(servers(&proxy, primary), kept);
}

#[test]
fn show_replicas_tells_each_members_state() {
    let _turn = turn();
    let (proxy, database) = routed(|builder| builder);
    let table = proxy.show("REPLICAS");
    let ports = table.select("database", &database, "port");
    for replica in replicas() {
        assert!(ports.contains(&replica.port.to_string()), "{table:?}");
    }
}

#[test]
fn show_route_explains_without_running() {
    let _turn = turn();
    let (proxy, database) = routed(|builder| builder);
    for (sql, route, reason) in [
        ("select v from t where id = 1", "replica", "read"),
        ("insert into t values (500, 1)", "primary", "write"),
        ("select v from t for update", "primary", "row_lock"),
        ("select random()", "primary", "volatile_function"),
    ] {
        let table = proxy.show(&format!("ROUTE FOR {database} {sql}"));
        let row = &table.rows[0];
        assert_eq!(
            (row[table.position("route")].as_str(), row[table.position("reason")].as_str()),
            (route, reason),
            "{sql}"
        );
    }
    assert_eq!(proxy.session(&database).value("select count(*) from t where id = 500"), "0");
}

#[test]
fn what_only_the_catalog_tells_is_read_back_while_replicas_stand_still() {
    let _turn = turn();
    let (proxy, database) = routed(|builder| builder);
    let mut session = proxy.session(&database);
    cluster().primary.session(&database).rows("alter table t owner to app");
    cluster().catch_up();
    wait_until_replicas_serve(&proxy, &database);
    for replica in replicas() {
        replica.pause_replay();
    }
    for (write, read, expected) in [
        ("comment on table t is 'commented'", "select obj_description('t'::regclass)", "commented"),
        ("create index t_v on t (v)", "select count(*) from pg_indexes where indexname = 't_v'", "1"),
    ] {
        session.query(write);
        assert_eq!(session.value(read), expected, "{write}");
    }
}

#[test]
fn a_write_in_front_of_a_read_only_transaction_runs_on_the_primary() {
    let _turn = turn();
    let (proxy, database) = routed(|builder| builder);
    let mut session = proxy.session(&database);
    for (string, end) in [
        ("insert into t values (77, 1); begin read only", "rollback"),
        ("select pg_advisory_lock(77); begin read only", "commit; select pg_advisory_unlock(77)"),
    ] {
        let reply = session.query(string);
        assert!(reply.error().is_none(), "{string}: {reply:?}");
        assert_eq!(session.value("select pg_is_in_recovery()"), "f", "{string}");
        session.query(end);
    }
}
