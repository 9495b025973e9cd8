//! Whatever a client or a server does, nobody else notices: no panic, no dirty connection, no unbounded memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails loudly"
)]

mod support;

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use support::{
    Address, FakeServer, FakeSession, Frame, Proxy, RawClient, cluster,
    cluster::USER,
    frames::{
        bind, command_complete, copy_data, copy_done, data_row, describe_statement, execute, flush, message, parse,
        query, ready, response, row_description, ssl_request, startup, startup_of, sync, untyped,
    },
    wait_until,
};

/// Runs the attack while a neighbour works on the same two servers, and looks around afterwards.
#[track_caller]
fn check(attack: impl FnOnce(&Proxy, &str)) {
    let database = cluster().database();
    cluster().prepare(&database, "create table t(id int primary key, v text); insert into t values (1, 'kept')");
    let mut proxy = Proxy::of(cluster(), &database).set("default_pool_size", 2).start();
    let mut neighbour = proxy.session(&database);
    neighbour.rows("select 1");
    let before = proxy.memory();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let neighbour = scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                assert_eq!(neighbour.value("select v from t where id = 1"), "kept");
                assert_eq!(neighbour.extended("select $1::int + 1", &["1"]).rows(), [["2"]]);
            }
        });
        attack(&proxy, &database);
        over.store(true, Ordering::Release);
        neighbour.join().unwrap();
    });
    proxy.wait_until_idle(&database);
    assert!(proxy.is_alive());
    let log = proxy.log();
    assert!(!log.contains("panicked"), "{log}");
    let growth = proxy.memory().saturating_sub(before);
    assert!(growth < 64 * 1024, "{growth} kB more than before");
    let mut client = proxy.session(&database);
    for _ in 0..3 {
        assert_eq!(client.query("select count(*) from t").frames.len(), 4);
        assert_eq!(client.query("show transaction_isolation").status(), 'I');
    }
}

/// Sends bytes without having logged in; the proxy must close the connection, with an error or without.
fn throw(address: &Address, bytes: &[u8]) {
    let mut client = RawClient::connect(address);
    drop(client.try_send(bytes));
    client.finish_sending();
    let mut rest = Vec::new();
    drop(client.read_to_end(&mut rest));
}

/// Sends bytes after the login.
fn throw_in(proxy: &Proxy, database: &str, bytes: &[u8]) {
    let mut client = proxy.session(database);
    drop(client.try_send(bytes));
    client.finish_sending();
    let mut rest = Vec::new();
    drop(client.read_to_end(&mut rest));
}

/// Bytes that look random and are the same in every run.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[3]
    };
    std::iter::repeat_with(step).take(length).collect()
}

#[test]
fn garbage_before_login() {
    check(|proxy, _| {
        for seed in 0..200 {
            throw(&proxy.address(), &noise(seed, 1 + usize::try_from(seed).unwrap() * 7));
            throw(&proxy.unix(), &noise(seed + 1000, 64));
        }
    });
}

#[test]
fn login_messages_that_lie_about_their_length() {
    check(|proxy, database| {
        let hello = startup(&[("user", USER), ("database", database)]);
        for length in [0_u32, 1, 3, 4, 5, 7, 8, 9, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 10_001, 1 << 20] {
            let mut bytes = hello.clone();
            bytes[..4].copy_from_slice(&length.to_be_bytes());
            throw(&proxy.address(), &bytes);
        }
        for cut in 0..hello.len() {
            throw(&proxy.address(), &hello[..cut]);
        }
        throw(&proxy.address(), &startup(&[("user", &"x".repeat(9000)), ("database", database)]));
        throw(&proxy.address(), &startup(&[("", ""), ("user", USER)]));
        throw(&proxy.address(), &startup_of(3, 0, &[("database", database)]));
        throw(&proxy.address(), &startup_of(9, 9, &[("user", USER)]));
        throw(&proxy.address(), &untyped(&[0, 3, 0, 0, b'u', b's', b'e', b'r']));
    });
}

#[test]
fn encryption_requests_without_end_and_with_bytes_behind() {
    check(|proxy, _| {
        throw(&proxy.address(), &ssl_request().repeat(1000));
        throw(&proxy.address(), &[ssl_request(), vec![0x16, 3, 1, 0, 5], noise(1, 100)].concat());
        throw(&proxy.address(), &[0x16, 3, 1, 2, 0]);
        for key in [&[][..], &[0; 4], &[0; 8], &[0xff; 12], &[7; 300]] {
            throw(&proxy.address(), &support::frames::cancel_request(key));
        }
    });
}

#[test]
fn passwords_that_are_none() {
    let database = cluster().database();
    for method in ["md5", "scram-sha-256", "plain"] {
        let proxy = Proxy::of(cluster(), &database).set("auth_type", method).start();
        let hello = startup(&[("user", USER), ("database", &database)]);
        for bytes in [
            message(b'p', &[]),
            message(b'p', b"no end"),
            message(b'p', &noise(3, 5000)),
            message(b'p', b"SCRAM-SHA-256\0\xff\xff\xff\xff"),
            message(b'p', b"SCRAM-SHA-256\0\x7f\xff\xff\xff"),
            message(b'p', b"SCRAM-SHA-256\0\0\0\0\x04n,,n"),
            message(b'p', b"SCRAM-SHA-256-PLUS\0\0\0\0\x04y,,n"),
            message(b'p', b"OTHER\0\0\0\0\0"),
            query("select 'not logged in'"),
            b"p\0\0\0\x03".to_vec(),
            b"p\xff\xff\xff\xff".to_vec(),
            noise(5, 300),
        ] {
            let mut client = RawClient::connect(&proxy.address());
            client.send(&hello);
            assert_eq!(client.frame().tag, b'R');
            drop(client.try_send(&bytes));
            client.finish_sending();
            let frames = client.until_closed();
            assert!(frames.iter().all(|frame| frame.tag == b'E' || frame.tag == b'R'), "{method}: {frames:?}");
            let greeted = frames.iter().any(|frame| frame.tag == b'R' && frame.body == [0, 0, 0, 0]);
            assert!(!greeted, "{method} let somebody in who sent {bytes:?}");
        }
        assert!(!proxy.log().contains("panicked"), "{}", proxy.log());
    }
}

#[test]
fn garbage_after_login() {
    check(|proxy, database| {
        for seed in 0..200 {
            throw_in(proxy, database, &noise(seed, 1 + usize::try_from(seed).unwrap() * 3));
        }
    });
}

#[test]
fn messages_of_unknown_and_of_the_servers_types() {
    check(|proxy, database| {
        for tag in 0..=255_u8 {
            throw_in(proxy, database, &message(tag, &[]));
            throw_in(proxy, database, &[message(tag, &noise(tag.into(), 40)), sync(), query("select 1")].concat());
        }
    });
}

#[test]
fn messages_that_lie_about_their_length() {
    check(|proxy, database| {
        for tag in *b"QPBDECSHFdcfXp" {
            for length in [0_u32, 1, 3, 4, 5, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] {
                let bytes = [&[tag][..], &length.to_be_bytes(), b"select 1\0"].concat();
                throw_in(proxy, database, &bytes);
            }
        }
    });
}

#[test]
fn messages_whose_inside_is_broken() {
    check(|proxy, database| {
        for body in [
            &b""[..],
            b"no end",
            b"\0",
            b"s\0select 1",
            b"s\0select 1\0\xff\xff",
            b"S",
            b"X\0",
            b"P\xff",
            b"\0\0\0\x7f\x7f",
        ] {
            for tag in *b"QPBDECF" {
                throw_in(proxy, database, &[message(tag, body), sync()].concat());
            }
        }
        let bad_bind =
            [parse("s", "select $1::text"), message(b'B', b"\0s\0\0\x01\0\x09\0\x01\x7f\xff\xff\xff")].concat();
        throw_in(proxy, database, &[bad_bind, sync()].concat());
    });
}

#[test]
fn a_huge_length_allocates_nothing() {
    check(|proxy, database| {
        let mut clients: Vec<_> = (0..50).map(|_| proxy.session(database)).collect();
        for client in &mut clients {
            client.send(&[&b"Q"[..], &0x3fff_ffff_u32.to_be_bytes(), b"select"].concat());
        }
        let mut strangers: Vec<_> = (0..50).map(|_| RawClient::connect(&proxy.address())).collect();
        for stranger in &mut strangers {
            drop(stranger.try_send(&0x7fff_ffff_u32.to_be_bytes()));
        }
        assert_eq!(proxy.session(database).value("select 1"), "1");
    });
}

#[test]
fn clients_that_vanish_at_every_point_of_a_transaction() {
    let points: &[&[Vec<u8>]] = &[
        &[query("begin")],
        &[query("begin; insert into t values (2, 'lost')")],
        &[query("begin"), query("insert into t values (2, 'lost')")],
        &[query("begin; select 1/0")],
        &[query("begin; insert into t values (2, 'lost')"), query("select pg_sleep(0.2)")],
        &[parse("s", "select 1")],
        &[parse("s", "select 1"), flush()],
        &[parse("s", "select 1"), bind("s", &[])],
        &[parse("s", "insert into t values (2, 'lost')"), bind("s", &[]), execute("", 0), flush()],
        &[parse("s", "select generate_series(1, 1000)"), bind("s", &[]), execute("", 10), flush()],
        &[query("select repeat('x', 1000) from generate_series(1, 50000)")],
        &[query("listen news"), query("select 1")],
        &[query("create temp table x()")],
        &[parse("", "selec"), sync()],
        &[sync(), sync(), sync()],
    ];
    check(|proxy, database| {
        for messages in points {
            let bytes = messages.concat();
            // At once, after the answer began, in the middle of a message, and without a word.
            for cut in [bytes.len(), bytes.len() / 2, bytes.len() - 1] {
                let mut client = proxy.session(database);
                client.send(&bytes[..cut]);
                drop(client);
            }
            let mut client = proxy.session(database);
            client.send(&bytes);
            client.patience(Duration::from_millis(50));
            drop(client.try_frame());
        }
        wait_until("nothing is left running", || {
            let busy = "select count(*) from pg_stat_activity where datname = current_database() and state <> 'idle' and pid <> pg_backend_pid()";
            RawClient::session(&cluster().primary.address(), USER, database).value(busy).parse::<u32>().unwrap() <= 1
        });
        let direct = &mut RawClient::session(&cluster().primary.address(), USER, database);
        assert_eq!(direct.value("select count(*) from t where v = 'lost'"), "0");
    });
}

#[test]
fn clients_that_vanish_at_every_point_of_a_copy() {
    check(|proxy, database| {
        let begin = query("copy t from stdin");
        let row = copy_data(b"7\tlost\n");
        for messages in
            [vec![begin.clone()], vec![begin.clone(), row.clone()], vec![begin, row.clone(), row[..5].to_vec()]]
        {
            let mut client = proxy.session(database);
            client.send(&messages[0]);
            client.until(b'G');
            client.send(&messages[1..].concat());
            drop(client);
        }
        for rows in [1, 1000, 1_000_000] {
            let mut client = proxy.session(database);
            client.send(&query(&format!("copy (select generate_series(1, {rows})) to stdout")));
            client.until(b'H');
            drop(client);
        }
        let mut client = proxy.session(database);
        client.send(&[copy_data(b"out of place"), copy_done(), query("select 1")].concat());
        drop(client.until_closed_or(b'Z'));
        let direct = &mut RawClient::session(&cluster().primary.address(), USER, database);
        wait_until("no copy is left", || direct.value("select count(*) from t") == "1");
    });
}

#[test]
fn a_client_that_sends_without_reading_is_held_back() {
    check(|proxy, database| {
        let mut client = proxy.session(database);
        let request =
            [parse("", "select repeat('x', 10000)"), bind("", &[]), execute("", 0), sync()].concat().repeat(100);
        // Until nothing more is taken.
        client.write_patience(Duration::from_millis(500));
        for _ in 0..10_000 {
            if client.try_send(&request).is_err() {
                return;
            }
        }
        panic!("a hundred MB of requests were taken although no answer was read");
    });
}

#[test]
fn many_clients_that_come_and_go() {
    check(|proxy, database| {
        for round in 0..20 {
            let clients: Vec<_> = (0..50).map(|_| RawClient::connect(&proxy.address())).collect();
            let mut sessions: Vec<_> = (0..10).map(|_| proxy.session(database)).collect();
            for session in &mut sessions {
                session.send(&query(&format!("select {round}")));
            }
            drop((clients, sessions));
        }
    });
}

/// A proxy in front of a fake server that plays the script when it is asked for `fault`, and one client of it.
fn faulty(script: impl Fn(&mut FakeSession, Frame) -> io::Result<()> + Send + Sync + 'static) -> (FakeServer, Proxy) {
    let server = FakeServer::start(move |session| {
        loop {
            let frame = session.until_asked("fault")?;
            script(session, frame)?;
        }
    });
    let proxy = Proxy::builder().database("fake", server.port, "").set("default_pool_size", 2).start();
    (server, proxy)
}

/// What a client hears that asks for the fault; afterwards another one must be served.
#[track_caller]
fn heard(proxy: &mut Proxy) -> Vec<Frame> {
    let mut client = proxy.session("fake");
    client.send(&query("select 'fault'"));
    let frames = client.until_closed();
    let mut next = proxy.session("fake");
    assert_eq!(next.query("set work_mem = 1").tags(), ["SET"]);
    assert!(proxy.is_alive());
    assert!(!proxy.log().contains("panicked"), "{}", proxy.log());
    frames
}

/// The last message must be a FATAL error of ours.
#[track_caller]
fn assert_ends_fatally(frames: &[Frame]) {
    let last = frames.last().expect("the client hears why");
    assert_eq!((last.tag, last.field(b'S').as_deref()), (b'E', Some("FATAL")), "{frames:?}");
}

#[test]
fn a_server_that_dies_before_the_answer() {
    let (_server, mut proxy) = faulty(|_, _| Err(io::ErrorKind::BrokenPipe.into()));
    assert_ends_fatally(&heard(&mut proxy));
}

#[test]
fn a_server_that_dies_between_two_rows() {
    let (_server, mut proxy) = faulty(|session, _| {
        session.send(&[row_description(&["v"]), data_row(&["one"])].concat())?;
        Err(io::ErrorKind::BrokenPipe.into())
    });
    let frames = heard(&mut proxy);
    assert_eq!(frames[1].values(), [Some(b"one".to_vec())]);
    assert_ends_fatally(&frames);
}

#[test]
fn a_server_that_dies_in_the_middle_of_a_row() {
    for kept in [1, 4, 5, 6, 9] {
        let (_server, mut proxy) = faulty(move |session, _| {
            let row = data_row(&["half of this never comes"]);
            session.send(&[&row_description(&["v"])[..], &row[..kept]].concat())?;
            Err(io::ErrorKind::BrokenPipe.into())
        });
        // After half a row nothing more can be said; before its first byte reached the client, an error can.
        let mut client = proxy.session("fake");
        client.send(&query("select 'fault'"));
        let mut bytes = Vec::new();
        drop(client.read_to_end(&mut bytes));
        assert!(bytes.starts_with(&row_description(&["v"])), "{bytes:?}");
        assert_eq!(proxy.session("fake").query("set a = 1").tags(), ["SET"]);
        assert!(proxy.is_alive());
    }
}

#[test]
fn a_server_that_dies_in_the_middle_of_a_large_row() {
    let (_server, mut proxy) = faulty(|session, _| {
        session.send(&row_description(&["v"]))?;
        session.send(
            &[&b"D"[..], &200_000_000_u32.to_be_bytes(), &1_u16.to_be_bytes(), &199_999_990_u32.to_be_bytes()].concat(),
        )?;
        session.send(&vec![b'x'; 5_000_000])?;
        Err(io::ErrorKind::BrokenPipe.into())
    });
    let mut client = proxy.session("fake");
    client.send(&query("select 'fault'"));
    let mut bytes = Vec::new();
    drop(client.read_to_end(&mut bytes));
    assert!(bytes.len() > 5_000_000, "what came was passed on: {}", bytes.len());
    assert_eq!(proxy.session("fake").query("set a = 1").tags(), ["SET"]);
    assert!(proxy.is_alive());
}

#[test]
fn a_server_that_talks_nonsense() {
    for nonsense in [
        b"garbage without end".to_vec(),
        b"D\0\0\0\x03".to_vec(),
        b"D\xff\xff\xff\xff".to_vec(),
        b"Z\0\0\0\x05?".to_vec(),
        b"Z\0\0\0\x04".to_vec(),
        message(b'?', b"unknown"),
        message(b'R', &[0, 0, 0, 0]),
        noise(9, 2000),
    ] {
        let (_server, mut proxy) = faulty(move |session, _| {
            session.send(&nonsense)?;
            thread::sleep(Duration::from_millis(100));
            Err(io::ErrorKind::BrokenPipe.into())
        });
        heard(&mut proxy);
    }
}

#[test]
fn a_server_that_says_more_than_it_was_asked() {
    let (server, mut proxy) = faulty(|session, _| {
        let answer = [command_complete("SELECT 0"), ready(b'I'), data_row(&["somebody else's"]), ready(b'I')].concat();
        session.send(&answer)?;
        session.frame().map(drop)
    });
    let mut client = proxy.session("fake");
    let reply = client.query("select 'fault'");
    assert_eq!(reply.shape(), "CZ", "{reply:?}");
    wait_until("another server is taken", || proxy.session("fake").query("set a = 1").shape() == "CZ");
    for _ in 0..5 {
        let reply = proxy.session("fake").query("set a = 1");
        assert_eq!(reply.shape(), "CZ", "nobody hears what was not meant for him: {reply:?}");
    }
    assert!(server.logins() >= 2, "the talkative connection was not used again");
    assert!(proxy.is_alive());
}

#[test]
fn a_server_that_says_goodbye_while_idle() {
    let (server, mut proxy) = faulty(|session, _| {
        session.send(&[command_complete("SELECT 0"), ready(b'I')].concat())?;
        session.send(&response(b'E', "FATAL", "57P01", "terminating connection due to administrator command"))?;
        Err(io::ErrorKind::BrokenPipe.into())
    });
    let mut client = proxy.session("fake");
    assert_eq!(client.query("select 'fault'").shape(), "CZ");
    wait_until("the server has gone", || server.endings() == 1);
    for _ in 0..3 {
        assert_eq!(client.query("set a = 1").shape(), "CZ", "the next request runs on another connection");
    }
    assert!(server.logins() >= 2);
    assert!(proxy.is_alive());
}

#[test]
fn a_server_that_is_silent_does_not_stop_the_others() {
    let (_server, mut proxy) = faulty(|session, _| session.frame().map(drop));
    let mut silent = proxy.session("fake");
    silent.send(&query("select 'fault'"));
    for _ in 0..10 {
        assert_eq!(proxy.session("fake").query("set a = 1").tags(), ["SET"]);
    }
    assert!(proxy.is_alive());
}

#[test]
fn an_error_amid_a_pipeline_keeps_the_replies_in_order() {
    let (_server, proxy) = faulty(|session, _| {
        // The marked message is a Parse; the rest up to Sync is skipped, as PostgreSQL does.
        session.send(&response(b'E', "ERROR", "42601", "fault"))?;
        while session.frame()?.tag != b'S' {}
        session.send(&ready(b'I'))
    });
    let mut client = proxy.session("fake");
    let reply = client
        .exchange(&[parse("a", "fault"), describe_statement("a"), bind("a", &[]), execute("", 0), sync()].concat());
    assert_eq!(reply.shape(), "EZ");
    let reply = client.exchange(&[parse("b", "set a = 1"), bind("b", &[]), execute("", 0), sync()].concat());
    assert_eq!(reply.shape(), "12CZ");
}
