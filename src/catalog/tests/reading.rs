use super::*;

#[test]
fn reads_go_where_their_functions_and_relations_allow() {
    let shop = shop();
    check(
        &[
            ("select * from users where id = 1", "read"),
            ("SELECT * FROM public.users", "read"),
            ("(select 1 from users)", "read"),
            ("/* c */ select 1", "read"),
            ("with a as (select * from users) select * from a", "read"),
            ("values (1), (2)", "read"),
            ("table users", "read"),
            ("select * from users u join orders o using (id) left join items i on true", "read"),
            ("select (select count(*) from orders) from users", "read"),
            ("select * from active_users", "read"),
            ("select * from recent", "read"),
            ("select now(), current_date, current_user", "read"),
            ("select lower('A'), 1 + 1, 'a' || 'b'", "read"),
            ("select plus_one(1), looks_up(1)", "read"),
            ("select has_table_privilege('a', 'b')", "read"),
            ("select * from totals", "read"),
            ("select * from events", "read"),
            ("select row_number() over (partition by id order by name) from users", "read"),
            ("select percentile_cont(0.5) within group (order by id) from users", "read"),
            ("explain select * from users", "read"),
            ("explain (costs off) select * from users", "read"),
            ("explain analyze select * from users", "read"),
            ("copy users to stdout", "read"),
            ("copy (select * from users) to stdout", "read"),
            ("select id::text, '1'::int, id::mood from users", "read"),
            ("select random()", "volatile_function"),
            ("select clock_timestamp()", "volatile_function"),
            ("select gen_random_uuid()", "volatile_function"),
            ("select uuid_generate_v4()", "volatile_function"),
            ("select pg_sleep(1)", "volatile_function"),
            ("select nextval('ids')", "volatile_function"),
            ("select pg_notify('a', 'b')", "volatile_function"),
            ("select pg_is_in_recovery()", "volatile_function"),
            ("select charge(1)", "volatile_function"),
            ("select * from charge(1)", "volatile_function"),
            ("select pure()", "volatile_function"),
            ("select (select charge(id)) from users", "volatile_function"),
            ("select * from users order by charge(id)", "volatile_function"),
            ("select count(*) filter (where charge(id) > 0) from users", "volatile_function"),
            ("select * from users u, lateral (select charge(u.id)) x", "volatile_function"),
            ("select * from hidden_write", "volatile_function"),
            ("select u.row_charge from users u", "volatile_function"),
            ("select (u).row_charge from users u", "volatile_function"),
            ("select many(id) from users", "volatile_function"),
            ("select current_setting('x')", "server_state"),
            ("select pg_backend_pid()", "server_state"),
            ("select inet_server_addr()", "server_state"),
            ("select txid_current()", "server_state"),
            ("copy users to '/tmp/x'", "server_state"),
            ("copy users to program 'cat'", "server_state"),
            ("select * from users for update", "row_lock"),
            ("select * from (select * from users for share) x", "row_lock"),
            ("with a as (select * from users for no key update) select * from a", "row_lock"),
            ("select * from locking", "row_lock"),
            ("lock table users", "row_lock"),
            ("select * from pg_stat_activity", "system_relation"),
            ("select * from pg_class", "system_relation"),
            ("select * from pg_catalog.pg_class", "system_relation"),
            ("select * from information_schema.tables", "system_relation"),
            ("select * from stats_view", "system_relation"),
            ("select * from cache_table", "temp_or_unlogged"),
            ("select * from remote", "temp_or_unlogged"),
            ("select * from ids", "temp_or_unlogged"),
            ("select * from nowhere", "unresolved"),
            ("select * from nowhere.users", "unresolved"),
            ("select unheard_of(1, 2)", "unresolved"),
            ("select 1::unheard_of", "unresolved"),
            ("selec 1", "unparsed"),
            ("select 'open", "unparsed"),
            ("select * from other.public.users", "unparsed"),
        ],
        |sql| shop.access(sql).into(),
    );
}

#[test]
fn an_answer_is_kept_only_if_everything_it_hangs_on_is_known() {
    let shop = shop();
    check(
        &[
            ("select * from users where id = 1", "users"),
            ("select * from users u join orders o using (id)", "orders users"),
            ("select * from users where id in (select id from orders where true)", "orders users"),
            ("with users as (select 1 as a) select * from users, orders", "orders"),
            ("with a as (select * from a_table_of_no_one) select 1 from users", "! unresolved"),
            ("with recursive t as (select 1 as n union select n + 1 from t) select * from t, users", "users"),
            (
                "with t as (select * from users) select * from (with t as (select * from orders) select * from t) x",
                "orders users",
            ),
            ("select 1 from users union all select 1 from orders", "orders users"),
            ("select * from active_users", "active_users users"),
            ("select * from events", "events"),
            ("select * from totals", "totals"),
            ("select * from tenant.users", "tenant.users"),
            ("table items", "items"),
            ("select count(*), max(id), json_agg(id) from users", "users"),
            ("select date_trunc('day', created) from users", "users"),
            ("select extract(year from created) from users", "users"),
            ("select created at time zone 'UTC' from users", "users"),
            ("select to_char(created, 'YYYY') from users", "users"),
            ("select age(a, b) from users", "users"),
            ("select plus_one(id) from users", "users"),
            ("select counted(id) from users", "orders users"),
            ("select created::date, id::text, 'english'::regconfig from users", "users"),
            ("select (data ->> 'at')::timestamptz from users", "users"),
            ("select coalesce(a, b)::date from users", "users"),
            ("select id::mood from users", "users"),
            ("select * from users where name = 'snow' or name = 'I know'", "users"),
            ("select * from users, generate_series(1, 3)", "users"),
            ("select tableoid from users", "users"),
            ("select 1", "! no_relation"),
            ("select lower('A')", "! no_relation"),
            ("values (1)", "! no_relation"),
            ("select now() from users", "! clock"),
            ("select current_date from users", "! clock"),
            ("select * from users where at > localtimestamp", "! clock"),
            ("select age(created) from users", "! clock"),
            ("select * from users where at = 'now'", "! clock"),
            ("select * from users where at >= 'Today'::date", "! clock"),
            ("select * from users where at < timestamp 'tomorrow 12:00'", "! clock"),
            ("select * from users where at = $$yesterday$$", "! clock"),
            ("select * from users where at = E'n\\ow'", "! clock"),
            ("select * from users where at = E'\\x6eow'", "! clock"),
            ("select * from users where at = U&'\\006eow'", "! clock"),
            ("select * from users where at = 'no'\n'w'", "! clock"),
            ("select * from users where at = any ('{now,infinity}')", "! clock"),
            ("select ('n' || 'ow')::timestamptz from users", "! clock"),
            ("select lower(name)::text::timestamptz from users", "! clock"),
            ("select '12:00'::timetz from users", "! clock"),
            ("select * from recent", "! clock"),
            ("select * from dated", "! clock"),
            ("select current_user from users", "! session_state"),
            ("select current_schema from users", "! session_state"),
            ("select current_schemas(true) from users", "! session_state"),
            ("select has_table_privilege('a', 'b') from users", "! session_state"),
            ("select pg_typeof(id) from users", "! session_state"),
            ("select to_regclass('users') from users", "! session_state"),
            ("select current_setting('TimeZone') from users", "! server_state"),
            ("select random() from users", "! volatile_function"),
            ("select charge(1) from users", "! volatile_function"),
            ("select uuid_generate_v4() from users", "! volatile_function"),
            ("select pure() from users", "! volatile_function"),
            ("select looks_up(id) from users", "! stable_function"),
            ("select guess(id) from users", "! user_function"),
            ("select many(id) from users", "! user_function"),
            ("select * from pg_class, users", "! system_relation"),
            ("select * from cache_table", "! untracked_relation"),
            ("select * from remote", "! untracked_relation"),
            ("select * from ids", "! untracked_relation"),
            ("select * from secrets", "! row_security"),
            ("select ctid from users", "! system_column"),
            ("select users.xmin from users", "! system_column"),
            ("select * from users tablesample system (10)", "! sample"),
            ("select * from typed", "! unstable_type"),
            ("select id::regclass from users", "! unstable_type"),
            ("select * from nowhere", "! unresolved"),
            ("select * from users for update", "! row_lock"),
            ("select * from users; select * from users", "! multi_statement"),
            ("explain select * from users", "! not_a_read"),
            ("explain analyze select * from users", "! not_a_read"),
            ("copy users to stdout", "! not_a_read"),
            ("show all", "! not_a_read"),
            ("declare c cursor for select * from users", "! not_a_read"),
            ("fetch c", "! not_a_read"),
            ("select * into x from users", "! not_a_read"),
            ("with a as (delete from users returning *) select * from a", "! not_a_read"),
            ("", "! not_a_read"),
            ("selec 1", "! unparsed"),
        ],
        |sql| shop.cache(sql),
    );
}

#[test]
fn names_follow_the_search_path_of_the_user() {
    let mut rows = Builder::new();
    rows.table("users");
    rows.table("orders");
    rows.table_in(world::TENANT, "users");
    rows.rows.role_search_paths.push(("reporter".into(), "tenant, \"$user\"".into()));
    rows.rows.schemas[2].users = vec![world::APP, 18_002, 18_003];
    let world = rows.build();
    let cache_of = |user: &str, sql: &str| match &world.snapshot.meaning(&world.statement(sql), user).cacheable {
        Ok(relations) => world.names(relations),
        Err(bypass) => bypass.label().into(),
    };
    assert_eq!(cache_of("app", "select * from users"), "users");
    assert_eq!(cache_of("tenant", "select * from users"), "tenant.users", "\"$user\" is a schema");
    assert_eq!(cache_of("tenant", "select * from orders"), "orders");
    assert_eq!(cache_of("reporter", "select * from users"), "tenant.users");
    assert_eq!(cache_of("reporter", "select * from orders"), "unresolved");
    assert_eq!(cache_of("outsider", "select * from users"), "unresolved");
}

#[test]
fn without_a_known_search_path_a_name_stands_for_every_object_of_that_name() {
    let shop = shop();
    let meaning = |sql: &str| shop.snapshot.meaning_anywhere(&shop.statement(sql));
    let update = meaning("update users set name = 'x'");
    assert_eq!(shop.describe(&update.writes), "! locks", "there are two, and the lock tells which");
    let qualified = meaning("update public.users set name = 'x'");
    assert_eq!(shop.describe(&qualified.writes), "users");
    let read = meaning("select * from users");
    assert_eq!((read.access, read.reason), (Access::Primary, AccessReason::Unresolved));
    assert_eq!(read.writes, Writes::None);
    assert_eq!(shop.describe(&meaning("insert into orders values (1)").writes), "orders");
}

#[test]
fn a_temporary_object_may_hide_behind_any_name_without_a_schema() {
    let shop = shop();
    let writes = |sql: &str| shop.describe(&shop.snapshot.meaning_shadowed(&shop.statement(sql)).writes);
    assert_eq!(writes("update orders set a = 1"), "! locks", "it may be a temporary view over another table");
    assert_eq!(writes("select * from orders"), "! locks");
    assert_eq!(writes("update public.orders set a = 1"), "orders");
    assert_eq!(writes("select lower('a')"), "nothing");
    assert_eq!(shop.snapshot.meaning_shadowed(&shop.statement("select * from orders")).access, Access::Primary);
}

#[test]
fn letters_that_the_server_folds_by_its_own_rules_are_not_resolved() {
    let mut latin1 = Builder::new();
    latin1.rows.utf8 = false;
    latin1.table("Ärger");
    latin1.table("plain");
    let latin1 = latin1.build();
    assert_eq!(latin1.cache("select * from Ärger"), "! unresolved");
    assert_eq!(latin1.cache("select * from plain"), "plain");
}

#[test]
fn code_that_applies_unseen_is_trusted_only_if_it_is_immutable() {
    let mut rows = Builder::new();
    rows.table("users");
    let equals = rows.function("my_equals", 'v', "plpgsql", 2).oid;
    rows.rows.operators.push(OperatorRow {
        name: "=".into(),
        schema: world::PUBLIC,
        function: equals,
        types: vec![25, 25],
    });
    let world = rows.build();
    assert_eq!(world.cache("select * from users order by 1"), "! user_operator");
    assert_eq!(world.access("select * from users where a = 1"), "volatile_function");
}

#[test]
fn partitions_kept_elsewhere_make_the_whole_table_untracked() {
    let mut rows = Builder::new();
    let parent = rows.relation("measurements", 'p').oid;
    let child = rows.relation("far_away", 'f').oid;
    rows.rows.inheritance.push((child, parent));
    let world = rows.build();
    assert_eq!(world.cache("select * from measurements"), "! untracked_relation");
    assert_eq!(world.access("select * from measurements"), "temp_or_unlogged");
}

#[test]
fn views_over_views_hang_on_all_of_them() {
    let mut rows = Builder::new();
    let base = rows.table("base");
    let inner = rows.view("inner_view", &format!(":relid {base}"));
    rows.view("outer_view", &format!(":relid {inner}"));
    rows.view("of_columns", &format!(":relid {base} {{VAR :varno 1 :varattno -1 :vartype 27}}"));
    rows.view("of_types", &format!(":relid {base} {{FUNCEXPR :funcresulttype 2205}}"));
    let world = rows.build();
    assert_eq!(world.cache("select * from outer_view"), "base inner_view outer_view");
    assert_eq!(world.cache("select * from of_columns"), "! system_column");
    assert_eq!(world.cache("select * from of_types"), "! unstable_type");
}

#[test]
fn a_function_is_judged_by_all_that_its_name_may_mean() {
    let mut rows = Builder::new();
    rows.table("users");
    rows.function("lower", 'v', "plpgsql", 1);
    rows.function("upper", 'v', "plpgsql", 2);
    let world = rows.build();
    assert_eq!(world.access("select lower(name) from users"), "volatile_function");
    assert_eq!(world.access("select pg_catalog.lower(name) from users"), "read");
    assert_eq!(world.access("select upper(name) from users"), "read", "the other takes two arguments");
}
