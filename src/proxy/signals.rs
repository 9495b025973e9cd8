//! Signals, with PgBouncer's meanings.

use std::sync::Arc;

use nix::sys::signal::{SigSet, Signal};
use tokio::signal::unix::{SignalKind, signal};

use super::{ProcessError, Proxy, Stop};

const HEARD: [Signal; 6] =
    [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

/// The signals of this thread, held back by the kernel until there is somebody to hear them. Until then the default
/// would end the process, although it listens already.
pub(super) struct HeldBack(SigSet);

impl HeldBack {
    pub(super) fn new() -> Result<Self, ProcessError> {
        let signals = HEARD.into_iter().collect();
        SigSet::thread_block(&signals).map_err(|error| ProcessError::Runtime(error.into()))?;
        Ok(Self(signals))
    }

    fn release(self) -> Result<(), ProcessError> {
        self.0.thread_unblock().map_err(|error| ProcessError::Runtime(error.into()))
    }
}

/// Acts on signals until the process stops. To be called on the thread that holds them back.
pub(super) fn watch(proxy: &Arc<Proxy>, held_back: HeldBack) -> Result<(), ProcessError> {
    on(proxy, SignalKind::hangup(), |proxy| {
        tracing::info!("got SIGHUP, re-reading config");
        if let Err(error) = proxy.reload() {
            tracing::error!(%error, "reload failed, the running configuration stays");
        }
    })?;
    on(proxy, SignalKind::terminate(), |proxy| {
        proxy.stop_or_hurry(Stop::WaitForClients, "SIGTERM", "shutting down, waiting for all clients disconnect");
    })?;
    on(proxy, SignalKind::interrupt(), |proxy| {
        let waiting = "shutting down, waiting for all servers connections to be released";
        proxy.stop_or_hurry(Stop::WaitForServers, "SIGINT", waiting);
    })?;
    on(proxy, SignalKind::quit(), |proxy| {
        tracing::info!("got SIGQUIT, fast exit");
        proxy.stop(Stop::Now);
    })?;
    on(proxy, SignalKind::user_defined1(), |proxy| match proxy.installation.switch(|switches| switches.pause(None)) {
        Some(_) => tracing::info!("got SIGUSR1, pausing all activity"),
        None => tracing::info!("got SIGUSR1, but already paused/suspended"),
    })?;
    on(proxy, SignalKind::user_defined2(), |proxy| {
        let is_suspended = proxy.context.is_suspended.load(std::sync::atomic::Ordering::Relaxed);
        if proxy.is_stopping() {
            tracing::info!("got SIGUSR2 while shutting down, ignoring");
        } else if proxy.installation.switch(|switches| switches.resume(None)) {
            tracing::info!("got SIGUSR2, continuing from {}", if is_suspended { "SUSPEND" } else { "PAUSE" });
            super::suspension::follow(proxy);
        } else {
            tracing::info!("got SIGUSR2, but not paused/suspended");
        }
    })?;
    held_back.release()
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
