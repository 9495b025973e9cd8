//! Looks names of servers up, and remembers for a while what they meant.

mod cache;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

pub use self::cache::CachedName;
use self::cache::{DnsCache, Known, Ttls};
use crate::clock::Clock;
use crate::clock::nanos;

/// Addresses that are gone and not told yet; more than that are not told.
const MAX_GONE: usize = 1000;

/// A name no longer means this address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// The name.
    pub name: String,
    /// What it meant.
    pub address: IpAddr,
}

/// One for the process.
#[derive(Debug)]
pub struct Resolver {
    cache: Mutex<DnsCache>,
    gone: Mutex<Vec<Gone>>,
    running: AtomicUsize,
    clock: Clock,
}

/// Counts for as long as it lives.
struct Running<'a>(&'a AtomicUsize);

impl<'a> Running<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Resolver {
    /// Answers hold for `found`, failures for `failed`.
    #[must_use]
    pub fn new(clock: Clock, found: Duration, failed: Duration) -> Self {
        let ttls = Ttls { found: nanos(found), failed: nanos(failed) };
        Self { cache: Mutex::new(DnsCache::new(ttls)), gone: Mutex::default(), running: AtomicUsize::new(0), clock }
    }

    fn cache(&self) -> MutexGuard<'_, DnsCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Other times, also for what is known already.
    pub fn set_ttls(&self, found: Duration, failed: Duration) {
        self.cache().set_ttls(Ttls { found: nanos(found), failed: nanos(failed) });
    }

    /// Where the next connection to this host goes, best first; several addresses take turns at being the best. The
    /// caller sets the deadline.
    ///
    /// # Errors
    /// The name does not resolve, or did not a moment ago.
    pub async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![(address, port).into()]);
        }
        let mut known = self.cache().next(host, self.clock.now());
        if known == Known::Unknown {
            let found = self.look_up(host).await;
            known = self.cache().next(host, self.clock.now());
            if known == Known::Unknown {
                // A time to live of zero, or too many names: what was found is for this connection alone.
                known = found.map_or_else(Known::Failed, Known::Addresses);
            }
        }
        match known {
            Known::Addresses(addresses) if !addresses.is_empty() => {
                Ok(addresses.into_iter().map(|address| (address, port).into()).collect())
            }
            Known::Failed(error) => Err(io::Error::new(io::ErrorKind::NotFound, error)),
            Known::Addresses(_) | Known::Unknown => Err(io::Error::new(io::ErrorKind::NotFound, "no address")),
        }
    }

    /// Does the host still mean this address? Yes, as long as nobody has said otherwise.
    #[must_use]
    pub fn means(&self, host: &str, address: IpAddr) -> bool {
        self.cache().means(host, address)
    }

    /// Asks the operating system.
    async fn look_up(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        let (running, asked) = (Running::begin(&self.running), self.clock.now());
        let found = tokio::net::lookup_host((host, 0)).await;
        drop(running);
        let found = found.map(|found| found.map(|address| address.ip()).collect()).map_err(|error| error.to_string());
        if let Err(error) = &found {
            tracing::warn!(host, error, "server DNS lookup failed");
        }
        let gone = self.cache().learn(host, found.clone(), asked, self.clock.now());
        let mut told = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        for address in gone.into_iter().take(MAX_GONE.saturating_sub(told.len())) {
            tracing::info!(host, %address, "address has left DNS");
            told.push(Gone { name: host.to_owned(), address });
        }
        found
    }

    /// Looks a name up again whose answer holds no longer.
    pub async fn refresh(&self, host: &str, deadline: Duration) {
        if self.cache().is_stale(host, self.clock.now())
            && tokio::time::timeout(deadline, self.look_up(host)).await.is_err()
        {
            tracing::warn!(host, "server DNS lookup took too long");
        }
    }

    /// Addresses that are gone since the last call.
    pub fn take_gone(&self) -> Vec<Gone> {
        std::mem::take(&mut *self.gone.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Look-ups under way.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// Names that may be remembered.
    #[must_use]
    pub fn limit(&self) -> usize {
        cache::MAX_NAMES
    }

    /// Every name that is known, in order.
    #[must_use]
    pub fn names(&self) -> Vec<CachedName> {
        self.cache().names(self.clock.now())
    }
}
