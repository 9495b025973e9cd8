//! Towards servers, where we are the client.

use std::{io, sync::Arc};

use ring::digest;
use rustls::{
    ClientConfig, ClientConnection,
    client::Resumption,
    pki_types::{IpAddr, ServerName},
};

use super::{
    files::{self, wrong},
    verify::{Checks, ServerCheck},
};
use crate::{
    config::{ConfigError, MainSection, SslMode},
    net::Endpoint,
    protocol::startup,
};

/// How connections to servers are encrypted: `server_tls_*`.
#[derive(Debug)]
pub struct ConnectTls {
    mode: SslMode,
    config: Option<Arc<ClientConfig>>,
    /// Of the settings and the files' contents.
    fingerprint: Box<[u8]>,
}

/// Why a connection to a server is not encrypted.
#[derive(Debug, thiserror::Error)]
pub enum TlsConnectError {
    /// It said `N`, and `server_tls_sslmode` wants TLS.
    #[error("server refused SSL")]
    Refused,
    /// Neither `S` nor `N`.
    #[error("bad sslreq answer")]
    BadAnswer,
    /// Something stood behind its `S`: somebody may have put it there.
    #[error("received unencrypted data after SSL response")]
    Injected,
    /// The handshake or the socket failed.
    #[error("TLS handshake failed: {0}")]
    Handshake(#[source] io::Error),
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Do both lead to the same connections? Settings and contents of files are compared.
impl PartialEq for ConnectTls {
    fn eq(&self, other: &Self) -> bool {
        self.mode == other.mode && self.fingerprint == other.fingerprint
    }
}

impl Eq for ConnectTls {}

impl Default for ConnectTls {
    /// No TLS.
    fn default() -> Self {
        Self { mode: SslMode::Disable, config: None, fingerprint: Box::default() }
    }
}

impl ConnectTls {
    /// Reads the files.
    ///
    /// # Errors
    /// One cannot be used; the error has the key and no place.
    pub(super) fn load(main: &MainSection) -> Result<Self, ConfigError> {
        let mode = main.server_tls_sslmode;
        if mode == SslMode::Disable {
            return Ok(Self::default());
        }
        let ciphers_13 = main.server_tls13_ciphers.as_deref();
        let provider = files::provider(
            ("server_tls_ciphers", &main.server_tls_ciphers),
            ("server_tls13_ciphers", ciphers_13),
            ("", "auto"),
        )?;
        let versions = files::versions("server_tls_protocols", &main.server_tls_protocols)?;
        let mut seen = vec![
            format!("{:?}", (mode, &main.server_tls_protocols, &main.server_tls_ciphers, ciphers_13)).into_bytes(),
        ];
        let mut issuers = || {
            let read = files::issuers("server_tls_ca_file", &main.server_tls_ca_file)?;
            seen.push(read.bytes);
            Ok::<_, ConfigError>(read.value)
        };
        let checks = match mode {
            SslMode::VerifyFull => Checks::IssuerAndName(issuers()?),
            SslMode::VerifyCa => Checks::Issuer(issuers()?),
            SslMode::Disable | SslMode::Allow | SslMode::Prefer | SslMode::Require => Checks::Nothing,
        };
        let check = ServerCheck { checks, algorithms: provider.signature_verification_algorithms };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&versions);
        let builder = builder.map_err(|error| wrong("server_tls_protocols", "usable versions", error.to_string()))?;
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(check));
        let files = [
            ("server_tls_cert_file", &*main.server_tls_cert_file),
            ("server_tls_key_file", &*main.server_tls_key_file),
        ];
        let mut config = match files {
            [(_, ""), (_, "")] => builder.with_no_client_auth(),
            [(key, ""), (other, _)] | [(other, _), (key, "")] => {
                return Err(wrong(key, &format!("a file (there is one for {other})"), "nothing"));
            }
            [certificate, key] => {
                let own = files::own(&provider, certificate, key)?;
                seen.push(own.bytes);
                builder.with_client_cert_resolver(own.resolver)
            }
        };
        config.resumption = Resumption::disabled();
        let mut context = digest::Context::new(&digest::SHA256);
        for part in seen {
            context.update(digest::digest(&digest::SHA256, &part).as_ref());
        }
        Ok(Self { mode, config: Some(Arc::new(config)), fingerprint: context.finish().as_ref().into() })
    }

    /// For connections that others open; `None` without TLS.
    #[must_use]
    pub fn config(&self) -> Option<Arc<ClientConfig>> {
        self.config.clone()
    }

    /// Must connections over TCP be encrypted?
    #[must_use]
    pub fn is_required(&self) -> bool {
        matches!(self.mode, SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull)
    }

    /// What the certificate must be for, and what the server is told it is asked as.
    ///
    /// # Errors
    /// `host` can be no name in a certificate, and the mode asks for one.
    pub fn server_name(&self, host: &str) -> io::Result<ServerName<'static>> {
        match ServerName::try_from(host.to_owned()) {
            Ok(name) => Ok(name),
            Err(error) if self.mode == SslMode::VerifyFull => Err(io::Error::new(io::ErrorKind::InvalidInput, error)),
            // Nobody looks at it, and an address is not sent.
            Err(_) => Ok(ServerName::IpAddress(IpAddr::V4([0, 0, 0, 0].into()))),
        }
    }

    /// Asks the server for TLS, unless the mode is `disable`, and encrypts the connection if it agrees. The caller sets
    /// the deadline.
    ///
    /// # Errors
    /// See [`TlsConnectError`].
    pub async fn connect(&self, endpoint: &mut Endpoint, host: &str) -> Result<(), TlsConnectError> {
        let Some(config) = &self.config else { return Ok(()) };
        endpoint.outbox.buffer().extend_from_slice(&startup::SSL_REQUEST_BYTES);
        endpoint.flush().await?;
        endpoint.read().await?;
        match endpoint.inbox.unread() {
            [b'S'] => {}
            [b'N'] if !self.is_required() => {
                endpoint.inbox.skip(1, &mut Default::default());
                return Ok(());
            }
            [b'N'] => return Err(TlsConnectError::Refused),
            [b'S' | b'N', ..] => return Err(TlsConnectError::Injected),
            _ => return Err(TlsConnectError::BadAnswer),
        }
        endpoint.inbox.skip(1, &mut Default::default());
        let name = self.server_name(host)?;
        let session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        let stream = endpoint.stream.encrypt(session.into(), &[], None)?;
        stream.handshake().await.map_err(TlsConnectError::Handshake)
    }
}
