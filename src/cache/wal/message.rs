//! Messages inside CopyData of a replication connection.
//!
//! <https://www.postgresql.org/docs/current/protocol-replication.html>

use super::DecodeError;
use crate::{lsn::Lsn, protocol::frame};

/// So much of a message is looked at; the rest of it are rows, which nobody needs.
pub const HEAD_BYTES: usize = 64 * 1024;

/// XLogData: where its payload begins. Two positions and a time of the server stand in front.
const DATA_HEADER_BYTES: usize = 25;
/// Microseconds between the epochs of Unix and of PostgreSQL do not matter: the server only shows our time.
const NO_TIME: u64 = 0;

/// What the server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A message of the output plugin. Its positions are those of changes, not of commits.
    Data(&'a [u8]),
    /// All commits that end up to there have been told.
    Keepalive {
        /// Up to there.
        end: Lsn,
        /// An answer is wanted at once.
        reply: bool,
    },
}

impl<'a> Message<'a> {
    /// `head` is at least the first [`HEAD_BYTES`] of the message, or all of it.
    ///
    /// # Errors
    /// It is none.
    pub fn read(head: &'a [u8]) -> Result<Self, DecodeError> {
        let (tag, rest) = head.split_first().ok_or(DecodeError::Truncated)?;
        match tag {
            b'w' => head.get(DATA_HEADER_BYTES..).map(Self::Data).ok_or(DecodeError::Truncated),
            b'k' => {
                let (end, rest) = rest.split_first_chunk::<8>().ok_or(DecodeError::Truncated)?;
                let reply = rest.get(8).ok_or(DecodeError::Truncated)?;
                Ok(Self::Keepalive { end: Lsn::new(u64::from_be_bytes(*end)), reply: *reply != 0 })
            }
            other => Err(DecodeError::Unknown(*other)),
        }
    }
}

/// CopyData with a standby status update: everything up to `position` may be forgotten. `reply`: an answer is wanted.
pub fn put_status(out: &mut Vec<u8>, position: Lsn, reply: bool) {
    frame::put(out, b'd', |body| {
        body.push(b'r');
        for _ in ["written", "flushed", "applied"] {
            body.extend_from_slice(&position.get().to_be_bytes());
        }
        body.extend_from_slice(&NO_TIME.to_be_bytes());
        body.push(u8::from(reply));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(payload: &[u8]) -> Vec<u8> {
        [&b"w"[..], &[1; 8], &[2; 8], &[3; 8], payload].concat()
    }

    fn keepalive(end: u64, reply: u8) -> Vec<u8> {
        [&b"k"[..], &end.to_be_bytes(), &[7; 8], &[reply]].concat()
    }

    #[test]
    fn data_and_keepalives_are_told_apart() {
        assert_eq!(Message::read(&data(b"Cx")), Ok(Message::Data(b"Cx")));
        assert_eq!(Message::read(&data(b"")), Ok(Message::Data(b"")));
        let expected = |reply| Ok(Message::Keepalive { end: Lsn::new(0x1_0000_0007), reply });
        assert_eq!(Message::read(&keepalive(0x1_0000_0007, 0)), expected(false));
        assert_eq!(Message::read(&keepalive(0x1_0000_0007, 1)), expected(true));
    }

    #[test]
    fn what_is_cut_off_or_unknown_is_an_error() {
        for length in 0..18 {
            let whole = keepalive(1, 1);
            assert_eq!(Message::read(&whole[..length]), Err(DecodeError::Truncated), "{length}");
        }
        assert_eq!(Message::read(&data(b"")[..24]), Err(DecodeError::Truncated));
        assert_eq!(Message::read(b"zzz"), Err(DecodeError::Unknown(b'z')));
    }

    #[test]
    fn a_status_says_one_position_three_times() {
        let mut out = Vec::new();
        put_status(&mut out, Lsn::new(0x0102), true);
        let position = [0, 0, 0, 0, 0, 0, 1, 2];
        let body = [&b"r"[..], &position, &position, &position, &[0; 8], &[1]].concat();
        assert_eq!(out, [&b"d\0\0\0\x26"[..], &body].concat());
    }
}
