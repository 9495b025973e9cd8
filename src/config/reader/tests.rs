use std::{io, time::Duration};

use proptest::prelude::*;

use crate::config::{Config, ConfigError, Host, LoadBalanceHosts, PoolMode, ReadYourWrites, ReplicaRole, SslMode};

fn parse(text: &str) -> Result<Config, ConfigError> {
    let environment = |name: &str| match name {
        "SECRET" => Some("it's a well kept secret".to_owned()),
        "PORT" => Some("6379".to_owned()),
        _ => None,
    };
    let include = |name: &str| match name {
        "main.ini" => Ok("[pgbouncer]\nlisten_port = 7000".to_owned()),
        "pool.ini" => Ok("pool_mode = statement".to_owned()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    Config::parse(text, "a.ini", &environment, &include)
}

/// Reads a configuration that is fine; `[pgbouncer]` comes first.
#[track_caller]
fn config(text: &str) -> Config {
    parse(&format!("[pgbouncer]\n{text}")).map_err(|error| error.to_string()).unwrap()
}

/// The only place that looks at errors; the text starts at line 2, after `[pgbouncer]`.
#[track_caller]
fn refused(text: &str, error: &str) {
    let result = parse(&format!("[pgbouncer]\n{text}")).map_err(|error| error.to_string());
    assert_eq!(result.err().as_deref(), Some(error), "{text}");
}

#[test]
fn the_main_section_must_be_there_under_one_of_its_names() {
    assert_eq!(parse("").unwrap_err().to_string(), "a.ini: expected a section [pgbouncer], got none");
    assert!(parse("[pgweir]\nlisten_port = 1").is_ok());
}

#[test]
fn a_key_before_any_section_is_an_error() {
    let error = parse("pool_mode = session\n[pgbouncer]").unwrap_err();
    assert_eq!(error.to_string(), "a.ini:1: pool_mode: expected a [section] first, got a value");
}

#[test]
fn an_unknown_section_is_an_error() {
    refused(
        "[Databases]",
        "a.ini:2: expected a section (pgbouncer, databases, replicas, users, peers, cache_ttl, routing, cache, insight, control, \
         http, sessions), got [Databases]",
    );
}

#[test]
fn an_unknown_key_is_an_error_in_every_section() {
    refused("pool_size = 5", "a.ini:2: pool_size: expected a known key, got an unknown one");
    refused("Pool_Mode = session", "a.ini:2: Pool_Mode: expected a known key, got an unknown one");
    refused("[cache]\nsizes = 5", "a.ini:3: cache.sizes: expected a known key, got an unknown one");
    refused("[databases]\na = sslmode=require", "a.ini:3: a.sslmode: expected a known key, got an unknown one");
    refused("[databases]\na = weight=2", "a.ini:3: a.weight: expected a known key, got an unknown one");
    refused("[users]\na = password=x", "a.ini:3: a.password: expected a known key, got an unknown one");
    refused("[peers]\n1 = host=a user=b", "a.ini:3: 1.user: expected a known key, got an unknown one");
}

#[test]
fn a_value_that_does_not_fit_is_an_error_that_says_what_does() {
    refused("query_wait_timeout = soon", "a.ini:2: query_wait_timeout: expected seconds, got soon");
    refused("query_wait_timeout = 10s", "a.ini:2: query_wait_timeout: expected seconds, got 10s");
    refused("log_stats = yes", "a.ini:2: log_stats: expected 0 or 1, got yes");
    refused("listen_port =", "a.ini:2: listen_port: expected a number up to 65535, got nothing");
    refused("[databases]\na = pool_size=many", "a.ini:3: a.pool_size: expected a number, got many");
    refused("[databases]\na = port=0", "a.ini:3: a.port: expected a port from 1 to 65535, got 0");
    refused("peer_id = 16384", "a.ini:2: peer_id: expected a number up to 16383, got 16384");
}

#[test]
fn a_comment_behind_a_value_is_named_as_what_it_is() {
    refused(
        "pool_mode = transaction ; x",
        "a.ini:2: pool_mode: expected session | transaction | statement, got transaction ; x (a comment needs a line \
         of its own)",
    );
}

#[test]
fn words_are_taken_in_any_case() {
    assert_eq!(config("pool_mode = TRANSACTION").pgbouncer.pool_mode, PoolMode::Transaction);
}

#[test]
fn a_second_main_section_sets_everything_with_a_default_back() {
    let config = config("default_pool_size = 5\nauth_user = ann\n[pgbouncer]\nmax_client_conn = 7");
    assert_eq!(config.pgbouncer.default_pool_size, 20);
    assert_eq!(config.pgbouncer.auth_user.as_deref(), Some("ann"), "it has no default to go back to");
    assert_eq!(config.pgbouncer.max_client_conn, 7);
}

#[test]
fn an_include_goes_on_in_the_section_it_stands_in_and_may_open_another() {
    let config =
        config("default_pool_size = 5\n%include pool.ini\n[databases]\n%include main.ini\nmax_client_conn = 9");
    assert_eq!(config.pgbouncer.default_pool_size, 20);
    assert_eq!(config.pgbouncer.pool_mode, PoolMode::Session);
    assert_eq!((config.pgbouncer.listen_port, config.pgbouncer.max_client_conn), (7000, 9));
}

#[test]
fn old_names_are_taken() {
    let config = config("service_name = x\n[databases]\na = reserve_pool=3");
    assert_eq!(config.pgbouncer.job_name, "x");
    assert_eq!(config.databases["a"].reserve_pool_size, Some(3));
}

#[test]
fn a_database_has_every_key_of_pgbouncer() {
    let config = config(
        "[databases]\nshop = dbname=s host=db1,db2 port=5433 user=u password=p auth_user=au auth_query='select 1' \
         auth_dbname=ad pool_size=1 min_pool_size=2 reserve_pool_size=3 max_db_connections=4 \
         max_db_client_connections=5 server_lifetime=6 pool_mode=statement load_balance_hosts=disable \
         connect_query='set x = ''y''' query_wait_timeout=7 client_encoding=UTF8 datestyle=ISO timezone=UTC \
         application_name=app",
    );
    let shop = &config.databases["shop"];
    assert_eq!((shop.name.as_str(), shop.server_dbname(), shop.port), ("shop", "s", 5433));
    assert_eq!(shop.hosts().collect::<Vec<_>>(), [Host::Tcp("db1"), Host::Tcp("db2")]);
    assert_eq!((shop.user.as_deref(), shop.password.as_ref().unwrap().reveal()), (Some("u"), "p"));
    assert_eq!((shop.pool_size, shop.min_pool_size, shop.reserve_pool_size), (Some(1), Some(2), Some(3)));
    assert_eq!((shop.max_db_connections, shop.max_db_client_connections), (Some(4), Some(5)));
    assert_eq!(shop.connect_query.as_deref(), Some("set x = 'y'"));
    assert_eq!(shop.load_balance_hosts, LoadBalanceHosts::Disable);
    assert_eq!(shop.query_wait_timeout, Some(Duration::from_secs(7)));
}

#[test]
fn a_database_without_anything_is_behind_the_local_socket_under_its_own_name() {
    let config = config("[databases]\n'my db' =");
    let database = &config.databases["my db"];
    assert_eq!((database.server_dbname(), database.port), ("my db", 5432));
    assert_eq!(database.hosts().collect::<Vec<_>>(), [Host::Default]);
}

#[test]
fn hosts_are_names_directories_or_abstract_sockets() {
    let config = config("[databases]\na = host=/run/a,@b,::1,c");
    let hosts: Vec<_> = config.databases["a"].hosts().collect();
    assert_eq!(hosts, [Host::Unix("/run/a"), Host::Unix("@b"), Host::Tcp("::1"), Host::Tcp("c")]);
    refused(
        "[databases]\na = host=b,,c",
        "a.ini:3: a.host: expected a host name, an address, a directory, or several separated by commas, got b,,c",
    );
}

#[test]
fn the_fallback_serves_whatever_is_not_listed_under_the_name_asked_for() {
    let config = config("[databases]\nshop = host=a\n* = host=b pool_size=3\n[replicas]\n*.r1 = host=c");
    assert_eq!(config.database("shop").unwrap().host, "a");
    let other = config.database("other").unwrap();
    assert_eq!((other.name.as_str(), other.server_dbname(), other.host.as_str()), ("other", "other", "b"));
    assert_eq!(other.replicas[0].parameters.server_dbname(), "other");
    assert!(parse("[pgbouncer]\n[databases]\na=").unwrap().database("b").is_none());
}

#[test]
fn the_names_of_the_console_are_taken() {
    for name in ["pgbouncer", "pgweir"] {
        refused(
            &format!("[databases]\n{name} = host=a"),
            &format!("a.ini:3: {name}: expected a name that is not the console's, got `{name}`"),
        );
    }
    refused(
        "auth_dbname = pgbouncer",
        "a.ini:2: auth_dbname: expected a database of a server (this name is the console's), got pgbouncer",
    );
}

#[test]
fn the_last_entry_of_a_name_replaces_the_others_whole() {
    let config = config("[databases]\na = host=b pool_size=3\na = host=c");
    assert_eq!((config.databases["a"].host.as_str(), config.databases["a"].pool_size), ("c", None));
}

#[test]
fn a_replica_inherits_everything_of_its_database_but_the_host() {
    let config = config(
        "[replicas]\nshop.r1 = host=db2 weight=2\nshop.r2 = host=db3 port=5433 max_lag=5 role=any\n\
         [databases]\nshop = host=db1 port=5432 dbname=s user=u password=p pool_size=20",
    );
    let [r1, r2] = &config.databases["shop"].replicas[..] else { panic!("two replicas") };
    assert_eq!((r1.name.as_str(), r1.weight, r1.max_lag, r1.role), ("r1", 2, None, ReplicaRole::Replica));
    let parameters = &r1.parameters;
    assert_eq!((parameters.host.as_str(), parameters.port, parameters.server_dbname()), ("db2", 5432, "s"));
    assert_eq!(
        (parameters.user.as_deref(), parameters.pool_size, parameters.name.as_str()),
        (Some("u"), Some(20), "shop")
    );
    assert_eq!((r2.weight, r2.max_lag, r2.role), (1, Some(Duration::from_secs(5)), ReplicaRole::Any));
    assert_eq!(r2.parameters.port, 5433);
}

#[test]
fn the_key_of_a_replica_is_split_at_its_last_dot() {
    let config = config("[databases]\na.b =\n[replicas]\na.b.c = host=x");
    assert_eq!(config.databases["a.b"].replicas[0].name, "c");
}

#[test]
fn a_replica_needs_a_database_a_host_and_a_sane_weight() {
    let replicas = |text: &str| format!("[databases]\na=host=b\n[replicas]\n{text}");
    refused(&replicas("b.r = host=c"), "a.ini:5: b.r: expected a database of [databases], got `b`");
    refused(&replicas("a.r = weight=1"), "a.ini:5: a.r: expected host=, got none");
    refused(&replicas("a = host=c"), "a.ini:5: a: expected database.replica, got `a`");
    refused(&replicas("a.r = host=c weight=1001"), "a.ini:5: a.r.weight: expected a weight from 0 to 1000, got 1001");
    refused(&replicas("a.r = host=c wieght=1"), "a.ini:5: a.r.wieght: expected a known key, got an unknown one");
}

#[test]
fn a_replica_named_twice_is_the_last_one() {
    let config = config("[databases]\na=host=b\n[replicas]\na.r = host=c\na.r = host=d");
    assert_eq!(config.databases["a"].replicas.len(), 1);
    assert_eq!(config.databases["a"].replicas[0].parameters.host, "d");
}

#[test]
fn a_peer_has_an_id_and_a_host() {
    let config = config("[peers]\n1 = host=a\n2 = host=/tmp/b port=1 pool_size=3");
    assert_eq!((config.peers[&1].host.as_str(), config.peers[&1].port), ("a", 6432));
    assert_eq!((config.peers[&2].port, config.peers[&2].pool_size), (1, Some(3)));
    refused("[peers]\n0 = host=a", "a.ini:3: 0: expected a peer id from 1 to 65535, got `0`");
    refused("[peers]\n1 = port=1", "a.ini:3: 1: expected host=, got none");
}

#[test]
fn variables_are_replaced_in_the_sections_of_our_own() {
    let config = config(
        "[databases]\na = host=b\n[replicas]\na.r = host=c port=${PORT}\n\
         [cache]\nredis_url = redis://h:${PORT}/0\nsecret = ${SECRET}",
    );
    assert_eq!(config.cache.redis_url.unwrap().reveal(), "redis://h:6379/0");
    assert_eq!(config.cache.secret.unwrap().reveal(), "it's a well kept secret");
    assert_eq!(config.databases["a"].replicas[0].parameters.port, 6379);
}

#[test]
fn elsewhere_only_a_password_that_is_nothing_but_a_variable_is_replaced() {
    let config =
        config("auth_user = ${SECRET}\n[databases]\na = password=${SECRET} dbname=${PORT}\nb = password=x${PORT}");
    assert_eq!(config.databases["a"].password.as_ref().unwrap().reveal(), "it's a well kept secret");
    assert_eq!(config.databases["a"].dbname.as_deref(), Some("${PORT}"));
    assert_eq!(config.databases["b"].password.as_ref().unwrap().reveal(), "x${PORT}");
    assert_eq!(config.pgbouncer.auth_user.as_deref(), Some("${SECRET}"));
}

#[test]
fn a_missing_variable_is_an_error_where_it_is_used() {
    refused(
        "[control]\npassword = ${NOWHERE}",
        "a.ini:3: control.password: expected the environment variable NOWHERE, got none of that name",
    );
    refused(
        "[databases]\na = password=${NOWHERE}",
        "a.ini:3: a.password: expected the environment variable NOWHERE, got none of that name",
    );
}

#[test]
fn redis_needs_a_secret() {
    refused(
        "[cache]\nenabled = 1\nredis_url = redis://h",
        "a.ini:4: cache.redis_url: expected cache.secret beside it, got none",
    );
}

#[test]
fn routing_and_cache_need_sessions_of_their_own() {
    refused(
        "[sessions]\ntransparent_sessions = 0\n[routing]\nread_write_split = 1",
        "a.ini:5: routing.read_write_split: expected sessions.transparent_sessions = 1 beside it, got 0",
    );
    refused(
        "[cache]\nenabled = 1\n[sessions]\ntransparent_sessions = 0",
        "a.ini:3: cache.enabled: expected sessions.transparent_sessions = 1 beside it, got 0",
    );
}

#[test]
fn what_needs_one_place_for_all_writes_is_refused_beside_equal_members() {
    let members = "[databases]\na = host=b\n[replicas]\na.n2 = host=c role=any";
    let beside = "beside role=any in [replicas] of a";
    for (section, setting, expected, found) in [
        ("cache", "enabled", "0 or observe", "1"),
        ("cache", "wal_invalidation", "0", "1"),
        ("routing", "read_your_writes", "session or off", "database"),
        ("routing", "primary_reads", "fallback or always", "never"),
        ("routing", "role_detection", "auto", "off"),
    ] {
        let setting_found = format!("[{section}]\n{setting} = {found}");
        refused(
            &format!("{setting_found}\n{members}"),
            &format!("a.ini:3: {section}.{setting}: expected {expected} {beside}, got {found}"),
        );
        config(&format!("{setting_found}\n{}", members.replace("role=any", "role=replica")));
    }
    config(&format!("[cache]\nenabled = observe\n[routing]\nprimary_reads = always\n{members}"));
}

#[test]
fn secrets_are_not_repeated_in_errors() {
    refused(
        "[cache]\nredis_url = user:hunter2@h",
        "a.ini:3: cache.redis_url: expected an address such as redis://127.0.0.1:6379/0, got something else",
    );
    let error = parse("[pgbouncer]\n[databases]\na = password=my hunter2 host=b").unwrap_err().to_string();
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn what_is_not_built_is_refused_at_load() {
    refused(
        "client_tls_ecdhcurve = sect571r1",
        "a.ini:2: client_tls_ecdhcurve: expected auto, none, X25519, prime256v1 or secp384r1, got sect571r1",
    );
    refused("client_tls_dheparams = 2048", "a.ini:2: client_tls_dheparams: expected auto, none or legacy, got 2048");
    refused(
        "auth_type = pam",
        "a.ini:2: auth_type: expected any, trust, plain, md5, cert, hba or scram-sha-256 (pam and ldap are not supported: auth_query takes users and passwords from the server), got pam",
    );
    assert_eq!(config("server_tls_sslmode = allow").pgbouncer.server_tls_sslmode, SslMode::Allow);
}

#[test]
fn read_your_writes_that_is_not_set_follows_the_cache() {
    let cases = [
        ("", ReadYourWrites::Session),
        ("[cache]\nenabled = 1", ReadYourWrites::Database),
        ("[cache]\nenabled = observe", ReadYourWrites::Session),
        ("[cache]\nenabled = 1\n[routing]\nread_your_writes = session", ReadYourWrites::Session),
        ("[routing]\nread_your_writes = off", ReadYourWrites::Off),
    ];
    for (text, expected) in cases {
        assert_eq!(config(text).read_your_writes(), expected, "{text}");
    }
}

#[test]
fn a_user_comes_before_a_database_and_a_database_before_the_rest() {
    let config = config(
        "query_wait_timeout = 100\npool_mode = session\ndefault_pool_size = 9\nquery_timeout = 50\n\
         [databases]\na = query_wait_timeout=10 pool_mode=transaction pool_size=5\nb = server_lifetime=0\n\
         [users]\nann = query_wait_timeout=1 pool_mode=statement pool_size=0 query_timeout=0\nbob = query_timeout=3 query_wait_timeout=0",
    );
    let (a, b) = (&config.databases["a"], &config.databases["b"]);
    let wait = |database, user| config.query_wait_timeout(database, user).map(|time| time.as_secs());
    assert_eq!([wait(a, "ann"), wait(a, "eve"), wait(b, "eve"), wait(a, "bob")], [Some(1), Some(10), Some(100), None]);
    let mode = |database, user| config.pool_mode(database, user);
    assert_eq!(mode(a, "ann"), PoolMode::Statement);
    assert_eq!(mode(a, "eve"), PoolMode::Transaction);
    assert_eq!(mode(b, "eve"), PoolMode::Session);
    let size = |database, user| config.effective_pool_size(database, user);
    assert_eq!([size(a, "ann"), size(a, "eve"), size(b, "eve")], [0, 5, 9]);
    let query = |user| config.query_timeout(user).map(|time| time.as_secs());
    assert_eq!([query("ann"), query("bob"), query("eve")], [Some(50), Some(3), Some(50)]);
    assert_eq!(config.server_lifetime(b), Duration::from_secs(3600));
}

#[test]
fn a_changed_server_needs_new_connections_and_a_changed_limit_or_password_does_not() {
    let database = |text: &str| config(&format!("[databases]\na = {text}")).databases["a"].clone();
    let old = database("host=b password=c pool_size=1");
    for text in ["host=x", "host=b port=1", "host=b dbname=x", "host=b user=x", "host=b connect_query=x"] {
        assert!(old.needs_new_connections(&database(text)), "{text}");
    }
    assert!(!old.needs_new_connections(&database("host=b password=d pool_size=2 pool_mode=statement")));
}

proptest! {
    #[test]
    fn no_text_is_too_strange(
        lines in prop::collection::vec(
            r#"\[(pgbouncer|databases|replicas|users|peers|cache)\]|[a*.]{1,3} ?= ?(host|weight|port|password|pool_size)= ?('?[a0-9-]{0,9}'?|\$\{[A-Z]*\}?)|listen_port=[0-9x-]*"#,
            0..12,
        ),
        any in ".*",
    ) {
        let _ = parse(&lines.join("\n"));
        let _ = parse(&format!("[pgbouncer]\n[databases]\n{any}"));
    }
}
