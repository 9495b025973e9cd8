//! Labels that lie, and code that runs unseen.

use super::*;

/// A labelled function `f` with this body, over a few objects of every kind.
fn labelled(language: &str, volatility: char, source: &str) -> World {
    let mut rows = Builder::new();
    rows.table("items");
    rows.table_in(world::TENANT, "staged");
    rows.table("staged");
    rows.relation("scratch", 'r').persistence = 'u';
    rows.rows
        .relations
        .iter_mut()
        .find(|row| row.name == "staged" && row.schema == world::TENANT)
        .unwrap()
        .persistence = 'u';
    rows.relation("ids", 'S');
    rows.relation("remote", 'f');
    let unlogged = rows.rows.relations.iter().find(|row| row.name == "scratch").unwrap().oid;
    rows.view("over_scratch", &format!(":relid {unlogged}"));
    rows.function("charge", 'v', "plpgsql", 1);
    rows.function("honest", 's', "sql", 1).source = Some("select max(id) from items".into());
    rows.function("liar", 's', "sql", 1).source = Some("select charge(1)".into());
    rows.function("of_row", 'v', "plpgsql", 1).takes_row = true;
    let odd = rows.function("odd", 'v', "plpgsql", 2).oid;
    rows.rows.operators.push(OperatorRow {
        name: "@@@".into(),
        schema: world::PUBLIC,
        function: odd,
        types: vec![25, 25],
    });
    rows.function("f", volatility, language, 0).source = Some(source.into());
    rows.build()
}

#[test]
fn a_label_is_believed_unless_the_body_names_what_a_standby_refuses() {
    for (source, expected) in [
        ("select count(*) from items", "read"),
        ("select honest(1)", "read"),
        ("select 'charge(1)' -- nextval('ids')", "read"),
        ("select now(), random(), clock_timestamp()", "read"),
        ("select current_setting('app.tenant', true)", "read"),
        ("select charge from items", "read"),
        ("select * from staged", "read"),
        ("with scratchy as (select 1) select * from scratchy", "read"),
        ("select current_setting('in_hot_standby')", "mislabelled_function"),
        ("select current_setting($1)", "mislabelled_function"),
        ("select nextval('ids')", "mislabelled_function"),
        ("select pg_catalog . nextval ('ids')", "mislabelled_function"),
        ("select last_value from ids", "mislabelled_function"),
        ("select charge(1)", "mislabelled_function"),
        ("select public.charge(1)", "mislabelled_function"),
        ("select \"charge\" (1)", "mislabelled_function"),
        ("select CHARGE/* */(1)", "mislabelled_function"),
        ("select liar(1)", "mislabelled_function"),
        ("select x.of_row from items x", "mislabelled_function"),
        ("select 'a' @@@ 'b'", "mislabelled_function"),
        ("select pg_advisory_lock(1)", "mislabelled_function"),
        ("select * from scratch", "mislabelled_function"),
        ("select * from over_scratch", "mislabelled_function"),
        ("select * from tenant.staged", "mislabelled_function"),
        ("select * from remote", "mislabelled_function"),
        ("select * from pg_class", "mislabelled_function"),
        ("select * from information_schema.tables", "mislabelled_function"),
        ("select query_to_xml('select 1', true, true, '')", "mislabelled_function"),
        ("select U&\"ch\\0061rge\"(1)", "opaque_function"),
    ] {
        for volatility in ['s', 'i'] {
            assert_eq!(labelled("sql", volatility, source).access("select f()"), expected, "{volatility} {source}");
        }
        let body = format!("begin return query {source}; end");
        assert_eq!(labelled("plpgsql", 's', &body).access("select f()"), expected, "{body}");
    }
}

#[test]
fn what_cannot_be_looked_into_is_not_believed() {
    for (language, volatility, source, expected) in [
        ("plpgsql", 's', "begin execute format('select 1 from %I', t); end", "opaque_function"),
        ("plpgsql", 'i', "begin return 'execute'; end", "read"),
        ("plperl", 's', "return spi_exec_query('select 1');", "opaque_function"),
        ("plperl", 's', "return lc($_[0]);", "read"),
        ("plpython3u", 'i', "return plpy.execute('select 1')", "opaque_function"),
        ("plpython3u", 'i', "return 1", "read"),
        ("plr", 'i', "1", "opaque_function"),
        ("c", 's', "hash", "read"),
        ("c", 's', "crosstab_hash", "opaque_function"),
    ] {
        assert_eq!(labelled(language, volatility, source).access("select f()"), expected, "{language} {source}");
    }
}

#[test]
fn a_path_of_its_own_tells_a_function_where_to_look() {
    let mut rows = Builder::new();
    rows.table("staged");
    rows.table_in(world::TENANT, "staged");
    rows.rows.relations.last_mut().unwrap().persistence = 'u';
    rows.function("along", 's', "sql", 0).source = Some("select 1 from staged".into());
    let function = rows.function("own", 's', "sql", 0);
    function.source = Some("select 1 from staged".into());
    function.search_path = Some("tenant, pg_temp".into());
    let world = rows.build();
    assert_eq!(world.access("select along()"), "read");
    assert_eq!(world.access("select own()"), "mislabelled_function");
}

#[test]
fn what_a_mislabelled_function_may_write_is_voided() {
    let world = labelled("sql", 's', "select charge(1)");
    assert_eq!(world.writes("select f()"), "! locks");
    assert_eq!(world.effects("select f()"), "opaque");
    assert_eq!(labelled("sql", 'i', "select charge(1)").cache("select f() from items"), "! user_function");
    assert_eq!(labelled("sql", 's', "select * from scratch").writes("select f()"), "nothing");
}

#[test]
fn functions_that_name_each_other_are_looked_into_once() {
    let mut rows = Builder::new();
    for index in 0..40 {
        let next = |step| format!("select f{}()", (index + step) % 40);
        rows.function(&format!("f{index}"), 's', "sql", 0).source = Some([next(1), next(2), next(7)].join(";"));
    }
    assert_eq!(rows.build().access("select f0()"), "read");
}

#[test]
fn what_stands_in_for_an_argument_is_evaluated_whatever_the_label() {
    let mut rows = Builder::new();
    let nextval = rows.builtin("nextval");
    let function = rows.function("numbered", 'i', "sql", 1);
    function.defaults = 1;
    function.default_values = Some(format!("({{FUNCEXPR :funcid {nextval} :funcresulttype 20}})"));
    rows.function("caller", 's', "sql", 0).source = Some("select numbered()".into());
    let world = rows.build();
    assert_eq!(world.access("select numbered(1)"), "read");
    assert_eq!(world.access("select numbered()"), "volatile_function");
    assert_eq!(world.access("select caller()"), "mislabelled_function");
}

#[test]
fn a_value_becomes_one_of_a_domain_wherever_the_domain_is_a_part() {
    let mut rows = Builder::new();
    rows.table("plain");
    let check = rows.function("checked", 'v', "plpgsql", 1).oid;
    let domain = rows.type_row(41_000, "strict", world::PUBLIC, 'd');
    (domain.functions, domain.base) = (vec![check], 23);
    rows.type_row(41_001, "boxed", world::PUBLIC, 'c').parts.push(41_000);
    rows.type_row(41_002, "boxes", world::PUBLIC, 'b').parts.extend([41_001, 41_002]);
    rows.table_of("holder", 41_000);
    rows.function("takes", 'i', "sql", 1).types.push(41_000);
    let world = rows.build();
    check_all(&world, &["select 1::strict", "select row(1)::boxed", "select null::boxes", "select takes(1)"]);
    assert_eq!(world.access("select * from holder"), "read", "it was checked when it was written");
}

#[test]
fn code_without_a_label_that_runs_unseen_is_judged_by_its_body() {
    for (language, source, expected) in [
        ("plpgsql", "begin return $1 <> 0; end", "read"),
        ("sql", "select $1 <> 0", "read"),
        ("sql", "select lower($1); select case when true then 1 else 2 end", "read"),
        ("plpgsql", "begin perform charge(1); return $1; end", "unseen_code"),
        ("plpgsql", "begin return charge($1); end", "unseen_code"),
        ("plpgsql", "begin execute 'x'; return $1; end", "unseen_code"),
        ("sql", "select charge($1)", "unseen_code"),
        ("sql", "insert into plain values (1) returning true", "unseen_code"),
        ("sql", "with x as (delete from plain returning 1) select true", "unseen_code"),
        ("sql", "select true from plain for key share", "unseen_code"),
        ("sql", "select 1; notify x; select true", "unseen_code"),
        ("plperl", "return 1", "unseen_code"),
        ("c", "int_to_bool", "unseen_code"),
    ] {
        let mut rows = Builder::new();
        rows.table("plain");
        rows.function("charge", 'v', "plpgsql", 1);
        let cast = rows.function("int_to_bool", 'v', language, 1);
        cast.source = Some(source.into());
        let cast = cast.oid;
        rows.rows.unseen.push(UnseenRow { function: cast, types: vec![23, 16] });
        let world = rows.build();
        assert_eq!(world.access("select id from plain"), expected, "{language} {source}");
        assert_eq!(world.cache("select id from plain"), "! user_operator", "{language} {source}");
        assert_eq!(world.access("select int_to_bool(1)"), "volatile_function", "by name its label counts");
    }
}

#[track_caller]
fn check_all(world: &World, volatile: &[&str]) {
    for sql in volatile {
        assert_eq!(world.access(sql), "volatile_function", "{sql}");
    }
}

const MONEY: u32 = 40_001;

/// A type `cash` whose cast from integer is by a volatile function, and things that are made of it.
fn bank() -> World {
    let mut bank = Builder::new();
    bank.table("plain");
    bank.type_row(MONEY, "cash", world::PUBLIC, 'b');
    bank.type_row(MONEY + 1, "_cash", world::PUBLIC, 'b').parts.push(MONEY);
    let accounts = bank.table_of("accounts", MONEY);
    bank.table_of("ledgers", MONEY + 1);
    bank.view("owners", &format!(":relid {accounts}"));
    let cast = bank.function("to_cash", 'v', "plpgsql", 1);
    cast.types = vec![MONEY];
    let cast = cast.oid;
    bank.rows.unseen.push(UnseenRow { function: cast, types: vec![23, MONEY] });
    bank.function("cash", 'i', "sql", 1);
    bank.function("interest", 's', "sql", 1).types = vec![MONEY];
    bank.function("sum_up", 's', "sql", 0).source = Some("select 1 from accounts".into());
    let same = bank.function("same_cash", 'v', "plpgsql", 2);
    same.types = vec![MONEY];
    let same = same.oid;
    bank.rows.operators.push(OperatorRow {
        name: "=".into(),
        schema: world::PUBLIC,
        function: same,
        types: vec![MONEY, MONEY],
    });
    bank.build()
}

#[test]
fn volatile_casts_and_comparisons_concern_whoever_has_to_do_with_their_type() {
    let bank = bank();
    check(
        &[
            ("select * from plain where id = 1", "read"),
            ("select distinct id from plain order by 1", "read"),
            ("select id::text from plain", "read"),
            ("select 1::cash", "unseen_code"),
            ("select cash(1)", "unseen_code"),
            ("select cast(id as cash) from plain", "unseen_code"),
            ("select null::cash[]", "unseen_code"),
            ("select null::accounts", "unseen_code"),
            ("select distinct owner from accounts", "unseen_code"),
            ("select count(*) from accounts", "unseen_code"),
            ("select * from ledgers", "unseen_code"),
            ("select * from owners", "unseen_code"),
            ("select interest(id) from plain", "unseen_code"),
            ("select sum_up()", "mislabelled_function"),
            ("select to_cash(1)", "unseen_code"),
        ],
        |sql| bank.access(sql).into(),
    );
    assert_eq!(bank.writes("insert into accounts values (1)"), "! locks", "the cast may write as well");
    assert_eq!(bank.writes("insert into plain values (1)"), "plain");
}

#[test]
fn a_volatile_cast_between_types_of_the_server_may_be_at_work_anywhere() {
    let mut rows = Builder::new();
    rows.table("plain");
    let cast = rows.function("int_to_bool", 'v', "plpgsql", 1).oid;
    rows.rows.unseen.push(UnseenRow { function: cast, types: vec![23, 16] });
    let world = rows.build();
    assert_eq!(world.access("select 1 from plain"), "unseen_code");
    let mut rows = Builder::new();
    rows.table("plain");
    let cast = rows.function("int_to_bool", 'i', "plpgsql", 1).oid;
    rows.rows.unseen.push(UnseenRow { function: cast, types: vec![23, 16] });
    assert_eq!(rows.build().access("select 1 from plain"), "read");
}
