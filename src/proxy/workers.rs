//! The threads that serve clients: each with a runtime of its own, so that a query wakes no other thread.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

use super::ProcessError;
use crate::{
    client::{
        Context,
        hand_over::{Leaving, adopt},
        serve,
    },
    config::Config,
    net::Accepted,
};

/// All workers.
pub(super) struct Workers {
    first: Worker,
    others: Vec<Worker>,
}

struct Worker {
    index: usize,
    context: Arc<Context>,
    runtime: Handle,
    stop: CancellationToken,
    clients: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Workers {
    pub(super) fn start(config: &Config, context: &Arc<Context>) -> Result<Self, ProcessError> {
        let wanted = config.pgbouncer.workers as usize;
        let count = if wanted > 0 { wanted } else { std::thread::available_parallelism().map_or(1, usize::from) };
        let start = |index| Worker::start(index, Arc::clone(context));
        Ok(Self { first: start(0)?, others: (1..count).map(start).collect::<Result<_, _>>()? })
    }

    pub(super) fn len(&self) -> usize {
        1 + self.others.len()
    }

    /// The runtime of the one that accepts clients: its own need no other thread to be woken.
    pub(super) fn first(&self) -> &Handle {
        &self.first.runtime
    }

    /// Hands a client to the worker with the fewest.
    pub(super) fn hand_over(&self, accepted: Accepted) {
        let all = std::iter::once(&self.first).chain(&self.others);
        let fewest = all.min_by_key(|worker| worker.clients.load(Ordering::Relaxed));
        fewest.unwrap_or(&self.first).take(accepted);
    }

    /// Serves a client that another process has served, or was to serve, on the worker with the fewest.
    pub(super) fn adopt(&self, client: Leaving) {
        let all = std::iter::once(&self.first).chain(&self.others);
        let fewest = all.min_by_key(|worker| worker.clients.load(Ordering::Relaxed));
        fewest.unwrap_or(&self.first).adopt(client);
    }

    /// Accepted connections that have not ended.
    pub(super) fn clients(&self) -> usize {
        std::iter::once(&self.first).chain(&self.others).map(|worker| worker.clients.load(Ordering::Relaxed)).sum()
    }

    /// Ends the threads once their clients are gone, or after a moment.
    pub(super) fn stop(self) {
        for worker in std::iter::once(self.first).chain(self.others) {
            worker.stop.cancel();
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
        let runtime = Builder::new_current_thread().enable_all().build().map_err(ProcessError::Runtime)?;
        let handle = runtime.handle().clone();
        let stop = CancellationToken::new();
        let clients = Arc::new(AtomicUsize::new(0));
        let (stopped, served) = (stop.clone(), Arc::clone(&clients));
        let work = move || {
            runtime.block_on(async move {
                stopped.cancelled().await;
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
        Ok(Self { index, context, runtime: handle, stop, clients, thread: thread.map_err(ProcessError::Runtime)? })
    }

    fn adopt(&self, client: Leaving) {
        self.clients.fetch_add(1, Ordering::Relaxed);
        let (context, clients, index) = (Arc::clone(&self.context), Arc::clone(&self.clients), self.index);
        self.runtime.spawn(async move {
            adopt(client, context, index).await;
            clients.fetch_sub(1, Ordering::Relaxed);
        });
    }

    fn take(&self, accepted: Accepted) {
        self.clients.fetch_add(1, Ordering::Relaxed);
        let (context, clients, index) = (Arc::clone(&self.context), Arc::clone(&self.clients), self.index);
        self.runtime.spawn(async move {
            // The first has accepted it, and goes on watching its own.
            match if index == 0 { Ok(accepted) } else { accepted.rehome() } {
                Ok(accepted) => serve(accepted, context, index).await,
                Err(error) => tracing::warn!(%error, "accepted socket not registered"),
            }
            clients.fetch_sub(1, Ordering::Relaxed);
        });
    }
}
