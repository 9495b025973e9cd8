//! Relations whose changes the stream tells of, and what hangs on them.

use super::*;

/// `parts` is partitioned into `part_a` and `part_b`; `base` has the child `derived`.
fn world(heard: impl FnOnce(&dyn Fn(&str) -> u32) -> HeardRows) -> World {
    let mut rows = Builder::new();
    rows.table("users");
    rows.table("orders");
    rows.relation("totals", 'm');
    let parts = rows.relation("parts", 'p').oid;
    rows.partition("part_a", parts);
    rows.partition("part_b", parts);
    let base = rows.table("base");
    rows.partition("derived", base);
    let users = rows.rows.relations.iter().find(|row| row.name == "users").unwrap().oid;
    rows.view("names", &format!(":relid {users}"));
    let relations = rows.rows.relations.clone();
    let oid = |name: &str| relations.iter().find(|row| row.name == name).unwrap().oid;
    rows.rows.heard = Some(heard(&oid));
    rows.build()
}

#[track_caller]
fn check_kept(world: &World, kept: &str, expected: &str) {
    for name in kept.split_whitespace() {
        let cacheable = world.meaning(&format!("select * from {name}")).cacheable.clone();
        let found = cacheable.map_or_else(Bypass::label, |_| "kept");
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn only_what_is_published_is_kept() {
    let world = world(|oid| HeardRows { published: vec![oid("users"), oid("part_a")], ..HeardRows::default() });
    check_kept(&world, "users names part_a", "kept");
    check_kept(&world, "orders part_b parts base derived users,orders", "not_published");
    check_kept(&world, "totals", "refresh_unheard");
}

#[test]
fn partitions_are_published_with_their_parent_where_the_publication_says_so() {
    let world = world(|oid| HeardRows { published: vec![oid("parts")], via_root: true, ..HeardRows::default() });
    check_kept(&world, "parts part_a part_b", "kept");
    check_kept(&world, "users", "not_published");
}

#[test]
fn triggers_tell_of_a_child_only_if_its_parents_have_them_too() {
    let alone = world(|oid| HeardRows { triggered: vec![oid("derived"), oid("users")], ..HeardRows::default() });
    check_kept(&alone, "users", "kept");
    check_kept(&alone, "derived base", "not_published");
    let both = world(|oid| HeardRows { triggered: vec![oid("derived"), oid("base")], ..HeardRows::default() });
    check_kept(&both, "derived base", "kept");
}

#[test]
fn materialised_views_are_kept_where_refreshes_are_told() {
    let world = world(|_| HeardRows { definitions: true, ..HeardRows::default() });
    check_kept(&world, "totals", "kept");
}

#[test]
fn where_nobody_listens_everything_is_kept() {
    let mut rows = Builder::new();
    rows.table("users");
    rows.relation("totals", 'm');
    check_kept(&rows.build(), "users totals", "kept");
}

#[test]
fn what_the_stream_names_is_voided_with_its_family() {
    let world = world(|_| HeardRows::default());
    let oid = |name: &str| world.snapshot.relation_named("public", name).unwrap().0;
    let names = |rows: &[&str], named: &[&str]| {
        let of = |names: &[&str]| names.iter().map(|name| oid(name)).collect::<Vec<_>>();
        world.snapshot.expand_heard(&of(rows), &of(named)).map(|found| world.names(&found))
    };
    let some = |names: &str| Some(names.to_owned());
    assert_eq!(names(&["users"], &[]), some("users"));
    assert_eq!(names(&["part_a"], &[]), some("part_a parts"), "a row of a leaf");
    assert_eq!(names(&["parts"], &[]), some("part_a part_b parts"), "rows of leaves under the name of the root");
    assert_eq!(names(&["base"], &[]), some("base"), "a row of its own");
    assert_eq!(names(&["derived"], &[]), some("base derived"));
    assert_eq!(names(&[], &["base"]), some("base derived"), "a statement");
    assert_eq!(names(&["users"], &["part_b"]), some("part_b parts users"));
    assert_eq!(world.snapshot.expand_heard(&[oid("users"), 99_999], &[]), None);
    assert_eq!(world.snapshot.expand_heard(&[], &[99_999]), None);
}
