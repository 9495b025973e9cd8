//! Pools that share limits, step by step as a seed says: nothing is opened beyond a limit, and nobody waits for what
//! could be had.

use std::sync::Arc;

use pgweir::pool::{
    quota::{Claim, Full, Quotas},
    wait_queue::{CheckOut, Grant, Shape, Ticket, WaitQueue},
};

use crate::random::{Random, seeds};

const STEPS: usize = 400;
const MAX_OPENING: usize = 2;

struct Pool {
    queue: WaitQueue<u64>,
    claim: Claim,
    waiting: Vec<(u64, Ticket)>,
    lent: Vec<u64>,
    opening: usize,
    size: usize,
}

/// What the shell around the queue and the quotas does, without locks and tasks.
struct World {
    pools: Vec<Pool>,
    quotas: Quotas,
    databases: Vec<(Arc<str>, usize)>,
    users: Vec<(Arc<str>, usize)>,
    now: u64,
    next: u64,
}

fn name(kind: &str, number: usize) -> Arc<str> {
    format!("{kind}{number}").into()
}

fn shape(size: usize, reserve: usize) -> Shape {
    Shape { size, reserve, reserve_after: 50, max_opening: MAX_OPENING, is_round_robin: false }
}

impl World {
    fn new(random: &mut Random) -> Self {
        let limit = |random: &mut Random| random.below(5);
        let databases: Vec<_> = (0..2).map(|number| (name("db", number), limit(random))).collect();
        let users: Vec<_> = (0..2).map(|number| (name("user", number), limit(random))).collect();
        let mut pools = Vec::new();
        for (database, _) in &databases {
            for (user, _) in &users {
                let claim = Claim { database: Arc::clone(database), user: Arc::clone(user) };
                let size = 1 + random.below(4);
                let queue = WaitQueue::new(shape(size, random.below(2)));
                pools.push(Pool { queue, claim, waiting: Vec::new(), lent: Vec::new(), opening: 0, size });
            }
        }
        let mut world = Self { pools, quotas: Quotas::default(), databases, users, now: 0, next: 0 };
        world.set_limits();
        world
    }

    fn limits_of(&self, claim: &Claim) -> (usize, usize) {
        let of = |all: &[(Arc<str>, usize)], name: &Arc<str>| all.iter().find(|(known, _)| known == name).unwrap().1;
        (of(&self.databases, &claim.database), of(&self.users, &claim.user))
    }

    fn set_limits(&mut self) {
        for at in 0..self.pools.len() {
            let claim = self.pools[at].claim.clone();
            let (database, user) = self.limits_of(&claim);
            self.quotas.limit(&claim, database, user);
        }
    }

    fn ask(&mut self, at: usize) {
        let Self { pools, quotas, now, .. } = self;
        let Pool { queue, claim, waiting, lent, opening, .. } = &mut pools[at];
        queue.tick(*now);
        if let Some(server) = queue.take_rested(|_| true) {
            lent.push(server);
            return;
        }
        let room = |since| quotas.take(claim, at as u64, Some(since)).is_ok();
        match queue.enlist(*now, room) {
            CheckOut::Granted(Grant::Server(server)) => lent.push(server),
            CheckOut::Granted(Grant::Open { .. }) => *opening += 1,
            CheckOut::Wait(ticket) => waiting.push((*now, ticket)),
        }
    }

    /// Whatever can be granted in one pool.
    fn hand_out(&mut self, at: usize) {
        let Self { pools, quotas, .. } = self;
        let Pool { queue, claim, waiting, lent, opening, .. } = &mut pools[at];
        while let Some((ticket, grant)) = queue.next_grant(|since| quotas.take(claim, at as u64, Some(since)).is_ok()) {
            let place = waiting.iter().position(|(_, waiting)| *waiting == ticket).expect("nobody has this ticket");
            let (since, _) = waiting.remove(place);
            assert!(waiting.iter().all(|(other, _)| *other >= since), "an older one was passed over");
            match grant {
                Grant::Server(server) => lent.push(server),
                Grant::Open { .. } => *opening += 1,
            }
        }
        if waiting.is_empty() {
            quotas.forget(at as u64);
        }
    }

    fn full(&self, claim: &Claim) -> Full {
        let (database, user) = self.limits_of(claim);
        let used = self.quotas.used(claim);
        Full { database: database > 0 && used.0 >= database, user: user > 0 && used.1 >= user }
    }

    /// As the pool does after each change: hand out, make room where it is needed, wake the others.
    fn settle(&mut self, at: usize) {
        self.hand_out(at);
        for at in 0..self.pools.len() {
            self.make_room(at);
        }
        while let Some(woken) = self.quotas.next_to_wake() {
            self.hand_out(usize::try_from(woken).unwrap());
        }
    }

    /// Closes idle connections of other pools, one for each limit that keeps this pool from opening, or one for both.
    fn make_room(&mut self, at: usize) {
        let Pool { queue, claim, waiting, size, .. } = &self.pools[at];
        let may_open = !waiting.is_empty() && queue.open() < *size && queue.opening() < MAX_OPENING;
        let full = self.full(claim);
        if !may_open || full == Full::default() {
            return;
        }
        let idle = |shares: &dyn Fn(&Claim) -> bool| {
            let others = self.pools.iter().enumerate().filter(|(other, _)| *other != at);
            let mut others = others.filter(|(_, pool)| shares(&pool.claim) && !pool.queue.idle().is_empty());
            others.next().map(|(other, _)| other)
        };
        let by_database = idle(&|other| other.database == claim.database);
        let by_user = idle(&|other| other.user == claim.user);
        let by_both = idle(&|other| other.database == claim.database && other.user == claim.user);
        let victims = match (full.database, full.user) {
            (true, false) => vec![by_database],
            (false, _) => vec![by_user],
            (true, true) if by_both.is_some() => vec![by_both],
            (true, true) if by_database.is_some() && by_user.is_some() => vec![by_database, by_user],
            (true, true) => Vec::new(),
        };
        for victim in victims.into_iter().flatten() {
            let mut left = 1;
            let closed = self.pools[victim].queue.take_idle(|_| std::mem::take(&mut left) == 1);
            assert_eq!(closed.len(), 1);
            self.close(victim);
        }
        while let Some(woken) = self.quotas.next_to_wake() {
            self.hand_out(usize::try_from(woken).unwrap());
        }
    }

    fn close(&mut self, at: usize) {
        let pool = &mut self.pools[at];
        pool.queue.closed();
        self.quotas.give_back(&pool.claim);
    }

    fn give_back(&mut self, at: usize, which: usize) {
        let pool = &mut self.pools[at];
        let server = pool.lent.swap_remove(which);
        let own = pool.queue.oldest();
        if pool.queue.is_oversized() || self.quotas.must_yield(&pool.claim, at as u64, own) {
            self.close(at);
        } else {
            pool.queue.check_in(server);
        }
    }

    fn finish_opening(&mut self, at: usize, succeeds: bool) {
        self.pools[at].opening -= 1;
        if succeeds {
            self.next += 1;
            let pool = &mut self.pools[at];
            pool.queue.opened();
            pool.lent.push(self.next);
        } else {
            self.pools[at].queue.open_failed();
            let claim = self.pools[at].claim.clone();
            self.quotas.give_back(&claim);
        }
    }

    fn used(&self) -> usize {
        self.pools.iter().map(|pool| pool.queue.open()).sum()
    }

    fn step(&mut self, random: &mut Random) {
        self.now += random.below(20) as u64;
        let at = random.below(self.pools.len());
        let before: Vec<_> = self.pools.iter().map(|pool| self.quotas.used(&pool.claim)).collect();
        match random.below(12) {
            0..5 => self.ask(at),
            5..8 if !self.pools[at].lent.is_empty() => {
                let which = random.below(self.pools[at].lent.len());
                self.give_back(at, which);
            }
            8..10 if self.pools[at].opening > 0 => self.finish_opening(at, !random.one_in(4)),
            10 if !self.pools[at].waiting.is_empty() => {
                let which = random.below(self.pools[at].waiting.len());
                let (_, ticket) = self.pools[at].waiting.remove(which);
                assert!(self.pools[at].queue.withdraw(ticket), "one who waits was granted something in secret");
            }
            11 if random.one_in(4) => {
                let (of, number, limit) = (random.one_in(2), random.below(2), random.below(5));
                if of {
                    self.databases[number].1 = limit
                } else {
                    self.users[number].1 = limit
                }
                self.set_limits();
            }
            _ => (0..self.pools.len()).for_each(|at| self.pools[at].queue.tick(self.now)),
        }
        self.settle(at);
        self.check(&before);
    }

    fn check(&self, before: &[(usize, usize)]) {
        for (pool, before) in self.pools.iter().zip(before) {
            pool.queue.check_invariants();
            let Pool { queue, claim, waiting, lent, opening, size } = pool;
            assert_eq!(queue.open(), lent.len() + opening + queue.idle().len());
            let (used, (database, user)) = (self.quotas.used(claim), self.limits_of(claim));
            assert!(database == 0 || used.0 <= database || used.0 <= before.0, "{used:?} of {database}");
            assert!(user == 0 || used.1 <= user || used.1 <= before.1, "{used:?} of {user}");
            let may_open = queue.open() < *size && queue.opening() < MAX_OPENING;
            let is_stuck = !waiting.is_empty() && may_open && self.full(claim) == Full::default();
            assert!(!is_stuck, "somebody waits although there is room");
        }
        let counted: usize = self
            .databases
            .iter()
            .map(|(name, _)| {
                let claim = Claim { database: Arc::clone(name), user: "".into() };
                self.quotas.used(&claim).0
            })
            .sum();
        assert_eq!(counted, self.used());
    }

    /// Everybody gives back what he has, and all logins succeed: nobody may be left waiting.
    fn drain(&mut self) {
        for _ in 0..10_000 {
            if self.pools.iter().all(|pool| pool.waiting.is_empty()) {
                return;
            }
            self.now += 1_000_000_000;
            for at in 0..self.pools.len() {
                self.pools[at].queue.tick(self.now);
                while self.pools[at].opening > 0 {
                    self.finish_opening(at, true);
                }
                while !self.pools[at].lent.is_empty() {
                    self.give_back(at, 0);
                    self.settle(at);
                }
                self.settle(at);
            }
        }
        panic!("somebody waits for ever");
    }
}

#[test]
fn no_limit_is_exceeded_and_nobody_waits_for_what_could_be_had() {
    for seed in seeds(0..300) {
        let outcome = std::panic::catch_unwind(|| {
            let mut random = Random::new(seed);
            let mut world = World::new(&mut random);
            for _ in 0..STEPS {
                world.step(&mut random);
            }
            world.drain();
        });
        assert!(outcome.is_ok(), "SEED={seed}");
    }
}
