//! A distribution of durations in log-scale buckets, for quantiles per query shape.

use std::time::Duration;

/// Every power of two of microseconds is cut into four: a quantile is off by 12 % at most.
const STEPS_PER_OCTAVE: usize = 4;
/// Up to 2^27 microseconds, more than two minutes; longer ones count there.
const OCTAVES: usize = 27;
const BUCKETS: usize = OCTAVES * STEPS_PER_OCTAVE;

/// Counts per bucket.
#[derive(Clone, Debug)]
pub struct LatencyDistribution {
    counts: [u64; BUCKETS],
}

impl Default for LatencyDistribution {
    fn default() -> Self {
        Self { counts: [0; BUCKETS] }
    }
}

impl LatencyDistribution {
    /// One more duration.
    pub fn record(&mut self, duration: Duration) {
        if let Some(count) = self.counts.get_mut(bucket(duration)) {
            *count += 1;
        }
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The durations below which the given shares lie, ascending shares; zeros while empty.
    pub fn quantiles<const N: usize>(&self, shares: [f64; N]) -> [Duration; N] {
        let total = self.count() as f64;
        shares.map(|share| quantile(&self.counts, share * total))
    }
}

/// Interpolates inside the bucket that holds the sample of this rank.
fn quantile(counts: &[u64], rank: f64) -> Duration {
    let mut below = 0.0;
    for (index, &count) in counts.iter().enumerate() {
        let count = count as f64;
        if count > 0.0 && below + count >= rank {
            let (low, high) = (lower_bound(index), lower_bound(index + 1));
            let share = ((rank - below) / count).clamp(0.0, 1.0);
            return Duration::from_secs_f64((low + (high - low) * share) / 1e6);
        }
        below += count;
    }
    Duration::ZERO
}

fn bucket(duration: Duration) -> usize {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1);
    let octave = micros.ilog2() as usize;
    // The two bits after the leading one; short durations have fewer.
    let step = if octave >= 2 { micros >> (octave - 2) } else { micros << (2 - octave) } & 3;
    (octave * STEPS_PER_OCTAVE + step as usize).min(BUCKETS - 1)
}

/// In microseconds.
fn lower_bound(index: usize) -> f64 {
    let (octave, step) = (index / STEPS_PER_OCTAVE, index % STEPS_PER_OCTAVE);
    (octave as f64).exp2() * (1.0 + step as f64 / STEPS_PER_OCTAVE as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_lies_within_the_bounds_of_its_bucket() {
        for micros in (1..5000).chain([65_535, 65_536, 1_000_000, 99_999_999]) {
            let index = bucket(Duration::from_micros(micros));
            assert!(lower_bound(index) <= micros as f64, "{micros}");
            assert!(lower_bound(index + 1) > micros as f64, "{micros}");
        }
    }

    #[test]
    fn quantiles_of_an_even_spread_are_near_the_truth() {
        let mut latency = LatencyDistribution::default();
        for micros in 1..=10_000 {
            latency.record(Duration::from_micros(micros));
        }
        for (found, truth) in latency.quantiles([0.5, 0.95, 0.99]).into_iter().zip([5000.0, 9500.0, 9900.0]) {
            let found = found.as_secs_f64() * 1e6;
            assert!((found / truth - 1.0).abs() < 0.05, "{found} for {truth}");
        }
    }

    #[test]
    fn nothing_recorded_has_no_quantiles_and_the_longest_have_a_place() {
        let mut latency = LatencyDistribution::default();
        assert_eq!(latency.quantiles([0.99]), [Duration::ZERO]);
        latency.record(Duration::MAX);
        latency.record(Duration::ZERO);
        assert_eq!(latency.count(), 2);
    }
}
