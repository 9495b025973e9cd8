//! What names were found to mean, for how long that holds, and which address is used next.

use std::{collections::HashMap, net::IpAddr};

/// Names that are remembered; a name that does not fit is looked up each time.
pub(super) const MAX_NAMES: usize = 1000;

/// How long an answer holds, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ttls {
    /// `dns_max_ttl`.
    pub(super) found: u64,
    /// `dns_nxdomain_ttl`.
    pub(super) failed: u64,
}

/// What is known of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Connect to the first of these; the others are for when it does not answer.
    Addresses(Vec<IpAddr>),
    /// It was looked up in vain a moment ago.
    Failed(String),
    /// It has to be looked up.
    Unknown,
}

/// One name, for the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedName {
    /// The name.
    pub name: String,
    /// Nanoseconds until it is looked up again.
    pub ttl: u64,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

#[derive(Debug)]
struct Entry {
    found: Result<Vec<IpAddr>, String>,
    /// When that was asked for.
    asked: u64,
    looked_up: u64,
    next: usize,
}

impl Entry {
    fn ttl(&self, ttls: Ttls) -> u64 {
        if self.found.is_ok() { ttls.found } else { ttls.failed }
    }

    fn holds_until(&self, ttls: Ttls) -> u64 {
        self.looked_up.saturating_add(self.ttl(ttls))
    }
}

/// The names of all servers. An answer holds for as long as the settings of the moment say.
#[derive(Debug)]
pub(super) struct DnsCache {
    names: HashMap<String, Entry>,
    ttls: Ttls,
}

impl DnsCache {
    /// Knows nothing.
    #[must_use]
    pub(super) fn new(ttls: Ttls) -> Self {
        Self { names: HashMap::new(), ttls }
    }

    /// Other times, also for what is known already.
    pub(super) fn set_ttls(&mut self, ttls: Ttls) {
        self.ttls = ttls;
    }

    /// Where the next connection to `name` goes: the addresses take turns.
    pub(super) fn next(&mut self, name: &str, now: u64) -> Known {
        let ttls = self.ttls;
        let Some(entry) = self.names.get_mut(name).filter(|entry| now < entry.holds_until(ttls)) else {
            return Known::Unknown;
        };
        match &entry.found {
            Err(error) => Known::Failed(error.clone()),
            Ok(addresses) => {
                let turn = entry.next.checked_rem(addresses.len()).unwrap_or_default();
                entry.next = turn + 1;
                let mut addresses = addresses.clone();
                addresses.rotate_left(turn);
                Known::Addresses(addresses)
            }
        }
    }

    /// The answer of the resolver to who asked it at `asked`. One that was asked before the one that is known changes
    /// nothing: of two at once the slower may have the older answer. Returns the addresses that `name` had and has no longer: a failed look-up takes none
    /// away, because nobody has said that they are wrong.
    pub(super) fn learn(
        &mut self,
        name: &str,
        found: Result<Vec<IpAddr>, String>,
        asked: u64,
        now: u64,
    ) -> Vec<IpAddr> {
        let found = match found {
            Ok(addresses) if addresses.is_empty() => Err("no address".to_owned()),
            Ok(mut addresses) => {
                let mut seen = Vec::with_capacity(addresses.len());
                addresses.retain(|address| {
                    !seen.contains(address) && {
                        seen.push(*address);
                        true
                    }
                });
                Ok(addresses)
            }
            failed => failed,
        };
        let Some(entry) = self.names.get_mut(name) else {
            self.make_room(now);
            if self.names.len() < MAX_NAMES {
                self.names.insert(name.to_owned(), Entry { found, asked, looked_up: now, next: 0 });
            }
            return Vec::new();
        };
        if asked < entry.asked {
            return Vec::new();
        }
        entry.asked = asked;
        let mut gone = Vec::new();
        match (&entry.found, &found) {
            (Ok(before), Ok(after)) => gone.extend(before.iter().filter(|address| !after.contains(address))),
            // What it meant before it failed stays known: it may be back with the same addresses, or without some.
            (Ok(_), Err(_)) => {
                entry.looked_up = now.saturating_sub(self.ttls.found.saturating_sub(self.ttls.failed));
                return gone;
            }
            (Err(_), _) => {}
        }
        entry.found = found;
        entry.looked_up = now;
        gone
    }

    /// Was `address` among those that were found last? True where nothing was found.
    #[must_use]
    pub(super) fn means(&self, name: &str, address: IpAddr) -> bool {
        let Some(Ok(addresses)) = self.names.get(name).map(|entry| &entry.found) else { return true };
        addresses.contains(&address)
    }

    fn make_room(&mut self, now: u64) {
        if self.names.len() >= MAX_NAMES {
            let ttls = self.ttls;
            self.names.retain(|_, entry| now < entry.holds_until(ttls));
        }
    }

    /// Does the answer hold no longer, so that a name in use should be looked up again?
    #[must_use]
    pub(super) fn is_stale(&self, name: &str, now: u64) -> bool {
        self.names.get(name).is_some_and(|entry| now >= entry.holds_until(self.ttls))
    }

    /// Every name that is known, in order.
    #[must_use]
    pub(super) fn names(&self, now: u64) -> Vec<CachedName> {
        let row = |(name, entry): (&String, &Entry)| CachedName {
            name: name.clone(),
            ttl: entry.holds_until(self.ttls).saturating_sub(now),
            addresses: entry.found.clone().unwrap_or_default(),
        };
        let mut names: Vec<_> = self.names.iter().map(row).collect();
        names.sort_by(|left, right| left.name.cmp(&right.name));
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTLS: Ttls = Ttls { found: 15, failed: 5 };

    const NOBODY: [IpAddr; 0] = [];

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn knowing(addresses: &[u8]) -> DnsCache {
        let mut cache = DnsCache::new(TTLS);
        assert_eq!(cache.learn("db", Ok(addresses.iter().map(|last| ip(*last)).collect()), 0, 0), NOBODY);
        cache
    }

    #[test]
    fn an_answer_holds_for_its_time_and_not_longer() {
        let mut cache = knowing(&[1]);
        assert_eq!(cache.next("other", 0), Known::Unknown);
        assert_eq!(cache.next("db", 14), Known::Addresses(vec![ip(1)]));
        assert!(!cache.is_stale("db", 14));
        assert_eq!(cache.next("db", 15), Known::Unknown);
        assert!(cache.is_stale("db", 15));
    }

    #[test]
    fn a_failure_holds_for_a_time_of_its_own() {
        let mut cache = DnsCache::new(TTLS);
        cache.learn("db", Err("unknown name".to_owned()), 0, 0);
        assert_eq!(cache.next("db", 4), Known::Failed("unknown name".to_owned()));
        assert_eq!(cache.next("db", 5), Known::Unknown);
        cache.learn("db", Ok(Vec::new()), 5, 5);
        assert_eq!(cache.next("db", 6), Known::Failed("no address".to_owned()));
    }

    #[test]
    fn several_addresses_take_turns_and_one_named_twice_has_one_turn() {
        let mut cache = knowing(&[1, 2, 1, 3]);
        let turns: Vec<_> = (0..4).map(|_| cache.next("db", 1)).collect();
        let expected = [[1, 2, 3], [2, 3, 1], [3, 1, 2], [1, 2, 3]];
        assert_eq!(turns, expected.map(|turn| Known::Addresses(turn.map(ip).to_vec())));
    }

    #[test]
    fn addresses_that_are_gone_are_named_and_those_that_stay_are_not() {
        let mut cache = knowing(&[1, 2]);
        assert_eq!(cache.learn("db", Ok(vec![ip(2), ip(3)]), 15, 15), [ip(1)]);
        assert!(cache.means("db", ip(3)) && !cache.means("db", ip(1)));
        assert!(cache.means("other", ip(1)), "nobody has been asked");
        assert_eq!(cache.learn("db", Ok(vec![ip(3), ip(2)]), 30, 30), NOBODY);
    }

    #[test]
    fn of_two_look_ups_at_once_the_one_that_asked_later_is_believed() {
        let mut cache = knowing(&[1]);
        assert_eq!(cache.learn("db", Ok(vec![ip(2)]), 17, 18), [ip(1)]);
        assert_eq!(cache.learn("db", Ok(vec![ip(1)]), 16, 19), NOBODY);
        assert_eq!(cache.learn("db", Err("timeout".to_owned()), 16, 20), NOBODY);
        assert_eq!(cache.next("db", 21), Known::Addresses(vec![ip(2)]));
        assert_eq!(cache.next("db", 33), Known::Unknown, "it is as old as its own answer");
    }

    #[test]
    fn a_look_up_that_fails_takes_no_address_away_and_is_repeated_sooner() {
        let mut cache = knowing(&[1]);
        assert_eq!(cache.learn("db", Err("timeout".to_owned()), 15, 15), NOBODY);
        assert_eq!(cache.next("db", 19), Known::Addresses(vec![ip(1)]));
        assert_eq!(cache.next("db", 20), Known::Unknown);
        assert!(cache.means("db", ip(1)));
        assert_eq!(cache.learn("db", Ok(vec![ip(2)]), 20, 20), [ip(1)]);
    }

    #[test]
    fn other_times_hold_for_what_is_known_already() {
        let mut cache = knowing(&[1]);
        cache.set_ttls(Ttls { found: 3, failed: 1 });
        assert_eq!(cache.next("db", 3), Known::Unknown);
    }

    #[test]
    fn names_beyond_the_bound_are_not_remembered_until_others_are_old() {
        let mut cache = DnsCache::new(TTLS);
        for number in 0..MAX_NAMES {
            cache.learn(&number.to_string(), Ok(vec![ip(1)]), 0, 0);
        }
        cache.learn("late", Ok(vec![ip(1)]), 1, 1);
        assert_eq!(cache.next("late", 1), Known::Unknown);
        cache.learn("late", Ok(vec![ip(1)]), 15, 15);
        assert_eq!(cache.names(15).len(), 1);
    }
}
