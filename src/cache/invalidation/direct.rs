//! Writes that bypass the proxy: their stamps, and how long it may be believed that all of them are known.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering, fence},
};

use super::{
    cells::Cells,
    gate::Closure,
    peers::{Places, WriteSet},
};
use crate::catalog::{RelationOid, Row};

/// Nobody has to hear of writes that bypass the proxy.
const NOT_NEEDED: u64 = u64::MAX;

/// How often answers were voided, by what has brought it about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Voids {
    /// A write through this proxy.
    pub proxy: u64,
    /// Writes that the primary's stream has told of.
    pub wal: u64,
    /// Definitions have changed.
    pub ddl: u64,
    /// FLUSH CACHE.
    pub console: u64,
}

impl Voids {
    /// Each with the metric label.
    #[must_use]
    pub fn by_source(self) -> [(&'static str, u64); 4] {
        [("proxy", self.proxy), ("wal", self.wal), ("ddl", self.ddl), ("console", self.console)]
    }
}

#[derive(Debug, Default)]
pub(super) struct VoidCounts {
    proxy: AtomicU64,
    wal: AtomicU64,
    ddl: AtomicU64,
    console: AtomicU64,
}

impl VoidCounts {
    pub(super) fn proxy(&self) {
        self.proxy.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn definitions(&self) {
        self.ddl.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn console(&self) {
        self.console.fetch_add(1, Ordering::Relaxed);
    }
}

impl Cells {
    /// From now on nothing is served unless writes that bypass the proxy are heard of. Once is enough.
    pub fn need_hearing(&self) {
        if self.gate.heard_until() == NOT_NEEDED {
            self.stop_hearing();
        }
    }

    /// The stream is there: what was kept before is void, what is sent from now on may be kept. `now` is a clock read
    /// after the stream has begun; whoever reads from a replica must not miss what happened before.
    pub fn begin_hearing(&self, now: u64, draw: impl FnMut() -> u64) {
        self.note_write(now, true);
        self.reopen(Closure::DirectWrites, now, draw);
    }

    /// Everything that could be seen some time before `until` has been voided: hits that begin before `until` may be
    /// served.
    pub fn hear_until(&self, until: u64) {
        self.gate.hear_until(until.min(NOT_NEEDED - 1));
    }

    /// The stream is gone: something may be missed.
    pub fn stop_hearing(&self) {
        self.gate.close(Closure::DirectWrites);
        self.gate.hear_until(0);
        fence(Ordering::SeqCst);
    }

    /// May a hit that began at `now` be served, as far as writes that bypass the proxy are concerned? To be asked before
    /// stamps are compared: what was voided before this time was told shows in them.
    pub fn is_heard(&self, now: u64) -> bool {
        now < self.gate.heard_until()
    }

    /// Until when that is so; `None` where nobody has to hear of them.
    pub fn heard_until(&self) -> Option<u64> {
        Some(self.gate.heard_until()).filter(|until| *until != NOT_NEEDED)
    }

    /// A write that bypassed the proxy can be seen on the primary: voids what hangs on these relations, or on anything.
    /// `now` is a clock read after that was known.
    pub fn void(&self, relations: Option<&[RelationOid]>, now: u64, mut draw: impl FnMut() -> u64) {
        self.voids.wal.fetch_add(1, Ordering::Relaxed);
        let is_known = relations.is_some();
        let relations = relations.unwrap_or_default().into();
        self.void_everywhere(&WriteSet { relations, database: !is_known, ..WriteSet::default() }, now, draw().max(1));
    }

    /// The same, of these relations, and of these rows of others.
    pub fn void_rows(&self, relations: &[RelationOid], rows: &[Row], now: u64, mut draw: impl FnMut() -> u64) {
        self.voids.wal.fetch_add(1, Ordering::Relaxed);
        let (mut relations, mut rows_of) = (relations.to_vec(), BTreeMap::<_, BTreeSet<u16>>::new());
        for row in rows {
            match self.place_of_writer(&self.table(row.relation), *row) {
                Some(place) => _ = rows_of.entry((row.relation, row.key)).or_default().insert(place),
                None if !relations.contains(&row.relation) => relations.push(row.relation),
                None => {}
            }
        }
        let places = |((relation, key), places): (_, BTreeSet<u16>)| Places {
            relation,
            key,
            places: places.into_iter().collect(),
        };
        let rows = rows_of.into_iter().map(places).collect();
        self.void_everywhere(
            &WriteSet { relations: relations.into(), rows, ..WriteSet::default() },
            now,
            draw().max(1),
        );
    }

    /// How often answers were voided.
    pub fn voids(&self) -> Voids {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.voids;
        Voids { proxy: of(&counts.proxy), wal: of(&counts.wal), ddl: of(&counts.ddl), console: of(&counts.console) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{
        super::{Touched, Uncaptured},
        *,
    };

    const T: RelationOid = RelationOid(16_400);
    const U: RelationOid = RelationOid(16_401);

    fn cells() -> Arc<Cells> {
        Arc::new(Cells::new(7, 1))
    }

    #[test]
    fn where_nobody_has_to_hear_nothing_lapses() {
        let cells = cells();
        assert!(cells.is_heard(u64::MAX - 1) && cells.heard_until().is_none() && cells.closure().is_none());
    }

    #[test]
    fn what_is_heard_lapses_by_itself_and_voids_nothing() {
        let cells = cells();
        cells.need_hearing();
        assert_eq!((cells.closure(), cells.is_heard(0)), (Some(Closure::DirectWrites), false));
        cells.begin_hearing(5, || 3);
        assert!(!cells.is_heard(5), "the stream has not shown how far it is");
        let captured = cells.capture(&[T], cells.catalog_epoch()).unwrap();
        cells.hear_until(100);
        assert!(cells.is_heard(99) && !cells.is_heard(100));
        cells.hear_until(200);
        assert!(cells.is_heard(100) && cells.is_current(&captured));
        cells.need_hearing();
        assert!(cells.is_heard(100), "it was needed before");
    }

    #[test]
    fn a_stream_that_was_lost_leaves_nothing_of_before() {
        let cells = cells();
        cells.need_hearing();
        cells.begin_hearing(5, || 3);
        let captured = cells.capture(&[T], cells.catalog_epoch()).unwrap();
        cells.stop_hearing();
        let refused = cells.capture(&[T], cells.catalog_epoch()).map(|_| ());
        assert_eq!(refused, Err(Uncaptured::Closed(Closure::DirectWrites)));
        cells.begin_hearing(9, || 3);
        assert!(!cells.is_current(&captured));
        let fence = cells.capture(&[U], cells.catalog_epoch()).unwrap().fence();
        assert_eq!(fence, crate::routing::Fence::after(9), "a replica must have replayed what was not heard");
    }

    #[test]
    fn a_direct_write_voids_its_relations_or_everything_and_raises_the_fence_of_fills() {
        let cells = cells();
        let of = |relation| cells.capture(&[relation], cells.catalog_epoch()).unwrap();
        let (t, u) = (of(T), of(U));
        cells.void(Some(&[T]), 50, || 3);
        assert!(!cells.is_current(&t) && cells.is_current(&u));
        assert_eq!((of(T).fence(), of(U).fence()), (crate::routing::Fence::after(50), crate::routing::Fence::after(1)));
        cells.void(None, 60, || 3);
        assert!(!cells.is_current(&u));
        assert_eq!(of(U).fence(), crate::routing::Fence::after(60));
    }

    #[test]
    fn what_voids_is_counted_by_its_source() {
        let cells = cells();
        cells.begin_write(Touched::Relations(&[T]), false).committed(3, || 3);
        cells.void(Some(&[T, U]), 4, || 3);
        cells.bump_catalog(|| 3);
        cells.flush(None, 5, || 3);
        assert_eq!(cells.voids(), Voids { proxy: 1, wal: 1, ddl: 1, console: 1 });
    }
}
