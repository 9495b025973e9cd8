//! Servers and proxies that a history runs on.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use super::{
    checker::{Promise, Time, Write},
    support::{Cluster, Proxy, Redis, forwarder::Forwarder, raw_client::Address},
};

/// A proxy, and its way to Redis where a history cuts that.
pub struct Site {
    proxy: Mutex<Proxy>,
    pub address: Address,
    pub way: Option<Forwarder>,
}

impl Site {
    pub fn of(proxy: Proxy, way: Option<Forwarder>) -> Self {
        Self { address: proxy.address(), proxy: Mutex::new(proxy), way }
    }

    /// The process, which may be another one tomorrow.
    pub fn proxy(&self) -> MutexGuard<'_, Proxy> {
        self.proxy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Proxies in front of one cluster; sessions choose one by their number.
pub struct Topology<'a> {
    pub cluster: &'a Cluster,
    pub database: String,
    pub sites: Vec<Site>,
    /// What the proxies share.
    pub redis: Option<Mutex<Redis>>,
    /// What its clients may rely on.
    pub promise: Promise,
    /// No read may contradict what anybody has seen: every read is a hit or the primary's.
    pub is_linearizable: bool,
    /// Hits of processes that are no more.
    pub past_hits: AtomicI64,
}

impl<'a> Topology<'a> {
    pub fn new(cluster: &'a Cluster, database: String, sites: Vec<Site>, promise: Promise) -> Self {
        let is_linearizable = promise == Promise::Everybodys;
        Self { cluster, database, sites, redis: None, promise, is_linearizable, past_hits: AtomicI64::new(0) }
    }

    /// Where sessions of this number ask.
    pub fn address(&self, number: u16) -> Address {
        self.sites[usize::from(number) % self.sites.len()].address.clone()
    }

    /// Hits of all proxies, in memory and in Redis.
    pub fn hits(&self) -> i64 {
        let hits: i64 = self.sites.iter().map(|site| self.hits_of(&site.proxy())).sum();
        hits + self.past_hits.load(Ordering::Relaxed)
    }

    /// Writes of known rows that proxies have heard of or done, and that left other keys alone.
    pub fn writes_by_key(&self) -> u64 {
        let of = |site: &Site| {
            let tables = site.proxy().show("CACHE TABLES");
            let at = tables.position("by_key");
            tables.rows.iter().filter_map(|row| row[at].parse::<u64>().ok()).sum::<u64>()
        };
        self.sites.iter().map(of).sum()
    }

    fn hits_of(&self, proxy: &Proxy) -> i64 {
        let figures = proxy.show("CACHE");
        ["hits", "shared_hits"].map(|column| figures.number("database", &self.database, column)).iter().sum()
    }

    /// Kills the process of a proxy.
    pub fn kill(&self, site: &Site) {
        let mut proxy = site.proxy();
        self.past_hits.fetch_add(self.hits_of(&proxy), Ordering::Relaxed);
        proxy.die();
    }
}

/// When it is too late to miss what somebody wrote.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    /// Sessions from this number on write without the proxies.
    pub first_direct: u16,
    /// What they wrote is heard of so much later.
    pub bound: Duration,
}

impl Due {
    /// Was it written without the proxies?
    pub fn is_direct(self, writer: i64) -> bool {
        writer >> 40 > i64::from(self.first_direct)
    }

    /// When what could be seen at that time must be seen by those who begin to read.
    pub fn of(self, writer: i64, seen: Time) -> Time {
        let bound = if self.is_direct(writer) { self.bound } else { Duration::ZERO };
        seen + u64::try_from(bound.as_nanos()).unwrap()
    }

    pub fn of_write(self, write: &Write) -> Time {
        self.of(write.id, write.ended)
    }
}

#[test]
fn what_was_written_without_the_proxies_is_due_later() {
    let due = Due { first_direct: 5, bound: Duration::from_nanos(100) };
    let writer = |session: i64| (session + 1) << 40 | 17;
    assert_eq!([0, 4, 5, 6].map(|session| due.of(writer(session), 10)), [10, 10, 110, 110]);
    assert_eq!(due.of(0, 10), 10, "nobody laid out the tables");
}
