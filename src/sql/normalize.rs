//! The text of a shape, for people.

use super::lexer::{Kind, Lexer};

const LONGEST_BYTES: usize = 4096;

/// Literals become `?`, comments go, white space shrinks; long texts are cut.
pub(super) fn normalize(text: &str, standard_strings: bool) -> Box<str> {
    let mut out = String::with_capacity(text.len().min(LONGEST_BYTES));
    let mut previous_end = 0;
    for token in Lexer::new(text, standard_strings) {
        if token.kind == Kind::Comment {
            continue;
        }
        if out.len() >= LONGEST_BYTES {
            break;
        }
        if token.start > previous_end && !out.is_empty() {
            out.push(' ');
        }
        previous_end = token.end;
        let word = text.get(token.start..token.end).unwrap_or_default();
        match token.kind {
            Kind::Word => out.extend(word.chars().map(|c| c.to_ascii_lowercase())),
            // What never ends may be a secret.
            Kind::Unterminated => out.push('?'),
            kind if kind.is_literal() => out.push('?'),
            _ => out.push_str(word),
        }
    }
    while out.len() > LONGEST_BYTES {
        out.pop();
    }
    out.into_boxed_str()
}
