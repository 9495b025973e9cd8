//! The switches.

use crate::state::WriteSet;

/// What a hit must include.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// What some client had been told when it began (G1).
    Told,
    /// What was visible on the primary when it began (G2).
    Visible,
}

/// When the stamps move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bump {
    BeforeCommit,
    BeforeReply,
    AfterReply,
}

/// Which running fill a second reader may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Join {
    Never,
    Any,
    EqualStamps,
}

/// What becomes of the mark of a write whose connection is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InDoubt {
    Kept,
    TakenForRollback,
    /// No connection is lost.
    Never,
}

/// What a stamp remembers of the writes it was moved by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stamps {
    Sets,
    Maxima,
    /// How many there were.
    Counters,
}

impl Stamps {
    /// Whether a stamp moved by `one` looks like a stamp moved by `other`.
    pub(crate) fn are_equal(self, one: WriteSet, other: WriteSet) -> bool {
        match self {
            Self::Sets => one == other,
            Self::Maxima => one.leading_zeros() == other.leading_zeros(),
            Self::Counters => one.count_ones() == other.count_ones(),
        }
    }
}

/// The first write passes by the proxies, who read of it in the log: when do its stamps move?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outside {
    /// There is no such write.
    Never,
    /// As soon as it is in the log.
    WhenLogged,
    /// Once a snapshot of the primary shows it.
    WhenVisible,
}

/// What a proxy may do that has not been heard of for so long that nobody waits for it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lease {
    /// Everybody is waited for until he answers.
    Endless,
    /// It answers nothing from its cache until it has heard all that it was sent.
    Kept,
    /// It goes on.
    Ignored,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) proxies: usize,
    /// At most two.
    pub(crate) writes: usize,
    pub(crate) promise: Promise,
    /// The write is marked in flight, here and at every peer, before its commit is sent.
    pub(crate) marks_before_commit: bool,
    pub(crate) bump: Bump,
    pub(crate) releases_after_bump: bool,
    pub(crate) captures_before_query: bool,
    pub(crate) reads_mark_before_stamp: bool,
    /// There is a replica, and fills may use it.
    pub(crate) replica: bool,
    /// … once it has replayed what was written.
    pub(crate) watermark: bool,
    pub(crate) join: Join,
    pub(crate) in_doubt: InDoubt,
    /// A write goes on only when every peer has acknowledged.
    pub(crate) waits_for_peers: bool,
    pub(crate) stamps: Stamps,
    /// There is a cache that all proxies share, under stamps and question. It may give any answer that was ever stored.
    pub(crate) shared: bool,
    pub(crate) outside: Outside,
    pub(crate) lease: Lease,
}
