//! Listening sockets.

use std::{fs, io, net::SocketAddr, os::unix::fs::PermissionsExt, path::PathBuf};

use tokio::net::{TcpListener, UnixListener};

use super::{Peer, Stream};

/// One address that clients connect to.
#[derive(Debug)]
pub enum Listener {
    /// A TCP port.
    Tcp(TcpListener),
    /// A unix socket; its file goes when the listener does.
    Unix(UnixListener, PathBuf),
}

/// A client at the door: a socket that belongs to no runtime yet.
#[derive(Debug)]
pub enum Accepted {
    /// Over TCP.
    Tcp(std::net::TcpStream, SocketAddr),
    /// Over a unix socket.
    Unix(std::os::unix::net::UnixStream, Peer),
}

impl Accepted {
    /// Registers the socket with the runtime of the calling thread.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn register(self) -> io::Result<(Stream, Peer)> {
        Ok(match self {
            Self::Tcp(stream, address) => (Stream::Tcp(tokio::net::TcpStream::from_std(stream)?), Peer::Tcp(address)),
            Self::Unix(stream, peer) => (Stream::Unix(tokio::net::UnixStream::from_std(stream)?), peer),
        })
    }
}

impl Listener {
    /// Listens on TCP.
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub fn tcp(address: SocketAddr, backlog: i32, reuse_port: bool) -> io::Result<Self> {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        if reuse_port {
            socket.set_reuse_port(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(backlog)?;
        Ok(Self::Tcp(TcpListener::from_std(socket.into())?))
    }

    /// Listens on a unix socket with these permissions. A file that nobody listens on is replaced.
    ///
    /// # Errors
    /// Somebody listens on it (`AddrInUse`), or the directory refuses.
    pub fn unix(path: PathBuf, mode: u32) -> io::Result<Self> {
        if path.exists() {
            if std::os::unix::net::UnixStream::connect(&path).is_ok() {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "unix socket is in use, cannot continue"));
            }
            fs::remove_file(&path)?;
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        Ok(Self::Unix(listener, path))
    }

    /// Waits for the next client; cancel safe.
    ///
    /// # Errors
    /// The process is out of descriptors, or the like: worth another try after a pause.
    pub async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Accepted::Tcp(stream.into_std()?, address))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let peer = stream.peer_cred().map_or(Peer::Unix { pid: 0, uid: u32::MAX }, |credentials| Peer::Unix {
                    pid: credentials.pid().unwrap_or(0),
                    uid: credentials.uid(),
                });
                Ok(Accepted::Unix(stream.into_std()?, peer))
            }
        }
    }

    /// Is this the unix socket?
    #[must_use]
    pub fn is_unix(&self) -> bool {
        matches!(self, Self::Unix(..))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self
            && let Err(error) = fs::remove_file(path)
        {
            tracing::debug!(%error, "unix socket file not removed");
        }
    }
}
