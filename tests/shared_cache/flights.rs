//! Many clients ask the same at the same time.

use std::{
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use super::{
    TABLE, cached, cluster, executions, mark, succeed,
    support::{Proxy, RawClient, frames::query, wait_until},
};

/// Reads the table, and keeps the server busy for a while.
fn slow(rows: u32, mark: &str) -> String {
    format!("select sum(t.v + g % 7 - g % 7) / {rows} from t, generate_series(1, {rows}) g {mark}")
}

/// About a second's worth of rows for this machine.
fn rows() -> u32 {
    let mut session = cluster().primary.session("postgres");
    let started = Instant::now();
    session.rows("select sum(g % 7 - g % 7) from generate_series(1, 300000) g");
    let per_second = 300_000.0 / started.elapsed().as_secs_f64();
    (per_second as u32).clamp(300_000, 10_000_000)
}

/// The leader's query runs, and nothing else has been asked.
fn lead(proxy: &Proxy, database: &str, sql: &str, mark: &str) -> RawClient {
    let mut leader = proxy.session(database);
    let before = executions(mark);
    leader.send(&query(sql));
    wait_until("the leader's query runs", || executions(mark) > before);
    leader
}

fn figure(proxy: &Proxy, database: &str, column: &str) -> i64 {
    proxy.show("CACHE").number("database", database, column)
}

/// Reads once, so that the catalog is there and the cache works.
fn warm_up(proxy: &Proxy, database: &str) {
    let mut session = proxy.session(database);
    wait_until("hits", || {
        session.rows("select 1 from t");
        figure(proxy, database, "hits") > 0
    });
}

fn requests(proxy: &Proxy, database: &str, labels: &str) -> f64 {
    let name = format!("database=\"{database}\"");
    proxy.metrics().sum("pgweir_cache_requests_total", &[&name, labels])
}

/// Reads that were not for the cache. While other tests define databases, the catalog that all of them have is unknown for
/// moments, and the cache closed: what is asked then says nothing about who waits for whom.
fn bypasses(proxy: &Proxy, database: &str) -> f64 {
    requests(proxy, database, "outcome=\"bypass\"")
}

/// So many clients ask this at the same time.
fn ask_together(proxy: &Arc<Proxy>, database: &str, clients: usize, sql: &str) {
    let start = Arc::new(Barrier::new(clients));
    let ask = |_| {
        let (proxy, database, sql, start) =
            (Arc::clone(proxy), database.to_owned(), sql.to_owned(), Arc::clone(&start));
        thread::spawn(move || {
            let mut session = proxy.session(&database);
            start.wait();
            session.value(&sql)
        })
    };
    let readers: Vec<_> = (0..clients).map(ask).collect();
    readers.into_iter().for_each(|reader| assert_eq!(reader.join().unwrap(), "0"));
}

#[test]
fn fifty_clients_who_ask_the_same_are_answered_by_one_query() {
    let (proxy, database) = cached(TABLE);
    let proxy = Arc::new(proxy.start());
    warm_up(&proxy, &database);
    let rows = rows();
    let mut runs = 0;
    wait_until("fifty clients ask while the cache is open", || {
        let (mark, before) = (mark(), bypasses(&proxy, &database));
        ask_together(&proxy, &database, 50, &slow(rows, &mark));
        runs = executions(&mark);
        bypasses(&proxy, &database) == before
    });
    let (joined, hits) = (figure(&proxy, &database, "joined"), figure(&proxy, &database, "hits"));
    println!("50 clients: {runs} queries, {joined} joined");
    // The catalog may be read anew in the middle.
    assert!((1..=3).contains(&runs), "{runs} queries");
    assert!(joined >= 40 && hits + joined >= 47, "{joined} joined, {hits} hits");
    assert_eq!(requests(&proxy, &database, "outcome=\"joined\",reason=\"joined\""), joined as f64);
}

#[test]
fn a_reader_who_has_written_joins_nobody_who_asked_before() {
    let (proxy, database) = cached(TABLE);
    let proxy = proxy.start();
    warm_up(&proxy, &database);
    let mark = mark();
    let sql = slow(rows(), &mark);
    let mut early = lead(&proxy, &database, &sql, &mark);
    let mut writer = proxy.session(&database);
    for v in 1..=3 {
        succeed(&mut writer, &format!("update t set v = {v}"));
        assert_eq!(writer.value(&sql), v.to_string(), "one's own write is seen");
    }
    assert!(executions(&mark) >= 4, "nobody was answered by an earlier query");
    let answer = early.reply();
    assert!(answer.error().is_none(), "{answer:?}");
}

#[test]
fn readers_of_a_leader_who_leaves_ask_for_themselves() {
    let (proxy, database) = cached(TABLE);
    let proxy = Arc::new(proxy.start());
    warm_up(&proxy, &database);
    let mark = mark();
    let sql = slow(rows(), &mark);
    let leader = lead(&proxy, &database, &sql, &mark);
    let readers: Vec<_> = (0..5)
        .map(|_| {
            let (proxy, database, sql) = (Arc::clone(&proxy), database.clone(), sql.clone());
            thread::spawn(move || proxy.session(&database).value(&sql))
        })
        .collect();
    let before = bypasses(&proxy, &database);
    wait_until("readers wait for the leader", || {
        let waiting = proxy.show("CLIENTS").select("database", &database, "state");
        waiting.iter().filter(|state| *state == "waiting").count() == 5 || bypasses(&proxy, &database) != before
    });
    drop(leader);
    for reader in readers {
        assert_eq!(reader.join().unwrap(), "0");
    }
    let (runs, is_closed) = (executions(&mark), bypasses(&proxy, &database) != before);
    println!("after the leader left: {} queries for 5 readers", runs - 1);
    assert!(is_closed || (2..=4).contains(&runs), "{runs} queries: one of them leads the others");
}

#[test]
fn readers_of_a_question_that_fails_get_its_error_each() {
    let (proxy, database) = cached(TABLE);
    let proxy = Arc::new(proxy.start());
    warm_up(&proxy, &database);
    let mark = mark();
    let rows = rows();
    let sql = format!("select sum(1 / (g - {rows} - t.v)) from t, generate_series(1, {rows}) g {mark}");
    let mut leader = lead(&proxy, &database, &sql, &mark);
    let reader = {
        let (proxy, database, sql) = (Arc::clone(&proxy), database.clone(), sql.clone());
        thread::spawn(move || proxy.session(&database).query(&sql).sqlstate())
    };
    assert_eq!(leader.reply().sqlstate(), "22012");
    assert_eq!(reader.join().unwrap(), "22012");
}

#[test]
fn who_waits_for_another_s_answer_may_cancel_and_is_not_missed() {
    let (proxy, database) = cached(TABLE);
    let proxy = proxy.start();
    warm_up(&proxy, &database);
    let mark = mark();
    let sql = slow(rows().saturating_mul(2), &mark);
    let mut leader = lead(&proxy, &database, &sql, &mark);
    let (mut follower, before) = (proxy.session(&database), bypasses(&proxy, &database));
    follower.send(&query(&sql));
    wait_until("the follower waits", || {
        let states = proxy.show("CLIENTS").select("database", &database, "state");
        states.iter().any(|state| state == "waiting") || bypasses(&proxy, &database) != before
    });
    follower.cancel();
    assert_eq!(follower.reply().sqlstate(), "57014");
    assert_eq!(follower.value("select 2"), "2", "the session goes on");
    assert_eq!(leader.reply().rows(), [["0"]]);
    assert!(executions(&mark) <= 2);
}

#[test]
fn inside_a_transaction_nobody_waits_for_another_s_answer() {
    let (proxy, database) = cached(TABLE);
    let proxy = proxy.start();
    warm_up(&proxy, &database);
    let mark = mark();
    let sql = slow(rows(), &mark);
    let mut leader = lead(&proxy, &database, &sql, &mark);
    let mut other = proxy.session(&database);
    succeed(&mut other, "begin");
    assert_eq!(other.value(&sql), "0");
    succeed(&mut other, "commit");
    assert_eq!(leader.reply().rows(), [["0"]]);
    assert_eq!(executions(&mark), 2);
}

#[test]
fn a_leader_whose_client_does_not_read_holds_nobody_up_for_long() {
    let (proxy, database) = cached("create table t(id int primary key, v int); insert into t values (1, 0)");
    let proxy = proxy.section("cache", "max_result_size", "64MB").start();
    warm_up(&proxy, &database);
    let mark = mark();
    // More than sockets and buffers hold, so that the answer stops on its way.
    let sql = format!("select repeat('x', 100000), v from t, generate_series(1, 300) g {mark}");
    let leader = lead(&proxy, &database, &sql, &mark);
    let mut reader = proxy.session(&database);
    let started = Instant::now();
    assert_eq!(reader.rows(&sql).len(), 300);
    println!("waited {:?} for one who does not read", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(25));
    assert_eq!(executions(&mark), 2);
    drop(leader);
}
