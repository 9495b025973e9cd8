//! Who a client is: the exchange that proves it.

use pgwire::messages::startup::Authentication;

use super::{
    ClientError,
    context::{Context, Settings},
};
use crate::{
    auth::{Challenge, challenge, scram, verify_clear, verify_md5},
    config::AuthType,
    net::Endpoint,
    protocol::{FrameError, backend, frame, frontend},
};

/// Longest message of an authentication exchange.
const PASSWORD_LIMIT_BYTES: usize = 64 * 1024;

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

async fn ask(io: &mut Endpoint, message: &Authentication) -> Result<Vec<u8>, ClientError> {
    backend::put_authentication(io.outbox.buffer(), message);
    io.flush().await.map_err(ClientError::Gone)?;
    read_password(io).await
}

/// Proves that the client is who it says; nothing is said about whether the user exists.
pub(super) async fn authenticate(
    io: &mut Endpoint,
    context: &Context,
    settings: &Settings,
    user: &str,
) -> Result<(), ClientError> {
    let secret = settings.users.secret(user);
    if settings.config.pgbouncer.auth_type == AuthType::Cert {
        let is_named = io.stream.tls().is_some_and(|tls| tls.names.iter().any(|name| name == user));
        let failed = ClientError::Authentication("certificate authentication failed");
        return if secret.is_some() && is_named { Ok(()) } else { Err(failed) };
    }
    let without_zero = |answer: &[u8]| answer.strip_suffix(b"\0").unwrap_or(answer).to_vec();
    let is_right = match challenge(settings.config.pgbouncer.auth_type, secret) {
        Challenge::None => true,
        Challenge::Refused => return Err(ClientError::Authentication("\"trust\" authentication failed")),
        Challenge::ClearText => {
            let answer = without_zero(&ask(io, &Authentication::CleartextPassword).await?);
            verify_clear(secret, user, &String::from_utf8_lossy(&answer))
        }
        Challenge::Md5 => {
            let mut salt = [0; 4];
            getrandom::fill(&mut salt).map_err(|_| ClientError::Authentication("no random numbers"))?;
            let answer = ask(io, &Authentication::MD5Password(salt.to_vec())).await?;
            verify_md5(secret, user, salt, &without_zero(&answer))
        }
        Challenge::Scram => return scram_exchange(io, context, settings, user).await,
    };
    if is_right { Ok(()) } else { Err(ClientError::Authentication("password authentication failed")) }
}

async fn scram_exchange(
    io: &mut Endpoint,
    context: &Context,
    settings: &Settings,
    user: &str,
) -> Result<(), ClientError> {
    let failed = ClientError::Authentication("SASL authentication failed");
    let tls = io.stream.tls().cloned();
    let end_point = tls.as_ref().and_then(|tls| tls.end_point.as_deref());
    let answer = ask(io, &Authentication::SASL(scram::mechanisms(end_point))).await?;
    let Some((channel, client_first)) = sasl_initial_response(&answer, end_point) else { return Err(failed) };
    let mut random = [0; 18];
    getrandom::fill(&mut random).map_err(|_| ClientError::Authentication("no random numbers"))?;
    let nonce = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, random);
    let secret = settings.users.scram_secret(user, &context.mock_key);
    let (exchange, server_first) = scram::ServerExchange::start_on(
        channel,
        scram::DEFAULT_ITERATIONS,
        secret,
        user,
        &context.mock_key,
        &nonce,
        client_first,
    )?;
    let client_final = ask(io, &Authentication::SASLContinue(server_first.into())).await?;
    let (server_final, keys) = exchange.finish_with_keys(&client_final)?;
    context.directory.remember_keys(user, keys);
    backend::put_authentication(io.outbox.buffer(), &Authentication::SASLFinal(server_final.into()));
    Ok(())
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
