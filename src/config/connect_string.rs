//! Connect strings: `host=db1 password='it''s'`. Blanks separate, only single quotes quote.

use super::error::Problem;

/// The pairs in their order.
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>, Problem> {
    let mut pairs = Vec::new();
    let mut rest = skip_blanks(text);
    while !rest.is_empty() {
        let (key, after) = key(rest)?;
        let (value, after) = value(after).map_err(|problem| problem.of(key))?;
        pairs.push((key.to_owned(), value));
        rest = skip_blanks(after);
    }
    Ok(pairs)
}

fn skip_blanks(text: &str) -> &str {
    text.trim_start_matches(' ')
}

/// A value is never quoted in these errors: it may be a part of a password.
fn key(text: &str) -> Result<(&str, &str), Problem> {
    let end = text.find(['=', ' ']).unwrap_or(text.len());
    let (key, rest) = text.split_at(end);
    match skip_blanks(rest).strip_prefix('=') {
        Some(rest) if !key.is_empty() => Ok((key, rest)),
        Some(_) => Err(Problem::new("key=value pairs", "a value without a key")),
        None => Err(Problem::new("key=value pairs (values with blanks in single quotes)", "a word without =")),
    }
}

/// Blanks after `=` are skipped, so `host= port=1` is a host named `port=1`, as in PgBouncer.
fn value(text: &str) -> Result<(String, &str), Problem> {
    let text = skip_blanks(text);
    let (value, rest) = match text.strip_prefix('\'') {
        Some(quoted) => unquote(quoted)?,
        None => {
            let (value, rest) = text.split_at(text.find(' ').unwrap_or(text.len()));
            (value.to_owned(), rest)
        }
    };
    if value.is_empty() {
        return Err(Problem::new("a value", "nothing"));
    }
    Ok((value, rest))
}

/// `text` begins after the opening quote.
fn unquote(text: &str) -> Result<(String, &str), Problem> {
    let mut value = String::new();
    let mut rest = text;
    while let Some((part, after)) = rest.split_once('\'') {
        value.push_str(part);
        match after.strip_prefix('\'') {
            Some(after) => {
                value.push('\'');
                rest = after;
            }
            None if after.is_empty() || after.starts_with(' ') => return Ok((value, after)),
            None => return Err(Problem::new("a blank after the closing quote", "more text")),
        }
    }
    Err(Problem::new("a closing single quote", "the end of the line"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The only place that reads a connect string; `Err` is what was expected.
    #[track_caller]
    fn check(text: &str, expected: Result<&[(&str, &str)], &str>) {
        let pairs = parse(text).map_err(|problem| problem.expected);
        let owned = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        assert_eq!(pairs, expected.map(owned).map_err(str::to_owned), "{text:?}");
    }

    #[test]
    fn pairs_are_separated_by_blanks() {
        check("", Ok(&[]));
        check("   ", Ok(&[]));
        check("host=db1  port=5432 ", Ok(&[("host", "db1"), ("port", "5432")]));
        check("host = db1", Ok(&[("host", "db1")]));
    }

    #[test]
    fn a_quoted_value_may_hold_blanks_and_doubled_quotes() {
        check("password='it''s a = b' user=u", Ok(&[("password", "it's a = b"), ("user", "u")]));
        check("a='''' b=c", Ok(&[("a", "'"), ("b", "c")]));
    }

    #[test]
    fn a_blank_after_the_equals_sign_is_skipped_so_the_next_word_is_the_value() {
        check("host= port=5432", Ok(&[("host", "port=5432")]));
    }

    #[test]
    fn an_empty_value_is_refused() {
        check("host=", Err("a value"));
        check("host='' port=1", Err("a value"));
    }

    #[test]
    fn what_is_no_pair_is_refused() {
        check("host", Err("key=value pairs (values with blanks in single quotes)"));
        check("password=my secret host=a", Err("key=value pairs (values with blanks in single quotes)"));
        check("=db1", Err("key=value pairs"));
        check("host='db1", Err("a closing single quote"));
        check("host='db1'port=1", Err("a blank after the closing quote"));
        check("postgres://db1/shop", Err("key=value pairs (values with blanks in single quotes)"));
    }

    #[test]
    fn no_error_repeats_a_value() {
        let problem = parse("password=my hunter2 host=a").unwrap_err();
        assert!(!format!("{problem:?}").contains("hunter2"));
    }
}
