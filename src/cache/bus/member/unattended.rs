//! Writes whose proxy is gone: their server processes run on, and what they do may become visible long after.
//!
//! Whoever joins later has no mark of such a write, nor has who missed its beginning. So before anything is served behind a
//! join, and behind the loss of another one, the primary is asked which transactions are under way and what they have locked
//! to write it: a transaction whose commit was sent has its locks until it is visible. What was found is marked until its
//! transaction has ended, and then moves the stamps.
//!
//! The look comes so late that what a lost proxy sent has arrived. What it cannot show is what a statement will lock that
//! still runs; marks that were told of the write cover that, and are kept with its server process.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    super::peer::{Mark, Peer},
    Member,
};
use crate::{
    cache::invalidation::{Cells, Touched, WriteGuard, WriteSet},
    catalog::RelationOid,
};

/// A transaction on the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnderWay {
    /// The server process that runs it.
    pub process_id: i32,
    /// Its name among all that ever were.
    pub transaction: Box<str>,
    /// What it has locked, or waits to lock, so that it can write there; with all that these are parts of.
    pub relations: Box<[RelationOid]>,
}

/// See the module.
#[derive(Debug, Default)]
pub(in super::super) struct Unattended {
    /// A look asked for at that time or later is needed.
    wanted_from: Option<u64>,
    /// Marks of proxies that are gone, since when.
    orphans: Vec<(u64, Mark)>,
    /// Marks of transactions that were found.
    under_way: BTreeMap<Box<str>, Vec<WriteGuard>>,
}

impl Unattended {
    pub(super) fn want_look(&mut self, from: u64) {
        self.wanted_from = self.wanted_from.max(Some(from));
    }

    /// Is a look needed before anything is served?
    pub(super) fn wants_look(&self) -> bool {
        self.wanted_from.is_some()
    }

    /// What it had begun runs on.
    pub(super) fn orphan(&mut self, peer: Peer, now: u64) {
        self.orphans.extend(peer.marks.into_values().map(|mark| (now, mark)));
    }

    /// To be called while the cache is closed, and a look will be wanted.
    pub(in super::super) fn forget(&mut self) {
        let Self { orphans, under_way, .. } = std::mem::take(self);
        orphans.into_iter().for_each(|(_, mark)| mark.guard.rolled_back());
        under_way.into_values().flatten().for_each(WriteGuard::rolled_back);
    }

    /// A rule that is left out.
    #[cfg(test)]
    pub(in super::super) fn drop_orphans(&mut self) {
        self.orphans.drain(..).for_each(|(_, mark)| mark.guard.rolled_back());
    }
}

impl Member {
    /// Shall the primary be asked what is under way?
    pub fn wants_look(&self, now: u64) -> bool {
        let Unattended { wanted_from, orphans, under_way } = &self.unattended;
        wanted_from.is_some_and(|from| now >= from) || !orphans.is_empty() || !under_way.is_empty()
    }

    /// All that is under way on the primary: asked for at `asked_at`, told at `now`. True: definitions may have changed.
    pub fn looked(&mut self, cells: &Arc<Cells>, asked_at: u64, now: u64, draw: u64, found: &[UnderWay]) -> bool {
        let is_wanted = self.unattended.wanted_from.take_if(|from| asked_at >= *from).is_some();
        let arrived = asked_at.saturating_sub(self.times.view_elsewhere());
        let Unattended { orphans, under_way, .. } = &mut self.unattended;
        let mut over = Vec::new();
        under_way.retain(|name, marks| {
            let runs_on = found.iter().any(|one| one.transaction == *name);
            if !runs_on {
                over.append(marks);
            }
            runs_on
        });
        for one in found {
            let known = under_way.get_mut(&one.transaction).and_then(|marks| marks.first_mut());
            match known {
                // It has gone on to other relations.
                Some(mark) => mark.widen(Touched::Relations(&one.relations), false),
                None if is_wanted && !one.relations.is_empty() => {
                    let set = WriteSet { relations: one.relations.clone(), ..WriteSet::default() };
                    under_way.entry(one.transaction.clone()).or_default().push(cells.mark_for_peer(&set));
                }
                None => {}
            }
        }
        for (_, Mark { process_id, guard }) in orphans.extract_if(.., |(since, _)| *since <= arrived) {
            match found.iter().find(|one| one.process_id == process_id) {
                Some(one) => under_way.entry(one.transaction.clone()).or_default().push(guard),
                None => over.push(guard),
            }
        }
        self.put_to_rest(cells, over, now, draw)
    }

    /// They are visible, or never will be.
    fn put_to_rest(&mut self, cells: &Cells, over: Vec<WriteGuard>, now: u64, draw: u64) -> bool {
        let Some(set) = over.iter().map(WriteGuard::set).reduce(WriteSet::and) else { return false };
        self.bump(set.clone(), draw);
        cells.move_stamps(&set, now, draw);
        over.into_iter().for_each(WriteGuard::rolled_back);
        set.catalog
    }
}
