//! Transactions that begin with a plain BEGIN and are placed by their first statement (`lazy_begin`).
//!
//! The proxy answers BEGIN itself. Plain reads then run in a transaction on a replica; whatever else comes takes it to the
//! primary, where the client's own BEGIN is sent first and where it stays. Under READ COMMITTED each of those reads has had a
//! snapshot of its own, and none of them can tell the time, the session or the transaction: nothing is lost on the replica
//! but the locks of tables that were read, so it is never too late to move. What was held back is the clock: `now()` is when
//! BEGIN reached the primary. BEGIN is held rather than sent to a replica at once, so that a transaction which writes first
//! pays for no replica.

use super::{
    Client, ClientError,
    cached::FillPlan,
    facts::{Boundary, Facts},
    info::Activity,
    read_only::{Escape, FAILS, has_portal},
    request::Taken,
    session::Step,
};
use crate::{
    catalog::{Isolation, TransactionControl},
    config::{PoolMode, ReadWriteSplit},
    protocol::{TransactionStatus, frontend, frontend::tag},
    session::{
        replies::Capture,
        request::{Request, RequestKind, frames},
    },
    sql::{RouteHint, names_the_clock},
};

/// A longer BEGIN is sent at once.
const BEGIN_LIMIT_BYTES: usize = 256;

/// How far a transaction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The proxy has answered BEGIN, and no server knows of it.
    Unplaced,
    /// Plain reads run on a replica.
    Replica,
    /// The primary has been sent BEGIN and has not answered yet.
    Primary,
}

/// What has come of a transaction before it is begun on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Past {
    Nothing,
    /// Queries have run elsewhere.
    Queries,
    /// It has failed elsewhere.
    Error,
}

/// Takes a snapshot.
const QUERY: &str = "SELECT 1";

/// A transaction that a plain BEGIN has opened.
#[derive(Debug)]
pub(super) struct Lazy {
    /// The client's own words.
    begin: Box<str>,
    stage: Stage,
}

/// The tag of a BEGIN; `None` where something stands in front of the word.
fn tag_of(text: &str) -> Option<&'static str> {
    let word = text.trim_start().split(|byte: char| !byte.is_ascii_alphabetic()).next().unwrap_or_default();
    match word.to_ascii_lowercase().as_str() {
        "begin" => Some("BEGIN"),
        "start" => Some("START TRANSACTION"),
        _ => None,
    }
}

/// Does it begin a transaction whose reads have a snapshot each, and that may write? `reads_committed`: so do those that
/// say nothing of it.
fn is_plain(control: &[TransactionControl], reads_committed: bool) -> bool {
    let [TransactionControl::Begin { read_only: None, isolation, deferrable: false }] = control else { return false };
    match isolation {
        None => reads_committed,
        Some(isolation) => matches!(isolation, Isolation::ReadCommitted | Isolation::ReadUncommitted),
    }
}

/// A statement that ends the transaction, and its tag.
fn end_of(facts: &Facts) -> Option<&'static str> {
    match facts.boundary {
        Boundary::Commit if facts.is_alone => Some("COMMIT"),
        Boundary::Rollback if facts.is_alone => Some("ROLLBACK"),
        _ => None,
    }
}

fn is_whole(request: Request) -> bool {
    matches!(request.kind, RequestKind::Simple | RequestKind::Sync)
}

impl Client {
    /// Is a transaction open that no server knows of?
    pub(super) fn is_unplaced(&self) -> bool {
        self.session.transaction.lazy.as_ref().is_some_and(|lazy| lazy.stage == Stage::Unplaced)
    }

    /// Answers a plain BEGIN; false if a server shall.
    pub(super) fn begin_lazily(&mut self, request: Request, facts: &Facts) -> bool {
        let Some((begin, tag)) = self.plain_begin(request, facts) else { return false };
        self.session.transaction.lazy = Some(Box::new(Lazy { begin, stage: Stage::Unplaced }));
        self.transaction_started = self.request_started;
        self.info.set_activity(Activity::Active);
        self.answer_boundary(request, tag);
        true
    }

    fn answer_boundary(&mut self, request: Request, tag: &str) {
        self.answer_utility(request, Ok(tag));
        self.answered = self.request_started;
        let transaction = if self.is_unplaced() { self.transaction_started } else { 0 };
        self.info.answered(self.answered, 0, transaction);
    }

    fn plain_begin(&self, request: Request, facts: &Facts) -> Option<(Box<str>, &'static str)> {
        let session = &self.session;
        let settings = &session.database.settings;
        let may_hold = settings.lazy_begin
            && settings.split == ReadWriteSplit::On
            && session.database.topology.members().len() > 1
            && self.pool_mode == PoolMode::Transaction
            && self.link.is_none()
            && self.pending.is_empty()
            && self.listening.is_none()
            && self.is_unmarked();
        let is_alone = facts.boundary == Boundary::Begin { read_only: false } && facts.is_alone;
        if !may_hold || !is_alone || facts.route_hint().is_some() || !self.binds_plainly(request) {
            return None;
        }
        let statement = self.lone_statement(request, facts)?;
        let meaning = facts.meaning.as_ref()?;
        if statement.parts.len() != 1 || !is_plain(&meaning.transaction, session.reads_committed()) {
            return None;
        }
        let text = match request.kind {
            RequestKind::Simple => frontend::query(self.io.inbox.unread().get(..request.bytes)?).ok()?,
            _ => session.steps.iter().find_map(|located| match &located.step {
                Step::Bind { prepared: Some(prepared), .. } => Some(&*prepared.text),
                _ => None,
            })?,
        };
        let text = std::str::from_utf8(text).ok().filter(|text| text.is_ascii() && text.len() <= BEGIN_LIMIT_BYTES)?;
        Some((text.into(), tag_of(text)?))
    }

    /// Has the session left nothing behind that only one server knows, or that nobody knows yet?
    fn is_unmarked(&self) -> bool {
        let session = &self.session;
        session.can_change_process() && !session.scope_changes
    }

    /// Would a server find nothing to say about how a statement without parameters is bound and run?
    fn binds_plainly(&self, request: Request) -> bool {
        if request.kind == RequestKind::Simple {
            return true;
        }
        // At most one format for its columns, of which there are none.
        let is_bare = |rest: &[u8]| matches!(rest, [0, 0, 0, 0, 0, 0] | [0, 0, 0, 0, 0, 1, 0, 0 | 1]);
        !has_portal(self.session.steps.iter().map(|located| &located.step))
            && self.names_no_portal()
            && self.binds(request).all(is_bare)
    }

    /// What its Bind messages hold behind their names.
    fn binds(&self, request: Request) -> impl Iterator<Item = &[u8]> {
        let bytes = self.io.inbox.unread().get(..request.bytes).unwrap_or_default();
        let binds = frames(bytes).filter(|frame| frame.first() == Some(&tag::BIND));
        binds.map(|frame| frontend::bind(frame).map_or(&[][..], |(_, _, rest)| rest))
    }

    /// May a replica run it, and the transaction still move afterwards?
    fn is_plain_read(&self, request: Request, facts: &Facts) -> bool {
        let names_the_clock = |rest: &[u8]| frontend::parameters(rest).flatten().any(names_the_clock);
        is_whole(request)
            && facts.statement.is_some()
            && !facts.needs_primary
            && facts.boundary == Boundary::None
            && facts.only_queries
            && facts.is_timeless
            && facts.effects.is_empty()
            && !facts.asks_for_sequences
            && self.is_unmarked()
            && (request.kind == RequestKind::Simple
                || (!has_portal(self.session.steps.iter().map(|located| &located.step))
                    && self.names_no_portal()
                    && !self.binds(request).any(names_the_clock)))
    }

    /// Does the replica that it is on show what this must see?
    fn is_shown_here(&self, facts: &Facts) -> bool {
        let Some(link) = &self.link else { return false };
        let wants_primary = [facts.route_hint(), self.session.own.route].contains(&Some(RouteHint::Primary));
        if wants_primary || self.is_strict(facts) {
            return false;
        }
        let (view, opened) = (self.view(), link.server.core().info.connected_at);
        let demand = view.demand(facts, None, self.request_started);
        !facts.takes_snapshot || view.database.topology.shows(link.member, opened, &demand, self.request_started)
    }

    /// A request in such a transaction; `None` if the server that the client holds shall run it.
    pub(super) async fn follow_lazy(&mut self, request: Request, facts: &Facts) -> Result<Option<Taken>, ClientError> {
        let Some(lazy) = &self.session.transaction.lazy else { return Ok(None) };
        let stage = lazy.stage;
        let Some(link) = self.link.as_ref().filter(|_| stage != Stage::Unplaced) else {
            let tag = end_of(facts).filter(|_| self.binds_plainly(request));
            if let Some(tag) = tag.filter(|_| self.lone_statement(request, facts).is_some()) {
                self.session.transaction = Default::default();
                self.info.set_activity(Activity::Idle);
                self.answer_boundary(request, tag);
                self.transaction_started = u64::MAX;
                return Ok(Some(Taken::Yes));
            }
            let on_replica = self.is_plain_read(request, facts);
            self.place_lazy(request, facts, on_replica, Past::Nothing).await?;
            return Ok(Some(Taken::NotYet));
        };
        if !link.is_quiet() || !self.pending.is_empty() {
            return Ok(Some(Taken::NotYet));
        }
        if stage == Stage::Primary {
            self.session.transaction.lazy = None;
            return Ok(None);
        }
        let has_failed = link.status == TransactionStatus::Failed;
        let stays = match has_failed {
            // Whatever does not end the transaction is refused anywhere. What comes behind the end may be a write.
            true => is_whole(request) && (facts.is_alone || (facts.executed == 0 && facts.only_queries)),
            false => {
                let ends = is_whole(request) && end_of(facts).is_some();
                ends || (self.is_plain_read(request, facts) && self.is_shown_here(facts))
            }
        };
        if stays {
            return Ok(None);
        }
        self.context.tally.escaped(Escape::Moved);
        self.leave_replica();
        let past = if has_failed { Past::Error } else { Past::Queries };
        self.place_lazy(request, facts, false, past).await?;
        Ok(Some(Taken::NotYet))
    }

    /// Begins the transaction on a server; the request joins it there.
    async fn place_lazy(
        &mut self,
        request: Request,
        facts: &Facts,
        on_replica: bool,
        past: Past,
    ) -> Result<(), ClientError> {
        let Some(mut lazy) = std::mem::take(&mut self.session.transaction).lazy else { return Ok(()) };
        let began = self.transaction_started;
        let plan = FillPlan::none("in_transaction");
        let elsewhere = facts.on_primary("lazy_begin");
        let facts = if on_replica { facts } else { &elsewhere };
        // A cancel request would leave the client in a transaction that nobody has: it is not heard here.
        while self.link_up(request.kind, facts, &plan).await?.is_none() {}
        if let Some(link) = &mut self.link {
            link.begin_again(&lazy.begin);
            match past {
                Past::Nothing => {}
                // The characteristics of a transaction are fixed once it has asked.
                Past::Queries => link.begin_again(QUERY),
                // Whose error is expected.
                Past::Error => link.ask(FAILS, Capture::Again),
            }
            lazy.stage = if link.is_primary { Stage::Primary } else { Stage::Replica };
        }
        self.session.transaction.lazy = Some(lazy);
        self.transaction_started = began;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_held_back_only_where_each_statement_has_a_snapshot_and_nothing_else_is_said() {
        let begin = |read_only, isolation, deferrable| [TransactionControl::Begin { read_only, isolation, deferrable }];
        for (control, reads_committed, expected) in [
            (begin(None, None, false), true, true),
            (begin(None, None, false), false, false),
            (begin(None, Some(Isolation::ReadCommitted), false), false, true),
            (begin(None, Some(Isolation::RepeatableRead), false), true, false),
            (begin(None, Some(Isolation::Serializable), false), true, false),
            (begin(Some(true), None, false), true, false),
            (begin(Some(false), None, false), true, false),
            (begin(None, None, true), true, false),
        ] {
            assert_eq!(is_plain(&control, reads_committed), expected, "{control:?}");
        }
    }

    #[test]
    fn the_tag_is_that_of_the_word() {
        let tags = ["begin", " BEGIN;", "Start transaction", "/* a */ begin", ""].map(tag_of);
        assert_eq!(tags, [Some("BEGIN"), Some("BEGIN"), Some("START TRANSACTION"), None, None]);
    }
}
