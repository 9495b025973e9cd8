use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use proptest::prelude::*;

use super::*;
use crate::auth::scram::{MECHANISM, MECHANISM_PLUS, mechanisms};

const MOCK_KEY: [u8; 32] = [7; 32];

/// The example of RFC 7677: user `user`, password `pencil`.
const RFC_SECRET: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
const RFC_CLIENT_FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
const RFC_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const RFC_SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const RFC_CLIENT_FINAL: &[u8] =
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const RFC_SERVER_FINAL: &[u8] = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

fn start(secret: Option<&str>, client_first: &[u8]) -> Result<(ServerExchange, Vec<u8>), ScramError> {
    ServerExchange::start(secret.map(Secret::parse).as_ref(), "user", &MOCK_KEY, RFC_NONCE, client_first)
}

#[test]
fn the_example_of_the_rfc_is_played_byte_for_byte() {
    let (exchange, server_first) = start(Some(RFC_SECRET), RFC_CLIENT_FIRST).unwrap();
    assert_eq!(String::from_utf8_lossy(&server_first), RFC_SERVER_FIRST);
    assert_eq!(exchange.finish(RFC_CLIENT_FINAL).as_deref(), Ok(RFC_SERVER_FINAL));
}

/// A whole login with the client of postgres-protocol, which also checks that the server knows the password.
#[track_caller]
fn log_in(secret: Option<&str>, password: &str, binding: ChannelBinding) -> Result<(), ScramError> {
    let mut client = ScramSha256::new(password.as_bytes(), binding);
    let (exchange, server_first) = start(secret, client.message())?;
    client.update(&server_first).unwrap();
    let server_final = exchange.finish(client.message())?;
    client.finish(&server_final).unwrap();
    Ok(())
}

#[test]
fn a_client_that_knows_the_password_gets_in_whether_it_is_stored_plain_or_hashed() {
    assert_eq!(log_in(Some("pencil"), "pencil", ChannelBinding::unsupported()), Ok(()));
    assert_eq!(log_in(Some(RFC_SECRET), "pencil", ChannelBinding::unsupported()), Ok(()));
    assert_eq!(log_in(Some(RFC_SECRET), "pencil", ChannelBinding::unrequested()), Ok(()));
}

#[test]
fn a_wrong_password_is_found_out_at_the_end() {
    for secret in ["pencil", RFC_SECRET] {
        let result = log_in(Some(secret), "pencils", ChannelBinding::unsupported());
        assert_eq!(result, Err(ScramError::WrongPassword));
    }
}

#[test]
fn a_user_without_a_usable_secret_fails_as_if_the_password_were_wrong() {
    for secret in [None, Some(""), Some("md545f2603610af569b6155c45067268c6b")] {
        let result = log_in(secret, "", ChannelBinding::unsupported());
        assert_eq!(result, Err(ScramError::WrongPassword));
    }
}

#[test]
fn an_unknown_user_is_answered_like_a_known_one_and_always_the_same() {
    let answer = |secret, user, key| {
        let secret = Option::map(secret, Secret::parse);
        let result = ServerExchange::start(secret.as_ref(), user, key, RFC_NONCE, RFC_CLIENT_FIRST);
        String::from_utf8(result.unwrap().1).unwrap()
    };
    let unknown = answer(None, "user", &MOCK_KEY);
    assert_eq!(unknown, answer(None, "user", &MOCK_KEY));
    assert_eq!(unknown, answer(Some("pencil"), "user", &MOCK_KEY), "nothing tells that this one exists");
    assert_ne!(unknown, answer(None, "other", &MOCK_KEY));
    assert_ne!(unknown, answer(None, "user", &[8; 32]));
    assert_eq!(unknown.len(), RFC_SERVER_FIRST.len());
}

#[test]
fn a_password_is_normalised_before_it_is_compared() {
    assert_eq!(log_in(Some("I\u{ad}X"), "IX", ChannelBinding::unsupported()), Ok(()));
    assert_eq!(log_in(Some("\u{2168}"), "IX", ChannelBinding::unsupported()), Ok(()));
    assert_eq!(log_in(Some("a\u{7}b"), "a\u{7}b", ChannelBinding::unsupported()), Ok(()), "taken as it is");
}

#[test]
fn the_configured_rounds_hold_for_secrets_that_do_not_say() {
    let rounds = |secret: Option<&str>| {
        let secret = secret.map(Secret::parse);
        let started =
            ServerExchange::start_with(10, secret.as_ref(), "user", &MOCK_KEY, RFC_NONCE, RFC_CLIENT_FIRST).unwrap();
        String::from_utf8(started.1).unwrap().rsplit_once("i=").unwrap().1.to_owned()
    };
    assert_eq!([rounds(None), rounds(Some("x")), rounds(Some(RFC_SECRET))], ["10", "10", "4096"]);
}

/// What is wrong with a first message.
#[track_caller]
fn first(message: &str, error: ScramError) {
    assert_eq!(start(Some("x"), message.as_bytes()).err(), Some(error), "{message}");
}

#[test]
fn channel_binding_identities_and_extensions_are_refused() {
    first("p=tls-server-end-point,,n=,r=abc", ScramError::ChannelBinding);
    first("n,a=other,n=,r=abc", ScramError::AuthorizationIdentity);
    first("n,,m=x,n=,r=abc", ScramError::Extension);
}

const END_POINT: &[u8] = b"the hash of a certificate";

/// A login on a connection that can be bound to.
#[track_caller]
fn log_in_on(channel: Channel<'_>, binding: ChannelBinding) -> Result<(), ScramError> {
    let mut client = ScramSha256::new(b"pencil", binding);
    let secret = Secret::parse(RFC_SECRET);
    let started = ServerExchange::start_on(channel, 1, Some(&secret), "user", &MOCK_KEY, RFC_NONCE, client.message());
    let (exchange, server_first) = started?;
    client.update(&server_first).unwrap();
    let server_final = exchange.finish(client.message())?;
    client.finish(&server_final).unwrap();
    Ok(())
}

#[test]
fn an_exchange_is_bound_to_the_servers_certificate_and_to_no_other() {
    let plus = Channel::Bindable { end_point: END_POINT, is_plus: true };
    assert_eq!(log_in_on(plus, ChannelBinding::tls_server_end_point(END_POINT.to_vec())), Ok(()));
    let other = ChannelBinding::tls_server_end_point(b"another certificate".to_vec());
    assert_eq!(log_in_on(plus, other), Err(ScramError::Mismatch));
}

#[test]
fn what_the_client_says_of_binding_must_go_with_what_was_offered_and_chosen() {
    let offered = |is_plus| Channel::Bindable { end_point: END_POINT, is_plus };
    let bound = || ChannelBinding::tls_server_end_point(END_POINT.to_vec());
    assert_eq!(log_in_on(offered(false), ChannelBinding::unsupported()), Ok(()));
    assert_eq!(log_in_on(Channel::Unbindable, ChannelBinding::unrequested()), Ok(()));
    assert_eq!(log_in_on(Channel::Unbindable, bound()), Err(ScramError::ChannelBinding));
    for (channel, binding) in [
        (offered(false), bound()),
        (offered(true), ChannelBinding::unsupported()),
        (offered(true), ChannelBinding::unrequested()),
        // Somebody has taken PLUS out of the offer.
        (offered(false), ChannelBinding::unrequested()),
    ] {
        assert_eq!(log_in_on(channel, binding), Err(ScramError::Negotiation), "{channel:?}");
    }
    first("p=tls-unique,,n=,r=abc", ScramError::ChannelBinding);
}

#[test]
fn the_mechanism_with_binding_is_offered_first_and_only_where_it_can_be_had() {
    assert_eq!(mechanisms(None), [MECHANISM]);
    assert_eq!(mechanisms(Some(END_POINT)), [MECHANISM_PLUS, MECHANISM]);
    assert_eq!(Channel::of(MECHANISM_PLUS.as_bytes(), None), None);
    assert_eq!(Channel::of(b"PLAIN", Some(END_POINT)), None);
    let plus = Channel::Bindable { end_point: END_POINT, is_plus: true };
    assert_eq!(Channel::of(MECHANISM_PLUS.as_bytes(), Some(END_POINT)), Some(plus));
}

#[test]
fn a_broken_first_message_is_refused() {
    first("", ScramError::Malformed("a channel binding flag"));
    first("x,,n=,r=abc", ScramError::Malformed("a channel binding flag"));
    first("n,x,n=,r=abc", ScramError::Malformed("a comma"));
    first("n,,r=abc", ScramError::Malformed("n="));
    first("n,,n=", ScramError::Malformed("r="));
    first("n,,n=,r=", ScramError::Malformed("r="));
    first("n,,n=,r=a b", ScramError::Malformed("r="));
    first("n,,n=,r=abc,1", ScramError::Malformed("an attribute"));
    assert!(start(Some("x"), b"n,,n=,r=abc,x=ignored").is_ok());
}

/// What is wrong with a last message, in the exchange of the RFC.
#[track_caller]
fn last(client_first: &[u8], message: &str, error: ScramError) {
    let (exchange, _) = start(Some(RFC_SECRET), client_first).unwrap();
    assert_eq!(exchange.finish(message.as_bytes()).err(), Some(error), "{message}");
}

#[test]
fn the_last_message_must_belong_to_the_first() {
    let right = String::from_utf8_lossy(RFC_CLIENT_FINAL).into_owned();
    last(RFC_CLIENT_FIRST, &right.replace("r=rOp", "r=xOp"), ScramError::Mismatch);
    last(RFC_CLIENT_FIRST, &right.replace("biws", "eSws"), ScramError::Mismatch);
    last(b"y,,n=user,r=rOprNGfwEbeRWgbNEkqO", &right, ScramError::Mismatch);
    last(RFC_CLIENT_FIRST, &right.replace("k0,", "k0,x=1,"), ScramError::WrongPassword);
}

#[test]
fn a_broken_last_message_is_refused() {
    last(RFC_CLIENT_FIRST, "", ScramError::Malformed("p="));
    last(RFC_CLIENT_FIRST, "c=biws,r=a,p=AA==", ScramError::Malformed("a proof of 32 bytes"));
    last(RFC_CLIENT_FIRST, "c=biws,r=a,p=!", ScramError::Malformed("a proof of 32 bytes"));
    let proof = "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    last(RFC_CLIENT_FIRST, &format!("c=biws,{proof}"), ScramError::Malformed("r="));
    last(RFC_CLIENT_FIRST, &format!("c=biws,r=a,1,{proof}"), ScramError::Malformed("an attribute"));
}

proptest! {
    #[test]
    fn no_message_is_too_strange(
        client_first in "[nyp]?,?,?(n=)?,?(r=)?[ -~]{0,20}",
        client_final in "(c=biws)?,?(r=)?[ -~]{0,20}(,p=)?[A-Za-z0-9+/=]{0,50}",
        bytes in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        for message in [client_first.as_bytes(), &bytes] {
            if let Ok((exchange, _)) = start(None, message) {
                prop_assert!(exchange.finish(client_final.as_bytes()).is_err());
            }
        }
        let (exchange, _) = start(None, RFC_CLIENT_FIRST).unwrap();
        prop_assert!(exchange.finish(&bytes).is_err());
    }
}
