//! What one database says about itself, and what a statement means there.
//!
//! A [`Snapshot`] is built from plain rows of the system catalogs and never changes; the loader in
//! `cluster` makes a new one when definitions change. [`Snapshot::meaning`] is the only place that decides
//! whether a replica may run a statement, whether its answer may be kept and what it writes. What is not
//! proven is refused: primary, uncached, and written to by unknown amounts.

mod builtin;
mod closure;
mod cross_check;
mod doubt;
mod effects;
mod function;
mod heard;
mod judge;
mod keyed;
mod kinds;
mod meaning;
mod mentions;
mod names;
mod paths;
mod read;
mod relation;
mod rights;
mod row;
mod rows;
mod sharing;
mod snapshot;
mod source;
#[cfg(test)]
mod tests;
mod tree;
mod unseen;

pub use cross_check::Missed;
pub use doubt::casts_doubt;
pub use effects::Effects;
pub use keyed::Keyed;
pub use kinds::meaning_without_catalog;
pub use meaning::{Access, AccessReason, Bypass, Meaning, RelationOid, Scoped, Writes};
pub use paths::PATH_BYTES;
pub use row::{KeyId, KeyType, Row};
pub use rows::{
    ExpressionRow, ExpressionUse, ForeignKeyRow, FunctionRow, HeardRows, KeyRow, OperatorRow, RelationRow,
    RestrictedRow, RoleRow, RuleRow, SchemaRow, SnapshotRows, TriggerRow, TypeRow, UnseenRow,
};
pub use snapshot::{PathNumber, SHARING_BYTES, SessionDefaults, Snapshot, reads_committed};

pub use crate::sql::{Isolation, TransactionControl};
