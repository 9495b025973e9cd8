//! What the console asks of the process, and what it tells it to do.

use std::{future::Future, pin::Pin};

use super::{
    ConsoleError,
    command::{FlushTarget, RouteTarget, Shutdown},
    rows::{
        AdviceRow, CacheRow, CacheTableRow, ConfigRow, ConnectionRow, DnsHostRow, MemoryRow, PauseState, PeerPoolRow,
        PeerRow, PinRow, QueryRow, ReplicaRow, RouteRow, SlowRow, UserRow,
    },
};
use crate::{config::StatsColumns, telemetry::figures::PgbouncerView};

/// A command being carried out. Dropping it takes the wait back, not the command.
pub type Act<'a> = Pin<Box<dyn Future<Output = Result<(), ConsoleError>> + Send + 'a>>;

/// Which pause an operator has asked for. A later one of the same database has another number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PauseTicket {
    /// `None`: all.
    pub database: Option<String>,
    /// Of the pause, in the process.
    pub number: u64,
}

/// Implemented by the composition root. Figures are taken at the call; none may block.
pub trait ConsoleState: PgbouncerView {
    /// SHOW CLIENTS, the console's own included.
    fn clients(&self) -> Vec<ConnectionRow>;
    /// SHOW SERVERS.
    fn servers(&self) -> Vec<ConnectionRow>;
    /// SHOW SOCKETS lists these as `cl_login`; SHOW CLIENTS does not.
    fn logins(&self) -> Vec<ConnectionRow> {
        Vec::new()
    }
    /// SHOW USERS.
    fn users(&self) -> Vec<UserRow>;
    /// SHOW CONFIG.
    fn config(&self) -> Vec<ConfigRow>;
    /// How many columns the statistics have.
    fn stats_columns(&self) -> StatsColumns;
    /// SHOW STATE.
    fn pause_state(&self) -> PauseState;
    /// SHOW PEERS.
    fn peers(&self) -> Vec<PeerRow> {
        Vec::new()
    }
    /// SHOW PEER_POOLS.
    fn peer_pools(&self) -> Vec<PeerPoolRow> {
        Vec::new()
    }
    /// SHOW MEM.
    fn memory(&self) -> Vec<MemoryRow> {
        Vec::new()
    }
    /// SHOW DNS_HOSTS.
    fn dns_hosts(&self) -> Vec<DnsHostRow> {
        Vec::new()
    }
    /// SHOW REPLICAS.
    fn replicas(&self) -> Vec<ReplicaRow>;
    /// SHOW CACHE.
    fn cache(&self) -> Vec<CacheRow>;
    /// SHOW CACHE TABLES.
    fn cache_tables(&self) -> Vec<CacheTableRow>;
    /// SHOW CACHE ADVICE.
    fn cache_advice(&self, count: usize) -> Vec<AdviceRow>;
    /// SHOW QUERIES.
    fn queries(&self, count: usize) -> Vec<QueryRow>;
    /// SHOW SLOW.
    fn slow(&self, count: usize) -> Vec<SlowRow>;
    /// SHOW PINS.
    fn pins(&self) -> Vec<PinRow>;
    /// SHOW ROUTE; nothing is executed.
    fn route(&self, target: Option<&RouteTarget>, sql: &str) -> Result<Vec<RouteRow>, ConsoleError>;

    /// RELOAD.
    fn reload(&self) -> Act<'_>;
    /// SET; lost at the next RELOAD.
    fn set<'a>(&'a self, key: &'a str, value: &'a str) -> Act<'a>;
    /// PAUSE: nothing more is lent.
    fn pause(&self, database: Option<&str>) -> Result<PauseTicket, ConsoleError>;
    /// Ready when all server connections are gone, or the pause was ended.
    fn paused<'a>(&'a self, ticket: &'a PauseTicket) -> Act<'a>;
    /// The console that waits for PAUSE was cancelled.
    fn take_back_pause(&self, ticket: &PauseTicket);
    /// RESUME.
    fn resume<'a>(&'a self, database: Option<&'a str>) -> Act<'a>;
    /// SHUTDOWN: ready when it has begun.
    fn shutdown(&self, mode: Shutdown) -> Act<'_>;
    /// FLUSH CACHE.
    fn flush_cache<'a>(&'a self, target: &'a FlushTarget) -> Act<'a>;
    /// BAN.
    fn ban<'a>(&'a self, member: &'a str) -> Act<'a>;
    /// UNBAN.
    fn unban<'a>(&'a self, member: &'a str) -> Act<'a>;

    /// KILL: ready when clients and servers have left, or are known not to.
    fn kill<'a>(&'a self, database: Option<&'a str>) -> Act<'a>;
    /// KILL_CLIENT.
    fn kill_client(&self, id: u64) -> Act<'_>;
    /// RECONNECT.
    fn reconnect<'a>(&'a self, database: Option<&'a str>) -> Act<'a>;
    /// WAIT_CLOSE: ready when no connection is left that RECONNECT marked.
    fn wait_close<'a>(&'a self, database: Option<&'a str>) -> Act<'a>;
    /// DISABLE.
    fn disable<'a>(&'a self, database: &'a str) -> Act<'a>;
    /// ENABLE.
    fn enable<'a>(&'a self, database: &'a str) -> Act<'a>;
    /// SUSPEND: nothing more is read from clients.
    fn suspend(&self) -> Result<PauseTicket, ConsoleError>;
    /// Ready when nothing is left in the buffers of any client, or the suspension was ended. Who does not come to that
    /// within `suspend_timeout` is disconnected.
    fn suspended<'a>(&'a self, ticket: &'a PauseTicket) -> Act<'a>;
}
