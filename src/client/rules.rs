//! What a client may send at all.

use super::ClientError;
use crate::{
    config::Config,
    protocol::{Header, frontend::tag},
    session::request::{Request, RequestKind, frames},
};

const PQEXEC: &str = "PQexec disallowed";

/// Asked of each request, most often in vain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// `max_packet_size`
    most_bytes: usize,
    /// `disable_pqexec`
    forbids_simple: bool,
}

impl Rules {
    pub(super) fn of(config: &Config) -> Self {
        let main = &config.pgbouncer;
        Self { most_bytes: main.max_packet_size as usize, forbids_simple: main.disable_pqexec }
    }

    /// A request that has arrived whole.
    pub(super) fn check(self, request: Request, bytes: &[u8]) -> Result<(), ClientError> {
        if self.forbids_simple && request.kind == RequestKind::Simple {
            return Err(ClientError::Refused(PQEXEC.to_owned()));
        }
        // A request that is short holds no long message.
        if request.bytes <= self.most_bytes {
            return Ok(());
        }
        let bytes = bytes.get(..request.bytes).unwrap_or_default();
        let longest = frames(bytes).map(<[u8]>::len).max().unwrap_or(request.bytes);
        self.check_length(longest)
    }

    /// The head of a message that is too long to be held.
    pub(super) fn check_giant(self, header: Header) -> Result<(), ClientError> {
        if self.forbids_simple && header.tag == tag::QUERY {
            return Err(ClientError::Refused(PQEXEC.to_owned()));
        }
        self.check_length(header.frame_bytes)
    }

    fn check_length(self, bytes: usize) -> Result<(), ClientError> {
        if bytes > self.most_bytes {
            return Err(ClientError::Refused("bad packet header".to_owned()));
        }
        Ok(())
    }
}
