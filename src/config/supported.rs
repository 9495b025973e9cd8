//! Values that are well formed and still refused. Each check says what is expected instead.

use std::time::Duration;

use super::{
    choice::AuthType,
    text::{Hidden, SecretUrl},
};

/// Names of the console, which no database can have.
const CONSOLE: [&str; 2] = ["pgbouncer", "pgweir"];

type Check = Result<(), &'static str>;

fn expect(fine: bool, expected: &'static str) -> Check {
    if fine { Ok(()) } else { Err(expected) }
}

/// Whether `name` is the console's.
pub(super) fn is_console(name: &str) -> bool {
    CONSOLE.contains(&name)
}

pub(super) fn no_console_database(name: &Option<String>) -> Check {
    let console = name.as_deref().is_some_and(is_console);
    expect(!console, "a database of a server (this name is the console's)")
}

pub(super) fn auth_type(auth_type: &AuthType) -> Check {
    let elsewhere = matches!(auth_type, AuthType::Ldap | AuthType::Pam);
    expect(
        !elsewhere,
        "any, trust, plain, md5, cert, hba or scram-sha-256 (pam and ldap are not supported: \
         auth_query takes users and passwords from the server)",
    )
}

pub(super) fn peer_id(id: &u32) -> Check {
    expect(*id <= 16383, "a number up to 16383")
}

/// The bound keeps one login from holding a thread for seconds.
pub(super) fn scram_iterations(rounds: &u32) -> Check {
    expect((1..=1_000_000).contains(rounds), "a number from 1 to 1000000")
}

pub(super) fn not_zero(number: &u32) -> Check {
    expect(*number > 0, "a number above 0")
}

pub(super) fn port(port: &u16) -> Check {
    expect(*port > 0, "a port from 1 to 65535")
}

pub(super) fn weight(weight: &u32) -> Check {
    expect(*weight <= 1000, "a weight from 0 to 1000")
}

/// More often than this, the probes would be the load.
pub(super) fn probe_interval(interval: &Duration) -> Check {
    expect(*interval >= Duration::from_millis(10), "seconds, at least 0.01")
}

/// What lies in Redis is as safe as this is hard to guess.
const SECRET_CHARACTERS: usize = 16;

pub(super) fn cache_secret(secret: &Option<Hidden>) -> Check {
    let is_long = |secret: &Hidden| secret.reveal().len() >= SECRET_CHARACTERS;
    expect(secret.as_ref().is_none_or(is_long), "a secret of at least 16 characters")
}

/// The rest of it is looked at where connections are made.
pub(super) fn redis_url(url: &Option<SecretUrl>) -> Check {
    let scheme = |url: &SecretUrl| url.reveal().split("://").next().unwrap_or_default().to_owned();
    let is_known = |scheme: String| {
        let names = ["redis", "rediss", "valkey", "valkeys"];
        let kinds = ["sentinel", "cluster", "unix"];
        let (name, kind) = scheme.split_once(['+', '-']).unwrap_or((&scheme, ""));
        ["unix", "sentinel", "cluster"].contains(&name) && kind.is_empty()
            || names.contains(&name) && (kind.is_empty() || kinds.contains(&kind))
    };
    expect(
        url.as_ref().map(scheme).is_none_or(is_known),
        "an address that begins with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://",
    )
}

pub(super) fn redis_timeout(timeout: &Duration) -> Check {
    let fine = (Duration::from_micros(100)..=Duration::from_secs(1)).contains(timeout);
    expect(fine, "seconds, from 0.0001 to 1")
}

/// The client is not heard meanwhile.
pub(super) fn wait_for_lsn(timeout: &Duration) -> Check {
    expect(*timeout <= Duration::from_secs(10), "seconds, at most 10")
}

/// Less than the way to the primary and back, and the cache would be closed all the time.
pub(super) fn staleness_direct(bound: &Duration) -> Check {
    expect((Duration::from_millis(50)..=Duration::from_secs(3600)).contains(bound), "seconds, from 0.05 to 3600")
}

pub(super) fn publication(name: &str) -> Check {
    expect(!name.is_empty() && !name.contains(char::is_control), "the name of a publication")
}

pub(super) fn host_list(hosts: &str) -> Check {
    let is_host = |host: &str| !host.trim().is_empty() && !host.contains(char::is_control);
    let fine = hosts.is_empty() || hosts.split(',').all(is_host);
    expect(fine, "a host name, an address, a directory, or several separated by commas")
}
