//! The rows the console shows, as plain values.

use std::time::SystemTime;

use serde::Serialize;

pub use crate::{
    insight::{AdviceRow, DigestRow as QueryRow, SlowRow},
    telemetry::figures::{DatabaseRow, ListRow, PoolRow, StatsFigures, StatsRow},
};

/// One line of SHOW CLIENTS, SERVERS and SOCKETS.
#[derive(Clone, Debug)]
pub struct ConnectionRow {
    /// Login name; `None` before it is known.
    pub user: Option<String>,
    /// Database; `None` before it is known.
    pub database: Option<String>,
    /// `none`, `logical` or `physical`.
    pub replication: &'static str,
    /// As SHOW CLIENTS and SHOW SERVERS say it: `active`, `idle`, `waiting`, `new` …
    pub state: &'static str,
    /// Peer's address; `unix` for a unix socket.
    pub addr: String,
    /// Peer's port.
    pub port: u16,
    /// Our address.
    pub local_addr: String,
    /// Our port.
    pub local_port: u16,
    /// When it was opened.
    pub connect_time: SystemTime,
    /// When the last request began.
    pub request_time: SystemTime,
    /// Age of the running request, in microseconds.
    pub wait_us: u64,
    /// To be closed when it is free.
    pub close_needed: bool,
    /// What `link` of its partner says.
    pub ptr: u64,
    /// `ptr` of the connection it is linked to.
    pub link: Option<u64>,
    /// Process at the other end: of the backend, or of a client on a unix socket.
    pub remote_pid: u32,
    /// `TLSv1.3/…`, or empty.
    pub tls: String,
    /// As the client set it.
    pub application_name: String,
    /// Prepared statements it knows.
    pub prepared_statements: u64,
    /// One count for clients and servers.
    pub id: u64,
    /// For SHOW SOCKETS.
    pub buffers: BufferFigures,
}

/// Bytes in a connection's buffers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the columns of SHOW SOCKETS")]
pub struct BufferFigures {
    pub recv_pos: u64,
    pub pkt_pos: u64,
    pub pkt_remain: u64,
    pub send_pos: u64,
    pub send_remain: u64,
    pub pkt_avail: u64,
    pub send_avail: u64,
}

/// One line of SHOW USERS.
#[derive(Clone, Debug, Default)]
pub struct UserRow {
    /// Login name.
    pub name: String,
    /// Only where `[users]` sets it.
    pub pool_size: Option<u64>,
    /// Only where `[users]` sets it.
    pub reserve_pool_size: Option<u64>,
    /// Only where `[users]` sets it.
    pub pool_mode: Option<String>,
    /// 0 is unlimited.
    pub max_user_connections: u64,
    /// Servers open.
    pub current_connections: u64,
    /// 0 is unlimited.
    pub max_user_client_connections: u64,
    /// Clients connected.
    pub current_client_connections: u64,
}

/// One line of SHOW CONFIG; PgBouncer's keys alphabetically, then `section.key`.
#[derive(Clone, Debug, Default)]
pub struct ConfigRow {
    /// Name of the setting.
    pub key: String,
    /// In force; never a password.
    pub value: Option<String>,
    /// Without a configuration.
    pub default: Option<String>,
    /// By RELOAD or SET.
    pub changeable: bool,
}

/// One line of SHOW PEERS.
#[derive(Clone, Debug, Default)]
pub struct PeerRow {
    /// Key of `[peers]`.
    pub peer_id: u64,
    /// Host of the connect string.
    pub host: Option<String>,
    /// Port of the connect string.
    pub port: u16,
    /// Connections for cancel requests.
    pub pool_size: u64,
}

/// One line of SHOW PEER_POOLS.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "the names are the columns, explained at `PoolRow`")]
pub struct PeerPoolRow {
    pub peer_id: u64,
    pub cl_active_cancel_req: u64,
    pub cl_waiting_cancel_req: u64,
    pub sv_active_cancel: u64,
    pub sv_login: u64,
}

/// One line of SHOW MEM.
#[derive(Clone, Debug, Default)]
pub struct MemoryRow {
    /// What the memory is for.
    pub name: String,
    /// Bytes of one object.
    pub size: u64,
    /// Objects in use.
    pub used: u64,
    /// Objects kept for later.
    pub free: u64,
    /// Bytes of all of them.
    pub memtotal: u64,
}

/// One line of SHOW DNS_HOSTS.
#[derive(Clone, Debug, Default)]
pub struct DnsHostRow {
    /// Name that was looked up.
    pub hostname: String,
    /// Seconds until it is looked up again.
    pub ttl: u64,
    /// Its addresses, joined by commas.
    pub addrs: String,
}

/// Whether all is paused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PauseState {
    /// Serving.
    #[default]
    Active,
    /// By PAUSE without a database.
    Paused,
    /// By SUSPEND.
    Suspended,
}

/// One line of SHOW REPLICAS: a member, the primary included.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ReplicaRow {
    /// Database as clients name it.
    pub database: String,
    /// Member as BAN names it, `shop.r1`.
    pub member: String,
    /// Host of the connect string.
    pub host: String,
    /// Port of the connect string.
    pub port: u16,
    /// `primary`, `equal` (takes writes beside it), `replica` or `unknown`.
    pub role: &'static str,
    /// `up`, `lagging`, `down`, `banned` …
    pub state: &'static str,
    /// Why, where it is not `up`.
    pub reason: Option<String>,
    /// Share of reads.
    pub weight: u64,
    /// Age of the oldest write it has not replayed; `None` while unknown.
    pub lag_seconds: Option<f64>,
    /// Position replayed, or written on the primary.
    pub lsn: Option<String>,
    /// Requests running there.
    pub in_flight: u64,
    /// Server connections open.
    pub connections: u64,
    /// Requests sent there since the start.
    pub requests: u64,
    /// Connections refused, failed or lost.
    pub errors: u64,
}

/// One line of SHOW CACHE: the cache of one database.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CacheRow {
    /// Database as clients name it.
    pub database: String,
    /// `on`, `off` or `observe`.
    pub state: &'static str,
    /// What a reader may rely on, as `read_your_writes` limits it.
    pub guarantee: String,
    /// Answers held, or that would be.
    pub entries: u64,
    /// Bytes held.
    pub bytes: u64,
    /// Bytes that may be held.
    pub max_bytes: u64,
    /// Answers from the first level.
    pub hits: u64,
    /// Answers from the second level.
    pub shared_hits: u64,
    /// Answers of other clients' reads that were under way.
    pub joined: u64,
    /// Level two: `off`, `up`, or why it is left alone.
    pub shared_state: &'static str,
    /// Times it did not answer in time.
    pub shared_timeouts: u64,
    /// Times it failed otherwise.
    pub shared_errors: u64,
    /// What lay there and was no answer: forged, changed, cut, of another secret.
    pub shared_refused: u64,
    /// Reads that asked in vain.
    pub misses: u64,
    /// Reads that were not asked for.
    pub bypasses: u64,
    /// Hits of all asked; `None` while nothing was asked. Where the cache only observes, what it would be.
    pub hit_ratio: Option<f64>,
    /// Where the cache only observes: reads that it would have answered.
    pub would_hits: u64,
    /// Server time of those, in milliseconds.
    pub would_save_ms: f64,
    /// Answers stored.
    pub fills: u64,
    /// Answers not stored because a table changed meanwhile.
    pub void_fills: u64,
    /// Writes that moved a stamp.
    pub invalidations: u64,
    /// Answers that left for want of room.
    pub evictions: u64,
    /// How writes that bypass the proxy are known: `ttl`, `heard`, or `unheard` while they should be and are not.
    pub direct_writes: &'static str,
    /// Seconds since all of them were known; `None` while they are not.
    pub direct_age: Option<f64>,
    /// Times the stream that tells of them was lost.
    pub direct_gaps: u64,
    /// Other proxies that tell this one of their writes, and are told.
    pub peers: u64,
    /// The right to answer without asking them: `none` where nobody is to be asked, `held`, or `lost`.
    pub lease: &'static str,
    /// Seconds until it ends if nobody renews it; `None` where there is none.
    pub lease_left: Option<f64>,
    /// How long one of them took for its last answer.
    pub bus_ms: Option<f64>,
}

/// One line of SHOW CACHE TABLES.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CacheTableRow {
    /// Database as clients name it.
    pub database: String,
    /// `schema.table`.
    pub relation: String,
    /// Times a write voided what used it.
    pub invalidations: u64,
    /// Of these, times when answers to other keys stayed; `None` where every write voids them all.
    pub by_key: Option<u64>,
    /// Writes running now.
    pub in_flight_writes: u64,
    /// Position a replica must have replayed to fill from it.
    pub watermark: Option<String>,
    /// Seconds that answers are kept which read nothing of a shorter life; `0`: until a write makes them void; `off`.
    pub ttl: String,
}

/// One line of SHOW PINS: a server that is kept for one client.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PinRow {
    /// Database as clients name it.
    pub database: String,
    /// Login name.
    pub user: String,
    /// Id in SHOW CLIENTS.
    pub client_id: u64,
    /// Peer's address and port.
    pub client_addr: String,
    /// Id in SHOW SERVERS.
    pub server_id: u64,
    /// Process of the backend.
    pub remote_pid: u32,
    /// Why, joined by commas.
    pub reason: String,
    /// For how long.
    pub age_seconds: f64,
}

/// One line of SHOW ROUTE: a statement and what would be done with it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RouteRow {
    /// Normalised text.
    pub statement: String,
    /// `read` or `primary`.
    pub access: &'static str,
    /// `primary`, `replica` or `proxy`.
    pub route: &'static str,
    /// Member that would run it now.
    pub member: Option<String>,
    /// Why there.
    pub reason: &'static str,
    /// `hit`, `miss`, `bypass` or `off`.
    pub cache: &'static str,
    /// Why.
    pub cache_reason: &'static str,
    /// Relations read or written, joined by commas.
    pub relations: String,
}
