use super::*;
use crate::protocol::ErrorResponse;

fn message(tag: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::put(&mut bytes, tag, |body| body.push(b'I'));
    bytes
}

fn word(tag: u8, severity: &str, sqlstate: &str, text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::put(&mut bytes, tag, |body| {
        for (code, text) in [(b'V', severity), (b'C', sqlstate), (b'M', text)] {
            body.push(code);
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        body.push(0);
    });
    bytes
}

fn error(sqlstate: &str, text: &str) -> Vec<u8> {
    [word(b'E', "ERROR", sqlstate, text), message(b'Z')].concat()
}

#[track_caller]
fn check(parts: &[&[u8]], expected: Said) {
    assert_eq!(said(&parts.concat()), expected);
}

const CONFLICT: Said = Said::Failure(Cause::RecoveryConflict);

#[test]
fn what_comes_in_front_of_the_first_row_waits() {
    check(&[], Said::Nothing);
    for preliminary in b"123tTnSH" {
        check(&[&message(*preliminary)], Said::Nothing);
    }
    check(&[&message(b'1'), &message(b'2'), &message(b'T'), b"D\0\0"], Said::Nothing);
    for answer in b"DCZIsNAc" {
        check(&[&message(b'T'), &message(*answer)], Said::Answer);
    }
    check(&[&message(b'T'), b"D\0\0\x01\0half"], Said::Answer);
    check(&[b"T\0\x01\0\0", &vec![0; UNREAD_LIMIT_BYTES]], Said::Answer);
}

#[test]
fn an_error_behind_rows_that_nobody_has_seen_counts_as_one_in_front() {
    let conflict = error("40001", "canceling statement due to conflict with recovery");
    check(&[&conflict], CONFLICT);
    check(&[&message(b'T'), &conflict], CONFLICT);
    check(&[&message(b'T'), &message(b'D'), &message(b'D'), &conflict], CONFLICT);
    check(&[&message(b'T'), &message(b'C'), &conflict], CONFLICT);
    let shutdown = word(b'N', "WARNING", "57P01", "terminating connection due to immediate shutdown command");
    check(
        &[&message(b'2'), &message(b'D'), &message(b'C'), &shutdown],
        Said::Failure(Cause::Shutdown(SqlState::ADMIN_SHUTDOWN)),
    );
    check(&[&message(b'2'), &message(b'D'), &message(b'C'), &message(b'Z'), &shutdown], Said::Answer);
    for cut in 1..conflict.len() {
        let half = conflict.get(..cut).unwrap();
        let expected = if cut < 5 { Said::Answer } else { Said::Nothing };
        check(&[&message(b'D'), half], expected);
    }
}

#[test]
fn only_errors_that_another_member_might_not_have_are_tried_elsewhere() {
    let shutdown = |code: &[u8; 5]| Some(Cause::Shutdown(SqlState(*code)));
    for (severity, sqlstate, text, expected) in [
        ("FATAL", "57P01", "terminating connection due to administrator command", shutdown(b"57P01")),
        ("WARNING", "57P02", "terminating connection because of crash of another server process", shutdown(b"57P02")),
        ("FATAL", "57P04", "terminating connection due to conflict with recovery", shutdown(b"57P04")),
        ("FATAL", "57P05", "terminating connection due to idle-session timeout", None),
        ("ERROR", "57014", "canceling statement due to user request", None),
        ("ERROR", "57014", "canceling statement due to statement timeout", None),
        ("ERROR", "40001", "canceling statement due to conflict with recovery", Some(Cause::RecoveryConflict)),
        ("FATAL", "40001", "terminating connection due to conflict with recovery", Some(Cause::RecoveryConflict)),
        ("ERROR", "40P01", "deadlock detected", None),
        ("ERROR", "25006", "cannot execute INSERT in a read-only transaction", Some(Cause::ReadOnly)),
        ("ERROR", "55000", "recovery is in progress", Some(Cause::InRecovery(SqlState::NOT_IN_PREREQUISITE_STATE))),
        (
            "ERROR",
            "0A000",
            "cannot use serializable mode in a hot standby",
            Some(Cause::InRecovery(SqlState::FEATURE_NOT_SUPPORTED)),
        ),
        ("ERROR", "0A000", "cached plan must not change result type", None),
        ("ERROR", "55000", "materialized view \"m\" has not been populated", None),
        ("ERROR", "42P01", "relation \"t\" does not exist", None),
        ("NOTICE", "00000", "a word", None),
        ("NOTICE", "40001", "a function's own", None),
    ] {
        let tag = if matches!(severity, "ERROR" | "FATAL") { b'E' } else { b'N' };
        let message = [word(tag, severity, sqlstate, text), message(b'Z')].concat();
        check(&[&message], expected.map_or(Said::Answer, Said::Failure));
    }
}

#[test]
fn a_server_that_goes_on_is_heard_out_and_one_that_goes_is_not() {
    for (severity, is_over) in [("ERROR", false), ("FATAL", true), ("PANIC", true)] {
        let expected = if is_over { CONFLICT } else { Said::Nothing };
        check(&[&word(b'E', severity, "40001", "conflict with recovery")], expected);
    }
}

#[test]
fn an_error_of_our_own_is_read_alike() {
    let mut response = Vec::new();
    ErrorResponse::fatal(SqlState::ADMIN_SHUTDOWN, "going").put(&mut response);
    assert_eq!(Cause::of(&response), Some(Cause::Shutdown(SqlState::ADMIN_SHUTDOWN)));
}
