//! One figure per shape of statement, in a table of fixed size.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::sql::Fingerprint;

const SLOTS: usize = 4096;

/// A shape that falls on the place of another one takes it: the other is unknown from then on.
#[derive(Debug)]
pub(super) struct Shapes {
    /// Half of the fingerprint, then the figure; 0 is nobody.
    slots: Box<[AtomicU64]>,
}

impl Default for Shapes {
    fn default() -> Self {
        Self { slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }
}

fn tag(shape: Fingerprint) -> u32 {
    ((shape.0 >> 32) as u32).max(1)
}

impl Shapes {
    /// `None` for a shape of which nothing is known.
    pub(super) fn get(&self, shape: Fingerprint) -> Option<u32> {
        let known = self.slot(shape)?.load(Ordering::Relaxed);
        ((known >> 32) as u32 == tag(shape)).then_some(known as u32)
    }

    /// Of two that set it at the same moment one may be forgotten.
    pub(super) fn set(&self, shape: Fingerprint, figure: u32) {
        let Some(slot) = self.slot(shape) else { return };
        slot.store(u64::from(tag(shape)) << 32 | u64::from(figure), Ordering::Relaxed);
    }

    fn slot(&self, shape: Fingerprint) -> Option<&AtomicU64> {
        self.slots.get(shape.0 as usize % SLOTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_that_takes_the_place_of_another_is_not_taken_for_it() {
        let table = Shapes::default();
        let shape = Fingerprint(0x1234_5678_9abc_def0_0000_0007);
        let other = Fingerprint(shape.0 + (1 << 40));
        table.set(shape, 100);
        assert_eq!((table.get(shape), table.get(other)), (Some(100), None));
        table.set(other, 5);
        assert_eq!((table.get(shape), table.get(other)), (None, Some(5)));
    }
}
