//! Where a request may run: for the request itself, and for SHOW ROUTE. Pure.

use std::sync::Arc;

use super::{
    facts::{Boundary, Facts},
    session::OwnSettings,
};
use crate::{
    catalog::Meaning,
    cluster::{Database, LoadedCatalog},
    config::ReadWriteSplit,
    insight::{Route, WOULD_REPLICA},
    routing::{Demand, Fence, Freshness, MemberId, RouteReason},
    session::SessionSettings,
    sql::{RouteHint, Statement},
};

/// What is known of the session that asks.
pub(super) struct View<'a> {
    pub database: &'a Database,
    pub catalog: Option<&'a LoadedCatalog>,
    /// As its servers know it.
    pub user: &'a str,
    /// What it has set.
    pub settings: &'a SessionSettings,
    pub own: &'a OwnSettings,
    /// How old data may be where neither a hint nor the session says.
    pub max_staleness: Option<u64>,
    /// It keeps its server until it leaves.
    pub keeps_server: bool,
    /// What it has written itself.
    pub fence: Fence,
}

/// Who runs a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The primary.
    Primary,
    /// A replica, on a connection that is older than this.
    Replica { member: MemberId, opened_before: u64 },
    /// A replica, once one can (`primary_reads = never`).
    Awaited,
}

/// Who runs a request, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub place: Place,
    pub reason: &'static str,
}

/// Where a statement would run that a new session of `user` sent now: with whom, on which member, and why. A replica that is
/// awaited has no name yet.
#[must_use]
pub fn would_run(
    database: &Database,
    user: &str,
    statement: &Arc<Statement>,
    meaning: Arc<Meaning>,
    now: u64,
) -> (Route, Option<MemberId>, &'static str) {
    let catalog = database.catalog();
    let (settings, own) = (SessionSettings::default(), OwnSettings::default());
    let view = View {
        database,
        catalog: catalog.as_deref(),
        user,
        settings: &settings,
        own: &own,
        max_staleness: database.settings.max_staleness_of(user),
        keeps_server: false,
        fence: Fence::NONE,
    };
    let mut facts = Facts::new();
    facts.execute(statement, meaning);
    if database.real.learned_writes.contains(statement.fingerprint) {
        facts.may_write("learned_write");
    }
    let Decision { place, reason } = view.decide(&facts, true, None, None, now);
    match place {
        Place::Primary => (Route::Primary, database.primary(), reason),
        Place::Replica { member, .. } => (Route::Replica, Some(member), reason),
        Place::Awaited => (Route::Replica, None, reason),
    }
}

impl View<'_> {
    /// Where a request runs. `is_whole`: nothing of it is still to come; `filling`: what the cache needs of its answer;
    /// `avoid`: a member that has just failed it.
    pub(super) fn decide(
        &self,
        facts: &Facts,
        is_whole: bool,
        filling: Option<Fence>,
        avoid: Option<MemberId>,
        now: u64,
    ) -> Decision {
        if let Some(reason) = self.needs_primary(facts, is_whole) {
            return Decision { place: Place::Primary, reason };
        }
        let topology = &self.database.topology;
        let is_counted = self.database.settings.split == ReadWriteSplit::Log;
        let choice = self.database.route(&Demand { avoid, ..self.demand(facts, filling) }, now);
        match (choice.member, choice.reason) {
            (_, RouteReason::Replica) if is_counted => Decision { place: Place::Primary, reason: WOULD_REPLICA },
            (Some(member), RouteReason::Replica) => {
                let opened_before = choice.valid_for_connections_opened_before;
                Decision { place: Place::Replica { member, opened_before }, reason: facts.reason }
            }
            (_, reason) if !is_counted && reason > RouteReason::NotReplayed && topology.waits_for_replica() => {
                Decision { place: Place::Awaited, reason: reason.label() }
            }
            (_, reason) => Decision { place: Place::Primary, reason: reason.label() },
        }
    }

    /// Why no replica may run it, whatever they are like.
    fn needs_primary(&self, facts: &Facts, is_whole: bool) -> Option<&'static str> {
        if self.database.settings.split == ReadWriteSplit::Off {
            return Some("split_off");
        }
        if facts.needs_primary {
            return Some(facts.reason);
        }
        if self.catalog.is_some_and(|catalog| catalog.snapshot.is_serializable(self.user)) {
            return Some("serializable");
        }
        if self.settings.change_names() {
            return Some("session_settings");
        }
        if self.keeps_server {
            return Some("session_pooling");
        }
        if !is_whole || !matches!(facts.boundary, Boundary::None | Boundary::Begin { read_only: true }) {
            return Some("open_batch");
        }
        (self.route_hint(facts) == Some(RouteHint::Primary)).then_some("hint")
    }

    /// What it asks of a replica.
    pub(super) fn demand(&self, facts: &Facts, filling: Option<Fence>) -> Demand {
        let relations = facts.meaning.as_ref().and_then(|meaning| meaning.cacheable.as_deref().ok());
        let fence = self.database.read_fence(self.fence, relations);
        let fence = filling.map_or(fence, |filling| fence.and(filling));
        Demand { fence, freshness: self.freshness(facts), min_lsn: self.own.min_lsn, avoid: None }
    }

    /// How fresh a read must be: by its hints, else the settings of the session, else those of user and database.
    pub(super) fn freshness(&self, facts: &Facts) -> Freshness {
        let hint = facts.max_staleness().map(|bound| bound.as_nanos() as u64);
        let session = || self.own.max_staleness.or(self.max_staleness).filter(|bound| *bound > 0);
        match (self.route_hint(facts), hint.or_else(session)) {
            (Some(RouteHint::Replica), _) => Freshness::Any,
            (_, Some(bound)) => Freshness::Within(bound),
            _ => Freshness::Fenced,
        }
    }

    fn route_hint(&self, facts: &Facts) -> Option<RouteHint> {
        facts.route_hint().or(self.own.route)
    }
}
