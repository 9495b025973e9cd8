//! Many clients share few server connections and none of them notices.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails loudly"
)]

mod support;

use std::{
    thread,
    time::{Duration, Instant},
};

use support::{
    Proxy, cluster,
    cluster::USER,
    frames::{bind, close_statement, copy_fail, describe_statement, execute, parse, query, sync},
    wait_until,
};

const PID: &str = "select pg_backend_pid()";

/// A database of its own behind so many server connections.
fn pooled(size: u32) -> (Proxy, String) {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).set("default_pool_size", size).start();
    proxy.wait_for_catalog(&database);
    (proxy, database)
}

fn waiting(proxy: &Proxy, database: &str) -> i64 {
    proxy.show("POOLS").number("database", database, "cl_waiting")
}

/// Reasons for which clients keep their servers.
fn pins(proxy: &Proxy, database: &str) -> Vec<String> {
    proxy.show("PINS").select("database", database, "reason")
}

#[test]
fn fifty_clients_share_one_server_connection() {
    // What `alter database … set` changes is taken up by new server connections: it comes first.
    let database = cluster().database();
    cluster().prepare(&database, "create table t(client int, n int)");
    cluster().log_statements(&database);
    let proxy = Proxy::of(cluster(), &database).set("default_pool_size", 1).start();
    proxy.wait_for_catalog(&database);
    thread::scope(|scope| {
        for client in 0..50 {
            let (proxy, database) = (&proxy, &database);
            scope.spawn(move || {
                let mut session = proxy.session(database);
                for n in 0..20 {
                    let insert = "insert into t values ($1, $2) /* fifty clients */";
                    session.extended(insert, &[&client.to_string(), &n.to_string()]);
                }
                let own = session.value(&format!("select count(*) from t where client = {client}"));
                assert_eq!(own, "20");
            });
        }
    });
    assert_eq!(cluster().primary.backends_that_ran("/* fifty clients */").len(), 1);
    assert_eq!(proxy.servers(&database), ["idle"]);
}

#[test]
fn a_transaction_keeps_its_server_and_another_client_waits_for_it() {
    let (proxy, database) = pooled(1);
    let (mut one, mut other) = (proxy.session(&database), proxy.session(&database));
    one.query("begin");
    let pid = one.value(PID);
    other.send(&query("select 'after'"));
    wait_until("the other waits", || waiting(&proxy, &database) == 1);
    assert_eq!(one.value(PID), pid);
    one.query("commit");
    assert_eq!(other.reply().rows(), [["after"]]);
}

#[test]
fn waiting_clients_are_served_in_the_order_they_came() {
    let (proxy, database) = pooled(1);
    cluster().prepare(&database, "create table t(place serial, client int)");
    let mut holder = proxy.session(&database);
    holder.query("begin");
    let mut clients: Vec<_> = (0..8).map(|_| proxy.session(&database)).collect();
    for (number, client) in (1..).zip(&mut clients) {
        client.send(&query(&format!("insert into t(client) values ({number})")));
        wait_until("the client waits", || waiting(&proxy, &database) == number);
    }
    holder.query("commit");
    for client in &mut clients {
        assert_eq!(client.reply().tags(), ["INSERT 0 1"]);
    }
    let order = holder.value("select string_agg(client::text, ' ' order by place) from t");
    assert_eq!(order, "1 2 3 4 5 6 7 8");
}

#[test]
fn no_more_servers_are_opened_than_the_pool_has() {
    let (proxy, database) = pooled(3);
    let mut clients: Vec<_> = (0..10).map(|_| proxy.session(&database)).collect();
    for client in &mut clients {
        client.send(&query("select pg_sleep(0.1)"));
    }
    for client in &mut clients {
        client.reply();
    }
    let count = "select count(*) from pg_stat_activity where datname = current_database() and usename = current_user";
    assert_eq!(clients[0].value(count), "3");
}

#[test]
fn a_prepared_statement_runs_on_whichever_server_is_free() {
    let (proxy, database) = pooled(3);
    cluster().log_statements(&database);
    let mut client = proxy.session(&database);
    client.prepare("s", "select $1::int * 2 /* wherever */");
    let mut blockers: Vec<_> = (0..2).map(|_| proxy.session(&database)).collect();
    for blocked in 0..6 {
        // Idle servers are reused from the front or the back: blocking them in turn forces a change.
        for blocker in blockers.iter_mut().take(blocked % 3) {
            blocker.query("begin; select 1");
        }
        assert_eq!(client.execute("s", &[&blocked.to_string()]).rows(), [[(blocked * 2).to_string()]]);
        for blocker in &mut blockers {
            blocker.query("rollback");
        }
    }
    let backends = cluster().primary.backends_that_ran("/* wherever */");
    assert!(backends.len() > 1, "all on {backends:?}");
}

#[test]
fn clients_use_one_name_for_different_statements() {
    let (proxy, database) = pooled(1);
    let mut clients: Vec<_> = (0..5).map(|_| proxy.session(&database)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.prepare("same", &format!("select {number} + $1::int"));
    }
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.execute("same", &["10"]).rows(), [[(number + 10).to_string()]]);
    }
    clients[0].exchange(&[close_statement("same"), sync()].concat());
    assert_eq!(clients[0].execute("same", &["1"]).sqlstate(), "26000");
    assert_eq!(clients[1].execute("same", &["1"]).rows(), [["2"]]);
}

/// Prepares `sql` under a name and tells how many columns its rows will have.
#[track_caller]
fn columns(session: &mut support::RawClient, sql: &str) -> usize {
    let described = session.exchange(&[parse("shared", sql), describe_statement("shared"), sync()].concat());
    let rows = described.frames.iter().find(|frame| frame.tag == b'T').expect("a row description");
    usize::from(u16::from_be_bytes([rows.body[0], rows.body[1]]))
}

#[test]
fn a_statement_that_executes_another_is_described_by_its_own_session() {
    let (proxy, database) = pooled(1);
    let mut sessions: Vec<_> = (0..3).map(|_| proxy.session(&database)).collect();
    for (width, session) in (1..).zip(&mut sessions) {
        session.query(&format!("prepare inner_one as select {}", ["1"; 3][..width].join(", ")));
        assert_eq!(columns(session, "execute inner_one"), width);
        session.query("deallocate inner_one");
    }
}

#[test]
fn a_statement_over_a_temporary_table_is_described_by_its_own_session() {
    let (proxy, database) = pooled(1);
    let mut sessions: Vec<_> = (0..3).map(|_| proxy.session(&database)).collect();
    for (width, session) in (1..).zip(&mut sessions) {
        let definition = ["a int", "b int", "c int"][..width].join(", ");
        session.query(&format!("create temp table own({definition})"));
        assert_eq!(columns(session, "select * from own"), width);
        session.query("drop table own");
    }
}

#[test]
fn a_literal_in_a_prepared_statement_is_read_by_the_time_zone_of_its_own_session() {
    let (proxy, database) = pooled(1);
    let mut sessions: Vec<_> = (0..2).map(|_| proxy.session(&database)).collect();
    for (session, zone) in sessions.iter_mut().zip(["UTC", "Etc/GMT+5"]) {
        session.query(&format!("set time zone '{zone}'"));
        session.prepare("s", "select extract(epoch from timestamptz '1970-01-01 00:00')::int");
    }
    assert_eq!(sessions[0].execute("s", &[]).rows(), [["0"]]);
    assert_eq!(sessions[1].execute("s", &[]).rows(), [["18000"]]);
}

#[test]
fn a_statement_is_not_parsed_for_a_neighbour_by_a_time_zone_that_came_later() {
    let (proxy, database) = pooled(2);
    let mut sessions: Vec<_> = (0..2).map(|_| proxy.session(&database)).collect();
    let mut blocker = proxy.session(&database);
    for session in &mut sessions {
        session.query("set time zone 'UTC'");
        session.prepare("s", "select extract(epoch from timestamptz '1970-01-01 00:00')::int");
    }
    // The first session moves to the other server, in another time zone; the neighbour then runs there, too.
    sessions[0].query("set time zone 'Etc/GMT+5'");
    blocker.query("begin; select 1");
    sessions[0].execute("s", &[]);
    assert_eq!(sessions[1].execute("s", &[]).rows(), [["0"]]);
}

#[test]
fn a_server_holds_a_bounded_number_of_statements() {
    let database = cluster().database();
    let builder = Proxy::of(cluster(), &database).set("default_pool_size", 1);
    let proxy = builder.set("max_prepared_statements", 5).start();
    let mut client = proxy.session(&database);
    for round in 0..2 {
        for number in 0..30 {
            let name = format!("s{number}");
            if round == 0 {
                client.prepare(&name, &format!("select {number} + $1::int"));
            }
            assert_eq!(client.execute(&name, &["1"]).rows(), [[(number + 1).to_string()]]);
        }
    }
    let held: u32 = client.value("select count(*) from pg_prepared_statements").parse().unwrap();
    assert!(held <= 6, "{held} statements: the bound, and the newest until its pipeline is over");
    // A pipeline that uses more at once than are kept.
    let batch: Vec<u8> =
        (0..30).flat_map(|number| [bind(&format!("s{number}"), &["1"]), execute("", 0)].concat()).collect();
    let reply = client.exchange(&[batch, sync()].concat());
    assert_eq!(reply.rows().len(), 30, "{reply:?}");
}

#[test]
fn a_statement_whose_client_left_before_sync_is_unknown_to_everybody() {
    let (proxy, database) = pooled(1);
    let mut leaver = proxy.session(&database);
    leaver.send(&parse("s", "select 'left behind'"));
    drop(leaver);
    let mut client = proxy.session(&database);
    assert_eq!(client.execute("s", &[]).sqlstate(), "26000");
    client.prepare("s", "select 'mine'");
    assert_eq!(client.execute("s", &[]).rows(), [["mine"]]);
}

/// A Sync that a server may or may not have read, because a COPY was open, costs its connection; the client's next
/// transactions have nothing to do with that.
#[test]
fn a_failed_copy_with_an_early_sync_costs_one_connection_only() {
    let (proxy, database) = pooled(1);
    cluster().prepare(&database, "create table t(a int)");
    let mut client = proxy.session(&database);
    let copy = [parse("", "copy t from stdin"), bind("", &[]), execute("", 0), sync()].concat();
    client.send(&copy);
    let reply = client.exchange(&[copy_fail("changed my mind"), sync()].concat());
    assert_eq!(reply.sqlstate(), "57014", "{reply:?}");
    let first = client.value(PID);
    assert_eq!(client.value(PID), first);
    assert_eq!(client.value(PID), first);
}

#[test]
fn a_changed_table_is_seen_by_a_driver_that_prepares_again() {
    let (proxy, database) = pooled(1);
    cluster().prepare(&database, "create table t(a int); insert into t values (1)");
    let (mut one, mut other) = (proxy.session(&database), proxy.session(&database));
    for client in [&mut one, &mut other] {
        client.prepare("s", "select * from t");
        client.execute("s", &[]);
    }
    one.query("alter table t add b text default 'new'");
    assert_eq!(other.execute("s", &[]).sqlstate(), "0A000");
    other.exchange(&[close_statement("s"), parse("again", "select * from t"), sync()].concat());
    assert_eq!(other.execute("again", &[]).rows(), [["1", "new"]]);
}

#[test]
fn discard_all_forgets_this_clients_statements_only() {
    let (proxy, database) = pooled(1);
    let (mut one, mut other) = (proxy.session(&database), proxy.session(&database));
    for client in [&mut one, &mut other] {
        client.prepare("s", "select 1");
    }
    one.query("discard all");
    assert_eq!(one.execute("s", &[]).sqlstate(), "26000");
    assert_eq!(other.execute("s", &[]).rows(), [["1"]]);
    other.query("deallocate all");
    assert_eq!(other.execute("s", &[]).sqlstate(), "26000");
}

#[test]
fn reported_parameters_follow_their_client() {
    let (proxy, database) = pooled(1);
    let settings = [
        ("TimeZone", "Asia/Tokyo", "America/Lima"),
        ("DateStyle", "German, DMY", "SQL, MDY"),
        ("client_encoding", "LATIN1", "UTF8"),
        ("application_name", "one", "other"),
        ("IntervalStyle", "iso_8601", "sql_standard"),
        ("standard_conforming_strings", "off", "on"),
    ];
    let (mut one, mut other) = (proxy.session(&database), proxy.session(&database));
    for (name, ones, others) in settings {
        one.query(&format!("set {name} = '{ones}'"));
        other.query(&format!("set {name} to '{others}'"));
        assert_eq!((one.parameter(name), other.parameter(name)), (Some(ones), Some(others)));
    }
    for _ in 0..2 {
        for (name, ones, others) in settings {
            assert_eq!(one.value(&format!("show {name}")), ones);
            assert_eq!(other.value(&format!("show {name}")), others);
        }
    }
    assert_eq!(one.value(PID), other.value(PID));
    assert_eq!(pins(&proxy, &database), [""; 0]);
}

#[test]
fn a_setting_of_a_rolled_back_transaction_is_gone() {
    let (proxy, database) = pooled(1);
    let (mut client, mut neighbour) = (proxy.session(&database), proxy.session(&database));
    client.query("set timezone = 'Asia/Tokyo'");
    client.query("begin; set timezone = 'America/Lima'");
    assert_eq!(client.value("show timezone"), "America/Lima");
    client.query("rollback");
    neighbour.query("set timezone = 'Europe/Paris'");
    assert_eq!(client.value("show timezone"), "Asia/Tokyo");
    assert_eq!(client.parameter("TimeZone"), Some("Asia/Tokyo"));
}

/// A client does something that only one server connection knows of, a neighbour takes turns, the client finds it again;
/// afterwards it is released, and then the only server is free for others.
#[track_caller]
fn check_pin(reason: &str, leave: &str, find: &str, found: &str, release: &str) {
    let (proxy, database) = pooled(2);
    let mut client = proxy.session(&database);
    let mut neighbour = proxy.session(&database);
    let tag = client.query(leave);
    assert!(tag.error().is_none(), "{leave}: {tag:?}");
    for _ in 0..3 {
        neighbour.rows("select 1");
        assert_eq!(client.value(find), found, "{find}");
    }
    assert_eq!(pins(&proxy, &database), [reason]);
    client.query(release);
    wait_until("the pin is gone", || pins(&proxy, &database).is_empty());
    neighbour.query("begin");
    client.query("begin");
    assert_ne!(neighbour.value(PID), client.value(PID), "both servers are in use again");
}

#[test]
fn who_listens_inside_a_transaction_keeps_its_server_until_it_unlistens() {
    check_pin("listen", "begin; listen news; commit", "select pg_listening_channels()", "news", "select 1; unlisten *");
}

#[test]
fn a_temporary_table_keeps_its_server_until_it_is_dropped() {
    check_pin(
        "temp_table",
        "create temp table scratch as select 7 as v",
        "select v from scratch",
        "7",
        "drop table scratch",
    );
}

#[test]
fn an_advisory_lock_keeps_its_server_until_it_is_released() {
    let held = "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()";
    check_pin("advisory_lock", "select pg_advisory_lock(42)", held, "1", "select pg_advisory_unlock(42)");
}

#[test]
fn a_statement_prepared_by_sql_keeps_its_server_until_it_is_deallocated() {
    check_pin("sql_prepare", "prepare p as select 'prepared'", "execute p", "prepared", "deallocate p");
}

#[test]
fn a_held_cursor_keeps_its_server_until_it_is_closed() {
    check_pin(
        "hold_cursor",
        "declare c cursor with hold for select 'held' from generate_series(1, 9)",
        "fetch 1 from c",
        "held",
        "close c",
    );
}

#[test]
fn what_a_function_leaves_behind_is_noticed() {
    let (proxy, database) = pooled(2);
    cluster().prepare(
        &database,
        "create function hide() returns void language plpgsql as $$ begin
            perform set_config('my.secret', 'hidden', false); create temp table hidden as select 1 as v; end $$",
    );
    let (mut client, mut neighbour) = (proxy.session(&database), proxy.session(&database));
    client.rows("select hide()");
    for _ in 0..3 {
        assert_eq!(neighbour.query("select v from hidden").sqlstate(), "42P01");
        assert_eq!(client.value("select v from hidden"), "1");
        assert_eq!(client.value("show my.secret"), "hidden");
    }
}

#[test]
fn nothing_of_a_client_that_left_is_found_by_the_next() {
    for (leave, look, clean) in [
        ("create temp table scratch()", "select to_regclass('pg_temp.scratch') is null", "t"),
        ("set work_mem = '5MB'", "show work_mem", "4MB"),
        ("begin; listen news; commit", "select count(*) from pg_listening_channels()", "0"),
        (
            "select pg_advisory_lock(43)",
            "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
            "0",
        ),
        ("prepare p as select 1", "select count(*) from pg_prepared_statements", "0"),
        ("set default_transaction_read_only = on", "show default_transaction_read_only", "off"),
        ("set role stranger", "select current_user", USER),
    ] {
        let (proxy, database) = pooled(1);
        cluster().primary.session("postgres").rows("grant stranger to app");
        let mut leaver = proxy.session(&database);
        let reply = leaver.query(leave);
        assert!(reply.error().is_none(), "{leave}: {reply:?}");
        drop(leaver);
        assert_eq!(proxy.session(&database).value(look), clean, "{leave}");
    }
}

#[test]
fn pins_that_fill_a_pool_are_named_to_those_who_waited_in_vain() {
    let database = cluster().database();
    let builder = Proxy::of(cluster(), &database).set("default_pool_size", 2);
    let proxy = builder.set("query_wait_timeout", 1).start();
    let mut holders = [proxy.session(&database), proxy.session(&database)];
    for holder in &mut holders {
        holder.query("create temp table scratch as select 7 as v");
    }
    let mut waiter = proxy.session(&database);
    let started = Instant::now();
    waiter.send(&query("select 1"));
    let frames = waiter.until_closed();
    let last = frames.iter().rfind(|frame| frame.tag == b'E').unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(last.field(b'C').as_deref(), Some("08P01"));
    let text = frames.iter().map(|frame| format!("{frame:?}")).collect::<String>();
    assert!(text.contains("query_wait_timeout"), "{text}");
    assert!(text.contains("temp_table"), "the text names the pins: {text}");
    for holder in &mut holders {
        assert_eq!(holder.value("select v from scratch"), "7");
    }
}

#[test]
fn a_client_that_waits_too_long_hears_what_pgbouncer_would_say() {
    let database = cluster().database();
    let builder = Proxy::of(cluster(), &database).set("default_pool_size", 1);
    let proxy = builder.set("query_wait_timeout", 1).start();
    let (mut holder, mut waiter) = (proxy.session(&database), proxy.session(&database));
    holder.query("begin");
    waiter.send(&query("select 1"));
    let frames = waiter.until_closed();
    let error = frames.iter().find(|frame| frame.tag == b'E').unwrap();
    assert_eq!(error.field(b'S').as_deref(), Some("FATAL"));
    assert_eq!(error.field(b'M').as_deref(), Some("query_wait_timeout"));
    assert_eq!(holder.query("commit").tags(), ["COMMIT"]);
}

#[test]
fn a_client_that_vanishes_in_a_transaction_leaves_nothing_behind() {
    let (proxy, database) = pooled(1);
    cluster().prepare(&database, "create table t(v int)");
    let mut leaver = proxy.session(&database);
    leaver.query("begin; insert into t values (1)");
    drop(leaver);
    let mut client = proxy.session(&database);
    assert_eq!(client.value("select count(*) from t"), "0");
    assert_eq!(client.query("select 1").status(), 'I');
}

#[test]
fn a_server_that_died_while_idle_is_replaced_unnoticed() {
    let (proxy, database) = pooled(1);
    let mut client = proxy.session(&database);
    for _ in 0..3 {
        let pid = client.value(PID);
        let mut admin = cluster().primary.session("postgres");
        admin.rows(&format!("select pg_terminate_backend({pid})"));
        let gone = format!("select count(*) from pg_stat_activity where pid = {pid}");
        wait_until("the backend is gone", || admin.value(&gone) == "0");
        assert_ne!(client.value(PID), pid);
    }
}

#[test]
fn a_server_that_dies_in_a_transaction_is_one_clients_loss() {
    let (proxy, database) = pooled(2);
    let (mut victim, mut neighbour) = (proxy.session(&database), proxy.session(&database));
    victim.query("begin");
    neighbour.query("begin");
    let pid = victim.value(PID);
    cluster().primary.session("postgres").rows(&format!("select pg_terminate_backend({pid})"));
    victim.send(&query("select 1"));
    let frames = victim.until_closed();
    assert!(
        frames.iter().any(|frame| frame.tag == b'E' && frame.field(b'S').as_deref() == Some("FATAL")),
        "{frames:?}"
    );
    assert_eq!(neighbour.query("commit").tags(), ["COMMIT"]);
    assert_eq!(proxy.session(&database).value("select 1"), "1");
}

#[test]
fn in_session_mode_a_client_keeps_its_server() {
    let database = cluster().database();
    let builder = Proxy::of(cluster(), &database).set("pool_mode", "session");
    let proxy = builder.set("default_pool_size", 2).start();
    let (mut one, mut other) = (proxy.session(&database), proxy.session(&database));
    let pids = [one.value(PID), other.value(PID)];
    one.query("set work_mem = '5MB'");
    for _ in 0..3 {
        assert_eq!([one.value(PID), other.value(PID)], pids);
    }
    one.terminate();
    let mut next = proxy.session(&database);
    assert_eq!(next.value(PID), pids[0]);
    assert_eq!(next.value("show work_mem"), "4MB", "server_reset_query ran");
}
