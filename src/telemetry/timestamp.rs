//! A wall-clock time in the three spellings the proxy prints. Pure: the time is an argument.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

const SECONDS_PER_DAY: u64 = 86_400;

/// A moment in UTC, taken apart for printing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Utc {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    microsecond: u32,
}

impl Utc {
    /// The start of the line for a clock before 1970.
    pub fn new(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (days, second) = (since.as_secs() / SECONDS_PER_DAY, since.as_secs() % SECONDS_PER_DAY);
        let (year, month, day) = civil_from_days(days);
        Self {
            year,
            month,
            day,
            hour: second / 3600,
            minute: second / 60 % 60,
            second: second % 60,
            microsecond: since.subsec_micros(),
        }
    }

    /// `2026-11-21 11:42:21.793 UTC`, as PgBouncer starts a log line.
    pub fn log(self) -> impl fmt::Display {
        Spelled(self, Spelling::Log)
    }

    /// `2026-11-21 12:03:32 UTC`, as PgBouncer's console prints times.
    pub fn console(self) -> impl fmt::Display {
        Spelled(self, Spelling::Console)
    }

    /// `2026-11-21T11:42:21.793042Z`, for JSON.
    pub fn rfc3339(self) -> impl fmt::Display {
        Spelled(self, Spelling::Rfc3339)
    }
}

enum Spelling {
    Log,
    Console,
    Rfc3339,
}

struct Spelled(Utc, Spelling);

impl fmt::Display for Spelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(t, spelling) = self;
        let separator = if matches!(spelling, Spelling::Rfc3339) { 'T' } else { ' ' };
        write!(f, "{:04}-{:02}-{:02}{separator}", t.year, t.month, t.day)?;
        write!(f, "{:02}:{:02}:{:02}", t.hour, t.minute, t.second)?;
        match spelling {
            Spelling::Log => write!(f, ".{:03} UTC", t.microsecond / 1000),
            Spelling::Console => f.write_str(" UTC"),
            Spelling::Rfc3339 => write!(f, ".{:06}Z", t.microsecond),
        }
    }
}

/// Days since 1970-01-01 as a date of the proleptic Gregorian calendar.
///
/// <https://howardhinnant.github.io/date_algorithms.html#civil_from_days>
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[track_caller]
    fn check(micros: u64, log: &str, console: &str, rfc3339: &str) {
        let utc = Utc::new(UNIX_EPOCH + Duration::from_micros(micros));
        assert_eq!(utc.log().to_string(), log);
        assert_eq!(utc.console().to_string(), console);
        assert_eq!(utc.rfc3339().to_string(), rfc3339);
    }

    #[test]
    fn a_moment_is_spelled_for_the_log_the_console_and_json() {
        check(
            1_795_261_341_793_042,
            "2026-11-21 11:42:21.793 UTC",
            "2026-11-21 11:42:21 UTC",
            "2026-11-21T11:42:21.793042Z",
        );
    }

    #[test]
    fn leap_days_and_the_epoch_are_dates() {
        check(0, "1970-01-01 00:00:00.000 UTC", "1970-01-01 00:00:00 UTC", "1970-01-01T00:00:00.000000Z");
        check(
            1_709_164_800_000_000,
            "2024-02-29 00:00:00.000 UTC",
            "2024-02-29 00:00:00 UTC",
            "2024-02-29T00:00:00.000000Z",
        );
    }

    #[test]
    fn a_clock_before_the_epoch_reads_as_the_epoch() {
        let before = UNIX_EPOCH - Duration::from_secs(5);
        assert_eq!(Utc::new(before), Utc::new(UNIX_EPOCH));
    }
}
