//! What two texts of the same shape have in common, as a number.

use std::{
    fmt,
    hash::{BuildHasher, Hasher},
};

use foldhash::quality::{FoldHasher, SeedableRandomState};

use super::{
    lexer::{Kind, Lexer, Token},
    literal::literal_names_the_clock,
};

/// Identifies a statement shape: the same on every proxy and after every restart.
///
/// It covers schema names, aliases and folded identifiers; literals and comments are left out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u128);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A 128-bit hash that nobody can aim at without knowing the seed.
#[derive(Clone)]
pub(super) struct KeyedHash {
    low: SeedableRandomState,
    high: SeedableRandomState,
}

impl KeyedHash {
    pub(super) fn new(seed: u128) -> Self {
        let shared = foldhash::SharedSeed::global_random();
        let state = |seed| SeedableRandomState::with_seed(seed, shared);
        Self { low: state(seed as u64), high: state((seed >> 64) as u64 ^ 0x9e37_79b9_7f4a_7c15) }
    }

    /// The memo key of a shape, and what the lexer saw on the way: the text as it is, without its literals and comments.
    ///
    /// Finer than a fingerprint, because white space and letter case count, and cheaper: nothing is copied.
    pub(super) fn shape(&self, text: &str, standard_strings: bool) -> (u128, Seen) {
        let mut hash = self.begin();
        let mut seen = Seen::default();
        let mut lexer = Lexer::new(text, standard_strings);
        let mut from = 0;
        let between = |from, to| text.as_bytes().get(from..to).unwrap_or_default();
        loop {
            lexer.skip_words();
            let Some(token) = lexer.next() else { break };
            let left_out = match token.kind {
                Kind::Word | Kind::Symbol | Kind::Operator | Kind::Param | Kind::Quoted => continue,
                Kind::UnicodeQuoted | Kind::Unterminated => {
                    seen.exact = true;
                    continue;
                }
                Kind::Comment if super::hints::is_hint(between(token.start, token.end)) => {
                    seen.hints = true;
                    continue;
                }
                Kind::Comment => tag::COMMENT,
                _ => seen.literal(token, between(token.start, token.end)),
            };
            let kept = between(from, token.start);
            hash.write(kept);
            // The length keeps apart what would read alike when put together.
            hash.write_number((kept.len() as u64) << 8 | u64::from(left_out));
            from = token.end;
        }
        let rest = between(from, text.len());
        hash.write(rest);
        hash.write_number((rest.len() as u64) << 8);
        (hash.number(), seen)
    }

    fn begin(&self) -> Keyed<'_> {
        Keyed { low: self.low.build_hasher(), high: self.high.build_hasher() }
    }

    /// The memo key of an exact text, apart from all keys of shapes.
    pub(super) fn text(&self, text: &str) -> u128 {
        let mut hash = self.begin();
        hash.write(b"\0text");
        hash.write(text.as_bytes());
        hash.number()
    }
}

/// The fingerprint of a text; hints do not change it.
pub(super) fn fingerprint(text: &str, standard_strings: bool) -> Fingerprint {
    let mut canonical = Canonical::new();
    canonicalize(text, standard_strings, &mut canonical);
    let digest = canonical.finish();
    Fingerprint(digest.as_ref().first_chunk().map_or(0, |bytes| u128::from_be_bytes(*bytes)))
}

/// What one pass over the tokens tells beside the hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) literals: bool,
    /// Some string literal may stand for the current time.
    pub(super) clock: bool,
    /// Something whose meaning hangs on a literal of the lexical level: `U&"..." UESCAPE '!'`.
    pub(super) exact: bool,
    pub(super) hints: bool,
}

impl Seen {
    /// A literal leaves only its type, and whether it may stand for the clock.
    fn literal(&mut self, token: Token, bytes: &[u8]) -> u8 {
        self.literals = true;
        let names_the_clock = token.continued || literal_names_the_clock(token.kind, bytes);
        self.clock |= names_the_clock;
        tag::LITERALS + token.kind as u8 + if names_the_clock { tag::CLOCK } else { 0 }
    }
}

struct Keyed<'a> {
    low: FoldHasher<'a>,
    high: FoldHasher<'a>,
}

impl Keyed<'_> {
    fn write(&mut self, bytes: &[u8]) {
        self.low.write(bytes);
        self.high.write(bytes);
    }

    fn write_number(&mut self, number: u64) {
        self.low.write_u64(number);
        self.high.write_u64(number);
    }

    fn number(&self) -> u128 {
        u128::from(self.high.finish()) << 64 | u128::from(self.low.finish())
    }
}

const BUFFER_BYTES: usize = 256;

/// Collects the canonical bytes of a token stream and hashes them in runs.
struct Canonical {
    digest: ring::digest::Context,
    buffer: [u8; BUFFER_BYTES],
    length: usize,
}

impl Canonical {
    fn new() -> Self {
        let digest = ring::digest::Context::new(&ring::digest::SHA256);
        Self { digest, buffer: [0; BUFFER_BYTES], length: 0 }
    }

    fn push(&mut self, byte: u8) {
        if self.length == BUFFER_BYTES {
            self.digest.update(&self.buffer);
            self.length = 0;
        }
        if let Some(slot) = self.buffer.get_mut(self.length) {
            *slot = byte;
            self.length += 1;
        }
    }

    fn extend(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.push(*byte));
    }

    fn measured(&mut self, tag: u8, bytes: &[u8]) {
        self.push(tag);
        self.extend(&bytes.len().to_le_bytes());
        self.extend(bytes);
    }

    fn finish(mut self) -> ring::digest::Digest {
        self.digest.update(self.buffer.get(..self.length).unwrap_or_default());
        self.digest.finish()
    }
}

/// First byte of each token in the canonical stream. None of them can be part of a word, an operator
/// or a number, and quoted names carry their length, so two token streams never read alike.
mod tag {
    pub(super) const WORD: u8 = 1;
    pub(super) const QUOTED: u8 = 2;
    pub(super) const OPERATOR: u8 = 3;
    pub(super) const PARAM: u8 = 4;
    pub(super) const GLUED: u8 = 5;
    pub(super) const SYMBOL: u8 = 7;
    pub(super) const UNTERMINATED: u8 = 8;
    pub(super) const COMMENT: u8 = 9;
    pub(super) const CLOCK_LITERAL: u8 = 14;
    pub(super) const LITERALS: u8 = 16;
    /// Added to that of a literal.
    pub(super) const CLOCK: u8 = 128;
}

fn canonicalize(text: &str, standard_strings: bool, out: &mut Canonical) {
    for token in Lexer::new(text, standard_strings) {
        let bytes = text.as_bytes().get(token.start..token.end).unwrap_or_default();
        match token.kind {
            Kind::Word => {
                out.push(tag::WORD);
                bytes.iter().for_each(|byte| out.push(byte.to_ascii_lowercase()));
            }
            Kind::Symbol => {
                out.push(tag::SYMBOL);
                out.extend(bytes);
            }
            Kind::Operator => {
                out.push(tag::OPERATOR);
                out.extend(bytes);
            }
            Kind::Param => {
                out.push(tag::PARAM);
                out.extend(bytes);
            }
            Kind::Comment => {}
            Kind::Quoted | Kind::UnicodeQuoted => out.measured(tag::QUOTED, bytes),
            Kind::Unterminated => out.push(tag::UNTERMINATED),
            _ => {
                out.push(tag::LITERALS + token.kind as u8);
                if token.continued || literal_names_the_clock(token.kind, bytes) {
                    out.push(tag::CLOCK_LITERAL);
                }
            }
        }
        if token.glued {
            out.push(tag::GLUED);
        }
    }
}
