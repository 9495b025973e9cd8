//! Sharing the stamps of the others.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    super::{
        frame::{NodeId, Note, Told, Unfinished},
        peer::Peer,
    },
    Member,
};
use crate::cache::{
    invalidation::{Cells, Closure, Totals, WriteSet},
    unattended::Orphan,
};

/// What may move while the stamps of another one are on their way. That takes milliseconds; where it takes longer, they are
/// asked for once more.
const MOST_MOVED: usize = 16_384;

/// Taking the stamps of another one.
#[derive(Debug, Default)]
pub(super) struct Adoption {
    /// When it first asked: whatever is answered from then on will do.
    asked_since: Option<u64>,
    /// When it asked last.
    asked_at: Option<u64>,
    /// What has moved since it began, by whom and with which number.
    pub(super) moved: Vec<(NodeId, u64, WriteSet, u64)>,
    /// What had been heard of each when it began.
    pub(super) heard: BTreeMap<NodeId, u64>,
}

impl Member {
    /// What has moved while the stamps of another one are on their way.
    #[cfg(test)]
    pub(in super::super) fn remembered(&self) -> usize {
        self.adoption.as_ref().map_or(0, |adoption| adoption.moved.len())
    }

    /// Something was missed, or is missing elsewhere: what its stamps stand for is not what those of the others do.
    pub(super) fn begin_adoption(&mut self, cells: &Cells) {
        cells.close(Closure::Peers);
        cells.trust_until(0);
        self.adoption = Some(self.new_adoption());
    }

    fn new_adoption(&self) -> Adoption {
        let of = |(node, peer): (&NodeId, &Peer)| Some((*node, peer.heard?));
        let mut heard: BTreeMap<_, _> = self.peers.iter().filter_map(of).collect();
        heard.insert(self.me, self.sequence);
        Adoption { heard, ..Adoption::default() }
    }

    /// Whose stamps it shares: the oldest that has some. `None`: its own are those that others take.
    fn elder(&self) -> Option<NodeId> {
        let is_elder = |(node, peer): &(&NodeId, &Peer)| peer.is_settled && (**node < self.me || !self.has_lived);
        self.peers.iter().find(is_elder).map(|(node, _)| *node)
    }

    #[expect(clippy::too_many_arguments, reason = "all of them belong to one answer")]
    pub(super) fn adopt(
        &mut self,
        cells: &Arc<Cells>,
        from: NodeId,
        sent_at: u64,
        heard: &BTreeMap<NodeId, u64>,
        (mut totals, unfinished): (Totals, Vec<Unfinished>),
        now: u64,
        draw: u64,
    ) {
        let Some(adoption) =
            self.adoption.as_ref().filter(|adoption| adoption.asked_since.is_some_and(|since| sent_at >= since))
        else {
            return;
        };
        // Whatever moved since we began to note it, or the other one has heard it.
        let covers = |(node, since): (&NodeId, &u64)| *node == from || heard.get(node).is_some_and(|to| to >= since);
        let knows_all = self.peers.keys().all(|node| adoption.heard.contains_key(node));
        if !knows_all || !adoption.heard.iter().all(covers) {
            return;
        }
        let Some(Adoption { moved, .. }) = self.adoption.take() else { return };
        for (node, number, set, draw) in moved {
            if node != from && heard.get(&node).is_some_and(|to| number > *to) {
                totals.add(&set, draw);
            }
        }
        // Whoever might have begun a write that this one has not heard of is not listed any more, and the other one has
        // heard of it.
        let orphan = |Unfinished { process_id, set, .. }| Orphan { process_id, guard: cells.mark_for_peer(&set) };
        self.unattended.orphan(unfinished.into_iter().map(orphan), now);
        self.unattended.is_told();
        cells.adopt(&totals, now);
        self.figures.adopted += 1;
        self.settle(cells, now, draw);
    }

    /// From now on its stamps are everybody's. What it holds under stamps from before must never be taken for current.
    fn settle(&mut self, cells: &Cells, now: u64, draw: u64) {
        self.adoption = None;
        self.is_settled = true;
        if std::mem::replace(&mut self.has_lived, true) {
            let everything = WriteSet { database: true, ..WriteSet::default() };
            self.bump(everything.clone(), draw);
            cells.move_stamps(&everything, now, draw);
        }
        cells.resume(Closure::Peers);
    }

    /// Finds whose stamps it shares, once all have been heard of.
    pub(super) fn come_to_terms(&mut self, cells: &Cells, now: u64, draw: u64) {
        let is_due = self.adoption.is_some() || !self.is_settled;
        if !is_due
            || self.unattended.must_look()
            || !self.knows_all()
            || self.peers.values().any(|peer| peer.heard.is_none())
        {
            return;
        }
        let Some(elder) = self.elder() else {
            // Nobody has stamps that are older: if nobody has any, those of the oldest count.
            if self.has_lived {
                self.tell(Told::Adrift);
                self.settle(cells, now, draw);
            } else if self.peers.keys().all(|node| *node > self.me) {
                self.settle(cells, now, draw);
            } else {
                self.peers.values_mut().for_each(|peer| peer.must_greet = true);
            }
            return;
        };
        if self.adoption.is_none() {
            self.begin_adoption(cells);
        }
        let pause = self.times.ping;
        let Some(adoption) = &mut self.adoption else { return };
        if adoption.asked_at.is_none_or(|at| now >= at.saturating_add(pause)) {
            adoption.asked_at = Some(now);
            adoption.asked_since.get_or_insert(now);
            self.notes.push(Note::Ask { to: elder, sent_at: now });
        }
    }

    pub(super) fn note_moved(&mut self, from: NodeId, number: u64, set: WriteSet, draw: u64) {
        match &mut self.adoption {
            Some(adoption) if adoption.moved.len() < MOST_MOVED => adoption.moved.push((from, number, set, draw)),
            // It begins anew: what has moved up to now is in the sums that are told then.
            Some(_) => self.adoption = Some(self.new_adoption()),
            None => {}
        }
    }
}
