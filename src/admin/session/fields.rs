//! Fields of frontend messages, read without trusting a length in them.

use crate::admin::reply::Format;

/// What of a body is not read yet.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    /// Up to a NUL byte. What is not UTF-8 is no command, but it can be repeated in an error.
    pub(super) fn text(&mut self) -> Option<String> {
        let end = self.rest.iter().position(|byte| *byte == 0)?;
        let text = self.bytes(end)?;
        self.bytes(1)?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    fn int16(&mut self) -> Option<i16> {
        self.bytes(2)?.try_into().map(i16::from_be_bytes).ok()
    }

    fn int32(&mut self) -> Option<i32> {
        self.bytes(4)?.try_into().map(i32::from_be_bytes).ok()
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(front)
    }

    fn formats(&mut self) -> Option<Vec<Format>> {
        let count = self.int16()?;
        (0..count).map(|_| Format::from_code(self.int16()?)).collect()
    }
}

/// The fields of Bind that the console needs.
pub(super) struct Bind {
    pub(super) portal: String,
    pub(super) statement: String,
    pub(super) parameters: i16,
    pub(super) formats: Vec<Format>,
}

impl Bind {
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(body);
        let (portal, statement) = fields.text().zip(fields.text())?;
        fields.formats()?;
        let parameters = fields.int16()?;
        for _ in 0..parameters {
            // NULL is -1.
            let length = usize::try_from(fields.int32()?).unwrap_or(0);
            fields.bytes(length)?;
        }
        let formats = fields.formats()?;
        Some(Self { portal, statement, parameters, formats })
    }
}

/// Of Describe and Close: `S` for a statement, `P` for a portal.
pub(super) fn kind_and_name(body: &[u8]) -> Option<(u8, String)> {
    let (kind, rest) = body.split_first()?;
    matches!(kind, b'S' | b'P').then_some(())?;
    Some((*kind, Fields::new(rest).text()?))
}
