//! Who gets a server connection next: idle ones, room for new ones, and those who wait, oldest first.
//!
//! Pure: the pool carries out what is granted here. `open` counts every connection that exists or is being opened, so
//! the limit is exact.

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
    Open,
}

/// The answer to one who asks.
#[derive(Debug, PartialEq, Eq)]
pub enum CheckOut<S> {
    /// Now.
    Granted(Grant<S>),
    /// Later.
    Wait(Ticket),
}

/// The queue of one pool.
#[derive(Debug)]
pub struct WaitQueue<S> {
    idle: Vec<S>,
    waiting: VecDeque<Ticket>,
    next: u64,
    open: usize,
    opening: usize,
    size: usize,
    max_opening: usize,
    is_paused: bool,
}

impl<S> WaitQueue<S> {
    /// At most `size` connections (0: no limit), of which `max_opening` log in at the same time.
    #[must_use]
    pub fn new(size: usize, max_opening: usize) -> Self {
        Self {
            idle: Vec::new(),
            waiting: VecDeque::new(),
            next: 0,
            open: 0,
            opening: 0,
            size: if size == 0 { usize::MAX } else { size },
            max_opening: max_opening.max(1),
            is_paused: false,
        }
    }

    /// Asks for a connection; among idle ones, the last returned that `prefer` likes, else the last returned.
    pub fn check_out(&mut self, prefer: impl Fn(&S) -> bool) -> CheckOut<S> {
        if self.waiting.is_empty() && !self.is_paused {
            let liked = self.idle.iter().rposition(prefer).or(self.idle.len().checked_sub(1));
            if let Some(at) = liked {
                return CheckOut::Granted(Grant::Server(self.idle.remove(at)));
            }
            if self.may_open() {
                return CheckOut::Granted(self.open_one());
            }
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        self.waiting.push_back(ticket);
        CheckOut::Wait(ticket)
    }

    fn may_open(&self) -> bool {
        self.open < self.size && self.opening < self.max_opening
    }

    fn open_one(&mut self) -> Grant<S> {
        self.open += 1;
        self.opening += 1;
        Grant::Open
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

    /// The next grant that can be made; call until `None` after every change.
    pub fn next_grant(&mut self) -> Option<(Ticket, Grant<S>)> {
        if self.is_paused {
            return None;
        }
        let ticket = *self.waiting.front()?;
        let grant = match self.idle.pop() {
            Some(server) => Grant::Server(server),
            None if self.may_open() => self.open_one(),
            None => return None,
        };
        self.waiting.pop_front();
        Some((ticket, grant))
    }

    /// One who waits gives up; false if it has been granted something already.
    pub fn withdraw(&mut self, ticket: Ticket) -> bool {
        let place = self.waiting.iter().position(|waiting| *waiting == ticket);
        place.is_some_and(|at| self.waiting.remove(at).is_some())
    }

    /// Takes idle connections that `condemn` names, oldest first.
    pub fn take_idle(&mut self, condemn: impl FnMut(&mut S) -> bool) -> Vec<S> {
        self.idle.extract_if(.., condemn).collect()
    }

    /// Changes the limit; idle connections beyond it come back to be closed.
    pub fn resize(&mut self, size: usize) -> Vec<S> {
        self.size = if size == 0 { usize::MAX } else { size };
        let surplus = self.open.saturating_sub(self.size).min(self.idle.len());
        self.idle.drain(..surplus).collect()
    }

    /// More connections exist than the limit allows: it was lowered.
    #[must_use]
    pub fn is_oversized(&self) -> bool {
        self.open > self.size
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

    /// Panics in debug builds if the counts contradict each other.
    pub fn check_invariants(&self) {
        debug_assert!(self.opening <= self.open, "more being opened than exist");
        debug_assert!(self.idle.len() + self.opening <= self.open, "more idle than exist");
        debug_assert!(self.open <= self.size.max(self.open), "beyond the limit");
        debug_assert!(
            self.is_paused || self.waiting.is_empty() || (self.idle.is_empty() && !self.may_open()),
            "one waits although something could be granted"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted<S>(answer: CheckOut<S>) -> Grant<S> {
        match answer {
            CheckOut::Granted(grant) => grant,
            CheckOut::Wait(_) => panic!("had to wait"),
        }
    }

    #[test]
    fn the_oldest_waiter_gets_what_comes_back() {
        let mut queue = WaitQueue::new(1, 1);
        assert_eq!(granted(queue.check_out(|_| true)), Grant::Open);
        queue.opened();
        let (first, second) = (queue.check_out(|_| true), queue.check_out(|_| true));
        queue.check_in('a');
        assert_eq!(Some(first), queue.next_grant().map(|(ticket, _)| CheckOut::Wait(ticket)));
        assert_eq!(queue.next_grant(), None);
        queue.check_in('a');
        assert_eq!(Some(second), queue.next_grant().map(|(ticket, _)| CheckOut::Wait(ticket)));
    }

    #[test]
    fn nobody_overtakes_those_who_wait() {
        let mut queue = WaitQueue::new(1, 1);
        assert_eq!(granted(queue.check_out(|_| true)), Grant::Open);
        queue.opened();
        assert!(matches!(queue.check_out(|_| true), CheckOut::Wait(_)));
        queue.check_in('a');
        assert!(matches!(queue.check_out(|_| true), CheckOut::Wait(_)));
    }

    #[test]
    fn a_failed_login_lets_the_next_one_try() {
        let mut queue = WaitQueue::<char>::new(1, 1);
        assert_eq!(granted(queue.check_out(|_| true)), Grant::Open);
        assert!(matches!(queue.check_out(|_| true), CheckOut::Wait(_)));
        queue.open_failed();
        assert!(matches!(queue.next_grant(), Some((_, Grant::Open))));
    }

    #[test]
    fn one_who_gave_up_is_not_granted_anything() {
        let mut queue = WaitQueue::new(1, 1);
        assert_eq!(granted(queue.check_out(|_| true)), Grant::Open);
        queue.opened();
        let CheckOut::Wait(ticket) = queue.check_out(|_| true) else { panic!("granted beyond the limit") };
        assert!(queue.withdraw(ticket));
        queue.check_in('a');
        assert_eq!(queue.next_grant(), None);
        assert!(!queue.withdraw(ticket));
    }

    #[test]
    fn a_lowered_limit_is_exceeded_until_enough_have_closed() {
        let mut queue = WaitQueue::<char>::new(2, 2);
        for _ in 0..2 {
            assert_eq!(granted(queue.check_out(|_| true)), Grant::Open);
            queue.opened();
        }
        assert_eq!(queue.resize(1), []);
        assert!(queue.is_oversized());
        queue.closed();
        assert!(!queue.is_oversized());
    }

    #[test]
    fn a_paused_queue_grants_nothing_until_it_is_resumed() {
        let mut queue = WaitQueue::<char>::new(1, 1);
        queue.pause(true);
        assert!(matches!(queue.check_out(|_| true), CheckOut::Wait(_)));
        assert_eq!(queue.next_grant(), None);
        queue.pause(false);
        assert!(matches!(queue.next_grant(), Some((_, Grant::Open))));
    }
}
