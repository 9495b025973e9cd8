//! Rows of the system catalogs as the loader reads them.

/// Everything a [`super::Snapshot`] is made of.
#[derive(Clone, Debug, Default)]
pub struct SnapshotRows {
    /// `pg_database.oid`
    pub database_oid: u32,
    /// `server_version_num`
    pub server_version_num: u32,
    /// The server encoding is UTF-8, so that only ASCII letters of unquoted names are folded.
    pub utf8: bool,
    /// `search_path` of a new session without settings of its role; `None` where it cannot be known.
    pub search_path: Option<String>,
    /// `search_path` of roles that have one of their own in this database.
    pub role_search_paths: Vec<(String, String)>,
    /// `default_transaction_isolation` likewise.
    pub isolation: Option<String>,
    /// `default_transaction_isolation` likewise.
    pub role_isolations: Vec<(String, String)>,
    /// Roles whose sessions report something else than those of others: superusers, and those with settings of their own.
    pub peculiar_roles: Vec<String>,
    /// Differs when any setting that sessions begin with does.
    pub settings: String,
    /// Settings with a dot in their names that functions of users may set, in lower case.
    pub custom_settings: Vec<String>,
    /// Roles that sessions may begin as, other than the one that logs in (`ALTER ROLE … SET role`); nobody's name: all.
    pub disguised_roles: Vec<Option<String>>,
    /// `pg_roles`
    pub roles: Vec<RoleRow>,
    /// Roles that no policy holds back (`rolbypassrls`).
    pub bypassing_roles: Vec<u32>,
    /// Roles that policies are for; 0 is everybody.
    pub policy_roles: Vec<u32>,
    /// Whose rights a role has without asking for them, as (member, role).
    pub memberships: Vec<(u32, u32)>,
    /// `pg_namespace`, temporary and toast schemas left out.
    pub schemas: Vec<SchemaRow>,
    /// Roles with settings of their own, here or everywhere: sessions begin with more than is known.
    pub roles_with_settings: Vec<String>,
    /// Who has SELECT on which table or view, as (relation, grantees); 0 is everybody.
    pub readers: Vec<(u32, Vec<u32>)>,
    /// Functions that not everybody may call.
    pub restricted: Vec<RestrictedRow>,
    /// Schemas of what literals may name: text search configurations, collations.
    pub named_in_literals: Vec<u32>,
    /// Something other than rights tells roles apart: security labels, triggers of logins.
    pub tells_roles_apart: bool,
    /// `pg_class`: tables, views, materialised views, foreign tables, sequences.
    pub relations: Vec<RelationRow>,
    /// Indexes and toast tables: they appear in lock sets and nothing hangs on them.
    pub plumbing: Vec<u32>,
    /// `pg_rewrite`
    pub rules: Vec<RuleRow>,
    /// `pg_inherits` as (child, parent).
    pub inheritance: Vec<(u32, u32)>,
    /// Primary keys of one column, by whose `=` values are equal if and only if they are the same.
    pub keys: Vec<KeyRow>,
    /// Foreign keys of `pg_constraint`.
    pub foreign_keys: Vec<ForeignKeyRow>,
    /// User triggers that are not disabled.
    pub triggers: Vec<TriggerRow>,
    /// Defaults, generated columns, checks, indexes and policies.
    pub expressions: Vec<ExpressionRow>,
    /// `pg_proc`
    pub functions: Vec<FunctionRow>,
    /// `pg_operator`; those of `pg_catalog` may be left out.
    pub operators: Vec<OperatorRow>,
    /// Functions of users that PostgreSQL applies without their names being written.
    pub unseen: Vec<UnseenRow>,
    /// `pg_type`
    pub types: Vec<TypeRow>,
    /// What is heard of writes that bypass the proxy; `None` where that is not asked for.
    pub heard: Option<HeardRows>,
}

/// What the primary's replication stream tells of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HeardRows {
    /// Tables of the publication, if it publishes every kind of change, without a row filter.
    pub published: Vec<u32>,
    /// `pubviaroot`: changes of partitions come as those of the listed table that they belong to.
    pub via_root: bool,
    /// Tables whose statement triggers tell of every kind of change.
    pub triggered: Vec<u32>,
    /// Event triggers tell of definitions, and of materialised views that are refreshed.
    pub definitions: bool,
}

/// One schema.
#[derive(Clone, Debug)]
pub struct SchemaRow {
    /// `pg_namespace.oid`
    pub oid: u32,
    /// `nspname`
    pub name: String,
    /// Who has USAGE on it; 0 is everybody.
    pub users: Vec<u32>,
}

/// One role.
#[derive(Clone, Debug)]
pub struct RoleRow {
    /// `pg_roles.oid`
    pub oid: u32,
    /// `rolname`
    pub name: String,
    /// `rolsuper`
    pub superuser: bool,
}

/// One function that not everybody may call.
#[derive(Clone, Debug)]
pub struct RestrictedRow {
    /// `pg_proc.oid`
    pub function: u32,
    /// Who has EXECUTE on it.
    pub users: Vec<u32>,
    /// An operator, a cast or an operator class may call it without its name being written; or it is the server's own, and
    /// everybody might call it once.
    pub unseen: bool,
}

/// One relation.
#[derive(Clone, Debug)]
pub struct RelationRow {
    /// `pg_class.oid`
    pub oid: u32,
    /// `relname`
    pub name: String,
    /// `relnamespace`
    pub schema: u32,
    /// `relkind`: r, p, v, m, f or S.
    pub kind: char,
    /// `relpersistence`: p, u or t.
    pub persistence: char,
    /// `relrowsecurity`
    pub row_security: bool,
    /// Some column is generated.
    pub generated_columns: bool,
    /// Some column has a type whose text form hangs on catalogs, the clock or code of the user.
    pub unstable_columns: bool,
    /// `reltype`
    pub row_type: u32,
    /// A view whose reader needs the rights to all that it reads.
    pub security_invoker: bool,
}

/// One rewrite rule; the definition of a view is its SELECT rule.
#[derive(Clone, Debug)]
pub struct RuleRow {
    /// `ev_class`
    pub relation: u32,
    /// `ev_type`: 1 SELECT, 2 UPDATE, 3 INSERT, 4 DELETE.
    pub event: char,
    /// `ev_action` as text.
    pub action: String,
}

/// One primary key.
#[derive(Clone, Debug)]
pub struct KeyRow {
    /// `indrelid`
    pub relation: u32,
    /// `attname`
    pub column: String,
    /// `atttypid`
    pub type_oid: u32,
}

/// One foreign key.
#[derive(Clone, Debug)]
pub struct ForeignKeyRow {
    /// `conrelid`
    pub child: u32,
    /// `confrelid`
    pub parent: u32,
    /// `confdeltype`: a, r, c, n or d.
    pub on_delete: char,
    /// `confupdtype`
    pub on_update: char,
    /// Names of the columns of `confkey`.
    pub parent_columns: Vec<String>,
}

/// One user trigger.
#[derive(Clone, Debug)]
pub struct TriggerRow {
    /// `tgrelid`
    pub relation: u32,
    /// `tgfoid`
    pub function: u32,
    /// `tgdeferrable`
    pub deferrable: bool,
}

/// What an expression of a table is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpressionUse {
    /// Evaluated when rows are written: defaults, generated columns, checks, index expressions.
    Write,
    /// A policy of row level security: evaluated when rows are read as well.
    Policy,
}

/// One expression of a table.
#[derive(Clone, Debug)]
pub struct ExpressionRow {
    /// The table.
    pub relation: u32,
    /// When it is evaluated.
    pub used_for: ExpressionUse,
    /// `pg_node_tree` as text.
    pub tree: String,
}

/// One function, aggregate or procedure.
#[derive(Clone, Debug, Default)]
pub struct FunctionRow {
    /// `pg_proc.oid`
    pub oid: u32,
    /// `proname`
    pub name: String,
    /// `pronamespace`
    pub schema: u32,
    /// `provolatile`: i, s or v.
    pub volatility: char,
    /// `lanname`
    pub language: String,
    /// `prokind`: f, a, w or p.
    pub kind: char,
    /// `pronargs`
    pub arguments: u16,
    /// `pronargdefaults`
    pub defaults: u16,
    /// `provariadic <> 0`
    pub variadic: bool,
    /// It can be written as a column: one argument, of a row type or a polymorphic type.
    pub takes_row: bool,
    /// `prosqlbody` as text, for BEGIN ATOMIC bodies.
    pub body: Option<String>,
    /// `prosrc` of user functions: the body, or a symbol of the library that is written in C.
    pub source: Option<String>,
    /// `proargdefaults` as text: evaluated by the caller, whatever the label of the function.
    pub default_values: Option<String>,
    /// Types of arguments and result, as far as users made them.
    pub types: Vec<u32>,
    /// `search_path` that the function sets while it runs.
    pub search_path: Option<String>,
    /// Support functions of an aggregate.
    pub support: Vec<u32>,
}

/// One operator.
#[derive(Clone, Debug)]
pub struct OperatorRow {
    /// `oprname`
    pub name: String,
    /// `oprnamespace`
    pub schema: u32,
    /// `oprcode`
    pub function: u32,
    /// Types of its operands.
    pub types: Vec<u32>,
}

/// A function of a cast, or of an operator class of btree or hash.
#[derive(Clone, Debug)]
pub struct UnseenRow {
    /// `castfunc`, `amproc`, or `oprcode` of an operator in `pg_amop`.
    pub function: u32,
    /// Source and target of the cast, or what the operator class compares.
    pub types: Vec<u32>,
}

/// One type.
#[derive(Clone, Debug)]
pub struct TypeRow {
    /// `pg_type.oid`
    pub oid: u32,
    /// `typname`
    pub name: String,
    /// `typnamespace`
    pub schema: u32,
    /// `typtype`: b, c, d, e, p, r or m.
    pub kind: char,
    /// Input and output functions, and functions of domain checks, as far as users made them.
    pub functions: Vec<u32>,
    /// `typbasetype` of a domain.
    pub base: u32,
    /// Types of users that it is made of: base, elements, bounds, columns.
    pub parts: Vec<u32>,
}
