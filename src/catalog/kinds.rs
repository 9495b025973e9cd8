//! From the kind of each statement and the verdict about it to a [`Meaning`].

use std::sync::Arc;

use super::{
    Access, AccessReason, Bypass, Effects, Meaning, RelationOid, Scoped, Snapshot, TransactionControl, Writes, builtin,
    function::Reach,
    judge::{Judge, Verdict, flags, local_effects},
    keyed::keyed,
    names::Path,
};
use crate::sql::{Ddl, DdlKind, DiscardTarget, Facts, Part, Statement, StatementKind as K, is_tracked_setting};

/// What a statement means by its grammar alone: reads go to the primary, nothing is cached, and a write
/// reaches as far as its locks tell.
pub fn meaning_without_catalog(statement: &Statement) -> Meaning {
    meaning(statement, None)
}

type Catalog<'s> = Option<(&'s Snapshot, &'s Path)>;

pub(super) fn meaning(statement: &Statement, catalog: Catalog<'_>) -> Meaning {
    let mut meaning = undeferred(statement, catalog);
    // What is written is not known, so a trigger that waits for the commit may be among it.
    let some_wait = catalog.is_none_or(|(snapshot, _)| snapshot.deferrable_triggers);
    meaning.deferred_constraints |= meaning.writes == Writes::LockSet && some_wait;
    meaning
}

fn undeferred(statement: &Statement, catalog: Catalog<'_>) -> Meaning {
    if !statement.parsed {
        return not_understood(statement);
    }
    let mut before = Effects::default();
    let mut parts = statement.parts.iter().map(|part| {
        let judged = Judged::new(part, behind(before, catalog));
        before.insert(judged.verdict.effects);
        judged
    });
    match (parts.next(), parts.len()) {
        (None, _) => nothing(),
        (Some(only), 0) => only.into_meaning(),
        (Some(first), _) => several(first, parts),
    }
}

/// What is known of the names in a statement behind others of the same string.
fn behind(before: Effects, catalog: Catalog<'_>) -> Catalog<'_> {
    let (snapshot, path) = catalog?;
    let path = match path {
        Path::Known(_) | Path::Anywhere if before.may_shadow() => &Path::Shadowed,
        Path::Known(_) if before.intersects(Effects::NEW_NAMES) => &Path::Anywhere,
        path => path,
    };
    Some((snapshot, path))
}

/// A statement as it will run.
struct Judged {
    verdict: Verdict,
    transaction: Option<TransactionControl>,
    atomic: bool,
    wrappable: bool,
    is_query_only: bool,
}

impl Judged {
    fn new(part: &Part, catalog: Catalog<'_>) -> Self {
        let mut judged = Self {
            verdict: Verdict::default(),
            transaction: None,
            atomic: true,
            wrappable: false,
            is_query_only: false,
        };
        judged.kind(&part.kind, &part.facts, catalog);
        judged
    }

    fn kind(&mut self, kind: &K, part: &Facts, catalog: Catalog<'_>) {
        match kind {
            K::Select | K::Insert | K::Update | K::Delete | K::Merge => self.query(kind, part, catalog),
            K::CopyFrom | K::CopyTo { .. } => self.copy(kind, part, catalog),
            K::Truncate | K::RefreshMaterializedView { .. } => {
                self.wrappable = true;
                self.verdict = verdict(part, catalog);
            }
            K::Explain { analyze, inner } => self.explain(*analyze, inner, part, catalog),
            K::CreateTableAs { temporary, execute } => self.create_table_as(*temporary, *execute, part, catalog),
            K::Declare { hold } => self.declare(*hold, part, catalog),
            K::Call | K::Do | K::Execute | K::Unknown => self.opaque(kind),
            K::Transaction(control) => self.control(control.clone()),
            K::Ddl(ddl) => self.ddl(*ddl),
            K::Grant => {
                self.utility(AccessReason::Write);
                self.wrappable = true;
                self.verdict.catalog_change = true;
            }
            _ => {
                self.session(kind);
                // What it names is there to be shown; it does not run now.
                self.verdict.touched = verdict(part, catalog).touched;
            }
        }
    }

    fn query(&mut self, kind: &K, part: &Facts, catalog: Catalog<'_>) {
        self.wrappable = true;
        self.verdict = verdict(part, catalog);
        self.verdict.keyed = catalog.and_then(|catalog| keyed(catalog, kind, part, &self.verdict));
        if *kind != K::Select {
            self.verdict.refuse(AccessReason::Write, Bypass::NotARead);
            return;
        }
        let Verdict { written, reach, leaves_traces, .. } = &self.verdict;
        self.is_query_only = written.is_empty() && *reach == Reach::Nothing && !leaves_traces;
        if self.verdict.reads.is_empty() {
            self.verdict.bypass(Bypass::NoRelation);
        }
    }

    fn copy(&mut self, kind: &K, part: &Facts, catalog: Catalog<'_>) {
        self.verdict = verdict(part, catalog);
        self.verdict.bypass(Bypass::NotARead);
        match kind {
            K::CopyTo { on_server: false } => {}
            K::CopyTo { .. } => self.verdict.primary(AccessReason::ServerState),
            _ => self.verdict.primary(AccessReason::Write),
        }
    }

    fn explain(&mut self, analyze: bool, inner: &K, part: &Facts, catalog: Catalog<'_>) {
        self.kind(inner, part, catalog);
        self.verdict.bypass = Some(Bypass::NotARead);
        self.verdict.guarded = None;
        if !analyze {
            let Verdict { primary, bypass, touched, .. } = std::mem::take(&mut self.verdict);
            self.verdict = Verdict { primary, bypass, touched, ..Verdict::default() };
            self.transaction = None;
            self.atomic = true;
            self.is_query_only = true;
        }
        // The planner is free to differ, but a plan of a replica is not what anyone asks for.
        if !matches!(inner, K::Select) {
            self.verdict.primary(AccessReason::Utility);
        }
    }

    fn create_table_as(&mut self, temporary: bool, execute: bool, part: &Facts, catalog: Catalog<'_>) {
        self.wrappable = true;
        self.verdict = verdict(part, catalog);
        self.verdict.refuse(AccessReason::Write, Bypass::NotARead);
        if execute {
            self.hidden_code();
        }
        match temporary {
            true => self.verdict.effects.insert(Effects::TEMP),
            false => self.changes_definitions(),
        }
    }

    fn declare(&mut self, hold: bool, part: &Facts, catalog: Catalog<'_>) {
        self.verdict = verdict(part, catalog);
        self.verdict.bypass(Bypass::NotARead);
        if hold {
            // Its query runs when the transaction commits, behind the question for the lock set.
            if self.verdict.reach == Reach::Locks {
                self.verdict.reach = Reach::Database;
            }
            self.verdict.effects.insert(Effects::HOLD_CURSOR);
            self.verdict.primary = Some(AccessReason::SessionState);
        }
    }

    fn opaque(&mut self, kind: &K) {
        self.utility(AccessReason::Utility);
        self.hidden_code();
        match kind {
            // An EXECUTE is one query; the others may commit on the way.
            K::Execute => self.wrappable = true,
            _ => {
                self.atomic = false;
                self.verdict.reach = Reach::Database;
                self.verdict.catalog_change = *kind == K::Unknown;
            }
        }
    }

    fn hidden_code(&mut self) {
        self.verdict.reaches(Reach::Locks);
        self.verdict.effects.insert(Effects::OPAQUE);
    }

    fn control(&mut self, control: TransactionControl) {
        self.utility(AccessReason::TransactionControl);
        self.atomic = matches!(
            control,
            TransactionControl::Savepoint
                | TransactionControl::RollbackToSavepoint
                | TransactionControl::ReleaseSavepoint
                | TransactionControl::SetTransaction { .. }
        );
        if matches!(control, TransactionControl::CommitPrepared(_)) {
            // Its locks show no GRANT, and its name may stand for another transaction by the time it is committed.
            self.verdict.reach = Reach::Database;
            self.verdict.catalog_change = true;
        }
        self.transaction = Some(control);
    }

    fn ddl(&mut self, ddl: Ddl) {
        self.utility(AccessReason::Write);
        self.atomic = ddl.transactional;
        self.wrappable = ddl.transactional;
        match ddl.kind {
            DdlKind::CreateTemporary => self.verdict.effects.insert(Effects::TEMP),
            DdlKind::PlainIndex => self.verdict.moves_fence = true,
            DdlKind::Cluster => self.verdict.catalog_change = true,
            DdlKind::Drop => {
                self.verdict.effects.insert(Effects::RELEASE);
                self.changes_definitions();
            }
            DdlKind::Other => self.changes_definitions(),
        }
    }

    fn changes_definitions(&mut self) {
        self.verdict.catalog_change = true;
        self.verdict.reach = Reach::Database;
    }

    fn utility(&mut self, reason: AccessReason) {
        self.verdict.refuse(reason, Bypass::NotARead);
    }

    /// A statement that stays with whatever server its transaction is on.
    fn anywhere(&mut self) {
        self.verdict.bypass(Bypass::NotARead);
    }

    /// Statements about the session, and maintenance that changes no answer.
    fn session(&mut self, kind: &K) {
        match kind {
            K::Show { .. } | K::ProxyShow { .. } => {
                self.is_query_only = true;
                self.utility(AccessReason::SessionState);
            }
            K::Set { name, local: true, .. } => {
                self.anywhere();
                self.verdict.effects.insert(local_effects(Some(name)));
            }
            K::Set { name, default, .. } => self.set(name, *default),
            K::Reset { name } => match name {
                Some(name) => self.set(name, true),
                None => self.with_effect(Effects::RELEASE.union(Effects::RESET)),
            },
            K::Fetch | K::Move => self.anywhere(),
            K::Close => {
                self.anywhere();
                self.verdict.effects.insert(Effects::RELEASE);
            }
            K::Unlisten { .. } | K::Deallocate { .. } => self.release(),
            K::Discard(target) => {
                self.atomic = *target != DiscardTarget::All;
                self.release();
                if *target == DiscardTarget::All {
                    self.verdict.effects.insert(Effects::RESET);
                }
            }
            K::Prepare => self.with_effect(Effects::SQL_PREPARE),
            K::Listen { .. } => self.with_effect(Effects::LISTEN),
            K::Load => self.with_effect(Effects::LOAD),
            K::Lock => {
                self.wrappable = true;
                self.utility(AccessReason::RowLock);
            }
            K::Vacuum | K::Cluster | K::Reindex => {
                self.atomic = false;
                self.utility(AccessReason::Utility);
                self.verdict.moves_fence = true;
            }
            K::Comment | K::Analyze => {
                self.utility(AccessReason::Utility);
                self.verdict.moves_fence = true;
            }
            _ => self.utility(AccessReason::Utility),
        }
    }

    /// SET or RESET for the session. A reported parameter is replayed by the proxy; any other stays with
    /// the server connection.
    fn set(&mut self, name: &str, default: bool) {
        match (is_tracked_setting(name), default) {
            (true, false) => self.utility(AccessReason::SessionState),
            (true, true) => self.with_effect(Effects::RESET),
            (false, true) => self.with_effect(Effects::RELEASE.union(Effects::RESET)),
            (false, false) => self.with_effect(Effects::SET_PARAMETER),
        }
    }

    fn release(&mut self) {
        self.with_effect(Effects::RELEASE);
    }

    fn with_effect(&mut self, effect: Effects) {
        self.utility(AccessReason::SessionState);
        self.verdict.effects.insert(effect);
    }

    fn into_meaning(self) -> Meaning {
        let Verdict { primary, bypass, guarded, settings, reads, keyed, touched, effects, .. } = self.verdict;
        let reads = || reads.into_iter().map(RelationOid).collect();
        let reason = match guarded {
            Some(true) => Some(Bypass::RowSecurity),
            Some(false) => bypass.or(Some(Bypass::RowSecurity)),
            None => bypass,
        };
        let is_understood = guarded.is_some() && bypass.is_none() && self.is_query_only;
        let mut meaning = Meaning {
            access: if primary.is_some() { Access::Primary } else { Access::Read },
            reason: primary.unwrap_or(AccessReason::Read),
            cacheable: reason.filter(|_| !is_understood).map_or_else(|| Ok(reads()), Err),
            scoped: None,
            keyed,
            relations: touched.into_iter().map(RelationOid).collect(),
            writes: writes(self.verdict.reach, self.verdict.written, self.verdict.moves_fence),
            catalog_change: self.verdict.catalog_change,
            effects,
            transaction: self.transaction.into_iter().collect(),
            atomic: self.atomic,
            wrappable: self.wrappable,
            deferred_constraints: self.verdict.deferred_constraints,
            is_query_only: self.is_query_only,
        };
        if is_understood {
            let known = Meaning { cacheable: Err(Bypass::RowSecurity), ..meaning.clone() };
            let settings = settings.into_iter().collect();
            meaning = Meaning { scoped: Some(Box::new(Scoped { settings, meaning: Arc::new(meaning) })), ..known };
        }
        meaning
    }
}

fn verdict(part: &Facts, catalog: Catalog<'_>) -> Verdict {
    match catalog {
        Some((snapshot, path)) => {
            let mut judge = Judge::new(snapshot, path);
            judge.facts(part);
            judge.verdict
        }
        None => blind_verdict(part),
    }
}

/// Without a catalog each name may hide a write.
fn blind_verdict(part: &Facts) -> Verdict {
    let mut verdict = Verdict::default();
    if !part.writes.is_empty() {
        verdict.refuse(AccessReason::Write, Bypass::NotARead);
    }
    flags(part.flags, &mut verdict);
    verdict.refuse(AccessReason::CatalogNotLoaded, Bypass::CatalogNotLoaded);
    if !part.writes.is_empty() || !part.calls.is_empty() || !part.reads.is_empty() {
        verdict.reaches(Reach::Locks);
    }
    if !part.calls.is_empty() || !part.writes.is_empty() {
        verdict.effects.insert(Effects::OPAQUE);
    }
    for call in part.calls.iter().filter(|call| call.name.schema.as_deref().is_none_or(|schema| schema == "pg_catalog"))
    {
        verdict.effects.insert(builtin::effects(&call.name.name));
    }
    verdict
}

fn writes(reach: Reach, written: std::collections::BTreeSet<u32>, moves_fence: bool) -> Writes {
    match reach {
        Reach::Database => Writes::Database,
        Reach::Locks => Writes::LockSet,
        Reach::Nothing if written.is_empty() && !moves_fence => Writes::None,
        Reach::Nothing => Writes::Static(written.into_iter().map(RelationOid).collect()),
    }
}

fn several(first: Judged, rest: impl Iterator<Item = Judged>) -> Meaning {
    let mut whole = Verdict::default();
    let mut transaction = Vec::new();
    let (mut atomic, mut plain_reads) = (true, true);
    for part in std::iter::once(first).chain(rest) {
        plain_reads &= part.is_query_only && part.verdict.primary.is_none();
        atomic &= part.atomic;
        whole.reaches(part.verdict.reach);
        whole.written.extend(part.verdict.written);
        if !whole.effects.intersects(Effects::NEW_NAMES) {
            whole.touched.extend(part.verdict.touched);
        }
        whole.effects.insert(part.verdict.effects);
        whole.catalog_change |= part.verdict.catalog_change;
        whole.moves_fence |= part.verdict.moves_fence;
        whole.deferred_constraints |= part.verdict.deferred_constraints;
        transaction.extend(part.transaction);
    }
    if whole.effects.intersects(Effects::NEW_NAMES) && !whole.written.is_empty() {
        whole.reaches(Reach::Locks);
    }
    if !atomic && whole.reach == Reach::Locks {
        whole.reach = Reach::Database;
    }
    if !plain_reads {
        whole.primary(AccessReason::MultiStatement);
    }
    whole.bypass(Bypass::MultiStatement);
    let judged = Judged { verdict: whole, transaction: None, atomic, wrappable: false, is_query_only: plain_reads };
    Meaning { transaction: transaction.into_boxed_slice(), ..judged.into_meaning() }
}

/// An empty query.
fn nothing() -> Meaning {
    let mut verdict = Verdict::default();
    verdict.refuse(AccessReason::Utility, Bypass::NotARead);
    Judged { verdict, transaction: None, atomic: true, wrappable: false, is_query_only: true }.into_meaning()
}

/// Text that does not parse may be anything, unless it begins like a query and holds only one statement.
fn not_understood(statement: &Statement) -> Meaning {
    let mut verdict = Verdict::default();
    verdict.refuse(AccessReason::Unparsed, Bypass::Unparsed);
    verdict.effects.insert(Effects::OPAQUE);
    let lone_query = statement.is_lone_query();
    match lone_query {
        true => verdict.reaches(Reach::Locks),
        false => {
            verdict.reaches(Reach::Database);
            verdict.catalog_change = true;
        }
    }
    Judged { verdict, transaction: None, atomic: lone_query, wrappable: lone_query, is_query_only: false }
        .into_meaning()
}
