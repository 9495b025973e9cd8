//! A client of the admin console.

use std::sync::Arc;

use bytes::BytesMut;

use super::{context::Context, login::ConsoleGuest};
use crate::{
    admin::{ConsoleSession, Next},
    net::Endpoint,
    protocol::frame,
};

/// Longest console command.
const COMMAND_LIMIT_BYTES: usize = 1024 * 1024;

/// Serves the console until the client leaves.
pub(super) async fn serve(mut io: Endpoint, guest: ConsoleGuest, context: &Arc<Context>) {
    context.clients.insert(guest.info.id, Arc::clone(&guest.info));
    let mut session = ConsoleSession::new((*context.console).clone(), guest.privilege);
    let end = converse(&mut io, &mut session).await;
    if let Err(error) = end {
        tracing::debug!(%error, "console connection ended");
    }
    context.clients.remove(&guest.info.id);
}

async fn converse(io: &mut Endpoint, session: &mut ConsoleSession) -> std::io::Result<()> {
    let invalid = |error| std::io::Error::new(std::io::ErrorKind::InvalidData, error);
    loop {
        let header = frame::header(io.inbox.unread()).map_err(invalid)?;
        let Some(header) = header.filter(|header| io.inbox.unread().len() >= header.frame_bytes) else {
            if header.is_some_and(|header| header.frame_bytes > COMMAND_LIMIT_BYTES) {
                return Err(std::io::ErrorKind::InvalidData.into());
            }
            io.flush().await?;
            io.read().await?;
            continue;
        };
        let message = io.inbox.unread().get(..header.frame_bytes).unwrap_or_default().to_vec();
        io.inbox.skip(header.frame_bytes, &mut Default::default());
        let mut out = BytesMut::new();
        let answer = session.answer(header.tag, frame::body(&message), &mut out);
        let next = {
            let mut answer = std::pin::pin!(answer);
            loop {
                // Both branches are cancel safe: the answer stays pinned, a read loses nothing.
                tokio::select! {
                    biased;
                    next = &mut answer => break next,
                    read = io.read(), if io.inbox.len() < COMMAND_LIMIT_BYTES => read?,
                }
            }
        };
        io.outbox.buffer().extend_from_slice(&out);
        io.flush().await?;
        match next {
            Next::Read => {}
            Next::Hold => loop {
                io.read().await?;
                let unread = io.inbox.len();
                io.inbox.skip(unread, &mut Default::default());
            },
            Next::Close => return Ok(()),
        }
    }
}
