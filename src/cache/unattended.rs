//! Writes whose proxy is gone: their server processes run on, and what they do may become visible long after.
//!
//! Whoever comes later has no mark of such a write, nor has who missed its beginning. So before anything is served behind a
//! start, a join, or the loss of another proxy, the primary is asked what is under way ([`UnderWay`]):
//!
//! * **What a transaction has locked to write it** is marked until it is over, and then its stamps move: a transaction whose
//!   commit was sent has its locks until it is visible.
//! * **What a statement will write that still runs** its locks do not show, nor what waits behind it for the same server
//!   process. Marks that were told of it cover that, and are kept with its server process. Where nobody is left who has
//!   heard all that was told, everything is marked as long as that process is busy: once it waits for its client, nothing
//!   comes any more from one that is gone.
//!
//! The look comes so late that what a lost proxy sent has arrived. A process without others looks as soon as it has started:
//! what its predecessor sent has come the same way before.

use std::{collections::BTreeMap, sync::Arc};

use super::invalidation::{Cells, Touched, WriteGuard, WriteSet};
use crate::catalog::RelationOid;

/// Between two looks while something is open, nanoseconds: at first, and at most. What is marked meanwhile stays so.
const FIRST_PAUSE: u64 = 200_000_000;
const LONGEST_PAUSE: u64 = 5_000_000_000;

/// A server process of the primary in a transaction, or busy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnderWay {
    /// Its number.
    pub process_id: i32,
    /// The name of its transaction among all that ever were; empty if it has none.
    pub transaction: Box<str>,
    /// What it has locked, or waits to lock, so that it can write there; with all that these are parts of.
    pub relations: Box<[RelationOid]>,
    /// It may have changed definitions.
    pub catalog: bool,
    /// It does not wait for its client, or nobody may know.
    pub is_busy: bool,
}

impl UnderWay {
    fn set(&self) -> WriteSet {
        WriteSet { relations: self.relations.clone(), catalog: self.catalog, ..WriteSet::default() }
    }

    fn writes(&self) -> bool {
        !self.transaction.is_empty() && (self.catalog || !self.relations.is_empty())
    }
}

/// A mark of a write whose proxy is gone.
#[derive(Debug)]
pub(super) struct Orphan {
    pub(super) process_id: i32,
    pub(super) guard: WriteGuard,
}

/// A look that is needed before anything is served.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    /// Asked for at that time or later.
    from: u64,
    /// Nobody has heard everything that was told.
    is_blind: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Unattended {
    wanted: Option<Wanted>,
    /// Marks of proxies that are gone, since when.
    orphans: Vec<(u64, Orphan)>,
    /// Marks of transactions that were found, by their names.
    under_way: BTreeMap<Box<str>, Vec<Orphan>>,
    /// Marks on everything, definitions included, of processes that may write anything.
    strangers: BTreeMap<i32, WriteGuard>,
    next_look: u64,
    pause: u64,
}

impl Unattended {
    /// A look is needed that is asked for at that time or later; `is_blind` if nobody has heard of everything that may run.
    pub fn want_look(&mut self, from: u64, is_blind: bool) {
        let before = self.wanted.unwrap_or(Wanted { from, is_blind });
        self.wanted = Some(Wanted { from: before.from.max(from), is_blind: before.is_blind || is_blind });
    }

    /// Is a look needed before anything is served?
    pub fn must_look(&self) -> bool {
        self.wanted.is_some()
    }

    /// Shall the primary be asked what is under way?
    pub fn wants_look(&self, now: u64) -> bool {
        self.wanted.is_some_and(|wanted| now >= wanted.from) || (!self.is_over() && now >= self.next_look)
    }

    /// Is nothing marked any more?
    pub fn is_over(&self) -> bool {
        self.orphans.is_empty() && self.under_way.is_empty() && self.strangers.is_empty()
    }

    /// What it had begun runs on.
    pub(super) fn orphan(&mut self, orphans: impl Iterator<Item = Orphan>, now: u64) {
        self.orphans.extend(orphans.map(|orphan| (now, orphan)));
        (self.next_look, self.pause) = (0, 0);
    }

    /// Somebody who has heard of everything that may run has told it: no stranger is left.
    pub(super) fn is_told(&mut self) {
        std::mem::take(&mut self.strangers).into_values().for_each(WriteGuard::rolled_back);
    }

    /// All that is marked, by server process.
    pub(super) fn marked(&self) -> impl Iterator<Item = (i32, WriteSet)> {
        let orphans = self.orphans.iter().map(|(_, orphan)| orphan).chain(self.under_way.values().flatten());
        let strangers = self.strangers.iter().map(|(process_id, guard)| (*process_id, guard.set()));
        orphans.map(|orphan| (orphan.process_id, orphan.guard.set())).chain(strangers)
    }

    /// To be called while the cache is closed, and a look will be wanted.
    pub(super) fn forget(&mut self) {
        let Self { orphans, under_way, strangers, .. } = std::mem::take(self);
        let orphans = orphans.into_iter().map(|(_, orphan)| orphan).chain(under_way.into_values().flatten());
        orphans.map(|orphan| orphan.guard).chain(strangers.into_values()).for_each(WriteGuard::rolled_back);
    }

    /// A rule that is left out.
    #[cfg(test)]
    pub(super) fn drop_orphans(&mut self) {
        self.orphans.drain(..).for_each(|(_, orphan)| orphan.guard.rolled_back());
    }

    /// All that is under way on the primary: asked for at `asked_at`, and what was sent before `arrived` is among it. Returns
    /// the marks of what is over: it is visible, or never will be.
    pub fn looked(&mut self, cells: &Arc<Cells>, asked_at: u64, arrived: u64, found: &[UnderWay]) -> Vec<WriteGuard> {
        let wanted = self.wanted.take_if(|wanted| asked_at >= wanted.from);
        let mut over = Vec::new();
        self.under_way.retain(|name, marks| {
            let runs_on = found.iter().any(|one| one.transaction == *name);
            if !runs_on {
                over.extend(marks.drain(..).map(|orphan| orphan.guard));
            }
            runs_on
        });
        let is_busy = |process_id: i32| found.iter().any(|one| one.process_id == process_id && one.is_busy);
        for (process_id, guard) in std::mem::take(&mut self.strangers) {
            match is_busy(process_id) {
                true => _ = self.strangers.insert(process_id, guard),
                false => over.push(guard),
            }
        }
        for one in found {
            match self.under_way.get_mut(&one.transaction).and_then(|marks| marks.first_mut()) {
                // It has gone on to other relations.
                Some(mark) => mark.guard.widen(Touched::Relations(&one.relations), one.catalog),
                None if wanted.is_some() && one.writes() => {
                    let orphan = Orphan { process_id: one.process_id, guard: cells.mark_for_peer(&one.set()) };
                    self.under_way.entry(one.transaction.clone()).or_default().push(orphan);
                }
                None => {}
            }
            if wanted.is_some_and(|wanted| wanted.is_blind) && one.is_busy {
                let everything =
                    || cells.mark_for_peer(&WriteSet { database: true, catalog: true, ..WriteSet::default() });
                self.strangers.entry(one.process_id).or_insert_with(everything);
            }
        }
        let mut waiting = Vec::new();
        for (since, orphan) in self.orphans.drain(..) {
            let one = found.iter().find(|one| one.process_id == orphan.process_id);
            match one {
                _ if since > arrived => waiting.push((since, orphan)),
                Some(one) if !one.transaction.is_empty() => {
                    self.under_way.entry(one.transaction.clone()).or_default().push(orphan);
                }
                // It is about to begin.
                Some(_) => waiting.push((since, orphan)),
                None => over.push(orphan.guard),
            }
        }
        self.orphans = waiting;
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.next_look = asked_at.saturating_add(self.pause);
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::invalidation::Uncaptured;

    const T: RelationOid = RelationOid(16_400);
    const OTHER: RelationOid = RelationOid(16_500);

    fn one(process_id: i32, transaction: &str, relations: &[RelationOid], is_busy: bool) -> UnderWay {
        UnderWay { process_id, transaction: transaction.into(), relations: relations.into(), catalog: false, is_busy }
    }

    fn is_kept(cells: &Arc<Cells>, relation: RelationOid) -> bool {
        cells.capture(&[relation], cells.catalog_epoch()).is_ok()
    }

    fn looked(unattended: &mut Unattended, cells: &Arc<Cells>, at: u64, found: &[UnderWay]) {
        let over = unattended.looked(cells, at, at, found);
        over.into_iter().for_each(|guard| _ = guard.committed(at, || 7));
    }

    fn blind() -> (Unattended, Arc<Cells>) {
        let mut unattended = Unattended::default();
        unattended.want_look(0, true);
        (unattended, Arc::new(Cells::new(5, 1)))
    }

    #[test]
    fn a_process_that_is_busy_may_write_anything_until_it_waits_for_its_client() {
        let (mut unattended, cells) = blind();
        let captured = cells.capture(&[T], cells.catalog_epoch()).unwrap();
        looked(&mut unattended, &cells, 1, &[one(7, "", &[], true), one(8, "4/1", &[], false)]);
        assert!(!is_kept(&cells, T) && !unattended.must_look());
        looked(&mut unattended, &cells, 2, &[one(7, "3/8", &[], true)]);
        assert!(!is_kept(&cells, T), "it goes on with what waited behind it");
        looked(&mut unattended, &cells, 3, &[one(7, "3/8", &[], false), one(9, "", &[], true)]);
        assert!(is_kept(&cells, T) && unattended.is_over(), "who began later tells of what it writes");
        assert!(!captured.is_current(), "nobody knows what it has written");
    }

    #[test]
    fn who_waits_for_its_client_is_marked_for_what_it_has_locked_and_no_more() {
        let (mut unattended, cells) = blind();
        looked(&mut unattended, &cells, 1, &[one(7, "3/8", &[T], false)]);
        assert!(!is_kept(&cells, T) && is_kept(&cells, OTHER));
        looked(&mut unattended, &cells, 2, &[]);
        assert!(is_kept(&cells, T) && unattended.is_over());
    }

    #[test]
    fn definitions_under_way_are_marked_as_such() {
        let (mut unattended, cells) = blind();
        looked(&mut unattended, &cells, 1, &[UnderWay { catalog: true, ..one(7, "3/8", &[], false) }]);
        assert_eq!(cells.wide_writes_in_flight().0, 1);
        let over = unattended.looked(&cells, 2, 2, &[]);
        assert!(over.iter().all(|guard| guard.set().catalog) && over.len() == 1);
        over.into_iter().for_each(WriteGuard::rolled_back);
    }

    #[test]
    fn who_has_been_told_everything_marks_no_strangers() {
        let (mut unattended, cells) = blind();
        looked(&mut unattended, &cells, 1, &[one(7, "3/8", &[], true)]);
        assert_eq!(cells.capture(&[T], cells.catalog_epoch()).unwrap_err(), Uncaptured::InFlight);
        assert_eq!(unattended.marked().map(|(process_id, set)| (process_id, set.database)).last(), Some((7, true)));
        unattended.is_told();
        assert!(is_kept(&cells, T) && unattended.is_over());
    }

    #[test]
    fn looks_at_what_stays_open_become_rare() {
        let (mut unattended, cells) = blind();
        let mut at = 0;
        let mut looks = 0;
        while at < 3_600_000_000_000 {
            if unattended.wants_look(at) {
                looked(&mut unattended, &cells, at, &[one(7, "3/8", &[T], false)]);
                looks += 1;
            }
            at += 100_000_000;
        }
        assert!((600..800).contains(&looks), "{looks} in an hour");
    }
}
