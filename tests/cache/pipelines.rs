//! Requests of one client that follow each other without waiting for an answer.

use crate::{
    TABLE, cached, mark,
    support::{
        RawClient, Reply, cluster,
        cluster::USER,
        frames::{bind, describe_portal, execute, parse, query, sync},
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
    let proxy = crate::support::Proxy::of(cluster(), &database).cached().start();
    let mut session = proxy.session(&database);
    warm_up(&mut session, "select v from t", &mark());
    let mark = mark();
    let both = batch(&[read(&format!("select v from t {mark}")), read(&format!("select count(*) from u {mark}"))]);
    for round in 1..=3 {
        assert_eq!(session.exchange(&both).rows(), [["0"], ["3"]]);
        assert_eq!(executions(&mark), 2 * round);
    }
}
