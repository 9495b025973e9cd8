//! Limits and timeouts, exact for the whole process: counted in `pg_stat_activity`, with several workers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails loudly"
)]

mod support;

#[path = "limits/dns.rs"]
mod dns;
