use std::collections::BTreeMap;

use proptest::{collection::vec, option, prelude::*};

use super::*;

/// Everything that may make two answers differ.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Question {
    cluster: String,
    database: u32,
    user: String,
    parameters: BTreeMap<String, String>,
    text: Vec<u8>,
    call: Call,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Call {
    Simple,
    Extended { described: bool, types: Vec<u32>, values: Vec<(u16, Option<Vec<u8>>)>, result_formats: Vec<u16> },
}

fn prefix(question: &Question) -> KeyPrefix {
    let parameters = question.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    KeyPrefix::new(&question.cluster, question.database, &question.user, parameters)
}

fn formats(formats: impl ExactSizeIterator<Item = u16>) -> Vec<u8> {
    let mut bytes = u16::try_from(formats.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(formats.flat_map(u16::to_be_bytes));
    bytes
}

fn bind(values: &[(u16, Option<Vec<u8>>)], result_formats: &[u16]) -> Vec<u8> {
    let mut bytes = formats(values.iter().map(|(format, _)| *format));
    bytes.extend(u16::try_from(values.len()).unwrap().to_be_bytes());
    for (_, value) in values {
        let length = value.as_ref().map_or(-1, |value| i32::try_from(value.len()).unwrap());
        bytes.extend(length.to_be_bytes());
        bytes.extend(value.iter().flatten());
    }
    bytes.extend(formats(result_formats.iter().copied()));
    bytes
}

fn key(question: &Question) -> Vec<u8> {
    let mut buffer = KeyBuffer::default();
    let prefix = prefix(question);
    match &question.call {
        Call::Simple => buffer.simple(&prefix, &question.text).to_vec(),
        Call::Extended { described, types, values, result_formats } => {
            let bind = bind(values, result_formats);
            buffer.extended(&prefix, &question.text, types, &bind, *described).unwrap().to_vec()
        }
    }
}

/// Few letters and short parts, so that parts often differ only in where one ends.
fn question() -> impl Strategy<Value = Question> {
    let word = || "[a\0]{0,2}";
    let bytes = || vec(prop_oneof![Just(0u8), Just(1), Just(b'a')], 0..3);
    let values = vec((0..2u16, option::of(bytes())), 0..3);
    // A single text format means the same as none, so it is left out.
    let result_formats = vec(0..2u16, 0..3).prop_filter("canonical", |formats| formats != &[0]);
    let extended = (any::<bool>(), vec(0..2u32, 0..3), values, result_formats).prop_map(
        |(described, types, values, result_formats)| Call::Extended { described, types, values, result_formats },
    );
    let call = prop_oneof![Just(Call::Simple), extended];
    let parameters = proptest::collection::btree_map("[a-b]{0,2}", word(), 0..3);
    (word(), 0..2u32, word(), parameters, bytes(), call).prop_map(
        |(cluster, database, user, parameters, text, call)| Question {
            cluster,
            database,
            user,
            parameters,
            text,
            call,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn two_keys_are_equal_only_if_the_questions_are(one in question(), other in question()) {
        prop_assert_eq!(key(&one) == key(&other), one == other);
    }

    #[test]
    fn no_bind_message_makes_it_panic(bytes in vec(any::<u8>(), 0..64)) {
        let prefix = KeyPrefix::new("shop", 5, "alice", []);
        let _ = KeyBuffer::default().extended(&prefix, b"select 1", &[], &bytes, false);
    }

    #[test]
    fn a_bind_message_cut_short_has_no_key(question in question(), cut in 1..8usize) {
        if let Call::Extended { values, result_formats, .. } = &question.call {
            let bind = bind(values, result_formats);
            let bind = &bind[..bind.len().saturating_sub(cut)];
            let mut buffer = KeyBuffer::default();
            prop_assert_eq!(buffer.extended(&prefix(&question), &[], &[], bind, false), Err(MalformedBind));
        }
    }
}

fn extended(bind: &[u8]) -> Result<Vec<u8>, MalformedBind> {
    let prefix = KeyPrefix::new("shop", 5, "alice", []);
    KeyBuffer::default().extended(&prefix, b"select $1, $2", &[], bind, true).map(<[u8]>::to_vec)
}

#[test]
fn a_format_for_all_parameters_is_the_same_as_one_for_each() {
    let for_all = [0, 1, 0, 1, 0, 2, 0, 0, 0, 1, 7, 0, 0, 0, 1, 8, 0, 0];
    let for_each = [0, 2, 0, 1, 0, 1, 0, 2, 0, 0, 0, 1, 7, 0, 0, 0, 1, 8, 0, 0];
    assert_eq!(extended(&for_all).unwrap(), extended(&for_each).unwrap());
}

#[test]
fn text_results_by_default_are_the_same_as_text_for_all() {
    assert_eq!(extended(&[0, 0, 0, 0, 0, 0]).unwrap(), extended(&[0, 0, 0, 0, 0, 1, 0, 0]).unwrap());
    assert_ne!(extended(&[0, 0, 0, 0, 0, 0]).unwrap(), extended(&[0, 0, 0, 0, 0, 2, 0, 0, 0, 0]).unwrap());
}

#[test]
fn a_bind_message_with_bytes_left_over_or_too_many_formats_has_no_key() {
    assert_eq!(extended(&[0, 0, 0, 0, 0, 0, 9]), Err(MalformedBind));
    assert_eq!(extended(&[0, 2, 0, 0, 0, 0, 0, 0, 0, 0]), Err(MalformedBind));
    assert_eq!(extended(&[0, 0, 0, 1, 0xFF, 0xFF, 0xFF, 0xFE, 0, 0]), Err(MalformedBind), "length -2");
}

#[test]
fn parameters_count_in_any_order_and_case_and_the_application_name_not_at_all() {
    let one = KeyPrefix::new("shop", 5, "alice", [("TimeZone", "UTC"), ("DateStyle", "ISO")]);
    let other =
        KeyPrefix::new("shop", 5, "alice", [("datestyle", "ISO"), ("application_name", "x"), ("timezone", "UTC")]);
    assert_eq!(one, other);
    assert_ne!(one, KeyPrefix::new("shop", 5, "alice", [("TimeZone", "CET"), ("DateStyle", "ISO")]));
}

#[test]
fn the_memory_of_one_key_serves_the_next() {
    let prefix = KeyPrefix::new("shop", 5, "alice", []);
    let mut buffer = KeyBuffer::default();
    let long = buffer.simple(&prefix, b"select 'something long'").to_vec();
    let short = buffer.simple(&prefix, b"select 1").to_vec();
    assert_eq!(buffer.as_bytes(), short);
    assert_ne!(long, short);
    assert_eq!(short, KeyBuffer::default().simple(&prefix, b"select 1"));
}
