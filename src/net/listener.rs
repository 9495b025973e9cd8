//! Listening sockets.

use std::{fs, io, net::SocketAddr, os::unix::fs::PermissionsExt, path::PathBuf};

use tokio::net::{TcpListener, UnixListener};

use super::{Peer, Stream};

/// One address that clients connect to; it belongs to no runtime yet.
#[derive(Debug)]
pub enum Listener {
    /// A TCP port.
    Tcp(std::net::TcpListener),
    /// A unix socket, with its file if that is ours to remove.
    Unix(std::os::unix::net::UnixListener, Option<SocketFile>),
}

/// The file of a unix socket; it goes when nobody listens any more.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

/// A listener that the runtime of one thread watches.
#[derive(Debug)]
pub struct Acceptor(Watched);

#[derive(Debug)]
enum Watched {
    Tcp(TcpListener),
    Unix(UnixListener, #[expect(dead_code, reason = "removed when dropped")] Option<SocketFile>),
}

/// A client at the door. The runtime that has accepted it watches its socket.
#[derive(Debug)]
pub struct Accepted {
    /// Its socket.
    pub stream: Stream,
    /// Who it is.
    pub peer: Peer,
}

impl Accepted {
    /// Moves the socket to the runtime of the calling thread.
    ///
    /// # Errors
    /// The operating system refuses to register the descriptor again.
    pub fn rehome(self) -> io::Result<Self> {
        Ok(Self { stream: self.stream.rehome()?, peer: self.peer })
    }
}

impl Acceptor {
    /// Registers a listener with the runtime of the calling thread.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn new(listener: Listener) -> io::Result<Self> {
        Ok(Self(match listener {
            Listener::Tcp(listener) => Watched::Tcp(TcpListener::from_std(listener)?),
            Listener::Unix(listener, file) => Watched::Unix(UnixListener::from_std(listener)?, file),
        }))
    }

    /// Waits for the next client; cancel safe.
    ///
    /// # Errors
    /// The process is out of descriptors, or the like: worth another try after a pause.
    pub async fn accept(&self) -> io::Result<Accepted> {
        match &self.0 {
            Watched::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Accepted { stream: Stream::Tcp(stream), peer: Peer::Tcp(address) })
            }
            Watched::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let peer = stream.peer_cred().map_or(Peer::Unix { pid: 0, uid: u32::MAX }, |credentials| Peer::Unix {
                    pid: credentials.pid().unwrap_or(0),
                    uid: credentials.uid(),
                });
                Ok(Accepted { stream: Stream::Unix(stream), peer })
            }
        }
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
        Ok(Self::Tcp(socket.into()))
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
        let listener = std::os::unix::net::UnixListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        Ok(Self::Unix(listener, Some(SocketFile(path))))
    }

    /// Is this the unix socket?
    #[must_use]
    pub fn is_unix(&self) -> bool {
        matches!(self, Self::Unix(..))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::debug!(%error, "unix socket file not removed");
        }
    }
}
