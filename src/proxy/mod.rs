//! The composition root: builds everything from a configuration, accepts, reloads, drains, stops.

mod console;
mod control_plane;
mod credentials;
mod directory;
mod figures;
mod http;
mod level_two;
mod listen;
mod members;
mod process;
mod samples;
mod served;
mod service_manager;
mod signals;
mod suspension;
mod switches;
mod tables;
mod takeover;
mod upkeep;
mod users;
mod workers;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::process::ProcessError;
pub(crate) use self::{
    credentials::{load, read_rules, with_files},
    level_two::wanted as wanted_level_two,
};
use self::{
    directory::Installation,
    process::PidFile,
    signals::HeldBack,
    takeover::{Listening, Predecessor, Way},
    workers::Workers,
};
use crate::{
    admin::Console,
    client::{ClientInfo, Clients, Context, OwnKey, Parts, Settings, Signal, Tally, hand_over::Leaving},
    clock::Clock,
    config::{CacheMode, Config, LogFormat, ReadWriteSplit},
    insight::{Insight, InsightSettings},
    net::{Life, Listener},
    pool::{Pools, Tallies},
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
    /// Take over from the running process.
    pub reboot: bool,
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
    workers: OnceLock<Weak<Workers>>,
    listening: Listening,
    /// What other processes wait for.
    life: Life,
    pidfile: Arc<PidFile>,
    has_http: AtomicBool,
    /// False while another process accepts in place of this one.
    is_accepting: watch::Sender<bool>,
    /// While another process serves the same databases: what is configured for the time when it has gone.
    alone: Mutex<Option<Alone>>,
    changing: Mutex<()>,
}

/// What one process may do only as long as no other one serves the same databases for the same clients: of writes that
/// pass through the other one, its cache and its choice of replicas know nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Alone {
    cache: CacheMode,
    split: ReadWriteSplit,
}

impl Alone {
    const NOTHING: Self = Self { cache: CacheMode::Off, split: ReadWriteSplit::Off };

    fn of(config: &Config) -> Self {
        Self { cache: config.cache.enabled, split: config.routing.read_write_split }
    }

    fn put(self, config: &mut Config) {
        config.cache.enabled = self.cache;
        config.routing.read_write_split = self.split;
    }

    /// Switches it off, and remembers it.
    fn leave(config: &mut Config) -> Self {
        let wanted = Self::of(config);
        Self::NOTHING.put(config);
        wanted
    }
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
    let held_back = signals::HeldBack::new()?;
    let predecessor = if options.reboot { Predecessor::find(&settings.config)? } else { None };
    let (predecessor, listeners) = match predecessor {
        Some(Predecessor { way, listeners }) => (Some(way), listeners),
        None => {
            process::check_pidfile(&settings.config)?;
            (None, listen::open(&settings.config)?)
        }
    };
    if options.daemon {
        process::daemonise(options, &settings.config)?;
        logging.leave_stderr();
    }
    let pidfile = Arc::new(PidFile::new(&settings.config));
    if predecessor.is_none() {
        pidfile.write()?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("pgweir-control")
        .enable_all()
        .build()
        .map_err(ProcessError::Runtime)?;
    let (options, written) = (options.clone(), Arc::clone(&pidfile));
    let found = Found { logging, options, listeners, predecessor, pidfile, held_back };
    let outcome = runtime.block_on(serve(settings, found));
    runtime.shutdown_timeout(Duration::from_millis(200));
    written.remove();
    outcome
}

/// What there is before there are threads.
struct Found {
    logging: Logging,
    options: Options,
    listeners: Vec<Listener>,
    predecessor: Option<Way>,
    pidfile: Arc<PidFile>,
    held_back: HeldBack,
}

async fn serve(settings: Settings, found: Found) -> Result<(), ProcessError> {
    let Found { logging, options, listeners, predecessor, pidfile, held_back } = found;
    let listening = Listening::new(&listeners).map_err(ProcessError::Runtime)?;
    let proxy = build(settings, logging, options, listening, pidfile, predecessor.is_some())?;
    signals::watch(&proxy, held_back)?;
    let settings = proxy.context.settings();
    let workers = Arc::new(Workers::start(&settings.config, &proxy.context)?);
    _ = proxy.workers.set(Arc::downgrade(&workers));
    if predecessor.is_none() {
        http::start(&proxy, &settings.config).await?;
    }
    upkeep::start(&proxy);
    proxy.installation.wait_for_catalogs(FIRST_CATALOGS).await;
    warn_of_settings_without_effect(&settings.config);
    tracing::info!(version = crate::admin::VERSION, workers = workers.len(), "process up");
    match predecessor {
        Some(way) => way.follow(&proxy).await.map_err(ProcessError::TakeOver)?,
        None => _ = proxy.tracker.spawn(takeover::give_place(Arc::clone(&proxy))),
    }
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

fn build(
    mut settings: Settings,
    logging: Logging,
    options: Options,
    listening: Listening,
    pidfile: Arc<PidFile>,
    has_predecessor: bool,
) -> Result<Arc<Proxy>, ProcessError> {
    let alone = Mutex::new(has_predecessor.then(|| Alone::leave(&mut settings.config)));
    let clock = Clock::start();
    let metrics: SharedMetrics = Arc::new(Metrics::new());
    let insight =
        Insight::new(&insight_settings(&settings.config), &metrics, Instant::now()).map_err(ProcessError::SlowLog)?;
    let ids = Arc::new(AtomicU64::new(1));
    let pools = Arc::new(Pools::default());
    let clients = Arc::new(Clients::default());
    let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
    let settings = Arc::new(settings);
    let installation = Installation::new(
        Arc::clone(&settings),
        directory::Shared {
            clock,
            ids: Arc::clone(&ids),
            pools: Arc::clone(&pools),
            clients: Arc::clone(&clients),
            tallies: Tallies::new(&metrics),
            metrics: SharedMetrics::clone(&metrics),
            resolver: Arc::new(Resolver::new(clock, Duration::from_secs(15), Duration::from_secs(15))),
            tracker: tracker.clone(),
            stop: cancel.clone(),
            handle: tokio::runtime::Handle::current(),
        },
    )?;
    let life = Life::of_this_process().map_err(ProcessError::Runtime)?;
    let mut mock_key = [0; 32];
    getrandom::fill(&mut mock_key).map_err(|_| ProcessError::Random)?;
    let (stop, _) = watch::channel(Stop::No);
    Ok(Arc::new_cyclic(|proxy: &Weak<Proxy>| {
        let console = Arc::new(Console::new(Arc::new(console::View::new(proxy.clone()))));
        let directory: Arc<dyn crate::client::Directory> = Arc::clone(&installation) as _;
        let context = Context::new(Parts {
            directory,
            pools,
            clients,
            insight: Arc::new(insight),
            tally: Tally::new(&metrics),
            console,
            ids,
            settings,
            mock_key,
            clock,
        });
        Proxy {
            context,
            installation,
            metrics,
            logging,
            options,
            stop,
            listening,
            life,
            pidfile,
            alone,
            changing: Mutex::default(),
            has_http: AtomicBool::new(false),
            is_accepting: watch::channel(true).0,
            workers: OnceLock::new(),
            started: Instant::now(),
            tracker,
            cancel,
        }
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
            self.listening.close();
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

    /// Whoever changes the configuration reads it and puts the next one in force undisturbed.
    pub(super) fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_again(&self) -> Result<(), ProcessError> {
        let _turn = self.changing();
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

    fn alone(&self) -> MutexGuard<'_, Option<Alone>> {
        self.alone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another process serves the same databases for a while.
    fn share_databases(&self) {
        let wanted = Alone::of(&self.context.settings().config);
        *self.alone() = Some(wanted);
        self.install_again(wanted);
    }

    /// Whatever other process there was has gone.
    async fn stand_alone(self: &Arc<Self>) {
        let wanted = self.alone().take();
        if let Some(wanted) = wanted {
            self.install_again(wanted);
        }
        http::start_late(self).await;
    }

    fn install_again(&self, wanted: Alone) {
        if wanted == Alone::NOTHING {
            return;
        }
        let _turn = self.changing();
        let running = self.context.settings();
        let mut config = running.config.clone();
        wanted.put(&mut config);
        let Settings { users, rules, tls, redis_roots, .. } = &*running;
        let (rules, tls, redis_roots) = (Arc::clone(rules), tls.clone(), redis_roots.clone());
        let settings = Settings { config, users: users.clone(), rules, tls, redis_roots };
        if let Err(error) = self.install(settings) {
            tracing::error!(%error, "cache and routing stay as they are");
        }
    }

    /// Serves a client that another process has served.
    fn adopt(&self, client: Leaving) {
        if let Some(workers) = self.workers.get().and_then(Weak::upgrade) {
            workers.adopt(client);
        }
    }

    /// Is nobody connected but the console's guests?
    fn serves_nobody(&self) -> bool {
        let is_console = |client: &ClientInfo| crate::admin::DATABASES.contains(&&*client.database);
        let consoles = self.context.clients.iter().filter(|client| is_console(client.value())).count();
        self.workers.get().and_then(Weak::upgrade).is_none_or(|workers| workers.clients() <= consoles)
    }

    /// Carries out a cancel request that another process has passed on.
    fn cancel_here(&self, key: OwnKey) {
        let context = Arc::clone(&self.context);
        let deadline = context.settings().config.pgbouncer.cancel_wait_timeout;
        self.tracker.spawn(async move { context.cancel_keys.cancel(key, deadline, None).await });
    }

    /// Puts a configuration in force.
    pub(crate) fn install(&self, mut settings: Settings) -> Result<(), ProcessError> {
        if let Some(alone) = self.alone().as_mut() {
            *alone = Alone::leave(&mut settings.config);
        }
        let settings = Arc::new(settings);
        // A log that cannot be opened changes nothing else.
        self.logging.apply(&log_settings(&settings.config, &self.options)).map_err(ProcessError::Log)?;
        if let Err(error) = self.installation.install(Arc::clone(&settings)) {
            let running = self.context.settings();
            _ = self.logging.apply(&log_settings(&running.config, &self.options));
            return Err(error);
        }
        self.context.insight.set_slow_threshold(insight_settings(&settings.config).slow_query_threshold);
        for client in self.context.clients.iter() {
            let is_console = crate::admin::DATABASES.contains(&&*client.database);
            if !is_console && settings.config.database(&client.database).is_none() {
                client.value().send(Signal::Remove);
            }
        }
        self.context.set_settings(settings);
        Ok(())
    }
}
