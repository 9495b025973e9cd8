//! Queries of our own on a connection that nobody uses.

use std::io;

use super::{Busy, Idle, ServerConnection};
use crate::{
    protocol::{FrameError, TransactionStatus, backend, backend::tag, frame, frontend},
    session::SessionSettings,
};

/// The query did not succeed; the connection is closed.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// The socket broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What it says is no answer.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The server said no, or left a transaction open.
    #[error("the server refused a query of our own")]
    Refused {
        /// Its `ErrorResponse`; empty if it sent none.
        frame: Vec<u8>,
    },
}

/// Brings a connection that owes nothing back to the state in which it was opened, by `query` (usually `DISCARD ALL`).
/// The caller sets the deadline.
///
/// # Errors
/// See [`ExecuteError`]; the connection is closed then.
pub async fn reset(server: ServerConnection<Busy>, query: &str) -> Result<ServerConnection<Idle>, ExecuteError> {
    let mut server = execute(server, query).await?;
    server.core.statements.clear();
    server.core.settings = SessionSettings::default();
    Ok(server)
}

/// Runs a query whose rows do not matter on a connection that owes nothing; what it does to tracked parameters is
/// remembered. The caller sets the deadline.
///
/// # Errors
/// See [`ExecuteError`]; the connection is closed then.
pub async fn execute(mut server: ServerConnection<Busy>, query: &str) -> Result<ServerConnection<Idle>, ExecuteError> {
    let core = server.core_mut();
    // A simple query ends it.
    core.statements.unnamed = None;
    frontend::put_query(core.endpoint.outbox.buffer(), query);
    core.endpoint.flush().await?;
    let mut refusal = None;
    loop {
        let Some(header) = frame::header(core.endpoint.inbox.unread())? else {
            core.endpoint.read().await?;
            continue;
        };
        let Some(message) = core.endpoint.inbox.unread().get(..header.frame_bytes) else {
            core.endpoint.read().await?;
            continue;
        };
        let mut status = None;
        match header.tag {
            tag::ERROR_RESPONSE => refusal = Some(message.to_vec()),
            tag::PARAMETER_STATUS => {
                if let Some((name, value)) = backend::parameter_status(message) {
                    core.parameters.set(name, value);
                }
            }
            tag::READY_FOR_QUERY => status = Some(backend::transaction_status(message)),
            _ => {}
        }
        core.endpoint.inbox.skip(header.frame_bytes, &mut Default::default());
        match (status, refusal.take()) {
            (None, kept) => refusal = kept,
            (Some(Some(TransactionStatus::Idle)), None) => return Ok(server.into_state()),
            (Some(_), refusal) => return Err(ExecuteError::Refused { frame: refusal.unwrap_or_default() }),
        }
    }
}
