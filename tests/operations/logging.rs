//! What is in the log, where, and in which form.

use std::{fs, os::unix::net::UnixDatagram, path::Path, time::Duration};

use nix::sys::signal::Signal;

use crate::support::{Proxy, RawClient, cluster, cluster::USER, proxy::Builder, wait_until};

fn logged() -> (Builder, String) {
    let database = cluster().database();
    (Proxy::of(cluster(), &database), database)
}

/// Waits for a line that holds all of these, and returns what follows its time.
#[track_caller]
fn line_with(log: impl Fn() -> String, fragments: &[&str]) -> String {
    let find = || {
        let log = log();
        log.lines().find(|line| fragments.iter().all(|fragment| line.contains(fragment))).map(str::to_owned)
    };
    let shown = || format!("{fragments:?} in\n{}", log());
    if find().is_none() {
        let mut tries = 0;
        wait_until("the line is logged", || {
            tries += 1;
            assert!(tries < 5000, "{}", shown());
            find().is_some()
        });
    }
    let line = find().unwrap();
    line.split_once(" UTC ").map_or(line.clone(), |(_, rest)| rest.to_owned())
}

#[test]
fn the_lines_that_scripts_grep_read_as_pgbouncers() {
    let (builder, database) = logged();
    let proxy = builder.set("stats_period", 1).start();
    let mut client = proxy.session(&database);
    client.rows("select 1");
    let pid = proxy.id();
    let login = line_with(|| proxy.log(), &["login attempt", &database]);
    let expected = format!(": {database}/{USER}@127.0.0.1:");
    assert!(login.starts_with(&format!("[{pid}] LOG C-0x")) && login.contains(&expected), "{login}");
    assert!(login.ends_with(&format!(" login attempt: db={database} user={USER} tls=no replication=no")), "{login}");

    let server = line_with(|| proxy.log(), &["new connection to server", &database]);
    let port = cluster().primary.port;
    let expected = format!(": {database}/{USER}@127.0.0.1:{port} new connection to server (from 127.0.0.1:");
    assert!(server.starts_with(&format!("[{pid}] LOG S-0x")) && server.contains(&expected), "{server}");

    client.terminate();
    let end = line_with(|| proxy.log(), &[&format!("{database}/{USER}@"), "C-0x", "closing because"]);
    assert!(end.ends_with(" closing because: client close request (age=0s)"), "{end}");
    proxy.tell(&format!("PAUSE {database}"));
    let end = line_with(|| proxy.log(), &[&format!("{database}/{USER}@"), "S-0x", "closing because"]);
    assert!(end.contains(" closing because: pause mode (age="), "{end}");

    let mut refused = RawClient::connect(&proxy.unix());
    assert!(refused.log_in(&[("user", USER), ("database", "no_such")], "").is_err());
    let told = line_with(|| proxy.log(), &["pooler error"]);
    let unix = format!(": no_such/{USER}@unix({}):{}", std::process::id(), proxy.port);
    assert!(told.starts_with(&format!("[{pid}] WARNING C-0x")) && told.contains(&unix), "{told}");
    assert!(told.ends_with(" pooler error: no such database: no_such"), "{told}");
    line_with(|| proxy.log(), &["no_such/", "closing because: no such database: no_such (age=0s)"]);

    let silent = RawClient::connect(&proxy.address());
    silent.finish_sending();
    line_with(|| proxy.log(), &["(nodb)/(nouser)@127.0.0.1:", "closing because: client unexpected eof (age=0s)"]);

    let stats = line_with(|| proxy.log(), &["LOG stats: "]);
    let words: String = stats.chars().filter(|character| !character.is_ascii_digit()).collect();
    assert!(
        words.ends_with(
            "stats:  xacts/s,  queries/s,  client parses/s,  server parses/s,  binds/s,  client logins/s, in  B/s, \
             out  B/s, xact  us, query  us, wait  us"
        ),
        "{stats}"
    );
}

#[test]
fn each_kind_of_line_is_switched_off_and_on_while_it_runs() {
    let (builder, database) = logged();
    let off = builder.set("log_connections", 0).set("log_disconnections", 0).set("log_pooler_errors", 0);
    let proxy = off.start();
    let visit = || {
        proxy.session(&database).rows("select 1");
        let mut refused = RawClient::connect(&proxy.address());
        assert!(refused.log_in(&[("user", USER), ("database", "no_such")], "").is_err());
        refused.until_closed();
    };
    let kinds = ["login attempt", "new connection to server", "closing because", "pooler error"];
    visit();
    for kind in kinds {
        assert!(!proxy.log().contains(kind), "{kind} in\n{}", proxy.log());
    }
    for key in ["log_connections", "log_disconnections", "log_pooler_errors"] {
        proxy.tell(&format!("SET {key} = 1"));
    }
    proxy.tell(&format!("PAUSE {database}"));
    proxy.tell(&format!("RESUME {database}"));
    visit();
    for kind in kinds {
        line_with(|| proxy.log(), &[kind]);
    }
}

#[test]
fn the_logfile_is_written_beside_standard_error_and_opened_again_on_reload() {
    let proxy = Proxy::builder().set("logfile", "own.log").start();
    let (file, rotated) = (proxy.home().join("own.log"), proxy.home().join("own.log.1"));
    let read = |file: &Path| fs::read_to_string(file).unwrap_or_default();
    line_with(|| read(&file), &["LOG process up"]);
    line_with(|| proxy.log(), &["LOG process up"]);
    for reload in ["SIGHUP", "RELOAD"] {
        fs::rename(&file, &rotated).unwrap();
        match reload {
            "SIGHUP" => proxy.signal(Signal::SIGHUP),
            _ => drop(proxy.tell("RELOAD")),
        }
        wait_until("the file is there again", || file.exists());
    }
    proxy.rewrite(|text| text.replace("own.log", "other.log"));
    proxy.tell("RELOAD");
    proxy.tell("SHOW VERSION");
    line_with(|| read(&proxy.home().join("other.log")), &["login attempt", "db=pgbouncer"]);
}

#[test]
fn q_keeps_standard_error_silent() {
    let proxy = Proxy::builder().argument("-q").set("logfile", "own.log").start();
    line_with(|| fs::read_to_string(proxy.home().join("own.log")).unwrap_or_default(), &["LOG process up"]);
    assert_eq!(proxy.log(), "");
}

#[test]
fn v_says_more_each_time() {
    for (arguments, debugs, makes_noise) in
        [(&[][..], false, false), (&["-v"], true, false), (&["-v", "-v"], true, true)]
    {
        let (builder, database) = logged();
        let proxy = arguments.iter().fold(builder, |builder, argument| builder.argument(argument)).start();
        proxy.session(&database).rows("select 1");
        let log = proxy.log();
        assert_eq!(log.contains("DEBUG launching new connection to server"), debugs, "{arguments:?}: {log}");
        assert_eq!(log.contains("NOISE connection accepted"), makes_noise, "{arguments:?}: {log}");
    }
}

#[test]
fn a_logfile_that_cannot_be_opened_keeps_it_from_starting() {
    let mut proxy = Proxy::builder().set("logfile", "no/such/directory/log").spawn();
    assert_eq!(proxy.wait_for_end().code(), Some(1));
    assert!(proxy.log().starts_with("FATAL logfile: "), "{}", proxy.log());
}

#[test]
fn json_lines_are_the_other_form() {
    let (builder, database) = logged();
    let proxy = builder.set("log_format", "json").start();
    proxy.session(&database).terminate();
    let line = line_with(|| proxy.log(), &["login attempt", &database]);
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["level"], &line["db"], &line["user"]), (&"INFO".into(), &database.as_str().into(), &USER.into()));
}

/// Where the C library sends lines; this test serves it, where nobody else does.
const SYSTEM_LOG: &str = "/dev/log";

#[test]
fn with_syslog_lines_go_to_the_systems_log_too() {
    if Path::new(SYSTEM_LOG).exists() || !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let socket = UnixDatagram::bind(SYSTEM_LOG).unwrap();
    let _removed = Removed(SYSTEM_LOG);
    fs::set_permissions(SYSTEM_LOG, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let (builder, database) = logged();
    let builder = builder.set("syslog", 1).set("syslog_ident", "weir").set("syslog_facility", "local3");
    let proxy = builder.start();
    proxy.session(&database).terminate();
    let mut buffer = [0; 2048];
    let line = loop {
        let bytes = socket.recv(&mut buffer).unwrap();
        let line = String::from_utf8_lossy(&buffer[..bytes]).into_owned();
        if line.contains("login attempt") {
            break line;
        }
    };
    // Facility 19, severity 6.
    assert!(line.starts_with("<158>"), "{line}");
    assert!(line.contains(&format!(" weir[{}]: C-0x", proxy.id())), "{line}");
    assert!(line.trim_end_matches('\0').ends_with("tls=no replication=no"), "{line}");
}

struct Removed(&'static str);

impl Drop for Removed {
    fn drop(&mut self) {
        drop(fs::remove_file(self.0));
    }
}
