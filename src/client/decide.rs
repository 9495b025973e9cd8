//! Where a request may run: for the request itself, and for SHOW ROUTE. Pure.

use std::sync::Arc;

use super::{
    facts::{Boundary, Facts},
    session::OwnSettings,
};
use crate::{
    catalog::Meaning,
    cluster::{Database, LoadedCatalog},
    config::{ReadWriteSplit, ReadYourWrites},
    insight::{Route, WOULD_REPLICA},
    routing::{Behind, Demand, Fence, Freshness, MemberId, RouteReason},
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
    /// Of several members that take writes, the one that it was given last.
    pub home: Option<MemberId>,
}

/// The reason where no replica serves a read: one of several equal members does, by weight.
const EQUAL: &str = "equal";
/// The same, because its session is there already.
const HOME: &str = "home";

/// Who runs a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The primary, or one that takes writes as well ([`View::writer`]).
    Primary,
    /// A replica, on a connection that is older than this.
    Replica { member: MemberId, opened_before: u64 },
    /// A replica, once it has replayed that far (`wait_for_lsn_timeout`).
    Behind(Behind),
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
        home: None,
    };
    let mut facts = Facts::new();
    facts.execute(statement, meaning);
    if database.real.learned_writes.contains(statement.fingerprint) {
        facts.may_write("learned_write");
    }
    let Decision { place, reason } = view.decide(&facts, true, None, None, now);
    match place {
        Place::Primary => (Route::Primary, view.writer(None, now).or(database.primary()), reason),
        Place::Replica { member, .. } => (Route::Replica, Some(member), reason),
        Place::Behind(Behind { member, .. }) => (Route::Replica, Some(member), reason),
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
        // Replicas are measured by the primary, and what it wrote is elsewhere.
        if self.home().is_some_and(|home| topology.primary() != Some(home)) {
            return Decision { place: Place::Primary, reason: HOME };
        }
        let is_counted = self.database.settings.split == ReadWriteSplit::Log;
        let demand = Demand { avoid, ..self.demand(facts, filling, now) };
        let choice = self.database.route(&demand, now);
        match (choice.member, choice.reason) {
            (_, RouteReason::Replica) if is_counted => Decision { place: Place::Primary, reason: WOULD_REPLICA },
            (Some(member), RouteReason::Replica) => {
                let opened_before = choice.valid_for_connections_opened_before;
                Decision { place: Place::Replica { member, opened_before }, reason: facts.reason }
            }
            (_, reason) if !is_counted && reason > RouteReason::NotReplayed && topology.waits_for_replica() => {
                Decision { place: Place::Awaited, reason: reason.label() }
            }
            (_, RouteReason::NoReplica) if topology.has_equals() => {
                Decision { place: Place::Primary, reason: if self.home().is_some() { HOME } else { EQUAL } }
            }
            (_, RouteReason::NotReplayed) if !is_counted && facts.boundary == Boundary::None => {
                let behind = topology.choose_behind(&demand, now);
                Decision {
                    place: behind.map_or(Place::Primary, Place::Behind),
                    reason: RouteReason::NotReplayed.label(),
                }
            }
            (_, reason) => Decision { place: Place::Primary, reason: reason.label() },
        }
    }

    /// The member that runs what no replica does; none if none is known to be well. `avoid`: one that could not be reached.
    pub(super) fn writer(&self, avoid: Option<MemberId>, now: u64) -> Option<MemberId> {
        match self.database.topology.has_equals() {
            true => self.database.topology.choose_writer(self.home(), avoid, now),
            false => self.database.primary(),
        }
    }

    /// The member that its session stays with, while that takes writes, so as to see what it has written.
    pub(super) fn home(&self) -> Option<MemberId> {
        let stays = self.database.settings.read_your_writes != ReadYourWrites::Off;
        self.home.filter(|home| stays && self.database.topology.takes_writes(*home))
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
        if self.settings.need_primary() {
            return Some("session_settings");
        }
        if self.keeps_server {
            return Some("session_pooling");
        }
        if !is_whole || !matches!(facts.boundary, Boundary::None | Boundary::Begin { read_only: true }) {
            return Some("open_batch");
        }
        // Of writes that bypass the proxy nobody knows which replica has replayed them.
        if self.own.is_strict || facts.is_strict() {
            return Some("strict");
        }
        (self.route_hint(facts) == Some(RouteHint::Primary)).then_some("hint")
    }

    /// What it asks of a replica.
    pub(super) fn demand(&self, facts: &Facts, filling: Option<Fence>, now: u64) -> Demand {
        let relations = facts.meaning.as_ref().and_then(|meaning| meaning.cacheable.as_deref().ok());
        let fence = self.database.read_fence(self.fence, relations, now);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cache::{Cells, Lifetimes},
        cluster::{DatabaseSettings, RealDatabase},
        config::{CacheMode, PrimaryReads, ReadYourWrites},
        lsn::Lsn,
        routing::{Health, Limits, Member, MemberSet, PrimarySamples, Role, Sample, Topology},
    };

    const PRIMARY: MemberId = MemberId(0);
    const R1: MemberId = MemberId(1);
    const ON_REPLICA: (Place, &str) = (Place::Replica { member: R1, opened_before: 11 }, "read");

    /// A primary and a replica that has replayed up to 100, the position of time 10.
    fn database(split: ReadWriteSplit, primary_reads: PrimaryReads) -> Database {
        let topology = topology(primary_reads, &[PRIMARY, R1], Role::Replica);
        database_of(topology, split, ReadYourWrites::Session)
    }

    fn topology(primary_reads: PrimaryReads, members: &[MemberId], role: Role) -> Topology {
        let member = |id: &MemberId| Member {
            id: *id,
            name: format!("m{}", id.0).into(),
            weight: 1,
            max_lag: None,
            role: if *id == R1 { Role::Replica } else { role },
            state: Arc::default(),
        };
        let limits = Limits { max_lag: 100, sample_interval: 10, primary_reads, wait_for_lsn: 0 };
        let members = members.iter().map(member).collect();
        let topology = Topology::new(members, limits, PrimarySamples::new(8));
        for member in topology.members() {
            member.state.set_health(Health::Up);
            member.state.set_in_recovery(member.id == R1);
        }
        topology.set_primary(Some(PRIMARY));
        topology.note_primary_sample(PRIMARY, Sample { sent_at: 10, lsn: Lsn::new(100) });
        topology.note_replica_sample(R1, 11, 11, Lsn::new(100));
        topology
    }

    fn database_of(topology: Topology, split: ReadWriteSplit, read_your_writes: ReadYourWrites) -> Database {
        let settings = DatabaseSettings {
            split,
            read_your_writes,
            follows_primary: true,
            max_staleness: None,
            users_staleness: Box::default(),
            cache: CacheMode::Off,
            lifetimes: Lifetimes::new(0, "shop", &[]),
            shares_answers: false,
            scopes_row_security: false,
            cross_checks: false,
            caches_in_transactions: false,
            lazy_begin: false,
            direct: None,
            has_own_names: false,
            has_own_isolation: false,
        };
        let real = Arc::new(RealDatabase::new(Cells::new(1, 1), 1));
        let names = topology.members().iter().map(|member| (*member.name).into()).collect();
        Database::new("shop".into(), settings, topology, names, None, real)
    }

    type Change = fn(&mut Case);

    /// A session and its request: a read that is whole, of a session that has done nothing yet.
    struct Case {
        facts: Facts,
        is_whole: bool,
        settings: SessionSettings,
        own: OwnSettings,
        max_staleness: Option<u64>,
        keeps_server: bool,
        fence: Fence,
        home: Option<MemberId>,
    }

    fn decide(database: &Database, change: impl FnOnce(&mut Case)) -> (Place, &'static str) {
        let (place, reason, _) = decide_with_writer(database, change);
        (place, reason)
    }

    /// Also says who serves what no replica does.
    fn decide_with_writer(
        database: &Database,
        change: impl FnOnce(&mut Case),
    ) -> (Place, &'static str, Option<MemberId>) {
        let mut case = Case {
            facts: Facts { reason: "read", ..Facts::new() },
            is_whole: true,
            settings: SessionSettings::default(),
            own: OwnSettings::default(),
            max_staleness: None,
            keeps_server: false,
            fence: Fence::NONE,
            home: None,
        };
        change(&mut case);
        let view = View {
            database,
            catalog: None,
            user: "app",
            settings: &case.settings,
            own: &case.own,
            max_staleness: case.max_staleness,
            keeps_server: case.keeps_server,
            fence: case.fence,
            home: case.home,
        };
        let Decision { place, reason } = view.decide(&case.facts, case.is_whole, None, None, 15);
        (place, reason, view.writer(None, 15))
    }

    #[test]
    fn a_session_of_equal_members_stays_with_one_and_reads_from_replicas_of_the_primary_alone() {
        const OTHER: MemberId = MemberId(2);
        let equals = |read_your_writes| {
            let topology = topology(PrimaryReads::Fallback, &[PRIMARY, R1, OTHER], Role::Any);
            topology.set_equals(MemberSet::default().with(OTHER));
            database_of(topology, ReadWriteSplit::On, read_your_writes)
        };
        let write = |case: &mut Case| (case.facts.needs_primary, case.facts.reason) = (true, "write");
        let database = equals(ReadYourWrites::Session);
        assert_eq!(decide(&database, |_| {}), ON_REPLICA);
        assert_eq!(decide(&database, |case| case.home = Some(PRIMARY)), ON_REPLICA);
        for _ in 0..3 {
            let read = decide_with_writer(&database, |case| case.home = Some(OTHER));
            assert_eq!(read, (Place::Primary, HOME, Some(OTHER)));
        }
        let mut writers: Vec<_> = (0..4).map(|_| decide_with_writer(&database, write)).collect();
        writers.sort_by_key(|(.., writer)| *writer);
        let runs_on = |member| (Place::Primary, "write", Some(member));
        assert_eq!(writers, [runs_on(PRIMARY), runs_on(PRIMARY), runs_on(OTHER), runs_on(OTHER)]);
        database.topology.members()[1].state.set_in_recovery(false);
        assert_eq!(decide(&database, |_| {}), (Place::Primary, EQUAL));
        assert_eq!(decide(&database, |case| case.home = Some(PRIMARY)), (Place::Primary, HOME));
        database.topology.members()[2].state.set_health(Health::Down);
        assert_eq!(decide_with_writer(&database, |case| case.home = Some(OTHER)).2, Some(PRIMARY), "until it fails");
        database.topology.set_equals(MemberSet::default());
        assert_eq!(decide(&database, |case| case.home = Some(OTHER)), (Place::Primary, EQUAL), "or writes no more");
        let database = equals(ReadYourWrites::Off);
        assert_eq!(decide(&database, |case| case.home = Some(OTHER)), ON_REPLICA, "nobody asks for that");
    }

    #[test]
    fn what_a_replica_must_not_run_runs_on_the_primary() {
        let database = database(ReadWriteSplit::On, PrimaryReads::Never);
        assert_eq!(decide(&database, |_| {}), ON_REPLICA);
        assert_eq!(decide(&database, |case| case.facts.boundary = Boundary::Begin { read_only: true }), ON_REPLICA);
        let cases: [(Change, &str); 7] = [
            (|case| case.own.is_strict = true, "strict"),
            (|case| (case.facts.needs_primary, case.facts.reason) = (true, "write"), "write"),
            (|case| case.own.route = Some(RouteHint::Primary), "hint"),
            (|case| case.keeps_server = true, "session_pooling"),
            (|case| case.is_whole = false, "open_batch"),
            (|case| case.facts.boundary = Boundary::Begin { read_only: false }, "open_batch"),
            (|case| case.settings = SessionSettings::new([("role", "other")]), "session_settings"),
        ];
        for (change, reason) in cases {
            assert_eq!(decide(&database, change), (Place::Primary, reason));
        }
        let with_path = |case: &mut Case| case.settings = SessionSettings::new([("search_path", "private")]);
        assert_eq!(decide(&database, with_path), ON_REPLICA);
    }

    #[test]
    fn a_read_is_as_fresh_as_session_user_and_database_ask() {
        let database = database(ReadWriteSplit::On, PrimaryReads::Fallback);
        let unresolved = (Place::Primary, "fence_unresolved");
        let cases: [(Change, (Place, &str)); 6] = [
            (|_| {}, unresolved),
            (|case| case.max_staleness = Some(50), ON_REPLICA),
            (|case| case.own.max_staleness = Some(50), ON_REPLICA),
            (|case| (case.own.max_staleness, case.max_staleness) = (Some(0), Some(50)), unresolved),
            (
                |case| (case.own.max_staleness, case.max_staleness) = (Some(2), Some(50)),
                (Place::Primary, "replica_lagging"),
            ),
            (
                |case| (case.own.min_lsn, case.max_staleness) = (Lsn::new(101), Some(50)),
                (Place::Primary, "not_replayed"),
            ),
        ];
        for (change, expected) in cases {
            let decided = decide(&database, |case| {
                case.fence = Fence::after(14);
                change(case);
            });
            assert_eq!(decided, expected);
        }
    }

    #[test]
    fn a_read_that_must_see_what_other_proxies_wrote_needs_the_primary_while_they_do_not_wait_for_this_one() {
        for (read_your_writes, expected) in [
            (ReadYourWrites::Off, ON_REPLICA),
            (ReadYourWrites::Session, ON_REPLICA),
            (ReadYourWrites::Database, (Place::Primary, "fence_unresolved")),
        ] {
            let topology = topology(PrimaryReads::Fallback, &[PRIMARY, R1], Role::Replica);
            let database = database_of(topology, ReadWriteSplit::On, read_your_writes);
            database.cells.trust_until(16);
            assert_eq!(decide(&database, |_| {}), ON_REPLICA);
            database.cells.trust_until(15);
            assert_eq!(decide(&database, |_| {}), expected, "{read_your_writes:?}");
        }
    }

    #[test]
    fn what_no_replica_can_serve_waits_only_where_the_primary_shall_serve_none() {
        let down = "replica_down";
        for (split, primary_reads, expected) in [
            (ReadWriteSplit::On, PrimaryReads::Fallback, (Place::Primary, down)),
            (ReadWriteSplit::On, PrimaryReads::Always, (Place::Primary, down)),
            (ReadWriteSplit::On, PrimaryReads::Never, (Place::Awaited, down)),
            (ReadWriteSplit::Log, PrimaryReads::Never, (Place::Primary, down)),
            (ReadWriteSplit::Off, PrimaryReads::Never, (Place::Primary, "split_off")),
        ] {
            let database = database(split, primary_reads);
            database.topology.members().iter().for_each(|member| member.state.set_health(Health::Down));
            assert_eq!(decide(&database, |_| {}), expected, "{split:?} {primary_reads:?}");
        }
        let database = database(ReadWriteSplit::On, PrimaryReads::Never);
        let behind = decide(&database, |case| case.fence = Fence::after(14));
        assert_eq!(behind, (Place::Primary, "fence_unresolved"), "what no replica has yet");
    }

    #[test]
    fn while_it_is_tried_out_everything_runs_on_the_primary() {
        let database = database(ReadWriteSplit::Log, PrimaryReads::Fallback);
        assert_eq!(decide(&database, |_| {}), (Place::Primary, WOULD_REPLICA));
        assert_eq!(decide(&database, |case| case.keeps_server = true), (Place::Primary, "session_pooling"));
        assert_eq!(decide(&database, |case| case.fence = Fence::after(14)), (Place::Primary, "fence_unresolved"));
    }
}
