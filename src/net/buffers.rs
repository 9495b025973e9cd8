//! Buffers that nobody fills at the moment, shared by everything that runs on one thread.
//!
//! A peer that is silent holds no buffer: ten thousand idle clients cost ten thousand sockets and what is known of their
//! sessions, and a worker's few busy ones share buffers that are still in the processor's cache.

use std::cell::RefCell;

use super::endpoint::READ_BYTES;

/// Buffers that a thread keeps; more are freed.
const KEPT: usize = 16;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with room for a read.
pub(super) fn take() -> Vec<u8> {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(READ_BYTES))
}

/// Gives back a buffer whose content is not needed any more. One that was large for a moment goes, and so does one
/// without room for a read.
pub(super) fn put(mut buffer: Vec<u8>) {
    if (READ_BYTES..=2 * READ_BYTES).contains(&buffer.capacity()) {
        buffer.clear();
        // A thread that ends keeps nothing.
        let _ended = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < KEPT {
                spare.push(buffer);
            }
        });
    }
}
