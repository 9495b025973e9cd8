//! What SHOW answers: columns that are known before the command runs, and rows of text.

/// The PostgreSQL type a column is announced as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `text`
    Text,
    /// `int4`
    Int4,
    /// `int8`
    Int8,
    /// `numeric`
    Numeric,
}

impl Type {
    /// As in `pg_type`.
    pub fn oid(self) -> u32 {
        match self {
            Self::Text => 25,
            Self::Int4 => 23,
            Self::Int8 => 20,
            Self::Numeric => 1700,
        }
    }

    /// Bytes of a value; negative where that varies.
    pub fn size(self) -> i16 {
        match self {
            Self::Int4 => 4,
            Self::Int8 => 8,
            Self::Text | Self::Numeric => -1,
        }
    }
}

/// Name and type of a column.
pub type Column = (&'static str, Type);

/// A value as text; `None` is NULL.
pub type Cell = Option<String>;

/// An answer with rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// In this order on the wire.
    pub columns: &'static [Column],
    /// As long as `columns` each.
    pub rows: Vec<Vec<Cell>>,
}

/// Spells a value as PostgreSQL's text format does.
pub(super) fn cell(value: impl ToString) -> Cell {
    Some(value.to_string())
}

/// `int4` columns of PgBouncer hold counters of any size; what does not fit is shown as the most
/// that fits, because a client would fail on the true number.
pub(super) fn int4(value: u64) -> Cell {
    cell(i32::try_from(value).unwrap_or(i32::MAX))
}

/// PgBouncer's `0` and `1`.
pub(super) fn flag(value: bool) -> Cell {
    cell(u8::from(value))
}

/// Milliseconds or a ratio, to the thousandth.
pub(super) fn decimal(value: f64) -> Cell {
    value.is_finite().then(|| format!("{value:.3}"))
}
