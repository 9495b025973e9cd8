//! The syntax of PgBouncer's files: sections, `key = value`, whole-line comments, `%include`.

use std::io;

use super::error::{ConfigError, Location, Problem};

/// Files inside files inside files, at most.
const DEEPEST_INCLUDE: usize = 10;

/// How an included file is read.
pub type ReadInclude<'a> = &'a dyn Fn(&str) -> io::Result<String>;

/// One thing a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event<'a> {
    Section(&'a str),
    Pair { key: &'a str, value: &'a str },
}

/// Where each event goes.
pub(super) type Sink<'a> = &'a mut dyn FnMut(&Location, Event<'_>) -> Result<(), Problem>;

/// Reads `text` and what it includes, in order, until the end or the first error.
pub(super) fn read(text: &str, file: &str, include: ReadInclude<'_>, sink: Sink<'_>) -> Result<(), ConfigError> {
    read_nested(text, file, include, sink, 0)
}

fn read_nested(
    text: &str,
    file: &str,
    include: ReadInclude<'_>,
    sink: Sink<'_>,
    depth: usize,
) -> Result<(), ConfigError> {
    let mut cursor = Cursor { rest: text, line: 1 };
    loop {
        cursor.take_while(is_space);
        let location = Location { file: file.to_owned(), line: cursor.line };
        let failed = |problem: Problem| problem.at(Some(location.clone()));
        let event = match cursor.statement().map_err(failed)? {
            Statement::End => return Ok(()),
            Statement::Comment => continue,
            Statement::Include(name) => {
                let text = included(name, include, depth).map_err(failed)?;
                read_nested(&text, name, include, sink, depth + 1)?;
                continue;
            }
            Statement::Event(event) => event,
        };
        utf8(event).and_then(|()| sink(&location, event)).map_err(failed)?;
    }
}

fn included(name: &str, include: ReadInclude<'_>, depth: usize) -> Result<String, Problem> {
    if depth >= DEEPEST_INCLUDE {
        let expected = format!("at most {DEEPEST_INCLUDE} files inside each other");
        return Err(Problem::new(expected, name).of("%include"));
    }
    let unreadable = |error: io::Error| Problem::new("a readable file", format!("{name} ({error})")).of("%include");
    include(name).map_err(unreadable)
}

/// Files that are not UTF-8 are read with replacement characters, so that a comment in another encoding does no harm.
fn utf8(event: Event<'_>) -> Result<(), Problem> {
    let (Event::Section(text) | Event::Pair { value: text, .. }) = event;
    match event {
        Event::Pair { key, .. } if text.contains(char::REPLACEMENT_CHARACTER) => {
            Err(Problem::new("UTF-8", "another encoding").of(key))
        }
        Event::Section(_) | Event::Pair { .. } => Ok(()),
    }
}

/// C's `isspace`.
fn is_space(c: char) -> bool {
    c.is_ascii_whitespace() || c == '\x0b'
}

fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}

fn is_key(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_.-*".contains(c)
}

enum Statement<'a> {
    End,
    Comment,
    Include(&'a str),
    Event(Event<'a>),
}

struct Cursor<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Cursor<'a> {
    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.line += taken.matches('\n').count();
        taken
    }

    /// Takes `c` if it comes next; it is never a line feed.
    fn take(&mut self, c: char) -> bool {
        let rest = self.rest.strip_prefix(c);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn rest_of_line(&mut self) -> &'a str {
        self.take_while(|c| c != '\n').trim_end_matches(is_space)
    }

    fn syntax_error(&self, expected: &str) -> Problem {
        let next = self.rest.chars().next().filter(|c| *c != '\n' && *c != '\r');
        let got = next.map_or("the end of the line".to_owned(), |c| format!("`{c}`"));
        Problem::new(expected, got)
    }

    fn statement(&mut self) -> Result<Statement<'a>, Problem> {
        if let Some(name) = self.include() {
            return Ok(Statement::Include(name));
        }
        match self.rest.chars().next() {
            None => Ok(Statement::End),
            Some('#' | ';') => {
                self.rest_of_line();
                Ok(Statement::Comment)
            }
            Some('[') => self.section().map(Statement::Event),
            Some(_) => self.pair().map(Statement::Event),
        }
    }

    fn include(&mut self) -> Option<&'a str> {
        let name = self.rest.strip_prefix("%include")?;
        self.rest = name.starts_with(is_blank).then_some(name)?;
        self.take_while(is_blank);
        Some(self.rest_of_line())
    }

    /// What follows the bracket on its line is read as if it stood on the next.
    fn section(&mut self) -> Result<Event<'a>, Problem> {
        self.take('[');
        let name = self.take_while(|c| c != ']' && c != '\n');
        if !self.take(']') {
            return Err(Problem::new("] after the name of the section", "the end of the line").of(name.trim()));
        }
        Ok(Event::Section(name))
    }

    fn pair(&mut self) -> Result<Event<'a>, Problem> {
        if self.rest.starts_with('"') {
            return Err(self.syntax_error("a name in single quotes, or without"));
        }
        let key = if self.rest.starts_with('\'') { self.quoted_key()? } else { self.take_while(is_key) };
        self.take_while(is_blank);
        if !self.take('=') {
            let problem = self.syntax_error("key = value");
            return Err(if key.is_empty() { problem } else { problem.of(key) });
        }
        self.take_while(is_blank);
        Ok(Event::Pair { key, value: self.rest_of_line() })
    }

    /// There is no escape for a quote inside.
    fn quoted_key(&mut self) -> Result<&'a str, Problem> {
        self.take('\'');
        let key = self.take_while(|c| c != '\'');
        if key.is_empty() || !self.take('\'') {
            return Err(Problem::new("a name between single quotes", "none"));
        }
        Ok(key)
    }
}

#[cfg(test)]
mod tests;
