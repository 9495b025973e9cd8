//! The md5 exchange: `md5` + hex(md5(hex(md5(password + user)) + salt)).
//!
//! <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>

use md5::{Digest, Md5};
use subtle::ConstantTimeEq;

use super::secret::Secret;

/// Whether `answer` (without its closing zero) is right for the salt that was sent.
pub fn verify_md5(secret: Option<&Secret>, user: &str, salt: [u8; 4], answer: &[u8]) -> bool {
    let digits = match secret {
        Some(Secret::Plain(password)) => stored(user, password),
        Some(Secret::Md5(digits)) => digits.to_string(),
        Some(Secret::Scram(_) | Secret::None) | None => return false,
    };
    salted(&digits, salt).as_bytes().ct_eq(answer).into()
}

/// The digits stored for a password.
pub(super) fn stored(user: &str, password: &str) -> String {
    hexadecimal(&[password.as_bytes(), user.as_bytes()])
}

/// The answer to a challenge, from the stored digits.
pub(super) fn salted(digits: &str, salt: [u8; 4]) -> String {
    format!("md5{}", hexadecimal(&[digits.as_bytes(), &salt]))
}

fn hexadecimal(parts: &[&[u8]]) -> String {
    let hash = parts.iter().fold(Md5::new(), |hash, part| hash.chain_update(part)).finalize();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use postgres_protocol::authentication::md5_hash;

    use super::*;

    const SALT: [u8; 4] = [1, 0, 255, 7];

    #[track_caller]
    fn check(secret: Option<&str>, answer: &[u8], right: bool) {
        let secret = secret.map(Secret::parse);
        assert_eq!(verify_md5(secret.as_ref(), "admin", SALT, answer), right);
    }

    #[test]
    fn the_answer_of_a_client_that_knows_the_password_is_right_for_plain_and_hashed_secrets() {
        let answer = md5_hash(b"admin", b"1234", SALT);
        check(Some("1234"), answer.as_bytes(), true);
        check(Some("md545f2603610af569b6155c45067268c6b"), answer.as_bytes(), true);
    }

    #[test]
    fn any_other_answer_is_wrong() {
        check(Some("1234"), md5_hash(b"admin", b"1235", SALT).as_bytes(), false);
        check(Some("1234"), md5_hash(b"admin", b"1234", [0; 4]).as_bytes(), false);
        check(Some("1234"), b"1234", false);
        check(Some("1234"), b"", false);
    }

    #[test]
    fn an_unknown_user_and_one_without_a_password_have_no_right_answer() {
        let answer = md5_hash(b"admin", b"", SALT);
        check(None, answer.as_bytes(), false);
        check(Some(""), answer.as_bytes(), false);
    }
}
