//! What an operator says of reads: whether the primary serves any, and how old their data may be.

use std::time::Duration;

use super::{
    counts, executed, replicas, routed,
    support::{Proxy, RawClient, cluster, frames::query, wait_until},
    turn, wait_until_replicas_serve,
};

#[test]
fn reads_wait_for_a_replica_where_the_primary_shall_serve_none() {
    let _turn = turn();
    let (proxy, database) = routed(|builder| {
        builder.section("routing", "primary_reads", "never").section("routing", "max_replica_lag", 600)
    });
    let mut session = proxy.session(&database);
    let (bans, unbans) = (["r1", "r2"].map(|name| format!("BAN {database}.{name}")), format!("UNBAN {database}.r1"));
    bans.iter().for_each(|ban| drop(proxy.tell(ban)));
    session.send(&query("select v from t /* patient */"));
    assert!(session.is_silent_for(Duration::from_millis(500)));
    let mut writer = proxy.session(&database);
    assert_eq!(executed(&mut writer, "update t set v = 1"), [1, 0, 0]);
    assert_eq!(executed(&mut writer, "select v from t for update"), [1, 0, 0]);
    assert_eq!(
        executed(&mut writer, "/* pgweir: primary */ select v from t"),
        [1, 0, 0],
        "whoever asks for it gets it"
    );
    // Another session's write may be missing on a replica for as long as that takes.
    cluster().catch_up();
    proxy.tell(&unbans);
    assert_eq!(session.reply().rows(), [["1"]]);
    assert_eq!(counts("/* patient */"), [0, 1, 0]);
    replicas().iter().for_each(|replica| replica.pause_replay());
    writer.query("update t set v = 2");
    assert_eq!(executed(&mut writer, "select v from t"), [1, 0, 0], "what no replica has yet");
    proxy.tell("SET query_wait_timeout = 1");
    proxy.tell(&bans[0]);
    session.send(&query("select v from t /* in vain */"));
    let frames = session.until_closed();
    let error = frames.iter().find(|frame| frame.tag == b'E').unwrap();
    assert_eq!(error.field(b'M').unwrap(), "query_wait_timeout");
    assert!(error.field(b'D').unwrap().contains("replica_banned"), "{error:?}");
    assert_eq!(counts("/* in vain */"), [0, 0, 0]);
}

#[test]
fn the_primary_takes_part_in_the_reads_where_it_shall() {
    let _turn = turn();
    let (proxy, database) = routed(|builder| builder.section("routing", "primary_reads", "always"));
    let mut session = proxy.session(&database);
    for _ in 0..400 {
        session.rows("select v from t /* with the primary */");
    }
    let [primary, first, second] = counts("/* with the primary */");
    assert!((90..=110).contains(&primary) && (190..=210).contains(&first), "{primary}, {first} and {second}");
}

#[test]
fn data_may_be_as_old_as_hint_session_user_and_database_say_in_this_order() {
    let _turn = turn();
    let (proxy, database) = routed(|builder| builder.section("routing", "read_your_writes", "database"));
    let line = format!("dbname={database}");
    let set = |user: &str| {
        let user = format!("[users]\nstranger = {user}\n");
        proxy.rewrite(|text| {
            let text = text.split("[users]").next().unwrap().replace(&format!("{line} max_staleness=3600"), &line);
            format!("{}\n{user}", text.replacen(&line, &format!("{line} max_staleness=3600"), 1))
        });
        proxy.tell("RELOAD");
        wait_until_replicas_serve(&proxy, &database);
    };
    set("max_staleness=0");
    let (mut app, mut stranger) =
        (proxy.session(&database), RawClient::session(&proxy.address(), "stranger", &database));
    cluster().prepare(&database, "grant select on t to public");
    cluster().catch_up();
    replicas().iter().for_each(|replica| replica.pause_replay());
    app.rows("update t set v = 1");
    let is_old = |session: &mut RawClient, statement: &str| session.value(statement) == "0";
    let read = "select v from t";
    assert!(is_old(&mut app, read), "the database's");
    assert!(!is_old(&mut stranger, read), "the user's");
    assert_eq!(app.value("show pgweir.max_staleness"), "3600000ms");
    assert_eq!(stranger.value("show pgweir.max_staleness"), "0");
    app.query("set pgweir.max_staleness = '0'");
    assert!(!is_old(&mut app, read), "the session's");
    assert!(is_old(&mut app, "select v from t /* pgweir: max_staleness=3600s */"), "the statement's");
    app.query("set pgweir.max_staleness = default");
    assert!(is_old(&mut app, read));
    stranger.query("set pgweir.max_staleness = '1000s'");
    // Connections that are younger than all samples are not believed.
    wait_until("its connections are old enough", || is_old(&mut stranger, read));
    stranger.query("reset pgweir.max_staleness");
    assert!(!is_old(&mut stranger, read));
    replicas().iter().for_each(|replica| replica.resume_replay());
    set("max_staleness=1800");
    replicas().iter().for_each(|replica| replica.pause_replay());
    app.rows("update t set v = 0; update t set v = 2");
    wait_until("the session follows", || stranger.value("show pgweir.max_staleness") == "1800000ms");
    wait_until("it reads old data", || stranger.value(read) != "2");
}

#[test]
fn reads_that_would_go_to_a_replica_are_only_counted_where_that_is_tried_out() {
    let _turn = turn();
    let database = cluster().database();
    cluster().log_statements(&database);
    cluster().prepare(&database, "create table t(id int primary key, v int); insert into t values (1, 0)");
    let proxy = Proxy::of(cluster(), &database)
        .replicas(&database, &[(&replicas()[0], 1), (&replicas()[1], 1)])
        .section("routing", "read_write_split", "log")
        .start();
    let mut session = proxy.session(&database);
    let decided = || proxy.show(&format!("ROUTE FOR {database} select v from t")).column("reason");
    wait_until("it would go to a replica", || decided() == ["would_replica"]);
    for _ in 0..10 {
        session.rows("select v from t /* tried out */");
    }
    session.rows("update t set v = 1");
    assert_eq!(counts("/* tried out */"), [10, 0, 0]);
    let table = proxy.show("QUERIES");
    let of = |wanted: &str| {
        let (query, column) = (table.position("query"), table.position(wanted));
        let rows = table.rows.iter().filter(|row| row[query].contains("from t") || row[query].contains("update"));
        rows.map(|row| (row[query].contains("update"), row[column].clone())).collect::<Vec<_>>()
    };
    assert!(of("would_replica").contains(&(false, "10".to_owned())), "{table:?}");
    assert!(of("would_replica").contains(&(true, "0".to_owned())), "{table:?}");
    assert!(of("replica_calls").iter().all(|(_, calls)| calls == "0"), "{table:?}");
    let counted = proxy.metrics().sum("pgweir_requests_total", &["route=\"primary\"", "reason=\"would_replica\""]);
    assert_eq!(counted, 10.0);
}

#[test]
fn show_route_decides_as_the_requests_of_a_session_are() {
    let _turn = turn();
    let (proxy, database) = routed(|builder| builder);
    for (sql, route) in [
        ("begin read only", "replica"),
        ("begin", "primary"),
        ("begin isolation level serializable read only", "primary"),
        ("select v from t /* pgweir: primary */", "primary"),
        ("select v from t", "replica"),
    ] {
        let decided = proxy.show(&format!("ROUTE FOR {database} {sql}")).column("route");
        assert_eq!(decided, [route], "{sql}");
    }
}
