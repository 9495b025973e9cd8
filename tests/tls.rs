//! TLS on both sides: real libpq, rustls clients that say exact bytes, PostgreSQL with and without `ssl = on`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails loudly"
)]

mod support;

#[path = "tls/clients.rs"]
mod clients;
#[path = "tls/reloading.rs"]
mod reloading;
#[path = "tls/servers.rs"]
mod servers;

use std::{path::Path, process::Stdio, sync::OnceLock};

use support::{Authority, Cluster, Pair, Proxy, cluster, cluster::USER, programs, proxy::Builder};

/// Whom everybody trusts.
fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| Authority::new("weir test authority"))
}

/// Whom nobody knows.
fn stranger() -> &'static Authority {
    static STRANGER: OnceLock<Authority> = OnceLock::new();
    STRANGER.get_or_init(|| Authority::new("nobody"))
}

/// What the proxy shows.
fn own() -> &'static Pair {
    static OWN: OnceLock<Pair> = OnceLock::new();
    OWN.get_or_init(|| authority().issue("pgweir", &["localhost", "127.0.0.1"]))
}

/// The primary has TLS and a right certificate for 127.0.0.1, the first replica an expired one, the second no TLS.
fn encrypting_cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<()> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let [expired, _plain] = &cluster().replicas;
        let right = authority().issue("db", &["127.0.0.1"]);
        let old = authority().issue_expired("db", &["127.0.0.1"]);
        for (member, pair) in [(&cluster().primary, right), (expired, old)] {
            member.configure("ssl_cert_file", &pair.certificate.display().to_string());
            member.configure("ssl_key_file", &pair.key.display().to_string());
            member.configure("ssl_ca_file", &authority().file().display().to_string());
            member.configure("ssl", "on");
        }
    });
    cluster()
}

/// A proxy of one database with TLS for its clients.
fn offering(database: &str, mode: &str) -> Builder {
    Proxy::of(encrypting_cluster(), database)
        .set("client_tls_sslmode", mode)
        .set("client_tls_key_file", own().key.display())
        .set("client_tls_cert_file", own().certificate.display())
        .set("client_tls_ca_file", authority().file().display())
}

/// What psql is told beside host, user and database.
fn psql(proxy: &Proxy, database: &str, how: &str, sql: &str) -> Result<String, String> {
    let mut command = programs::command(&programs::program("psql", "postgresql-client"));
    let target = format!("host=localhost hostaddr=127.0.0.1 port={} dbname={database} {how}", proxy.port);
    let target = if how.contains("user=") { target } else { format!("{target} user={USER}") };
    command.env("HOME", "/nonexistent").args(["-XAt", "-v", "ON_ERROR_STOP=1", "-c", sql, &target]);
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(said) } else { Err(errors) }
}

/// For libpq: this certificate is shown.
fn showing(pair: &Pair) -> String {
    format!("sslcert={} sslkey={}", pair.certificate.display(), pair.key.display())
}

/// For libpq: this file says who is trusted.
fn trusting(file: &Path) -> String {
    format!("sslrootcert={}", file.display())
}
