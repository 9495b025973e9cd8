//! A small database made by hand.

use std::sync::Arc;

use crate::{
    catalog::*,
    sql::{Analyzer, Statement},
};

pub(super) const PG_CATALOG: u32 = 11;
pub(super) const PUBLIC: u32 = 2200;
pub(super) const TENANT: u32 = 20000;
pub(super) const APP: u32 = 18_001;
pub(super) const OUTSIDER: u32 = 18_004;
const INFORMATION_SCHEMA: u32 = 12000;

/// Functions that come with the server: name, volatility, kind, arguments.
const BUILTIN: &[(&str, char, char, u16)] = &[
    ("age", 's', 'f', 1),
    ("age", 's', 'f', 2),
    ("clock_timestamp", 'v', 'f', 0),
    ("coalesce_like", 'i', 'f', 1),
    ("count", 'i', 'a', 0),
    ("count", 'i', 'a', 1),
    ("current_schemas", 's', 'f', 1),
    ("current_setting", 's', 'f', 1),
    ("currval", 'v', 'f', 1),
    ("date_trunc", 's', 'f', 2),
    ("extract", 's', 'f', 2),
    ("gen_random_uuid", 'v', 'f', 0),
    ("generate_series", 'i', 'f', 2),
    ("has_table_privilege", 's', 'f', 2),
    ("inet_server_addr", 's', 'f', 0),
    ("json_agg", 's', 'a', 1),
    ("jsonb_path_query", 'i', 'f', 2),
    ("lastval", 'v', 'f', 0),
    ("lower", 'i', 'f', 1),
    ("max", 'i', 'a', 1),
    ("nextval", 'v', 'f', 1),
    ("now", 's', 'f', 0),
    ("percentile_cont", 'i', 'a', 2),
    ("pg_advisory_lock", 'v', 'f', 1),
    ("pg_advisory_unlock_all", 'v', 'f', 0),
    ("pg_advisory_xact_lock", 'v', 'f', 1),
    ("pg_backend_pid", 's', 'f', 0),
    ("pg_is_in_recovery", 'v', 'f', 0),
    ("pg_notify", 'v', 'f', 2),
    ("pg_reload_conf", 'v', 'f', 0),
    ("pg_sleep", 'v', 'f', 1),
    ("pg_typeof", 's', 'f', 1),
    ("query_to_xml", 'v', 'f', 4),
    ("random", 'v', 'f', 0),
    ("row_number", 'i', 'w', 0),
    ("set_config", 'v', 'f', 3),
    ("setseed", 'v', 'f', 1),
    ("timezone", 'i', 'f', 2),
    ("to_char", 's', 'f', 2),
    ("to_regclass", 's', 'f', 1),
    ("to_tsvector", 's', 'f', 1),
    ("ts_rewrite", 'v', 'f', 2),
    ("ts_rewrite", 'i', 'f', 3),
    ("txid_current", 's', 'f', 0),
    ("upper", 'i', 'f', 1),
];

const BUILTIN_TYPES: &[(&str, u32)] = &[
    ("bool", 16),
    ("date", 1082),
    ("int4", 23),
    ("int8", 20),
    ("interval", 1186),
    ("jsonb", 3802),
    ("numeric", 1700),
    ("regclass", 2205),
    ("regconfig", 3734),
    ("text", 25),
    ("timestamp", 1114),
    ("timestamptz", 1184),
    ("timetz", 1266),
    ("uuid", 2950),
    ("varchar", 1043),
];

/// The database under test and the analyser in front of it.
pub(super) struct World {
    pub(super) snapshot: Snapshot,
    pub(super) analyzer: Analyzer,
}

pub(super) struct Builder {
    pub(super) rows: SnapshotRows,
    next: u32,
}

impl Builder {
    pub(super) fn new() -> Self {
        let schema = |oid, name: &str| SchemaRow { oid, name: name.into(), users: vec![0] };
        let role = |oid, name: &str| RoleRow { oid, name: name.into(), superuser: false };
        let rows = SnapshotRows {
            database_oid: 5,
            server_version_num: 150_000,
            utf8: true,
            search_path: Some("\"$user\", public".into()),
            schemas: vec![
                schema(PG_CATALOG, "pg_catalog"),
                schema(INFORMATION_SCHEMA, "information_schema"),
                schema(PUBLIC, "public"),
                schema(TENANT, "tenant"),
            ],
            roles: vec![role(APP, "app"), role(18_002, "tenant"), role(18_003, "reporter"), role(OUTSIDER, "outsider")],
            ..SnapshotRows::default()
        };
        let mut builder = Self { rows, next: 30_000 };
        for (index, (name, volatility, kind, arguments)) in BUILTIN.iter().enumerate() {
            builder.rows.functions.push(FunctionRow {
                oid: 1000 + u32::try_from(index).unwrap(),
                name: (*name).into(),
                schema: PG_CATALOG,
                volatility: *volatility,
                language: "internal".into(),
                kind: *kind,
                arguments: *arguments,
                takes_row: *name == "pg_typeof",
                ..FunctionRow::default()
            });
        }
        for (name, oid) in BUILTIN_TYPES {
            builder.type_row(*oid, name, PG_CATALOG, 'b');
        }
        builder.relation_at(1259, "pg_class", PG_CATALOG, 'r');
        builder.relation_at(12100, "pg_stat_activity", PG_CATALOG, 'v');
        builder.relation_at(12101, "tables", INFORMATION_SCHEMA, 'v');
        builder
    }

    fn oid(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    fn relation_at(&mut self, oid: u32, name: &str, schema: u32, kind: char) -> &mut RelationRow {
        self.rows.relations.push(RelationRow {
            oid,
            name: name.into(),
            schema,
            kind,
            persistence: 'p',
            row_security: false,
            generated_columns: false,
            unstable_columns: false,
            row_type: oid + 100_000,
            security_invoker: false,
        });
        self.rows.relations.last_mut().unwrap()
    }

    pub(super) fn relation(&mut self, name: &str, kind: char) -> &mut RelationRow {
        let oid = self.oid();
        self.relation_at(oid, name, PUBLIC, kind)
    }

    pub(super) fn table(&mut self, name: &str) -> u32 {
        self.relation(name, 'r').oid
    }

    pub(super) fn table_in(&mut self, schema: u32, name: &str) -> u32 {
        let oid = self.oid();
        self.relation_at(oid, name, schema, 'r').oid
    }

    /// A table with a column of that type.
    pub(super) fn table_of(&mut self, name: &str, column: u32) -> u32 {
        let oid = self.table(name);
        self.type_row(oid + 100_000, name, PUBLIC, 'c').parts.push(column);
        oid
    }

    /// `tree` is what the scan would find in `ev_action`.
    pub(super) fn view(&mut self, name: &str, tree: &str) -> u32 {
        let oid = self.relation(name, 'v').oid;
        self.rows.rules.push(RuleRow { relation: oid, event: '1', action: tree.into() });
        oid
    }

    pub(super) fn partition(&mut self, name: &str, parent: u32) -> u32 {
        let oid = self.table(name);
        self.rows.inheritance.push((oid, parent));
        oid
    }

    pub(super) fn key(&mut self, child: u32, parent: u32, on_delete: char, on_update: char) {
        self.rows.foreign_keys.push(ForeignKeyRow {
            child,
            parent,
            on_delete,
            on_update,
            parent_columns: vec!["id".into()],
        });
    }

    pub(super) fn function(
        &mut self,
        name: &str,
        volatility: char,
        language: &str,
        arguments: u16,
    ) -> &mut FunctionRow {
        let oid = self.oid();
        self.rows.functions.push(FunctionRow {
            oid,
            name: name.into(),
            schema: PUBLIC,
            volatility,
            language: language.into(),
            kind: 'f',
            arguments,
            source: match language {
                "sql" if volatility != 'v' => Some("SELECT 1".into()),
                _ if volatility != 'v' => Some("BEGIN RETURN 1; END".into()),
                _ => None,
            },
            ..FunctionRow::default()
        });
        self.rows.functions.last_mut().unwrap()
    }

    pub(super) fn trigger(&mut self, relation: u32, source: &str) -> &mut TriggerRow {
        let name = format!("trigger_on_{relation}");
        let function = self.function(&name, 'v', "plpgsql", 0);
        function.source = Some(source.into());
        let function = function.oid;
        self.rows.triggers.push(TriggerRow { relation, function, deferrable: false });
        self.rows.triggers.last_mut().unwrap()
    }

    pub(super) fn expression(&mut self, relation: u32, tree: String) {
        self.rows.expressions.push(ExpressionRow { relation, used_for: ExpressionUse::Write, tree });
    }

    pub(super) fn type_row(&mut self, oid: u32, name: &str, schema: u32, kind: char) -> &mut TypeRow {
        let name = name.into();
        self.rows.types.push(TypeRow { oid, name, schema, kind, functions: vec![], base: 0, parts: vec![] });
        self.rows.types.last_mut().unwrap()
    }

    pub(super) fn builtin(&self, name: &str) -> u32 {
        self.rows.functions.iter().find(|row| row.name == name).unwrap().oid
    }

    pub(super) fn build(self) -> World {
        World { snapshot: Snapshot::new(self.rows), analyzer: Analyzer::with_seed(1000, 7) }
    }
}

impl World {
    pub(super) fn statement(&self, sql: &str) -> Arc<Statement> {
        self.analyzer.analyze(sql)
    }

    pub(super) fn meaning(&self, sql: &str) -> Arc<Meaning> {
        self.snapshot.meaning(&self.statement(sql), "app")
    }

    pub(super) fn names(&self, oids: &[RelationOid]) -> String {
        let name = |oid: &RelationOid| self.snapshot.relation_name(*oid).unwrap().replace("public.", "");
        let mut names: Vec<String> = oids.iter().map(name).collect();
        names.sort();
        names.join(" ")
    }

    pub(super) fn access(&self, sql: &str) -> &'static str {
        let meaning = self.meaning(sql);
        assert_eq!(meaning.access == Access::Read, meaning.reason == AccessReason::Read, "{sql}");
        meaning.reason.label()
    }

    pub(super) fn cache(&self, sql: &str) -> String {
        match &self.meaning(sql).cacheable {
            Ok(relations) => self.names(relations),
            Err(bypass) => format!("! {}", bypass.label()),
        }
    }

    pub(super) fn writes(&self, sql: &str) -> String {
        self.describe(&self.meaning(sql).writes)
    }

    pub(super) fn describe(&self, writes: &Writes) -> String {
        match writes {
            Writes::None => "nothing".into(),
            Writes::Static(relations) => self.names(relations),
            Writes::LockSet => "! locks".into(),
            Writes::Database => "! database".into(),
        }
    }

    pub(super) fn effects(&self, sql: &str) -> String {
        self.meaning(sql).effects.iter().map(Effects::label).collect::<Vec<_>>().join(" ")
    }
}
