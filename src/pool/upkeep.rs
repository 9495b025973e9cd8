//! What is done for a pool several times a second, and what changes it from outside.

use std::{
    sync::{
        Arc,
        atomic::{Ordering, fence},
    },
    time::Duration,
};

use super::{
    Pool,
    asking::Told,
    lending::{Rested, State},
    wait_queue::Shape,
    wear::{Life, Worn},
};
use crate::clock::nanos;
use crate::server::{Idle, ServerConnection, ServerInfo};

/// Logins of one pool that may be under way at the same time: enough to fill a pool fast, too few to storm a server.
const MAX_OPENING: usize = 4;

/// Limits and deadlines of one pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// `pool_size`; 0 means no limit.
    pub size: usize,
    /// `min_pool_size`
    pub least: usize,
    /// `reserve_pool_size`
    pub reserve: usize,
    /// `reserve_pool_timeout`; zero: the reserve is not used.
    pub reserve_timeout: Duration,
    /// `server_round_robin`
    pub is_round_robin: bool,
    /// `server_connect_timeout`.
    pub connect_timeout: Duration,
    /// `server_login_retry`
    pub login_retry: Duration,
    /// `server_idle_timeout`; zero means never.
    pub idle_timeout: Duration,
    /// `server_lifetime`; zero means one use.
    pub lifetime: Duration,
    /// `server_check_delay`
    pub check_delay: Duration,
    /// `server_check_query`; `None`: no check.
    pub check_query: Option<Arc<str>>,
    /// `connect_query`
    pub connect_query: Option<Arc<str>>,
}

impl PoolLimits {
    pub(super) fn shape(&self) -> Shape {
        Shape {
            size: self.size,
            reserve: self.reserve,
            reserve_after: nanos(self.reserve_timeout),
            max_opening: MAX_OPENING,
            is_round_robin: self.is_round_robin,
        }
    }

    pub(super) fn life(&self) -> Life {
        Life { lifetime: nanos(self.lifetime), idle_timeout: nanos(self.idle_timeout), pool_size: self.size }
    }
}

impl Pool {
    /// Closes connections that are too old, rested too long or shall be closed; opens one if there are fewer than
    /// `min_pool_size`, provided that a client of it is connected (`is_attached`) or its user is the database's.
    pub fn maintain(self: &Arc<Self>, is_attached: bool, is_forced: bool) {
        let now = self.clock.now();
        let mut worn = Vec::new();
        let mut fills = false;
        self.change(|state| {
            state.queue.tick(now);
            worn = take_worn(state, now);
            if (is_attached || is_forced) && !state.is_closed {
                let leaving = worn.len();
                let least = state.limits.least.saturating_add(leaving);
                fills = state.queue.fill(least, || self.shares.take(&self.claim, self.number, None).is_ok());
            }
            let is_empty = state.queue.open() == 0 && state.queue.waiting() == 0 && !is_attached;
            state.empty_since = is_empty.then(|| state.empty_since.unwrap_or(now));
        });
        for (rested, reason) in worn {
            note_closed(&rested.server, reason);
        }
        if fills {
            self.open_spare();
        }
    }

    /// For how long nobody has had a connection of it or asked for one.
    #[must_use]
    pub fn empty_for(&self) -> Option<Duration> {
        let since = self.state().empty_since?;
        Some(Duration::from_nanos(self.clock.now().saturating_sub(since)))
    }

    /// New limits; connections beyond them close as they come to rest.
    pub fn set_limits(&self, limits: PoolLimits) {
        let mut surplus = Vec::new();
        self.change(|state| {
            surplus = state.queue.resize(limits.shape());
            state.limits = limits;
        });
        for rested in surplus {
            note_closed(&rested.server, Worn::Oversized);
        }
    }

    /// Stops or goes on lending; idle connections close when it stops.
    pub fn pause(&self, is_paused: bool) {
        let mut idle = Vec::new();
        self.change(|state| {
            state.queue.pause(is_paused);
            if is_paused {
                idle = state.queue.take_idle(|_| true);
            }
        });
        for rested in idle {
            note_closed(&rested.server, Worn::Paused);
        }
    }

    /// Lends nothing any more; those who wait are told so.
    pub fn close(&self) {
        let (idle, waiters) = {
            let mut state = self.state();
            state.is_closed = true;
            state.queue.clear_waiting();
            (state.queue.take_idle(|_| true), std::mem::take(&mut state.waiters))
        };
        for rested in idle {
            note_closed(&rested.server, Worn::Closed);
        }
        drop(waiters);
        self.shares.forget(self.number);
    }

    /// Connections that `condemn` names are closed as soon as nobody needs them.
    pub fn retire(&self, condemn: impl Fn(&ServerInfo) -> bool) {
        for server in self.servers.iter().filter(|server| condemn(server.value())) {
            server.close_needed.store(true, Ordering::Relaxed);
        }
        let idle =
            self.state().queue.take_idle(|rested| rested.server.core().info.close_needed.load(Ordering::Relaxed));
        for rested in idle {
            note_closed(&rested.server, Worn::CloseNeeded);
        }
    }

    /// Replaces every connection there is now: idle ones close at once, others as they are handed back.
    pub fn renew(&self) {
        self.first_wanted.store(self.ids.load(Ordering::Relaxed), Ordering::Relaxed);
        self.retire(|_| true);
    }

    /// Its member answers again: what failed before is no reason to wait (`server_login_retry`).
    pub fn may_open(&self) {
        self.change(|state| {
            state.retry.succeeded();
            state.queue.hold(0);
        });
    }

    /// Its member is the primary no longer: whoever waits is told so ([`super::CheckoutError::Moved`]), and connections
    /// that there are or that are being opened are not used any more. Returns the clients that hold one.
    pub fn depose(&self) -> Vec<u64> {
        self.first_legitimate.store(self.ids.load(Ordering::Relaxed), Ordering::Release);
        self.send_on();
        self.renew();
        self.shares.wake();
        // Who takes one looks at who is primary behind that: one of the two sees the other.
        fence(Ordering::SeqCst);
        let holders = self.servers.iter().map(|server| server.client.load(Ordering::Relaxed));
        holders.filter(|client| *client != 0).collect()
    }

    /// Another member may serve: whoever waits is told so ([`super::CheckoutError::Moved`]).
    pub fn send_on(&self) {
        let waiters = {
            let mut state = self.state();
            state.depositions += 1;
            state.blocked = None;
            state.queue.clear_waiting();
            std::mem::take(&mut state.waiters)
        };
        self.shares.forget(self.number);
        for waiter in waiters.into_values() {
            // One that has left needs to know nothing.
            drop(waiter.told.send(Told::Moved));
        }
        self.shares.wake();
    }

    /// Does it lead to what is the primary no longer?
    #[must_use]
    pub fn is_deposed(&self, server: &ServerInfo) -> bool {
        server.id < self.first_legitimate.load(Ordering::Acquire)
    }

    /// Is it to be closed instead of lent again? (`close_needed`)
    #[must_use]
    pub fn is_worn(&self, server: &ServerInfo) -> bool {
        server.close_needed.load(Ordering::Relaxed)
    }

    /// Has it no connections, nor any being opened?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.state().queue.open() == 0
    }

    /// Since when the connection rests that has rested longest.
    pub(super) fn rests_since(&self) -> Option<u64> {
        self.state().queue.idle().iter().map(|rested| rested.since).min()
    }

    /// Closes that one.
    pub(super) fn evict_oldest(&self) {
        let evicted = {
            let mut state = self.state();
            let oldest = state.queue.idle().iter().map(|rested| rested.since).min();
            let mut left = 1;
            state.queue.take_idle(|rested| {
                let is_it = left > 0 && Some(rested.since) == oldest;
                left -= usize::from(is_it);
                is_it
            })
        };
        for rested in evicted {
            note_closed(&rested.server, Worn::Evicted);
        }
    }
}

/// Says why a connection is about to be closed; the first reason holds.
pub(super) fn note_closed(server: &ServerConnection<Idle>, reason: Worn) {
    _ = server.core().info.end.set(reason.label());
}

/// Idle connections that have served long enough, and those that will be tried out before they serve again.
fn take_worn(state: &mut State, now: u64) -> Vec<(Rested, Worn)> {
    let State { queue, limits, last_lifetime_close, .. } = state;
    let (life, least) = (limits.life(), limits.least);
    let check_after = limits.check_query.as_ref().map(|_| nanos(limits.check_delay));
    let mut open = queue.open();
    let mut reasons = Vec::new();
    let worn = queue.take_idle(|rested| {
        let (id, connected_at, close_needed) = {
            let info = &rested.server.core().info;
            (info.id, info.connected_at, info.close_needed.load(Ordering::Relaxed))
        };
        let rests = now.saturating_sub(rested.since);
        let age = now.saturating_sub(connected_at);
        let reason = if close_needed {
            Worn::CloseNeeded
        } else if !rested.server.is_reusable() {
            Worn::Dirty
        } else if life.is_idle(rests, open, least) {
            Worn::Idle
        } else if life.is_over(id, age, now.saturating_sub(*last_lifetime_close)) {
            *last_lifetime_close = now;
            Worn::Lifetime
        } else {
            rested.must_check |= check_after.is_some_and(|delay| rests > delay);
            return false;
        };
        open -= 1;
        reasons.push(reason);
        true
    });
    worn.into_iter().zip(reasons).collect()
}
