//! How a password is normalised before it is hashed.

use std::borrow::Cow;

/// As PostgreSQL does: what SASLprep refuses is taken as it is.
pub(super) fn normalise(password: &str) -> Cow<'_, str> {
    stringprep::saslprep(password).unwrap_or(Cow::Borrowed(password))
}
