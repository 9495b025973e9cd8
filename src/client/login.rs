//! From the first byte to the first `ReadyForQuery`.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::timeout;

use super::{
    ClientError, ClientInfo, Draw,
    authenticate::{Claim, Target, authenticate},
    context::{Context, Settings},
    encryption::first_packet,
    session::OwnSettings,
    startup_parameters::{Rules, choose_values, own_settings},
    visitor::Visitor,
};
use crate::{
    admin,
    auth::Refusal,
    cluster::Database,
    config::{AuthType, PoolMode},
    insight::Account,
    net::{Endpoint, Peer},
    pool::{CheckoutError, Greeting, Pool},
    protocol::{
        TransactionStatus, backend,
        startup::{self, StartupPacket},
    },
    session::{Parameters, SessionSettings},
    telemetry::logging::CONNECTIONS,
};

/// The first client of a database waits this long for its catalog: until then every function call is suspect.
const FIRST_CATALOG: Duration = Duration::from_secs(1);
/// Who has come.
pub(super) enum Welcome {
    /// A cancel request; it has been acted on.
    Cancelled,
    /// A client of the console.
    Console(ConsoleGuest),
    /// A client of a database.
    Client(Box<Guest>),
}

/// A client of the console, logged in.
pub(super) struct ConsoleGuest {
    pub info: Arc<ClientInfo>,
    pub account: Arc<Account>,
    pub key: super::cancel::OwnKey,
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
    pub query_wait: Duration,
    pub max_prepared: usize,
    pub key: super::cancel::OwnKey,
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
struct Request {
    user: String,
    database: String,
    application_name: String,
    parameters: Vec<(String, String)>,
    negotiates: bool,
    unknown_options: Vec<String>,
}

/// Runs the whole login within `client_login_timeout`.
pub(super) async fn login(
    io: &mut Endpoint,
    visitor: &mut Visitor,
    context: &Arc<Context>,
    worker: usize,
) -> Result<Welcome, ClientError> {
    let settings = context.settings();
    let deadline = settings.config.pgbouncer.client_login_timeout;
    let logging_in = Box::pin(log_in(io, visitor, context, &settings, worker));
    if deadline.is_zero() {
        return logging_in.await;
    }
    timeout(deadline, logging_in).await.map_err(|_| ClientError::LoginTimeout)?
}

async fn log_in(
    io: &mut Endpoint,
    visitor: &mut Visitor,
    context: &Arc<Context>,
    settings: &Arc<Settings>,
    worker: usize,
) -> Result<Welcome, ClientError> {
    let parameters = loop {
        match first_packet(io, settings).await? {
            StartupPacket::SslRequest | StartupPacket::GssEncRequest => {}
            StartupPacket::CancelRequest { pid, key } => {
                super::cancel::request(context, settings, pid, &key).await;
                return Ok(Welcome::Cancelled);
            }
            StartupPacket::Startup { minor, parameters } => break understand(minor, parameters, settings)?,
        }
    };
    visitor.database = Some(parameters.database.as_str().into());
    visitor.user = Some(parameters.user.as_str().into());
    let origin = visitor.origin(context);
    let Request { database: db, user, .. } = &parameters;
    let tls = io.stream.tls().map_or("no", |tls| &*tls.description);
    tracing::info!(target: CONNECTIONS, %origin, %db, %user, tls, replication = "no", "login attempt");
    let limit = u64::from(settings.config.pgbouncer.max_client_conn);
    let is_console = admin::DATABASES.contains(&parameters.database.as_str());
    if !is_console && context.connected.load(Ordering::Relaxed) > limit {
        return Err(ClientError::Refused("no more connections allowed (max_client_conn)".to_owned()));
    }
    if context.is_shutting_down.load(Ordering::Relaxed) && !is_console {
        return Err(ClientError::Refused("pooler is shutting down".to_owned()));
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
        is_replication: false,
    };
    let user = authenticate(io, context, settings, claim).await?;
    let parameters = Request { user, ..parameters };
    welcome(io, visitor, context, settings, parameters, worker).await.map(|guest| Welcome::Client(Box::new(guest)))
}

fn understand(minor: u16, given: Vec<(String, String)>, settings: &Settings) -> Result<Request, ClientError> {
    let (mut user, mut database, mut options) = (String::new(), String::new(), None);
    let (mut explicit, mut unknown_options) = (Vec::new(), Vec::new());
    for (name, value) in given {
        match name.as_str() {
            "user" => user = value,
            "database" => database = value,
            "options" => options = Some(value),
            "replication" if matches!(value.as_str(), "" | "0" | "off" | "false" | "no") => {}
            "replication" => {
                return Err(ClientError::Refused("replication connections are not supported".to_owned()));
            }
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
        parameters,
        negotiates: minor > 0 || !unknown_options.is_empty(),
        unknown_options,
    })
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
    let is_self = matches!(visitor.peer, Peer::Unix { uid, .. } if uid == nix::unistd::geteuid().as_raw());
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
    backend::put_backend_key_data(out, key.pid() as i32, key.secret() as i32);
    out.extend_from_slice(backend::ready_for_query(TransactionStatus::Idle));
    if let Err(error) = io.flush().await {
        context.cancel_keys.revoke(key);
        return Err(ClientError::Gone(error));
    }
    // Its traffic counts under one name, whichever it was called by.
    let account = context.insight.account("pgbouncer", &request.user);
    account.stats().login();
    if main.log_connections {
        tracing::info!(client = info.id, db = %request.database, user = %request.user, peer = %info.peer, "login attempt");
    }
    Ok(ConsoleGuest { info, account, key, privilege })
}

fn draws() -> impl FnMut() -> u64 {
    let mut draw = Draw::default();
    move || draw.next()
}

fn negotiate(out: &mut Vec<u8>, request: &Request) {
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
) -> Result<Guest, ClientError> {
    let unknown = || ClientError::NoSuchDatabase(request.database.clone());
    let section = settings.config.database(&request.database).filter(|_| is_name(&request.database));
    let section = section.ok_or_else(unknown)?;
    let database = context.directory.database(&request.database).ok_or_else(unknown)?;
    if context.directory.is_disabled(&request.database) {
        return Err(ClientError::DatabaseDisabled(request.database));
    }
    let user: Arc<str> = request.user.as_str().into();
    let server_user: Arc<str> = section.user.as_deref().unwrap_or(&request.user).into();
    let pool = context.directory.pool(&database, &server_user, database.primary()).ok_or_else(unknown)?;
    let query_wait = settings.config.query_wait_timeout(&section, &request.user).unwrap_or_default();

    let greeting = greet(&pool, worker, query_wait).await?;
    if context.directory.logged_in(&database, &server_user) {
        database.wait_for_catalog(FIRST_CATALOG).await;
    }
    let asked = &request.parameters;
    let (parameters, began_with) = choose_values(&pool, &greeting.parameters, asked, worker, query_wait).await?;

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
    backend::put_backend_key_data(out, key.pid() as i32, key.secret() as i32);
    out.extend_from_slice(backend::ready_for_query(TransactionStatus::Idle));
    if let Err(error) = io.flush().await {
        context.cancel_keys.revoke(key);
        return Err(ClientError::Gone(error));
    }

    context.clients.insert(info.id, Arc::clone(&info));
    let account = context.insight.account(&request.database, &request.user);
    account.stats().login();
    let main = &settings.config.pgbouncer;
    Ok(Guest {
        account,
        pool_mode: settings.config.pool_mode(&section, &server_user),
        query_wait,
        max_prepared: main.max_prepared_statements as usize,
        info,
        database,
        server_user,
        pool,
        parameters,
        began_with,
        key,
        own,
    })
}

/// What servers of the pool report; the first client of a pool waits until one has been logged in to.
async fn greet(pool: &Arc<Pool>, worker: usize, wait: Duration) -> Result<Arc<Greeting>, ClientError> {
    if let Some(greeting) = pool.greeting() {
        return Ok(greeting);
    }
    let server = pool.check_out(worker, wait)?.ready().await?;
    pool.check_in(server, pool.now());
    pool.greeting().ok_or(ClientError::Checkout(CheckoutError::Closed))
}
