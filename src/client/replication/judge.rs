//! What a client says to a walsender of one database: replication commands change nothing, but any SQL runs there as well.
//!
//! The bytes are not the proxy's to change, so nothing is asked of the server: what may write marks everything before it is
//! sent, and moves the stamps before its end is told. In a transaction that counts for what may end it.
//!
//! <https://www.postgresql.org/docs/current/protocol-replication.html>

use std::sync::Arc;

use super::super::ClientError;
use crate::{
    cache::{
        Touched, WriteGuard,
        invalidation::{Origin, Ticket},
    },
    catalog::{Effects, Writes, meaning_without_catalog},
    cluster::Database,
    net::Inbox,
    protocol::{TransactionStatus, backend, backend::tag, frame, frontend},
    sql::Analyzer,
};

/// Longest statement that is read; a longer one may write anything.
const STATEMENT_LIMIT_BYTES: usize = 1024 * 1024;

/// First words that the walsender itself understands.
const COMMANDS: [&str; 9] = [
    "IDENTIFY_SYSTEM",
    "READ_REPLICATION_SLOT",
    "BASE_BACKUP",
    "CREATE_REPLICATION_SLOT",
    "DROP_REPLICATION_SLOT",
    "ALTER_REPLICATION_SLOT",
    "START_REPLICATION",
    "TIMELINE_HISTORY",
    "UPLOAD_MANIFEST",
];

/// What the others must have heard before more is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unheard {
    /// Nobody has to wait.
    Nothing,
    /// That something may commit.
    Commit(Ticket),
    /// That it has.
    End(Ticket),
}

/// What one message means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Verdict {
    writes: bool,
    /// It may end a transaction, or begin one, or both.
    controls: bool,
    /// From now on names mean what nobody knows.
    renames: bool,
}

/// A write that is under way.
struct Writing {
    /// `None` if nothing was cached when it began.
    guard: Option<WriteGuard>,
}

/// See the module.
pub(super) struct Judge {
    database: Arc<Database>,
    origin: Origin,
    draw: fn() -> u64,
    /// As of the last `ReadyForQuery`.
    status: TransactionStatus,
    unanswered: u32,
    /// The open transaction may have written.
    has_written: bool,
    has_own_names: bool,
    writing: Option<Writing>,
    /// The others have heard of the client's next message, of the server's.
    client_may_go_on: bool,
    server_may_go_on: bool,
}

impl Judge {
    pub(super) fn new(database: Arc<Database>, origin: Origin, draw: fn() -> u64) -> Self {
        Self {
            database,
            origin,
            draw,
            status: TransactionStatus::Idle,
            unanswered: 0,
            has_written: false,
            has_own_names: false,
            writing: None,
            client_may_go_on: false,
            server_may_go_on: false,
        }
    }

    /// Lets pass what the client has said, up to what others must hear of first.
    pub(super) fn take_client(&mut self, inbox: &mut Inbox, analyzer: &Analyzer) -> Result<Unheard, ClientError> {
        while let Some(header) = frame::header(inbox.unread())? {
            let is_statement = matches!(header.tag, b'Q' | b'E' | b'F');
            if is_statement && !std::mem::take(&mut self.client_may_go_on) {
                let is_long = header.frame_bytes > STATEMENT_LIMIT_BYTES;
                let text = match inbox.unread().get(..header.frame_bytes) {
                    _ if header.tag != b'Q' || is_long => None,
                    None => break,
                    Some(frame) => frontend::query(frame).ok().and_then(|text| std::str::from_utf8(text).ok()),
                };
                let verdict = self.verdict(text, analyzer);
                let ticket = self.begin(verdict);
                if !ticket.is_none() {
                    self.client_may_go_on = true;
                    return Ok(Unheard::Commit(ticket));
                }
            }
            self.unanswered += u32::from(is_statement && header.tag != b'E');
            inbox.pass(header.frame_bytes);
        }
        Ok(Unheard::Nothing)
    }

    fn verdict(&self, text: Option<&str>, analyzer: &Analyzer) -> Verdict {
        let anything = Verdict { writes: true, controls: true, renames: true };
        let Some(text) = text else { return anything };
        let word =
            text.trim_start().split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next().unwrap_or_default();
        if COMMANDS.iter().any(|command| command.eq_ignore_ascii_case(word)) {
            return Verdict { writes: false, controls: false, renames: false };
        }
        let statement = analyzer.analyze(text);
        let catalog = self.database.catalog().filter(|catalog| self.database.cells.is_in_force(catalog.epoch));
        let meaning = match catalog {
            Some(catalog) => catalog.snapshot.meaning_anywhere(&statement),
            None => Arc::new(meaning_without_catalog(&statement)),
        };
        let renames = meaning.effects.intersects(Effects::OTHER_NAMES.union(Effects::TEMP).union(Effects::OPAQUE));
        Verdict {
            writes: meaning.writes != Writes::None || meaning.catalog_change || self.has_own_names,
            controls: !meaning.transaction.is_empty() || !meaning.atomic,
            renames,
        }
    }

    /// A statement is about to be sent.
    fn begin(&mut self, verdict: Verdict) -> Ticket {
        self.has_own_names |= verdict.renames;
        self.has_written |= verdict.writes;
        let is_open = self.unanswered == 0 && self.status != TransactionStatus::Idle;
        if !self.has_written || self.writing.is_some() || (is_open && !verdict.controls) {
            return Ticket::NONE;
        }
        let mut ticket = Ticket::NONE;
        let guard = self.database.marks_writes().then(|| {
            let mut guard = self.database.cells.begin_write(Touched::Database, true);
            guard.runs_on(self.origin);
            ticket = guard.announce();
            guard
        });
        self.writing = Some(Writing { guard });
        ticket
    }

    /// Lets pass what the server has said, up to what others must hear of first. `now` is the clock.
    pub(super) fn take_server(&mut self, inbox: &mut Inbox, now: impl Fn() -> u64) -> Result<Unheard, ClientError> {
        let strange = |_| ClientError::ServerProtocol("a length that no message can have");
        while let Some(header) = frame::header(inbox.unread()).map_err(strange)? {
            let ends = header.tag == tag::READY_FOR_QUERY;
            if (ends || header.tag == tag::COMMAND_COMPLETE) && !std::mem::take(&mut self.server_may_go_on) {
                let Some(message) = inbox.unread().get(..header.frame_bytes) else { break };
                let ticket = match backend::transaction_status(message).filter(|_| ends) {
                    Some(status) => self.end(status, now()),
                    None => self.reveal(now()),
                };
                if !ticket.is_none() {
                    self.server_may_go_on = true;
                    return Ok(Unheard::End(ticket));
                }
            }
            inbox.pass(header.frame_bytes);
        }
        Ok(Unheard::Nothing)
    }

    /// A byte is about to leave that may tell of a commit.
    fn reveal(&mut self, now: u64) -> Ticket {
        let Some(writing) = &self.writing else { return Ticket::NONE };
        self.database.note_write(now);
        writing.guard.as_ref().map_or(Ticket::NONE, |guard| guard.reveal(now, self.draw))
    }

    fn end(&mut self, status: TransactionStatus, now: u64) -> Ticket {
        self.unanswered = self.unanswered.saturating_sub(1);
        self.status = status;
        if self.unanswered > 0 {
            return self.reveal(now);
        }
        // What it has written in a transaction that is open still is told when that may end.
        self.has_written &= status != TransactionStatus::Idle;
        let Some(Writing { guard }) = self.writing.take() else { return Ticket::NONE };
        self.database.note_write(now);
        let caches = self.database.marks_writes();
        // A reload may have switched the cache on meanwhile.
        let guard = guard.or_else(|| caches.then(|| self.database.cells.begin_write(Touched::Database, true)));
        let Some(guard) = guard else { return Ticket::NONE };
        let ticket = guard.committed(now, self.draw);
        self.database.catalog_changed(self.draw);
        ticket
    }
}
