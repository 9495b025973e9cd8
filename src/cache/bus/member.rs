//! One proxy among those that cache the same database: what it tells, what it has heard, and what follows from both.
//!
//! Pure: times are arguments, read from the clock of this process, and what is to be said is asked for with
//! [`Member::take_message`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    frame::{Message, NodeId, Note, Told, Unfinished},
    peer::{Awaited, Peer},
    times::Times,
};
use crate::cache::invalidation::{Cells, Closure, Origin, Ticket, Totals, WriteGuard, WriteId, WriteSet};

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

/// Taking the stamps of another one.
#[derive(Debug, Default)]
struct Adoption {
    asked_at: Option<u64>,
    /// What has moved since it began, by whom and with which number.
    moved: Vec<(NodeId, u64, WriteSet, u64)>,
    /// What had been heard of each when it began.
    heard: BTreeMap<NodeId, u64>,
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
            peer.marks.into_values().for_each(WriteGuard::rolled_back);
        }
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
        self.serves_from = Some(at.saturating_add(self.times.view_elsewhere()));
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

    /// What somebody has said. `origin` says where writes of others run; a draw is a random number. True: definitions have
    /// changed.
    pub fn hear(&mut self, cells: &Arc<Cells>, message: Message, origin: Origin, now: u64, draw: u64) -> bool {
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
                    catalog |= self.apply(cells, from, number, told, origin, now);
                }
            }
            None => {}
        }
        for note in notes {
            self.take_note(cells, from, sequence, note, origin, now, draw);
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

    fn apply(&mut self, cells: &Arc<Cells>, from: NodeId, number: u64, told: Told, origin: Origin, now: u64) -> bool {
        let Some(peer) = self.peers.get_mut(&from) else { return false };
        peer.heard = Some(number);
        peer.owes_ack = true;
        self.figures.heard += 1;
        match told {
            Told::Begin { write, process_id, set } => {
                peer.marks.insert(write, cells.mark_for_peer(&set, Origin { process_id, ..origin }));
            }
            Told::Bump { set, draw } => {
                cells.move_stamps(&set, now, draw);
                let catalog = set.catalog;
                self.note_moved(from, number, set, draw);
                return catalog;
            }
            Told::End { write } => {
                if let Some(mark) = peer.marks.remove(&write) {
                    mark.rolled_back();
                }
            }
            Told::Adrift if from < self.me && self.has_lived => self.begin_adoption(cells),
            Told::Adrift => {}
            Told::Bye => {
                // What it had begun it has ended, or it runs on and is in doubt.
                self.peers.remove(&from);
                self.left.insert(from);
                if let Some(adoption) = &mut self.adoption {
                    adoption.heard.remove(&from);
                }
            }
        }
        false
    }

    fn note_moved(&mut self, from: NodeId, number: u64, set: WriteSet, draw: u64) {
        if let Some(adoption) = &mut self.adoption {
            adoption.moved.push((from, number, set, draw));
        }
    }

    #[expect(clippy::too_many_arguments, reason = "all of them belong to one message")]
    fn take_note(
        &mut self,
        cells: &Arc<Cells>,
        from: NodeId,
        sequence: u64,
        note: Note,
        origin: Origin,
        now: u64,
        draw: u64,
    ) {
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
                    marks.insert(write, cells.mark_for_peer(&set, Origin { process_id, ..origin }));
                }
                // The new ones stand before the old ones go.
                for (_, mark) in std::mem::replace(&mut peer.marks, marks) {
                    mark.rolled_back();
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
            Note::Totals { to, sent_at, heard, totals } if to == me => {
                self.adopt(cells, from, sent_at, &heard.into_iter().collect(), totals, now, draw);
            }
            _ => {}
        }
    }

    /// Something was missed, or is missing elsewhere: what its stamps stand for is not what those of the others do.
    fn begin_adoption(&mut self, cells: &Cells) {
        cells.close(Closure::Peers);
        let of = |(node, peer): (&NodeId, &Peer)| Some((*node, peer.heard?));
        let mut heard: BTreeMap<_, _> = self.peers.iter().filter_map(of).collect();
        heard.insert(self.me, self.sequence);
        self.adoption = Some(Adoption { heard, ..Adoption::default() });
    }

    /// Whose stamps it shares: the oldest that has some. `None`: its own are those that others take.
    fn elder(&self) -> Option<NodeId> {
        let is_elder = |(node, peer): &(&NodeId, &Peer)| peer.is_settled && (**node < self.me || !self.has_lived);
        self.peers.iter().find(is_elder).map(|(node, _)| *node)
    }

    #[expect(clippy::too_many_arguments, reason = "all of them belong to one answer")]
    fn adopt(
        &mut self,
        cells: &Arc<Cells>,
        from: NodeId,
        sent_at: u64,
        heard: &BTreeMap<NodeId, u64>,
        mut totals: Totals,
        now: u64,
        draw: u64,
    ) {
        let Some(adoption) = self.adoption.as_ref().filter(|adoption| adoption.asked_at == Some(sent_at)) else {
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
        // Their marks are dropped: what they had begun is in doubt until its server process has gone.
        let known = self.peers.len();
        self.peers.retain(|_, peer| !is_gone(peer));
        let gone = known - self.peers.len();
        self.figures.lost += gone as u64;
        if gone > 0 && self.has_lived {
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

    /// Finds whose stamps it shares, once all have been heard of.
    fn come_to_terms(&mut self, cells: &Cells, now: u64, draw: u64) {
        let is_due = self.adoption.is_some() || !self.is_settled;
        if !is_due || !self.knows_all() || self.peers.values().any(|peer| peer.heard.is_none()) {
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
            self.notes.push(Note::Ask { to: elder, sent_at: now });
        }
    }

    /// Until when nobody can have finished a write that this one does not know of.
    pub fn trusted_until(&self) -> u64 {
        if !self.is_settled() {
            return 0;
        }
        let listed = self.listed_at.map_or(0, |at| at.saturating_add(self.times.view));
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
                self.notes.push(Note::Totals { to, sent_at, heard, totals: cells.totals() });
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

impl Totals {
    fn add(&mut self, set: &WriteSet, draw: u64) {
        for relation in &set.relations {
            match self.relations.iter_mut().find(|(known, _)| known == relation) {
                Some((_, stamp)) => *stamp = stamp.wrapping_add(draw),
                None => self.relations.push((*relation, draw)),
            }
        }
        if set.database || set.catalog {
            self.database = self.database.wrapping_add(draw);
        }
    }
}
