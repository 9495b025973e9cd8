//! What is in memory, what is in Redis, and what is in neither.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::{
    Figures, SECRET, TABLE, cached, executions, mark, shared, succeed,
    support::{Redis, frames::query, wait_until},
};

#[test]
fn an_answer_that_has_left_memory_comes_from_redis() {
    let redis = Redis::start();
    let (proxy, database) = shared(&redis.url(), TABLE);
    let proxy = proxy.start();
    let (mut session, mut figures) = (proxy.session(&database), Figures::of(&proxy, &database));
    figures.wait_for_state("up");
    let mark = mark();
    let sql = format!("select id, v from t {mark}");
    figures.read_from_redis(&mut session, &sql);
    wait_until("the server has nothing to do", || {
        let (runs, hits) = (executions(&mark), figures.number("shared_hits"));
        (0..5).for_each(|_| assert_eq!(session.rows(&sql), [["1", "0"]]));
        let found = figures.number("shared_hits") - hits;
        assert_eq!(executions(&mark) - runs, 5 - found as usize, "either Redis or the server");
        found == 5
    });
    let direct = super::cluster().primary.session(&database).query(&sql);
    assert_eq!(session.query(&sql).frames, direct.frames, "byte for byte what the server says");
    let names = redis.command("KEYS *");
    assert!(names.contains(&format!("pgweir:{database}:")), "{names}");
    assert!(!names.contains("select"), "{names}");
    let metrics = proxy.metrics();
    assert!(metrics.sum("pgweir_cache_requests_total", &["outcome=\"shared_hit\""]) >= 5.0);
    assert!(metrics.sum("pgweir_cache_shared_reads_total", &["outcome=\"hit\""]) >= 5.0);
    assert!(metrics.sum("pgweir_cache_shared_writes_total", &["outcome=\"stored\""]) >= 1.0);
    assert_eq!(metrics.sum("pgweir_cache_shared_up", &[]), 1.0);
    assert!(!proxy.log().contains(SECRET));
}

#[test]
fn prepared_reads_and_long_answers_come_from_redis_as_they_were() {
    let redis = Redis::start();
    let schema = "create table t(id int primary key, v text); \
                  insert into t select i, repeat('row ' || i, 40) from generate_series(1, 500) i";
    let (proxy, database) = shared(&redis.url(), schema);
    let proxy = proxy.start();
    let (mut session, mut figures) = (proxy.session(&database), Figures::of(&proxy, &database));
    figures.wait_for_state("up");
    session.prepare("s", "select id, v from t where id <= $1::int order by id");
    let mut direct = super::cluster().primary.session(&database);
    direct.prepare("s", "select id, v from t where id <= $1::int order by id");
    for rows in ["0", "1", "500"] {
        let truth = direct.execute("s", &[rows]);
        wait_until("an answer from Redis", || {
            let before = figures.number("shared_hits");
            assert_eq!(session.execute("s", &[rows]).frames, truth.frames);
            figures.number("shared_hits") > before
        });
    }
    let mut client = redis.client();
    let names: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut client).unwrap();
    let stored: usize =
        names.iter().map(|name| redis::cmd("STRLEN").arg(name).query::<usize>(&mut client).unwrap()).sum();
    println!("500 rows of about 300 bytes: {stored} bytes in Redis");
    assert!(stored < 60_000, "long answers are packed: {stored}");
    for name in names {
        let left: i64 = redis::cmd("PTTL").arg(&name).query(&mut client).unwrap();
        assert!((1..=60_000).contains(&left), "{name} stays for {left} ms");
    }
}

#[test]
fn what_was_written_after_an_answer_was_stored_is_seen_at_once() {
    let redis = Redis::start();
    let (proxy, database) = shared(&redis.url(), TABLE);
    let proxy = proxy.start();
    let (mut reader, mut figures) = (proxy.session(&database), Figures::of(&proxy, &database));
    let mut writer = proxy.session(&database);
    figures.wait_for_state("up");
    for v in 1..=20 {
        succeed(&mut writer, &format!("update t set v = {v}"));
        assert_eq!(reader.value("select v from t"), v.to_string());
        assert_eq!(figures.read_from_redis(&mut reader, "select v from t"), v.to_string());
    }
    succeed(&mut writer, "alter table t alter column v type text using v || ' text'");
    assert_eq!(reader.value("select v from t"), "20 text");
    let mark = mark();
    let sql = format!("select v from t {mark}");
    figures.read_from_redis(&mut reader, &sql);
    let runs = executions(&mark);
    proxy.tell(&format!("FLUSH CACHE {database}"));
    assert_eq!(reader.value(&sql), "20 text");
    assert_eq!(executions(&mark), runs + 1, "what was flushed is not found in Redis");
}

#[test]
fn an_answer_that_a_write_overtakes_on_its_way_from_redis_is_not_served() {
    let redis = Redis::start();
    let (proxy, database) = shared(&redis.url(), TABLE);
    let proxy = proxy.start();
    let (mut reader, mut figures) = (proxy.session(&database), Figures::of(&proxy, &database));
    let mut writer = proxy.session(&database);
    figures.wait_for_state("up");
    figures.read_from_redis(&mut reader, "select v from t");
    let overtaken = || proxy.metrics().sum("pgweir_cache_shared_reads_total", &["outcome=\"overtaken\""]);
    let mut v = 0;
    // A loaded machine may take longer than the deadline between the two signals.
    wait_until("a write overtakes an answer", || {
        figures.wait_for_state("up");
        figures.read_from_redis(&mut reader, "select v from t");
        redis.signal(Signal::SIGSTOP);
        reader.send(&query("select v from t"));
        let is_in_memory = !reader.is_silent_for(Duration::from_millis(200));
        v += 1;
        succeed(&mut writer, &format!("update t set v = {v}"));
        redis.signal(Signal::SIGCONT);
        let answer = reader.reply().rows();
        assert!(is_in_memory || answer == [[v.to_string()]], "{answer:?}, {v} was written");
        overtaken() > 0.0
    });
}

#[test]
fn only_what_costs_enough_goes_to_redis() {
    let redis = Redis::start();
    let (proxy, database) = shared(&redis.url(), TABLE);
    let proxy = proxy.section("cache", "redis_min_cost", "0.1").start();
    let (mut session, mut figures) = (proxy.session(&database), Figures::of(&proxy, &database));
    figures.wait_for_state("up");
    let cheap = "select v from t";
    let dear =
        "select count(*), min(s.total) from t, (select sum(g % 7) as total from generate_series(1, 6000000) g) s";
    let reads = || proxy.metrics().sum("pgweir_cache_shared_reads_total", &[]);
    wait_until("the cheap one is measured", || {
        assert_eq!(session.value(cheap), "0");
        figures.number("fills") > 0
    });
    let before = reads();
    for _ in 0..10 {
        assert_eq!(session.value(cheap), "0");
    }
    assert_eq!(reads(), before, "nobody asks Redis for what is cheap");
    assert_eq!(redis.command("DBSIZE"), ":0\r\n");
    wait_until("what is dear is in Redis", || {
        assert_eq!(session.value(dear), "1");
        redis.command("DBSIZE") != ":0\r\n"
    });
    assert_eq!(figures.read_from_redis(&mut session, dear), "1");
}

#[test]
fn what_memory_holds_needs_no_redis() {
    let redis = Redis::start();
    let (proxy, database) = cached(TABLE);
    let proxy = proxy
        .section("cache", "redis_url", redis.url())
        .section("cache", "secret", SECRET)
        .section("cache", "redis_timeout", 1)
        .section("cache", "redis_min_cost", 0)
        .start();
    let (mut session, mut figures) = (proxy.session(&database), Figures::of(&proxy, &database));
    figures.wait_for_state("up");
    wait_until("hits", || {
        session.rows("select v from t");
        figures.number("hits") > 0
    });
    let commands = || {
        let info = redis.command("INFO commandstats");
        info.lines()
            .filter_map(|line| line.strip_prefix("cmdstat_getrange:calls=")?.split(',').next()?.parse::<u64>().ok())
            .sum::<u64>()
    };
    wait_until("nobody asks Redis", || {
        let before = commands();
        (0..50).for_each(|_| assert_eq!(session.value("select v from t"), "0"));
        commands() == before
    });
}

#[test]
fn redis_comes_and_goes_with_a_reload() {
    let (first, second) = (Redis::start(), Redis::start());
    let (proxy, database) = cached(TABLE);
    let proxy = proxy
        .section("cache", "size", 1)
        .section("cache", "secret", SECRET)
        .section("cache", "redis_timeout", 1)
        .section("cache", "redis_min_cost", 0)
        .start();
    let (mut session, mut figures) = (proxy.session(&database), Figures::of(&proxy, &database));
    session.rows("select v from t");
    assert_eq!(figures.text("shared_state"), "off");
    for redis in [&first, &second] {
        proxy.tell(&format!("SET cache.redis_url = '{}'", redis.url()));
        figures.wait_for_state("up");
        figures.read_from_redis(&mut session, "select v from t");
        assert_ne!(redis.command("DBSIZE"), ":0\r\n");
    }
    wait_until("the first one is left", || {
        !first.command("CLIENT LIST").contains("db=0 sub=0 psub=0 ssub=0 multi=-1 qbuf=0")
    });
    let mark = mark();
    let sql = format!("select v from t {mark}");
    figures.read_from_redis(&mut session, &sql);
    let before = executions(&mark);
    proxy.tell("SET cache.secret = 'another secret of theirs'");
    figures.wait_for_state("up");
    wait_until("what was stored with another secret is not found", || {
        assert_eq!(session.value(&sql), "0");
        executions(&mark) > before
    });
    let wrong = proxy.console().query("SET cache.redis_url = 'redis+sentinel://:hunter2@h:1'");
    assert!(wrong.error().is_some());
    assert!(!proxy.log().contains("hunter2"), "{}", proxy.log());
    figures.wait_for_state("up");
    proxy.tell("SET cache.redis_url = ''");
    wait_until("Redis is left", || figures.text("shared_state") == "off");
    assert_eq!(session.value(&sql), "0");
}
