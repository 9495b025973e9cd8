//! What the catalog says of random statements over random schemas, against what PostgreSQL itself says of them.
//!
//! * What an answer hangs on: every relation in the tree that PostgreSQL has rewritten the query to, and every one that a
//!   function in it reads. A write to any of them voids the answer.
//! * What a statement writes: every relation that it has locked when it has run. No lock set that is put together without the
//!   server may be smaller.
//!
//! `SEED` repeats one schema, `DIFFERENTIAL_SECONDS` goes on with others for longer (10 for each of both).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a test fails loudly, and has no outside"
)]

mod reads;
#[path = "../support/mod.rs"]
mod support;
mod writes;

use std::{
    env,
    sync::Arc,
    time::{Duration, Instant},
};

use pgweir::{
    catalog::{Meaning, Snapshot},
    cluster::catalog_loader,
    sql::Analyzer,
};
use support::{
    RawClient, cluster,
    cluster::USER,
    connect,
    random::{Random, seeds},
};

/// A database of a random schema, and what the proxy would know of it.
struct World {
    session: RawClient,
    snapshot: Snapshot,
    analyzer: Analyzer,
}

impl World {
    /// `schema` is statements that end their lines.
    fn of(schema: &str) -> Self {
        let database = cluster().database();
        let mut session = RawClient::session(&cluster().primary.address(), USER, &database);
        // A statement that PostgreSQL refuses is one less.
        for statement in schema.split(";\n") {
            session.query(statement);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let snapshot = runtime.block_on(async {
            let client = connect(&cluster().primary.config(&database)).await;
            catalog_loader::load(&client, None).await.unwrap()
        });
        Self { session, snapshot, analyzer: Analyzer::default() }
    }

    fn meaning(&self, sql: &str) -> Arc<Meaning> {
        self.snapshot.meaning(&self.analyzer.analyze(sql), USER)
    }

    fn name(&mut self, oid: u32) -> String {
        self.session.value(&format!("select {oid}::regclass"))
    }
}

/// One of these.
fn pick<'a, T>(random: &mut Random, from: &'a [T]) -> &'a T {
    &from[random.below(from.len())]
}

/// Schemas by the number of their seed, until the time is over.
fn for_each_seed(mut run: impl FnMut(u64)) {
    let seconds = env::var("DIFFERENTIAL_SECONDS").ok().map_or(10, |text| text.parse().unwrap());
    let start = Instant::now();
    for seed in seeds(0..10_000) {
        run(seed);
        if start.elapsed() > Duration::from_secs(seconds) {
            println!("{} schemas", seed + 1);
            return;
        }
    }
}
