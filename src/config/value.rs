//! How the value of one setting is read from text and printed.

use std::time::Duration;

/// A type that settings can have. The text after `=` comes in without surrounding blanks.
pub trait SettingValue: Sized + Clone {
    /// What to write, in error texts after "expected" and in the reference file.
    const EXPECTED: &'static str;

    /// Whether error texts must not repeat it.
    const SECRET: bool = false;

    /// `None` if `text` is not such a value.
    fn parse(text: &str) -> Option<Self>;

    /// As SHOW CONFIG prints it; `None` is NULL.
    fn show(&self) -> Option<String>;

    /// As SHOW CONFIG and the reference file print a default.
    fn show_default(&self) -> Option<String> {
        self.show()
    }
}

/// A clock can add this to any point in time: about a hundred years.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

impl SettingValue for Duration {
    const EXPECTED: &'static str = "seconds";

    fn parse(text: &str) -> Option<Duration> {
        let seconds: f64 = text.parse().ok()?;
        if seconds.is_nan() || seconds < 0.0 {
            return None;
        }
        Some(Duration::try_from_secs_f64(seconds).map_or(LONGEST, |time| time.min(LONGEST)))
    }

    fn show(&self) -> Option<String> {
        let text = format!("{}.{:06}", self.as_secs(), self.subsec_micros());
        Some(text.trim_end_matches('0').trim_end_matches('.').to_owned())
    }
}

/// `strtol(text, 0)`: `0x1f` is hexadecimal, `0777` octal.
fn c_integer(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (base, digits) = match digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        Some(hexadecimal) => (16, hexadecimal),
        None if digits.len() > 1 && digits.starts_with('0') => (8, digits),
        None => (10, digits),
    };
    if !digits.starts_with(|c: char| c.is_digit(base)) {
        return None;
    }
    i64::from_str_radix(digits, base).ok().map(|number| sign * number)
}

impl SettingValue for u32 {
    const EXPECTED: &'static str = "a number";

    fn parse(text: &str) -> Option<u32> {
        u32::try_from(c_integer(text)?).ok()
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl SettingValue for u16 {
    const EXPECTED: &'static str = "a number up to 65535";

    fn parse(text: &str) -> Option<u16> {
        text.parse().ok()
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl SettingValue for bool {
    const EXPECTED: &'static str = "0 or 1";

    fn parse(text: &str) -> Option<bool> {
        c_integer(text).map(|number| number != 0)
    }

    fn show(&self) -> Option<String> {
        Some(u8::from(*self).to_string())
    }
}

const UNITS: [(&str, u64); 4] = [("TB", 1 << 40), ("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10)];

/// Bytes.
impl SettingValue for u64 {
    const EXPECTED: &'static str = "a size such as 64MB (kB, MB, GB, or bytes)";

    fn parse(text: &str) -> Option<u64> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = text.strip_prefix(digits)?;
        let factor = match UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) {
            Some((_, factor)) => *factor,
            None if unit.is_empty() || unit.eq_ignore_ascii_case("B") => 1,
            None => return None,
        };
        digits.trim_end().parse::<u64>().ok()?.checked_mul(factor)
    }

    fn show(&self) -> Option<String> {
        let unit = UNITS.iter().find(|(_, factor)| *self != 0 && self.is_multiple_of(*factor));
        Some(match unit {
            Some((name, factor)) => format!("{}{name}", self / factor),
            None => self.to_string(),
        })
    }
}

impl SettingValue for String {
    const EXPECTED: &'static str = "text";

    fn parse(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn show(&self) -> Option<String> {
        Some(self.clone())
    }
}

/// A setting without a value is NULL in SHOW CONFIG; written as nothing it is unset again.
macro_rules! optional {
    ($($type:ty),+) => {$(
        impl SettingValue for Option<$type> {
            const EXPECTED: &'static str = <$type as SettingValue>::EXPECTED;
            const SECRET: bool = <$type as SettingValue>::SECRET;

            fn parse(text: &str) -> Option<Option<$type>> {
                if text.is_empty() {
                    return Some(None);
                }
                <$type as SettingValue>::parse(text).map(Some)
            }

            fn show(&self) -> Option<String> {
                self.as_ref().and_then(SettingValue::show)
            }
        }
    )+};
}
pub(crate) use optional;

optional!(String);

/// Nothing, or in connect strings `-1`.
fn says_unset(text: &str) -> bool {
    text.is_empty() || text.parse::<i64>().is_ok_and(|number| number < 0)
}

impl SettingValue for Option<u32> {
    const EXPECTED: &'static str = u32::EXPECTED;

    fn parse(text: &str) -> Option<Option<u32>> {
        if says_unset(text) {
            return Some(None);
        }
        text.parse().ok().map(Some)
    }

    fn show(&self) -> Option<String> {
        self.map(|number| number.to_string())
    }
}

impl SettingValue for Option<Duration> {
    const EXPECTED: &'static str = Duration::EXPECTED;

    fn parse(text: &str) -> Option<Option<Duration>> {
        if says_unset(text) {
            return Some(None);
        }
        Duration::parse(text).map(Some)
    }

    fn show(&self) -> Option<String> {
        self.as_ref().and_then(SettingValue::show)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The only place that reads and prints a value; `None` means refused.
    #[track_caller]
    fn check<T: SettingValue>(text: &str, expected: Option<&str>) {
        let shown = T::parse(text).map(|value| value.show().unwrap_or_default());
        assert_eq!(shown.as_deref(), expected, "{text:?}");
    }

    #[test]
    fn times_are_decimal_seconds_without_a_unit() {
        check::<Duration>("120", Some("120"));
        check::<Duration>("0.5", Some("0.5"));
        check::<Duration>("0.00015", Some("0.00015"));
        check::<Duration>(".1", Some("0.1"));
        check::<Duration>("0", Some("0"));
        check::<Duration>("10s", None);
        check::<Duration>("-1", None);
        check::<Duration>("NaN", None);
        check::<Duration>("soon", None);
        check::<Duration>("", None);
    }

    #[test]
    fn a_time_too_long_for_any_clock_is_the_longest_there_is() {
        check::<Duration>("1e300", Some("3153600000"));
        check::<Duration>("inf", Some("3153600000"));
    }

    #[test]
    fn numbers_are_read_as_c_reads_them() {
        check::<u32>("20", Some("20"));
        check::<u32>("0777", Some("511"));
        check::<u32>("0x1F", Some("31"));
        check::<u32>("0", Some("0"));
        check::<u32>("+5", Some("5"));
        check::<u32>("08", None);
        check::<u32>("5 ; five", None);
        check::<u32>("-1", None);
        check::<u32>("+-5", None);
        check::<u32>("4294967296", None);
        check::<u32>("", None);
    }

    #[test]
    fn booleans_are_numbers() {
        check::<bool>("1", Some("1"));
        check::<bool>("0", Some("0"));
        check::<bool>("2", Some("1"));
        for word in ["yes", "on", "true", ""] {
            check::<bool>(word, None);
        }
    }

    #[test]
    fn sizes_take_units_and_print_the_largest_that_fits() {
        check::<u64>("256MB", Some("256MB"));
        check::<u64>("1024 kB", Some("1MB"));
        check::<u64>("1gb", Some("1GB"));
        check::<u64>("1000", Some("1000"));
        check::<u64>("0", Some("0"));
        check::<u64>("256 M", None);
        check::<u64>("MB", None);
        check::<u64>("99999999999GB", None);
    }

    #[test]
    fn minus_one_in_a_connect_string_means_not_set() {
        check::<Option<u32>>("-1", Some(""));
        check::<Option<u32>>("010", Some("10"));
        check::<Option<Duration>>("-1", Some(""));
    }
}
