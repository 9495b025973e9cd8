//! One function per SHOW: which columns it has, and its rows out of the state.

mod connections;
mod insight;
mod pools;
mod settings;
mod stats;

use super::{
    ConsoleError,
    command::Show,
    state::ConsoleState,
    table::{Column, Table},
};
use crate::config::StatsColumns;

/// The columns, known before anything runs; `None` where the answer has no rows.
pub fn columns(show: &Show, stats: StatsColumns) -> Option<&'static [Column]> {
    Some(match show {
        Show::Help | Show::Fds => return None,
        Show::Clients | Show::Servers => connections::CONNECTIONS,
        Show::Sockets | Show::ActiveSockets => connections::SOCKETS,
        Show::Config => settings::CONFIG,
        Show::Databases => pools::DATABASES,
        Show::Lists => pools::LISTS,
        Show::Peers => pools::PEERS,
        Show::PeerPools => pools::PEER_POOLS,
        Show::Pools => pools::POOLS,
        Show::Stats => stats::stats_columns(stats),
        Show::StatsTotals => stats::totals_columns(stats),
        Show::StatsAverages => stats::averages_columns(stats),
        Show::Totals => stats::TOTALS,
        Show::Users => pools::USERS,
        Show::Version => settings::VERSION,
        Show::Mem => settings::MEM,
        Show::DnsHosts => settings::DNS_HOSTS,
        Show::DnsZones => settings::DNS_ZONES,
        Show::State => settings::STATE,
        Show::Parameter(index) => settings::parameter_columns(*index),
        Show::Replicas => insight::REPLICAS,
        Show::Cache => insight::CACHE,
        Show::CacheTables => insight::CACHE_TABLES,
        Show::CacheAdvice(_) => insight::CACHE_ADVICE,
        Show::Queries(_) => insight::QUERIES,
        Show::Slow(_) => insight::SLOW,
        Show::Pins => insight::PINS,
        Show::Route(..) => insight::ROUTE,
    })
}

/// The whole answer. SHOW HELP and SHOW FDS have none.
pub fn table(show: &Show, state: &dyn ConsoleState) -> Result<Table, ConsoleError> {
    let layout = state.stats_columns();
    let columns = columns(show, layout).ok_or(ConsoleError::NotSupported)?;
    let rows = match show {
        Show::Help | Show::Fds => return Err(ConsoleError::NotSupported),
        Show::Clients => connections::clients(&state.clients()),
        Show::Servers => connections::servers(&state.servers()),
        Show::Sockets => connections::sockets(state, false),
        Show::ActiveSockets => connections::sockets(state, true),
        Show::Config => settings::config(&state.config()),
        Show::Databases => pools::databases(&state.databases()),
        Show::Lists => pools::lists(&state.lists()),
        Show::Peers => pools::peers(&state.peers()),
        Show::PeerPools => pools::peer_pools(&state.peer_pools()),
        Show::Pools => pools::pools(&state.pools()),
        Show::Stats => stats::stats(&state.stats(), layout),
        Show::StatsTotals => stats::stats_totals(&state.stats(), layout),
        Show::StatsAverages => stats::stats_averages(&state.stats(), layout),
        Show::Totals => stats::totals(&state.stats(), layout),
        Show::Users => pools::users(&state.users()),
        Show::Version => settings::version(&state.version()),
        Show::Mem => settings::memory(&state.memory()),
        Show::DnsHosts => settings::dns_hosts(&state.dns_hosts()),
        Show::DnsZones => Vec::new(),
        Show::State => settings::state(state.pause_state()),
        Show::Parameter(index) => settings::parameter(*index),
        Show::Replicas => insight::replicas(&state.replicas()),
        Show::Cache => insight::cache(&state.cache()),
        Show::CacheTables => insight::cache_tables(&state.cache_tables()),
        Show::CacheAdvice(count) => insight::cache_advice(&state.cache_advice(*count)),
        Show::Queries(count) => insight::queries(&state.queries(*count)),
        Show::Slow(count) => insight::slow(&state.slow(*count)),
        Show::Pins => insight::pins(&state.pins()),
        Show::Route(target, sql) => insight::routes(&state.route(target.as_ref(), sql)?),
    };
    Ok(Table { columns, rows })
}

#[cfg(test)]
mod tests;
