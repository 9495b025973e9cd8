//! The server's side of one exchange.
//!
//! An exchange is used up by its last message:
//! ```compile_fail,E0382
//! # fn twice(exchange: pgweir::auth::scram::ServerExchange) {
//! let first = exchange.finish(b"c=biws,r=nonce,p=");
//! let second = exchange.finish(b"c=biws,r=nonce,p=");
//! # }
//! ```

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{
    Channel, ClientKeys, DEFAULT_ITERATIONS, derive, keys,
    message::{Binding, ClientFinal, ClientFirst, ScramError},
    salt_of,
};
use crate::auth::secret::{ScramSecret, Secret};

/// The client's first message is answered; its last is to come.
#[must_use]
pub struct ServerExchange {
    /// How the client's last message must begin.
    binding: String,
    client_first_bare: String,
    server_first: String,
    /// The client's and ours.
    nonce: String,
    stored: ScramSecret,
    /// Nobody can know the password: there is none, or not in a form that SCRAM can use.
    is_mock: bool,
}

impl ServerExchange {
    /// Takes the client's first message; gives the server's first. `nonce` is printable, random, and without comma.
    ///
    /// A user who is not known, or whose secret is of no use here, gets an exchange that looks like any other and fails.
    pub fn start(
        secret: Option<&Secret>,
        user: &str,
        mock_key: &[u8; 32],
        nonce: &str,
        client_first: &[u8],
    ) -> Result<(ServerExchange, Vec<u8>), ScramError> {
        ServerExchange::start_with(DEFAULT_ITERATIONS, secret, user, mock_key, nonce, client_first)
    }

    /// As `start`, with scram_iterations for secrets that do not say themselves.
    pub fn start_with(
        iterations: u32,
        secret: Option<&Secret>,
        user: &str,
        mock_key: &[u8; 32],
        nonce: &str,
        client_first: &[u8],
    ) -> Result<(ServerExchange, Vec<u8>), ScramError> {
        ServerExchange::start_on(Channel::Unbindable, iterations, secret, user, mock_key, nonce, client_first)
    }

    /// As `start_with`, on a connection that the exchange may be bound to.
    pub fn start_on(
        channel: Channel<'_>,
        iterations: u32,
        secret: Option<&Secret>,
        user: &str,
        mock_key: &[u8; 32],
        nonce: &str,
        client_first: &[u8],
    ) -> Result<(ServerExchange, Vec<u8>), ScramError> {
        let first = ClientFirst::parse(client_first)?;
        let binding = bind(channel, first.binding)?;
        let (stored, is_mock) = match secret {
            Some(Secret::Scram(stored)) => (stored.clone(), false),
            Some(Secret::Plain(password)) => (derive(password, &salt_of(user, mock_key), iterations), false),
            Some(Secret::Md5(_) | Secret::None) | None => (mock(user, mock_key, iterations), true),
        };
        let nonce = format!("{}{nonce}", first.nonce);
        let salt = BASE64_STANDARD.encode(&stored.salt);
        let server_first = format!("r={nonce},s={salt},i={}", stored.iterations);
        let answer = server_first.clone().into_bytes();
        let client_first_bare = first.bare.to_owned();
        Ok((ServerExchange { binding, client_first_bare, server_first, nonce, stored, is_mock }, answer))
    }

    /// Takes the client's last message. `Ok`: the client knows the password; what it is told in proof that we do.
    pub fn finish(self, client_final: &[u8]) -> Result<Vec<u8>, ScramError> {
        self.finish_with_keys(client_final).map(|(server_final, _)| server_final)
    }

    /// As `finish`; the keys log in to a server that has the same SCRAM secret for this user.
    pub fn finish_with_keys(self, client_final: &[u8]) -> Result<(Vec<u8>, ClientKeys), ScramError> {
        let last = ClientFinal::parse(client_final)?;
        if last.binding != self.binding || last.nonce != self.nonce {
            return Err(ScramError::Mismatch);
        }
        let text = format!("{},{},{}", self.client_first_bare, self.server_first, last.without_proof);
        let ScramSecret { stored_key, server_key, .. } = self.stored;
        let client_key = keys::xor(&last.proof, &keys::hmac(&stored_key, text.as_bytes()));
        let is_right = keys::equal(&keys::hash(&client_key), &stored_key);
        if self.is_mock || !is_right {
            return Err(ScramError::WrongPassword);
        }
        let signature = BASE64_STANDARD.encode(keys::hmac(&server_key, text.as_bytes()));
        Ok((format!("v={signature}").into_bytes(), ClientKeys { client_key, server_key }))
    }
}

/// How the client's last message must begin, if its first goes with what was offered and chosen.
fn bind(channel: Channel<'_>, said: Binding) -> Result<String, ScramError> {
    match (channel, said) {
        (Channel::Unbindable, Binding::EndPoint) => Err(ScramError::ChannelBinding),
        (Channel::Unbindable, Binding::Unsupported | Binding::NotOffered) => Ok(said.attribute(&[])),
        (Channel::Bindable { end_point, is_plus: true }, Binding::EndPoint) => Ok(said.attribute(end_point)),
        (Channel::Bindable { is_plus: false, .. }, Binding::Unsupported) => Ok(said.attribute(&[])),
        // It says that we cannot, and we have said that we can.
        (Channel::Bindable { .. }, Binding::NotOffered)
        | (Channel::Bindable { is_plus: true, .. }, Binding::Unsupported)
        | (Channel::Bindable { is_plus: false, .. }, Binding::EndPoint) => Err(ScramError::Negotiation),
    }
}

/// What nobody's password gives.
fn mock(user: &str, mock_key: &[u8; 32], iterations: u32) -> ScramSecret {
    ScramSecret { iterations, salt: salt_of(user, mock_key).into(), stored_key: *mock_key, server_key: *mock_key }
}

#[cfg(test)]
mod tests;
