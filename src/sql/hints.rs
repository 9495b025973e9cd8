//! Requests to the proxy in comments: `/* pgweir: primary, nocache */`.

use std::time::Duration;

use memchr::memmem;

use super::lexer::{Kind, Lexer};

const MARK: &str = "pgweir:";

/// What the leading and trailing comments of a query string ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// `primary` or `replica`.
    pub route: Option<RouteHint>,
    /// `max_staleness=2s`
    pub max_staleness: Option<Duration>,
    /// `nocache`, `cache`, `cache ttl=30s`
    pub cache: Option<CacheHint>,
    /// `cache strict`: wait until writes that bypass the proxy are known as well.
    pub strict: bool,
    /// Hints that were not understood.
    pub unknown: u32,
}

/// Where a hint sends a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteHint {
    /// To the primary.
    Primary,
    /// To a replica, even one that has not replayed the session's writes.
    Replica,
}

/// What a hint asks of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheHint {
    /// Neither answer from it nor fill it.
    No,
    /// Use it, with this bound on the age of an answer.
    Ttl(Duration),
    /// Use it.
    On,
}

/// True for a comment that takes part in the memo key.
pub(super) fn is_hint(comment: &[u8]) -> bool {
    memmem::find(comment, MARK.as_bytes()).is_some()
}

impl Hints {
    /// Reads the comments before the first and after the last token.
    pub(super) fn read(text: &str, standard_strings: bool) -> Self {
        let mut hints = Self::default();
        let mut trailing: Vec<&str> = Vec::new();
        let mut leading = true;
        for token in Lexer::new(text, standard_strings) {
            let word = text.get(token.start..token.end).unwrap_or_default();
            match token.kind {
                Kind::Comment if leading => hints.comment(word),
                Kind::Comment => trailing.push(word),
                Kind::Symbol if word == ";" => {}
                _ => {
                    leading = false;
                    trailing.clear();
                }
            }
        }
        trailing.into_iter().for_each(|comment| hints.comment(comment));
        hints
    }

    fn comment(&mut self, comment: &str) {
        let inside = match comment.strip_prefix("/*") {
            Some(block) => block.strip_suffix("*/").unwrap_or(block),
            None => comment.trim_start_matches('-'),
        };
        let Some(list) = inside.trim().strip_prefix(MARK) else {
            return;
        };
        for hint in list.split(',') {
            if self.hint(hint.trim()).is_none() {
                self.unknown += 1;
            }
        }
    }

    /// `None` for a hint that is not known.
    fn hint(&mut self, hint: &str) -> Option<()> {
        let (word, rest) = hint.split_once(char::is_whitespace).unwrap_or((hint, ""));
        match (word.to_ascii_lowercase().as_str(), rest.trim()) {
            ("primary", "") => self.route = Some(RouteHint::Primary),
            ("replica", "") => self.route = Some(RouteHint::Replica),
            ("nocache", "") => self.cache = Some(CacheHint::No),
            ("cache", options) => return self.cache_options(options),
            _ => {
                let (name, value) = hint.split_once('=')?;
                if !name.trim().eq_ignore_ascii_case("max_staleness") {
                    return None;
                }
                self.max_staleness = Some(duration(value)?);
            }
        }
        Some(())
    }

    fn cache_options(&mut self, options: &str) -> Option<()> {
        let mut cache = CacheHint::On;
        let mut strict = false;
        for option in options.split_whitespace() {
            match option.split_once('=') {
                Some((name, value)) if name.eq_ignore_ascii_case("ttl") => cache = CacheHint::Ttl(duration(value)?),
                None if option.eq_ignore_ascii_case("strict") => strict = true,
                _ => return None,
            }
        }
        self.cache = Some(cache);
        self.strict |= strict;
        Some(())
    }
}

/// `2s`, `500ms`, `1.5min`; a bare number is seconds.
fn duration(text: &str) -> Option<Duration> {
    let text = text.trim().trim_matches('\'');
    let digits = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let seconds = match unit.trim() {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "min" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()
}
