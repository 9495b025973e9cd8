//! The thread that writes the slow log's file.

use std::{
    io::{self, BufWriter, Write},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
};

use super::SlowEntry;
use crate::telemetry::{
    logging::LogFile,
    metrics::{Counter, SharedMetrics, families},
};

/// Entries that may wait for the disk.
const QUEUE: usize = 4096;

enum Order {
    Write(Arc<SlowEntry>),
    Reopen,
    Stop,
}

pub(super) struct Writer {
    orders: SyncSender<Order>,
    thread: Mutex<Option<JoinHandle<()>>>,
    dropped: Counter,
}

impl Writer {
    pub(super) fn start(path: &Path, metrics: &SharedMetrics) -> io::Result<Self> {
        let (orders, received) = sync_channel(QUEUE);
        let file = SlowFile {
            file: BufWriter::new(LogFile::open(path)?),
            errors: metrics.counter(&families::SLOW_LOG_ERRORS, &[]),
        };
        let run = move || file.serve(&received);
        let thread = thread::Builder::new().name("slow-log".to_owned()).spawn(run)?;
        Ok(Self {
            orders,
            thread: Mutex::new(Some(thread)),
            dropped: metrics.counter(&families::SLOW_LOG_DROPPED, &[]),
        })
    }

    pub(super) fn write(&self, entry: Arc<SlowEntry>) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.orders.try_send(Order::Write(entry)) {
            self.dropped.increment();
        }
    }

    /// Waits where the queue is full: an order must not be lost.
    pub(super) fn reopen(&self) {
        // The thread is gone only after `close`, and then there is nothing to open.
        let _ = self.orders.send(Order::Reopen);
    }

    pub(super) fn close(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = self.orders.send(Order::Stop);
            let _ = thread.join();
        }
    }
}

struct SlowFile {
    file: BufWriter<LogFile>,
    errors: Counter,
}

impl SlowFile {
    /// Until told to stop or nobody is left to tell.
    fn serve(mut self, orders: &Receiver<Order>) {
        while let Some(order) = self.next(orders) {
            match order {
                Order::Write(entry) => self.write(&entry),
                Order::Reopen => self.reopen(),
                Order::Stop => break,
            }
        }
        self.flush();
    }

    /// Lines reach the file as soon as nothing more is waiting.
    fn next(&mut self, orders: &Receiver<Order>) -> Option<Order> {
        match orders.try_recv() {
            Ok(order) => Some(order),
            Err(TryRecvError::Disconnected) => None,
            Err(TryRecvError::Empty) => {
                self.flush();
                orders.recv().ok()
            }
        }
    }

    fn write(&mut self, entry: &SlowEntry) {
        let line = serde_json::to_vec(&entry.row()).map_err(io::Error::from);
        let written = line.and_then(|mut line| {
            line.push(b'\n');
            self.file.write_all(&line)
        });
        self.note(written);
    }

    fn reopen(&mut self) {
        self.flush();
        let reopened = self.file.get_mut().reopen();
        self.note(reopened);
    }

    fn flush(&mut self) {
        let flushed = self.file.flush();
        self.note(flushed);
    }

    fn note(&self, result: io::Result<()>) {
        if let Err(error) = result {
            self.errors.increment();
            tracing::warn!(%error, "cannot write the slow query log");
        }
    }
}
