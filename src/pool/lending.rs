//! The pool of one database, user and member: who gets a connection, and what becomes of one that comes back.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use dashmap::DashMap;
use tokio::time::timeout;

use super::{
    PoolLimits,
    asking::{Told, Waiter},
    figures::Greeting,
    opening::{LoginSource, Turns},
    quota::{Claim, Full, PoolNumber},
    retry::LoginRetry,
    shares::Shares,
    states::Opening,
    tally::Tally,
    upkeep::note_closed,
    wait_queue::{Grant, Ticket, WaitQueue},
    wear::Worn,
};
use crate::{
    clock::Clock,
    server::{Busy, ExecuteError, Idle, ServerConnection, ServerInfo, execute, initialise, reset},
    session::PinSet,
};

/// So long behind the last question for `currval()` or `lastval()` another one is expected.
const SEQUENCES_MATTER_NS: u64 = 600_000_000_000;

/// Names a pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// The database's name in the configuration.
    pub database: Arc<str>,
    /// The user that logs in to the server.
    pub user: Arc<str>,
    /// Name of the member: it stays the same when members before it come or go.
    pub member: Arc<str>,
}

#[derive(Debug)]
pub(super) struct State {
    pub queue: WaitQueue<Rested>,
    pub waiters: HashMap<Ticket, Waiter>,
    pub is_closed: bool,
    pub limits: PoolLimits,
    pub retry: LoginRetry,
    pub turns: Turns,
    /// The limits that keep the oldest waiter from opening one.
    pub blocked: Option<Full>,
    /// When a connection was last closed because of its age.
    pub last_lifetime_close: u64,
    /// Since when it has had no connection and nobody asked for one.
    pub empty_since: Option<u64>,
    /// How often it was deposed.
    pub depositions: u64,
}

/// An idle connection.
#[derive(Debug)]
pub(super) struct Rested {
    pub server: ServerConnection<Idle>,
    /// Since when it is idle.
    pub since: u64,
    /// For longer than `server_check_delay`.
    pub must_check: bool,
}

/// One pool.
pub struct Pool {
    pub(super) key: PoolKey,
    pub(super) claim: Claim,
    pub(super) number: PoolNumber,
    pub(super) shares: Arc<Shares>,
    pub(super) login: LoginSource,
    state: Mutex<State>,
    pub(super) servers: DashMap<u64, Arc<ServerInfo>>,
    pub(super) opening: DashMap<u64, Opening>,
    pub(super) pins: [AtomicU32; PinSet::LABELS.len()],
    /// Clients that keep one of its connections for any of these reasons.
    pub(super) pinned_clients: AtomicU32,
    /// Of the newest connection: a server may have been upgraded meanwhile.
    pub(super) greeting: Mutex<Option<Arc<Greeting>>>,
    pub(super) spellings: DashMap<(String, String), Box<str>>,
    pub(super) in_flight: AtomicU32,
    pub(super) testing: AtomicU32,
    pub(super) clock: Clock,
    pub(super) ids: Arc<AtomicU64>,
    pub(super) tally: Tally,
    /// When somebody asked last for `currval()` or `lastval()`; 0: never.
    pub(super) sequences_asked_at: AtomicU64,
    /// Connections with a lower id are to be replaced.
    pub(super) first_wanted: AtomicU64,
    /// Connections with a lower id lead to what is the primary no longer.
    pub(super) first_legitimate: AtomicU64,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(
        key: PoolKey,
        login: LoginSource,
        limits: PoolLimits,
        shares: &Arc<Shares>,
        clock: Clock,
        ids: Arc<AtomicU64>,
        tally: Tally,
    ) -> Arc<Self> {
        let state = State {
            queue: WaitQueue::new(limits.shape()),
            waiters: HashMap::new(),
            is_closed: false,
            limits,
            retry: LoginRetry::default(),
            turns: Turns::default(),
            blocked: None,
            last_lifetime_close: 0,
            empty_since: None,
            depositions: 0,
        };
        let number = shares.next_number();
        let pool = Arc::new(Self {
            claim: Claim { database: Arc::clone(&key.database), user: Arc::clone(&key.user) },
            key,
            number,
            shares: Arc::clone(shares),
            login,
            state: Mutex::new(state),
            servers: DashMap::new(),
            opening: DashMap::new(),
            pins: Default::default(),
            pinned_clients: AtomicU32::new(0),
            greeting: Mutex::default(),
            spellings: DashMap::new(),
            in_flight: AtomicU32::new(0),
            testing: AtomicU32::new(0),
            clock,
            ids,
            tally,
            sequences_asked_at: AtomicU64::new(0),
            first_wanted: AtomicU64::new(0),
            first_legitimate: AtomicU64::new(0),
        });
        shares.join(number, Arc::downgrade(&pool));
        pool
    }

    /// Its name.
    #[must_use]
    pub fn key(&self) -> &PoolKey {
        &self.key
    }

    /// The time on the process clock.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.clock.now()
    }

    /// One of its clients asks for `currval()` or `lastval()`: for ten minutes those who call `nextval()` keep their
    /// servers.
    pub fn asks_for_sequences(&self, now: u64) {
        if !self.are_sequences_asked_for(now) {
            let PoolKey { database: db, user, .. } = &self.key;
            tracing::info!(%db, %user, "currval or lastval is used: clients that call nextval keep their servers");
        }
        self.sequences_asked_at.store(now.max(1), Ordering::Relaxed);
    }

    /// Does it matter to one of its clients which server `nextval()` was called on?
    #[must_use]
    pub fn are_sequences_asked_for(&self, now: u64) -> bool {
        let asked = self.sequences_asked_at.load(Ordering::Relaxed);
        asked > 0 && now.saturating_sub(asked) < SEQUENCES_MATTER_NS
    }

    pub(super) fn number(&self) -> PoolNumber {
        self.number
    }

    /// What its connections count in.
    #[must_use]
    pub fn claim(&self) -> &Claim {
        &self.claim
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the limits that pools share for one more.
    pub(super) fn take(&self, since: u64, blocked: &mut Option<Full>) -> bool {
        let taken = self.shares.take(&self.claim, self.number, Some(since));
        *blocked = taken.err();
        blocked.is_none()
    }

    /// Takes a connection back at `now`: the oldest waiter gets it, else it rests.
    pub fn check_in(&self, server: ServerConnection<Idle>, now: u64) {
        let info = Arc::clone(&server.core().info);
        let mut state = self.state();
        if let Some(worn) = self.unwanted(&mut state, &server, now) {
            drop(state);
            note_closed(&server, worn);
            return;
        }
        info.client.store(0, Ordering::Relaxed);
        let must_check = state.limits.check_query.is_some() && state.limits.check_delay.is_zero();
        state.queue.check_in(Rested { server, since: now, must_check });
        self.hand_out(state);
        self.shares.wake();
    }

    /// Why a connection that comes back is closed.
    fn unwanted(&self, state: &mut State, server: &ServerConnection<Idle>, now: u64) -> Option<Worn> {
        let core = server.core();
        if core.is_tainted {
            return Some(Worn::Tainted);
        }
        if state.is_closed {
            return Some(Worn::Closed);
        }
        if core.info.close_needed.load(Ordering::Relaxed) {
            return Some(Worn::CloseNeeded);
        }
        if state.queue.is_paused() {
            return Some(Worn::Paused);
        }
        if state.queue.is_oversized() {
            return Some(Worn::Oversized);
        }
        let age = now.saturating_sub(core.info.connected_at);
        if state.limits.life().is_over(core.info.id, age, now.saturating_sub(state.last_lifetime_close)) {
            state.last_lifetime_close = now;
            return Some(Worn::Lifetime);
        }
        self.shares.must_yield(&self.claim, self.number, state.queue.oldest()).then_some(Worn::Evicted)
    }

    /// Cleans a connection that a client left behind and takes it back; closes it if that fails.
    pub async fn clean(&self, server: ServerConnection<Busy>, query: &str) {
        let (deadline, connect_query) = {
            let state = self.state();
            (state.limits.connect_timeout, state.limits.connect_query.clone())
        };
        let user = &self.key.user;
        let cleaning = async {
            let server = reset(server, query).await?;
            // A statement_timeout that strikes as its statement ends is told with the next one: not with a client's.
            let server = execute(server.begin(), "").await?;
            match connect_query {
                Some(connect_query) => Ok(initialise(server, &connect_query, user).await?),
                None => Ok(server),
            }
        };
        match timeout(deadline, cleaning).await {
            Ok(Ok(server)) => self.check_in(server, self.clock.now()),
            Ok(Err::<_, ExecuteError>(error)) => {
                tracing::info!(%error, "server connection closed because it could not be reset")
            }
            Err(_) => tracing::info!("server connection closed because its reset took too long"),
        }
    }

    pub(super) fn take_back(&self, grant: Grant<Rested>) {
        match grant {
            Grant::Server(rested) => {
                let mut surplus = None;
                self.change(|state| surplus = put_back(state, rested));
                drop(surplus);
            }
            Grant::Open { .. } => self.give_back(WaitQueue::open_failed),
        }
    }

    pub(super) fn withdraw(&self, ticket: Ticket) {
        let mut state = self.state();
        state.waiters.remove(&ticket);
        // The next one may be younger than another pool's.
        if state.queue.withdraw(ticket) && state.blocked.is_some() {
            self.hand_out(state);
            self.shares.wake();
        }
    }

    /// Changes something and hands out what can be granted then.
    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        let full = self.hand_out(state);
        if let Some(full) = full {
            self.shares.evict(full, &self.claim, self.number);
        }
        self.shares.wake();
    }

    /// A connection is closed, or was not opened: there is room for one more, here or elsewhere.
    pub(super) fn give_back(&self, change: impl FnOnce(&mut WaitQueue<Rested>)) {
        self.change(|state| {
            change(&mut state.queue);
            self.shares.give_back(&self.claim);
        });
    }

    /// There may be room now.
    pub(super) fn look_again(&self) {
        self.hand_out(self.state());
    }

    /// Hands out what can be granted. Connections are dropped outside of the lock. Returns what keeps the oldest waiter
    /// from opening one.
    pub(super) fn hand_out<'a>(&'a self, mut state: MutexGuard<'a, State>) -> Option<Full> {
        let mut asked;
        loop {
            asked = false;
            let next = {
                let State { queue, blocked, .. } = &mut *state;
                queue.next_grant(|since| {
                    asked = true;
                    self.take(since, blocked)
                })
            };
            let Some((ticket, grant)) = next else { break };
            let waiter = state.waiters.remove(&ticket);
            drop(state);
            let returned = match waiter {
                Some(waiter) => waiter.told.send(Told::Granted(grant)).err(),
                None => Some(Told::Granted(grant)),
            };
            state = self.state();
            match returned {
                Some(Told::Granted(Grant::Server(rested))) => {
                    if let Some(surplus) = put_back(&mut state, rested) {
                        drop(state);
                        drop(surplus);
                        state = self.state();
                    }
                }
                Some(Told::Granted(Grant::Open { .. })) => {
                    state.queue.open_failed();
                    self.shares.give_back(&self.claim);
                }
                Some(Told::Refused(_) | Told::Moved) | None => {}
            }
        }
        state.queue.check_invariants();
        // What kept somebody from opening one is known only if somebody has just asked.
        if !asked && state.blocked.take().is_some() {
            self.shares.forget(self.number);
        }
        state.blocked
    }
}

/// A connection that reached nobody; comes back if it may not rest, to be dropped without the lock.
fn put_back(state: &mut State, rested: Rested) -> Option<Rested> {
    if state.is_closed || state.queue.is_paused() || state.queue.is_oversized() {
        return Some(rested);
    }
    state.queue.check_in(rested);
    None
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shares.leave(self.number);
    }
}
