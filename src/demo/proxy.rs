//! pgweir itself, as an operator would run it, and the Redis beside it.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{
    DEFAULT_PORT,
    error::DemoError,
    postgres::Cluster,
    process::Process,
    programs::Programs,
    scratch::{Scratch, free_port, is_free},
    traffic,
};

const LONGEST_START: Duration = Duration::from_secs(20);
const LONGEST_ANSWER: Duration = Duration::from_secs(5);
const DEFAULT_HTTP_PORT: u16 = 9127;
/// Far above what a demonstration's metrics take.
const LONGEST_METRICS_BYTES: u64 = 4 << 20;

/// The second level of the cache.
pub(super) struct Cache {
    pub(super) port: u16,
    _process: Process,
}

/// pgweir in front of the cluster.
pub(super) struct Proxy {
    pub(super) port: u16,
    pub(super) http_port: u16,
    process: Process,
}

/// What `/metrics` says, as far as the summary needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Metrics {
    /// Samples, all families together.
    pub(super) samples: usize,
    /// `pgweir_requests_total`, all labels together.
    pub(super) requests: f64,
}

impl Cache {
    /// `None` where Redis is not installed.
    pub(super) async fn start(programs: &Programs, scratch: &Scratch) -> Result<Option<Self>, DemoError> {
        let Some(program) = programs.redis() else {
            return Ok(None);
        };
        let port = free_port()?;
        let mut command = programs.command(program);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.arg("--dir").arg(scratch.root());
        let mut process = Process::start("redis", command, Signal::SIGTERM, scratch)?;
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            if process.ended().is_some() || started.elapsed() > LONGEST_START {
                return Err(process.silent());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(Some(Self { port, _process: process }))
    }
}

impl Proxy {
    /// Starts this very program once more, with a configuration file.
    pub(super) async fn start(
        wanted: Option<u16>,
        programs: &Programs,
        scratch: &Scratch,
        cluster: &Cluster,
        cache: Option<&Cache>,
    ) -> Result<Self, DemoError> {
        let port = listen_port(wanted)?;
        // Who asks for any port may start several demonstrations at once.
        let is_usual = wanted != Some(0) && is_free(DEFAULT_HTTP_PORT);
        let http_port = if is_usual { DEFAULT_HTTP_PORT } else { free_port()? };
        let users = scratch.write("userlist.txt", "\"shop\" \"\"\n\"admin\" \"\"\n")?;
        let text = configuration(port, http_port, &users, &scratch.path("slow.jsonl"), cluster, cache)?;
        let configuration = scratch.write("pgweir.ini", &text)?;
        let itself = std::env::current_exe().map_err(DemoError::doing("find this program's file"))?;
        let mut command = programs.command(&scratch.install(&itself, "pgweir")?);
        command.arg(configuration);
        let process = Process::start("pgweir", command, Signal::SIGINT, scratch)?;
        let mut proxy = Self { port, http_port, process };
        proxy.await_start().await?;
        Ok(proxy)
    }

    pub(super) fn log(&self) -> String {
        self.process.log()
    }

    /// `None` where the address does not answer as Prometheus wants it.
    pub(super) async fn metrics(&self) -> Option<Metrics> {
        let page = timeout(LONGEST_ANSWER, fetch(self.http_port, "/metrics")).await;
        Some(parse(page.ok()?.ok()?.split_once("\r\n\r\n")?.1))
    }

    async fn await_start(&mut self) -> Result<(), DemoError> {
        let started = Instant::now();
        while !traffic::is_served(self.port).await {
            if self.process.ended().is_some() || started.elapsed() > LONGEST_START {
                return Err(self.process.silent());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

fn listen_port(wanted: Option<u16>) -> Result<u16, DemoError> {
    match wanted {
        Some(0) => free_port(),
        Some(port) if is_free(port) => Ok(port),
        Some(port) => Err(DemoError::PortTaken(port)),
        None if is_free(DEFAULT_PORT) => Ok(DEFAULT_PORT),
        None => free_port(),
    }
}

fn configuration(
    port: u16,
    http_port: u16,
    users: &Path,
    slow_log: &Path,
    cluster: &Cluster,
    cache: Option<&Cache>,
) -> Result<String, DemoError> {
    let primary = cluster.primary_port();
    let [first, second] = cluster.replica_ports();
    let (users, slow_log) = (users.display(), slow_log.display());
    let shared = match cache {
        Some(cache) => format!("redis_url = redis://127.0.0.1:{}/0\nsecret = {}\n", cache.port, secret()?),
        None => String::new(),
    };
    Ok(format!(
        "\
[databases]
shop = host=127.0.0.1 port={primary}

[replicas]
shop.r1 = host=127.0.0.1 port={first} weight=2
shop.r2 = host=127.0.0.1 port={second} weight=1

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
admin_users = admin
pool_mode = transaction
default_pool_size = 10
max_client_conn = 500

[routing]
read_write_split = 1

[cache]
enabled = 1
size = 64MB
{shared}
[insight]
slow_query_threshold = 0.05
slow_query_log = {slow_log}

[control]
user = pgweir

[http]
listen = 127.0.0.1:{http_port}
"
    ))
}

fn secret() -> Result<String, DemoError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| DemoError::doing("draw a secret")(error.into()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

async fn fetch(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LONGEST_METRICS_BYTES).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn parse(page: &str) -> Metrics {
    let mut metrics = Metrics::default();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let Some(value) = line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok()) else {
            continue;
        };
        metrics.samples += 1;
        if line.starts_with("pgweir_requests_total") {
            metrics.requests += value;
        }
    }
    metrics
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_summed_over_their_labels() {
        let page = "# HELP pgweir_requests_total Requests.\n# TYPE pgweir_requests_total counter\n\
                    pgweir_requests_total{route=\"replica\",reason=\"read\"} 40\n\
                    pgweir_requests_total{route=\"primary\",reason=\"write\"} 2\npgweir_clients 12\n";
        assert_eq!(parse(page), Metrics { samples: 3, requests: 42.0 });
    }
}
