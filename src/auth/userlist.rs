//! userlist.txt: `"user" "secret" anything`, one user a line.

use std::{collections::HashMap, sync::Arc};

use super::{credentials::Credentials, secret::Secret};

/// PgBouncer's limits, in bytes.
const LONGEST_NAME: usize = 128;
const LONGEST_SECRET: usize = 65531;

/// The users that auth_file knows.
#[derive(Clone, Debug, Default)]
pub struct UserList {
    users: HashMap<Box<str>, Arc<Credentials>>,
    broken_line: Option<usize>,
    prefers_scram: bool,
}

impl UserList {
    /// Reads the file's text. Reading ends at the first line that is none, and keeps what came before.
    pub fn parse(text: &str) -> UserList {
        let mut list = UserList::default();
        let mut rest = skip_space(text);
        while !rest.is_empty() {
            let Some(after) = list.take(rest) else {
                let line = 1 + text.matches('\n').count() - rest.matches('\n').count();
                list.broken_line = Some(line);
                break;
            };
            rest = skip_space(after);
        }
        let by_scram = list.users.values().filter(|user| matches!(user.secret(), Secret::Scram(_))).count();
        list.prefers_scram = 2 * by_scram > list.users.len();
        list
    }

    /// What is stored for `user`.
    pub fn secret(&self, user: &str) -> Option<&Secret> {
        Some(self.users.get(user)?.secret())
    }

    /// The same, to be asked for.
    pub fn credentials(&self, user: &str) -> Option<&Arc<Credentials>> {
        self.users.get(user)
    }

    /// Whether an unknown user looks like the others if asked for SCRAM where md5 is enough.
    pub fn prefers_scram(&self) -> bool {
        self.prefers_scram
    }

    /// The line at which reading ended, if it did not reach the end.
    pub fn broken_line(&self) -> Option<usize> {
        self.broken_line
    }

    /// Their names, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.users.keys().map(|name| &**name)
    }

    /// How many users there are.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Adds the user at the start of `text`; what follows its line.
    fn take<'a>(&mut self, text: &'a str) -> Option<&'a str> {
        if text.starts_with(';') {
            return Some(next_line(text));
        }
        let (user, rest) = unquote(text.strip_prefix('"')?)?;
        let (_, rest) = rest.split_once('"')?;
        let (secret, rest) = unquote(rest)?;
        if user.len() >= LONGEST_NAME || secret.len() >= LONGEST_SECRET {
            return None;
        }
        self.users.insert(user.into(), Arc::new(Credentials::new(Secret::parse(&secret))));
        Some(next_line(rest))
    }
}

/// C's `isspace`.
fn skip_space(text: &str) -> &str {
    text.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b')
}

fn next_line(text: &str) -> &str {
    text.split_once('\n').map_or("", |(_, rest)| rest)
}

/// What stands before the closing quote, doubled quotes made single, and what follows.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"')?;
        value.push_str(part);
        match after.strip_prefix('"') {
            Some(after) => {
                value.push('"');
                rest = after;
            }
            None => return Some((value, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The only place that reads a list: users with plain secrets, and the line that ended the reading.
    #[track_caller]
    fn check(text: &str, users: &[(&str, &str)], broken_line: Option<usize>) {
        let list = UserList::parse(text);
        let mut found: Vec<_> = list.users.iter().map(|(user, listed)| (user, listed.secret())).collect();
        found.sort_by_key(|(user, _)| user.to_string());
        let plain = |secret: &Secret| match secret {
            Secret::Plain(password) => password.to_string(),
            other => format!("{other:?}"),
        };
        let found: Vec<_> = found.into_iter().map(|(user, secret)| (user.to_string(), plain(secret))).collect();
        let users: Vec<_> = users.iter().map(|(user, secret)| (user.to_string(), secret.to_string())).collect();
        assert_eq!((found, list.broken_line), (users, broken_line), "{text:?}");
    }

    #[test]
    fn unknown_users_look_like_most_of_the_listed_ones() {
        let scram = "SCRAM-SHA-256$1:c2FsdA==$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=:MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=";
        let prefers = |text: &str| UserList::parse(text).prefers_scram();
        assert!(!prefers(""));
        assert!(!prefers("\"a\" \"x\""));
        assert!(prefers(&format!("\"a\" \"{scram}\"")));
        assert!(!prefers(&format!("\"a\" \"{scram}\"\n\"b\" \"x\"")));
    }

    #[test]
    fn a_line_is_a_name_and_a_secret_in_double_quotes() {
        check("\"ann\" \"secret\"\n\"bob\" \"other\"", &[("ann", "secret"), ("bob", "other")], None);
        check("", &[], None);
    }

    #[test]
    fn whatever_follows_the_secret_is_ignored() {
        check("\"ann\" \"secret\" \"\" # x\r\n  \"bob\"\t\"b\" y", &[("ann", "secret"), ("bob", "b")], None);
    }

    #[test]
    fn a_doubled_quote_is_a_quote() {
        check(r#""a""b" "p""""q""#, &[("a\"b", "p\"\"q")], None);
    }

    #[test]
    fn lines_with_a_semicolon_are_comments_and_lines_with_a_hash_are_not() {
        check("; x\n\"ann\" \"a\"\n;\n\"bob\" \"b\"", &[("ann", "a"), ("bob", "b")], None);
        check("\"ann\" \"a\"\n# x\n\"bob\" \"b\"", &[("ann", "a")], Some(2));
    }

    #[test]
    fn the_first_broken_line_ends_the_reading_and_keeps_what_came_before() {
        check("\"ann\" \"a\"\n\nbob b\n\"eve\" \"e\"", &[("ann", "a")], Some(3));
        check("\"ann\" \"a\"\n\"bob\" \"b", &[("ann", "a")], Some(2));
        check("\"ann\"", &[], Some(1));
    }

    #[test]
    fn the_last_line_of_a_user_counts() {
        check("\"ann\" \"a\"\n\"ann\" \"b\"", &[("ann", "b")], None);
    }

    #[test]
    fn an_empty_secret_is_none() {
        check("\"ann\" \"\"", &[("ann", "None")], None);
    }

    #[test]
    fn names_and_secrets_that_postgresql_cannot_have_end_the_reading() {
        check(&format!("\"{}\" \"a\"", "n".repeat(128)), &[], Some(1));
        check(&format!("\"ann\" \"{}\"", "s".repeat(65531)), &[], Some(1));
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in r#"["; \n\r\tamd5é]{0,60}"#, any in ".*") {
            UserList::parse(&text);
            UserList::parse(&any);
        }
    }
}
