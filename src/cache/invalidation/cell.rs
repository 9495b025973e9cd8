//! One stamp.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What is known of the content of one relation, or of some of its rows.
#[derive(Debug, Default)]
pub(super) struct Cell {
    stamp: AtomicU64,
    in_flight: AtomicU32,
    bumps: AtomicU32,
    written_at: AtomicU64,
}

impl Cell {
    pub(super) fn mark(&self) {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn unmark(&self) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
    }

    /// The time first: whoever captures the moved stamp finds the fence that belongs to it.
    pub(super) fn bump(&self, now: u64, draw: u64) {
        self.written_at.fetch_max(now, Ordering::SeqCst);
        self.stamp.fetch_add(draw, Ordering::SeqCst);
        self.bumps.fetch_add(1, Ordering::Relaxed);
    }

    /// The stamp, unless a write is in flight. The count is read first, see the module's argument.
    pub(super) fn settled_stamp(&self) -> Option<u64> {
        (self.in_flight.load(Ordering::SeqCst) == 0).then(|| self.stamp.load(Ordering::SeqCst))
    }

    /// The sum so far, whoever writes meanwhile.
    pub(super) fn stamp(&self) -> u64 {
        self.stamp.load(Ordering::SeqCst)
    }

    /// Goes on from another proxy's sum.
    pub(super) fn set_stamp(&self, stamp: u64) {
        self.stamp.store(stamp, Ordering::SeqCst);
    }

    /// When its last write had been acknowledged; read it after the stamp it belongs to.
    pub(super) fn written_at(&self) -> u64 {
        self.written_at.load(Ordering::SeqCst)
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn bumps(&self) -> u32 {
        self.bumps.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_in_flight_hides_the_stamp_until_the_last_mark_is_gone() {
        let cell = Cell::default();
        cell.mark();
        cell.mark();
        cell.unmark();
        assert_eq!(cell.settled_stamp(), None);
        cell.unmark();
        assert_eq!(cell.settled_stamp(), Some(0));
    }

    #[test]
    fn a_bump_moves_the_stamp_and_the_time_only_forward() {
        let cell = Cell::default();
        cell.bump(9, 7);
        cell.bump(8, 1);
        assert_eq!((cell.settled_stamp(), cell.written_at(), cell.bumps()), (Some(8), 9, 2));
    }
}
