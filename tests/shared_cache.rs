//! Answers that others have brought: readers who wait for each other, and level two in Redis.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails loudly"
)]

mod support;

#[path = "shared_cache/addresses.rs"]
mod addresses;
#[path = "shared_cache/flights.rs"]
mod flights;
#[path = "shared_cache/forgery.rs"]
mod forgery;
#[path = "shared_cache/levels.rs"]
mod levels;
#[path = "shared_cache/outages.rs"]
mod outages;

use support::{Proxy, RawClient, Table, cluster, hits::mark, proxy::Builder, wait_until};

/// A table of one row.
const TABLE: &str = "create table t(id int primary key, v int); insert into t values (1, 0)";

/// A database whose server logs every statement, and a proxy in the making that caches it.
fn cached(schema: &str) -> (Builder, String) {
    let database = cluster().database();
    cluster().prepare(&database, schema);
    cluster().log_statements(&database);
    (Proxy::of(cluster(), &database).cached(), database)
}

/// How often the server has run statements of this mark.
fn executions(mark: &str) -> usize {
    cluster().primary.executions(mark)
}

#[track_caller]
fn succeed(session: &mut RawClient, sql: &str) {
    let reply = session.query(sql);
    assert!(reply.error().is_none(), "{sql}: {reply:?}");
}

/// What the entries' names and seals are made with.
const SECRET: &str = "a secret that two proxies have";

/// [`cached`] with Redis behind a memory that holds nothing, for statements of any cost, and with time to answer.
fn shared(redis_url: &str, schema: &str) -> (Builder, String) {
    let (builder, database) = cached(schema);
    let builder = builder
        .section("cache", "size", 1)
        .section("cache", "redis_url", redis_url)
        .section("cache", "secret", SECRET)
        .section("cache", "redis_timeout", 1)
        .section("cache", "redis_min_cost", 0);
    (builder, database)
}

/// Figures of SHOW CACHE, over one session.
struct Figures {
    console: RawClient,
    database: String,
}

impl Figures {
    fn of(proxy: &Proxy, database: &str) -> Self {
        Self { console: proxy.console(), database: database.to_owned() }
    }

    fn text(&mut self, column: &str) -> String {
        let table = Table::of(&self.console.query("SHOW CACHE"));
        table.select("database", &self.database, column).remove(0)
    }

    fn number(&mut self, column: &str) -> i64 {
        self.text(column).parse().unwrap()
    }

    /// Waits until Redis is asked, or is not for this reason.
    #[track_caller]
    fn wait_for_state(&mut self, state: &str) {
        wait_until(&format!("Redis is {state}"), || self.text("shared_state") == state);
    }

    /// Repeats the read until it is answered from Redis.
    #[track_caller]
    fn read_from_redis(&mut self, session: &mut RawClient, sql: &str) -> String {
        let mut value = String::new();
        wait_until(&format!("an answer from Redis: {sql}"), || {
            let before = self.number("shared_hits");
            value = session.value(sql);
            self.number("shared_hits") > before
        });
        value
    }
}
