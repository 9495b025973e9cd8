//! Who may come in: methods, rules, auth_query, what servers are told, bad input.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails loudly"
)]

mod support;

use std::{io::Write, net::TcpStream, path::PathBuf, thread, time::Duration};

use support::{
    Address, Proxy, RawClient, Reply, Table, cluster,
    cluster::{PASSWORD, SUPERUSER, USER},
    frames::{message, startup},
    programs::allow_descriptors,
    proxy::{ADMIN, Builder},
    scratch::scratch,
};

/// Logs in and asks the server who it is.
#[track_caller]
fn check(proxy: &Proxy, database: &str, user: &str, password: &str, expected: &str) {
    let mut client = RawClient::connect(&proxy.address());
    let outcome = client.log_in(&[("user", user), ("database", database)], password);
    outcome.unwrap_or_else(|error| panic!("{user}: {error:?}\n{}", proxy.last_words()));
    assert_eq!(client.value("select current_user"), expected);
}

/// SQLSTATE and text of a refused login, which must be FATAL and the last thing said.
#[track_caller]
fn refusal(address: &Address, user: &str, database: &str, password: &str) -> (String, String) {
    let mut client = RawClient::connect(address);
    let parameters = [("user", user), ("database", database)];
    let error = client.log_in(&parameters, password).expect_err("the login is refused");
    assert_eq!(error.field(b'S').as_deref(), Some("FATAL"));
    assert_eq!(client.until_closed(), []);
    (error.field(b'C').unwrap(), error.field(b'M').unwrap())
}

#[track_caller]
fn refused(proxy: &Proxy, user: &str, database: &str, password: &str, code: &str, text: &str) {
    let found = refusal(&proxy.address(), user, database, password);
    assert_eq!((found.0.as_str(), found.1.as_str()), (code, text), "{user}: {}", proxy.last_words());
}

/// Only those who run the query and the console are listed.
fn asking(database: &str, auth_type: &str) -> Builder {
    let users = format!("\"{SUPERUSER}\" \"{PASSWORD}\"\n\"{ADMIN}\" \"{PASSWORD}\"\n");
    Proxy::of(cluster(), database).set("auth_type", auth_type).set("auth_user", SUPERUSER).users(&users)
}

/// A console command where the console wants a password.
#[track_caller]
fn tell(proxy: &Proxy, command: &str) -> Reply {
    let mut console = RawClient::connect(&proxy.address());
    console.log_in(&[("user", ADMIN), ("database", "pgbouncer")], PASSWORD).unwrap();
    let reply = console.query(command);
    assert!(reply.error().is_none(), "{command}: {reply:?}");
    reply
}

/// A role of this test alone.
fn role(options: &str) -> String {
    let name = format!("role_{}", scratch().unique());
    alter(&format!("create role {name} login {options}"));
    name
}

fn alter(sql: &str) {
    cluster().primary.session("postgres").rows(sql);
}

/// A file of rules, in a directory that the proxy may read.
fn rules(text: &str) -> PathBuf {
    let path = scratch().directory("rules").join("hba.conf");
    scratch().write(&path, text);
    path
}

#[test]
fn users_whom_only_the_server_knows_come_in_by_their_stored_secret_and_it_opens_the_server_too() {
    let database = cluster().database();
    for (method, users) in [("md5", &["md5er", "scrammer"][..]), ("scram-sha-256", &["scrammer"])] {
        let proxy = asking(&database, method).start();
        for user in users {
            check(&proxy, &database, user, PASSWORD, user);
        }
        let log = proxy.log();
        assert!(!log.contains("SCRAM-SHA-256$") && !log.contains(PASSWORD), "{log}");
    }
}

#[test]
fn an_unknown_user_and_a_wrong_password_look_the_same_with_auth_query() {
    let database = cluster().database();
    for (method, text) in [
        ("plain", "password authentication failed"),
        ("md5", "SASL authentication failed"),
        ("scram-sha-256", "SASL authentication failed"),
    ] {
        let proxy = asking(&database, method).start();
        for user in ["scrammer", "nobody_knows"] {
            refused(&proxy, user, &database, "wrong", "28P01", text);
        }
    }
    let proxy = asking(&database, "trust").start();
    refused(&proxy, "nobody_knows", &database, "", "28000", "\"trust\" authentication failed");
}

#[test]
fn an_expired_password_and_none_at_all_let_nobody_in() {
    let database = cluster().database();
    let proxy = asking(&database, "plain").start();
    let expired = role("password 'secret' valid until '2020-01-01'");
    let (nothing, valid) = (role(""), role("password 'secret' valid until 'infinity'"));
    for user in [&expired, &nothing] {
        refused(&proxy, user, &database, PASSWORD, "28P01", "password authentication failed");
        refused(&proxy, user, &database, "", "28P01", "empty password returned by client");
    }
    check(&proxy, &database, &valid, PASSWORD, &valid);
}

#[test]
fn a_changed_password_works_at_once_though_the_old_one_is_remembered() {
    let database = cluster().database();
    for (method, form) in [("plain", "scram-sha-256"), ("md5", "md5")] {
        let proxy = asking(&database, method).set("auth_query_cache_ttl", 600).start();
        let user = role("");
        let change = |password: &str| {
            alter(&format!("set password_encryption = '{form}'; alter role {user} password '{password}'"));
        };
        change("first");
        check(&proxy, &database, &user, "first", &user);
        change("second");
        check(&proxy, &database, &user, "second", &user);
        refused(&proxy, &user, &database, "first", "28P01", "password authentication failed");
    }
}

#[test]
fn with_scram_a_changed_password_works_at_the_latest_at_the_second_attempt() {
    let database = cluster().database();
    let proxy = asking(&database, "scram-sha-256").set("auth_query_cache_ttl", 600).start();
    let user = role("password 'first'");
    check(&proxy, &database, &user, "first", &user);
    alter(&format!("alter role {user} password 'second'"));
    refused(&proxy, &user, &database, "second", "28P01", "SASL authentication failed");
    check(&proxy, &database, &user, "second", &user);
    let proxy = asking(&database, "scram-sha-256").set("auth_query_cache_ttl", 0).start();
    check(&proxy, &database, &user, "second", &user);
    alter(&format!("alter role {user} password 'third'"));
    check(&proxy, &database, &user, "third", &user);
}

#[test]
fn auth_query_is_asked_once_within_its_time_to_live_and_each_time_without_one() {
    let database = cluster().database();
    cluster().log_statements(&database);
    for (ttl, times) in [(600, 1), (0, 3)] {
        let mark = format!("mark_{}", scratch().unique());
        let query = format!("SELECT rolname, rolpassword /* {mark} */ FROM pg_authid WHERE rolname = $1");
        let proxy = asking(&database, "md5").set("auth_query_cache_ttl", ttl).set("auth_query", query).start();
        for _ in 0..3 {
            check(&proxy, &database, "scrammer", PASSWORD, "scrammer");
        }
        assert_eq!(cluster().primary.executions(&mark), times, "ttl {ttl}");
    }
}

#[test]
fn auth_query_runs_with_an_empty_search_path_and_with_nothing_of_the_client() {
    let database = cluster().database();
    alter(&format!("alter database {database} set search_path = public"));
    let query = "SELECT $1, CASE current_setting('search_path') || current_setting('application_name') \
                 WHEN '' THEN 'secret' END";
    let proxy = asking(&database, "plain").set("auth_query", query).start();
    let mut client = RawClient::connect(&proxy.address());
    let parameters = [("user", USER), ("database", &*database), ("application_name", "mine")];
    client.log_in(&parameters, PASSWORD).unwrap_or_else(|error| panic!("{error:?}\n{}", proxy.last_words()));
}

#[test]
fn the_first_column_is_who_one_becomes() {
    let database = cluster().database();
    let query = "SELECT 'app', 'secret' WHERE $1 = 'alias'";
    let proxy = asking(&database, "plain").set("auth_query", query).start();
    check(&proxy, &database, "alias", PASSWORD, USER);
    assert_eq!(Table::of(&tell(&proxy, "SHOW POOLS")).select("database", &database, "user"), [USER]);
    refused(&proxy, USER, &database, PASSWORD, "28P01", "password authentication failed");
}

#[test]
fn an_auth_query_that_fails_is_told_to_the_log_only() {
    let database = cluster().database();
    for (query, logged) in [
        ("SELECT name, secret FROM missing_table WHERE name = $1", "relation \"missing_table\" does not exist"),
        ("SELECT $1, 'a', 'b'", "expected 2 columns from auth_query, not 3"),
        ("SELECT NULL, $1", "auth_query response contained null user name"),
    ] {
        let proxy = asking(&database, "md5").set("auth_query", query).start();
        refused(&proxy, USER, &database, PASSWORD, "08P01", "bouncer config error");
        assert!(proxy.log().contains(logged), "{}", proxy.log());
        check(&proxy, &database, SUPERUSER, PASSWORD, SUPERUSER);
    }
}

#[test]
fn auth_dbname_says_where_to_ask() {
    let (database, other) = (cluster().database(), cluster().database());
    let query = format!("SELECT $1, CASE current_database() WHEN '{other}' THEN 'secret' END");
    let builder = || asking(&database, "plain").database(&other, cluster().primary.port, "").set("auth_query", &query);
    let proxy = builder().set("auth_dbname", &other).start();
    check(&proxy, &database, USER, PASSWORD, USER);
    tell(&proxy, &format!("DISABLE {other}"));
    let text = format!("authentication database \"{other}\" is disabled");
    refused(&proxy, "plainer", &database, PASSWORD, "08P01", &text);
    let proxy = builder().set("auth_dbname", "missing").start();
    refused(&proxy, USER, &database, PASSWORD, "08P01", "bouncer config error");
    let parameters = format!("host=127.0.0.1 port={} dbname={other}", cluster().primary.port);
    let proxy = builder().set("auth_dbname", "missing").section("databases", "*", parameters).start();
    check(&proxy, &database, USER, PASSWORD, USER);
}

#[test]
fn with_auth_type_any_everybody_is_the_databases_user_and_may_look_at_the_console() {
    let database = cluster().database();
    let other = cluster().database();
    let proxy = Proxy::builder()
        .database(&database, cluster().primary.port, &format!("user={USER}"))
        .database(&other, cluster().primary.port, "")
        .set("auth_type", "any")
        .start();
    check(&proxy, &database, "whoever", "", USER);
    refused(&proxy, "whoever", &other, "", "08P01", "bouncer config error");
    let mut console = RawClient::session(&proxy.address(), "whoever", "pgbouncer");
    assert!(console.query("SHOW VERSION").error().is_none());
    assert!(console.query("RELOAD").error().is_some());
    assert!(proxy.console().query("RELOAD").error().is_none());
}

#[test]
fn rules_decide_by_connection_database_and_user() {
    let database = cluster().database();
    let path = rules(&format!(
        "local all all trust\nhost {database} stranger 127.0.0.0/8 reject\nhost {database} all 127.0.0.1/32 md5\n\
         host pgbouncer {ADMIN} all trust\nhost pgbouncer all all reject\n"
    ));
    let proxy = Proxy::of(cluster(), &database)
        .set("auth_type", "hba")
        .set("auth_hba_file", path.display())
        .set("stats_users", USER)
        .start();
    check(&proxy, &database, USER, PASSWORD, USER);
    refused(&proxy, USER, &database, "wrong", "28P01", "password authentication failed");
    refused(&proxy, "stranger", &database, PASSWORD, "28000", "login rejected");
    refused(&proxy, USER, "elsewhere", PASSWORD, "28000", "no authentication method is found");
    let mut local = RawClient::session(&proxy.unix(), "stranger", &database);
    assert_eq!(local.value("select current_user"), "stranger");
    RawClient::session(&proxy.address(), ADMIN, "pgweir");
    refused(&proxy, USER, "pgweir", PASSWORD, "28000", "login rejected");
}

#[test]
fn peer_asks_the_unix_socket_who_it_is() {
    let database = cluster().database();
    let me = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
    let path = rules("local all plainer peer\nlocal all all peer map=staff\nhost all all all peer\n");
    let ident = path.with_file_name("ident.conf");
    scratch().write(&ident, &format!("staff /^{}(.*)$ {USER}\\1\nstaff nobody_here stranger\n", &me));
    let proxy = Proxy::of(cluster(), &database)
        .set("auth_type", "hba")
        .set("auth_hba_file", path.display())
        .set("auth_ident_file", ident.display())
        .start();
    RawClient::session(&proxy.unix(), USER, &database);
    for user in ["stranger", "plainer"] {
        let (code, text) = refusal(&proxy.unix(), user, &database, PASSWORD);
        assert_eq!((code.as_str(), text.as_str()), ("28000", "unix socket login rejected"), "{user}");
    }
    refused(&proxy, USER, &database, PASSWORD, "28000", "unix socket login rejected");
}

#[test]
fn a_rule_that_cannot_be_read_refuses_the_start_and_keeps_the_old_rules_on_reload() {
    let database = cluster().database();
    let path = rules("local all all trust\nhost all all all trust\n");
    let builder = || Proxy::of(cluster(), &database).set("auth_type", "hba").set("auth_hba_file", path.display());
    let proxy = builder().start();
    scratch().write(&path, "host all all all reject\nhost all all all ident\n");
    let expected = format!("{}:2: expected trust, reject, md5", path.display());
    assert!(proxy.console().query("RELOAD").error().is_some());
    assert!(proxy.log().contains(&expected), "{}", proxy.log());
    proxy.session(&database);
    let mut second = builder().spawn();
    assert_eq!(second.wait_for_end().code(), Some(1));
    assert!(second.log().contains(&expected), "{}", second.log());
    scratch().write(&path, "host pgbouncer all all trust\nhost all all all reject\n");
    proxy.tell("RELOAD");
    refused(&proxy, USER, &database, PASSWORD, "28000", "login rejected");
}

#[test]
fn pam_and_ldap_are_refused_at_the_start_with_a_way_out() {
    for method in ["pam", "ldap"] {
        let mut proxy = Proxy::builder().set("auth_type", method).spawn();
        assert_eq!(proxy.wait_for_end().code(), Some(1));
        assert!(proxy.log().contains("auth_query takes users and passwords from the server"), "{}", proxy.log());
    }
}

#[test]
fn a_user_who_is_gone_from_auth_file_is_refused_after_reload_and_one_who_is_new_comes_in() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).set("auth_type", "md5").start();
    check(&proxy, &database, USER, PASSWORD, USER);
    let list = proxy.home().join("userlist.txt");
    scratch().write(
        &list,
        &format!("\"{ADMIN}\" \"{PASSWORD}\"\n; a comment\n\"stranger\" \"a \"\" quote\"\nbroken\n\"app\" \"x\"\n"),
    );
    tell(&proxy, "RELOAD");
    refused(&proxy, USER, &database, PASSWORD, "28P01", "password authentication failed");
    check(&proxy, &database, "stranger", "a \" quote", "stranger");
    assert!(proxy.log().contains("broken auth file"), "{}", proxy.log());
}

#[test]
fn a_missing_auth_file_is_logged_and_nobody_is_known() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).set("auth_type", "md5").start();
    std::fs::remove_file(proxy.home().join("userlist.txt")).unwrap();
    tell(&proxy, "RELOAD");
    refused(&proxy, USER, &database, PASSWORD, "28P01", "password authentication failed");
    assert!(proxy.log().contains("auth_file"), "{}", proxy.log());
}

#[test]
fn a_secret_of_the_wrong_form_for_the_server_is_told_to_the_client() {
    let database = cluster().database();
    let md5 = cluster().primary.session("postgres").value("select 'md5' || md5('secretscrammer')");
    let users = format!("\"scrammer\" \"{md5}\"\n\"md5er\" \"wrong\"\n");
    let proxy = Proxy::of(cluster(), &database).set("auth_type", "trust").users(&users).start();
    refused(&proxy, "scrammer", &database, "", "08P01", "server login failed: wrong password type");
    let text = "password authentication failed for user \"md5er\"";
    refused(&proxy, "md5er", &database, "", "28P01", text);
}

#[test]
fn names_that_nobody_can_have_are_refused() {
    let database = cluster().database();
    let parameters = format!("host=127.0.0.1 port={} dbname={database}", cluster().primary.port);
    let proxy = Proxy::of(cluster(), &database).section("databases", "*", parameters).start();
    refused(&proxy, &"u".repeat(128), &database, "", "08P01", "username too long");
    let longest = "u".repeat(127);
    refused(&proxy, &longest, &database, "", "28000", "\"trust\" authentication failed");
    check(&proxy, &"d".repeat(63), USER, "", USER);
    let name = "d".repeat(64);
    refused(&proxy, USER, &name, "", "3D000", &format!("no such database: {name}"));
}

#[test]
fn scram_iterations_are_those_that_clients_are_told() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).set("auth_type", "scram-sha-256").set("scram_iterations", 5000).start();
    for user in [USER, "nobody_knows"] {
        let mut client = RawClient::connect(&proxy.address());
        client.send(&startup(&[("user", user), ("database", &database)]));
        client.until(b'R');
        let first = b"n,,n=,r=abcdefgh";
        let body = [b"SCRAM-SHA-256\0".as_slice(), &(first.len() as u32).to_be_bytes(), first].concat();
        client.send(&message(b'p', &body));
        let answer = client.frame();
        assert!(String::from_utf8_lossy(&answer.body).ends_with(",i=5000"), "{user}: {answer:?}");
    }
    check(&proxy, &database, USER, PASSWORD, USER);
}

#[test]
fn a_password_message_that_is_too_long_ends_the_login() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).set("auth_type", "plain").start();
    let mut client = RawClient::connect(&proxy.address());
    client.send(&startup(&[("user", USER), ("database", &database)]));
    client.until(b'R');
    drop(client.try_send(&message(b'p', &vec![b'x'; 100_000])));
    let last = client.until_closed_or(b'E');
    assert!(last.iter().all(|frame| frame.tag == b'E'), "{last:?}");
    check(&proxy, &database, USER, PASSWORD, USER);
}

#[test]
fn a_client_that_sends_a_byte_now_and_then_is_given_up_after_client_login_timeout() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).set("client_login_timeout", 1).start();
    let mut client = RawClient::connect(&proxy.address());
    let mut writer = client.split_off();
    let trickle = thread::spawn(move || {
        for byte in startup(&[("user", &"x".repeat(9000))]) {
            if writer.try_send(&[byte]).is_err() {
                return true;
            }
            thread::sleep(Duration::from_millis(50));
        }
        false
    });
    let last = client.until_closed_or(b'E');
    let text = last.first().and_then(|frame| frame.field(b'M'));
    assert_eq!(text.as_deref(), Some("client_login_timeout"), "{}", proxy.last_words());
    drop(client);
    assert!(trickle.join().unwrap(), "the connection was closed while bytes came");
}

#[test]
fn ten_thousand_half_open_logins_cost_little_and_count_as_clients_and_others_are_served() {
    const HALF_OPEN: usize = 10_000;
    allow_descriptors(HALF_OPEN);
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database)
        .set("auth_type", "md5")
        .set("client_login_timeout", 600)
        .set("max_client_conn", HALF_OPEN + 1)
        .start();
    check(&proxy, &database, USER, PASSWORD, USER);
    let before = proxy.memory();
    let hello = startup(&[("user", USER), ("database", &database)]);
    let half_open: Vec<_> = (0..HALF_OPEN)
        .map(|number| {
            let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
            if number % 2 == 0 {
                stream.write_all(&hello).unwrap();
            }
            stream
        })
        .collect();
    let mut client = RawClient::connect(&proxy.address());
    client.log_in(&[("user", USER), ("database", &database)], PASSWORD).unwrap();
    assert_eq!(client.value("select 1"), "1");
    let text = "no more connections allowed (max_client_conn)";
    assert_eq!(refusal(&proxy.address(), USER, &database, PASSWORD).1, text);
    let each = (proxy.memory().saturating_sub(before)) * 1024 / HALF_OPEN as u64;
    assert!(each < 24 * 1024, "{each} bytes for each half-open login");
    drop(half_open);
    assert_eq!(client.value("select 2"), "2");
}

#[test]
fn check_names_rules_and_queries_that_are_wrong() {
    let database = cluster().database();
    let path = rules("local all all trust\nhost all all all ident\n");
    let said = |builder: Builder| {
        let mut proxy = builder.argument("check").spawn();
        assert_eq!(proxy.wait_for_end().code(), Some(1), "{}", proxy.log());
        proxy.log()
    };
    let log = said(Proxy::of(cluster(), &database).set("auth_type", "hba").set("auth_hba_file", path.display()));
    assert!(log.contains(&format!("{}:2: expected trust, reject", path.display())), "{log}");
    for (query, problem) in [
        ("SELECT $1, 'a', 'b'", "auth_query: expected 2 columns, got 3"),
        ("SELECT a, b FROM missing_table WHERE a = $1", "relation \"missing_table\" does not exist"),
    ] {
        let log = said(asking(&database, "md5").set("auth_query", query));
        assert!(log.contains(problem), "{log}");
    }
    let log = said(asking(&database, "md5").set("auth_dbname", "missing"));
    assert!(log.contains("auth_dbname: expected a database of [databases], got missing"), "{log}");
    let log = said(Proxy::of(cluster(), &database).set("auth_type", "any"));
    assert!(log.contains("auth_type = any: expected user=, got none"), "{log}");
}
