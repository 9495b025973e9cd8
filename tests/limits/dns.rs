//! Names of servers.

use crate::support::{Proxy, cluster};

/// Host names, as SHOW DNS_HOSTS lists them.
fn hosts(proxy: &Proxy) -> Vec<Vec<String>> {
    proxy.show("DNS_HOSTS").rows
}

#[test]
fn a_name_is_looked_up_once_and_shown_with_its_addresses() {
    let database = cluster().database();
    let server = format!("host=localhost port={} dbname={database}", cluster().primary.port);
    let proxy = Proxy::builder().section("databases", &database, server).set("dns_max_ttl", 1000).start();
    assert!(hosts(&proxy).is_empty());
    assert_eq!(proxy.session(&database).value("select 1"), "1");
    let rows = hosts(&proxy);
    let [name, ttl, addresses] = &rows[0][..] else { panic!("{rows:?}") };
    assert_eq!((rows.len(), name.as_str()), (1, "localhost"));
    assert!((900..=1000).contains(&ttl.parse::<u32>().unwrap()), "{ttl}");
    assert!(addresses.contains("127.0.0.1"), "{addresses}");
    assert_eq!(proxy.show("LISTS").number("list", "dns_names", "items"), 1);
}

#[test]
fn a_name_that_means_nothing_refuses_clients() {
    let server = "host=no-such-host.invalid dbname=x";
    let proxy = Proxy::builder().section("databases", "x", server).set("query_wait_timeout", 1).start();
    let mut client = crate::support::RawClient::connect(&proxy.address());
    client.log_in(&[("user", "app"), ("database", "x")], "").unwrap_err();
    assert_eq!(hosts(&proxy)[0][0], "no-such-host.invalid");
    assert_eq!(hosts(&proxy)[0][2], "");
}
