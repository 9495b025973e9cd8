//! The sockets that clients connect to.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    process::Stdio,
};

use crate::support::{
    Proxy, RawClient, cluster,
    cluster::USER,
    programs::{self, unprivileged},
    scratch::{Owned, free_port, scratch},
};

/// A proxy in this directory that listens there and on TCP.
fn listening(home: &std::path::Path, settings: &str) -> Proxy {
    let port = free_port();
    let text = format!(
        "[databases]\n[pgbouncer]\nauth_type = trust\nadmin_users = admin\nlisten_addr = 127.0.0.1\n\
         listen_port = {port}\nunix_socket_dir = {}\n{settings}",
        home.display()
    );
    let file = home.join("pgbouncer.ini");
    scratch().write(&file, &text);
    Proxy::of_file(&file, port)
}

fn file(proxy: &Proxy) -> fs::Metadata {
    fs::metadata(proxy.home().join(format!(".s.PGSQL.{}", proxy.port))).unwrap()
}

#[test]
fn the_unix_socket_has_the_mode_of_the_file() {
    for (settings, mode) in [("", 0o777), ("unix_socket_mode = 0750\n", 0o750)] {
        let proxy = listening(&scratch().directory("mode"), settings);
        assert_eq!(file(&proxy).permissions().mode() & 0o7777, mode);
    }
}

#[test]
fn the_unix_socket_has_the_group_of_the_file_by_name_or_number() {
    // What is made in this directory belongs to another group unless that is changed.
    let Some(user) = unprivileged() else { return };
    let another = 1;
    assert_ne!(user.gid.as_raw(), another);
    let name = nix::unistd::Group::from_gid(user.gid).unwrap().unwrap().name;
    for (setting, group) in
        [(String::new(), another), (name, user.gid.as_raw()), (user.gid.to_string(), user.gid.as_raw())]
    {
        let home = scratch().directory("group");
        std::os::unix::fs::chown(&home, None, Some(another)).unwrap();
        fs::set_permissions(&home, fs::Permissions::from_mode(0o2700)).unwrap();
        let proxy = listening(&home, &format!("unix_socket_group = {setting}\n"));
        assert_eq!(file(&proxy).gid(), group, "{setting}");
        RawClient::connect(&proxy.unix());
    }
}

#[test]
fn a_group_that_is_not_there_keeps_it_from_starting() {
    let mut proxy = Proxy::builder().set("unix_socket_group", "no_such_group").spawn();
    assert_eq!(proxy.wait_for_end().code(), Some(1));
    assert!(proxy.log().contains("there is no group no_such_group"), "{}", proxy.log());
}

#[test]
fn so_many_connections_wait_to_be_accepted_as_the_file_says() {
    for (settings, backlog) in [("", "128"), ("listen_backlog = 57\n", "57")] {
        let proxy = listening(&scratch().directory("backlog"), settings);
        let mut ss = programs::command(&programs::program("ss", "iproute2"));
        ss.args(["-Hltn", &format!("sport = :{}", proxy.port)]);
        let said = programs::run(ss);
        assert_eq!(said.split_whitespace().nth(2), Some(backlog), "{said}");
    }
}

/// A proxy of the database that listens on an abstract socket, in front of this server.
fn hidden(name: &str, database: &str, server: &str) -> Proxy {
    let (home, port) = (scratch().directory("abstract"), free_port());
    // The control plane takes the same way to its server.
    let text = format!(
        "[databases]\n{database} = {server}\n[pgbouncer]\nauth_type = trust\nauth_file = users\nadmin_users = admin\n\
         listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir = @{name}\npool_mode = transaction\n\
         [control]\nuser = postgres\n[cache]\nenabled = 1\n"
    );
    scratch().write(&home.join("pgbouncer.ini"), &text);
    scratch().write(&home.join("users"), &format!("\"{USER}\" \"\"\n\"postgres\" \"\"\n\"admin\" \"\"\n"));
    Proxy::of_file(&home.join("pgbouncer.ini"), port)
}

#[test]
fn abstract_sockets_lead_to_clients_and_to_servers() {
    let database = cluster().database();
    let name = format!("pgweir-test-{}", scratch().unique());
    let near = hidden(&format!("{name}-near"), &database, &format!("host=127.0.0.1 port={}", cluster().primary.port));
    assert!(!near.home().join(format!("@{name}-near")).exists(), "there is no file");
    let far = hidden(&format!("{name}-far"), &database, &format!("host=@{name}-near port={}", near.port));
    let mut client = far.session(&database);
    assert_eq!(client.value("select 1"), "1");
    let seen = near.show("CLIENTS").select("database", &database, "addr");
    assert!(!seen.is_empty() && seen.iter().all(|address| address == "unix"), "{seen:?}");
    assert_eq!(far.show("SERVERS").select("database", &database, "addr"), ["unix"]);
    // The catalog comes the same way.
    crate::support::wait_until("it caches", || far.show("CACHE").select("database", &database, "state") == ["on"]);
    // As PostgreSQL's own clients write it.
    let target = format!("host=@{name}-far port={} user={USER} dbname={database}", far.port);
    let question = || {
        let mut psql = programs::command(&programs::program("psql", "postgresql-client"));
        psql.env("HOME", "/nonexistent").args(["-XAt", "-c", "select 2", &target]);
        psql
    };
    assert_eq!(programs::run(question()).trim(), "2");
    // A second process cannot have the name; it may take it over.
    let file = far.home().join("pgbouncer.ini");
    let mut other = programs::command(&scratch().reachable(&crate::support::proxy::binary()));
    other.arg(&file).current_dir(far.home()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = other.output().unwrap();
    let said = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
    assert!(!output.status.success() && said.contains("unix socket is in use, cannot continue"), "{said}");
    let mut next = programs::command(&scratch().reachable(&crate::support::proxy::binary()));
    let mut far = far;
    let next = Owned::spawn({
        next.arg("-R").arg(&file).current_dir(far.home());
        next
    });
    assert_eq!(far.wait_for_end().code(), Some(0));
    assert_eq!(client.value("select 3"), "3");
    assert_eq!(programs::run(question()).trim(), "2");
    drop(next);
}
