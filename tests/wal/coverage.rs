//! What is not heard of is not kept, and an operator is told what is missing.

use std::process::Stdio;

use super::{
    TABLE, direct, hearing, is_hit, mark, started, superuser,
    support::{Cluster, Proxy, RawClient, cluster, programs, proxy::binary, scratch::scratch},
    wait_until, warm_up,
};

const TRIGGERS: &str = include_str!("../../deploy/direct-writes.sql");

/// Why reads of it are not kept, or `cacheable`.
/// Another test's roles have the catalog read anew now and then, and meanwhile nobody knows.
fn verdict(proxy: &Proxy, read: &str) -> String {
    let mut verdict = String::new();
    wait_until("the catalog is known", || {
        verdict = proxy.show(&format!("ROUTE {read}")).column("cache_reason").remove(0);
        verdict != "catalog_not_loaded"
    });
    verdict
}

fn unpublished(schema: &str) -> String {
    let database = cluster().database();
    cluster().prepare(&database, schema);
    cluster().log_statements(&database);
    database
}

#[test]
fn tables_that_are_not_published_are_not_cached_until_they_are() {
    let database = unpublished(
        "create table heard(id int primary key, v int); create table unheard(id int primary key, v int);
         create table filtered(id int primary key, v int); create unlogged table fleeting(id int primary key);
         create materialized view kept as select v from heard; create view over as select v from unheard",
    );
    let mut operator = superuser(cluster(), &database);
    operator.rows("create publication pgweir for table heard, filtered where (id > 5)");
    let proxy = started(hearing(cluster(), &database), &database);
    let cached = verdict(&proxy, "select v from heard");
    for (table, expected) in [
        ("unheard", "not_published"),
        ("over", "not_published"),
        ("heard, unheard", "not_published"),
        ("filtered", "not_published"),
        ("kept", "refresh_unheard"),
        ("fleeting", "untracked_relation"),
    ] {
        assert_eq!(verdict(&proxy, &format!("select 1 from {table}")), expected, "{table}");
    }
    let mut reader = proxy.session(&database);
    let (heard, unheard) =
        (format!("select count(*) from heard {}", mark()), format!("select count(*) from unheard {}", mark()));
    warm_up(cluster(), &mut reader, &heard);
    assert!(!is_hit(cluster(), &mut reader, &unheard) && !is_hit(cluster(), &mut reader, &unheard));
    operator.rows("alter publication pgweir add table unheard");
    wait_until("it counts", || verdict(&proxy, "select v from unheard") == cached);
    warm_up(cluster(), &mut reader, &unheard);
    operator.rows("alter publication pgweir set (publish = 'insert')");
    wait_until("nothing counts", || verdict(&proxy, "select v from heard") == "not_published");
}

#[test]
fn with_triggers_the_publication_may_be_empty_and_tables_need_no_key() {
    let database = unpublished(
        "create table t(v int); insert into t values (0);
         create table p(id int, v int) partition by range (id);
         create table p1 partition of p for values from (0) to (100); insert into p values (1, 0);
         create table a(v int); create table b() inherits (a); insert into b values (0);
         create table silent(v int);
         create materialized view kept as select v from t",
    );
    let mut operator = superuser(cluster(), &database);
    operator.query(TRIGGERS).frames.iter().for_each(|frame| assert_ne!(frame.tag, b'E', "{frame:?}"));
    operator.rows("select pgweir.watch('t'); select pgweir.watch('p'); select pgweir.watch('a')");
    let proxy = started(hearing(cluster(), &database), &database);
    let mut reader = proxy.session(&database);
    for (read, write) in [
        ("select v from t", "update t set v = v + 1"),
        ("select v from t", "insert into t values (5)"),
        ("select count(*) from t", "delete from t where v = 5"),
        ("select v from p", "update p1 set v = v + 1"),
        ("select v from p1", "update p set v = v + 1"),
        ("select v from a", "update b set v = v + 1"),
        ("select v from b", "update a set v = v + 1"),
        ("select v from b", "set session_replication_role = replica; update a set v = v + 1"),
        ("select v from kept", "refresh materialized view kept"),
        ("select * from t", "alter table t add column w int default 5"),
        ("select count(*) from t", "truncate t"),
    ] {
        let read = format!("{read} {}", mark());
        warm_up(cluster(), &mut reader, &read);
        let before = reader.query(&read).frames;
        operator.rows(write);
        let truth = direct(cluster(), &database).query(&read).frames;
        assert_ne!(before, truth, "{write}");
        wait_until(&format!("{write} is seen"), || reader.query(&read).frames == truth);
    }
    assert_eq!(verdict(&proxy, "select v from silent"), "not_published");
    operator.rows("alter table t enable trigger pgweir_changed");
    wait_until("a trigger that can be switched off counts for nothing", || {
        verdict(&proxy, "select v from t") == "not_published"
    });
}

#[test]
fn what_triggers_tell_comes_with_every_transaction_of_temporary_objects_left_out() {
    let database = unpublished(TABLE);
    let mut operator = superuser(cluster(), &database);
    operator.rows(TRIGGERS);
    operator.rows("select pgweir.watch('t')");
    let proxy = started(hearing(cluster(), &database), &database);
    let mut reader = proxy.session(&database);
    let read = format!("select v from t {}", mark());
    warm_up(cluster(), &mut reader, &read);
    operator.rows("create temp table scratch(v int); insert into scratch values (1); drop table scratch");
    // Behind that comes something that does void.
    operator.rows("create table beside(v int primary key); select pgweir.watch('beside')");
    let before = proxy.metrics().sum("pgweir_cache_invalidations_total", &["source=\"ddl\"", &database]);
    assert!(before < 20.0, "{before}");
    warm_up(cluster(), &mut reader, &read);
}

fn check_of(cluster: &Cluster, database: &str, user: &str) -> String {
    let file = scratch().directory("check").join("check.ini");
    let port = cluster.primary.port;
    let text = format!(
        "[databases]\n{database} = host=127.0.0.1 port={port} dbname={database}\n[pgbouncer]\nauth_type = trust\n\
         listen_port = 1\nlisten_addr = 127.0.0.1\n[cache]\nenabled = 1\nwal_invalidation = 1\n[control]\nuser = {user}\n"
    );
    scratch().write(&file, &text);
    let mut command = programs::command(&scratch().reachable(&binary()));
    command.arg("check").arg(&file).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.success(), !said.lines().any(|line| !line.contains("note: ")), "{said}");
    said
}

#[test]
fn check_says_which_commands_are_missing() {
    let database = unpublished("create table keyless(v int); create table keyed(id int primary key)");
    let said = check_of(cluster(), &database, "app");
    assert!(said.contains("app may not replicate: ALTER ROLE app REPLICATION;"), "{said}");
    assert!(said.contains("CREATE PUBLICATION pgweir;"), "{said}");
    let mut operator = superuser(cluster(), &database);
    operator.rows("create publication pgweir for table keyed");
    let said = check_of(cluster(), &database, "postgres");
    assert!(
        said.contains("note: reads of tables that are neither published") && said.contains("public.keyless"),
        "{said}"
    );
    operator.rows("drop publication pgweir; create publication pgweir for all tables");
    let said = check_of(cluster(), &database, "postgres");
    assert!(said.contains("the server refuses UPDATE and DELETE") && said.contains("FOR ALL TABLES"), "{said}");
    assert!(said.contains("REPLICA IDENTITY FULL; to public.keyless"), "{said}");
    let refused = RawClient::query(&mut operator, "insert into keyless values (1); update keyless set v = 2");
    assert!(refused.error().is_some(), "that is what it warns of");
    operator.rows("alter table keyless replica identity full");
    assert_eq!(check_of(cluster(), &database, "postgres"), "");
}

#[test]
fn a_server_that_is_not_ready_leaves_the_cache_closed_and_says_why_once() {
    let database = unpublished(TABLE);
    let proxy = hearing(cluster(), &database).start();
    let mut reader = proxy.session(&database);
    wait_until("it is said", || proxy.log().contains("there is no publication pgweir"));
    let read = format!("select v from t {}", mark());
    for _ in 0..3 {
        assert!(!is_hit(cluster(), &mut reader, &read));
    }
    // A catalog that others have changed is read first: roles belong to all databases.
    let shown = |column: &str| proxy.show("CACHE").select("database", &database, column).concat();
    wait_until("the cache says why", || shown("state") == "direct_writes_unknown");
    assert_eq!(shown("direct_writes"), "unheard");
    superuser(cluster(), &database).rows("create publication pgweir for all tables");
    super::wait_until_heard(&proxy, &database);
    warm_up(cluster(), &mut reader, &read);
    assert_eq!(proxy.log().matches("there is no publication pgweir").count(), 1, "{}", proxy.log());
}
