//! Positions in the write-ahead log.

use std::{fmt, str::FromStr};

/// Byte offset in the WAL stream, printed by PostgreSQL as `16/B374D848`.
///
/// <https://www.postgresql.org/docs/current/datatype-pg-lsn.html>
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(u64);

/// How the log of one server is cut into pages and files.
///
/// The default is safe for a server nobody has asked: 1 GiB is the largest segment there is, so what
/// it calls the start of a segment is one for every server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalGeometry {
    /// `SHOW wal_block_size`.
    pub page_bytes: u64,
    /// `SHOW wal_segment_size`.
    pub segment_bytes: u64,
}

impl Default for WalGeometry {
    fn default() -> Self {
        Self { page_bytes: 8192, segment_bytes: 1 << 30 }
    }
}

/// `SizeOfXLogShortPHD`: the header of every page but the first of a segment.
const SHORT_PAGE_HEADER_BYTES: u64 = 24;
/// `SizeOfXLogLongPHD`: the header of the first page of a segment.
const LONG_PAGE_HEADER_BYTES: u64 = 40;

/// Text that is no `pg_lsn`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a WAL position: {0:?}")]
pub struct ParseLsnError(String);

impl Lsn {
    /// The position `offset` bytes into the stream; 0 is what PostgreSQL calls invalid.
    pub const fn new(offset: u64) -> Self {
        Self(offset)
    }

    /// The byte offset.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The end of the last record, when `self` is an insert position.
    ///
    /// `pg_current_wal_insert_lsn()` points behind the header of the next page when the log ends at
    /// a page boundary, and a standby that replayed everything reports the boundary itself; without
    /// this an idle standby looks 24 bytes short for ever.
    pub fn end_of_last_record(self, geometry: WalGeometry) -> Self {
        let in_segment = self.0.checked_rem(geometry.segment_bytes);
        let in_page = self.0.checked_rem(geometry.page_bytes);
        let header = if in_segment == Some(LONG_PAGE_HEADER_BYTES) {
            LONG_PAGE_HEADER_BYTES
        } else if in_page == Some(SHORT_PAGE_HEADER_BYTES) {
            SHORT_PAGE_HEADER_BYTES
        } else {
            0
        };
        Self(self.0 - header)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let half = |digits: &str| {
            let plain = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Self(half(high)? << 32 | half(low)?)))
            .ok_or_else(|| ParseLsnError(text.chars().take(32).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_and_prints_as_postgresql_prints_it() {
        for text in ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF", "0/1000018"] {
            assert_eq!(text.parse::<Lsn>().unwrap().to_string(), text);
        }
        assert_eq!("16/b374d848".parse(), Ok(Lsn::new(0x16_B374_D848)));
    }

    #[test]
    fn text_that_is_no_position_is_refused() {
        for text in ["", "/", "1", "1/", "/1", "1/2/3", "+1/2", "1/-2", "1/123456789", "g/0", " 1/2"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_insert_position_behind_a_page_header_falls_back_to_the_end_of_the_record() {
        let check = |insert: u64, expected: u64, geometry| {
            assert_eq!(Lsn::new(insert).end_of_last_record(geometry), Lsn::new(expected));
        };
        let geometry = WalGeometry { page_bytes: 8192, segment_bytes: 16 << 20 };
        check(8192 * 3 + 24, 8192 * 3, geometry);
        check((16 << 20) + 40, 16 << 20, geometry);
        check((16 << 20) + 8192 + 40, (16 << 20) + 8192 + 40, geometry);
        check(8192 * 3 + 48, 8192 * 3 + 48, geometry);
        check(8192 * 3, 8192 * 3, geometry);
        check(0, 0, geometry);
    }

    #[test]
    fn an_unknown_segment_size_never_takes_a_record_for_a_header() {
        let insert = Lsn::new((16 << 20) + 40);
        assert_eq!(insert.end_of_last_record(WalGeometry::default()), insert);
    }
}
