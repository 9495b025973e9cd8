//! A repeated read is answered from memory, and never with less than what was written before.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails loudly"
)]

mod support;

#[path = "cache/lifetimes.rs"]
mod lifetimes;
#[path = "cache/pipelines.rs"]
mod pipelines;

use support::{
    Proxy, RawClient, Reply, cluster,
    cluster::USER,
    frames::{
        bind, bind_as, close_portal, close_statement, copy_data, copy_done, describe_portal, execute, flush, parse,
        query, sync,
    },
    hits::{is_hit, mark, warm_up},
    wait_until,
};

/// A database behind a proxy that caches; its server logs every statement, so that hits can be told from misses.
fn cached(schema: &str) -> (Proxy, String) {
    let database = cluster().database();
    cluster().prepare(&database, schema);
    cluster().log_statements(&database);
    let proxy = Proxy::of(cluster(), &database).cached().start();
    (proxy, database)
}

const TABLE: &str = "create table t(id int primary key, v int); insert into t values (1, 0)";

/// After the write, the read answers what the server says; before, it was answered from memory.
#[track_caller]
fn check_void(schema: &str, read: &str, write: impl FnOnce(&mut RawClient)) {
    let (proxy, database) = cached(schema);
    let (mut reader, mut writer) = (proxy.session(&database), proxy.session(&database));
    let mark = mark();
    warm_up(&mut reader, read, &mark);
    let before = reader.query(&format!("{read} {mark}"));
    write(&mut writer);
    let after = reader.query(&format!("{read} {mark}"));
    let truth = RawClient::session(&cluster().primary.address(), USER, &database).query(read);
    assert_eq!(after.frames, truth.frames, "{read}");
    assert_ne!(after.frames, before.frames, "the write changes what is read");
    warm_up(&mut reader, read, &mark);
}

/// [`check_void`] for a write that is one simple query.
#[track_caller]
fn check_statement(schema: &str, read: &str, write: &str) {
    check_void(schema, read, |writer| succeed(&writer.query(write)));
}

#[track_caller]
fn succeed(reply: &Reply) {
    assert!(reply.error().is_none(), "{reply:?}");
}

#[test]
fn a_repeated_read_is_answered_without_the_server() {
    let (proxy, database) = cached(TABLE);
    let mut session = proxy.session(&database);
    let mark = mark();
    warm_up(&mut session, "select v from t", &mark);
    let hit = session.query(&format!("select v from t {mark}"));
    let direct = RawClient::session(&cluster().primary.address(), USER, &database).query("select v from t");
    assert_eq!(hit.frames, direct.frames, "a hit is what the server said, byte for byte");
    assert!(proxy.show("CACHE").number("database", &database, "hits") > 0);
}

#[test]
fn what_one_session_read_another_finds() {
    let (proxy, database) = cached(TABLE);
    let mark = mark();
    warm_up(&mut proxy.session(&database), "select v from t", &mark);
    assert!(is_hit(&mut proxy.session(&database), "select v from t", &mark));
}

#[test]
fn prepared_reads_are_cached_by_their_parameters_and_formats() {
    let (proxy, database) = cached(
        "create table t(id int primary key, v int); insert into t select i, i * 10 from generate_series(1, 9) i",
    );
    let mut session = proxy.session(&database);
    let mark = mark();
    session.prepare("s", &format!("select v from t where id = $1 {mark}"));
    let executions = || cluster().primary.executions(&mark);
    wait_until("a hit", || {
        let before = executions();
        assert_eq!(session.execute("s", &["3"]).rows(), [["30"]]);
        executions() == before
    });
    assert_eq!(session.execute("s", &["4"]).rows(), [["40"]]);
    let binary = [bind_as("", "s", &[Some("3")], true), execute("", 0), sync()].concat();
    let values = session.exchange(&binary).frames[1].values();
    assert_eq!(values, [Some(30_i32.to_be_bytes().to_vec())]);
}

/// What the server itself answers to the same messages.
fn truth(database: &str, prepared: &str, messages: &[u8]) -> String {
    let mut session = RawClient::session(&cluster().primary.address(), USER, database);
    session.prepare("s", prepared);
    let reply = session.exchange(messages);
    format!("{} {:?}", reply.shape(), reply.rows())
}

#[test]
fn a_limit_of_rows_is_answered_from_memory_only_if_it_is_above_their_number() {
    let schema =
        "create table t(id int primary key, v int); insert into t select i, i * 10 from generate_series(1, 3) i";
    let (proxy, database) = cached(schema);
    let mut session = proxy.session(&database);
    let mark = mark();
    let sql = format!("select v from t order by id {mark}");
    session.prepare("s", &sql);
    wait_until("a hit", || {
        let before = cluster().primary.executions(&mark);
        session.execute("s", &[]);
        cluster().primary.executions(&mark) == before
    });
    for (limit, is_from_memory) in [(0, true), (1, false), (2, false), (3, false), (4, true), (1000, true)] {
        let messages = [bind("s", &[]), execute("", limit), sync()].concat();
        let before = cluster().primary.executions(&mark);
        let reply = session.exchange(&messages);
        assert_eq!(cluster().primary.executions(&mark) == before, is_from_memory, "limit {limit}");
        assert_eq!(format!("{} {:?}", reply.shape(), reply.rows()), truth(&database, &sql, &messages), "limit {limit}");
    }
}

#[test]
fn an_answer_that_a_limit_left_whole_is_kept() {
    let (proxy, database) = cached(TABLE);
    let mut session = proxy.session(&database);
    let mark = mark();
    session.prepare("s", &format!("select v from t {mark}"));
    let limited = [bind("s", &[]), execute("", 5), sync()].concat();
    wait_until("a hit", || {
        let before = cluster().primary.executions(&mark);
        assert_eq!(session.exchange(&limited).rows(), [["0"]]);
        cluster().primary.executions(&mark) == before
    });
}

#[test]
fn statements_and_portals_that_a_driver_closes_in_front_of_a_read_do_not_keep_it_from_memory() {
    let (proxy, database) = cached(TABLE);
    let mut session = proxy.session(&database);
    let mark = mark();
    let read = format!("select v from t {mark}");
    let messages = |closed: &str| {
        let read = [parse("", &read), bind("", &[]), describe_portal(""), execute("", 0), sync()].concat();
        [close_statement(closed), close_portal("p"), read].concat()
    };
    wait_until("a hit", || {
        session.prepare("old", "select 1");
        let before = cluster().primary.executions(&mark);
        let reply = session.exchange(&messages("old"));
        assert_eq!(reply.shape(), "3312TDCZ", "{reply:?}");
        cluster().primary.executions(&mark) == before
    });
    assert_eq!(session.execute("old", &[]).sqlstate(), "26000", "it is closed");
}

#[test]
fn a_plain_write_voids() {
    for write in [
        "insert into t values (2, 2)",
        "update t set v = v + 1",
        "delete from t",
        "insert into t values (1, 9) on conflict (id) do update set v = excluded.v",
        "merge into t using (values (1, 8)) s(id, v) on t.id = s.id when matched then update set v = s.v",
        "with w as (update t set v = v + 1 returning id) select count(*) from w",
        "insert into t select id + 100, v from t",
        "truncate t",
        "select 1; update t set v = v + 1; select 2",
        "begin; update t set v = v + 1; commit",
        "begin; update t set v = v + 1; savepoint s; update t set v = -1; rollback to s; commit",
        "explain analyze update t set v = v + 1",
        "prepare w as update t set v = v + 1; execute w",
        "do $$ begin update t set v = v + 1; end $$",
    ] {
        check_statement(TABLE, "select id, v from t order by id", write);
    }
}

#[test]
fn a_write_of_the_extended_protocol_voids() {
    check_void(TABLE, "select v from t", |writer| succeed(&writer.extended("update t set v = $1::int", &["7"])));
    check_void(TABLE, "select v from t", |writer| {
        writer.prepare("w", "update t set v = v + 1");
        succeed(&writer.execute("w", &[]));
        succeed(&writer.execute("w", &[]));
    });
    check_void(TABLE, "select v from t", |writer| {
        let update = [parse("", "update t set v = v + 1"), bind("", &[]), execute("", 0)].concat();
        succeed(&writer.exchange(&[update.repeat(3), sync()].concat()));
    });
    check_void(TABLE, "select v from t", |writer| {
        for sql in ["begin", "update t set v = 5", "commit"] {
            succeed(&writer.extended(sql, &[]));
        }
    });
}

#[test]
fn a_copy_voids() {
    check_void(TABLE, "select count(*) from t", |writer| {
        writer.send(&query("copy t from stdin"));
        writer.until(b'G');
        succeed(&writer.exchange(&[copy_data(b"2\t2\n3\t3\n"), copy_done()].concat()));
    });
}

#[test]
fn a_function_or_procedure_that_writes_voids() {
    let schema = "
        create table t(id int primary key, v int); insert into t values (1, 0);
        create function bump() returns int language plpgsql as $$ begin update t set v = v + 1; return 1; end $$;
        create function dynamic() returns void language plpgsql as $$ begin execute 'truncate ' || 't'; end $$;
        create procedure stepwise() language plpgsql as $$ begin update t set v = v + 1; commit; update t set v = v + 1; end $$";
    for write in ["select bump()", "select * from bump()", "select dynamic()", "call stepwise()"] {
        check_statement(schema, "select v from t", write);
    }
    check_void(schema, "select v from t", |writer| succeed(&writer.extended("select bump()", &[])));
}

#[test]
fn a_trigger_that_writes_elsewhere_voids_that() {
    let schema = "
        create table t(id int primary key, v int); insert into t values (1, 0);
        create table audit(v int);
        create function note() returns trigger language plpgsql as $$ begin insert into audit values (new.v); return new; end $$;
        create trigger noting after insert or update on t for each row execute function note()";
    check_statement(schema, "select count(*) from audit", "update t set v = 1");
    check_void(schema, "select count(*) from audit", |writer| {
        succeed(&writer.extended("insert into t values (2, 2)", &[]))
    });
    let deferred = "
        create table t(id int primary key, v int); insert into t values (1, 0);
        create table audit(v int);
        create function note() returns trigger language plpgsql as $$ begin insert into audit values (new.v); return new; end $$;
        create constraint trigger noting after update on t deferrable initially deferred for each row execute function note()";
    check_statement(deferred, "select count(*) from audit", "update t set v = 1");
    check_statement(deferred, "select count(*) from audit", "begin; update t set v = 1; commit");
    check_void(deferred, "select count(*) from audit", |writer| {
        for sql in ["begin", "update t set v = 2", "commit"] {
            succeed(&writer.query(sql));
        }
    });
}

#[test]
fn a_foreign_key_that_cascades_voids_the_children() {
    let schema = "
        create table parent(id int primary key); insert into parent values (1), (2);
        create table child(id int primary key, parent int references parent on delete cascade on update cascade);
        insert into child values (1, 1), (2, 2);
        create table grandchild(id int primary key, child int references child on delete cascade);
        insert into grandchild values (1, 1), (2, 2);
        create table orphan(id int primary key, parent int references parent on delete set null);
        insert into orphan values (1, 1);
        create view face as select id from parent;
        create table whole(id int primary key, v int) partition by range (id);
        create table part partition of whole for values from (0) to (100);
        insert into whole values (1, 1), (2, 2);
        create table of_part(part int references part on update cascade);
        insert into of_part values (1);
        create table base(id int, v int);
        create table derived(primary key (id)) inherits (base);
        insert into derived values (1, 1);
        create table of_derived(derived int references derived on update set null);
        insert into of_derived values (1)";
    for (read, write) in [
        ("select id, parent from child order by id", "update parent set id = 10 where id = 2"),
        ("select count(*) from child", "delete from parent where id = 2"),
        ("select count(*) from grandchild", "delete from parent where id = 2"),
        ("select parent from orphan", "delete from parent where id = 1"),
        ("select count(*) from grandchild", "truncate parent cascade"),
        ("select id, parent from child order by id", "update face set id = 10 where id = 2"),
        ("select part from of_part", "update whole set id = 3 where id = 1"),
        ("select derived from of_derived", "update base set id = 3 where id = 1"),
    ] {
        check_statement(schema, read, write);
    }
}

#[test]
fn a_view_is_void_with_its_tables_and_a_table_with_its_views() {
    let schema = "
        create table t(id int primary key, v int); insert into t values (1, 0);
        create view one as select id, v from t;
        create view two as select sum(v) as total from one;
        create materialized view kept as select v from t;
        create view guarded as select v from t;
        create function instead() returns trigger language plpgsql as $$ begin update t set v = new.v; return new; end $$;
        create trigger instead instead of update on guarded for each row execute function instead()";
    for (read, write) in [
        ("select total from two", "update t set v = 5"),
        ("select v from t", "update one set v = 6"),
        ("select v from t", "update guarded set v = 7"),
        ("select total from two", "insert into one values (2, 2)"),
        ("select v from kept", "update t set v = 8; refresh materialized view kept"),
        ("select * from one", "create or replace view one as select id, v + 1 as v from t"),
    ] {
        check_statement(schema, read, write);
    }
}

#[test]
fn partitions_and_their_parents_void_each_other() {
    let schema = "
        create table p(id int, v int) partition by range (id);
        create table p1 partition of p for values from (0) to (100);
        create table p2 partition of p for values from (100) to (200) partition by range (id);
        create table p21 partition of p2 for values from (100) to (150);
        insert into p values (1, 1), (101, 101);
        create table a(id int, v int); create table b() inherits (a); insert into b values (1, 1);
        create table loose(id int, v int); insert into loose values (180, 1)";
    for (read, write) in [
        ("select v from p order by id", "update p1 set v = 2"),
        ("select v from p order by id", "update p21 set v = 2"),
        ("select v from p1", "update p set v = 2 where id = 1"),
        ("select v from p21", "update p set v = 2 where id = 101"),
        ("select v from p21", "update p2 set v = 2"),
        ("select count(*) from p21", "update p set id = 120 where id = 1"),
        ("select v from a", "update b set v = 2"),
        ("select v from b", "update a set v = 2"),
        ("select count(*) from p", "alter table p2 attach partition loose for values from (150) to (200)"),
        ("select count(*) from p", "alter table p detach partition p1"),
    ] {
        check_statement(schema, read, write);
    }
}

#[test]
fn a_rule_that_writes_elsewhere_voids_that() {
    let schema = "
        create table t(id int primary key, v int); insert into t values (1, 0);
        create table log(v int);
        create rule also as on update to t do also insert into log values (new.v);
        create view face as select v from t;
        create rule instead as on insert to face do instead update t set v = new.v";
    check_statement(schema, "select count(*) from log", "update t set v = 1");
    check_statement(schema, "select v from t", "insert into face values (4)");
}

#[test]
fn a_changed_definition_voids() {
    for (read, write) in [
        ("select * from t", "alter table t add column w text default 'new'"),
        ("select * from t", "alter table t alter column v type text"),
        ("select * from t", "alter table t rename v to w"),
        ("select * from t", "drop table t; create table t(x text)"),
        ("select * from t", "alter table t rename to old; create table t(y int)"),
        ("select * from t", "create schema app; create table app.t(z int)"),
    ] {
        check_statement(TABLE, read, write);
    }
    let function = "create table t(v int); insert into t values (1);
        create function twice(v int) returns int language sql immutable as 'select v * 2'";
    let (proxy, database) = cached(function);
    let mut session = proxy.session(&database);
    assert_eq!(session.value("select twice(v) from t"), "2");
    session.query("create or replace function twice(v int) returns int language sql immutable as 'select v * 3'");
    assert_eq!(session.value("select twice(v) from t"), "3");
}

#[test]
fn a_rolled_back_write_is_neither_seen_nor_voids() {
    let (proxy, database) = cached(TABLE);
    let (mut reader, mut writer) = (proxy.session(&database), proxy.session(&database));
    let mark = mark();
    warm_up(&mut reader, "select v from t", &mark);
    writer.query("begin");
    writer.query("update t set v = 99");
    assert_eq!(writer.value("select v from t"), "99", "inside, the transaction sees its own write");
    assert_eq!(reader.value(&format!("select v from t {mark}")), "0");
    writer.query("rollback");
    writer.query("update t set v = 1/0");
    wait_until("hits again", || is_hit(&mut reader, "select v from t", &mark));
    assert_eq!(reader.value(&format!("select v from t {mark}")), "0");
    assert!(is_hit(&mut reader, "select v from t", &mark), "still the same entry");
}

#[test]
fn a_transaction_prepared_here_and_committed_there_voids() {
    check_void(TABLE, "select v from t", |writer| {
        succeed(&writer.query("begin; update t set v = 3; prepare transaction 'there'"));
        succeed(&writer.query("commit prepared 'there'"));
    });
}

#[test]
fn an_acknowledged_write_is_seen_by_every_session_at_once() {
    let (proxy, database) = cached(TABLE);
    let mut writer = proxy.session(&database);
    let mut readers: Vec<_> = (0..5).map(|_| proxy.session(&database)).collect();
    for v in 1..=200 {
        writer.query(&format!("update t set v = {v}"));
        for reader in &mut readers {
            assert_eq!(reader.value("select v from t"), v.to_string());
        }
    }
    assert!(proxy.show("CACHE").number("database", &database, "hits") > 0, "some of those were hits");
}

#[test]
fn what_may_change_without_a_write_is_not_kept() {
    let (proxy, database) = cached(
        "create table t(v int); insert into t values (1); create unlogged table u as select 1 as v;
         create function moody() returns int language sql volatile as 'select 1'",
    );
    let mut session = proxy.session(&database);
    session.query("create temp table scratch as select 1 as v");
    let mut other = proxy.session(&database);
    for read in [
        "select now()",
        "select v, now() from t",
        "select random() from t",
        "select clock_timestamp() from t",
        "select v from t where current_timestamp is not null",
        "select moody() from t",
        "select count(*) from pg_class",
        "select v, txid_current() from t",
        "select v, pg_backend_pid() from t",
        "select v from t for update",
        "select * from t tablesample bernoulli (50)",
        "select ctid, v from t",
        "table pg_stat_activity",
        "select v from u",
    ] {
        let mark = mark();
        for _ in 0..4 {
            assert!(!is_hit(&mut other, read, &mark), "{read}");
        }
    }
    let mark = mark();
    for _ in 0..4 {
        assert!(!is_hit(&mut session, "select v from scratch", &mark));
    }
}

#[test]
fn inside_a_transaction_the_server_is_asked() {
    let (proxy, database) = cached(TABLE);
    let mut session = proxy.session(&database);
    let mark = mark();
    warm_up(&mut session, "select v from t", &mark);
    for begin in ["begin", "begin isolation level repeatable read"] {
        session.query(begin);
        assert!(!is_hit(&mut session, "select v from t", &mark));
        session.query("select 1/0");
        assert_eq!(session.query(&format!("select v from t {mark}")).sqlstate(), "25P02");
        session.query("rollback");
    }
}

#[test]
fn nobody_is_answered_what_he_may_not_read() {
    let (proxy, database) = cached(TABLE);
    let mut owner = proxy.session(&database);
    let mark = mark();
    let read = format!("select v from t {mark}");
    warm_up(&mut owner, "select v from t", &mark);
    let mut stranger = RawClient::session(&proxy.address(), "stranger", &database);
    assert_eq!(stranger.query(&read).sqlstate(), "42501");
    owner.query("grant select on t to stranger");
    for _ in 0..4 {
        assert_eq!(stranger.value(&read), "0");
    }
    owner.query("revoke select on t from stranger");
    assert_eq!(stranger.query(&read).sqlstate(), "42501");
}

#[test]
fn row_security_keeps_every_role_to_its_own_rows() {
    let (proxy, database) = cached(
        "create table t(owner name, v int); insert into t values ('stranger', 1), ('plainer', 2);
         grant select on t to public; alter table t enable row level security;
         create policy own on t using (owner = current_user)",
    );
    for (user, own) in [("stranger", "1"), ("plainer", "2")] {
        let mut client = RawClient::connect(&proxy.address());
        client.log_in(&[("user", user), ("database", &database)], "").unwrap();
        for _ in 0..4 {
            assert_eq!(client.rows("select v from t"), [[own]]);
        }
    }
}

#[test]
fn the_session_s_parameters_are_part_of_the_question() {
    let (proxy, database) = cached("create table t(at timestamptz); insert into t values ('2020-01-01 00:00:00+00')");
    let (mut one, mut other) = (proxy.session(&database), proxy.session(&database));
    other.query("set timezone = 'Asia/Tokyo'");
    for _ in 0..4 {
        assert_eq!(one.value("select at from t"), "2020-01-01 00:00:00+00");
        assert_eq!(other.value("select at from t"), "2020-01-01 09:00:00+09");
    }
    other.query("set datestyle = 'German'");
    assert_eq!(other.value("select at from t"), "01.01.2020 09:00:00 JST");
}

#[test]
fn equally_named_tables_of_two_schemas_are_two_tables() {
    let (proxy, database) = cached(
        "create table t(v text); insert into t values ('public'); create schema other; create table other.t(v text); insert into other.t values ('other')",
    );
    let (mut one, mut other) = (proxy.session(&database), proxy.session(&database));
    other.query("set search_path = other");
    for _ in 0..4 {
        assert_eq!(one.value("select v from t"), "public");
        assert_eq!(other.value("select v from t"), "other");
    }
    one.query("create temp table t as select 'temp' as v");
    assert_eq!(one.value("select v from t"), "temp");
}

#[test]
fn a_search_path_that_sessions_begin_with_is_that_of_every_connection() {
    let (proxy, database) = cached(
        "create table t(v text); insert into t values ('public'); create schema other; create table other.t(v text); insert into other.t values ('other')",
    );
    let (mut reader, mut writer) = (proxy.session(&database), proxy.session(&database));
    let (read, mark, mut owner) = ("select v from t", mark(), cluster().primary.session(&database));
    warm_up(&mut reader, read, &mark);
    for (change, schema) in [("set search_path = other", "other"), ("reset search_path", "public")] {
        owner.rows(&format!("alter database {database} {change}"));
        wait_until("connections of before are gone", || reader.value(&format!("{read} {mark}")) == schema);
        warm_up(&mut reader, read, &mark);
        succeed(&writer.query("update t set v = v || ' changed'"));
        assert_eq!(reader.value(&format!("{read} {mark}")), format!("{schema} changed"));
    }
}

#[test]
fn a_transaction_keeps_the_search_path_that_its_connection_began_with() {
    let (proxy, database) = cached(
        "create table t(v text); insert into t values ('public'); create schema other; create table other.t(v text); insert into other.t values ('other')",
    );
    let (mut reader, mut writer) = (proxy.session(&database), proxy.session(&database));
    let (read, mark) = ("select v from public.t", mark());
    warm_up(&mut reader, read, &mark);
    writer.rows("select pg_advisory_lock(77)");
    cluster().primary.session(&database).rows(&format!("alter database {database} set search_path = other"));
    wait_until("other connections of before are gone", || reader.value("select v from t") == "other");
    warm_up(&mut reader, read, &mark);
    succeed(&writer.query("update t set v = 'changed'"));
    assert_eq!(reader.value(&format!("{read} {mark}")), "changed", "the pinned connection still means public.t");
}

#[test]
fn what_runs_serializable_is_asked_of_the_primary() {
    let (proxy, database) = cached(TABLE);
    let (mut reader, read, mark) = (proxy.session(&database), "select v from t", mark());
    warm_up(&mut reader, read, &mark);
    let mut owner = cluster().primary.session(&database);
    owner.rows(&format!("alter database {database} set default_transaction_isolation = 'Serializable'"));
    wait_until("connections of before are gone", || {
        reader.value("show default_transaction_isolation") == "serializable"
    });
    for _ in 0..4 {
        assert!(!is_hit(&mut reader, read, &mark));
    }
}

#[test]
fn hints_and_settings_leave_the_cache_out() {
    let (proxy, database) = cached(TABLE);
    let mut session = proxy.session(&database);
    let mark = mark();
    warm_up(&mut session, "select v from t", &mark);
    assert!(!is_hit(&mut session, "/* pgweir: nocache */ select v from t", &mark));
    session.query("set pgweir.cache = 'off'");
    assert!(!is_hit(&mut session, "select v from t", &mark));
    session.query("set pgweir.cache = 'on'");
    // What was kept meanwhile may have become void: a loaded machine has its catalog read once more.
    warm_up(&mut session, "select v from t", &mark);
    proxy.tell(&format!("FLUSH CACHE {database}"));
    assert!(!is_hit(&mut session, "select v from t", &mark));
}

#[test]
fn a_large_result_is_not_kept_and_a_failed_read_neither() {
    let (proxy, database) = cached("create table t(v text); insert into t values (repeat('x', 2000000)), ('y')");
    let mut session = proxy.session(&database);
    let mark = mark();
    for _ in 0..3 {
        assert!(!is_hit(&mut session, "select v from t", &mark));
        assert_eq!(session.query("select v::int from t").sqlstate(), "22P02");
    }
}

#[test]
fn a_replica_that_is_behind_fills_nothing() {
    let database = cluster().database();
    cluster().prepare(&database, TABLE);
    let replicas = [(&cluster().replicas[0], 1), (&cluster().replicas[1], 1)];
    let proxy = Proxy::of(cluster(), &database).replicas(&database, &replicas).cached().start();
    let (mut writer, mut reader) = (proxy.session(&database), proxy.session(&database));
    wait_until("hits", || {
        reader.rows("select v from t");
        proxy.show("CACHE").number("database", &database, "hits") > 0
    });
    for replica in &cluster().replicas {
        replica.pause_replay();
    }
    for v in 1..=50 {
        writer.rows(&format!("update t set v = {v}"));
        for _ in 0..3 {
            assert_eq!(reader.value("select v from t"), v.to_string());
        }
    }
    for replica in &cluster().replicas {
        replica.resume_replay();
    }
    for v in 51..=150 {
        writer.rows(&format!("update t set v = {v}"));
        for _ in 0..3 {
            assert_eq!(reader.value("select v from t"), v.to_string());
        }
    }
}

#[test]
fn a_literal_means_what_it_meant_when_it_was_parsed() {
    let (proxy, database) = cached("create table t(at timestamptz); insert into t values ('2020-01-01 00:00:00+00')");
    let (mut one, mut other) = (proxy.session(&database), proxy.session(&database));
    let read = "select count(*) from t where at >= '2020-01-01 00:00'::timestamptz";
    // Unnamed, and parsed before the time zone was another one: PostgreSQL has made a constant of the literal.
    succeed(&one.exchange(&[parse("", read), sync()].concat()));
    let set = [parse("s", "set timezone = 'America/New_York'"), bind("s", &[]), execute("", 0), sync()].concat();
    succeed(&one.exchange(&set));
    other.query("set timezone = 'America/New_York'");
    for _ in 0..4 {
        drop(one.exchange(&[bind("", &[]), execute("", 0), sync()].concat()));
        let found = other.exchange(&[parse("", read), bind("", &[]), execute("", 0), sync()].concat());
        assert_eq!(found.rows(), [["0"]], "midnight in New York is later");
    }
}

#[test]
fn a_session_that_runs_serializable_is_not_answered_from_memory() {
    let (proxy, database) = cached(TABLE);
    let (mut reader, mut other, mark) = (proxy.session(&database), proxy.session(&database), mark());
    warm_up(&mut reader, "select v from t", &mark);
    for set in [
        "set default_transaction_isolation = serializable",
        "set session characteristics as transaction isolation level serializable",
    ] {
        other.query(set);
        for _ in 0..3 {
            assert!(!is_hit(&mut other, "select v from t", &mark), "{set}");
        }
        other.query("reset default_transaction_isolation");
    }
}

#[test]
fn a_commit_that_is_told_before_its_batch_ends_is_seen_by_everybody() {
    let database = cluster().database();
    cluster().prepare(&database, TABLE);
    let replicas = [(&cluster().replicas[0], 1), (&cluster().replicas[1], 1)];
    let proxy = Proxy::of(cluster(), &database)
        .replicas(&database, &replicas)
        .section("routing", "read_your_writes", "database")
        .cached()
        .start();
    let (mut writer, mut reader) = (proxy.session(&database), proxy.session(&database));
    wait_until("replicas serve", || {
        reader.rows("select v from t where now() is not null");
        proxy.show("REPLICAS").select("role", "replica", "requests").iter().any(|requests| requests != "0")
    });
    cluster().replicas.iter().for_each(|replica| replica.pause_replay());
    for v in 1..=5 {
        succeed(&writer.query("begin"));
        succeed(&writer.query(&format!("update t set v = {v}")));
        writer.send(&[parse("", "commit"), bind("", &[]), execute("", 0), flush()].concat());
        writer.until(b'C');
        // Of two texts one is cached, the other never.
        assert_eq!(reader.value("select v from t"), v.to_string());
        assert_eq!(reader.value("select v from t where random() >= 0"), v.to_string());
        assert_eq!(reader.value("select v from t where now() is not null"), v.to_string());
        succeed(&writer.exchange(&sync()));
    }
    cluster().replicas.iter().for_each(|replica| replica.resume_replay());
}

#[test]
fn an_immutable_function_that_reads_a_table_is_not_believed() {
    let (proxy, database) = cached(
        "create table t(id int); insert into t values (1); create table lookup(v int); insert into lookup values (1);
         create function looked_up(int) returns int immutable language sql as 'select v + $1 from lookup';
         create function once_removed(int) returns int immutable language sql as 'select looked_up($1)'",
    );
    let (mut reader, mut writer) = (proxy.session(&database), proxy.session(&database));
    for read in ["select looked_up(id) from t", "select once_removed(id) from t"] {
        for v in 1..4 {
            succeed(&writer.query(&format!("update lookup set v = {v}")));
            for _ in 0..3 {
                assert_eq!(reader.value(read), (v + 1).to_string(), "{read}");
            }
        }
    }
}

/// How few is said in `cache::admission`.
#[test]
fn of_questions_that_are_never_repeated_few_answers_are_kept_until_one_is() {
    let (proxy, database) =
        cached("create table t(id int primary key, v int); insert into t select i, i from generate_series(1, 3000) i");
    let (mut reader, mark) = (proxy.session(&database), mark());
    warm_up(&mut reader, "select v from t where id = 0", &mark);
    let left = || proxy.metrics().sum("pgweir_cache_requests_total", &["reason=\"seldom_repeated\""]);
    for id in 1..=2000 {
        assert_eq!(reader.value(&format!("select v from t where id = {id} {mark}")), id.to_string());
    }
    assert!(left() > 0.0, "every answer was kept");
    let stored = proxy.show("CACHE").number("database", &database, "fills");
    assert!(stored < 2000, "{stored}");
    // Whoever comes again is kept in mind.
    for _ in 0..2 {
        reader.query(&format!("select v from t where id = 2500 {mark}"));
    }
    assert!(is_hit(&mut reader, "select v from t where id = 2500", &mark), "the third time");
    let hinted = format!("/* pgweir: cache ttl=60s */ select v from t where id = 2501 {mark}");
    reader.query(&hinted);
    let before = cluster().primary.executions(&mark);
    reader.query(&hinted);
    assert_eq!(cluster().primary.executions(&mark), before, "who asks for it is kept at once");
}
