//! What statements of one shape usually cost the server: a moving figure in a table of fixed size.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::sql::Fingerprint;

const SLOTS: usize = 4096;
/// One part in so many of the figure is the newest.
const WEIGHT: i64 = 8;

/// A shape that falls on the place of another one takes it: the other is unknown from then on.
#[derive(Debug)]
pub(super) struct Costs {
    /// Half of the fingerprint, then microseconds; 0 is nobody.
    slots: Box<[AtomicU64]>,
}

impl Default for Costs {
    fn default() -> Self {
        Self { slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }
}

fn tag(shape: Fingerprint) -> u32 {
    ((shape.0 >> 32) as u32).max(1)
}

impl Costs {
    /// Microseconds; `None` for a shape that nobody has measured.
    pub(super) fn usual(&self, shape: Fingerprint) -> Option<u32> {
        let known = self.slot(shape)?.load(Ordering::Relaxed);
        ((known >> 32) as u32 == tag(shape)).then_some(known as u32)
    }

    /// Another statement of that shape took so long, in microseconds. Of two that end at the same moment one may be
    /// forgotten.
    pub(super) fn learn(&self, shape: Fingerprint, cost_us: u32) {
        let Some(slot) = self.slot(shape) else { return };
        let figure = match self.usual(shape) {
            Some(usual) => {
                let (usual, cost) = (i64::from(usual), i64::from(cost_us));
                // Rounded away from the figure, so that it arrives.
                let step = (cost - usual + (WEIGHT - 1) * (cost - usual).signum()) / WEIGHT;
                u32::try_from(usual + step).unwrap_or(cost_us)
            }
            None => cost_us,
        };
        slot.store(u64::from(tag(shape)) << 32 | u64::from(figure), Ordering::Relaxed);
    }

    fn slot(&self, shape: Fingerprint) -> Option<&AtomicU64> {
        self.slots.get(shape.0 as usize % SLOTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Fingerprint = Fingerprint(0x1234_5678_9abc_def0_0000_0007);

    #[track_caller]
    fn check(costs: &[u32], expected: u32) {
        let table = Costs::default();
        costs.iter().for_each(|cost| table.learn(SHAPE, *cost));
        assert_eq!(table.usual(SHAPE), Some(expected), "after {costs:?}");
    }

    #[test]
    fn the_figure_begins_with_the_first_measurement_and_follows_the_later_ones_slowly() {
        assert_eq!(Costs::default().usual(SHAPE), None);
        check(&[100], 100);
        check(&[100, 900], 200);
        check(&[900, 100], 800);
        check(&[100, 101], 101);
        check(&[101, 100], 100);
        check(&[0, u32::MAX], u32::MAX / 8 + 1);
        check(&[u32::MAX, 0], u32::MAX - u32::MAX / 8 - 1);
    }

    #[test]
    fn a_shape_that_takes_the_place_of_another_is_not_taken_for_it() {
        let table = Costs::default();
        let other = Fingerprint(SHAPE.0 + (1 << 40));
        table.learn(SHAPE, 100);
        assert_eq!(table.usual(other), None);
        table.learn(other, 5);
        assert_eq!((table.usual(SHAPE), table.usual(other)), (None, Some(5)));
    }
}
