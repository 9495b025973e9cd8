//! Positions that one session hands to another, and settings of the proxy's own inside transactions.

use super::{
    executed, replicas, routed,
    support::{
        Proxy, RawClient, cluster,
        frames::{bind, describe_portal, describe_statement, execute, parse, sync},
        wait_until,
    },
    turn,
};

/// Logs in with these `options`.
fn begun_with(proxy: &Proxy, database: &str, options: &str) -> Result<RawClient, String> {
    let mut client = RawClient::connect(&proxy.address());
    let parameters = [("user", "app"), ("database", database), ("options", options)];
    match client.log_in(&parameters, "") {
        Ok(()) => Ok(client),
        Err(error) => Err(error.field(b'M').unwrap()),
    }
}

#[test]
fn a_token_of_one_session_sends_the_reads_of_another_to_who_has_replayed_it() {
    let _turn = turn();
    let (proxy, database) = routed(|builder| builder.section("routing", "max_replica_lag", 600));
    let (mut writer, mut reader) = (proxy.session(&database), proxy.session(&database));
    assert_eq!(writer.value("show pgweir.lsn"), "0/0", "it has written nothing");
    cluster().catch_up();
    replicas().iter().for_each(|replica| replica.pause_replay());
    writer.rows("update t set v = 1");
    let token = writer.value("show pgweir.lsn");
    assert_ne!(executed(&mut reader, "select v from t"), [1, 0, 0], "it knows of no write");
    reader.query(&format!("set pgweir.min_lsn = '{token}'"));
    assert_eq!(reader.value("show pgweir.min_lsn"), token);
    assert_eq!(reader.value("show pgweir.lsn"), token, "what is handed on covers it");
    assert_eq!(executed(&mut reader, "select v from t"), [1, 0, 0]);
    assert_eq!(reader.value("select v from t"), "1");
    let mut third = begun_with(&proxy, &database, &format!("-c pgweir.min_lsn={token}")).unwrap();
    assert_eq!(executed(&mut third, "select v from t /* pgweir: max_staleness=3600s */"), [1, 0, 0]);
    assert!(begun_with(&proxy, &database, "-c pgweir.min_lsn=soon").is_err());
    assert_eq!(reader.query("set pgweir.min_lsn = 'soon'").sqlstate(), "22023");
    replicas().iter().for_each(|replica| replica.resume_replay());
    wait_until("replicas have it", || executed(&mut reader, "select v from t")[0] == 0);
    assert_eq!(reader.value("select v from t"), "1");
}

#[test]
fn settings_of_the_proxy_hold_inside_transactions_and_in_both_protocols() {
    let _turn = turn();
    let (proxy, database) = routed(|builder| builder);
    let mut session = proxy.session(&database);
    session.query("begin read only");
    let place = executed(&mut session, "select v from t");
    assert_eq!(place[0], 0);
    let reply = session.query("set pgweir.route = 'primary'");
    assert_eq!((reply.tags(), reply.status()), (vec!["SET".to_owned()], 'T'));
    assert_eq!(session.value("show pgweir.route"), "primary");
    assert_eq!(executed(&mut session, "show pgweir.lsn"), [0, 0, 0]);
    session.query("commit");
    assert_eq!(executed(&mut session, "select v from t"), [1, 0, 0]);
    // As drivers do: prepared and described, then executed.
    let reply = session.exchange(&[parse("s", "show pgweir.route"), describe_statement("s"), sync()].concat());
    assert_eq!(reply.frames.iter().find(|frame| frame.tag == b'T').unwrap().columns(), ["pgweir.route"]);
    let run = [bind("s", &[]), describe_portal(""), execute("", 0), sync()].concat();
    assert_eq!(session.exchange(&run).rows(), [["primary"]]);
    session.rows("update t set v = v + 1");
    session.query("begin");
    assert_eq!(session.exchange(&run).rows(), [["primary"]]);
    assert_ne!(session.extended("show pgweir.lsn", &[]).rows(), [["0/0"]]);
    session.extended("set pgweir.route = 'auto'", &[]);
    assert_eq!(session.exchange(&run).rows(), [["auto"]]);
    let reply = session.query("set pgweir.min_lsn = 'soon'");
    assert_eq!((reply.sqlstate(), reply.status()), ("22023".to_owned(), 'E'));
    assert_eq!(session.query("select 1").sqlstate(), "25P02", "the server knows");
    assert_eq!(session.query("set pgweir.route = 'primary'").sqlstate(), "25P02");
    assert_eq!(session.query("commit").tags(), ["ROLLBACK"]);
    assert_eq!(session.value("select v from t"), "1");
}
