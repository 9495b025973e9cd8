//! Two proxies in front of one database: what one writes, the other never answers without.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails loudly"
)]

mod support;

use std::{
    fs,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use support::{
    Proxy, RawClient, cluster,
    cluster::USER,
    forwarder::Forwarder,
    hits::{by_key, mark},
    programs,
    proxy::{Builder, binary},
    redis::Redis,
    scratch::scratch,
    wait_until,
};

const SCHEMA: &str = "create table t(id int primary key, v int); insert into t values (1, 0); \
                      create table other(id int primary key, v int); insert into other values (1, 0)";
const READ: &str = "select v from t where id = 1";

fn database() -> String {
    let database = cluster().database();
    cluster().prepare(&database, SCHEMA);
    cluster().log_statements(&database);
    database
}

fn sharing(database: &str, redis_port: u16) -> Builder {
    let url = format!("redis://127.0.0.1:{redis_port}/0");
    let builder = Proxy::of(cluster(), database).cached().section("cache", "redis_url", url);
    // On a busy machine Redis answers late, and a late answer is none.
    let builder = builder.section("cache", "redis_timeout", "0.5");
    builder.section("cache", "secret", "known to both and nobody else")
}

/// Two proxies that share a database, and serve.
fn two(database: &str, redis: &Redis) -> (Proxy, Proxy) {
    (sharing(database, redis.port).start(), sharing(database, redis.port).start())
}

/// Repeats the read until the server has nothing to do with it.
#[track_caller]
fn warm_up(session: &mut RawClient, mark: &str) {
    let read = format!("{READ} {mark}");
    wait_until("a hit", || {
        let before = cluster().primary.executions(mark);
        let reply = session.query(&read);
        assert!(reply.error().is_none(), "{reply:?}");
        cluster().primary.executions(mark) == before
    });
}

fn value(session: &mut RawClient, mark: &str) -> i64 {
    session.value(&format!("{READ} {mark}")).parse().unwrap()
}

#[track_caller]
fn write(session: &mut RawClient) -> i64 {
    session.value("update t set v = v + 1 where id = 1 returning v").parse().unwrap()
}

#[test]
fn what_one_proxy_writes_the_other_never_answers_without() {
    let (redis, database) = (Redis::start(), database());
    let (left, right) = two(&database, &redis);
    let (mut writer, mut reader) = (left.session(&database), right.session(&database));
    let mark = mark();
    warm_up(&mut reader, &mark);
    let before = cluster().primary.executions(&mark);
    for _ in 0..100 {
        let written = write(&mut writer);
        for _ in 0..5 {
            assert_eq!(value(&mut reader, &mark), written);
        }
    }
    let asked = cluster().primary.executions(&mark) - before;
    println!("500 reads behind 100 writes at another proxy: the server ran {asked}");
    assert!((100..400).contains(&asked), "{asked} of 500");
    let figures = right.metrics();
    assert_eq!(figures.sum("pgweir_bus_peers", &[&database]), 1.0);
    // Each write begins, moves stamps and ends.
    assert!(figures.sum("pgweir_bus_messages_total", &[&database, "heard"]) >= 300.0);
    assert_eq!(figures.sum("pgweir_bus_events_total", &[&database, "lost"]), 0.0);
}

#[test]
fn a_write_by_key_at_one_proxy_voids_that_key_at_the_other_and_spares_the_rest() {
    const READS: [&str; 4] = [
        "select v from t where id = 1",
        "select v from t where id = 2",
        "select sum(v) from t where id = 3",
        "select count(*), sum(v) from t",
    ];
    const ALL: [bool; 4] = [true; 4];
    const NOT_ONE: [bool; 4] = [false, true, true, false];
    const NOT_TWO: [bool; 4] = [true, false, true, false];
    const NONE: [bool; 4] = [false; 4];
    let (redis, database) = (Redis::start(), database());
    cluster().prepare(&database, "insert into t select i, 0 from generate_series(2, 9) i");
    let (left, right) = two(&database, &redis);
    let (mut writer, mut reader) = (left.session(&database), right.session(&database));
    let mut direct = RawClient::session(&cluster().primary.address(), USER, &database);
    let mark = mark();
    let mut ask = |read: &str| {
        let before = cluster().primary.executions(&mark);
        let reply = reader.query(&format!("{read} {mark}"));
        let is_hit = cluster().primary.executions(&mark) == before;
        assert_eq!(reply.rows(), direct.query(read).rows(), "{read}");
        is_hit
    };
    let mut write = |statements: &[&str]| {
        for statement in statements {
            let reply = writer.query(statement);
            assert!(reply.error().is_none(), "{statement}: {reply:?}");
        }
    };
    // Who writes there asks for nothing, and who asks here writes nothing.
    wait_until("rows to have cells at the other proxy", || {
        write(&["update t set v = v + 1 where id = 9"]);
        by_key(&right).is_some_and(|count| count > 0)
    });
    let heard = by_key(&right).unwrap();
    for (statements, hits) in [
        (&["update t set v = v + 1 where id = 1"][..], NOT_ONE),
        (&["update t set v = v + 1 where id = 7"], [true, true, true, false]),
        (&["begin", "update t set v = v + 1 where id = 2", "insert into t (id, v) values (70, 1)", "commit"], NOT_TWO),
        (&["begin", "update t set v = v + 1 where id = 2", "rollback"], ALL),
        (&["delete from t where id = 1", "insert into t (id, v) values (1, 5)"], NOT_ONE),
        (&["update t set v = v + 1"], NONE),
        (&["update t set id = 80 where id = 1"], NONE),
        (&["begin", "update t set v = v + 1 where id = 2", "update t set v = v + 1 where v > 0", "commit"], NONE),
        // Rows are known by another column then.
        (
            &[
                "alter table t add key serial",
                "alter table t drop constraint t_pkey",
                "alter table t add primary key (key)",
            ],
            NONE,
        ),
        (&["update t set v = v + 1 where key = 1"], NONE),
        (&["update t set v = v + 1 where id = 2"], NONE),
    ] {
        for read in READS {
            wait_until(read, || ask(read));
        }
        write(statements);
        assert_eq!(READS.map(&mut ask), hits, "{statements:?}");
    }
    assert!(by_key(&right).unwrap() >= heard + 5, "{heard}");
}

#[test]
fn transactions_and_what_the_server_alone_knows_they_wrote_are_heard_too() {
    let (redis, database) = (Redis::start(), database());
    cluster().prepare(
        &database,
        "create function touch() returns void language plpgsql as $$ begin update t set v = v + 1 where id = 1; end $$; \
         create table child(id int references t on update cascade); insert into child values (1)",
    );
    let (left, right) = two(&database, &redis);
    let (mut writer, mut reader) = (left.session(&database), right.session(&database));
    let mark = mark();
    for statements in [
        &["begin", "update t set v = v + 1 where id = 1", "commit"][..],
        &["select touch()"],
        &["begin", "select touch()", "commit"],
        &["do $$ begin perform touch(); end $$"],
        &["with w as (update t set v = v + 1 where id = 1 returning v) select v from w"],
        &["begin; update t set v = v + 1 where id = 1; commit"],
        &["truncate t cascade", "insert into t values (1, 77)"],
        &["alter table t alter column v type bigint using v + 1"],
        &["begin", "update t set v = v + 1 where id = 1", "prepare transaction 'x'", "commit prepared 'x'"],
    ] {
        warm_up(&mut reader, &mark);
        for statement in statements {
            let reply = writer.query(statement);
            assert!(reply.error().is_none(), "{statement}: {reply:?}");
        }
        let truth = RawClient::session(&cluster().primary.address(), USER, &database).value(READ);
        assert_eq!(reader.value(&format!("{READ} {mark}")), truth, "{statements:?}");
    }
}

#[test]
fn a_prepared_transaction_keeps_nobody_from_the_cache_until_anybody_anywhere_commits_it() {
    let (redis, database) = (Redis::start(), database());
    let (left, right) = two(&database, &redis);
    let mut sessions = [left.session(&database), right.session(&database)];
    let mark = mark();
    let name = format!("p{}", scratch().unique());
    for (preparing, ending, is_committed) in [(0, 0, true), (0, 1, true), (1, 0, false), (1, 1, true)] {
        let before = value(&mut sessions[0], &mark);
        for statement in ["begin", "update t set v = v + 1 where id = 1", &format!("prepare transaction '{name}'")] {
            let reply = sessions[preparing].query(statement);
            assert!(reply.error().is_none(), "{statement}: {reply:?}");
        }
        for session in &mut sessions {
            // It may stay open for days, and nobody sees it before it is committed.
            warm_up(session, &mark);
            assert_eq!(value(session, &mark), before);
        }
        let word = if is_committed { "commit" } else { "rollback" };
        let asked = cluster().primary.executions(&mark);
        let reply = sessions[ending].query(&format!("{word} prepared '{name}'"));
        assert!(reply.error().is_none(), "{reply:?}");
        for session in &mut sessions {
            assert_eq!(value(session, &mark), before + i64::from(is_committed), "{preparing} {ending}");
        }
        let asked = cluster().primary.executions(&mark) - asked;
        assert_eq!(asked > 0, is_committed, "what is rolled back voids nothing");
    }
}

#[test]
fn definitions_that_a_prepared_transaction_changes_count_as_soon_as_it_is_committed() {
    let (redis, database) = (Redis::start(), database());
    cluster().prepare(&database, "create view seen as select v from t");
    let (left, right) = two(&database, &redis);
    let (mut writer, mut reader) = (left.session(&database), right.session(&database));
    for session in [&mut writer, &mut reader] {
        let mark = mark();
        warm_up(session, &mark);
        session.value(&format!("select v from seen {mark}"));
    }
    let name = format!("p{}", scratch().unique());
    for statement in
        ["begin", "create or replace view seen as select v from other", &format!("prepare transaction '{name}'")]
    {
        let reply = writer.query(statement);
        assert!(reply.error().is_none(), "{statement}: {reply:?}");
    }
    for session in [&mut writer, &mut reader] {
        // With the definitions of before, which are true so far.
        warm_up(session, &mark());
    }
    let reply = writer.query(&format!("commit prepared '{name}'"));
    assert!(reply.error().is_none(), "{reply:?}");
    let read = format!("select v from seen {}", mark());
    for session in [&mut writer, &mut reader] {
        for value in 1..=20 {
            session.value(&read);
            session.query(&format!("update other set v = {value}"));
            assert_eq!(session.value(&read), value.to_string());
        }
    }
}

#[test]
fn what_one_proxy_has_stored_in_redis_another_finds_there_until_either_writes() {
    let (redis, database) = (Redis::start(), database());
    let eager = || sharing(&database, redis.port).section("cache", "redis_min_cost", 0).start();
    let (left, right) = (eager(), eager());
    let (mut writer, mut reader) = (left.session(&database), right.session(&database));
    warm_up(&mut writer, &mark());
    warm_up(&mut reader, &mark());
    let is_stored = |answers: u32| redis.command("DBSIZE").trim() == format!(":{answers}");
    for round in 0..3 {
        let mark = mark();
        wait_until("all answers of before are in Redis", || is_stored(2 + 2 * round));
        let written = write(&mut writer);
        assert_eq!(value(&mut writer, &mark), written);
        wait_until("the answer is in Redis", || is_stored(3 + 2 * round));
        assert_eq!(value(&mut reader, &mark), written);
        assert_eq!(cluster().primary.executions(&mark), 1, "the second proxy has it from Redis");
        let written = write(&mut reader);
        assert_eq!(value(&mut writer, &mark), written);
    }
}

#[test]
fn rights_that_are_taken_away_at_one_proxy_are_gone_at_the_other() {
    let (redis, database) = (Redis::start(), database());
    let (left, right) = two(&database, &redis);
    let owner = format!("revoke select on t from {USER}");
    let (mut writer, mut reader) = (left.session(&database), right.session(&database));
    let mark = mark();
    warm_up(&mut reader, &mark);
    let reply = writer.query(&owner);
    assert!(reply.error().is_none(), "{reply:?}");
    let reply = reader.query(&format!("{READ} {mark}"));
    assert_eq!(reply.sqlstate(), "42501", "{reply:?}");
}

/// Sessions at both proxies count up keys of their own and read everybody's, until `trouble` has ended. Returns reads, writes
/// and the longest write.
fn run_through(left: &Proxy, right: &Proxy, database: &str, trouble: impl FnOnce()) -> (u64, u64, Duration) {
    const SESSIONS: usize = 6;
    let mut admin = RawClient::session(&cluster().primary.address(), USER, database);
    admin.query("truncate other");
    for id in 0..SESSIONS {
        admin.query(&format!("insert into other values ({id}, 0)"));
    }
    let acknowledged: Vec<std::sync::atomic::AtomicI64> = (0..SESSIONS).map(|_| 0.into()).collect();
    let (is_over, acknowledged) = (&AtomicBool::new(false), &acknowledged);
    thread::scope(|scope| {
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|own| {
                let mut session = if own % 2 == 0 { left.session(database) } else { right.session(database) };
                session.patience(Duration::from_secs(60));
                scope.spawn(move || {
                    let (mut reads, mut writes, mut longest) = (0, 0, Duration::ZERO);
                    while !is_over.load(Ordering::Acquire) {
                        let at = Instant::now();
                        let sql = format!("update other set v = v + 1 where id = {own} returning v");
                        let written: i64 = session.value(&sql).parse().unwrap();
                        longest = longest.max(at.elapsed());
                        acknowledged[own].store(written, Ordering::SeqCst);
                        writes += 1;
                        for round in 0..20 {
                            let key = (own + round) % SESSIONS;
                            let least = acknowledged[key].load(Ordering::SeqCst);
                            let found: i64 =
                                session.value(&format!("select v from other where id = {key}")).parse().unwrap();
                            assert!(found >= least, "session {own} reads {found} of {key}, {least} was acknowledged");
                            reads += 1;
                        }
                    }
                    (reads, writes, longest)
                })
            })
            .collect();
        trouble();
        is_over.store(true, Ordering::Release);
        let figures = sessions.into_iter().map(|session| session.join().unwrap());
        figures.fold((0, 0, Duration::ZERO), |sum, (reads, writes, longest)| {
            (sum.0 + reads, sum.1 + writes, sum.2.max(longest))
        })
    })
}

/// Writes at both sides go on, so many of them.
fn more_writes(database: &str, more: i64) {
    let mut admin = RawClient::session(&cluster().primary.address(), USER, database);
    let mut count = || admin.value("select sum(v) from other").parse::<i64>().unwrap();
    let before = count();
    wait_until("more writes", || count() >= before + more);
}

#[test]
fn what_was_under_way_when_a_proxy_came_is_never_answered_from_before() {
    let (redis, database) = (Redis::start(), database());
    // It may be one whose proxy has died.
    let mut unattended = RawClient::session(&cluster().primary.address(), USER, &database);
    unattended.query("begin");
    assert_eq!(write(&mut unattended), 1);
    let proxy = sharing(&database, redis.port).start();
    let mut reader = proxy.session(&database);
    let (elsewhere, mark) = (mark(), mark());
    wait_until("a hit elsewhere", || {
        let before = cluster().primary.executions(&elsewhere);
        reader.query(&format!("select v from other {elsewhere}"));
        cluster().primary.executions(&elsewhere) == before
    });
    for round in 1..=3 {
        assert_eq!(value(&mut reader, &mark), 0);
        assert_eq!(cluster().primary.executions(&mark), round, "it may be another one any time");
    }
    unattended.query("commit");
    assert_eq!(value(&mut reader, &mark), 1);
    warm_up(&mut reader, &mark);
}

#[test]
fn a_control_user_without_any_right_makes_a_member() {
    let (redis, database) = (Redis::start(), database());
    cluster().primary.session(&database).rows("revoke execute on function pg_control_system() from public");
    let by_it = || sharing(&database, redis.port).section("control", "user", "stranger").start();
    let (left, right) = (by_it(), by_it());
    let (mut writer, mut reader) = (left.session(&database), right.session(&database));
    let mark = mark();
    warm_up(&mut reader, &mark);
    let written = write(&mut writer);
    assert_eq!(value(&mut reader, &mark), written);
}

#[test]
fn a_write_that_nobody_can_be_told_of_ends_by_what_ends_any_other_and_is_not_sent() {
    let (redis, database) = (Redis::start(), database());
    // So the primary never says who the others are.
    cluster().primary.session(&database).rows("revoke execute on function pg_try_advisory_lock(bigint) from public");
    let proxy = sharing(&database, redis.port).section("control", "user", "stranger").set("query_timeout", 3).start();
    let update = "update t set v = v + 1 where id = 1";
    let waits = |expected: usize| {
        wait_until("it waits", || proxy.show("CLIENTS").select("state", "waiting", "database").len() == expected);
    };
    let mut cancelled = proxy.session(&database);
    cancelled.send(&support::frames::query(update));
    waits(1);
    cancelled.cancel();
    let last = cancelled.until_closed();
    assert!(last.iter().any(|frame| frame.field(b'C').as_deref() == Some("57014")), "{last:?}");
    let mut killed = proxy.session(&database);
    killed.query("begin");
    killed.query(update);
    killed.send(&support::frames::query("commit"));
    waits(1);
    proxy.tell(&format!("KILL {database}"));
    let last = killed.until_closed();
    assert!(last.iter().any(|frame| frame.field(b'C').as_deref() == Some("57P01")), "{last:?}");
    proxy.tell(&format!("RESUME {database}"));
    let mut late = proxy.session(&database);
    late.send(&support::frames::query(update));
    let last = late.until_closed();
    assert!(last.iter().any(|frame| frame.field(b'C').as_deref() == Some("08P01")), "{last:?}");
    let mut direct = RawClient::session(&cluster().primary.address(), USER, &database);
    assert_eq!(direct.value(READ), "0");
}

#[test]
fn a_commit_that_nobody_can_be_told_of_is_not_told_to_its_client_either() {
    let (redis, database) = (Redis::start(), database());
    // Its COMMIT takes its time: meanwhile the primary ceases to say who the others are.
    cluster().prepare(
        &database,
        "create function linger() returns trigger language plpgsql as $$ begin perform pg_sleep(1); return null; end $$; \
         create constraint trigger linger after update on t deferrable initially deferred \
         for each row execute function linger()",
    );
    let control = |builder: Builder| builder.section("control", "user", "stranger");
    let left = control(sharing(&database, redis.port)).set("query_timeout", 3).start();
    let right = control(sharing(&database, redis.port)).start();
    let (mut writer, mut reader) = (left.session(&database), right.session(&database));
    let mark = mark();
    warm_up(&mut reader, &mark);
    let mut admin = cluster().primary.session(&database);
    writer.query("begin");
    assert_eq!(write(&mut writer), 1);
    writer.send(&support::frames::query("commit"));
    wait_until("it commits", || {
        admin.value("select count(*) from pg_stat_activity where query = 'commit' and state = 'active' and datname = current_database()") == "1"
    });
    admin.rows("revoke execute on function pg_try_advisory_lock(bigint) from public");
    admin.rows(
        "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' \
         and database = (select oid from pg_database where datname = current_database())",
    );
    let last = writer.until_closed();
    assert!(last.iter().any(|frame| frame.field(b'C').as_deref() == Some("08007")), "{last:?}");
    assert!(last.iter().all(|frame| frame.tag != b'C'), "{last:?}");
    // It is committed, and nobody answers without it.
    assert_eq!(value(&mut reader, &mark), 1);
}

#[test]
fn a_secret_that_a_reload_brings_counts_for_what_proxies_tell_each_other() {
    let (redis, database) = (Redis::start(), database());
    let (left, right) = two(&database, &redis);
    let (mut writer, mut reader) = (left.session(&database), right.session(&database));
    warm_up(&mut reader, &mark());
    let another = |proxy: &Proxy| {
        proxy.rewrite(|text| text.replace("known to both and nobody else", "another one, known to both in the end"));
        proxy.tell("RELOAD");
    };
    another(&left);
    wait_until("they do not understand each other", || {
        let mark = mark();
        reader.query(&format!("{READ} {mark}"));
        reader.query(&format!("{READ} {mark}"));
        cluster().primary.executions(&mark) == 2
    });
    another(&right);
    let mark = mark();
    warm_up(&mut reader, &mark);
    let written = write(&mut writer);
    assert_eq!(value(&mut reader, &mark), written);
}

#[test]
fn redis_comes_and_goes_and_nobody_fails_or_reads_anything_old() {
    let (redis, database) = (Redis::start(), database());
    let (left, right) = two(&database, &redis);
    let (reads, writes, longest) = run_through(&left, &right, &database, || {
        more_writes(&database, 60);
        redis.command("CLIENT KILL TYPE normal");
        redis.command("CLIENT KILL TYPE pubsub");
        more_writes(&database, 60);
        redis.command("CLIENT PAUSE 1500 ALL");
        more_writes(&database, 200);
    });
    println!("{reads} reads, {writes} writes, the longest {longest:?}");
    assert!(longest < Duration::from_secs(10), "{longest:?}");
}

#[test]
fn a_proxy_that_is_stopped_or_killed_holds_others_up_for_no_longer_than_its_lease() {
    let (redis, database) = (Redis::start(), database());
    let (left, right) = two(&database, &redis);
    let third = sharing(&database, redis.port).start();
    let mark = mark();
    warm_up(&mut third.session(&database), &mark);
    let (reads, writes, longest) = run_through(&left, &right, &database, || {
        more_writes(&database, 60);
        third.signal(Signal::SIGSTOP);
        more_writes(&database, 100);
        third.signal(Signal::SIGCONT);
        more_writes(&database, 60);
        third.signal(Signal::SIGKILL);
        more_writes(&database, 100);
    });
    println!("{reads} reads, {writes} writes, the longest {longest:?}");
    assert!(longest < Duration::from_secs(10), "{longest:?}");
}

#[test]
fn a_proxy_that_was_stopped_answers_nothing_from_before() {
    let (redis, database) = (Redis::start(), database());
    let (left, right) = two(&database, &redis);
    let (mut writer, mut reader) = (left.session(&database), right.session(&database));
    writer.patience(Duration::from_secs(60));
    let mark = mark();
    for _ in 0..3 {
        warm_up(&mut reader, &mark);
        right.signal(Signal::SIGSTOP);
        let at = Instant::now();
        let written = write(&mut writer);
        println!("a write beside a stopped proxy took {:?}", at.elapsed());
        right.signal(Signal::SIGCONT);
        assert_eq!(value(&mut reader, &mark), written);
    }
}

#[test]
fn a_proxy_that_hears_nothing_serves_nothing_until_it_hears_again() {
    let (redis, database) = (Redis::start(), database());
    let way = Forwarder::start("127.0.0.1:0", redis.port);
    let left = sharing(&database, redis.port).start();
    let right = sharing(&database, way.port).start();
    let (mut writer, mut reader) = (left.session(&database), right.session(&database));
    writer.patience(Duration::from_secs(60));
    let mark = mark();
    for _ in 0..2 {
        warm_up(&mut reader, &mark);
        // The first ping of this proxy that comes by cuts its way to Redis.
        way.break_after("PUBLISH", 0);
        for _ in 0..20 {
            let written = write(&mut writer);
            assert_eq!(value(&mut reader, &mark), written);
        }
    }
    warm_up(&mut reader, &mark);
}

#[test]
fn a_proxy_that_caches_nothing_itself_tells_others_what_it_writes() {
    let (redis, database) = (Redis::start(), database());
    let left = sharing(&database, redis.port).section("cache", "enabled", 0).start();
    let right = sharing(&database, redis.port).start();
    let (mut writer, mut reader) = (left.session(&database), right.session(&database));
    let mark = mark();
    for _ in 0..10 {
        warm_up(&mut reader, &mark);
        let written = write(&mut writer);
        assert_eq!(value(&mut reader, &mark), written);
    }
}

#[test]
fn while_one_proxy_gives_place_to_another_a_third_hears_of_the_writes_of_both() {
    let (redis, database) = (Redis::start(), database());
    let old = sharing(&database, redis.port).start();
    let third = sharing(&database, redis.port).start();
    let (mut staying, mut reader) = (old.session(&database), third.session(&database));
    // Whoever is in a transaction stays.
    staying.query("begin");
    let mark = mark();
    warm_up(&mut reader, &mark);
    let new = old.successor();
    let mut coming = new.session(&database);
    for _ in 0..10 {
        warm_up(&mut reader, &mark);
        let written = write(&mut coming);
        assert_eq!(value(&mut reader, &mark), written, "written through the new process");
    }
    warm_up(&mut reader, &mark);
    let written = write(&mut staying);
    assert!(staying.query("commit").error().is_none());
    assert_eq!(value(&mut reader, &mark), written, "written through the old process");
}

#[test]
fn a_proxy_that_leaves_says_so_and_nobody_waits_for_it() {
    let (redis, database) = (Redis::start(), database());
    let (left, mut right) = two(&database, &redis);
    let mut writer = left.session(&database);
    warm_up(&mut right.session(&database), &mark());
    right.signal(Signal::SIGTERM);
    right.wait_for_end();
    let at = Instant::now();
    write(&mut writer);
    assert!(at.elapsed() < Duration::from_millis(400), "{:?}", at.elapsed());
}

#[test]
fn a_proxy_that_comes_holds_its_first_writes_back_until_the_others_know_of_it() {
    let (redis, database) = (Redis::start(), database());
    let left = sharing(&database, redis.port).start();
    let mut reader = left.session(&database);
    let mark = mark();
    for _ in 0..4 {
        warm_up(&mut reader, &mark);
        let mut right = sharing(&database, redis.port).start();
        let mut writer = right.session(&database);
        writer.patience(Duration::from_secs(60));
        let written = write(&mut writer);
        assert_eq!(value(&mut reader, &mark), written);
        right.die();
        // What it serves until then, and not any longer, would prove nothing.
        wait_until("nobody is waited for", || left.metrics().sum("pgweir_bus_peers", &[&database]) == 0.0);
    }
}

#[test]
fn the_check_of_a_configuration_says_who_else_shares_the_database_and_why_one_would_not_be_understood() {
    let (redis, other_redis, database) = (Redis::start(), Redis::start(), database());
    let (left, right) = two(&database, &redis);
    let file = left.home().join("pgweir.ini");
    let plain = fs::read_to_string(&file).unwrap();
    let check = |change: &dyn Fn(&str) -> String| {
        let changed = left.home().join("changed.ini");
        scratch().write(&changed, &change(&plain));
        let mut command = programs::command(&scratch().reachable(&binary()));
        let output = command.arg("check").arg(&changed).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!said.contains("known to both"), "{said}");
        (output.status.code().unwrap(), said)
    };
    wait_until("both know of each other", || {
        [&left, &right].iter().all(|proxy| proxy.metrics().sum("pgweir_bus_peers", &[&database]) == 1.0)
    });
    let (code, said) = check(&str::to_owned);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("Redis carries a message in ") && said.contains("; 2 other processes share"), "{said}");
    let (code, said) = check(&|text| text.replace("known to both and nobody else", "known to nobody else"));
    assert!(code == 1 && said.contains("secret: another process uses another secret"), "{said}");
    assert!(said.contains("changed.ini:"), "{said}");
    let (here, elsewhere) = (format!(":{}/0", redis.port), format!(":{}/0", other_redis.port));
    let (code, said) = check(&|text| text.replace(&here, &elsewhere));
    assert!(code == 1 && said.contains("2 of 2 other processes share the database and are not heard"), "{said}");
    // Whoever may not say anything on the channel keeps answers of nobody else.
    redis.command("ACL SETUSER reader on >word ~pgweir:* +@all -publish allchannels");
    redis.command("ACL SETUSER deaf on >word ~pgweir:* +@all resetchannels");
    for (user, refused) in [("reader", "PUBLISH: "), ("deaf", "SUBSCRIBE: ")] {
        let (code, said) = check(&|text| text.replace("redis://", &format!("redis://{user}:word@")));
        let expected = format!("no messages to other processes: {refused}");
        assert!(code == 1 && said.contains(&expected), "{said}");
    }
    let (code, said) = check(&|text| format!("{text}\n[cache]\ncoherence = off\n"));
    assert!(code == 0 && !said.contains("Redis carries"), "{said}");
    drop(right);
    wait_until("it has gone", || check(&str::to_owned).1.contains("; 1 other process shares"));
}
