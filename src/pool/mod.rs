//! Server connections per database, user and member.

mod lending;
pub mod wait_queue;

pub use lending::{CheckedOut, CheckoutError, Greeting, LoginSource, Pool, PoolCounts, PoolKey, PoolLimits, Pools};
