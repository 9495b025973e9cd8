//! systemd: what it is told, and the sockets that it opens.

use std::{
    fs,
    net::TcpListener,
    os::unix::net::{UnixDatagram, UnixListener},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::support::{
    Proxy, RawClient, cluster,
    cluster::USER,
    programs,
    proxy::binary,
    raw_client::Address,
    scratch::{Owned, scratch},
};

/// Stands for the service manager.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new() -> Self {
        let path = scratch().directory("notify").join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        programs::hand_over(&path);
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { socket, path }
    }

    /// What it is told next.
    fn hears(&self) -> String {
        let mut buffer = [0; 4096];
        let bytes = self.socket.recv(&mut buffer).expect("it is told something");
        String::from_utf8_lossy(&buffer[..bytes]).trim_end().to_owned()
    }
}

#[test]
fn the_service_manager_is_told_what_the_process_does() {
    let manager = Manager::new();
    let builder = Proxy::builder().environment("NOTIFY_SOCKET", manager.path.to_str().unwrap());
    let mut proxy = builder.set("stats_period", 3600).start();
    assert_eq!(manager.hears(), "READY=1");
    proxy.signal(Signal::SIGHUP);
    let reloading = manager.hears();
    let (state, time) = reloading.split_once('\n').unwrap();
    assert_eq!(state, "RELOADING=1");
    let time: u64 = time.strip_prefix("MONOTONIC_USEC=").unwrap().parse().unwrap();
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    assert!((uptime - time as f64 / 1e6).abs() < 60.0, "{time} µs, up for {uptime} s");
    assert_eq!(manager.hears(), "READY=1");
    // A reload that fails ends, too.
    proxy.rewrite(|text| text + "\nno_such_key = 1\n");
    proxy.signal(Signal::SIGHUP);
    assert!(manager.hears().starts_with("RELOADING=1\n"));
    assert_eq!(manager.hears(), "READY=1");
    proxy.signal(Signal::SIGTERM);
    assert_eq!(manager.hears(), "STOPPING=1");
    assert_eq!(proxy.wait_for_end().code(), Some(0));
}

#[test]
fn the_status_line_has_the_statistics() {
    let manager = Manager::new();
    let builder = Proxy::builder().environment("NOTIFY_SOCKET", manager.path.to_str().unwrap());
    let _proxy = builder.set("stats_period", 1).start();
    assert_eq!(manager.hears(), "READY=1");
    let status = manager.hears();
    assert!(status.starts_with("STATUS=stats: ") && status.ends_with(" us"), "{status}");
}

#[test]
fn sockets_of_a_socket_unit_are_served_in_place_of_those_of_the_file() {
    let database = cluster().database();
    let home = scratch().directory("activation");
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let path = home.join("its.sock");
    let unix = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let text = format!(
        "[databases]\n{database} = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 192.0.2.1\nunix_socket_dir = /no/such\n\
         auth_type = trust\nauth_file = {}/users\n",
        cluster().primary.port,
        home.display()
    );
    scratch().write(&home.join("a.ini"), &text);
    scratch().write(&home.join("users"), &format!("\"{USER}\" \"\"\n"));
    // The shell makes the sockets descriptors 3 and 4, as a service manager does, and becomes the process.
    let mut command = programs::command(std::path::Path::new("/bin/sh"));
    command
        .args(["-c", "exec 3<&0 4<&1 </dev/null >/dev/null; export LISTEN_PID=$$ LISTEN_FDS=2; exec \"$0\" \"$1\""])
        .arg(scratch().reachable(&binary()))
        .arg(home.join("a.ini"))
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(tcp.try_clone().unwrap())))
        .stdout(Stdio::from(std::os::fd::OwnedFd::from(unix.try_clone().unwrap())));
    let mut process = Owned::spawn(command);
    let port = tcp.local_addr().unwrap().port();
    for address in [Address::Tcp(port), Address::Unix(path.clone())] {
        let mut client = RawClient::session(&address, USER, &database);
        assert_eq!(client.value("select 1"), "1");
        client.terminate();
    }
    process.signal(Signal::SIGINT);
    crate::support::wait_until("it ends", || process.ended().is_some());
    assert_eq!(process.ended().unwrap().code(), Some(0));
    assert!(path.exists(), "the file is the service manager's");
}
