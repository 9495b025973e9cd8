//! One of the sessions that read and write at random.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use super::{
    checker::{Cell, Found, History, Outcome, Read, Time, Write},
    schema::{FAMILIES, Family, KEEPER, KEYS, REFILLED, Shape, bump, place},
    support::{
        RawClient, Reply,
        frames::{copy_data, copy_done, query},
    },
};

/// xorshift64*: a seed gives the same choices everywhere.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }

    fn key(&mut self) -> u16 {
        u16::try_from(self.roll(KEYS.into())).unwrap()
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.roll(from.len() as u64)).unwrap()]
    }
}

/// A client, its choices, and what it has seen.
pub struct Session<'a> {
    pub number: u16,
    pub client: RawClient,
    pub dice: Dice,
    pub shapes: &'a [Shape],
    pub start: Instant,
    pub history: History,
    prepared: HashSet<String>,
    writes: i64,
    /// The version of this session's own key whose row comes and goes.
    keeper: i64,
}

impl<'a> Session<'a> {
    pub fn new(number: u16, client: RawClient, seed: u64, shapes: &'a [Shape], start: Instant) -> Self {
        let dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let (history, prepared) = (History::default(), HashSet::new());
        Self { number, client, dice, shapes, start, history, prepared, writes: 0, keeper: 1 }
    }

    /// Reads nine times out of ten, until the time is over.
    pub fn run(mut self, time: Duration) -> History {
        while self.start.elapsed() < time {
            match self.dice.roll(100) {
                0..90 => self.read(),
                90..96 => self.write_one(),
                96..98 => self.write_several(),
                98 => self.come_and_go(),
                _ => self.refill(),
            }
        }
        self.history
    }

    fn now(&self) -> Time {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap()
    }

    fn next_write(&mut self) -> i64 {
        self.writes += 1;
        i64::from(self.number + 1) << 40 | self.writes
    }

    fn read(&mut self) {
        let number = self.shape();
        let shape = &self.shapes[number];
        let key = self.dice.key() % 2;
        let transaction = match self.dice.roll(20) {
            0 => Some("begin read only"),
            1 => Some("begin"),
            _ => None,
        };
        if let Some(begin) = transaction {
            self.client.query(begin);
        }
        let began = self.now();
        let reply = self.ask(number, shape, key);
        let ended = self.now();
        if transaction.is_some() {
            self.client.query("commit");
        }
        assert!(reply.error().is_none(), "{}: {reply:?}", shape.sql);
        let found = findings(shape, key, &reply);
        let shape = u16::try_from(number).unwrap();
        self.history.reads.push(Read { session: self.number, began, ended, shape, found });
    }

    /// Mostly one of the few shapes that all sessions favour for a moment, so that reads repeat.
    fn shape(&mut self) -> usize {
        let moment = self.start.elapsed().as_millis() / 250;
        let favourite = u64::try_from(moment).unwrap() * 5 + self.dice.roll(3);
        let choice = if self.dice.roll(8) == 0 { self.dice.roll(1 << 20) } else { favourite };
        usize::try_from(choice).unwrap() % self.shapes.len()
    }

    fn ask(&mut self, number: usize, shape: &Shape, key: u16) -> Reply {
        let text = key.to_string();
        let parameters: &[&str] = if shape.by_key { &[&text] } else { &[] };
        match self.dice.roll(3) {
            0 => self.client.query(&shape.sql.replace("$1", &text)),
            1 => self.client.extended(&shape.sql, parameters),
            _ => {
                let name = format!("s{number}");
                if self.prepared.insert(name.clone()) {
                    let reply = self.client.prepare(&name, &shape.sql);
                    assert!(reply.error().is_none(), "{reply:?}");
                }
                self.client.execute(&name, parameters)
            }
        }
    }

    /// A family that this session may write at this key.
    fn target(&mut self) -> (Family, u16) {
        let family = *self.dice.pick(&FAMILIES[..10]);
        let key = if family.owned { self.number } else { self.dice.key() };
        (family, key)
    }

    fn door(&mut self, family: Family, key: u16) -> String {
        let choice = self.dice.roll(family.doors.len() as u64 + 1);
        let door = usize::try_from(choice).ok().and_then(|choice| family.doors.get(choice));
        place(door.unwrap_or(&family.table), key)
    }

    /// One statement that is its own transaction, said in one of many ways.
    fn write_one(&mut self) {
        let id = self.next_write();
        let (family, key) = self.target();
        let door = self.door(family, key);
        let (k, w) = (key.to_string(), id.to_string());
        let update = bump(&door, &k, &w);
        let began = self.now();
        let reply = match self.dice.roll(6) {
            0 | 1 => self.client.query(&update),
            2 => self.client.extended(&bump(&door, "$1::int", "$2::bigint"), &[&k, &w]),
            3 if family.table.starts_with("plain") => {
                self.client.query(&format!("with u as ({update}) select v from u"))
            }
            3 => self.client.query(&format!("begin; {update}; commit")),
            4 if family.table == "plain_2" => self.client.extended("select bump_plain_2($1::int, $2::bigint)", &[&k, &w]),
            4 if family.table == "plain_1" => self.client.query(&format!(
                "insert into plain_1 values ({k}, 0, {w}) on conflict (k) do update set v = plain_1.v + 1, w = excluded.w returning v"
            )),
            _ => {
                let name = format!("w_{door}");
                if self.prepared.insert(name.clone()) {
                    self.client.prepare(&name, &bump(&door, "$1::int", "$2::bigint"));
                }
                self.client.execute(&name, &[&k, &w])
            }
        };
        self.record(id, began, &[reply], &[family.cell(key)]);
    }

    /// A transaction over several cells, which may take some or all of it back.
    fn write_several(&mut self) {
        let id = self.next_write();
        let mut targets: Vec<_> = (0..3).map(|_| self.target()).collect();
        targets.sort_by_key(|(family, key)| family.cell(*key));
        targets.dedup_by_key(|(family, key)| family.cell(*key));
        let began = self.now();
        self.client.query("begin");
        let mut replies = Vec::new();
        let mut cells = Vec::new();
        for (family, key) in targets {
            let door = self.door(family, key);
            let update = bump(&door, &key.to_string(), &id.to_string());
            let undone = self.dice.roll(4) == 0;
            if undone {
                self.client.query("savepoint s");
            }
            let reply = self.client.query(&update);
            if undone {
                self.client.query("rollback to s");
            } else {
                replies.push(reply);
                cells.push(family.cell(key));
            }
        }
        let end = if self.dice.roll(3) == 0 { "rollback" } else { "commit" };
        let reply = self.client.query(end);
        let committed = reply.tags() == ["COMMIT"];
        self.record(id, began, &replies, &cells);
        if !committed {
            self.history.writes.last_mut().unwrap().outcome = Outcome::Aborted;
        }
    }

    /// Deletes this session's own row, with what hangs on it, or brings it back.
    fn come_and_go(&mut self) {
        let id = self.next_write();
        let (key, version) = (self.number, self.keeper + 1);
        let statement = if version % 2 == 0 {
            format!("delete from keeper where k = {key}")
        } else {
            let row = format!("values ({key}, {version}, {id})");
            format!("begin; insert into keeper {row}; insert into kept {row}; commit")
        };
        let began = self.now();
        let reply = self.client.query(&statement);
        let ended = self.now();
        assert!(reply.error().is_none(), "{statement}: {reply:?}");
        self.keeper = version;
        let cells = vec![(KEEPER.cell(key), version)];
        let (session, outcome) = (self.number, Outcome::Committed);
        self.history.writes.push(Write { session, id, began, ended, outcome, cells });
    }

    /// TRUNCATE, and COPY of the next version of every row.
    fn refill(&mut self) {
        let id = self.next_write();
        let began = self.now();
        self.client.query("begin");
        let locked = self.client.query(&format!("lock table {} in access exclusive mode", REFILLED.table));
        if locked.error().is_some() {
            self.client.query("rollback");
            return;
        }
        let rows = self.client.rows(&format!("select k, v from {}", REFILLED.table));
        let mut lines = String::new();
        let mut cells = Vec::new();
        for row in rows {
            let version: i64 = row[1].parse::<i64>().unwrap() + 1;
            lines += &format!("{}\t{version}\t{id}\n", row[0]);
            cells.push((REFILLED.cell(row[0].parse().unwrap()), version));
        }
        self.client.rows(&format!("truncate {}", REFILLED.table));
        self.client.send(&query(&format!("copy {} from stdin", REFILLED.table)));
        self.client.until(b'G');
        let copied = self.client.exchange(&[copy_data(lines.as_bytes()), copy_done()].concat());
        assert!(copied.error().is_none(), "{copied:?}");
        let kept = self.dice.roll(4) != 0;
        let reply = self.client.query(if kept { "commit" } else { "rollback" });
        let ended = self.now();
        let outcome = if reply.tags() == ["COMMIT"] { Outcome::Committed } else { Outcome::Aborted };
        self.history.writes.push(Write { session: self.number, id, began, ended, outcome, cells });
    }

    /// Notes the versions that the replies returned, one per cell; any error means that nothing happened.
    fn record(&mut self, id: i64, began: Time, replies: &[Reply], cells: &[Cell]) {
        let ended = self.now();
        let failed = replies.iter().any(|reply| reply.error().is_some());
        if failed {
            let code = replies.iter().map(Reply::sqlstate).collect::<String>();
            assert!(code.contains("40P01") || code.contains("25P02"), "{replies:?}");
            // A string of statements that failed leaves its transaction open.
            self.client.query("rollback");
        }
        let version = |reply: &Reply| reply.rows().first().map(|row| row[0].parse().unwrap());
        let versions = replies.iter().filter_map(version);
        let cells: Vec<_> = cells.iter().copied().zip(versions).collect();
        let outcome = if failed { Outcome::Aborted } else { Outcome::Committed };
        self.history.writes.push(Write { session: self.number, id, began, ended, outcome, cells });
    }
}

/// What a read says about the cells it covers.
fn findings(shape: &Shape, key: u16, reply: &Reply) -> Vec<(Cell, Found)> {
    let mut found = Vec::new();
    let mut missing: HashSet<u16> = if shape.by_key { HashSet::from([key]) } else { shape.keys.clone().collect() };
    for row in reply.rows() {
        let key = row[0].parse().unwrap();
        missing.remove(&key);
        for (family, pair) in shape.families.iter().zip(row[1..].chunks_exact(2)) {
            let (version, writer) = (pair[0].parse().unwrap(), pair[1].parse().unwrap());
            found.push((family.cell(key), Found::Row { version, writer }));
        }
    }
    for key in missing {
        assert_eq!(shape.families[0], KEEPER, "{} lacks row {key}", shape.sql);
        found.push((KEEPER.cell(key), Found::Nothing));
    }
    found
}
