//! One of the clients: how it asks, what it has set, and what it has seen.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use super::{
    checker::{Cell, Found, History, Outcome, Read, Time, Write},
    plan::Plan,
    support::{
        RawClient, Reply,
        cluster::{SUPERUSER, USER},
        frames::{Frame, query, startup},
        raw_client::Address,
    },
    world::{Extra, KEYS, Shape, TOTAL},
};

/// An answer that takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// xorshift64*: a seed gives the same choices everywhere.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }

    pub fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }

    pub fn key(&mut self, keys: u16) -> u16 {
        u16::try_from(self.roll(keys.into())).unwrap()
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.roll(from.len() as u64)).unwrap()]
    }
}

/// The connection has ended, and with it whatever was asked for.
#[derive(Debug)]
pub struct Lost;

/// What all of them share.
pub struct Shared<'a> {
    pub plan: &'a Plan,
    pub database: &'a str,
    /// The primary itself.
    pub primary: Address,
    pub start: Instant,
    /// Every read is a hit or the primary's: nothing differs from what the primary shows at that moment.
    pub is_linearizable: bool,
}

/// What a session has set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub zone: usize,
    pub style: usize,
    /// Nothing, `a`, `b`.
    pub path: usize,
    pub is_stranger: bool,
}

pub const ZONES: [(&str, i64); 3] = [("UTC", 0), ("Etc/GMT-9", 9), ("Etc/GMT+5", -5)];
pub const STYLES: [&str; 2] = ["ISO", "German"];

/// A client, its choices, and what it has seen.
pub struct Session<'a> {
    pub number: u16,
    pub shared: &'a Shared<'a>,
    pub address: Address,
    client: Option<RawClient>,
    /// The primary without the proxy, with the same settings.
    direct: Option<RawClient>,
    pub dice: Dice,
    pub history: History,
    /// Answers that cannot be right, whatever else happened.
    pub wrong: Vec<String>,
    /// SQLSTATEs of reads that failed.
    pub failed: Vec<String>,
    pub settings: Settings,
    pub prepared: HashSet<String>,
    pub last_write: i64,
    /// The write under way.
    pub draft: Vec<(Cell, i64)>,
    pub compared: u64,
}

impl<'a> Session<'a> {
    /// `last_write` is the number of the last write of an earlier session of this number.
    pub fn new(number: u16, shared: &'a Shared<'a>, address: Address, seed: u64, last_write: i64) -> Self {
        Self {
            number,
            shared,
            address,
            client: None,
            direct: None,
            dice: Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(u64::from(number)) | 1),
            history: History::default(),
            wrong: Vec::new(),
            failed: Vec::new(),
            settings: Settings::default(),
            prepared: HashSet::new(),
            last_write,
            draft: Vec::new(),
            compared: 0,
        }
    }

    pub fn now(&self) -> Time {
        u64::try_from(self.shared.start.elapsed().as_nanos()).unwrap()
    }

    pub fn client(&mut self) -> Result<&mut RawClient, Lost> {
        if self.client.is_none() {
            let mut client = RawClient::try_connect(&self.address).map_err(|_| Lost)?;
            let user = if self.is_guest() { "stranger" } else { USER };
            let parameters = [("user", user), ("database", self.shared.database)];
            client.patience(PATIENCE);
            client.try_send(&startup(&parameters)).map_err(|_| Lost)?;
            if client.until_closed_or(b'Z').last().is_none_or(|frame| frame.tag != b'Z') {
                return Err(Lost);
            }
            self.client = Some(client);
            self.prepared.clear();
            self.settings = Settings { is_stranger: self.is_guest(), ..Settings::default() };
            self.direct = None;
        }
        self.client.as_mut().ok_or(Lost)
    }

    /// Closes the connection without a word.
    pub fn vanish(&mut self) {
        self.client = None;
    }

    /// Sends these messages and waits for so many answers.
    pub fn ask(&mut self, messages: &[u8], answers: usize) -> Result<Vec<Reply>, Lost> {
        let asked = Instant::now();
        let client = self.client()?;
        let mut replies = Vec::new();
        let is_sent = client.try_send(messages).is_ok();
        while is_sent && replies.len() < answers {
            let frames = client.until_closed_or(b'Z');
            if frames.last().is_none_or(|frame| frame.tag != b'Z') {
                break;
            }
            replies.push(Reply { frames });
        }
        if replies.len() < answers && asked.elapsed() > PATIENCE {
            let mut admin = RawClient::session(&self.shared.primary, SUPERUSER, self.shared.database);
            let activity = admin.rows(
                "select pid, pg_blocking_pids(pid), state, wait_event, query from pg_stat_activity where datname = current_database() and state <> 'idle'",
            );
            let asked = String::from_utf8_lossy(messages);
            panic!("session {} has no answer to {asked:?} for {PATIENCE:?}; the primary: {activity:#?}", self.number);
        }
        if replies.len() < answers {
            self.client = None;
            return Err(Lost);
        }
        Ok(replies)
    }

    /// Everything up to a message of this type.
    pub fn until(&mut self, tag: u8) -> Result<Vec<Frame>, Lost> {
        let frames = self.client()?.until_closed_or(tag);
        match frames.last() {
            Some(frame) if frame.tag == tag => Ok(frames),
            _ => {
                self.client = None;
                Err(Lost)
            }
        }
    }

    pub fn say(&mut self, sql: &str) -> Result<Reply, Lost> {
        Ok(self.ask(&query(sql), 1)?.remove(0))
    }

    /// What the primary says to the same, without the proxy.
    pub fn say_directly(&mut self, messages: &[u8]) -> Reply {
        let settings = self.settings;
        let direct = self.direct.get_or_insert_with(|| {
            let mut direct = RawClient::session(&self.shared.primary, SUPERUSER, self.shared.database);
            for sql in settings.statements(Settings::default()) {
                direct.rows(&sql);
            }
            direct
        });
        direct.exchange(messages)
    }

    /// Sets something, here and there.
    pub fn change_settings(&mut self) -> Result<(), Lost> {
        let mut settings = self.settings;
        let turn = usize::try_from(self.dice.roll(8)).unwrap();
        match turn {
            0..3 => settings.zone = turn,
            3 | 4 => settings.style = turn - 3,
            5 | 6 => settings.path = usize::from(self.dice.key(3)),
            _ => settings.is_stranger ^= !self.is_guest(),
        }
        self.set(settings)
    }

    fn set(&mut self, settings: Settings) -> Result<(), Lost> {
        for sql in settings.statements(self.settings) {
            let reply = self.say(&sql)?;
            assert!(reply.error().is_none(), "{sql}: {reply:?}");
        }
        self.settings = settings;
        self.direct = None;
        Ok(())
    }

    /// Some sessions are another user's.
    fn is_guest(&self) -> bool {
        self.shared.plan.changes_settings && self.number % 8 == 7
    }

    /// A table as this session calls it.
    pub fn called(&self, sql: &str) -> String {
        match self.settings.path {
            1 => sql.replace("a.twin", "twin"),
            2 => sql.replace("b.twin", "twin"),
            _ => sql.to_owned(),
        }
    }

    pub fn next_write(&mut self) -> i64 {
        self.last_write += 1;
        i64::from(self.number + 1) << 40 | self.last_write
    }

    /// Notes what a read has found.
    pub fn note(&mut self, number: usize, began: Time, frames: &[Frame], is_binary: bool, key: u16) {
        let ended = self.now();
        let shape = &self.shared.plan.shapes[number];
        let rows: Vec<Row> =
            frames.iter().filter(|frame| frame.tag == b'D').map(|frame| Row::of(frame, is_binary)).collect();
        let found = rows.iter().flat_map(|row| row.found(shape)).collect();
        if let Some(what) = wrong(shape, &rows, key, self.settings) {
            let (number, settings) = (self.number, self.settings);
            self.wrong.push(format!(
                "{what}: {} of key {key} by session {number} {settings:?} from {began} to {ended} shows {frames:?}",
                shape.sql
            ));
        }
        let shape = u16::try_from(number).unwrap();
        self.history.reads.push(Read { session: self.number, began, ended, shape, found });
    }

    /// Notes how a write ended.
    pub fn finish(&mut self, id: i64, began: Time, ended: Time, outcome: Outcome) {
        let cells = std::mem::take(&mut self.draft);
        self.history.writes.push(Write { session: self.number, id, began, ended, outcome, cells });
    }
}

impl Settings {
    /// What leads here from others.
    fn statements(self, others: Self) -> Vec<String> {
        let zone = (self.zone != others.zone).then(|| format!("set timezone = '{}'", ZONES[self.zone].0));
        let style = (self.style != others.style).then(|| format!("set datestyle = '{}'", STYLES[self.style]));
        let path = (self.path != others.path).then(|| match self.path {
            0 => "reset search_path".to_owned(),
            path => format!("set search_path = {}, public", ["a", "b"][path - 1]),
        });
        let role = if self.is_stranger { "set role stranger" } else { "reset role" };
        let role = (self.is_stranger != others.is_stranger).then(|| role.to_owned());
        [zone, style, path, role].into_iter().flatten().collect()
    }
}

/// A row of a reply: numbers, and texts where they are none.
#[derive(Debug)]
pub struct Row {
    values: Vec<i64>,
    texts: Vec<String>,
}

impl Row {
    pub fn of(frame: &Frame, is_binary: bool) -> Self {
        let values = frame.values().into_iter().map(Option::unwrap_or_default);
        let number = |value: &Vec<u8>| match (is_binary, value.len()) {
            (true, 4) => i64::from(i32::from_be_bytes(value[..].try_into().unwrap())),
            (true, 8) => i64::from_be_bytes(value[..].try_into().unwrap()),
            _ => std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(i64::MIN),
        };
        let values: Vec<Vec<u8>> = values.collect();
        let texts = values.iter().map(|value| String::from_utf8_lossy(value).into_owned());
        Self { texts: texts.collect(), values: values.iter().map(number).collect() }
    }

    fn key(&self) -> u16 {
        u16::try_from(self.values[0]).unwrap_or(u16::MAX)
    }

    pub fn found(&self, shape: &Shape) -> Vec<(Cell, Found)> {
        let key = self.key();
        let row = |at: usize| Found::Row { version: self.values[at], writer: self.values[at + 1] };
        let mut found = vec![(shape.family.cell(key), row(1))];
        if let Extra::Pair(other) = shape.extra {
            found.push((other.cell(key), row(3)));
        }
        found
    }
}

/// What is wrong with these rows by themselves.
fn wrong(shape: &Shape, rows: &[Row], key: u16, settings: Settings) -> Option<&'static str> {
    let expected: HashSet<u16> = if shape.by_key { HashSet::from([key]) } else { shape.keys.clone().collect() };
    let shown: HashSet<u16> = rows.iter().map(Row::key).collect();
    if shown.len() != rows.len() || !shown.is_superset(&expected) || shown.iter().any(|key| *key >= KEYS) {
        return Some("rows are missing, or there twice");
    }
    let holds = match shape.extra {
        Extra::Amount => rows.iter().map(|row| row.values[3]).sum::<i64>() == TOTAL,
        Extra::Equal => rows.iter().all(|row| row.values[3] == row.values[4]),
        Extra::Hours => settings.style != 0 || rows.iter().all(|row| row.texts[3] == time(row.values[1], settings)),
        Extra::Nothing | Extra::Pair(_) => true,
    };
    (!holds).then_some("what belongs together does not fit")
}

/// So many hours behind the epoch, as PostgreSQL writes it.
fn time(hours: i64, settings: Settings) -> String {
    let offset = ZONES[settings.zone].1;
    let local = hours + offset;
    let (days, hour) = (local.div_euclid(24), local.rem_euclid(24));
    // Days to a date of the proleptic Gregorian calendar, whose years begin in March here.
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:00:00{offset:+03}")
}
