//! Listening and accepting.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use super::{ProcessError, Proxy, Stop, workers::Workers};
use crate::{
    config::Config,
    net::{Accepted, Listener},
};

/// After a failed accept (out of descriptors), the next is tried no sooner.
const PAUSE: Duration = Duration::from_millis(100);

/// Opens every address of the configuration.
pub(super) fn open(config: &Config) -> Result<Vec<Listener>, ProcessError> {
    let main = &config.pgbouncer;
    let mut listeners = Vec::new();
    let mut last_error = None;
    for address in addresses(config)? {
        match Listener::tcp(address, main.listen_backlog as i32, main.so_reuseport) {
            Ok(listener) => listeners.push(listener),
            Err(source) => last_error = Some(ProcessError::Listen { address: address.to_string(), source }),
        }
    }
    // As PgBouncer: some address must work, not each of them.
    if let Some(error) = last_error {
        if listeners.is_empty() {
            return Err(error);
        }
        tracing::warn!(%error, "address skipped");
    }
    if !main.unix_socket_dir.is_empty() {
        let path = PathBuf::from(format!("{}/.s.PGSQL.{}", main.unix_socket_dir, main.listen_port));
        let address = path.display().to_string();
        let listener = Listener::unix(path, main.unix_socket_mode.0);
        listeners.push(listener.map_err(|source| ProcessError::Listen { address, source })?);
    }
    if listeners.is_empty() {
        return Err(ProcessError::NowhereToListen);
    }
    Ok(listeners)
}

fn addresses(config: &Config) -> Result<Vec<SocketAddr>, ProcessError> {
    let main = &config.pgbouncer;
    let port = main.listen_port;
    let mut found = Vec::new();
    for name in main.listen_addr.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if name == "*" {
            found.push(SocketAddr::from(([0, 0, 0, 0], port)));
            continue;
        }
        let resolved = (name, port).to_socket_addrs();
        found.extend(resolved.map_err(|source| ProcessError::Listen { address: name.to_owned(), source })?);
    }
    Ok(found)
}

/// Accepts until the process stops. TCP is closed first; the unix socket stays for the console while clients leave.
pub(super) async fn accept_until_stopped(proxy: &Arc<Proxy>, listeners: Vec<Listener>, workers: &Workers) {
    let (unix, tcp): (Vec<_>, Vec<_>) = listeners.into_iter().partition(Listener::is_unix);
    let mut wish = proxy.stop.subscribe();
    let accepting = async {
        loop {
            let accepted = accept_any(unix.iter().chain(&tcp)).await;
            take(accepted, workers).await;
        }
    };
    // Cancel safe: a client that is not handed over yet is refused by its socket closing.
    tokio::select! {
        () = accepting => {}
        _ = wish.wait_for(|wish| *wish != Stop::No) => {}
    }
    drop(tcp);
    let on_console = async {
        loop {
            let accepted = accept_any(unix.iter()).await;
            take(accepted, workers).await;
        }
    };
    if unix.is_empty() {
        return super::drain(proxy).await;
    }
    // Cancel safe, as above.
    tokio::select! {
        () = on_console => {}
        () = super::drain(proxy) => {}
    }
}

async fn take(accepted: std::io::Result<Accepted>, workers: &Workers) {
    match accepted {
        Ok(client) => workers.hand_over(client).await,
        Err(error) => {
            tracing::warn!(%error, "accept failed");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn accept_any<'a>(listeners: impl Iterator<Item = &'a Listener>) -> std::io::Result<Accepted> {
    let mut accepting: Vec<_> = listeners.map(|listener| Box::pin(listener.accept())).collect();
    std::future::poll_fn(|cx| {
        for accept in &mut accepting {
            if let std::task::Poll::Ready(accepted) = std::future::Future::poll(accept.as_mut(), cx) {
                return std::task::Poll::Ready(accepted);
            }
        }
        std::task::Poll::Pending
    })
    .await
}
