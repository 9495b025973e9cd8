use super::{world::Builder, *};

#[test]
fn a_statement_leaves_these_effects_in_its_session() {
    let shop = shop();
    check(
        &[
            ("select 1", ""),
            ("set timezone = 'UTC'", ""),
            ("set time zone 'UTC'", ""),
            ("set names 'utf8'", ""),
            ("set client_encoding to 'utf8'", ""),
            ("set DateStyle = iso", ""),
            ("set application_name = 'x'", ""),
            ("reset application_name", "reset"),
            ("set search_path = a, b", "set_parameter"),
            ("set schema 'a'", "set_parameter"),
            ("set statement_timeout = 100", "set_parameter"),
            ("set role x", "set_parameter"),
            ("set session authorization x", "set_parameter"),
            ("set session characteristics as transaction read only", "set_parameter"),
            ("set local statement_timeout = 100", "local_setting"),
            ("set local search_path = a", "local_setting local_names"),
            ("set local role x", "local_setting local_names"),
            ("set transaction read only", ""),
            ("set transaction_isolation = 'serializable'", ""),
            ("set statement_timeout to default", "release reset"),
            ("reset statement_timeout", "release reset"),
            ("reset all", "release reset"),
            ("reset role", "release reset"),
            ("select set_config('a.b', 'c', false)", "set_parameter"),
            ("select set_config('a.b', 'c', 't')", "set_parameter"),
            ("select set_config($1, $2, $3)", "set_parameter"),
            ("select set_config('timezone', 'UTC', false)", ""),
            ("select set_config('a.b', 'c', true)", "local_setting"),
            ("select set_config('search_path', 'c', true)", "local_setting local_names"),
            ("select set_config($1, 'c', true)", "local_setting local_names"),
            ("listen x", "listen"),
            ("unlisten *", "release"),
            ("notify x", ""),
            ("create temp table t (a int)", "temp"),
            ("create temporary view t as select 1", "temp"),
            ("create table pg_temp.t (a int)", "temp"),
            ("create temp sequence s", "temp"),
            ("select 1 as a into temp t", "temp"),
            ("drop table t", "release"),
            ("prepare p as select 1", "sql_prepare"),
            ("execute p", "opaque"),
            ("deallocate p", "release"),
            ("deallocate all", "release"),
            ("declare c cursor with hold for select 1", "hold_cursor"),
            ("declare c cursor for select 1", ""),
            ("close c", "release"),
            ("discard all", "release reset"),
            ("discard temp", "release"),
            ("load 'x'", "load"),
            ("do $$ begin end $$", "opaque"),
            ("call charge(1)", "opaque"),
            ("select charge(1)", "opaque"),
            ("select pure()", ""),
            ("select pg_advisory_lock(1)", "advisory_lock"),
            ("select pg_advisory_xact_lock(1)", ""),
            ("select pg_advisory_unlock_all()", "release"),
            ("select currval('ids')", "sequence_state"),
            ("select lastval()", "sequence_state"),
            ("select nextval('ids')", "nextval"),
            ("select setseed(0.5)", "set_parameter"),
            ("select random()", ""),
            ("listen a; create temp table t (a int)", "listen temp"),
            ("gibberish", "opaque"),
        ],
        |sql| shop.effects(sql),
    );
}

#[test]
fn definitions_change_with_ddl_and_privileges() {
    let shop = shop();
    check(
        &[
            ("create table x (a int)", "true"),
            ("alter table users add column x int", "true"),
            ("create or replace view v as select 1", "true"),
            ("create function f() returns int language sql as 'select 1'", "true"),
            ("drop view active_users", "true"),
            ("grant select on users to x", "true"),
            ("revoke all on users from x", "true"),
            ("alter role x set search_path = y", "true"),
            ("alter system set work_mem = '1MB'", "true"),
            ("create extension x", "true"),
            ("select 1 as a into x", "true"),
            ("select pg_reload_conf()", "true"),
            ("create temp table x (a int)", "false"),
            ("create index on users (id)", "false"),
            ("truncate users", "false"),
            ("refresh materialized view totals", "false"),
            ("comment on table users is 'x'", "false"),
            ("vacuum full users", "false"),
            ("insert into users values (1)", "false"),
            ("select charge(1)", "false"),
        ],
        |sql| shop.meaning(sql).catalog_change.to_string(),
    );
}

#[test]
fn one_statement_runs_in_one_transaction_unless_it_may_end_it() {
    let shop = shop();
    check(
        &[
            ("select 1", "atomic wrappable"),
            ("insert into users values (1)", "atomic wrappable"),
            ("truncate users", "atomic wrappable"),
            ("create table x (a int)", "atomic wrappable"),
            ("alter table users add column x int", "atomic wrappable"),
            ("refresh materialized view totals", "atomic wrappable"),
            ("execute p", "atomic wrappable"),
            ("copy users from stdin", "atomic"),
            ("select 1; select 2", "atomic"),
            ("insert into users values (1); insert into users values (2)", "atomic"),
            ("set search_path = x", "atomic"),
            ("call charge(1)", ""),
            ("do $$ begin end $$", ""),
            ("vacuum users", ""),
            ("create database x", ""),
            ("create index concurrently on users (id)", ""),
            ("drop index concurrently i", ""),
            ("alter table events detach partition events_2024 concurrently", ""),
            ("alter system set work_mem = '1MB'", ""),
            ("begin", ""),
            ("begin; insert into users values (1); commit", ""),
            ("commit", ""),
            ("discard all", ""),
            ("gibberish", ""),
            ("select unbalanced((", "atomic wrappable"),
        ],
        |sql| {
            let meaning = shop.meaning(sql);
            let words = [(meaning.atomic, "atomic"), (meaning.wrappable, "wrappable")];
            words.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect::<Vec<_>>().join(" ")
        },
    );
}

#[test]
fn statements_that_only_ask_are_told_from_those_that_leave_traces() {
    let shop = shop();
    check(
        &[
            ("select * from users", "true"),
            ("select * from pg_class", "true"),
            ("show all", "true"),
            ("explain delete from users", "true"),
            ("", "true"),
            ("select 1; select 2", "true"),
            ("explain analyze delete from users", "false"),
            ("select nextval('ids')", "false"),
            ("select * from users for update", "false"),
            ("select charge(1)", "false"),
            ("select pg_advisory_lock(1)", "false"),
            ("insert into users values (1)", "false"),
            ("with a as (delete from users returning 1) select * from a", "false"),
            ("set search_path = x", "false"),
            ("select 1; delete from users", "false"),
        ],
        |sql| shop.meaning(sql).is_query_only.to_string(),
    );
}

#[test]
fn transaction_control_is_listed_in_order() {
    let shop = shop();
    let begin = |read_only, isolation| TransactionControl::Begin { read_only, isolation, deferrable: false };
    let rows: Vec<(&str, Vec<TransactionControl>)> = vec![
        ("begin", vec![begin(None, None)]),
        ("start transaction read only", vec![begin(Some(true), None)]),
        ("begin isolation level serializable read write", vec![begin(Some(false), Some(Isolation::Serializable))]),
        ("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ", vec![begin(None, Some(Isolation::RepeatableRead))]),
        ("commit", vec![TransactionControl::Commit { chain: false }]),
        ("end and chain", vec![TransactionControl::Commit { chain: true }]),
        ("abort", vec![TransactionControl::Rollback { chain: false }]),
        ("savepoint a", vec![TransactionControl::Savepoint]),
        ("rollback to a", vec![TransactionControl::RollbackToSavepoint]),
        ("release a", vec![TransactionControl::ReleaseSavepoint]),
        ("prepare transaction 'x'", vec![TransactionControl::PrepareTransaction("x".into())]),
        ("commit prepared 'x'", vec![TransactionControl::CommitPrepared("x".into())]),
        ("commit prepared 'y'", vec![TransactionControl::CommitPrepared("y".into())]),
        ("rollback prepared 'x'", vec![TransactionControl::RollbackPrepared("x".into())]),
        (
            "set transaction isolation level read committed, read only",
            vec![TransactionControl::SetTransaction {
                read_only: Some(true),
                isolation: Some(Isolation::ReadCommitted),
            }],
        ),
        (
            "set transaction_read_only = off",
            vec![TransactionControl::SetTransaction { read_only: Some(false), isolation: None }],
        ),
        ("begin; select 1; commit", vec![begin(None, None), TransactionControl::Commit { chain: false }]),
        ("select 1", vec![]),
    ];
    for (sql, expected) in rows {
        assert_eq!(*shop.meaning(sql).transaction, *expected, "{sql}");
    }
}

#[test]
fn several_statements_are_read_by_a_replica_only_if_all_are_plain_reads() {
    let shop = shop();
    check(
        &[
            ("select 1; select * from users", "read"),
            ("select 1;", "read"),
            ("select 1; insert into users values (1)", "multi_statement"),
            ("begin; select 1; commit", "multi_statement"),
            ("select 1; select random()", "multi_statement"),
            ("set timezone = 'UTC'; select 1", "multi_statement"),
        ],
        |sql| shop.access(sql).into(),
    );
}

#[test]
fn utility_statements_stay_on_the_primary_or_with_their_transaction() {
    let shop = shop();
    check(
        &[
            ("show transaction_read_only", "session_state"),
            ("set search_path = x", "session_state"),
            ("set timezone = 'UTC'", "session_state"),
            ("listen x", "session_state"),
            ("set local search_path = x", "read"),
            ("fetch 10 from c", "read"),
            ("move c", "read"),
            ("close c", "read"),
            ("declare c cursor for select * from users", "read"),
            ("declare c cursor with hold for select * from users", "session_state"),
            ("declare c cursor for select charge(1)", "volatile_function"),
            ("begin read only", "transaction_control"),
            ("savepoint a", "transaction_control"),
            ("vacuum", "utility"),
            ("notify x", "utility"),
            ("checkpoint", "utility"),
            ("call charge(1)", "utility"),
            ("execute p", "utility"),
            ("insert into users values (1)", "write"),
            ("explain insert into users values (1)", "write"),
            ("explain execute p", "utility"),
            ("with a as (update users set a = 1 returning 1) select 1", "write"),
            ("copy users from stdin", "write"),
            ("create table x (a int)", "write"),
            ("grant select on users to x", "write"),
            ("refresh materialized view totals", "write"),
            ("select 1 as a into x", "write"),
            ("", "utility"),
            (";", "utility"),
            ("-- nothing", "utility"),
        ],
        |sql| shop.access(sql).into(),
    );
}

#[test]
fn without_a_catalog_every_name_may_hide_a_write() {
    let shop = shop();
    check(
        &[
            ("select 1", "nothing"),
            ("select lower('a')", "! locks"),
            ("select * from users", "! locks"),
            ("delete from users", "! locks"),
            ("drop table users", "! database"),
            ("begin", "nothing"),
            ("set search_path = x", "nothing"),
        ],
        |sql| shop.describe(&meaning_without_catalog(&shop.statement(sql)).writes),
    );
    let read = meaning_without_catalog(&shop.statement("select * from users"));
    assert_eq!((read.access, read.reason), (Access::Primary, AccessReason::CatalogNotLoaded));
    assert_eq!(read.cacheable, Err(Bypass::CatalogNotLoaded));
}

#[test]
fn a_meaning_is_worked_out_once_for_all_users_with_the_same_names() {
    let shop = shop();
    let statement = shop.statement("select * from users where id = 1");
    let first = shop.snapshot.meaning(&statement, "app");
    let second = shop.snapshot.meaning(&shop.statement("select * from users where id = 22"), "reporter");
    assert!(std::sync::Arc::ptr_eq(&first, &second));
    let tenant = shop.snapshot.meaning(&statement, "tenant");
    assert_eq!(shop.names(tenant.cacheable.as_ref().unwrap()), "tenant.users");
}

#[test]
fn labels_are_fit_for_metrics() {
    let fit = |label: &str| label.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    assert!(fit(AccessReason::NotReplicated.label()) && fit(Bypass::UntrackedRelation.label()));
    assert!((Effects::LISTEN | Effects::TEMP).iter().all(|effect| fit(effect.label())));
    assert_eq!(format!("{:?}", Effects::LISTEN | Effects::TEMP), r#"{"listen", "temp"}"#);
}

#[test]
fn a_call_of_set_config_that_the_statement_does_not_write_may_set_anything() {
    let mut rows = Builder::new();
    let table = rows.table("t");
    let set_config = rows.builtin("set_config");
    let call = format!("{{FUNCEXPR :funcid {set_config}}}");
    rows.view("setting", &format!("{{RTE :relid {table}}} {call}"));
    rows.function("atomic", 's', "sql", 0).body = Some(call);
    rows.function("pretends", 's', "plpgsql", 0).source =
        Some("BEGIN PERFORM set_config('a.b', 'c', false); RETURN 1; END".into());
    let world = rows.build();
    check(
        &[
            ("select * from setting", "opaque"),
            ("select set_config('timezone', 'UTC', false), * from setting", "opaque"),
            ("select atomic()", "opaque"),
            ("select pretends()", "opaque"),
        ],
        |sql| world.effects(sql),
    );
}
