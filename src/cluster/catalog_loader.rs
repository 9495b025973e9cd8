//! Reads the system catalogs into a [`Snapshot`].
//!
//! One repeatable-read transaction, so that all rows are of one moment; nothing needs more rights than any
//! role has. Works on PostgreSQL 12 and later.

use std::hash::{DefaultHasher, Hash, Hasher};

use tokio_postgres::{Client, Row};

use crate::catalog::{
    ExpressionRow, ExpressionUse, ForeignKeyRow, FunctionRow, HeardRows, KeyRow, OperatorRow, RelationRow,
    RestrictedRow, RoleRow, RuleRow, SchemaRow, Snapshot, SnapshotRows, TriggerRow, TypeRow, UnseenRow,
};

mod queries;

/// `server_version_num` since which the stream carries messages of triggers.
pub(super) const FIRST_WITH_MESSAGES: i32 = 140_000;

/// Why the catalogs could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CatalogLoadError {
    /// The server refused a query, or the connection is gone.
    #[error("reading {what} failed")]
    Query {
        /// Which catalogs were read.
        what: &'static str,
        /// What the driver says.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The process ends.
    #[error("cut off")]
    CutOff(#[from] tokio::task::JoinError),
}

type Loaded<T> = Result<T, CatalogLoadError>;

fn reading(what: &'static str) -> impl FnOnce(tokio_postgres::Error) -> CatalogLoadError {
    move |source| CatalogLoadError::Query { what, source }
}

/// Reads a snapshot. `publication`: writes that bypass the proxy are heard of through it, and what is not heard of must
/// not be kept. Not cancel safe: a dropped load leaves the connection in a transaction.
pub async fn load(client: &Client, publication: Option<&str>) -> Loaded<Snapshot> {
    let began = client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await;
    began.map_err(reading("the catalogs"))?;
    let rows = read(client, publication).await;
    let ended = client.batch_execute("ROLLBACK").await;
    let rows = rows?;
    ended.map_err(reading("the catalogs"))?;
    // Thousands of tables take a while, and others on this thread have deadlines.
    Ok(tokio::task::spawn_blocking(|| Snapshot::new(rows)).await?)
}

/// A number that changes when definitions, privileges or default settings change; a few milliseconds.
///
/// It tells of changes that did not pass the proxy. Reloads of a table's contents (TRUNCATE, REFRESH) leave
/// it as it is.
pub async fn fingerprint(client: &Client, publication: Option<&str>) -> Loaded<u64> {
    let row = client.query_one(queries::FINGERPRINT, &[]).await.map_err(reading("the catalog fingerprint"))?;
    let number: i64 = column(&row, 0, "the catalog fingerprint")?;
    let Some(publication) = publication else { return Ok(number.cast_unsigned()) };
    let mut both = DefaultHasher::new();
    (number, heard(client, publication).await?).hash(&mut both);
    Ok(both.finish())
}

/// What the primary's replication stream would tell of.
async fn heard(client: &Client, publication: &str) -> Loaded<HeardRows> {
    let what = "what is published";
    let oid = |row: &Row, what| column(row, 0, what);
    let options = client.query_opt(queries::PUBLICATION, &[&publication]).await.map_err(reading(what))?;
    let mut rows = HeardRows::default();
    if let Some(options) = options {
        rows.via_root = column(&options, 0, what)?;
        if column(&options, 1, what)? {
            rows.published = each(client.query(queries::PUBLISHED, &[&publication]).await, what, oid)?;
        }
    }
    let version: i32 = column(&client.query_one(queries::VERSION, &[]).await.map_err(reading(what))?, 0, what)?;
    if version >= FIRST_WITH_MESSAGES {
        rows.triggered = list(client, "triggers that tell of writes", queries::TRIGGERED, oid).await?;
        let event = client.query_one(queries::EVENT_TRIGGERS, &[]).await.map_err(reading(what))?;
        rows.definitions = column(&event, 0, what)?;
    }
    Ok(rows)
}

async fn read(client: &Client, publication: Option<&str>) -> Loaded<SnapshotRows> {
    let mut rows = database(client).await?;
    session_defaults(client, &mut rows).await?;
    // From here on no object of a user can stand in for one of the catalog. Compiling would take longer than running.
    let settings = "SET LOCAL search_path = pg_catalog; SET LOCAL jit = off";
    client.batch_execute(settings).await.map_err(reading("the catalogs"))?;
    rows.schemas = list(client, "pg_namespace", queries::SCHEMAS, |row, what| {
        Ok(SchemaRow { oid: column(row, 0, what)?, name: column(row, 1, what)?, users: column(row, 2, what)? })
    })
    .await?;
    rows.roles = list(client, "pg_roles", queries::ROLES, |row, what| {
        Ok(RoleRow { oid: column(row, 0, what)?, name: column(row, 1, what)?, superuser: column(row, 2, what)? })
    })
    .await?;
    rows.memberships = list(client, "pg_auth_members", queries::MEMBERSHIPS, |row, what| {
        Ok((column(row, 0, what)?, column(row, 1, what)?))
    })
    .await?;
    rows.relations = list(client, "pg_class", queries::RELATIONS, relation).await?;
    rights(client, &mut rows).await?;
    rows.plumbing = list(client, "pg_class", queries::PLUMBING, |row, what| column(row, 0, what)).await?;
    rows.rules = list(client, "pg_rewrite", queries::RULES, |row, what| {
        Ok(RuleRow { relation: column(row, 0, what)?, event: letter(row, 1, what)?, action: column(row, 2, what)? })
    })
    .await?;
    rows.inheritance = list(client, "pg_inherits", queries::INHERITANCE, |row, what| {
        Ok((column(row, 0, what)?, column(row, 1, what)?))
    })
    .await?;
    rows.keys = list(client, "primary keys", queries::KEYS, |row, what| {
        Ok(KeyRow { relation: column(row, 0, what)?, column: column(row, 1, what)?, type_oid: column(row, 2, what)? })
    })
    .await?;
    rows.foreign_keys = list(client, "pg_constraint", queries::FOREIGN_KEYS, foreign_key).await?;
    rows.triggers = list(client, "pg_trigger", queries::TRIGGERS, |row, what| {
        Ok(TriggerRow {
            relation: column(row, 0, what)?,
            function: column(row, 1, what)?,
            deferrable: column(row, 2, what)?,
        })
    })
    .await?;
    rows.expressions = list(client, "stored expressions", queries::EXPRESSIONS, expression).await?;
    let functions = queries::functions(rows.server_version_num);
    rows.functions = list(client, "pg_proc", &functions, function).await?;
    rows.custom_settings =
        list(client, "settings in functions", queries::CUSTOM_SETTINGS, |row, what| column(row, 0, what)).await?;
    rows.operators = list(client, "pg_operator", queries::OPERATORS, |row, what| {
        Ok(OperatorRow {
            name: column(row, 0, what)?,
            schema: column(row, 1, what)?,
            function: column(row, 2, what)?,
            types: column(row, 3, what)?,
        })
    })
    .await?;
    rows.unseen = list(client, "casts and operator classes", queries::UNSEEN, |row, what| {
        Ok(UnseenRow { function: column(row, 0, what)?, types: column(row, 1, what)? })
    })
    .await?;
    rows.types = list(client, "pg_type", queries::TYPES, type_row).await?;
    if let Some(publication) = publication {
        rows.heard = Some(heard(client, publication).await?);
    }
    Ok(rows)
}

/// Who may read and call what, and what else tells roles apart.
async fn rights(client: &Client, rows: &mut SnapshotRows) -> Loaded<()> {
    rows.roles_with_settings =
        list(client, "pg_db_role_setting", queries::ROLES_WITH_SETTINGS, |row, what| column(row, 0, what)).await?;
    let oid = |row: &Row, what| column(row, 0, what);
    rows.bypassing_roles = list(client, "pg_roles", queries::BYPASSING_ROLES, oid).await?;
    rows.policy_roles = list(client, "pg_policy", queries::POLICY_ROLES, oid).await?;
    rows.readers = list(client, "rights to read", queries::READERS, |row, what| {
        Ok((column(row, 0, what)?, column(row, 1, what)?))
    })
    .await?;
    rows.restricted = list(client, "rights to call", queries::RESTRICTED, |row, what| {
        Ok(RestrictedRow {
            function: column(row, 0, what)?,
            users: column(row, 1, what)?,
            unseen: column(row, 2, what)?,
        })
    })
    .await?;
    rows.named_in_literals =
        list(client, "text search and collations", queries::NAMED_IN_LITERALS, |row, what| column(row, 0, what))
            .await?;
    let what = "security labels";
    let row = client.query_one(queries::TELLS_ROLES_APART, &[]).await.map_err(reading(what))?;
    rows.tells_roles_apart = column(&row, 0, what)?;
    Ok(())
}

async fn database(client: &Client) -> Loaded<SnapshotRows> {
    let what = "pg_database";
    let row = client.query_one(queries::DATABASE, &[]).await.map_err(reading(what))?;
    let version: i32 = column(&row, 1, what)?;
    Ok(SnapshotRows {
        database_oid: column(&row, 0, what)?,
        server_version_num: version.unsigned_abs(),
        utf8: column(&row, 2, what)?,
        ..SnapshotRows::default()
    })
}

/// What a new session begins with.
async fn session_defaults(client: &Client, rows: &mut SnapshotRows) -> Loaded<()> {
    let what = "settings of new sessions";
    (rows.search_path, rows.role_search_paths) = setting(client, "search_path").await?;
    (rows.isolation, rows.role_isolations) = setting(client, "default_transaction_isolation").await?;
    rows.disguised_roles =
        list(client, "pg_db_role_setting", queries::DISGUISED_ROLES, |row, what| column(row, 0, what)).await?;
    rows.peculiar_roles = list(client, "pg_roles", queries::PECULIAR_ROLES, |row, what| column(row, 0, what)).await?;
    let row = client.query_one(queries::SETTINGS, &[]).await.map_err(reading(what))?;
    rows.settings = column(&row, 0, what)?;
    Ok(())
}

/// The value of a setting where no role has its own, and those of roles.
async fn setting(client: &Client, name: &'static str) -> Loaded<(Option<String>, Vec<(String, String)>)> {
    let row = client.query_one(queries::DEFAULT_OF_SETTING, &[&name]).await.map_err(reading(name))?;
    let of_roles = client.query(queries::ROLES_WITH_SETTING, &[&name]).await;
    let of_roles = each(of_roles, name, |row, what| Ok((column(row, 0, what)?, column(row, 1, what)?)))?;
    Ok((column(&row, 0, name)?, of_roles))
}

async fn list<T>(
    client: &Client,
    what: &'static str,
    query: &str,
    read: impl Fn(&Row, &'static str) -> Loaded<T>,
) -> Loaded<Vec<T>> {
    each(client.query(query, &[]).await, what, read)
}

fn each<T>(
    rows: Result<Vec<Row>, tokio_postgres::Error>,
    what: &'static str,
    read: impl Fn(&Row, &'static str) -> Loaded<T>,
) -> Loaded<Vec<T>> {
    rows.map_err(reading(what))?.iter().map(|row| read(row, what)).collect()
}

fn column<'r, T: tokio_postgres::types::FromSql<'r>>(row: &'r Row, index: usize, what: &'static str) -> Loaded<T> {
    row.try_get(index).map_err(reading(what))
}

/// A value of type `"char"`, read as text.
fn letter(row: &Row, index: usize, what: &'static str) -> Loaded<char> {
    let text: &str = column(row, index, what)?;
    Ok(text.chars().next().unwrap_or(' '))
}

fn count(row: &Row, index: usize, what: &'static str) -> Loaded<u16> {
    let number: i16 = column(row, index, what)?;
    Ok(number.unsigned_abs())
}

fn relation(row: &Row, what: &'static str) -> Loaded<RelationRow> {
    Ok(RelationRow {
        oid: column(row, 0, what)?,
        name: column(row, 1, what)?,
        schema: column(row, 2, what)?,
        kind: letter(row, 3, what)?,
        persistence: letter(row, 4, what)?,
        row_security: column(row, 5, what)?,
        generated_columns: column(row, 6, what)?,
        unstable_columns: column(row, 7, what)?,
        row_type: column(row, 8, what)?,
        security_invoker: column(row, 9, what)?,
    })
}

fn foreign_key(row: &Row, what: &'static str) -> Loaded<ForeignKeyRow> {
    Ok(ForeignKeyRow {
        child: column(row, 0, what)?,
        parent: column(row, 1, what)?,
        on_delete: letter(row, 2, what)?,
        on_update: letter(row, 3, what)?,
        parent_columns: column(row, 4, what)?,
    })
}

fn expression(row: &Row, what: &'static str) -> Loaded<ExpressionRow> {
    let policy: bool = column(row, 1, what)?;
    Ok(ExpressionRow {
        relation: column(row, 0, what)?,
        used_for: if policy { ExpressionUse::Policy } else { ExpressionUse::Write },
        tree: column(row, 2, what)?,
    })
}

fn function(row: &Row, what: &'static str) -> Loaded<FunctionRow> {
    Ok(FunctionRow {
        oid: column(row, 0, what)?,
        name: column(row, 1, what)?,
        schema: column(row, 2, what)?,
        volatility: letter(row, 3, what)?,
        language: column(row, 4, what)?,
        kind: letter(row, 5, what)?,
        arguments: count(row, 6, what)?,
        defaults: count(row, 7, what)?,
        variadic: column(row, 8, what)?,
        takes_row: column(row, 9, what)?,
        body: column(row, 10, what)?,
        source: column(row, 11, what)?,
        support: column(row, 12, what)?,
        types: column(row, 13, what)?,
        search_path: column(row, 14, what)?,
        default_values: column(row, 15, what)?,
    })
}

fn type_row(row: &Row, what: &'static str) -> Loaded<TypeRow> {
    Ok(TypeRow {
        oid: column(row, 0, what)?,
        name: column(row, 1, what)?,
        schema: column(row, 2, what)?,
        kind: letter(row, 3, what)?,
        functions: column(row, 4, what)?,
        base: column(row, 5, what)?,
        parts: column(row, 6, what)?,
    })
}
