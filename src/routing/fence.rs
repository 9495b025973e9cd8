//! What a read must not miss.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::lsn::Lsn;

/// The local time at which the last relevant write had been acknowledged.
///
/// It is a time and no position: the position would cost a round trip per write, and the next sample
/// of the primary resolves any number of fences at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fence(u64);

/// The position a replica must have replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watermark {
    /// Replayed up to here, a replica shows every relevant write; position 0 asks for nothing.
    Known(Lsn),
    /// No sample was sent since the write: only the primary is known to show it.
    Unknown,
}

impl Fence {
    /// No write to wait for.
    pub const NONE: Self = Self(0);

    /// A write was acknowledged at `now`, which must be read after the server's answer arrived.
    pub const fn after(now: u64) -> Self {
        Self(now)
    }

    /// The time of the write in nanoseconds; 0 is no write.
    pub const fn written_at(self) -> u64 {
        self.0
    }

    /// Whether there is nothing to wait for.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The fence that implies both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        self.max(other)
    }
}

/// The fence of everybody's writes to one database (`read_your_writes = database`).
#[derive(Debug)]
pub struct SharedFence(AtomicU64);

impl SharedFence {
    /// Starts at the time of creation: what an earlier process acknowledged counts as written.
    pub fn new(now: u64) -> Self {
        Self(AtomicU64::new(now))
    }

    /// A write was acknowledged at `now`; call it before its client can learn of it.
    pub fn note_write(&self, now: u64) {
        self.0.fetch_max(now, Ordering::SeqCst);
    }

    /// What a read that begins at this moment must not miss.
    pub fn fence(&self) -> Fence {
        Fence(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_fences_together_are_the_later_one() {
        assert_eq!(Fence::after(3).and(Fence::after(9)), Fence::after(9));
        assert_eq!(Fence::after(3).and(Fence::NONE), Fence::after(3));
        assert!(Fence::NONE.and(Fence::NONE).is_none());
    }

    #[test]
    fn a_shared_fence_never_moves_back() {
        let shared = SharedFence::new(5);
        shared.note_write(9);
        shared.note_write(7);
        assert_eq!(shared.fence(), Fence::after(9));
    }
}
