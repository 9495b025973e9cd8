//! Whether an answer is worth keeping: where hardly any answer of a shape is asked for again, only questions that are.
//!
//! To bring an answer costs the proxy a few microseconds: stamps are captured, bytes collected, the store makes room. A
//! hit pays for many of that, but a statement whose key is another one every time never has a hit. So it is counted, per
//! shape, how many of the answers kept were asked for later. Where they are too few, be it that literals are others every
//! time or that tables are written between one question and the next, a question is kept in mind by a hash of its key and
//! of the stamps of what it reads. Whoever comes again while nothing of that was written would have had a hit: it is
//! answered like any other from then on. Now and then a question is kept at once, so that a shape whose questions
//! begin to repeat is found out.

use std::{
    hash::BuildHasher,
    sync::atomic::{AtomicU32, Ordering},
};

use super::shapes::Shapes;
use crate::sql::Fingerprint;

/// Questions that are kept in mind, the newest of those that share a place.
const REMEMBERED: usize = 1 << 16;
/// Answers of a shape that are kept before anything is made of how they are asked for.
const ENOUGH: u16 = 256;
/// What was counted counts half from here on.
const MANY: u16 = 1024;
/// One answer in so many must be asked for again.
const SELDOM: u16 = 16;
/// One question in so many is kept at once, whatever its shape.
const TRIAL: u64 = 32;
/// Microseconds: what takes longer is always worth keeping.
const DEAR: u32 = 20_000;

/// Answers of one shape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    kept: u16,
    /// Those of them that were asked for at least once.
    asked: u16,
}

impl Counts {
    fn of(word: u32) -> Self {
        Self { kept: (word >> 16) as u16, asked: word as u16 }
    }

    fn word(self) -> u32 {
        u32::from(self.kept) << 16 | u32::from(self.asked)
    }

    fn keep(self) -> Self {
        match self.kept {
            MANY.. => Self { kept: self.kept / 2, asked: self.asked / 2 },
            _ => self,
        }
        .with(1, 0)
    }

    fn ask(self) -> Self {
        self.with(0, 1)
    }

    fn with(self, kept: u16, asked: u16) -> Self {
        Self { kept: self.kept.saturating_add(kept), asked: self.asked.saturating_add(asked) }
    }

    fn is_seldom(self) -> bool {
        self.kept >= ENOUGH && self.asked < self.kept / SELDOM
    }
}

/// What the shapes of this process have been worth. Of two that count at the same moment one may be lost.
#[derive(Debug)]
pub(super) struct Admission {
    shapes: Shapes,
    remembered: Box<[AtomicU32]>,
    hasher: foldhash::fast::RandomState,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            shapes: Shapes::default(),
            remembered: (0..REMEMBERED).map(|_| AtomicU32::new(0)).collect(),
            hasher: foldhash::fast::RandomState::default(),
        }
    }
}

impl Admission {
    /// Is this question to be looked up, and its answer kept? `cost_us`: what its shape usually costs the server, if that
    /// is known; `state`: a number that is another one when what it reads has been written; `draw`: any number that is
    /// another one every time.
    pub(super) fn admits(
        &self,
        shape: Fingerprint,
        key: &[u8],
        state: impl FnOnce() -> u64,
        cost_us: impl FnOnce() -> Option<u32>,
        draw: u64,
    ) -> bool {
        let is_seldom = self.shapes.get(shape).is_some_and(|word| Counts::of(word).is_seldom());
        !is_seldom || cost_us().is_some_and(|cost| cost >= DEAR) || self.is_known(key, state(), draw)
    }

    /// It comes for the second time, or is one of those that are tried.
    fn is_known(&self, key: &[u8], state: u64, draw: u64) -> bool {
        let hash = self.hasher.hash_one((key, state));
        let tag = ((hash >> 32) as u32).max(1);
        let Some(place) = self.remembered.get(hash as usize % REMEMBERED) else { return true };
        place.swap(tag, Ordering::Relaxed) == tag
            || (hash ^ draw).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32 & (TRIAL - 1) == 0
    }

    /// An answer of this shape is kept.
    pub(super) fn kept(&self, shape: Fingerprint) {
        self.count(shape, Counts::keep);
    }

    /// An answer of this shape that had been asked for by nobody was asked for.
    pub(super) fn asked(&self, shape: Fingerprint) {
        self.count(shape, Counts::ask);
    }

    fn count(&self, shape: Fingerprint, step: impl FnOnce(Counts) -> Counts) {
        let counts = self.shapes.get(shape).map(Counts::of).unwrap_or_default();
        self.shapes.set(shape, step(counts).word());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Fingerprint = Fingerprint(7);

    fn key(number: u64) -> [u8; 8] {
        number.to_le_bytes()
    }

    /// Of a thousand new questions, behind `kept` answers of which so many were asked for.
    fn admitted(admission: &Admission, first: u64, cost_us: Option<u32>) -> usize {
        asked(admission, first, 0, cost_us)
    }

    fn asked(admission: &Admission, first: u64, state: u64, cost_us: Option<u32>) -> usize {
        let admits = |number: &u64| admission.admits(SHAPE, &key(*number), || state, || cost_us, *number);
        (first..first + 1000).filter(admits).count()
    }

    fn behind(kept: u32, asked: u32) -> Admission {
        let admission = Admission::default();
        (0..kept).for_each(|_| admission.kept(SHAPE));
        (0..asked).for_each(|_| admission.asked(SHAPE));
        admission
    }

    #[test]
    fn answers_are_kept_while_nothing_speaks_against_it() {
        for (kept, asked) in [(0, 0), (255, 0), (256, 16), (1000, 63)] {
            assert_eq!(admitted(&behind(kept, asked), 0, None), 1000, "{kept} {asked}");
        }
        assert_eq!(admitted(&behind(256, 0), 0, Some(DEAR)), 1000, "what is dear is kept");
    }

    #[test]
    fn of_a_shape_that_is_seldom_repeated_few_answers_are_kept_at_once() {
        for cost_us in [None, Some(DEAR - 1)] {
            let admitted = admitted(&behind(256, 15), 0, cost_us);
            assert!((10..100).contains(&admitted), "{admitted} of 1000");
        }
    }

    #[test]
    fn a_question_that_comes_again_is_admitted() {
        let admission = behind(256, 0);
        let first = admitted(&admission, 0, None);
        let again = admitted(&admission, 0, None);
        // Some have lost their place to others.
        assert!(first < 100 && again > 950, "{first}, then {again}");
        let behind_a_write = asked(&admission, 0, 1, None);
        assert!(behind_a_write < 100, "{behind_a_write} of what was written meanwhile");
    }

    #[test]
    fn a_shape_that_begins_to_repeat_is_kept_again() {
        let admission = behind(1000, 0);
        assert!(admitted(&admission, 0, None) < 100);
        // Each of those that are tried is asked for later.
        for _ in 0..70 {
            admission.kept(SHAPE);
            admission.asked(SHAPE);
        }
        assert_eq!(admitted(&admission, 5000, None), 1000);
    }

    #[test]
    fn what_was_long_ago_counts_less() {
        let good = (0..MANY).fold(Counts::default(), |counts, _| counts.keep().ask());
        assert!(!good.is_seldom());
        let later = (0..3 * MANY).fold(good, |counts, _| counts.keep());
        assert!(later.is_seldom(), "{later:?}");
    }

    #[test]
    fn counts_are_kept_in_one_word() {
        for (kept, asked) in [(0, 0), (1, 0), (0, 1), (1024, u16::MAX)] {
            let counts = Counts { kept, asked };
            assert_eq!(Counts::of(counts.word()), counts);
        }
    }
}
