//! PgBouncer's figures of the process: what SHOW POOLS, DATABASES, STATS and LISTS say.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use super::{Proxy, members};
use crate::{
    admin,
    client::Activity,
    config::DatabaseConfig,
    net::Address,
    pool::{BEING_CANCELED, PoolCounts},
    routing::MemberId,
    telemetry::figures::{DatabaseRow, ListRow, PoolRow, StatsRow},
};

/// The console's database, and who owns it.
const CONSOLE: &str = "pgbouncer";

/// Shown only where there is a list.
fn load_balance_hosts(section: &DatabaseConfig) -> Option<String> {
    section.host.contains(',').then(|| section.load_balance_hosts.label().to_owned())
}

/// The console has a pool of its own, without servers.
fn console_pool(proxy: &Proxy) -> PoolRow {
    let clients = proxy.context.clients.iter();
    PoolRow {
        database: CONSOLE.to_owned(),
        user: CONSOLE.to_owned(),
        cl_active: clients.filter(|client| admin::DATABASES.contains(&&*client.database)).count() as u64,
        pool_mode: "statement".to_owned(),
        ..PoolRow::default()
    }
}

/// SHOW POOLS: the members of a database are summed.
pub(super) fn pools(proxy: &Proxy) -> Vec<PoolRow> {
    let mut rows: BTreeMap<(String, String), PoolRow> = BTreeMap::new();
    let settings = proxy.context.settings();
    for pool in proxy.context.pools.all() {
        let key = pool.key();
        let name = (key.database.to_string(), key.user.to_string());
        let row = rows.entry(name).or_insert_with_key(|(database, user)| PoolRow {
            database: database.clone(),
            user: user.clone(),
            pool_mode: settings
                .config
                .database(database)
                .map(|section| settings.config.pool_mode(&section, user).label().to_owned())
                .unwrap_or_default(),
            load_balance_hosts: settings.config.database(database).and_then(|section| load_balance_hosts(&section)),
            ..PoolRow::default()
        });
        let PoolCounts { active, idle, used, tested, login, waiting, oldest: _ } = pool.counts();
        let being_cancelled = pool.states().iter().filter(|(_, state)| *state == BEING_CANCELED).count();
        row.sv_active += active.saturating_sub(being_cancelled) as u64;
        row.sv_being_canceled += being_cancelled as u64;
        row.sv_idle += (idle - used) as u64;
        row.sv_used += used as u64;
        row.sv_tested += tested as u64;
        row.sv_login += login as u64;
        row.cl_waiting += waiting as u64;
    }
    for visitor in proxy.context.visitors.iter() {
        let Some(cancelling) = visitor.cancels() else { continue };
        let key = (cancelling.database.to_string(), cancelling.pool_user.to_string());
        let Some(row) = rows.get_mut(&key) else { continue };
        if cancelling.carrier().is_some() {
            row.cl_active_cancel_req += 1;
            row.sv_active_cancel += 1;
        } else {
            row.cl_waiting_cancel_req += 1;
        }
    }
    let now = proxy.context.clock.now();
    for client in proxy.context.clients.iter() {
        let server_user = forced_user(&settings.config, &client.database).unwrap_or_else(|| client.user.to_string());
        let Some(row) = rows.get_mut(&(client.database.to_string(), server_user)) else { continue };
        if client.activity() == Activity::Waiting {
            let since = client.requested_at.load(std::sync::atomic::Ordering::Relaxed);
            row.maxwait_us = row.maxwait_us.max(now.saturating_sub(since) / 1000);
        } else {
            row.cl_active += 1;
        }
    }
    rows.insert((CONSOLE.to_owned(), CONSOLE.to_owned()), console_pool(proxy));
    rows.into_values().collect()
}

fn forced_user(config: &crate::config::Config, database: &str) -> Option<String> {
    config.database(database).and_then(|section| section.user.clone())
}

/// SHOW DATABASES: a row per member, and the console's own.
pub(super) fn databases(proxy: &Proxy) -> Vec<DatabaseRow> {
    let settings = proxy.context.settings();
    let config = &settings.config;
    let pools = proxy.context.pools.all();
    let mut rows = Vec::new();
    for served in proxy.installation.all() {
        for (index, name) in served.database.member_names.iter().enumerate() {
            let member = MemberId(index as u16);
            let Some(section) = members::member_section(&served.section, member) else { continue };
            let connections = pools
                .iter()
                .filter(|pool| pool.key().database == served.database.name && pool.key().member == *name)
                .map(|pool| pool.servers().len() as u64)
                .sum();
            let clients = proxy.context.clients.iter().filter(|client| *client.database == *served.database.name);
            rows.push(DatabaseRow {
                name: name.to_string(),
                host: Some(section.host.clone()).filter(|host| !host.is_empty()),
                port: section.port,
                database: section.server_dbname().to_owned(),
                force_user: section.user.clone(),
                pool_size: u64::from(config.effective_pool_size(section, "")),
                min_pool_size: u64::from(config.min_pool_size(section)),
                reserve_pool_size: u64::from(config.reserve_pool_size(section, "")),
                server_lifetime: config.server_lifetime(section).as_secs(),
                pool_mode: section.pool_mode.map(|mode| mode.label().to_owned()),
                load_balance_hosts: load_balance_hosts(section),
                max_connections: u64::from(config.max_db_connections(section)),
                current_connections: connections,
                max_client_connections: u64::from(config.max_db_client_connections(section)),
                current_client_connections: if index == 0 { clients.count() as u64 } else { 0 },
                paused: proxy.installation.switches().is_paused_by_name(&served.database.name),
                disabled: proxy.installation.switches().is_disabled(&served.database.name),
            });
        }
    }
    rows.push(DatabaseRow {
        name: CONSOLE.to_owned(),
        port: config.pgbouncer.listen_port,
        database: CONSOLE.to_owned(),
        force_user: Some(CONSOLE.to_owned()),
        pool_size: 2,
        min_pool_size: u64::from(config.pgbouncer.min_pool_size),
        reserve_pool_size: u64::from(config.pgbouncer.reserve_pool_size),
        server_lifetime: config.pgbouncer.server_lifetime.as_secs(),
        pool_mode: Some("statement".to_owned()),
        max_connections: u64::from(config.pgbouncer.max_db_connections),
        max_client_connections: u64::from(config.pgbouncer.max_db_client_connections),
        current_client_connections: console_pool(proxy).cl_active,
        ..DatabaseRow::default()
    });
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    rows
}

/// SHOW STATS.
pub(super) fn stats(proxy: &Proxy) -> Vec<StatsRow> {
    proxy.context.insight.stats(Instant::now())
}

/// SHOW LISTS. No memory is kept for clients and servers to come, so that none are free.
pub(super) fn lists(proxy: &Proxy) -> Vec<ListRow> {
    let settings = proxy.context.settings();
    let pools = proxy.context.pools.all();
    let of_pool = |counts: PoolCounts| counts.active + counts.idle + counts.tested + counts.login;
    let servers: usize = pools.iter().map(|pool| of_pool(pool.counts())).sum();
    let visitors = &proxy.context.visitors;
    let carriers = visitors.iter().filter(|it| it.cancels().is_some_and(|it| it.carrier().is_some())).count();
    let logins = visitors.iter().filter(|visitor| visitor.cancels().is_none()).count();
    let connected = proxy.context.connected.load(std::sync::atomic::Ordering::Relaxed);
    let row = |list, items| ListRow { list, items };
    vec![
        row("databases", databases(proxy).len() as u64),
        row("users", super::console::users(proxy).len() as u64),
        row("peers", settings.config.peers.len() as u64),
        row("pools", self::pools(proxy).len() as u64),
        row("peer_pools", proxy.context.peers.pools() as u64),
        row("free_clients", 0),
        row("used_clients", connected),
        row("login_clients", logins as u64),
        row("free_servers", 0),
        row("used_servers", (servers + carriers) as u64),
        row("dns_names", proxy.installation.dns_hosts().len() as u64),
        row("dns_zones", 0),
        row("dns_queries", proxy.installation.resolver().running() as u64),
        row("dns_pending", 0),
    ]
}

/// A number of SHOW CONFIG.
pub(super) fn config_number(proxy: &Proxy, key: &str) -> Option<f64> {
    let rows = proxy.context.settings().config.show();
    rows.into_iter().find(|row| row.key == key)?.value?.parse().ok()
}

/// SHOW VERSION.
pub(super) fn version() -> String {
    admin::VERSION.to_owned()
}

/// Address and port of a peer as the console shows them.
pub(super) fn peer(address: &Address) -> (String, u16) {
    match address {
        Address::Tcp(host, port) => (host.clone(), *port),
        Address::Unix(_) => ("unix".to_owned(), 0),
    }
}

/// Pools of one member.
pub(super) fn member_pools(proxy: &Proxy, database: &str, member: &str) -> Vec<Arc<crate::pool::Pool>> {
    let is_its = |pool: &Arc<crate::pool::Pool>| *pool.key().database == *database && *pool.key().member == *member;
    proxy.context.pools.all().into_iter().filter(is_its).collect()
}
