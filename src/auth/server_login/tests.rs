use base64::{Engine, prelude::BASE64_STANDARD};
use postgres_protocol::authentication::md5_hash;

use super::*;
use crate::auth::{
    scram::{Channel, ServerExchange, derive},
    verify_md5,
};

const MD5_SECRET: &str = "md545f2603610af569b6155c45067268c6b";
const SCRAM_SECRET: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
const MECHANISMS: &[u8] = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";

fn login(secret: Option<&str>) -> ServerLogin {
    ServerLogin::new("admin", secret.map(Secret::parse).as_ref())
}

/// The answer to the first message, or what goes wrong.
#[track_caller]
fn check(secret: Option<&str>, code: i32, data: &[u8], expected: Result<Option<&[u8]>, &str>) {
    let answer = login(secret).on_message(code, data).map_err(|error| error.to_string());
    assert_eq!(answer.as_ref().map(Option::as_deref), expected.map_err(str::to_owned).as_ref().map(|e| *e));
}

const WRONG_TYPE: Result<Option<&[u8]>, &str> = Err("server login failed: wrong password type");

#[test]
fn a_server_that_asks_nothing_is_answered_nothing() {
    check(None, 0, b"", Ok(None));
}

#[test]
fn clear_text_is_sent_only_if_it_is_known() {
    check(Some("1234"), 3, b"", Ok(Some(b"1234\0")));
    check(None, 3, b"", Ok(Some(b"\0")));
    check(Some(MD5_SECRET), 3, b"", WRONG_TYPE);
    check(Some(SCRAM_SECRET), 3, b"", WRONG_TYPE);
}

#[test]
fn md5_is_answered_from_plain_and_md5_secrets() {
    let answer = md5_hash(b"admin", b"1234", *b"salt") + "\0";
    check(Some("1234"), 5, b"salt", Ok(Some(answer.as_bytes())));
    check(Some(MD5_SECRET), 5, b"salt", Ok(Some(answer.as_bytes())));
    check(Some(SCRAM_SECRET), 5, b"salt", WRONG_TYPE);
    check(Some("1234"), 5, b"sal", Err("server login failed: protocol error in authentication"));
}

#[test]
fn what_we_answer_to_md5_is_what_we_accept_from_clients() {
    let answer = login(Some("1234")).on_message(5, b"salt").unwrap().unwrap();
    let secret = Secret::parse(MD5_SECRET);
    assert!(verify_md5(Some(&secret), "admin", *b"salt", answer.strip_suffix(&[0]).unwrap()));
}

#[test]
fn scram_needs_the_password_itself() {
    check(Some(MD5_SECRET), 10, MECHANISMS, WRONG_TYPE);
    check(Some(SCRAM_SECRET), 10, MECHANISMS, WRONG_TYPE);
}

#[test]
fn a_server_without_our_mechanism_cannot_be_used() {
    let expected = "server login failed: none of the server's SASL authentication mechanisms are supported";
    check(Some("1234"), 10, b"SCRAM-SHA-256-PLUS\0\0", Err(expected));
    check(Some("1234"), 10, b"", Err(expected));
}

const END_POINT: &[u8] = b"the hash of a certificate";

/// A login by SCRAM that is bound to the connection, with this mechanism and flag. True if the server accepts it.
fn bound_login(mut login: ServerLogin, stored: &str, offered: &[u8], mechanism: &str, flag: &str) -> bool {
    let first = login.on_message(10, offered).unwrap().unwrap();
    let (chosen, rest) = first.split_at(mechanism.len());
    assert_eq!(chosen, mechanism.as_bytes());
    let first = rest.get(5..).unwrap();
    assert!(first.starts_with(flag.as_bytes()), "{}", String::from_utf8_lossy(first));
    let end_point = offered.starts_with(b"SCRAM-SHA-256-PLUS").then_some(END_POINT);
    let channel = Channel::of(chosen, end_point).unwrap();
    let secret = Secret::parse(stored);
    let started = ServerExchange::start_on(channel, 10, Some(&secret), "admin", &[0; 32], "nonce", first);
    let (exchange, answer) = started.unwrap();
    let proof = login.on_message(11, &answer).unwrap().unwrap();
    let last = exchange.finish(&proof).unwrap();
    login.on_message(12, &last).is_ok()
}

#[test]
fn scram_is_bound_to_an_encrypted_connection_where_the_server_can() {
    let login = || login(Some("1234")).bound_to(END_POINT);
    assert!(bound_login(login(), "1234", MECHANISMS, "SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,"));
    assert!(bound_login(login(), "1234", b"SCRAM-SHA-256\0\0", "SCRAM-SHA-256", "y,,"));
    assert!(login().on_message(10, b"SCRAM-SHA-512\0\0").is_err());
}

#[test]
fn keys_that_a_client_has_shown_are_bound_as_well() {
    let stored = Secret::Scram(derive("1234", b"salt", 10));
    let text = "SCRAM-SHA-256$10:c2FsdA==$".to_owned() + &keys_of(&stored);
    let mut client = login(Some("1234"));
    let first = client.on_message(10, MECHANISMS).unwrap().unwrap();
    let first = first.get(b"SCRAM-SHA-256\0".len() + 4..).unwrap();
    let (exchange, answer) = ServerExchange::start(Some(&stored), "admin", &[0; 32], "nonce", first).unwrap();
    let (_, keys) = exchange.finish_with_keys(&client.on_message(11, &answer).unwrap().unwrap()).unwrap();
    let login = || ServerLogin::new("admin", Some(&stored)).with_keys(keys.clone(), "nonce").bound_to(END_POINT);
    assert!(bound_login(login(), &text, MECHANISMS, "SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,"));
    assert!(bound_login(login(), &text, b"SCRAM-SHA-256\0\0", "SCRAM-SHA-256", "y,,"));
}

#[test]
fn methods_nobody_built_are_named_by_their_number() {
    check(Some("1234"), 7, b"", Err("server login failed: unknown/unsupported auth method: 7"));
}

/// Plays the server until its last message, which is returned.
fn scram(login: &mut ServerLogin, stored: &str) -> Vec<u8> {
    let first = login.on_message(10, MECHANISMS).unwrap().unwrap();
    let (mechanism, rest) = first.split_at(b"SCRAM-SHA-256\0".len());
    assert_eq!(mechanism, b"SCRAM-SHA-256\0");
    let (length, first) = rest.split_first_chunk().unwrap();
    assert_eq!(u32::from_be_bytes(*length) as usize, first.len());
    let secret = Secret::parse(stored);
    let (exchange, answer) = ServerExchange::start(Some(&secret), "admin", &[0; 32], "nonce", first).unwrap();
    let proof = login.on_message(11, &answer).unwrap().unwrap();
    exchange.finish(&proof).unwrap()
}

#[test]
fn a_scram_login_goes_through_three_messages() {
    let mut login = login(Some("1234"));
    let last = scram(&mut login, "1234");
    assert!(matches!(login.on_message(12, &last), Ok(None)));
    assert!(matches!(login.on_message(0, b""), Ok(None)));
}

#[test]
fn a_scram_secret_is_enough_once_its_user_has_logged_in() {
    let stored = Secret::Scram(derive("1234", b"salt", 10));
    let text = "SCRAM-SHA-256$10:c2FsdA==$".to_owned() + &keys_of(&stored);
    let mut client = login(Some("1234"));
    let first = client.on_message(10, MECHANISMS).unwrap().unwrap();
    let first = first.get(b"SCRAM-SHA-256\0".len() + 4..).unwrap();
    let (exchange, answer) = ServerExchange::start(Some(&stored), "admin", &[0; 32], "nonce", first).unwrap();
    let (_, keys) = exchange.finish_with_keys(&client.on_message(11, &answer).unwrap().unwrap()).unwrap();

    let mut login = ServerLogin::new("admin", Some(&stored)).with_keys(keys, "nonce");
    let last = scram(&mut login, &text);
    assert!(matches!(login.on_message(12, &last), Ok(None)));
    assert!(matches!(login.on_message(0, b""), Ok(None)));
}

fn keys_of(secret: &Secret) -> String {
    let Secret::Scram(secret) = secret else { panic!("a SCRAM secret") };
    format!("{}:{}", BASE64_STANDARD.encode(secret.stored_key), BASE64_STANDARD.encode(secret.server_key))
}

#[test]
fn a_server_that_does_not_prove_that_it_knows_the_password_is_not_trusted() {
    let mut login = login(Some("1234"));
    scram(&mut login, "1234");
    assert!(matches!(login.on_message(12, b"v=AAAA"), Err(ServerLoginError::Scram(_))));

    let mut login = self::login(Some("1234"));
    scram(&mut login, "1234");
    assert!(matches!(login.on_message(0, b""), Err(ServerLoginError::Protocol)));
}

#[test]
fn messages_out_of_order_end_the_login() {
    for code in [11, 12] {
        assert!(matches!(login(Some("1234")).on_message(code, b""), Err(ServerLoginError::Protocol)));
    }
    let mut login = login(Some("1234"));
    login.on_message(10, MECHANISMS).unwrap();
    assert!(matches!(login.on_message(10, MECHANISMS), Err(ServerLoginError::Protocol)));
}
