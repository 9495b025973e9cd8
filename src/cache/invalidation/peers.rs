//! What the cells of this process tell those of other proxies; who carries it is none of their business.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
};

use crate::catalog::{KeyId, RelationOid};

/// What a write may change, as it is told to others. It names what is marked, and what is marked is moved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteSet {
    /// All rows of these relations.
    pub relations: Box<[RelationOid]>,
    /// Those in these places, and no others of their relations, unless these are named above. Each relation once.
    pub rows: Box<[Places]>,
    /// Any relation.
    pub database: bool,
    /// Definitions.
    pub catalog: bool,
}

impl WriteSet {
    /// What either may change.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let mut relations = [self.relations, other.relations].concat();
        let mut rows = BTreeMap::<_, (KeyId, BTreeSet<u16>)>::new();
        for Places { relation, key, places } in self.rows.into_iter().chain(other.rows) {
            let (known, all) = rows.entry(relation).or_insert_with(|| (key, BTreeSet::new()));
            match *known == key {
                true => all.extend(places),
                // Whoever has cells for the rows of one key has none for those of another one.
                false => relations.push(relation),
            }
        }
        relations.sort_unstable();
        relations.dedup();
        let places = |(relation, (key, places)): (_, (_, BTreeSet<u16>))| Places {
            relation,
            key,
            places: places.into_iter().collect(),
        };
        Self {
            relations: relations.into(),
            rows: rows.into_iter().map(places).collect(),
            database: self.database || other.database,
            catalog: self.catalog || other.catalog,
        }
    }
}

/// Rows of one relation, by the places that the numbers of their keys have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The relation.
    pub relation: RelationOid,
    /// The key by which they are known.
    pub key: KeyId,
    /// Each once, below [`super::ROW_CELLS`].
    pub places: Box<[u16]>,
}

/// One write among those of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// A point in what was told: nothing that depends on it may happen before the others have heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

impl Ticket {
    /// Nobody has to hear anything.
    pub const NONE: Self = Self(0);

    /// Everything up to the `sequence`th thing told.
    pub const fn at(sequence: u64) -> Self {
        Self(sequence)
    }

    /// The number of the last thing that must have been heard.
    pub const fn sequence(self) -> u64 {
        self.0
    }

    /// Is there anything to wait for?
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// The other proxies that cache the same database.
///
/// What is told first is heard first. A ticket says what must have been heard by all of them before the next step: before the
/// commit is sent ([`Self::begin`]), before its client learns of it ([`Self::bump`]).
pub trait Peers: Debug + Send + Sync {
    /// A write is about to commit, in the server process of that number; its marks are set here.
    fn begin(&self, set: WriteSet, process_id: i32) -> (WriteId, Ticket);

    /// Stamps move by `draw`. `here` moves them in this process: whoever is told everything from the start, and whoever is
    /// told the sums of stamps and then the rest, must come to the same sums.
    fn bump(&self, set: WriteSet, draw: u64, here: &mut dyn FnMut()) -> Ticket;

    /// The write is over, and its marks here are gone.
    fn end(&self, write: WriteId);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(relations: &[u32], rows: &[(u32, u64, &[u16])]) -> WriteSet {
        let places = |(relation, key, places): &(u32, u64, &[u16])| Places {
            relation: RelationOid(*relation),
            key: KeyId(*key),
            places: (*places).into(),
        };
        let relations = relations.iter().copied().map(RelationOid).collect();
        WriteSet { relations, rows: rows.iter().map(places).collect(), ..WriteSet::default() }
    }

    #[test]
    fn two_writes_change_the_rows_of_both_and_those_of_another_key_are_any() {
        let cases = [
            (set(&[], &[(1, 7, &[3, 1])]), set(&[], &[(1, 7, &[2, 3])]), set(&[], &[(1, 7, &[1, 2, 3])])),
            (set(&[1], &[]), set(&[], &[(1, 7, &[2])]), set(&[1], &[(1, 7, &[2])])),
            (set(&[], &[(1, 7, &[2])]), set(&[], &[(1, 8, &[4])]), set(&[1], &[(1, 7, &[2])])),
            (set(&[3], &[(2, 7, &[2])]), set(&[1], &[(4, 8, &[4])]), set(&[1, 3], &[(2, 7, &[2]), (4, 8, &[4])])),
        ];
        for (one, other, both) in cases {
            assert_eq!(one.and(other), both);
        }
    }
}
