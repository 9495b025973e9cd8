//! The untagged messages that open a connection.
//!
//! <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>

use super::frame::put;

const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
/// Asks a server for TLS.
pub const SSL_REQUEST_BYTES: [u8; 8] = *b"\0\0\0\x08\x04\xd2\x16\x2f";
const GSSENC_REQUEST: u32 = 80_877_104;
/// Longest start-up packet that PostgreSQL reads.
pub const MAX_STARTUP_BYTES: usize = 10_000;
/// Length and code.
const MIN_STARTUP_BYTES: usize = 8;
/// Protocol 3.2 keys have up to 256 bytes.
const MAX_CANCEL_KEY_BYTES: usize = 256;

/// Bytes that open no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartupError {
    /// The length is outside of what PostgreSQL accepts.
    #[error("start-up packet of {0} bytes")]
    BadLength(u32),
    /// Another major version than 3.
    #[error("protocol version {0}.{1} is not supported")]
    UnsupportedProtocol(u16, u16),
    /// The parameters do not end where the packet does, or are no UTF-8 text.
    #[error("start-up packet is malformed")]
    Malformed,
}

/// The first thing that a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartupPacket {
    /// Asks for TLS.
    SslRequest,
    /// Asks for GSSAPI encryption.
    GssEncRequest,
    /// Asks to cancel what another connection runs.
    CancelRequest {
        /// From `BackendKeyData`.
        pid: u32,
        /// From `BackendKeyData`.
        key: Vec<u8>,
    },
    /// Asks for a session.
    Startup {
        /// The 0 of protocol 3.0.
        minor: u16,
        /// Names and values in the order in which they came.
        parameters: Vec<(String, String)>,
    },
}

/// Reads one start-up packet: the packet and how many bytes it took; `None` while it has not arrived whole.
///
/// # Errors
/// Bytes that no PostgreSQL client sends.
pub fn decode(buffer: &[u8]) -> Result<Option<(StartupPacket, usize)>, StartupError> {
    let Some(length) = buffer.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length);
    let bytes = length as usize;
    if !(MIN_STARTUP_BYTES..=MAX_STARTUP_BYTES).contains(&bytes) {
        return Err(StartupError::BadLength(length));
    }
    let Some(packet) = buffer.get(4..bytes) else {
        return Ok(None);
    };
    let (code, rest) = packet.split_first_chunk::<4>().ok_or(StartupError::Malformed)?;
    let packet = match (u32::from_be_bytes(*code), rest) {
        (SSL_REQUEST, []) => StartupPacket::SslRequest,
        (GSSENC_REQUEST, []) => StartupPacket::GssEncRequest,
        (CANCEL_REQUEST, rest) => cancel_request(rest)?,
        (version, rest) => startup(version, rest)?,
    };
    Ok(Some((packet, bytes)))
}

fn cancel_request(rest: &[u8]) -> Result<StartupPacket, StartupError> {
    let (pid, key) = rest.split_first_chunk::<4>().ok_or(StartupError::Malformed)?;
    if key.is_empty() || key.len() > MAX_CANCEL_KEY_BYTES {
        return Err(StartupError::Malformed);
    }
    Ok(StartupPacket::CancelRequest { pid: u32::from_be_bytes(*pid), key: key.to_vec() })
}

fn startup(version: u32, mut rest: &[u8]) -> Result<StartupPacket, StartupError> {
    let (major, minor) = ((version >> 16) as u16, version as u16);
    if major != 3 {
        return Err(StartupError::UnsupportedProtocol(major, minor));
    }
    let mut parameters = Vec::new();
    loop {
        let name = take_cstr(&mut rest)?;
        if name.is_empty() {
            break;
        }
        parameters.push((name, take_cstr(&mut rest)?));
    }
    if !rest.is_empty() {
        return Err(StartupError::Malformed);
    }
    Ok(StartupPacket::Startup { minor, parameters })
}

fn take_cstr(rest: &mut &[u8]) -> Result<String, StartupError> {
    let end = memchr::memchr(0, rest).ok_or(StartupError::Malformed)?;
    let (text, tail) = rest.split_at_checked(end).ok_or(StartupError::Malformed)?;
    *rest = tail.get(1..).unwrap_or_default();
    String::from_utf8(text.to_vec()).map_err(|_| StartupError::Malformed)
}

/// Appends a `StartupMessage` of protocol 3.0.
pub fn put_startup(buffer: &mut Vec<u8>, parameters: &[(&str, &str)]) {
    let at = buffer.len();
    buffer.extend_from_slice(&[0; 4]);
    buffer.extend_from_slice(&0x0003_0000_u32.to_be_bytes());
    for text in parameters.iter().flat_map(|(name, value)| [name, value]) {
        buffer.extend_from_slice(text.as_bytes());
        buffer.push(0);
    }
    buffer.push(0);
    let length = (buffer.len() - at) as u32;
    if let Some(field) = buffer.get_mut(at..at + 4) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

/// A `CancelRequest`.
#[must_use]
pub fn cancel_request_bytes(pid: u32, key: &[u8]) -> Vec<u8> {
    let mut bytes = ((12 + key.len()) as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(&CANCEL_REQUEST.to_be_bytes());
    bytes.extend_from_slice(&pid.to_be_bytes());
    bytes.extend_from_slice(key);
    bytes
}

/// Appends `NegotiateProtocolVersion`: 3.0 is what is spoken, and these options are not known.
pub fn put_negotiate(buffer: &mut Vec<u8>, unknown_options: &[&str]) {
    put(buffer, b'v', |body| {
        body.extend_from_slice(&0x0003_0000_u32.to_be_bytes());
        body.extend_from_slice(&(unknown_options.len() as u32).to_be_bytes());
        for option in unknown_options {
            body.extend_from_slice(option.as_bytes());
            body.push(0);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(parameters: &[(&str, &str)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_startup(&mut bytes, parameters);
        bytes
    }

    #[test]
    fn a_startup_message_reads_back() {
        let bytes = packet(&[("user", "a"), ("database", "b")]);
        let parameters = vec![("user".into(), "a".into()), ("database".into(), "b".into())];
        assert_eq!(decode(&bytes), Ok(Some((StartupPacket::Startup { minor: 0, parameters }, bytes.len()))));
    }

    #[test]
    fn a_packet_cut_anywhere_waits_for_more() {
        let bytes = packet(&[("user", "a")]);
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), Ok(None));
        }
    }

    #[test]
    fn lengths_that_postgresql_refuses_are_refused_before_anything_is_read() {
        for length in [0_u32, 7, 10_001, u32::MAX] {
            assert_eq!(decode(&length.to_be_bytes()), Err(StartupError::BadLength(length)));
        }
    }

    #[test]
    fn protocol_two_is_refused_by_its_version() {
        let bytes = [0, 0, 0, 8, 0, 2, 0, 0];
        assert_eq!(decode(&bytes), Err(StartupError::UnsupportedProtocol(2, 0)));
    }

    #[test]
    fn a_newer_minor_version_is_read_for_negotiation() {
        let bytes = [0, 0, 0, 9, 0, 3, 0x27, 0x0f, 0];
        assert_eq!(decode(&bytes), Ok(Some((StartupPacket::Startup { minor: 9999, parameters: vec![] }, 9))));
    }

    #[test]
    fn a_cancel_request_reads_back_with_a_key_of_any_length() {
        for bytes in [4, 32, 256] {
            let key = vec![7; bytes];
            let request = cancel_request_bytes(9, &key);
            let expected = StartupPacket::CancelRequest { pid: 9, key };
            assert_eq!(decode(&request), Ok(Some((expected, request.len()))));
        }
    }
}
