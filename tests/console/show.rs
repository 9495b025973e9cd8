//! Tables, made-up parameters, and who may read them in which protocol.

use crate::{
    column, pooled, refused,
    support::{
        Proxy, RawClient, cluster,
        cluster::{PASSWORD, USER},
        frames::{bind, describe_portal, execute, parse, query, sync},
        programs,
        proxy::{ADMIN, Table},
        wait_until,
    },
    tag,
};

const CONNECTION: &str = "type:s user:s database:s replication:s state:s addr:s port:i local_addr:s local_port:i \
    connect_time:s request_time:s wait:i wait_us:i close_needed:i ptr:s link:s remote_pid:i tls:s application_name:s \
    prepared_statements:i id:i";

/// Names of the columns, and `s` for text, `i` for int4, `q` for int8, `N` for numeric, as the wire tells them.
#[track_caller]
fn check(console: &mut RawClient, what: &str, expected: &str) {
    let reply = console.query(&format!("SHOW {what}"));
    assert_eq!(tag(&reply), "SHOW");
    let described = reply.frames.iter().find(|frame| frame.tag == b'T').unwrap();
    let letter = |oid: u32| match oid {
        25 => 's',
        23 => 'i',
        20 => 'q',
        1700 => 'N',
        other => panic!("{what}: type {other}"),
    };
    let columns: Vec<_> =
        described.columns_and_types().into_iter().map(|(name, oid)| format!("{name}:{}", letter(oid))).collect();
    assert_eq!(columns, expected.split_whitespace().collect::<Vec<_>>(), "{what}");
    assert!(reply.rows().iter().all(|row| row.len() == columns.len()));
}

#[test]
fn every_table_has_pgbouncers_columns_types_and_order() {
    let (proxy, database) = pooled(2);
    proxy.session(&database).rows("select 1");
    let mut console = proxy.console();
    check(
        &mut console,
        "STATS",
        "database:s total_server_assignment_count:N total_xact_count:N total_query_count:N total_received:N \
         total_sent:N total_xact_time:N total_query_time:N total_wait_time:N total_client_parse_count:N \
         total_server_parse_count:N total_bind_count:N total_client_login_count:N avg_server_assignment_count:N \
         avg_xact_count:N avg_query_count:N avg_recv:N avg_sent:N avg_xact_time:N avg_query_time:N avg_wait_time:N \
         avg_client_parse_count:N avg_server_parse_count:N avg_bind_count:N avg_client_login_count:N",
    );
    check(
        &mut console,
        "STATS_TOTALS",
        "database:s server_assignment_count:N xact_count:N query_count:N bytes_received:N bytes_sent:N xact_time:N \
         query_time:N wait_time:N client_parse_count:N server_parse_count:N bind_count:N client_login_count:N",
    );
    check(
        &mut console,
        "STATS_AVERAGES",
        "database:s server_assignment_count:N xact_count:N query_count:N bytes_received:N bytes_sent:N xact_time:N \
         query_time:N wait_time:N avg_client_parse_count:N avg_server_parse_count:N avg_bind_count:N \
         avg_client_login_count:N",
    );
    check(&mut console, "TOTALS", "name:s value:N");
    check(
        &mut console,
        "POOLS",
        "database:s user:s cl_active:i cl_waiting:i cl_active_cancel_req:i cl_waiting_cancel_req:i sv_active:i \
         sv_active_cancel:i sv_being_canceled:i sv_idle:i sv_used:i sv_tested:i sv_login:i maxwait:i maxwait_us:i \
         pool_mode:s load_balance_hosts:s",
    );
    check(
        &mut console,
        "DATABASES",
        "name:s host:s port:i database:s force_user:s pool_size:i min_pool_size:i reserve_pool_size:i \
         server_lifetime:i pool_mode:s load_balance_hosts:s max_connections:i current_connections:i \
         max_client_connections:i current_client_connections:i paused:i disabled:i",
    );
    check(&mut console, "CLIENTS", CONNECTION);
    check(&mut console, "SERVERS", CONNECTION);
    let buffers = "recv_pos:i pkt_pos:i pkt_remain:i send_pos:i send_remain:i pkt_avail:i send_avail:i";
    for what in ["SOCKETS", "ACTIVE_SOCKETS"] {
        check(&mut console, what, &format!("{CONNECTION} {buffers}"));
    }
    check(&mut console, "LISTS", "list:s items:i");
    check(
        &mut console,
        "USERS",
        "name:s pool_size:s reserve_pool_size:s pool_mode:s max_user_connections:i current_connections:i \
         max_user_client_connections:i current_client_connections:i",
    );
    check(&mut console, "CONFIG", "key:s value:s default:s changeable:s");
    check(&mut console, "PEERS", "peer_id:i host:s port:i pool_size:i");
    check(
        &mut console,
        "PEER_POOLS",
        "peer_id:i cl_active_cancel_req:i cl_waiting_cancel_req:i sv_active_cancel:i sv_login:i",
    );
    check(&mut console, "STATE", "key:s value:s");
    check(&mut console, "MEM", "name:s size:i used:i free:i memtotal:i");
    check(&mut console, "DNS_HOSTS", "hostname:s ttl:q addrs:s");
    check(&mut console, "DNS_ZONES", "zonename:s serial:q count:i");
    check(&mut console, "VERSION", "version:s");
}

#[test]
fn the_statistics_lose_the_columns_that_1_25_2_lacks_where_that_is_asked_for() {
    let (proxy, database) = pooled(1);
    proxy.session(&database).rows("select 1");
    assert_eq!(proxy.show("STATS").columns.len(), 25);
    proxy.tell("SET stats_columns = 23");
    for (what, count) in [("STATS", 23), ("STATS_TOTALS", 12), ("STATS_AVERAGES", 12)] {
        let table = proxy.show(what);
        assert_eq!(table.columns.len(), count);
        assert!(!table.columns.iter().any(|column| column.contains("login")), "{what}");
        assert!(table.rows.iter().all(|row| row.len() == count));
    }
    assert_eq!(proxy.show("TOTALS").rows.len(), 22);
    let described = proxy.console().extended("SHOW STATS", &[]);
    assert_eq!(Table::of(&described).columns.len(), 23);
}

#[test]
fn lists_has_pgbouncers_rows_in_its_order() {
    let (proxy, database) = pooled(2);
    let _client = proxy.session(&database);
    let settled = || proxy.show("LISTS").number("list", "used_clients", "items") == 2;
    wait_until("only this client and the console are here", settled);
    let table = proxy.show("LISTS");
    let rows: Vec<_> = table.rows.iter().map(|row| row[0].as_str()).collect();
    let expected = "databases users peers pools peer_pools free_clients used_clients login_clients free_servers \
                    used_servers dns_names dns_zones dns_queries dns_pending";
    assert_eq!(rows, expected.split(' ').collect::<Vec<_>>());
    for (list, items) in [("databases", 2), ("pools", 2), ("used_servers", 1)] {
        assert_eq!(table.number("list", list, "items"), items, "{list}");
    }
}

#[test]
fn the_console_has_a_row_in_pools_databases_clients_and_stats() {
    let (proxy, database) = pooled(2);
    let _client = proxy.session(&database);
    let _two = [proxy.console(), RawClient::session(&proxy.address(), ADMIN, "pgweir")];
    let row = || proxy.show("POOLS").rows.into_iter().find(|row| row[0] == "pgbouncer").unwrap().join(" ");
    // The console that was asked last may still be closing.
    wait_until("three are there", || row() == "pgbouncer pgbouncer 3 0 0 0 0 0 0 0 0 0 0 0 0 statement NULL");
    let row = proxy.show("DATABASES").rows.into_iter().find(|row| row[0] == "pgbouncer").unwrap();
    assert_eq!(row[..6], ["pgbouncer", "NULL", &proxy.port.to_string(), "pgbouncer", "pgbouncer", "2"]);
    assert!(proxy.show("DATABASES").rows.iter().map(|row| &row[0]).collect::<Vec<_>>().is_sorted());
    wait_until("all three are shown", || proxy.show("CLIENTS").select("user", ADMIN, "state").len() == 3);
}

#[test]
fn clients_and_servers_are_shown_in_their_states_and_linked_to_each_other() {
    let (proxy, database) = pooled(1);
    let (mut active, mut waiting) = (proxy.session(&database), proxy.session(&database));
    let states = |what: &str| {
        let mut states = proxy.show(what).select("database", &database, "state");
        states.sort();
        states.join(" ")
    };
    wait_until("both are there", || states("CLIENTS") == "idle idle" && states("SERVERS") == "idle");
    active.query("begin");
    waiting.send(&query("select 1"));
    wait_until("it waits", || states("CLIENTS") == "active waiting");
    assert_eq!(states("SERVERS"), "active");
    assert_eq!(states("SOCKETS"), "cl_active cl_waiting sv_active");
    let (clients, servers) = (proxy.show("CLIENTS"), proxy.show("SERVERS"));
    assert_eq!(clients.select("state", "active", "link"), servers.select("database", &database, "ptr"));
    assert_eq!(clients.select("state", "active", "ptr"), servers.select("database", &database, "link"));
    assert_eq!(clients.select("state", "waiting", "link"), [""]);
    let pid = active.value("select pg_backend_pid()");
    assert_eq!(servers.select("database", &database, "remote_pid"), [pid]);
    wait_until("it has waited a while", || {
        proxy.show("POOLS").number("database", &database, "maxwait_us") > 0
            && proxy.show("CLIENTS").number("state", "waiting", "wait_us") > 0
    });
    for row in clients.rows.iter().chain(&servers.rows) {
        assert!(row[9].ends_with(" UTC") && row[9].len() == "2026-11-21 11:42:21 UTC".len(), "{row:?}");
    }
    let ids = |table: &Table| -> Vec<i64> {
        table.select("database", &database, "id").iter().map(|id| id.parse().unwrap()).collect()
    };
    assert!(ids(&clients)[0] < ids(&servers)[0], "the client was there before the server that it needed");
}

#[test]
fn users_are_those_of_the_files_of_databases_and_of_clients() {
    let database = cluster().database();
    let forced = format!("host=127.0.0.1 port={} dbname={database} user={USER}", cluster().primary.port);
    let builder = Proxy::builder().section("databases", "forced", forced).section(
        "users",
        "limited",
        "pool_size=7 pool_mode=session",
    );
    let proxy = builder.start();
    let mut client = proxy.session("forced");
    client.rows("select 1");
    let users = proxy.show("USERS");
    assert_eq!(users.select("name", "limited", "pool_size"), ["        7"]);
    assert_eq!(users.select("name", "limited", "pool_mode"), ["session"]);
    assert_eq!(users.select("name", USER, "pool_size"), [""]);
    assert_eq!(users.select("name", USER, "pool_mode"), ["NULL"]);
    assert_eq!(users.number("name", USER, "current_client_connections"), 1);
    assert_eq!(users.number("name", USER, "current_connections"), 1);
    for name in [ADMIN, "stranger", "pgbouncer"] {
        assert_eq!(users.select("name", name, "name"), [name]);
    }
    assert_eq!(proxy.show("LISTS").number("list", "users", "items"), users.rows.len() as i64);
}

#[test]
fn hosts_are_shown_as_they_are_written_and_balancing_only_where_there_is_a_list() {
    let port = cluster().primary.port;
    let proxy = Proxy::builder()
        .section("databases", "one", format!("host=127.0.0.1 port={port}"))
        .section("databases", "two", format!("host=127.0.0.1,127.0.0.2 port={port} load_balance_hosts=disable"))
        .section("databases", "local", "dbname=x")
        .start();
    for (name, host, balancing) in
        [("one", "127.0.0.1", "NULL"), ("two", "127.0.0.1,127.0.0.2", "disable"), ("local", "NULL", "NULL")]
    {
        assert_eq!(column(&proxy, "DATABASES", ("name", name), "host"), host);
        assert_eq!(column(&proxy, "DATABASES", ("name", name), "load_balance_hosts"), balancing);
    }
}

#[test]
fn what_drivers_ask_and_set_at_login_is_made_up() {
    let proxy = Proxy::builder().set("stats_users", USER).start();
    let mut console = RawClient::session(&proxy.address(), USER, "pgbouncer");
    for (name, value) in [
        ("client_encoding", "UTF-8"),
        ("default_transaction_isolation", "read committed"),
        ("standard_conforming_strings", "on"),
        ("datestyle", "ISO"),
        ("timezone", "GMT"),
    ] {
        let reply = console.query(&format!("show {}", name.to_uppercase()));
        assert_eq!(Table::of(&reply).columns, [name]);
        assert_eq!(reply.rows(), [[value]]);
        let reply = console.query(&format!("SET {name} TO 'x';"));
        assert_eq!((tag(&reply).as_str(), reply.notices()), ("SET", vec!["SET ignored".to_owned()]));
    }
    assert_eq!(refused(&mut console, "SET query_timeout = 1").1, "admin access needed");
    assert_eq!(refused(&mut console, "SHOW FDS").1, "admin access needed");
    assert_eq!(refused(&mut console, "RELOAD").1, "admin access needed");
    assert_eq!(tag(&console.query("SHOW CONFIG")), "SHOW");
}

#[test]
fn the_login_tells_pgbouncers_parameters_and_no_more() {
    let (proxy, _) = pooled(1);
    let console = proxy.console();
    let told: Vec<_> = console.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expected = [
        ("server_version", "1.25.2/bouncer"),
        ("client_encoding", "UTF8"),
        ("server_encoding", "UTF8"),
        ("DateStyle", "ISO"),
        ("TimeZone", "GMT"),
        ("standard_conforming_strings", "on"),
        ("is_superuser", "on"),
    ];
    assert_eq!(told, expected);
}

#[test]
fn commands_are_read_as_pgbouncers_expressions_read_them() {
    let (proxy, database) = pooled(1);
    let mut console = proxy.console();
    for command in ["SELECT version", "sElEcT \"version\" ; ", "\n show\tVERSION;", "\"show\" version"] {
        assert_eq!(tag(&console.query(command)), "SHOW", "{command:?}");
    }
    let pause = format!("pause\n\"{database}\" ;");
    assert_eq!(tag(&console.query(&pause)), "PAUSE");
    assert_eq!(tag(&console.query(&pause.replace("pause", "RESUME"))), "RESUME");
    for (command, answer) in [
        ("SET query_timeout=5", "SET query_timeout=5"),
        ("set query_timeout to '6.5' ;", "SET query_timeout=6.5"),
        ("SET \"query_timeout\" = \"7\"", "SET query_timeout=7"),
        ("SET server_reset_query = 'select ''it''; '", "SET server_reset_query=select 'it'; "),
        ("SET listen_port = 1", "SET listen_port=1"),
    ] {
        assert_eq!(tag(&console.query(command)), answer, "{command}");
    }
    assert_eq!(column(&proxy, "CONFIG", ("key", "query_timeout"), "value"), "7");
    assert_eq!(column(&proxy, "CONFIG", ("key", "listen_port"), "value"), proxy.port.to_string());
    for command in [
        "",
        ";",
        "SELECT 1",
        "SHOW",
        "SHOW nothing",
        "SHOW VERSION; SHOW VERSION",
        "RELOAD now",
        "BEGIN",
        "SHOW 'version'",
    ] {
        let expected = format!("invalid command '{command}', use SHOW HELP;");
        assert_eq!(refused(&mut console, command), ("08P01".to_owned(), expected), "{command:?}");
    }
    for command in ["SET no_such_key = 1", "SET pool_mode = sessions", "SET log_stats = yes"] {
        assert_eq!(refused(&mut console, command).1, "SET failed", "{command}");
    }
    assert_eq!(refused(&mut console, "SET query_timeout = '1s'").1, "SET failed");
}

#[test]
fn the_extended_protocol_is_answered_in_text_and_binary() {
    let (proxy, _) = pooled(1);
    let mut console = proxy.console();
    let reply = console.extended("SHOW LISTS", &[]);
    assert_eq!((tag(&reply).as_str(), reply.rows().len()), ("SHOW", 14));
    let batch = [parse("s", "RELOAD"), bind("s", &[]), describe_portal(""), execute("", 0), sync()].concat();
    console.send(&batch);
    assert_eq!(console.reply().shape(), "12nCZ");
    console.send(&[parse("", "nonsense"), bind("", &[]), execute("", 0), sync()].concat());
    let reply = console.reply();
    assert_eq!((reply.shape().as_str(), reply.sqlstate().as_str()), ("EZ", "08P01"));
    assert_eq!(tag(&console.query("SHOW VERSION")), "SHOW");
}

#[test]
fn the_processes_own_user_is_an_admin_over_the_unix_socket_without_password() {
    let proxy = Proxy::builder().set("auth_type", "scram-sha-256").set("admin_users", "").start();
    let mut over_tcp = RawClient::connect(&proxy.address());
    let error = over_tcp.log_in(&[("user", "pgbouncer"), ("database", "pgbouncer")], "").unwrap_err();
    assert_eq!(
        (error.field(b'S').unwrap(), error.field(b'M').unwrap()),
        ("FATAL".to_owned(), "not allowed".to_owned())
    );
    // The tests run as root and the proxy as somebody else: psql has to be that somebody.
    let psql = |user: &str| {
        let mut psql = programs::command(&programs::postgres_program("psql"));
        psql.args(["-X", "-A", "-t", "-U", user, "-d", "pgbouncer", "-p", &proxy.port.to_string(), "-h"]);
        psql.arg(proxy.home()).args(["-c", "RELOAD", "-c", "SHOW VERSION"]);
        psql.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).output().unwrap()
    };
    let output = psql("pgbouncer");
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("PgBouncer 1.25.2"));
    assert!(!psql("somebody_else").status.success());
}

#[test]
fn clients_beyond_max_client_conn_are_refused_and_the_console_is_not() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).set("max_client_conn", 1).start();
    wait_until("only the console is here", || column(&proxy, "LISTS", ("list", "used_clients"), "items") == "1");
    let log_in = || {
        let mut client = RawClient::connect(&proxy.address());
        client.log_in(&[("user", USER), ("database", &database)], "").map(|()| client)
    };
    let mut client = None;
    wait_until("the console's place is free", || {
        client = log_in().ok();
        client.is_some()
    });
    let error = log_in().err().unwrap();
    assert_eq!(error.field(b'M').unwrap(), "no more connections allowed (max_client_conn)");
    let _consoles = [proxy.console(), proxy.console()];
    assert_eq!(tag(&proxy.tell("SHOW VERSION")), "SHOW");
}

#[test]
fn a_stranger_is_told_so_before_any_password_is_asked_for() {
    let proxy = Proxy::builder().set("auth_type", "md5").start();
    let mut client = RawClient::connect(&proxy.address());
    client.send(&crate::support::frames::startup(&[("user", USER), ("database", "pgbouncer")]));
    let frames = client.until_closed();
    assert_eq!(frames.iter().map(|frame| frame.tag).collect::<Vec<_>>(), b"E");
    let mut admin = RawClient::connect(&proxy.address());
    assert!(admin.log_in(&[("user", ADMIN), ("database", "pgbouncer")], "wrong").is_err());
    let mut admin = RawClient::connect(&proxy.address());
    admin.log_in(&[("user", ADMIN), ("database", "pgbouncer")], PASSWORD).unwrap();
}
