//! The memo of analysed statements.

use std::{
    hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use dashmap::DashMap;

use super::{
    Hints, Statement,
    fingerprint::{KeyedHash, Seen, fingerprint},
    lexer::{Kind, Lexer, Token},
    normalize::normalize,
    parse,
};

/// Longer texts are not parsed: the parser's memory is a multiple of the text's.
const LONGEST_PARSED_BYTES: usize = 1 << 20;

/// Remembers what each statement shape is, so that only a shape never seen is parsed.
///
/// Bounded: when it is full, what was not asked for since the last time it was full goes.
pub struct Analyzer {
    hash: KeyedHash,
    memo: DashMap<u128, Remembered, BuildHasherDefault<KeyIsHash>>,
    held: AtomicUsize,
    capacity: usize,
}

struct Remembered {
    /// `None`: statements of this shape differ by their literals and are found by their exact text.
    statement: Option<Arc<Statement>>,
    used: AtomicBool,
}

impl Analyzer {
    /// An empty memo for at most `capacity` statements, with a seed of its own.
    pub fn new(capacity: usize) -> Self {
        let draw = RandomState::new();
        Self::with_seed(capacity, u128::from(draw.hash_one(1)) << 64 | u128::from(draw.hash_one(2)))
    }

    /// The same with the seed of its hash given. Who knows the seed can make two statements look alike.
    pub fn with_seed(capacity: usize, seed: u128) -> Self {
        Self {
            hash: KeyedHash::new(seed),
            memo: DashMap::default(),
            held: AtomicUsize::new(0),
            capacity: capacity.max(16),
        }
    }

    /// What `text` is. Never fails: what is not understood says so.
    pub fn analyze(&self, text: &str) -> Arc<Statement> {
        let (shape, seen) = self.hash.shape(text, true);
        if !seen.exact {
            match self.recall(shape) {
                Some(Some(statement)) => return statement,
                Some(None) => {}
                None => return self.learn(text, shape, seen),
            }
        }
        let exact = self.hash.text(text);
        match self.recall(exact) {
            Some(Some(statement)) => statement,
            _ => self.learn(text, shape, seen),
        }
    }

    /// For a session with `standard_conforming_strings = off`: nothing is understood, but it has a
    /// fingerprint and a normalised text.
    pub fn describe_nonstandard(&self, text: &str) -> Arc<Statement> {
        Arc::new(not_understood(text, self.hash.text(text), false))
    }

    /// Statements remembered.
    pub fn len(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Statements that may be remembered.
    pub fn limit(&self) -> usize {
        self.capacity
    }

    /// True if nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn recall(&self, key: u128) -> Option<Option<Arc<Statement>>> {
        let remembered = self.memo.get(&key)?;
        if !remembered.used.load(Ordering::Relaxed) {
            remembered.used.store(true, Ordering::Relaxed);
        }
        Some(remembered.statement.clone())
    }

    /// Texts that do not parse are remembered by their exact text: another text of the same shape may
    /// be fine (`E'\u0'` is not, `E'a'` is).
    fn learn(&self, text: &str, shape: u128, seen: Seen) -> Arc<Statement> {
        let exact = self.hash.text(text);
        if !seen.exact
            && let Some(Some(statement)) = self.recall(exact)
        {
            return statement;
        }
        let parsed = match text.len() <= LONGEST_PARSED_BYTES {
            true => parse::parse(text, seen.clock),
            false => None,
        };
        let Some(parse::Parsed { parts, literal_sensitive }) = parsed else {
            return self.remember(exact, not_understood(text, exact, true));
        };
        let literal_sensitive = seen.exact || (literal_sensitive && seen.literals);
        let statement = Statement {
            fingerprint: fingerprint(text, true),
            normalized: normalize(text, true),
            hints: hints(text, seen),
            parts,
            parsed: true,
            literal_sensitive,
            identity: if literal_sensitive { exact } else { shape },
            lone_query: false,
        };
        if literal_sensitive && !seen.exact {
            self.insert(shape, None);
        }
        self.remember(statement.identity, statement)
    }

    fn remember(&self, key: u128, statement: Statement) -> Arc<Statement> {
        let statement = Arc::new(statement);
        self.insert(key, Some(Arc::clone(&statement)));
        statement
    }

    fn insert(&self, key: u128, statement: Option<Arc<Statement>>) {
        if self.held.load(Ordering::Relaxed) >= self.capacity {
            self.make_room();
        }
        let remembered = Remembered { statement, used: AtomicBool::new(false) };
        if self.memo.insert(key, remembered).is_none() {
            self.held.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Keeps what was used since the last call, and of that no more than half the capacity.
    fn make_room(&self) {
        let mut room = self.capacity / 2;
        self.memo.retain(|_, remembered| {
            let keep = room > 0 && remembered.used.swap(false, Ordering::Relaxed);
            room -= usize::from(keep);
            keep
        });
        self.held.store(self.memo.len(), Ordering::Relaxed);
    }
}

fn hints(text: &str, seen: Seen) -> Hints {
    match seen.hints {
        true => Hints::read(text, true),
        false => Hints::default(),
    }
}

fn not_understood(text: &str, identity: u128, standard_strings: bool) -> Statement {
    Statement {
        fingerprint: fingerprint(text, standard_strings),
        normalized: normalize(text, standard_strings),
        hints: Hints::read(text, standard_strings),
        parts: Box::default(),
        parsed: false,
        literal_sensitive: true,
        identity,
        lone_query: is_lone_query(text, standard_strings),
    }
}

/// One statement that begins with a word which only queries begin with.
fn is_lone_query(text: &str, standard_strings: bool) -> bool {
    let mut tokens = Lexer::new(text, standard_strings).filter(|token| token.kind != Kind::Comment);
    let text_of = |token: Token| text.get(token.start..token.end).unwrap_or_default();
    let Some(first) = tokens.find(|token| text_of(*token) != "(") else {
        return false;
    };
    let query = ["select", "with", "values", "table", "insert", "update", "delete", "merge"]
        .iter()
        .any(|word| text_of(first).eq_ignore_ascii_case(word));
    let mut after = tokens.skip_while(|token| text_of(*token) != ";");
    after.next();
    query && after.all(|token| text_of(token) == ";")
}

impl Default for Analyzer {
    fn default() -> Self {
        Self::new(10_000)
    }
}

/// The keys are hashes already.
#[derive(Default)]
pub(crate) struct KeyIsHash(u64);

impl Hasher for KeyIsHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}
