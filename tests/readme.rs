//! What the documents tell people to type works: every line of a `sh` block is tried out here or is what runs the tests.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use support::{
    Proxy, cluster,
    programs::{self, postgres_program},
    proxy::binary,
    scratch::scratch,
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// The last command of the last one ends the process.
const DOCUMENTS: [&str; 4] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "config/MIGRATION.md"];

fn document(name: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(name)).unwrap()
}

/// The lines of all blocks of one language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}");
    let mut lines = text.lines();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        if line == fence {
            found.extend(lines.by_ref().take_while(|line| *line != "```").map(str::to_owned));
        }
    }
    found
}

/// pgweir in front of a shop, as the documents assume it.
struct Shop {
    proxy: Proxy,
}

impl Shop {
    fn open() -> Self {
        let cluster = cluster();
        let database = cluster.database();
        cluster.prepare(&database, "create table orders(id int)");
        let server = format!("host=127.0.0.1 port={} dbname={database}", cluster.primary.port);
        Self { proxy: Proxy::builder().section("databases", "shop", server).start() }
    }

    /// The command as it has to be said here.
    fn translate(&self, line: &str) -> String {
        let own_file = self.proxy.home().join("pgweir.ini");
        let pgweir = format!("{} ", scratch().reachable(&binary()).display());
        let psql = format!("{} -v ON_ERROR_STOP=1 ", postgres_program("psql").display());
        line.replacen("pgweir ", &pgweir, usize::from(line.starts_with("pgweir ")))
            .replacen("psql ", &psql, usize::from(line.starts_with("psql ")))
            .replace("/etc/pgbouncer/pgbouncer.ini", &own_file.display().to_string())
            .replace("-p 6432", &format!("-p {}", self.proxy.port))
    }

    fn try_out(&self, line: &str) {
        let mut shell = programs::command(Path::new("/bin/sh"));
        shell.arg("-c").arg(self.translate(line));
        let said = programs::run(shell);
        assert!(!said.trim().is_empty(), "{line} says nothing");
    }
}

fn script(name: &str) -> PathBuf {
    let path = Path::new(ROOT).join(name);
    let is_program = programs::run({
        let mut bash = Command::new("bash");
        bash.arg("-n").arg(&path);
        bash
    });
    assert_eq!(is_program, "");
    path
}

#[test]
fn every_command_of_the_documents_works() {
    let shop = Shop::open();
    for line in DOCUMENTS.into_iter().flat_map(|name| blocks(&document(name), "sh")) {
        match line.as_str() {
            // Ends in the demonstration, which tests/demo.rs runs.
            "./deploy/quickstart.sh" => assert!(fs::read_to_string(script(&line)).unwrap().contains("demo \"$@\"")),
            "./tests/run.sh" => assert!(fs::read_to_string(script(&line)).unwrap().contains("cargo test")),
            "./benches/compare.sh" => _ = script(&line),
            // They are how this test came to run.
            "cargo build" | "cargo test --lib" => {}
            // The shop runs it.
            "pgweir /etc/pgbouncer/pgbouncer.ini" => {}
            line if line.starts_with("pgweir ") || line.starts_with("psql ") => shop.try_out(line),
            other => panic!("nobody tries this out: {other}"),
        }
    }
}

#[test]
fn the_comparison_with_pgbouncer_ends_in_a_table() {
    let pgbouncer = programs::program("pgbouncer", "pgbouncer");
    let mut compare = Command::new(script("benches/compare.sh"));
    compare.env("PGWEIR", binary()).env("PGBOUNCER", pgbouncer).env("TMPDIR", "/tmp");
    compare.envs([("ROUNDS", "1"), ("DURATION", "1"), ("SCALE", "1"), ("CLIENTS", "4")]);
    let said = programs::run(compare);
    for protocol in ["| simple |", "| extended |"] {
        assert!(said.contains(protocol), "{said}");
    }
}

#[test]
fn the_configurations_of_the_readme_are_read() {
    let text = blocks(&document("README.md"), "ini").join("\n") + "\n[pgbouncer]\nauth_type = trust\n";
    let no_file = |_: &str| Err(std::io::ErrorKind::NotFound.into());
    let variable = |name: &str| (name == "PGWEIR_CACHE_SECRET").then(|| "of the environment".to_owned());
    let config = pgweir::config::Config::parse(&text, "README.md", &variable, &no_file).unwrap();
    assert_eq!(config.databases["shop"].replicas.len(), 2);
    assert_eq!(config.without_effect(), [""; 0]);
}

#[test]
fn the_configuration_to_deploy_is_read() {
    let text = fs::read_to_string(Path::new(ROOT).join("deploy/pgweir.ini")).unwrap();
    let no_file = |_: &str| Err(std::io::ErrorKind::NotFound.into());
    let variable = |_: &str| Some("of the environment".to_owned());
    pgweir::config::Config::parse(&text, "deploy/pgweir.ini", &variable, &no_file).unwrap();
}

#[test]
fn architecture_fits_into_250_lines() {
    assert!(document("ARCHITECTURE.md").lines().count() <= 250);
}
