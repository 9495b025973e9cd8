//! What the cache would do with a request, where it only observes: the request goes its way all the same.

use super::{
    Client,
    again::Again,
    cached::{Asking, FillPlan},
    facts::Facts,
};
use crate::{cache::Lookup, insight::CacheOutcome, routing::Freshness, session::request::Request};

impl FillPlan {
    /// There would be an answer. It is not sent, and the server's is not looked at.
    pub(super) fn would_hit(reason: &'static str) -> Self {
        Self { outcome: CacheOutcome::WouldHit, ..Self::none(reason) }
    }
}

impl Client {
    /// Looks up what the cache would have, by the rules of a lookup that answers. Nobody is waited for: whoever would join
    /// another client's read counts as if that brought an answer; Redis and, for a strict read, the primary are not asked.
    /// Behind others on its connection a request is looked up at once: one that would find there what they bring counts as
    /// a miss.
    pub(super) fn observe_cache(&self, request: Request, facts: &Facts, asking: &Asking) -> FillPlan {
        match self.find(request, facts, asking, self.request_started) {
            Lookup::Hit(entry) if !asking.takes_all(&entry) => FillPlan::too_long(),
            Lookup::Hit(_) => FillPlan::would_hit("hit"),
            Lookup::Refused(refusal) => FillPlan::none(refusal.label()),
            Lookup::Miss(fill) if self.freshness(facts) != Freshness::Fenced => FillPlan::of_stale_read(fill.absence()),
            Lookup::Miss(mut fill) => {
                let ttl = match self.ttl_of(asking, facts) {
                    Ok(ttl) => ttl,
                    Err(reason) => return FillPlan::none(reason),
                };
                if !self.pending.is_empty() {
                    return self.plan_alone(Box::new(fill), facts, asking);
                }
                if self.is_strict(facts) || matches!(self.again, Again::Second(_)) {
                    return FillPlan::keeping(Box::new(fill), ttl);
                }
                if let Some(statement) = &facts.statement {
                    fill.is_of(statement.fingerprint, &self.session.database.name);
                }
                if fill.board().is_some() {
                    asking.cache.note_joined();
                    return FillPlan::would_hit("joined");
                }
                FillPlan::keeping(Box::new(fill), ttl)
            }
        }
    }
}
