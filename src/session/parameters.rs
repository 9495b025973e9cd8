//! Parameters that PostgreSQL reports and that follow the client from server to server.

use std::sync::Arc;

/// The parameters that follow a client, in PostgreSQL's spelling.
pub const TRACKED: [&str; 6] =
    ["client_encoding", "DateStyle", "TimeZone", "standard_conforming_strings", "application_name", "IntervalStyle"];

/// Values of the tracked parameters; `None` where nobody has said. Clients that begin with the same share them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    values: [Option<Arc<str>>; TRACKED.len()],
    /// All values in one piece, so that two sets are compared at once.
    joined: Arc<[u8]>,
}

/// Index of a tracked parameter; names compare without regard to case, as in PostgreSQL.
#[must_use]
pub fn tracked(name: &str) -> Option<usize> {
    TRACKED.iter().position(|tracked| tracked.eq_ignore_ascii_case(name))
}

impl Parameters {
    /// Remembers a value; false if `name` is not tracked.
    pub fn set(&mut self, name: &str, value: &str) -> bool {
        let Some(slot) = tracked(name).and_then(|index| self.values.get_mut(index)) else {
            return false;
        };
        if slot.as_deref() != Some(value) {
            *slot = Some(value.into());
            self.join();
        }
        true
    }

    fn join(&mut self) {
        let bytes = self.values.iter().map(|value| 2 + value.as_deref().map_or(0, str::len)).sum();
        let mut joined = Vec::with_capacity(bytes);
        for value in &self.values {
            // No value holds a zero byte.
            joined.push(u8::from(value.is_some()));
            joined.extend_from_slice(value.as_deref().unwrap_or_default().as_bytes());
            joined.push(0);
        }
        self.joined = joined.into();
    }

    /// The value of a tracked parameter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(tracked(name)?)?.as_deref()
    }

    /// Name and value of each parameter that has one.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        TRACKED.iter().zip(&self.values).filter_map(|(name, value)| Some((*name, value.as_deref()?)))
    }

    /// Parameters in which a server differs from what the client wants.
    pub fn differing<'a>(&'a self, server: &'a Self) -> impl Iterator<Item = (&'static str, &'a str)> {
        self.iter().filter(|(name, value)| server.get(name) != Some(*value))
    }

    /// `SET` statements that bring a server to these values; `None` if it has them already.
    #[must_use]
    pub fn synchronise(&self, server: &Self) -> Option<String> {
        if Arc::ptr_eq(&self.joined, &server.joined) || self.joined == server.joined {
            return None;
        }
        let mut text = String::new();
        for (name, value) in self.differing(server) {
            text.push_str("SET ");
            text.push_str(name);
            text.push('=');
            push_literal(&mut text, value);
            text.push(';');
        }
        Some(text).filter(|text| !text.is_empty())
    }
}

/// A string literal that means the same with `standard_conforming_strings` on and off.
pub fn push_literal(text: &mut String, value: &str) {
    if value.contains('\\') {
        text.push_str(" E");
    }
    text.push('\'');
    for character in value.chars() {
        if matches!(character, '\'' | '\\') {
            text.push(character);
        }
        text.push(character);
    }
    text.push('\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Parameters {
        let mut parameters = Parameters::default();
        for (name, value) in pairs {
            assert!(parameters.set(name, value));
        }
        parameters
    }

    #[test]
    fn equal_parameters_need_no_round_trip() {
        let client = of(&[("timezone", "UTC")]);
        assert_eq!(client.synchronise(&of(&[("TimeZone", "UTC")])), None);
    }

    #[test]
    fn only_what_differs_is_set() {
        let client = of(&[("TimeZone", "UTC"), ("application_name", "a'b")]);
        let server = of(&[("TimeZone", "UTC"), ("application_name", "")]);
        assert_eq!(client.synchronise(&server), Some("SET application_name='a''b';".into()));
    }

    #[test]
    fn what_the_client_never_asked_for_stays_as_it_is() {
        assert_eq!(Parameters::default().synchronise(&of(&[("TimeZone", "UTC")])), None);
    }

    #[test]
    fn a_backslash_cannot_end_the_literal() {
        let mut text = String::new();
        push_literal(&mut text, r"a\';b");
        assert_eq!(text, r" E'a\\'';b'");
    }

    #[test]
    fn an_untracked_parameter_is_not_taken() {
        assert!(!Parameters::default().set("work_mem", "1MB"));
    }
}
