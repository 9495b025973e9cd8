use std::{fs, time::UNIX_EPOCH};

use super::*;
use crate::{sql::Fingerprint, telemetry::metrics::Metrics};

struct Bed {
    metrics: SharedMetrics,
    insight: Insight,
    start: Instant,
}

fn bed(settings: InsightSettings) -> Bed {
    let metrics = Arc::new(Metrics::new());
    let start = Instant::now();
    let insight = Insight::new(&settings, &metrics, start).unwrap();
    Bed { metrics, insight, start }
}

fn record(account: &Account) -> RequestRecord<'_> {
    RequestRecord {
        account,
        fingerprint: Fingerprint(0xabc),
        normalized: "select ? from t",
        route: Route::Primary,
        route_reason: "write",
        member: None,
        cache: CacheOutcome::Bypass,
        cache_reason: "not_a_read",
        absence: None,
        queue: Duration::from_millis(1),
        server: Duration::from_millis(8),
        total: Duration::from_millis(10),
        rows: 2,
        received: 30,
        sent: 50,
        work: Work::default(),
        sqlstate: None,
        ended: UNIX_EPOCH + Duration::from_secs(1_795_261_341),
    }
}

#[test]
fn a_shape_is_summed_over_its_requests() {
    let bed = bed(InsightSettings::default());
    let account = bed.insight.account("shop", "app");
    for total in [10, 20, 30] {
        let total = Duration::from_millis(total);
        bed.insight.observe(&RequestRecord { total, ..record(&account) });
    }
    bed.insight.observe(&RequestRecord { route: Route::Replica, sqlstate: Some(*b"40001"), ..record(&account) });
    bed.insight.observe(&RequestRecord {
        route: Route::Cache,
        cache: CacheOutcome::Hit,
        queue: Duration::ZERO,
        server: Duration::ZERO,
        ..record(&account)
    });
    let rows = bed.insight.top(10);
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!(row.fingerprint, format!("{:032x}", 0xabc));
    assert_eq!((row.database.as_str(), row.user.as_str()), ("shop", "app"));
    assert_eq!((row.calls, row.errors, row.rows, row.bytes), (5, 1, 10, 250));
    assert_eq!((row.cache_hits, row.replica_calls), (1, 1));
    assert_eq!((row.total_ms, row.min_ms, row.max_ms), (80.0, 10.0, 30.0));
    assert_eq!((row.queue_ms, row.server_ms), (4.0, 32.0));
    assert!(row.p50_ms >= 10.0 && row.p50_ms < 13.0, "{row:?}");
    assert!(row.p99_ms > 25.0 && row.p99_ms <= 30.0, "{row:?}");
    assert_eq!(row.query, "select ? from t");
}

#[test]
fn users_and_databases_have_figures_of_their_own_the_most_expensive_first() {
    let bed = bed(InsightSettings::default());
    for (database, user, total) in [("a", "x", 1), ("a", "y", 3), ("b", "x", 2)] {
        let account = bed.insight.account(database, user);
        let total = Duration::from_millis(total);
        bed.insight.observe(&RequestRecord { total, ..record(&account) });
    }
    let owners: Vec<_> = bed.insight.top(2).into_iter().map(|r| (r.database, r.user)).collect();
    assert_eq!(owners, [("a".into(), "y".into()), ("b".into(), "x".into())]);
}

#[test]
fn a_full_table_gives_up_the_least_called_shapes_and_counts_them() {
    let bed = bed(InsightSettings { shapes: 100, ..InsightSettings::default() });
    let account = bed.insight.account("shop", "app");
    let shape = |number| RequestRecord { fingerprint: Fingerprint(number), ..record(&account) };
    for _ in 0..5 {
        (0..50).for_each(|number| bed.insight.observe(&shape(number)));
    }
    (1000..2000).for_each(|number| bed.insight.observe(&shape(number)));
    assert!(bed.insight.shapes() <= 100, "{}", bed.insight.shapes());
    let rows = bed.insight.top(1000);
    assert_eq!(rows.iter().filter(|row| row.calls == 5).count(), 50);
    let text = bed.metrics.render(&[], None);
    let evicted = 1050 - rows.len();
    assert!(text.contains(&format!("pgweir_query_shapes_evicted_total {evicted}\n")), "{text}");
}

#[test]
fn only_requests_over_the_threshold_are_slow_and_the_latest_come_first() {
    let bed = bed(InsightSettings { slow_kept: 2, ..InsightSettings::default() });
    let account = bed.insight.account("shop", "app");
    for total in [99, 100, 101, 102] {
        let total = Duration::from_millis(total);
        bed.insight.observe(&RequestRecord { total, ..record(&account) });
    }
    let totals: Vec<_> = bed.insight.slow(10).iter().map(|row| row.total_ms).collect();
    assert_eq!(totals, [102.0, 101.0]);
    let text = bed.metrics.render(&[], None);
    assert!(text.contains("pgweir_slow_queries_total{database=\"shop\"} 3\n"), "{text}");
}

#[test]
fn the_threshold_can_be_moved_and_taken_away() {
    let bed = bed(InsightSettings::default());
    let account = bed.insight.account("shop", "app");
    bed.insight.set_slow_threshold(Some(Duration::ZERO));
    bed.insight.observe(&RequestRecord { total: Duration::ZERO, ..record(&account) });
    bed.insight.set_slow_threshold(None);
    bed.insight.observe(&RequestRecord { total: Duration::MAX, ..record(&account) });
    assert_eq!(bed.insight.slow(10).len(), 1);
}

#[test]
fn the_slow_log_is_json_lines_that_survive_a_rotation() {
    let directory = tempfile::tempdir().unwrap();
    let (path, old) = (directory.path().join("slow"), directory.path().join("slow.1"));
    let bed = bed(InsightSettings {
        slow_query_threshold: Some(Duration::ZERO),
        slow_query_log: Some(path.clone()),
        ..InsightSettings::default()
    });
    let account = bed.insight.account("shop", "app");
    let member: Arc<str> = "shop.r1".into();
    bed.insight.observe(&RequestRecord { member: Some(&member), ..record(&account) });
    fs::rename(&path, &old).unwrap();
    bed.insight.reopen_slow_log();
    bed.insight.observe(&RequestRecord { sqlstate: Some(*b"57014"), ..record(&account) });
    bed.insight.close();
    let first: serde_json::Value = serde_json::from_slice(&fs::read(old).unwrap()).unwrap();
    let expected = serde_json::json!({
        "at": "2026-11-21T11:42:21.000000Z",
        "database": "shop",
        "user": "app",
        "fingerprint": format!("{:032x}", 0xabc),
        "query": "select ? from t",
        "route": "primary",
        "route_reason": "write",
        "member": "shop.r1",
        "cache": "bypass",
        "cache_reason": "not_a_read",
        "queue_ms": 1.0,
        "server_ms": 8.0,
        "total_ms": 10.0,
        "rows": 2,
        "bytes": 50,
        "sqlstate": null,
    });
    assert_eq!(first, expected);
    let second = fs::read_to_string(path).unwrap();
    assert_eq!(second.lines().count(), 1);
    assert!(second.contains(r#""sqlstate":"57014""#));
}

#[test]
fn after_the_log_is_closed_lines_are_dropped_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let bed = bed(InsightSettings {
        slow_query_threshold: Some(Duration::ZERO),
        slow_query_log: Some(directory.path().join("slow")),
        ..InsightSettings::default()
    });
    bed.insight.close();
    bed.insight.close();
    bed.insight.reopen_slow_log();
    bed.insight.observe(&record(&bed.insight.account("shop", "app")));
    assert!(bed.metrics.render(&[], None).contains("pgweir_slow_log_dropped_total 1\n"));
}

#[test]
fn statistics_are_summed_per_database_and_averaged_over_the_last_period() {
    let stats_period = Duration::from_secs(1);
    let bed = bed(InsightSettings { stats_period, ..InsightSettings::default() });
    let at = |seconds| bed.start + Duration::from_secs(seconds);
    for user in ["x", "y"] {
        let account = bed.insight.account("shop", user);
        account.stats().login();
        let work = Work {
            assignments: 1,
            transactions: 1,
            transaction_time: Duration::from_millis(12),
            client_parses: 3,
            server_parses: 2,
            binds: 4,
        };
        bed.insight.observe(&RequestRecord { work, ..record(&account) });
    }
    let rows = bed.insight.stats(at(1));
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!(row.totals.values(), [2, 2, 2, 60, 100, 24_000, 20_000, 2_000, 6, 4, 8, 2]);
    assert_eq!(row.averages.values(), [1, 1, 1, 30, 50, 12_000, 10_000, 1_000, 3, 2, 4, 1]);
}

#[test]
fn a_period_without_requests_forgets_the_ones_before() {
    let bed = bed(InsightSettings::default());
    let at = |seconds| bed.start + Duration::from_secs(seconds);
    bed.insight.observe(&record(&bed.insight.account("shop", "app")));
    let first = bed.insight.roll(at(1));
    assert_eq!((first.query_count, first.query_time), (1, 10_000));
    assert_eq!(bed.insight.roll(at(2)).query_count, 0);
    assert_eq!(bed.insight.stats(at(3))[0].averages, StatsFigures::default());
    assert_eq!(bed.insight.stats(at(3))[0].totals.query_count, 1);
}

#[test]
fn the_stats_line_reads_as_pgbouncer_logs_it() {
    let averages = StatsFigures { xact_count: 1, query_count: 2, sent: 8, ..StatsFigures::default() };
    assert_eq!(
        log_line(&averages),
        "stats: 1 xacts/s, 2 queries/s, 0 client parses/s, 0 server parses/s, 0 binds/s, \
         0 client logins/s, in 0 B/s, out 8 B/s, xact 0 us, query 0 us, wait 0 us"
    );
}

#[test]
fn a_flood_of_names_is_counted_together() {
    let bed = bed(InsightSettings::default());
    for user in 0..10_010 {
        bed.insight.account("shop", &user.to_string());
    }
    assert_eq!(&**bed.insight.account("shop", "last").user(), "(other)");
    assert_eq!(&**bed.insight.account("unheard", "last").database(), "(other)");
    assert_eq!(&**bed.insight.account("shop", "7").user(), "7");
}

#[test]
fn a_sqlstate_that_is_none_is_no_label() {
    let bed = bed(InsightSettings::default());
    let account = bed.insight.account("shop", "app");
    bed.insight.observe(&RequestRecord { sqlstate: Some(*b"\"\n{}x"), ..record(&account) });
    let text = bed.metrics.render(&[], None);
    assert!(text.contains(r#"pgweir_request_errors_total{database="shop",sqlstate="other"} 1"#));
}
