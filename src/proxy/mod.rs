//! The composition root: builds everything from a configuration, accepts, reloads, drains, stops.

mod console;
mod control_plane;
mod credentials;
mod directory;
mod figures;
mod http;
mod listen;
mod process;
mod service_manager;
mod signals;
mod switches;
mod upkeep;
mod users;
mod workers;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Weak, atomic::AtomicU64},
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::credentials::{load, read_rules, with_files};
pub use self::process::ProcessError;
use self::{directory::Installation, signals::HeldBack, workers::Workers};
use crate::{
    admin::Console,
    client::{Context, Parts, Settings, Signal},
    clock::Clock,
    config::{Config, LogFormat},
    insight::{Insight, InsightSettings},
    net::{Listener, tls::TlsSetup},
    pool::Pools,
    server::Resolver,
    telemetry::{
        logging::{self, LogForm, LogSettings, Logging, SyslogSettings},
        metrics::{Metrics, SharedMetrics},
    },
};

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
    /// Nothing to stderr.
    pub quiet: bool,
    /// More lines.
    pub verbose: u8,
    /// Whom to become.
    pub user: Option<String>,
    /// Go to the background.
    pub daemon: bool,
    /// Called there first: what a fork does not copy, such as threads of the allocator, begins again.
    pub forked: fn(),
}

/// How the process stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    /// It does not.
    No,
    /// When no client is left.
    WaitForClients,
    /// When no server connection is busy.
    WaitForServers,
    /// Now.
    Now,
}

/// Slow requests kept in memory.
const SLOW_KEPT: usize = 500;
/// Query shapes with statistics.
const SHAPES: usize = 5000;
/// Clients are accepted when the catalogs are there, or after this long.
const FIRST_CATALOGS: Duration = Duration::from_secs(1);

/// Everything that lives as long as the process.
pub(crate) struct Proxy {
    context: Arc<Context>,
    installation: Arc<Installation>,
    metrics: SharedMetrics,
    logging: Logging,
    options: Options,
    stop: watch::Sender<Stop>,
    started: Instant,
    tracker: TaskTracker,
    cancel: CancellationToken,
}

/// Runs until it is told to stop. Why it could not start, or go on, is in the log, or on standard error where there is
/// no log yet.
pub fn run(options: &Options) -> ExitCode {
    let outcome = begin(options).map(|(config, logging)| {
        let outcome = start(options, config, logging);
        if let Err(error) = &outcome {
            tracing::error!(fatal = true, "{error}");
        }
        outcome.is_ok()
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("FATAL {error}");
            ExitCode::FAILURE
        }
    }
}

/// What is done before there is a log.
fn begin(options: &Options) -> Result<(Config, Logging), ProcessError> {
    let mut config = Config::load(&options.config)?;
    config.pgbouncer.conffile.get_or_insert_with(|| options.config.display().to_string());
    process::become_user(options, &config)?;
    let logging = Logging::install(&log_settings(&config, options)).map_err(ProcessError::Log)?;
    Ok((config, logging))
}

/// Whatever can be wrong with the surroundings is found out in the foreground, where somebody looks.
fn start(options: &Options, config: Config, logging: Logging) -> Result<(), ProcessError> {
    let settings = with_files(&options.config, config)?;
    process::check_pidfile(&settings.config)?;
    let held_back = signals::HeldBack::new()?;
    let listeners = listen::open(&settings.config)?;
    if options.daemon {
        process::daemonise(options, &settings.config)?;
        logging.leave_stderr();
    }
    let pidfile = process::PidFile::create(&settings.config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("pgweir-control")
        .enable_all()
        .build()
        .map_err(ProcessError::Runtime)?;
    let outcome = runtime.block_on(serve(settings, logging, options.clone(), listeners, held_back));
    runtime.shutdown_timeout(Duration::from_millis(200));
    drop(pidfile);
    outcome
}

async fn serve(
    settings: Settings,
    logging: Logging,
    options: Options,
    listeners: Vec<Listener>,
    held_back: HeldBack,
) -> Result<(), ProcessError> {
    let proxy = build(settings, logging, options)?;
    signals::watch(&proxy, held_back)?;
    let settings = proxy.context.settings();
    let workers = Arc::new(Workers::start(&settings.config, &proxy.context)?);
    http::start(&proxy, &settings.config).await?;
    upkeep::start(&proxy);
    proxy.installation.wait_for_catalogs(FIRST_CATALOGS).await;
    warn_of_settings_without_effect(&settings.config);
    tracing::info!(version = crate::admin::VERSION, workers = workers.len(), "process up");
    service_manager::ready();
    listen::accept_until_stopped(&proxy, listeners, &workers).await?;
    proxy.cancel.cancel();
    proxy.tracker.close();
    if tokio::time::timeout(Duration::from_secs(2), proxy.tracker.wait()).await.is_err() {
        tracing::warn!("a task did not end in time");
    }
    if let Some(workers) = Arc::into_inner(workers) {
        workers.stop();
    }
    proxy.context.insight.close();
    tracing::info!("server shutdown");
    Ok(())
}

fn build(settings: Settings, logging: Logging, options: Options) -> Result<Arc<Proxy>, ProcessError> {
    let clock = Clock::start();
    let metrics: SharedMetrics = Arc::new(Metrics::new());
    let insight =
        Insight::new(&insight_settings(&settings.config), &metrics, Instant::now()).map_err(ProcessError::SlowLog)?;
    let ids = Arc::new(AtomicU64::new(1));
    let pools = Arc::new(Pools::default());
    let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
    let settings = Arc::new(settings);
    let installation = Installation::new(
        Arc::clone(&settings),
        directory::Shared {
            clock,
            ids: Arc::clone(&ids),
            pools: Arc::clone(&pools),
            resolver: Arc::new(Resolver::new(clock, Duration::from_secs(15), Duration::from_secs(15))),
            tracker: tracker.clone(),
            stop: cancel.clone(),
            handle: tokio::runtime::Handle::current(),
        },
    )?;
    let mut mock_key = [0; 32];
    getrandom::fill(&mut mock_key).map_err(|_| ProcessError::Random)?;
    let (stop, _) = watch::channel(Stop::No);
    Ok(Arc::new_cyclic(|proxy: &Weak<Proxy>| {
        let console = Arc::new(Console::new(Arc::new(console::View::new(proxy.clone()))));
        let directory: Arc<dyn crate::client::Directory> = Arc::clone(&installation) as _;
        let context = Context::new(Parts {
            directory,
            pools,
            insight: Arc::new(insight),
            console,
            ids,
            settings,
            mock_key,
            clock,
        });
        Proxy { context, installation, metrics, logging, options, stop, started: Instant::now(), tracker, cancel }
    }))
}

/// Nobody shall rely on what is not there.
fn warn_of_settings_without_effect(config: &Config) {
    for key in config.pgbouncer.asks_for_old_tls() {
        tracing::warn!(key, "TLS 1.0 and 1.1 are not built, the newer versions are used");
    }
    for key in config.without_effect() {
        tracing::warn!(key, "this setting has no effect in this version");
    }
}

/// A path, where one is configured.
fn path_of(text: &str) -> Option<PathBuf> {
    Some(text).filter(|text| !text.is_empty()).map(PathBuf::from)
}

/// What the configuration says of the log, and the command line where it says nothing.
fn log_settings(config: &Config, options: &Options) -> LogSettings {
    let main = &config.pgbouncer;
    let switches = [
        (main.log_connections, logging::CONNECTIONS),
        (main.log_disconnections, logging::DISCONNECTIONS),
        (main.log_pooler_errors, logging::POOLER_ERRORS),
    ];
    LogSettings {
        logfile: path_of(&main.logfile),
        quiet: options.quiet,
        verbose: main.verbose.map_or(options.verbose, |verbose| u8::try_from(verbose).unwrap_or(u8::MAX)),
        form: match main.log_format {
            LogFormat::Pgbouncer => LogForm::Pgbouncer,
            LogFormat::Json => LogForm::Json,
        },
        syslog: main
            .syslog
            .then(|| SyslogSettings { ident: main.syslog_ident.clone(), facility: main.syslog_facility.clone() }),
        silent: switches.into_iter().filter(|(is_wanted, _)| !is_wanted).map(|(_, target)| target).collect(),
    }
}

fn stats_period(config: &Config) -> Duration {
    Duration::from_secs(u64::from(config.pgbouncer.stats_period.max(1)))
}

fn insight_settings(config: &Config) -> InsightSettings {
    InsightSettings {
        slow_query_threshold: Some(config.insight.slow_query_threshold).filter(|threshold| !threshold.is_zero()),
        slow_query_log: path_of(&config.insight.slow_query_log),
        slow_kept: SLOW_KEPT,
        shapes: SHAPES,
        stats_period: stats_period(config),
    }
}

/// Waits for clients or servers, as the stop that was asked for wants it; a stronger wish cuts it short.
async fn drain(proxy: &Arc<Proxy>) {
    let mut wish = proxy.stop.subscribe();
    let deadline = proxy.context.settings().config.pgbouncer.shutdown_timeout;
    let waiting = async {
        loop {
            let kind = *wish.borrow_and_update();
            let is_done = match kind {
                Stop::Now | Stop::No => true,
                Stop::WaitForClients => proxy.context.clients.is_empty(),
                Stop::WaitForServers => {
                    proxy.tell_clients(Signal::Drain);
                    proxy.context.pools.all().iter().all(|pool| pool.counts().active == 0)
                }
            };
            if is_done {
                return;
            }
            // Cancel safe: a change of the wish stays visible.
            tokio::select! {
                _ = wish.changed() => {}
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
        }
    };
    if deadline.is_zero() {
        waiting.await;
    } else if tokio::time::timeout(deadline, waiting).await.is_err() {
        tracing::warn!("shutdown_timeout: clients that are left are disconnected");
    }
    proxy.tell_clients(Signal::Kill);
}

impl Proxy {
    fn tell_clients(&self, signal: Signal) {
        for client in self.context.clients.iter() {
            client.value().send(signal);
        }
    }

    /// Asks the process to stop; a weaker wish than before changes nothing.
    pub(crate) fn stop(&self, wish: Stop) {
        if !self.is_stopping() {
            service_manager::stopping();
        }
        self.stop.send_if_modified(|stop| {
            let is_stronger = wish > *stop;
            *stop = wish.max(*stop);
            is_stronger
        });
        self.context.is_shutting_down.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// Is it on its way out?
    pub(crate) fn is_stopping(&self) -> bool {
        *self.stop.borrow() != Stop::No
    }

    /// A signal that stops, and what it then waits for; while stopping it means at once.
    pub(crate) fn stop_or_hurry(&self, wish: Stop, signal: &'static str, waiting: &'static str) {
        if self.is_stopping() {
            tracing::info!("got {signal} while shutting down, fast exit");
            self.stop(Stop::Now);
        } else {
            tracing::info!("got {signal}, {waiting}");
            self.stop(wish);
        }
    }

    /// Reads the files again. What is wrong is logged, and the running configuration stays.
    pub(crate) fn reload(&self) -> Result<(), ProcessError> {
        service_manager::reloading();
        let outcome = self.read_again();
        service_manager::ready();
        outcome
    }

    fn read_again(&self) -> Result<(), ProcessError> {
        let running = self.context.settings();
        let path = running.config.pgbouncer.conffile.clone();
        let mut settings = load(path.as_deref().map_or(&*self.options.config, Path::new))?;
        settings.config.keep_start_values(&running.config);
        settings.config.pgbouncer.conffile = settings.config.pgbouncer.conffile.or(path);
        warn_of_settings_without_effect(&settings.config);
        self.install(settings)?;
        self.context.insight.reopen_slow_log();
        Ok(())
    }

    /// Puts a configuration in force.
    pub(crate) fn install(&self, settings: Settings) -> Result<(), ProcessError> {
        let settings = Arc::new(settings);
        self.installation.install(Arc::clone(&settings))?;
        self.context.insight.set_slow_threshold(insight_settings(&settings.config).slow_query_threshold);
        for client in self.context.clients.iter() {
            let is_console = crate::admin::DATABASES.contains(&&*client.database);
            if !is_console && settings.config.database(&client.database).is_none() {
                client.value().send(Signal::Remove);
            }
        }
        let logged = self.logging.apply(&log_settings(&settings.config, &self.options));
        self.context.set_settings(settings);
        logged.map_err(ProcessError::Log)
    }
}
