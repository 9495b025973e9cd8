//! The test bed: a real primary with two streaming replicas, Redis, pgweir itself, and two
//! peers that say exact bytes: a client and a server.
//!
//! Whatever is started here is stopped when the test process ends, however it ends.
#![allow(dead_code, reason = "each test file uses its part of the test bed")]
#![allow(unused_imports, reason = "each test file uses its part of the test bed")]
#![allow(unreachable_pub, reason = "a test crate has no outside")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails loudly"
)]

pub mod certificates;
pub mod cluster;
pub mod drivers;
pub mod fake_server;
pub mod forwarder;
pub mod frames;
pub mod hits;
pub mod names;
pub mod programs;
pub mod proxy;
pub mod random;
pub mod raw_client;
pub mod redis;
pub mod scratch;
pub mod sessions;
pub mod standby19;
pub mod wait;

pub use certificates::{Authority, Pair};
pub use cluster::{Cluster, Member, cluster};
pub use fake_server::{FakeServer, FakeSession};
pub use frames::Frame;
pub use proxy::{Proxy, Table};
pub use raw_client::{Address, RawClient, Reply};
pub use redis::Redis;
pub use sessions::connect;
pub use wait::wait_until;
