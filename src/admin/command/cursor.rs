//! Reads words off the front of a command.

/// What of the text is not read yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    /// All that is left, as it was sent.
    pub(super) fn rest(&self) -> &'a str {
        self.rest
    }

    /// Says whether there was any.
    pub(super) fn skip_space(&mut self) -> bool {
        let trimmed = self.rest.trim_start_matches(is_space);
        let skipped = trimmed.len() < self.rest.len();
        self.rest = trimmed;
        skipped
    }

    /// Nothing is left but space and one `;`.
    pub(super) fn is_at_end(&self) -> bool {
        let rest = self.rest.trim_start_matches(is_space);
        rest.strip_prefix(';').unwrap_or(rest).trim_start_matches(is_space).is_empty()
    }

    /// `[0-9a-z_]+` or `"quoted"`; nothing is read where there is none.
    pub(super) fn word(&mut self) -> Option<String> {
        if self.rest.starts_with('"') {
            return self.quoted('"');
        }
        let end = self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len());
        self.split(end)
    }

    /// Space and a word, or the end: `None` where it is neither.
    pub(super) fn argument(&mut self) -> Option<Option<String>> {
        if self.is_at_end() {
            return Some(None);
        }
        self.skip_space().then_some(())?;
        self.word().map(Some)
    }

    /// Space and words joined by dots, as `shop.public."Order"`.
    pub(super) fn path_argument(&mut self) -> Option<Vec<String>> {
        self.skip_space().then_some(())?;
        let mut path = vec![self.word()?];
        while self.take(".") {
            path.push(self.word()?);
        }
        Some(path)
    }

    /// `'quoted'`, `"quoted"`, or all up to space or `;`.
    pub(super) fn value(&mut self) -> Option<String> {
        match self.rest.chars().next()? {
            quote @ ('\'' | '"') => self.quoted(quote),
            _ => {
                let end = self.rest.find(|c| is_space(c) || c == ';' || c == '\'' || c == '"');
                self.split(end.unwrap_or(self.rest.len()))
            }
        }
    }

    /// Reads `text` if it comes next.
    pub(super) fn take(&mut self, text: &str) -> bool {
        self.rest.strip_prefix(text).inspect(|rest| self.rest = rest).is_some()
    }

    /// Reads `text` if it comes next in any case.
    pub(super) fn take_ignoring_case(&mut self, text: &str) -> bool {
        let Some((front, rest)) = self.rest.split_at_checked(text.len()) else {
            return false;
        };
        let found = front.eq_ignore_ascii_case(text);
        if found {
            self.rest = rest;
        }
        found
    }

    /// Two quotes inside stand for one.
    fn quoted(&mut self, quote: char) -> Option<String> {
        let mut text = String::new();
        let mut characters = self.rest.char_indices().skip(1).peekable();
        while let Some((at, c)) = characters.next() {
            if c != quote {
                text.push(c);
            } else if characters.next_if(|&(_, next)| next == quote).is_some() {
                text.push(quote);
            } else {
                self.rest = self.rest.get(at + quote.len_utf8()..)?;
                return Some(text);
            }
        }
        None
    }

    fn split(&mut self, end: usize) -> Option<String> {
        let (front, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        (!front.is_empty()).then(|| front.to_owned())
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}
