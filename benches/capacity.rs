//! What clients, query shapes and kept answers take of memory, and whether idle clients cost the busy ones anything:
//! `cargo bench --profile dev --bench capacity`. The figures of `deploy/CAPACITY.md` are what this prints.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark that fails says so loudly")]
#![allow(clippy::print_stdout, reason = "its figures")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    env,
    time::{Duration, Instant},
};

use support::{Proxy, RawClient, cluster, programs::allow_descriptors, proxy::Builder};

/// Idle clients at most.
const MOST_CLIENTS: usize = 10_000;
const SHAPES: usize = 4000;
const ENTRIES: usize = 20_000;
/// Bytes of the value in each answer that is kept.
const VALUE: usize = 200;
const BUSY: Duration = Duration::from_secs(2);

/// One database behind a fresh proxy.
struct Place {
    database: String,
    proxy: Proxy,
}

impl Place {
    fn of(settings: impl FnOnce(Builder) -> Builder) -> Self {
        let database = cluster().database();
        cluster().prepare(&database, "create table t(id int primary key, v text); insert into t values (1, 'one')");
        let proxy = settings(Proxy::of(cluster(), &database).set("workers", 1)).start();
        let place = Self { database, proxy };
        let mut first = place.clients(20);
        for client in &mut first {
            client.value("select repeat('x', 3000)");
            client.value("select v from t where id = 1");
        }
        place
    }

    fn clients(&self, count: usize) -> Vec<RawClient> {
        (0..count).map(|_| self.proxy.session(&self.database)).collect()
    }

    /// Bytes that each of `count` things took.
    fn bytes_for_each(&self, count: usize, make: impl FnOnce()) -> u64 {
        let before = self.proxy.resident();
        make();
        self.proxy.resident().saturating_sub(before) / count as u64
    }
}

/// Microseconds of processor time for a query of one busy client.
fn cost_of_a_query(place: &Place) -> f64 {
    let mut client = place.proxy.session(&place.database);
    let (before, started) = (place.proxy.processor_time(), Instant::now());
    let mut count = 0_u32;
    while started.elapsed() < BUSY {
        client.value("select v from t where id = 1");
        count += 1;
    }
    let used = place.proxy.processor_time() - before;
    used.as_secs_f64() * 1e6 / f64::from(count)
}

fn clients() {
    allow_descriptors(MOST_CLIENTS);
    let place = Place::of(|builder| builder.set("max_client_conn", MOST_CLIENTS + 100));
    println!("| idle clients | bytes for each | processor time of a query beside them, µs |\n|---|---|---|");
    println!("| 0 | – | {:.1} |", cost_of_a_query(&place));
    let before = place.proxy.resident();
    let mut idle = Vec::new();
    for count in [10, 100, 1000, MOST_CLIENTS] {
        for mut client in place.clients(count - idle.len()) {
            client.value("select v from t where id = 1");
            idle.push(client);
        }
        let bytes = place.proxy.resident().saturating_sub(before) / count as u64;
        println!("| {count} | {bytes} | {:.1} |", cost_of_a_query(&place));
    }
}

fn shapes() {
    let place = Place::of(|builder| builder);
    let mut client = place.proxy.session(&place.database);
    let bytes = place.bytes_for_each(SHAPES, || {
        for shape in 0..SHAPES {
            client.value(&format!("select v as column_of_shape_{shape} from t where id = 1"));
        }
    });
    println!("\nquery shape of 55 characters: {bytes} bytes ({SHAPES} of them)");
}

fn entries() {
    let place = Place::of(Builder::cached);
    cluster().prepare(
        &place.database,
        &format!("insert into t select n, repeat('v', {VALUE}) from generate_series(2, {ENTRIES}) n"),
    );
    let mut client = place.proxy.session(&place.database);
    let bytes = place.bytes_for_each(ENTRIES, || {
        for id in 1..=ENTRIES {
            client.value(&format!("select v from t where id = {id}"));
        }
    });
    let kept = place.proxy.show("CACHE").number("database", &place.database, "entries");
    println!("kept answer of one row of {VALUE} characters: {bytes} bytes ({kept} of them)");
}

fn main() {
    // `cargo test --benches` only asks whether it starts.
    if !env::args().any(|argument| argument == "--bench") {
        return;
    }
    clients();
    shapes();
    entries();
}
