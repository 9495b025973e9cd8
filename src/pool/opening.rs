//! Opens connections and tries out those that have rested long.

use std::sync::{Arc, PoisonError, atomic::Ordering};

use tokio::time::timeout;

use super::{
    CheckoutError, Pool,
    asking::{Patience, Told, Waiter},
    error::failure,
    figures::Greeting,
    lending::State,
    states::Shown,
    wait_queue::WaitQueue,
    wear::Worn,
};
use crate::{
    protocol::{ErrorResponse, SqlState},
    server::{ConnectError, Idle, Login, ServerConnection, ServerInfo, connect, execute, initialise},
    telemetry::logging::{CONNECTIONS, DISCONNECTIONS, Origin, Side},
};

/// The worker that a connection belongs to which nobody has asked for.
pub(super) const NO_WORKER: usize = usize::MAX;

/// How often hosts were to be chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turns {
    /// Attempts to connect.
    pub attempts: usize,
    /// Those that came after one that had failed.
    pub after_failure: usize,
}

/// Tells how to log in; asked for each connection, so that a reload takes effect.
pub type LoginSource = Box<dyn Fn(Turns) -> Login + Send + Sync>;

/// A server's refusal, for everybody who waits.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    sqlstate: Option<SqlState>,
    message: String,
    frame: Vec<u8>,
}

impl Refusal {
    fn of(error: &ConnectError) -> Self {
        if let ConnectError::Refused { sqlstate, message, frame } = error {
            return Self { sqlstate: *sqlstate, message: message.clone(), frame: frame.clone() };
        }
        let response = ErrorResponse::fatal(SqlState::PROTOCOL_VIOLATION, error.to_string());
        let mut frame = Vec::new();
        response.put(&mut frame);
        Self { sqlstate: Some(response.sqlstate), message: response.message.into_owned(), frame }
    }
}

impl From<Refusal> for CheckoutError {
    fn from(refusal: Refusal) -> Self {
        let Refusal { sqlstate, message, frame } = refusal;
        Self::Connect(ConnectError::Refused { sqlstate, message, frame })
    }
}

/// An attempt that failed.
pub(super) struct Tried {
    pub error: ConnectError,
    /// Everybody who waits has been told so.
    pub is_final: bool,
}

/// A right to open a connection, given back if it is not used.
struct Opening {
    pool: Arc<Pool>,
    is_used: bool,
}

impl Drop for Opening {
    fn drop(&mut self) {
        if !self.is_used {
            self.pool.give_back(WaitQueue::open_failed);
        }
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
        self.pool.tally.closed(reason);
        self.pool.give_back(WaitQueue::closed);
    }
}

impl Pool {
    /// Uses a right to open one.
    pub(super) async fn open(self: &Arc<Self>, worker: usize) -> Result<ServerConnection<Idle>, Tried> {
        let mut opening = Opening { pool: Arc::clone(self), is_used: false };
        let (turns, deadline, connect_query) = {
            let mut state = self.state();
            let turns = state.turns;
            // Those who try at the same time take turns as well.
            state.turns.attempts = state.turns.attempts.wrapping_add(1);
            (turns, state.limits.connect_timeout, state.limits.connect_query.clone())
        };
        // Before the login is looked up: what changes meanwhile makes a connection of this number one to be replaced.
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let login = (self.login)(turns);
        let shown = Shown::begin(self, id, login.address.clone());
        tracing::debug!(db = %self.key.database, user = %self.key.user, "launching new connection to server");
        let opened = async {
            let (server, reported) = connect(&login, id, self.clock.now(), worker).await?;
            match connect_query {
                Some(query) => {
                    let io_error = |source| ConnectError::Io { address: login.address.clone(), source };
                    let server = initialise(server, &query, &login.user).await.map_err(io_error)?;
                    Ok((server, reported))
                }
                None => Ok((server, reported)),
            }
        };
        let opened = match timeout(deadline, Box::pin(opened)).await {
            Ok(opened) => opened,
            Err(_) => Err(ConnectError::Timeout(login.address.clone())),
        };
        opening.is_used = true;
        drop(shown);
        let (mut server, reported) = opened.map_err(|error| self.failed(error, turns))?;
        let info = Arc::clone(&server.core().info);
        let (address, port) = info.local.columns();
        let origin = self.origin(&info);
        tracing::info!(target: CONNECTIONS, %origin, "new connection to server (from {address}:{port})");
        self.tally.opened.increment();
        self.servers.insert(id, Arc::clone(&info));
        // What has changed since the login began told nobody of a connection that was not there yet.
        let is_outdated = id < self.first_wanted.load(Ordering::Relaxed) || !login.dialer.leads_to(&info);
        info.close_needed.fetch_or(is_outdated, Ordering::Relaxed);
        server.set_lease(Box::new(Lease { pool: Arc::clone(self), info }));
        let parameters = server.core().parameters.clone();
        let greeting = Arc::new(Greeting::new(parameters, &reported));
        *self.greeting.lock().unwrap_or_else(PoisonError::into_inner) = Some(greeting);
        self.change(|state| {
            state.queue.opened();
            state.queue.hold(0);
            state.retry.succeeded();
        });
        Ok(server)
    }

    /// Replaces a connection that was checked out by one that logs in with more start-up parameters; it counts in the
    /// place of the other and must not be given back. Also returns what the server reports.
    ///
    /// # Errors
    /// The server cannot be reached or refuses; the place is free again.
    pub async fn dedicate(
        self: &Arc<Self>,
        mut place: ServerConnection<Idle>,
        more: &[(String, String)],
        worker: usize,
    ) -> Result<(ServerConnection<Idle>, Vec<(String, String)>), CheckoutError> {
        let lease = place.take_lease().and_then(|lease| lease.downcast::<Lease>().ok());
        let mut lease = lease.ok_or(CheckoutError::Closed)?;
        let before = Arc::clone(&place.core().info);
        drop(place);
        let (turns, deadline) = {
            let state = self.state();
            (state.turns, state.limits.connect_timeout)
        };
        let mut login = (self.login)(turns);
        login.parameters.retain(|(name, _)| !more.iter().any(|(asked, _)| asked.eq_ignore_ascii_case(name)));
        login.parameters.extend_from_slice(more);
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let connecting = Box::pin(connect(&login, id, self.clock.now(), worker));
        let (mut server, reported) =
            timeout(deadline, connecting).await.map_err(|_| ConnectError::Timeout(login.address.clone()))??;
        if self.is_deposed(&before) {
            return Err(CheckoutError::Moved);
        }
        self.servers.remove(&lease.info.id);
        lease.info = Arc::clone(&server.core().info);
        self.servers.insert(id, Arc::clone(&lease.info));
        server.set_lease(lease);
        Ok((server, reported))
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

    /// The attempt failed: nothing is tried for a while, and all who wait hear of it if it means them all.
    fn failed(&self, error: ConnectError, turns: Turns) -> Tried {
        let now = self.clock.now();
        tracing::warn!(db = %self.key.database, user = %self.key.user, %error, "server login failed");
        self.tally.failed.increment();
        let mut told = Vec::new();
        let mut is_final = false;
        self.give_back_failed(|state| {
            // Attempts at the same host that fail together are one failure.
            if state.turns.after_failure == turns.after_failure {
                state.turns.after_failure = turns.after_failure.wrapping_add(1);
            }
            let others = state.queue.open() - state.queue.opening();
            let retry = crate::clock::nanos(state.limits.login_retry);
            is_final = state.retry.failed(failure(&error), now, retry, others);
            state.queue.tick(now);
            state.queue.hold(state.retry.held_until());
            if is_final {
                state.queue.clear_waiting();
                told = std::mem::take(&mut state.waiters).into_values().collect();
            } else if others == 0 {
                told = impatient(state);
            }
        });
        for waiter in told {
            // One that has left needs to know nothing.
            drop(waiter.told.send(Told::Refused(Refusal::of(&error))));
        }
        Tried { error, is_final }
    }

    fn give_back_failed(&self, change: impl FnOnce(&mut State)) {
        self.change(|state| {
            state.queue.open_failed();
            self.shares.give_back(&self.claim);
            change(state);
        });
    }

    /// Asks a connection that has rested long whether it still works (`server_check_query`).
    pub(super) async fn check(&self, server: ServerConnection<Idle>) -> Option<ServerConnection<Idle>> {
        let (query, deadline) = {
            let state = self.state();
            (state.limits.check_query.clone(), state.limits.connect_timeout)
        };
        let Some(query) = query else { return Some(server) };
        // Unless it goes on: the first reason holds.
        let info = Arc::clone(&server.core().info);
        let _testing = Testing::begin(self, &info);
        match timeout(deadline, execute(server.begin(), &query)).await {
            Ok(Ok(server)) => return Some(server),
            Ok(Err(error)) => tracing::debug!(%error, "test query failed"),
            Err(_) => tracing::debug!("test query took too long"),
        }
        _ = info.end.set(Worn::CheckFailed.label());
        None
    }

    /// Opens one that nobody waits for, with a right that has been granted.
    pub(super) fn open_spare(self: &Arc<Self>) {
        let pool = Arc::clone(self);
        tokio::spawn(async move {
            if let Ok(server) = pool.open(NO_WORKER).await {
                pool.check_in(server, pool.clock.now());
            }
        });
    }
}

/// Those who would rather be told at once than wait for a server that cannot be reached: they wait no longer.
fn impatient(state: &mut State) -> Vec<Waiter> {
    let State { queue, waiters, .. } = state;
    let impatient = waiters.extract_if(|_, waiter| waiter.patience == Patience::None);
    let told = impatient.map(|(ticket, waiter)| {
        queue.withdraw(ticket);
        waiter
    });
    told.collect()
}

/// Counts a connection that is being tried out.
struct Testing<'a>(&'a Pool, Arc<ServerInfo>);

impl<'a> Testing<'a> {
    fn begin(pool: &'a Pool, server: &Arc<ServerInfo>) -> Self {
        pool.testing.fetch_add(1, Ordering::Relaxed);
        server.is_tested.store(true, Ordering::Relaxed);
        Self(pool, Arc::clone(server))
    }
}

impl Drop for Testing<'_> {
    fn drop(&mut self) {
        self.0.testing.fetch_sub(1, Ordering::Relaxed);
        self.1.is_tested.store(false, Ordering::Relaxed);
    }
}
