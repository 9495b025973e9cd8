use proptest::prelude::*;

use super::*;

const NOW_MS: u64 = 1_800_000_000_000;
const LIMIT: usize = 1 << 20;

fn secrets() -> Secrets {
    Secrets::derive("a secret that two proxies have").unwrap()
}

fn question() -> Question {
    secrets().question(b"key", b"stamps")
}

fn value(rows: &[u8]) -> Value {
    Value {
        row_description: Some(Bytes::from_static(b"T\0\0\0\x06\0\0")),
        rows: Bytes::copy_from_slice(rows),
        command_complete: Bytes::from_static(b"C\0\0\0\x0DSELECT 1\0"),
        row_count: 1,
        cost_us: 151,
        filled_at_ms: NOW_MS - 1000,
        lifetime_ms: 60_000,
    }
}

fn encoded(rows: &[u8]) -> Vec<u8> {
    encode(&secrets(), &question(), &value(rows)).unwrap()
}

#[track_caller]
fn check(bytes: Vec<u8>, expected: Result<Value, Refusal>) {
    assert_eq!(decode(&secrets(), &question(), bytes, LIMIT, NOW_MS), expected);
}

#[test]
fn what_was_stored_is_found_again_packed_or_not() {
    for rows in [&b""[..], b"D\0\0\0\x0B\0\x01\0\0\0\x01x", &[b'x'; 5000]] {
        check(encoded(rows), Ok(value(rows)));
    }
    assert!(encoded(&[b'x'; 5000]).len() < 1000, "what repeats itself is packed");
    let plain = Value { row_description: None, ..value(b"rows") };
    check(encode(&secrets(), &question(), &plain).unwrap(), Ok(plain));
}

#[test]
fn what_does_not_shrink_is_not_packed() {
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(4096)
    .collect();
    assert_eq!(encoded(&noise).get(5).map(|flags| flags & COMPRESSED), Some(0));
    check(encoded(&noise), Ok(value(&noise)));
}

#[test]
fn no_bit_of_a_value_can_be_changed() {
    for rows in [&b"D\0\0\0\x0B\0\x01\0\0\0\x01x"[..], &[b'x'; 2000]] {
        let whole = encoded(rows);
        for at in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            let refusal = decode(&secrets(), &question(), bytes, LIMIT, NOW_MS).unwrap_err();
            assert!(matches!(refusal, Refusal::Format | Refusal::Forged), "bit {at}: {refusal:?}");
        }
    }
}

#[test]
fn nothing_can_be_cut_off_or_put_behind() {
    let whole = encoded(b"rows");
    for length in 0..whole.len() {
        let refusal = decode(&secrets(), &question(), whole[..length].to_vec(), LIMIT, NOW_MS).unwrap_err();
        assert!(matches!(refusal, Refusal::Format | Refusal::Forged), "{length} bytes: {refusal:?}");
    }
    check([&whole[..], b"x"].concat(), Err(Refusal::Forged));
    check([&whole[..], &whole[..]].concat(), Err(Refusal::Forged));
}

#[test]
fn a_value_answers_its_own_question_at_its_own_stamps_only() {
    let secrets = secrets();
    for other in [secrets.question(b"key", b"stampz"), secrets.question(b"kez", b"stamps")] {
        let decoded = decode(&secrets, &other, encoded(b"rows"), LIMIT, NOW_MS);
        assert_eq!(decoded, Err(Refusal::Swapped));
    }
    assert_ne!(secrets.question(b"ab", b"c"), secrets.question(b"a", b"bc"), "where the key ends is part of it");
}

#[test]
fn whoever_has_another_secret_finds_and_makes_other_things() {
    let other = Secrets::derive("another secret").unwrap();
    assert_ne!(other.question(b"key", b"stamps"), question());
    let bytes = encode(&other, &question(), &value(b"rows")).unwrap();
    check(bytes, Err(Refusal::Forged));
}

#[test]
fn a_value_that_is_put_back_after_its_time_is_refused() {
    let decoded = |now| decode(&secrets(), &question(), encoded(b"rows"), LIMIT, now).map(drop);
    let last = NOW_MS - 1000 + 60_000 + CLOCK_DIFFERENCE_MS;
    assert_eq!((decoded(last), decoded(last + 1)), (Ok(()), Err(Refusal::TooOld)));
    assert_eq!(decoded(0), Err(Refusal::TooOld));
}

#[test]
fn an_answer_longer_than_allowed_is_not_unpacked() {
    let bytes = encoded(&vec![b'x'; 100_000]);
    assert!(bytes.len() < 2000);
    assert_eq!(decode(&secrets(), &question(), bytes, 50_000, NOW_MS), Err(Refusal::TooLarge));
}

#[test]
fn the_name_of_a_question_shows_its_database_and_nothing_of_what_is_asked() {
    let name = String::from_utf8(question().redis_key("shop")).unwrap();
    let hash = name.strip_prefix("pgweir:shop:").unwrap();
    assert!(hash.len() == 32 && hash.bytes().all(|digit| digit.is_ascii_hexdigit()), "{name}");
    assert_eq!(format!("{:?}", secrets()), "***");
}

proptest! {
    #[test]
    fn noise_is_never_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(decode(&secrets(), &question(), bytes.clone(), LIMIT, NOW_MS).is_err());
        let headed = [&MAGIC[..], &[VERSION], &bytes].concat();
        prop_assert!(decode(&secrets(), &question(), headed, LIMIT, NOW_MS).is_err());
    }
}
