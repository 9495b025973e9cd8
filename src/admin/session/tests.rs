use std::sync::Arc;

use super::*;
use crate::admin::{reply::types, tests::Process};

fn session() -> ConsoleSession {
    ConsoleSession::new(Console::new(Arc::new(Process::default())), Privilege::Admin)
}

/// Sends messages in turn; the types of all answers, and what to do after the last one.
async fn talk(session: &mut ConsoleSession, messages: &[(u8, &[u8])]) -> (String, Next) {
    let mut out = BytesMut::new();
    let mut next = Next::Read;
    for (tag, body) in messages {
        next = session.answer(*tag, body, &mut out).await;
    }
    (types(&out), next)
}

async fn check(messages: &[(u8, &[u8])], expected: &str) {
    let (types, next) = talk(&mut session(), messages).await;
    assert_eq!((types.as_str(), next), (expected, Next::Read));
}

const BIND: &[u8] = b"\0\0\0\0\0\0\0\0";
const EXECUTE: &[u8] = b"\0\0\0\0\0";

#[tokio::test]
async fn a_query_is_answered_with_rows_tag_and_ready() {
    check(&[(b'Q', b"SHOW LISTS;\0")], "TDCZ").await;
    check(&[(b'Q', b"RELOAD\0"), (b'Q', b"SHOW HELP\0")], "CZNCZ").await;
    check(&[(b'Q', b"nonsense\0"), (b'Q', b"SHOW LISTS\0")], "EZTDCZ").await;
}

#[tokio::test]
async fn a_driver_that_prepares_everything_gets_its_rows() {
    let parse: (u8, &[u8]) = (b'P', b"s\0SHOW LISTS\0\0\0");
    check(&[parse, (b'D', b"Ss\0"), (b'S', b"")], "1tTZ").await;
    let bind: (u8, &[u8]) = (b'B', b"\0s\0\0\0\0\0\0\x01\0\x01");
    let rest: [(u8, &[u8]); 4] = [(b'D', b"P\0"), (b'E', EXECUTE), (b'C', b"Ss\0"), (b'S', b"")];
    check(&[&[parse, bind], &rest[..]].concat(), "12TDC3Z").await;
    check(&[(b'P', b"\0RELOAD\0\0\0"), (b'B', BIND), (b'D', b"P\0"), (b'E', EXECUTE)], "12nC").await;
}

#[tokio::test]
async fn after_an_error_a_pipeline_is_skipped_up_to_its_sync() {
    let broken: [(u8, &[u8]); 4] = [(b'P', b"\0nonsense\0\0\0"), (b'B', BIND), (b'E', EXECUTE), (b'S', b"")];
    check(&broken, "EZ").await;
    let failing: [(u8, &[u8]); 5] =
        [(b'P', b"\0DISABLE\0\0\0"), (b'B', BIND), (b'E', EXECUTE), (b'E', EXECUTE), (b'S', b"")];
    check(&failing, "12EZ").await;
}

#[tokio::test]
async fn names_nobody_prepared_are_errors() {
    check(&[(b'B', BIND), (b'S', b"")], "EZ").await;
    check(&[(b'E', EXECUTE), (b'S', b"")], "EZ").await;
    check(&[(b'D', b"Sx\0"), (b'S', b"")], "EZ").await;
    check(&[(b'C', b"Sx\0"), (b'S', b"")], "3Z").await;
}

#[tokio::test]
async fn a_portal_ends_with_its_sync() {
    let messages: [(u8, &[u8]); 5] =
        [(b'P', b"\0SHOW LISTS\0\0\0"), (b'B', BIND), (b'S', b""), (b'E', EXECUTE), (b'S', b"")];
    check(&messages, "12ZEZ").await;
}

#[tokio::test]
async fn parameters_are_refused() {
    let bind: (u8, &[u8]) = (b'B', b"\0\0\0\0\0\x01\0\0\0\x01x\0\0");
    check(&[(b'P', b"\0RELOAD\0\0\0"), bind, (b'S', b"")], "1EZ").await;
}

#[tokio::test]
async fn a_shutdown_holds_the_connection_and_terminate_closes_it() {
    let (types, next) = talk(&mut session(), &[(b'Q', b"SHUTDOWN\0")]).await;
    assert_eq!((types.as_str(), next), ("", Next::Hold));
    let (types, next) = talk(&mut session(), &[(b'X', b"")]).await;
    assert_eq!((types.as_str(), next), ("", Next::Close));
}

#[tokio::test]
async fn what_breaks_the_protocol_is_answered_once_and_closed() {
    let broken: [(u8, &[u8]); 11] = [
        (b'Q', b""),
        (b'Q', b"SHOW LISTS"),
        (b'P', b"\0"),
        (b'B', b"\0\0"),
        (b'B', b"\0\0\x7f\xff"),
        (b'B', b"\0\0\0\0\0\x01\x7f\xff\xff\xffx"),
        (b'B', b"\0\0\0\0\0\0\0\x01\0\x07"),
        (b'D', b"x\0"),
        (b'C', b""),
        (b'F', b""),
        (0xff, b"\xff"),
    ];
    for (tag, body) in broken {
        let (types, next) = talk(&mut session(), &[(tag, body)]).await;
        assert!(types.starts_with('E'), "{tag} {body:?}: {types}");
        assert_eq!(next, Next::Close, "{tag} {body:?}");
    }
}

#[tokio::test]
async fn prepared_statements_are_bounded() {
    let mut session = session();
    for number in 0..NAMES_LIMIT {
        let body = format!("{number}\0RELOAD\0\0\0");
        assert_eq!(talk(&mut session, &[(b'P', body.as_bytes())]).await.0, "1");
    }
    assert_eq!(talk(&mut session, &[(b'P', b"more\0RELOAD\0\0\0")]).await.0, "E");
}
