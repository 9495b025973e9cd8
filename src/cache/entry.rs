//! One cached answer: the bytes as PostgreSQL sent them.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::invalidation::Captured;
use crate::sql::Fingerprint;

/// What an entry costs beside its bytes: itself, its stamps' box, its place in the store.
const ENTRY_OVERHEAD_BYTES: usize = 200;
const STAMP_BYTES: usize = 32;

/// The messages of one answer, cut but never decoded or encoded again.
///
/// Only the parts that are the same for every client: ParseComplete, BindComplete and ReadyForQuery
/// are put around them by whoever answers.
#[derive(Debug)]
pub struct Entry {
    /// The RowDescription message, when the request asks for one.
    pub row_description: Option<Bytes>,
    /// All DataRow messages, one behind the other.
    pub rows: Bytes,
    /// The CommandComplete message.
    pub command_complete: Bytes,
    /// How many rows there are.
    pub row_count: u64,
    /// When the answer was complete, in nanoseconds.
    pub filled_at: u64,
    /// What it cost the server, in microseconds.
    pub cost_us: u32,
    /// From when on it is not served; `None`: until something it depends on is written.
    pub expires_at: Option<u64>,
    /// Bytes that it would take and that are not kept, where nothing is answered from it.
    pub left_out: usize,
    /// What it depends on.
    pub captured: Captured,
    /// The shape of the statement, where that is known.
    pub shape: Option<Fingerprint>,
    /// Somebody was answered with it.
    pub asked: AtomicBool,
}

impl Entry {
    /// Its shape, for the first who is answered with it.
    pub(super) fn first_asked(&self) -> Option<Fingerprint> {
        let is_first = !self.asked.load(Ordering::Relaxed) && !self.asked.swap(true, Ordering::Relaxed);
        self.shape.filter(|_| is_first)
    }

    /// Whether its time is over, whatever was written.
    pub fn is_expired(&self, now: u64) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= now)
    }

    /// Whether it may be answered with at this moment.
    pub fn is_current(&self) -> bool {
        self.captured.is_current()
    }

    /// Age in nanoseconds.
    pub fn age(&self, now: u64) -> u64 {
        now.saturating_sub(self.filled_at)
    }

    /// The same without its bytes, and without those of its question.
    pub(super) fn without_bytes(self, question: usize) -> Self {
        let left_out = self.wire_bytes() + question;
        Self { row_description: None, rows: Bytes::new(), command_complete: Bytes::new(), left_out, ..self }
    }

    /// Bytes on the wire.
    pub fn wire_bytes(&self) -> usize {
        let description = self.row_description.as_ref().map_or(0, Bytes::len);
        description + self.rows.len() + self.command_complete.len()
    }

    /// Bytes of memory it takes with a key of that length.
    pub fn weight(&self, key_bytes: usize) -> u32 {
        let stamps = self.captured.stamps() * STAMP_BYTES;
        let bytes = key_bytes + self.wire_bytes() + self.left_out + stamps + ENTRY_OVERHEAD_BYTES;
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}
