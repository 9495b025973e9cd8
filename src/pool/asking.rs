//! How a client gets a connection of a pool: at once, or after it has waited for one.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};

use super::{
    CheckoutError, Pool,
    lending::{Rested, State},
    opening::Refusal,
    retry::Prospect,
    upkeep::note_closed,
    wait_queue::{CheckOut, Grant, Ticket},
    wear::Worn,
};
use crate::server::{Idle, ServerConnection};

/// What a waiter hears.
#[derive(Debug)]
pub(super) enum Told {
    /// It gets this.
    Granted(Grant<Rested>),
    /// The server refuses everybody.
    Refused(Refusal),
    /// See [`Pool::depose`].
    Moved,
}

/// How a waiter is reached.
#[derive(Debug)]
pub(super) struct Waiter {
    pub told: oneshot::Sender<Told>,
    /// See [`Asking::patience`].
    pub patience: Patience,
}

/// Who asks for a connection.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    /// Its worker.
    pub worker: usize,
    /// It waits no longer than this; zero: for ever, or until it loses patience by itself.
    pub wait: Duration,
    /// Rather this one than another, if it is idle.
    pub wanted: Option<u64>,
    /// Whether it goes on waiting while the server cannot be reached.
    pub patience: Patience,
}

/// How long one waits for a server that cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// It is told at once: another member serves it.
    None,
    /// It waits, unless it is known already that no login succeeds.
    UntilHopeless,
    /// It waits in any case: another member may take this one's place.
    ForFailover,
}

/// A place in the queue, given up when the client stops waiting.
struct Place {
    pool: Arc<Pool>,
    ticket: Ticket,
    granted: oneshot::Receiver<Told>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pool.withdraw(self.ticket);
        // What is on its way arrives now, or not at all.
        self.granted.close();
        if let Ok(Told::Granted(grant)) = self.granted.try_recv() {
            self.pool.take_back(grant);
        }
    }
}

/// A connection on its way.
pub type CheckingOut = Pin<Box<dyn Future<Output = Result<ServerConnection<Idle>, CheckoutError>> + Send>>;

/// What a client that asked for a connection gets.
pub enum CheckedOut {
    /// An idle one.
    Now(ServerConnection<Idle>),
    /// A new one, or one that another client gives back. Cancel safe: a client that stops waiting loses nobody's
    /// connection.
    Later(CheckingOut),
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

/// One who has asked before waits since then, and keeps the place.
#[derive(Clone, Copy)]
struct Again {
    since: u64,
    /// How often the pool had been deposed when it asked first.
    depositions: u64,
}

impl Pool {
    /// A connection for a client: an idle one, a new one, or one that another client gives back.
    ///
    /// # Errors
    /// See [`CheckoutError`].
    pub fn check_out(self: &Arc<Self>, asking: Asking) -> Result<CheckedOut, CheckoutError> {
        loop {
            match self.ask(asking, None)? {
                (Answer::Granted(Grant::Server(rested)), _) if !rested.must_check => {
                    if let Some(server) = self.wake(rested, asking.worker) {
                        return Ok(CheckedOut::Now(server));
                    }
                }
                // What takes its time is kept apart: nearly every request needs none of it.
                (answer, depositions) => {
                    return Ok(CheckedOut::Later(Box::pin(Arc::clone(self).obtain(answer, asking, depositions))));
                }
            }
        }
    }

    /// `None` if it has gone meanwhile, or cannot follow its client to another worker.
    fn wake(&self, mut rested: Rested, worker: usize) -> Option<ServerConnection<Idle>> {
        let close_needed = rested.server.core().info.close_needed.load(Ordering::Relaxed);
        if close_needed || !rested.server.is_reusable() {
            note_closed(&rested.server, if close_needed { Worn::CloseNeeded } else { Worn::Dirty });
            return None;
        }
        if rested.server.core().worker == worker {
            return Some(rested.server);
        }
        match rested.server.rehome(worker) {
            Ok(server) => Some(server),
            Err(error) => {
                tracing::warn!(%error, "server connection not moved to its new worker");
                None
            }
        }
    }

    async fn obtain(
        self: Arc<Self>,
        mut answer: Answer,
        asking: Asking,
        depositions: u64,
    ) -> Result<ServerConnection<Idle>, CheckoutError> {
        let since = self.clock.now();
        loop {
            let grant = match answer {
                Answer::Granted(grant) => grant,
                Answer::Wait(place) => self.wait(place, since, asking.wait).await?,
            };
            match grant {
                Grant::Open { from_reserve } => {
                    if from_reserve {
                        tracing::warn!(db = %self.key.database, user = %self.key.user, "taking connection from reserve_pool");
                    }
                    match self.open(asking.worker).await {
                        Ok(server) => return Ok(server),
                        Err(tried) if tried.is_final || asking.patience == Patience::None => {
                            return Err(tried.error.into());
                        }
                        Err(_) => {}
                    }
                }
                Grant::Server(rested) => {
                    let must_check = rested.must_check;
                    let woken = self.wake(rested, asking.worker);
                    let woken = match woken {
                        Some(server) if must_check => self.check(server).await,
                        woken => woken,
                    };
                    if let Some(server) = woken {
                        return Ok(server);
                    }
                }
            }
            (answer, _) = self.ask(asking, Some(Again { since, depositions }))?;
        }
    }

    /// Also says how often the pool had been deposed by then.
    fn ask(self: &Arc<Self>, asking: Asking, again: Option<Again>) -> Result<(Answer, u64), CheckoutError> {
        let mut state = self.state();
        if state.is_closed {
            return Err(CheckoutError::Closed);
        }
        let depositions = state.depositions;
        if again.is_some_and(|again| again.depositions != depositions) {
            return Err(CheckoutError::Moved);
        }
        let is_near = |rested: &Rested| match asking.wanted {
            Some(id) => rested.server.core().info.id == id,
            None => rested.server.core().worker == asking.worker,
        };
        if again.is_none()
            && let Some(rested) = state.queue.take_rested(is_near)
        {
            return Ok((Answer::Granted(Grant::Server(rested)), depositions));
        }
        let now = self.clock.now();
        state.queue.tick(now);
        let (living, opening) = (state.queue.open() - state.queue.opening(), state.queue.opening());
        if again.is_none()
            && asking.patience != Patience::ForFailover
            && state.retry.prospect(now, living, opening) == Prospect::Hopeless
            && let Some(failure) = state.retry.last()
        {
            return Err(CheckoutError::LoginFailing(failure.clone()));
        }
        let answer = {
            let State { queue, blocked, .. } = &mut *state;
            queue.enlist(again.map_or(now, |again| again.since), |since| self.take(since, blocked))
        };
        let answer = match answer {
            CheckOut::Granted(grant) => Answer::Granted(grant),
            CheckOut::Wait(ticket) => {
                let (told, granted) = oneshot::channel();
                state.waiters.insert(ticket, Waiter { told, patience: asking.patience });
                let full = state.blocked;
                drop(state);
                if let Some(full) = full {
                    self.shares.evict(full, &self.claim, self.number);
                    self.shares.wake();
                }
                Answer::Wait(Place { pool: Arc::clone(self), ticket, granted })
            }
        };
        Ok((answer, depositions))
    }

    async fn wait(&self, mut place: Place, since: u64, wait: Duration) -> Result<Grant<Rested>, CheckoutError> {
        let told = if wait.is_zero() {
            (&mut place.granted).await
        } else {
            let waited = Duration::from_nanos(self.clock.now().saturating_sub(since));
            match timeout(wait.saturating_sub(waited), &mut place.granted).await {
                Ok(told) => told,
                Err(_) => return Err(self.wait_timeout(wait)),
            }
        };
        match told {
            Ok(Told::Granted(grant)) => Ok(grant),
            Ok(Told::Refused(refusal)) => Err(refusal.into()),
            Ok(Told::Moved) => Err(CheckoutError::Moved),
            Err(_) => Err(CheckoutError::Closed),
        }
    }

    /// What a client hears that has waited for so long, and who keeps the connections meanwhile.
    #[must_use]
    pub fn wait_timeout(&self, waited: Duration) -> CheckoutError {
        CheckoutError::WaitTimeout { waited, pins: self.pinned() }
    }
}
