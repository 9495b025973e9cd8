//! Cancel requests that reach the right query.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

use crate::{
    net::{Address, Endpoint, Local, Stream, tls::TlsConnectError},
    protocol::startup,
};

/// What a server gave us to cancel its queries with.
#[derive(Clone, PartialEq, Eq)]
pub struct CancelKey {
    /// Process id.
    pub pid: u32,
    /// Secret; empty if the server gave none.
    pub secret: Box<[u8]>,
}

impl std::fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CancelKey").field("pid", &self.pid).finish_non_exhaustive()
    }
}

/// Keeps a cancel request from hitting the next client of a connection: while one is under way the connection is not
/// handed on, and a request is let through only while the client that sent it holds the connection.
#[derive(Debug)]
pub struct CancelGate {
    key: CancelKey,
    state: Mutex<GateState>,
    closed: Notify,
}

#[derive(Debug, Default)]
struct GateState {
    holder: Option<u64>,
    under_way: u32,
}

/// The right to send one cancel request.
#[derive(Debug)]
pub struct CancelPermit {
    info: Arc<super::ServerInfo>,
}

impl CancelGate {
    pub(super) fn new(key: CancelKey) -> Self {
        Self { key, state: Mutex::default(), closed: Notify::new() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `client` holds the connection from now on.
    pub fn hold(&self, client: u64) {
        self.state().holder = Some(client);
    }

    /// Nobody holds it. True if a cancel request is still under way, so that the connection must wait for it.
    pub fn let_go(&self) -> bool {
        let mut state = self.state();
        state.holder = None;
        state.under_way > 0
    }

    /// Is it with nobody, until a cancel request has been acted on?
    #[must_use]
    pub fn is_waited_for(&self) -> bool {
        let state = self.state();
        state.holder.is_none() && state.under_way > 0
    }

    /// Waits until no cancel request is under way; cancel safe.
    pub async fn wait_closed(&self) {
        loop {
            let closed = self.closed.notified();
            if self.state().under_way == 0 {
                return;
            }
            closed.await;
        }
    }
}

impl CancelPermit {
    /// The right to cancel what `client` runs on this connection; `None` if it no longer holds it.
    #[must_use]
    pub fn acquire(info: &Arc<super::ServerInfo>, client: u64) -> Option<Self> {
        let mut state = info.gate.state();
        if state.holder != Some(client) {
            return None;
        }
        state.under_way += 1;
        Some(Self { info: Arc::clone(info) })
    }
}

impl Drop for CancelPermit {
    fn drop(&mut self) {
        self.info.gate.state().under_way -= 1;
        self.info.gate.closed.notify_waiters();
    }
}

/// Sends the request and waits until the server has closed the connection, so that it has been acted on; `on_sent` is
/// called with our end of it in between. A `deadline` of zero is none.
///
/// # Errors
/// The server cannot be reached, or does not close within `deadline`.
pub async fn send_cancel(permit: CancelPermit, deadline: Duration, on_sent: impl FnOnce(Local)) -> io::Result<()> {
    let info = Arc::clone(&permit.info);
    let key = &info.gate.key;
    let deadline = if deadline.is_zero() { Duration::MAX } else { deadline };
    timeout(deadline, send(&info, key, on_sent)).await.map_err(io::Error::from)?
}

/// To the very server that holds the key: by now its name may mean another one.
async fn send(info: &super::ServerInfo, key: &CancelKey, on_sent: impl FnOnce(Local)) -> io::Result<()> {
    let stream = match (&info.address, info.peer) {
        (Address::Unix(path), _) => Stream::connect_unix(path).await?,
        (_, Some(peer)) => Stream::connect_tcp(peer).await?,
        (Address::Tcp(..), None) => return Err(io::ErrorKind::AddrNotAvailable.into()),
    };
    let mut endpoint = Endpoint::new(stream);
    if let (Some(tls), Address::Tcp(host, _)) = (&info.cancel_by, &info.address) {
        tls.connect(&mut endpoint, host).await.map_err(io::Error::other)?;
        if endpoint.stream.tls().is_none() {
            return Err(io::Error::other(TlsConnectError::Refused));
        }
    }
    endpoint.outbox.buffer().extend_from_slice(&startup::cancel_request_bytes(key.pid, &key.secret));
    endpoint.flush().await?;
    on_sent(endpoint.stream.local());
    loop {
        match endpoint.read().await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        let said = endpoint.inbox.len();
        endpoint.inbox.skip(said, &mut Default::default());
    }
}
