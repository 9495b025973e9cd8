//! One database as its clients share it: members, catalog, stamps, fences.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use super::{CrossChecks, DirectSettings, RealDatabase};
use crate::{
    cache::{CatalogEpoch, Cells, Lifetimes, ResultCache, invalidation::Closure},
    catalog::{self, Meaning, RelationOid},
    config::{CacheMode, ReadWriteSplit, ReadYourWrites},
    routing::{Demand, Fence, MemberId, Topology},
    session::settings::changes_names,
    sql::{Analyzer, Part, Statement, StatementKind},
};

/// What the configuration says of one database.
#[derive(Clone, Debug, PartialEq)]
pub struct DatabaseSettings {
    /// Whether reads go to replicas.
    pub split: ReadWriteSplit,
    /// Whose writes a read must see.
    pub read_your_writes: ReadYourWrites,
    /// The members are asked who is primary; else it is the first.
    pub follows_primary: bool,
    /// Whether answers are cached.
    pub cache: CacheMode,
    /// How old data may be that reads are answered with, nanoseconds, where nobody says otherwise.
    pub max_staleness: Option<u64>,
    /// The same for these users, who log in so; 0 allows none.
    pub users_staleness: Box<[(Box<str>, u64)]>,
    /// How long answers are kept.
    pub lifetimes: Lifetimes,
    /// Roles with the same rights share answers.
    pub shares_answers: bool,
    /// Answers that policies choose the rows of are kept.
    pub scopes_row_security: bool,
    /// What the analysis finds is compared with what the primary makes of it.
    pub cross_checks: bool,
    /// Reads inside of transactions are answered as well.
    pub caches_in_transactions: bool,
    /// A plain BEGIN is held until its first statement says where it belongs.
    pub lazy_begin: bool,
    /// Writes that bypass the proxy are heard of.
    pub direct: Option<DirectSettings>,
    /// `connect_query` may have changed what names mean: nobody can say.
    pub has_own_names: bool,
    /// It may have changed how isolated transactions are.
    pub has_own_isolation: bool,
}

/// May this `connect_query` change what names mean? Whatever does more than to set something else may.
#[must_use]
pub fn may_change_names(connect_query: &str) -> bool {
    !only_sets(connect_query, |name| !changes_names(name))
}

/// The same of how isolated transactions are.
#[must_use]
pub fn may_change_isolation(connect_query: &str) -> bool {
    !only_sets(connect_query, |name| !["isolation", "characteristics"].iter().any(|word| name.contains(word)))
}

fn only_sets(connect_query: &str, is_harmless: impl Fn(&str) -> bool) -> bool {
    let statement = Analyzer::default().analyze(connect_query);
    let is_harmless = |part: &Part| match &part.kind {
        StatementKind::Set { name, .. } => is_harmless(name),
        StatementKind::Select => part.facts.calls.is_empty() && part.facts.reads.is_empty(),
        _ => false,
    };
    statement.parsed && statement.parts.iter().all(is_harmless)
}

impl DatabaseSettings {
    /// How old data may be that a user's reads are answered with, nanoseconds; `None`: as fresh as can be.
    #[must_use]
    pub fn max_staleness_of(&self, user: &str) -> Option<u64> {
        let own = self.users_staleness.iter().find(|(name, _)| **name == *user).map(|(_, bound)| *bound);
        own.or(self.max_staleness).filter(|bound| *bound > 0)
    }
}

/// A catalog snapshot and the epoch from which it is valid.
pub struct LoadedCatalog {
    /// What the database says about itself.
    pub snapshot: catalog::Snapshot,
    /// Taken before the load began.
    pub epoch: CatalogEpoch,
    /// Taken before the load began.
    pub fingerprint: u64,
    /// When the load had ended, nanoseconds on the process clock.
    pub loaded_at: u64,
}

/// One database.
pub struct Database {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Its settings.
    pub settings: DatabaseSettings,
    /// Names of the members, by id.
    pub member_names: Box<[Arc<str>]>,
    /// Members and their state.
    pub topology: Topology,
    /// Level one of the cache, if it is on.
    pub cache: Option<Arc<ResultCache>>,
    /// What stands for it where it only observes.
    pub observed: Option<Arc<ResultCache>>,
    /// What it shares with every other entry that leads to the same data.
    pub real: Arc<RealDatabase>,
    /// Its number among those entries.
    pub entry: u64,
    /// Stamps of its relations.
    pub cells: Arc<Cells>,
    /// Statements are put before the primary, too.
    pub cross_checks: Option<CrossChecks>,
    is_retired: AtomicBool,
    primary_changed: Notify,
    member_sampled: Notify,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Database {
    /// A database whose catalog nobody has read. A cache that observes answers nothing.
    #[must_use]
    pub fn new(
        name: Arc<str>,
        settings: DatabaseSettings,
        topology: Topology,
        member_names: Vec<Arc<str>>,
        cache: Option<Arc<ResultCache>>,
        real: Arc<RealDatabase>,
    ) -> Self {
        let (observed, cache) = match cache {
            Some(cache) if cache.observes() => (Some(cache), None),
            cache => (None, cache),
        };
        if cache.is_some() {
            real.begin_caching();
        }
        if observed.is_some() {
            real.begin_observing();
        }
        if settings.scopes_row_security && cache.is_some() {
            real.begin_keeping_rows();
        }
        if settings.direct.is_some() {
            real.direct.need();
        }
        let cross_checks = (cache.is_some() && settings.cross_checks).then(CrossChecks::default);
        Self {
            name,
            settings,
            member_names: member_names.into(),
            topology,
            cache,
            observed,
            entry: real.enter(),
            cells: Arc::clone(&real.cells),
            cross_checks,
            real,
            is_retired: AtomicBool::new(false),
            primary_changed: Notify::new(),
            member_sampled: Notify::new(),
        }
    }

    /// The configuration has changed: another one is served under its name, and nobody watches this one any more.
    pub fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
        self.primary_changed.notify_waiters();
        self.member_sampled.notify_waiters();
    }

    /// Is another one served under its name?
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Acquire)
    }

    /// The catalog has changed: statements are parsed anew, a new snapshot is wanted, and the one there is judges no
    /// more. A draw is a random number.
    pub fn catalog_changed(&self, draw: impl FnMut() -> u64) {
        self.real.catalog_changed(draw);
    }

    /// The catalog, once it is loaded.
    #[must_use]
    pub fn catalog(&self) -> Option<Arc<LoadedCatalog>> {
        self.real.catalog()
    }

    /// Waits until a catalog is there, or `at_most` so long.
    pub async fn wait_for_catalog(&self, at_most: Duration) {
        if !self.real.wait_for_catalog(at_most).await {
            tracing::info!(db = %self.name, "going on without a catalog");
        }
    }

    /// What a statement means now, without memo of the caller's.
    #[must_use]
    pub fn meaning(&self, statement: &Arc<Statement>, user: &str) -> Arc<Meaning> {
        match self.catalog().filter(|catalog| self.cells.is_in_force(catalog.epoch)) {
            Some(catalog) => {
                let meaning = catalog.snapshot.meaning(statement, user);
                let scoped = meaning.scoped.as_ref().filter(|scoped| scoped.settings.is_empty());
                match scoped.filter(|_| self.settings.scopes_row_security) {
                    Some(scoped) => Arc::clone(&scoped.meaning),
                    None => meaning,
                }
            }
            None => Arc::new(catalog::meaning_without_catalog(statement)),
        }
    }

    /// The member that takes writes; `None` while there is none, or nobody knows. Where there is one member only, it
    /// takes whatever comes.
    #[must_use]
    pub fn primary(&self) -> Option<MemberId> {
        self.topology.primary().or_else(|| self.topology.members().len().eq(&1).then_some(MemberId(0)))
    }

    /// Names the primary and wakes those who wait for one. Returns whether it was another.
    pub fn set_primary(&self, primary: Option<MemberId>) -> bool {
        let has_changed = self.topology.set_primary(primary);
        if has_changed {
            self.primary_changed.notify_waiters();
        }
        has_changed
    }

    /// Waits for a primary; `None` if another database has taken this one's place meanwhile. Cancel safe.
    pub async fn primary_known(&self) -> Option<MemberId> {
        loop {
            let changed = self.primary_changed.notified();
            tokio::pin!(changed);
            // From now on a change is not missed.
            changed.as_mut().enable();
            if let Some(primary) = self.primary() {
                return Some(primary);
            }
            if self.is_retired() {
                return None;
            }
            changed.await;
        }
    }

    /// A member has said how it is: who waits for one that can serve looks again.
    pub fn note_sampled(&self) {
        self.member_sampled.notify_waiters();
    }

    /// Waits for a member that can serve a read, at least until one has said how it is; false if another database has taken
    /// this one's place meanwhile. `now` is the clock. Cancel safe.
    pub async fn member_serves(&self, demand: &Demand, now: impl Fn() -> u64) -> bool {
        loop {
            let sampled = self.member_sampled.notified();
            tokio::pin!(sampled);
            // From now on nothing is missed.
            sampled.as_mut().enable();
            if self.is_retired() {
                return false;
            }
            sampled.await;
            if self.topology.serves(demand, now()) {
                return true;
            }
        }
    }

    /// What `found` finds, as soon as a sample lets it; `None` if another database has taken this one's place. Cancel safe.
    pub async fn sampled_until<T>(&self, found: impl Fn() -> Option<T>) -> Option<T> {
        loop {
            let sampled = self.member_sampled.notified();
            tokio::pin!(sampled);
            // From now on nothing is missed.
            sampled.as_mut().enable();
            let value = found();
            if value.is_some() || self.is_retired() {
                return value;
            }
            sampled.await;
        }
    }

    /// May another member become the primary, so that it is worth while to wait when this one cannot be reached?
    #[must_use]
    pub fn may_fail_over(&self) -> bool {
        self.settings.follows_primary && self.topology.members().len() > 1
    }

    /// A member's name.
    #[must_use]
    pub fn member_name(&self, member: MemberId) -> Option<&Arc<str>> {
        self.member_names.get(usize::from(member.0))
    }

    /// The member of that name.
    #[must_use]
    pub fn member_named(&self, name: &str) -> Option<MemberId> {
        self.member_names.iter().position(|known| **known == *name).map(|index| MemberId(index as u16))
    }

    /// Is the result cache on?
    #[must_use]
    pub fn caches(&self) -> bool {
        self.cache.is_some()
    }

    /// Does the cache only say what it would do?
    #[must_use]
    pub fn observes(&self) -> bool {
        self.observed.is_some()
    }

    /// What is published of writes that bypass the proxy, where they are heard of.
    #[must_use]
    pub fn publication(&self) -> Option<&str> {
        self.settings.direct.as_ref().map(|direct| &*direct.publication)
    }

    /// Why nothing is answered from the cache at `now`, if that is so.
    #[must_use]
    pub fn cache_closure(&self, now: u64) -> Option<Closure> {
        let untrusted = || (!self.cells.is_trusted_at(now)).then_some(Closure::Peers);
        let unheard = || (!self.cells.is_heard(now)).then_some(Closure::DirectWrites);
        self.cells.closure().or_else(untrusted).or_else(unheard)
    }

    /// Does a write have to void answers, whoever keeps them?
    #[must_use]
    pub fn voids(&self) -> bool {
        self.real.is_cached()
    }

    /// Does a write have to mark what it touches, be it only so that the figures of an observer are right?
    #[must_use]
    pub fn marks_writes(&self) -> bool {
        self.real.is_cached() || self.real.is_observed()
    }

    /// What a read that begins at `now` must not miss. `relations` are all that it reads, where that is known.
    #[must_use]
    pub fn read_fence(&self, session: Fence, relations: Option<&[RelationOid]>, now: u64) -> Fence {
        match self.settings.read_your_writes {
            ReadYourWrites::Off => Fence::NONE,
            ReadYourWrites::Session => session,
            // Other proxies do not wait for this one: what they have written a moment ago it may not have heard.
            ReadYourWrites::Database if !self.cells.is_trusted_at(now) => Fence::after(now),
            ReadYourWrites::Database if self.caches() || self.real.bus().is_some() => {
                session.and(self.cells.fence(relations))
            }
            ReadYourWrites::Database => session.and(self.real.fence.fence()),
        }
    }

    /// A write was acknowledged by the server at `now`; call before its client can learn of it.
    pub fn note_write(&self, now: u64) {
        self.real.fence.note_write(now);
    }

    /// Where a read goes.
    #[must_use]
    pub fn route(&self, demand: &Demand, now: u64) -> crate::routing::Choice {
        self.topology.choose(demand, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connect_query_is_trusted_with_names_only_if_it_sets_something_else() {
        for query in ["set statement_timeout = 0", "SET work_mem = '8MB'; set timezone = 'UTC'", "select 1", ""] {
            assert!(!may_change_names(query), "{query}");
        }
        for query in [
            "set search_path = a",
            "SET ROLE other",
            "set work_mem = '8MB'; set session authorization other",
            "select set_config('search_path', 'a', false)",
            "select * from settings",
            "do $$ begin end $$",
            "not sql",
        ] {
            assert!(may_change_names(query), "{query}");
        }
    }

    #[test]
    fn a_connect_query_is_trusted_with_isolation_only_if_it_sets_something_else() {
        for query in ["set statement_timeout = 0", "set search_path = a; set timezone = 'UTC'", "select 1", ""] {
            assert!(!may_change_isolation(query), "{query}");
        }
        for query in [
            "set default_transaction_isolation = serializable",
            "SET \"default_transaction_isolation\" TO 'repeatable read'",
            "set session characteristics as transaction isolation level repeatable read",
            "select set_config('default_transaction_isolation', 'serializable', false)",
            "set work_mem = '8MB'; update pg_settings set setting = 'serializable'",
            "not sql",
        ] {
            assert!(may_change_isolation(query), "{query}");
        }
    }
}
