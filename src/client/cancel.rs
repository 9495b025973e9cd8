//! Cancel requests: who asks, and what is cancelled.

use std::{sync::Arc, time::Duration};

use dashmap::DashMap;

pub(super) use super::cancel_key::OwnKey;
use super::{
    cancel_key::Destination,
    context::{Context, Settings},
    info::{Activity, ClientInfo, Signal},
    tally::Cancelled,
    visiting::{Carrier, Visiting},
};
use crate::server::{CancelPermit, send_cancel};

/// Keys of all clients. Who guesses learns nothing from the time that a look-up takes: the map's hash is seeded with a
/// random number.
#[derive(Default)]
pub struct CancelKeys {
    clients: DashMap<OwnKey, Arc<ClientInfo>, foldhash::fast::RandomState>,
}

impl CancelKeys {
    /// Gives a client its key. `draw` makes random numbers.
    pub fn issue(&self, client: &Arc<ClientInfo>, peer_id: u16, mut draw: impl FnMut() -> u64) -> OwnKey {
        loop {
            let key = OwnKey::new(draw(), peer_id);
            if key.pid() != 0 && self.adopt(client, key) {
                return key;
            }
        }
    }

    /// A client keeps the key that another process has given it; false if it is taken.
    pub fn adopt(&self, client: &Arc<ClientInfo>, key: OwnKey) -> bool {
        let dashmap::Entry::Vacant(vacant) = self.clients.entry(key) else { return false };
        vacant.insert(Arc::clone(client));
        true
    }

    /// The client has gone.
    pub fn revoke(&self, key: OwnKey) {
        self.clients.remove(&key);
    }

    /// Cancels what the client of this key does. `visit` is who asks, where that is known, and the number of the
    /// connection that carries the request.
    pub(crate) async fn cancel(&self, key: OwnKey, deadline: Duration, visit: Option<(&Visiting, u64)>) -> Cancelled {
        let client = self.clients.get(&key).map(|client| Arc::clone(&client));
        let Some(client) = client else { return Cancelled::Unknown };
        let is_console = crate::admin::DATABASES.contains(&&*client.database);
        if is_console || client.activity() == Activity::Waiting {
            client.send(Signal::CancelWait);
            return Cancelled::Waiting;
        }
        let Some(server) = client.server() else { return Cancelled::Idle };
        let Some(permit) = CancelPermit::acquire(&server, client.id) else { return Cancelled::Idle };
        let shown = visit.map(|(visit, id)| {
            let (database, user) = (Arc::clone(&client.database), Arc::clone(client.pool_user()));
            (visit.begins_to_cancel(database, user, server), id)
        });
        let on_sent = |local| {
            if let Some((shown, id)) = shown {
                shown.sent(Carrier { id, local });
            }
        };
        match send_cancel(permit, deadline, on_sent).await {
            Ok(()) => Cancelled::Sent,
            Err(error) => {
                tracing::info!(%error, "cancel request not delivered");
                Cancelled::NotSent
            }
        }
    }
}

/// Acts on a cancel request; nobody is ever told whether it found anything.
pub(super) async fn request(context: &Context, settings: &Settings, visit: &Visiting, pid: u32, secret: &[u8]) {
    let outcome = act_on(context, settings, visit, pid, secret).await;
    if outcome == Cancelled::Unknown {
        tracing::info!("cancel request with an unknown key");
    }
    context.tally.cancelled(outcome);
}

async fn act_on(context: &Context, settings: &Settings, visit: &Visiting, pid: u32, secret: &[u8]) -> Cancelled {
    let main = &settings.config.pgbouncer;
    let Some(key) = OwnKey::from_request(pid, secret) else { return Cancelled::Unknown };
    match key.destination(main.peer_id as u16) {
        Destination::Here(key) => {
            let visit = Some((visit, context.next_id()));
            match context.cancel_keys.cancel(key, main.cancel_wait_timeout, visit).await {
                Cancelled::Unknown if context.hand_over.pass_on(key) => Cancelled::Forwarded,
                outcome => outcome,
            }
        }
        Destination::Peer(peer_id, key) => {
            context.peers.forward(&settings.config, peer_id, key).await;
            Cancelled::Forwarded
        }
        Destination::NoHopsLeft => {
            tracing::info!("failed to forward cancel request because its TTL was exhausted");
            Cancelled::NoHopsLeft
        }
    }
}
