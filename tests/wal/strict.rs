//! Strict reads see every write at once, wherever it came from.

use super::{
    TABLE, direct, is_hit, mark, proxied,
    support::{Proxy, cluster},
    wait_until, warm_up,
};

#[test]
fn a_strict_read_sees_a_direct_write_at_once_and_is_a_hit_where_nothing_was_written() {
    let (proxy, database) = proxied(TABLE);
    let mut writer = direct(cluster(), &database);
    let (mut by_hint, mut by_setting) = (proxy.session(&database), proxy.session(&database));
    by_setting.rows("set pgweir.cache_consistency = 'strict'");
    assert_eq!(by_setting.value("show pgweir.cache_consistency"), "strict");
    let hint = format!("select v from t /* pgweir: cache strict */ {}", mark());
    let plain = format!("select v from t {}", mark());
    warm_up(cluster(), &mut by_hint, &hint);
    warm_up(cluster(), &mut by_setting, &plain);
    for value in 1..=200 {
        writer.rows(&format!("update t set v = {value}"));
        assert_eq!(by_hint.value(&hint), value.to_string());
        assert_eq!(by_setting.value(&plain), value.to_string());
    }
    warm_up(cluster(), &mut by_hint, &hint);
    warm_up(cluster(), &mut by_setting, &plain);
    by_setting.rows("set pgweir.cache_consistency = 'normal'");
    warm_up(cluster(), &mut by_setting, &plain);
}

#[test]
fn where_direct_writes_are_not_heard_of_a_strict_read_is_never_answered_from_the_cache() {
    let database = cluster().database();
    cluster().prepare(&database, TABLE);
    cluster().log_statements(&database);
    let proxy = Proxy::of(cluster(), &database).cached().start();
    let mut session = proxy.session(&database);
    let read = format!("select v from t {}", mark());
    warm_up(cluster(), &mut session, &read);
    session.rows("set pgweir.cache_consistency = 'strict'");
    for _ in 0..3 {
        assert!(!is_hit(cluster(), &mut session, &read));
    }
    session.rows("reset pgweir.cache_consistency");
    wait_until("it is as before", || is_hit(cluster(), &mut session, &read));
    assert_eq!(proxy.show("CACHE").select("database", &database, "direct_writes"), ["ttl"]);
}

#[test]
fn a_strict_read_goes_to_the_primary_where_it_is_no_hit() {
    let database = super::published(cluster(), TABLE);
    let builder = super::hearing(cluster(), &database);
    let replicas = [(&cluster().replicas[0], 1), (&cluster().replicas[1], 1)];
    let proxy = super::started(builder.replicas(&database, &replicas), &database);
    let mut session = proxy.session(&database);
    let mut writer = direct(cluster(), &database);
    for value in 1..=30 {
        writer.rows(&format!("update t set v = {value}"));
        let read = format!("select v from t /* pgweir: cache strict */ {}", mark());
        assert_eq!(session.value(&read), value.to_string(), "no replica may be asked");
    }
}
