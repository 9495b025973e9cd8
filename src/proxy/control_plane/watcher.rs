//! What becomes of samples of the members: health, roles, fences, and who is the primary.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{Ordering, fence},
};

use super::forget_primary;
use crate::{
    cache::invalidation::Closure,
    client::{Activity, ClientInfo, Clients},
    clock::Clock,
    cluster::{
        Database,
        health::State,
        in_doubt::InDoubt,
        members::{Change, Members},
        monitor::{Sample, SampleSink},
        roles::{History, Verdict},
    },
    control::FailureKind,
    pool::{Pool, Pools},
    routing::{self, Health, MemberId},
    telemetry::metrics::{SharedMetrics, families},
};

/// As routing sees it. One that was asked for the first time a moment ago is not down.
fn health_of(members: &Members, member: MemberId) -> Health {
    match members.state(member) {
        State::Unknown => Health::Unknown,
        _ if members.serves(member) => Health::Up,
        _ => Health::Down,
    }
}

/// Where samples go.
pub(super) struct Watcher {
    pub(super) database: Arc<Database>,
    pub(super) members: Mutex<Members>,
    pub(super) history: Mutex<History>,
    pub(super) in_doubt: Arc<InDoubt>,
    pub(super) pools: Arc<Pools>,
    pub(super) clients: Arc<Clients>,
    pub(super) clock: Clock,
    pub(super) metrics: SharedMetrics,
}

impl Watcher {
    fn apply(&self, member: MemberId, change: Change, health: Health) {
        if let Some(found) = self.database.topology.member(member) {
            found.state.set_health(health);
        }
        let name = self.database.member_name(member);
        if let Some(transition) = change.health {
            tracing::warn!(?name, from = transition.from.label(), to = transition.to.label(), "member changed");
            match transition.to {
                State::Down(_) => self.nudge_readers(),
                State::Up => {
                    if let (State::HalfOpen | State::Down(_), Some(found)) =
                        (transition.from, self.database.topology.member(member))
                    {
                        found.state.came_back(self.clock.now());
                    }
                    self.pools_of(member).iter().for_each(|pool| pool.may_open());
                }
                State::Unknown | State::HalfOpen => {}
            }
        }
        if let Some(verdict) = change.roles {
            let primary = verdict.primary.and_then(|primary| self.database.member_name(primary));
            let reason = verdict.reason.label();
            if verdict.has_rivals {
                tracing::error!(?primary, reason, "another member takes writes as well: it is given none");
            }
            self.admit(verdict);
            if self.follow(verdict.primary) {
                self.metrics.counter(&families::ROLE_CHANGES, &[("database", &*self.database.name)]).increment();
                tracing::warn!(?primary, reason, "primary changed");
            }
        }
        if change.health.is_some() && self.database.topology.has_equals() {
            self.send_on();
        }
    }

    /// Another primary: nothing that was known of the old one counts any more, and nobody goes on with it. Returns
    /// whether it is another.
    pub(super) fn follow(&self, primary: Option<MemberId>) -> bool {
        let before = self.database.topology.primary();
        if !self.database.set_primary(primary) {
            return false;
        }
        self.history().moves();
        forget_primary(&self.database, self.clock.now());
        if primary.is_some() {
            self.database.cells.reopen(Closure::Primary, self.clock.now(), crate::client::random);
        }
        if let Some(before) = before {
            if !self.database.topology.takes_writes(before) {
                self.depose(before);
            }
            self.in_doubt.abandon(before);
        }
        true
    }

    /// These take writes beside the primary; nobody goes on with one that did and does so no more.
    pub(super) fn admit(&self, verdict: Verdict) {
        let topology = &self.database.topology;
        let before = topology.set_equals(verdict.equals);
        let gone = topology.members().iter().filter(|member| before.contains(member.id));
        gone.filter(|member| !verdict.takes_writes(member.id)).for_each(|member| self.depose(member.id));
    }

    /// Who waits for a member that is down looks again whether another one is well.
    fn send_on(&self) {
        let members = self.database.topology.members().iter();
        for member in members.filter(|member| member.state.health() == Health::Down) {
            self.pools_of(member.id).iter().for_each(|pool| pool.send_on());
        }
    }

    /// Whoever holds a connection to `member`, or waits for one, learns that it is the primary no longer.
    fn depose(&self, member: MemberId) {
        for pool in self.pools_of(member) {
            for holder in pool.depose() {
                if let Some(client) = self.clients.get(&holder) {
                    client.nudge();
                }
            }
        }
    }

    fn pools_of(&self, member: MemberId) -> Vec<Arc<Pool>> {
        let Some(name) = self.database.member_name(member) else { return Vec::new() };
        let is_its = |pool: &Arc<Pool>| pool.key().database == self.database.name && pool.key().member == *name;
        self.pools.all().into_iter().filter(is_its).collect()
    }

    /// A member is down: whoever waits for it, or for an answer of it, looks for another one.
    fn nudge_readers(&self) {
        // Who has just been given a connection to it looks at its health behind that.
        fence(Ordering::SeqCst);
        let is_concerned =
            |client: &ClientInfo| *client.database == *self.database.name && client.activity() != Activity::Idle;
        self.clients.iter().filter(|client| is_concerned(client)).for_each(|client| client.nudge());
    }

    pub(super) fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SampleSink for Watcher {
    fn sampled(&self, member: MemberId, sample: Sample) {
        let topology = &self.database.topology;
        if let Some(found) = topology.member(member) {
            found.state.set_in_recovery(sample.in_recovery);
        }
        let (change, health, verdict) = {
            let mut members = self.members();
            let change = members.sampled(member, sample.in_recovery, sample.lineage());
            (change, health_of(&members, member), members.verdict())
        };
        let is_split_off = match sample.in_recovery {
            true => self.history().leaves_out(sample.lineage()),
            false => verdict.has_rivals && !verdict.takes_writes(member),
        };
        self.apply(member, change, if is_split_off { Health::SplitOff } else { health });
        if is_split_off {
            return;
        }
        let sent_at = sample.sent_at.max(1);
        if sample.in_recovery {
            topology.note_replica_sample(member, sent_at, sample.received_at, sample.lsn);
            if let Some(found) = topology.member(member) {
                found.state.note_settled(self.database.real.defaults_since(), self.clock.now());
            }
        } else {
            if topology.primary() == Some(member) {
                self.history().continues(sample.lineage());
            }
            let is_in_order = topology.note_primary_sample(member, routing::Sample { sent_at, lsn: sample.lsn });
            if !is_in_order {
                topology.forget_samples();
            }
        }
        self.database.note_sampled();
    }

    fn failed(&self, member: MemberId, kind: FailureKind) {
        let name = self.database.member_name(member).map_or("", |name| &**name);
        let labels = [("database", &*self.database.name), ("member", name)];
        self.metrics.counter(&families::PROBE_ERRORS, &labels).increment();
        let (change, health) = {
            let mut members = self.members();
            (members.failed(member, kind), health_of(&members, member))
        };
        self.apply(member, change, health);
    }
}
