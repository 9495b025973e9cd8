//! Sends a request to the server that the client holds, with messages of our own where they are needed.

use std::sync::Arc;

use super::{
    Client,
    backend::LOCK_SET_QUERY,
    cached::FillPlan,
    facts::{Boundary, Facts, Written},
    link::Link,
    pending::{Pending, WriteUnit, merge},
    route::Placement,
    session::{Located, Step},
};
use crate::{
    cache::{Touched, invalidation::Origin},
    catalog::Effects,
    insight::Work,
    protocol::{TransactionStatus, frontend, frontend::Target},
    session::{
        Delivery, Expected, PinSet, Reply, Sequences, SessionSettings, Undo, is_custom, named_in,
        prepared::StatementId,
        replies::Capture,
        request::{Request, RequestKind},
    },
    sql::{Statement, StatementKind},
};

/// The portal of our own query inside a client's batch.
const OWN_PORTAL: &[u8] = b"pgweir";

/// How the server is asked what a transaction has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LockSet {
    /// It is not.
    No,
    /// The client's simple statement runs between our BEGIN and our COMMIT.
    Wrap,
    /// In front of the client's COMMIT.
    BeforeCommit,
    /// In front of the client's Sync.
    BeforeSync,
}

impl Client {
    /// Sends a whole request and remembers what is owed for it.
    pub(super) fn forward(&mut self, request: Request, facts: Facts, placement: Placement, fill: Option<FillPlan>) {
        let lock_set = self.lock_set(request.kind, &facts);
        self.account_for(request.kind, request.bytes, &facts, placement, fill);
        self.note_sequences(&facts);
        self.note_read_only(&facts);
        if let Some(link) = &mut self.link {
            link.forgets_statements = facts.forgets_statements || (link.forgets_statements && !link.is_quiet());
        }
        if let Some(link) = &mut self.link {
            link.show(self.info.id);
        }
        self.note_effects(&facts);
        self.note_own_notification(&facts);
        self.learn_custom_settings(&request, &facts);
        match request.kind {
            RequestKind::Simple => self.forward_simple(request, lock_set),
            RequestKind::FunctionCall => self.pass_whole(request, Expected::FunctionCall),
            _ => self.forward_extended(request, lock_set),
        }
        if facts.effects.contains(Effects::RESET) && !self.session.began_with.is_empty() {
            self.begin_again(request.kind, &facts);
        }
        if let Some(link) = &mut self.link {
            match facts.boundary {
                Boundary::None => {}
                Boundary::Begin { .. } | Boundary::Mixed => link.expects_transaction = true,
                Boundary::Commit | Boundary::Rollback => link.expects_transaction = false,
            }
        }
        self.take_back();
        self.make_up_replies();
    }

    /// Does the server have to be asked, and where in the request?
    fn lock_set(&self, kind: RequestKind, facts: &Facts) -> LockSet {
        let Some(link) = &self.link else { return LockSet::No };
        if !self.session.database.voids() || !link.is_quiet() || !self.pending.is_empty() {
            return LockSet::No;
        }
        let asks = |written: &Written| *written == Written::AskServer;
        let is_certain = facts.atomic && asks(&facts.written);
        match (facts.boundary, kind, link.status) {
            (Boundary::None, RequestKind::Simple, TransactionStatus::Idle) if is_certain && facts.wrappable => {
                LockSet::Wrap
            }
            (Boundary::None, RequestKind::Sync, TransactionStatus::Idle) if is_certain && !facts.copies_in => {
                LockSet::BeforeSync
            }
            // A lone COMMIT: what stands beside it in the request would be written before or after the answer.
            (Boundary::Commit, RequestKind::Simple | RequestKind::Sync, TransactionStatus::InTransaction)
                if facts.is_alone && asks(&self.session.transaction.written) =>
            {
                LockSet::BeforeCommit
            }
            _ => LockSet::No,
        }
    }

    /// Opens the record of a request, or goes on with the one that its earlier parts have opened.
    pub(super) fn account_for(
        &mut self,
        kind: RequestKind,
        bytes: usize,
        facts: &Facts,
        placement: Placement,
        fill: Option<FillPlan>,
    ) {
        let is_whole = !matches!(kind, RequestKind::Flush | RequestKind::Open);
        let is_in_transaction = self.link.as_ref().is_some_and(Link::is_in_transaction);
        self.note_asking(facts);
        let asks_server = self.lock_set(kind, facts) != LockSet::No;
        let unit = self.write_unit(kind, facts, asks_server);
        if let Some(earlier) = self.pending.unfinished() {
            earlier.is_whole = is_whole;
            earlier.received += bytes as u64;
            earlier.fills = None;
            earlier.leaves_no_trace &= leaves_no_trace(facts);
            if facts.statement.is_some() {
                earlier.statement.clone_from(&facts.statement);
            }
            let announced = merge(&mut earlier.unit, unit, &self.session.database.cells);
            self.unheard = announced.max(self.unheard);
            return;
        }
        let asks_cache = self.session.database.caches() || self.session.database.observes();
        let mut plan = fill.unwrap_or_else(|| match asks_cache {
            true => FillPlan::none(if self.session.pins.is_empty() { "in_transaction" } else { "pinned" }),
            false => FillPlan::off(),
        });
        if let Some(fills) = &mut plan.fills {
            fills.sent_at(self.request_started + placement.queued);
        }
        if let Some(member) = self.session.database.topology.member(placement.member) {
            member.state.requested();
        }
        if self.pending.is_empty() {
            self.info.run_since(self.request_started);
        }
        self.pending.push(Pending {
            statement: facts.statement.clone(),
            started: self.request_started,
            queued: placement.queued,
            route: placement.route,
            route_reason: placement.reason,
            member: Some(placement.member),
            cache: plan.outcome,
            cache_reason: plan.reason,
            absence: plan.absence,
            rows: 0,
            sent: 0,
            received: bytes as u64,
            work: self.work(placement),
            sqlstate: None,
            is_whole,
            leaves_no_trace: leaves_no_trace(facts),
            is_in_transaction,
            unit,
            fills: plan.fills,
        });
    }

    /// What SHOW STATS counts about a request before it is sent. As in PgBouncer, unnamed statements do not count.
    fn work(&self, placement: Placement) -> Work {
        let count =
            |is: fn(&Step) -> bool| self.session.steps.iter().filter(|located| is(&located.step)).count() as u64;
        Work {
            assignments: u64::from(placement.is_assigned),
            client_parses: count(Step::names_statement),
            binds: count(|step| matches!(step, Step::Bind { is_unnamed: false, .. })),
            ..Work::default()
        }
    }

    /// The marks of what this request may commit, set before a byte of it is sent.
    fn write_unit(&mut self, kind: RequestKind, facts: &Facts, asks_server: bool) -> Option<WriteUnit> {
        let link = self.link.as_ref()?;
        let transaction = &mut self.session.transaction;
        transaction.epoch = transaction.epoch.or(facts.epoch);
        let is_certain = link.is_quiet() && self.pending.is_empty();
        let joins_transaction = is_certain && link.status != TransactionStatus::Idle;
        let commits = match facts.boundary {
            Boundary::Commit | Boundary::Mixed => true,
            // What is written behind a ROLLBACK in the same request is not rolled back by it.
            Boundary::Rollback => !facts.is_alone,
            Boundary::None | Boundary::Begin { .. } => !joins_transaction || !facts.atomic,
        };
        let was_idle = is_certain && link.status == TransactionStatus::Idle;
        // A request that is not atomic may leave a transaction open, with what it has written so far.
        if !was_idle || !facts.atomic {
            transaction.written.add(&facts.written);
            transaction.catalog_change |= facts.catalog_change;
        }
        if !commits {
            return None;
        }
        let (written, catalog_change) = if was_idle {
            (facts.written.clone(), facts.catalog_change)
        } else {
            (transaction.written.clone(), transaction.catalog_change)
        };
        if written.is_nothing() && !catalog_change {
            return None;
        }
        let unheard = &mut self.unheard;
        let guard = self.session.database.marks_writes().then(|| {
            // What was understood by definitions that have changed may write elsewhere by now.
            let is_in_force = transaction.epoch.is_none_or(|epoch| self.session.database.cells.is_in_force(epoch));
            let (touched, rows) = match &written {
                Written::Known(_) if !is_in_force => (Touched::Database, &[][..]),
                Written::Known(known) => (Touched::Relations(&known.relations), &*known.rows),
                Written::Nothing => (Touched::Relations(&[]), &[][..]),
                Written::AskServer | Written::Anything => (Touched::Database, &[][..]),
            };
            let mut guard = self.session.database.cells.begin_write(touched, catalog_change);
            guard.widen(Touched::Rows(rows), false);
            let info = &link.server.core().info;
            guard.understood_with(transaction.epoch);
            let entry = self.session.database.entry;
            guard.runs_on(Origin { entry, member: link.member, process_id: info.remote_pid as i32 });
            *unheard = guard.announce().max(*unheard);
            guard
        });
        let commits_inside = !facts.atomic || facts.boundary == Boundary::Mixed || (!asks_server && !is_certain);
        // An extended batch commits at its Sync.
        let reveals_early = commits_inside || kind == RequestKind::Simple;
        Some(WriteUnit {
            guard,
            more: Vec::new(),
            marks_everything: false,
            commits_inside,
            reveals_early,
            catalog_change,
            has_lock_set: true,
            wrote_nothing: false,
        })
    }

    /// What the request may do to the session decides whether the server is asked about it afterwards.
    pub(super) fn note_effects(&mut self, facts: &Facts) {
        let session = &mut self.session;
        session.transaction.has_own_names |= facts.effects.contains(Effects::LOCAL_NAMES);
        if self.keeps_server || !session.is_transparent {
            // The server is never asked: what names mean stays unknown once they may have changed.
            let brings_back = facts.effects.contains(Effects::RESET) && session.settings.change_names();
            session.must_probe |= brings_back || facts.effects.intersects(Effects::OTHER_NAMES);
            return;
        }
        let suspects = PinSet::suspected(facts.effects);
        session.suspects = session.suspects.union(suspects);
        let is_suspect = !suspects.is_empty() || facts.effects.contains(Effects::OPAQUE);
        let releases = facts.effects.contains(Effects::RELEASE);
        let is_pinned = session.pins != session.pins.unobservable();
        let may_release = is_pinned && (releases || facts.boundary != Boundary::None);
        // An answer that is under way knows nothing of what is given back now.
        let begins_with_nothing =
            self.link.as_ref().is_none_or(|link| link.server.core().began_with == SessionSettings::default());
        let may_hold =
            !begins_with_nothing || session.is_probed || !session.settings.is_empty() || !session.suspects.is_empty();
        session.must_probe |= is_suspect || may_release || (releases && may_hold);
    }

    /// Keeps a session on the server that knows its sequences, where anybody asks for them.
    pub(super) fn note_sequences(&mut self, facts: &Facts) {
        let (own, now) = (self.info.id, self.request_started);
        // What the open transaction has called nextval() for is its own.
        let asks = facts.asks_for_sequences && !self.session.transaction.advances_sequences;
        let concerns = asks || facts.advances_sequences || facts.forgets_sequences;
        let is_shared = self.session.is_transparent && !self.keeps_server;
        let Some(link) = self.link.as_mut().filter(|link| concerns && is_shared && link.is_primary) else { return };
        if asks {
            link.pool.asks_for_sequences(now);
            if link.status != TransactionStatus::Failed && link.has_foreign_sequences(&self.session, own, now) {
                link.forget_sequences();
            }
        }
        let is_asked_for = link.pool.are_sequences_asked_for(now);
        let core = link.server.core_mut();
        if facts.advances_sequences {
            core.sequences_of = if [0, own].contains(&core.sequences_of) { own } else { Sequences::OF_SEVERAL };
            self.session.sequences = self.session.sequences.advanced_on(core.info.id);
            self.session.transaction.advances_sequences = true;
        } else if facts.forgets_sequences && core.sequences_of == own {
            core.sequences_of = 0;
            self.session.sequences = Sequences::Untouched;
        }
        let was_pinned = self.session.pins.contains(PinSet::SEQUENCE);
        let is_pinned = core.sequences_of == own && (was_pinned || is_asked_for);
        if is_pinned {
            self.session.sequences = Sequences::On(core.info.id);
        }
        if is_pinned != was_pinned {
            let others = self.session.pins.difference(PinSet::SEQUENCE);
            self.set_pins(if is_pinned { others.union(PinSet::SEQUENCE) } else { others });
        }
    }

    /// The server will be asked what is set, by name where it has no list: the names that the request may set are learnt.
    /// Where one cannot be known, the session keeps its server.
    fn learn_custom_settings(&mut self, request: &Request, facts: &Facts) {
        if !self.session.must_probe || !facts.effects.intersects(Effects::SET_PARAMETER.union(Effects::OPAQUE)) {
            return;
        }
        let mut names = Vec::new();
        let mut is_known = true;
        let bytes = self.io.inbox.unread().get(..request.bytes).unwrap_or_default();
        if request.kind == RequestKind::Simple {
            names = named_in(&String::from_utf8_lossy(bytes));
            is_known = facts.statement.as_ref().is_none_or(|statement| named_by_grammar(statement, &mut names));
        }
        for located in &self.session.steps {
            let Step::Bind { prepared: Some(prepared), .. } = &located.step else { continue };
            names.extend(named_in(&String::from_utf8_lossy(&prepared.text)));
            if named_by_grammar(&prepared.statement, &mut names) {
                continue;
            }
            let frame = bytes.get(located.range.clone()).unwrap_or_default();
            let values = frontend::bind(frame).map(|(_, _, rest)| frontend::parameters(rest)).into_iter().flatten();
            let texts: Vec<_> = values.flatten().filter_map(|value| std::str::from_utf8(value).ok()).collect();
            names.extend(texts.iter().filter(|text| is_custom(text)).map(|text| text.to_ascii_lowercase()));
            is_known &= texts.iter().any(|text| is_name(text));
        }
        is_known &= self.session.learn_settings(names.iter().map(String::as_str));
        if !is_known {
            self.session.suspects = self.session.suspects.union(PinSet::UNNAMED_PARAMETER);
        }
    }

    /// Behind a RESET: the server has returned to what it began with, the client shall find what it began with itself.
    fn begin_again(&mut self, kind: RequestKind, facts: &Facts) {
        let (Some(link), RequestKind::Simple | RequestKind::Sync) = (&mut self.link, kind) else { return };
        for reset in &facts.resets {
            if let Some(text) = self.session.began_with.again(reset.as_deref()) {
                self.io.inbox.hand_over(&mut link.server.core_mut().endpoint.outbox);
                link.ask(&text, Capture::Again);
            }
        }
    }

    /// The client's message goes as it is.
    fn pass_whole(&mut self, request: Request, expected: Expected) {
        let Some(link) = &mut self.link else { return };
        link.replies.push(Reply::forward(expected));
        link.server.core_mut().statements.unnamed = None;
        self.io.inbox.pass(request.bytes);
    }

    fn forward_simple(&mut self, request: Request, lock_set: LockSet) {
        match lock_set {
            LockSet::Wrap => self.forward_wrapped(request),
            LockSet::BeforeCommit => {
                if let Some(link) = &mut self.link {
                    link.ask(LOCK_SET_QUERY, Capture::LockSet);
                }
                self.pass_whole(request, Expected::Query);
            }
            _ => self.pass_whole(request, Expected::Query),
        }
    }

    /// `BEGIN`, the statement, the question, `COMMIT`: one write, and the client sees the statement alone.
    fn forward_wrapped(&mut self, request: Request) {
        let Some(link) = &mut self.link else { return };
        link.tell("BEGIN");
        let out = &mut link.server.core_mut().endpoint.outbox;
        self.io.inbox.hand_over(out);
        out.buffer().extend_from_slice(self.io.inbox.unread().get(..request.bytes).unwrap_or_default());
        self.io.inbox.skip(request.bytes, out);
        link.server.core_mut().statements.unnamed = None;
        link.replies.push(Reply::forward(Expected::Wrapped));
        link.ask(LOCK_SET_QUERY, Capture::LockSet);
        frontend::put_query(link.server.core_mut().endpoint.outbox.buffer(), "COMMIT");
        link.replies.push(Reply::forward(Expected::WrappedCommit));
    }

    fn forward_extended(&mut self, request: Request, lock_set: LockSet) {
        let Some(link) = &mut self.link else { return };
        self.io.inbox.hand_over(&mut link.server.core_mut().endpoint.outbox);
        if link.is_idle() {
            link.evict_statements(self.max_prepared);
        }
        let steps = std::mem::take(&mut self.session.steps);
        let bytes = self.io.inbox.unread().get(..request.bytes).unwrap_or_default();
        if self.session.transaction.has_no_portal {
            self.session.transaction.has_no_portal = forget_portal(link, &steps, bytes);
        }
        for located in &steps {
            let frame = bytes.get(located.range.clone()).unwrap_or_default();
            let asks_here = match located.step {
                Step::Execute { commits, .. } => commits && lock_set == LockSet::BeforeCommit,
                Step::Sync => lock_set == LockSet::BeforeSync,
                _ => false,
            };
            if asks_here {
                ask_in_batch(link);
            }
            send_step(link, &located.step, frame);
        }
        self.io.inbox.skip(request.bytes, &mut link.server.core_mut().endpoint.outbox);
        self.session.steps = steps;
        self.session.steps.clear();
    }
}

/// Names of settings that the grammar shows; false if one is computed.
fn named_by_grammar(statement: &Statement, names: &mut Vec<String>) -> bool {
    let mut is_known = true;
    for part in &statement.parts {
        if let StatementKind::Set { name, .. } = &part.kind {
            names.extend(Some(name.to_string()).filter(|name| is_custom(name)));
        }
        for call in part.facts.calls.iter().filter(|call| &*call.name.name == "set_config" && !call.local) {
            match &call.setting {
                Some(name) => names.extend(Some(name.to_string()).filter(|name| is_custom(name))),
                None => is_known = false,
            }
        }
    }
    is_known
}

/// May a value be the name of a setting?
fn is_name(text: &str) -> bool {
    is_custom(text) || (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
}

fn leaves_no_trace(facts: &Facts) -> bool {
    facts.boundary == Boundary::None && facts.effects.is_empty() && !facts.catalog_change && !facts.copies_in
}

/// The unnamed portal that the server may have is older than the one that the client believes in, for which the cache has
/// answered: it is closed before it is taken for that. True if these messages have nothing to do with it.
fn forget_portal(link: &mut Link, steps: &[Located], bytes: &[u8]) -> bool {
    let concerns =
        |it: &&Located| matches!(it.step, Step::Bind { .. } | Step::Execute { .. } | Step::DescribePortal { .. });
    let Some(first) = steps.iter().find(concerns) else { return true };
    let frame = bytes.get(first.range.clone()).unwrap_or_default();
    let is_new =
        matches!(first.step, Step::Bind { .. }) && frontend::bind(frame).is_ok_and(|(portal, ..)| portal.is_empty());
    if !is_new {
        frontend::put_close(link.server.core_mut().endpoint.outbox.buffer(), Target::Portal, b"");
        link.replies.push(Reply::swallow(Expected::Close));
    }
    false
}

/// How a statement is called that no message of the client's has prepared: by its own name, which SQL may have given,
/// but not by one that stands for a neighbour's.
fn unknown(name: &[u8]) -> &[u8] {
    if name.starts_with(StatementId::PREFIX.as_bytes()) { b"pgweir: not prepared" } else { name }
}

/// Sends one message of the client's, under the names that the server knows.
fn send_step(link: &mut Link, step: &Step, frame: &[u8]) {
    let copy = |link: &mut Link| {
        link.server.core_mut().endpoint.outbox.buffer().extend_from_slice(frame);
    };
    match step {
        Step::Parse { prepared, is_taken: true, .. } => {
            link.prepare(prepared, false);
            let out = link.server.core_mut().endpoint.outbox.buffer();
            frontend::put_parse(out, &prepared.server_name, &prepared.text, &prepared.types);
            link.replies.push(Reply::forward(Expected::Parse));
        }
        Step::Parse { prepared, undo, .. } => send_parse(link, prepared, undo, frame),
        Step::LongParse => {
            copy(link);
            link.replies.push(Reply::forward(Expected::Parse));
        }
        Step::Bind { prepared: Some(prepared), .. } => {
            let Ok((portal, name, rest)) = frontend::bind(frame) else { return };
            link.prepare(prepared, name.is_empty());
            if name.is_empty() {
                copy(link);
            } else {
                let out = link.server.core_mut().endpoint.outbox.buffer();
                frontend::put_bind(out, portal, &prepared.server_name, rest);
            }
            link.replies.push(Reply::forward(Expected::Bind));
        }
        Step::Bind { prepared: None, .. } => {
            let Ok((portal, name, rest)) = frontend::bind(frame) else { return };
            link.forget_unnamed(name);
            let out = link.server.core_mut().endpoint.outbox.buffer();
            frontend::put_bind(out, portal, unknown(name), rest);
            link.replies.push(Reply::forward(Expected::Bind));
        }
        Step::DescribeStatement { prepared } => {
            let is_unnamed = frontend::target(frame).is_ok_and(|(_, name)| name.is_empty());
            match prepared {
                Some(prepared) => {
                    link.prepare(prepared, is_unnamed);
                    let name = if is_unnamed { &b""[..] } else { &prepared.server_name };
                    let out = link.server.core_mut().endpoint.outbox.buffer();
                    frontend::put_describe(out, Target::Statement, name);
                }
                None => {
                    let Ok((_, name)) = frontend::target(frame) else { return };
                    link.forget_unnamed(name);
                    let out = link.server.core_mut().endpoint.outbox.buffer();
                    frontend::put_describe(out, Target::Statement, unknown(name));
                }
            }
            link.replies.push(Reply::forward(Expected::Describe));
        }
        Step::DescribePortal { .. } => {
            copy(link);
            link.replies.push(Reply::forward(Expected::Describe));
        }
        Step::Execute { .. } => {
            copy(link);
            link.replies.push(Reply::forward(Expected::Execute));
        }
        Step::CloseStatement { undo } => {
            link.replies.push(Reply::made_up(Expected::Close).undone_by(undo.clone()));
        }
        Step::CloseOther => {
            match frontend::target(frame) {
                Ok((Target::Statement, name)) => {
                    let out = link.server.core_mut().endpoint.outbox.buffer();
                    frontend::put_close(out, Target::Statement, unknown(name));
                }
                _ => copy(link),
            }
            link.replies.push(Reply::forward(Expected::Close));
        }
        Step::Sync => {
            copy(link);
            link.replies.push(Reply::forward(Expected::Sync));
        }
        Step::Flush => copy(link),
    }
}

fn send_parse(link: &mut Link, prepared: &Arc<crate::session::Prepared>, undo: &Undo, frame: &[u8]) {
    let Undo::Unname(name) = undo else { return };
    let is_refused = link.is_quiet() && link.status == TransactionStatus::Failed;
    let core = link.server.core_mut();
    let out = core.endpoint.outbox.buffer();
    if name.is_empty() {
        core.statements.unnamed = Some(prepared.id);
        out.extend_from_slice(frame);
    } else if core.statements.touch(prepared.id) {
        if is_refused {
            frontend::put_parse(out, &prepared.server_name, &prepared.text, &prepared.types);
            link.replies.push(Reply::forward(Expected::Parse).undone_by(undo.clone()));
        } else {
            link.replies.push(Reply::made_up(Expected::Parse).undone_by(undo.clone()));
        }
        return;
    } else {
        core.statements.insert(prepared.id);
        frontend::put_parse(out, &prepared.server_name, &prepared.text, &prepared.types);
        link.server_parses += 1;
    }
    let undo = Undo::UnnameAndUnprepare(name.clone(), prepared.id);
    link.replies.push(Reply::forward(Expected::Parse).undone_by(undo));
}

/// Asks, inside the client's batch and its transaction, what has been written.
fn ask_in_batch(link: &mut Link) {
    let name = StatementId::LOCK_SET.server_name();
    let core = link.server.core_mut();
    let out = core.endpoint.outbox.buffer();
    if !core.statements.touch(StatementId::LOCK_SET) {
        core.statements.insert(StatementId::LOCK_SET);
        frontend::put_parse(out, name.as_bytes(), LOCK_SET_QUERY.as_bytes(), &[0, 0]);
        link.replies.push(Reply::swallow(Expected::Parse).undone_by(Undo::Unprepare(StatementId::LOCK_SET)));
    }
    frontend::put_bind_plain(out, OWN_PORTAL, name.as_bytes());
    frontend::put_execute(out, OWN_PORTAL);
    frontend::put_close(out, Target::Portal, OWN_PORTAL);
    link.replies.push(Reply::swallow(Expected::Bind));
    let delivery = Delivery::Capture(Capture::LockSet);
    link.replies.push(Reply { expected: Expected::Execute, delivery, undo: Undo::Nothing });
    link.replies.push(Reply::swallow(Expected::Close));
}
