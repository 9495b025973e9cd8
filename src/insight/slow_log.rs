//! Requests over the threshold: a ring in memory for the console, JSON lines in a file.
//!
//! The file is written by a thread of its own behind a bounded queue: a slow disk loses lines,
//! counted, and never holds up a client.

mod entry;
mod writer;

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

pub use self::entry::{SlowEntry, SlowRow};
use self::writer::Writer;
use super::{InsightSettings, RequestRecord};
use crate::telemetry::metrics::SharedMetrics;

/// In the place of a threshold: nothing is slow.
const NEVER: u64 = u64::MAX;

/// The slow log; shared by every worker.
pub struct SlowLog {
    threshold_nanos: AtomicU64,
    kept: usize,
    ring: Mutex<VecDeque<Arc<SlowEntry>>>,
    writer: Option<Writer>,
}

impl SlowLog {
    pub(super) fn new(settings: &InsightSettings, metrics: &SharedMetrics) -> io::Result<Self> {
        let path = settings.slow_query_log.as_deref();
        let log = Self {
            threshold_nanos: AtomicU64::new(NEVER),
            kept: settings.slow_kept,
            ring: Mutex::default(),
            writer: path.map(|path| Writer::start(path, metrics)).transpose()?,
        };
        log.set_threshold(settings.slow_query_threshold);
        Ok(log)
    }

    pub(super) fn set_threshold(&self, threshold: Option<Duration>) {
        let nanos = threshold.map_or(NEVER, |t| u64::try_from(t.as_nanos()).unwrap_or(NEVER));
        self.threshold_nanos.store(nanos, Ordering::Relaxed);
    }

    pub(super) fn is_slow(&self, total: Duration) -> bool {
        let threshold = self.threshold_nanos.load(Ordering::Relaxed);
        threshold != NEVER && total.as_nanos() >= u128::from(threshold)
    }

    pub(super) fn observe(&self, record: &RequestRecord<'_>, text: Arc<str>) {
        let entry = Arc::new(SlowEntry::new(record, text));
        if let Some(writer) = &self.writer {
            writer.write(Arc::clone(&entry));
        }
        let mut ring = self.ring();
        ring.push_back(entry);
        if ring.len() > self.kept {
            ring.pop_front();
        }
    }

    pub(super) fn latest(&self, count: usize) -> Vec<SlowRow> {
        let entries: Vec<_> = self.ring().iter().rev().take(count).map(Arc::clone).collect();
        entries.iter().map(|entry| entry.row()).collect()
    }

    pub(super) fn reopen(&self) {
        if let Some(writer) = &self.writer {
            writer.reopen();
        }
    }

    pub(super) fn close(&self) {
        if let Some(writer) = &self.writer {
            writer.close();
        }
    }

    fn ring(&self) -> MutexGuard<'_, VecDeque<Arc<SlowEntry>>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
