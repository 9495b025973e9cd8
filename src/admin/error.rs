//! What the console answers instead, in PgBouncer's words.

use thiserror::Error;

/// Length of a command repeated in an error, in bytes.
const REPEATED_BYTES: usize = 900;

/// Why a command was not carried out; `Display` is what the operator reads.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ConsoleError {
    /// Not a command.
    #[error("invalid command '{0}', use SHOW HELP;")]
    Invalid(String),
    /// SET without a usable value.
    #[error("bad arguments")]
    BadArguments,
    /// Only for `admin_users`.
    #[error("admin access needed")]
    AdminNeeded,
    /// A command of PgBouncer that does nothing here.
    #[error("command not supported")]
    NotSupported,
    /// PAUSE, SUSPEND or KILL while all is paused.
    #[error("already suspended/paused")]
    AlreadyPaused,
    /// SUSPEND while a database is paused.
    #[error("cannot suspend with paused databases")]
    PausedDatabases,
    /// RESUME without a PAUSE.
    #[error("pooler is not paused/suspended")]
    NotPaused,
    /// RESUME db without a PAUSE db.
    #[error("database {0} is not paused")]
    DatabaseNotPaused(String),
    /// Another operator's RESUME, while this one's PAUSE or SUSPEND waited.
    #[error("resumed by another command")]
    Resumed,
    /// RESUME while shutting down.
    #[error("pooler is shutting down")]
    ShuttingDown,
    /// A name that is not configured.
    #[error("no such database: {0}")]
    NoSuchDatabase(String),
    /// DISABLE or ENABLE of nothing.
    #[error("a database is required")]
    DatabaseRequired,
    /// The console itself: `verb` and name.
    #[error("cannot {0} admin db: {1}")]
    ConsoleDatabase(&'static str, String),
    /// An unknown key, or a value that is none.
    #[error("SET failed")]
    SetFailed,
    /// The configuration in the file is broken; the old one stays.
    #[error("RELOAD failed, see logs for additional details")]
    ReloadFailed,
    /// KILL_CLIENT of an id nobody has.
    #[error("client not found")]
    ClientNotFound,
    /// KILL_CLIENT without an id.
    #[error("invalid client pointer supplied")]
    InvalidClientPointer,
    /// BAN or UNBAN of a name that is not configured.
    #[error("no such member: {0}")]
    NoSuchMember(String),
    /// FLUSH CACHE of a table the catalog does not know.
    #[error("no such table: {0}")]
    NoSuchTable(String),
    /// SHOW ROUTE without FOR, where several databases are configured.
    #[error("several databases are configured, use SHOW ROUTE FOR database ...")]
    RouteDatabaseNeeded,
    /// A cancel request came while the command waited.
    #[error("canceling statement due to user request")]
    Cancelled,
    /// Anything else, in one line.
    #[error("{0}")]
    Failed(String),
}

impl ConsoleError {
    /// Repeats the command, cut where it is very long.
    pub fn invalid(command: &str) -> Self {
        let most = command.len().min(REPEATED_BYTES);
        let front = (0..=most).rev().find_map(|end| command.get(..end));
        Self::Invalid(front.unwrap_or_default().to_owned())
    }

    /// PgBouncer sends 08P01 for nearly everything.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Self::ReloadFailed => "F0000",
            Self::NotSupported => "0A000",
            Self::Cancelled | Self::Resumed => "57014",
            Self::Invalid(_)
            | Self::BadArguments
            | Self::AdminNeeded
            | Self::AlreadyPaused
            | Self::PausedDatabases
            | Self::NotPaused
            | Self::DatabaseNotPaused(_)
            | Self::ShuttingDown
            | Self::NoSuchDatabase(_)
            | Self::DatabaseRequired
            | Self::ConsoleDatabase(..)
            | Self::SetFailed
            | Self::ClientNotFound
            | Self::InvalidClientPointer
            | Self::NoSuchMember(_)
            | Self::NoSuchTable(_)
            | Self::RouteDatabaseNeeded
            | Self::Failed(_) => "08P01",
        }
    }
}
