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

    /// The memo key of a shape, and what the lexer saw on the way.
    pub(super) fn shape(&self, text: &str, standard_strings: bool) -> (u128, Seen) {
        let (low, high) = (self.low.build_hasher(), self.high.build_hasher());
        let mut sink = Canonical::new(Keyed { low, high });
        let seen = canonicalize(text, standard_strings, Hints::Count, &mut sink);
        (sink.finish().number(), seen)
    }

    /// The memo key of an exact text, apart from all keys of shapes.
    pub(super) fn text(&self, text: &str) -> u128 {
        let (low, high) = (self.low.build_hasher(), self.high.build_hasher());
        let mut hash = Keyed { low, high };
        hash.write(b"\0text");
        hash.write(text.as_bytes());
        hash.number()
    }
}

/// The fingerprint of a text; hints do not change it.
pub(super) fn fingerprint(text: &str, standard_strings: bool) -> Fingerprint {
    let mut sink = Canonical::new(ring::digest::Context::new(&ring::digest::SHA256));
    canonicalize(text, standard_strings, Hints::LeaveOut, &mut sink);
    let digest = sink.finish().finish();
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Hints {
    Count,
    LeaveOut,
}

trait Sink {
    fn write(&mut self, bytes: &[u8]);
}

struct Keyed<'a> {
    low: FoldHasher<'a>,
    high: FoldHasher<'a>,
}

impl Keyed<'_> {
    fn number(&self) -> u128 {
        u128::from(self.high.finish()) << 64 | u128::from(self.low.finish())
    }
}

impl Sink for Keyed<'_> {
    fn write(&mut self, bytes: &[u8]) {
        self.low.write(bytes);
        self.high.write(bytes);
    }
}

impl Sink for ring::digest::Context {
    fn write(&mut self, bytes: &[u8]) {
        self.update(bytes);
    }
}

const BUFFER_BYTES: usize = 256;

/// Collects the canonical bytes of a token stream and hashes them in runs.
struct Canonical<S> {
    sink: S,
    buffer: [u8; BUFFER_BYTES],
    length: usize,
}

impl<S: Sink> Canonical<S> {
    fn new(sink: S) -> Self {
        Self { sink, buffer: [0; BUFFER_BYTES], length: 0 }
    }

    fn push(&mut self, byte: u8) {
        if self.length == BUFFER_BYTES {
            self.sink.write(&self.buffer);
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

    fn finish(mut self) -> S {
        let run = self.buffer.get(..self.length).unwrap_or_default();
        self.sink.write(run);
        self.sink
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
    pub(super) const HINT: u8 = 6;
    pub(super) const SYMBOL: u8 = 7;
    pub(super) const UNTERMINATED: u8 = 8;
    pub(super) const CLOCK: u8 = 14;
    pub(super) const LITERALS: u8 = 16;
}

fn canonicalize<S: Sink>(text: &str, standard_strings: bool, hints: Hints, out: &mut Canonical<S>) -> Seen {
    let mut seen = Seen::default();
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
            Kind::Comment => {
                if super::hints::is_hint(bytes) {
                    seen.hints = true;
                    if hints == Hints::Count {
                        measured(out, tag::HINT, bytes);
                    }
                }
            }
            Kind::Quoted => measured(out, tag::QUOTED, bytes),
            Kind::UnicodeQuoted => {
                seen.exact = true;
                measured(out, tag::QUOTED, bytes);
            }
            Kind::Unterminated => {
                seen.exact = true;
                out.push(tag::UNTERMINATED);
            }
            _ => literal(token, bytes, out, &mut seen),
        }
        if token.glued {
            out.push(tag::GLUED);
        }
    }
    seen
}

fn measured<S: Sink>(out: &mut Canonical<S>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    out.extend(&bytes.len().to_le_bytes());
    out.extend(bytes);
}

/// A literal leaves only its type, and whether it may stand for the clock.
fn literal<S: Sink>(token: Token, bytes: &[u8], out: &mut Canonical<S>, seen: &mut Seen) {
    seen.literals = true;
    out.push(tag::LITERALS + token.kind as u8);
    if token.continued || literal_names_the_clock(token.kind, bytes) {
        seen.clock = true;
        out.push(tag::CLOCK);
    }
}
