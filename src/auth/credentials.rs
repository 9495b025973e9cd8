//! What is stored about one user, and what has been worked out from it.

use std::sync::OnceLock;

use super::{scram, secret::Secret};

/// A stored secret.
#[derive(Debug)]
pub struct Credentials {
    secret: Secret,
    /// What SCRAM makes of a password: thousands of hashes, once and not at each login.
    derived: OnceLock<Secret>,
}

impl Credentials {
    /// Of a user whose secret is this one.
    pub fn new(secret: Secret) -> Credentials {
        Credentials { secret, derived: OnceLock::new() }
    }

    /// As it is stored.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// In the form that SCRAM needs. It takes its time if the password itself is stored and `iterations` are not those
    /// of the last call.
    pub fn for_scram(&self, user: &str, mock_key: &[u8; 32], iterations: u32) -> Secret {
        let Secret::Plain(password) = &self.secret else { return self.secret.clone() };
        let derive = || Secret::Scram(scram::derive(password, &scram::salt_of(user, mock_key), iterations));
        match self.derived.get_or_init(derive) {
            Secret::Scram(known) if known.iterations != iterations => derive(),
            known => known.clone(),
        }
    }

    /// Whether [`Self::for_scram`] would take its time.
    pub fn is_slow(&self, iterations: u32) -> bool {
        let known = matches!(self.derived.get(), Some(Secret::Scram(known)) if known.iterations == iterations);
        matches!(self.secret, Secret::Plain(_)) && !known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn derived(password: &str, iterations: u32) -> Secret {
        Secret::Scram(scram::derive(password, &scram::salt_of("ann", &[1; 32]), iterations))
    }

    #[test]
    fn a_password_gives_the_same_scram_secret_at_each_login() {
        let credentials = Credentials::new(Secret::parse("secret"));
        assert!(credentials.is_slow(10));
        for _ in 0..2 {
            assert!(credentials.for_scram("ann", &[1; 32], 10) == derived("secret", 10));
            assert!(!credentials.is_slow(10));
        }
    }

    #[test]
    fn other_iterations_are_heeded() {
        let credentials = Credentials::new(Secret::parse("secret"));
        assert!(credentials.for_scram("ann", &[1; 32], 10) == derived("secret", 10));
        assert!(credentials.is_slow(11));
        assert!(credentials.for_scram("ann", &[1; 32], 11) == derived("secret", 11));
    }

    #[test]
    fn other_forms_are_used_as_they_are() {
        let credentials = Credentials::new(Secret::parse("md5aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
        assert!(!credentials.is_slow(10));
        assert!(credentials.for_scram("ann", &[1; 32], 10) == *credentials.secret());
    }
}
