//! Is an answer from the cache ever older than what anybody could know? Sessions write in every way that PostgreSQL has and
//! read in every way that is cached, while servers and clients fail; every observation is checked.
//!
//! * Nobody misses a write that was acknowledged to anybody before (read-your-writes for everybody).
//! * Nobody is shown less than anybody has seen before, be it on the primary itself, by a notification or behind a row lock.
//! * Nobody sees what nobody wrote, half of a transaction, or an answer that differs from the primary's.
//!
//! * What was written without a proxy nobody misses who begins to read later than a second after it could be seen.
//!
//! `HISTORY_SECONDS` says how long each of them runs, `HISTORY_READS` how many reads there are at least, `HISTORY_SEED` repeats
//! the choices, `HISTORY_RULE` leaves out this rule alone.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a test fails loudly, and has no outside"
)]

mod ablations;
#[path = "../history/checker.rs"]
mod checker;
mod faults;
mod listening;
mod order;
mod plan;
mod reads;
mod session;
#[path = "../support/mod.rs"]
mod support;
mod topology;
mod world;
mod writes;

use std::{
    env,
    sync::{Mutex, MutexGuard, Once, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use checker::{Outcome, Promise};
use faults::Fault;
use plan::{Plan, Story};
use support::{Proxy, Redis, cluster, forwarder::Forwarder, proxy::Builder, wait_until};
use topology::{Site, Topology};
use world::schema;
use writes::Form;

/// The reads of a round are held until it is judged.
const ROUND: Duration = Duration::from_secs(10);

/// `max_replica_lag`, and how late it may be noticed.
const REPLICA_LAG: Duration = Duration::from_secs(1);

fn variable(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap())
}

fn seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    variable("HISTORY_SEED").unwrap_or(now.as_secs())
}

/// Two cores are enough for one history.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A database of this schema.
fn database(plan: &Plan) -> String {
    let cluster = cluster();
    let database = cluster.database();
    static ROLES: Once = Once::new();
    let mut admin = cluster.primary.session("postgres");
    ROLES.call_once(|| _ = admin.rows("grant stranger to app"));
    admin.rows(&format!("alter database {database} set deadlock_timeout = '50ms'"));
    cluster.prepare(&database, &schema(&plan.families));
    database
}

fn caching(database: &str) -> Builder {
    Proxy::of(cluster(), database).set("default_pool_size", 40).cached().section("cache", "in_transactions", 1)
}

/// One proxy in front of a database of its own.
fn one(promise: Promise, plan: &Plan, configure: impl Fn(Builder, &str) -> Builder) -> Topology<'static> {
    let database = database(plan);
    let proxy = configure(caching(&database), &database).start();
    Topology::new(cluster(), database, vec![Site::of(proxy, None)], promise)
}

/// Two proxies that share a Redis, each with a way of its own to it, and hear of direct writes where there are any.
fn two(plan: &Plan, configure: impl Fn(Builder, usize, &str) -> Builder) -> Topology<'static> {
    let (database, redis) = (database(plan), Redis::start());
    if plan.direct > 0 {
        // Whoever publishes everything must be able to say which row is meant.
        let keyless = ["base", "derived", "strict"].map(|table| format!("alter table {table} replica identity full;"));
        cluster().primary.session(&database).rows(&keyless.concat());
        cluster().primary.session(&database).rows("create publication pgweir for all tables");
    }
    let site = |number| {
        let way = Forwarder::start("127.0.0.1:0", redis.port);
        let url = format!("redis://127.0.0.1:{}/0", way.port);
        let builder = caching(&database).section("cache", "redis_url", url).section("cache", "redis_min_cost", 0);
        let builder = builder.section("cache", "secret", "a secret of two proxies");
        let builder = builder.section("cache", "wal_invalidation", u8::from(plan.direct > 0));
        Site::of(configure(builder, number, &database).start(), Some(way))
    };
    let sites: Vec<Site> = (0..2).map(site).collect();
    for site in &sites {
        let is_open = || site.proxy().show("CACHE").select("database", &database, "state") == ["on"];
        wait_until("a proxy serves from its cache", is_open);
    }
    let topology = Topology::new(cluster(), database, sites, Promise::Everybodys);
    Topology { redis: Some(Mutex::new(redis)), ..topology }
}

/// Both replicas serve reads. The one that is late shows the past, the other one perhaps what the primary does not show yet.
fn replicated(builder: Builder, database: &str, read_your_writes: &str) -> Builder {
    let [first, second] = &cluster().replicas;
    let builder = builder.replicas(database, &[(first, 2), (second, 1)]);
    builder.section("routing", "read_your_writes", read_your_writes)
}

/// Nothing stays in memory: what was asked before comes from Redis.
fn forgetful(builder: Builder, redis: &Redis) -> Builder {
    let builder = builder.section("cache", "size", 1).section("cache", "redis_url", redis.url());
    let builder = builder.section("cache", "secret", "a secret of one proxy").section("cache", "redis_min_cost", 0);
    builder.section("cache", "redis_timeout", "0.5")
}

/// Rounds until the time is over and enough has happened, on a busy machine for longer; nothing may be found.
fn tell(topology: &Topology<'_>, plan: Plan, seed: u64, seconds: u64) {
    let (seconds, reads) = (variable("HISTORY_SECONDS").unwrap_or(seconds), variable("HISTORY_READS").unwrap_or(3000));
    let (start, before) = (Instant::now(), topology.hits());
    let mut story = Story::new(topology, plan, seed);
    let is_enough = |story: &Story<'_>| {
        let (committed, aborted) = (story.writes(Outcome::Committed), story.writes(Outcome::Aborted));
        story.reads >= reads && topology.hits() - before > 100 && committed > 50 && aborted > 5
    };
    while start.elapsed() < Duration::from_secs(seconds) || !is_enough(&story) {
        assert!(start.elapsed() < Duration::from_secs(4 * seconds), "seed {seed}: too little happens");
        let left = Duration::from_secs(seconds).saturating_sub(start.elapsed());
        let verdict = story.round(ROUND.min(left.max(Duration::from_secs(4))));
        assert!(verdict.is_clean(), "{}", story.describe(&verdict));
    }
    let hits = topology.hits() - before;
    let (committed, aborted) = (story.writes(Outcome::Committed), story.writes(Outcome::Aborted));
    println!(
        "seed {seed}: {} reads, {hits} hits ({} %), {} compared with the primary; {committed} writes committed, {aborted} \
         rolled back, {} of unknown outcome, {} of all without a proxy; {:?}; stale: 0; failed reads {:?}; {:?}",
        story.reads,
        hits * 100 / i64::try_from(story.reads).unwrap().max(1),
        story.compared,
        story.writes(Outcome::Unknown),
        story.direct_writes(),
        story.faults,
        story.failed,
        start.elapsed(),
    );
}

/// Everything but these families, in every way.
fn everything_but(left_out: &[&str]) -> Plan {
    let names = world::FAMILIES.iter().map(|family| family.name).filter(|name| !left_out.contains(name));
    let mut plan = Plan::of(&names.collect::<Vec<_>>());
    for family in plan.families.iter().filter(|family| !family.doors.is_empty()) {
        plan.writes.extend([(*family, Form::Vanish), (*family, Form::VanishAtCommit)]);
    }
    Plan { definitions: Some(Duration::from_millis(2500)), ..plan }
}

#[test]
fn nobody_is_shown_less_than_anybody_has_seen_before() {
    let _turn = turn();
    let mut plan = Plan { listens: true, ..everything_but(&[]) };
    plan.faults = vec![Fault::Peace, Fault::Peace, Fault::BackendTerminated, Fault::CommitsHang];
    let topology = one(Promise::Everybodys, &plan, |builder, _| builder);
    tell(&topology, plan, seed(), 10);
}

#[test]
fn nobody_misses_what_anybody_was_told_while_replicas_fail() {
    let _turn = turn();
    cluster().replicas[1].delay_replay(100);
    let faults = vec![Fault::ReplicaPaused, Fault::ReplicaRestarted, Fault::Peace];
    let plan = Plan { faults, ..everything_but(&["late"]) };
    let configure = |builder, database: &str| replicated(builder, database, "database");
    let topology = Topology { is_linearizable: false, ..one(Promise::Everybodys, &plan, configure) };
    tell(&topology, plan, seed(), 15);
    cluster().replicas[1].delay_replay(0);
}

/// Everything at once. Where no trigger waits for the commit, the locks tell what an opaque write has touched; where one proxy
/// keeps nothing in memory, its answers come from Redis.
fn two_proxies(seed: u64, seconds: u64) {
    let left_out: &[&str] = if seed % 4 < 2 { &[] } else { &["late"] };
    let faults = vec![
        Fault::Calm,
        Fault::Calm,
        Fault::Calm,
        Fault::Calm,
        Fault::Peace,
        Fault::BackendTerminated,
        Fault::CommitsHang,
        Fault::StreamsEnded,
        Fault::ReplicaPaused,
        Fault::RedisStopped,
        Fault::RedisRestarted,
        Fault::RedisCut,
        Fault::ProxyKilled,
        Fault::ProxyStopped,
    ];
    let reads_replicas = seed.is_multiple_of(2);
    let bound = plan::BOUND + if reads_replicas { REPLICA_LAG } else { Duration::ZERO };
    // Where nobody writes without the proxies, nothing is heard twice.
    let direct = if seed % 4 == 1 { 0 } else { 3 };
    let plan = Plan { listens: true, direct, bound, writes_per_mille: 8, faults, ..everything_but(left_out) };
    let is_forgetful = |number| number == 0 && seed.is_multiple_of(3);
    let topology = two(&plan, |builder, number, database| {
        let builder = if is_forgetful(number) { builder.section("cache", "size", 1) } else { builder };
        if !reads_replicas {
            return builder;
        }
        // What is written without the proxies is there as late as a replica may be.
        let lag = REPLICA_LAG.as_secs();
        replicated(builder, database, "database").section("routing", "max_replica_lag", lag)
    });
    let topology = Topology { is_linearizable: !reads_replicas, ..topology };
    tell(&topology, plan, seed, seconds);
    let by_key = topology.writes_by_key();
    println!("seed {seed}: {by_key} writes by key, heard of or done");
    assert!(by_key > 0, "no table has been told by rows");
}

#[test]
fn nobody_is_shown_less_at_two_proxies_whatever_fails() {
    let _turn = turn();
    let seeds = variable("HISTORY_SEED").map_or((1..=5).collect(), |seed| vec![seed]);
    seeds.into_iter().for_each(|seed| two_proxies(seed, 20));
}
