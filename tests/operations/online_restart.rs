//! `-R`: another process takes over, and nobody notices.

use std::{
    fs,
    io::{IoSlice, Read, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::support::{
    Address, Authority, Proxy, RawClient, Table, cluster,
    cluster::USER,
    frames,
    frames::query,
    programs,
    proxy::binary,
    scratch::{Adopted, scratch},
    wait_until,
};

fn started() -> (Proxy, String) {
    let database = cluster().database();
    (Proxy::of(cluster(), &database).set("default_pool_size", 4).set("pidfile", "pid").start(), database)
}

fn pid(proxy: &Proxy) -> Option<u32> {
    fs::read_to_string(proxy.home().join("pid")).ok()?.trim().parse().ok()
}

/// Waits until a query of this text runs on the server.
fn wait_until_it_runs(database: &str, mark: &str) {
    let mut watcher = RawClient::session(&cluster().primary.address(), "postgres", database);
    let running = format!(
        "select count(*) from pg_stat_activity where state = 'active' and pid <> pg_backend_pid() and query like '%{mark}%'"
    );
    wait_until("the query runs", || watcher.value(&running) == "1");
}

#[test]
fn idle_clients_go_on_with_the_new_process_as_if_nothing_had_happened() {
    let (mut old, database) = started();
    let mut clients: Vec<RawClient> = [old.address(), old.unix(), old.address()]
        .iter()
        .map(|address| RawClient::session(address, USER, &database))
        .collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.rows(&format!("set application_name = 'client {number}'"));
        client.rows("set timezone = 'Asia/Kathmandu'");
        assert!(client.prepare("p", &format!("select {number} + $1::int")).error().is_none());
        client.rows("set pgweir.cache = 'off'");
    }
    let mut new = old.successor();
    assert_eq!(old.wait_for_end().code(), Some(0));
    wait_until("the pidfile is the new one's", || pid(&new) == Some(new.id()));
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.execute("p", &["10"]).rows(), [[(number + 10).to_string()]]);
        assert_eq!(client.value("show application_name"), format!("client {number}"));
        assert_eq!(client.value("show timezone"), "Asia/Kathmandu");
        assert_eq!(client.value("show pgweir.cache"), "off");
        // Its key is the one that the old process has given it.
        let mark = format!("{database} {number}");
        client.send(&query(&format!("select pg_sleep(60) /* {mark} */")));
        wait_until_it_runs(&database, &mark);
        client.cancel();
        assert_eq!(client.reply().sqlstate(), "57014");
    }
    let table = new.show("CLIENTS");
    assert_eq!(table.select("database", &database, "user").len(), 3);
    // Newcomers are served on both sockets, and it can be done again.
    for address in [new.address(), new.unix()] {
        assert_eq!(RawClient::session(&address, USER, &database).value("select 1"), "1");
    }
    let third = new.successor();
    assert_eq!(new.wait_for_end().code(), Some(0));
    assert_eq!(clients[0].execute("p", &["5"]).rows(), [["5"]]);
    assert_eq!(RawClient::session(&third.unix(), USER, &database).value("select 1"), "1");
}

#[test]
fn a_client_in_a_transaction_changes_when_that_has_ended_and_can_be_cancelled_meanwhile() {
    let (mut old, database) = started();
    let mut busy = old.session(&database);
    busy.query("begin");
    let before = busy.value("select pg_backend_pid()");
    let new = old.successor();
    wait_until("the new one serves", || pid(&new) == Some(new.id()));
    assert_eq!(busy.value("select pg_backend_pid()"), before);
    busy.send(&query(&format!("select pg_sleep(60) /* {database} busy */")));
    wait_until_it_runs(&database, &format!("{database} busy"));
    // The new process accepts the request and passes it on.
    busy.cancel();
    assert_eq!(busy.reply().sqlstate(), "57014");
    assert!(old.is_alive());
    busy.query("rollback");
    assert_eq!(old.wait_for_end().code(), Some(0));
    assert_ne!(busy.value("select pg_backend_pid()"), before);
    assert_eq!(new.show("CLIENTS").select("database", &database, "user"), [USER]);
}

#[test]
fn under_load_no_transaction_fails_while_processes_replace_each_other() {
    let (mut proxy, database) = started();
    let mut prepare = programs::command(&programs::postgres_program("pgbench"));
    prepare.args(["-i", "-q", "-h", "127.0.0.1", "-p", &cluster().primary.port.to_string(), "-U", USER, &database]);
    programs::run(prepare);
    let loads: Vec<_> = ["prepared", "simple"]
        .iter()
        .map(|mode| {
            let mut command: Command = programs::command(&programs::postgres_program("pgbench"));
            command.args(["-n", "-c", "4", "-j", "4", "-T", "8", "-N", "-M", mode, "-h", "127.0.0.1"]);
            command.args(["-p", &proxy.port.to_string(), "-U", USER, &database]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    wait_until("the load runs", || proxy.show("CLIENTS").select("database", &database, "user").len() == 8);
    for _ in 0..3 {
        let next = proxy.successor();
        assert_eq!(proxy.wait_for_end().code(), Some(0), "{}", proxy.last_words());
        assert_eq!(next.show("CLIENTS").select("database", &database, "user").len(), 8);
        proxy = next;
    }
    for load in loads {
        let output = load.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{said}");
        assert!(said.contains("number of failed transactions: 0 "), "{said}");
        assert!(!said.contains("error"), "{said}");
    }
}

/// Speaks as a successor does, and takes no descriptor.
struct Impostor(UnixStream);

impl Impostor {
    fn new(path: &Path) -> Self {
        let mut stream = UnixStream::connect(path).unwrap();
        let parameters = [("user", "pgbouncer"), ("database", "pgbouncer"), ("_pq_.pgweir_hand_over_2", "1")];
        stream.write_all(&frames::startup(&parameters)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self(stream)
    }

    fn hears(&mut self) -> String {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).unwrap();
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut body).unwrap();
        String::from_utf8(body).unwrap()
    }

    fn says(&mut self, message: &str) {
        self.0.write_all(&u32::try_from(message.len()).unwrap().to_be_bytes()).unwrap();
        self.0.write_all(message.as_bytes()).unwrap();
    }

    /// That it serves, with the end of a pipe whose other end is open until this process ends.
    fn is_ready(&mut self) {
        let (life, held) = std::io::pipe().unwrap();
        std::mem::forget(held);
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let lives = [life.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&lives)));
        let message = b"\0\0\0\x07\"Ready\"";
        let sent = sendmsg(&self.0, &[IoSlice::new(message)], &mut control, SendFlags::empty()).unwrap();
        assert_eq!(sent, message.len());
    }
}

/// Where an impostor connects, and how far it goes before it dies.
const IMPOSTOR: [&str; 2] = ["PGWEIR_IMPOSTOR", "PGWEIR_IMPOSTOR_DIES_AT"];

/// Runs in a process of its own: only the proxy's user may take over, and the tests may run as another one.
#[test]
fn the_part_of_the_impostor() {
    let [Ok(path), Ok(dies_at)] = IMPOSTOR.map(std::env::var) else { return };
    let mut new = Impostor::new(Path::new(&path));
    while new.hears() != "\"Complete\"" {}
    if dies_at != "the start" {
        new.is_ready();
        assert_eq!(new.hears(), "\"Yours\"");
    }
    if dies_at == "the first client" {
        assert!(new.hears().starts_with("{\"Client\""));
    }
    if dies_at.starts_with("done") {
        assert_eq!(new.hears(), "\"Done\"");
    }
    if dies_at == "done and taken" {
        new.says("\"Taken\"");
    }
}

/// Has a successor come that goes so far and dies.
fn die_at(proxy: &Proxy, dies_at: &str) {
    let own = std::env::current_exe().unwrap();
    let Address::Unix(path) = proxy.unix() else { panic!("no unix socket") };
    let mut impostor = programs::command(&scratch().reachable(&own));
    impostor.args(["--exact", "online_restart::the_part_of_the_impostor"]);
    impostor.env(IMPOSTOR[0], path).env(IMPOSTOR[1], dies_at);
    assert!(programs::run(impostor).contains("1 passed"));
}

#[test]
fn whatever_becomes_of_the_new_process_the_old_one_serves_on() {
    for dies_at in ["the start", "ready", "the first client"] {
        let (proxy, database) = started();
        let mut client = proxy.session(&database);
        client.prepare("p", "select 7");
        die_at(&proxy, dies_at);
        assert_eq!(client.execute("p", &[]).rows(), [["7"]], "{dies_at}");
        wait_until("the pidfile is its own again", || pid(&proxy) == Some(proxy.id()));
        assert_eq!(proxy.session(&database).value("select 1"), "1", "{dies_at}");
        assert_eq!(RawClient::session(&proxy.unix(), USER, &database).value("select 1"), "1", "{dies_at}");
        assert_eq!(client.execute("p", &[]).rows(), [["7"]], "{dies_at}");
    }
}

#[test]
fn the_place_changes_hands_at_the_last_word_and_not_before() {
    // Nobody is left to be handed over; with the cache on, it shows who believes to be alone.
    let (mut proxy, database) = cached_start();
    die_at(&proxy, "done");
    wait_until("the pidfile is its own again", || pid(&proxy) == Some(proxy.id()));
    wait_until("it caches again", || cache_state(&mut proxy.console(), &database) == "on");
    assert_eq!(proxy.session(&database).value("select 1"), "1");
    die_at(&proxy, "done and taken");
    assert_eq!(proxy.wait_for_end().code(), Some(0));
}

fn cached_start() -> (Proxy, String) {
    let database = cluster().database();
    cluster().prepare(&database, "create table t(v int); insert into t values (0)");
    let proxy = Proxy::of(cluster(), &database).cached().set("pidfile", "pid").start();
    wait_until("it caches", || cache_state(&mut proxy.console(), &database) == "on");
    (proxy, database)
}

fn cache(console: &mut RawClient, database: &str, column: &str) -> String {
    Table::of(&console.query("SHOW CACHE")).select("database", database, column).concat()
}

fn cache_state(console: &mut RawClient, database: &str) -> String {
    cache(console, database, "state")
}

#[test]
fn while_there_are_two_neither_caches_and_afterwards_the_new_one_does() {
    let (mut old, database) = cached_start();
    let (mut reader, mut writer, mut console) = (old.session(&database), old.session(&database), old.console());
    let hits = |console: &mut RawClient| cache(console, &database, "hits").parse::<u32>().unwrap_or(0);
    wait_until("an answer is cached", || {
        assert_eq!(reader.value("select v from t"), "0");
        hits(&mut console) > 0
    });
    writer.query("begin");
    writer.query("update t set v = 1");
    let new = old.successor();
    wait_until("the new one serves", || pid(&new) == Some(new.id()));
    let mut newer = new.console();
    assert_eq!([&mut console, &mut newer].map(|console| cache_state(console, &database)), ["off", "off"]);
    for _ in 0..3 {
        assert_eq!(reader.value("select v from t"), "0");
    }
    // The old process writes, and a client of the new one reads it.
    assert_eq!(writer.query("commit").tags(), ["COMMIT"]);
    assert_eq!(reader.value("select v from t"), "1");
    assert_eq!(old.wait_for_end().code(), Some(0));
    wait_until("the new one caches", || cache_state(&mut newer, &database) == "on");
    wait_until("an answer is cached", || {
        assert_eq!(reader.value("select v from t"), "1");
        hits(&mut newer) > 0
    });
    writer.query("update t set v = 2");
    assert_eq!(reader.value("select v from t"), "2");
}

#[test]
fn an_old_process_that_is_killed_leaves_everything_to_the_new_one() {
    let (mut old, database) = cached_start();
    let mut busy = old.session(&database);
    busy.query("begin");
    let mut new = old.successor();
    wait_until("the new one serves", || pid(&new) == Some(new.id()));
    old.signal(Signal::SIGKILL);
    old.wait_for_end();
    busy.until_closed();
    for address in [new.address(), new.unix()] {
        assert_eq!(RawClient::session(&address, USER, &database).value("select 1"), "1");
    }
    wait_until("it caches", || cache_state(&mut new.console(), &database) == "on");
    assert_eq!(pid(&new), Some(new.id()));
    // It is followed in its turn, and then nothing of it is left.
    let mut third = new.successor();
    assert_eq!(new.wait_for_end().code(), Some(0));
    wait_until("it has the place", || cache_state(&mut third.console(), &database) == "on");
    third.signal(Signal::SIGTERM);
    assert_eq!(third.wait_for_end().code(), Some(0));
    assert!(pid(&third).is_none() && RawClient::try_connect(&third.unix()).is_err());
}

#[test]
fn of_two_that_lose_sight_of_each_other_the_old_one_goes_on_and_the_new_one_ends() {
    let (mut old, database) = cached_start();
    let mut client = old.session(&database);
    client.prepare("p", "select 7");
    client.query("begin");
    let mut new = old.successor();
    wait_until("the new one serves", || pid(&new) == Some(new.id()));
    new.signal(Signal::SIGSTOP);
    // Another of its threads may still run meanwhile, and take the client.
    wait_until("it stands still", || new.is_stopped());
    // It is handed over, and nobody confirms it.
    client.query("commit");
    assert_eq!(client.execute("p", &[]).rows(), [["7"]]);
    wait_until("the old one goes on", || old.log().contains("this one serves on"));
    let mut console = old.console();
    assert_eq!(cache_state(&mut console, &database), "off", "the other one may still write");
    new.signal(Signal::SIGCONT);
    new.wait_for_end();
    assert!(new.log().contains("the old process has taken its place back"), "{}", new.last_words());
    wait_until("it caches", || cache_state(&mut console, &database) == "on");
    wait_until("the pidfile is its own again", || pid(&old) == Some(old.id()));
    for address in [old.address(), old.unix()] {
        assert_eq!(RawClient::session(&address, USER, &database).value("select 1"), "1");
    }
    assert_eq!(client.execute("p", &[]).rows(), [["7"]]);
    assert!(old.is_alive());
}

#[test]
fn encrypted_clients_stay_where_they_are_until_they_leave() {
    let (database, authority) = (cluster().database(), Authority::new("restart"));
    let own = authority.issue("pgweir", &["localhost"]);
    let mut old = Proxy::of(cluster(), &database)
        .set("client_tls_sslmode", "allow")
        .set("client_tls_key_file", own.key.display())
        .set("client_tls_cert_file", own.certificate.display())
        .set("pidfile", "pid")
        .start();
    let encrypted = || {
        let plain = RawClient::connect(&Address::Tcp(old.port));
        let mut client = plain.try_encrypt(&authority.trusting_client(&[])).unwrap();
        client.log_in(&[("user", USER), ("database", &database)], "").unwrap();
        client
    };
    let (mut plain, mut staying) = (old.session(&database), encrypted());
    staying.rows("set application_name = 'staying'");
    let new = old.successor();
    let clients = || new.show("CLIENTS").select("database", &database, "application_name").len();
    wait_until("the one in clear has gone over", || pid(&new) == Some(new.id()) && clients() == 1);
    assert_eq!(plain.value("select 1"), "1");
    assert_eq!(encrypted().value("select 1"), "1", "newcomers are the new one's");
    assert_eq!(staying.value("show application_name"), "staying");
    staying.query("begin");
    assert!(old.is_alive());
    staying.query("commit");
    staying.terminate();
    assert_eq!(old.wait_for_end().code(), Some(0));
    assert_eq!(plain.value("select 1"), "1");
}

#[test]
fn in_the_background_it_takes_over_as_well() {
    let (mut old, database) = started();
    let mut client = old.session(&database);
    client.rows("set application_name = 'moving'");
    let mut command = programs::command(&scratch().reachable(&binary()));
    command.args(["-R", "-d"]).arg(old.home().join("pgweir.ini")).current_dir(old.home());
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(old.wait_for_end().code(), Some(0));
    wait_until("the pidfile is the new one's", || pid(&old).is_some_and(|pid| pid != old.id()));
    let daemon = Adopted::new(pid(&old).unwrap());
    assert_eq!(client.value("show application_name"), "moving");
    assert_eq!(RawClient::session(&old.unix(), USER, &database).value("select 1"), "1");
    client.terminate();
    daemon.signal(Signal::SIGTERM);
    wait_until("its files are gone", || pid(&old).is_none() && RawClient::try_connect(&old.unix()).is_err());
}

#[test]
fn only_the_same_user_of_the_operating_system_may_take_over() {
    if programs::unprivileged().is_none() {
        return;
    }
    let (proxy, database) = started();
    let Address::Unix(path) = proxy.unix() else { panic!("no unix socket") };
    let mut stranger = Impostor::new(&path);
    let mut answer = Vec::new();
    stranger.0.read_to_end(&mut answer).unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("not allowed"));
    assert_eq!(proxy.session(&database).value("select 1"), "1");
}

#[test]
fn a_new_process_that_is_killed_gives_its_clients_no_harm_that_the_old_one_can_avert() {
    let (mut old, database) = started();
    let mut busy = old.session(&database);
    busy.query("begin");
    let mut new = old.successor();
    wait_until("the new one serves", || pid(&new) == Some(new.id()));
    new.signal(Signal::SIGKILL);
    new.wait_for_end();
    assert!(old.is_alive());
    assert_eq!(busy.query("commit").tags(), ["COMMIT"]);
    wait_until("the old one accepts again", || RawClient::try_connect(&old.address()).is_ok());
    assert_eq!(RawClient::session(&old.unix(), USER, &database).value("select 1"), "1");
    assert!(old.is_alive());
}

#[test]
fn without_a_running_process_it_starts_as_any_other() {
    let proxy = Proxy::builder().argument("-R").start();
    assert!(proxy.log().contains("old process not found, try to continue normally"), "{}", proxy.log());
}
