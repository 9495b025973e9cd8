//! SUSPEND: every client is left alone as soon as nothing is under way in its buffers, and nobody new is accepted.

use std::sync::{Arc, atomic::Ordering};

use tokio::time::Instant;

use super::{Proxy, switches::Standing};
use crate::{
    admin::{self, ConsoleError, PauseTicket, rows::PauseState},
    client::{ClientInfo, Signal},
};

/// Clients of databases.
fn clients(proxy: &Proxy) -> impl Iterator<Item = Arc<ClientInfo>> {
    let clients = proxy.context.clients.iter().map(|client| Arc::clone(client.value()));
    clients.filter(|client| !admin::DATABASES.contains(&&*client.database))
}

/// Makes clients and listeners follow the switches.
pub(super) fn follow(proxy: &Proxy) {
    let _turn = proxy.changing();
    let is_suspended = proxy.installation.switches().state_of_all() == PauseState::Suspended;
    if proxy.context.is_suspended.swap(is_suspended, Ordering::SeqCst) == is_suspended {
        return;
    }
    proxy.is_accepting.send_replace(!is_suspended);
    clients(proxy).for_each(|client| client.suspend(is_suspended));
}

/// Ready when every client rests, or somebody has ended the suspension.
pub(super) async fn suspended(proxy: Arc<Proxy>, ticket: &PauseTicket) -> Result<(), ConsoleError> {
    let began = Instant::now();
    loop {
        let mut stuck: Vec<_> = clients(&proxy).filter(|client| !client.is_at_rest()).collect();
        match proxy.installation.switches().standing(ticket, !stuck.is_empty()) {
            Standing::Waits => {}
            Standing::Reached => return Ok(()),
            Standing::Resumed => return Err(ConsoleError::Resumed),
        }
        let limit = proxy.context.settings().config.pgbouncer.suspend_timeout;
        if !limit.is_zero() && began.elapsed() >= limit {
            stuck.drain(..).for_each(|client| client.send(Signal::Stuck));
        }
        tokio::time::sleep(super::console::POLL).await;
    }
}

/// Nobody could end it: while it lasts, no other console is accepted.
pub(super) fn end_if_deserted(proxy: &Proxy) {
    let is_suspended = proxy.context.is_suspended.load(Ordering::Relaxed);
    let is_console = |client: &ClientInfo| admin::DATABASES.contains(&&*client.database);
    if is_suspended && !proxy.context.clients.iter().any(|client| is_console(client.value())) {
        tracing::info!("admin disappeared when suspended, doing RESUME");
        proxy.installation.switch(|switches| switches.resume(None));
        follow(proxy);
    }
}
