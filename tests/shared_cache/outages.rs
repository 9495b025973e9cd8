//! Redis hangs, dies, forgets and is full, while clients read and write.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use super::{
    Figures, SECRET, TABLE, cached, shared, succeed,
    support::{Proxy, Redis, wait_until},
};

const ROWS: usize = 8;
const READERS: usize = 4;

/// Readers and a writer at work; every read is compared with what was acknowledged before it began.
struct Load {
    stop: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
    slowest_us: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(proxy: &Proxy, database: &str) -> Self {
        let (stop, reads, slowest_us) = (Arc::default(), Arc::default(), Arc::default());
        let acknowledged: Arc<Vec<AtomicI64>> = Arc::new((0..ROWS).map(|_| AtomicI64::new(0)).collect());
        let mut load = Self { stop, reads, slowest_us, threads: Vec::new() };
        for number in 0..READERS {
            let (mut session, acknowledged) = (proxy.session(database), Arc::clone(&acknowledged));
            let (stop, reads, slowest) =
                (Arc::clone(&load.stop), Arc::clone(&load.reads), Arc::clone(&load.slowest_us));
            load.threads.push(thread::spawn(move || {
                let mut row = number;
                while !stop.load(Ordering::Relaxed) {
                    row = (row + 3) % ROWS;
                    let least = acknowledged[row].load(Ordering::SeqCst);
                    let began = Instant::now();
                    let value = session.value(&format!("select v from t where id = {row}"));
                    slowest.fetch_max(began.elapsed().as_micros() as u64, Ordering::Relaxed);
                    assert!(value.parse::<i64>().unwrap() >= least, "row {row}: {value}, acknowledged was {least}");
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        let (mut session, stop) = (proxy.session(database), Arc::clone(&load.stop));
        load.threads.push(thread::spawn(move || {
            let mut row = 0;
            while !stop.load(Ordering::Relaxed) {
                row = (row + 1) % ROWS;
                let sql = format!("update t set v = v + 1 where id = {row} returning v");
                acknowledged[row].store(session.value(&sql).parse().unwrap(), Ordering::SeqCst);
                thread::sleep(Duration::from_millis(20));
            }
        }));
        load
    }

    /// Reads per second during this time, and the slowest in milliseconds.
    fn measure(&self, what: &str, time: Duration) -> f64 {
        self.slowest_us.store(0, Ordering::Relaxed);
        let (before, began) = (self.reads.load(Ordering::Relaxed), Instant::now());
        while began.elapsed() < time {
            thread::sleep(Duration::from_millis(20));
            assert!(self.threads.iter().all(|thread| !thread.is_finished()), "a client failed: {what}");
        }
        let reads = self.reads.load(Ordering::Relaxed) - before;
        let rate = reads as f64 / began.elapsed().as_secs_f64();
        let slowest = self.slowest_us.load(Ordering::Relaxed) as f64 / 1000.0;
        println!("{what:44} {rate:7.0} reads/s, slowest {slowest:6.1} ms");
        rate
    }

    /// Nobody has failed or read what was old.
    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("no failed statement, no stale read"));
    }
}

#[test]
fn nobody_fails_or_reads_what_is_old_whatever_redis_does() {
    let mut redis = Redis::start();
    let schema = format!(
        "create table t(id int primary key, v int); insert into t select i, 0 from generate_series(0, {ROWS} - 1) i"
    );
    let (proxy, database) = shared(&redis.url(), &schema);
    let proxy = proxy.section("cache", "redis_timeout", "0.05").start();
    let mut figures = Figures::of(&proxy, &database);
    figures.wait_for_state("up");
    let load = Load::start(&proxy, &database);
    let phase = Duration::from_secs(2);
    let well = load.measure("all is well", phase);
    let hits = figures.number("shared_hits");
    assert!(hits > 0, "answers come from Redis");

    redis.signal(Signal::SIGSTOP);
    let hung = load.measure("Redis hangs", phase);
    assert_ne!(figures.text("shared_state"), "up");
    assert!(figures.number("shared_timeouts") >= 3);
    redis.signal(Signal::SIGCONT);
    figures.wait_for_state("up");
    load.measure("Redis goes on", phase);

    redis.die();
    let dead = load.measure("Redis is dead", phase);
    assert_ne!(figures.text("shared_state"), "up");
    redis.come_back();
    figures.wait_for_state("up");
    load.measure("Redis is there again, empty", phase);

    let flushing = Instant::now();
    while flushing.elapsed() < phase {
        redis.command("FLUSHALL");
    }
    load.measure("Redis forgets everything all the time", Duration::from_millis(500));

    redis.command("CONFIG SET maxmemory 1");
    load.measure("Redis is full", phase);
    redis.command("CONFIG SET maxmemory-policy allkeys-lru");
    redis.command("CONFIG SET maxmemory 2mb");
    load.measure("Redis evicts", phase);
    redis.command("CONFIG SET maxmemory 0");

    figures.wait_for_state("up");
    let hits = figures.number("shared_hits");
    let again = load.measure("all is well again", phase);
    assert!(figures.number("shared_hits") > hits, "answers come from Redis again");
    load.end();
    let metrics = proxy.metrics();
    let opened =
        |reason: &str| metrics.sum("pgweir_cache_shared_breaker_opened_total", &[&*format!("reason=\"{reason}\"")]);
    println!("left alone for timeouts {}, lost connections {}", opened("timeout"), opened("connection_lost"));
    assert!(opened("timeout") >= 1.0 && opened("connection_lost") >= 1.0);
    assert!(metrics.sum("pgweir_cache_shared_reads_total", &["outcome=\"unavailable\""]) > 0.0);
    for (what, rate) in [("hung", hung), ("dead", dead), ("again", again)] {
        assert!(rate > well / 5.0, "{what}: {rate} reads/s, {well} before");
    }
}

#[test]
fn while_redis_hangs_a_query_waits_for_the_deadline_and_then_no_longer() {
    let redis = Redis::start();
    let (proxy, database) = shared(&redis.url(), TABLE);
    let proxy = proxy.section("cache", "redis_timeout", "0.3").start();
    let (mut session, mut figures) = (proxy.session(&database), Figures::of(&proxy, &database));
    figures.wait_for_state("up");
    figures.read_from_redis(&mut session, "select v from t");
    redis.signal(Signal::SIGSTOP);
    let mut times = Vec::new();
    wait_until("Redis is left alone", || {
        let began = Instant::now();
        assert_eq!(session.value("select v from t"), "0");
        times.push(began.elapsed());
        figures.text("shared_state") != "up"
    });
    println!("until Redis was left alone: {times:?}");
    // One in front of those may be a read from memory, or of the writer's.
    assert!(times.len() <= 8, "{times:?}");
    let mut quickest = Duration::MAX;
    for _ in 0..20 {
        let began = Instant::now();
        assert_eq!(session.value("select v from t"), "0");
        quickest = quickest.min(began.elapsed());
    }
    println!("quickest while it is left alone: {quickest:?}");
    assert!(quickest < Duration::from_millis(150));
    redis.signal(Signal::SIGCONT);
    figures.wait_for_state("up");
    figures.read_from_redis(&mut session, "select v from t");
}

#[test]
fn a_proxy_starts_and_serves_where_redis_does_not_answer() {
    let redis = Redis::start();
    redis.die();
    let (proxy, database) = cached(TABLE);
    let proxy = proxy
        .section("cache", "redis_url", redis.url())
        .section("cache", "secret", SECRET)
        .section("cache", "redis_min_cost", 0)
        .start();
    let (mut session, mut figures) = (proxy.session(&database), Figures::of(&proxy, &database));
    succeed(&mut session, "select v from t");
    wait_until("hits in memory", || {
        session.rows("select v from t");
        figures.number("hits") > 0
    });
    wait_until("it says so", || proxy.log().contains("Redis is not reached"));
    assert_ne!(figures.text("shared_state"), "up");
    let mut redis = redis;
    redis.come_back();
    figures.wait_for_state("up");
}
