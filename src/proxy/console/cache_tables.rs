//! The lines of SHOW CACHE TABLES.

use crate::{admin::rows::CacheTableRow, cluster::Database, routing::Watermark};

pub(super) fn cache_table_rows(database: &Database) -> Vec<CacheTableRow> {
    let (catalog, lifetimes) = (database.catalog(), &database.settings.lifetimes);
    let snapshot = catalog.as_ref().map(|catalog| &catalog.snapshot);
    let said = |schema: &str, relation: &str| lifetimes.of_relation(schema, relation);
    let cells = database.cells.report().into_iter();
    cells
        .map(|cell| {
            let name = snapshot.and_then(|snapshot| snapshot.relation_name(cell.relation));
            let ttl = snapshot.and_then(|snapshot| snapshot.said_of(cell.relation, said, lifetimes.usual()));
            CacheTableRow {
                database: database.name.to_string(),
                relation: name.unwrap_or_else(|| cell.relation.0.to_string()),
                invalidations: u64::from(cell.bumps),
                by_key: cell.by_key.map(u64::from),
                in_flight_writes: u64::from(cell.in_flight),
                watermark: match database.cells.watermark(Some(&[cell.relation]), database.topology.samples()) {
                    Watermark::Known(lsn) => Some(lsn.to_string()),
                    Watermark::Unknown => None,
                },
                ttl: ttl.unwrap_or(lifetimes.usual()).to_string(),
            }
        })
        .collect()
}
