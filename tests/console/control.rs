//! Commands that act.

use std::time::Duration;

use crate::{
    column, last_words, pooled, refused, refused_reply,
    support::{
        Proxy, RawClient, cluster,
        cluster::USER,
        frames::{cancel_request, query},
        proxy::ADMIN,
        wait_until,
    },
    tag,
};

const INVALID: &str = "08P01";

fn number_of_servers(database: &str) -> i64 {
    let sql =
        format!("select count(*) from pg_stat_activity where datname = '{database}' and application_name = 'counted'");
    cluster().primary.session("postgres").value(&sql).parse().unwrap()
}

/// Sessions on the console, that which asks included.
fn number_of_consoles(proxy: &Proxy) -> usize {
    proxy.show("CLIENTS").select("database", "pgbouncer", "id").len()
}

#[test]
fn pause_answers_when_no_server_connection_is_left_and_nothing_is_lent_until_resume() {
    let (proxy, database) = pooled(3);
    let (mut busy, mut idle) = (proxy.session(&database), proxy.session(&database));
    idle.rows("select 1");
    busy.query("begin");
    let mut console = proxy.console();
    console.send(&query("PAUSE"));
    wait_until("all is paused", || column(&proxy, "STATE", ("key", "paused"), "value") == "yes");
    idle.send(&query("select 'after'"));
    wait_until("it waits", || column(&proxy, "POOLS", ("database", &database), "cl_waiting") == "1");
    assert!(console.is_silent_for(Duration::from_millis(300)));
    assert_eq!(busy.query("commit").tags(), ["COMMIT"]);
    assert_eq!(tag(&console.reply()), "PAUSE");
    assert_eq!(proxy.servers(&database), [""; 0]);
    let again = refused(&mut console, "PAUSE");
    assert_eq!(again, (INVALID.to_owned(), "already suspended/paused".to_owned()));
    assert_eq!(refused(&mut console, &format!("PAUSE {database}")).1, "already suspended/paused");
    assert_eq!(refused(&mut console, "KILL").1, "already suspended/paused");
    assert!(idle.is_silent_for(Duration::from_millis(100)));
    assert_eq!(tag(&console.query("RESUME")), "RESUME");
    assert_eq!(idle.reply().rows(), [["after"]]);
    assert_eq!(refused(&mut console, "RESUME").1, "pooler is not paused/suspended");
    assert_eq!(column(&proxy, "STATE", ("key", "active"), "value"), "yes");
}

#[test]
fn a_database_is_paused_twice_and_stays_so_when_all_are_resumed() {
    let (proxy, database) = pooled(2);
    for _ in 0..2 {
        assert_eq!(tag(&proxy.tell(&format!("PAUSE {database}"))), "PAUSE");
    }
    proxy.tell("PAUSE");
    proxy.tell("RESUME");
    assert_eq!(column(&proxy, "DATABASES", ("name", &database), "paused"), "1");
    proxy.tell(&format!("RESUME {database}"));
    let mut console = proxy.console();
    assert_eq!(refused(&mut console, &format!("RESUME {database}")).1, format!("database {database} is not paused"));
    assert_eq!(refused(&mut console, "RESUME pgbouncer").1, "database pgbouncer is not paused");
}

#[test]
fn a_cancelled_pause_is_taken_back_and_one_whose_console_leaves_is_not() {
    let (proxy, database) = pooled(2);
    let mut busy = proxy.session(&database);
    busy.query("begin");
    for (command, is_paused) in [("PAUSE".to_owned(), false), (format!("PAUSE {database}"), true)] {
        let paused = || match is_paused {
            true => column(&proxy, "DATABASES", ("name", &database), "paused") == "1",
            false => column(&proxy, "STATE", ("key", "paused"), "value") == "yes",
        };
        let mut console = proxy.console();
        console.send(&query(&command));
        wait_until("it is paused", paused);
        RawClient::connect(&proxy.address()).send(&cancel_request(&console.key));
        let reply = console.reply();
        assert_eq!((reply.sqlstate().as_str(), reply.status()), ("57014", 'I'), "{command}");
        assert!(!paused(), "{command}");

        console.send(&query(&command));
        wait_until("it is paused", paused);
        drop(console);
        wait_until("nobody but who asks is on the console", || number_of_consoles(&proxy) == 1);
        assert!(paused(), "{command} outlives its console");
        proxy.tell(&command.replace("PAUSE", "RESUME"));
    }
    assert_eq!(busy.query("commit").tags(), ["COMMIT"]);
}

#[test]
fn a_pause_that_another_operator_ended_is_neither_answered_nor_does_it_end_the_next() {
    let (proxy, database) = pooled(1);
    let mut busy = proxy.session(&database);
    for target in [String::new(), format!(" {database}")] {
        let is_paused = || match target.is_empty() {
            true => column(&proxy, "STATE", ("key", "paused"), "value") == "yes",
            false => column(&proxy, "DATABASES", ("name", &database), "paused") == "1",
        };
        let pause = query(&format!("PAUSE{target}"));
        busy.query("begin");
        let (mut first, mut second) = (proxy.console(), proxy.console());
        first.send(&pause);
        wait_until("it is paused", is_paused);
        second.send(&[query(&format!("RESUME{target}")), pause.clone()].concat());
        assert_eq!(tag(&second.reply()), "RESUME");
        // It comes while the first waits, or just behind that.
        RawClient::connect(&proxy.address()).send(&cancel_request(&first.key));
        let reply = first.reply();
        assert_eq!((reply.sqlstate().as_str(), reply.status()), ("57014", 'I'), "{reply:?}");
        wait_until("the second pause is in force", is_paused);

        // The first operator finds nothing to end by leaving, nor is a pause answered that others have ended.
        drop(first);
        wait_until("the first has left", || number_of_consoles(&proxy) == 2);
        assert!(is_paused());
        proxy.tell(&format!("RESUME{target}"));
        assert_eq!(refused_reply(&second.reply()).1, "resumed by another command");
        assert_eq!(busy.query("commit").tags(), ["COMMIT"]);
    }
}

#[test]
fn a_database_stays_paused_while_one_of_those_who_asked_for_it_wants_it() {
    let (proxy, database) = pooled(1);
    let mut busy = proxy.session(&database);
    busy.query("begin");
    let pause = format!("PAUSE {database}");
    let (mut first, mut second) = (proxy.console(), proxy.console());
    first.send(&query(&pause));
    second.send(&query(&pause));
    let asked = || proxy.log().matches("console command issued: command=PAUSE").count() == 2;
    wait_until("both have asked", asked);
    RawClient::connect(&proxy.address()).send(&cancel_request(&first.key));
    assert_eq!(first.reply().sqlstate(), "57014");
    assert_eq!(column(&proxy, "DATABASES", ("name", &database), "paused"), "1");
    assert_eq!(busy.query("commit").tags(), ["COMMIT"]);
    assert_eq!(tag(&second.reply()), "PAUSE");
}

#[test]
fn kill_ends_clients_and_servers_and_leaves_the_database_paused() {
    let (proxy, database) = pooled(3);
    let (mut idle, mut busy, mut running) =
        (proxy.session(&database), proxy.session(&database), proxy.session(&database));
    idle.rows("select 1");
    busy.query("begin");
    running.send(&query("select pg_sleep(60)"));
    wait_until("it runs", || column(&proxy, "POOLS", ("database", &database), "sv_active") == "2");
    assert_eq!(tag(&proxy.tell(&format!("KILL {database}"))), "KILL");
    assert_eq!(column(&proxy, "CLIENTS", ("database", &database), "id"), "");
    assert_eq!(proxy.servers(&database), [""; 0]);
    for client in [&mut idle, &mut busy, &mut running] {
        assert_eq!(last_words(client), ("57P01".to_owned(), "database removed".to_owned()));
    }
    assert_eq!(column(&proxy, "DATABASES", ("name", &database), "paused"), "1");
    proxy.tell(&format!("RESUME {database}"));
    assert_eq!(proxy.session(&database).value("select 1"), "1");
}

#[test]
fn kill_of_all_leaves_each_database_with_a_pool_paused_by_its_name() {
    let (one, two, unused) = (cluster().database(), cluster().database(), cluster().database());
    let port = cluster().primary.port;
    let proxy = Proxy::of(cluster(), &one).database(&two, port, "").database(&unused, port, "").start();
    let mut clients = [proxy.session(&one), proxy.session(&two)];
    assert_eq!(tag(&proxy.tell("KILL")), "KILL");
    for client in &mut clients {
        assert_eq!(last_words(client).1, "database removed");
    }
    let mut console = proxy.console();
    assert_eq!(refused(&mut console, "RESUME").1, "pooler is not paused/suspended");
    for database in [&one, &two] {
        assert_eq!(column(&proxy, "DATABASES", ("name", database), "paused"), "1");
        assert_eq!(tag(&console.query(&format!("RESUME {database}"))), "RESUME");
    }
    assert_eq!(column(&proxy, "DATABASES", ("name", &unused), "paused"), "0");
}

#[test]
fn one_client_is_killed_by_its_id_whatever_it_does() {
    let (proxy, database) = pooled(1);
    let mut busy = proxy.session(&database);
    busy.query("begin; select 1");
    let mut waiting = proxy.session(&database);
    waiting.send(&query("select 1"));
    wait_until("it waits", || column(&proxy, "POOLS", ("database", &database), "cl_waiting") == "1");
    let mut operator = proxy.console();
    let mut console = proxy.console();
    let id = |state: &str| proxy.show("CLIENTS").select("state", state, "id")[0].clone();
    for (state, client) in [("waiting", &mut waiting), ("active", &mut busy)] {
        let id = id(state);
        assert_eq!(tag(&console.query(&format!("KILL_CLIENT {id}"))), "KILL_CLIENT");
        assert_eq!(last_words(client), ("57P01".to_owned(), "admin forced disconnect".to_owned()));
        assert_eq!(refused(&mut console, &format!("KILL_CLIENT {id}")).1, "client not found");
    }
    let consoles = proxy.show("CLIENTS").select("database", "pgbouncer", "id");
    assert_eq!(tag(&console.query(&format!("KILL_CLIENT {}", consoles[0]))), "KILL_CLIENT");
    assert_eq!(last_words(&mut operator).1, "admin forced disconnect");
    assert_eq!(refused(&mut console, "KILL_CLIENT nobody").1, "invalid client pointer supplied");
    assert_eq!(refused(&mut console, "KILL_CLIENT").1, "invalid client pointer supplied");
    assert_eq!(proxy.session(&database).value("select 1"), "1");
}

#[test]
fn reconnect_replaces_servers_as_they_are_released_and_wait_close_waits_for_that() {
    let database = cluster().database();
    let port = cluster().primary.port;
    let proxy = Proxy::builder().database(&database, port, "application_name=counted").start();
    let (mut idle, mut busy) = (proxy.session(&database), proxy.session(&database));
    busy.query("begin");
    let before = busy.value("select pg_backend_pid()");
    idle.rows("select 1");
    assert_eq!(number_of_servers(&database), 2);
    assert_eq!(tag(&proxy.tell(&format!("RECONNECT {database}"))), "RECONNECT");
    wait_until("the idle one is closed", || number_of_servers(&database) == 1);
    assert_eq!(proxy.show("SERVERS").select("database", &database, "close_needed"), ["1"]);
    let mut console = proxy.console();
    console.send(&query(&format!("WAIT_CLOSE {database}")));
    assert_ne!(idle.value("select pg_backend_pid()"), before, "new ones are opened meanwhile");
    assert!(console.is_silent_for(Duration::from_millis(200)));
    assert_eq!(busy.value("select pg_backend_pid()"), before);
    busy.query("commit");
    assert_eq!(tag(&console.reply()), "WAIT_CLOSE");
    wait_until("it has another server", || busy.value("select pg_backend_pid()") != before);
    for command in ["RECONNECT", "WAIT_CLOSE"] {
        assert_eq!(tag(&console.query(command)), command);
    }
}

#[test]
fn a_disabled_database_refuses_logins_after_authentication_and_keeps_its_clients() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).set("auth_type", "md5").start();
    let tell = |command: &str| {
        let mut console = RawClient::connect(&proxy.address());
        console.log_in(&[("user", ADMIN), ("database", "pgbouncer")], crate::support::cluster::PASSWORD).unwrap();
        console.query(command)
    };
    let log_in = |password: &str| {
        let mut client = RawClient::connect(&proxy.address());
        client.log_in(&[("user", USER), ("database", &database)], password).map(|()| client)
    };
    let password = crate::support::cluster::PASSWORD;
    let mut client = log_in(password).ok().unwrap();
    assert_eq!(tag(&tell(&format!("DISABLE {database}"))), "DISABLE");
    let text = |password: &str| log_in(password).err().unwrap().field(b'M').unwrap();
    assert_eq!(text(password), format!("database \"{database}\" is disabled"));
    assert_eq!(text("wrong"), "password authentication failed");
    assert_eq!(client.value("select 1"), "1");
    assert_eq!(tag(&tell("RELOAD")), "RELOAD");
    assert_eq!(text(password), format!("database \"{database}\" is disabled"));
    assert_eq!(tag(&tell(&format!("ENABLE {database}"))), "ENABLE");
    assert!(log_in(password).is_ok());
}

#[test]
fn a_name_nobody_configured_is_refused_and_one_that_the_fallback_serves_is_not() {
    let (proxy, database) = pooled(1);
    let mut console = proxy.console();
    for command in ["PAUSE", "RESUME", "KILL", "RECONNECT", "WAIT_CLOSE", "DISABLE", "ENABLE"] {
        assert_eq!(
            refused(&mut console, &format!("{command} missing")),
            (INVALID.to_owned(), "no such database: missing".to_owned())
        );
    }
    for (command, verb) in [
        ("PAUSE", "pause"),
        ("KILL", "kill"),
        ("RECONNECT", "reconnect"),
        ("WAIT_CLOSE", "wait in"),
        ("DISABLE", "disable"),
        ("ENABLE", "enable"),
    ] {
        assert_eq!(
            refused(&mut console, &format!("{command} pgbouncer")).1,
            format!("cannot {verb} admin db: pgbouncer")
        );
    }
    for command in ["DISABLE", "ENABLE"] {
        assert_eq!(refused(&mut console, command).1, "a database is required");
    }
    let server = format!("host=127.0.0.1 port={}", cluster().primary.port);
    let proxy = Proxy::builder().section("databases", "*", server).start();
    for command in ["RESUME", "ENABLE"] {
        assert_eq!(
            refused(&mut proxy.console(), &format!("{command} {database}")).1,
            format!("no such database: {database}")
        );
    }
    for command in ["PAUSE", "RESUME", "RECONNECT", "WAIT_CLOSE", "DISABLE", "ENABLE"] {
        proxy.tell(&format!("{command} \"{database}\""));
    }
    assert_eq!(proxy.session(&database).value("select current_database()"), database);
}
