//! PostgreSQL's wire protocol, version 3: bytes in, values out. No policy and no IO.
//!
//! <https://www.postgresql.org/docs/current/protocol-message-formats.html>

pub mod backend;
pub mod error_response;
pub mod frame;
pub mod frontend;
pub mod sqlstate;
pub mod startup;

pub use error_response::{ErrorResponse, Severity};
pub use frame::{FrameError, HEADER_BYTES, Header};
pub use sqlstate::SqlState;

/// What `ReadyForQuery` says of the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// `I`: no transaction is open.
    Idle,
    /// `T`: inside a transaction block.
    InTransaction,
    /// `E`: inside a transaction block that can only be rolled back.
    Failed,
}

impl TransactionStatus {
    /// The status byte of a `ReadyForQuery` message.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'I' => Some(Self::Idle),
            b'T' => Some(Self::InTransaction),
            b'E' => Some(Self::Failed),
            _ => None,
        }
    }
}
