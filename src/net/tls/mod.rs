//! TLS on either side of the proxy, by rustls.

mod accept;
mod connect;
mod files;
mod peer;
mod stream;
mod verify;

use std::sync::Arc;

pub(super) use self::stream::TlsStream;
pub use self::{
    accept::{ALPN, AcceptTls},
    connect::{ConnectTls, TlsConnectError},
    peer::{TlsFacts, end_point},
};
use crate::config::{ConfigError, MainSection};

/// What the settings and the files that they name say, for both sides.
#[derive(Clone, Debug, Default)]
pub struct TlsSetup {
    /// For clients; `None`: they get no TLS.
    pub accept: Option<Arc<AcceptTls>>,
    /// For servers.
    pub connect: Arc<ConnectTls>,
}

impl TlsSetup {
    /// Reads the files.
    ///
    /// # Errors
    /// One cannot be used, or is needed and not named; the error has the key and no place.
    pub fn load(main: &MainSection) -> Result<Self, ConfigError> {
        let accept = AcceptTls::load(main)?.map(Arc::new);
        Ok(Self { accept, connect: Arc::new(ConnectTls::load(main)?) })
    }
}
