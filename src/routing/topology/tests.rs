use super::*;
use crate::routing::{Fence, Role};

const PRIMARY: MemberId = MemberId(0);
const R1: MemberId = MemberId(1);
const R2: MemberId = MemberId(2);
const LIMITS: Limits =
    Limits { max_lag: 100, sample_interval: 10, primary_reads: PrimaryReads::Fallback, wait_for_lsn: 0 };

fn member(id: u16, weight: u32) -> Member {
    Member {
        id: MemberId(id),
        name: format!("m{id}").into(),
        weight,
        max_lag: None,
        role: Role::Replica,
        state: Arc::default(),
    }
}

/// A primary and replicas of these weights, all well, everything replayed up to the sample of time 10.
fn topology(weights: &[u32]) -> Topology {
    let mut members = vec![member(0, 1)];
    members.extend((1..).zip(weights).map(|(id, weight)| member(id, *weight)));
    let topology = Topology::new(members, LIMITS, PrimarySamples::new(64));
    for member in topology.members() {
        member.state.set_health(Health::Up);
        member.state.set_in_recovery(member.id != PRIMARY);
    }
    topology.set_primary(Some(PRIMARY));
    sample_primary(&topology, 10, 100);
    for member in topology.members().iter().filter(|member| member.id != PRIMARY) {
        topology.note_replica_sample(member.id, 11, 11, Lsn::new(100));
    }
    topology
}

fn sample_primary(topology: &Topology, sent_at: u64, lsn: u64) -> bool {
    topology.note_primary_sample(PRIMARY, Sample { sent_at, lsn: Lsn::new(lsn) })
}

fn choose(topology: &Topology, written_at: u64, now: u64) -> Choice {
    topology.choose(&Demand::fenced(Fence::after(written_at)), now)
}

#[track_caller]
fn check(topology: &Topology, written_at: u64, now: u64, member: MemberId, reason: RouteReason) {
    let choice = choose(topology, written_at, now);
    assert_eq!((choice.member, choice.reason), (Some(member), reason));
}

#[test]
fn a_read_after_a_write_waits_on_the_primary_until_a_replica_catches_up() {
    let topology = topology(&[1]);
    check(&topology, 0, 15, R1, RouteReason::Replica);
    check(&topology, 15, 15, PRIMARY, RouteReason::FenceUnresolved);
    sample_primary(&topology, 20, 200);
    check(&topology, 15, 21, PRIMARY, RouteReason::NotReplayed);
    topology.note_replica_sample(R1, 22, 22, Lsn::new(199));
    check(&topology, 15, 23, PRIMARY, RouteReason::NotReplayed);
    topology.note_replica_sample(R1, 24, 24, Lsn::new(200));
    check(&topology, 15, 25, R1, RouteReason::Replica);
}

#[test]
fn an_idle_primary_resolves_fences_with_the_position_that_is_already_replayed() {
    let topology = topology(&[1]);
    sample_primary(&topology, 20, 100);
    check(&topology, 15, 21, R1, RouteReason::Replica);
}

#[test]
fn a_choice_counts_for_connections_older_than_the_sample_it_rests_on() {
    let topology = topology(&[1]);
    assert_eq!(choose(&topology, 0, 15).valid_for_connections_opened_before, 11);
    topology.note_replica_sample(R1, 20, 20, Lsn::new(100));
    assert_eq!(choose(&topology, 0, 21).valid_for_connections_opened_before, 20);
    assert_eq!(choose(&topology, 99, 21).valid_for_connections_opened_before, u64::MAX, "the primary");
}

#[test]
fn reads_are_shared_by_weight() {
    let topology = topology(&[2, 1]);
    let picks: Vec<_> = (0..300).filter_map(|_| choose(&topology, 0, 15).member).collect();
    let of = |id| picks.iter().filter(|picked| **picked == id).count();
    assert_eq!((of(R1), of(R2)), (200, 100));
}

#[test]
fn a_replica_that_restarted_with_older_data_loses_its_fences() {
    let topology = topology(&[1]);
    topology.note_replica_sample(R1, 20, 20, Lsn::new(40));
    check(&topology, 5, 21, PRIMARY, RouteReason::NotReplayed);
}

#[test]
fn lag_is_the_age_of_the_oldest_sample_not_replayed() {
    let topology = topology(&[1]);
    assert_eq!(topology.lag(R1, 15), Some(0));
    sample_primary(&topology, 20, 200);
    sample_primary(&topology, 30, 300);
    assert_eq!(topology.lag(R1, 35), Some(15));
    topology.note_replica_sample(R1, 36, 36, Lsn::new(250));
    assert_eq!(topology.lag(R1, 37), Some(7));
    topology.note_replica_sample(R1, 38, 38, Lsn::new(300));
    assert_eq!(topology.lag(R1, 39), Some(0));
}

#[test]
fn a_replica_that_lags_too_much_is_left_out_and_comes_back() {
    let topology = topology(&[1]);
    sample_primary(&topology, 20, 200);
    sample_primary(&topology, 110, 200);
    check(&topology, 0, 120, R1, RouteReason::Replica);
    check(&topology, 0, 121, PRIMARY, RouteReason::ReplicaLagging);
    topology.note_replica_sample(R1, 121, 121, Lsn::new(200));
    check(&topology, 0, 122, R1, RouteReason::Replica);
}

#[test]
fn a_member_may_have_a_limit_of_its_own() {
    let mut strict = member(1, 1);
    strict.max_lag = Some(5);
    let before = topology(&[1]);
    strict.state = Arc::clone(&before.member(R1).unwrap().state);
    let topology = before.reconfigured(vec![member(0, 1), strict], LIMITS);
    sample_primary(&topology, 20, 200);
    check(&topology, 0, 25, R1, RouteReason::Replica);
    check(&topology, 0, 26, PRIMARY, RouteReason::ReplicaLagging);
}

#[test]
fn while_the_primary_is_silent_a_replica_serves_as_long_as_it_cannot_be_further_behind_than_it_may() {
    let topology = topology(&[1]);
    check(&topology, 0, 110, R1, RouteReason::Replica);
    check(&topology, 0, 111, PRIMARY, RouteReason::LagUnknown);
    check(&topology, 10, 50, PRIMARY, RouteReason::FenceUnresolved);
    let at = |freshness| topology.choose(&Demand { freshness, ..Demand::fenced(Fence::after(40)) }, 111);
    assert_eq!(at(Freshness::Within(101)).member, Some(R1));
    assert_eq!(at(Freshness::Within(100)).reason, RouteReason::ReplicaLagging);
    assert_eq!(at(Freshness::Any).member, Some(R1));
}

#[test]
fn a_replica_ahead_of_the_primary_replays_another_history() {
    let topology = topology(&[1]);
    topology.note_replica_sample(R1, 12, 13, Lsn::new(300));
    check(&topology, 0, 14, R1, RouteReason::Replica);
    sample_primary(&topology, 13, 200);
    check(&topology, 0, 14, R1, RouteReason::Replica);
    sample_primary(&topology, 14, 200);
    check(&topology, 0, 15, PRIMARY, RouteReason::LagUnknown);
    topology.note_replica_sample(R1, 16, 17, Lsn::new(200));
    sample_primary(&topology, 18, 200);
    topology.note_replica_sample(R1, 19, 20, Lsn::new(200));
    check(&topology, 0, 21, R1, RouteReason::Replica);
}

#[test]
fn a_replica_that_hangs_is_given_no_reads_however_little_the_primary_writes() {
    let topology = topology(&[1]);
    let at = |now| {
        sample_primary(&topology, now - 1, 100);
        choose(&topology, 0, now).member
    };
    assert_eq!(at(11 + LONGEST_SILENCE), Some(R1));
    assert_eq!(at(12 + LONGEST_SILENCE), Some(PRIMARY));
    topology.note_replica_sample(R1, 12 + LONGEST_SILENCE, 12 + LONGEST_SILENCE, Lsn::new(100));
    assert_eq!(at(13 + LONGEST_SILENCE), Some(R1));
}

#[test]
fn a_read_that_accepts_staleness_is_bound_by_what_it_accepts() {
    let topology = topology(&[1]);
    sample_primary(&topology, 20, 200);
    let at = |within, now| {
        let demand = Demand { freshness: Freshness::Within(within), ..Demand::fenced(Fence::after(19)) };
        topology.choose(&demand, now).reason
    };
    // What was committed right behind the sample of time 10 may be missing.
    assert_eq!(at(15, 25), RouteReason::Replica);
    assert_eq!(at(15, 26), RouteReason::ReplicaLagging);
    sample_primary(&topology, 26, 200);
    assert_eq!(at(16, 26), RouteReason::Replica);
}

#[test]
fn what_keeps_a_replica_from_serving_is_the_reason() {
    let topology = topology(&[1]);
    let state = &topology.member(R1).unwrap().state;
    state.set_health(Health::Down);
    check(&topology, 0, 15, PRIMARY, RouteReason::ReplicaDown);
    state.set_health(Health::SplitOff);
    check(&topology, 0, 15, PRIMARY, RouteReason::SplitOff);
    state.set_health(Health::Up);
    state.set_banned(true);
    check(&topology, 0, 15, PRIMARY, RouteReason::ReplicaBanned);
    state.set_banned(false);
    check(&topology, 0, 20, R1, RouteReason::Replica);
    state.set_in_recovery(false);
    check(&topology, 0, 20, PRIMARY, RouteReason::NoReplica);
}

#[test]
fn the_nearest_miss_of_several_replicas_is_the_reason() {
    let topology = topology(&[1, 1]);
    topology.member(R1).unwrap().state.set_health(Health::Down);
    sample_primary(&topology, 20, 200);
    check(&topology, 15, 21, PRIMARY, RouteReason::NotReplayed);
}

#[test]
fn a_member_without_weight_or_that_just_failed_gets_no_reads() {
    check(&topology(&[0]), 0, 15, PRIMARY, RouteReason::NoReplica);
    let topology = topology(&[1, 1]);
    let demand = Demand { avoid: Some(R1), ..Demand::fenced(Fence::NONE) };
    assert!((0..10).all(|_| topology.choose(&demand, 15).member == Some(R2)));
}

#[test]
fn after_a_change_of_primary_replicas_wait_for_a_sample_of_the_new_one() {
    let topology = topology(&[1, 1]);
    topology.member(R1).unwrap().state.set_in_recovery(false);
    assert!(topology.set_primary(Some(R1)) && !topology.set_primary(Some(R1)));
    check(&topology, 5, 15, R1, RouteReason::LagUnknown);
    sample_primary(&topology, 16, 500);
    check(&topology, 5, 17, R1, RouteReason::LagUnknown);
    topology.note_primary_sample(R1, Sample { sent_at: 20, lsn: Lsn::new(90) });
    topology.note_replica_sample(R2, 21, 21, Lsn::new(90));
    check(&topology, 5, 22, R2, RouteReason::Replica);
}

#[test]
fn without_a_primary_a_fenced_read_has_nowhere_to_go() {
    let topology = topology(&[1]);
    topology.set_primary(None);
    assert_eq!(choose(&topology, 5, 15).member, None);
}

#[test]
fn a_position_that_went_back_is_reported() {
    let topology = topology(&[1]);
    assert!(!sample_primary(&topology, 20, 99));
    topology.forget_samples();
    check(&topology, 0, 21, PRIMARY, RouteReason::LagUnknown);
    assert!(sample_primary(&topology, 22, 99));
}

fn reading(primary_reads: PrimaryReads, weights: &[u32]) -> Topology {
    let before = topology(weights);
    before.reconfigured(before.members().to_vec(), Limits { primary_reads, ..LIMITS })
}

#[test]
fn the_primary_takes_its_share_of_the_reads_if_it_shall() {
    let topology = reading(PrimaryReads::Always, &[2, 1]);
    let picks: Vec<_> = (0..400).map(|_| choose(&topology, 0, 15)).collect();
    let of = |id| picks.iter().filter(|picked| picked.member == Some(id)).count();
    assert_eq!((of(PRIMARY), of(R1), of(R2)), (100, 200, 100));
    let own = picks.iter().find(|picked| picked.member == Some(PRIMARY)).unwrap();
    assert_eq!((own.reason, own.valid_for_connections_opened_before), (RouteReason::PrimaryShare, u64::MAX));
    let hinted = Demand { freshness: Freshness::Any, ..Demand::fenced(Fence::NONE) };
    assert!((0..50).all(|_| topology.choose(&hinted, 15).member != Some(PRIMARY)), "that asks for a replica");
    topology.member(PRIMARY).unwrap().state.set_health(Health::Down);
    assert!((0..50).all(|_| choose(&topology, 0, 15).member != Some(PRIMARY)));
}

#[test]
fn a_read_waits_for_a_replica_if_the_primary_shall_serve_none() {
    let topology = reading(PrimaryReads::Never, &[1]);
    let serves = |written_at| topology.serves(&Demand::fenced(Fence::after(written_at)), 15);
    assert!(topology.waits_for_replica() && serves(0));
    assert!(serves(14), "the primary serves what no replica has yet");
    topology.member(R1).unwrap().state.set_health(Health::Down);
    assert!(!serves(0) && !serves(14));
    for other in
        [reading(PrimaryReads::Never, &[0]), reading(PrimaryReads::Never, &[]), reading(PrimaryReads::Fallback, &[1])]
    {
        other.members().iter().for_each(|member| member.state.set_health(Health::Down));
        assert!(!other.waits_for_replica() && other.serves(&Demand::fenced(Fence::NONE), 15), "nobody to wait for");
    }
}

#[test]
fn a_replica_that_comes_back_is_given_its_weight_in_steps() {
    let second = 1_000_000_000;
    let topology = topology(&[1, 1]);
    let came_back = 10 * second;
    let share_at = |now: u64| {
        sample_primary(&topology, now - 1, 100);
        [R1, R2].iter().for_each(|replica| topology.note_replica_sample(*replica, now - 1, now - 1, Lsn::new(100)));
        (0..1980).filter(|_| choose(&topology, 0, now).member == Some(R1)).count()
    };
    assert_eq!(share_at(9 * second), 990);
    topology.member(R1).unwrap().state.came_back(came_back);
    assert_eq!(share_at(came_back + 2), 180, "1 of 11");
    assert_eq!(share_at(came_back + second), 330, "2 of 12");
    assert_eq!(share_at(came_back + 4 * second), 660, "5 of 15");
    assert_eq!(share_at(came_back + 9 * second), 990);
    assert_eq!(share_at(came_back + 100 * second), 990);
}

#[test]
fn a_token_sends_reads_to_who_has_replayed_it_however_old_they_may_be() {
    let topology = topology(&[1]);
    for (position, freshness, member, reason) in [
        (100, Freshness::Fenced, R1, RouteReason::Replica),
        (101, Freshness::Fenced, PRIMARY, RouteReason::NotReplayed),
        (100, Freshness::Within(50), R1, RouteReason::Replica),
        (101, Freshness::Within(50), PRIMARY, RouteReason::NotReplayed),
        (101, Freshness::Any, R1, RouteReason::Replica),
    ] {
        let demand = Demand { freshness, min_lsn: Lsn::new(position), ..Demand::fenced(Fence::NONE) };
        let choice = topology.choose(&demand, 15);
        assert_eq!((choice.member, choice.reason), (Some(member), reason), "{position} {freshness:?}");
    }
    topology.note_replica_sample(R1, 16, 16, Lsn::new(101));
    let demand = Demand { min_lsn: Lsn::new(101), ..Demand::fenced(Fence::NONE) };
    assert_eq!(topology.choose(&demand, 17).member, Some(R1), "although the primary has not shown it yet");
}

/// Members of these weights that all take writes.
fn equals(weights: &[u32]) -> Topology {
    let any = |(id, weight): (u16, &u32)| Member { role: Role::Any, ..member(id, *weight) };
    let topology = Topology::new((0..).zip(weights).map(any).collect(), LIMITS, PrimarySamples::new(8));
    let ids = topology.members().iter().map(|member| member.id);
    topology.set_equals(ids.filter(|id| *id != PRIMARY).fold(MemberSet::default(), MemberSet::with));
    topology.members().iter().for_each(|member| member.state.set_health(Health::Up));
    topology.set_primary(Some(PRIMARY));
    topology
}

#[test]
fn those_that_take_writes_are_given_them_by_weight_and_a_session_keeps_its_own() {
    let topology = equals(&[1, 2, 3]);
    assert!(topology.has_equals() && [PRIMARY, R1, R2].iter().all(|member| topology.takes_writes(*member)));
    let mut given = [0; 3];
    for _ in 0..60 {
        given[usize::from(topology.choose_writer(None, None, 15).unwrap().0)] += 1;
    }
    assert_eq!(given, [10, 20, 30]);
    assert!((0..6).all(|_| topology.choose_writer(Some(R1), None, 15) == Some(R1)));
}

#[test]
fn the_share_of_one_that_fails_or_stops_writing_goes_to_the_others() {
    let topology = equals(&[1, 1, 1]);
    let share = || {
        let mut members: Vec<_> = (0..4).map(|_| topology.choose_writer(Some(R2), None, 15).map(|id| id.0)).collect();
        members.sort_unstable();
        members
    };
    let state = |id| &topology.member(id).unwrap().state;
    state(R2).set_health(Health::Down);
    assert_eq!(share(), [Some(0), Some(0), Some(1), Some(1)]);
    state(PRIMARY).set_banned(true);
    assert_eq!(share(), [Some(1); 4]);
    assert_eq!(topology.choose_writer(None, Some(R1), 15), None);
    assert_eq!(topology.set_equals(MemberSet::default().with(R2)), MemberSet::default().with(R1).with(R2));
    assert_eq!(share(), [None; 4], "nobody is well who takes writes");
    state(R2).set_health(Health::Unknown);
    assert_eq!(share(), [Some(2); 4], "nobody has asked it since a reload");
}

#[test]
fn without_equal_members_the_primary_alone_takes_writes() {
    let topology = topology(&[1]);
    topology.set_equals(MemberSet::default().with(R1));
    assert!(!topology.has_equals() && !topology.takes_writes(R1) && topology.equals() == MemberSet::default());
}

#[test]
fn a_read_may_wait_on_the_replica_that_is_nearest_to_what_it_must_see() {
    let topology = topology(&[1, 1]);
    let waiting = topology.reconfigured(topology.members().to_vec(), Limits { wait_for_lsn: 5, ..LIMITS });
    let fenced = Demand::fenced(Fence::after(15));
    assert_eq!(waiting.choose_behind(&fenced, 16), None, "nobody knows yet what it must have replayed");
    sample_primary(&waiting, 20, 200);
    waiting.note_replica_sample(R1, 22, 22, Lsn::new(120));
    waiting.note_replica_sample(R2, 23, 23, Lsn::new(199));
    let nearest = Behind { member: R2, position: Lsn::new(200), opened_before: 23 };
    assert_eq!(waiting.choose_behind(&fenced, 24), Some(nearest));
    assert_eq!(topology.choose_behind(&fenced, 24), None, "unless somebody asks for it");
    let token = Demand { min_lsn: Lsn::new(300), ..fenced };
    assert_eq!(waiting.choose_behind(&token, 24), Some(Behind { position: Lsn::new(300), ..nearest }));
    let old = Demand { freshness: Freshness::Within(1), ..token };
    assert_eq!(waiting.choose_behind(&old, 24), None, "it may be older");
    waiting.member(R2).unwrap().state.set_banned(true);
    assert_eq!(waiting.choose_behind(&fenced, 24).unwrap().member, R1);
}

#[test]
fn a_connection_that_somebody_holds_shows_what_its_replica_had_replayed_since_it_was_opened() {
    let topology = topology(&[1]);
    let fenced = |written_at| Demand::fenced(Fence::after(written_at));
    let within = |bound| Demand { freshness: Freshness::Within(bound), ..fenced(0) };
    let any = Demand { freshness: Freshness::Any, ..fenced(15) };
    let token = Demand { min_lsn: Lsn::new(101), ..Demand::fenced(Fence::NONE) };
    for (opened, demand, shows) in [
        (9, fenced(5), true),
        (9, fenced(10), false),
        (11, fenced(5), false),
        (11, Demand::fenced(Fence::NONE), true),
        (9, token, false),
        (9, within(5), true),
        (9, within(4), false),
        (11, within(5), false),
        (11, any, true),
    ] {
        assert_eq!(topology.shows(R1, opened, &demand, 15), shows, "{opened} {demand:?}");
    }
    assert!(!topology.shows(MemberId(9), 0, &Demand::fenced(Fence::NONE), 15), "it is gone");
}
