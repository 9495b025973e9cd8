//! The member that workers and the task that carries messages share.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use super::{BusFigures, Clearance, Member, Times, frame::NodeId};
use crate::{
    ablation::Ablation,
    cache::invalidation::{Cells, Peers, Ticket, WriteId, WriteSet},
    clock::Clock,
};

/// What this process is among the proxies of one database. Its lock is held for a few steps at a time and never across a wait.
#[derive(Debug)]
pub struct Bus {
    member: Mutex<Member>,
    cells: Weak<Cells>,
    clock: Clock,
    /// Writes wait until the others have heard of them.
    is_strict: bool,
    lease: Duration,
    /// It has left: nobody waits for anybody.
    has_left: AtomicBool,
    /// Something is to be said.
    spoken: Notify,
    /// What writes wait for may have moved.
    moved: Notify,
}

impl Bus {
    /// Closes the cache until the others have been heard.
    pub fn new(me: NodeId, times: Times, is_strict: bool, cells: &Arc<Cells>, clock: Clock) -> Arc<Self> {
        let lease = Duration::from_nanos(times.lease);
        Arc::new(Self {
            member: Mutex::new(Member::new(me, times, cells)),
            cells: Arc::downgrade(cells),
            clock,
            is_strict,
            lease,
            has_left: AtomicBool::new(false),
            spoken: Notify::new(),
            moved: Notify::new(),
        })
    }

    /// Lets the task that carries messages work on the member, and tells those who wait. `None`: nobody has use for it any more.
    pub fn work<T>(&self, work: impl FnOnce(&mut Member, &Arc<Cells>, u64) -> T) -> Option<T> {
        let cells = self.cells.upgrade()?;
        let mut member = self.lock();
        let done = work(&mut member, &cells, self.clock.now());
        let has_words = member.has_words();
        drop(member);
        if has_words {
            self.spoken.notify_one();
        }
        self.moved.notify_waiters();
        Some(done)
    }

    /// Waits until something is to be said. Cancel safe.
    pub async fn spoken(&self) {
        self.spoken.notified().await;
    }

    /// Waits until all others have heard what a write's next step depends on. Without end, if the primary does not say who they
    /// are. Cancel safe.
    pub async fn heard(&self, ticket: Ticket) {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            // From now on nothing is missed.
            moved.as_mut().enable();
            if self.has_left.load(Ordering::Acquire) || self.clearance().covers(ticket, self.clock.now()) {
                return;
            }
            moved.await;
        }
    }

    /// Its name among the others.
    pub fn node(&self) -> NodeId {
        self.lock().id()
    }

    /// Writes wait for nobody from now on: this process keeps no answers of the database, and nobody hears of its writes.
    pub fn leave(&self) {
        self.has_left.store(true, Ordering::Release);
        self.moved.notify_waiters();
    }

    /// It shares the database once more, under that name, if it had left.
    pub fn rejoin(&self, me: NodeId) {
        let mut member = self.lock();
        if self.has_left.swap(false, Ordering::AcqRel) {
            member.rejoin(me);
        }
    }

    /// Somebody else has its name.
    pub fn rename(&self, me: NodeId) {
        self.lock().rejoin(me);
    }

    /// What has happened.
    pub fn figures(&self) -> BusFigures {
        self.lock().figures()
    }

    /// Do writes wait until the others have heard of them?
    pub fn is_strict(&self) -> bool {
        self.is_strict
    }

    /// For so long after it was last heard of another one may answer without what is written here.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Until when what the others write is known here, on the process clock.
    pub fn trusted_until(&self) -> u64 {
        if self.has_left.load(Ordering::Acquire) { 0 } else { self.lock().trusted_until() }
    }

    /// What writes wait for now.
    pub fn clearance(&self) -> Clearance {
        self.lock().clearance()
    }

    fn lock(&self) -> MutexGuard<'_, Member> {
        self.member.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be waited for, and whoever carries messages is woken where there is somebody to hear them.
    fn ticket(&self, member: MutexGuard<'_, Member>, ticket: Ticket) -> Ticket {
        let is_alone = member.is_alone();
        drop(member);
        if !is_alone {
            self.spoken.notify_one();
        }
        if self.is_strict { ticket } else { Ticket::NONE }
    }
}

impl Peers for Bus {
    fn begin(&self, set: WriteSet, process_id: i32) -> (WriteId, Ticket) {
        let mut member = self.lock();
        let (write, ticket) = member.begin(set, process_id);
        let ticket = self.ticket(member, ticket);
        let is_left_out = Ablation::PeersBeforeCommit.is_left_out() || Ablation::Peers.is_left_out();
        (write, if is_left_out { Ticket::NONE } else { ticket })
    }

    fn bump(&self, set: WriteSet, draw: u64, here: &mut dyn FnMut()) -> Ticket {
        let mut member = self.lock();
        let ticket = member.bump(set, draw);
        here();
        let ticket = self.ticket(member, ticket);
        if Ablation::Peers.is_left_out() { Ticket::NONE } else { ticket }
    }

    fn end(&self, write: WriteId) {
        let mut member = self.lock();
        member.end(write);
        _ = self.ticket(member, Ticket::NONE);
    }
}
