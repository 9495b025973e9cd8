//! A cache that only observes answers nothing, and says what the one that is switched on would have answered.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails loudly"
)]

mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};

use support::{
    Proxy, RawClient, Reply, cluster,
    cluster::USER,
    frames::query,
    hits::mark,
    random::{Random, seeds},
    wait_until,
};

const SCHEMA: &str = "
    create table t(id int primary key, v int); insert into t select i, i from generate_series(1, 5) i;
    create table u(id int primary key, v int); insert into u select i, i from generate_series(1, 5) i;";

/// Its trigger writes what nobody foresees.
const NOTED: &str = "
    create table audit(v int);
    create table noted(id int primary key, v int); insert into noted values (1, 0);
    create function note() returns trigger language plpgsql as $$ begin insert into audit values (new.v); return new; end $$;
    create trigger noting after update on noted for each row execute function note();";

/// Counts are exact only while nobody changes a setting of a database of this server, which every catalog is known by:
/// one test at a time.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn database(schema: &str) -> String {
    let database = cluster().database();
    cluster().prepare(&database, schema);
    cluster().log_statements(&database);
    database
}

fn proxy(database: &str, enabled: &str) -> Proxy {
    let builder = Proxy::of(cluster(), database).section("cache", "enabled", enabled).section("cache", "ttl", 600);
    let proxy = builder.start();
    if enabled != "0" {
        warm_up(&proxy, database);
    }
    proxy
}

/// Waits until the catalog is there, so that nothing stands in the way of the first read any more.
fn warm_up(proxy: &Proxy, database: &str) {
    let mut session = proxy.session(database);
    let mark = mark();
    wait_until("a hit", || {
        let before = hits(proxy, database);
        session.rows(&format!("select count(*) from t {mark}"));
        hits(proxy, database) > before
    });
}

/// Answers from memory, and those that would have been.
fn hits(proxy: &Proxy, database: &str) -> i64 {
    let cache = proxy.show("CACHE");
    cache.number("database", database, "hits") + cache.number("database", database, "would_hits")
}

/// One step of a script.
#[derive(Debug)]
enum Act {
    /// Simple queries, sent at once.
    Simple(Vec<String>),
    /// The prepared statement of that number, and its parameter.
    Execute(usize, String),
}

const PREPARED: [&str; 3] = [
    "select v from t where id = $1::int",
    "select t.v, u.v from t join u using (id) where id = $1::int",
    "update u set v = v + 1 where id = $1::int",
];

fn statement(random: &mut Random) -> String {
    let id = 1 + random.below(5);
    match random.below(40) {
        24.. | 0..8 => format!("select v from t where id = {id}"),
        8..11 => format!("select v from u where id = {id}"),
        11 | 12 => "select sum(t.v + u.v) from t join u using (id)".to_owned(),
        13 => "select count(*) from u".to_owned(),
        14 => "select v, now() is null from t where id = 1".to_owned(),
        15 => format!("select v from t where id = {id} /* pgweir: nocache */"),
        16 => format!("update t set v = v + 1 where id = {id}"),
        17 => format!("update u set v = {id} where id = {id}"),
        18 => "update t set v = 0 where id = 99".to_owned(),
        19 => format!("insert into t values ({id}, 0)"),
        20 => format!("delete from u where id = {id}; insert into u values ({id}, {id})"),
        21 => format!("begin; update t set v = {id} where id = 2; rollback"),
        22 => format!("begin; update u set v = {id}; commit"),
        23 => format!("select {id} / (v - v) from t where id = 1"),
    }
}

/// None that may fail as a write: behind an answer that has not come, nobody knows that it changed nothing.
fn statement_behind_another(random: &mut Random) -> String {
    let may_fail = |sql: &String| sql.starts_with("insert");
    let mut statements = std::iter::repeat_with(|| statement(random));
    statements.find(|sql| !may_fail(sql)).unwrap()
}

/// The same for the same seed.
fn script(seed: u64, length: usize) -> Vec<Act> {
    let mut random = Random::new(seed);
    let mut acts = Vec::new();
    for _ in 0..length {
        acts.push(match random.below(10) {
            0..6 => Act::Simple(vec![statement(&mut random)]),
            6 => Act::Simple((0..2 + random.below(3)).map(|_| statement_behind_another(&mut random)).collect()),
            7 => {
                let inside = [statement(&mut random), statement(&mut random)];
                let end = if random.one_in(3) { "rollback" } else { "commit" };
                let all = ["begin".to_owned()].into_iter().chain(inside).chain([end.to_owned()]);
                acts.extend(all.map(|sql| Act::Simple(vec![sql])));
                continue;
            }
            _ => Act::Execute(random.below(PREPARED.len()), (1 + random.below(5)).to_string()),
        });
    }
    acts
}

/// Runs it from the same beginning: what the session was told, and what was counted behind each act.
fn run(session: &mut RawClient, script: &[Act], mark: &str, hits: impl Fn() -> i64) -> (Vec<Reply>, Vec<i64>) {
    for sql in [
        "delete from t",
        "insert into t select i, i from generate_series(1, 5) i",
        "delete from u",
        "insert into u select i, i from generate_series(1, 5) i",
    ] {
        session.rows(sql);
    }
    for (number, sql) in PREPARED.iter().enumerate() {
        session.prepare(&format!("s{number}"), &format!("{sql} {mark}"));
    }
    let (mut replies, mut counts, before) = (Vec::new(), Vec::new(), hits());
    for act in script {
        match act {
            Act::Simple(texts) => {
                let bytes: Vec<u8> = texts.iter().flat_map(|sql| query(&format!("{sql} {mark}"))).collect();
                session.send(&bytes);
                replies.extend(texts.iter().map(|_| session.reply()));
            }
            Act::Execute(number, id) => replies.push(session.execute(&format!("s{number}"), &[id])),
        }
        counts.push(hits() - before);
    }
    (replies, counts)
}

/// How many hits each act of the script brings, or would, and what the session was told.
fn tried(database: &str, enabled: &str, script: &[Act], mark: &str) -> (Vec<Reply>, Vec<i64>) {
    let proxy = proxy(database, enabled);
    run(&mut proxy.session(database), script, mark, || hits(&proxy, database))
}

#[test]
fn the_same_script_would_hit_exactly_as_often_as_it_does_with_the_cache_on() {
    let _turn = turn();
    let database = database(SCHEMA);
    for seed in seeds(1..5) {
        let script = script(seed, 250);
        let marks = [mark(), mark(), mark()];
        let mut direct = RawClient::session(&cluster().primary.address(), USER, &database);
        let (expected, _) = run(&mut direct, &script, &marks[0], || 0);
        let (told_on, on) = tried(&database, "1", &script, &marks[1]);
        let (told, observed) = tried(&database, "observe", &script, &marks[2]);
        for (number, reply) in expected.iter().enumerate() {
            assert_eq!(told_on[number].frames, reply.frames, "seed {seed}, reply {number}: {script:?}");
            assert_eq!(told[number].frames, reply.frames, "seed {seed}, reply {number}: {script:?}");
        }
        let differs = (0..script.len()).find(|act| on[*act] != observed[*act]);
        let before = differs.map(|act| &script[act.saturating_sub(20)..=act]);
        assert_eq!(differs, None, "seed {seed}: {before:?}");
        let hits = *on.last().unwrap();
        assert!(hits > 20, "seed {seed}: {hits} hits");
        let executions = |mark: &String| cluster().primary.executions(mark) as i64;
        assert_eq!(executions(&marks[2]), executions(&marks[0]), "seed {seed}: the server runs all of them");
        assert_eq!(executions(&marks[1]), executions(&marks[0]) - hits, "seed {seed}");
    }
}

#[test]
fn a_hundred_reads_and_five_writes_would_hit_ninety_four_times() {
    let _turn = turn();
    let database = database(SCHEMA);
    let proxy = proxy(&database, "observe");
    let mut session = proxy.session(&database);
    let (before, mark) = (hits(&proxy, &database), mark());
    for number in 0..100 {
        if [10, 30, 31, 70, 99].contains(&number) {
            session.rows("update t set v = v + 1");
        }
        session.rows(&format!("select v from t where id = 1 {mark}"));
    }
    assert_eq!(hits(&proxy, &database) - before, 100 - 6);
    assert_eq!(cluster().primary.executions(&mark), 100);
    let cache = proxy.show("CACHE");
    assert_eq!(cache.select("database", &database, "state"), ["observe"]);
    assert_eq!(cache.number("database", &database, "hits"), 0);
    let saved: f64 = cache.select("database", &database, "would_save_ms")[0].parse().unwrap();
    assert!(saved > 0.0);
    let shape = |table: &support::Table, column| {
        table.select("query", "select v from t where id = ?", column).first().cloned().unwrap_or_default()
    };
    let queries = proxy.show("QUERIES");
    assert_eq!((shape(&queries, "calls"), shape(&queries, "would_hits")), ("100".into(), "94".into()));
    assert_eq!((shape(&queries, "cache_hits"), shape(&queries, "cache_reason")), ("0".into(), String::new()));
    let advice = proxy.show("CACHE ADVICE");
    assert_eq!((shape(&advice, "advice"), shape(&advice, "hits")), ("cache".into(), "94".into()));
    assert_eq!((shape(&advice, "voided"), shape(&advice, "unsure_hits")), ("5".into(), "0".into()));
    assert_eq!(shape(&advice, "hit_ratio"), "0.940");
    let metrics = proxy.metrics();
    let of = |family: &str, label: &str| metrics.sum(family, &[&format!("database=\"{database}\""), label]);
    assert!(of("pgweir_cache_requests_total", "outcome=\"would_hit\"") >= 94.0);
    assert!(of("pgweir_cache_misses_total", "reason=\"written\"") >= 5.0);
    assert!(metrics.sum("pgweir_cache_would_save_seconds_total", &[]) > 0.0);
    assert_eq!(of("pgweir_cache_requests_total", "outcome=\"hit\""), 0.0);
}

#[test]
fn the_shape_that_gains_most_is_named_first_and_what_stands_in_the_way_of_others_is_said() {
    let _turn = turn();
    let database = database(SCHEMA);
    let proxy = proxy(&database, "observe");
    let mut session = proxy.session(&database);
    for number in 0..20 {
        session.rows("select v from t where id = 1");
        session.rows("select pg_sleep(0.002), count(*) from u where id is not null and v < 100");
        session.rows("select sum(v) from u, generate_series(1, 20000)");
        session.rows(&format!("select v from u where id = {number}"));
        session.rows("update t set v = v where id = 2");
        session.rows("select v from t where id = 3");
        session.rows("select v, now() from t");
    }
    let advice = proxy.show("CACHE ADVICE");
    let of = |part: &str| -> Vec<String> {
        let rows = advice.rows.iter().filter(|row| row[advice.position("query")].contains(part));
        rows.map(|row| row[advice.position("advice")].clone()).collect()
    };
    let reason = |part: &str| {
        let row = advice.rows.iter().find(|row| row[advice.position("query")].contains(part)).unwrap();
        row[advice.position("reason")].clone()
    };
    let first = &advice.rows[0];
    assert!(first[advice.position("query")].contains("generate_series"), "{advice:?}");
    assert_eq!(of("generate_series"), ["cache"]);
    assert_eq!(of("select v from u"), ["not_repeated"]);
    assert_eq!((of("now("), reason("now(").is_empty()), (vec!["not_cacheable".to_owned()], false));
    assert_eq!(of("pg_sleep"), ["not_cacheable"]);
    assert_eq!(of("update t"), ["not_cacheable"]);
    assert_eq!(proxy.tell("SHOW CACHE ADVICE 1").rows().len(), 1);
}

#[test]
fn a_write_of_which_nobody_knows_the_reach_leaves_a_figure_between_two_bounds() {
    let _turn = turn();
    let database = database(&format!("{SCHEMA} {NOTED}"));
    let script = |session: &mut RawClient, mark: &str| {
        for number in 0..40 {
            session.rows(&format!("select v from t where id = 1 {mark}"));
            session.rows(&format!("select count(*) from audit {mark}"));
            if number % 4 == 0 {
                session.rows(&format!("update noted set v = v + 1 {mark}"));
            }
        }
    };
    let counted = |enabled: &str, mark: &str| {
        let proxy = proxy(&database, enabled);
        let before = hits(&proxy, &database);
        script(&mut proxy.session(&database), mark);
        let advice = proxy.show("CACHE ADVICE");
        let unsure: i64 = advice.column("unsure_hits").iter().map(|count| count.parse::<i64>().unwrap()).sum();
        (hits(&proxy, &database) - before, unsure)
    };
    let mark = mark();
    let (observed, unsure) = counted("observe", &mark);
    for backend in cluster().primary.backends_that_ran(&mark) {
        let log = cluster().primary.log();
        let own = log.lines().filter(|line| line.contains(&format!("[{backend}]")));
        let asked = own.filter(|line| line.contains("pg_locks") || line.contains("BEGIN")).count();
        assert_eq!(asked, 0, "the server is asked nothing on account of a write");
    }
    let (on, _) = counted("1", &self::mark());
    assert!(observed < on && on <= observed + unsure, "{observed} <= {on} <= {observed} + {unsure}");
}

#[test]
fn a_reload_leads_from_off_to_observing_to_on_and_back() {
    let _turn = turn();
    let database = database(SCHEMA);
    let proxy = proxy(&database, "0");
    let mut session = proxy.session(&database);
    let state = || proxy.show("CACHE").select("database", &database, "state")[0].clone();
    let switch = |from: &str, to: &str| {
        proxy.rewrite(|text| text.replace(&format!("enabled = {from}"), &format!("enabled = {to}")));
        assert!(proxy.tell("RELOAD").error().is_none());
    };
    let mut ran = |mark: &str| {
        for _ in 0..20 {
            session.rows("update t set v = v where id = 5");
            session.rows(&format!("select v from u where id = 1 {mark}"));
        }
        cluster().primary.executions(mark)
    };
    assert_eq!((state(), ran(&mark())), ("off".to_owned(), 20));
    switch("0", "observe");
    warm_up(&proxy, &database);
    let before = hits(&proxy, &database);
    assert_eq!((state(), ran(&mark())), ("observe".to_owned(), 20));
    assert_eq!(hits(&proxy, &database) - before, 19, "{:?}", proxy.show("CACHE ADVICE"));
    switch("observe", "1");
    warm_up(&proxy, &database);
    assert_eq!((state(), ran(&mark())), ("on".to_owned(), 1));
    switch("1", "observe");
    warm_up(&proxy, &database);
    assert_eq!((state(), ran(&mark())), ("observe".to_owned(), 20));
    switch("observe", "0");
    assert_eq!((state(), ran(&mark())), ("off".to_owned(), 20));
    assert_eq!(hits(&proxy, &database), 0);
}

#[test]
fn a_read_that_outlives_its_time_or_its_size_would_not_be_answered() {
    let _turn = turn();
    let database = database(SCHEMA);
    let proxy = Proxy::of(cluster(), &database)
        .section("cache", "enabled", "observe")
        .section("cache", "ttl", 600)
        .section("cache", "max_result_size", "4kB")
        .start();
    warm_up(&proxy, &database);
    let mut session = proxy.session(&database);
    let mut would = |sql: &str| {
        let before = hits(&proxy, &database);
        (0..12).for_each(|_| _ = session.rows(sql));
        hits(&proxy, &database) - before
    };
    assert_eq!(would("select repeat('x', 3000), v from t where id = 1"), 11);
    assert_eq!(would("select repeat('y', 9000) || v from t where id = 1"), 0);
    let advice = proxy.show("CACHE ADVICE");
    let row = advice.rows.iter().find(|row| row[advice.position("query")].contains("||")).unwrap();
    assert_eq!(
        (row[advice.position("advice")].as_str(), row[advice.position("reason")].as_str()),
        ("not_kept", "too_large")
    );
    assert_eq!(would("select v from t where id = 1 /* pgweir: cache ttl=0.001s */ and pg_typeof(v)::text <> ''"), 0);
}

#[test]
fn readers_who_would_wait_for_one_answer_count_as_answered() {
    let _turn = turn();
    let database = database(SCHEMA);
    let proxy = proxy(&database, "observe");
    let mut holder = RawClient::session(&cluster().primary.address(), USER, &database);
    holder.rows("begin");
    holder.rows("lock table t in access exclusive mode");
    let (before, mark) = (hits(&proxy, &database), mark());
    let mut readers = [(); 3].map(|()| proxy.session(&database));
    let mut watcher = cluster().primary.session("postgres");
    let waiting =
        format!("select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = '{database}'");
    for (number, reader) in (1..).zip(&mut readers) {
        reader.send(&query(&format!("select v from t where id = 1 {mark}")));
        wait_until("it has come to the server", || watcher.value(&waiting) == number.to_string());
    }
    holder.rows("commit");
    for reader in &mut readers {
        assert_eq!(reader.reply().rows(), [["1"]]);
    }
    assert_eq!(cluster().primary.executions(&mark), 3, "nobody waits for another");
    assert_eq!(hits(&proxy, &database) - before, 2);
}
