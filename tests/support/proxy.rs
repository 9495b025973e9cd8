//! pgweir as an operator starts it: a configuration file, a user list, a process.

use std::{
    env,
    fmt::{Display, Write as _},
    fs::{self, File},
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use tokio_postgres::Config;

use super::{
    cluster::{Cluster, Member, PASSWORD, SUPERUSER, USER},
    frames::Frame,
    programs,
    raw_client::{Address, RawClient, Reply},
    scratch::{Owned, free_port, scratch},
    sessions, wait_until,
};

/// Who may use the console.
pub const ADMIN: &str = "admin";

/// Configuration file in the making: the last word on a key holds.
pub struct Builder {
    settings: Vec<(String, String, String)>,
    users: String,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
    /// In place of pgweir.
    program: Option<PathBuf>,
    port: u16,
    http: u16,
}

/// A running pgweir; it is killed when dropped.
pub struct Proxy {
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    /// Where its `/metrics` are.
    pub http: u16,
    home: PathBuf,
    log: PathBuf,
    launch: Launch,
    process: Owned,
}

/// How its process is started.
#[derive(Clone)]
struct Launch {
    program: PathBuf,
    /// Followed by the configuration file.
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    file: PathBuf,
}

impl Launch {
    /// In the directory of its configuration file; what it says is added to the log.
    fn start(&self, log: &Path) -> Owned {
        let output = File::options().create(true).append(true).open(log).unwrap();
        let mut command = programs::command(&self.program);
        command.current_dir(self.file.parent().unwrap()).args(&self.arguments).arg(&self.file);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdout(output.try_clone().unwrap()).stderr(output);
        Owned::spawn(command)
    }
}

/// What a console command answered.
#[derive(Debug)]
pub struct Table {
    /// Names of the columns, in order.
    pub columns: Vec<String>,
    /// The rows, as text.
    pub rows: Vec<Vec<String>>,
}

/// The binary under test; `PGWEIR_BIN` names another, for example a release build.
pub fn binary() -> PathBuf {
    env::var_os("PGWEIR_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_pgweir")), PathBuf::from)
}

/// PgBouncer may stand in, to try the test bed itself: in session mode with servers for everybody, and with
/// its own sections only.
fn is_pgbouncer() -> bool {
    binary().file_name().is_some_and(|name| name == "pgbouncer")
}

impl Builder {
    /// Sets a key of the main section.
    pub fn set(self, key: &str, value: impl Display) -> Self {
        self.section("pgbouncer", key, value)
    }

    /// Sets a key of any section.
    pub fn section(mut self, section: &str, key: &str, value: impl Display) -> Self {
        self.settings.retain(|(s, k, _)| s != section || k != key);
        self.settings.push((section.to_owned(), key.to_owned(), value.to_string()));
        self
    }

    /// A database of a server, under its own name; further parameters as in the ini.
    pub fn database(self, name: &str, port: u16, parameters: &str) -> Self {
        let value = format!("host=127.0.0.1 port={port} dbname={name} {parameters}");
        self.section("databases", name, value.trim_end())
    }

    /// Makes replicas serve reads of the database, with these weights.
    pub fn replicas(mut self, name: &str, replicas: &[(&Member, u32)]) -> Self {
        for (number, (replica, weight)) in (1..).zip(replicas) {
            let value = format!("host=127.0.0.1 port={} weight={weight}", replica.port);
            self = self.section("replicas", &format!("{name}.r{number}"), value);
        }
        self.section("routing", "read_write_split", 1).section("routing", "lag_check_interval", "0.05")
    }

    /// Switches the cache on.
    pub fn cached(self) -> Self {
        self.section("cache", "enabled", 1).section("cache", "ttl", 60)
    }

    /// Replaces the user list.
    pub fn users(mut self, list: &str) -> Self {
        list.clone_into(&mut self.users);
        self
    }

    /// An environment variable of the process.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Listens on this port, which `so_reuseport` lets it share.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self.set("listen_port", port)
    }

    /// A command line argument before the configuration file.
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Starts the installed PgBouncer in place of pgweir, with the sections that it knows.
    pub fn pgbouncer(mut self) -> Self {
        self.program = Some(programs::program("pgbouncer", "pgbouncer"));
        self
    }

    /// The configuration file's text.
    fn ini(&self) -> String {
        let mut text = String::new();
        let mut sections: Vec<&str> = Vec::new();
        for (section, _, _) in &self.settings {
            if !sections.contains(&section.as_str()) {
                sections.push(section);
            }
        }
        if is_pgbouncer() || self.program.is_some() {
            sections.retain(|section| ["databases", "pgbouncer", "users"].contains(section));
        }
        for section in sections {
            writeln!(text, "[{section}]").unwrap();
            for (_, key, value) in self.settings.iter().filter(|(s, _, _)| s == section) {
                writeln!(text, "{key} = {value}").unwrap();
            }
        }
        text
    }

    fn write_to(&self, home: &Path) {
        scratch().write(&home.join("pgweir.ini"), &self.ini());
        scratch().write(&home.join("userlist.txt"), &self.users);
    }

    /// Starts it and waits until it accepts clients.
    pub fn start(self) -> Proxy {
        self.spawn().accepting()
    }

    /// Starts it and waits for nothing.
    pub fn spawn(mut self) -> Proxy {
        let home = scratch().directory("proxy");
        if is_pgbouncer() {
            self = self.set("pool_mode", "session").set("default_pool_size", 200);
        }
        self = self.set("unix_socket_dir", home.display());
        self = self.set("auth_file", home.join("userlist.txt").display());
        self.write_to(&home);
        let log = home.join("log");
        let http = if is_pgbouncer() || self.program.is_some() { 0 } else { self.http };
        let program = self.program.unwrap_or_else(|| scratch().reachable(&binary()));
        let (arguments, environment, file) = (self.arguments, self.environment, home.join("pgweir.ini"));
        let launch = Launch { program, arguments, environment, file };
        let process = launch.start(&log);
        Proxy { port: self.port, http, home, log, launch, process }
    }
}

impl Proxy {
    /// Transaction pooling of nothing yet, everybody trusted.
    pub fn builder() -> Builder {
        let (port, http) = (free_port(), free_port());
        let mut users = String::new();
        for user in [SUPERUSER, USER, "stranger", "md5er", "scrammer", "plainer", ADMIN] {
            writeln!(users, "\"{user}\" \"{PASSWORD}\"").unwrap();
        }
        let builder =
            Builder { settings: vec![], users, environment: vec![], arguments: vec![], program: None, port, http };
        builder
            .set("listen_addr", "127.0.0.1")
            .set("listen_port", port)
            .set("auth_type", "trust")
            .set("admin_users", ADMIN)
            .set("pool_mode", "transaction")
            .set("default_pool_size", 20)
            .set("max_client_conn", 1000)
            .section("control", "user", SUPERUSER)
            .section("http", "listen", format!("127.0.0.1:{http}"))
    }

    /// Transaction pooling of one database on the cluster's primary.
    pub fn of(cluster: &Cluster, database: &str) -> Builder {
        Self::builder().database(database, cluster.primary.port, "")
    }

    /// A second process with the same configuration that takes over from this one.
    pub fn successor(&self) -> Self {
        let log = self.home.join(format!("log-{}", scratch().unique()));
        let program = scratch().reachable(&binary());
        let (arguments, file) = (vec!["-R".to_owned()], self.home.join("pgweir.ini"));
        let launch = Launch { program, arguments, environment: vec![], file };
        let process = launch.start(&log);
        Proxy { port: self.port, http: self.http, home: self.home.clone(), log, launch, process }
    }

    /// Starts it with a configuration file as it stands, in that file's directory, and waits until it accepts clients
    /// on this port, which the file names.
    pub fn of_file(file: &Path, port: u16) -> Self {
        let home = file.parent().unwrap();
        let log = home.join("log");
        let (program, file) = (scratch().reachable(&binary()), file.to_owned());
        let launch = Launch { program, arguments: vec![], environment: vec![], file };
        let process = launch.start(&log);
        Self { port, http: 0, home: home.to_owned(), log, launch, process }.accepting()
    }

    fn accepting(mut self) -> Self {
        self.wait_until_it_accepts();
        self
    }

    fn wait_until_it_accepts(&mut self) {
        wait_until("pgweir accepts clients", || {
            assert!(self.process.ended().is_none(), "pgweir ended:\n{}", self.log());
            let mut ports = [self.port, self.http].into_iter().filter(|port| *port != 0);
            ports.all(|port| TcpStream::connect(("127.0.0.1", port)).is_ok())
        });
    }

    /// Ends it without a chance to say anything.
    pub fn die(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait_for_end();
    }

    /// Starts it again with the configuration that it had, and waits until it accepts clients.
    pub fn come_back(&mut self) {
        self.process = self.launch.start(&self.log);
        self.wait_until_it_accepts();
    }

    /// Waits until it has read the catalog of that database: server connections that it opened before may have begun with
    /// other settings, and are replaced.
    #[track_caller]
    pub fn wait_for_catalog(&self, database: &str) {
        let loaded = ["outcome=\"loaded\"", &format!("database=\"{database}\"")];
        wait_until("the catalog is loaded", || self.metrics().sum("pgweir_catalog_reloads_total", &loaded) > 0.0);
    }

    /// Its TCP port.
    pub fn address(&self) -> Address {
        Address::Tcp(self.port)
    }

    /// Its unix socket.
    pub fn unix(&self) -> Address {
        Address::Unix(self.home.join(format!(".s.PGSQL.{}", self.port)))
    }

    /// Where its unix socket, configuration and user list are.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// A session of [`USER`].
    #[track_caller]
    pub fn session(&self, database: &str) -> RawClient {
        RawClient::session(&self.address(), USER, database)
    }

    /// For tokio-postgres.
    pub fn config(&self, database: &str) -> Config {
        sessions::config(self.port, USER, database)
    }

    /// A session of the console.
    #[track_caller]
    pub fn console(&self) -> RawClient {
        RawClient::session(&self.address(), ADMIN, "pgbouncer")
    }

    /// One console command that must succeed.
    #[track_caller]
    pub fn tell(&self, command: &str) -> Reply {
        let reply = self.console().query(command);
        assert!(reply.error().is_none(), "{command}: {reply:?}");
        reply
    }

    /// `SHOW what`.
    #[track_caller]
    pub fn show(&self, what: &str) -> Table {
        Table::of(&self.tell(&format!("SHOW {what}")))
    }

    /// The connections of one database to its servers: every state but `idle` is busy.
    pub fn servers(&self, database: &str) -> Vec<String> {
        self.show("SERVERS").select("database", database, "state")
    }

    /// Waits until every server connection of the database is idle and no client waits.
    #[track_caller]
    pub fn wait_until_idle(&self, database: &str) {
        wait_until("all server connections are idle", || {
            self.servers(database).iter().all(|state| state == "idle" || state == "used")
        });
    }

    /// What `/metrics` says.
    pub fn metrics(&self) -> Metrics {
        Metrics(self.http("/metrics").1)
    }

    /// A page over HTTP: status and body.
    pub fn http(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http)).expect("the HTTP port");
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    /// User and system time that it has used.
    pub fn processor_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let fields = stat.rsplit(") ").next().unwrap().split(' ').skip(11).take(2);
        let ticks: u64 = fields.map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Memory that it has in use, bytes.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        kilobytes.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The end of the log, for a failure's message.
    pub fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(20)..];
        format!("the log ends with\n{}\n", tail.join("\n"))
    }

    /// Rewrites the configuration file; RELOAD is the caller's.
    pub fn rewrite(&self, change: impl FnOnce(String) -> String) {
        let path = self.home.join("pgweir.ini");
        let text = change(fs::read_to_string(&path).unwrap());
        scratch().write(&path, &text);
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Whether SIGSTOP has stopped all of it.
    pub fn is_stopped(&self) -> bool {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let stat = |task: fs::DirEntry| fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        tasks.flatten().all(|task| stat(task).rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')))
    }

    /// Whether the process runs.
    pub fn is_alive(&mut self) -> bool {
        self.process.ended().is_none()
    }

    /// Waits until the process has ended.
    #[track_caller]
    pub fn wait_for_end(&mut self) -> ExitStatus {
        wait_until("pgweir ends", || self.process.ended().is_some());
        self.process.ended().unwrap()
    }

    /// Resident memory, in kB.
    pub fn memory(&self) -> u64 {
        self.resident() / 1024
    }
}

impl Table {
    /// The table of a reply.
    pub fn of(reply: &Reply) -> Self {
        let columns = reply.frames.iter().find(|frame| frame.tag == b'T').map(Frame::columns);
        Self { columns: columns.unwrap_or_default(), rows: reply.rows() }
    }

    /// Where a column is.
    #[track_caller]
    pub fn position(&self, column: &str) -> usize {
        self.columns
            .iter()
            .position(|name| name == column)
            .unwrap_or_else(|| panic!("no column {column} in {:?}", self.columns))
    }

    /// One column of all rows.
    #[track_caller]
    pub fn column(&self, wanted: &str) -> Vec<String> {
        let wanted = self.position(wanted);
        self.rows.iter().map(|row| row[wanted].clone()).collect()
    }

    /// One column of the rows whose `column` has this value.
    #[track_caller]
    pub fn select(&self, column: &str, value: &str, wanted: &str) -> Vec<String> {
        let (column, wanted) = (self.position(column), self.position(wanted));
        self.rows.iter().filter(|row| row[column] == value).map(|row| row[wanted].clone()).collect()
    }

    /// One number of the one row whose `column` has this value; 0 when there is no such row.
    #[track_caller]
    pub fn number(&self, column: &str, value: &str, wanted: &str) -> i64 {
        let found = self.select(column, value, wanted);
        found.first().map_or(0, |number| number.parse().unwrap())
    }
}

/// Prometheus' text format.
pub struct Metrics(pub String);

impl Metrics {
    /// The lines of a family.
    pub fn lines(&self, family: &str) -> impl Iterator<Item = &str> {
        self.0.lines().filter(move |line| line.starts_with(family))
    }

    /// The sum of a family over all series whose labels hold every one of these fragments,
    /// such as `reason="listen"`.
    pub fn sum(&self, family: &str, fragments: &[&str]) -> f64 {
        self.0
            .lines()
            .filter(|line| {
                line.strip_prefix(family).is_some_and(|rest| rest.starts_with(['{', ' ']))
                    && fragments.iter().all(|fragment| line.contains(fragment))
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

/// How often a thing happens in a time, for tests that need a deadline of their own.
pub fn repeat_for(time: Duration, mut action: impl FnMut()) -> u64 {
    let end = Instant::now() + time;
    let mut count = 0;
    while Instant::now() < end {
        action();
        count += 1;
    }
    count
}
