//! Seeded simulations of the parts where pooler and cache bugs live.
//!
//! A failure prints its seed; `SEED=n cargo test --test simulation` runs that one alone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails loudly"
)]

#[path = "simulation/limits.rs"]
mod limits;
#[path = "support/random.rs"]
mod random;
#[path = "simulation/rows.rs"]
mod rows;
#[path = "simulation/stamps/mod.rs"]
mod stamps;
#[path = "simulation/threads.rs"]
mod threads;
