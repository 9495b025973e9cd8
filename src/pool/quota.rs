//! Limits that several pools share: `max_db_connections` and `max_user_connections`.
//!
//! Pure. A connection counts from the right to open it until it is closed, so the limits are exact. Pools that could
//! not open one are remembered with the time of their oldest waiter; what becomes free goes to the oldest of them
//! that it suffices for.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// Waiters of different pools whose ages differ by less than this are served where a connection is at hand: handing it
/// to the other pool costs a login.
const FAIRNESS_NANOS: u64 = 250_000_000;

/// What connections of one pool count in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The database, all of its members together.
    pub database: Arc<str>,
    /// The user who logs in to the server.
    pub user: Arc<str>,
}

/// A pool, by a number of its own.
pub type PoolNumber = u64;

/// Which limit is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Full {
    /// `max_db_connections`
    pub database: bool,
    /// `max_user_connections`
    pub user: bool,
}

impl Full {
    fn any(self) -> bool {
        self.database || self.user
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Share {
    /// 0 is unlimited.
    limit: usize,
    used: usize,
}

impl Share {
    fn is_full(self) -> bool {
        self.limit > 0 && self.used >= self.limit
    }

    fn is_exceeded(self) -> bool {
        self.limit > 0 && self.used > self.limit
    }
}

#[derive(Debug)]
struct Blocked {
    since: u64,
    claim: Claim,
}

/// Who may open how many.
#[derive(Debug, Default)]
pub struct Quotas {
    databases: HashMap<Arc<str>, Share>,
    users: HashMap<Arc<str>, Share>,
    blocked: BTreeMap<PoolNumber, Blocked>,
}

impl Quotas {
    /// Connections that the database and the user may have; 0 is unlimited.
    pub fn limit(&mut self, claim: &Claim, database: usize, user: usize) {
        self.databases.entry(Arc::clone(&claim.database)).or_default().limit = database;
        self.users.entry(Arc::clone(&claim.user)).or_default().limit = user;
    }

    fn shares(&self, claim: &Claim) -> (Share, Share) {
        let share = |shares: &HashMap<Arc<str>, Share>, name| shares.get(name).copied().unwrap_or_default();
        (share(&self.databases, &claim.database), share(&self.users, &claim.user))
    }

    fn full(&self, claim: &Claim) -> Full {
        let (database, user) = self.shares(claim);
        Full { database: database.is_full(), user: user.is_full() }
    }

    /// Counts one more for `pool`, whose oldest waiter waits since `since` (`None`: nobody waits for it).
    ///
    /// # Errors
    /// There is no room: the pool will be named by [`Self::next_to_wake`] when there is, unless nobody waits.
    pub fn take(&mut self, claim: &Claim, pool: PoolNumber, since: Option<u64>) -> Result<(), Full> {
        let full = self.full(claim);
        let is_behind = |other: &Blocked| since.is_none_or(|since| other.since < since);
        let is_overtaking = || {
            let mut others = self.blocked.iter().filter(|(number, _)| **number != pool);
            others.any(|(_, other)| {
                self.overlap(&other.claim, claim) && is_behind(other) && !self.full(&other.claim).any()
            })
        };
        if full.any() || is_overtaking() {
            if let Some(since) = since {
                self.blocked.insert(pool, Blocked { since, claim: claim.clone() });
            }
            return Err(full);
        }
        self.databases.entry(Arc::clone(&claim.database)).or_default().used += 1;
        self.users.entry(Arc::clone(&claim.user)).or_default().used += 1;
        self.blocked.remove(&pool);
        Ok(())
    }

    /// Do they share a limit?
    fn overlap(&self, one: &Claim, other: &Claim) -> bool {
        let (database, user) = self.shares(one);
        (database.limit > 0 && one.database == other.database) || (user.limit > 0 && one.user == other.user)
    }

    /// One is closed, or was not opened after all.
    pub fn give_back(&mut self, claim: &Claim) {
        for (shares, name) in [(&mut self.databases, &claim.database), (&mut self.users, &claim.user)] {
            if let Some(share) = shares.get_mut(name) {
                debug_assert!(share.used > 0, "more given back than taken");
                share.used = share.used.saturating_sub(1);
                if share.used == 0 && share.limit == 0 {
                    shares.remove(name);
                }
            }
        }
    }

    /// The oldest of the pools that had no room and have some now; it has to ask again.
    pub fn next_to_wake(&mut self) -> Option<PoolNumber> {
        let with_room = self.blocked.iter().filter(|(_, blocked)| !self.full(&blocked.claim).any());
        let oldest = with_room.min_by_key(|(_, blocked)| blocked.since).map(|(pool, _)| *pool)?;
        self.blocked.remove(&oldest);
        Some(oldest)
    }

    /// Nobody waits there any more.
    pub fn forget(&mut self, pool: PoolNumber) {
        self.blocked.remove(&pool);
    }

    /// Must a connection of this pool be closed as it comes back, although `own` (the oldest waiter there) may need
    /// it? Because a limit was lowered, or because it is the turn of one who waits for room elsewhere.
    #[must_use]
    pub fn must_yield(&self, claim: &Claim, pool: PoolNumber, own: Option<u64>) -> bool {
        let (database, user) = self.shares(claim);
        if database.is_exceeded() || user.is_exceeded() {
            return true;
        }
        let is_helped = |other: &Blocked| {
            let full = self.full(&other.claim);
            let by_database = !full.database || other.claim.database == claim.database;
            let by_user = !full.user || other.claim.user == claim.user;
            full.any() && by_database && by_user
        };
        let comes_first = |other: &Blocked| own.is_none_or(|own| other.since.saturating_add(FAIRNESS_NANOS) < own);
        let mut others = self.blocked.iter().filter(|(number, _)| **number != pool);
        others.any(|(_, other)| is_helped(other) && comes_first(other))
    }

    /// Would [`Self::must_yield`] say yes to anybody? Cheap to keep at hand.
    #[must_use]
    pub fn is_tight(&self) -> bool {
        !self.blocked.is_empty() || self.databases.values().chain(self.users.values()).any(|share| share.is_exceeded())
    }

    /// Connections of the database and of the user.
    #[must_use]
    pub fn used(&self, claim: &Claim) -> (usize, usize) {
        let (database, user) = self.shares(claim);
        (database.used, user.used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(database: &str, user: &str) -> Claim {
        Claim { database: database.into(), user: user.into() }
    }

    /// Two users of a database that may have two connections, both taken by the first.
    fn full() -> (Quotas, Claim, Claim) {
        let (first, second) = (claim("db", "u1"), claim("db", "u2"));
        let mut quotas = Quotas::default();
        quotas.limit(&first, 2, 0);
        quotas.limit(&second, 2, 0);
        quotas.take(&first, 1, Some(1)).unwrap();
        quotas.take(&first, 1, Some(1)).unwrap();
        (quotas, first, second)
    }

    const BY_DATABASE: Full = Full { database: true, user: false };

    #[test]
    fn the_pools_of_a_database_share_its_limit_and_those_of_a_user_share_his() {
        let (mut quotas, first, second) = full();
        assert_eq!(quotas.take(&second, 2, Some(5)), Err(BY_DATABASE));
        assert_eq!(quotas.used(&first), (2, 2));
        quotas.limit(&claim("other", "u1"), 0, 2);
        assert_eq!(quotas.take(&claim("other", "u1"), 3, Some(6)), Err(Full { database: false, user: true }));
        assert_eq!(quotas.take(&claim("other", "u2"), 4, Some(6)), Ok(()));
    }

    #[test]
    fn room_goes_to_the_oldest_who_waits_for_it() {
        let (mut quotas, first, second) = full();
        assert_eq!(quotas.take(&second, 2, Some(9)), Err(BY_DATABASE));
        assert_eq!(quotas.take(&claim("db", "u3"), 3, Some(8)), Err(BY_DATABASE));
        assert_eq!(quotas.next_to_wake(), None);
        quotas.give_back(&first);
        assert_eq!(quotas.take(&first, 1, Some(20)), Err(Full::default()), "others wait longer");
        assert_eq!(quotas.next_to_wake(), Some(3));
        assert_eq!(quotas.take(&claim("db", "u3"), 3, Some(8)), Ok(()));
        assert_eq!(quotas.next_to_wake(), None);
    }

    #[test]
    fn one_that_is_woken_and_needs_nothing_leaves_the_room_to_the_next() {
        let (mut quotas, first, second) = full();
        quotas.take(&second, 2, Some(8)).unwrap_err();
        quotas.take(&claim("db", "u3"), 3, Some(9)).unwrap_err();
        quotas.give_back(&first);
        assert_eq!(quotas.next_to_wake(), Some(2));
        assert_eq!(quotas.next_to_wake(), Some(3));
    }

    #[test]
    fn one_for_whom_nobody_waits_never_takes_the_room_of_others_and_is_not_remembered() {
        let (mut quotas, first, second) = full();
        assert_eq!(quotas.take(&second, 2, None), Err(BY_DATABASE));
        quotas.give_back(&first);
        assert_eq!(quotas.next_to_wake(), None);
        quotas.take(&first, 1, Some(3)).unwrap();
        quotas.take(&second, 2, Some(4)).unwrap_err();
        quotas.give_back(&first);
        assert_eq!(quotas.take(&first, 1, None), Err(Full::default()));
    }

    #[test]
    fn a_connection_that_comes_back_is_closed_for_another_pool_that_waits_clearly_longer() {
        let (mut quotas, first, second) = full();
        assert!(!quotas.must_yield(&first, 1, None));
        quotas.take(&second, 2, Some(1000)).unwrap_err();
        assert!(quotas.is_tight());
        assert!(quotas.must_yield(&first, 1, None), "nobody needs it here");
        assert!(!quotas.must_yield(&first, 1, Some(1000 + FAIRNESS_NANOS)));
        assert!(quotas.must_yield(&first, 1, Some(1001 + FAIRNESS_NANOS)));
    }

    #[test]
    fn nothing_is_closed_in_vain() {
        let (mut quotas, first, second) = full();
        quotas.limit(&second, 2, 1);
        quotas.take(&claim("other", "u2"), 4, Some(1)).unwrap();
        assert_eq!(quotas.take(&second, 2, Some(2)), Err(Full { database: true, user: true }));
        assert!(!quotas.must_yield(&first, 1, None), "the user would have no room either");
        quotas.give_back(&claim("other", "u2"));
        assert!(quotas.must_yield(&first, 1, None));
    }

    #[test]
    fn after_a_limit_was_lowered_what_comes_back_is_closed_until_it_is_kept() {
        let (mut quotas, first, _) = full();
        quotas.limit(&first, 1, 0);
        assert!(quotas.must_yield(&first, 1, Some(0)));
        quotas.give_back(&first);
        assert!(!quotas.must_yield(&first, 1, Some(0)));
        assert!(!quotas.is_tight());
    }
}
