//! The ways to read.

use std::collections::BTreeMap;

use super::{
    checker::{Cell, Found},
    session::{Lost, Row, Session},
    support::{
        Reply,
        frames::{bind, bind_as, describe_portal, describe_statement, execute, parse, query, sync},
    },
    world::Shape,
};

/// A request, and how to read its answer.
struct Request {
    messages: Vec<u8>,
    answers: usize,
    is_binary: bool,
}

impl Session<'_> {
    /// Mostly one of the few shapes that all sessions favour for a moment, so that reads repeat.
    pub fn shape(&mut self) -> usize {
        let shapes = self.shared.plan.shapes.len();
        let moment = self.shared.start.elapsed().as_millis() / 400;
        let favourite = u64::try_from(moment).unwrap() * 3 + self.dice.roll(3);
        let choice = if self.dice.one_in(8) { self.dice.roll(1 << 20) } else { favourite };
        usize::try_from(choice).unwrap() % shapes
    }

    pub fn read(&mut self) -> Result<(), Lost> {
        let number = self.shape();
        self.read_shape(number)
    }

    pub fn read_shape(&mut self, number: usize) -> Result<(), Lost> {
        let is_open = |shape: &Shape| shape.sql.contains("from plain") && !shape.sql.contains("join");
        let shapes = &self.shared.plan.shapes;
        let mut number = number;
        if self.settings.is_stranger {
            let open = (number..number + shapes.len()).map(|at| at % shapes.len()).find(|at| is_open(&shapes[*at]));
            // What is refused may be anything, to the proxy: nobody hits anything meanwhile.
            number = match open {
                Some(open) if !self.dice.one_in(16) => open,
                _ => return self.read_secret(),
            };
        }
        let shape = &shapes[number];
        let key = self.dice.key(shape.family.keys.min(2));
        let transaction = match self.dice.roll(40) {
            0 => Some("begin read only"),
            1 => Some("begin"),
            // TRUNCATE and its like empty a table for those whose snapshot is older; a view that is replaced meanwhile
            // shows them what its new table held then.
            2 if !["filled", "dropped", "swung"].iter().any(|name| shape.shows(name)) => {
                Some("begin isolation level repeatable read")
            }
            _ => None,
        };
        if let Some(begin) = transaction {
            self.say(begin)?;
        }
        let request = self.request(number, shape, key);
        let began = self.now();
        let replies = self.ask(&request.messages, request.answers)?;
        self.take_rows(number, began, &replies, &request, key);
        if transaction.is_some() {
            self.say("commit")?;
        }
        Ok(())
    }

    fn take_rows(&mut self, number: usize, began: u64, replies: &[Reply], request: &Request, key: u16) {
        for reply in replies {
            match reply.error() {
                Some(error) => {
                    let family = self.shared.plan.shapes[number].family.name;
                    let words = error.field(b'M').unwrap_or_default();
                    self.failed.push(format!("{family} {} {words}", reply.sqlstate()));
                    return;
                }
                None if reply.frames.iter().any(|frame| frame.tag == b'D') || reply.tags() == ["SELECT 0"] => {
                    self.note(number, began, &reply.frames, request.is_binary, key);
                }
                None => {}
            }
        }
    }

    fn request(&mut self, number: usize, shape: &Shape, key: u16) -> Request {
        let sql = self.called(&shape.sql);
        let text = key.to_string();
        let values: &[&str] = if shape.by_key { &[&text] } else { &[] };
        let request =
            |messages: Vec<Vec<u8>>, answers, is_binary| Request { messages: messages.concat(), answers, is_binary };
        let way = self.dice.roll(8);
        if way < 3 {
            return request(vec![query(&sql.replace("$1", &text))], 1, false);
        }
        let whole = [bind("", values), describe_portal(""), execute("", 0), sync()].concat();
        if way < 5 {
            return request(vec![parse("", &sql), whole], 1, false);
        }
        let name = format!("s{number}_{}", self.settings.path);
        let mut messages = Vec::new();
        let mut answers = 1;
        if self.prepared.insert(name.clone()) {
            messages.push([parse(&name, &sql), describe_statement(&name), sync()].concat());
            answers = 2;
        }
        // Only numbers are understood in their binary form.
        let is_binary = way == 5 && shape.extra == super::world::Extra::Nothing && !sql.contains("group by");
        let optional: Vec<_> = values.iter().map(|value| Some(*value)).collect();
        let one = [bind_as("", &name, &optional, is_binary), execute("", 0), sync()].concat();
        if way == 7 {
            messages.push(one.clone());
            answers += 1;
        }
        messages.push(one);
        request(messages, answers, is_binary)
    }

    /// The table that a stranger may not read.
    fn read_secret(&mut self) -> Result<(), Lost> {
        let reply = self.say("select k, v, w from secret")?;
        if !["42501", ""].contains(&&*reply.sqlstate()) {
            self.failed.push(reply.sqlstate());
        } else if reply.error().is_none() {
            self.wrong.push("a stranger was shown what he may not read".to_owned());
        }
        Ok(())
    }

    /// Its owner may.
    pub fn read_own_secret(&mut self) -> Result<(), Lost> {
        let reply = self.say("select k, v, w from secret")?;
        if reply.error().is_some() && !self.settings.is_stranger {
            self.failed.push(format!("{} secret", reply.sqlstate()));
        }
        Ok(())
    }

    /// Waits for the row's lock, and sees what its last holder has left; then asks as others do.
    pub fn take_over(&mut self) -> Result<(), Lost> {
        let number = self.shape();
        let shape = &self.shared.plan.shapes[number];
        let lockable = shape.by_key && !["snap", "view"].iter().any(|word| shape.sql.contains(word));
        if !lockable || self.settings.is_stranger {
            return Ok(());
        }
        let key = self.dice.key(shape.family.keys.min(2));
        let sql = self.called(&shape.sql).replace("$1", &key.to_string());
        self.say("begin")?;
        let began = self.now();
        let reply = self.say(&format!("{sql} for update"))?;
        if reply.error().is_none() {
            self.note(number, began, &reply.frames, false, key);
        }
        self.say("rollback")?;
        let began = self.now();
        let reply = self.say(&sql)?;
        if reply.error().is_none() {
            self.note(number, began, &reply.frames, false, key);
        }
        Ok(())
    }

    /// If nothing has changed from before to after, the answer is the primary's, byte for byte. (A replica may show what
    /// the primary does not show yet, or not yet what nobody was told of.)
    pub fn compare(&mut self) -> Result<(), Lost> {
        let number = self.shape();
        let shape = &self.shared.plan.shapes[number];
        if self.settings.is_stranger || shape.may_fail {
            return Ok(());
        }
        let key = self.dice.key(shape.family.keys.min(2));
        let sql = self.called(&shape.sql);
        let text = key.to_string();
        let values: &[&str] = if shape.by_key { &[&text] } else { &[] };
        let messages = match self.dice.roll(2) {
            0 => query(&sql.replace("$1", &text)),
            _ => [parse("", &sql), bind("", values), describe_portal(""), execute("", 0), sync()].concat(),
        };
        // The settings are those of a session that is connected.
        self.client()?;
        let before = self.say_directly(&messages);
        let began = self.now();
        let replies = self.ask(&messages, 1)?;
        // A server that goes says so in a warning, in front of the answer that another one gives.
        let own = Reply { frames: replies[0].frames.iter().filter(|frame| frame.tag != b'N').cloned().collect() };
        if own.error().is_none() {
            self.note(number, began, &own.frames, false, key);
        }
        let after = self.say_directly(&messages);
        let is_same = before.frames == after.frames && self.shared.is_linearizable;
        if is_same && own.frames != before.frames && !self.may_lag(shape, &own, &before) {
            let settings = self.settings;
            self.wrong.push(format!("{sql} {values:?} {settings:?}: {own:?}, and the primary says {before:?}"));
        }
        self.compared += 1;
        Ok(())
    }

    /// Do they differ in nothing but rows that were written without the proxies? When those are due is judged elsewhere.
    fn may_lag(&self, shape: &Shape, own: &Reply, truth: &Reply) -> bool {
        let due = self.shared.plan.due();
        let found = |reply: &Reply| -> BTreeMap<Cell, Found> {
            let rows = reply.frames.iter().filter(|frame| frame.tag == b'D');
            rows.flat_map(|frame| Row::of(frame, false).found(shape)).collect()
        };
        let (own, truth) = (found(own), found(truth));
        let is_direct = |found: &Found| matches!(found, Found::Row { writer, .. } if due.is_direct(*writer));
        let may_differ = |((cell, own), (other, truth)): ((&Cell, &Found), (&Cell, &Found))| {
            cell == other && (own == truth || is_direct(truth))
        };
        own.len() == truth.len() && own != truth && own.iter().zip(&truth).all(may_differ)
    }

    /// The primary's own word, and then the proxy's.
    pub fn observe(&mut self) -> Result<(), Lost> {
        let number = self.shape();
        let shape = &self.shared.plan.shapes[number];
        let key = self.dice.key(shape.family.keys.min(2));
        let sql = self.called(&shape.sql).replace("$1", &key.to_string());
        let began = self.now();
        let reply = self.say_directly(&query(&sql));
        if reply.error().is_none() {
            self.note(number, began, &reply.frames, false, key);
        }
        let began = self.now();
        let reply = self.say(&sql)?;
        if reply.error().is_none() {
            self.note(number, began, &reply.frames, false, key);
        }
        Ok(())
    }
}
