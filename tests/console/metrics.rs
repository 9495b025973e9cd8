//! Figures about limits, as Prometheus scrapes them.

use std::sync::Arc;

use crate::{
    last_words, pooled,
    support::{
        Proxy, RawClient, cluster, cluster::PASSWORD, cluster::USER, frames::cancel_request, frames::query, wait_until,
    },
};

/// Why this login is refused, and how often the proxy says it has refused one for `reason`.
#[track_caller]
fn check_refusal(proxy: &Proxy, database: &str, text: &str, reason: &str) {
    let label = format!("reason=\"{reason}\"");
    let refused = || proxy.metrics().sum("pgweir_client_logins_refused_total", &[&label]);
    let before = refused();
    let mut client = RawClient::connect(&proxy.address());
    let error = client.log_in(&[("user", USER), ("database", database)], PASSWORD).expect_err("it is refused");
    assert_eq!(error.field(b'M').as_deref(), Some(text));
    wait_until("the refusal is counted", || refused() == before + 1.0);
}

#[test]
fn logins_are_refused_under_the_name_of_the_limit_that_is_reached() {
    let (crowded, lonely, free) = (cluster().database(), cluster().database(), cluster().database());
    let port = cluster().primary.port;
    let proxy = Proxy::of(cluster(), &free)
        .database(&crowded, port, "max_db_client_connections=1")
        .database(&lonely, port, "")
        .section("users", USER, "max_user_client_connections=2")
        .set("max_client_conn", 3)
        .start();
    let _first = proxy.session(&crowded);
    let text = "client connections exceeded (max_db_client_connections)";
    check_refusal(&proxy, &crowded, text, "max_db_client_connections");
    let _second = proxy.session(&lonely);
    let text = "client connections exceeded (max_user_client_connections)";
    check_refusal(&proxy, &free, text, "max_user_client_connections");
    check_refusal(&proxy, "nowhere", "no such database: nowhere", "no_such_database");
    let _third = RawClient::connect(&proxy.address());
    let text = "no more connections allowed (max_client_conn)";
    check_refusal(&proxy, &lonely, text, "max_client_conn");
    let metrics = proxy.metrics();
    assert_eq!(metrics.sum("pgweir_clients", &[&crowded]), 1.0);
    assert!(metrics.sum("pgweir_client_connections_total", &[]) >= 7.0);
}

#[test]
fn sessions_that_end_are_counted_by_what_ended_them() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).set("default_pool_size", 1).set("query_wait_timeout", "0.5").start();
    let (mut holder, mut waiting) = (proxy.session(&database), proxy.session(&database));
    holder.query("begin");
    waiting.send(&query("select 1"));
    assert_eq!(last_words(&mut waiting).1, "query_wait_timeout");
    holder.terminate();
    let ended = |reason: &str| {
        let label = format!("reason=\"{reason}\"");
        proxy.metrics().sum("pgweir_client_disconnects_total", &[&label])
    };
    wait_until("both are counted", || ended("query_wait_timeout") + ended("client_close_request") >= 2.0);
    assert_eq!(ended("query_wait_timeout"), 1.0);
    assert_eq!(proxy.metrics().sum("pgweir_query_wait_timeouts_total", &[]), 1.0);
}

#[test]
fn server_connections_are_counted_as_they_open_close_and_fail_to() {
    let (good, bad) = (cluster().database(), "missing_on_the_server".to_owned());
    let proxy = Proxy::of(cluster(), &good).database(&bad, cluster().primary.port, "").start();
    let sum = |family: &str, labels: &[&str]| proxy.metrics().sum(family, labels);
    proxy.session(&good).query("select 1");
    assert_eq!(sum("pgweir_server_connections_opened_total", &[&format!("member=\"{good}\"")]), 1.0);
    assert_eq!(sum("pgweir_server_connections_closed_total", &[]), 0.0);
    proxy.tell(&format!("PAUSE {good}"));
    wait_until("it is closed", || sum("pgweir_server_connections_closed_total", &["reason=\"pause mode\""]) == 1.0);
    let mut client = RawClient::connect(&proxy.address());
    client.log_in(&[("user", USER), ("database", &bad)], PASSWORD).expect_err("the server refuses");
    assert_eq!(sum("pgweir_server_connect_errors_total", &[&bad]), 1.0);
    assert_eq!(sum("pgweir_server_connections_opened_total", &[&bad]), 0.0);
}

#[test]
fn cancel_requests_are_counted_by_what_became_of_them() {
    let (proxy, database) = pooled(1);
    let mut client = proxy.session(&database);
    let cancels = |outcome: &str| {
        let label = format!("outcome=\"{outcome}\"");
        proxy.metrics().sum("pgweir_cancel_requests_total", &[&label])
    };
    let cancel = |key: &[u8]| RawClient::connect(&proxy.address()).send(&cancel_request(key));
    cancel(&client.key);
    wait_until("nothing ran", || cancels("idle") == 1.0);
    cancel(&[0x11; 8]);
    wait_until("nobody has the key", || cancels("unknown_key") == 1.0);
    client.send(&query("select pg_sleep(60)"));
    let mut watcher = cluster().primary.session(&database);
    let asleep = "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'";
    wait_until("it runs", || watcher.value(asleep) == "1");
    cancel(&client.key);
    assert_eq!(client.reply().sqlstate(), "57014");
    wait_until("the server was told", || cancels("sent") == 1.0);
}

#[test]
fn hints_that_are_not_understood_are_counted() {
    let (proxy, database) = pooled(1);
    let mut client = proxy.session(&database);
    for (sql, unknown) in [
        ("select 1", 0.0),
        ("/* pgweir: primary */ select 1", 0.0),
        ("/* pgweir: fast, primary, cheap */ select 1", 2.0),
        ("/* pgweir: fast */ select 1", 3.0),
    ] {
        assert_eq!(client.value(sql), "1");
        wait_until("it is counted", || proxy.metrics().sum("pgweir_hints_unknown_total", &[]) == unknown);
    }
}

#[test]
fn every_table_in_memory_is_shown_with_its_size_and_its_limit() {
    let (proxy, database) = pooled(2);
    let clients: Arc<[RawClient]> = (0..3).map(|_| proxy.session(&database)).collect();
    let memory = proxy.show("MEM");
    let metrics = proxy.metrics();
    for name in memory.column("name") {
        let of = |column: &str| memory.number("name", &name, column);
        assert_eq!(of("memtotal"), of("size") * of("used"), "{name}");
        assert!(of("size") > 0, "{name}");
        let label = format!("table=\"{name}\"");
        assert!(metrics.0.contains(&format!("pgweir_table_entries{{{label}}}")), "{name}");
    }
    // The console that asks is a client as well.
    assert_eq!(memory.number("name", "client_cache", "used"), clients.len() as i64 + 1);
    assert_eq!(memory.number("name", "server_cache", "used"), proxy.servers(&database).len() as i64);
    let limit = |table: &str| metrics.sum("pgweir_table_limit", &[&format!("table=\"{table}\"")]);
    let used = |table: &str| metrics.sum("pgweir_table_entries", &[&format!("table=\"{table}\"")]);
    for table in ["statement_memo", "query_shapes", "dns_names", "credentials_cache", "scram_keys"] {
        assert!(limit(table) > used(table), "{table}");
    }
}
