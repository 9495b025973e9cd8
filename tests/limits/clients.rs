//! How many clients there may be, and what they may send.

use super::{last_words, session_of};
use crate::support::{Frame, Proxy, RawClient, cluster, cluster::USER, frames, wait_until};

const OTHER: &str = "stranger";

/// What a client hears that is refused: code and text.
#[track_caller]
fn refused(proxy: &Proxy, user: &str, database: &str) -> (String, String) {
    let mut client = RawClient::connect(&proxy.address());
    let error = client.log_in(&[("user", user), ("database", database)], "").unwrap_err();
    (error.field(b'C').unwrap(), error.field(b'M').unwrap())
}

fn exceeded(setting: &str) -> (String, String) {
    ("53300".to_owned(), format!("client connections exceeded ({setting})"))
}

#[test]
fn a_database_has_so_many_clients_and_the_console_stays_open() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).set("workers", 2).set("max_db_client_connections", 2).start();
    let first = session_of(&proxy, USER, &database);
    let _second = session_of(&proxy, OTHER, &database);
    assert_eq!(refused(&proxy, USER, &database), exceeded("max_db_client_connections"));
    proxy.tell("SET max_db_client_connections = 3");
    let _third = session_of(&proxy, USER, &database);
    proxy.tell("SET max_db_client_connections = 2");
    assert_eq!(refused(&proxy, USER, &database), exceeded("max_db_client_connections"));
    first.terminate();
    proxy.tell("SET max_db_client_connections = 3");
    wait_until("a place is free again", || {
        RawClient::connect(&proxy.address()).log_in(&[("user", USER), ("database", &database)], "").is_ok()
    });
}

#[test]
fn a_user_has_so_many_clients_in_all_databases_together() {
    let databases = [cluster().database(), cluster().database()];
    let proxy = Proxy::of(cluster(), &databases[0])
        .database(&databases[1], cluster().primary.port, "")
        .set("max_user_client_connections", 1)
        .section("users", USER, "max_user_client_connections=2")
        .start();
    let _own: Vec<_> = databases.iter().map(|database| session_of(&proxy, USER, database)).collect();
    assert_eq!(refused(&proxy, USER, &databases[0]), exceeded("max_user_client_connections"));
    let _other = session_of(&proxy, OTHER, &databases[0]);
    assert_eq!(refused(&proxy, OTHER, &databases[1]), exceeded("max_user_client_connections"));
}

#[test]
fn without_simple_queries_a_client_that_sends_one_is_disconnected() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).set("disable_pqexec", 1).start();
    let mut client = proxy.session(&database);
    assert_eq!(client.extended("select 1", &[]).rows(), [["1"]]);
    client.send(&frames::query("select 2"));
    assert_eq!(last_words(&mut client), ("08P01".to_owned(), "PQexec disallowed".to_owned()));
}

#[test]
fn a_message_that_is_too_long_ends_the_session() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).set("max_packet_size", 1000).start();
    let mut client = proxy.session(&database);
    let batch = [frames::parse("", "select 1"), frames::sync()].concat().repeat(100);
    client.send(&batch);
    (0..100).for_each(|_| assert!(client.reply().error().is_none()));
    client.send(&frames::query(&format!("select '{}'", "x".repeat(1000))));
    assert_eq!(last_words(&mut client).1, "bad packet header");
}

#[test]
fn a_client_is_greeted_with_the_configured_message() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).set("login_notify_message", "mind the weir").start();
    let mut client = RawClient::connect(&proxy.address());
    client.send(&frames::startup(&[("user", USER), ("database", &database)]));
    let notices: Vec<Frame> = client.until(b'Z').into_iter().filter(|frame| frame.tag == b'N').collect();
    assert_eq!(notices.len(), 1);
    assert_eq!(notices[0].field(b'M').as_deref(), Some("mind the weir"));
    assert_eq!(notices[0].field(b'S').as_deref(), Some("NOTICE"));
    assert_eq!(client.query("select 1").rows(), [["1"]]);
}

#[test]
fn where_a_client_comes_from_stands_behind_its_name() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).set("application_name_add_host", 1).start();
    for (given, expected) in [(Some("shop"), "shop - 127.0.0.1:"), (None, "app - 127.0.0.1:")] {
        let mut client = RawClient::connect(&proxy.address());
        let mut parameters = vec![("user", USER), ("database", database.as_str())];
        parameters.extend(given.map(|name| ("application_name", name)));
        client.log_in(&parameters, "").unwrap();
        let name = client.value("show application_name");
        assert!(name.starts_with(expected), "{name}");
        let shown = proxy.show("CLIENTS").select("database", &database, "application_name");
        assert!(shown.contains(&name), "{shown:?}");
    }
}

#[test]
fn servers_are_logged_in_to_with_the_parameters_of_the_connect_string() {
    let database = cluster().database();
    let own = "timezone=Asia/Tokyo datestyle=German client_encoding=LATIN1 application_name=weir";
    let proxy = Proxy::builder().database(&database, cluster().primary.port, own).start();
    let mut client = proxy.session(&database);
    for (name, expected) in [("timezone", "Asia/Tokyo"), ("datestyle", "German, DMY"), ("client_encoding", "LATIN1")] {
        assert_eq!(client.value(&format!("show {name}")), expected);
    }
    assert_eq!(client.value("show application_name"), "weir");
}
