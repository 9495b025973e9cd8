//! How long promises between proxies hold. Clocks need not agree, they must only run at nearly the same rate.

/// Nanoseconds, each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// For so long after a ping was sent its answer is a right to serve.
    pub lease: u64,
    /// For so long after the list of members was asked for it is true enough.
    pub view: u64,
    /// Between pings, and between attempts at anything that was not answered.
    pub ping: u64,
}

const MILLISECOND: u64 = 1_000_000;

impl Default for Times {
    fn default() -> Self {
        Self { lease: 500 * MILLISECOND, view: 1_000 * MILLISECOND, ping: 100 * MILLISECOND }
    }
}

impl Times {
    /// A lease on the clock of the one that grants it: clocks may differ by a tenth.
    pub fn lease_elsewhere(&self) -> u64 {
        self.lease + self.lease / 10
    }

    /// A view on the clock of another one.
    pub fn view_elsewhere(&self) -> u64 {
        self.view + self.view / 10
    }
}
