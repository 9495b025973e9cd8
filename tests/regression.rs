//! PostgreSQL's own regression scripts: what is taken for a read, a hot standby runs.
//!
//! The scripts have filled a database of the primary first, so that their views, functions and types are in the catalog.
//! `REGRESSION_SCRIPTS=all` takes all of them, which takes two minutes; else those are taken that have to do with what a
//! standby refuses.
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
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use support::{Proxy, RawClient, cluster, programs, wait_until};

/// In this order, because the others use what they make.
const FIRST: &[&str] = &[
    "test_setup",
    "create_function_sql",
    "create_misc",
    "create_operator",
    "create_procedure",
    "create_table",
    "create_type",
    "create_schema",
    "create_index",
    "create_view",
    "create_aggregate",
    "create_cast",
    "inherit",
    "triggers",
    "rules",
    "rangefuncs",
    "plpgsql",
];
/// They change the whole cluster, wait for each other, or take long.
const LEFT_OUT: &[&str] = &[
    "database",
    "event_trigger_login",
    "infinite_recurse",
    "join_hash",
    "numeric_big",
    "psql_pipeline",
    "publication",
    "stats",
    "tablespace",
];
/// Besides the first: locks, sequences, temporary things, large objects, transactions, session state, functions.
const TAKEN: &[&str] = &[
    "advisory_lock",
    "async",
    "combocid",
    "copyselect",
    "explain",
    "generated_stored",
    "guc",
    "identity",
    "largeobject",
    "lock",
    "misc_functions",
    "name",
    "portals",
    "prepare",
    "privileges",
    "random",
    "returning",
    "rowsecurity",
    "select",
    "select_into",
    "sequence",
    "sysviews",
    "tablesample",
    "temp",
    "transactions",
    "txid",
    "uuid",
    "with",
    "xid",
];

fn scripts() -> Vec<PathBuf> {
    let installer = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/regress/install.sh");
    let output = Command::new(installer).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let home = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    let mut scripts: Vec<_> = fs::read_dir(home).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.retain(|script| !LEFT_OUT.contains(&name(script)));
    if env::var("REGRESSION_SCRIPTS").as_deref() != Ok("all") {
        scripts.retain(|script| FIRST.contains(&name(script)) || TAKEN.contains(&name(script)));
    }
    scripts.sort_by_key(|script| {
        let place = FIRST.iter().position(|first| *first == name(script)).unwrap_or(FIRST.len());
        (place, script.clone())
    });
    scripts
}

fn name(script: &Path) -> &str {
    script.file_stem().unwrap().to_str().unwrap()
}

/// Runs a script on the primary, whatever it says.
fn fill(database: &str, script: &Path) {
    let mut command = Command::new("timeout");
    command.arg("20").arg(programs::postgres_program("psql"));
    command.args(["-X", "-q", "-h", "127.0.0.1", "-U", "postgres", "-p", &cluster().primary.port.to_string()]);
    command.args(["-d", database, "-f"]).arg(script);
    command.env("PGOPTIONS", "-c statement_timeout=2s -c lock_timeout=200ms -c client_min_messages=error");
    command.current_dir("/").output().unwrap();
}

/// The statements of a script, without psql's own commands and the data of COPY.
fn statements(script: &Path) -> Vec<String> {
    let text = String::from_utf8_lossy(&fs::read(script).unwrap()).into_owned();
    let mut kept = String::new();
    let mut is_data = false;
    for line in text.lines() {
        if is_data {
            is_data = line != "\\.";
            continue;
        }
        if line.starts_with('\\') {
            continue;
        }
        kept += line.split(" \\g").next().unwrap();
        kept.push('\n');
        let lower = line.to_ascii_lowercase();
        is_data = lower.starts_with("copy") && lower.contains("from stdin") && lower.trim_end().ends_with(';');
    }
    match pg_query::split_with_scanner(&kept) {
        Ok(statements) => statements.into_iter().map(|statement| statement.trim().to_owned()).collect(),
        Err(_) => kept.split(";\n").map(|statement| statement.trim().to_owned()).collect(),
    }
}

/// What a hot standby says of statements that it may not run, in words as well as in SQLSTATE.
fn is_refused_on_a_standby(sqlstate: &str, message: &str) -> bool {
    sqlstate == "25006" || message.contains("recovery") || message.contains("read-only transaction")
}

#[test]
fn what_is_taken_for_a_read_a_hot_standby_runs() {
    let database = cluster().database();
    let scripts = scripts();
    for script in &scripts {
        fill(&database, script);
    }
    cluster().catch_up();
    let replica = &cluster().replicas[0];
    let proxy = Proxy::of(cluster(), &database).replicas(&database, &[(replica, 1)]).start();
    let mut console = proxy.console();
    let mut judge = |sql: &str| {
        let reply = console.query(&format!("SHOW ROUTE FOR {database} {sql}"));
        assert!(reply.error().is_none(), "{sql}: {reply:?}");
        let rows = reply.rows();
        (rows.iter().all(|row| row[1] == "read"), rows)
    };
    wait_until("the catalog has been read", || judge("select pg_catalog.upper(pg_catalog.lower('x'))").0);
    let mut standby = replica.session(&database);
    let (mut judged, mut reads, mut ran) = (0, 0, 0);
    let mut violations = Vec::new();
    let mut errors: BTreeMap<String, usize> = BTreeMap::new();
    for script in &scripts {
        for sql in statements(script).into_iter().filter(|sql| !sql.is_empty()) {
            judged += 1;
            let (is_read, rows) = judge(&sql);
            if !is_read {
                continue;
            }
            reads += 1;
            let outcome = run(&mut standby, &sql);
            match outcome {
                Ok(()) => ran += 1,
                Err((sqlstate, message)) => {
                    if is_refused_on_a_standby(&sqlstate, &message) {
                        violations.push(format!("{}: {sql}\n  {sqlstate} {message}\n  {:?}", name(script), rows));
                    }
                    *errors.entry(sqlstate).or_default() += 1;
                }
            }
        }
    }
    println!("{judged} statements, {reads} reads, of which {ran} ran on the standby; errors {errors:?}");
    assert!(violations.is_empty(), "{} violations\n{}", violations.len(), violations.join("\n"));
    assert!(judged > 10_000 && ran > 500);
}

/// Its outcome on the standby; the session is as before.
fn run(standby: &mut RawClient, sql: &str) -> Result<(), (String, String)> {
    let reply = standby.query(sql);
    let outcome = match reply.error() {
        Some(error) => Err((error.field(b'C').unwrap_or_default(), error.field(b'M').unwrap_or_default())),
        None => Ok(()),
    };
    if reply.status() != 'I' {
        standby.query("rollback");
    }
    outcome
}
