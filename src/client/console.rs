//! A client of the admin console.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::BytesMut;

use super::{ClientError, context::Context, login::ConsoleGuest};
use crate::{
    admin::{ConsoleSession, Next},
    clock::Clock,
    net::Endpoint,
    protocol::frame::{self, Header},
};

/// Longest console command.
const COMMAND_LIMIT_BYTES: usize = 1024 * 1024;

/// Serves the console until the client leaves.
pub(super) async fn serve(mut io: Endpoint, guest: ConsoleGuest, context: &Arc<Context>) {
    let id = guest.info.id;
    let visitor = super::visitor::Visitor::of(&guest.info);
    let session = ConsoleSession::new((*context.console).clone(), guest.privilege);
    let key = guest.key;
    let mut conversation = Conversation { io: &mut io, session, guest, clock: context.clock };
    let end = conversation.hold().await;
    context.clients.remove(&id);
    context.cancel_keys.revoke(key);
    let error = end.err().unwrap_or(ClientError::Terminated);
    visitor.log_end(context, &error);
    context.tally.ended(&error);
    // As in PgBouncer, the console sees the process end by its connection.
    if !matches!(error, ClientError::ShuttingDown) {
        super::say_farewell(&mut io, &error).await;
    }
}

struct Conversation<'a> {
    io: &'a mut Endpoint,
    session: ConsoleSession,
    guest: ConsoleGuest,
    clock: Clock,
}

impl Conversation<'_> {
    async fn hold(&mut self) -> Result<(), ClientError> {
        loop {
            let Some(header) = self.complete_header()? else {
                self.io.flush().await.map_err(ClientError::Gone)?;
                self.read().await?;
                continue;
            };
            let message = self.io.inbox.unread().get(..header.frame_bytes).unwrap_or_default().to_vec();
            self.io.inbox.skip(header.frame_bytes, &mut Default::default());
            match self.answer(header.tag, &message).await? {
                Next::Read => {}
                Next::Hold => self.wait_for_the_end().await?,
                Next::Close => return Ok(()),
            }
        }
    }

    /// Of a message that is there as a whole.
    fn complete_header(&self) -> Result<Option<Header>, ClientError> {
        let header = frame::header(self.io.inbox.unread())?;
        match header {
            Some(header) if self.io.inbox.unread().len() >= header.frame_bytes => Ok(Some(header)),
            Some(header) if header.frame_bytes > COMMAND_LIMIT_BYTES => {
                Err(ClientError::Refused("command too long".to_owned()))
            }
            _ => Ok(None),
        }
    }

    /// Reads more, or hears that it is to leave.
    async fn read(&mut self) -> Result<(), ClientError> {
        let info = Arc::clone(&self.guest.info);
        // Both branches are cancel safe: a read loses nothing, a signal stays set.
        tokio::select! {
            read = self.io.read() => read.map(drop).map_err(ClientError::Gone),
            () = info.signalled() => {
                info.take_cancel();
                info.signal().end().map_or(Ok(()), Err)
            }
        }
    }

    async fn answer(&mut self, tag: u8, message: &[u8]) -> Result<Next, ClientError> {
        let started = self.clock.now();
        let info = Arc::clone(&self.guest.info);
        info.requested_at.store(started, Ordering::Relaxed);
        let canceller = self.session.canceller();
        let mut out = BytesMut::new();
        let next = {
            let mut answer = std::pin::pin!(self.session.answer(tag, frame::body(message), &mut out));
            loop {
                // Each branch is cancel safe: the answer stays pinned, a read loses nothing, a signal stays set.
                tokio::select! {
                    biased;
                    next = &mut answer => break next,
                    () = info.signalled() => {
                        if info.take_cancel() {
                            canceller.notify_one();
                        } else if let Some(end) = info.signal().end() {
                            return Err(end);
                        }
                    }
                    read = self.io.read(), if self.io.inbox.len() < COMMAND_LIMIT_BYTES => {
                        read.map_err(ClientError::Gone)?;
                    }
                }
            }
        };
        self.io.outbox.buffer().extend_from_slice(&out);
        self.io.flush().await.map_err(ClientError::Gone)?;
        let stats = self.guest.account.stats();
        stats.received(message.len() as u64);
        stats.sent(out.len() as u64);
        if matches!(tag, b'Q' | b'E') {
            stats.command(Duration::from_nanos(self.clock.now().saturating_sub(started)));
        }
        Ok(next)
    }

    /// SHUTDOWN is not answered: the process ends, and the connection with it.
    async fn wait_for_the_end(&mut self) -> Result<(), ClientError> {
        loop {
            self.read().await?;
            let unread = self.io.inbox.len();
            self.io.inbox.skip(unread, &mut Default::default());
        }
    }
}
