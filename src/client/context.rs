//! What every client of the process shares.

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use dashmap::DashMap;

use super::{cancel::CancelKeys, info::ClientInfo, peers::Peers};
use crate::{
    admin::Console,
    auth::{UserList, scram::ClientKeys},
    clock::Clock,
    cluster::Database,
    config::Config,
    insight::Insight,
    net::tls::TlsSetup,
    pool::{Pool, Pools},
    routing::MemberId,
    session::StatementRegistry,
    sql::Analyzer,
};

/// Finds what the configuration names; implemented by the composition root.
pub trait Directory: Send + Sync {
    /// The database that clients call so, a `*` database included.
    fn database(&self, name: &str) -> Option<Arc<Database>>;
    /// A server has taken this user's login: where nobody else is named for it, the catalog is read as this user.
    /// True if nobody was before.
    fn logged_in(&self, database: &Arc<Database>, user: &str) -> bool;
    /// What a SCRAM login has shown opens servers that hold the same secret.
    fn remember_keys(&self, user: &str, keys: ClientKeys);
    /// Are logins to this database refused? (DISABLE)
    fn is_disabled(&self, name: &str) -> bool;
    /// The pool of a member, as clients of this database and user share it.
    fn pool(&self, database: &Arc<Database>, user: &Arc<str>, member: MemberId) -> Option<Arc<Pool>>;
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
    /// Who may cancel whom.
    pub cancel_keys: CancelKeys,
    /// Cancel requests for clients of other processes.
    pub peers: Peers,
    /// Every logged-in client.
    pub clients: DashMap<u64, Arc<ClientInfo>, foldhash::fast::RandomState>,
    /// The admin console.
    pub console: Arc<Console>,
    /// One counter for clients and servers.
    pub ids: Arc<AtomicU64>,
    /// Logins under way and logged-in clients.
    pub connected: AtomicU64,
    /// New clients of databases are refused.
    pub is_shutting_down: AtomicBool,
    /// Makes challenges for unknown users look like those for known ones.
    pub mock_key: [u8; 32],
    settings: RwLock<Arc<Settings>>,
}

/// The parts that a context is made of.
pub struct Parts {
    /// See [`Context::directory`].
    pub directory: Arc<dyn Directory>,
    /// See [`Context::pools`].
    pub pools: Arc<Pools>,
    /// See [`Context::insight`].
    pub insight: Arc<Insight>,
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
            cancel_keys: CancelKeys::default(),
            peers: Peers::default(),
            clients: DashMap::default(),
            console: parts.console,
            ids: parts.ids,
            connected: AtomicU64::new(0),
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
