//! How an operator runs it: in the background, with its log, its signals, its service manager, in several processes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails loudly"
)]

mod support;

#[path = "operations/background.rs"]
mod background;
#[path = "operations/cancelling.rs"]
mod cancelling;
#[path = "operations/logging.rs"]
mod logging;
#[path = "operations/online_restart.rs"]
mod online_restart;
#[path = "operations/peering.rs"]
mod peering;
#[path = "operations/service_manager.rs"]
mod service_manager;
#[path = "operations/shutdown.rs"]
mod shutdown;
#[path = "operations/sockets.rs"]
mod sockets;
