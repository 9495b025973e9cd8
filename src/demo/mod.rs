//! `pgweir demo`: a throw-away primary with two replicas, pgweir in front, sample traffic, and the figures.
//!
//! Everything that is started belongs to a guard; whichever way the demo ends, guards stop it and remove its files.

mod console;
mod error;
mod latency;
mod postgres;
mod process;
mod programs;
mod proxy;
mod report;
mod scratch;
mod shop;
mod traffic;

use std::{
    fmt,
    future::pending,
    io::Write,
    time::{Duration, Instant},
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{MissedTickBehavior, interval, sleep},
};

use self::{
    console::Console,
    error::DemoError,
    postgres::Cluster,
    programs::Programs,
    proxy::{Cache, Proxy},
    report::{Figures, Verdict},
    scratch::Scratch,
    traffic::Traffic,
};

/// Where pgweir listens unless told otherwise.
const DEFAULT_PORT: u16 = 6432;

/// What `pgweir demo` may be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// When to end; `None`: when interrupted.
    pub duration: Option<Duration>,
    /// Where pgweir listens; `None`: 6432, or any free port where that is taken. 0 is any free port.
    pub port: Option<u16>,
}

/// Runs to the end and returns the exit code.
pub fn run(options: &Options) -> u8 {
    match demonstrate_on_a_runtime(options) {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(error) => {
            say_wrong(format_args!("pgweir demo: {error}"));
            1
        }
    }
}

fn demonstrate_on_a_runtime(options: &Options) -> Result<bool, DemoError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(DemoError::doing("start a runtime"))?;
    runtime.block_on(Box::pin(demonstrate(options)))
}

/// Servers in the order in which they are to be stopped.
struct Stage {
    proxy: Proxy,
    cache: Option<Cache>,
    cluster: Cluster,
}

async fn demonstrate(options: &Options) -> Result<bool, DemoError> {
    let mut interrupts = Interrupts::listen()?;
    let programs = Programs::find()?;
    let scratch = Scratch::create(programs.runner())?;
    // Cancel safe: what was started so far is owned by guards inside the future.
    let stage = tokio::select! {
        () = interrupts.next() => return Ok(true),
        stage = Stage::set(options, &programs, &scratch) => stage?,
    };
    say(format_args!("{stage}"));
    let shown = stage.show(options, &mut interrupts).await;
    say(format_args!("\nstopping and removing everything"));
    shown
}

impl Stage {
    async fn set(options: &Options, programs: &Programs, scratch: &Scratch) -> Result<Self, DemoError> {
        say(format_args!("starting a primary and two replicas of {}", programs.postgres_version(scratch).await?));
        let cluster = Cluster::start(programs, scratch).await?;
        let cache = Cache::start(programs, scratch).await?;
        let proxy = Proxy::start(options.port, programs, scratch, &cluster, cache.as_ref()).await?;
        Ok(Self { proxy, cache, cluster })
    }

    /// Traffic and live figures until the time is up or somebody interrupts.
    async fn show(&self, options: &Options, interrupts: &mut Interrupts) -> Result<bool, DemoError> {
        let started = Instant::now();
        let traffic = Traffic::start(self.proxy.port);
        let mut console = Console::of(self.proxy.port);
        let mut seconds = interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        seconds.tick().await;
        let end = async {
            match options.duration {
                Some(duration) => sleep(duration).await,
                None => pending().await,
            }
        };
        tokio::pin!(end);
        let mut figures = Figures::default();
        // Cancel safe: each branch starts over at the next turn, the end is the same future throughout.
        let is_interrupted = loop {
            tokio::select! {
                () = &mut end => break false,
                () = interrupts.next() => break true,
                _ = seconds.tick() => {
                    figures = console.figures(figures).await;
                    say(format_args!("{}", report::live_line(started.elapsed(), traffic.tally(), &figures)));
                }
            }
        };
        let tally = traffic.stop().await;
        let figures = console.figures(figures).await;
        let metrics = self.proxy.metrics().await;
        let verdict = Verdict::of(&tally, &figures);
        let http_port = self.proxy.http_port;
        let summary = report::summary(started.elapsed(), &tally, &figures, http_port, metrics.as_ref(), &verdict);
        say(format_args!("{summary}"));
        if verdict.is_fine() {
            return Ok(true);
        }
        say_wrong(format_args!("{}", self.proxy.log()));
        // Whoever interrupts early wants it to end, not to be told what was not seen yet.
        Ok(is_interrupted && !verdict.has_failures())
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second] = self.cluster.replica_ports();
        let Proxy { port, http_port, .. } = self.proxy;
        writeln!(formatter, "  primary    127.0.0.1:{}", self.cluster.primary_port())?;
        writeln!(formatter, "  replicas   127.0.0.1:{first} (weight 2), 127.0.0.1:{second} (weight 1)")?;
        match &self.cache {
            Some(cache) => writeln!(formatter, "  Redis      127.0.0.1:{}", cache.port)?,
            None => writeln!(formatter, "  Redis      not found, the cache is in memory only")?,
        }
        writeln!(formatter, "\n  connect    psql postgres://shop@127.0.0.1:{port}/shop")?;
        writeln!(formatter, "  console    psql postgres://admin@127.0.0.1:{port}/pgbouncer")?;
        writeln!(formatter, "  dashboard  http://127.0.0.1:{http_port}/")?;
        writeln!(formatter, "  metrics    http://127.0.0.1:{http_port}/metrics\n")?;
        writeln!(formatter, "Ctrl-C stops and removes everything.")
    }
}

/// What tells a program in a terminal to end.
struct Interrupts {
    signals: [Signal; 3],
}

impl Interrupts {
    fn listen() -> Result<Self, DemoError> {
        let listen = |kind| signal(kind).map_err(DemoError::doing("listen for signals"));
        let signals =
            [listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?];
        Ok(Self { signals })
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        // Cancel safe: `recv` is.
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// A reader that went away is no reason to leave servers behind.
fn say(text: fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    let _gone = writeln!(out, "{text}").and_then(|()| out.flush());
}

fn say_wrong(text: fmt::Arguments<'_>) {
    let _gone = writeln!(std::io::stderr().lock(), "{text}");
}
