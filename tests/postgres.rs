//! pgweir is one PostgreSQL server to its clients: whatever they send, the bytes that come back are the server's.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails loudly"
)]

mod support;

use std::{sync::OnceLock, thread, time::Duration};

use support::{
    Address, Frame, Proxy, RawClient, cluster,
    cluster::USER,
    frames::{
        bind, bind_as, close_portal, close_statement, copy_data, copy_done, copy_fail, describe_portal,
        describe_statement, execute, flush, function_call, parse, query, sync,
    },
    raw_client::cancel,
    wait_until,
};

const SCHEMA: &str = "
    create table t(id int primary key, v text);
    insert into t select i, 'v' || i from generate_series(1, 100) i;
    create function noisy(count int) returns int language plpgsql as
        $$ begin for i in 1..count loop raise notice 'notice %', i; end loop; return count; end $$;
";

/// One database, reached directly and through a single server connection.
struct Pair {
    database: String,
    proxy: Proxy,
}

fn pair() -> &'static Pair {
    static PAIR: OnceLock<Pair> = OnceLock::new();
    PAIR.get_or_init(|| {
        let database = cluster().database();
        cluster().prepare(&database, SCHEMA);
        let proxy = Proxy::of(cluster(), &database).set("default_pool_size", 1).start();
        Pair { database, proxy }
    })
}

/// What one side says and hears: send bytes, or read up to a type of message.
enum Step {
    Send(Vec<u8>),
    Until(u8),
}

use Step::{Send, Until};

/// Sends everything at once and reads so many ReadyForQuery.
fn at_once(messages: &[Vec<u8>], replies: usize) -> Vec<Step> {
    let mut steps = vec![Send(messages.concat())];
    steps.extend((0..replies).map(|_| Until(b'Z')));
    steps
}

fn play(address: &Address, steps: &[Step]) -> Vec<Frame> {
    let mut client = RawClient::session(address, USER, &pair().database);
    let mut frames = Vec::new();
    for step in steps {
        match step {
            Send(bytes) => client.send(bytes),
            Until(tag) => frames.extend(client.until(*tag)),
        }
    }
    client.terminate();
    frames
}

/// The only judge here: what comes through the proxy is, byte for byte, what the server says itself.
#[track_caller]
fn check(steps: &[Step]) {
    let expected = play(&cluster().primary.address(), steps);
    let seen = play(&pair().proxy.address(), steps);
    assert_eq!(nameless(seen), nameless(expected));
}

/// Leaves out the names of statements in error texts: a test of its own looks at those.
fn nameless(mut frames: Vec<Frame>) -> Vec<Frame> {
    for frame in frames.iter_mut().filter(|frame| frame.tag == b'E') {
        let text = String::from_utf8_lossy(&frame.body).into_owned();
        let mut parts: Vec<&str> = text.split('"').collect();
        if parts.len() > 1 && parts[0].contains("prepared statement ") {
            parts[1] = "";
            frame.body = parts.join("\"").into_bytes();
        }
    }
    frames
}

#[test]
fn an_error_calls_a_statement_by_the_clients_name() {
    let mut client = pair().proxy.session(&pair().database);
    client.prepare("mine", "select $1::int");
    for reply in [client.prepare("mine", "select 2"), client.execute("mine", &[])] {
        let text = reply.error().unwrap().field(b'M').unwrap();
        assert!(text.contains("\"mine\""), "{text}");
    }
}

#[test]
fn simple_queries_of_every_shape() {
    for sql in [
        "select 1",
        "select 1, null, ''",
        "",
        ";",
        "-- nothing but a comment",
        "select 1; select 2; ; select 3",
        "select 1; select 1/0; select 2",
        "selec 1",
        "select * from missing_table",
        "select * from t where id < 5 order by id",
        "begin; select 1; commit",
        "begin; select 1/0; commit; select 1",
        "insert into t values (1000, 'x'); select 1/0",
        "values (1), (2)",
        "table t limit 1",
        "show transaction_isolation",
        "explain (costs off) select * from t where id = 1",
        "select noisy(3)",
        "do $$ begin raise warning 'careful'; end $$",
        "set local work_mem = '1MB'",
        "commit",
    ] {
        check(&at_once(&[query(sql)], 1));
    }
}

#[test]
fn a_transaction_of_simple_queries() {
    let queries = ["begin", "insert into t values (2000, 'x')", "savepoint s", "insert into t values (2000, 'again')"];
    let rest = ["select 1", "rollback to s", "select count(*) from t", "rollback", "select count(*) from t"];
    let messages: Vec<_> = queries.iter().chain(&rest).map(|sql| query(sql)).collect();
    check(&at_once(&messages, messages.len()));
}

#[test]
fn an_extended_statement_in_all_its_messages() {
    check(&at_once(
        &[
            parse("s", "select id, v from t where id <= $1::int order by id"),
            describe_statement("s"),
            bind_as("p", "s", &[Some("3")], false),
            describe_portal("p"),
            execute("p", 0),
            close_portal("p"),
            close_statement("s"),
            sync(),
        ],
        1,
    ));
}

#[test]
fn statements_without_rows_and_without_text() {
    for sql in ["", "set local work_mem = '1MB'", "insert into t values (1, 'twice') on conflict do nothing"] {
        check(&at_once(
            &[parse("", sql), describe_statement(""), bind("", &[]), describe_portal(""), execute("", 0), sync()],
            1,
        ));
    }
}

#[test]
fn a_portal_is_fetched_in_portions() {
    check(&at_once(
        &[
            parse("", "select id from t order by id"),
            bind_as("walker", "", &[], false),
            execute("walker", 3),
            execute("walker", 2),
            describe_portal("walker"),
            execute("walker", 0),
            execute("walker", 0),
            sync(),
        ],
        1,
    ));
}

#[test]
fn a_named_portal_lives_until_its_transaction_ends() {
    check(&at_once(
        &[
            query("begin"),
            parse("", "select id from t order by id"),
            bind_as("walker", "", &[], true),
            execute("walker", 3),
            sync(),
            execute("walker", 2),
            sync(),
            query("commit"),
            execute("walker", 2),
            sync(),
        ],
        5,
    ));
}

#[test]
fn an_error_in_a_pipeline_skips_to_the_next_sync() {
    check(&at_once(
        &[
            parse("a", "select 1"),
            bind("a", &[]),
            execute("", 0),
            parse("b", "select * from missing_table"),
            bind("b", &[]),
            execute("", 0),
            parse("c", "select 3"),
            sync(),
            bind("a", &[]),
            execute("", 0),
            sync(),
            bind("c", &[]),
            execute("", 0),
            sync(),
        ],
        3,
    ));
}

#[test]
fn several_syncs_in_flight() {
    let mut messages = vec![parse("s", "select 10 / $1::int"), sync()];
    for i in 0..50 {
        messages.extend([bind("s", &[&(i % 5).to_string()]), execute("", 0), sync()]);
    }
    check(&at_once(&messages, 51));
}

#[test]
fn syncs_and_queries_in_turn() {
    check(&at_once(
        &[
            sync(),
            sync(),
            query("select 1"),
            parse("", "select 2"),
            sync(),
            query("select 3; select 4"),
            bind("", &[]),
            sync(),
        ],
        6,
    ));
}

#[test]
fn a_query_amid_an_open_pipeline() {
    check(&at_once(
        &[
            parse("", "select 1"),
            bind("", &[]),
            query("select 2"),
            parse("", "select 3"),
            bind("", &[]),
            execute("", 0),
            sync(),
        ],
        2,
    ));
}

#[test]
fn flush_brings_the_replies_so_far() {
    check(&[
        Send([parse("", "select $1::int"), describe_statement(""), flush()].concat()),
        Until(b'T'),
        Send([bind("", &["7"]), flush()].concat()),
        Until(b'2'),
        Send([execute("", 0), flush()].concat()),
        Until(b'C'),
        Send(sync()),
        Until(b'Z'),
    ]);
}

#[test]
fn an_error_is_told_at_once_and_not_at_sync() {
    check(&[
        Send([parse("", "select 1/0"), bind("", &[]), execute("", 0), flush()].concat()),
        Until(b'E'),
        Send([parse("", "skipped"), sync()].concat()),
        Until(b'Z'),
    ]);
}

#[test]
fn the_unnamed_statement_is_kept_for_the_next_request() {
    check(&[
        Send([parse("", "select $1::int + 1"), describe_statement(""), sync()].concat()),
        Until(b'Z'),
        Send([bind("", &["1"]), execute("", 0), sync()].concat()),
        Until(b'Z'),
        Send([bind("", &["2"]), execute("", 0), sync()].concat()),
        Until(b'Z'),
        Send(query("select 'destroys it'")),
        Until(b'Z'),
        Send([bind("", &["3"]), execute("", 0), sync()].concat()),
        Until(b'Z'),
    ]);
}

#[test]
fn a_name_can_be_parsed_once_until_it_is_closed() {
    check(&at_once(
        &[
            parse("once", "select 1"),
            sync(),
            parse("once", "select 2"),
            sync(),
            close_statement("once"),
            parse("once", "select 3"),
            bind("once", &[]),
            execute("", 0),
            sync(),
            close_statement("never"),
            sync(),
        ],
        4,
    ));
}

#[test]
fn a_failed_parse_leaves_its_name_free() {
    check(&at_once(
        &[
            parse("n", "selec"),
            sync(),
            bind("n", &[]),
            sync(),
            parse("n", "select 5"),
            bind("n", &[]),
            execute("", 0),
            sync(),
        ],
        3,
    ));
}

#[test]
fn a_statement_parsed_in_a_rolled_back_transaction_stays() {
    check(&at_once(
        &[
            query("begin"),
            parse("kept", "select 1"),
            sync(),
            query("rollback"),
            bind("kept", &[]),
            execute("", 0),
            sync(),
        ],
        4,
    ));
}

#[test]
fn wrong_parameters_are_the_servers_error() {
    check(&at_once(
        &[
            parse("s", "select $1::int"),
            sync(),
            bind("s", &["x"]),
            sync(),
            bind("s", &[]),
            sync(),
            bind("unknown", &[]),
            sync(),
            describe_statement("unknown"),
            sync(),
            execute("unknown", 0),
            sync(),
        ],
        6,
    ));
}

#[test]
fn a_function_call() {
    // int4pl, and one that fails.
    check(&at_once(&[function_call(177, &["40", "2"]), function_call(154, &["1", "0"]), query("select 1")], 3));
}

#[test]
fn copy_out_and_what_follows() {
    check(&at_once(&[query("copy (select * from t order by id) to stdout"), query("select 1")], 2));
    check(&at_once(&[query("copy t to stdout (format binary); select 2")], 1));
}

#[test]
fn copy_in_ends_with_done_with_fail_and_with_an_error() {
    let rows = |from: i32| copy_data(format!("{from}\trow\n{}\trow\n", from + 1).as_bytes());
    let begin = || query("begin; create temp table c(like t) on commit drop; copy c from stdin");
    let ending = [query("select count(*) from c"), query("rollback")].concat();
    for last in [copy_done(), copy_fail("the client gave up")] {
        check(&[
            Send(begin()),
            Until(b'G'),
            Send([rows(1), rows(3), sync(), flush(), last].concat()),
            Until(b'Z'),
            Send(ending.clone()),
            Until(b'Z'),
            Until(b'Z'),
        ]);
    }
    check(&at_once(&[query("copy t from stdin"), rows(1), rows(3), copy_done(), query("select count(*) from t")], 2));
}

#[test]
fn data_sent_after_a_failed_copy_is_swallowed() {
    let mut messages = vec![query("copy t from stdin")];
    messages.push(copy_data(b"not a number\trow\n"));
    messages.extend((0..1000).map(|i| copy_data(format!("{i}\trow\n").as_bytes())));
    messages.extend([copy_done(), query("select 'usable'")]);
    check(&at_once(&messages, 2));
}

#[test]
fn copy_in_the_extended_protocol() {
    let copy = [parse("", "copy t from stdin"), bind("", &[]), execute("", 0)].concat();
    check(&[
        Send([&copy[..], &flush()].concat()),
        Until(b'G'),
        Send([copy_data(b"1\ttwice\n"), copy_done(), sync()].concat()),
        Until(b'Z'),
        Send(query("select count(*) from t")),
        Until(b'Z'),
    ]);
    check(&at_once(&[parse("", "copy (select 1) to stdout"), bind("", &[]), execute("", 0), sync()], 1));
}

#[test]
fn messages_arrive_byte_by_byte() {
    let script =
        [parse("", "select $1::text"), bind("", &["slow"]), execute("", 0), sync(), query("select 'x'; select 1/0")];
    let mut client = pair().proxy.session(&pair().database);
    for byte in script.concat() {
        client.send(&[byte]);
    }
    let seen = [client.reply().frames, client.reply().frames].concat();
    assert_eq!(seen, play(&cluster().primary.address(), &at_once(&script, 2)));
}

#[test]
fn a_row_of_64_mb_and_a_million_small_ones() {
    let mut client = pair().proxy.session(&pair().database);
    let row = client.query("select repeat('x', 64 * 1024 * 1024)");
    assert_eq!(row.rows()[0][0].len(), 64 * 1024 * 1024);
    client.send(&query("select i from generate_series(1, 1000000) i"));
    let mut rows = 0;
    loop {
        let frame = client.frame();
        match frame.tag {
            b'D' => rows += 1,
            b'Z' => break,
            _ => {}
        }
    }
    assert_eq!(rows, 1_000_000);
}

#[test]
fn memory_stays_bounded_while_a_client_does_not_read() {
    let mut client = pair().proxy.session(&pair().database);
    client.query("select 1");
    let before = pair().proxy.memory();
    client.send(&query("select repeat('x', 1000) from generate_series(1, 300000)"));
    // The answer begins, so the server has filled what it can.
    assert_eq!(client.frame().tag, b'T');
    client.is_silent_for(Duration::from_millis(300));
    let growth = pair().proxy.memory().saturating_sub(before);
    assert!(growth < 100 * 1024, "{growth} kB for one client that does not read");
}

#[test]
fn a_flood_of_notices_is_passed_on() {
    let mut client = pair().proxy.session(&pair().database);
    let reply = client.query("select noisy(20000)");
    assert_eq!(reply.notices().len(), 20_000);
}

#[test]
fn a_pipeline_of_any_depth_flows_both_ways() {
    let depth = 20_000;
    let database = &pair().database;
    let proxy = Proxy::of(cluster(), database).set("default_pool_size", 1).start();
    let mut client = proxy.session(database);
    // Neither side could take all of this before the other one moves.
    let one = [parse("", "select repeat('y', 2000), $1::text"), bind("", &[&"z".repeat(1000)]), execute("", 0), sync()];
    let all = one.concat().repeat(depth);
    let port = proxy.port;
    thread::scope(|scope| {
        let mut writer = client.split_off();
        scope.spawn(move || writer.send(&all));
        for number in 0..depth {
            let reply = client.reply();
            assert_eq!(reply.shape(), "12DCZ", "reply {number} on port {port}");
        }
    });
}

#[test]
fn a_cancel_request_reaches_the_query() {
    let mut client = pair().proxy.session(&pair().database);
    client.send(&query("select pg_sleep(60)"));
    wait_until_running("pg_sleep(60)");
    client.cancel();
    assert_eq!(client.reply().sqlstate(), "57014");
    assert_eq!(client.value("select 'usable'"), "usable");
}

#[test]
fn a_cancel_request_with_a_wrong_key_does_nothing() {
    let mut client = pair().proxy.session(&pair().database);
    client.send(&query("select pg_sleep(0.5), 'undisturbed'"));
    wait_until_running("undisturbed");
    let mut wrong = client.key.clone();
    wrong[7] ^= 1;
    cancel(&pair().proxy.address(), &wrong);
    assert_eq!(client.reply().rows()[0][1], "undisturbed");
}

#[test]
fn a_late_cancel_request_never_hits_the_next_client() {
    // A proxy of its own: clients of other tests leave amid an answer, which costs their server connection.
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).set("default_pool_size", 1).start();
    let (mut first, mut next) = (proxy.session(&database), proxy.session(&database));
    let server = first.value("select pg_backend_pid()");
    next.send(&query("select pg_sleep(0.5), pg_backend_pid(), 'next client'"));
    wait_until_running("next client");
    first.cancel();
    assert_eq!(next.reply().rows()[0][1], server, "both use the only server connection");
}

#[test]
fn a_cancel_request_takes_a_waiting_client_out_of_the_queue() {
    let database = cluster().database();
    let proxy = Proxy::of(cluster(), &database).set("default_pool_size", 1).start();
    let (mut holder, mut waiter) = (proxy.session(&database), proxy.session(&database));
    holder.query("begin");
    waiter.send(&query("select 'never runs'"));
    wait_until("the client waits", || proxy.show("POOLS").number("database", &database, "cl_waiting") == 1);
    waiter.cancel();
    assert_eq!(waiter.reply().sqlstate(), "57014");
    holder.query("commit");
    assert_eq!(waiter.value("select 'usable'"), "usable");
}

/// Waits until a statement with this text runs on the primary.
fn wait_until_running(text: &str) {
    let mut observer = cluster().primary.session("postgres");
    let running = format!(
        "select count(*) from pg_stat_activity where state = 'active' and query like '%{text}%' and pid <> pg_backend_pid()"
    );
    wait_until("the statement runs", || observer.value(&running) != "0");
}
