//! What the hot path holds of a counter.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// A counter: one relaxed atomic add.
///
/// The recorder's own handles cost a virtual call and two adds, so the recorder is told the value
/// when somebody scrapes instead.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Plus one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Plus `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The value so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
