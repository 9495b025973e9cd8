//! The stamp protocol, every interleaving of it: a bounded model of one table and one cached answer.
//!
//! One or two proxies, two writes that pass through them, the primary's log and visibility as separate
//! steps, a replica that lags, connections lost around the commit, writes that pass by, a proxy that is cut off, a
//! shared cache that may give back anything it ever held. The rules of
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

use rules::{Bump, InDoubt, Join, Lease, Outside, Promise, Rules, Stamps};
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
    shared: false,
    outside: Outside::Never,
    lease: Lease::Endless,
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

/// Without marks and lost connections, to keep the model of two writes through two proxies small.
const TOLD: Rules =
    Rules { marks_before_commit: false, promise: Promise::Told, in_doubt: InDoubt::Never, writes: 2, ..TWO_PROXIES };

#[test]
fn a_shared_cache_may_forget_and_bring_back_what_it_likes() {
    check_holds(Rules { shared: true, ..ONE_PROXY });
    check_holds(Rules { shared: true, ..TWO_PROXIES });
}

#[test]
fn stamps_that_only_count_take_one_proxys_write_for_the_others() {
    check_is_broken(Rules { shared: true, stamps: Stamps::Counters, ..TOLD });
}

#[test]
fn a_write_that_passes_by_counts_once_a_snapshot_shows_it() {
    check_holds(Rules { outside: Outside::WhenVisible, ..ONE_PROXY });
    check_holds(Rules { outside: Outside::WhenVisible, writes: 1, ..TWO_PROXIES });
}

#[test]
fn the_log_is_ahead_of_what_can_be_seen() {
    check_is_broken(Rules { outside: Outside::WhenLogged, writes: 1, ..ONE_PROXY });
}

#[test]
fn a_proxy_that_nobody_waits_for_answers_nothing_from_its_cache() {
    check_holds(Rules { lease: Lease::Kept, ..TWO_PROXIES });
    check_holds(Rules { lease: Lease::Kept, promise: Promise::Told, ..TWO_PROXIES });
}

#[test]
fn a_proxy_that_is_cut_off_and_goes_on_answers_with_the_past() {
    check_is_broken(Rules { lease: Lease::Ignored, promise: Promise::Told, ..TWO_PROXIES });
}
