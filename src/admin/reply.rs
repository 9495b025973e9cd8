//! Console answers as backend messages. ReadyForQuery, ParseComplete and BindComplete are the
//! caller's: it knows which protocol is spoken.

mod value;

use bytes::BytesMut;
use pgwire::{
    error::PgWireResult,
    messages::{
        Message,
        data::{DataRow, FieldDescription, NoData, RowDescription},
        response::{CommandComplete, ErrorResponse, NoticeResponse},
    },
};

pub use self::value::Format;
use super::{
    Notice, Outcome,
    error::ConsoleError,
    table::{Cell, Column, Table},
};

/// All of an answer to a Query message but its ReadyForQuery.
pub fn simple(outcome: &Outcome, out: &mut BytesMut) -> PgWireResult<()> {
    if let Outcome::Table(table) = outcome {
        describe(Some(table.columns), &[], out)?;
    }
    execute(outcome, &[], out)
}

/// Answer to Describe of a portal, or of a statement after its ParameterDescription.
///
/// `formats` are the codes of Bind: none, one for all columns, or one each.
pub fn describe(columns: Option<&'static [Column]>, formats: &[Format], out: &mut BytesMut) -> PgWireResult<()> {
    let Some(columns) = columns else {
        return NoData::new().encode(out);
    };
    let field = |(index, (name, kind)): (usize, &Column)| {
        let format = Format::of_column(formats, index).code();
        FieldDescription::new((*name).to_owned(), 0, 0, kind.oid(), kind.size(), -1, format)
    };
    RowDescription::new(columns.iter().enumerate().map(field).collect()).encode(out)
}

/// Answer to Execute: rows without their description, then the tag; or a notice, or an error.
pub fn execute(outcome: &Outcome, formats: &[Format], out: &mut BytesMut) -> PgWireResult<()> {
    match outcome {
        Outcome::Table(table) => {
            rows(table, formats, out)?;
            CommandComplete::new("SHOW".to_owned()).encode(out)
        }
        Outcome::Done { tag, notice } => {
            if let Some(notice) = notice {
                self::notice(notice, out)?;
            }
            CommandComplete::new(tag.clone()).encode(out)
        }
        Outcome::Failed(error) => self::error(error, out),
        Outcome::Silent => Ok(()),
    }
}

/// `S`, `C` and `M` only, as PgBouncer sends it.
pub fn error(error: &ConsoleError, out: &mut BytesMut) -> PgWireResult<()> {
    let fields = vec![
        (b'S', "ERROR".to_owned()),
        (b'C', error.sqlstate().to_owned()),
        (b'M', value::without_nul(&error.to_string())),
    ];
    ErrorResponse::new(fields).encode(out)
}

fn notice(notice: &Notice, out: &mut BytesMut) -> PgWireResult<()> {
    let mut fields = vec![(b'S', "NOTICE".to_owned()), (b'C', "00000".to_owned()), (b'M', notice.message.to_owned())];
    fields.extend(notice.detail.map(|detail| (b'D', detail.to_owned())));
    NoticeResponse::new(fields).encode(out)
}

fn rows(table: &Table, formats: &[Format], out: &mut BytesMut) -> PgWireResult<()> {
    for row in &table.rows {
        data_row(table.columns, row, formats).encode(out)?;
    }
    Ok(())
}

fn data_row(columns: &[Column], row: &[Cell], formats: &[Format]) -> DataRow {
    let mut data = BytesMut::new();
    for (index, (cell, (_, kind))) in row.iter().zip(columns).enumerate() {
        value::put(cell.as_deref(), *kind, Format::of_column(formats, index), &mut data);
    }
    // Sixteen bits hold the columns of every table here.
    let count = i16::try_from(row.len().min(columns.len())).unwrap_or(i16::MAX);
    DataRow::new(data, count)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) use self::tests::types;
