//! Writes that bypass the proxy, as the primary's logical replication stream tells of them; pure.
//!
//! ```text
//! bytes ─ message ─ pgoutput ─ Decoder: which relations each committed transaction has written, or which rows of them
//!                                 │ Transaction
//! answers of the primary ──────► Backlog: which of them everybody can see by now
//!                                 └ Settled: what to void, and up to when everything is known
//! ```
//!
//! # Why a transaction waits in the backlog
//!
//! The stream runs ahead of visibility: a commit is in the log before a new snapshot can see it, and for as long as
//! the commit waits for a synchronous standby. Whoever voids when the stream tells of it lets a reader ask again, get
//! the old rows and keep them. So a stamp moves only after a snapshot of the primary has shown the transaction.
//!
//! # The horizon
//!
//! A snapshot and an insert position asked for at `t` settle everything that anybody could see at `t`: such a
//! transaction has its commit record in front of that position (the record is written first), so once the stream has
//! passed it, the transaction has come; and it is visible in the snapshot, which was taken later. What came and is not
//! visible there could not be seen at `t`.

mod backlog;
mod decoder;
mod message;
#[cfg(test)]
mod simulation;
mod tuple;
mod visibility;

pub use backlog::{Answer, Backlog, Overflow, Settled};
pub use decoder::{Changes, DecodeError, Decoder, Told, Transaction};
pub use message::{HEAD_BYTES, Message, put_status};
pub use visibility::{SnapshotError, Visibility};
