//! What a history is made of, and how it is run.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{
    checker::{Cell, Found, History, Outcome, Violation, check_due},
    faults::{Deck, Fault},
    listening::listen,
    order::{Disorder, Shown, check_cuts, check_order},
    session::{Dice, Session, Shared},
    topology::{Due, Topology},
    world::{FAMILIES, Family, Shape, owner, shapes},
    writes::{Form, forms},
};

/// Writes and reads that are shown on each side of what was found.
const NEAR: usize = 30;

/// `max_staleness_direct`, the default.
pub const BOUND: Duration = Duration::from_secs(1);

/// Between attempts to connect.
const AGAIN: Duration = Duration::from_millis(10);
/// Between actions of those who write without the proxies: what they change more often nobody keeps.
const DIRECT_EVERY: Duration = Duration::from_millis(50);

/// What the sessions do.
#[derive(Clone, Debug)]
pub struct Plan {
    pub families: Vec<Family>,
    pub shapes: Vec<Shape>,
    pub writes: Vec<(Family, Form)>,
    pub sessions: u16,
    /// Of a thousand actions.
    pub writes_per_mille: u64,
    /// Sessions change time zone, date style, search path and role.
    pub changes_settings: bool,
    /// Definitions change this often.
    pub definitions: Option<Duration>,
    /// Somebody watches the primary, and somebody listens to it.
    pub observers: u16,
    pub listens: bool,
    /// So many write without the proxies, and nobody misses that who begins to read so much later.
    pub direct: u16,
    pub bound: Duration,
    pub faults: Vec<Fault>,
}

impl Plan {
    /// Everything but definitions, of these families.
    pub fn of(names: &[&str]) -> Self {
        let families: Vec<Family> = match names {
            [] => FAMILIES.to_vec(),
            names => names.iter().map(|name| Family::named(name)).collect(),
        };
        let writes = families.iter().flat_map(|family| forms(*family).into_iter().map(|form| (*family, form)));
        let defines = |form: Form| matches!(form, Form::Drop | Form::Swing | Form::Alter | Form::Refresh);
        Self {
            shapes: shapes(&families),
            writes: writes.filter(|(_, form)| !defines(*form)).collect(),
            families,
            sessions: 32,
            writes_per_mille: 30,
            changes_settings: true,
            definitions: None,
            observers: 1,
            listens: false,
            direct: 0,
            bound: BOUND,
            faults: Vec::new(),
        }
    }

    /// Written in these ways only.
    pub fn writes(mut self, ways: &[Form]) -> Self {
        self.writes.retain(|(_, form)| ways.contains(form));
        self
    }

    /// When it is too late to miss what somebody wrote.
    pub fn due(&self) -> Due {
        Due { first_direct: self.sessions + self.observers, bound: self.bound }
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Verdict {
    pub violations: Vec<Violation>,
    pub disorders: Vec<Disorder>,
    pub wrong: Vec<String>,
    /// What else is known of the first cell.
    context: Vec<String>,
}

impl Verdict {
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty() && self.disorders.is_empty() && self.wrong.is_empty()
    }

    /// Did somebody see what was no longer so?
    pub fn is_stale(&self) -> bool {
        let is_stale = |violation: &Violation| matches!(violation, Violation::Stale { .. });
        self.violations.iter().any(is_stale) || !self.disorders.is_empty() || !self.wrong.is_empty()
    }
}

struct StopsAtEnd<'a>(&'a AtomicBool);

impl Drop for StopsAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A history that goes on from round to round: what is known of a round stays, its reads go.
pub struct Story<'a> {
    topology: &'a Topology<'a>,
    plan: Plan,
    seed: u64,
    shared_start: Instant,
    rounds: u64,
    last_writes: HashMap<u16, i64>,
    history: History,
    /// What anybody has seen.
    shown: Shown,
    deck: Deck,
    /// How often each has happened.
    pub faults: BTreeMap<Fault, u64>,
    pub reads: u64,
    pub compared: u64,
    pub failed: HashMap<String, u64>,
}

impl<'a> Story<'a> {
    pub fn new(topology: &'a Topology<'a>, plan: Plan, seed: u64) -> Self {
        Self {
            topology,
            plan,
            seed,
            shared_start: Instant::now(),
            rounds: 0,
            last_writes: HashMap::new(),
            history: History::default(),
            shown: Shown::default(),
            deck: Deck::default(),
            faults: BTreeMap::new(),
            reads: 0,
            compared: 0,
            failed: HashMap::new(),
        }
    }

    /// Writes of this outcome.
    pub fn writes(&self, outcome: Outcome) -> usize {
        self.history.writes.iter().filter(|write| write.outcome == outcome).count()
    }

    /// Writes without the proxies, however they ended.
    pub fn direct_writes(&self) -> usize {
        let due = self.plan.due();
        self.history.writes.iter().filter(|write| due.is_direct(write.id)).count()
    }

    /// All sessions at once for this long; what they saw is judged.
    pub fn round(&mut self, time: Duration) -> Verdict {
        self.rounds += 1;
        let plan = self.plan.clone();
        let shared = Shared {
            plan: &plan,
            database: &self.topology.database,
            primary: self.topology.cluster.primary.address(),
            start: self.shared_start,
            is_linearizable: self.topology.is_linearizable,
        };
        let stop = AtomicBool::new(false);
        let seed = self.seed.wrapping_add(self.rounds << 32);
        let mut verdict = Verdict::default();
        thread::scope(|scope| {
            let (shared, stop) = (&shared, &stop);
            let first_direct = plan.sessions + plan.observers;
            let numbers = 0..first_direct + plan.direct;
            let sessions: Vec<_> = numbers
                .map(|number| {
                    let last_write = self.last_writes.get(&number).copied().unwrap_or_default();
                    let is_direct = number >= first_direct;
                    let address = if is_direct { shared.primary.clone() } else { self.topology.address(number) };
                    let session = Session::new(number, shared, address, seed, last_write);
                    scope.spawn(move || session.run(stop))
                })
                .collect();
            let listener = plan.listens.then(|| {
                let address = self.topology.address(0);
                let session = Session::new(900, shared, address, seed, 0);
                let topology = self.topology;
                scope.spawn(move || listen(session, topology, stop))
            });
            // Whatever happens here, they must end.
            let stops = StopsAtEnd(stop);
            let mut dice = Dice(seed | 1);
            let end = Instant::now() + time;
            while Instant::now() < end {
                clear_up(self.topology);
                match plan.faults.as_slice() {
                    [] => thread::sleep(Duration::from_millis(100).min(end.saturating_duration_since(Instant::now()))),
                    faults => {
                        let fault = self.deck.next(faults, &mut dice);
                        fault.happen(self.topology, &mut dice);
                        *self.faults.entry(fault).or_default() += 1;
                    }
                }
            }
            drop(stops);
            // Who still waits may wait for what somebody has prepared who is gone.
            while sessions.iter().any(|session| !session.is_finished()) {
                clear_up(self.topology);
                thread::sleep(AGAIN);
            }
            for session in sessions.into_iter().chain(listener) {
                let Session { number, history, wrong, failed, last_write, compared, .. } = session.join().unwrap();
                self.reads += history.reads.len() as u64;
                self.compared += compared;
                self.history.reads.extend(history.reads);
                self.history.writes.extend(history.writes);
                self.last_writes.insert(number, last_write);
                verdict.wrong.extend(wrong);
                failed.into_iter().for_each(|code| *self.failed.entry(code).or_default() += 1);
            }
        });
        let due = plan.due();
        verdict.violations = check_due(&self.history, self.topology.promise, |write| due.of_write(write));
        if self.topology.is_linearizable {
            self.shown.add(&self.history.reads, |writer, seen| due.of(writer, seen));
            verdict.disorders = check_order(&self.history.reads, &self.shown);
        }
        verdict.disorders.extend(check_cuts(&self.history));
        verdict.context = self.context(&verdict);
        self.history.reads.clear();
        verdict
    }

    /// The writes of the first cell that something was found about, and who saw the version that was found.
    fn context(&self, verdict: &Verdict) -> Vec<String> {
        let stale = verdict.violations.iter().find_map(|violation| match violation {
            Violation::Stale { cell, found: Found::Row { version, .. }, session, .. } => {
                Some((*cell, *version, *session))
            }
            _ => None,
        });
        let disorder = verdict.disorders.first().map(|disorder| match disorder {
            Disorder::Backwards { cell, found, session, .. } | Disorder::Half { cell, found, session, .. } => {
                (*cell, *found, *session)
            }
        });
        let Some((cell, version, reader)) = stale.or(disorder) else { return Vec::new() };
        let is_near = |(of, made): &(Cell, i64)| *of == cell && (version..version + 3).contains(made);
        let writes = self.history.writes.iter().filter(|write| write.cells.iter().any(is_near));
        let shows = |(of, found): &(Cell, Found)| {
            *of == cell && matches!(found, Found::Row { version: shown, .. } if (version..version + 3).contains(shown))
        };
        let reads = self.history.reads.iter().filter(|read| read.found.iter().any(shows));
        let reads = reads.map(|read| {
            let found = read.found.iter().find(|found| shows(found)).map(|(_, found)| *found);
            let mark = if read.session == reader { "*" } else { "" };
            (read.began, format!("{mark}session {} read {} to {}: {found:?}", read.session, read.began, read.ended))
        });
        let mut lines: Vec<_> = writes.map(|write| (write.began, format!("{write:?}"))).chain(reads).collect();
        lines.sort();
        // What was found is most often the last that its session was shown of that version.
        let (found, mark) = (format!("version: {version}, "), format!("*session {reader} "));
        let is_found = |line: &str| line.starts_with(&mark) && line.contains(&found);
        let at = lines.iter().rposition(|(_, line)| is_found(line)).unwrap_or(0);
        let lines = lines.into_iter().map(|(_, line)| line);
        lines.skip(at.saturating_sub(NEAR)).take(2 * NEAR).collect()
    }

    /// What there is to say about what was found.
    pub fn describe(&self, verdict: &Verdict) -> String {
        let sql = |shape: u16| &self.plan.shapes[usize::from(shape)].sql;
        let named = |cell: Cell| format!("{} {}", owner(cell).0.name, owner(cell).1);
        let violations = verdict.violations.iter().map(|violation| match violation {
            Violation::Stale { shape, cell, .. }
            | Violation::Phantom { shape, cell, .. }
            | Violation::Torn { shape, cell, .. } => format!("{violation:?} {}: {}", named(*cell), sql(*shape)),
        });
        let disorders = verdict.disorders.iter().map(|disorder| match disorder {
            Disorder::Backwards { shape, cell, .. } | Disorder::Half { shape, cell, .. } => {
                format!("{disorder:?} {}: {}", named(*cell), sql(*shape))
            }
        });
        let (some, more) = (violations.take(6), disorders.take(6));
        let lines: Vec<String> = some.chain(more).chain(verdict.wrong.iter().take(4).cloned()).collect();
        let context = verdict.context.join("\n");
        let counts = (verdict.violations.len(), verdict.disorders.len(), verdict.wrong.len());
        format!("{counts:?} found, seed {}, the first are\n{}\n{context}", self.seed, lines.join("\n"))
    }
}

impl Session<'_> {
    fn run(mut self, stop: &AtomicBool) -> Self {
        let plan = self.shared.plan;
        let observes = self.number >= plan.sessions;
        let is_direct = self.number >= plan.due().first_direct;
        let mut defined = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            // Whoever lost his connection begins anew, with nothing set.
            if self.client().is_err() {
                thread::sleep(AGAIN);
                continue;
            }
            let action = self.dice.roll(1000);
            let is_due = plan.definitions.is_some_and(|period| defined.elapsed() > period);
            let is_definers_turn = self.number == 0 && is_due;
            // A connection that is lost is opened again by the next action.
            let _lost = if is_definers_turn {
                defined = Instant::now();
                self.define()
            } else if is_direct {
                thread::sleep(DIRECT_EVERY);
                if action < 800 { self.write() } else { self.read() }
            } else if observes {
                self.observe()
            } else if action < plan.writes_per_mille {
                self.write()
            } else if action < plan.writes_per_mille + 4 {
                self.compare()
            } else if action < plan.writes_per_mille + 8 {
                self.take_over()
            } else if action < plan.writes_per_mille + 12 && plan.changes_settings {
                self.change_settings()
            } else if action < plan.writes_per_mille + 24 && plan.changes_settings {
                self.read_own_secret()
            } else {
                self.read()
            };
        }
        self
    }

    fn define(&mut self) -> Result<(), super::session::Lost> {
        let defining =
            [("refreshed", Form::Refresh), ("dropped", Form::Drop), ("swung", Form::Swing), ("altered", Form::Alter)];
        let (name, form) = *self.dice.pick(&defining);
        let family = Family::named(name);
        // Along another path the table would come back elsewhere.
        if self.settings.is_stranger || self.settings.path != 0 || !self.shared.plan.families.contains(&family) {
            return Ok(());
        }
        self.write_as(family, form)
    }
}

/// Transactions that were prepared on a connection that was lost hold their locks.
fn clear_up(topology: &Topology<'_>) {
    let mut admin = topology.cluster.primary.session(&topology.database);
    let left =
        "select gid from pg_prepared_xacts where database = current_database() and prepared < now() - interval '1 s'";
    for row in admin.rows(left) {
        // Whoever commits it at this moment is faster, or not.
        admin.query(&format!("rollback prepared '{}'", row[0]));
    }
}
