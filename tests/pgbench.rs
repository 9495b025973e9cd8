//! pgbench through the proxy: every query mode, few and many clients over twenty server connections, deep pipelines.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails loudly"
)]

mod support;

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use support::{Proxy, cluster, cluster::USER, programs, proxy::Builder, scratch::scratch};

/// Branches; 100,000 accounts each.
const SCALE: &str = "10";
/// Seconds of each run that does not say otherwise.
const SECONDS: &str = "2";
const SERVERS: u32 = 20;
const MODES: [&str; 3] = ["simple", "extended", "prepared"];

/// One run at a time: each uses all there is.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn database() -> &'static str {
    static DATABASE: OnceLock<String> = OnceLock::new();
    DATABASE.get_or_init(|| {
        let database = cluster().database();
        pgbench(cluster().primary.port, &database, &["-i", "-q", "-s", SCALE]);
        cluster().catch_up();
        database
    })
}

fn pgbench(port: u16, database: &str, arguments: &[&str]) -> String {
    let mut command = programs::command(&programs::postgres_program("pgbench"));
    command.args(["-h", "127.0.0.1", "-U", USER, "-p", &port.to_string()]).args(arguments).arg(database);
    programs::run(command)
}

/// Runs pgbench and makes sure that nothing failed and something happened.
#[track_caller]
fn run(proxy: &Proxy, mode: &str, clients: &str, what: &[&str]) {
    // pgbench waits for each Parse before it turns to another client of the same thread. Clients of that thread which are
    // in a transaction hold their servers meanwhile: with more clients than servers they would wait for each other, so
    // there each client gets a thread of its own.
    let threads = match (mode, clients) {
        ("prepared", _) | (_, "1") => clients,
        _ => "2",
    };
    let how = ["-n", "-M", mode, "-c", clients, "-j", threads, "-T", SECONDS];
    let said = pgbench(proxy.port, database(), &[&how, what].concat());
    assert!(said.contains("number of failed transactions: 0 "), "{said}");
    let done = said.lines().find_map(|line| line.strip_prefix("number of transactions actually processed: "));
    let done: u64 = done.unwrap().split('/').next().unwrap().trim().parse().unwrap();
    assert!(done > 0, "{said}");
}

/// TPC-B moves the same amount in all four tables.
#[track_caller]
fn assert_balanced() {
    let mut session = cluster().primary.session(database());
    let sums = session.rows(
        "select (select sum(abalance) from pgbench_accounts), (select sum(bbalance) from pgbench_branches),
                (select sum(tbalance) from pgbench_tellers), (select coalesce(sum(delta), 0) from pgbench_history)",
    );
    assert!(sums[0].iter().all(|sum| *sum == sums[0][0]), "{sums:?}");
    assert_ne!(session.value("select count(*) from pgbench_history"), "0");
}

fn pooled() -> Builder {
    Proxy::of(cluster(), database()).set("default_pool_size", SERVERS)
}

fn everything_on() -> Builder {
    let replicas = [(&cluster().replicas[0], 2), (&cluster().replicas[1], 1)];
    pooled().replicas(database(), &replicas).cached()
}

/// Twenty server connections are all there are.
#[track_caller]
fn assert_pool_was_kept(proxy: &Proxy) {
    assert!(proxy.servers(database()).len() <= SERVERS as usize);
    proxy.wait_until_idle(database());
}

#[test]
fn select_only_in_every_mode_with_1_16_and_200_clients() {
    let _turn = turn();
    let proxy = pooled().start();
    for mode in MODES {
        for clients in ["1", "16", "200"] {
            run(&proxy, mode, clients, &["-S"]);
        }
    }
    assert_pool_was_kept(&proxy);
}

#[test]
fn tpc_b_in_every_mode_with_1_16_and_200_clients() {
    let _turn = turn();
    let proxy = pooled().start();
    for mode in MODES {
        for clients in ["1", "16", "200"] {
            run(&proxy, mode, clients, &[]);
        }
    }
    assert_pool_was_kept(&proxy);
    assert_balanced();
}

/// A script whose transactions are pipelines of so many statements.
fn pipeline(statement: &str, depth: usize) -> PathBuf {
    let mut script = String::from("\\set aid random(1, 100000)\n\\startpipeline\n");
    for _ in 0..depth {
        writeln!(script, "{statement}").unwrap();
    }
    script += "\\endpipeline\n";
    let file = scratch().directory("pipeline").join("script.sql");
    scratch().write(&file, &script);
    file
}

fn file(path: &Path) -> String {
    format!("--file={}", path.display())
}

#[test]
fn pipelines_of_a_hundred_statements() {
    let _turn = turn();
    let proxy = pooled().start();
    let reads = file(&pipeline("select abalance from pgbench_accounts where aid = :aid;", 100));
    for mode in ["extended", "prepared"] {
        for clients in ["1", "16", "200"] {
            run(&proxy, mode, clients, &[&reads, "--time=3"]);
        }
    }
    let writes = file(&pipeline("update pgbench_accounts set filler = 'x' where aid = :aid;", 100));
    for mode in ["extended", "prepared"] {
        run(&proxy, mode, "4", &[&writes, "--max-tries=100"]);
    }
    assert_pool_was_kept(&proxy);
}

#[test]
fn both_workloads_with_replicas_and_cache() {
    let _turn = turn();
    let proxy = everything_on().start();
    for mode in MODES {
        run(&proxy, mode, "16", &["-S"]);
        run(&proxy, mode, "16", &[]);
    }
    assert_balanced();
}
