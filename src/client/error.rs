//! Why a client's session ended.

use super::{admission::Crowded, context::AuthQueryError, deadlines::Overdue};
use crate::{
    auth::{Refusal, scram::ScramError},
    cluster::MailError,
    net::{PeerError, Side},
    pool::CheckoutError,
    protocol::{ErrorResponse, FrameError, SqlState, error_response, startup::StartupError},
};

/// The end of a session, or of an attempt at one.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The client said goodbye.
    #[error("client close request")]
    Terminated,
    /// The client's socket broke, or it went without a word.
    #[error("client unexpected eof: {0}")]
    Gone(std::io::Error),
    /// The server's socket broke while the client held it.
    #[error("server conn crashed? {0}")]
    ServerGone(std::io::Error),
    /// The server sent something that nothing was owed for.
    #[error("server protocol: {0}")]
    ServerProtocol(&'static str),
    /// The client sent what no client sends.
    #[error("client protocol: {0}")]
    Frame(#[from] FrameError),
    /// No start-up packet.
    #[error(transparent)]
    Startup(#[from] StartupError),
    /// No server connection.
    #[error(transparent)]
    Checkout(#[from] CheckoutError),
    /// The TLS handshake failed.
    #[error("TLS handshake failed: {0}")]
    Handshake(#[source] std::io::Error),
    /// It asked for TLS where there can be none.
    #[error("{0}")]
    Encryption(&'static str),
    /// Wrong password, unknown user, a rule.
    #[error("{}", .0.message())]
    Authentication(Refusal),
    /// The operating system gives no random numbers.
    #[error("no random numbers")]
    NoRandom,
    /// auth_query has no answer.
    #[error("auth_query: {0}")]
    AuthQuery(#[from] AuthQueryError),
    /// Nobody serves a database of this name, or nobody is served by it.
    #[error("no such database: {0}")]
    NoSuchDatabase(String),
    /// The SCRAM exchange failed.
    #[error(transparent)]
    Scram(#[from] ScramError),
    /// `client_login_timeout`.
    #[error("client_login_timeout")]
    LoginTimeout,
    /// Told so before the password exchange or right behind it.
    #[error("{0}")]
    Refused(String),
    /// A value of a start-up parameter that the server does not take.
    #[error("invalid start-up parameter")]
    InvalidParameter(Vec<u8>),
    /// A server did not take what the session has set: nothing may run without it.
    #[error("settings of the session could not be restored")]
    SettingsLost(Vec<u8>),
    /// It is served by another process from now on.
    #[error("handed over")]
    HandedOver,
    /// `max_pinned`
    #[error("too many sessions of this pool hold a server connection (max_pinned)")]
    TooManyPinned,
    /// Notifications may be missing, which nobody could tell it in another way.
    #[error(transparent)]
    Mail(#[from] MailError),
    /// The process stops.
    #[error("server shutting down")]
    ShuttingDown,
    /// `max_client_conn`
    #[error("no more connections allowed (max_client_conn)")]
    TooMany,
    /// The fallback entry has made as many databases as there may be.
    #[error("no more databases allowed")]
    TooManyDatabases,
    /// There are as many of its database or its user as there may be.
    #[error("{}", .0.label())]
    Crowded(Crowded),
    /// A server did not come up before `client_login_timeout`.
    #[error("client_login_timeout (server down)")]
    ServerDown,
    /// It took too long.
    #[error("{}", .0.label())]
    Overdue(Overdue),
    /// KILL_CLIENT.
    #[error("admin forced disconnect")]
    Disconnected,
    /// SUSPEND waited for its buffers to become empty.
    #[error("suspend_timeout")]
    SuspendTimeout,
    /// KILL, or a RELOAD without the database.
    #[error("database removed")]
    DatabaseRemoved,
    /// DISABLE.
    #[error("database \"{0}\" is disabled")]
    DatabaseDisabled(String),
    /// The server that it holds is the primary no longer.
    #[error("the primary has changed")]
    Deposed,
    /// Other proxies that cache the database could not be told of its write.
    #[error("other proxies that cache the database could not be told of a write")]
    Unheard {
        /// Or nothing of it has been sent.
        may_be_committed: bool,
    },
    /// Its write had to wait, and a cancel request came.
    #[error("canceling statement due to user request")]
    Cancelled,
    /// The descriptor could not be used.
    #[error(transparent)]
    Socket(std::io::Error),
}

impl From<Refusal> for ClientError {
    fn from(refusal: Refusal) -> Self {
        Self::Authentication(refusal)
    }
}

/// PostgreSQL's codes, which drivers know; PgBouncer has one for everything.
fn sqlstate_of(refusal: Refusal) -> SqlState {
    match refusal.is_about_the_password() {
        true => SqlState::INVALID_PASSWORD,
        false => SqlState::INVALID_AUTHORIZATION,
    }
}

impl From<PeerError> for ClientError {
    fn from(error: PeerError) -> Self {
        match error.side {
            Side::Client => Self::Gone(error.source),
            Side::Server => Self::ServerGone(error.source),
        }
    }
}

/// What the client is told, if it can still be told anything.
#[derive(Debug)]
pub(super) enum LastWords {
    /// Nothing.
    Silence,
    /// An error of ours.
    Ours(ErrorResponse),
    /// The server's words, byte for byte.
    Servers(Vec<u8>),
}

/// What the server says about a value that it does not take, to a session that cannot go on without.
fn as_fatal(frame: &[u8]) -> ErrorResponse {
    let message = error_response::field(frame, b'M').unwrap_or_default();
    let sqlstate = error_response::sqlstate(frame).unwrap_or(SqlState::INVALID_PARAMETER_VALUE);
    ErrorResponse::fatal(sqlstate, String::from_utf8_lossy(message).into_owned())
}

impl ClientError {
    /// Has `query_wait_timeout` ended it?
    pub(super) fn is_wait_timeout(&self) -> bool {
        matches!(self, Self::Checkout(CheckoutError::WaitTimeout { .. }) | Self::Overdue(Overdue::Wait))
    }

    /// The `reason` of its metrics: the setting that ended it, where there is one.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Terminated => "client_close_request",
            Self::Gone(_) => "client_gone",
            Self::ServerGone(_) => "server_gone",
            Self::ServerProtocol(_) => "server_protocol",
            Self::Frame(_) => "client_protocol",
            Self::Startup(_) => "startup_packet",
            Self::Checkout(CheckoutError::WaitTimeout { .. }) => Overdue::Wait.setting(),
            Self::Checkout(CheckoutError::Connect(_)) => "server_connect",
            Self::Checkout(CheckoutError::LoginFailing(_)) => "server_login_retry",
            Self::Checkout(CheckoutError::Closed) | Self::ShuttingDown => "shutting_down",
            Self::Checkout(CheckoutError::Moved) => "primary_changed",
            Self::Handshake(_) | Self::Encryption(_) => "tls",
            Self::Authentication(_) | Self::Scram(_) => "authentication",
            Self::NoRandom => "no_random_numbers",
            Self::AuthQuery(_) => "auth_query",
            Self::NoSuchDatabase(_) => "no_such_database",
            Self::LoginTimeout | Self::ServerDown => "client_login_timeout",
            Self::Refused(_) => "refused",
            Self::InvalidParameter(_) => "startup_parameter",
            Self::SettingsLost(_) => "settings_lost",
            Self::HandedOver => "handed_over",
            Self::TooManyPinned => "max_pinned",
            Self::Mail(_) => "notifications_lost",
            Self::TooMany => "max_client_conn",
            Self::TooManyDatabases => "fallback_databases",
            Self::Crowded(Crowded::Database) => "max_db_client_connections",
            Self::Crowded(Crowded::User) => "max_user_client_connections",
            Self::Overdue(overdue) => overdue.setting(),
            Self::SuspendTimeout => "suspend_timeout",
            Self::Disconnected => "kill_client",
            Self::DatabaseRemoved => "database_removed",
            Self::DatabaseDisabled(_) => "database_disabled",
            Self::Deposed => "primary_changed",
            Self::Unheard { .. } => "peers_unreachable",
            Self::Cancelled => "cancelled",
            Self::Socket(_) => "socket",
        }
    }

    /// What the client is told by us, for the log; `None` where it is told nothing, or the server's own words.
    pub(super) fn told(&self) -> Option<String> {
        match self.last_words() {
            LastWords::Ours(response) => Some(response.message.into_owned()),
            LastWords::Silence | LastWords::Servers(_) => None,
        }
    }

    /// Why the connection ends, as PgBouncer words it where it says the same of it.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Gone(_) => "client unexpected eof".to_owned(),
            Self::ServerGone(_) | Self::ServerProtocol(_) => "server conn crashed?".to_owned(),
            _ => self.told().unwrap_or_else(|| self.to_string()),
        }
    }

    /// In PgBouncer's words where it has them; `Display` is for the log.
    pub(super) fn last_words(&self) -> LastWords {
        let (sqlstate, message) = match self {
            Self::Terminated
            | Self::Gone(_)
            | Self::Socket(_)
            | Self::Handshake(_)
            | Self::Encryption(_)
            | Self::HandedOver => {
                return LastWords::Silence;
            }
            Self::InvalidParameter(frame) | Self::SettingsLost(frame) => return LastWords::Ours(as_fatal(frame)),
            Self::Checkout(CheckoutError::Connect(crate::server::ConnectError::Refused { frame, .. })) => {
                return LastWords::Servers(frame.clone());
            }
            Self::Checkout(error) => return LastWords::Ours(error.response()),
            Self::ServerGone(_) => (SqlState::CONNECTION_FAILURE, "server conn crashed?".to_owned()),
            Self::ServerProtocol(_) => (SqlState::CONNECTION_FAILURE, "server conn crashed?".to_owned()),
            Self::Frame(error) => (SqlState::PROTOCOL_VIOLATION, format!("invalid message: {error}")),
            Self::Startup(StartupError::UnsupportedProtocol(2, _)) => {
                (SqlState::PROTOCOL_VIOLATION, "old V2 protocol not supported".to_owned())
            }
            Self::Startup(error) => (SqlState::PROTOCOL_VIOLATION, error.to_string()),
            Self::Authentication(refusal) => (sqlstate_of(*refusal), refusal.message().to_owned()),
            Self::Scram(_) => (sqlstate_of(Refusal::Sasl), Refusal::Sasl.message().to_owned()),
            Self::NoRandom => (SqlState::CANNOT_CONNECT_NOW, self.to_string()),
            Self::AuthQuery(error @ AuthQueryError::Disabled(_)) => (SqlState::PROTOCOL_VIOLATION, error.to_string()),
            Self::AuthQuery(_) => (SqlState::PROTOCOL_VIOLATION, "bouncer config error".to_owned()),
            Self::NoSuchDatabase(_) => (SqlState::INVALID_CATALOG_NAME, self.to_string()),
            Self::LoginTimeout => (SqlState::PROTOCOL_VIOLATION, "client_login_timeout".to_owned()),
            Self::Refused(message) => (SqlState::PROTOCOL_VIOLATION, message.clone()),
            Self::TooManyPinned => (SqlState::TOO_MANY_CONNECTIONS, self.to_string()),
            Self::Mail(error) => (SqlState::ADMIN_SHUTDOWN, error.to_string()),
            Self::ShuttingDown => (SqlState::ADMIN_SHUTDOWN, "server shutting down".to_owned()),
            Self::SuspendTimeout => (SqlState::ADMIN_SHUTDOWN, self.to_string()),
            Self::Disconnected => (SqlState::ADMIN_SHUTDOWN, "admin forced disconnect".to_owned()),
            Self::DatabaseRemoved => (SqlState::ADMIN_SHUTDOWN, "database removed".to_owned()),
            Self::Deposed => (
                SqlState::ADMIN_SHUTDOWN,
                "terminating connection because another server is the primary now".to_owned(),
            ),
            Self::Unheard { may_be_committed: true } => {
                (SqlState::TRANSACTION_RESOLUTION_UNKNOWN, format!("{self}, which is probably committed"))
            }
            Self::Unheard { may_be_committed: false } => {
                (SqlState::CANNOT_CONNECT_NOW, format!("{self}, which was not sent"))
            }
            Self::Cancelled => (SqlState::QUERY_CANCELED, self.to_string()),
            Self::DatabaseDisabled(name) => (SqlState::PROTOCOL_VIOLATION, format!("database \"{name}\" is disabled")),
            Self::TooMany | Self::TooManyDatabases | Self::Crowded(_) => {
                (SqlState::TOO_MANY_CONNECTIONS, self.to_string())
            }
            Self::ServerDown => (SqlState::PROTOCOL_VIOLATION, self.to_string()),
            Self::Overdue(overdue) => (SqlState::PROTOCOL_VIOLATION, overdue.label().to_owned()),
        };
        LastWords::Ours(ErrorResponse::fatal(sqlstate, message))
    }
}
