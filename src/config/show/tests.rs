use std::io;

use super::*;

fn config(text: &str) -> Config {
    let no_file = |_: &str| Err(io::ErrorKind::NotFound.into());
    Config::parse(&format!("[pgbouncer]\n{text}"), "a.ini", &|_| None, &no_file).unwrap()
}

/// Value, default and whether it can be changed.
#[track_caller]
fn check(config: &Config, key: &str, expected: (Option<&str>, Option<&str>, bool)) {
    let row = config.show().into_iter().find(|row| row.key == key).unwrap();
    assert_eq!((row.value.as_deref(), row.default.as_deref(), row.changeable), expected, "{key}");
}

#[test]
fn show_config_prints_values_as_pgbouncer_does() {
    let config = config("unix_socket_mode = 0700\nquery_wait_timeout = 0.5\nadmin_users = a, b\nlog_stats = 0");
    check(&config, "unix_socket_mode", (Some("448"), Some("0777"), false));
    check(&config, "query_wait_timeout", (Some("0.5"), Some("120"), true));
    check(&config, "admin_users", (Some("a, b"), Some(""), true));
    check(&config, "log_stats", (Some("0"), Some("1"), true));
    check(&config, "listen_port", (Some("6432"), Some("6432"), false));
    check(&config, "auth_user", (None, None, true));
    check(&config, "pool_mode", (Some("session"), Some("session"), true));
    check(&config, "max_packet_size", (Some("2147483647"), Some("2147483647"), true));
    check(&config, "server_check_query", (Some("<empty>"), Some("<empty>"), true));
}

#[test]
fn pgbouncers_keys_come_first_and_in_alphabetical_order() {
    let keys: Vec<String> = config("").show().into_iter().map(|row| row.key).collect();
    let own = keys.iter().position(|key| key == "shutdown_timeout").unwrap();
    assert_eq!(own, 100, "as many as PgBouncer has on Linux");
    assert!(keys[..own].is_sorted(), "{keys:?}");
    let rest: Vec<&str> = keys[own..].iter().map(String::as_str).collect();
    let ours = ["shutdown_timeout", "workers", "log_format", "stats_columns", "auth_query_cache_ttl"];
    assert_eq!(rest[..5], ours);
    assert_eq!(rest[5], "routing.read_write_split");
    assert!(rest[5..].iter().all(|key| key.contains('.')));
}

#[test]
fn secrets_are_shown_to_nobody() {
    let config = config(
        "[cache]\nsecret = hunter2hunter2hunter2\nredis_url = redis://u:hunter2@h/0\n[control]\npassword = hunter2",
    );
    check(&config, "cache.secret", (Some("***"), None, true));
    check(&config, "cache.redis_url", (Some("redis://***@h/0"), None, true));
    check(&config, "control.password", (Some("***"), None, true));
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn sizes_and_short_times_are_shown_as_they_are_written() {
    let config = config("");
    check(&config, "cache.size", (Some("256MB"), Some("256MB"), true));
    check(&config, "cache.redis_min_cost", (Some("0.00015"), Some("0.00015"), true));
    check(&config, "routing.lag_check_interval", (Some("0.1"), Some("0.1"), true));
    check(&config, "routing.read_your_writes", (None, None, true));
}

#[test]
fn set_changes_what_can_be_changed_and_ignores_the_rest() {
    let mut config = config("");
    config.set("default_pool_size", "7").unwrap();
    config.set("listen_port", "7").unwrap();
    config.set("listen_port", "nonsense").unwrap();
    config.set("cache.ttl", "5").unwrap();
    config.set("http.listen", "x").unwrap();
    assert_eq!((config.pgbouncer.default_pool_size, config.pgbouncer.listen_port), (7, 6432));
    check(&config, "cache.ttl", (Some("5"), Some("60"), true));
    check(&config, "http.listen", (Some(""), Some(""), false));
}

#[test]
fn set_refuses_what_a_file_could_not_say() {
    let mut config = config("");
    let mut refused = |key: &str, value: &str| config.set(key, value).unwrap_err().to_string();
    assert_eq!(refused("pool_size", "7"), "pool_size: expected a known key, got an unknown one");
    assert_eq!(refused("cash.ttl", "7"), "cash.ttl: expected a known key, got an unknown one");
    assert_eq!(refused("cache.tll", "7"), "cache.tll: expected a known key, got an unknown one");
    assert_eq!(refused("cache.ttl", "7s"), "cache.ttl: expected seconds, got 7s");
    assert_eq!(
        refused("auth_type", "pam"),
        "auth_type: expected any, trust, plain, md5, cert, hba or scram-sha-256 (pam and ldap are not supported: auth_query takes users and passwords from the server), got pam"
    );
}

#[test]
fn a_reload_keeps_what_applies_only_at_start() {
    let running = config("listen_port = 1\nworkers = 1\ndefault_pool_size = 1\n[http]\nlisten = a");
    let mut read = config("listen_port = 2\nworkers = 2\ndefault_pool_size = 2\n[http]\nlisten = b");
    read.keep_start_values(&running);
    assert_eq!((read.pgbouncer.listen_port, read.pgbouncer.workers), (1, 1));
    assert_eq!((read.pgbouncer.default_pool_size, read.http.listen.as_str()), (2, "a"));
}
