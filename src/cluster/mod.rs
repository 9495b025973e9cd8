//! The members of one database: who answers, who is primary, how far each has replayed, what the catalog says.
//!
//! [`monitor`] asks every member and reports samples; [`health`] and [`roles`] are the pure rules that turn them
//! into verdicts, and [`members`] keeps both for a whole cluster. [`in_doubt`] settles commits whose connection was
//! lost; [`listener`] listens for clients; [`catalog_watch`] keeps the snapshot of the catalog current; [`auth_query`] asks
//! for users; [`cross_check`] asks what the primary makes of statements; [`under_way`] asks what an earlier process has left running; [`wal_stream`] hears of writes that bypass the proxy, as far as the server is made for it ([`wal_preflight`]).

pub mod auth_query;
pub mod backoff;
pub mod catalog_loader;
pub mod catalog_watch;
pub mod coherence;
pub mod cross_check;
mod database;
mod direct_writes;
mod equals;
pub mod health;
pub mod in_doubt;
mod learned_writes;
pub mod listener;
pub mod members;
pub mod monitor;
mod probe;
mod real_database;
pub mod roles;
pub mod under_way;
pub mod wal_preflight;
pub mod wal_stream;

pub use cross_check::CrossChecks;
pub use database::{Database, DatabaseSettings, LoadedCatalog, may_change_isolation, may_change_names};
pub use direct_writes::{DirectFigures, DirectSettings, DirectWrites};
pub use learned_writes::LearnedWrites;
pub use listener::{Listener, MailError, Mailbox};
pub use real_database::RealDatabase;
