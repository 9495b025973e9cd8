//! A connection in the streaming replication protocol, for one logical stream.
//!
//! <https://www.postgresql.org/docs/current/protocol-replication.html>

use std::io;

use super::{Busy, ConnectError, Login, ServerConnection, connect};
use crate::protocol::{FrameError, backend::tag, error_response, frame, frontend};

/// Longest message before the stream has begun.
const ANSWER_LIMIT_BYTES: usize = 1 << 20;

/// What asks for a walsender at login; nothing else is needed of it.
const PARAMETERS: [(&str, &str); 2] = [("replication", "database"), ("application_name", "pgweir-wal")];

/// The stream is at its end.
#[derive(Debug, thiserror::Error)]
pub enum ReplicationError {
    /// The socket broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What it says is no answer.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The server said no.
    #[error("{0}")]
    Refused(String),
    /// It says something that has no place there.
    #[error("unexpected message {0:#04x}")]
    Unexpected(u8),
}

/// A walsender of our own.
#[derive(Debug)]
pub struct ReplicationConnection {
    server: ServerConnection<Busy>,
}

impl ReplicationConnection {
    /// Logs in for logical replication of the login's database. The caller sets the deadline.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn open(mut login: Login, id: u64, now: u64) -> Result<Self, ConnectError> {
        login.parameters = PARAMETERS.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let (server, _reported) = connect(&login, id, now, 0).await?;
        Ok(Self { server: server.begin() })
    }

    /// Runs a command that answers with a few rows at most, which nobody needs. The caller sets the deadline.
    ///
    /// # Errors
    /// See [`ReplicationError`]; of no use any more then.
    pub async fn execute(&mut self, command: &str) -> Result<(), ReplicationError> {
        self.send(command).await?;
        self.answer(tag::READY_FOR_QUERY).await
    }

    /// Runs the command that begins the stream. The caller sets the deadline.
    ///
    /// # Errors
    /// See [`ReplicationError`]; of no use any more then.
    pub async fn start(&mut self, command: &str) -> Result<(), ReplicationError> {
        self.send(command).await?;
        self.answer(tag::COPY_BOTH_RESPONSE).await
    }

    async fn send(&mut self, command: &str) -> io::Result<()> {
        let endpoint = &mut self.server.core_mut().endpoint;
        frontend::put_query(endpoint.outbox.buffer(), command);
        endpoint.flush().await
    }

    /// Reads up to a message of that type.
    async fn answer(&mut self, last: u8) -> Result<(), ReplicationError> {
        let inbox_of = |server: &mut ServerConnection<Busy>| -> Result<Option<u8>, ReplicationError> {
            let inbox = &mut server.core_mut().endpoint.inbox;
            let Some(header) = frame::header(inbox.unread())? else { return Ok(None) };
            if header.frame_bytes > ANSWER_LIMIT_BYTES {
                return Err(FrameError::LengthTooLarge(header.frame_bytes as u32).into());
            }
            let Some(message) = inbox.unread().get(..header.frame_bytes) else { return Ok(None) };
            let refused = (header.tag == tag::ERROR_RESPONSE).then(|| refusal(message));
            inbox.skip(header.frame_bytes, &mut Default::default());
            refused.map_or(Ok(Some(header.tag)), Err)
        };
        loop {
            match inbox_of(&mut self.server)? {
                None => self.server.core_mut().endpoint.read().await?,
                Some(tag) if tag == last => return Ok(()),
                Some(tag::READY_FOR_QUERY) => return Err(ReplicationError::Unexpected(tag::READY_FOR_QUERY)),
                Some(_) => {}
            }
        }
    }

    /// Takes the next message of the stream that has arrived, as far as it is looked at: `look` is given the first
    /// `head_bytes` of what it carries, or all of it. The rest is dropped as it comes.
    ///
    /// # Errors
    /// The server has ended the stream.
    pub fn take<T>(&mut self, head_bytes: usize, look: impl FnOnce(&[u8]) -> T) -> Result<Option<T>, ReplicationError> {
        let inbox = &mut self.server.core_mut().endpoint.inbox;
        loop {
            if inbox.is_inside_message() {
                return Ok(None);
            }
            let Some(header) = frame::header(inbox.unread())? else { return Ok(None) };
            let needed = header.frame_bytes.min(frame::HEADER_BYTES + head_bytes);
            let Some(head) = inbox.unread().get(..needed) else { return Ok(None) };
            match header.tag {
                tag::COPY_DATA => {
                    let looked = look(head.get(frame::HEADER_BYTES..).unwrap_or_default());
                    inbox.skip(header.frame_bytes, &mut Default::default());
                    return Ok(Some(looked));
                }
                tag::ERROR_RESPONSE => return Err(refusal(head)),
                tag::NOTICE_RESPONSE | tag::PARAMETER_STATUS => {
                    inbox.skip(header.frame_bytes, &mut Default::default());
                }
                other => return Err(ReplicationError::Unexpected(other)),
            }
        }
    }

    /// Waits for more; cancel safe.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn read(&mut self) -> io::Result<()> {
        self.server.core_mut().endpoint.read().await
    }

    /// Sends what `put` writes. Not cancel safe. The caller sets the deadline.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn write(&mut self, put: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let endpoint = &mut self.server.core_mut().endpoint;
        put(endpoint.outbox.buffer());
        endpoint.flush().await
    }
}

fn refusal(message: &[u8]) -> ReplicationError {
    let text = error_response::field(message, b'M').unwrap_or_default();
    ReplicationError::Refused(String::from_utf8_lossy(text).into_owned())
}
