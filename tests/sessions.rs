//! Sessions that share server connections find what they set, and nothing that a neighbour did.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails loudly"
)]

mod support;

use support::{
    Proxy, RawClient, cluster,
    cluster::USER,
    frames::{bind, close_statement, copy_data, copy_done, describe_statement, execute, flush, parse, query, sync},
    programs,
    proxy::Builder,
    scratch, wait_until,
};

/// A database of its own behind one server connection.
fn narrow() -> (Proxy, String) {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).set("default_pool_size", 1).set("query_wait_timeout", 20).start();
    (proxy, database)
}

/// A session that begins with these parameters.
fn begun_with(proxy: &Proxy, database: &str, parameters: &[(&str, &str)]) -> RawClient {
    let mut client = RawClient::connect(&proxy.address());
    let mut all = vec![("user", USER), ("database", database)];
    all.extend(parameters);
    client.log_in(&all, "").unwrap();
    client
}

fn succeed(client: &mut RawClient, sql: &str) {
    let reply = client.query(sql);
    assert!(reply.error().is_none(), "{sql}: {reply:?}");
}

#[test]
fn what_a_session_sets_follows_it_and_nobody_else() {
    let (proxy, database) = narrow();
    cluster().primary.session("postgres").rows("grant stranger to app");
    let (mut client, mut neighbour) = (proxy.session(&database), proxy.session(&database));
    for (set, show, value, reset) in [
        ("set work_mem = '5MB'", "show work_mem", "5MB", "reset work_mem"),
        ("set search_path = pg_catalog, \"odd name\"", "show search_path", "pg_catalog, \"odd name\"", "reset all"),
        ("set statement_timeout = '90s'", "show statement_timeout", "90s", "set statement_timeout to default"),
        ("select set_config('my.tenant', 'it''s \\ 7', false)", "show my.tenant", "it's \\ 7", "reset my.tenant"),
        ("do $$ begin perform set_config('my.tenant', 'done', false); end $$", "show my.tenant", "done", "discard all"),
        ("set default_transaction_read_only = on", "show transaction_read_only", "on", "reset all"),
        (
            "set session characteristics as transaction isolation level serializable",
            "show transaction_isolation",
            "serializable",
            "reset default_transaction_isolation",
        ),
        ("set role stranger", "select current_user", "stranger", "reset role"),
        ("set timezone = 'Asia/Tokyo'", "show timezone", "Asia/Tokyo", "reset timezone"),
        ("set intervalstyle = iso_8601", "select interval '1 day'", "P1D", "reset intervalstyle"),
    ] {
        // A setting of nobody's own making is unknown until it has been set, and empty from then on.
        let is_default =
            |found: &[Vec<String>], default: &[Vec<String>]| found == default || default.is_empty() && found == [[""]];
        let default = neighbour.query(show).rows();
        succeed(&mut client, set);
        for _ in 0..2 {
            let found = neighbour.query(show).rows();
            assert!(is_default(&found, &default), "the neighbour, behind {set}: {found:?}");
            assert_eq!(client.value(show), value, "{set}");
        }
        assert_eq!(proxy.show("PINS").rows.len(), 0, "{set} needs no connection of its own");
        succeed(&mut client, reset);
        neighbour.rows("select 1");
        let after = client.query(show).rows();
        assert!(is_default(&after, &default), "{set}, {reset}: {after:?}");
    }
}

#[test]
fn settings_of_a_transaction_end_as_it_ends() {
    let (proxy, database) = narrow();
    let (mut client, mut neighbour) = (proxy.session(&database), proxy.session(&database));
    for (transaction, expected) in [
        ("begin; set work_mem = '5MB'; rollback", "4MB"),
        ("begin; set local work_mem = '6MB'; commit", "4MB"),
        ("begin; set work_mem = '7MB'; commit", "7MB"),
        ("begin; savepoint s; set work_mem = '8MB'; rollback to s; commit", "7MB"),
        ("begin; reset work_mem; rollback", "7MB"),
        ("begin; reset work_mem; commit", "4MB"),
    ] {
        for statement in transaction.split("; ") {
            succeed(&mut client, statement);
        }
        assert_eq!(neighbour.value("show work_mem"), "4MB", "{transaction}");
        assert_eq!(client.value("show work_mem"), expected, "{transaction}");
    }
}

#[test]
fn a_session_returns_to_what_it_began_with() {
    let (proxy, database) = narrow();
    let options = "-c work_mem=9MB -c search_path=a,\\ b";
    let parameters =
        [("options", options), ("TimeZone", "Asia/Tokyo"), ("extra_float_digits", "2"), ("my.App", "shop")];
    let mut client = begun_with(&proxy, &database, &parameters);
    let mut neighbour = proxy.session(&database);
    let began = [
        ("show work_mem", "9MB"),
        ("show search_path", "a, b"),
        ("show timezone", "Asia/Tokyo"),
        ("show extra_float_digits", "2"),
        ("show my.app", "shop"),
    ];
    let changes = "set work_mem = '5MB'; set search_path = c; set timezone = 'UTC'; set extra_float_digits = 0; \
                   set my.app = 'x'";
    let each = "reset work_mem; reset search_path; reset timezone; reset extra_float_digits; reset my.app";
    for reset in [each, "reset all", "discard all"] {
        for statement in changes.split("; ") {
            succeed(&mut client, statement);
        }
        assert_eq!(client.value("show work_mem"), "5MB");
        for statement in reset.split("; ") {
            succeed(&mut client, statement);
        }
        for (show, value) in began {
            neighbour.rows("select 1");
            assert_eq!(client.value(show), value, "{reset}");
        }
        assert_eq!(client.parameter("TimeZone"), Some("Asia/Tokyo"), "{reset}: reported");
    }
    succeed(&mut client, "begin");
    succeed(&mut client, "set work_mem = '5MB'");
    succeed(&mut client, "reset work_mem");
    assert_eq!(client.value("show work_mem"), "9MB", "inside a transaction");
    succeed(&mut client, "rollback");
    assert_eq!(client.value("show work_mem"), "9MB");
    assert_eq!(neighbour.value("show work_mem"), "4MB");
    assert_eq!(neighbour.value("show timezone"), cluster().primary.session(&database).value("show timezone"));
}

#[test]
fn a_reset_in_a_failed_transaction_changes_nothing() {
    let (proxy, database) = narrow();
    let mut client = begun_with(&proxy, &database, &[("work_mem", "9MB")]);
    succeed(&mut client, "begin");
    assert_eq!(client.query("select 1/0").sqlstate(), "22012");
    assert_eq!(client.query("reset work_mem").sqlstate(), "25P02");
    assert_eq!(client.query("commit").tags(), ["ROLLBACK"]);
    assert_eq!(client.value("show work_mem"), "9MB");
}

#[test]
fn a_start_up_parameter_that_the_server_does_not_take_fails_the_login() {
    let (proxy, database) = narrow();
    for (name, value, sqlstate) in
        [("work_mem", "much", "22023"), ("no_such_parameter", "1", "42704"), ("log_statement", "all", "42501")]
    {
        let mut client = RawClient::connect(&proxy.address());
        let error = client.log_in(&[("user", USER), ("database", &database), (name, value)], "").unwrap_err();
        assert_eq!((error.field(b'S').as_deref(), error.field(b'C').as_deref()), (Some("FATAL"), Some(sqlstate)));
    }
    assert_eq!(proxy.session(&database).value("select 1"), "1");
}

#[test]
fn settings_are_restored_in_the_same_round_trip_as_the_query() {
    let (proxy, database) = narrow_with(|builder, database| {
        cluster().log_statements(database);
        builder
    });
    let (mut client, mut neighbour) = (proxy.session(&database), proxy.session(&database));
    succeed(&mut client, "set work_mem = '5MB'");
    neighbour.rows("select 1");
    client.send(&[parse("", "select current_setting('work_mem')"), bind("", &[]), execute("", 0), sync()].concat());
    assert_eq!(client.reply().rows(), [["5MB"]]);
    let restores = || cluster().primary.executions("set_config('work_mem'");
    let before = restores();
    for _ in 0..5 {
        assert_eq!(client.value("show work_mem"), "5MB");
    }
    assert_eq!(restores(), before, "nothing is sent to a server that has them");
}

#[test]
fn nothing_runs_with_rights_that_could_not_be_restored() {
    let (proxy, database) = narrow();
    let mut admin = cluster().primary.session(&database);
    let role = format!("fleeting_{database}");
    admin.rows(&format!("create role {role}; grant {role} to app; create table t(v int); grant insert on t to app"));
    let (mut client, mut neighbour) = (proxy.session(&database), proxy.session(&database));
    succeed(&mut client, &format!("set role {role}"));
    neighbour.rows("select 1");
    admin.rows(&format!("drop role {role}"));
    client.send(&query("insert into t values (1)"));
    let frames = client.until_closed();
    assert_eq!(frames[0].field(b'S').as_deref(), Some("FATAL"), "{frames:?}");
    assert_eq!(frames[0].field(b'C').as_deref(), Some("22023"), "{frames:?}");
    assert_eq!(admin.value("select count(*) from t"), "0");
    assert_eq!(neighbour.value("select current_user"), USER);
}

#[test]
fn operators_of_a_hostile_session_hide_nothing() {
    let (proxy, database) = narrow();
    cluster().prepare(
        &database,
        "create schema evil; grant all on schema evil to app;
         create function evil.no(text, text) returns boolean immutable language sql as 'select false';
         create operator evil.= (leftarg = text, rightarg = text, function = evil.no);
         create operator evil.<> (leftarg = text, rightarg = text, function = evil.no)",
    );
    let (mut hostile, mut neighbour) = (proxy.session(&database), proxy.session(&database));
    succeed(&mut hostile, "set search_path = evil, pg_catalog");
    assert_eq!(neighbour.value("select 'a'::text = 'a'::text"), "t");
    assert_eq!(hostile.value("select 'a'::text = 'a'::text"), "f");
}

#[test]
fn without_transparent_sessions_a_setting_stays_with_its_server() {
    let database = cluster().database();
    let builder = Proxy::of(cluster(), &database).set("default_pool_size", 1);
    let builder = builder.set("track_extra_parameters", "IntervalStyle, default_transaction_read_only");
    let proxy = builder.section("sessions", "transparent_sessions", 0).start();
    let (mut client, mut neighbour) = (proxy.session(&database), proxy.session(&database));
    succeed(&mut client, "set work_mem = '5MB'");
    succeed(&mut client, "set timezone = 'Asia/Tokyo'");
    succeed(&mut client, "create temp table scratch(v int)");
    succeed(&mut client, "set default_transaction_read_only = on");
    assert_eq!(neighbour.value("show default_transaction_read_only"), "off");
    assert_eq!(client.value("show default_transaction_read_only"), "on", "an extra parameter follows its client");
    assert_eq!(neighbour.value("show work_mem"), "5MB");
    assert_ne!(neighbour.value("show timezone"), "Asia/Tokyo", "reported parameters follow their client");
    assert_eq!(neighbour.value("select count(*) from scratch"), "0");
    assert_eq!(proxy.show("PINS").rows.len(), 0);
    let parameters = [("user", USER), ("database", &*database), ("work_mem", "5MB")];
    let refused = RawClient::connect(&proxy.address()).log_in(&parameters, "").unwrap_err();
    assert_eq!(refused.field(b'M').as_deref(), Some("unsupported startup parameter: work_mem"));
}

/// Waits for a notification, which comes between requests.
fn notified(client: &mut RawClient) -> (String, String) {
    let frame = client.frame();
    assert_eq!(frame.tag, b'A', "{frame:?}");
    let text = String::from_utf8(frame.body[4..].to_vec()).unwrap();
    let mut fields = text.split('\0').map(str::to_owned);
    (fields.next().unwrap(), fields.next().unwrap())
}

fn of(channel: &str, payload: &str) -> (String, String) {
    (channel.to_owned(), payload.to_owned())
}

#[test]
fn many_listen_without_holding_a_server_connection() {
    let (proxy, database) = narrow();
    let mut notifier = cluster().primary.session(&database);
    let mut listeners: Vec<_> = (0..20).map(|_| proxy.session(&database)).collect();
    for (at, listener) in listeners.iter_mut().enumerate() {
        succeed(listener, "listen everybody");
        assert_eq!(listener.extended(&format!("listen \"Only {at}\""), &[]).tags(), ["LISTEN"]);
    }
    assert_eq!(proxy.show("PINS").rows.len(), 0);
    succeed(&mut notifier, "notify everybody, 'one'; notify everybody, 'two'; notify \"Only 7\", 'seven'");
    for (at, listener) in listeners.iter_mut().enumerate() {
        assert_eq!(notified(listener), of("everybody", "one"));
        assert_eq!(notified(listener), of("everybody", "two"));
        if at == 7 {
            assert_eq!(notified(listener), of("Only 7", "seven"));
        }
        assert_eq!(listener.value("select 1"), "1");
    }
    let listening = "select count(*) from pg_stat_activity where query ilike '%listen%' and query not ilike '%pg_stat_activity%' and datname = current_database()";
    assert_eq!(notifier.value(listening), "1", "one connection listens for all");
}

#[test]
fn a_notification_comes_when_its_transaction_has_committed_and_not_before() {
    let (proxy, database) = narrow();
    let (mut listener, mut notifier) = (proxy.session(&database), cluster().primary.session(&database));
    succeed(&mut listener, "listen news");
    succeed(&mut notifier, "begin");
    succeed(&mut notifier, "notify news, 'rolled back'");
    succeed(&mut notifier, "rollback");
    succeed(&mut notifier, "begin");
    succeed(&mut notifier, "notify news, 'committed'");
    assert!(listener.is_silent_for(std::time::Duration::from_millis(200)));
    succeed(&mut notifier, "commit");
    assert_eq!(notified(&mut listener), of("news", "committed"));
}

#[test]
fn notifications_wait_for_the_end_of_the_listeners_own_transaction() {
    let (proxy, database) = narrow();
    let (mut listener, mut notifier) = (proxy.session(&database), cluster().primary.session(&database));
    succeed(&mut listener, "listen news");
    succeed(&mut listener, "begin");
    succeed(&mut notifier, "notify news, 'meanwhile'");
    for _ in 0..20 {
        let reply = listener.query("select pg_sleep(0.01)");
        assert!(reply.frames.iter().all(|frame| frame.tag != b'A'), "{reply:?}");
    }
    listener.send(&query("commit"));
    listener.until(b'Z');
    assert_eq!(notified(&mut listener), of("news", "meanwhile"));
}

#[test]
fn nothing_is_heard_behind_unlisten_or_discard_all() {
    let (proxy, database) = narrow();
    let mut notifier = cluster().primary.session(&database);
    let mut client = proxy.session(&database);
    for end in ["unlisten a", "unlisten *", "discard all", "select 1; unlisten *"] {
        succeed(&mut client, "listen a");
        succeed(&mut client, "listen b");
        succeed(&mut client, end);
        succeed(&mut notifier, "notify a, 'x'; notify b, 'y'");
        if end == "unlisten a" {
            assert_eq!(notified(&mut client), of("b", "y"));
        }
        assert!(client.is_silent_for(std::time::Duration::from_millis(100)), "{end}");
    }
}

#[test]
fn a_session_hears_itself_before_the_end_of_its_request() {
    let (proxy, database) = narrow();
    let mut client = proxy.session(&database);
    succeed(&mut client, "listen news");
    for at in 0..20 {
        let reply = client.query(&format!("notify news, 'alone {at}'"));
        assert_eq!(reply.shape(), "CAZ");
        succeed(&mut client, "begin");
        succeed(&mut client, "notify news, 'in a transaction'");
        assert_eq!(client.query("commit").shape(), "CAZ");
        succeed(&mut client, "begin");
        succeed(&mut client, "notify news, 'in vain'");
        assert_eq!(client.query("rollback").shape(), "CZ");
    }
}

#[test]
fn a_listener_whose_connection_was_lost_is_told_so() {
    let (proxy, database) = narrow();
    let (mut listener, mut other) = (proxy.session(&database), proxy.session(&database));
    succeed(&mut listener, "listen news");
    cluster().primary.session(&database).rows(
        "select pg_terminate_backend(pid) from pg_stat_activity
         where query ilike '%listen%' and query not ilike '%pg_stat_activity%' and datname = current_database()",
    );
    let last = listener.until_closed().pop().unwrap();
    assert_eq!((last.field(b'S').as_deref(), last.field(b'C').as_deref()), (Some("FATAL"), Some("57P01")));
    assert_eq!(other.value("select 1"), "1");
    succeed(&mut other, "listen news");
    succeed(&mut cluster().primary.session(&database), "notify news, 'again'");
    assert_eq!(notified(&mut other), of("news", "again"));
}

#[test]
fn a_base_backup_is_taken_through_the_proxy() {
    let database = cluster().database();
    let builder = Proxy::of(cluster(), &database).set("default_pool_size", 1);
    // So is the database called that a physical replication connection asks for.
    let proxy = builder.database("replication", cluster().primary.port, "dbname=postgres").start();
    let target = scratch::scratch().directory("backup");
    let mut command = programs::command(&programs::postgres_program("pg_basebackup"));
    let address = format!("host=127.0.0.1 port={} user=postgres", proxy.port);
    // One connection for the files; the WAL comes with them.
    command.args(["-d", &address, "-X", "fetch", "-c", "fast", "-D"]).arg(target.join("data"));
    programs::run(command);
    assert!(target.join("data/PG_VERSION").exists());
    assert!(proxy.log().contains("replication=physical"));
}

#[test]
fn a_replication_connection_has_its_own_server_which_counts_in_the_pool_and_goes_with_it() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).set("default_pool_size", 1).start();
    let mut walsender = RawClient::connect(&proxy.address());
    let parameters =
        [("user", "postgres"), ("database", &*database), ("replication", "database"), ("application_name", "sender")];
    walsender.log_in(&parameters, "").unwrap();
    assert_eq!(walsender.parameter("application_name"), Some("sender"));
    assert_eq!(walsender.rows("IDENTIFY_SYSTEM")[0][3], database);
    assert_eq!(walsender.rows("SHOW work_mem"), [["4MB"]]);
    assert_eq!(proxy.show("CLIENTS").select("application_name", "sender", "replication"), ["logical"]);

    let mut plain = RawClient::connect(&proxy.address());
    plain.log_in(&[("user", "postgres"), ("database", &database)], "").unwrap();
    let gone = "select count(*) from pg_stat_activity where application_name = 'sender'";
    plain.send(&query(gone));
    assert!(plain.is_silent_for(std::time::Duration::from_millis(300)), "it waits for the place");
    walsender.terminate();
    assert_eq!(plain.reply().rows(), [["0"]]);
}

#[test]
fn a_replication_command_is_cancelled_by_the_clients_key() {
    let (proxy, database) = narrow();
    let mut walsender = RawClient::connect(&proxy.address());
    walsender.log_in(&[("user", "postgres"), ("database", &database), ("replication", "database")], "").unwrap();
    walsender.send(&query("select pg_sleep(30)"));
    let asleep = "select count(*) from pg_stat_activity where query like 'select pg_sleep(30)%' and state = 'active'";
    let mut direct = cluster().primary.session(&database);
    wait_until("it sleeps", || direct.value(asleep) == "1");
    walsender.cancel();
    assert_eq!(walsender.reply().sqlstate(), "57014");
}

#[test]
fn no_more_sessions_than_allowed_keep_a_server_and_none_for_too_long() {
    let database = cluster().database();
    let builder = Proxy::of(cluster(), &database).set("default_pool_size", 3).section("sessions", "max_pinned", 1);
    let proxy = builder.section("sessions", "max_pinned_time", 2).start();
    let (mut first, mut second) = (proxy.session(&database), proxy.session(&database));
    succeed(&mut first, "create temp table scratch(v int)");
    second.send(&query("create temp table scratch(v int)"));
    let last = second.until_closed().pop().unwrap();
    assert_eq!((last.field(b'C').as_deref(), last.field(b'S').as_deref()), (Some("53300"), Some("FATAL")));
    assert_eq!(proxy.show("PINS").select("database", &database, "reason"), ["temp_table"]);
    let last = first.until_closed().pop().unwrap();
    let text = last.field(b'M').unwrap();
    assert!(text.contains("max_pinned_time"), "{text}");
    let mut third = proxy.session(&database);
    succeed(&mut third, "create temp table scratch(v int)");
    succeed(&mut third, "drop table scratch");
    wait_until("nobody keeps one", || proxy.show("PINS").rows.is_empty());
}

#[test]
fn a_setting_of_ones_own_making_follows_its_session_however_it_was_made() {
    let (proxy, database) = narrow();
    let mut client = begun_with(&proxy, &database, &[("options", "-c app.tenant=acme")]);
    let mut neighbour = proxy.session(&database);
    let tenant = "select coalesce(current_setting('app.tenant', true), '')";
    for (set, value) in [
        ("set work_mem = '5MB'", "acme"),
        ("set \"app\".\"tenant\" = 'quoted'", "quoted"),
        ("set/**/app.tenant = 'commented'", "commented"),
        ("select set_config('app.' || 'tenant', 'computed', false)", "computed"),
    ] {
        succeed(&mut client, set);
        if value != "computed" {
            assert_eq!(neighbour.value(tenant), "", "behind {set}");
        }
        assert_eq!(client.value(tenant), value, "{set}");
    }
    // Nobody can know what a computed name was: the session keeps its server, which is cleaned behind it.
    assert_eq!(proxy.show("PINS").select("database", &database, "reason"), ["unnamed_parameter"]);
    client.terminate();
    assert_eq!(neighbour.value(tenant), "");
}

#[test]
fn what_a_view_or_a_function_sets_that_promises_to_change_nothing_follows_its_session() {
    let (proxy, database) = narrow();
    cluster().prepare(
        &database,
        "create view as_one as select set_config('app.one', 'here', false);
         create function as_two() returns text stable language sql
             begin atomic select set_config('app.two', 'here', false); end;
         create function as_three() returns text immutable language plpgsql as
             $$ begin return set_config('app.three', 'here', false); end $$",
    );
    let (mut client, mut neighbour) = (proxy.session(&database), proxy.session(&database));
    // The names are learnt with the catalog.
    wait_until("it is read again", || {
        let told = proxy.show(&format!("ROUTE FOR {database} table as_one"));
        told.rows[0][told.position("relations")].contains("as_one")
    });
    for (set, name) in [("table as_one", "one"), ("select as_two()", "two"), ("select as_three()", "three")] {
        succeed(&mut client, set);
        let value = format!("select coalesce(current_setting('app.{name}', true), '')");
        assert_eq!(neighbour.value(&value), "", "{set}");
        assert_eq!(client.value(&value), "here", "{set}");
    }
}

#[test]
fn what_is_discarded_behind_an_opaque_statement_stays_discarded() {
    let (proxy, database) = narrow();
    cluster().prepare(
        &database,
        "create function log_in_as(text) returns void language plpgsql as $$ begin
            perform set_config('app.tenant', $1, false); end $$",
    );
    let (mut client, mut neighbour) = (proxy.session(&database), proxy.session(&database));
    for reset in ["discard all", "reset all"] {
        client.send(&[query("select log_in_as('a')"), query(reset)].concat());
        client.until(b'Z');
        client.until(b'Z');
        neighbour.rows("select 1");
        assert_eq!(client.value("select coalesce(current_setting('app.tenant', true), '')"), "", "{reset}");
    }
}

#[test]
fn a_session_that_begins_as_another_role_may_leave_it_and_nobody_else_does() {
    let database = cluster().database();
    let admin = |sql: &str| _ = cluster().primary.session("postgres").rows(sql);
    admin("grant stranger to app");
    admin(&format!("alter role app in database {database} set role = stranger"));
    let proxy = Proxy::of(cluster(), &database).set("default_pool_size", 1).cached().start();
    let (mut client, mut neighbour) = (proxy.session(&database), proxy.session(&database));
    let mut direct = RawClient::session(&cluster().primary.address(), USER, &database);
    for statement in [
        "set role none",
        "reset role",
        "set role none",
        "reset all",
        "set session authorization default",
        "set role app",
        "discard all",
        "set role none",
        "set work_mem = '5MB'",
        "select set_config('role', 'stranger', false)",
        "begin; set role none",
        "rollback",
        "begin; set local role none; commit",
    ] {
        assert!(direct.query(statement).error().is_none(), "{statement}");
        assert!(client.query(statement).error().is_none(), "{statement}");
        let role = direct.value("select current_user");
        for _ in 0..2 {
            assert_eq!(client.value("select current_user"), role, "{statement}");
            if !statement.starts_with("begin; set role") {
                assert_eq!(neighbour.value("select current_user"), "stranger", "the neighbour, behind {statement}");
            }
        }
    }
}

#[test]
fn settings_are_read_in_the_encoding_of_their_own_session() {
    let (proxy, database) = narrow();
    let (mut client, mut neighbour) = (proxy.session(&database), proxy.session(&database));
    succeed(&mut client, "set app.city = 'Zürich'");
    for _ in 0..2 {
        succeed(&mut neighbour, "set client_encoding = latin1");
        assert_eq!(client.value("select current_setting('app.city')"), "Zürich");
        succeed(&mut client, "set role none");
    }
}

#[test]
fn a_server_that_says_why_it_goes_is_heard_once() {
    let (proxy, database) = narrow();
    let mut client = proxy.session(&database);
    client.send(&query("select pg_terminate_backend(pg_backend_pid())"));
    let frames = client.until_closed();
    let errors: Vec<_> = frames.iter().filter(|frame| frame.tag == b'E').collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0].field(b'C').as_deref(), Some("57P01"));
}

#[test]
fn a_statement_prepared_by_a_message_can_be_deallocated_by_sql() {
    let (proxy, database) = narrow();
    let (mut client, mut neighbour) = (proxy.session(&database), proxy.session(&database));
    for block in [false, true] {
        client.prepare("One", "select 1");
        client.prepare("two", "select 2");
        neighbour.rows("select 1");
        if block {
            succeed(&mut client, "begin");
        }
        assert_eq!(client.query("deallocate \"One\"").status(), if block { 'T' } else { 'I' });
        assert_eq!(client.extended("deallocate TWO", &[]).tags(), ["DEALLOCATE"]);
        for name in ["One", "two"] {
            if !block {
                assert_eq!(client.execute(name, &[]).sqlstate(), "26000");
            }
            succeed(&mut client, "select 1");
        }
        if block {
            succeed(&mut client, "commit");
        }
        assert_eq!(client.prepare("One", "select 3").sqlstate(), "");
        assert_eq!(client.execute("One", &[]).rows(), [["3"]]);
        succeed(&mut client, "deallocate \"One\"");
    }
    assert_eq!(client.query("deallocate nobody").sqlstate(), "26000");
}

#[test]
fn a_driver_that_describes_before_it_executes_listens_without_a_server() {
    let (proxy, database) = narrow();
    let mut client = proxy.session(&database);
    for (name, statement) in [("", "listen news"), ("named", "listen more")] {
        client.send(&[parse(name, statement), describe_statement(name), flush()].concat());
        let described: Vec<_> = (0..3).map(|_| client.frame().tag).collect();
        assert_eq!(described, *b"1tn");
        assert_eq!(client.exchange(&[bind(name, &[]), execute("", 0), sync()].concat()).tags(), ["LISTEN"]);
    }
    assert_eq!(proxy.show("PINS").rows.len(), 0);
    succeed(&mut cluster().primary.session(&database), "notify more, 'heard'");
    assert_eq!(notified(&mut client), of("more", "heard"));
    // In a transaction, and in parts, the server is asked.
    succeed(&mut client, "begin");
    client.send(&[parse("", "listen third"), describe_statement(""), flush()].concat());
    let described: Vec<_> = (0..3).map(|_| client.frame().tag).collect();
    assert_eq!(described, *b"1tn");
    assert_eq!(client.exchange(&[bind("", &[]), execute("", 0), sync()].concat()).tags(), ["LISTEN"]);
    succeed(&mut client, "commit");
    assert_eq!(client.value("select pg_listening_channels()"), "third");
}

#[test]
fn a_timeout_too_short_for_our_own_questions_keeps_the_server_and_loses_nothing() {
    let (proxy, database) = narrow();
    let mut client = proxy.session(&database);
    succeed(&mut client, "begin; create temp table scratch(v int); set statement_timeout = 1; commit");
    for _ in 0..20 {
        assert_eq!(client.query("select count(*) from scratch").status(), 'I');
    }
    assert_eq!(client.query("select pg_sleep(1)").sqlstate(), "57014");
    client.terminate();
    assert_eq!(proxy.session(&database).value("show statement_timeout"), "0");
}

#[test]
fn an_error_behind_messages_without_sync_or_flush_is_told_before_they_come() {
    let (proxy, database) = narrow();
    let mut client = proxy.session(&database);
    let batch = |sql: &str| [parse("", sql), bind("", &[]), execute("", 0)].concat();
    for begin in ["select 1", "begin"] {
        client.query(begin);
        client.send(&batch("select 1/0"));
        let answers = client.until(b'E');
        assert_eq!(answers.last().unwrap().field(b'C').as_deref(), Some("22012"), "{begin}");
        // What follows up to Sync is skipped.
        client.send(&[batch("select 2"), sync()].concat());
        assert_eq!(client.reply().shape(), "Z", "{begin}");
        client.query("rollback");
    }
    assert_eq!(proxy.session(&database).value("select 3"), "3");
}

#[test]
fn a_copy_begins_without_sync_or_flush() {
    let (proxy, database) = narrow();
    let mut client = proxy.session(&database);
    succeed(&mut client, "create table copied (a int)");
    client.send(&[parse("", "copy copied from stdin"), bind("", &[]), execute("", 0)].concat());
    assert_eq!(client.until(b'G').len(), 3);
    client.send(&[copy_data(b"7\n"), copy_done(), sync()].concat());
    assert_eq!(client.reply().shape(), "CZ");
    assert_eq!(proxy.session(&database).value("select a from copied"), "7");
}

#[test]
fn a_pipeline_in_pieces_that_come_late_is_one_transaction() {
    let (proxy, database) = narrow();
    let (mut client, mut other) = (proxy.session(&database), cluster().primary.session(&database));
    succeed(&mut client, "create table late (a int)");
    let batch = |sql: &str| [parse("", sql), bind("", &[]), execute("", 0)].concat();
    client.send(&batch("insert into late values (1)"));
    // The server has it, though the client has not said that it is all.
    let running = "select count(*) from pg_stat_activity where query like 'insert into late%' and datname = $$";
    let running = format!("{running}{database}$$");
    wait_until("the first piece has arrived", || other.value(&running) == "1");
    assert_eq!(other.value("select count(*) from late"), "0");
    client.send(&[batch("select 1/0"), sync()].concat());
    assert_eq!(client.reply().sqlstate(), "22012");
    assert_eq!(other.value("select count(*) from late"), "0");
    assert_eq!(proxy.servers(&database).len(), 1);
}

/// A table whose rows are numbered, in a database of its own.
fn numbered(servers: u32) -> (Proxy, String) {
    let database = cluster().database();
    let mut owner = cluster().primary.session(&database);
    owner.rows("create table numbered (id serial, a int); grant all on all tables in schema public to public");
    owner.rows("grant all on all sequences in schema public to public");
    (Proxy::of(cluster(), &database).set("default_pool_size", servers).set("query_wait_timeout", 20).start(), database)
}

#[test]
fn whoever_asks_for_a_sequences_value_keeps_the_server_that_knows_it() {
    let (proxy, database) = numbered(2);
    let (mut client, mut neighbour) = (proxy.session(&database), proxy.session(&database));
    let insert = "insert into numbered (a) values (1) returning id";
    // Nobody has used the server since.
    let number = client.value(insert);
    assert_eq!(client.value("select lastval()"), number);
    // Known from now on: both keep theirs.
    let theirs = neighbour.value(insert);
    let number = client.value(insert);
    assert_eq!(client.value("select currval('numbered_id_seq')"), number);
    assert_eq!(neighbour.extended("select lastval()", &[]).rows()[0][0], theirs);
    assert_eq!(proxy.show("PINS").column("reason"), ["sequence", "sequence"]);
    for forget in ["discard sequences", "reset all; discard sequences", "discard all"] {
        succeed(&mut client, insert);
        succeed(&mut client, forget);
        assert_eq!(proxy.show("PINS").column("reason"), ["sequence"], "{forget}");
        assert_eq!(client.query("select lastval()").sqlstate(), "55000", "{forget}");
    }
}

#[test]
fn a_sequences_value_asked_for_where_nextval_was_called_keeps_no_server() {
    let (proxy, database) = numbered(1);
    let (mut client, mut neighbour) = (proxy.session(&database), proxy.session(&database));
    let insert = "insert into numbered (a) values (1) returning id";
    for _ in 0..3 {
        neighbour.value(insert);
        succeed(&mut client, "begin");
        let number = client.value(insert);
        assert_eq!(client.value("select lastval()"), number);
        assert_eq!(client.extended("select currval('numbered_id_seq')", &[]).rows(), [[number]]);
        succeed(&mut client, "commit");
        succeed(&mut client, "begin; insert into numbered (a) values (1); select lastval(); commit");
        succeed(&mut client, "insert into numbered (a) values (1); select lastval()");
    }
    assert!(proxy.show("PINS").rows.is_empty());
}

#[test]
fn a_neighbours_sequence_values_are_never_told() {
    let ask = "select lastval()";
    for asking in [&[ask][..], &["begin", ask, "rollback"], &["begin; select 1", ask, "rollback"]] {
        let told = |client: &mut RawClient| asking.iter().map(|sql| client.query(sql).sqlstate()).collect::<Vec<_>>();
        let (proxy, database) = numbered(1);
        let mut direct = cluster().primary.session(&database);
        let (mut client, mut neighbour) = (proxy.session(&database), proxy.session(&database));
        // It may have called nextval(), elsewhere as far as it knows.
        succeed(&mut client, "insert into numbered (a) values (1)");
        succeed(&mut neighbour, "insert into numbered (a) values (1)");
        assert_eq!(told(&mut client), told(&mut direct));
        assert_eq!(client.query("update numbered set a = currval('numbered_id_seq')").sqlstate(), "55000");
        assert_eq!(client.extended(ask, &[]).sqlstate(), "55000");
        assert_eq!(proxy.servers(&database).len(), 1);
    }
}

/// A database of its own behind one server connection, with more settings.
fn narrow_with(configure: impl FnOnce(Builder, &str) -> Builder) -> (Proxy, String) {
    let database = cluster().database();
    let builder = Proxy::of(cluster(), &database).set("default_pool_size", 1).set("query_wait_timeout", 20);
    (configure(builder, &database).start(), database)
}

#[test]
fn what_connect_query_has_set_stays_whatever_clients_set() {
    let query = "connect_query='set search_path = pg_catalog; set role stranger; set my.origin = ''pool'''";
    let (proxy, database) = narrow_with(|builder, database| builder.database(database, cluster().primary.port, query));
    cluster().primary.session("postgres").rows("grant stranger to app");
    let begun = "select current_setting('search_path'), current_user, current_setting('my.origin')";
    let expected = [["pg_catalog", "stranger", "pool"]];
    let (mut client, mut neighbour) = (proxy.session(&database), proxy.session(&database));
    for change in [
        "set work_mem = '8MB'",
        "set search_path = public",
        "set role app",
        "reset all",
        "discard all",
        "select set_config('my.origin', 'client', false)",
    ] {
        assert_eq!(neighbour.rows(begun), expected, "{change}");
        succeed(&mut client, change);
        assert_eq!(neighbour.rows(begun), expected, "behind {change}");
    }
    // Cleaned behind one who was pinned.
    succeed(&mut client, "select pg_advisory_lock(1)");
    client.terminate();
    assert_eq!(neighbour.rows(begun), expected);
    assert_eq!(proxy.servers(&database).len(), 1);
}

#[test]
fn a_server_is_cleaned_behind_a_pinned_client_whatever_server_reset_query_says() {
    for query in ["", "reset all"] {
        let (proxy, database) = narrow_with(|builder, _| builder.set("server_reset_query", query));
        let mut neighbour = proxy.session(&database);
        neighbour.prepare("kept", "select 7");
        let mut client = proxy.session(&database);
        succeed(&mut client, "create temp table left_behind (a int); select pg_advisory_lock(1)");
        client.terminate();
        assert_eq!(neighbour.execute("kept", &[]).rows(), [["7"]], "{query}");
        assert_eq!(neighbour.value("select to_regclass('left_behind') is null"), "t", "{query}");
        let locks = "select count(*) from pg_locks where locktype = 'advisory'
            and database = (select oid from pg_database where datname = current_database())";
        wait_until("the lock is given back", || neighbour.value(locks) == "0");
    }
}

#[test]
fn a_statement_is_prepared_anew_behind_discard_all_and_deallocate_all() {
    for forget in ["discard all", "deallocate all"] {
        let (proxy, database) = narrow();
        let (mut client, mut neighbour) = (proxy.session(&database), proxy.session(&database));
        client.prepare("s", "select 1");
        neighbour.prepare("t", "select 2");
        // The name means another text from then on, which a neighbour has prepared on this server.
        let again = [query(forget), parse("s", "select 2"), bind("s", &[]), execute("", 0), sync()].concat();
        client.send(&again);
        assert!(client.reply().error().is_none());
        assert_eq!(client.reply().rows(), [["2"]], "{forget}");
        for _ in 0..2 {
            assert_eq!(client.execute("s", &[]).rows(), [["2"]], "{forget}");
            assert_eq!(neighbour.execute("t", &[]).rows(), [["2"]], "{forget}");
        }
    }
}

#[test]
fn a_name_that_one_has_not_prepared_never_runs_a_neighbours_statement() {
    let (proxy, database) = narrow();
    let (mut client, mut neighbour) = (proxy.session(&database), proxy.session(&database));
    neighbour.prepare("mine", "select 'secret'");
    for round in 0..2 {
        assert_eq!(neighbour.extended("select 'secret'", &[]).rows(), [["secret"]]);
        assert_eq!(client.execute("", &[]).sqlstate(), "26000", "{round}");
        let names = neighbour.rows("select name from pg_prepared_statements");
        for name in names.iter().map(|row| row[0].as_str()).filter(|name| name.starts_with("pgweir_")) {
            assert_eq!(client.execute(name, &[]).sqlstate(), "26000");
            assert_eq!(client.exchange(&[close_statement(name), sync()].concat()).shape(), "3Z");
        }
        assert_eq!(neighbour.execute("mine", &[]).rows(), [["secret"]], "{round}");
    }
}

#[test]
fn a_statement_parsed_behind_a_setting_under_way_is_nobody_elses() {
    let (proxy, database) = narrow();
    let (mut client, mut neighbour) = (proxy.session(&database), proxy.session(&database));
    let text = "select extract(epoch from timestamptz '1970-01-01 00:00')::int";
    let batch = [parse("s", text), bind("s", &[]), execute("", 0), sync()].concat();
    client.send(&[query("set time zone 'Etc/GMT+5'"), batch.clone()].concat());
    client.reply();
    assert_eq!(client.reply().rows(), [["18000"]]);
    succeed(&mut neighbour, "set time zone 'UTC'");
    assert_eq!(neighbour.exchange(&batch).rows(), [["0"]]);
}

#[test]
fn a_giant_value_comes_behind_what_was_sent_in_front_of_it() {
    let (proxy, database) = narrow();
    let mut client = proxy.session(&database);
    client.prepare("s", "select length($1)");
    // The server forgets it, so that it has to be prepared again in front of the value.
    cluster().primary.session(&database).rows(
        "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app' and datname = current_database()",
    );
    wait_until("the server connection is gone", || proxy.servers(&database).is_empty());
    let value = "x".repeat(2_000_000);
    client.send(&[query("begin"), bind("s", &[&value]), execute("", 0), sync()].concat());
    assert_eq!(client.reply().tags(), ["BEGIN"]);
    assert_eq!(client.reply().rows(), [["2000000"]]);
    succeed(&mut client, "commit");
}

#[test]
fn a_giant_query_of_a_pinned_client_can_be_cancelled() {
    let (proxy, database) = narrow();
    let mut client = proxy.session(&database);
    succeed(&mut client, "create temp table pinning (a int)");
    client.send(&query(&format!("select pg_sleep(60) /* {} */", "x".repeat(2_000_000))));
    loop {
        client.cancel();
        if !client.is_silent_for(std::time::Duration::from_millis(50)) {
            break;
        }
    }
    assert_eq!(client.reply().sqlstate(), "57014");
}

#[test]
fn a_session_goes_on_beside_one_whose_own_statements_time_out() {
    let (proxy, database) = narrow_with(|builder, _| builder.set("default_pool_size", 2));
    let (mut client, mut neighbour) = (proxy.session(&database), proxy.session(&database));
    // What is sent to that server runs into it, often the question for its settings included: then it stays pinned.
    for _ in 0..20 {
        neighbour.query("set statement_timeout = '1ms'");
        assert_eq!(client.value("select 7"), "7");
        let outcome = client.query("select pg_sleep(0.02), current_setting('statement_timeout')");
        assert_eq!(outcome.rows(), [["", "0"]]);
    }
}
