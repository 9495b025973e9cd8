//! The stamp protocol, every interleaving of it: a bounded model of one table and one cached answer.
//!
//! One or two proxies, two writes that pass through them, the primary's log and visibility as separate
//! steps, a replica that lags, connections lost around the commit. The rules of
//! `src/cache/invalidation.rs` are switches; with all of them on no reachable state breaks the promise,
//! and each of them off leads to a state that does.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails loudly")]
#![allow(clippy::print_stdout, reason = "sizes and traces are worth a look with --nocapture")]

#[path = "cache_model/rules.rs"]
mod rules;
#[path = "cache_model/search.rs"]
mod search;
#[path = "cache_model/state.rs"]
mod state;
#[path = "cache_model/steps.rs"]
mod steps;

use rules::{Bump, InDoubt, Join, Promise, Rules, Stamps};
use search::{Outcome, search};

/// One proxy, primary only: what level one is built on.
const ONE_PROXY: Rules = Rules {
    proxies: 1,
    writes: 2,
    promise: Promise::Visible,
    marks_before_commit: true,
    bump: Bump::BeforeReply,
    releases_after_bump: true,
    captures_before_query: true,
    reads_mark_before_stamp: true,
    replica: false,
    watermark: true,
    join: Join::Never,
    in_doubt: InDoubt::Kept,
    waits_for_peers: true,
    stamps: Stamps::Sets,
};

/// Two proxies and a bus that acknowledges; one write, to keep the model small.
const TWO_PROXIES: Rules = Rules { proxies: 2, writes: 1, ..ONE_PROXY };

#[track_caller]
fn check_holds(rules: Rules) {
    match search(&rules) {
        Outcome::Holds { states } => println!("{states} states"),
        Outcome::Broken { trace } => panic!("{trace}"),
    }
}

#[track_caller]
fn check_is_broken(rules: Rules) {
    match search(&rules) {
        Outcome::Broken { trace } => println!("{trace}"),
        Outcome::Holds { states } => panic!("no violation in {states} states"),
    }
}

#[test]
fn a_hit_includes_all_that_was_visible_when_it_began() {
    check_holds(ONE_PROXY);
}

#[test]
fn fills_from_a_replica_that_passed_the_watermark_are_as_good() {
    check_holds(Rules { replica: true, in_doubt: InDoubt::Never, ..ONE_PROXY });
    check_holds(Rules { replica: true, writes: 1, ..ONE_PROXY });
}

#[test]
fn a_reader_may_join_a_fill_whose_stamps_are_the_present_ones() {
    check_holds(Rules { join: Join::EqualStamps, ..ONE_PROXY });
}

#[test]
fn two_proxies_that_wait_for_each_other_keep_the_promise_together() {
    check_holds(TWO_PROXIES);
}

#[test]
fn without_the_mark_read_your_writes_still_holds() {
    check_holds(Rules { marks_before_commit: false, promise: Promise::Told, ..ONE_PROXY });
}

#[test]
fn without_the_mark_a_hit_may_miss_what_is_visible_already() {
    check_is_broken(Rules { marks_before_commit: false, ..ONE_PROXY });
}

#[test]
fn a_capture_after_the_query_keeps_an_old_answer() {
    check_is_broken(Rules { captures_before_query: false, ..ONE_PROXY });
}

#[test]
fn a_bump_before_the_commit_alone_lets_the_old_answer_back_in() {
    let rules = Rules { bump: Bump::BeforeCommit, marks_before_commit: false, ..ONE_PROXY };
    check_is_broken(Rules { promise: Promise::Told, ..rules });
}

#[test]
fn a_reply_before_the_bump_breaks_read_your_writes() {
    let rules = Rules { bump: Bump::AfterReply, marks_before_commit: false, ..ONE_PROXY };
    check_is_broken(Rules { promise: Promise::Told, ..rules });
}

#[test]
fn a_mark_released_before_the_bump_leaves_a_gap() {
    check_is_broken(Rules { releases_after_bump: false, ..ONE_PROXY });
}

#[test]
fn a_hit_that_reads_the_stamp_before_the_mark_can_miss_both() {
    check_is_broken(Rules { reads_mark_before_stamp: false, ..ONE_PROXY });
}

#[test]
fn a_lost_commit_taken_for_a_rollback_is_missed_when_it_happens() {
    check_is_broken(Rules { in_doubt: InDoubt::TakenForRollback, ..ONE_PROXY });
}

#[test]
fn a_replica_without_a_watermark_fills_with_the_past() {
    check_is_broken(Rules { replica: true, watermark: false, ..ONE_PROXY });
}

#[test]
fn a_reader_that_joins_any_fill_misses_its_own_write() {
    check_is_broken(Rules { join: Join::Any, promise: Promise::Told, ..ONE_PROXY });
}

#[test]
fn a_bus_that_is_not_waited_for_is_too_late() {
    check_is_broken(Rules { waits_for_peers: false, promise: Promise::Told, ..TWO_PROXIES });
}

#[test]
fn stamps_that_keep_the_highest_take_one_write_for_two() {
    let rules = Rules { marks_before_commit: false, promise: Promise::Told, in_doubt: InDoubt::Never, ..TWO_PROXIES };
    check_is_broken(Rules { stamps: Stamps::Maxima, writes: 2, ..rules });
}
