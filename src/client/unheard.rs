//! Waiting for other proxies to hear of a write.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{Client, ClientError, info::Signal};
use crate::{
    cache::{bus::Bus, invalidation::Ticket},
    pool::CheckoutError,
};

/// How long a write waits. The others are a matter of milliseconds, and who does not answer is not waited for for longer than
/// its lease; what takes longer is a primary that does not say who they are.
pub(super) const HEARD_WITHIN: Duration = Duration::from_secs(30);
/// Behind this it shows as a client that waits, and a cancel request ends it.
const SHOWN_AFTER: Duration = Duration::from_millis(500);

/// What the others must have heard before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextStep {
    /// A commit is sent. Nothing of it has been.
    Commit,
    /// The client learns of a commit. Everything that it was sent before ended with a message, or did not.
    Tell { is_between: bool },
}

impl Client {
    /// Would an error stand between two messages, if what waits to be sent now were dropped? Asked only where other proxies
    /// may have to be waited for.
    pub(super) fn is_between_messages(&self) -> bool {
        let is_whole = |link: &super::Link| {
            let inbox = &link.server.core().endpoint.inbox;
            inbox.approved_len() == 0 && !inbox.is_inside_message()
        };
        self.session.database.real.bus().is_some() && self.io.is_flushed() && self.link.as_ref().is_none_or(is_whole)
    }

    /// Waits until other proxies have heard of what is about to be sent.
    pub(super) async fn be_heard(&mut self, next: NextStep) -> Result<(), ClientError> {
        let ticket = std::mem::take(&mut self.unheard);
        let Some(bus) = self.session.database.real.bus().cloned() else { return Ok(()) };
        let waited = Box::pin(self.wait_for_others(&bus, ticket, next)).await;
        waited.map_err(|end| match next {
            NextStep::Commit => end,
            NextStep::Tell { is_between } => self.keep_to_itself(end, is_between),
        })
    }

    /// Nothing leaves meanwhile, in either direction.
    async fn wait_for_others(&mut self, bus: &Arc<Bus>, ticket: Ticket, next: NextStep) -> Result<(), ClientError> {
        let info = Arc::clone(&self.info);
        // An older wish to be woken would be served first.
        self.signalled = None;
        let (since, activity) = (self.context.clock.now(), info.activity());
        let mut is_shown = false;
        let heard = bus.heard(ticket);
        let patience = sleep(SHOWN_AFTER);
        tokio::pin!(heard, patience);
        let waited = loop {
            // All three are cancel safe: what was heard stays so, a signal stays set.
            tokio::select! {
                biased;
                () = &mut heard => break Ok(()),
                () = info.signalled() => {}
                () = &mut patience => {
                    if is_shown {
                        break Err(ClientError::Unheard { may_be_committed: false });
                    }
                    is_shown = true;
                    // A wish that came before was for the request that is written by now.
                    info.take_cancel();
                    info.wait_since(since);
                    patience.as_mut().reset(Instant::now() + HEARD_WITHIN);
                }
            }
            match info.signal() {
                Signal::CancelWait if info.take_cancel() && next == NextStep::Commit => {
                    break Err(ClientError::Cancelled);
                }
                signal => {
                    if let Some(end) = signal.end() {
                        break Err(end);
                    }
                }
            }
            if info.is_nudged() {
                let checked = self.check_deadlines();
                let late = checked.and_then(|()| if is_shown { self.check_patience(since, true) } else { Ok(false) });
                if let Err(late) = late {
                    break Err(late);
                }
            }
        };
        if is_shown {
            info.set_activity(activity);
        }
        waited
    }

    /// It may be committed, and must not be told so.
    fn keep_to_itself(&mut self, end: ClientError, is_between: bool) -> ClientError {
        self.io.outbox.discard();
        if let Some(link) = &mut self.link {
            link.server.core_mut().endpoint.inbox.discard_approved();
        }
        self.is_mute = !is_between;
        match end {
            // These would say that it has failed.
            ClientError::Unheard { .. }
            | ClientError::Overdue(_)
            | ClientError::Checkout(CheckoutError::WaitTimeout { .. }) => {
                ClientError::Unheard { may_be_committed: true }
            }
            end => end,
        }
    }
}
