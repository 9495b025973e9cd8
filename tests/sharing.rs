//! `share = acl`: roles that may read the same get one answer, and never one that the server would refuse them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails loudly"
)]

mod support;

use pgweir::{cluster::catalog_loader, sql::Analyzer};
use support::{
    Proxy, RawClient, Reply, cluster,
    cluster::SUPERUSER,
    connect,
    frames::{bind, execute, sync},
    hits::{is_hit, mark, warm_up},
    random::Random,
    wait_until,
};

const SCHEMA: &str = "
    create table t(id int primary key, at timestamptz); insert into t values (1, '2026-01-01 00:00:00+00');
    create table own(owner name, v int); insert into own values ('app', 1); alter table own enable row level security;
    create policy own on own using (owner = current_user or owner = 'app');
    create view seen as select id from t; create view asked with (security_invoker = true) as select id from t;
    create function within() returns int language sql immutable begin atomic select 1; end;
    grant select on own to public";

const READ: &str = "select id from t";

/// A database with that schema, two roles of its own that may log in, and a proxy in front of it.
struct Place {
    database: String,
    roles: [String; 2],
    proxy: Proxy,
}

impl Place {
    /// `$one` and `$two` in `setup` are the roles; the superuser runs it.
    fn new(share: &str, setup: &str) -> Self {
        let database = cluster().database();
        cluster().prepare(&database, SCHEMA);
        cluster().log_statements(&database);
        let roles = ["one", "two"].map(|name| format!("{name}_{database}"));
        let mut users = String::from("\"app\" \"\"\n\"pgweir\" \"\"\n");
        let mut superuser = cluster().primary.session(&database);
        for role in &roles {
            superuser.rows(&format!("create role {role} login"));
            users.push_str(&format!("\"{role}\" \"secret\"\n"));
        }
        succeed(&superuser.query(&named(setup, &roles)));
        let proxy = Proxy::of(cluster(), &database).cached().section("cache", "share", share).users(&users).start();
        proxy.wait_for_catalog(&database);
        Self { database, roles, proxy }
    }

    fn named(&self, text: &str) -> String {
        named(text, &self.roles)
    }

    fn session(&self, role: usize) -> RawClient {
        RawClient::session(&self.proxy.address(), &self.roles[role], &self.database)
    }

    /// Has the second role the answer of the first at once?
    fn shares(&self, read: &str) -> bool {
        let (mut one, mut two, mark) = (self.session(0), self.session(1), mark());
        warm_up(&mut one, read, &mark);
        let shares = is_hit(&mut two, read, &mark);
        let direct = RawClient::session(&cluster().primary.address(), &self.roles[1], &self.database).query(read);
        assert_eq!(two.query(&format!("{read} {mark}")).frames, direct.frames, "{read}");
        shares
    }
}

fn named(text: &str, [one, two]: &[String; 2]) -> String {
    text.replace("$one", one).replace("$two", two)
}

#[track_caller]
fn succeed(reply: &Reply) {
    assert!(reply.error().is_none(), "{reply:?}");
}

#[track_caller]
fn check(setup: &str, read: &str, expected: bool) {
    let place = Place::new("acl", setup);
    if expected {
        wait_until(&format!("{setup}: {read} is shared"), || place.shares(read));
    } else {
        (0..3).for_each(|_| assert!(!place.shares(read), "{setup}: {read}"));
    }
}

#[test]
fn roles_that_may_read_the_same_share_one_answer() {
    check("grant select on t to $one, $two", READ, true);
    check("create role of_$one; grant select on t to of_$one; grant of_$one to $one, $two", READ, true);
    check("grant select on t to $one; grant $one to $two", "select at from t where id = 1", true);
    check("grant select on t to $one; grant pg_read_all_data to $two", READ, true);
    check("grant select on t to $one; alter role $two superuser", READ, true);
    check("grant select on seen to public", "select id from seen", true);
    check("grant select on t, asked to public", "select id from asked", true);
}

/// `Parse` with the type of its only parameter.
fn parse_typed(sql: &str, oid: u32) -> Vec<u8> {
    let body = [&b"\0"[..], sql.as_bytes(), &[0], &1_u16.to_be_bytes(), &oid.to_be_bytes()].concat();
    [&b"P"[..], &u32::try_from(body.len() + 4).unwrap().to_be_bytes(), &body].concat()
}

#[test]
fn a_parameter_that_not_everybody_may_pass_finds_no_answer() {
    let setup = "grant select on t to public; create domain ones as int check (current_user = '$one');
        create type mood as enum ('fine')";
    let place = Place::new("acl", setup);
    let mut direct = RawClient::session(&cluster().primary.address(), SUPERUSER, &place.database);
    let oid =
        |direct: &mut RawClient, name: &str| direct.value(&format!("select '{name}'::regtype::oid")).parse().unwrap();
    let (ones, mood) = (oid(&mut direct, "ones"), oid(&mut direct, "mood"));
    let (mut one, mut two) = (place.session(0), place.session(1));
    let ask = |session: &mut RawClient, sql: &str, oid, value| {
        session.send(&[parse_typed(sql, oid), bind("", &[value]), execute("", 0), sync()].concat());
        session.reply()
    };
    let read = "select id from t where id = $1";
    warm_up(&mut one, "select id from t where id = 1", &mark());
    for _ in 0..5 {
        assert_eq!(ask(&mut one, read, ones, "1").rows(), [["1"]]);
        assert_eq!(ask(&mut two, read, ones, "1").sqlstate(), "23514");
    }
    let read = format!("select id from t where $1 = 'fine' {}", mark());
    wait_until("an enumeration is a plain value", || {
        let before = cluster().primary.executions(&read);
        assert_eq!(ask(&mut one, &read, mood, "fine").rows(), [["1"]]);
        cluster().primary.executions(&read) == before
    });
}

#[test]
fn roles_that_something_else_tells_apart_have_answers_of_their_own() {
    check("grant select on t to $one; grant select (id) on t to $two", READ, false);
    check("grant select on t to public; alter role $two set bytea_output = 'escape'", READ, false);
    check("grant select on t to public; alter role $two set timezone = 'Asia/Tokyo'", "select at from t", false);
    check("grant select on t to public", "select id, within() from t", false);
}

#[test]
fn by_default_every_role_has_its_own() {
    let place = Place::new("role", "grant select on t to public");
    (0..3).for_each(|_| assert!(!place.shares(READ)));
}

#[test]
fn whoever_may_not_read_is_refused_by_the_server_whatever_others_have_read() {
    for (setup, read) in [
        ("grant select on t to $one", READ),
        ("grant select on t to $one; grant select (at) on t to $two", READ),
        ("grant select on t to $one; alter role $two noinherit; grant $one to $two", READ),
        ("grant select on asked to public; grant select on t to $one", "select id from asked"),
        (
            "grant select on t to public; create schema aside authorization $one; create view aside.v as table public.t;
             grant select on aside.v to public",
            "select id from aside.v",
        ),
        (
            "grant select on t to public; create function plus(int) returns int language internal immutable as 'int4inc';
             revoke execute on function plus from public; grant execute on function plus to $one",
            "select plus(id) from t",
        ),
        (
            "grant select on t to public; revoke execute on function int4mul from public;
             grant execute on function int4mul to $one, app",
            "select id * 2 from t",
        ),
    ] {
        let place = Place::new("acl", setup);
        let (mut one, mut two, mark) = (place.session(0), place.session(1), mark());
        warm_up(&mut one, read, &mark);
        for _ in 0..3 {
            assert_eq!(two.query(&format!("{read} {mark}")).sqlstate(), "42501", "{setup}");
            assert!(is_hit(&mut one, read, &mark));
        }
    }
}

#[test]
fn a_right_that_is_taken_away_counts_at_once() {
    let place = Place::new("acl", "grant select on t to $one, $two");
    wait_until("it is shared", || place.shares(READ));
    let mut owner = place.proxy.session(&place.database);
    let (mut one, mut two, mark) = (place.session(0), place.session(1), mark());
    let read = format!("{READ} {mark}");
    for (change, sqlstate) in [("revoke select on t from $two", "42501"), ("grant select on t to $two", "")] {
        warm_up(&mut one, READ, &mark);
        succeed(&owner.query(&place.named(change)));
        assert_eq!(two.query(&read).sqlstate(), sqlstate, "{change}");
        assert_eq!(one.value(&read), "1");
    }
    wait_until("it is shared again", || place.shares(READ));
    let mut superuser = cluster().primary.session(&place.database);
    for change in ["alter role $two set bytea_output = 'escape'", "revoke select on t from $two"] {
        warm_up(&mut one, READ, &mark);
        succeed(&superuser.query(&place.named(change)));
    }
    wait_until("a change that bypasses the proxy is found", || two.query(&read).sqlstate() == "42501");
    assert_eq!(one.value(&read), "1");
}

#[test]
fn what_a_session_has_set_keeps_it_apart() {
    let place = Place::new("acl", "grant select on t to $one, $two; grant $one to $two");
    wait_until("it is shared", || place.shares(READ));
    let (mut one, mut two, mark) = (place.session(0), place.session(1), mark());
    warm_up(&mut one, READ, &mark);
    assert!(is_hit(&mut two, READ, &mark));
    for set in ["set role $one", "set bytea_output = 'escape'", "set app.tenant = '7'", "set timezone = 'Asia/Tokyo'"] {
        succeed(&two.query(&place.named(set)));
        assert!(!is_hit(&mut two, READ, &mark), "{set}");
        succeed(&two.query("reset all; reset role; set timezone = 'UTC'"));
        wait_until("it shares again", || is_hit(&mut two, READ, &mark));
    }
}

#[test]
fn rows_that_a_policy_chooses_are_nobody_else_s() {
    let place = Place::new("acl", "grant select on t to public");
    let (mut one, mut two, mark) = (place.session(0), place.session(1), mark());
    warm_up(&mut one, READ, &mark);
    for _ in 0..4 {
        assert!(!is_hit(&mut one, "select v from own", &mark));
        assert!(!is_hit(&mut two, "select v from own", &mark));
    }
}

/// What is granted and taken by chance. `$r` is a role, `$g` another.
const CHANGES: &[&str] = &[
    "grant select on a.t, u to $r",
    "grant select (id) on u to $r",
    "revoke select on u from $r",
    "revoke all on a.t from $r",
    "grant select on b.v, b.i to $r",
    "revoke select on b.v from $r",
    "grant select on u, b.i to public",
    "revoke select on u, b.i from public",
    "grant usage on schema a, b to $r",
    "revoke usage on schema a from $r",
    "grant usage on schema b to public",
    "revoke usage on schema b from public",
    "grant execute on function f, a.f to $r",
    "revoke execute on function f from public",
    "grant execute on function a.f to public",
    "revoke execute on function int4mul from public",
    "grant execute on function int4mul to $r",
    "grant execute on function int4mul to public",
    "grant $g to $r",
    "revoke $g from $r",
    "alter role $r noinherit",
    "alter role $r inherit",
    "alter table a.t owner to $r",
    "alter view b.v owner to $r",
    "alter schema a owner to $r",
    "revoke select on a.t from $r",
    "grant pg_read_all_data to $r",
    "revoke pg_read_all_data from $r",
    "alter role $r superuser",
    "alter role $r nosuperuser",
    "alter view b.i set (security_invoker = on)",
    "alter view b.i set (security_invoker = off)",
    "revoke usage on schema pg_catalog from public",
    "grant usage on schema pg_catalog to public",
];

const ASKED: &[&str] = &[
    "select id from u",
    "select count(*) from a.t",
    "select * from b.v",
    "select * from b.i",
    "select * from b.around",
    "select u.id from u, b.v, a.t",
    "select f(id) from u",
    "select a.f(id) from u",
    "select id * 2 from u",
    "select id::a.word from u",
    "select id from u where id operator(a.===) 1",
    "select 'a' collate a.mine from u",
    "select to_tsvector('a.plain', 'x') from u",
    "select pg_catalog.lower('A') from u",
    "select extract(year from date '2026-01-01') from u",
    "select exists (select from a.t where t.id = u.id) from u",
    "with w as (select id from b.v) select id from w union select id from u",
    "select max(f(id)) over () from u order by f(id)",
];

#[test]
fn whoever_is_said_to_share_is_told_what_a_superuser_is_told() {
    let database = cluster().database();
    let mut server = cluster().primary.session(&database);
    succeed(&server.query(
        "create table u(id int); insert into u values (1); create schema a; create schema b;
         create table a.t(id int); insert into a.t values (1); create view b.v as select id from a.t;
         create view b.i as select id from a.t; create view b.around as select i.id from b.i;
         create domain a.word as int; create collation a.mine from \"C\";
         create text search configuration a.plain (copy = pg_catalog.simple);
         create function f(int) returns int language internal immutable as 'int4inc';
         create function a.f(int) returns int language internal immutable as 'int4inc';
         create operator a.=== (leftarg = int, rightarg = int, function = int4eq)",
    ));
    let roles = ["r", "s", "x", "y"].map(|name| format!("{name}_{database}"));
    roles.iter().for_each(|role| succeed(&server.query(&format!("create role {role}"))));
    let (mut random, analyzer) = (Random::new(16), Analyzer::default());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (mut shared, mut permitted, mut refused) = (0, 0, 0);
    for _ in 0..60 {
        for _ in 0..4 {
            let role = &roles[random.below(roles.len())];
            let group = &roles[random.below(roles.len())];
            let change = CHANGES[random.below(CHANGES.len())].replace("$r", role).replace("$g", group);
            // Some would make a circle of roles.
            server.query(&change);
        }
        let snapshot = runtime.block_on(async {
            let client = connect(cluster().primary.config(&database).user(SUPERUSER)).await;
            catalog_loader::load(&client, None).await.unwrap()
        });
        succeed(&server.query("set search_path = public"));
        let told = |reply: Reply| (reply.sqlstate(), reply.rows());
        let all_may: Vec<_> = ASKED.iter().map(|read| told(server.query(read))).collect();
        for role in &roles {
            let path = snapshot.path_along(role, None, Some("public"));
            succeed(&server.query(&format!("set session authorization {role}")));
            for (read, expected) in ASKED.iter().zip(&all_may) {
                let said = told(server.query(read));
                let is_shared = snapshot.is_anybodys(&analyzer.analyze(read), path, role);
                // Even a superuser is refused what the owner of a view may not read.
                assert!(!is_shared || said == *expected, "{role}, {read}: {said:?}");
                shared += u32::from(is_shared && said.0.is_empty());
                permitted += u32::from(said.0.is_empty());
                refused += u32::from(said.0 == "42501");
            }
            succeed(&server.query("reset session authorization"));
        }
    }
    println!("{shared} shared of {permitted} that the server answers; it refuses {refused}");
    assert!(shared > 500 && refused > 500);
}
