//! Groups a client's messages into requests.
//!
//! An extended request runs from its first message to `Sync` or `Flush`: a batch is routed as a whole and never split
//! over two servers. What is longer than the limit is handed on in pieces, because nobody may make us hold it.

use crate::protocol::{FrameError, Header, frame, frontend, frontend::tag};

/// Bytes of one request that are held so that it can be understood as a whole.
pub const REQUEST_LIMIT_BYTES: usize = 1024 * 1024;

/// What ended a group of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// One `Query`.
    Simple,
    /// Extended messages that end with `Sync`.
    Sync,
    /// Extended messages that end with `Flush`.
    Flush,
    /// Extended messages without an end: another kind of message follows, or the limit is reached.
    Open,
    /// One `FunctionCall`.
    FunctionCall,
    /// One message of COPY.
    Copy,
    /// The client says goodbye.
    Terminate,
}

/// A group of whole messages at the front of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What it is.
    pub kind: RequestKind,
    /// Its length.
    pub bytes: usize,
}

/// What stands at the front of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// A whole request.
    Whole(Request),
    /// One message longer than the limit; it has not arrived whole.
    Giant(Header),
    /// More is needed.
    Partial,
}

/// Looks for a request. `scanned` remembers, between calls on a growing buffer, how far it has been looked at.
///
/// # Errors
/// Bytes that no client may send.
pub fn scan(buffer: &[u8], scanned: &mut usize) -> Result<Scan, FrameError> {
    loop {
        let rest = buffer.get(*scanned..).unwrap_or_default();
        let Some(header) = frame::header(rest)? else {
            return Ok(Scan::Partial);
        };
        if !frontend::is_known(header.tag) {
            return Err(FrameError::UnknownTag(header.tag));
        }
        let is_extended = is_extended(header.tag);
        if *scanned > 0 && !is_extended {
            return Ok(whole(scanned, 0, RequestKind::Open));
        }
        if rest.len() < header.frame_bytes {
            return Ok(match (header.frame_bytes > REQUEST_LIMIT_BYTES, *scanned) {
                (true, 0) => Scan::Giant(header),
                (true, _) => whole(scanned, 0, RequestKind::Open),
                (false, _) => Scan::Partial,
            });
        }
        let kind = match header.tag {
            tag::QUERY => RequestKind::Simple,
            tag::SYNC => RequestKind::Sync,
            tag::FLUSH => RequestKind::Flush,
            tag::FUNCTION_CALL => RequestKind::FunctionCall,
            tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL => RequestKind::Copy,
            tag::TERMINATE => RequestKind::Terminate,
            _ if *scanned + header.frame_bytes > REQUEST_LIMIT_BYTES => RequestKind::Open,
            _ => {
                *scanned += header.frame_bytes;
                continue;
            }
        };
        return Ok(whole(scanned, header.frame_bytes, kind));
    }
}

fn is_extended(tag: u8) -> bool {
    matches!(tag, tag::PARSE | tag::BIND | tag::DESCRIBE | tag::EXECUTE | tag::CLOSE | tag::SYNC | tag::FLUSH)
}

fn whole(scanned: &mut usize, more: usize, kind: RequestKind) -> Scan {
    let bytes = *scanned + more;
    *scanned = 0;
    Scan::Whole(Request { kind, bytes })
}

/// The frames of a request, in order.
pub fn frames(request: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = request;
    std::iter::from_fn(move || {
        let header = frame::header(rest).ok().flatten()?;
        let (frame, tail) = rest.split_at_checked(header.frame_bytes)?;
        rest = tail;
        Some(frame)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(tags: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for tag in tags {
            frame::put(&mut bytes, *tag, |body| body.push(0));
        }
        bytes
    }

    /// The only place that calls `scan`.
    #[track_caller]
    fn check(buffer: &[u8], expected: Result<Scan, FrameError>) {
        assert_eq!(scan(buffer, &mut 0), expected);
    }

    #[test]
    fn a_simple_query_is_a_request() {
        check(&batch(b"QQ"), Ok(Scan::Whole(Request { kind: RequestKind::Simple, bytes: 6 })));
    }

    #[test]
    fn an_extended_request_runs_to_its_sync() {
        check(&batch(b"PBDESP"), Ok(Scan::Whole(Request { kind: RequestKind::Sync, bytes: 30 })));
    }

    #[test]
    fn an_extended_request_runs_to_its_flush() {
        check(&batch(b"PDH"), Ok(Scan::Whole(Request { kind: RequestKind::Flush, bytes: 18 })));
    }

    #[test]
    fn a_query_inside_an_extended_request_ends_it() {
        check(&batch(b"PBQ"), Ok(Scan::Whole(Request { kind: RequestKind::Open, bytes: 12 })));
    }

    #[test]
    fn a_request_cut_anywhere_waits_for_more_and_is_not_scanned_twice() {
        let bytes = batch(b"PBES");
        let mut scanned = 0;
        for cut in 0..bytes.len() {
            assert_eq!(scan(&bytes[..cut], &mut scanned), Ok(Scan::Partial));
        }
        assert_eq!(scanned, 18);
        assert_eq!(scan(&bytes, &mut scanned), Ok(Scan::Whole(Request { kind: RequestKind::Sync, bytes: 24 })));
    }

    #[test]
    fn a_message_beyond_the_limit_is_announced_before_it_is_held() {
        let header = [b'B', 0x10, 0, 0, 0];
        check(&header, Ok(Scan::Giant(Header { tag: b'B', frame_bytes: 0x1000_0001 })));
        let behind = [&batch(b"P")[..], &header].concat();
        check(&behind, Ok(Scan::Whole(Request { kind: RequestKind::Open, bytes: 6 })));
    }

    #[test]
    fn an_unknown_message_is_refused() {
        check(b"!\0\0\0\x04", Err(FrameError::UnknownTag(b'!')));
    }
}
