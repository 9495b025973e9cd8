//! What a read asks for, and what it gets.

use super::{fence::Fence, member::MemberId};
use crate::lsn::Lsn;

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Not older than its fence, and within the lag limits.
    Fenced,
    /// The client accepts data that is this many nanoseconds old; its fence does not count.
    Within(u64),
    /// The client asked for a replica, whatever it shows.
    Any,
}

/// What one read asks of the members.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// What it must not miss.
    pub fence: Fence,
    /// How fresh it must be.
    pub freshness: Freshness,
    /// What a replica must have replayed besides; 0 asks for nothing.
    pub min_lsn: Lsn,
    /// A member that has just failed this very statement.
    pub avoid: Option<MemberId>,
}

impl Demand {
    /// A read that must see everything before `fence`.
    pub const fn fenced(fence: Fence) -> Self {
        Self { fence, freshness: Freshness::Fenced, min_lsn: Lsn::new(0), avoid: None }
    }
}

/// The member a read goes to, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// `None`: there is no primary at the moment.
    pub member: Option<MemberId>,
    /// Why this one: a replica, or what kept every replica from serving.
    pub reason: RouteReason,
    /// The choice rests on a sample that says nothing about younger server connections: on one of
    /// those, `pg_last_wal_replay_lsn()` must be asked in-band first.
    pub valid_for_connections_opened_before: u64,
}

/// Why a read went where it went: the `reason` label of the routing metrics.
///
/// Ordered from "nearly served by a replica" to "no replica at all"; the nearest miss is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteReason {
    /// A fresh and healthy replica serves it.
    Replica,
    /// It is the primary's turn (`primary_reads = always`).
    PrimaryShare,
    /// No primary sample was sent since the write that the read must see.
    FenceUnresolved,
    /// The fence is known, and no replica has replayed it.
    NotReplayed,
    /// Further behind than allowed.
    ReplicaLagging,
    /// The primary has not been sampled for three intervals, or the replica never.
    LagUnknown,
    /// It follows another primary.
    SplitOff,
    /// Left out for a while because it failed.
    ReplicaBanned,
    /// It refuses connections or fails its probes.
    ReplicaDown,
    /// None is configured with a weight, in recovery, and not the one to avoid.
    NoReplica,
}

impl RouteReason {
    /// Is it fit but for data that it will have in a moment?
    pub const fn is_behind(self) -> bool {
        matches!(self, Self::FenceUnresolved | Self::NotReplayed)
    }

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Replica => "replica",
            Self::PrimaryShare => "primary_share",
            Self::FenceUnresolved => "fence_unresolved",
            Self::NotReplayed => "not_replayed",
            Self::ReplicaLagging => "replica_lagging",
            Self::LagUnknown => "lag_unknown",
            Self::SplitOff => "split_off",
            Self::ReplicaBanned => "replica_banned",
            Self::ReplicaDown => "replica_down",
            Self::NoReplica => "no_replica",
        }
    }
}
