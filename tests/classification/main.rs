//! What each statement is, against a real catalog; and whether a hot standby takes what is called a read.
//!
//! The expected values are written down from PostgreSQL's documentation and from what a proxy must not get wrong, never
//! copied from what comes out.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a test fails loudly, and has no outside"
)]

mod extensions;
mod functions;
mod positions;
mod queries;
mod relations;
mod sessions;
#[path = "../support/mod.rs"]
mod support;
mod variations;
mod writes;

use std::sync::{Arc, OnceLock};

use pgweir::{
    catalog::{Access, Meaning, Snapshot},
    cluster::catalog_loader,
    sql::{Analyzer, Statement},
};
use support::{Proxy, RawClient, Reply, cluster, cluster::USER, connect, wait_until};

/// A statement, who may run it, why, and what it touches: names in order, without `public.`.
///
/// A statement that older servers do not know begins with the version that brought it: `/* since 17 */`.
type Row = (&'static str, &'static str, &'static str, &'static str);

const SCHEMA: &str = include_str!("schema.sql");

/// What takes a superuser.
const BEFORE: &str = "
    create foreign data wrapper nothing;
    create server nowhere foreign data wrapper nothing;
    grant usage on foreign server nowhere to app;
    grant create on schema public to app;";
/// What the manual of `tablefunc` tells people to make for result types of their own.
const PIVOT: &str = "
    create function pivot(text) returns setof record as '$libdir/tablefunc', 'crosstab' language c stable strict";
const AFTER: &str = "
    create operator class version_ops default for type version using btree as
        operator 1 #<, operator 2 #<=, operator 3 #=, operator 4 #>=, operator 5 #>, function 1 version_cmp(version, version);
    create role reporter login;
    grant usage on schema tenant to reporter;
    grant select on all tables in schema public, tenant to reporter;
    alter role reporter set search_path = tenant, public;";

fn rows() -> impl Iterator<Item = &'static Row> {
    [queries::ROWS, extensions::ROWS, functions::ROWS, positions::ROWS, relations::ROWS, writes::ROWS, sessions::ROWS]
        .into_iter()
        .flatten()
}

/// The database that the rows are about.
struct World {
    database: String,
    snapshot: Snapshot,
    analyzer: Analyzer,
}

/// It is made once.
fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let database = cluster().database();
        let mut superuser = cluster().primary.session(&database);
        superuser.rows(BEFORE);
        for name in extensions::NAMES {
            superuser.rows(&format!("create extension {name}"));
        }
        superuser.rows(PIVOT);
        RawClient::session(&cluster().primary.address(), USER, &database).rows(SCHEMA);
        superuser.rows(AFTER);
        superuser.rows("analyze");
        cluster().catch_up();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let snapshot = runtime.block_on(async {
            let client = connect(&cluster().primary.config(&database)).await;
            catalog_loader::load(&client, None).await.unwrap()
        });
        World { database, snapshot, analyzer: Analyzer::default() }
    })
}

impl World {
    fn statement(&self, sql: &str) -> Arc<Statement> {
        self.analyzer.analyze(sql)
    }

    fn meaning(&self, sql: &str, user: &str) -> Arc<Meaning> {
        self.snapshot.meaning(&self.statement(sql), user)
    }

    /// Access, reason, relations, as a row says them.
    fn verdict(&self, sql: &str, user: &str) -> (&'static str, &'static str, String) {
        let meaning = self.meaning(sql, user);
        let name = |oid: &_| self.snapshot.relation_name(*oid).unwrap().replace("public.", "");
        let mut names: Vec<String> = meaning.relations.iter().map(name).collect();
        names.sort();
        (if meaning.access == Access::Read { "read" } else { "primary" }, meaning.reason.label(), names.join(" "))
    }

    #[track_caller]
    fn check<'r>(&self, rows: impl Iterator<Item = &'r Row>, user: &str) {
        let wrong: Vec<String> = rows
            .map(|(sql, access, reason, relations)| (sql, (*access, *reason, (*relations).to_owned())))
            .filter_map(|(sql, expected)| {
                let found = self.verdict(sql, user);
                (found != expected).then(|| format!("{sql}\n    expected {expected:?}\n    found    {found:?}"))
            })
            .collect();
        assert!(wrong.is_empty(), "{} rows\n{}", wrong.len(), wrong.join("\n"));
    }
}

/// The version that a row needs.
fn since(sql: &str) -> u32 {
    sql.strip_prefix("/* since ").and_then(|rest| rest.split(' ').next()?.parse().ok()).unwrap_or(0)
}

/// Runs one row as its client would, in a transaction with a cursor `c` unless it brings its own.
fn run(session: &mut RawClient, sql: &str) -> Reply {
    if !sql.contains(';') {
        session.rows("begin; declare c scroll cursor for select generate_series(1, 10)");
    }
    let reply = if sql.contains("$1") && !sql.starts_with("prepare") {
        session.extended(sql, &["1"])
    } else {
        session.query(sql)
    };
    if reply.status() != 'I' {
        session.query("rollback");
    }
    reply
}

#[test]
fn every_statement_is_what_its_row_says() {
    assert!(rows().count() >= 300, "{}", rows().count());
    world().check(rows(), USER);
}

#[test]
fn names_follow_the_search_path_of_the_role() {
    world().check(functions::OF_REPORTER.iter(), "reporter");
}

#[test]
fn a_hot_standby_takes_every_statement_that_is_called_a_read() {
    let world = world();
    let standby = &cluster().replicas[0];
    let mut session = RawClient::session(&standby.address(), USER, &world.database);
    let mut reporter = RawClient::session(&standby.address(), "reporter", &world.database);
    let version: u32 = session.value("show server_version_num").parse::<u32>().unwrap() / 10_000;
    let (mut reads, mut newer, mut refused) = (0, 0, Vec::new());
    let reporters = functions::OF_REPORTER.iter().map(|row| (row, "reporter"));
    for ((sql, ..), user) in rows().map(|row| (row, USER)).chain(reporters) {
        if world.meaning(sql, user).access != Access::Read {
            continue;
        }
        if since(sql) > version {
            newer += 1;
            continue;
        }
        reads += 1;
        let reply = run(if user == USER { &mut session } else { &mut reporter }, sql);
        if let Some(error) = reply.error() {
            refused.push(format!("{sql}\n    {} {:?}", reply.sqlstate(), error.field(b'M')));
        }
    }
    println!("{reads} reads ran on a hot standby of PostgreSQL {version}, {newer} are of later versions");
    assert!(refused.is_empty(), "{} refused\n{}", refused.len(), refused.join("\n"));
    assert!(reads > 200, "{reads}");
}

#[test]
fn the_price_of_being_right_is_printed() {
    let world = world();
    let standby = &cluster().replicas[1];
    let (mut primary, mut taken) = (0, 0);
    let mut refused = 0;
    for (sql, ..) in rows().filter(|(sql, ..)| world.meaning(sql, USER).access == Access::Primary) {
        primary += 1;
        // Each has a session of its own: it may change it for good.
        let mut session = RawClient::session(&standby.address(), USER, &world.database);
        session.rows("set statement_timeout = 1000");
        match run(&mut session, sql).sqlstate().as_str() {
            "" => taken += 1,
            "25006" | "0A000" | "55000" => refused += 1,
            _ => {}
        }
    }
    println!("{primary} statements need the primary; a standby refuses {refused} and would have taken {taken}");
    assert!(refused > 50 && taken < primary);
}

/// What the console says is what the catalog says.
#[test]
fn show_route_tells_access_reason_and_relations_of_every_statement_in_a_string() {
    let world = world();
    let replica = &cluster().replicas[0];
    let proxy = Proxy::of(cluster(), &world.database).replicas(&world.database, &[(replica, 1)]).start();
    let route = |sql: &str| {
        let table = proxy.show(&format!("ROUTE FOR {} {sql}", world.database));
        let cell = |row: &Vec<String>, name| row[table.position(name)].clone();
        let row = |row| [cell(row, "access"), cell(row, "route"), cell(row, "reason"), cell(row, "relations")];
        table.rows.iter().map(row).collect::<Vec<_>>()
    };
    wait_until("replicas serve", || route("select id from users")[0][1] == "replica");
    for (sql, expected) in [
        ("select id from v_users", vec!["read replica read public.users,public.v_users"]),
        ("select now() from users", vec!["read replica read public.users"]),
        ("select sneaky_next() from users", vec!["primary primary mislabelled_function public.users"]),
        ("select dynamic('users')", vec!["primary primary opaque_function "]),
        ("select id from accounts", vec!["primary primary unseen_code public.accounts"]),
        ("insert into watched select id from users", vec!["primary primary write public.users,public.watched"]),
        ("lock table orders", vec!["primary primary row_lock public.orders"]),
        (
            "select id from users; delete from log; select * from docs for update",
            vec![
                "read primary multi_statement public.users",
                "primary primary write public.log",
                "primary primary row_lock public.docs",
            ],
        ),
        ("select 1; select id from users", vec!["read replica read ", "read replica read public.users"]),
    ] {
        let found: Vec<String> = route(sql).iter().map(|row| row.join(" ")).collect();
        assert_eq!(found, expected, "{sql}");
    }
}

/// A mislabelled function and an unseen cast, through a proxy with replicas: each would have failed there.
#[test]
fn volatile_code_behind_a_label_or_a_cast_runs_where_it_can() {
    let world = world();
    let replica = &cluster().replicas[0];
    let proxy = Proxy::of(cluster(), &world.database).replicas(&world.database, &[(replica, 1)]).start();
    let mut session = proxy.session(&world.database);
    let is_served = |sql: &str| proxy.show(&format!("ROUTE FOR {} {sql}", world.database)).rows[0][2] == "replica";
    wait_until("replicas serve", || is_served("select id from users"));
    for sql in [
        "select sneaky_next()",
        "select sneaky_log(1)",
        "select sneaky_scratch()",
        "select v.* from v_sneaky v",
        "select dynamic('scratch')",
        "select 1::cash",
        "select distinct version from (values (row(1, 2)::version), (row(1, 3)::version)) v(version)",
    ] {
        let reply = session.query(sql);
        assert!(reply.error().is_none(), "{sql}: {reply:?}");
    }
}
