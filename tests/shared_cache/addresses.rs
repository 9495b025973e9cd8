//! Where Redis may be, and how one gets in.

use std::process::Stdio;

use super::{
    Figures, TABLE, shared,
    support::{
        Authority, Redis, programs,
        proxy::binary,
        scratch::{free_port, scratch},
        wait_until,
    },
};

/// A proxy with this address answers from Redis.
#[track_caller]
fn check(url: &str, settings: &[(&str, &str)]) {
    let (mut proxy, database) = shared(url, TABLE);
    for (key, value) in settings {
        proxy = proxy.section("cache", key, value);
    }
    let proxy = proxy.start();
    let (mut session, mut figures) = (proxy.session(&database), Figures::of(&proxy, &database));
    figures.wait_for_state("up");
    assert_eq!(figures.read_from_redis(&mut session, "select v from t"), "0");
    let shown = proxy.show("CONFIG").select("key", "cache.redis_url", "value").remove(0);
    for text in [proxy.log(), shown] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

/// A proxy with this address goes on without Redis.
#[track_caller]
fn check_without(url: &str, settings: &[(&str, &str)], said: &str) {
    let (mut proxy, database) = shared(url, TABLE);
    for (key, value) in settings {
        proxy = proxy.section("cache", key, value);
    }
    let proxy = proxy.start();
    wait_until(&format!("{said:?} is said"), || proxy.log().contains(said));
    assert_eq!(proxy.session(&database).value("select v from t"), "0");
    assert_ne!(Figures::of(&proxy, &database).text("shared_state"), "up");
    assert!(!proxy.log().contains("hunter2"), "{}", proxy.log());
}

#[test]
fn a_password_a_user_and_a_database_number() {
    let redis = Redis::with(&["--requirepass", "hunter2", "--databases", "4"]);
    let at = format!("127.0.0.1:{}", redis.port);
    check(&format!("redis://:hunter2@{at}/3"), &[]);
    let mut client = redis::Client::open(format!("redis://:hunter2@{at}/3")).unwrap().get_connection().unwrap();
    assert!(redis::cmd("DBSIZE").query::<u64>(&mut client).unwrap() > 0, "in the database of that number");
    redis::cmd("ACL")
        .arg("SETUSER")
        .arg("weir")
        .arg("on")
        .arg(">hunter2")
        .arg("~pgweir:*")
        .arg("+getrange")
        .arg("+pttl")
        .arg("+set")
        .arg("+ping")
        .arg("+hello")
        .exec(&mut client)
        .unwrap();
    check(&format!("redis://weir:hunter2@{at}/0"), &[]);
    check(&format!("redis://weir:hunter2@{at}/0?protocol=resp3"), &[]);
    check_without(&format!("redis://:hunter2hunter2@{at}/0"), &[], "Redis is not reached");
}

#[test]
fn the_check_of_a_configuration_asks_redis() {
    let redis = Redis::with(&["--requirepass", "hunter2"]);
    let at = format!("127.0.0.1:{}", redis.port);
    let (proxy, _) = shared(&format!("redis://:hunter2@{at}/0"), TABLE);
    let proxy = proxy.start();
    let file = proxy.home().join("pgweir.ini");
    let check = || {
        let mut command = programs::command(&scratch().reachable(&binary()));
        let output = command.arg("check").arg(&file).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!said.contains("hunter2"), "{said}");
        (output.status.code().unwrap(), said)
    };
    let (code, said) = check();
    assert_eq!(code, 0, "{said}");
    proxy.rewrite(|text| text.replace("hunter2@", "hunter2hunter2@"));
    let (code, said) = check();
    assert!(code == 1 && said.contains("pgweir.ini:") && said.contains("redis_url:"), "{said}");
    proxy.rewrite(|text| text.replace("redis://:hunter2hunter2@", "redis+sentinel://:hunter2@"));
    let (code, said) = check();
    assert!(code == 1 && said.contains("redis_url:"), "{said}");
}

#[test]
fn a_unix_socket() {
    let home = scratch().directory("redis");
    let socket = home.join("s");
    let path = socket.display().to_string();
    let _redis = Redis::at(home, &["--unixsocket", &path, "--unixsocketperm", "777"]);
    check(&format!("unix://{path}?db=1"), &[]);
    check(&format!("redis+unix://{path}"), &[]);
}

#[test]
fn tls_and_whom_it_trusts() {
    let (authority, stranger) = (Authority::new("weir test authority"), Authority::new("nobody"));
    let pair = authority.issue("redis", &["localhost", "127.0.0.1"]);
    // Redis runs as the one who may read the key.
    programs::hand_over(&pair.key);
    let tls_port = free_port().to_string();
    let (certificate, key) = (pair.certificate.display().to_string(), pair.key.display().to_string());
    let ca = authority.file().display().to_string();
    let _redis = Redis::with(&[
        "--tls-port",
        &tls_port,
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        "no",
        "--requirepass",
        "hunter2",
    ]);
    let url = format!("rediss://:hunter2@127.0.0.1:{tls_port}/0");
    check(&url, &[("redis_tls_ca_file", &ca)]);
    let other = stranger.file().display().to_string();
    check_without(&url, &[("redis_tls_ca_file", &other)], "Redis is not reached");
    check_without(&url, &[], "Redis is not reached");
}

#[test]
fn a_cluster_is_found_through_any_of_its_hosts() {
    let redis = Redis::with(&["--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1"]);
    assert_eq!(redis.command("CLUSTER ADDSLOTSRANGE 0 16383"), "+OK\r\n");
    wait_until("the cluster is there", || redis.command("CLUSTER INFO").contains("cluster_state:ok"));
    check(&format!("redis+cluster://127.0.0.1:1,127.0.0.1:{}", redis.port), &[]);
    check(&format!("redis+cluster://127.0.0.1:{}?protocol=resp3", redis.port), &[]);
}

#[test]
fn sentinels_say_where_it_is_and_where_it_has_gone() {
    let first = Redis::start();
    let master_port = first.port.to_string();
    let second = Redis::with(&["--replicaof", &format!("127.0.0.1 {master_port}")]);
    wait_until("the replica follows", || second.command("INFO replication").contains("master_link_status:up"));
    let sentinel = Redis::sentinel(&first);
    wait_until("the sentinel knows the replica", || sentinel.command("SENTINEL REPLICAS main").contains("flags"));
    let (proxy, database) = shared(&format!("redis+sentinel://127.0.0.1:1,127.0.0.1:{}/main/0", sentinel.port), TABLE);
    let proxy = proxy.start();
    let (mut session, mut figures) = (proxy.session(&database), Figures::of(&proxy, &database));
    figures.wait_for_state("up");
    figures.read_from_redis(&mut session, "select v from t");
    first.kill();
    wait_until("another one is master", || second.command("ROLE").contains("master"));
    figures.wait_for_state("up");
    session.rows("update t set v = 1");
    assert_eq!(figures.read_from_redis(&mut session, "select v from t"), "1");
}
