//! Opens and authenticates a connection.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64},
    },
};

use super::{CancelGate, CancelKey, Core, Idle, Resolver, ServerConnection, ServerInfo};
use crate::{
    auth::{
        Secret,
        server_login::{ServerLogin, ServerLoginError},
    },
    net::{
        Address, Endpoint, SocketOptions, Stream,
        tls::{ConnectTls, TlsConnectError},
    },
    protocol::{FrameError, SqlState, backend, backend::tag, error_response, frame, frontend, startup},
    session::{Parameters, SessionSettings, prepared::ServerStatements},
};

/// Longest message that a server sends during login.
const LOGIN_MESSAGE_BYTES: usize = 64 * 1024;

/// Finds the way to an address.
#[derive(Clone, Debug)]
pub struct Dialer {
    /// Knows what names mean.
    pub resolver: Arc<Resolver>,
    /// What the kernel is asked for.
    pub socket: SocketOptions,
}

impl Dialer {
    /// Opens a connection; says what the name meant. The caller sets the deadline.
    ///
    /// # Errors
    /// The name does not resolve, or nobody accepts.
    pub async fn dial(&self, address: &Address) -> io::Result<(Stream, Option<SocketAddr>)> {
        match address {
            Address::Tcp(host, port) => {
                let (stream, peer) = connect_to_any(self.resolver.resolve(host, *port).await?).await?;
                if let Err(error) = self.socket.apply(&stream) {
                    tracing::warn!(%error, "socket options of a server connection not set");
                }
                Ok((stream, Some(peer)))
            }
            Address::Unix(path) => Ok((Stream::connect_unix(path).await?, None)),
        }
    }
}

impl Dialer {
    /// Would a connection that is opened now lead where this one does? Not where its address has left DNS.
    #[must_use]
    pub fn leads_to(&self, server: &ServerInfo) -> bool {
        match (&server.address, server.peer) {
            (Address::Tcp(host, _), Some(peer)) => self.resolver.means(host, peer.ip()),
            _ => true,
        }
    }
}

/// The first that answers.
async fn connect_to_any(peers: Vec<SocketAddr>) -> io::Result<(Stream, SocketAddr)> {
    let mut last_error = io::ErrorKind::AddrNotAvailable.into();
    for peer in peers {
        match Stream::connect_tcp(peer).await {
            Ok(stream) => return Ok((stream, peer)),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

/// Who logs in where.
#[derive(Clone, Debug)]
pub struct Login {
    /// Where.
    pub address: Address,
    /// As whom.
    pub user: String,
    /// With what.
    pub secret: Option<Secret>,
    /// What the user's last SCRAM login has shown.
    pub keys: Option<crate::auth::scram::ClientKeys>,
    /// To which database.
    pub database: String,
    /// Start-up parameters of the database's connect string.
    pub parameters: Vec<(String, String)>,
    /// How to get there.
    pub dialer: Dialer,
    /// How the connection is encrypted.
    pub tls: Arc<ConnectTls>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The socket did not connect, or broke.
    #[error("{address}: {source}")]
    Io {
        /// Where.
        address: Address,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `server_tls_sslmode` wants more than the server gives, or the handshake failed.
    #[error("{address}: {source}")]
    Tls {
        /// Where.
        address: Address,
        /// Why.
        #[source]
        source: TlsConnectError,
    },
    /// `server_connect_timeout`.
    #[error("{0}: connect timeout")]
    Timeout(Address),
    /// The server said no; its words go to the client as they are.
    #[error("server refused the login: {sqlstate:?} {message}")]
    Refused {
        /// Its code.
        sqlstate: Option<SqlState>,
        /// Its message.
        message: String,
        /// The whole `ErrorResponse`.
        frame: Vec<u8>,
    },
    /// We cannot answer what the server asks.
    #[error(transparent)]
    Login(#[from] ServerLoginError),
    /// What it says is no login.
    #[error("server protocol: {0}")]
    Frame(#[from] FrameError),
    /// A message of a kind that has no place in a login.
    #[error("unexpected message {0:#04x} during login")]
    Unexpected(u8),
}

/// Printable and random.
fn nonce() -> String {
    let mut random = [0; 18];
    if getrandom::fill(&mut random).is_err() {
        tracing::error!("the operating system gives no random numbers");
    }
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, random)
}

/// What a server said about itself during login.
#[derive(Debug, Default)]
struct Greeting {
    parameters: Parameters,
    reported: Vec<(String, String)>,
    pid: u32,
    secret: Vec<u8>,
}

/// Connects and logs in; everything that the server reported comes with the connection. The caller sets the deadline.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect(
    login: &Login,
    id: u64,
    now: u64,
    worker: usize,
) -> Result<(ServerConnection<Idle>, Vec<(String, String)>), ConnectError> {
    let io_error = |source| ConnectError::Io { address: login.address.clone(), source };
    let (stream, peer) = login.dialer.dial(&login.address).await.map_err(io_error)?;
    let mut endpoint = Endpoint::new(stream);
    if let Address::Tcp(host, _) = &login.address {
        let tls_error = |source| ConnectError::Tls { address: login.address.clone(), source };
        login.tls.connect(&mut endpoint, host).await.map_err(tls_error)?;
    }
    let encryption = endpoint.stream.tls().cloned();
    let mut parameters = vec![("user", login.user.as_str()), ("database", login.database.as_str())];
    parameters.extend(login.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    startup::put_startup(endpoint.outbox.buffer(), &parameters);

    let mut exchange = ServerLogin::new(&login.user, login.secret.as_ref());
    if let Some(end_point) = encryption.as_ref().and_then(|tls| tls.end_point.as_deref()) {
        exchange = exchange.bound_to(end_point);
    }
    if let Some(keys) = &login.keys {
        exchange = exchange.with_keys(keys.clone(), &nonce());
    }
    let mut greeting = Greeting::default();
    loop {
        endpoint.flush().await.map_err(io_error)?;
        let (consumed, is_ready) = {
            let Some(message) = next_message(endpoint.inbox.unread())? else {
                endpoint.read().await.map_err(io_error)?;
                continue;
            };
            let is_ready = on_message(message, &mut exchange, &mut greeting, endpoint.outbox.buffer())?;
            (message.len(), is_ready)
        };
        endpoint.inbox.skip(consumed, &mut Default::default());
        if is_ready {
            break;
        }
    }
    let Greeting { parameters, reported, pid, secret } = greeting;
    let info = ServerInfo {
        id,
        address: login.address.clone(),
        peer,
        local: endpoint.stream.local(),
        cancel_by: encryption.is_some().then(|| Arc::clone(&login.tls)),
        tls: encryption,
        connected_at: now,
        remote_pid: pid,
        client: AtomicU64::new(0),
        requested_at: AtomicU64::new(now),
        statements: AtomicU64::new(0),
        close_needed: AtomicBool::new(false),
        is_tested: AtomicBool::new(false),
        buffers: Mutex::default(),
        gate: CancelGate::new(CancelKey { pid, secret: secret.into() }),
        end: OnceLock::new(),
    };
    let core = Core {
        endpoint,
        statements: ServerStatements::default(),
        parameters,
        settings: SessionSettings::default(),
        began_with: SessionSettings::default(),
        sequences_of: 0,
        info: Arc::new(info),
        worker,
        is_tainted: false,
        lease: None,
    };
    Ok((ServerConnection::new(core), reported))
}

fn next_message(unread: &[u8]) -> Result<Option<&[u8]>, ConnectError> {
    let Some(header) = frame::header(unread)? else {
        return Ok(None);
    };
    if header.frame_bytes > LOGIN_MESSAGE_BYTES {
        return Err(FrameError::LengthTooLarge(header.frame_bytes as u32).into());
    }
    Ok(unread.get(..header.frame_bytes))
}

/// True when the server is ready for queries.
fn on_message(
    message: &[u8],
    exchange: &mut ServerLogin,
    greeting: &mut Greeting,
    out: &mut Vec<u8>,
) -> Result<bool, ConnectError> {
    let mut fields = frame::Fields::of(message);
    match message.first().copied().unwrap_or_default() {
        tag::AUTHENTICATION => {
            let code = fields.i32()?;
            if let Some(answer) = exchange.on_message(code, fields.rest())? {
                frontend::put_password(out, &answer);
            }
        }
        tag::PARAMETER_STATUS => {
            if let Some((name, value)) = backend::parameter_status(message) {
                greeting.parameters.set(name, value);
                greeting.reported.push((name.to_owned(), value.to_owned()));
            }
        }
        tag::BACKEND_KEY_DATA => {
            greeting.pid = fields.i32()? as u32;
            greeting.secret = fields.rest().to_vec();
        }
        tag::ERROR_RESPONSE => {
            let text = error_response::field(message, b'M').unwrap_or_default();
            return Err(ConnectError::Refused {
                sqlstate: error_response::sqlstate(message),
                message: String::from_utf8_lossy(text).into_owned(),
                frame: message.to_vec(),
            });
        }
        tag::READY_FOR_QUERY => return Ok(true),
        tag::NOTICE_RESPONSE | tag::NEGOTIATE_PROTOCOL_VERSION => {}
        other => return Err(ConnectError::Unexpected(other)),
    }
    Ok(false)
}
