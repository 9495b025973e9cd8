//! Rules that a build with debug assertions can leave out, so that tests can show that they find what comes of it.

#[cfg(debug_assertions)]
use std::sync::OnceLock;

/// A rule, which `PGWEIR_ABLATE` names.
///
/// In a release build every rule is in force and nothing is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ablation {
    /// Writes void what was answered before.
    Invalidation,
    /// Reads wait for the writes that they must not miss.
    Fence,
    /// Nobody hits what a commit under way may change.
    Mark,
    /// What was answered is voided behind the commit, not in front of it.
    BumpBehindCommit,
    /// What was answered is voided before the client is told.
    BumpBeforeReply,
    /// The stamps of an answer are from before its query.
    CaptureBeforeQuery,
    /// Who waits for another's answer knows of no write that the other did not know of.
    JoinAtEqualStamps,
    /// The stamps of an answer are part of its name in Redis.
    StampsInNames,
    /// A replica that brings an answer to keep has replayed what was written.
    Watermark,
    /// What the locks tell of a write is believed.
    LockSet,
    /// A foreign key's action is a write.
    Cascades,
    /// Who reads a view reads what it is made of.
    Views,
    /// A write to a partition is one to its parents.
    Ancestors,
    /// A write to a parent is one to its partitions.
    Descendants,
    /// A deferred trigger may write anything.
    DeferredTriggers,
    /// A commit whose connection was lost may have happened.
    InDoubt,
    /// A statement that was understood with an older catalog fills nothing.
    CatalogEpoch,
    /// Who asks is part of the question.
    Role,
    /// So are the parameters of the session.
    Parameters,
    /// What the primary's stream tells of voids answers once it can be seen.
    Visibility,
    /// A commit is sent when all other proxies have marked what it may touch.
    PeersBeforeCommit,
    /// Other proxies are waited for at all.
    Peers,
    /// Whoever is not waited for any more serves nothing.
    Lease,
    /// A write by key voids what was read by that key.
    RowsByKey,
    /// A write of rows that nobody knows voids what was read by any key.
    UnknownRows,
}

impl Ablation {
    /// Every rule, with its name.
    pub const ALL: [(Self, &str); 25] = [
        (Self::Invalidation, "invalidation"),
        (Self::Fence, "fence"),
        (Self::Mark, "mark"),
        (Self::BumpBehindCommit, "bump_behind_commit"),
        (Self::BumpBeforeReply, "bump_before_reply"),
        (Self::CaptureBeforeQuery, "capture_before_query"),
        (Self::JoinAtEqualStamps, "join_at_equal_stamps"),
        (Self::StampsInNames, "stamps_in_names"),
        (Self::Watermark, "watermark"),
        (Self::LockSet, "lock_set"),
        (Self::Cascades, "cascades"),
        (Self::Views, "views"),
        (Self::Ancestors, "ancestors"),
        (Self::Descendants, "descendants"),
        (Self::DeferredTriggers, "deferred_triggers"),
        (Self::InDoubt, "in_doubt"),
        (Self::CatalogEpoch, "catalog_epoch"),
        (Self::Role, "role"),
        (Self::Parameters, "parameters"),
        (Self::Visibility, "visibility"),
        (Self::PeersBeforeCommit, "peers_before_commit"),
        (Self::Peers, "peers"),
        (Self::Lease, "lease"),
        (Self::RowsByKey, "rows_by_key"),
        (Self::UnknownRows, "unknown_rows"),
    ];

    /// Is it left out?
    #[cfg(debug_assertions)]
    #[must_use]
    pub fn is_left_out(self) -> bool {
        Self::chosen() == Some(self)
    }

    /// Is it left out? Never.
    #[cfg(not(debug_assertions))]
    #[must_use]
    pub const fn is_left_out(self) -> bool {
        false
    }

    /// The one that is left out; the environment is asked once.
    #[cfg(debug_assertions)]
    pub fn chosen() -> Option<Self> {
        static CHOSEN: OnceLock<Option<Ablation>> = OnceLock::new();
        *CHOSEN.get_or_init(|| {
            let name = std::env::var("PGWEIR_ABLATE").ok()?;
            Self::ALL.iter().find(|(_, known)| *known == name).map(|(rule, _)| *rule)
        })
    }
}
