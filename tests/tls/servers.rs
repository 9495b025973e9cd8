//! From the proxy to servers: `server_tls_*`.

use std::process::Stdio;

use crate::{
    authority, encrypting_cluster, stranger,
    support::{Member, Proxy, cluster::USER, programs, proxy::binary, scratch::scratch},
};

/// Is the proxy's connection to the server encrypted? Or why there is none.
fn connect(member: &Member, host: &str, settings: &[(&str, &str)]) -> Result<bool, String> {
    let parameters = format!("host={host} port={} dbname=postgres", member.port);
    let mut builder = Proxy::builder().section("databases", "db", parameters).set("query_wait_timeout", 5);
    for (key, value) in settings {
        builder = builder.set(key, value);
    }
    let proxy = builder.start();
    let mut client = crate::support::RawClient::connect(&proxy.address());
    match client.log_in(&[("user", USER), ("database", "db")], "") {
        Ok(()) => {
            let is_encrypted = client.value("select ssl from pg_stat_ssl where pid = pg_backend_pid()") == "t";
            let shown = proxy.show("SERVERS").select("database", "db", "tls");
            assert_eq!(shown.iter().all(|tls| tls.starts_with("TLSv1.3/TLS_")), is_encrypted, "{shown:?}");
            Ok(is_encrypted)
        }
        Err(error) => Err(error.text()),
    }
}

#[test]
fn each_mode_gets_what_the_server_has() {
    let cluster = encrypting_cluster();
    let (encrypting, plain) = (&cluster.primary, &cluster.replicas[1]);
    for (mode, with, without) in [
        ("disable", Some(false), Some(false)),
        ("allow", Some(true), Some(false)),
        ("prefer", Some(true), Some(false)),
        ("require", Some(true), None),
    ] {
        let mode = &[("server_tls_sslmode", mode)][..];
        assert_eq!(connect(encrypting, "127.0.0.1", mode).ok(), with, "{mode:?}");
        assert_eq!(connect(plain, "127.0.0.1", mode).ok(), without, "{mode:?}");
    }
    let socket = encrypting.socket_directory().display().to_string();
    assert_eq!(
        connect(encrypting, &socket, &[("server_tls_sslmode", "require")]),
        Ok(false),
        "a unix socket is exempt"
    );
}

#[test]
fn the_servers_certificate_must_be_in_order_where_that_is_asked_for() {
    let cluster = encrypting_cluster();
    let (right, expired) = (&cluster.primary, &cluster.replicas[0]);
    let ours = authority().file().display().to_string();
    let strange = stranger().file().display().to_string();
    let attempt = |member, host, mode, issuers: &str| {
        connect(member, host, &[("server_tls_sslmode", mode), ("server_tls_ca_file", issuers)]).is_ok()
    };
    assert!(attempt(right, "127.0.0.1", "verify-full", &ours));
    assert!(attempt(right, "127.0.0.1", "verify-ca", &ours));
    assert!(attempt(right, "localhost", "verify-ca", &ours), "another name matters to verify-full alone");
    assert!(!attempt(right, "localhost", "verify-full", &ours));
    assert!(!attempt(right, "127.0.0.1", "verify-full", &strange));
    assert!(!attempt(right, "127.0.0.1", "verify-ca", &strange));
    assert!(attempt(right, "127.0.0.1", "require", &strange));
    assert!(!attempt(expired, "127.0.0.1", "verify-ca", &ours));
    assert!(attempt(expired, "127.0.0.1", "require", &ours));
}

#[test]
fn the_server_is_shown_a_certificate() {
    let pair = authority().issue("the proxy", &[]);
    let proxy = Proxy::builder()
        .section(
            "databases",
            "db",
            format!("host=127.0.0.1 port={} dbname=postgres", encrypting_cluster().primary.port),
        )
        .set("server_tls_sslmode", "require")
        .set("server_tls_cert_file", pair.certificate.display())
        .set("server_tls_key_file", pair.key.display())
        .set("server_tls_ciphers", "HIGH:!aNULL")
        .set("server_tls13_ciphers", "TLS_AES_128_GCM_SHA256")
        .start();
    let mut client = crate::support::RawClient::session(&proxy.address(), USER, "db");
    let row = client.rows("select client_dn, cipher from pg_stat_ssl where pid = pg_backend_pid()");
    assert_eq!(row, [["/CN=the proxy", "TLS_AES_128_GCM_SHA256"]]);
}

#[test]
fn passwords_work_over_tls_with_channel_binding() {
    let cluster = encrypting_cluster();
    for user in ["scrammer", "md5er", "plainer"] {
        let proxy = Proxy::builder()
            .section("databases", "db", format!("host=127.0.0.1 port={} dbname=postgres", cluster.primary.port))
            .set("server_tls_sslmode", "require")
            .start();
        let mut client = crate::support::RawClient::session(&proxy.address(), user, "db");
        assert_eq!(client.value("select current_user"), user);
    }
}

#[test]
fn what_watches_the_servers_encrypts_as_clients_do() {
    let cluster = encrypting_cluster();
    let database = cluster.database();
    let proxy = Proxy::of(cluster, &database).set("server_tls_sslmode", "require").cached().start();
    assert_eq!(proxy.session(&database).value("select 1"), "1");
    let clear = format!(
        "select count(*) filter (where ssl), count(*) from pg_stat_ssl join pg_stat_activity using (pid)
         where datname = '{database}' and application_name = 'pgweir-control'"
    );
    let mut watch = cluster.primary.session("postgres");
    let counts = watch.rows(&clear).remove(0);
    assert_eq!(counts[0], counts[1]);
    assert_ne!(counts[1], "0");
}

/// What `pgweir check` says of a configuration.
fn check(settings: &str) -> (bool, String) {
    let file = scratch().directory("check").join("c.ini");
    let port = encrypting_cluster().primary.port;
    let text = format!(
        "[databases]\ndb = host=127.0.0.1 port={port} dbname=postgres user=app\n[pgbouncer]\nauth_type = trust\n{settings}\n"
    );
    scratch().write(&file, &text);
    let mut command = programs::command(&scratch().reachable(&binary()));
    let output = command.arg("check").arg(&file).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), said)
}

#[test]
fn a_check_finds_what_is_wrong_with_tls() {
    let ours = authority().file().display().to_string();
    let strange = stranger().file().display().to_string();
    let (fine, said) = check(&format!("server_tls_sslmode = verify-full\nserver_tls_ca_file = {ours}"));
    assert!(fine, "{said}");
    let (fine, said) = check(&format!("server_tls_sslmode = verify-full\nserver_tls_ca_file = {strange}"));
    assert!(!fine && said.contains("UnknownIssuer"), "{said}");
    let (fine, said) =
        check("client_tls_sslmode = require\nclient_tls_key_file = /nowhere\nclient_tls_cert_file = /no");
    assert!(!fine && said.contains("c.ini:7: client_tls_cert_file: expected a readable file, got /no: "), "{said}");
    let (fine, said) = check("client_tls_ciphers = fastest");
    assert!(!fine && said.contains("c.ini:5: client_tls_ciphers: expected default, secure, fast"), "{said}");
    let (fine, said) = check("auth_type = cert");
    assert!(!fine && said.contains("client_tls_sslmode: expected verify-full"), "{said}");
    let (_, said) = check("client_tls_protocols = tlsv1.0,tlsv1.1,tlsv1.2");
    assert!(said.contains("c.ini:5: note: client_tls_protocols: TLS 1.0 and 1.1 are not built"), "{said}");
}
