use super::*;

const TABLE: RelationOid = RelationOid(16_384);
const LIMIT: usize = 100;

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + LENGTH_FIELD_BYTES).unwrap();
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

fn row(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    message(b'D', &[&[0, 1][..], &length, text.as_bytes()].concat())
}

fn tag(text: &str) -> Vec<u8> {
    message(b'C', &[text.as_bytes(), b"\0"].concat())
}

fn description(relation: RelationOid, type_oid: u32) -> Vec<u8> {
    let fields =
        [&relation.0.to_be_bytes()[..], &[0, 1], &type_oid.to_be_bytes(), &[0, 4, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0]];
    message(b'T', &[&[0, 1][..], b"id\0", &fields.concat()].concat())
}

fn ready(status: u8) -> Vec<u8> {
    message(b'Z', &[status])
}

fn fill(messages: &[Vec<u8>]) -> Fill {
    let mut fill = Fill::new(LIMIT);
    fill.feed(&messages.concat());
    fill
}

#[track_caller]
fn check_discard(messages: &[Vec<u8>], expected: Discard) {
    assert_eq!(fill(messages).finish(IDLE, |relation| relation == TABLE), Err(expected));
}

fn check_kept(messages: &[Vec<u8>]) -> Answer {
    fill(messages).finish(IDLE, |relation| relation == TABLE).unwrap()
}

#[test]
fn an_answer_is_cut_into_its_messages_and_nothing_else() {
    let answer = check_kept(&[description(TABLE, 23), row("1"), row("22"), tag("SELECT 2"), ready(b'I')]);
    assert_eq!(answer.row_description.unwrap(), description(TABLE, 23));
    assert_eq!(answer.rows, [row("1"), row("22")].concat());
    assert_eq!((answer.command_complete.to_vec(), answer.row_count), (tag("SELECT 2"), 2));
}

#[test]
fn what_only_this_client_was_told_is_left_out() {
    let answer = check_kept(&[message(b'1', &[]), message(b'2', &[]), row("1"), tag("SELECT 1")]);
    assert_eq!((answer.row_description, answer.rows.to_vec()), (None, row("1")));
}

#[test]
fn an_answer_without_rows_is_an_answer() {
    assert!(check_kept(&[description(TABLE, 23), tag("SELECT 0"), ready(b'I')]).rows.is_empty());
}

#[test]
fn bytes_may_be_cut_anywhere() {
    let wire = [description(TABLE, 23), row("1"), tag("SELECT 1"), ready(b'I')].concat();
    let whole = fill(std::slice::from_ref(&wire)).finish(IDLE, |_| true).unwrap();
    for cut in 0..wire.len() {
        let mut fill = Fill::new(LIMIT);
        assert!(fill.feed(&wire[..cut]) && fill.feed(&wire[cut..]));
        assert_eq!(fill.finish(IDLE, |_| true).as_ref(), Ok(&whole));
    }
}

#[test]
fn an_answer_that_ends_early_is_not_kept() {
    let wire = [row("1"), tag("SELECT 1"), ready(b'I')].concat();
    let boundary = row("1").len() + tag("SELECT 1").len();
    for cut in (0..wire.len()).filter(|cut| *cut != boundary) {
        check_discard(&[wire[..cut].to_vec()], Discard::Malformed);
    }
}

#[test]
fn anything_a_hit_could_not_repeat_discards_the_answer() {
    check_discard(&[row("1"), message(b'N', b"\0"), tag("SELECT 1")], Discard::Notice);
    check_discard(&[row("1"), message(b'E', b"\0")], Discard::Error);
    check_discard(&[message(b'S', b"TimeZone\0UTC\0"), row("1"), tag("SELECT 1")], Discard::Asynchronous);
    check_discard(&[row("1"), tag("SELECT 1"), message(b'A', b"")], Discard::Asynchronous);
    check_discard(&[row("1"), message(b's', b"")], Discard::Suspended);
    check_discard(&[message(b'H', b""), tag("COPY 1")], Discard::Malformed);
}

#[test]
fn only_select_of_as_many_rows_is_kept() {
    for text in ["SELECT 2", "INSERT 0 1", "SELECT", "SELECT -1", "FETCH 1"] {
        check_discard(&[row("1"), tag(text), ready(b'I')], Discard::Tag);
    }
}

#[test]
fn two_answers_in_one_are_not_kept() {
    check_discard(&[tag("SELECT 0"), tag("SELECT 0"), ready(b'I')], Discard::Malformed);
    check_discard(&[row("1"), tag("SELECT 1"), ready(b'I'), ready(b'I')], Discard::Malformed);
}

#[test]
fn a_transaction_that_is_still_open_discards_the_answer() {
    check_discard(&[row("1"), tag("SELECT 1"), ready(b'T')], Discard::Status);
    assert_eq!(fill(&[row("1"), tag("SELECT 1")]).finish(b'E', |_| true), Err(Discard::Status));
}

#[test]
fn a_column_of_a_relation_the_analysis_missed_is_an_alarm() {
    let other = RelationOid(99);
    check_discard(&[description(other, 23), tag("SELECT 0")], Discard::UnknownRelation(other));
    check_kept(&[description(RelationOid(0), 23), tag("SELECT 0")]);
}

#[test]
fn a_column_whose_text_hangs_on_the_catalog_is_not_kept() {
    check_discard(&[description(TABLE, 2205), tag("SELECT 0")], Discard::CatalogType);
}

#[test]
fn the_limit_counts_rows_and_gives_the_memory_back() {
    let fits = "x".repeat(LIMIT - row("").len());
    check_kept(&[row(&fits), tag("SELECT 1")]);
    check_discard(&[row(&format!("{fits}x")), tag("SELECT 1")], Discard::TooLarge);
    let mut fill = Fill::new(LIMIT);
    assert!(!fill.feed(&vec![0; LIMIT + FRAME_ALLOWANCE_BYTES + 1]) && !fill.feed(&[0]));
    assert_eq!(fill.wire.capacity(), 0);
}

#[test]
fn a_length_that_lies_is_malformed() {
    check_discard(&[vec![b'D', 0xFF, 0xFF, 0xFF, 0xFF]], Discard::Malformed);
    check_discard(&[vec![b'D', 0, 0, 0, 3]], Discard::Malformed);
    check_discard(&[message(b'T', &[0, 1, b'x']), tag("SELECT 0")], Discard::Malformed);
}
