//! The throw-away primary and its two streaming replicas.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::time::sleep;
use tokio_postgres::{Client, types::PgLsn};

use super::{
    error::DemoError,
    process::Process,
    programs::Programs,
    scratch::{Scratch, free_port},
    shop,
};
use crate::control::{Deadlines, Session, Target};

/// The superuser of the cluster; nobody needs a password, it listens on the loopback interface only.
const SUPERUSER: &str = "postgres";
const LONGEST_START: Duration = Duration::from_secs(30);
const DEADLINES: Deadlines = Deadlines { connect: Duration::from_secs(5), statement: Duration::from_secs(120) };

/// Nothing has to survive; a replica must neither miss a segment while it is copied nor cancel a read because the
/// primary has cleaned up.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 100
shared_buffers = 64MB
wal_level = replica
max_wal_senders = 6
wal_keep_size = 256MB
hot_standby = on
hot_standby_feedback = on
wal_receiver_status_interval = 1s
fsync = off
full_page_writes = off
log_min_messages = warning
";

/// Replicas go first when it is dropped.
pub(super) struct Cluster {
    replicas: [Server; 2],
    primary: Server,
}

struct Server {
    port: u16,
    process: Process,
}

impl Cluster {
    /// Starts the three, fills the shop and waits until the replicas have it.
    pub(super) async fn start(programs: &Programs, scratch: &Scratch) -> Result<Self, DemoError> {
        create(programs, scratch).await?;
        let primary = Server::start("primary", programs, scratch).await?;
        let replica = |name| async move {
            copy(programs, scratch, name, primary.port).await?;
            Server::start(name, programs, scratch).await
        };
        let (first, second) = tokio::try_join!(replica("replica1"), replica("replica2"))?;
        let cluster = Self { replicas: [first, second], primary };
        cluster.open_shop().await?;
        Ok(cluster)
    }

    pub(super) fn primary_port(&self) -> u16 {
        self.primary.port
    }

    pub(super) fn replica_ports(&self) -> [u16; 2] {
        let [first, second] = &self.replicas;
        [first.port, second.port]
    }

    async fn open_shop(&self) -> Result<(), DemoError> {
        let filling = DemoError::asking("filling the shop");
        let admin = self.primary.session("postgres").await?;
        for statement in shop::DATABASE {
            admin.client().batch_execute(statement).await.map_err(&filling)?;
        }
        let shop = self.primary.session(shop::NAME).await?;
        shop.client().batch_execute(shop::SCHEMA).await.map_err(&filling)?;
        let question = "SELECT pg_current_wal_insert_lsn()";
        let filled: PgLsn =
            shop.client().query_one(question, &[]).await.and_then(|row| row.try_get(0)).map_err(&filling)?;
        for replica in &self.replicas {
            let session = replica.session("postgres").await?;
            replica.await_replay(session.client(), filled).await?;
        }
        Ok(())
    }
}

impl Server {
    async fn start(name: &'static str, programs: &Programs, scratch: &Scratch) -> Result<Self, DemoError> {
        let port = free_port()?;
        let mut command = programs.command(&programs.postgres("postgres"));
        command.arg("-D").arg(scratch.path(name)).args(["-p", &port.to_string()]);
        // SIGQUIT: at once, nothing has to be saved.
        let process = Process::start(name, command, Signal::SIGQUIT, scratch)?;
        let mut server = Self { port, process };
        server.await_start().await?;
        Ok(server)
    }

    async fn await_start(&mut self) -> Result<(), DemoError> {
        let started = Instant::now();
        while self.session("postgres").await.is_err() {
            if self.process.ended().is_some() || started.elapsed() > LONGEST_START {
                return Err(self.process.silent());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn await_replay(&self, client: &Client, position: PgLsn) -> Result<(), DemoError> {
        let started = Instant::now();
        let question = "SELECT pg_last_wal_replay_lsn() >= $1";
        let asking = DemoError::asking("waiting for a replica");
        while started.elapsed() < LONGEST_START {
            let row = client.query_one(question, &[&position]).await.map_err(&asking)?;
            if row.try_get::<_, Option<bool>>(0).map_err(&asking)? == Some(true) {
                return Ok(());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Err(self.process.silent())
    }

    async fn session(&self, database: &str) -> Result<Session, DemoError> {
        let target = Target {
            tls: std::sync::Arc::default(),
            host: "127.0.0.1".to_owned(),
            port: self.port,
            database: database.to_owned(),
            user: SUPERUSER.to_owned(),
            password: None,
        };
        Session::open(&target, DEADLINES).await.map_err(DemoError::preparing("logging in to a server"))
    }
}

async fn create(programs: &Programs, scratch: &Scratch) -> Result<(), DemoError> {
    let mut initdb = programs.command(&programs.postgres("initdb"));
    initdb.arg("-D").arg(scratch.path("primary"));
    initdb.args(["-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
    Process::run("initdb", initdb, scratch).await?;
    let configuration = scratch.path("primary").join("postgresql.conf");
    let appended = tokio::fs::read_to_string(&configuration).await;
    let text = appended.map_err(DemoError::doing("read postgresql.conf"))? + SETTINGS;
    scratch.write("primary/postgresql.conf", &text)?;
    Ok(())
}

async fn copy(programs: &Programs, scratch: &Scratch, name: &str, primary: u16) -> Result<(), DemoError> {
    let mut backup = programs.command(&programs.postgres("pg_basebackup"));
    backup.arg("-D").arg(scratch.path(name));
    backup.args(["-h", "127.0.0.1", "-p", &primary.to_string(), "-U", SUPERUSER]);
    backup.args(["-R", "-X", "stream", "--checkpoint=fast", "--no-sync"]);
    Process::run(&format!("copy_{name}"), backup, scratch).await.map(drop)
}
