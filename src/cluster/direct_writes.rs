//! What is known of writes that bypass the proxy: shared by whoever follows the primary's stream and whoever waits for it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, watch};

use crate::cache::Cells;

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectSettings {
    /// The publication to listen to.
    pub publication: Arc<str>,
    /// A hit that begins so long after a write could be seen includes it; nanoseconds.
    pub max_staleness: u64,
}

/// Which primary a stream belongs to; another one makes it worthless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamEpoch(u64);

/// Figures for the console and for metrics. Times are nanoseconds on the process clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectFigures {
    /// Everything that could be seen then is known; `None` while nothing is.
    pub horizon: Option<u64>,
    /// When the question was asked whose position the stream has not reached.
    pub behind_since: Option<u64>,
    /// Transactions that nobody can see yet.
    pub waiting: u64,
    /// Times the stream was lost.
    pub gaps: u64,
}

/// One per real database.
#[derive(Debug)]
pub struct DirectWrites {
    cells: Arc<Cells>,
    /// Whoever holds it follows the stream: one of the entries that lead to this database.
    turn: tokio::sync::Mutex<()>,
    epoch: Mutex<StreamEpoch>,
    asked: Notify,
    wanted: AtomicU64,
    settled: watch::Sender<u64>,
    figures: Mutex<DirectFigures>,
}

impl DirectWrites {
    pub(super) fn new(cells: Arc<Cells>) -> Self {
        Self {
            cells,
            turn: tokio::sync::Mutex::default(),
            epoch: Mutex::new(StreamEpoch(0)),
            asked: Notify::new(),
            wanted: AtomicU64::new(0),
            settled: watch::Sender::new(0),
            figures: Mutex::default(),
        }
    }

    /// From now on nothing is answered from the cache unless the stream is heard.
    pub fn need(&self) {
        self.cells.need_hearing();
    }

    /// Must the stream be heard?
    #[must_use]
    pub fn is_needed(&self) -> bool {
        self.cells.heard_until().is_some()
    }

    /// Another server is the primary, or may be: what the one before tells counts no more.
    pub(super) fn forget(&self) {
        let mut epoch = lock(&self.epoch);
        epoch.0 += 1;
        if self.is_needed() {
            self.cells.stop_hearing();
        }
    }

    /// The right to follow the stream.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// To be asked before the primary is, whose stream is to be followed.
    pub(super) fn epoch(&self) -> StreamEpoch {
        *lock(&self.epoch)
    }

    /// The stream has begun; false if it is not the primary's any more.
    pub(super) fn begin(&self, epoch: StreamEpoch, now: u64, draw: impl FnMut() -> u64) -> bool {
        let current = lock(&self.epoch);
        let is_current = *current == epoch;
        if is_current {
            self.cells.begin_hearing(now, draw);
        }
        is_current
    }

    /// Everything is known that could be seen at `horizon`; hits may be served until `until`. False if the stream is
    /// not the primary's any more.
    pub(super) fn hear(&self, epoch: StreamEpoch, horizon: u64, until: u64) -> bool {
        let current = lock(&self.epoch);
        let is_current = *current == epoch;
        if is_current {
            self.cells.hear_until(until);
            lock(&self.figures).horizon = Some(horizon);
        }
        is_current
    }

    /// The stream is lost, or could not be had.
    pub(super) fn lost(&self, was_there: bool) {
        self.cells.stop_hearing();
        let mut figures = lock(&self.figures);
        let gaps = figures.gaps + u64::from(was_there);
        *figures = DirectFigures { gaps, ..DirectFigures::default() };
    }

    pub(super) fn note(&self, behind_since: Option<u64>, waiting: usize) {
        let mut figures = lock(&self.figures);
        (figures.behind_since, figures.waiting) = (behind_since, waiting as u64);
    }

    /// Those who hold a ticket up to this one have asked already.
    pub(super) fn wanted(&self) -> u64 {
        self.wanted.load(Ordering::SeqCst)
    }

    /// Waits until somebody asks; cancel safe.
    pub(super) async fn asked(&self) {
        self.asked.notified().await;
    }

    /// Those who hold a ticket up to this one may go on: everything that could be seen when they asked is void.
    pub(super) fn settle(&self, ticket: u64) {
        self.settled.send_if_modified(|settled| {
            let is_more = ticket > *settled;
            *settled = ticket.max(*settled);
            is_more
        });
    }

    /// Waits until every write that anybody could see when this was called has voided what it must; false if that has not
    /// come about within `at_most`.
    pub async fn barrier(&self, at_most: Duration) -> bool {
        let mut settled = self.settled.subscribe();
        let ticket = self.wanted.fetch_add(1, Ordering::SeqCst) + 1;
        self.asked.notify_one();
        let reached = settled.wait_for(|settled| *settled >= ticket);
        tokio::time::timeout(at_most, reached).await.is_ok_and(|reached| reached.is_ok())
    }

    /// How the stream is.
    #[must_use]
    pub fn figures(&self) -> DirectFigures {
        *lock(&self.figures)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::invalidation::Closure;

    fn direct() -> DirectWrites {
        DirectWrites::new(Arc::new(Cells::new(7, 1)))
    }

    #[test]
    fn the_stream_of_a_primary_before_opens_nothing() {
        let direct = direct();
        direct.need();
        let epoch = direct.epoch();
        assert!(direct.begin(epoch, 5, || 3) && direct.hear(epoch, 6, 106));
        assert!(direct.cells.is_heard(100));
        direct.forget();
        assert_eq!((direct.cells.closure(), direct.cells.is_heard(100)), (Some(Closure::DirectWrites), false));
        assert!(!direct.hear(epoch, 7, 107) && !direct.begin(epoch, 7, || 3));
        assert!(!direct.cells.is_heard(100));
        assert!(direct.begin(direct.epoch(), 8, || 3));
        assert_eq!(direct.cells.closure(), None);
    }

    #[test]
    fn where_nobody_needs_it_a_new_primary_closes_nothing() {
        let direct = direct();
        direct.forget();
        assert_eq!((direct.is_needed(), direct.cells.closure()), (false, None));
    }

    #[tokio::test]
    async fn a_barrier_waits_for_an_answer_to_a_question_that_was_asked_later() {
        let direct = direct();
        let at_most = Duration::from_secs(30);
        let early = direct.wanted();
        let follower = async {
            direct.asked().await;
            direct.settle(early);
            direct.settle(direct.wanted());
        };
        assert!(tokio::join!(direct.barrier(at_most), follower).0);
        direct.settle(early);
        assert!(!direct.barrier(Duration::from_millis(1)).await, "nobody answers");
    }
}
