//! Smooth weighted round-robin.

use std::sync::{Mutex, PoisonError};

/// A member that takes part in one pick.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Its place in the wheel.
    pub(super) index: usize,
    pub(super) weight: u32,
    pub(super) in_flight: u32,
    /// It may be picked; one that may not, because it has not replayed enough yet, saves up for later.
    pub(super) is_fresh: bool,
}

/// How many picks in a row a member may have saved up, or have been paid in advance.
const LONGEST_BURST: i64 = 64;

/// Who is next: each pick gives every candidate its weight in credit, takes the fresh one with the most,
/// and charges it what all of them were given.
///
/// While the candidates stay the same and fresh, any run of as many picks as the weights sum up to serves each
/// exactly its weight, and never in a burst. What one serves while another is a few milliseconds behind is made up
/// for when it has caught up. One lock for the whole pick keeps that true for threads.
#[derive(Debug)]
pub(super) struct Wheel {
    credits: Mutex<Vec<i64>>,
}

impl Wheel {
    pub(super) fn new(members: usize) -> Self {
        Self { credits: Mutex::new(vec![0; members]) }
    }

    /// The next of `candidates`; equal credit goes to the one with the fewest statements in flight. None if none is fresh.
    pub(super) fn pick(&self, candidates: impl Iterator<Item = Candidate>) -> Option<usize> {
        let mut credits = self.credits.lock().unwrap_or_else(PoisonError::into_inner);
        let mut given: i64 = 0;
        let mut best: Option<(i64, Candidate)> = None;
        for candidate in candidates {
            let Some(credit) = credits.get_mut(candidate.index) else {
                continue;
            };
            let weight = i64::from(candidate.weight);
            *credit += weight;
            given += weight;
            if !candidate.is_fresh {
                continue;
            }
            let is_better = best.is_none_or(|(most, other)| (*credit, other.in_flight) > (most, candidate.in_flight));
            if is_better {
                best = Some((*credit, candidate));
            }
        }
        let (_, picked) = best?;
        *credits.get_mut(picked.index)? -= given;
        let most = LONGEST_BURST * given;
        credits.iter_mut().for_each(|credit| *credit = (*credit).clamp(-most, most));
        Some(picked.index)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn candidates(weights: &[u32]) -> impl Iterator<Item = Candidate> + '_ {
        weights.iter().enumerate().map(|(index, weight)| Candidate {
            index,
            weight: *weight,
            in_flight: 0,
            is_fresh: true,
        })
    }

    #[test]
    fn a_cycle_serves_each_exactly_its_weight_and_in_no_burst() {
        let wheel = Wheel::new(3);
        let picks: Vec<_> = (0..7).filter_map(|_| wheel.pick(candidates(&[5, 1, 1]))).collect();
        assert_eq!(picks, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn the_ratio_is_exact_under_concurrency() {
        let wheel = Wheel::new(3);
        let served: [AtomicUsize; 3] = Default::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1500 {
                        let index = wheel.pick(candidates(&[1, 2, 3])).unwrap();
                        served[index].fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(served.map(AtomicUsize::into_inner), [1000, 2000, 3000]);
    }

    #[test]
    fn equal_credit_goes_to_the_one_with_the_fewest_in_flight() {
        let wheel = Wheel::new(2);
        let busy = |index, in_flight| Candidate { index, weight: 1, in_flight, is_fresh: true };
        assert_eq!(wheel.pick([busy(0, 5), busy(1, 2)].into_iter()), Some(1));
    }

    /// How often each of two is picked in `picks` while the second is as fresh as said.
    fn pick_many(wheel: &Wheel, picks: usize, second_is_fresh: bool) -> [usize; 2] {
        let mut served = [0; 2];
        for _ in 0..picks {
            let both = [true, second_is_fresh].into_iter().enumerate();
            let both = both.map(|(index, is_fresh)| Candidate { index, weight: 1, in_flight: 0, is_fresh });
            served[wheel.pick(both).unwrap()] += 1;
        }
        served
    }

    #[test]
    fn what_a_member_missed_while_it_was_behind_is_made_up_for() {
        let wheel = Wheel::new(2);
        assert_eq!(pick_many(&wheel, 20, false), [20, 0]);
        assert_eq!(pick_many(&wheel, 20, true), [0, 20]);
        assert_eq!(pick_many(&wheel, 20, true), [10, 10]);
    }

    #[test]
    fn a_member_that_was_behind_for_long_is_not_flooded() {
        let wheel = Wheel::new(2);
        pick_many(&wheel, 10_000, false);
        let [first, _] = pick_many(&wheel, 400, true);
        assert!(first > 100, "{first}");
    }

    #[test]
    fn without_a_candidate_nobody_is_picked() {
        assert_eq!(Wheel::new(2).pick(std::iter::empty()), None);
    }
}
