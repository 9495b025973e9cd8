//! Errors and notices in PostgreSQL's form.
//!
//! <https://www.postgresql.org/docs/current/protocol-error-fields.html>

use std::borrow::Cow;

use super::{frame::Fields, frame::put, sqlstate::SqlState};

/// Does the session survive?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The statement failed.
    Error,
    /// The session ends.
    Fatal,
    /// Nothing failed.
    Notice,
}

impl Severity {
    fn word(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
            Self::Notice => "NOTICE",
        }
    }
}

/// An error that pgweir reports itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorResponse {
    /// Field `S`.
    pub severity: Severity,
    /// Field `C`.
    pub sqlstate: SqlState,
    /// Field `M`.
    pub message: Cow<'static, str>,
    /// Field `D`.
    pub detail: Option<String>,
    /// Field `H`.
    pub hint: Option<&'static str>,
}

impl ErrorResponse {
    /// The session ends with it.
    #[must_use]
    pub fn fatal(sqlstate: SqlState, message: impl Into<Cow<'static, str>>) -> Self {
        Self { severity: Severity::Fatal, sqlstate, message: message.into(), detail: None, hint: None }
    }

    /// The session goes on.
    #[must_use]
    pub fn error(sqlstate: SqlState, message: impl Into<Cow<'static, str>>) -> Self {
        Self { severity: Severity::Error, ..Self::fatal(sqlstate, message) }
    }

    /// Nothing failed.
    #[must_use]
    pub fn notice(message: impl Into<Cow<'static, str>>) -> Self {
        Self { severity: Severity::Notice, ..Self::fatal(SqlState::SUCCESSFUL_COMPLETION, message) }
    }

    /// Adds field `D`.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds field `H`.
    #[must_use]
    pub fn with_hint(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint);
        self
    }

    /// Appends the message, `ErrorResponse` or `NoticeResponse` by its severity.
    pub fn put(&self, buffer: &mut Vec<u8>) {
        let tag = if self.severity == Severity::Notice { b'N' } else { b'E' };
        put(buffer, tag, |body| {
            let mut field = |code: u8, text: &[u8]| {
                body.push(code);
                body.extend(text.iter().filter(|byte| **byte != 0));
                body.push(0);
            };
            field(b'S', self.severity.word().as_bytes());
            field(b'C', &self.sqlstate.0);
            field(b'M', self.message.as_bytes());
            if let Some(detail) = &self.detail {
                field(b'D', detail.as_bytes());
            }
            if let Some(hint) = self.hint {
                field(b'H', hint.as_bytes());
            }
            body.push(0);
        });
    }
}

/// One field of an `ErrorResponse` or `NoticeResponse` frame.
#[must_use]
pub fn field(frame: &[u8], code: u8) -> Option<&[u8]> {
    let mut fields = Fields::of(frame);
    loop {
        let found = fields.byte().ok().filter(|found| *found != 0)?;
        let text = fields.cstr().ok()?;
        if found == code {
            return Some(text);
        }
    }
}

/// The SQLSTATE of an `ErrorResponse` frame.
#[must_use]
pub fn sqlstate(frame: &[u8]) -> Option<SqlState> {
    field(frame, b'C')?.first_chunk::<5>().copied().map(SqlState)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_back_field_by_field() {
        let mut buffer = Vec::new();
        ErrorResponse::fatal(SqlState::PROTOCOL_VIOLATION, "query_wait_timeout").with_detail("why").put(&mut buffer);
        assert_eq!(field(&buffer, b'S'), Some(&b"FATAL"[..]));
        assert_eq!(field(&buffer, b'M'), Some(&b"query_wait_timeout"[..]));
        assert_eq!(field(&buffer, b'D'), Some(&b"why"[..]));
        assert_eq!(field(&buffer, b'H'), None);
        assert_eq!(sqlstate(&buffer), Some(SqlState::PROTOCOL_VIOLATION));
    }

    #[test]
    fn a_zero_byte_in_a_text_cannot_end_its_field() {
        let mut buffer = Vec::new();
        ErrorResponse::error(SqlState::PROTOCOL_VIOLATION, "a\0b").put(&mut buffer);
        assert_eq!(field(&buffer, b'M'), Some(&b"ab"[..]));
    }
}
