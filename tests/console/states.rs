//! What connections do, in PgBouncer's words.

use std::sync::{Arc, Condvar, Mutex};

use crate::{
    pooled,
    support::{
        FakeServer, Proxy, RawClient,
        cluster::USER,
        frames::{cancel_request, query, startup},
        wait_until,
    },
};

/// A server that answers a query that names `slow` when it is told to.
fn slow() -> (FakeServer, Arc<(Mutex<bool>, Condvar)>) {
    let may_answer = Arc::new((Mutex::new(false), Condvar::new()));
    let script = {
        let may_answer = Arc::clone(&may_answer);
        move |session: &mut crate::support::FakeSession| {
            loop {
                let asked = session.until_asked("slow")?;
                drop(may_answer.1.wait_while(may_answer.0.lock().unwrap(), |may| !*may));
                session.answer_blandly(&asked)?;
            }
        }
    };
    (FakeServer::start(script), may_answer)
}

/// States of the connections of database `x`.
fn states(proxy: &Proxy, what: &str) -> String {
    let mut states = proxy.show(what).select("database", "x", "state");
    states.sort();
    states.join(" ")
}

fn pool(proxy: &Proxy, column: &str) -> i64 {
    proxy.show("POOLS").number("database", "x", column)
}

#[test]
fn a_cancel_request_under_way_is_shown_and_so_is_the_server_that_waits_for_its_end() {
    let (server, may_answer) = slow();
    let proxy = Proxy::builder().database("x", server.port, "").start();
    let mut client = proxy.session("x");
    server.hold_cancels(true);
    client.send(&query("slow"));
    wait_until("it runs", || states(&proxy, "SERVERS") == "active");
    let mut asker = RawClient::connect(&proxy.address());
    asker.send(&cancel_request(&client.key));
    wait_until("it is on its way", || states(&proxy, "CLIENTS") == "active active_cancel_req");
    let (clients, servers) = (proxy.show("CLIENTS"), proxy.show("SERVERS"));
    let link = |table: &crate::support::Table, state: &str, column: &str| table.select("state", state, column);
    assert_eq!(link(&clients, "active_cancel_req", "link"), link(&servers, "active_cancel", "ptr"));
    assert_eq!(link(&clients, "active_cancel_req", "ptr"), link(&servers, "active_cancel", "link"));
    assert_eq!(link(&clients, "active_cancel_req", "user"), ["(nouser)"]);
    assert_eq!(link(&servers, "active_cancel", "port"), [server.port.to_string()]);
    assert_eq!(states(&proxy, "SERVERS"), "active active_cancel");
    assert_eq!(states(&proxy, "SOCKETS"), "cl_active sv_active", "SHOW SOCKETS has no cancel requests");
    assert_eq!((pool(&proxy, "cl_active_cancel_req"), pool(&proxy, "sv_active_cancel")), (1, 1));
    assert_eq!((pool(&proxy, "cl_waiting_cancel_req"), pool(&proxy, "sv_being_canceled")), (0, 0));
    assert_eq!(proxy.show("LISTS").number("list", "login_clients", "items"), 0);
    assert_eq!(proxy.show("LISTS").number("list", "used_servers", "items"), 2);

    *may_answer.0.lock().unwrap() = true;
    may_answer.1.notify_all();
    client.reply();
    wait_until("it waits", || states(&proxy, "SERVERS") == "active_cancel being_canceled");
    assert_eq!((pool(&proxy, "sv_being_canceled"), pool(&proxy, "sv_active")), (1, 0));
    server.hold_cancels(false);
    wait_until("all is over", || states(&proxy, "SERVERS") == "idle" && states(&proxy, "CLIENTS") == "idle");
    assert_eq!((pool(&proxy, "cl_active_cancel_req"), pool(&proxy, "sv_active_cancel")), (0, 0));
}

#[test]
fn a_login_is_a_socket_and_the_server_it_waits_for_is_new() {
    let (server, _) = slow();
    let proxy = Proxy::builder().database("x", server.port, "").start();
    let silent = RawClient::connect(&proxy.address());
    wait_until("somebody is there", || proxy.show("SOCKETS").select("database", "(nodb)", "state") == ["cl_login"]);
    assert_eq!(proxy.show("SOCKETS").select("state", "cl_login", "user"), ["(nouser)"]);
    drop(silent);
    server.stall();
    let mut client = RawClient::connect(&proxy.address());
    client.send(&startup(&[("user", USER), ("database", "x")]));
    wait_until("its server logs in", || states(&proxy, "SERVERS") == "new");
    assert_eq!(proxy.show("SERVERS").select("state", "new", "user"), [USER]);
    assert_eq!(states(&proxy, "SOCKETS"), "cl_login sv_login");
    assert_eq!(proxy.show("SOCKETS").select("state", "cl_login", "user"), [USER]);
    assert_eq!(states(&proxy, "CLIENTS"), "", "SHOW CLIENTS has no logins");
    assert_eq!(pool(&proxy, "sv_login"), 1);
    assert_eq!(proxy.show("LISTS").number("list", "login_clients", "items"), 1);
}

#[test]
fn a_server_that_must_be_tried_out_is_used_then_tested() {
    let (server, may_answer) = slow();
    let proxy = Proxy::builder()
        .database("x", server.port, "")
        .set("server_check_delay", 0)
        .set("server_check_query", "slow")
        .start();
    let mut client = proxy.session("x");
    wait_until("it rests", || states(&proxy, "SERVERS") == "used");
    assert_eq!((pool(&proxy, "sv_used"), pool(&proxy, "sv_idle")), (1, 0));
    client.send(&query("select 1"));
    wait_until("it is tried out", || states(&proxy, "SERVERS") == "tested");
    assert_eq!(states(&proxy, "SOCKETS"), "cl_waiting sv_tested");
    assert_eq!((pool(&proxy, "sv_tested"), pool(&proxy, "sv_active")), (1, 0));
    *may_answer.0.lock().unwrap() = true;
    may_answer.1.notify_all();
    client.reply();
    wait_until("it rests again", || states(&proxy, "SERVERS") == "used");
}

#[test]
fn a_socket_is_active_while_its_peer_does_not_take_what_waits_for_it() {
    let (proxy, database) = pooled(1);
    let mut client = proxy.session(&database);
    client.rows("select 1");
    let active = || proxy.show("ACTIVE_SOCKETS").select("database", &database, "state");
    wait_until("nothing waits", || active().is_empty());
    client.send(&query("select repeat('x', 1000) from generate_series(1, 50000)"));
    wait_until("the client does not read", || active() == ["sv_active"]);
    let table = proxy.show("ACTIVE_SOCKETS");
    let figure = |column: &str| table.number("state", "sv_active", column);
    assert!(figure("send_avail") > 0, "{table:?}");
    assert_eq!(figure("pkt_pos") - figure("send_pos"), figure("send_avail"));
    assert_eq!(figure("recv_pos") - figure("pkt_pos"), figure("pkt_avail"));
    assert_eq!(client.reply().rows().len(), 50_000);
    wait_until("all has left", || active().is_empty());
}
