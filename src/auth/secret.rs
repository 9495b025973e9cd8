//! What is stored about a user, in the forms that `pg_authid` and userlist.txt have.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};

use super::scram::Key;

/// A stored password. `Debug` prints its form and nothing else.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The password itself.
    Plain(Box<str>),
    /// `md5` and 32 hexadecimal digits of md5(password + user); the digits.
    Md5(Box<str>),
    /// What SCRAM-SHA-256 stores.
    Scram(ScramSecret),
    /// An empty password: the user exists, and no answer is right.
    None,
}

/// `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramSecret {
    /// Rounds of hashing.
    pub iterations: u32,
    /// Hashed with the password.
    pub salt: Box<[u8]>,
    /// Tells whether a client knows the password.
    pub stored_key: Key,
    /// Proves to the client that we do.
    pub server_key: Key,
}

impl Secret {
    /// Reads a stored password; what has no known form is a plain one, as in PostgreSQL.
    pub fn parse(text: &str) -> Secret {
        if text.is_empty() {
            return Secret::None;
        }
        let scram = || ScramSecret::parse(text).map(Secret::Scram);
        md5_digits(text).or_else(scram).unwrap_or_else(|| Secret::Plain(text.into()))
    }
}

fn md5_digits(text: &str) -> Option<Secret> {
    let digits = text.strip_prefix("md5").filter(|digits| digits.len() == 32)?;
    let hexadecimal = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    hexadecimal.then(|| Secret::Md5(digits.into()))
}

impl ScramSecret {
    fn parse(text: &str) -> Option<ScramSecret> {
        let text = text.strip_prefix("SCRAM-SHA-256$")?;
        let (head, keys) = text.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        Some(ScramSecret {
            iterations: iterations.parse().ok().filter(|iterations| *iterations > 0)?,
            salt: BASE64_STANDARD.decode(salt).ok()?.into(),
            stored_key: key(stored_key)?,
            server_key: key(server_key)?,
        })
    }
}

fn key(text: &str) -> Option<Key> {
    BASE64_STANDARD.decode(text).ok()?.try_into().ok()
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Secret::Plain(_) => "Plain(***)",
            Secret::Md5(_) => "Md5(***)",
            Secret::Scram(_) => "Scram(***)",
            Secret::None => "None",
        })
    }
}

impl fmt::Debug for ScramSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ScramSecret(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The only place that reads a secret; its form is what `Debug` prints.
    #[track_caller]
    fn check(text: &str, form: &str) {
        assert_eq!(format!("{:?}", Secret::parse(text)), form, "{text:?}");
    }

    const KEYS: &str = "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=:MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=";

    #[test]
    fn each_stored_form_is_recognised() {
        check("secret", "Plain(***)");
        check("", "None");
        check("md545f2603610af569b6155c45067268c6b", "Md5(***)");
        check(&format!("SCRAM-SHA-256$4096:c2FsdA==${KEYS}"), "Scram(***)");
    }

    #[test]
    fn what_only_resembles_a_hash_is_a_plain_password() {
        check("md5", "Plain(***)");
        check("md545F2603610AF569B6155C45067268C6B", "Plain(***)");
        check("md545f2603610af569b6155c45067268c6bb", "Plain(***)");
        check("SCRAM-SHA-256$4096:c2FsdA==$c2hvcnQ=:c2hvcnQ=", "Plain(***)");
        check(&format!("SCRAM-SHA-256$0:c2FsdA==${KEYS}"), "Plain(***)");
        check(&format!("SCRAM-SHA-256$4096:*${KEYS}"), "Plain(***)");
    }
}
