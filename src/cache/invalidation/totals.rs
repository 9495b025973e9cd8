//! Sums of stamps, as one proxy hands them to another.

use std::sync::atomic::{Ordering, fence};

use super::{cells::Cells, peers::WriteSet};
use crate::catalog::{KeyId, RelationOid};

/// The sums of all stamps that other proxies may share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Of the database as a whole.
    pub database: u64,
    /// Of its relations, whatever was written to them; one that is missing has none.
    pub relations: Vec<(RelationOid, u64)>,
    /// Of those whose rows have cells: at most 128, of at most [`super::ROW_CELLS`] places.
    pub rows: Vec<RowTotals>,
}

/// Those of one relation's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowTotals {
    /// The relation.
    pub relation: RelationOid,
    /// The key by which its rows are known.
    pub key: KeyId,
    /// Of writes of rows that nobody knows.
    pub unknown: u64,
    /// Of rows; a place that is missing has none.
    pub places: Vec<(u16, u64)>,
}

impl Totals {
    /// What has moved since.
    pub fn add(&mut self, set: &WriteSet, draw: u64) {
        for relation in &set.relations {
            self.add_relation(*relation, draw);
            if let Some(rows) = self.rows.iter_mut().find(|rows| rows.relation == *relation) {
                rows.unknown = rows.unknown.wrapping_add(draw);
            }
        }
        for told in &set.rows {
            let before = self.of(told.relation);
            let is_whole = set.relations.contains(&told.relation);
            if !is_whole {
                self.add_relation(told.relation, draw);
            }
            let known = self.rows.iter().position(|rows| rows.relation == told.relation);
            let at = known.unwrap_or_else(|| {
                let places = Vec::new();
                self.rows.push(RowTotals { relation: told.relation, key: told.key, unknown: before, places });
                self.rows.len() - 1
            });
            let Some(rows) = self.rows.get_mut(at) else { continue };
            match rows.key == told.key {
                true => told.places.iter().for_each(|place| add(&mut rows.places, *place, draw)),
                false if !is_whole => rows.unknown = rows.unknown.wrapping_add(draw),
                false => {}
            }
        }
        if set.database || set.catalog {
            self.database = self.database.wrapping_add(draw);
        }
    }

    fn of(&self, relation: RelationOid) -> u64 {
        self.relations.iter().find(|(known, _)| *known == relation).map_or(0, |(_, stamp)| *stamp)
    }

    fn add_relation(&mut self, relation: RelationOid, draw: u64) {
        add(&mut self.relations, relation, draw);
    }
}

fn add<T: PartialEq>(sums: &mut Vec<(T, u64)>, wanted: T, draw: u64) {
    match sums.iter_mut().find(|(known, _)| *known == wanted) {
        Some((_, sum)) => *sum = sum.wrapping_add(draw),
        None => sums.push((wanted, draw)),
    }
}

impl Cells {
    /// All stamps that others may share. Exact only while nothing is voided.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals { database: self.gate.database_stamp(), ..Totals::default() };
        for item in &self.relations {
            let (relation, table) = (*item.key(), item.value());
            let stamp = table.any().stamp();
            if stamp != 0 {
                totals.relations.push((relation, stamp));
            }
            if let Some(key) = table.key() {
                let (unknown, places) = (table.unknown().stamp(), table.sums());
                totals.rows.push(RowTotals { relation, key, unknown, places });
            }
        }
        totals
    }

    /// Goes on with another proxy's stamps; to be called while the cache is closed, and `now` counts as the time of a write to
    /// everything. Where the other one has no sums of rows, or there is no room for them, every write counts as one of rows
    /// that nobody knows.
    pub fn adopt(&self, totals: &Totals, now: u64) {
        self.relations.iter().for_each(|item| item.set_stamps(0));
        for (relation, stamp) in &totals.relations {
            self.table(*relation).set_stamps(*stamp);
        }
        for rows in &totals.rows {
            let table = self.table(rows.relation);
            self.divide(&table, rows.key);
            if table.is_divided_by(rows.key) {
                table.unknown().set_stamp(rows.unknown);
                rows.places.iter().for_each(|(place, stamp)| table.set_row_stamp(*place, *stamp));
            }
        }
        self.note_write(now, true);
        self.gate.adopt(totals.database);
        fence(Ordering::SeqCst);
    }
}
