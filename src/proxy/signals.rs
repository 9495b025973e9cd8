//! Signals, with PgBouncer's meanings.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use super::{ProcessError, Proxy, Stop};

/// Acts on signals until the process stops.
pub(super) fn watch(proxy: &Arc<Proxy>) -> Result<(), ProcessError> {
    on(proxy, SignalKind::hangup(), |proxy| {
        tracing::info!("got SIGHUP, re-reading config");
        if let Err(error) = proxy.reload() {
            tracing::error!(%error, "reload failed, the running configuration stays");
        }
    })?;
    on(proxy, SignalKind::terminate(), |proxy| {
        tracing::info!("got SIGTERM, shutting down, waiting for all clients disconnect");
        proxy.stop_or_hurry(Stop::WaitForClients);
    })?;
    on(proxy, SignalKind::interrupt(), |proxy| {
        tracing::info!("got SIGINT, shutting down, waiting for all servers connections to be released");
        proxy.stop_or_hurry(Stop::WaitForServers);
    })?;
    on(proxy, SignalKind::quit(), |proxy| {
        tracing::info!("got SIGQUIT, fast exit");
        proxy.stop(Stop::Now);
    })?;
    on(proxy, SignalKind::user_defined1(), |proxy| {
        tracing::info!("got SIGUSR1, pausing all activity");
        proxy.installation.pause_all(true);
    })?;
    on(proxy, SignalKind::user_defined2(), |proxy| {
        tracing::info!("got SIGUSR2, continuing from PAUSE");
        proxy.installation.pause_all(false);
    })
}

fn on(proxy: &Arc<Proxy>, kind: SignalKind, act: impl Fn(&Proxy) + Send + 'static) -> Result<(), ProcessError> {
    let mut signals = signal(kind).map_err(ProcessError::Runtime)?;
    let (proxy, stop) = (Arc::clone(proxy), proxy.cancel.clone());
    proxy.tracker.clone().spawn(async move {
        loop {
            // Both branches are cancel safe.
            tokio::select! {
                () = stop.cancelled() => return,
                _ = signals.recv() => act(&proxy),
            }
        }
    });
    Ok(())
}
