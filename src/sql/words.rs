//! The words of a function body, for what must be ruled out rather than understood.

use super::{
    Name,
    lexer::{Kind, Lexer, Token},
};

/// One key word or identifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Folded as PostgreSQL folds it, without quotes.
    pub text: String,
    /// It stands where PL/pgSQL expects a statement.
    pub begins_statement: bool,
    /// The word before it was DISTINCT.
    pub after_distinct: bool,
}

/// All words of `body` in order; literals and comments left out.
///
/// `None` if some name is spelt in a way that hides it.
pub fn words(body: &str) -> Option<Vec<Word>> {
    let mut words: Vec<Word> = Vec::new();
    let mut begins_statement = true;
    let mut after_distinct = false;
    // THEN and ELSE of a CASE expression are followed by expressions.
    let mut case_depth = 0_usize;
    for token in Lexer::new(body, true) {
        let word = body.get(token.start..token.end).unwrap_or_default();
        if matches!(token.kind, Kind::UnicodeQuoted | Kind::Unterminated) {
            return None;
        }
        if token.kind == Kind::Comment {
            continue;
        }
        let Some(text) = folded(token.kind, word).map(String::from) else {
            begins_statement = matches!(word, ";" | ">>");
            after_distinct = false;
            continue;
        };
        match text.as_str() {
            "case" if !begins_statement => case_depth += 1,
            "end" => case_depth = case_depth.saturating_sub(1),
            _ => {}
        }
        let leads = case_depth == 0 && matches!(text.as_str(), "begin" | "then" | "else" | "loop" | "declare");
        let is_distinct = text == "distinct";
        words.push(Word { text, begins_statement, after_distinct });
        (begins_statement, after_distinct) = (leads, is_distinct);
    }
    Some(words)
}

/// Something that a function body may refer to by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mention {
    /// As PostgreSQL folds it, with the name in front of its dot.
    pub name: Name,
    /// What it is by its looks.
    pub looks: Looks,
    /// The literal that is its first argument.
    pub argument: Option<Box<str>>,
}

/// What a name in a function body is by its looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Looks {
    /// A parenthesis follows.
    Called,
    /// An operator.
    Operator,
    /// Neither: a key word, a variable, a column, a relation, a type.
    Word,
}

/// Everything that `body` names, whatever the names stand for; literals and comments left out.
///
/// `None` if some name is spelt in a way that hides it.
pub fn mentions(body: &str) -> Option<Vec<Mention>> {
    let tokens: Vec<Token> = Lexer::new(body, true).filter(|token| token.kind != Kind::Comment).collect();
    let text = |at: usize| tokens.get(at).and_then(|token| body.get(token.start..token.end)).unwrap_or_default();
    let name = |at: usize| folded(tokens.get(at)?.kind, text(at));
    let mut mentions = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let name_and_looks = match token.kind {
            Kind::UnicodeQuoted | Kind::Unterminated => return None,
            Kind::Word | Kind::Quoted => {
                let is_called = text(at + 1) == "(";
                name(at).map(|name| (name, if is_called { Looks::Called } else { Looks::Word }))
            }
            Kind::Operator => Some((text(at).into(), Looks::Operator)),
            _ => None,
        };
        let Some((own, looks)) = name_and_looks else { continue };
        let schema = if at >= 2 && text(at - 1) == "." { name(at - 2) } else { None };
        let is_literal = tokens.get(at + 2).is_some_and(|token| token.kind == Kind::String);
        let argument = (looks == Looks::Called && is_literal).then(|| text(at + 2).trim_matches('\'').into());
        mentions.push(Mention { name: Name { schema, name: own }, looks, argument });
    }
    Some(mentions)
}

/// A key word or identifier as PostgreSQL folds it, without quotes.
fn folded(kind: Kind, text: &str) -> Option<Box<str>> {
    match kind {
        Kind::Word => Some(text.to_ascii_lowercase().into()),
        Kind::Quoted => {
            let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            Some(inner.unwrap_or(text).replace("\"\"", "\"").into())
        }
        _ => None,
    }
}
