//! What the client asks: each request is understood, answered here, or placed and sent.

use std::sync::atomic::Ordering;

use super::{
    Client, ClientError,
    again::{Again, Second},
    cache_wait::Awaited,
    cached::{Asked, FillPlan},
    facts::Facts,
    inside::Inside,
    link::Link,
    pipelined::Behind,
    session::Step,
};
use crate::{
    catalog::Effects,
    net::HIGH_WATER_BYTES,
    protocol::{ErrorResponse, FrameError, Header, SqlState, TransactionStatus, backend, frontend, frontend::tag},
    session::{
        Expected, PinSet, Reply, Undo,
        request::{Request, RequestKind, Scan, frames, scan},
    },
};

/// Replies owed on one connection beyond which its client is not read.
const MAX_OWED: usize = 65_536;
/// A `Bind` must name its portal and its statement within this many bytes.
const NAMES_LIMIT_BYTES: usize = 64 * 1024;

/// Was the request taken?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Go on with the next one.
    Yes,
    /// It waits until the server has answered what is outstanding, or until more has arrived.
    NotYet,
}

/// What a request waits for that has not been understood yet, or shall be understood anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum WaitsFor {
    /// It does not wait.
    #[default]
    Nothing,
    /// An earlier message has named a statement and is not answered.
    Name,
    /// The cache has its answer, and others in front of it have none yet.
    Turn,
    /// The server has been asked what the session has set.
    Settings,
}

pub(super) fn cancelled() -> ErrorResponse {
    ErrorResponse::error(SqlState::QUERY_CANCELED, "canceling statement due to user request")
}

impl Client {
    /// Takes as many requests as may be taken now.
    pub(super) async fn take_requests(&mut self) -> Result<(), ClientError> {
        let gives_up_end = std::mem::take(&mut self.gives_up_end);
        loop {
            let owed = self.link.as_ref().map_or(0, |link| link.replies.len());
            let is_full = owed > MAX_OWED || self.io.outbox.unsent().len() >= HIGH_WATER_BYTES;
            if is_full || self.io.inbox.is_inside_message() {
                // A request that waits already is looked at again; another one is given up on anew.
                self.gives_up_end = gives_up_end && (self.blocked.is_some() || self.waits_for != WaitsFor::Nothing);
                return Ok(());
            }
            let taken = match scan(self.io.inbox.unread(), &mut self.scanned)? {
                Scan::Partial if gives_up_end && self.scanned > 0 => Box::pin(self.take_unended()).await?,
                Scan::Partial => Taken::NotYet,
                Scan::Giant(header) => {
                    self.rules.check_giant(header)?;
                    Box::pin(self.take_giant(header)).await?
                }
                Scan::Whole(request) => {
                    self.rules.check(request, self.io.inbox.unread())?;
                    self.take_request(request).await?
                }
            };
            if taken == Taken::NotYet {
                return Ok(());
            }
        }
    }

    /// Takes the messages whose end has not come.
    async fn take_unended(&mut self) -> Result<Taken, ClientError> {
        let request = Request { kind: RequestKind::Open, bytes: std::mem::take(&mut self.scanned) };
        self.rules.check(request, self.io.inbox.unread())?;
        let taken = self.take_request(request).await?;
        self.gives_up_end = taken == Taken::NotYet;
        Ok(taken)
    }

    pub(super) async fn take_request(&mut self, request: Request) -> Result<Taken, ClientError> {
        if request.kind == RequestKind::Terminate {
            return Err(ClientError::Terminated);
        }
        if self.discards_until_sync {
            return Ok(self.discard(request));
        }
        if request.kind == RequestKind::Copy {
            self.take_copy(request.bytes);
            return Ok(Taken::Yes);
        }
        if self.waits_for == WaitsFor::Turn && !self.pending.is_empty() {
            self.scanned = 0;
            return Ok(Taken::NotYet);
        }
        if self.blocked.is_none() && self.is_being_told() {
            self.scanned = 0;
            self.waits_for = WaitsFor::Settings;
            // A server that does not say so is as late as one that does not answer.
            self.info.run_since(self.answered);
            return Ok(Taken::NotYet);
        }
        if self.blocked.is_none() && self.has_open_name(request) {
            self.scanned = 0;
            self.waits_for = WaitsFor::Name;
            return Ok(Taken::NotYet);
        }
        self.waits_for = WaitsFor::Nothing;
        let facts = match self.blocked.take() {
            Some(facts) => facts,
            None => self.read(request)?,
        };
        let taken = self.dispatch(request, facts).await;
        if matches!(taken, Ok(Taken::NotYet)) {
            // The scan starts over when the request is looked at again.
            self.scanned = 0;
        }
        taken
    }

    /// Has the server been asked what the session has set, and does nothing else keep the session there? Before it has
    /// said so, whatever comes might touch anything, and void what others have cached.
    fn is_being_told(&self) -> bool {
        let is_asked = self.session.is_probed && self.session.pins.is_empty() && self.pending.is_empty();
        is_asked
            && self.session.database.marks_writes()
            && self.link.as_ref().is_some_and(|link| !link.is_quiet() && !link.replies.owes_client())
    }

    /// Does it parse a statement under a name that an earlier message, not answered yet, may have taken in vain, or while
    /// the server forgets all of them?
    fn has_open_name(&mut self, request: Request) -> bool {
        // The server keeps its answers to a batch until the end of it has been sent.
        if self.pending.unfinished().is_some() {
            return false;
        }
        let Some(link) = self.link.as_ref().filter(|link| !link.is_quiet()) else { return false };
        let bytes = self.io.inbox.unread().get(..request.bytes).unwrap_or_default();
        frames(bytes).filter(|frame| frame.first() == Some(&tag::PARSE)).any(|frame| {
            frontend::parse(frame).is_ok_and(|(name, ..)| {
                let is_named = || self.session.names.get(name).is_some() && link.replies.is_naming(name);
                !name.is_empty() && (link.forgets_statements || is_named())
            })
        })
    }

    /// Understands a request; names that it gives or frees are given and freed here.
    fn read(&mut self, request: Request) -> Result<Facts, ClientError> {
        self.follow_reload();
        self.request_started = self.context.clock.now();
        self.info.requested_at.store(self.request_started, Ordering::Relaxed);
        let Self { io, session, .. } = self;
        let bytes = io.inbox.unread().get(..request.bytes).unwrap_or_default();
        let mut facts = match request.kind {
            RequestKind::Simple => {
                session.steps.clear();
                session.read_query(frontend::query(bytes)?)
            }
            RequestKind::FunctionCall => Facts::opaque("function_call"),
            _ => session.read_extended(bytes)?,
        };
        let is_refused = matches!(self.again, Again::Second(Second { may_write: true, .. }));
        if is_refused || self.session.has_learned_write(&facts) {
            facts.may_write("learned_write");
        }
        Ok(facts)
    }

    fn follow_reload(&mut self) {
        if self.session.database.is_retired() {
            self.rejoin();
        }
    }

    pub(super) async fn dispatch(&mut self, request: Request, facts: Facts) -> Result<Taken, ClientError> {
        if self.session.transaction.lazy.is_some()
            && let Some(taken) = Box::pin(self.follow_lazy(request, &facts)).await?
        {
            self.blocked = (taken == Taken::NotYet).then_some(facts);
            return Ok(taken);
        }
        if facts.needs_primary
            && let Some(statement) = self.own_statement(request, &facts)
            && let Some(taken) = Box::pin(self.answer_own(request, &statement)).await?
        {
            self.blocked = (taken == Taken::NotYet).then_some(facts);
            return Ok(taken);
        }
        if self.session.transaction.read_only.is_some() {
            match self.escape(request, &facts) {
                None => {}
                Some(Taken::Yes) => return Ok(Taken::Yes),
                Some(Taken::NotYet) => {
                    Box::pin(self.go_on_at_primary(request, &facts)).await?;
                    self.blocked = Some(facts);
                    return Ok(Taken::NotYet);
                }
            }
        }
        if facts.effects.intersects(Effects::LISTEN.union(Effects::RELEASE)) {
            let answered = match self.answer_deallocate(request, &facts) {
                Some(taken) => Some(taken),
                None => Box::pin(self.answer_listening(request, &facts)).await?,
            };
            match answered {
                Some(Taken::Yes) => return Ok(Taken::Yes),
                Some(Taken::NotYet) => {
                    self.blocked = Some(facts);
                    return Ok(Taken::NotYet);
                }
                None if Box::pin(self.end_listening(&facts)).await? == Taken::NotYet => {
                    self.blocked = Some(facts);
                    return Ok(Taken::NotYet);
                }
                None => {}
            }
        }
        if let Some(link) = &self.link {
            if link.is_deposed() {
                return Err(ClientError::Deposed);
            }
            // A read behind others on a replica is placed anew: meanwhile somebody may have written.
            let joins = link.is_primary || link.is_in_transaction() || self.pending.unfinished().is_some();
            let is_asked = facts.asks_for_sequences && !self.session.transaction.advances_sequences;
            let waits = is_asked && link.replies.owes_client();
            if waits && self.pending.unfinished().is_none() {
                // What stands in front may have changed whose sequences the server knows.
                self.blocked = Some(facts);
                return Ok(Taken::NotYet);
            }
            // What a READ ONLY transaction has left behind ties the client to its replica.
            if !joins && self.session.pins.is_empty() {
                self.blocked = Some(facts);
                return Ok(Taken::NotYet);
            }
            let placement = super::route::Placement::joined(link);
            let fill = match self.ask_cache_behind_others(request, &facts) {
                Behind::Goes(None) => match self.ask_cache_inside(request, &facts) {
                    Inside::Answered => return Ok(Taken::Yes),
                    Inside::Goes(fill) => fill,
                },
                Behind::Waits => {
                    // What stands in front may change what it means.
                    self.take_back_names(request);
                    self.waits_for = WaitsFor::Turn;
                    return Ok(Taken::NotYet);
                }
                Behind::Goes(fill) => fill,
            };
            self.runs_once();
            self.forward(request, facts, placement, fill);
            return Ok(Taken::Yes);
        }
        if self.begin_lazily(request, &facts) || self.answer(request, &facts) {
            return Ok(Taken::Yes);
        }
        let mut asked = self.ask_cache(request, &facts);
        if matches!(asked, Asked::Settle) {
            asked = Box::pin(self.ask_cache_strictly(request, &facts)).await;
        }
        let fill = match asked {
            Asked::Answered => return Ok(Taken::Yes),
            Asked::Fill(fill) => fill,
            Asked::Settle => FillPlan::none("strict"),
            Asked::Wait(waiting) => match Box::pin(self.wait_for_answer(request, &facts, *waiting)).await? {
                Awaited::Answered => return Ok(Taken::Yes),
                Awaited::Fill(fill) => fill,
                Awaited::Cancelled => {
                    self.take_back_names(request);
                    self.reject(request, &cancelled());
                    return Ok(Taken::Yes);
                }
            },
        };
        match self.link_up(request.kind, &facts, &fill).await? {
            Some(placement) => {
                self.keep_for_again(request, &facts, &placement);
                self.forward(request, facts, placement, Some(fill));
            }
            None => {
                self.take_back_names(request);
                self.reject(request, &cancelled());
            }
        }
        Ok(Taken::Yes)
    }

    /// An extended request that was read is refused: its names are as before.
    pub(super) fn take_back_names(&mut self, request: Request) {
        if matches!(request.kind, RequestKind::Simple | RequestKind::FunctionCall) {
            return;
        }
        for located in self.session.steps.drain(..).rev() {
            match located.step {
                Step::Parse { prepared, undo: Undo::Unname(name), .. } => {
                    self.session.names.take_away(&name, prepared.id);
                }
                Step::CloseStatement { undo: Undo::Rename(name, prepared) } => {
                    self.session.names.give_back(&name, prepared);
                }
                _ => {}
            }
        }
    }

    /// Requests that need no server: a lone `Sync`, the end of statements.
    fn answer(&mut self, request: Request, facts: &Facts) -> bool {
        if self.answer_description(request, facts) {
            return true;
        }
        // A Parse that some server has taken needs none: a client that prepares while others hold every server goes on.
        let is_local = |step: &Step| match step {
            Step::Parse { prepared, is_taken: false, undo: Undo::Unname(name) } => {
                !name.is_empty() && prepared.is_proven.load(Ordering::Relaxed)
            }
            step => matches!(step, Step::CloseStatement { .. } | Step::Sync),
        };
        if request.kind != RequestKind::Sync || !self.session.steps.iter().all(|located| is_local(&located.step)) {
            return false;
        }
        let out = self.io.outbox.buffer();
        for located in &self.session.steps {
            out.extend_from_slice(match located.step {
                Step::CloseStatement { .. } => backend::CLOSE_COMPLETE,
                Step::Parse { .. } => backend::PARSE_COMPLETE,
                _ => backend::ready_for_query(TransactionStatus::Idle),
            });
        }
        self.drop_request(request.bytes);
        true
    }

    /// Answers a request with an error, as a server would that fails at its first message.
    pub(super) fn reject(&mut self, request: Request, error: &ErrorResponse) {
        let out = self.io.outbox.buffer();
        error.put(out);
        match request.kind {
            RequestKind::Simple | RequestKind::Sync | RequestKind::FunctionCall => {
                out.extend_from_slice(backend::ready_for_query(TransactionStatus::Idle));
            }
            _ => self.discards_until_sync = true,
        }
        self.drop_request(request.bytes);
    }

    fn discard(&mut self, request: Request) -> Taken {
        let ends = matches!(request.kind, RequestKind::Sync);
        self.drop_request(request.bytes);
        if ends {
            self.discards_until_sync = false;
            self.io.outbox.buffer().extend_from_slice(backend::ready_for_query(TransactionStatus::Idle));
        }
        Taken::Yes
    }

    /// Takes a request out of the inbox without sending it. What was let through in front of it still leaves.
    pub(super) fn drop_request(&mut self, bytes: usize) {
        match &mut self.link {
            Some(link) => self.io.inbox.skip(bytes, &mut link.server.core_mut().endpoint.outbox),
            None => self.io.inbox.skip(bytes, &mut Default::default()),
        }
    }

    /// Data of a COPY goes to the server that reads it; without one it is the rest of a COPY that failed.
    fn take_copy(&mut self, bytes: usize) {
        let tag = self.io.inbox.unread().first().copied();
        let Some(link) = self.link.as_mut().filter(|link| !link.is_quiet()) else {
            self.drop_request(bytes);
            return;
        };
        if matches!(tag, Some(tag::COPY_DONE | tag::COPY_FAIL)) {
            link.replies.push(Reply::forward(Expected::CopyEnd));
        }
        self.io.inbox.pass(bytes);
        if let Some(pending) = self.pending.front() {
            pending.received += bytes as u64;
        }
        self.make_up_replies();
    }

    /// A message longer than is held: it goes to the primary as it comes.
    pub(super) async fn take_giant(&mut self, header: Header) -> Result<Taken, ClientError> {
        if self.discards_until_sync {
            self.drop_request(header.frame_bytes);
            return Ok(Taken::Yes);
        }
        match header.tag {
            tag::COPY_DATA | tag::COPY_FAIL => {
                self.take_copy(header.frame_bytes);
                return Ok(Taken::Yes);
            }
            tag::QUERY | tag::PARSE | tag::BIND | tag::FUNCTION_CALL => {}
            _ => return Err(FrameError::LengthTooLarge(header.frame_bytes as u32).into()),
        }
        if self.session.transaction.lazy.is_some() {
            let giant = Request { kind: RequestKind::Open, bytes: 0 };
            if Box::pin(self.follow_lazy(giant, &Facts::opaque("oversized"))).await?.is_some() {
                return Ok(Taken::NotYet);
            }
        }
        let must_wait = |link: &Link| !link.is_primary && !link.is_in_transaction();
        self.runs_once();
        let is_free = self.session.pins.is_empty() && self.pending.unfinished().is_none();
        if is_free && self.link.as_ref().is_some_and(must_wait) {
            return Ok(Taken::NotYet);
        }
        let names = match header.tag {
            tag::BIND => match frontend::bind(self.io.inbox.unread()) {
                Ok((portal, statement, rest)) => {
                    let head = self.io.inbox.unread().len() - rest.len();
                    Some((portal.to_vec(), statement.to_vec(), head))
                }
                Err(_) if self.io.inbox.unread().len() < NAMES_LIMIT_BYTES => return Ok(Taken::NotYet),
                Err(error) => return Err(error.into()),
            },
            _ => None,
        };
        let kind = match header.tag {
            tag::QUERY => RequestKind::Simple,
            tag::FUNCTION_CALL => RequestKind::FunctionCall,
            _ => RequestKind::Open,
        };
        self.follow_reload();
        self.request_started = self.context.clock.now();
        let facts = Facts { catalog_change: header.tag == tag::QUERY, ..Facts::opaque("oversized") };
        if self.link.is_none() {
            let no_fill = super::cached::FillPlan::none("oversized");
            let Some(placement) = self.link_up(RequestKind::Open, &facts, &no_fill).await? else {
                self.reject(Request { kind, bytes: header.frame_bytes }, &cancelled());
                return Ok(Taken::Yes);
            };
            self.forward_giant(header, kind, &facts, placement, names);
        } else if let Some(link) = &self.link {
            let placement = super::route::Placement::joined(link);
            self.forward_giant(header, kind, &facts, placement, names);
        }
        Ok(Taken::Yes)
    }

    fn forward_giant(
        &mut self,
        header: Header,
        kind: RequestKind,
        facts: &Facts,
        placement: super::route::Placement,
        names: Option<(Vec<u8>, Vec<u8>, usize)>,
    ) {
        self.account_for(kind, header.frame_bytes, facts, placement, None);
        self.note_unread();
        self.note_sequences(facts);
        self.note_effects(facts);
        let is_shared = self.session.is_transparent && !self.keeps_server;
        let Some(link) = &mut self.link else { return };
        link.show(self.info.id);
        if header.tag == tag::QUERY && is_shared {
            // Nobody reads which settings it names, so nobody else gets the server.
            link.server.core().info.close_needed.store(true, Ordering::Relaxed);
        }
        // What was let through in front of it leaves in front of what is put there now.
        self.io.inbox.hand_over(&mut link.server.core_mut().endpoint.outbox);
        match (header.tag, names) {
            (tag::BIND, Some((portal, name, head))) => {
                let prepared = self.session.names.get(&name).cloned();
                if let Some(prepared) = &prepared {
                    link.prepare(prepared, name.is_empty());
                }
                let out = &mut link.server.core_mut().endpoint.outbox;
                let server_name = match &prepared {
                    Some(prepared) if !name.is_empty() => &*prepared.server_name,
                    _ => &*name,
                };
                frontend::put_bind_head(out.buffer(), &portal, server_name, header.frame_bytes - head);
                self.io.inbox.skip(head, out);
                self.io.inbox.pass(header.frame_bytes - head);
                link.replies.push(Reply::forward(Expected::Bind));
            }
            (tag::PARSE, _) => {
                link.replies.push(Reply::forward(Expected::Parse));
                link.server.core_mut().statements.unnamed = None;
                self.session.names.remove(b"");
                self.io.inbox.pass(header.frame_bytes);
                self.session.suspects = self.session.suspects.union(PinSet::OVERSIZED_STATEMENT);
                self.session.must_probe = true;
            }
            (tag::FUNCTION_CALL, _) => {
                link.replies.push(Reply::forward(Expected::FunctionCall));
                self.io.inbox.pass(header.frame_bytes);
            }
            _ => {
                link.replies.push(Reply::forward(Expected::Query));
                link.server.core_mut().statements.unnamed = None;
                self.session.names.remove(b"");
                self.io.inbox.pass(header.frame_bytes);
            }
        }
    }
}
