//! What each connection of a pool does, as the console shows it.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use super::Pool;
use crate::{net::Address, server::ServerInfo};

/// A connection that is being opened.
#[derive(Clone, Debug)]
pub struct Opening {
    /// One counter for clients and servers.
    pub id: u64,
    /// Where it goes.
    pub address: Address,
    /// Nanoseconds on the process clock.
    pub since: u64,
}

/// What is known of an open connection.
#[derive(Clone, Copy, Debug, Default)]
struct Facts {
    /// It rests; and must it be tried out before it serves again?
    rests: Option<bool>,
    is_tested: bool,
    /// Nobody has it until a cancel request has been acted on.
    is_waited_for: bool,
    is_linked: bool,
}

impl Facts {
    /// In PgBouncer's words.
    fn state(self) -> &'static str {
        match self {
            Self { rests: Some(true), .. } => "used",
            Self { rests: Some(false), .. } => "idle",
            Self { is_tested: true, .. } => "tested",
            Self { is_waited_for: true, .. } => BEING_CANCELED,
            Self { is_linked: true, .. } => "active",
            // On its way from one to the other.
            Self { is_linked: false, .. } => "idle",
        }
    }
}

/// It waits until a cancel request that may hit it has been acted on.
pub const BEING_CANCELED: &str = "being_canceled";

impl Pool {
    /// Its connections and what they do.
    #[must_use]
    pub fn states(&self) -> Vec<(Arc<ServerInfo>, &'static str)> {
        let resting: HashMap<u64, bool> = {
            let state = self.state();
            let idle = state.queue.idle().iter();
            idle.map(|rested| (rested.server.core().info.id, rested.must_check)).collect()
        };
        let state = |server: Arc<ServerInfo>| {
            let facts = Facts {
                rests: resting.get(&server.id).copied(),
                is_tested: server.is_tested.load(Ordering::Relaxed),
                is_waited_for: server.gate.is_waited_for(),
                is_linked: server.client.load(Ordering::Relaxed) != 0,
            };
            (server, facts.state())
        };
        self.servers().into_iter().map(state).collect()
    }

    /// Its connections that are being opened.
    #[must_use]
    pub fn openings(&self) -> Vec<Opening> {
        self.opening.iter().map(|opening| opening.value().clone()).collect()
    }
}

/// Shown as being opened until it is dropped.
pub(super) struct Shown<'a>(&'a Pool, u64);

impl<'a> Shown<'a> {
    pub(super) fn begin(pool: &'a Pool, id: u64, address: Address) -> Self {
        pool.opening.insert(id, Opening { id, address, since: pool.now() });
        Self(pool, id)
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.0.opening.remove(&self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_in_the_state_that_pgbouncer_would_have_it_in() {
        let (none, linked) = (Facts::default(), Facts { is_linked: true, ..Facts::default() });
        for (facts, expected) in [
            (Facts { rests: Some(false), ..none }, "idle"),
            (Facts { rests: Some(true), ..none }, "used"),
            (Facts { is_tested: true, ..none }, "tested"),
            (Facts { is_tested: true, ..linked }, "tested"),
            (linked, "active"),
            (Facts { is_waited_for: true, ..linked }, "being_canceled"),
            (Facts { is_waited_for: true, ..none }, "being_canceled"),
            (none, "idle"),
        ] {
            assert_eq!(facts.state(), expected, "{facts:?}");
        }
    }
}
