//! RELOAD, SET and wrong files.

use std::fs;

use crate::{
    authority, encrypting_cluster, offering, own,
    support::{Proxy, RawClient, cluster::USER, scratch::scratch},
};

fn encrypted(proxy: &Proxy, database: &str) -> RawClient {
    let plain = RawClient::connect(&proxy.address());
    let mut client = plain.try_encrypt(&authority().trusting_client(&[])).unwrap();
    client.log_in(&[("user", USER), ("database", database)], "").unwrap();
    client
}

#[test]
fn a_renewed_certificate_is_read_again_and_nobody_is_disconnected() {
    let database = encrypting_cluster().database();
    let first = authority().issue("first", &["localhost"]);
    let proxy = offering(&database, "allow")
        .set("client_tls_key_file", first.key.display())
        .set("client_tls_cert_file", first.certificate.display())
        .start();
    let mut before = encrypted(&proxy, &database);
    assert_eq!(before.certificate().as_ref(), Some(&first.der));
    before.rows("begin");
    let second = authority().renew(&first, "second", &["localhost"]);
    proxy.tell("RELOAD");
    let mut after = encrypted(&proxy, &database);
    assert_eq!(after.certificate().as_ref(), Some(&second.der));
    assert_eq!(after.value("select 1"), "1");
    assert_eq!(before.value("select 2"), "2");
    before.rows("commit");

    // Another key than the certificate's.
    fs::copy(&own().key, &second.key).unwrap();
    let reply = proxy.console().query("RELOAD");
    assert_eq!(reply.sqlstate(), "F0000", "{reply:?}");
    assert!(proxy.log().contains("pgweir.ini:"), "{}", proxy.last_words());
    assert!(proxy.log().contains("client_tls_key_file: expected the private key of"), "{}", proxy.last_words());
    assert_eq!(encrypted(&proxy, &database).certificate().as_ref(), Some(&second.der));
    assert_eq!(before.value("select 3"), "3");
}

#[test]
fn server_connections_are_replaced_when_a_setting_changes_and_not_otherwise() {
    let database = encrypting_cluster().database();
    let proxy = Proxy::of(encrypting_cluster(), &database).set("server_tls_sslmode", "disable").start();
    let (mut idle, mut busy) = (proxy.session(&database), proxy.session(&database));
    let about = "select pg_backend_pid() || ' ' || ssl from pg_stat_ssl where pid = pg_backend_pid()";
    let first = idle.value(about);
    assert!(first.ends_with(" false"), "{first}");
    proxy.tell("RELOAD");
    assert_eq!(idle.value(about), first);

    busy.rows("begin");
    let of_busy = busy.value(about);
    proxy.rewrite(|text| text.replace("server_tls_sslmode = disable", "server_tls_sslmode = require"));
    proxy.tell("RELOAD");
    assert_eq!(busy.value(about), of_busy, "a transaction stays where it is");
    busy.rows("commit");
    let (second, of_busy) = (idle.value(about), busy.value(about));
    assert!(second.ends_with(" true") && of_busy.ends_with(" true"), "{second} {of_busy}");
    proxy.tell("RELOAD");
    assert_eq!(idle.value(about), of_busy);
}

#[test]
fn a_setting_of_tls_takes_effect_at_once_by_set() {
    let database = encrypting_cluster().database();
    let proxy = offering(&database, "allow").start();
    assert_eq!(proxy.session(&database).value("select 1"), "1");
    proxy.tell("SET client_tls_sslmode = 'require'");
    let error = RawClient::connect(&proxy.address()).log_in(&[("user", USER), ("database", &database)], "");
    assert_eq!(error.unwrap_err().field(b'M').as_deref(), Some("SSL required"));
    assert_eq!(encrypted(&proxy, &database).value("select 1"), "1");
}

#[test]
fn a_file_that_cannot_be_used_keeps_the_process_from_starting() {
    let database = encrypting_cluster().database();
    let garbage = scratch().directory("garbage").join("x");
    scratch().write(&garbage, "no certificate");
    let garbage = garbage.display().to_string();
    for (key, value, words) in [
        (
            "client_tls_cert_file",
            "/nowhere",
            "client_tls_cert_file: expected a readable file, got /nowhere: No such file",
        ),
        ("client_tls_cert_file", &garbage, "client_tls_cert_file: expected a file with certificates in PEM"),
        ("client_tls_key_file", &garbage, "client_tls_key_file: expected a file with a private key in PEM"),
        ("client_tls_ca_file", &garbage, "client_tls_ca_file: expected a file with certificates in PEM"),
        ("client_tls_ca_file", "", "client_tls_ca_file: expected a file (client_tls_sslmode = verify-full needs it)"),
        ("client_tls_ciphers", "AES256-SHA", "client_tls_ciphers: expected default, secure"),
        ("client_tls_protocols", "tlsv1.1", "client_tls_protocols: expected secure, all, legacy"),
    ] {
        let mut proxy = offering(&database, "verify-full").set(key, value).spawn();
        assert!(!proxy.wait_for_end().success());
        let log = proxy.log();
        assert!(log.contains("FATAL") && log.contains("pgweir.ini:") && log.contains(words), "{key}={value}: {log}");
    }
}
