//! Requests of one client that follow each other without waiting for an answer.

use crate::{
    TABLE, cached, mark,
    support::{
        Proxy, RawClient, Reply, cluster,
        cluster::{Member, USER},
        frames::{bind, bind_as, close_portal, close_statement, describe_portal, execute, parse, query, sync},
        wait_until,
    },
    warm_up,
};

const TWO: &str = "create table t(id int primary key, v int); insert into t values (1, 0);
    create table u(id int primary key, v int); insert into u values (1, 10), (2, 20), (3, 30)";

fn executions(mark: &str) -> usize {
    cluster().primary.executions(mark)
}

/// Sends all of it in one piece, and reads so many answers.
fn pipelined(session: &mut RawClient, requests: &[Vec<u8>]) -> Vec<Reply> {
    session.send(&requests.concat());
    requests.iter().map(|_| session.reply()).collect()
}

fn simple(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|sql| query(sql)).collect()
}

fn extended(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", &[]), describe_portal(""), execute("", 0), sync()].concat()
}

/// The only value of each answer.
fn values(replies: &[Reply]) -> Vec<String> {
    replies.iter().map(|reply| reply.rows().concat().concat()).collect()
}

#[test]
fn a_read_behind_another_is_answered_from_memory_in_its_place() {
    let (proxy, database) = cached(TWO);
    let mut session = proxy.session(&database);
    let (hot, cold) = (mark(), mark());
    let hot_read = format!("select v from t {hot}");
    warm_up(&mut session, "select v from t", &hot);
    let before = executions(&hot);
    let cold_read = |id: u32| format!("select v from u where id = {id} {cold}");
    let requests =
        [query(&cold_read(1)), query(&hot_read), extended(&cold_read(2)), query(&hot_read), query(&hot_read)];
    let replies = pipelined(&mut session, &requests);
    assert_eq!(values(&replies), ["10", "0", "20", "0", "0"]);
    assert_eq!((executions(&hot), executions(&cold)), (before, 2));
    let direct = RawClient::session(&cluster().primary.address(), USER, &database).query(&hot_read);
    assert_eq!(replies[1].frames, direct.frames);
}

#[test]
fn what_a_pipeline_brings_is_kept() {
    let (proxy, database) = cached(TWO);
    let mut session = proxy.session(&database);
    warm_up(&mut session, "select v from t", &mark());
    let mark = mark();
    let requests: Vec<_> = (1..=3).map(|id| extended(&format!("select v from u where id = {id} {mark}"))).collect();
    for _ in 0..3 {
        let replies = pipelined(&mut session, &requests);
        assert_eq!(values(&replies), ["10", "20", "30"]);
    }
    assert_eq!(executions(&mark), 3, "each of them once");
}

#[test]
fn a_read_behind_a_write_of_its_own_pipeline_sees_it() {
    let (proxy, database) = cached(TWO);
    let mut session = proxy.session(&database);
    let mark = mark();
    let read = format!("select v from t {mark}");
    for round in 1..=5 {
        warm_up(&mut session, "select v from t", &mark);
        let write = "update t set v = v + 1";
        let requests = [query(write), query(&read), extended(write), extended(&read), query("select 1"), query(&read)];
        let replies = pipelined(&mut session, &requests);
        let seen = values(&replies);
        assert_eq!(
            [&seen[1], &seen[3], &seen[5]],
            [2 * round - 1, 2 * round, 2 * round].map(|v| v.to_string()).each_ref()
        );
    }
}

#[test]
fn a_read_that_waits_for_its_turn_sees_what_is_written_meanwhile() {
    let (proxy, database) = cached(TWO);
    let (mut session, mut writer) = (proxy.session(&database), proxy.session(&database));
    let (hot, slow) = (mark(), mark());
    warm_up(&mut session, "select v from t", &hot);
    let mut holder = proxy.session(&database);
    holder.query("begin; lock table u in access exclusive mode");
    let hot_read = format!("select v from t {hot}");
    session.send(&simple(&[&format!("select count(*) from u {slow}"), &hot_read]).concat());
    wait_until("the first of them waits for the lock", || executions(&slow) == 1);
    assert_eq!(writer.query("update t set v = 7").tags(), ["UPDATE 1"]);
    holder.query("commit");
    assert_eq!(session.reply().rows(), [["3"]]);
    assert_eq!(session.reply().rows(), [["7"]]);
}

#[test]
fn behind_what_changes_the_session_or_begins_a_transaction_the_server_answers() {
    let (proxy, database) = cached("create table t(at timestamptz); insert into t values ('2020-01-01 00:00:00+00')");
    let (mut session, mut other) = (proxy.session(&database), proxy.session(&database));
    let mark = mark();
    let read = format!("select at from t {mark}");
    let (utc, tokyo) = ("2020-01-01 00:00:00+00", "2020-01-01 09:00:00+09");
    for _ in 0..3 {
        warm_up(&mut session, "select at from t", &mark);
        let texts = ["set timezone = 'Asia/Tokyo'", &read, "reset timezone", &read];
        let replies = pipelined(&mut session, &simple(&texts));
        assert_eq!(values(&replies), ["", tokyo, "", utc]);
        assert_eq!(other.value(&read), utc);
        let texts = ["begin", &read, "select set_config('timezone', 'Asia/Tokyo', true)", &read, "commit", &read];
        let replies = pipelined(&mut session, &simple(&texts));
        assert_eq!(values(&replies), ["", utc, "Asia/Tokyo", tokyo, "", utc]);
        assert_eq!(other.value(&read), utc);
    }
    // Nothing is kept of what was read inside.
    let fresh = format!("select at from t where at is not null {mark}");
    let replies =
        pipelined(&mut session, &simple(&["set timezone = 'Asia/Tokyo'", &fresh, "begin", &fresh, "rollback"]));
    assert_eq!(values(&replies), ["", tokyo, "", tokyo, ""]);
    assert_eq!(other.value(&fresh), utc);
}

#[test]
fn a_statement_that_was_never_prepared_is_not_answered_from_memory() {
    let (proxy, database) = cached(TABLE);
    let mut session = proxy.session(&database);
    let mark = mark();
    let read = format!("select v from t {mark}");
    session.prepare("known", &read);
    wait_until("a hit", || {
        let before = executions(&mark);
        session.execute("known", &[]);
        executions(&mark) == before
    });
    // What stands behind the error is skipped, up to Sync.
    let skipped =
        [parse("", "select 1 / (v - v) from t"), bind("", &[]), execute("", 0), parse("s", &read), sync()].concat();
    let executed = [bind("s", &[]), execute("", 0), sync()].concat();
    let replies = pipelined(&mut session, &[skipped, executed.clone()]);
    assert_eq!(replies.iter().map(Reply::sqlstate).collect::<Vec<_>>(), ["22012", "26000"]);
    session.prepare("s", &read);
    let before = executions(&mark);
    let replies = pipelined(&mut session, &[query("select count(*) from t"), executed]);
    assert_eq!(replies[1].rows(), [["0"]]);
    assert_eq!(executions(&mark), before);
}

/// Reads of a batch, which one `Sync` ends.
fn batch(reads: &[Vec<u8>]) -> Vec<u8> {
    [reads.concat(), sync()].concat()
}

fn read(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", &[]), describe_portal(""), execute("", 0)].concat()
}

#[test]
fn several_reads_before_one_sync_are_answered_from_memory_if_all_of_them_are_there() {
    let (proxy, database) = cached(TWO);
    let mut session = proxy.session(&database);
    warm_up(&mut session, "select v from t", &mark());
    let mark = mark();
    let sql = |id: u32| format!("select v, id from u where id = {id} {mark}");
    session.prepare("named", &format!("select v from u where id = $1::int {mark}"));
    let named = |id: &str| [bind("named", &[id]), execute("", 0)].concat();
    let all = [read(&sql(1)), named("2"), read(&sql(3)), named("3")];
    let mut direct = RawClient::session(&cluster().primary.address(), USER, &database);
    direct.prepare("named", &format!("select v from u where id = $1::int {mark}"));
    let truth = direct.exchange(&batch(&all));
    let before = executions(&mark);
    for _ in 0..3 {
        assert_eq!(session.exchange(&batch(&all)).frames, truth.frames);
    }
    assert_eq!(executions(&mark), before + 4, "each of them once");
    // One of them is new: the server answers them all, and is not asked again.
    let more = [&all[..], &[read(&sql(2))]].concat();
    let truth = direct.exchange(&batch(&more));
    let before = executions(&mark);
    for _ in 0..3 {
        assert_eq!(session.exchange(&batch(&more)).frames, truth.frames);
    }
    assert_eq!(executions(&mark), before + 5);
    // Each by itself, and as part of a pipeline.
    assert_eq!(session.exchange(&batch(&all[..1])).rows(), [["10", "1"]]);
    let replies = pipelined(&mut session, &[query("select count(*) from t"), batch(&all)]);
    assert_eq!(replies[1].rows(), [vec!["10", "1"], vec!["20"], vec!["30", "3"], vec!["30"]]);
    assert_eq!(executions(&mark), before + 5);
    // A write voids what it touches, and the batch with it.
    session.query("update u set v = v + 1 where id = 2");
    direct.query("select 1");
    let truth = direct.exchange(&batch(&more));
    assert_eq!(session.exchange(&batch(&more)).frames, truth.frames);
}

#[test]
fn a_batch_in_which_something_fails_writes_or_is_cut_off_is_what_the_server_says() {
    let (proxy, database) = cached(TWO);
    let mut session = proxy.session(&database);
    warm_up(&mut session, "select v from t", &mark());
    let mut direct = RawClient::session(&cluster().primary.address(), USER, &database);
    let mark = mark();
    let (good, other) =
        (format!("select v from u where id = 1 {mark}"), format!("select v from u where id = 2 {mark}"));
    let limited = |sql: &str, rows| [parse("", sql), bind("", &[]), execute("", rows)].concat();
    let batches = [
        vec![read(&good), read("select 1 / (v - v) from u"), read(&other)],
        vec![read(&good), limited(&format!("select v from u order by id {mark}"), 2), read(&other)],
        vec![read(&good), limited(&format!("select v from u order by id {mark}"), 4), read(&other)],
        vec![read("update u set v = v where id = 3 returning v"), read(&good), read(&other)],
        vec![read("begin"), read(&good), read("commit")],
        vec![read(&good), read(""), read(&other)],
    ];
    for reads in &batches {
        let truth = direct.exchange(&batch(reads));
        for _ in 0..3 {
            assert_eq!(session.exchange(&batch(reads)).frames, truth.frames);
        }
    }
    for (sql, v) in [(&good, "10"), (&other, "20")] {
        for _ in 0..2 {
            assert_eq!(session.extended(sql, &[]).rows(), [[v]]);
        }
    }
}

#[test]
fn a_batch_sees_one_moment_where_its_transaction_has_one_snapshot() {
    let database = cluster().database();
    cluster().prepare(&database, TWO);
    cluster().prepare(
        &database,
        &format!("alter database {database} set default_transaction_isolation = 'repeatable read'"),
    );
    cluster().log_statements(&database);
    let proxy = Proxy::of(cluster(), &database).cached().start();
    let mut session = proxy.session(&database);
    warm_up(&mut session, "select v from t", &mark());
    let mark = mark();
    let both = batch(&[read(&format!("select v from t {mark}")), read(&format!("select count(*) from u {mark}"))]);
    for round in 1..=3 {
        assert_eq!(session.exchange(&both).rows(), [["0"], ["3"]]);
        assert_eq!(executions(&mark), 2 * round);
    }
}

/// The same messages again and again are answered as by the server itself, whatever is kept of it meanwhile.
#[track_caller]
fn check_truth(session: &mut RawClient, direct: &mut RawClient, messages: &[u8]) {
    let truth = direct.exchange(messages);
    for _ in 0..3 {
        assert_eq!(session.exchange(messages).frames, truth.frames);
    }
}

#[test]
fn what_stands_behind_the_last_read_of_a_batch_is_answered_too() {
    let (proxy, database) = cached(TWO);
    let mut session = proxy.session(&database);
    warm_up(&mut session, "select v from t", &mark());
    let mut direct = RawClient::session(&cluster().primary.address(), USER, &database);
    let reads = [read("select v from t"), read("select count(*) from u")].concat();
    for tail in [
        close_portal(""),
        close_statement("s"),
        [close_portal("p"), close_statement("")].concat(),
        parse("", "select 5"),
        parse("", "select nobody from nowhere"),
        [parse("", "select 6"), bind("", &[])].concat(),
        [parse("", "select 7"), bind("", &[]), describe_portal("")].concat(),
    ] {
        check_truth(&mut session, &mut direct, &[&reads[..], &sync()].concat());
        check_truth(&mut session, &mut direct, &[&reads[..], &tail, &sync()].concat());
        // In front of a read as well.
        check_truth(&mut session, &mut direct, &[&tail[..], &reads, &sync()].concat());
    }
}

#[test]
fn a_parse_that_stands_in_front_of_another_statements_bind_is_checked() {
    let (proxy, database) = cached(TWO);
    let mut session = proxy.session(&database);
    warm_up(&mut session, "select v from t", &mark());
    let mut direct = RawClient::session(&cluster().primary.address(), USER, &database);
    for session in [&mut session, &mut direct] {
        session.prepare("one", "select v from t");
        session.prepare("two", "select count(*) from u");
    }
    let executed = |name: &str| [bind(name, &[]), execute("", 0)].concat();
    check_truth(&mut session, &mut direct, &[executed("one"), sync()].concat());
    check_truth(&mut session, &mut direct, &[executed("one"), executed("two"), sync()].concat());
    let wrong = parse("new", "select nobody from nowhere");
    check_truth(&mut session, &mut direct, &[wrong.clone(), executed("one"), sync()].concat());
    check_truth(&mut session, &mut direct, &[wrong, executed("one"), executed("two"), sync()].concat());
    assert_eq!(session.prepare("new", "select 1").error(), None, "the name is free");
}

#[test]
fn portals_are_answered_for_what_they_are() {
    let (proxy, database) = cached(TWO);
    let mut session = proxy.session(&database);
    warm_up(&mut session, "select v from t", &mark());
    let mut direct = RawClient::session(&cluster().primary.address(), USER, &database);
    for session in [&mut session, &mut direct] {
        session.prepare("one", "select v from u order by id");
        session.prepare("two", "select v from t");
    }
    let bind_to = |portal: &str, statement: &str| bind_as(portal, statement, &[], false);
    for messages in [
        [bind_to("a", "one"), execute("a", 0), bind_to("b", "two"), execute("a", 0)],
        [bind_to("a", "one"), execute("a", 1), bind_to("b", "two"), execute("a", 0)],
        [bind_to("p", "one"), execute("p", 0), bind_to("p", "two"), execute("p", 0)],
        [bind_to("", "one"), execute("", 0), bind_to("", "two"), execute("", 0)],
        [bind_to("", "one"), execute("", 0), bind_to("b", "two"), execute("", 0)],
        [bind_to("a", "one"), execute("a", 0), bind_to("b", "two"), execute("b", 0)],
        [bind_to("a", "one"), describe_portal("a"), bind_to("b", "two"), execute("b", 0)],
    ] {
        check_truth(&mut session, &mut direct, &[messages.concat(), sync()].concat());
        for (statement, portal) in [("one", "x"), ("two", ""), ("two", "y")] {
            let alone = [bind_to(portal, statement), execute(portal, 0), sync()].concat();
            check_truth(&mut session, &mut direct, &alone);
            let elsewhere = [bind_to(portal, statement), execute("z", 0), sync()].concat();
            check_truth(&mut session, &mut direct, &elsewhere);
        }
    }
}

#[test]
fn a_batch_is_kept_and_answered_only_up_to_the_size_of_one_answer() {
    let database = cluster().database();
    cluster().prepare(&database, TWO);
    cluster().log_statements(&database);
    let proxy = Proxy::of(cluster(), &database).cached().section("cache", "max_result_size", 1000).start();
    let mut session = proxy.session(&database);
    warm_up(&mut session, "select v from t", &mark());
    let mark = mark();
    let long = |id: u32| read(&format!("select repeat('x', 600) from u where id = {id} {mark}"));
    let both = batch(&[long(1), long(2)]);
    for round in 1..=3 {
        assert_eq!(session.exchange(&both).rows().len(), 2);
        assert_eq!(executions(&mark), 2 * round, "nothing of it was kept");
    }
    for id in [1, 2] {
        session.exchange(&batch(&[long(id)]));
        let before = executions(&mark);
        session.exchange(&batch(&[long(id)]));
        assert_eq!(executions(&mark), before, "each alone is");
    }
    let before = executions(&mark);
    assert_eq!(session.exchange(&both).rows().len(), 2);
    assert_eq!(executions(&mark), before + 2, "together they are too much");
}

#[test]
fn nothing_is_kept_of_what_ran_while_the_servers_settings_changed() {
    let alone = Member::alone();
    let database = "postgres";
    alone.session(database).rows(
        "create table t(at timestamptz); insert into t values ('2020-01-01 00:00:00+00'); grant select on t to public",
    );
    alone.configure("timezone", "UTC");
    let proxy = Proxy::builder().database(database, alone.port, "").cached().start();
    let mut session = proxy.session(database);
    wait_until("it caches", || proxy.show("CACHE").select("database", database, "state") == ["on"]);
    let sql = |number: u32| format!("select at from t where {number} = {number}");
    let (mut number, zones) = (0, ["Asia/Tokyo", "UTC"]);
    for zone in zones.iter().cycle().take(6) {
        let [first, second, third, fourth] = [1, 2, 3, 4].map(|more| sql(number + more));
        number += 4;
        assert_eq!(session.query("select 1").error(), None);
        alone.configure("timezone", zone);
        let requests = [query(&first), query(&second), batch(&[read(&third), read(&fourth)])];
        let told = pipelined(&mut session, &requests);
        assert_eq!(told.iter().map(|reply| reply.rows().len()).sum::<usize>(), 4);
        // A session that begins now has the new zone from the start; one that sets the old one has that.
        let old = if *zone == "UTC" { "Asia/Tokyo" } else { "UTC" };
        for set in [*zone, old] {
            let mut other = proxy.session(database);
            other.query(&format!("set timezone = '{set}'"));
            let expected = if set == "UTC" { "2020-01-01 00:00:00+00" } else { "2020-01-01 09:00:00+09" };
            for text in [&first, &second, &third, &fourth] {
                assert_eq!(other.value(text), expected, "{text} in {set}");
                assert_eq!(other.extended(text, &[]).rows(), [[expected]], "{text} in {set}");
            }
        }
    }
}

#[test]
fn a_read_that_waits_finds_the_unnamed_statement_that_it_binds_first() {
    let (proxy, database) = cached(TWO);
    let mut session = proxy.session(&database);
    warm_up(&mut session, "select v from t", &mark());
    let executed = [bind("", &[]), execute("", 0)].concat();
    let (a, b) = ("select v from t", "select count(*) from u");
    for sql in [a, b] {
        for _ in 0..2 {
            session.exchange(&[parse("", sql), executed.clone(), sync()].concat());
        }
    }
    for round in 0..3 {
        session.exchange(&[parse("", a), executed.clone(), sync()].concat());
        let slow = [
            parse("slow", &format!("select {round} + sum(v) from u where v < 20")),
            bind("slow", &[]),
            execute("", 0),
            close_statement("slow"),
            sync(),
        ]
        .concat();
        let both = [executed.clone(), parse("", b), executed.clone(), sync()].concat();
        let replies = pipelined(&mut session, &[slow, both]);
        assert_eq!(replies[1].rows(), [["0"], ["3"]]);
    }
}

#[test]
fn a_read_does_not_wait_behind_a_copy_that_nobody_ends() {
    let (proxy, database) = cached(TWO);
    let mut session = proxy.session(&database);
    let mark = mark();
    warm_up(&mut session, "select v from t", &mark);
    let hot = format!("select v from t {mark}");
    session.send(&simple(&["copy u from stdin", &hot]).concat());
    // The server reads no query now, and is out of step.
    let said = session.until_closed();
    assert_eq!(said.last().and_then(|frame| frame.field(b'C')).as_deref(), Some("08P01"), "{said:?}");
}
