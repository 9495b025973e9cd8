use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::catalog::{KeyType, RelationOid};

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

const INT8: u32 = 20;
const TEXT: u32 = 25;
const OID: u32 = 16_400;

/// A relation with columns, each perhaps part of the key, of a name and a type.
fn table(identity: u8, columns: &[(bool, &str, u32)]) -> Vec<u8> {
    let mut message = [&b"R"[..], &OID.to_be_bytes(), b"public\0t\0", &[identity]].concat();
    message.extend((columns.len() as u16).to_be_bytes());
    for (is_key, name, type_oid) in columns {
        message.extend([u8::from(*is_key)]);
        message.extend([name.as_bytes(), b"\0", &type_oid.to_be_bytes(), &[0xff; 4]].concat());
    }
    message
}

/// A change of it, with one or two tuples; `~` is a value that is not told.
fn change(kind: u8, tuples: &[(u8, &[&str])]) -> Vec<u8> {
    let mut message = [&[kind][..], &OID.to_be_bytes()].concat();
    for (tag, values) in tuples {
        message.push(*tag);
        message.extend((values.len() as u16).to_be_bytes());
        for value in *values {
            match *value {
                "~" => message.push(b'n'),
                text => message.extend([b"t", &(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat()),
            }
        }
    }
    message
}

fn keys(kind: KeyType, values: &[&str]) -> Changes {
    let row = |value: &&str| Row {
        relation: RelationOid(OID),
        key: kind.named("id"),
        number: kind.of_text(value.as_bytes()).unwrap(),
    };
    let mut keys: Vec<_> = values.iter().map(row).collect();
    keys.sort_unstable();
    Changes { keys, ..Changes::default() }
}

const SHOP: &[(bool, &str, u32)] = &[(false, "v", TEXT), (true, "id", INT8), (false, "w", TEXT)];

#[test]
fn a_row_is_told_by_its_primary_key_and_by_both_where_that_has_changed() {
    let shop = || table(b'd', SHOP);
    let new = |id| (b'N', ["x", id, "y"]);
    let five = keys(KeyType::Integer, &["5"]);
    check(&[shop(), change(b'I', &[(b'N', &new("5").1)])], &five);
    check(&[shop(), change(b'U', &[(b'N', &["~", "5", "~"])])], &five);
    check(&[shop(), change(b'D', &[(b'K', &["~", "5", "~"])])], &five);
    let moved = change(b'U', &[(b'K', &["~", "5", "~"]), (b'N', &["x", "-6", "y"])]);
    check(&[shop(), moved], &keys(KeyType::Integer, &["5", "-6"]));
    let mut words = table(b'd', &[(true, "id", TEXT)]);
    check(&[words.clone(), change(b'I', &[(b'N', &["a b"])])], &keys(KeyType::Text, &["a b"]));
    check(&[words.clone(), change(b'I', &[(b'N', &["\u{e4}"])])], &rows(&[OID]));
    // Of a row that is longer than what is looked at the key may be known.
    let mut long = change(b'I', &[(b'N', &["x", "5", "yyyyyyyy"])]);
    long.truncate(long.len() - 4);
    check(&[shop(), long.clone()], &five);
    long.truncate(12);
    check(&[shop(), long], &rows(&[OID]));
    words.truncate(words.len() - 1);
    check(&[words, change(b'I', &[(b'N', &["a b"])])], &rows(&[OID]));
}

#[test]
fn rows_without_a_key_that_is_understood_are_any_rows() {
    let any = rows(&[OID]);
    let inserted = || change(b'I', &[(b'N', &["1", "5", "1"])]);
    for (identity, columns) in [
        (b'f', SHOP),
        (b'i', SHOP),
        (b'n', SHOP),
        (b'd', &[(false, "v", TEXT), (false, "id", INT8)][..]),
        (b'd', &[(true, "v", INT8), (true, "id", INT8)]),
        (b'd', &[(false, "v", TEXT), (true, "id", 1700)]),
        (b'd', &[(false, "v", TEXT), (true, "\u{e4}", INT8)]),
    ] {
        check(&[table(identity, columns), inserted()], &any);
    }
    let shop = || table(b'd', SHOP);
    for strange in [
        change(b'U', &[(b'O', &["x", "5", "y"]), (b'N', &["x", "5", "y"])]),
        change(b'D', &[(b'O', &["x", "5", "y"])]),
        change(b'U', &[(b'K', &["~", "5", "~"])]),
        change(b'U', &[(b'K', &["~", "5", "~"]), (b'K', &["x", "6", "y"])]),
        change(b'I', &[(b'N', &["x", "~", "y"])]),
        change(b'I', &[(b'N', &["x", "5.0", "y"])]),
        change(b'I', &[(b'N', &["x"])]),
        change(b'I', &[]),
    ] {
        check(&[shop(), strange], &any);
    }
    check(&[shop(), inserted(), truncate(&[OID])], &any);
    check(&[shop(), truncate(&[OID]), inserted()], &any);
    // What it was before does not count any more.
    let changed = [shop(), table(b'f', SHOP), inserted()];
    check(&changed, &Changes { definitions: true, ..any });
}

#[test]
fn too_many_rows_are_all_rows_of_their_relations() {
    let inserted = |at: usize| change(b'I', &[(b'N', &["x", &at.to_string(), "y"])]);
    let of = |count: usize| [table(b'd', SHOP)].into_iter().chain((0..count).map(inserted)).collect::<Vec<_>>();
    let values: Vec<_> = (0..MOST_KEYS).map(|at| at.to_string()).collect();
    let most = keys(KeyType::Integer, &values.iter().map(|value| &**value).collect::<Vec<_>>());
    check(&of(MOST_KEYS), &most);
    check(&of(MOST_KEYS + 1), &rows(&[OID]));
    let mut merged = most;
    merged.merge(&keys(KeyType::Integer, &["0"]));
    assert_eq!(merged.count(), MOST_KEYS);
    merged.merge(&keys(KeyType::Integer, &["-1"]));
    assert_eq!(merged, rows(&[OID]));
}

/// What a server tells of random writes to one table covers every key that was written, before or after. `ablate`: the old
/// keys of rows that have got other ones are not told.
fn is_covered(seed: u64, ablate: bool) -> bool {
    let mut state = seed;
    let mut roll = |sides: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % sides
    };
    let (mut decoder, mut table_rows) = (Decoder::default(), BTreeMap::<i64, u64>::new());
    for xid in 0..40 {
        decoder.take(&begin(xid)).unwrap();
        if roll(10) == 0 || xid == 0 {
            decoder.take(&table(b'd', SHOP)).unwrap();
        }
        let mut written = BTreeSet::new();
        for _ in 0..=roll(6) {
            let (one, other) = (roll(12) as i64 - 6, roll(12) as i64 - 6);
            let (old, new) = (one.to_string(), other.to_string());
            let has = table_rows.contains_key(&one);
            let told = match roll(4) {
                0 if !has => {
                    table_rows.insert(one, 0);
                    change(b'I', &[(b'N', &["x", &old, "y"])])
                }
                1 if has => {
                    table_rows.remove(&one);
                    change(b'D', &[(b'K', &["~", &old, "~"])])
                }
                2 if has && !table_rows.contains_key(&other) => {
                    let version = table_rows.remove(&one).unwrap();
                    table_rows.insert(other, version + 1);
                    written.insert(other);
                    let new: (u8, &[&str]) = (b'N', &["x", &new, "y"]);
                    let old: (u8, &[&str]) = (b'K', &["~", &old, "~"]);
                    if ablate { change(b'U', &[new]) } else { change(b'U', &[old, new]) }
                }
                _ if has => {
                    *table_rows.get_mut(&one).unwrap() += 1;
                    change(b'U', &[(b'N', &["~", &old, "y"])])
                }
                _ => continue,
            };
            written.insert(one);
            decoder.take(&told).unwrap();
        }
        let Ok(Told::Committed(Transaction { changes, .. })) = decoder.take(&commit(9)) else { return false };
        let written: Vec<_> = written.iter().map(i64::to_string).collect();
        let expected = keys(KeyType::Integer, &written.iter().map(|value| &**value).collect::<Vec<_>>());
        if changes.keys != expected.keys || !changes.rows.is_empty() {
            return false;
        }
    }
    true
}

#[test]
fn every_key_that_was_written_is_told_and_no_other() {
    assert!((0..2_000).all(|seed| is_covered(seed, false)));
    assert!((0..20).any(|seed| !is_covered(seed, true)), "old keys are needed");
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
    ), rows in proptest::collection::vec(
        (proptest::sample::select(b"IUD".to_vec()), proptest::collection::vec(
            prop_oneof![any::<u8>(), proptest::sample::select(b"NKOtnu\0\x01\x02\x03".to_vec())], 0..40)), 0..80
    )) {
        let mut decoder = Decoder::default();
        decoder.take(&begin(1)).unwrap();
        decoder.take(&table(b'd', SHOP)).unwrap();
        for (tag, body) in rows {
            prop_assert!(decoder.take(&[&[tag][..], &OID.to_be_bytes(), &body].concat()).is_ok());
        }
        decoder.take(&commit(1)).unwrap();
        for (tag, body) in messages {
            let whole = [&[tag][..], &body].concat();
            if let Ok(Told::Committed(transaction)) = decoder.take(&whole) {
                prop_assert!(transaction.changes.count() <= 2 * MOST_RELATIONS + MOST_KEYS);
            }
        }
    }

    #[test]
    fn no_bytes_make_the_envelope_panic(head in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = super::super::Message::read(&head);
    }
}
