//! What a reader may rely on at this moment, in words. ●

use std::{fmt, time::Duration};

use crate::{cache::invalidation::Closure, cluster::Database, config::ReadYourWrites};

/// The right to answer without asking the other proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lease {
    /// There is nobody to ask.
    None,
    /// For so long.
    Held(Duration),
    /// Some of them may write what is not known here.
    Lost,
}

impl Lease {
    /// Of a database.
    pub(super) fn of(database: &Database, now: u64) -> Self {
        let Some(bus) = database.real.bus() else { return Self::None };
        match bus.trusted_until().checked_sub(now) {
            Some(left) if left > 0 && database.cells.closure() != Some(Closure::Peers) => {
                Self::Held(Duration::from_nanos(left))
            }
            _ => Self::Lost,
        }
    }

    /// The `lease` column.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Held(_) => "held",
            Self::Lost => "lost",
        }
    }

    /// How long it lasts if nobody renews it.
    pub(super) const fn left(self) -> Option<Duration> {
        match self {
            Self::None => None,
            Self::Held(left) => Some(left),
            Self::Lost => Some(Duration::ZERO),
        }
    }
}

/// Whose writes the promise is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writers {
    /// Those of this process.
    ThisProcess,
    /// Those of so many others as well.
    All { others: u64 },
    /// Those of the others are known so long after they were acknowledged, at most.
    Bounded { others: u64, lease: Duration },
}

/// Writes that no proxy has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DirectWrites {
    /// Nobody hears of them; an answer lives that long, or until something else voids it.
    Unheard { ttl: Option<Duration> },
    /// Heard of, so much later at most.
    Heard { bound: Duration },
}

/// What holds; printed, a line of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guarantee {
    /// Answers come from the server.
    NothingIsAnswered(&'static str),
    /// Answers may come from the cache.
    Holds(Promise),
}

/// See [`Guarantee`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Promise {
    reads: ReadYourWrites,
    writers: Writers,
    direct: DirectWrites,
}

/// Of a database at a moment of the process clock.
pub(super) fn guarantee(database: &Database, now: u64) -> Guarantee {
    if database.observes() {
        return Guarantee::NothingIsAnswered("the cache only observes");
    }
    let lease = Lease::of(database, now);
    if let Some(closure) = database.cache_closure(now) {
        return Guarantee::NothingIsAnswered(closure.label());
    }
    if lease == Lease::Lost {
        return Guarantee::NothingIsAnswered(Closure::Peers.label());
    }
    let others = |bus: &crate::cache::bus::Bus| bus.figures().peers;
    let writers = match database.real.bus() {
        None => Writers::ThisProcess,
        Some(bus) if bus.is_strict() => Writers::All { others: others(bus) },
        Some(bus) => Writers::Bounded { others: others(bus), lease: bus.lease() },
    };
    let direct = match &database.settings.direct {
        None => DirectWrites::Unheard { ttl: database.settings.lifetimes.longest().nanos().map(Duration::from_nanos) },
        Some(direct) => DirectWrites::Heard { bound: Duration::from_nanos(direct.max_staleness) },
    };
    Guarantee::Holds(Promise { reads: database.settings.read_your_writes, writers, direct })
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingIsAnswered(why) => write!(f, "nothing is answered from the cache: {why}"),
            Self::Holds(promise) => promise.fmt(f),
        }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = match self.writers {
            Writers::All { others: 1 } => "through this process and 1 other".to_owned(),
            Writers::All { others } if others > 0 => format!("through this process and {others} others"),
            _ => "through this process".to_owned(),
        };
        match self.reads {
            ReadYourWrites::Database => write!(f, "G1: reads include every write acknowledged {whose}")?,
            ReadYourWrites::Session => {
                write!(f, "G1: cached answers include every write acknowledged {whose}, other reads the session's own")?
            }
            ReadYourWrites::Off => write!(
                f,
                "G1: cached answers include every write acknowledged {whose}, other reads are as fresh as max_replica_lag"
            )?,
        }
        f.write_str("; G2: and those that others can see already")?;
        if let Writers::Bounded { others, lease } = self.writers {
            let (they, seconds) = (if others == 1 { "proxy" } else { "proxies" }, lease.as_secs_f64());
            write!(f, "; writes through {others} other {they}: {seconds} s later at most")?;
        }
        match self.direct {
            DirectWrites::Heard { bound } => write!(
                f,
                "; G3: writes that bypass it: {} s later at most; G4: at once where strict is asked for",
                bound.as_secs_f64()
            ),
            DirectWrites::Unheard { ttl: Some(ttl) } => {
                write!(f, "; writes that bypass it: unheard, {} s later at most (ttl)", ttl.as_secs_f64())
            }
            DirectWrites::Unheard { ttl: None } => {
                f.write_str("; writes that bypass it: unheard, without bound (ttl = 0)")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[track_caller]
    fn check(reads: ReadYourWrites, writers: Writers, direct: DirectWrites, expected: &str) {
        let said = Guarantee::Holds(Promise { reads, writers, direct }).to_string();
        assert_eq!(said, expected);
    }

    #[test]
    fn one_process_promises_for_itself_and_says_what_bounds_the_writes_that_it_does_not_hear_of() {
        let unheard = DirectWrites::Unheard { ttl: Some(60 * SECOND) };
        check(
            ReadYourWrites::Database,
            Writers::ThisProcess,
            unheard,
            "G1: reads include every write acknowledged through this process; G2: and those that others can see already; \
             writes that bypass it: unheard, 60 s later at most (ttl)",
        );
        check(
            ReadYourWrites::Session,
            Writers::ThisProcess,
            DirectWrites::Unheard { ttl: None },
            "G1: cached answers include every write acknowledged through this process, other reads the session's own; \
             G2: and those that others can see already; writes that bypass it: unheard, without bound (ttl = 0)",
        );
    }

    #[test]
    fn several_processes_promise_for_each_other_at_once_or_within_a_lease() {
        let heard = DirectWrites::Heard { bound: SECOND };
        check(
            ReadYourWrites::Database,
            Writers::All { others: 2 },
            heard,
            "G1: reads include every write acknowledged through this process and 2 others; G2: and those that others can see \
             already; G3: writes that bypass it: 1 s later at most; G4: at once where strict is asked for",
        );
        check(
            ReadYourWrites::Off,
            Writers::Bounded { others: 1, lease: SECOND / 2 },
            heard,
            "G1: cached answers include every write acknowledged through this process, other reads are as fresh as \
             max_replica_lag; G2: and those that others can see already; writes through 1 other proxy: 0.5 s later at most; \
             G3: writes that bypass it: 1 s later at most; G4: at once where strict is asked for",
        );
    }

    #[test]
    fn where_nothing_is_answered_the_reason_is_all_there_is_to_say() {
        let said = Guarantee::NothingIsAnswered(Closure::Peers.label()).to_string();
        assert_eq!(said, "nothing is answered from the cache: peers_unknown");
    }
}
