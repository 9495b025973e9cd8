//! Who gets a server connection next: idle ones, room for new ones, and those who wait, oldest first.
//!
//! Pure: the pool carries out what is granted here, and passes in the time. `open` counts every connection that exists
//! or is being opened, so the limit is exact. Whether the limits of other pools leave room for one more is asked where
//! one is about to be opened, by `room`.

use std::collections::VecDeque;

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What a waiter gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Grant<S> {
    /// A connection.
    Server(S),
    /// The right to open one.
    Open {
        /// It is beyond `pool_size`.
        from_reserve: bool,
    },
}

/// The answer to one who asks.
#[derive(Debug, PartialEq, Eq)]
pub enum CheckOut<S> {
    /// Now.
    Granted(Grant<S>),
    /// Later.
    Wait(Ticket),
}

/// How many connections there may be, and which of the idle ones goes first. Times are nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// `pool_size`; 0 means no limit.
    pub size: usize,
    /// `reserve_pool_size`.
    pub reserve: usize,
    /// `reserve_pool_timeout`: one who has waited so long may use the reserve; 0: nobody may.
    pub reserve_after: u64,
    /// Logins that may be under way at the same time.
    pub max_opening: usize,
    /// `server_round_robin`: the one that rests longest goes first, else the one that rests shortest.
    pub is_round_robin: bool,
}

impl Shape {
    fn size(&self) -> usize {
        if self.size == 0 { usize::MAX } else { self.size }
    }

    fn most(&self) -> usize {
        self.size().saturating_add(self.reserve)
    }
}

/// The queue of one pool.
#[derive(Debug)]
pub struct WaitQueue<S> {
    /// The one that came back last is the last.
    idle: Vec<S>,
    /// Since when, and who.
    waiting: VecDeque<(u64, Ticket)>,
    next: u64,
    open: usize,
    opening: usize,
    shape: Shape,
    is_paused: bool,
    /// As the last event told it.
    now: u64,
    /// Nothing is opened before.
    held_until: u64,
}

impl<S> WaitQueue<S> {
    /// Nothing is open and nobody waits.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        Self {
            idle: Vec::new(),
            waiting: VecDeque::new(),
            next: 0,
            open: 0,
            opening: 0,
            shape,
            is_paused: false,
            now: 0,
            held_until: 0,
        }
    }

    /// Time passes.
    pub fn tick(&mut self, now: u64) {
        self.now = self.now.max(now);
    }

    /// An idle connection, if nobody waits for one: among those that `prefer` likes if there are any, unless they take
    /// turns.
    pub fn take_rested(&mut self, prefer: impl Fn(&S) -> bool) -> Option<S> {
        if !self.waiting.is_empty() || self.is_paused {
            return None;
        }
        let liked = match self.shape.is_round_robin {
            true => Some(0),
            false => self.idle.iter().rposition(prefer).or(self.idle.len().checked_sub(1)),
        };
        liked.filter(|at| *at < self.idle.len()).map(|at| self.idle.remove(at))
    }

    /// Asks for a connection on behalf of one who has waited since `since`: those who came later stand behind.
    pub fn enlist(&mut self, since: u64, room: impl FnMut(u64) -> bool) -> CheckOut<S> {
        let mut room = room;
        let is_first = self.waiting.front().is_none_or(|(first, _)| since < *first);
        if is_first && !self.is_paused {
            if let Some(server) = self.pop_idle() {
                return CheckOut::Granted(Grant::Server(server));
            }
            if self.may_open(since) && room(since) {
                return CheckOut::Granted(self.open_one());
            }
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        let at = self.waiting.partition_point(|(other, _)| *other <= since);
        self.waiting.insert(at, (since, ticket));
        CheckOut::Wait(ticket)
    }

    fn pop_idle(&mut self) -> Option<S> {
        match self.shape.is_round_robin {
            true if !self.idle.is_empty() => Some(self.idle.remove(0)),
            true => None,
            false => self.idle.pop(),
        }
    }

    /// For one who has waited since `since`.
    fn may_open(&self, since: u64) -> bool {
        let waited = self.now.saturating_sub(since);
        let is_patient = self.shape.reserve_after > 0 && waited >= self.shape.reserve_after;
        let most = if is_patient { self.shape.most() } else { self.shape.size() };
        self.open < most && self.opening < self.shape.max_opening.max(1) && self.now >= self.held_until
    }

    fn open_one(&mut self) -> Grant<S> {
        let from_reserve = self.open >= self.shape.size();
        self.open += 1;
        self.opening += 1;
        Grant::Open { from_reserve }
    }

    /// One more, so that there are at least `least`, though nobody waits for it; true if it shall be opened.
    pub fn fill(&mut self, least: usize, room: impl FnOnce() -> bool) -> bool {
        let is_wanted = self.open < least.min(self.shape.size())
            && self.opening == 0
            && self.waiting.is_empty()
            && !self.is_paused
            && self.now >= self.held_until;
        let is_granted = is_wanted && room();
        if is_granted {
            self.open_one();
        }
        is_granted
    }

    /// A connection comes back, or a grant that reached nobody.
    pub fn check_in(&mut self, server: S) {
        self.idle.push(server);
    }

    /// A right to open was used: the connection exists.
    pub fn opened(&mut self) {
        self.opening -= 1;
    }

    /// A right to open was not used, or did not lead to a connection.
    pub fn open_failed(&mut self) {
        self.opening -= 1;
        self.open -= 1;
    }

    /// A connection is closed.
    pub fn closed(&mut self) {
        self.open -= 1;
    }

    /// Opens nothing before `until`; 0: goes on.
    pub fn hold(&mut self, until: u64) {
        self.held_until = until;
    }

    /// The next grant that can be made; call until `None` after every change.
    pub fn next_grant(&mut self, room: impl FnMut(u64) -> bool) -> Option<(Ticket, Grant<S>)> {
        if self.is_paused {
            return None;
        }
        let mut room = room;
        let (since, ticket) = *self.waiting.front()?;
        let grant = match self.pop_idle() {
            Some(server) => Grant::Server(server),
            None if self.may_open(since) && room(since) => self.open_one(),
            None => return None,
        };
        self.waiting.pop_front();
        Some((ticket, grant))
    }

    /// One who waits gives up; false if it has been granted something already.
    pub fn withdraw(&mut self, ticket: Ticket) -> bool {
        let place = self.waiting.iter().position(|(_, waiting)| *waiting == ticket);
        place.is_some_and(|at| self.waiting.remove(at).is_some())
    }

    /// All who wait give up.
    pub fn clear_waiting(&mut self) {
        self.waiting.clear();
    }

    /// Takes idle connections that `condemn` names, oldest first.
    pub fn take_idle(&mut self, condemn: impl FnMut(&mut S) -> bool) -> Vec<S> {
        self.idle.extract_if(.., condemn).collect()
    }

    /// Changes the limits; idle connections beyond them come back to be closed.
    pub fn resize(&mut self, shape: Shape) -> Vec<S> {
        self.shape = shape;
        let surplus = self.open.saturating_sub(shape.most()).min(self.idle.len());
        self.idle.drain(..surplus).collect()
    }

    /// More connections exist than the limits allow: they were lowered.
    #[must_use]
    pub fn is_oversized(&self) -> bool {
        self.open > self.shape.most()
    }

    /// Grants nothing until resumed.
    pub fn pause(&mut self, is_paused: bool) {
        self.is_paused = is_paused;
    }

    /// Is nothing granted?
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Connections that exist or are being opened.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open
    }

    /// Connections being opened.
    #[must_use]
    pub fn opening(&self) -> usize {
        self.opening
    }

    /// Connections that nobody holds.
    #[must_use]
    pub fn idle(&self) -> &[S] {
        &self.idle
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Since when the oldest waits.
    #[must_use]
    pub fn oldest(&self) -> Option<u64> {
        self.waiting.front().map(|(since, _)| *since)
    }

    /// Panics in debug builds if the counts contradict each other.
    pub fn check_invariants(&self) {
        debug_assert!(self.opening <= self.open, "more being opened than exist");
        debug_assert!(self.idle.len() + self.opening <= self.open, "more idle than exist");
        debug_assert!(
            self.is_paused || self.waiting.is_empty() || self.idle.is_empty(),
            "one waits although a connection is idle"
        );
        debug_assert!(self.waiting.iter().is_sorted_by_key(|(since, _)| since), "the oldest is not first");
    }
}

#[cfg(test)]
mod tests;
