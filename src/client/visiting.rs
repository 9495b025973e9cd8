//! Connections that are no session yet, or never will be, as the console shows them.

use std::sync::{Arc, OnceLock};

use crate::{
    net::{Local, Peer},
    server::ServerInfo,
};

/// A login under way, or a cancel request.
#[derive(Debug)]
pub struct Visiting {
    /// One counter for clients and servers.
    pub id: u64,
    /// Where it comes from.
    pub peer: Peer,
    /// Our end.
    pub local: Local,
    /// Nanoseconds on the process clock.
    pub since: u64,
    names: OnceLock<(Arc<str>, Arc<str>)>,
    cancels: OnceLock<Cancelling>,
}

/// What a cancel request is about.
#[derive(Debug)]
pub struct Cancelling {
    /// Database of the client whose query is cancelled.
    pub database: Arc<str>,
    /// Whom servers know that client as.
    pub pool_user: Arc<str>,
    /// The server that runs the query.
    pub server: Arc<ServerInfo>,
    carrier: OnceLock<Carrier>,
}

/// The connection on which the request has been sent to the server, until the server closes it.
#[derive(Clone, Copy, Debug)]
pub struct Carrier {
    /// One counter for clients and servers.
    pub id: u64,
    /// Our end.
    pub local: Local,
}

impl Visiting {
    pub(super) fn new(id: u64, peer: Peer, local: Local, since: u64) -> Self {
        Self { id, peer, local, since, names: OnceLock::new(), cancels: OnceLock::new() }
    }

    /// Database and user, once the start-up packet has come.
    #[must_use]
    pub fn names(&self) -> Option<&(Arc<str>, Arc<str>)> {
        self.names.get()
    }

    /// What it cancels, if that is what it came for.
    #[must_use]
    pub fn cancels(&self) -> Option<&Cancelling> {
        self.cancels.get()
    }

    pub(super) fn asks_for(&self, database: &Arc<str>, user: &Arc<str>) {
        self.names.get_or_init(|| (Arc::clone(database), Arc::clone(user)));
    }

    pub(super) fn begins_to_cancel(
        &self,
        database: Arc<str>,
        pool_user: Arc<str>,
        server: Arc<ServerInfo>,
    ) -> &Cancelling {
        self.cancels.get_or_init(|| Cancelling { database, pool_user, server, carrier: OnceLock::new() })
    }
}

impl Cancelling {
    /// How the request went to the server, once it did.
    #[must_use]
    pub fn carrier(&self) -> Option<Carrier> {
        self.carrier.get().copied()
    }

    pub(super) fn sent(&self, carrier: Carrier) {
        self.carrier.get_or_init(|| carrier);
    }

    /// As SHOW CLIENTS calls it.
    #[must_use]
    pub fn state(&self) -> &'static str {
        if self.carrier().is_some() { "active_cancel_req" } else { "waiting_cancel_req" }
    }
}
