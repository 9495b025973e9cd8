//! What a failed login means for those who need a connection (`server_login_retry`).

use std::sync::Arc;

use crate::protocol::SqlState;

/// Why the last attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The server's words, or PgBouncer's for a server that cannot be reached.
    pub text: Arc<str>,
    /// The server's code, if it said something.
    pub sqlstate: Option<SqlState>,
    /// The server said no; else it could not be reached.
    pub is_refusal: bool,
}

/// A client that asks now is told so at once?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prospect {
    /// It may wait, or try.
    Open,
    /// It is refused.
    Hopeless,
}

/// The memory of one pool.
#[derive(Debug, Default)]
pub(super) struct LoginRetry {
    failed: Option<(Failure, u64)>,
}

impl LoginRetry {
    /// An attempt failed at `now`; nothing is tried before `retry` has passed. `others` connections of the pool live.
    ///
    /// Returns whether all who wait are to be told: a server that refuses one login refuses all, unless it is only
    /// starting up.
    pub(super) fn failed(&mut self, failure: Failure, now: u64, retry: u64, others: usize) -> bool {
        let is_starting = failure.sqlstate == Some(SqlState::CANNOT_CONNECT_NOW);
        let tells = failure.is_refusal && !is_starting && others == 0;
        self.failed = Some((failure, now.saturating_add(retry)));
        tells
    }

    /// A login succeeded.
    pub(super) fn succeeded(&mut self) {
        self.failed = None;
    }

    /// Nothing is opened before this; 0 if nothing stands in the way.
    pub(super) fn held_until(&self) -> u64 {
        self.failed.as_ref().map_or(0, |(_, until)| *until)
    }

    /// The last attempt failed.
    pub(super) fn last(&self) -> Option<&Failure> {
        self.failed.as_ref().map(|(failure, _)| failure)
    }

    /// For one who asks at `now`, with so many connections that live and logins under way.
    pub(super) fn prospect(&self, now: u64, living: usize, opening: usize) -> Prospect {
        match &self.failed {
            Some((_, until)) if living == 0 && (now < *until || opening > 0) => Prospect::Hopeless,
            _ => Prospect::Open,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable() -> Failure {
        Failure { text: "connect failed".into(), sqlstate: None, is_refusal: false }
    }

    fn refused(sqlstate: &[u8; 5]) -> Failure {
        Failure { text: "no".into(), sqlstate: Some(SqlState(*sqlstate)), is_refusal: true }
    }

    #[test]
    fn those_who_wait_hear_a_refusal_and_keep_waiting_for_a_server_that_cannot_be_reached() {
        for (failure, others, tells) in [
            (refused(b"28P01"), 0, true),
            (refused(b"28P01"), 1, false),
            (refused(b"57P03"), 0, false),
            (unreachable(), 0, false),
        ] {
            assert_eq!(LoginRetry::default().failed(failure.clone(), 0, 15, others), tells, "{failure:?} {others}");
        }
    }

    #[test]
    fn until_the_next_attempt_a_client_without_a_working_server_is_refused_at_once() {
        let mut retry = LoginRetry::default();
        assert_eq!(retry.prospect(0, 0, 1), Prospect::Open, "nothing has failed yet");
        retry.failed(unreachable(), 10, 15, 0);
        assert_eq!(retry.held_until(), 25);
        for (now, living, opening, expected) in [
            (10, 0, 0, Prospect::Hopeless),
            (24, 0, 0, Prospect::Hopeless),
            (24, 1, 0, Prospect::Open),
            (25, 0, 0, Prospect::Open),
            (25, 0, 1, Prospect::Hopeless),
        ] {
            assert_eq!(retry.prospect(now, living, opening), expected, "{now} {living} {opening}");
        }
        retry.succeeded();
        assert_eq!((retry.held_until(), retry.prospect(11, 0, 0)), (0, Prospect::Open));
    }
}
