//! Queries of our own on a connection that nobody uses.

use std::{io, sync::Arc};

use super::{Busy, Idle, ServerConnection, question::ask};
use crate::{
    protocol::{FrameError, TransactionStatus, backend, backend::tag, error_response, frame, frontend},
    session::{SessionSettings, named_in, pins::settings_question},
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
    execute(server, query).await
}

/// Runs `connect_query`: its errors are logged and change nothing. What it has set is what sessions on this connection
/// begin with. The caller sets the deadline.
///
/// # Errors
/// The connection broke, or is in a transaction now; it is closed then.
pub async fn initialise(server: ServerConnection<Idle>, query: &str, user: &str) -> io::Result<ServerConnection<Idle>> {
    let mut server = server.begin();
    match run(&mut server, query).await {
        Ok((Some(TransactionStatus::Idle), refusal)) => {
            if let Some(frame) = refusal {
                let text = error_response::field(&frame, b'M').unwrap_or_default();
                tracing::warn!(error = %String::from_utf8_lossy(text), "connect_query failed");
            }
        }
        Ok(_) => return Err(io::Error::other("connect_query has left a transaction open")),
        Err(ExecuteError::Io(error)) => return Err(error),
        Err(error) => return Err(io::Error::other(error)),
    }
    let names: Arc<[Box<str>]> = named_in(query).into_iter().map(String::into_boxed_str).collect();
    let question = settings_question(user, &names);
    let (mut server, _, row) = ask(server, &question, "").await.map_err(io::Error::other)?;
    let found = row.and_then(|row| SessionSettings::read(row.into_iter().next().flatten().as_deref()));
    // What cannot be read cannot be kept apart from what clients set.
    let found = found.ok_or_else(|| io::Error::other("what connect_query has set cannot be read"))?;
    server.core.began_with = found.clone();
    server.core.settings = found;
    Ok(server)
}

/// Runs a query whose rows do not matter on a connection that owes nothing; what it does to tracked parameters is
/// remembered. The caller sets the deadline.
///
/// # Errors
/// See [`ExecuteError`]; the connection is closed then.
pub async fn execute(mut server: ServerConnection<Busy>, query: &str) -> Result<ServerConnection<Idle>, ExecuteError> {
    match run(&mut server, query).await? {
        (Some(TransactionStatus::Idle), None) => Ok(server.into_state()),
        (_, refusal) => Err(ExecuteError::Refused { frame: refusal.unwrap_or_default() }),
    }
}

/// How it ended, and the server's error if there was one.
async fn run(
    server: &mut ServerConnection<Busy>,
    query: &str,
) -> Result<(Option<TransactionStatus>, Option<Vec<u8>>), ExecuteError> {
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
            tag::COMMAND_COMPLETE => match backend::command_tag(message) {
                b"DISCARD ALL" => core.forget_session(),
                b"DEALLOCATE ALL" => core.statements.clear(),
                _ => {}
            },
            tag::READY_FOR_QUERY => status = Some(backend::transaction_status(message)),
            _ => {}
        }
        core.endpoint.inbox.skip(header.frame_bytes, &mut Default::default());
        if let Some(status) = status {
            return Ok((status, refusal));
        }
    }
}
