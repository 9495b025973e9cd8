//! Somebody else writes to Redis: whatever he puts there, nobody is answered with it.

use redis::Connection;

use super::{
    Figures, TABLE, mark, shared, succeed,
    support::{Proxy, RawClient, Redis},
    wait_until,
};

/// A proxy, its Redis, and who has it in his hand.
struct Bed {
    redis: Redis,
    proxy: Proxy,
    session: RawClient,
    figures: Figures,
    attacker: Connection,
    database: String,
}

fn bed(schema: &str) -> Bed {
    let redis = Redis::start();
    let (proxy, database) = shared(&redis.url(), schema);
    let proxy = proxy.start();
    let (session, mut figures) = (proxy.session(&database), Figures::of(&proxy, &database));
    figures.wait_for_state("up");
    let attacker = redis.client();
    Bed { redis, proxy, session, figures, attacker, database }
}

impl Bed {
    /// Under which name the answer to this question lies now.
    fn name_of(&mut self, sql: &str) -> String {
        let mut name = None;
        wait_until("the answer lies in Redis", || {
            self.redis.command("FLUSHALL");
            self.session.rows(sql);
            let names: Vec<String> = redis::cmd("KEYS").arg("pgweir:*").query(&mut self.attacker).unwrap();
            name = names.first().filter(|_| names.len() == 1).cloned();
            name.is_some() && self.get(name.as_deref().unwrap_or_default()).len() > 90
        });
        name.unwrap()
    }

    fn get(&mut self, name: &str) -> Vec<u8> {
        redis::cmd("GET").arg(name).query(&mut self.attacker).unwrap()
    }

    fn put(&mut self, name: &str, value: &[u8]) {
        redis::cmd("SET").arg(name).arg(value).arg("PX").arg(50_000).exec(&mut self.attacker).unwrap();
    }

    /// The question is answered rightly, and what lies there was looked at and refused.
    #[track_caller]
    fn check_refused(&mut self, what: &str, sql: &str, expected: &[Vec<String>], mut put: impl FnMut(&mut Self)) {
        let before = self.figures.number("shared_refused");
        // What the proxy itself stores may come between.
        wait_until(&format!("{what} is refused"), || {
            put(self);
            let rows = self.session.rows(sql);
            assert_eq!(rows, expected, "{what}");
            self.figures.number("shared_refused") > before
        });
    }
}

#[test]
fn no_byte_of_a_value_can_be_changed() {
    let mut bed = bed(TABLE);
    let sql = format!("select id, v from t {}", mark());
    let name = bed.name_of(&sql);
    let whole = bed.get(&name);
    println!("a value of {} bytes", whole.len());
    let expected = [vec!["1".to_owned(), "0".to_owned()]];
    for at in 0..whole.len() {
        let mut forged = whole.clone();
        forged[at] ^= 1 << (at % 8);
        bed.check_refused(&format!("byte {at}"), &sql, &expected, |bed| bed.put(&name, &forged));
    }
    for length in [1, 63, 64, 95, 96, whole.len() - 1] {
        bed.check_refused(&format!("{length} bytes"), &sql, &expected, |bed| bed.put(&name, &whole[..length]));
    }
    let longer = [&whole[..], b"x"].concat();
    bed.check_refused("one byte more", &sql, &expected, |bed| bed.put(&name, &longer));
    bed.check_refused("16 MB of nothing", &sql, &expected, |bed| bed.put(&name, &vec![0; 16 << 20]));
    bed.check_refused("a value that stays for ever", &sql, &expected, |bed| {
        bed.put(&name, &whole);
        redis::cmd("PERSIST").arg(&name).exec(&mut bed.attacker).unwrap();
    });
    let refused = |reason: &str| {
        bed.proxy.metrics().sum("pgweir_cache_shared_refused_total", &[&*format!("reason=\"{reason}\"")])
    };
    println!("format {}, forged {}, lifetime {}", refused("format"), refused("forged"), refused("lifetime"));
    assert!(refused("format") > 0.0 && refused("forged") > 0.0 && refused("lifetime") > 0.0);
    bed.put(&name, &whole);
    assert_eq!(bed.figures.read_from_redis(&mut bed.session, &sql), "1", "the true one is still taken");
}

#[test]
fn values_that_change_places_answer_nobody() {
    let mut bed = bed("create table t(id int primary key, v int); insert into t values (1, 10), (2, 20)");
    let (first, second) = ("select v from t where id = 1", "select v from t where id = 2");
    let one = bed.name_of(first);
    let one_value = bed.get(&one);
    let two = bed.name_of(second);
    let two_value = bed.get(&two);
    assert_ne!(one, two);
    bed.check_refused("the second's", first, &[vec!["10".to_owned()]], |bed| bed.put(&one, &two_value));
    bed.check_refused("the first's", second, &[vec!["20".to_owned()]], |bed| bed.put(&two, &one_value));
    let swapped = bed.proxy.metrics().sum("pgweir_cache_shared_refused_total", &["reason=\"swapped\""]);
    assert!(swapped >= 2.0);
}

#[test]
fn an_answer_of_before_a_write_cannot_be_put_in_the_place_of_the_new_one() {
    let mut bed = bed(TABLE);
    let sql = "select v from t";
    let before = bed.name_of(sql);
    let old = bed.get(&before);
    let mut writer = bed.proxy.session(&bed.database);
    succeed(&mut writer, "update t set v = 1");
    let now = bed.name_of(sql);
    assert_ne!(before, now, "the stamps are part of the name");
    let expected = [vec!["1".to_owned()]];
    bed.check_refused("the old answer", sql, &expected, |bed| bed.put(&now, &old));
    bed.put(&before, &old);
    for _ in 0..20 {
        assert_eq!(bed.session.rows(sql), expected, "nobody asks for the old name");
    }
}
