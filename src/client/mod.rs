//! One accepted client, first byte to close.

mod admission;
mod again;
mod authenticate;
mod backend;
mod batch;
mod cache_wait;
mod cached;
mod cancel;
mod cancel_key;
mod console;
mod context;
mod cross_check;
mod deadlines;
mod decide;
mod encryption;
mod error;
mod facts;
mod fills;
mod forward;
pub mod hand_over;
mod holding;
mod info;
mod inside;
mod lazy_begin;
mod lifetime;
mod link;
mod listening;
mod login;
mod observed;
mod own_answers;
mod own_settings;
mod peers;
mod pending;
mod pipelined;
mod read_only;
mod replication;
mod request;
mod route;
mod rows;
mod rules;
mod session;
mod startup_parameters;
mod stuck;
mod tally;
mod unheard;
mod visiting;
mod visitor;

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context as TaskContext, Poll},
    time::Duration,
};

pub use admission::Admissions;
pub use cancel_key::OwnKey;
pub use context::{
    AuthQueryError, Clients, Context, Directory, Finding, FoundUser, KeyOwner, Lookup, Parts, Settings, Unserved,
};
pub use deadlines::{Overdue, enforce};
pub use decide::would_run;
pub use error::ClientError;
pub use info::{Activity, ClientInfo, Signal};
pub use peers::{PeerFigures, Peers};
pub use tally::Tally;
use tokio::sync::{Notify, futures::OwnedNotified};
pub use visiting::{Cancelling, Visiting};

use self::{
    admission::Admission, again::Again, error::LastWords, facts::Facts, link::Link, pending::PendingRequests,
    request::WaitsFor, rules::Rules, session::Session, unheard::NextStep,
};
use crate::{
    cache::invalidation::Ticket,
    config::PoolMode,
    insight::Account,
    net::{Accepted, Endpoint, SocketOptions, poll_pump},
    pool::Pool,
    protocol::TransactionStatus,
    session::{Probe, Replies, request::REQUEST_LIMIT_BYTES},
};

/// Requests of a client that are held while they must wait for those in front of them. The longest that is understood
/// as a whole fits in.
const UNREAD_LIMIT_BYTES: usize = 3 * REQUEST_LIMIT_BYTES;

/// How long a client may take to read its last words.
const FAREWELL: Duration = Duration::from_secs(1);

/// Random numbers for stamps: unpredictable seed, cheap steps (SplitMix64).
#[derive(Debug, Default)]
pub(crate) struct Draw(Option<u64>);

impl Draw {
    pub(crate) fn next(&mut self) -> u64 {
        // Most clients never need one.
        let state = self.0.unwrap_or_else(seed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0 = Some(state);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

fn seed() -> u64 {
    let mut seed = [0; 8];
    if getrandom::fill(&mut seed).is_err() {
        tracing::error!("the operating system gives no random numbers");
    }
    u64::from_ne_bytes(seed)
}

/// One random number.
#[must_use]
pub fn random() -> u64 {
    Draw::default().next()
}

/// A client that has logged in to a database.
pub(crate) struct Client {
    context: Arc<Context>,
    worker: usize,
    io: Endpoint,
    info: Arc<ClientInfo>,
    account: Arc<Account>,
    key: cancel::OwnKey,
    session: Session,
    link: Option<Link>,
    pending: PendingRequests,
    /// What becomes of its request if nothing comes back.
    again: Again,
    /// How far the inbox has been looked at for a request.
    scanned: usize,
    /// A request that has been understood and waits for its turn.
    blocked: Option<Facts>,
    /// A request is understood only when something else has happened.
    waits_for: WaitsFor,
    /// The end of an extended request has not come for long: what there is of it goes to the server.
    gives_up_end: bool,
    /// Bytes of an extended request that is known to lack its end.
    unended: usize,
    /// An extended request was refused: the rest of it is not wanted.
    discards_until_sync: bool,
    /// Questions for what the session holds on to that have failed in a row.
    probe_failures: u8,
    /// The server has told the client why it goes.
    server_said_farewell: bool,
    /// The server that it keeps is not set to what it wants.
    is_out_of_step: bool,
    /// More clients of its pool keep their servers than may.
    is_one_too_many: bool,
    /// Session pooling: the server stays until the client leaves.
    keeps_server: bool,
    pool_mode: PoolMode,
    rules: Rules,
    /// It counts among the clients as long as this lives.
    _admission: Admission,
    max_prepared: usize,
    request_started: u64,
    /// The request had to wait for a server.
    has_waited: bool,
    /// When the last request ended.
    answered: u64,
    /// The queue of the last link, empty: its memory is used again.
    spare_replies: Option<Box<Replies>>,
    /// When the first request of the open transaction began.
    transaction_started: u64,
    member_pools: Vec<Option<Arc<Pool>>>,
    /// The question for what its sessions hold on to, once it has been needed.
    probe: Option<Box<Probe>>,
    /// It listens for notifications.
    listening: Option<Box<listening::Listening>>,
    noted: stuck::Noted,
    /// What other proxies must have heard before a byte leaves.
    unheard: Ticket,
    /// It has part of a message whose rest it must not see.
    is_mute: bool,
    draw: Draw,
    woken: Arc<Notify>,
    signalled: Option<Pin<Box<OwnedNotified>>>,
}

/// Bytes of the fixed part of a client.
pub const CLIENT_BYTES: usize = size_of::<Client>();

/// Serves an accepted connection until it ends. It runs on the worker that it was handed to and nowhere else.
///
/// What each phase keeps across its waits is in a box of its own: an idle client pays for the last one only.
pub async fn serve(accepted: Accepted, context: Arc<Context>, worker: usize) {
    context.connected.fetch_add(1, Ordering::Relaxed);
    context.tally.accepted();
    if let Some(phase) = Box::pin(receive(accepted, Arc::clone(&context), worker)).await {
        phase.await;
    }
    context.connected.fetch_sub(1, Ordering::Relaxed);
}

/// The login; what comes behind it, if anything does.
async fn receive(
    accepted: Accepted,
    context: Arc<Context>,
    worker: usize,
) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
    let Accepted { stream, peer } = accepted;
    if let Err(error) = SocketOptions::of(&context.settings().config.pgbouncer).apply(&stream) {
        tracing::warn!(%peer, %error, "socket options of a client not set");
    }
    let mut io = Endpoint::new(stream);
    let mut visitor = visitor::Visitor::new(peer, &context);
    tracing::trace!(%peer, "connection accepted");
    let login = {
        let visit = visitor::Visit::begin(&context, &visitor, io.stream.local());
        login::login(&mut io, &mut visitor, &visit, &context, worker).await
    };
    match login {
        Ok(login::Welcome::Cancelled) => None,
        Ok(login::Welcome::Successor) => {
            if let crate::net::Stream::Unix(stream) = io.stream {
                context.hand_over.announce(stream);
            }
            None
        }
        Ok(login::Welcome::Console(guest)) => Some(Box::pin(async move { console::serve(io, guest, &context).await })),
        Ok(login::Welcome::Replica(replica)) => {
            Some(Box::pin(async move { replication::serve(io, replica, &context).await }))
        }
        Ok(login::Welcome::Client(guest)) => {
            let client = Box::new(Client::new(io, *guest, Arc::clone(&context), worker));
            Some(Box::pin(client.serve(context, worker)))
        }
        Err(error) => {
            visitor.log_end(&context, &error);
            context.tally.refused(&error);
            say_farewell(&mut io, &error).await;
            None
        }
    }
}

async fn say_farewell(io: &mut Endpoint, error: &ClientError) {
    let has_words = match error.last_words() {
        LastWords::Silence => false,
        LastWords::Ours(response) => {
            response.put(io.outbox.buffer());
            true
        }
        LastWords::Servers(frame) => {
            io.outbox.buffer().extend_from_slice(&frame);
            true
        }
    };
    if has_words && tokio::time::timeout(FAREWELL, io.flush()).await.is_err() {
        tracing::debug!("client did not read its last words");
    }
    if let Err(error) = io.stream.hang_up() {
        tracing::debug!(%error, "client did not hear the end of its session");
    }
}

impl Client {
    fn new(io: Endpoint, guest: login::Guest, context: Arc<Context>, worker: usize) -> Self {
        let login::Guest {
            info,
            account,
            database,
            server_user,
            pool,
            parameters,
            began_with,
            pool_mode,
            admission,
            max_prepared,
            key,
            own,
        } = guest;
        info.set_pool_user(&server_user);
        let rules = Rules::of(&context.settings().config);
        let woken = info.waker();
        // The primary may have become another one since this pool was found.
        let mut member_pools = Vec::new();
        if let Some(member) = database.member_named(&pool.key().member) {
            member_pools.resize(usize::from(member.0), None);
            member_pools.push(Some(pool));
        }
        let mut session = Session::new(Arc::clone(&context), database, server_user, parameters, began_with);
        session.own = own;
        session.max_staleness = session.database.settings.max_staleness_of(&info.user);
        Self {
            session,
            key,
            context,
            worker,
            io,
            info,
            account,
            link: None,
            pending: PendingRequests::default(),
            again: Again::Never,
            scanned: 0,
            blocked: None,
            waits_for: WaitsFor::Nothing,
            gives_up_end: false,
            unended: 0,
            discards_until_sync: false,
            is_one_too_many: false,
            server_said_farewell: false,
            probe_failures: 0,
            is_out_of_step: false,
            keeps_server: pool_mode == PoolMode::Session,
            pool_mode,
            rules,
            _admission: admission,
            max_prepared,
            request_started: 0,
            has_waited: false,
            answered: 0,
            spare_replies: None,
            transaction_started: 0,
            member_pools,
            probe: None,
            listening: None,
            noted: stuck::Noted::Nothing,
            unheard: Ticket::NONE,
            is_mute: false,
            draw: Draw::default(),
            woken,
            signalled: None,
        }
    }

    /// Until it leaves, the proxy or only this process.
    async fn serve(mut self: Box<Self>, context: Arc<Context>, worker: usize) {
        match self.run().await {
            Err(ClientError::HandedOver) => Box::pin(self.change_process(context, worker)).await,
            end => self.leave(end).await,
        }
    }

    /// Relays until somebody ends it.
    async fn run(&mut self) -> Result<(), ClientError> {
        loop {
            let is_between = self.is_between_messages();
            self.take_server_messages()?;
            if matches!(self.again, Again::Due { .. }) {
                Box::pin(self.run_again()).await?;
            }
            if self.listening.is_some() {
                Box::pin(self.hear_itself()).await?;
            }
            if !self.unheard.is_none() {
                self.be_heard(NextStep::Tell { is_between }).await?;
            }
            self.take_requests().await?;
            if !self.unheard.is_none() {
                self.be_heard(NextStep::Commit).await?;
            }
            self.forbid_transactions()?;
            self.forbid_pins()?;
            self.take_mail()?;
            if let Err(end) = self.wait().await {
                self.survive(end)?;
            }
        }
    }

    /// `max_pinned` keep their servers already.
    fn forbid_pins(&self) -> Result<(), ClientError> {
        match self.is_one_too_many {
            true => Err(ClientError::TooManyPinned),
            false => Ok(()),
        }
    }

    /// `pool_mode = statement` knows no transaction blocks.
    fn forbid_transactions(&self) -> Result<(), ClientError> {
        let in_block = self.link.as_ref().is_some_and(|link| link.status != TransactionStatus::Idle);
        if self.pool_mode == PoolMode::Statement && in_block {
            return Err(ClientError::Refused("transaction blocks not allowed in statement pooling mode".to_owned()));
        }
        Ok(())
    }

    /// Moves bytes until there is something to decide.
    async fn wait(&mut self) -> Result<(), ClientError> {
        std::future::poll_fn(|cx| self.poll_wait(cx)).await
    }

    fn poll_wait(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), ClientError>> {
        let signal = self.poll_signal(cx);
        self.check_deadlines()?;
        if let Some(end) = signal.end() {
            return Poll::Ready(Err(end));
        }
        if signal == Signal::CancelWait {
            self.info.take_cancel();
        }
        let (io, link) = (&self.io, &self.link);
        let rests = || io.is_at_rest() && link.as_ref().is_none_or(|it| it.server.core().endpoint.is_at_rest());
        if self.info.comes_to_rest(rests) {
            return Poll::Pending;
        }
        if self.listening.as_ref().is_some_and(|listening| listening.has_mail()) && self.may_take_mail() {
            return Poll::Ready(Ok(()));
        }
        let reads_client = self.blocked.is_none()
            && self.waits_for == WaitsFor::Nothing
            && self.io.inbox.unread().len() < UNREAD_LIMIT_BYTES;
        let server = self.link.as_mut().map(|link| &mut link.server.core_mut().endpoint);
        let pumped = poll_pump(&mut self.io, server, reads_client, cx);
        if pumped.is_pending() {
            self.note_buffers();
        }
        match pumped {
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Pending if signal == Signal::Drain && self.holds_nothing() && self.io.is_flushed() => {
                Poll::Ready(Err(ClientError::ShuttingDown))
            }
            Poll::Pending if self.may_change_process() => Poll::Ready(Err(ClientError::HandedOver)),
            Poll::Pending if self.gives_up_end && reads_client => Poll::Ready(Ok(())),
            Poll::Pending => {
                self.note_unended(reads_client);
                Poll::Pending
            }
        }
    }

    /// Neither a server nor a transaction that none knows of.
    fn holds_nothing(&self) -> bool {
        self.link.is_none() && !self.is_unplaced()
    }

    /// Remembers since when an extended request lacks its end.
    fn note_unended(&mut self, reads_client: bool) {
        // Of a message that is still arriving, more is to come.
        let is_unended = self.scanned > 0 && self.scanned == self.io.inbox.unread().len() && reads_client;
        let noted = if is_unended { self.scanned } else { 0 };
        if noted != self.unended {
            self.unended = noted;
            self.info.hold_since(if is_unended { self.context.clock.now() } else { 0 });
        }
    }

    /// What the client is told to do. The wish to be woken is registered once and again when it has been used up: the
    /// waker of a task does not change.
    fn poll_signal(&mut self, cx: &mut TaskContext<'_>) -> Signal {
        let signal = self.info.signal();
        // Whoever listens is woken for mail as well, and has to register again.
        let is_plain = self.listening.is_none() && !self.info.is_nudged();
        if signal == Signal::None && self.signalled.is_some() && is_plain {
            return signal;
        }
        loop {
            let waiting = self.signalled.get_or_insert_with(|| Box::pin(Arc::clone(&self.woken).notified_owned()));
            if waiting.as_mut().poll(cx).is_pending() {
                return self.info.signal();
            }
            self.signalled = None;
        }
    }

    /// Nothing is outstanding on the server, so it may be cleaned and reused.
    async fn leave(&mut self, end: Result<(), ClientError>) {
        let error = end.err().unwrap_or(ClientError::Terminated);
        self.forget_buffers();
        let settings = self.context.settings();
        let main = &settings.config.pgbouncer;
        visitor::Visitor::of(&self.info).log_end(&self.context, &error);
        self.context.tally.ended(&error);
        self.context.clients.remove(&self.info.id);
        self.context.cancel_keys.revoke(self.key);
        let mut is_cut = false;
        if let Some(mut link) = self.link.take() {
            let from_server = &mut link.server.core_mut().endpoint.inbox;
            is_cut = from_server.is_inside_message();
            from_server.hand_over(&mut self.io.outbox);
            let is_sent = self.io.inbox.approved_len() == 0 && link.server.core().endpoint.is_flushed();
            let is_whole = is_sent && !self.io.inbox.is_inside_message();
            let is_clean = link.is_idle() && !link.replies.is_ambiguous() && self.pending.is_empty() && is_whole;
            link.pool.count_pins(self.session.pins, Default::default());
            self.note_unlinked(link.member);
            if let (ClientError::Overdue(_), false) = (&error, link.is_quiet()) {
                link.cancel(self.info.id, main.cancel_wait_timeout);
                return self.say_last_words(&error, is_cut).await;
            }
            let is_server_lost = matches!(error, ClientError::ServerGone(_) | ClientError::ServerProtocol(_));
            if !is_clean && !is_server_lost {
                let reason = "client disconnect while server was not ready";
                _ = link.server.core().info.end.set(reason);
            }
            if is_clean && !is_server_lost && !link.server.core().is_tainted {
                let must_probe = self.session.is_transparent && self.session.must_probe;
                let has_state = self.keeps_server || !self.session.pins.is_empty() || must_probe;
                match has_state {
                    // The file's query is for session pooling; what pins a client to its server ends for certain.
                    true if self.keeps_server => link.clean(main.server_reset_query.clone()),
                    true => link.clean("DISCARD ALL".to_owned()),
                    false => drop(link.give_back(self.context.clock.now())),
                }
            }
        }
        self.say_last_words(&error, is_cut).await;
    }

    /// Behind half a row, an error would be read as the rest of it.
    async fn say_last_words(&mut self, error: &ClientError, is_cut: bool) {
        let is_known = self.server_said_farewell && matches!(error, ClientError::ServerGone(_));
        if !is_cut && !is_known && !self.is_mute {
            say_farewell(&mut self.io, error).await;
        }
    }
}
