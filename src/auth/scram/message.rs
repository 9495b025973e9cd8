//! The messages a client sends, taken apart.

use base64::{Engine, prelude::BASE64_STANDARD};

use super::keys::Key;

/// Why an exchange ended. The client is told the same for all: `SASL authentication failed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// Not what the RFC says; what was to come.
    #[error("malformed SCRAM message: expected {0}")]
    Malformed(&'static str),
    /// The flag `p` where there is nothing to bind to, or another kind of binding than that to the certificate.
    #[error("client requires SCRAM channel binding, but it is not supported")]
    ChannelBinding,
    /// The flag does not go with what was offered and chosen; somebody may have changed the offer.
    #[error("SCRAM channel binding negotiation error")]
    Negotiation,
    /// `a=`: to act as somebody else.
    #[error("client uses authorization identity, but it is not supported")]
    AuthorizationIdentity,
    /// `m=`: something we would have to know.
    #[error("client requires an unsupported SCRAM extension")]
    Extension,
    /// The last message is about another exchange, or another connection lies between.
    #[error("SCRAM nonce or channel binding does not match")]
    Mismatch,
    /// The client does not know the password, or there is none to know.
    #[error("password authentication failed")]
    WrongPassword,
}

/// What the client says about channel binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::auth) enum Binding {
    /// `n`: it cannot.
    Unsupported,
    /// `y`: it can, and thinks that we cannot.
    NotOffered,
    /// `p`: it binds to the server's certificate.
    EndPoint,
}

impl Binding {
    /// How the client's first message begins.
    pub(super) fn header(self) -> &'static str {
        match self {
            Binding::Unsupported => "n,,",
            Binding::NotOffered => "y,,",
            Binding::EndPoint => "p=tls-server-end-point,,",
        }
    }

    /// How its last message begins; `end_point` counts where it binds to it.
    pub(super) fn attribute(self, end_point: &[u8]) -> String {
        let bound = if self == Binding::EndPoint { end_point } else { &[] };
        format!("c={}", BASE64_STANDARD.encode([self.header().as_bytes(), bound].concat()))
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientFirst<'a> {
    pub(super) binding: Binding,
    pub(super) bare: &'a str,
    pub(super) nonce: &'a str,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientFinal<'a> {
    pub(super) without_proof: &'a str,
    pub(super) binding: &'a str,
    pub(super) nonce: &'a str,
    pub(super) proof: Key,
}

fn text(bytes: &[u8]) -> Result<&str, ScramError> {
    std::str::from_utf8(bytes).map_err(|_| ScramError::Malformed("UTF-8"))
}

/// Printable, and no comma.
fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

/// `x=…`, of any letter.
fn is_attribute(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|letter| letter.is_ascii_alphabetic()) && chars.next() == Some('=')
}

impl<'a> ClientFirst<'a> {
    /// `n,,n=user,r=nonce`; the user's name is ignored: the startup message has it.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<ClientFirst<'a>, ScramError> {
        let text = text(bytes)?;
        let (flag, rest) = text.split_once(',').ok_or(ScramError::Malformed("a channel binding flag"))?;
        let binding = match flag {
            "n" => Binding::Unsupported,
            "y" => Binding::NotOffered,
            "p=tls-server-end-point" => Binding::EndPoint,
            flag if flag.starts_with('p') => return Err(ScramError::ChannelBinding),
            _ => return Err(ScramError::Malformed("a channel binding flag")),
        };
        if rest.starts_with('a') {
            return Err(ScramError::AuthorizationIdentity);
        }
        let bare = rest.strip_prefix(',').ok_or(ScramError::Malformed("a comma"))?;
        Ok(ClientFirst { binding, bare, nonce: first_nonce(bare)? })
    }
}

fn first_nonce(bare: &str) -> Result<&str, ScramError> {
    if bare.starts_with('m') {
        return Err(ScramError::Extension);
    }
    let mut attributes = bare.split(',');
    let user = attributes.next().filter(|attribute| attribute.starts_with("n="));
    user.ok_or(ScramError::Malformed("n="))?;
    let nonce = attributes.next().and_then(|attribute| attribute.strip_prefix("r="));
    let nonce = nonce.filter(|nonce| is_nonce(nonce)).ok_or(ScramError::Malformed("r="))?;
    if !attributes.all(is_attribute) {
        return Err(ScramError::Malformed("an attribute"));
    }
    Ok(nonce)
}

impl<'a> ClientFinal<'a> {
    /// `c=biws,r=nonce,p=proof`; the proof is the last attribute.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<ClientFinal<'a>, ScramError> {
        let (without_proof, proof) = text(bytes)?.rsplit_once(",p=").ok_or(ScramError::Malformed("p="))?;
        let mut attributes = without_proof.split(',');
        let binding = attributes.next().ok_or(ScramError::Malformed("c="))?;
        let nonce = attributes.next().and_then(|attribute| attribute.strip_prefix("r="));
        if !attributes.all(is_attribute) {
            return Err(ScramError::Malformed("an attribute"));
        }
        let proof = BASE64_STANDARD.decode(proof).ok().and_then(|proof| proof.try_into().ok());
        Ok(ClientFinal {
            without_proof,
            binding,
            nonce: nonce.ok_or(ScramError::Malformed("r="))?,
            proof: proof.ok_or(ScramError::Malformed("a proof of 32 bytes"))?,
        })
    }
}
