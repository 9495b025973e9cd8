//! What both benchmarks repeat: the steps that the proxy's own code takes for every query, without sockets and servers.
//!
//! Only the state in which a busy proxy is nearly always: the shape is known, a replica is fresh, the answer is held.
//! Each operation proves that once while it is prepared, so that nobody measures a miss and takes it for a hit.

use std::{
    fmt,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use pgweir::{
    cache::{Cells, Lookup, ResultCache},
    catalog::{Access, RelationOid, RelationRow, RoleRow, SchemaRow, Snapshot, SnapshotRows},
    config::PrimaryReads,
    insight::{CacheOutcome, Insight, InsightSettings, RequestRecord, Route, Work},
    lsn::Lsn,
    pool::wait_queue::{CheckOut, Grant, Shape, WaitQueue},
    protocol::{TransactionStatus, backend, frontend, frontend::Target},
    routing::{
        Demand, Fence, Health, Limits, Member, MemberId, MemberState, PrimarySamples, Role, RouteReason, Sample,
        Topology,
    },
    session::{
        Expected, Replies, Reply, RequestKind, Verdict,
        request::{Scan, scan},
    },
    sql::{Analyzer, Statement},
    telemetry::metrics::Metrics,
};

mod queries;

const SECOND: u64 = 1_000_000_000;
/// The user of every session here.
const USER: &str = "app";

/// One step of a query's way.
#[derive(Clone, Copy)]
pub(crate) struct Operation {
    /// The word in the output and in the file of figures.
    pub(crate) name: &'static str,
    /// Makes what it needs. The result does it once, given how often it was done before.
    pub(crate) prepare: fn() -> Box<dyn FnMut(usize)>,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// All of them, in the order of a query's way.
pub(crate) const OPERATIONS: &[Operation] = &[
    Operation { name: "scan_simple", prepare: scan_simple },
    Operation { name: "scan_extended", prepare: scan_extended },
    Operation { name: "analyze_short", prepare: || analyze(queries::SHORT) },
    Operation { name: "analyze_long", prepare: || analyze(queries::LONG) },
    Operation { name: "meaning", prepare: meaning },
    Operation { name: "cache_hit", prepare: cache_hit },
    Operation { name: "choose_replica", prepare: choose_replica },
    Operation { name: "pool_idle", prepare: pool_idle },
    Operation { name: "pool_contended", prepare: pool_contended },
    Operation { name: "replies_simple", prepare: replies_simple },
    Operation { name: "replies_extended", prepare: replies_extended },
    Operation { name: "observe", prepare: observe },
];

fn scan_simple() -> Box<dyn FnMut(usize)> {
    let mut bytes = Vec::new();
    frontend::put_query(&mut bytes, &queries::SHORT.with_literal(1));
    scan_of(bytes, RequestKind::Simple)
}

/// A prepared statement's execution, as drivers send it.
fn scan_extended() -> Box<dyn FnMut(usize)> {
    let mut bytes = Vec::new();
    frontend::put_bind_plain(&mut bytes, b"", b"P0_1");
    frontend::put_describe(&mut bytes, Target::Portal, b"");
    frontend::put_execute(&mut bytes, b"");
    frontend::put_sync(&mut bytes);
    scan_of(bytes, RequestKind::Sync)
}

fn scan_of(bytes: Vec<u8>, kind: RequestKind) -> Box<dyn FnMut(usize)> {
    assert!(matches!(scan(&bytes, &mut 0), Ok(Scan::Whole(request)) if request.kind == kind));
    Box::new(move |_| {
        black_box(scan(black_box(&bytes), &mut 0)).ok();
    })
}

/// A shape that is known, with another literal each time.
fn analyze(query: queries::Query) -> Box<dyn FnMut(usize)> {
    let analyzer = Analyzer::with_seed(1000, 7);
    let texts = query.with_literals();
    for text in &texts {
        assert!(analyzer.analyze(text).parsed);
    }
    assert_eq!(analyzer.len(), 1, "literals make no shape");
    Box::new(move |turn| {
        let text = texts.get(turn % texts.len()).map_or("", String::as_str);
        black_box(analyzer.analyze(black_box(text)));
    })
}

fn meaning() -> Box<dyn FnMut(usize)> {
    let snapshot = snapshot();
    let statement: Arc<Statement> = Analyzer::with_seed(1000, 7).analyze(&queries::SHORT.with_literal(1));
    // A session looks its search path up once per catalog.
    let path = snapshot.path_of(USER);
    let found = snapshot.meaning_along(&statement, path);
    assert!(found.access == Access::Read && found.cacheable.is_ok(), "{}", found.reason.label());
    Box::new(move |_| {
        black_box(snapshot.meaning_along(black_box(&statement), black_box(path)));
    })
}

/// A database with the tables of pgbench.
fn snapshot() -> Snapshot {
    let schema = |oid, name: &str| SchemaRow { oid, name: name.into(), users: vec![0] };
    let table = |oid, name: &str| RelationRow {
        oid,
        name: name.into(),
        schema: 2200,
        kind: 'r',
        persistence: 'p',
        row_security: false,
        generated_columns: false,
        unstable_columns: false,
        row_type: 0,
        security_invoker: false,
    };
    Snapshot::new(SnapshotRows {
        database_oid: 5,
        server_version_num: 150_000,
        utf8: true,
        search_path: Some("\"$user\", public".into()),
        isolation: Some("read committed".into()),
        schemas: vec![schema(11, "pg_catalog"), schema(2200, "public")],
        roles: vec![RoleRow { oid: 16_400, name: USER.into(), superuser: false }],
        relations: vec![
            table(16_384, "pgbench_accounts"),
            table(16_385, "pgbench_branches"),
            table(16_386, "pgbench_tellers"),
            table(16_387, "pgbench_history"),
        ],
        ..SnapshotRows::default()
    })
}

fn cache_hit() -> Box<dyn FnMut(usize)> {
    const TABLE: RelationOid = RelationOid(16_384);
    let cache = ResultCache::new(1 << 20, 1 << 16);
    let cells = Arc::new(Cells::new(1, 1));
    let key = queries::SHORT.with_literal(1).into_bytes();
    let epoch = cells.catalog_epoch();
    let Lookup::Miss(mut fill) = cache.lookup(&key, &cells, &[TABLE], epoch, SECOND) else {
        unreachable!("an empty cache holds nothing")
    };
    fill.feed(&answer());
    fill.commit(b'I', Some(60 * SECOND), SECOND);
    assert!(matches!(cache.lookup(&key, &cells, &[TABLE], epoch, 2 * SECOND), Lookup::Hit(_)));
    Box::new(move |_| {
        black_box(cache.lookup(black_box(&key), &cells, black_box(&[TABLE]), epoch, 2 * SECOND));
    })
}

/// One row, as a server sends it.
fn answer() -> Vec<u8> {
    let mut bytes = Vec::new();
    backend::put_text_description(&mut bytes, "abalance");
    backend::put_data_row(&mut bytes, &[Some("0")]);
    backend::put_command_complete(&mut bytes, "SELECT 1");
    bytes.extend_from_slice(backend::ready_for_query(TransactionStatus::Idle));
    bytes
}

/// Two replicas of different weight have replayed the session's last write.
fn choose_replica() -> Box<dyn FnMut(usize)> {
    const PRIMARY: MemberId = MemberId(0);
    let member = |id, role, weight, in_recovery| {
        let state = Arc::new(MemberState::default());
        state.set_health(Health::Up);
        state.set_in_recovery(in_recovery);
        Member { id, name: "member".into(), weight, max_lag: None, role, state }
    };
    let members = vec![
        member(PRIMARY, Role::Any, 1, false),
        member(MemberId(1), Role::Replica, 2, true),
        member(MemberId(2), Role::Replica, 1, true),
    ];
    let limits = Limits {
        max_lag: 10 * SECOND,
        sample_interval: SECOND,
        primary_reads: PrimaryReads::Fallback,
        wait_for_lsn: 0,
    };
    let topology = Topology::new(members, limits, PrimarySamples::new(64));
    topology.set_primary(Some(PRIMARY));
    topology.note_primary_sample(PRIMARY, Sample { sent_at: 2 * SECOND, lsn: Lsn::new(1 << 24) });
    for replica in [MemberId(1), MemberId(2)] {
        topology.note_replica_sample(replica, 2 * SECOND + 1, 2 * SECOND + 1, Lsn::new(1 << 24));
    }
    let (demand, now) = (Demand::fenced(Fence::after(SECOND)), 3 * SECOND);
    assert_eq!(topology.choose(&demand, now).reason, RouteReason::Replica);
    Box::new(move |_| {
        black_box(topology.choose(black_box(&demand), black_box(now)));
    })
}

/// A queue of so many connections, all of them idle.
fn queue(size: u32) -> WaitQueue<u32> {
    let size_of_pool = size as usize;
    let mut queue = WaitQueue::new(Shape {
        size: size_of_pool,
        reserve: 0,
        reserve_after: 0,
        max_opening: size_of_pool,
        is_round_robin: false,
    });
    for _ in 0..size {
        assert!(matches!(queue.enlist(0, |_| true), CheckOut::Granted(Grant::Open { .. })));
        queue.opened();
    }
    (0..size).for_each(|server| queue.check_in(server));
    queue
}

/// Takes an idle connection and gives it back; nobody waits.
fn pool_idle() -> Box<dyn FnMut(usize)> {
    let mut queue = queue(16);
    Box::new(move |_| {
        let checked_out = queue.take_rested(|server| black_box(*server).is_multiple_of(2));
        if let Some(server) = black_box(checked_out) {
            queue.check_in(server);
        }
        black_box(queue.next_grant(|_| true));
    })
}

/// Waits in line for the only connection, gets it when it comes back, and so on.
fn pool_contended() -> Box<dyn FnMut(usize)> {
    let mut queue = queue(1);
    assert_eq!(queue.take_rested(|_| true), Some(0));
    for _ in 0..8 {
        assert!(matches!(queue.enlist(0, |_| true), CheckOut::Wait(_)));
    }
    Box::new(move |_| {
        assert_eq!(black_box(queue.take_rested(|_| true)), None);
        black_box(queue.enlist(0, |_| true));
        queue.check_in(0);
        black_box(queue.next_grant(|_| true));
    })
}

fn replies_simple() -> Box<dyn FnMut(usize)> {
    use backend::tag::{COMMAND_COMPLETE, DATA_ROW, READY_FOR_QUERY, ROW_DESCRIPTION};
    replies(&[Expected::Query], &[ROW_DESCRIPTION, DATA_ROW, COMMAND_COMPLETE, READY_FOR_QUERY])
}

fn replies_extended() -> Box<dyn FnMut(usize)> {
    use backend::tag::{BIND_COMPLETE, COMMAND_COMPLETE, DATA_ROW, READY_FOR_QUERY, ROW_DESCRIPTION};
    replies(
        &[Expected::Bind, Expected::Describe, Expected::Execute, Expected::Sync],
        &[BIND_COMPLETE, ROW_DESCRIPTION, DATA_ROW, COMMAND_COMPLETE, READY_FOR_QUERY],
    )
}

/// Queues what is expected and takes what the server says. Rows are judged once for the run of them.
fn replies(expected: &'static [Expected], said: &'static [u8]) -> Box<dyn FnMut(usize)> {
    let mut replies = Replies::default();
    let mut exchange = move || {
        for message in black_box(expected) {
            replies.push(Reply::forward(*message));
        }
        let mut last = Verdict::OutOfSync;
        for tag in black_box(said) {
            last = match *tag {
                backend::tag::DATA_ROW => replies.row_verdict(),
                backend::tag::READY_FOR_QUERY => replies.on_backend(*tag, Some(TransactionStatus::Idle)),
                tag => replies.on_backend(tag, None),
            };
            black_box(last);
        }
        (last, replies.is_empty())
    };
    assert_eq!(exchange(), (Verdict::Ready(TransactionStatus::Idle), true));
    Box::new(move |_| {
        black_box(exchange());
    })
}

fn observe() -> Box<dyn FnMut(usize)> {
    let settings = InsightSettings::default();
    let insight = Insight::new(&settings, &Arc::new(Metrics::new()), Instant::now()).expect("there is no file to open");
    let account = insight.account("bench", USER);
    let statement = Analyzer::with_seed(1000, 7).analyze(&queries::SHORT.with_literal(1));
    let member: Arc<str> = "bench.r1".into();
    let observe = move |insight: &Insight| {
        insight.observe(&RequestRecord {
            account: &account,
            fingerprint: statement.fingerprint,
            normalized: &statement.normalized,
            route: Route::Replica,
            route_reason: RouteReason::Replica.label(),
            member: Some(&member),
            cache: CacheOutcome::Off,
            cache_reason: "off",
            absence: None,
            queue: Duration::from_micros(3),
            server: Duration::from_micros(150),
            total: Duration::from_micros(200),
            rows: 1,
            received: 60,
            sent: 70,
            work: Work { assignments: 1, transactions: 1, ..Work::default() },
            sqlstate: None,
            ended: SystemTime::UNIX_EPOCH,
        });
    };
    observe(&insight);
    assert_eq!(insight.shapes(), 1);
    Box::new(move |_| observe(black_box(&insight)))
}
