//! What every client of the process shares.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use dashmap::DashMap;

use super::{
    admission::Admissions, cancel::CancelKeys, hand_over::HandOver, info::ClientInfo, peers::Peers, tally::Tally,
    visiting::Visiting,
};
use crate::{
    admin::Console,
    auth::{Credentials, HbaRules, UserList, scram::ClientKeys},
    clock::Clock,
    cluster::{Database, Listener, auth_query::QueryError},
    config::{Config, DatabaseConfig},
    insight::Insight,
    net::tls::TlsSetup,
    pool::{Greeting, Pool, Pools},
    routing::MemberId,
    session::StatementRegistry,
    sql::Analyzer,
};

/// Finds what the configuration names; implemented by the composition root.
pub trait Directory: Send + Sync {
    /// The database that clients call so, a `*` database included.
    ///
    /// # Errors
    /// See [`Unserved`].
    fn database(&self, name: &str) -> Result<Arc<Database>, Unserved>;
    /// A server has taken this user's login: where nobody else is named for it, the catalog is read as this user.
    /// True if nobody was before.
    fn logged_in(&self, database: &Arc<Database>, user: &str) -> bool;
    /// Are logins to this database refused? (DISABLE)
    fn is_disabled(&self, name: &str) -> bool;
    /// What a SCRAM login has shown opens servers that hold the same secret.
    fn remember_keys(&self, owner: KeyOwner<'_>, user: &str, keys: ClientKeys);
    /// Asks a server for a user whom auth_file does not know, as a login to this database (or to the console) wants it.
    /// `again`: what is remembered has proved wrong.
    fn find_user<'a>(&'a self, database: Option<&'a DatabaseConfig>, user: &'a str, again: bool) -> Finding<'a>;
    /// Would a process that starts now log in to servers as this user? Not with what only a client's own login has shown.
    fn is_known_after_restart(&self, database: &str, user: &str) -> bool;
    /// What servers of the pool will report, where that is known from another pool of the same server.
    fn greeting_of_others(&self, database: &Arc<Database>, pool: &Pool) -> Option<Greeting>;
    /// Listens for the clients of a database; `None` if nobody can.
    fn listener(&self, database: &Arc<Database>) -> Option<Arc<Listener>>;
    /// The pool of a member, as clients of this database and user share it.
    fn pool(&self, database: &Arc<Database>, user: &Arc<str>, member: MemberId) -> Option<Arc<Pool>>;
}

/// Why there is no database of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unserved {
    /// Nobody serves one.
    #[error("no such database")]
    Unknown,
    /// The fallback entry would make it, but has made as many as there may be, and all of them are in use.
    #[error("no more databases allowed")]
    TooMany,
}

/// A configuration and what was read with it.
#[derive(Debug)]
pub struct Settings {
    /// The files.
    pub config: Config,
    /// `auth_file`.
    pub users: UserList,
    /// How connections are encrypted.
    pub tls: TlsSetup,
    /// `redis_tls_ca_file`, where it is named.
    pub redis_roots: Option<Vec<u8>>,
    /// `auth_hba_file`, with `auth_type = hba`.
    pub rules: Arc<HbaRules>,
}

/// Whose secret was proved to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOwner<'a> {
    /// The one of auth_file, the same for every database.
    Listed,
    /// The one that auth_query gave for this database.
    Of(&'a str),
}

/// A look-up under way.
pub type Finding<'a> = Pin<Box<dyn Future<Output = Result<Lookup, AuthQueryError>> + Send + 'a>>;

/// What is known of a user who is not in auth_file.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// A server knows the user.
    Found(FoundUser),
    /// It does not.
    Unknown {
        /// Users who are known have SCRAM secrets, and this one shall look like them.
        by_scram: bool,
    },
    /// Nobody is to be asked: there is no auth_user.
    Nobody,
}

/// A user of `auth_query`.
#[derive(Clone, Debug)]
pub struct FoundUser {
    /// The name in the database.
    pub user: String,
    /// What the server stores.
    pub credentials: Arc<Credentials>,
    /// It is not for this login that the server was asked.
    pub is_remembered: bool,
}

/// Why there is no answer about a user; the client is told nothing of it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AuthQueryError {
    /// The console has no database of its own to ask in.
    #[error("auth_dbname is not set, and the console is no database to run auth_query in")]
    Console,
    /// Nobody serves auth_dbname.
    #[error("authentication database \"{0}\" is not configured")]
    NoDatabase(String),
    /// DISABLE.
    #[error("authentication database \"{0}\" is disabled")]
    Disabled(String),
    /// The server said no, or nothing.
    #[error(transparent)]
    Query(#[from] Arc<QueryError>),
}

/// Shared by every client.
pub struct Context {
    /// The clock.
    pub clock: Clock,
    /// Databases and pools by name.
    pub directory: Arc<dyn Directory>,
    /// Every pool.
    pub pools: Arc<Pools>,
    /// Memo of analysed statements.
    pub analyzer: Analyzer,
    /// Statements that clients have prepared.
    pub statements: StatementRegistry,
    /// Where each request leaves its record.
    pub insight: Arc<Insight>,
    /// Counts clients.
    pub tally: Tally,
    /// Who may cancel whom.
    pub cancel_keys: CancelKeys,
    /// Cancel requests for clients of other processes.
    pub peers: Peers,
    /// Where clients go when another process takes over.
    pub hand_over: HandOver,
    /// Every logged-in client.
    pub clients: Arc<Clients>,
    /// Everybody else who is connected.
    pub visitors: DashMap<u64, Arc<Visiting>, foldhash::fast::RandomState>,
    /// The admin console.
    pub console: Arc<Console>,
    /// One counter for clients and servers.
    pub ids: Arc<AtomicU64>,
    /// Logins under way and logged-in clients.
    pub connected: AtomicU64,
    /// Clients by database and by user.
    pub admissions: Arc<Admissions>,
    /// SUSPEND: nothing is read from clients that come.
    pub is_suspended: AtomicBool,
    /// New clients of databases are refused.
    pub is_shutting_down: AtomicBool,
    /// Makes challenges for unknown users look like those for known ones.
    pub mock_key: [u8; 32],
    settings: RwLock<Arc<Settings>>,
}

/// Logged-in clients by their numbers.
pub type Clients = DashMap<u64, Arc<ClientInfo>, foldhash::fast::RandomState>;

/// The parts that a context is made of.
pub struct Parts {
    /// See [`Context::directory`].
    pub directory: Arc<dyn Directory>,
    /// See [`Context::pools`].
    pub pools: Arc<Pools>,
    /// See [`Context::clients`].
    pub clients: Arc<Clients>,
    /// See [`Context::insight`].
    pub insight: Arc<Insight>,
    /// See [`Context::tally`].
    pub tally: Tally,
    /// See [`Context::console`].
    pub console: Arc<Console>,
    /// See [`Context::ids`].
    pub ids: Arc<AtomicU64>,
    /// The first configuration.
    pub settings: Arc<Settings>,
    /// See [`Context::mock_key`].
    pub mock_key: [u8; 32],
    /// See [`Context::clock`].
    pub clock: Clock,
}

/// Statement shapes that are remembered.
const ANALYZED_SHAPES: usize = 20_000;

impl Context {
    /// A context without clients.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            clock: parts.clock,
            directory: parts.directory,
            pools: parts.pools,
            analyzer: Analyzer::new(ANALYZED_SHAPES),
            statements: StatementRegistry::default(),
            insight: parts.insight,
            tally: parts.tally,
            cancel_keys: CancelKeys::default(),
            peers: Peers::default(),
            hand_over: HandOver::default(),
            clients: parts.clients,
            visitors: DashMap::default(),
            console: parts.console,
            ids: parts.ids,
            connected: AtomicU64::new(0),
            admissions: Arc::default(),
            is_suspended: AtomicBool::new(false),
            is_shutting_down: AtomicBool::new(false),
            mock_key: parts.mock_key,
            settings: RwLock::new(parts.settings),
        })
    }

    /// The configuration in force.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Another configuration for those who log in from now on.
    pub fn set_settings(&self, settings: Arc<Settings>) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    /// A number that no client or server has had.
    pub fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }
}
