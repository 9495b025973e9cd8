//! SCRAM-SHA-256, bound to an encrypted connection where there is one: RFC 5802, RFC 5929, RFC 7677.
//!
//! <https://www.postgresql.org/docs/current/sasl-authentication.html>

mod client;
mod keys;
mod message;
mod server;

use super::{saslprep::normalise, secret::ScramSecret};

pub use self::{client::ClientKeys, keys::Key, message::ScramError, server::ServerExchange};
pub(super) use self::{
    client::{ClientExchange, ClientProof},
    message::Binding,
};

/// The mechanism for every connection.
pub const MECHANISM: &str = "SCRAM-SHA-256";
/// The mechanism that binds the exchange to the encrypted connection it takes place on.
pub const MECHANISM_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// The connection that an exchange takes place on, as a server sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel<'a> {
    /// There is nothing to bind to: only [`MECHANISM`] was offered.
    Unbindable,
    /// Both mechanisms were offered, and the client has chosen.
    Bindable {
        /// The hash of the server's certificate.
        end_point: &'a [u8],
        /// It has chosen [`MECHANISM_PLUS`].
        is_plus: bool,
    },
}

/// What a server offers, the best first; `end_point` is what a client can bind to.
#[must_use]
pub fn mechanisms(end_point: Option<&[u8]>) -> Vec<String> {
    let plus = end_point.map(|_| MECHANISM_PLUS);
    plus.into_iter().chain([MECHANISM]).map(str::to_owned).collect()
}

impl<'a> Channel<'a> {
    /// What a client has chosen of [`mechanisms`]; `None` if it is none of them.
    #[must_use]
    pub fn of(mechanism: &[u8], end_point: Option<&'a [u8]>) -> Option<Self> {
        match (mechanism, end_point) {
            (b"SCRAM-SHA-256", None) => Some(Self::Unbindable),
            (b"SCRAM-SHA-256", Some(end_point)) => Some(Self::Bindable { end_point, is_plus: false }),
            (b"SCRAM-SHA-256-PLUS", Some(end_point)) => Some(Self::Bindable { end_point, is_plus: true }),
            _ => None,
        }
    }
}

/// PostgreSQL's default.
pub const DEFAULT_ITERATIONS: u32 = 4096;

const SALT_BYTES: usize = 16;

/// What would be stored for a password. Slow on purpose; the result may be kept in place of the password.
pub fn derive(password: &str, salt: &[u8], iterations: u32) -> ScramSecret {
    let salted = keys::salted_password(normalise(password).as_bytes(), salt, iterations);
    ScramSecret {
        iterations,
        salt: salt.into(),
        stored_key: keys::hash(&keys::hmac(&salted, b"Client Key")),
        server_key: keys::hmac(&salted, b"Server Key"),
    }
}

/// The salt for a user whose secret has none, or who does not exist: the same at each login, and not to be foretold
/// without the key of this process.
pub fn salt_of(user: &str, mock_key: &[u8; 32]) -> [u8; SALT_BYTES] {
    let mut salt = [0; SALT_BYTES];
    for (byte, random) in salt.iter_mut().zip(keys::hmac(mock_key, user.as_bytes())) {
        *byte = random;
    }
    salt
}

/// Whether `password` is the one that `stored` was made from.
pub(super) fn knows(stored: &ScramSecret, password: &str) -> bool {
    keys::equal(&derive(password, &stored.salt, stored.iterations).server_key, &stored.server_key)
}
