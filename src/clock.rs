//! One clock for the whole process: nanoseconds since it was made, never backwards.

use std::time::{Duration, Instant, SystemTime};

/// A span as the clock counts, in nanoseconds; what does not fit is for ever.
#[must_use]
pub fn nanos(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Copied freely; every copy tells the same time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    started: SystemTime,
}

impl Clock {
    /// Starts at zero.
    #[must_use]
    pub fn start() -> Self {
        Self { origin: Instant::now(), started: SystemTime::now() }
    }

    /// Nanoseconds since the start.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    /// A moment of another's, on this clock; moments before the start are zero.
    #[must_use]
    pub fn at(&self, instant: Instant) -> u64 {
        instant.saturating_duration_since(self.origin).as_nanos() as u64
    }

    /// The wall-clock time of a moment on this clock, for people.
    #[must_use]
    pub fn wall(&self, nanos: u64) -> SystemTime {
        self.started + Duration::from_nanos(nanos)
    }
}
