//! RELOAD and SET at run time.

use nix::sys::signal::Signal;

use crate::{
    column, last_words, pooled, refused,
    support::{Proxy, RawClient, cluster, cluster::USER, frames::query, scratch::scratch, wait_until},
    tag,
};

fn value(proxy: &Proxy, key: &str) -> String {
    column(proxy, "CONFIG", ("key", key), "value")
}

/// Adds a line at the end of the main section.
fn add(proxy: &Proxy, line: &str) {
    proxy.rewrite(|text| text.replacen("[pgbouncer]\n", &format!("[pgbouncer]\n{line}\n"), 1));
}

#[test]
fn what_the_file_no_longer_says_goes_back_to_its_default() {
    let (proxy, _) = pooled(7);
    add(&proxy, "query_wait_timeout = 33");
    proxy.tell("RELOAD");
    assert_eq!((value(&proxy, "query_wait_timeout"), value(&proxy, "default_pool_size")), ("33".into(), "7".into()));
    proxy.rewrite(|text| text.replace("query_wait_timeout = 33\n", "").replace("default_pool_size = 7\n", ""));
    proxy.tell("RELOAD");
    assert_eq!((value(&proxy, "query_wait_timeout"), value(&proxy, "default_pool_size")), ("120".into(), "20".into()));
}

#[test]
fn what_set_changed_holds_until_the_next_reload() {
    let (proxy, database) = pooled(7);
    for (key, changed) in [("default_pool_size", "3"), ("pool_mode", "statement"), ("max_client_conn", "55")] {
        proxy.tell(&format!("SET {key} = {changed}"));
        assert_eq!(value(&proxy, key), changed);
    }
    assert_eq!(column(&proxy, "DATABASES", ("name", &database), "pool_size"), "3");
    proxy.tell("RELOAD");
    assert_eq!((value(&proxy, "default_pool_size"), value(&proxy, "pool_mode")), ("7".into(), "transaction".into()));
}

#[test]
fn keys_that_apply_at_start_keep_their_value_without_a_word() {
    let (proxy, database) = pooled(2);
    let shown = proxy.show("CONFIG");
    let port = proxy.port.to_string();
    let fixed = "listen_addr listen_port unix_socket_dir unix_socket_mode unix_socket_group listen_backlog user pidfile \
                 job_name so_reuseport resolv_conf track_extra_parameters disable_pqexec pkt_buf";
    for key in fixed.split_whitespace() {
        assert_eq!(shown.select("key", key, "changeable"), ["no"], "{key}");
    }
    let pgbouncers = |key: &String| !key.contains('.') && !["workers", "log_format"].contains(&key.as_str());
    let mut unchangeable: Vec<_> = shown.select("changeable", "no", "key").into_iter().filter(pgbouncers).collect();
    unchangeable.sort();
    let mut expected: Vec<_> = fixed.split_whitespace().map(str::to_owned).collect();
    expected.sort();
    assert_eq!(unchangeable, expected);
    proxy.rewrite(|text| text.replace(&format!("listen_port = {port}"), "listen_port = 1"));
    add(&proxy, "track_extra_parameters = work_mem");
    assert_eq!(tag(&proxy.tell("RELOAD")), "RELOAD");
    assert_eq!(tag(&proxy.tell("SET listen_port = 2")), "SET listen_port=2");
    assert_eq!((value(&proxy, "listen_port"), value(&proxy, "track_extra_parameters")), (port, "IntervalStyle".into()));
    assert_eq!(proxy.session(&database).value("select 1"), "1");
}

#[test]
fn a_wrong_file_leaves_all_of_the_old_one_in_force() {
    let (proxy, database) = pooled(4);
    let broken = [
        "default_pool_size = 9\nno_such_key = 1",
        "default_pool_size = 9\nquery_timeout = 5s",
        "default_pool_size = 9\n%include /nonexistent/pgweir.ini",
    ];
    for lines in broken {
        let mut whole = String::new();
        proxy.rewrite(|text| {
            whole.clone_from(&text);
            text.replace(&database, "renamed").replace("default_pool_size = 4", lines)
        });
        let error = refused(&mut proxy.console(), "RELOAD");
        assert_eq!(error, ("F0000".into(), "RELOAD failed, see logs for additional details".into()));
        assert_eq!(value(&proxy, "default_pool_size"), "4", "{lines}");
        assert_eq!(proxy.session(&database).value("select 1"), "1");
        proxy.rewrite(|_| whole);
    }
    let log = proxy.log();
    for said in ["no_such_key", "query_timeout", "%include"] {
        assert!(log.lines().any(|line| line.contains(said) && line.contains("pgweir.ini:")), "{said} in {log}");
    }
    proxy.tell("RELOAD");
}

#[test]
fn the_clients_of_a_database_that_is_gone_are_told_so() {
    let (proxy, database) = pooled(2);
    let (mut idle, mut busy) = (proxy.session(&database), proxy.session(&database));
    busy.query("begin");
    proxy.rewrite(|text| text.replace(&format!("{database} = "), "another = "));
    proxy.tell("RELOAD");
    for client in [&mut idle, &mut busy] {
        assert_eq!(last_words(client), ("57P01".into(), "database removed".into()));
    }
    let mut late = RawClient::connect(&proxy.address());
    let error = late.log_in(&[("user", USER), ("database", &database)], "").unwrap_err();
    assert_eq!(error.field(b'M').unwrap(), format!("no such database: {database}"));
    wait_until("its servers are gone", || proxy.servers(&database).is_empty());
}

#[test]
fn limits_and_passwords_change_without_a_new_connection_and_another_server_replaces_them() {
    let (proxy, database) = pooled(2);
    let (mut client, mut busy) = (proxy.session(&database), proxy.session(&database));
    let first = client.value("select pg_backend_pid()");
    for parameters in ["pool_size=5", "pool_size=3 query_wait_timeout=9 password=other"] {
        proxy.rewrite(|text| {
            let line = text.lines().find(|line| line.starts_with(&format!("{database} = "))).unwrap().to_owned();
            text.replace(&line, &format!("{database} = host=127.0.0.1 port={} {parameters}", cluster().primary.port))
        });
        proxy.tell("RELOAD");
        assert_eq!(client.value("select pg_backend_pid()"), first, "{parameters}");
    }
    assert_eq!(column(&proxy, "DATABASES", ("name", &database), "pool_size"), "3");
    busy.query("begin");
    let held = busy.value("select pg_backend_pid()");
    proxy.rewrite(|text| text.replace("password=other", "connect_query='select 1'"));
    proxy.tell("RELOAD");
    assert_eq!(proxy.show("SERVERS").select("remote_pid", &held, "close_needed"), ["1"]);
    assert_ne!(client.value("select pg_backend_pid()"), held);
    assert_eq!(busy.value("select pg_backend_pid()"), held, "a transaction ends where it began");
    busy.query("commit");
    // A request that is there already when the transaction ends may still run on the old one.
    wait_until("it has another server", || busy.value("select pg_backend_pid()") != held);
    wait_until("the old ones are closed", || {
        proxy.show("SERVERS").select("database", &database, "close_needed").iter().all(|needed| needed == "0")
    });
}

#[test]
fn a_file_is_reloaded_from_where_conffile_says() {
    let (proxy, _) = pooled(2);
    let other = proxy.home().join("other.ini");
    proxy.rewrite(|text| {
        scratch().write(&other, &text.replace("default_pool_size = 2", "default_pool_size = 6"));
        text
    });
    assert_eq!(value(&proxy, "conffile"), proxy.home().join("pgweir.ini").display().to_string());
    proxy.tell(&format!("SET conffile = '{}'", other.display()));
    proxy.signal(Signal::SIGHUP);
    wait_until("the other file is in force", || value(&proxy, "default_pool_size") == "6");
    proxy.tell("RELOAD");
    assert_eq!(
        (value(&proxy, "default_pool_size"), value(&proxy, "conffile")),
        ("6".into(), other.display().to_string())
    );
}

#[test]
fn the_user_overrides_the_database_and_the_database_the_rest() {
    let database = cluster().database();
    let port = cluster().primary.port;
    let proxy = Proxy::of(cluster(), &database)
        .set("pool_mode", "session")
        .section(
            "databases",
            "by_database",
            format!("host=127.0.0.1 port={port} dbname={database} pool_mode=transaction"),
        )
        .section("users", "stranger", "pool_mode=statement")
        .start();
    let users = [
        (USER, database.as_str(), "session"),
        (USER, "by_database", "transaction"),
        ("stranger", "by_database", "statement"),
    ];
    for (user, name, mode) in users {
        let mut client = RawClient::session(&proxy.address(), user, name);
        assert_eq!(client.value("select 1"), "1");
        let pools = proxy.show("POOLS");
        let row = pools.rows.iter().find(|row| row[0] == name && row[1] == user).unwrap();
        assert_eq!(row[15], mode);
        if mode == "statement" {
            client.send(&query("begin"));
            assert_eq!(last_words(&mut client).1, "transaction blocks not allowed in statement pooling mode");
        } else {
            assert_eq!(client.query("begin").status(), 'T');
        }
    }
}
