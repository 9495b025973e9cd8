//! The members of one database, and who serves the next read.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use super::{
    balance::{Candidate, Wheel},
    choice::{Choice, Demand, Freshness, RouteReason},
    fence::Watermark,
    member::{Health, Member, MemberId, MemberSet, MemberState, Role},
    samples::{PrimarySamples, RingGuard, Sample},
};
use crate::{config::PrimaryReads, lsn::Lsn};

/// Primary samples are too old to tell a lag when this many intervals passed without one.
const INTERVALS_UNTIL_LAG_IS_UNKNOWN: u64 = 3;
/// A replica that has answered nobody for so long, nanoseconds, and for as many intervals, is not given reads: it may hang.
const LONGEST_SILENCE: u64 = 1_000_000_000;
const NO_PRIMARY: u32 = u32::MAX;
/// A set of candidates is one word.
const MAX_MEMBERS: usize = 128;

/// The settings that decide about freshness, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A replica further behind serves nothing (`max_replica_lag`).
    pub max_lag: u64,
    /// How often members are sampled (`lag_check_interval`).
    pub sample_interval: u64,
    /// Which reads the primary serves (`primary_reads`).
    pub primary_reads: PrimaryReads,
    /// How long a replica is waited for that is behind (`wait_for_lsn_timeout`); 0: not at all.
    pub wait_for_lsn: u64,
}

/// A replica that lacks nothing but what a read must see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behind {
    /// Who.
    pub member: MemberId,
    /// What it must have replayed.
    pub position: Lsn,
    /// What is known of it holds for connections older than this.
    pub opened_before: u64,
}

/// All members of one database, with what is known of them.
#[derive(Debug)]
pub struct Topology {
    members: Box<[Member]>,
    limits: Limits,
    samples: Arc<PrimarySamples>,
    primary: Arc<AtomicU32>,
    wheel: Wheel,
    /// The same for those that take writes.
    writers: Wheel,
    /// More than one may take writes at the same time.
    has_equals: bool,
}

impl Topology {
    /// Members nobody has probed; at most 128 of them take part in the rotation.
    pub fn new(members: Vec<Member>, limits: Limits, samples: PrimarySamples) -> Self {
        Self::of(members, limits, Arc::new(samples), Arc::new(AtomicU32::new(NO_PRIMARY)))
    }

    /// After a reload: other members or limits, the same primary and the same samples. The caller
    /// hands the state of a member that stays to its successor.
    #[must_use]
    pub fn reconfigured(&self, members: Vec<Member>, limits: Limits) -> Self {
        Self::of(members, limits, Arc::clone(&self.samples), Arc::clone(&self.primary))
    }

    fn of(members: Vec<Member>, limits: Limits, samples: Arc<PrimarySamples>, primary: Arc<AtomicU32>) -> Self {
        Self {
            wheel: Wheel::new(members.len()),
            writers: Wheel::new(members.len()),
            has_equals: members.iter().filter(|member| member.role == Role::Any).count() > 1,
            members: members.into(),
            limits,
            samples,
            primary,
        }
    }

    /// Every member, in the order of the configuration.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The member of that id.
    pub fn member(&self, id: MemberId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// The samples that resolve fences.
    pub fn samples(&self) -> &PrimarySamples {
        &self.samples
    }

    /// The member that takes writes, once it is known.
    pub fn primary(&self) -> Option<MemberId> {
        u16::try_from(self.primary.load(Ordering::Acquire)).ok().map(MemberId)
    }

    /// Names the primary; `None` while nobody knows.
    ///
    /// With another primary every sample and every comparison with it is dropped, so replicas serve
    /// nothing fenced until they replayed a sample of the new one. Returns whether it was another.
    pub fn set_primary(&self, primary: Option<MemberId>) -> bool {
        let value = primary.map_or(NO_PRIMARY, |id| u32::from(id.0));
        let mut ring = self.samples.write();
        if self.primary.swap(value, Ordering::AcqRel) == value {
            return false;
        }
        self.forget(&mut ring);
        true
    }

    /// Another timeline of the same primary (a restart of it, a restore): positions start over.
    pub fn forget_samples(&self) {
        let mut ring = self.samples.write();
        self.forget(&mut ring);
    }

    /// Are there members that the configuration calls equal (`role = any`)?
    pub fn has_equals(&self) -> bool {
        self.has_equals
    }

    /// Those that take writes beside the primary.
    pub fn equals(&self) -> MemberSet {
        let equals = self.members.iter().filter(|member| self.has_equals && member.state.is_equal());
        equals.fold(MemberSet::default(), |set, member| set.with(member.id))
    }

    /// Names them; returns those that were until now.
    pub fn set_equals(&self, equals: MemberSet) -> MemberSet {
        let before = self.members.iter().filter(|member| member.state.set_equal(equals.contains(member.id)));
        before.fold(MemberSet::default(), |set, member| set.with(member.id))
    }

    /// The primary, or one that takes writes beside it?
    pub fn takes_writes(&self, id: MemberId) -> bool {
        let is_equal = || self.member(id).is_some_and(|member| member.state.is_equal());
        self.primary() == Some(id) || (self.has_equals && is_equal())
    }

    /// Who of those that take writes is given the next one, by weight: `home` where that is well, else another one than
    /// `avoid`. None if none is well.
    pub fn choose_writer(&self, home: Option<MemberId>, avoid: Option<MemberId>, now: u64) -> Option<MemberId> {
        let may = |member: &Member| {
            let is_well = member.state.health() != Health::Down && !member.state.is_banned(now);
            is_well && Some(member.id) != avoid && self.takes_writes(member.id)
        };
        if let Some(home) = home.and_then(|home| self.member(home)).filter(|home| may(home)) {
            return Some(home.id);
        }
        let members = self.members.iter().enumerate().filter(|(_, member)| member.weight > 0 && may(member));
        let of = |(index, member): (usize, &Member)| Candidate {
            index,
            weight: member.weight_at(now),
            in_flight: member.state.in_flight(),
            is_fresh: true,
        };
        self.writers.pick(members.map(of)).and_then(|index| self.members.get(index)).map(|member| member.id)
    }

    /// The primary answered; an answer of a member that is not the primary any more is ignored.
    /// `false`: the position went backwards, which [`Self::forget_samples`] must follow.
    pub fn note_primary_sample(&self, from: MemberId, sample: Sample) -> bool {
        let mut ring = self.samples.write();
        if self.primary() != Some(from) {
            return true;
        }
        let is_in_order = ring.push(sample);
        for member in &self.members {
            member.state.note_primary_at(sample.sent_at, sample.lsn);
            if member.state.sampled_at() != 0 {
                compare(&ring, &member.state, member.state.sampled_at());
            }
        }
        is_in_order
    }

    /// A replica answered at `answered_at` a query sent at `sent_at` with the position it has replayed.
    pub fn note_replica_sample(&self, id: MemberId, sent_at: u64, answered_at: u64, replayed: Lsn) {
        let ring = self.samples.write();
        if let Some(member) = self.member(id) {
            member.state.note_replayed(replayed, answered_at);
            compare(&ring, &member.state, sent_at);
        }
    }

    /// Age of the oldest primary sample this member has not replayed; `None` when it cannot be told.
    pub fn lag(&self, id: MemberId, now: u64) -> Option<u64> {
        let lag = self.member(id)?.state.lag(now)?;
        (self.sample_age(now) <= self.oldest_usable_sample()).then_some(lag)
    }

    /// Where a read goes.
    pub fn choose(&self, demand: &Demand, now: u64) -> Choice {
        let sample_age = self.sample_age(now);
        let mut candidates = 0u128;
        // They will be fresh in a moment.
        let mut behind = 0u128;
        let mut nearest = RouteReason::NoReplica;
        for (index, member) in self.members.iter().enumerate().take(MAX_MEMBERS) {
            match self.fitness(member, demand, sample_age, now) {
                RouteReason::Replica => candidates |= 1 << index,
                unfit => {
                    behind |= u128::from(unfit.is_behind()) << index;
                    nearest = nearest.min(unfit);
                }
            }
        }
        if candidates == 0 {
            return self.choose_primary(nearest);
        }
        if self.limits.primary_reads == PrimaryReads::Always && demand.freshness != Freshness::Any {
            candidates |= self.writer_bits();
        }
        let pick = self.pick(candidates, behind, demand, now);
        pick.unwrap_or_else(|| self.choose_primary(RouteReason::NotReplayed))
    }

    /// Where a read can wait that no replica serves because none has replayed what it must see: on the one that is nearest.
    pub fn choose_behind(&self, demand: &Demand, now: u64) -> Option<Behind> {
        if self.limits.wait_for_lsn == 0 || demand.freshness != Freshness::Fenced {
            return None;
        }
        let Watermark::Known(fence) = self.samples.resolve(demand.fence) else { return None };
        let sample_age = self.sample_age(now);
        let is_behind = |member: &&Member| self.fitness(member, demand, sample_age, now) == RouteReason::NotReplayed;
        let nearest = self.members.iter().filter(is_behind).max_by_key(|member| member.state.replayed())?;
        let opened_before = nearest.state.sampled_at();
        Some(Behind { member: nearest.id, position: fence.max(demand.min_lsn), opened_before })
    }

    /// Does a connection to this member that was opened at `opened` still show what is asked of it?
    pub fn shows(&self, member: MemberId, opened: u64, demand: &Demand, now: u64) -> bool {
        let Some(Member { state, .. }) = self.member(member) else { return false };
        // Read before what the sample says.
        let is_known = opened < state.sampled_at();
        match demand.freshness {
            Freshness::Any => true,
            Freshness::Fenced if demand.fence.is_none() && demand.min_lsn <= Lsn::default() => true,
            Freshness::Fenced => is_known && covers(state, demand),
            Freshness::Within(staleness) => is_known && is_within(state, staleness, now) && has_replayed(state, demand),
        }
    }

    /// How long a read waits there, nanoseconds.
    pub fn wait_for_lsn(&self) -> u64 {
        self.limits.wait_for_lsn
    }

    /// Would a read find a replica, or be one that the primary serves whatever `primary_reads` says?
    pub fn serves(&self, demand: &Demand, now: u64) -> bool {
        let sample_age = self.sample_age(now);
        let serves = |member| match self.fitness(member, demand, sample_age, now) {
            RouteReason::Replica => true,
            unfit => unfit.is_behind(),
        };
        !self.waits_for_replica() || self.members.iter().take(MAX_MEMBERS).any(serves)
    }

    /// Do reads that no replica can serve at the moment wait for one?
    pub fn waits_for_replica(&self) -> bool {
        let is_replica = |member: &Member| member.weight > 0 && self.primary() != Some(member.id);
        self.limits.primary_reads == PrimaryReads::Never && self.members.iter().any(is_replica)
    }

    /// The primary, and those that take writes beside it, as far as they take part.
    fn writer_bits(&self) -> u128 {
        let takes_part = |(_, member): &(usize, &Member)| {
            member.weight > 0 && member.state.health() == Health::Up && self.takes_writes(member.id)
        };
        let members = self.members.iter().enumerate().take(MAX_MEMBERS);
        members.filter(takes_part).fold(0, |bits, (index, _)| bits | 1 << index)
    }

    fn pick(&self, candidates: u128, behind: u128, demand: &Demand, now: u64) -> Option<Choice> {
        let of = |(index, member): (usize, &Member)| Candidate {
            index,
            weight: member.weight_at(now),
            in_flight: member.state.in_flight(),
            is_fresh: candidates >> index & 1 == 1,
        };
        let is_candidate = |(index, _): &(usize, &Member)| (candidates | behind) >> index & 1 == 1;
        if (candidates | behind).is_power_of_two() {
            return self.still_fit(self.members.get(candidates.trailing_zeros() as usize)?, demand, now);
        }
        let members = self.members.iter().enumerate().take(MAX_MEMBERS);
        let member = self.members.get(self.wheel.pick(members.filter(is_candidate).map(of))?)?;
        self.still_fit(member, demand, now)
    }

    /// The age of a sample that a choice may rest on is read before what the sample says.
    fn still_fit(&self, member: &Member, demand: &Demand, now: u64) -> Option<Choice> {
        if self.takes_writes(member.id) {
            return Some(self.choose_primary(RouteReason::PrimaryShare));
        }
        let sampled_at = member.state.sampled_at();
        let is_fresh = match demand.freshness {
            Freshness::Fenced => covers(&member.state, demand),
            Freshness::Within(staleness) => {
                is_within(&member.state, staleness, now) && has_replayed(&member.state, demand)
            }
            Freshness::Any => true,
        };
        is_fresh.then_some(Choice {
            member: Some(member.id),
            reason: RouteReason::Replica,
            valid_for_connections_opened_before: match demand.freshness {
                Freshness::Any => u64::MAX,
                Freshness::Fenced | Freshness::Within(_) => sampled_at,
            },
        })
    }

    fn choose_primary(&self, reason: RouteReason) -> Choice {
        Choice { member: self.primary(), reason, valid_for_connections_opened_before: u64::MAX }
    }

    /// [`RouteReason::Replica`], or what keeps this member from serving.
    fn fitness(&self, member: &Member, demand: &Demand, sample_age: u64, now: u64) -> RouteReason {
        let state = &member.state;
        let is_replica = state.in_recovery() == Some(true) && self.primary() != Some(member.id);
        if !is_replica || member.weight == 0 || demand.avoid == Some(member.id) {
            return RouteReason::NoReplica;
        }
        match state.health() {
            Health::Up if state.is_banned(now) => RouteReason::ReplicaBanned,
            Health::Up => self.freshness(member, demand, sample_age, now),
            Health::SplitOff => RouteReason::SplitOff,
            Health::Down | Health::Unknown => RouteReason::ReplicaDown,
        }
    }

    fn freshness(&self, member: &Member, demand: &Demand, sample_age: u64, now: u64) -> RouteReason {
        let state = &member.state;
        let is_silent = now.saturating_sub(state.sampled_at()) > self.oldest_usable_sample().max(LONGEST_SILENCE);
        let max_lag = match demand.freshness {
            Freshness::Any => return RouteReason::Replica,
            _ if is_silent => return RouteReason::LagUnknown,
            Freshness::Within(staleness) if is_within(state, staleness, now) => {
                return if has_replayed(state, demand) { RouteReason::Replica } else { RouteReason::NotReplayed };
            }
            Freshness::Within(_) if state.lag(now).is_none() => return RouteReason::LagUnknown,
            Freshness::Within(_) => return RouteReason::ReplicaLagging,
            Freshness::Fenced => member.max_lag.unwrap_or(self.limits.max_lag),
        };
        // While the primary is silent nobody knows what it has written meanwhile: then as much is missing as may be.
        let lag = match sample_age <= self.oldest_usable_sample() {
            true => state.lag(now),
            false => state.age(now).filter(|age| *age <= max_lag),
        };
        match lag {
            None => RouteReason::LagUnknown,
            Some(lag) if lag > max_lag => RouteReason::ReplicaLagging,
            Some(_) if covers(state, demand) => RouteReason::Replica,
            Some(_) if self.samples.newest_sent_at() > Some(demand.fence.written_at()) => RouteReason::NotReplayed,
            Some(_) => RouteReason::FenceUnresolved,
        }
    }

    /// Nanoseconds since the newest primary sample was sent; no sample is older than any limit.
    fn sample_age(&self, now: u64) -> u64 {
        self.samples.newest_sent_at().map_or(u64::MAX, |sent_at| now.saturating_sub(sent_at))
    }

    fn oldest_usable_sample(&self) -> u64 {
        self.limits.sample_interval.saturating_mul(INTERVALS_UNTIL_LAG_IS_UNKNOWN)
    }

    fn forget(&self, ring: &mut RingGuard<'_>) {
        ring.clear();
        for member in &self.members {
            member.state.forget_history();
        }
    }
}

fn covers(state: &MemberState, demand: &Demand) -> bool {
    (demand.fence.is_none() || state.covers() > demand.fence.written_at()) && has_replayed(state, demand)
}

fn has_replayed(state: &MemberState, demand: &Demand) -> bool {
    demand.min_lsn <= Lsn::default() || demand.min_lsn <= state.replayed()
}

/// Is nothing missing on it that was committed longer ago?
fn is_within(state: &MemberState, staleness: u64, now: u64) -> bool {
    state.age(now).is_some_and(|age| age <= staleness)
}

/// Derives a member's freshness from the ring, which the caller holds still.
fn compare(ring: &RingGuard<'_>, state: &MemberState, sampled_at: u64) {
    if state.is_ahead() {
        // It replays another history, whatever it says: its position means nothing here.
        return state.forget_freshness();
    }
    let (covered, missing) = ring.around(state.replayed());
    let covers = covered.map_or(0, |sample| sample.sent_at);
    state.note_freshness(covers, missing.map(|sample| sample.sent_at), sampled_at);
}

#[cfg(test)]
mod tests;
