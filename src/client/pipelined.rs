//! Answers from the cache for requests behind others on one connection.
//!
//! A client that pipelines is answered in the order in which it asks. A request whose answer the cache has waits until
//! those in front of it are answered, and is looked up then: what they have seen, or written, may be newer than the answer was.
//! One whose answer it has not goes at once, and what comes back is kept.

use super::{Client, cached::FillPlan, facts::Facts, session::Step};
use crate::{
    cache::Lookup,
    protocol::TransactionStatus,
    session::{
        Undo,
        request::{Request, RequestKind},
    },
};

/// What becomes of a request behind others.
pub(super) enum Behind {
    /// It follows them to the server; `None`: the cache was not asked.
    Goes(Option<FillPlan>),
    /// It waits for its turn.
    Waits,
}

impl Client {
    /// Asks the cache for a request that joins others on the connection that they hold.
    pub(super) fn ask_cache_behind_others(&mut self, request: Request, facts: &Facts) -> Behind {
        if !self.will_be_free() {
            return Behind::Goes(None);
        }
        if facts.executed > 1 && request.kind == RequestKind::Sync {
            return match self.look_up_batch(request, facts) {
                Ok(batch) if batch.is_held() => self.waits_or_goes(),
                Ok(batch) => Behind::Goes(self.answer_batch(request, facts, batch)),
                Err(plan) => Behind::Goes(Some(plan)),
            };
        }
        let asking = match self.asking(request, facts) {
            Ok(asking) => asking,
            Err(plan) => return Behind::Goes(Some(plan)),
        };
        let observes = asking.cache.observes();
        // It is looked up when its turn comes.
        if !observes && self.is_held(&asking) {
            return self.waits_or_goes();
        }
        if !self.is_admitted(request, facts, &asking) {
            return Behind::Goes(Some(FillPlan::seldom_repeated()));
        }
        if observes {
            return Behind::Goes(Some(self.observe_cache(request, facts, &asking)));
        }
        match self.find(request, facts, &asking, self.request_started) {
            Lookup::Hit(_) => self.waits_or_goes(),
            Lookup::Refused(refusal) => Behind::Goes(Some(FillPlan::none(refusal.label()))),
            // Nobody is waited for, because it may be this client's own.
            Lookup::Miss(fill) => Behind::Goes(Some(self.plan_alone(Box::new(fill), facts, &asking))),
        }
    }

    /// One that waits is read again, and must mean the same then: the unnamed statement of before is gone where another has
    /// taken its place.
    fn waits_or_goes(&self) -> Behind {
        let mut needs_former = false;
        for located in &self.session.steps {
            match &located.step {
                Step::Parse { undo: Undo::Unname(name), .. } if name.is_empty() => match needs_former {
                    true => return Behind::Goes(None),
                    false => break,
                },
                Step::Bind { is_unnamed, .. } => needs_former |= is_unnamed,
                _ => {}
            }
        }
        Behind::Waits
    }

    /// Will the client hold no server when what it has asked so far is answered, and be what it is now?
    fn will_be_free(&mut self) -> bool {
        let session = &self.session;
        (session.database.caches() || session.database.observes())
            && session.pins.is_empty()
            && session.suspects.is_empty()
            && !(session.must_probe || session.is_probed || session.strings_change || session.scope_changes)
            && !self.keeps_server
            && self.link.as_ref().is_some_and(|link| link.status == TransactionStatus::Idle)
            && !self.pending.is_empty()
            && self.pending.unfinished().is_none()
            && self.pending.leave_no_trace()
    }
}
