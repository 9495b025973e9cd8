//! Readers, writers, a replica and a proxy's cache, one step at a time in random order.
//!
//! Every table holds one number, raised by each commit, so the freshness of an answer can be read from
//! it. A view shows one of the tables, and a change of the catalog makes it show the next. No hit may
//! show less than what was visible on the primary when it was asked for, and no read at all less than
//! what some client had been told by then.

mod content;
mod readers;
mod world;
mod writers;

use std::{sync::Mutex, thread};

use self::world::{Coverage, World};
use crate::random::seeds;

const STEPS: usize = 10_000;
/// Ten million steps.
const SEEDS: u64 = 1_000;
const THREADS: u64 = 4;

/// A rule left out. Each of them must be noticed, or the simulation proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ablation {
    Nothing,
    CaptureAfterTheQuery,
    NoMarkBeforeTheCommit,
    BumpBeforeTheCommit,
    LostCommitTakenForARollback,
    ReplicaWithoutWatermark,
    ReplyBeforeTheFence,
    StatementUnderstoodWithAnOldCatalog,
}

fn run(seed: u64, ablation: Ablation) -> Result<Coverage, String> {
    let mut world = World::new(seed, ablation);
    for step in 0..STEPS {
        world.step().map_err(|violation| format!("step {step}: {violation}"))?;
    }
    Ok(world.coverage)
}

#[test]
fn no_read_is_older_than_the_last_write_it_could_know_of() {
    let total = Mutex::new(Coverage::default());
    let run_some = |first: u64| {
        for seed in seeds(0..SEEDS).filter(|seed| seed % THREADS == first) {
            let mut coverage =
                run(seed, Ablation::Nothing).unwrap_or_else(|violation| panic!("SEED={seed} {violation}"));
            let mut total = total.lock().unwrap();
            total.counts().into_iter().zip(coverage.counts()).for_each(|(total, more)| *total += *more);
        }
    };
    thread::scope(|scope| (0..THREADS).for_each(|first| _ = scope.spawn(move || run_some(first))));
    let mut total = total.into_inner().unwrap();
    println!("{} steps: {total:?}", seeds(0..SEEDS).count() * STEPS);
    assert!(total.counts().iter().all(|count| **count > 1_000), "these runs prove little: {total:?}");
}

#[track_caller]
fn check_is_noticed(ablation: Ablation) {
    let is_noticed = (0..20).any(|seed| run(seed, ablation).is_err());
    assert!(is_noticed, "{ablation:?} goes unnoticed");
}

#[test]
fn a_capture_after_the_query_is_noticed() {
    check_is_noticed(Ablation::CaptureAfterTheQuery);
}

#[test]
fn a_commit_that_is_not_marked_in_flight_is_noticed() {
    check_is_noticed(Ablation::NoMarkBeforeTheCommit);
}

#[test]
fn stamps_moved_before_the_commit_only_are_noticed() {
    check_is_noticed(Ablation::BumpBeforeTheCommit);
}

#[test]
fn a_lost_commit_taken_for_a_rollback_is_noticed() {
    check_is_noticed(Ablation::LostCommitTakenForARollback);
}

#[test]
fn a_replica_asked_without_a_watermark_is_noticed() {
    check_is_noticed(Ablation::ReplicaWithoutWatermark);
}

#[test]
fn a_reply_passed_on_before_the_fence_is_noticed() {
    check_is_noticed(Ablation::ReplyBeforeTheFence);
}

#[test]
fn a_fill_understood_with_an_old_catalog_is_noticed() {
    check_is_noticed(Ablation::StatementUnderstoodWithAnOldCatalog);
}
