//! Answers to `SET pgweir.…` and `SHOW pgweir.…`, outside transactions and inside them. What is set holds at once and stays,
//! whatever becomes of the transaction.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{Client, ClientError, facts::Facts, read_only::FAILS, request::Taken, session::Step};
use crate::{
    cluster::Database,
    lsn::{Lsn, WalGeometry},
    protocol::{ErrorResponse, SqlState, TransactionStatus},
    routing::Watermark,
    server::ask,
    session::{
        replies::Capture,
        request::{Request, RequestKind},
    },
    sql::{Statement, StatementKind},
};

/// Where the primary is; with a parameter, as all that is asked so.
const POSITION: &str =
    "SELECT pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text WHERE $1::pg_catalog.text IS NOT NULL";
/// A client that holds a server is told where the primary is by the next sample, or so much later that it is not known.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

fn is_own(statement: &Statement) -> bool {
    match &*statement.parts {
        [part] => matches!(part.kind, StatementKind::ProxySet { .. } | StatementKind::ProxyShow { .. }),
        _ => false,
    }
}

fn unknown_position(why: &str) -> ErrorResponse {
    let error = ErrorResponse::error(SqlState(*b"55000"), "the position of what has been written is not known");
    error.with_detail(why.to_owned())
}

impl Client {
    /// The statement of a request that is about a setting of the proxy's, and about nothing else.
    pub(super) fn own_statement(&self, request: Request, facts: &Facts) -> Option<Arc<Statement>> {
        let statement = facts.statement.as_ref().filter(|statement| is_own(statement))?;
        let is_same = |other: &Arc<Statement>| Arc::ptr_eq(other, statement);
        let mut executed = 0;
        let mut is_about = |step: &Step| match step {
            Step::Parse { prepared, is_taken: false, .. } | Step::DescribeStatement { prepared: Some(prepared) } => {
                is_same(&prepared.statement)
            }
            Step::CloseOther | Step::CloseStatement { .. } => true,
            // Portals live no longer than a request.
            _ if request.kind == RequestKind::Flush => matches!(step, Step::Flush),
            Step::Bind { prepared: Some(prepared), .. } => is_same(&prepared.statement),
            Step::Execute { .. } => {
                executed += 1;
                executed == 1
            }
            step => matches!(step, Step::DescribePortal { .. } | Step::Sync),
        };
        let is_alone = match request.kind {
            RequestKind::Simple => true,
            RequestKind::Sync | RequestKind::Flush => self.session.steps.iter().all(|located| is_about(&located.step)),
            _ => false,
        };
        is_alone.then(|| Arc::clone(statement))
    }

    /// Answers it; `None` if the server shall: because it has been sent a part of it, or refuses everything.
    pub(super) async fn answer_own(
        &mut self,
        request: Request,
        statement: &Statement,
    ) -> Result<Option<Taken>, ClientError> {
        if self.pending.unfinished().is_some() {
            return Ok(None);
        }
        if let Some(link) = &self.link {
            if !link.is_quiet() || !self.pending.is_empty() {
                return Ok(Some(Taken::NotYet));
            }
            if link.status == TransactionStatus::Failed {
                return Ok(None);
            }
        }
        let is_executed = |step: &Step| matches!(step, Step::Execute { .. });
        let is_executed =
            request.kind == RequestKind::Simple || self.session.steps.iter().any(|located| is_executed(&located.step));
        let Some(part) = statement.parts.first() else { return Ok(None) };
        match &part.kind {
            StatementKind::ProxySet { name, value, .. } => {
                let outcome = match is_executed {
                    true => self.session.own.set(name, value.as_deref().unwrap_or("default")),
                    false => Ok(()),
                };
                self.fail_with(&outcome);
                self.answer_utility(request, outcome.map(|()| "SET"));
            }
            StatementKind::ProxyShow { name } => {
                let outcome = match (is_executed, &**name) {
                    (false, _) => Ok(String::new()),
                    (true, "lsn") => match self.written_up_to().await? {
                        Some(outcome) => outcome.map(|position| position.to_string()),
                        None => Err(super::request::cancelled()),
                    },
                    (true, name) => self.session.own.show(name, self.session.max_staleness),
                };
                self.fail_with(&outcome);
                let outcome = outcome.as_ref().map(|value| ("SHOW", value.as_str())).map_err(Clone::clone);
                self.answer_with(request, Some(&format!("pgweir.{name}")), outcome);
            }
            _ => return Ok(None),
        }
        Ok(Some(Taken::Yes))
    }

    /// An error ends the transaction, on the server as well.
    fn fail_with<T>(&mut self, outcome: &Result<T, ErrorResponse>) {
        if let (Err(_), Some(link)) = (outcome, self.link.as_mut())
            && link.status == TransactionStatus::InTransaction
        {
            // Whose error is expected.
            link.ask(FAILS, Capture::Again);
        }
    }

    /// A position that covers what the session has committed, and what it asks for itself; `None` if the client cancelled.
    async fn written_up_to(&mut self) -> Result<Option<Result<Lsn, ErrorResponse>>, ClientError> {
        let (fence, least) = (self.session.fence, self.session.own.min_lsn);
        let database = Arc::clone(&self.session.database);
        if database.topology.has_equals() {
            let detail = "Members of role=any have positions of their own, which mean nothing to each other.";
            return Ok(Some(Err(unknown_position(detail))));
        }
        let known = |database: &Database| match database.topology.samples().resolve(fence) {
            Watermark::Known(position) => Some(position.max(least)),
            Watermark::Unknown => None,
        };
        if let Some(position) = known(&database) {
            return Ok(Some(Ok(position)));
        }
        if self.link.is_none() {
            let asked = self.ask_position().await?;
            return Ok(asked.map(|asked| asked.map(|position| position.max(least))));
        }
        if database.topology.samples().newest_sent_at().is_none() {
            return Ok(Some(Err(unknown_position("The primary is not asked for it while a connection is kept."))));
        }
        let sampled = timeout(LONGEST_WAIT, database.sampled_until(|| known(&database))).await;
        Ok(Some(sampled.ok().flatten().ok_or_else(|| unknown_position("The primary has not said it in time."))))
    }

    /// Asks the primary how far it is; `None` if the client cancelled its request while it waited.
    async fn ask_position(&mut self) -> Result<Option<Result<Lsn, ErrorResponse>>, ClientError> {
        self.has_waited = false;
        let Some((member, server)) = self.check_out_primary(None).await? else { return Ok(None) };
        let mut server = server.begin();
        server.core_mut().statements.unnamed = None;
        let deadline = self.context.settings().config.server_connect_timeout();
        let (server, row) = match timeout(deadline, ask(server, POSITION, "")).await {
            Ok(Ok((server, _, row))) => (server, row),
            Ok(Err(error)) => return Ok(Some(Err(unknown_position(&error.to_string())))),
            Err(_) => return Ok(Some(Err(unknown_position("The primary has not said it in time.")))),
        };
        self.give_back_unused(member, server);
        let value = row.as_ref().and_then(|row| row.first()).and_then(Option::as_deref);
        let position = value.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
        let position = position.map(|position: Lsn| position.end_of_last_record(WalGeometry::default()));
        Ok(Some(position.ok_or_else(|| unknown_position("The primary has given no position."))))
    }
}
