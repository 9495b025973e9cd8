//! A byte stream: TCP, TLS over it, or a unix socket.

use std::{
    ffi::OsStr,
    fmt, io,
    net::SocketAddr,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
};

use super::tls::{TlsFacts, TlsStream};

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// Host name or IP address, and port.
    Tcp(String, u16),
    /// Path of the socket; one that starts with `@` is an abstract name.
    Unix(PathBuf),
}

impl Address {
    /// PostgreSQL's convention: a host that starts with `/` is a directory that holds `.s.PGSQL.PORT`, and one that starts
    /// with `@` is the beginning of an abstract name.
    #[must_use]
    pub fn new(host: &str, port: u16) -> Self {
        if host.starts_with(['/', '@']) {
            Self::Unix(PathBuf::from(format!("{host}/.s.PGSQL.{port}")))
        } else {
            Self::Tcp(host.to_owned(), port)
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Who is at the other end of an accepted connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP client.
    Tcp(SocketAddr),
    /// A client on the unix socket: process and user, where the kernel tells them.
    Unix {
        /// Process id, 0 where unknown.
        pid: i32,
        /// User id.
        uid: u32,
    },
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix { pid, .. } => write!(f, "unix({pid})"),
        }
    }
}

/// Our end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// Address and port.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix,
    /// The kernel does not say: the connection is gone.
    Unknown,
}

impl Local {
    /// Address and port as the console shows them.
    #[must_use]
    pub fn columns(self) -> (String, u16) {
        match self {
            Self::Tcp(address) => (address.ip().to_string(), address.port()),
            Self::Unix => ("unix".to_owned(), 0),
            Self::Unknown => (String::new(), 0),
        }
    }
}

/// A connected socket.
#[derive(Debug)]
pub enum Stream {
    /// TCP, without Nagle's delay.
    Tcp(TcpStream),
    /// Unix domain.
    Unix(UnixStream),
    /// TCP, encrypted.
    Tls(Box<TlsStream>),
}

/// What follows the `@` of an abstract name, which is no file.
pub(super) fn abstract_name(path: &Path) -> Option<&[u8]> {
    path.as_os_str().as_bytes().strip_prefix(b"@")
}

/// Connects to a unix socket, abstract ones included. The caller sets the deadline.
///
/// # Errors
/// Nobody accepts.
pub async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    match abstract_name(path) {
        // As the kernel writes it.
        Some(name) => UnixStream::connect(OsStr::from_bytes(&[b"\0", name].concat())).await,
        None => UnixStream::connect(path).await,
    }
}

/// Moves a socket to the runtime of the calling thread.
pub(super) fn register_here(socket: TcpStream) -> io::Result<TcpStream> {
    TcpStream::from_std(socket.into_std()?)
}

impl Stream {
    /// Connects to a TCP port. The caller sets the deadline.
    ///
    /// # Errors
    /// Nobody accepts.
    pub async fn connect_tcp(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self::Tcp(stream))
    }

    /// Connects to a unix socket. The caller sets the deadline.
    ///
    /// # Errors
    /// Nobody accepts.
    pub async fn connect_unix(path: &Path) -> io::Result<Self> {
        Ok(Self::Unix(connect_unix(path).await?))
    }

    /// Moves the socket to the runtime of the calling thread.
    ///
    /// # Errors
    /// The operating system refuses to register the descriptor again.
    pub fn rehome(self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(stream) => Self::Tcp(register_here(stream)?),
            Self::Unix(stream) => Self::Unix(UnixStream::from_std(stream.into_std()?)?),
            Self::Tls(stream) => Self::Tls(Box::new(stream.rehome()?)),
        })
    }

    /// Lays an encrypted session over a TCP socket, its handshake to come. What has been read already is `arrived`.
    ///
    /// # Errors
    /// It is no TCP socket, or the operating system gives no descriptor.
    pub(super) fn encrypt(
        &mut self,
        session: rustls::Connection,
        arrived: &[u8],
        own_end_point: Option<Box<[u8]>>,
    ) -> io::Result<&mut TlsStream> {
        let Self::Tcp(plain) = self else { return Err(io::ErrorKind::Unsupported.into()) };
        // A second descriptor of the same socket: the first goes with what stood here.
        let socket = std::net::TcpStream::from(plain.as_fd().try_clone_to_owned()?);
        let socket = TcpStream::from_std(socket)?;
        *self = Self::Tls(Box::new(TlsStream::new(socket, session, arrived, own_end_point)));
        match self {
            Self::Tls(stream) => Ok(stream),
            Self::Tcp(_) | Self::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// What is known of the encryption; `None` for a connection in clear.
    #[must_use]
    pub fn tls(&self) -> Option<&Arc<TlsFacts>> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => None,
            Self::Tls(stream) => stream.facts(),
        }
    }

    /// The protocol that the peer has asked for by ALPN, once the handshake is done.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => None,
            Self::Tls(stream) => stream.alpn(),
        }
    }

    /// Does something that was taken from us wait for the socket?
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Unix(_) => false,
            Self::Tls(stream) => stream.has_unsent(),
        }
    }

    /// Ends the session in order where the peer would otherwise think that it was cut.
    ///
    /// # Errors
    /// The socket failed.
    pub fn hang_up(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
            Self::Tls(stream) => stream.hang_up(),
        }
    }

    /// Can another process serve it? Not where it has state in this one.
    #[must_use]
    pub fn can_change_process(&self) -> bool {
        matches!(self, Self::Tcp(_) | Self::Unix(_))
    }

    /// The bare socket, for another process.
    ///
    /// # Errors
    /// The operating system refuses to take it from the runtime.
    pub fn into_descriptor(self) -> io::Result<OwnedFd> {
        Ok(match self {
            Self::Tcp(stream) => stream.into_std()?.into(),
            Self::Unix(stream) => stream.into_std()?.into(),
            Self::Tls(_) => return Err(io::ErrorKind::Unsupported.into()),
        })
    }

    /// A socket from another process, watched by the runtime of the calling thread.
    ///
    /// # Errors
    /// The operating system refuses to register it.
    pub fn from_descriptor(socket: OwnedFd, is_unix: bool) -> io::Result<Self> {
        if is_unix {
            let stream = std::os::unix::net::UnixStream::from(socket);
            stream.set_nonblocking(true)?;
            return Ok(Self::Unix(UnixStream::from_std(stream)?));
        }
        let stream = std::net::TcpStream::from(socket);
        stream.set_nonblocking(true)?;
        Ok(Self::Tcp(TcpStream::from_std(stream)?))
    }

    /// Has the kernel said that there is something to read, or that the peer has closed? Costs no system call; may be
    /// true although everything has been read.
    #[must_use]
    pub fn may_be_readable(&self) -> bool {
        let nothing_to_do = || Ok(());
        match self {
            Self::Tcp(stream) => stream.try_io(Interest::READABLE, nothing_to_do).is_ok(),
            Self::Unix(stream) => stream.try_io(Interest::READABLE, nothing_to_do).is_ok(),
            Self::Tls(stream) => {
                !stream.is_drained() || stream.socket().try_io(Interest::READABLE, nothing_to_do).is_ok()
            }
        }
    }

    /// Writes once without registering anybody to be woken.
    ///
    /// # Errors
    /// `WouldBlock` where [`AsyncWrite::poll_write`] would wait.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
            Self::Tls(stream) => stream.try_write_vectored(&[io::IoSlice::new(bytes)]),
        }
    }

    /// As [`Self::try_write`], for several pieces.
    ///
    /// # Errors
    /// See there.
    pub fn try_write_vectored(&mut self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write_vectored(pieces),
            Self::Unix(stream) => stream.try_write_vectored(pieces),
            Self::Tls(stream) => stream.try_write_vectored(pieces),
        }
    }

    /// Our end.
    #[must_use]
    pub fn local(&self) -> Local {
        match self {
            Self::Tcp(stream) => stream.local_addr().map_or(Local::Unknown, Local::Tcp),
            Self::Unix(_) => Local::Unix,
            Self::Tls(stream) => stream.socket().local_addr().map_or(Local::Unknown, Local::Tcp),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => stream.poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => {
                ready!(stream.poll_send(cx))?;
                Poll::Ready(stream.try_write_vectored(&[io::IoSlice::new(buf)]))
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => {
                ready!(stream.poll_send(cx))?;
                Poll::Ready(stream.try_write_vectored(bufs))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => stream.poll_send(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => {
                stream.hang_up()?;
                stream.poll_send(cx)
            }
        }
    }
}
