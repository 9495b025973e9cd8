use super::*;

fn queue(entries: impl IntoIterator<Item = Reply>) -> Replies {
    let mut replies = Replies::default();
    for entry in entries {
        replies.push(entry);
    }
    replies
}

/// Feeds whole messages by tag (`Z` carries status I) and returns what became of each.
fn feed(replies: &mut Replies, tags: &[u8]) -> Vec<Verdict> {
    let status = |tag: u8| (tag == b'Z').then_some(TransactionStatus::Idle);
    tags.iter().map(|tag| replies.on_backend(*tag, status(*tag))).collect()
}

const FORWARD: Verdict = Verdict::Forward;
const READY: Verdict = Verdict::Ready(TransactionStatus::Idle);
use Expected::{Bind, Close, CopyEnd, Describe, Execute, Parse, Query, Sync};

#[test]
fn a_pipeline_gets_each_reply_in_its_place() {
    let mut replies = queue([Parse, Bind, Describe, Execute, Sync, Bind, Execute, Sync].map(Reply::forward));
    assert_eq!(feed(&mut replies, b"12TC"), [FORWARD; 4]);
    assert_eq!(feed(&mut replies, b"Z2CZ"), [READY, FORWARD, FORWARD, READY]);
    assert!(replies.is_empty());
}

#[test]
fn a_reply_that_nobody_is_owed_is_out_of_sync() {
    let mut replies = queue([Reply::forward(Bind)]);
    assert_eq!(feed(&mut replies, b"1"), [Verdict::OutOfSync]);
    assert_eq!(feed(&mut Replies::default(), b"Z"), [Verdict::OutOfSync]);
    assert_eq!(feed(&mut Replies::default(), b"C"), [Verdict::OutOfSync]);
}

#[test]
fn replies_to_our_own_messages_are_swallowed() {
    let mut replies =
        queue([Reply::swallow(Parse), Reply::forward(Bind), Reply::forward(Execute), Reply::forward(Sync)]);
    assert_eq!(feed(&mut replies, b"12CZ"), [Verdict::Swallow, FORWARD, FORWARD, READY]);
}

#[test]
fn a_made_up_reply_waits_for_its_turn() {
    let mut replies =
        queue([Reply::forward(Parse), Reply::made_up(Parse), Reply::made_up(Close), Reply::forward(Sync)]);
    let mut out = Vec::new();
    replies.make_up(|bytes| out.extend_from_slice(bytes));
    assert!(out.is_empty());
    assert_eq!(feed(&mut replies, b"1"), [FORWARD]);
    replies.make_up(|bytes| out.extend_from_slice(bytes));
    assert_eq!(out, [backend::PARSE_COMPLETE, backend::CLOSE_COMPLETE].concat());
    assert_eq!(feed(&mut replies, b"Z"), [READY]);
}

#[test]
fn an_error_voids_everything_up_to_the_next_sync_and_takes_it_back_latest_first() {
    let name = |name: &[u8]| Undo::Unname(name.into());
    let mut replies = queue([
        Reply::forward(Parse).undone_by(name(b"a")),
        Reply::forward(Parse).undone_by(name(b"b")),
        Reply::made_up(Close),
        Reply::forward(Sync),
        Reply::forward(Bind),
        Reply::forward(Sync),
    ]);
    assert_eq!(feed(&mut replies, b"E"), [FORWARD]);
    let undone: Vec<_> = replies.take_undone().collect();
    assert!(matches!(&undone[..], [Undo::Unname(b), Undo::Unname(a)] if **a == *b"a" && **b == *b"b"));
    assert!(!replies.has_made_up());
    assert_eq!(feed(&mut replies, b"Z2Z"), [READY, FORWARD, READY]);
}

#[test]
fn the_names_that_a_request_has_given_can_be_taken_back_as_a_whole() {
    let prepared = crate::session::StatementRegistry::default().fresh(
        b"select 1",
        &[0, 0],
        0,
        None,
        crate::sql::Analyzer::default().analyze("select 1"),
    );
    let id = StatementId::LOCK_SET;
    let replies = queue([
        Reply::swallow(Parse).undone_by(Undo::Unprepare(id)),
        Reply::made_up(Close).undone_by(Undo::Rename(b"closed"[..].into(), prepared)),
        Reply::made_up(Parse).undone_by(Undo::Unname(b"known"[..].into())),
        Reply::forward(Parse).undone_by(Undo::UnnameAndUnprepare(b"new"[..].into(), id)),
        Reply::forward(Sync),
    ]);
    let names: Vec<_> = replies.names_given().iter().map(|undo| format!("{undo:?}")).collect();
    let expected = ["Unname([110, 101, 119])", "Unname([107, 110, 111, 119, 110])"];
    assert_eq!(names[..2], expected, "latest first");
    assert!(names[2].starts_with("Rename([99") && names.len() == 3, "{names:?}");
    assert_eq!(replies.len(), 5, "and what is owed is owed");
}

#[test]
fn an_error_in_a_statement_prepared_again_for_the_client_is_the_clients() {
    let mut replies = queue([Reply::swallow(Parse), Reply::forward(Bind), Reply::forward(Sync)]);
    assert_eq!(feed(&mut replies, b"EZ"), [FORWARD, READY]);
}

#[test]
fn an_error_in_a_query_of_our_own_is_ours() {
    let mut replies = queue([Reply::swallow(Query), Reply::forward(Query)]);
    assert_eq!(feed(&mut replies, b"E"), [Verdict::Swallow]);
    assert_eq!(feed(&mut replies, b"Z"), [Verdict::OwnReady(TransactionStatus::Idle)]);
    assert_eq!(feed(&mut replies, b"TCZ"), [FORWARD, FORWARD, READY]);
}

#[test]
fn a_sync_that_copy_swallows_is_not_waited_for() {
    // libpq sends the Sync with the Execute; the server ignores it while it reads CopyData.
    let mut replies = queue([Bind, Execute, Sync].map(Reply::forward));
    assert_eq!(feed(&mut replies, b"2G"), [FORWARD; 2]);
    assert!(replies.is_copying_in());
    replies.push(Reply::forward(CopyEnd));
    replies.push(Reply::forward(Sync));
    assert_eq!(feed(&mut replies, b"CZ"), [FORWARD, READY]);
    assert!(replies.is_empty());
}

#[test]
fn a_copy_that_was_pipelined_whole_keeps_the_sync_behind_it() {
    let mut replies = queue([Execute, Sync, CopyEnd, Sync].map(Reply::forward));
    assert_eq!(feed(&mut replies, b"GCZ"), [FORWARD, FORWARD, READY]);
    assert!(replies.is_empty());
}

#[test]
fn a_copy_error_waits_for_the_sync_that_comes_later() {
    let mut replies = queue([Execute].map(Reply::forward));
    assert_eq!(feed(&mut replies, b"GE"), [FORWARD; 2]);
    replies.push(Reply::forward(CopyEnd));
    replies.push(Reply::forward(Sync));
    assert_eq!(feed(&mut replies, b"Z"), [READY]);
    assert!(replies.is_empty());
}

#[test]
fn a_simple_copy_ends_with_its_ready_for_query() {
    let mut replies = queue([Reply::forward(Query)]);
    assert_eq!(feed(&mut replies, b"G"), [FORWARD]);
    replies.push(Reply::forward(CopyEnd));
    assert_eq!(feed(&mut replies, b"CZ"), [FORWARD, READY]);
    assert!(!replies.is_copying_in());
}

#[test]
fn what_a_parameter_of_ours_reports_is_swallowed() {
    let mut replies = queue([Reply::swallow(Query), Reply::forward(Query)]);
    assert_eq!(feed(&mut replies, b"S"), [Verdict::Swallow]);
    assert_eq!(feed(&mut replies, b"CZ"), [Verdict::Swallow, Verdict::OwnReady(TransactionStatus::Idle)]);
    assert_eq!(feed(&mut replies, b"SN"), [FORWARD; 2]);
}

#[test]
fn what_is_sent_behind_an_error_is_answered_from_the_next_sync_on() {
    let mut replies = queue([Parse, Bind].map(Reply::forward));
    assert_eq!(feed(&mut replies, b"E"), [FORWARD]);
    assert!(!replies.is_empty());
    replies.push(Reply::forward(Parse).undone_by(Undo::Unname(b"a"[..].into())));
    replies.push(Reply::made_up(Close).undone_by(Undo::Unname(b"b"[..].into())));
    replies.push(Reply::forward(Execute));
    let undone: Vec<_> = replies.take_undone().collect();
    assert!(matches!(&undone[..], [Undo::Unname(b), Undo::Unname(a)] if **a == *b"a" && **b == *b"b"));
    assert!(!replies.has_made_up());
    replies.push(Reply::forward(Sync));
    replies.push(Reply::forward(Query));
    assert_eq!(feed(&mut replies, b"ZTCZ"), [READY, FORWARD, FORWARD, READY]);
    assert!(replies.is_empty());
}

fn wrapped() -> Replies {
    queue([
        Reply::swallow(Query),
        Reply::forward(Expected::Wrapped),
        Reply::capture(Query, Capture::LockSet),
        Reply::forward(Expected::WrappedCommit),
    ])
}

const OWN_READY: Verdict = Verdict::OwnReady(TransactionStatus::Idle);

#[test]
fn a_wrapped_statement_is_answered_when_its_commit_has_succeeded() {
    let mut replies = wrapped();
    assert_eq!(feed(&mut replies, b"CZ"), [Verdict::Swallow, OWN_READY]);
    assert_eq!(feed(&mut replies, b"CZ"), [Verdict::Hold, OWN_READY]);
    let captured = Verdict::Capture(Capture::LockSet);
    assert_eq!(feed(&mut replies, b"TCZ"), [captured, captured, OWN_READY]);
    assert_eq!(feed(&mut replies, b"CZ"), [Verdict::Swallow, READY]);
}

#[test]
fn a_wrapped_statement_that_fails_is_told_so_once() {
    let mut replies = wrapped();
    assert_eq!(feed(&mut replies, b"CZEZ"), [Verdict::Swallow, OWN_READY, FORWARD, OWN_READY]);
    assert_eq!(feed(&mut replies, b"EZ"), [Verdict::Swallow, OWN_READY]);
    assert_eq!(feed(&mut replies, b"CZ"), [Verdict::Swallow, READY]);
}

#[test]
fn a_commit_of_ours_that_was_cancelled_leaves_a_transaction_to_be_ended() {
    let mut replies = wrapped();
    feed(&mut replies, b"CZCZDCZ");
    assert_eq!(replies.on_backend(b'E', None), Verdict::Forward);
    assert_eq!(replies.on_backend(b'Z', Some(TransactionStatus::Failed)), Verdict::Unended);
}

#[test]
fn a_question_of_ours_that_rolls_the_clients_write_back_is_no_secret() {
    let mut replies = wrapped();
    assert_eq!(feed(&mut replies, b"CZCZ"), [Verdict::Swallow, OWN_READY, Verdict::Hold, OWN_READY]);
    assert_eq!(feed(&mut replies, b"EZ"), [FORWARD, OWN_READY]);
    assert_eq!(feed(&mut replies, b"CZ"), [Verdict::Swallow, READY]);
    let mut replies = queue([Reply::capture(Query, Capture::LockSet), Reply::forward(Query)]);
    assert_eq!(feed(&mut replies, b"EZCZ"), [FORWARD, OWN_READY, Verdict::Swallow, READY]);
}

#[test]
fn a_copy_that_failed_may_answer_a_sync_that_one_that_succeeds_reads() {
    let mut replies = queue([Execute, Sync].map(Reply::forward));
    assert_eq!(feed(&mut replies, b"GE"), [FORWARD; 2]);
    replies.push(Reply::forward(CopyEnd));
    replies.push(Reply::forward(Sync));
    assert_eq!(feed(&mut replies, b"ZZ"), [READY; 2]);
    assert!(replies.is_ambiguous());

    let mut replies = queue([Execute, Sync, CopyEnd, Sync].map(Reply::forward));
    assert_eq!(feed(&mut replies, b"GEZZ"), [FORWARD, FORWARD, READY, READY]);
    assert!(replies.is_ambiguous());

    let mut replies = queue([Execute, Sync].map(Reply::forward));
    assert_eq!(feed(&mut replies, b"G"), [FORWARD]);
    replies.push(Reply::forward(CopyEnd));
    replies.push(Reply::forward(Sync));
    assert_eq!(feed(&mut replies, b"CZ"), [FORWARD, READY]);
    assert!(!replies.is_ambiguous());
}
