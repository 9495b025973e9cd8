//! LISTEN and UNLISTEN, which the database's shared connection carries out, and what it hears.

use std::sync::Arc;

use super::{Client, ClientError, facts::Facts, request::Taken, session::Step};
use crate::{
    cluster::{Listener, Mailbox},
    net::HIGH_WATER_BYTES,
    protocol::{ErrorResponse, TransactionStatus, backend},
    session::{PinSet, Request, RequestKind},
    sql::{DiscardTarget, Statement, StatementKind},
};

/// What a client that listens has of the shared connection.
#[derive(Debug)]
pub(super) struct Listening {
    listener: Arc<Listener>,
    mailbox: Arc<Mailbox>,
    own: Own,
}

/// What the client has notified itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Own {
    /// Nothing since it has heard everything.
    #[default]
    Nothing,
    /// Something, in the open transaction.
    Said,
    /// Its transaction has ended, and the client is to hear of it before it learns that.
    Due,
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
    /// LISTEN or UNLISTEN as the only statement of a request, outside a transaction. `None`: a server has to be asked; in
    /// a transaction, they hold from the commit on, and the server knows when that is.
    pub(super) async fn answer_listening(
        &mut self,
        request: Request,
        facts: &Facts,
    ) -> Result<Option<Taken>, ClientError> {
        // The shared connection hears UTF-8.
        let is_utf8 = self.session.parameters.get("client_encoding") == Some("UTF8");
        // Where several members take writes, each knows of its own notifications only: the client listens where it is.
        let has_equals = self.session.database.topology.has_equals();
        if !self.session.is_transparent || self.keeps_server || !is_utf8 || has_equals {
            return Ok(None);
        }
        let Some(statement) = self.lone_statement(request, facts) else { return Ok(None) };
        let [part] = &*statement.parts else { return Ok(None) };
        if !matches!(part.kind, StatementKind::Listen { .. } | StatementKind::Unlisten { .. }) {
            return Ok(None);
        }
        if self.pending.unfinished().is_some() {
            // Its first part is with a server already.
            return Ok(None);
        }
        if let Some(link) = self.link.as_ref().filter(|link| !link.is_idle() || !self.pending.is_empty()) {
            let may_be_in_transaction = link.status != TransactionStatus::Idle || link.expects_transaction;
            return Ok(if may_be_in_transaction { None } else { Some(Taken::NotYet) });
        }
        match &part.kind {
            StatementKind::Listen { channel } => {
                let Some(listening) = self.listening() else { return Ok(None) };
                let (listener, mailbox) = (Arc::clone(&listening.listener), Arc::clone(&listening.mailbox));
                if !Box::pin(listener.listen(channel, &mailbox)).await {
                    return Ok(None);
                }
                self.answer_utility(request, Ok("LISTEN"));
            }
            StatementKind::Unlisten { channel } => {
                self.end_listening_on(channel.as_deref()).await?;
                if self.session.pins.contains(PinSet::LISTEN) {
                    // Its server listens as well.
                    return Ok(None);
                }
                self.answer_utility(request, Ok("UNLISTEN"));
            }
            _ => return Ok(None),
        }
        Ok(Some(Taken::Yes))
    }

    /// What was sent before is heard before.
    async fn end_listening_on(&mut self, channel: Option<&str>) -> Result<(), ClientError> {
        if let Some(listening) = &self.listening {
            let (listener, mailbox) = (Arc::clone(&listening.listener), Arc::clone(&listening.mailbox));
            Box::pin(listener.unlisten(channel, &mailbox)).await;
            self.take_mail()?;
        }
        Ok(())
    }

    /// DEALLOCATE of a statement that a message has prepared, as the only statement of a request: servers know it by
    /// another name. `None`: a server has to be asked.
    pub(super) fn answer_deallocate(&mut self, request: Request, facts: &Facts) -> Option<Taken> {
        let statement = self.lone_statement(request, facts).filter(|_| self.session.is_transparent)?;
        let [part] = &*statement.parts else { return None };
        let StatementKind::Deallocate { name: Some(name) } = &part.kind else { return None };
        self.session.names.get(name.as_bytes())?;
        if self.pending.unfinished().is_some() {
            return None;
        }
        if let Some(link) = &self.link {
            if !link.is_quiet() || !self.pending.is_empty() {
                return Some(Taken::NotYet);
            }
            if link.status == TransactionStatus::Failed {
                return None;
            }
        }
        self.session.names.remove(name.as_bytes());
        self.answer_utility(request, Ok("DEALLOCATE"));
        Some(Taken::Yes)
    }

    /// LISTEN or UNLISTEN that is only prepared and described so far: no server is needed until it is executed, nor then.
    pub(super) fn answer_description(&mut self, request: Request, facts: &Facts) -> bool {
        let is_about = |statement: &Statement| match &*statement.parts {
            [part] => matches!(part.kind, StatementKind::Listen { .. } | StatementKind::Unlisten { .. }),
            _ => false,
        };
        if request.kind != RequestKind::Flush || !facts.statement.as_deref().is_some_and(is_about) {
            return false;
        }
        let is_description = |step: &Step| match step {
            Step::Parse { prepared, is_taken: false, .. } => is_about(&prepared.statement),
            Step::DescribeStatement { prepared: Some(prepared) } => is_about(&prepared.statement),
            step => matches!(step, Step::Flush),
        };
        if !self.session.is_transparent
            || self.keeps_server
            || !self.session.steps.iter().all(|located| is_description(&located.step))
        {
            return false;
        }
        let out = self.io.outbox.buffer();
        for located in &self.session.steps {
            match located.step {
                Step::Parse { .. } => out.extend_from_slice(backend::PARSE_COMPLETE),
                Step::DescribeStatement { .. } => {
                    out.extend_from_slice(backend::NO_PARAMETERS);
                    out.extend_from_slice(backend::NO_DATA);
                }
                _ => {}
            }
        }
        self.drop_request(request.bytes);
        true
    }

    fn listening(&mut self) -> Option<&Listening> {
        if self.listening.is_none() {
            let listener = self.context.directory.listener(&self.session.database)?;
            let mailbox = Mailbox::new(self.info.waker());
            self.listening = Some(Box::new(Listening { listener, mailbox, own: Own::Nothing }));
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
                Step::DescribePortal { .. } | Step::Sync | Step::CloseOther => {}
                _ => return None,
            }
        }
        lone.filter(|_| executed == 1).cloned()
    }

    /// Says how a statement without parameters and rows has ended: with its tag, or an error.
    pub(super) fn answer_utility(&mut self, request: Request, outcome: Result<&str, ErrorResponse>) {
        self.answer_with(request, None, outcome.map(|tag| (tag, "")));
    }

    /// Says how a statement without parameters has ended: with its tag and the value of its only column, if it has one, or
    /// an error.
    pub(super) fn answer_with(
        &mut self,
        request: Request,
        column: Option<&str>,
        outcome: Result<(&str, &str), ErrorResponse>,
    ) {
        self.hand_over_from_server();
        let is_unplaced = self.is_unplaced();
        let out = self.io.outbox.buffer();
        let put_description = |out: &mut Vec<u8>| match column {
            Some(column) => backend::put_text_description(out, column),
            None => out.extend_from_slice(backend::NO_DATA),
        };
        let put_outcome = |out: &mut Vec<u8>| match &outcome {
            Ok((tag, value)) => {
                if column.is_some() {
                    backend::put_data_row(out, &[Some(value)]);
                }
                backend::put_command_complete(out, tag);
            }
            Err(error) => error.put(out),
        };
        let is_simple = request.kind == RequestKind::Simple;
        let steps = if is_simple { &[][..] } else { &*self.session.steps };
        for located in steps {
            match located.step {
                Step::Parse { .. } => out.extend_from_slice(backend::PARSE_COMPLETE),
                Step::Bind { .. } => out.extend_from_slice(backend::BIND_COMPLETE),
                Step::DescribeStatement { .. } => {
                    out.extend_from_slice(backend::NO_PARAMETERS);
                    put_description(out);
                }
                Step::DescribePortal { .. } => put_description(out),
                Step::CloseOther | Step::CloseStatement { .. } => out.extend_from_slice(backend::CLOSE_COMPLETE),
                Step::Execute { .. } => {
                    put_outcome(out);
                    if outcome.is_err() {
                        break;
                    }
                }
                _ => {}
            }
        }
        if is_simple {
            if column.is_some() && outcome.is_ok() {
                put_description(out);
            }
            put_outcome(out);
        }
        if request.kind != RequestKind::Flush {
            let unlinked = match is_unplaced {
                true => TransactionStatus::InTransaction,
                false => TransactionStatus::Idle,
            };
            let status = self.link.as_ref().map_or(unlinked, |link| link.status);
            let status = match (status, &outcome) {
                (TransactionStatus::InTransaction, Err(_)) => TransactionStatus::Failed,
                (status, _) => status,
            };
            out.extend_from_slice(backend::ready_for_query(status));
        }
        self.drop_request(request.bytes);
    }

    /// A request that goes to a server ends subscriptions as well: UNLISTEN among other statements, DISCARD ALL. What may
    /// be rolled back ends nothing: hearing too much is better than missing something.
    pub(super) async fn end_listening(&mut self, facts: &Facts) -> Result<Taken, ClientError> {
        let ends = |kind: &StatementKind| {
            matches!(kind, StatementKind::Unlisten { .. } | StatementKind::Discard(DiscardTarget::All))
        };
        let listens = self.listening.is_some() && self.pending.unfinished().is_none();
        let Some(statement) = facts.statement.clone().filter(|_| listens) else { return Ok(Taken::Yes) };
        if !statement.parts.iter().any(|part| ends(&part.kind)) {
            return Ok(Taken::Yes);
        }
        if let Some(link) = self.link.as_ref().filter(|link| !link.is_idle() || !self.pending.is_empty()) {
            let may_be_in_transaction = link.status != TransactionStatus::Idle || link.expects_transaction;
            return Ok(if may_be_in_transaction { Taken::Yes } else { Taken::NotYet });
        }
        for part in &statement.parts {
            match &part.kind {
                StatementKind::Unlisten { channel } => self.end_listening_on(channel.as_deref()).await?,
                StatementKind::Discard(DiscardTarget::All) => self.end_listening_on(None).await?,
                _ => {}
            }
        }
        Ok(Taken::Yes)
    }

    /// The request may notify the client itself.
    pub(super) fn note_own_notification(&mut self, facts: &Facts) {
        let Some(listening) = &mut self.listening else { return };
        let is_notify =
            |statement: &Arc<Statement>| statement.parts.iter().any(|part| part.kind == StatementKind::Notify);
        if facts.statement.as_ref().is_some_and(is_notify) {
            listening.own = Own::Said;
        }
    }

    /// The server says that the transaction has ended: must the client hear itself first?
    pub(super) fn must_hear_itself(&mut self) -> bool {
        match &mut self.listening {
            Some(listening) if listening.own == Own::Said => {
                listening.own = Own::Due;
                true
            }
            _ => false,
        }
    }

    /// As PostgreSQL does, a client's own notifications come in front of the end of the request that sent them.
    pub(super) async fn hear_itself(&mut self) -> Result<(), ClientError> {
        let Some(listening) = self.listening.as_mut().filter(|listening| listening.own == Own::Due) else {
            return Ok(());
        };
        listening.own = Own::Nothing;
        let (listener, mailbox) = (Arc::clone(&listening.listener), Arc::clone(&listening.mailbox));
        listener.hear_out(&mailbox).await;
        self.hand_over_from_server();
        mailbox.take(self.io.outbox.buffer())?;
        self.take_server_messages()
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
        let mailbox = Arc::clone(&listening.mailbox);
        self.hand_over_from_server();
        mailbox.take(self.io.outbox.buffer())?;
        Ok(())
    }

    /// What the proxy says itself comes behind what the server has said before.
    fn hand_over_from_server(&mut self) {
        if let Some(link) = &mut self.link {
            link.server.core_mut().endpoint.inbox.hand_over(&mut self.io.outbox);
        }
    }
}
