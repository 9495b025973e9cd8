//! What the console, balancing and clients want to know of a pool.

use std::sync::{
    Arc, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use super::Pool;
use crate::{
    protocol::backend,
    server::ServerInfo,
    session::{Parameters, PinSet, request::frames},
};

/// Parameter values whose spelling is remembered per pool.
const MAX_SPELLINGS: usize = 1024;

/// Counts for the console.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolCounts {
    /// Connections lent to clients.
    pub active: usize,
    /// Connections that nobody holds.
    pub idle: usize,
    /// Of these, those that will be tried out before they serve again.
    pub used: usize,
    /// Connections that are being tried out.
    pub tested: usize,
    /// Connections being opened.
    pub login: usize,
    /// Clients that wait.
    pub waiting: usize,
    /// Since when the oldest of them waits, on the process clock.
    pub oldest: Option<u64>,
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
    pub(super) fn new(parameters: Parameters, reported: &[(String, String)]) -> Self {
        let mut others = Vec::new();
        for (name, value) in reported.iter().filter(|(name, _)| parameters.get(name).is_none()) {
            backend::put_parameter_status(&mut others, name, value);
        }
        Self { parameters, others }
    }

    /// The server's major version, if it says so: 19 of `19beta1`.
    #[must_use]
    pub fn version(&self) -> Option<u32> {
        let mut said = frames(&self.others).filter_map(backend::parameter_status);
        let (_, version) = said.find(|(name, _)| *name == "server_version")?;
        let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    }

    /// What the same server says to another user, who has nothing of its own but the name.
    #[must_use]
    pub fn told_to(&self, user: &str) -> Self {
        let mut others = Vec::new();
        for frame in frames(&self.others) {
            match backend::parameter_status(frame) {
                Some(("session_authorization", _)) => {
                    backend::put_parameter_status(&mut others, "session_authorization", user);
                }
                _ => others.extend_from_slice(frame),
            }
        }
        Self { parameters: self.parameters.clone(), others }
    }
}

impl Pool {
    /// What servers of this pool report at login; `None` before the first login.
    #[must_use]
    pub fn greeting(&self) -> Option<Arc<Greeting>> {
        self.greeting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has it no connection, and is there no room for one because other pools of its database or user have them all?
    #[must_use]
    pub fn is_crowded_out(&self) -> bool {
        let state = self.state();
        state.blocked.is_some() && state.queue.waiting() > 0 && state.queue.open() == 0
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

    /// Counts for the console.
    #[must_use]
    pub fn counts(&self) -> PoolCounts {
        let state = self.state();
        let (resting, login) = (state.queue.idle().len(), state.queue.opening());
        let used = state.queue.idle().iter().filter(|rested| rested.must_check).count();
        let lent = state.queue.open().saturating_sub(resting + login);
        let tested = lent.min(self.testing.load(Ordering::Relaxed) as usize);
        PoolCounts {
            active: lent - tested,
            idle: resting,
            used,
            tested,
            login,
            waiting: state.queue.waiting(),
            oldest: state.queue.oldest(),
        }
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
    ///
    /// Returns how many clients keep one now, if this is one more.
    pub fn count_pins(&self, before: PinSet, after: PinSet) -> Option<u32> {
        let pinned = match (before.is_empty(), after.is_empty()) {
            (true, false) => Some(self.pinned_clients.fetch_add(1, Ordering::Relaxed) + 1),
            (false, true) => {
                self.pinned_clients.fetch_sub(1, Ordering::Relaxed);
                None
            }
            _ => None,
        };
        for (number, ((pin, _), count)) in PinSet::LABELS.iter().zip(&self.pins).enumerate() {
            match (before.contains(*pin), after.contains(*pin)) {
                (false, true) => {
                    count.fetch_add(1, Ordering::Relaxed);
                    self.tally.pinned(number);
                }
                (true, false) => {
                    count.fetch_sub(1, Ordering::Relaxed);
                }
                _ => {}
            }
        }
        pinned
    }

    /// Connections that are kept by their clients now, by reason.
    pub fn pin_counts(&self) -> impl Iterator<Item = (&'static str, u32)> {
        let counts = PinSet::LABELS.iter().zip(&self.pins);
        counts.map(|((_, label), count)| (*label, count.load(Ordering::Relaxed)))
    }

    /// Who keeps the connections of this pool, in words; empty if nobody does.
    pub(super) fn pinned(&self) -> String {
        let reasons = self.pin_counts().filter(|(_, count)| *count > 0);
        let reasons: Vec<_> = reasons.map(|(label, count)| format!("{label} {count}")).collect();
        if reasons.is_empty() {
            return String::new();
        }
        format!("server connections of this pool pinned to clients: {} (SHOW PINS)", reasons.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_told_by_its_first_number() {
        for (said, version) in [("19.1", Some(19)), ("19beta1", Some(19)), ("9.6.24 (Debian)", Some(9)), ("soon", None)]
        {
            let reported = [("server_version".to_owned(), said.to_owned())];
            assert_eq!(Greeting::new(Parameters::default(), &reported).version(), version, "{said}");
        }
        assert_eq!(Greeting::new(Parameters::default(), &[]).version(), None);
    }

    #[test]
    fn another_user_is_told_the_same_under_its_own_name() {
        let reported = [("server_version", "17.2"), ("session_authorization", "app"), ("is_superuser", "off")];
        let reported = reported.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let told = Greeting::new(Parameters::default(), &reported).told_to("stranger").others;
        let told: Vec<_> = frames(&told).filter_map(backend::parameter_status).collect();
        assert_eq!(told, [("server_version", "17.2"), ("session_authorization", "stranger"), ("is_superuser", "off")]);
    }
}
