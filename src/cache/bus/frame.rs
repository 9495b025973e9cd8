//! What proxies tell each other, as bytes.
//!
//! A [`Message`] is what one proxy says at once: things that all others hear in order, each with a number, and things
//! that need no order. It is sealed by a keyed hash ([`Seal`]), because whoever carries it is not trusted: a message that was
//! made up, changed or addressed to another database is none. What is old is told by numbers and echoes inside.

use ring::hmac;

use crate::{
    cache::invalidation::{Places, ROW_CELLS, RowTotals, Totals, WriteId, WriteSet},
    catalog::{KeyId, RelationOid},
};

/// Raised with every change of the encoding; proxies of different versions do not understand each other, and stay apart.
const VERSION: u8 = 3;
const TAG_BYTES: usize = 32;
/// Relations in one list, writes in one list, things in one message: more than any database has is nonsense.
const LONGEST_LIST: usize = 1 << 20;

/// A proxy among those of one database, for as long as its process shares it. Older ones have smaller numbers, as far as
/// their clocks agree, which only warmth hangs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// Something that all others hear in the order in which it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A write is about to commit in that server process.
    Begin { write: WriteId, process_id: i32, set: WriteSet },
    /// Stamps move.
    Bump { set: WriteSet, draw: u64 },
    /// A write is over.
    End { write: WriteId },
    /// Its stamps lack something that others have: whoever shared them takes them again.
    Adrift,
    /// The proxy leaves: it writes and serves nothing more.
    Bye,
}

/// A write that has begun and is not over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// Which.
    pub write: WriteId,
    /// The server process that runs it.
    pub process_id: i32,
    /// What it may change.
    pub set: WriteSet,
}

/// Something that needs no order. Times are the sender's of the question and mean nothing to anybody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// To all: tell me in time when you still listen to me. It renews the right to serve.
    Ping { sent_at: u64 },
    /// To one: I do, and wait for you before I go on with a write; or I do not, and you must say [`Note::Hello`].
    Pong { to: NodeId, sent_at: u64, awaits: bool },
    /// To one: I have heard everything you told up to that number.
    Ack { to: NodeId, sequence: u64 },
    /// To one: wait for me from now on, and say what I must know.
    Hello { to: NodeId, sent_at: u64 },
    /// To one: what began before the number of this message and is not over.
    Welcome { to: NodeId, sent_at: u64, is_settled: bool, unfinished: Vec<Unfinished> },
    /// To one: which stamps have you?
    Ask { to: NodeId, sent_at: u64 },
    /// To one: these, with all that I have heard of each of the others up to a number, and what I have marked of theirs.
    Totals { to: NodeId, sent_at: u64, heard: Vec<(NodeId, u64)>, totals: Totals, unfinished: Vec<Unfinished> },
}

/// What a proxy says at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who says it.
    pub from: NodeId,
    /// How much it had told when it said so, what is in here included.
    pub sequence: u64,
    /// The newest things told, the last of them with the number `sequence`.
    pub told: Vec<Told>,
    /// Behind them.
    pub notes: Vec<Note>,
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Sealed by somebody who has another secret or another database, or not at all.
    #[error("not sealed by a proxy of this database")]
    Seal,
    /// A proxy of another version has said it.
    #[error("a message of another version")]
    Version,
    /// Cut off, or longer than it may be.
    #[error("malformed message")]
    Malformed,
}

impl FrameError {
    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Seal => "forged",
            Self::Version => "version",
            Self::Malformed => "malformed",
        }
    }
}

/// The keyed hash of one database's messages.
#[derive(Debug)]
pub struct Seal(hmac::Key);

impl Seal {
    /// `secret` is that of the cache, `channel` what tells this database from others.
    pub fn new(secret: &str, channel: &str) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let mut context = hmac::Context::with_key(&root);
        context.update(b"pgweir bus\0");
        context.update(channel.as_bytes());
        Self(hmac::Key::new(hmac::HMAC_SHA256, context.sign().as_ref()))
    }

    /// A message, sealed.
    pub fn put(&self, message: &Message) -> Vec<u8> {
        self.put_as(VERSION, message)
    }

    /// As one of the version before says it.
    #[cfg(test)]
    pub fn put_as_before(&self, message: &Message) -> Vec<u8> {
        self.put_as(VERSION - 1, message)
    }

    fn put_as(&self, version: u8, message: &Message) -> Vec<u8> {
        let mut out = vec![version];
        message.put(&mut out);
        let tag = hmac::sign(&self.0, &out);
        out.extend_from_slice(tag.as_ref());
        out
    }

    /// What a proxy has said.
    pub fn take(&self, bytes: &[u8]) -> Result<Message, FrameError> {
        let (body, tag) = bytes
            .len()
            .checked_sub(TAG_BYTES)
            .and_then(|at| bytes.split_at_checked(at))
            .ok_or(FrameError::Malformed)?;
        hmac::verify(&self.0, body, tag).map_err(|_| FrameError::Seal)?;
        match body.split_first() {
            Some((&VERSION, rest)) => Reader(rest).message().ok_or(FrameError::Malformed),
            _ => Err(FrameError::Version),
        }
    }
}

impl Message {
    fn put(&self, out: &mut Vec<u8>) {
        put_u64(out, self.from.0);
        put_u64(out, self.sequence);
        put_list(out, &self.told, |out, told| match told {
            Told::Begin { write, process_id, set } => {
                out.push(b'B');
                put_u64(out, write.0);
                out.extend_from_slice(&process_id.to_le_bytes());
                put_set(out, set);
            }
            Told::Bump { set, draw } => {
                out.push(b'S');
                put_u64(out, *draw);
                put_set(out, set);
            }
            Told::End { write } => {
                out.push(b'E');
                put_u64(out, write.0);
            }
            Told::Adrift => out.push(b'A'),
            Told::Bye => out.push(b'X'),
        });
        put_list(out, &self.notes, put_note);
    }
}

fn put_note(out: &mut Vec<u8>, note: &Note) {
    let mut head = |tag: u8, to: Option<NodeId>, number: u64| {
        out.push(tag);
        put_u64(out, to.map_or(0, |to| to.0));
        put_u64(out, number);
    };
    match note {
        Note::Ping { sent_at } => head(b'p', None, *sent_at),
        Note::Pong { to, sent_at, awaits } => {
            head(b'q', Some(*to), *sent_at);
            out.push(u8::from(*awaits));
        }
        Note::Ack { to, sequence } => head(b'a', Some(*to), *sequence),
        Note::Hello { to, sent_at } => head(b'h', Some(*to), *sent_at),
        Note::Welcome { to, sent_at, is_settled, unfinished } => {
            head(b'w', Some(*to), *sent_at);
            out.push(u8::from(*is_settled));
            put_list(out, unfinished, put_unfinished);
        }
        Note::Ask { to, sent_at } => head(b'k', Some(*to), *sent_at),
        Note::Totals { to, sent_at, heard, totals, unfinished } => {
            head(b't', Some(*to), *sent_at);
            put_list(out, heard, |out, (node, sequence)| {
                put_u64(out, node.0);
                put_u64(out, *sequence);
            });
            put_u64(out, totals.database);
            put_list(out, &totals.relations, |out, (relation, stamp)| {
                out.extend_from_slice(&relation.0.to_le_bytes());
                put_u64(out, *stamp);
            });
            put_list(out, &totals.rows, put_row_totals);
            put_list(out, unfinished, put_unfinished);
        }
    }
}

fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_list<T>(out: &mut Vec<u8>, list: &[T], put: impl Fn(&mut Vec<u8>, &T)) {
    put_u64(out, list.len() as u64);
    for item in list {
        put(out, item);
    }
}

fn put_unfinished(out: &mut Vec<u8>, one: &Unfinished) {
    put_u64(out, one.write.0);
    out.extend_from_slice(&one.process_id.to_le_bytes());
    put_set(out, &one.set);
}

fn put_set(out: &mut Vec<u8>, set: &WriteSet) {
    out.push(u8::from(set.database) | u8::from(set.catalog) << 1);
    put_list(out, &set.relations, |out, relation| out.extend_from_slice(&relation.0.to_le_bytes()));
    put_list(out, &set.rows, |out, Places { relation, key, places }| {
        out.extend_from_slice(&relation.0.to_le_bytes());
        put_u64(out, key.0);
        put_list(out, places, |out, place| out.extend_from_slice(&place.to_le_bytes()));
    });
}

fn put_row_totals(out: &mut Vec<u8>, rows: &RowTotals) {
    out.extend_from_slice(&rows.relation.0.to_le_bytes());
    put_u64(out, rows.key.0);
    put_u64(out, rows.unknown);
    put_list(out, &rows.places, |out, (place, stamp)| {
        out.extend_from_slice(&place.to_le_bytes());
        put_u64(out, *stamp);
    });
}

/// Reads what [`Message::put`] has written; `None` where that cannot be.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn message(mut self) -> Option<Message> {
        let message = Message {
            from: NodeId(self.u64()?),
            sequence: self.u64()?,
            told: self.list(|reader| reader.told())?,
            notes: self.list(|reader| reader.note())?,
        };
        self.0.is_empty().then_some(message)
    }

    fn told(&mut self) -> Option<Told> {
        Some(match self.u8()? {
            b'B' => Told::Begin { write: WriteId(self.u64()?), process_id: self.i32()?, set: self.set()? },
            b'S' => {
                let draw = self.u64()?;
                Told::Bump { set: self.set()?, draw }
            }
            b'E' => Told::End { write: WriteId(self.u64()?) },
            b'A' => Told::Adrift,
            b'X' => Told::Bye,
            _ => return None,
        })
    }

    fn note(&mut self) -> Option<Note> {
        let (tag, to, number) = (self.u8()?, NodeId(self.u64()?), self.u64()?);
        Some(match tag {
            b'p' => Note::Ping { sent_at: number },
            b'q' => Note::Pong { to, sent_at: number, awaits: self.flag()? },
            b'a' => Note::Ack { to, sequence: number },
            b'h' => Note::Hello { to, sent_at: number },
            b'w' => Note::Welcome {
                to,
                sent_at: number,
                is_settled: self.flag()?,
                unfinished: self.list(Self::unfinished)?,
            },
            b'k' => Note::Ask { to, sent_at: number },
            b't' => Note::Totals {
                to,
                sent_at: number,
                heard: self.list(|reader| Some((NodeId(reader.u64()?), reader.u64()?)))?,
                totals: Totals {
                    database: self.u64()?,
                    relations: self.list(|reader| Some((RelationOid(reader.u32()?), reader.u64()?)))?,
                    rows: self.list(Self::row_totals)?,
                },
                unfinished: self.list(Self::unfinished)?,
            },
            _ => return None,
        })
    }

    fn unfinished(&mut self) -> Option<Unfinished> {
        let (write, process_id) = (WriteId(self.u64()?), self.i32()?);
        Some(Unfinished { write, process_id, set: self.set()? })
    }

    fn set(&mut self) -> Option<WriteSet> {
        let flags = self.u8()?;
        let relations = self.list(|reader| reader.u32().map(RelationOid))?;
        let rows = self.list(Self::places)?.into();
        let set = WriteSet { relations: relations.into(), rows, database: flags & 1 != 0, catalog: flags & 2 != 0 };
        (flags < 4).then_some(set)
    }

    fn places(&mut self) -> Option<Places> {
        let (relation, key) = (RelationOid(self.u32()?), KeyId(self.u64()?));
        Some(Places { relation, key, places: self.list(Self::place)?.into() })
    }

    fn row_totals(&mut self) -> Option<RowTotals> {
        let (relation, key, unknown) = (RelationOid(self.u32()?), KeyId(self.u64()?), self.u64()?);
        let places = self.list(|reader| Some((reader.place()?, reader.u64()?)))?;
        Some(RowTotals { relation, key, unknown, places })
    }

    /// Of those that there are.
    fn place(&mut self) -> Option<u16> {
        self.bytes().map(u16::from_le_bytes).filter(|place| *place < ROW_CELLS)
    }

    /// Room is made for what is there, not for what is said to be there.
    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = usize::try_from(self.u64()?).ok().filter(|count| *count <= LONGEST_LIST.min(self.0.len()))?;
        (0..count).map(|_| item(self)).collect()
    }

    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn u8(&mut self) -> Option<u8> {
        self.bytes().map(u8::from_le_bytes)
    }

    fn flag(&mut self) -> Option<bool> {
        self.u8().filter(|flag| *flag < 2).map(|flag| flag == 1)
    }

    fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.bytes().map(i32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(relations: &[u32], database: bool, catalog: bool) -> WriteSet {
        let places = |places: &[u16]| Places { relation: RelationOid(8), key: KeyId(u64::MAX), places: places.into() };
        let rows = [places(&[]), places(&[0, 7, ROW_CELLS - 1])].into();
        WriteSet { relations: relations.iter().copied().map(RelationOid).collect(), rows, database, catalog }
    }

    fn everything() -> Message {
        let to = NodeId(9);
        let unfinished = vec![Unfinished { write: WriteId(3), process_id: -1, set: set(&[1, 2], false, true) }];
        let rows = RowTotals { relation: RelationOid(16_384), key: KeyId(3), unknown: 9, places: vec![(2, 8), (1, 4)] };
        let relations = vec![(RelationOid(16_384), 77), (RelationOid(u32::MAX), 1)];
        let totals = Totals { database: 5, relations, rows: vec![rows] };
        Message {
            from: NodeId(u64::MAX),
            sequence: 12,
            told: vec![
                Told::Begin { write: WriteId(7), process_id: 42, set: set(&[16_384], true, false) },
                Told::Bump { set: set(&[], true, true), draw: 99 },
                Told::End { write: WriteId(7) },
                Told::Adrift,
                Told::Bye,
            ],
            notes: vec![
                Note::Ping { sent_at: 1 },
                Note::Pong { to, sent_at: 2, awaits: true },
                Note::Ack { to, sequence: 3 },
                Note::Hello { to, sent_at: 4 },
                Note::Welcome { to, sent_at: 5, is_settled: false, unfinished: unfinished.clone() },
                Note::Ask { to, sent_at: 6 },
                Note::Totals { to, sent_at: 7, heard: vec![(NodeId(1), 2)], totals, unfinished: unfinished.clone() },
            ],
        }
    }

    #[test]
    fn what_is_put_is_taken() {
        let seal = Seal::new("secret", "shop");
        assert_eq!(seal.take(&seal.put(&everything())), Ok(everything()));
    }

    #[test]
    fn no_byte_of_a_message_can_be_changed_and_none_can_be_cut_off() {
        let seal = Seal::new("secret", "shop");
        let sealed = seal.put(&everything());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(seal.take(&changed), Err(FrameError::Seal), "byte {at}");
            assert!(seal.take(&sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_message_of_another_version_is_known_as_such() {
        let seal = Seal::new("secret", "shop");
        assert_eq!(seal.take(&seal.put_as_before(&everything())), Err(FrameError::Version));
    }

    #[test]
    fn a_message_of_another_database_or_secret_is_none() {
        let sealed = Seal::new("secret", "shop").put(&everything());
        assert_eq!(Seal::new("secret", "shop2").take(&sealed), Err(FrameError::Seal));
        assert_eq!(Seal::new("secret2", "shop").take(&sealed), Err(FrameError::Seal));
    }

    #[test]
    fn a_sealed_message_that_lies_about_its_lengths_is_none() {
        let mut body = Vec::new();
        everything().put(&mut body);
        for at in 0..body.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = body.clone();
                changed[at] = value;
                // It is a message or none, and neither panics nor asks for memory that is not there.
                _ = Reader(&changed).message();
            }
        }
        assert_eq!(Reader(&[0xff; 64]).message(), None);
    }

    #[test]
    fn a_place_that_no_table_has_is_none() {
        for (place, is_one) in [(ROW_CELLS - 1, true), (ROW_CELLS, false), (u16::MAX, false)] {
            assert_eq!(Reader(&place.to_le_bytes()).place().is_some(), is_one, "{place}");
        }
    }
}
