//! What an operator's scripts rely on: flags, the console's columns and commands, signals, error texts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails loudly"
)]

mod support;

use std::{
    os::unix::process::ExitStatusExt,
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use support::{
    Proxy, RawClient, cluster,
    cluster::USER,
    frames::query,
    programs,
    proxy::{ADMIN, Table, binary},
    scratch::scratch,
    wait_until,
};

fn proxied() -> (Proxy, String) {
    let database = cluster().database();
    (Proxy::of(cluster(), &database).set("default_pool_size", 2).start(), database)
}

fn run(arguments: &[&str]) -> Output {
    let mut command = programs::command(&scratch().reachable(&binary()));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

#[test]
fn version_and_help_are_printed() {
    for flag in ["-V", "--version"] {
        let output = run(&[flag]);
        assert!(output.status.success());
        let first = said(&output).lines().next().unwrap().to_owned();
        assert!(first.starts_with("PgBouncer 1.25.2 (pgweir "), "{first}");
    }
    for flag in ["-h", "--help"] {
        let output = run(&[flag]);
        assert!(output.status.success());
        let text = said(&output);
        assert!(["--quiet", "--verbose", "--user", "--daemon"].iter().all(|flag| text.contains(flag)), "{text}");
    }
}

#[test]
fn wrong_usage_ends_with_1() {
    for arguments in [&[][..], &["--no-such-flag"], &["one.ini", "two.ini"], &["/nonexistent/pgweir.ini"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", said(&output));
        assert!(!said(&output).is_empty());
    }
}

#[test]
fn a_wrong_configuration_is_named_by_file_line_key_and_expectation() {
    for (text, fragments) in [
        ("[databases]\n[pgbouncer]\nno_such_key = 1\n", ["no_such_key", ":3"]),
        ("[databases]\n[pgbouncer]\nlisten_port = many\n", ["listen_port", ":3"]),
        ("[databases]\n[pgbouncer]\npool_mode = transaction ; comment\n", ["pool_mode", ":3"]),
        ("[databases]\nx = hots=y\n[pgbouncer]\n", ["hots", ":2"]),
        ("[no_such_section]\na = 1\n", ["no_such_section", ":1"]),
    ] {
        let home = scratch().directory("configuration");
        let file = home.join("wrong.ini");
        scratch().write(&file, text);
        let output = run(&[file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1), "{text}");
        let message = said(&output);
        for fragment in fragments.iter().copied().chain(["wrong.ini"]) {
            assert!(message.contains(fragment), "{text} says {message}");
        }
    }
}

#[test]
fn root_is_refused_unless_a_user_is_named() {
    if programs::unprivileged().is_none() {
        return;
    }
    let home = scratch().directory("root");
    let file = home.join("pgweir.ini");
    scratch().write(&file, "[databases]\n[pgbouncer]\nlisten_port = 0\nunix_socket_dir =\n");
    let output = Command::new(binary()).arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("should not run as root"), "{}", said(&output));
}

/// The columns of a SHOW command, as PgBouncer 1.25 orders them.
#[track_caller]
fn check_columns(proxy: &Proxy, what: &str, columns: &str) {
    let expected: Vec<_> = columns.split_whitespace().collect();
    let mut seen = proxy.show(what).columns;
    // 1.25.2 lacks what came later.
    let later = ["total_client_login_count", "avg_client_login_count", "client_login_count"];
    seen.retain(|column| !later.contains(&column.as_str()));
    assert_eq!(seen, expected, "SHOW {what}");
}

#[test]
fn show_commands_have_pgbouncers_columns_in_its_order() {
    let (proxy, database) = proxied();
    proxy.session(&database).rows("select 1");
    for (what, columns) in [
        ("VERSION", "version"),
        ("LISTS", "list items"),
        ("CONFIG", "key value default changeable"),
        (
            "POOLS",
            "database user cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active sv_active_cancel
             sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait maxwait_us pool_mode load_balance_hosts",
        ),
        (
            "DATABASES",
            "name host port database force_user pool_size min_pool_size reserve_pool_size server_lifetime pool_mode
             load_balance_hosts max_connections current_connections max_client_connections current_client_connections
             paused disabled",
        ),
        (
            "CLIENTS",
            "type user database replication state addr port local_addr local_port connect_time request_time wait wait_us
             close_needed ptr link remote_pid tls application_name prepared_statements id",
        ),
        (
            "SERVERS",
            "type user database replication state addr port local_addr local_port connect_time request_time wait wait_us
             close_needed ptr link remote_pid tls application_name prepared_statements id",
        ),
        (
            "STATS",
            "database total_server_assignment_count total_xact_count total_query_count total_received total_sent
             total_xact_time total_query_time total_wait_time total_client_parse_count total_server_parse_count
             total_bind_count avg_server_assignment_count avg_xact_count avg_query_count avg_recv avg_sent avg_xact_time
             avg_query_time avg_wait_time avg_client_parse_count avg_server_parse_count avg_bind_count",
        ),
    ] {
        check_columns(&proxy, what, columns);
    }
}

#[test]
fn show_commands_count_what_happened() {
    let (proxy, database) = proxied();
    let mut client = proxy.session(&database);
    for _ in 0..10 {
        client.rows("select 1");
    }
    client.query("begin");
    assert_eq!(proxy.show("POOLS").number("database", &database, "cl_active"), 1);
    assert_eq!(proxy.show("POOLS").number("database", &database, "sv_active"), 1);
    assert_eq!(proxy.show("CLIENTS").select("database", &database, "user"), [USER]);
    assert_eq!(proxy.servers(&database), ["active"]);
    client.query("commit");
    wait_until("the statistics are in", || {
        proxy.show("STATS").number("database", &database, "total_query_count") == 12
    });
    assert_eq!(proxy.show("STATS").number("database", &database, "total_xact_count"), 11);
    assert_eq!(proxy.show("POOLS").number("database", &database, "sv_idle"), 1);
    assert_eq!(proxy.show("LISTS").number("list", "databases", "items"), 2);
    assert_eq!(proxy.show("CONFIG").select("key", "default_pool_size", "value"), ["2"]);
    assert!(proxy.show("VERSION").rows[0][0].starts_with("PgBouncer 1.25.2"));
    assert_eq!(proxy.show("DATABASES").number("name", &database, "pool_size"), 2);
}

#[test]
fn the_console_is_reached_under_both_names_by_those_who_may() {
    let (proxy, _) = proxied();
    for name in ["pgbouncer", "pgweir"] {
        let mut console = RawClient::session(&proxy.address(), ADMIN, name);
        assert_eq!(console.query("SHOW VERSION").tags(), ["SHOW"]);
    }
    let mut stranger = RawClient::connect(&proxy.address());
    let refused = stranger.log_in(&[("user", USER), ("database", "pgbouncer")], "").unwrap_err();
    assert_eq!(refused.field(b'M').as_deref(), Some("not allowed"));
}

#[test]
fn the_console_answers_the_extended_protocol_too() {
    let (proxy, database) = proxied();
    proxy.session(&database).rows("select 1");
    let reply = proxy.console().extended("show pools", &[]);
    assert!(reply.error().is_none(), "{reply:?}");
    assert!(Table::of(&reply).columns.contains(&"cl_waiting".to_owned()));
}

#[test]
fn an_unknown_command_is_an_error_and_the_console_lives_on() {
    let (proxy, _) = proxied();
    let mut console = proxy.console();
    for command in ["nonsense", "SHOW nonsense", "SELECT 1", ";", "PAUSE no_such_database"] {
        let reply = console.query(command);
        assert_eq!((reply.sqlstate().as_str(), reply.status()), ("08P01", 'I'), "{command}: {reply:?}");
    }
    assert_eq!(console.query("show version;").tags(), ["SHOW"]);
}

#[test]
fn pause_waits_for_busy_servers_and_resume_lets_waiting_clients_go_on() {
    let (proxy, database) = proxied();
    let (mut busy, mut next) = (proxy.session(&database), proxy.session(&database));
    busy.query("begin; select 1");
    let mut console = proxy.console();
    console.send(&query(&format!("PAUSE {database}")));
    wait_until("it is paused", || proxy.show("DATABASES").number("name", &database, "paused") == 1);
    next.send(&query("select 'after'"));
    wait_until("the next one waits", || proxy.show("POOLS").number("database", &database, "cl_waiting") == 1);
    assert!(console.is_silent_for(Duration::from_millis(200)), "PAUSE answers only when all servers are gone");
    assert_eq!(busy.query("commit").tags(), ["COMMIT"]);
    assert_eq!(console.reply().tags(), ["PAUSE"]);
    assert_eq!(proxy.servers(&database), [""; 0]);
    proxy.tell(&format!("RESUME {database}"));
    assert_eq!(next.reply().rows(), [["after"]]);
    let again = proxy.console().query(&format!("RESUME {database}"));
    assert_eq!(again.error().unwrap().field(b'M').unwrap(), format!("database {database} is not paused"));
}

#[test]
fn reload_takes_up_changes_and_keeps_sessions() {
    let (proxy, database) = proxied();
    let mut client = proxy.session(&database);
    client.query("begin");
    for how in ["RELOAD", "SIGHUP"] {
        let size = if how == "RELOAD" { "7" } else { "9" };
        proxy.rewrite(|text| {
            let line = text.lines().find(|line| line.starts_with("default_pool_size")).unwrap().to_owned();
            text.replace(&line, &format!("default_pool_size = {size}"))
        });
        if how == "RELOAD" {
            assert_eq!(proxy.tell("RELOAD").tags(), ["RELOAD"]);
        } else {
            proxy.signal(Signal::SIGHUP);
        }
        wait_until("the new value holds", || {
            proxy.show("CONFIG").select("key", "default_pool_size", "value") == [size]
        });
    }
    assert_eq!(client.query("commit").tags(), ["COMMIT"]);
    assert_eq!(proxy.show("DATABASES").number("name", &database, "pool_size"), 9);
}

#[test]
fn reload_adds_and_removes_databases() {
    let (proxy, database) = proxied();
    let added = cluster().database();
    let mut old = proxy.session(&database);
    old.rows("select 1");
    proxy.rewrite(|text| text.replace(&database, &added));
    proxy.tell("RELOAD");
    assert_eq!(proxy.session(&added).value("select current_database()"), added);
    old.until_closed();
    let mut refused = RawClient::connect(&proxy.address());
    assert!(refused.log_in(&[("user", USER), ("database", &database)], "").is_err());
}

#[test]
fn a_reload_that_fails_is_told_and_changes_nothing() {
    let (proxy, database) = proxied();
    proxy.rewrite(|text| text + "\nno_such_key = 1\n");
    assert_eq!(proxy.console().query("RELOAD").sqlstate(), "F0000");
    assert_eq!(proxy.session(&database).value("select 1"), "1");
}

#[test]
fn a_setting_is_changed_at_run_time() {
    let (proxy, _) = proxied();
    assert_eq!(proxy.tell("SET query_wait_timeout = 5").tags(), ["SET query_wait_timeout=5"]);
    assert_eq!(proxy.show("CONFIG").select("key", "query_wait_timeout", "value"), ["5"]);
    assert!(proxy.console().query("SET no_such_key = 1").error().is_some());
}

#[test]
fn shutdown_ends_the_process_at_once() {
    let (mut proxy, database) = proxied();
    let _client = proxy.session(&database);
    proxy.console().send(&query("SHUTDOWN"));
    assert_eq!(proxy.wait_for_end().code(), Some(0));
}

#[test]
fn sigint_and_shutdown_wait_for_servers_let_transactions_end() {
    for how in ["SIGINT", "SHUTDOWN WAIT_FOR_SERVERS"] {
        let (mut proxy, database) = proxied();
        let mut busy = proxy.session(&database);
        busy.query("begin; select 1");
        if how == "SIGINT" {
            proxy.signal(Signal::SIGINT);
        } else {
            proxy.console().send(&query(how));
        }
        wait_until("nobody new is let in", || RawClient::try_connect(&proxy.address()).is_err());
        thread::sleep(Duration::from_millis(100));
        assert!(proxy.is_alive(), "{how} waits for the transaction");
        assert_eq!(busy.query("commit").tags(), ["COMMIT"]);
        assert_eq!(proxy.wait_for_end().code(), Some(0), "{how}");
    }
}

#[test]
fn sigterm_and_shutdown_wait_for_clients_let_clients_leave() {
    for how in ["SIGTERM", "SHUTDOWN WAIT_FOR_CLIENTS"] {
        let (mut proxy, database) = proxied();
        let mut client = proxy.session(&database);
        if how == "SIGTERM" {
            proxy.signal(Signal::SIGTERM);
        } else {
            proxy.console().send(&query(how));
        }
        wait_until("nobody new is let in", || RawClient::try_connect(&proxy.address()).is_err());
        assert_eq!(client.value("select 'served to the end'"), "served to the end");
        assert!(proxy.is_alive());
        client.terminate();
        assert_eq!(proxy.wait_for_end().code(), Some(0), "{how}");
    }
}

#[test]
fn a_second_signal_and_sigquit_end_it_at_once() {
    for signals in [&[Signal::SIGTERM, Signal::SIGTERM][..], &[Signal::SIGINT, Signal::SIGINT], &[Signal::SIGQUIT]] {
        let (mut proxy, database) = proxied();
        let mut client = proxy.session(&database);
        client.query("begin; select 1");
        for (number, signal) in signals.iter().enumerate() {
            if number > 0 {
                wait_until("the first one is heard", || RawClient::try_connect(&proxy.address()).is_err());
            }
            proxy.signal(*signal);
        }
        let status = proxy.wait_for_end();
        assert_eq!((status.code(), status.signal()), (Some(0), None), "{signals:?}");
    }
}

#[test]
fn metrics_keep_the_exporters_names() {
    let (proxy, database) = proxied();
    proxy.session(&database).rows("select 1");
    let label = format!("database=\"{database}\"");
    wait_until("the query is counted", || {
        proxy.metrics().sum("pgbouncer_stats_queries_pooled_total", &[&label]) >= 1.0
    });
    let metrics = proxy.metrics();
    for family in [
        "pgbouncer_pools_server_idle_connections",
        "pgbouncer_databases_pool_size",
        "pgbouncer_stats_sql_transactions_pooled_total",
    ] {
        assert!(metrics.0.contains(family), "{family} is missing");
    }
    assert_eq!(proxy.http("/healthz").0, 200);
    assert_eq!(proxy.http("/readyz").0, 200);
}
