//! The analysed form of a query string: facts of grammar, no catalog.

use super::{Fingerprint, Hints, TransactionControl};

/// One query string; it may hold several statements.
#[derive(Debug)]
pub struct Statement {
    /// The same for all texts of this shape, on every proxy and after every restart.
    pub fingerprint: Fingerprint,
    /// Literals replaced by `?`, comments dropped, at most 4 kB.
    pub normalized: Box<str>,
    /// What comments ask of the proxy.
    pub hints: Hints,
    /// One per statement; empty for an empty query and for text that was not understood.
    pub parts: Box<[Part]>,
    /// False: PostgreSQL's grammar of this build does not know it.
    pub parsed: bool,
    /// True: literals decide what it means, so it is remembered by its exact text.
    pub literal_sensitive: bool,
    pub(crate) identity: u128,
    pub(crate) lone_query: bool,
}

impl Statement {
    /// Equal for two statements only if they mean the same to the proxy, literals included where they
    /// matter. Unlike the fingerprint it is drawn anew in each process.
    pub fn identity(&self) -> u128 {
        self.identity
    }

    /// For text that was not understood: it is a single statement and begins like a query, so it runs in
    /// one transaction.
    pub fn is_lone_query(&self) -> bool {
        self.lone_query
    }

    /// True for a string without any statement: PostgreSQL answers EmptyQueryResponse.
    pub fn is_empty_query(&self) -> bool {
        self.parsed && self.parts.is_empty()
    }
}

/// One statement of a query string.
#[derive(Debug)]
pub struct Part {
    /// What it is.
    pub kind: StatementKind,
    /// First byte of its text in the query string it was first seen in.
    pub start: usize,
    /// One past its last byte there.
    pub end: usize,
    /// What it names.
    pub facts: Facts,
}

/// Everything a statement names. Names bound inside it (CTEs, aliases) are left out.
#[derive(Debug, Default)]
pub struct Facts {
    /// Relations read.
    pub reads: Box<[Name]>,
    /// Relations written, including by data-modifying CTEs at any depth.
    pub writes: Box<[Target]>,
    /// Functions, aggregates and window functions called.
    pub calls: Box<[CallUse]>,
    /// Operators used by name.
    pub operators: Box<[Name]>,
    /// Types named in casts and column definitions.
    pub types: Box<[Name]>,
    /// Last fields of qualified references (`x.field`): PostgreSQL tries a function of that name when
    /// there is no such column.
    pub fields: Box<[Box<str>]>,
    /// Single observations.
    pub flags: Flags,
    /// What it says of rows, where it is about one table.
    pub rows: Option<RowUse>,
}

/// What a statement about one table says of the rows that it reads or writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowUse {
    /// All of them have these values in these columns.
    Where(Box<[(Box<str>, Value)]>),
    /// They come into being.
    Values {
        /// The columns that it names.
        columns: Box<[Box<str>]>,
        /// What it puts there; `None` for what is no plain value.
        rows: Box<[Box<[Option<Value>]>]>,
    },
}

/// A value that every execution may have another one of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Where it is found.
    pub source: Source,
    /// The type that it is cast to.
    pub cast: Option<Name>,
}

/// Where a value is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The literal of that number in the text, counted from 0 ([`super::literal_at`]).
    Literal(u16),
    /// A parameter.
    Parameter {
        /// Counted from 0.
        number: u16,
        /// It stands nowhere else in the text.
        is_alone: bool,
    },
}

/// A possibly qualified name, folded as PostgreSQL folds it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Schema where it was written.
    pub schema: Option<Box<str>>,
    /// The name itself.
    pub name: Box<str>,
}

impl Name {
    /// A name without a schema.
    pub fn bare(name: &str) -> Self {
        Self { schema: None, name: name.into() }
    }
}

/// One function call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallUse {
    /// Function name.
    pub name: Name,
    /// Arguments given; VARIADIC and named ones count like others.
    pub arguments: u16,
    /// `set_config(.., .., true)`: the third argument is the word `true`.
    pub local: bool,
    /// `set_config('name', ..)`: the first argument where it is a literal, lower case; only for set_config.
    pub setting: Option<Box<str>>,
}

/// A relation that a statement changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The relation.
    pub name: Name,
    /// How.
    pub action: Action,
    /// Columns of SET lists; `None` where they are not known.
    pub columns: Option<Box<[Box<str>]>>,
    /// ONLY was written.
    pub only: bool,
}

/// How a relation is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// INSERT, COPY FROM.
    Insert,
    /// UPDATE, ON CONFLICT DO UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// TRUNCATE.
    Truncate {
        /// CASCADE.
        cascade: bool,
    },
    /// REFRESH MATERIALIZED VIEW.
    Refresh,
}

/// What a statement is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatementKind {
    /// SELECT, VALUES, TABLE.
    Select,
    /// INSERT.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// MERGE.
    Merge,
    /// SELECT INTO, CREATE TABLE AS, CREATE MATERIALIZED VIEW.
    CreateTableAs {
        /// The new table is temporary.
        temporary: bool,
        /// The query is an EXECUTE of a prepared statement.
        execute: bool,
    },
    /// COPY FROM.
    CopyFrom,
    /// COPY TO of a table or a query.
    CopyTo {
        /// To a file or a program of the server, not to the client.
        on_server: bool,
    },
    /// TRUNCATE.
    Truncate,
    /// LOCK TABLE.
    Lock,
    /// CALL.
    Call,
    /// DO.
    Do,
    /// EXPLAIN.
    Explain {
        /// ANALYZE: the inner statement runs.
        analyze: bool,
        /// What is explained; its facts are the part's.
        inner: Box<StatementKind>,
    },
    /// SHOW.
    Show {
        /// Setting, lower case; `all` for SHOW ALL.
        name: Box<str>,
    },
    /// SHOW of one of the proxy's own settings, without the prefix `pgweir.`.
    ProxyShow {
        /// Setting.
        name: Box<str>,
    },
    /// SET of one of the proxy's own settings, without the prefix `pgweir.`.
    ProxySet {
        /// Setting.
        name: Box<str>,
        /// `None`: RESET, or SET TO DEFAULT.
        value: Option<Box<str>>,
        /// SET LOCAL.
        local: bool,
    },
    /// SET of a server setting.
    Set {
        /// Setting, lower case; `role` and `session_authorization` among them.
        name: Box<str>,
        /// SET LOCAL.
        local: bool,
        /// SET .. TO DEFAULT.
        default: bool,
    },
    /// RESET; `None` is RESET ALL.
    Reset {
        /// Setting, lower case.
        name: Option<Box<str>>,
    },
    /// SET CONSTRAINTS.
    SetConstraints,
    /// SET TRANSACTION SNAPSHOT.
    SetSnapshot,
    /// DISCARD.
    Discard(DiscardTarget),
    /// BEGIN, COMMIT, SAVEPOINT, SET TRANSACTION ..
    Transaction(TransactionControl),
    /// PREPARE; its facts are those of the prepared statement.
    Prepare,
    /// EXECUTE.
    Execute,
    /// DEALLOCATE.
    Deallocate {
        /// `None`: every statement.
        name: Option<Box<str>>,
    },
    /// DECLARE CURSOR; its facts are those of the query.
    Declare {
        /// WITH HOLD.
        hold: bool,
    },
    /// FETCH.
    Fetch,
    /// MOVE.
    Move,
    /// CLOSE.
    Close,
    /// LISTEN.
    Listen {
        /// As PostgreSQL folds it.
        channel: Box<str>,
    },
    /// UNLISTEN.
    Unlisten {
        /// `None`: every channel.
        channel: Option<Box<str>>,
    },
    /// NOTIFY.
    Notify,
    /// A change of definitions.
    Ddl(Ddl),
    /// GRANT, REVOKE, ALTER DEFAULT PRIVILEGES.
    Grant,
    /// REFRESH MATERIALIZED VIEW.
    RefreshMaterializedView {
        /// CONCURRENTLY.
        concurrently: bool,
    },
    /// VACUUM.
    Vacuum,
    /// ANALYZE.
    Analyze,
    /// CLUSTER.
    Cluster,
    /// REINDEX.
    Reindex,
    /// CHECKPOINT.
    Checkpoint,
    /// LOAD.
    Load,
    /// COMMENT ON.
    Comment,
    /// Nothing of the above.
    Unknown,
}

/// What DISCARD throws away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiscardTarget {
    /// DISCARD ALL.
    All,
    /// DISCARD PLANS.
    Plans,
    /// DISCARD SEQUENCES.
    Sequences,
    /// DISCARD TEMP.
    Temp,
}

/// A change of definitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ddl {
    /// What it changes.
    pub kind: DdlKind,
    /// False: PostgreSQL refuses it in a transaction block (CONCURRENTLY, CREATE DATABASE ..).
    pub transactional: bool,
}

/// The kinds of definitions, as far as the proxy treats them differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DdlKind {
    /// A temporary table, view or sequence of this session.
    CreateTemporary,
    /// Building or dropping an index, without expressions: no answer and no name changes.
    PlainIndex,
    /// DROP of something.
    Drop,
    /// Databases, roles, tablespaces: shared by all databases of the server.
    Cluster,
    /// Everything else.
    Other,
}

/// A set of single observations about one statement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u16);

impl Flags {
    /// FOR UPDATE, FOR SHARE and their kin, at any depth.
    pub const ROW_LOCK: Self = Self(1);
    /// CURRENT_DATE, LOCALTIMESTAMP ..
    pub const CLOCK: Self = Self(1 << 1);
    /// CURRENT_USER, CURRENT_SCHEMA, CURRENT_CATALOG ..
    pub const IDENTITY: Self = Self(1 << 2);
    /// TABLESAMPLE.
    pub const SAMPLE: Self = Self(1 << 3);
    /// ctid, xmin, xmax, cmin, cmax.
    pub const SYSTEM_COLUMN: Self = Self(1 << 4);
    /// A string literal may stand for the current time (`'now'`, `'today'`).
    pub const CLOCK_LITERAL: Self = Self(1 << 5);
    /// A computed text becomes a date or time, so it might become `now`.
    pub const COMPUTED_DATE: Self = Self(1 << 6);
    /// The tree holds something the walker does not know.
    pub const UNKNOWN: Self = Self(1 << 7);
    /// A relation of another database was named.
    pub const FOREIGN_DATABASE: Self = Self(1 << 8);

    /// True if all of `other` are in this set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Adds `other`.
    pub fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }
}
