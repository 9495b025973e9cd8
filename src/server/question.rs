//! One question with one text parameter, on a connection that nobody uses.

use std::io;

use super::{Busy, Idle, ServerConnection};
use crate::protocol::{
    FrameError, TransactionStatus, backend, backend::tag, error_response, frame, frontend, frontend::Target,
};

/// Longest message of an answer.
const ANSWER_LIMIT_BYTES: usize = 1 << 20;
/// An answer has no more rows.
const ANSWER_LIMIT_ROWS: usize = 1000;

/// A row; `None` where NULL.
pub type Row = Vec<Option<Vec<u8>>>;

/// There is no answer; the connection is closed.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The socket broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What it says is no answer.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The server said no.
    #[error("{0}")]
    Refused(String),
    /// It left a transaction open, or says more than can be wanted.
    #[error("unexpected answer: {0}")]
    Unexpected(&'static str),
}

/// Asks by the extended protocol, everything as text: how many columns the answer has, and its last row. The caller
/// sets the deadline.
///
/// # Errors
/// See [`AskError`]; the connection is closed then.
pub async fn ask(
    mut server: ServerConnection<Busy>,
    query: &str,
    parameter: &str,
) -> Result<(ServerConnection<Idle>, u16, Option<Row>), AskError> {
    put_question(server.core_mut().endpoint.outbox.buffer(), query, parameter);
    answered(server).await
}

/// The same for a command that takes no parameter and may be no part of a transaction: as a simple query.
///
/// # Errors
/// See [`AskError`]; the connection is closed then.
pub async fn command(
    mut server: ServerConnection<Busy>,
    query: &str,
) -> Result<(ServerConnection<Idle>, u16, Option<Row>), AskError> {
    let core = server.core_mut();
    // A simple query ends it.
    core.statements.unnamed = None;
    frontend::put_query(core.endpoint.outbox.buffer(), query);
    answered(server).await
}

async fn answered(mut server: ServerConnection<Busy>) -> Result<(ServerConnection<Idle>, u16, Option<Row>), AskError> {
    let core = server.core_mut();
    core.endpoint.flush().await?;
    let (mut columns, mut rows, mut last) = (0, 0, None);
    loop {
        let header = frame::header(core.endpoint.inbox.unread())?;
        if let Some(header) = header.filter(|header| header.frame_bytes > ANSWER_LIMIT_BYTES) {
            return Err(FrameError::LengthTooLarge(header.frame_bytes as u32).into());
        }
        let Some((header, message)) =
            header.and_then(|header| Some((header, core.endpoint.inbox.unread().get(..header.frame_bytes)?)))
        else {
            core.endpoint.read().await?;
            continue;
        };
        let mut status = None;
        match header.tag {
            tag::ROW_DESCRIPTION => columns = frame::Fields::of(message).u16()?,
            tag::DATA_ROW => {
                rows += 1;
                last = Some(backend::columns(message).map(|value| value.map(<[u8]>::to_vec)).collect());
            }
            tag::ERROR_RESPONSE => {
                let text = error_response::field(message, b'M').unwrap_or_default();
                return Err(AskError::Refused(String::from_utf8_lossy(text).into_owned()));
            }
            tag::READY_FOR_QUERY => status = Some(backend::transaction_status(message)),
            _ => {}
        }
        if rows > ANSWER_LIMIT_ROWS {
            return Err(AskError::Unexpected("too many rows"));
        }
        core.endpoint.inbox.skip(header.frame_bytes, &mut Default::default());
        match status {
            None => {}
            Some(Some(TransactionStatus::Idle)) => return Ok((server.into_state(), columns, last)),
            Some(_) => return Err(AskError::Unexpected("a transaction is open")),
        }
    }
}

fn put_question(out: &mut Vec<u8>, query: &str, parameter: &str) {
    frontend::put_parse(out, b"", query.as_bytes(), &[0; 2]);
    let length = (parameter.len() as u32).to_be_bytes();
    // Formats: none, so text. One value. Formats of the answer: none, so text.
    let values = [&[0, 0, 0, 1], length.as_slice(), parameter.as_bytes(), &[0, 0]].concat();
    frontend::put_bind(out, b"", b"", &values);
    frontend::put_describe(out, Target::Portal, b"");
    frontend::put_execute(out, b"");
    frontend::put_sync(out);
}
