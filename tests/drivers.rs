//! Real drivers see the same server through pgweir, in transaction mode, as directly.
//!
//! The scripts in `tests/drivers` print one outcome per behaviour; how many clients run at once
//! and over how few server connections is decided here.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails loudly")]

mod support;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Mutex, PoisonError},
};

use serde_json::Value;
use support::{
    Proxy, cluster,
    drivers::{HERE, installed},
    proxy::Builder,
};

/// Longest run of one script, in seconds.
const DEADLINE: &str = "240";
const CLIENTS: usize = 20;

#[derive(Clone, Copy)]
enum Driver {
    Psycopg,
    Asyncpg,
    NodePostgres,
}

impl Driver {
    fn command(self) -> Command {
        let (interpreter, script) = match self {
            Self::Psycopg => (installed().join("venv/bin/python"), "psycopg_behaviours.py"),
            Self::Asyncpg => (installed().join("venv/bin/python"), "asyncpg_behaviours.py"),
            Self::NodePostgres => (PathBuf::from("node"), "node_postgres_behaviours.mjs"),
        };
        let mut command = Command::new("timeout");
        command.args(["--kill-after", "5", DEADLINE]).arg(interpreter).arg(Path::new(HERE).join(script));
        command.env("PGWEIR_NODE_MODULES", installed()).env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("NODE_NO_WARNINGS", "1").env("PGCONNECT_TIMEOUT", "120");
        command
    }

    /// Outcome by behaviour, one map per client.
    fn outcomes(self, port: u16, database: &str, group: &str, clients: usize) -> Vec<BTreeMap<String, Value>> {
        let url = format!("postgres://app@127.0.0.1:{port}/{database}");
        let output = self.command().args([&url, group, &clients.to_string()]).output().unwrap();
        let mut outcomes = vec![BTreeMap::new(); clients];
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let said: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            let client = usize::try_from(said["client"].as_u64().unwrap()).unwrap();
            let behaviour = said["behaviour"].as_str().unwrap().to_owned();
            outcomes[client].insert(behaviour, said["outcome"].clone());
        }
        assert!(output.status.success(), "{}", ending(&output, &outcomes));
        outcomes
    }
}

fn ending(output: &Output, outcomes: &[BTreeMap<String, Value>]) -> String {
    let finished: Vec<_> = outcomes.iter().map(BTreeMap::len).collect();
    let said = String::from_utf8_lossy(&output.stderr);
    format!("the driver ended with {}; behaviours finished by each client: {finished:?}\n{said}", output.status)
}

/// One driver at a time: each brings twenty clients.
fn turn() -> impl Drop {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Every one of the clients must see through the proxy what a single one sees directly.
#[track_caller]
fn compare(
    driver: Driver,
    group: &str,
    clients: usize,
    at_least: usize,
    configure: impl FnOnce(Builder, &str) -> Builder,
) {
    let _turn = turn();
    let (direct, pooled) = (cluster().database(), cluster().database());
    let expected = driver.outcomes(cluster().primary.port, &direct, group, 1).remove(0);
    assert!(expected.len() >= at_least, "only {} behaviours", expected.len());
    let proxy = configure(Proxy::of(cluster(), &pooled), &pooled).start();
    let seen = driver.outcomes(proxy.port, &pooled, group, clients);
    let differences: String =
        expected.iter().filter_map(|(behaviour, expected)| difference(behaviour, expected, &seen)).collect();
    assert!(differences.is_empty(), "{differences}{}", proxy.last_words());
    proxy.wait_until_idle(&pooled);
}

/// Who saw something else for this behaviour, and what the first of them saw.
fn difference(behaviour: &str, expected: &Value, seen: &[BTreeMap<String, Value>]) -> Option<String> {
    let different: Vec<_> =
        seen.iter().map(|seen| seen.get(behaviour).unwrap_or(&Value::Null)).filter(|seen| *seen != expected).collect();
    let first = different.first()?;
    let clients = different.len();
    Some(format!("{behaviour}, {clients} clients:\n  directly {expected}\n  pgweir   {first}\n"))
}

fn two_servers(builder: Builder, _: &str) -> Builder {
    builder.set("default_pool_size", 2)
}

/// Twenty clients, each with two sessions that hold a server at the same time.
fn forty_servers(builder: Builder, _: &str) -> Builder {
    builder.set("default_pool_size", 40)
}

/// Other sessions' writes are read at once in these scripts, so freshness is per database.
fn everything_on(builder: Builder, database: &str) -> Builder {
    let replicas = [(&cluster().replicas[0], 2), (&cluster().replicas[1], 1)];
    builder
        .set("default_pool_size", 4)
        .replicas(database, &replicas)
        .section("routing", "read_your_writes", "database")
        .cached()
}

#[test]
fn psycopg_sees_the_same_over_two_server_connections() {
    compare(Driver::Psycopg, "alone", CLIENTS, 30, two_servers);
}

#[test]
fn psycopg_sees_the_same_when_sessions_act_on_each_other() {
    compare(Driver::Psycopg, "together", CLIENTS, 5, forty_servers);
}

#[test]
fn psycopg_sees_the_same_with_replicas_and_cache() {
    compare(Driver::Psycopg, "alone", 4, 30, everything_on);
}

#[test]
fn psycopg_moves_values_of_200_mb() {
    compare(Driver::Psycopg, "large", 1, 3, two_servers);
}

#[test]
fn asyncpg_sees_the_same_over_two_server_connections() {
    compare(Driver::Asyncpg, "alone", CLIENTS, 30, two_servers);
}

#[test]
fn asyncpg_sees_the_same_when_sessions_act_on_each_other() {
    compare(Driver::Asyncpg, "together", CLIENTS, 5, forty_servers);
}

#[test]
fn asyncpg_sees_the_same_with_replicas_and_cache() {
    compare(Driver::Asyncpg, "alone", 4, 30, everything_on);
}

#[test]
fn asyncpg_moves_values_of_200_mb() {
    compare(Driver::Asyncpg, "large", 1, 2, two_servers);
}

#[test]
fn node_postgres_sees_the_same_over_two_server_connections() {
    compare(Driver::NodePostgres, "alone", CLIENTS, 30, two_servers);
}

#[test]
fn node_postgres_sees_the_same_when_sessions_act_on_each_other() {
    compare(Driver::NodePostgres, "together", CLIENTS, 5, forty_servers);
}

#[test]
fn node_postgres_sees_the_same_with_replicas_and_cache() {
    compare(Driver::NodePostgres, "alone", 4, 30, everything_on);
}

#[test]
fn node_postgres_moves_values_of_200_mb() {
    compare(Driver::NodePostgres, "large", 1, 2, two_servers);
}
