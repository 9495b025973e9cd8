//! The columns of a line, as pg_hba.conf and pg_ident.conf write them.

/// One word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::auth) struct Token {
    pub(in crate::auth) text: String,
    /// It began with a quote: it is a name, whatever it looks like.
    pub(in crate::auth) is_quoted: bool,
}

impl Token {
    /// Whether this is the keyword, and no name that happens to be spelled so.
    pub(in crate::auth) fn is(&self, keyword: &str) -> bool {
        !self.is_quoted && self.text == keyword
    }
}

/// A column: words separated by commas.
pub(in crate::auth) type Field = Vec<Token>;

/// Why a line has no columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::auth) enum LineError {
    /// A `"` without its partner.
    Quote,
    /// A comma with nothing before or behind it.
    Comma,
}

/// Columns are separated by blanks, words of a column by commas; what follows a `#` is a comment.
pub(in crate::auth) fn fields(line: &str) -> Result<Vec<Field>, LineError> {
    let mut fields: Vec<Field> = Vec::new();
    let mut rest = line.trim_start();
    let mut continues = false;
    while !rest.is_empty() && !rest.starts_with('#') {
        let (token, after) = token(rest)?;
        match fields.last_mut().filter(|_| continues) {
            Some(field) => field.push(token),
            None => fields.push(vec![token]),
        }
        rest = after.trim_start();
        continues = rest.starts_with(',');
        if continues {
            rest = rest.get(1..).unwrap_or_default().trim_start();
        }
    }
    if continues { Err(LineError::Comma) } else { Ok(fields) }
}

/// The word at the start, and what follows it. Quotes may begin anywhere; two of them inside are one.
fn token(text: &str) -> Result<(Token, &str), LineError> {
    let is_quoted = text.starts_with('"');
    let mut word = String::new();
    let mut is_inside = false;
    let mut characters = text.char_indices().peekable();
    let mut end = text.len();
    while let Some((position, character)) = characters.next() {
        match character {
            '"' if is_inside && characters.next_if(|(_, next)| *next == '"').is_some() => word.push('"'),
            '"' => is_inside = !is_inside,
            other if is_inside => word.push(other),
            other if other == ',' || other == '#' || other.is_ascii_whitespace() => {
                end = position;
                break;
            }
            other => word.push(other),
        }
    }
    match (is_inside, end) {
        (true, _) => Err(LineError::Quote),
        (false, 0) => Err(LineError::Comma),
        (false, end) => Ok((Token { text: word, is_quoted }, text.get(end..).unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Columns by `|`, words by `,`, quoted ones in `<>`.
    #[track_caller]
    fn check(line: &str, expected: Result<&str, LineError>) {
        let word = |token: &Token| if token.is_quoted { format!("<{}>", token.text) } else { token.text.clone() };
        let column = |field: &Field| field.iter().map(word).collect::<Vec<_>>().join(",");
        let found = fields(line).map(|fields| fields.iter().map(column).collect::<Vec<_>>().join("|"));
        assert_eq!(found, expected.map(str::to_owned), "{line:?}");
    }

    #[test]
    fn columns_are_separated_by_blanks_and_words_by_commas() {
        check("a b\tc", Ok("a|b|c"));
        check("a,b , c d", Ok("a,b,c|d"));
        check("  \t ", Ok(""));
        check("", Ok(""));
    }

    #[test]
    fn a_comment_ends_the_line_outside_of_quotes() {
        check("# all", Ok(""));
        check("a # b", Ok("a"));
        check("a#b", Ok("a"));
        check("\"a#b\" c", Ok("<a#b>|c"));
    }

    #[test]
    fn quotes_keep_blanks_and_commas_and_take_meaning_from_keywords() {
        check("\"all\" \"a , b\" \"q1\"\"q2\"", Ok("<all>|<a , b>|<q1\"q2>"));
        check("map=\"two words\"", Ok("map=two words"));
        check("\"\"", Ok("<>"));
    }

    #[test]
    fn a_quote_or_a_comma_alone_is_refused() {
        check("a \"b", Err(LineError::Quote));
        check("a,", Err(LineError::Comma));
        check(",a", Err(LineError::Comma));
        check("a,,b", Err(LineError::Comma));
    }
}
