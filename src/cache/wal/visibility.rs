//! Which transactions a snapshot shows.

/// Transactions in progress that are told apart.
const MOST_IN_PROGRESS: usize = 65_536;

/// The text is none, or lists more than can be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a snapshot: {0:?}")]
pub struct SnapshotError(String);

/// What `txid_current_snapshot()` says: `xmin:xmax:xip,…`, with the epoch in the numbers.
///
/// Subtransactions are not listed, and the stream names none. <https://www.postgresql.org/docs/current/functions-info.html>
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visibility {
    xmax: u64,
    in_progress: Vec<u64>,
}

impl std::str::FromStr for Visibility {
    type Err = SnapshotError;

    fn from_str(text: &str) -> Result<Self, SnapshotError> {
        let error = || SnapshotError(text.chars().take(80).collect());
        let mut parts = text.splitn(3, ':');
        let mut number = || parts.next()?.parse::<u64>().ok();
        let (xmin, xmax) = number().zip(number()).ok_or_else(error)?;
        let list = parts.next().ok_or_else(error)?;
        let numbers = list.split(',').filter(|_| !list.is_empty()).take(MOST_IN_PROGRESS + 1);
        let in_progress: Option<Vec<u64>> = numbers.map(|number| number.parse().ok()).collect();
        let mut in_progress = in_progress.filter(|all| all.len() <= MOST_IN_PROGRESS).ok_or_else(error)?;
        in_progress.sort_unstable();
        let is_sound = xmin <= xmax && in_progress.iter().all(|xid| (xmin..xmax).contains(xid));
        is_sound.then_some(Self { xmax, in_progress }).ok_or_else(error)
    }
}

impl Visibility {
    /// Would whoever takes a snapshot now see what it has committed? Also true for one that was rolled back.
    #[must_use]
    pub fn shows(&self, xid: u64) -> bool {
        xid < self.xmax && self.in_progress.binary_search(&xid).is_err()
    }

    /// The transactions that are in progress, or whose commit nobody can see yet.
    #[must_use]
    pub fn in_progress(&self) -> &[u64] {
        &self.in_progress
    }

    /// A number of the stream with its epoch: of all that end in these bits, the one nearest to the newest known. No two
    /// numbers in use are further apart than half of what 32 bits can tell.
    #[must_use]
    pub fn widen(&self, xid: u32) -> u64 {
        const ROUND: u64 = 1 << 32;
        const HALF: u64 = ROUND / 2;
        let near = self.xmax / ROUND * ROUND + u64::from(xid);
        match (near > self.xmax.saturating_add(HALF), near.saturating_add(HALF) < self.xmax) {
            (true, _) => near.checked_sub(ROUND).unwrap_or(near),
            (_, true) => near.saturating_add(ROUND),
            _ => near,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn snapshot(text: &str) -> Visibility {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_before_the_end_and_not_in_progress_is_shown() {
        let snapshot = snapshot("10:20:10,14,15");
        let shown: Vec<u64> = (8..23).filter(|xid| snapshot.shows(*xid)).collect();
        assert_eq!(shown, [8, 9, 11, 12, 13, 16, 17, 18, 19]);
        assert_eq!(snapshot.in_progress(), [10, 14, 15]);
    }

    #[test]
    fn a_snapshot_of_an_idle_server_lists_nobody() {
        assert!(snapshot("730:730:").shows(729) && !snapshot("730:730:").shows(730));
    }

    #[test]
    fn text_that_is_no_snapshot_is_refused() {
        for text in
            ["", "1", "1:2", "2:1:", "1:2:x", "1:5:7", "5:9:4", "a:b:", "1:2:,", "-1:2:", "1:99999999999999999999:"]
        {
            assert!(text.parse::<Visibility>().is_err(), "{text}");
        }
        let many: Vec<String> = (1..=MOST_IN_PROGRESS + 1).map(|xid| xid.to_string()).collect();
        assert!(format!("1:99999999:{}", many.join(",")).parse::<Visibility>().is_err());
    }

    #[test]
    fn a_number_of_the_stream_gets_the_epoch_that_is_nearest() {
        const ROUND: u64 = 1 << 32;
        for (xmax, xid, expected) in [
            (1_000, 990, 990),
            (1_000, 1_010, 1_010),
            (5 * ROUND + 10, 4, 5 * ROUND + 4),
            (5 * ROUND + 10, u32::MAX - 3, 5 * ROUND - 4),
            (5 * ROUND - 10, 3, 5 * ROUND + 3),
            (5 * ROUND - 10, u32::MAX - 20, 5 * ROUND - 21),
            (10, u32::MAX, ROUND - 1),
            (u64::MAX, u32::MAX, u64::MAX),
        ] {
            let snapshot = Visibility { xmax, in_progress: Vec::new() };
            assert_eq!(snapshot.widen(xid), expected, "{xmax} {xid}");
        }
    }
}
