//! What is wrong with a configuration, in one line.

use std::fmt;

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// As it was named on the command line or in `%include`.
    pub file: String,
    /// From 1; 0 is the file as a whole.
    pub line: usize,
}

impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => formatter.write_str(&self.file),
            line => write!(formatter, "{}:{line}", self.file),
        }
    }
}

/// What was expected at a place, and what stands there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// Where; `None` for a value that came from SET.
    pub location: Option<Location>,
    /// The key, if it is about one.
    pub key: Option<String>,
    /// What is needed.
    pub expected: String,
    /// What stands there; never a secret.
    pub got: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = &self.location {
            write!(formatter, "{location}: ")?;
        }
        if let Some(key) = &self.key {
            write!(formatter, "{}: ", printable(key))?;
        }
        write!(formatter, "expected {}, got {}", self.expected, printable(&self.got))
    }
}

/// One line, whatever the file held.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// An error before its place is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) key: Option<String>,
    pub(super) expected: String,
    pub(super) got: String,
}

impl Problem {
    pub(super) fn new(expected: impl Into<String>, got: impl Into<String>) -> Problem {
        Problem { key: None, expected: expected.into(), got: got.into() }
    }

    /// A value that is not what its key takes.
    pub(super) fn value(key: impl Into<String>, expected: impl Into<String>, value: &str) -> Problem {
        Problem::new(expected, shown(value)).of(key)
    }

    pub(super) fn of(self, key: impl Into<String>) -> Problem {
        Problem { key: Some(key.into()), ..self }
    }

    pub(super) fn at(self, location: Option<Location>) -> ConfigError {
        ConfigError { location, key: self.key, expected: self.expected, got: self.got }
    }
}

/// A refused value; the most frequent mistake is named.
fn shown(value: &str) -> String {
    let comment = value.contains(" ;") || value.contains(" #");
    match value {
        "" => "nothing".to_owned(),
        value if comment => format!("{value} (a comment needs a line of its own)"),
        value => value.to_owned(),
    }
}
