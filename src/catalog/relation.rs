//! One relation with everything that hangs on it.

use std::collections::HashMap;

use super::{
    builtin::FIRST_USER_OID,
    keyed::KeyColumn,
    rows::{ExpressionUse, ForeignKeyRow, RelationRow, SnapshotRows},
    tree::TreeUses,
};

/// What kind of relation it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RelationKind {
    Table,
    Partitioned,
    View,
    MaterializedView,
    Foreign,
    Sequence,
    Other,
}

impl RelationKind {
    fn of(kind: char) -> Self {
        match kind {
            'r' => Self::Table,
            'p' => Self::Partitioned,
            'v' => Self::View,
            'm' => Self::MaterializedView,
            'f' => Self::Foreign,
            'S' => Self::Sequence,
            _ => Self::Other,
        }
    }
}

pub(super) struct Relation {
    pub(super) name: Box<str>,
    pub(super) schema: u32,
    pub(super) kind: RelationKind,
    pub(super) permanent: bool,
    pub(super) row_security: bool,
    pub(super) generated_columns: bool,
    pub(super) unstable_columns: bool,
    pub(super) row_type: u32,
    pub(super) key: Option<KeyColumn>,
    /// It comes with the server.
    pub(super) system: bool,
    /// Definition of a view or materialised view.
    pub(super) definition: Option<TreeUses>,
    /// What the view reads is read by the rights of whoever reads it.
    pub(super) security_invoker: bool,
    /// Some rule rewrites writes to it.
    pub(super) write_rules: bool,
    pub(super) parents: Vec<u32>,
    pub(super) children: Vec<u32>,
    /// Foreign keys that refer to it.
    pub(super) referenced_by: Vec<ForeignKeyRow>,
    /// Functions of its user triggers.
    pub(super) triggers: Vec<u32>,
    pub(super) deferrable_triggers: bool,
    /// What is evaluated when its rows are written.
    pub(super) write_functions: Vec<u32>,
    /// It has an identity column.
    pub(super) has_identity: bool,
    pub(super) policies: Vec<TreeUses>,
    /// Changes that bypass the proxy come to its ears, or need not.
    pub(super) heard: bool,
}

impl Relation {
    fn new(row: &RelationRow) -> Self {
        Self {
            name: row.name.as_str().into(),
            schema: row.schema,
            kind: RelationKind::of(row.kind),
            permanent: row.persistence == 'p',
            row_security: row.row_security,
            generated_columns: row.generated_columns,
            unstable_columns: row.unstable_columns,
            row_type: row.row_type,
            key: None,
            system: row.oid < FIRST_USER_OID,
            definition: None,
            security_invoker: row.security_invoker,
            write_rules: false,
            parents: Vec::new(),
            children: Vec::new(),
            referenced_by: Vec::new(),
            triggers: Vec::new(),
            deferrable_triggers: false,
            write_functions: Vec::new(),
            has_identity: false,
            policies: Vec::new(),
            heard: true,
        }
    }
}

const SELECT_EVENT: char = '1';

/// All relations by oid.
pub(super) fn relations(rows: &SnapshotRows) -> HashMap<u32, Relation> {
    let mut relations: HashMap<u32, Relation> =
        rows.relations.iter().map(|row| (row.oid, Relation::new(row))).collect();
    for rule in &rows.rules {
        let Some(relation) = relations.get_mut(&rule.relation).filter(|relation| !relation.system) else {
            continue;
        };
        match rule.event {
            SELECT_EVENT => {
                let mut definition = TreeUses::scan(&rule.action);
                // Before PostgreSQL 16 OLD and NEW of the rule stand for the view itself.
                definition.relations.retain(|oid| *oid != rule.relation);
                relation.definition = Some(definition);
            }
            _ => relation.write_rules = true,
        }
    }
    for (child, parent) in &rows.inheritance {
        if let Some(relation) = relations.get_mut(child) {
            relation.parents.push(*parent);
        }
        if let Some(relation) = relations.get_mut(parent) {
            relation.children.push(*child);
        }
    }
    for key in &rows.keys {
        if let Some(relation) = relations.get_mut(&key.relation) {
            relation.key = Some(KeyColumn { name: key.column.as_str().into(), type_oid: key.type_oid });
        }
    }
    for key in &rows.foreign_keys {
        if let Some(relation) = relations.get_mut(&key.parent) {
            relation.referenced_by.push(key.clone());
        }
    }
    for trigger in &rows.triggers {
        if let Some(relation) = relations.get_mut(&trigger.relation) {
            relation.triggers.push(trigger.function);
            relation.deferrable_triggers |= trigger.deferrable;
        }
    }
    for expression in &rows.expressions {
        if let Some(relation) = relations.get_mut(&expression.relation) {
            let uses = TreeUses::scan(&expression.tree);
            match expression.used_for {
                ExpressionUse::Write => {
                    relation.has_identity |= uses.nextval;
                    relation.write_functions.extend(uses.functions);
                }
                ExpressionUse::Policy => relation.policies.push(uses),
            }
        }
    }
    if let Some(heard) = &rows.heard {
        super::heard::mark(&mut relations, heard);
    }
    relations
}
