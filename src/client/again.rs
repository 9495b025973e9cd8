//! A read that a replica has not answered runs once more, elsewhere.
//!
//! Only a request that does nothing but read (or begins to), outside of a transaction, on a replica or one of several equal
//! members, and only while its client
//! has not been sent a byte of the answer: what the server says in front of the first row waits unread until there is a row, an end
//! or an error. The request's bytes stay where they have arrived.

use super::{
    Client, ClientError,
    facts::{Boundary, Facts},
    request::WaitsFor,
    route::Placement,
};
use crate::{
    insight::Route,
    protocol::{SqlState, TransactionStatus, backend, backend::tag, error_response, frame},
    routing::MemberId,
    session::{
        Undo,
        request::{Request, RequestKind, Scan, scan},
    },
};

/// A longer request is not kept.
const KEPT_REQUEST_BYTES: usize = 64 * 1024;
/// Longer than this, what comes in front of the first row does not wait, and neither does an error.
const UNREAD_LIMIT_BYTES: usize = 64 * 1024;

/// What becomes of a request of which nothing comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// It fails.
    Never,
    /// It runs once more: its bytes are kept.
    Kept {
        /// So many.
        bytes: usize,
        /// It runs one statement.
        is_lone: bool,
    },
    /// It is to run once more.
    Due {
        /// Why.
        cause: Cause,
        /// It runs one statement.
        is_lone: bool,
    },
    /// That is how it runs now.
    Second(Second),
}

/// How a request runs for the second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Second {
    /// Not there.
    pub avoid: MemberId,
    /// A replica would refuse it: it may write.
    pub may_write: bool,
}

/// Why a request runs for the second time: the `reason` of its metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The connection broke.
    ConnectionLost,
    /// The member answers nobody.
    MemberDown,
    /// The server goes, or the database: class 57P0x.
    Shutdown(SqlState),
    /// 40001: what it reads is removed by recovery.
    RecoveryConflict,
    /// 25006: it writes.
    ReadOnly,
    /// 0A000 or 55000, because the server is in recovery.
    InRecovery(SqlState),
}

impl Cause {
    fn label(self) -> &'static str {
        match self {
            Self::ConnectionLost => "connection_lost",
            Self::MemberDown => "member_down",
            Self::Shutdown(SqlState::ADMIN_SHUTDOWN) => "57P01",
            Self::Shutdown(SqlState::CANNOT_CONNECT_NOW) => "57P03",
            Self::Shutdown(SqlState::DATABASE_DROPPED) => "57P04",
            Self::Shutdown(_) => "57P02",
            Self::RecoveryConflict => "40001",
            Self::ReadOnly => "25006",
            Self::InRecovery(SqlState::FEATURE_NOT_SUPPORTED) => "0A000",
            Self::InRecovery(_) => "55000",
        }
    }

    /// A replica refuses such a statement for what it is.
    fn may_write(self) -> bool {
        matches!(self, Self::ReadOnly | Self::InRecovery(_))
    }

    /// It says nothing of the request, whoever runs it.
    fn is_of_the_server(self) -> bool {
        matches!(self, Self::ConnectionLost | Self::MemberDown | Self::Shutdown(_))
    }

    /// What an error or a notice of a replica means for a read.
    fn of(message: &[u8]) -> Option<Self> {
        let sqlstate = error_response::sqlstate(message)?;
        let is_error = message.first() == Some(&tag::ERROR_RESPONSE);
        match sqlstate {
            // Shut down at once, a server says so in a warning.
            SqlState([b'5', b'7', b'P', b'0', b'1'..=b'4']) => Some(Self::Shutdown(sqlstate)),
            SqlState::SERIALIZATION_FAILURE if is_error => Some(Self::RecoveryConflict),
            SqlState::READ_ONLY_TRANSACTION if is_error => Some(Self::ReadOnly),
            // These say much else besides.
            SqlState::FEATURE_NOT_SUPPORTED | SqlState::NOT_IN_PREREQUISITE_STATE if is_error => {
                let speaks_of_recovery = |code: u8| {
                    let text = error_response::field(message, code).unwrap_or_default();
                    ["recovery", "standby"].iter().any(|word| memchr::memmem::find(text, word.as_bytes()).is_some())
                };
                b"MDH".iter().any(|code| speaks_of_recovery(*code)).then_some(Self::InRecovery(sqlstate))
            }
            _ => None,
        }
    }
}

/// What a server has said so far of the answer to a request, if it is the client's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// Nothing yet that the client has to see.
    Nothing,
    /// The answer has begun.
    Answer,
    /// It comes to nothing.
    Failure(Cause),
}

/// Looks at what has arrived, a row at the front or not: an error may stand behind rows that nobody has seen.
fn said(unread: &[u8]) -> Said {
    let mut rest = unread;
    let mut so_far = if unread.len() > UNREAD_LIMIT_BYTES { Said::Answer } else { Said::Nothing };
    while let Ok(Some(header)) = frame::header(rest) {
        let Some((message, behind)) = rest.split_at_checked(header.frame_bytes) else {
            return match header.tag {
                tag::DATA_ROW | tag::COPY_DATA => Said::Answer,
                // What it says decides.
                tag::ERROR_RESPONSE if header.frame_bytes <= UNREAD_LIMIT_BYTES => Said::Nothing,
                _ => so_far,
            };
        };
        match header.tag {
            tag::DATA_ROW | tag::COPY_DATA | tag::COMMAND_COMPLETE => so_far = Said::Answer,
            tag::PARSE_COMPLETE
            | tag::BIND_COMPLETE
            | tag::CLOSE_COMPLETE
            | tag::PARAMETER_DESCRIPTION
            | tag::PARAMETER_STATUS
            | tag::ROW_DESCRIPTION
            | tag::NO_DATA
            | tag::COPY_OUT_RESPONSE => {}
            tag::ERROR_RESPONSE | tag::NOTICE_RESPONSE => return end_of(message, behind),
            _ => return Said::Answer,
        }
        rest = behind;
    }
    so_far
}

/// What an error or a notice means, and what stands `behind` it.
fn end_of(message: &[u8], behind: &[u8]) -> Said {
    let Some(cause) = Cause::of(message) else { return Said::Answer };
    let goes_on = error_response::field(message, b'V') == Some(b"ERROR");
    match goes_on && !is_ready(behind) {
        // The connection may be used again when the server is ready.
        true => Said::Nothing,
        false => Said::Failure(cause),
    }
}

/// Says the server there that it is ready?
fn is_ready(unread: &[u8]) -> bool {
    matches!(frame::header(unread), Ok(Some(header)) if header.tag == tag::READY_FOR_QUERY && header.frame_bytes <= unread.len())
}

impl Client {
    /// The request is about to be sent: is it kept?
    pub(super) fn keep_for_again(&mut self, request: Request, facts: &Facts, placement: &Placement) {
        let may_go_elsewhere = placement.route == Route::Replica || self.session.database.topology.has_equals();
        if !may_go_elsewhere || self.again != Again::Never {
            return;
        }
        let is_whole = matches!(request.kind, RequestKind::Simple | RequestKind::Sync);
        let only_reads = !facts.needs_primary
            && matches!(facts.boundary, Boundary::None | Boundary::Begin { read_only: true })
            && facts.written.is_nothing()
            && !facts.catalog_change
            && facts.effects.is_empty();
        if is_whole && only_reads && request.bytes <= KEPT_REQUEST_BYTES {
            self.io.inbox.keep();
            self.again = Again::Kept { bytes: request.bytes, is_lone: facts.executed <= 1 };
        }
    }

    /// The answer begins: what has been sent is not sent twice.
    fn is_answered(&mut self) {
        self.again = Again::Never;
        self.io.inbox.let_go();
        self.make_up_replies();
    }

    /// Something follows on the same connection: what came in front of it is not sent again.
    pub(super) fn runs_once(&mut self) {
        if matches!(self.again, Again::Kept { .. }) {
            self.is_answered();
        }
    }

    /// Shall what the server has said wait?
    pub(super) fn waits_for_answer(&mut self) -> bool {
        let Again::Kept { bytes, is_lone } = self.again else { return matches!(self.again, Again::Due { .. }) };
        let Some(link) = &mut self.link else { return false };
        let (is_clients_turn, is_primary) = (link.replies.is_clients_turn(), link.is_primary);
        let unread = link.server.core_mut().endpoint.inbox.unread();
        let is_error = unread.first() == Some(&tag::ERROR_RESPONSE);
        if !is_clients_turn && !is_error && unread.first() != Some(&tag::NOTICE_RESPONSE) {
            return false;
        }
        match said(unread) {
            Said::Nothing => true,
            Said::Failure(cause) if (!is_primary || cause.is_of_the_server()) && self.io.inbox.has_kept(bytes) => {
                self.again = Again::Due { cause, is_lone };
                true
            }
            Said::Answer | Said::Failure(_) => {
                // A notice about a message of ours reaches nobody.
                if is_clients_turn || is_error {
                    self.is_answered();
                }
                false
            }
        }
    }

    /// The server is lost: is that an end, or is there another try?
    pub(super) fn survive(&mut self, error: ClientError) -> Result<(), ClientError> {
        match (&error, self.again) {
            (ClientError::ServerGone(reason), Again::Kept { bytes, is_lone }) if self.io.inbox.has_kept(bytes) => {
                let is_hung = reason.kind() == std::io::ErrorKind::TimedOut;
                let cause = if is_hung { Cause::MemberDown } else { Cause::ConnectionLost };
                self.again = Again::Due { cause, is_lone };
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// Runs the request once more, if that is due. The client has seen nothing of the first time.
    pub(super) async fn run_again(&mut self) -> Result<(), ClientError> {
        let Again::Due { cause, is_lone } = self.again else { return Ok(()) };
        let Some(link) = &mut self.link else { return Ok(()) };
        let (avoid, database) = (link.member, &self.session.database);
        tracing::debug!(db = %database.name, member = ?database.member_name(avoid), reason = cause.label(), "read runs again");
        self.context.tally.healed(cause.label());
        if let Some(member) = database.topology.member(avoid).filter(|_| !cause.may_write()) {
            member.state.failed();
        }
        let first = self.pending.pop();
        let started = first.as_ref().map(|pending| pending.started);
        let shape = first.and_then(|pending| pending.statement);
        if let (Cause::ReadOnly, true, Some(shape)) = (cause, is_lone, shape) {
            self.session.database.real.learned_writes.learn(shape.fingerprint);
        }
        self.forget_first_time(cause);
        self.io.inbox.put_back();
        self.scanned = 0;
        self.again = Again::Second(Second { avoid, may_write: cause.may_write() });
        let taken = match scan(self.io.inbox.unread(), &mut self.scanned)? {
            Scan::Whole(request) => self.take_request(request).await,
            Scan::Giant(_) | Scan::Partial => Err(ClientError::ServerProtocol("an answer to half a request")),
        };
        self.again = Again::Never;
        taken?;
        if let (Some(pending), Some(started)) = (self.pending.front(), started) {
            pending.started = started;
            self.transaction_started = self.transaction_started.min(started);
        }
        Ok(())
    }

    /// Takes back what reading the request, and those behind it, has done to the session, and gives up the server.
    fn forget_first_time(&mut self, cause: Cause) {
        if self.blocked.take().is_some()
            && let Ok(Scan::Whole(next)) = scan(self.io.inbox.unread(), &mut 0)
        {
            self.take_back_names(next);
        }
        self.waits_for = WaitsFor::Nothing;
        self.session.transaction = Default::default();
        let given = self.link.as_ref().map(|link| link.replies.names_given()).unwrap_or_default();
        let is_left_ready = self.link.as_mut().is_some_and(super::link::Link::hear_out);
        self.take_back();
        for undo in given {
            match undo {
                Undo::Unname(name) => _ = self.session.names.remove(&name),
                Undo::Rename(name, prepared) => self.session.names.give_back(&name, prepared),
                Undo::Nothing | Undo::Unprepare(_) | Undo::UnnameAndUnprepare(..) => {}
            }
        }
        if is_left_ready {
            return self.release();
        }
        self.session.server_opened = u64::MAX;
        self.session.is_probed = false;
        let Some(link) = self.link.take() else { return };
        self.note_unlinked(link.member);
        if cause == Cause::MemberDown {
            let deadline = self.context.settings().config.pgbouncer.cancel_wait_timeout;
            link.cancel(self.info.id, deadline);
        }
    }
}

impl super::link::Link {
    /// Reads to nobody what has arrived, up to the end of a request that has failed; true if the server is ready for
    /// another one.
    fn hear_out(&mut self) -> bool {
        let core = self.server.core_mut();
        let mut nobody = Default::default();
        loop {
            // Their turn comes with what was sent behind them.
            self.replies.make_up(|_| {});
            let unread = core.endpoint.inbox.unread();
            let Ok(Some(header)) = frame::header(unread) else { return false };
            let Some(message) = unread.get(..header.frame_bytes) else { return false };
            if let Some((name, value)) =
                backend::parameter_status(message).filter(|_| header.tag == tag::PARAMETER_STATUS)
            {
                core.parameters.set(name, value);
            }
            let status = backend::transaction_status(message).filter(|_| header.tag == tag::READY_FOR_QUERY);
            _ = self.replies.on_backend(header.tag, status);
            core.endpoint.inbox.skip(header.frame_bytes, &mut nobody);
            if let Some(status) = status {
                self.status = status;
                return self.is_quiet() && status == TransactionStatus::Idle;
            }
        }
    }
}

#[cfg(test)]
mod tests;
