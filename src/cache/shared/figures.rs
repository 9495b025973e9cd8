//! What became of requests to Redis.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{breaker::Cause, codec::Refusal};

/// How one reading ended: the `outcome` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The answer was there.
    Hit,
    /// It was not.
    Absent,
    /// Something was there that is none; the reason is counted beside it.
    Refused,
    /// A write overtook it.
    Overtaken,
    /// Redis did not answer in time.
    Timeout,
    /// Redis answered with an error, or the connection broke.
    Error,
    /// Redis was not asked: it is left alone for a while.
    Unavailable,
}

impl Reading {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] =
        [Self::Hit, Self::Absent, Self::Refused, Self::Overtaken, Self::Timeout, Self::Error, Self::Unavailable];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Absent => "absent",
            Self::Refused => "refused",
            Self::Overtaken => "overtaken",
            Self::Timeout => "timeout",
            Self::Error => "error",
            Self::Unavailable => "unavailable",
        }
    }
}

/// How one writing ended: the `outcome` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// It is there.
    Stored,
    /// Too many were waiting to be written.
    Dropped,
    /// A write voided it before its turn came, or its time was over.
    Void,
    /// Redis was not asked: it is left alone for a while.
    Unavailable,
    /// Redis did not take it.
    Failed,
}

impl Writing {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Stored, Self::Dropped, Self::Void, Self::Unavailable, Self::Failed];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Dropped => "dropped",
            Self::Void => "void",
            Self::Unavailable => "unavailable",
            Self::Failed => "failed",
        }
    }
}

/// Counts since the start.
#[derive(Debug, Default)]
pub(super) struct Figures {
    readings: [AtomicU64; Reading::ALL.len()],
    writings: [AtomicU64; Writing::ALL.len()],
    refusals: [AtomicU64; Refusal::ALL.len()],
    openings: [AtomicU64; Cause::ALL.len()],
}

fn count(counters: &[AtomicU64], at: usize, times: u64) {
    if let Some(counter) = counters.get(at) {
        counter.fetch_add(times, Ordering::Relaxed);
    }
}

fn all<const N: usize>(counters: &[AtomicU64; N]) -> [u64; N] {
    std::array::from_fn(|at| counters.get(at).map_or(0, |counter| counter.load(Ordering::Relaxed)))
}

impl Figures {
    pub(super) fn read(&self, reading: Reading) {
        count(&self.readings, reading as usize, 1);
    }

    pub(super) fn refused(&self, refusal: Refusal) {
        self.read(Reading::Refused);
        count(&self.refusals, refusal as usize, 1);
    }

    pub(super) fn wrote(&self, writing: Writing, times: usize) {
        count(&self.writings, writing as usize, times as u64);
    }

    pub(super) fn opened(&self, cause: Cause) {
        count(&self.openings, cause as usize, 1);
    }

    pub(super) fn stats(&self) -> SharedStats {
        SharedStats {
            readings: all(&self.readings),
            writings: all(&self.writings),
            refusals: all(&self.refusals),
            openings: all(&self.openings),
            ..SharedStats::default()
        }
    }
}

/// Level two at one moment, and its counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedStats {
    /// By [`Reading`].
    pub readings: [u64; Reading::ALL.len()],
    /// By [`Writing`].
    pub writings: [u64; Writing::ALL.len()],
    /// By [`Refusal`].
    pub refusals: [u64; Refusal::ALL.len()],
    /// How often it was given up, by [`Cause`].
    pub openings: [u64; Cause::ALL.len()],
    /// Why it is left alone; `None`: it is asked.
    pub refusal: Option<Cause>,
    /// Answers and their bytes that wait to be written.
    pub waiting: u64,
    /// As many may wait.
    pub waiting_limit: u64,
}

impl SharedStats {
    /// How many readings ended so.
    pub fn read(&self, reading: Reading) -> u64 {
        self.readings.get(reading as usize).copied().unwrap_or_default()
    }

    /// How many writings ended so.
    pub fn wrote(&self, writing: Writing) -> u64 {
        self.writings.get(writing as usize).copied().unwrap_or_default()
    }

    /// `up`, or why it is left alone.
    pub fn state(&self) -> &'static str {
        self.refusal.map_or("up", Cause::label)
    }
}
