//! `-R`: a process takes over the sockets and the idle clients of the one that serves here, which ends once nobody needs
//! it any more. Until the new one is ready nothing changes, and whatever goes wrong later, clients that the new one has
//! not confirmed are served on by the old one.
//!
//! A confirmation counts only if it could be sent: the old process shuts the connection down before it takes back what
//! has not been confirmed, and the new one serves nobody whose confirmation was refused.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::AsyncWriteExt,
    net::UnixStream,
    sync::mpsc,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{ProcessError, Proxy, Stop};
use crate::{
    client::{
        OwnKey,
        hand_over::{self, Leaving, Luggage, UNDER_WAY},
    },
    config::Config,
    net::{Courier, Listener, SharedListener},
    protocol::startup,
};

/// How long the new process may take to start.
const START: Duration = Duration::from_secs(60);
/// How long a message between the two may take.
const MESSAGE: Duration = Duration::from_secs(10);
/// How often the old process looks whether anybody is left.
const LOOK: Duration = Duration::from_millis(50);

/// What the two say to each other, the old one first.
#[derive(Debug, Serialize, Deserialize)]
enum Message {
    /// With the descriptor of a listening socket, and the path of its file.
    Listener { path: Option<PathBuf> },
    /// That was the last one.
    Complete,
    /// The new process serves.
    Ready,
    /// The old process accepts nobody any more and has left its pidfile.
    Yours,
    /// With the descriptor of its socket.
    Client { number: u64, luggage: Box<Luggage> },
    /// The new process serves that client.
    Adopted { number: u64 },
    /// A cancel request for a client that the new process does not have.
    Cancel { key: OwnKey },
    /// The new process has been told to stop, and so is the old one.
    Stop,
}

fn unexpected() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the other process says something else than expected")
}

async fn send(courier: &Courier, message: &Message, descriptor: Option<&OwnedFd>) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    timeout(MESSAGE, courier.send(&body, descriptor.map(AsFd::as_fd))).await?
}

/// Cancel safe.
async fn receive(courier: &Courier) -> io::Result<(Message, Option<OwnedFd>)> {
    let body = courier.receive().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let message = serde_json::from_slice(&body)?;
    let has_descriptor = matches!(message, Message::Listener { .. } | Message::Client { .. });
    Ok((message, if has_descriptor { courier.descriptor() } else { None }))
}

/// The sockets that this process listens on, to be handed on; none once it stops, so that they are closed then.
#[derive(Debug, Default)]
pub(super) struct Listening(Mutex<Vec<SharedListener>>);

impl Listening {
    pub(super) fn new(listeners: &[Listener]) -> io::Result<Self> {
        Ok(Self(Mutex::new(listeners.iter().map(Listener::share).collect::<io::Result<_>>()?)))
    }

    fn sockets(&self) -> MutexGuard<'_, Vec<SharedListener>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A descriptor and a path of each that can be handed on: not those of a service manager.
    fn copies(&self) -> io::Result<Vec<(OwnedFd, Option<PathBuf>)>> {
        let sockets = self.sockets();
        let ours = sockets.iter().filter(|listener| !listener.is_unix || listener.path.is_some());
        ours.map(|listener| Ok((listener.socket.try_clone()?, listener.path.clone()))).collect()
    }

    /// What keeps the files when it is set.
    fn files(&self) -> Vec<Arc<AtomicBool>> {
        self.sockets().iter().filter_map(|listener| listener.is_given_away.clone()).collect()
    }

    pub(super) fn close(&self) {
        self.sockets().clear();
    }
}

/// The process that serves here, seen from the one that follows it.
pub(super) struct Predecessor {
    /// The connection to it.
    pub(super) stream: std::os::unix::net::UnixStream,
    /// Its sockets.
    pub(super) listeners: Vec<Listener>,
}

impl Predecessor {
    /// Asks for its sockets; `None`: nobody serves here, and the start goes on as any other. No thread runs yet.
    pub(super) fn find(config: &Config) -> Result<Option<Self>, ProcessError> {
        let main = &config.pgbouncer;
        if main.unix_socket_dir.is_empty() {
            return Err(ProcessError::NoSocketToTakeOver);
        }
        let path = format!("{}/.s.PGSQL.{}", main.unix_socket_dir, main.listen_port);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let asked = runtime.map_err(ProcessError::Runtime)?.block_on(async {
            let Ok(stream) = UnixStream::connect(&path).await else { return Ok(None) };
            timeout(MESSAGE, Self::ask(stream)).await?.map(Some)
        });
        let found = asked.map_err(ProcessError::TakeOver)?;
        if found.is_none() {
            tracing::info!("old process not found, try to continue normally");
        }
        Ok(found)
    }

    async fn ask(mut stream: UnixStream) -> io::Result<Self> {
        let mut packet = Vec::new();
        startup::put_startup(
            &mut packet,
            &[("user", "pgbouncer"), ("database", "pgbouncer"), (hand_over::OPTION, "1")],
        );
        stream.write_all(&packet).await?;
        let courier = Courier::new(stream);
        let mut listeners = Vec::new();
        loop {
            match receive(&courier).await? {
                (Message::Listener { path: Some(path) }, Some(socket)) => {
                    listeners.push(Listener::adopt_unix(socket, path)?)
                }
                (Message::Listener { path: None }, Some(socket)) => listeners.push(Listener::adopt_tcp(socket)?),
                (Message::Complete, _) => break,
                _ => return Err(unexpected()),
            }
        }
        Ok(Self { stream: courier.into_stream().into_std()?, listeners })
    }

    /// Tells it to give up its place, and takes its clients in until it has gone.
    pub(super) async fn follow(stream: std::os::unix::net::UnixStream, proxy: &Arc<Proxy>) -> io::Result<()> {
        let courier = Arc::new(Courier::new(UnixStream::from_std(stream)?));
        send(&courier, &Message::Ready, None).await?;
        let (Message::Yours, _) = timeout(MESSAGE, receive(&courier)).await?? else { return Err(unexpected()) };
        for file in proxy.listening.files() {
            file.store(false, Ordering::Relaxed);
        }
        if let Err(error) = proxy.pidfile.write() {
            tracing::error!(%error, "pidfile not written");
        }
        let (keys, unknown_keys) = mpsc::channel(UNDER_WAY);
        let (arrived, arrivals) = mpsc::channel(UNDER_WAY);
        proxy.context.hand_over.set_unknown_keys(Some(keys));
        let sending = tokio::spawn(confirm(Arc::clone(&courier), arrivals, unknown_keys, Arc::clone(proxy)));
        let proxy = Arc::clone(proxy);
        proxy.tracker.clone().spawn(async move {
            let mut count = 0;
            // Cancel safe: when the process stops, what has not been confirmed stays with the old one.
            let receiving = async {
                while let Ok((Message::Client { number, luggage }, Some(socket))) = receive(&courier).await {
                    count += 1;
                    if arrived.send((number, Leaving { luggage: *luggage, socket })).await.is_err() {
                        break;
                    }
                }
            };
            tokio::select! {
                () = receiving => {}
                () = proxy.cancel.cancelled() => {}
            }
            drop(arrived);
            proxy.context.hand_over.set_unknown_keys(None);
            let _ended = sending.await;
            tracing::info!(clients = count, "old process has gone, resuming work");
            proxy.stand_alone().await;
        });
        Ok(())
    }
}

/// The only one who sends: confirmations, each before its client is served, and cancel requests.
async fn confirm(
    courier: Arc<Courier>,
    mut arrivals: mpsc::Receiver<(u64, Leaving)>,
    mut unknown_keys: mpsc::Receiver<OwnKey>,
    proxy: Arc<Proxy>,
) {
    loop {
        // Both branches are cancel safe.
        tokio::select! {
            arrived = arrivals.recv() => {
                let Some((number, client)) = arrived else {
                    if proxy.is_stopping() && send(&courier, &Message::Stop, None).await.is_err() {
                        tracing::debug!("the old process has gone already");
                    }
                    return;
                };
                if send(&courier, &Message::Adopted { number }, None).await.is_err() {
                    return;
                }
                proxy.adopt(client);
            }
            Some(key) = unknown_keys.recv() => {
                if send(&courier, &Message::Cancel { key }, None).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Gives place to processes that ask for it, until one has taken it or this one stops.
pub(super) async fn give_place(proxy: Arc<Proxy>) {
    loop {
        // Both branches are cancel safe.
        let successor = tokio::select! {
            () = proxy.cancel.cancelled() => return,
            successor = proxy.context.hand_over.successor() => Courier::new(successor),
        };
        if proxy.is_stopping() {
            return;
        }
        tracing::info!("another process takes over");
        match introduce(&proxy, &successor).await {
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(%error, "the other process did not start, this one serves on");
                continue;
            }
        }
        let mut leaving = Departure::begin(&proxy);
        match leaving.run(&proxy, &successor).await {
            Ok(stop) => {
                tracing::info!(clients = leaving.next, "clients are handed over");
                proxy.context.hand_over.begin(None);
                for file in proxy.listening.files() {
                    file.store(true, Ordering::Relaxed);
                }
                proxy.stop(stop);
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "the other process is gone, this one serves on");
                leaving.take_back(&proxy, &successor).await;
            }
        }
    }
}

/// Nothing has changed if this fails.
async fn introduce(proxy: &Proxy, successor: &Courier) -> io::Result<()> {
    for (listener, path) in proxy.listening.copies()? {
        send(successor, &Message::Listener { path }, Some(&listener)).await?;
    }
    send(successor, &Message::Complete, None).await?;
    match timeout(START, receive(successor)).await?? {
        (Message::Ready, _) => Ok(()),
        _ => Err(unexpected()),
    }
}

/// Clients that leave this process.
struct Departure {
    leaving: mpsc::Receiver<Leaving>,
    unconfirmed: BTreeMap<u64, Leaving>,
    next: u64,
}

impl Departure {
    fn begin(proxy: &Proxy) -> Self {
        proxy.is_accepting.send_replace(false);
        proxy.pidfile.remove();
        proxy.share_databases();
        let (sink, leaving) = mpsc::channel(UNDER_WAY);
        proxy.context.hand_over.begin(Some(sink));
        for client in proxy.context.clients.iter() {
            client.value().waker().notify_one();
        }
        Self { leaving, unconfirmed: BTreeMap::new(), next: 0 }
    }

    /// Until nobody is left but the console's guests, or nobody may stay any longer.
    async fn run(&mut self, proxy: &Arc<Proxy>, successor: &Courier) -> io::Result<Stop> {
        send(successor, &Message::Yours, None).await?;
        let patience = proxy.context.settings().config.pgbouncer.shutdown_timeout;
        let began = Instant::now();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Each branch is cancel safe.
            tokio::select! {
                received = receive(successor) => match received?.0 {
                    Message::Adopted { number } => _ = self.unconfirmed.remove(&number),
                    Message::Cancel { key } => proxy.cancel_here(key),
                    Message::Stop => return Ok(Stop::WaitForClients),
                    _ => return Err(unexpected()),
                },
                Some(client) = self.leaving.recv(), if self.unconfirmed.len() < UNDER_WAY => {
                    let number = self.next;
                    self.next += 1;
                    let Leaving { luggage, socket } = self.unconfirmed.entry(number).or_insert(client);
                    let message = Message::Client { number, luggage: Box::new(luggage.clone()) };
                    send(successor, &message, Some(socket)).await?;
                }
                _ = look.tick() => {
                    let is_late = !patience.is_zero() && began.elapsed() >= patience;
                    if self.unconfirmed.is_empty() && self.leaving.is_empty() && (is_late || proxy.serves_nobody()) {
                        return Ok(Stop::Now);
                    }
                }
            }
        }
    }

    /// The other process can confirm nobody any more; whom it has not confirmed is served here again.
    async fn take_back(mut self, proxy: &Arc<Proxy>, successor: &Courier) {
        proxy.context.hand_over.begin(None);
        successor.shut_down();
        while let Ok(Ok((message, _))) = timeout(MESSAGE, receive(successor)).await {
            if let Message::Adopted { number } = message {
                self.unconfirmed.remove(&number);
            }
        }
        self.leaving.close();
        let mut staying: Vec<Leaving> = self.unconfirmed.into_values().collect();
        while let Some(client) = self.leaving.recv().await {
            staying.push(client);
        }
        for client in staying {
            proxy.adopt(client);
        }
        if let Err(error) = proxy.pidfile.write() {
            tracing::error!(%error, "pidfile not written");
        }
        proxy.is_accepting.send_replace(true);
        proxy.stand_alone().await;
    }
}
