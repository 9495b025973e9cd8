//! Server connections per database, user and member.

mod asking;
mod error;
mod figures;
mod lending;
mod opening;
pub mod quota;
mod registry;
mod retry;
mod shares;
mod states;
mod tally;
mod upkeep;
pub mod wait_queue;
mod wear;

pub use asking::{Asking, CheckedOut, CheckingOut, Patience};
pub use error::CheckoutError;
pub use figures::{Greeting, PoolCounts};
pub use lending::{Pool, PoolKey};
pub use opening::{LoginSource, Turns};
pub use registry::Pools;
pub use retry::Failure;
pub use shares::Shares;
pub use states::{BEING_CANCELED, Opening};
pub use tally::{Tallies, Tally};
pub use upkeep::PoolLimits;
