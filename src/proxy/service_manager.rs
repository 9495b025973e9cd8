//! What a service manager is told, and the sockets that it hands over: sd_notify(3), sd_listen_fds(3). Without one,
//! nothing happens here.

use listenfd::ListenFd;
use sd_notify::NotifyState;

use super::ProcessError;
use crate::net::Listener;

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager was not told");
    }
}

/// Clients are served, or served again by another configuration.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is being read again; [`ready`] follows.
pub(super) fn reloading() {
    // Without the time of the event, the service manager could not tell it from an earlier one.
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

/// It is on its way out.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// A line for `systemctl status`.
pub(super) fn status(line: &str) {
    tell(&[NotifyState::Status(line)]);
}

/// The sockets of a socket unit; none: the configuration says where to listen. They stay the service manager's, so no
/// file is removed at the end.
pub(super) fn listeners() -> Result<Vec<Listener>, ProcessError> {
    let mut handed_over = ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..handed_over.len() {
        let failed = |source| ProcessError::Listen { address: format!("socket {index} of LISTEN_FDS"), source };
        if let Ok(Some(listener)) = handed_over.take_unix_listener(index) {
            listener.set_nonblocking(true).map_err(failed)?;
            listeners.push(Listener::Unix(listener, None));
        } else if let Some(listener) = handed_over.take_tcp_listener(index).map_err(failed)? {
            listener.set_nonblocking(true).map_err(failed)?;
            listeners.push(Listener::Tcp(listener));
        }
    }
    Ok(listeners)
}
