//! Rows of the console that are put together from several parts of the process.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError, atomic::Ordering},
};

use super::guarantee::{Lease, guarantee};
use crate::{
    admin::rows::{BufferFigures, CacheRow, ConnectionRow, ReplicaRow, UserRow},
    cache::{ResultCache, local::CacheStats, shared::Reading},
    client::{Activity, Cancelling, ClientInfo, Visiting},
    cluster::Database,
    net::{InboxFigures, Local, Peer, tls::TlsFacts},
    pool::{Opening, Pool},
    proxy::{Proxy, figures, members, served::Served},
    routing::MemberId,
    server::ServerInfo,
};

fn described(tls: Option<&TlsFacts>) -> String {
    tls.map(|tls| tls.description.to_string()).unwrap_or_default()
}

pub(super) fn client_row(proxy: &Proxy, client: &ClientInfo) -> ConnectionRow {
    let clock = proxy.context.clock;
    let requested = client.requested_at.load(Ordering::Relaxed);
    let (addr, port, remote_pid) = peer_columns(client.peer);
    let (local_addr, local_port) = client.local.columns();
    let is_waiting = client.activity() == Activity::Waiting;
    ConnectionRow {
        user: Some(client.user.to_string()),
        database: Some(client.database.to_string()),
        replication: client.replication,
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
        tls: described(client.tls.as_deref()),
        application_name: client.application_name.clone(),
        prepared_statements: client.statements.load(Ordering::Relaxed),
        id: client.id,
        buffers: buffers(&client.buffers),
    }
}

/// In the columns of PgBouncer's one buffer per socket.
fn buffers(figures: &Mutex<InboxFigures>) -> BufferFigures {
    let figures = *figures.lock().unwrap_or_else(PoisonError::into_inner);
    let InboxFigures { received, decided, gone, expected, own } = figures;
    BufferFigures {
        recv_pos: received as u64,
        pkt_pos: decided as u64,
        pkt_remain: expected as u64,
        send_pos: gone as u64,
        send_remain: 0,
        pkt_avail: received.saturating_sub(decided) as u64,
        send_avail: (decided.saturating_sub(gone) + own) as u64,
    }
}

/// Nothing but addresses and times: what opens, logs in or carries a cancel request.
fn bare_row(proxy: &Proxy, id: u64, state: &'static str, since: u64, local: Local) -> ConnectionRow {
    let time = proxy.context.clock.wall(since);
    let (local_addr, local_port) = local.columns();
    ConnectionRow {
        user: None,
        database: None,
        replication: "none",
        state,
        addr: String::new(),
        port: 0,
        local_addr,
        local_port,
        connect_time: time,
        request_time: time,
        wait_us: 0,
        close_needed: false,
        ptr: id,
        link: None,
        remote_pid: 0,
        tls: String::new(),
        application_name: String::new(),
        prepared_statements: 0,
        id,
        buffers: BufferFigures::default(),
    }
}

/// A login under way, or a cancel request.
pub(super) fn visitor_row(proxy: &Proxy, visitor: &Visiting) -> ConnectionRow {
    let state = visitor.cancels().map_or("login", Cancelling::state);
    let (addr, port, remote_pid) = peer_columns(visitor.peer);
    let mut row = bare_row(proxy, visitor.id, state, visitor.since, visitor.local);
    (row.addr, row.port, row.remote_pid) = (addr, port, remote_pid);
    if let Some((database, user)) = visitor.names() {
        (row.database, row.user) = (Some(database.to_string()), Some(user.to_string()));
    }
    if let Some(cancelling) = visitor.cancels() {
        row.database = Some(cancelling.database.to_string());
        row.link = cancelling.carrier().map(|carrier| carrier.id);
    }
    row
}

/// The connection that carries a cancel request to its server.
pub(super) fn carrier_row(proxy: &Proxy, visitor: &Visiting) -> Option<ConnectionRow> {
    let cancelling = visitor.cancels()?;
    let carrier = cancelling.carrier()?;
    let mut row = bare_row(proxy, carrier.id, "active_cancel", visitor.since, carrier.local);
    (row.addr, row.port) = figures::peer(&cancelling.server.address);
    row.database = Some(cancelling.database.to_string());
    row.link = Some(visitor.id);
    Some(row)
}

/// A connection that is being opened.
pub(super) fn opening_row(proxy: &Proxy, pool: &Pool, opening: &Opening) -> ConnectionRow {
    let mut row = bare_row(proxy, opening.id, "new", opening.since, Local::Unknown);
    (row.addr, row.port) = figures::peer(&opening.address);
    row.database = Some(pool.key().database.to_string());
    row.user = Some(pool.key().user.to_string());
    row
}

fn peer_columns(peer: Peer) -> (String, u16, u32) {
    match peer {
        Peer::Tcp(address) => (address.ip().to_string(), address.port(), 0),
        Peer::Unix { pid, .. } => ("unix".to_owned(), 0, u32::try_from(pid).unwrap_or(0)),
    }
}

pub(super) fn server_row(proxy: &Proxy, pool: &Pool, server: &ServerInfo, state: &'static str) -> ConnectionRow {
    let clock = proxy.context.clock;
    let client = server.client.load(Ordering::Relaxed);
    let (addr, port) = figures::peer(&server.address);
    let (local_addr, local_port) = server.local.columns();
    ConnectionRow {
        user: Some(pool.key().user.to_string()),
        database: Some(pool.key().database.to_string()),
        replication: "none",
        state,
        addr,
        port,
        local_addr,
        local_port,
        connect_time: clock.wall(server.connected_at),
        request_time: clock.wall(server.requested_at.load(Ordering::Relaxed)),
        wait_us: 0,
        close_needed: pool.is_worn(server),
        ptr: server.id,
        link: (client != 0).then_some(client),
        remote_pid: server.remote_pid,
        tls: described(server.tls.as_deref()),
        application_name: String::new(),
        prepared_statements: server.statements.load(Ordering::Relaxed),
        id: server.id,
        buffers: buffers(&server.buffers),
    }
}

/// Everybody whom the files name, whom a database logs in as, or who is here.
pub(in crate::proxy) fn users(proxy: &Proxy) -> Vec<UserRow> {
    let settings = proxy.context.settings();
    let config = &settings.config;
    let mut names: BTreeSet<String> =
        settings.users.names().chain(config.users.keys().map(String::as_str)).map(str::to_owned).collect();
    names.extend(config.databases.values().chain(&config.fallback).filter_map(|database| database.user.clone()));
    names.insert("pgbouncer".to_owned());
    let (mut clients, mut servers) = (HashMap::<String, u64>::new(), HashMap::<String, u64>::new());
    for client in proxy.context.clients.iter() {
        *clients.entry(client.user.to_string()).or_default() += 1;
    }
    for pool in proxy.context.pools.all() {
        *servers.entry(pool.key().user.to_string()).or_default() += pool.servers().len() as u64;
    }
    names.extend(clients.keys().chain(servers.keys()).cloned());
    let row = |name: String| {
        let own = config.users.get(&name);
        UserRow {
            pool_size: own.and_then(|user| user.pool_size).map(u64::from),
            reserve_pool_size: own.and_then(|user| user.reserve_pool_size).map(u64::from),
            pool_mode: own.and_then(|user| user.pool_mode).map(|mode| mode.label().to_owned()),
            max_user_connections: u64::from(config.max_user_connections(&name)),
            max_user_client_connections: u64::from(config.max_user_client_connections(&name)),
            current_client_connections: clients.get(&name).copied().unwrap_or_default(),
            current_connections: servers.get(&name).copied().unwrap_or_default(),
            name,
        }
    };
    names.into_iter().map(row).collect()
}

pub(super) fn replica_row(proxy: &Proxy, served: &Served, id: MemberId) -> Option<ReplicaRow> {
    let database = &served.database;
    let member = database.topology.member(id)?;
    let section = members::member_section(&served.section, id)?;
    let address = members::address(section, &proxy.context.settings().config);
    let (host, port) = figures::peer(&address);
    let now = proxy.context.clock.now();
    let is_primary = database.primary() == Some(id);
    let is_equal = !is_primary && database.topology.takes_writes(id);
    let lag = database.topology.lag(id, now);
    let lsn = match (is_primary, is_equal) {
        (true, _) => database.topology.samples().newest().map(|sample| sample.lsn),
        // Nothing is measured by it.
        (false, true) => None,
        (false, false) => Some(member.state.replayed()),
    };
    let pools = figures::member_pools(proxy, &database.name, &member.name);
    Some(ReplicaRow {
        database: database.name.to_string(),
        member: member.name.to_string(),
        host,
        port,
        role: match (is_primary, member.state.in_recovery()) {
            (true, _) => "primary",
            (false, _) if is_equal => "equal",
            (false, Some(true)) => "replica",
            (false, _) => "unknown",
        },
        state: if member.state.is_banned(now) { "banned" } else { member.state.health().label() },
        reason: None,
        weight: u64::from(member.weight),
        lag_seconds: if is_primary || is_equal { None } else { lag.map(|nanos| nanos as f64 / 1e9) },
        lsn: lsn.map(|lsn| lsn.to_string()),
        in_flight: u64::from(member.state.in_flight()),
        connections: pools.iter().map(|pool| pool.servers().len() as u64).sum(),
        requests: member.state.requests(),
        errors: member.state.errors(),
    })
}

pub(super) fn cache_row(database: &Database, now: u64) -> CacheRow {
    let row = match (&database.cache, &database.observed) {
        (Some(cache), _) => answering_row(database, cache, now),
        (None, Some(observed)) => observed_row(database, &observed.stats()),
        (None, None) => CacheRow { state: "off", ..CacheRow::default() },
    };
    let is_off = row.state == "off";
    let lease = Lease::of(database, now);
    let figures = database.real.bus().map(|bus| bus.figures()).unwrap_or_default();
    CacheRow {
        database: database.name.to_string(),
        guarantee: if is_off { String::new() } else { guarantee(database, now).to_string() },
        shared_state: if row.shared_state.is_empty() { "off" } else { row.shared_state },
        peers: figures.peers,
        lease: lease.label(),
        lease_left: lease.left().map(|left| left.as_secs_f64()),
        bus_ms: figures.round_trip.map(|nanos| nanos as f64 / 1e6),
        ..row
    }
}

/// Nothing is answered: what would be.
fn observed_row(database: &Database, stats: &CacheStats) -> CacheRow {
    let hits = stats.hits + stats.joined;
    let asked = hits + stats.misses;
    CacheRow {
        state: "observe",
        entries: stats.entries,
        bytes: stats.bytes,
        max_bytes: stats.capacity_bytes,
        misses: stats.misses,
        hit_ratio: (asked > 0).then(|| hits as f64 / asked as f64),
        would_hits: hits,
        would_save_ms: stats.saved as f64 / 1e6,
        fills: stats.stored,
        void_fills: stats.overtaken,
        invalidations: invalidations(database),
        evictions: stats.evicted,
        ..CacheRow::default()
    }
}

fn invalidations(database: &Database) -> u64 {
    database.cells.report().iter().map(|cell| u64::from(cell.bumps)).sum()
}

fn answering_row(database: &Database, cache: &ResultCache, now: u64) -> CacheRow {
    let stats = cache.stats();
    let shared = cache.shared_stats();
    let read = |reading| shared.map_or(0, |shared| shared.read(reading));
    let found = stats.hits + stats.joined + stats.shared_hits;
    let asked = found + stats.misses;
    let direct = database.real.direct.figures();
    CacheRow {
        state: database.cache_closure(now).map_or("on", |closure| closure.label()),
        entries: stats.entries,
        bytes: stats.bytes,
        max_bytes: stats.capacity_bytes,
        hits: stats.hits,
        shared_hits: stats.shared_hits,
        joined: stats.joined,
        misses: stats.misses,
        hit_ratio: (asked > 0).then(|| found as f64 / asked as f64),
        fills: stats.stored,
        void_fills: stats.overtaken,
        invalidations: invalidations(database),
        evictions: stats.evicted,
        shared_state: shared.map_or("off", |shared| shared.state()),
        shared_timeouts: read(Reading::Timeout),
        shared_errors: read(Reading::Error),
        shared_refused: read(Reading::Refused),
        direct_writes: match &database.settings.direct {
            None => "ttl",
            Some(_) if database.cells.is_heard(now) => "heard",
            Some(_) => "unheard",
        },
        direct_age: direct.horizon.map(|horizon| now.saturating_sub(horizon) as f64 / 1e9),
        direct_gaps: direct.gaps,
        ..CacheRow::default()
    }
}
