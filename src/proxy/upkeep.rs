//! What is looked after three times a second, as PgBouncer does: timeouts are that precise.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;

use super::{Proxy, service_manager, stats_period, suspension};
use crate::{
    client::{Directory, enforce},
    config::Config,
    net::Address,
    routing::MemberId,
    server::{Gone, ServerInfo},
};

/// The interval.
const MAINTENANCE: Duration = Duration::from_millis(333);
/// A name in use is looked up again within this, or stays as it is.
const LOOK_UP: Duration = Duration::from_secs(5);

/// Database and server user.
type PoolUser = (Arc<str>, Arc<str>);

/// Worn connections, limits, names, statistics.
pub(super) fn start(proxy: &Arc<Proxy>) {
    let (proxy, stop) = (Arc::clone(proxy), proxy.cancel.clone());
    let tracker = proxy.tracker.clone();
    tracker.spawn(async move {
        let mut ticks = tokio::time::interval(MAINTENANCE);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut rolled = Instant::now();
        let mut upkeep = Upkeep::default();
        loop {
            // Both branches are cancel safe.
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let settings = proxy.context.settings();
            suspension::end_if_deserted(&proxy);
            if !proxy.context.is_suspended.load(Ordering::Relaxed) {
                let clients = proxy.context.clients.iter().map(|client| Arc::clone(client.value()));
                enforce(clients, &settings.config, proxy.context.clock.now());
                upkeep.turn(&proxy, &settings.config);
            }
            proxy.installation.maintain();
            if rolled.elapsed() >= stats_period(&settings.config) {
                rolled = Instant::now();
                let averages = proxy.context.insight.roll(rolled);
                let line = crate::insight::log_line(&averages);
                if settings.config.pgbouncer.log_stats {
                    tracing::info!("{line}");
                }
                service_manager::status(&line);
            }
        }
    });
}

/// What one turn leaves to the next.
#[derive(Default)]
struct Upkeep {
    /// Databases of the fallback entry that nobody uses, and since when.
    unused: HashMap<Arc<str>, Instant>,
    /// Names that are being looked up again.
    looking_up: Option<JoinHandle<()>>,
}

impl Upkeep {
    fn turn(&mut self, proxy: &Arc<Proxy>, config: &Config) {
        self.look_after_names(proxy);
        make_forced_pools(proxy, config);
        let attached = attached(proxy, config);
        for pool in proxy.context.pools.all() {
            let key = pool.key();
            let is_attached = attached.contains(&(Arc::clone(&key.database), Arc::clone(&key.user)));
            let is_forced = config.database(&key.database).is_some_and(|section| section.user.is_some());
            pool.maintain(is_attached, is_forced);
        }
        forget_idle_pools(proxy, config.pgbouncer.pool_idle_timeout);
        self.forget_unused_databases(proxy, config);
    }

    /// Server connections to an address that has left DNS close; names in use are looked up again in time to notice.
    fn look_after_names(&mut self, proxy: &Arc<Proxy>) {
        let resolver = proxy.installation.resolver();
        let gone = resolver.take_gone();
        if !gone.is_empty() {
            for pool in proxy.context.pools.all() {
                pool.retire(|server| gone.iter().any(|gone| is_at(server, gone)));
            }
            let names: HashSet<_> = gone.iter().map(|gone| gone.name.as_str()).collect();
            names.into_iter().for_each(|name| proxy.installation.moved(name));
        }
        let is_busy = self.looking_up.as_ref().is_some_and(|task| !task.is_finished());
        let stale: HashSet<_> =
            resolver.names().into_iter().filter(|name| name.ttl == 0).map(|name| name.name).collect();
        if is_busy || stale.is_empty() {
            return;
        }
        let used = proxy.context.pools.all().into_iter().flat_map(|pool| pool.servers()).filter_map(|server| {
            match &server.address {
                Address::Tcp(host, _) if stale.contains(host) => Some(host.clone()),
                _ => None,
            }
        });
        let used: HashSet<_> = used.collect();
        if !used.is_empty() {
            let resolver = Arc::clone(resolver);
            self.looking_up = Some(proxy.tracker.spawn(async move {
                for name in used {
                    resolver.refresh(&name, LOOK_UP).await;
                }
            }));
        }
    }

    /// `autodb_idle_timeout`
    fn forget_unused_databases(&mut self, proxy: &Proxy, config: &Config) {
        let limit = config.pgbouncer.autodb_idle_timeout;
        let made: Vec<_> =
            proxy.installation.made(config).iter().map(|served| Arc::clone(&served.database.name)).collect();
        let attended: HashSet<_> = match made.is_empty() {
            true => HashSet::new(),
            false => proxy.context.clients.iter().map(|client| Arc::clone(&client.database)).collect(),
        };
        let now = Instant::now();
        proxy.installation.note_attended(config, &attended, now);
        if made.is_empty() || limit.is_zero() {
            self.unused.clear();
            return;
        }
        let pools = proxy.context.pools.all().into_iter();
        let busy = pools.filter(|pool| !pool.servers().is_empty() || pool.counts().waiting > 0);
        let in_use: HashSet<_> = busy.map(|pool| Arc::clone(&pool.key().database)).chain(attended).collect();
        self.unused.retain(|name, _| made.contains(name) && !in_use.contains(name));
        for name in made.iter().filter(|name| !in_use.contains(*name)) {
            let since = *self.unused.entry(name.clone()).or_insert(now);
            if now.duration_since(since) >= limit && !proxy.installation.switches().is_paused(name) {
                tracing::info!(db = %name, "database of the fallback entry forgotten: nobody has used it");
                proxy.installation.forget(name);
            }
        }
    }
}

fn is_at(server: &ServerInfo, gone: &Gone) -> bool {
    let is_named = matches!(&server.address, Address::Tcp(host, _) if *host == gone.name);
    is_named && server.peer.is_some_and(|peer| peer.ip() == gone.address)
}

/// Whose clients are connected, where a setting asks for it.
fn attached(proxy: &Proxy, config: &Config) -> HashSet<PoolUser> {
    let main = &config.pgbouncer;
    let sections = || config.databases.values().chain(&config.fallback);
    let asks = !main.pool_idle_timeout.is_zero() || sections().any(|section| config.min_pool_size(section) > 0);
    if !asks {
        return HashSet::new();
    }
    let clients = proxy.context.clients.iter();
    clients.map(|client| (Arc::clone(&client.database), Arc::clone(client.pool_user()))).collect()
}

/// `min_pool_size` holds for a database with a user of its own before its first client has come.
fn make_forced_pools(proxy: &Proxy, config: &Config) {
    for section in config.databases.values().filter(|section| config.min_pool_size(section) > 0) {
        let Some(user) = section.user.as_deref() else { continue };
        let Ok(database) = proxy.installation.database(&section.name) else { continue };
        let user: Arc<str> = user.into();
        for member in 0..=section.replicas.len() {
            // It is in the register from now on.
            drop(proxy.installation.pool(&database, &user, MemberId(member as u16)));
        }
    }
}

/// `pool_idle_timeout`
fn forget_idle_pools(proxy: &Proxy, limit: Duration) {
    if limit.is_zero() {
        return;
    }
    let pools = proxy.context.pools.all();
    let idle = pools.iter().filter(|pool| pool.empty_for().is_some_and(|empty| empty >= limit));
    let keys: Vec<_> = idle.map(|pool| pool.key().clone()).collect();
    if !keys.is_empty() {
        proxy.context.pools.retain(|key| !keys.contains(key));
    }
}
