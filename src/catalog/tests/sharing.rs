//! Whose answers may be anybody's.

use super::{
    world::{APP, TENANT},
    *,
};
use crate::catalog::sharing::{Apart, apart};

const GROUP: u32 = 18_010;
const MEMBER: u32 = 18_011;
const ROOT: u32 = 18_012;
const TUNED: u32 = 18_013;
const SECRET: u32 = 20_002;

/// `users` and `owned` may be read by `app` and `member`, by way of `group`; the others by nobody.
fn world(change: impl FnOnce(&mut Builder)) -> World {
    let mut rows = Builder::new();
    for (oid, name, superuser) in
        [(GROUP, "group", false), (MEMBER, "member", false), (ROOT, "root", true), (TUNED, "tuned", false)]
    {
        rows.rows.roles.push(RoleRow { oid, name: name.into(), superuser });
    }
    rows.rows.memberships = vec![(MEMBER, GROUP)];
    rows.rows.roles_with_settings = vec!["tuned".into()];
    rows.rows.schemas.push(SchemaRow { oid: SECRET, name: "secret".into(), users: vec![APP] });
    let (users, private) = (rows.table("users"), rows.table("private"));
    let secret = rows.table_in(SECRET, "users");
    let lower = rows.builtin("lower");
    let owned = rows.view("owned", &format!("{{RTE :relid {private}}} {{OPEXPR :opfuncid {lower}}}"));
    let invoked = rows.view("invoked", &format!("{{RTE :relid {private}}}"));
    rows.rows.relations.last_mut().unwrap().security_invoker = true;
    let around = rows.view("around", &format!("{{RTE :relid {invoked}}}"));
    let guarded = rows.relation("guarded", 'r');
    guarded.row_security = true;
    let guarded = guarded.oid;
    let readers = vec![APP, GROUP, TUNED];
    rows.rows.readers.extend([users, secret, owned, invoked, around, guarded].map(|oid| (oid, readers.clone())));
    rows.rows.readers.push((private, vec![APP]));
    let restricted = rows.function("native", 'i', "c", 1).oid;
    rows.rows.restricted.push(RestrictedRow { function: restricted, users: vec![APP], unseen: false });
    let calling = rows.view("calling", &format!("{{RTE :relid {users}}} {{FUNCEXPR :funcid {restricted}}}"));
    rows.rows.readers.push((calling, readers));
    rows.function("free", 'i', "c", 1);
    rows.function("plus_one", 'i', "sql", 1);
    let sum = rows.function("sum_native", 'a', "internal", 1);
    (sum.kind, sum.volatility, sum.support) = ('a', 'i', vec![restricted]);
    change(&mut rows);
    rows.build()
}

fn of(world: &World, role: &str, path: &str, sql: &str) -> Option<Apart> {
    let path = world.snapshot.path_along(role, None, Some(path));
    let statement = world.statement(sql);
    let found = apart(&world.snapshot, &statement, &world.snapshot.path(path), role);
    assert_eq!(world.snapshot.is_anybodys(&statement, path, role), found.is_none(), "{sql}");
    found
}

#[test]
fn whoever_has_the_rights_to_all_that_is_read_shares() {
    let world = world(|_| {});
    for (sql, member) in [
        ("select * from users", None),
        ("select * from public.users u join users v using (id)", None),
        ("select lower(name), free(id) from users where id = 1", None),
        ("select * from owned", None),
        ("select * from private", Some(Apart::Relation)),
        ("select * from invoked", Some(Apart::Relation)),
        ("select * from around", Some(Apart::Relation)),
        // The view hides the table that the statement names as well.
        ("select * from owned, private", Some(Apart::Relation)),
        ("select (select count(*) from private) from users", Some(Apart::Relation)),
        ("select * from secret.users", Some(Apart::Schema)),
        ("select native(id) from users", Some(Apart::Function)),
        // Its parts are called by the rights of the aggregate's owner.
        ("select sum_native(id) from users", None),
        ("select * from calling", Some(Apart::Function)),
        ("select id from users order by native(id)", Some(Apart::Function)),
    ] {
        assert_eq!(of(&world, "member", "public", sql), member, "{sql}");
        assert_eq!(of(&world, "app", "public", sql), None, "{sql}");
        assert_eq!(of(&world, "root", "public", sql), None, "{sql}");
        assert!(of(&world, "outsider", "public", sql).is_some(), "{sql}");
    }
}

#[test]
fn what_is_not_kept_or_not_understood_is_nobody_else_s() {
    let world = world(|_| {});
    for (sql, expected) in [
        ("select * from guarded", Apart::NotKept),
        ("select now() from users", Apart::NotKept),
        ("select current_user from users", Apart::NotKept),
        ("select 1 from users; select 2 from users", Apart::NotKept),
        ("select * from nowhere", Apart::NotKept),
        ("select plus_one(id) from users", Apart::Code),
    ] {
        assert_eq!(of(&world, "app", "public", sql), Some(expected), "{sql}");
    }
    let read = "select * from users";
    assert_eq!(of(&world, "nobody", "public", read), Some(Apart::UnknownRole));
    assert_eq!(of(&world, "tuned", "public", read), Some(Apart::RoleSettings));
    assert_eq!(of(&world, "app", "pg_temp_3", read), Some(Apart::UnknownPath));
}

#[test]
fn a_database_where_more_than_rights_tells_roles_apart_shares_nothing() {
    let read = "select * from users";
    let labelled = world(|rows| rows.rows.tells_roles_apart = true);
    assert_eq!(of(&labelled, "root", "public", read), Some(Apart::Database));
    for (language, expected) in [("c", None), ("sql", Some(Apart::Database))] {
        let cast = world(|rows| {
            let function = rows.function("cast_to", 'i', language, 1).oid;
            rows.rows.unseen.push(UnseenRow { function, types: vec![40_000, 25] });
        });
        assert_eq!(of(&cast, "app", "public", read), expected, "{language}");
    }
}

#[test]
fn what_is_called_or_named_unseen_takes_rights_as_well() {
    let read = "select * from users";
    let operator = world(|rows| {
        let function = rows.function("behind", 'i', "c", 2).oid;
        rows.rows.restricted.push(RestrictedRow { function, users: vec![APP], unseen: true });
    });
    assert_eq!(of(&operator, "app", "public", read), None);
    assert_eq!(of(&operator, "member", "public", read), Some(Apart::Function));
    let dictionary = world(|rows| rows.rows.named_in_literals = vec![TENANT, SECRET]);
    assert_eq!(of(&dictionary, "app", "public", read), None);
    assert_eq!(of(&dictionary, "member", "public", read), Some(Apart::Schema));
    let catalog = world(|rows| rows.rows.schemas[0].users = vec![APP]);
    assert_eq!(of(&catalog, "member", "public", read), Some(Apart::Schema));
}

#[test]
fn whoever_has_the_rights_of_pg_read_all_data_may_read_everything() {
    let world = world(|rows| {
        rows.rows.roles.push(RoleRow { oid: 18_020, name: "pg_read_all_data".into(), superuser: false });
        rows.rows.memberships.push((MEMBER, 18_020));
    });
    assert_eq!(of(&world, "member", "public", "select * from private, secret.users"), None);
    assert_eq!(of(&world, "member", "public", "select native(id) from private"), Some(Apart::Function));
}
