//! Everything that can happen next.

use crate::{
    rules::{Bump, InDoubt, Join, Lease, Outside, Promise, Rules},
    state::{Answer, Fill, Hit, Message, Phase, Proxy, State, Watermark, bit},
};

/// One thing that happened, for the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Send(usize),
    Log(usize),
    Show(usize),
    Abort(usize),
    Lose(usize),
    SettleHalf(usize),
    Settle(usize),
    Tell(usize),
    Receive(usize),
    Hear(usize),
    Lapse(usize),
    Return(usize),
    Fetch(usize),
    Replay,
    Sample,
    Capture(usize),
    AskPrimary(usize),
    AskReplica(usize),
    Store(usize),
    Join(usize),
    Look(usize),
    LoadFirst(usize),
    LoadSecond(usize),
}

/// A step that showed somebody less than was owed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Violation(pub(crate) Step);

pub(crate) struct Steps<'a> {
    rules: &'a Rules,
    from: State,
    pub(crate) next: Vec<(Step, State)>,
    pub(crate) violation: Option<Violation>,
}

impl<'a> Steps<'a> {
    pub(crate) fn from(rules: &'a Rules, from: State) -> Self {
        let mut steps = Self { rules, from, next: Vec::new(), violation: None };
        for write in 0..rules.writes {
            if steps.is_outside(write) {
                steps.pass_by(write);
                continue;
            }
            steps.serve_write(write);
            steps.lose(write);
        }
        for proxy in 0..rules.proxies {
            steps.receive(proxy);
            steps.fill(proxy);
            steps.join(proxy);
            steps.look(proxy);
            steps.fetch(proxy);
            steps.lapse(proxy);
        }
        if rules.replica {
            steps.replicate();
        }
        steps
    }

    /// The state after `change`.
    fn add(&mut self, step: Step, change: impl FnOnce(&mut State)) {
        let mut state = self.from;
        change(&mut state);
        if state != self.from {
            self.next.push((step, state));
        }
    }

    /// Writes are spread over the proxies.
    fn home(&self, write: usize) -> usize {
        write % self.rules.proxies
    }

    fn peers(&self) -> u8 {
        u8::from(self.rules.proxies > 1)
    }

    // ---- writes

    fn serve_write(&mut self, write: usize) {
        let Rules { bump, waits_for_peers, .. } = *self.rules;
        let state = self.from.writes[write];
        let peer = (self.home(write) + 1) % self.rules.proxies;
        let is_awaited = state.awaited != 0 && !self.from.proxies[peer].has_lapsed;
        let may_go_on = !is_awaited || !waits_for_peers;
        match state.phase {
            Phase::Idle => self.send(write),
            Phase::Sent if may_go_on || state.is_lost => {
                self.add(Step::Log(write), |s| {
                    s.append(write);
                    s.writes[write].phase = Phase::Logged;
                });
                self.add(Step::Abort(write), |s| s.writes[write].phase = Phase::Aborted);
            }
            Phase::Logged => self.add(Step::Show(write), |s| {
                s.visible |= bit(write);
                s.writes[write].phase = Phase::Visible;
            }),
            Phase::Visible if bump == Bump::BeforeCommit => self.tell(write, Phase::Done),
            Phase::Visible if bump == Bump::AfterReply && !state.is_lost => self.tell(write, Phase::ToldEarly),
            Phase::Visible | Phase::ToldEarly => self.settle_half(write),
            Phase::HalfSettled => self.settle(write),
            Phase::Settled if may_go_on => self.tell(write, Phase::Done),
            Phase::Aborted => self.cancel(write),
            Phase::Sent | Phase::Settled | Phase::Done => {}
        }
    }

    fn is_outside(&self, write: usize) -> bool {
        write == 0 && self.rules.outside != Outside::Never
    }

    /// A write that no proxy has to do with, until it reads of it in the log.
    fn pass_by(&mut self, write: usize) {
        let visibly = self.rules.outside == Outside::WhenVisible;
        let phase = self.from.writes[write].phase;
        match phase {
            Phase::Idle => self.add(Step::Log(write), |s| {
                s.append(write);
                s.writes[write].phase = Phase::Logged;
            }),
            Phase::Logged => self.add(Step::Show(write), |s| {
                s.visible |= bit(write);
                s.writes[write].phase = Phase::Visible;
            }),
            _ => {}
        }
        if phase == Phase::Visible || (phase == Phase::Logged && !visibly) {
            self.add(Step::Hear(write), |s| {
                s.proxies.iter_mut().for_each(|proxy| bump(proxy, write));
                s.heard |= bit(write);
            });
        }
    }

    fn send(&mut self, write: usize) {
        let (home, peers, rules) = (self.home(write), self.peers(), *self.rules);
        self.add(Step::Send(write), |s| {
            s.writes[write].phase = Phase::Sent;
            if rules.marks_before_commit {
                s.proxies[home].in_flight |= bit(write);
                s.writes[write].awaited = peers;
                if peers != 0 {
                    s.channels[home].send(Message::Mark(write));
                }
            }
            if rules.bump == Bump::BeforeCommit {
                s.proxies[home].stamp |= bit(write);
            }
        });
    }

    /// Stamp, then mark: two loads of a hit may fall between.
    fn settle_half(&mut self, write: usize) {
        let (home, rules) = (self.home(write), *self.rules);
        self.add(Step::SettleHalf(write), |s| {
            if rules.releases_after_bump {
                bump(&mut s.proxies[home], write);
            } else {
                s.proxies[home].in_flight &= !bit(write);
            }
            s.writes[write].phase = Phase::HalfSettled;
        });
    }

    fn settle(&mut self, write: usize) {
        let (home, peers) = (self.home(write), self.peers());
        self.add(Step::Settle(write), |s| {
            bump(&mut s.proxies[home], write);
            s.proxies[home].in_flight &= !bit(write);
            s.writes[write].awaited = peers;
            s.writes[write].phase = Phase::Settled;
            if peers != 0 {
                s.channels[home].send(Message::Committed(write));
            }
        });
    }

    fn tell(&mut self, write: usize, then: Phase) {
        self.add(Step::Tell(write), |s| {
            if !s.writes[write].is_lost {
                s.told |= bit(write);
            }
            s.writes[write].phase = then;
        });
    }

    fn cancel(&mut self, write: usize) {
        let (home, peers) = (self.home(write), self.peers());
        self.add(Step::Settle(write), |s| {
            s.proxies[home].in_flight &= !bit(write);
            s.writes[write].phase = Phase::Done;
            if peers != 0 {
                s.channels[home].send(Message::RolledBack(write));
            }
        });
    }

    /// From here on the proxy learns of the outcome only when the backend is gone, which is when the
    /// write is visible or aborted: the same steps as for a write that was answered.
    fn lose(&mut self, write: usize) {
        let (home, in_doubt) = (self.home(write), self.rules.in_doubt);
        let state = self.from.writes[write];
        if in_doubt == InDoubt::Never
            || state.is_lost
            || state.awaited != 0
            || self.from.proxies[self.home(write)].has_lapsed
            || !matches!(state.phase, Phase::Sent | Phase::Logged | Phase::Visible)
        {
            return;
        }
        self.add(Step::Lose(write), |s| {
            s.writes[write].is_lost = true;
            if in_doubt == InDoubt::TakenForRollback {
                s.proxies[home].in_flight &= !bit(write);
            }
        });
    }

    /// What the other proxy has sent, one message at a time.
    fn receive(&mut self, proxy: usize) {
        let Some(sender) = (0..self.rules.proxies).find(|sender| *sender != proxy) else { return };
        self.add(Step::Receive(proxy), |s| {
            let here = &mut s.proxies[proxy];
            match s.channels[sender].receive() {
                Some(Message::Mark(write)) => {
                    here.in_flight |= bit(write);
                    s.writes[write].awaited = 0;
                }
                Some(Message::Committed(write)) => {
                    bump(here, write);
                    here.in_flight &= !bit(write);
                    s.writes[write].awaited = 0;
                }
                Some(Message::RolledBack(write)) => here.in_flight &= !bit(write),
                None => {}
            }
        });
    }

    /// One that is cut off is not waited for any longer; it comes back when it has heard everything.
    fn lapse(&mut self, proxy: usize) {
        let here = self.from.proxies[proxy];
        if self.rules.lease == Lease::Endless || self.rules.proxies < 2 {
            return;
        }
        // What its own writes owe to others is a matter of its backends, which die with it.
        let has_writes = (0..self.rules.writes).any(|write| {
            self.home(write) == proxy && !matches!(self.from.writes[write].phase, Phase::Idle | Phase::Done)
        });
        match here.has_lapsed {
            false if !has_writes => self.add(Step::Lapse(proxy), |s| s.proxies[proxy].has_lapsed = true),
            true if self.from.channels[1 - proxy].is_empty() => self.add(Step::Return(proxy), |s| {
                let fresh = Proxy { has_lapsed: false, cached: None, fill: None, hit: None, ..s.proxies[proxy] };
                s.proxies[proxy] = fresh;
            }),
            _ => {}
        }
    }

    /// Does it answer from its cache?
    fn serves(&self, proxy: usize) -> bool {
        !self.from.proxies[proxy].has_lapsed || self.rules.lease == Lease::Ignored
    }

    // ---- the replica

    fn replicate(&mut self) {
        let end = self.from.log_end();
        if self.from.replayed < end {
            self.add(Step::Replay, |s| s.replayed += 1);
        }
        // The position of the last log record is an upper bound of all that was acknowledged before.
        self.add(Step::Sample, |s| {
            for proxy in &mut s.proxies {
                resolve(&mut proxy.watermark, end);
                if let Some(fill) = &mut proxy.fill {
                    resolve(&mut fill.watermark, end);
                }
            }
        });
    }

    // ---- fills

    fn fill(&mut self, proxy: usize) {
        let rules = *self.rules;
        let here = self.from.proxies[proxy];
        match here.fill {
            None if here.in_flight == 0 && self.serves(proxy) => self.add(Step::Capture(proxy), |s| {
                let (stamp, watermark) = (here.stamp, here.watermark);
                s.proxies[proxy].fill = Some(Fill { stamp, watermark, shows: None, owed_to_joined: None });
            }),
            None => {}
            Some(fill @ Fill { shows: None, .. }) => {
                let visible = self.from.visible;
                self.answer(proxy, Step::AskPrimary(proxy), Fill { shows: Some(visible), ..fill });
                if rules.replica && may_ask_replica(&rules, fill, self.from.replayed) {
                    let shows = Some(self.from.on_replica());
                    self.answer(proxy, Step::AskReplica(proxy), Fill { shows, ..fill });
                }
            }
            Some(fill @ Fill { shows: Some(shows), .. }) => self.store(proxy, fill, shows),
        }
    }

    fn answer(&mut self, proxy: usize, step: Step, fill: Fill) {
        self.add(step, |s| s.proxies[proxy].fill = Some(fill));
    }

    fn store(&mut self, proxy: usize, fill: Fill, shows: u8) {
        let step = Step::Store(proxy);
        if fill.owed_to_joined.is_some_and(|owed| owed & !shows != 0) {
            self.violation = Some(Violation(step));
        }
        let captures_before_query = self.rules.captures_before_query;
        self.add(step, |s| {
            let here = &mut s.proxies[proxy];
            let stamp = if captures_before_query { fill.stamp } else { here.stamp };
            let answer = Answer { shows, stamp };
            here.cached = Some(answer);
            here.fill = None;
            s.share(answer);
        });
    }

    fn join(&mut self, proxy: usize) {
        let here = self.from.proxies[proxy];
        let Some(fill) = here.fill.filter(|fill| fill.owed_to_joined.is_none()) else { return };
        let may_join = match self.rules.join {
            Join::Never => false,
            Join::Any => true,
            Join::EqualStamps => here.in_flight == 0 && self.rules.stamps.are_equal(fill.stamp, here.stamp),
        };
        if may_join {
            let owed_to_joined = Some(self.owed());
            self.add(Step::Join(proxy), |s| s.proxies[proxy].fill = Some(Fill { owed_to_joined, ..fill }));
        }
    }

    // ---- hits

    fn owed(&self) -> u8 {
        match self.rules.promise {
            Promise::Told => self.from.told,
            Promise::Visible if self.rules.outside == Outside::Never => self.from.visible,
            // Of what passes by, only what was heard of is owed.
            Promise::Visible => self.from.visible & (self.from.heard | !bit(0)),
        }
    }

    /// A lookup finds the answer, loads one of the two words, then the other.
    /// Takes an answer out of the shared cache, where it lies under the stamps of this moment.
    fn fetch(&mut self, proxy: usize) {
        let here = self.from.proxies[proxy];
        if !self.rules.shared || here.in_flight != 0 || !self.serves(proxy) {
            return;
        }
        let (stamps, state) = (self.rules.stamps, self.from);
        for answer in state.shared().filter(|answer| stamps.are_equal(answer.stamp, here.stamp)) {
            // Whoever fetched it keeps it under the stamps that it was captured with.
            self.add(Step::Fetch(proxy), |s| s.proxies[proxy].cached = Some(answer));
        }
    }

    fn look(&mut self, proxy: usize) {
        let here = self.from.proxies[proxy];
        match (here.hit, here.cached) {
            (None, Some(answer)) if self.serves(proxy) => {
                let hit = Hit { answer, owed: self.owed(), has_passed_first: false };
                // A lookup that is shown all that it is owed cannot go wrong.
                if hit.owed & !answer.shows != 0 {
                    self.add(Step::Look(proxy), |s| s.proxies[proxy].hit = Some(hit));
                }
            }
            (None, _) => {}
            (Some(hit), _) if !hit.has_passed_first => {
                let passed = self.passes(&here, hit, self.rules.reads_mark_before_stamp);
                let then = passed.then_some(Hit { has_passed_first: true, ..hit });
                self.add(Step::LoadFirst(proxy), |s| s.proxies[proxy].hit = then);
            }
            (Some(hit), _) => {
                let step = Step::LoadSecond(proxy);
                if self.passes(&here, hit, !self.rules.reads_mark_before_stamp) {
                    self.violation = Some(Violation(step));
                }
                self.add(step, |s| s.proxies[proxy].hit = None);
            }
        }
    }

    fn passes(&self, here: &Proxy, hit: Hit, loads_mark: bool) -> bool {
        if loads_mark {
            return here.in_flight == 0;
        }
        self.rules.stamps.are_equal(hit.answer.stamp, here.stamp)
    }
}

fn bump(proxy: &mut Proxy, write: usize) {
    if proxy.stamp & bit(write) == 0 {
        proxy.stamp |= bit(write);
        proxy.watermark = Watermark::Unknown;
    }
}

fn resolve(watermark: &mut Watermark, log_end: u8) {
    if *watermark == Watermark::Unknown {
        *watermark = Watermark::At(log_end);
    }
}

fn may_ask_replica(rules: &Rules, fill: Fill, replayed: u8) -> bool {
    match fill.watermark {
        _ if !rules.watermark => true,
        Watermark::Nothing => true,
        Watermark::Unknown => false,
        Watermark::At(position) => replayed >= position,
    }
}
