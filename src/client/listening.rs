//! LISTEN and UNLISTEN, which the database's shared connection carries out, and what it hears.

use std::sync::Arc;

use super::{Client, ClientError, facts::Facts, session::Step};
use crate::{
    catalog::Effects,
    cluster::{Listener, Mailbox},
    net::HIGH_WATER_BYTES,
    protocol::{ErrorResponse, TransactionStatus, backend},
    session::{Request, RequestKind},
    sql::{DiscardTarget, Statement, StatementKind},
};

/// What a client that listens has of the shared connection.
#[derive(Debug)]
pub(super) struct Listening {
    listener: Arc<Listener>,
    mailbox: Arc<Mailbox>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.listener.leave(&self.mailbox);
    }
}

impl Listening {
    pub(super) fn has_mail(&self) -> bool {
        self.mailbox.has_mail()
    }
}

impl Client {
    /// LISTEN or UNLISTEN as the only statement of a request, outside a transaction; false if a server has to be asked:
    /// in a transaction it holds from the commit on, which the server knows.
    pub(super) async fn answer_listening(&mut self, request: Request, facts: &Facts) -> Result<bool, ClientError> {
        if !facts.effects.intersects(Effects::LISTEN.union(Effects::RELEASE))
            || !self.session.is_transparent
            || self.keeps_server
        {
            return Ok(false);
        }
        let Some(statement) = self.lone_statement(request, facts) else { return Ok(false) };
        let [part] = &*statement.parts else { return Ok(false) };
        match &part.kind {
            StatementKind::Listen { channel } => {
                let Some(listening) = self.listening() else { return Ok(false) };
                let (listener, mailbox) = (Arc::clone(&listening.listener), Arc::clone(&listening.mailbox));
                if !Box::pin(listener.listen(channel, &mailbox)).await {
                    return Ok(false);
                }
                self.answer_utility(request, Ok("LISTEN"));
            }
            StatementKind::Unlisten { channel } => {
                if let Some(listening) = &self.listening {
                    let (listener, mailbox) = (Arc::clone(&listening.listener), Arc::clone(&listening.mailbox));
                    Box::pin(listener.unlisten(channel.as_deref(), &mailbox)).await;
                    // What was sent before is heard before.
                    mailbox.take(self.io.outbox.buffer())?;
                }
                self.answer_utility(request, Ok("UNLISTEN"));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn listening(&mut self) -> Option<&Listening> {
        if self.listening.is_none() {
            let listener = self.context.directory.listener(&self.session.database)?;
            let mailbox = Mailbox::new(self.info.waker());
            self.listening = Some(Box::new(Listening { listener, mailbox }));
        }
        self.listening.as_deref()
    }

    /// The only statement of a request that runs it once and whole.
    pub(super) fn lone_statement(&self, request: Request, facts: &Facts) -> Option<Arc<Statement>> {
        match request.kind {
            RequestKind::Simple => facts.statement.clone(),
            RequestKind::Sync => self.lone_in_batch(),
            _ => None,
        }
    }

    fn lone_in_batch(&self) -> Option<Arc<Statement>> {
        let mut lone: Option<&Arc<Statement>> = None;
        let mut executed = 0;
        for located in &self.session.steps {
            match &located.step {
                Step::Parse { prepared, is_taken: false, .. }
                | Step::Bind { prepared: Some(prepared), .. }
                | Step::DescribeStatement { prepared: Some(prepared) } => {
                    let statement = lone.get_or_insert(&prepared.statement);
                    if !Arc::ptr_eq(statement, &prepared.statement) {
                        return None;
                    }
                }
                Step::Execute { .. } => executed += 1,
                Step::DescribePortal | Step::Sync | Step::CloseOther => {}
                _ => return None,
            }
        }
        lone.filter(|_| executed == 1).cloned()
    }

    /// Says how a statement without parameters and rows has ended: with its tag, or an error.
    pub(super) fn answer_utility(&mut self, request: Request, outcome: Result<&str, ErrorResponse>) {
        let out = self.io.outbox.buffer();
        let put_outcome = |out: &mut Vec<u8>| match &outcome {
            Ok(tag) => backend::put_command_complete(out, tag),
            Err(error) => error.put(out),
        };
        for located in &self.session.steps {
            match located.step {
                Step::Parse { .. } => out.extend_from_slice(backend::PARSE_COMPLETE),
                Step::Bind { .. } => out.extend_from_slice(backend::BIND_COMPLETE),
                Step::DescribeStatement { .. } => {
                    out.extend_from_slice(backend::NO_PARAMETERS);
                    out.extend_from_slice(backend::NO_DATA);
                }
                Step::DescribePortal => out.extend_from_slice(backend::NO_DATA),
                Step::CloseOther => out.extend_from_slice(backend::CLOSE_COMPLETE),
                Step::Execute { .. } => {
                    put_outcome(out);
                    if outcome.is_err() {
                        break;
                    }
                }
                _ => {}
            }
        }
        if request.kind == RequestKind::Simple {
            put_outcome(out);
        }
        out.extend_from_slice(backend::ready_for_query(TransactionStatus::Idle));
        self.drop_request(request.bytes);
    }

    /// A request that goes to a server ends subscriptions as well: UNLISTEN among other statements, DISCARD ALL.
    pub(super) async fn end_listening(&mut self, facts: &Facts) {
        let (Some(listening), Some(statement)) = (&self.listening, &facts.statement) else { return };
        for part in &statement.parts {
            let channel = match &part.kind {
                StatementKind::Unlisten { channel } => channel.as_deref(),
                StatementKind::Discard(DiscardTarget::All) => None,
                _ => continue,
            };
            let (listener, mailbox) = (Arc::clone(&listening.listener), Arc::clone(&listening.mailbox));
            Box::pin(listener.unlisten(channel, &mailbox)).await;
        }
    }

    /// Notifications reach a client between its requests, as PostgreSQL sends them.
    pub(super) fn may_take_mail(&self) -> bool {
        self.pending.is_empty()
            && self.link.as_ref().is_none_or(super::link::Link::is_idle)
            && self.io.outbox.unsent().len() < HIGH_WATER_BYTES
    }

    /// Hands on what has come, if it may be now.
    pub(super) fn take_mail(&mut self) -> Result<(), ClientError> {
        let Some(listening) = self.listening.as_ref().filter(|listening| listening.has_mail()) else { return Ok(()) };
        if !self.may_take_mail() {
            return Ok(());
        }
        if let Some(link) = &mut self.link {
            // Behind what the server has said before.
            link.server.core_mut().endpoint.inbox.hand_over(&mut self.io.outbox);
        }
        listening.mailbox.take(self.io.outbox.buffer())?;
        Ok(())
    }
}
