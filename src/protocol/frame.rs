//! Frames: one tag byte, four length bytes, a body.

/// Tag and length.
pub const HEADER_BYTES: usize = 5;
/// The length field counts itself.
const LENGTH_FIELD_BYTES: usize = 4;

/// Bytes that are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length field counts itself, so it is at least four.
    #[error("message length {0} is too small")]
    LengthTooSmall(u32),
    /// More than `max_packet_size`.
    #[error("message length {0} is too large")]
    LengthTooLarge(u32),
    /// No message of this direction has this tag.
    #[error("unknown message type {0:#04x}")]
    UnknownTag(u8),
    /// A field runs past the end of its message.
    #[error("message {0:#04x} is cut short")]
    Truncated(u8),
}

/// The start of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The message type byte.
    pub tag: u8,
    /// Bytes of the whole frame, header included.
    pub frame_bytes: usize,
}

/// Largest length field that PostgreSQL accepts.
pub const MAX_LENGTH: u32 = 0x7fff_ffff;

/// The header at the front of `buffer`; `None` while it has not arrived whole.
///
/// # Errors
/// A length that no message can have.
pub fn header(buffer: &[u8]) -> Result<Option<Header>, FrameError> {
    let Some(header) = buffer.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let [tag, length @ ..] = *header;
    let length = u32::from_be_bytes(length);
    if (length as usize) < LENGTH_FIELD_BYTES {
        return Err(FrameError::LengthTooSmall(length));
    }
    if length > MAX_LENGTH {
        return Err(FrameError::LengthTooLarge(length));
    }
    Ok(Some(Header { tag, frame_bytes: length as usize + 1 }))
}

/// The body of a whole frame.
#[must_use]
pub fn body(frame: &[u8]) -> &[u8] {
    frame.get(HEADER_BYTES..).unwrap_or_default()
}

/// Appends a frame whose body is written by `write`.
pub fn put(buffer: &mut Vec<u8>, tag: u8, write: impl FnOnce(&mut Vec<u8>)) {
    buffer.push(tag);
    let at = buffer.len();
    buffer.extend_from_slice(&[0; LENGTH_FIELD_BYTES]);
    write(buffer);
    let length = (buffer.len() - at) as u32;
    if let Some(field) = buffer.get_mut(at..at + LENGTH_FIELD_BYTES) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

/// Reads the fields of one body, in order.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    pub(super) tag: u8,
    pub(super) rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields of what a message of type `tag` carries.
    #[must_use]
    pub fn within(tag: u8, rest: &'a [u8]) -> Self {
        Self { tag, rest }
    }

    /// The fields of `frame`, header skipped.
    #[must_use]
    pub fn of(frame: &'a [u8]) -> Self {
        Self { tag: frame.first().copied().unwrap_or_default(), rest: body(frame) }
    }

    fn cut(&self) -> FrameError {
        FrameError::Truncated(self.tag)
    }

    /// A zero-terminated string, without its terminator.
    ///
    /// # Errors
    /// No terminator.
    pub fn cstr(&mut self) -> Result<&'a [u8], FrameError> {
        let end = memchr::memchr(0, self.rest).ok_or(self.cut())?;
        let (text, rest) = self.rest.split_at_checked(end).ok_or(self.cut())?;
        self.rest = rest.get(1..).unwrap_or_default();
        Ok(text)
    }

    /// One byte.
    ///
    /// # Errors
    /// The body has ended.
    pub fn byte(&mut self) -> Result<u8, FrameError> {
        let (first, rest) = self.rest.split_first().ok_or(self.cut())?;
        self.rest = rest;
        Ok(*first)
    }

    /// A 16-bit integer.
    ///
    /// # Errors
    /// The body has ended.
    pub fn u16(&mut self) -> Result<u16, FrameError> {
        let (first, rest) = self.rest.split_first_chunk::<2>().ok_or(self.cut())?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*first))
    }

    /// A 32-bit integer.
    ///
    /// # Errors
    /// The body has ended.
    pub fn i32(&mut self) -> Result<i32, FrameError> {
        let (first, rest) = self.rest.split_first_chunk::<4>().ok_or(self.cut())?;
        self.rest = rest;
        Ok(i32::from_be_bytes(*first))
    }

    /// `count` bytes.
    ///
    /// # Errors
    /// The body has ended.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], FrameError> {
        let (first, rest) = self.rest.split_at_checked(count).ok_or(self.cut())?;
        self.rest = rest;
        Ok(first)
    }

    /// What has not been read.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The only place that calls `header`; the cases below state bytes and outcome.
    #[track_caller]
    fn check(bytes: &[u8], expected: Result<Option<Header>, FrameError>) {
        assert_eq!(header(bytes), expected);
    }

    #[test]
    fn a_header_cut_anywhere_waits_for_more() {
        for cut in 0..HEADER_BYTES {
            check(&b"Z\0\0\0\x05I"[..cut], Ok(None));
        }
    }

    #[test]
    fn a_whole_header_tells_the_size_of_its_frame() {
        check(b"Z\0\0\0\x05", Ok(Some(Header { tag: b'Z', frame_bytes: 6 })));
        check(b"S\0\0\0\x04", Ok(Some(Header { tag: b'S', frame_bytes: 5 })));
    }

    #[test]
    fn a_length_that_does_not_count_itself_is_refused() {
        check(b"Z\0\0\0\x03", Err(FrameError::LengthTooSmall(3)));
    }

    #[test]
    fn a_negative_length_is_refused() {
        check(b"Z\xff\xff\xff\xff", Err(FrameError::LengthTooLarge(u32::MAX)));
    }

    #[test]
    fn a_string_without_its_end_is_refused() {
        assert_eq!(Fields::of(b"Q\0\0\0\x05a").cstr(), Err(FrameError::Truncated(b'Q')));
    }

    #[test]
    fn a_put_frame_reads_back() {
        let mut buffer = Vec::new();
        put(&mut buffer, b'Q', |body| body.extend_from_slice(b"abc\0"));
        assert_eq!(header(&buffer), Ok(Some(Header { tag: b'Q', frame_bytes: buffer.len() })));
        assert_eq!(Fields::of(&buffer).cstr(), Ok(&b"abc"[..]));
    }
}
