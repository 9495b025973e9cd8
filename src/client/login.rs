//! From the first byte to the first `ReadyForQuery`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::timeout;

use super::{
    ClientError, ClientInfo, Draw,
    admission::Admission,
    authenticate::{Claim, Target, authenticate},
    cancel::OwnKey,
    context::{Context, Settings, Unserved},
    encryption::first_packet,
    hand_over::OPTION,
    replication::{self, Replica, Replication},
    route,
    session::OwnSettings,
    startup_parameters::{Rules, choose_values, own_settings},
    visiting::Visiting,
    visitor::Visitor,
};
use crate::{
    admin,
    auth::Refusal,
    cluster::Database,
    config::{AuthType, DatabaseConfig, PoolMode},
    insight::Account,
    net::{Endpoint, Peer},
    pool::{Asking, CheckoutError, Greeting, Pool},
    protocol::{
        ErrorResponse, TransactionStatus, backend,
        startup::{self, StartupPacket},
    },
    session::{Parameters, SessionSettings},
    telemetry::logging::CONNECTIONS,
};

/// The first client of a database waits this long for its catalog: until then every function call is suspect.
pub(super) const FIRST_CATALOG: Duration = Duration::from_secs(1);
/// Who has come.
pub(super) enum Welcome {
    /// A cancel request; it has been acted on.
    Cancelled,
    /// Another process that wants to serve in place of this one.
    Successor,
    /// A client of the console.
    Console(ConsoleGuest),
    /// A client that wants a walsender.
    Replica(Box<Replica>),
    /// A client of a database.
    Client(Box<Guest>),
}

/// A client of the console, logged in.
pub(super) struct ConsoleGuest {
    pub info: Arc<ClientInfo>,
    pub account: Arc<Account>,
    pub key: OwnKey,
    pub privilege: admin::Privilege,
}

/// A client of a database, logged in.
pub(super) struct Guest {
    pub info: Arc<ClientInfo>,
    pub account: Arc<Account>,
    pub database: Arc<Database>,
    pub server_user: Arc<str>,
    /// Its pool on the primary.
    pub pool: Arc<Pool>,
    pub parameters: Parameters,
    /// What it began with, by its start-up packet.
    pub began_with: SessionSettings,
    pub pool_mode: PoolMode,
    pub admission: Admission,
    pub max_prepared: usize,
    pub key: OwnKey,
    /// `options=-c pgweir.…`.
    pub own: OwnSettings,
}

/// Names of databases are shorter.
const LONGEST_DATABASE: usize = 64;

/// Could a database be called so?
fn is_name(database: &str) -> bool {
    database.len() < LONGEST_DATABASE
}

/// What the start-up packet asks for.
pub(super) struct Request {
    pub user: String,
    pub database: String,
    pub application_name: String,
    pub parameters: Vec<(String, String)>,
    replication: Option<Replication>,
    negotiates: bool,
    unknown_options: Vec<String>,
}

/// Runs the whole login within `client_login_timeout`.
pub(super) async fn login(
    io: &mut Endpoint,
    visitor: &mut Visitor,
    visit: &Visiting,
    context: &Arc<Context>,
    worker: usize,
) -> Result<Welcome, ClientError> {
    let settings = context.settings();
    let deadline = settings.config.pgbouncer.client_login_timeout;
    let waits_for_server = AtomicBool::new(false);
    let logging_in = Box::pin(log_in(io, (visitor, visit), context, &settings, worker, &waits_for_server));
    if deadline.is_zero() {
        return logging_in.await;
    }
    timeout(deadline, logging_in).await.map_err(|_| match waits_for_server.load(Ordering::Relaxed) {
        true => ClientError::ServerDown,
        false => ClientError::LoginTimeout,
    })?
}

async fn log_in(
    io: &mut Endpoint,
    (visitor, visit): (&mut Visitor, &Visiting),
    context: &Arc<Context>,
    settings: &Arc<Settings>,
    worker: usize,
    waits_for_server: &AtomicBool,
) -> Result<Welcome, ClientError> {
    let parameters = loop {
        match first_packet(io, settings).await? {
            StartupPacket::SslRequest | StartupPacket::GssEncRequest => {}
            StartupPacket::CancelRequest { pid, key } => {
                super::cancel::request(context, settings, visit, pid, &key).await;
                return Ok(Welcome::Cancelled);
            }
            StartupPacket::Startup { minor, parameters } => break understand(minor, parameters, settings)?,
        }
    };
    let (database, user) = (parameters.database.as_str().into(), parameters.user.as_str().into());
    visit.asks_for(&database, &user);
    (visitor.database, visitor.user) = (Some(database), Some(user));
    let origin = visitor.origin(context);
    let Request { database: db, user, .. } = &parameters;
    let tls = io.stream.tls().map_or("no", |tls| &*tls.description);
    let replication = parameters.replication.map_or("no", Replication::label);
    tracing::info!(target: CONNECTIONS, %origin, %db, %user, tls, replication, "login attempt");
    let limit = u64::from(settings.config.pgbouncer.max_client_conn);
    let is_console = admin::DATABASES.contains(&parameters.database.as_str());
    if !is_console && context.connected.load(Ordering::Relaxed) > limit {
        return Err(ClientError::TooMany);
    }
    if context.is_shutting_down.load(Ordering::Relaxed) && !is_console {
        return Err(ClientError::Refused("pooler is shutting down".to_owned()));
    }
    if is_console && is_own_user(visitor.peer) && parameters.unknown_options.iter().any(|name| name == OPTION) {
        return Ok(Welcome::Successor);
    }
    if is_console {
        return console(io, visitor, context, settings, &parameters).await.map(Welcome::Console);
    }
    let section = settings.config.database(&parameters.database).filter(|_| is_name(&parameters.database));
    let tls = io.stream.tls().cloned();
    let claim = Claim {
        user: &parameters.user,
        database: &parameters.database,
        target: section.as_deref().map_or(Target::Unknown, Target::Database),
        peer: visitor.peer,
        certificate: tls.as_deref().map(|facts| &*facts.names),
        is_replication: parameters.replication == Some(Replication::Physical),
    };
    let user = authenticate(io, context, settings, claim).await?;
    let parameters = Request { user, ..parameters };
    welcome(io, visitor, context, settings, parameters, worker, waits_for_server).await
}

fn understand(minor: u16, given: Vec<(String, String)>, settings: &Settings) -> Result<Request, ClientError> {
    let (mut user, mut database, mut options) = (String::new(), String::new(), None);
    let (mut explicit, mut unknown_options) = (Vec::new(), Vec::new());
    let mut replication = None;
    for (name, value) in given {
        match name.as_str() {
            "user" => user = value,
            "database" => database = value,
            "options" => options = Some(value),
            "replication" => replication = Replication::read(&value).map_err(ClientError::Refused)?,
            _ if name.starts_with("_pq_.") => unknown_options.push(name),
            _ => explicit.push((name, value)),
        }
    }
    if user.is_empty() {
        return Err(ClientError::Refused("no PostgreSQL user name specified in startup packet".to_owned()));
    }
    if database.is_empty() {
        database.clone_from(&user);
    }
    let rules = Rules {
        ignored: &settings.config.pgbouncer.ignore_startup_parameters,
        extra: &settings.config.pgbouncer.track_extra_parameters,
        is_transparent: settings.config.sessions.transparent_sessions,
    };
    let parameters = rules.choose(options.as_deref(), explicit)?;
    let application_name = parameters.iter().rfind(|(name, _)| name.eq_ignore_ascii_case("application_name"));
    Ok(Request {
        application_name: application_name.map(|(_, value)| value.clone()).unwrap_or_default(),
        user,
        database,
        replication,
        parameters,
        negotiates: minor > 0 || !unknown_options.is_empty(),
        unknown_options,
    })
}

/// On the unix socket, as the same user of the operating system.
fn is_own_user(peer: Peer) -> bool {
    matches!(peer, Peer::Unix { uid, .. } if uid == nix::unistd::geteuid().as_raw())
}

/// Admins and those who may look; their names are checked before any password is asked for.
async fn console(
    io: &mut Endpoint,
    visitor: &Visitor,
    context: &Arc<Context>,
    settings: &Settings,
    request: &Request,
) -> Result<ConsoleGuest, ClientError> {
    let main = &settings.config.pgbouncer;
    let is_self = is_own_user(visitor.peer);
    let privilege = if main.admin_users.contains(&request.user) || (request.user == "pgbouncer" && is_self) {
        admin::Privilege::Admin
    } else if main.stats_users.contains(&request.user) || main.auth_type == AuthType::Any {
        admin::Privilege::Stats
    } else {
        return Err(Refusal::Console.into());
    };
    if request.user != "pgbouncer" || !is_self {
        // Rules about the console are meant whatever it was called.
        let tls = io.stream.tls().cloned();
        let claim = Claim {
            user: &request.user,
            database: "pgbouncer",
            target: Target::Console,
            peer: visitor.peer,
            certificate: tls.as_deref().map(|facts| &*facts.names),
            is_replication: false,
        };
        authenticate(io, context, settings, claim).await?;
    }
    let info = Arc::new(ClientInfo::new(
        visitor.id,
        request.database.as_str().into(),
        request.user.as_str().into(),
        visitor.peer,
        &io.stream,
        visitor.accepted_at,
        request.application_name.clone(),
    ));
    let key = context.cancel_keys.issue(&info, settings.config.pgbouncer.peer_id as u16, draws());
    let out = io.outbox.buffer();
    negotiate(out, request);
    out.extend_from_slice(backend::AUTHENTICATION_OK);
    for (name, value) in admin::LOGIN_PARAMETERS {
        backend::put_parameter_status(out, name, value);
    }
    // Its traffic counts under one name, whichever it was called by.
    let account = context.insight.account("pgbouncer", &request.user);
    account.stats().login();
    end_login(io, context, &info, key, "").await?;
    Ok(ConsoleGuest { info, account, key, privilege })
}

pub(super) fn draws() -> impl FnMut() -> u64 {
    let mut draw = Draw::default();
    move || draw.next()
}

pub(super) fn negotiate(out: &mut Vec<u8>, request: &Request) {
    if request.negotiates {
        let options: Vec<&str> = request.unknown_options.iter().map(String::as_str).collect();
        startup::put_negotiate(out, &options);
    }
}

async fn welcome(
    io: &mut Endpoint,
    visitor: &Visitor,
    context: &Arc<Context>,
    settings: &Settings,
    request: Request,
    worker: usize,
    waits_for_server: &AtomicBool,
) -> Result<Welcome, ClientError> {
    let name = request.database.clone();
    let unknown = || ClientError::NoSuchDatabase(name.clone());
    let section = settings.config.database(&request.database).filter(|_| is_name(&request.database));
    let section = section.ok_or_else(unknown)?;
    let database = context.directory.database(&request.database).map_err(|unserved| match unserved {
        Unserved::Unknown => unknown(),
        Unserved::TooMany => ClientError::TooManyDatabases,
    })?;
    if context.directory.is_disabled(&request.database) {
        return Err(ClientError::DatabaseDisabled(request.database));
    }
    let user: Arc<str> = request.user.as_str().into();
    let admission = admit(context, settings, &section, &database.name, &user)?;
    let request = request.named_by(settings, visitor.peer);
    let server_user: Arc<str> = section.user.as_deref().unwrap_or(&request.user).into();
    let query_wait = settings.config.query_wait_timeout(&section, &request.user).unwrap_or_default();

    waits_for_server.store(true, Ordering::Relaxed);
    let wish = Wish { context, database: &database, user: &server_user, worker, wait: query_wait };
    if let Some(replication) = request.replication {
        let (pool, asking) = wish.pool_of_primary().await?;
        let (client, from, wants) = ((context, visitor), (&database, &pool, asking), (&request, replication));
        let replica = Box::pin(replication::open(io, client, from, wants, admission)).await?;
        return Ok(Welcome::Replica(Box::new(replica)));
    }
    let (pool, asking, greeting) = wish.greeting().await?;
    waits_for_server.store(false, Ordering::Relaxed);
    if context.directory.logged_in(&database, &server_user) {
        database.wait_for_catalog(FIRST_CATALOG).await;
    }
    let asked = &request.parameters;
    let (parameters, began_with) = choose_values(&pool, &greeting.parameters, asked, asking).await?;

    let own = own_settings(asked)?;
    let info = Arc::new(ClientInfo::new(
        visitor.id,
        request.database.as_str().into(),
        user,
        visitor.peer,
        &io.stream,
        visitor.accepted_at,
        request.application_name.clone(),
    ));
    let key = context.cancel_keys.issue(&info, settings.config.pgbouncer.peer_id as u16, draws());
    let out = io.outbox.buffer();
    negotiate(out, &request);
    out.extend_from_slice(backend::AUTHENTICATION_OK);
    out.extend_from_slice(&greeting.others);
    for (name, value) in parameters.iter() {
        backend::put_parameter_status(out, name, value);
    }
    let account = context.insight.account(&request.database, &request.user);
    account.stats().login();
    end_login(io, context, &info, key, &settings.config.pgbouncer.login_notify_message).await?;
    let main = &settings.config.pgbouncer;
    Ok(Welcome::Client(Box::new(Guest {
        account,
        pool_mode: settings.config.pool_mode(&section, &server_user),
        admission,
        max_prepared: main.max_prepared_statements as usize,
        info,
        database,
        server_user,
        pool,
        parameters,
        began_with,
        key,
        own,
    })))
}

/// Counts the client, if there may be one more of its database and of its user.
pub(super) fn admit(
    context: &Context,
    settings: &Settings,
    section: &DatabaseConfig,
    database: &Arc<str>,
    user: &Arc<str>,
) -> Result<Admission, ClientError> {
    let config = &settings.config;
    let of_database = (Arc::clone(database), config.max_db_client_connections(section) as usize);
    let of_user = (Arc::clone(user), config.max_user_client_connections(user) as usize);
    context.admissions.admit(of_database, of_user).map_err(ClientError::Crowded)
}

/// The client's key and its first `ReadyForQuery`. Who has read that finds the client among the others.
pub(super) async fn end_login(
    io: &mut Endpoint,
    context: &Context,
    info: &Arc<ClientInfo>,
    key: OwnKey,
    notice: &str,
) -> Result<(), ClientError> {
    let entry = Entry { context, id: info.id, key };
    context.clients.insert(info.id, Arc::clone(info));
    // Who suspends says so first and looks for clients then.
    if context.is_suspended.load(Ordering::SeqCst) && !admin::DATABASES.contains(&&*info.database) {
        info.suspend(true);
    }
    let out = io.outbox.buffer();
    backend::put_backend_key_data(out, key.pid() as i32, key.secret() as i32);
    put_login_notice(out, notice);
    out.extend_from_slice(backend::ready_for_query(TransactionStatus::Idle));
    io.flush().await.map_err(ClientError::Gone)?;
    std::mem::forget(entry);
    Ok(())
}

/// A client among the others whose login has not ended: it is taken out again, by a timeout too.
struct Entry<'a> {
    context: &'a Context,
    id: u64,
    key: OwnKey,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.context.clients.remove(&self.id);
        self.context.cancel_keys.revoke(self.key);
    }
}

/// `login_notify_message`
fn put_login_notice(out: &mut Vec<u8>, message: &str) {
    if !message.is_empty() {
        ErrorResponse::notice(message.to_owned()).put(out);
    }
}

impl Request {
    /// `application_name_add_host`: where the client comes from stands behind its name.
    fn named_by(mut self, settings: &Settings, peer: Peer) -> Self {
        let main = &settings.config.pgbouncer;
        if main.application_name_add_host {
            let name = if self.application_name.is_empty() { "app" } else { &self.application_name };
            let named = match peer {
                Peer::Tcp(_) => format!("{name} - {peer}"),
                Peer::Unix { .. } => format!("{name} - {peer}:{}", main.listen_port),
            };
            self.parameters.retain(|(name, _)| !name.eq_ignore_ascii_case("application_name"));
            self.parameters.push(("application_name".to_owned(), named.clone()));
            self.application_name = named;
        }
        self
    }
}

/// What a login wants of a database.
struct Wish<'a> {
    context: &'a Context,
    database: &'a Arc<Database>,
    /// Who logs in to the server.
    user: &'a Arc<str>,
    worker: usize,
    /// `query_wait_timeout`; zero: for ever.
    wait: Duration,
}

impl Wish<'_> {
    /// The pool of the member that is primary, once there is one, and how it is asked for a connection.
    async fn pool_of_primary(&self) -> Result<(Arc<Pool>, Asking), ClientError> {
        let Self { context, database, user, worker, wait } = *self;
        let known = database.primary_known();
        let primary = match wait.is_zero() {
            true => known.await,
            false => tokio::time::timeout(wait, known).await.map_err(|_| {
                let pins = "no member takes writes".to_owned();
                ClientError::Checkout(CheckoutError::WaitTimeout { waited: wait, pins })
            })?,
        };
        // Others are served under its name since a RELOAD: the driver tries again.
        let primary = primary.ok_or(ClientError::Checkout(CheckoutError::Moved))?;
        let pool = context.directory.pool(database, user, primary);
        let pool = pool.ok_or_else(|| ClientError::NoSuchDatabase(database.name.to_string()))?;
        Ok((pool, Asking { worker, wait, wanted: None, patience: route::patience(database, primary) }))
    }

    /// What the primary's server says at a login.
    async fn greeting(&self) -> Result<(Arc<Pool>, Asking, Arc<Greeting>), ClientError> {
        loop {
            let (pool, asking) = self.pool_of_primary().await?;
            match greet(self.context, self.database, &pool, asking).await {
                // Another member is the primary.
                Err(ClientError::Checkout(CheckoutError::Moved)) if !self.database.is_retired() => {}
                greeted => return Ok((pool, asking, greeted?)),
            }
        }
    }
}

/// What servers of the pool report; the first client of a pool waits until one has been logged in to. Where it would
/// wait for other pools to give a connection back, what they have heard will do.
async fn greet(
    context: &Context,
    database: &Arc<Database>,
    pool: &Arc<Pool>,
    asking: Asking,
) -> Result<Arc<Greeting>, ClientError> {
    if let Some(greeting) = pool.greeting() {
        return Ok(greeting);
    }
    let checking_out = pool.check_out(asking)?;
    if pool.is_crowded_out()
        && let Some(greeting) = context.directory.greeting_of_others(database, pool)
    {
        return Ok(Arc::new(greeting));
    }
    let server = checking_out.ready().await?;
    pool.check_in(server, pool.now());
    pool.greeting().ok_or(ClientError::Checkout(CheckoutError::Closed))
}
