//! Who is at the door, as the log names it.

use std::sync::Arc;

use super::{ClientError, ClientInfo, context::Context, visiting::Visiting};
use crate::{
    net::{Local, Peer},
    telemetry::logging::{DISCONNECTIONS, Origin, POOLER_ERRORS, Side},
};

/// An accepted connection, from its first byte on.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    /// One counter for clients and servers, in order of creation.
    pub id: u64,
    /// Where it comes from.
    pub peer: Peer,
    /// Nanoseconds on the process clock.
    pub accepted_at: u64,
    /// Known after the start-up packet.
    pub database: Option<Arc<str>>,
    /// Known after the start-up packet.
    pub user: Option<Arc<str>>,
}

/// Shown to the console until it is dropped.
pub(super) struct Visit<'a> {
    context: &'a Context,
    shown: Arc<Visiting>,
}

impl<'a> Visit<'a> {
    pub(super) fn begin(context: &'a Context, visitor: &Visitor, local: Local) -> Self {
        let shown = Arc::new(Visiting::new(visitor.id, visitor.peer, local, visitor.accepted_at));
        context.visitors.insert(visitor.id, Arc::clone(&shown));
        Self { context, shown }
    }
}

impl std::ops::Deref for Visit<'_> {
    type Target = Visiting;

    fn deref(&self) -> &Visiting {
        &self.shown
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.context.visitors.remove(&self.shown.id);
    }
}

impl Visitor {
    pub(super) fn new(peer: Peer, context: &Context) -> Self {
        Self { id: context.next_id(), peer, accepted_at: context.clock.now(), database: None, user: None }
    }

    pub(super) fn of(client: &ClientInfo) -> Self {
        Self {
            id: client.id,
            peer: client.peer,
            accepted_at: client.connected_at,
            database: Some(Arc::clone(&client.database)),
            user: Some(Arc::clone(&client.user)),
        }
    }

    /// How log lines begin that are about it. A unix socket has the port that names its file.
    pub(super) fn origin(&self, context: &Context) -> Origin {
        let peer = match self.peer {
            Peer::Tcp(address) => address.to_string(),
            Peer::Unix { .. } => format!("{}:{}", self.peer, context.settings().config.pgbouncer.listen_port),
        };
        Origin {
            side: Side::Client,
            id: self.id,
            database: self.database.clone(),
            user: self.user.clone(),
            peer: peer.into(),
        }
    }

    /// PgBouncer's two lines about the end of a connection: what its client is told, and why it ends. Scripts grep them.
    pub(super) fn log_end(&self, context: &Context, error: &ClientError) {
        let origin = self.origin(context);
        if let Some(told) = error.told() {
            tracing::warn!(target: POOLER_ERRORS, %origin, "pooler error: {told}");
        }
        let age = context.clock.now().saturating_sub(self.accepted_at) / 1_000_000_000;
        let reason = error.reason();
        tracing::info!(target: DISCONNECTIONS, %origin, "closing because: {reason} (age={age}s)");
    }
}
