//! Databases and pools by name.

mod clients;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, Weak, atomic::AtomicU64},
    time::{Duration, Instant},
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    ProcessError,
    control_plane::{ControlPlane, asks_otherwise, forget_primary},
    level_two,
    members::{address, host_in_turn, login_parameters, members, routing_members, section_named},
    served::Served,
    switches::Switches,
    users::Users,
};
use crate::{
    ablation::Ablation,
    auth::Secret,
    cache::{Cells, Lifetimes, ResultCache, invalidation::Closure},
    client::{Clients, Settings, Unserved},
    clock::{Clock, nanos},
    cluster::{Database, DatabaseSettings, DirectSettings, RealDatabase, may_change_isolation, may_change_names},
    config::{CacheMode, Config, DatabaseConfig, Host, ReadWriteSplit, RoleDetection, RowSecurity, Share, UserConfig},
    net::{Address, SocketOptions},
    pool::{LoginSource, Pool, PoolKey, PoolLimits, Pools, Tallies, Turns},
    routing::{Limits, MemberId, PrimarySamples, Topology},
    server::{CachedName, Dialer, Login, Resolver},
    telemetry::metrics::SharedMetrics,
};

/// Primary samples that are kept: at ten a second, the fences of the last minute resolve exactly.
const SAMPLES: usize = 600;
/// How `server_check_query` spells the empty query.
const EMPTY_QUERY: &str = "<empty>";
/// Databases that a `*` entry may make.
const MAX_FALLBACK_DATABASES: usize = 1000;

/// What an installation needs of the process.
#[derive(Clone)]
pub(super) struct Shared {
    pub clock: Clock,
    pub ids: Arc<AtomicU64>,
    pub pools: Arc<Pools>,
    pub clients: Arc<Clients>,
    pub resolver: Arc<Resolver>,
    pub tallies: Tallies,
    pub metrics: SharedMetrics,
    pub tracker: TaskTracker,
    pub stop: CancellationToken,
    /// The control runtime.
    pub handle: tokio::runtime::Handle,
}

/// Everything that the configuration names, in force.
pub(super) struct Installation {
    shared: Shared,
    settings: Arc<RwLock<Arc<Settings>>>,
    databases: Arc<RwLock<BTreeMap<String, Arc<Served>>>>,
    real: Mutex<HashMap<(Address, String), Weak<RealDatabase>>>,
    cache: Mutex<Option<Arc<ResultCache>>>,
    switches: RwLock<Switches>,
    /// Held from a change of the switches until every pool follows it.
    switching: Mutex<()>,
    users: Arc<Users>,
    /// Databases of the fallback entry that no client is connected to, and since when.
    unattended: Mutex<BTreeMap<String, Instant>>,
    /// Held while what is served changes: nobody begins to watch what has just been replaced.
    changing: Mutex<()>,
}

fn new_cells(now: u64) -> Cells {
    #[cfg(debug_assertions)]
    if let Some(rule) = Ablation::chosen() {
        tracing::warn!(?rule, "a rule is left out: PGWEIR_ABLATE");
    }
    Cells::new(crate::client::random(), now)
}

impl Installation {
    pub(super) fn new(settings: Arc<Settings>, shared: Shared) -> Result<Arc<Self>, ProcessError> {
        let installation = Arc::new(Self {
            users: Arc::new(Users::new(&shared)),
            shared,
            settings: Arc::new(RwLock::new(Arc::clone(&settings))),
            databases: Arc::default(),
            real: Mutex::default(),
            cache: Mutex::default(),
            switches: RwLock::default(),
            switching: Mutex::default(),
            unattended: Mutex::default(),
            changing: Mutex::default(),
        });
        installation.install(settings)?;
        Ok(installation)
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a configuration in force: databases that changed are served anew, those that are gone are closed. If that
    /// fails, nothing has changed and nothing is left behind.
    pub(super) fn install(&self, settings: Arc<Settings>) -> Result<(), ProcessError> {
        let config = &settings.config;
        let _turn = self.changing();
        let cache = self.next_cache(config);
        let level_two = self.cache().and_then(|cache| cache.shared());
        let level_two = level_two::next(level_two, &settings, &self.shared)?;
        let mut next = BTreeMap::new();
        for (name, section) in &config.databases {
            next.insert(name.clone(), self.known_or_built(section, &settings, cache.as_ref())?);
        }
        for served in self.all() {
            let name = &served.section.name;
            if let (false, Some(section)) = (next.contains_key(name), config.database(name)) {
                next.insert(name.clone(), self.known_or_built(&section, &settings, cache.as_ref())?);
            }
        }
        // From here on nothing fails.
        self.shared.resolver.set_ttls(config.pgbouncer.dns_max_ttl, config.pgbouncer.dns_nxdomain_ttl);
        if let Some(cache) = &cache {
            cache.set_max_result_bytes(config.cache.max_result_size as usize);
            cache.set_shared(level_two);
        }
        *self.cache.lock().unwrap_or_else(PoisonError::into_inner) = cache;
        next.values().for_each(|served| served.start(&self.shared));
        let is_other_tls = self.settings().tls.connect != settings.tls.connect;
        let before = {
            let mut databases = self.databases.write().unwrap_or_else(PoisonError::into_inner);
            *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&settings);
            std::mem::replace(&mut *databases, next)
        };
        for (name, old) in before {
            let now = self.find(&name);
            if now.as_ref().is_some_and(|now| Arc::ptr_eq(now, &old)) {
                continue;
            }
            self.change_pools(&old.section, now.as_ref().map(|now| &now.section), is_other_tls);
            old.stop();
            if let Some(now) = now {
                now.catch_up(&old);
            }
        }
        self.switch(|switches| switches.retain(|name| self.find(name).is_some()));
        self.refresh_pools(&settings);
        self.users.forget();
        Ok(())
    }

    /// What a RELOAD means for the server connections of a database: each member's are its own.
    fn change_pools(&self, old: &DatabaseConfig, new: Option<&DatabaseConfig>, is_other_tls: bool) {
        let pools = self.pools_of(&old.name);
        self.shared.pools.retain(|key| {
            *key.database != *old.name || new.is_some_and(|new| section_named(new, &key.member).is_some())
        });
        for pool in pools {
            let member = &pool.key().member;
            let Some(after) = new.and_then(|new| section_named(new, member)) else { continue };
            let before = section_named(old, member);
            if is_other_tls || before.is_none_or(|before| before.needs_new_connections(after)) {
                pool.renew();
            }
        }
    }

    /// The name means other servers than it did: whoever watches them asks anew, and what they have said counts no more.
    pub(super) fn moved(&self, host: &str) {
        let _turn = self.changing();
        let settings = self.settings();
        let is_there = |section: &DatabaseConfig| section.hosts().any(|known| known == Host::Tcp(host));
        for old in self.all() {
            let leads_there = members(&old.section).into_iter().any(|(_, member)| is_there(member));
            if !leads_there || old.control.get().is_none() {
                continue;
            }
            match self.build(&old.section, database_settings(&settings.config, &old.section), &settings, self.cache()) {
                Ok(served) => {
                    let (served, name) = (Arc::new(served), old.section.name.clone());
                    self.databases.write().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::clone(&served));
                    served.start(&self.shared);
                    old.stop();
                    served.catch_up(&old);
                    let now = self.shared.clock.now();
                    forget_primary(&served.database, now);
                    served.database.cells.reopen(Closure::Primary, now, crate::client::random);
                }
                Err(error) => tracing::error!(%error, "what is known of a server that has moved stays as it is"),
            }
        }
    }

    /// What has to be done now and then.
    pub(super) fn maintain(&self) {
        self.users.maintain();
    }

    fn cache(&self) -> Option<Arc<ResultCache>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The one there is, or a new one, if there shall be one.
    fn next_cache(&self, config: &Config) -> Option<Arc<ResultCache>> {
        let observes = match config.cache.enabled {
            CacheMode::Off => return None,
            CacheMode::Observe => true,
            CacheMode::On => false,
        };
        let build = if observes { ResultCache::observing } else { ResultCache::new };
        let new = || build(config.cache.size, config.cache.max_result_size as usize);
        Some(self.cache().filter(|cache| cache.observes() == observes).unwrap_or_else(new))
    }

    /// The database as it is served already, if nothing about it has changed. A new one is watched by nobody yet.
    fn known_or_built(
        &self,
        section: &DatabaseConfig,
        settings: &Settings,
        cache: Option<&Arc<ResultCache>>,
    ) -> Result<Arc<Served>, ProcessError> {
        let wanted = database_settings(&settings.config, section);
        if let Some(known) = self.find(&section.name) {
            let running = self.settings();
            let same_routing = running.config.routing == settings.config.routing;
            let same_tls = running.tls.connect == settings.tls.connect;
            let is_same = known.section == *section && known.database.settings == wanted && same_routing && same_tls;
            let (is_told, wants) = (&running.config.cache, &settings.config.cache);
            // Without them nobody could be told: those of before stay.
            let same_carrier = wants.redis_url.is_none()
                || wants.secret.is_none()
                || (is_told.redis_url == wants.redis_url && is_told.secret == wants.secret);
            let is_same = is_same && same_carrier;
            let control = known.control.get().map(|control| &**control);
            if is_same && !asks_otherwise(control, section, settings, &section.name) {
                return Ok(known);
            }
        }
        Ok(Arc::new(self.build(section, wanted, settings, cache.cloned())?))
    }

    fn build(
        &self,
        section: &DatabaseConfig,
        wanted: DatabaseSettings,
        settings: &Settings,
        cache: Option<Arc<ResultCache>>,
    ) -> Result<Served, ProcessError> {
        let now = self.shared.clock.now();
        let names: Vec<Arc<str>> = members(section).into_iter().map(|(name, _)| name.into()).collect();
        let limits = Limits {
            max_lag: nanos(settings.config.routing.max_replica_lag),
            sample_interval: nanos(settings.config.routing.lag_check_interval),
            primary_reads: settings.config.routing.primary_reads,
            wait_for_lsn: nanos(settings.config.routing.wait_for_lsn_timeout),
        };
        let real = self.real_database(section, &settings.config, now);
        let before = self.find(&section.name).filter(|before| Arc::ptr_eq(&before.database.real, &real));
        let members = routing_members(section, |member| before.as_deref()?.state_of(section, member));
        let topology = Topology::new(members, limits, PrimarySamples::new(SAMPLES));
        let has_members = section.has_equals() || (wanted.split != ReadWriteSplit::Off && !section.replicas.is_empty());
        let needs_control = wanted.cache == CacheMode::On || has_members;
        topology.set_primary((!needs_control).then_some(MemberId(0)));
        let mut database =
            Database::new(section.name.as_str().into(), wanted, topology, names, cache, Arc::clone(&real));
        if let Some(before) = before.as_deref().filter(|before| before.has_members_of(section)) {
            database.entry = before.database.entry;
        }
        let database = Arc::new(database);
        let control = OnceLock::new();
        let guest = before.as_ref().and_then(|before| before.control.get()?.guest());
        let memory = before.as_deref().map(|before| before.memory_for(section)).unwrap_or_default();
        match ControlPlane::new(&database, section, settings, &self.shared, guest, memory) {
            Ok(plane) => _ = control.set(plane),
            Err(error) if needs_control => return Err(error),
            Err(error) => tracing::debug!(%error, "the first user who logs in will be asked as"),
        }
        Ok(Served { database, section: section.clone(), control })
    }

    /// Waits for the first catalog of every database that is watched already.
    pub(super) async fn wait_for_catalogs(&self, at_most: Duration) {
        let watched: Vec<_> = self.all().into_iter().filter(|served| served.control.get().is_some()).collect();
        let all = async {
            for served in watched {
                served.database.wait_for_catalog(at_most).await;
            }
        };
        if tokio::time::timeout(at_most, all).await.is_err() {
            tracing::warn!("some catalogs are not read yet");
        }
    }

    /// The data behind an entry, which other entries may lead to as well.
    fn real_database(&self, section: &DatabaseConfig, config: &Config, now: u64) -> Arc<RealDatabase> {
        let address = match address(section, config) {
            Address::Tcp(host, port) if host.eq_ignore_ascii_case("localhost") => Address::new("127.0.0.1", port),
            address => address,
        };
        let mut known = self.real.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, real| real.strong_count() > 0);
        let key = (address, section.server_dbname().to_owned());
        if let Some(real) = known.get(&key).and_then(Weak::upgrade) {
            return real;
        }
        let real = Arc::new(RealDatabase::new(new_cells(now), now));
        known.insert(key, Arc::downgrade(&real));
        real
    }

    pub(super) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn find(&self, name: &str) -> Option<Arc<Served>> {
        self.databases.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Every database that is being served, by name.
    pub(super) fn all(&self) -> Vec<Arc<Served>> {
        self.databases.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The database of that name; one that only `*` names is made when it is first asked for.
    pub(super) fn find_or_make(&self, name: &str) -> Result<Arc<Served>, Unserved> {
        self.unattended().remove(name);
        if let Some(found) = self.find(name) {
            return Ok(found);
        }
        let _turn = self.changing();
        // Somebody else may have made it meanwhile.
        if let Some(found) = self.find(name) {
            return Ok(found);
        }
        let settings = self.settings();
        let section = settings.config.database(name).ok_or(Unserved::Unknown)?;
        let built = self.build(&section, database_settings(&settings.config, &section), &settings, self.cache());
        let served = Arc::new(built.map_err(|error| {
            tracing::error!(db = name, %error, "database cannot be served");
            Unserved::Unknown
        })?);
        if !self.make_room(&settings.config) {
            tracing::warn!(db = name, "too many databases of the fallback entry");
            return Err(Unserved::TooMany);
        }
        self.databases.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), Arc::clone(&served));
        served.start(&self.shared);
        Ok(served)
    }

    fn unattended(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        self.unattended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the fallback entry has made.
    pub(super) fn made(&self, config: &Config) -> Vec<Arc<Served>> {
        let mut made = self.all();
        made.retain(|served| !config.databases.contains_key(&served.section.name));
        made
    }

    /// Clients are connected to these databases and to no other.
    pub(super) fn note_attended(&self, config: &Config, attended: &HashSet<Arc<str>>, now: Instant) {
        let made = self.made(config).into_iter().filter(|served| !attended.contains(&served.database.name));
        let mut unattended = self.unattended();
        let before = std::mem::take(&mut *unattended);
        let since = |name: &str| before.get(name).copied().unwrap_or(now);
        unattended.extend(made.map(|served| (served.section.name.clone(), since(&served.section.name))));
    }

    /// Is there room for one more that the fallback entry makes? The one that nobody has used for the longest time gives
    /// its place.
    fn make_room(&self, config: &Config) -> bool {
        if self.made(config).len() < MAX_FALLBACK_DATABASES {
            return true;
        }
        let is_idle = |name: &str| {
            let counts = self.pools_of(name).into_iter().map(|pool| pool.counts());
            counts.into_iter().all(|counts| counts.active + counts.login + counts.waiting == 0)
        };
        let longest = {
            let unattended = self.unattended();
            let idle = unattended.iter().filter(|(name, _)| is_idle(name) && !self.switches().is_paused(name));
            idle.min_by_key(|(_, since)| **since).map(|(name, _)| name.clone())
        };
        let Some(name) = longest else { return false };
        tracing::info!(db = %name, "database of the fallback entry forgotten: another one needs its place");
        self.remove(&name);
        true
    }

    fn limits(settings: &Settings, section: &DatabaseConfig, user: &str) -> PoolLimits {
        let main = &settings.config.pgbouncer;
        let text = |text: &str| Some(text).filter(|text| !text.is_empty()).map(Arc::from);
        PoolLimits {
            size: settings.config.effective_pool_size(section, user) as usize,
            least: settings.config.min_pool_size(section) as usize,
            reserve: settings.config.reserve_pool_size(section, user) as usize,
            reserve_timeout: main.reserve_pool_timeout,
            is_round_robin: main.server_round_robin,
            connect_timeout: settings.config.server_connect_timeout(),
            login_retry: main.server_login_retry,
            idle_timeout: main.server_idle_timeout,
            lifetime: settings.config.server_lifetime(section),
            check_delay: main.server_check_delay,
            check_query: match main.server_check_query.as_str() {
                EMPTY_QUERY => Some(Arc::from("")),
                query => text(query),
            },
            connect_query: section.connect_query.as_deref().and_then(text),
        }
    }

    fn refresh_pools(&self, settings: &Settings) {
        for pool in self.shared.pools.all() {
            let key = pool.key();
            let Some(served) = self.find(&key.database) else { continue };
            if let Some(section) = section_named(&served.section, &key.member) {
                pool.set_limits(Self::limits(settings, section, &key.user));
                self.share_limits(settings, &served.section, &pool);
            }
        }
        self.shared.pools.shares().wake();
    }

    /// What the pool shares with others of its database and of its user.
    fn share_limits(&self, settings: &Settings, section: &DatabaseConfig, pool: &Pool) {
        let database = settings.config.max_db_connections(section) as usize;
        let user = settings.config.max_user_connections(&pool.key().user) as usize;
        self.shared.pools.shares().limit(pool.claim(), database, user);
    }

    /// Reads what the operator has switched off.
    pub(super) fn switches(&self) -> RwLockReadGuard<'_, Switches> {
        self.switches.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes it, one operator after the other. Pools stop or go on lending accordingly.
    pub(super) fn switch<T>(&self, change: impl FnOnce(&mut Switches) -> T) -> T {
        let _turn = self.switching.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut self.switches.write().unwrap_or_else(PoisonError::into_inner));
        for pool in self.shared.pools.all() {
            let is_paused = self.switches().is_paused(&pool.key().database);
            pool.pause(is_paused);
        }
        changed
    }

    /// What names of servers mean.
    pub(super) fn resolver(&self) -> &Arc<Resolver> {
        &self.shared.resolver
    }

    /// A database of the fallback entry is made anew when it is asked for again.
    pub(super) fn forget(&self, name: &str) {
        let _turn = self.changing();
        self.remove(name);
    }

    fn remove(&self, name: &str) {
        self.unattended().remove(name);
        let forgotten = self.databases.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        if let Some(served) = forgotten {
            self.shared.pools.retain(|key| *key.database != *name);
            served.stop();
        }
    }

    /// Databases that the fallback entry has made, and how many it may make.
    pub(super) fn fallback_databases(&self) -> (u64, u64) {
        (self.made(&self.settings().config).len() as u64, MAX_FALLBACK_DATABASES as u64)
    }

    /// The result cache, where there is one.
    pub(super) fn result_cache(&self) -> Option<Arc<ResultCache>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is known of users beyond auth_file.
    pub(super) fn users(&self) -> &Users {
        &self.users
    }

    /// The names of servers that have been looked up.
    pub(super) fn dns_hosts(&self) -> Vec<CachedName> {
        self.shared.resolver.names()
    }

    fn pools_of(&self, database: &str) -> Vec<Arc<Pool>> {
        let mut pools = self.shared.pools.all();
        pools.retain(|pool| *pool.key().database == *database);
        pools
    }

    fn make_pool(&self, key: &PoolKey, served: &Served) -> Option<Arc<Pool>> {
        let settings = self.settings();
        let limits = Self::limits(&settings, section_named(&served.section, &key.member)?, &key.user);
        let (user, name, member) = (key.user.to_string(), key.database.to_string(), Arc::clone(&key.member));
        let (databases, first) = (Arc::clone(&self.databases), served.section.clone());
        let (in_force, users) = (Arc::clone(&self.settings), Arc::clone(&self.users));
        let resolver = Arc::clone(&self.shared.resolver);
        let login: LoginSource = Box::new(move |turns| {
            let settings = Arc::clone(&in_force.read().unwrap_or_else(PoisonError::into_inner));
            let dialer =
                Dialer { resolver: Arc::clone(&resolver), socket: SocketOptions::of(&settings.config.pgbouncer) };
            // As the file says now; a pool outlives a RELOAD.
            let served = databases.read().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
            let section = served.as_ref().map_or(&first, |served| &served.section);
            login(&settings, section_named(section, &member).unwrap_or(section), &user, &users, dialer, turns)
        });
        let shares = self.shared.pools.shares();
        let (clock, ids) = (self.shared.clock, Arc::clone(&self.shared.ids));
        let pool = Pool::new(key.clone(), login, limits, shares, clock, ids, self.shared.tallies.of(key));
        self.share_limits(&settings, &served.section, &pool);
        pool.pause(self.switches().is_paused(&key.database));
        Some(pool)
    }
}

fn login(
    settings: &Settings,
    section: &DatabaseConfig,
    user: &str,
    users: &Users,
    dialer: Dialer,
    turns: Turns,
) -> Login {
    let own = section.password.as_ref().map(|password| Secret::parse(password.reveal()));
    let (listed, keys) = users.secret(settings, &section.name, user);
    Login {
        address: host_in_turn(section, &settings.config, turns),
        user: user.to_owned(),
        secret: own.or(listed),
        keys,
        database: section.server_dbname().to_owned(),
        parameters: login_parameters(section),
        dialer,
        tls: Arc::clone(&settings.tls.connect),
    }
}

fn database_settings(config: &Config, section: &DatabaseConfig) -> DatabaseSettings {
    if Ablation::Fence.is_left_out() {
        return DatabaseSettings {
            read_your_writes: crate::config::ReadYourWrites::Off,
            ..configured_settings(config, section)
        };
    }
    configured_settings(config, section)
}

fn configured_settings(config: &Config, section: &DatabaseConfig) -> DatabaseSettings {
    let of_user = |(name, user): (&String, &UserConfig)| Some((name.as_str().into(), nanos(user.max_staleness?)));
    DatabaseSettings {
        max_staleness: section.max_staleness.map(nanos),
        users_staleness: config.users.iter().filter_map(of_user).collect(),
        split: config.routing.read_write_split,
        read_your_writes: config.read_your_writes(),
        follows_primary: config.routing.role_detection == RoleDetection::Auto,
        cache: config.cache.enabled,
        shares_answers: config.cache.share == Share::Acl,
        scopes_row_security: config.cache.rls == RowSecurity::Scoped,
        caches_in_transactions: config.cache.in_transactions,
        cross_checks: config.cache.cross_check,
        lazy_begin: config.routing.lazy_begin,
        lifetimes: Lifetimes::new(nanos(config.cache.ttl), &section.name, &config.cache_ttl),
        direct: (config.cache.enabled != CacheMode::Off && config.cache.wal_invalidation).then(|| DirectSettings {
            publication: config.cache.wal_publication.as_str().into(),
            max_staleness: nanos(config.cache.max_staleness_direct),
        }),
        has_own_names: section.connect_query.as_deref().is_some_and(may_change_names),
        has_own_isolation: section.connect_query.as_deref().is_some_and(may_change_isolation),
    }
}

#[cfg(test)]
mod tests;
