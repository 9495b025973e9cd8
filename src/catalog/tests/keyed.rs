use super::{
    world::{PUBLIC, TENANT},
    *,
};
use crate::sql::Source;

/// What a statement is about: its table, and where the keys are found. `!` is a parameter that stands in one place alone.
fn about(world: &World, sql: &str) -> String {
    let Some(keyed) = &world.meaning(sql).keyed else { return "-".into() };
    let source = |source: &Source| match source {
        Source::Literal(number) => format!("'{number}"),
        Source::Parameter { number, is_alone } => format!("${}{}", number + 1, if *is_alone { "!" } else { "" }),
    };
    keyed.sources().iter().map(source).collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn check_about(world: &World, cases: &[(&str, &str)]) {
    check(cases, |sql| about(world, sql));
}

fn key(rows: &mut Builder, relation: u32, column: &str, type_oid: u32) {
    rows.rows.keys.push(KeyRow { relation, column: column.into(), type_oid });
}

/// A table with a key of each kind, and those whose rows are not known by it.
fn shop() -> World {
    let mut rows = Builder::new();
    for (name, type_oid) in [("item", 23), ("card", 2950), ("word", 25), ("label", 1043), ("price", 1700)] {
        let table = rows.table(name);
        key(&mut rows, table, "id", type_oid);
    }
    rows.table("heap");
    let other = rows.table_in(TENANT, "item");
    key(&mut rows, other, "id", 23);
    rows.view("all_items", ":relid 30001");
    let parted = rows.relation("parted", 'p').oid;
    key(&mut rows, parted, "id", 23);
    let part = rows.partition("part", parted);
    key(&mut rows, part, "id", 23);
    rows.relation("unlogged", 'r').persistence = 'u';
    let secured = rows.relation("secured", 'r');
    secured.row_security = true;
    let secured = secured.oid;
    key(&mut rows, secured, "id", 23);
    let generated = rows.relation("generated", 'r');
    generated.generated_columns = true;
    let generated = generated.oid;
    key(&mut rows, generated, "id", 23);
    let stamped = rows.table("stamped");
    key(&mut rows, stamped, "id", 23);
    rows.trigger(stamped, "BEGIN\n NEW.id := 7;\n RETURN NEW;\nEND;");
    let ruled = rows.table("ruled");
    key(&mut rows, ruled, "id", 23);
    rows.rows.rules.push(RuleRow { relation: ruled, event: '2', action: String::new() });
    let (parent, child, tree) = (rows.table("parent"), rows.table("child"), rows.table("tree"));
    [parent, child, tree].into_iter().for_each(|table| key(&mut rows, table, "id", 23));
    rows.key(child, parent, 'c', 'c');
    rows.key(tree, tree, 'c', 'a');
    let ring = rows.table("ring");
    key(&mut rows, ring, "id", 23);
    rows.key(ring, ring, 'a', 'c');
    rows.rows.foreign_keys.last_mut().unwrap().parent_columns = vec!["code".into()];
    let waiting = rows.table("waiting");
    key(&mut rows, waiting, "id", 23);
    rows.trigger(waiting, "BEGIN RETURN NEW; END").deferrable = true;
    let reads = rows.function("reads_items", 's', "sql", 1);
    reads.body = Some(":relid 30001".into());
    reads.source = None;
    rows.function("volatile", 'v', "plpgsql", 0);
    rows.build()
}

#[test]
fn a_read_of_one_table_by_its_key_is_about_a_row() {
    check_about(
        &shop(),
        &[
            ("select * from item where id = 5", "'0"),
            ("select * from item where id = $1", "$1!"),
            ("select 'a', v from item where 7 = id and v > 3", "'1"),
            ("select v from public.item i where i.id = $2 and v = $1", "$2!"),
            ("select v from item where item.id = $1 and (v = 1 and w = 2)", "$1!"),
            ("select v from item where v = $1 and (w > 1 and id = $2)", "$2!"),
            ("select v from tenant.item where id = '5'", "'0"),
            ("select v from item where id = 5::int", "'0"),
            ("select v from item where id = cast($1 as bigint)", "$1!"),
            ("select v from item where id = int8 '5'", "'0"),
            ("select count(*), max(v) from item where id = $1 having count(*) > 1 order by 1 limit 5", "$1!"),
            ("select v from only item where id = $1", "$1!"),
            ("select v, $1 from item where id = $1", "$1"),
            ("select v from item where id = $1 and id = $2", "$1!"),
            ("select v from card where id = $1::uuid", "$1!"),
            ("select v from word where id = 'x'::text", "'0"),
            ("select v from word where id = $1::varchar", "$1!"),
            ("select v from label where id = $1", "$1!"),
        ],
    );
}

#[test]
fn a_read_that_may_look_at_other_rows_is_not() {
    check_about(
        &shop(),
        &[
            ("select * from item", "-"),
            ("select * from item where v = 5", "-"),
            ("select * from item where id = 5 or v = 6", "-"),
            ("select * from item where not id = 5", "-"),
            ("select * from item where id > 5", "-"),
            ("select * from item where id in (5, 6)", "-"),
            ("select * from item where id = any($1)", "-"),
            ("select * from item where id = -5", "-"),
            ("select * from item where id = 5 + 1", "-"),
            ("select * from item where id = v", "-"),
            ("select * from item where id + 0 = 5", "-"),
            ("select * from item where id = null", "-"),
            ("select * from item where id = 5::numeric", "-"),
            ("select * from item where id = $1::text", "-"),
            ("select * from item where id = '5'::text::int", "-"),
            ("select * from item where id::text = '5'", "-"),
            ("select * from item where id operator(public.=) 5", "-"),
            ("select * from item where (id, v) = (5, 6)", "-"),
            ("select * from item where id is not distinct from 5", "-"),
            ("select * from item where other.id = 5", "-"),
            ("select * from item as i(v, id) where id = 5", "-"),
            ("select * from item i where item.id = 5", "-"),
            ("select * from word where id = 'x'::varchar(3)", "-"),
            ("select * from word where id = 'x' collate \"C\"", "-"),
            ("select * from item i, item j where i.id = 5", "-"),
            ("select * from item i join item j on i.v = j.v where i.id = 5", "-"),
            ("select * from item, heap where item.id = 5", "-"),
            ("select *, (select count(*) from item) from item where id = 5", "-"),
            ("select *, (select count(*) from heap) from item where id = 5", "-"),
            ("select * from item where id = 5 and exists (select from item j where j.v = 1)", "-"),
            ("select * from item where id = 5 union select * from item", "-"),
            ("select * from item where id = 5 union all select 1", "-"),
            ("with x as (select 1) select * from item where id = 5", "-"),
            ("select * from (select * from item) i where id = 5", "-"),
            ("select reads_items(1) from item where id = 5", "-"),
            ("select * from all_items where id = 5", "-"),
            ("select * from heap where id = 5", "-"),
            ("select * from price where id = 5", "-"),
            ("select * from parted where id = 5", "-"),
            ("select * from part where id = 5", "-"),
            ("select * from secured where id = 5", "-"),
            ("select * from unlogged where id = 5", "-"),
            ("select * from item where id = 5; select 1", "-"),
            ("explain select * from item where id = 5", "-"),
            ("declare c cursor for select * from item where id = 5", "-"),
            ("copy (select * from item where id = 5) to stdout", "-"),
            ("select * into copied from item where id = 5", "-"),
        ],
    );
}

#[test]
fn a_write_that_names_its_keys_is_about_these_rows() {
    check_about(
        &shop(),
        &[
            ("update item set v = v + 1 where id = 5", "'1"),
            ("update item i set v = $1 where i.id = $2 and v > 0 returning *", "$2!"),
            ("update item set (v, w) = (select 1, 2) where id = $1", "$1!"),
            ("delete from item where id = $1 returning v", "$1!"),
            ("delete from only item where id = 5 and v = 6", "'0"),
            ("insert into item (id, v) values (5, 6)", "'0"),
            ("insert into item (v, id) values ($1, $2), (7, '8') on conflict do nothing", "$2! '1"),
            ("insert into item (id, v) values ($1, random())", "$1!"),
            ("update parent set v = 1 where id = 5", "'1"),
            ("insert into parent (id) values (5)", "'0"),
            ("update child set id2 = 1 where id = 5", "'1"),
            ("update stamped set v = 1 where id = 5", "-"),
            ("update tree set v = 1 where id = 5", "'1"),
            ("insert into tree (id) values (5)", "'0"),
            ("update ring set v = 1 where id = 5", "'1"),
        ],
    );
}

#[test]
fn a_write_that_may_touch_other_rows_is_not() {
    check_about(
        &shop(),
        &[
            ("update item set v = 1", "-"),
            ("update item set id = 6 where id = 5", "-"),
            ("update item set (v, id) = (1, 6) where id = 5", "-"),
            ("update item set v = 1 where id = 5 or v = 2", "-"),
            ("update item set v = h.v from heap h where item.id = 5", "-"),
            ("with x as (select 1) update item set v = 1 where id = 5", "-"),
            ("with x as (delete from heap returning *) update item set v = 1 where id = 5", "-"),
            ("update item set v = volatile() where id = 5", "-"),
            ("delete from item using heap where item.id = 5", "-"),
            ("delete from item where id = 5; delete from item where id = 6", "-"),
            ("insert into item values (5, 6)", "-"),
            ("insert into item (v) values (6)", "-"),
            ("insert into item (id, v) values (default, 6)", "-"),
            ("insert into item (id, v) values (5, 6), (5 + 1, 7)", "-"),
            ("insert into item (id, v) select 5, 6", "-"),
            ("insert into item (id, v) overriding user value values (5, 6)", "-"),
            ("insert into item (id, v) values (5, 6) on conflict (id) do update set v = 7", "-"),
            ("insert into item default values", "-"),
            ("merge into item using heap on item.id = 5 when matched then delete", "-"),
            ("copy item from stdin", "-"),
            ("truncate item", "-"),
            ("update all_items set v = 1 where id = 5", "-"),
            ("update parted set v = 1 where id = 5", "-"),
            ("update part set v = 1 where id = 5", "-"),
            ("update secured set v = 1 where id = 5", "-"),
            ("update generated set v = 1 where id = 5", "-"),
            ("insert into stamped (id) values (5)", "-"),
            ("update ruled set v = 1 where id = 5", "-"),
            ("update waiting set v = 1 where id = 5", "-"),
            ("delete from parent where id = 5", "-"),
            ("delete from tree where id = 5", "-"),
            ("update ring set code = 1 where id = 5", "-"),
            ("explain analyze update item set v = 1 where id = 5", "-"),
        ],
    );
}

#[test]
fn where_names_may_mean_something_else_nothing_is_about_rows() {
    let shop = shop();
    for sql in ["select * from item where id = 5", "update public.item set v = 1 where id = 5"] {
        let statement = shop.statement(sql);
        assert!(shop.snapshot.meaning(&statement, "app").keyed.is_some());
        assert!(shop.snapshot.meaning_anywhere(&statement).keyed.is_none(), "{sql}");
        assert!(shop.snapshot.meaning_shadowed(&statement).keyed.is_none(), "{sql}");
    }
}

#[test]
fn a_type_of_a_user_is_not_taken_for_the_servers() {
    let mut rows = Builder::new();
    let item = rows.table("item");
    key(&mut rows, item, "id", 23);
    rows.rows.search_path = Some("public, pg_catalog".into());
    rows.type_row(40_000, "int8", PUBLIC, 'b');
    check_about(
        &rows.build(),
        &[("select * from item where id = '5'::int8", "-"), ("select * from item where id = '5'::bigint", "'0")],
    );
}
