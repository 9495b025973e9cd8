//! Cancel requests for clients of other processes behind the same address: `[peers]`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Semaphore,
    time::timeout,
};

use super::cancel_key::OwnKey;
use crate::{
    config::Config,
    net::{Address, Stream},
    protocol::startup,
};

/// Requests for one peer that wait for a connection; more are dropped.
const WAITING_LIMIT: u64 = 1000;

/// What is under way to each peer.
#[derive(Debug, Default)]
pub struct Peers {
    pools: DashMap<u16, Arc<PeerPool>>,
}

/// Requests under way to one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerFigures {
    /// Key of `[peers]`.
    pub peer_id: u16,
    /// Requests that have a connection.
    pub active: u64,
    /// Requests that wait for one.
    pub waiting: u64,
    /// Connections being opened.
    pub connecting: u64,
}

#[derive(Debug)]
struct PeerPool {
    size: usize,
    connections: Semaphore,
    active: AtomicU64,
    waiting: AtomicU64,
    connecting: AtomicU64,
}

/// Counts for as long as it lives.
struct Counted<'a>(&'a AtomicU64);

impl<'a> Counted<'a> {
    fn new(counter: &'a AtomicU64) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Peers {
    /// Passes a request on to the peer whose key it is.
    pub(super) async fn forward(&self, config: &Config, peer_id: u16, key: OwnKey) {
        let Some(peer) = config.peers.get(&peer_id) else {
            tracing::info!(peer_id, "could not find peer to forward request to");
            return;
        };
        let size = peer.pool_size.unwrap_or(config.pgbouncer.default_pool_size) as usize;
        let pool = self.pool(peer_id, if size == 0 { Semaphore::MAX_PERMITS } else { size });
        let address = Address::new(&peer.host, peer.port);
        let deadline = Some(config.pgbouncer.cancel_wait_timeout).filter(|deadline| !deadline.is_zero());
        match timeout(deadline.unwrap_or(Duration::MAX), pool.forward(&address, key)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(peer_id, %address, %error, "cancel request not forwarded"),
            Err(_) => tracing::warn!(peer_id, %address, "cancel request not forwarded: cancel_wait_timeout"),
        }
    }

    /// A pool of another size replaces the old one, whose requests go on.
    fn pool(&self, peer_id: u16, size: usize) -> Arc<PeerPool> {
        let mut pool = self.pools.entry(peer_id).or_insert_with(|| Arc::new(PeerPool::new(size)));
        if pool.size != size {
            *pool = Arc::new(PeerPool::new(size));
        }
        Arc::clone(&pool)
    }

    /// Peers to which something has been passed on.
    #[must_use]
    pub fn pools(&self) -> usize {
        self.pools.len()
    }

    /// What is under way, for each peer of the configuration.
    #[must_use]
    pub fn figures(&self, config: &Config) -> Vec<PeerFigures> {
        let figures = |peer_id: &u16| match self.pools.get(peer_id) {
            None => PeerFigures { peer_id: *peer_id, ..PeerFigures::default() },
            Some(pool) => PeerFigures {
                peer_id: *peer_id,
                active: pool.active.load(Ordering::Relaxed),
                waiting: pool.waiting.load(Ordering::Relaxed),
                connecting: pool.connecting.load(Ordering::Relaxed),
            },
        };
        config.peers.keys().map(figures).collect()
    }
}

impl PeerPool {
    fn new(size: usize) -> Self {
        Self {
            size,
            connections: Semaphore::new(size),
            active: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            connecting: AtomicU64::new(0),
        }
    }

    /// Sends the request and waits until the peer has closed, so that it has been acted on.
    async fn forward(&self, address: &Address, key: OwnKey) -> std::io::Result<()> {
        if self.waiting.load(Ordering::Relaxed) >= WAITING_LIMIT {
            return Err(std::io::ErrorKind::QuotaExceeded.into());
        }
        let waiting = Counted::new(&self.waiting);
        let _place = self.connections.acquire().await.map_err(std::io::Error::other)?;
        let connecting = Counted::new(&self.connecting);
        let mut stream = connect(address).await?;
        drop((waiting, connecting));
        let _active = Counted::new(&self.active);
        stream.write_all(&startup::cancel_request_bytes(key.pid(), &key.secret().to_be_bytes())).await?;
        let mut nothing = [0; 16];
        while stream.read(&mut nothing).await? > 0 {}
        Ok(())
    }
}

async fn connect(address: &Address) -> std::io::Result<Stream> {
    let (host, port) = match address {
        Address::Unix(path) => return Stream::connect_unix(path).await,
        Address::Tcp(host, port) => (host.as_str(), *port),
    };
    let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    for found in tokio::net::lookup_host((host, port)).await? {
        match Stream::connect_tcp(found).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}
