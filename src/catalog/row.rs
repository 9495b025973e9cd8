//! One row of a table, by its primary key.

use super::RelationOid;

/// A row, or one of those that share its number: what hangs on rows hangs on no less than all of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// The table.
    pub relation: RelationOid,
    /// Which key of it this is.
    pub key: KeyId,
    /// Equal for two keys that PostgreSQL's `=` finds equal.
    pub number: u64,
}

/// What a key of a table is: its column's name and how values are compared. Where a table gets another key, this differs, as
/// far as 64 bits go. The same in every process of one version, as are the numbers of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(pub u64);

/// Numbers that are near each other fall far apart (the last step of `MurmurHash3`).
const fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let number = (number ^ (number >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    number ^ (number >> 33)
}

/// What a key is compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum KeyType {
    /// `int2`, `int4`, `int8`: a number.
    Integer,
    /// `uuid`: sixteen bytes.
    Uuid,
    /// `text`, `varchar`, with a collation that tells all texts apart: their bytes. Only those of ASCII are known here,
    /// because others look different to clients of different encodings.
    Text,
}

/// `pg_type.oid` of types that are known by number.
pub(super) mod types {
    pub(in crate::catalog) const INT8: u32 = 20;
    pub(in crate::catalog) const INT2: u32 = 21;
    pub(in crate::catalog) const INT4: u32 = 23;
    pub(in crate::catalog) const TEXT: u32 = 25;
    pub(in crate::catalog) const VARCHAR: u32 = 1043;
    pub(in crate::catalog) const UUID: u32 = 2950;
}

impl KeyType {
    /// That of a column of this type.
    pub fn of(type_oid: u32) -> Option<Self> {
        match type_oid {
            types::INT2 | types::INT4 | types::INT8 => Some(Self::Integer),
            types::UUID => Some(Self::Uuid),
            types::TEXT | types::VARCHAR => Some(Self::Text),
            _ => None,
        }
    }

    /// A key of this type in the column of that name.
    pub fn named(self, column: &str) -> KeyId {
        KeyId(of_bytes(column.as_bytes()).wrapping_add(self as u64))
    }

    /// The number of a value that is written as text: of a literal without its quotes, or of a parameter in text format.
    /// `None` for one that would have to be understood: what is left out here is a spelling that hardly anybody uses.
    pub fn of_text(self, text: &[u8]) -> Option<u64> {
        match self {
            Self::Integer => integer(text).map(of_integer),
            Self::Uuid => uuid(text).map(of_uuid),
            Self::Text => text.is_ascii().then(|| of_bytes(text)),
        }
    }

    /// The number of a parameter in binary format. A length that none of the types has is refused by the server, too.
    pub fn of_binary(self, value: &[u8]) -> Option<u64> {
        match self {
            Self::Integer => {
                let number = match *value {
                    [a, b] => i64::from(i16::from_be_bytes([a, b])),
                    [a, b, c, d] => i64::from(i32::from_be_bytes([a, b, c, d])),
                    _ => i64::from_be_bytes(value.try_into().ok()?),
                };
                Some(of_integer(number))
            }
            Self::Uuid => value.try_into().ok().map(u128::from_be_bytes).map(of_uuid),
            Self::Text => self.of_text(value),
        }
    }
}

fn of_integer(number: i64) -> u64 {
    mix(number.cast_unsigned())
}

fn of_uuid(number: u128) -> u64 {
    mix(mix((number >> 64) as u64) ^ number as u64)
}

/// FNV-1a.
fn of_bytes(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

/// Digits, with a minus in front of them or without.
fn integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let is_plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| is_plain)?.parse().ok()
}

/// Eight, four, four, four and twelve digits; upper or lower case.
fn uuid(text: &[u8]) -> Option<u128> {
    const DASHES: [usize; 4] = [8, 13, 18, 23];
    if text.len() != 36 {
        return None;
    }
    let mut number = 0_u128;
    for (at, byte) in text.iter().enumerate() {
        if DASHES.contains(&at) {
            if *byte != b'-' {
                return None;
            }
            continue;
        }
        let digit = char::from(*byte).to_digit(16)?;
        number = number << 4 | u128::from(digit);
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_the_same_however_it_is_written() {
        let of = |text: &str| KeyType::Integer.of_text(text.as_bytes());
        for (text, number) in [("5", 5_i64), ("-5", -5), ("007", 7), ("-0", 0), ("9223372036854775807", i64::MAX)] {
            let expected = KeyType::Integer.of_binary(&number.to_be_bytes());
            assert!(expected.is_some());
            assert_eq!(of(text), expected, "{text}");
            if let Ok(number) = i32::try_from(number) {
                assert_eq!(KeyType::Integer.of_binary(&number.to_be_bytes()), expected);
            }
            if let Ok(number) = i16::try_from(number) {
                assert_eq!(KeyType::Integer.of_binary(&number.to_be_bytes()), expected);
            }
        }
    }

    #[test]
    fn what_would_have_to_be_understood_is_no_number() {
        for text in ["", "-", "+5", " 5", "5 ", "5.0", "5e0", "0x10", "1_000", "--5", "9223372036854775808", "NaN"] {
            assert_eq!(KeyType::Integer.of_text(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(KeyType::Integer.of_binary(&[0; 3]), None);
    }

    #[test]
    fn a_uuid_is_the_same_however_it_is_written() {
        let bytes = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef_u128.to_be_bytes();
        let binary = KeyType::Uuid.of_binary(&bytes);
        assert!(binary.is_some());
        for text in ["01234567-89ab-cdef-0123-456789abcdef", "01234567-89AB-CDEF-0123-456789abcdef"] {
            assert_eq!(KeyType::Uuid.of_text(text.as_bytes()), binary);
        }
        for text in [
            "{01234567-89ab-cdef-0123-456789abcdef}",
            "0123456789abcdef0123456789abcdef",
            "01234567-89ab-cdef-0123-456789abcde+",
            "",
        ] {
            assert_eq!(KeyType::Uuid.of_text(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_text_is_its_bytes_and_beyond_ascii_unknown() {
        let of = |text: &str| KeyType::Text.of_text(text.as_bytes());
        assert_eq!(of("a"), KeyType::Text.of_binary(b"a"));
        assert!(of("a") != of("A") && of("a") != of("a ") && of("").is_some());
        assert_eq!(of("ä"), None);
    }

    #[test]
    fn a_key_is_another_one_where_its_column_or_its_type_is() {
        let types = [KeyType::Integer, KeyType::Uuid, KeyType::Text];
        let mut keys: Vec<_> = types.iter().flat_map(|key| ["id", "ID", "other"].map(|name| key.named(name))).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 9);
        assert_eq!(KeyType::Integer.named("id"), KeyId(2_300_230_549_592_789_046), "every process says the same");
    }

    #[test]
    fn neighbours_share_no_number() {
        let mut numbers: Vec<_> = (-50_000..50_000_i64).map(|number| of_integer(number) % 2048).collect();
        numbers.sort_unstable();
        let counts: Vec<_> = numbers.chunk_by(|one, other| one == other).map(<[_]>::len).collect();
        assert_eq!(counts.len(), 2048);
        assert!(counts.iter().all(|count| (15..100).contains(count)));
    }
}
