//! From text to [`Part`]s, by PostgreSQL's own grammar.

use pg_query::protobuf as pg;

use super::{
    rows,
    statement::{Flags, Part, StatementKind},
    utility,
    walk::Walker,
};

pub(super) struct Parsed {
    pub(super) parts: Box<[Part]>,
    pub(super) literal_sensitive: bool,
}

/// `None` for text that the grammar does not know, or that nests too deep to be looked at.
///
/// `clock`: the lexer saw a literal that may stand for the current time.
pub(super) fn parse(text: &str, clock: bool) -> Option<Parsed> {
    // The library asserts some shapes of its tree; text from clients must not end the task.
    let result = std::panic::catch_unwind(|| pg_query::parse(text, 0)).ok()?.ok()?;
    let is_alone = result.protobuf.stmts.len() == 1;
    let parts: Box<[Part]> = result.protobuf.stmts.iter().map(|raw| part(raw, text, clock, is_alone)).collect();
    let literal_sensitive = parts.iter().any(hangs_on_literals);
    Some(Parsed { parts, literal_sensitive })
}

fn part(raw: &pg::RawStmt, text: &str, clock: bool, is_alone: bool) -> Part {
    let mut walker = Walker::default();
    let mut kind = match raw.stmt.as_ref().and_then(|node| node.node.as_ref()) {
        Some(node) => utility::classify(node, &mut walker),
        None => StatementKind::Unknown,
    };
    if let Some(temporary) = walker.into
        && matches!(kind, StatementKind::Select)
    {
        kind = StatementKind::CreateTableAs { temporary, execute: false };
    }
    if clock {
        walker.flags.insert(Flags::CLOCK_LITERAL);
    }
    let node = raw.stmt.as_ref().and_then(|node| node.node.as_ref());
    let rows = node.filter(|_| is_alone).and_then(|node| rows::rows(node, text, walker.reads()));
    let start = usize::try_from(raw.stmt_location).unwrap_or(0).min(text.len());
    let length = usize::try_from(raw.stmt_len).unwrap_or(0);
    let end = if length == 0 { text.len() } else { (start + length).min(text.len()) };
    Part { kind, start, end, facts: walker.finish(rows) }
}

/// Queries mean the same with any literal, but for the name in `set_config('name', ..)`. The literals of
/// utility statements are options and settings.
fn hangs_on_literals(part: &Part) -> bool {
    use StatementKind as K;
    let query = matches!(
        part.kind,
        K::Select
            | K::Insert
            | K::Update
            | K::Delete
            | K::Merge
            | K::CreateTableAs { .. }
            | K::Do
            | K::Call
            | K::Fetch
            | K::Move
            | K::Notify
            | K::Execute
    );
    !query || part.facts.calls.iter().any(|call| &*call.name.name == "set_config")
}
