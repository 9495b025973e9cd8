//! One connection to PostgreSQL.
//!
//! Its state is its type, so a connection that is not idle cannot go back to a pool:
//! ```compile_fail,E0308
//! use pgweir::{pool::Pool, server::{InTransaction, ServerConnection}};
//! fn forget_to_roll_back(pool: &Pool, server: ServerConnection<InTransaction>) {
//!     pool.check_in(server, 0);
//! }
//! ```

mod cancel;
mod connect;
mod dns;
mod question;
mod replication;
mod reset;

use std::{
    any::Any,
    borrow::Cow,
    marker::PhantomData,
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

pub use cancel::{CancelGate, CancelKey, CancelPermit, send_cancel};
pub use connect::{ConnectError, Dialer, Login, connect};
pub use dns::{CachedName, Gone, Resolver};
pub use question::{AskError, Row, ask, command};
pub use replication::{ReplicationConnection, ReplicationError};
pub use reset::{ExecuteError, execute, initialise, reset};

use crate::{
    net::{
        Address, Endpoint, InboxFigures, Local,
        tls::{ConnectTls, TlsFacts},
    },
    protocol::TransactionStatus,
    session::{Parameters, SessionSettings, prepared::ServerStatements},
};

/// `ReadyForQuery` said `I` and nothing is outstanding.
#[derive(Debug)]
pub enum Idle {}
/// `ReadyForQuery` said `T`: it belongs to one client until that transaction ends.
#[derive(Debug)]
pub enum InTransaction {}
/// `ReadyForQuery` said `E`: only a rollback helps.
#[derive(Debug)]
pub enum Failed {}
/// Replies are outstanding, or may be. Dropping it closes the socket: nobody can know what is left to read.
#[derive(Debug)]
pub enum Busy {}

/// What the console shows of a connection, and what a cancel request needs.
#[derive(Debug)]
pub struct ServerInfo {
    /// One counter for clients and servers, in order of creation.
    pub id: u64,
    /// Where it is, by name.
    pub address: Address,
    /// What the name meant when it was opened; `None` for a unix socket.
    pub peer: Option<SocketAddr>,
    /// Our end.
    pub local: Local,
    /// What is known of the encryption; `None` in clear.
    pub tls: Option<Arc<TlsFacts>>,
    /// A cancel request is encrypted as the connection is.
    pub cancel_by: Option<Arc<ConnectTls>>,
    /// Nanoseconds on the process clock.
    pub connected_at: u64,
    /// The process that serves it.
    pub remote_pid: u32,
    /// The client that holds it, 0 for none.
    pub client: AtomicU64,
    /// When it was last given to a client, nanoseconds on the process clock.
    pub requested_at: AtomicU64,
    /// Prepared statements on it.
    pub statements: AtomicU64,
    /// To be closed as soon as nobody needs it.
    pub close_needed: AtomicBool,
    /// It is being tried out.
    pub is_tested: AtomicBool,
    /// What its buffers hold for longer than a moment.
    pub buffers: Mutex<InboxFigures>,
    /// Cancel requests under way.
    pub gate: CancelGate,
    /// Why it is closed, for the log; the first reason holds.
    pub end: OnceLock<&'static str>,
}

/// Everything that a connection owns.
#[derive(Debug)]
pub struct Core {
    /// Socket and buffers.
    pub endpoint: Endpoint,
    /// What it has prepared.
    pub statements: ServerStatements,
    /// Its values of the tracked parameters.
    pub parameters: Parameters,
    /// What else it is set to.
    pub settings: SessionSettings,
    /// What `connect_query` has set.
    pub began_with: SessionSettings,
    /// The client that may have called `nextval()` on it last; 0: none has.
    pub sequences_of: u64,
    /// For the console and for cancel requests.
    pub info: Arc<ServerInfo>,
    /// The worker whose runtime the socket is registered with.
    pub worker: usize,
    /// To be closed instead of reused.
    pub is_tainted: bool,
    /// Given back when the connection closes: the pool's permit.
    lease: Option<Box<dyn Any + Send>>,
}

impl Core {
    /// DISCARD ALL has ended what sessions have left on it.
    fn forget_session(&mut self) {
        self.settings = SessionSettings::default();
        self.sequences_of = 0;
        self.statements.clear();
    }

    /// What the server is to be set to for a session that has set this: `connect_query` has its say where that is silent.
    #[must_use]
    pub fn settings_for<'a>(&self, session: &'a SessionSettings) -> Cow<'a, SessionSettings> {
        match self.began_with == SessionSettings::default() {
            true => Cow::Borrowed(session),
            false => Cow::Owned(self.began_with.below(session)),
        }
    }
}

/// A connection in one state.
#[derive(Debug)]
pub struct ServerConnection<State> {
    core: Box<Core>,
    state: PhantomData<State>,
}

/// What a connection is once its last `ReadyForQuery` has been read.
#[derive(Debug)]
pub enum Finished {
    /// It may go back to its pool.
    Idle(ServerConnection<Idle>),
    /// It stays with its client.
    InTransaction(ServerConnection<InTransaction>),
    /// It stays with its client.
    Failed(ServerConnection<Failed>),
}

/// States in which a server waits for a request.
pub trait Ready {}
impl Ready for Idle {}
impl Ready for InTransaction {}
impl Ready for Failed {}

impl<State> ServerConnection<State> {
    fn into_state<Other>(self) -> ServerConnection<Other> {
        ServerConnection { core: self.core, state: PhantomData }
    }

    /// What it owns.
    #[must_use]
    pub fn core(&self) -> &Core {
        &self.core
    }
}

impl<State: Ready> ServerConnection<State> {
    /// A request is about to be sent.
    #[must_use]
    pub fn begin(self) -> ServerConnection<Busy> {
        self.into_state()
    }
}

impl ServerConnection<Busy> {
    /// Everything it owns, for the relay.
    pub fn core_mut(&mut self) -> &mut Core {
        &mut self.core
    }

    /// `status` is the one that the last outstanding `ReadyForQuery` carried.
    #[must_use]
    pub fn finish(self, status: TransactionStatus) -> Finished {
        match status {
            TransactionStatus::Idle => Finished::Idle(self.into_state()),
            TransactionStatus::InTransaction => Finished::InTransaction(self.into_state()),
            TransactionStatus::Failed => Finished::Failed(self.into_state()),
        }
    }
}

impl ServerConnection<Idle> {
    fn new(core: Core) -> Self {
        Self { core: Box::new(core), state: PhantomData }
    }

    /// What is given back when the connection closes.
    pub fn set_lease(&mut self, lease: Box<dyn Any + Send>) {
        self.core.lease = Some(lease);
    }

    /// Takes that away, to be given to another connection.
    pub fn take_lease(&mut self) -> Option<Box<dyn Any + Send>> {
        self.core.lease.take()
    }

    /// Nobody uses it: its buffers serve others meanwhile.
    pub fn rest(&mut self) {
        self.core.endpoint.rest();
    }

    /// Can it be used again? One that has closed, or said something unasked, cannot.
    pub fn is_reusable(&mut self) -> bool {
        !self.core.is_tainted && self.core.endpoint.is_quiet()
    }

    /// Registers the socket with the runtime of the calling thread.
    ///
    /// # Errors
    /// The operating system refuses; the connection is closed.
    pub fn rehome(self, worker: usize) -> std::io::Result<Self> {
        let mut core = *self.core;
        core.endpoint = core.endpoint.rehome()?;
        core.worker = worker;
        Ok(Self::new(core))
    }

    /// What it has been set to, beyond the tracked parameters.
    pub fn carries(&mut self, settings: SessionSettings) {
        self.core.settings = settings;
    }

    /// Notes who holds it.
    pub fn assign(&self, client: u64, now: u64) {
        self.core.info.client.store(client, Ordering::Relaxed);
        self.core.info.requested_at.store(now, Ordering::Relaxed);
    }
}
