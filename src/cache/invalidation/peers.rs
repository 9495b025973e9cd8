//! What the cells of this process tell those of other proxies; who carries it is none of their business.

use std::fmt::Debug;

use crate::catalog::RelationOid;

/// What a write may change, as it is told to others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteSet {
    /// These relations.
    pub relations: Box<[RelationOid]>,
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
        relations.sort_unstable();
        relations.dedup();
        Self {
            relations: relations.into(),
            database: self.database || other.database,
            catalog: self.catalog || other.catalog,
        }
    }
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
