//! When Redis is asked, and when it is left alone.
//!
//! ```text
//! Open ── its time is over ──► Trying ── well ──► Closed
//!   ▲                            │ in vain           │ three failures in a row, or the connection is lost
//!   └────────────────────────────┴───────────────────┘
//! ```
//! While it is not closed nobody's query waits for Redis at all: the one trial is the keeper's own.

/// Failures in a row after which it opens.
const FAILURES: u32 = 3;
/// How long it stays open, nanoseconds.
const PAUSE_NS: u64 = 1_000_000_000;
/// By up to so much longer, so that not all proxies come at once.
const JITTER_NS: u64 = 250_000_000;

/// Why Redis is not asked, or a request to it failed: the label of the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It has not been reached since the start.
    Starting,
    /// No connection comes about.
    Connect,
    /// It does not answer in time.
    Timeout,
    /// The connection broke.
    Lost,
    /// It answers with an error: out of memory, not allowed, loading, read-only.
    Refused,
}

impl Cause {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Starting, Self::Connect, Self::Timeout, Self::Lost, Self::Refused];

    /// As in metrics, log and console.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Lost => "connection_lost",
            Self::Refused => "refused",
        }
    }
}

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Everybody may ask; so many requests in a row have failed.
    Closed {
        /// In a row.
        failures: u32,
    },
    /// Nobody asks before then.
    Open {
        /// Nanoseconds on the process clock.
        until: u64,
        /// Why it opened.
        cause: Cause,
    },
    /// One trial is under way.
    Trying {
        /// Why it had opened.
        cause: Cause,
    },
}

/// What came of telling it about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It goes on.
    Nothing,
    /// It has opened just now.
    Opened,
}

/// A circuit breaker; time and randomness are arguments.
#[derive(Debug)]
pub struct Breaker(State);

impl Default for Breaker {
    fn default() -> Self {
        Self(State::Open { until: 0, cause: Cause::Starting })
    }
}

impl Breaker {
    /// Where it stands.
    pub fn state(&self) -> State {
        self.0
    }

    /// Why nobody may ask.
    pub fn refusal(&self) -> Option<Cause> {
        match self.0 {
            State::Closed { .. } => None,
            State::Open { cause, .. } | State::Trying { cause } => Some(cause),
        }
    }

    /// A request has been answered. What was asked before it opened says nothing about now.
    pub fn succeeded(&mut self) {
        if let State::Closed { failures } = &mut self.0 {
            *failures = 0;
        }
    }

    /// A request has failed; `draw` is a random number.
    pub fn failed(&mut self, cause: Cause, now: u64, draw: u64) -> Told {
        let State::Closed { failures } = &mut self.0 else { return Told::Nothing };
        *failures += 1;
        self.0 = match cause {
            // Nobody can be asked without a connection, and a new one may be had at once.
            Cause::Lost => State::Open { until: now, cause },
            _ if *failures >= FAILURES => State::Open { until: end(now, draw), cause },
            _ => return Told::Nothing,
        };
        Told::Opened
    }

    /// When the next trial is due; `None`: there is none to be made.
    pub fn due(&self) -> Option<u64> {
        match self.0 {
            State::Open { until, .. } => Some(until),
            State::Closed { .. } | State::Trying { .. } => None,
        }
    }

    /// Begins the one trial, if it is due.
    pub fn begin_trial(&mut self, now: u64) -> bool {
        match self.0 {
            State::Open { until, cause } if until <= now => {
                self.0 = State::Trying { cause };
                true
            }
            _ => false,
        }
    }

    /// The trial went well, or why not.
    pub fn tried(&mut self, outcome: Result<(), Cause>, now: u64, draw: u64) {
        if matches!(self.0, State::Trying { .. }) {
            self.0 = match outcome {
                Ok(()) => State::Closed { failures: 0 },
                Err(cause) => State::Open { until: end(now, draw), cause },
            };
        }
    }
}

fn end(now: u64, draw: u64) -> u64 {
    now.saturating_add(PAUSE_NS).saturating_add(draw % JITTER_NS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Ok,
        Fail(Cause, u64),
        Begin(u64),
        Tried(Result<(), Cause>, u64),
    }
    use Event::{Begin, Fail, Ok as Fine, Tried};

    /// After its first trial went well, these things happen.
    #[track_caller]
    fn check(events: &[Event], expected: State) {
        let mut breaker = Breaker::default();
        assert!(breaker.begin_trial(0));
        breaker.tried(Ok(()), 0, 0);
        for event in events {
            match *event {
                Fine => breaker.succeeded(),
                Fail(cause, now) => _ = breaker.failed(cause, now, 7),
                Begin(now) => _ = breaker.begin_trial(now),
                Tried(outcome, now) => breaker.tried(outcome, now, 7),
            }
        }
        assert_eq!(breaker.state(), expected, "after {events:?}");
    }

    const TIMEOUT: Cause = Cause::Timeout;

    #[test]
    fn it_begins_open_and_tries_at_once() {
        let breaker = Breaker::default();
        assert_eq!((breaker.refusal(), breaker.due()), (Some(Cause::Starting), Some(0)));
    }

    #[test]
    fn it_opens_after_three_failures_in_a_row_for_a_second_and_a_little() {
        check(&[Fail(TIMEOUT, 1), Fail(TIMEOUT, 2)], State::Closed { failures: 2 });
        check(&[Fail(TIMEOUT, 1), Fail(TIMEOUT, 2), Fine, Fail(TIMEOUT, 3)], State::Closed { failures: 1 });
        let open = State::Open { until: 3 + SECOND + 7, cause: TIMEOUT };
        check(&[Fail(Cause::Refused, 1), Fail(TIMEOUT, 2), Fail(TIMEOUT, 3)], open);
        check(&[Fail(TIMEOUT, 1), Fail(TIMEOUT, 2), Fail(TIMEOUT, 3), Fine, Fail(Cause::Lost, 4)], open);
    }

    #[test]
    fn a_lost_connection_opens_it_at_once_and_a_new_one_is_tried_at_once() {
        check(&[Fail(Cause::Lost, 5)], State::Open { until: 5, cause: Cause::Lost });
    }

    #[test]
    fn one_trial_decides_when_its_time_has_come() {
        let opened = [Fail(TIMEOUT, 1), Fail(TIMEOUT, 1), Fail(TIMEOUT, 1)];
        let until = 1 + SECOND + 7;
        let with = |more: &[Event]| [&opened[..], more].concat();
        check(&with(&[Begin(until - 1)]), State::Open { until, cause: TIMEOUT });
        check(&with(&[Begin(until)]), State::Trying { cause: TIMEOUT });
        check(&with(&[Begin(until), Begin(until + 1), Fine]), State::Trying { cause: TIMEOUT });
        check(&with(&[Begin(until), Tried(Ok(()), until)]), State::Closed { failures: 0 });
        let again = State::Open { until: until + SECOND + 7, cause: Cause::Connect };
        check(&with(&[Begin(until), Tried(Err(Cause::Connect), until)]), again);
        check(&with(&[Tried(Ok(()), until)]), State::Open { until, cause: TIMEOUT });
    }

    #[test]
    fn proxies_that_lost_the_same_redis_do_not_come_back_at_the_same_moment() {
        assert!(end(0, 1) != end(0, 2) && end(0, u64::MAX) < SECOND + JITTER_NS);
    }
}
