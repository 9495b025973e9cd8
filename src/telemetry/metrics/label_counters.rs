//! Counters of one family that differ in one label whose values are met while running.

use std::sync::OnceLock;

use super::{Counter, SharedMetrics, families::Family};

/// Distinct values counted by name; the rest is counted as `other`.
const SLOTS: usize = 64;

type Slot = OnceLock<(Box<str>, Counter)>;

/// A small append-only table from label value to counter: finding a known value takes no lock and
/// allocates nothing.
pub struct LabelCounters {
    metrics: SharedMetrics,
    family: &'static Family,
    labels: Vec<(&'static str, String)>,
    label: &'static str,
    slots: Box<[Slot]>,
    other: OnceLock<Counter>,
}

impl LabelCounters {
    /// `labels` are fixed, `label` is the one that varies.
    pub fn new(
        metrics: &SharedMetrics,
        family: &'static Family,
        labels: &[(&'static str, &str)],
        label: &'static str,
    ) -> Self {
        Self {
            metrics: SharedMetrics::clone(metrics),
            family,
            labels: labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
            label,
            slots: (0..SLOTS).map(|_| OnceLock::new()).collect(),
            other: OnceLock::new(),
        }
    }

    /// The counter of this value.
    pub fn at(&self, value: &str) -> &Counter {
        let start = start_slot(value);
        let (before, after) = self.slots.split_at(start.min(self.slots.len()));
        for slot in after.iter().chain(before) {
            let (name, counter) = slot.get_or_init(|| (value.into(), self.register(value)));
            if **name == *value {
                return counter;
            }
        }
        self.other.get_or_init(|| self.register("other"))
    }

    fn register(&self, value: &str) -> Counter {
        let fixed = self.labels.iter().map(|(name, value)| (*name, value.as_str()));
        let labels: Vec<_> = fixed.chain([(self.label, value)]).collect();
        self.metrics.counter(self.family, &labels)
    }
}

/// Spreads short labels over the table; good enough for some dozens of them.
fn start_slot(value: &str) -> usize {
    let bytes = value.as_bytes();
    let first = bytes.first().copied().map_or(0, usize::from);
    let last = bytes.last().copied().map_or(0, usize::from);
    (bytes.len() * 31 + first * 7 + last) % SLOTS
}
