//! What a PL/pgSQL body can do, judged by the words in it.
//!
//! A body is not parsed: whatever it does needs a word for it. A trigger that only assigns to NEW – the
//! commonest of all – has none of the words that run SQL, so writes to its table can still be followed.

use super::{Effects, builtin, rows::FunctionRow};
use crate::sql::{Word, words};

/// The worst that the words of a body allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Body {
    /// It computes: no SQL statement, no call of a function that is not plain.
    Computes,
    /// It runs SQL; its locks tell what it writes.
    RunsSql,
    /// It may do anything.
    Opaque,
}

/// Words that run SQL wherever they stand.
const SQL: &[&str] = &["merge", "open", "perform", "query", "select", "table", "values", "with"];

/// Words that change the session, or hide what is run, wherever they stand.
const SESSION: &[&str] = &["execute", "hold", "set_config", "setseed", "temp", "temporary"];

/// What a statement of PL/pgSQL itself may begin with besides a variable; other first words run SQL.
const LANGUAGE: &[&str] = &[
    "alias",
    "assert",
    "begin",
    "case",
    "close",
    "constant",
    "continue",
    "declare",
    "else",
    "elseif",
    "elsif",
    "end",
    "exception",
    "exit",
    "for",
    "foreach",
    "get",
    "if",
    "loop",
    "null",
    "raise",
    "return",
    "when",
    "while",
];

/// First words of SQL statements that touch rows only.
const ROWS: &[&str] =
    &["delete", "insert", "update", "truncate", "merge", "select", "with", "values", "perform", "lock"];

/// First words of SQL statements that ask.
const QUERIES: &[&str] = &["select", "table", "values", "with"];

/// Words that lock or write within a query, or hide what is run.
const WITHIN_QUERIES: &[&str] = &["delete", "execute", "insert", "into", "merge", "share", "update"];

/// Can the words of the body change nothing, whatever the names in it stand for?
pub(super) fn asks_only(row: &FunctionRow) -> bool {
    let Some(source) = &row.source else { return false };
    match row.language.as_str() {
        "plpgsql" => judge(source, |_| false).0 == Body::Computes,
        "sql" => words(source).is_some_and(|words| {
            words.iter().all(|word| {
                let text = word.text.as_str();
                !WITHIN_QUERIES.contains(&text) && (!word.begins_statement || QUERIES.contains(&text))
            })
        }),
        _ => false,
    }
}

/// Judges `source`. `suspicious` says of a word whether a function of that name may do anything.
pub(super) fn judge(source: &str, suspicious: impl Fn(&str) -> bool) -> (Body, Effects) {
    let Some(words) = words(source) else {
        return (Body::Opaque, Effects::OPAQUE);
    };
    let mut body = Body::Computes;
    let mut effects = Effects::default();
    for (index, word) in words.iter().enumerate() {
        let assigned = !word.begins_statement || is_variable(&words, index);
        body = body.max(judge_word(word, assigned, &suspicious));
        effects.insert(builtin::effects(&word.text));
    }
    if body == Body::Opaque {
        effects.insert(Effects::OPAQUE);
    }
    (body, effects)
}

fn judge_word(word: &Word, assigned: bool, suspicious: &impl Fn(&str) -> bool) -> Body {
    let text = word.text.as_str();
    if SESSION.contains(&text) || builtin::runs_queries(text) || suspicious(text) {
        return Body::Opaque;
    }
    if SQL.contains(&text) || (text == "from" && !word.after_distinct) {
        return Body::RunsSql;
    }
    match assigned || LANGUAGE.contains(&text) {
        true => Body::Computes,
        false if ROWS.contains(&text) => Body::RunsSql,
        false => Body::Opaque,
    }
}

/// A statement that begins with `new`, `old` or a declared name assigns to it.
///
/// Names are declared between DECLARE and BEGIN, where each begins a "statement" of its own.
fn is_variable(words: &[Word], index: usize) -> bool {
    let Some(word) = words.get(index) else {
        return false;
    };
    if matches!(word.text.as_str(), "new" | "old") {
        return true;
    }
    let before = words.get(..index).unwrap_or_default();
    let in_declarations = before.iter().rev().find(|word| matches!(word.text.as_str(), "begin" | "declare"));
    if in_declarations.is_some_and(|word| word.text == "declare") {
        return true;
    }
    let declared = |other: &Word| other.begins_statement && other.text == word.text;
    let declarations = before.iter().skip_while(|word| word.text != "declare").take_while(|word| word.text != "begin");
    !ROWS.contains(&word.text.as_str()) && declarations.skip(1).any(declared)
}
