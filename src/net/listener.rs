//! Listening sockets.

use std::{
    fs, io,
    net::SocketAddr,
    os::{
        fd::{AsFd, OwnedFd},
        linux::net::SocketAddrExt,
        unix::fs::{PermissionsExt, chown},
    },
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use nix::unistd::{Gid, Group};
use tokio::net::{TcpListener, UnixListener};

use super::{Peer, Stream, stream::abstract_name};

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
pub struct SocketFile {
    path: PathBuf,
    /// Another process serves it by now.
    is_given_away: Arc<AtomicBool>,
}

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

    /// Listens on a unix socket with these permissions, of this group (a name or a number) unless that is empty. A file
    /// that nobody listens on is replaced. An abstract name has neither file nor permissions.
    ///
    /// # Errors
    /// Somebody listens on it (`AddrInUse`), there is no such group, or the directory refuses.
    pub fn unix(path: PathBuf, mode: u32, group: &str) -> io::Result<Self> {
        if let Some(name) = abstract_name(&path) {
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            let listener = std::os::unix::net::UnixListener::bind_addr(&address).map_err(in_use)?;
            listener.set_nonblocking(true)?;
            return Ok(Self::Unix(listener, Some(SocketFile::new(path))));
        }
        if path.exists() {
            if std::os::unix::net::UnixStream::connect(&path).is_ok() {
                return Err(in_use(io::ErrorKind::AddrInUse.into()));
            }
            fs::remove_file(&path)?;
        }
        let listener = std::os::unix::net::UnixListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        let file = SocketFile::new(path);
        if !group.is_empty() {
            chown(&file.path, None, Some(group_id(group)?.as_raw()))?;
        }
        fs::set_permissions(&file.path, fs::Permissions::from_mode(mode))?;
        Ok(Self::Unix(listener, Some(file)))
    }

    /// A unix socket that another process has opened. Its file is not ours until that process says so.
    ///
    /// # Errors
    /// The descriptor is none of a socket.
    pub fn adopt_unix(socket: OwnedFd, path: PathBuf) -> io::Result<Self> {
        let listener = std::os::unix::net::UnixListener::from(socket);
        listener.set_nonblocking(true)?;
        let file = SocketFile::new(path);
        file.is_given_away.store(true, Ordering::Relaxed);
        Ok(Self::Unix(listener, Some(file)))
    }

    /// A TCP port that another process has opened.
    ///
    /// # Errors
    /// The descriptor is none of a socket.
    pub fn adopt_tcp(socket: OwnedFd) -> io::Result<Self> {
        let listener = std::net::TcpListener::from(socket);
        listener.set_nonblocking(true)?;
        Ok(Self::Tcp(listener))
    }

    /// A second descriptor of the socket, the path of its file, and what keeps the file when set.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn share(&self) -> io::Result<SharedListener> {
        let (socket, file) = match self {
            Self::Tcp(listener) => (listener.as_fd().try_clone_to_owned()?, None),
            Self::Unix(listener, file) => (listener.as_fd().try_clone_to_owned()?, file.as_ref()),
        };
        Ok(SharedListener {
            socket,
            is_unix: self.is_unix(),
            path: file.map(|file| file.path.clone()),
            is_given_away: file.map(|file| Arc::clone(&file.is_given_away)),
        })
    }

    /// Is this the unix socket?
    #[must_use]
    pub fn is_unix(&self) -> bool {
        matches!(self, Self::Unix(..))
    }
}

/// As PgBouncer words it.
fn in_use(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::AddrInUse => io::Error::new(error.kind(), "unix socket is in use, cannot continue"),
        _ => error,
    }
}

fn group_id(group: &str) -> io::Result<Gid> {
    if let Ok(id) = group.parse() {
        return Ok(Gid::from_raw(id));
    }
    let found = Group::from_name(group)?;
    let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("unix_socket_group: there is no group {group}"));
    Ok(found.ok_or_else(unknown)?.gid)
}

/// A listening socket that may be handed to another process.
#[derive(Debug)]
pub struct SharedListener {
    /// Keeps the socket open, like the listener itself.
    pub socket: OwnedFd,
    /// Is it a unix socket?
    pub is_unix: bool,
    /// Its file, if that is ours to remove.
    pub path: Option<PathBuf>,
    /// Set: the file stays when the listener goes.
    pub is_given_away: Option<Arc<AtomicBool>>,
}

impl SocketFile {
    fn new(path: PathBuf) -> Self {
        Self { path, is_given_away: Arc::default() }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_given_away.load(Ordering::Relaxed) || abstract_name(&self.path).is_some() {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "unix socket file not removed");
        }
    }
}
