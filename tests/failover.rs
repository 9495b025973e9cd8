//! The primary dies, hangs or comes back, and another member takes its place: writes go on there by themselves, none is
//! lost that the server kept, none is made twice, and none is made anywhere else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails loudly"
)]

mod support;

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use support::{Cluster, Member, Proxy, RawClient, cluster::USER, frames::query, proxy::Builder, wait_until};

const WRITERS: usize = 8;
/// Nobody who writes loses more of them than the one whose connection was lost.
const ROUND: usize = 20;

/// A cluster whose first replica has whatever was acknowledged, and a database with a table without a key.
fn prepared() -> (Cluster, String) {
    let cluster = Cluster::start();
    let database = cluster.database();
    cluster.replicas[0].follow(&cluster.primary, "heir");
    cluster.primary.configure("synchronous_standby_names", "heir");
    let mut session = cluster.primary.session("postgres");
    wait_until("the first replica is waited for", || {
        session.value("select count(*) from pg_stat_replication where sync_state = 'sync'") == "1"
    });
    cluster.prepare(&database, "create table t(writer int, n int)");
    (cluster, database)
}

fn behind(cluster: &Cluster, database: &str) -> Builder {
    let [first, second] = &cluster.replicas;
    Proxy::of(cluster, database).replicas(database, &[(first, 1), (second, 1)])
}

/// What SHOW REPLICAS says of the member on that port.
fn standing(proxy: &Proxy, member: &Member) -> (String, String) {
    let table = proxy.show("REPLICAS");
    let of = |wanted| table.select("port", &member.port.to_string(), wanted).concat();
    (of("role"), of("state"))
}

fn is(proxy: &Proxy, member: &Member, role: &str, state: &str) -> bool {
    standing(proxy, member) == (role.to_owned(), state.to_owned())
}

/// What one writer was told.
#[derive(Default)]
struct Account {
    acknowledged: BTreeSet<usize>,
    /// Connections that ended, with their last words.
    ends: Vec<String>,
    /// The longest time between two acknowledgements.
    gap: Duration,
}

/// Inserts numbers, each once, and reads its own back after each, until `stop`.
fn write(proxy: &Proxy, database: &str, writer: usize, account: &Mutex<Account>, stop: &AtomicBool) {
    let mut session = None;
    let mut last = Instant::now();
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let client: &mut RawClient = session.get_or_insert_with(|| proxy.session(database));
        client.patience(Duration::from_secs(60));
        let outcome = ask(client, &format!("insert into t values ({writer}, {n})"));
        let mut account = account.lock().unwrap();
        if let Err(end) = outcome {
            account.ends.push(end);
            session = None;
            continue;
        }
        account.acknowledged.insert(n);
        account.gap = account.gap.max(last.elapsed());
        last = Instant::now();
        let (written, own) = (account.acknowledged.len(), format!("select count(*) from t where writer = {writer}"));
        drop(account);
        let seen = match ask(client, &own) {
            Ok(rows) => rows[0][0].parse::<usize>().unwrap(),
            Err(_) => {
                session = None;
                continue;
            }
        };
        assert!(seen >= written, "writer {writer} was told of {written} rows and sees {seen}");
    }
}

/// The rows, or the last words of a connection that has ended.
fn ask(client: &mut RawClient, sql: &str) -> Result<Vec<Vec<String>>, String> {
    client.try_send(&query(sql)).map_err(|error| error.to_string())?;
    let frames = client.until_closed_or(b'Z');
    let error = frames.iter().find(|frame| frame.tag == b'E');
    match (error, frames.last().is_some_and(|frame| frame.tag == b'Z')) {
        (None, true) => Ok(support::raw_client::Reply { frames }.rows()),
        (Some(error), false) => Err(error.field(b'C').unwrap()),
        (Some(error), true) => panic!("{sql}: {error:?}"),
        (None, false) => Err("no words".to_owned()),
    }
}

fn pairs(session: &mut RawClient) -> Vec<(usize, usize)> {
    let rows = session.rows("select writer, n from t order by writer, n");
    rows.into_iter().map(|row| (row[0].parse().unwrap(), row[1].parse().unwrap())).collect()
}

#[test]
fn writes_go_on_at_the_promoted_replica_and_the_old_primary_gets_none_when_it_comes_back() {
    let (cluster, database) = prepared();
    let [heir, other] = &cluster.replicas;
    let proxy = behind(&cluster, &database).start();
    let accounts: Vec<Mutex<Account>> = (0..WRITERS).map(|_| Mutex::default()).collect();
    let stop = AtomicBool::new(false);
    let counts = || accounts.iter().map(|account| account.lock().unwrap().acknowledged.len()).collect::<Vec<_>>();
    let round = |what: &str| {
        let before = counts();
        wait_until(what, || counts().iter().zip(&before).all(|(now, before)| *now >= before + ROUND));
    };
    let old = thread::scope(|scope| {
        for (writer, account) in accounts.iter().enumerate() {
            let (proxy, database, stop) = (&proxy, &database, &stop);
            scope.spawn(move || write(proxy, database, writer, account, stop));
        }
        let ends_at_panic = Ends(&stop);
        round("everybody writes");
        cluster.primary.stop();
        heir.promote();
        round("everybody writes to the promoted one");
        let gap = accounts.iter().map(|account| account.lock().unwrap().gap).max();
        println!("time without writes at the promotion: {:?}", gap.unwrap());
        other.follow(heir, "other");
        assert!(is(&proxy, heir, "primary", "up"), "{:?}", proxy.show("REPLICAS"));
        cluster.primary.start();
        let old = pairs(&mut cluster.primary.session(&database));
        wait_until("the old primary is known for what it is", || is(&proxy, &cluster.primary, "unknown", "split_off"));
        round("everybody writes while there are two primaries");
        let frozen = heir.freeze();
        wait_until("the new primary is missed", || is(&proxy, heir, "primary", "down"));
        drop(frozen);
        round("everybody writes when it is back");
        drop(ends_at_panic);
        old
    });

    let kept = pairs(&mut heir.session(&database));
    let distinct: BTreeSet<_> = kept.iter().copied().collect();
    assert_eq!(distinct.len(), kept.len(), "an insert was made twice");
    // A connection of the old primary ends one client at most. One that comes back at once may be
    // given another that has not been stopped yet, so a writer may lose two.
    let mut ends = 0;
    for (writer, account) in accounts.into_iter().enumerate() {
        let account = account.into_inner().unwrap();
        let lost: Vec<_> = account.acknowledged.iter().filter(|n| !distinct.contains(&(writer, **n))).collect();
        assert!(lost.is_empty(), "writer {writer} was told of {lost:?}");
        let known = ["08006", "57P01", "57P02", "57P03"];
        assert!(account.ends.iter().all(|end| known.contains(&&**end)), "{:?}", account.ends);
        ends += account.ends.len();
    }
    assert!(ends <= WRITERS, "{ends} clients were ended by {WRITERS} connections: {}", proxy.log());
    assert_eq!(pairs(&mut proxy.session(&database)), kept);
    assert_eq!(pairs(&mut cluster.primary.session(&database)), old, "the old primary was written to");

    // A process that has seen nothing of all this, and whose file names the old primary first.
    let ignorant = behind(&cluster, &database).start();
    ignorant.session(&database).query("insert into t values (100, 0)");
    assert_eq!(pairs(&mut cluster.primary.session(&database)), old);
    assert_eq!(heir.session(&database).value("select count(*) from t where writer = 100"), "1");
    // Nor does a RELOAD make it believe the file.
    ignorant.rewrite(|text| text.replace("weight=1", "weight=2"));
    ignorant.tell("RELOAD");
    ignorant.session(&database).query("insert into t values (101, 0)");
    assert_eq!(pairs(&mut cluster.primary.session(&database)), old);
}

/// Tells the writers to stop, also when the test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn who_holds_or_awaits_a_primary_that_hangs_is_served_by_the_next_one() {
    let (cluster, database) = prepared();
    let heir = &cluster.replicas[0];
    let proxy = behind(&cluster, &database).set("default_pool_size", 3).start();
    let mut sessions = [(); 4].map(|()| proxy.session(&database));
    let [in_transaction, pinned, asking, waiting] = &mut sessions;
    in_transaction.query("begin; insert into t values (1, 1)");
    pinned.query("select pg_advisory_lock(1)");
    asking.query("select 1");
    wait_until("the heir has it all", || {
        heir.session(&database).value("select pg_last_wal_replay_lsn() = pg_last_wal_receive_lsn()") == "t"
    });
    let servers = |proxy: &Proxy, column| -> i64 {
        let counts = proxy.show("POOLS").select("database", &database, column);
        counts.iter().map(|count| count.parse::<i64>().unwrap()).sum()
    };
    let frozen = cluster.primary.freeze();
    asking.send(&query("insert into t values (2, 2)"));
    wait_until("it waits for an answer", || servers(&proxy, "sv_active") == 3);
    waiting.send(&query("insert into t values (3, 3)"));
    wait_until("it waits for a server", || servers(&proxy, "cl_waiting") == 1);
    heir.promote();
    // They are told without a word of theirs: no answer would ever come.
    for ended in [&mut *in_transaction, &mut *pinned, &mut *asking] {
        let last = ended.until_closed().pop().unwrap();
        let (severity, code) = (last.field(b'S').unwrap(), last.field(b'C').unwrap());
        assert_eq!((&*severity, &*code), ("FATAL", "57P01"), "{last:?}");
    }
    assert_eq!(waiting.reply().tags(), ["INSERT 0 1"]);
    assert_eq!(waiting.value("select count(*) from t where writer = 3"), "1");
    assert_eq!(heir.session(&database).value("select string_agg(writer::text, ',') from t"), "3");
    drop(frozen);
    wait_until("the old one is back", || is(&proxy, &cluster.primary, "unknown", "split_off"));
    assert_eq!(waiting.query("insert into t values (4, 4)").tags(), ["INSERT 0 1"]);
    let committed = "select count(*) from t where writer in (1, 3, 4)";
    assert_eq!(cluster.primary.session(&database).value(committed), "0");
}

#[test]
fn while_no_member_is_primary_clients_wait_for_one() {
    let (cluster, database) = prepared();
    let [first, second] = &cluster.replicas;
    // Two standbys and nobody who takes writes, as in the middle of a switchover.
    let proxy = Proxy::builder()
        .database(&database, first.port, "")
        .replicas(&database, &[(second, 1)])
        .set("query_wait_timeout", 60)
        .start();
    let mut early = RawClient::connect(&proxy.address());
    early.send(&support::frames::startup(&[("user", USER), ("database", &database)]));
    wait_until("both have been asked", || is(&proxy, first, "replica", "up") && is(&proxy, second, "replica", "up"));
    cluster.primary.stop();
    first.promote();
    let mut session = proxy.session(&database);
    assert_eq!(session.query("insert into t values (1, 1)").tags(), ["INSERT 0 1"]);
    assert!(early.until(b'Z').iter().any(|frame| frame.tag == b'R'));
}
