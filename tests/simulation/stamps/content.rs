//! What the server holds, and how it looks on the wire.

use pgweir::catalog::RelationOid;

pub(super) const TABLES: usize = 3;
/// The place of the view behind the tables: its number counts how often it was redefined.
pub(super) const VIEW: usize = TABLES;

/// One number per table, and the view's.
pub(super) type Versions = [u64; TABLES + 1];

/// The table that the view shows after so many changes.
pub(super) fn shown_by_view(changes: u64) -> usize {
    usize::try_from(changes).unwrap() % TABLES
}

/// What the server knows.
#[derive(Default)]
pub(super) struct Server {
    pub(super) visible: Versions,
    /// The tables of each commit; the position of a commit is its place here, counted from 1.
    pub(super) wal: Vec<Vec<usize>>,
    pub(super) replayed: usize,
    pub(super) replica: Versions,
}

impl Server {
    pub(super) fn commit(&mut self, tables: &[usize]) {
        tables.iter().for_each(|table| self.visible[*table] += 1);
        self.wal.push(tables.to_vec());
    }

    pub(super) fn replay(&mut self) {
        if let Some(tables) = self.wal.get(self.replayed) {
            tables.iter().for_each(|table| self.replica[*table] += 1);
            self.replayed += 1;
        }
    }
}

#[derive(Clone, Debug)]
pub(super) enum Question {
    Tables(Vec<usize>),
    View,
}

pub(super) fn relations(tables: &[usize]) -> Vec<RelationOid> {
    tables.iter().map(|table| RelationOid(u32::try_from(*table).unwrap() + 16_384)).collect()
}

pub(super) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

/// The numbers as one row.
pub(super) fn wire(versions: &Versions) -> Vec<u8> {
    let body: Vec<u8> = versions.iter().flat_map(|version| version.to_be_bytes()).collect();
    [message(b'D', &body), message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat()
}

pub(super) fn read_row(row: &[u8]) -> Versions {
    std::array::from_fn(|table| u64::from_be_bytes(row[5 + 8 * table..][..8].try_into().unwrap()))
}

/// An answer about the view must show its present definition, and the present content of its table.
pub(super) fn check(what: &str, question: &Question, shown: &Versions, owed: &Versions) -> Result<(), String> {
    let tables = match question {
        Question::Tables(tables) => tables.clone(),
        Question::View => vec![VIEW, shown_by_view(shown[VIEW])],
    };
    match tables.iter().find(|table| shown[**table] < owed[**table]) {
        Some(table) => {
            let (shown, owed) = (shown[*table], owed[*table]);
            Err(format!("{what} to {question:?} shows version {shown} of table {table}, owed is {owed}"))
        }
        None => Ok(()),
    }
}
