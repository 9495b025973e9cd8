//! Whoever may not read something is not answered from the cache either, whatever changes between two of his questions.
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
    Proxy, RawClient, Redis, Reply, cluster,
    cluster::{SUPERUSER, USER},
    raw_client::Address,
    wait_until,
};

const STEPS: u64 = 40;
const USERS: [&str; 3] = [USER, "stranger", "plainer"];

const SCHEMA: &str = "
    create table t(id int primary key, v int); insert into t values (1, 10), (2, 20);
    create view seen as select id, v from t;
    create view asked with (security_invoker = true) as select id, v from t;
    create table own(owner name, v int); insert into own values ('app', 1), ('stranger', 2), ('plainer', 3);
    grant select on own to public;
    create schema hidden; create table hidden.t(v int); insert into hidden.t values (1); grant select on hidden.t to public;
    create table bound(v int); insert into bound values (1);
    grant select on bound to readers";

const READS: [&str; 8] = [
    "select id, v from t order by id",
    "select id from t order by id",
    "select count(*) from t",
    "select v from seen order by id",
    "select v from asked order by id",
    "select owner, v from own order by v",
    "select v from hidden.t",
    "select v from bound",
];

/// What changes, as the superuser says it; `$user` is somebody.
const CHANGES: [&str; 24] = [
    "grant select on t to $user",
    "revoke select on t from $user",
    "grant select (id) on t to $user",
    "revoke select (id) on t from $user",
    "grant select on t to readers",
    "revoke select on t from readers",
    "grant select on seen to $user",
    "revoke select on seen from $user",
    "alter view seen owner to $user",
    "alter view seen owner to app",
    "grant select on asked to $user",
    "revoke select on asked from $user",
    "alter table own enable row level security",
    "alter table own disable row level security",
    "drop policy if exists own on own; create policy own on own using (owner = current_user)",
    "drop policy if exists own on own; create policy own on own using (owner = 'stranger')",
    "drop policy if exists own on own",
    "alter role $user bypassrls",
    "alter role $user nobypassrls",
    "grant readers to $user",
    "revoke readers from $user",
    "grant usage on schema hidden to $user",
    "revoke usage on schema hidden from $user",
    "update t set v = v + 1; update own set v = v + 3",
];

/// One user at all proxies and at the server itself.
struct Visitor {
    user: &'static str,
    here: Vec<RawClient>,
    direct: RawClient,
}

/// What can be told from an answer: its rows, or why there are none.
fn told(reply: &Reply) -> (String, Vec<Vec<String>>) {
    (reply.sqlstate(), reply.rows())
}

impl Visitor {
    fn of(user: &'static str, proxies: &[Proxy], database: &str) -> Self {
        let session = |address: &Address| {
            let mut client = RawClient::connect(address);
            client.log_in(&[("user", user), ("database", database)], "secret").unwrap();
            client
        };
        let here = proxies.iter().map(|proxy| session(&proxy.address())).collect();
        Self { user, here, direct: session(&cluster().primary.address()) }
    }

    /// Asks everything, everywhere; nobody may say anything else than the server.
    fn ask(&mut self, step: &str) {
        for role in ["reset role", "set role readers"] {
            let may = told(&self.direct.query(role));
            for here in &mut self.here {
                assert_eq!(told(&here.query(role)), may, "{} behind {step}: {role}", self.user);
            }
            for read in READS {
                let truth = told(&self.direct.query(read));
                for (proxy, here) in self.here.iter_mut().enumerate() {
                    for _ in 0..2 {
                        let said = told(&here.query(read));
                        assert_eq!(said, truth, "{} behind {step}, at proxy {proxy}, {role}: {read}", self.user);
                    }
                }
            }
        }
    }
}

#[test]
fn nobody_is_answered_what_he_may_not_read_any_more() {
    let (redis, database) = (Redis::start(), cluster().database());
    cluster().primary.session("postgres").rows("create role readers; grant readers to stranger, plainer");
    cluster().prepare(&database, SCHEMA);
    let proxy = |(share, rls)| {
        let builder = Proxy::of(cluster(), &database).cached().section("cache", "redis_url", redis.url());
        builder
            .section("cache", "secret", "known to all and nobody else")
            .section("cache", "share", share)
            .section("cache", "rls", rls)
            .start()
    };
    let proxies = [("role", "refuse"), ("acl", "scoped"), ("role", "scoped"), ("acl", "refuse")].map(proxy);
    let hits = || {
        let of = |proxy: &Proxy| {
            let figures = proxy.show("CACHE");
            ["hits", "shared_hits"].map(|column| figures.number("database", &database, column)).iter().sum::<i64>()
        };
        proxies.iter().map(of).sum::<i64>()
    };
    let mut visitors = USERS.map(|user| Visitor::of(user, &proxies, &database));
    let mut admins = [0, 1].map(|proxy: usize| {
        let mut admin = RawClient::connect(&proxies[proxy].address());
        admin.log_in(&[("user", SUPERUSER), ("database", &database)], "").unwrap();
        admin
    });
    let mut draw = 0x9E37_79B9_7F4A_7C15_u64;
    let mut roll = |sides: usize| {
        draw ^= draw << 13;
        draw ^= draw >> 7;
        draw ^= draw << 17;
        (draw >> 33) as usize % sides
    };
    let mut answered = 0;
    for number in 0..STEPS {
        // What was known before is answered from memory, at all of them.
        let before = hits();
        wait_until("answers come from the cache", || {
            visitors.iter_mut().for_each(|visitor| visitor.ask("nothing new"));
            hits() >= before + 20
        });
        answered += hits() - before;
        let change = CHANGES[roll(CHANGES.len())].replace("$user", USERS[roll(USERS.len())]);
        let reply = admins[roll(2)].query(&change);
        assert!(reply.error().is_none(), "{change}: {reply:?}");
        visitors.iter_mut().for_each(|visitor| visitor.ask(&format!("{number}: {change}")));
    }
    println!("{STEPS} changes of rights, each behind answers from the cache: {answered} in all");
}
