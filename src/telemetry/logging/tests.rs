use std::fs;

use super::*;

/// What `emit` leaves in a log file.
fn logged(settings: LogSettings, emit: impl FnOnce(&Logging, &LogSettings)) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let settings = LogSettings { logfile: Some(path.clone()), quiet: true, ..settings };
    let (subscriber, logging) = Logging::build(&settings).unwrap();
    tracing::subscriber::with_default(subscriber, || emit(&logging, &settings));
    fs::read_to_string(path).unwrap()
}

/// The line without its time.
#[track_caller]
fn check(line: &str, expected: &str) {
    let (time, rest) = line.split_at("2026-11-21 11:42:21.793 UTC ".len());
    assert!(time.starts_with("20") && time.ends_with(" UTC "), "{line}");
    assert_eq!(rest, format!("[{}] {expected}", std::process::id()));
}

fn origin() -> Origin {
    Origin { side: Side::Client, id: 0x1f, database: Some("shop".into()), user: None, peer: "10.0.0.7:40312".into() }
}

#[test]
fn a_line_reads_as_pgbouncer_writes_it() {
    let text = logged(LogSettings::default(), |_, _| {
        tracing::info!(origin = %origin(), db = "shop", tls = false, "login attempt");
        tracing::warn!("slow");
        tracing::error!(fatal = true, "cannot load config file");
        tracing::error!("no");
        tracing::debug!("unseen");
    });
    let lines: Vec<_> = text.lines().collect();
    check(lines[0], "LOG C-0x1f: shop/(nouser)@10.0.0.7:40312 login attempt: db=shop tls=no");
    check(lines[1], "WARNING slow");
    check(lines[2], "FATAL cannot load config file");
    check(lines[3], "ERROR no");
    assert_eq!(lines.len(), 4);
}

#[test]
fn verbosity_can_be_raised_while_running() {
    let text = logged(LogSettings::default(), |logging, settings| {
        tracing::debug!("one");
        logging.apply(&LogSettings { verbose: 2, ..settings.clone() }).unwrap();
        tracing::debug!("two");
        tracing::trace!("three");
    });
    let lines: Vec<_> = text.lines().collect();
    check(lines[0], "DEBUG two");
    check(lines[1], "NOISE three");
}

#[test]
fn a_line_feed_from_a_peer_cannot_forge_a_line() {
    let text = logged(LogSettings::default(), |_, _| {
        tracing::info!(user = "a\n2026-01-01 FATAL x", "login attempt");
    });
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn json_lines_carry_level_message_and_fields() {
    let settings = LogSettings { form: LogForm::Json, ..LogSettings::default() };
    let text = logged(settings, |_, _| tracing::info!(member = "r1", "replica is back"));
    let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(line["message"], "replica is back");
    assert_eq!(line["member"], "r1");
    assert_eq!(line["level"], "INFO");
}

#[test]
fn after_a_rotation_the_file_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let (path, old) = (directory.path().join("log"), directory.path().join("log.1"));
    let settings = LogSettings { logfile: Some(path.clone()), quiet: true, ..LogSettings::default() };
    let (subscriber, logging) = Logging::build(&settings).unwrap();
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!("before");
        fs::rename(&path, &old).unwrap();
        tracing::info!("between");
        logging.apply(&settings).unwrap();
        tracing::info!("after");
    });
    assert_eq!(fs::read_to_string(old).unwrap().lines().count(), 2);
    assert!(fs::read_to_string(path).unwrap().ends_with("LOG after\n"));
}

#[test]
fn lines_that_a_setting_switches_off_come_back_with_it() {
    let settings = LogSettings { silent: vec![CONNECTIONS], ..LogSettings::default() };
    let text = logged(settings, |logging, settings| {
        tracing::info!(target: CONNECTIONS, "one");
        tracing::info!(target: DISCONNECTIONS, "two");
        logging.apply(&LogSettings { silent: Vec::new(), ..settings.clone() }).unwrap();
        tracing::info!(target: CONNECTIONS, "three");
    });
    let lines: Vec<_> = text.lines().collect();
    check(lines[0], "LOG two");
    check(lines[1], "LOG three");
}
