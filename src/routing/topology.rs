//! The members of one database, and who serves the next read.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use super::{
    balance::{Candidate, Wheel},
    choice::{Choice, Demand, Freshness, RouteReason},
    member::{Health, Member, MemberId, MemberState},
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
}

/// All members of one database, with what is known of them.
#[derive(Debug)]
pub struct Topology {
    members: Box<[Member]>,
    limits: Limits,
    samples: Arc<PrimarySamples>,
    primary: Arc<AtomicU32>,
    wheel: Wheel,
}

impl Topology {
    /// Members nobody has probed; at most 128 of them take part in the rotation.
    pub fn new(members: Vec<Member>, limits: Limits, samples: PrimarySamples) -> Self {
        let wheel = Wheel::new(members.len());
        let primary = Arc::new(AtomicU32::new(NO_PRIMARY));
        Self { members: members.into(), limits, samples: Arc::new(samples), primary, wheel }
    }

    /// After a reload: other members or limits, the same primary and the same samples. The caller
    /// hands the state of a member that stays to its successor.
    #[must_use]
    pub fn reconfigured(&self, members: Vec<Member>, limits: Limits) -> Self {
        Self {
            wheel: Wheel::new(members.len()),
            members: members.into(),
            limits,
            samples: Arc::clone(&self.samples),
            primary: Arc::clone(&self.primary),
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
            candidates |= self.primary_bit();
        }
        let pick = self.pick(candidates, behind, demand, now);
        pick.unwrap_or_else(|| self.choose_primary(RouteReason::NotReplayed))
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

    /// The primary among the candidates, if it takes part.
    fn primary_bit(&self) -> u128 {
        let takes_part = |member: &Member| {
            self.primary() == Some(member.id) && member.weight > 0 && member.state.health() == Health::Up
        };
        self.members.iter().take(MAX_MEMBERS).position(takes_part).map_or(0, |index| 1 << index)
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
        if self.primary() == Some(member.id) {
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
