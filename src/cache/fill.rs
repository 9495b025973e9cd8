//! An answer on its way into the cache: bytes are collected as they pass and judged once, at the end.

use bytes::Bytes;

use crate::catalog::RelationOid;

/// Tag and length in front of every message.
const HEADER_BYTES: usize = 5;
const LENGTH_FIELD_BYTES: usize = 4;
/// What may surround the rows: ParseComplete, BindComplete, row description, tag, ReadyForQuery.
const FRAME_ALLOWANCE_BYTES: usize = 16 * 1024;
/// `ReadyForQuery` outside a transaction.
const IDLE: u8 = b'I';

/// Types whose text depends on the catalogs in a way no stamp covers: reg* and aclitem, then arrays
/// of them. <https://www.postgresql.org/docs/current/datatype-oid.html>
const CATALOG_TYPES: [u32; 24] = [
    24, 1033, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191, //
    1008, 1034, 2207, 2208, 2209, 2210, 2211, 3735, 3770, 4090, 4097, 4192,
];

/// Why an answer was not kept: the `reason` label of the discard counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// More than `max_result_size`.
    TooLarge,
    /// The server reported an error.
    Error,
    /// A notice came with it, which a hit could not repeat.
    Notice,
    /// A notification or a parameter status came with it.
    Asynchronous,
    /// The portal was suspended: it is not the whole answer.
    Suspended,
    /// The tag is no `SELECT n` of as many rows.
    Tag,
    /// The transaction did not end idle.
    Status,
    /// It ended early, or holds a message that has no place in it.
    Malformed,
    /// A column's text depends on the catalogs.
    CatalogType,
    /// A column comes from a relation that the analysis did not find. This is an alarm: the shape of
    /// the statement must not be cached again.
    UnknownRelation(RelationOid),
}

impl Discard {
    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Error => "error",
            Self::Notice => "notice",
            Self::Asynchronous => "asynchronous_message",
            Self::Suspended => "portal_suspended",
            Self::Tag => "tag",
            Self::Status => "transaction_status",
            Self::Malformed => "malformed",
            Self::CatalogType => "catalog_type",
            Self::UnknownRelation(_) => "unknown_relation",
        }
    }
}

/// The parts of a complete answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) row_description: Option<Bytes>,
    pub(super) rows: Bytes,
    pub(super) command_complete: Bytes,
    pub(super) row_count: u64,
}

/// Collects what the server sends in answer to one request.
#[derive(Debug)]
pub(super) struct Fill {
    wire: Vec<u8>,
    max_result_bytes: usize,
    discarded: Option<Discard>,
}

impl Fill {
    pub(super) fn new(max_result_bytes: usize) -> Self {
        Self { wire: Vec::new(), max_result_bytes, discarded: None }
    }

    /// Takes bytes as they come, cut anywhere. `false`: it has given up and needs no more of them.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> bool {
        let limit = self.max_result_bytes.saturating_add(FRAME_ALLOWANCE_BYTES);
        if self.discarded.is_none() && bytes.len() > limit.saturating_sub(self.wire.len()) {
            self.discard(Discard::TooLarge);
        }
        if self.discarded.is_none() {
            self.wire.extend_from_slice(bytes);
        }
        self.discarded.is_none()
    }

    /// Gives up, and gives the memory back.
    pub(super) fn discard(&mut self, why: Discard) {
        self.discarded.get_or_insert(why);
        self.wire = Vec::new();
    }

    /// The answer, if it is complete and nothing but rows; `status` is that of ReadyForQuery.
    pub(super) fn finish(mut self, status: u8, depends_on: impl Fn(RelationOid) -> bool) -> Result<Answer, Discard> {
        if let Some(why) = self.discarded {
            return Err(why);
        }
        self.wire.shrink_to_fit();
        let wire = Bytes::from(self.wire);
        let answer = cut(&wire)?;
        if status != IDLE {
            return Err(Discard::Status);
        }
        if answer.rows.len() > self.max_result_bytes {
            return Err(Discard::TooLarge);
        }
        if let Some(description) = &answer.row_description {
            check_columns(description, depends_on)?;
        }
        Ok(answer)
    }
}

/// How far the messages of an answer have come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Preamble,
    Described,
    Rows,
    Complete,
    Ready,
}

/// CloseComplete…, ParseComplete, BindComplete, RowDescription, DataRow…, CommandComplete, ReadyForQuery: what is left
/// out is absent, nothing else may be there.
fn cut(wire: &Bytes) -> Result<Answer, Discard> {
    let mut part = Part::Preamble;
    let (mut at, mut rows_at, mut rows_end, mut row_count) = (0, 0, 0, 0);
    let (mut row_description, mut command_complete) = (None, None);
    while at < wire.len() {
        let (tag, end) = message(wire, at).ok_or(Discard::Malformed)?;
        part = match (part, tag) {
            (Part::Preamble, b'1' | b'2' | b'3' | b't') => Part::Preamble,
            (Part::Preamble, b'T') => {
                row_description = Some(wire.slice(at..end));
                Part::Described
            }
            (Part::Preamble | Part::Described | Part::Rows, b'D') => {
                rows_at = if row_count == 0 { at } else { rows_at };
                (rows_end, row_count) = (end, row_count + 1);
                Part::Rows
            }
            (Part::Preamble | Part::Described | Part::Rows, b'C') => {
                command_complete = Some(wire.slice(at..end));
                Part::Complete
            }
            (Part::Complete, b'Z') if wire.get(at + HEADER_BYTES) != Some(&IDLE) => {
                return Err(Discard::Status);
            }
            (Part::Complete, b'Z') => Part::Ready,
            (_, tag) => return Err(out_of_place(tag)),
        };
        at = end;
    }
    let command_complete = command_complete.ok_or(Discard::Malformed)?;
    if selected_rows(&command_complete) != Some(row_count) {
        return Err(Discard::Tag);
    }
    let rows = wire.slice(rows_at..rows_end);
    Ok(Answer { row_description, rows, command_complete, row_count })
}

/// The tag of the message at `at` and where it ends.
fn message(wire: &[u8], at: usize) -> Option<(u8, usize)> {
    let (header, _) = wire.get(at..)?.split_first_chunk::<HEADER_BYTES>()?;
    let [tag, length @ ..] = *header;
    let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
    let end = (at + 1).checked_add(length)?;
    (length >= LENGTH_FIELD_BYTES && end <= wire.len()).then_some((tag, end))
}

fn out_of_place(tag: u8) -> Discard {
    match tag {
        b'E' => Discard::Error,
        b'N' => Discard::Notice,
        b'A' | b'S' => Discard::Asynchronous,
        b's' => Discard::Suspended,
        _ => Discard::Malformed,
    }
}

/// The `n` of `SELECT n`.
fn selected_rows(command_complete: &[u8]) -> Option<u64> {
    let tag = command_complete.get(HEADER_BYTES..)?.strip_suffix(&[0])?;
    std::str::from_utf8(tag.strip_prefix(b"SELECT ")?).ok()?.parse().ok()
}

/// Every column's table must be among the dependencies, and no column's type a catalog type.
fn check_columns(description: &[u8], depends_on: impl Fn(RelationOid) -> bool) -> Result<(), Discard> {
    let mut rest = description.get(HEADER_BYTES + 2..).ok_or(Discard::Malformed)?;
    while !rest.is_empty() {
        let column = Column::split(&mut rest).ok_or(Discard::Malformed)?;
        if column.relation.0 != 0 && !depends_on(column.relation) {
            return Err(Discard::UnknownRelation(column.relation));
        }
        if CATALOG_TYPES.contains(&column.type_oid) {
            return Err(Discard::CatalogType);
        }
    }
    Ok(())
}

/// What a RowDescription says of one column, as far as it matters here.
struct Column {
    relation: RelationOid,
    type_oid: u32,
}

impl Column {
    /// <https://www.postgresql.org/docs/current/protocol-message-formats.html>: name, table, attribute
    /// number, type, type size, type modifier, format.
    fn split(rest: &mut &[u8]) -> Option<Self> {
        let name_end = memchr::memchr(0, rest)?;
        let (fields, after) = rest.get(name_end + 1..)?.split_first_chunk::<18>()?;
        let (relation, fields) = fields.split_first_chunk::<4>()?;
        let (_, fields) = fields.split_first_chunk::<2>()?;
        let (type_oid, _) = fields.split_first_chunk::<4>()?;
        *rest = after;
        Some(Self { relation: RelationOid(u32::from_be_bytes(*relation)), type_oid: u32::from_be_bytes(*type_oid) })
    }
}

#[cfg(test)]
mod tests;
