//! The same promise with real threads and real memory ordering, where no seed can help.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use pgweir::{
    cache::{Cells, Lookup, ResultCache, Touched},
    catalog::RelationOid,
};

const TABLES: [RelationOid; 2] = [RelationOid(1), RelationOid(2)];
const WRITES: usize = 10_000;

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &u32::try_from(body.len() + 4).unwrap().to_be_bytes(), body].concat()
}

/// The content of both tables is one number each.
struct Shared {
    visible: [AtomicU64; 2],
    cells: Arc<Cells>,
    cache: Arc<ResultCache>,
    is_over: AtomicBool,
}

impl Shared {
    fn load(&self) -> [u64; 2] {
        [0, 1].map(|table| self.visible[table].load(Ordering::SeqCst))
    }

    fn write(&self, number: usize) {
        let table = number % 2;
        let touched = [TABLES[table]];
        let touched = if number.is_multiple_of(64) { Touched::Database } else { Touched::Relations(&touched) };
        let guard = self.cells.begin_write(touched, false);
        if number.is_multiple_of(5) {
            guard.rolled_back();
            return;
        }
        self.visible[table].fetch_add(1, Ordering::SeqCst);
        // Readers get their chance between visibility and the bump, which is where they can go wrong.
        if number % 8 == 1 {
            std::thread::yield_now();
        }
        let draw = (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        guard.committed(number as u64, || draw);
    }

    /// Whether it was a hit.
    fn read(&self) -> bool {
        let owed = self.load();
        match self.cache.lookup(b"both", &self.cells, &TABLES, self.cells.catalog_epoch(), 1) {
            Lookup::Hit(entry) => {
                let shown = [5, 13].map(|at| u64::from_be_bytes(entry.rows[at..at + 8].try_into().unwrap()));
                assert!(shown[0] >= owed[0] && shown[1] >= owed[1], "shown {shown:?}, owed {owed:?}");
                true
            }
            Lookup::Miss(mut fill) => {
                let row = self.load().map(u64::to_be_bytes).concat();
                fill.feed(&[message(b'D', &row), message(b'C', b"SELECT 1\0")].concat());
                fill.commit(b'I', None, 1);
                false
            }
            Lookup::Refused(_) => false,
        }
    }
}

#[test]
fn threads_never_hit_an_answer_older_than_what_was_visible() {
    let shared = Shared {
        visible: Default::default(),
        cells: Arc::new(Cells::new(1, 1)),
        cache: ResultCache::new(1 << 20, 1 << 10),
        is_over: AtomicBool::new(false),
    };
    let hits: usize = std::thread::scope(|scope| {
        let read = || {
            let mut hits = 0;
            while !shared.is_over.load(Ordering::Relaxed) {
                hits += usize::from(shared.read());
            }
            hits
        };
        let readers: Vec<_> = (0..3).map(|_| scope.spawn(read)).collect();
        let writers: Vec<_> =
            (0..2).map(|_| scope.spawn(|| (0..WRITES).for_each(|number| shared.write(number)))).collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        shared.is_over.store(true, Ordering::Relaxed);
        readers.into_iter().map(|reader| reader.join().unwrap()).sum()
    });
    assert!(hits > 0);
}
