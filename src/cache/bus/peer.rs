//! What a proxy knows of another one.

use std::collections::BTreeMap;

use crate::cache::{invalidation::WriteId, unattended::Orphan};

/// Another one that writes wait for.
#[derive(Debug)]
pub(super) struct Awaited {
    /// It has heard what was told up to this number.
    pub(super) acknowledged: u64,
    /// When its last ping was answered: it may serve for the length of a lease from before then.
    pub(super) answered_at: u64,
    /// Since when it has not said that it has heard everything.
    pub(super) waits_since: Option<u64>,
}

impl Awaited {
    /// It has heard up to `heard` of the `told` things.
    pub(super) fn acknowledge(&mut self, heard: u64, told: u64, now: u64) {
        if heard > self.acknowledged {
            self.acknowledged = heard;
            self.waits_since = (heard < told).then_some(now);
        }
    }

    pub(super) fn is_overdue(&self, now: u64, patience: u64) -> bool {
        self.waits_since.is_some_and(|since| now >= since.saturating_add(patience))
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// Our writes wait for it.
    pub(super) awaited: Option<Awaited>,
    /// Everything it has told up to this number is applied; `None`: something is missing.
    pub(super) heard: Option<u64>,
    /// Its stamps are those that all share.
    pub(super) is_settled: bool,
    /// When it was last asked to wait for us.
    pub(super) hello_at: Option<u64>,
    /// When it was first asked, since it last said that it does.
    pub(super) hello_since: Option<u64>,
    /// It says that it does not wait for us.
    pub(super) must_greet: bool,
    /// Until when it waits for us before it finishes a write.
    pub(super) lease_until: u64,
    /// Its writes that are not over.
    pub(super) marks: BTreeMap<WriteId, Orphan>,
    pub(super) owes_ack: bool,
    /// Since when the primary does not list it.
    pub(super) missing_since: Option<u64>,
}

impl Peer {
    /// What it had begun, and nobody attends to any more.
    pub(super) fn into_marks(self) -> impl Iterator<Item = Orphan> {
        self.marks.into_values()
    }
}
