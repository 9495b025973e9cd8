//! From the first byte to the first `ReadyForQuery`.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::timeout;

use super::{
    ClientError, ClientInfo, Draw,
    authenticate::authenticate,
    context::{Context, Settings},
    encryption::first_packet,
    session::OwnSettings,
    visitor::Visitor,
};
use crate::{
    admin,
    cluster::Database,
    config::{NameList, PoolMode},
    insight::Account,
    net::{Endpoint, Peer},
    pool::{CheckoutError, Greeting, Pool},
    protocol::{
        TransactionStatus, backend,
        startup::{self, StartupPacket},
    },
    server::{ExecuteError, execute},
    session::{
        Parameters,
        parameters::{TRACKED, push_literal, tracked},
    },
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
    pub pool_mode: PoolMode,
    pub query_wait: Duration,
    pub max_prepared: usize,
    pub key: super::cancel::OwnKey,
    /// `options=-c pgweir.…`.
    pub own: OwnSettings,
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
    authenticate(io, context, settings, &parameters.user).await?;
    welcome(io, visitor, context, settings, parameters, worker).await.map(|guest| Welcome::Client(Box::new(guest)))
}

fn understand(minor: u16, given: Vec<(String, String)>, settings: &Settings) -> Result<Request, ClientError> {
    let ignored = &settings.config.pgbouncer.ignore_startup_parameters;
    let (mut user, mut database, mut options) = (String::new(), String::new(), None);
    let (mut parameters, mut explicit) = (Vec::new(), Vec::new());
    let mut unknown_options = Vec::new();
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
    if let Some(options) = options {
        for (name, value) in split_options(&options)? {
            match accept(name, value, ignored, &mut parameters) {
                Err(_) if ignored.contains("options") => {}
                accepted => accepted?,
            }
        }
    }
    // As in PostgreSQL, what the packet sets itself comes behind its `options`, and the last word holds.
    for (name, value) in explicit {
        accept(name, value, ignored, &mut parameters)?;
    }
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

fn accept(
    name: String,
    value: String,
    ignored: &NameList,
    parameters: &mut Vec<(String, String)>,
) -> Result<(), ClientError> {
    let is_own = name.starts_with("pgweir.");
    if is_own || tracked(&name).is_some() {
        parameters.push((name, value));
        return Ok(());
    }
    if ignored.contains(&name) {
        return Ok(());
    }
    Err(ClientError::Refused(format!("unsupported startup parameter: {name}")))
}

/// `-c name=value`, `-cname=value` and `--name=value`, blanks escaped by `\`.
fn split_options(options: &str) -> Result<Vec<(String, String)>, ClientError> {
    let mut words = vec![String::new()];
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        match (character, words.last_mut()) {
            ('\\', Some(word)) => word.extend(characters.next()),
            (blank, _) if blank.is_ascii_whitespace() => words.push(String::new()),
            (other, Some(word)) => word.push(other),
            (_, None) => {}
        }
    }
    let malformed = || ClientError::Refused("unsupported options startup parameter".to_owned());
    let mut found = Vec::new();
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    while let Some(word) = words.next() {
        let pair = match (word.as_str(), word.strip_prefix("--"), word.strip_prefix("-c")) {
            ("-c", ..) => words.next().ok_or_else(malformed)?,
            (_, Some(pair), _) | (_, None, Some(pair)) => pair.to_owned(),
            _ => return Err(malformed()),
        };
        let (name, value) = pair.split_once('=').ok_or_else(malformed)?;
        found.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(found)
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
    let privilege = if request.user == "pgbouncer" && is_self {
        admin::Privilege::Admin
    } else if main.admin_users.contains(&request.user) {
        authenticate(io, context, settings, &request.user).await?;
        admin::Privilege::Admin
    } else if main.stats_users.contains(&request.user) {
        authenticate(io, context, settings, &request.user).await?;
        admin::Privilege::Stats
    } else {
        return Err(ClientError::Refused("not allowed".to_owned()));
    };
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
    let unknown = || ClientError::Refused(format!("no such database: {}", request.database));
    let section = settings.config.database(&request.database).ok_or_else(unknown)?;
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
    let parameters = choose_parameters(&pool, &greeting.parameters, &request, worker, query_wait).await?;

    let own = own_settings(&request)?;
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
        key,
        own,
    })
}

/// Settings of the proxy's own that came with the start-up packet.
fn own_settings(request: &Request) -> Result<OwnSettings, ClientError> {
    let mut own = OwnSettings::default();
    for (name, value) in &request.parameters {
        if let Some(name) = name.strip_prefix("pgweir.") {
            own.set(name, value).map_err(|error| ClientError::Refused(error.message.into_owned()))?;
        }
    }
    Ok(own)
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

/// The values of tracked parameters that this client starts with, in PostgreSQL's spelling.
///
/// What a client asks for is tried on a server once per pool and value, so that a wrong value fails the login as it
/// would without a proxy.
async fn choose_parameters(
    pool: &Arc<Pool>,
    greeting: &Parameters,
    request: &Request,
    worker: usize,
    wait: Duration,
) -> Result<Parameters, ClientError> {
    let mut parameters = greeting.clone();
    for (name, typed) in request.parameters.iter().filter(|(name, _)| !name.starts_with("pgweir.")) {
        let Some(name) = tracked(name).and_then(|index| TRACKED.get(index)) else { continue };
        if *name == "application_name" || parameters.get(name) == Some(typed.as_str()) {
            parameters.set(name, typed);
            continue;
        }
        let spelling = match pool.spelling(name, typed) {
            Some(known) => known,
            None => try_parameter(pool, name, typed, worker, wait).await?,
        };
        parameters.set(name, &spelling);
    }
    Ok(parameters)
}

async fn try_parameter(
    pool: &Arc<Pool>,
    name: &str,
    typed: &str,
    worker: usize,
    wait: Duration,
) -> Result<Box<str>, ClientError> {
    let server = pool.check_out(worker, wait)?.ready().await?;
    let mut text = format!("SET {name}=");
    push_literal(&mut text, typed);
    let server = match execute(server.begin(), &text).await {
        Ok(server) => server,
        Err(ExecuteError::Refused { frame }) => return Err(ClientError::InvalidParameter(as_fatal(frame))),
        Err(ExecuteError::Io(error)) => return Err(ClientError::ServerGone(error)),
        Err(ExecuteError::Frame(_)) => return Err(ClientError::ServerProtocol("an answer to SET")),
    };
    let spelling: Box<str> = server.core().parameters.get(name).unwrap_or(typed).into();
    pool.learn_spelling(name, typed, &spelling);
    pool.check_in(server, pool.now());
    Ok(spelling)
}

/// At start-up PostgreSQL reports a wrong value as FATAL.
fn as_fatal(frame: Vec<u8>) -> Vec<u8> {
    use crate::protocol::{ErrorResponse, SqlState, error_response};
    let message = error_response::field(&frame, b'M').unwrap_or_default();
    let sqlstate = error_response::sqlstate(&frame).unwrap_or(SqlState::INVALID_PARAMETER_VALUE);
    let mut fatal = Vec::new();
    ErrorResponse::fatal(sqlstate, String::from_utf8_lossy(message).into_owned()).put(&mut fatal);
    fatal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_in_all_their_forms() {
        let found = split_options(r"-c a=1 -cb=2 --c-d=3 -c e=x\ y").unwrap();
        let expected = [("a", "1"), ("b", "2"), ("c_d", "3"), ("e", "x y")];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn options_of_another_kind_are_refused() {
        for options in ["-d 5", "-c a", "-c"] {
            assert!(split_options(options).is_err(), "{options}");
        }
    }
}
