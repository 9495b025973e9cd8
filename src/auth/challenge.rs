//! How a client is asked to prove who it is.

use subtle::ConstantTimeEq;

use super::{md5, scram, secret::Secret};
use crate::config::AuthType;

/// What is asked of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// Nothing: the user may come in.
    None,
    /// Nothing: the user may not come in (`"trust" authentication failed`).
    Refused,
    /// The password.
    ClearText,
    /// An md5 answer to a salt.
    Md5,
    /// The SCRAM-SHA-256 exchange.
    Scram,
}

/// What to ask of a user, `None` being one who is not known: such a user is asked all the same, and fails.
///
/// Methods that configuration refuses let nobody in.
pub fn challenge(auth_type: AuthType, secret: Option<&Secret>) -> Challenge {
    match (auth_type, secret) {
        (AuthType::Trust, Some(_)) => Challenge::None,
        (AuthType::Trust, None) => Challenge::Refused,
        (AuthType::Plain, _) => Challenge::ClearText,
        (AuthType::Md5, Some(Secret::Scram(_))) | (AuthType::ScramSha256, _) => Challenge::Scram,
        (AuthType::Md5, _) => Challenge::Md5,
        (AuthType::Any | AuthType::Cert | AuthType::Hba | AuthType::Ldap | AuthType::Pam, _) => Challenge::Refused,
    }
}

/// Whether a password sent in clear text (without its closing zero) is right.
pub fn verify_clear(secret: Option<&Secret>, user: &str, password: &str) -> bool {
    if password.is_empty() {
        return false;
    }
    match secret {
        Some(Secret::Plain(stored)) => stored.as_bytes().ct_eq(password.as_bytes()).into(),
        Some(Secret::Md5(digits)) => digits.as_bytes().ct_eq(md5::stored(user, password).as_bytes()).into(),
        Some(Secret::Scram(stored)) => scram::knows(stored, password),
        Some(Secret::None) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRAM: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[track_caller]
    fn asks(auth_type: AuthType, secret: Option<&str>, expected: Challenge) {
        assert_eq!(challenge(auth_type, secret.map(Secret::parse).as_ref()), expected);
    }

    #[test]
    fn trust_lets_in_whom_it_knows() {
        asks(AuthType::Trust, Some("x"), Challenge::None);
        asks(AuthType::Trust, Some(""), Challenge::None);
        asks(AuthType::Trust, None, Challenge::Refused);
    }

    #[test]
    fn md5_asks_for_scram_if_that_is_what_is_stored() {
        asks(AuthType::Md5, Some("x"), Challenge::Md5);
        asks(AuthType::Md5, Some("md545f2603610af569b6155c45067268c6b"), Challenge::Md5);
        asks(AuthType::Md5, Some(SCRAM), Challenge::Scram);
    }

    #[test]
    fn an_unknown_user_is_asked_like_any_other() {
        asks(AuthType::Md5, None, Challenge::Md5);
        asks(AuthType::ScramSha256, None, Challenge::Scram);
        asks(AuthType::Plain, None, Challenge::ClearText);
    }

    #[test]
    fn methods_that_are_not_built_let_nobody_in() {
        for auth_type in [AuthType::Any, AuthType::Cert, AuthType::Hba, AuthType::Ldap, AuthType::Pam] {
            asks(auth_type, Some("x"), Challenge::Refused);
        }
    }

    /// The only place that checks a clear-text password.
    #[track_caller]
    fn check(secret: Option<&str>, password: &str, right: bool) {
        assert_eq!(verify_clear(secret.map(Secret::parse).as_ref(), "user", password), right);
    }

    #[test]
    fn a_password_is_checked_against_every_stored_form() {
        check(Some("pencil"), "pencil", true);
        check(Some("pencil"), "pencils", false);
        let hashed = format!("md5{}", md5::stored("user", "pencil"));
        check(Some(&hashed), "pencil", true);
        check(Some(&hashed), "pencils", false);
        check(Some(SCRAM), "pencil", true);
        check(Some(SCRAM), "pencils", false);
    }

    #[test]
    fn nobody_gets_in_without_a_password() {
        for secret in [Some("pencil"), Some(""), None] {
            check(secret, "", false);
        }
        check(Some(""), "x", false);
        check(None, "x", false);
    }
}
