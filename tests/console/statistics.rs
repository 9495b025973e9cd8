//! SHOW STATS counts as PgBouncer counts, to the last one.

use crate::{
    column, pooled,
    support::{
        Proxy, RawClient, cluster,
        cluster::USER,
        frames::{bind, execute, parse, query, sync, terminate},
        proxy::Table,
        wait_until,
    },
};

fn of(table: &Table, database: &str, figure: &str) -> i64 {
    table.number("database", database, figure)
}

/// Waits until so many queries are counted, and checks the other figures then.
#[track_caller]
fn check(proxy: &Proxy, database: &str, expected: &[(&str, i64)]) -> Table {
    let (first, count) = expected[0];
    wait_until("the last query is counted", || of(&proxy.show("STATS"), database, first) == count);
    let stats = proxy.show("STATS");
    for (figure, count) in expected {
        assert_eq!(of(&stats, database, figure), *count, "{figure}");
    }
    stats
}

#[test]
fn logins_assignments_transactions_and_queries_are_counted_in_session_pooling() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).set("pool_mode", "session").start();
    for _ in 0..4 {
        proxy.session(&database).rows("select 1");
    }
    let mut client = proxy.session(&database);
    for _ in 0..2 {
        for statement in ["begin", "select 1", "select 1", "select 1", "commit"] {
            client.query(statement);
        }
    }
    let counts = [("query_count", 14), ("xact_count", 6), ("server_assignment_count", 5), ("client_login_count", 5)];
    let expected = counts.map(|(figure, count)| (format!("total_{figure}"), count));
    let expected: Vec<_> = expected.iter().map(|(figure, count)| (figure.as_str(), *count)).collect();
    check(&proxy, &database, &expected);
    let totals = proxy.show("STATS_TOTALS");
    for (figure, count) in counts {
        assert_eq!(of(&totals, &database, figure), count, "{figure}");
    }
}

#[test]
fn a_server_is_assigned_once_per_transaction_in_transaction_pooling() {
    let (proxy, database) = pooled(2);
    let mut client = proxy.session(&database);
    for statement in ["select 1", "begin", "select 1", "commit", "select 1; select 2", "nonsense"] {
        client.query(statement);
    }
    let expected = [
        ("total_query_count", 6),
        ("total_xact_count", 4),
        ("total_server_assignment_count", 4),
        ("total_client_login_count", 1),
        ("total_client_parse_count", 0),
        ("total_bind_count", 0),
    ];
    check(&proxy, &database, &expected);
}

#[test]
fn a_pipeline_is_one_query_and_what_it_does_with_named_statements_is_counted() {
    let (proxy, database) = pooled(1);
    let (mut one, mut two) = (proxy.session(&database), proxy.session(&database));
    for client in [&mut one, &mut two] {
        let run = [bind("s", &[]), execute("", 0)].concat();
        client.send(&[parse("s", "select 1"), run.clone(), run.clone(), run, sync()].concat());
        assert_eq!(client.reply().tags().len(), 3);
    }
    let expected = [
        ("total_query_count", 2),
        ("total_xact_count", 2),
        ("total_client_parse_count", 2),
        // The second client's statement is the first one's.
        ("total_server_parse_count", 1),
        ("total_bind_count", 6),
    ];
    check(&proxy, &database, &expected);
    assert_eq!(one.extended("select 2", &[]).rows(), [["2"]]);
    check(&proxy, &database, &[("total_query_count", 3), ("total_client_parse_count", 2), ("total_bind_count", 6)]);
    proxy.tell("RECONNECT");
    one.send(&[bind("s", &[]), execute("", 0), sync()].concat());
    assert_eq!(one.reply().rows(), [["1"]]);
    check(&proxy, &database, &[("total_query_count", 4), ("total_server_parse_count", 2), ("total_bind_count", 7)]);
}

#[test]
fn bytes_are_those_from_clients_and_to_them() {
    let (proxy, database) = pooled(1);
    let mut client = proxy.session(&database);
    let question = query("select repeat('x', 1000)");
    let mut answered = 0;
    for _ in 0..3 {
        client.send(&question);
        answered += client.reply().frames.iter().map(|frame| frame.bytes().len()).sum::<usize>();
    }
    client.send(&terminate());
    let stats = check(&proxy, &database, &[("total_query_count", 3)]);
    assert_eq!(of(&stats, &database, "total_received"), 3 * question.len() as i64);
    assert_eq!(of(&stats, &database, "total_sent"), answered as i64);
}

#[test]
fn the_time_of_a_query_includes_its_wait_for_a_server_and_that_of_a_transaction_its_pauses() {
    let (proxy, database) = pooled(1);
    let (mut holder, mut waiter) = (proxy.session(&database), proxy.session(&database));
    holder.query("begin");
    waiter.send(&query("select 1"));
    wait_until("it waits", || column(&proxy, "POOLS", ("database", &database), "cl_waiting") == "1");
    let waited = 400_000;
    wait_until("it has waited for long", || {
        let pools = proxy.show("POOLS");
        pools.number("database", &database, "maxwait") > 0 || pools.number("database", &database, "maxwait_us") > waited
    });
    holder.query("commit");
    waiter.reply();
    let stats = check(&proxy, &database, &[("total_query_count", 3), ("total_xact_count", 2)]);
    for figure in ["total_wait_time", "total_query_time", "total_xact_time"] {
        assert!(of(&stats, &database, figure) >= waited, "{figure} in {stats:?}");
    }
    let (query, xact) = (of(&stats, &database, "total_query_time"), of(&stats, &database, "total_xact_time"));
    assert!(xact >= query + waited / 2, "the transaction that waited for its client counts the wait: {query} {xact}");
    assert!(of(&stats, &database, "total_wait_time") <= query, "{stats:?}");
}

#[test]
fn averages_are_those_of_the_last_full_period() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).set("stats_period", 2).start();
    let mut client = proxy.session(&database);
    for _ in 0..20 {
        client.query("select pg_sleep(0.02)");
    }
    let averages = || {
        let stats = proxy.show("STATS");
        [of(&stats, &database, "avg_query_count"), of(&stats, &database, "avg_query_time")]
    };
    let mut found = ([0; 2], 0);
    wait_until("a period has ended, and none does while it is looked at", || {
        found = (averages(), of(&proxy.show("STATS_AVERAGES"), &database, "query_count"));
        found.0[0] > 0 && found.0 == averages()
    });
    // Twenty queries, in one period of two seconds or in several.
    let ([count, time], alone) = found;
    assert!((1..=10).contains(&count), "{count}");
    assert!((20_000..500_000).contains(&time), "each took 0.02 s and more: {time}");
    assert_eq!(alone, count);
    wait_until("two more have ended", || averages() == [0, 0]);
    assert_eq!(of(&proxy.show("STATS"), &database, "total_query_count"), 20);
    wait_until("the log says so", || proxy.log().contains("stats: 0 xacts/s, 0 queries/s"));
}

#[test]
fn the_consoles_own_traffic_counts_under_its_database() {
    let (proxy, database) = pooled(1);
    proxy.session(&database).rows("select 1");
    let mut console = proxy.console();
    let before = Table::of(&console.query("SHOW STATS"));
    for command in ["SHOW VERSION", "SHOW LISTS", "nonsense"] {
        console.query(command);
    }
    let after = Table::of(&console.query("SHOW STATS"));
    let grown = |figure: &str| of(&after, "pgbouncer", figure) - of(&before, "pgbouncer", figure);
    // The SHOW STATS in front and the three behind it.
    assert_eq!([grown("total_query_count"), grown("total_xact_count"), grown("total_client_login_count")], [4, 4, 0]);
    let sent: usize =
        ["SHOW STATS", "SHOW VERSION", "SHOW LISTS", "nonsense"].map(|text| query(text).len()).iter().sum();
    assert_eq!(grown("total_received"), sent as i64);
    assert!(grown("total_sent") > 100);
    drop(RawClient::session(&proxy.address(), crate::support::proxy::ADMIN, "pgweir"));
    assert_eq!(
        of(&proxy.show("STATS"), "pgbouncer", "total_client_login_count"),
        of(&after, "pgbouncer", "total_client_login_count") + 2
    );
}

#[test]
fn totals_are_the_sum_over_databases() {
    let (one, two) = (cluster().database(), cluster().database());
    let proxy = Proxy::of(cluster(), &one).database(&two, cluster().primary.port, "").start();
    for database in [&one, &two] {
        let mut client = RawClient::session(&proxy.address(), USER, database);
        client.rows("select 1");
        client.rows("select 2");
    }
    let total = |name: &str| proxy.show("TOTALS").number("name", name, "value");
    let sum =
        |figure: &str| -> i64 { proxy.show("STATS").column(figure).iter().map(|n| n.parse::<i64>().unwrap()).sum() };
    wait_until("all is counted", || {
        [&one, &two].iter().all(|database| of(&proxy.show("STATS"), database, "total_query_count") == 2)
    });
    // Each look is a query of the console itself.
    let before = sum("total_query_count");
    assert_eq!(total("total_query_count"), before + 1);
    assert_eq!(total("total_server_assignment_count"), 4);
    assert_eq!(total("total_ps_bind_count"), 0);
    assert!(total("total_client_bytes") > 0 && total("total_server_bytes") > 0);
}
