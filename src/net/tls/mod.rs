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

/// The certificates that the file named by `key` holds, as PEM, looked at; `None` for no file.
///
/// # Errors
/// It cannot be read, or nobody in it can be trusted; the error has the key and no place.
pub fn trusted_file(key: &str, file: &str) -> Result<Option<Vec<u8>>, ConfigError> {
    match file {
        "" => Ok(None),
        file => files::issuers(key, file).map(|found| Some(found.bytes)),
    }
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
