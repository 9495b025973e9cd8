//! How long answers are kept: by table, by shape, by hint.

use crate::{
    is_hit, mark,
    support::{Proxy, RawClient, cluster},
    warm_up,
};

/// Over before the next read begins.
const SHORT: &str = "0.000001";

const SCHEMA: &str = "
    create table steady(id int primary key, v int); insert into steady values (1, 0);
    create table brief(id int primary key, v int); insert into brief values (1, 0);
    create table never(id int primary key, v int); insert into never values (1, 0);
    create table parted(id int primary key, v int) partition by range (id);
    create table parted_1 partition of parted for values from (0) to (10);
    create table parted_2 partition of parted for values from (10) to (20);
    insert into parted values (1, 0), (11, 0);
    create view over_brief as select * from brief;
    create view listed as select * from steady;
    create materialized view summed as select sum(v) as v from steady;
    create schema other; create table other.a(v int); create table other.b(v int); create table other.c(v int)";

/// A proxy with these lines in `[cache_ttl]`, and `ttl` as it is said.
fn with_lifetimes(database: &str, ttl: &str, entries: &[(&str, &str)]) -> Proxy {
    let builder = Proxy::of(cluster(), database).cached().section("cache", "ttl", ttl);
    entries.iter().fold(builder, |builder, (key, value)| builder.section("cache_ttl", key, value)).start()
}

fn database() -> String {
    let database = cluster().database();
    cluster().prepare(&database, SCHEMA);
    cluster().log_statements(&database);
    database
}

/// Three times, so that one is not taken for a cache that is not open yet.
#[track_caller]
fn is_never_kept(session: &mut RawClient, read: &str) {
    let mark = mark();
    for _ in 0..3 {
        assert!(!is_hit(session, read, &mark), "{read}");
    }
}

#[test]
fn an_answer_lives_as_long_as_the_shortest_lived_of_the_tables_that_it_reads() {
    let database = database();
    let proxy = with_lifetimes(
        &database,
        "600",
        &[
            ("public.brief", SHORT),
            ("public.never", "off"),
            ("public.listed", SHORT),
            ("public.summed", SHORT),
            ("public.parted_2", SHORT),
            ("other.*", "off"),
            ("other.b", "600"),
            (&format!("{database}.other.c"), "600"),
            ("elsewhere.public.steady", "off"),
        ],
    );
    let mut session = proxy.session(&database);
    warm_up(&mut session, "select v from steady where id = 1", &mark());
    warm_up(&mut session, "select v from parted_1 where id = 1", &mark());
    // A read of the parent does not name its partitions.
    warm_up(&mut session, "select v from parted where id = 11", &mark());
    warm_up(&mut session, "select v from other.b", &mark());
    warm_up(&mut session, "select v from other.c", &mark());
    for read in [
        "select v from brief where id = 1",
        "select v from over_brief where id = 1",
        "select steady.v from steady join brief using (id)",
        "select v from listed where id = 1",
        "select v from summed",
        "select v from parted_2 where id = 11",
        "select v from never where id = 1",
        "select 1 from steady where exists (select from never)",
        "select v from other.a",
    ] {
        is_never_kept(&mut session, read);
    }
    assert!(proxy.metrics().sum("pgweir_cache_requests_total", &["reason=\"ttl_off\""]) > 0.0);
    let tables = proxy.show("CACHE TABLES");
    for (relation, ttl) in [("public.steady", "600"), ("public.brief", "0.000001"), ("public.never", "off")] {
        assert_eq!(tables.select("relation", relation, "ttl"), [ttl], "{relation}");
    }
}

#[test]
fn a_longer_life_than_the_usual_one_is_given_to_a_table_its_partitions_a_shape_and_by_a_hint() {
    let database = database();
    let shape = {
        let proxy = with_lifetimes(&database, SHORT, &[]);
        let mut session = proxy.session(&database);
        is_never_kept(&mut session, "select count(*) from never where v = 3");
        proxy.show("QUERIES").select("query", "select count(*) from never where v = ?", "fingerprint").concat()
    };
    let proxy = with_lifetimes(&database, SHORT, &[("public.parted", "600"), (&shape, "600"), ("public.never", "off")]);
    let mut session = proxy.session(&database);
    warm_up(&mut session, "select v from parted where id = 1", &mark());
    warm_up(&mut session, "select v from parted_2 where id = 11", &mark());
    warm_up(&mut session, "select count(*) from never where v = 5", &mark());
    is_never_kept(&mut session, "select v from steady where id = 1");
    is_never_kept(&mut session, "select v from never where id = 1");
    warm_up(&mut session, "/* pgweir: cache ttl=600s */ select v from steady where id = 1", &mark());
    warm_up(&mut session, "/* pgweir: cache ttl=600s */ select v from never where id = 1", &mark());
}
