//! One host of a cluster: what the configuration says of it, and what is known of it right now.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
};

use super::ban::Ban;
use crate::lsn::Lsn;

/// A member's place in its cluster; stable while the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u16);

/// Members, by their number; those beyond the 128th are in no set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberSet(u128);

impl MemberSet {
    fn bit(member: MemberId) -> u128 {
        1u128.checked_shl(member.0.into()).unwrap_or(0)
    }

    /// These and `member`.
    #[must_use]
    pub fn with(self, member: MemberId) -> Self {
        Self(self.0 | Self::bit(member))
    }

    /// These but for `member`.
    #[must_use]
    pub fn without(self, member: MemberId) -> Self {
        Self(self.0 & !Self::bit(member))
    }

    /// Is it one of them?
    #[must_use]
    pub fn contains(self, member: MemberId) -> bool {
        self.0 & Self::bit(member) != 0
    }
}

/// Which part a member may play.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It serves reads while it is in recovery; promoted, it is the primary.
    Replica,
    /// One of several clusters that are equal: it takes writes when it is not in recovery, and is a replica when it is.
    Any,
}

/// One host as configured, with its gauges.
#[derive(Clone, Debug)]
pub struct Member {
    /// How pools and metrics refer to it.
    pub id: MemberId,
    /// The name in the configuration, `r1` of `shop.r1`.
    pub name: Box<str>,
    /// Share of the reads; 0 takes it out of rotation.
    pub weight: u32,
    /// Nanoseconds it may be behind, where it differs from the cluster's limit.
    pub max_lag: Option<u64>,
    /// Which part it may play.
    pub role: Role,
    /// Shared with the member of the same name after a reload.
    pub state: Arc<MemberState>,
}

/// A member that has come back is given its weight in so many steps.
const STEPS: u32 = 10;
/// Each of them lasts so long, nanoseconds.
const STEP: u64 = 1_000_000_000;

impl Member {
    /// Its share of the reads in tenths of weight, less while it has just come back: its caches are cold.
    pub(super) fn weight_at(&self, now: u64) -> u32 {
        let steps = match self.state.back_since.load(Ordering::Relaxed) {
            0 => STEPS,
            since => u32::try_from(now.saturating_sub(since) / STEP).map_or(STEPS, |whole| (whole + 1).min(STEPS)),
        };
        self.weight.saturating_mul(steps)
    }
}

/// What the probes say of a member's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Health {
    /// Not probed yet.
    Unknown = 0,
    /// Its last probe was answered.
    Up = 1,
    /// It refuses connections or fails its probes.
    Down = 2,
    /// It answers, but follows another primary or another timeline: its positions say nothing.
    SplitOff = 3,
}

impl Health {
    /// The word in the console and in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
            Self::SplitOff => "split_off",
        }
    }
}

/// No sample of this member, or none of the primary: how far it is behind cannot be said.
const UNKNOWN: u64 = u64::MAX;
/// It replayed the newest sample.
const CAUGHT_UP: u64 = 0;

const RECOVERY_UNKNOWN: u8 = 0;
const IN_RECOVERY: u8 = 1;
const NOT_IN_RECOVERY: u8 = 2;

/// A member's gauges: written by the monitor and the pools, read for every statement.
#[derive(Debug)]
pub struct MemberState {
    health: AtomicU8,
    recovery: AtomicU8,
    replayed: AtomicU64,
    sampled_at: AtomicU64,
    covers: AtomicU64,
    behind_since: AtomicU64,
    in_flight: AtomicU32,
    requests: AtomicU64,
    errors: AtomicU64,
    ban: Ban,
    settled_at: AtomicU64,
    answered_at: AtomicU64,
    is_ahead: AtomicBool,
    back_since: AtomicU64,
    is_equal: AtomicBool,
}

impl Default for MemberState {
    fn default() -> Self {
        Self {
            health: AtomicU8::new(Health::Unknown as u8),
            recovery: AtomicU8::new(RECOVERY_UNKNOWN),
            replayed: AtomicU64::new(0),
            sampled_at: AtomicU64::new(0),
            covers: AtomicU64::new(0),
            behind_since: AtomicU64::new(UNKNOWN),
            in_flight: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            ban: Ban::default(),
            settled_at: AtomicU64::new(0),
            answered_at: AtomicU64::new(0),
            is_ahead: AtomicBool::new(false),
            back_since: AtomicU64::new(0),
            is_equal: AtomicBool::new(false),
        }
    }
}

impl MemberState {
    /// Of the same server, watched by somebody else from now on: what was counted, bans, what its connections have been
    /// found to begin with, and whether it takes writes beside the primary.
    #[must_use]
    pub fn succeeding(before: &Self) -> Self {
        let copy = |value: &AtomicU64| AtomicU64::new(value.load(Ordering::Acquire));
        Self {
            requests: copy(&before.requests),
            errors: copy(&before.errors),
            ban: Ban::succeeding(&before.ban),
            settled_at: copy(&before.settled_at),
            back_since: copy(&before.back_since),
            is_equal: AtomicBool::new(before.is_equal()),
            ..Self::default()
        }
    }

    /// Requests sent there since the start.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// A request was sent there.
    pub fn requested(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections that were refused or lost.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// A connection was refused or lost.
    pub fn failed(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections opened before this may have other settings than sessions begin with since `since`; `None`: those
    /// opened now may, too, because the change has not been replayed.
    pub fn settled_at(&self, since: u64) -> Option<u64> {
        Some(self.settled_at.load(Ordering::Acquire)).filter(|settled| *settled >= since)
    }

    /// A sample that was taken before `now` is compared: has what committed before `since` been replayed?
    pub fn note_settled(&self, since: u64, now: u64) {
        if self.covers() >= since && self.settled_at(since).is_none() {
            self.settled_at.store(now, Ordering::Release);
        }
    }

    /// What the probes say.
    pub fn health(&self) -> Health {
        match self.health.load(Ordering::Acquire) {
            1 => Health::Up,
            2 => Health::Down,
            3 => Health::SplitOff,
            _ => Health::Unknown,
        }
    }

    /// The monitor's verdict after a probe.
    pub fn set_health(&self, health: Health) {
        self.health.store(health as u8, Ordering::Release);
    }

    /// It was down and is up since `now`: its share of the reads grows from a tenth.
    pub fn came_back(&self, now: u64) {
        self.back_since.store(now, Ordering::Relaxed);
    }

    /// Whether it takes writes beside the primary.
    pub fn is_equal(&self) -> bool {
        self.is_equal.load(Ordering::Acquire)
    }

    /// Returns what it was before.
    pub(super) fn set_equal(&self, is_equal: bool) -> bool {
        self.is_equal.swap(is_equal, Ordering::AcqRel)
    }

    /// Whether it is in recovery; `None` before anybody asked.
    pub fn in_recovery(&self) -> Option<bool> {
        match self.recovery.load(Ordering::Acquire) {
            IN_RECOVERY => Some(true),
            NOT_IN_RECOVERY => Some(false),
            _ => None,
        }
    }

    /// `pg_is_in_recovery()` as its last probe returned it.
    pub fn set_in_recovery(&self, in_recovery: bool) {
        let value = if in_recovery { IN_RECOVERY } else { NOT_IN_RECOVERY };
        self.recovery.store(value, Ordering::Release);
    }

    /// The position its last sample returned.
    pub fn replayed(&self) -> Lsn {
        Lsn::new(self.replayed.load(Ordering::Acquire))
    }

    /// When the query of its last sample was sent; 0 before the first.
    ///
    /// What the sample says holds for server connections that were open by then. A standby that was
    /// restarted since may show older data than before, on connections that are younger.
    ///
    /// To use it together with [`Self::covers`], load this one first: a later sample's figure is true
    /// for older connections too, an earlier sample's figure is not true for younger ones.
    pub fn sampled_at(&self) -> u64 {
        self.sampled_at.load(Ordering::Acquire)
    }

    /// When the newest primary sample that it replayed had been sent; 0 when it replayed none.
    pub fn covers(&self) -> u64 {
        self.covers.load(Ordering::Acquire)
    }

    /// Age of the oldest primary sample it has not replayed: 0 when it replayed the newest, so an
    /// idle primary shows no lag. `None`: not sampled yet.
    pub fn lag(&self, now: u64) -> Option<u64> {
        match self.behind_since.load(Ordering::Acquire) {
            UNKNOWN => None,
            CAUGHT_UP => Some(0),
            since => Some(now.saturating_sub(since)),
        }
    }

    /// What was committed on the primary longer ago is visible there; `None`: not known.
    pub fn age(&self, now: u64) -> Option<u64> {
        Some(self.covers()).filter(|covers| *covers != 0).map(|covers| now.saturating_sub(covers))
    }

    /// Has it shown a position that the primary had not reached later? Then it replays another history.
    pub fn is_ahead(&self) -> bool {
        self.is_ahead.load(Ordering::Acquire)
    }

    /// The primary answered a question sent at `sent_at` with `position`.
    pub(super) fn note_primary_at(&self, sent_at: u64, position: Lsn) {
        let answered_at = self.answered_at.load(Ordering::Acquire);
        if answered_at != 0 && answered_at < sent_at {
            self.is_ahead.store(self.replayed() > position, Ordering::Release);
        }
    }

    /// Statements running on it.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// A statement was given to it; every call is followed by one of [`Self::finished`].
    pub fn started(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// A statement ended, in whatever way.
    pub fn finished(&self) {
        let _ = self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    }

    /// Whether it is left out for having failed.
    pub fn is_banned(&self, now: u64) -> bool {
        self.ban.holds(now)
    }

    /// Leaves it out until somebody takes that back, or takes it back, whatever the reason was.
    pub fn set_banned(&self, is_banned: bool) {
        self.ban.set_by_hand(is_banned);
    }

    /// May a client go there that has chosen it? After a ban, one alone tries, and then tells
    /// [`Self::reached`], [`Self::not_reached`] or [`Self::not_tried`].
    pub fn admits(&self, now: u64) -> bool {
        self.ban.admits(now)
    }

    /// It has given somebody a connection.
    pub fn reached(&self) {
        self.ban.succeeded();
    }

    /// Nobody can connect at the moment: it is left out for a while. `draw` is any random number.
    pub fn not_reached(&self, now: u64, draw: u64) {
        self.failed();
        self.ban.failed(now, draw);
    }

    /// Whether it can be reached is as unknown as before.
    pub fn not_tried(&self, now: u64) {
        self.ban.remains(now);
    }

    pub(super) fn note_replayed(&self, replayed: Lsn, answered_at: u64) {
        self.replayed.store(replayed.get(), Ordering::Release);
        self.answered_at.store(answered_at, Ordering::Release);
    }

    /// `sampled_at` last: see [`Self::sampled_at`].
    pub(super) fn note_freshness(&self, covers: u64, behind_since: Option<u64>, sampled_at: u64) {
        self.covers.store(covers, Ordering::Release);
        self.behind_since.store(behind_since.unwrap_or(CAUGHT_UP), Ordering::Release);
        self.sampled_at.store(sampled_at, Ordering::Release);
    }

    /// Nothing that was compared with the former primary holds for the next one.
    pub(super) fn forget_history(&self) {
        self.answered_at.store(0, Ordering::Release);
        self.is_ahead.store(false, Ordering::Release);
        self.forget_freshness();
    }

    /// How far it has replayed says nothing.
    pub(super) fn forget_freshness(&self) {
        self.covers.store(0, Ordering::Release);
        self.behind_since.store(UNKNOWN, Ordering::Release);
        self.sampled_at.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_have_the_new_settings_once_the_change_is_replayed() {
        let state = MemberState::default();
        assert_eq!(state.settled_at(0), Some(0), "nothing has changed");
        state.note_freshness(99, None, 150);
        state.note_settled(100, 151);
        assert_eq!(state.settled_at(100), None, "the change was made at 100");
        state.note_freshness(100, None, 160);
        state.note_settled(100, 161);
        state.note_freshness(170, None, 180);
        state.note_settled(100, 181);
        assert_eq!(state.settled_at(100), Some(161), "from the first sample on");
        assert_eq!(MemberState::succeeding(&state).settled_at(100), Some(161), "whoever takes the next sample");
        assert_eq!(MemberState::succeeding(&state).covers(), 0, "but that is to be taken");
    }
}
