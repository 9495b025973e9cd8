//! Several clusters that are configured as equal (`role = any`): each takes its part of reads and writes, a session stays with
//! one of them, and what one that fails would have got goes to the others.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails loudly"
)]

mod support;

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use support::{
    Member, Proxy, RawClient, Reply, cluster, cluster::USER, frames::query, proxy::Builder, scratch::scratch,
    wait_until,
};

/// Three independent clusters. Nothing is replicated between them: what was written on one is seen nowhere else.
type Nodes = [Member; 3];

/// Those of this test process, for tests that leave them as they are.
fn nodes() -> &'static Nodes {
    static NODES: OnceLock<Nodes> = OnceLock::new();
    NODES.get_or_init(start)
}

fn start() -> Nodes {
    thread::scope(|scope| {
        let starting = [(); 3].map(|()| scope.spawn(Member::alone));
        starting.map(|node| node.join().unwrap())
    })
}

fn direct(node: &Member, database: &str) -> RawClient {
    RawClient::session(&node.address(), USER, database)
}

/// A database of that name on each, which knows the node's number.
fn database(nodes: &Nodes) -> String {
    let name = format!("test_{}", scratch().unique());
    for (number, node) in nodes.iter().enumerate() {
        node.session("postgres").rows(&format!("create database {name} owner {USER}"));
        direct(node, &name).rows(&format!(
            "create table node(number int); insert into node values ({number}); \
             create table t(id serial primary key, session int, n int)"
        ));
    }
    name
}

/// The first one has weight 1.
fn behind(nodes: &Nodes, database: &str, weights: [u32; 2]) -> Builder {
    let mut builder = Proxy::builder().database(database, nodes[0].port, "");
    for (number, (node, weight)) in (2..).zip(nodes[1..].iter().zip(weights)) {
        let value = format!("host=127.0.0.1 port={} weight={weight} role=any", node.port);
        builder = builder.section("replicas", &format!("{database}.n{number}"), value);
    }
    builder.section("routing", "lag_check_interval", "0.05")
}

/// What SHOW REPLICAS says of the member on that port.
fn standing(proxy: &Proxy, node: &Member) -> (String, String) {
    let table = proxy.show("REPLICAS");
    let of = |wanted| table.select("port", &node.port.to_string(), wanted).concat();
    (of("role"), of("state"))
}

fn wait_until_is(proxy: &Proxy, node: &Member, role: &str, state: &str) {
    wait_until("the member is what it should be", || standing(proxy, node) == (role.to_owned(), state.to_owned()));
}

fn wait_until_equal(proxy: &Proxy, nodes: &Nodes) {
    for (node, role) in nodes.iter().zip(["primary", "equal", "equal"]) {
        wait_until_is(proxy, node, role, "up");
    }
}

fn serving(builder: Builder, nodes: &Nodes) -> Proxy {
    let proxy = builder.start();
    wait_until_equal(&proxy, nodes);
    proxy
}

/// The number of the node that answers.
fn node_of(session: &mut RawClient) -> usize {
    session.value("select number from node").parse().unwrap()
}

fn counts(nodes: &Nodes, database: &str, sql: &str) -> [usize; 3] {
    [0, 1, 2].map(|number: usize| direct(&nodes[number], database).value(sql).parse().unwrap())
}

/// Within 10 % of `expected`.
#[track_caller]
fn check_shares(found: [usize; 3], expected: [usize; 3]) {
    let is_close = |(found, expected): (&usize, &usize)| found.abs_diff(*expected) * 10 <= *expected;
    assert!(found.iter().zip(&expected).all(is_close), "{found:?} is not {expected:?}");
}

fn done(reply: Reply) -> Reply {
    assert!(reply.error().is_none(), "{reply:?}");
    reply
}

#[test]
fn sessions_are_spread_by_weight_and_each_sees_what_it_has_written() {
    let database = database(nodes());
    let proxy = serving(behind(nodes(), &database, [2, 3]), nodes());
    let mut reads = [0; 3];
    for number in 0..300 {
        let mut session = proxy.session(&database);
        let node = node_of(&mut session);
        reads[node] += 1;
        for n in 1..=3 {
            done(session.query(&format!("insert into t(session, n) values ({number}, {n})")));
            let own = format!("select count(*) from t where session = {number}");
            assert_eq!(session.value(&own), n.to_string());
            assert_eq!(done(session.extended("select number from node", &[])).rows(), [[node.to_string()]]);
        }
    }
    check_shares(reads, [50, 100, 150]);
    check_shares(counts(nodes(), &database, "select count(distinct session) from t"), [50, 100, 150]);
    assert_eq!(counts(nodes(), &database, "select count(*) from t").iter().sum::<usize>(), 900);
}

#[test]
fn without_own_writes_to_see_transactions_are_spread_and_each_is_whole() {
    let database = database(nodes());
    let builder = behind(nodes(), &database, [1, 2]).section("routing", "read_your_writes", "off");
    let proxy = serving(builder, nodes());
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut session = proxy.session(&database);
                for _ in 0..100 {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    done(session.query("begin"));
                    for n in 0..3 {
                        done(session.query(&format!("insert into t(session, n) values ({number}, {n})")));
                    }
                    assert_eq!(session.value(&format!("select count(*) from t where session = {number}")), "3");
                    done(session.query("commit"));
                }
            });
        }
    });
    let whole = "select count(*) from (select from t group by session having count(*) = 3) whole";
    let all = "select count(distinct session) from t";
    assert_eq!(counts(nodes(), &database, whole), counts(nodes(), &database, all));
    check_shares(counts(nodes(), &database, all), [100, 100, 200]);
    let mut reader = proxy.session(&database);
    let mut reads = [0; 3];
    (0..200).for_each(|_| reads[node_of(&mut reader)] += 1);
    check_shares(reads, [50, 50, 100]);
}

#[test]
fn what_a_session_holds_on_to_is_on_its_own_member() {
    let database = database(nodes());
    let proxy = serving(behind(nodes(), &database, [1, 1]), nodes());
    let mut sessions: Vec<_> = (0..6).map(|_| proxy.session(&database)).collect();
    for (number, session) in sessions.iter_mut().enumerate() {
        done(session.query("set application_name = 'mine'"));
        done(session.prepare("p", "select number + $1::int from node"));
        done(session.query(&format!("select setval('t_id_seq', {number} * 100 + 1)")));
        done(session.query("insert into t(session, n) values (1, 1)"));
        done(session.query("listen news"));
    }
    let mut found = [0; 3];
    for (number, session) in sessions.iter_mut().enumerate() {
        let node = node_of(session);
        found[node] += 1;
        assert_eq!(done(session.execute("p", &["10"])).rows(), [[(node + 10).to_string()]]);
        assert_eq!(session.value("show application_name"), "mine");
        assert_eq!(done(session.query("select nextval('t_id_seq') > 0")).rows(), [["t"]]);
        assert!(session.value("select currval('t_id_seq')").parse::<usize>().unwrap() > 0);
        let notified = session.query(&format!("notify news, '{number}'"));
        let own = notified.frames.iter().find(|frame| frame.tag == b'A').expect("its own notification");
        assert!(String::from_utf8_lossy(&own.body).contains(&number.to_string()), "{own:?}");
    }
    assert_eq!(found, [2, 2, 2]);
}

#[test]
fn reload_and_online_restart_leave_each_session_where_it_is() {
    let database = database(nodes());
    let mut old = serving(behind(nodes(), &database, [1, 1]), nodes());
    let mut sessions: Vec<_> = (0..9).map(|_| old.session(&database)).collect();
    let before: Vec<_> = sessions.iter_mut().map(node_of).collect();
    for size in 30..34 {
        old.rewrite(|text| {
            let (head, tail) = text.split_once("default_pool_size = ").unwrap();
            let rest = tail.split_once('\n').unwrap().1;
            format!("{head}default_pool_size = {size}\n{rest}")
        });
        old.rewrite(|text| text.replace("lag_check_interval = 0.05", &format!("lag_check_interval = 0.0{size}")));
        old.rewrite(|text| text.replace(&format!("0.0{}", size - 1), &format!("0.0{size}")));
        old.tell("RELOAD");
        assert_eq!(sessions.iter_mut().map(node_of).collect::<Vec<_>>(), before, "after RELOAD");
    }
    let new = old.successor();
    assert_eq!(old.wait_for_end().code(), Some(0));
    assert_eq!(sessions.iter_mut().map(node_of).collect::<Vec<_>>(), before, "after a restart");
    wait_until_equal(&new, nodes());
}

#[test]
fn show_route_says_who_serves_and_no_member_is_taken_for_a_rival() {
    let database = database(nodes());
    let builder = behind(nodes(), &database, [1, 1]).section("routing", "read_write_split", 1);
    let proxy = serving(builder, nodes());
    for (sql, reason) in [("insert into t(n) values (1)", "write"), ("select n from t", "equal")] {
        let mut members: Vec<_> = (0..3)
            .map(|_| {
                let table = proxy.show(&format!("ROUTE FOR {database} {sql}"));
                let of = |column| table.rows[0][table.position(column)].clone();
                assert_eq!((&*of("route"), &*of("reason")), ("primary", reason));
                of("member")
            })
            .collect();
        members.sort();
        assert_eq!(members, [database.clone(), format!("{database}.n2"), format!("{database}.n3")]);
    }
    let position = proxy.session(&database).query("show pgweir.lsn");
    assert!(position.error().is_some(), "{position:?}");
    let refused = proxy.console().query("SET cache.enabled = 1");
    assert!(refused.error().is_some(), "{refused:?}");
    assert!(!proxy.log().contains("another member takes writes as well"), "{}", proxy.last_words());
}

#[test]
fn a_member_in_recovery_serves_reads_like_any_replica_and_no_writes() {
    let (primary, replica, other) = (&cluster().primary, &cluster().replicas[0], &nodes()[0]);
    let database = cluster().database();
    cluster().log_statements(&database);
    let node = "create table node(number int); create table t(n int)";
    cluster().prepare(&database, &format!("{node}; insert into node values (0)"));
    other.session("postgres").rows(&format!("create database {database} owner {USER}"));
    direct(other, &database).rows(&format!("{node}; insert into node values (2)"));
    let equal = |member: &Member| format!("host=127.0.0.1 port={} role=any", member.port);
    let proxy = Proxy::of(cluster(), &database)
        .section("replicas", &format!("{database}.r1"), equal(replica))
        .section("replicas", &format!("{database}.n2"), equal(other))
        .section("routing", "read_write_split", 1)
        .section("routing", "lag_check_interval", "0.05")
        .start();
    for (member, role) in [(primary, "primary"), (replica, "replica"), (other, "equal")] {
        wait_until_is(&proxy, member, role, "up");
    }
    let on_replica = |session: &mut RawClient| {
        let mark = format!("/* {} */", scratch().unique());
        let node = session.value(&format!("{mark} select number from node"));
        (node.parse::<usize>().unwrap(), replica.executions(&mark) == 1)
    };
    wait_until("the replica serves", || on_replica(&mut proxy.session(&database)).1);
    let mut found = [0; 2];
    for number in 0..20 {
        let mut session = proxy.session(&database);
        assert_eq!(on_replica(&mut session), (0, true), "as long as it has written nothing");
        done(session.query(&format!("insert into t values ({number})")));
        assert_eq!(session.value(&format!("select count(*) from t where n = {number}")), "1");
        // What the other one has written no replica has.
        let (node, is_on_replica) = on_replica(&mut session);
        assert!(node == 0 || !is_on_replica);
        found[node / 2] += 1;
    }
    assert_eq!(found, [10, 10]);
}

/// What those were told who did one thing after the other meanwhile.
#[derive(Default)]
struct Account {
    done: usize,
    /// By number of the node on which the session was.
    failed: [usize; 3],
}

/// Begins one session after the other and does something in each, until told to stop.
fn work(proxy: &Proxy, database: &str, worker: usize, writes: bool, stop: &AtomicBool) -> Account {
    let mut account = Account::default();
    let ask = |session: &mut RawClient, sql: &str| {
        session.try_send(&query(sql)).ok()?;
        let frames = session.until_closed_or(b'Z');
        let is_done = frames.last().is_some_and(|frame| frame.tag == b'Z') && frames.iter().all(|it| it.tag != b'E');
        is_done.then(|| Reply { frames }.rows())
    };
    while !stop.load(Ordering::Relaxed) {
        let mut session = proxy.session(database);
        let mut node = node_of(&mut session);
        for n in 0..20 {
            let outcome = match writes {
                true => ask(&mut session, &format!("insert into t(session, n) values ({worker}, {n}) returning 1")),
                false => ask(&mut session, "select number from node"),
            };
            let Some(rows) = outcome else {
                account.failed[node] += 1;
                break;
            };
            account.done += 1;
            if !writes {
                node = rows[0][0].parse().unwrap();
            }
        }
        session.terminate();
    }
    account
}

#[test]
fn the_share_of_a_member_that_dies_goes_to_the_others_and_nobody_else_notices() {
    let nodes = start();
    let database = database(&nodes);
    let proxy = serving(behind(&nodes, &database, [1, 1]), &nodes);
    // The one that speaks for all is no exception.
    for (victim, others) in [(2, [0, 1]), (0, [1, 2])] {
        let stop = AtomicBool::new(false);
        let accounts: Vec<(bool, Account)> = thread::scope(|scope| {
            let (proxy, database, stop) = (&proxy, &*database, &stop);
            let begin = |worker| {
                let writes = worker % 2 == 0;
                scope.spawn(move || (writes, work(proxy, database, worker, writes, stop)))
            };
            let workers: Vec<_> = (0..6).map(begin).collect();
            let written = || counts(&nodes, database, "select count(*) from t");
            let begun = written();
            wait_until("all are at work", || written().iter().zip(begun).all(|(now, then)| *now > then + 20));
            nodes[victim].stop();
            let of_others = || {
                others.map(|other| {
                    direct(&nodes[other], database).value("select count(*) from t").parse::<usize>().unwrap()
                })
            };
            let then = of_others();
            wait_until("the others go on", || of_others().iter().zip(then).all(|(now, then)| *now > then + 100));
            stop.store(true, Ordering::Relaxed);
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        for (writes, account) in &accounts {
            let outside: usize = others.iter().map(|other| account.failed[*other]).sum();
            assert_eq!(outside, 0, "of the others nothing fails");
            assert!(account.done > 0);
            // Of a write in flight when its server died nobody knows whether it was made. The next session may have gone
            // there before the last connection was cut.
            let most = if *writes { 2 } else { 0 };
            assert!(account.failed[victim] <= most, "{:?} of a worker (writes: {writes})", account.failed);
        }
        let mut shares = [0; 3];
        for _ in 0..100 {
            shares[node_of(&mut proxy.session(&database))] += 1;
        }
        let mut expected = [50; 3];
        expected[victim] = 0;
        check_shares(shares, expected);
        nodes[victim].start();
        wait_until("it is back", || standing(&proxy, &nodes[victim]) == ("equal".to_owned(), "up".to_owned()));
        // Its share grows for ten seconds.
        wait_until("it has its share", || {
            (0..60).filter(|_| node_of(&mut proxy.session(&database)) == victim).count() == 20
        });
    }
    assert!(!proxy.log().contains("another member takes writes as well"), "{}", proxy.last_words());
}

#[test]
fn a_session_goes_on_with_another_member_only_when_its_own_fails() {
    let nodes = start();
    let database = database(&nodes);
    let proxy = serving(behind(&nodes, &database, [1, 1]), &nodes);
    let mut sessions: Vec<_> = (0..6).map(|_| proxy.session(&database)).collect();
    let before: Vec<_> = sessions.iter_mut().map(node_of).collect();
    let mut busy = proxy.session(&database);
    let node = node_of(&mut busy);
    done(busy.query("begin"));
    done(busy.query("insert into t(n) values (1)"));
    // That the others come and go concerns nobody here.
    let victim = if node == 0 { 1 } else { 0 };
    nodes[victim].stop_fast();
    let after: Vec<_> = sessions.iter_mut().map(node_of).collect();
    for (before, after) in before.iter().zip(&after) {
        assert!(if *before == victim { *after != victim } else { after == before }, "{before} became {after}");
    }
    done(busy.query("insert into t(n) values (2)"));
    done(busy.query("commit"));
    assert_eq!(busy.value("select count(*) from t"), "2");
    nodes[victim].start();
    wait_until_is(&proxy, &nodes[victim], "equal", "up");
    assert_eq!(sessions.iter_mut().map(node_of).collect::<Vec<_>>(), after, "what they wrote meanwhile is there");
    // While nobody is there they wait.
    nodes.iter().for_each(Member::stop_fast);
    sessions[0].send(&query("insert into t(n) values (3) returning n"));
    wait_until_is(&proxy, &nodes[1], "equal", "down");
    nodes[2].start();
    assert_eq!(done(sessions[0].reply()).rows(), [["3"]]);
}
