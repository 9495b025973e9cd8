//! What the server still owes for what it was sent, in order, and who gets each reply.
//!
//! Every message that expects a reply queues one entry. A reply that belongs to a message of our own is swallowed; a
//! reply to a message that was never sent is made up when its turn comes. An error voids everything up to the next
//! `Sync`, exactly as the server does.
//!
//! <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-PIPELINING>

use std::{collections::VecDeque, sync::Arc};

use super::prepared::{Prepared, StatementId};
use crate::protocol::{TransactionStatus, backend, backend::tag};

/// The message that an entry stands for: which reply ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// `ParseComplete`
    Parse,
    /// `BindComplete`
    Bind,
    /// `CloseComplete`
    Close,
    /// `RowDescription` or `NoData`, for a statement behind a `ParameterDescription`
    Describe,
    /// `CommandComplete`, `PortalSuspended` or `EmptyQueryResponse`
    Execute,
    /// `ReadyForQuery`
    Sync,
    /// Anything, then `ReadyForQuery`
    Query,
    /// A client's query that we put between BEGIN and COMMIT: its `CommandComplete` is held, its `ReadyForQuery` is ours
    Wrapped,
    /// Our COMMIT behind it: its error or its `ReadyForQuery` is the client's
    WrappedCommit,
    /// `FunctionCallResponse`, then `ReadyForQuery`
    FunctionCall,
    /// No reply: the client has ended its side of a COPY
    CopyEnd,
}

/// Who gets the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The client.
    Forward,
    /// Nobody: the message was ours.
    Swallow,
    /// Nobody, but its rows are read by us.
    Capture(Capture),
    /// The message was not sent; the client is told that it succeeded.
    MadeUp,
}

/// A query of our own whose rows matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capture {
    /// Relations written so far in this transaction.
    LockSet,
    /// What the session holds on to.
    SessionState,
    /// Settings of the client that the server is brought to.
    Settings,
    /// What the session began with, behind a RESET: the client is told about reported parameters.
    Again,
}

/// What has to be taken back when the message turns out not to have been carried out.
#[derive(Clone, Debug, Default)]
pub enum Undo {
    /// Nothing.
    #[default]
    Nothing,
    /// The client's name was bound by it.
    Unname(Box<[u8]>),
    /// The client's name was freed by it.
    Rename(Box<[u8]>, Arc<Prepared>),
    /// The server was to prepare this.
    Unprepare(StatementId),
    /// Both of a Parse.
    UnnameAndUnprepare(Box<[u8]>, StatementId),
}

/// One entry.
#[derive(Debug)]
pub struct Reply {
    /// Which reply ends it.
    pub expected: Expected,
    /// Who gets it.
    pub delivery: Delivery,
    /// Taken back on error.
    pub undo: Undo,
}

impl Reply {
    /// The client's own message.
    #[must_use]
    pub fn forward(expected: Expected) -> Self {
        Self { expected, delivery: Delivery::Forward, undo: Undo::Nothing }
    }

    /// A message of ours.
    #[must_use]
    pub fn swallow(expected: Expected) -> Self {
        Self { expected, delivery: Delivery::Swallow, undo: Undo::Nothing }
    }

    /// A query of ours whose rows are read.
    #[must_use]
    pub fn capture(expected: Expected, capture: Capture) -> Self {
        Self { expected, delivery: Delivery::Capture(capture), undo: Undo::Nothing }
    }

    /// A message that is answered without being sent.
    #[must_use]
    pub fn made_up(expected: Expected) -> Self {
        Self { expected, delivery: Delivery::MadeUp, undo: Undo::Nothing }
    }

    /// With what is taken back on error.
    #[must_use]
    pub fn undone_by(mut self, undo: Undo) -> Self {
        self.undo = undo;
        self
    }
}

/// What becomes of a message from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes to the client as it is.
    Forward,
    /// It is dropped.
    Swallow,
    /// It is dropped after we have read it.
    Capture(Capture),
    /// It goes to the client when what follows has succeeded.
    Hold,
    /// A request ended: forwarded, with the status it carried.
    Ready(TransactionStatus),
    /// A commit of ours was cancelled before it began: the transaction is still open, and the client knows of none.
    Unended,
    /// A request of ours ended: swallowed.
    OwnReady(TransactionStatus),
    /// The server said something that nothing was owed for.
    OutOfSync,
}

/// The queue.
#[derive(Debug, Default)]
pub struct Replies {
    queue: VecDeque<Reply>,
    copy: CopyIn,
    undone: Vec<Undo>,
    /// A `Sync` was sent that the server may or may not have read while it was in COPY mode.
    is_ambiguous: bool,
    /// An extended message failed: the server reads nothing but the next `Sync`, which has not been sent yet.
    skips: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum CopyIn {
    #[default]
    No,
    /// The server reads CopyData; `Sync` and `Flush` mean nothing to it.
    Open,
    /// The client has sent its CopyDone or CopyFail.
    Ended,
}

impl Replies {
    /// Queues what was just sent. In COPY mode a `Sync` is not answered and queues nothing; behind an error nothing but
    /// a `Sync` is.
    pub fn push(&mut self, reply: Reply) {
        if self.skips && reply.expected != Expected::Sync {
            self.undone.extend(Some(reply.undo).filter(|undo| !matches!(undo, Undo::Nothing)));
            return;
        }
        self.skips = false;
        match (self.copy, reply.expected) {
            (CopyIn::Open, Expected::Sync) => self.is_ambiguous = true,
            (CopyIn::Open, Expected::CopyEnd) => self.copy = CopyIn::Ended,
            (CopyIn::No, Expected::CopyEnd) if self.queue.is_empty() => {}
            _ => self.queue.push_back(reply),
        }
    }

    /// Nothing is owed, and the server reads what is sent next.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && !self.skips
    }

    /// How many replies are owed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// The server cannot be trusted to owe exactly what the queue says.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        self.is_ambiguous
    }

    /// Only replies to the client's own messages are owed.
    #[must_use]
    pub fn owes_client(&self) -> bool {
        self.queue.iter().any(|reply| matches!(reply.delivery, Delivery::Forward | Delivery::MadeUp))
    }

    /// Does a `ReadyForQuery` that comes now end a request of the client's?
    #[must_use]
    pub fn owes_client_ready(&self) -> bool {
        self.queue.front().is_some_and(|reply| reply.delivery == Delivery::Forward)
    }

    /// Belongs what the server says next, errors and notices apart, to a message of the client's?
    #[must_use]
    pub fn is_clients_turn(&self) -> bool {
        let is_clients = |reply: &Reply| matches!(reply.delivery, Delivery::Forward | Delivery::MadeUp);
        self.queue.front().is_some_and(is_clients)
    }

    /// What has to be taken back of the client's names if nothing of what is owed counts, latest first.
    #[must_use]
    pub fn names_given(&self) -> Vec<Undo> {
        let of_names = |reply: &Reply| match &reply.undo {
            Undo::Nothing | Undo::Unprepare(_) => None,
            Undo::UnnameAndUnprepare(name, _) => Some(Undo::Unname(name.clone())),
            undo => Some(undo.clone()),
        };
        self.queue.iter().rev().filter_map(of_names).collect()
    }

    /// What has to be taken back since the last call, latest first.
    pub fn take_undone(&mut self) -> impl Iterator<Item = Undo> {
        self.undone.drain(..).rev()
    }

    /// Made-up replies whose turn has come are written to `out`.
    pub fn make_up(&mut self, mut out: impl FnMut(&'static [u8])) {
        while let Some(reply) = self.queue.front() {
            match (reply.delivery, reply.expected) {
                (Delivery::MadeUp, Expected::Parse) => out(backend::PARSE_COMPLETE),
                (Delivery::MadeUp, Expected::Close) => out(backend::CLOSE_COMPLETE),
                (Delivery::MadeUp, Expected::Bind) => out(backend::BIND_COMPLETE),
                (Delivery::MadeUp, _) => {}
                (_, Expected::CopyEnd) => {}
                _ => return,
            }
            self.queue.pop_front();
        }
    }

    /// The statement whose `Parse` is answered next, and the client's name for it.
    #[must_use]
    pub fn named_next(&self) -> Option<(&[u8], StatementId)> {
        match self.queue.front() {
            Some(Reply { expected: Expected::Parse, undo: Undo::UnnameAndUnprepare(name, id), .. }) => {
                Some((name, *id))
            }
            _ => None,
        }
    }

    /// Is a message under way that gives a statement this name?
    #[must_use]
    pub fn is_naming(&self, name: &[u8]) -> bool {
        self.queue.iter().any(|reply| match &reply.undo {
            Undo::Unname(given) | Undo::UnnameAndUnprepare(given, _) => **given == *name,
            _ => false,
        })
    }

    /// Is a message under way that prepares this statement?
    #[must_use]
    pub fn is_preparing(&self, id: StatementId) -> bool {
        self.queue.iter().any(|reply| match &reply.undo {
            Undo::Unprepare(prepared) | Undo::UnnameAndUnprepare(_, prepared) => *prepared == id,
            _ => false,
        })
    }

    /// Has a made-up reply its turn?
    #[must_use]
    pub fn has_made_up(&self) -> bool {
        self.queue
            .front()
            .is_some_and(|reply| reply.delivery == Delivery::MadeUp || reply.expected == Expected::CopyEnd)
    }

    /// Who gets rows and copy data now.
    #[must_use]
    pub fn row_verdict(&self) -> Verdict {
        self.queue.front().map_or(Verdict::OutOfSync, |reply| verdict(reply.delivery))
    }

    /// Takes note of a message that goes to the client and means nothing to the proxy. False, and nothing changed, if it
    /// is for [`Self::on_backend`] to decide; a `CommandComplete` that the caller has to read is not for this.
    pub fn pass(&mut self, message: u8) -> bool {
        let Some(front) = self.queue.front() else { return false };
        if front.delivery != Delivery::Forward || self.copy != CopyIn::No {
            return false;
        }
        let proves = matches!(front.undo, Undo::UnnameAndUnprepare(..));
        match (front.expected, message) {
            (Expected::Query | Expected::Execute, tag::DATA_ROW)
            | (Expected::Query, tag::ROW_DESCRIPTION | tag::COMMAND_COMPLETE | tag::EMPTY_QUERY_RESPONSE)
            | (Expected::Describe, tag::PARAMETER_DESCRIPTION) => return true,
            (Expected::Parse, tag::PARSE_COMPLETE) if !proves => {}
            (Expected::Bind, tag::BIND_COMPLETE)
            | (Expected::Close, tag::CLOSE_COMPLETE)
            | (Expected::Describe, tag::ROW_DESCRIPTION | tag::NO_DATA)
            | (Expected::Execute, tag::COMMAND_COMPLETE | tag::PORTAL_SUSPENDED | tag::EMPTY_QUERY_RESPONSE) => {}
            _ => return false,
        }
        self.queue.pop_front();
        true
    }

    /// Decides about one whole message; for `ReadyForQuery`, `status` is what it carries.
    pub fn on_backend(&mut self, message: u8, status: Option<TransactionStatus>) -> Verdict {
        match message {
            tag::NOTICE_RESPONSE => self.asynchronous(),
            tag::PARAMETER_STATUS => match self.queue.front().map(|reply| reply.delivery) {
                Some(Delivery::Capture(Capture::Again)) => Verdict::Forward,
                _ => self.asynchronous(),
            },
            tag::NOTIFICATION_RESPONSE => Verdict::Forward,
            tag::READY_FOR_QUERY => self.ready(status),
            tag::ERROR_RESPONSE => self.error(),
            _ => self.reply(message),
        }
    }

    /// Notices and parameter changes may come at any time; those that our own messages cause are ours.
    fn asynchronous(&self) -> Verdict {
        match self.queue.front().map(|reply| reply.delivery) {
            Some(Delivery::Swallow | Delivery::Capture(_)) => Verdict::Swallow,
            _ => Verdict::Forward,
        }
    }

    fn ready(&mut self, status: Option<TransactionStatus>) -> Verdict {
        let Some(status) = status else { return Verdict::OutOfSync };
        match self.queue.front() {
            Some(Reply { expected, delivery, .. }) if ends_with_ready(*expected) => {
                let expected = *expected;
                let is_ours = !matches!(delivery, Delivery::Forward) || expected == Expected::Wrapped;
                self.queue.pop_front();
                self.copy = CopyIn::No;
                match (is_ours, expected, status) {
                    (true, ..) => Verdict::OwnReady(status),
                    (false, Expected::WrappedCommit, TransactionStatus::Failed) => Verdict::Unended,
                    _ => Verdict::Ready(status),
                }
            }
            None if self.is_ambiguous => {
                self.skips = false;
                Verdict::Ready(status)
            }
            _ => Verdict::OutOfSync,
        }
    }

    /// Simple requests end with their own `ReadyForQuery`; an extended one loses everything up to its `Sync`.
    fn error(&mut self) -> Verdict {
        let Some(front) = self.queue.front() else {
            return Verdict::OutOfSync;
        };
        self.copy = CopyIn::No;
        let own_query = ends_with_ready(front.expected) && front.expected != Expected::Sync;
        match (front.expected, front.delivery) {
            // The client knows already why nothing is committed.
            (Expected::Wrapped, _) => self.refine_next(|asked| asked.delivery = Delivery::Swallow),
            // The transaction has failed between the client's statement and its commit: nobody else will say so.
            (Expected::Query, Delivery::Capture(Capture::LockSet)) => {
                self.refine_next(|commit| commit.expected = Expected::WrappedCommit);
                return Verdict::Forward;
            }
            _ => {}
        }
        let Some(front) = self.queue.front() else {
            return Verdict::OutOfSync;
        };
        let verdict = match front.delivery {
            // A statement that we prepare again for the client failed: the client's own message would have, too.
            Delivery::Swallow if !own_query => Verdict::Forward,
            Delivery::Capture(_) if !own_query => Verdict::Forward,
            delivery => verdict(delivery),
        };
        if !own_query {
            let sync = self.queue.iter().position(|reply| reply.expected == Expected::Sync);
            self.skips = sync.is_none();
            let dropped = self.queue.drain(..sync.unwrap_or(self.queue.len())).map(|reply| reply.undo);
            self.undone.extend(dropped.filter(|undo| !matches!(undo, Undo::Nothing)));
        }
        verdict
    }

    fn refine_next(&mut self, change: impl FnOnce(&mut Reply)) {
        if let Some(next) = self.queue.get_mut(1) {
            change(next);
        }
    }

    fn reply(&mut self, message: u8) -> Verdict {
        let Some(front) = self.queue.front() else {
            return Verdict::OutOfSync;
        };
        let (expected, delivery) = (front.expected, front.delivery);
        let ends = match (expected, message) {
            (Expected::Wrapped, tag::COMMAND_COMPLETE) => return Verdict::Hold,
            (Expected::WrappedCommit, _) => return Verdict::Swallow,
            (Expected::Query | Expected::Wrapped, _) => {
                self.note_copy(message);
                false
            }
            (Expected::FunctionCall, tag::FUNCTION_CALL_RESPONSE) => false,
            (Expected::Parse, tag::PARSE_COMPLETE)
            | (Expected::Bind, tag::BIND_COMPLETE)
            | (Expected::Close, tag::CLOSE_COMPLETE)
            | (Expected::Describe, tag::ROW_DESCRIPTION | tag::NO_DATA)
            | (Expected::Execute, tag::COMMAND_COMPLETE | tag::PORTAL_SUSPENDED | tag::EMPTY_QUERY_RESPONSE) => true,
            (Expected::Describe, tag::PARAMETER_DESCRIPTION) => false,
            (Expected::Execute, tag::COPY_IN_RESPONSE | tag::COPY_OUT_RESPONSE | tag::COPY_DONE) => {
                self.note_copy(message);
                false
            }
            _ => return Verdict::OutOfSync,
        };
        if ends {
            self.queue.pop_front();
            if expected == Expected::Execute {
                self.copy_ended();
            }
        }
        verdict(delivery)
    }

    /// The server reads CopyData from now on: every `Sync` sent before the end of the copy is not answered.
    fn note_copy(&mut self, message: u8) {
        match message {
            tag::COPY_IN_RESPONSE => {}
            tag::COMMAND_COMPLETE => {
                self.copy_ended();
                return;
            }
            _ => return,
        }
        let end = self.queue.iter().position(|reply| reply.expected == Expected::CopyEnd);
        self.copy = if end.is_some() { CopyIn::Ended } else { CopyIn::Open };
        let before = end.unwrap_or(self.queue.len());
        let mut at = 0;
        let mut voided = false;
        self.queue.retain(|reply| {
            let void = at > 0 && at < before && reply.expected == Expected::Sync;
            at += 1;
            voided |= void;
            !void
        });
        if let Some(end) = self.queue.iter().position(|reply| reply.expected == Expected::CopyEnd) {
            self.queue.remove(end);
        }
        self.is_ambiguous |= voided;
    }

    /// A COPY that has succeeded has read every `Sync` in front of its end. One that failed may have left some to be
    /// answered.
    fn copy_ended(&mut self) {
        if self.copy != CopyIn::No {
            self.copy = CopyIn::No;
            self.is_ambiguous = false;
        }
    }

    /// Is the server reading CopyData?
    #[must_use]
    pub fn is_copying_in(&self) -> bool {
        self.copy != CopyIn::No
    }
}

fn ends_with_ready(expected: Expected) -> bool {
    matches!(
        expected,
        Expected::Sync | Expected::Query | Expected::FunctionCall | Expected::Wrapped | Expected::WrappedCommit
    )
}

fn verdict(delivery: Delivery) -> Verdict {
    match delivery {
        Delivery::Forward | Delivery::MadeUp => Verdict::Forward,
        Delivery::Swallow => Verdict::Swallow,
        Delivery::Capture(capture) => Verdict::Capture(capture),
    }
}

#[cfg(test)]
mod tests;
