use super::*;
use crate::admin::{
    ConsoleError, Notice,
    table::Type::{Int4, Int8, Numeric, Text},
};

const COLUMNS: &[Column] = &[("a", Text), ("b", Int4), ("c", Int8), ("d", Numeric)];

fn table() -> Outcome {
    let cells = ["x", "7", "-8", "12.5"].map(|cell| Some(cell.to_owned()));
    Outcome::Table(Table { columns: COLUMNS, rows: vec![cells.to_vec(), vec![None; 4]] })
}

/// Message types in order.
pub(in crate::admin) fn types(mut bytes: &[u8]) -> String {
    let mut types = String::new();
    while let [kind, a, b, c, d, ..] = bytes {
        types.push(char::from(*kind));
        bytes = &bytes[1 + u32::from_be_bytes([*a, *b, *c, *d]) as usize..];
    }
    types
}

#[track_caller]
fn check(outcome: &Outcome, expected: &str) -> BytesMut {
    let mut out = BytesMut::new();
    simple(outcome, &mut out).unwrap();
    assert_eq!(types(&out), expected);
    out
}

#[test]
fn rows_follow_their_description_and_end_with_the_tag() {
    let out = check(&table(), "TDDC");
    assert!(out.ends_with(b"C\0\0\0\x09SHOW\0"));
}

#[test]
fn a_description_names_types_and_their_sizes() {
    let mut out = BytesMut::new();
    describe(Some(&[("ab", Int4)]), &[], &mut out).unwrap();
    let field = b"ab\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0";
    assert_eq!(&out[..7], [b'T', 0, 0, 0, 27, 0, 1]);
    assert_eq!(&out[7..], field);
}

#[test]
fn what_has_no_rows_is_described_as_no_data() {
    let mut out = BytesMut::new();
    describe(None, &[], &mut out).unwrap();
    assert_eq!(&out[..], b"n\0\0\0\x04");
}

#[test]
fn execute_sends_rows_alone_in_the_formats_of_bind() {
    let mut out = BytesMut::new();
    execute(&table(), &[Format::Binary], &mut out).unwrap();
    assert_eq!(types(&out), "DDC");
    let expected = b"D\0\0\0\x2f\0\x04\0\0\0\x01x\0\0\0\x04\0\0\0\x07\
        \0\0\0\x08\xff\xff\xff\xff\xff\xff\xff\xf8\
        \0\0\0\x0c\0\x02\0\0\0\0\0\x01\0\x0c\x13\x88";
    assert_eq!(&out[..48], expected);
}

#[test]
fn each_column_may_have_a_format_of_its_own() {
    let formats = [Format::Text, Format::Text, Format::Text, Format::Binary];
    let mut out = BytesMut::new();
    execute(&table(), &formats, &mut out).unwrap();
    assert!(out.windows(6).any(|bytes| bytes == b"\0\0\0\x02-8"));
    assert!(out.windows(2).any(|bytes| bytes == b"\x13\x88"));
}

#[test]
fn a_command_answers_with_its_notice_and_its_tag() {
    let notice = Notice { message: "SET ignored", detail: None };
    let outcome = Outcome::Done { tag: "SET".into(), notice: Some(notice) };
    let out = check(&outcome, "NC");
    assert!(out.starts_with(b"N\0\0\0\x21SNOTICE\0C00000\0MSET ignored\0\0"));
    check(&Outcome::Silent, "");
}

#[test]
fn an_error_has_severity_code_and_message_only() {
    let out = check(&Outcome::Failed(ConsoleError::AdminNeeded), "E");
    assert_eq!(&out[5..], b"SERROR\0C08P01\0Madmin access needed\0\0");
}

#[test]
fn a_nul_byte_in_a_command_cannot_cut_the_error_short() {
    let out = check(&Outcome::Failed(ConsoleError::invalid("a\0Mb")), "E");
    assert!(out.windows(12).any(|bytes| bytes == b"command 'aMb"));
}
