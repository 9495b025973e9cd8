//! A primary, its stream and the questions about it under seeds: nothing is voided before everybody can see it, and a
//! horizon leaves nothing out.

use std::collections::{HashMap, HashSet, VecDeque};

use super::{Answer, Backlog, Changes, Settled, Transaction};
use crate::lsn::Lsn;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    fn pick(&mut self, length: usize) -> usize {
        self.roll(length as u64) as usize
    }
}

/// One relation per transaction, so that what is voided tells which one was.
#[derive(Default)]
struct Primary {
    next: u64,
    inserted: u64,
    running: Vec<u64>,
    /// In the log, and not visible.
    committed: Vec<u64>,
    /// By the number as the stream tells it.
    visible_at: HashMap<u32, u64>,
    /// Commit records and other records: where they end.
    log: VecDeque<(u64, Option<u64>)>,
}

impl Primary {
    fn snapshot(&self) -> String {
        let mut open: Vec<u64> = self.running.iter().chain(&self.committed).copied().collect();
        open.sort_unstable();
        let xmin = open.first().copied().unwrap_or(self.next);
        let listed: Vec<String> = open.iter().map(u64::to_string).collect();
        format!("{xmin}:{}:{}", self.next, listed.join(","))
    }

    fn step(&mut self, dice: &mut Dice, now: u64) {
        match dice.roll(5) {
            0 => {
                self.running.push(self.next);
                self.next += 1;
            }
            1 if !self.running.is_empty() => {
                let xid = self.running.swap_remove(dice.pick(self.running.len()));
                self.inserted += 8;
                self.committed.push(xid);
                self.log.push_back((self.inserted, Some(xid)));
            }
            2 if !self.running.is_empty() => _ = self.running.swap_remove(dice.pick(self.running.len())),
            3 if !self.committed.is_empty() => {
                let xid = self.committed.swap_remove(dice.pick(self.committed.len()));
                self.visible_at.insert(xid as u32, now);
            }
            _ => {
                self.inserted += 8;
                self.log.push_back((self.inserted, None));
            }
        }
    }
}

fn answer(primary: &Primary, asked_at: u64) -> Answer {
    let visibility = primary.snapshot().parse().unwrap();
    Answer { asked_at, ticket: asked_at, visibility, inserted: Lsn::new(primary.inserted) }
}

/// What a reader could have been served wrongly, if anything.
struct Judge {
    began_at: u64,
    /// What the stream will not tell of.
    before: HashSet<u32>,
    voided: HashSet<u32>,
    all_voided_at: Option<u64>,
}

impl Judge {
    fn judge(&mut self, primary: &Primary, settled: &Settled, now: u64) -> Result<(), String> {
        if settled.changes.everything {
            self.all_voided_at = Some(now);
        }
        for xid in &settled.changes.rows {
            if !primary.visible_at.contains_key(xid) {
                return Err(format!("{xid} is voided and nobody can see it"));
            }
            self.voided.insert(*xid);
        }
        let Some(horizon) = settled.horizon else { return Ok(()) };
        for (xid, visible_at) in primary.visible_at.iter().filter(|(_, at)| **at <= horizon && **at > self.began_at) {
            let is_voided = match self.before.contains(xid) {
                true => self.all_voided_at.is_some_and(|at| at >= *visible_at),
                false => self.voided.contains(xid) || self.all_voided_at.is_some_and(|at| at >= *visible_at),
            };
            if !is_voided {
                return Err(format!("horizon {horizon}, and {xid}, visible since {visible_at}, is not voided"));
            }
        }
        Ok(())
    }
}

/// Returns how many transactions were voided one by one, and how many horizons were reached.
fn run(seed: u64, ablate: bool) -> Result<(usize, usize), String> {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut primary = Primary { next: 1 + dice.roll(3) * (u64::from(u32::MAX) - 40), ..Primary::default() };
    for now in 0..dice.roll(40) {
        primary.step(&mut dice, now);
    }
    // The slot is made here: what was committed before is told by nobody.
    let before: HashSet<u32> = primary.committed.iter().map(|xid| *xid as u32).collect();
    primary.log.clear();
    let mut backlog = Backlog::new(answer(&primary, 40));
    if ablate {
        backlog = backlog.ablated();
    }
    let mut judge = Judge { began_at: 40, before, voided: HashSet::new(), all_voided_at: None };
    let (mut asked, mut horizons) = (None, 0);
    for now in 41..1_000 {
        match dice.roll(6) {
            0..=2 => primary.step(&mut dice, now),
            3 => match primary.log.pop_front() {
                Some((end, Some(xid))) => {
                    let changes = Changes { rows: vec![xid as u32], ..Changes::default() };
                    let end = Lsn::new(end);
                    backlog.committed(Transaction { xid: xid as u32, end, changes }).unwrap();
                }
                Some((end, None)) => backlog.reached(Lsn::new(end)),
                None => backlog.reached(Lsn::new(primary.inserted)),
            },
            // A question on its way: asked, answered by the primary, and the answer arrives.
            4 => asked = asked.take().or(Some((now, None))),
            _ => match asked.take() {
                Some((asked_at, None)) => asked = Some((asked_at, Some(answer(&primary, asked_at)))),
                Some((_, Some(answer))) => backlog.answered(answer),
                None => {}
            },
        }
        let settled = backlog.settle();
        horizons += usize::from(settled.horizon.is_some());
        judge.judge(&primary, &settled, now)?;
    }
    Ok((judge.voided.len(), horizons))
}

#[test]
fn nothing_is_voided_too_early_and_no_horizon_leaves_anything_out() {
    let (mut voided, mut horizons) = (0, 0);
    for seed in 0..400 {
        let found = run(seed, false).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        (voided, horizons) = (voided + found.0, horizons + found.1);
    }
    assert!(voided > 5_000 && horizons > 5_000, "{voided} {horizons}: the simulation does too little");
}

#[test]
fn without_the_look_at_a_snapshot_things_are_voided_too_early() {
    let found = (0..20).filter(|seed| run(*seed, true).is_err()).count();
    assert!(found > 10, "{found} of 20");
}
