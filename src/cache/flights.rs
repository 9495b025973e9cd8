//! Readers of one question who wait for one answer.
//!
//! Whoever misses first leads: he asks. Others join him only if the stamps that they captured are the ones that he had
//! captured before he asked: then his query includes every write that theirs must include. Whoever finds other stamps
//! leads a flight of his own, and later readers meet that one.
//!
//! Nobody depends on a leader: one who vanishes, fails or is overtaken leaves the others to themselves, and how long
//! they wait for him is theirs to say.

use std::{
    pin::pin,
    sync::{Arc, OnceLock},
};

use dashmap::{DashMap, Entry as Slot};
use tokio::sync::Notify;

use super::{entry::Entry, invalidation::Captured, key::Key};
use crate::ablation::Ablation;

/// How a flight ended.
#[derive(Clone, Debug)]
pub enum Landing {
    /// Here is the answer.
    Arrived(Arc<Entry>),
    /// It was overtaken by a write, or its leader is gone: somebody has to ask again.
    Lost,
    /// It cannot be kept, and neither could the next one: everybody asks for himself.
    Unshared,
}

/// One question under way.
#[derive(Debug)]
pub struct Flight {
    captured: Captured,
    landing: OnceLock<Landing>,
    waiting: Notify,
}

impl Flight {
    /// Waits for its end; cancel safe.
    pub async fn landed(&self) -> Landing {
        let mut woken = pin!(self.waiting.notified());
        // From here on no end is missed.
        woken.as_mut().enable();
        if let Some(landing) = self.landing.get() {
            return landing.clone();
        }
        woken.await;
        self.landing.get().cloned().unwrap_or(Landing::Lost)
    }
}

/// The questions under way: at most one for each client that waits for a server.
#[derive(Debug, Default)]
pub(super) struct Flights {
    under_way: DashMap<Key, Arc<Flight>, foldhash::fast::RandomState>,
}

/// Where a reader finds himself.
#[derive(Debug)]
pub(super) enum Boarded {
    /// He asks, and tells the others.
    Leads(Lead),
    /// Somebody asks already.
    Joins(Arc<Flight>),
}

impl Flights {
    pub(super) fn board(self: &Arc<Self>, key: &Key, captured: &Captured) -> Boarded {
        let begin = || {
            let (landing, waiting) = (OnceLock::new(), Notify::new());
            Arc::new(Flight { captured: captured.clone(), landing, waiting })
        };
        let flight = match self.under_way.entry(key.clone()) {
            Slot::Occupied(slot)
                if slot.get().captured.is_same(captured) || Ablation::JoinAtEqualStamps.is_left_out() =>
            {
                return Boarded::Joins(Arc::clone(slot.get()));
            }
            Slot::Occupied(mut slot) => {
                slot.insert(begin());
                Arc::clone(slot.get())
            }
            Slot::Vacant(slot) => Arc::clone(&slot.insert(begin())),
        };
        Boarded::Leads(Lead { flights: Arc::clone(self), key: key.clone(), flight })
    }

    pub(super) fn len(&self) -> usize {
        self.under_way.len()
    }
}

/// Who asks. Dropped without an answer, the flight is lost.
#[derive(Debug)]
pub(super) struct Lead {
    flights: Arc<Flights>,
    key: Key,
    flight: Arc<Flight>,
}

impl Lead {
    /// Ends the flight. An answer must be in level one by now: who comes later looks there.
    pub(super) fn land(self, landing: Landing) {
        _ = self.flight.landing.set(landing);
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        // A reader with other stamps may have begun another one in its place.
        self.flights.under_way.remove_if(&self.key, |_, flight| Arc::ptr_eq(flight, &self.flight));
        _ = self.flight.landing.set(Landing::Lost);
        self.flight.waiting.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        task::{Context, Poll, Waker},
    };

    use bytes::Bytes;

    use super::*;
    use crate::{
        cache::{Cells, Touched},
        catalog::RelationOid,
    };

    const TABLE: RelationOid = RelationOid(16_384);

    struct Field {
        flights: Arc<Flights>,
        cells: Arc<Cells>,
    }

    impl Field {
        fn new() -> Self {
            Self { flights: Arc::default(), cells: Arc::new(Cells::new(1, 1)) }
        }

        fn captured(&self) -> Captured {
            self.cells.capture(&[TABLE], self.cells.catalog_epoch()).unwrap()
        }

        fn board(&self, key: &[u8]) -> Boarded {
            self.flights.board(&Key::from(key), &self.captured())
        }

        #[track_caller]
        fn leads(&self, key: &[u8]) -> Lead {
            match self.board(key) {
                Boarded::Leads(lead) => lead,
                Boarded::Joins(_) => panic!("joins"),
            }
        }

        #[track_caller]
        fn joins(&self, key: &[u8]) -> Arc<Flight> {
            match self.board(key) {
                Boarded::Joins(flight) => flight,
                Boarded::Leads(_) => panic!("leads"),
            }
        }

        fn write(&self) {
            self.cells.begin_write(Touched::Relations(&[TABLE]), false).committed(2, || 7);
        }

        fn answer(&self) -> Arc<Entry> {
            Arc::new(Entry {
                row_description: None,
                rows: Bytes::new(),
                command_complete: Bytes::from_static(b"C\0\0\0\x0DSELECT 0\0"),
                row_count: 0,
                filled_at: 0,
                cost_us: 0,
                expires_at: None,
                left_out: 0,
                captured: self.captured(),
                shape: None,
                asked: Default::default(),
            })
        }
    }

    /// What a follower who waits already is told; `None`: to wait.
    fn poll(waiting: std::pin::Pin<&mut impl Future<Output = Landing>>) -> Option<Landing> {
        match waiting.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(landing) => Some(landing),
            Poll::Pending => None,
        }
    }

    #[test]
    fn who_asks_the_same_at_the_same_stamps_waits_for_the_one_who_asked_first() {
        let field = Field::new();
        let lead = field.leads(b"q");
        let flight = field.joins(b"q");
        let mut waiting = pin!(flight.landed());
        assert!(poll(waiting.as_mut()).is_none());
        let answer = field.answer();
        lead.land(Landing::Arrived(Arc::clone(&answer)));
        assert!(matches!(poll(waiting), Some(Landing::Arrived(entry)) if Arc::ptr_eq(&entry, &answer)));
        assert!(matches!(poll(pin!(flight.landed())), Some(Landing::Arrived(_))), "who looks late is told as well");
        assert_eq!(field.flights.len(), 0);
    }

    #[test]
    fn nobody_joins_a_flight_from_before_a_write_that_he_must_see() {
        let field = Field::new();
        let early = field.leads(b"q");
        field.write();
        let late = field.leads(b"q");
        assert!(Arc::ptr_eq(&field.joins(b"q"), &late.flight), "later readers meet the newer one");
        early.land(Landing::Lost);
        assert!(Arc::ptr_eq(&field.joins(b"q"), &late.flight), "the end of the older one is not its end");
        drop(late);
        assert_eq!(field.flights.len(), 0);
    }

    #[test]
    fn another_question_is_another_flight() {
        let field = Field::new();
        let (_one, _two) = (field.leads(b"one"), field.leads(b"two"));
        assert_eq!(field.flights.len(), 2);
    }

    #[test]
    fn a_leader_who_vanishes_leaves_nobody_waiting() {
        let field = Field::new();
        let lead = field.leads(b"q");
        let flight = field.joins(b"q");
        let mut waiting = pin!(flight.landed());
        assert!(poll(waiting.as_mut()).is_none());
        drop(lead);
        assert!(matches!(poll(waiting), Some(Landing::Lost)));
        field.leads(b"q").land(Landing::Unshared);
    }
}
