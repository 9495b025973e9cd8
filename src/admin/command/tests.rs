use super::*;

#[track_caller]
fn check(text: &str, expected: Command) {
    assert_eq!(parse(text), Ok(expected), "{text}");
}

#[track_caller]
fn check_invalid(text: &str) {
    let error = parse(text).expect_err(text);
    assert_eq!(error.to_string(), format!("invalid command '{text}', use SHOW HELP;"));
    assert_eq!(error.sqlstate(), "08P01");
}

fn name(name: &str) -> Option<String> {
    Some(name.to_owned())
}

#[test]
fn commands_are_read_in_any_case_with_any_space_and_one_semicolon() {
    for text in ["SHOW POOLS", "show pools;", " \n\tShOw \r\n pOOls ; ", "SELECT pools", "\"show\" \"pools\""] {
        check(text, Command::Show(Show::Pools));
    }
}

#[test]
fn a_database_may_be_left_out_named_or_quoted() {
    check("PAUSE", Command::Pause(None));
    check("pause;", Command::Pause(None));
    check("PAUSE shop", Command::Pause(name("shop")));
    check("RESUME Shop;", Command::Resume(name("Shop")));
    check("KILL \"my \"\"db\"\"\"", Command::Kill(name("my \"db\"")));
    check("RECONNECT shop", Command::Reconnect(name("shop")));
    check("WAIT_CLOSE shop", Command::WaitClose(name("shop")));
    check("DISABLE shop", Command::Disable(name("shop")));
    check("ENABLE", Command::Enable(None));
    check("SUSPEND", Command::Suspend);
    check("RELOAD;", Command::Reload);
}

#[test]
fn a_shutdown_says_what_it_waits_for() {
    check("SHUTDOWN", Command::Shutdown(Shutdown::Immediate));
    check("shutdown wait_for_servers;", Command::Shutdown(Shutdown::WaitForServers));
    check("SHUTDOWN WAIT_FOR_CLIENTS", Command::Shutdown(Shutdown::WaitForClients));
    check_invalid("SHUTDOWN NOW");
}

#[test]
fn a_client_is_killed_by_number() {
    check("KILL_CLIENT 42", Command::KillClient(Some(42)));
    check("KILL_CLIENT x", Command::KillClient(None));
    check("KILL_CLIENT", Command::KillClient(None));
}

#[test]
fn a_setting_is_set_with_equals_or_to_and_any_quotes() {
    let set = |key: &str, value: &str| Command::Set { key: key.into(), value: value.into() };
    check("SET pool_mode = session", set("pool_mode", "session"));
    check("set default_pool_size=10;", set("default_pool_size", "10"));
    check("SET query_timeout TO '1.5'", set("query_timeout", "1.5"));
    check("SET auth_query = 'select ''x'' ; y'", set("auth_query", "select 'x' ; y"));
    check("SET logfile=\"/tmp/a b\" ;", set("logfile", "/tmp/a b"));
    check("SET routing.max_replica_lag = 2.5", set("routing.max_replica_lag", "2.5"));
    check("SET x = ''", set("x", ""));
    check("SET ClientEncoding = a", set("ClientEncoding", "a"));
    check("SET client_encoding TO 'UTF8'", Command::SetIgnored);
    for text in ["SET", "SET x", "SET x =", "SET x = 'a", "SET x = a b", "SETx = a"] {
        check_invalid(text);
    }
}

#[test]
fn what_drivers_ask_at_login_is_known() {
    check("SHOW client_encoding", Command::Show(Show::Parameter(0)));
    check("show TimeZone;", Command::Show(Show::Parameter(4)));
}

#[test]
fn the_most_expensive_and_the_slowest_come_in_a_bounded_number() {
    check("SHOW QUERIES", Command::Show(Show::Queries(50)));
    check("SHOW QUERIES 7;", Command::Show(Show::Queries(7)));
    check("SHOW SLOW 99999999", Command::Show(Show::Slow(10_000)));
    check_invalid("SHOW QUERIES many");
    check_invalid("SHOW SLOW 1 2");
}

#[test]
fn the_cache_is_shown_and_flushed_as_a_whole_or_in_part() {
    check("SHOW CACHE", Command::Show(Show::Cache));
    check("SHOW CACHE TABLES;", Command::Show(Show::CacheTables));
    check("SHOW CACHE ADVICE", Command::Show(Show::CacheAdvice(50)));
    check("SHOW CACHE ADVICE 7;", Command::Show(Show::CacheAdvice(7)));
    check("FLUSH CACHE", Command::FlushCache(FlushTarget::All));
    check("flush cache shop;", Command::FlushCache(FlushTarget::Database("shop".into())));
    check(
        "FLUSH CACHE shop.public.\"My.Order\"",
        Command::FlushCache(FlushTarget::Table {
            database: "shop".into(),
            schema: "public".into(),
            table: "My.Order".into(),
        }),
    );
    for text in ["FLUSH", "FLUSH POOL", "FLUSH CACHE a.b", "FLUSH CACHE a.b.c.d", "SHOW CACHE ROWS"] {
        check_invalid(text);
    }
}

#[test]
fn members_are_banned_by_their_full_name() {
    check("BAN shop.r1", Command::Ban("shop.r1".into()));
    check("UNBAN \"shop.r1\";", Command::Unban("shop.r1".into()));
    check_invalid("BAN");
    check_invalid("BAN shop.");
}

#[test]
fn the_statement_of_show_route_is_taken_verbatim() {
    let route = |target, sql: &str| Command::Show(Show::Route(target, sql.to_owned()));
    let target = |database: &str, user: Option<&str>| {
        Some(RouteTarget { database: database.into(), user: user.map(str::to_owned) })
    };
    check("SHOW ROUTE select 'a;b' ; select 2;", route(None, "select 'a;b' ; select 2;"));
    check("show route  FOR shop select 1", route(target("shop", None), "select 1"));
    check("SHOW ROUTE FOR shop/app\nselect 1", route(target("shop", Some("app")), "select 1"));
    check("SHOW ROUTE FOR \"a b\"/\"c/d\" x", route(target("a b", Some("c/d")), "x"));
    check("SHOW ROUTE format('x')", route(None, "format('x')"));
    check("SHOW ROUTE /* c */ select 1", route(None, "/* c */ select 1"));
    for text in ["SHOW ROUTE", "SHOW ROUTE ", "SHOW ROUTE FOR shop", "SHOW ROUTE FOR shop/ select 1"] {
        check_invalid(text);
    }
}

#[test]
fn anything_else_is_answered_in_pgbouncers_words() {
    for text in [
        "",
        ";",
        "SELECT 1",
        "SHOW",
        "SHOW NOTHING",
        "SHOW POOLS;;",
        "SHOW POOLS; SHOW STATS",
        "SHOW POOLS x",
        "SHOWPOOLS",
        "SHOW\"POOLS\"",
        "RELOAD now",
        "PAUSE a b",
        "PAUSE \"a",
        "-- x",
        "explain select 1",
        "PAUSE a.b",
        "é",
        "SET é = 1",
    ] {
        check_invalid(text);
    }
}

#[test]
fn an_endless_command_is_cut_in_the_error() {
    let error = parse(&"é".repeat(10_000)).expect_err("not a command");
    assert!(error.to_string().len() < 1000);
}
