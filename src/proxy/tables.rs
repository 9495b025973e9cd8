//! What the process keeps in memory by the piece: for SHOW MEM and for metrics, so that nothing grows unseen.

use std::mem::size_of;

use super::Proxy;
use crate::{
    cache::observed::OBSERVED_ENTRIES,
    client::ClientInfo,
    cluster::Database,
    insight,
    pool::Pool,
    server::{CachedName, Core, ServerInfo},
    session::Prepared,
    sql::Statement,
};

/// One kind of piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Table {
    /// As PgBouncer's SHOW MEM calls it, where that has the like.
    pub name: &'static str,
    /// Bytes of the fixed part of one; texts and buffers come on top.
    pub size: usize,
    /// How many there are.
    pub entries: u64,
    /// How many there may be; `None`: as many as clients, servers or the configuration bring.
    pub limit: Option<u64>,
}

/// All of them.
pub(super) fn tables(proxy: &Proxy) -> Vec<Table> {
    let context = &proxy.context;
    let settings = context.settings();
    let users = proxy.installation.users();
    let pools = context.pools.all();
    let servers: usize = pools.iter().map(|pool| pool.servers().len()).sum();
    let table = |name, size, entries: usize, limit| Table { name, size, entries: entries as u64, limit };
    let bounded = |name, size, (entries, limit): (u64, u64)| Table { name, size, entries, limit: Some(limit) };
    let peers = context.peers.figures(&settings.config);
    let all = proxy.installation.all();
    let sum = |sum: (u64, u64), (held, limit): (usize, usize)| (sum.0 + held as u64, sum.1 + limit as u64);
    let with_rows = all.iter().map(|served| served.database.cells.with_rows()).fold((0, 0), sum);
    let waiting = peers.iter().map(|peer| peer.waiting as usize).sum();
    let cache = proxy.installation.result_cache();
    let is_observed = cache.as_ref().filter(|cache| cache.observes());
    let observed = is_observed.map_or((0, OBSERVED_ENTRIES), |cache| (cache.stats().entries, OBSERVED_ENTRIES));
    let flights = cache.as_ref().map_or(0, |cache| cache.flights());
    let level_two = cache.and_then(|cache| cache.shared_stats()).unwrap_or_default();
    let catalogs: Vec<_> = all.iter().filter_map(|served| served.database.catalog()).collect();
    let paths = catalogs.iter().map(|catalog| catalog.snapshot.paths()).fold((0, 0), sum);
    let sharings = catalogs.iter().map(|catalog| catalog.snapshot.sharings()).fold((0, 0), sum);
    let checks: Vec<_> = all.iter().filter_map(|served| served.database.cross_checks.as_ref()).collect();
    let checked = checks.iter().map(|checks| checks.checked()).fold((0, 0), sum);
    let doubted = checks.iter().map(|checks| checks.doubted()).fold((0, 0), sum);
    let (waiting_writes, waiting_writes_limit) = (level_two.waiting, level_two.waiting_limit);
    vec![
        table("user_cache", size_of::<crate::auth::Secret>(), settings.users.names().count(), None),
        bounded("credentials_cache", size_of::<crate::auth::Credentials>(), users.queries().occupancy()),
        table("db_cache", size_of::<Database>(), all.len(), None),
        bounded("fallback_databases", size_of::<Database>(), proxy.installation.fallback_databases()),
        table("peer_cache", size_of::<crate::config::PeerConfig>(), settings.config.peers.len(), None),
        table("pool_cache", size_of::<Pool>(), pools.len(), None),
        table("server_cache", size_of::<Core>() + size_of::<ServerInfo>(), servers, None),
        table("client_cache", crate::client::CLIENT_BYTES + size_of::<ClientInfo>(), context.clients.len(), None),
        table("server_prepared_statement_cache", size_of::<Prepared>(), context.statements.len(), None),
        bounded("scram_keys", size_of::<crate::auth::scram::ClientKeys>(), users.keys()),
        bounded("auth_query_questions", size_of::<crate::cluster::auth_query::Question>(), users.queries().questions()),
        bounded(
            "dns_names",
            size_of::<CachedName>(),
            (proxy.installation.dns_hosts().len() as u64, proxy.installation.resolver().limit() as u64),
        ),
        bounded(
            "statement_memo",
            size_of::<Statement>(),
            (context.analyzer.len() as u64, context.analyzer.limit() as u64),
        ),
        bounded("search_paths", crate::catalog::PATH_BYTES, paths),
        bounded("cache_cross_checks", size_of::<u64>(), checked),
        bounded("cache_doubted_shapes", size_of::<crate::sql::Fingerprint>(), doubted),
        bounded("cache_shared_rights", crate::catalog::SHARING_BYTES, sharings),
        bounded(
            "query_shapes",
            insight::SHAPE_BYTES,
            (context.insight.shapes() as u64, context.insight.shapes_limit() as u64),
        ),
        bounded("cache_tables_by_key", crate::cache::ROWS_BYTES, with_rows),
        table("cache_flights", size_of::<crate::cache::Flight>(), flights, None),
        bounded("cache_shared_writes", size_of::<crate::cache::Entry>(), (waiting_writes, waiting_writes_limit)),
        bounded("cache_observed", size_of::<crate::cache::Entry>(), observed),
        table("peer_requests", size_of::<crate::client::OwnKey>(), waiting, None),
    ]
}
