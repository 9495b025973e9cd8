//! pgweir: a transparent PostgreSQL proxy that pools, routes, caches and explains.
//!
//! ARCHITECTURE.md draws the layers; `tests/architecture.rs` holds them.
