//! What stands in FROM, and what is written to.

use pg_query::{NodeEnum as N, protobuf as pg};

use super::Walker;
use crate::sql::statement::{Action, Flags, Name, Target};

impl<'t> Walker<'t> {
    /// A node that stands for rows: false if it is none.
    pub(super) fn relation_node(&mut self, node: &'t N) -> bool {
        match node {
            N::RangeVar(relation) => self.read(relation),
            N::RangeSubselect(subselect) => self.boxed(&subselect.subquery),
            N::JoinExpr(join) => {
                self.boxed(&join.larg);
                self.boxed(&join.rarg);
                self.boxed(&join.quals);
            }
            N::RangeFunction(function) => {
                self.list(&function.functions);
                self.list(&function.coldeflist);
            }
            N::RangeTableSample(sample) => {
                self.flags.insert(Flags::SAMPLE);
                self.boxed(&sample.relation);
                self.list(&sample.args);
                self.boxed(&sample.repeatable);
            }
            N::RangeTableFunc(function) => {
                self.boxed(&function.docexpr);
                self.boxed(&function.rowexpr);
                self.list(&function.namespaces);
                self.list(&function.columns);
            }
            N::RangeTableFuncCol(column) => {
                self.type_name(&column.type_name);
                self.boxed(&column.colexpr);
                self.boxed(&column.coldefexpr);
            }
            N::ColumnDef(column) => self.type_name(&column.type_name),
            N::JsonTable(table) => self.json_table(table),
            N::JsonTableColumn(column) => {
                self.type_name(&column.type_name);
                self.list(&column.columns);
                self.json_behavior(&column.on_empty);
                self.json_behavior(&column.on_error);
            }
            _ => return false,
        }
        true
    }

    fn json_table(&mut self, table: &'t pg::JsonTable) {
        self.json_value(&table.context_item);
        if let Some(path) = &table.pathspec {
            self.boxed(&path.string);
        }
        self.list(&table.passing);
        self.list(&table.columns);
        self.json_behavior(&table.on_error);
    }

    /// A relation read, unless a CTE of that name hides it.
    pub(in crate::sql) fn read(&mut self, relation: &'t pg::RangeVar) {
        let hidden = relation.schemaname.is_empty() && self.ctes.contains(&relation.relname.as_str());
        if !hidden {
            let name = self.relation_name(relation);
            self.reads.push(name);
        }
    }

    /// A relation written; CTEs never hide it.
    pub(in crate::sql) fn target(
        &mut self,
        relation: &Option<pg::RangeVar>,
        action: Action,
        columns: Option<Box<[Box<str>]>>,
    ) {
        let Some(relation) = relation else {
            return self.unknown();
        };
        let target = Target { name: self.relation_name(relation), action, columns, only: !relation.inh };
        if !self.writes.contains(&target) {
            self.writes.push(target);
        }
    }

    /// A target whose rows are read; CTEs never hide it.
    pub(in crate::sql) fn target_read(&mut self, relation: &Option<pg::RangeVar>) {
        if let Some(relation) = relation {
            let name = self.relation_name(relation);
            self.reads.push(name);
        }
    }

    fn relation_name(&mut self, relation: &pg::RangeVar) -> Name {
        if !relation.catalogname.is_empty() {
            self.flags.insert(Flags::FOREIGN_DATABASE);
        }
        let schema = (!relation.schemaname.is_empty()).then(|| relation.schemaname.as_str().into());
        Name { schema, name: relation.relname.as_str().into() }
    }
}
