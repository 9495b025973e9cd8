//! Whose answer may be anybody's: the server would let a role read all that a statement reads, and nothing but rights
//! tells that role from others.
//!
//! Then its answer is that of every other role of which the same is true, and errors always come from the server. What is
//! not proven is the role's own. Whom PostgreSQL asks about what:
//! * the schema of a name that is written with one: whoever runs the statement (`LookupExplicitNamespace`);
//! * a relation that the statement names: the same; one behind a view: the owner of the view, or whoever runs the statement
//!   where the view says so (`setRuleCheckAsUser`). What hangs on an owner is the same for everybody;
//! * a function, wherever it stands: whoever runs the statement (`ExecInitFunc`).
//!
//! <https://www.postgresql.org/docs/current/rules-privileges.html>

use std::collections::{BTreeSet, HashSet};

use super::{
    Snapshot,
    builtin::FIRST_USER_OID,
    function::Functions,
    judge::Judge,
    names::{Names, Path},
    rights::RightsOf,
    rows::{FunctionRow, SnapshotRows},
};
use crate::sql::{Facts, Name, Statement};

/// Why an answer is that of its role alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Apart {
    /// Nobody knows of such a role.
    UnknownRole,
    /// It is not known what names mean.
    UnknownPath,
    /// The role begins with settings of its own.
    RoleSettings,
    /// Extensions or triggers of logins may tell roles apart.
    Database,
    /// The statement is no read that is understood, or one that is not kept.
    NotKept,
    /// Code of users runs that may ask who runs it, or for more rights.
    Code,
    /// The role may not use a schema.
    Schema,
    /// The role may not read a relation as a whole.
    Relation,
    /// The role may not call a function.
    Function,
}

/// What whoever runs a statement must have the rights to.
#[derive(Debug, Default)]
pub(super) struct Needs {
    relations: BTreeSet<u32>,
    functions: BTreeSet<u32>,
    /// Behind a view that reads by the rights of its owner.
    pub(super) as_owner: bool,
}

impl Needs {
    pub(super) fn relation(&mut self, oid: u32) {
        if !self.as_owner {
            self.relations.insert(oid);
        }
    }

    pub(super) fn function(&mut self, oid: u32) {
        self.functions.insert(oid);
    }
}

/// What does not hang on the statement.
#[derive(Default)]
pub(super) struct Sharing {
    roles_with_settings: HashSet<Box<str>>,
    /// Functions that may be called without being seen.
    unseen: Box<[u32]>,
    /// Schemas that may be named without being seen.
    schemas: Box<[u32]>,
    /// No role is told from another by anything but its rights.
    by_rights_alone: bool,
}

impl Sharing {
    pub(super) fn new(rows: &SnapshotRows, names: &Names, functions: &Functions) -> Self {
        let unwritten = rows.unseen.iter().map(|row| row.function).chain(rows.operators.iter().map(|row| row.function));
        let unseen = rows.restricted.iter().filter(|row| row.unseen).map(|row| row.function);
        Self {
            roles_with_settings: rows.roles_with_settings.iter().map(|role| role.as_str().into()).collect(),
            unseen: unseen.collect(),
            // The grammar itself writes names of `pg_catalog`.
            schemas: rows.named_in_literals.iter().copied().chain(names.schema_oid("pg_catalog")).collect(),
            by_rights_alone: !rows.tells_roles_apart && unwritten.into_iter().all(|oid| computes(functions, oid)),
        }
    }
}

/// Is it the server's own, or written in C? What is labelled IMMUTABLE is believed to look at its arguments only; code in
/// another language calls further functions, by the rights of whoever runs it.
fn computes(functions: &Functions, oid: u32) -> bool {
    let is_native = |row: &FunctionRow| oid < FIRST_USER_OID || matches!(row.language.as_str(), "c" | "internal");
    functions.get(oid).is_some_and(|row| match row.kind {
        'a' if oid >= FIRST_USER_OID => {
            !row.support.is_empty() && row.support.iter().all(|support| computes(functions, *support))
        }
        _ => is_native(row),
    })
}

fn names(facts: &Facts) -> impl Iterator<Item = &Name> {
    let called = facts.calls.iter().map(|call| &call.name);
    facts.reads.iter().chain(&facts.operators).chain(&facts.types).chain(called)
}

/// Is what the server answers `role`, who asks along `path`, what it answers everybody of whom the same is true?
pub(super) fn apart(snapshot: &Snapshot, statement: &Statement, path: &Path, role: &str) -> Option<Apart> {
    let sharing = &snapshot.sharing;
    let Some(rights) = snapshot.rights_of(role) else { return Some(Apart::UnknownRole) };
    if !matches!(path, Path::Known(_)) {
        return Some(Apart::UnknownPath);
    }
    if sharing.roles_with_settings.contains(role) {
        return Some(Apart::RoleSettings);
    }
    if !sharing.by_rights_alone {
        return Some(Apart::Database);
    }
    let [part] = &*statement.parts else { return Some(Apart::NotKept) };
    let mut judge = Judge::new(snapshot, path);
    judge.needs = Some(Box::default());
    judge.facts(&part.facts);
    let is_kept = statement.parsed && judge.verdict.bypass.is_none() && judge.verdict.guarded.is_none();
    match judge.needs {
        Some(needs) if is_kept => lacking(snapshot, &rights, &part.facts, &needs),
        _ => Some(Apart::NotKept),
    }
}

fn lacking(snapshot: &Snapshot, rights: &RightsOf<'_>, facts: &Facts, needs: &Needs) -> Option<Apart> {
    let sharing = &snapshot.sharing;
    if !needs.functions.iter().all(|oid| computes(&snapshot.functions, *oid)) {
        return Some(Apart::Code);
    }
    let may_use = |schema: &str| snapshot.names.schema_oid(schema).is_some_and(|oid| rights.may_use(oid));
    let may_name = names(facts).filter_map(|name| name.schema.as_deref()).all(may_use);
    if !may_name || !sharing.schemas.iter().all(|oid| rights.may_use(*oid)) {
        return Some(Apart::Schema);
    }
    if !needs.relations.iter().all(|oid| rights.may_read(*oid)) {
        return Some(Apart::Relation);
    }
    let may_call = sharing.unseen.iter().chain(&needs.functions).all(|oid| rights.may_call(*oid));
    (!may_call).then_some(Apart::Function)
}
