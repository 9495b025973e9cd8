//! Buffers that nobody fills at the moment, shared by everything that runs on one thread.
//!
//! A peer that is silent holds no buffer: ten thousand idle clients cost ten thousand sockets and what is known of their
//! sessions, and a worker's few busy ones share buffers that are still in the processor's cache.

use std::cell::RefCell;

use bytes::BytesMut;

use super::endpoint::KEPT_BYTES;

/// Buffers of each kind that a thread keeps; more are freed.
const KEPT: usize = 64;

#[derive(Default)]
struct Spare {
    inboxes: Vec<BytesMut>,
    outboxes: Vec<Vec<u8>>,
}

thread_local! {
    static SPARE: RefCell<Spare> = RefCell::default();
}

/// A buffer to read into; it may have no room yet.
pub(super) fn take_inbox() -> BytesMut {
    SPARE.with_borrow_mut(|spare| spare.inboxes.pop()).unwrap_or_default()
}

/// An empty buffer to append to; it may have no room yet.
pub(super) fn take_outbox() -> Vec<u8> {
    SPARE.with_borrow_mut(|spare| spare.outboxes.pop()).unwrap_or_default()
}

/// Gives back a buffer that holds nothing.
pub(super) fn put_inbox(mut buffer: BytesMut) {
    // What has been read is no capacity until it is reclaimed; a buffer that was large for a moment goes.
    if buffer.capacity() > 0 && !buffer.try_reclaim(KEPT_BYTES + 1) {
        keep(buffer, |spare| &mut spare.inboxes);
    }
}

/// Gives back a buffer that holds nothing.
pub(super) fn put_outbox(buffer: Vec<u8>) {
    if buffer.capacity() > 0 && buffer.capacity() <= KEPT_BYTES {
        keep(buffer, |spare| &mut spare.outboxes);
    }
}

fn keep<B>(buffer: B, kind: impl FnOnce(&mut Spare) -> &mut Vec<B>) {
    // A thread that ends keeps nothing.
    let _ended = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        let kept = kind(&mut spare);
        if kept.len() < KEPT {
            kept.push(buffer);
        }
    });
}
