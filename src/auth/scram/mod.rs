//! SCRAM-SHA-256 without channel binding: RFC 5802, RFC 7677.
//!
//! <https://www.postgresql.org/docs/current/sasl-authentication.html>

mod client;
mod keys;
mod message;
mod server;

use super::{saslprep::normalise, secret::ScramSecret};

pub(super) use self::client::{ClientExchange, ClientProof};
pub use self::{client::ClientKeys, keys::Key, message::ScramError, server::ServerExchange};

/// The only mechanism that is offered and taken.
pub const MECHANISM: &str = "SCRAM-SHA-256";

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
