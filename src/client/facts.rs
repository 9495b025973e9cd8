//! What a request means as a whole: the strongest of its statements decides.

use std::{sync::Arc, time::Duration};

use super::read_only::{Wish, ends_first};
use crate::{
    ablation::Ablation,
    cache::CatalogEpoch,
    catalog::{
        Access, AccessReason, Bypass, Effects, Isolation, Meaning, RelationOid, Row, TransactionControl, Writes,
    },
    sql::{CacheHint, DiscardTarget, Hints, RouteHint, Statement, StatementKind},
};

/// Rows that one transaction writes by key, beyond which their relations are written as a whole.
const MOST_ROWS: usize = 256;

/// What is written, where that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Any of their rows.
    pub relations: Vec<RelationOid>,
    /// These rows of other relations.
    pub rows: Vec<Row>,
}

impl Known {
    fn add(&mut self, more: &Self) {
        more.relations.iter().for_each(|relation| self.add_relation(*relation));
        for row in &more.rows {
            let is_known = self.relations.contains(&row.relation) || self.rows.contains(row);
            if !is_known {
                self.rows.push(*row);
            }
        }
        if self.rows.len() > MOST_ROWS {
            let rows = std::mem::take(&mut self.rows);
            rows.iter().for_each(|row| self.add_relation(row.relation));
        }
    }

    fn add_relation(&mut self, relation: RelationOid) {
        if !self.relations.contains(&relation) {
            self.relations.push(relation);
        }
    }
}

/// What a request or a transaction may have written, as the invalidation sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Written {
    /// Nothing.
    #[default]
    Nothing,
    /// These and no other.
    Known(Known),
    /// The server has to be asked before the commit.
    AskServer,
    /// Nobody can tell.
    Anything,
}

impl Written {
    /// Both together.
    pub(super) fn add(&mut self, other: &Self) {
        match (&mut *self, other) {
            (_, Self::Nothing) | (Self::Anything, _) => {}
            (_, Self::Anything) => *self = Self::Anything,
            (Self::AskServer, _) => {}
            (_, Self::AskServer) => *self = Self::AskServer,
            (Self::Nothing, Self::Known(more)) => *self = Self::Known(more.clone()),
            (Self::Known(known), Self::Known(more)) => known.add(more),
        }
    }

    pub(super) fn is_nothing(&self) -> bool {
        *self == Self::Nothing
    }
}

impl From<&Writes> for Written {
    fn from(writes: &Writes) -> Self {
        match writes {
            Writes::None => Self::Nothing,
            Writes::Static(relations) => Self::Known(Known { relations: relations.to_vec(), rows: Vec::new() }),
            Writes::LockSet => Self::AskServer,
            Writes::Database => Self::Anything,
        }
    }
}

/// How a request changes the transaction it runs in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Boundary {
    /// Not at all.
    #[default]
    None,
    /// It begins one; `read_only` if it says so and can run on a hot standby.
    Begin {
        /// Declared READ ONLY, and not SERIALIZABLE.
        read_only: bool,
    },
    /// It commits one, and nothing else.
    Commit,
    /// It rolls one back, and nothing else.
    Rollback,
    /// Several of these.
    Mixed,
}

/// What hints say of the place of several statements, which stay together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Placing {
    route: Option<RouteHint>,
    max_staleness: Option<Duration>,
    is_strict: bool,
}

impl Placing {
    /// These, and those of one more statement.
    fn and(self, more: &Hints, is_first: bool) -> Self {
        if is_first {
            return Self::from(more);
        }
        let is_primary = [self.route, more.route].contains(&Some(RouteHint::Primary));
        let route =
            if is_primary { Some(RouteHint::Primary) } else { self.route.filter(|route| Some(*route) == more.route) };
        let both = self.max_staleness.zip(more.max_staleness);
        let is_strict = self.is_strict || more.strict;
        Self { route, max_staleness: both.map(|(one, other)| one.min(other)), is_strict }
    }
}

impl From<&Hints> for Placing {
    fn from(hints: &Hints) -> Self {
        Self { route: hints.route, max_staleness: hints.max_staleness, is_strict: hints.strict }
    }
}

/// What is known of a request before it is sent.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// It needs the primary.
    pub needs_primary: bool,
    /// Why it goes where it goes; empty while nothing was said.
    pub reason: &'static str,
    /// What it may write.
    pub written: Written,
    /// It changes the catalog.
    pub catalog_change: bool,
    /// What it may do to the session.
    pub effects: Effects,
    /// What it does to the transaction.
    pub boundary: Boundary,
    /// It does not commit on its own before it ends.
    pub atomic: bool,
    /// One simple statement that may be put between BEGIN and COMMIT.
    pub wrappable: bool,
    /// One statement, and nothing beside it.
    pub is_alone: bool,
    /// It holds a COPY FROM: while that reads its data, the server takes no other message.
    pub copies_in: bool,
    /// Settings that it brings back to their defaults; `None` is all.
    pub resets: Vec<Option<Box<str>>>,
    /// It asks for `currval()` or `lastval()`, and nothing in front of that calls `nextval()`.
    pub asks_for_sequences: bool,
    /// It may call `nextval()`.
    pub advances_sequences: bool,
    /// It ends what `nextval()` gave to the session: DISCARD ALL, DISCARD SEQUENCES.
    pub forgets_sequences: bool,
    /// It ends every prepared statement: DISCARD ALL, DEALLOCATE ALL.
    pub forgets_statements: bool,
    /// The meaning of its only statement.
    pub meaning: Option<Arc<Meaning>>,
    /// The statement that its record names.
    pub statement: Option<Arc<Statement>>,
    /// Of all statements together.
    pub hints: Placing,
    /// Statements executed.
    pub executed: u32,
    /// What it asks of a READ ONLY transaction on a replica.
    pub wish: Wish,
    /// It reads what tables hold.
    pub takes_snapshot: bool,
    /// It executes queries that leave nothing behind, and BEGIN.
    pub only_queries: bool,
    /// It executes queries that anybody may ask as well, and BEGIN.
    pub only_asks: bool,
    /// What it names tells neither the time nor the session or transaction that asks.
    pub is_timeless: bool,
    /// The isolation that its BEGIN names, if there is one.
    pub isolation: Option<Option<Isolation>>,
    /// Its first statement ends the transaction.
    pub ends_first: bool,
    /// How it begins a READ ONLY transaction that a replica may run.
    pub begin: Option<TransactionControl>,
    /// The catalog that all this was understood with.
    pub epoch: Option<CatalogEpoch>,
}

impl Facts {
    /// Nothing known yet.
    pub(super) fn new() -> Self {
        Self { atomic: true, only_queries: true, only_asks: true, is_timeless: true, ..Self::default() }
    }

    /// A request that nobody understands: primary, uncached, may have done anything.
    pub(super) fn opaque(reason: &'static str) -> Self {
        Self {
            needs_primary: true,
            reason,
            written: Written::Anything,
            effects: Effects::OPAQUE,
            advances_sequences: true,
            wish: Wish::Primary,
            ..Self::default()
        }
    }

    /// The request names this statement without running it.
    pub(super) fn mention(&mut self, statement: &Arc<Statement>, meaning: &Meaning) {
        self.place(meaning);
        self.is_timeless &= is_timeless(meaning);
        if self.executed == 0 {
            self.hints = Placing::from(&statement.hints);
        }
        if self.statement.is_none() {
            self.statement = Some(Arc::clone(statement));
        }
    }

    fn place(&mut self, meaning: &Meaning) {
        if meaning.access == Access::Primary && !is_read_only_begin(meaning) {
            if !self.needs_primary {
                self.reason = meaning.reason.label();
            }
            self.needs_primary = true;
        } else if self.reason.is_empty() {
            self.reason = meaning.reason.label();
        }
    }

    /// The request runs this statement.
    pub(super) fn execute(&mut self, statement: &Arc<Statement>, meaning: Arc<Meaning>) {
        self.execute_on(statement, meaning, None);
    }

    /// The same of one that writes these rows and no others, if that is known.
    pub(super) fn execute_on(&mut self, statement: &Arc<Statement>, meaning: Arc<Meaning>, rows: Option<Vec<Row>>) {
        self.place(&meaning);
        self.is_timeless &= is_timeless(&meaning);
        self.wish = self.wish.max(Wish::of(statement, &meaning));
        if is_read_only_begin(&meaning) {
            self.begin = meaning.transaction.first().cloned();
        } else {
            self.only_queries &= meaning.is_query_only && meaning.access == Access::Read && meaning.effects.is_empty();
        }
        match &*meaning.transaction {
            [TransactionControl::Begin { isolation, .. }] if statement.parts.len() == 1 => {
                self.isolation = Some(*isolation);
            }
            _ => {
                let asks = meaning.is_query_only && meaning.access == Access::Read && meaning.effects.is_empty();
                self.only_asks &= asks;
            }
        }
        self.takes_snapshot |= meaning.access == Access::Read && meaning.reason != AccessReason::SessionState;
        self.ends_first |= self.executed == 0 && ends_first(statement);
        self.hints = self.hints.and(&statement.hints, self.executed == 0);
        self.executed += 1;
        let written = match rows {
            Some(rows) if matches!(meaning.writes, Writes::Static(_)) => {
                let mut known = Known::default();
                known.add(&Known { relations: Vec::new(), rows });
                Written::Known(known)
            }
            _ => Written::from(&meaning.writes),
        };
        self.written.add(&match written {
            Written::Known(_) if self.effects.intersects(Effects::NEW_NAMES) => Written::AskServer,
            written => written,
        });
        let may_defer = meaning.deferred_constraints && !Ablation::DeferredTriggers.is_left_out();
        if may_defer && !self.written.is_nothing() {
            self.written = Written::Anything;
        }
        self.catalog_change |= meaning.catalog_change;
        self.effects = self.effects.union(meaning.effects);
        if meaning.effects.contains(Effects::RESET) {
            self.resets.extend(statement.parts.iter().filter_map(|part| reset(&part.kind)));
        }
        self.atomic &= meaning.atomic;
        self.boundary = join(self.boundary, boundary(&meaning));
        self.wrappable = meaning.wrappable && self.executed == 1;
        let asks = meaning.effects.contains(Effects::SEQUENCE_STATE);
        self.asks_for_sequences |= asks && !self.advances_sequences && !begins_with_insert(statement);
        // UPDATE and DELETE evaluate no default.
        let evaluates = |kind: &StatementKind| !matches!(kind, StatementKind::Update | StatementKind::Delete);
        let names_nextval = meaning.effects.contains(Effects::NEXTVAL);
        self.advances_sequences |= meaning.effects.contains(Effects::OPAQUE)
            || (names_nextval && statement.parts.iter().any(|part| evaluates(&part.kind)));
        self.forgets_sequences |= statement.parts.iter().any(|part| forgets_sequences(&part.kind));
        self.forgets_statements |= statement.parts.iter().any(|part| forgets_statements(&part.kind));
        self.copies_in |= statement.parts.iter().any(|part| part.kind == StatementKind::CopyFrom);
        self.is_alone = statement.parts.len() == 1 && self.executed == 1;
        self.statement = Some(Arc::clone(statement));
        self.meaning = if self.executed == 1 { Some(meaning) } else { None };
    }

    /// The request runs a statement that was not prepared by a message: by `PREPARE`, if it exists.
    pub(super) fn execute_unknown(&mut self) {
        self.needs_primary = true;
        (self.only_queries, self.only_asks) = (false, false);
        self.reason = "unknown_statement";
        self.hints = self.hints.and(&Hints::default(), self.executed == 0);
        self.executed += 1;
        self.written.add(&Written::Anything);
        self.effects.insert(Effects::OPAQUE);
        self.advances_sequences = true;
        self.wrappable = false;
        self.is_alone = false;
        self.meaning = None;
    }

    /// A replica has refused it, or would.
    pub(super) fn may_write(&mut self, reason: &'static str) {
        if !self.needs_primary {
            (self.needs_primary, self.reason) = (true, reason);
        }
        self.only_asks = false;
        self.written.add(&Written::Anything);
    }

    /// All that a cacheable read reads.
    pub(super) fn dependencies(&self) -> &[RelationOid] {
        self.meaning.as_ref().and_then(|meaning| meaning.cacheable.as_deref().ok()).unwrap_or_default()
    }

    /// What places it on the primary: its own reason, else this one.
    pub(super) fn on_primary(&self, reason: &'static str) -> Self {
        let reason = if self.needs_primary { self.reason } else { reason };
        Self { needs_primary: true, reason, asks_for_sequences: self.asks_for_sequences, ..Self::new() }
    }

    /// Where hints send it: all of it to the primary if one statement asks for that, elsewhere only if all of them do.
    pub(super) fn route_hint(&self) -> Option<RouteHint> {
        self.hints.route
    }

    /// How old an answer all of its statements accept.
    pub(super) fn max_staleness(&self) -> Option<Duration> {
        self.hints.max_staleness
    }

    /// Does one of its statements have to see every write, also those that bypass the proxy?
    pub(super) fn is_strict(&self) -> bool {
        self.hints.is_strict
    }

    /// The cache hint of the only statement.
    pub(super) fn cache_hint(&self) -> Option<CacheHint> {
        self.statement.as_ref().and_then(|statement| statement.hints.cache)
    }
}

/// A string of several statements, of which the first that does something is an INSERT.
fn begins_with_insert(statement: &Statement) -> bool {
    let first = statement.parts.iter().position(|part| !matches!(part.kind, StatementKind::Transaction(_)));
    let is_insert = |at: usize| statement.parts.get(at).is_some_and(|part| part.kind == StatementKind::Insert);
    first.is_some_and(|at| is_insert(at) && at + 1 < statement.parts.len())
}

fn forgets_sequences(kind: &StatementKind) -> bool {
    matches!(kind, StatementKind::Discard(DiscardTarget::All | DiscardTarget::Sequences))
}

fn forgets_statements(kind: &StatementKind) -> bool {
    matches!(kind, StatementKind::Discard(DiscardTarget::All) | StatementKind::Deallocate { name: None })
}

/// The setting that a statement brings back to its default.
fn reset(kind: &StatementKind) -> Option<Option<Box<str>>> {
    match kind {
        StatementKind::Reset { name } => Some(name.clone()),
        StatementKind::Set { name, default: true, local: false } => Some(Some(name.clone())),
        StatementKind::Discard(DiscardTarget::All) => Some(None),
        _ => None,
    }
}

/// Does its answer hang on nothing but what tables hold, and on settings? That is what the cache asks as well.
fn is_timeless(meaning: &Meaning) -> bool {
    matches!(meaning.cacheable, Ok(_) | Err(Bypass::NoRelation)) || meaning.scoped.is_some()
}

/// Nothing but the beginning of a transaction that a hot standby can run.
fn is_read_only_begin(meaning: &Meaning) -> bool {
    meaning.reason == AccessReason::TransactionControl && boundary(meaning) == Boundary::Begin { read_only: true }
}

fn boundary(meaning: &Meaning) -> Boundary {
    match &*meaning.transaction {
        [] => Boundary::None,
        [TransactionControl::Begin { read_only, isolation, .. }] => {
            Boundary::Begin { read_only: *read_only == Some(true) && !isolation.is_some_and(is_serializable) }
        }
        [TransactionControl::Commit { chain: false }] => Boundary::Commit,
        [TransactionControl::Rollback { chain: false }] => Boundary::Rollback,
        [
            TransactionControl::Savepoint
            | TransactionControl::RollbackToSavepoint
            | TransactionControl::ReleaseSavepoint
            | TransactionControl::SetTransaction { .. },
        ] => Boundary::None,
        _ => Boundary::Mixed,
    }
}

fn is_serializable(isolation: crate::catalog::Isolation) -> bool {
    isolation == crate::catalog::Isolation::Serializable
}

fn join(before: Boundary, after: Boundary) -> Boundary {
    match (before, after) {
        (Boundary::None, other) | (other, Boundary::None) => other,
        _ => Boundary::Mixed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::KeyId;

    fn relations(oids: &[u32]) -> Written {
        let relations = oids.iter().copied().map(RelationOid).collect();
        Written::Known(Known { relations, rows: Vec::new() })
    }

    #[test]
    fn writes_add_up_to_the_least_that_covers_both() {
        let cases = [
            (Written::Nothing, relations(&[1]), relations(&[1])),
            (relations(&[1]), relations(&[2, 1]), relations(&[1, 2])),
            (relations(&[1]), Written::AskServer, Written::AskServer),
            (Written::AskServer, relations(&[1]), Written::AskServer),
            (Written::AskServer, Written::Anything, Written::Anything),
            (Written::Anything, Written::Nothing, Written::Anything),
        ];
        for (mut written, more, expected) in cases {
            written.add(&more);
            assert_eq!(written, expected);
        }
    }

    #[test]
    fn rows_add_up_until_they_are_too_many() {
        let row = |number: usize| Row { relation: RelationOid(1), key: KeyId(1), number: number as u64 };
        let rows = |rows: std::ops::Range<usize>| {
            Written::Known(Known { relations: Vec::new(), rows: rows.map(row).collect() })
        };
        let mut written = rows(0..2);
        written.add(&rows(1..3));
        assert_eq!(written, rows(0..3));
        let mut whole = written.clone();
        whole.add(&relations(&[1]));
        whole.add(&rows(3..5));
        let Written::Known(known) = &whole else { panic!("{whole:?}") };
        assert_eq!((&known.relations[..], known.rows.len()), (&[RelationOid(1)][..], 3));
        written.add(&rows(0..MOST_ROWS));
        assert_eq!(written, rows(0..MOST_ROWS));
        written.add(&rows(MOST_ROWS..MOST_ROWS + 1));
        assert_eq!(written, relations(&[1]));
        written.add(&Written::AskServer);
        assert_eq!(written, Written::AskServer);
    }

    fn executed(texts: &[&str]) -> Facts {
        let analyzer = crate::sql::Analyzer::default();
        let mut facts = Facts::new();
        for text in texts {
            let statement = analyzer.analyze(text);
            facts.execute(&statement, Arc::new(crate::catalog::meaning_without_catalog(&statement)));
        }
        facts
    }

    #[test]
    fn a_write_behind_a_change_of_names_is_found_by_asking() {
        let write = |effects| {
            let mut facts = Facts { effects, ..Facts::new() };
            let statement = crate::sql::Analyzer::default().analyze("insert into t values (1)");
            let mut meaning = crate::catalog::meaning_without_catalog(&statement);
            meaning.writes = Writes::Static([RelationOid(1)].into());
            meaning.effects = Effects::default();
            meaning.deferred_constraints = false;
            facts.execute(&statement, Arc::new(meaning));
            facts.written
        };
        assert_eq!(write(Effects::default()), relations(&[1]));
        assert_eq!(write(Effects::SET_PARAMETER), Written::AskServer);
        assert_eq!(write(Effects::LOCAL_NAMES), Written::AskServer);
    }

    #[test]
    fn a_statement_is_alone_only_if_nothing_else_is_in_its_request() {
        assert!(executed(&["commit"]).is_alone);
        for texts in [&["update t set v = 1; commit"][..], &["rollback; select 1"], &["commit", "select 1"], &[]] {
            assert!(!executed(texts).is_alone, "{texts:?}");
        }
        let mut facts = executed(&["commit"]);
        facts.execute_unknown();
        assert!(!facts.is_alone);
    }

    #[test]
    fn a_batch_is_placed_by_hints_that_all_of_it_accepts() {
        let primary = "select 1 /* pgweir: primary */";
        let (replica, stale) = ("select 1 /* pgweir: replica */", "select 1 /* pgweir: max_staleness=2s */");
        let staler = "select 1 /* pgweir: max_staleness=5s */";
        let two = Some(Duration::from_secs(2));
        for (texts, route, max_staleness) in [
            (&[replica][..], Some(RouteHint::Replica), None),
            (&[replica, replica], Some(RouteHint::Replica), None),
            (&["select 2", replica], None, None),
            (&[replica, "select 2"], None, None),
            (&[primary, "select 2"], Some(RouteHint::Primary), None),
            (&[replica, primary], Some(RouteHint::Primary), None),
            (&[staler, stale], None, two),
            (&[stale, "select 2"], None, None),
        ] {
            let facts = executed(texts);
            assert_eq!((facts.route_hint(), facts.max_staleness()), (route, max_staleness), "{texts:?}");
        }
    }

    #[test]
    fn only_a_begin_of_its_own_lets_a_hot_standby_run_a_transaction() {
        for (texts, needs_primary) in [
            (&["begin read only"][..], false),
            (&["insert into t values (1); begin read only"], true),
            (&["select pg_advisory_lock(1); begin read only"], true),
            (&["begin read only; insert into t values (1)"], true),
            (&["begin"], true),
        ] {
            assert_eq!(executed(texts).needs_primary, needs_primary, "{texts:?}");
        }
    }

    #[test]
    fn two_boundaries_in_one_request_are_neither() {
        let begin = Boundary::Begin { read_only: false };
        assert_eq!(join(begin, Boundary::Commit), Boundary::Mixed);
        assert_eq!(join(Boundary::None, Boundary::Commit), Boundary::Commit);
    }
}
