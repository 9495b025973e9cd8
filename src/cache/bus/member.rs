//! One proxy among those that cache the same database: what it tells, what it has heard, and what follows from both.
//!
//! Pure: times are arguments, read from the clock of this process, and what is to be said is asked for with
//! [`Member::take_message`].

mod adoption;
mod hearing;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use self::adoption::Adoption;
use super::{
    frame::{Message, NodeId, Note, Told, Unfinished},
    peer::{Awaited, Peer},
    times::Times,
};
use crate::{
    ablation::Ablation,
    cache::{
        invalidation::{Cells, Closure, Ticket, WriteGuard, WriteId, WriteSet},
        unattended::{Unattended, UnderWay},
    },
};

/// How often things have happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BusFigures {
    /// Other proxies known.
    pub peers: u64,
    /// Things told.
    pub told: u64,
    /// Things heard and applied.
    pub heard: u64,
    /// Times something told by another one was missed.
    pub gaps: u64,
    /// Times another one was not waited for any more, because it had not answered.
    pub fenced: u64,
    /// Others that have gone without a word.
    pub lost: u64,
    /// Times the stamps of another one were taken.
    pub adopted: u64,
    /// How long the answer to the last ping took that was answered, nanoseconds.
    pub round_trip: Option<u64>,
}

/// What a write waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clearance {
    /// All that must have heard it have heard what was told up to this number.
    pub heard_by_all: u64,
    /// All that serve know of this proxy, and will until then.
    pub is_member: bool,
    pub member_until: u64,
}

impl Clearance {
    /// May what waits for that ticket go on?
    pub fn covers(&self, ticket: Ticket, now: u64) -> bool {
        ticket.sequence() <= self.heard_by_all && self.is_member && now < self.member_until
    }
}

/// See the module.
#[derive(Debug)]
pub struct Member {
    me: NodeId,
    times: Times,
    /// The number of the last thing told.
    sequence: u64,
    next_write: u64,
    untold: Vec<Told>,
    notes: Vec<Note>,
    welcomes: Vec<(NodeId, u64)>,
    asked: Vec<(NodeId, u64)>,
    unfinished: BTreeMap<WriteId, (i32, WriteSet)>,
    pub(super) peers: BTreeMap<NodeId, Peer>,
    /// Those that have said farewell, as long as they are still listed.
    left: BTreeSet<NodeId>,
    /// When the last list of members that we have seen was asked for.
    listed_at: Option<u64>,
    /// It may write, and serve, once a list that was asked for after this names it.
    pub(super) writes_from: Option<u64>,
    pub(super) serves_from: Option<u64>,
    pinged_at: u64,
    /// Its stamps are those that all share.
    is_settled: bool,
    /// It has been settled before: answers are held under stamps of its own.
    has_lived: bool,
    adoption: Option<Adoption>,
    pub(super) unattended: Unattended,
    figures: BusFigures,
}

impl Member {
    /// One that knows nobody. It serves nothing before it has been listed and settled.
    pub fn new(me: NodeId, times: Times, cells: &Cells) -> Self {
        cells.close(Closure::Peers);
        cells.trust_until(0);
        Self {
            me,
            times,
            sequence: 0,
            next_write: 1,
            untold: Vec::new(),
            notes: Vec::new(),
            welcomes: Vec::new(),
            asked: Vec::new(),
            unfinished: BTreeMap::new(),
            peers: BTreeMap::new(),
            left: BTreeSet::new(),
            listed_at: None,
            writes_from: None,
            serves_from: None,
            pinged_at: 0,
            is_settled: false,
            has_lived: false,
            adoption: None,
            unattended: Unattended::default(),
            figures: BusFigures::default(),
        }
    }

    /// Its name.
    pub fn id(&self) -> NodeId {
        self.me
    }

    /// Does it know nobody else?
    pub fn is_alone(&self) -> bool {
        self.peers.is_empty()
    }

    /// Does it share the stamps of the others?
    pub fn is_settled(&self) -> bool {
        self.is_settled && self.adoption.is_none()
    }

    /// What has happened so far.
    pub fn figures(&self) -> BusFigures {
        BusFigures { peers: self.peers.len() as u64, told: self.sequence, ..self.figures }
    }

    /// A write is about to commit.
    pub fn begin(&mut self, set: WriteSet, process_id: i32) -> (WriteId, Ticket) {
        let write = WriteId(self.next_write);
        self.next_write += 1;
        self.unfinished.insert(write, (process_id, set.clone()));
        (write, self.tell(Told::Begin { write, process_id, set }))
    }

    /// The stamps of a set move by `draw`, here at this moment.
    pub fn bump(&mut self, set: WriteSet, draw: u64) -> Ticket {
        let ticket = self.tell(Told::Bump { set: set.clone(), draw });
        self.note_moved(self.me, self.sequence, set, draw);
        ticket
    }

    /// A write is over.
    pub fn end(&mut self, write: WriteId) {
        self.unfinished.remove(&write);
        self.tell(Told::End { write });
    }

    /// It serves nothing more, and whoever writes here is nobody's concern.
    pub fn leave(&mut self, cells: &Cells) {
        cells.close(Closure::Peers);
        cells.trust_until(0);
        self.tell(Told::Bye);
        self.forget();
    }

    /// Nobody is known, and nobody knows this one: it may neither serve nor begin to write.
    fn forget(&mut self) {
        for (_, peer) in std::mem::take(&mut self.peers) {
            // The cache is closed, and whoever is met again says what it has not ended.
            peer.marks.into_values().for_each(|mark| mark.guard.rolled_back());
        }
        self.unattended.forget();
        self.left.clear();
        (self.listed_at, self.writes_from, self.serves_from) = (None, None, None);
        (self.adoption, self.is_settled) = (None, false);
    }

    /// After it has left: it begins anew, under another name.
    pub fn rejoin(&mut self, me: NodeId) {
        self.me = me;
        self.forget();
        self.untold.clear();
        self.notes.clear();
        self.welcomes.clear();
        self.asked.clear();
    }

    fn tell(&mut self, told: Told) -> Ticket {
        self.sequence += 1;
        // Whoever comes is told the sums.
        if !self.peers.is_empty() {
            self.untold.push(told);
        }
        Ticket::at(self.sequence)
    }

    /// The primary has confirmed that this one is a member, on a session that is new: others may have counted it out before.
    pub fn joined(&mut self, cells: &Cells, now: u64) {
        self.writes_from = Some(now.saturating_add(self.times.view_elsewhere()));
        self.look_anew(cells, now);
    }

    /// Somebody may have come and gone unseen, and writes as long as his last list is young.
    fn look_anew(&mut self, cells: &Cells, at: u64) {
        let from = at.saturating_add(self.times.view_elsewhere());
        self.serves_from = Some(from);
        self.unattended.want_look(from, true);
        if self.has_lived {
            self.begin_adoption(cells);
        }
    }

    /// Whoever writes has been on the list for longer than any list is true, and so is on one of this proxy's, which follow
    /// each other in less time.
    fn knows_all(&self) -> bool {
        self.listed_at.is_some_and(|at| self.serves_from.is_some_and(|from| at >= from))
    }

    /// The members, as the primary lists them: asked for at `sent_at`, told at `now`.
    pub fn listed(&mut self, cells: &Cells, sent_at: u64, now: u64, members: &BTreeSet<NodeId>) {
        if self.listed_at.replace(sent_at).is_some_and(|before| sent_at >= before.saturating_add(self.times.view)) {
            self.look_anew(cells, sent_at);
        }
        self.left.retain(|node| members.contains(node));
        for node in members.iter().filter(|node| **node != self.me && !self.left.contains(node)) {
            self.peers.entry(*node).or_default().missing_since = None;
        }
        for (_, peer) in self.peers.iter_mut().filter(|(node, _)| !members.contains(node)) {
            peer.missing_since.get_or_insert(now);
        }
    }

    /// Does what time asks for, and says until when answers may be served.
    pub fn tick(&mut self, cells: &Cells, now: u64, draw: u64) {
        self.count_out(cells, now);
        for peer in self.peers.values_mut() {
            let is_lost = |awaited: &Awaited| {
                awaited.waits_since.is_some() && now >= awaited.answered_at.saturating_add(self.times.lease_elsewhere())
            };
            if peer.awaited.as_ref().is_some_and(is_lost) {
                peer.awaited = None;
                self.figures.fenced += 1;
            }
        }
        self.greet(now);
        self.come_to_terms(cells, now, draw);
        if now >= self.pinged_at.saturating_add(self.times.ping) && !self.peers.is_empty() {
            self.pinged_at = now;
            self.notes.push(Note::Ping { sent_at: now });
        }
        cells.trust_until(self.trusted_until());
    }

    /// Whoever has not been listed for long enough serves nothing and writes nothing new.
    fn count_out(&mut self, cells: &Cells, now: u64) {
        let patience = self.times.view_elsewhere();
        let is_gone = |peer: &Peer| peer.missing_since.is_some_and(|since| now >= since.saturating_add(patience));
        let gone: Vec<_> = self.peers.iter().filter(|(_, peer)| is_gone(peer)).map(|(node, _)| *node).collect();
        if gone.is_empty() {
            return;
        }
        self.figures.lost += gone.len() as u64;
        let mut is_blind = false;
        for peer in gone.iter().filter_map(|node| self.peers.remove(node)) {
            is_blind |= peer.heard.is_none();
            self.unattended.orphan(peer.into_marks(), now);
        }
        // Its last words may not have been heard here.
        self.unattended.want_look(now, is_blind);
        if self.has_lived {
            // Some may have heard what others have not.
            self.begin_adoption(cells);
        }
    }

    fn greet(&mut self, now: u64) {
        let pause = self.times.ping;
        for (node, peer) in &mut self.peers {
            let is_strange = peer.heard.is_none() || peer.must_greet;
            if is_strange && peer.hello_at.is_none_or(|at| now >= at.saturating_add(pause)) {
                peer.hello_at = Some(now);
                peer.hello_since.get_or_insert(now);
                self.notes.push(Note::Hello { to: *node, sent_at: now });
            }
        }
    }

    /// Until when nobody can have finished a write that this one does not know of.
    pub fn trusted_until(&self) -> u64 {
        if !self.is_settled() {
            return 0;
        }
        let listed = self.listed_at.map_or(0, |at| at.saturating_add(self.times.view));
        if Ablation::Lease.is_left_out() {
            return listed;
        }
        let leases = self.peers.values().map(|peer| if peer.heard.is_some() { peer.lease_until } else { 0 });
        leases.fold(listed, u64::min)
    }

    /// What writes wait for.
    pub fn clearance(&self) -> Clearance {
        let heard = self.peers.values().filter_map(|peer| peer.awaited.as_ref()).map(|awaited| awaited.acknowledged);
        Clearance {
            heard_by_all: heard.min().unwrap_or(u64::MAX),
            is_member: self.listed_at.is_some_and(|at| self.writes_from.is_some_and(|from| at >= from)),
            member_until: self.listed_at.map_or(0, |at| at.saturating_add(self.times.view)),
        }
    }

    /// Shall the primary be asked what is under way?
    pub fn wants_look(&self, now: u64) -> bool {
        self.unattended.wants_look(now)
    }

    /// All that is under way on the primary: asked for at `asked_at`, told at `now`. True: definitions may have changed.
    pub fn looked(&mut self, cells: &Arc<Cells>, asked_at: u64, now: u64, draw: u64, found: &[UnderWay]) -> bool {
        let arrived = asked_at.saturating_sub(self.times.view_elsewhere());
        let over = self.unattended.looked(cells, asked_at, arrived, found);
        let Some(set) = over.iter().map(WriteGuard::set).reduce(WriteSet::and) else { return false };
        self.bump(set.clone(), draw);
        cells.move_stamps(&set, now, draw);
        over.into_iter().for_each(WriteGuard::rolled_back);
        set.catalog
    }

    /// What is marked here for others than the one who asks, who may not have heard of it.
    fn marked_by_others(&self, asking: NodeId) -> Vec<Unfinished> {
        let others = self.peers.iter().filter(|(node, _)| **node != asking).flat_map(|(_, peer)| peer.marks.values());
        let told = others.map(|mark| (mark.process_id, mark.guard.set()));
        let unfinished = |(process_id, set)| Unfinished { write: WriteId(0), process_id, set };
        told.chain(self.unattended.marked()).map(unfinished).collect()
    }

    /// Is there anything to be said?
    pub fn has_words(&self) -> bool {
        let is_quiet =
            self.untold.is_empty() && self.notes.is_empty() && self.welcomes.is_empty() && self.asked.is_empty();
        !is_quiet || self.peers.values().any(|peer| peer.owes_ack)
    }

    /// What is to be said now, if anything is. It must reach the others in the order in which it was taken, or not at all.
    pub fn take_message(&mut self, cells: &Cells, now: u64) -> Option<Message> {
        let unfinished = |(write, (process_id, set)): (&WriteId, &(i32, WriteSet))| Unfinished {
            write: *write,
            process_id: *process_id,
            set: set.clone(),
        };
        for (to, sent_at) in std::mem::take(&mut self.welcomes) {
            let (is_settled, unfinished) = (self.is_settled(), self.unfinished.iter().map(unfinished).collect());
            self.notes.push(Note::Welcome { to, sent_at, is_settled, unfinished });
        }
        for (to, sent_at) in std::mem::take(&mut self.asked) {
            if self.is_settled() {
                let of = |(node, peer): (&NodeId, &Peer)| Some((*node, peer.heard?));
                let heard = self.peers.iter().filter_map(of).collect();
                let unfinished = self.marked_by_others(to);
                self.notes.push(Note::Totals { to, sent_at, heard, totals: cells.totals(), unfinished });
            }
        }
        for (node, peer) in &mut self.peers {
            if let (true, Some(sequence)) = (std::mem::take(&mut peer.owes_ack), peer.heard) {
                self.notes.push(Note::Ack { to: *node, sequence });
            }
        }
        if !self.untold.is_empty() {
            let awaited = self.peers.values_mut().filter_map(|peer| peer.awaited.as_mut());
            awaited.filter(|awaited| awaited.acknowledged < self.sequence).for_each(|awaited| {
                awaited.waits_since.get_or_insert(now);
            });
        }
        if self.untold.is_empty() && self.notes.is_empty() {
            return None;
        }
        let (told, notes) = (std::mem::take(&mut self.untold), std::mem::take(&mut self.notes));
        Some(Message { from: self.me, sequence: self.sequence, told, notes })
    }
}

#[cfg(test)]
mod tests;
