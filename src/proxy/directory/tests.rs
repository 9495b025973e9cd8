use std::{sync::Barrier, thread};

use super::*;
use crate::{
    auth::{HbaRules, UserList},
    client::Directory,
    proxy::control_plane::Memory,
};

/// Nobody listens there.
const SERVER: &str = "host=127.0.0.1 port=1 user=app";

fn settings(text: &str) -> Arc<Settings> {
    with_users(text, "")
}

fn with_users(text: &str, users: &str) -> Arc<Settings> {
    let no_file = |_: &str| Err(std::io::ErrorKind::NotFound.into());
    let text = format!("[pgbouncer]\nauth_type = trust\n{text}");
    let config = Config::parse(&text, "a.ini", &|_| None, &no_file).unwrap();
    let (users, rules) = (UserList::parse(users), Arc::new(HbaRules::default()));
    Arc::new(Settings { config, users, tls: Default::default(), redis_roots: None, rules })
}

fn installation(text: &str) -> Arc<Installation> {
    let clock = Clock::start();
    let ttl = Duration::from_secs(15);
    let metrics = SharedMetrics::default();
    let shared = Shared {
        clock,
        ids: Arc::default(),
        pools: Arc::default(),
        clients: Arc::default(),
        resolver: Arc::new(Resolver::new(clock, ttl, ttl)),
        tallies: Tallies::new(&metrics),
        metrics,
        tracker: TaskTracker::new(),
        stop: CancellationToken::new(),
        handle: tokio::runtime::Handle::current(),
    };
    Installation::new(settings(text), shared).unwrap()
}

/// Tasks that watch databases.
fn tasks(installation: &Installation) -> usize {
    installation.shared.tracker.len()
}

/// Tasks for each database, found out with one.
async fn tasks_for_one() -> usize {
    let installation = installation(&format!("[databases]\na = {SERVER}\n"));
    let tasks = tasks(&installation);
    assert!(tasks > 0);
    tasks
}

async fn wait_until_tasks_are(wanted: usize, installation: &Installation) {
    let ended = async {
        while tasks(installation) != wanted {
            tokio::task::yield_now().await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(60), ended).await;
    assert!(in_time.is_ok(), "{} tasks instead of {wanted}", tasks(installation));
}

#[tokio::test]
async fn a_configuration_that_cannot_be_served_leaves_nothing_behind_and_everything_as_it_is() {
    let one = tasks_for_one().await;
    let installation = installation(&format!("[databases]\na = {SERVER}\n"));
    let served = installation.find("a").unwrap();
    // With the cache on, somebody must ask for the catalog of each: of `z` nobody can.
    let wrong = format!("[cache]\nenabled = 1\n[databases]\na = {SERVER}\nb = {SERVER}\nz = host=127.0.0.1\n");
    for _ in 0..3 {
        assert!(installation.install(settings(&wrong)).is_err());
        assert_eq!(tasks(&installation), one);
    }
    assert!(Arc::ptr_eq(&served, &installation.find("a").unwrap()));
    assert!(!served.database.is_retired() && installation.find("b").is_none() && installation.cache().is_none());
    let right = wrong.replace("z = host=127.0.0.1\n", "");
    installation.install(settings(&right)).unwrap();
    assert!(installation.cache().is_some() && served.database.is_retired());
    // The cache has members watched as well, and somebody looks for what an earlier process has left running.
    wait_until_tasks_are(2 * (one + 2), &installation).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn logins_that_ask_for_a_database_of_the_fallback_entry_at_the_same_time_share_one() {
    let one = tasks_for_one().await;
    let installation = installation(&format!("[databases]\n* = {SERVER}\n"));
    const NAMES: usize = 100;
    const LOGINS: usize = 4;
    let at_once = Barrier::new(LOGINS);
    thread::scope(|scope| {
        for _ in 0..LOGINS {
            scope.spawn(|| {
                for name in 0..NAMES {
                    at_once.wait();
                    assert!(installation.find_or_make(&name.to_string()).is_ok());
                }
            });
        }
    });
    assert_eq!((installation.all().len(), tasks(&installation)), (NAMES, NAMES * one));
}

#[tokio::test]
async fn the_first_users_who_log_in_at_the_same_time_are_asked_as_once_and_never_for_what_is_gone() {
    let one = tasks_for_one().await;
    let installation = installation("[databases]\na = host=127.0.0.1 port=1\n");
    let database = installation.database("a").unwrap();
    assert_eq!(tasks(&installation), 0);
    assert!(installation.logged_in(&database, "first") && !installation.logged_in(&database, "second"));
    assert_eq!(tasks(&installation), one);
    let before = installation.find("a").unwrap();
    // Whoever knows the way keeps it over a RELOAD.
    installation.install(settings("[databases]\na = host=127.0.0.1 port=1 pool_size=3\n")).unwrap();
    let now = installation.find("a").unwrap();
    assert_eq!(now.control.get().unwrap().guest(), Some("first"));
    wait_until_tasks_are(one, &installation).await;
    // One who has found the database before that and comes late.
    let plane = |served: &Served| {
        let (settings, memory) = (installation.settings(), Memory::default());
        ControlPlane::new(&served.database, &served.section, &settings, &installation.shared, Some("x"), memory)
    };
    let late =
        Served { database: Arc::clone(&before.database), section: before.section.clone(), control: OnceLock::new() };
    assert!(!late.watch(plane(&late).unwrap(), &installation.shared));
    assert_eq!(tasks(&installation), one);
}

#[tokio::test]
async fn of_too_many_databases_of_the_fallback_entry_the_one_longest_unattended_gives_its_place() {
    let one = tasks_for_one().await;
    let text = format!("[databases]\nown = {SERVER}\n* = {SERVER}\n");
    let installation = installation(&text);
    let names: Vec<String> = (0..MAX_FALLBACK_DATABASES).map(|number| number.to_string()).collect();
    for name in &names {
        installation.database(name).unwrap();
    }
    let full = (MAX_FALLBACK_DATABASES + 1) * one;
    assert_eq!(tasks(&installation), full);
    let all: HashSet<Arc<str>> = names.iter().map(|name| name.as_str().into()).collect();
    let without = |absent: &[&str]| all.iter().filter(|name| !absent.contains(&&***name)).cloned().collect();
    let config = &installation.settings().config;
    let begin = Instant::now();
    installation.note_attended(config, &all, begin);
    // All are in use: one more is refused, again and again, and those that are there are not.
    for _ in 0..3 {
        assert_eq!(installation.database("more").unwrap_err(), Unserved::TooMany);
        assert_eq!(tasks(&installation), full);
    }
    assert!(installation.database("7").is_ok() && installation.database("own").is_ok());
    installation.note_attended(config, &without(&["5"]), begin);
    installation.note_attended(config, &without(&["3", "5"]), begin + Duration::from_secs(1));
    installation.note_attended(config, &without(&["3", "5", "9"]), begin + Duration::from_secs(2));
    // Somebody has just asked for it.
    installation.database("5").unwrap();
    installation.database("more").unwrap();
    assert!(installation.find("3").is_none() && installation.find("5").is_some() && installation.find("9").is_some());
    wait_until_tasks_are(full, &installation).await;
}

#[tokio::test]
async fn what_is_in_doubt_finds_its_server_again_as_long_as_members_keep_their_numbers() {
    let text = |parameters: &str| {
        let replica = "[replicas]\na.r1 = host=127.0.0.1 port=2";
        settings(&format!("[routing]\nread_write_split = 1\n[databases]\na = {SERVER} {parameters}\n{replica}\n"))
    };
    let installation = installation("");
    installation.install(text("")).unwrap();
    let now = || installation.find("a").unwrap();
    let before = now();
    installation.install(text("pool_size=3")).unwrap();
    assert!(!Arc::ptr_eq(&before, &now()));
    assert_eq!(now().database.entry, before.database.entry);
    assert_eq!(now().database.primary(), None, "nobody has answered");
    // As after a failover.
    now().database.topology.set_primary(Some(MemberId(1)));
    installation.install(text("pool_size=4")).unwrap();
    assert_eq!(now().database.topology.primary(), Some(MemberId(1)));
    let more = "[routing]\nread_write_split = 1\n[databases]\n";
    let more = format!("{more}a = {SERVER}\n[replicas]\na.r0 = host=127.0.0.1 port=3\na.r1 = host=127.0.0.1 port=2\n");
    installation.install(settings(&more)).unwrap();
    assert_ne!(now().database.entry, before.database.entry);
    assert_eq!(now().database.topology.primary(), Some(MemberId(2)));
    let other = more.replace("port=2", "port=4");
    installation.install(settings(&other)).unwrap();
    assert_eq!(now().database.primary(), None, "another server bears its name");
}

#[tokio::test]
async fn a_database_is_watched_anew_if_it_would_be_watched_in_another_way_and_only_then() {
    let text = |more: &str| format!("{more}\n[databases]\na = {SERVER}\nb = host=127.0.0.1 port=1\n");
    let installation = installation(&text(""));
    let is_kept = |settings: Arc<Settings>| {
        let before = ["a", "b"].map(|name| installation.find(name).unwrap());
        installation.install(settings).unwrap();
        before.map(|before| Arc::ptr_eq(&before, &installation.find(&before.section.name).unwrap()))
    };
    assert_eq!(is_kept(settings(&text(""))), [true, true]);
    assert_eq!(is_kept(settings(&text("default_pool_size = 3"))), [true, true]);
    assert_eq!(is_kept(settings(&text("[routing]\nmax_replica_lag = 3"))), [false, false]);
    let users = |password: &str| with_users(&text(""), &format!("\"app\" \"{password}\"\n"));
    assert_eq!(is_kept(users("old")), [false, false]);
    assert_eq!(is_kept(users("old")), [true, true]);
    // Nobody is known whom `b` could be asked as.
    assert_eq!(is_kept(users("new")), [false, true]);
    let database = installation.database("b").unwrap();
    assert!(installation.logged_in(&database, "app"));
    assert_eq!(is_kept(users("new")), [true, true]);
    assert_eq!(is_kept(users("newer")), [false, false]);
    assert_eq!(installation.find("b").unwrap().control.get().unwrap().guest(), Some("app"));
}
