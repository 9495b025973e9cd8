//! Every rule of the cache that is left out is noticed: a checker that never finds anything proves nothing.

use std::{
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use super::{
    checker::Promise,
    faults::Fault,
    forgetful, one,
    plan::{Plan, Story},
    replicated, seed,
    support::{Redis, cluster, proxy::Builder, wait_until},
    turn, two,
    writes::Form,
};

/// The longest that a rule may be missed without anybody noticing.
const PATIENCE: Duration = Duration::from_secs(60);

/// A rule, and a history that needs it.
struct Case {
    rule: &'static str,
    plan: Plan,
    /// Replicas serve reads, and each session is promised its own writes.
    has_replicas: bool,
    /// Answers come from Redis.
    has_redis: bool,
    /// Another proxy writes, too.
    has_peer: bool,
}

/// Few sessions, many writes.
fn busy(families: &[&str], forms: &[Form]) -> Plan {
    let plan = Plan::of(families).writes(forms);
    Plan { sessions: 10, writes_per_mille: 100, changes_settings: false, ..plan }
}

fn cases() -> Vec<Case> {
    let case = |rule, plan| Case { rule, plan, has_replicas: false, has_redis: false, has_peer: false };
    let shared = |rule, faults, plan| Case { has_peer: true, ..case(rule, Plan { faults, ..plan }) };
    let switching = |plan| Plan { changes_settings: true, sessions: 16, ..plan };
    vec![
        case("invalidation", busy(&["plain", "viewed"], &[Form::Simple, Form::Named])),
        case("mark", Plan { observers: 3, ..busy(&["plain"], &[Form::CommitThenSleep]) }),
        case("bump_behind_commit", busy(&["plain"], &[Form::Simple, Form::Extended])),
        case("bump_before_reply", busy(&["plain"], &[Form::Simple, Form::Extended])),
        case("capture_before_query", busy(&["plain"], &[Form::Simple, Form::Extended])),
        case("join_at_equal_stamps", {
            let mut plan = busy(&["plain"], &[Form::Simple, Form::Extended]);
            plan.shapes.retain(|shape| shape.sql.contains("generate_series"));
            plan
        }),
        Case { has_redis: true, ..case("stamps_in_names", busy(&["plain"], &[Form::Simple, Form::Extended])) },
        Case { has_replicas: true, ..case("watermark", busy(&["plain", "source"], &[Form::Simple, Form::Named])) },
        case("lock_set", busy(&["ordinary", "source"], &[Form::Function, Form::SqlFunction, Form::Simple])),
        case("views", busy(&["viewed"], &[Form::Simple, Form::Named])),
        case("cascades", busy(&["ancestor"], &[Form::Simple, Form::Extended])),
        case("ancestors", busy(&["parted"], &[Form::Simple, Form::Extended])),
        case("descendants", busy(&["parted"], &[Form::Simple, Form::Extended])),
        case("deferred_triggers", busy(&["late"], &[Form::Simple, Form::Block])),
        case("in_doubt", {
            let mut plan = Plan { observers: 3, faults: vec![Fault::Peace], ..busy(&["plain"], &[Form::Simple]) };
            plan.writes = vec![(plan.families[0], Form::Vanish), (plan.families[0], Form::VanishAtCommit)];
            plan
        }),
        case("catalog_epoch", {
            let definitions = Some(Duration::from_millis(300));
            Plan { definitions, ..busy(&["swung"], &[Form::Simple, Form::Extended]) }
        }),
        case("role", switching(busy(&["plain", "ordinary"], &[Form::Simple]))),
        case("parameters", switching(busy(&["stamped"], &[Form::Simple]))),
        shared("peers_before_commit", vec![], Plan { observers: 3, ..busy(&["plain"], &[Form::CommitThenSleep]) }),
        shared("peers", vec![], busy(&["plain"], &[Form::Simple, Form::Extended])),
        case("rows_by_key", busy(&["plain", "ordinary"], &[Form::Simple, Form::Named])),
        case("unknown_rows", busy(&["plain", "ordinary"], &[Form::Simple, Form::Cte])),
        shared("lease", vec![Fault::RedisCut, Fault::Calm], busy(&["plain"], &[Form::Simple, Form::Extended])),
    ]
}

/// How long it took to notice that the rule is left out.
fn time_to_notice(case: Case) -> Option<Duration> {
    let promise = if case.has_replicas { Promise::OwnSessions } else { Promise::Everybodys };
    let redis = case.has_redis.then(Redis::start);
    let configure = |builder: Builder, database: &str| {
        let builder = builder.environment("PGWEIR_ABLATE", case.rule);
        let builder = redis.iter().fold(builder, forgetful);
        if case.has_replicas { replicated(builder, database, "session") } else { builder }
    };
    let topology = match case.has_peer {
        true => two(&case.plan, |builder, _, _| builder.environment("PGWEIR_ABLATE", case.rule)),
        false => one(promise, &case.plan, configure),
    };
    wait_until(case.rule, || topology.sites[0].proxy().log().contains("a rule is left out"));
    let start = Instant::now();
    let mut story = Story::new(&topology, case.plan, seed());
    while start.elapsed() < PATIENCE {
        if story.round(Duration::from_secs(2)).is_stale() {
            return Some(start.elapsed());
        }
    }
    None
}

#[test]
fn every_rule_that_is_left_out_is_noticed() {
    let _turn = turn();
    cluster().replicas[1].delay_replay(100);
    // `HISTORY_RULE` tries one.
    let chosen = std::env::var("HISTORY_RULE").ok();
    let is_chosen = |case: &Case| chosen.as_ref().is_none_or(|rule| rule == case.rule);
    let cases = Mutex::new(cases().into_iter().filter(is_chosen).collect::<Vec<_>>());
    let missed = Mutex::new(Vec::new());
    let work = || {
        loop {
            let Some(case) = cases.lock().unwrap().pop() else { return };
            let rule = case.rule;
            match time_to_notice(case) {
                Some(time) => println!("{rule}: noticed after {time:?}"),
                None => missed.lock().unwrap().push(rule),
            }
        }
    };
    thread::scope(|scope| (0..3).for_each(|_| _ = scope.spawn(work)));
    cluster().replicas[1].delay_replay(0);
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "nobody noticed that these are left out: {missed:?}");
}
