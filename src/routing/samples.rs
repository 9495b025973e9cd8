//! The last positions of the primary, by the moment they were asked for.

use std::{
    collections::VecDeque,
    sync::{
        PoisonError, RwLock, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use super::fence::{Fence, Watermark};
use crate::lsn::Lsn;

/// One answer of `pg_current_wal_insert_lsn()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When the query was sent, in nanoseconds.
    pub sent_at: u64,
    /// What it returned, normalised by [`Lsn::end_of_last_record`].
    pub lsn: Lsn,
}

/// A bounded run of primary samples, ordered by time and by position.
///
/// When the sample a fence waits for has left the ring, the oldest one left answers: it was sent
/// later, so its position is higher and asks for more than needed, never for less.
#[derive(Debug)]
pub struct PrimarySamples {
    capacity: usize,
    ring: RwLock<VecDeque<Sample>>,
    /// Read on every routed statement, so kept outside the lock; 0: no sample.
    newest_sent_at: AtomicU64,
}

impl PrimarySamples {
    /// Room for `capacity` samples, at least one.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        Self { capacity, ring: RwLock::new(VecDeque::new()), newest_sent_at: AtomicU64::new(0) }
    }

    /// When the newest sample was sent; `None` before the first one and after a change of primary.
    pub fn newest_sent_at(&self) -> Option<u64> {
        Some(self.newest_sent_at.load(Ordering::SeqCst)).filter(|sent_at| *sent_at != 0)
    }

    /// The newest sample.
    pub fn newest(&self) -> Option<Sample> {
        self.read(|ring| ring.back().copied())
    }

    /// The position a replica must have replayed to show everything before `fence`.
    pub fn resolve(&self, fence: Fence) -> Watermark {
        if fence.is_none() {
            return Watermark::Known(Lsn::default());
        }
        let first_sent_after = |ring: &VecDeque<Sample>| {
            let at = ring.partition_point(|sample| sample.sent_at <= fence.written_at());
            ring.get(at).map(|sample| sample.lsn)
        };
        self.read(first_sent_after).map_or(Watermark::Unknown, Watermark::Known)
    }

    /// Holds the ring still while the members' figures are derived from it.
    pub(super) fn write(&self) -> RingGuard<'_> {
        RingGuard { ring: self.ring.write().unwrap_or_else(PoisonError::into_inner), samples: self }
    }

    fn read<T>(&self, look: impl FnOnce(&VecDeque<Sample>) -> T) -> T {
        look(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The only writer of the ring, for as long as it lives.
pub(super) struct RingGuard<'a> {
    ring: RwLockWriteGuard<'a, VecDeque<Sample>>,
    samples: &'a PrimarySamples,
}

impl RingGuard<'_> {
    /// Adds a sample; `false` when it is out of order and was left out.
    ///
    /// A position below an earlier one means another primary or another timeline, where a
    /// comparison says nothing: the caller announces a change of primary.
    pub(super) fn push(&mut self, sample: Sample) -> bool {
        let in_order = self.ring.back().is_none_or(|last| last.sent_at < sample.sent_at && last.lsn <= sample.lsn);
        if !in_order || sample.sent_at == 0 {
            return false;
        }
        if self.ring.len() == self.samples.capacity {
            self.ring.pop_front();
        }
        self.ring.push_back(sample);
        self.samples.newest_sent_at.store(sample.sent_at, Ordering::SeqCst);
        true
    }

    pub(super) fn clear(&mut self) {
        self.ring.clear();
        self.samples.newest_sent_at.store(0, Ordering::SeqCst);
    }

    /// The newest sample at or below `replayed`, and the oldest one above it.
    pub(super) fn around(&self, replayed: Lsn) -> (Option<Sample>, Option<Sample>) {
        let above = self.ring.partition_point(|sample| sample.lsn <= replayed);
        let covered = above.checked_sub(1).and_then(|at| self.ring.get(at));
        (covered.copied(), self.ring.get(above).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(capacity: usize, positions: &[(u64, u64)]) -> PrimarySamples {
        let samples = PrimarySamples::new(capacity);
        for (sent_at, lsn) in positions {
            assert!(samples.write().push(Sample { sent_at: *sent_at, lsn: Lsn::new(*lsn) }));
        }
        samples
    }

    #[track_caller]
    fn check(samples: &PrimarySamples, written_at: u64, expected: Watermark) {
        assert_eq!(samples.resolve(Fence::after(written_at)), expected);
    }

    #[test]
    fn a_fence_is_the_first_sample_sent_after_the_write() {
        let samples = samples(8, &[(10, 100), (20, 200), (30, 200), (40, 300)]);
        check(&samples, 9, Watermark::Known(Lsn::new(100)));
        check(&samples, 10, Watermark::Known(Lsn::new(200)));
        check(&samples, 35, Watermark::Known(Lsn::new(300)));
    }

    #[test]
    fn a_sample_sent_at_the_very_moment_of_the_write_proves_nothing() {
        check(&samples(8, &[(10, 100)]), 10, Watermark::Unknown);
    }

    #[test]
    fn a_write_after_the_last_sample_is_unresolved() {
        check(&samples(8, &[(10, 100)]), 11, Watermark::Unknown);
        check(&samples(8, &[]), 1, Watermark::Unknown);
    }

    #[test]
    fn no_write_asks_for_nothing_even_without_samples() {
        check(&samples(8, &[]), 0, Watermark::Known(Lsn::default()));
    }

    #[test]
    fn a_fence_older_than_the_ring_waits_for_the_oldest_sample_left() {
        let samples = samples(2, &[(10, 100), (20, 200), (30, 300)]);
        check(&samples, 5, Watermark::Known(Lsn::new(200)));
    }

    #[test]
    fn a_sample_out_of_order_is_left_out() {
        let samples = samples(8, &[(10, 100)]);
        for (sent_at, lsn) in [(10, 200), (9, 200), (20, 99), (0, 0)] {
            assert!(!samples.write().push(Sample { sent_at, lsn: Lsn::new(lsn) }));
        }
        assert_eq!(samples.newest_sent_at(), Some(10));
    }
}
