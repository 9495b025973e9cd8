//! The result cache: level one in this process, level two in Redis, never stale for writes that pass through here.
//!
//! ```text
//! lookup ─ Hit ── every stamp of the entry is what it was before its query was sent, nothing in flight
//!        └ Miss(FillGuard) ── stamps captured now, before any byte goes to a server
//!          └ board ── somebody with the same stamps asks already: his answer is awaited
//!          └ question ── Redis may have it, under a name that the stamps are part of
//! write  ─ begin_write (mark in flight, before the commit is forwarded)
//!        └ committed (move the stamps, before the client learns of it) | rolled_back | dropped: in doubt
//! ```
//!
//! [`invalidation`] holds the stamps and the argument why this is enough; [`wal`] reads what the primary tells of writes
//! that bypass the proxy; the other files know rows and bytes only.

mod admission;
pub mod bus;
mod costs;
pub mod entry;
pub mod fill;
pub mod flights;
pub mod invalidation;
pub mod key;
mod lifetimes;
pub mod local;
pub mod observed;
mod shapes;
pub mod shared;
mod unattended;
pub mod wal;

pub use entry::Entry;
pub use fill::Discard;
pub use flights::{Flight, Landing};
pub use invalidation::{Captured, CatalogEpoch, Cells, InDoubt, ROWS_BYTES, Touched, Voids, WriteGuard};
pub use key::{ANYBODY, KeyBuffer, KeyPrefix};
pub use lifetimes::{Lifetime, Lifetimes};
pub use local::{FillGuard, FillOutcome, Lookup, ResultCache};
pub use shared::SharedCache;
pub use unattended::{Unattended, UnderWay};
