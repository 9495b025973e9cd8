//! What holds for a database and a user: user before database before the general setting.

use std::time::Duration;

use super::{
    Config,
    choice::{CacheMode, PoolMode, ReadYourWrites},
    entries::{DatabaseConfig, UserConfig},
};

/// PgBouncer has no "none" beside a general timeout: 0 in an entry is as if it were not there.
fn unless_zero(time: Option<Duration>) -> Option<Duration> {
    time.filter(|time| !time.is_zero())
}

impl Config {
    fn of_user<T>(&self, user: &str, field: impl Fn(&UserConfig) -> Option<T>) -> Option<T> {
        self.users.get(user).and_then(field)
    }

    /// When a server connection goes back to the pool. `user` is the pool's.
    pub fn pool_mode(&self, database: &DatabaseConfig, user: &str) -> PoolMode {
        let chosen = self.of_user(user, |user| user.pool_mode).or(database.pool_mode);
        chosen.unwrap_or(self.pgbouncer.pool_mode)
    }

    /// Server connections of one pool; 0 is unlimited. `user` is the pool's.
    pub fn effective_pool_size(&self, database: &DatabaseConfig, user: &str) -> u32 {
        let chosen = self.of_user(user, |user| user.pool_size).or(database.pool_size);
        chosen.unwrap_or(self.pgbouncer.default_pool_size)
    }

    /// Server connections beyond the pool's size. `user` is the pool's.
    pub fn reserve_pool_size(&self, database: &DatabaseConfig, user: &str) -> u32 {
        let chosen = self.of_user(user, |user| user.reserve_pool_size).or(database.reserve_pool_size);
        chosen.unwrap_or(self.pgbouncer.reserve_pool_size)
    }

    /// Server connections a pool keeps open.
    pub fn min_pool_size(&self, database: &DatabaseConfig) -> u32 {
        database.min_pool_size.unwrap_or(self.pgbouncer.min_pool_size)
    }

    /// Server connections to the database; 0 is unlimited.
    pub fn max_db_connections(&self, database: &DatabaseConfig) -> u32 {
        database.max_db_connections.unwrap_or(self.pgbouncer.max_db_connections)
    }

    /// Client connections to the database; 0 is unlimited.
    pub fn max_db_client_connections(&self, database: &DatabaseConfig) -> u32 {
        database.max_db_client_connections.unwrap_or(self.pgbouncer.max_db_client_connections)
    }

    /// Server connections of the user; 0 is unlimited.
    pub fn max_user_connections(&self, user: &str) -> u32 {
        let own = self.of_user(user, |user| user.max_user_connections);
        own.unwrap_or(self.pgbouncer.max_user_connections)
    }

    /// Client connections of the user; 0 is unlimited.
    pub fn max_user_client_connections(&self, user: &str) -> u32 {
        let own = self.of_user(user, |user| user.max_user_client_connections);
        own.unwrap_or(self.pgbouncer.max_user_client_connections)
    }

    /// Age at which server connections are closed.
    pub fn server_lifetime(&self, database: &DatabaseConfig) -> Duration {
        unless_zero(database.server_lifetime).unwrap_or(self.pgbouncer.server_lifetime)
    }

    /// Longest wait for a server connection; `None` waits forever. `user` is who logged in.
    pub fn query_wait_timeout(&self, database: &DatabaseConfig, user: &str) -> Option<Duration> {
        let chosen = self.of_user(user, |user| user.query_wait_timeout).or(database.query_wait_timeout);
        unless_zero(Some(chosen.unwrap_or(self.pgbouncer.query_wait_timeout)))
    }

    /// Longest statement. `user` is who logged in.
    pub fn query_timeout(&self, user: &str) -> Option<Duration> {
        let own = unless_zero(self.of_user(user, |user| user.query_timeout));
        own.or(unless_zero(Some(self.pgbouncer.query_timeout)))
    }

    /// Longest idle time inside a transaction. `user` is who logged in.
    pub fn idle_transaction_timeout(&self, user: &str) -> Option<Duration> {
        let own = unless_zero(self.of_user(user, |user| user.idle_transaction_timeout));
        own.or(unless_zero(Some(self.pgbouncer.idle_transaction_timeout)))
    }

    /// Longest transaction. `user` is who logged in.
    pub fn transaction_timeout(&self, user: &str) -> Option<Duration> {
        let own = unless_zero(self.of_user(user, |user| user.transaction_timeout));
        own.or(unless_zero(Some(self.pgbouncer.transaction_timeout)))
    }

    /// Longest idle time outside transactions. `user` is who logged in.
    pub fn client_idle_timeout(&self, user: &str) -> Option<Duration> {
        let own = unless_zero(self.of_user(user, |user| user.client_idle_timeout));
        own.or(unless_zero(Some(self.pgbouncer.client_idle_timeout)))
    }

    /// The user who runs auth_query for a database.
    pub fn auth_user<'a>(&'a self, database: &'a DatabaseConfig) -> Option<&'a str> {
        database.auth_user.as_deref().or(self.pgbouncer.auth_user.as_deref())
    }

    /// The query that finds a user's secret.
    pub fn auth_query<'a>(&'a self, database: &'a DatabaseConfig) -> &'a str {
        database.auth_query.as_deref().unwrap_or(&self.pgbouncer.auth_query)
    }

    /// The database in which that query runs, if not the client's.
    pub fn auth_dbname<'a>(&'a self, database: &'a DatabaseConfig) -> Option<&'a str> {
        database.auth_dbname.as_deref().or(self.pgbouncer.auth_dbname.as_deref())
    }

    /// Longest time to connect and log in to a server; `Duration::MAX` where 0 says for ever.
    pub fn server_connect_timeout(&self) -> Duration {
        let timeout = self.pgbouncer.server_connect_timeout;
        if timeout.is_zero() { Duration::MAX } else { timeout }
    }

    /// Whose writes a read is sure to see: what is set, else what the cache needs.
    pub fn read_your_writes(&self) -> ReadYourWrites {
        let implied = match self.cache.enabled {
            CacheMode::On => ReadYourWrites::Database,
            CacheMode::Off | CacheMode::Observe => ReadYourWrites::Session,
        };
        self.routing.read_your_writes.unwrap_or(implied)
    }
}
