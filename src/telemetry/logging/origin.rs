//! Which connection a log line is about.

use std::{fmt, sync::Arc};

/// A client or a server connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// `C-`
    Client,
    /// `S-`
    Server,
}

/// The connection a line is about: `tracing::info!(origin = %origin, "closing")` prints
/// `C-0x1f: shop/app@10.0.0.7:40312 closing`.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Client or server.
    pub side: Side,
    /// Id as in SHOW CLIENTS and SHOW SERVERS.
    pub id: u64,
    /// Known after the startup message.
    pub database: Option<Arc<str>>,
    /// Known after the startup message.
    pub user: Option<Arc<str>>,
    /// `address:port`, `[ipv6]:port` or `unix(PID):port`.
    pub peer: Arc<str>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.side {
            Side::Client => 'C',
            Side::Server => 'S',
        };
        let database = self.database.as_deref().unwrap_or("(nodb)");
        let user = self.user.as_deref().unwrap_or("(nouser)");
        write!(f, "{side}-{:#x}: {database}/{user}@{}", self.id, self.peer)
    }
}
