//! What statements of one shape usually cost the server: a moving figure.

use super::shapes::Shapes;
use crate::sql::Fingerprint;

/// One part in so many of the figure is the newest.
const WEIGHT: i64 = 8;

/// Microseconds per shape.
#[derive(Debug, Default)]
pub(super) struct Costs(Shapes);

impl Costs {
    /// Microseconds; `None` for a shape that nobody has measured.
    pub(super) fn usual(&self, shape: Fingerprint) -> Option<u32> {
        self.0.get(shape)
    }

    /// Another statement of that shape took so long, in microseconds.
    pub(super) fn learn(&self, shape: Fingerprint, cost_us: u32) {
        let figure = match self.usual(shape) {
            Some(usual) => {
                let (usual, cost) = (i64::from(usual), i64::from(cost_us));
                // Rounded away from the figure, so that it arrives.
                let step = (cost - usual + (WEIGHT - 1) * (cost - usual).signum()) / WEIGHT;
                u32::try_from(usual + step).unwrap_or(cost_us)
            }
            None => cost_us,
        };
        self.0.set(shape, figure);
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
}
