//! A server connection in a client's hands.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::session::Session;
use crate::{
    pool::Pool,
    protocol::{TransactionStatus, frontend},
    routing::MemberId,
    server::{Busy, CancelPermit, Finished, Idle, ServerConnection, send_cancel},
    session::{Delivery, Expected, Prepared, Replies, Reply, Undo, replies::Capture},
};

/// Why a client holds a server connection, and what is outstanding on it.
pub(super) struct Link {
    pub server: ServerConnection<Busy>,
    pub pool: Arc<Pool>,
    pub member: MemberId,
    pub is_primary: bool,
    pub replies: Box<Replies>,
    /// What the last `ReadyForQuery` said.
    pub status: TransactionStatus,
    /// What the next one is expected to say, as far as the requests tell.
    pub expects_transaction: bool,
    /// The `CommandComplete` of a statement that we commit ourselves, kept until that has succeeded.
    pub held: Vec<u8>,
    /// A query of our own failed.
    pub own_query_failed: bool,
    /// A cancel request of the client's would hit a query of our own.
    is_hidden: bool,
    /// Queries that bring the server to the client's settings.
    restoring: u8,
    /// What is under way ends every prepared statement.
    pub forgets_statements: bool,
    /// Named statements that the server was told since the last request was counted.
    pub server_parses: u32,
}

impl Link {
    pub(super) fn new(
        server: ServerConnection<Idle>,
        pool: Arc<Pool>,
        member: MemberId,
        is_primary: bool,
        client: u64,
        replies: Box<Replies>,
    ) -> Self {
        server.core().info.gate.hold(client);
        let mut server = server.begin();
        server.core_mut().endpoint.change_task();
        Self {
            server,
            pool,
            member,
            is_primary,
            replies,
            status: TransactionStatus::Idle,
            expects_transaction: false,
            held: Vec::new(),
            own_query_failed: false,
            is_hidden: false,
            restoring: 0,
            forgets_statements: false,
            server_parses: 0,
        }
    }

    /// It leads to what is the primary no longer: nothing more is sent there.
    pub(super) fn is_deposed(&self) -> bool {
        self.pool.is_deposed(&self.server.core().info)
    }

    /// Nothing is outstanding.
    pub(super) fn is_quiet(&self) -> bool {
        self.replies.is_empty()
    }

    /// Nothing is outstanding and no transaction is open.
    pub(super) fn is_idle(&self) -> bool {
        self.is_quiet() && self.status == TransactionStatus::Idle
    }

    /// A statement sent now joins a transaction block, for certain.
    pub(super) fn is_in_transaction(&self) -> bool {
        self.is_quiet() && self.status != TransactionStatus::Idle
    }

    /// Sends a query of our own whose rows are read.
    pub(super) fn ask(&mut self, text: &str, capture: Capture) {
        self.put_query(text);
        self.replies.push(Reply::capture(Expected::Query, capture));
    }

    /// Sends a query of our own.
    pub(super) fn tell(&mut self, text: &str) {
        self.put_query(text);
        self.replies.push(Reply::swallow(Expected::Query));
    }

    /// A simple query ends the server's unnamed statement, whoever sends it.
    fn put_query(&mut self, text: &str) {
        let core = self.server.core_mut();
        core.statements.unnamed = None;
        frontend::put_query(core.endpoint.outbox.buffer(), text);
    }

    /// Begins a transaction that the client believes to be open: nothing may run if that fails, and no cancel request of
    /// its own may hit it.
    pub(super) fn begin_again(&mut self, begin: &str) {
        self.ask(begin, Capture::Settings);
        self.restoring += 1;
        self.hide();
        self.expects_transaction = true;
    }

    /// Brings the server's parameters and settings to the client's values, in the same write as what follows.
    pub(super) fn synchronise(&mut self, session: &Session, client: u64, now: u64) {
        let core = self.server.core_mut();
        let parameters = session.parameters.synchronise(&core.parameters);
        let wanted = core.settings_for(&session.settings);
        let settings = wanted.restore(&core.settings);
        if self.has_foreign_sequences(session, client, now) {
            self.forget_sequences();
        }
        let core = self.server.core_mut();
        if parameters.is_none() && settings.is_none() {
            return;
        }
        let is_recoded = session.parameters.get("client_encoding") != core.parameters.get("client_encoding");
        let mut text = parameters.unwrap_or_default();
        if let Some(change) = settings {
            core.settings = wanted.into_owned();
            if is_recoded {
                // What comes in one message is read in one encoding.
                self.ask(&text, Capture::Settings);
                self.restoring += 1;
                text.clear();
            }
            text.push_str(&change);
        }
        self.ask(&text, Capture::Settings);
        self.restoring += 1;
        self.hide();
    }

    /// Would the server answer a question for `currval()` or `lastval()` with a neighbour's value, and may it be asked?
    pub(super) fn has_foreign_sequences(&self, session: &Session, client: u64, now: u64) -> bool {
        let core = self.server.core();
        core.sequences_of != 0
            && session.is_transparent
            && self.pool.are_sequences_asked_for(now)
            && session.sequences.are_foreign(core.info.id, core.sequences_of, client)
    }

    /// The server forgets what `nextval()` gave to another session.
    pub(super) fn forget_sequences(&mut self) {
        self.server.core_mut().sequences_of = 0;
        self.ask("DISCARD SEQUENCES", Capture::Settings);
        self.restoring += 1;
        self.hide();
    }

    /// What runs next is ours: a cancel request of the client's must not hit it.
    pub(super) fn hide(&mut self) {
        self.server.core().info.gate.hold(0);
        self.is_hidden = true;
    }

    /// A query of our own has ended.
    pub(super) fn own_query_ended(&mut self, client: u64) {
        if self.restoring > 0 {
            self.restoring -= 1;
            self.show(client);
        }
    }

    /// What runs next is the client's.
    pub(super) fn show(&mut self, client: u64) {
        if self.is_hidden && self.restoring == 0 {
            self.is_hidden = false;
            self.server.core().info.gate.hold(client);
        }
    }

    /// Makes sure that the server has prepared this.
    pub(super) fn prepare(&mut self, prepared: &Arc<Prepared>, is_unnamed: bool) {
        let core = self.server.core_mut();
        if is_unnamed {
            if core.statements.unnamed != Some(prepared.id) {
                core.statements.unnamed = Some(prepared.id);
                frontend::put_parse(core.endpoint.outbox.buffer(), b"", &prepared.text, &prepared.types);
                self.replies.push(Reply::swallow(Expected::Parse).undone_by(Undo::Unprepare(prepared.id)));
            }
        } else if !core.statements.touch(prepared.id) {
            core.statements.insert(prepared.id);
            self.server_parses += 1;
            let out = core.endpoint.outbox.buffer();
            frontend::put_parse(out, &prepared.server_name, &prepared.text, &prepared.types);
            self.replies.push(Reply::swallow(Expected::Parse).undone_by(Undo::Unprepare(prepared.id)));
        }
    }

    /// The server's unnamed statement may be a neighbour's, and this client has none.
    pub(super) fn forget_unnamed(&mut self, name: &[u8]) {
        let core = self.server.core_mut();
        if name.is_empty() && core.statements.unnamed.take().is_some() {
            frontend::put_close(core.endpoint.outbox.buffer(), frontend::Target::Statement, b"");
            self.replies.push(Reply::swallow(Expected::Close));
        }
    }

    /// Closes statements beyond the limit; only in front of an extended request.
    pub(super) fn evict_statements(&mut self, limit: usize) {
        let core = self.server.core_mut();
        while let Some(evicted) = core.statements.evict(limit) {
            let name = evicted.server_name();
            frontend::put_close(core.endpoint.outbox.buffer(), frontend::Target::Statement, name.as_bytes());
            self.replies.push(Reply { expected: Expected::Close, delivery: Delivery::Swallow, undo: Undo::Nothing });
        }
    }

    /// The connection goes back to its pool at `now`, or is closed if it may not. Returns the queue of its replies, for
    /// the next link.
    pub(super) fn give_back(self, now: u64) -> Box<Replies> {
        let Self { server, pool, replies, status, .. } = self;
        let core = server.core();
        core.info.statements.store(core.statements.len() as u64, Ordering::Relaxed);
        let is_cancelled = core.info.gate.let_go();
        let Finished::Idle(mut server) = server.finish(status) else {
            return replies;
        };
        server.rest();
        if is_cancelled {
            let info = Arc::clone(&server.core().info);
            // A cancel request on its way must not hit the next client.
            tokio::spawn(async move {
                info.gate.wait_closed().await;
                pool.check_in(server, now);
            });
        } else {
            pool.check_in(server, now);
        }
        replies
    }

    /// Its statement is cancelled, then the connection is closed: a server notices that nobody listens only when it has
    /// something to say.
    pub(super) fn cancel(self, client: u64, deadline: Duration) {
        let permit = CancelPermit::acquire(&self.server.core().info, client);
        let server = self.server;
        tokio::spawn(async move {
            if let Some(permit) = permit
                && let Err(error) = send_cancel(permit, deadline, |_| {}).await
            {
                tracing::warn!(%error, "statement not cancelled");
            }
            drop(server);
        });
    }

    /// The client is gone and has left state behind: the connection is cleaned, then goes back.
    pub(super) fn clean(self, query: String) {
        let info = Arc::clone(&self.server.core().info);
        info.gate.let_go();
        let (pool, server) = (self.pool, self.server);
        tokio::spawn(async move {
            info.gate.wait_closed().await;
            Box::pin(pool.clean(server, &query)).await;
        });
    }
}
