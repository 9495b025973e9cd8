//! How a client is asked to prove who it is.

use subtle::ConstantTimeEq;

use super::{Connection, HbaRule, HbaRules, Refusal, md5, scram, secret::Secret};
use crate::config::AuthType;

/// What has to be proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Nothing; everybody is the database's user.
    Any,
    /// Nothing, but the user must be known.
    Trust,
    /// The password, in clear text.
    Plain,
    /// The password, by md5 or, where a SCRAM secret is stored, by SCRAM.
    Md5,
    /// The password, by SCRAM.
    ScramSha256,
    /// That the name is one of the client's certificate.
    Cert,
    /// That the name is the one of the operating system's user at the other end of the unix socket.
    Peer,
    /// It is of no use.
    Reject,
}

/// What is asked of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// Nothing: the user may come in.
    None,
    /// Nothing: the user may not come in.
    Refused(Refusal),
    /// The password.
    ClearText,
    /// An md5 answer to a salt.
    Md5,
    /// The SCRAM-SHA-256 exchange.
    Scram,
    /// Nothing: the certificate is looked at.
    Certificate,
    /// Nothing: the unix socket tells.
    Peer,
}

/// How this connection has to prove who it is, and the rule that says so, if rules say it.
pub fn method<'r>(
    auth_type: AuthType,
    rules: &'r HbaRules,
    connection: &Connection<'_>,
) -> Result<(Method, Option<&'r HbaRule>), Refusal> {
    let method = match auth_type {
        AuthType::Any => Method::Any,
        AuthType::Trust => Method::Trust,
        AuthType::Plain => Method::Plain,
        AuthType::Md5 => Method::Md5,
        AuthType::ScramSha256 => Method::ScramSha256,
        AuthType::Cert => Method::Cert,
        AuthType::Hba => {
            let rule = rules.find(connection).ok_or(Refusal::NoRule)?;
            return Ok((rule.method, Some(rule)));
        }
        // Configuration refuses them.
        AuthType::Ldap | AuthType::Pam => Method::Reject,
    };
    Ok((method, None))
}

/// What to ask of a user, `None` being one who is not known: such a user is asked all the same, and fails.
///
/// `unknown_by_scram`: what `md5` asks of those, so that they look like the others.
pub fn challenge(method: Method, secret: Option<&Secret>, unknown_by_scram: bool) -> Challenge {
    match (method, secret) {
        (Method::Any, _) | (Method::Trust, Some(_)) => Challenge::None,
        (Method::Trust, None) => Challenge::Refused(Refusal::Trust),
        (Method::Plain, _) => Challenge::ClearText,
        (Method::ScramSha256, _) | (Method::Md5, Some(Secret::Scram(_))) => Challenge::Scram,
        (Method::Md5, None) if unknown_by_scram => Challenge::Scram,
        (Method::Md5, _) => Challenge::Md5,
        (Method::Cert, Some(_)) => Challenge::Certificate,
        (Method::Cert, None) => Challenge::Refused(Refusal::Certificate),
        (Method::Peer, Some(_)) => Challenge::Peer,
        (Method::Peer, None) => Challenge::Refused(Refusal::Peer),
        (Method::Reject, _) => Challenge::Refused(Refusal::Rejected),
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
    fn asks(method: Method, secret: Option<&str>, expected: Challenge) {
        assert_eq!(challenge(method, secret.map(Secret::parse).as_ref(), false), expected);
    }

    #[test]
    fn trust_lets_in_whom_it_knows() {
        asks(Method::Trust, Some("x"), Challenge::None);
        asks(Method::Trust, Some(""), Challenge::None);
        asks(Method::Trust, None, Challenge::Refused(Refusal::Trust));
    }

    #[test]
    fn any_lets_everybody_in_and_reject_nobody() {
        for secret in [Some("x"), Some(""), None] {
            asks(Method::Any, secret, Challenge::None);
            asks(Method::Reject, secret, Challenge::Refused(Refusal::Rejected));
        }
    }

    #[test]
    fn md5_asks_for_scram_if_that_is_what_is_stored() {
        asks(Method::Md5, Some("x"), Challenge::Md5);
        asks(Method::Md5, Some("md545f2603610af569b6155c45067268c6b"), Challenge::Md5);
        asks(Method::Md5, Some(SCRAM), Challenge::Scram);
    }

    #[test]
    fn an_unknown_user_is_asked_like_any_other() {
        asks(Method::Md5, None, Challenge::Md5);
        assert_eq!(challenge(Method::Md5, None, true), Challenge::Scram);
        asks(Method::ScramSha256, None, Challenge::Scram);
        asks(Method::Plain, None, Challenge::ClearText);
    }

    #[test]
    fn certificates_and_sockets_vouch_for_known_users_only() {
        asks(Method::Cert, Some(""), Challenge::Certificate);
        asks(Method::Cert, None, Challenge::Refused(Refusal::Certificate));
        asks(Method::Peer, Some(""), Challenge::Peer);
        asks(Method::Peer, None, Challenge::Refused(Refusal::Peer));
    }

    #[test]
    fn with_rules_the_connection_decides() {
        let maps = crate::auth::IdentMaps::default();
        let no_file = |_: &str| Err(std::io::ErrorKind::NotFound.into());
        let rules = HbaRules::parse("host shop all all reject\nlocal all all peer\n", "hba.conf", &maps, &no_file);
        let rules = rules.unwrap();
        let local = Connection { address: None, is_tls: false, database: "shop", user: "a", is_replication: false };
        let remote = Connection { address: Some([10, 0, 0, 1].into()), ..local };
        let found = |auth_type, connection| method(auth_type, &rules, &connection).map(|(method, _)| method);
        assert_eq!(found(AuthType::Hba, local), Ok(Method::Peer));
        assert_eq!(found(AuthType::Hba, remote), Ok(Method::Reject));
        assert_eq!(found(AuthType::Hba, Connection { database: "other", ..remote }), Err(Refusal::NoRule));
        assert_eq!(found(AuthType::Md5, remote), Ok(Method::Md5));
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
