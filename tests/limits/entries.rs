//! What a connect string and the entry of a user say for themselves, against other general settings.

use std::time::{Duration, Instant};

use super::{backends, session_of};
use crate::support::{Proxy, RawClient, cluster, cluster::USER, frames, wait_until};

const OTHER: &str = "stranger";

fn with(parameters: &str) -> (crate::support::proxy::Builder, String) {
    let database = cluster().database();
    let builder = Proxy::builder().database(&database, cluster().primary.port, parameters);
    (builder, database)
}

/// What a client hears that is refused: code and text.
#[track_caller]
fn refused(proxy: &Proxy, user: &str, database: &str) -> (String, String) {
    let mut client = RawClient::connect(&proxy.address());
    let error = client.log_in(&[("user", user), ("database", database)], "").unwrap_err();
    (error.field(b'C').unwrap(), error.field(b'M').unwrap())
}

#[test]
fn a_database_is_at_its_host_and_port_under_its_name_there() {
    let database = cluster().database();
    let (primary, replica) = (&cluster().primary, &cluster().replicas[0]);
    let directory = replica.socket_directory().display();
    let proxy = Proxy::builder()
        .section("databases", "shop", format!("host=127.0.0.1 port={} dbname={database}", primary.port))
        .section("databases", "copy", format!("host={directory} port={} dbname={database}", replica.port))
        .start();
    let question = "select current_database(), inet_server_addr(), current_setting('port')";
    let (primary, replica) = (primary.port.to_string(), replica.port.to_string());
    assert_eq!(proxy.session("shop").rows(question), [[database.as_str(), "127.0.0.1", &primary]]);
    assert_eq!(proxy.session("copy").rows(question), [[database.as_str(), "NULL", &replica]]);
}

#[test]
fn the_password_of_a_connect_string_opens_the_server() {
    for (password, is_right) in [("secret", true), ("wrong", false)] {
        let (builder, database) = with(&format!("user=scrammer password={password}"));
        let proxy = builder.users(&format!("\"{USER}\" \"\"\n")).start();
        if is_right {
            assert_eq!(proxy.session(&database).value("select current_user"), "scrammer");
        } else {
            let expected = "password authentication failed for user \"scrammer\"";
            assert_eq!(refused(&proxy, USER, &database), ("28P01".to_owned(), expected.to_owned()));
        }
    }
}

#[test]
fn a_database_or_a_user_has_a_pool_and_a_reserve_of_another_size() {
    let own = "pool_size=1 reserve_pool_size=1";
    for (of_database, of_user) in [(own, "pool_mode=transaction"), ("pool_size=9 reserve_pool_size=9", own)] {
        let (builder, database) = with(of_database);
        let proxy = builder.set("reserve_pool_timeout", 1).section("users", USER, of_user).start();
        let mut clients: Vec<RawClient> = (0..3).map(|_| proxy.session(&database)).collect();
        clients[0].query("begin");
        let started = Instant::now();
        clients[1].query("begin");
        assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
        assert_eq!(backends(&database).len(), 2);
        clients[2].send(&frames::query("select 3"));
        assert!(clients[2].is_silent_for(Duration::from_secs(2)), "the reserve is used up");
        clients[0].query("commit");
        assert_eq!(clients[2].reply().rows(), [["3"]]);
    }
}

#[test]
fn a_database_has_so_many_servers_for_all_users_together() {
    let (builder, database) = with("max_db_connections=1");
    let proxy = builder.start();
    let mut other = session_of(&proxy, OTHER, &database);
    let mut client = proxy.session(&database);
    client.query("begin");
    other.send(&frames::query("select 1"));
    assert!(other.is_silent_for(Duration::from_secs(1)));
    assert_eq!(backends(&database), [USER]);
    client.query("commit");
    assert_eq!(other.reply().rows(), [["1"]]);
}

#[test]
fn a_database_has_so_many_clients_of_its_own() {
    let (builder, database) = with("max_db_client_connections=1");
    let other = cluster().database();
    let proxy = builder.database(&other, cluster().primary.port, "").start();
    let _client = proxy.session(&database);
    let text = "client connections exceeded (max_db_client_connections)";
    assert_eq!(refused(&proxy, OTHER, &database), ("53300".to_owned(), text.to_owned()));
    let _others = [proxy.session(&other), proxy.session(&other)];
}

#[test]
fn the_servers_of_a_database_have_a_life_of_another_length() {
    let (builder, database) = with("server_lifetime=1");
    let other = cluster().database();
    let proxy = builder.database(&other, cluster().primary.port, "").start();
    let (mut client, mut longer) = (proxy.session(&database), proxy.session(&other));
    let pid = |client: &mut RawClient| client.value("select pg_backend_pid()");
    let (first, kept) = (pid(&mut client), pid(&mut longer));
    wait_until("another server serves", || pid(&mut client) != first);
    assert_eq!(pid(&mut longer), kept);
}

#[test]
fn in_session_pooling_the_reset_query_runs_before_another_client_has_the_server() {
    let database = cluster().database();
    cluster().log_statements(&database);
    let proxy = Proxy::of(cluster(), &database)
        .set("pool_mode", "session")
        .set("default_pool_size", 1)
        .set("server_reset_query", "set application_name = 'fresh'")
        .start();
    let mut client = proxy.session(&database);
    let pid = client.value("select pg_backend_pid()");
    client.query("set application_name = 'stale'");
    let count = || cluster().primary.executions("set application_name = 'fresh'");
    assert_eq!(count(), 0);
    client.terminate();
    let mut next = proxy.session(&database);
    assert_eq!(next.value("select pg_backend_pid()"), pid);
    assert_eq!(count(), 1);
}
