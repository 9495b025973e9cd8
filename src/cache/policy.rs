//! Whether the cache is asked at all: the rules that depend on the session and the request.
//!
//! Those that depend on the statement alone are the catalog's; it hands over its verdict.

use super::invalidation::{Closure, Uncaptured};

/// What the session knows about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The cache is switched on for this database and this session.
    pub enabled: bool,
    /// `/* pgweir: nocache */`.
    pub hint_nocache: bool,
    /// The transaction status before the request.
    pub transaction: Transaction,
    /// The session holds a server connection for what only that connection knows.
    pub pinned: bool,
    /// `default_transaction_isolation` is serializable: a cached read would leave no trace for the
    /// detection of conflicts.
    pub serializable: bool,
    /// More than one statement up to its Sync, or an earlier Sync is unanswered.
    pub pipeline: bool,
    /// Execute asks for a limited number of rows.
    pub row_limit: bool,
    /// This shape of statement was found to be analysed wrongly.
    pub quarantined: bool,
    /// The statement may be cached, or the label of the reason why not.
    pub statement: Result<(), &'static str>,
}

impl Request {
    /// A lone statement of a session that is in no transaction and has nothing special about it.
    pub const fn plain(statement: Result<(), &'static str>) -> Self {
        Self {
            enabled: true,
            hint_nocache: false,
            transaction: Transaction::Idle,
            pinned: false,
            serializable: false,
            pipeline: false,
            row_limit: false,
            quarantined: false,
            statement,
        }
    }
}

/// The transaction status of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transaction {
    /// None is open.
    Idle,
    /// One is open; it must see exactly what PostgreSQL shows it.
    Open,
    /// One is open and has failed.
    Failed,
}

/// Why the cache was not asked, or may not be filled: the `reason` label of its bypass counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Switched off for the database or the session.
    Disabled,
    /// The statement says so.
    HintNoCache,
    /// The statement cannot be cached, for that reason.
    Statement(&'static str),
    /// Inside a transaction.
    InTransaction,
    /// Inside a failed transaction.
    FailedTransaction,
    /// The session is pinned.
    Pinned,
    /// The session runs serializable transactions.
    Serializable,
    /// Part of a pipeline.
    Pipeline,
    /// A limited number of rows is asked for.
    RowLimit,
    /// The shape is quarantined.
    Quarantined,
    /// Its Bind message is malformed.
    MalformedBind,
    /// The cache is closed.
    Closed(Closure),
    /// A write to something it depends on is in flight.
    WriteInFlight,
    /// The catalog has moved since the statement was understood.
    CatalogMoved,
}

impl Refusal {
    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::HintNoCache => "hint_nocache",
            Self::Statement(label) => label,
            Self::InTransaction => "in_transaction",
            Self::FailedTransaction => "failed_transaction",
            Self::Pinned => "pinned",
            Self::Serializable => "serializable",
            Self::Pipeline => "pipeline",
            Self::RowLimit => "row_limit",
            Self::Quarantined => "quarantined",
            Self::MalformedBind => "malformed_bind",
            Self::Closed(closure) => closure.label(),
            Self::WriteInFlight => "write_in_flight",
            Self::CatalogMoved => "catalog_moved",
        }
    }
}

impl From<Uncaptured> for Refusal {
    fn from(why: Uncaptured) -> Self {
        match why {
            Uncaptured::Closed(closure) => Self::Closed(closure),
            Uncaptured::InFlight => Self::WriteInFlight,
            Uncaptured::CatalogMoved => Self::CatalogMoved,
        }
    }
}

/// Whether the cache may be asked for a request; the first rule that refuses gives the reason.
pub fn admit(request: &Request) -> Result<(), Refusal> {
    let rules = [
        (!request.enabled, Refusal::Disabled),
        (request.hint_nocache, Refusal::HintNoCache),
        (request.transaction == Transaction::Failed, Refusal::FailedTransaction),
        (request.transaction == Transaction::Open, Refusal::InTransaction),
        (request.pinned, Refusal::Pinned),
        (request.serializable, Refusal::Serializable),
        (request.pipeline, Refusal::Pipeline),
        (request.row_limit, Refusal::RowLimit),
        (request.quarantined, Refusal::Quarantined),
    ];
    match rules.into_iter().find(|(refuses, _)| *refuses) {
        Some((_, refusal)) => Err(refusal),
        None => request.statement.map_err(Refusal::Statement),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(change: impl FnOnce(&mut Request), expected: &str) {
        let mut request = Request::plain(Ok(()));
        change(&mut request);
        assert_eq!(admit(&request).map_err(Refusal::label), Err(expected));
    }

    #[test]
    fn a_lone_cacheable_statement_outside_a_transaction_is_admitted() {
        assert_eq!(admit(&Request::plain(Ok(()))), Ok(()));
    }

    #[test]
    fn each_rule_refuses_alone_and_says_why() {
        check(|r| r.enabled = false, "disabled");
        check(|r| r.hint_nocache = true, "hint_nocache");
        check(|r| r.transaction = Transaction::Open, "in_transaction");
        check(|r| r.transaction = Transaction::Failed, "failed_transaction");
        check(|r| r.pinned = true, "pinned");
        check(|r| r.serializable = true, "serializable");
        check(|r| r.pipeline = true, "pipeline");
        check(|r| r.row_limit = true, "row_limit");
        check(|r| r.quarantined = true, "quarantined");
        check(|r| r.statement = Err("volatile_function"), "volatile_function");
    }

    #[test]
    fn a_cache_that_is_switched_off_says_so_before_anything_else() {
        check(|r| (r.enabled, r.pinned, r.statement) = (false, true, Err("not_a_read")), "disabled");
    }
}
