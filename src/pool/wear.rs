//! When a server connection has served long enough.

/// Lives that end at the same time are spread over this part of a lifetime behind it.
const SPREAD: u64 = 10;

/// Why an idle connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worn {
    /// Its address, its host or its settings are others by now, or the console said so.
    CloseNeeded,
    /// It has closed, or said something unasked.
    Dirty,
    /// `server_idle_timeout`
    Idle,
    /// `server_lifetime`
    Lifetime,
    /// The limits were lowered.
    Oversized,
    /// For another pool that waits.
    Evicted,
    /// PAUSE
    Paused,
    /// Its client could not leave it behind clean.
    Tainted,
    /// `server_check_query` failed.
    CheckFailed,
    /// The pool is gone.
    Closed,
}

impl Worn {
    /// As PgBouncer logs it.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::CloseNeeded => "database configuration changed",
            Self::Dirty => "server conn crashed?",
            Self::Idle => "server idle timeout",
            Self::Lifetime => "server lifetime over",
            Self::Oversized => "too many servers in the pool",
            Self::Evicted => "evicted",
            Self::Paused => "pause mode",
            Self::Tainted => "unclean server",
            Self::CheckFailed => "test query failed",
            Self::Closed => "connect string changed",
        }
    }
}

/// The limits of a connection's life, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    /// `server_lifetime`; 0: one use.
    pub(super) lifetime: u64,
    /// `server_idle_timeout`; 0: never.
    pub(super) idle_timeout: u64,
    /// `pool_size`; 0: no limit.
    pub(super) pool_size: usize,
}

impl Life {
    /// Has connection number `id` lived long enough at this `age`? A pool that was filled at once is not emptied at
    /// once: each gets a little more than its lifetime, always the same for the same number, and after one has been
    /// closed, so long ago, the others wait for their turn.
    pub(super) fn is_over(&self, id: u64, age: u64, since_last: u64) -> bool {
        if self.lifetime == 0 {
            return true;
        }
        if age < self.lifetime {
            return false;
        }
        let extra = spread(id) % (self.lifetime / SPREAD + 1);
        let gap = self.lifetime.checked_div(self.pool_size as u64).unwrap_or(0);
        age - self.lifetime >= extra && since_last >= gap
    }

    /// Has it rested long enough, in a pool of `open` connections that keeps `least`?
    pub(super) fn is_idle(&self, rested: u64, open: usize, least: usize) -> bool {
        self.idle_timeout > 0 && rested >= self.idle_timeout && (least == 0 || open > least)
    }
}

/// Numbers in a row become numbers all over the place.
fn spread(id: u64) -> u64 {
    let mixed = (id ^ (id >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Life = Life { lifetime: 1000, idle_timeout: 50, pool_size: 20 };

    #[test]
    fn no_life_is_shorter_than_the_lifetime_or_more_than_a_tenth_longer() {
        for id in 0..1000 {
            assert!(!LIFE.is_over(id, 999, u64::MAX), "{id}");
            assert!(LIFE.is_over(id, 1100, u64::MAX), "{id}");
        }
    }

    #[test]
    fn lives_that_began_together_do_not_end_together() {
        let over_at = |age| (0..1000).filter(|id| LIFE.is_over(*id, age, u64::MAX)).count();
        assert!((300..700).contains(&over_at(1050)), "{}", over_at(1050));
        assert!(over_at(1000) < 50);
    }

    #[test]
    fn after_one_has_been_closed_the_next_waits_for_its_turn() {
        assert!(!LIFE.is_over(1, 5000, 49));
        assert!(LIFE.is_over(1, 5000, 50));
        assert!(Life { pool_size: 0, ..LIFE }.is_over(1, 5000, 0));
    }

    #[test]
    fn without_a_lifetime_one_use_is_enough() {
        assert!(Life { lifetime: 0, ..LIFE }.is_over(1, 0, 0));
    }

    #[test]
    fn those_that_are_to_be_kept_may_rest_for_ever() {
        for (rested, open, least, expected) in
            [(49, 9, 0, false), (50, 9, 0, true), (50, 3, 3, false), (50, 4, 3, true), (50, 1, 0, true)]
        {
            assert_eq!(LIFE.is_idle(rested, open, least), expected, "{rested} {open} {least}");
        }
        assert!(!Life { idle_timeout: 0, ..LIFE }.is_idle(u64::MAX, 9, 0));
    }
}
