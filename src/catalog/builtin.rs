//! What is known by name about functions that come with PostgreSQL.
//!
//! Volatility is read from the catalog; these lists say what volatility does not. They are closed: a stable
//! function that is not listed is neither cached nor, where it might ask for the state of a server, sent to
//! a replica. Checked against the `pg_proc` of PostgreSQL 15.

use super::Effects;

/// Objects below this come with the server (`FirstNormalObjectId`).
pub(super) const FIRST_USER_OID: u32 = 16384;

/// Stable only because of settings that are the same for all users of a cache entry (encoding, time zone,
/// date style, text search configuration), or because they call the output function of a type.
#[rustfmt::skip]
const CACHEABLE_STABLE: &[&str] = &[
    "age", "anytextcat", "array_in", "array_out", "array_to_json", "array_to_string", "cash_in", "cash_out", "concat",
    "concat_ws", "convert", "convert_from", "convert_to", "date", "date_cmp_timestamptz", "date_eq_timestamptz",
    "date_ge_timestamptz", "date_gt_timestamptz", "date_in", "date_le_timestamptz", "date_lt_timestamptz",
    "date_ne_timestamptz", "date_out", "date_part", "date_trunc", "enum_first", "enum_in", "enum_last", "enum_out",
    "enum_range", "extract", "format", "generate_series", "in_range", "interval_in", "interval_out",
    "interval_pl_timestamptz", "json_agg", "json_agg_strict", "json_array", "json_arrayagg", "json_build_array",
    "json_build_object", "json_object_agg", "json_object_agg_strict", "json_object_agg_unique",
    "json_object_agg_unique_strict", "json_populate_record", "json_populate_recordset", "json_to_record",
    "json_to_recordset", "json_to_tsvector", "jsonb_agg", "jsonb_agg_strict", "jsonb_build_array",
    "jsonb_build_object", "jsonb_object_agg", "jsonb_object_agg_strict", "jsonb_object_agg_unique",
    "jsonb_object_agg_unique_strict", "jsonb_path_exists_tz", "jsonb_path_match_tz", "jsonb_path_query_array_tz",
    "jsonb_path_query_first_tz", "jsonb_path_query_tz", "jsonb_populate_record", "jsonb_populate_recordset",
    "jsonb_to_record", "jsonb_to_recordset", "jsonb_to_tsvector", "length", "make_timestamptz", "money",
    "multirange_in", "multirange_out", "numeric", "overlaps", "phraseto_tsquery", "plainto_tsquery", "quote_literal",
    "quote_nullable", "range_in", "range_out", "row_to_json", "textanycat", "time", "timestamp",
    "timestamp_cmp_timestamptz", "timestamp_eq_timestamptz", "timestamp_ge_timestamptz", "timestamp_gt_timestamptz",
    "timestamp_in", "timestamp_le_timestamptz", "timestamp_lt_timestamptz", "timestamp_ne_timestamptz",
    "timestamp_out", "timestamptz", "timestamptz_cmp_date", "timestamptz_cmp_timestamp", "timestamptz_eq_date",
    "timestamptz_eq_timestamp", "timestamptz_ge_date", "timestamptz_ge_timestamp", "timestamptz_gt_date",
    "timestamptz_gt_timestamp", "timestamptz_in", "timestamptz_le_date", "timestamptz_le_timestamp",
    "timestamptz_lt_date", "timestamptz_lt_timestamp", "timestamptz_mi_interval", "timestamptz_ne_date",
    "timestamptz_ne_timestamp", "timestamptz_out", "timestamptz_pl_interval", "timezone", "to_char", "to_date",
    "to_json", "to_jsonb", "to_number", "to_timestamp", "to_tsquery", "to_tsvector", "ts_headline", "ts_match_tq",
    "ts_match_tt", "ts_parse", "ts_token_type", "websearch_to_tsquery", "xml", "xml_is_well_formed",
];

/// Stable and read the clock: fine on a replica, never cached.
#[rustfmt::skip]
const CLOCK: &[&str] = &["now", "statement_timestamp", "timetz", "transaction_timestamp"];

/// Stable, about the user or the definitions: the same on every member, never cached.
#[rustfmt::skip]
const SAME_EVERYWHERE: &[&str] = &[
    "col_description", "current_database", "current_schema", "current_schemas", "current_user", "format_type",
    "get_current_ts_config", "getdatabaseencoding", "getpgusername", "has_any_column_privilege",
    "has_column_privilege", "has_database_privilege", "has_foreign_data_wrapper_privilege", "has_function_privilege",
    "has_language_privilege", "has_schema_privilege", "has_sequence_privilege", "has_server_privilege",
    "has_table_privilege", "has_tablespace_privilege", "has_type_privilege", "obj_description", "oidvectortypes",
    "pg_char_to_encoding", "pg_client_encoding", "pg_collation_for", "pg_collation_is_visible",
    "pg_column_compression", "pg_column_is_updatable", "pg_column_size", "pg_conversion_is_visible",
    "pg_describe_object", "pg_encoding_to_char", "pg_function_is_visible", "pg_get_constraintdef", "pg_get_expr",
    "pg_get_function_arg_default", "pg_get_function_arguments", "pg_get_function_identity_arguments",
    "pg_get_function_result", "pg_get_function_sqlbody", "pg_get_functiondef", "pg_get_indexdef", "pg_get_keywords",
    "pg_get_partition_constraintdef", "pg_get_partkeydef", "pg_get_ruledef", "pg_get_serial_sequence",
    "pg_get_statisticsobjdef", "pg_get_triggerdef", "pg_get_userbyid", "pg_get_viewdef", "pg_has_role",
    "pg_identify_object", "pg_opclass_is_visible", "pg_operator_is_visible", "pg_opfamily_is_visible",
    "pg_options_to_table", "pg_relation_is_updatable", "pg_table_is_visible", "pg_timezone_abbrevs",
    "pg_timezone_names", "pg_ts_config_is_visible", "pg_ts_dict_is_visible", "pg_ts_parser_is_visible",
    "pg_ts_template_is_visible", "pg_type_is_visible", "pg_typeof", "regclass", "row_security_active",
    "session_user", "shobj_description", "system_user", "to_regclass", "to_regcollation", "to_regnamespace",
    "to_regoper", "to_regoperator", "to_regproc", "to_regprocedure", "to_regrole", "to_regtype", "to_regtypemod",
    "ts_debug", "version",
];

/// Run a query given as text, or every query of a schema.
#[rustfmt::skip]
const RUNS_QUERIES: &[&str] = &[
    "cursor_to_xml", "cursor_to_xmlschema", "database_to_xml", "database_to_xml_and_xmlschema",
    "database_to_xmlschema", "query_to_xml", "query_to_xml_and_xmlschema", "query_to_xmlschema", "schema_to_xml",
    "schema_to_xml_and_xmlschema", "schema_to_xmlschema", "table_to_xml", "table_to_xml_and_xmlschema",
    "table_to_xmlschema", "ts_rewrite", "ts_stat",
];

/// Volatile functions of common extensions that touch no table and leave nothing behind.
#[rustfmt::skip]
const HARMLESS_EXTENSION: &[&str] = &[
    "gen_random_bytes", "gen_random_uuid", "gen_salt", "uuid_generate_v1", "uuid_generate_v1mc", "uuid_generate_v4",
    "uuid_generate_v7", "uuidv7",
];

/// Volatile, but neither refused by a standby nor of any consequence there.
#[rustfmt::skip]
const ONLY_VARIES: &[&str] = &[
    "clock_timestamp", "gen_random_uuid", "pg_sleep", "pg_sleep_for", "pg_sleep_until", "random", "random_normal",
    "timeofday", "uuidv4", "uuidv7",
];

/// Symbols of functions that run a query given as text, of extensions that come with PostgreSQL. Their label is
/// STABLE, and they are made again under other names for other types of rows.
const RUNS_TEXT: &[&str] = &["connectby_text", "connectby_text_serial", "crosstab", "crosstab_hash", "xpath_table"];

/// How a function of `pg_catalog` behaves beyond its volatility.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stable {
    Cacheable,
    Clock,
    SameEverywhere,
    /// Not listed: it may ask for the state of a server.
    ServerState,
}

pub(super) fn stable(name: &str, arguments: u16) -> Stable {
    match name {
        // age(x) counts from today.
        "age" if arguments == 1 => Stable::Clock,
        _ if listed(CACHEABLE_STABLE, name) => Stable::Cacheable,
        _ if listed(CLOCK, name) => Stable::Clock,
        _ if listed(SAME_EVERYWHERE, name) => Stable::SameEverywhere,
        _ => Stable::ServerState,
    }
}

pub(super) fn runs_queries(name: &str) -> bool {
    listed(RUNS_QUERIES, name)
}

pub(super) fn runs_text(symbol: &str) -> bool {
    listed(RUNS_TEXT, symbol)
}

pub(super) fn only_varies(name: &str) -> bool {
    listed(ONLY_VARIES, name)
}

pub(super) fn harmless_extension(name: &str) -> bool {
    listed(HARMLESS_EXTENSION, name)
}

/// What a function of `pg_catalog` leaves behind in the session.
pub(super) fn effects(name: &str) -> Effects {
    match name {
        "currval" | "lastval" => Effects::SEQUENCE_STATE,
        "nextval" | "setval" => Effects::NEXTVAL,
        "pg_advisory_unlock" | "pg_advisory_unlock_shared" | "pg_advisory_unlock_all" => Effects::RELEASE,
        "pg_advisory_lock" | "pg_advisory_lock_shared" | "pg_try_advisory_lock" | "pg_try_advisory_lock_shared" => {
            Effects::ADVISORY_LOCK
        }
        "setseed" => Effects::SET_PARAMETER,
        // Of a call that a statement writes itself more is known.
        "set_config" => Effects::OPAQUE,
        "pg_create_logical_replication_slot"
        | "pg_create_physical_replication_slot"
        | "pg_copy_logical_replication_slot"
        | "pg_copy_physical_replication_slot"
        | "pg_replication_origin_session_setup"
        | "pg_backup_start"
        | "pg_start_backup" => Effects::OPAQUE,
        _ => Effects::default(),
    }
}

/// Functions that change definitions or server settings by themselves.
pub(super) fn changes_catalog(name: &str) -> bool {
    matches!(name, "pg_import_system_collations" | "pg_reload_conf" | "pg_extension_config_dump")
        || name.starts_with("binary_upgrade_")
}

/// Functions of an extension that write through a connection of their own, where no lock tells of it.
pub(super) fn writes_elsewhere(name: &str) -> bool {
    name.starts_with("dblink")
}

/// Types whose text form hangs on the clock.
pub(super) fn is_clock_type(name: &str) -> bool {
    name == "timetz" || name == "_timetz"
}

/// Types whose text form hangs on the catalog. Text search configurations are left out: they change by DDL
/// only, and appear as arguments.
pub(super) fn is_catalog_type(name: &str) -> bool {
    matches!(
        name,
        "aclitem"
            | "regclass"
            | "regcollation"
            | "regnamespace"
            | "regoper"
            | "regoperator"
            | "regproc"
            | "regprocedure"
            | "regrole"
            | "regtype"
            | "regdatabase"
    )
}

fn listed(list: &[&str], name: &str) -> bool {
    list.binary_search(&name).is_ok()
}

#[cfg(test)]
pub(super) fn lists() -> [&'static [&'static str]; 7] {
    [CACHEABLE_STABLE, CLOCK, SAME_EVERYWHERE, RUNS_QUERIES, HARMLESS_EXTENSION, ONLY_VARIES, RUNS_TEXT]
}
