//! Answers from the cache for reads inside of a transaction (`[cache] in_transactions`).
//!
//! Under READ COMMITTED each statement has a snapshot of its own. While a transaction has written nothing, locked nothing and
//! set nothing, what is current for everybody is what its server would say; and what its server says, anybody may be told.

use super::{
    Client,
    cached::{FillPlan, Said},
    facts::{Boundary, Facts},
    link::Link,
    session::Step,
};
use crate::{
    catalog::Isolation,
    protocol::TransactionStatus,
    session::request::{Request, RequestKind},
};

/// What becomes of a request inside of a transaction.
pub(super) enum Inside {
    /// The client has its answer.
    Answered,
    /// It goes to the server; `None`: the cache was not asked.
    Goes(Option<FillPlan>),
}

impl Client {
    /// Asks the cache for a request of an open transaction. Nobody is waited for: a transaction holds a server.
    pub(super) fn ask_cache_inside(&mut self, request: Request, facts: &Facts) -> Inside {
        if !self.may_ask_inside(request, facts) {
            return Inside::Goes(None);
        }
        let asking = match self.asking(request, facts) {
            Ok(asking) => asking,
            Err(plan) => return Inside::Goes(Some(plan)),
        };
        if asking.cache.observes() {
            return Inside::Goes(None);
        }
        if !self.is_admitted(request, facts, &asking) {
            return Inside::Goes(Some(FillPlan::seldom_repeated()));
        }
        let now = self.request_started;
        match self.look_up(request, facts, &asking, now) {
            Said::Answered => {
                self.session.transaction.has_no_portal = true;
                // Whoever is answered so is not idle in its transaction.
                self.answered = now;
                self.info.answered(now, 0, self.transaction_started);
                Inside::Answered
            }
            Said::TooLong => Inside::Goes(Some(FillPlan::too_long())),
            Said::Missing(fill) => Inside::Goes(Some(self.plan_alone(fill, facts, &asking))),
            Said::Refused(refusal) => Inside::Goes(Some(FillPlan::none(refusal.label()))),
        }
    }

    fn may_ask_inside(&self, request: Request, facts: &Facts) -> bool {
        let Self { session, link: Some(link), .. } = self else { return false };
        let is_open = link.is_in_transaction() && link.status == TransactionStatus::InTransaction;
        session.database.settings.caches_in_transactions
            && session.transaction.only_asks
            && session.transaction.read_only.is_none()
            && link.is_primary
            && is_open
            && self.pending.is_empty()
            && session.pins.is_empty()
            && session.suspects.is_empty()
            && !(session.must_probe || session.is_probed || session.strings_change || session.scope_changes)
            && !self.is_strict(facts)
            && facts.executed == 1
            && (request.kind == RequestKind::Simple || self.names_no_portal())
    }

    /// Portals with names live until the transaction ends: what becomes of them the server must know.
    pub(super) fn names_no_portal(&self) -> bool {
        self.session.steps.iter().all(|located| match located.step {
            Step::Bind { portal_is_unnamed, .. } => portal_is_unnamed,
            Step::Execute { is_bound_last, .. } | Step::DescribePortal { is_bound_last } => is_bound_last,
            Step::CloseOther => false,
            _ => true,
        })
    }

    /// What the open transaction has done, before a request is sent.
    pub(super) fn note_asking(&mut self, facts: &Facts) {
        let is_idle = self.pending.is_empty() && self.link.as_ref().is_some_and(Link::is_idle);
        let session = &mut self.session;
        session.transaction.only_asks = session.database.settings.caches_in_transactions
            && facts.only_asks
            && match (facts.boundary, facts.isolation) {
                (Boundary::None, None) => session.transaction.only_asks,
                (Boundary::Begin { .. }, Some(None)) => is_idle && session.reads_committed(),
                (Boundary::Begin { .. }, Some(Some(Isolation::ReadCommitted | Isolation::ReadUncommitted))) => is_idle,
                _ => false,
            };
    }
}
