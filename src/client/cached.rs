//! Answers from the cache.

use std::{ops::Range, sync::Arc, time::Duration};

use super::{
    Client,
    again::Again,
    cache_wait::{On, Waiting, patience},
    facts::{Boundary, Facts},
    fills::{Fill, Fills},
    pending::Pending,
    rows::{self, Bound},
    session::{Located, Step},
};
use crate::{
    cache::{
        CatalogEpoch, Entry, FillGuard, KeyBuffer, KeyPrefix, Lookup, ResultCache,
        invalidation::{Deps, Uncaptured},
    },
    catalog::{Meaning, Row},
    insight::{Absence, CacheOutcome, Route, Work},
    lsn::Lsn,
    protocol::{TransactionStatus, backend, frontend},
    routing::{Fence, Freshness},
    session::{
        Prepared,
        request::{Request, RequestKind},
    },
    sql::{Statement, names_the_clock},
};

/// Whether the answer will be kept.
#[derive(Debug)]
pub(super) struct FillPlan {
    pub fills: Option<Fills>,
    pub outcome: CacheOutcome,
    pub reason: &'static str,
    /// Why there was no answer, if it was asked for.
    pub absence: Option<Absence>,
    /// Others were waited for, in vain: nothing that was so when the request came counts any more.
    pub has_waited: bool,
}

impl FillPlan {
    /// It will not.
    pub(super) fn none(reason: &'static str) -> Self {
        Self { fills: None, outcome: CacheOutcome::Bypass, reason, absence: None, has_waited: false }
    }

    /// There is no cache.
    pub(super) fn off() -> Self {
        Self { outcome: CacheOutcome::Off, ..Self::none("off") }
    }

    /// It will, unless something else happens.
    pub(super) fn keeping(fill: Box<FillGuard>, ttl: Option<u64>) -> Self {
        let absence = Some(fill.absence());
        Self::of_batch(Fills::One(Fill { guard: fill, ttl }), absence)
    }

    /// Those of several statements will.
    pub(super) fn of_batch(fills: Fills, absence: Option<Absence>) -> Self {
        Self { fills: Some(fills), outcome: CacheOutcome::Miss, reason: "miss", absence, has_waited: false }
    }

    /// Hardly any answer of its shape is asked for again.
    pub(super) fn seldom_repeated() -> Self {
        Self { outcome: CacheOutcome::Miss, ..Self::none("seldom_repeated") }
    }

    /// The server keeps what the client will ask for later.
    pub(super) fn too_long() -> Self {
        Self::none("row_limit")
    }

    /// The next reader of the same text may not accept what this one does.
    pub(super) fn of_stale_read(absence: Absence) -> Self {
        Self { outcome: CacheOutcome::Miss, absence: Some(absence), ..Self::none("stale_read") }
    }

    /// What a replica must have replayed to bring it; where it is only looked at, it may come from anywhere.
    pub(super) fn fence(&self) -> Option<Fence> {
        self.fills.as_ref().and_then(Fills::fence)
    }
}

/// What the cache said.
pub(super) enum Asked {
    /// The client has its answer.
    Answered,
    /// A server must be asked.
    Fill(FillPlan),
    /// Somebody else may have it in a moment.
    Wait(Box<Waiting>),
    /// There is an answer, once it is known that no write has made it void.
    Settle,
}

/// A session that reads strictly waits no longer than this for the primary's word; then the primary answers itself.
const LONGEST_BARRIER: Duration = Duration::from_secs(1);

/// How a request that can be answered from the cache is put together.
pub(super) struct Shape {
    /// `Close` messages in front of it; what they name is nobody's but the client's.
    closes: usize,
    parses: bool,
    binds: bool,
    is_described: bool,
    /// It takes so many rows and asks for the others later, if there are any.
    max_rows: Option<u64>,
}

impl Shape {
    const SIMPLE: Self = Self { closes: 0, parses: false, binds: false, is_described: true, max_rows: None };

    /// Is that the whole answer to it? Of exactly as many rows as it takes, PostgreSQL says that there may be more.
    pub(super) fn takes_all(&self, rows: u64) -> bool {
        self.max_rows.is_none_or(|max| rows < max)
    }

    /// What the server would say to such messages, up to where it is ready again.
    pub(super) fn put_answer(&self, out: &mut Vec<u8>, entry: &Entry) {
        for _ in 0..self.closes {
            out.extend_from_slice(backend::CLOSE_COMPLETE);
        }
        if self.parses {
            out.extend_from_slice(backend::PARSE_COMPLETE);
        }
        if self.binds {
            out.extend_from_slice(backend::BIND_COMPLETE);
        }
        if let Some(description) = &entry.row_description {
            out.extend_from_slice(description);
        }
        out.extend_from_slice(&entry.rows);
        out.extend_from_slice(&entry.command_complete);
    }
}

/// One statement of an extended request, as it may be answered from the cache.
pub(super) struct Laid<'a> {
    pub shape: Shape,
    pub prepared: &'a Arc<Prepared>,
    pub bind: &'a Range<usize>,
    pub portal_is_unnamed: bool,
    /// What stands behind it.
    pub rest: &'a [Located],
}

impl<'a> Laid<'a> {
    /// `[Close]… [Parse] Bind [Describe portal] Execute` in front of these: of one statement and one portal.
    pub(super) fn first(steps: &'a [Located]) -> Option<Self> {
        let is_close = |it: &Located| matches!(it.step, Step::CloseStatement { .. } | Step::CloseOther);
        let closes = steps.iter().take_while(|it| is_close(it)).count();
        let (parsed, steps) = match steps.get(closes..)? {
            [Located { step: Step::Parse { prepared, is_taken: false, .. }, .. }, rest @ ..] => (Some(prepared), rest),
            rest => (None, rest),
        };
        let [Located { step: Step::Bind { prepared: Some(prepared), portal_is_unnamed, .. }, range }, steps @ ..] =
            steps
        else {
            return None;
        };
        // An answer says that its own statement can be parsed, and nothing of another one.
        if parsed.is_some_and(|parsed| !Arc::ptr_eq(parsed, prepared)) {
            return None;
        }
        let (is_described, steps) = match steps {
            [Located { step: Step::DescribePortal { is_bound_last: true }, .. }, rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        let [Located { step: Step::Execute { max_rows, is_bound_last: true, .. }, .. }, rest @ ..] = steps else {
            return None;
        };
        // A limit that is not positive is none.
        let max_rows = u64::try_from(*max_rows).ok().filter(|max| *max > 0);
        let shape = Shape { closes, parses: parsed.is_some(), binds: true, is_described, max_rows };
        Some(Self { shape, prepared, bind: range, portal_is_unnamed: *portal_is_unnamed, rest })
    }

    /// Is nothing behind it but `Sync`?
    pub(super) fn is_last(&self) -> bool {
        matches!(self.rest, [Located { step: Step::Sync, .. }])
    }
}

/// A request that may be answered from the cache; its key is built.
pub(super) struct Asking {
    pub cache: Arc<ResultCache>,
    shape: Shape,
    pub ttl: Option<u64>,
    pub epoch: CatalogEpoch,
}

impl Asking {
    /// Is that the whole answer to it?
    pub(super) fn takes_all(&self, entry: &Entry) -> bool {
        self.shape.takes_all(entry.row_count)
    }
}

/// What level one says.
pub(super) enum Said {
    /// The client has its answer.
    Answered,
    /// There is one, of more rows than the client takes at once.
    TooLong,
    /// Somebody has to bring it.
    Missing(Box<FillGuard>),
    /// Nobody may.
    Refused(Uncaptured),
}

impl Client {
    /// Answers a request from the cache, or says what becomes of the answer.
    pub(super) fn ask_cache(&mut self, request: Request, facts: &Facts) -> Asked {
        self.ask_cache_once(request, facts, false)
    }

    /// As [`Self::ask_cache`], behind [`Asked::Settle`]: first it is made sure that every write that anybody can see has
    /// voided what it must.
    pub(super) async fn ask_cache_strictly(&mut self, request: Request, facts: &Facts) -> Asked {
        let database = Arc::clone(&self.session.database);
        let bound = database.settings.direct.as_ref().map(|direct| Duration::from_nanos(direct.max_staleness));
        let is_settled = database.real.direct.barrier(bound.unwrap_or_default().min(LONGEST_BARRIER)).await;
        match is_settled {
            true => self.ask_cache_once(request, facts, true),
            false => Asked::Fill(FillPlan::none("strict_timeout")),
        }
    }

    fn ask_cache_once(&mut self, request: Request, facts: &Facts, is_settled: bool) -> Asked {
        if facts.executed > 1 && request.kind == RequestKind::Sync {
            return match self.look_up_batch(request, facts) {
                Ok(batch) => self.answer_batch(request, facts, batch).map_or(Asked::Answered, Asked::Fill),
                Err(plan) => Asked::Fill(plan),
            };
        }
        let asking = match self.asking(request, facts) {
            Ok(asking) => asking,
            Err(plan) => return Asked::Fill(plan),
        };
        if !self.is_admitted(request, facts, &asking) {
            return Asked::Fill(FillPlan::seldom_repeated());
        }
        if asking.cache.observes() {
            return Asked::Fill(self.observe_cache(request, facts, &asking));
        }
        if !is_settled && self.is_strict(facts) && self.is_held(&asking) {
            return Asked::Settle;
        }
        match self.look_up(request, facts, &asking, self.request_started) {
            Said::Answered => Asked::Answered,
            Said::TooLong => Asked::Fill(FillPlan::too_long()),
            Said::Refused(refusal) => Asked::Fill(FillPlan::none(refusal.label())),
            Said::Missing(fill) => self.plan(fill, facts, asking),
        }
    }

    /// May the cache be asked? Builds the key if so.
    pub(super) fn asking(&mut self, request: Request, facts: &Facts) -> Result<Asking, FillPlan> {
        let cache = self.cache_to_ask()?;
        let (shape, ttl) = self.cacheable_shape(request, facts).map_err(FillPlan::none)?;
        let epoch = facts.epoch.ok_or_else(|| FillPlan::none("catalog_not_loaded"))?;
        match self.build_key(request, facts, &shape) {
            true => Ok(Asking { cache, shape, ttl, epoch }),
            false => Err(FillPlan::none("parameters")),
        }
    }

    /// The cache, if there is one that answers or observes.
    pub(super) fn cache_to_ask(&self) -> Result<Arc<ResultCache>, FillPlan> {
        let database = &self.session.database;
        database.cache.clone().or_else(|| database.observed.clone()).ok_or_else(FillPlan::off)
    }

    /// Is that worth looking up?
    pub(super) fn is_admitted(&self, request: Request, facts: &Facts, asking: &Asking) -> bool {
        let Some(statement) = &facts.statement else { return true };
        self.is_admitted_as(&asking.cache, statement, || self.depends_on(request, facts))
    }

    /// Is the question whose key was built last, of this statement, worth looking up?
    pub(super) fn is_admitted_as<'a>(
        &self,
        cache: &ResultCache,
        statement: &Statement,
        deps: impl FnOnce() -> Deps<'a>,
    ) -> bool {
        let (key, cells) = (self.session.key.as_bytes(), &self.session.database.cells);
        statement.hints.cache.is_some() || cache.admits(key, statement.fingerprint, cells, deps, self.request_started)
    }

    /// Has level one the answer? Counts nothing.
    pub(super) fn is_held(&self, asking: &Asking) -> bool {
        asking.cache.holds(
            self.session.key.as_bytes(),
            &self.session.database.cells,
            asking.epoch,
            self.request_started,
        )
    }

    /// Nobody here has the answer: who brings it?
    pub(super) fn plan(&self, mut fill: Box<FillGuard>, facts: &Facts, mut asking: Asking) -> Asked {
        asking.ttl = match self.ttl_of(&asking, facts) {
            Ok(ttl) => ttl,
            Err(reason) => return Asked::Fill(FillPlan::none(reason)),
        };
        if self.freshness(facts) != Freshness::Fenced {
            return Asked::Fill(FillPlan::of_stale_read(fill.absence()));
        }
        // What runs for the second time has waited long enough; the question of another may have missed a direct write.
        if matches!(self.again, Again::Second(_)) || self.is_strict(facts) {
            return Asked::Fill(FillPlan::keeping(fill, asking.ttl));
        }
        let shape = facts.statement.as_ref().map(|statement| statement.fingerprint);
        shape.into_iter().for_each(|shape| fill.is_of(shape, &self.session.database.name));
        if let Some(flight) = fill.board() {
            let patience = patience(shape.and_then(|shape| asking.cache.usual_cost(shape)));
            return Asked::Wait(Box::new(Waiting { asking, on: On::Flight(flight, patience) }));
        }
        match fill.question() {
            Some(question) => Asked::Wait(Box::new(Waiting { asking, on: On::Shared(fill, Box::new(question)) })),
            None => Asked::Fill(FillPlan::keeping(fill, asking.ttl)),
        }
    }

    /// The same for one who waits for nobody any more.
    pub(super) fn plan_alone(&self, mut fill: Box<FillGuard>, facts: &Facts, asking: &Asking) -> FillPlan {
        let ttl = match self.ttl_of(asking, facts) {
            Ok(ttl) => ttl,
            Err(reason) => return FillPlan::none(reason),
        };
        if self.freshness(facts) != Freshness::Fenced {
            return FillPlan::of_stale_read(fill.absence());
        }
        if let Some(statement) = &facts.statement {
            fill.is_of(statement.fingerprint, &self.session.database.name);
        }
        FillPlan::keeping(fill, ttl)
    }

    /// What level one has; rows are looked for in the request only if it has no answer.
    pub(super) fn find(&self, request: Request, facts: &Facts, asking: &Asking, now: u64) -> Lookup {
        let (key, cells) = (self.session.key.as_bytes(), &self.session.database.cells);
        let found = asking.cache.lookup_with(key, cells, || self.depends_on(request, facts), asking.epoch, now);
        if matches!(found, Lookup::Miss(_)) {
            self.cross_check(request, facts);
        }
        found
    }

    /// Answers the request from level one if it can be.
    pub(super) fn look_up(&mut self, request: Request, facts: &Facts, asking: &Asking, now: u64) -> Said {
        match self.find(request, facts, asking, now) {
            Lookup::Hit(entry) if !asking.takes_all(&entry) => Said::TooLong,
            Lookup::Hit(entry) => {
                self.answer_from_cache(&entry, request, facts, asking, (CacheOutcome::Hit, "hit"));
                Said::Answered
            }
            Lookup::Miss(fill) => Said::Missing(Box::new(fill)),
            Lookup::Refused(refusal) => Said::Refused(refusal),
        }
    }

    /// Gives the client an answer that somebody else has brought.
    pub(super) fn answer_from_cache(
        &mut self,
        entry: &Entry,
        request: Request,
        facts: &Facts,
        asking: &Asking,
        outcome: (CacheOutcome, &'static str),
    ) {
        let out = self.io.outbox.buffer();
        let before = out.len();
        asking.shape.put_answer(out, entry);
        let status = self.link.as_ref().map_or(TransactionStatus::Idle, |link| link.status);
        out.extend_from_slice(backend::ready_for_query(status));
        let sent = (out.len() - before) as u64;
        self.drop_request(request.bytes);
        self.observe_hit(request, facts, (entry.row_count, sent), outcome);
    }

    pub(super) fn is_strict(&self, facts: &Facts) -> bool {
        self.session.own.is_strict || facts.is_strict()
    }

    pub(super) fn observe_hit(
        &self,
        request: Request,
        facts: &Facts,
        (rows, sent): (u64, u64),
        (outcome, reason): (CacheOutcome, &'static str),
    ) {
        let now = self.context.clock.now();
        self.observe(
            &Pending {
                statement: facts.statement.clone(),
                started: self.request_started,
                queued: 0,
                route: Route::Cache,
                route_reason: "cached",
                member: None,
                cache: outcome,
                cache_reason: reason,
                absence: None,
                rows,
                sent,
                received: request.bytes as u64,
                work: Work { transactions: u64::from(self.link.is_none()), ..Work::default() },
                sqlstate: None,
                is_whole: true,
                leaves_no_trace: true,
                is_in_transaction: self.link.is_some(),
                unit: None,
                fills: None,
            },
            now,
        );
    }

    /// May the cache be asked? The reason if not.
    fn cacheable_shape(&self, request: Request, facts: &Facts) -> Result<(Shape, Option<u64>), &'static str> {
        let ttl = self.usual_ttl(facts.cache_hint())?;
        self.session_may_ask(facts)?;
        if facts.statement.as_ref().is_some_and(|statement| self.is_doubtful(statement)) {
            return Err("doubted");
        }
        let Some(meaning) = &facts.meaning else {
            return Err("not_one_statement");
        };
        if let Err(bypass) = &meaning.cacheable {
            return Err(bypass.label());
        }
        if facts.boundary != Boundary::None || !facts.written.is_nothing() || !facts.effects.is_empty() {
            return Err("not_a_read");
        }
        let shape = match request.kind {
            RequestKind::Simple => Shape::SIMPLE,
            RequestKind::Sync => self.extended_shape().ok_or("batch_shape")?,
            _ => return Err("open_batch"),
        };
        Ok((shape, ttl))
    }

    /// May the session ask the cache, whatever it asks? The reason if not.
    pub(super) fn session_may_ask(&self, facts: &Facts) -> Result<(), &'static str> {
        if self.session.own.cache_is_off {
            return Err("session_off");
        }
        if self.session.own.min_lsn > Lsn::default() {
            // Of writes elsewhere the cache knows nothing.
            return Err("min_lsn");
        }
        if self.is_strict(facts) && self.session.database.settings.direct.is_none() {
            // Of writes that bypass the proxy it knows nothing at all.
            return Err("strict");
        }
        if self.keeps_server {
            return Err("session_pooling");
        }
        if self.session.is_serializable() { Err("serializable") } else { Ok(()) }
    }

    /// One read and its `Sync`.
    fn extended_shape(&self) -> Option<Shape> {
        Laid::first(&self.session.steps).filter(Laid::is_last).map(|laid| laid.shape)
    }

    fn depends_on<'f>(&self, request: Request, facts: &'f Facts) -> Deps<'f> {
        Deps { relations: facts.dependencies(), row: self.row_read(request, facts) }
    }

    /// The row that it asks for by key, if that is all that it reads.
    fn row_read(&self, request: Request, facts: &Facts) -> Option<Row> {
        let meaning = facts.meaning.as_ref().filter(|meaning| meaning.keyed.is_some())?;
        let bytes = self.io.inbox.unread().get(..request.bytes)?;
        if request.kind == RequestKind::Simple {
            return rows::read(meaning, frontend::query(bytes).ok()?, None);
        }
        self.session.steps.iter().find_map(|located| match &located.step {
            Step::Bind { prepared: Some(prepared), .. } => self.row_bound(meaning, prepared, located.range.clone()),
            _ => None,
        })
    }

    /// The same of one statement of a batch, by its `Bind`.
    pub(super) fn row_bound(&self, meaning: &Meaning, prepared: &Prepared, bind: Range<usize>) -> Option<Row> {
        let (_, _, values) = frontend::bind(self.io.inbox.unread().get(bind)?).ok()?;
        let is_current = self.session.knows_types_of(prepared);
        rows::read(meaning, &prepared.text, Some(Bound::new(values, &prepared.types, is_current)))
    }

    fn build_key(&mut self, request: Request, facts: &Facts, shape: &Shape) -> bool {
        if request.kind == RequestKind::Simple {
            let Some(statement) = &facts.statement else { return false };
            let Some(prefix) = self.session.key_prefix(statement).cloned() else { return false };
            let bytes = self.io.inbox.unread().get(..request.bytes).unwrap_or_default();
            let Ok(text) = frontend::query(bytes) else { return false };
            self.session.key.simple(&prefix, text);
            return true;
        }
        let bound = self.session.steps.iter().find_map(|located| match &located.step {
            Step::Bind { prepared: Some(prepared), .. } => Some((Arc::clone(prepared), located.range.clone())),
            _ => None,
        });
        bound.is_some_and(|(prepared, bind)| self.build_key_of(&prepared, bind, shape))
    }

    /// The key of one statement of a batch, by its `Bind`.
    pub(super) fn build_key_of(&mut self, prepared: &Prepared, bind: Range<usize>, shape: &Shape) -> bool {
        if !self.session.reads_parameters_of(&prepared.types) {
            return false;
        }
        let Some(prefix) = self.session.key_prefix(&prepared.statement).cloned() else { return false };
        let bind = self.io.inbox.unread().get(bind).unwrap_or_default();
        put_key(&mut self.session.key, &prefix, prepared, bind, shape)
    }
}

fn put_key(key: &mut KeyBuffer, prefix: &KeyPrefix, prepared: &Prepared, bind: &[u8], shape: &Shape) -> bool {
    let Ok((_, _, rest)) = frontend::bind(bind) else { return false };
    // `$1 = 'now'` is another question each second.
    if frontend::parameters(rest).flatten().any(names_the_clock) {
        return false;
    }
    let (types, _) = prepared.types.get(2..).unwrap_or_default().as_chunks::<4>();
    let types: Vec<u32> = types.iter().map(|oid| u32::from_be_bytes(*oid)).collect();
    key.extended(prefix, &prepared.text, &types, rest, shape.is_described).is_ok()
}
