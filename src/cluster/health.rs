//! Whether a member is well, by the results of its probes; pure.
//!
//! ```text
//!            rise good probes                 fall bad ones, or one that proves it is gone
//!  Unknown ────────────────────► Up ◄──────────────────────────────────────────┐
//!     │                           │                                            │
//!     └──────── a bad probe ──────┴──► Down(reason) ── good ──► HalfOpen ── rise good in a row
//!                                         ▲                        │
//!                                         └──────── bad ───────────┘
//! ```
//! Health is not capacity: a server without a free slot for a probe is as well as it was.

use crate::control::FailureKind;

/// How many results in a row it takes to change one's mind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Good probes until a member is up; the first counts.
    pub rise: u32,
    /// Bad probes until a member is down, where a single one proves nothing.
    pub fall: u32,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { rise: 2, fall: 3 }
    }
}

/// What is believed of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not asked yet.
    Unknown,
    /// It answers.
    Up,
    /// It answers again, but not for long enough.
    HalfOpen,
    /// It does not serve.
    Down(FailureKind),
}

impl State {
    /// The state's name in the console and in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::HalfOpen => "half_open",
            Self::Down(_) => "down",
        }
    }

    /// Why it is down; empty otherwise.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Down(kind) => kind.label(),
            Self::Unknown | Self::Up | Self::HalfOpen => "",
        }
    }
}

/// A change of state worth a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Before.
    pub from: State,
    /// After.
    pub to: State,
}

/// The health of one member.
#[derive(Clone, Debug)]
pub struct Health {
    thresholds: Thresholds,
    state: State,
    good: u32,
    bad: u32,
}

impl Health {
    /// Nothing is known of the member yet.
    pub fn new(thresholds: Thresholds) -> Self {
        Self { thresholds, state: State::Unknown, good: 0, bad: 0 }
    }

    /// What is believed now.
    pub fn state(&self) -> State {
        self.state
    }

    /// May it be given work?
    pub fn serves(&self) -> bool {
        self.state == State::Up
    }

    /// A probe was answered.
    pub fn succeeded(&mut self) -> Option<Transition> {
        self.bad = 0;
        self.good = self.good.saturating_add(1);
        let has_risen = self.good >= self.thresholds.rise;
        self.enter(match self.state {
            State::Up => State::Up,
            _ if has_risen => State::Up,
            State::Unknown => State::Unknown,
            State::Down(_) | State::HalfOpen => State::HalfOpen,
        })
    }

    /// A probe failed. Logins of clients that fail lead to a ban, which is another matter.
    pub fn failed(&mut self, kind: FailureKind) -> Option<Transition> {
        if !concerns_the_server(kind) {
            return None;
        }
        self.good = 0;
        self.bad = self.bad.saturating_add(1);
        let has_fallen = proves_it_is_gone(kind) || self.bad >= self.thresholds.fall;
        self.enter(match self.state {
            State::Up if !has_fallen => State::Up,
            State::Up | State::Unknown | State::HalfOpen | State::Down(_) => State::Down(kind),
        })
    }

    fn enter(&mut self, to: State) -> Option<Transition> {
        let from = std::mem::replace(&mut self.state, to);
        // Another reason to be down is no event: a restart walks through several.
        let is_same = from.label() == to.label();
        (!is_same).then_some(Transition { from, to })
    }
}

fn concerns_the_server(kind: FailureKind) -> bool {
    !matches!(kind, FailureKind::Full | FailureKind::Proxy)
}

/// Nothing that a second probe could show otherwise: nobody listens, or the server says it takes nobody in.
fn proves_it_is_gone(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::Refused | FailureKind::NotAccepting)
}

#[cfg(test)]
mod tests {
    use super::*;
    use FailureKind::{Full, NotAccepting, Proxy, Refused, Rejected, Timeout};

    /// `None` is a good probe.
    type Result = Option<FailureKind>;
    const GOOD: Result = None;

    #[track_caller]
    fn check(probes: &[Result], state: State) {
        let mut health = Health::new(Thresholds { rise: 2, fall: 3 });
        for probe in probes {
            match probe {
                None => health.succeeded(),
                Some(kind) => health.failed(*kind),
            };
        }
        assert_eq!(health.state(), state, "after {probes:?}");
        assert_eq!(health.serves(), state == State::Up);
    }

    #[test]
    fn a_member_is_up_after_two_good_probes() {
        check(&[], State::Unknown);
        check(&[GOOD], State::Unknown);
        check(&[GOOD, GOOD], State::Up);
    }

    #[test]
    fn one_slow_probe_does_not_take_a_member_out() {
        check(&[GOOD, GOOD, Some(Timeout)], State::Up);
        check(&[GOOD, GOOD, Some(Timeout), Some(Timeout)], State::Up);
        check(&[GOOD, GOOD, Some(Timeout), Some(Timeout), Some(Timeout)], State::Down(Timeout));
    }

    #[test]
    fn only_failures_in_a_row_count() {
        check(&[GOOD, GOOD, Some(Timeout), Some(Timeout), GOOD, Some(Timeout), Some(Timeout)], State::Up);
    }

    #[test]
    fn a_refused_connection_takes_a_member_out_at_once() {
        check(&[GOOD, GOOD, Some(Refused)], State::Down(Refused));
        check(&[GOOD, GOOD, Some(NotAccepting)], State::Down(NotAccepting));
    }

    #[test]
    fn a_member_that_was_never_up_is_down_after_one_failure() {
        check(&[Some(Timeout)], State::Down(Timeout));
        check(&[GOOD, Some(Timeout)], State::Down(Timeout));
    }

    #[test]
    fn a_member_that_comes_back_is_on_probation_first() {
        check(&[Some(Refused), GOOD], State::HalfOpen);
        check(&[Some(Refused), GOOD, GOOD], State::Up);
        check(&[Some(Refused), GOOD, Some(Timeout)], State::Down(Timeout));
        check(&[Some(Refused), GOOD, Some(Timeout), GOOD], State::HalfOpen);
    }

    #[test]
    fn a_full_server_and_our_own_trouble_say_nothing_about_health() {
        check(&[GOOD, GOOD, Some(Full), Some(Full), Some(Full), Some(Full)], State::Up);
        check(&[GOOD, GOOD, Some(Proxy), Some(Proxy), Some(Proxy)], State::Up);
        check(&[Some(Refused), GOOD, Some(Full), GOOD], State::Up);
    }

    #[test]
    fn the_latest_reason_is_shown_but_only_the_change_is_an_event() {
        let mut health = Health::new(Thresholds { rise: 1, fall: 1 });
        let up = health.succeeded();
        assert_eq!(up, Some(Transition { from: State::Unknown, to: State::Up }));
        assert_eq!(health.succeeded(), None);
        let down = health.failed(Refused);
        assert_eq!(down, Some(Transition { from: State::Up, to: State::Down(Refused) }));
        assert_eq!(health.failed(Rejected), None);
        assert_eq!(health.state().reason(), "rejected");
    }
}
