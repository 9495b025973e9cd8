//! What the console sees of the process, and how it acts on it.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use super::{Proxy, Stop, figures};
use crate::{
    admin::{
        Act, ConsoleError, ConsoleState,
        command::{FlushTarget, RouteTarget, Shutdown},
        rows::{
            BufferFigures, CacheRow, CacheTableRow, ConfigRow, ConnectionRow, DnsHostRow, PauseState, PinRow, QueryRow,
            ReplicaRow, RouteRow, SlowRow, UserRow,
        },
    },
    client::{Activity, ClientInfo, random},
    cluster::Database,
    config::{CacheMode, ReadYourWrites},
    net::Peer,
    routing::{Fence, Freshness, MemberId, RouteReason},
    server::CachedName,
    telemetry::figures::{DatabaseRow, ListRow, PgbouncerView, PoolRow, StatsRow},
};

/// How often PAUSE looks whether all server connections are gone.
const PAUSE_POLL: Duration = Duration::from_millis(20);

/// The console's view; it dies with the process.
pub(super) struct View {
    proxy: Weak<Proxy>,
}

impl View {
    pub(super) fn new(proxy: Weak<Proxy>) -> Self {
        Self { proxy }
    }

    fn read<T: Default>(&self, read: impl FnOnce(&Proxy) -> T) -> T {
        self.proxy.upgrade().map(|proxy| read(&proxy)).unwrap_or_default()
    }

    fn act(&self, act: impl FnOnce(&Proxy) -> Result<(), ConsoleError>) -> Act<'_> {
        let outcome = self.proxy.upgrade().map_or(Err(ConsoleError::ShuttingDown), |proxy| act(&proxy));
        Box::pin(std::future::ready(outcome))
    }
}

impl PgbouncerView for View {
    fn version(&self) -> String {
        figures::version()
    }

    fn pools(&self) -> Vec<PoolRow> {
        self.read(figures::pools)
    }

    fn databases(&self) -> Vec<DatabaseRow> {
        self.read(figures::databases)
    }

    fn stats(&self) -> Vec<StatsRow> {
        self.read(figures::stats)
    }

    fn lists(&self) -> Vec<ListRow> {
        self.read(figures::lists)
    }

    fn config_number(&self, key: &str) -> Option<f64> {
        self.read(|proxy| figures::config_number(proxy, key))
    }
}

fn client_row(proxy: &Proxy, client: &ClientInfo) -> ConnectionRow {
    let clock = proxy.context.clock;
    let requested = client.requested_at.load(Ordering::Relaxed);
    let (addr, port, remote_pid) = match client.peer {
        Peer::Tcp(address) => (address.ip().to_string(), address.port(), 0),
        Peer::Unix { pid, .. } => ("unix".to_owned(), 0, u32::try_from(pid).unwrap_or(0)),
    };
    let (local_addr, local_port) = client.local.columns();
    let is_waiting = client.activity() == Activity::Waiting;
    ConnectionRow {
        user: Some(client.user.to_string()),
        database: Some(client.database.to_string()),
        replication: "none",
        state: match client.activity() {
            Activity::Idle => "idle",
            Activity::Active => "active",
            Activity::Waiting => "waiting",
        },
        addr,
        port,
        local_addr,
        local_port,
        connect_time: clock.wall(client.connected_at),
        request_time: clock.wall(requested),
        wait_us: if is_waiting { clock.now().saturating_sub(requested) / 1000 } else { 0 },
        close_needed: false,
        ptr: client.id,
        link: client.server().map(|server| server.id),
        remote_pid,
        tls: String::new(),
        application_name: client.application_name.clone(),
        prepared_statements: client.statements.load(Ordering::Relaxed),
        id: client.id,
        buffers: BufferFigures::default(),
    }
}

impl ConsoleState for View {
    fn clients(&self) -> Vec<ConnectionRow> {
        self.read(|proxy| {
            let mut rows: Vec<_> =
                proxy.context.clients.iter().map(|client| client_row(proxy, client.value())).collect();
            rows.sort_by_key(|row| row.id);
            rows
        })
    }

    fn servers(&self) -> Vec<ConnectionRow> {
        self.read(|proxy| {
            let clock = proxy.context.clock;
            let mut rows = Vec::new();
            for pool in proxy.context.pools.all() {
                for server in pool.servers() {
                    let client = server.client.load(Ordering::Relaxed);
                    let (addr, port) = figures::peer(&server.address);
                    let (local_addr, local_port) = server.local.columns();
                    rows.push(ConnectionRow {
                        user: Some(pool.key().user.to_string()),
                        database: Some(pool.key().database.to_string()),
                        replication: "none",
                        state: if client == 0 { "idle" } else { "active" },
                        addr,
                        port,
                        local_addr,
                        local_port,
                        connect_time: clock.wall(server.connected_at),
                        request_time: clock.wall(server.requested_at.load(Ordering::Relaxed)),
                        wait_us: 0,
                        close_needed: false,
                        ptr: server.id,
                        link: (client != 0).then_some(client),
                        remote_pid: server.remote_pid,
                        tls: String::new(),
                        application_name: String::new(),
                        prepared_statements: server.statements.load(Ordering::Relaxed),
                        id: server.id,
                        buffers: BufferFigures::default(),
                    });
                }
            }
            rows.sort_by_key(|row| row.id);
            rows
        })
    }

    fn dns_hosts(&self) -> Vec<DnsHostRow> {
        self.read(|proxy| {
            let row = |known: CachedName| DnsHostRow {
                hostname: known.name,
                ttl: known.ttl / 1_000_000_000,
                addrs: known.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            };
            proxy.installation.dns_hosts().into_iter().map(row).collect()
        })
    }

    fn users(&self) -> Vec<UserRow> {
        self.read(|proxy| {
            let settings = proxy.context.settings();
            let rows = settings.config.users.iter().map(|(name, user)| UserRow {
                name: name.clone(),
                pool_size: user.pool_size.map(u64::from),
                reserve_pool_size: user.reserve_pool_size.map(u64::from),
                pool_mode: user.pool_mode.map(|mode| mode.label().to_owned()),
                max_user_connections: u64::from(settings.config.max_user_connections(name)),
                max_user_client_connections: u64::from(settings.config.max_user_client_connections(name)),
                current_client_connections: proxy.context.clients.iter().filter(|client| *client.user == **name).count()
                    as u64,
                current_connections: proxy
                    .context
                    .pools
                    .all()
                    .iter()
                    .filter(|pool| *pool.key().user == **name)
                    .map(|pool| pool.servers().len() as u64)
                    .sum(),
            });
            rows.collect()
        })
    }

    fn config(&self) -> Vec<ConfigRow> {
        self.read(|proxy| {
            let rows = proxy.context.settings().config.show().into_iter();
            let rows = rows.map(|row| ConfigRow {
                key: row.key,
                value: row.value,
                default: row.default,
                changeable: row.changeable,
            });
            rows.collect()
        })
    }

    fn pause_state(&self) -> PauseState {
        self.read(|proxy| if proxy.installation.is_paused(None) { PauseState::Paused } else { PauseState::Active })
    }

    fn replicas(&self) -> Vec<ReplicaRow> {
        self.read(|proxy| {
            let rows = proxy.installation.all().into_iter().flat_map(|served| {
                let members = 0..served.database.member_names.len();
                members.map(move |index| (Arc::clone(&served), MemberId(index as u16)))
            });
            rows.filter_map(|(served, member)| replica_row(proxy, &served, member)).collect()
        })
    }

    fn cache(&self) -> Vec<CacheRow> {
        self.read(|proxy| proxy.installation.all().iter().map(|served| cache_row(&served.database)).collect())
    }

    fn cache_tables(&self) -> Vec<CacheTableRow> {
        self.read(|proxy| {
            let mut rows = Vec::new();
            for served in proxy.installation.all() {
                let database = &served.database;
                let catalog = database.catalog();
                for cell in database.cells.report() {
                    let name = catalog.as_ref().and_then(|catalog| catalog.snapshot.relation_name(cell.relation));
                    rows.push(CacheTableRow {
                        database: database.name.to_string(),
                        relation: name.unwrap_or_else(|| cell.relation.0.to_string()),
                        invalidations: u64::from(cell.bumps),
                        in_flight_writes: u64::from(cell.in_flight),
                        watermark: match database.cells.watermark(Some(&[cell.relation]), database.topology.samples()) {
                            crate::routing::Watermark::Known(lsn) => Some(lsn.to_string()),
                            crate::routing::Watermark::Unknown => None,
                        },
                    });
                }
            }
            rows
        })
    }

    fn queries(&self, count: usize) -> Vec<QueryRow> {
        self.read(|proxy| proxy.context.insight.top(count))
    }

    fn slow(&self, count: usize) -> Vec<SlowRow> {
        self.read(|proxy| proxy.context.insight.slow(count))
    }

    fn pins(&self) -> Vec<PinRow> {
        self.read(|proxy| {
            let now = proxy.context.clock.now();
            let mut rows = Vec::new();
            for client in proxy.context.clients.iter() {
                let pins = client.pins();
                let Some(server) = client.server().filter(|_| !pins.is_empty()) else { continue };
                let since = server.requested_at.load(Ordering::Relaxed);
                rows.push(PinRow {
                    database: client.database.to_string(),
                    user: client.user.to_string(),
                    client_id: client.id,
                    client_addr: client.peer.to_string(),
                    server_id: server.id,
                    remote_pid: server.remote_pid,
                    reason: pins.labels().collect::<Vec<_>>().join(","),
                    age_seconds: now.saturating_sub(since) as f64 / 1e9,
                });
            }
            rows
        })
    }

    fn route(&self, target: Option<&RouteTarget>, sql: &str) -> Result<Vec<RouteRow>, ConsoleError> {
        let proxy = self.proxy.upgrade().ok_or(ConsoleError::ShuttingDown)?;
        let served = match target {
            Some(target) => {
                let found = proxy.installation.find_or_make(&target.database);
                found.ok_or_else(|| ConsoleError::NoSuchDatabase(target.database.clone()))?
            }
            None => match &proxy.installation.all()[..] {
                [only] => Arc::clone(only),
                _ => return Err(ConsoleError::RouteDatabaseNeeded),
            },
        };
        let user = target.and_then(|target| target.user.clone()).or_else(|| served.section.user.clone());
        Ok(route_rows(&proxy, &served.database, &user.unwrap_or_default(), sql))
    }

    fn reload(&self) -> Act<'_> {
        self.act(|proxy| {
            proxy.reload().map_err(|error| {
                tracing::error!(%error, "reload failed, the running configuration stays");
                ConsoleError::ReloadFailed
            })
        })
    }

    fn set<'a>(&'a self, key: &'a str, value: &'a str) -> Act<'a> {
        self.act(|proxy| {
            let running = proxy.context.settings();
            let mut config = running.config.clone();
            config.set(key, value).map_err(|_| ConsoleError::SetFailed)?;
            let settings = crate::client::Settings { config, users: running.users.clone() };
            proxy.install(settings).map_err(|_| ConsoleError::SetFailed)
        })
    }

    fn pause<'a>(&'a self, database: Option<&'a str>) -> Act<'a> {
        let Some(proxy) = self.proxy.upgrade() else {
            return Box::pin(std::future::ready(Err(ConsoleError::ShuttingDown)));
        };
        Box::pin(async move {
            if let Some(name) = database
                && proxy.installation.find_or_make(name).is_none()
            {
                return Err(ConsoleError::NoSuchDatabase(name.to_owned()));
            }
            proxy.installation.pause(database, true);
            let are_gone = || {
                let pools = proxy.context.pools.all();
                let mut pools = pools.iter().filter(|pool| database.is_none_or(|name| *pool.key().database == *name));
                pools.all(|pool| pool.servers().is_empty())
            };
            while !are_gone() {
                tokio::time::sleep(PAUSE_POLL).await;
            }
            Ok(())
        })
    }

    fn abandon_pause(&self, database: Option<&str>) {
        if let Some(proxy) = self.proxy.upgrade() {
            proxy.installation.pause(database, false);
        }
    }

    fn resume<'a>(&'a self, database: Option<&'a str>) -> Act<'a> {
        self.act(|proxy| {
            if proxy.context.is_shutting_down.load(Ordering::Relaxed) {
                return Err(ConsoleError::ShuttingDown);
            }
            match database {
                None if !proxy.installation.is_paused(None) => return Err(ConsoleError::NotPaused),
                Some(name) if proxy.installation.find_or_make(name).is_none() => {
                    return Err(ConsoleError::NoSuchDatabase(name.to_owned()));
                }
                Some(name) if !proxy.installation.is_paused_by_name(name) => {
                    return Err(ConsoleError::DatabaseNotPaused(name.to_owned()));
                }
                _ => {}
            }
            proxy.installation.pause(database, false);
            Ok(())
        })
    }

    fn shutdown(&self, mode: Shutdown) -> Act<'_> {
        self.act(|proxy| {
            proxy.stop(match mode {
                Shutdown::Immediate => Stop::Now,
                Shutdown::WaitForServers => Stop::WaitForServers,
                Shutdown::WaitForClients => Stop::WaitForClients,
            });
            Ok(())
        })
    }

    fn flush_cache<'a>(&'a self, target: &'a FlushTarget) -> Act<'a> {
        self.act(|proxy| {
            let now = proxy.context.clock.now();
            match target {
                FlushTarget::All => {
                    for served in proxy.installation.all() {
                        served.database.cells.flush(None, now, random);
                    }
                }
                FlushTarget::Database(name) => {
                    let served = proxy.installation.find(name);
                    let served = served.ok_or_else(|| ConsoleError::NoSuchDatabase(name.clone()))?;
                    served.database.cells.flush(None, now, random);
                }
                FlushTarget::Table { database, schema, table } => {
                    let served = proxy.installation.find(database);
                    let served = served.ok_or_else(|| ConsoleError::NoSuchDatabase(database.clone()))?;
                    let catalog = served.database.catalog();
                    let relation = catalog.as_ref().and_then(|catalog| catalog.snapshot.relation_named(schema, table));
                    let unknown = || ConsoleError::NoSuchTable(format!("{schema}.{table}"));
                    served.database.cells.flush(Some(relation.ok_or_else(unknown)?), now, random);
                }
            }
            Ok(())
        })
    }

    fn ban<'a>(&'a self, member: &'a str) -> Act<'a> {
        self.act(|proxy| set_ban(proxy, member, u64::MAX))
    }

    fn unban<'a>(&'a self, member: &'a str) -> Act<'a> {
        self.act(|proxy| set_ban(proxy, member, 0))
    }
}

fn set_ban(proxy: &Proxy, name: &str, until: u64) -> Result<(), ConsoleError> {
    for served in proxy.installation.all() {
        let members = served.database.topology.members();
        if let Some(member) = members.iter().find(|member| *member.name == *name && member.id != MemberId(0)) {
            member.state.ban_until(until);
            return Ok(());
        }
    }
    Err(ConsoleError::NoSuchMember(name.to_owned()))
}

fn replica_row(proxy: &Proxy, served: &super::directory::Served, id: MemberId) -> Option<ReplicaRow> {
    let database = &served.database;
    let member = database.topology.member(id)?;
    let section = super::directory::member_section(&served.section, id)?;
    let address = super::directory::address(section, &proxy.context.settings().config);
    let (host, port) = figures::peer(&address);
    let now = proxy.context.clock.now();
    let is_primary = database.primary() == id;
    let lag = database.topology.lag(id, now);
    let lsn = match is_primary {
        true => database.topology.samples().newest().map(|sample| sample.lsn),
        false => Some(member.state.replayed()),
    };
    let pools = figures::member_pools(proxy, &database.name, id);
    Some(ReplicaRow {
        database: database.name.to_string(),
        member: member.name.to_string(),
        host,
        port,
        role: match (is_primary, member.state.in_recovery()) {
            (true, _) => "primary",
            (false, Some(true)) => "replica",
            (false, _) => "unknown",
        },
        state: if member.state.is_banned(now) { "banned" } else { member.state.health().label() },
        reason: None,
        weight: u64::from(member.weight),
        lag_seconds: if is_primary { None } else { lag.map(|nanos| nanos as f64 / 1e9) },
        lsn: lsn.map(|lsn| lsn.to_string()),
        in_flight: u64::from(member.state.in_flight()),
        connections: pools.iter().map(|pool| pool.servers().len() as u64).sum(),
        requests: member.state.requests(),
        errors: member.state.errors(),
    })
}

fn guarantee(database: &Database) -> String {
    let promise = match database.settings.read_your_writes {
        ReadYourWrites::Database => "G1: reads include every write acknowledged through this process",
        ReadYourWrites::Session => "G1 for cached answers; other reads include the session's own writes",
        ReadYourWrites::Off => "G1 for cached answers; other reads as fresh as max_replica_lag",
    };
    format!("{promise}; writes that bypass it: ttl")
}

fn cache_row(database: &Database) -> CacheRow {
    let closure = database.cells.closure();
    let Some(cache) = &database.cache else {
        let state = if database.settings.cache == CacheMode::Observe { "observe" } else { "off" };
        return CacheRow { database: database.name.to_string(), state, ..CacheRow::default() };
    };
    let stats = cache.stats();
    let asked = stats.hits + stats.misses;
    CacheRow {
        database: database.name.to_string(),
        state: closure.map_or("on", |closure| closure.label()),
        guarantee: guarantee(database),
        entries: stats.entries,
        bytes: stats.bytes,
        max_bytes: stats.capacity_bytes,
        hits: stats.hits,
        shared_hits: 0,
        misses: stats.misses,
        bypasses: 0,
        hit_ratio: (asked > 0).then(|| stats.hits as f64 / asked as f64),
        fills: stats.stored,
        void_fills: stats.overtaken,
        invalidations: database.cells.report().iter().map(|cell| u64::from(cell.bumps)).sum(),
        evictions: 0,
    }
}

fn route_rows(proxy: &Proxy, database: &Arc<Database>, user: &str, sql: &str) -> Vec<RouteRow> {
    let statement = proxy.context.analyzer.analyze(sql);
    let texts = statement.parts.iter().map(|part| sql.get(part.start..part.end).unwrap_or(sql).trim().to_owned());
    let mut texts: Vec<String> = texts.collect();
    if texts.is_empty() {
        texts.push(sql.to_owned());
    }
    // A string is placed as a whole, by its strongest statement.
    let whole = database.meaning(&statement, user);
    let row = |text: String| {
        let statement = proxy.context.analyzer.analyze(&text);
        let meaning = database.meaning(&statement, user);
        let (route, member, reason) = place(proxy, database, &whole);
        let (cache, cache_reason) = match (&database.cache, &whole.cacheable) {
            (None, _) => ("off", "off"),
            (Some(_), Err(bypass)) => ("bypass", bypass.label()),
            (Some(_), Ok(_)) => ("miss", "cacheable"),
        };
        let catalog = database.catalog();
        let touched: Vec<_> = match (&meaning.cacheable, &meaning.writes) {
            (Ok(relations), _) => relations.to_vec(),
            (_, crate::catalog::Writes::Static(relations)) => relations.to_vec(),
            _ => Vec::new(),
        };
        let names = touched.iter().filter_map(|relation| catalog.as_ref()?.snapshot.relation_name(*relation));
        RouteRow {
            statement: statement.normalized.to_string(),
            access: match meaning.access {
                crate::catalog::Access::Read => "read",
                crate::catalog::Access::Primary => "primary",
            },
            route,
            member,
            reason,
            cache,
            cache_reason,
            relations: names.collect::<Vec<_>>().join(","),
        }
    };
    texts.into_iter().map(row).collect()
}

fn place(
    proxy: &Proxy,
    database: &Database,
    meaning: &crate::catalog::Meaning,
) -> (&'static str, Option<String>, &'static str) {
    let name = |member| database.member_name(member).map(|name| name.to_string());
    let primary = database.primary();
    if !database.settings.splits_reads {
        return ("primary", name(primary), "split_off");
    }
    if meaning.access == crate::catalog::Access::Primary {
        return ("primary", name(primary), meaning.reason.label());
    }
    let relations = meaning.cacheable.as_deref().ok();
    let fence = database.read_fence(Fence::NONE, relations);
    let choice = database.route(fence, Freshness::Fenced, proxy.context.clock.now());
    match choice.member {
        Some(member) if choice.reason == RouteReason::Replica => ("replica", name(member), meaning.reason.label()),
        _ => ("primary", name(primary), choice.reason.label()),
    }
}
