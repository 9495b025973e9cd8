//! Messages that a client sends.

use super::frame::{Fields, FrameError, put};

/// Message type bytes of the frontend.
pub mod tag {
    #![allow(missing_docs, reason = "the names are the protocol's")]
    pub const BIND: u8 = b'B';
    pub const CLOSE: u8 = b'C';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_FAIL: u8 = b'f';
    pub const DESCRIBE: u8 = b'D';
    pub const EXECUTE: u8 = b'E';
    pub const FLUSH: u8 = b'H';
    pub const FUNCTION_CALL: u8 = b'F';
    pub const PARSE: u8 = b'P';
    pub const PASSWORD: u8 = b'p';
    pub const QUERY: u8 = b'Q';
    pub const SYNC: u8 = b'S';
    pub const TERMINATE: u8 = b'X';
}

/// Is this a message that a logged-in client may send?
#[must_use]
pub fn is_known(tag: u8) -> bool {
    matches!(
        tag,
        tag::BIND
            | tag::CLOSE
            | tag::COPY_DATA
            | tag::COPY_DONE
            | tag::COPY_FAIL
            | tag::DESCRIBE
            | tag::EXECUTE
            | tag::FLUSH
            | tag::FUNCTION_CALL
            | tag::PARSE
            | tag::QUERY
            | tag::SYNC
            | tag::TERMINATE
    )
}

/// A statement or a portal: what Describe and Close name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// `S`
    Statement,
    /// `P`
    Portal,
}

/// Two strings and what follows them.
type Three<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// `Parse`: statement name, query text, the type OIDs as bytes (count included).
///
/// # Errors
/// A message cut short.
pub fn parse(frame: &[u8]) -> Result<Three<'_>, FrameError> {
    let mut fields = Fields::of(frame);
    let name = fields.cstr()?;
    let text = fields.cstr()?;
    let types = fields.rest();
    let count = fields.u16()?;
    fields.bytes(usize::from(count) * 4)?;
    Ok((name, text, types))
}

/// `Bind`: portal name, statement name, everything after them. `frame` may be cut behind the names.
///
/// # Errors
/// A message cut short.
pub fn bind(frame: &[u8]) -> Result<Three<'_>, FrameError> {
    let mut fields = Fields::of(frame);
    let portal = fields.cstr()?;
    let statement = fields.cstr()?;
    Ok((portal, statement, fields.rest()))
}

/// The parameter values of a `Bind`, given everything behind its two names; `None` where NULL. Stops at the first lie.
pub fn parameters(rest: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut fields = Fields { tag: tag::BIND, rest };
    let formats = fields.u16().unwrap_or(0);
    let count = fields.bytes(usize::from(formats) * 2).and_then(|_| fields.u16()).unwrap_or(0);
    (0..count).map_while(move |_| match fields.i32().ok()? {
        -1 => Some(None),
        bytes => fields.bytes(usize::try_from(bytes).ok()?).ok().map(Some),
    })
}

/// Is the parameter of that number, counted from 0, in binary format? Given everything behind the two names of a `Bind`;
/// `None` for a format that there is none of.
pub fn is_binary(rest: &[u8], number: u16) -> Option<bool> {
    let mut fields = Fields { tag: tag::BIND, rest };
    let formats = fields.u16().ok()?;
    let list = fields.bytes(usize::from(formats) * 2).ok()?;
    let at = match formats {
        0 => return Some(false),
        1 => 0,
        _ => usize::from(number),
    };
    match list.as_chunks::<2>().0.get(at)? {
        [0, 0] => Some(false),
        [0, 1] => Some(true),
        _ => None,
    }
}

/// `Describe` or `Close`: what is named, and its name.
///
/// # Errors
/// A message cut short, or neither `S` nor `P`.
pub fn target(frame: &[u8]) -> Result<(Target, &[u8]), FrameError> {
    let mut fields = Fields::of(frame);
    let kind = match fields.byte()? {
        b'S' => Target::Statement,
        b'P' => Target::Portal,
        other => return Err(FrameError::UnknownTag(other)),
    };
    Ok((kind, fields.cstr()?))
}

/// `Execute`: portal name and row limit (0: no limit).
///
/// # Errors
/// A message cut short.
pub fn execute(frame: &[u8]) -> Result<(&[u8], i32), FrameError> {
    let mut fields = Fields::of(frame);
    Ok((fields.cstr()?, fields.i32()?))
}

/// `Query`: its text.
///
/// # Errors
/// A message cut short.
pub fn query(frame: &[u8]) -> Result<&[u8], FrameError> {
    Fields::of(frame).cstr()
}

/// Appends `Query`.
pub fn put_query(buffer: &mut Vec<u8>, text: &str) {
    put(buffer, tag::QUERY, |body| put_cstr(body, text.as_bytes()));
}

/// Appends `Parse`; `types` holds the count and the OIDs as they came.
pub fn put_parse(buffer: &mut Vec<u8>, name: &[u8], text: &[u8], types: &[u8]) {
    put(buffer, tag::PARSE, |body| {
        put_cstr(body, name);
        put_cstr(body, text);
        body.extend_from_slice(types);
    });
}

/// Appends `Bind`; `rest` is everything behind the two names.
pub fn put_bind(buffer: &mut Vec<u8>, portal: &[u8], statement: &[u8], rest: &[u8]) {
    put(buffer, tag::BIND, |body| {
        put_cstr(body, portal);
        put_cstr(body, statement);
        body.extend_from_slice(rest);
    });
}

/// Appends the start of a `Bind` whose last `to_come` bytes will be passed on as they arrive.
pub fn put_bind_head(buffer: &mut Vec<u8>, portal: &[u8], statement: &[u8], to_come: usize) {
    let length = 4 + portal.len() + 1 + statement.len() + 1 + to_come;
    buffer.push(tag::BIND);
    buffer.extend_from_slice(&(length as u32).to_be_bytes());
    put_cstr(buffer, portal);
    put_cstr(buffer, statement);
}

/// A `Bind` without parameters whose results come as text.
pub fn put_bind_plain(buffer: &mut Vec<u8>, portal: &[u8], statement: &[u8]) {
    put_bind(buffer, portal, statement, &[0; 6]);
}

/// Appends `Describe`.
pub fn put_describe(buffer: &mut Vec<u8>, target: Target, name: &[u8]) {
    put_target(buffer, tag::DESCRIBE, target, name);
}

/// Appends `Close`.
pub fn put_close(buffer: &mut Vec<u8>, target: Target, name: &[u8]) {
    put_target(buffer, tag::CLOSE, target, name);
}

fn put_target(buffer: &mut Vec<u8>, tag: u8, target: Target, name: &[u8]) {
    put(buffer, tag, |body| {
        body.push(match target {
            Target::Statement => b'S',
            Target::Portal => b'P',
        });
        put_cstr(body, name);
    });
}

/// Appends `Execute` without a row limit.
pub fn put_execute(buffer: &mut Vec<u8>, portal: &[u8]) {
    put(buffer, tag::EXECUTE, |body| {
        put_cstr(body, portal);
        body.extend_from_slice(&[0; 4]);
    });
}

/// Appends `Sync`.
pub fn put_sync(buffer: &mut Vec<u8>) {
    put(buffer, tag::SYNC, |_| {});
}

/// Appends `Terminate`.
pub fn put_terminate(buffer: &mut Vec<u8>) {
    put(buffer, tag::TERMINATE, |_| {});
}

/// Appends a password or SASL message.
pub fn put_password(buffer: &mut Vec<u8>, answer: &[u8]) {
    put(buffer, tag::PASSWORD, |body| body.extend_from_slice(answer));
}

fn put_cstr(buffer: &mut Vec<u8>, text: &[u8]) {
    buffer.extend_from_slice(text);
    buffer.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parse_reads_back() {
        let mut buffer = Vec::new();
        put_parse(&mut buffer, b"s1", b"select $1", &[0, 1, 0, 0, 0, 23]);
        assert_eq!(parse(&buffer), Ok((&b"s1"[..], &b"select $1"[..], &[0, 1, 0, 0, 0, 23][..])));
    }

    #[test]
    fn a_parse_whose_type_count_lies_is_refused() {
        let mut buffer = Vec::new();
        put_parse(&mut buffer, b"s1", b"select $1", &[0, 9]);
        assert_eq!(parse(&buffer), Err(FrameError::Truncated(tag::PARSE)));
    }

    #[test]
    fn a_bind_head_and_its_tail_make_the_same_frame_as_a_bind() {
        let (mut whole, mut parts) = (Vec::new(), Vec::new());
        put_bind(&mut whole, b"", b"s", &[0; 6]);
        put_bind_head(&mut parts, b"", b"s", 6);
        parts.extend_from_slice(&[0; 6]);
        assert_eq!(whole, parts);
    }

    #[test]
    fn a_describe_of_something_unknown_is_refused() {
        assert!(target(b"D\0\0\0\x06Xa\0").is_err());
    }
}
