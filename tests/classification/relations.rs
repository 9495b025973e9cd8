//! Relations of every kind, row locks, and what hides behind a name.

use super::Row;

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    // Views
    ("select * from v_users", "read", "read", "users v_users"),
    ("select * from v_orders", "read", "read", "orders users v_orders v_users"),
    ("select * from v_now", "read", "read", "orders v_now"),
    ("select * from chain", "read", "read", "chain users"),
    ("select count(*) from totals", "read", "read", "totals"),
    ("select * from v_next", "primary", "volatile_function", "v_next"),
    ("select id from v_random", "primary", "volatile_function", "users v_random"),
    ("select * from v_log", "primary", "volatile_function", "users v_log"),
    ("select * from v_sneaky", "primary", "mislabelled_function", "v_sneaky"),
    ("select * from v_scratch", "primary", "temp_or_unlogged", "scratch users v_scratch"),
    ("select * from v_lock", "primary", "row_lock", "users v_lock"),
    ("select * from v_stats", "primary", "system_relation", "pg_catalog.pg_stat_activity v_stats"),
    ("select * from v_setting", "primary", "server_state", "v_setting"),
    ("select * from v_accounts", "primary", "unseen_code", "accounts v_accounts"),
    ("select 1 from v_users, v_random", "primary", "volatile_function", "users v_random v_users"),
    ("select (select n from v_next)", "primary", "volatile_function", "v_next"),

    // Inheritance and partitions
    ("select name from cities", "read", "read", "cities"),
    ("select name from only cities", "read", "read", "cities"),
    ("select * from capitals", "read", "read", "capitals"),
    ("select * from measurement where logdate = '2024-05-01'", "read", "read", "measurement"),
    ("select * from measurement_2024", "read", "read", "measurement_2024"),
    ("select * from half_logged", "primary", "temp_or_unlogged", "half_logged"),
    ("select tableoid::regclass, name from cities", "read", "read", "cities"),
    ("select ctid, xmin, xmax from users", "read", "read", "users"),

    // What replicas do not have
    ("select * from scratch", "primary", "temp_or_unlogged", "scratch"),
    ("select * from users where id in (select a from scratch)", "primary", "temp_or_unlogged", "scratch users"),
    ("copy scratch to stdout", "primary", "temp_or_unlogged", "scratch"),
    ("explain select * from scratch", "primary", "temp_or_unlogged", "scratch"),
    ("select * from remote", "primary", "temp_or_unlogged", "remote"),
    ("table ids", "primary", "temp_or_unlogged", "ids"),
    ("select * from pg_temp.users", "primary", "unresolved", ""),
    ("select * from no_such_table", "primary", "unresolved", ""),
    ("select * from users, no_such_table", "primary", "unresolved", "users"),
    ("select * from nowhere.users", "primary", "unresolved", ""),
    ("select * from \"Users\"", "primary", "unresolved", ""),
    ("select * from elsewhere.public.users", "primary", "unparsed", "users"),

    // Row security
    ("select * from secrets", "read", "read", "secrets"),
    ("select * from tenants", "primary", "server_state", "tenants"),

    // Catalogs and views of server state
    ("select * from pg_class", "primary", "system_relation", "pg_catalog.pg_class"),
    ("select relname from pg_catalog.pg_class c join pg_namespace n on n.oid = c.relnamespace", "primary", "system_relation", "pg_catalog.pg_class pg_catalog.pg_namespace"),
    ("select * from information_schema.tables", "primary", "system_relation", "information_schema.tables"),
    ("select count(*) from users, pg_type", "primary", "system_relation", "pg_catalog.pg_type users"),
    ("select * from pg_stat_activity", "primary", "system_relation", "pg_catalog.pg_stat_activity"),
    ("select * from pg_stat_replication", "primary", "system_relation", "pg_catalog.pg_stat_replication"),
    ("select * from pg_stat_user_tables", "primary", "system_relation", "pg_catalog.pg_stat_user_tables"),
    ("select * from pg_locks", "primary", "system_relation", "pg_catalog.pg_locks"),
    ("select * from pg_settings where name = 'work_mem'", "primary", "system_relation", "pg_catalog.pg_settings"),
    ("select * from pg_prepared_xacts", "primary", "system_relation", "pg_catalog.pg_prepared_xacts"),
    ("select * from pg_prepared_statements, pg_cursors", "primary", "system_relation", "pg_catalog.pg_cursors pg_catalog.pg_prepared_statements"),
    ("select * from pg_timezone_names", "primary", "system_relation", "pg_catalog.pg_timezone_names"),
    ("table pg_roles", "primary", "system_relation", "pg_catalog.pg_roles"),
    ("copy pg_attribute to stdout", "primary", "system_relation", "pg_catalog.pg_attribute"),

    // Row locks, at any depth
    ("select * from users for update", "primary", "row_lock", "users"),
    ("select * from users for no key update", "primary", "row_lock", "users"),
    ("select * from users for share", "primary", "row_lock", "users"),
    ("select * from users for key share", "primary", "row_lock", "users"),
    ("select * from users for update nowait", "primary", "row_lock", "users"),
    ("select * from users limit 1 for update skip locked", "primary", "row_lock", "users"),
    ("select * from users u join orders o on o.user_id = u.id for update of u for share of o", "primary", "row_lock", "orders users"),
    ("select * from (select * from users for update) x", "primary", "row_lock", "users"),
    ("select * from users where id in (select user_id from orders for share)", "primary", "row_lock", "orders users"),
    ("with x as (select * from users for update) select * from x", "primary", "row_lock", "users"),
    ("select * from docs, lateral (select * from users for update) x", "primary", "row_lock", "docs users"),
    ("(select id from users for update) union all select id from docs", "primary", "row_lock", "docs users"),
    ("select array(select id from users for key share)", "primary", "row_lock", "users"),
    ("(table users for update)", "primary", "row_lock", "users"),
    ("copy (select * from users for update) to stdout", "primary", "row_lock", "users"),
    ("explain select * from users for update", "primary", "row_lock", "users"),
    ("explain analyze select * from users for update", "primary", "row_lock", "users"),
    ("lock table users", "primary", "row_lock", "users"),
    ("lock users, orders in share mode nowait", "primary", "row_lock", "orders users"),

    // Names that mislead
    ("select 'insert into users' as \"delete\", \"update\" from (select 1 as \"update\") \"table\"", "read", "read", ""),
    ("select * from users /* for update */ -- ; delete from users", "read", "read", "users"),
    ("select $$ for update $$, 'nextval(''ids'')'", "read", "read", ""),
    ("-- delete\nselect 1", "read", "read", ""),
    ("/* insert /* nested */ into */ select id from users", "read", "read", "users"),
    ("select e'\\'; delete from users; --'", "read", "read", ""),
    ("explain (analyze) (select 1)", "read", "read", ""),
];
