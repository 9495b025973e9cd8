//! Reads inside of transactions are answered from memory where PostgreSQL would say the same, and only there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails loudly"
)]

mod support;

use support::{
    Proxy, RawClient, Reply, cluster,
    frames::{bind_as, close_portal, describe_portal, execute, parse, sync},
    hits::mark,
    wait_until,
};

const TABLE: &str = "create table t(id int primary key, v int); insert into t values (1, 0), (2, 0)";
const READ: &str = "select v from t where id = 1";

fn caching(in_transactions: u8) -> (Proxy, String) {
    let database = cluster().database();
    cluster().prepare(&database, TABLE);
    cluster().log_statements(&database);
    let proxy = Proxy::of(cluster(), &database).cached().section("cache", "in_transactions", in_transactions).start();
    proxy.wait_for_catalog(&database);
    (proxy, database)
}

#[track_caller]
fn say(session: &mut RawClient, sql: &str) -> Reply {
    let reply = session.query(sql);
    assert!(reply.error().is_none(), "{sql}: {reply:?}");
    reply
}

/// What it says, and whether the server had nothing to do with it.
#[track_caller]
fn ask(session: &mut RawClient, read: &str, mark: &str) -> (String, bool) {
    let before = cluster().primary.executions(mark);
    let reply = say(session, &format!("{read} {mark}"));
    (reply.rows()[0][0].clone(), cluster().primary.executions(mark) == before)
}

/// In a new transaction, over and over, until it is a hit.
#[track_caller]
fn warm_up(session: &mut RawClient, read: &str, mark: &str) {
    wait_until(&format!("a hit of {read}"), || {
        say(session, "begin");
        let (_, is_hit) = ask(session, read, mark);
        say(session, "commit");
        is_hit
    });
}

#[test]
fn a_read_in_a_transaction_is_answered_and_kept() {
    let (proxy, database) = caching(1);
    let (mut one, mut other, mark) = (proxy.session(&database), proxy.session(&database), mark());
    for begin in ["begin", "start transaction read only", "begin isolation level read committed"] {
        warm_up(&mut one, READ, &mark);
        say(&mut other, begin);
        let before = cluster().primary.executions(&mark);
        let reply = say(&mut other, &format!("{READ} {mark}"));
        assert_eq!((reply.rows(), reply.status()), (vec![vec!["0".to_owned()]], 'T'), "{begin}");
        assert_eq!(cluster().primary.executions(&mark), before, "{begin}");
        say(&mut one, "update t set v = v + 1 where id = 2");
        say(&mut other, "select 1");
        assert_eq!(say(&mut other, "commit").tags(), ["COMMIT"]);
    }
    assert_eq!(ask(&mut other, "select v from t where id = 2", ""), ("3".into(), false));
}

#[test]
fn by_default_transactions_are_the_servers() {
    let (proxy, database) = caching(0);
    let (mut session, mark) = (proxy.session(&database), mark());
    wait_until("a hit", || ask(&mut session, READ, &mark).1);
    say(&mut session, "begin");
    assert_eq!(ask(&mut session, READ, &mark), ("0".into(), false));
}

#[test]
fn a_transaction_sees_what_others_have_committed_and_what_it_has_written() {
    let (proxy, database) = caching(1);
    let (mut one, mut other, mark) = (proxy.session(&database), proxy.session(&database), mark());
    for round in 1..20 {
        warm_up(&mut one, READ, &mark);
        say(&mut one, "begin");
        assert_eq!(ask(&mut one, READ, &mark), ((round - 1).to_string(), true));
        say(&mut other, &format!("update t set v = {round} where id = 1"));
        assert_eq!(ask(&mut one, READ, &mark).0, round.to_string(), "each statement has its own snapshot");
        say(&mut one, "update t set v = -1 where id = 1");
        assert_eq!(ask(&mut one, READ, &mark), ("-1".into(), false));
        assert_eq!(ask(&mut other, READ, &mark).0, round.to_string());
        say(&mut one, "rollback");
        assert_eq!(ask(&mut one, READ, &mark).0, round.to_string());
    }
}

#[test]
fn what_ties_a_transaction_to_its_server_ends_the_answers() {
    let (proxy, database) = caching(1);
    let (mut session, mark) = (proxy.session(&database), mark());
    for (begin, act) in [
        ("begin isolation level repeatable read", ""),
        ("begin isolation level serializable", ""),
        ("begin", "set transaction isolation level repeatable read"),
        ("begin", "savepoint s"),
        ("begin", "lock table t in share mode"),
        ("begin", "select 1 from t for update"),
        ("begin", "select pg_advisory_xact_lock(1)"),
        ("begin", "set local work_mem = '8MB'"),
        ("begin", "declare c cursor for select 1"),
        ("begin", "update t set v = v where id = 2"),
        ("begin", "create temp table x(a int) on commit drop"),
        ("begin; select 1", ""),
    ] {
        warm_up(&mut session, READ, &mark);
        say(&mut session, begin);
        if !act.is_empty() {
            say(&mut session, act);
        }
        assert_eq!(ask(&mut session, READ, &mark), ("0".into(), false), "{begin}; {act}");
        say(&mut session, "rollback");
    }
    warm_up(&mut session, READ, &mark);
    say(&mut session, "begin");
    assert_eq!(session.query("select 1 / 0").sqlstate(), "22012");
    assert_eq!(session.query(&format!("{READ} {mark}")).sqlstate(), "25P02", "the transaction has failed");
    say(&mut session, "rollback");
}

#[test]
fn an_extended_read_is_answered_and_portals_are_what_the_client_believes() {
    let (proxy, database) = caching(1);
    let (mut session, mark) = (proxy.session(&database), mark());
    let read = format!("select v + 10 from t where id = $1 {mark}");
    session.prepare("s", &read);
    session.prepare("other", "select generate_series(1, 3)");
    let executions = || cluster().primary.executions(&mark);
    let begin = [parse("", "begin"), bind_to("", "", &[]), execute("", 0)].concat();
    let ask = [bind_to("", "s", &[Some("1")]), describe_portal(""), execute("", 0), sync()].concat();
    wait_until("a hit", || {
        session.exchange(&[begin.clone(), ask.clone()].concat());
        let before = executions();
        let reply = session.exchange(&ask);
        assert_eq!((reply.rows(), reply.status()), (vec![vec!["10".to_owned()]], 'T'));
        let is_hit = executions() == before;
        say(&mut session, "commit");
        is_hit
    });
    say(&mut session, "begin");
    // The server's unnamed portal is one of three rows, of which two are left.
    session.exchange(&[bind_to("", "other", &[]), execute("", 1), sync()].concat());
    let before = executions();
    assert_eq!(session.exchange(&ask).rows(), [["10"]]);
    assert_eq!(executions(), before);
    assert_eq!(session.exchange(&[execute("", 1), sync()].concat()).rows(), [[""; 0]; 0], "not the other's rows");
    say(&mut session, "rollback");
    say(&mut session, "begin");
    let named = [bind_to("p", "s", &[Some("1")]), execute("p", 0), sync()].concat();
    assert_eq!(session.exchange(&named).rows(), [["10"]]);
    assert!(session.exchange(&named).error().is_some(), "it is there still");
    say(&mut session, "rollback");
    say(&mut session, "begin");
    assert_eq!(session.exchange(&named).rows(), [["10"]]);
    let closing = [close_portal("p"), ask.clone()].concat();
    assert_eq!(session.exchange(&closing).rows(), [["10"]]);
    assert_eq!(session.exchange(&named).rows(), [["10"]], "it was closed");
    say(&mut session, "commit");
}

/// Sessions in and out of transactions, one statement at a time; each writes its own row, and what they read is what
/// READ COMMITTED says.
#[test]
fn whatever_they_do_transactions_read_what_is_committed_and_their_own() {
    const SESSIONS: usize = 4;
    let (proxy, database) = caching(1);
    let mut draw = 0x2545_f491_4f6c_dd1d_u64;
    let mut roll = |sides: usize| {
        draw ^= draw << 13;
        draw ^= draw >> 7;
        draw ^= draw << 17;
        usize::try_from((draw >> 33) % sides as u64).unwrap()
    };
    let mut writer = proxy.session(&database);
    say(&mut writer, "delete from t");
    let mut committed: Vec<usize> = vec![0; SESSIONS];
    let mut sessions: Vec<RawClient> = (0..SESSIONS)
        .map(|id| {
            say(&mut writer, &format!("insert into t values ({id}, 0)"));
            proxy.session(&database)
        })
        .collect();
    let mut open: Vec<Option<Option<usize>>> = vec![None; SESSIONS];
    let hits = || proxy.show("CACHE").number("database", &database, "hits");
    for step in 1..3000 {
        let (id, session) = {
            let id = roll(SESSIONS);
            (id, &mut sessions[id])
        };
        match (roll(12), open[id]) {
            (0 | 1, None) => {
                say(session, "begin");
                open[id] = Some(None);
            }
            (0, Some(written)) => {
                say(session, "commit");
                committed[id] = written.unwrap_or(committed[id]);
                open[id] = None;
            }
            (1, Some(_)) => {
                say(session, "rollback");
                open[id] = None;
            }
            (2, state) => {
                say(session, &format!("update t set v = {step} where id = {id}"));
                match state {
                    Some(_) => open[id] = Some(Some(step)),
                    None => committed[id] = step,
                }
            }
            _ => {
                let row = roll(SESSIONS);
                let expected = match open[id] {
                    Some(Some(written)) if row == id => written,
                    _ => committed[row],
                };
                let found = say(session, &format!("select v from t where id = {row}")).rows()[0][0].clone();
                assert_eq!(found, expected.to_string(), "step {step}: row {row} by {id}, {:?}", open[id]);
            }
        }
    }
    assert!(hits() > 300, "{}", hits());
}

/// Binds a portal of that name, its parameters and results as text.
fn bind_to(portal: &str, statement: &str, values: &[Option<&str>]) -> Vec<u8> {
    bind_as(portal, statement, values, false)
}

#[test]
fn a_snapshot_that_connect_query_asks_for_is_the_transactions_own() {
    let database = cluster().database();
    cluster().prepare(&database, &format!("{TABLE}; create table u(v int); insert into u values (0)"));
    let query = "connect_query='set default_transaction_isolation = ''repeatable read'''";
    let builder = Proxy::of(cluster(), &database).cached().section("cache", "in_transactions", 1);
    let proxy = builder.database(&database, cluster().primary.port, query).start();
    proxy.wait_for_catalog(&database);
    let (mut reader, mut writer, mut other) =
        (proxy.session(&database), proxy.session(&database), proxy.session(&database));
    for round in 0..5 {
        say(&mut writer, &format!("update t set v = {round} where id = 1"));
        say(&mut reader, "begin");
        say(&mut reader, "select v from u");
        say(&mut writer, &format!("update t set v = {} where id = 1", 100 + round));
        for _ in 0..2 {
            assert_eq!(reader.value(READ), round.to_string(), "its snapshot is older");
            assert_eq!(other.value(READ), (100 + round).to_string());
        }
        say(&mut reader, "commit");
        assert_eq!(other.value(READ), (100 + round).to_string());
    }
}

#[test]
fn a_transaction_that_a_reload_finds_open_goes_on_where_it_began() {
    let (here, there) = (cluster().database(), cluster().database());
    for (database, v) in [(&here, 1), (&there, 2)] {
        cluster().prepare(database, &format!("{TABLE}; update t set v = {v}"));
    }
    let target = |database: &str| format!("host=127.0.0.1 port={} dbname={database}", cluster().primary.port);
    let builder = Proxy::builder().section("databases", "moved", target(&here)).cached();
    let proxy = builder.section("cache", "in_transactions", 1).start();
    proxy.wait_for_catalog("moved");
    let mut inside = proxy.session("moved");
    say(&mut inside, "begin");
    assert_eq!(inside.value(READ), "1");
    proxy.rewrite(|text| text.replace(&target(&here), &target(&there)));
    proxy.tell("RELOAD");
    proxy.wait_for_catalog("moved");
    let mut outside = proxy.session("moved");
    let other_read = "select sum(v) from t";
    for _ in 0..3 {
        assert_eq!((inside.value(READ), outside.value(READ)), ("1".to_owned(), "2".to_owned()));
        assert_eq!((inside.value(other_read), outside.value(other_read)), ("2".to_owned(), "4".to_owned()));
    }
    say(&mut inside, "commit");
    assert_eq!(inside.value(READ), "2");
}
