//! From clients to the proxy: `client_tls_*`.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use crate::{
    authority, encrypting_cluster, offering, own, psql, showing, stranger,
    support::{Frame, Proxy, RawClient, cluster::USER, frames, programs, wait_until},
    trusting,
};

/// A session that is encrypted after asking for it.
fn encrypted(proxy: &Proxy, database: &str) -> RawClient {
    let plain = RawClient::connect(&proxy.address());
    let mut client = plain.try_encrypt(&authority().trusting_client(&[])).unwrap();
    client.log_in(&[("user", USER), ("database", database)], "").unwrap();
    client
}

/// The column `tls` of the clients of a database.
fn ciphers(proxy: &Proxy, database: &str) -> Vec<String> {
    proxy.show("CLIENTS").select("database", database, "tls")
}

#[test]
fn a_client_gets_the_encryption_that_its_own_mode_and_the_proxys_agree_on() {
    let database = encrypting_cluster().database();
    // In clear, encrypted if possible, encrypted.
    for (mode, outcomes) in [
        ("disable", [Ok("no"), Ok("no"), Err("server does not support SSL")]),
        ("allow", [Ok("no"), Ok("TLSv1.3"), Ok("TLSv1.3")]),
        ("prefer", [Ok("no"), Ok("TLSv1.3"), Ok("TLSv1.3")]),
        ("require", [Err("SSL required"), Ok("TLSv1.3"), Ok("TLSv1.3")]),
    ] {
        let proxy = offering(&database, mode).start();
        for (asked, outcome) in ["disable", "prefer", "require"].into_iter().zip(outcomes) {
            let answer = psql(&proxy, &database, &format!("sslmode={asked} application_name={asked}"), "select 1");
            match (outcome, answer) {
                (Ok(_), Ok(answer)) => assert_eq!(answer, "1", "{mode} {asked}"),
                (Err(expected), Err(error)) => assert!(error.contains(expected), "{mode} {asked}: {error}"),
                (outcome, answer) => panic!("{mode} {asked}: {answer:?} in place of {outcome:?}"),
            }
            if let Ok(tls) = outcome {
                let line = format!("login attempt: db={database} user={USER} tls={tls}");
                assert!(proxy.log().contains(&line), "{line}\n{}", proxy.last_words());
            }
        }
    }
}

#[test]
fn the_console_shows_version_and_cipher() {
    let database = encrypting_cluster().database();
    let proxy = offering(&database, "allow").start();
    let mut client = encrypted(&proxy, &database);
    assert_eq!(client.value("select 1"), "1");
    assert_eq!(ciphers(&proxy, &database), ["TLSv1.3/TLS_AES_256_GCM_SHA384"]);
    let line = format!("login attempt: db={database} user={USER} tls=TLSv1.3/TLS_AES_256_GCM_SHA384 replication=no");
    assert!(proxy.log().contains(&line), "{}", proxy.last_words());
}

#[test]
fn protocols_ciphers_and_curves_are_those_of_the_file() {
    let database = encrypting_cluster().database();
    let proxy = offering(&database, "allow")
        .set("client_tls_protocols", "tlsv1.2")
        .set("client_tls_ciphers", "DHE-RSA-AES256-SHA:ECDHE-ECDSA-CHACHA20-POLY1305")
        .set("client_tls_ecdhcurve", "prime256v1")
        .start();
    let mut client = encrypted(&proxy, &database);
    assert_eq!(client.value("select 1"), "1");
    assert_eq!(ciphers(&proxy, &database), ["TLSv1.2/ECDHE-ECDSA-CHACHA20-POLY1305/ECDH=prime256v1"]);
    let newest = psql(&proxy, &database, "sslmode=require ssl_min_protocol_version=TLSv1.3", "select 1");
    assert!(newest.unwrap_err().contains("protocol version"));

    let proxy = offering(&database, "allow").set("client_tls13_ciphers", "TLS_CHACHA20_POLY1305_SHA256").start();
    let _client = encrypted(&proxy, &database);
    assert_eq!(ciphers(&proxy, &database), ["TLSv1.3/TLS_CHACHA20_POLY1305_SHA256"]);
}

#[test]
fn a_client_checks_the_proxys_certificate() {
    let database = encrypting_cluster().database();
    let proxy = offering(&database, "require").start();
    let full = |file: PathBuf| psql(&proxy, &database, &format!("sslmode=verify-full {}", trusting(&file)), "select 1");
    assert_eq!(full(authority().file()).as_deref(), Ok("1"));
    assert!(full(stranger().file()).unwrap_err().contains("certificate verify failed"));
}

#[test]
fn with_verify_ca_and_verify_full_a_client_must_show_a_certificate_in_order() {
    let database = encrypting_cluster().database();
    let right = authority().issue("anybody", &[]);
    let expired = authority().issue_expired("anybody", &[]);
    let strange = stranger().issue("anybody", &[]);
    for mode in ["verify-ca", "verify-full"] {
        let proxy = offering(&database, mode).start();
        let shown = |what: &str| psql(&proxy, &database, &format!("sslmode=require {what}"), "select 1");
        assert_eq!(shown(&showing(&right)).as_deref(), Ok("1"), "{mode}");
        for (what, certificate) in [("none", String::new()), ("old", showing(&expired)), ("other", showing(&strange))] {
            let error = shown(&certificate).unwrap_err();
            assert!(error.contains("SSL error") || error.contains("alert"), "{mode} {what}: {error}");
        }
        let error = psql(&proxy, &database, "sslmode=disable", "select 1").unwrap_err();
        assert!(error.contains("SSL required"), "{mode}: {error}");
    }
}

#[test]
fn a_certificate_lets_in_the_user_whom_it_names() {
    let database = encrypting_cluster().database();
    let proxy = offering(&database, "verify-full").set("auth_type", "cert").start();
    let by_common_name = authority().issue(USER, &[]);
    let by_alternative = authority().issue("somebody", &[USER]);
    for pair in [&by_common_name, &by_alternative] {
        let answer = psql(&proxy, &database, &format!("sslmode=require {}", showing(pair)), "select current_user");
        assert_eq!(answer.as_deref(), Ok(USER));
        let other = format!("sslmode=require user=stranger {}", showing(pair));
        let error = psql(&proxy, &database, &other, "select 1").unwrap_err();
        assert!(error.contains("certificate authentication failed"), "{error}");
    }
    let unknown = authority().issue("unknown", &[]);
    let how = format!("sslmode=require user=unknown {}", showing(&unknown));
    let error = psql(&proxy, &database, &how, "select 1").unwrap_err();
    assert!(error.contains("certificate authentication failed"), "{error}");
}

#[test]
fn the_unix_socket_is_exempt() {
    let database = encrypting_cluster().database();
    let proxy = offering(&database, "require").start();
    let mut client = RawClient::session(&proxy.unix(), USER, &database);
    assert_eq!(client.value("select 1"), "1");
    let mut client = RawClient::connect(&proxy.unix());
    client.send(&frames::ssl_request());
    let mut answer = [0];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"N");
}

#[test]
fn what_somebody_puts_behind_the_request_for_tls_is_refused() {
    let database = encrypting_cluster().database();
    let proxy = offering(&database, "allow").start();
    let injected = frames::startup(&[("user", USER), ("database", &database)]);
    for (request, words) in [
        (frames::ssl_request(), "received unencrypted data after SSL request"),
        (frames::gss_request(), "received unencrypted data after GSSAPI encryption request"),
    ] {
        let mut client = RawClient::connect(&proxy.address());
        client.send(&[&request[..], &injected].concat());
        let said = client.until_closed();
        let [error] = &said[..] else { panic!("{said:?}") };
        assert_eq!(error.field(b'M').as_deref(), Some(words));
    }
}

#[test]
fn tls_is_asked_for_once_and_after_gssapi() {
    let database = encrypting_cluster().database();
    let proxy = offering(&database, "require").start();
    let mut client = RawClient::connect(&proxy.address());
    client.send(&frames::gss_request());
    let mut answer = [0];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"N");
    let mut client = client.try_encrypt(&authority().trusting_client(&[])).unwrap();
    client.send(&frames::ssl_request());
    let mut said = Vec::new();
    client.read_to_end(&mut said).unwrap();
    assert!(said.is_empty(), "{said:?}");
    wait_until("the log says why", || proxy.log().contains("SSL req inside SSL"));
}

#[test]
fn tls_can_come_first_with_the_right_protocol() {
    let database = encrypting_cluster().database();
    let proxy = offering(&database, "require").start();
    let connect =
        |alpn: &[&str]| RawClient::connect(&proxy.address()).try_encrypt_at_once(&authority().trusting_client(alpn));
    let mut client = connect(&["postgresql"]).unwrap();
    client.log_in(&[("user", USER), ("database", &database)], "").unwrap();
    assert_eq!(client.value("select 1"), "1");

    let mut without = connect(&[]).unwrap();
    let said: Vec<Frame> = without.until_closed();
    let words = "received direct SSL connection request without ALPN protocol negotiation extension";
    assert_eq!(said[0].field(b'M').as_deref(), Some(words));

    assert!(connect(&["http/1.1"]).is_err());
    let mut negotiated = RawClient::connect(&proxy.address());
    negotiated = negotiated.try_encrypt(&authority().trusting_client(&["postgresql"])).unwrap();
    negotiated.log_in(&[("user", USER), ("database", &database)], "").unwrap();
}

#[test]
fn a_client_that_stalls_in_the_handshake_is_alone_with_that() {
    let database = encrypting_cluster().database();
    let proxy = offering(&database, "require").set("client_login_timeout", 2).start();
    let started = Instant::now();
    let mut stalled = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
    stalled.write_all(&frames::ssl_request()).unwrap();
    let mut answer = [0];
    stalled.read_exact(&mut answer).unwrap();
    // The beginning of a record of 512 bytes.
    stalled.write_all(&[0x16, 3, 1, 2, 0, 1]).unwrap();
    for _ in 0..3 {
        assert_eq!(encrypted(&proxy, &database).value("select 1"), "1");
    }
    stalled.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut rest = Vec::new();
    stalled.read_to_end(&mut rest).unwrap();
    assert!(started.elapsed() >= Duration::from_secs(2));
    assert!(!rest.windows(5).any(|text| text == b"FATAL"), "nothing in clear: {rest:?}");
    wait_until("the log says why", || proxy.log().contains("client_login_timeout"));
}

#[test]
fn scram_is_bound_to_the_connection_where_the_client_requires_it() {
    let database = encrypting_cluster().database();
    let mut as_stored = encrypting_cluster().primary.session("postgres");
    let hashed = as_stored.value("select rolpassword from pg_authid where rolname = 'scrammer'");
    for secret in ["secret", &hashed] {
        let proxy = offering(&database, "require")
            .set("auth_type", "scram-sha-256")
            .users(&format!("\"scrammer\" \"{secret}\"\n"))
            .start();
        for binding in ["require", "prefer", "disable"] {
            let how = format!("sslmode=require user=scrammer password=secret channel_binding={binding}");
            let answer = psql(&proxy, &database, &how, "select current_user");
            assert_eq!(answer.as_deref(), Ok("scrammer"), "{binding} {secret}");
        }
        let how = "sslmode=require user=scrammer password=wrong channel_binding=require";
        assert!(psql(&proxy, &database, how, "select 1").unwrap_err().contains("SASL authentication failed"));
    }
}

#[test]
fn a_cancel_request_may_be_encrypted_and_is_passed_on_encrypted() {
    let database = encrypting_cluster().database();
    let proxy = offering(&database, "require").set("server_tls_sslmode", "require").start();
    let mut client = encrypted(&proxy, &database);
    client.send(&frames::query("select pg_sleep(600)"));
    let mut watch = encrypting_cluster().primary.session("postgres");
    let sleeping =
        format!("select count(*) from pg_stat_activity where datname = '{database}' and wait_event = 'PgSleep'");
    wait_until("the query runs", || watch.value(&sleeping) == "1");
    let mut canceller = RawClient::connect(&proxy.address());
    canceller = canceller.try_encrypt(&authority().trusting_client(&[])).unwrap();
    canceller.send(&frames::cancel_request(&client.key));
    assert_eq!(client.reply().sqlstate(), "57014");
    assert_eq!(client.value("select 1"), "1");
}

#[test]
fn large_answers_and_copies_pass_in_both_directions() {
    let database = encrypting_cluster().database();
    let proxy = offering(&database, "require").set("server_tls_sslmode", "require").start();
    let script = "
        create table wide as select n, repeat(md5(n::text), 500) as text from generate_series(1, 3000) n;
        \\copy wide to program 'cat > \"$FILE\"'
        create table again (n int, text text);
        \\copy again from program 'cat \"$FILE\"'
        select count(*), (select md5(string_agg(text, '' order by n)) from wide) = md5(string_agg(text, '' order by n))
        from again;
    ";
    let file = proxy.home().join("copied");
    let mut command = programs::command(&programs::program("psql", "postgresql-client"));
    let target = format!("host=127.0.0.1 port={} dbname={database} user={USER} sslmode=require", proxy.port);
    command.env("HOME", "/nonexistent").env("FILE", &file).args(["-XAtq", "-v", "ON_ERROR_STOP=1", &target]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "3000|t", "{}", String::from_utf8_lossy(&output.stderr));

    let mut client = encrypted(&proxy, &database);
    let rows = client.rows("select text from wide order by n");
    assert_eq!(rows.iter().map(|row| row[0].len()).sum::<usize>(), 3000 * 16_000);
    assert_eq!(client.certificate().as_ref(), Some(&own().der));
}

#[test]
fn a_connection_follows_its_client_from_worker_to_worker() {
    let database = encrypting_cluster().database();
    let builder = offering(&database, "require").set("server_tls_sslmode", "require");
    let proxy = builder.set("workers", 3).set("default_pool_size", 1).start();
    let mut clients: Vec<_> = (0..6).map(|_| encrypted(&proxy, &database)).collect();
    let mut backends: Vec<_> = Vec::new();
    for _ in 0..3 {
        for client in &mut clients {
            backends.push(client.value("select pg_backend_pid()"));
            assert_eq!(client.value("select repeat('x', 100000)").len(), 100_000);
        }
    }
    backends.dedup();
    assert_eq!(backends.len(), 1, "{backends:?}");
}
