//! What a client's buffers hold while it waits: for SHOW SOCKETS. Nearly always that is nothing, and then nothing is
//! written down.

use std::sync::{Arc, Mutex, PoisonError};

use super::Client;
use crate::{net::InboxFigures, server::ServerInfo};

/// What the console has been told of.
#[derive(Debug, Default)]
pub(super) enum Noted {
    /// Nothing: the buffers were empty.
    #[default]
    Nothing,
    /// The buffers of the client, and those of the server that it held.
    Buffers(Option<Arc<ServerInfo>>),
}

fn note(place: &Mutex<InboxFigures>, figures: InboxFigures) {
    *place.lock().unwrap_or_else(PoisonError::into_inner) = figures;
}

impl Client {
    /// It is about to wait.
    pub(super) fn note_buffers(&mut self) {
        let server = self.link.as_ref().map(|link| &link.server.core().endpoint);
        let is_empty = self.io.is_empty() && server.is_none_or(crate::net::Endpoint::is_empty);
        if !is_empty || !matches!(self.noted, Noted::Nothing) {
            self.publish_buffers(is_empty);
        }
    }

    /// Its buffers are nobody's business any more.
    pub(super) fn forget_buffers(&mut self) {
        if let Noted::Buffers(server) = std::mem::take(&mut self.noted) {
            note(&self.info.buffers, InboxFigures::default());
            server.inspect(|server| note(&server.buffers, InboxFigures::default()));
        }
    }

    #[cold]
    fn publish_buffers(&mut self, is_empty: bool) {
        self.forget_buffers();
        if is_empty {
            return;
        }
        note(&self.info.buffers, self.io.figures());
        let server = self.link.as_ref().map(|link| {
            let core = link.server.core();
            note(&core.info.buffers, core.endpoint.figures());
            Arc::clone(&core.info)
        });
        self.noted = Noted::Buffers(server);
    }
}
