//! Is an answer from the cache ever older than what anybody could know? Sessions write in every way that PostgreSQL has and
//! read in every way that is cached, while servers and clients fail; every observation is checked.
//!
//! * Nobody misses a write that was acknowledged to anybody before (read-your-writes for everybody).
//! * Nobody is shown less than anybody has seen before, be it on the primary itself, by a notification or behind a row lock.
//! * Nobody sees what nobody wrote, half of a transaction, or an answer that differs from the primary's.
//!
//! `HISTORY_SECONDS` says how long (15), `HISTORY_READS` how many reads at least, `HISTORY_SEED` repeats the choices.
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
mod order;
mod plan;
mod reads;
mod session;
#[path = "../support/mod.rs"]
mod support;
mod world;
mod writes;

use std::{
    env,
    sync::{Mutex, MutexGuard, Once, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use checker::{Outcome, Promise};
use faults::Fault;
use plan::{Plan, Story, Topology};
use support::{Proxy, Redis, cluster, proxy::Builder};
use world::schema;
use writes::Form;

/// The reads of a round are held until it is judged.
const ROUND: Duration = Duration::from_secs(10);

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

/// A database of this schema, and so many proxies in front of it.
fn topology(
    proxies: usize,
    promise: Promise,
    plan: &Plan,
    configure: impl Fn(Builder, &str) -> Builder,
) -> Topology<'static> {
    let cluster = cluster();
    let database = cluster.database();
    static ROLES: Once = Once::new();
    let mut admin = cluster.primary.session("postgres");
    ROLES.call_once(|| _ = admin.rows("grant stranger to app"));
    admin.rows(&format!("alter database {database} set deadlock_timeout = '50ms'"));
    cluster.prepare(&database, &schema(&plan.families));
    let builder = || Proxy::of(cluster, &database).set("default_pool_size", 40).cached();
    let proxies = (0..proxies).map(|_| configure(builder(), &database).start()).collect();
    Topology { cluster, proxies, database, promise, is_linearizable: promise == Promise::Everybodys }
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

/// Rounds until the time is over and enough was read; nothing may be found.
fn tell(topology: &Topology<'_>, plan: Plan) {
    let (seconds, reads) = (variable("HISTORY_SECONDS").unwrap_or(15), variable("HISTORY_READS").unwrap_or(3000));
    let (start, before) = (Instant::now(), topology.hits());
    let mut story = Story::new(topology, plan, seed());
    while start.elapsed() < Duration::from_secs(seconds) || story.reads < reads {
        let left = Duration::from_secs(seconds).saturating_sub(start.elapsed());
        let verdict = story.round(ROUND.min(left.max(Duration::from_secs(4))));
        assert!(verdict.is_clean(), "{}", story.describe(&verdict));
    }
    let hits = topology.hits() - before;
    let (committed, aborted) = (story.writes(Outcome::Committed), story.writes(Outcome::Aborted));
    println!(
        "{} reads, {hits} hits ({} %), {} compared with the primary; {committed} writes committed, {aborted} rolled back, \
         {} of unknown outcome; stale: 0; failed reads {:?}; {:?}",
        story.reads,
        hits * 100 / i64::try_from(story.reads).unwrap().max(1),
        story.compared,
        story.writes(Outcome::Unknown),
        story.failed,
        start.elapsed(),
    );
    assert!(hits > 100 && committed > 50 && aborted > 5, "too little has happened");
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
    let topology = topology(1, Promise::Everybodys, &plan, |builder, _| builder);
    tell(&topology, plan);
}

#[test]
fn nobody_is_shown_less_when_answers_come_from_redis() {
    let _turn = turn();
    let redis = Redis::start();
    let mut plan = Plan { listens: true, ..everything_but(&[]) };
    plan.faults = vec![Fault::Peace, Fault::BackendTerminated, Fault::CommitsHang];
    let topology = topology(1, Promise::Everybodys, &plan, |builder, _| forgetful(builder, &redis));
    tell(&topology, plan);
}

/// Where no trigger waits for the commit, the locks tell what an opaque write has touched.
#[test]
fn what_locks_tell_is_enough() {
    let _turn = turn();
    let plan =
        Plan { listens: true, faults: vec![Fault::Peace, Fault::BackendTerminated], ..everything_but(&["late"]) };
    let topology = topology(1, Promise::Everybodys, &plan, |builder, _| builder);
    tell(&topology, plan);
}

#[test]
fn nobody_misses_what_anybody_was_told_while_replicas_fail() {
    let _turn = turn();
    cluster().replicas[1].delay_replay(100);
    let faults = vec![Fault::ReplicaPaused, Fault::ReplicaRestarted, Fault::Peace];
    let plan = Plan { faults, ..everything_but(&["late"]) };
    let configure = |builder, database: &str| replicated(builder, database, "database");
    let topology = Topology { is_linearizable: false, ..topology(1, Promise::Everybodys, &plan, configure) };
    tell(&topology, plan);
}
