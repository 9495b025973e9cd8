//! Settings with a dot in their names. PostgreSQL has no list of those that a session has set, so the names that
//! sessions of a database may set are learnt from what they send and from the functions of the database.
//!
//! <https://www.postgresql.org/docs/current/runtime-config-custom.html>

use std::sync::{Arc, Mutex, PoisonError};

/// Names beyond this many are not learnt.
const MAX_NAMES: usize = 256;
/// Longer ones are not either.
const MAX_NAME_BYTES: usize = 128;

/// The names of one database.
#[derive(Debug, Default)]
pub struct CustomSettings {
    names: Mutex<Arc<[Box<str>]>>,
}

impl CustomSettings {
    /// All of them, sorted; the same allocation until there is a new one.
    #[must_use]
    pub fn names(&self) -> Arc<[Box<str>]> {
        Arc::clone(&self.names.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// False if some did not fit.
    pub fn learn<'a>(&self, found: impl IntoIterator<Item = &'a str>) -> bool {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        for name in found {
            if let Err(at) = names.binary_search_by(|known| (**known).cmp(name)) {
                if names.len() >= MAX_NAMES {
                    return false;
                }
                let (before, behind) = names.split_at(at);
                *names = before.iter().cloned().chain([name.into()]).chain(behind.iter().cloned()).collect();
            }
        }
        true
    }
}

/// May this be the name of such a setting?
#[must_use]
pub fn is_custom(name: &str) -> bool {
    let is_part = |part: &str| {
        let mut characters = part.chars();
        characters.next().is_some_and(|first| first.is_alphabetic() || first == '_')
            && characters.all(|other| other.is_alphanumeric() || matches!(other, '_' | '$'))
    };
    name.len() <= MAX_NAME_BYTES && name.contains('.') && name.split('.').all(is_part)
}

/// The names that a text may set, in lower case: behind `SET`, and as the first argument of `set_config`, at any depth,
/// in bodies of code as well.
#[must_use]
pub fn named_in(text: &str) -> Vec<String> {
    let text = text.to_ascii_lowercase();
    let mut names = Vec::new();
    for (at, word) in text.match_indices("set") {
        let behind = text.get(at + word.len()..).unwrap_or_default();
        let name = match behind.strip_prefix("_config") {
            Some(call) => argument(call),
            None => variable(behind),
        };
        names.extend(name.map(|name| name.replace('"', "")).filter(|name| is_custom(name)));
    }
    names
}

/// `('name'`
fn argument(call: &str) -> Option<&str> {
    let quoted = call.trim_start().strip_prefix('(')?.trim_start();
    let quoted = quoted.strip_prefix('e').unwrap_or(quoted).trim_start_matches('\'');
    quoted.split_once('\'').map(|(name, _)| name)
}

/// `session name`
fn variable(behind: &str) -> Option<&str> {
    let mut words = behind.strip_prefix(char::is_whitespace)?.split([' ', '\t', '\n', '\r', '=', ';']);
    let mut words = words.by_ref().filter(|word| !word.is_empty());
    match words.next()? {
        "session" => words.next(),
        word => Some(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_wherever_they_are_set() {
        for (text, expected) in [
            ("set my.tenant = '7'", &["my.tenant"][..]),
            ("SET SESSION My.Tenant TO 7", &["my.tenant"]),
            ("set \"my\".\"tenant\" = 7", &["my.tenant"]),
            ("set work_mem = '4MB'", &[]),
            ("select set_config('my.tenant', $1, false)", &["my.tenant"]),
            ("select pg_catalog.SET_CONFIG ( 'a.b' , 'c', false), set_config('d.e.f', '', true)", &["a.b", "d.e.f"]),
            ("do $$ begin perform set_config('a.b', x, false); set c.d = 1; end $$", &["a.b", "c.d"]),
            ("execute 'set_config(''a.b'''", &["a.b"]),
            ("update t set a.b = 1", &["a.b"]),
            ("select set_config($1, 'a.b', false)", &[]),
            ("offset 1.5", &[]),
            ("set", &[]),
        ] {
            assert_eq!(named_in(text), expected, "{text}");
        }
    }

    #[test]
    fn names_are_kept_once_and_up_to_a_limit() {
        let custom = CustomSettings::default();
        assert!(custom.learn(["b.b", "a.a", "b.b"]));
        let names = custom.names();
        assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), ["a.a", "b.b"]);
        assert!(custom.learn(["a.a"]));
        assert!(Arc::ptr_eq(&names, &custom.names()));
        let many: Vec<String> = (0..MAX_NAMES).map(|number| format!("c.n{number}")).collect();
        assert!(!custom.learn(many.iter().map(String::as_str)));
        assert_eq!(custom.names().len(), MAX_NAMES);
    }
}
