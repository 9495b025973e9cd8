//! `config/reference.ini` is what the code generates. `UPDATE=1` rewrites it.
#![allow(clippy::unwrap_used, reason = "a test fails loudly")]

use std::{env, fs, path::Path};

use pgweir::config::{Config, reference};

#[test]
fn the_reference_file_is_what_the_code_generates() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/reference.ini");
    if env::var_os("UPDATE").is_some() {
        fs::write(&path, reference()).unwrap();
    }
    let file = fs::read_to_string(&path).unwrap_or_default();
    assert!(file == reference(), "UPDATE=1 cargo test --test reference_config rewrites config/reference.ini");
}

#[test]
fn the_reference_file_is_a_configuration_that_changes_nothing() {
    let nothing = |_: &str| None;
    let no_file = |_: &str| Err(std::io::ErrorKind::NotFound.into());
    let config = Config::parse(&reference(), "reference.ini", &nothing, &no_file).unwrap();
    assert_eq!(config, Config::default());
}

#[test]
fn every_setting_of_the_reference_file_can_be_written_with_its_default() {
    let nothing = |_: &str| None;
    let no_file = |_: &str| Err(std::io::ErrorKind::NotFound.into());
    let is_setting = |line: &&str| line.starts_with(';') && !line.starts_with(";;");
    let set = |line: &str| if is_setting(&line) { line.replacen(';', "", 1) } else { line.to_owned() };
    let text: Vec<String> = reference().lines().map(set).collect();
    let config = Config::parse(&text.join("\n"), "reference.ini", &nothing, &no_file).unwrap();
    assert_eq!(config, Config::default());
}
