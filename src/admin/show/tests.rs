use super::*;
use crate::admin::{
    command::{self, Command},
    table::Type,
    tests::Process,
};

/// Name and type letter of each column: `s` text, `i` int4, `q` int8, `N` numeric.
fn spelled(columns: &[Column]) -> String {
    let letter = |kind: &Type| match kind {
        Type::Text => 's',
        Type::Int4 => 'i',
        Type::Int8 => 'q',
        Type::Numeric => 'N',
    };
    let columns = columns.iter().map(|(name, kind)| format!("{name}:{}", letter(kind)));
    columns.collect::<Vec<_>>().join(" ")
}

fn read(text: &str) -> Show {
    match command::parse(text) {
        Ok(Command::Show(show)) => show,
        other => panic!("{text}: {other:?}"),
    }
}

/// Asks for a SHOW, checks its columns, and that every row has them all.
#[track_caller]
fn check(text: &str, expected: &str) -> Table {
    check_layout(StatsColumns::WithLogins, text, expected)
}

#[track_caller]
fn check_layout(layout: StatsColumns, text: &str, expected: &str) -> Table {
    let show = read(text);
    let table = table(&show, &Process::with_layout(layout)).expect(text);
    assert_eq!(spelled(table.columns), expected.split_whitespace().collect::<Vec<_>>().join(" "));
    assert_eq!(columns(&show, layout), Some(table.columns));
    for row in &table.rows {
        assert_eq!(row.len(), table.columns.len(), "{text}");
    }
    table
}

fn row(table: &Table, index: usize) -> Vec<&str> {
    table.rows[index].iter().map(|cell| cell.as_deref().unwrap_or("NULL")).collect()
}

const CONNECTION: &str = "type:s user:s database:s replication:s state:s addr:s port:i local_addr:s
    local_port:i connect_time:s request_time:s wait:i wait_us:i close_needed:i ptr:s link:s
    remote_pid:i tls:s application_name:s prepared_statements:i id:i";

#[test]
fn pools_have_pgbouncers_seventeen_columns() {
    let table = check(
        "SHOW POOLS",
        "database:s user:s cl_active:i cl_waiting:i cl_active_cancel_req:i cl_waiting_cancel_req:i
         sv_active:i sv_active_cancel:i sv_being_canceled:i sv_idle:i sv_used:i sv_tested:i
         sv_login:i maxwait:i maxwait_us:i pool_mode:s load_balance_hosts:s",
    );
    let expected =
        ["shop", "app", "3", "1", "0", "0", "2", "0", "0", "4", "0", "0", "0", "2", "500000", "transaction", "NULL"];
    assert_eq!(row(&table, 0), expected);
}

#[test]
fn databases_have_pgbouncers_seventeen_columns() {
    let table = check(
        "SHOW DATABASES",
        "name:s host:s port:i database:s force_user:s pool_size:i min_pool_size:i
         reserve_pool_size:i server_lifetime:i pool_mode:s load_balance_hosts:s max_connections:i
         current_connections:i max_client_connections:i current_client_connections:i paused:i
         disabled:i",
    );
    let expected =
        ["shop", "db1", "5432", "shop", "NULL", "20", "0", "0", "3600", "NULL", "NULL", "0", "6", "0", "4", "1", "0"];
    assert_eq!(row(&table, 0), expected);
}

#[test]
fn stats_have_the_twenty_five_columns_of_pgbouncers_newest_layout() {
    let table = check(
        "SHOW STATS",
        "database:s total_server_assignment_count:N total_xact_count:N total_query_count:N
         total_received:N total_sent:N total_xact_time:N total_query_time:N total_wait_time:N
         total_client_parse_count:N total_server_parse_count:N total_bind_count:N
         total_client_login_count:N avg_server_assignment_count:N avg_xact_count:N avg_query_count:N
         avg_recv:N avg_sent:N avg_xact_time:N avg_query_time:N avg_wait_time:N
         avg_client_parse_count:N avg_server_parse_count:N avg_bind_count:N avg_client_login_count:N",
    );
    let mut expected = vec!["shop".to_owned()];
    expected.extend((1..=12).chain(101..=112).map(|figure: i32| figure.to_string()));
    assert_eq!(row(&table, 0), expected);
}

#[test]
fn totals_and_averages_are_also_shown_apart() {
    let totals = check(
        "SHOW STATS_TOTALS",
        "database:s server_assignment_count:N xact_count:N query_count:N bytes_received:N
         bytes_sent:N xact_time:N query_time:N wait_time:N client_parse_count:N
         server_parse_count:N bind_count:N client_login_count:N",
    );
    assert_eq!(row(&totals, 0)[1..3], ["1", "2"]);
    let averages = check(
        "SHOW STATS_AVERAGES",
        "database:s server_assignment_count:N xact_count:N query_count:N bytes_received:N
         bytes_sent:N xact_time:N query_time:N wait_time:N avg_client_parse_count:N
         avg_server_parse_count:N avg_bind_count:N avg_client_login_count:N",
    );
    assert_eq!(row(&averages, 0)[1..3], ["101", "102"]);
}

#[test]
fn the_statistics_have_the_layout_of_1_25_2_where_that_is_asked_for() {
    let layout = StatsColumns::WithoutLogins;
    let table = check_layout(
        layout,
        "SHOW STATS",
        "database:s total_server_assignment_count:N total_xact_count:N total_query_count:N
         total_received:N total_sent:N total_xact_time:N total_query_time:N total_wait_time:N
         total_client_parse_count:N total_server_parse_count:N total_bind_count:N
         avg_server_assignment_count:N avg_xact_count:N avg_query_count:N
         avg_recv:N avg_sent:N avg_xact_time:N avg_query_time:N avg_wait_time:N
         avg_client_parse_count:N avg_server_parse_count:N avg_bind_count:N",
    );
    let mut expected = vec!["shop".to_owned()];
    expected.extend((1..=11).chain(101..=111).map(|figure: i32| figure.to_string()));
    assert_eq!(row(&table, 0), expected);
    check_layout(
        layout,
        "SHOW STATS_TOTALS",
        "database:s server_assignment_count:N xact_count:N query_count:N bytes_received:N
         bytes_sent:N xact_time:N query_time:N wait_time:N client_parse_count:N
         server_parse_count:N bind_count:N",
    );
    check_layout(
        layout,
        "SHOW STATS_AVERAGES",
        "database:s server_assignment_count:N xact_count:N query_count:N bytes_received:N
         bytes_sent:N xact_time:N query_time:N wait_time:N avg_client_parse_count:N
         avg_server_parse_count:N avg_bind_count:N",
    );
    let totals = check_layout(layout, "SHOW TOTALS", "name:s value:N");
    assert_eq!(totals.rows.len(), 22);
    assert_eq!([row(&totals, 10)[0], row(&totals, 21)[0]], ["total_ps_bind_count", "avg_ps_bind_count"]);
}

#[test]
fn totals_over_all_databases_come_before_their_averages() {
    let table = check("SHOW TOTALS", "name:s value:N");
    assert_eq!(table.rows.len(), 24);
    assert_eq!(row(&table, 0), ["total_server_assignment_count", "2"]);
    assert_eq!(row(&table, 3), ["total_client_bytes", "8"]);
    assert_eq!(row(&table, 15), ["avg_client_bytes", "208"]);
    // Two databases alike: the time per query is theirs, not twice theirs.
    assert_eq!(row(&table, 18), ["avg_query_time", "107"]);
    assert_eq!(row(&table, 23), ["avg_client_login_count", "224"]);
}

#[test]
fn clients_and_servers_have_twenty_one_columns() {
    let clients = check("SHOW CLIENTS", CONNECTION);
    let expected = [
        "C",
        "app",
        "shop",
        "none",
        "active",
        "10.0.0.7",
        "40312",
        "10.0.0.1",
        "6432",
        "2026-11-21 11:42:21 UTC",
        "2026-11-21 11:42:23 UTC",
        "1",
        "20",
        "0",
        "0x1f",
        "0x2f",
        "0",
        "TLSv1.3/x",
        "psql",
        "3",
        "31",
    ];
    assert_eq!(row(&clients, 0), expected);
    let servers = check("SHOW SERVERS", CONNECTION);
    assert_eq!(row(&servers, 0)[..5], ["S", "(nouser)", "(nodb)", "none", "new"]);
    assert_eq!(row(&servers, 0)[15], "");
}

#[test]
fn sockets_are_clients_and_servers_with_their_buffers() {
    let columns = format!(
        "{CONNECTION} recv_pos:i pkt_pos:i pkt_remain:i send_pos:i send_remain:i pkt_avail:i
         send_avail:i"
    );
    let table = check("SHOW SOCKETS", &columns);
    assert_eq!(row(&table, 0)[4], "cl_active");
    assert_eq!(row(&table, 1)[4], "sv_login");
    let active = check("SHOW ACTIVE_SOCKETS", &columns);
    assert_eq!(active.rows.len(), 1);
    assert_eq!(row(&active, 0)[21..], ["0", "0", "0", "0", "0", "9", "0"]);
}

#[test]
fn the_small_tables_have_pgbouncers_columns() {
    let lists = check("SHOW LISTS", "list:s items:i");
    assert_eq!(row(&lists, 0), ["databases", "2"]);
    let users = check(
        "SHOW USERS",
        "name:s pool_size:s reserve_pool_size:s pool_mode:s max_user_connections:i
         current_connections:i max_user_client_connections:i current_client_connections:i",
    );
    assert_eq!(row(&users, 0), ["app", "       10", "", "NULL", "0", "0", "0", "0"]);
    let config = check("SHOW CONFIG", "key:s value:s default:s changeable:s");
    assert_eq!(row(&config, 0), ["max_client_conn", "100", "100", "yes"]);
    let state = check("SHOW STATE", "key:s value:s");
    assert_eq!(row(&state, 0), ["active", "yes"]);
    assert_eq!(row(&state, 2), ["suspended", "no"]);
    check("SHOW PEERS", "peer_id:i host:s port:i pool_size:i");
    check("SHOW PEER_POOLS", "peer_id:i cl_active_cancel_req:i cl_waiting_cancel_req:i sv_active_cancel:i sv_login:i");
    check("SHOW MEM", "name:s size:i used:i free:i memtotal:i");
    check("SHOW DNS_HOSTS", "hostname:s ttl:q addrs:s");
    check("SHOW DNS_ZONES", "zonename:s serial:q count:i");
    let version = check("SHOW VERSION", "version:s");
    assert!(row(&version, 0)[0].starts_with("PgBouncer 1.25.2 (pgweir "));
}

#[test]
fn what_drivers_ask_at_login_is_answered() {
    assert_eq!(row(&check("SHOW client_encoding", "client_encoding:s"), 0), ["UTF-8"]);
    assert_eq!(row(&check("SHOW TIMEZONE", "timezone:s"), 0), ["GMT"]);
}

#[test]
fn our_own_tables_have_the_columns_of_the_manual() {
    let replicas = check(
        "SHOW REPLICAS",
        "database:s member:s host:s port:i role:s state:s reason:s weight:i lag_seconds:N lsn:s
         in_flight:i connections:i requests:q errors:q",
    );
    assert_eq!(row(&replicas, 0)[8..10], ["0.250", "0/10"]);
    let cache = check(
        "SHOW CACHE",
        "database:s state:s guarantee:s entries:q bytes:q max_bytes:q hits:q shared_hits:q joined:q misses:q
         bypasses:q hit_ratio:N would_hits:q would_save_ms:N fills:q void_fills:q invalidations:q evictions:q
         shared_state:s shared_timeouts:q shared_errors:q shared_refused:q
         direct_writes:s direct_age:N direct_gaps:q
         peers:q lease:s lease_left:N bus_ms:N",
    );
    assert_eq!(row(&cache, 0)[11], "NULL");
    check("SHOW CACHE TABLES", "database:s relation:s invalidations:q by_key:q in_flight_writes:i watermark:s ttl:s");
    check(
        "SHOW CACHE ADVICE",
        "fingerprint:s database:s user:s advice:s reason:s calls:q bypasses:q hits:q hit_ratio:N saved_ms:N
         unsure_hits:q unsure_ms:N voided:q server_ms:N query:s",
    );
    check(
        "SHOW QUERIES",
        "fingerprint:s database:s user:s calls:q errors:q rows:q bytes:q total_ms:N mean_ms:N
         min_ms:N max_ms:N p50_ms:N p95_ms:N p99_ms:N queue_ms:N server_ms:N cache_hits:q
         would_hits:q would_save_ms:N bypasses:q cache_reason:s replica_calls:q would_replica:q query:s",
    );
    check(
        "SHOW SLOW 5",
        "at:s database:s user:s fingerprint:s total_ms:N queue_ms:N server_ms:N rows:q bytes:q
         sqlstate:s route:s route_reason:s member:s cache:s cache_reason:s query:s",
    );
    check(
        "SHOW PINS",
        "database:s user:s client_id:i client_addr:s server_id:i remote_pid:i reason:s
         age_seconds:N",
    );
    let route = check(
        "SHOW ROUTE FOR shop select 1;",
        "statement:s access:s route:s member:s reason:s cache:s cache_reason:s relations:s",
    );
    assert_eq!(row(&route, 0)[0], "Some(\"shop\") select 1;");
}

#[test]
fn a_count_too_big_for_its_column_is_shown_as_the_most_that_fits() {
    assert_eq!(crate::admin::table::int4(u64::MAX).as_deref(), Some("2147483647"));
}
