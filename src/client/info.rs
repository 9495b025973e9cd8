//! What others may know of a client, and how they reach it.

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError,
    atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering},
};

use tokio::sync::Notify;

use super::{ClientError, deadlines::Moment};
use crate::{
    net::{InboxFigures, Local, Peer, Stream, tls::TlsFacts},
    server::ServerInfo,
    session::PinSet,
};

/// What a client does now, as the console shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Activity {
    /// It holds no server connection and waits for none.
    Idle = 0,
    /// It holds a server connection.
    Active = 1,
    /// It waits for one.
    Waiting = 2,
}

/// What a client is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Signal {
    /// Nothing.
    None = 0,
    /// Its query is to be cancelled while it waits for a server.
    CancelWait = 1,
    /// The process stops: leave as soon as no transaction is open.
    Drain = 2,
    /// Leave now: the process ends.
    Kill = 3,
    /// Leave now: KILL_CLIENT.
    Disconnect = 4,
    /// Leave now: KILL, or the database is no longer configured.
    Remove = 5,
    /// Leave now: `suspend_timeout`.
    Stuck = 6,
}

impl Signal {
    /// The end of the session that it asks for at once.
    pub(super) fn end(self) -> Option<ClientError> {
        match self {
            Self::None | Self::CancelWait | Self::Drain => None,
            Self::Kill => Some(ClientError::ShuttingDown),
            Self::Disconnect => Some(ClientError::Disconnected),
            Self::Remove => Some(ClientError::DatabaseRemoved),
            Self::Stuck => Some(ClientError::SuspendTimeout),
        }
    }
}

/// Whether anything is read from a client, and from its server for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Reading {
    /// As it comes.
    On = 0,
    /// Only what its buffers need to become empty: SUSPEND.
    Ending = 1,
    /// Nothing is.
    Off = 2,
}

/// Shared between a client's task and everybody else.
#[derive(Debug)]
pub struct ClientInfo {
    /// One counter for clients and servers.
    pub id: u64,
    /// Database as the client named it.
    pub database: Arc<str>,
    /// Login name.
    pub user: Arc<str>,
    /// Where it comes from.
    pub peer: Peer,
    /// Our end.
    pub local: Local,
    /// What is known of the encryption; `None` in clear.
    pub tls: Option<Arc<TlsFacts>>,
    /// Nanoseconds on the process clock.
    pub connected_at: u64,
    /// When its last request began.
    pub requested_at: AtomicU64,
    /// Named prepared statements.
    pub statements: AtomicU64,
    /// `none`, `logical` or `physical`.
    pub replication: &'static str,
    /// From its start-up packet.
    pub application_name: String,
    /// Who logs in to servers on its behalf.
    pool_user: OnceLock<Arc<str>>,
    activity: AtomicU8,
    /// What it waits for a server since.
    waiting_since: AtomicU64,
    /// Since when the server works on its oldest request; 0 while nothing runs.
    running_since: AtomicU64,
    /// When its last answer was complete.
    answered_at: AtomicU64,
    /// When the open transaction began; 0 outside of one.
    transaction_since: AtomicU64,
    /// Since when it owes the end of an extended request; 0: it does not.
    unended_since: AtomicU64,
    must_look: AtomicBool,
    pins: AtomicU16,
    pinned_since: AtomicU64,
    /// See [`Reading`].
    reading: AtomicU8,
    /// What its buffers hold for longer than a moment.
    pub buffers: Mutex<InboxFigures>,
    signal: AtomicU8,
    woken: Arc<Notify>,
    /// The one it holds or has held last.
    server: Mutex<Option<Arc<ServerInfo>>>,
}

impl ClientInfo {
    /// A client that has logged in.
    #[must_use]
    pub fn new(
        id: u64,
        database: Arc<str>,
        user: Arc<str>,
        peer: Peer,
        stream: &Stream,
        now: u64,
        application_name: String,
    ) -> Self {
        Self {
            id,
            database,
            user,
            peer,
            local: stream.local(),
            tls: stream.tls().cloned(),
            connected_at: now,
            requested_at: AtomicU64::new(now),
            statements: AtomicU64::new(0),
            application_name,
            replication: "none",
            pool_user: OnceLock::new(),
            activity: AtomicU8::new(Activity::Idle as u8),
            waiting_since: AtomicU64::new(0),
            running_since: AtomicU64::new(0),
            answered_at: AtomicU64::new(now),
            transaction_since: AtomicU64::new(0),
            unended_since: AtomicU64::new(0),
            must_look: AtomicBool::new(false),
            pins: AtomicU16::new(0),
            pinned_since: AtomicU64::new(0),
            reading: AtomicU8::new(Reading::On as u8),
            buffers: Mutex::default(),
            signal: AtomicU8::new(Signal::None as u8),
            woken: Arc::new(Notify::new()),
            server: Mutex::new(None),
        }
    }

    /// Who logs in to servers on its behalf: itself, unless somebody else was named.
    #[must_use]
    pub fn pool_user(&self) -> &Arc<str> {
        self.pool_user.get().unwrap_or(&self.user)
    }

    /// Servers know it by this name. Said once.
    pub fn set_pool_user(&self, user: &Arc<str>) {
        if *user != self.user {
            self.pool_user.get_or_init(|| Arc::clone(user));
        }
    }

    /// What it does now.
    #[must_use]
    pub fn activity(&self) -> Activity {
        match self.activity.load(Ordering::Acquire) {
            1 => Activity::Active,
            2 => Activity::Waiting,
            _ => Activity::Idle,
        }
    }

    /// It does something else.
    pub fn set_activity(&self, activity: Activity) {
        self.activity.store(activity as u8, Ordering::Release);
    }

    /// It waits for a server from now on.
    pub(super) fn wait_since(&self, now: u64) {
        self.waiting_since.store(now, Ordering::Relaxed);
        self.set_activity(Activity::Waiting);
    }

    /// What it has waited for does not count: it will wait for a server from now on, if it has to.
    pub(super) fn waited(&self, now: u64) {
        self.waiting_since.store(now, Ordering::Relaxed);
    }

    /// Since when it waits for a server, or waited last.
    pub(super) fn waits_since(&self) -> u64 {
        self.waiting_since.load(Ordering::Relaxed)
    }

    /// The server works for it since then; 0: no longer.
    pub(super) fn run_since(&self, since: u64) {
        self.running_since.store(since, Ordering::Relaxed);
    }

    /// An answer was complete at `now`; `next` is when the next request became the oldest, 0 if there is none, and
    /// `transaction` when the open transaction began, 0 if there is none.
    pub(super) fn answered(&self, now: u64, next: u64, transaction: u64) {
        self.answered_at.store(now, Ordering::Relaxed);
        self.running_since.store(next, Ordering::Relaxed);
        self.transaction_since.store(transaction, Ordering::Relaxed);
    }

    /// What it seems to do: another thread's view, which may mix two moments.
    pub(super) fn moment(&self) -> Moment {
        let answered = self.answered_at.load(Ordering::Relaxed);
        let running = self.running_since.load(Ordering::Relaxed);
        let transaction = self.transaction_since.load(Ordering::Relaxed);
        match self.activity() {
            Activity::Waiting => Moment::Waiting { since: self.waiting_since.load(Ordering::Relaxed) },
            Activity::Idle => Moment::Idle { since: answered },
            Activity::Active if running > 0 => {
                let transaction = if transaction > 0 { transaction } else { running };
                Moment::Running { since: running, transaction }
            }
            Activity::Active if transaction > 0 => Moment::InTransaction { since: answered, transaction },
            Activity::Active => {
                let server = self.server();
                let must_close = server.is_some_and(|it| it.close_needed.load(Ordering::Relaxed));
                Moment::Holding { must_close, pinned_since: self.pinned_since() }
            }
        }
    }

    /// Messages are held since then that neither Sync nor Flush has followed; 0: no longer.
    pub(super) fn hold_since(&self, since: u64) {
        self.unended_since.store(since, Ordering::Relaxed);
    }

    /// Since when messages are held for want of a Sync or Flush.
    pub(super) fn holds_since(&self) -> Option<u64> {
        Some(self.unended_since.load(Ordering::Relaxed)).filter(|since| *since > 0)
    }

    /// SUSPEND, and its end.
    pub fn suspend(&self, is_suspended: bool) {
        let reading = if is_suspended { Reading::Ending } else { Reading::On };
        self.reading.store(reading as u8, Ordering::Release);
        self.nudge();
    }

    /// Has it come to rest since it was suspended?
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.reading.load(Ordering::Acquire) == Reading::Off as u8
    }

    /// Is nothing more to be read? `is_empty` says whether its buffers are.
    pub(super) fn comes_to_rest(&self, is_empty: impl FnOnce() -> bool) -> bool {
        match self.reading.load(Ordering::Acquire) {
            0 => false,
            1 if is_empty() => {
                let (ending, off) = (Reading::Ending as u8, Reading::Off as u8);
                self.reading.compare_exchange(ending, off, Ordering::AcqRel, Ordering::Acquire).is_ok()
            }
            1 => false,
            _ => true,
        }
    }

    /// It shall see whether it is late.
    pub fn nudge(&self) {
        self.must_look.store(true, Ordering::Release);
        self.woken.notify_one();
    }

    /// Was it told to?
    pub(super) fn is_nudged(&self) -> bool {
        self.must_look.load(Ordering::Acquire)
    }

    /// It looks now.
    pub(super) fn take_nudge(&self) -> bool {
        self.is_nudged() && self.must_look.swap(false, Ordering::AcqRel)
    }

    /// Why it keeps its server connection.
    #[must_use]
    pub fn pins(&self) -> PinSet {
        PinSet::from_bits(self.pins.load(Ordering::Relaxed))
    }

    /// Its reasons have changed.
    pub fn set_pins(&self, pins: PinSet, now: u64) {
        let was_pinned = !self.pins().is_empty();
        self.pins.store(pins.bits(), Ordering::Relaxed);
        if pins.is_empty() || !was_pinned {
            self.pinned_since.store(if pins.is_empty() { 0 } else { now }, Ordering::Relaxed);
        }
    }

    /// Since when it keeps its server connection outside of transactions, nanoseconds on the process clock.
    #[must_use]
    pub fn pinned_since(&self) -> Option<u64> {
        Some(self.pinned_since.load(Ordering::Relaxed)).filter(|since| *since > 0)
    }

    /// The server connection it holds.
    #[must_use]
    pub fn server(&self) -> Option<Arc<ServerInfo>> {
        let last = || self.server.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (self.activity() == Activity::Active).then(last).flatten()
    }

    /// It is about to be active, and holds this one then.
    pub fn set_server(&self, server: &Arc<ServerInfo>) {
        let mut last = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_none_or(|last| !Arc::ptr_eq(last, server)) {
            *last = Some(Arc::clone(server));
        }
    }

    /// Tells it to do something; the strongest wish wins.
    pub fn send(&self, signal: Signal) {
        self.signal.fetch_max(signal as u8, Ordering::Release);
        self.woken.notify_one();
    }

    /// What it was told.
    #[must_use]
    pub fn signal(&self) -> Signal {
        match self.signal.load(Ordering::Acquire) {
            1 => Signal::CancelWait,
            2 => Signal::Drain,
            3 => Signal::Kill,
            4 => Signal::Disconnect,
            5 => Signal::Remove,
            6 => Signal::Stuck,
            _ => Signal::None,
        }
    }

    /// Was it told to forget what it waits for? Asking takes the wish back.
    pub fn take_cancel(&self) -> bool {
        self.signal
            .compare_exchange(Signal::CancelWait as u8, Signal::None as u8, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Wakes the client's task when it is told something.
    #[must_use]
    pub fn waker(&self) -> Arc<Notify> {
        Arc::clone(&self.woken)
    }

    /// Waits until it is told something; cancel safe.
    pub async fn signalled(&self) {
        self.woken.notified().await;
    }
}
