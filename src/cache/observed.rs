//! A cache that keeps no answers: what the one that does would find, judged by the same lookups, stamps and fills.

use std::{
    hash::BuildHasher,
    sync::atomic::{AtomicU64, Ordering},
};

use foldhash::quality::RandomState;

use super::{entry::Entry, invalidation::Cells};
use crate::telemetry::metrics::Absence;

/// Questions remembered, at most, about 300 bytes each. Where more would fit into `[cache] size`, each is taken for
/// larger than it is.
pub const OBSERVED_ENTRIES: u64 = 1 << 16;

/// The name of a question. Two questions of the same name would spoil a figure and nothing else.
pub(super) type Name = [u8; 16];

#[derive(Debug, Default)]
pub(super) struct Observed {
    low: RandomState,
    high: RandomState,
    saved: AtomicU64,
}

impl Observed {
    pub(super) fn name(&self, question: &[u8]) -> Name {
        let [low, high] = [&self.low, &self.high].map(|half| u128::from(half.hash_one(question)));
        (high << 64 | low).to_le_bytes()
    }

    /// An answer would not have been asked for; the server took so many nanoseconds for it.
    pub(super) fn note_saved(&self, nanos: u64) {
        self.saved.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(super) fn saved(&self) -> u64 {
        self.saved.load(Ordering::Relaxed)
    }
}

/// The least that an entry counts for, in bytes, so that no more than [`OBSERVED_ENTRIES`] fit.
pub(super) fn least_weight(capacity_bytes: u64) -> u32 {
    u32::try_from(capacity_bytes.div_ceil(OBSERVED_ENTRIES)).unwrap_or(u32::MAX)
}

/// Why an entry that is there is no answer.
pub(super) fn absence(entry: &Entry, cells: &std::sync::Arc<Cells>, now: u64) -> Absence {
    if entry.is_expired(now) {
        Absence::Expired
    } else if entry.captured.is_of(cells) && entry.captured.is_void_with_everything() {
        Absence::Unforeseen
    } else {
        Absence::Written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_questions_have_equal_names_and_others_have_others() {
        let observed = Observed::default();
        assert_eq!(observed.name(b"one"), observed.name(b"one"));
        assert_ne!(observed.name(b"one"), observed.name(b"two"));
        assert_ne!(observed.name(b"one")[..8], observed.name(b"one")[8..], "two hashes");
    }

    #[test]
    fn no_more_entries_fit_than_may_be_remembered() {
        for capacity in [0, 1, 1 << 20, 256 << 20, 64 << 30] {
            let least = u64::from(least_weight(capacity));
            assert!(least * OBSERVED_ENTRIES >= capacity, "{capacity}");
        }
    }
}
