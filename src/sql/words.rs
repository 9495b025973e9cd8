//! The words of a function body, for what must be ruled out rather than understood.

use super::lexer::{Kind, Lexer};

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
        let text = match token.kind {
            Kind::Comment => continue,
            Kind::UnicodeQuoted | Kind::Unterminated => return None,
            Kind::Word => word.to_ascii_lowercase(),
            Kind::Quoted => {
                let inner = word.strip_prefix('"').and_then(|word| word.strip_suffix('"'));
                inner.unwrap_or(word).replace("\"\"", "\"")
            }
            _ => {
                begins_statement = matches!(word, ";" | ">>");
                after_distinct = false;
                continue;
            }
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
