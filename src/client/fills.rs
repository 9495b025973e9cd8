//! Answers on their way to the cache, one for each statement that a request executes.

use crate::{
    cache::{Discard, FillGuard, FillOutcome},
    protocol::backend::tag,
    routing::Fence,
};

/// One answer.
#[derive(Debug)]
pub(super) struct Fill {
    pub guard: Box<FillGuard>,
    /// It is kept for at most so long, nanoseconds.
    pub ttl: Option<u64>,
}

/// Those of one request, in order.
#[derive(Debug)]
pub(super) enum Fills {
    /// It executes one statement.
    One(Fill),
    /// It executes several; `None`: the answer of this one is not kept.
    Several { fills: Vec<Option<Fill>>, at: usize, sent: u64 },
}

impl Fills {
    fn each(&self) -> impl Iterator<Item = &Fill> {
        match self {
            Self::One(fill) => std::slice::from_ref(fill).iter().chain([].iter().flatten()),
            Self::Several { fills, .. } => [].iter().chain(fills.iter().flatten()),
        }
    }

    fn current(&mut self) -> Option<&mut FillGuard> {
        match self {
            Self::One(fill) => Some(&mut fill.guard),
            Self::Several { fills, at, .. } => fills.get_mut(*at)?.as_mut().map(|fill| &mut *fill.guard),
        }
    }

    /// The request is sent at `now`.
    pub(super) fn sent_at(&mut self, now: u64) {
        match self {
            Self::One(fill) => fill.guard.sent_at(now),
            Self::Several { sent, .. } => *sent = now,
        }
    }

    /// What a replica must have replayed to bring them; where they are only looked at, they may come from anywhere.
    pub(super) fn fence(&self) -> Option<Fence> {
        let fences = self.each().filter(|fill| !fill.guard.observes()).map(|fill| fill.guard.fence());
        fences.reduce(Fence::and)
    }

    /// Takes a whole message of the answers.
    pub(super) fn feed(&mut self, message: &[u8]) {
        if let Some(guard) = self.current() {
            guard.feed(message);
        }
        let ends_one = matches!(message.first(), Some(&(tag::COMMAND_COMPLETE | tag::PORTAL_SUSPENDED)));
        if let (Self::Several { at, .. }, true) = (self, ends_one) {
            *at += 1;
        }
    }

    /// A message is too long to be looked at.
    pub(super) fn too_large(&mut self) {
        if let Some(guard) = self.current() {
            guard.discard(Discard::TooLarge);
        }
    }

    /// All of them are complete. What became of the last one that was to be kept.
    pub(super) fn commit(self, status: u8, now: u64) -> Option<FillOutcome> {
        match self {
            Self::One(Fill { guard, ttl }) => Some(guard.commit(status, ttl, now)),
            Self::Several { fills, sent, .. } => {
                // What each of them costs is not known apart.
                let share = now.saturating_sub(sent) / fills.len().max(1) as u64;
                let commit = |mut fill: Fill| {
                    fill.guard.sent_at(now.saturating_sub(share));
                    fill.guard.commit(status, fill.ttl, now)
                };
                fills.into_iter().flatten().map(commit).last()
            }
        }
    }
}
