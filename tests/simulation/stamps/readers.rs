//! Readers, with the cache and without.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use pgweir::{
    cache::{Flight, KeyBuffer, Landing, Lookup, local::FillGuard},
    lsn::Lsn,
    routing::{Demand, Watermark},
};

use super::{
    Ablation,
    content::{Question, VIEW, Versions, check, read_row, relations, shown_by_view, wire},
    world::{REPLICA, World},
};

pub(super) enum Reader {
    Idle,
    Asking {
        question: Question,
        fill: FillGuard,
        told: Versions,
    },
    /// Somebody else asks the same.
    Joined {
        question: Question,
        flight: Arc<Flight>,
        owed: Versions,
    },
    Answered {
        question: Question,
        fill: FillGuard,
        shown: Versions,
    },
}

impl World {
    pub(super) fn read(&mut self, reader: Reader) -> Result<Reader, String> {
        match reader {
            Reader::Idle => self.ask(),
            Reader::Asking { question, fill, told } => self.query(question, fill, &told),
            Reader::Joined { question, flight, owed } => self.wait(question, flight, owed),
            Reader::Answered { question, mut fill, shown } => {
                if self.ablation == Ablation::CaptureAfterTheQuery {
                    match self.lookup(&question) {
                        Lookup::Miss(captured_late) => fill = captured_late,
                        Lookup::Hit(_) | Lookup::Refused(_) => return Ok(Reader::Idle),
                    }
                }
                fill.feed(&wire(&shown));
                fill.commit(b'I', None, self.now);
                self.coverage.fills += 1;
                Ok(Reader::Idle)
            }
        }
    }

    /// The dependencies are those that the proxy's picture of the catalog names.
    fn lookup(&self, question: &Question) -> Lookup {
        let mut key = KeyBuffer::default();
        let key = key.simple(&self.prefix, format!("select {question:?}").as_bytes());
        let (epoch, changes) = self.catalog;
        let deps = match question {
            Question::Tables(tables) => relations(tables),
            Question::View => relations(&[VIEW, shown_by_view(changes)]),
        };
        let epoch = match self.ablation {
            Ablation::StatementUnderstoodWithAnOldCatalog => self.cells.catalog_epoch(),
            _ => epoch,
        };
        self.cache.lookup(key, &self.cells, &deps, epoch, self.now)
    }

    fn ask(&mut self) -> Result<Reader, String> {
        let question = if self.random.one_in(4) { Question::View } else { Question::Tables(self.some_tables()) };
        match self.lookup(&question) {
            Lookup::Hit(entry) => {
                self.coverage.hits += 1;
                self.coverage.view_hits += u64::from(matches!(question, Question::View));
                check("a hit", &question, &read_row(&entry.rows), &self.server.visible)?;
                Ok(Reader::Idle)
            }
            Lookup::Miss(mut fill) => match fill.board() {
                Some(flight) => Ok(Reader::Joined { question, flight, owed: self.server.visible }),
                None => Ok(Reader::Asking { question, fill, told: self.told }),
            },
            Lookup::Refused(_) => Ok(Reader::Idle),
        }
    }

    /// An answer that was waited for shows all that was visible when the waiting began.
    fn wait(&mut self, question: Question, flight: Arc<Flight>, owed: Versions) -> Result<Reader, String> {
        let landing = pin!(flight.landed()).poll(&mut Context::from_waker(Waker::noop()));
        match landing {
            Poll::Ready(Landing::Arrived(entry)) => {
                self.coverage.joined += 1;
                check("an answer that was waited for", &question, &read_row(&entry.rows), &owed)?;
                Ok(Reader::Idle)
            }
            Poll::Ready(Landing::Lost | Landing::Unshared) => Ok(Reader::Idle),
            Poll::Pending => Ok(Reader::Joined { question, flight, owed }),
        }
    }

    /// The query runs at this very step, on the primary or on the replica if it has replayed enough.
    fn query(&mut self, question: Question, fill: FillGuard, told: &Versions) -> Result<Reader, String> {
        let has_replayed = match self.topology.samples().resolve(fill.fence()) {
            Watermark::Known(lsn) => Lsn::new(self.server.replayed as u64) >= lsn,
            Watermark::Unknown => false,
        };
        let may_use_replica = has_replayed || self.ablation == Ablation::ReplicaWithoutWatermark;
        let shown = if may_use_replica && self.random.one_in(2) {
            self.coverage.replica_fills += 1;
            self.server.replica
        } else {
            self.server.visible
        };
        check("the answer to a miss", &question, &shown, told)?;
        Ok(Reader::Answered { question, fill, shown })
    }

    /// A read of everything that the cache is not asked for, in one step.
    pub(super) fn read_uncached(&mut self) -> Result<(), String> {
        let demand = Demand::fenced(self.cells.fence(None));
        if self.topology.choose(&demand, self.now).member == Some(REPLICA) {
            self.coverage.replica_reads += 1;
            check("a read from the replica", &Question::Tables(vec![0, 1, 2, VIEW]), &self.server.replica, &self.told)?;
        }
        Ok(())
    }
}
