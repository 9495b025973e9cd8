//! Why a client gets no server connection, and what it is told.

use std::time::Duration;

use super::retry::Failure;
use crate::{
    protocol::{ErrorResponse, SqlState},
    server::ConnectError,
};

/// Why a client gets no server connection.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    /// `query_wait_timeout`.
    #[error("no server connection within {waited:?}")]
    WaitTimeout {
        /// How long the client waited.
        waited: Duration,
        /// Connections that cannot be handed on, by reason, of how many.
        pins: String,
    },
    /// The server refused or did not answer.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It did so a moment ago, and nothing is tried before `server_login_retry` has passed.
    #[error("server login has been failing: {}", .0.text)]
    LoginFailing(Failure),
    /// The pool is going away.
    #[error("the pool is closed")]
    Closed,
    /// Another member is the primary now.
    #[error("another member is the primary")]
    Moved,
}

impl CheckoutError {
    /// The server cannot be used at the moment; another member may be.
    #[must_use]
    pub fn is_servers_fault(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::LoginFailing(_))
    }

    /// Can nobody use the server at the moment, as a login has just shown? What it says to one user is about that user, and
    /// a server that is full is not ill.
    #[must_use]
    pub fn concerns_everybody(&self) -> bool {
        match self {
            Self::Connect(ConnectError::Io { .. } | ConnectError::Timeout(_)) => true,
            Self::Connect(ConnectError::Refused { sqlstate: Some(sqlstate), .. }) => sqlstate.0.starts_with(b"57P0"),
            _ => false,
        }
    }

    /// What the client is told, in PgBouncer's words where it has them; `Display` is for the log.
    #[must_use]
    pub fn response(&self) -> ErrorResponse {
        match self {
            Self::WaitTimeout { pins, .. } => {
                let error = ErrorResponse::fatal(SqlState::PROTOCOL_VIOLATION, "query_wait_timeout");
                if pins.is_empty() { error } else { error.with_detail(pins.clone()) }
            }
            Self::Connect(ConnectError::Refused { sqlstate, message, .. }) => {
                ErrorResponse::fatal(sqlstate.unwrap_or(SqlState::CANNOT_CONNECT_NOW), message.clone())
            }
            // It is the secret that has to be changed.
            Self::Connect(ConnectError::Login(error)) => {
                ErrorResponse::fatal(SqlState::PROTOCOL_VIOLATION, error.to_string())
            }
            Self::Connect(error) => login_failing(&failure(error)),
            Self::LoginFailing(failure) => login_failing(failure),
            Self::Closed => ErrorResponse::fatal(SqlState::ADMIN_SHUTDOWN, "server shutting down"),
            Self::Moved => ErrorResponse::fatal(SqlState::CANNOT_CONNECT_NOW, "another server is the primary now"),
        }
    }
}

fn login_failing(failure: &Failure) -> ErrorResponse {
    let Failure { text, sqlstate, .. } = failure;
    let text = format!("server login has been failing, cached error: {text} (server_login_retry)");
    ErrorResponse::fatal(sqlstate.unwrap_or(SqlState::PROTOCOL_VIOLATION), text)
}

/// What is remembered of a failed attempt, in PgBouncer's words. Addresses are for the log alone.
pub(super) fn failure(error: &ConnectError) -> Failure {
    let (text, sqlstate, is_refusal) = match error {
        ConnectError::Refused { sqlstate, message, .. } => (message.as_str(), *sqlstate, true),
        ConnectError::Timeout(_) => ("connect timeout", None, false),
        ConnectError::Tls { .. } => ("TLS handshake failed", None, false),
        ConnectError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            ("server DNS lookup failed", None, false)
        }
        ConnectError::Io { source, .. } if source.kind() == std::io::ErrorKind::UnexpectedEof => {
            ("server conn crashed?", None, false)
        }
        ConnectError::Io { .. } => ("connect failed", None, false),
        // Another attempt with the same secret ends alike.
        ConnectError::Login(_) => ("wrong password type", None, true),
        ConnectError::Frame(_) | ConnectError::Unexpected(_) => ("unknown pkt from server", None, false),
    };
    Failure { text: text.into(), sqlstate, is_refusal }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Address;

    #[test]
    fn what_a_server_says_to_one_user_or_for_want_of_room_concerns_nobody_else() {
        let address = || Address::Tcp("h".to_owned(), 5432);
        let refused = |sqlstate: &[u8; 5]| ConnectError::Refused {
            sqlstate: Some(SqlState(*sqlstate)),
            message: String::new(),
            frame: Vec::new(),
        };
        let gone = ConnectError::Io { address: address(), source: std::io::ErrorKind::ConnectionRefused.into() };
        for (error, concerns_everybody) in [
            (gone, true),
            (ConnectError::Timeout(address()), true),
            (refused(b"57P01"), true),
            (refused(b"57P03"), true),
            (refused(b"28P01"), false),
            (refused(b"28000"), false),
            (refused(b"3D000"), false),
            (refused(b"42501"), false),
            (refused(b"53300"), false),
            (ConnectError::Unexpected(b'!'), false),
        ] {
            let remembered = CheckoutError::LoginFailing(failure(&error));
            assert!(remembered.is_servers_fault() && !remembered.concerns_everybody());
            let error = CheckoutError::Connect(error);
            assert!(error.is_servers_fault());
            assert_eq!(error.concerns_everybody(), concerns_everybody, "{error}");
        }
        assert!(!CheckoutError::Closed.is_servers_fault());
    }
}
