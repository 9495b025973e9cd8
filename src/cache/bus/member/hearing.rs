//! What a proxy does with what it hears.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    super::{
        frame::{Message, NodeId, Note, Told, Unfinished},
        peer::Awaited,
    },
    Member,
};
use crate::cache::{invalidation::Cells, unattended::Orphan};

impl Member {
    /// What somebody has said. A draw is a random number. True: definitions have changed.
    pub fn hear(&mut self, cells: &Arc<Cells>, message: Message, now: u64, draw: u64) -> bool {
        let Message { from, sequence, told, notes } = message;
        if from == self.me || self.left.contains(&from) {
            return false;
        }
        let mut catalog = false;
        let Some(first) = sequence.checked_sub(told.len() as u64) else { return false };
        match self.peers.get_mut(&from).and_then(|peer| peer.heard) {
            // Said again by somebody else: nothing in it is true any more.
            Some(heard) if sequence < heard => return false,
            // Nothing that was told before may be missing.
            Some(heard) if heard < first => {
                self.figures.gaps += 1;
                self.lose_step(from);
            }
            Some(heard) => {
                let known = usize::try_from(heard - first).unwrap_or(usize::MAX);
                for (number, told) in (first + 1..).zip(told).skip(known) {
                    catalog |= self.apply(cells, from, number, told, now);
                }
            }
            None => {}
        }
        for note in notes {
            self.take_note(cells, from, sequence, note, now, draw);
        }
        catalog
    }

    fn lose_step(&mut self, from: NodeId) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.heard = None;
            peer.hello_at = None;
            peer.hello_since = None;
        }
    }

    fn apply(&mut self, cells: &Arc<Cells>, from: NodeId, number: u64, told: Told, now: u64) -> bool {
        let Some(peer) = self.peers.get_mut(&from) else { return false };
        peer.heard = Some(number);
        peer.owes_ack = true;
        self.figures.heard += 1;
        match told {
            Told::Begin { write, process_id, set } => {
                peer.marks.insert(write, Orphan { process_id, guard: cells.mark_for_peer(&set) });
            }
            Told::Bump { set, draw } => {
                cells.move_stamps(&set, now, draw);
                let catalog = set.catalog;
                self.note_moved(from, number, set, draw);
                return catalog;
            }
            Told::End { write } => {
                if let Some(mark) = peer.marks.remove(&write) {
                    mark.guard.rolled_back();
                }
            }
            Told::Adrift if from < self.me && self.has_lived => self.begin_adoption(cells),
            Told::Adrift => {}
            Told::Bye => {
                // What it had begun it has ended, or that runs on.
                if let Some(peer) = self.peers.remove(&from) {
                    self.unattended.orphan(peer.into_marks(), now);
                }
                self.left.insert(from);
                if let Some(adoption) = &mut self.adoption {
                    adoption.heard.remove(&from);
                }
            }
        }
        false
    }

    fn take_note(&mut self, cells: &Arc<Cells>, from: NodeId, sequence: u64, note: Note, now: u64, draw: u64) {
        let (me, lease, sequence_here) = (self.me, self.times.lease, self.sequence);
        match note {
            Note::Ping { sent_at } => {
                let Some(peer) = self.peers.get_mut(&from) else { return };
                let awaits = match &mut peer.awaited {
                    // Who does not say that it has heard loses the right to serve.
                    Some(awaited) if awaited.is_overdue(now, lease / 2) => return,
                    Some(awaited) => {
                        awaited.answered_at = now;
                        true
                    }
                    None => false,
                };
                self.notes.push(Note::Pong { to: from, sent_at, awaits });
            }
            Note::Pong { to, sent_at, awaits } if to == me && sent_at <= now => {
                let Some(peer) = self.peers.get_mut(&from) else { return };
                self.figures.round_trip = Some(now - sent_at);
                match awaits {
                    true => peer.lease_until = peer.lease_until.max(sent_at.saturating_add(lease)),
                    false => peer.must_greet = true,
                }
            }
            Note::Ack { to, sequence } if to == me => {
                if let Some(awaited) = self.peers.get_mut(&from).and_then(|peer| peer.awaited.as_mut()) {
                    awaited.acknowledge(sequence.min(sequence_here), sequence_here, now);
                }
            }
            Note::Hello { to, sent_at } if to == me => {
                // Whoever is on no list yet says so again; an old message that somebody repeats is none.
                let Some(peer) = self.peers.get_mut(&from) else { return };
                // Where nobody waits for it, it serves nothing before it has heard what is told here.
                let fresh = || Awaited { acknowledged: sequence_here, answered_at: now, waits_since: None };
                peer.awaited.get_or_insert_with(fresh);
                self.welcomes.push((from, sent_at));
            }
            Note::Welcome { to, sent_at, is_settled, unfinished } if to == me => {
                let Some(peer) = self.peers.get_mut(&from) else { return };
                if peer.hello_since.take_if(|since| sent_at >= *since).is_none() {
                    return;
                }
                let is_whole = peer.heard == Some(sequence);
                peer.must_greet = false;
                peer.owes_ack = true;
                peer.is_settled = is_settled;
                peer.heard = Some(sequence);
                let mut marks = BTreeMap::new();
                for Unfinished { write, process_id, set } in unfinished {
                    marks.insert(write, Orphan { process_id, guard: cells.mark_for_peer(&set) });
                }
                // The new ones stand before the old ones go.
                for (_, mark) in std::mem::replace(&mut peer.marks, marks) {
                    mark.guard.rolled_back();
                }
                if !is_whole && self.has_lived {
                    self.begin_adoption(cells);
                }
                if let Some(adoption) = &mut self.adoption
                    && !is_whole
                {
                    // Nothing of it from before this message is known to us.
                    adoption.heard.insert(from, sequence);
                    adoption.moved.retain(|(of, ..)| *of != from);
                }
            }
            Note::Ask { to, sent_at } if to == me => self.asked.push((from, sent_at)),
            Note::Totals { to, sent_at, heard, totals, unfinished } if to == me => {
                self.adopt(cells, from, sent_at, &heard.into_iter().collect(), (totals, unfinished), now, draw);
            }
            _ => {}
        }
    }
}
