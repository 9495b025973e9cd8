//! What can go wrong between the control plane and a server, and what it says about the server.

use std::{error::Error as _, io, time::Duration};

use deadpool_postgres::{PoolError, TimeoutType};
use tokio_postgres::error::SqlState;

use super::Deadlines;

/// What was being done when a deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Waiting for one of the few control connections.
    Wait,
    /// Logging in.
    Connect,
    /// Running a statement.
    Statement,
}

/// Why the control plane has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No member has this index.
    #[error("no member {0}")]
    UnknownMember(u16),
    /// The pool could not be set up.
    #[error("cannot set up the control pool: {0}")]
    Setup(String),
    /// The pools were closed.
    #[error("the control plane is shut down")]
    Closed,
    /// A peer took too long.
    #[error("no answer within {after:?} ({act:?})")]
    Deadline {
        /// What was being done.
        act: Act,
        /// How long it was waited for.
        after: Duration,
    },
    /// The server or the way to it said no.
    #[error("{}", describe(.0))]
    Postgres(#[from] tokio_postgres::Error),
}

/// What a failure says about the server: the `reason` label of health metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// Nobody listens there.
    Refused,
    /// Host unknown, no route.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// The connection broke.
    Lost,
    /// The server is starting, stopping or recovering (57P03, 57P01, 57P02).
    NotAccepting,
    /// The server is there but has no slot for us (53300): capacity, not health.
    Full,
    /// The login was refused: password, `pg_hba.conf`, no such database.
    Rejected,
    /// The statement failed.
    Statement,
    /// Our own side.
    Proxy,
}

impl FailureKind {
    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Lost => "lost",
            Self::NotAccepting => "not_accepting",
            Self::Full => "full",
            Self::Rejected => "rejected",
            Self::Statement => "statement",
            Self::Proxy => "proxy",
        }
    }
}

impl ControlError {
    /// What this says about the server's health.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::UnknownMember(_) | Self::Setup(_) | Self::Closed => FailureKind::Proxy,
            Self::Deadline { act: Act::Wait, .. } => FailureKind::Proxy,
            Self::Deadline { .. } => FailureKind::Timeout,
            Self::Postgres(error) => kind_of(error),
        }
    }
}

impl ControlError {
    pub(super) fn from_pool(error: PoolError, deadlines: Deadlines) -> Self {
        match error {
            PoolError::Backend(error) => Self::Postgres(error),
            PoolError::Closed => Self::Closed,
            PoolError::Timeout(TimeoutType::Wait) => Self::Deadline { act: Act::Wait, after: deadlines.statement },
            PoolError::Timeout(TimeoutType::Create | TimeoutType::Recycle) => {
                Self::Deadline { act: Act::Connect, after: deadlines.connect }
            }
            other => Self::Setup(other.to_string()),
        }
    }
}

fn kind_of(error: &tokio_postgres::Error) -> FailureKind {
    if let Some(state) = error.code() {
        return kind_of_state(state);
    }
    match error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        Some(source) => kind_of_io(source),
        None if error.is_closed() => FailureKind::Lost,
        None => FailureKind::Rejected,
    }
}

fn kind_of_state(state: &SqlState) -> FailureKind {
    match *state {
        SqlState::CANNOT_CONNECT_NOW | SqlState::ADMIN_SHUTDOWN | SqlState::CRASH_SHUTDOWN => FailureKind::NotAccepting,
        SqlState::TOO_MANY_CONNECTIONS => FailureKind::Full,
        SqlState::QUERY_CANCELED => FailureKind::Timeout,
        SqlState::INVALID_CATALOG_NAME => FailureKind::Rejected,
        // Class 28 is "invalid authorization specification".
        ref other if other.code().starts_with("28") => FailureKind::Rejected,
        _ => FailureKind::Statement,
    }
}

fn kind_of_io(error: &io::Error) -> FailureKind {
    use io::ErrorKind as Kind;
    match error.kind() {
        // A unix socket that is gone reads "not found".
        Kind::ConnectionRefused | Kind::NotFound => FailureKind::Refused,
        Kind::TimedOut => FailureKind::Timeout,
        Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe | Kind::UnexpectedEof => FailureKind::Lost,
        _ => FailureKind::Unreachable,
    }
}

/// tokio-postgres prints "db error"; an operator needs what PostgreSQL said.
fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(said) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", said.message(), said.code().code());
    }
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_sqlstate_says_about_the_server() {
        for (state, kind) in [
            (SqlState::CANNOT_CONNECT_NOW, FailureKind::NotAccepting),
            (SqlState::ADMIN_SHUTDOWN, FailureKind::NotAccepting),
            (SqlState::TOO_MANY_CONNECTIONS, FailureKind::Full),
            (SqlState::INVALID_PASSWORD, FailureKind::Rejected),
            (SqlState::INVALID_AUTHORIZATION_SPECIFICATION, FailureKind::Rejected),
            (SqlState::INVALID_CATALOG_NAME, FailureKind::Rejected),
            (SqlState::QUERY_CANCELED, FailureKind::Timeout),
            (SqlState::UNDEFINED_TABLE, FailureKind::Statement),
        ] {
            assert_eq!(kind_of_state(&state), kind, "{}", state.code());
        }
    }

    #[test]
    fn what_an_io_error_says_about_the_server() {
        for (error, kind) in [
            (io::ErrorKind::ConnectionRefused, FailureKind::Refused),
            (io::ErrorKind::NotFound, FailureKind::Refused),
            (io::ErrorKind::TimedOut, FailureKind::Timeout),
            (io::ErrorKind::ConnectionReset, FailureKind::Lost),
            (io::ErrorKind::HostUnreachable, FailureKind::Unreachable),
        ] {
            assert_eq!(kind_of_io(&error.into()), kind, "{error:?}");
        }
    }

    #[test]
    fn waiting_for_our_own_pool_is_never_the_servers_fault() {
        let error = ControlError::Deadline { act: Act::Wait, after: Duration::from_secs(1) };
        assert_eq!(error.kind(), FailureKind::Proxy);
    }
}
