//! What watches one database: samples of its members, its catalog, commits in doubt.

mod catalog;
mod watcher;

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use self::{catalog::Catalog, watcher::Watcher};
use tokio_util::sync::CancellationToken;

use super::{
    ProcessError,
    directory::Shared,
    members::{address, members},
};
use crate::{
    auth::Secret,
    cache::{
        bus::{
            Bus, Times,
            transport::{RedisListener, RedisSpeaker},
        },
        invalidation::Closure,
        shared::Way,
    },
    client::Settings,
    clock::Clock,
    cluster::{
        Database, Listener,
        catalog_watch::{self, Asked, Pace},
        coherence::{Membership, new_node},
        cross_check::Checker,
        health::Thresholds,
        in_doubt::{Backend, InDoubt},
        members::{Members, RoleDetection},
        monitor::{self, Watched},
        roles::{History, Known},
        under_way::FirstLook,
        wal_stream::{Source, StreamError, WalStream},
    },
    config::{self, DatabaseConfig},
    control::{Control, Deadlines, Target},
    net::{Address, SocketOptions},
    routing::{MemberId, MemberSet, Role},
    server::{Dialer, Login},
    telemetry::metrics::{SharedMetrics, families},
};

/// How often commits in doubt are collected.
const COLLECT: Duration = Duration::from_millis(50);

/// What the members have shown, for those who watch them after a RELOAD.
#[derive(Clone, Copy, Default)]
pub(super) struct Memory {
    known: Known,
    history: History,
}

impl Memory {
    /// Of members that nobody has asked.
    pub(super) fn of_configured(primary: Option<MemberId>) -> Self {
        Self { known: Known { primary, ..Known::default() }, history: History::default() }
    }

    /// With the primary's number after the RELOAD; nothing is remembered where that one is not a member any more.
    pub(super) fn renumbered(self, primary: Option<MemberId>) -> Self {
        match primary {
            Some(_) => Self { known: Known { primary, ..self.known }, ..self },
            None => Self::default(),
        }
    }
}

/// What proxies that cache the same database have in common.
struct Sharing {
    way: Way,
    secret: String,
    /// Writes wait for the others.
    is_strict: bool,
}

impl Sharing {
    fn of(settings: &Settings) -> Option<Self> {
        let cache = &settings.config.cache;
        let (Some(url), Some(secret)) = (&cache.redis_url, &cache.secret) else { return None };
        let is_strict = match cache.coherence {
            config::Coherence::Strict => true,
            config::Coherence::Bounded => false,
            config::Coherence::Off => return None,
        };
        match Way::parse(url.reveal(), settings.redis_roots.clone()) {
            Ok(way) => Some(Self { way, secret: secret.reveal().to_owned(), is_strict }),
            Err(error) => {
                // Level two says so as well, and the process does not start.
                tracing::error!(%error, "other proxies are not told of writes");
                None
            }
        }
    }
}

/// The control plane of one database.
pub(super) struct ControlPlane {
    database: Arc<Database>,
    control: Arc<Control>,
    targets: Vec<Watched>,
    stream: Option<WalStream>,
    watcher: Arc<Watcher>,
    in_doubt: Arc<InDoubt>,
    listener: OnceLock<Arc<Listener>>,
    watches_members: bool,
    is_started: AtomicBool,
    /// How other proxies are told of writes, if they are.
    sharing: Option<Sharing>,
    /// Whom it asks as, if only because that one has logged in.
    guest: Option<String>,
    stop: CancellationToken,
    clock: Clock,
    metrics: SharedMetrics,
}

fn target(
    section: &DatabaseConfig,
    settings: &Settings,
    database: &str,
    guest: Option<&str>,
) -> Result<Target, ProcessError> {
    let control = &settings.config.control;
    let named = control.user.clone().filter(|user| !user.is_empty());
    let user = named
        .clone()
        .or_else(|| section.user.clone())
        .or_else(|| settings.config.auth_user(section).map(str::to_owned))
        .or_else(|| guest.map(str::to_owned))
        .ok_or_else(|| ProcessError::NoControlUser(database.to_owned()))?;
    let own = if named.is_some() { control.password.as_ref() } else { section.password.as_ref() };
    let listed = || match settings.users.secret(&user) {
        Some(crate::auth::Secret::Plain(password)) => Some(password.to_string()),
        _ => None,
    };
    let password = own.map(|password| password.reveal().to_owned()).or_else(listed);
    let (host, port) = match address(section, &settings.config) {
        Address::Tcp(host, port) => (host, port),
        Address::Unix(path) => {
            (path.parent().map(|directory| directory.display().to_string()).unwrap_or_default(), section.port)
        }
    };
    let tls = Arc::clone(&settings.tls.connect);
    Ok(Target { host, port, database: section.server_dbname().to_owned(), user, password, tls })
}

/// Those that the file calls equal, the first one included.
fn equals(database: &Database) -> MemberSet {
    let members = database.topology.members().iter();
    let equals = members.filter(|member| database.topology.has_equals() && member.role == Role::Any);
    equals.fold(MemberSet::default(), |set, member| set.with(member.id))
}

/// The members of a database, and how each is asked.
fn targets(
    section: &DatabaseConfig,
    settings: &Settings,
    database: &str,
    guest: Option<&str>,
) -> Result<Vec<Watched>, ProcessError> {
    let interval = settings.config.routing.lag_check_interval;
    let watched = |(index, (_, member)): (usize, (String, &DatabaseConfig))| {
        let target = target(member, settings, database, guest)?;
        Ok(Watched { member: MemberId(index as u16), target, interval })
    };
    members(section).into_iter().enumerate().map(watched).collect()
}

/// How the members' streams of changes are reached, by the same user who asks them.
fn sources(section: &DatabaseConfig, settings: &Settings, shared: &Shared, targets: &[Watched]) -> Vec<Source> {
    let source = |((_, member), watched): ((String, &DatabaseConfig), &Watched)| {
        let target = watched.target.clone();
        let login = Login {
            address: address(member, &settings.config),
            user: target.user.clone(),
            secret: target.password.as_deref().map(|password| Secret::Plain(password.into())),
            keys: None,
            database: target.database.clone(),
            parameters: Vec::new(),
            dialer: Dialer {
                resolver: Arc::clone(&shared.resolver),
                socket: SocketOptions::of(&settings.config.pgbouncer),
            },
            tls: Arc::clone(&target.tls),
        };
        Source { login, target }
    };
    members(section).into_iter().zip(targets).map(source).collect()
}

/// Would a control plane that is built now ask in another way, because of a password of auth_file, for example?
/// `running` is the one there is.
pub(super) fn asks_otherwise(
    running: Option<&ControlPlane>,
    section: &DatabaseConfig,
    settings: &Settings,
    database: &str,
) -> bool {
    let wanted = targets(section, settings, database, running.and_then(ControlPlane::guest)).ok();
    wanted.as_ref() != running.map(|running| &running.targets)
}

impl ControlPlane {
    /// It asks as `[control] user`, else as the database's user, else as `auth_user`, else as `guest`.
    pub(super) fn new(
        database: &Arc<Database>,
        section: &DatabaseConfig,
        settings: &Settings,
        shared: &Shared,
        guest: Option<&str>,
        memory: Memory,
    ) -> Result<Arc<Self>, ProcessError> {
        let targets = targets(section, settings, &database.name, guest)?;
        let ids: Vec<_> = targets.iter().map(|watched| watched.member).collect();
        let detection = match settings.config.routing.role_detection {
            config::RoleDetection::Auto => RoleDetection::Auto,
            config::RoleDetection::Off => RoleDetection::Configured,
        };
        let servers: Vec<_> = targets.iter().map(|watched| watched.target.clone()).collect();
        let control = Control::new(&servers, Deadlines::default())
            .map_err(|source| ProcessError::Control { database: database.name.to_string(), source })?;
        let watches_members = database.caches() || !section.replicas.is_empty();
        let known = match detection {
            // Those of before, by the numbers of now.
            RoleDetection::Auto if watches_members => Known { equals: database.topology.equals(), ..memory.known },
            _ => Known { primary: Some(MemberId(0)), ..Known::default() },
        };
        database.set_primary(known.primary);
        if (database.caches() || database.observes()) && database.catalog().is_none() {
            database.cells.close(Closure::Catalog);
        }
        let stream = database.settings.direct.clone().map(|direct| {
            let sources = sources(section, settings, shared, &targets);
            WalStream::new(Arc::clone(database), direct, sources, shared.clock, Arc::clone(&shared.ids))
        });
        let members = Members::new(ids, equals(database), known, detection, Thresholds::default());
        let in_doubt = Arc::new(InDoubt::default());
        Ok(Arc::new(Self {
            watcher: Arc::new(Watcher {
                database: Arc::clone(database),
                members: Mutex::new(members),
                history: Mutex::new(memory.history),
                in_doubt: Arc::clone(&in_doubt),
                pools: Arc::clone(&shared.pools),
                clients: Arc::clone(&shared.clients),
                clock: shared.clock,
                metrics: SharedMetrics::clone(&shared.metrics),
            }),
            database: Arc::clone(database),
            control: Arc::new(control),
            targets,
            stream,
            in_doubt,
            listener: OnceLock::new(),
            watches_members,
            is_started: AtomicBool::new(false),
            sharing: Sharing::of(settings),
            guest: guest.map(str::to_owned),
            stop: shared.stop.child_token(),
            clock: shared.clock,
            metrics: SharedMetrics::clone(&shared.metrics),
        }))
    }

    /// Starts its tasks on the control runtime, once. [`Self::stop`] ends them.
    pub(super) fn start(self: &Arc<Self>, shared: &Shared) {
        if self.is_started.swap(true, Ordering::AcqRel) {
            return;
        }
        // A worker may have brought us here, and its runtime is for clients.
        let _entered = shared.handle.enter();
        if self.watches_members {
            monitor::spawn(self.targets.clone(), &self.watcher, self.clock, &shared.tracker, &self.stop);
        }
        let plane = Arc::clone(self);
        shared.tracker.spawn(async move {
            let source = Catalog { plane: Arc::clone(&plane), is_blind: AtomicBool::new(false) };
            let real = &plane.database.real;
            let asked = Asked { reload: &real.catalog_wanted, look: &real.catalog_doubted };
            catalog_watch::run(&source, Pace::default(), asked, &plane.stop).await;
        });
        let look = self.first_look();
        if self.database.caches() {
            look.begin();
            let plane = Arc::clone(self);
            shared.tracker.spawn(async move { look.run(&plane.stop).await });
        }
        if let Some(membership) = self.membership() {
            membership.begin();
            let (plane, process) = (Arc::clone(self), shared.stop.clone());
            shared.tracker.spawn(async move {
                let Some(Sharing { way, .. }) = &plane.sharing else { return };
                let (speaker, listener) = (RedisSpeaker::new(way.clone()), RedisListener::new(way.clone()));
                membership.run(speaker, listener, &plane.stop, &process).await;
            });
        }
        if self.stream.is_some() {
            let plane = Arc::clone(self);
            shared.tracker.spawn(async move { plane.follow_stream().await });
        }
        if self.database.cross_checks.is_some() {
            let (checker, plane) = (self.checker(), Arc::clone(self));
            shared.tracker.spawn(async move { checker.run(&plane.stop).await });
        }
        let plane = Arc::clone(self);
        shared.tracker.spawn(async move { plane.in_doubt.run(&plane.control, &plane.stop).await });
        let plane = Arc::clone(self);
        shared.tracker.spawn(async move { plane.collect().await });
    }

    fn checker(&self) -> Checker {
        Checker {
            database: Arc::clone(&self.database),
            targets: self.targets.iter().map(|watched| watched.target.clone()).collect(),
            clock: self.clock,
            metrics: SharedMetrics::clone(&self.metrics),
            draw: crate::client::random,
        }
    }

    fn first_look(&self) -> FirstLook {
        FirstLook {
            database: Arc::clone(&self.database),
            targets: self.targets.iter().map(|watched| watched.target.clone()).collect(),
            is_alone: self.sharing.is_none(),
            clock: self.clock,
            draw: crate::client::random,
        }
    }

    /// Other proxies cache the same database, or may.
    fn membership(&self) -> Option<Membership> {
        let sharing = self.sharing.as_ref()?;
        // Others may keep answers, even where this process keeps none.
        self.database.real.begin_caching();
        let clock = self.clock;
        let bus = self.database.real.share(|cells| {
            let node = new_node(crate::client::random());
            Bus::new(node, Times::default(), sharing.is_strict, cells, clock)
        });
        Some(Membership {
            database: Arc::clone(&self.database),
            targets: self.targets.iter().map(|watched| watched.target.clone()).collect(),
            bus,
            secret: sharing.secret.clone(),
            clock,
            draw: crate::client::random,
        })
    }

    /// Listens for the clients of the database.
    pub(super) fn listener(&self, shared: &Shared) -> Arc<Listener> {
        let start = || {
            let targets = self.targets.iter().map(|watched| (watched.member, watched.target.clone())).collect();
            let (listener, work) = Listener::new(Arc::clone(&self.database), targets, self.stop.clone());
            shared.tracker.spawn_on(work, &shared.handle);
            Arc::new(listener)
        };
        Arc::clone(self.listener.get_or_init(start))
    }

    /// See [`Self::new`].
    pub(super) fn guest(&self) -> Option<&str> {
        self.guest.as_deref()
    }

    /// What is to be remembered when others watch the members.
    pub(super) fn memory(&self) -> Memory {
        Memory { known: self.watcher.members().known(), history: *self.watcher.history() }
    }

    /// Those who watched the members until now may have seen a promotion since [`Self::memory`] was taken of them.
    pub(super) fn catch_up(&self, memory: Memory) {
        let verdict = self.watcher.members().learn(memory.known);
        if let Some(verdict) = verdict {
            tracing::warn!(primary = ?verdict.primary, "primary changed during a reload");
            self.watcher.admit(verdict);
            self.watcher.follow(verdict.primary);
        }
    }

    /// Are its members sampled?
    pub(super) fn watches_members(&self) -> bool {
        self.watches_members
    }

    pub(super) fn stop(&self) {
        self.stop.cancel();
        self.control.close();
    }

    /// Hears of writes that bypass the proxy.
    async fn follow_stream(&self) {
        let Some(stream) = &self.stream else { return };
        let ended = |error: &StreamError| {
            let labels = [("database", &*self.database.name), ("reason", error.label())];
            self.metrics.counter(&families::WAL_STREAM_FAILURES, &labels).increment();
        };
        stream.run(&self.stop, ended).await;
    }

    /// Hands commits whose connection was lost to those who find out when their backend is gone.
    async fn collect(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(COLLECT);
        loop {
            // Both branches are cancel safe.
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            for lost in self.database.cells.take_in_doubt() {
                let Some(origin) = lost.origin() else { continue };
                // Entries agree on who is their first member and on nothing else; the record goes back.
                if origin.member != MemberId(0) && origin.entry != self.database.entry {
                    continue;
                }
                let backend = Backend { member: origin.member, pid: origin.process_id };
                let (clock, database) = (self.clock, Arc::clone(&self.database));
                let settle = move || {
                    let now = clock.now();
                    database.note_write(now);
                    let changes_catalog = lost.changes_catalog();
                    lost.resolve(now, crate::client::random);
                    if changes_catalog {
                        database.catalog_changed(crate::client::random);
                    }
                };
                // What runs on a server that was the primary decides nothing any more.
                let primary = self.database.topology.primary();
                if self.database.may_fail_over() && primary.is_some_and(|primary| primary != origin.member) {
                    settle();
                    continue;
                }
                if let Err(error) = self.in_doubt.watch(backend, settle) {
                    tracing::error!(%error, "what they wrote stays out of the cache");
                }
            }
        }
    }
}

/// Another server is the primary, or may be: what the one before has said counts no more. The cache is closed.
pub(super) fn forget_primary(database: &Database, now: u64) {
    database.cells.close(Closure::Primary);
    database.note_write(now);
    database.real.primary_changed(now);
    database.catalog_changed(crate::client::random);
}
