//! The test bed itself: what it starts works, can be disturbed, and is gone afterwards.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails loudly")]

mod support;

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use support::{
    Cluster, FakeServer, RawClient, Redis, cluster,
    cluster::USER,
    frames::{command_complete, data_row, ready, row_description},
    scratch::scratch,
    wait_until,
};

/// Set for the copy of this program that is to be killed.
const VICTIM: &str = "PGWEIR_TEST_BED_VICTIM";

#[test]
fn a_new_database_is_on_all_three_servers() {
    let database = cluster().database();
    cluster().prepare(&database, "create table t as select 42 as v");
    for member in cluster().replicas.iter().chain([&cluster().primary]) {
        assert_eq!(RawClient::session(&member.address(), USER, &database).value("select v from t"), "42");
    }
}

#[test]
fn replicas_can_be_paused_slowed_and_stopped() {
    let own = Cluster::start();
    let database = own.database();
    own.prepare(&database, "create table t(v int)");
    let count = |number: usize| own.replicas[number].session(&database).value("select count(*) from t");
    let insert = || drop(own.primary.session(&database).rows("insert into t values (1)"));
    own.replicas[0].pause_replay();
    insert();
    wait_until("the other replica follows", || count(1) == "1");
    assert_eq!(count(0), "0");
    own.replicas[0].resume_replay();
    own.catch_up();
    own.replicas[1].delay_replay(60_000);
    insert();
    wait_until("the fast replica follows", || count(0) == "2");
    assert_eq!(count(1), "1");
    own.replicas[1].delay_replay(0);
    own.catch_up();
    own.replicas[0].stop();
    assert!(RawClient::try_connect(&own.replicas[0].address()).is_err());
    insert();
    own.replicas[0].start();
    own.catch_up();
    assert_eq!(count(0), "3");
}

#[test]
fn redis_answers_until_it_is_killed() {
    let redis = Redis::start();
    assert_eq!(redis.command("SET a 1"), "+OK\r\n");
    assert_eq!(redis.command("GET a"), "$1\r\n1\r\n");
    redis.kill();
}

#[test]
fn a_fake_server_says_what_its_script_says() {
    let server = FakeServer::start(|session| {
        session.until_asked("marked")?;
        session.send(
            &[row_description(&["v"]), data_row(&["scripted"]), command_complete("SELECT 1"), ready(b'I')].concat(),
        )
    });
    let mut client = RawClient::session(&server.address(), USER, "any");
    assert_eq!(client.query("set a = 1").tags(), ["SET"]);
    assert_eq!(client.value("select 'marked'"), "scripted");
    assert_eq!(client.until_closed(), []);
}

#[test]
fn nothing_is_left_of_a_test_process_that_was_killed() {
    if env::var_os(VICTIM).is_some() {
        cluster();
        let _redis = Redis::start();
        println!("\nhome {}", scratch().directory("last").parent().unwrap().display());
        thread::sleep(Duration::from_secs(120));
    }
    let mut victim = Command::new(env::current_exe().unwrap())
        .args(["nothing_is_left", "--nocapture"])
        .env(VICTIM, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines().map_while(Result::ok);
    let home = lines.filter_map(|line| line.strip_prefix("home ").map(str::to_owned)).next().unwrap();
    assert!(processes_of(&home) >= 4, "three servers and Redis run");
    victim.kill().unwrap();
    victim.wait().unwrap();
    wait_until("all is gone", || processes_of(&home) == 0 && !Path::new(&home).exists());
}

/// How many processes name this directory on their command line.
fn processes_of(home: &str) -> usize {
    let command_lines =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    command_lines.filter(|line| String::from_utf8_lossy(line).contains(home)).count()
}
