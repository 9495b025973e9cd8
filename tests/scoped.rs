//! `rls = scoped`: answers whose rows a policy chooses are kept for whoever asks as the same role with the same settings,
//! and for nobody else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails loudly"
)]

mod support;

use support::{
    Proxy, RawClient, Reply, cluster,
    cluster::{SUPERUSER, USER},
    hits::{is_hit, mark, warm_up},
    random::{Random, seeds},
    wait_until,
};

const TENANTS: &str = "
    create table doc(id int, tenant int, owner text);
    insert into doc values (1, 1, 'stranger'), (2, 2, 'plainer'), (3, 3, 'app');
    create table member(who text, tenant int); insert into member values ('stranger', 1);
    create table switched(off text); insert into switched values ('timezone');
    alter table doc enable row level security; grant select on doc, member to public;
    create view seen as select id from doc;
    create view asked with (security_invoker = yes, security_barrier, check_option = local) as select id from doc;
    grant select on seen, asked to public;";

const READ: &str = "select id from doc order by id";
const BY_SETTING: &str = "create policy p on doc using (tenant = nullif(current_setting('app.tenant', true), '')::int)";
const BY_USER: &str = "create policy p on doc using (owner = current_user)";

fn place(rls: &str, policy: &str) -> (Proxy, String) {
    let database = cluster().database();
    cluster().prepare(&database, TENANTS);
    cluster().prepare(&database, policy);
    cluster().log_statements(&database);
    let proxy = Proxy::of(cluster(), &database).cached().section("cache", "rls", rls).start();
    proxy.wait_for_catalog(&database);
    (proxy, database)
}

fn session(proxy: &Proxy, user: &str, database: &str) -> RawClient {
    let mut client = RawClient::connect(&proxy.address());
    client.log_in(&[("user", user), ("database", database)], "secret").unwrap();
    client
}

fn ids(session: &mut RawClient, read: &str) -> String {
    let rows: Vec<String> = session.rows(read).concat();
    rows.join(" ")
}

#[track_caller]
fn succeed(reply: &Reply) {
    assert!(reply.error().is_none(), "{reply:?}");
}

#[track_caller]
fn check_never_kept(proxy: &Proxy, user: &str, database: &str, before: &str) {
    let (mut client, mark) = (session(proxy, user, database), mark());
    succeed(&client.query(before));
    assert!((0..5).all(|_| !is_hit(&mut client, READ, &mark)), "{before}");
}

#[test]
fn a_tenant_that_is_set_has_its_own_answers() {
    let (proxy, database) = place("scoped", BY_SETTING);
    let mark = mark();
    let read = format!("{READ} {mark}");
    let mut sessions: Vec<RawClient> = (1..4)
        .map(|tenant| {
            let mut client = session(&proxy, "stranger", &database);
            succeed(&match tenant {
                1 => client.query("set app.tenant = 1"),
                2 => client.extended("select set_config('app.tenant', $1, false)", &["2"]),
                _ => client.query("set session \"App\".Tenant to '3'"),
            });
            client
        })
        .collect();
    for _ in 0..3 {
        for (at, client) in sessions.iter_mut().enumerate() {
            warm_up(client, READ, &mark);
            assert_eq!(ids(client, &read), (at + 1).to_string());
        }
    }
    let mut other = session(&proxy, "stranger", &database);
    assert_eq!(ids(&mut other, &read), "", "who has set nothing");
    succeed(&other.query("set app.tenant = '2'"));
    wait_until("the answer of another session is taken", || is_hit(&mut other, READ, &mark));
    assert_eq!(ids(&mut other, &read), "2");
    succeed(&other.query("reset app.tenant"));
    assert_eq!(ids(&mut other, &read), "");
    succeed(&other.query("begin; set local app.tenant = '3'"));
    assert_eq!(ids(&mut other, &read), "3");
    succeed(&other.query("commit"));
    assert_eq!(ids(&mut other, &read), "");
    let mut owner = proxy.session(&database);
    succeed(&owner.query("insert into doc values (4, 1, 'app')"));
    assert_eq!(ids(&mut sessions[0], &read), "1 4");
}

#[test]
fn a_policy_may_ask_by_functions_whose_bodies_are_resolved() {
    let (proxy, database) = place(
        "scoped",
        "create function of_mine() returns setof int stable language sql begin atomic
             select m.tenant from member m where m.who = current_user; end;
         create function tenant() returns int stable language sql begin atomic
             select current_setting('app.tenant')::int where current_setting('app.tenant')::int in (select of_mine()); end;
         create policy p on doc using (tenant = tenant())",
    );
    let (mut client, mut owner, mark) = (session(&proxy, "stranger", &database), proxy.session(&database), mark());
    for (set, rows) in [("set app.tenant = '1'", "1"), ("set app.tenant = '2'", ""), ("set app.tenant = '1'", "1")] {
        succeed(&client.query(set));
        warm_up(&mut client, READ, &mark);
        assert_eq!(ids(&mut client, &format!("{READ} {mark}")), rows, "{set}");
    }
    succeed(&owner.query("delete from member"));
    assert_eq!(ids(&mut client, &format!("{READ} {mark}")), "");
}

#[test]
fn without_a_setting_of_the_session_s_own_nothing_is_kept() {
    let (proxy, database) = place("scoped", BY_SETTING);
    for before in ["select 1", "set app.tenant = ''", "set app.other = '1'", "set app.tenant = '1'; reset app.tenant"] {
        check_never_kept(&proxy, "stranger", &database, before);
    }
}

#[test]
fn by_default_nothing_is_kept_that_a_policy_chooses() {
    let (proxy, database) = place("refuse", BY_SETTING);
    check_never_kept(&proxy, "stranger", &database, "set app.tenant = '1'");
}

#[test]
fn every_role_has_the_rows_that_are_its_own() {
    let (proxy, database) = place("scoped", BY_USER);
    let mark = mark();
    let read = format!("{READ} {mark}");
    for _ in 0..2 {
        for (user, own) in [("stranger", "1"), ("plainer", "2"), (USER, "1 2 3"), (SUPERUSER, "1 2 3")] {
            let mut client = session(&proxy, user, &database);
            warm_up(&mut client, READ, &mark);
            assert_eq!(ids(&mut client, &read), own, "{user}");
        }
    }
    let mut superuser = session(&proxy, SUPERUSER, &database);
    for (set, own) in [("set role stranger", "1"), ("set role plainer", "2"), ("reset role", "1 2 3")] {
        succeed(&superuser.query(set));
        warm_up(&mut superuser, READ, &mark);
        assert_eq!(ids(&mut superuser, &read), own, "{set}");
    }
    let mut owner = proxy.session(&database);
    for (change, own) in [("force", "3"), ("no force", "1 2 3")] {
        warm_up(&mut owner, READ, &mark);
        succeed(&owner.query(&format!("alter table doc {change} row level security")));
        assert_eq!(ids(&mut owner, &read), own, "{change}");
        warm_up(&mut owner, READ, &mark);
        assert_eq!(ids(&mut owner, &read), own, "{change}");
    }
}

#[test]
fn views_show_the_rows_of_their_owner_or_of_who_asks() {
    let (proxy, database) = place("scoped", BY_USER);
    let mark = mark();
    let mut client = session(&proxy, "stranger", &database);
    for (read, own) in [("select id from seen order by id", "1 2 3"), ("select id from asked order by id", "1")] {
        warm_up(&mut client, read, &mark);
        assert_eq!(ids(&mut client, &format!("{read} {mark}")), own);
    }
}

#[test]
fn a_table_that_a_policy_looks_into_counts_as_read() {
    let policy = "create policy p on doc using (tenant in (select m.tenant from member m where m.who = current_user))";
    let (proxy, database) = place("scoped", policy);
    let (mut client, mut owner, mark) = (session(&proxy, "stranger", &database), proxy.session(&database), mark());
    let read = format!("{READ} {mark}");
    for (change, rows) in [
        ("insert into member values ('stranger', 3)", "1 3"),
        ("delete from member where tenant = 1", "3"),
        ("update member set tenant = 2", "2"),
        ("truncate member", ""),
    ] {
        warm_up(&mut client, READ, &mark);
        succeed(&owner.query(change));
        assert_eq!(ids(&mut client, &read), rows, "{change}");
    }
}

#[test]
fn a_policy_that_changes_counts_at_once_and_behind_the_proxy_soon() {
    let (proxy, database) = place("scoped", BY_USER);
    let (mut client, mut owner, mark) = (session(&proxy, "stranger", &database), proxy.session(&database), mark());
    let read = format!("{READ} {mark}");
    for (change, rows) in [
        ("alter policy p on doc using (owner <> current_user)", "2 3"),
        ("alter policy p on doc to plainer", ""),
        ("alter policy p on doc to public", "2 3"),
        ("create policy q on doc as restrictive using (id < 3)", "2"),
        ("drop policy q on doc", "2 3"),
    ] {
        warm_up(&mut client, READ, &mark);
        succeed(&owner.query(change));
        assert_eq!(ids(&mut client, &read), rows, "{change}");
    }
    warm_up(&mut client, READ, &mark);
    cluster().prepare(&database, "alter policy p on doc using (id = 3)");
    wait_until("a policy that was changed directly holds", || ids(&mut client, &read) == "3");
}

#[test]
fn who_is_freed_of_policies_sees_all_rows_by_statements_prepared_before_too() {
    let (proxy, database) = place("scoped", BY_USER);
    let mut superuser = cluster().primary.session(&database);
    let role = format!("freed_{database}");
    superuser.rows(&format!("create role {role}; grant {role} to app"));
    let mut client = proxy.session(&database);
    succeed(&client.query(&format!("set role {role}")));
    succeed(&client.prepare("s", READ));
    let count = |client: &mut RawClient| client.execute("s", &[]).rows().len();
    (0..8).for_each(|_| assert_eq!(count(&mut client), 0));
    for (change, rows) in [("bypassrls", 3), ("nobypassrls", 0)] {
        superuser.rows(&format!("alter role {role} {change}"));
        wait_until(&format!("{change} holds"), || count(&mut client) == rows);
        (0..8).for_each(|_| assert_eq!(count(&mut client), rows, "{change}"));
    }
}

#[test]
fn what_a_policy_asks_beyond_that_is_not_kept() {
    for policy in [
        "create policy p on doc using (id = extract(day from now()) or true)",
        "create policy p on doc using (current_setting('timezone') <> 'x')",
        "create policy p on doc using ((select current_setting(off) from switched) <> 'x'); grant select on switched to public",
        "create policy p on doc using (pg_has_role(current_user, 'stranger', 'usage'))",
        "create policy p on doc using (current_schema is not null)",
        "create function f() returns int stable language sql as 'select current_setting(''app.tenant'')::int';
         create policy p on doc using (tenant = f())",
        "create function f() returns int immutable language sql as 'select current_setting(''app.tenant'')::int';
         create policy p on doc using (tenant = f())",
        "create function f(text) returns int stable language sql begin atomic select current_setting($1)::int; end;
         create policy p on doc using (tenant = f('app.tenant'))",
    ] {
        let (proxy, database) = place("scoped", policy);
        check_never_kept(&proxy, "stranger", &database, "set app.tenant = '1'");
    }
}

#[test]
fn a_setting_that_a_function_or_a_view_changes_is_followed() {
    let functions = "
        create function become(text) returns text language plpgsql as
            $$ begin execute 'select set_config(''app.' || 'tenant'', $1, false)' using $1; return $1; end $$;
        create function pretends(text) returns text stable language plpgsql as
            $$ begin perform set_config('app.tenant', $1, false); return $1; end $$;
        create function atomic(text) returns text stable language sql begin atomic select set_config('app.tenant', $1, false); end;
        create table wanted(tenant text); insert into wanted values ('1'), ('2'), ('3'); grant select on wanted to public;
        create view setting as select set_config('app.tenant', w.tenant, false) as tenant, w.tenant as wanted from wanted w;
        grant select on setting to public;";
    let (proxy, database) = place("scoped", &format!("{BY_SETTING}; {functions}"));
    let (mut client, mark) = (session(&proxy, "stranger", &database), mark());
    let read = format!("{READ} {mark}");
    for call in ["become($)", "pretends($)", "atomic($)", "tenant from setting where wanted = $"] {
        for tenant in ["1", "2", "3"] {
            succeed(&client.query(&format!("select {}", call.replace('$', &format!("'{tenant}'")))));
            for _ in 0..5 {
                assert_eq!(ids(&mut client, &read), tenant, "{call}");
            }
        }
    }
}

/// What happens by chance: whoever it is says so here and directly.
const SAID: &[&str] = &[
    "set app.tenant = '1'",
    "set app.tenant = '2'",
    "set app.tenant = '3'",
    "reset app.tenant",
    "select set_config('app.tenant', '2', false)",
    "select set_config('app.tenant', '3', true)",
    "begin; set local app.tenant = '1'; rollback",
    "begin; set app.tenant = '1'; rollback",
    "discard all",
    "set role plainer",
    "reset role",
    "set row_security = off",
    "reset row_security",
];

const CHANGED: &[&str] = &[
    "update doc set tenant = 1 + tenant % 3",
    "insert into doc select max(id) + 1, 2, 'plainer' from doc",
    "delete from doc where id > 4",
    "update member set tenant = 1 + tenant % 3",
    "insert into member values ('plainer', 2)",
    "alter policy p on doc using (owner = current_user)",
    "alter policy p on doc using (tenant = nullif(current_setting('app.tenant', true), '')::int)",
    "alter policy p on doc using (tenant in (select m.tenant from member m where m.who = current_user))",
    "alter policy p on doc using (session_user = 'stranger' or tenant = 2)",
    "alter table doc disable row level security",
    "alter table doc enable row level security",
    "alter role plainer bypassrls",
    "alter role plainer nobypassrls",
    "create or replace view seen as select id from doc where id < 3",
    "create or replace view seen as select id from doc",
];

/// While transactions are open, what changes locks no tables.
const ROWS_ONLY: usize = 5;
const INSIDE: &[&str] =
    &["begin", "commit", "rollback", "set local app.tenant = '2'", "select set_config('app.tenant', '1', true)"];

/// Everybody's answers are what the server says to a session of the same history.
fn check_rows_are_ones_own(in_transactions: bool, seed: u64) {
    let cluster = support::Cluster::start();
    let database = cluster.database();
    cluster.primary.session("postgres").rows("grant plainer to stranger");
    cluster.prepare(&database, TENANTS);
    cluster.prepare(&database, BY_SETTING);
    let builder = Proxy::of(&cluster, &database).cached().section("cache", "rls", "scoped");
    let builder = builder.section("cache", "share", "acl");
    let proxy = builder.section("cache", "in_transactions", u8::from(in_transactions)).start();
    proxy.wait_for_catalog(&database);
    let mut random = Random::new(seed);
    let mut visitors: Vec<_> = ["stranger", "stranger", "plainer", USER]
        .map(|user| {
            let mut direct = RawClient::connect(&cluster.primary.address());
            direct.log_in(&[("user", user), ("database", &database)], "secret").unwrap();
            (user, session(&proxy, user, &database), direct)
        })
        .into();
    let mut superuser = session(&proxy, SUPERUSER, &database);
    let told = |reply: &Reply| (reply.sqlstate(), reply.rows());
    let hits = || proxy.show("CACHE").number("database", &database, "hits");
    let changed = if in_transactions { &CHANGED[..ROWS_ONLY] } else { CHANGED };
    let said: Vec<&str> = if in_transactions { [SAID, INSIDE, INSIDE].concat() } else { SAID.to_vec() };
    for step in 0..150 {
        let change = match random.one_in(3) {
            true => {
                let change = changed[random.below(changed.len())];
                succeed(&superuser.query(change));
                change
            }
            false => {
                let at = random.below(visitors.len());
                let (_, here, direct) = &mut visitors[at];
                let said = said[random.below(said.len())];
                assert_eq!(told(&here.query(said)), told(&direct.query(said)), "{said}");
                said
            }
        };
        for (user, here, direct) in &mut visitors {
            for read in [READ, "select id from seen order by id", "select count(*) from asked"] {
                for is_extended in [false, true, random.one_in(2)] {
                    let ask = |client: &mut RawClient| {
                        told(&if is_extended { client.extended(read, &[]) } else { client.query(read) })
                    };
                    assert_eq!(ask(here), ask(direct), "seed {seed}, {user} behind {step}, {change}: {read}");
                }
            }
        }
    }
    println!("{} answers from memory", hits());
    assert!(hits() > 300, "{}", hits());
}

#[test]
fn nobody_is_ever_told_the_rows_of_somebody_else() {
    seeds(7..8).for_each(|seed| check_rows_are_ones_own(false, seed));
}

#[test]
fn nobody_is_told_them_inside_of_a_transaction() {
    seeds(7..8).for_each(|seed| check_rows_are_ones_own(true, seed));
}

#[test]
fn a_reload_begins_and_ends_it() {
    let (proxy, database) = place("refuse", BY_USER);
    let (mut client, mark) = (session(&proxy, "stranger", &database), mark());
    assert!((0..5).all(|_| !is_hit(&mut client, READ, &mark)));
    proxy.rewrite(|text| text.replace("rls = refuse", "rls = scoped"));
    succeed(&proxy.tell("RELOAD"));
    warm_up(&mut client, READ, &mark);
    assert_eq!(ids(&mut client, &format!("{READ} {mark}")), "1");
    proxy.rewrite(|text| text.replace("rls = scoped", "rls = refuse"));
    succeed(&proxy.tell("RELOAD"));
    wait_until("the server is asked", || !is_hit(&mut client, READ, &mark));
    assert!((0..5).all(|_| !is_hit(&mut client, READ, &mark)));
}

#[test]
fn a_replica_that_does_not_know_a_policy_yet_is_not_believed() {
    let cluster = support::Cluster::start();
    let database = cluster.database();
    cluster.prepare(&database, TENANTS);
    cluster.prepare(&database, BY_USER);
    let replicas = [(&cluster.replicas[0], 1), (&cluster.replicas[1], 1)];
    let proxy = Proxy::of(&cluster, &database).replicas(&database, &replicas).cached();
    let proxy = proxy.section("cache", "rls", "scoped").start();
    proxy.wait_for_catalog(&database);
    let (mut client, mut owner) = (session(&proxy, "stranger", &database), proxy.session(&database));
    wait_until("hits, and reads on replicas", || {
        client.rows(READ);
        let is_served = proxy.show(&format!("ROUTE FOR {database} {READ}")).rows[0][2] == "replica";
        is_served && proxy.show("CACHE").number("database", &database, "hits") > 0
    });
    cluster.replicas.iter().for_each(support::Member::pause_replay);
    succeed(&owner.query("alter policy p on doc using (owner <> current_user)"));
    (0..20).for_each(|_| assert_eq!(ids(&mut client, READ), "2 3"));
    RawClient::session(&cluster.primary.address(), USER, &database).rows("alter policy p on doc using (id = 3)");
    wait_until("a policy that was changed directly holds", || ids(&mut client, READ) == "3");
    (0..20).for_each(|_| assert_eq!(ids(&mut client, READ), "3"));
    cluster.replicas.iter().for_each(support::Member::resume_replay);
}
