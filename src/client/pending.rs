//! Requests that the server has not finished, and what each of them will leave behind.

use std::{collections::VecDeque, sync::Arc};

use super::fills::Fills;
use crate::{
    cache::{Cells, Discard, Touched, WriteGuard, invalidation::Ticket},
    insight::{Absence, CacheOutcome, Route, Work},
    protocol::TransactionStatus,
    routing::MemberId,
    sql::Statement,
};

/// A request that may commit something: settled by its `ReadyForQuery`.
#[derive(Debug)]
pub(super) struct WriteUnit {
    /// The marks on the stamps; `None` if nothing was cached when it began.
    pub guard: Option<WriteGuard>,
    /// Marks of later parts of the same request, few of them: the last may stand for any number.
    pub more: Vec<WriteGuard>,
    /// The last of `more` marks everything.
    pub marks_everything: bool,
    /// Something in it may have committed, however it ends.
    pub commits_inside: bool,
    /// A `CommandComplete` in it may tell of a commit before its `ReadyForQuery` does.
    pub reveals_early: bool,
    /// It changes the catalog.
    pub catalog_change: bool,
    /// What the server says of the locks is about this.
    pub has_lock_set: bool,
    /// The server said that no transaction id was assigned: nothing was written.
    pub wrote_nothing: bool,
}

/// How a unit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is visible to everybody.
    Committed,
    /// Nothing of it is.
    RolledBack,
}

impl WriteUnit {
    /// What the end of its request says about it.
    pub(super) fn outcome(&self, status: TransactionStatus, has_failed: bool) -> Outcome {
        let has_committed = status == TransactionStatus::Idle && !has_failed;
        if self.wrote_nothing || !(has_committed || self.commits_inside) {
            Outcome::RolledBack
        } else {
            Outcome::Committed
        }
    }
}

/// Parts of one request that have marks of their own; behind them one mark on everything stands for the rest.
const MOST_PARTS: usize = 16;

/// Adds what a later part of the same request may commit. What it returns must have been heard before that part is sent.
pub(super) fn merge(earlier: &mut Option<WriteUnit>, later: Option<WriteUnit>, cells: &Arc<Cells>) -> Ticket {
    match (earlier.as_mut(), later) {
        (_, None) => Ticket::NONE,
        (None, later) => {
            *earlier = later;
            Ticket::NONE
        }
        (Some(earlier), Some(later)) => {
            earlier.commits_inside |= later.commits_inside;
            earlier.reveals_early |= later.reveals_early;
            earlier.catalog_change |= later.catalog_change;
            let mut ticket = Ticket::NONE;
            for guard in later.guard.into_iter().chain(later.more) {
                if earlier.more.len() < MOST_PARTS {
                    earlier.more.push(guard);
                    continue;
                }
                if !std::mem::replace(&mut earlier.marks_everything, true) {
                    // A part that is yet to come may change definitions.
                    earlier.catalog_change = true;
                    let mut everything = cells.begin_write(Touched::Database, true);
                    everything.stands_for(&guard);
                    ticket = everything.announce().max(ticket);
                    earlier.more.push(everything);
                }
                // Its marks go behind those that cover them.
                guard.rolled_back();
            }
            ticket
        }
    }
}

/// One request.
#[derive(Debug)]
pub(super) struct Pending {
    /// Its shape.
    pub statement: Option<Arc<Statement>>,
    /// Its first byte was read, nanoseconds.
    pub started: u64,
    /// How long it waited for a server.
    pub queued: u64,
    /// Where it runs.
    pub route: Route,
    /// Why.
    pub route_reason: &'static str,
    /// On which member.
    pub member: Option<MemberId>,
    /// What the cache did.
    pub cache: CacheOutcome,
    /// Why.
    pub cache_reason: &'static str,
    /// Why it had no answer, if it was asked in vain.
    pub absence: Option<Absence>,
    /// Rows sent.
    pub rows: u64,
    /// Bytes sent to the client.
    pub sent: u64,
    /// Bytes received from the client.
    pub received: u64,
    /// What it made the proxy do.
    pub work: Work,
    /// It ended in this error.
    pub sqlstate: Option<[u8; 5]>,
    /// Its last message has been sent.
    pub is_whole: bool,
    /// It runs outside of a transaction block and changes nothing of the session.
    pub leaves_no_trace: bool,
    /// It joined an open transaction block.
    pub is_in_transaction: bool,
    /// What it may commit.
    pub unit: Option<WriteUnit>,
    /// Its answers on the way to the cache.
    pub fills: Option<Fills>,
}

/// Requests under way, oldest first.
#[derive(Debug, Default)]
pub(super) struct PendingRequests {
    queue: VecDeque<Pending>,
}

impl PendingRequests {
    pub(super) fn push(&mut self, pending: Pending) {
        // Most clients never have two requests under way.
        if self.queue.capacity() == 0 {
            self.queue.reserve_exact(1);
        }
        self.queue.push_back(pending);
    }

    /// The one that the server answers now.
    pub(super) fn front(&mut self) -> Option<&mut Pending> {
        self.queue.front_mut()
    }

    /// The one that is still being sent.
    pub(super) fn unfinished(&mut self) -> Option<&mut Pending> {
        self.queue.back_mut().filter(|pending| !pending.is_whole)
    }

    pub(super) fn pop(&mut self) -> Option<Pending> {
        self.queue.pop_front()
    }

    /// No answer of those under way is kept.
    pub(super) fn give_up_fills(&mut self, why: Discard) {
        self.queue.iter_mut().filter_map(|pending| pending.fills.as_mut()).for_each(|fills| fills.give_up(why));
    }

    /// What follows them on their connection is theirs alone.
    pub(super) fn tie(&mut self) {
        self.queue.iter_mut().for_each(|pending| pending.leaves_no_trace = false);
    }

    /// Will the session be behind all of them as it was in front?
    pub(super) fn leave_no_trace(&self) -> bool {
        self.queue.iter().all(|pending| pending.leaves_no_trace)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::RelationOid;

    fn part(guard: WriteGuard) -> WriteUnit {
        WriteUnit {
            guard: Some(guard),
            more: Vec::new(),
            marks_everything: false,
            commits_inside: false,
            reveals_early: false,
            catalog_change: false,
            has_lock_set: true,
            wrote_nothing: false,
        }
    }

    #[test]
    fn a_request_of_any_number_of_parts_holds_a_bounded_number_of_marks_that_cover_them_all() {
        let cells = Arc::new(Cells::new(1, 1));
        let mut unit = None;
        for number in 0..100_000 {
            let relation = RelationOid(number);
            let guard = cells.begin_write(Touched::Relations(&[relation]), false);
            merge(&mut unit, Some(part(guard)), &cells);
            assert!(cells.capture(&[relation], cells.catalog_epoch()).is_err(), "part {number} is marked");
        }
        let unit = unit.unwrap();
        assert!(unit.more.len() <= MOST_PARTS + 1 && unit.catalog_change, "{}", unit.more.len());
        assert_eq!((cells.wide_writes_in_flight(), cells.in_doubt()), ((1, 1), 0));
        let first = [RelationOid(0)];
        for guard in unit.guard.into_iter().chain(unit.more) {
            assert!(cells.capture(&first, cells.catalog_epoch()).is_err(), "one is still in flight");
            guard.committed(2, || 7);
        }
        assert!(cells.capture(&first, cells.catalog_epoch()).is_ok());
    }
}
