//! Figures for `/metrics` that other parts of the process keep: read when somebody scrapes.

use std::time::UNIX_EPOCH;

use super::{Proxy, served::Served, tables::tables};
use crate::{
    admin,
    clock::Clock,
    routing::{Health, Member},
    telemetry::metrics::{
        Sample,
        families::{self, Family},
    },
};

/// The figures of this moment.
pub(super) fn of(proxy: &Proxy) -> Vec<Sample> {
    let mut samples = process(proxy);
    for table in tables(proxy) {
        let labels = [("table", table.name)];
        samples.push(Sample::new(&families::TABLE_ENTRIES, &labels, table.entries as f64));
        if let Some(limit) = table.limit {
            samples.push(Sample::new(&families::TABLE_LIMIT, &labels, limit as f64));
        }
    }
    for served in proxy.installation.all() {
        let name = &*served.database.name;
        let clients = proxy.context.clients.iter().filter(|client| *client.database == *name).count();
        samples.push(Sample::new(&families::CLIENTS, &[("database", name)], clients as f64));
        let members = served.database.topology.members();
        samples.extend(members.iter().flat_map(|it| member(&served, it, proxy.context.clock)));
        pins(proxy, name, &mut samples);
    }
    if let Some(cache) = proxy.installation.result_cache() {
        let stats = cache.stats();
        let gauge = |family: &'static Family, value: u64| Sample::new(family, &[], value as f64);
        let fills = |outcome, value: u64| Sample::new(&families::CACHE_FILLS, &[("outcome", outcome)], value as f64);
        samples.extend([
            gauge(&families::CACHE_ENTRIES, stats.entries),
            gauge(&families::CACHE_BYTES, stats.bytes),
            gauge(&families::CACHE_CAPACITY, stats.capacity_bytes),
            fills("stored", stats.stored),
            fills("overtaken", stats.overtaken),
            fills("discarded", stats.discarded),
        ]);
    }
    samples
}

fn process(proxy: &Proxy) -> Vec<Sample> {
    let context = &proxy.context;
    let started = context.clock.wall(0).duration_since(UNIX_EPOCH).unwrap_or_default();
    let consoles = context.clients.iter().filter(|client| admin::DATABASES.contains(&&*client.database)).count();
    vec![
        Sample::new(&families::BUILD_INFO, &[("version", env!("CARGO_PKG_VERSION"))], 1.0),
        Sample::new(&families::START_TIME, &[], started.as_secs_f64()),
        Sample::new(&families::CLIENTS, &[("database", "pgbouncer")], consoles as f64),
        Sample::new(&families::STATEMENT_MEMO, &[], context.analyzer.len() as f64),
        Sample::new(&families::DIGESTS, &[], context.insight.shapes() as f64),
    ]
}

/// Connections that clients keep, by reason.
fn pins(proxy: &Proxy, database: &str, samples: &mut Vec<Sample>) {
    let pools = proxy.context.pools.all().into_iter().filter(|pool| *pool.key().database == *database);
    let pools: Vec<_> = pools.collect();
    let mut reasons = Vec::<(&str, u32)>::new();
    for (reason, count) in pools.iter().flat_map(|pool| pool.pin_counts()) {
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, sum)) => *sum += count,
            None => reasons.push((reason, count)),
        }
    }
    let sample = |(reason, count): (&str, u32)| {
        Sample::new(&families::PINNED, &[("database", database), ("reason", reason)], f64::from(count))
    };
    samples.extend(reasons.into_iter().map(sample));
}

fn member(served: &Served, member: &Member, clock: Clock) -> Vec<Sample> {
    let database = &served.database;
    let now = clock.now();
    let is_watched = served.control.get().is_some_and(|control| control.watches_members());
    let sample = |family: &'static Family, value: f64| {
        Sample::new(family, &[("database", &*database.name), ("member", &*member.name)], value)
    };
    let mut samples = vec![
        sample(&families::REPLICA_IN_FLIGHT, f64::from(member.state.in_flight())),
        sample(&families::MEMBER_REQUESTS, member.state.requests() as f64),
    ];
    // Nobody asks after the others.
    if is_watched {
        let is_up = member.state.health() == Health::Up && !member.state.is_banned(now);
        samples.push(sample(&families::REPLICA_UP, f64::from(u8::from(is_up))));
        if database.primary() != Some(member.id) {
            let lag = database.topology.lag(member.id, now).map_or(f64::NAN, |nanos| nanos as f64 / 1e9);
            samples.push(sample(&families::REPLICA_LAG, lag));
        }
    }
    samples
}
