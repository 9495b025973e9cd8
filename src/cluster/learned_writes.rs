//! Statements that look like reads, and that a replica has refused as writes.

use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;

use crate::sql::Fingerprint;

/// Shapes that are remembered; further ones are found out each time.
const SHAPES: usize = 10_000;

/// Shapes that replicas have refused with 25006: a function in them writes although it is not marked VOLATILE.
#[derive(Debug, Default)]
pub struct LearnedWrites {
    shapes: DashMap<Fingerprint, (), foldhash::fast::RandomState>,
    /// Asked for each read: nearly always there are none.
    count: AtomicUsize,
}

impl LearnedWrites {
    /// Remembers one.
    pub fn learn(&self, shape: Fingerprint) {
        if self.shapes.len() < SHAPES {
            self.shapes.insert(shape, ());
            self.count.store(self.shapes.len(), Ordering::Release);
        }
    }

    /// None is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// How many are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shapes.len()
    }

    /// Is it one?
    #[must_use]
    pub fn contains(&self, shape: Fingerprint) -> bool {
        !self.is_empty() && self.shapes.contains_key(&shape)
    }

    /// The catalog says something else: functions may have changed.
    pub(super) fn forget(&self) {
        if !self.is_empty() {
            self.shapes.clear();
            self.count.store(0, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_learned_is_bounded_and_can_be_forgotten() {
        let learned = LearnedWrites::default();
        assert!(learned.is_empty() && !learned.contains(Fingerprint(1)));
        for shape in 0..2 * SHAPES as u128 {
            learned.learn(Fingerprint(shape));
        }
        assert_eq!(learned.len(), SHAPES);
        assert!(learned.contains(Fingerprint(7)) && !learned.contains(Fingerprint(SHAPES as u128)));
        learned.forget();
        assert!(learned.is_empty() && !learned.contains(Fingerprint(7)));
    }
}
