//! From names to objects, along a search path.

use std::collections::HashMap;

use super::{
    rights::RightsOf,
    rows::{OperatorRow, SnapshotRows},
    unseen::is_noticed_by_type,
};
use crate::sql::Name;

/// The name space of one schema.
#[derive(Default)]
pub(super) struct Schema {
    pub(super) relations: HashMap<Box<str>, u32>,
    pub(super) functions: HashMap<Box<str>, Vec<u32>>,
    /// Functions behind operators of that name, but for those whose operands tell of them.
    pub(super) operators: HashMap<Box<str>, Vec<u32>>,
    pub(super) types: HashMap<Box<str>, u32>,
}

/// `NAMEDATALEN` without the zero, bytes.
const LONGEST_NAME: usize = 63;

/// The schemas that unqualified names are looked up in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Path {
    /// In this order; `pg_catalog` is among them.
    Known(Vec<u32>),
    /// Any schema may be the one.
    Anywhere,
    /// Any schema, or a temporary object of the session that the snapshot does not know.
    Shadowed,
}

/// Every schema of the database.
pub(super) struct Names {
    schema_oids: HashMap<Box<str>, u32>,
    schemas: HashMap<u32, Schema>,
    /// Unquoted letters beyond ASCII are folded by rules of the server's encoding.
    utf8: bool,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    One(u32),
    /// It hangs on a search path that is not known.
    Several(Vec<u32>),
    Nothing,
}

impl Names {
    pub(super) fn new(rows: &SnapshotRows) -> Self {
        let mut schemas: HashMap<u32, Schema> = HashMap::new();
        for row in &rows.relations {
            schemas.entry(row.schema).or_default().relations.insert(row.name.as_str().into(), row.oid);
        }
        for row in &rows.functions {
            let functions = &mut schemas.entry(row.schema).or_default().functions;
            functions.entry(row.name.as_str().into()).or_default().push(row.oid);
        }
        let is_told = |row: &&OperatorRow| !is_noticed_by_type(&row.name, &row.types);
        for row in rows.operators.iter().filter(is_told) {
            let operators = &mut schemas.entry(row.schema).or_default().operators;
            operators.entry(row.name.as_str().into()).or_default().push(row.function);
        }
        for row in &rows.types {
            schemas.entry(row.schema).or_default().types.insert(row.name.as_str().into(), row.oid);
        }
        let schema_oids = rows.schemas.iter().map(|row| (row.name.as_str().into(), row.oid)).collect();
        Self { schema_oids, schemas, utf8: rows.utf8 }
    }

    pub(super) fn schema_oid(&self, name: &str) -> Option<u32> {
        self.schema_oids.get(name).copied()
    }

    pub(super) fn schema_name(&self, oid: u32) -> Option<&str> {
        self.schema_oids.iter().find(|(_, other)| **other == oid).map(|(name, _)| &**name)
    }

    pub(super) fn relation(&self, name: &Name, path: &Path) -> Found {
        self.first(name, path, |schema| schema.relations.get(&*name.name).copied())
    }

    pub(super) fn named_type(&self, name: &Name, path: &Path) -> Found {
        self.first(name, path, |schema| schema.types.get(&*name.name).copied())
    }

    /// All functions of that name: which one is meant hangs on the types of its arguments.
    pub(super) fn functions(&self, name: &Name, path: &Path) -> Vec<u32> {
        self.all(name, path, |schema| schema.functions.get(&*name.name))
    }

    /// The functions behind all operators of that name.
    pub(super) fn operators(&self, name: &Name, path: &Path) -> Vec<u32> {
        self.all(name, path, |schema| schema.operators.get(&*name.name))
    }

    /// Functions whose name is `name`, wherever they are.
    pub(super) fn functions_anywhere(&self, name: &str) -> impl Iterator<Item = u32> {
        self.schemas.values().filter_map(move |schema| schema.functions.get(name)).flatten().copied()
    }

    fn first(&self, name: &Name, path: &Path, look: impl Fn(&Schema) -> Option<u32>) -> Found {
        if !self.is_readable(&name.name) {
            return Found::Nothing;
        }
        let in_schema = |oid: &u32| self.schemas.get(oid).and_then(&look);
        match (&name.schema, path) {
            (Some(schema), _) => {
                let found = self.schema_oid(schema).and_then(|oid| in_schema(&oid));
                found.map_or(Found::Nothing, Found::One)
            }
            (None, Path::Known(oids)) => oids.iter().find_map(in_schema).map_or(Found::Nothing, Found::One),
            (None, Path::Anywhere | Path::Shadowed) => {
                let found: Vec<u32> = self.schemas.values().filter_map(look).collect();
                if found.is_empty() { Found::Nothing } else { Found::Several(found) }
            }
        }
    }

    fn all<'s>(&'s self, name: &Name, path: &Path, look: impl Fn(&'s Schema) -> Option<&'s Vec<u32>>) -> Vec<u32> {
        if !self.is_readable(&name.name) {
            return Vec::new();
        }
        let in_schema = |oid: &u32| self.schemas.get(oid).and_then(&look);
        match (&name.schema, path) {
            (Some(schema), _) => self.schema_oid(schema).and_then(|oid| in_schema(&oid)).cloned().unwrap_or_default(),
            (None, Path::Known(oids)) => oids.iter().filter_map(in_schema).flatten().copied().collect(),
            (None, Path::Anywhere | Path::Shadowed) => {
                self.schemas.values().filter_map(&look).flatten().copied().collect()
            }
        }
    }

    /// Would it be known if there were a schema of that name? Longer names are cut short; other sessions' temporary schemas
    /// and those of TOAST are not read.
    fn is_told(&self, schema: &str) -> bool {
        let is_hidden = schema.starts_with("pg_toast") || schema.starts_with("pg_temp_");
        schema.len() <= LONGEST_NAME && !is_hidden && self.is_readable(schema)
    }

    /// In a single-byte encoding PostgreSQL folds letters that this build does not.
    fn is_readable(&self, name: &str) -> bool {
        self.utf8 || name.is_ascii()
    }
}

/// The schemas of a `search_path` setting that exist and may be used; `who` is nobody where it does not hang on that.
pub(super) fn path(setting: &str, who: Option<(&str, &RightsOf<'_>)>, names: &Names) -> Path {
    let mut oids = Vec::new();
    for item in identifiers(setting) {
        let name = match (item.as_str(), who) {
            ("$user", Some((role, _))) => role,
            ("$user", None) => continue,
            (name, _) if !names.is_told(name) => return Path::Anywhere,
            (name, _) => name,
        };
        if let Some(oid) = names.schema_oid(name)
            && who.is_none_or(|(_, rights)| rights.may_use(oid))
            && !oids.contains(&oid)
        {
            oids.push(oid);
        }
    }
    if let Some(catalog) = names.schema_oid("pg_catalog")
        && !oids.contains(&catalog)
    {
        oids.insert(0, catalog);
    }
    Path::Known(oids)
}

/// The schemas of a `search_path` that does not hang on who is asking.
pub(super) fn fixed_path(setting: &str, names: &Names) -> Path {
    match identifiers(setting).iter().any(|item| item == "$user") {
        true => Path::Anywhere,
        false => path(setting, None, names),
    }
}

/// Splits a list of identifiers as `SplitIdentifierString` does.
pub(super) fn identifiers(setting: &str) -> Vec<String> {
    let mut items = Vec::new();
    let mut rest = setting.trim_start_matches(is_space);
    while !rest.is_empty() {
        let (item, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_identifier(quoted),
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let (item, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
                (item.trim_end_matches(is_space).to_ascii_lowercase(), after)
            }
        };
        items.push(item);
        let after = after.trim_start_matches(is_space);
        rest = after.strip_prefix(',').unwrap_or(after).trim_start_matches(is_space);
        if after.len() == rest.len() {
            break;
        }
    }
    items
}

/// What PostgreSQL takes for a space between identifiers: no letter beyond ASCII.
fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
}

fn quoted_identifier(text: &str) -> (String, &str) {
    let mut item = String::new();
    let mut rest = text;
    while let Some((piece, after)) = rest.split_once('"') {
        item.push_str(piece);
        match after.strip_prefix('"') {
            Some(more) => {
                item.push('"');
                rest = more;
            }
            None => return (item, after),
        }
    }
    (item, "")
}
