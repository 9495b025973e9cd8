//! A write by primary key voids what was read by that key and by more than a key, and nothing else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails loudly"
)]

mod support;

use pgweir::catalog::KeyType;
use support::{
    Proxy, RawClient, Reply, cluster,
    cluster::USER,
    frames::{bind, bind_as, copy_data, copy_done, execute, message, parse, query, sync},
    hits::by_key,
    random::Random,
    wait_until,
};

/// A table whose rows have cells of their own, and who reads and writes it.
struct Bench {
    proxy: Proxy,
    database: String,
    reader: RawClient,
    writer: RawClient,
    direct: RawClient,
    mark: String,
}

const TABLE: &str =
    "create table t(id int primary key, v int); insert into t select i, 0 from generate_series(1, 9) i;";

impl Bench {
    /// Row 9 is the one that is written until there are cells.
    fn new(schema: &str) -> Self {
        let database = cluster().database();
        cluster().prepare(&database, schema);
        cluster().log_statements(&database);
        let proxy = Proxy::of(cluster(), &database).cached().start();
        let mark = format!("/* mark {} */", support::scratch::scratch().unique());
        let (reader, writer) = (proxy.session(&database), proxy.session(&database));
        let direct = RawClient::session(&cluster().primary.address(), USER, &database);
        let mut bench = Self { proxy, database, reader, writer, direct, mark };
        wait_until("rows to have cells", || {
            bench.reader.query("select v from t where id = 9");
            succeed(&bench.writer.query("update t set v = v + 1 where id = 9"));
            by_key(&bench.proxy).is_some()
        });
        bench
    }

    /// The answer, which is the server's, and whether the server was asked for it.
    #[track_caller]
    fn ask(&mut self, read: &str) -> bool {
        let before = cluster().primary.executions(&self.mark);
        let reply = self.reader.query(&format!("{read} {}", self.mark));
        let is_hit = cluster().primary.executions(&self.mark) == before;
        assert_eq!(reply.rows(), self.direct.query(read).rows(), "{read}");
        is_hit
    }

    /// Three keys, and two questions about more than a key.
    const READS: [&str; 5] = [
        "select v from t where id = 1",
        "select v from t where id = 2",
        "select count(*), sum(v) from t where id = 3",
        "select count(*), sum(v), sum(id) from t",
        "select id, v from t where v > 0 order by id",
    ];

    fn warm_up(&mut self) {
        for read in Self::READS {
            wait_until(read, || self.ask(read));
        }
    }

    /// Which of [`Self::READS`] are answered from memory behind a write.
    #[track_caller]
    fn behind(&mut self, write: impl FnOnce(&mut RawClient)) -> Vec<bool> {
        self.warm_up();
        write(&mut self.writer);
        Self::READS.iter().map(|read| self.ask(read)).collect()
    }

    #[track_caller]
    fn check(&mut self, write: &str, hits: [bool; 5]) {
        let found = self.behind(|writer| succeed(&writer.query(write)));
        assert_eq!(found, hits, "{write}");
    }
}

#[track_caller]
fn succeed(reply: &Reply) {
    assert!(reply.error().is_none(), "{reply:?}");
}

const ALL: [bool; 5] = [true; 5];
const NONE: [bool; 5] = [false; 5];
const NOT_ONE: [bool; 5] = [false, true, true, false, false];
const NOT_THREE: [bool; 5] = [true, true, false, false, false];
const NOT_ONE_AND_TWO: [bool; 5] = [false, false, true, false, false];

#[test]
fn a_write_of_known_keys_voids_these_and_what_reads_more() {
    let mut bench = Bench::new(TABLE);
    for (write, hits) in [
        ("update t set v = v + 1 where id = 1", NOT_ONE),
        ("update t set v = v + 1 where id = '1' and v >= 0 returning v", NOT_ONE),
        ("update public.t x set v = (select 7) where 1::int8 = x.id", NOT_ONE),
        ("delete from t where id = 3", NOT_THREE),
        ("insert into t (v, id) values (5, 3)", NOT_THREE),
        ("insert into t (v, id) values (5, 3) on conflict do nothing", NOT_THREE),
        ("update t set v = v + 1 where id = 1000", [true, true, true, false, false]),
    ] {
        bench.check(write, hits);
    }
    assert!(by_key(&bench.proxy).unwrap() > 5);
}

#[test]
fn any_other_write_voids_every_key() {
    let mut bench = Bench::new(TABLE);
    for write in [
        "update t set v = v + 1",
        "update t set v = v + 1 where id in (1, 2)",
        "update t set id = 100 where id = 1",
        "update t set id = 1 where id = 100",
        "update t set v = v + 1 where id = 1.0",
        "update t set v = v + 1 where v > 0",
        "update t set v = x.v from (select 8 as v) x where t.id = 1",
        "insert into t (id, v) values (1, 5) on conflict (id) do update set v = 99",
        "insert into t values (500, 5)",
        "insert into t (id, v) select 501, 5",
        "with x as (update t set v = v + 1 where id = 1 returning v) select * from x",
        "merge into t using (select 1 as id) s on t.id = s.id when matched then update set v = 3",
        "do $$ begin update t set v = v + 1 where id = 1; end $$",
        "prepare p as update t set v = v + 1 where id = 1; execute p; deallocate p",
        "begin; update t set v = v + 1 where id = 1; commit",
        "truncate t",
    ] {
        bench.check(write, NONE);
    }
}

#[test]
fn a_transaction_voids_the_keys_that_it_has_written() {
    let mut bench = Bench::new(TABLE);
    let two_rows = bench.behind(|writer| {
        for step in ["begin", "update t set v = 5 where id = 1", "update t set v = 6 where id = 2", "commit"] {
            succeed(&writer.query(step));
        }
    });
    assert_eq!(two_rows, NOT_ONE_AND_TWO);
    let and_the_table = bench.behind(|writer| {
        for step in ["begin", "update t set v = 7 where id = 1", "update t set v = v + 1 where v < 5", "commit"] {
            succeed(&writer.query(step));
        }
    });
    assert_eq!(and_the_table, NONE);
    let rolled_back = bench.behind(|writer| {
        for step in ["begin", "update t set v = 9 where id = 1", "rollback"] {
            succeed(&writer.query(step));
        }
    });
    assert_eq!(rolled_back, ALL);
    let savepoint = bench.behind(|writer| {
        for step in [
            "begin",
            "update t set v = 10 where id = 1",
            "savepoint s",
            "update t set v = 11 where id = 3",
            "rollback to s",
            "commit",
        ] {
            succeed(&writer.query(step));
        }
    });
    assert_eq!(savepoint, [false, true, false, false, false], "more than was written is fine");
    let prepared = bench.behind(|writer| {
        for step in ["begin", "update t set v = 12 where id = 1", "prepare transaction 'by key'"] {
            succeed(&writer.query(step));
        }
        succeed(&writer.query("commit prepared 'by key'"));
    });
    assert!(!prepared[0] && !prepared[3]);
    let failed = bench.behind(|writer| {
        assert_eq!(writer.query("update t set v = 1/0 where id = 1").sqlstate(), "22012");
    });
    assert_eq!(failed, ALL);
}

/// Bind of one parameter in binary format.
fn bind_binary(statement: &str, value: &[u8]) -> Vec<u8> {
    let mut body = [&b"\0"[..], statement.as_bytes(), b"\0"].concat();
    body.extend([0, 1, 0, 1, 0, 1]);
    body.extend((value.len() as u32).to_be_bytes());
    body.extend(value);
    body.extend([0, 0]);
    message(b'B', &body)
}

#[test]
fn a_parameter_is_the_same_key_in_every_form() {
    let mut bench = Bench::new(TABLE);
    let update = "update t set v = v + 1 where id = $1";
    let mut write = |messages: &[Vec<u8>]| {
        let messages = messages.concat();
        let found = bench.behind(|writer| succeed(&writer.exchange(&messages)));
        assert_eq!(found, NOT_ONE);
    };
    write(&[parse("", update), bind("", &["1"]), execute("", 0), sync()]);
    write(&[parse("", update), bind_binary("", &1_i32.to_be_bytes()), execute("", 0), sync()]);
    write(&[
        parse("", "update t set v = v + 1 where id = $1::bigint"),
        bind_binary("", &1_i64.to_be_bytes()),
        execute("", 0),
        sync(),
    ]);
    write(&[parse("", "update t set v = v + 1 where id = 1"), bind("", &[]), execute("", 0), sync()]);
    write(&[
        parse("named", "update t set v = v + 1 where id = $1::int2"),
        bind_binary("named", &1_i16.to_be_bytes()),
        execute("", 0),
        sync(),
    ]);
}

#[test]
fn a_statement_that_is_bound_again_and_again_writes_another_row_each_time() {
    let mut bench = Bench::new(TABLE);
    succeed(&bench.writer.prepare("w", "update t set v = v + 1 where id = $1"));
    succeed(&bench.reader.prepare("r", "select v from t where id = $1"));
    for round in 0..60 {
        let key = (round % 4 + 1).to_string();
        succeed(&bench.writer.execute("w", &[&key]));
        for key in ["1", "2", "3", "4"] {
            let shown = bench.reader.execute("r", &[key]).rows();
            assert_eq!(shown, bench.direct.query(&format!("select v from t where id = {key}")).rows());
        }
    }
    let several = [bind("w", &["1"]), execute("", 0), bind("w", &["2"]), execute("", 0), sync()].concat();
    let found = bench.behind(|writer| succeed(&writer.exchange(&several)));
    assert_eq!(found, NOT_ONE_AND_TWO);
    assert!(bench.proxy.show("CACHE").number("database", &bench.database, "hits") > 60);
}

/// Trailing blanks mean nothing in the old type, and PostgreSQL leaves the parameter what it was.
#[test]
fn a_parameter_that_was_typed_before_the_key_became_another_is_no_known_key() {
    let database = cluster().database();
    cluster().prepare(&database, "create table t(id char(8) primary key, v int); insert into t values ('abc', 0)");
    let proxy = Proxy::of(cluster(), &database).cached().set("default_pool_size", 1).start();
    let (mut reader, mut writer) = (proxy.session(&database), proxy.session(&database));
    reader.send(&[parse("s", "select v from t where id = $1"), sync()].concat());
    succeed(&reader.reply());
    let mut padded = || {
        reader.send(&[bind_as("", "s", &[Some("abc     ")], false), execute("", 0), sync()].concat());
        let reply = reader.reply();
        succeed(&reply);
        reply.rows().concat().concat()
    };
    assert_eq!(padded(), "0");
    succeed(
        &RawClient::session(&cluster().primary.address(), USER, &database).query("alter table t alter id type text"),
    );
    wait_until("rows to have cells", || {
        writer.query("select v from t where id = 'abc'");
        succeed(&writer.query("update t set v = v + 1 where id = 'abc'"));
        by_key(&proxy).is_some()
    });
    for _ in 0..20 {
        (0..3).for_each(|_| _ = padded());
        let now = writer.value("update t set v = v + 1 where id = 'abc' returning v");
        assert_eq!(padded(), now);
    }
}

#[test]
fn a_copy_voids_every_key() {
    let mut bench = Bench::new(TABLE);
    let found = bench.behind(|writer| {
        writer.send(&query("copy t from stdin"));
        writer.until(b'G');
        succeed(&writer.exchange(&[copy_data(b"700\t5\n"), copy_done()].concat()));
    });
    assert_eq!(found, NONE);
}

#[test]
fn what_is_added_to_a_table_later_counts() {
    let function = "create function spread() returns trigger language plpgsql as
        $$ begin update t set v = 77 where id = 2 and v <> 77; return null; end $$";
    let mut bench = Bench::new(&format!("{TABLE} {function}"));
    bench.check("update t set v = v + 1 where id = 1", NOT_ONE);
    bench.check("create trigger spreading after update on t for each row execute function spread()", NONE);
    let found = bench.behind(|writer| succeed(&writer.query("update t set v = v + 1 where id = 1")));
    assert!(!found[0] && !found[1], "{found:?}");
    succeed(&bench.writer.query("drop trigger spreading on t"));
    succeed(
        &bench
            .writer
            .query("create rule spreading as on update to t where old.id = 1 do also delete from t where id = 3"),
    );
    let found = bench.behind(|writer| succeed(&writer.query("update t set v = v + 1 where id = 1")));
    assert!(!found[0] && !found[2], "{found:?}");
    succeed(&bench.writer.query("drop rule spreading on t"));
    succeed(&bench.writer.query("create table heir () inherits (t); insert into heir values (1, 3), (2, 4)"));
    bench.check("update t set v = v + 1 where id = 1", NONE);
    bench.check("update heir set v = v + 1 where id = 2", NONE);
}

#[test]
fn a_key_that_refers_to_its_own_table_takes_other_rows_with_it() {
    let mut bench = Bench::new(&format!(
        "{TABLE} alter table t add up int references t on delete cascade; update t set up = 1 where id in (2, 3)"
    ));
    bench.check("delete from t where id = 1", NONE);
}

#[test]
fn texts_and_uuids_are_keys() {
    let schema = "create table t(id int primary key, v int); insert into t select i, 0 from generate_series(1, 9) i;
        create table w(id text primary key, v int); insert into w values ('a', 0), ('A', 0), ('ä', 0);
        create table c(id varchar(3) primary key, v int); insert into c values ('a', 0), ('b', 0);
        create table u(id uuid primary key, v int);
        insert into u values ('00000000-0000-0000-0000-00000000000a', 0), ('00000000-0000-0000-0000-00000000000b', 0)";
    let mut bench = Bench::new(schema);
    let reads = [
        "select v from w where id = 'a'",
        "select v from w where id = 'A'",
        "select v from w where id = 'ä'",
        "select v from c where id = 'b'",
        "select count(*) from c where id = 'new'",
        "select v from u where id = '00000000-0000-0000-0000-00000000000a'",
        "select v from u where id = '00000000-0000-0000-0000-00000000000B'::uuid",
    ];
    let writes = [
        "update w set v = v + 1 where id = 'a'",
        "update w set v = v + 1 where id = 'ä'",
        "update c set v = v + 1 where id = 'b'",
        "insert into c (id, v) values ('new   ', 0)",
        "delete from c where id = 'new'",
        "insert into c (id, v) values ('new', 0)",
        "update u set v = v + 1 where id = '{00000000-0000-0000-0000-00000000000A}'",
        "update u set v = v + 1 where id = '00000000-0000-0000-0000-00000000000b'",
    ];
    for _ in 0..12 {
        for write in writes {
            reads.iter().for_each(|read| _ = bench.ask(read));
            succeed(&bench.writer.query(write));
            reads.iter().for_each(|read| _ = bench.ask(read));
        }
        succeed(&bench.writer.query("delete from c where id = 'new'"));
    }
    let tables = bench.proxy.show("CACHE TABLES");
    for table in ["public.w", "public.c", "public.u"] {
        assert!(tables.number("relation", table, "by_key") > 0, "{table}");
    }
}

/// A spelling of a number that PostgreSQL reads, as the text of a parameter or literal.
fn spell(random: &mut Random, number: i64) -> String {
    match random.below(6) {
        0 => format!("{number:04}"),
        1 => format!(" {number}"),
        2 if number >= 0 => format!("+{number}"),
        _ => number.to_string(),
    }
}

#[test]
fn keys_that_postgres_finds_equal_have_equal_numbers() {
    let mut server = RawClient::session(&cluster().primary.address(), USER, "postgres");
    let mut random = Random::new(7);
    let (mut equal, mut known) = (0, 0);
    let mut check = |key: KeyType, of: [&str; 2], spelt: [&str; 2]| {
        let [one, other] = spelt;
        let found = server.value(&format!("select '{one}'::{} = '{other}'::{}", of[0], of[1])) == "t";
        let numbers = [one, other].map(|text| key.of_text(text.as_bytes()));
        if let [Some(one_number), Some(other_number)] = numbers {
            known += 1;
            assert_eq!(found, one_number == other_number, "{one:?} {other:?} as {of:?}");
        }
        equal += usize::from(found);
    };
    let integers = ["int2", "int4", "int8"];
    for _ in 0..400 {
        let number = random.below(40) as i64 - 20;
        let near = number + random.below(3) as i64 - 1;
        let spelt = [spell(&mut random, number), spell(&mut random, near)];
        let of = [integers[random.below(3)], integers[random.below(3)]];
        check(KeyType::Integer, of, [&spelt[0], &spelt[1]]);
    }
    for number in [i64::MAX, i64::MIN, 9_007_199_254_740_993] {
        let next = number ^ 1;
        check(KeyType::Integer, ["int8", "int8"], [&number.to_string(), &next.to_string()]);
        check(KeyType::Integer, ["int8", "int8"], [&number.to_string(), &number.to_string()]);
    }
    for _ in 0..200 {
        let digit = |random: &mut Random| char::from(b"0aAbB"[random.below(5)]);
        let spelt = [0, 1].map(|_| {
            let text = format!("00000000-0000-0000-0000-00000000000{}", digit(&mut random));
            match random.below(4) {
                0 => format!("{{{text}}}"),
                1 => text.replace('-', ""),
                _ => text,
            }
        });
        check(KeyType::Uuid, ["uuid", "uuid"], [&spelt[0], &spelt[1]]);
        let texts = ["a", "A", "a ", " a", "", "ab", "ä", "a\u{308}"];
        let spelt = [texts[random.below(8)], texts[random.below(8)]];
        let of = ["text", "varchar"];
        check(KeyType::Text, [of[random.below(2)], of[random.below(2)]], spelt);
    }
    assert!(equal > 100 && known > 300, "{equal} equal, {known} known");
}

#[test]
fn a_function_that_is_called_for_one_row_may_read_others() {
    let functions = "create function above(int) returns bigint language sql immutable as
         'select count(*) from t where v > (select v from t where id = $1)';
         create function above_atomic(int) returns bigint language sql immutable
         begin atomic select count(*) from t where v > (select v from t where id = $1); end;
         create function above_both(int) returns bigint language sql immutable as 'select above_atomic($1)';";
    let mut bench = Bench::new(&format!("{TABLE} {functions}"));
    for (number, function) in ["above", "above_atomic", "above_both"].into_iter().enumerate() {
        let read = format!("select {function}(id), v from t where id = 5");
        bench.warm_up();
        wait_until(&read, || bench.ask(&read));
        succeed(&bench.writer.query(&format!("update t set v = {} where id = 6", 100 + number)));
        assert!(!bench.ask(&read), "{read}");
        assert!(bench.ask("select v from t where id = 1"));
        succeed(&bench.writer.query("update t set v = 0 where id = 6"));
    }
}
