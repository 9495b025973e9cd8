//! What readers saw, and what they must have seen.

use std::time::Instant;

/// One value that only grows, as a reader saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read {
    /// Before it was sent.
    pub(crate) began: Instant,
    /// What it found.
    pub(crate) found: i64,
}

/// One direct write, when its writer had been told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    /// Then it could be seen.
    pub(crate) acknowledged: Instant,
    /// What it wrote.
    pub(crate) value: i64,
}

/// Reads that began later than the bound allows, and missed a write all the same.
pub(crate) fn stale(reads: &[Read], writes: &[Write], bound: std::time::Duration) -> Vec<(Read, Write)> {
    let misses = |read: &Read| {
        let must_see = writes.iter().rev().find(|write| write.acknowledged + bound < read.began)?;
        (read.found < must_see.value).then_some((*read, *must_see))
    };
    reads.iter().filter_map(misses).collect()
}

/// The part of sorted values below which `share` of them lie.
pub(crate) fn percentile<T: Copy>(sorted: &[T], share: f64) -> T {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

#[test]
fn a_read_that_misses_an_old_write_is_found_and_others_are_not() {
    use std::time::Duration;
    let start = Instant::now();
    let at = |millis| start + Duration::from_millis(millis);
    let writes = [Write { acknowledged: at(100), value: 1 }, Write { acknowledged: at(200), value: 2 }];
    let read = |began, found| Read { began: at(began), found };
    let bound = Duration::from_millis(50);
    assert!(stale(&[read(140, 0), read(160, 1), read(249, 1), read(251, 2), read(90, 2)], &writes, bound).is_empty());
    assert_eq!(stale(&[read(151, 0)], &writes, bound).len(), 1);
    assert_eq!(stale(&[read(251, 1)], &writes, bound).len(), 1);
}
