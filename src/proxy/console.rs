//! What the console sees of the process, and how it acts on it.

use std::{
    future::Future,
    sync::{Arc, Weak},
};

mod cache_tables;
mod control;
mod guarantee;
mod route;
mod rows;

use self::{
    cache_tables::cache_table_rows,
    route::route_rows,
    rows::{cache_row, carrier_row, client_row, opening_row, replica_row, server_row, visitor_row},
};
pub(super) use self::{control::POLL, rows::users};
use super::{
    Proxy, Stop, figures, suspension,
    switches::Switches,
    tables::{Table, tables},
};
use crate::{
    admin::{
        Act, ConsoleError, ConsoleState, PauseTicket,
        command::{FlushTarget, RouteTarget, Shutdown},
        rows::{
            AdviceRow, CacheRow, CacheTableRow, ConfigRow, ConnectionRow, DnsHostRow, MemoryRow, PauseState,
            PeerPoolRow, PeerRow, PinRow, QueryRow, ReplicaRow, RouteRow, SlowRow, UserRow,
        },
    },
    config::StatsColumns,
    net::tls::{TlsSetup, trusted_file},
    routing::MemberId,
    server::CachedName,
    telemetry::figures::{DatabaseRow, ListRow, PgbouncerView, PoolRow, StatsRow},
};

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

    /// What may take its time; it holds the process meanwhile.
    fn act_slowly<'a, F>(&'a self, act: impl FnOnce(Arc<Proxy>) -> F) -> Act<'a>
    where
        F: Future<Output = Result<(), ConsoleError>> + Send + 'a,
    {
        match self.proxy.upgrade() {
            Some(proxy) => Box::pin(act(proxy)),
            None => Box::pin(std::future::ready(Err(ConsoleError::ShuttingDown))),
        }
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

impl ConsoleState for View {
    fn clients(&self) -> Vec<ConnectionRow> {
        self.read(|proxy| {
            let clients = proxy.context.clients.iter().map(|client| client_row(proxy, client.value()));
            let mut rows: Vec<_> = clients.collect();
            let visitors = proxy.context.visitors.iter();
            let cancelling = visitors.filter(|visitor| visitor.cancels().is_some());
            rows.extend(cancelling.map(|visitor| visitor_row(proxy, visitor.value())));
            rows.sort_by_key(|row| row.id);
            rows
        })
    }

    fn logins(&self) -> Vec<ConnectionRow> {
        self.read(|proxy| {
            let logins = proxy.context.visitors.iter().filter(|visitor| visitor.cancels().is_none());
            let mut rows: Vec<_> = logins.map(|visitor| visitor_row(proxy, visitor.value())).collect();
            rows.sort_by_key(|row| row.id);
            rows
        })
    }

    fn servers(&self) -> Vec<ConnectionRow> {
        self.read(|proxy| {
            let pools = proxy.context.pools.all();
            let mut rows = Vec::new();
            for pool in &pools {
                rows.extend(pool.states().iter().map(|(server, state)| server_row(proxy, pool, server, state)));
                rows.extend(pool.openings().iter().map(|opening| opening_row(proxy, pool, opening)));
            }
            rows.extend(proxy.context.visitors.iter().filter_map(|visitor| carrier_row(proxy, visitor.value())));
            rows.sort_by_key(|row| row.id);
            rows
        })
    }

    fn memory(&self) -> Vec<MemoryRow> {
        let row = |table: Table| MemoryRow {
            name: table.name.to_owned(),
            size: table.size as u64,
            used: table.entries,
            free: 0,
            memtotal: table.entries.saturating_mul(table.size as u64),
        };
        self.read(|proxy| tables(proxy).into_iter().map(row).collect())
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

    fn peers(&self) -> Vec<PeerRow> {
        self.read(|proxy| {
            let settings = proxy.context.settings();
            let default_size = settings.config.pgbouncer.default_pool_size;
            let rows = settings.config.peers.iter().map(|(peer_id, peer)| PeerRow {
                peer_id: u64::from(*peer_id),
                host: Some(peer.host.clone()),
                port: peer.port,
                pool_size: u64::from(peer.pool_size.unwrap_or(default_size)),
            });
            rows.collect()
        })
    }

    fn peer_pools(&self) -> Vec<PeerPoolRow> {
        self.read(|proxy| {
            let figures = proxy.context.peers.figures(&proxy.context.settings().config).into_iter();
            let rows = figures.map(|figures| PeerPoolRow {
                peer_id: u64::from(figures.peer_id),
                cl_active_cancel_req: figures.active,
                cl_waiting_cancel_req: figures.waiting,
                sv_active_cancel: figures.active,
                sv_login: figures.connecting,
            });
            rows.collect()
        })
    }

    fn users(&self) -> Vec<UserRow> {
        self.read(users)
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

    fn stats_columns(&self) -> StatsColumns {
        self.proxy
            .upgrade()
            .map_or_else(StatsColumns::default, |proxy| proxy.context.settings().config.pgbouncer.stats_columns)
    }

    fn pause_state(&self) -> PauseState {
        self.read(|proxy| proxy.installation.switches().state_of_all())
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
        self.read(|proxy| {
            let now = proxy.context.clock.now();
            proxy.installation.all().iter().map(|served| cache_row(&served.database, now)).collect()
        })
    }

    fn cache_tables(&self) -> Vec<CacheTableRow> {
        self.read(|proxy| {
            proxy.installation.all().iter().flat_map(|served| cache_table_rows(&served.database)).collect()
        })
    }

    fn cache_advice(&self, count: usize) -> Vec<AdviceRow> {
        self.read(|proxy| proxy.context.insight.advice(count))
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
                let since = client.pinned_since().unwrap_or(now);
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
                let found = proxy.installation.find_or_make(&target.database).ok();
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
            let _turn = proxy.changing();
            let running = proxy.context.settings();
            let mut config = running.config.clone();
            config.set(key, value).map_err(|_| ConsoleError::SetFailed)?;
            let tls = match key.contains("_tls") || key == "auth_type" {
                true => TlsSetup::load(&config.pgbouncer).map_err(|error| {
                    tracing::error!(%error, "TLS settings could not be applied");
                    ConsoleError::SetFailed
                })?,
                false => running.tls.clone(),
            };
            let rules = std::sync::Arc::new(super::read_rules(&config).map_err(|_| ConsoleError::SetFailed)?);
            let roots = &config.cache.redis_tls_ca_file;
            let redis_roots = match *roots == running.config.cache.redis_tls_ca_file {
                true => running.redis_roots.clone(),
                false => trusted_file("cache.redis_tls_ca_file", roots).map_err(|_| ConsoleError::SetFailed)?,
            };
            let users = running.users.clone();
            let settings = crate::client::Settings { config, users, rules, tls, redis_roots };
            proxy.install(settings).map_err(|_| ConsoleError::SetFailed)
        })
    }

    fn pause(&self, database: Option<&str>) -> Result<PauseTicket, ConsoleError> {
        let proxy = self.proxy.upgrade().ok_or(ConsoleError::ShuttingDown)?;
        control::pause(&proxy, database)
    }

    fn paused<'a>(&'a self, ticket: &'a PauseTicket) -> Act<'a> {
        self.act_slowly(move |proxy| control::paused(proxy, ticket))
    }

    fn take_back_pause(&self, ticket: &PauseTicket) {
        self.read(|proxy| {
            proxy.installation.switch(|switches| switches.take_back(ticket));
            suspension::follow(proxy);
        });
    }

    fn suspend(&self) -> Result<PauseTicket, ConsoleError> {
        let proxy = self.proxy.upgrade().ok_or(ConsoleError::ShuttingDown)?;
        let ticket = proxy.installation.switch(Switches::suspend)?;
        suspension::follow(&proxy);
        Ok(ticket)
    }

    fn suspended<'a>(&'a self, ticket: &'a PauseTicket) -> Act<'a> {
        self.act_slowly(move |proxy| suspension::suspended(proxy, ticket))
    }

    fn resume<'a>(&'a self, database: Option<&'a str>) -> Act<'a> {
        self.act(|proxy| control::resume(proxy, database))
    }

    fn kill<'a>(&'a self, database: Option<&'a str>) -> Act<'a> {
        self.act_slowly(move |proxy| control::kill(proxy, database))
    }

    fn kill_client(&self, id: u64) -> Act<'_> {
        self.act_slowly(move |proxy| control::kill_client(proxy, id))
    }

    fn reconnect<'a>(&'a self, database: Option<&'a str>) -> Act<'a> {
        self.act(|proxy| control::reconnect(proxy, database))
    }

    fn wait_close<'a>(&'a self, database: Option<&'a str>) -> Act<'a> {
        self.act_slowly(move |proxy| control::wait_close(proxy, database))
    }

    fn disable<'a>(&'a self, database: &'a str) -> Act<'a> {
        self.act(|proxy| control::disable(proxy, database))
    }

    fn enable<'a>(&'a self, database: &'a str) -> Act<'a> {
        self.act(|proxy| control::enable(proxy, database))
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
        self.act(|proxy| control::flush_cache(proxy, target))
    }

    fn ban<'a>(&'a self, member: &'a str) -> Act<'a> {
        self.act(|proxy| control::set_ban(proxy, member, true))
    }

    fn unban<'a>(&'a self, member: &'a str) -> Act<'a> {
        self.act(|proxy| control::set_ban(proxy, member, false))
    }
}
