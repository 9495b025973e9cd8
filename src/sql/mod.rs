//! What a statement is, by its text alone.
//!
//! [`Analyzer::analyze`] turns a query string into a [`Statement`]: one pass of a lexer computes a
//! fingerprint without literals, the memo is asked, and only a shape never seen is parsed with
//! PostgreSQL's own grammar. What names stand for is the business of `catalog`.

mod analyze;
mod control;
mod fingerprint;
mod hints;
mod lexer;
mod literal;
mod normalize;
mod parse;
mod rows;
mod settings;
mod statement;
#[cfg(test)]
mod tests;
mod utility;
mod walk;
mod words;

pub use analyze::Analyzer;
pub use control::{Isolation, TransactionControl};
pub use fingerprint::Fingerprint;
pub use hints::{CacheHint, Hints, RouteHint};
pub use literal::names_the_clock;
pub use rows::{Literal, literal_at};
pub use settings::is_tracked_setting;
pub use statement::{
    Action, CallUse, Ddl, DdlKind, DiscardTarget, Facts, Flags, Name, Part, RowUse, Source, Statement, StatementKind,
    Target, Value,
};
pub use words::{Looks, Mention, Word, mentions, words};
