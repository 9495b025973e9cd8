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

/// Those of one request.
#[derive(Debug)]
pub(super) enum Fills {
    /// It executes one statement.
    One(Fill),
    /// It executes several.
    Several(Several),
}

/// Those of several statements, in order.
#[derive(Debug)]
pub(super) struct Several {
    /// `None`: the answer of this one is not kept.
    pub fills: Vec<Option<Fill>>,
    /// The one that is answered now.
    pub at: usize,
    /// When the request was sent, nanoseconds.
    pub sent: u64,
    /// Bytes that their answers may still have together.
    pub room: usize,
}

impl Several {
    fn feed(&mut self, message: &[u8]) {
        self.room = match (message.first(), self.room.checked_sub(message.len())) {
            (Some(&tag::ERROR_RESPONSE), _) => return self.give_up(Discard::Error),
            // Nobody knows which of the statements it was about.
            (Some(&tag::NOTICE_RESPONSE), _) => return self.give_up(Discard::Notice),
            (_, None) => return self.give_up(Discard::TooLarge),
            (_, Some(room)) => room,
        };
        if let Some(Some(fill)) = self.fills.get_mut(self.at) {
            fill.guard.feed(message);
        }
        let ends_one = matches!(message.first(), Some(&(tag::COMMAND_COMPLETE | tag::PORTAL_SUSPENDED)));
        self.at += usize::from(ends_one);
    }

    fn give_up(&mut self, why: Discard) {
        self.fills.iter_mut().flatten().for_each(|fill| fill.guard.discard(why));
    }
}

impl Fills {
    /// The request is sent at `now`.
    pub(super) fn sent_at(&mut self, now: u64) {
        match self {
            Self::One(fill) => fill.guard.sent_at(now),
            Self::Several(several) => several.sent = now,
        }
    }

    /// What a replica must have replayed to bring them; where they are only looked at, they may come from anywhere.
    pub(super) fn fence(&self) -> Option<Fence> {
        let fence = |fill: &Fill| (!fill.guard.observes()).then(|| fill.guard.fence());
        match self {
            Self::One(fill) => fence(fill),
            Self::Several(several) => several.fills.iter().flatten().filter_map(fence).reduce(Fence::and),
        }
    }

    /// Takes a whole message of the answers.
    pub(super) fn feed(&mut self, message: &[u8]) {
        match self {
            Self::One(fill) => _ = fill.guard.feed(message),
            Self::Several(several) => several.feed(message),
        }
    }

    /// None of them is kept, for a reason that the answers do not show.
    pub(super) fn give_up(&mut self, why: Discard) {
        match self {
            Self::One(fill) => fill.guard.discard(why),
            Self::Several(several) => several.give_up(why),
        }
    }

    /// All of them are complete. What became of the last one that was to be kept.
    pub(super) fn commit(self, status: u8, now: u64) -> Option<FillOutcome> {
        match self {
            Self::One(Fill { guard, ttl }) => Some(guard.commit(status, ttl, now)),
            Self::Several(Several { fills, sent, .. }) => {
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
