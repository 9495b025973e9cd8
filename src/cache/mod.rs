//! The result cache: level one in this process, never stale for writes that pass through it.
//!
//! ```text
//! lookup ─ Hit ── every stamp of the entry is what it was before its query was sent, nothing in flight
//!        └ Miss(FillGuard) ── stamps captured now, before any byte goes to a server
//! write  ─ begin_write (mark in flight, before the commit is forwarded)
//!        └ committed (move the stamps, before the client learns of it) | rolled_back | dropped: in doubt
//! ```
//!
//! [`invalidation`] holds the stamps and the argument why this is enough; the other files know rows
//! and bytes only.

pub mod entry;
pub mod fill;
pub mod invalidation;
pub mod key;
pub mod local;

pub use entry::Entry;
pub use fill::Discard;
pub use invalidation::{Captured, CatalogEpoch, Cells, InDoubt, Touched, WriteGuard};
pub use key::{KeyBuffer, KeyPrefix};
pub use local::{FillGuard, FillOutcome, Lookup, ResultCache};
