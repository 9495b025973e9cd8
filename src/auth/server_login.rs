//! Our side of logging in to a server: fed with its Authentication messages, says what to answer.
//!
//! <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>

use std::mem;

use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};

use super::{
    md5,
    scram::{Binding, ClientExchange, ClientKeys, ClientProof, ScramError},
    secret::Secret,
};

/// Why we cannot answer. `Display` is what waiting clients are told, in PgBouncer's words.
#[derive(Debug, thiserror::Error)]
pub enum ServerLoginError {
    /// The stored form of the password is of no use for what the server asks.
    #[error("server login failed: wrong password type")]
    WrongPasswordType,
    /// SCRAM-SHA-256-PLUS only where there is nothing to bind to, or something else.
    #[error("server login failed: none of the server's SASL authentication mechanisms are supported")]
    Mechanism,
    /// GSSAPI, SSPI, Kerberos or something unheard of.
    #[error("server login failed: unknown/unsupported auth method: {0}")]
    Method(i32),
    /// A message that does not belong here, or is cut.
    #[error("server login failed: protocol error in authentication")]
    Protocol,
    /// The exchange failed: a broken message, or a server that does not know the password itself.
    #[error("server login failed: SASL authentication failed")]
    Scram(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<std::io::Error> for ServerLoginError {
    fn from(error: std::io::Error) -> ServerLoginError {
        ServerLoginError::Scram(Box::new(error))
    }
}

impl From<ScramError> for ServerLoginError {
    fn from(error: ScramError) -> ServerLoginError {
        ServerLoginError::Scram(Box::new(error))
    }
}

/// Codes of Authentication messages.
mod code {
    pub(super) const OK: i32 = 0;
    pub(super) const CLEAR_TEXT: i32 = 3;
    pub(super) const MD5: i32 = 5;
    pub(super) const SASL: i32 = 10;
    pub(super) const SASL_CONTINUE: i32 = 11;
    pub(super) const SASL_FINAL: i32 = 12;
}

/// From the password, or from keys that a client has shown.
enum Begun {
    Password(ScramSha256),
    Keys(ClientExchange),
}

enum Proved {
    Password(ScramSha256),
    Keys(ClientProof),
}

enum Progress {
    Nothing,
    /// The first SCRAM message is sent.
    Begun(Begun),
    /// The proof is sent.
    Proved(Proved),
    /// The server has proved that it knows the password too.
    Verified,
}

/// One login, from the startup message to AuthenticationOk.
pub struct ServerLogin {
    user: String,
    secret: Secret,
    /// With a nonce to use them with.
    keys: Option<(ClientKeys, String)>,
    /// The hash of the server's certificate.
    end_point: Option<Box<[u8]>>,
    progress: Progress,
}

impl ServerLogin {
    /// A user without a secret answers with an empty password, and the server says what it thinks of that.
    pub fn new(user: &str, secret: Option<&Secret>) -> ServerLogin {
        let secret = secret.cloned().unwrap_or(Secret::None);
        ServerLogin { user: user.to_owned(), secret, keys: None, end_point: None, progress: Progress::Nothing }
    }

    /// With what the user's last SCRAM login has shown, a SCRAM secret is enough where the server has the same one.
    /// `nonce` is printable, random, and without comma.
    pub fn with_keys(self, keys: ClientKeys, nonce: &str) -> ServerLogin {
        ServerLogin { keys: Some((keys, nonce.to_owned())), ..self }
    }

    /// The connection is encrypted, and this is the hash of the server's certificate: SCRAM binds to it, if the server
    /// can do that.
    pub fn bound_to(self, end_point: &[u8]) -> ServerLogin {
        ServerLogin { end_point: Some(end_point.into()), ..self }
    }

    /// Takes an Authentication message: its code and what follows. Gives the body of the `p` message to send, if any.
    ///
    /// `Ok(None)` for code 0: the login is done.
    pub fn on_message(&mut self, code: i32, data: &[u8]) -> Result<Option<Vec<u8>>, ServerLoginError> {
        match (code, mem::replace(&mut self.progress, Progress::Nothing)) {
            (code::OK, Progress::Nothing | Progress::Verified) => Ok(None),
            (code::CLEAR_TEXT, Progress::Nothing) => self.password().map(|password| Some(terminated(password))),
            (code::MD5, Progress::Nothing) => self.md5(data).map(|answer| Some(terminated(&answer))),
            (code::SASL, Progress::Nothing) => self.begin(data).map(Some),
            (code::SASL_CONTINUE, Progress::Begun(scram)) => self.prove(scram, data).map(Some),
            (code::SASL_FINAL, Progress::Proved(scram)) => self.verify(scram, data).map(|()| None),
            (
                code::OK | code::CLEAR_TEXT | code::MD5 | code::SASL | code::SASL_CONTINUE | code::SASL_FINAL,
                Progress::Nothing | Progress::Begun(_) | Progress::Proved(_) | Progress::Verified,
            ) => Err(ServerLoginError::Protocol),
            (code, _) => Err(ServerLoginError::Method(code)),
        }
    }

    fn password(&self) -> Result<&str, ServerLoginError> {
        match &self.secret {
            Secret::Plain(password) => Ok(password),
            Secret::None => Ok(""),
            Secret::Md5(_) | Secret::Scram(_) => Err(ServerLoginError::WrongPasswordType),
        }
    }

    fn md5(&self, salt: &[u8]) -> Result<String, ServerLoginError> {
        let salt = salt.try_into().map_err(|_| ServerLoginError::Protocol)?;
        match &self.secret {
            Secret::Md5(digits) => Ok(md5::salted(digits, salt)),
            _ => Ok(md5::salted(&md5::stored(&self.user, self.password()?), salt)),
        }
    }

    /// `data` lists mechanisms, each ended by a zero, the list by another.
    fn begin(&mut self, data: &[u8]) -> Result<Vec<u8>, ServerLoginError> {
        let offers = |name: &str| data.split(|byte| *byte == 0).any(|mechanism| mechanism == name.as_bytes());
        let (mechanism, binding) = match &self.end_point {
            Some(_) if offers(SCRAM_SHA_256_PLUS) => (SCRAM_SHA_256_PLUS, Binding::EndPoint),
            Some(_) if offers(SCRAM_SHA_256) => (SCRAM_SHA_256, Binding::NotOffered),
            None if offers(SCRAM_SHA_256) => (SCRAM_SHA_256, Binding::Unsupported),
            Some(_) | None => return Err(ServerLoginError::Mechanism),
        };
        let (begun, first) = self.first_message(binding)?;
        let length = u32::try_from(first.len()).map_err(|_| ServerLoginError::Protocol)?;
        let body = [terminated(mechanism), length.to_be_bytes().to_vec(), first].concat();
        self.progress = Progress::Begun(begun);
        Ok(body)
    }

    fn first_message(&mut self, binding: Binding) -> Result<(Begun, Vec<u8>), ServerLoginError> {
        let end_point = self.end_point.as_deref().unwrap_or_default();
        if let (Secret::Scram(_), Some((keys, nonce))) = (&self.secret, self.keys.take()) {
            let (exchange, first) = ClientExchange::start(keys, &nonce, binding, end_point);
            return Ok((Begun::Keys(exchange), first.into_bytes()));
        }
        let scram = ScramSha256::new(
            self.password()?.as_bytes(),
            match binding {
                Binding::EndPoint => ChannelBinding::tls_server_end_point(end_point.to_vec()),
                Binding::NotOffered => ChannelBinding::unrequested(),
                Binding::Unsupported => ChannelBinding::unsupported(),
            },
        );
        let first = scram.message().to_vec();
        Ok((Begun::Password(scram), first))
    }

    fn prove(&mut self, scram: Begun, data: &[u8]) -> Result<Vec<u8>, ServerLoginError> {
        let (proved, message) = match scram {
            Begun::Password(mut scram) => {
                scram.update(data)?;
                let message = scram.message().to_vec();
                (Proved::Password(scram), message)
            }
            Begun::Keys(exchange) => {
                let (proof, message) = exchange.prove(data)?;
                (Proved::Keys(proof), message.into_bytes())
            }
        };
        self.progress = Progress::Proved(proved);
        Ok(message)
    }

    fn verify(&mut self, scram: Proved, data: &[u8]) -> Result<(), ServerLoginError> {
        match scram {
            Proved::Password(mut scram) => scram.finish(data)?,
            Proved::Keys(proof) => proof.verify(data)?,
        }
        self.progress = Progress::Verified;
        Ok(())
    }
}

fn terminated(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

#[cfg(test)]
mod tests;
