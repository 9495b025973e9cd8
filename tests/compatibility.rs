//! `config/COMPATIBILITY.md` is held to the code: nothing is left out, and every proof that it names exists.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails loudly")]

use std::{fs, path::Path};

use pgweir::config::{
    Config, DatabaseConfig, PeerConfig, UserConfig,
    setting::{Section, Setting},
};

const PAGE: &str = "config/COMPATIBILITY.md";
/// Settings without a section that PgBouncer does not have.
const OUR_OWN: &[&str] = &["auth_query_cache_ttl", "shutdown_timeout", "workers", "log_format", "stats_columns"];
/// The key of databases and users that PgBouncer does not have.
const OUR_OWN_IN_ENTRIES: &str = "max_staleness";

fn read(file: &str) -> Option<String> {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).ok()
}

/// A row, with the last heading above it.
struct Row {
    heading: String,
    item: String,
    proof: String,
}

fn rows() -> Vec<Row> {
    let (mut heading, mut rows) = (String::new(), Vec::new());
    for line in read(PAGE).unwrap().lines() {
        if line.starts_with('#') {
            heading = line.trim_start_matches('#').trim().to_owned();
        }
        let Some(cells) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) else { continue };
        let (item, proof) = cells.split_once(" | ").unwrap_or_else(|| panic!("two columns: {line}"));
        if item != "item" {
            rows.push(Row { heading: heading.clone(), item: item.to_owned(), proof: proof.to_owned() });
        }
    }
    rows
}

/// The keys of these names that have no row below such a heading.
fn missing(rows: &[Row], heading: &str, names: impl IntoIterator<Item = String>) -> Vec<String> {
    let has = |name: &str| {
        let item = format!("`{name}`");
        rows.iter().any(|row| row.heading.starts_with(heading) && row.item == item)
    };
    names.into_iter().filter(|name| !has(name)).collect()
}

fn keys<S: Section>() -> impl Iterator<Item = String> {
    let names = S::TABLE.iter().map(|setting: &Setting<S>| setting.name);
    names.filter(|name| *name != OUR_OWN_IN_ENTRIES).map(str::to_owned)
}

#[test]
fn every_setting_of_pgbouncer_has_a_row() {
    let rows = rows();
    let main = Config::default().show().into_iter().map(|row| row.key);
    let main = main.filter(|key| !key.contains('.') && !OUR_OWN.contains(&key.as_str()));
    let nothing: [String; 0] = [];
    assert_eq!(missing(&rows, "[pgbouncer]", main), nothing);
    assert_eq!(missing(&rows, "[databases]", keys::<DatabaseConfig>()), nothing);
    assert_eq!(missing(&rows, "[users]", keys::<UserConfig>()), nothing);
    assert_eq!(missing(&rows, "[peers]", keys::<PeerConfig>()), nothing);
}

/// What is wrong with a proof.
fn objection(proof: &str) -> Option<&'static str> {
    if proof.strip_prefix("differs: ").is_some_and(|why| why.len() > 10) {
        return None;
    }
    let Some((file, name)) = proof.trim_matches('`').split_once("::") else {
        return Some("is neither a test nor `differs: why`");
    };
    let Some(text) = read(file) else { return Some("names no file") };
    let mut lines = text.lines().map(str::trim_start);
    let is_there = lines.any(|line| {
        let line = line.trim_start_matches("async ");
        line.strip_prefix("fn ").is_some_and(|rest| rest.strip_prefix(name).is_some_and(|rest| rest.starts_with('(')))
    });
    (!is_there).then_some("names no function of that file")
}

#[test]
fn every_proof_is_a_test_that_exists_or_says_why_pgweir_differs() {
    for Row { item, proof, .. } in rows() {
        // A row may rest on several tests.
        for proof in if proof.starts_with("differs: ") { vec![proof.as_str()] } else { proof.split(", ").collect() } {
            assert_eq!(objection(proof), None, "{item}: {proof}");
        }
    }
}

#[test]
fn what_is_wrong_with_a_proof_is_noticed() {
    assert_eq!(objection("`tests/compatibility.rs::no_such_test`"), Some("names no function of that file"));
    assert_eq!(objection("`tests/no_such_file.rs::a`"), Some("names no file"));
    assert_eq!(objection("pending"), Some("is neither a test nor `differs: why`"));
    assert_eq!(objection("differs: so"), Some("is neither a test nor `differs: why`"));
}
