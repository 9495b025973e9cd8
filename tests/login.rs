//! Logging in: methods, encryption requests, versions, parameters, refusals.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails loudly"
)]

mod support;

use support::{
    Address, Proxy, RawClient, cluster,
    cluster::{PASSWORD, USER},
    frames::{gss_request, query, ssl_request, startup, startup_of},
    proxy::Table,
    wait_until,
};

/// Logs in over TCP and over the unix socket, and asks the server who it is.
#[track_caller]
fn check(proxy: &Proxy, database: &str, user: &str) {
    for address in [proxy.address(), proxy.unix()] {
        let mut client = RawClient::connect(&address);
        client.log_in(&[("user", user), ("database", database)], PASSWORD).unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(client.value("select current_user"), user);
    }
}

/// SQLSTATE and text of a refused login, which must be FATAL and the last thing said.
#[track_caller]
fn refusal(address: &Address, parameters: &[(&str, &str)], password: &str) -> (String, String) {
    let mut client = RawClient::connect(address);
    let error = client.log_in(parameters, password).expect_err("the login is refused");
    assert_eq!(error.field(b'S').as_deref(), Some("FATAL"));
    assert_eq!(client.until_closed(), []);
    (error.field(b'C').unwrap(), error.field(b'M').unwrap())
}

fn stored_secret(user: &str) -> String {
    let question = format!("select rolpassword from pg_authid where rolname = '{user}'");
    cluster().primary.session("postgres").value(&question)
}

#[test]
fn trusted_users_need_no_password() {
    let database = cluster().database();
    check(&Proxy::of(cluster(), &database).start(), &database, USER);
}

#[test]
fn passwords_are_checked_by_md5_and_scram_and_passed_on_to_servers_that_ask_for_clear_md5_and_scram() {
    let database = cluster().database();
    for method in ["plain", "md5", "scram-sha-256"] {
        let proxy = Proxy::of(cluster(), &database).set("auth_type", method).start();
        for user in [USER, "plainer", "md5er", "scrammer"] {
            check(&proxy, &database, user);
        }
    }
}

#[test]
fn a_stored_md5_secret_opens_both_doors() {
    let database = cluster().database();
    let users = format!("\"md5er\" \"{}\"\n", stored_secret("md5er"));
    let proxy = Proxy::of(cluster(), &database).set("auth_type", "md5").users(&users).start();
    check(&proxy, &database, "md5er");
}

#[test]
fn a_stored_scram_secret_opens_both_doors() {
    let database = cluster().database();
    let users = format!("\"scrammer\" \"{}\"\n", stored_secret("scrammer"));
    for method in ["scram-sha-256", "md5"] {
        let proxy = Proxy::of(cluster(), &database).set("auth_type", method).users(&users).start();
        check(&proxy, &database, "scrammer");
    }
}

#[test]
fn a_wrong_password_and_an_unknown_user_are_refused_alike() {
    let database = cluster().database();
    for (method, text) in [
        ("md5", "password authentication failed"),
        ("plain", "password authentication failed"),
        ("scram-sha-256", "SASL authentication failed"),
    ] {
        let proxy = Proxy::of(cluster(), &database).set("auth_type", method).start();
        for user in [USER, "nobody_knows"] {
            let (code, said) = refusal(&proxy.address(), &[("user", user), ("database", &database)], "wrong");
            assert_eq!((code.as_str(), said.as_str()), ("28P01", text), "{method} {user}");
        }
    }
}

#[test]
fn an_unknown_database_is_named_after_authentication_only() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).set("auth_type", "md5").start();
    let parameters = [("user", USER), ("database", "missing")];
    assert_eq!(refusal(&proxy.address(), &parameters, PASSWORD).1, "no such database: missing");
    assert_eq!(refusal(&proxy.address(), &parameters, "wrong").1, "password authentication failed");
}

#[test]
fn encryption_requests_are_declined_and_the_login_goes_on() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).start();
    let mut client = RawClient::connect(&proxy.address());
    for request in [gss_request(), ssl_request()] {
        client.send(&request);
        let mut answer = [0];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer, *b"N");
    }
    client.log_in(&[("user", USER), ("database", &database)], "").unwrap();
    assert_eq!(client.value("select 1"), "1");
}

#[test]
fn a_newer_minor_version_and_unknown_options_are_negotiated_down() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).start();
    for (minor, options) in [(2, vec![]), (0, vec!["_pq_.unknown"]), (9999, vec!["_pq_.one", "_pq_.two"])] {
        let mut parameters = vec![("user", USER), ("database", &database)];
        parameters.extend(options.iter().map(|option| (*option, "1")));
        let mut client = RawClient::connect(&proxy.address());
        client.send(&startup_of(3, minor, &parameters));
        let frames = client.until(b'Z');
        let negotiations: Vec<_> = frames.iter().filter(|frame| frame.tag == b'v').collect();
        assert_eq!(negotiations.len(), 1, "{frames:?}");
        let body = &negotiations[0].body;
        assert_eq!(body[..4], [0, 3, 0, 0], "protocol 3.0 is offered");
        assert_eq!(body[7] as usize, options.len(), "{body:?}");
        assert_eq!(client.value("select 1"), "1");
    }
}

#[test]
fn protocol_two_is_refused() {
    let proxy = Proxy::builder().start();
    let mut client = RawClient::connect(&proxy.address());
    client.send(&startup_of(2, 0, &[("user", USER)]));
    let frames = client.until_closed();
    assert_eq!(frames.len(), 1, "{frames:?}");
    assert_eq!(frames[0].field(b'S').as_deref(), Some("FATAL"));
}

#[test]
fn the_client_hears_the_servers_parameters() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).start();
    let client = proxy.session(&database);
    let direct = RawClient::session(&cluster().primary.address(), USER, &database);
    let sorted = |client: &RawClient| {
        let mut parameters = client.parameters.clone();
        parameters.sort();
        parameters
    };
    assert_eq!(sorted(&client), sorted(&direct));
}

#[test]
fn parameters_of_the_login_hold_for_the_session() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).set("default_pool_size", 1).start();
    let mut other = proxy.session(&database);
    let mut client = RawClient::connect(&proxy.address());
    let parameters = [
        ("user", USER),
        ("database", &database),
        ("application_name", "named"),
        ("client_encoding", "LATIN1"),
        ("options", "-c TimeZone=Asia/Tokyo --DateStyle=German"),
    ];
    client.log_in(&parameters, "").unwrap();
    for _ in 0..2 {
        assert_eq!(other.value("select current_setting('TimeZone')"), "UTC");
        for (name, value) in [
            ("application_name", "named"),
            ("client_encoding", "LATIN1"),
            ("TimeZone", "Asia/Tokyo"),
            ("DateStyle", "German, DMY"),
        ] {
            assert_eq!(client.value(&format!("show {name}")), value);
            assert_eq!(client.parameter(name), Some(value));
        }
    }
}

#[test]
fn an_unsupported_parameter_is_refused_unless_it_is_to_be_ignored() {
    let database = cluster().database();
    let parameters = [("user", USER), ("database", &*database), ("extra_float_digits", "2")];
    let builder = || Proxy::of(cluster(), &database).section("sessions", "transparent_sessions", 0);
    let proxy = builder().start();
    let (code, text) = refusal(&proxy.address(), &parameters, "");
    assert_eq!((code.as_str(), text.as_str()), ("08P01", "unsupported startup parameter: extra_float_digits"));
    let proxy = builder().set("ignore_startup_parameters", "extra_float_digits").start();
    RawClient::connect(&proxy.address()).log_in(&parameters, "").unwrap();
}

#[test]
fn a_query_may_follow_the_startup_message_without_waiting() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).start();
    let mut client = RawClient::connect(&proxy.address());
    let hello = startup(&[("user", USER), ("database", &database)]);
    client.send(&[hello, query("select 'early'")].concat());
    client.until(b'Z');
    assert_eq!(client.reply().rows(), [["early"]]);
}

#[test]
fn more_clients_than_allowed_are_refused() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).set("max_client_conn", 2).start();
    let _clients = [proxy.session(&database), proxy.session(&database)];
    let (code, text) = refusal(&proxy.address(), &[("user", USER), ("database", &database)], "");
    assert_eq!((code.as_str(), text.as_str()), ("53300", "no more connections allowed (max_client_conn)"));
}

#[test]
fn a_server_that_refuses_the_login_is_heard_by_the_client() {
    let proxy = Proxy::builder().database("missing_on_the_server", cluster().primary.port, "").start();
    let (code, text) = refusal(&proxy.address(), &[("user", USER), ("database", "missing_on_the_server")], "");
    assert_eq!(code, "3D000");
    assert!(text.contains("does not exist"), "{text}");
}

#[test]
fn what_the_packet_sets_itself_comes_behind_its_options() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).start();
    let options = ("options", "-c application_name=optional -c DateStyle=German");
    let asked = [("user", USER), ("database", &database), ("application_name", "explicit"), options];
    let mut clients = [proxy.address(), cluster().primary.address()].map(|address| RawClient::connect(&address));
    for client in &mut clients {
        client.log_in(&asked, PASSWORD).unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(client.value("show application_name"), "explicit");
        assert_eq!(client.value("show datestyle"), "German, DMY");
    }
    assert_eq!(proxy.show("CLIENTS").select("database", &database, "application_name"), ["explicit"]);
}

#[test]
fn who_comes_and_goes_is_logged_unless_that_is_switched_off() {
    let database = cluster().database();
    let log_of_a_visit = |proxy: &Proxy| {
        proxy.session(&database).value("select 1");
        wait_until("the client has left", || proxy.show("CLIENTS").select("database", &database, "user").is_empty());
        proxy.log()
    };
    let log = log_of_a_visit(&Proxy::of(cluster(), &database).start());
    assert!(log.contains("login attempt") && log.contains("closing because"), "{log}");
    let silent = Proxy::of(cluster(), &database).set("log_connections", 0).set("log_disconnections", 0);
    let log = log_of_a_visit(&silent.start());
    assert!(!log.contains("login attempt") && !log.contains("closing because"), "{log}");
}

#[test]
fn who_has_logged_in_is_at_once_among_the_clients_and_counted() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).set("stats_period", 60).start();
    let mut console = proxy.console();
    for logins in 1..=100 {
        let _client = proxy.session(&database);
        let clients = Table::of(&console.query("show clients")).select("database", &database, "user");
        assert!(clients.contains(&USER.to_owned()), "{logins} logins: {clients:?}");
        let counted = Table::of(&console.query("show stats")).number("database", &database, "total_client_login_count");
        assert_eq!(counted, logins);
    }
}
