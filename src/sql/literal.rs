//! String literals that PostgreSQL reads as the current time.

use super::lexer::Kind;

/// Words that date and time input replaces by the clock.
///
/// <https://www.postgresql.org/docs/current/datatype-datetime.html#DATATYPE-DATETIME-SPECIAL-VALUES>
const WORDS: &[&[u8]] = &[b"now", b"today", b"tomorrow", b"yesterday"];
const LONGEST_WORD_BYTES: usize = 9;

/// True if a text, turned into a date or time (or an array, range or row of them), may give the current time.
///
/// Parameter values in text format need this as much as literals: `$1 = 'now'` is another row each second.
pub fn names_the_clock(text: &[u8]) -> bool {
    Words::default().read(text, |_| Step::Skip)
}

/// The same for a literal as it stands in SQL, quotes and prefix included.
pub(super) fn literal_names_the_clock(kind: Kind, text: &[u8]) -> bool {
    match kind {
        Kind::String | Kind::NationalString | Kind::DollarString => names_the_clock(text),
        Kind::EscapeString => Words::default().read(text.get(1..).unwrap_or_default(), escape),
        // Escapes may spell any word, and hardly anybody writes them.
        Kind::UnicodeString => text.contains(&b'\\') || names_the_clock(text.get(2..).unwrap_or_default()),
        _ => false,
    }
}

/// What a backslash does.
enum Step {
    /// It is dropped and the next character stands for itself.
    Skip,
    /// It and the next character stand for white space or another non-letter.
    Boundary,
    /// The character is spelt by its code.
    Coded,
}

fn escape(next: u8) -> Step {
    match next {
        b'b' | b'f' | b'n' | b'r' | b't' => Step::Boundary,
        b'x' | b'u' | b'U' | b'0'..=b'7' => Step::Coded,
        _ => Step::Skip,
    }
}

/// Letters of the word being read, lower case.
#[derive(Default)]
struct Words {
    word: [u8; LONGEST_WORD_BYTES],
    length: usize,
}

impl Words {
    fn read(mut self, text: &[u8], backslash: impl Fn(u8) -> Step) -> bool {
        let mut bytes = text.iter();
        while let Some(&byte) = bytes.next() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' => self.push(byte | 0x20),
                // Array and row syntax joins what stands on both sides of a quote.
                b'"' => {}
                b'\\' => match backslash(bytes.as_slice().first().copied().unwrap_or(0)) {
                    Step::Skip => {}
                    Step::Coded => return true,
                    Step::Boundary => {
                        bytes.next();
                        if self.ends_in_a_clock_word() {
                            return true;
                        }
                    }
                },
                _ => {
                    if self.ends_in_a_clock_word() {
                        return true;
                    }
                }
            }
        }
        self.ends_in_a_clock_word()
    }

    fn push(&mut self, letter: u8) {
        if let Some(slot) = self.word.get_mut(self.length) {
            *slot = letter;
        }
        self.length += 1;
    }

    fn ends_in_a_clock_word(&mut self) -> bool {
        let word = self.word.get(..self.length).unwrap_or_default();
        let found = self.length >= 3 && WORDS.contains(&word);
        self.length = 0;
        found
    }
}
