//! What can be shown.

use super::{FAKED_PARAMETERS, cursor::Cursor};

/// Rows of SHOW QUERIES and SHOW SLOW where no number is given.
const ROWS_DEFAULT: usize = 50;
const ROWS_LIMIT: usize = 10_000;

/// The argument of SHOW.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the commands")]
pub enum Show {
    Clients,
    Config,
    Databases,
    Fds,
    Help,
    Lists,
    Peers,
    PeerPools,
    Pools,
    Servers,
    Sockets,
    ActiveSockets,
    Stats,
    StatsTotals,
    StatsAverages,
    Users,
    Version,
    Totals,
    Mem,
    DnsHosts,
    DnsZones,
    State,
    /// Index into `FAKED_PARAMETERS`.
    Parameter(usize),
    Replicas,
    Cache,
    CacheTables,
    /// SHOW CACHE ADVICE [n].
    CacheAdvice(usize),
    Queries(usize),
    Slow(usize),
    Pins,
    Route(Option<RouteTarget>, String),
}

/// For whom SHOW ROUTE decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTarget {
    /// Name as clients use it.
    pub database: String,
    /// Login name; without it the decision of a user without settings of its own.
    pub user: Option<String>,
}

pub(super) fn read(mut cursor: Cursor<'_>) -> Option<Show> {
    let what = cursor.argument()??.to_ascii_lowercase();
    let show = match what.as_str() {
        "route" => return read_route(cursor),
        "queries" => Show::Queries(count(&mut cursor)?),
        "slow" => Show::Slow(count(&mut cursor)?),
        "cache" => read_cache(&mut cursor)?,
        name => simple(name)?,
    };
    cursor.is_at_end().then_some(show)
}

fn simple(name: &str) -> Option<Show> {
    Some(match name {
        "clients" => Show::Clients,
        "config" => Show::Config,
        "databases" => Show::Databases,
        "fds" => Show::Fds,
        "help" => Show::Help,
        "lists" => Show::Lists,
        "peers" => Show::Peers,
        "peer_pools" => Show::PeerPools,
        "pools" => Show::Pools,
        "servers" => Show::Servers,
        "sockets" => Show::Sockets,
        "active_sockets" => Show::ActiveSockets,
        "stats" => Show::Stats,
        "stats_totals" => Show::StatsTotals,
        "stats_averages" => Show::StatsAverages,
        "users" => Show::Users,
        "version" => Show::Version,
        "totals" => Show::Totals,
        "mem" => Show::Mem,
        "dns_hosts" => Show::DnsHosts,
        "dns_zones" => Show::DnsZones,
        "state" => Show::State,
        "replicas" => Show::Replicas,
        "pins" => Show::Pins,
        _ => {
            let faked = FAKED_PARAMETERS.iter().position(|(parameter, _)| *parameter == name);
            return faked.map(Show::Parameter);
        }
    })
}

fn count(cursor: &mut Cursor<'_>) -> Option<usize> {
    match cursor.argument()? {
        None => Some(ROWS_DEFAULT),
        Some(number) => number.parse().ok().map(|rows: usize| rows.min(ROWS_LIMIT)),
    }
}

fn read_cache(cursor: &mut Cursor<'_>) -> Option<Show> {
    match cursor.argument()? {
        None => Some(Show::Cache),
        Some(what) if what.eq_ignore_ascii_case("tables") => Some(Show::CacheTables),
        Some(what) if what.eq_ignore_ascii_case("advice") => Some(Show::CacheAdvice(count(cursor)?)),
        Some(_) => None,
    }
}

/// After ROUTE comes FOR, or SQL that is taken as it stands.
fn read_route(mut cursor: Cursor<'_>) -> Option<Show> {
    cursor.skip_space().then_some(())?;
    let target = read_target(&mut cursor)?;
    let sql = cursor.rest();
    (!sql.is_empty()).then(|| Show::Route(target, sql.to_owned()))
}

/// No statement of SQL begins with FOR.
fn read_target(cursor: &mut Cursor<'_>) -> Option<Option<RouteTarget>> {
    let mut ahead = *cursor;
    if !ahead.word().is_some_and(|word| word.eq_ignore_ascii_case("for")) || !ahead.skip_space() {
        return Some(None);
    }
    let database = ahead.word()?;
    let user = if ahead.take("/") { Some(ahead.word()?) } else { None };
    ahead.skip_space().then_some(())?;
    *cursor = ahead;
    Some(Some(RouteTarget { database, user }))
}
