//! Who a client is: the exchange that proves it.

use std::{borrow::Cow, sync::Arc};

use pgwire::messages::startup::Authentication;
use tokio::task::spawn_blocking;

use super::{
    ClientError,
    context::{Context, FoundUser, KeyOwner, Lookup, Settings},
};
use crate::{
    auth::{
        Challenge, Connection, Credentials, IdentMap, Method, Refusal, Secret, challenge, method, scram, verify_clear,
        verify_md5,
    },
    config::DatabaseConfig,
    net::{Endpoint, Peer},
    protocol::{FrameError, backend, frame, frontend},
};

/// Longest message of an authentication exchange.
const PASSWORD_LIMIT_BYTES: usize = 64 * 1024;
/// PgBouncer's limit: names of users are shorter.
const LONGEST_USER: usize = 128;

/// Who wants to come in, where from, and where to.
#[derive(Clone, Copy)]
pub(super) struct Claim<'a> {
    pub user: &'a str,
    /// As rules name it.
    pub database: &'a str,
    pub target: Target<'a>,
    pub peer: Peer,
    /// `None` without encryption, else the names in the client's certificate: none without one.
    pub certificate: Option<&'a [String]>,
    /// Physical replication.
    pub is_replication: bool,
}

/// What the client wants to use.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    Console,
    Database(&'a DatabaseConfig),
    /// There is none of this name, which nobody is told before it is known who asks.
    Unknown,
}

/// A user who may be asked to prove something.
struct Known {
    user: String,
    credentials: Arc<Credentials>,
    origin: Origin,
}

/// Where the secret is from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    File,
    /// auth_query, just now.
    Asked,
    /// auth_query, at an earlier login: the password may have been changed since.
    Remembered,
}

/// Proves that the client is who it says; nothing is said about whether the user exists. Who that is in the database.
pub(super) async fn authenticate(
    io: &mut Endpoint,
    context: &Context,
    settings: &Settings,
    claim: Claim<'_>,
) -> Result<String, ClientError> {
    if claim.user.len() >= LONGEST_USER {
        return Err(ClientError::Refused("username too long".to_owned()));
    }
    let (method, map) = required(settings, &claim, claim.user)?;
    if method == Method::Any {
        return anybody(&claim);
    }
    if method == Method::Reject {
        return Err(Refusal::Rejected.into());
    }
    let (known, unknown_by_scram) = find(context, settings, &claim).await?;
    let user = known.as_ref().map_or(claim.user, |known| &known.user);
    // Rules are about the user that it turns out to be.
    let (method, map) = if user == claim.user { (method, map) } else { required(settings, &claim, user)? };
    let secret = known.as_ref().map(|known| known.credentials.secret());
    match challenge(method, secret, unknown_by_scram) {
        Challenge::None => {}
        Challenge::Refused(refusal) => return Err(refusal.into()),
        Challenge::Certificate => {
            let names = claim.certificate.unwrap_or_default();
            let fits = |name: &String| map.map_or(name == user, |map| map.allows(name, user));
            check(names.iter().any(fits), Refusal::Certificate)?;
        }
        Challenge::Peer => {
            let name = unix_user(claim.peer).await;
            let fits = |name: &str| map.map_or(name == user, |map| map.allows(name, user));
            check(name.as_deref().is_some_and(fits), Refusal::Peer)?;
        }
        Challenge::ClearText => {
            let answer = password(&ask(io, &Authentication::CleartextPassword).await?)?;
            let answer: Arc<str> = String::from_utf8_lossy(&answer).into();
            let verify = |secret, user| verify_clear_elsewhere(secret, user, Arc::clone(&answer));
            let is_right = verify(secret.cloned(), user.to_owned()).await;
            if !is_right {
                let again = ask_again(context, &claim, known.as_ref()).await?;
                let secret = again.as_ref().map(|found| found.credentials.secret().clone());
                check(verify(secret, user.to_owned()).await, Refusal::Password)?;
            }
        }
        Challenge::Md5 => {
            let mut salt = [0; 4];
            getrandom::fill(&mut salt).map_err(|_| ClientError::NoRandom)?;
            let answer = password(&ask(io, &Authentication::MD5Password(salt.to_vec())).await?)?;
            if !verify_md5(secret, claim.user, salt, &answer) {
                let again = ask_again(context, &claim, known.as_ref()).await?;
                let secret = again.as_ref().map(|found| found.credentials.secret());
                check(verify_md5(secret, claim.user, salt, &answer), Refusal::Password)?;
            }
        }
        Challenge::Scram => scram_exchange(io, context, settings, &claim, known.as_ref()).await?,
    }
    Ok(user.to_owned())
}

fn check(is_right: bool, otherwise: Refusal) -> Result<(), ClientError> {
    if is_right { Ok(()) } else { Err(otherwise.into()) }
}

/// What this user has to prove.
fn required<'s>(
    settings: &'s Settings,
    claim: &Claim<'_>,
    user: &str,
) -> Result<(Method, Option<&'s IdentMap>), ClientError> {
    let connection = Connection {
        address: match claim.peer {
            Peer::Tcp(address) => Some(address.ip()),
            Peer::Unix { .. } => None,
        },
        is_tls: claim.certificate.is_some(),
        database: claim.database,
        user,
        is_replication: claim.is_replication,
    };
    let (method, rule) = method(settings.config.pgbouncer.auth_type, &settings.rules, &connection)?;
    Ok((method, rule.and_then(|rule| rule.map.as_deref())))
}

/// `auth_type = any`: whoever it is becomes the database's user.
fn anybody(claim: &Claim<'_>) -> Result<String, ClientError> {
    match claim.target {
        Target::Console | Target::Unknown => Ok(claim.user.to_owned()),
        Target::Database(section) => section.user.clone().ok_or_else(|| {
            tracing::error!(db = claim.database, "auth_type=any requires forced user");
            ClientError::Refused("bouncer config error".to_owned())
        }),
    }
}

/// The user, and whether one who is not known had better be asked for SCRAM.
async fn find(context: &Context, settings: &Settings, claim: &Claim<'_>) -> Result<(Option<Known>, bool), ClientError> {
    let listed = settings.users.credentials(claim.user).map(Arc::clone);
    if let Some(credentials) = &listed
        && *credentials.secret() != Secret::None
    {
        let known = Known { user: claim.user.to_owned(), credentials: Arc::clone(credentials), origin: Origin::File };
        return Ok((Some(known), false));
    }
    let section = match claim.target {
        Target::Database(section) => Some(section),
        Target::Console => None,
        Target::Unknown => return Ok((None, settings.users.prefers_scram())),
    };
    match context.directory.find_user(section, claim.user, false).await? {
        Lookup::Found(FoundUser { user, credentials, is_remembered }) => {
            let origin = if is_remembered { Origin::Remembered } else { Origin::Asked };
            Ok((Some(Known { user, credentials, origin }), false))
        }
        Lookup::Unknown { by_scram } => Ok((None, by_scram)),
        Lookup::Nobody => {
            let known = |credentials| Known { user: claim.user.to_owned(), credentials, origin: Origin::File };
            Ok((listed.map(known), settings.users.prefers_scram()))
        }
    }
}

/// A password that does not fit what is remembered may be a new one.
async fn ask_again(
    context: &Context,
    claim: &Claim<'_>,
    known: Option<&Known>,
) -> Result<Option<FoundUser>, ClientError> {
    let section = match (claim.target, known) {
        (Target::Database(section), Some(known)) if known.origin == Origin::Remembered => Some(section),
        (Target::Console, Some(known)) if known.origin == Origin::Remembered => None,
        _ => return Ok(None),
    };
    match context.directory.find_user(section, claim.user, true).await? {
        Lookup::Found(found) if known.is_some_and(|known| known.user == found.user) => Ok(Some(found)),
        Lookup::Found(_) | Lookup::Unknown { .. } | Lookup::Nobody => Ok(None),
    }
}

/// Hashing a password thousands of times would hold up every other client of this thread.
async fn verify_clear_elsewhere(secret: Option<Secret>, user: String, answer: Arc<str>) -> bool {
    match &secret {
        Some(Secret::Scram(_)) => {
            spawn_blocking(move || verify_clear(secret.as_ref(), &user, &answer)).await.unwrap_or(false)
        }
        Some(Secret::Plain(_) | Secret::Md5(_) | Secret::None) | None => verify_clear(secret.as_ref(), &user, &answer),
    }
}

/// The operating system's name of whoever is at the other end. Asking for it may take as long as a directory server.
async fn unix_user(peer: Peer) -> Option<String> {
    let Peer::Unix { uid, .. } = peer else { return None };
    let looked_up = spawn_blocking(move || nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)));
    looked_up.await.ok()?.ok()?.map(|user| user.name)
}

/// Without its closing zero; an empty one is never right.
fn password(answer: &[u8]) -> Result<Vec<u8>, ClientError> {
    let password = answer.strip_suffix(b"\0").unwrap_or(answer);
    check(!password.is_empty(), Refusal::EmptyPassword)?;
    Ok(password.to_vec())
}

async fn scram_exchange(
    io: &mut Endpoint,
    context: &Context,
    settings: &Settings,
    claim: &Claim<'_>,
    known: Option<&Known>,
) -> Result<(), ClientError> {
    let tls = io.stream.tls().cloned();
    let end_point = tls.as_ref().and_then(|tls| tls.end_point.as_deref());
    let answer = ask(io, &Authentication::SASL(scram::mechanisms(end_point))).await?;
    let (channel, client_first) = sasl_initial_response(&answer, end_point).ok_or(Refusal::Sasl)?;
    let mut random = [0; 18];
    getrandom::fill(&mut random).map_err(|_| ClientError::NoRandom)?;
    let nonce = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, random);
    let iterations = settings.config.pgbouncer.scram_iterations;
    let secret = match known {
        Some(known) => Some(scram_secret(known, context.mock_key, iterations).await),
        None => None,
    };
    let (exchange, server_first) = scram::ServerExchange::start_on(
        channel,
        iterations,
        secret.as_deref(),
        claim.user,
        &context.mock_key,
        &nonce,
        client_first,
    )?;
    let client_final = ask(io, &Authentication::SASLContinue(server_first.into())).await?;
    let (server_final, keys) = match exchange.finish_with_keys(&client_final) {
        Ok(proved) => proved,
        Err(error) => {
            // The salt that this exchange began with cannot be changed; the next one begins with the new secret.
            ask_again(context, claim, known).await?;
            return Err(error.into());
        }
    };
    if let Some(known) = known.filter(|known| matches!(known.credentials.secret(), Secret::Scram(_))) {
        let owner = match known.origin {
            Origin::File => KeyOwner::Listed,
            Origin::Asked | Origin::Remembered => KeyOwner::Of(claim.database),
        };
        context.directory.remember_keys(owner, &known.user, keys);
    }
    backend::put_authentication(io.outbox.buffer(), &Authentication::SASLFinal(server_final.into()));
    Ok(())
}

async fn scram_secret(known: &Known, mock_key: [u8; 32], iterations: u32) -> Cow<'_, Secret> {
    if !known.credentials.is_slow(iterations) {
        return Cow::Owned(known.credentials.for_scram(&known.user, &mock_key, iterations));
    }
    let (credentials, user) = (Arc::clone(&known.credentials), known.user.clone());
    let derived = spawn_blocking(move || credentials.for_scram(&user, &mock_key, iterations)).await;
    derived.map_or(Cow::Borrowed(&Secret::None), Cow::Owned)
}

/// Mechanism, length, data; PLUS where it was offered.
fn sasl_initial_response<'a>(answer: &'a [u8], end_point: Option<&'a [u8]>) -> Option<(scram::Channel<'a>, &'a [u8])> {
    let end = memchr::memchr(0, answer)?;
    let (mechanism, rest) = answer.split_at_checked(end)?;
    let (length, data) = rest.get(1..)?.split_first_chunk::<4>()?;
    let length = usize::try_from(i32::from_be_bytes(*length)).ok()?;
    let channel = scram::Channel::of(mechanism, end_point)?;
    (data.len() == length).then_some((channel, data))
}

async fn ask(io: &mut Endpoint, message: &Authentication) -> Result<Vec<u8>, ClientError> {
    backend::put_authentication(io.outbox.buffer(), message);
    io.flush().await.map_err(ClientError::Gone)?;
    read_password(io).await
}

async fn read_password(io: &mut Endpoint) -> Result<Vec<u8>, ClientError> {
    loop {
        if let Some(header) = frame::header(io.inbox.unread())? {
            if header.tag == frontend::tag::TERMINATE {
                return Err(ClientError::Terminated);
            }
            if header.tag != frontend::tag::PASSWORD {
                return Err(FrameError::UnknownTag(header.tag).into());
            }
            if header.frame_bytes > PASSWORD_LIMIT_BYTES {
                return Err(FrameError::LengthTooLarge(header.frame_bytes as u32).into());
            }
            if let Some(message) = io.inbox.unread().get(..header.frame_bytes) {
                let answer = frame::body(message).to_vec();
                io.inbox.skip(header.frame_bytes, &mut Default::default());
                return Ok(answer);
            }
        }
        io.read().await.map_err(ClientError::Gone)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sasl_response_that_lies_about_its_length_is_none() {
        let channel = scram::Channel::Unbindable;
        assert_eq!(sasl_initial_response(b"SCRAM-SHA-256\0\0\0\0\x02n,", None), Some((channel, &b"n,"[..])));
        assert_eq!(sasl_initial_response(b"SCRAM-SHA-256\0\0\0\0\x03n,", None), None);
        assert_eq!(sasl_initial_response(b"SCRAM-SHA-1\0\0\0\0\x02n,", None), None);
    }
}
