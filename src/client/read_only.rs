//! READ ONLY transactions on a replica, and statements in them that want the primary.
//!
//! Such a transaction begins where its reads may run. NOTIFY, advisory locks, server state and their kin are allowed in
//! it on a primary and refused by a standby, or answered for the wrong server. So as long as nothing is lost by it the
//! transaction goes on as a fresh one on the primary: nothing has run yet, or plain queries under READ COMMITTED, where
//! each has a snapshot of its own anyway. Only `now()` tells.
//!
//! The same holds for a query that must see what somebody was told of since the transaction began, and that its replica
//! has not replayed: a transaction on the primary would show it.

use super::{
    Client, ClientError,
    cached::FillPlan,
    facts::{Boundary, Facts},
    request::Taken,
    session::Step,
};
use crate::{
    catalog::{Access, AccessReason, Effects, Isolation, Meaning, TransactionControl},
    protocol::{ErrorResponse, SqlState, TransactionStatus, backend},
    session::{
        replies::Capture,
        request::{Request, RequestKind},
    },
    sql::{RouteHint, Statement, StatementKind},
};

/// Fails on every server, whatever the state of the transaction.
pub(super) const FAILS: &str = "SELECT pg_catalog.int4div(1, 0)";

/// What a statement asks of a READ ONLY transaction on a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wish {
    /// Nothing that a standby does otherwise.
    #[default]
    Nothing,
    /// The primary, if that is possible; a standby answers in its own way.
    Primary,
    /// The primary and nobody else: on a standby it means nothing, or ties the session to it.
    PrimaryOnly,
}

impl Wish {
    pub(super) fn of(statement: &Statement, meaning: &Meaning) -> Self {
        let ties = Effects::SQL_PREPARE
            .union(Effects::LOAD)
            .union(Effects::HOLD_CURSOR)
            .union(Effects::ADVISORY_LOCK)
            .union(Effects::LISTEN);
        if meaning.effects.intersects(ties) {
            return Self::PrimaryOnly;
        }
        match (meaning.access, meaning.reason) {
            (Access::Read, _) | (_, AccessReason::SessionState) => Self::Nothing,
            (_, AccessReason::TransactionControl) => {
                if meaning.transaction.iter().any(leaves_read_only) {
                    Self::Primary
                } else {
                    Self::Nothing
                }
            }
            _ if calls_for_advisory_lock(statement) => Self::PrimaryOnly,
            _ => Self::Primary,
        }
    }
}

/// Nobody on the primary would hear of a lock on a standby.
fn calls_for_advisory_lock(statement: &Statement) -> bool {
    let mut calls = statement.parts.iter().flat_map(|part| &part.facts.calls);
    calls.any(|call| call.name.name.contains("advisory"))
}

fn leaves_read_only(control: &TransactionControl) -> bool {
    match control {
        TransactionControl::SetTransaction { read_only, isolation } => {
            *read_only == Some(false) || *isolation == Some(Isolation::Serializable)
        }
        TransactionControl::PrepareTransaction(_) => true,
        _ => false,
    }
}

/// Does a request that begins with this statement end the transaction first?
pub(super) fn ends_first(statement: &Statement) -> bool {
    let first = statement.parts.first().map(|part| &part.kind);
    let ends = |control: &TransactionControl| {
        matches!(control, TransactionControl::Commit { chain: false } | TransactionControl::Rollback { chain: false })
    };
    matches!(first, Some(StatementKind::Transaction(control)) if ends(control))
}

/// How far a transaction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Nothing has run.
    Begun,
    /// Queries that leave nothing behind.
    Queries,
    /// Something that is lost elsewhere: a cursor, a savepoint, a setting.
    More,
}

/// An open transaction on a replica.
#[derive(Debug)]
pub(super) struct ReadOnly {
    /// Begins another one like it.
    begin: Box<str>,
    /// All of it sees what had been committed before its first query.
    keeps_snapshot: bool,
    progress: Progress,
}

/// What becomes of a request; the `outcome` of its metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escape {
    /// It asks for nothing that the replica does not have.
    None,
    /// Its transaction goes on at the primary.
    Moved,
    /// Too late for that: the replica answers as it can.
    Stayed,
    /// Too late for that, and no standby can do it.
    Refused,
}

impl Escape {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Moved => "moved",
            Self::Stayed => "stayed",
            Self::Refused => "refused",
        }
    }
}

impl ReadOnly {
    /// `reads_committed`: so do transactions of the session that say nothing of it.
    pub(super) fn begun(control: &TransactionControl, reads_committed: bool) -> Option<Self> {
        let TransactionControl::Begin { read_only: Some(true), isolation, deferrable } = control else { return None };
        let mut begin = "BEGIN READ ONLY".to_owned();
        begin.push_str(match isolation {
            None => "",
            Some(Isolation::ReadUncommitted) => " ISOLATION LEVEL READ UNCOMMITTED",
            Some(Isolation::ReadCommitted) => " ISOLATION LEVEL READ COMMITTED",
            Some(Isolation::RepeatableRead) => " ISOLATION LEVEL REPEATABLE READ",
            Some(Isolation::Serializable) => return None,
        });
        if *deferrable {
            begin.push_str(" DEFERRABLE");
        }
        let keeps_snapshot = match isolation {
            Some(isolation) => *isolation == Isolation::RepeatableRead,
            None => !reads_committed,
        };
        Some(Self { begin: begin.into(), keeps_snapshot, progress: Progress::Begun })
    }

    /// A request has been sent to the replica; `has_portal`: it leaves a portal open, or goes on with one.
    pub(super) fn ran(&mut self, facts: &Facts, has_portal: bool) {
        let is_begin = facts.is_alone && matches!(facts.boundary, Boundary::Begin { .. });
        if !has_portal && (facts.executed == 0 || is_begin) {
            return;
        }
        let is_plain = facts.only_queries && !has_portal;
        self.progress = match self.progress {
            Progress::Begun | Progress::Queries if is_plain => Progress::Queries,
            _ => Progress::More,
        };
    }

    /// Would the next query see more elsewhere, and can it go there?
    fn may_see_more(&self) -> bool {
        match self.progress {
            Progress::Begun => true,
            Progress::Queries => !self.keeps_snapshot,
            Progress::More => false,
        }
    }

    /// What becomes of a request of a session that keeps something on the replica.
    fn escape_late(&self, wish: Wish) -> Escape {
        match wish {
            Wish::Nothing => Escape::None,
            Wish::Primary => Escape::Stayed,
            Wish::PrimaryOnly => Escape::Refused,
        }
    }

    /// What becomes of a request that asks for this.
    pub(super) fn escape(&self, wish: Wish, ends_first: bool) -> Escape {
        let may_move = match self.progress {
            Progress::Begun => true,
            Progress::Queries => !self.keeps_snapshot || ends_first,
            // Its end here must be the client's COMMIT, which keeps what it has set.
            Progress::More => false,
        };
        match (wish, may_move) {
            (Wish::Nothing, _) | (_, false) => self.escape_late(wish),
            (_, true) => Escape::Moved,
        }
    }
}

/// Do these messages leave a portal open, or go on with one of before?
pub(super) fn has_portal<'a>(steps: impl Iterator<Item = &'a Step>) -> bool {
    let mut is_bound = false;
    for step in steps {
        match step {
            Step::Bind { .. } if is_bound => return true,
            Step::Bind { .. } => is_bound = true,
            Step::Execute { max_rows: 0, .. } if is_bound => is_bound = false,
            Step::Execute { .. } => return true,
            _ => {}
        }
    }
    is_bound
}

fn refusal() -> ErrorResponse {
    ErrorResponse::error(
        SqlState::READ_ONLY_TRANSACTION,
        "cannot execute this statement in a READ ONLY transaction that runs on a replica",
    )
    .with_hint("Make it the first statement of the transaction, or begin the transaction without READ ONLY.")
}

impl Client {
    /// A request in a READ ONLY transaction on a replica; `None` if it may run there.
    pub(super) fn escape(&mut self, request: Request, facts: &Facts) -> Option<Taken> {
        let wants_primary = self.wants_primary(facts);
        let link = self.link.as_mut().filter(|link| !link.is_primary && link.is_quiet())?;
        if link.status != TransactionStatus::InTransaction || self.pending.unfinished().is_some() {
            return None;
        }
        let session = &self.session;
        let open = session.transaction.read_only.as_ref()?;
        let keeps_state =
            !session.pins.is_empty() || !session.suspects.is_empty() || session.must_probe || session.is_probed;
        let wish = if wants_primary { facts.wish.max(Wish::Primary) } else { facts.wish };
        let escape = if keeps_state { open.escape_late(wish) } else { open.escape(wish, facts.ends_first) };
        if escape != Escape::None {
            self.context.tally.escaped(escape);
        }
        match escape {
            Escape::None | Escape::Stayed => None,
            Escape::Moved => {
                self.leave_replica();
                Some(Taken::NotYet)
            }
            // Who has not sent the end of a request is not told before the server can be.
            Escape::Refused if !matches!(request.kind, RequestKind::Simple | RequestKind::Sync) => None,
            Escape::Refused => {
                // Whose error is expected.
                link.ask(FAILS, Capture::Again);
                link.server.core_mut().endpoint.inbox.hand_over(&mut self.io.outbox);
                self.take_back_names(request);
                let out = self.io.outbox.buffer();
                refusal().put(out);
                out.extend_from_slice(backend::ready_for_query(TransactionStatus::Failed));
                self.drop_request(request.bytes);
                Some(Taken::Yes)
            }
        }
    }

    /// Is it a query in a transaction on a replica that by its hints, or by what it must see, belongs on the primary?
    fn wants_primary(&self, facts: &Facts) -> bool {
        let link = self.link.as_ref().filter(|link| !link.is_primary);
        let (Some(link), Some(open)) = (link, &self.session.transaction.read_only) else { return false };
        if facts.route_hint() == Some(RouteHint::Primary) || self.is_strict(facts) {
            return true;
        }
        let (view, opened) = (self.view(), link.server.core().info.connected_at);
        facts.takes_snapshot
            && open.may_see_more()
            && !view.database.topology.shows(
                link.member,
                opened,
                &view.demand(facts, None, self.request_started),
                self.request_started,
            )
    }

    /// Nobody waits for the end of the transaction there: nothing of it is wanted.
    pub(super) fn leave_replica(&mut self) {
        let Some(mut link) = self.link.take() else { return };
        link.server.core_mut().endpoint.inbox.hand_over(&mut self.io.outbox);
        self.session.server_opened = u64::MAX;
        self.note_unlinked(link.member);
        link.clean("ROLLBACK".to_owned());
    }

    /// Begins the transaction again, at the primary; the request joins it there.
    pub(super) async fn go_on_at_primary(&mut self, request: Request, facts: &Facts) -> Result<(), ClientError> {
        let transaction = std::mem::take(&mut self.session.transaction);
        let began = self.transaction_started;
        let plan = FillPlan::none("in_transaction");
        // Another replica might show less than this one has shown.
        let facts = &facts.on_primary("not_replayed");
        // A cancel request would leave the client in a transaction that nobody has: it is not heard here.
        while self.link_up(request.kind, facts, &plan).await?.is_none() {}
        if let (Some(link), Some(open)) = (&mut self.link, transaction.read_only) {
            link.begin_again(&open.begin);
        }
        self.transaction_started = began;
        Ok(())
    }

    /// A request is about to be sent to a replica.
    pub(super) fn note_read_only(&mut self, facts: &Facts) {
        if self.link.as_ref().is_none_or(|link| link.is_primary) {
            return;
        }
        if let Some(control) = &facts.begin {
            let reads_committed = self.session.reads_committed();
            self.session.transaction.read_only = ReadOnly::begun(control, reads_committed).map(Box::new);
        }
        let has_portal = has_portal(self.session.steps.iter().map(|located| &located.step));
        if let Some(open) = &mut self.session.transaction.read_only {
            open.ran(facts, has_portal);
        }
    }

    /// A message that nobody has read is about to be sent to a replica.
    pub(super) fn note_unread(&mut self) {
        if let Some(open) = &mut self.session.transaction.read_only {
            open.progress = Progress::More;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(isolation: Option<Isolation>) -> ReadOnly {
        let control = TransactionControl::Begin { read_only: Some(true), isolation, deferrable: false };
        ReadOnly::begun(&control, true).unwrap()
    }

    fn ran(isolation: Option<Isolation>, only_queries: bool) -> ReadOnly {
        let mut open = begun(isolation);
        open.ran(&Facts { executed: 1, only_queries, ..Facts::new() }, false);
        open
    }

    #[test]
    fn another_one_like_it_begins_with_the_same_words() {
        for (isolation, deferrable, expected) in [
            (None, false, "BEGIN READ ONLY"),
            (Some(Isolation::RepeatableRead), true, "BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ DEFERRABLE"),
            (Some(Isolation::ReadCommitted), false, "BEGIN READ ONLY ISOLATION LEVEL READ COMMITTED"),
        ] {
            let control = TransactionControl::Begin { read_only: Some(true), isolation, deferrable };
            assert_eq!(&*ReadOnly::begun(&control, true).unwrap().begin, expected);
        }
    }

    #[test]
    fn a_transaction_moves_while_nothing_is_lost_by_it() {
        let repeatable = Some(Isolation::RepeatableRead);
        for (open, ends_first, expected) in [
            (begun(None), false, Escape::Moved),
            (begun(repeatable), false, Escape::Moved),
            (ran(None, true), false, Escape::Moved),
            (ran(repeatable, true), false, Escape::Stayed),
            (ran(None, false), false, Escape::Stayed),
            (ran(repeatable, true), true, Escape::Moved),
            (ran(None, false), true, Escape::Stayed),
        ] {
            assert_eq!(open.escape(Wish::Primary, ends_first), expected, "{open:?}");
            assert_eq!(open.escape(Wish::Nothing, ends_first), Escape::None, "{open:?}");
        }
        assert_eq!(ran(None, false).escape(Wish::PrimaryOnly, false), Escape::Refused);
    }

    #[test]
    fn isolation_that_nobody_names_is_that_of_the_session() {
        let control = TransactionControl::Begin { read_only: Some(true), isolation: None, deferrable: false };
        let mut open = ReadOnly::begun(&control, false).unwrap();
        open.ran(&Facts { executed: 1, only_queries: true, ..Facts::new() }, false);
        assert_eq!(open.escape(Wish::Primary, false), Escape::Stayed);
    }

    #[test]
    fn a_portal_that_is_left_open_is_lost_elsewhere() {
        let mut open = begun(None);
        open.ran(&Facts { executed: 1, only_queries: true, ..Facts::new() }, true);
        assert_eq!(open.escape(Wish::Primary, false), Escape::Stayed);
    }
}
