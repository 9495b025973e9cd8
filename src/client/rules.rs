//! What a client may send at all.

use std::sync::Arc;

use super::ClientError;
use crate::{
    config::Config,
    protocol::{Header, frontend::tag},
    session::request::{Request, RequestKind, frames},
};

const PQEXEC: &str = "PQexec disallowed";

/// Asked of each request, most often in vain.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// `max_packet_size`
    most_bytes: usize,
    /// `disable_pqexec`
    forbids_simple: bool,
    /// `server_reset_query`, where `server_reset_query_always` is set.
    reset: Option<Arc<str>>,
}

impl Rules {
    pub(super) fn of(config: &Config) -> Self {
        let main = &config.pgbouncer;
        let resets = main.server_reset_query_always && !main.server_reset_query.is_empty();
        let reset = resets.then(|| main.server_reset_query.as_str().into());
        Self { most_bytes: main.max_packet_size as usize, forbids_simple: main.disable_pqexec, reset }
    }

    /// What cleans a server connection between two clients.
    pub(super) fn reset(&self) -> Option<&Arc<str>> {
        self.reset.as_ref()
    }

    /// A request that has arrived whole.
    pub(super) fn check(&self, request: Request, bytes: &[u8]) -> Result<(), ClientError> {
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
    pub(super) fn check_giant(&self, header: Header) -> Result<(), ClientError> {
        if self.forbids_simple && header.tag == tag::QUERY {
            return Err(ClientError::Refused(PQEXEC.to_owned()));
        }
        self.check_length(header.frame_bytes)
    }

    fn check_length(&self, bytes: usize) -> Result<(), ClientError> {
        if bytes > self.most_bytes {
            return Err(ClientError::Refused("bad packet header".to_owned()));
        }
        Ok(())
    }
}
