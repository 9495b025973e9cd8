//! Why a demonstration cannot go on.

use std::io;

use crate::control::ControlError;

/// One line for the operator; the log of a program follows where there is one.
#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
    #[error("{program} not found (looked in {looked_in}): apt-get install {package}")]
    NotFound { program: &'static str, looked_in: &'static str, package: &'static str },
    #[error("running as root, and there is neither a user postgres nor nobody to run servers as")]
    NobodyToRunAs,
    #[error("cannot {act}: {source}")]
    Io { act: String, source: io::Error },
    #[error("{program} failed\n{said}")]
    Program { program: String, said: String },
    #[error("{program} does not answer\n{log}")]
    Silent { program: String, log: String },
    #[error("no free port between 20000 and 32000")]
    NoFreePort,
    #[error("port {0} is taken: choose another with --port")]
    PortTaken(u16),
    #[error("{asked}: {source}")]
    Control { asked: &'static str, source: ControlError },
    #[error("{asked}: {}", describe(.source))]
    Postgres { asked: &'static str, source: tokio_postgres::Error },
    #[error("{asked} has no column {column}")]
    Column { asked: &'static str, column: &'static str },
}

impl DemoError {
    pub(super) fn doing(act: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { act: act.into(), source }
    }

    pub(super) fn asking(asked: &'static str) -> impl Fn(tokio_postgres::Error) -> Self {
        move |source| Self::Postgres { asked, source }
    }

    pub(super) fn preparing(asked: &'static str) -> impl Fn(ControlError) -> Self {
        move |source| Self::Control { asked, source }
    }
}

/// What PostgreSQL said, where it said something.
pub(super) fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => format!("{} (SQLSTATE {})", said.message(), said.code().code()),
        None => match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}
