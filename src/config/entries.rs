//! Sections whose keys are names: databases, their replicas, users, peers. The value is a connect string.

use std::{borrow::Cow, time::Duration};

use super::{
    choice::{LoadBalanceHosts, PoolMode, ReplicaRole},
    setting::settings,
    supported,
    text::Hidden,
};

settings! {
    /// An entry of `[databases]`: a name clients connect to and the server behind it.
    pub struct DatabaseConfig {
        /// The server's name for the database; not set: the same as the client's.
        dbname: Option<String> = None, OnReload;
        /// Host name, address, directory of a unix socket, or several separated by commas; not set: unix_socket_dir.
        host: String = String::new(), OnReload, supported::host_list;
        /// Port of every host.
        port: u16 = 5432, OnReload, supported::port;
        /// Log in to the server as this user, whoever the client is; not set: as the client.
        user: Option<String> = None, OnReload;
        /// Password of that user; not set: the one of auth_file. ${NAME} is taken from the environment.
        password: Option<Hidden> = None, OnReload;
        /// The user who runs auth_query.
        auth_user: Option<String> = None, OnReload;
        /// Returns name and secret of the user $1.
        auth_query: Option<String> = None, OnReload;
        /// Database in which auth_query runs.
        auth_dbname: Option<String> = None, OnReload, supported::no_console_database;
        /// Server connections one user may hold; 0 is unlimited. It holds for each member.
        pool_size: Option<u32> = None, OnReload;
        /// Server connections a pool keeps open.
        min_pool_size: Option<u32> = None, OnReload;
        /// Server connections a pool may open beyond its size. Also spelled reserve_pool.
        reserve_pool_size: Option<u32> = None, OnReload;
        /// Server connections of all users together.
        max_db_connections: Option<u32> = None, OnReload;
        /// Client connections of all users together.
        max_db_client_connections: Option<u32> = None, OnReload;
        /// Server connections older than this are closed; 0 is the general setting.
        server_lifetime: Option<Duration> = None, OnReload;
        /// When a server connection goes back to its pool.
        pool_mode: Option<PoolMode> = None, OnReload;
        /// Which host of a list the next connection goes to.
        load_balance_hosts: LoadBalanceHosts = LoadBalanceHosts::RoundRobin, OnReload;
        /// Sent once on each new server connection.
        connect_query: Option<String> = None, OnReload;
        /// Longest wait for a free server connection.
        query_wait_timeout: Option<Duration> = None, OnReload;
        /// Reads may be answered with data this old, writes of their own session included; not set or 0: as [routing] says.
        max_staleness: Option<Duration> = None, OnReload;
        /// Asked from the server at login.
        client_encoding: Option<String> = None, OnReload;
        /// Asked from the server at login.
        datestyle: Option<String> = None, OnReload;
        /// Asked from the server at login.
        timezone: Option<String> = None, OnReload;
        /// Asked from the server at login.
        application_name: Option<String> = None, OnReload;
    }
    with {
        /// The name clients connect to; `*` is the fallback.
        pub name: String,
        /// The members beside this one, which serve reads.
        pub replicas: Vec<ReplicaConfig>,
    }
}

settings! {
    /// What an entry of `[replicas]` may say beyond what it inherits from its database.
    pub struct MemberSection {
        /// Share of the reads, 0 to 1000.
        weight: u32 = 1, OnReload, supported::weight;
        /// Further behind it serves nothing; not set: max_replica_lag.
        max_lag: Option<Duration> = None, OnReload;
        /// replica: it serves reads; promoted, it is the primary. any: a cluster of its own that is equal to the database's
        /// first one, both kept alike by others (logical replication both ways, a distributed database). Such members get
        /// reads and writes by weight as long as they take writes, each session on one of them; only if that fails it goes
        /// on with another one, and then nothing promises that it finds there what it has written.
        role: ReplicaRole = ReplicaRole::Replica, OnReload;
    }
}

/// An entry of `[replicas]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaConfig {
    /// What follows the last dot of its key.
    pub name: String,
    /// The parameters of its database, but for host and what the entry itself says. It has no replicas.
    pub parameters: DatabaseConfig,
    /// Share of the reads, 0 to 1000.
    pub weight: u32,
    /// Further behind it serves nothing; `None`: max_replica_lag.
    pub max_lag: Option<Duration>,
    /// What it may turn out to be.
    pub role: ReplicaRole,
}

settings! {
    /// An entry of `[users]`: limits for one user.
    pub struct UserConfig {
        /// When a server connection goes back to its pool.
        pool_mode: Option<PoolMode> = None, OnReload;
        /// Server connections to one database; 0 is unlimited.
        pool_size: Option<u32> = None, OnReload;
        /// Server connections a pool may open beyond its size.
        reserve_pool_size: Option<u32> = None, OnReload;
        /// Server connections to all databases together.
        max_user_connections: Option<u32> = None, OnReload;
        /// Client connections to all databases together.
        max_user_client_connections: Option<u32> = None, OnReload;
        /// A statement that runs longer loses its connections; 0 is the general setting.
        query_timeout: Option<Duration> = None, OnReload;
        /// Longest wait for a free server connection.
        query_wait_timeout: Option<Duration> = None, OnReload;
        /// Longest idle time inside a transaction; 0 is the general setting.
        idle_transaction_timeout: Option<Duration> = None, OnReload;
        /// Longest transaction; 0 is the general setting.
        transaction_timeout: Option<Duration> = None, OnReload;
        /// Longest idle time; 0 is the general setting.
        client_idle_timeout: Option<Duration> = None, OnReload;
        /// Reads may be answered with data this old, writes of their own session included; not set: as for the database.
        max_staleness: Option<Duration> = None, OnReload;
    }
}

settings! {
    /// An entry of `[peers]`: another process that may know a cancel key.
    pub struct PeerConfig {
        /// Host name, address or directory of its unix socket.
        host: String = String::new(), OnReload;
        /// Its port.
        port: u16 = 6432, OnReload, supported::port;
        /// Cancel requests in flight to it; not set: default_pool_size.
        pool_size: Option<u32> = None, OnReload;
    }
}

/// Where a server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host<'a> {
    /// No host is given: the directory that unix_socket_dir names.
    Default,
    /// Directory of a unix socket; one that starts with `@` is abstract.
    Unix(&'a str),
    /// Name or address.
    Tcp(&'a str),
}

impl DatabaseConfig {
    /// Name of the entry that serves every database without one of its own.
    pub const FALLBACK: &'static str = "*";

    /// The server's name for the database.
    pub fn server_dbname(&self) -> &str {
        self.dbname.as_deref().unwrap_or(&self.name)
    }

    /// Does it consist of clusters that are equal (`role = any`)?
    pub fn has_equals(&self) -> bool {
        self.replicas.iter().any(|replica| replica.role == ReplicaRole::Any)
    }

    /// The hosts in their order, at least one.
    pub fn hosts(&self) -> impl Iterator<Item = Host<'_>> {
        self.host.split(',').map(|host| match host.trim() {
            "" => Host::Default,
            path if path.starts_with(['/', '@']) => Host::Unix(path),
            name => Host::Tcp(name),
        })
    }

    /// What the fallback entry is for a client that asked for `name`.
    pub fn named(&self, name: &str) -> DatabaseConfig {
        let mut named = self.clone();
        name.clone_into(&mut named.name);
        for replica in &mut named.replicas {
            name.clone_into(&mut replica.parameters.name);
        }
        named
    }

    /// Whether server connections made under `other` must be replaced: the same as PgBouncer's list.
    pub fn needs_new_connections(&self, other: &DatabaseConfig) -> bool {
        self.server_dbname() != other.server_dbname()
            || self.host != other.host
            || self.port != other.port
            || self.user != other.user
            || self.connect_query != other.connect_query
            || self.auth_dbname != other.auth_dbname
            || self.auth_query != other.auth_query
            || self.load_balance_hosts != other.load_balance_hosts
    }
}

impl super::Config {
    /// The database a client asked for; from the fallback entry if it has none of its own.
    pub fn database(&self, name: &str) -> Option<Cow<'_, DatabaseConfig>> {
        let listed = self.databases.get(name).map(Cow::Borrowed);
        listed.or_else(|| self.fallback.as_ref().map(|fallback| Cow::Owned(fallback.named(name))))
    }
}
