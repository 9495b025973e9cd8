//! The client's side, with the keys that another login has shown: a secret of auth_file does not hold them.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{Key, ScramError, keys, message::Binding};

/// What a client proved to know. It logs in wherever the secret has the same salt and iterations.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientKeys {
    pub(super) client_key: Key,
    pub(super) server_key: Key,
}

impl fmt::Debug for ClientKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ClientKeys(***)")
    }
}

/// The first message is sent; the server's first is to come.
#[must_use]
pub(in crate::auth) struct ClientExchange {
    keys: ClientKeys,
    nonce: String,
    /// How the last message begins.
    binding: String,
}

/// The proof is sent; the server's is to come.
#[must_use]
pub(in crate::auth) struct ClientProof {
    server_signature: Key,
}

impl ClientExchange {
    /// `nonce` is printable, random, and without comma. Gives the client's first message; `end_point` is what it may
    /// bind to.
    pub(in crate::auth) fn start(
        keys: ClientKeys,
        nonce: &str,
        binding: Binding,
        end_point: &[u8],
    ) -> (ClientExchange, String) {
        let exchange = ClientExchange { keys, nonce: nonce.to_owned(), binding: binding.attribute(end_point) };
        let first = format!("{}{}", binding.header(), exchange.bare());
        (exchange, first)
    }

    /// The server knows the user's name from the startup message.
    fn bare(&self) -> String {
        format!("n=,r={}", self.nonce)
    }

    /// Takes the server's first message; gives the client's last.
    pub(in crate::auth) fn prove(self, server_first: &[u8]) -> Result<(ClientProof, String), ScramError> {
        let server_first = std::str::from_utf8(server_first).map_err(|_| ScramError::Malformed("UTF-8"))?;
        let nonce = server_first.split(',').next().and_then(|nonce| nonce.strip_prefix("r="));
        let nonce = nonce.ok_or(ScramError::Malformed("r="))?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(ScramError::Mismatch);
        }
        let without_proof = format!("{},r={nonce}", self.binding);
        let text = format!("{},{server_first},{without_proof}", self.bare());
        let stored_key = keys::hash(&self.keys.client_key);
        let proof = keys::xor(&self.keys.client_key, &keys::hmac(&stored_key, text.as_bytes()));
        let server_signature = keys::hmac(&self.keys.server_key, text.as_bytes());
        Ok((ClientProof { server_signature }, format!("{without_proof},p={}", BASE64_STANDARD.encode(proof))))
    }
}

impl ClientProof {
    /// Takes the server's last message. `Ok`: it knows the secret.
    pub(in crate::auth) fn verify(self, server_final: &[u8]) -> Result<(), ScramError> {
        let signature = server_final.strip_prefix(b"v=").and_then(|text| BASE64_STANDARD.decode(text).ok());
        let signature: Option<Key> = signature.and_then(|signature| signature.try_into().ok());
        let signature = signature.ok_or(ScramError::Malformed("v="))?;
        if keys::equal(&signature, &self.server_signature) { Ok(()) } else { Err(ScramError::WrongPassword) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Secret, scram::ServerExchange};

    const SECRET: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const CLIENT_FINAL: &[u8] =
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    /// The keys that the login in the example of RFC 7677 shows.
    fn keys() -> ClientKeys {
        let first = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
        let nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let secret = Secret::parse(SECRET);
        let (exchange, _) = ServerExchange::start(Some(&secret), "user", &[0; 32], nonce, first).unwrap();
        exchange.finish_with_keys(CLIENT_FINAL).unwrap().1
    }

    fn server(client_first: &str) -> (ServerExchange, Vec<u8>) {
        let secret = Secret::parse(SECRET);
        ServerExchange::start(Some(&secret), "user", &[1; 32], "other", client_first.as_bytes()).unwrap()
    }

    #[test]
    fn the_keys_of_one_login_open_another_that_has_the_same_secret() {
        let (client, first) = ClientExchange::start(keys(), "nonce", Binding::Unsupported, &[]);
        let (server, server_first) = server(&first);
        let (proof, last) = client.prove(&server_first).unwrap();
        let server_final = server.finish(last.as_bytes()).unwrap();
        assert_eq!(proof.verify(&server_final), Ok(()));
    }

    #[test]
    fn a_server_that_does_not_know_the_secret_is_found_out() {
        let (client, _) = ClientExchange::start(keys(), "rOprNGfwEbeRWgbNEkqO", Binding::Unsupported, &[]);
        let (proof, _) = client.prove(SERVER_FIRST.as_bytes()).unwrap();
        let other = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5=";
        assert!(proof.verify(other).is_err());
    }

    /// What is wrong with a server's first message.
    #[track_caller]
    fn first(message: &[u8], error: ScramError) {
        let (client, _) = ClientExchange::start(keys(), "nonce", Binding::Unsupported, &[]);
        assert_eq!(client.prove(message).err(), Some(error));
    }

    #[test]
    fn a_broken_message_of_the_server_ends_the_exchange() {
        first(b"", ScramError::Malformed("r="));
        first(b"\xff", ScramError::Malformed("UTF-8"));
        first(b"r=another,s=AAAA,i=1", ScramError::Mismatch);
        first(b"r=nonce,s=AAAA,i=1", ScramError::Mismatch);
    }

    #[test]
    fn keys_are_printed_nowhere() {
        assert_eq!(format!("{:?}", keys()), "ClientKeys(***)");
    }
}
