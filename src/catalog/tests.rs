//! Tables of statements and what they mean in a database made by hand.

use super::*;

mod heard;
mod keyed;
mod labels;
mod paths;
mod reading;
mod scoped;
mod session;
mod sharing;
mod world;
mod writing;

use world::{Builder, World};

/// Tables, views and functions that most cases share.
fn shop() -> World {
    let mut shop = Builder::new();
    let users = shop.table("users");
    let orders = shop.table("orders");
    shop.table("items");
    let (now, lower) = (shop.builtin("now"), shop.builtin("lower"));
    shop.view("active_users", &format!("{{RTE :relid {users}}} {{OPEXPR :opfuncid {lower}}}"));
    shop.view("recent", &format!(":relid {orders} {{FUNCEXPR :funcid {now} :args <>}}"));
    shop.view("stats_view", ":relid 12100");
    let volatile = shop.function("charge", 'v', "plpgsql", 1).oid;
    shop.view("hidden_write", &format!(":relid {users} :funcid {volatile}"));
    shop.view("dated", &format!(":relid {users} {{SQLVALUEFUNCTION :op 0 :type 1082}}"));
    shop.view("locking", &format!(":relid {users} {{ROWMARKCLAUSE :rti 1}}"));
    shop.relation("cache_table", 'r').persistence = 'u';
    shop.relation("secrets", 'r').row_security = true;
    shop.relation("typed", 'r').unstable_columns = true;
    shop.relation("remote", 'f');
    shop.relation("ids", 'S');
    shop.relation("totals", 'm');
    let events = shop.relation("events", 'p').oid;
    shop.partition("events_2024", events);
    shop.partition("events_2025", events);
    shop.table_in(world::TENANT, "users");
    shop.function("plus_one", 'i', "sql", 1);
    shop.function("guess", 'i', "plpgsql", 1);
    shop.function("looks_up", 's', "plpgsql", 1);
    shop.function("uuid_generate_v4", 'v', "c", 0);
    shop.function("dblink_exec", 'v', "c", 2);
    shop.function("counted", 's', "sql", 1).body = Some(format!(":relid {orders}"));
    shop.function("row_charge", 'v', "plpgsql", 1).takes_row = true;
    shop.function("many", 'a', "internal", 1).kind = 'a';
    shop.function("pure", 'v', "plpgsql", 0).source = Some("BEGIN RETURN 1; END".into());
    shop.type_row(40_000, "mood", world::PUBLIC, 'e');
    shop.build()
}

#[track_caller]
fn check(rows: &[(&str, &str)], ask: impl Fn(&str) -> String) {
    let wrong: Vec<String> = rows
        .iter()
        .map(|(sql, expected)| (sql, expected, ask(sql)))
        .filter(|(_, expected, found)| *expected != found)
        .map(|(sql, expected, found)| format!("{sql}\n    expected {expected:?}, found {found:?}"))
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn lists_of_builtin_functions_are_sorted_for_binary_search() {
    for list in builtin::lists() {
        assert!(list.is_sorted(), "{list:?}");
    }
}
