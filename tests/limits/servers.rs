//! Which server connection is used, how long it lives and how it is looked after.

use super::backends;
use crate::support::{FakeServer, Proxy, RawClient, cluster, frames, wait_until};

const PID: &str = "select pg_backend_pid()";

/// The servers that serve one request after the other, with three that rest.
fn served_by(round_robin: u32) -> Vec<String> {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).set("server_round_robin", round_robin).start();
    let mut clients: Vec<RawClient> = (0..3).map(|_| proxy.session(&database)).collect();
    clients.iter_mut().for_each(|client| _ = client.query("begin"));
    clients.iter_mut().for_each(|client| _ = client.query("commit"));
    (0..6).map(|_| clients[0].value(PID)).collect()
}

#[test]
fn the_server_that_was_used_last_is_used_next_or_they_take_turns() {
    let last = served_by(0);
    assert!(last.iter().all(|pid| *pid == last[0]), "{last:?}");
    let turns = served_by(1);
    assert_eq!(turns[..3], turns[3..]);
    assert!(turns[0] != turns[1] && turns[1] != turns[2] && turns[0] != turns[2], "{turns:?}");
}

#[test]
fn a_server_is_closed_when_its_life_is_over() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).set("server_lifetime", 1).start();
    let mut client = proxy.session(&database);
    let first = client.value(PID);
    wait_until("another server serves", || client.value(PID) != first);
    proxy.tell("SET server_lifetime = 0");
    assert_ne!(client.value(PID), client.value(PID), "each is used once");
    wait_until("it is closed", || backends(&database).is_empty());
}

#[test]
fn a_server_that_rests_too_long_is_closed() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).set("server_idle_timeout", 1).start();
    proxy.session(&database).rows("select 1");
    assert_eq!(backends(&database).len(), 1);
    wait_until("it is closed", || backends(&database).is_empty());
}

/// A server that answers queries until it hears the check for the second time.
fn fragile(query: &'static str, fails_from: usize) -> FakeServer {
    let heard = std::sync::atomic::AtomicUsize::new(0);
    FakeServer::start(move |session| {
        loop {
            let frame = session.frame()?;
            let is_check = frame.tag == b'Q' && frame.text() == query;
            if is_check && heard.fetch_add(1, std::sync::atomic::Ordering::AcqRel) >= fails_from {
                return Ok(());
            }
            session.answer_blandly(&frame)?;
        }
    })
}

fn in_front_of(server: &FakeServer) -> crate::support::proxy::Builder {
    Proxy::builder().database("x", server.port, "")
}

#[test]
fn a_server_that_has_rested_is_tried_out_and_one_that_fails_is_replaced_silently() {
    let server = fragile("select 'check'", 1);
    let proxy = in_front_of(&server).set("server_check_query", "select 'check'").set("server_check_delay", 0).start();
    let mut client = proxy.session("x");
    assert!(client.query("select 1").error().is_none(), "the check succeeds");
    assert_eq!(server.attempts(), 1);
    assert!(client.query("select 2").error().is_none(), "the check fails, another server is opened");
    assert_eq!(server.attempts(), 2);
}

#[test]
fn the_empty_query_is_the_usual_check_and_an_empty_setting_is_none() {
    for (setting, logins) in [("<empty>", 2), ("", 1)] {
        let server = fragile("", 0);
        let proxy = in_front_of(&server).set("server_check_query", setting).set("server_check_delay", 0).start();
        let mut client = proxy.session("x");
        assert!(client.query("select 1").error().is_none());
        assert_eq!(server.attempts(), logins, "{setting:?}");
    }
}

#[test]
fn a_server_is_not_tried_out_before_it_has_rested_long_enough() {
    let server = fragile("", 0);
    let proxy = in_front_of(&server).set("server_check_delay", 1).start();
    let mut client = proxy.session("x");
    assert!(client.query("select 1").error().is_none());
    assert_eq!(server.attempts(), 1);
    wait_until("it has rested", || proxy.show("POOLS").number("database", "x", "sv_used") == 1);
    assert!(client.query("select 1").error().is_none());
    assert_eq!(server.attempts(), 2);
}

#[test]
fn the_connect_query_runs_once_on_each_server_and_its_errors_are_ignored() {
    let database = cluster().database();
    let query = "connect_query='set application_name = ''marked'''";
    let proxy = Proxy::builder().database(&database, cluster().primary.port, query).start();
    let mut client = proxy.session(&database);
    client.rows("select 1");
    let wrong = "connect_query='select no_such_column'";
    let proxy = Proxy::builder().database(&database, cluster().primary.port, wrong).start();
    assert_eq!(proxy.session(&database).value("select 1"), "1");
    assert!(proxy.log().contains("connect_query failed"), "{}", proxy.log());
}

#[test]
fn hosts_of_a_list_take_turns_or_one_is_kept_until_it_fails() {
    let bland = || {
        FakeServer::start(|session| {
            loop {
                let frame = session.frame()?;
                session.answer_blandly(&frame)?;
            }
        })
    };
    for (policy, expected) in [("round-robin", 2), ("disable", 0)] {
        let server = bland();
        // The second host of the list does not listen on this port.
        let hosts = format!("host=127.0.0.1,127.0.0.2 port={} load_balance_hosts={policy}", server.port);
        let proxy = Proxy::builder()
            .section("databases", "x", hosts)
            .set("server_login_retry", "0.1")
            .set("server_lifetime", 0)
            .start();
        let mut client = proxy.session("x");
        for _ in 0..4 {
            assert!(client.query("select 1").error().is_none());
        }
        let failures = proxy.log().matches("server login failed").count();
        assert!(failures >= expected && (expected > 0 || failures == 0), "{policy}: {failures}");
    }
}

#[test]
fn after_a_failure_the_next_host_is_kept() {
    let server = FakeServer::start(|session| {
        loop {
            let frame = session.frame()?;
            session.answer_blandly(&frame)?;
        }
    });
    let hosts = format!("host=127.0.0.2,127.0.0.1 port={} load_balance_hosts=disable", server.port);
    let proxy = Proxy::builder()
        .section("databases", "x", hosts)
        .set("server_login_retry", "0.1")
        .set("server_lifetime", 0)
        .start();
    let mut client = proxy.session("x");
    for _ in 0..4 {
        assert!(client.query("select 1").error().is_none());
    }
    assert_eq!(proxy.log().matches("server login failed").count(), 1, "{}", proxy.log());
}

#[test]
fn clients_that_wait_together_get_past_two_hosts_that_fail() {
    let bland = |address: &str| {
        FakeServer::start_at(address, |session| {
            loop {
                let frame = session.frame()?;
                session.answer_blandly(&frame)?;
            }
        })
    };
    const CLIENTS: i64 = 12;
    let server = bland("127.0.0.1:0");
    let failing = ["127.0.0.2", "127.0.0.3"].map(|host| bland(&format!("{host}:{}", server.port)));
    for other in &failing {
        other.stall();
        other.refuse(Some(frames::response(b'E', "FATAL", "57P03", "the database system is shutting down")));
    }
    let proxy = Proxy::builder()
        .section(
            "databases",
            "x",
            format!("host=127.0.0.2,127.0.0.3,127.0.0.1 port={} load_balance_hosts=disable", server.port),
        )
        .set("server_login_retry", "0.1")
        .set("default_pool_size", 4)
        .start();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = proxy.session("x");
                for _ in 0..5 {
                    assert!(client.query("select 1").error().is_none());
                }
            });
        }
        // Nobody knows yet that the first host fails.
        wait_until("all wait", || {
            let opening = failing[0].attempts() as i64;
            opening > 0 && opening + super::waiting(&proxy, "x") == CLIENTS
        });
        failing.iter().for_each(FakeServer::go_on);
    });
    assert!(failing[0].attempts() > 0 && failing[1].attempts() > 0, "both were tried");
    let failures = || failing.iter().map(FakeServer::attempts).sum::<usize>();
    let before = failures();
    proxy.tell("SET server_lifetime = 0");
    let mut client = proxy.session("x");
    for _ in 0..6 {
        assert!(client.query("select 1").error().is_none());
    }
    assert_eq!(failures(), before, "the host that answered is kept: {}", proxy.last_words());
}

#[test]
fn an_empty_pool_is_forgotten_and_made_again_when_it_is_needed() {
    let database = cluster().database();
    let proxy =
        Proxy::of(cluster(), &database).set("server_idle_timeout", "0.4").set("pool_idle_timeout", "0.4").start();
    let client = proxy.session(&database);
    wait_until("its servers are closed", || backends(&database).is_empty());
    assert_eq!(proxy.show("POOLS").select("database", &database, "user").len(), 1, "a client is connected");
    client.terminate();
    wait_until("it is forgotten", || proxy.show("POOLS").select("database", &database, "user").is_empty());
    assert_eq!(proxy.session(&database).value("select 1"), "1");
}

#[test]
fn a_database_of_the_fallback_entry_is_forgotten_when_nobody_uses_it() {
    let database = cluster().database();
    let server = format!("host=127.0.0.1 port={}", cluster().primary.port);
    let proxy = Proxy::builder()
        .section("databases", "*", server)
        .set("server_idle_timeout", "0.4")
        .set("autodb_idle_timeout", "0.4")
        .start();
    let client = proxy.session(&database);
    let is_known = || !proxy.show("DATABASES").select("name", &database, "host").is_empty();
    wait_until("its servers are closed", || backends(&database).is_empty());
    assert!(is_known());
    client.terminate();
    wait_until("it is forgotten", || !is_known());
    assert_eq!(proxy.session(&database).value("select 1"), "1");
}

#[test]
fn in_session_pooling_a_server_that_is_to_be_replaced_is_closed_at_once_only_if_that_is_set() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).set("pool_mode", "session").start();
    let mut client = proxy.session(&database);
    let pid = client.value(PID);
    proxy.tell("RECONNECT");
    assert!(client.is_silent_for(std::time::Duration::from_secs(1)));
    assert_eq!(client.value(PID), pid, "it keeps its server");
    client.query("begin");
    proxy.tell("SET server_fast_close = 1");
    assert!(client.is_silent_for(std::time::Duration::from_secs(1)), "a transaction is open");
    client.query("commit");
    assert_eq!(super::last_words(&mut client).1, "database configuration changed");
    wait_until("it is closed", || backends(&database).is_empty());
}

#[test]
fn the_reset_query_runs_in_transaction_pooling_only_if_it_shall_run_always() {
    for (always, runs) in [(0, false), (1, true)] {
        let database = cluster().database();
        cluster().log_statements(&database);
        let proxy = Proxy::of(cluster(), &database)
            .set("default_pool_size", 1)
            .set("server_reset_query", "select 'reset'")
            .set("server_reset_query_always", always)
            .start();
        let mut client = proxy.session(&database);
        for number in ["1", "2", "3"] {
            assert_eq!(client.value(&format!("select {number}")), number);
        }
        let count = || {
            let log = cluster().primary.log();
            log.lines().filter(|line| line.contains("select 'reset'")).count()
        };
        if runs {
            wait_until("the reset query ran", || count() >= 2);
        } else {
            assert_eq!(count(), 0);
        }
    }
}
