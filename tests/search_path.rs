//! Sessions that look for names elsewhere than others are answered from memory like those, and never with another's rows.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails loudly"
)]

mod support;

use support::{
    Proxy, RawClient, Reply, cluster,
    cluster::USER,
    frames::{Frame, query, startup},
    hits::{is_hit, mark, warm_up},
    wait_until,
};

/// The same table in each of three schemas, and one in `public` that the others see behind their own.
const SCHEMA: &str = "
    create table t(v text); insert into t values ('public'); create table common(v int); insert into common values (0);
    create schema a; create table a.t(v text); insert into a.t values ('a');
    create schema b; create table b.t(v text); insert into b.t values ('b')";

/// A database behind a proxy that caches; its server logs every statement, so that hits can be told from misses.
fn cached(schema: &str) -> (Proxy, String) {
    let database = cluster().database();
    cluster().prepare(&database, schema);
    cluster().log_statements(&database);
    let proxy = Proxy::of(cluster(), &database).cached().start();
    proxy.wait_for_catalog(&database);
    (proxy, database)
}

#[track_caller]
fn succeed(reply: &Reply) {
    assert!(reply.error().is_none(), "{reply:?}");
}

/// A session of the database's owner that has said this.
#[track_caller]
fn session(proxy: &Proxy, database: &str, setting: &str) -> RawClient {
    let mut session = proxy.session(database);
    succeed(&session.query(setting));
    session
}

/// What is said to the primary without the proxy, by a superuser.
fn directly(database: &str, sql: &str) {
    cluster().primary.session(database).rows(sql);
}

#[test]
fn sessions_of_different_paths_hit_what_their_own_tables_hold() {
    let (proxy, database) = cached(SCHEMA);
    let (read, mark) = ("select v from t", mark());
    let mut sessions = [
        ("public", proxy.session(&database)),
        ("a", session(&proxy, &database, "set search_path = a, public")),
        ("b", session(&proxy, &database, "set search_path to b, public")),
    ];
    for round in 0..3 {
        for (schema, session) in &mut sessions {
            warm_up(session, read, &mark);
            assert!(session.value(&format!("{read} {mark}")).starts_with(*schema), "round {round}");
        }
        for (writer, schema) in [(1, "a"), (0, "public"), (2, "b")] {
            let before: Vec<String> = sessions.iter_mut().map(|(_, it)| it.value(&format!("{read} {mark}"))).collect();
            succeed(&sessions[writer].1.query("update t set v = v || '!'"));
            for ((name, session), before) in sessions.iter_mut().zip(before) {
                let after = session.value(&format!("{read} {mark}"));
                let expected = if *name == schema { format!("{before}!") } else { before };
                assert_eq!(after, expected, "{name} behind a write to {schema}");
            }
        }
    }
    assert!(proxy.show("CACHE").number("database", &database, "hits") > 0);
}

#[test]
fn who_looks_in_the_same_schemas_shares_answers_however_they_are_called() {
    let (proxy, database) = cached(SCHEMA);
    let (read, mark) = ("select v from t", mark());
    let mut one = session(&proxy, &database, "set search_path = a, public");
    warm_up(&mut one, read, &mark);
    for setting in ["set search_path = \"a\", nowhere, public", "select set_config('search_path', 'A,public', false)"] {
        assert!(is_hit(&mut session(&proxy, &database, setting), read, &mark), "{setting}");
    }
    let mut usual = proxy.session(&database);
    warm_up(&mut usual, read, &mark);
    assert!(is_hit(&mut session(&proxy, &database, "set search_path = \"$user\", public"), read, &mark));
    for setting in ["set search_path = a", "set search_path = public, a"] {
        let before = cluster().primary.executions(&mark);
        assert_ne!(session(&proxy, &database, setting).query(&format!("{read} {mark}")).rows(), [["b"]]);
        assert_eq!(cluster().primary.executions(&mark), before + 1, "{setting}");
    }
}

#[test]
fn a_table_that_several_paths_lead_to_is_one_table() {
    let (proxy, database) = cached(SCHEMA);
    let (read, mark) = ("select v from common", mark());
    let mut one = session(&proxy, &database, "set search_path = a, public");
    let mut other = session(&proxy, &database, "set search_path = b, public");
    let mut usual = proxy.session(&database);
    for round in 1..4 {
        for reader in [&mut one, &mut usual] {
            warm_up(reader, read, &mark);
        }
        succeed(&other.query("update common set v = v + 1"));
        for reader in [&mut one, &mut usual] {
            assert_eq!(reader.value(&format!("{read} {mark}")), round.to_string());
        }
    }
}

/// What others have cached stays while a session with a path of its own reads, also at once behind its SET: it used to be
/// taken for a writer of anything.
#[test]
fn a_read_along_a_path_of_its_own_voids_nothing() {
    let (proxy, database) = cached(SCHEMA);
    let (read, mark) = ("select v from common", mark());
    let mut reader = proxy.session(&database);
    warm_up(&mut reader, read, &mark);
    let voided = || proxy.show("CACHE").number("database", &database, "invalidations");
    let before = voided();
    let (mut hits, rounds) = (0, 40);
    let mut other = proxy.session(&database);
    for round in 0..rounds {
        let schema = ["a", "b"][round % 2];
        succeed(&other.query(&format!("set search_path = {schema}, public")));
        assert_eq!(other.value("select v from t"), schema);
        assert_eq!(other.value("select v || 'x' from t"), format!("{schema}x"));
        hits += usize::from(is_hit(&mut reader, read, &mark));
    }
    assert_eq!((hits, voided()), (rounds, before), "hits, and what was voided");
}

#[test]
fn a_session_hits_at_once_behind_the_answer_to_its_set() {
    let (proxy, database) = cached(SCHEMA);
    let (read, mark) = ("select v from t", mark());
    for schema in ["a", "b"] {
        warm_up(&mut session(&proxy, &database, &format!("set search_path = {schema}")), read, &mark);
    }
    let mut one = proxy.session(&database);
    for round in 0..20 {
        let schema = ["a", "b"][round % 2];
        succeed(&one.query(&format!("set search_path = {schema}")));
        assert!(is_hit(&mut one, read, &mark), "round {round}");
    }
    let both = [query("set search_path = a"), query(read)].concat();
    one.send(&both);
    let replies: Vec<Vec<Frame>> = (0..2).map(|_| one.until(b'Z')).collect();
    assert_eq!(replies[1][1].values()[0].as_deref(), Some(&b"a"[..]), "sent before the answer to the SET");
}

#[test]
fn a_path_from_the_start_up_packet_or_of_the_role_is_known() {
    let (proxy, database) = cached(SCHEMA);
    let (read, mark) = ("select v from t", mark());
    let begin = |parameter: (&str, &str)| {
        let mut client = RawClient::connect(&proxy.address());
        client.send(&startup(&[("user", USER), ("database", &database), parameter]));
        client.until(b'Z');
        client
    };
    for (parameter, schema) in [(("search_path", "a,public"), "a"), (("options", "-c search_path=b"), "b")] {
        let mut session = begin(parameter);
        warm_up(&mut session, read, &mark);
        assert_eq!(session.value(&format!("{read} {mark}")), schema);
        succeed(&session.query("set search_path = public"));
        assert_eq!(session.value(read), truth(&database, "public"));
        succeed(&session.query("reset search_path"));
        assert_eq!(session.value(&format!("{read} {mark}")), schema);
        let mut usual = proxy.session(&database);
        warm_up(&mut usual, read, &mark);
        // The server returns to what it began with, and behind that the session to what it began with itself.
        succeed(&session.query(&format!("reset search_path; update t set v = 'behind {schema}'")));
        assert_eq!(usual.value(&format!("{read} {mark}")), format!("behind {schema}"));
        assert_eq!(session.value(&format!("{read} {mark}")), truth(&database, schema));
    }
}

/// What the table of that schema holds.
fn truth(database: &str, schema: &str) -> String {
    cluster().primary.session(database).value(&format!("select v from {schema}.t"))
}

#[test]
fn schemas_that_come_go_and_are_renamed_change_what_names_mean() {
    let (proxy, database) = cached(SCHEMA);
    let (read, mark) = ("select v from t", mark());
    let mut reader = session(&proxy, &database, "set search_path = late, a, public");
    let mut owner = proxy.session(&database);
    let made = "create schema late; create table late.t(v text); insert into late.t values ('late')";
    for is_direct in [false, true] {
        let mut change = |sql: &str| match is_direct {
            true => directly(&database, sql),
            false => succeed(&owner.query(sql)),
        };
        let mut expect = |expected: &str, what: &str| {
            match is_direct {
                // Within the time that the catalog is looked at again.
                true => _ = wait_until(what, || reader.value(&format!("{read} {mark}")) == expected),
                false => assert_eq!(reader.value(&format!("{read} {mark}")), expected, "{what}"),
            }
            warm_up(&mut reader, read, &mark);
            assert_eq!(reader.value(&format!("{read} {mark}")), expected, "{what}");
        };
        expect("a", "one of its schemas is not there");
        change(made);
        change(&format!("grant usage on schema late to {USER}; grant select on late.t to {USER}"));
        expect("late", "it is there now");
        change("alter schema late rename to later");
        expect("a", "it is called otherwise");
        change("alter schema a rename to aside");
        expect("public", "the next as well");
        change("alter schema aside rename to a; alter schema later rename to late");
        expect("late", "both are back");
        change("alter table late.t rename to u");
        expect("a", "its table is called otherwise");
        change("drop schema late cascade");
        expect("a", "it is gone");
    }
}

#[test]
fn what_a_transaction_sets_and_takes_back_leaves_nothing() {
    let (proxy, database) = cached(SCHEMA);
    let (read, mark) = ("select v from t", mark());
    let (mut one, mut other) = (session(&proxy, &database, "set search_path = a"), proxy.session(&database));
    for (end, schema) in [("rollback", "a"), ("commit", "b"), ("rollback", "b")] {
        for change in
            ["set search_path = b", "set local search_path = public", "select set_config('search_path','b',false)"]
        {
            succeed(&one.query(&format!("set search_path = {schema}")));
            warm_up(&mut one, read, &mark);
            succeed(&one.query("begin"));
            succeed(&one.query(change));
            let inside = one.value("select v from t");
            succeed(&one.query("update t set v = v || '?'"));
            succeed(&one.query(end));
            let is_local = change.contains("local");
            let expected = if end == "rollback" || is_local { schema } else { "b" };
            assert_eq!(one.value(&format!("{read} {mark}")), truth(&database, expected), "{change}; {end} ({inside})");
            warm_up(&mut one, read, &mark);
            assert_eq!(other.value(&format!("{read} {mark}")), truth(&database, "public"));
        }
    }
    // A savepoint takes it back, a function sets it for itself.
    succeed(&one.query("set search_path = a"));
    for sql in ["begin", "savepoint s", "set search_path = b", "rollback to s", "commit"] {
        succeed(&one.query(sql));
    }
    assert_eq!(one.value(&format!("{read} {mark}")), truth(&database, "a"));
    succeed(&one.query("do $$ begin perform set_config('search_path', 'b', false); end $$"));
    assert_eq!(one.value(&format!("{read} {mark}")), truth(&database, "b"));
    warm_up(&mut one, read, &mark);
}

#[test]
fn batches_that_change_the_path_on_the_way_void_what_they_write() {
    let (proxy, database) = cached(SCHEMA);
    let (read, mark) = ("select v from t", mark());
    let mut readers: Vec<(&str, RawClient)> = ["a", "b", "public"]
        .into_iter()
        .map(|schema| (schema, session(&proxy, &database, &format!("set search_path = {schema}"))))
        .collect();
    for (before, batch) in [
        ("a", "set search_path = b; update t set v = v || '1'"),
        ("a", "reset search_path; update t set v = v || '2'"),
        ("b", "discard all; update t set v = v || '3'"),
        ("b", "set role app; reset role; update t set v = v || '4'"),
        ("a", "begin; set local search_path = b; update t set v = v || '5'; commit"),
        ("a", "select set_config('search_path', 'b', false); update t set v = v || '6'"),
    ] {
        for (_, reader) in &mut readers {
            warm_up(reader, read, &mark);
        }
        let mut writer = session(&proxy, &database, &format!("set search_path = {before}"));
        if batch.starts_with("discard") {
            for sql in batch.split("; ") {
                succeed(&writer.query(sql));
            }
        } else {
            succeed(&writer.query(batch));
        }
        for (schema, reader) in &mut readers {
            assert_eq!(reader.value(&format!("{read} {mark}")), truth(&database, schema), "{batch}");
        }
    }
}

#[test]
fn a_role_finds_the_schemas_that_it_may_use() {
    let (proxy, database) = cached(SCHEMA);
    directly(
        &database,
        "grant usage on schema b to stranger; grant usage on schema public to public; \
         grant select on a.t, b.t, public.t to stranger, plainer; grant stranger, plainer to app",
    );
    let (read, mark) = ("select v from t", mark());
    let mut usual = session(&proxy, &database, "set search_path = a, b, public");
    let mut stranger = session(&proxy, &database, "set search_path = a, b, public; set role stranger");
    let mut plainer = session(&proxy, &database, "set search_path = a, b, public; set role plainer");
    let mut expect = |expected: [&str; 3], what: &str| {
        for (session, expected) in [&mut usual, &mut stranger, &mut plainer].into_iter().zip(expected) {
            wait_until(what, || session.value(&format!("{read} {mark}")) == expected);
            warm_up(session, read, &mark);
            assert_eq!(session.value(&format!("{read} {mark}")), expected, "{what}");
        }
    };
    expect(["a", "b", "public"], "each by its rights");
    directly(&database, "grant usage on schema a to plainer");
    expect(["a", "b", "a"], "one gets a right");
    directly(&database, "revoke usage on schema b from stranger");
    expect(["a", "public", "a"], "another one loses it");
    directly(&database, "create role crowd; grant usage on schema b to crowd; grant crowd to stranger");
    expect(["a", "b", "a"], "by a membership, which sessions of before do not notice");
    directly(&database, "revoke crowd from stranger; revoke usage on schema a from plainer");
    expect(["a", "public", "public"], "and back");
    directly(&database, "drop owned by crowd; drop role crowd; revoke stranger, plainer from app");
}

/// Everything at once: what is read through the proxy is what the server says to a session with the same settings.
#[test]
fn whatever_is_set_the_answers_are_those_of_the_server() {
    let (proxy, database) = cached(SCHEMA);
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut pick = |sides: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % sides as u64).unwrap()
    };
    let settings = ["a", "b", "public", "a, b", "b, public", "nowhere, b", "\"$user\", a", "pg_temp, a"];
    let mut sessions: Vec<(usize, RawClient)> = (0..4).map(|_| (2, proxy.session(&database))).collect();
    for (_, session) in &mut sessions {
        succeed(&session.query("set search_path = public"));
    }
    let mut direct = cluster().primary.session(&database);
    for step in 0..600 {
        let (setting, session) = &mut sessions[pick(4)];
        match pick(6) {
            0 => {
                *setting = pick(settings.len());
                succeed(&session.query(&format!("set search_path = {}", settings[*setting])));
            }
            1 => succeed(&session.query(&format!("update t set v = left(v, 1) || '{step}'"))),
            2 => directly_and_back(session),
            _ => {
                direct.rows(&format!("set search_path = {}", settings[*setting]));
                let found = session.value("select v from t");
                assert_eq!(found, direct.value("select v from t"), "step {step}: {}", settings[*setting]);
            }
        }
    }
    assert!(proxy.show("CACHE").number("database", &database, "hits") > 50);
}

fn directly_and_back(session: &mut RawClient) {
    for sql in ["begin", "set search_path = b", "update t set v = 'never'", "rollback"] {
        succeed(&session.query(sql));
    }
}

#[test]
fn replicas_serve_what_is_read_along_a_path_of_its_own() {
    let database = cluster().database();
    cluster().prepare(&database, SCHEMA);
    cluster().log_statements(&database);
    let replicas = [(&cluster().replicas[0], 1), (&cluster().replicas[1], 1)];
    let proxy = Proxy::of(cluster(), &database).replicas(&database, &replicas).start();
    let (mark, replicas) = (mark(), || cluster().replicas.each_ref().map(|replica| replica.executions("mark")));
    let [mut a, mut b] = ["a", "b"].map(|schema| session(&proxy, &database, &format!("set search_path = {schema}")));
    wait_until("both replicas serve", || {
        let before = replicas();
        assert_eq!(
            (a.value(&format!("select v from t {mark}")).as_str(), b.value("select v from t").as_str()),
            ("a", "b")
        );
        replicas().iter().sum::<usize>() > before.iter().sum()
    });
    for round in 0..20 {
        succeed(&a.query(&format!("update t set v = 'a{round}'")));
        assert_eq!(a.value("select v from t"), format!("a{round}"), "what it has written itself");
        assert_eq!(b.value("select v from t"), "b");
    }
    let primary = cluster().primary.executions(&mark);
    succeed(&a.query("set role app"));
    assert_eq!(a.value(&format!("select left(v, 1) from t {mark}")), "a");
    assert_eq!(cluster().primary.executions(&mark), primary + 1, "a role may be unknown to a replica");
}

#[test]
fn where_connect_query_says_where_to_look_names_are_not_believed() {
    let database = cluster().database();
    cluster().prepare(&database, SCHEMA);
    let builder = Proxy::of(cluster(), &database).cached();
    let proxy = builder.database(&database, cluster().primary.port, "connect_query='set search_path = a'").start();
    proxy.wait_for_catalog(&database);
    let (mut reader, mut writer) = (proxy.session(&database), proxy.session(&database));
    for round in 0..20 {
        succeed(&writer.query(&format!("update a.t set v = '{round}'")));
        for _ in 0..3 {
            assert_eq!(reader.value("select v from t"), round.to_string());
        }
    }
}

#[test]
fn a_session_that_runs_serializable_is_asked_of_the_primary() {
    let (proxy, database) = cached(SCHEMA);
    let (read, mark) = ("select v from public.t", mark());
    let mut reader = session(&proxy, &database, "set default_transaction_isolation = 'repeatable read'");
    warm_up(&mut reader, read, &mark);
    for setting in [
        "set default_transaction_isolation = 'Serializable'",
        "set session characteristics as transaction isolation level serializable",
    ] {
        succeed(&reader.query(setting));
        for _ in 0..3 {
            assert!(!is_hit(&mut reader, read, &mark), "{setting}");
        }
        succeed(&reader.query("reset default_transaction_isolation"));
        warm_up(&mut reader, read, &mark);
    }
}

/// A draw of numbers.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 33) % sides as u64).unwrap()
    }

    fn one_in(&mut self, sides: usize) -> bool {
        self.roll(sides) == 0
    }
}

/// Roles of all kinds, whose rights others have, and schemas that some of them may use.
fn make_roles(dice: &mut Dice, database: &str) -> Vec<String> {
    let roles: Vec<String> = (0..12).map(|number| format!("r{number}_{database}")).collect();
    let mut changes = Vec::new();
    for (number, role) in roles.iter().enumerate() {
        let kind = ["", "noinherit", "superuser", "login"][dice.roll(12).saturating_sub(8)];
        changes.push(format!("create role {role} {kind}"));
        if number > 0 {
            changes.push(format!("grant {} to {role}", roles[dice.roll(number)]));
        }
        if dice.one_in(3) {
            changes.push(format!("create schema {role} authorization {}", roles[dice.roll(number + 1)]));
        }
    }
    for schema in ["u", "v", "w"] {
        let grantee = if dice.one_in(4) { "public" } else { &roles[dice.roll(roles.len())] };
        let grant = format!("grant usage on schema {schema} to {grantee}");
        changes.extend([format!("create schema {schema} authorization {}", roles[dice.roll(roles.len())]), grant]);
    }
    changes.push(format!("revoke usage on schema u from {}", roles[dice.roll(roles.len())]));
    changes.push(format!("grant pg_read_all_data to {}", roles[dice.roll(roles.len())]));
    changes.push(format!(
        "revoke usage on schema public from public; alter database {database} owner to {}",
        roles[dice.roll(6)]
    ));
    directly(database, &changes.join("; "));
    roles
}

#[test]
fn the_path_of_a_role_is_what_the_server_says_of_it() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (mut left_out, mut compared) = (0, 0);
    for _ in 0..6 {
        let database = cluster().database();
        let roles = make_roles(&mut dice, &database);
        let config = cluster().primary.config(&database);
        let snapshot = runtime.block_on(async {
            let client = support::sessions::connect(&config).await;
            pgweir::cluster::catalog_loader::load(&client, None).await.unwrap()
        });
        let mut server = cluster().primary.session(&database);
        let oids: Vec<(String, String)> = server
            .rows("select oid, nspname from pg_namespace")
            .into_iter()
            .map(|row| (row[0].clone(), row[1].clone()))
            .collect();
        for role in &roles {
            for setting in ["u, v, w, public", "\"$user\", public", "w, pg_catalog, u", &roles[dice.roll(12)]] {
                succeed(&server.query(&format!("reset role; set search_path = {setting}; set role {role}")));
                let expected: Vec<String> = server
                    .rows("select unnest(pg_catalog.current_schemas(true))")
                    .into_iter()
                    .flatten()
                    .filter(|schema| !schema.starts_with("pg_temp"))
                    .collect();
                let path = snapshot.path_along(USER, Some(role), Some(setting));
                let name = |oid: u32| oids.iter().find(|(known, _)| *known == oid.to_string()).unwrap().1.clone();
                let found: Vec<String> = snapshot.schemas_of(path).unwrap().into_iter().map(name).collect();
                assert_eq!(found, expected, "{role}: {setting}");
                compared += 1;
                left_out += usize::from(setting.starts_with("u, v") && expected.len() < 5);
            }
        }
    }
    assert!(left_out > 20 && left_out < compared / 4, "{left_out} of {compared}");
}

#[test]
fn a_setting_that_an_update_of_pg_settings_has_changed_is_the_sessions_own() {
    let database = cluster().database();
    cluster().prepare(&database, SCHEMA);
    let proxy = Proxy::of(cluster(), &database).cached().set("default_pool_size", 1).start();
    proxy.wait_for_catalog(&database);
    let (mut one, mut other) = (proxy.session(&database), proxy.session(&database));
    for _ in 0..3 {
        succeed(&one.query("update pg_settings set setting = 'a' where name = 'search_path'"));
        for _ in 0..3 {
            assert_eq!(
                (other.value("select v from t").as_str(), one.value("select v from t").as_str()),
                ("public", "a")
            );
        }
        succeed(&one.query("update pg_settings set setting = 'public' where name = 'search_path'"));
        assert_eq!(one.value("select v from t"), "public");
    }
}

#[test]
fn what_is_defined_without_the_proxy_is_not_read_where_it_is_missing_yet() {
    let database = cluster().database();
    cluster().prepare(&database, &format!("{SCHEMA}; create schema late; grant usage on schema late to public"));
    let replica = &cluster().replicas[0];
    let proxy = Proxy::of(cluster(), &database).cached().replicas(&database, &[(replica, 1)]).start();
    proxy.wait_for_catalog(&database);
    cluster().log_statements(&database);
    let mut reader = session(&proxy, &database, "set search_path = late, public");
    let mark = mark();
    wait_until("the replica serves", || {
        assert_eq!(reader.value(&format!("select v from t {mark} /* pgweir: nocache */")), "public");
        replica.executions(&mark) > 0
    });
    cluster().catch_up();
    replica.pause_replay();
    directly(
        &database,
        "create table late.t(v text); insert into late.t values ('late'); grant select on late.t to public",
    );
    let questions = ["select v from t", "select v from t /* pgweir: nocache */"];
    for sql in questions {
        wait_until("it is known", || reader.value(sql) == "late");
    }
    for _ in 0..20 {
        assert_eq!(questions.map(|sql| reader.value(sql)), ["late", "late"]);
    }
    replica.resume_replay();
}

#[test]
fn what_is_defined_anew_without_the_proxy_is_not_read_where_it_is_the_old_one_yet() {
    let database = cluster().database();
    let schema = "create table old(v text); insert into old values ('old');
        create table new(v text); insert into new values ('new'); create view shown as select v from old";
    cluster().prepare(&database, schema);
    let replica = &cluster().replicas[0];
    let proxy = Proxy::of(cluster(), &database).cached().replicas(&database, &[(replica, 1)]).start();
    proxy.wait_for_catalog(&database);
    let mut reader = proxy.session(&database);
    wait_until("the replica serves", || {
        assert_eq!(reader.value("select v from shown /* pgweir: nocache */"), "old");
        proxy.metrics().sum("pgweir_requests_total", &["route=\"replica\""]) > 0.0
    });
    cluster().catch_up();
    replica.pause_replay();
    directly(&database, "create or replace view shown as select v from new");
    let is_known =
        || proxy.show(&format!("ROUTE FOR {database} select v from shown")).rows.concat().concat().contains("new");
    wait_until("it is known", is_known);
    let questions = ["select v from shown", "select v from shown /* pgweir: nocache */"];
    for _ in 0..20 {
        assert_eq!(questions.map(|sql| reader.value(sql)), ["new", "new"]);
    }
    replica.resume_replay();
}
