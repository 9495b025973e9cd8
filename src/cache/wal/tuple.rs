//! The primary key of a row in the stream.
//!
//! A table with the replica identity DEFAULT tells the columns of its primary key as such, and the key of each row that changes:
//! of an old row where the key changes or the row goes, of a new one where there is one. Where a new row stands alone, the old
//! one had the same key. <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>

use crate::{
    catalog::{KeyId, KeyType, RelationOid, Row},
    protocol::frame::Fields,
};

/// `relreplident` of a table whose rows are told by its primary key.
const BY_PRIMARY_KEY: u8 = b'd';
/// The column belongs to the key.
const IS_KEY: u8 = 1;

/// How the rows of one relation are known: by one column of a type that is understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IdentityKey {
    relation: RelationOid,
    /// Among those that are told.
    column: usize,
    kind: KeyType,
    id: KeyId,
}

impl IdentityKey {
    /// What stands behind the number of the relation. `None`: its rows are not told by such a key, or not all was looked at.
    pub(super) fn read(oid: u32, mut fields: Fields<'_>) -> Option<Self> {
        let _schema = fields.cstr().ok()?;
        let _name = fields.cstr().ok()?;
        let identity = fields.byte().ok()?;
        let mut key = None;
        for column in 0..usize::from(fields.u16().ok()?) {
            let flags = fields.byte().ok()?;
            let name = fields.cstr().ok()?;
            let type_oid = fields.i32().ok()?.cast_unsigned();
            let _modifier = fields.i32().ok()?;
            if flags & IS_KEY == 0 {
                continue;
            }
            // Other letters than those of ASCII come in the encoding of the client.
            let name = std::str::from_utf8(name).ok().filter(|name| name.is_ascii())?;
            let kind = KeyType::of(type_oid).filter(|_| key.is_none())?;
            key = Some(Self { relation: RelationOid(oid), column, kind, id: kind.named(name) });
        }
        key.filter(|_| identity == BY_PRIMARY_KEY)
    }

    /// The rows that a message of this kind changes: one, or two where a key has changed. `None`: any may have.
    pub(super) fn rows(&self, kind: u8, mut tuples: Fields<'_>) -> Option<(Row, Option<Row>)> {
        let first = tuples.byte().ok()?;
        match (kind, first) {
            (b'I' | b'U', b'N') | (b'D', b'K') => Some((self.row(&mut tuples, false)?, None)),
            (b'U', b'K') => {
                let old = self.row(&mut tuples, true)?;
                let new = (tuples.byte().ok()? == b'N').then(|| self.row(&mut tuples, false)).flatten()?;
                Some((old, Some(new)))
            }
            _ => None,
        }
    }

    /// The row of one tuple. What stands behind its key is passed over if something `follows`, else it is not looked at: it
    /// may be cut off.
    fn row(&self, tuple: &mut Fields<'_>, follows: bool) -> Option<Row> {
        let mut number = None;
        for column in 0..usize::from(tuple.u16().ok()?) {
            if number.is_some() && !follows {
                break;
            }
            let text = match tuple.byte().ok()? {
                b't' => {
                    let length = usize::try_from(tuple.i32().ok()?).ok()?;
                    Some(tuple.bytes(length).ok()?)
                }
                // Absent, or unchanged and stored elsewhere.
                b'n' | b'u' => None,
                _ => return None,
            };
            if column == self.column {
                number = Some(self.kind.of_text(text?)?);
            }
        }
        number.map(|number| Row { relation: self.relation, key: self.id, number })
    }
}
