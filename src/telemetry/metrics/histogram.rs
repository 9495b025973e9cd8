//! Durations in explicit buckets of seconds.
//!
//! The exporter's own histogram keeps every sample, with a time read for each, until the next
//! drain. At some ten thousand requests a second that is memory without a bound and a clock call
//! per request; fixed buckets are two relaxed adds and constant memory.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use metrics::Key;

use super::{
    exposition::{Exposition, Value},
    families::{Family, Kind},
};

/// Upper bounds in microseconds with their spelling in seconds.
pub const BUCKET_BOUNDS: [(u64, &str); 18] = [
    (100, "0.0001"),
    (250, "0.00025"),
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (2_500_000, "2.5"),
    (5_000_000, "5"),
    (10_000_000, "10"),
    (30_000_000, "30"),
    (60_000_000, "60"),
];

/// A histogram handle; clones share the buckets.
#[derive(Clone, Debug, Default)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug, Default)]
struct Buckets {
    /// The last one is `+Inf`.
    counts: [AtomicU64; BUCKET_BOUNDS.len() + 1],
    sum_nanos: AtomicU64,
}

impl Histogram {
    /// One more duration.
    pub fn record(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let index = BUCKET_BOUNDS.partition_point(|(bound, _)| bound * 1000 < nanos);
        if let Some(count) = self.0.counts.get(index) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.0.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.0.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

/// Those of the family that hold anything.
pub(super) fn render(text: &mut Exposition, family: &Family, series: &[(Key, Histogram)]) {
    if family.kind != Kind::Histogram {
        return;
    }
    let used = |(key, histogram): &&(Key, Histogram)| key.name() == family.name && histogram.count() > 0;
    let mut used = series.iter().filter(used).peekable();
    if used.peek().is_some() {
        text.family(family.name, "histogram", family.help);
    }
    for (key, histogram) in used {
        let labels: Vec<(&str, &str)> = key.labels().map(|l| (l.key(), l.value())).collect();
        render_one(text, family.name, &labels, histogram);
    }
}

fn render_one(text: &mut Exposition, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
    let bounds = BUCKET_BOUNDS.iter().map(|(_, spelled)| *spelled).chain(["+Inf"]);
    let mut cumulated = 0;
    let bucket_name = format!("{name}_bucket");
    for (bound, count) in bounds.zip(&histogram.0.counts) {
        cumulated += count.load(Ordering::Relaxed);
        let labels: Vec<_> = labels.iter().copied().chain([("le", bound)]).collect();
        text.sample(&bucket_name, &labels, Value::Count(cumulated));
    }
    let seconds = Duration::from_nanos(histogram.0.sum_nanos.load(Ordering::Relaxed)).as_secs_f64();
    text.sample(&format!("{name}_sum"), labels, Value::Number(seconds));
    // Not `count()`: a record between the two readings would make `+Inf` and `_count` differ.
    text.sample(&format!("{name}_count"), labels, Value::Count(cumulated));
}
