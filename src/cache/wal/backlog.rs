//! Transactions that the stream has told of and nobody may have seen yet, and how far everything is known.

use std::collections::VecDeque;

use super::{Changes, Transaction, Visibility};
use crate::lsn::Lsn;

/// Transactions that may wait at once. All writers of a server may hang behind a synchronous standby, not more.
const MOST_WAITING: usize = 65_536;
/// Relations that they may name together.
const MOST_RELATIONS: usize = 1 << 20;
/// Answers whose position the stream has not reached.
const MOST_MARKS: usize = 64;

/// More waits than may: the stream has to begin anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many transactions wait to become visible")]
pub struct Overflow;

/// What the primary has answered. The times are those of one clock of ours.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Before the question was sent.
    pub asked_at: u64,
    /// Those who asked up to this ticket had done so before the question was sent.
    pub ticket: u64,
    /// Taken while the question was answered.
    pub visibility: Visibility,
    /// End of the last record, read after the snapshot was taken.
    pub inserted: Lsn,
}

/// What has to be done, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// To be voided.
    pub changes: Changes,
    /// Then everything is known that anybody could see at this time.
    pub horizon: Option<u64>,
    /// And those who hold this ticket, or one before it, may go on.
    pub ticket: Option<u64>,
}

#[derive(Debug)]
struct Waiting {
    xid: u64,
    changes: Changes,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    asked_at: u64,
    ticket: u64,
    inserted: Lsn,
}

/// The queue between the stream and the stamps.
#[derive(Debug)]
pub struct Backlog {
    waiting: Vec<Waiting>,
    relations: usize,
    visibility: Visibility,
    marks: VecDeque<Mark>,
    position: Lsn,
    settled: Settled,
    #[cfg(debug_assertions)]
    is_ablated: bool,
}

impl Backlog {
    /// `answer` was asked for after the slot had been made, and the stream begins with the slot.
    ///
    /// A transaction may have committed before the slot and wait for a standby, so that nobody sees it yet and the
    /// stream will not tell of it. It is one of those in progress; they all may have written anything.
    #[must_use]
    pub fn new(answer: Answer) -> Self {
        let suspect = |xid: &u64| Waiting { xid: *xid, changes: Changes::everything() };
        let mut backlog = Self {
            waiting: answer.visibility.in_progress().iter().map(suspect).collect(),
            relations: 0,
            visibility: answer.visibility.clone(),
            marks: VecDeque::new(),
            position: Lsn::default(),
            settled: Settled::default(),
            #[cfg(debug_assertions)]
            is_ablated: false,
        };
        backlog.answered(answer);
        backlog
    }

    /// What the stream tells counts as visible: shows that a test finds the stale answers which that brings.
    #[cfg(debug_assertions)]
    #[must_use]
    pub fn ablated(self) -> Self {
        Self { is_ablated: true, ..self }
    }

    /// The stream has told of a transaction, and of all that committed before it.
    ///
    /// # Errors
    /// Too many wait.
    pub fn committed(&mut self, transaction: Transaction) -> Result<(), Overflow> {
        let Transaction { xid, end, changes } = transaction;
        let xid = self.visibility.widen(xid);
        if !changes.is_empty() {
            if self.shows(xid) {
                self.settled.changes.merge(&changes);
            } else {
                self.relations += changes.count();
                self.waiting.push(Waiting { xid, changes });
                if self.waiting.len() > MOST_WAITING || self.relations > MOST_RELATIONS {
                    return Err(Overflow);
                }
            }
        }
        self.reached(end);
        Ok(())
    }

    /// Something was said outside of any transaction.
    pub fn said(&mut self, changes: &Changes) {
        self.settled.changes.merge(changes);
    }

    /// The stream has told of all commits up to there.
    pub fn reached(&mut self, position: Lsn) {
        self.position = self.position.max(position);
        self.pass_marks();
    }

    /// The primary has answered a question that was asked after the one before had been answered.
    pub fn answered(&mut self, answer: Answer) {
        self.visibility = answer.visibility;
        let (visibility, settled) = (&self.visibility, &mut self.settled);
        self.waiting.retain(|waiting| {
            let is_visible = visibility.shows(waiting.xid);
            if is_visible {
                settled.changes.merge(&waiting.changes);
            }
            !is_visible
        });
        self.relations = self.waiting.iter().map(|waiting| waiting.changes.count()).sum();
        let mark = Mark { asked_at: answer.asked_at, ticket: answer.ticket, inserted: answer.inserted };
        if self.marks.len() >= MOST_MARKS {
            // The newer one stands for both.
            self.marks.pop_back();
        }
        self.marks.push_back(mark);
        self.pass_marks();
    }

    /// What has to be done by now.
    pub fn settle(&mut self) -> Settled {
        std::mem::take(&mut self.settled)
    }

    /// Does something wait to become visible?
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// How many wait to become visible.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// When the question was asked whose position the stream has not reached, if there is one.
    #[must_use]
    pub fn behind_since(&self) -> Option<u64> {
        self.marks.front().map(|mark| mark.asked_at)
    }

    /// How far the stream is.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.position
    }

    fn shows(&self, xid: u64) -> bool {
        #[cfg(debug_assertions)]
        if self.is_ablated {
            return true;
        }
        self.visibility.shows(xid)
    }

    fn pass_marks(&mut self) {
        while let Some(mark) = self.marks.front().filter(|mark| mark.inserted <= self.position).copied() {
            self.marks.pop_front();
            self.settled.horizon = self.settled.horizon.max(Some(mark.asked_at));
            self.settled.ticket = self.settled.ticket.max(Some(mark.ticket));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(asked_at: u64, snapshot: &str, inserted: u64) -> Answer {
        Answer { asked_at, ticket: asked_at, visibility: snapshot.parse().unwrap(), inserted: Lsn::new(inserted) }
    }

    fn rows(oids: &[u32]) -> Changes {
        Changes { rows: oids.to_vec(), ..Changes::default() }
    }

    fn transaction(xid: u32, end: u64, oid: u32) -> Transaction {
        Transaction { xid, end: Lsn::new(end), changes: rows(&[oid]) }
    }

    /// A stream that began at position 100, on an idle server whose next transaction is 10.
    fn idle() -> Backlog {
        let mut backlog = Backlog::new(answer(1, "10:10:", 100));
        assert_eq!(backlog.settle(), Settled::default(), "the stream has not shown up yet");
        backlog.reached(Lsn::new(100));
        assert_eq!(backlog.settle(), Settled { horizon: Some(1), ticket: Some(1), ..Settled::default() });
        backlog
    }

    #[test]
    fn a_commit_waits_until_a_snapshot_shows_it() {
        let mut backlog = idle();
        backlog.committed(transaction(10, 120, 7)).unwrap();
        assert!(backlog.is_waiting());
        assert_eq!(backlog.settle(), Settled::default());
        backlog.answered(answer(2, "10:11:10", 120));
        let expected = Settled { horizon: Some(2), ticket: Some(2), ..Settled::default() };
        assert_eq!(backlog.settle(), expected, "nobody could see it then, so nothing is missing");
        backlog.answered(answer(3, "11:11:", 120));
        assert_eq!(backlog.settle(), Settled { changes: rows(&[7]), horizon: Some(3), ticket: Some(3) });
        assert!(!backlog.is_waiting());
    }

    #[test]
    fn a_commit_that_a_snapshot_has_shown_before_it_came_waits_for_nothing() {
        let mut backlog = idle();
        backlog.answered(answer(2, "11:11:", 120));
        assert_eq!(backlog.settle(), Settled::default(), "the stream is behind");
        assert_eq!(backlog.behind_since(), Some(2));
        backlog.committed(transaction(10, 120, 7)).unwrap();
        assert_eq!(backlog.settle(), Settled { changes: rows(&[7]), horizon: Some(2), ticket: Some(2) });
    }

    #[test]
    fn those_in_progress_at_the_beginning_may_have_written_anything() {
        let mut backlog = Backlog::new(answer(1, "10:14:10,12", 100));
        backlog.reached(Lsn::new(100));
        assert_eq!(backlog.settle().horizon, Some(1));
        backlog.answered(answer(2, "12:14:12", 100));
        assert_eq!(backlog.settle().changes, Changes::everything());
        backlog.answered(answer(3, "12:14:12", 100));
        assert_eq!(backlog.settle().changes, Changes::default());
        backlog.answered(answer(4, "15:15:", 100));
        assert_eq!(backlog.settle().changes, Changes::everything());
        assert!(!backlog.is_waiting());
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut backlog = idle();
        for xid in 0..MOST_WAITING as u32 {
            backlog.committed(transaction(100 + xid, 120, 7)).unwrap();
        }
        assert_eq!(backlog.committed(transaction(90, 120, 7)), Err(Overflow));
        for asked_at in 2..500 {
            backlog.answered(answer(asked_at, "10:11:10", 1_000 + asked_at));
            assert!(backlog.marks.len() <= MOST_MARKS);
        }
        backlog.reached(Lsn::new(2_000));
        assert_eq!(backlog.settle().ticket, Some(499), "the last one stands for those that found no room");
    }

    #[test]
    fn empty_transactions_and_what_is_said_aside_wait_for_nothing() {
        let mut backlog = idle();
        backlog.committed(Transaction { changes: Changes::default(), ..transaction(10, 120, 7) }).unwrap();
        backlog.said(&rows(&[5]));
        assert!(!backlog.is_waiting());
        assert_eq!((backlog.settle().changes, backlog.position()), (rows(&[5]), Lsn::new(120)));
    }
}
