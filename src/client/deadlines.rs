//! What a client may take its time for, and how long.
//!
//! A task goes over the clients three times a second and nudges those that look late; nobody sets a timer or reads a
//! clock for a query. Whether a client really is late, by the settings of that moment, its own task decides.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{Client, ClientError, ClientInfo, link::Link, request::WaitsFor};
use crate::{
    config::{Config, PoolMode},
    pool::CheckoutError,
    protocol::{ErrorResponse, TransactionStatus},
};

/// Said once to one who waits for long, in PgBouncer's words.
const QUEUED: &str = "No server connection available in postgres backend, client being queued";

/// Messages that neither Sync nor Flush has followed are held so long: a request is understood as a whole. Who still
/// sends neither may be waiting for an error, which a server tells at once.
const UNENDED_NS: u64 = 100_000_000;

/// Has an extended request gone without its end for so long that the server shall have what there is of it?
fn is_given_up(unended_since: Option<u64>, now: u64) -> bool {
    unended_since.is_some_and(|since| now.saturating_sub(since) > UNENDED_NS)
}

/// A client is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// `query_timeout`: the statement is cancelled.
    Query,
    /// `query_timeout`, while it waited for a server.
    QueryWaiting,
    /// `query_wait_timeout`
    Wait,
    /// `idle_transaction_timeout`
    IdleTransaction,
    /// `transaction_timeout`
    Transaction,
    /// `client_idle_timeout`
    Idle,
    /// `max_pinned_time`
    Pinned,
    /// `server_fast_close`: its server is to be closed.
    ServerReplaced,
}

impl Overdue {
    /// The setting that says how long it may take.
    pub(super) fn setting(self) -> &'static str {
        match self {
            Self::Query | Self::QueryWaiting => "query_timeout",
            Self::Wait => "query_wait_timeout",
            Self::IdleTransaction => "idle_transaction_timeout",
            Self::Transaction => "transaction_timeout",
            Self::Idle => "client_idle_timeout",
            Self::Pinned => "max_pinned_time",
            Self::ServerReplaced => "server_fast_close",
        }
    }

    /// In PgBouncer's words.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Query => "query timeout",
            Self::QueryWaiting => "query_timeout",
            Self::Wait => "query_wait_timeout",
            Self::IdleTransaction => "idle transaction timeout",
            Self::Transaction => "transaction timeout",
            Self::Idle => "client_idle_timeout",
            Self::Pinned => "session state held a server connection for too long (max_pinned_time)",
            Self::ServerReplaced => "database configuration changed",
        }
    }
}

/// What a client does, and since when; nanoseconds on the process clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// It holds no server.
    Idle { since: u64 },
    /// It waits for one.
    Waiting { since: u64 },
    /// A statement runs, in a transaction that began at the second time.
    Running { since: u64, transaction: u64 },
    /// A transaction is open and nothing runs in it.
    InTransaction { since: u64, transaction: u64 },
    /// It keeps a server, outside of a transaction.
    Holding { must_close: bool, pinned_since: Option<u64> },
}

/// The deadlines of one client; `None`: for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Deadlines {
    pub query: Option<u64>,
    pub wait: Option<u64>,
    pub notify: Option<u64>,
    pub idle_transaction: Option<u64>,
    pub transaction: Option<u64>,
    pub idle: Option<u64>,
    pub pinned: Option<u64>,
    pub closes_fast: bool,
}

fn nanos(time: Option<Duration>) -> Option<u64> {
    time.map(crate::clock::nanos)
}

impl Deadlines {
    /// Those of a client that logged in as `user` and whose servers know it as `pool_user`.
    pub(super) fn of(config: &Config, database: &str, user: &str, pool_user: &str) -> Self {
        let main = &config.pgbouncer;
        let wait = config.database(database).and_then(|section| config.query_wait_timeout(&section, user));
        let notify = Duration::from_secs(main.query_wait_notify.into());
        Self {
            query: nanos(config.query_timeout(pool_user)),
            wait: nanos(wait),
            notify: nanos(Some(notify).filter(|notify| !notify.is_zero())),
            idle_transaction: nanos(config.idle_transaction_timeout(pool_user)),
            transaction: nanos(config.transaction_timeout(pool_user)),
            idle: nanos(config.client_idle_timeout(user)),
            pinned: nanos(Some(config.sessions.max_pinned_time).filter(|time| !time.is_zero())),
            closes_fast: main.server_fast_close,
        }
    }

    /// Is a client late that does this?
    pub(super) fn overdue(&self, moment: Moment, now: u64) -> Option<Overdue> {
        let is_over = |since: u64, limit: Option<u64>| limit.is_some_and(|limit| now.saturating_sub(since) > limit);
        let checks: &[(u64, Option<u64>, Overdue)] = match moment {
            Moment::Idle { since } => &[(since, self.idle, Overdue::Idle)],
            Moment::Waiting { since } => {
                &[(since, self.query, Overdue::QueryWaiting), (since, self.wait, Overdue::Wait)]
            }
            Moment::Running { since, transaction } => {
                &[(since, self.query, Overdue::Query), (transaction, self.transaction, Overdue::Transaction)]
            }
            Moment::InTransaction { since, transaction } => &[
                (since, self.idle_transaction, Overdue::IdleTransaction),
                (transaction, self.transaction, Overdue::Transaction),
            ],
            Moment::Holding { must_close: true, .. } if self.closes_fast => return Some(Overdue::ServerReplaced),
            Moment::Holding { pinned_since: Some(since), .. } => &[(since, self.pinned, Overdue::Pinned)],
            Moment::Holding { .. } => &[],
        };
        checks.iter().find(|(since, limit, _)| is_over(*since, *limit)).map(|(_, _, overdue)| *overdue)
    }

    /// Shall one that has waited since then be told so?
    pub(super) fn must_notify(&self, since: u64, now: u64) -> bool {
        self.notify.is_some_and(|notify| now.saturating_sub(since) > notify)
    }
}

/// Nudges every client that looks late.
pub fn enforce(clients: impl Iterator<Item = Arc<ClientInfo>>, config: &Config, now: u64) {
    type Who = (Arc<str>, Arc<str>, Arc<str>);
    let mut known: HashMap<Who, Deadlines> = HashMap::new();
    for client in clients {
        let who = (Arc::clone(&client.database), Arc::clone(&client.user), Arc::clone(client.pool_user()));
        let deadlines = known
            .entry(who)
            .or_insert_with_key(|(database, user, pool_user)| Deadlines::of(config, database, user, pool_user));
        let moment = client.moment();
        let is_notified = matches!(moment, Moment::Waiting { since } if deadlines.must_notify(since, now));
        let is_unended = is_given_up(client.holds_since(), now);
        if is_notified || is_unended || deadlines.overdue(moment, now).is_some() {
            client.nudge();
        }
    }
}

impl Client {
    fn deadlines(&self) -> Deadlines {
        let ClientInfo { database, user, .. } = &*self.info;
        Deadlines::of(&self.context.settings().config, database, user, self.info.pool_user())
    }

    /// After a nudge: is it late, by its own knowledge?
    pub(super) fn check_deadlines(&mut self) -> Result<(), ClientError> {
        if !self.info.take_nudge() {
            return Ok(());
        }
        if self.link.as_ref().is_some_and(Link::is_deposed) {
            return Err(ClientError::Deposed);
        }
        let is_kept = matches!(self.again, super::again::Again::Kept { .. });
        if is_kept && self.link.as_ref().is_some_and(|link| self.is_down(link.member)) {
            return Err(ClientError::ServerGone(std::io::ErrorKind::TimedOut.into()));
        }
        let now = self.context.clock.now();
        self.gives_up_end |= is_given_up(self.info.holds_since(), now);
        let moment = match &self.link {
            None if self.is_unplaced() => {
                Moment::InTransaction { since: self.answered, transaction: self.transaction_started }
            }
            None => Moment::Idle { since: self.answered.max(self.info.connected_at) },
            Some(link) => {
                let waits = self.waits_for == WaitsFor::Settings;
                let began = self.pending.front().map(|pending| pending.started).or(waits.then_some(self.answered));
                let transaction = self.transaction_started.min(began.unwrap_or(u64::MAX));
                match began {
                    Some(began) => Moment::Running { since: began.max(self.answered), transaction },
                    None if link.status != TransactionStatus::Idle => {
                        Moment::InTransaction { since: self.answered, transaction }
                    }
                    None => {
                        let must_close = link.server.core().info.close_needed.load(Ordering::Relaxed);
                        let must_close = must_close && self.pool_mode == PoolMode::Session;
                        Moment::Holding { must_close, pinned_since: self.info.pinned_since() }
                    }
                }
            }
        };
        match self.deadlines().overdue(moment, now) {
            Some(overdue) => Err(ClientError::Overdue(overdue)),
            None => Ok(()),
        }
    }

    /// The same for one who waits for a server since then. True if it is to be told that it waits, which is said once.
    pub(super) fn check_patience(&self, since: u64, was_notified: bool) -> Result<bool, ClientError> {
        let deadlines = self.deadlines();
        let now = self.context.clock.now();
        match deadlines.overdue(Moment::Waiting { since }, now) {
            Some(Overdue::Wait) => Err(CheckoutError::WaitTimeout {
                waited: Duration::from_nanos(now.saturating_sub(since)),
                pins: String::new(),
            }
            .into()),
            Some(overdue) => Err(ClientError::Overdue(overdue)),
            None => Ok(!was_notified && deadlines.must_notify(since, now)),
        }
    }
}

/// Tells a client that it waits.
pub(super) fn put_queued(out: &mut Vec<u8>) {
    ErrorResponse::notice(QUEUED).put(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(deadlines: Deadlines, moment: Moment, now: u64, expected: Option<Overdue>) {
        assert_eq!(deadlines.overdue(moment, now), expected, "{moment:?} at {now}");
    }

    const ALL: Deadlines = Deadlines {
        pinned: Some(10),
        query: Some(10),
        wait: Some(20),
        notify: Some(5),
        idle_transaction: Some(30),
        transaction: Some(40),
        idle: Some(50),
        closes_fast: true,
    };

    #[test]
    fn each_deadline_holds_for_what_it_is_about_and_not_a_moment_earlier() {
        let late = |moment, limit: u64, overdue| {
            check(ALL, moment, 100 + limit, None);
            check(ALL, moment, 101 + limit, Some(overdue));
        };
        late(Moment::Idle { since: 100 }, 50, Overdue::Idle);
        late(Moment::Waiting { since: 100 }, 10, Overdue::QueryWaiting);
        late(Moment::Running { since: 100, transaction: 100 }, 10, Overdue::Query);
        late(Moment::InTransaction { since: 100, transaction: 100 }, 30, Overdue::IdleTransaction);
    }

    #[test]
    fn a_transaction_is_late_whether_it_runs_or_rests() {
        check(ALL, Moment::Running { since: 139, transaction: 100 }, 141, Some(Overdue::Transaction));
        check(ALL, Moment::InTransaction { since: 139, transaction: 100 }, 141, Some(Overdue::Transaction));
    }

    #[test]
    fn one_who_waits_may_be_late_by_either_deadline() {
        let patient = Deadlines { query: None, ..ALL };
        check(patient, Moment::Waiting { since: 0 }, 20, None);
        check(patient, Moment::Waiting { since: 0 }, 21, Some(Overdue::Wait));
        assert!(ALL.must_notify(0, 6) && !ALL.must_notify(0, 5));
        assert!(!Deadlines::default().must_notify(0, u64::MAX));
    }

    #[test]
    fn a_client_that_keeps_a_server_is_not_idle_and_leaves_only_with_one_that_must_close_fast() {
        let holding = |must_close, pinned_since| Moment::Holding { must_close, pinned_since };
        check(ALL, holding(false, None), u64::MAX, None);
        check(ALL, holding(true, None), 0, Some(Overdue::ServerReplaced));
        check(Deadlines { closes_fast: false, ..ALL }, holding(true, None), 0, None);
        check(ALL, holding(false, Some(5)), 15, None);
        check(ALL, holding(false, Some(5)), 16, Some(Overdue::Pinned));
    }

    #[test]
    fn without_settings_nobody_is_ever_late() {
        for moment in [
            Moment::Idle { since: 0 },
            Moment::Waiting { since: 0 },
            Moment::Running { since: 0, transaction: 0 },
            Moment::InTransaction { since: 0, transaction: 0 },
        ] {
            check(Deadlines::default(), moment, u64::MAX, None);
        }
    }

    #[test]
    fn a_user_of_the_client_counts_for_waiting_and_idling_and_the_one_of_the_pool_for_the_rest() {
        let no_file = |_: &str| Err(std::io::ErrorKind::NotFound.into());
        let text = "[databases]\nd = host=h query_wait_timeout=7\n[users]\n\
                    client = client_idle_timeout=1 query_timeout=2 query_wait_timeout=3\n\
                    pool = client_idle_timeout=4 query_timeout=5 idle_transaction_timeout=6 transaction_timeout=8\n\
                    [pgbouncer]\nauth_type = trust\n";
        let config = Config::parse(text, "a.ini", &|_| None, &no_file).unwrap();
        let seconds = |seconds: u64| Some(seconds * 1_000_000_000);
        let expected = Deadlines {
            query: seconds(5),
            wait: seconds(3),
            notify: seconds(5),
            idle_transaction: seconds(6),
            transaction: seconds(8),
            idle: seconds(1),
            pinned: None,
            closes_fast: false,
        };
        assert_eq!(Deadlines::of(&config, "d", "client", "pool"), expected);
        assert_eq!(Deadlines::of(&config, "d", "other", "other").wait, seconds(7));
    }
}
