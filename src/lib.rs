//! pgweir: a transparent PostgreSQL proxy that pools, routes, caches and explains.
//!
//! ARCHITECTURE.md draws the layers; `tests/architecture.rs` holds them.

pub mod ablation;
pub mod admin;
pub mod auth;
pub mod cache;
pub mod catalog;
pub mod check;
pub mod cli;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod control;
pub mod demo;
pub mod insight;
pub mod lsn;
pub mod net;
pub mod pool;
pub mod protocol;
pub mod proxy;
pub mod routing;
pub mod server;
pub mod session;
pub mod sql;
pub mod telemetry;
