//! Maps of pg_ident.conf: which names outside (of the operating system, of a certificate) may be which users.
//!
//! <https://www.postgresql.org/docs/current/auth-username-maps.html>

use std::{collections::HashMap, sync::Arc};

use regex::Regex;

use super::hba::{LineError, Token, fields, refuse};
use crate::config::ConfigError;

/// The maps of a file, by name.
#[derive(Clone, Debug, Default)]
pub struct IdentMaps {
    maps: HashMap<String, Arc<IdentMap>>,
}

/// The lines of one map.
#[derive(Clone, Debug, Default)]
pub struct IdentMap {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    outside: Outside,
    user: User,
}

#[derive(Clone, Debug)]
enum Outside {
    Name(String),
    /// Behind a `/`; it matches anywhere in the name unless it is anchored.
    Pattern(Regex),
}

#[derive(Clone, Debug)]
enum User {
    All,
    Name(String),
    /// What stands before and behind `\1`, the first bracket of the pattern.
    Around(String, String),
    Pattern(Regex),
}

impl IdentMaps {
    /// Reads the file's text: `map outside user` on each line.
    ///
    /// # Errors
    /// The first line that is none, by its number in `file`.
    pub fn parse(text: &str, file: &str) -> Result<IdentMaps, ConfigError> {
        let mut maps: HashMap<String, IdentMap> = HashMap::new();
        for (line, number) in text.lines().zip(1..) {
            let at = |expected: &str, got: &str| refuse(file, number, expected, got);
            let fields = fields(line).map_err(|error| error.at(file, number))?;
            let words: Option<Vec<&Token>> =
                fields.iter().map(|field| field.first().filter(|_| field.len() == 1)).collect();
            let (map, outside, user) = match words.as_deref() {
                Some([]) => continue,
                Some([map, outside, user]) => (map, outside, user),
                _ => return Err(at("a map, a name outside and a user", line)),
            };
            let entry = Entry::new(outside, user).map_err(|expected| at(expected, line))?;
            maps.entry(map.text.clone()).or_default().entries.push(entry);
        }
        Ok(IdentMaps { maps: maps.into_iter().map(|(name, map)| (name, Arc::new(map))).collect() })
    }

    /// The map of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<IdentMap>> {
        self.maps.get(name)
    }
}

impl LineError {
    pub(super) fn at(self, file: &str, line: usize) -> ConfigError {
        match self {
            LineError::Quote => refuse(file, line, "a closing quote", "the end of the line"),
            LineError::Comma => refuse(file, line, "a name beside each comma", "none"),
        }
    }
}

impl Entry {
    fn new(outside: &Token, user: &Token) -> Result<Entry, &'static str> {
        let outside = match outside.text.strip_prefix('/') {
            Some(pattern) => Outside::Pattern(regular(pattern)?),
            None => Outside::Name(outside.text.clone()),
        };
        let brackets = match &outside {
            Outside::Pattern(pattern) => pattern.captures_len() - 1,
            Outside::Name(_) => 0,
        };
        let user = match (user.text.split_once(r"\1"), &outside) {
            (Some(_), Outside::Pattern(_)) if brackets == 0 => {
                return Err(r"brackets in the regular expression that \1 refers to");
            }
            (Some((before, behind)), Outside::Pattern(_)) => User::Around(before.to_owned(), behind.to_owned()),
            _ if user.is("all") => User::All,
            _ => match user.text.strip_prefix('/') {
                Some(pattern) => User::Pattern(regular(pattern)?),
                None => User::Name(user.text.clone()),
            },
        };
        Ok(Entry { outside, user })
    }

    fn allows(&self, outside: &str, user: &str) -> bool {
        let found = match &self.outside {
            Outside::Name(name) if name == outside => "",
            Outside::Name(_) => return false,
            Outside::Pattern(pattern) => match pattern.captures(outside) {
                Some(captures) => captures.get(1).map_or("", |group| group.as_str()),
                None => return false,
            },
        };
        match &self.user {
            User::All => true,
            User::Name(name) => name == user,
            User::Pattern(pattern) => pattern.is_match(user),
            User::Around(before, behind) => {
                let rest = user.strip_prefix(before.as_str()).and_then(|rest| rest.strip_prefix(found));
                rest.is_some_and(|rest| rest == behind)
            }
        }
    }
}

fn regular(pattern: &str) -> Result<Regex, &'static str> {
    Regex::new(pattern).map_err(|_| "a regular expression behind the / (without references inside of it)")
}

impl IdentMap {
    /// Whether somebody who is known as `outside` may be `user`. The first line that says so does.
    pub fn allows(&self, outside: &str, user: &str) -> bool {
        self.entries.iter().any(|entry| entry.allows(outside, user))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The only place that asks a map: one line, somebody outside, a user.
    #[track_caller]
    fn check(line: &str, outside: &str, user: &str, allowed: bool) {
        let maps = IdentMaps::parse(line, "ident.conf").unwrap();
        assert_eq!(maps.get("m").unwrap().allows(outside, user), allowed, "{line}: {outside} as {user}");
    }

    #[track_caller]
    fn broken(text: &str, error: &str) {
        assert_eq!(IdentMaps::parse(text, "ident.conf").unwrap_err().to_string(), error);
    }

    #[test]
    fn a_line_lets_one_name_be_one_user() {
        check("m ann app", "ann", "app", true);
        check("m ann app", "ann", "ann", false);
        check("m ann app", "bob", "app", false);
        check("m \"ann b\" \"app c\" # comment", "ann b", "app c", true);
    }

    #[test]
    fn all_is_any_user_unless_it_is_quoted() {
        check("m ann all", "ann", "whoever", true);
        check("m ann \"all\"", "ann", "whoever", false);
        check("m ann \"all\"", "ann", "all", true);
    }

    #[test]
    fn several_lines_are_one_map_and_other_maps_are_others() {
        let maps = IdentMaps::parse("m ann app\n\n# x\nm bob web\nother ann root", "ident.conf").unwrap();
        let map = maps.get("m").unwrap();
        assert!(map.allows("ann", "app") && map.allows("bob", "web") && !map.allows("ann", "root"));
        assert!(maps.get("third").is_none());
    }

    #[test]
    fn a_pattern_matches_anywhere_unless_it_is_anchored() {
        check("m /nn app", "anna", "app", true);
        check("m /^nn app", "anna", "app", false);
        check("m /^ann$ app", "anna", "app", false);
    }

    #[test]
    fn the_first_bracket_stands_for_a_part_of_the_user() {
        let line = r"m /^(.*)@example\.com$ \1";
        check(line, "ann@example.com", "ann", true);
        check(line, "ann@example.com", "bob", false);
        check(line, "ann@example_com", "ann", false);
        check(r"m /^(.*)@x$ pre_\1_post", "ann@x", "pre_ann_post", true);
        check(r"m /^(.*)@x$ pre_\1_post", "ann@x", "pre_bob_post", false);
        check(r"m /^(.*)@x$ guest", "ann@x", "guest", true);
        check(r"m ann \1", "ann", r"\1", true);
    }

    #[test]
    fn users_may_be_a_pattern() {
        check("m ann /^app_", "ann", "app_one", true);
        check("m ann /^app_", "ann", "web_one", false);
    }

    #[test]
    fn a_broken_line_is_named() {
        broken("m ann app\nm ann", "ident.conf:2: expected a map, a name outside and a user, got m ann");
        broken("m ann app more", "ident.conf:1: expected a map, a name outside and a user, got m ann app more");
        broken("m ann a,b", "ident.conf:1: expected a map, a name outside and a user, got m ann a,b");
        broken("m \"ann app", "ident.conf:1: expected a closing quote, got the end of the line");
        broken(
            r"m /ann \1",
            r"ident.conf:1: expected brackets in the regular expression that \1 refers to, got m /ann \1",
        );
        broken(
            "m /( app",
            "ident.conf:1: expected a regular expression behind the / (without references inside of it), got m /( app",
        );
    }
}
