//! What the server says while a client holds it.

use std::sync::atomic::Ordering;

use super::{
    Client, ClientError,
    again::Again,
    pending::{Outcome, Pending},
};
use crate::{
    ablation::Ablation,
    cache::{Discard, Touched},
    catalog::{RelationOid, casts_doubt},
    insight::{CacheOutcome, RequestRecord},
    protocol::{TransactionStatus, backend, backend::tag, error_response, frame},
    routing::Fence,
    session::{Probe, Undo, Verdict, replies::Capture},
};

/// Longest message, rows apart, that is held to be read.
const MESSAGE_LIMIT_BYTES: usize = 16 * 1024 * 1024;

/// What a message means for the relay.
enum Step {
    /// On to the next one.
    Next,
    /// It has not arrived whole.
    Wait,
}

impl Client {
    /// Decides about everything that the server has said.
    pub(super) fn take_server_messages(&mut self) -> Result<(), ClientError> {
        while let Some(link) = &mut self.link {
            let unread = link.server.core_mut().endpoint.inbox.unread();
            let Some(header) =
                frame::header(unread).map_err(|_| ClientError::ServerProtocol("a length that no message can have"))?
            else {
                break;
            };
            let arrived = unread.len();
            if self.again != Again::Never && self.waits_for_answer() {
                break;
            }
            if self.pass_plain() {
                self.make_up_replies();
                continue;
            }
            let step = match header.tag {
                tag::DATA_ROW | tag::COPY_DATA | tag::FUNCTION_CALL_RESPONSE => {
                    self.take_row(header.tag, header.frame_bytes)?
                }
                _ if arrived >= header.frame_bytes => self.take_message(header.tag, header.frame_bytes)?,
                _ if header.frame_bytes > MESSAGE_LIMIT_BYTES => {
                    return Err(ClientError::ServerProtocol("a message that is too long"));
                }
                _ => Step::Wait,
            };
            if matches!(step, Step::Wait) {
                break;
            }
        }
        self.release_if_idle();
        Ok(())
    }

    /// Lets everything pass that has arrived whole and that nobody but the client has to read; false if there is nothing
    /// of the kind.
    fn pass_plain(&mut self) -> bool {
        let Some(link) = &mut self.link else { return false };
        let Some(pending) = self.pending.front().filter(|pending| pending.fills.is_none()) else { return false };
        let inbox = &mut link.server.core_mut().endpoint.inbox;
        let unread = inbox.unread();
        let mut bytes = 0;
        while let Some(rest) = unread.get(bytes..)
            && let Ok(Some(header)) = frame::header(rest)
            && header.frame_bytes <= rest.len()
        {
            // Commits are settled one by one, and DEALLOCATE and DISCARD change what is prepared.
            let is_read = header.tag == tag::COMMAND_COMPLETE
                && (pending.unit.is_some() || rest.get(frame::HEADER_BYTES) == Some(&b'D'));
            if is_read || !link.replies.pass(header.tag) {
                break;
            }
            pending.rows += u64::from(header.tag == tag::DATA_ROW);
            bytes += header.frame_bytes;
            if link.replies.has_made_up() {
                break;
            }
        }
        pending.sent += bytes as u64;
        inbox.pass(bytes);
        bytes > 0
    }

    /// Rows pass unread, whether they have arrived whole or not.
    fn take_row(&mut self, tag: u8, bytes: usize) -> Result<Step, ClientError> {
        let Some(link) = &mut self.link else { return Ok(Step::Wait) };
        let core = link.server.core_mut();
        match link.replies.row_verdict() {
            Verdict::Forward => {
                if let Some(pending) = self.pending.front() {
                    pending.rows += u64::from(tag == tag::DATA_ROW);
                    pending.sent += bytes as u64;
                    if let Some(fills) = &mut pending.fills {
                        match core.endpoint.inbox.unread().get(..bytes) {
                            Some(row) => fills.feed(row),
                            None if bytes > crate::session::request::REQUEST_LIMIT_BYTES => {
                                fills.give_up(Discard::TooLarge)
                            }
                            None => return Ok(Step::Wait),
                        }
                    }
                }
                core.endpoint.inbox.pass(bytes);
            }
            Verdict::Capture(capture) => {
                let Some(row) = core.endpoint.inbox.unread().get(..bytes) else {
                    return Ok(Step::Wait);
                };
                let row = row.to_vec();
                core.endpoint.inbox.skip(bytes, &mut self.io.outbox);
                self.take_captured(capture, &row);
            }
            Verdict::Swallow => core.endpoint.inbox.skip(bytes, &mut self.io.outbox),
            _ => return Err(ClientError::ServerProtocol("a row that nobody asked for")),
        }
        Ok(Step::Next)
    }

    fn take_message(&mut self, tag: u8, bytes: usize) -> Result<Step, ClientError> {
        let Some(link) = &mut self.link else { return Ok(Step::Wait) };
        let was_idle = link.is_idle();
        let core = link.server.core_mut();
        let message = core.endpoint.inbox.unread().get(..bytes).unwrap_or_default();
        let status = if tag == tag::READY_FOR_QUERY { backend::transaction_status(message) } else { None };
        if status == Some(TransactionStatus::Idle) && link.replies.owes_client_ready() && self.must_hear_itself() {
            return Ok(Step::Wait);
        }
        let Some(link) = &mut self.link else { return Ok(Step::Wait) };
        let core = link.server.core_mut();
        let message = core.endpoint.inbox.unread().get(..bytes).unwrap_or_default();
        if tag == tag::PARSE_COMPLETE
            && let Some((name, id)) = link.replies.named_next()
            && let Some(prepared) = self.session.names.get(name).filter(|prepared| prepared.id == id)
        {
            prepared.is_proven.store(true, Ordering::Relaxed);
        }
        let verdict = link.replies.on_backend(tag, status);
        match tag {
            tag::PARAMETER_STATUS => {
                if verdict == Verdict::Forward {
                    // Keys of what is under way were built with the values before.
                    self.pending.give_up_fills(Discard::Asynchronous);
                }
                if let Some((name, value)) = backend::parameter_status(message) {
                    core.parameters.set(name, value);
                    if !self.session.is_transparent && self.session.tracks_extra(name) {
                        core.settings = core.settings.with(name, value);
                        if verdict == Verdict::Forward {
                            self.session.settings = self.session.settings.with(name, value);
                        }
                    } else if verdict == Verdict::Forward {
                        self.session.set_parameter(name, value);
                    }
                }
            }
            tag::ERROR_RESPONSE
                if verdict == Verdict::OutOfSync
                    && was_idle
                    && self.pending.is_empty()
                    && self.session.pins.is_empty()
                    && !self.keeps_server =>
            {
                // A server that goes while nobody needs it is nobody's loss.
                link.server.core_mut().is_tainted = true;
                self.session.must_probe = false;
                self.release();
                return Ok(Step::Wait);
            }
            tag::ERROR_RESPONSE if verdict == Verdict::OutOfSync => {
                // The server says why it goes: the client may know.
                return Err(ClientError::Checkout(
                    crate::server::ConnectError::Refused {
                        sqlstate: error_response::sqlstate(message),
                        message: String::from_utf8_lossy(error_response::field(message, b'M').unwrap_or_default())
                            .into(),
                        frame: message.to_vec(),
                    }
                    .into(),
                ));
            }
            tag::ERROR_RESPONSE if verdict == Verdict::Forward => {
                if let Some(pending) = self.pending.front() {
                    pending.sqlstate = error_response::sqlstate(message).map(|state| state.0);
                }
                let state = error_response::sqlstate(message);
                if state.is_some_and(|state| casts_doubt(state, error_response::field(message, b'R'))) {
                    self.session.database.real.catalog_doubted.notify_one();
                }
                self.server_said_farewell |= error_response::field(message, b'V') == Some(b"FATAL");
                link.held.clear();
            }
            tag::ERROR_RESPONSE if verdict == Verdict::Capture(Capture::Settings) => {
                return Err(ClientError::SettingsLost(message.to_vec()));
            }
            // A statement_timeout of the session's own may be shorter than the question takes.
            tag::ERROR_RESPONSE if verdict == Verdict::Capture(Capture::SessionState) => self.probe_failures += 1,
            // The transaction has failed, and with it the RESET in front of it; or it was to fail.
            tag::ERROR_RESPONSE if verdict == Verdict::Capture(Capture::Again) => {}
            tag::ERROR_RESPONSE => link.own_query_failed = true,
            tag::COMMAND_COMPLETE if verdict == Verdict::Forward || verdict == Verdict::Hold => {
                let deallocates = matches!(backend::command_tag(message), b"DEALLOCATE ALL" | b"DISCARD ALL");
                if deallocates {
                    let replies = &link.replies;
                    core.statements.retain(|id| replies.is_preparing(id));
                    self.session.names.retain(|name| replies.is_naming(name));
                }
                // One that is held tells nobody anything, and what it has written is not known yet.
                let unit = self.pending.front().and_then(|pending| pending.unit.as_ref());
                if let Some(unit) = unit.filter(|unit| unit.reveals_early && verdict == Verdict::Forward) {
                    let now = self.context.clock.now();
                    let draw = &mut self.draw;
                    self.session.fence = Fence::after(now);
                    self.session.database.note_write(now);
                    for guard in unit.guard.iter().chain(&unit.more) {
                        self.unheard = guard.reveal(now, || draw.next()).max(self.unheard);
                    }
                    if unit.catalog_change && unit.guard.is_none() {
                        self.session.database.cells.bump_catalog(|| draw.next());
                    }
                }
            }
            _ => {}
        }
        self.carry_out(verdict, bytes)?;
        if tag == tag::ERROR_RESPONSE {
            self.take_back();
        }
        self.make_up_replies();
        Ok(Step::Next)
    }

    fn carry_out(&mut self, verdict: Verdict, bytes: usize) -> Result<(), ClientError> {
        let Some(link) = &mut self.link else { return Ok(()) };
        let core = link.server.core_mut();
        let inbox = &mut core.endpoint.inbox;
        match verdict {
            Verdict::Forward => {
                let message = inbox.unread().get(..bytes).unwrap_or_default();
                if message.first() == Some(&tag::ERROR_RESPONSE)
                    && let Some(own) = self.session.in_own_words(message)
                {
                    inbox.skip(bytes, &mut self.io.outbox);
                    self.io.outbox.buffer().extend_from_slice(&own);
                    return Ok(());
                }
                if let Some(pending) = self.pending.front() {
                    pending.sent += bytes as u64;
                    if let Some(fills) = &mut pending.fills {
                        fills.feed(inbox.unread().get(..bytes).unwrap_or_default());
                    }
                }
                inbox.pass(bytes);
            }
            Verdict::Swallow | Verdict::Capture(_) => inbox.skip(bytes, &mut self.io.outbox),
            Verdict::Hold => {
                link.held = inbox.unread().get(..bytes).unwrap_or_default().to_vec();
                inbox.skip(bytes, &mut self.io.outbox);
            }
            Verdict::Unended => {
                if !link.replies.is_empty() || !self.session.pins.is_empty() {
                    return Err(ClientError::ServerProtocol("a transaction of the proxy's that cannot be ended"));
                }
                // It ends with its connection, and with it whatever the statement has done to the session.
                core.is_tainted = true;
                self.session.must_probe = false;
                inbox.skip(bytes, &mut self.io.outbox);
                self.io.outbox.buffer().extend_from_slice(backend::ready_for_query(TransactionStatus::Idle));
                self.request_ended(TransactionStatus::Idle);
            }
            Verdict::OwnReady(status) => {
                inbox.skip(bytes, &mut self.io.outbox);
                self.own_query_ended(status)?;
            }
            Verdict::Ready(status) => {
                if !link.held.is_empty() {
                    inbox.hand_over(&mut self.io.outbox);
                    self.io.outbox.buffer().append(&mut link.held);
                }
                inbox.pass(bytes);
                if let Some(pending) = self.pending.front() {
                    pending.sent += bytes as u64;
                }
                self.request_ended(status);
            }
            Verdict::OutOfSync => return Err(ClientError::ServerProtocol("a reply that nothing was sent for")),
        }
        Ok(())
    }

    /// Replies that were never sent for, in their place.
    pub(super) fn make_up_replies(&mut self) {
        let Some(link) = &mut self.link else { return };
        if link.replies.has_made_up() && !matches!(self.again, Again::Kept { .. }) {
            link.server.core_mut().endpoint.inbox.hand_over(&mut self.io.outbox);
            let out = self.io.outbox.buffer();
            link.replies.make_up(|reply| out.extend_from_slice(reply));
        }
    }

    /// An error voided messages, of which some may have been sent behind it: what they would have changed is as before.
    pub(super) fn take_back(&mut self) {
        let Some(link) = &mut self.link else { return };
        let core = link.server.core_mut();
        for undo in link.replies.take_undone() {
            match undo {
                Undo::Nothing => {}
                Undo::Unname(name) => _ = self.session.names.remove(&name),
                Undo::Rename(name, prepared) => self.session.names.give_back(&name, prepared),
                Undo::Unprepare(id) => core.statements.remove(id),
                Undo::UnnameAndUnprepare(name, id) => {
                    self.session.names.take_away(&name, id);
                    core.statements.remove(id);
                }
            }
        }
    }

    /// A request of the client's ended with this status.
    fn request_ended(&mut self, status: TransactionStatus) {
        let Some(link) = &mut self.link else { return };
        link.status = status;
        let is_last = link.replies.is_empty();
        if is_last {
            link.expects_transaction = status != TransactionStatus::Idle;
        }
        let now = self.context.clock.now();
        self.answered = now;
        if status == TransactionStatus::Idle {
            self.void_misunderstood(now);
        }
        while let Some(mut pending) = self.pending.pop() {
            self.transaction_started = self.transaction_started.min(pending.started);
            if status == TransactionStatus::Idle {
                pending.work.transactions = 1;
                let nanos = now.saturating_sub(self.transaction_started.min(pending.started));
                pending.work.transaction_time = std::time::Duration::from_nanos(nanos);
                self.transaction_started = u64::MAX;
            }
            self.settle(pending, status, now);
            if !is_last {
                break;
            }
        }
        if is_last {
            self.session.strings_change = false;
            self.session.scope_changes = false;
        }
        let is_open = status != TransactionStatus::Idle;
        self.info.answered(now, if is_last { 0 } else { now }, if is_open { self.transaction_started } else { 0 });
        if is_last && status == TransactionStatus::Idle {
            self.session.transaction = Default::default();
        }
    }

    /// The catalog has changed since the first statement of this transaction was understood: what looked like a
    /// read may have written.
    fn void_misunderstood(&mut self, now: u64) {
        let cells = &self.session.database.cells;
        let Some(epoch) = self.session.transaction.epoch.filter(|epoch| !cells.is_certainly_in_force(*epoch)) else {
            return;
        };
        if self.link.as_ref().is_some_and(|link| link.is_primary) {
            tracing::debug!(?epoch, "statement understood with an older catalog");
            let draw = &mut self.draw;
            let ticket = cells.begin_write(Touched::Database, false).committed(now, || draw.next());
            self.unheard = ticket.max(self.unheard);
        }
    }

    /// Everything that a finished request leaves behind, before its last byte leaves.
    fn settle(&mut self, mut pending: Pending, status: TransactionStatus, now: u64) {
        let draw = &mut self.draw;
        if let Some(unit) = pending.unit.take() {
            match unit.outcome(status, pending.sqlstate.is_some()) {
                Outcome::Committed => {
                    self.session.fence = Fence::after(now);
                    self.session.database.note_write(now);
                    if unit.guard.is_none() && self.session.database.marks_writes() {
                        // A reload has switched the cache on meanwhile.
                        let cells = &self.session.database.cells;
                        let everything = cells.begin_write(Touched::Database, unit.catalog_change);
                        self.unheard = everything.committed(now, || draw.next()).max(self.unheard);
                    }
                    for guard in unit.guard.into_iter().chain(unit.more) {
                        self.unheard = guard.committed(now, || draw.next()).max(self.unheard);
                    }
                    // Behind the guard: the snapshot that is wanted now must be younger than its stamp.
                    if unit.catalog_change {
                        self.session.database.catalog_changed(|| draw.next());
                    }
                }
                Outcome::RolledBack => {
                    for guard in unit.guard.into_iter().chain(unit.more) {
                        guard.rolled_back();
                    }
                }
            }
        }
        if let Some(observed) = &self.session.database.observed
            && pending.cache == CacheOutcome::WouldHit
        {
            observed.note_saved(now.saturating_sub(pending.started).saturating_sub(pending.queued));
        }
        let ended = ended(pending.is_in_transaction, status);
        if let Some(outcome) = pending.fills.take().and_then(|fills| fills.commit(ended, now)) {
            pending.cache_reason = outcome.label();
        }
        if let Some(link) = &mut self.link {
            pending.work.server_parses += u64::from(std::mem::take(&mut link.server_parses));
        }
        self.observe(&pending, now);
    }

    /// The one call per request that counts it.
    pub(super) fn observe(&self, pending: &Pending, now: u64) {
        let Some(statement) = &pending.statement else { return };
        if statement.hints.unknown > 0 {
            self.context.tally.unknown_hints(statement.hints.unknown);
        }
        let total = now.saturating_sub(pending.started);
        let nanos = std::time::Duration::from_nanos;
        self.context.insight.observe(&RequestRecord {
            account: &self.account,
            fingerprint: statement.fingerprint,
            normalized: &statement.normalized,
            route: pending.route,
            route_reason: pending.route_reason,
            member: pending.member.and_then(|member| self.session.database.member_name(member)),
            cache: pending.cache,
            cache_reason: pending.cache_reason,
            absence: pending.absence,
            queue: nanos(pending.queued),
            server: nanos(total.saturating_sub(pending.queued)),
            total: nanos(total),
            rows: pending.rows,
            received: pending.received,
            sent: pending.sent,
            work: pending.work,
            sqlstate: pending.sqlstate,
            ended: self.context.clock.wall(now),
        });
    }

    fn own_query_ended(&mut self, status: TransactionStatus) -> Result<(), ClientError> {
        let Some(link) = &mut self.link else { return Ok(()) };
        link.status = status;
        link.own_query_ended(self.info.id);
        if self.session.is_probed && self.probe_failures > 0 {
            self.probe_again();
        }
        let Some(link) = &mut self.link else { return Ok(()) };
        if std::mem::take(&mut link.own_query_failed) {
            // Our BEGIN may have been cancelled; then the lock set is not that of the client's statement.
            if let Some(unit) = self.pending.front().and_then(|pending| pending.unit.as_mut()) {
                unit.has_lock_set = false;
            }
            if !link.replies.owes_client() {
                link.server.core_mut().is_tainted = true;
            }
        }
        Ok(())
    }

    fn take_captured(&mut self, capture: Capture, row: &[u8]) {
        match capture {
            Capture::LockSet => self.take_lock_set(row),
            Capture::SessionState => match Probe::read(backend::columns(row)) {
                Some(held) => self.take_held(held),
                None => self.taint(),
            },
            Capture::Settings | Capture::Again => {}
        }
    }

    /// The server says what the transaction has written: the marks shrink to exactly that.
    fn take_lock_set(&mut self, row: &[u8]) {
        let Some(unit) = self.pending.front().and_then(|pending| pending.unit.as_mut()) else {
            return;
        };
        if !unit.has_lock_set {
            return;
        }
        let mut columns = backend::columns(row).map(|column| column.and_then(|text| std::str::from_utf8(text).ok()));
        let (Some(has_written), Some(relations), Some(is_strong)) = (columns.next(), columns.next(), columns.next())
        else {
            return;
        };
        if has_written == Some("f") || Ablation::LockSet.is_left_out() {
            unit.wrote_nothing = true;
            return;
        }
        let locked: Vec<u32> = relations.unwrap_or_default().split(',').filter_map(|oid| oid.parse().ok()).collect();
        let catalog_change = unit.catalog_change || is_strong == Some("t") || locked.is_empty();
        unit.catalog_change = catalog_change;
        let Some(guard) = &mut unit.guard else { return };
        match self.session.database.catalog() {
            Some(catalog) => {
                let relations = catalog.snapshot.expand_locked(&locked);
                guard.understood_with(Some(catalog.epoch));
                guard.replace(Touched::Relations(&relations), catalog_change);
            }
            None => {
                let relations: Vec<_> = locked.into_iter().map(RelationOid).collect();
                guard.widen(Touched::Relations(&relations), catalog_change);
            }
        }
    }

    fn taint(&mut self) {
        if let Some(link) = &mut self.link {
            link.server.core_mut().is_tainted = true;
        }
    }

    /// Hands the connection back if nothing keeps it.
    fn release_if_idle(&mut self) {
        let Some(link) = &mut self.link else { return };
        if !link.is_idle() || !self.pending.is_empty() || self.io.inbox.is_inside_message() || self.keeps_server {
            return;
        }
        if self.session.is_transparent && std::mem::take(&mut self.session.must_probe) {
            let suspects = std::mem::take(&mut self.session.suspects);
            let pins = self.session.pins.union(suspects.unobservable());
            let custom = self.session.database.real.custom_settings.names();
            let probe = match self.probe.take().filter(|probe| probe.asks_for(&custom)) {
                Some(probe) => probe,
                None => Box::new(Probe::new(&self.session.user, &custom)),
            };
            let probe = self.probe.insert(probe);
            link.hide();
            // The rest of a COPY that failed leaves in front of the question.
            self.io.inbox.hand_over(&mut link.server.core_mut().endpoint.outbox);
            link.ask(probe.text(), Capture::SessionState);
            self.session.is_probed = true;
            if pins != self.session.pins {
                self.set_pins(pins);
            }
            return;
        }
        if !self.session.pins.is_empty() {
            if std::mem::take(&mut self.is_out_of_step) {
                self.io.inbox.hand_over(&mut link.server.core_mut().endpoint.outbox);
                link.synchronise(&self.session, self.info.id, self.answered);
            }
            return;
        }
        self.release();
    }

    /// Hands the connection back.
    pub(super) fn release(&mut self) {
        let Some(mut link) = self.link.take() else { return };
        self.session.server_opened = u64::MAX;
        // The rest of a COPY that failed, perhaps from the middle of a message on: no other server may see it.
        let is_unsent = self.io.inbox.approved_len() > 0;
        self.io.inbox.discard_approved();
        let ambiguous = link.replies.is_ambiguous();
        let core = link.server.core_mut();
        let is_unsent = is_unsent || !core.endpoint.is_flushed();
        core.is_tainted |= is_unsent || ambiguous || !core.endpoint.inbox.unread().is_empty();
        core.endpoint.inbox.hand_over(&mut self.io.outbox);
        self.note_unlinked(link.member);
        self.session.is_probed = false;
        if let (Some(query), false) = (self.rules.reset(), link.server.core().is_tainted) {
            link.clean(query.to_string());
            return;
        }
        let replies = link.give_back(self.answered);
        self.spare_replies = (!ambiguous).then_some(replies);
    }
}

/// How a request ended that may have joined a transaction: `I`, if that goes on as it was.
fn ended(is_in_transaction: bool, status: TransactionStatus) -> u8 {
    match (is_in_transaction, status) {
        (true, TransactionStatus::InTransaction) | (false, TransactionStatus::Idle) => b'I',
        (_, TransactionStatus::Failed) => b'E',
        (true, TransactionStatus::Idle) | (false, TransactionStatus::InTransaction) => b'T',
    }
}

/// Asked in the transaction that is about to commit: has it written, which relations are locked so that it can have
/// written them, and is one of the locks stronger than DML needs?
pub(super) const LOCK_SET_QUERY: &str = "SELECT pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL, \
     (SELECT pg_catalog.string_agg(DISTINCT relation::pg_catalog.text, ',') FROM pg_catalog.pg_locks \
      WHERE pid = pg_catalog.pg_backend_pid() AND locktype = 'relation' AND relation >= 16384 \
      AND mode NOT IN ('AccessShareLock', 'RowShareLock')), \
     EXISTS (SELECT FROM pg_catalog.pg_locks WHERE pid = pg_catalog.pg_backend_pid() AND locktype = 'relation' \
      AND mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock'))";
