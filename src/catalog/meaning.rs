//! The verdict about one query string.

use std::sync::Arc;

use super::{Effects, Keyed, TransactionControl};

/// The object identifier of a relation in one database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelationOid(pub u32);

/// Who may run a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Any member whose data is fresh enough.
    Read,
    /// The primary only.
    Primary,
}

/// Why a statement goes where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AccessReason {
    /// Nothing speaks against a replica.
    Read,
    /// It writes.
    Write,
    /// It calls a volatile function.
    VolatileFunction,
    /// It calls a function labelled STABLE or IMMUTABLE whose body names what is not.
    MislabelledFunction,
    /// It calls a function that runs text it puts together, or whose language is not understood.
    OpaqueFunction,
    /// Volatile code of a cast or an operator class may run without being written.
    UnseenCode,
    /// It asks for the state of the server it runs on.
    ServerState,
    /// It locks rows or tables.
    RowLock,
    /// A utility statement.
    Utility,
    /// The grammar does not know it.
    Unparsed,
    /// Several statements in one string.
    MultiStatement,
    /// The catalog is not loaded.
    CatalogNotLoaded,
    /// It reads a system catalog or a view of server state.
    SystemRelation,
    /// A relation that replicas do not have: unlogged, temporary, foreign, a sequence.
    NotReplicated,
    /// A name that is found nowhere, or in more than one way.
    Unresolved,
    /// BEGIN, COMMIT and their kin: the transaction decides.
    TransactionControl,
    /// It reads or changes the state of the session.
    SessionState,
    /// A hint asks for it.
    Hint,
}

impl AccessReason {
    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::VolatileFunction => "volatile_function",
            Self::MislabelledFunction => "mislabelled_function",
            Self::OpaqueFunction => "opaque_function",
            Self::UnseenCode => "unseen_code",
            Self::ServerState => "server_state",
            Self::RowLock => "row_lock",
            Self::Utility => "utility",
            Self::Unparsed => "unparsed",
            Self::MultiStatement => "multi_statement",
            Self::CatalogNotLoaded => "catalog_not_loaded",
            Self::SystemRelation => "system_relation",
            Self::NotReplicated => "temp_or_unlogged",
            Self::Unresolved => "unresolved",
            Self::TransactionControl => "transaction_control",
            Self::SessionState => "session_state",
            Self::Hint => "hint",
        }
    }
}

/// Why an answer may not be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bypass {
    /// It is not a plain query.
    NotARead,
    /// Several statements in one string.
    MultiStatement,
    /// The grammar does not know it.
    Unparsed,
    /// The catalog is not loaded.
    CatalogNotLoaded,
    /// It reads no table, so there is nothing that could void the answer.
    NoRelation,
    /// It locks rows.
    RowLock,
    /// It calls a volatile function.
    VolatileFunction,
    /// It reads the clock, or a literal or type that hangs on it.
    Clock,
    /// It reads the identity or the state of the session.
    SessionState,
    /// It reads the state of the server.
    ServerState,
    /// A stable function that is not known to be safe.
    StableFunction,
    /// A user function whose label cannot be trusted.
    UserFunction,
    /// A system catalog or a view over one.
    SystemRelation,
    /// A relation whose changes cannot be seen.
    UntrackedRelation,
    /// A table whose changes that bypass the proxy are not published.
    NotPublished,
    /// A materialised view that may be refreshed without the proxy hearing of it.
    RefreshUnheard,
    /// Row level security.
    RowSecurity,
    /// ctid, xmin and their kin.
    SystemColumn,
    /// TABLESAMPLE.
    Sample,
    /// A type whose text form hangs on catalogs or on code of the user.
    UnstableType,
    /// A name that is found nowhere, or in more than one way.
    Unresolved,
    /// A user operator or cast with code that cannot be trusted may be at work unseen.
    UserOperator,
    /// A hint forbids it.
    Hint,
}

impl Bypass {
    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::NotARead => "not_a_read",
            Self::MultiStatement => "multi_statement",
            Self::Unparsed => "unparsed",
            Self::CatalogNotLoaded => "catalog_not_loaded",
            Self::NoRelation => "no_relation",
            Self::RowLock => "row_lock",
            Self::VolatileFunction => "volatile_function",
            Self::Clock => "clock",
            Self::SessionState => "session_state",
            Self::ServerState => "server_state",
            Self::StableFunction => "stable_function",
            Self::UserFunction => "user_function",
            Self::SystemRelation => "system_relation",
            Self::UntrackedRelation => "untracked_relation",
            Self::NotPublished => "not_published",
            Self::RefreshUnheard => "refresh_unheard",
            Self::RowSecurity => "row_security",
            Self::SystemColumn => "system_column",
            Self::Sample => "sample",
            Self::UnstableType => "unstable_type",
            Self::Unresolved => "unresolved",
            Self::UserOperator => "user_operator",
            Self::Hint => "hint",
        }
    }
}

/// What a statement may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Writes {
    /// Nothing that an answer could hang on.
    None,
    /// These relations and no others.
    Static(Box<[RelationOid]>),
    /// Known only inside the transaction: ask `pg_locks` before it ends.
    LockSet,
    /// Anything, and not even the locks would tell.
    Database,
}

/// A statement whose rows policies choose by nothing but who asks, tables and settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scoped {
    /// The settings, in lower case. Their values are known of a session that has set each of them itself.
    pub settings: Box<[Box<str>]>,
    /// The same statement, its answer kept for whoever asks as the same role with the same settings.
    pub meaning: Arc<Meaning>,
}

/// What a query string means in one database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// Who may run it.
    pub access: Access,
    /// Why.
    pub reason: AccessReason,
    /// The relations whose change voids its answer, or why the answer is not kept.
    pub cacheable: Result<Box<[RelationOid]>, Bypass>,
    /// Policies choose its rows, and these are understood.
    pub scoped: Option<Box<Scoped>>,
    /// It reads or writes these rows of its one table, and no others.
    pub keyed: Option<Keyed>,
    /// Every relation that it is known to touch: named or behind a view, read or written, of the server's own as well.
    /// What triggers and functions touch is left out, but for bodies that PostgreSQL stores resolved.
    pub relations: Box<[RelationOid]>,
    /// What it changes.
    pub writes: Writes,
    /// Definitions or privileges change.
    pub catalog_change: bool,
    /// What it leaves behind in the session.
    pub effects: Effects,
    /// Transaction control in order; empty for nearly every statement.
    pub transaction: Box<[TransactionControl]>,
    /// It runs inside one transaction.
    pub atomic: bool,
    /// One statement that may be run between BEGIN and COMMIT of the proxy.
    pub wrappable: bool,
    /// It touches a table with user constraint triggers that may wait for the commit.
    pub deferred_constraints: bool,
    /// It asks and changes nothing.
    pub is_query_only: bool,
}
