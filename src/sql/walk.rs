//! Collects from a raw parse tree what a statement names.
//!
//! The walker knows every node that PostgreSQL's grammar puts below a query; anything else sets
//! [`Flags::UNKNOWN`], and what is unknown is neither cached nor sent to a replica.

use pg_query::{NodeEnum as N, protobuf as pg};

use super::statement::{Action, CallUse, Facts, Flags, Name, RowUse, Target};

mod expression;
mod relation;

/// Facts gathered so far, and the CTE names in scope.
#[derive(Default)]
pub(super) struct Walker<'t> {
    reads: Vec<Name>,
    writes: Vec<Target>,
    calls: Vec<CallUse>,
    operators: Vec<Name>,
    types: Vec<Name>,
    fields: Vec<Box<str>>,
    pub(super) flags: Flags,
    /// SELECT INTO was seen: whether the new table is temporary.
    pub(super) into: Option<bool>,
    ctes: Vec<&'t str>,
}

impl<'t> Walker<'t> {
    /// How often a relation is read, at any depth.
    pub(super) fn reads(&self) -> usize {
        self.reads.len()
    }

    pub(super) fn finish(self, rows: Option<RowUse>) -> Facts {
        Facts {
            rows,
            reads: distinct(self.reads),
            writes: self.writes.into_boxed_slice(),
            calls: distinct(self.calls),
            operators: distinct(self.operators),
            types: distinct(self.types),
            fields: distinct(self.fields),
            flags: self.flags,
        }
    }

    pub(super) fn unknown(&mut self) {
        self.flags.insert(Flags::UNKNOWN);
    }

    pub(super) fn list(&mut self, nodes: &'t [pg::Node]) {
        nodes.iter().for_each(|node| self.node(node));
    }

    pub(super) fn boxed(&mut self, node: &'t Option<Box<pg::Node>>) {
        if let Some(node) = node {
            self.node(node);
        }
    }

    pub(super) fn node(&mut self, node: &'t pg::Node) {
        let Some(node) = &node.node else {
            return;
        };
        if !self.statement(node) && !self.relation_node(node) && !self.expression(node) {
            self.unknown();
        }
    }

    pub(super) fn statement_node(&mut self, node: &'t N) {
        if !self.statement(node) {
            self.unknown();
        }
    }

    /// A statement that may stand below another: false if it is none.
    fn statement(&mut self, node: &'t N) -> bool {
        match node {
            N::SelectStmt(select) => self.select(select),
            N::InsertStmt(insert) => self.insert(insert),
            N::UpdateStmt(update) => self.update(update),
            N::DeleteStmt(delete) => self.delete(delete),
            N::MergeStmt(merge) => self.merge(merge),
            _ => return false,
        }
        true
    }

    pub(super) fn select(&mut self, select: &'t pg::SelectStmt) {
        let scope = self.open_scope(&select.with_clause);
        if let Some(into) = &select.into_clause {
            self.into = Some(is_temporary(&into.rel));
        }
        self.list(&select.distinct_clause);
        self.list(&select.target_list);
        self.list(&select.from_clause);
        self.boxed(&select.where_clause);
        self.list(&select.group_clause);
        self.boxed(&select.having_clause);
        self.list(&select.window_clause);
        self.list(&select.values_lists);
        self.list(&select.sort_clause);
        self.boxed(&select.limit_offset);
        self.boxed(&select.limit_count);
        if !select.locking_clause.is_empty() {
            self.flags.insert(Flags::ROW_LOCK);
        }
        for side in [&select.larg, &select.rarg].into_iter().flatten() {
            self.select(side);
        }
        self.ctes.truncate(scope);
    }

    fn insert(&mut self, insert: &'t pg::InsertStmt) {
        let scope = self.open_scope(&insert.with_clause);
        self.target(&insert.relation, Action::Insert, None);
        self.list(&insert.cols);
        self.boxed(&insert.select_stmt);
        if let Some(conflict) = &insert.on_conflict_clause {
            if conflict.action == pg::OnConflictAction::OnconflictUpdate as i32 {
                self.target(&insert.relation, Action::Update, set_columns(&conflict.target_list));
            }
            if let Some(infer) = &conflict.infer {
                self.list(&infer.index_elems);
                self.boxed(&infer.where_clause);
            }
            self.list(&conflict.target_list);
            self.boxed(&conflict.where_clause);
        }
        self.returning(&insert.returning_clause);
        self.ctes.truncate(scope);
    }

    fn update(&mut self, update: &'t pg::UpdateStmt) {
        let scope = self.open_scope(&update.with_clause);
        self.target(&update.relation, Action::Update, set_columns(&update.target_list));
        self.list(&update.target_list);
        self.list(&update.from_clause);
        self.boxed(&update.where_clause);
        self.returning(&update.returning_clause);
        self.ctes.truncate(scope);
    }

    fn delete(&mut self, delete: &'t pg::DeleteStmt) {
        let scope = self.open_scope(&delete.with_clause);
        self.target(&delete.relation, Action::Delete, None);
        self.list(&delete.using_clause);
        self.boxed(&delete.where_clause);
        self.returning(&delete.returning_clause);
        self.ctes.truncate(scope);
    }

    fn merge(&mut self, merge: &'t pg::MergeStmt) {
        let scope = self.open_scope(&merge.with_clause);
        // Whatever its clauses do, it reads the target.
        self.target_read(&merge.relation);
        self.boxed(&merge.source_relation);
        self.boxed(&merge.join_condition);
        for clause in &merge.merge_when_clauses {
            let Some(N::MergeWhenClause(when)) = &clause.node else {
                self.unknown();
                continue;
            };
            match pg::CmdType::try_from(when.command_type) {
                Ok(pg::CmdType::CmdInsert) => self.target(&merge.relation, Action::Insert, None),
                Ok(pg::CmdType::CmdUpdate) => {
                    self.target(&merge.relation, Action::Update, set_columns(&when.target_list));
                }
                Ok(pg::CmdType::CmdDelete) => self.target(&merge.relation, Action::Delete, None),
                Ok(pg::CmdType::CmdNothing) => {}
                _ => self.unknown(),
            }
            self.boxed(&when.condition);
            self.list(&when.target_list);
            self.list(&when.values);
        }
        self.returning(&merge.returning_clause);
        self.ctes.truncate(scope);
    }

    fn returning(&mut self, returning: &'t Option<pg::ReturningClause>) {
        if let Some(returning) = returning {
            self.list(&returning.exprs);
        }
    }

    /// Walks the CTEs and leaves their names in scope; returns what to truncate `ctes` to afterwards.
    ///
    /// A CTE sees the ones before it; under RECURSIVE also itself and those after it.
    pub(super) fn open_scope(&mut self, with: &'t Option<pg::WithClause>) -> usize {
        let scope = self.ctes.len();
        let Some(with) = with else {
            return scope;
        };
        let ctes = || with.ctes.iter().filter_map(|cte| cte.node.as_ref());
        if with.recursive {
            self.ctes.extend(ctes().filter_map(cte_name));
        }
        for node in ctes() {
            let N::CommonTableExpr(cte) = node else {
                self.unknown();
                continue;
            };
            self.boxed(&cte.ctequery);
            if let Some(cycle) = &cte.cycle_clause {
                self.boxed(&cycle.cycle_mark_value);
                self.boxed(&cycle.cycle_mark_default);
            }
            if !with.recursive {
                self.ctes.push(&cte.ctename);
            }
        }
        scope
    }
}

fn cte_name(node: &N) -> Option<&str> {
    match node {
        N::CommonTableExpr(cte) => Some(&cte.ctename),
        _ => None,
    }
}

fn distinct<T: Ord>(mut items: Vec<T>) -> Box<[T]> {
    items.sort_unstable();
    items.dedup();
    items.into_boxed_slice()
}

pub(super) fn is_temporary(relation: &Option<pg::RangeVar>) -> bool {
    relation.as_ref().is_some_and(|rel| rel.relpersistence == "t" || rel.schemaname == "pg_temp")
}

/// Columns on the left of a SET list.
fn set_columns(targets: &[pg::Node]) -> Option<Box<[Box<str>]>> {
    let column = |node: &pg::Node| match &node.node {
        Some(N::ResTarget(target)) => Some(target.name.as_str().into()),
        _ => None,
    };
    targets.iter().map(column).collect()
}

/// A name given as a list of strings.
pub(super) fn name_of(parts: &[pg::Node]) -> Option<Name> {
    let text = |node: &pg::Node| match &node.node {
        Some(N::String(string)) => Some(Box::<str>::from(string.sval.as_str())),
        _ => None,
    };
    match parts {
        [name] => Some(Name { schema: None, name: text(name)? }),
        [schema, name] => Some(Name { schema: Some(text(schema)?), name: text(name)? }),
        _ => None,
    }
}
