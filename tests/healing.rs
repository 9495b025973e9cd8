//! A replica that goes, hangs or refuses costs its readers time and nothing else.
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
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use support::{
    FakeServer, Member, Proxy, RawClient, cluster,
    forwarder::Forwarder,
    frames::{bind, describe_portal, execute, parse, query, sync},
    proxy::Builder,
    wait::PATIENCE,
    wait_until,
};

/// The replicas are disturbed here, so one test runs at a time.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn replicas() -> &'static [Member; 2] {
    &cluster().replicas
}

/// Both replicas alike; every server logs the statements of this database, so that their marks can be counted.
fn routed(configure: impl FnOnce(Builder) -> Builder) -> (Proxy, String) {
    let database = cluster().database();
    cluster().log_statements(&database);
    cluster().prepare(&database, "create table t(id int primary key, v int); insert into t values (1, 0)");
    let proxy = proxy_of(&database, &[(&replicas()[0], 1), (&replicas()[1], 1)], configure);
    (proxy, database)
}

/// In front of the primary and these replicas; all of them serve.
fn proxy_of(database: &str, members: &[(&Member, u32)], configure: impl FnOnce(Builder) -> Builder) -> Proxy {
    let proxy = configure(Proxy::of(cluster(), database).replicas(database, members)).start();
    wait_until_they_serve(&proxy, database, members);
    proxy
}

/// How often a mark occurs in the statement logs of primary, first and second replica.
fn counts(mark: &str) -> [usize; 3] {
    let [first, second] = replicas();
    [&cluster().primary, first, second].map(|member| member.executions(mark))
}

fn unique(what: &str) -> String {
    format!("/* {what} {} */", support::scratch::scratch().unique())
}

#[track_caller]
fn wait_until_they_serve(proxy: &Proxy, database: &str, members: &[(&Member, u32)]) {
    let mut session = proxy.session(database);
    let mark = unique("warm up");
    wait_until("the replicas serve reads", || {
        session.rows(&format!("/* pgweir: nocache */ select v from t {mark}"));
        members.iter().all(|(member, _)| member.executions(&mark) > 0)
    });
}

fn healed(proxy: &Proxy, reason: &str) -> f64 {
    proxy.metrics().sum("pgweir_self_heals_total", &[&format!("reason=\"{reason}\"")])
}

/// How a session of the load asks.
#[derive(Clone, Copy, Debug)]
enum Asks {
    Simple,
    Unnamed,
    Named,
    ParsedAlone,
    TwoAtOnce,
}

const ALL: [Asks; 5] = [Asks::Simple, Asks::Unnamed, Asks::Named, Asks::ParsedAlone, Asks::TwoAtOnce];

impl Asks {
    /// What it sends for its turn, and how many answers that brings.
    fn request(self, turn: usize) -> (Vec<u8>, usize) {
        // Long enough to be met while it runs.
        let series = turn % 2 * 5_000;
        let text = format!("select sum(v + {turn} - {turn}), count(*) from t, generate_series(0, {series})");
        let prepared = "select sum(v), count($1::int) from t, generate_series(0, $2::int)";
        let values = [&*turn.to_string(), &*series.to_string()];
        let rest = || [bind("", &values), describe_portal(""), execute("", 0), sync()].concat();
        match self {
            Self::Simple => (query(&text), 1),
            Self::TwoAtOnce => ([query(&text), query(&text)].concat(), 2),
            Self::Unnamed => ([parse("", prepared), rest()].concat(), 1),
            Self::Named if turn == 0 => ([parse("s", prepared), sync()].concat(), 1),
            Self::Named => ([bind("s", &values), execute("", 0), sync()].concat(), 1),
            // Another name each time: what was prepared in vain must not be taken.
            Self::ParsedAlone => {
                let name = format!("s{turn}");
                let own = format!("{prepared} /* {turn} */");
                let whole = [parse(&name, &own), bind(&name, &values), execute("", 0), sync()].concat();
                (whole, 1)
            }
        }
    }
}

/// What the sessions of a load have seen.
#[derive(Default)]
struct Load {
    reads: AtomicUsize,
    rounds: [AtomicUsize; 16],
    is_over: AtomicBool,
    failures: Mutex<Vec<String>>,
    longest: Mutex<Duration>,
}

impl Load {
    fn run(&self, mut session: RawClient, number: usize) {
        let asks = ALL[number % ALL.len()];
        let mut turn = 0;
        while !self.is_over.load(Ordering::Acquire) {
            let (request, answers) = asks.request(turn);
            let started = Instant::now();
            session.send(&request);
            for _ in 0..answers {
                let frames = session.until_closed_or(b'Z');
                if frames.last().is_none_or(|last| last.tag != b'Z') || frames.iter().any(|frame| frame.tag == b'E') {
                    let failure = format!("session {number} ({asks:?}), read {turn}: {frames:?}");
                    self.failures.lock().unwrap().push(failure);
                    return;
                }
                self.reads.fetch_add(1, Ordering::Relaxed);
            }
            let mut longest = self.longest.lock().unwrap();
            *longest = longest.max(started.elapsed());
            drop(longest);
            self.rounds[number].fetch_add(1, Ordering::AcqRel);
            turn += 1;
        }
    }

    /// What each session does, for a failure's message.
    fn state(&self) -> String {
        let rounds: Vec<_> = self.rounds.iter().map(|rounds| rounds.load(Ordering::Acquire)).collect();
        format!("rounds {rounds:?}, failures {:?}", self.failures.lock().unwrap())
    }

    /// Every session, or what is left of them, has so many more answers.
    fn wait_for_rounds(&self, proxy: &Proxy, more: usize) {
        let before: Vec<_> = self.rounds.iter().map(|rounds| rounds.load(Ordering::Acquire)).collect();
        let started = Instant::now();
        let have_read = |(rounds, before): (&AtomicUsize, &usize)| rounds.load(Ordering::Acquire) >= before + more;
        while !self.rounds.iter().zip(&before).all(have_read) && self.failures.lock().unwrap().is_empty() {
            if started.elapsed() > 4 * PATIENCE {
                let tables = ["CLIENTS", "SERVERS", "POOLS", "REPLICAS"].map(|what| format!("{:?}", proxy.show(what)));
                panic!("{}\n{}\n{}", self.state(), tables.join("\n"), proxy.last_words());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Ends the load, also when a test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// 16 sessions read while something happens to a replica: no read fails. Says how long the longest took.
#[track_caller]
fn nobody_notices(what: &str, configure: impl FnOnce(Builder) -> Builder, disturb: impl FnOnce(&Member)) -> Proxy {
    let (proxy, database) = routed(configure);
    let load = Load::default();
    thread::scope(|scope| {
        for number in 0..16 {
            let (load, session) = (&load, proxy.session(&database));
            scope.spawn(move || load.run(session, number));
        }
        let _over = Over(&load.is_over);
        load.wait_for_rounds(&proxy, 10);
        *load.longest.lock().unwrap() = Duration::ZERO;
        disturb(&replicas()[0]);
        load.wait_for_rounds(&proxy, 20);
    });
    let failures = load.failures.into_inner().unwrap();
    let (reads, longest) = (load.reads.into_inner(), load.longest.into_inner().unwrap());
    eprintln!("{what}: {reads} reads, the longest took {longest:?}, {} failed", failures.len());
    let metrics = proxy.metrics();
    for line in metrics.lines("pgweir_self_heals_total") {
        eprintln!("    {line}");
    }
    assert!(failures.is_empty(), "{what}: {}\n{}", failures.join("\n"), proxy.last_words());
    proxy
}

/// Puts a replica right again, however the test ends.
struct Restored(&'static Member);

impl Drop for Restored {
    fn drop(&mut self) {
        if self.0.is_gone() {
            self.0.start();
        }
    }
}

#[test]
fn reads_survive_a_replica_that_crashes() {
    let _turn = turn();
    let _restored = Restored(&replicas()[0]);
    nobody_notices("immediate shutdown", |builder| builder, Member::stop);
}

#[test]
fn reads_survive_a_replica_that_is_shut_down() {
    let _turn = turn();
    let _restored = Restored(&replicas()[0]);
    nobody_notices("fast shutdown", |builder| builder, Member::stop_fast);
}

#[test]
fn reads_survive_a_replica_whose_processes_are_killed() {
    let _turn = turn();
    let _restored = Restored(&replicas()[0]);
    nobody_notices("SIGKILL", |builder| builder, Member::kill);
}

#[test]
fn reads_whose_answers_would_be_cached_survive_as_well() {
    let _turn = turn();
    let _restored = Restored(&replicas()[0]);
    nobody_notices("immediate shutdown, cached", |builder| builder.cached(), Member::stop);
}

#[test]
fn reads_survive_a_replica_that_hangs() {
    let _turn = turn();
    let mut frozen = None;
    nobody_notices("SIGSTOP", |builder| builder, |replica| frozen = Some(replica.freeze()));
}

#[test]
fn reads_that_wait_for_a_server_of_a_replica_that_hangs_are_served_elsewhere() {
    let _turn = turn();
    let (_, database) = routed(|builder| builder);
    let replica = &replicas()[0];
    let proxy = proxy_of(&database, &[(replica, 1)], |builder| builder.set("default_pool_size", 1));
    let mut sessions: Vec<_> = (0..4).map(|_| proxy.session(&database)).collect();
    let frozen = replica.freeze();
    let started = Instant::now();
    for session in &mut sessions {
        session.send(&query("select v from t"));
    }
    for session in &mut sessions {
        assert_eq!(session.reply().rows(), [["0"]]);
    }
    eprintln!("served elsewhere after {:?}", started.elapsed());
    drop(frozen);
    wait_until_they_serve(&proxy, &database, &[(replica, 1)]);
}

#[test]
fn whom_one_replica_refuses_is_served_by_others_and_keeps_nobody_else_from_it() {
    let _turn = turn();
    let (proxy, database) = routed(|builder| builder);
    let replica = &replicas()[0];
    cluster().primary.session(&database).rows("grant select on t to stranger");
    cluster().catch_up();
    replica.refuse("stranger", true);
    let mut refused = RawClient::session(&proxy.address(), "stranger", &database);
    let mut welcome = proxy.session(&database);
    let (of_refused, of_welcome) = (unique("refused"), unique("welcome"));
    wait_until("both replicas serve him whom neither refuses", || {
        assert_eq!(refused.value(&format!("select v from t {of_refused}")), "0");
        // It is not the refused one alone whose turn it is there.
        (0..2).for_each(|_| drop(welcome.rows(&format!("select v from t {of_welcome}"))));
        counts(&of_welcome)[1] > 10
    });
    let [_, first, second] = counts(&of_refused);
    assert_eq!(first, 0);
    assert!(second > 0, "another replica serves whom one refuses");
    let states = proxy.show("REPLICAS").column("state");
    replica.refuse("stranger", false);
    assert!(!states.contains(&"banned".to_owned()), "{states:?}");
}

#[test]
fn a_replica_that_comes_back_serves_at_once() {
    let _turn = turn();
    let (proxy, database) = routed(|builder| builder);
    let replica = &replicas()[0];
    let _restored = Restored(replica);
    replica.stop();
    let mut session = proxy.session(&database);
    for _ in 0..20 {
        assert_eq!(session.value("select v from t"), "0");
    }
    replica.start();
    let started = Instant::now();
    wait_until_they_serve(&proxy, &database, &[(replica, 1)]);
    let took = started.elapsed();
    eprintln!("it serves again after {took:?}");
    assert!(took < Duration::from_secs(12), "server_login_retry has held it up: {took:?}");
}

#[test]
fn a_read_of_which_rows_have_been_sent_fails_with_its_replica() {
    let _turn = turn();
    let (proxy, database) = routed(|builder| builder);
    let mut session = proxy.session(&database);
    let mark = unique("many rows");
    session.send(&query(&format!("select repeat('x', 1000) from t, generate_series(1, 1000000) {mark}")));
    let mut first = session.frame();
    while first.tag != b'D' {
        first = session.frame();
    }
    let [primary, one, other] = counts(&mark);
    assert_eq!((primary, one + other), (0, 1));
    let replica = &replicas()[usize::from(other == 1)];
    let _restored = Restored(replica);
    replica.stop();
    let rest = session.until_closed();
    assert!(rest.iter().all(|frame| frame.tag != b'C' && frame.tag != b'Z'), "it was not told that this was all");
    assert_eq!(counts(&mark), [0, one, other], "it did not run again");
}

/// `select v, id from t`, simple, or prepared under a name of its own.
fn read_of(asks_simply: bool, turn: usize) -> Vec<u8> {
    let text = format!("select v, id from t where id > 0 /* broken */ and v < {}", turn + 1000);
    let name = format!("n{turn}");
    match asks_simply {
        true => query(&text),
        false => [parse(&name, &text), bind(&name, &[]), describe_portal(""), execute("", 0), sync()].concat(),
    }
}

#[test]
fn wherever_a_connection_breaks_a_read_is_answered_once_or_fails() {
    let _turn = turn();
    let (_, database) = routed(|builder| builder);
    cluster().prepare(&database, "insert into t values (2, 7)");
    let way = Forwarder::start("127.0.0.1:0", replicas()[0].port);
    let proxy = Proxy::of(cluster(), &database)
        .section("replicas", &format!("{database}.r1"), format!("host=127.0.0.1 port={}", way.port))
        .section("routing", "read_write_split", 1)
        .section("routing", "lag_check_interval", "0.05")
        .start();
    let mut turn = 0;
    for asks_simply in [true, false] {
        let mut session = proxy.session(&database);
        let whole = session.exchange(&read_of(asks_simply, turn));
        assert_eq!(whole.rows(), [["0", "1"], ["7", "2"]]);
        let length = |before: fn(&support::Frame) -> bool| -> usize {
            whole.frames.iter().take_while(|frame| before(frame)).map(|frame| frame.bytes().len()).sum()
        };
        let (first_row, all) = (length(|frame| frame.tag != b'D'), length(|_| true));
        let mut healed = 0;
        for cut in (0..all).step_by(5).chain([first_row - 1, first_row, first_row + 4, first_row + 5]) {
            let broken = way.broken();
            way.break_after("/* broken */", cut);
            // Until a replica is asked again, the primary is.
            while way.broken() == broken {
                turn += 1;
                session.send(&read_of(asks_simply, turn));
                let frames = session.until_closed_or(b'Z');
                let shape: String = frames.iter().map(|frame| char::from(frame.tag)).collect();
                if shape == whole.shape() {
                    healed += usize::from(way.broken() > broken);
                    assert_eq!(support::Reply { frames }.rows(), whole.rows());
                    continue;
                }
                assert!(cut >= first_row + 5, "cut at {cut} of {all}, rows from {first_row}: {shape}");
                assert!(!shape.contains('Z'), "cut at {cut}: {shape}");
                let rows = support::Reply { frames }.rows();
                assert!(whole.rows().starts_with(&rows), "cut at {cut}: {rows:?}");
                session = proxy.session(&database);
            }
        }
        assert!(healed >= first_row / 5, "{healed}");
    }
}

#[test]
fn a_read_only_transaction_begins_elsewhere_if_its_connection_breaks() {
    let _turn = turn();
    let (_, database) = routed(|builder| builder);
    let way = Forwarder::start("127.0.0.1:0", replicas()[0].port);
    let proxy = Proxy::of(cluster(), &database)
        .section("replicas", &format!("{database}.r1"), format!("host=127.0.0.1 port={}", way.port))
        .section("routing", "read_write_split", 1)
        .section("routing", "lag_check_interval", "0.05")
        .start();
    let mut session = proxy.session(&database);
    let batch = |sql: &str| [parse("", sql), bind("", &[]), execute("", 0)].concat();
    for begins in [query("begin read only"), [batch("begin read only"), batch("select v from t"), sync()].concat()] {
        let broken = way.broken();
        way.break_after("begin read only", 0);
        while way.broken() == broken {
            let reply = session.exchange(&begins);
            assert_eq!((reply.sqlstate(), reply.status()), (String::new(), 'T'), "{reply:?}");
            assert_eq!(session.value("show transaction_read_only"), "on");
            assert_eq!(session.value("select v from t"), "0");
            assert_eq!(session.query("commit").tags(), ["COMMIT"]);
        }
    }
    assert_eq!(healed(&proxy, "connection_lost"), 2.0);
}

#[test]
fn a_read_that_recovery_cancels_runs_elsewhere() {
    let _turn = turn();
    let (_, database) = routed(|builder| builder);
    let replica = &replicas()[0];
    let proxy = proxy_of(&database, &[(replica, 1)], |builder| builder);
    replica.configure("max_standby_streaming_delay", "0");
    let mut session = proxy.session(&database);
    for asks_simply in [true, false] {
        let mark = unique("long");
        let text = format!("select count(*) from t, generate_series(1, 20000000) {mark}");
        let whole = [parse("", &text), bind("", &[]), describe_portal(""), execute("", 0), sync()].concat();
        session.send(&if asks_simply { query(&text) } else { whole });
        wait_until("it runs on the replica", || replica.executions(&mark) == 1);
        let mut writer = cluster().primary.session(&database);
        writer.rows("update t set v = v + 1");
        writer.rows("vacuum t");
        let reply = session.reply();
        assert_eq!(reply.rows(), [["20000000"]], "{reply:?}");
        // With the error it logs the statement again.
        assert_eq!(counts(&mark), [1, 2, 0]);
    }
    assert_eq!(healed(&proxy, "40001"), 2.0);
    replica.configure("max_standby_streaming_delay", "30s");
}

#[test]
fn what_only_looked_like_a_read_runs_on_the_primary_from_then_on() {
    let _turn = turn();
    let (proxy, database) = routed(|builder| builder);
    let mut superuser = cluster().primary.session(&database);
    superuser.rows("create sequence s");
    superuser.rows("grant all on sequence s to app");
    superuser.rows("create function looks_harmless(regclass) returns bigint language internal stable as 'nextval_oid'");
    cluster().catch_up();
    let mut session = proxy.session(&database);
    let mark = unique("harmless");
    let text = format!("select looks_harmless('s') + v from t {mark}");
    let mut tried = 0;
    // Until the proxy knows the function, the primary serves.
    let mut calls = 0;
    wait_until("a replica is tried", || {
        let reply = session.query(&text);
        calls += 1;
        assert_eq!(reply.rows(), [[calls.to_string()]], "each call ran once: {reply:?}");
        let [_, first, second] = counts(&mark);
        tried = first + second;
        tried > 0
    });
    assert_eq!(healed(&proxy, "25006"), 1.0);
    for _ in 0..5 {
        calls += 1;
        assert_eq!(session.query(&text).rows(), [[calls.to_string()]]);
        calls += 1;
        assert_eq!(session.extended(&text, &[]).rows(), [[calls.to_string()]]);
    }
    let [primary, first, second] = counts(&mark);
    assert_eq!((primary, first + second), (calls, tried), "its shape is remembered");
    assert!(session.prepare("named", &text).error().is_none());
    session.query("create table another()");
    wait_until("with another catalog it is tried again", || {
        calls += 1;
        let reply = session.execute("named", &[]);
        assert_eq!(reply.rows(), [[calls.to_string()]], "{reply:?}");
        let [_, first, second] = counts(&mark);
        first + second > tried
    });
}

#[test]
fn what_a_replica_cannot_say_in_recovery_the_primary_says() {
    let _turn = turn();
    let (proxy, database) = routed(|builder| builder);
    let text = "create function written() returns pg_lsn language internal stable as 'pg_current_wal_lsn'";
    cluster().primary.session(&database).rows(text);
    cluster().catch_up();
    let mut session = proxy.session(&database);
    let mut turn = 0;
    wait_until("replicas are tried", || {
        turn += 1;
        for reply in [
            session.query("select written() is not null"),
            session.extended("select written() is not null", &[]),
            session.exchange(
                &[
                    parse(&format!("w{turn}"), "select written() is not null"),
                    bind(&format!("w{turn}"), &[]),
                    execute("", 0),
                    sync(),
                ]
                .concat(),
            ),
            session.execute(&format!("w{turn}"), &[]),
        ] {
            assert_eq!(reply.rows(), [["t"]], "{reply:?}");
        }
        healed(&proxy, "55000") > 20.0
    });
}

#[test]
fn what_a_read_has_written_is_read_back_at_once() {
    let _turn = turn();
    let (proxy, database) = routed(|builder| builder);
    let mut superuser = cluster().primary.session(&database);
    superuser.rows("create sequence s");
    superuser.rows("grant all on sequence s to app");
    superuser.rows("create function looks_harmless(regclass) returns bigint language internal stable as 'nextval_oid'");
    cluster().catch_up();
    let mut session = proxy.session(&database);
    let mut calls = 0;
    let mut calls_and_is_healed = || {
        calls += 1;
        assert_eq!(session.value("select looks_harmless('s')"), calls.to_string());
        assert_eq!(session.value("select last_value from s"), calls.to_string());
        healed(&proxy, "25006") > 0.0
    };
    wait_until("a replica is tried", &mut calls_and_is_healed);
    for _ in 0..20 {
        assert!(calls_and_is_healed());
    }
}

#[test]
fn a_write_whose_server_is_lost_is_not_run_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let server = FakeServer::start({
        let asked = Arc::clone(&asked);
        move |session| {
            session.until_asked("insert into t")?;
            asked.fetch_add(1, Ordering::AcqRel);
            Ok(())
        }
    });
    let proxy = Proxy::builder().database("d", server.port, "").start();
    for request in [
        query("insert into t values (1)"),
        [parse("", "insert into t values (1)"), bind("", &[]), execute("", 0), sync()].concat(),
    ] {
        let mut session = proxy.session("d");
        session.send(&request);
        assert!(session.until_closed().iter().any(|frame| frame.tag == b'E'));
    }
    assert_eq!(asked.load(Ordering::Acquire), 2);
}

/// What a session that writes knows of its rows.
#[derive(Default)]
struct Written {
    acknowledged: Vec<String>,
    tried: usize,
}

fn write_until(is_over: &AtomicBool, proxy: &Proxy, database: &str, number: usize) -> Written {
    let mut written = Written::default();
    let mut session = proxy.session(database);
    while !is_over.load(Ordering::Acquire) {
        written.tried += 1;
        let id = format!("{number}-{}", written.tried);
        let text = format!("insert into w values ('{id}')");
        session.send(&match written.tried % 3 {
            0 => query(&text),
            1 => [parse("", &text), bind("", &[]), execute("", 0), sync()].concat(),
            _ => query(&format!("select count(*) from w; {text}")),
        });
        let frames = session.until_closed_or(b'Z');
        let is_closed = frames.last().is_none_or(|last| last.tag != b'Z');
        // A batch commits at its Sync, behind the CommandComplete.
        match is_closed || frames.iter().any(|frame| frame.tag == b'E') {
            true => session = proxy.session(database),
            false => written.acknowledged.push(id),
        }
    }
    written
}

#[test]
fn nothing_is_written_twice_however_often_servers_are_lost() {
    let _turn = turn();
    let (proxy, database) = routed(|builder| builder);
    cluster().prepare(&database, "create table w(id text)");
    let is_over = AtomicBool::new(false);
    let written: Vec<Written> = thread::scope(|scope| {
        let writers: Vec<_> = (0..6)
            .map(|number| {
                let (is_over, proxy, database) = (&is_over, &proxy, &*database);
                scope.spawn(move || write_until(is_over, proxy, database, number))
            })
            .collect();
        {
            let _over = Over(&is_over);
            let mut killers: Vec<_> =
                [&cluster().primary, &replicas()[0]].iter().map(|member| member.session("postgres")).collect();
            let kill = format!(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = 'app' and datname = '{database}'"
            );
            support::proxy::repeat_for(Duration::from_secs(3), || {
                killers.iter_mut().for_each(|killer| drop(killer.rows(&kill)));
            });
        }
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let mut stored: Vec<String> = cluster().primary.session(&database).rows("select id from w").concat();
    let (tried, rows) = (written.iter().map(|written| written.tried).sum::<usize>(), stored.len());
    let acknowledged: Vec<_> = written.into_iter().flat_map(|written| written.acknowledged).collect();
    eprintln!("{tried} tried, {} acknowledged, {rows} stored", acknowledged.len());
    assert!(acknowledged.len() < tried, "no server was lost");
    let missing: Vec<_> = acknowledged.iter().filter(|id| !stored.contains(id)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    stored.sort();
    stored.dedup();
    assert_eq!(stored.len(), rows, "something was written twice");
}
