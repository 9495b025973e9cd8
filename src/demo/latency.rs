//! Latencies in buckets that grow with the value, so that a long demonstration needs no more memory than a short one.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Buckets per doubling: a percentile is at most an eighth above the truth.
const STEPS: u64 = 8;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Up to 2^36 µs, 19 hours.
const BUCKETS: usize = 36 * STEPS as usize;

pub(super) struct Latency {
    buckets: [AtomicU64; BUCKETS],
}

impl Default for Latency {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl Latency {
    pub(super) fn record(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get(bucket_of(micros).min(BUCKETS - 1)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The value that `per_mille` of all recorded ones do not exceed; zero while there is none.
    pub(super) fn percentile(&self, per_mille: u64) -> Duration {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        let rank = (counts.iter().sum::<u64>() * per_mille).div_ceil(1000);
        let mut seen = 0;
        let at = counts.iter().position(|count| {
            seen += count;
            *count > 0 && seen >= rank
        });
        at.map_or(Duration::ZERO, |bucket| Duration::from_micros(end_of(bucket)))
    }
}

/// Small values have a bucket each, larger ones share: the leading bit and the three after it decide.
fn bucket_of(micros: u64) -> usize {
    let shift = (micros | STEPS).ilog2() - STEP_BITS;
    let step = (micros >> shift) & (STEPS - 1);
    let octave = if micros < STEPS { 0 } else { u64::from(shift) + 1 };
    usize::try_from(octave * STEPS + step).unwrap_or(usize::MAX)
}

/// The largest value of a bucket.
fn end_of(bucket: usize) -> u64 {
    let (octave, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    match octave.checked_sub(1) {
        None => step,
        Some(shift) => ((STEPS + step + 1) << shift) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_and_no_bucket_is_wide() {
        for micros in (0..5000).chain([65_535, 65_536, 1_000_000, 999_999_999]) {
            let end = end_of(bucket_of(micros));
            assert!(end >= micros && end <= micros + micros / 8, "{micros}: {end}");
        }
    }

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let latency = Latency::default();
        assert_eq!(latency.percentile(500), Duration::ZERO);
        for micros in 1..=1000 {
            latency.record(Duration::from_micros(micros));
        }
        let about = |per_mille, low, high| {
            let micros = latency.percentile(per_mille).as_micros();
            assert!((low..=high).contains(&micros), "{micros}");
        };
        about(500, 500, 562);
        about(990, 990, 1114);
        about(0, 1, 1);
    }

    #[test]
    fn an_endless_statement_is_counted_in_the_last_bucket() {
        let latency = Latency::default();
        latency.record(Duration::MAX);
        assert!(latency.percentile(500) > Duration::from_secs(3600));
    }
}
