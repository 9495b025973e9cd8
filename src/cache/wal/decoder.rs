//! What pgoutput says, protocol version 1: which relations are named, and of rows the primary key, where that is one value
//! that is understood.
//!
//! <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use super::tuple::IdentityKey;
use crate::{catalog::Row, lsn::Lsn, protocol::frame::Fields};

/// Relations told apart in one transaction; one that writes to more has written to everything.
const MOST_RELATIONS: usize = 256;
/// Rows told apart in one transaction; one that writes more of them has written to all of their relations.
const MOST_KEYS: usize = 256;
/// Shapes remembered; they are forgotten all at once, and a shape that is not known is the first.
const MOST_SHAPES: usize = 65_536;

/// Who speaks to us by `pg_logical_emit_message`.
const PREFIX: &[u8] = b"pgweir";
/// Definitions have changed.
const DEFINITIONS: &[u8] = b"ddl";
/// The proxy itself, to be told how far the stream is.
const TICK: &[u8] = b"tick";
/// Longest text that is a relation's number.
const NUMBER_BYTES: usize = 10;

/// Why the stream cannot be followed any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It ends where more was promised.
    #[error("a message is cut off")]
    Truncated,
    /// A kind of message that this version of the protocol does not have.
    #[error("unknown message {0:#04x}")]
    Unknown(u8),
    /// A change outside of a transaction, or a transaction inside another.
    #[error("message {0:#04x} out of place")]
    OutOfPlace(u8),
}

/// What has been written, as far as answers hang on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Relations whose own rows have changed, sorted.
    pub rows: Vec<u32>,
    /// Of other relations these rows and no others, sorted.
    pub keys: Vec<Row>,
    /// Relations named by a statement, whose children may have changed with them, sorted.
    pub named: Vec<u32>,
    /// Nobody knows what else.
    pub everything: bool,
    /// Definitions have changed.
    pub definitions: bool,
    /// Definitions may have changed.
    pub doubt: bool,
}

/// A transaction that has committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Its number, without the epoch.
    pub xid: u32,
    /// Where its commit record ends.
    pub end: Lsn,
    /// What it has written.
    pub changes: Changes,
}

/// What a message brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// More is to come.
    Nothing,
    /// A transaction is complete.
    Committed(Transaction),
    /// A message that belongs to no transaction.
    Said(Changes),
}

impl Changes {
    /// Everything.
    #[must_use]
    pub fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }

    /// Nothing of interest has changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Is any relation named, by its rows or by itself?
    #[must_use]
    pub fn names_any(&self) -> bool {
        self.count() > 0
    }

    /// Relations and rows that are named.
    #[must_use]
    pub fn count(&self) -> usize {
        self.rows.len() + self.keys.len() + self.named.len()
    }

    /// Both.
    pub fn merge(&mut self, more: &Self) {
        self.definitions |= more.definitions;
        self.doubt |= more.doubt;
        if more.everything {
            self.all();
        }
        more.rows.iter().for_each(|oid| self.row(*oid));
        more.keys.iter().for_each(|row| self.key(*row));
        more.named.iter().for_each(|oid| self.name(*oid));
    }

    fn all(&mut self) {
        self.everything = true;
        self.rows = Vec::new();
        self.keys = Vec::new();
        self.named = Vec::new();
    }

    /// A row that is known. Of too many nothing is known but their relations.
    fn key(&mut self, row: Row) {
        if self.everything || self.rows.binary_search(&row.relation.0).is_ok() {
            return;
        }
        if let Err(at) = self.keys.binary_search(&row) {
            self.keys.insert(at, row);
        }
        if self.keys.len() > MOST_KEYS {
            std::mem::take(&mut self.keys).iter().for_each(|row| self.row(row.relation.0));
        }
    }

    /// Any row.
    fn row(&mut self, oid: u32) {
        self.keys.retain(|row| row.relation.0 != oid);
        if !self.everything && add(&mut self.rows, oid) > MOST_RELATIONS {
            self.all();
        }
    }

    fn name(&mut self, oid: u32) {
        if !self.everything && add(&mut self.named, oid) > MOST_RELATIONS {
            self.all();
        }
    }

    /// `content` of a message with our prefix.
    fn said(&mut self, content: &[u8]) {
        match content {
            TICK => {}
            DEFINITIONS => self.definitions = true,
            // Somebody means something that is not known here.
            content => match number(content) {
                Some(oid) => self.name(oid),
                None => self.all(),
            },
        }
    }
}

/// Returns how many there are then.
fn add(sorted: &mut Vec<u32>, oid: u32) -> usize {
    if let Err(at) = sorted.binary_search(&oid) {
        sorted.insert(at, oid);
    }
    sorted.len()
}

fn number(text: &[u8]) -> Option<u32> {
    let is_number = (1..=NUMBER_BYTES).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| is_number)?.parse().ok()
}

/// Collects what each transaction writes. It holds one transaction at a time, and little of it.
#[derive(Debug, Default)]
pub struct Decoder {
    open: Option<(u32, Changes)>,
    shapes: HashMap<u32, Shape>,
}

/// What was last said of a relation.
#[derive(Debug)]
struct Shape {
    hash: u64,
    /// How its rows are known, if they are.
    key: Option<IdentityKey>,
}

/// A message ends before what it must have.
impl From<crate::protocol::FrameError> for DecodeError {
    fn from(_: crate::protocol::FrameError) -> Self {
        Self::Truncated
    }
}

impl Decoder {
    /// `head` is the beginning of a message of the plugin, [`super::HEAD_BYTES`] long unless that is all of it.
    ///
    /// # Errors
    /// The stream cannot be followed any further.
    pub fn take(&mut self, head: &[u8]) -> Result<Told, DecodeError> {
        let (tag, body) = head.split_first().ok_or(DecodeError::Truncated)?;
        let mut fields = Fields::within(*tag, body);
        match *tag {
            b'B' => {
                let _ends_and_when = fields.bytes(16)?;
                let xid = fields.i32()?.cast_unsigned();
                if self.open.is_some() {
                    return Err(DecodeError::OutOfPlace(*tag));
                }
                self.open = Some((xid, Changes::default()));
            }
            b'C' => return self.commit(&mut fields),
            b'I' | b'U' | b'D' => {
                let oid = fields.i32()?.cast_unsigned();
                self.changed(*tag, oid, fields)?;
            }
            b'T' => self.truncate(&mut fields)?,
            b'R' => self.relation(body, &mut fields)?,
            b'M' => return self.message(&mut fields),
            b'O' | b'Y' => {
                self.changes(*tag)?;
            }
            other => return Err(DecodeError::Unknown(other)),
        }
        Ok(Told::Nothing)
    }

    fn changes(&mut self, tag: u8) -> Result<&mut Changes, DecodeError> {
        self.open.as_mut().map(|(_, changes)| changes).ok_or(DecodeError::OutOfPlace(tag))
    }

    /// A row of a relation: its tuples follow.
    fn changed(&mut self, tag: u8, oid: u32, tuples: Fields<'_>) -> Result<(), DecodeError> {
        let key = self.shapes.get(&oid).and_then(|shape| shape.key.as_ref());
        let rows = key.and_then(|key| key.rows(tag, tuples));
        let changes = self.changes(tag)?;
        match rows {
            Some((one, other)) => [Some(one), other].into_iter().flatten().for_each(|row| changes.key(row)),
            None => changes.row(oid),
        }
        Ok(())
    }

    fn commit(&mut self, fields: &mut Fields<'_>) -> Result<Told, DecodeError> {
        let _flags_and_begin = fields.bytes(9)?;
        let end = position(fields)?;
        let (xid, changes) = self.open.take().ok_or(DecodeError::OutOfPlace(b'C'))?;
        Ok(Told::Committed(Transaction { xid, end, changes }))
    }

    fn truncate(&mut self, fields: &mut Fields<'_>) -> Result<(), DecodeError> {
        let count = fields.i32()?.cast_unsigned();
        let _options = fields.byte()?;
        let changes = self.changes(b'T')?;
        for _ in 0..count {
            // More than fit into what is looked at are more than are told apart.
            match fields.i32() {
                Ok(oid) => changes.row(oid.cast_unsigned()),
                Err(_) => changes.all(),
            }
            if changes.everything {
                break;
            }
        }
        Ok(())
    }

    /// It is sent before the first change of a relation, and again when its entry in the caches of the server has been
    /// renewed, which need not mean that anything is different.
    fn relation(&mut self, body: &[u8], fields: &mut Fields<'_>) -> Result<(), DecodeError> {
        let oid = fields.i32()?.cast_unsigned();
        let mut shape = DefaultHasher::new();
        body.hash(&mut shape);
        let shape = shape.finish();
        let key = IdentityKey::read(oid, *fields);
        if self.shapes.len() >= MOST_SHAPES {
            self.shapes.clear();
        }
        let before = self.shapes.insert(oid, Shape { hash: shape, key }).map(|before| before.hash);
        let changes = self.changes(b'R')?;
        match before {
            None => {}
            Some(same) if same == shape => changes.doubt = true,
            Some(_) => changes.definitions = true,
        }
        Ok(())
    }

    fn message(&mut self, fields: &mut Fields<'_>) -> Result<Told, DecodeError> {
        let is_transactional = fields.byte()? & 1 != 0;
        let _position = position(fields)?;
        // Whoever uses other prefixes may use long ones.
        let is_ours = fields.cstr().is_ok_and(|prefix| prefix == PREFIX);
        if !is_ours {
            return Ok(Told::Nothing);
        }
        let length = fields.i32()?;
        let content = usize::try_from(length).ok().and_then(|length| fields.bytes(length).ok());
        let mut said = Changes::default();
        match content {
            Some(content) => said.said(content),
            None => said.all(),
        }
        match is_transactional {
            true => {
                self.changes(b'M')?.merge(&said);
                Ok(Told::Nothing)
            }
            false => Ok(Told::Said(said)),
        }
    }
}

fn position(fields: &mut Fields<'_>) -> Result<Lsn, DecodeError> {
    let bytes = fields.bytes(8)?;
    let bytes = bytes.first_chunk::<8>().ok_or(DecodeError::Truncated)?;
    Ok(Lsn::new(u64::from_be_bytes(*bytes)))
}

#[cfg(test)]
mod tests;
