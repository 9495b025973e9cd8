//! `pgweir demo` shows what it promises and leaves nothing behind.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly")]

mod support;

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use support::{proxy::binary, scratch::scratch};

/// Where the demonstration puts its files; the servers' user must be able to pass through.
fn place() -> PathBuf {
    let place = scratch().directory("demo");
    fs::set_permissions(&place, PermissionsExt::from_mode(0o755)).unwrap();
    place
}

fn demonstration(place: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(["demo", "--port", "0"]).args(arguments).env("TMPDIR", place);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Reads until a line holds these words.
fn await_line(child: &mut Child, words: &str) {
    let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains(words)), "it never said {words}");
}

#[track_caller]
fn assert_nothing_is_left(place: &Path) {
    let left: Vec<_> = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
    let name = place.to_str().unwrap();
    let runs_there = |entry: &fs::DirEntry| {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(name)
    };
    let running: Vec<_> = fs::read_dir("/proc").unwrap().filter_map(Result::ok).filter(runs_there).collect();
    assert!(running.is_empty(), "{running:?}");
}

#[test]
fn it_ends_well_when_reads_were_seen_on_both_replicas_and_in_the_cache() {
    let place = place();
    let output = demonstration(&place, &["--duration", "8"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    for line in ["statements failed   0\n", "reads per replica", "cache hit ratio", "p99", "dashboard", "verdict"] {
        assert!(said.contains(line), "{line} in {said}");
    }
    assert_nothing_is_left(&place);
}

#[test]
fn ctrl_c_while_it_starts_leaves_nothing_behind() {
    interrupted_after("starting a primary");
}

#[test]
fn ctrl_c_while_it_runs_leaves_nothing_behind() {
    interrupted_after(" sent ");
}

#[track_caller]
fn interrupted_after(words: &str) {
    let place = place();
    let mut child = demonstration(&place, &[]).stderr(Stdio::inherit()).spawn().unwrap();
    await_line(&mut child, words);
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    assert!(child.wait().unwrap().success());
    assert_nothing_is_left(&place);
}
