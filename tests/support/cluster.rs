//! A real primary with two streaming replicas.

use std::{
    collections::BTreeSet,
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    sync::OnceLock,
    thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio_postgres::Config;

use super::{
    programs,
    raw_client::{Address, RawClient},
    scratch::{free_port, scratch},
    sessions, wait_until,
};

/// Superuser; logs in without a password.
pub const SUPERUSER: &str = "postgres";
/// Owner of every test's database; logs in without a password.
pub const USER: &str = "app";
/// The password of every role that needs one.
pub const PASSWORD: &str = "secret";

const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
max_connections = 400
max_prepared_transactions = 20
max_locks_per_transaction = 256
max_wal_senders = 10
max_replication_slots = 10
wal_level = logical
wal_keep_size = 1GB
hot_standby = on
wal_retrieve_retry_interval = 100ms
wal_receiver_status_interval = 1s
shared_buffers = 128MB
fsync = off
synchronous_commit = on
full_page_writes = off
log_min_messages = warning
timezone = 'UTC'
";

const ACCESS: &str = "
local all all trust
host replication all 127.0.0.1/32 trust
host all md5er 127.0.0.1/32 md5
host all scrammer 127.0.0.1/32 scram-sha-256
host all plainer 127.0.0.1/32 password
host all all 127.0.0.1/32 trust
";

const ROLES: &str = "
create role app login;
create role stranger login;
set password_encryption = 'md5';
create role md5er login password 'secret';
set password_encryption = 'scram-sha-256';
create role scrammer login password 'secret';
create role plainer login password 'secret';
grant all on schema public to public;
";

/// One PostgreSQL server.
pub struct Member {
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    data: PathBuf,
}

/// Primary and replicas.
pub struct Cluster {
    /// Takes the writes.
    pub primary: Member,
    /// Two streaming replicas of it.
    pub replicas: [Member; 2],
}

/// The cluster of this test process, started by whoever asks first.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(Cluster::start)
}

impl Cluster {
    /// Starts one that nobody else uses, for tests that disturb it. It ends with the test process.
    pub fn start() -> Self {
        let home = scratch().directory("cluster");
        let primary = Member::create(&home);
        primary.start();
        primary.session("template1").rows(ROLES);
        let replica = |name| {
            let home = &home;
            let primary = &primary;
            move || Member::copy(home, name, primary)
        };
        let replicas = thread::scope(|scope| {
            let first = scope.spawn(replica("replica1"));
            let second = scope.spawn(replica("replica2"));
            [first.join().unwrap(), second.join().unwrap()]
        });
        Self { primary, replicas }
    }

    /// A new database that the replicas have as well, owned by [`USER`].
    pub fn database(&self) -> String {
        let name = format!("test_{}", scratch().unique());
        self.primary.session("postgres").rows(&format!("create database {name} owner {USER}"));
        self.catch_up();
        name
    }

    /// From now on all servers log the statements of new sessions of this database.
    pub fn log_statements(&self, database: &str) {
        self.primary.session("postgres").rows(&format!("alter database {database} set log_statement = 'all'"));
        self.catch_up();
    }

    /// Runs statements on the primary as [`USER`] and waits until the replicas have replayed them.
    pub fn prepare(&self, database: &str, sql: &str) {
        RawClient::session(&self.primary.address(), USER, database).rows(sql);
        self.catch_up();
    }

    /// Waits until both replicas have replayed everything the primary has written.
    pub fn catch_up(&self) {
        let target = self.primary.session("postgres").value("select pg_current_wal_insert_lsn()");
        for replica in &self.replicas {
            let mut session = replica.session("postgres");
            let reached = format!("select pg_last_wal_replay_lsn() >= '{target}'");
            wait_until("a replica catches up", || session.value(&reached) == "t");
        }
    }
}

impl Member {
    /// A cluster of its own without replicas, that nobody else uses. It ends with the test process.
    pub fn alone() -> Self {
        let member = Self::create(&scratch().directory("alone"));
        member.start();
        member.session("template1").rows(ROLES);
        member
    }

    fn create(home: &Path) -> Self {
        let member = Self { port: free_port(), data: home.join("primary") };
        let mut initdb = programs::command(&programs::postgres_program("initdb"));
        initdb.arg("-D").arg(&member.data).args([
            "-U",
            SUPERUSER,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ]);
        programs::run(initdb);
        let configuration = member.data.join("postgresql.conf");
        scratch().write(&configuration, &format!("{SETTINGS}{}", member.addresses()));
        scratch().write(&member.data.join("pg_hba.conf"), ACCESS);
        member
    }

    fn copy(home: &Path, name: &str, primary: &Self) -> Self {
        let member = Self { port: free_port(), data: home.join(name) };
        let mut backup = programs::command(&programs::postgres_program("pg_basebackup"));
        backup.arg("-D").arg(&member.data).args([
            "-R",
            "-X",
            "stream",
            "--checkpoint=fast",
            "--no-sync",
            "-h",
            "127.0.0.1",
            "-U",
            SUPERUSER,
            "-p",
            &primary.port.to_string(),
        ]);
        programs::run(backup);
        let configuration = member.data.join("postgresql.conf");
        scratch().write(&configuration, &format!("{SETTINGS}{}", member.addresses()));
        member.start();
        member
    }

    fn addresses(&self) -> String {
        let sockets = self.data.parent().unwrap().display();
        format!("port = {}\nunix_socket_directories = '{sockets}'\n", self.port)
    }

    /// Starts the server and waits until it takes connections.
    pub fn start(&self) {
        let mut start = programs::command(&programs::postgres_program("pg_ctl"));
        start.args(["start", "-w", "-s", "-t", "60", "-l"]).arg(self.log_file());
        start.arg("-D").arg(&self.data);
        assert!(start.status().unwrap().success(), "{}", self.log());
    }

    /// Stops the server at once, as a crash would.
    pub fn stop(&self) {
        self.stop_by("immediate");
    }

    /// Stops the server, which tells its clients so.
    pub fn stop_fast(&self) {
        self.stop_by("fast");
    }

    fn stop_by(&self, mode: &str) {
        let mut stop = programs::command(&programs::postgres_program("pg_ctl"));
        stop.args(["stop", "-w", "-s", "-m", mode, "-D"]).arg(&self.data);
        assert!(stop.status().unwrap().success(), "{}", self.log());
    }

    /// Makes a primary of a replica and waits until it takes writes.
    pub fn promote(&self) {
        assert_eq!(self.session("postgres").value("select pg_promote(true, 60)"), "t", "{}", self.log());
    }

    /// From now on this replica streams from there, as `name` to those who wait for it.
    pub fn follow(&self, primary: &Self, name: &str) {
        let primary = format!("host=127.0.0.1 port={} user={SUPERUSER} application_name={name}", primary.port);
        self.configure("primary_conninfo", &primary);
    }

    /// Every process of the server stands still, as on a machine that has lost its network, until this is dropped.
    pub fn freeze(&self) -> Frozen {
        let file = fs::read_to_string(self.data.join("postmaster.pid")).unwrap();
        let postmaster: i32 = file.lines().next().unwrap().parse().unwrap();
        let mut frozen = Frozen { processes: Vec::new() };
        // The postmaster first: it starts nobody then.
        frozen.stop(postmaster);
        children_of(postmaster).into_iter().for_each(|child| frozen.stop(child));
        frozen
    }

    /// Ends all its processes without a chance to say anything.
    pub fn kill(&self) {
        let file = fs::read_to_string(self.data.join("postmaster.pid")).unwrap();
        let postmaster: i32 = file.lines().next().unwrap().parse().unwrap();
        let processes = [vec![postmaster], children_of(postmaster)].concat();
        for process in &processes {
            // One that has ended meanwhile needs no signal.
            _ = kill(Pid::from_raw(*process), Signal::SIGKILL);
        }
        // Nobody may wait for those that have ended.
        let is_gone = |process: &i32| {
            let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with('Z'))
        };
        wait_until("they are gone", || processes.iter().all(is_gone));
        // Whoever starts it again would take one that nobody has waited for to be alive.
        fs::remove_file(self.data.join("postmaster.pid")).unwrap();
        let lock = self.data.parent().unwrap().join(format!(".s.PGSQL.{}.lock", self.port));
        fs::remove_file(lock).unwrap();
    }

    /// Refuses logins of this user, or takes them again.
    pub fn refuse(&self, user: &str, is_refused: bool) {
        let rule = if is_refused { format!("host all {user} 127.0.0.1/32 reject\n") } else { String::new() };
        scratch().write(&self.data.join("pg_hba.conf"), &format!("{rule}{ACCESS}"));
        self.configure("application_name", if is_refused { "refusing" } else { "" });
    }

    /// Does nobody listen?
    pub fn is_gone(&self) -> bool {
        TcpStream::connect(("127.0.0.1", self.port)).is_err()
    }

    fn log_file(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// How many statements with this mark it has logged.
    pub fn executions(&self, mark: &str) -> usize {
        self.log().matches(mark).count()
    }

    /// The processes that logged a statement with this mark.
    pub fn backends_that_ran(&self, mark: &str) -> BTreeSet<String> {
        let process = |line: &str| Some(line.split_once('[')?.1.split_once(']')?.0.to_owned());
        self.log().lines().filter(|line| line.contains(mark)).filter_map(process).collect()
    }

    /// Where to connect to without the proxy.
    pub fn address(&self) -> Address {
        Address::Tcp(self.port)
    }

    /// Where the unix sockets are.
    pub fn socket_directory(&self) -> &Path {
        self.data.parent().unwrap()
    }

    /// For tokio-postgres, without the proxy.
    pub fn config(&self, database: &str) -> Config {
        sessions::config(self.port, USER, database)
    }

    /// A superuser's session without the proxy.
    pub fn session(&self, database: &str) -> RawClient {
        RawClient::session(&self.address(), SUPERUSER, database)
    }

    /// Replay stands still until [`Self::resume_replay`]; what arrives is kept.
    pub fn pause_replay(&self) {
        let mut session = self.session("postgres");
        session.rows("select pg_wal_replay_pause()");
        wait_until("replay is paused", || session.value("select pg_get_wal_replay_pause_state()") == "paused");
    }

    /// Ends [`Self::pause_replay`].
    pub fn resume_replay(&self) {
        self.session("postgres").rows("select pg_wal_replay_resume()");
    }

    /// Every commit is replayed this much later than it happened.
    pub fn delay_replay(&self, milliseconds: u32) {
        self.configure("recovery_min_apply_delay", &milliseconds.to_string());
    }

    /// Changes one setting and waits until it holds.
    pub fn configure(&self, name: &str, value: &str) {
        let mut session = self.session("postgres");
        session.rows(&format!("alter system set {name} = '{value}'"));
        let loaded = session.value("select pg_conf_load_time()");
        session.rows("select pg_reload_conf()");
        wait_until("the configuration is loaded", || session.value("select pg_conf_load_time()") != loaded);
    }
}

/// A server that stands still.
pub struct Frozen {
    processes: Vec<i32>,
}

impl Frozen {
    fn stop(&mut self, process: i32) {
        // One that has ended meanwhile needs no stop.
        _ = kill(Pid::from_raw(process), Signal::SIGSTOP);
        self.processes.push(process);
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for process in &self.processes {
            _ = kill(Pid::from_raw(*process), Signal::SIGCONT);
        }
    }
}

fn children_of(parent: i32) -> Vec<i32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_child = |process: &i32| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // Behind the name, which may hold anything: the state and the parent.
        stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)) == Some(&*parent.to_string())
    };
    ids.filter(is_child).collect()
}
