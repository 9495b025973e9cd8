//! Server connections per database, user and member.

mod lending;
mod registry;
pub mod wait_queue;

pub use lending::{CheckedOut, CheckoutError, Greeting, LoginSource, Pool, PoolCounts, PoolKey, PoolLimits};
pub use registry::Pools;
