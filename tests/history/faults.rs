//! Sessions that read and write at random while replicas pause, hang, crash and return and a replica becomes the primary:
//! no read misses what its session was told of, no write reaches a standby, and no autocommit read fails but those that ran
//! on a primary as it died.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    checker::{Cell, Found, History, Outcome, Promise, Read, Time, Violation, Write, check},
    seconds, seed,
    session::Dice,
    support::{Cluster, Proxy, RawClient, Reply, cluster, frames::query, proxy::Builder, wait_until},
    turn,
};

const SESSIONS: u16 = 12;
const KEYS: u64 = 6;

/// When a primary was dead, or being replaced.
type Gap = Mutex<Option<(Time, Time)>>;

struct Session<'a> {
    number: u16,
    proxy: &'a Proxy,
    database: &'a str,
    client: Option<RawClient>,
    dice: Dice,
    start: Instant,
    writes: i64,
    history: History,
    /// Autocommit reads that failed, and when.
    failed: Vec<(Time, Time, String)>,
}

impl Session<'_> {
    fn now(&self) -> Time {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap()
    }

    /// Sends and reads, or the last words of a connection that has ended: it is opened again for the next.
    fn ask(&mut self, message: &[u8]) -> Result<Reply, String> {
        let client = self.client.get_or_insert_with(|| self.proxy.session(self.database));
        client.patience(Duration::from_secs(60));
        let sent = client.try_send(message);
        let frames = client.until_closed_or(b'Z');
        let last = frames.iter().rev().find_map(|frame| frame.field(b'C').filter(|_| frame.tag == b'E'));
        if sent.is_err() || frames.last().is_none_or(|frame| frame.tag != b'Z') {
            self.client = None;
            return Err(last.unwrap_or_default());
        }
        Ok(Reply { frames })
    }

    fn run(mut self, stop: &AtomicBool) -> (History, Vec<(Time, Time, String)>) {
        while !stop.load(Ordering::Relaxed) {
            match self.dice.roll(50) {
                0 => self.write(),
                1..6 => self.read_twice(),
                _ => self.read(),
            }
        }
        (self.history, self.failed)
    }

    fn select(&mut self) -> Vec<u8> {
        let sql = "select k, v, w from cells";
        match self.dice.roll(2) {
            0 => query(sql),
            _ => [
                super::support::frames::parse("", sql),
                super::support::frames::bind("", &[]),
                super::support::frames::execute("", 0),
                super::support::frames::sync(),
            ]
            .concat(),
        }
    }

    fn note(&mut self, began: Time, reply: &Reply) {
        let cell = |row: &Vec<String>| {
            let number = |at: usize| row[at].parse::<i64>().unwrap();
            let found = Found::Row { version: number(1), writer: number(2) };
            (Cell(u16::try_from(number(0)).unwrap()), found)
        };
        let found: Vec<_> = reply.rows().iter().map(cell).collect();
        assert_eq!(found.len() as u64, KEYS, "{reply:?}");
        let ended = self.now();
        self.history.reads.push(Read { session: self.number, began, ended, shape: 0, found });
    }

    fn read(&mut self) {
        let message = self.select();
        let began = self.now();
        match self.ask(&message) {
            Ok(reply) if reply.error().is_none() => self.note(began, &reply),
            Ok(reply) => self.failed.push((began, self.now(), reply.sqlstate())),
            Err(words) => self.failed.push((began, self.now(), words)),
        }
    }

    /// In one transaction, which dies with the replica that it runs on.
    fn read_twice(&mut self) {
        let began = self.now();
        let transaction = [query("begin read only"), self.select(), self.select(), query("commit")];
        for message in transaction {
            match self.ask(&message) {
                Ok(reply) if reply.error().is_some() => {
                    assert_eq!(reply.sqlstate(), "40001", "only a conflict with recovery ends it: {reply:?}");
                    drop(self.ask(&query("rollback")));
                    return;
                }
                Ok(reply) if !reply.rows().is_empty() => self.note(began, &reply),
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    fn write(&mut self) {
        self.writes += 1;
        let (id, key) = (i64::from(self.number + 1) << 40 | self.writes, self.dice.roll(KEYS));
        let update = format!("update cells set v = v + 1, w = {id} where k = {key} returning v");
        let (in_transaction, rolls_back) = (self.dice.roll(2) == 0, self.dice.roll(8) == 0);
        let end = if rolls_back { "rollback" } else { "commit" };
        let messages = match in_transaction {
            true => vec![query("begin"), query(&update), query(end)],
            false => vec![query(&update)],
        };
        let began = self.now();
        let mut cells = Vec::new();
        let mut outcome = if in_transaction && rolls_back { Outcome::Aborted } else { Outcome::Committed };
        for message in messages {
            match self.ask(&message) {
                Ok(reply) => {
                    assert!(reply.error().is_none(), "a write never reaches a standby: {reply:?}");
                    let versions = reply.rows().into_iter().map(|row| row[0].parse().unwrap());
                    cells.extend(versions.map(|version| (Cell(key as u16), version)));
                }
                Err(_) => {
                    outcome = Outcome::Unknown;
                    break;
                }
            }
        }
        let ended = self.now();
        self.history.writes.push(Write { session: self.number, id, began, ended, outcome, cells });
    }
}

fn behind(cluster: &Cluster, database: &str) -> Builder {
    let [first, second] = &cluster.replicas;
    Proxy::of(cluster, database)
        .replicas(database, &[(first, 1), (second, 1)])
        .section("routing", "read_your_writes", "session")
        .section("routing", "lag_check_interval", "0.02")
}

fn prepare(cluster: &Cluster) -> String {
    let database = cluster.database();
    let rows = format!("insert into cells select i, 1, 0 from generate_series(0, {}) i", KEYS - 1);
    cluster.prepare(&database, &format!("create table cells(k int primary key, v bigint, w bigint); {rows}"));
    database
}

/// All sessions at once, while `disturb` does what it does.
fn history(
    proxy: &Proxy,
    database: &str,
    disturb: impl FnOnce(&mut Dice, Instant),
) -> (History, Vec<(Time, Time, String)>) {
    let (seed, start, stop) = (seed(), Instant::now(), AtomicBool::new(false));
    println!("HISTORY_SEED={seed}");
    let (mut whole, mut failed) = (History::default(), Vec::new());
    thread::scope(|scope| {
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|number| {
                let session = Session {
                    number,
                    proxy,
                    database,
                    client: None,
                    dice: Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(u64::from(number)) | 1),
                    start,
                    writes: 0,
                    history: History::default(),
                    failed: Vec::new(),
                };
                let stop = &stop;
                scope.spawn(move || session.run(stop))
            })
            .collect();
        let stops = StopsAtEnd(&stop);
        disturb(&mut Dice(seed | 1), start);
        drop(stops);
        for session in sessions {
            let (history, refused) = session.join().unwrap();
            whole.writes.extend(history.writes);
            whole.reads.extend(history.reads);
            failed.extend(refused);
        }
    });
    (whole, failed)
}

struct StopsAtEnd<'a>(&'a AtomicBool);

impl Drop for StopsAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One replica suffers, for up to a second; the other serves.
fn disturb_replica(cluster: &Cluster, number: usize, dice: &mut Dice) {
    let replica = &cluster.replicas[number];
    let pause = Duration::from_millis(100 + dice.roll(900));
    match dice.roll(4) {
        0 => {
            replica.pause_replay();
            thread::sleep(pause);
            replica.resume_replay();
        }
        1 => {
            let frozen = replica.freeze();
            thread::sleep(pause);
            drop(frozen);
        }
        2 => {
            replica.stop();
            thread::sleep(pause / 4);
            replica.start();
        }
        _ => {
            replica.delay_replay(100);
            thread::sleep(pause);
            replica.delay_replay(0);
        }
    }
}

#[test]
fn no_session_misses_its_own_writes_while_replicas_fail_and_another_becomes_the_primary() {
    let _turn = turn();
    let cluster = Cluster::start();
    let database = prepare(&cluster);
    let [heir, other] = &cluster.replicas;
    heir.follow(&cluster.primary, "heir");
    cluster.primary.configure("synchronous_standby_names", "heir");
    let mut admin = cluster.primary.session("postgres");
    wait_until("the first replica is waited for", || {
        admin.value("select count(*) from pg_stat_replication where sync_state = 'sync'") == "1"
    });
    drop(admin);
    let proxy = behind(&cluster, &database).start();
    let gap = Gap::default();
    let (history, failed) = history(&proxy, &database, |dice, start| {
        let now = || u64::try_from(start.elapsed().as_nanos()).unwrap();
        while start.elapsed() < seconds() / 2 {
            let number = usize::from(dice.roll(3) == 0);
            disturb_replica(&cluster, 1 - number, dice);
        }
        let died = now();
        cluster.primary.stop();
        assert!(!heir.log().contains("in a read-only transaction"), "a write has reached a standby");
        heir.promote();
        *gap.lock().unwrap() = Some((died, now()));
        other.follow(heir, "other");
        while start.elapsed() < seconds() {
            disturb_replica(&cluster, 1, dice);
        }
    });
    let violations = check(&history, Promise::OwnSessions);
    assert!(violations.is_empty(), "{} violations, the first: {:?}", violations.len(), &violations[..1]);
    assert!(!other.log().contains("in a read-only transaction"), "a write has reached a standby");
    let (died, promoted) = gap.into_inner().unwrap().unwrap();
    let is_excused = |(began, ended, _): &&(Time, Time, String)| *began <= promoted && *ended >= died;
    let refused: Vec<_> = failed.iter().filter(|read| !is_excused(read)).collect();
    assert!(refused.is_empty(), "{} autocommit reads failed, the first: {:?}", refused.len(), &refused[..1]);
    let unknown = history.writes.iter().filter(|write| write.outcome == Outcome::Unknown).count();
    println!(
        "{} reads ({} failed on a primary that died), {} writes ({unknown} of unknown outcome), {:?} without a primary",
        history.reads.len(),
        failed.len(),
        history.writes.len(),
        Duration::from_nanos(promoted - died)
    );
    let on_replicas: i64 = proxy
        .show("REPLICAS")
        .select("role", "replica", "requests")
        .iter()
        .map(|count| count.parse::<i64>().unwrap())
        .sum();
    assert!(history.reads.len() > 1000 && history.writes.len() > 100 && on_replicas > 100, "{on_replicas} on replicas");
}

/// A checker that never finds anything proves nothing.
#[test]
fn without_fences_stale_reads_are_found() {
    let _turn = turn();
    let database = prepare(cluster());
    cluster().replicas[1].delay_replay(100);
    let proxy = behind(cluster(), &database).environment("PGWEIR_ABLATE", "fence").start();
    let (history, _) = history(&proxy, &database, |_, _| thread::sleep(Duration::from_secs(3)));
    let violations = check(&history, Promise::OwnSessions);
    assert!(violations.iter().any(|violation| matches!(violation, Violation::Stale { .. })));
}
