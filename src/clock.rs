//! One clock for the whole process: nanoseconds since it was made, never backwards.
//!
//! It goes on while the machine sleeps, which `Instant` does not: what was true for half a second is no longer true for
//! who has slept in between.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// A span as the clock counts, in nanoseconds; what does not fit is for ever.
#[must_use]
pub fn nanos(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// As fast as the clock of `Instant`: the kernel answers both without a system call.
fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// Copied freely; every copy tells the same time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Duration,
    started: SystemTime,
}

impl Clock {
    /// Starts at zero.
    #[must_use]
    pub fn start() -> Self {
        Self { origin: since_boot(), started: SystemTime::now() }
    }

    /// Nanoseconds since the start.
    #[must_use]
    pub fn now(&self) -> u64 {
        nanos(since_boot().saturating_sub(self.origin))
    }

    /// The wall-clock time of a moment on this clock, for people.
    #[must_use]
    pub fn wall(&self, nanos: u64) -> SystemTime {
        self.started + Duration::from_nanos(nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's own word: seconds that the machine is up, sleep included.
    fn uptime() -> f64 {
        let text = std::fs::read_to_string("/proc/uptime").unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    }

    #[test]
    fn it_counts_from_its_start_by_the_time_that_the_machine_is_up() {
        let before = uptime();
        let clock = Clock::start();
        let (first, second) = (clock.now(), clock.now());
        assert!(first <= second);
        let of_clock = Duration::from_nanos(clock.now()).as_secs_f64();
        assert!(of_clock <= uptime() - before + 0.02, "{of_clock}");
        // Hundredths are what /proc/uptime tells.
        let started = clock.origin.as_secs_f64();
        assert!((before - 0.02..uptime() + 0.02).contains(&started), "{started}");
    }
}
