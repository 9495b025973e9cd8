//! From the first byte of a connection to its start-up packet: who wants TLS, and who gets it.
//!
//! <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL>

use super::{ClientError, context::Settings};
use crate::{
    net::{Endpoint, Stream, tls::ALPN, tls::AcceptTls},
    protocol::startup::{self, StartupPacket},
};

/// The first byte of a TLS handshake; a start-up packet that began so would be too long by far.
const HANDSHAKE: u8 = 0x16;

/// Reads until a client says what it wants, encrypted if it asks for that or must be.
pub(super) async fn first_packet(io: &mut Endpoint, settings: &Settings) -> Result<StartupPacket, ClientError> {
    // The unix socket is exempt.
    let is_tcp = matches!(io.stream, Stream::Tcp(_));
    let tls = settings.tls.accept.as_deref().filter(|_| is_tcp);
    if let Some(tls) = tls {
        begin_at_once(io, tls).await?;
    }
    loop {
        let packet = read_startup(io).await?;
        let is_encrypted = io.stream.tls().is_some();
        // Whoever put it there could have done so without the client's knowledge (CVE-2021-3935).
        let is_followed = !io.inbox.is_empty();
        let answer = match (packet, tls) {
            (StartupPacket::SslRequest, _) if is_encrypted => {
                return Err(ClientError::Encryption("SSL req inside SSL"));
            }
            (StartupPacket::SslRequest, _) if is_followed => {
                return Err(refused("received unencrypted data after SSL request"));
            }
            (StartupPacket::GssEncRequest, _) if is_followed => {
                return Err(refused("received unencrypted data after GSSAPI encryption request"));
            }
            (StartupPacket::SslRequest, Some(_)) => b'S',
            (StartupPacket::SslRequest, None) | (StartupPacket::GssEncRequest, _) => b'N',
            (StartupPacket::Startup { .. }, Some(tls)) if tls.is_required() && !is_encrypted => {
                return Err(refused("SSL required"));
            }
            (packet, _) => return Ok(packet),
        };
        io.outbox.buffer().push(answer);
        io.flush().await.map_err(ClientError::Gone)?;
        if let (b'S', Some(tls)) = (answer, tls) {
            tls.accept(io).await.map_err(ClientError::Handshake)?;
        }
    }
}

fn refused(message: &str) -> ClientError {
    ClientError::Refused(message.to_owned())
}

/// `sslnegotiation=direct`: the handshake comes first, and names the protocol that is to follow.
async fn begin_at_once(io: &mut Endpoint, tls: &AcceptTls) -> Result<(), ClientError> {
    while io.inbox.is_empty() {
        io.read().await.map_err(ClientError::Gone)?;
    }
    if io.inbox.unread().first() != Some(&HANDSHAKE) {
        return Ok(());
    }
    tls.accept(io).await.map_err(ClientError::Handshake)?;
    if io.stream.alpn() == Some(ALPN) {
        return Ok(());
    }
    Err(refused("received direct SSL connection request without ALPN protocol negotiation extension"))
}

async fn read_startup(io: &mut Endpoint) -> Result<StartupPacket, ClientError> {
    loop {
        if let Some((packet, bytes)) = startup::decode(io.inbox.unread())? {
            io.inbox.skip(bytes, &mut Default::default());
            return Ok(packet);
        }
        io.read().await.map_err(ClientError::Gone)?;
    }
}
