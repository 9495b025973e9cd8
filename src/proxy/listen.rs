//! Listening and accepting.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::{runtime::Handle, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{ProcessError, Proxy, Stop, service_manager, workers::Workers};
use crate::{
    config::Config,
    net::{Acceptor, Listener},
};

/// After a failed accept (out of descriptors), the next is tried no sooner.
const PAUSE: Duration = Duration::from_millis(100);

/// Takes the sockets that a service manager has opened, or opens every address of the configuration.
pub(super) fn open(config: &Config) -> Result<Vec<Listener>, ProcessError> {
    let main = &config.pgbouncer;
    let mut listeners = service_manager::listeners()?;
    if !listeners.is_empty() {
        return Ok(listeners);
    }
    // First, as PgBouncer does: that another process has it is the plainer word.
    if !main.unix_socket_dir.is_empty() {
        let path = PathBuf::from(format!("{}/.s.PGSQL.{}", main.unix_socket_dir, main.listen_port));
        let address = path.display().to_string();
        let listener = Listener::unix(path, main.unix_socket_mode.0, &main.unix_socket_group);
        listeners.push(listener.map_err(|source| ProcessError::Listen { address, source })?);
    }
    let unix = listeners.len();
    let mut last_error = None;
    for address in addresses(config)? {
        match Listener::tcp(address, main.listen_backlog as i32, main.so_reuseport) {
            Ok(listener) => listeners.push(listener),
            Err(source) => last_error = Some(ProcessError::Listen { address: address.to_string(), source }),
        }
    }
    // As PgBouncer: some address must work, not each of them.
    if let Some(error) = last_error {
        if listeners.len() == unix {
            return Err(error);
        }
        tracing::warn!(%error, "address skipped");
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
///
/// # Errors
/// A socket cannot be watched.
pub(super) async fn accept_until_stopped(
    proxy: &Arc<Proxy>,
    listeners: Vec<Listener>,
    workers: &Arc<Workers>,
) -> Result<(), ProcessError> {
    let mut wish = proxy.stop.subscribe();
    let is_drained = CancellationToken::new();
    let mut accepting = JoinSet::new();
    for listener in listeners {
        let (workers, is_drained) = (Arc::clone(workers), is_drained.clone());
        let is_tcp = !listener.is_unix();
        let mut wish = proxy.stop.subscribe();
        let stop = async move {
            match is_tcp {
                true => _ = wish.wait_for(|wish| *wish != Stop::No).await,
                false => is_drained.cancelled().await,
            }
        };
        let is_accepting = proxy.is_accepting.subscribe();
        let runtime = workers.first().clone();
        let acceptor = watched_by(&runtime, listener)?;
        let work = async move {
            // Cancel safe: a client that is not handed over yet is refused by its socket closing.
            tokio::select! {
                () = accept(acceptor, &workers, is_accepting) => {}
                () = stop => {}
            }
        };
        accepting.spawn_on(work, &runtime);
    }
    // Cancel safe: a task that has ended stays in the set until it is taken from it.
    tokio::select! {
        _ = wish.wait_for(|wish| *wish != Stop::No) => {}
        // The wish ends accept loops, too, and they may hear of it first.
        Some(ended) = accepting.join_next() => if *proxy.stop.borrow() == Stop::No {
            tracing::error!(?ended, "an accept loop has ended");
            return Err(ProcessError::AcceptEnded);
        }
    }
    super::drain(proxy).await;
    is_drained.cancel();
    accepting.join_all().await;
    Ok(())
}

fn watched_by(runtime: &Handle, listener: Listener) -> Result<Acceptor, ProcessError> {
    let _inside = runtime.enter();
    Acceptor::new(listener).map_err(ProcessError::Runtime)
}

async fn accept(acceptor: Acceptor, workers: &Workers, mut is_accepting: watch::Receiver<bool>) {
    loop {
        // Another process may be about to.
        if is_accepting.wait_for(|is_accepting| *is_accepting).await.is_err() {
            return;
        }
        // Both branches are cancel safe. Who comes after the change waits.
        let accepted = tokio::select! {
            biased;
            _ = is_accepting.changed() => continue,
            accepted = acceptor.accept() => accepted,
        };
        match accepted {
            Ok(client) => workers.hand_over(client),
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
