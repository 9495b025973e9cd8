//! Sessions read and write at random through routing and cache, and while servers fail; no read may be older than what was
//! acknowledged.
//!
//! `HISTORY_SECONDS` says how long (20), `HISTORY_SEED` repeats the sessions' choices.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a test fails loudly, and has no outside"
)]

mod checker;
mod faults;
mod schema;
mod session;
#[path = "../support/mod.rs"]
mod support;

use std::{
    env,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime},
};

use checker::{History, Outcome, Promise, Violation, check};
use schema::{KEYS, Shape, schema, shapes};
use session::Session;
use support::{Proxy, cluster, proxy::Builder};

/// Every session owns the key of its number.
const SESSIONS: u16 = KEYS;

fn seconds() -> Duration {
    let seconds = env::var("HISTORY_SECONDS").ok().map_or(20, |text| text.parse().unwrap());
    Duration::from_secs(seconds)
}

fn seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    env::var("HISTORY_SEED").ok().map_or(now.as_secs(), |text| text.parse().unwrap())
}

/// Sixteen sessions are enough for two cores.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Primary and two replicas, one of them late; the cache is on.
fn proxied(configure: impl FnOnce(Builder) -> Builder) -> (Proxy, String) {
    let database = cluster().database();
    cluster().prepare(&database, &schema());
    let mut admin = cluster().primary.session("postgres");
    admin.rows(&format!("alter database {database} set deadlock_timeout = '50ms'"));
    cluster().replicas[1].delay_replay(100);
    let replicas = [(&cluster().replicas[0], 2), (&cluster().replicas[1], 1)];
    let builder = Proxy::of(cluster(), &database).replicas(&database, &replicas).cached();
    (configure(builder).start(), database)
}

fn random_history(proxy: &Proxy, database: &str, shapes: &[Shape], time: Duration) -> History {
    let seed = seed();
    println!("HISTORY_SEED={seed}");
    let start = Instant::now();
    let histories: Vec<History> = thread::scope(|scope| {
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|number| {
                let client = proxy.session(database);
                let session = Session::new(number, client, seed + u64::from(number), shapes, start);
                scope.spawn(move || session.run(time))
            })
            .collect();
        sessions.into_iter().map(|session| session.join().unwrap()).collect()
    });
    let mut whole = History::default();
    for history in histories {
        whole.writes.extend(history.writes);
        whole.reads.extend(history.reads);
    }
    whole
}

/// What there is to say about a violation: the read, and what it should have known.
fn describe(violations: &[Violation], shapes: &[Shape]) -> String {
    let shape = |violation: &Violation| match violation {
        Violation::Stale { shape, .. } | Violation::Phantom { shape, .. } | Violation::Torn { shape, .. } => *shape,
    };
    let lines = violations
        .iter()
        .take(10)
        .map(|violation| format!("{violation:?}\n  {}\n", shapes[usize::from(shape(violation))].sql));
    format!("{} violations, the first are\n{}", violations.len(), lines.collect::<String>())
}

/// The history must have had what it was made for: writes of all outcomes, and reads of all three kinds of servers.
fn assert_it_was_a_history(history: &History, proxy: &Proxy, database: &str) {
    let outcomes = |outcome| history.writes.iter().filter(|write| write.outcome == outcome).count();
    let hits = proxy.show("CACHE").number("database", database, "hits");
    println!(
        "{} reads, {hits} of them from the cache; {} writes committed, {} rolled back",
        history.reads.len(),
        outcomes(Outcome::Committed),
        outcomes(Outcome::Aborted)
    );
    let tables = proxy.show("CACHE TABLES");
    let by_key = ["plain_1", "plain_2"].map(|table| tables.number("relation", &format!("public.{table}"), "by_key"));
    println!("writes of known rows: {by_key:?}");
    assert!(by_key[0] > 0 && by_key[1] > 0, "tables are read and written by key");
    assert!(hits > 100 && outcomes(Outcome::Committed) > 100 && outcomes(Outcome::Aborted) > 5);
}

#[test]
fn no_read_is_older_than_a_write_acknowledged_before_it_began() {
    let _turn = turn();
    let shapes = shapes();
    let (proxy, database) = proxied(|builder| builder.section("routing", "read_your_writes", "database"));
    let history = random_history(&proxy, &database, &shapes, seconds());
    let violations = check(&history, Promise::Everybodys);
    assert!(violations.is_empty(), "{}", describe(&violations, &shapes));
    assert_it_was_a_history(&history, &proxy, &database);
}

#[test]
fn with_freshness_per_session_no_read_is_older_than_its_own_sessions_writes() {
    let _turn = turn();
    let shapes = shapes();
    let (proxy, database) = proxied(|builder| builder.section("routing", "read_your_writes", "session"));
    let history = random_history(&proxy, &database, &shapes, seconds() / 3);
    let violations = check(&history, Promise::OwnSessions);
    assert!(violations.is_empty(), "{}", describe(&violations, &shapes));
    assert_it_was_a_history(&history, &proxy, &database);
}

/// A checker that never finds anything proves nothing.
#[test]
fn without_invalidation_stale_reads_are_found() {
    let _turn = turn();
    let shapes = shapes();
    let (proxy, database) = proxied(|builder| {
        builder.section("routing", "read_your_writes", "database").environment("PGWEIR_ABLATE", "invalidation")
    });
    let history = random_history(&proxy, &database, &shapes, Duration::from_secs(5));
    let violations = check(&history, Promise::Everybodys);
    assert!(violations.iter().any(|violation| matches!(violation, Violation::Stale { .. })));
}
