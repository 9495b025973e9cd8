//! Search paths of sessions that have set one, or taken another role.

use super::{
    world::{APP, PUBLIC, TENANT},
    *,
};

const GROUP: u32 = 18_010;
const OWNER: u32 = 18_011;
const READER: u32 = 18_012;
const ROOT: u32 = 18_013;
const STORES: u32 = 20_001;
const SECRET: u32 = 20_002;

/// `users` in each of three schemas: `public` and `tenant` for everybody, `secret` for `group` alone.
fn world() -> World {
    let mut rows = Builder::new();
    for (oid, name, superuser) in [
        (GROUP, "group", false),
        (OWNER, "owner", false),
        (READER, "reader", false),
        (ROOT, "root", true),
        (18_014, "pg_read_all_data", false),
    ] {
        rows.rows.roles.push(RoleRow { oid, name: name.into(), superuser });
    }
    // `owner` has the rights of `tenant`, which has those of `group`.
    rows.rows.memberships = vec![(OWNER, 18_002), (18_002, GROUP), (READER, 18_014)];
    for (oid, name, users) in [(STORES, "odd, name", vec![0]), (SECRET, "secret", vec![GROUP])] {
        rows.rows.schemas.push(SchemaRow { oid, name: name.into(), users });
    }
    for schema in [PUBLIC, TENANT, SECRET] {
        rows.table_in(schema, "users");
    }
    rows.table_in(STORES, "stores");
    rows.rows.role_search_paths.push(("reporter".into(), "secret, public".into()));
    rows.build()
}

fn schemas(world: &World, user: &str, role: Option<&str>, setting: Option<&str>) -> Option<Vec<u32>> {
    let snapshot = &world.snapshot;
    let all = snapshot.schemas_of(snapshot.path_along(user, role, setting))?;
    Some(all.into_iter().filter(|schema| *schema != world::PG_CATALOG).collect())
}

#[test]
fn a_setting_leads_to_the_schemas_that_exist() {
    let world = world();
    for (setting, expected) in [
        ("tenant, public", &[TENANT, PUBLIC][..]),
        ("public,tenant", &[PUBLIC, TENANT]),
        (" Tenant ,\tPUBLIC\n", &[TENANT, PUBLIC]),
        ("\"Tenant\", public", &[PUBLIC]),
        ("\"odd, name\"", &[STORES]),
        ("nowhere, public, public", &[PUBLIC]),
        ("pg_temp, public", &[PUBLIC]),
        ("", &[]),
        ("\"\"", &[]),
        ("\"$user\"", &[]),
        ("tenant\u{a0}, public", &[PUBLIC]),
    ] {
        assert_eq!(schemas(&world, "app", None, Some(setting)).as_deref(), Some(expected), "{setting:?}");
    }
    let explicit = world.snapshot.path_along("app", None, Some("tenant, pg_catalog"));
    assert_eq!(world.snapshot.schemas_of(explicit), Some(vec![TENANT, world::PG_CATALOG]));
}

#[test]
fn what_cannot_be_told_is_no_path() {
    let world = world();
    let long = "x".repeat(64);
    for setting in ["pg_toast, public", "pg_temp_3", "\"pg_toast_temp_3\"", long.as_str()] {
        assert_eq!(schemas(&world, "app", None, Some(setting)), None, "{setting:?}");
    }
    assert_eq!(schemas(&world, "app", Some("nobody"), Some("public")), None, "a role made a moment ago");
    assert_eq!(schemas(&world, "nobody", None, None), None);
    assert_eq!(schemas(&world, "nobody", Some("app"), Some("public")).as_deref(), Some(&[PUBLIC][..]));
    let mut latin1 = Builder::new();
    latin1.rows.utf8 = false;
    let latin1 = latin1.build();
    assert_eq!(schemas(&latin1, "app", None, Some("Ärger, public")), None, "folded by rules of its own");
    let mut unknown = Builder::new();
    unknown.rows.search_path = None;
    let unknown = unknown.build();
    assert_eq!(schemas(&unknown, "app", None, None), None);
    assert_eq!(schemas(&unknown, "app", None, Some("public")).as_deref(), Some(&[PUBLIC][..]));
}

#[test]
fn schemas_without_the_right_to_use_them_are_left_out() {
    let world = world();
    for (user, role, expected) in [
        ("app", None, &[PUBLIC][..]),
        ("app", Some("group"), &[SECRET, PUBLIC]),
        ("app", Some("tenant"), &[SECRET, PUBLIC]),
        ("app", Some("owner"), &[SECRET, PUBLIC]),
        ("app", Some("reader"), &[SECRET, PUBLIC]),
        ("app", Some("root"), &[SECRET, PUBLIC]),
        ("owner", Some("app"), &[PUBLIC]),
        ("root", Some("app"), &[PUBLIC]),
    ] {
        assert_eq!(schemas(&world, user, role, Some("secret, public")).as_deref(), Some(expected), "{user} {role:?}");
    }
    let reporter = |role| schemas(&world, "reporter", role, None);
    assert_eq!(reporter(None).as_deref(), Some(&[PUBLIC][..]));
    assert_eq!(reporter(Some("group")).as_deref(), Some(&[SECRET, PUBLIC][..]), "the setting stays that of its user");
    assert_eq!(schemas(&world, "app", Some("tenant"), None).as_deref(), Some(&[TENANT, PUBLIC][..]), "\"$user\"");
}

#[test]
fn a_name_is_that_of_the_first_schema_of_the_path() {
    let world = world();
    let along = |setting: &str, sql: &str| {
        let path = world.snapshot.path_along("app", None, Some(setting));
        world.snapshot.meaning_along(&world.statement(sql), path)
    };
    for (setting, expected) in [
        ("tenant, public", "tenant.users"),
        ("public, tenant", "users"),
        ("secret, tenant", "tenant.users"),
        ("pg_catalog", "! unresolved"),
        ("pg_toast, public", "! unresolved"),
    ] {
        let meaning = along(setting, "select * from users");
        let found = match &meaning.cacheable {
            Ok(relations) => world.names(relations),
            Err(bypass) => format!("! {}", bypass.label()),
        };
        assert_eq!(found, expected, "{setting}");
    }
    assert_eq!(world.describe(&along("tenant", "update users set a = 1").writes), "tenant.users");
    assert_eq!(along("tenant", "select * from users").access, Access::Read);
}

#[test]
fn paths_that_lead_to_the_same_schemas_are_one() {
    let world = world();
    let snapshot = &world.snapshot;
    let number = |role, setting| snapshot.path_along("app", role, setting);
    assert_eq!(number(None, Some("\"$user\", public")), snapshot.path_of("app"));
    assert_eq!(number(None, Some("nowhere, Public")), snapshot.path_of("app"));
    assert_eq!(number(Some("group"), Some("tenant")), number(None, Some("secret, tenant")));
    assert_ne!(number(None, Some("tenant")), number(None, Some("tenant, public")));
    assert_ne!(number(None, Some("public, tenant")), number(None, Some("tenant, public")));
}

#[test]
fn paths_are_numbered_up_to_a_limit() {
    let mut rows = Builder::new();
    let schemas = 40_000..50_100;
    let schema = |oid| SchemaRow { oid, name: format!("s{oid}"), users: vec![0] };
    rows.rows.schemas.extend(schemas.clone().map(schema));
    let world = rows.build();
    let number = |oid| world.snapshot.path_along("app", None, Some(&format!("s{oid}")));
    let first = number(40_000);
    let known = schemas.filter(|oid| number(*oid) != PathNumber::UNKNOWN).count();
    let (held, limit) = world.snapshot.paths();
    assert!(held == limit && known < limit, "{known} of {limit}, and those that roles begin with");
    assert_eq!((number(40_000), number(50_099)), (first, PathNumber::UNKNOWN));
}

#[test]
fn who_begins_as_somebody_else_has_no_known_path() {
    let mut rows = Builder::new();
    rows.rows.disguised_roles = vec![Some("reporter".into())];
    let world = rows.build();
    assert_eq!(world.snapshot.path_of("reporter"), PathNumber::UNKNOWN);
    assert_eq!(schemas(&world, "reporter", None, Some("public")), None, "as whom, nobody has said");
    assert_eq!(schemas(&world, "reporter", Some("app"), Some("public")).as_deref(), Some(&[PUBLIC][..]));
    assert_ne!(world.snapshot.path_of("app"), PathNumber::UNKNOWN);
    let mut rows = Builder::new();
    rows.rows.disguised_roles = vec![None];
    assert_eq!(rows.build().snapshot.path_of("app"), PathNumber::UNKNOWN);
}

#[test]
fn sessions_that_have_begun_are_told_from_new_ones_when_their_rights_change() {
    let defaults = |change: fn(&mut SnapshotRows)| {
        let mut rows = Builder::new();
        change(&mut rows.rows);
        std::sync::Arc::clone(rows.build().snapshot.session_defaults())
    };
    let earlier = defaults(|_| {});
    assert!(!defaults(|_| {}).differ_from(&earlier));
    assert!(
        !defaults(|rows| rows.roles.push(RoleRow { oid: 19_000, name: "new".into(), superuser: false }))
            .differ_from(&earlier)
    );
    assert!(!defaults(|rows| rows.roles.truncate(1)).differ_from(&earlier));
    let joins = |rows: &mut SnapshotRows| rows.memberships.push((APP, GROUP));
    assert!(!defaults(joins).differ_from(&earlier), "no schema is that group's");
    let changes: [fn(&mut SnapshotRows); 4] = [
        |rows| {
            rows.memberships.push((APP, GROUP));
            rows.schemas[2].users.push(GROUP);
        },
        |rows| rows.roles[0].superuser = true,
        |rows| rows.roles[0].name = "renamed".into(),
        |rows| rows.settings = "others".into(),
    ];
    for change in changes {
        assert!(defaults(change).differ_from(&earlier));
    }
}

#[test]
fn behind_a_statement_that_may_change_them_names_are_not_known() {
    let shop = shop();
    check(
        &[
            ("set search_path = tenant; update users set a = 1", "! locks"),
            ("reset search_path; update users set a = 1", "! locks"),
            ("discard all; update users set a = 1", "! database"),
            ("update users set a = 1; set search_path = tenant", "! locks"),
            ("create temp table x(a int); select * from orders", "! locks"),
            ("select 1; select * from orders", "nothing"),
        ],
        |sql| shop.writes(sql),
    );
}
