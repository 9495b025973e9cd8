//! Twenty sessions over two server connections, each beside a twin that has a connection of its own: what they are
//! told is the same, whatever their neighbours do.
//!
//! `ISOLATION_SECONDS` says for how long (default 10), `SEED` with which numbers.
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
    env,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use support::{
    Proxy, RawClient, Reply, cluster, frames,
    random::{self, Random},
};

const SESSIONS: u64 = 20;

/// What an operator sees of an answer: notifications apart, which have a time of their own.
#[derive(Debug, PartialEq)]
struct Told {
    tags: Vec<String>,
    rows: Vec<Vec<String>>,
    sqlstate: String,
    status: char,
}

impl Told {
    fn of(reply: &Reply) -> Self {
        Self { tags: reply.tags(), rows: reply.rows(), sqlstate: reply.sqlstate(), status: reply.status() }
    }
}

/// A session through the proxy and its twin.
struct Twins {
    number: u64,
    pooled: RawClient,
    direct: RawClient,
    random: Random,
    said: Vec<String>,
    heard: [Vec<String>; 2],
}

impl Twins {
    /// Both are asked, and both say the same.
    fn ask(&mut self, sql: &str) -> Told {
        self.both(sql, |client| client.query(sql))
    }

    fn ask_one_of(&mut self, statements: &[&str]) -> Told {
        let chosen = statements[self.random.below(statements.len())];
        self.ask(chosen)
    }

    fn both(&mut self, what: &str, ask: impl Fn(&mut RawClient) -> Reply) -> Told {
        self.said.push(what.to_owned());
        let (direct, pooled) = (ask(&mut self.direct), ask(&mut self.pooled));
        for (heard, reply) in self.heard.iter_mut().zip([&direct, &pooled]) {
            heard.extend(reply.frames.iter().filter(|frame| frame.tag == b'A').map(payload));
        }
        let (direct, pooled) = (Told::of(&direct), Told::of(&pooled));
        let before = self.said.len().saturating_sub(25);
        assert_eq!(pooled, direct, "session {}, behind {:#?}", self.number, &self.said[before..]);
        pooled
    }

    fn below(&mut self, limit: usize) -> usize {
        self.random.below(limit)
    }

    fn setting(&mut self) -> (&'static str, String) {
        let value = self.below(5);
        match self.below(9) {
            0 => ("search_path", format!("s{value}, public")),
            1 => ("work_mem", format!("{}kB", 1024 * (value + 1))),
            2 => ("statement_timeout", format!("{}s", 60 + value)),
            3 => ("timezone", ["UTC", "Asia/Tokyo", "Europe/Vienna", "America/Lima", "CET"][value].to_owned()),
            4 => ("my.tenant", format!("tenant {value} of {}", self.number)),
            5 => ("extra_float_digits", format!("{}", value % 4)),
            6 => ("datestyle", ["ISO, MDY", "ISO, DMY", "SQL, DMY", "German, DMY", "Postgres, MDY"][value].to_owned()),
            7 => ("default_transaction_isolation", ["read committed", "serializable"][value % 2].to_owned()),
            _ => ("application_name", format!("session {} {value}", self.number)),
        }
    }

    fn look(&mut self) {
        let looks = [
            "select current_user, current_schemas(false)::text, v from here",
            "select name, setting from pg_settings where name in ('search_path', 'work_mem', 'statement_timeout', \
             'TimeZone', 'extra_float_digits', 'DateStyle', 'default_transaction_isolation', 'application_name') \
             order by name",
            "select coalesce(current_setting('my.tenant', true), '')",
            "show timezone",
            "select '2026-03-04 05:06:07+00'::timestamptz, 0.1::float8 + 0.2",
            "select count(*) from pg_prepared_statements where from_sql",
            "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
            "select to_regclass('pg_temp.scratch') is null",
            "show transaction_isolation",
        ];
        let look = looks[self.below(looks.len())];
        match self.below(3) {
            0 => self.both(look, |client| client.extended(look, &[])),
            _ => self.ask(look),
        };
    }

    fn change(&mut self) {
        let (name, value) = self.setting();
        match self.below(10) {
            0..4 if name == "search_path" => self.ask(&format!("set search_path = {value}")),
            0..4 => self.ask(&format!("set {name} = '{value}'")),
            4 => self.ask(&format!("select set_config('{name}', '{value}', false)")),
            5 => {
                let call = "select set_config($1, $2, false)";
                self.both(call, |client| client.extended(call, &[name, &value]))
            }
            6 => self.ask(&format!("reset {name}")),
            7 => self.ask_one_of(&["reset all", "discard all", "reset role"]),
            8 => self.ask_one_of(&["set role reader", "set role writer", "set role none"]),
            _ => self.ask(&format!("do $$ begin perform set_config('{name}', '{value}', false); end $$")),
        };
    }

    fn transaction(&mut self) {
        self.ask("begin");
        for _ in 0..=self.below(3) {
            let (name, value) = self.setting();
            match self.below(6) {
                0 => self.ask(&format!("select set_config('{name}', '{value}', true)")),
                1 => {
                    self.ask("savepoint s");
                    self.change_inside();
                    self.ask("rollback to s")
                }
                2 => self.ask("select 1/0"),
                _ => {
                    self.change_inside();
                    self.ask("select 1")
                }
            };
            self.look();
        }
        self.ask_one_of(&["commit", "rollback"]);
    }

    fn change_inside(&mut self) {
        let (name, value) = self.setting();
        self.ask(&format!("select set_config('{name}', '{value}', false)"));
        if self.below(4) == 0 {
            self.ask(&format!("reset {name}"));
        }
    }

    /// The same name means another text in each session.
    fn prepared(&mut self) {
        let name = format!("p{}", self.below(3));
        let text = format!("select {}, $1::int + 1, current_setting('timezone'), v from here", self.number);
        match self.below(3) {
            0 => self.both("parse", |client| client.prepare(&name, &text)),
            1 => self.both("execute", |client| client.execute(&name, &["41"])),
            _ => {
                self.both("close", |client| client.exchange(&[frames::close_statement(&name), frames::sync()].concat()))
            }
        };
    }

    /// State that holds its server connection until it is gone; one session at a time, because there are two.
    fn pinned(&mut self, turn: &Mutex<()>) {
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = self.below(4);
        let number = self.number;
        match kind {
            0 => self.ask(&format!("create temp table scratch as select {number} as v")),
            1 => self.ask(&format!("prepare own as select {number}, v from here")),
            2 => self.ask(&format!("select pg_advisory_lock({number})")),
            _ => self.ask(&format!("declare held cursor with hold for select {number} from generate_series(1, 100)")),
        };
        for _ in 0..self.below(6) {
            match self.below(5) {
                0 => self.change(),
                1 => self.transaction(),
                2 => self.look(),
                3 => self.prepared(),
                _ => {
                    _ = match kind {
                        0 => self.ask("select v from scratch"),
                        1 => self.ask("execute own"),
                        2 => self.ask(&format!("select pg_try_advisory_lock({number}), pg_advisory_unlock({number})")),
                        _ => self.ask("fetch 2 from held"),
                    }
                }
            }
        }
        match kind {
            0 => self.ask("drop table scratch"),
            1 => self.ask("deallocate own"),
            2 => self.ask("select pg_advisory_unlock_all()"),
            _ => self.ask("close held"),
        };
        // DISCARD ALL in between has taken it already.
        self.ask("discard all");
    }

    fn listen(&mut self) {
        let channel = format!("channel_{}", self.number);
        match self.below(4) {
            0 => self.ask(&format!("listen {channel}")),
            1 => self.ask(&format!("unlisten {channel}")),
            2 => self.ask("unlisten *"),
            _ => {
                let text = format!("{}", self.said.len());
                self.ask(&format!("notify {channel}, '{text}'"))
            }
        };
    }

    /// Both have heard the same, in the same order.
    fn compare_what_was_heard(&mut self) {
        let channel = format!("channel_{}", self.number);
        self.ask(&format!("listen {channel}"));
        self.ask(&format!("notify {channel}, 'the end'"));
        for (client, heard) in [&mut self.direct, &mut self.pooled].into_iter().zip(&mut self.heard) {
            while heard.last().is_none_or(|last| last != "the end") {
                let frame = client.frame();
                assert_eq!(frame.tag, b'A', "{frame:?}");
                heard.push(payload(&frame));
            }
        }
        let [direct, pooled] = &self.heard;
        let about: Vec<_> = self
            .said
            .iter()
            .enumerate()
            .filter(|(_, said)| ["listen", "notify", "discard"].iter().any(|word| said.contains(word)))
            .collect();
        assert_eq!(pooled, direct, "session {}: {about:?}", self.number);
    }
}

fn payload(frame: &frames::Frame) -> String {
    let text = String::from_utf8_lossy(&frame.body[4..]).into_owned();
    text.split('\0').nth(1).unwrap().to_owned()
}

/// A database with a table of the same name in each schema, and what is in it says which.
fn furnish(database: &str) {
    let mut sql =
        String::from("create table here(v text); insert into here values ('public'); grant select on here to public;");
    for schema in 0..5 {
        sql.push_str(&format!(
            "create schema s{schema}; grant usage on schema s{schema} to public;
             create table s{schema}.here(v text); insert into s{schema}.here values ('s{schema}');
             grant select on s{schema}.here to public;"
        ));
    }
    cluster().prepare(database, &sql);
}

#[test]
fn each_of_twenty_sessions_over_two_servers_is_told_what_it_would_be_told_alone() {
    let seconds = env::var("ISOLATION_SECONDS").map_or(10, |text| text.parse().unwrap());
    let seed = random::seeds(1..2).start;
    let (pooled, direct) = (cluster().database(), cluster().database());
    cluster().primary.session("postgres").rows("create role reader; create role writer; grant reader, writer to app");
    furnish(&pooled);
    furnish(&direct);
    let proxy = Proxy::of(cluster(), &pooled).set("default_pool_size", 2).start();
    let (turn, is_over, asked) = (Mutex::new(()), AtomicBool::new(false), AtomicU64::new(0));
    let started = Instant::now();
    thread::scope(|scope| {
        for session in 0..SESSIONS {
            let (proxy, pooled, direct) = (&proxy, &pooled, &direct);
            let (turn, is_over, asked) = (&turn, &is_over, &asked);
            scope.spawn(move || {
                let mut twins = Twins {
                    number: session,
                    pooled: proxy.session(pooled),
                    direct: RawClient::session(&cluster().primary.address(), support::cluster::USER, direct),
                    random: Random::new(seed * 1000 + session),
                    said: Vec::new(),
                    heard: [Vec::new(), Vec::new()],
                };
                while !is_over.load(Ordering::Relaxed) {
                    match twins.below(20) {
                        0..6 => twins.look(),
                        6..11 => twins.change(),
                        11..14 => twins.transaction(),
                        14..17 => twins.prepared(),
                        17 => twins.pinned(turn),
                        _ => twins.listen(),
                    }
                }
                twins.compare_what_was_heard();
                asked.fetch_add(twins.said.len() as u64, Ordering::Relaxed);
            });
        }
        while started.elapsed() < Duration::from_secs(seconds) && !is_over.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(50));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let backends = proxy.show("SERVERS").rows.len();
    println!("{} statements compared, {backends} server connections, seed {seed}", asked.into_inner());
    assert!(backends <= 2);
    assert_eq!(proxy.show("PINS").rows.len(), 0);
}
