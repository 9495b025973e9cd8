//! PostgreSQL's lexical rules (`src/backend/parser/scan.l`), one token at a time, without allocation.
//!
//! <https://www.postgresql.org/docs/current/sql-syntax-lexical.html>

use memchr::{memchr, memchr2, memmem};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An unquoted identifier or key word.
    Word,
    /// `"identifier"`
    Quoted,
    /// `U&"identifier"`: what it names hangs on a later UESCAPE literal.
    UnicodeQuoted,
    /// `$1`
    Param,
    Integer,
    Numeric,
    /// `'text'`
    String,
    /// `E'text'`
    EscapeString,
    /// `U&'text'`
    UnicodeString,
    /// `B'0101'`
    BitString,
    /// `X'1FF'`
    HexString,
    /// `N'text'`
    NationalString,
    /// `$tag$text$tag$`
    DollarString,
    /// One or more operator characters.
    Operator,
    /// A single character that stands for itself.
    Symbol,
    Comment,
    /// A string, identifier or comment that never ends.
    Unterminated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
    /// A number or parameter directly followed by a letter: two tokens before PostgreSQL 15, an error since.
    pub(super) glued: bool,
    /// A string in several pieces on several lines.
    pub(super) continued: bool,
}

/// The tokens of one query string, comments included, whitespace not.
pub(super) struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
    standard_strings: bool,
}

impl<'a> Lexer<'a> {
    /// `standard_strings` is the session's `standard_conforming_strings`.
    pub(super) fn new(text: &'a str, standard_strings: bool) -> Self {
        Self { bytes: text.as_bytes(), at: 0, standard_strings }
    }

    /// Passes white space and unquoted words. Nothing but a short cut for what [`Iterator::next`] does with them.
    pub(super) fn skip_words(&mut self) {
        loop {
            self.skip_while(is_space);
            if !is_word_start(self.peek(0)) || matches!(self.peek(1), b'\'' | b'&') {
                return;
            }
            self.skip_while(is_word_byte);
        }
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    #[inline]
    fn skip_while(&mut self, class: impl Fn(u8) -> bool) {
        self.at += self.rest().iter().take_while(|byte| class(**byte)).count();
    }

    fn word_or_prefixed_string(&mut self, first: u8) -> Kind {
        if !matches!(self.peek(1), b'\'' | b'&') {
            self.skip_while(is_word_byte);
            return Kind::Word;
        }
        match (first | 0x20, self.peek(1)) {
            (b'e', b'\'') => self.prefixed(1, Kind::EscapeString, true),
            (b'b', b'\'') => self.prefixed(1, Kind::BitString, false),
            (b'x', b'\'') => self.prefixed(1, Kind::HexString, false),
            (b'n', b'\'') => self.prefixed(1, Kind::NationalString, !self.standard_strings),
            (b'u', b'&') if self.peek(2) == b'\'' => self.prefixed(2, Kind::UnicodeString, false),
            (b'u', b'&') if self.peek(2) == b'"' => {
                self.at += 2;
                self.quoted(Kind::UnicodeQuoted)
            }
            _ => {
                self.skip_while(is_word_byte);
                Kind::Word
            }
        }
    }

    fn prefixed(&mut self, prefix_bytes: usize, kind: Kind, backslash_escapes: bool) -> Kind {
        self.at += prefix_bytes;
        self.string(kind, backslash_escapes)
    }

    /// From the opening quote to one past the closing quote; doubled quotes stay inside.
    fn string(&mut self, kind: Kind, backslash_escapes: bool) -> Kind {
        self.at += 1;
        loop {
            let found = match backslash_escapes {
                true => memchr2(b'\'', b'\\', self.rest()),
                false => memchr(b'\'', self.rest()),
            };
            let Some(offset) = found else {
                self.at = self.bytes.len();
                return Kind::Unterminated;
            };
            self.at += offset;
            if self.peek(0) == b'\\' || self.peek(1) == b'\'' {
                self.at = (self.at + 2).min(self.bytes.len());
                continue;
            }
            self.at += 1;
            return kind;
        }
    }

    /// `'a'` newline `'b'` is one literal: moves to the opening quote of the next piece, if there is one.
    fn continues(&mut self) -> bool {
        let resume = self.at;
        let mut newline = false;
        loop {
            match self.peek(0) {
                b'\n' | b'\r' => newline = true,
                b' ' | b'\t' | 0x0b | 0x0c => {}
                b'-' if self.peek(1) == b'-' => match memchr2(b'\n', b'\r', self.rest()) {
                    Some(offset) => {
                        self.at += offset;
                        continue;
                    }
                    None => break,
                },
                b'\'' if newline => return true,
                _ => break,
            }
            self.at += 1;
        }
        self.at = resume;
        false
    }

    fn quoted(&mut self, kind: Kind) -> Kind {
        self.at += 1;
        while let Some(offset) = memchr(b'"', self.rest()) {
            self.at += offset + 1;
            if self.peek(0) != b'"' {
                return kind;
            }
            self.at += 1;
        }
        self.at = self.bytes.len();
        Kind::Unterminated
    }

    /// `$1`, `$tag$..$tag$`, or a dollar sign alone.
    fn dollar(&mut self) -> Kind {
        if self.peek(1).is_ascii_digit() {
            self.at += 1;
            self.skip_while(is_digit);
            return Kind::Param;
        }
        let start = self.at;
        self.at += 1;
        if is_word_start(self.peek(0)) {
            self.skip_while(|byte| is_word_byte(byte) && byte != b'$');
        }
        if self.peek(0) != b'$' {
            self.at = start + 1;
            return Kind::Symbol;
        }
        self.at += 1;
        let tag = self.bytes.get(start..self.at).unwrap_or_default();
        match memmem::find(self.rest(), tag) {
            Some(offset) => {
                self.at += offset + tag.len();
                Kind::DollarString
            }
            None => {
                self.at = self.bytes.len();
                Kind::Unterminated
            }
        }
    }

    fn digits(&mut self, class: impl Fn(u8) -> bool) -> bool {
        let start = self.at;
        loop {
            if class(self.peek(0)) {
                self.at += 1;
            } else if self.at > start && self.peek(0) == b'_' && class(self.peek(1)) {
                self.at += 2;
            } else {
                return self.at > start;
            }
        }
    }

    /// `0x1f`, `0o17`, `0b01`: an underscore may stand before the first digit as well.
    fn radix(&mut self, class: impl Fn(u8) -> bool) -> bool {
        let start = self.at;
        self.at += if self.peek(2) == b'_' { 3 } else { 2 };
        if self.digits(class) {
            return true;
        }
        self.at = start;
        false
    }

    fn number(&mut self) -> Kind {
        let start = self.at;
        self.skip_while(is_digit);
        if !matches!(self.peek(0) | 0x20, b'.' | b'e' | b'x' | b'o' | b'b' | 0x7f) {
            return Kind::Integer;
        }
        self.at = start;
        if self.peek(0) == b'0' {
            let in_radix = match self.peek(1) | 0x20 {
                b'x' => self.radix(|byte| byte.is_ascii_hexdigit()),
                b'o' => self.radix(|byte| matches!(byte, b'0'..=b'7')),
                b'b' => self.radix(|byte| matches!(byte, b'0' | b'1')),
                _ => false,
            };
            if in_radix {
                return Kind::Integer;
            }
        }
        let decimal = is_digit;
        let mut kind = Kind::Integer;
        self.digits(decimal);
        if self.peek(0) == b'.' && self.peek(1) != b'.' {
            kind = Kind::Numeric;
            self.at += 1;
            self.digits(decimal);
        }
        if self.peek(0) | 0x20 == b'e' {
            let sign = usize::from(matches!(self.peek(1), b'+' | b'-'));
            if self.peek(1 + sign).is_ascii_digit() {
                self.at += 1 + sign;
                self.digits(decimal);
                kind = Kind::Numeric;
            }
        }
        kind
    }

    fn line_comment(&mut self) -> Kind {
        let length = memchr2(b'\n', b'\r', self.rest());
        self.at += length.unwrap_or(self.rest().len());
        Kind::Comment
    }

    fn block_comment(&mut self) -> Kind {
        let mut depth = 0_usize;
        while let Some(offset) = memchr2(b'/', b'*', self.rest()) {
            self.at += offset;
            match (self.peek(0), self.peek(1)) {
                (b'/', b'*') => depth += 1,
                (b'*', b'/') => depth -= 1,
                _ => {
                    self.at += 1;
                    continue;
                }
            }
            self.at += 2;
            if depth == 0 {
                return Kind::Comment;
            }
        }
        self.at = self.bytes.len();
        Kind::Unterminated
    }

    /// The longest run of operator characters, cut before a comment, and without trailing signs unless
    /// a character says that the signs belong to it.
    fn operator(&mut self) -> Kind {
        let start = self.at;
        let mut marked = false;
        while let Some(&byte) = self.bytes.get(self.at)
            && is_operator_byte(byte)
        {
            let next = self.peek(1);
            let comment = (byte == b'-' && next == b'-') || (byte == b'/' && next == b'*');
            if comment && self.at > start {
                break;
            }
            marked |= matches!(byte, b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'%');
            self.at += 1;
        }
        if !marked {
            while self.at > start + 1 && self.bytes.get(self.at - 1).is_some_and(|byte| matches!(byte, b'+' | b'-')) {
                self.at -= 1;
            }
        }
        Kind::Operator
    }

    fn symbol(&mut self, length: usize, kind: Kind) -> Kind {
        self.at += length;
        kind
    }

    fn scan(&mut self, first: u8) -> Kind {
        if is_word_start(first) {
            return self.word_or_prefixed_string(first);
        }
        match (first, self.peek(1)) {
            (b'\'', _) => self.string(Kind::String, !self.standard_strings),
            (b'"', _) => self.quoted(Kind::Quoted),
            (b'$', _) => self.dollar(),
            (b'0'..=b'9', _) | (b'.', b'0'..=b'9') => self.number(),
            (b'-', b'-') => self.line_comment(),
            (b'/', b'*') => self.block_comment(),
            (b':', b':' | b'=') | (b'.', b'.') => self.symbol(2, Kind::Operator),
            _ if is_operator_byte(first) => self.operator(),
            _ => self.symbol(1, Kind::Symbol),
        }
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        self.skip_while(is_space);
        let start = self.at;
        let first = *self.bytes.get(start)?;
        let mut kind = self.scan(first);
        let mut continued = false;
        while kind.takes_continuation() && self.continues() {
            let escapes = kind == Kind::EscapeString
                || (!self.standard_strings && matches!(kind, Kind::String | Kind::NationalString));
            kind = self.string(kind, escapes);
            continued = true;
        }
        let glued = matches!(kind, Kind::Integer | Kind::Numeric | Kind::Param) && is_word_start(self.peek(0));
        Some(Token { kind, start, end: self.at, glued, continued })
    }
}

impl Kind {
    fn takes_continuation(self) -> bool {
        matches!(
            self,
            Self::String
                | Self::EscapeString
                | Self::UnicodeString
                | Self::BitString
                | Self::HexString
                | Self::NationalString
        )
    }

    /// True for what the fingerprint leaves out.
    pub(super) fn is_literal(self) -> bool {
        self.takes_continuation() || matches!(self, Self::DollarString | Self::Integer | Self::Numeric)
    }
}

/// Classes of characters; a byte may be in several.
mod class {
    pub(super) const SPACE: u8 = 1;
    pub(super) const WORD_START: u8 = 1 << 1;
    pub(super) const WORD: u8 = 1 << 2;
    pub(super) const OPERATOR: u8 = 1 << 3;
    pub(super) const DIGIT: u8 = 1 << 4;
}

/// The classes of every byte: one load where comparisons would take ten.
#[allow(clippy::indexing_slicing, reason = "worked out by the compiler, which would say so")]
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = classes_of(byte as u8);
        byte += 1;
    }
    classes
};

const fn classes_of(byte: u8) -> u8 {
    match byte {
        b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => class::SPACE,
        b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => class::WORD_START | class::WORD,
        b'0'..=b'9' => class::DIGIT | class::WORD,
        b'$' => class::WORD,
        b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'+' | b'-' | b'*' | b'/' | b'%' | b'<'
        | b'>' | b'=' => class::OPERATOR,
        _ => 0,
    }
}

#[inline]
fn is(byte: u8, class: u8) -> bool {
    CLASSES.get(usize::from(byte)).is_some_and(|classes| classes & class != 0)
}

pub(super) fn is_space(byte: u8) -> bool {
    is(byte, class::SPACE)
}

fn is_word_start(byte: u8) -> bool {
    is(byte, class::WORD_START)
}

fn is_word_byte(byte: u8) -> bool {
    is(byte, class::WORD)
}

fn is_operator_byte(byte: u8) -> bool {
    is(byte, class::OPERATOR)
}

fn is_digit(byte: u8) -> bool {
    is(byte, class::DIGIT)
}
