use std::{sync::Arc, time::Duration};

use super::*;
use crate::telemetry::figures::{DatabaseRow, ListRow, PoolRow, StatsFigures, StatsRow};

fn observation() -> Observation<'static> {
    Observation {
        route: Route::Replica,
        route_reason: "read",
        cache: CacheOutcome::Miss,
        cache_reason: "absent",
        absence: None,
        queue: Duration::from_micros(50),
        server: Duration::from_micros(700),
        total: Duration::from_micros(800),
        rows: 3,
        bytes: 120,
        sqlstate: None,
    }
}

#[track_caller]
fn check(text: &str, line: &str) {
    assert!(text.lines().any(|l| l == line), "no line\n{line}\nin\n{text}");
}

#[test]
fn a_request_is_counted_by_route_reason_and_cache_outcome() {
    let metrics = Arc::new(Metrics::new());
    let shop = DatabaseMetrics::new(&metrics, "shop");
    shop.observe(&observation());
    shop.observe(&Observation { sqlstate: Some("40001"), ..observation() });
    let text = metrics.render(&[], None);
    check(&text, r#"pgweir_requests_total{database="shop",route="replica",reason="read"} 2"#);
    check(&text, r#"pgweir_cache_requests_total{database="shop",outcome="miss",reason="absent"} 2"#);
    check(&text, r#"pgweir_request_errors_total{database="shop",sqlstate="40001"} 1"#);
    check(&text, r#"pgweir_request_rows_total{database="shop"} 6"#);
    check(&text, r#"pgweir_request_bytes_total{database="shop"} 240"#);
}

#[test]
fn latencies_fall_into_cumulated_buckets_of_seconds() {
    let metrics = Arc::new(Metrics::new());
    let shop = DatabaseMetrics::new(&metrics, "shop");
    shop.observe(&observation());
    shop.observe(&Observation { total: Duration::from_secs(100), ..observation() });
    let text = metrics.render(&[], None);
    let labels = r#"database="shop",route="replica",cache="miss""#;
    check(&text, "# TYPE pgweir_request_seconds histogram");
    for (le, count) in [("0.0005", 0), ("0.001", 1), ("60", 1), ("+Inf", 2)] {
        check(&text, &format!(r#"pgweir_request_seconds_bucket{{{labels},le="{le}"}} {count}"#));
    }
    check(&text, &format!("pgweir_request_seconds_sum{{{labels}}} 100.0008"));
    check(&text, &format!("pgweir_request_seconds_count{{{labels}}} 2"));
    check(&text, &format!(r#"pgweir_request_queue_seconds_bucket{{{labels},le="0.0001"}} 2"#));
}

#[test]
fn a_duration_on_a_bound_belongs_to_that_bucket() {
    let histogram = Histogram::default();
    histogram.record(Duration::from_millis(1));
    let mut text = Exposition::default();
    histogram::render(&mut text, &families::REQUEST_SECONDS, &[(Key::from_name("pgweir_request_seconds"), histogram)]);
    check(&text.finish(), r#"pgweir_request_seconds_bucket{le="0.001"} 1"#);
}

#[test]
fn what_the_cache_or_the_proxy_answers_has_no_server_time() {
    let metrics = Arc::new(Metrics::new());
    let shop = DatabaseMetrics::new(&metrics, "shop");
    shop.observe(&Observation { route: Route::Cache, cache: CacheOutcome::Hit, ..observation() });
    let text = metrics.render(&[], None);
    assert!(text.contains("pgweir_request_seconds_count"));
    assert!(!text.contains("pgweir_request_server_seconds"));
}

#[test]
fn figures_counted_elsewhere_are_shown_with_their_kind_and_help() {
    let sample = |name: &str, value| Sample::new(&families::TABLE_ENTRIES, &[("table", name)], value);
    let opened = Sample::new(&families::SERVER_CONNECTIONS_OPENED, &[("database", "a\"b")], 3.0);
    let text = Metrics::new().render(&[sample("one", 5.0), opened, sample("two", f64::NAN)], None);
    check(&text, "# TYPE pgweir_table_entries gauge");
    check(&text, r#"pgweir_table_entries{table="one"} 5"#);
    check(&text, r#"pgweir_table_entries{table="two"} NaN"#);
    check(&text, "# TYPE pgweir_server_connections_opened_total counter");
    check(&text, r#"pgweir_server_connections_opened_total{database="a\"b"} 3"#);
    assert_eq!(text.matches("# TYPE pgweir_table_entries").count(), 1);
    assert!(!text.contains("pgweir_table_limit"));
}

#[test]
fn asking_twice_for_a_series_gives_the_same_one() {
    let metrics = Metrics::new();
    let labels = [("database", "shop"), ("reason", "listen")];
    metrics.counter(&families::PINS, &labels).increment();
    metrics.counter(&families::PINS, &labels).add(2);
    check(&metrics.render(&[], None), r#"pgweir_pins_total{database="shop",reason="listen"} 3"#);
}

#[test]
fn label_values_beyond_the_table_are_counted_as_other() {
    let metrics = Arc::new(Metrics::new());
    let counters = LabelCounters::new(&metrics, &families::REQUEST_ERRORS, &[], "sqlstate");
    for code in 0..100 {
        counters.at(&format!("X{code:04}")).increment();
        counters.at(&format!("X{code:04}")).increment();
    }
    let text = metrics.render(&[], None);
    check(&text, r#"pgweir_request_errors_total{sqlstate="X0000"} 2"#);
    check(&text, r#"pgweir_request_errors_total{sqlstate="other"} 72"#);
}

#[test]
fn series_are_bounded_and_the_refused_ones_counted() {
    let metrics = Metrics::new();
    for user in 0..SERIES_LIMIT + 5 {
        metrics.counter(&families::PINS, &[("database", &user.to_string())]).increment();
    }
    check(&metrics.render(&[], None), "pgweir_metrics_series_refused_total 5");
}

#[test]
fn every_family_has_a_distinct_name_a_unit_and_help() {
    let mut names: Vec<_> = families::ALL.iter().map(|family| family.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), families::ALL.len());
    for family in families::ALL {
        assert!(family.name.starts_with("pgweir_"), "{}", family.name);
        let is_counter = family.kind == families::Kind::Counter;
        assert_eq!(is_counter, family.name.ends_with("_total"), "{}", family.name);
        assert!(family.help.ends_with('.'), "{}", family.name);
    }
}

struct View;

impl PgbouncerView for View {
    fn version(&self) -> String {
        "PgBouncer 1.25.2 (pgweir 0.1.0)".to_owned()
    }
    fn pools(&self) -> Vec<PoolRow> {
        vec![PoolRow {
            database: "shop \"x\"\\".to_owned(),
            user: "app".to_owned(),
            cl_active: 4,
            maxwait_us: 2_900_000,
            ..PoolRow::default()
        }]
    }
    fn databases(&self) -> Vec<DatabaseRow> {
        vec![DatabaseRow {
            name: "shop".to_owned(),
            host: Some("db1".to_owned()),
            port: 5432,
            database: "shop".to_owned(),
            pool_size: 20,
            paused: true,
            ..DatabaseRow::default()
        }]
    }
    fn stats(&self) -> Vec<StatsRow> {
        let totals = StatsFigures { query_count: 7, query_time: 1_500_000, ..StatsFigures::default() };
        vec![StatsRow { database: "shop".to_owned(), totals, ..StatsRow::default() }]
    }
    fn lists(&self) -> Vec<ListRow> {
        vec![ListRow { list: "databases", items: 2 }, ListRow { list: "dns_zones", items: 0 }]
    }
    fn config_number(&self, key: &str) -> Option<f64> {
        (key == "max_client_conn").then_some(100.0)
    }
}

#[test]
fn boards_made_for_pgbouncer_exporter_find_their_families() {
    let text = Metrics::new().render(&[], Some(&View));
    for line in [
        "pgbouncer_up 1",
        r#"pgbouncer_version_info{version="PgBouncer 1.25.2 (pgweir 0.1.0)"} 1"#,
        "pgbouncer_config_max_client_connections 100",
        "pgbouncer_databases 2",
        "pgbouncer_cached_dns_zones 0",
        r#"pgbouncer_pools_client_active_connections{database="shop \"x\"\\",user="app"} 4"#,
        r#"pgbouncer_pools_client_maxwait_seconds{database="shop \"x\"\\",user="app"} 2"#,
        r#"pgbouncer_databases_pool_size{database="shop",force_user="",host="db1",name="shop",pool_mode="",port="5432"} 20"#,
        r#"pgbouncer_databases_paused{database="shop",force_user="",host="db1",name="shop",pool_mode="",port="5432"} 1"#,
        r#"pgbouncer_stats_queries_pooled_total{database="shop"} 7"#,
        r#"pgbouncer_stats_totals_queries_pooled_total{database="shop"} 7"#,
        r#"pgbouncer_stats_totals_queries_duration_seconds_total{database="shop"} 1.5"#,
        "# TYPE pgbouncer_stats_queries_pooled_total counter",
    ] {
        check(&text, line);
    }
    assert!(!text.contains("pgbouncer_config_max_user_connections"));
}
