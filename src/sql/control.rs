//! Statements that begin, end or shape a transaction.

/// Isolation level named by BEGIN or SET TRANSACTION.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Treated by PostgreSQL as READ COMMITTED.
    ReadUncommitted,
    /// A snapshot per statement.
    ReadCommitted,
    /// A snapshot per transaction.
    RepeatableRead,
    /// Not possible on a replica.
    Serializable,
}

impl Isolation {
    /// Reads the word as it stands in BEGIN, SET TRANSACTION or `transaction_isolation`.
    pub fn from_setting(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "read uncommitted" => Some(Self::ReadUncommitted),
            "read committed" => Some(Self::ReadCommitted),
            "repeatable read" => Some(Self::RepeatableRead),
            "serializable" => Some(Self::Serializable),
            _ => None,
        }
    }
}

/// What a statement does to the transaction around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionControl {
    /// BEGIN or START TRANSACTION.
    Begin {
        /// READ ONLY or READ WRITE where it is said.
        read_only: Option<bool>,
        /// ISOLATION LEVEL where it is said.
        isolation: Option<Isolation>,
        /// DEFERRABLE.
        deferrable: bool,
    },
    /// COMMIT or END.
    Commit {
        /// AND CHAIN.
        chain: bool,
    },
    /// ROLLBACK or ABORT.
    Rollback {
        /// AND CHAIN.
        chain: bool,
    },
    /// SAVEPOINT.
    Savepoint,
    /// ROLLBACK TO.
    RollbackToSavepoint,
    /// RELEASE.
    ReleaseSavepoint,
    /// PREPARE TRANSACTION with its identifier.
    PrepareTransaction(String),
    /// COMMIT PREPARED with its identifier.
    CommitPrepared(String),
    /// ROLLBACK PREPARED with its identifier.
    RollbackPrepared(String),
    /// SET TRANSACTION, and SET of `transaction_read_only` and its kin.
    SetTransaction {
        /// READ ONLY or READ WRITE where it is said.
        read_only: Option<bool>,
        /// ISOLATION LEVEL where it is said.
        isolation: Option<Isolation>,
    },
}
