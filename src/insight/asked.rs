//! What came of asking the cache for one query shape, or of only observing what would have come of it.

use std::time::Duration;

use super::{
    Absence, CacheOutcome, RequestRecord,
    advice::{Advice, Judged},
};

/// The reason of a miss whose answer was kept: nothing stood in the way.
const STORED: &str = "stored";
/// The reason of a miss that is no one's fault but that of those who ask.
const SELDOM_REPEATED: &str = "seldom_repeated";

/// Counts of one shape. Plain figures, under the lock of their table.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    pub(super) hits: u64,
    pub(super) would_hits: u64,
    /// On a server connection, of those that would have been answered without one.
    pub(super) saved: Duration,
    pub(super) bypasses: u64,
    misses: u64,
    miss_time: Duration,
    /// Misses whose answer was not kept.
    unkept: u64,
    /// Misses of something that was there and had become void.
    pub(super) voided: u64,
    /// Those of them that had been voided by a write of which nobody knew what it touched.
    pub(super) unsure: u64,
    pub(super) unsure_time: Duration,
    common: Common,
}

/// The reason that more than half of them have, if there is one: a vote that needs one place.
#[derive(Clone, Copy, Debug, Default)]
struct Common {
    reason: &'static str,
    lead: u64,
}

impl Common {
    fn vote(&mut self, reason: &'static str) {
        if self.reason == reason {
            self.lead += 1;
        } else if self.lead == 0 {
            *self = Self { reason, lead: 1 };
        } else {
            self.lead -= 1;
        }
    }
}

impl Asked {
    pub(super) fn count(&mut self, record: &RequestRecord<'_>) {
        match record.cache {
            CacheOutcome::Off => {}
            CacheOutcome::Bypass => {
                self.bypasses += 1;
                self.common.vote(record.cache_reason);
            }
            CacheOutcome::Miss => self.miss(record),
            CacheOutcome::Hit | CacheOutcome::SharedHit | CacheOutcome::Joined => self.hits += 1,
            CacheOutcome::WouldHit => {
                self.would_hits += 1;
                self.saved = self.saved.saturating_add(record.server);
            }
        }
    }

    fn miss(&mut self, record: &RequestRecord<'_>) {
        self.misses += 1;
        self.miss_time = self.miss_time.saturating_add(record.server);
        if record.cache_reason != STORED {
            self.unkept += u64::from(record.cache_reason != SELDOM_REPEATED);
            self.common.vote(record.cache_reason);
        }
        self.voided += u64::from(matches!(record.absence, Some(Absence::Written | Absence::Unforeseen)));
        if record.absence == Some(Absence::Unforeseen) {
            self.unsure += 1;
            self.unsure_time = self.unsure_time.saturating_add(record.server);
        }
    }

    /// The cache was off all the time.
    pub(super) fn is_nothing(&self) -> bool {
        self.asked() == 0 && self.bypasses == 0
    }

    fn asked(&self) -> u64 {
        self.all_hits() + self.misses
    }

    /// Answered, or would have been.
    pub(super) fn all_hits(&self) -> u64 {
        self.hits + self.would_hits
    }

    /// Of those that were asked for; `None` while there are none.
    pub(super) fn hit_ratio(&self) -> Option<f64> {
        (self.asked() > 0).then(|| self.all_hits() as f64 / self.asked() as f64)
    }

    /// Measured where the server was asked all the same; for answers from the cache what a miss has cost on average.
    pub(super) fn all_saved(&self) -> Duration {
        let mean = self.miss_time.as_secs_f64() / self.misses.max(1) as f64;
        let of_hits = Duration::try_from_secs_f64(mean * self.hits as f64).unwrap_or(Duration::MAX);
        self.saved.saturating_add(of_hits)
    }

    /// What stands in the way of most of the others; empty if nothing does.
    pub(super) fn reason(&self) -> &'static str {
        self.common.reason
    }

    /// Larger is sooner: what is gained, then what may be, then what the server spends on it.
    pub(super) fn rank(&self, server: Duration) -> (Duration, Duration, Duration) {
        (self.all_saved(), self.unsure_time, server)
    }

    pub(super) fn advice(&self) -> Advice {
        Advice::of(&Judged {
            hits: self.all_hits(),
            misses: self.misses,
            bypasses: self.bypasses,
            unkept: self.unkept,
            voided: self.voided,
            unsure: self.unsure,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(reasons: &[&'static str], expected: &str) {
        let mut common = Common::default();
        reasons.iter().for_each(|reason| common.vote(reason));
        assert_eq!(common.reason, expected, "{reasons:?}");
    }

    #[test]
    fn the_reason_of_more_than_half_is_the_one_that_is_named() {
        check(&[], "");
        check(&["a"], "a");
        check(&["a", "b", "a"], "a");
        check(&["b", "c", "a", "a", "a"], "a");
        check(&["a", "a", "b", "a", "c", "a", "b"], "a");
    }
}
