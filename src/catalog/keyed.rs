//! Which rows a statement is about, by the primary key of its one table.
//!
//! A read is about rows if nothing but rows with those keys can change its answer: it names one table, once, nothing behind
//! it reads a table, and all rows that it looks at have a key that it says. A write is about rows if it changes no others:
//! no trigger, rule, cascade, partition or generated column is at work, and it leaves the key alone. So what a write about
//! one key changes is asked for by no read about another one. `=` is the server's own, between types by which two values
//! are equal if and only if they are the same number, the same sixteen bytes or the same text (the loader leaves out keys
//! of others, with collations by which texts are alike, or with operators of users).

use super::{
    RelationOid, Row, Snapshot,
    function::Reach,
    judge::Verdict,
    names::{Found, Path},
    relation::{Relation, RelationKind},
    row::{KeyId, KeyType, types},
};
use crate::sql::{Action, Facts, Literal, RowUse, Source, StatementKind, Target, Value};

/// The primary key of a table, where it is one column of a type that is understood.
#[derive(Clone, Debug)]
pub(super) struct KeyColumn {
    pub(super) name: Box<str>,
    pub(super) type_oid: u32,
}

/// The rows of one table that a statement is about. Each execution has its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyed {
    relation: RelationOid,
    key: KeyType,
    id: KeyId,
    /// Where the keys are found.
    sources: Box<[Source]>,
    /// Spaces at the end of a value may be cut off where it is put in.
    may_cut: bool,
}

impl Keyed {
    /// Where the keys are found; at least one.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// The row that a literal names; `None`: it may be any.
    pub fn row_of_literal(&self, literal: Literal<'_>) -> Option<Row> {
        let text = match (self.key, literal) {
            (KeyType::Integer, Literal::Number(text)) | (_, Literal::Text(text)) => text,
            (_, Literal::Number(_)) => return None,
        };
        self.row(text, KeyType::of_text)
    }

    /// The row that a parameter names. `declared` is its type, 0 where the server is to find out; then it must stand
    /// in one place alone, or its type may come from another one.
    pub fn row_of_parameter(&self, declared: u32, is_alone: bool, is_binary: bool, value: &[u8]) -> Option<Row> {
        let is_known = match declared {
            0 => is_alone,
            declared => KeyType::of(declared) == Some(self.key),
        };
        self.row(value, if is_binary { KeyType::of_binary } else { KeyType::of_text }).filter(|_| is_known)
    }

    fn row(&self, value: &[u8], number: impl Fn(KeyType, &[u8]) -> Option<u64>) -> Option<Row> {
        let is_cut = self.may_cut && value.ends_with(b" ");
        number(self.key, value).filter(|_| !is_cut).map(|number| Row { relation: self.relation, key: self.id, number })
    }
}

/// The rows that a statement is about, if it is about rows of one table.
pub(super) fn keyed(
    (snapshot, path): (&Snapshot, &Path),
    kind: &StatementKind,
    facts: &Facts,
    verdict: &Verdict,
) -> Option<Keyed> {
    let uses = facts.rows.as_ref()?;
    if !matches!(path, Path::Known(_)) {
        return None;
    }
    let (name, target) = match (kind, &*facts.reads, &*facts.writes) {
        (StatementKind::Select, [name], []) => (name, None),
        (StatementKind::Insert | StatementKind::Update | StatementKind::Delete, _, [target]) => {
            (&target.name, Some(target))
        }
        _ => return None,
    };
    let Found::One(oid) = snapshot.names.relation(name, path) else { return None };
    let relation = snapshot.relation(oid)?;
    // The server may fold letters beyond ASCII, the parser does not.
    let key = relation.key.as_ref().filter(|key| is_plain(relation) && key.name.is_ascii())?;
    let is_alone = match target {
        None => verdict.reads.iter().eq([&oid]) && !verdict.reads_unnamed,
        Some(target) => {
            let is_known = verdict.reach == Reach::Nothing && !verdict.catalog_change && !verdict.deferred_constraints;
            is_known && verdict.written.iter().eq([&oid]) && writes_what_it_names(oid, relation, key, target)
        }
    };
    let is_inserted = target.is_some_and(|target| target.action == Action::Insert);
    let key_type = KeyType::of(key.type_oid).filter(|_| is_alone)?;
    let source = |value: &Value| {
        let is_kept = match &value.cast {
            None => true,
            Some(name) => match snapshot.names.named_type(name, path) {
                Found::One(target) => KeyType::of(target) == Some(key_type),
                _ => false,
            },
        };
        is_kept.then_some(value.source)
    };
    let sources: Box<[Source]> = match (uses, is_inserted) {
        (RowUse::Where(equalities), false) => {
            let mut of_key = equalities.iter().filter(|(column, _)| *column == key.name);
            [of_key.find_map(|(_, value)| source(value))?].into()
        }
        (RowUse::Values { columns, rows }, true) => {
            let at = columns.iter().position(|column| *column == key.name)?;
            rows.iter().map(|row| source(row.get(at)?.as_ref()?)).collect::<Option<_>>()?
        }
        _ => return None,
    };
    let may_cut = is_inserted && key.type_oid == types::VARCHAR;
    Some(Keyed { relation: RelationOid(oid), key: key_type, id: key_type.named(&key.name), sources, may_cut })
}

/// All of its rows are in one place, and everybody may see them.
fn is_plain(relation: &Relation) -> bool {
    let is_whole = relation.parents.is_empty() && relation.children.is_empty();
    let is_open = !relation.row_security && relation.policies.is_empty();
    relation.kind == RelationKind::Table && relation.permanent && !relation.system && is_whole && is_open
}

fn writes_what_it_names(oid: u32, relation: &Relation, key: &KeyColumn, target: &Target) -> bool {
    let runs_nothing = relation.triggers.is_empty() && !relation.write_rules && !relation.generated_columns;
    let acts = |action: char| !matches!(action, 'a' | 'r');
    let sets =
        |name: &str| target.columns.as_ref().is_none_or(|columns| columns.iter().any(|column| **column == *name));
    let acts_on_itself = relation.referenced_by.iter().filter(|key| key.child == oid).any(|key| match target.action {
        Action::Insert => false,
        Action::Update => acts(key.on_update) && key.parent_columns.iter().any(|column| sets(column)),
        _ => acts(key.on_delete),
    });
    let keeps_key = match target.action {
        Action::Insert | Action::Delete => true,
        Action::Update => !sets(&key.name),
        Action::Truncate { .. } | Action::Refresh => false,
    };
    runs_nothing && !acts_on_itself && keeps_key
}
