//! Towards clients, where we are the server.

use std::{io, sync::Arc};

use rustls::{
    ServerConfig, ServerConnection,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};

use super::{
    files::{self, Own, wrong},
    peer::end_point,
};
use crate::{
    config::{AuthType, ConfigError, MainSection, SslMode},
    net::Endpoint,
};

/// The protocol's name in ALPN.
///
/// <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL>
pub const ALPN: &[u8] = b"postgresql";

/// How connections of clients are encrypted: `client_tls_*`.
#[derive(Debug)]
pub struct AcceptTls {
    config: Arc<ServerConfig>,
    end_point: Option<Box<[u8]>>,
    mode: SslMode,
}

impl AcceptTls {
    /// Reads the files; `None` for `client_tls_sslmode = disable`.
    ///
    /// # Errors
    /// A file cannot be used or is not named; the error has the key and no place.
    pub(super) fn load(main: &MainSection) -> Result<Option<Self>, ConfigError> {
        let mode = main.client_tls_sslmode;
        if main.auth_type == AuthType::Cert && mode != SslMode::VerifyFull {
            let expected = "verify-full (auth_type = cert needs it)";
            return Err(wrong("client_tls_sslmode", expected, mode.label()));
        }
        if mode == SslMode::Disable {
            return Ok(None);
        }
        let needed = |key, value: &str| {
            let expected = format!("a file (client_tls_sslmode = {} needs it)", mode.label());
            if value.is_empty() { Err(wrong(key, &expected, "nothing")) } else { Ok(()) }
        };
        needed("client_tls_key_file", &main.client_tls_key_file)?;
        needed("client_tls_cert_file", &main.client_tls_cert_file)?;
        let asks_for_certificate = matches!(mode, SslMode::VerifyCa | SslMode::VerifyFull);
        if asks_for_certificate {
            needed("client_tls_ca_file", &main.client_tls_ca_file)?;
        }
        let provider = files::provider(
            ("client_tls_ciphers", &main.client_tls_ciphers),
            ("client_tls13_ciphers", main.client_tls13_ciphers.as_deref()),
            ("client_tls_ecdhcurve", &main.client_tls_ecdhcurve),
        )?;
        let versions = files::versions("client_tls_protocols", &main.client_tls_protocols)?;
        let Own { resolver, first, .. } = files::own(
            &provider,
            ("client_tls_cert_file", &main.client_tls_cert_file),
            ("client_tls_key_file", &main.client_tls_key_file),
        )?;
        let verifier = match &*main.client_tls_ca_file {
            // Nobody could say whether what a client shows is right.
            "" => WebPkiClientVerifier::no_client_auth(),
            file => {
                let issuers = files::issuers("client_tls_ca_file", file)?.value;
                let builder =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(issuers.roots), Arc::clone(&provider));
                let builder = if asks_for_certificate { builder } else { builder.allow_unauthenticated() };
                let unusable = |error| wrong("client_tls_ca_file", "issuers of certificates", format!("{error}"));
                builder.build().map_err(unusable)?
            }
        };
        let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&versions);
        let builder = builder.map_err(|error| wrong("client_tls_protocols", "usable versions", error.to_string()))?;
        let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(resolver);
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.ignore_client_order = true;
        // As PostgreSQL: no session is resumed.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Some(Self { config: Arc::new(config), end_point: end_point(&first), mode }))
    }

    /// Must clients on TCP encrypt?
    #[must_use]
    pub fn is_required(&self) -> bool {
        matches!(self.mode, SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull)
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
