//! Messages that a server sends.
//!
//! What is sent once per login is encoded by `pgwire`; what lies on the path of a query is written here.

use bytes::BytesMut;
use pgwire::messages::{
    Message,
    response::{CommandComplete, NotificationResponse},
    startup::Authentication,
};

use super::{
    TransactionStatus,
    frame::{Fields, put},
};

/// Message type bytes of the backend.
pub mod tag {
    #![allow(missing_docs, reason = "the names are the protocol's")]
    pub const AUTHENTICATION: u8 = b'R';
    pub const BACKEND_KEY_DATA: u8 = b'K';
    pub const BIND_COMPLETE: u8 = b'2';
    pub const CLOSE_COMPLETE: u8 = b'3';
    pub const COMMAND_COMPLETE: u8 = b'C';
    pub const COPY_BOTH_RESPONSE: u8 = b'W';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_IN_RESPONSE: u8 = b'G';
    pub const COPY_OUT_RESPONSE: u8 = b'H';
    pub const DATA_ROW: u8 = b'D';
    pub const EMPTY_QUERY_RESPONSE: u8 = b'I';
    pub const ERROR_RESPONSE: u8 = b'E';
    pub const FUNCTION_CALL_RESPONSE: u8 = b'V';
    pub const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    pub const NO_DATA: u8 = b'n';
    pub const NOTICE_RESPONSE: u8 = b'N';
    pub const NOTIFICATION_RESPONSE: u8 = b'A';
    pub const PARAMETER_DESCRIPTION: u8 = b't';
    pub const PARAMETER_STATUS: u8 = b'S';
    pub const PARSE_COMPLETE: u8 = b'1';
    pub const PORTAL_SUSPENDED: u8 = b's';
    pub const READY_FOR_QUERY: u8 = b'Z';
    pub const ROW_DESCRIPTION: u8 = b'T';
}

/// A whole `ParseComplete`.
pub const PARSE_COMPLETE: &[u8] = b"1\0\0\0\x04";
/// A whole `BindComplete`.
pub const BIND_COMPLETE: &[u8] = b"2\0\0\0\x04";
/// A whole `CloseComplete`.
pub const CLOSE_COMPLETE: &[u8] = b"3\0\0\0\x04";
/// A whole `NoData`.
pub const NO_DATA: &[u8] = b"n\0\0\0\x04";
/// A whole `ParameterDescription` of no parameters.
pub const NO_PARAMETERS: &[u8] = b"t\0\0\0\x06\0\0";
/// A whole `EmptyQueryResponse`.
pub const EMPTY_QUERY_RESPONSE: &[u8] = b"I\0\0\0\x04";

/// A whole `ReadyForQuery`.
#[must_use]
pub fn ready_for_query(status: TransactionStatus) -> &'static [u8] {
    match status {
        TransactionStatus::Idle => b"Z\0\0\0\x05I",
        TransactionStatus::InTransaction => b"Z\0\0\0\x05T",
        TransactionStatus::Failed => b"Z\0\0\0\x05E",
    }
}

/// Appends a message that `pgwire` encodes.
pub fn put_message(buffer: &mut Vec<u8>, message: &impl Message) {
    let mut bytes = BytesMut::new();
    if message.encode(&mut bytes).is_ok() {
        buffer.extend_from_slice(&bytes);
    }
}

/// `AuthenticationOk`
pub const AUTHENTICATION_OK: &[u8] = b"R\0\0\0\x08\0\0\0\0";

/// Appends an `Authentication…` message.
pub fn put_authentication(buffer: &mut Vec<u8>, message: &Authentication) {
    put_message(buffer, message);
}

/// Appends `ParameterStatus`.
pub fn put_parameter_status(buffer: &mut Vec<u8>, name: &str, value: &str) {
    put(buffer, tag::PARAMETER_STATUS, |body| {
        for text in [name, value] {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
    });
}

/// Appends `BackendKeyData` of protocol 3.0.
pub fn put_backend_key_data(buffer: &mut Vec<u8>, pid: i32, key: i32) {
    put(buffer, tag::BACKEND_KEY_DATA, |body| {
        body.extend_from_slice(&pid.to_be_bytes());
        body.extend_from_slice(&key.to_be_bytes());
    });
}

/// Appends `CommandComplete`.
pub fn put_command_complete(buffer: &mut Vec<u8>, command_tag: &str) {
    put_message(buffer, &CommandComplete::new(command_tag.to_owned()));
}

/// Appends `NotificationResponse`.
pub fn put_notification(buffer: &mut Vec<u8>, pid: i32, channel: &str, payload: &str) {
    put_message(buffer, &NotificationResponse::new(pid, channel.to_owned(), payload.to_owned()));
}

/// Appends the `RowDescription` of one text column.
pub fn put_text_description(buffer: &mut Vec<u8>, name: &str) {
    const TEXT: u32 = 25;
    put(buffer, tag::ROW_DESCRIPTION, |body| {
        body.extend_from_slice(&1_u16.to_be_bytes());
        body.extend(name.bytes().filter(|byte| *byte != 0));
        body.extend_from_slice(&[0; 1 + 4 + 2]);
        body.extend_from_slice(&TEXT.to_be_bytes());
        body.extend_from_slice(&(-1_i16).to_be_bytes());
        body.extend_from_slice(&(-1_i32).to_be_bytes());
        body.extend_from_slice(&[0; 2]);
    });
}

/// Appends one `DataRow` of text columns.
pub fn put_data_row(buffer: &mut Vec<u8>, columns: &[Option<&str>]) {
    put(buffer, tag::DATA_ROW, |body| {
        body.extend_from_slice(&(columns.len() as u16).to_be_bytes());
        for column in columns {
            match column {
                None => body.extend_from_slice(&(-1_i32).to_be_bytes()),
                Some(text) => {
                    body.extend_from_slice(&(text.len() as i32).to_be_bytes());
                    body.extend_from_slice(text.as_bytes());
                }
            }
        }
    });
}

/// The columns of a `DataRow` frame; `None` where NULL. Stops at the first lie.
pub fn columns(frame: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut fields = Fields::of(frame);
    let count = fields.u16().unwrap_or(0);
    (0..count).map_while(move |_| match fields.i32().ok()? {
        -1 => Some(None),
        bytes => fields.bytes(usize::try_from(bytes).ok()?).ok().map(Some),
    })
}

/// The status in a `ReadyForQuery` frame.
#[must_use]
pub fn transaction_status(frame: &[u8]) -> Option<TransactionStatus> {
    TransactionStatus::from_byte(Fields::of(frame).byte().ok()?)
}

/// Name and value of a `ParameterStatus` frame.
#[must_use]
pub fn parameter_status(frame: &[u8]) -> Option<(&str, &str)> {
    let mut fields = Fields::of(frame);
    let name = std::str::from_utf8(fields.cstr().ok()?).ok()?;
    Some((name, std::str::from_utf8(fields.cstr().ok()?).ok()?))
}

/// The tag text of a `CommandComplete` frame.
#[must_use]
pub fn command_tag(frame: &[u8]) -> &[u8] {
    Fields::of(frame).cstr().unwrap_or_default()
}

/// Table OIDs of the columns of a `RowDescription` frame; 0 where a column is no table's.
pub fn table_oids(frame: &[u8]) -> impl Iterator<Item = u32> {
    let mut fields = Fields::of(frame);
    let count = fields.u16().unwrap_or(0);
    (0..count).map_while(move |_| {
        fields.cstr().ok()?;
        let oid = fields.i32().ok()?;
        fields.bytes(14).ok()?;
        Some(oid as u32)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_row_reads_back_with_its_nulls() {
        let mut buffer = Vec::new();
        put_data_row(&mut buffer, &[Some("a"), None, Some("")]);
        let read: Vec<_> = columns(&buffer).collect();
        assert_eq!(read, [Some(&b"a"[..]), None, Some(&b""[..])]);
    }

    #[test]
    fn a_data_row_that_lies_about_a_length_ends_there() {
        let frame = b"D\0\0\0\x0b\0\x01\0\0\0\x7fa";
        assert_eq!(columns(frame).count(), 0);
    }

    #[test]
    fn a_parameter_status_reads_back() {
        let mut buffer = Vec::new();
        put_parameter_status(&mut buffer, "TimeZone", "UTC");
        assert_eq!(parameter_status(&buffer), Some(("TimeZone", "UTC")));
    }

    #[test]
    fn a_status_byte_that_postgresql_does_not_know_is_none() {
        assert_eq!(transaction_status(b"Z\0\0\0\x05X"), None);
        assert_eq!(transaction_status(ready_for_query(TransactionStatus::Failed)), Some(TransactionStatus::Failed));
    }
}
