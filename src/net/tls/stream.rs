//! An encrypted TCP connection.

use std::{
    io::{self, BufRead, Write},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustls::{CommonState, Connection};
use tokio::{io::ReadBuf, net::TcpStream};
use tokio_util::io::poll_read_buf;

use super::peer::{TlsFacts, describe, end_point, names};
use crate::net::{buffers, endpoint::READ_BYTES, stream::register_here};

/// A TCP socket and what rustls knows of the session on it.
///
/// An idle one holds no buffer of its own: what has arrived is read into one that the thread's connections share.
#[derive(Debug)]
pub struct TlsStream {
    socket: TcpStream,
    session: Connection,
    /// Records as they came.
    arrived: Vec<u8>,
    /// Bytes at their front that the session has taken.
    taken: usize,
    /// Nothing can be read that the socket does not announce.
    is_drained: bool,
    /// The hash of our own certificate, where we are the server.
    own_end_point: Option<Box<[u8]>>,
    facts: Option<Arc<TlsFacts>>,
}

/// The socket for rustls: it never waits.
struct Unwaiting<'a>(&'a TcpStream);

impl Write for Unwaiting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What waits is not lost: whoever asks next tries again.
fn or_later(sent: io::Result<()>) -> io::Result<()> {
    sent.or_else(|error| if error.kind() == io::ErrorKind::WouldBlock { Ok(()) } else { Err(error) })
}

impl TlsStream {
    /// A session whose handshake is to come; `arrived` has been read from the socket already.
    pub(in crate::net) fn new(
        socket: TcpStream,
        session: Connection,
        arrived: &[u8],
        own_end_point: Option<Box<[u8]>>,
    ) -> Self {
        let arrived = arrived.to_vec();
        Self { socket, session, arrived, taken: 0, is_drained: false, own_end_point, facts: None }
    }

    /// What is known of the connection; `None` before the end of the handshake.
    pub(in crate::net) fn facts(&self) -> Option<&Arc<TlsFacts>> {
        self.facts.as_ref()
    }

    /// The protocol that both sides have agreed on by ALPN.
    pub(in crate::net) fn alpn(&self) -> Option<&[u8]> {
        self.session.alpn_protocol()
    }

    pub(in crate::net) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(in crate::net) fn rehome(self) -> io::Result<Self> {
        Ok(Self { socket: register_here(self.socket)?, ..self })
    }

    /// Has something been decrypted, or can it be, that nobody has read?
    pub(in crate::net) fn is_drained(&self) -> bool {
        self.is_drained
    }

    /// Records wait for the socket.
    pub(in crate::net) fn has_unsent(&self) -> bool {
        self.session.wants_write()
    }

    /// Exchanges the keys; not cancel safe.
    pub(in crate::net) async fn handshake(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_handshake(cx)).await
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_send(cx))?;
            if !self.session.is_handshaking() {
                self.facts = Some(Arc::new(self.learn()));
                return Poll::Ready(Ok(()));
            }
            if !ready!(self.poll_process(cx))? {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    fn learn(&self) -> TlsFacts {
        let state: &CommonState = &self.session;
        let shown = state.peer_certificates().and_then(|chain| chain.first());
        TlsFacts {
            description: describe(state),
            names: shown.map(names).unwrap_or_default(),
            end_point: match (&self.session, shown) {
                (Connection::Server(_), _) => self.own_end_point.clone(),
                (Connection::Client(_), shown) => shown.and_then(end_point),
            },
        }
    }

    /// Hands the session what has arrived; false at the end of the stream.
    fn poll_process(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.taken >= self.arrived.len() {
            self.arrived.clear();
            self.taken = 0;
            if self.arrived.capacity() == 0 {
                self.arrived = buffers::take();
                // A whole record, the largest.
                self.arrived.reserve(2 * READ_BYTES);
            }
            let read = poll_read_buf(Pin::new(&mut self.socket), cx, &mut self.arrived);
            if !matches!(read, Poll::Ready(Ok(bytes)) if bytes > 0) {
                buffers::put(std::mem::take(&mut self.arrived));
            }
            if ready!(read)? == 0 {
                return Poll::Ready(Ok(false));
            }
        }
        let mut rest = self.arrived.get(self.taken..).unwrap_or_default();
        self.taken += self.session.read_tls(&mut rest)?;
        let processed = self.session.process_new_packets();
        // An alert, a key update, or an answer to one.
        or_later(self.send())?;
        processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Poll::Ready(Ok(true))
    }

    /// Moves what has been decrypted to `buf`; true at the end of the stream.
    fn give(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<bool> {
        loop {
            let mut reader = self.session.reader();
            match reader.fill_buf() {
                Ok([]) => return Ok(true),
                Ok(chunk) => {
                    let given = chunk.len().min(buf.remaining());
                    buf.put_slice(chunk.get(..given).unwrap_or_default());
                    reader.consume(given);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_drained = self.taken >= self.arrived.len();
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
            if buf.remaining() == 0 {
                self.is_drained = false;
                return Ok(false);
            }
        }
    }

    /// As of [`tokio::io::AsyncRead`].
    pub(in crate::net) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let before = buf.filled().len();
            let is_over = self.give(buf)?;
            if is_over || buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
            if !ready!(self.poll_process(cx))? {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Sends records that wait, as far as the socket takes them.
    fn send(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut Unwaiting(&self.socket))?;
        }
        Ok(())
    }

    /// Ready when no record waits.
    pub(in crate::net) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.send() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.socket.poll_write_ready(cx))?,
                sent => return Poll::Ready(sent),
            }
        }
    }

    /// Encrypts some of it and sends as much as the socket takes: what it does not take is in [`Self::has_unsent`].
    ///
    /// # Errors
    /// `WouldBlock` while records of an earlier write wait.
    pub(in crate::net) fn try_write_vectored(&mut self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.send()?;
        let accepted = self.session.writer().write_vectored(pieces)?;
        or_later(self.send())?;
        Ok(accepted)
    }

    /// Says goodbye, if the socket has room for it.
    pub(in crate::net) fn hang_up(&mut self) -> io::Result<()> {
        self.session.send_close_notify();
        or_later(self.send())
    }
}
