//! `-R`: a process takes over the sockets and the idle clients of the one that serves here, which ends once nobody needs
//! it any more. Until the new one is ready nothing changes, and whatever goes wrong later, clients that the new one has
//! not confirmed are served on by the old one.
//!
//! A confirmation counts only if it could be sent: the old process shuts the connection down before it takes back what
//! has not been confirmed, and the new one serves nobody whose confirmation was refused. In the same way they agree on
//! who goes on at last: the old process says [`Message::Done`], and the place is the new one's if its
//! [`Message::Taken`] could be sent. Where the connection ends before that, the new one ends as well, unless the old
//! one has; each holds a [`Life`] of the other, so that neither has to guess. And neither caches before the other has
//! ended.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
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
    net::{Courier, Life, Listener, SharedListener, connect_unix},
    protocol::startup,
};

/// How long the new process may take to start.
const START: Duration = Duration::from_secs(60);
/// How long a message between the two may take.
const MESSAGE: Duration = Duration::from_secs(10);
/// A process that has closed the connection and lives for longer serves on.
const END: Duration = Duration::from_secs(10);
/// How often the old process looks whether anybody is left.
const LOOK: Duration = Duration::from_millis(50);

/// What the two say to each other, the old one first.
#[derive(Debug, Serialize, Deserialize)]
enum Message {
    /// With the descriptor of a listening socket, and the path of its file.
    Listener { path: Option<PathBuf> },
    /// That was the last one. With the life of the old process.
    Complete,
    /// The new process serves. With its life.
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
    /// The old process has nobody left, or no more time for them. Until it hears that its place is taken it goes on.
    Done,
    /// From here on the place is the new one's.
    Taken,
}

fn unexpected() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the other process says something else than expected")
}

async fn send(courier: &Courier, message: &Message, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    timeout(MESSAGE, courier.send(&body, descriptor)).await?
}

/// Cancel safe.
async fn receive(courier: &Courier) -> io::Result<(Message, Option<OwnedFd>)> {
    let body = courier.receive().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let message = serde_json::from_slice(&body)?;
    let has_descriptor =
        matches!(message, Message::Listener { .. } | Message::Client { .. } | Message::Complete | Message::Ready);
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

    /// Who removes the files in the end: another process, or this one.
    fn give_files_away(&self, is_given_away: bool) {
        for file in self.sockets().iter().filter_map(|listener| listener.is_given_away.as_ref()) {
            file.store(is_given_away, Ordering::Relaxed);
        }
    }

    pub(super) fn close(&self) {
        self.sockets().clear();
    }
}

/// The process that serves here, seen from the one that follows it.
pub(super) struct Predecessor {
    /// The way to it.
    pub(super) way: Way,
    /// Its sockets.
    pub(super) listeners: Vec<Listener>,
}

/// The way to the process that serves here.
pub(super) struct Way {
    stream: std::os::unix::net::UnixStream,
    life: Life,
}

/// What the new process has to confirm, in order.
enum Arrival {
    Client(u64, Box<Leaving>),
    Done,
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
            let Ok(stream) = connect_unix(Path::new(&path)).await else { return Ok(None) };
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
        let life = loop {
            match receive(&courier).await? {
                (Message::Listener { path: Some(path) }, Some(socket)) => {
                    listeners.push(Listener::adopt_unix(socket, path)?)
                }
                (Message::Listener { path: None }, Some(socket)) => listeners.push(Listener::adopt_tcp(socket)?),
                (Message::Complete, Some(life)) => break Life::of_sender(life),
                _ => return Err(unexpected()),
            }
        };
        Ok(Self { way: Way { stream: courier.into_stream().into_std()?, life }, listeners })
    }
}

impl Way {
    /// Tells it to give up its place, and takes its clients in until it has gone. Then this process may be followed.
    pub(super) async fn follow(self, proxy: &Arc<Proxy>) -> io::Result<()> {
        let Self { stream, life } = self;
        let courier = Arc::new(Courier::new(UnixStream::from_std(stream)?));
        send(&courier, &Message::Ready, Some(proxy.life.descriptor())).await?;
        let (Message::Yours, _) = timeout(MESSAGE, receive(&courier)).await?? else { return Err(unexpected()) };
        if let Err(error) = proxy.pidfile.write() {
            tracing::error!(%error, "pidfile not written");
        }
        let proxy = Arc::clone(proxy);
        proxy.tracker.clone().spawn(async move {
            let is_taken = take_in(&courier, &proxy).await;
            drop(courier);
            if is_taken {
                proxy.listening.give_files_away(false);
            }
            if proxy.is_stopping() {
                return;
            }
            if !is_taken && !has_ended(&proxy, &life).await {
                tracing::error!("the old process has taken its place back, this one ends");
                proxy.stop(Stop::WaitForServers);
                return;
            }
            proxy.listening.give_files_away(false);
            proxy.is_accepting.send_replace(true);
            if wait_for_end(&proxy, &life).await {
                tracing::info!("old process has gone, resuming work");
                proxy.stand_alone().await;
                give_place(proxy).await;
            }
        });
        Ok(())
    }
}

/// The connection has ended without a word: has the other process? Nobody is accepted before that is known.
async fn has_ended(proxy: &Proxy, life: &Life) -> bool {
    proxy.is_accepting.send_replace(false);
    matches!(timeout(END, life.end()).await, Ok(Ok(())))
}

/// Waits until the other process has ended; false if this one does before.
async fn wait_for_end(proxy: &Proxy, life: &Life) -> bool {
    // Both branches are cancel safe.
    let ended = tokio::select! {
        () = proxy.cancel.cancelled() => return false,
        ended = life.end() => ended,
    };
    if let Err(error) = &ended {
        tracing::error!(%error, "no word about the end of the other process: cache and replicas stay unused");
    }
    ended.is_ok()
}

/// Serves the clients that come; true once the place is ours.
async fn take_in(courier: &Arc<Courier>, proxy: &Arc<Proxy>) -> bool {
    let (keys, unknown_keys) = mpsc::channel(UNDER_WAY);
    let (arrived, arrivals) = mpsc::channel(UNDER_WAY);
    proxy.context.hand_over.set_unknown_keys(Some(keys));
    let confirming = tokio::spawn(confirm(Arc::clone(courier), arrivals, unknown_keys, Arc::clone(proxy)));
    // Cancel safe: when the process stops, what has not been confirmed stays with the old one.
    let receiving = async {
        loop {
            let arrival = match receive(courier).await {
                Ok((Message::Client { number, luggage }, Some(socket))) => {
                    Arrival::Client(number, Box::new(Leaving { luggage: *luggage, socket }))
                }
                Ok((Message::Done, _)) => Arrival::Done,
                _ => return,
            };
            let is_last = matches!(arrival, Arrival::Done);
            if arrived.send(arrival).await.is_err() || is_last {
                return;
            }
        }
    };
    tokio::select! {
        () = receiving => {}
        () = proxy.cancel.cancelled() => {}
    }
    drop(arrived);
    proxy.context.hand_over.set_unknown_keys(None);
    confirming.await.unwrap_or(false)
}

/// The only one who sends: confirmations, each before its client is served, and cancel requests. True if the last was
/// that the place is taken.
async fn confirm(
    courier: Arc<Courier>,
    mut arrivals: mpsc::Receiver<Arrival>,
    mut unknown_keys: mpsc::Receiver<OwnKey>,
    proxy: Arc<Proxy>,
) -> bool {
    loop {
        // Both branches are cancel safe.
        let sent = tokio::select! {
            arrived = arrivals.recv() => match arrived {
                Some(Arrival::Client(number, client)) => {
                    let sent = send(&courier, &Message::Adopted { number }, None).await;
                    if sent.is_ok() {
                        proxy.adopt(*client);
                    }
                    sent
                }
                Some(Arrival::Done) => return send(&courier, &Message::Taken, None).await.is_ok(),
                None => {
                    if proxy.is_stopping() && send(&courier, &Message::Stop, None).await.is_err() {
                        tracing::debug!("the old process has gone already");
                    }
                    return false;
                }
            },
            Some(key) = unknown_keys.recv() => send(&courier, &Message::Cancel { key }, None).await,
        };
        if sent.is_err() {
            return false;
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
        let life = match introduce(&proxy, &successor).await {
            Ok(life) => life,
            Err(error) => {
                tracing::warn!(%error, "the other process did not start, this one serves on");
                continue;
            }
        };
        let mut leaving = Departure::begin(&proxy);
        let end = match leaving.run(&proxy, &successor).await {
            Ok(end) => end,
            Err(error) => {
                tracing::warn!(%error, "the other process does not answer");
                leaving.take_back(&proxy, &successor).await
            }
        };
        match end {
            End::Taken => {
                tracing::info!(clients = leaving.next, "clients are handed over");
                proxy.context.hand_over.begin(None);
                proxy.listening.give_files_away(true);
                return proxy.stop(Stop::Now);
            }
            End::Stop => {
                proxy.context.hand_over.begin(None);
                return proxy.stop(Stop::WaitForClients);
            }
            End::TakenBack => {
                tracing::warn!("the other process has not taken the place, this one serves on");
                drop(successor);
                if !wait_for_end(&proxy, &life).await {
                    return;
                }
                if let Err(error) = proxy.pidfile.replace() {
                    tracing::error!(%error, "pidfile not written");
                }
                proxy.stand_alone().await;
            }
        }
    }
}

/// Nothing has changed if this fails.
async fn introduce(proxy: &Proxy, successor: &Courier) -> io::Result<Life> {
    for (listener, path) in proxy.listening.copies()? {
        send(successor, &Message::Listener { path }, Some(listener.as_fd())).await?;
    }
    send(successor, &Message::Complete, Some(proxy.life.descriptor())).await?;
    match timeout(START, receive(successor)).await?? {
        (Message::Ready, Some(life)) => Ok(Life::of_sender(life)),
        _ => Err(unexpected()),
    }
}

/// What has become of the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It is the new one's.
    Taken,
    /// The new one has been told to stop, and both do.
    Stop,
    /// This process goes on.
    TakenBack,
}

/// Clients that leave this process.
struct Departure {
    leaving: mpsc::Receiver<Leaving>,
    /// With the time when they were sent.
    unconfirmed: BTreeMap<u64, (Instant, Leaving)>,
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
    async fn run(&mut self, proxy: &Arc<Proxy>, successor: &Courier) -> io::Result<End> {
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
                    Message::Stop => return Ok(End::Stop),
                    _ => return Err(unexpected()),
                },
                Some(client) = self.leaving.recv(), if self.unconfirmed.len() < UNDER_WAY => {
                    let number = self.next;
                    self.next += 1;
                    let sent = self.unconfirmed.entry(number).or_insert((Instant::now(), client));
                    let (_, Leaving { luggage, socket }) = sent;
                    let message = Message::Client { number, luggage: Box::new(luggage.clone()) };
                    send(successor, &message, Some(socket.as_fd())).await?;
                }
                _ = look.tick() => {
                    if self.unconfirmed.first_key_value().is_some_and(|(_, (sent, _))| sent.elapsed() >= MESSAGE) {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    let is_late = !patience.is_zero() && began.elapsed() >= patience;
                    if self.unconfirmed.is_empty() && self.leaving.is_empty() && (is_late || proxy.serves_nobody()) {
                        return Self::finish(proxy, successor).await;
                    }
                }
            }
        }
    }

    /// Offers the place.
    async fn finish(proxy: &Arc<Proxy>, successor: &Courier) -> io::Result<End> {
        send(successor, &Message::Done, None).await?;
        let answer = async {
            loop {
                match receive(successor).await?.0 {
                    Message::Taken => return Ok(End::Taken),
                    Message::Stop => return Ok(End::Stop),
                    Message::Cancel { key } => proxy.cancel_here(key),
                    _ => return Err(unexpected()),
                }
            }
        };
        timeout(MESSAGE, answer).await?
    }

    /// The other process can confirm nothing any more. What it has not confirmed is served here again, unless it has
    /// taken the place.
    async fn take_back(&mut self, proxy: &Arc<Proxy>, successor: &Courier) -> End {
        proxy.context.hand_over.begin(None);
        successor.shut_down();
        let mut end = End::TakenBack;
        while let Ok(Ok((message, _))) = timeout(MESSAGE, receive(successor)).await {
            match message {
                Message::Adopted { number } => _ = self.unconfirmed.remove(&number),
                Message::Taken => end = End::Taken,
                _ => {}
            }
        }
        if end == End::Taken {
            return end;
        }
        self.leaving.close();
        let mut staying: Vec<Leaving> =
            std::mem::take(&mut self.unconfirmed).into_values().map(|(_, client)| client).collect();
        while let Some(client) = self.leaving.recv().await {
            staying.push(client);
        }
        for client in staying {
            proxy.adopt(client);
        }
        proxy.is_accepting.send_replace(true);
        end
    }
}
