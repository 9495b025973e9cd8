//! How long to wait before the next attempt to connect; pure.

use std::time::Duration;

/// Doubling pauses with jitter, up to a cap.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses from `first` up to `cap`.
    pub fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, next: first.min(cap) }
    }

    /// The next pause: between half of the current step and all of it, so that members that failed together are not
    /// asked together. `draw` is any random number.
    pub fn pause(&mut self, draw: u64) -> Duration {
        let step = self.next;
        self.next = step.saturating_mul(2).min(self.cap);
        let half = step / 2;
        let spread_nanos = u64::try_from((step - half).as_nanos()).unwrap_or(u64::MAX);
        half + Duration::from_nanos(draw.checked_rem(spread_nanos.saturating_add(1)).unwrap_or(0))
    }

    /// An attempt worked: the next failure starts from the beginning.
    pub fn reset(&mut self) {
        self.next = self.first.min(self.cap);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff() -> Backoff {
        Backoff::new(Duration::from_millis(100), Duration::from_secs(1))
    }

    #[test]
    fn pauses_double_up_to_the_cap() {
        let mut backoff = backoff();
        // The remainder by `spread + 1` of this draw is all of the spread.
        let longest: Vec<u64> = (0..6)
            .map(|_| {
                let step = backoff.next;
                let spread = u64::try_from((step / 2).as_nanos()).unwrap();
                u64::try_from(backoff.pause(spread).as_millis()).unwrap()
            })
            .collect();
        assert_eq!(longest, [100, 200, 400, 800, 1000, 1000]);
    }

    #[test]
    fn jitter_never_leaves_the_upper_half_of_a_step() {
        for draw in [0, 1, 49_999_999, 50_000_000, 50_000_001, u64::MAX] {
            let pause = backoff().pause(draw);
            assert!(pause >= Duration::from_millis(50) && pause <= Duration::from_millis(100), "{pause:?}");
        }
    }

    #[test]
    fn a_success_starts_over() {
        let mut backoff = backoff();
        backoff.pause(0);
        backoff.pause(0);
        backoff.reset();
        assert_eq!(backoff.pause(0), Duration::from_millis(50));
    }
}
