use super::*;

fn shape(size: usize) -> Shape {
    Shape { size, reserve: 0, reserve_after: 0, max_opening: usize::MAX, is_round_robin: false }
}

fn room(_: u64) -> bool {
    true
}

/// Asks as a pool does: an idle one, else a place.
fn ask<S>(queue: &mut WaitQueue<S>, now: u64) -> CheckOut<S> {
    queue.tick(now);
    match queue.take_rested(|_| true) {
        Some(server) => CheckOut::Granted(Grant::Server(server)),
        None => queue.enlist(now, room),
    }
}

fn next<S>(queue: &mut WaitQueue<S>) -> Option<(CheckOut<S>, Grant<S>)> {
    queue.next_grant(room).map(|(ticket, grant)| (CheckOut::Wait(ticket), grant))
}

const OPEN: CheckOut<char> = CheckOut::Granted(Grant::Open { from_reserve: false });

/// A pool whose connections are named from `a` on, all of them lent.
fn lent(shape: Shape, count: usize) -> WaitQueue<char> {
    let mut queue = WaitQueue::new(shape);
    for _ in 0..count {
        assert_eq!(ask(&mut queue, 0), OPEN);
        queue.opened();
    }
    queue
}

#[test]
fn the_oldest_waiter_gets_what_comes_back() {
    let mut queue = lent(shape(1), 1);
    let (first, second) = (ask(&mut queue, 1), ask(&mut queue, 1));
    queue.check_in('a');
    assert_eq!(next(&mut queue), Some((first, Grant::Server('a'))));
    assert_eq!(next(&mut queue), None);
    queue.check_in('a');
    assert_eq!(next(&mut queue), Some((second, Grant::Server('a'))));
}

#[test]
fn nobody_overtakes_those_who_wait() {
    let mut queue = lent(shape(1), 1);
    assert!(matches!(ask(&mut queue, 1), CheckOut::Wait(_)));
    queue.check_in('a');
    assert!(matches!(ask(&mut queue, 2), CheckOut::Wait(_)));
}

#[test]
fn one_who_asks_again_keeps_the_place() {
    let mut queue = lent(shape(1), 1);
    let late = ask(&mut queue, 5);
    let again = queue.enlist(3, room);
    assert_eq!(queue.oldest(), Some(3));
    queue.check_in('a');
    assert_eq!(next(&mut queue).map(|(ticket, _)| ticket), Some(again));
    queue.check_in('a');
    assert_eq!(next(&mut queue).map(|(ticket, _)| ticket), Some(late));
}

#[test]
fn a_failed_login_lets_the_next_one_try() {
    let mut queue = WaitQueue::<char>::new(shape(1));
    assert_eq!(ask(&mut queue, 0), OPEN);
    assert!(matches!(ask(&mut queue, 0), CheckOut::Wait(_)));
    queue.open_failed();
    assert!(matches!(next(&mut queue), Some((_, Grant::Open { from_reserve: false }))));
}

#[test]
fn after_a_failure_nothing_is_opened_for_a_while() {
    let mut queue = WaitQueue::<char>::new(shape(1));
    assert_eq!(ask(&mut queue, 0), OPEN);
    queue.open_failed();
    queue.hold(15);
    assert!(matches!(ask(&mut queue, 1), CheckOut::Wait(_)));
    queue.tick(14);
    assert_eq!(next(&mut queue), None);
    queue.tick(15);
    assert!(matches!(next(&mut queue), Some((_, Grant::Open { .. }))));
}

#[test]
fn one_who_gave_up_is_not_granted_anything() {
    let mut queue = lent(shape(1), 1);
    let CheckOut::Wait(ticket) = ask(&mut queue, 1) else { panic!("granted beyond the limit") };
    assert!(queue.withdraw(ticket));
    queue.check_in('a');
    assert_eq!(next(&mut queue), None);
    assert!(!queue.withdraw(ticket));
}

#[test]
fn a_lowered_limit_is_exceeded_until_enough_have_closed() {
    let mut queue = lent(shape(3), 3);
    queue.check_in('a');
    assert_eq!(queue.resize(shape(1)), ['a']);
    queue.closed();
    assert!(queue.is_oversized());
    queue.closed();
    assert!(!queue.is_oversized());
}

#[test]
fn a_paused_queue_grants_nothing_until_it_is_resumed() {
    let mut queue = WaitQueue::<char>::new(shape(1));
    queue.pause(true);
    assert!(matches!(ask(&mut queue, 0), CheckOut::Wait(_)));
    assert_eq!(next(&mut queue), None);
    queue.pause(false);
    assert!(matches!(next(&mut queue), Some((_, Grant::Open { .. }))));
}

#[test]
fn the_reserve_is_for_those_who_have_waited_long_enough() {
    let reserved = Shape { reserve: 1, reserve_after: 5, ..shape(1) };
    let mut queue = lent(reserved, 1);
    let first = ask(&mut queue, 10);
    ask(&mut queue, 13);
    queue.tick(14);
    assert_eq!(next(&mut queue), None);
    queue.tick(15);
    assert_eq!(next(&mut queue), Some((first, Grant::Open { from_reserve: true })));
    queue.tick(100);
    assert_eq!(next(&mut queue), None, "the reserve is used up");
    assert!(!queue.is_oversized());
}

#[test]
fn without_a_timeout_nobody_gets_the_reserve() {
    let mut queue = lent(Shape { reserve: 1, ..shape(1) }, 1);
    ask(&mut queue, 0);
    queue.tick(u64::MAX);
    assert_eq!(next(&mut queue), None);
}

#[test]
fn idle_ones_are_used_last_in_first_out_or_in_turns() {
    for (is_round_robin, expected) in [(false, ['c', 'b', 'a']), (true, ['a', 'b', 'c'])] {
        let mut queue = lent(Shape { is_round_robin, ..shape(3) }, 3);
        "abc".chars().for_each(|name| queue.check_in(name));
        let mut used = Vec::new();
        while let Some(name) = queue.take_rested(|_| false) {
            used.push(name);
        }
        assert_eq!(used, expected);
    }
}

#[test]
fn one_that_is_liked_goes_before_the_others() {
    let mut queue = lent(shape(3), 3);
    "abc".chars().for_each(|name| queue.check_in(name));
    assert_eq!(queue.take_rested(|name| *name == 'b'), Some('b'));
    assert_eq!(queue.take_rested(|name| *name == 'b'), Some('c'));
}

#[test]
fn a_pool_is_filled_one_by_one_up_to_its_least_size_and_not_beyond_its_limit() {
    let mut queue = WaitQueue::<char>::new(shape(2));
    assert!(queue.fill(3, || true));
    assert!(!queue.fill(3, || true), "one is being opened");
    queue.opened();
    assert!(!queue.fill(3, || false), "no room");
    assert!(queue.fill(3, || true));
    queue.opened();
    assert!(!queue.fill(3, || true), "the limit");
    assert_eq!(queue.open(), 2);
}

#[test]
fn without_room_elsewhere_one_waits_and_room_is_asked_for_in_the_name_of_the_oldest() {
    let mut queue = WaitQueue::<char>::new(shape(0));
    assert!(matches!(queue.enlist(3, |_| false), CheckOut::Wait(_)));
    assert!(matches!(queue.enlist(4, |_| panic!("behind another")), CheckOut::Wait(_)));
    let mut asked = Vec::new();
    let none = queue.next_grant(|since| {
        asked.push(since);
        false
    });
    assert_eq!((none, asked), (None, vec![3]));
}
