//! `-d`, pidfile, who else is running.

use std::{
    fs,
    net::TcpStream,
    path::Path,
    process::{Output, Stdio},
};

use nix::sys::signal::Signal;

use crate::support::{
    Proxy, RawClient, cluster,
    cluster::USER,
    programs,
    proxy::binary,
    raw_client::Address,
    scratch::{Adopted, Owned, free_port, scratch},
    wait_until,
};

/// Runs it until it ends, or goes to the background, in this directory.
fn run_in(home: &Path, arguments: &[&str]) -> Output {
    let mut command = programs::command(&scratch().reachable(&binary()));
    command.args(arguments).current_dir(home).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

fn pid_of(file: &Path) -> Option<u32> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Session and parent of a process.
fn session_and_parent(pid: u32) -> (u32, u32) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<u32> =
        stat.rsplit(") ").next().unwrap().split(' ').skip(1).take(3).map(|field| field.parse().unwrap()).collect();
    (fields[2], fields[0])
}

#[test]
fn with_d_it_serves_in_the_background_until_it_is_told_to_stop() {
    let home = scratch().directory("daemon");
    let (port, database) = (free_port(), cluster().database());
    let text = format!(
        "[databases]\n{database} = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         unix_socket_dir = {home}\npidfile = pgweir.pid\nlogfile = pgweir.log\nauth_type = trust\nauth_file = users\n",
        cluster().primary.port,
        home = home.display(),
    );
    scratch().write(&home.join("pgweir.ini"), &text);
    scratch().write(&home.join("users"), &format!("\"{USER}\" \"\"\n"));
    let output = run_in(&home, &["-d", "pgweir.ini"]);
    assert!(output.status.success(), "{}", said(&output));
    let pidfile = home.join("pgweir.pid");
    wait_until("the pidfile names it", || pid_of(&pidfile).is_some());
    let daemon = Adopted::new(pid_of(&pidfile).unwrap());
    assert_eq!(said(&output).lines().filter(|line| line.contains("process up")).count(), 0);

    // It listened before the command came back.
    let mut client = RawClient::session(&Address::Tcp(port), USER, &database);
    assert_eq!(client.value("select 1"), "1");
    let (own, parent) = session_and_parent(daemon.id());
    assert_ne!(own, session_and_parent(std::process::id()).0, "it has a session of its own");
    assert_ne!(parent, std::process::id());
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.id())).unwrap();
    let names: Vec<_> = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("comm")).unwrap()).collect();
    assert!(names.iter().any(|name| name.starts_with("jemalloc")), "memory is given back by a thread: {names:?}");
    let log = fs::read_to_string(home.join("pgweir.log")).unwrap();
    assert!(log.contains(&format!("[{}] LOG process up", daemon.id())), "{log}");

    client.terminate();
    daemon.signal(Signal::SIGTERM);
    wait_until("it ends", || !daemon.signal(Signal::SIGCONT) || fs::metadata(&pidfile).is_err());
    wait_until("its files are gone", || !pidfile.exists() && !home.join(format!(".s.PGSQL.{port}")).exists());
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn what_keeps_a_daemon_from_starting_is_said_before_it_leaves_the_terminal() {
    let home = scratch().directory("daemon");
    scratch().write(&home.join("a.ini"), "[databases]\n[pgbouncer]\nunix_socket_dir = .\n");
    let output = run_in(&home, &["-d", "a.ini"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("FATAL daemon needs pidfile configured"), "{}", said(&output));

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let text = format!(
        "[databases]\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\npidfile = a.pid\n"
    );
    scratch().write(&home.join("a.ini"), &text);
    let output = run_in(&home, &["-d", "a.ini"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains(&format!("cannot listen on 127.0.0.1:{port}")), "{}", said(&output));
    assert!(!home.join("a.pid").exists());
}

#[test]
fn the_pidfile_of_a_running_process_is_respected_and_a_stale_one_replaced() {
    let home = scratch().directory("pidfile");
    let pidfile = home.join("pid");
    scratch().write(&pidfile, &format!("{}\n", std::process::id()));
    let builder = || Proxy::builder().set("pidfile", pidfile.display());
    let mut refused = builder().spawn();
    assert_eq!(refused.wait_for_end().code(), Some(1));
    let expected = format!("FATAL pidfile '{}' exists, another instance running?", pidfile.display());
    assert!(refused.log().contains(&expected), "{}", refused.log());
    assert_eq!(pid_of(&pidfile), Some(std::process::id()));

    let mut dead = programs::command(Path::new("/bin/true")).spawn().unwrap();
    dead.wait().unwrap();
    scratch().write(&pidfile, &format!("{}\n", dead.id()));
    let mut proxy = builder().start();
    wait_until("the pidfile is its own", || pid_of(&pidfile) == Some(proxy.id()));
    assert!(proxy.log().contains("LOG stale pidfile, removing"), "{}", proxy.log());
    proxy.signal(Signal::SIGINT);
    assert_eq!(proxy.wait_for_end().code(), Some(0));
    assert!(!pidfile.exists());
}

#[test]
fn a_unix_socket_that_somebody_serves_is_not_taken_from_them() {
    let first = Proxy::builder().start();
    let text = fs::read_to_string(first.home().join("pgweir.ini")).unwrap();
    let file = first.home().join("second.ini");
    scratch().write(&file, &text);
    let output = run_in(first.home(), &["second.ini"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("unix socket is in use, cannot continue"), "{}", said(&output));
    let mut console = RawClient::session(&first.unix(), "admin", "pgbouncer");
    assert_eq!(console.query("show version").tags(), ["SHOW"]);
}

#[test]
fn started_as_root_it_becomes_the_user_that_is_named() {
    let Some(user) = programs::unprivileged() else { return };
    for is_named_by_flag in [true, false] {
        let home = scratch().directory("user");
        let named = if is_named_by_flag { String::new() } else { format!("user = {}\n", user.name) };
        let text = format!(
            "[databases]\n[pgbouncer]\nunix_socket_dir = .\npidfile = pid\nlisten_port = {}\n{named}",
            free_port()
        );
        scratch().write(&home.join("a.ini"), &text);
        let mut command = std::process::Command::new(binary());
        if is_named_by_flag {
            command.args(["-u", &user.name]);
        }
        command.arg("a.ini").current_dir(&home).stderr(Stdio::null());
        let process = Owned::spawn(command);
        wait_until("it runs", || pid_of(&home.join("pid")).is_some());
        let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
        let ids = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned();
        assert_eq!(ids("Uid:"), vec![user.uid.to_string(); 4].join("\t"));
        assert_eq!(ids("Gid:"), vec![user.gid.to_string(); 4].join("\t"));
    }
}
