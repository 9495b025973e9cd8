//! The pool of one database, user and member.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;
use tokio::{sync::oneshot, time::timeout};

use super::wait_queue::{CheckOut, Grant, Ticket, WaitQueue};
use crate::{
    clock::Clock,
    protocol::{ErrorResponse, SqlState, backend},
    routing::MemberId,
    server::{Busy, ConnectError, Idle, Login, ServerConnection, ServerInfo, connect, reset},
    session::{Parameters, PinSet},
    telemetry::logging::{CONNECTIONS, DISCONNECTIONS, Origin, Side},
};

/// Logins of one pool that may be under way at the same time: enough to fill a pool fast, too few to storm a server.
const MAX_OPENING: usize = 4;

/// Parameter values whose spelling is remembered per pool.
const MAX_SPELLINGS: usize = 1024;

/// Names a pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// The database's name in the configuration.
    pub database: Arc<str>,
    /// The user that logs in to the server.
    pub user: Arc<str>,
    /// The member of the database's cluster.
    pub member: MemberId,
}

/// Limits and deadlines of one pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// `pool_size`; 0 means no limit.
    pub size: usize,
    /// `server_connect_timeout`.
    pub connect_timeout: Duration,
    /// `server_idle_timeout`; zero means never.
    pub idle_timeout: Duration,
    /// `server_lifetime`; zero means one use.
    pub lifetime: Duration,
}

/// Tells how to log in; asked for each connection, so that a reload takes effect.
pub type LoginSource = Box<dyn Fn() -> Login + Send + Sync>;

/// Why a client gets no server connection.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    /// `query_wait_timeout`.
    #[error("no server connection within {waited:?}")]
    WaitTimeout {
        /// How long the client waited.
        waited: Duration,
        /// Connections that cannot be handed on, by reason, of how many.
        pins: String,
    },
    /// The server refused or did not answer.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The pool is going away.
    #[error("the pool is closed")]
    Closed,
}

impl CheckoutError {
    /// What the client is told, in PgBouncer's words where it has them; `Display` is for the log.
    #[must_use]
    pub fn response(&self) -> ErrorResponse {
        match self {
            Self::WaitTimeout { pins, .. } => {
                let error = ErrorResponse::fatal(SqlState::PROTOCOL_VIOLATION, "query_wait_timeout");
                if pins.is_empty() { error } else { error.with_detail(pins.clone()) }
            }
            Self::Connect(ConnectError::Refused { sqlstate, message, .. }) => {
                ErrorResponse::fatal(sqlstate.unwrap_or(SqlState::CANNOT_CONNECT_NOW), message.clone())
            }
            Self::Connect(ConnectError::Login(error)) => {
                ErrorResponse::fatal(SqlState::PROTOCOL_VIOLATION, error.to_string())
            }
            Self::Connect(_) => ErrorResponse::fatal(
                SqlState::PROTOCOL_VIOLATION,
                "server login has been failing, try again later (server_login_retry)",
            ),
            Self::Closed => ErrorResponse::fatal(SqlState::ADMIN_SHUTDOWN, "server shutting down"),
        }
    }
}

#[derive(Debug)]
struct State {
    queue: WaitQueue<Rested>,
    waiters: HashMap<Ticket, oneshot::Sender<Grant<Rested>>>,
    is_closed: bool,
}

/// An idle connection and since when it is.
#[derive(Debug)]
struct Rested {
    server: ServerConnection<Idle>,
    since: u64,
}

impl Rested {
    /// `None` if it has gone meanwhile, or cannot follow its client to another worker.
    fn wake(mut self, worker: usize) -> Option<ServerConnection<Idle>> {
        if !self.server.is_reusable() {
            return None;
        }
        if self.server.core().worker == worker {
            return Some(self.server);
        }
        match self.server.rehome(worker) {
            Ok(server) => Some(server),
            Err(error) => {
                tracing::warn!(%error, "server connection not moved to its new worker");
                None
            }
        }
    }
}

/// Closes connections that nobody holds.
fn close(idle: Vec<Rested>, reason: &'static str) {
    for rested in idle {
        _ = rested.server.core().info.end.set(reason);
    }
}

/// Counts for the console.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolCounts {
    /// Connections lent to clients.
    pub active: usize,
    /// Connections that nobody holds.
    pub idle: usize,
    /// Connections being opened.
    pub login: usize,
    /// Clients that wait.
    pub waiting: usize,
}

/// What servers of a pool report at login.
#[derive(Debug)]
pub struct Greeting {
    /// What follows a client.
    pub parameters: Parameters,
    /// The rest, as it is said to every client.
    pub others: Vec<u8>,
}

impl Greeting {
    fn new(parameters: Parameters, reported: &[(String, String)]) -> Self {
        let mut others = Vec::new();
        for (name, value) in reported.iter().filter(|(name, _)| parameters.get(name).is_none()) {
            backend::put_parameter_status(&mut others, name, value);
        }
        Self { parameters, others }
    }
}

/// One pool.
pub struct Pool {
    key: PoolKey,
    login: LoginSource,
    limits: Mutex<PoolLimits>,
    state: Mutex<State>,
    servers: DashMap<u64, Arc<ServerInfo>>,
    pins: [AtomicU32; PinSet::LABELS.len()],
    /// Of the newest connection: a server may have been upgraded meanwhile.
    greeting: Mutex<Option<Arc<Greeting>>>,
    spellings: DashMap<(String, String), Box<str>>,
    in_flight: AtomicU32,
    clock: Clock,
    ids: Arc<AtomicU64>,
    /// Connections with a lower id are to be replaced.
    first_wanted: AtomicU64,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("key", &self.key).finish_non_exhaustive()
    }
}

/// Gives its place back when the connection closes.
#[derive(Debug)]
struct Lease {
    pool: Arc<Pool>,
    info: Arc<ServerInfo>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.servers.remove(&self.info.id);
        let age = self.pool.clock.now().saturating_sub(self.info.connected_at) / 1_000_000_000;
        let reason = self.info.end.get().copied().unwrap_or("server conn crashed?");
        let origin = self.pool.origin(&self.info);
        tracing::info!(target: DISCONNECTIONS, %origin, "closing because: {reason} (age={age}s)");
        self.pool.change(WaitQueue::closed);
    }
}

/// A right to open a connection, given back if it is not used.
struct Opening {
    pool: Arc<Pool>,
    is_used: bool,
}

impl Drop for Opening {
    fn drop(&mut self) {
        if !self.is_used {
            self.pool.change(WaitQueue::open_failed);
        }
    }
}

/// A place in the queue, given up when the client stops waiting.
struct Place {
    pool: Arc<Pool>,
    ticket: Ticket,
    granted: oneshot::Receiver<Grant<Rested>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pool.withdraw(self.ticket);
        if let Ok(grant) = self.granted.try_recv() {
            self.pool.take_back(grant);
        }
    }
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(key: PoolKey, login: LoginSource, limits: PoolLimits, clock: Clock, ids: Arc<AtomicU64>) -> Arc<Self> {
        let state =
            State { queue: WaitQueue::new(limits.size, MAX_OPENING), waiters: HashMap::new(), is_closed: false };
        Arc::new(Self {
            key,
            login,
            limits: Mutex::new(limits),
            state: Mutex::new(state),
            servers: DashMap::new(),
            pins: Default::default(),
            greeting: Mutex::default(),
            spellings: DashMap::new(),
            in_flight: AtomicU32::new(0),
            clock,
            ids,
            first_wanted: AtomicU64::new(0),
        })
    }

    /// Its name.
    #[must_use]
    pub fn key(&self) -> &PoolKey {
        &self.key
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn limits(&self) -> PoolLimits {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection for a client of this worker: an idle one, a new one, or after a wait of at most `wait`
    /// (zero: for ever).
    ///
    /// # Errors
    /// See [`CheckoutError`].
    pub fn check_out(self: &Arc<Self>, worker: usize, wait: Duration) -> Result<CheckedOut, CheckoutError> {
        loop {
            match self.ask(worker)? {
                Answer::Granted(Grant::Server(rested)) => {
                    if let Some(server) = rested.wake(worker) {
                        return Ok(CheckedOut::Now(server));
                    }
                }
                // What takes its time is kept apart: nearly every request needs none of it.
                answer => return Ok(CheckedOut::Later(Box::pin(Arc::clone(self).obtain(answer, worker, wait)))),
            }
        }
    }

    async fn obtain(
        self: Arc<Self>,
        mut answer: Answer,
        worker: usize,
        wait: Duration,
    ) -> Result<ServerConnection<Idle>, CheckoutError> {
        loop {
            let grant = match answer {
                Answer::Granted(grant) => grant,
                Answer::Wait(place) => self.wait(place, wait).await?,
            };
            match grant {
                Grant::Open => return self.open(worker).await,
                Grant::Server(rested) => {
                    if let Some(server) = rested.wake(worker) {
                        return Ok(server);
                    }
                }
            }
            answer = self.ask(worker)?;
        }
    }

    fn ask(self: &Arc<Self>, worker: usize) -> Result<Answer, CheckoutError> {
        let mut state = self.state();
        if state.is_closed {
            return Err(CheckoutError::Closed);
        }
        Ok(match state.queue.check_out(|rested| rested.server.core().worker == worker) {
            CheckOut::Granted(grant) => Answer::Granted(grant),
            CheckOut::Wait(ticket) => {
                let (sender, granted) = oneshot::channel();
                state.waiters.insert(ticket, sender);
                Answer::Wait(Place { pool: Arc::clone(self), ticket, granted })
            }
        })
    }

    async fn wait(&self, mut place: Place, wait: Duration) -> Result<Grant<Rested>, CheckoutError> {
        let granted = if wait.is_zero() {
            (&mut place.granted).await
        } else {
            match timeout(wait, &mut place.granted).await {
                Ok(granted) => granted,
                Err(_) => return Err(CheckoutError::WaitTimeout { waited: wait, pins: self.pinned() }),
            }
        };
        granted.map_err(|_| CheckoutError::Closed)
    }

    async fn open(self: &Arc<Self>, worker: usize) -> Result<ServerConnection<Idle>, CheckoutError> {
        let mut opening = Opening { pool: Arc::clone(self), is_used: false };
        let login = (self.login)();
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let deadline = self.limits().connect_timeout;
        tracing::debug!(db = %self.key.database, user = %self.key.user, "launching new connection to server");
        let connecting = Box::pin(connect(&login, id, self.clock.now(), worker));
        let (mut server, reported) =
            timeout(deadline, connecting).await.map_err(|_| ConnectError::Timeout(login.address.clone()))??;
        opening.is_used = true;
        let info = Arc::clone(&server.core().info);
        let (address, port) = info.local.columns();
        let origin = self.origin(&info);
        tracing::info!(target: CONNECTIONS, %origin, "new connection to server (from {address}:{port})");
        self.servers.insert(id, Arc::clone(&info));
        server.set_lease(Box::new(Lease { pool: Arc::clone(self), info }));
        let parameters = server.core().parameters.clone();
        let greeting = Arc::new(Greeting::new(parameters, &reported));
        *self.greeting.lock().unwrap_or_else(PoisonError::into_inner) = Some(greeting);
        self.change(WaitQueue::opened);
        Ok(server)
    }

    /// How log lines begin that are about one of its connections.
    fn origin(&self, server: &ServerInfo) -> Origin {
        Origin {
            side: Side::Server,
            id: server.id,
            database: Some(Arc::clone(&self.key.database)),
            user: Some(Arc::clone(&self.key.user)),
            peer: server.address.to_string().into(),
        }
    }

    /// The time on the process clock.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.clock.now()
    }

    /// Takes a connection back at `now`: the oldest waiter gets it, else it rests.
    pub fn check_in(&self, server: ServerConnection<Idle>, now: u64) {
        let age = Duration::from_nanos(now.saturating_sub(server.core().info.connected_at));
        let limits = self.limits();
        let is_unwanted = {
            let state = self.state();
            state.is_closed || state.queue.is_paused() || state.queue.is_oversized()
        };
        if server.core().is_tainted || self.is_worn(&server.core().info) || age >= limits.lifetime || is_unwanted {
            let reason = if age >= limits.lifetime { "server lifetime over" } else { "close_needed" };
            _ = server.core().info.end.set(reason);
            return;
        }
        server.core().info.client.store(0, Ordering::Relaxed);
        self.take_back(Grant::Server(Rested { server, since: now }));
    }

    /// Cleans a connection that a client left behind and takes it back; closes it if that fails.
    pub async fn clean(&self, server: ServerConnection<Busy>, query: &str) {
        let deadline = self.limits().connect_timeout;
        match timeout(deadline, reset(server, query)).await {
            Ok(Ok(server)) => self.check_in(server, self.clock.now()),
            Ok(Err(error)) => tracing::info!(%error, "server connection closed because it could not be reset"),
            Err(_) => tracing::info!("server connection closed because its reset took too long"),
        }
    }

    fn take_back(&self, grant: Grant<Rested>) {
        match grant {
            Grant::Server(rested) => self.change(|queue| queue.check_in(rested)),
            Grant::Open => self.change(WaitQueue::open_failed),
        }
    }

    fn withdraw(&self, ticket: Ticket) {
        let mut state = self.state();
        state.queue.withdraw(ticket);
        state.waiters.remove(&ticket);
    }

    /// Changes the queue and hands out what can be granted then. Connections are dropped outside of the lock.
    fn change(&self, change: impl FnOnce(&mut WaitQueue<Rested>)) {
        let mut change = Some(change);
        let mut returned: Option<Grant<Rested>> = None;
        loop {
            let mut state = self.state();
            if let Some(change) = change.take() {
                change(&mut state.queue);
            }
            match returned.take() {
                Some(Grant::Server(rested)) => state.queue.check_in(rested),
                Some(Grant::Open) => state.queue.open_failed(),
                None => {}
            }
            let Some((ticket, grant)) = state.queue.next_grant() else {
                state.queue.check_invariants();
                return;
            };
            let waiter = state.waiters.remove(&ticket);
            drop(state);
            returned = match waiter {
                Some(waiter) => waiter.send(grant).err(),
                None => Some(grant),
            };
        }
    }

    /// What servers of this pool report at login; `None` before the first login.
    #[must_use]
    pub fn greeting(&self) -> Option<Arc<Greeting>> {
        self.greeting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// PostgreSQL's spelling of a parameter's value, if a server has been asked.
    #[must_use]
    pub fn spelling(&self, name: &str, typed: &str) -> Option<Box<str>> {
        self.spellings.get(&(name.to_owned(), typed.to_owned())).map(|spelling| spelling.clone())
    }

    /// A server has been asked.
    pub fn learn_spelling(&self, name: &str, typed: &str, spelling: &str) {
        if self.spellings.len() < MAX_SPELLINGS {
            self.spellings.insert((name.to_owned(), typed.to_owned()), spelling.into());
        }
    }

    /// Closes idle connections that are too old or rested too long.
    pub fn maintain(&self) {
        let now = self.clock.now();
        let limits = self.limits();
        let worn = {
            let mut state = self.state();
            state.queue.take_idle(|rested| {
                let idle = Duration::from_nanos(now.saturating_sub(rested.since));
                let age = Duration::from_nanos(now.saturating_sub(rested.server.core().info.connected_at));
                let reason = if age >= limits.lifetime {
                    "server lifetime over"
                } else if !limits.idle_timeout.is_zero() && idle >= limits.idle_timeout {
                    "server idle timeout"
                } else if !rested.server.is_reusable() {
                    "server conn crashed?"
                } else {
                    return false;
                };
                _ = rested.server.core().info.end.set(reason);
                true
            })
        };
        drop(worn);
    }

    /// New limits; connections beyond them close as they come to rest.
    pub fn set_limits(&self, limits: PoolLimits) {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
        let surplus = self.state().queue.resize(limits.size);
        close(surplus, "pool size changed");
        self.change(|_| {});
    }

    /// Stops or goes on lending; idle connections close when it stops.
    pub fn pause(&self, is_paused: bool) {
        let idle = {
            let mut state = self.state();
            state.queue.pause(is_paused);
            if is_paused { state.queue.take_idle(|_| true) } else { Vec::new() }
        };
        close(idle, "pause mode");
        self.change(|_| {});
    }

    /// Replaces every connection there is now: idle ones close at once, others as they are handed back.
    pub fn renew(&self) {
        self.first_wanted.store(self.ids.load(Ordering::Relaxed), Ordering::Relaxed);
        let worn = self.state().queue.take_idle(|rested| self.is_worn(&rested.server.core().info));
        drop(worn);
    }

    /// Is it to be closed instead of lent again? (`close_needed`)
    #[must_use]
    pub fn is_worn(&self, server: &ServerInfo) -> bool {
        server.id < self.first_wanted.load(Ordering::Relaxed)
    }

    /// Lends nothing any more; those who wait are told so.
    pub fn close(&self) {
        let (idle, waiters) = {
            let mut state = self.state();
            state.is_closed = true;
            (state.queue.take_idle(|_| true), std::mem::take(&mut state.waiters))
        };
        close(idle, "connect string changed");
        drop(waiters);
    }

    /// Counts for the console.
    #[must_use]
    pub fn counts(&self) -> PoolCounts {
        let state = self.state();
        let (idle, login) = (state.queue.idle().len(), state.queue.opening());
        PoolCounts {
            active: state.queue.open().saturating_sub(idle + login),
            idle,
            login,
            waiting: state.queue.waiting(),
        }
    }

    /// Has it no connections, nor any being opened?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.state().queue.open() == 0
    }

    /// Its connections, for the console.
    #[must_use]
    pub fn servers(&self) -> Vec<Arc<ServerInfo>> {
        self.servers.iter().map(|entry| Arc::clone(entry.value())).collect()
    }

    /// Requests under way, for balancing.
    #[must_use]
    pub fn in_flight(&self) -> &AtomicU32 {
        &self.in_flight
    }

    /// A client's reasons to keep its connection have changed.
    pub fn count_pins(&self, before: PinSet, after: PinSet) {
        for ((pin, _), count) in PinSet::LABELS.iter().zip(&self.pins) {
            match (before.contains(*pin), after.contains(*pin)) {
                (false, true) => {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                (true, false) => {
                    count.fetch_sub(1, Ordering::Relaxed);
                }
                _ => {}
            }
        }
    }

    /// Connections that are kept by their clients now, by reason.
    pub fn pin_counts(&self) -> impl Iterator<Item = (&'static str, u32)> {
        let counts = PinSet::LABELS.iter().zip(&self.pins);
        counts.map(|((_, label), count)| (*label, count.load(Ordering::Relaxed)))
    }

    /// Who keeps the connections of this pool, in words; empty if nobody does.
    fn pinned(&self) -> String {
        let reasons = self.pin_counts().filter(|(_, count)| *count > 0);
        let reasons: Vec<_> = reasons.map(|(label, count)| format!("{label} {count}")).collect();
        if reasons.is_empty() {
            return String::new();
        }
        format!("server connections of this pool pinned to clients: {} (SHOW PINS)", reasons.join(", "))
    }
}

/// What a client that asked for a connection gets.
pub enum CheckedOut {
    /// An idle one.
    Now(ServerConnection<Idle>),
    /// A new one, or one that another client gives back. Cancel safe: a client that stops waiting loses nobody's
    /// connection.
    Later(Pin<Box<dyn Future<Output = Result<ServerConnection<Idle>, CheckoutError>> + Send>>),
}

impl CheckedOut {
    /// Waits for it, if it has to be waited for.
    ///
    /// # Errors
    /// See [`CheckoutError`].
    pub async fn ready(self) -> Result<ServerConnection<Idle>, CheckoutError> {
        match self {
            Self::Now(server) => Ok(server),
            Self::Later(server) => server.await,
        }
    }
}

enum Answer {
    Granted(Grant<Rested>),
    Wait(Place),
}
