//! Which query shapes gain by the cache, and what keeps the others from it. ●

use serde::Serialize;

/// Below so many requests nothing is said.
const FEW: u64 = 10;
/// From so many hits of a hundred requests on the cache is worth its work: a lookup and a copy cost a few microseconds.
const WORTH_PERCENT: u64 = 10;

/// What an operator is told about a shape: the `advice` column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    /// It gains.
    Cache,
    /// It gains if writes that void everything do not touch what it reads.
    Unsure,
    /// Most requests cannot be answered from the cache, whatever happens; the reason says why.
    NotCacheable,
    /// Most answers cannot be kept; the reason says why.
    NotKept,
    /// What it reads is written more often than it is asked for.
    WrittenTooOften,
    /// The same question hardly ever comes twice while an answer is kept.
    NotRepeated,
    /// Not enough requests to say.
    TooFew,
}

impl Advice {
    /// As the console says it.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Unsure => "unsure",
            Self::NotCacheable => "not_cacheable",
            Self::NotKept => "not_kept",
            Self::WrittenTooOften => "written_too_often",
            Self::NotRepeated => "not_repeated",
            Self::TooFew => "too_few",
        }
    }

    /// From counts alone.
    pub(super) fn of(counts: &Judged) -> Self {
        let asked = counts.hits + counts.misses;
        let is_worth = |hits: u64| hits * 100 >= WORTH_PERCENT * asked;
        if asked + counts.bypasses < FEW {
            Self::TooFew
        } else if counts.bypasses > asked {
            Self::NotCacheable
        } else if is_worth(counts.hits) {
            Self::Cache
        } else if is_worth(counts.hits + counts.unsure) {
            Self::Unsure
        } else if counts.unkept * 2 > counts.misses {
            Self::NotKept
        } else if counts.voided * 2 > counts.misses {
            Self::WrittenTooOften
        } else {
            Self::NotRepeated
        }
    }
}

/// What is known of a shape.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Judged {
    /// Answered from the cache, or would have been.
    pub(super) hits: u64,
    /// Asked for in vain.
    pub(super) misses: u64,
    /// Not asked for.
    pub(super) bypasses: u64,
    /// Misses whose answer was not kept.
    pub(super) unkept: u64,
    /// Misses of answers that had become void.
    pub(super) voided: u64,
    /// Those of them that nobody knows to have been in need of it.
    pub(super) unsure: u64,
}

/// One line of SHOW CACHE ADVICE. Times in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AdviceRow {
    /// 32 hex digits.
    pub fingerprint: String,
    /// Name as clients use it.
    pub database: String,
    /// Login name.
    pub user: String,
    /// What to make of it.
    pub advice: &'static str,
    /// What most requests that brought nothing into the cache have in common; empty if all did.
    pub reason: &'static str,
    /// Requests.
    pub calls: u64,
    /// Requests that the cache was not, or would not have been, asked for.
    pub bypasses: u64,
    /// Requests answered from the cache, or that would have been.
    pub hits: u64,
    /// Of those that it was asked for.
    pub hit_ratio: Option<f64>,
    /// Server time of those, saved or to be saved.
    pub saved_ms: f64,
    /// Requests that would have been answered besides, if no write whose reach nobody knew had touched what they read.
    pub unsure_hits: u64,
    /// Server time of those.
    pub unsure_ms: f64,
    /// Requests whose answer was there and had become void.
    pub voided: u64,
    /// Sum of the time on a server connection.
    pub server_ms: f64,
    /// Normalised text.
    pub query: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(counts: Judged, expected: Advice) {
        assert_eq!(Advice::of(&counts), expected, "{counts:?}");
    }

    #[test]
    fn a_shape_gains_if_a_tenth_of_its_reads_are_found() {
        check(Judged { hits: 10, misses: 90, ..Judged::default() }, Advice::Cache);
        check(Judged { hits: 9, misses: 91, ..Judged::default() }, Advice::NotRepeated);
        check(Judged { hits: 9, misses: 91, voided: 90, ..Judged::default() }, Advice::WrittenTooOften);
        check(Judged { hits: 9, misses: 91, unkept: 90, voided: 90, ..Judged::default() }, Advice::NotKept);
        check(Judged { hits: 9, misses: 91, voided: 91, unsure: 50, ..Judged::default() }, Advice::Unsure);
    }

    #[test]
    fn what_is_mostly_not_asked_for_cannot_be_cached() {
        check(Judged { bypasses: 100, ..Judged::default() }, Advice::NotCacheable);
        check(Judged { hits: 40, misses: 9, bypasses: 50, ..Judged::default() }, Advice::NotCacheable);
        check(Judged { hits: 41, misses: 9, bypasses: 50, ..Judged::default() }, Advice::Cache);
    }

    #[test]
    fn of_a_handful_of_requests_nothing_is_said() {
        check(Judged::default(), Advice::TooFew);
        check(Judged { hits: 8, misses: 1, ..Judged::default() }, Advice::TooFew);
        check(Judged { hits: 9, misses: 1, ..Judged::default() }, Advice::Cache);
    }
}
