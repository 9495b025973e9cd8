use super::*;

/// parent <- child (cascade) <- grandchild (set null), and a table with a trigger behind a cascade.
fn family() -> World {
    let mut rows = Builder::new();
    let parent = rows.table("parent");
    let child = rows.table("child");
    let grandchild = rows.table("grandchild");
    rows.key(child, parent, 'c', 'c');
    rows.key(grandchild, child, 'n', 'a');
    let strict = rows.table("strict");
    rows.key(strict, child, 'a', 'a');
    let owner = rows.table("owner");
    let audited = rows.table("audited");
    rows.key(audited, owner, 'c', 'a');
    rows.trigger(audited, "BEGIN INSERT INTO log VALUES (1); RETURN NEW; END");
    let stamped = rows.table("stamped");
    rows.trigger(stamped, "BEGIN\n NEW.updated_at := now(); -- select\n RETURN NEW;\nEND;");
    let dynamic = rows.table("dynamic");
    rows.trigger(dynamic, "BEGIN EXECUTE 'x'; RETURN NEW; END").deferrable = true;
    rows.build()
}

#[test]
fn a_write_is_followed_through_foreign_keys() {
    let family = family();
    check(
        &[
            ("insert into parent values (1)", "parent"),
            ("insert into child values (1)", "child"),
            ("delete from parent", "child grandchild parent"),
            ("delete from parent using child where true", "child grandchild parent"),
            ("delete from child", "child grandchild"),
            ("delete from grandchild", "grandchild"),
            ("update parent set name = 'x'", "parent"),
            ("update parent set id = 2", "child parent"),
            ("update parent set (id, name) = (select 1, 'x')", "child parent"),
            ("update child set id = 2", "child"),
            ("insert into parent values (1) on conflict do nothing", "parent"),
            ("insert into parent values (1) on conflict (id) do update set name = 'x'", "parent"),
            ("insert into parent values (1) on conflict (id) do update set id = 3", "child parent"),
            ("truncate parent", "parent"),
            ("truncate parent, child", "child parent"),
            ("truncate parent cascade", "child grandchild parent strict"),
            ("copy parent from stdin", "parent"),
            ("with d as (delete from child returning *) select * from d", "child grandchild"),
            ("with d as (delete from child returning *) insert into parent select * from d", "child grandchild parent"),
            ("explain analyze delete from child", "child grandchild"),
            ("explain delete from child", "nothing"),
            ("merge into parent p using child c on p.id = c.id when matched then delete", "child grandchild parent"),
            ("merge into parent p using child c on true when not matched then insert values (1)", "parent"),
            ("merge into parent p using child c on true when matched then update set name = 'x'", "parent"),
            ("merge into parent p using child c on true when matched then do nothing", "nothing"),
            ("delete from owner", "! locks"),
            ("insert into owner values (1)", "owner"),
            ("update owner set name = 'x'", "owner"),
            ("insert into audited values (1)", "! locks"),
            ("insert into stamped values (1)", "stamped"),
            ("insert into dynamic values (1)", "! locks"),
            ("insert into nowhere values (1)", "! locks"),
            ("update pg_class set relname = 'x'", "! database"),
        ],
        |sql| family.writes(sql),
    );
}

#[test]
fn a_trigger_leaves_behind_what_its_words_allow() {
    let family = family();
    assert_eq!(family.effects("insert into stamped values (1)"), "");
    assert_eq!(family.effects("insert into dynamic values (1)"), "opaque");
    assert_eq!(family.effects("insert into audited values (1)"), "opaque", "what it writes may have such a trigger");
    assert!(family.meaning("insert into dynamic values (1)").deferred_constraints);
    assert!(family.meaning("insert into audited values (1)").deferred_constraints, "its locks may name such a table");
    assert!(!family.meaning("insert into stamped values (1)").deferred_constraints);
}

#[test]
fn trigger_bodies_are_judged_by_their_words() {
    use source::{Body, judge};
    let rows = [
        ("BEGIN RETURN NEW; END", Body::Computes),
        ("BEGIN NEW.a := lower(NEW.b); NEW.c = NEW.c + 1; RETURN NEW; END", Body::Computes),
        ("DECLARE n int := 1; BEGIN n := n + 1; NEW.n := n; RETURN NEW; END", Body::Computes),
        ("BEGIN IF NEW.* IS DISTINCT FROM OLD.* THEN NEW.at := now(); END IF; RETURN NEW; END", Body::Computes),
        ("BEGIN NEW.a := CASE WHEN NEW.b THEN lower('x') ELSE upper(NEW.c) END; RETURN NEW; END", Body::Computes),
        ("BEGIN IF TG_OP = 'DELETE' THEN RAISE EXCEPTION 'insert into'; END IF; RETURN OLD; END", Body::Computes),
        ("BEGIN INSERT INTO log VALUES (NEW.id); RETURN NEW; END", Body::RunsSql),
        ("BEGIN UPDATE posts SET n = n + 1 WHERE id = NEW.id; RETURN NEW; END", Body::RunsSql),
        ("BEGIN INSERT INTO a VALUES (1) ON CONFLICT DO NOTHING; RETURN NEW; END", Body::RunsSql),
        ("BEGIN PERFORM pg_notify('a', 'b'); RETURN NEW; END", Body::RunsSql),
        ("BEGIN NEW.a := (SELECT max(id) FROM t); RETURN NEW; END", Body::RunsSql),
        ("BEGIN NEW.a := id FROM t; RETURN NEW; END", Body::RunsSql),
        ("BEGIN EXECUTE format('x'); RETURN NEW; END", Body::Opaque),
        ("BEGIN SET LOCAL search_path = x; RETURN NEW; END", Body::Opaque),
        ("BEGIN UPDATE a SET b = 1; SET x = 2; RETURN NEW; END", Body::Opaque),
        ("BEGIN PERFORM set_config('a', 'b', false); RETURN NEW; END", Body::Opaque),
        ("BEGIN CREATE TEMP TABLE x (a int); RETURN NEW; END", Body::Opaque),
        ("BEGIN LISTEN x; RETURN NEW; END", Body::Opaque),
        ("BEGIN NEW.a := charge(1); RETURN NEW; END", Body::Opaque),
        ("BEGIN NEW.a := \"charge\"(1); RETURN NEW; END", Body::Opaque),
        ("BEGIN NEW.a := U&\"ch\\0061rge\"(1); RETURN NEW; END", Body::Opaque),
        ("BEGIN PERFORM query_to_xml('x', true, true, ''); RETURN NEW; END", Body::Opaque),
        ("BEGIN COMMIT; END", Body::Opaque),
    ];
    for (source, expected) in rows {
        assert_eq!(judge(source, |word| word == "charge").0, expected, "{source}");
    }
}

#[test]
fn writes_reach_ancestors_and_through_a_parent_all_descendants() {
    let mut rows = Builder::new();
    let root = rows.relation("events", 'p').oid;
    let middle = rows.relation("events_2024", 'p').oid;
    rows.rows.inheritance.push((middle, root));
    let leaf = rows.partition("events_2024_01", middle);
    rows.partition("events_2025", root);
    let log = rows.table("event_log");
    rows.key(log, leaf, 'c', 'a');
    let plain = rows.table("plain_parent");
    rows.partition("plain_child", plain);
    let numbers = rows.relation("numbers", 'S').oid;
    rows.rows.plumbing.push(99_999);
    let world = rows.build();
    check(
        &[
            ("insert into events_2025 values (1)", "events events_2025"),
            ("insert into events_2024_01 values (1)", "events events_2024 events_2024_01"),
            ("insert into events values (1)", "events events_2024 events_2024_01 events_2025"),
            ("delete from events_2024", "event_log events events_2024 events_2024_01"),
            ("update events set a = 1", "event_log events events_2024 events_2024_01 events_2025"),
            ("insert into plain_parent values (1)", "plain_parent"),
            ("update plain_parent set a = 1", "plain_child plain_parent"),
            ("update only plain_parent set a = 1", "plain_parent"),
            ("update plain_child set a = 1", "plain_child plain_parent"),
        ],
        |sql| world.writes(sql),
    );
    let locked = world.snapshot.expand_locked(&[leaf, 1259, numbers, 99_999, 77_777]);
    let named: Vec<_> = locked.iter().map(|oid| world.snapshot.relation_name(*oid)).collect();
    assert_eq!(locked.len(), 4, "three tables, and one that is not known yet: {named:?}");
}

#[test]
fn writes_through_a_view_reach_its_base_tables() {
    let mut rows = Builder::new();
    let base = rows.table("base");
    rows.view("simple", &format!(":relid {base}"));
    let ruled = rows.view("ruled", &format!(":relid {base}"));
    rows.rows.rules.push(RuleRow { relation: ruled, event: '3', action: String::new() });
    let triggered = rows.view("triggered", &format!(":relid {base}"));
    rows.trigger(triggered, "BEGIN RETURN NEW; END");
    let world = rows.build();
    assert_eq!(world.writes("update simple set a = 1"), "base");
    assert_eq!(world.writes("insert into ruled values (1)"), "! locks");
    assert_eq!(world.writes("insert into triggered values (1)"), "! locks");
}

#[test]
fn user_code_in_columns_makes_a_write_opaque() {
    let mut rows = Builder::new();
    let plain = rows.table("plain");
    let next = rows.builtin("nextval");
    rows.expression(plain, format!("{{FUNCEXPR :funcid {next}}}"));
    let uuid = rows.function("uuid_generate_v4", 'v', "c", 0).oid;
    rows.expression(plain, format!("{{FUNCEXPR :funcid {uuid}}}"));
    let slug = rows.function("slug", 'i', "sql", 1).oid;
    rows.expression(plain, format!("{{FUNCEXPR :funcid {slug}}}"));
    let checked = rows.table("checked");
    let valid = rows.function("is_valid", 's', "plpgsql", 1).oid;
    rows.expression(checked, format!("{{FUNCEXPR :funcid {valid}}}"));
    let numbered = rows.table("numbered");
    let number = rows.function("next_number", 'v', "plpgsql", 0).oid;
    rows.expression(numbered, format!("{{FUNCEXPR :funcid {number}}}"));
    let world = rows.build();
    assert_eq!(world.writes("insert into plain values (1)"), "plain");
    assert_eq!(world.writes("insert into checked values (1)"), "! locks");
    assert_eq!(world.writes("insert into numbered values (1)"), "! locks");
    assert_eq!(world.effects("insert into numbered values (1)"), "opaque");
}

#[test]
fn other_statements_write_as_far_as_can_be_known() {
    let shop = shop();
    check(
        &[
            ("select 1 from users", "nothing"),
            ("select nextval('ids')", "nothing"),
            ("select random(), pg_sleep(1)", "nothing"),
            ("select * from users for update", "nothing"),
            ("select uuid_generate_v4()", "nothing"),
            ("select pure()", "nothing"),
            ("select charge(1)", "! locks"),
            ("select u.row_charge from users u", "! locks"),
            ("select * from hidden_write", "! locks"),
            ("select many(id) from users", "! locks"),
            ("select query_to_xml('delete from users', true, true, '')", "! locks"),
            ("select ts_rewrite('a', 'select 1')", "! locks"),
            ("select dblink_exec('a', 'b')", "! database"),
            ("select * from nowhere", "! locks"),
            ("insert into users values (charge(1))", "! locks"),
            ("insert into remote values (1)", "! database"),
            ("insert into users select * from orders", "users"),
            ("refresh materialized view totals", "totals"),
            ("refresh materialized view concurrently totals", "totals"),
            ("do $$ begin end $$", "! database"),
            ("call charge(1)", "! database"),
            ("execute p(1)", "! locks"),
            ("prepare p as delete from users", "nothing"),
            ("create table x (a int)", "! database"),
            ("create table x as select 1", "! database"),
            ("select 1 as a into x", "! database"),
            ("create temp table x (a int)", "nothing"),
            ("create temp table x as select 1", "nothing"),
            ("select 1 as a into temp x", "nothing"),
            ("create index on users (id)", ""),
            ("create index concurrently on users (id)", ""),
            ("create index on users (lower(name))", "! database"),
            ("alter table users add column x int", "! database"),
            ("drop table users", "! database"),
            ("drop index users_pkey", ""),
            ("grant select on users to public", "nothing"),
            ("vacuum users", ""),
            ("analyze users", ""),
            ("listen x", "nothing"),
            ("commit prepared 'x'", "! database"),
            ("rollback prepared 'x'", "nothing"),
            ("insert into users values (1); insert into orders values (1)", "orders users"),
            ("insert into users values (1); select charge(1)", "! locks"),
            ("begin; select charge(1); commit", "! database"),
            ("begin; insert into users values (1); commit", "users"),
            ("declare c cursor for select charge(1)", "! locks"),
            ("declare c cursor with hold for select charge(1)", "! database"),
            ("set search_path = tenant; insert into users values (1)", "! locks"),
            ("begin; set local search_path = tenant; insert into users values (1); commit", "! database"),
            ("create temp view users as select 1; insert into users values (1)", "! locks"),
            ("select * from users where ((((", "! locks"),
            ("frobnicate the server", "! database"),
        ],
        |sql| shop.writes(sql),
    );
}
