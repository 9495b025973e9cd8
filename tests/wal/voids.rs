//! What voids, and how soon.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{
    BOUND, TABLE,
    checker::{Read, Write, percentile, stale},
    direct, is_hit, mark, proxied, succeed, superuser,
    support::{
        Proxy, RawClient, cluster,
        frames::{copy_data, copy_done, query},
        hits::by_key,
    },
    wait_until, warm_up,
};

/// Warm reads are void within the bound behind a direct write.
#[track_caller]
fn check_with(proxy: &Proxy, database: &str, read: &str, what: &str, write: impl FnOnce(&mut RawClient)) {
    let mut reader = proxy.session(database);
    let read = format!("{read} {}", mark());
    warm_up(cluster(), &mut reader, &read);
    let before = reader.query(&read).frames;
    write(&mut superuser(cluster(), database));
    let acknowledged = Instant::now();
    let truth = direct(cluster(), database).query(&read).frames;
    assert_ne!(truth, before, "{what}: the write changes what {read} finds");
    loop {
        let began = Instant::now();
        let found = reader.query(&read).frames;
        if found == truth {
            break;
        }
        assert!(found == before && began < acknowledged + BOUND, "{what}: {read} is stale");
    }
    warm_up(cluster(), &mut reader, &read);
}

#[track_caller]
fn check(proxy: &Proxy, database: &str, read: &str, write: &str) {
    check_with(proxy, database, read, write, |writer| succeed(&writer.query(write)));
}

#[test]
fn every_kind_of_direct_write_voids() {
    let (proxy, database) = proxied(TABLE);
    let read = "select id, v from t order by id";
    for write in [
        "insert into t values (2, 2)",
        "update t set v = v + 1",
        "delete from t where id = 2",
        "insert into t values (1, 9) on conflict (id) do update set v = excluded.v",
        "merge into t using (values (1, 8)) s(id, v) on t.id = s.id when matched then update set v = s.v",
        "begin; update t set v = v + 1; savepoint s; update t set v = -1; rollback to s; commit",
        "do $$ begin update t set v = v + 1; end $$",
        "begin; update t set v = 77; prepare transaction 'direct'; commit prepared 'direct'",
        "set session_replication_role = replica; update t set v = v + 1",
        "truncate t",
    ] {
        // One statement a query, because some cannot run beside others.
        check_with(&proxy, &database, read, write, |writer| {
            for statement in if write.starts_with("do") { vec![write] } else { write.split("; ").collect() } {
                succeed(&writer.query(statement));
            }
        });
    }
    check_with(&proxy, &database, read, "copy", |writer| {
        writer.send(&query("copy t from stdin"));
        writer.until(b'G');
        succeed(&writer.exchange(&[copy_data(b"12\t2\n13\t3\n"), copy_done()].concat()));
    });
    let metrics = proxy.metrics();
    let labels = |source: &str| format!("source=\"{source}\"");
    let sum = |source: &str| metrics.sum("pgweir_cache_invalidations_total", &[&labels(source), &database]);
    assert!(sum("wal") >= 11.0, "{}", sum("wal"));
}

#[test]
fn what_a_direct_write_changes_elsewhere_is_void_as_well() {
    let (proxy, database) = proxied(
        "create table parent(id int primary key); insert into parent values (1), (2), (3);
         create table child(id int primary key, parent int references parent on delete cascade on update cascade);
         insert into child values (1, 1), (2, 2), (3, 3);
         create table audit(id serial primary key, v int);
         create function note() returns trigger language plpgsql as $$ begin insert into audit(v) values (1); return null; end $$;
         create trigger noting after update on parent for each row execute function note();
         create table log(id serial primary key);
         create rule also as on update to parent do also insert into log default values;
         create view both_of_them as select p.id, c.id as child from parent p join child c on c.parent = p.id",
    );
    for (read, write) in [
        ("select id, parent from child order by id", "update parent set id = 10 where id = 2"),
        ("select count(*) from child", "delete from parent where id = 1"),
        ("select count(*) from audit", "update parent set id = 11 where id = 10"),
        ("select count(*) from log", "update parent set id = 12 where id = 11"),
        ("select id, child from both_of_them order by id", "delete from child where id = 2"),
        ("select count(*) from child", "truncate parent cascade"),
    ] {
        check(&proxy, &database, read, write);
    }
}

#[test]
fn partitions_and_their_parents_void_each_other() {
    let (proxy, database) = proxied(
        "create table p(id int primary key, v int) partition by range (id);
         create table p1 partition of p for values from (0) to (100);
         create table p2 partition of p for values from (100) to (200) partition by range (id);
         create table p21 partition of p2 for values from (100) to (150);
         insert into p values (1, 1), (101, 101);
         create table a(id int primary key, v int); create table b(primary key (id)) inherits (a); insert into b values (1, 1)",
    );
    let check_all = || {
        for (read, write) in [
            ("select v from p order by id", "update p1 set v = v + 1"),
            ("select v from p order by id", "update p21 set v = v + 1"),
            ("select v from p1", "update p set v = v + 1 where id = 1"),
            ("select v from p21", "update p set v = v + 1 where id = 101"),
            ("select v from p2", "update p21 set v = v + 1"),
            ("select v from p order by id", "insert into p values (2, 2)"),
            ("select count(*) from p21", "update p set id = 120 where id = 2"),
            ("select count(*) from p", "delete from p where id = 120"),
        ] {
            check(&proxy, &database, read, write);
        }
    };
    check_all();
    check(&proxy, &database, "select v from a", "update b set v = v + 1");
    check(&proxy, &database, "select v from b", "update a set v = v + 1");
    // From now on the changes of partitions come under the name of the root.
    let via_root =
        "drop publication pgweir; create publication pgweir for all tables with (publish_via_partition_root)";
    let reloads = || proxy.metrics().sum("pgweir_catalog_reloads_total", &["loaded", &database]);
    let before = reloads();
    superuser(cluster(), &database).rows(via_root);
    wait_until("the publication is looked at again", || reloads() > before);
    super::wait_until_heard(&proxy, &database);
    check_all();
    check(&proxy, &database, "select count(*) from p1", "truncate p");
}

#[test]
fn a_direct_write_by_key_voids_that_key_and_spares_the_others() {
    const READS: [&str; 3] =
        ["select v from t where id = 1", "select v from t where id = 2", "select count(*), sum(v) from t"];
    let (proxy, database) =
        proxied("create table t(id int primary key, v int); insert into t select i, 0 from generate_series(1, 9) i");
    let (mut reader, mut through) = (proxy.session(&database), proxy.session(&database));
    let (mut writer, mark) = (superuser(cluster(), &database), mark());
    // What can be seen has been heard when such a read is answered.
    let reads = READS.map(|read| format!("{read} /* pgweir: cache strict */ {mark}"));
    wait_until("rows to have cells", || {
        is_hit(cluster(), &mut reader, &reads[0]);
        succeed(&writer.query("update t set v = v + 1 where id = 9"));
        by_key(&proxy).is_some()
    });
    let mut check = |is_direct: bool, write: &str, spared: [bool; 3]| {
        reads.iter().for_each(|read| warm_up(cluster(), &mut reader, read));
        let writer = if is_direct { &mut writer } else { &mut through };
        for statement in write.split("; ") {
            succeed(&writer.query(statement));
        }
        let hits: Vec<_> = reads.iter().map(|read| is_hit(cluster(), &mut reader, read)).collect();
        assert_eq!(hits, spared, "{write}");
        for (read, marked) in READS.iter().zip(&reads) {
            assert_eq!(reader.query(marked).rows(), direct(cluster(), &database).query(read).rows(), "{write}: {read}");
        }
    };
    for (write, spared) in [
        ("update t set v = v + 1 where id = 1", [false, true, false]),
        ("update t set v = v + 1 where v = (select v from t where id = 2) and id = 2", [true, false, false]),
        ("update t set v = v + 1 where id > 4", [true, true, false]),
        ("delete from t where id = 2", [true, false, false]),
        ("insert into t values (2, 7)", [true, false, false]),
        ("begin; update t set id = 20 where id = 2; update t set id = 2 where id = 1; commit", [false, false, false]),
        ("update t set id = 1 where id = 20", [false, true, false]),
        ("begin; update t set v = 3 where id = 1; rollback", [true, true, true]),
        ("insert into t select i, 0 from generate_series(1000, 2000) i", [false, false, false]),
        ("truncate t; insert into t values (1, 1), (2, 2)", [false, false, false]),
    ] {
        check(true, write, spared);
    }
    // What was written here is told once more, of the same row.
    check(false, "update t set v = v + 1 where id = 1", [false, true, false]);
    check(true, "alter table t replica identity full; update t set v = v + 1 where id = 1", [false, false, false]);
    check(true, "update t set v = v + 1 where id = 1", [false, false, false]);
    assert!(by_key(&proxy).unwrap() >= 10);
}

#[test]
fn what_is_rolled_back_voids_nothing() {
    let (proxy, database) =
        proxied(&format!("{TABLE}; create table other(id int primary key); insert into other values (1)"));
    let (mut reader, mut writer) = (proxy.session(&database), direct(cluster(), &database));
    let (kept, void) = (format!("select v from t {}", mark()), format!("select count(*) from other {}", mark()));
    warm_up(cluster(), &mut reader, &kept);
    warm_up(cluster(), &mut reader, &void);
    writer.rows("begin");
    writer.rows("update t set v = 99");
    writer.rows("rollback");
    writer.rows("begin; savepoint s; update t set v = 98; rollback to s; insert into other values (2); commit");
    wait_until("the stream has told of what was committed behind that", || reader.value(&void) == "2");
    assert!(is_hit(cluster(), &mut reader, &kept), "it is what it was");
}

#[test]
fn a_large_transaction_voids_what_it_wrote_and_one_to_hundreds_of_tables_everything() {
    let (proxy, database) = proxied(
        "create table big(id int primary key, pad text); create table t(id int primary key); insert into t values (1);
         do $$ begin for i in 1..300 loop execute format('create table many_%s(id int primary key)', i); end loop; end $$",
    );
    let mut reader = proxy.session(&database);
    let (big, small) = (format!("select count(*) from big {}", mark()), format!("select id from t {}", mark()));
    warm_up(cluster(), &mut reader, &big);
    warm_up(cluster(), &mut reader, &small);
    let mut writer = direct(cluster(), &database);
    // One row is larger than anything that is ever held of it.
    writer.rows("insert into big select i, repeat('x', 300) from generate_series(1, 60000) i");
    writer.rows("insert into big select 0, string_agg(md5(i::text), '') from generate_series(1, 100000) i");
    wait_until("they are seen", || reader.value(&big) == "60001");
    assert!(is_hit(cluster(), &mut reader, &small), "nothing else is void");
    writer
        .rows("do $$ begin for i in 1..300 loop execute format('insert into many_%s values (1)', i); end loop; end $$");
    wait_until("nobody counts that far", || !is_hit(cluster(), &mut reader, &small));
}

/// Figures, and a proof: readers that never stop look for an answer that is older than promised.
#[test]
fn no_hit_is_older_than_promised_and_most_are_a_few_milliseconds_old() {
    const ROUNDS: i64 = 1500;
    let (proxy, database) = proxied(TABLE);
    let mark = mark();
    let read = format!("select v from t {mark}");
    warm_up(cluster(), &mut proxy.session(&database), &read);
    let is_over = AtomicBool::new(false);
    let (reads, writes, mut delays) = thread::scope(|scope| {
        let reader = || {
            let mut session = proxy.session(&database);
            let mut reads = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let began = Instant::now();
                reads.push(Read { began, found: session.value(&read).parse().unwrap() });
            }
            reads
        };
        let readers = [scope.spawn(reader)];
        let mut writer = direct(cluster(), &database);
        let mut watcher = proxy.session(&database);
        let (mut writes, mut delays) = (Vec::new(), Vec::new());
        for value in 1..=ROUNDS {
            writer.rows(&format!("update t set v = {value}"));
            let acknowledged = Instant::now();
            writes.push(Write { acknowledged, value });
            while watcher.value(&read).parse::<i64>().unwrap() < value {}
            delays.push(acknowledged.elapsed());
        }
        is_over.store(true, Ordering::Relaxed);
        let reads: Vec<Read> = readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect();
        (reads, writes, delays)
    });
    delays.sort_unstable();
    let hits = proxy.show("CACHE").number("database", &database, "hits");
    println!(
        "{ROUNDS} direct writes, {} reads, {hits} hits; seen through the proxy after p50 {:?}, p99 {:?}, at most {:?}",
        reads.len(),
        percentile(&delays, 0.5),
        percentile(&delays, 0.99),
        delays[delays.len() - 1],
    );
    let stale = stale(&reads, &writes, BOUND);
    assert!(stale.is_empty(), "{} of {}, the first is {:?}", stale.len(), reads.len(), stale[0]);
    assert!(delays[delays.len() - 1] < BOUND + Duration::from_millis(200), "{delays:?}");
    assert!(hits > ROUNDS, "the reads were answered from the cache");
}
