//! Waiting for a condition, never for a time.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long anything here may take before the test says what it waited for.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Polls until the condition holds; panics with `what` after [`PATIENCE`].
#[track_caller]
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) -> Duration {
    wait_at_most(PATIENCE, what, condition)
}

/// Polls until the condition holds and says how long that took.
#[track_caller]
pub fn wait_at_most(patience: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < patience, "waited {patience:?} in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
    started.elapsed()
}
