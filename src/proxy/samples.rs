//! Figures for `/metrics` that other parts of the process keep: read when somebody scrapes.

use std::time::UNIX_EPOCH;

use super::{Proxy, served::Served, tables::tables};
use crate::{
    admin,
    cache::shared::{Cause, Reading, Refusal, SharedStats, Writing},
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
        if served.database.caches() || served.database.observes() {
            samples.extend(voids(&served, proxy.context.clock.now()));
        }
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
            Sample::new(&families::CACHE_EVICTIONS, &[("cause", "size")], stats.evicted as f64),
            Sample::new(&families::CACHE_WOULD_SAVE, &[], stats.saved as f64 / 1e9),
        ]);
        samples.extend(cache.shared_stats().iter().flat_map(level_two));
    }
    samples
}

fn level_two(stats: &SharedStats) -> Vec<Sample> {
    let sample = |family: &'static Family, label: &'static str, value: &'static str, count: u64| {
        Sample::new(family, &[(label, value)], count as f64)
    };
    let mut samples = vec![Sample::new(&families::CACHE_SHARED_UP, &[], f64::from(u8::from(stats.refusal.is_none())))];
    samples.extend(
        Reading::ALL
            .iter()
            .zip(stats.readings)
            .map(|(reading, count)| sample(&families::CACHE_SHARED_READS, "outcome", reading.label(), count)),
    );
    samples.extend(
        Writing::ALL
            .iter()
            .zip(stats.writings)
            .map(|(writing, count)| sample(&families::CACHE_SHARED_WRITES, "outcome", writing.label(), count)),
    );
    samples.extend(
        Refusal::ALL
            .iter()
            .zip(stats.refusals)
            .map(|(refusal, count)| sample(&families::CACHE_SHARED_REFUSED, "reason", refusal.label(), count)),
    );
    samples.extend(
        Cause::ALL
            .iter()
            .zip(stats.openings)
            .map(|(cause, count)| sample(&families::CACHE_SHARED_OPENINGS, "reason", cause.label(), count)),
    );
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

/// What voids answers, and how well writes that bypass the proxy are known.
fn voids(served: &Served, now: u64) -> Vec<Sample> {
    let database = &served.database;
    let name = ("database", &*database.name);
    let voids =
        database.cells.voids().by_source().map(|(source, count)| {
            Sample::new(&families::CACHE_INVALIDATIONS, &[name, ("source", source)], count as f64)
        });
    let mut samples = Vec::from(voids);
    if database.settings.direct.is_some() {
        let figures = database.real.direct.figures();
        let age = |since: u64| now.saturating_sub(since) as f64 / 1e9;
        let gauges = [
            (&families::WAL_STREAM_LAG, figures.behind_since.map_or(0.0, age)),
            (&families::WAL_HORIZON_AGE, figures.horizon.map_or(f64::NAN, age)),
            (&families::WAL_GAPS, figures.gaps as f64),
            (&families::WAL_WAITING, figures.waiting as f64),
        ];
        samples.extend(gauges.map(|(family, value)| Sample::new(family, &[name], value)));
    }
    if let Some(bus) = database.real.bus() {
        let figures = bus.figures();
        samples.push(Sample::new(&families::BUS_PEERS, &[name], figures.peers as f64));
        let round_trip = figures.round_trip.map_or(f64::NAN, |nanos| nanos as f64 / 1e9);
        samples.push(Sample::new(&families::BUS_ROUND_TRIP, &[name], round_trip));
        let messages = [("told", figures.told), ("heard", figures.heard)];
        let message = |(direction, count)| (&families::BUS_MESSAGES, ("direction", direction), count);
        let events =
            [("gap", figures.gaps), ("fenced", figures.fenced), ("lost", figures.lost), ("adopted", figures.adopted)];
        let event = |(event, count)| (&families::BUS_EVENTS, ("event", event), count);
        let all = messages.map(message).into_iter().chain(events.map(event));
        samples.extend(all.map(|(family, label, count)| Sample::new(family, &[name, label], count as f64)));
    }
    samples
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
        if database.primary() != Some(member.id) && !database.topology.takes_writes(member.id) {
            let lag = database.topology.lag(member.id, now).map_or(f64::NAN, |nanos| nanos as f64 / 1e9);
            samples.push(sample(&families::REPLICA_LAG, lag));
        }
    }
    samples
}
