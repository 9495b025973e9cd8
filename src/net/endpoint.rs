//! One peer's socket with what has arrived and what waits to leave, and the pump that moves bytes between two of them.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::{io::AsyncWrite, task::coop::has_budget_remaining};
use tokio_util::io::poll_read_buf;

use super::{Stream, buffers};

/// Room made before a read.
pub(super) const READ_BYTES: usize = 16 * 1024;
/// While this much waits for a peer, nothing more is read on its behalf.
pub const HIGH_WATER_BYTES: usize = 64 * 1024;
/// A buffer that grew beyond this is given back once it is empty.
pub(super) const KEPT_BYTES: usize = 64 * 1024;

/// Which socket failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The accepted one.
    Client,
    /// The one that pgweir opened.
    Server,
}

/// A socket failed or its peer is gone.
#[derive(Debug, thiserror::Error)]
#[error("{side:?} socket: {source}")]
pub struct PeerError {
    /// Whose.
    pub side: Side,
    /// `UnexpectedEof` when the peer closed it.
    #[source]
    pub source: io::Error,
}

/// What has arrived from one peer. The front of it may be approved: it goes on to the other peer as it is.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    /// Bytes at the front that have left.
    gone: usize,
    /// Bytes behind them that may leave.
    approved: usize,
    /// Bytes of a message, not arrived yet, that will be approved as they come.
    passing: usize,
    /// Bytes of a message, not arrived yet, that will be dropped as they come.
    skipping: usize,
    /// Where bytes begin that stay although they have left: they may be wanted again.
    kept: Option<usize>,
}

/// Positions in the buffer of what has arrived from one peer, and what waits for that peer; in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InboxFigures {
    /// Where the next byte goes.
    pub received: usize,
    /// Up to there it may leave, or has left.
    pub decided: usize,
    /// Up to there it has left.
    pub gone: usize,
    /// More is expected of the message that is passing.
    pub expected: usize,
    /// Messages of our own that wait for the peer.
    pub own: usize,
}

impl Inbox {
    /// What nobody has decided about.
    #[must_use]
    pub fn unread(&self) -> &[u8] {
        self.bytes.get(self.gone + self.approved..).unwrap_or_default()
    }

    /// How much has arrived and has not left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.gone
    }

    /// Nothing has arrived that has not left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What may leave.
    fn approved(&self) -> &[u8] {
        self.bytes.get(self.gone..self.gone + self.approved).unwrap_or_default()
    }

    /// The first bytes have left, or are not wanted.
    fn advance(&mut self, bytes: usize) {
        self.gone += bytes;
        if self.gone >= self.bytes.len() && self.kept.is_none() {
            self.gone = 0;
            if self.bytes.capacity() > KEPT_BYTES {
                self.bytes = Vec::new();
            } else {
                self.bytes.clear();
            }
        }
    }

    /// What is unread now stays when it has left, until [`Self::let_go`].
    pub fn keep(&mut self) {
        self.kept = Some(self.gone + self.approved);
    }

    /// What was kept is not wanted any more.
    pub fn let_go(&mut self) {
        if self.kept.take().is_some() {
            self.advance(0);
        }
    }

    /// Would [`Self::put_back`] bring back so many bytes, and nothing that came behind them?
    #[must_use]
    pub fn has_kept(&self, bytes: usize) -> bool {
        self.kept.is_some_and(|kept| self.gone + self.approved == kept + bytes && self.passing + self.skipping == 0)
    }

    /// What was kept is unread again, whether it had left or not.
    pub fn put_back(&mut self) {
        if let Some(kept) = self.kept.take() {
            self.gone = kept;
            self.approved = 0;
        }
    }

    /// Makes room to read into.
    fn make_room(&mut self) {
        if self.bytes.capacity() == 0 {
            self.bytes = buffers::take();
        }
        if self.bytes.capacity() - self.bytes.len() < READ_BYTES / 4 {
            // As much goes as is moved, at least: a byte is moved once, on the average.
            if self.gone >= self.len() && self.kept.is_none() {
                self.bytes.drain(..self.gone);
                self.gone = 0;
            }
            self.bytes.reserve(READ_BYTES);
        }
    }

    /// A message is being passed on or dropped while it arrives.
    #[must_use]
    pub fn is_inside_message(&self) -> bool {
        self.passing > 0 || self.skipping > 0
    }

    /// Lets the next `bytes` pass, whether they have arrived or not.
    pub fn pass(&mut self, bytes: usize) {
        let here = bytes.min(self.unread().len());
        self.approved += here;
        self.passing += bytes - here;
    }

    /// Drops the next `bytes`, whether they have arrived or not. What was approved moves to `out` first.
    pub fn skip(&mut self, bytes: usize, out: &mut Outbox) {
        self.hand_over(out);
        let here = bytes.min(self.len());
        self.advance(here);
        self.skipping += bytes - here;
    }

    /// Moves what was approved to `out`, so that something can be put behind it.
    pub fn hand_over(&mut self, out: &mut Outbox) {
        if self.approved > 0 {
            out.buffer().extend_from_slice(self.approved());
            self.discard_approved();
        }
    }

    /// Bytes that wait for the other peer.
    #[must_use]
    pub fn approved_len(&self) -> usize {
        self.approved
    }

    /// Drops what was approved and has not left: the other peer is gone.
    pub fn discard_approved(&mut self) {
        let approved = std::mem::take(&mut self.approved);
        self.advance(approved);
    }

    /// Accounts for bytes that have just arrived inside a long message.
    fn settle(&mut self) {
        if self.skipping > 0 {
            let here = self.skipping.min(self.len());
            self.advance(here);
            self.skipping -= here;
        }
        if self.passing > 0 {
            let here = self.passing.min(self.unread().len());
            self.approved += here;
            self.passing -= here;
        }
    }

    /// Puts bytes in front that were read before the relay began.
    pub fn preload(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn sent(&mut self, bytes: usize) {
        self.approved -= bytes;
        self.advance(bytes);
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        buffers::put(std::mem::take(&mut self.bytes));
    }
}

/// Bytes of our own making that wait for one peer; they leave before what the other peer's inbox has approved.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outbox {
    /// Where messages are appended; one that others have used, if it has none.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = buffers::take();
        }
        &mut self.bytes
    }

    /// What has not left.
    #[must_use]
    pub fn unsent(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }

    /// Drops what has not left, perhaps from the middle of a message on.
    pub fn discard(&mut self) {
        self.advance(self.unsent().len());
    }

    fn advance(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.sent >= self.bytes.len() {
            self.sent = 0;
            if self.bytes.capacity() > KEPT_BYTES {
                self.bytes = Vec::new();
            } else {
                self.bytes.clear();
            }
        } else if self.sent >= KEPT_BYTES {
            // A peer that is always a little behind never empties it.
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        buffers::put(std::mem::take(&mut self.bytes));
    }
}

/// One peer.
#[derive(Debug)]
pub struct Endpoint {
    /// Its socket.
    pub stream: Stream,
    /// What it said.
    pub inbox: Inbox,
    /// What it will be told.
    pub outbox: Outbox,
    /// The task that pumps it has registered to be woken when there is something to read, and as long as the socket is
    /// not readable that still holds.
    is_armed: bool,
}

impl Endpoint {
    /// A fresh socket.
    #[must_use]
    pub fn new(stream: Stream) -> Self {
        Self { stream, inbox: Inbox::default(), outbox: Outbox::default(), is_armed: false }
    }

    /// Moves the socket to the runtime of the calling thread; what has arrived and what waits to leave stays.
    ///
    /// # Errors
    /// The operating system refuses to register the descriptor again.
    pub fn rehome(self) -> io::Result<Self> {
        Ok(Self { stream: self.stream.rehome()?, is_armed: false, ..self })
    }

    /// Another task serves it from now on.
    pub fn change_task(&mut self) {
        self.is_armed = false;
    }

    /// Reads once into the inbox; cancel safe.
    ///
    /// # Errors
    /// The socket failed, or `UnexpectedEof` when the peer closed it.
    pub async fn read(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_read(cx)).await
    }

    /// Nothing is expected of the peer or for it: its buffers serve others meanwhile.
    pub fn rest(&mut self) {
        if self.inbox.bytes.is_empty() {
            buffers::put(std::mem::take(&mut self.inbox.bytes));
        }
        if self.outbox.unsent().is_empty() {
            buffers::put(std::mem::take(&mut self.outbox.bytes));
        }
    }

    /// Sends everything in the outbox; not cancel safe for the peer, which may see half of it.
    ///
    /// # Errors
    /// The socket failed.
    pub async fn flush(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| poll_send(&mut self.stream, &mut self.outbox, None, cx)).await
    }

    /// Has nothing arrived that has not left, and waits nothing for the peer?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inbox.is_empty() && self.outbox.unsent().is_empty()
    }

    /// Is nothing under way in it, so that it may be left alone for as long as one likes?
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.is_empty() && self.is_flushed() && !self.inbox.is_inside_message()
    }

    /// What the buffers hold.
    #[must_use]
    pub fn figures(&self) -> InboxFigures {
        let inbox = &self.inbox;
        InboxFigures {
            received: inbox.bytes.len(),
            decided: inbox.gone + inbox.approved,
            gone: inbox.gone,
            expected: inbox.passing + inbox.skipping,
            own: self.outbox.unsent().len(),
        }
    }

    /// Has everything that was to be sent left, as far as the operating system is concerned?
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.outbox.unsent().is_empty() && !self.stream.has_unsent()
    }

    /// As [`Self::poll_read`], for a task that comes again and again: it does not register twice for one event.
    fn poll_read_armed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_armed && !self.stream.may_be_readable() {
            return Poll::Pending;
        }
        let read = self.poll_read(cx);
        // A task that has used up its time is not registered, but woken at once.
        self.is_armed = read.is_pending() && has_budget_remaining();
        read
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_armed = false;
        let inbox = &mut self.inbox;
        inbox.make_room();
        match poll_read_buf(Pin::new(&mut self.stream), cx, &mut inbox.bytes) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Poll::Ready(Ok(_)) => {
                inbox.settle();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        }
    }

    /// Has the peer closed or said something, as far as is known without asking the kernel?
    pub fn is_quiet(&mut self) -> bool {
        if !self.inbox.is_empty() {
            return false;
        }
        if !self.stream.may_be_readable() {
            return true;
        }
        self.poll_read(&mut Context::from_waker(Waker::noop())).is_pending()
    }
}

/// Nearly always there is room: whoever waits is registered only when there is none.
fn poll_write(stream: &mut Stream, bytes: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    match stream.try_write(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Pin::new(stream).poll_write(cx, bytes),
        sent => Poll::Ready(sent),
    }
}

/// Sends `out`, then what `from` has approved; ready when both are empty.
fn poll_send(
    stream: &mut Stream,
    out: &mut Outbox,
    mut from: Option<&mut Inbox>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    loop {
        let own = out.unsent();
        let passed = from.as_ref().map_or(&[][..], |inbox| inbox.approved());
        let sent = match (own.is_empty(), passed.is_empty()) {
            (true, true) => return Pin::new(stream).poll_flush(cx),
            (false, true) => poll_write(stream, own, cx),
            (true, false) => poll_write(stream, passed, cx),
            (false, false) => {
                let both = [io::IoSlice::new(own), io::IoSlice::new(passed)];
                match stream.try_write_vectored(&both) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        Pin::new(&mut *stream).poll_write_vectored(cx, &both)
                    }
                    sent => Poll::Ready(sent),
                }
            }
        };
        let sent = match sent {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(sent)) => sent,
        };
        let of_own = sent.min(own.len());
        if of_own > 0 {
            out.advance(of_own);
        }
        if let Some(inbox) = from.as_mut().filter(|_| sent > of_own) {
            inbox.sent(sent - of_own);
        }
    }
}

/// What one turn of the pump brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pumped {
    /// The client said something.
    pub client: bool,
    /// The server said something.
    pub server: bool,
    /// Bytes left that had kept us from deciding more.
    pub drained: bool,
}

/// Moves bytes in both directions until somebody has said something.
///
/// Writes come first, so that a reply leaves before more is read; a peer whose counterpart does not read is not read
/// either. `read_client` is false while its next request must wait.
pub fn poll_pump(
    client: &mut Endpoint,
    mut server: Option<&mut Endpoint>,
    read_client: bool,
    cx: &mut Context<'_>,
) -> Poll<Result<Pumped, PeerError>> {
    let client_error = |source| PeerError { side: Side::Client, source };
    let server_error = |source| PeerError { side: Side::Server, source };
    let mut pumped = Pumped::default();

    let waiting_before = to_client(client, server.as_deref());
    let mut to_client_now = waiting_before;
    if waiting_before > 0 || client.stream.has_unsent() {
        let from = server.as_mut().map(|server| &mut server.inbox);
        if let Poll::Ready(sent) = poll_send(&mut client.stream, &mut client.outbox, from, cx) {
            sent.map_err(client_error)?;
        }
        to_client_now = to_client(client, server.as_deref());
    }
    pumped.drained = waiting_before >= HIGH_WATER_BYTES && to_client_now < HIGH_WATER_BYTES;

    let mut to_server_now = 0;
    if let Some(server) = server.as_mut() {
        let before = server.outbox.unsent().len() + client.inbox.approved;
        if before > 0 || server.stream.has_unsent() {
            if let Poll::Ready(sent) = poll_send(&mut server.stream, &mut server.outbox, Some(&mut client.inbox), cx) {
                sent.map_err(server_error)?;
            }
            to_server_now = server.outbox.unsent().len() + client.inbox.approved;
        }
        pumped.drained |= before >= HIGH_WATER_BYTES && to_server_now < HIGH_WATER_BYTES;
        if to_client_now < HIGH_WATER_BYTES
            && let Poll::Ready(read) = server.poll_read_armed(cx)
        {
            read.map_err(server_error)?;
            pumped.server = true;
        }
    }
    if read_client
        && to_server_now < HIGH_WATER_BYTES
        && let Poll::Ready(read) = client.poll_read_armed(cx)
    {
        read.map_err(client_error)?;
        pumped.client = true;
    }
    if pumped != Pumped::default() {
        return Poll::Ready(Ok(pumped));
    }
    if server.is_none() {
        client.rest();
    }
    Poll::Pending
}

fn to_client(client: &Endpoint, server: Option<&Endpoint>) -> usize {
    client.outbox.unsent().len() + server.map_or(0, |server| server.inbox.approved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_whether_it_has_left_or_not() {
        for (sent, later) in [(0, 0), (3, 0), (7, 0), (7, 100), (7, 100_000)] {
            let mut inbox = Inbox::default();
            inbox.preload(b"before");
            inbox.pass(6);
            inbox.sent(6);
            inbox.preload(b"request");
            inbox.keep();
            inbox.pass(7);
            inbox.sent(sent);
            assert!(inbox.has_kept(7) && !inbox.has_kept(6));
            inbox.make_room();
            inbox.preload(&vec![b'.'; later]);
            inbox.put_back();
            assert_eq!(inbox.unread().get(..7), Some(&b"request"[..]));
            assert_eq!(inbox.len(), 7 + later);
        }
    }

    #[test]
    fn what_is_let_go_is_gone() {
        let mut inbox = Inbox::default();
        inbox.preload(b"request");
        inbox.keep();
        inbox.skip(7, &mut Outbox::default());
        assert!(inbox.is_empty() && inbox.has_kept(7) && !inbox.bytes.is_empty());
        inbox.preload(b"next");
        inbox.pass(4);
        assert!(!inbox.has_kept(7), "something behind it is on its way");
        inbox.sent(4);
        inbox.let_go();
        assert!(inbox.is_empty() && inbox.bytes.is_empty());
        inbox.put_back();
        assert!(inbox.unread().is_empty());
    }

    #[test]
    fn an_outbox_that_is_never_empty_does_not_grow() {
        let mut out = Outbox::default();
        out.bytes.push(0);
        for turn in 0..1000_usize {
            out.bytes.extend_from_slice(&[turn as u8; 10_000]);
            out.advance(10_000);
            assert_eq!(out.unsent().len(), 1);
            assert!(out.bytes.len() <= KEPT_BYTES + 20_000);
        }
        assert_eq!(out.unsent(), [231]);
    }
}
