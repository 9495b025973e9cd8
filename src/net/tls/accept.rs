//! Towards clients, where we are the server.

use std::{io, sync::Arc};

use rustls::{ServerConfig, ServerConnection, pki_types::CertificateDer};

use super::peer::end_point;
use crate::net::Endpoint;

/// The protocol's name in ALPN.
///
/// <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL>
pub const ALPN: &[u8] = b"postgresql";

/// How connections of clients are encrypted.
#[derive(Debug)]
pub struct AcceptTls {
    config: Arc<ServerConfig>,
    end_point: Option<Box<[u8]>>,
}

impl AcceptTls {
    /// `certificate` is the first of those that `config` shows.
    #[must_use]
    pub fn new(config: ServerConfig, certificate: &CertificateDer<'_>) -> Self {
        Self { config: Arc::new(config), end_point: end_point(certificate) }
    }

    /// Encrypts a connection; what the inbox holds is the beginning of the handshake. The caller sets the deadline.
    ///
    /// # Errors
    /// The handshake failed (`InvalidData` with rustls' reason), or the socket.
    pub async fn accept(&self, endpoint: &mut Endpoint) -> io::Result<()> {
        let session = ServerConnection::new(Arc::clone(&self.config)).map_err(io::Error::other)?;
        let arrived = endpoint.inbox.unread().to_vec();
        endpoint.inbox.skip(arrived.len(), &mut Default::default());
        let stream = endpoint.stream.encrypt(session.into(), &arrived, self.end_point.clone())?;
        stream.handshake().await
    }
}
