//! The rows that a request is about, by the keys in its text or its parameters.

use crate::{
    catalog::{Keyed, Meaning, Row, Writes},
    protocol::frontend,
    sql::{Source, literal_at},
};

/// The values of a Bind, and the types that its statement was given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound<'a> {
    /// The body of the message behind its two names.
    values: &'a [u8],
    /// As Parse has them: a count, then a number each.
    types: &'a [u8],
}

impl<'a> Bound<'a> {
    pub(super) fn new(values: &'a [u8], types: &'a [u8]) -> Self {
        Self { values, types }
    }

    /// 0: the server finds out.
    fn declared(self, number: u16) -> u32 {
        let (types, _) = self.types.get(2..).unwrap_or_default().as_chunks::<4>();
        types.get(usize::from(number)).map_or(0, |oid| u32::from_be_bytes(*oid))
    }
}

/// The only row that is read, where it is one.
pub(super) fn read(meaning: &Meaning, text: &[u8], bound: Option<Bound<'_>>) -> Option<Row> {
    let keyed = meaning.keyed.as_ref()?;
    match *keyed.sources() {
        [source] => find(keyed, source, text, bound),
        _ => None,
    }
}

/// All rows that are written; `None` where one of them is not known.
pub(super) fn written(meaning: &Meaning, text: &[u8], bound: Option<Bound<'_>>) -> Option<Vec<Row>> {
    let keyed = meaning.keyed.as_ref().filter(|_| matches!(meaning.writes, Writes::Static(_)))?;
    keyed.sources().iter().map(|source| find(keyed, *source, text, bound)).collect()
}

fn find(keyed: &Keyed, source: Source, text: &[u8], bound: Option<Bound<'_>>) -> Option<Row> {
    match source {
        Source::Literal(number) => keyed.row_of_literal(literal_at(std::str::from_utf8(text).ok()?, number)?),
        Source::Parameter { number, is_alone } => {
            let bound = bound?;
            let value = frontend::parameters(bound.values).nth(usize::from(number))??;
            let is_binary = frontend::is_binary(bound.values, number)?;
            keyed.row_of_parameter(bound.declared(number), is_alone, is_binary, value)
        }
    }
}
