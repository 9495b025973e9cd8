//! The sockets that clients connect to.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
};

use crate::support::{
    Proxy, RawClient,
    programs::{self, unprivileged},
    scratch::{free_port, scratch},
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
