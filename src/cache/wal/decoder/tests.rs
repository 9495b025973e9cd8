use proptest::prelude::*;

use super::*;

fn begin(xid: u32) -> Vec<u8> {
    [&b"B"[..], &[9; 16], &xid.to_be_bytes()].concat()
}

fn commit(end: u64) -> Vec<u8> {
    [&b"C\0"[..], &[9; 8], &end.to_be_bytes(), &[9; 8]].concat()
}

/// A change of a row: the number of the relation, then tuples, which may hold anything.
fn row(kind: u8, oid: u32) -> Vec<u8> {
    [&[kind][..], &oid.to_be_bytes(), b"N\0\x01t\0\0\0\x05hello"].concat()
}

fn truncate(oids: &[u32]) -> Vec<u8> {
    let mut message = [&b"T"[..], &(oids.len() as u32).to_be_bytes(), &[1]].concat();
    oids.iter().for_each(|oid| message.extend_from_slice(&oid.to_be_bytes()));
    message
}

fn relation(oid: u32, name: &str) -> Vec<u8> {
    [&b"R"[..], &oid.to_be_bytes(), b"public\0", name.as_bytes(), b"\0d\0\0"].concat()
}

fn message(is_transactional: bool, prefix: &str, content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u32).to_be_bytes();
    [&[b'M', u8::from(is_transactional)][..], &[9; 8], prefix.as_bytes(), b"\0", &length, content].concat()
}

fn rows(oids: &[u32]) -> Changes {
    Changes { rows: oids.to_vec(), ..Changes::default() }
}

fn named(oids: &[u32]) -> Changes {
    Changes { named: oids.to_vec(), ..Changes::default() }
}

/// What a transaction of these messages has written.
#[track_caller]
fn check(messages: &[Vec<u8>], expected: &Changes) {
    let mut decoder = Decoder::default();
    assert_eq!(decoder.take(&begin(7)), Ok(Told::Nothing));
    for message in messages {
        assert_eq!(decoder.take(message), Ok(Told::Nothing), "{message:?}");
    }
    let expected = Transaction { xid: 7, end: Lsn::new(0x99), changes: expected.clone() };
    assert_eq!(decoder.take(&commit(0x99)), Ok(Told::Committed(expected)));
}

#[test]
fn a_transaction_tells_the_relations_whose_rows_it_has_changed() {
    check(&[], &Changes::default());
    check(&[row(b'I', 16_400)], &rows(&[16_400]));
    check(&[row(b'U', 3), row(b'D', 2), row(b'I', 3), row(b'D', 2)], &rows(&[2, 3]));
    check(&[truncate(&[5, 4])], &rows(&[4, 5]));
    check(&[relation(9, "t"), row(b'I', 9)], &rows(&[9]));
    check(&[b"O\0\0\0\0\0\0\0\x01name\0".to_vec(), b"Y\0\0\0\x01public\0mood\0".to_vec()], &Changes::default());
    check(&[row(b'I', u32::MAX)], &rows(&[u32::MAX]));
}

#[test]
fn a_message_of_ours_names_a_relation_or_says_that_definitions_have_changed() {
    check(&[message(true, "pgweir", b"16400"), message(true, "pgweir", b"1")], &named(&[1, 16_400]));
    check(&[message(true, "pgweir", b"ddl")], &Changes { definitions: true, ..Changes::default() });
    check(&[message(true, "pgweir", b"tick")], &Changes::default());
    check(&[message(true, "other", b"ddl"), message(false, "other", &[0; 4000])], &Changes::default());
    for garbage in [&b""[..], b"t", b"+1", b"-1", b"4294967296", b"99999999999", b"1 ", b"\xff\xfe"] {
        check(&[message(true, "pgweir", garbage)], &Changes::everything());
    }
    let said = Decoder::default().take(&message(false, "pgweir", b"12"));
    assert_eq!(said, Ok(Told::Said(named(&[12]))), "it belongs to no transaction");
}

#[test]
fn what_is_longer_than_the_part_that_is_looked_at_counts_as_everything() {
    let oids: Vec<u32> = (0..100).collect();
    let mut long = truncate(&oids);
    long.truncate(30);
    check(&[long], &Changes::everything());
    let mut long = message(true, "pgweir", &[b'1'; 50]);
    long.truncate(40);
    check(&[long], &Changes::everything());
    let mut foreign = message(true, "audit", &[b'1'; 50]);
    foreign.truncate(12);
    check(&[foreign], &Changes::default());
}

#[test]
fn many_relations_are_everything() {
    let most = MOST_RELATIONS as u32;
    let of = |count: u32| (0..count).map(|oid| row(b'I', oid)).collect::<Vec<_>>();
    check(&of(most), &rows(&(0..most).collect::<Vec<_>>()));
    check(&of(most + 1), &Changes::everything());
    let mut merged = rows(&(0..most).collect::<Vec<_>>());
    merged.merge(&rows(&[0]));
    assert!(!merged.everything);
    merged.merge(&rows(&[most]));
    assert_eq!(merged, Changes::everything());
}

#[test]
fn a_relation_that_comes_again_has_changed_or_may_have() {
    let doubt = Changes { doubt: true, ..Changes::default() };
    check(&[relation(9, "t"), relation(8, "u")], &Changes::default());
    check(&[relation(9, "t"), relation(9, "t")], &doubt);
    check(&[relation(9, "t"), relation(9, "renamed")], &Changes { definitions: true, ..Changes::default() });
}

#[test]
fn what_is_not_expected_ends_the_stream() {
    let mut decoder = Decoder::default();
    assert_eq!(decoder.take(b""), Err(DecodeError::Truncated));
    for outside in [row(b'I', 1), truncate(&[1]), commit(1), relation(1, "t"), message(true, "pgweir", b"1")] {
        assert_eq!(Decoder::default().take(&outside), Err(DecodeError::OutOfPlace(outside[0])));
    }
    assert_eq!(decoder.take(&begin(1)), Ok(Told::Nothing));
    assert_eq!(decoder.take(&begin(2)), Err(DecodeError::OutOfPlace(b'B')));
    assert_eq!(decoder.take(b"I\0\0\0"), Err(DecodeError::Truncated));
    // Streamed and prepared transactions belong to later versions of the protocol.
    for tag in [b'S', b'E', b'c', b'A', b'b', b'P', b'K', b'r', b'p', 0] {
        assert_eq!(decoder.take(&[tag, 0, 0, 0, 0]), Err(DecodeError::Unknown(tag)));
    }
}

#[test]
fn what_is_remembered_of_shapes_is_bounded() {
    let mut decoder = Decoder::default();
    decoder.take(&begin(1)).unwrap();
    for oid in 0..2 * MOST_SHAPES as u32 + 5 {
        decoder.take(&relation(oid, "t")).unwrap();
        assert!(decoder.shapes.len() <= MOST_SHAPES);
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_remember_much(messages in proptest::collection::vec(
        (proptest::sample::select(b"BCIUDTRMOYx".to_vec()), proptest::collection::vec(any::<u8>(), 0..60)), 0..80
    )) {
        let mut decoder = Decoder::default();
        for (tag, body) in messages {
            let whole = [&[tag][..], &body].concat();
            if let Ok(Told::Committed(transaction)) = decoder.take(&whole) {
                prop_assert!(transaction.changes.len() <= 2 * MOST_RELATIONS);
            }
        }
    }

    #[test]
    fn no_bytes_make_the_envelope_panic(head in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = super::super::Message::read(&head);
    }
}
