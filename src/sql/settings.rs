//! Settings that PostgreSQL reports to the client, and those the proxy answers itself.

/// Prefix of the settings that the proxy answers.
pub(super) const PROXY_PREFIX: &str = "pgweir.";

/// The six parameters every server connection is brought to before it serves a client.
const TRACKED: &[&str] =
    &["application_name", "client_encoding", "datestyle", "intervalstyle", "standard_conforming_strings", "timezone"];

/// True for a parameter (in lower case) whose changes PostgreSQL reports and the proxy replays.
pub fn is_tracked_setting(name: &str) -> bool {
    TRACKED.contains(&name)
}
