//! How long a member is left out that could not be reached.
//!
//! After each failure twice as long, with some jitter; then one client alone tries, and what it finds decides for all.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The first pause, nanoseconds.
const FIRST_NANOS: u64 = 1_000_000_000;
/// No pause is longer.
const LONGEST_NANOS: u64 = 60_000_000_000;
/// So long nobody else tries while one does; then that one has forgotten to say what it found.
const TRIAL_NANOS: u64 = 15_000_000_000;

/// Nobody is left out.
const NONE: u64 = 0;
/// BAN: until UNBAN.
const BY_HAND: u64 = u64::MAX;
/// In the time until which others keep off: somebody tries.
const TRIAL: u64 = 1;

/// A member's ban, if it has one.
#[derive(Debug, Default)]
pub(super) struct Ban {
    /// Nanoseconds on the process clock, or one of the words above.
    until: AtomicU64,
    /// In a row.
    failures: AtomicU32,
}

impl Ban {
    /// The same, for whoever goes on with the member.
    pub(super) fn succeeding(before: &Self) -> Self {
        Self {
            until: AtomicU64::new(before.until.load(Ordering::Acquire)),
            failures: AtomicU32::new(before.failures.load(Ordering::Acquire)),
        }
    }

    /// Is the member left out?
    pub(super) fn holds(&self, now: u64) -> bool {
        now < self.until.load(Ordering::Acquire)
    }

    /// BAN, UNBAN.
    pub(super) fn set_by_hand(&self, is_banned: bool) {
        self.failures.store(0, Ordering::Release);
        self.until.store(if is_banned { BY_HAND } else { NONE }, Ordering::Release);
    }

    /// May one go there who has chosen it? After a ban, one alone.
    pub(super) fn admits(&self, now: u64) -> bool {
        let until = self.until.load(Ordering::Acquire);
        until == NONE || (until <= now && self.replace(until, now.saturating_add(TRIAL_NANOS) | TRIAL))
    }

    /// It was reached.
    pub(super) fn succeeded(&self) {
        let until = self.until.load(Ordering::Acquire);
        if is_trial(until) && self.replace(until, NONE) {
            self.failures.store(0, Ordering::Release);
        }
    }

    /// It could not be reached. Those who fail together are one failure. `draw` is any random number.
    pub(super) fn failed(&self, now: u64, draw: u64) {
        let until = self.until.load(Ordering::Acquire);
        if until == BY_HAND || (now < until && !is_trial(until)) {
            return;
        }
        let failures = self.failures.load(Ordering::Acquire);
        if self.replace(until, now.saturating_add(pause(failures, draw)) & !TRIAL) {
            self.failures.store(failures.saturating_add(1), Ordering::Release);
        }
    }

    /// Whoever was to try has found out nothing: another one tries later.
    pub(super) fn remains(&self, now: u64) {
        let until = self.until.load(Ordering::Acquire);
        if is_trial(until) {
            self.replace(until, now.saturating_add(FIRST_NANOS) & !TRIAL);
        }
    }

    fn replace(&self, before: u64, until: u64) -> bool {
        self.until.compare_exchange(before, until, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

fn is_trial(until: u64) -> bool {
    until != BY_HAND && until & TRIAL == TRIAL
}

/// The pause behind so many failures and one more: three quarters of it for certain.
fn pause(failures: u32, draw: u64) -> u64 {
    let whole = FIRST_NANOS.saturating_mul(1 << failures.min(6)).min(LONGEST_NANOS);
    let quarter = whole / 4;
    whole - quarter + draw.checked_rem(quarter + 1).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    /// The longest of its pause.
    const DRAW: u64 = u64::MAX;

    #[test]
    fn each_failure_leaves_it_out_for_twice_as_long_up_to_a_minute() {
        let quarters = |failures| {
            // Of each pause: nothing of its last quarter, and all of it.
            let draws = [0, SECOND / 4, SECOND / 2, SECOND, 8 * SECOND, 15 * SECOND, DRAW];
            let pauses = draws.map(|draw| pause(failures, draw));
            (pauses.iter().min().unwrap() * 4 / SECOND, pauses.iter().max().unwrap().div_ceil(SECOND))
        };
        let found: Vec<_> = [0, 1, 2, 5, 6, 7, u32::MAX].map(quarters).into();
        assert_eq!(found, [(3, 1), (6, 2), (12, 4), (96, 32), (180, 60), (180, 60), (180, 60)]);
    }

    #[test]
    fn those_who_fail_together_are_one_failure() {
        let ban = Ban::default();
        for now in [100, 110, 120] {
            ban.failed(now, 0);
        }
        assert!(ban.holds(SECOND / 2) && !ban.holds(SECOND));
        assert_eq!(ban.failures.load(Ordering::Acquire), 1);
    }

    #[test]
    fn after_a_ban_one_alone_tries_and_what_it_finds_decides() {
        let ban = Ban::default();
        assert!(ban.admits(0) && ban.admits(0), "nothing has failed");
        ban.failed(0, 0);
        assert!(!ban.admits(SECOND / 2), "left out");
        let later = 2 * SECOND;
        let admitted = (0..16).filter(|_| ban.admits(later)).count();
        assert_eq!(admitted, 1);
        assert!(ban.holds(later), "for everybody else");
        ban.failed(later, 0);
        assert!(ban.holds(later + SECOND) && !ban.holds(later + 2 * SECOND), "twice as long");
        assert!(ban.admits(later + 2 * SECOND));
        ban.succeeded();
        assert!((0..16).all(|_| ban.admits(later + 2 * SECOND)));
        ban.failed(later, 0);
        assert!(!ban.holds(later + SECOND), "from the beginning again");
    }

    #[test]
    fn one_that_says_nothing_of_its_trial_holds_nobody_up_for_long() {
        for says_so in [true, false] {
            let ban = Ban::default();
            ban.failed(0, 0);
            assert!(ban.admits(SECOND));
            if says_so {
                ban.remains(SECOND);
            }
            let again = SECOND + if says_so { FIRST_NANOS } else { TRIAL_NANOS + 1 };
            assert!(!ban.admits(again - 2) && ban.admits(again), "{says_so}");
            assert_eq!(ban.failures.load(Ordering::Acquire), 1);
        }
    }

    #[test]
    fn what_was_banned_by_hand_stays_out_until_that_is_taken_back() {
        let ban = Ban::default();
        ban.failed(0, 0);
        assert!(ban.admits(SECOND));
        ban.set_by_hand(true);
        ban.succeeded();
        ban.failed(2 * SECOND, DRAW);
        ban.remains(2 * SECOND);
        assert!(ban.holds(u64::MAX - 1) && !ban.admits(u64::MAX - 1));
        assert!(Ban::succeeding(&ban).holds(u64::MAX - 1));
        ban.set_by_hand(false);
        assert!(!ban.holds(0) && ban.admits(0) && ban.admits(0));
    }
}
