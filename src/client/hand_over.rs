//! A client changes the process that serves it: what is packed, who may go, and how it is served on.

use std::{
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use tokio::{
    net::UnixStream,
    sync::{Notify, mpsc},
};

use super::{
    Client, ClientError, ClientInfo,
    cancel_key::OwnKey,
    context::Context,
    login::{FIRST_CATALOG, Guest, admit},
    request::WaitsFor,
    session::OwnSettings,
};
use crate::{
    net::{Endpoint, Peer, Stream},
    routing::{Fence, MemberId},
    session::{Parameters, SessionSettings},
};

/// Option of the start-up packet by which a process asks another one for its clients; the number is the version of what
/// they say to each other then.
pub const OPTION: &str = "_pq_.pgweir_hand_over_2";
/// Clients on their way that the other process has not confirmed.
pub const UNDER_WAY: usize = 64;
/// A client with longer texts than this stays where it is.
const LUGGAGE_LIMIT_BYTES: usize = 8 << 20;

/// What a client needs to be served by another process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Luggage {
    user: String,
    database: String,
    application_name: String,
    key: OwnKey,
    parameters: Vec<(String, String)>,
    own_settings: Vec<(String, String)>,
    /// The member that it stays with, where several are equal.
    #[serde(default)]
    home: Option<String>,
    /// What it has set beyond the parameters, and what it began with.
    settings: Vec<(String, String)>,
    began_with: Vec<(String, String)>,
    statements: Vec<PackedStatement>,
    from: From,
    /// How long it has been connected, nanoseconds.
    age: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct PackedStatement {
    name: Vec<u8>,
    text: Vec<u8>,
    types: Vec<u8>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum From {
    Tcp(SocketAddr),
    Unix { pid: i32, uid: u32 },
}

/// A client that nobody serves at the moment.
#[derive(Debug)]
pub struct Leaving {
    /// What it takes along.
    pub luggage: Luggage,
    /// Its socket.
    pub socket: OwnedFd,
}

/// Where the hand-over stands, in either of the two processes.
#[derive(Debug, Default)]
pub struct HandOver {
    is_on: AtomicBool,
    leaving: RwLock<Option<mpsc::Sender<Leaving>>>,
    successor: Mutex<Option<UnixStream>>,
    has_come: Notify,
    unknown_keys: RwLock<Option<mpsc::Sender<OwnKey>>>,
}

impl HandOver {
    /// From now on clients leave as they become idle; `None`: they stay.
    pub fn begin(&self, leaving: Option<mpsc::Sender<Leaving>>) {
        self.is_on.store(leaving.is_some(), Ordering::Release);
        *self.leaving.write().unwrap_or_else(PoisonError::into_inner) = leaving;
    }

    /// Do clients leave?
    pub(super) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// A process has come that wants to serve the clients of this one; one at a time.
    pub(super) fn announce(&self, successor: UnixStream) {
        *self.successor.lock().unwrap_or_else(PoisonError::into_inner) = Some(successor);
        self.has_come.notify_one();
    }

    /// The next process that wants to; cancel safe.
    pub async fn successor(&self) -> UnixStream {
        loop {
            if let Some(successor) = self.successor.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return successor;
            }
            self.has_come.notified().await;
        }
    }

    /// Cancel requests that are for none of our clients go there: to the process that was here before.
    pub fn set_unknown_keys(&self, keys: Option<mpsc::Sender<OwnKey>>) {
        *self.unknown_keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// True if somebody takes care of it.
    pub(super) fn pass_on(&self, key: OwnKey) -> bool {
        let keys = self.unknown_keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.as_ref().is_some_and(|keys| keys.try_send(key).is_ok())
    }

    fn leaving(&self) -> Option<mpsc::Sender<Leaving>> {
        self.leaving.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Client {
    /// Is there nothing of it in this process but what its luggage holds?
    pub(super) fn may_change_process(&self) -> bool {
        self.context.hand_over.is_on()
            && self.link.is_none()
            && !self.is_unplaced()
            && self.listening.is_none()
            && self.io.inbox.is_empty()
            && !self.io.inbox.is_inside_message()
            && self.io.outbox.unsent().is_empty()
            && self.pending.is_empty()
            && self.blocked.is_none()
            && self.waits_for == WaitsFor::Nothing
            && !self.discards_until_sync
            && self.io.stream.can_change_process()
            && self.session.can_change_process()
            && self.context.directory.is_known_after_restart(&self.session.database.name, &self.session.user)
            && self.session.names.text_bytes() <= LUGGAGE_LIMIT_BYTES
    }

    fn pack(&self) -> Luggage {
        let ClientInfo { user, database, application_name, peer, connected_at, .. } = &*self.info;
        let settings = &self.session.own;
        let own = ["route", "cache", "cache_consistency", "max_staleness", "min_lsn"].into_iter();
        let own = own.filter(|name| *name != "max_staleness" || settings.max_staleness.is_some());
        let own = own.filter_map(|name| Some((name.to_owned(), settings.show(name, None).ok()?)));
        let statement = |(name, prepared): (&[u8], &Arc<crate::session::Prepared>)| PackedStatement {
            name: name.to_vec(),
            text: prepared.text.to_vec(),
            types: prepared.types.to_vec(),
        };
        Luggage {
            user: user.to_string(),
            database: database.to_string(),
            application_name: application_name.clone(),
            key: self.key,
            parameters: self
                .session
                .parameters
                .iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            own_settings: own.collect(),
            home: self.session.home.and_then(|home| Some(self.session.database.member_name(home)?.to_string())),
            settings: packed(&self.session.settings),
            began_with: packed(&self.session.began_with),
            statements: self.session.names.iter().map(statement).collect(),
            from: match *peer {
                Peer::Tcp(address) => From::Tcp(address),
                Peer::Unix { pid, uid } => From::Unix { pid, uid },
            },
            age: self.context.clock.now().saturating_sub(*connected_at),
        }
    }

    /// Leaves this process. Where nobody takes the client any more, it is served on here.
    pub(super) async fn change_process(self: Box<Self>, context: Arc<Context>, worker: usize) {
        let luggage = self.pack();
        context.clients.remove(&self.info.id);
        context.cancel_keys.revoke(self.key);
        let Self { io, .. } = *self;
        let socket = match io.stream.into_descriptor() {
            Ok(socket) => socket,
            Err(error) => return tracing::warn!(%error, "client lost while it was handed over"),
        };
        let leaving = Leaving { luggage, socket };
        let unsent = match context.hand_over.leaving() {
            Some(sink) => sink.send(leaving).await.err().map(|error| error.0),
            None => Some(leaving),
        };
        if let Some(staying) = unsent {
            Box::pin(adopt(staying, context, worker)).await;
        }
    }
}

/// Serves a client that has logged in to another process, on the worker that calls.
pub async fn adopt(client: Leaving, context: Arc<Context>, worker: usize) {
    let Leaving { luggage, socket } = client;
    let (user, database) = (luggage.user.clone(), luggage.database.clone());
    let stream = match Stream::from_descriptor(socket, matches!(luggage.from, From::Unix { .. })) {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%error, %user, db = %database, "client lost while it was handed over"),
    };
    let mut io = Endpoint::new(stream);
    match guest(&io, &luggage, &context).await {
        Ok(guest) => {
            context.connected.fetch_add(1, Ordering::Relaxed);
            let mut client = Box::new(Client::new(io, guest, Arc::clone(&context), worker));
            client.session.fence = Fence::after(context.clock.now());
            client.session.home = luggage.home.as_deref().and_then(|home| client.session.database.member_named(home));
            client.session.resume(unpacked(&luggage.settings));
            for PackedStatement { name, text, types } in &luggage.statements {
                client.session.remember_statement(name, text, types);
            }
            client.info.statements.store(client.session.names.len() as u64, Ordering::Relaxed);
            client.serve(Arc::clone(&context), worker).await;
            context.connected.fetch_sub(1, Ordering::Relaxed);
        }
        Err(error) => {
            tracing::warn!(%error, %user, db = %database, "client not taken over");
            super::say_farewell(&mut io, &error).await;
        }
    }
}

/// As at the end of a login, with what the luggage says in place of what a client asks for.
async fn guest(io: &Endpoint, luggage: &Luggage, context: &Arc<Context>) -> Result<Guest, ClientError> {
    let settings = context.settings();
    let unknown = || ClientError::NoSuchDatabase(luggage.database.clone());
    let section = settings.config.database(&luggage.database).ok_or_else(unknown)?;
    let database = context.directory.database(&luggage.database).map_err(|_| unknown())?;
    let server_user: Arc<str> = section.user.as_deref().unwrap_or(&luggage.user).into();
    // It has no use for a server yet: any member's will do while there is no primary.
    let member = database.primary().unwrap_or(MemberId(0));
    let pool = context.directory.pool(&database, &server_user, member).ok_or_else(unknown)?;
    if context.directory.logged_in(&database, &server_user) {
        database.wait_for_catalog(FIRST_CATALOG).await;
    }
    let mut parameters = Parameters::default();
    for (name, value) in &luggage.parameters {
        parameters.set(name, value);
    }
    let mut own = OwnSettings::default();
    for (name, value) in &luggage.own_settings {
        own.set(name, value).map_err(|error| ClientError::Refused(error.message.into_owned()))?;
    }
    let info = Arc::new(ClientInfo::new(
        context.next_id(),
        luggage.database.as_str().into(),
        luggage.user.as_str().into(),
        match luggage.from {
            From::Tcp(address) => Peer::Tcp(address),
            From::Unix { pid, uid } => Peer::Unix { pid, uid },
        },
        &io.stream,
        context.clock.now().saturating_sub(luggage.age),
        luggage.application_name.clone(),
    ));
    let admission = admit(context, &settings, &section, &info.database, &info.user)?;
    let key = luggage.key;
    if !context.cancel_keys.adopt(&info, key) {
        tracing::warn!(client = info.id, "its cancel key is taken");
    }
    context.clients.insert(info.id, Arc::clone(&info));
    Ok(Guest {
        account: context.insight.account(&luggage.database, &luggage.user),
        pool_mode: settings.config.pool_mode(&section, &server_user),
        admission,
        max_prepared: settings.config.pgbouncer.max_prepared_statements as usize,
        info,
        database,
        server_user,
        pool,
        parameters,
        began_with: unpacked(&luggage.began_with),
        key,
        own,
    })
}

fn packed(settings: &SessionSettings) -> Vec<(String, String)> {
    settings.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn unpacked(pairs: &[(String, String)]) -> SessionSettings {
    SessionSettings::new(pairs.iter().map(|(name, value)| (&**name, &**value)))
}
