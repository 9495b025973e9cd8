//! What watches one database: samples of its members, its catalog, commits in doubt.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering, fence},
    },
    time::Duration,
};

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
    catalog::Snapshot,
    client::{Activity, ClientInfo, Clients, Settings},
    clock::Clock,
    cluster::{
        Database, Listener, LoadedCatalog,
        catalog_loader::{self, CatalogLoadError},
        catalog_watch::{self, Asked, CatalogSource, Pace},
        coherence::{Membership, new_node},
        health::{State, Thresholds},
        in_doubt::{Backend, InDoubt},
        members::{Change, Members, RoleDetection},
        monitor::{self, Sample, SampleSink, Watched},
        roles::{History, Known, Verdict},
        under_way::FirstLook,
        wal_stream::{Source, StreamError, WalStream},
    },
    config::{self, DatabaseConfig},
    control::{Control, ControlError, Deadlines, FailureKind, Lease, Target},
    net::{Address, SocketOptions},
    pool::{Pool, Pools},
    routing::{self, Health, MemberId, MemberSet, Role},
    server::{Dialer, Login},
    telemetry::metrics::{SharedMetrics, families},
};

/// For one look at the catalog.
const CATALOG_DEADLINE: Duration = Duration::from_secs(10);
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
        let plane = Arc::clone(self);
        shared.tracker.spawn(async move { plane.in_doubt.run(&plane.control, &plane.stop).await });
        let plane = Arc::clone(self);
        shared.tracker.spawn(async move { plane.collect().await });
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

/// As routing sees it. One that was asked for the first time a moment ago is not down.
fn health_of(members: &Members, member: MemberId) -> Health {
    match members.state(member) {
        State::Unknown => Health::Unknown,
        _ if members.serves(member) => Health::Up,
        _ => Health::Down,
    }
}

/// Where samples go.
struct Watcher {
    database: Arc<Database>,
    members: Mutex<Members>,
    history: Mutex<History>,
    in_doubt: Arc<InDoubt>,
    pools: Arc<Pools>,
    clients: Arc<Clients>,
    clock: Clock,
    metrics: SharedMetrics,
}

impl Watcher {
    fn apply(&self, member: MemberId, change: Change, health: Health) {
        if let Some(found) = self.database.topology.member(member) {
            found.state.set_health(health);
        }
        let name = self.database.member_name(member);
        if let Some(transition) = change.health {
            tracing::warn!(?name, from = transition.from.label(), to = transition.to.label(), "member changed");
            match transition.to {
                State::Down(_) => self.nudge_readers(),
                State::Up => {
                    if let (State::HalfOpen | State::Down(_), Some(found)) =
                        (transition.from, self.database.topology.member(member))
                    {
                        found.state.came_back(self.clock.now());
                    }
                    self.pools_of(member).iter().for_each(|pool| pool.may_open());
                }
                State::Unknown | State::HalfOpen => {}
            }
        }
        if let Some(verdict) = change.roles {
            let primary = verdict.primary.and_then(|primary| self.database.member_name(primary));
            let reason = verdict.reason.label();
            if verdict.has_rivals {
                tracing::error!(?primary, reason, "another member takes writes as well: it is given none");
            }
            self.admit(verdict);
            if self.follow(verdict.primary) {
                self.metrics.counter(&families::ROLE_CHANGES, &[("database", &*self.database.name)]).increment();
                tracing::warn!(?primary, reason, "primary changed");
            }
        }
        if change.health.is_some() && self.database.topology.has_equals() {
            self.send_on();
        }
    }

    /// Another primary: nothing that was known of the old one counts any more, and nobody goes on with it. Returns
    /// whether it is another.
    fn follow(&self, primary: Option<MemberId>) -> bool {
        let before = self.database.topology.primary();
        if !self.database.set_primary(primary) {
            return false;
        }
        self.history().moves();
        forget_primary(&self.database, self.clock.now());
        if primary.is_some() {
            self.database.cells.reopen(Closure::Primary, self.clock.now(), crate::client::random);
        }
        if let Some(before) = before {
            if !self.database.topology.takes_writes(before) {
                self.depose(before);
            }
            self.in_doubt.abandon(before);
        }
        true
    }

    /// These take writes beside the primary; nobody goes on with one that did and does so no more.
    fn admit(&self, verdict: Verdict) {
        let topology = &self.database.topology;
        let before = topology.set_equals(verdict.equals);
        let gone = topology.members().iter().filter(|member| before.contains(member.id));
        gone.filter(|member| !verdict.takes_writes(member.id)).for_each(|member| self.depose(member.id));
    }

    /// Who waits for a member that is down looks again whether another one is well.
    fn send_on(&self) {
        let members = self.database.topology.members().iter();
        for member in members.filter(|member| member.state.health() == Health::Down) {
            self.pools_of(member.id).iter().for_each(|pool| pool.send_on());
        }
    }

    /// Whoever holds a connection to `member`, or waits for one, learns that it is the primary no longer.
    fn depose(&self, member: MemberId) {
        for pool in self.pools_of(member) {
            for holder in pool.depose() {
                if let Some(client) = self.clients.get(&holder) {
                    client.nudge();
                }
            }
        }
    }

    fn pools_of(&self, member: MemberId) -> Vec<Arc<Pool>> {
        let Some(name) = self.database.member_name(member) else { return Vec::new() };
        let is_its = |pool: &Arc<Pool>| pool.key().database == self.database.name && pool.key().member == *name;
        self.pools.all().into_iter().filter(is_its).collect()
    }

    /// A member is down: whoever waits for it, or for an answer of it, looks for another one.
    fn nudge_readers(&self) {
        // Who has just been given a connection to it looks at its health behind that.
        fence(Ordering::SeqCst);
        let is_concerned =
            |client: &ClientInfo| *client.database == *self.database.name && client.activity() != Activity::Idle;
        self.clients.iter().filter(|client| is_concerned(client)).for_each(|client| client.nudge());
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SampleSink for Watcher {
    fn sampled(&self, member: MemberId, sample: Sample) {
        let topology = &self.database.topology;
        if let Some(found) = topology.member(member) {
            found.state.set_in_recovery(sample.in_recovery);
        }
        let (change, health, verdict) = {
            let mut members = self.members();
            let change = members.sampled(member, sample.in_recovery, sample.lineage());
            (change, health_of(&members, member), members.verdict())
        };
        let is_split_off = match sample.in_recovery {
            true => self.history().leaves_out(sample.lineage()),
            false => verdict.has_rivals && !verdict.takes_writes(member),
        };
        self.apply(member, change, if is_split_off { Health::SplitOff } else { health });
        if is_split_off {
            return;
        }
        let sent_at = sample.sent_at.max(1);
        if sample.in_recovery {
            topology.note_replica_sample(member, sent_at, sample.received_at, sample.lsn);
            if let Some(found) = topology.member(member) {
                found.state.note_settled(self.database.real.defaults_since(), self.clock.now());
            }
        } else {
            if topology.primary() == Some(member) {
                self.history().continues(sample.lineage());
            }
            let is_in_order = topology.note_primary_sample(member, routing::Sample { sent_at, lsn: sample.lsn });
            if !is_in_order {
                topology.forget_samples();
            }
        }
        self.database.note_sampled();
    }

    fn failed(&self, member: MemberId, kind: FailureKind) {
        let name = self.database.member_name(member).map_or("", |name| &**name);
        let labels = [("database", &*self.database.name), ("member", name)];
        self.metrics.counter(&families::PROBE_ERRORS, &labels).increment();
        let (change, health) = {
            let mut members = self.members();
            (members.failed(member, kind), health_of(&members, member))
        };
        self.apply(member, change, health);
    }
}

/// The catalog of the primary.
struct Catalog {
    plane: Arc<ControlPlane>,
    /// No connection of the control user shows what sessions of others begin with.
    is_blind: AtomicBool,
}

impl Catalog {
    async fn read(&self) -> Result<(Lease, Snapshot), CatalogError> {
        let primary = self.plane.database.primary().ok_or(CatalogError::NoPrimary)?;
        let lease = self.plane.control.lease(primary.0).await?;
        let snapshot = lease
            .within(CATALOG_DEADLINE, catalog_loader::load(lease.client()?, self.plane.database.publication()))
            .await??;
        Ok((lease, snapshot))
    }
}

/// Why the catalog is not known.
#[derive(Debug, thiserror::Error)]
enum CatalogError {
    #[error("no member is primary")]
    NoPrimary,
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Load(#[from] CatalogLoadError),
}

impl CatalogSource for Catalog {
    type Snapshot = Arc<LoadedCatalog>;
    type Failure = CatalogError;

    async fn fingerprint(&self) -> Result<u64, CatalogError> {
        let primary = self.plane.database.primary().ok_or(CatalogError::NoPrimary)?;
        let lease = self.plane.control.lease(primary.0).await?;
        Ok(lease
            .within(CATALOG_DEADLINE, catalog_loader::fingerprint(lease.client()?, self.plane.database.publication()))
            .await??)
    }

    /// The epoch is taken before the load begins: what changes meanwhile makes the snapshot too old at once.
    async fn load(&self, fingerprint: u64) -> Result<Arc<LoadedCatalog>, CatalogError> {
        let database = &self.plane.database;
        let is_same = |known: &Arc<LoadedCatalog>| known.fingerprint == fingerprint;
        if let Some(known) = database.catalog().filter(is_same).filter(|_| !self.is_outdated()) {
            // Another entry has loaded it.
            return Ok(known);
        }
        database.cells.bump_catalog(crate::client::random);
        let epoch = database.cells.catalog_epoch().with_fingerprint(fingerprint);
        let (lease, mut snapshot) = self.read().await?;
        if !snapshot.knows_session_defaults() && !self.is_blind.load(Ordering::Relaxed) {
            // Settings that the connection began with are in force no more. A new one has what is.
            lease.close();
            snapshot = self.read().await?.1;
            if !snapshot.knows_session_defaults() {
                self.is_blind.store(true, Ordering::Relaxed);
                tracing::warn!(
                    db = %database.name,
                    "the control user has settings of its own that hide those of others: reads stay on the primary, uncached"
                );
            }
        }
        Ok(Arc::new(LoadedCatalog { snapshot, epoch, fingerprint, loaded_at: self.plane.clock.now() }))
    }

    fn is_outdated(&self) -> bool {
        let database = &self.plane.database;
        database.catalog().is_none_or(|catalog| !database.cells.is_in_force(catalog.epoch))
    }

    fn publish(&self, snapshot: Option<Arc<LoadedCatalog>>) {
        let database = &self.plane.database;
        let is_known = snapshot.is_some();
        tracing::debug!(db = %database.name, is_known, "catalog");
        if !is_known {
            database.cells.close(Closure::Catalog);
        }
        database.real.set_catalog(snapshot);
        if is_known && database.cells.closure() == Some(Closure::Catalog) {
            // Reopening voids everything, so the snapshot's epoch must be taken again.
            database.cells.reopen(Closure::Catalog, self.plane.clock.now(), crate::client::random);
        }
        let outcome = if is_known { "loaded" } else { "lost" };
        let labels = [("database", &*database.name), ("outcome", outcome)];
        self.plane.metrics.counter(&families::CATALOG_RELOADS, &labels).increment();
    }
}
