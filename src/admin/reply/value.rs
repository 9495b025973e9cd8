//! One value in the format its reader asked for.
//!
//! Many drivers ask for binary results whatever the statement, so text alone would lock them out
//! of the console's extended protocol.

use bytes::{BufMut, BytesMut};

use crate::admin::table::Type;

/// A format code of Bind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// 0
    #[default]
    Text,
    /// 1
    Binary,
}

impl Format {
    /// `None` for a code the protocol does not know.
    pub fn from_code(code: i16) -> Option<Self> {
        match code {
            0 => Some(Self::Text),
            1 => Some(Self::Binary),
            _ => None,
        }
    }

    /// As in Bind and RowDescription.
    pub fn code(self) -> i16 {
        match self {
            Self::Text => 0,
            Self::Binary => 1,
        }
    }

    /// No codes mean text, one means all columns.
    pub(super) fn of_column(formats: &[Self], index: usize) -> Self {
        match formats {
            [one] => *one,
            several => several.get(index).copied().unwrap_or_default(),
        }
    }
}

/// Length and bytes; -1 for NULL.
pub(super) fn put(value: Option<&str>, kind: Type, format: Format, out: &mut BytesMut) {
    let Some(value) = value else {
        out.put_i32(-1);
        return;
    };
    match (format, kind) {
        (Format::Text, _) | (_, Type::Text) => put_bytes(without_nul(value).as_bytes(), out),
        (Format::Binary, Type::Int4) => {
            put_bytes(&value.parse::<i32>().unwrap_or_default().to_be_bytes(), out);
        }
        (Format::Binary, Type::Int8) => {
            put_bytes(&value.parse::<i64>().unwrap_or(i64::MAX).to_be_bytes(), out);
        }
        (Format::Binary, Type::Numeric) => put_bytes(&numeric(value), out),
    }
}

/// What a peer sent may hold NUL bytes; a text of PostgreSQL never does.
pub(super) fn without_nul(text: &str) -> String {
    text.replace('\0', "")
}

fn put_bytes(bytes: &[u8], out: &mut BytesMut) {
    out.put_i32(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
    out.put_slice(bytes);
}

/// `numeric` in binary: groups of four decimal digits around the point.
///
/// <https://github.com/postgres/postgres/blob/master/src/backend/utils/adt/numeric.c>, `numeric_send`
fn numeric(value: &str) -> Vec<u8> {
    const GROUP: usize = 4;
    const NEGATIVE: u16 = 0x4000;
    let (sign, digits) = match value.strip_prefix('-') {
        Some(digits) => (NEGATIVE, digits),
        None => (0, value),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let lead = whole.len().next_multiple_of(GROUP) - whole.len();
    let mut padded = vec![b'0'; lead];
    padded.extend(whole.bytes());
    let whole_groups = padded.len() / GROUP;
    padded.extend(fraction.bytes());
    padded.resize(padded.len().next_multiple_of(GROUP), b'0');
    let groups = padded
        .chunks(GROUP)
        .map(|group| group.iter().fold(0, |value, digit| value * 10 + i16::from(digit.wrapping_sub(b'0'))));
    let groups: Vec<i16> = groups.collect();
    let leading_zeros = groups.iter().take_while(|group| **group == 0).count();
    let end = groups.iter().rposition(|group| *group != 0).map_or(0, |last| last + 1);
    let significant = groups.get(leading_zeros..end).unwrap_or_default();
    let weight = whole_groups as i16 - 1 - leading_zeros as i16;
    let mut out = Vec::new();
    out.put_i16(significant.len() as i16);
    out.put_i16(if significant.is_empty() { 0 } else { weight });
    out.put_u16(sign);
    out.put_i16(fraction.len() as i16);
    significant.iter().for_each(|group| out.put_i16(*group));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Digits, weight, sign and scale, as `numeric_send` writes them.
    #[track_caller]
    fn check(value: &str, weight: i16, sign: u16, scale: i16, groups: &[i16]) {
        let mut expected = Vec::new();
        expected.put_i16(groups.len() as i16);
        expected.put_i16(weight);
        expected.put_u16(sign);
        expected.put_i16(scale);
        groups.iter().for_each(|group| expected.put_i16(*group));
        assert_eq!(numeric(value), expected, "{value}");
    }

    #[test]
    fn numbers_are_cut_into_groups_of_four_digits_around_the_point() {
        check("0", 0, 0, 0, &[]);
        check("7", 0, 0, 0, &[7]);
        check("12345", 1, 0, 0, &[1, 2345]);
        check("0.000", 0, 0, 3, &[]);
        check("0.125", -1, 0, 3, &[1250]);
        check("-1234.5", 0, 0x4000, 1, &[1234, 5000]);
        check("18446744073709551615", 4, 0, 0, &[1844, 6744, 737, 955, 1615]);
    }
}
