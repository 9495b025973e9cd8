//! Cancel requests: who asks, and what is cancelled.

use std::{sync::Arc, time::Duration};

use dashmap::DashMap;
use subtle::ConstantTimeEq;

use super::info::{Activity, ClientInfo, Signal};
use crate::server::{CancelPermit, send_cancel};

/// A client's own key: the server's would tell it how to cancel other clients.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct OwnKey {
    /// Looks like a process id; the first bit is clear.
    pub pid: i32,
    /// Random.
    pub secret: i32,
}

/// Keys of all clients.
#[derive(Default)]
pub struct CancelKeys {
    clients: DashMap<u32, (i32, Arc<ClientInfo>), foldhash::fast::RandomState>,
}

impl CancelKeys {
    /// Gives a client its key. `draw` makes random numbers.
    pub fn issue(&self, client: &Arc<ClientInfo>, mut draw: impl FnMut() -> u64) -> OwnKey {
        loop {
            let random = draw();
            let (pid, secret) = ((random >> 33) as u32, random as i32);
            if pid == 0 {
                continue;
            }
            if let dashmap::Entry::Vacant(vacant) = self.clients.entry(pid) {
                vacant.insert((secret, Arc::clone(client)));
                return OwnKey { pid: pid as i32, secret };
            }
        }
    }

    /// The client has gone.
    pub fn revoke(&self, key: OwnKey) {
        self.clients.remove(&(key.pid as u32));
    }

    fn find(&self, pid: u32, secret: &[u8]) -> Option<Arc<ClientInfo>> {
        let entry = self.clients.get(&pid)?;
        let (expected, client) = entry.value();
        let is_equal = bool::from(expected.to_be_bytes().ct_eq(secret));
        is_equal.then(|| Arc::clone(client))
    }

    /// Acts on a cancel request; nobody is ever told whether it found anything.
    pub async fn cancel(&self, pid: u32, secret: &[u8], deadline: Duration) {
        let Some(client) = self.find(pid, secret) else {
            tracing::info!("cancel request with an unknown key");
            return;
        };
        let is_console = crate::admin::DATABASES.contains(&&*client.database);
        if is_console || client.activity() == Activity::Waiting {
            client.send(Signal::CancelWait);
            return;
        }
        let Some(server) = client.server() else { return };
        if let Some(permit) = CancelPermit::acquire(&server, client.id)
            && let Err(error) = send_cancel(permit, deadline).await
        {
            tracing::info!(%error, "cancel request not delivered");
        }
    }
}
