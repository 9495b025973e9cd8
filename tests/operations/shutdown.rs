//! Signals: who may stay, who is told what, until when.

use std::{
    process::{Child, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::support::{
    Proxy, RawClient, cluster,
    cluster::USER,
    frames::query,
    programs,
    proxy::{ADMIN, Builder},
    scratch::scratch,
    wait_until,
};

fn one_server() -> (Builder, String) {
    let database = cluster().database();
    (Proxy::of(cluster(), &database).set("default_pool_size", 1), database)
}

fn is_deaf(proxy: &Proxy) -> bool {
    RawClient::try_connect(&proxy.address()).is_err()
}

#[test]
fn sigint_tells_clients_that_wait_for_a_server_to_go() {
    let (builder, database) = one_server();
    let mut proxy = builder.start();
    let (mut busy, mut waiting) = (proxy.session(&database), proxy.session(&database));
    busy.query("begin");
    waiting.send(&query("select 1"));
    wait_until("it waits", || proxy.show("POOLS").number("database", &database, "cl_waiting") == 1);
    proxy.signal(Signal::SIGINT);
    let told = waiting.until_closed();
    assert_eq!(told[0].field(b'S').as_deref(), Some("FATAL"));
    assert_eq!(told[0].field(b'M').as_deref(), Some("server shutting down"));
    assert_eq!(busy.value("select 'still served'"), "still served");
    assert!(proxy.is_alive());
    busy.query("commit");
    assert_eq!(proxy.wait_for_end().code(), Some(0));
}

#[test]
fn while_it_drains_the_unix_socket_serves_the_console_and_nobody_else() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (builder, database) = one_server();
        let mut proxy = builder.start();
        let mut busy = proxy.session(&database);
        busy.query("begin");
        proxy.signal(signal);
        wait_until("TCP is closed", || is_deaf(&proxy));
        let mut refused = RawClient::connect(&proxy.unix());
        let told = refused.log_in(&[("user", USER), ("database", &database)], "").unwrap_err();
        assert_eq!(told.field(b'S').as_deref(), Some("FATAL"));
        assert_eq!(told.field(b'M').as_deref(), Some("pooler is shutting down"));
        let mut console = RawClient::session(&proxy.unix(), ADMIN, "pgbouncer");
        assert_eq!(console.query("SHOW POOLS").tags(), ["SHOW"]);
        let refused = console.query("RESUME");
        assert_eq!(refused.error().unwrap().field(b'M').as_deref(), Some("pooler is shutting down"));
        console.terminate();
        busy.query("commit");
        busy.terminate();
        assert_eq!(proxy.wait_for_end().code(), Some(0), "{signal}");
        assert!(RawClient::try_connect(&proxy.unix()).is_err());
    }
}

#[test]
fn shutdown_timeout_ends_the_wait() {
    let (builder, database) = one_server();
    let mut proxy = builder.set("shutdown_timeout", 1).start();
    let mut busy = proxy.session(&database);
    busy.query("begin");
    proxy.signal(Signal::SIGTERM);
    let told = busy.until_closed();
    assert_eq!(told[0].field(b'S').as_deref(), Some("FATAL"));
    assert_eq!(proxy.wait_for_end().code(), Some(0));
    assert!(proxy.log().contains("shutdown_timeout"), "{}", proxy.log());
}

#[test]
fn sigusr1_pauses_and_sigusr2_resumes_but_not_while_it_stops() {
    let (builder, database) = one_server();
    let mut proxy = builder.start();
    let mut client = proxy.session(&database);
    client.rows("select 1");
    let state = |key: &str| proxy.show("STATE").select("key", key, "value").concat();
    proxy.signal(Signal::SIGUSR1);
    wait_until("it is paused", || state("paused") == "yes");
    wait_until("no server is left", || proxy.servers(&database).is_empty());
    client.send(&query("select 'later'"));
    assert!(client.is_silent_for(Duration::from_millis(200)));
    proxy.signal(Signal::SIGUSR2);
    assert_eq!(client.reply().rows(), [["later"]]);
    assert_eq!(state("active"), "yes");
    proxy.signal(Signal::SIGUSR2);
    wait_until("it says so", || proxy.log().contains("got SIGUSR2, but not paused/suspended"));
    client.query("begin");
    proxy.signal(Signal::SIGTERM);
    wait_until("TCP is closed", || is_deaf(&proxy));
    proxy.signal(Signal::SIGUSR2);
    wait_until("it says so", || proxy.log().contains("got SIGUSR2 while shutting down, ignoring"));
    client.terminate();
    assert_eq!(proxy.wait_for_end().code(), Some(0));
}

/// Leaves three rows. Between any two statements the proxy may be told to stop.
const TRANSACTION: &str = "begin;
insert into work values (:client_id);
\\sleep 2 ms
insert into work values (:client_id);
\\sleep 2 ms
insert into work values (:client_id);
commit;
\\sleep 1 ms
";
const ROWS: u64 = 3;
const CLIENTS: u64 = 8;

/// pgbench's transactions through a proxy with half as many servers as clients.
struct Load {
    proxy: Proxy,
    database: String,
    pgbench: Child,
}

/// What pgbench says at its end.
struct Outcome {
    is_success: bool,
    said: String,
}

impl Load {
    /// It lasts so long (`-t` or `-T`), and is running by now.
    fn start(shutdown_timeout: u32, lasts: [&str; 2]) -> Self {
        let database = cluster().database();
        cluster().prepare(&database, "create table work(client int)");
        let proxy = Proxy::of(cluster(), &database)
            .set("default_pool_size", CLIENTS / 2)
            .set("shutdown_timeout", shutdown_timeout)
            .start();
        let script = scratch().directory("load").join("transaction.sql");
        scratch().write(&script, TRANSACTION);
        let mut command = programs::command(&programs::postgres_program("pgbench"));
        command.args(["-n", "-j", "2", "-h", "127.0.0.1", "-U", USER, "-c", &CLIENTS.to_string()]).args(lasts);
        command.arg("-f").arg(&script).args(["-p", &proxy.port.to_string(), &database]);
        let pgbench = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let load = Self { proxy, database, pgbench };
        wait_until("transactions have been committed", || load.rows() >= 20 * ROWS);
        load
    }

    /// Committed ones, as PostgreSQL counts them.
    fn rows(&self) -> u64 {
        cluster().primary.session(&self.database).rows("select count(*) from work")[0][0].parse().unwrap()
    }

    fn end(self) -> (Outcome, Proxy, String) {
        let output = self.pgbench.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
        (Outcome { is_success: output.status.success(), said }, self.proxy, self.database)
    }
}

impl Outcome {
    /// Transactions whose COMMIT was answered.
    fn processed(&self) -> u64 {
        let line = self.said.lines().find_map(|line| line.strip_prefix("number of transactions actually processed: "));
        let line = line.unwrap_or_else(|| panic!("{}", self.said));
        line.split('/').next().unwrap().trim().parse().unwrap()
    }

    /// Statements of the script, by number, at which clients lost their connection.
    fn ends(&self) -> Vec<u64> {
        let number = |line: &str| {
            let after = line.split("aborted in command ").nth(1)?;
            after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        };
        self.said.lines().filter_map(number).collect()
    }
}

fn committed(database: &str) -> u64 {
    cluster().primary.session(database).rows("select count(*) from work")[0][0].parse().unwrap()
}

#[test]
fn sigterm_in_the_middle_of_load_is_noticed_by_no_client() {
    let each = 150;
    let load = Load::start(0, ["-t", &each.to_string()]);
    load.proxy.signal(Signal::SIGTERM);
    wait_until("TCP is closed", || is_deaf(&load.proxy));
    let then = load.rows();
    assert!(then < each * CLIENTS * ROWS, "it was over before it was told");
    wait_until("work goes on", || load.rows() > then);
    let (outcome, mut proxy, database) = load.end();
    assert!(outcome.is_success && !outcome.said.contains("FATAL"), "{}", outcome.said);
    assert_eq!(outcome.processed(), each * CLIENTS);
    assert_eq!(committed(&database), each * CLIENTS * ROWS);
    assert_eq!(proxy.wait_for_end().code(), Some(0));
}

#[test]
fn sigint_in_the_middle_of_load_ends_clients_between_transactions_only() {
    let load = Load::start(0, ["-T", "120"]);
    load.proxy.signal(Signal::SIGINT);
    let (outcome, mut proxy, database) = load.end();
    assert_eq!(proxy.wait_for_end().code(), Some(0));
    assert!(!outcome.is_success && outcome.said.contains("FATAL:  server shutting down"), "{}", outcome.said);
    assert_eq!(outcome.ends(), [0; CLIENTS as usize], "{}", outcome.said);
    assert_eq!(committed(&database), outcome.processed() * ROWS, "{}", outcome.said);
}

#[test]
fn under_load_that_does_not_end_shutdown_timeout_does() {
    let load = Load::start(1, ["-T", "120"]);
    load.proxy.signal(Signal::SIGTERM);
    let (outcome, mut proxy, database) = load.end();
    assert_eq!(proxy.wait_for_end().code(), Some(0));
    assert!(proxy.log().contains("shutdown_timeout: clients that are left are disconnected"), "{}", proxy.log());
    // Whoever was cut off does not know of the commit that was under way.
    wait_until("no backend is left", || {
        let open = format!("select count(*) from pg_stat_activity where datname = '{database}' and usename = '{USER}'");
        cluster().primary.session("postgres").rows(&open)[0][0] == "0"
    });
    let (rows, processed) = (committed(&database), outcome.processed());
    assert!(
        rows.is_multiple_of(ROWS) && (processed * ROWS..=(processed + CLIENTS) * ROWS).contains(&rows),
        "{rows} {processed}"
    );
}
