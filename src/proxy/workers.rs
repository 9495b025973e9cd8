//! The threads that serve clients: each with a runtime of its own, so that a query wakes no other thread.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::sync::mpsc;

use super::ProcessError;
use crate::{
    client::{Context, serve},
    config::Config,
    net::Accepted,
};

/// Clients that may wait to be taken by one worker.
const QUEUE: usize = 1024;

/// All workers.
pub(super) struct Workers {
    workers: Vec<Worker>,
}

struct Worker {
    queue: mpsc::Sender<Accepted>,
    clients: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Workers {
    pub(super) fn start(config: &Config, context: &Arc<Context>) -> Result<Self, ProcessError> {
        let wanted = config.pgbouncer.workers as usize;
        let count = if wanted > 0 { wanted } else { std::thread::available_parallelism().map_or(1, usize::from) };
        let start = |index| Worker::start(index, Arc::clone(context));
        Ok(Self { workers: (0..count).map(start).collect::<Result<_, _>>()? })
    }

    pub(super) fn len(&self) -> usize {
        self.workers.len()
    }

    /// Hands a client to the worker with the fewest.
    pub(super) async fn hand_over(&self, accepted: Accepted) {
        let fewest = self.workers.iter().min_by_key(|worker| worker.clients.load(Ordering::Relaxed));
        let Some(worker) = fewest else { return };
        worker.clients.fetch_add(1, Ordering::Relaxed);
        if worker.queue.send(accepted).await.is_err() {
            tracing::error!("a worker has ended");
        }
    }

    /// Ends the threads once their clients are gone, or after a moment.
    pub(super) fn stop(self) {
        for worker in self.workers {
            drop(worker.queue);
            if worker.thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
    }
}

/// How long the clients of a worker may take to leave when the process ends.
const LAST_CLIENTS: Duration = Duration::from_secs(2);

impl Worker {
    fn start(index: usize, context: Arc<Context>) -> Result<Self, ProcessError> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ProcessError::Runtime)?;
        let (queue, mut accepted) = mpsc::channel(QUEUE);
        let clients = Arc::new(AtomicUsize::new(0));
        let served = Arc::clone(&clients);
        let work = move || {
            runtime.block_on(async move {
                while let Some(client) = accepted.recv().await {
                    let (context, served) = (Arc::clone(&context), Arc::clone(&served));
                    tokio::spawn(async move {
                        serve(client, context, index).await;
                        served.fetch_sub(1, Ordering::Relaxed);
                    });
                }
                let all_gone = async {
                    while served.load(Ordering::Relaxed) > 0 {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                };
                if tokio::time::timeout(LAST_CLIENTS, all_gone).await.is_err() {
                    tracing::warn!("clients were cut off");
                }
            });
        };
        let thread = std::thread::Builder::new().name(format!("pgweir-{index}")).spawn(work);
        Ok(Self { queue, clients, thread: thread.map_err(ProcessError::Runtime)? })
    }
}
