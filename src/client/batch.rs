//! Several reads in front of one `Sync`, as drivers send them that collect queries: answered from the cache together, or not at all.
//!
//! They are one transaction. Where each of its statements has a snapshot of its own, READ COMMITTED, the answers that are
//! current one after the other are what the server would say. What it says instead is kept, each answer by itself. Nobody waits
//! here for what other clients or Redis may have.

use std::{ops::Range, sync::Arc};

use super::{
    Client,
    cached::{FillPlan, Laid, Shape},
    facts::{Boundary, Facts},
    fills::{Fill, Fills, Several},
    session::Located,
};
use crate::{
    cache::{CatalogEpoch, Entry, Lookup, ResultCache, invalidation::Deps},
    catalog::{Effects, Meaning},
    insight::CacheOutcome,
    protocol::{TransactionStatus, backend},
    routing::Freshness,
    session::{
        Prepared,
        request::{Request, RequestKind},
    },
};

/// A request of more is not looked up.
const MAX_READS: usize = 256;

/// One of the reads.
struct Read {
    shape: Shape,
    prepared: Arc<Prepared>,
    bind: Range<usize>,
    meaning: Arc<Meaning>,
    ttl: Option<u64>,
    /// What the cache has.
    entry: Option<Arc<Entry>>,
}

/// All of them, looked up.
pub(super) struct Batch {
    cache: Arc<ResultCache>,
    epoch: CatalogEpoch,
    reads: Vec<Read>,
}

impl Batch {
    /// Has the cache the answer to each of them?
    pub(super) fn is_held(&self) -> bool {
        !self.cache.observes() && self.has_all()
    }

    fn has_all(&self) -> bool {
        self.reads.iter().all(|read| read.entry.is_some())
    }
}

impl Client {
    /// Looks the reads of a request up; why not, if they are not to be looked up.
    pub(super) fn look_up_batch(&mut self, request: Request, facts: &Facts) -> Result<Batch, FillPlan> {
        let cache = self.cache_to_ask()?;
        let mut reads = self.reads(request, facts).map_err(FillPlan::none)?;
        let epoch = facts.epoch.ok_or_else(|| FillPlan::none("catalog_not_loaded"))?;
        let mut room = cache.max_result_bytes();
        for read in &mut reads {
            if !self.build_key_of(&read.prepared, read.bind.clone(), &read.shape) {
                return Err(FillPlan::none("parameters"));
            }
            let found =
                cache.peek(self.session.key.as_bytes(), &self.session.database.cells, epoch, self.request_started);
            if found.as_ref().is_some_and(|entry| !read.shape.takes_all(entry.row_count)) {
                return Err(FillPlan::too_long());
            }
            // Together they are no longer than one may be: nobody reads them while they are written.
            room = room
                .checked_sub(found.as_ref().map_or(0, |entry| entry.rows.len()))
                .ok_or(FillPlan::none("too_large"))?;
            read.entry = found;
        }
        Ok(Batch { cache, epoch, reads })
    }

    /// Answers all of it if the cache has each answer, else says what becomes of those that the server gives; `None`: it is
    /// answered.
    pub(super) fn answer_batch(&mut self, request: Request, facts: &Facts, batch: Batch) -> Option<FillPlan> {
        if !batch.has_all() {
            return Some(self.fill_batch(facts, batch));
        }
        let found = batch.reads.iter().filter_map(|read| read.entry.as_deref().map(|entry| (read, entry)));
        found.clone().for_each(|(_, entry)| batch.cache.note_hit(entry));
        if batch.cache.observes() {
            return Some(FillPlan::would_hit("hit"));
        }
        let out = self.io.outbox.buffer();
        let (before, mut rows) = (out.len(), 0);
        for (read, entry) in found {
            read.shape.put_answer(out, entry);
            rows += entry.row_count;
        }
        out.extend_from_slice(backend::ready_for_query(TransactionStatus::Idle));
        let sent = (out.len() - before) as u64;
        self.drop_request(request.bytes);
        self.observe_hit(request, facts, (rows, sent), (CacheOutcome::Hit, "hit"));
        None
    }

    /// What the cache lacks is kept when it comes.
    fn fill_batch(&mut self, facts: &Facts, batch: Batch) -> FillPlan {
        if self.freshness(facts) != Freshness::Fenced {
            return FillPlan { outcome: CacheOutcome::Miss, ..FillPlan::none("stale_read") };
        }
        let (mut fills, mut absence) = (Vec::with_capacity(batch.reads.len()), None);
        let mut reason = "seldom_repeated";
        for read in &batch.reads {
            let statement = &read.prepared.statement;
            let is_wanted = read.entry.is_none()
                && self.build_key_of(&read.prepared, read.bind.clone(), &read.shape)
                && self.is_admitted_as(&batch.cache, statement, || self.read_by(read));
            let (key, cells, now) = (self.session.key.as_bytes(), &self.session.database.cells, self.request_started);
            let lookup =
                is_wanted.then(|| batch.cache.lookup_with(key, cells, || self.read_by(read), batch.epoch, now));
            fills.push(match lookup {
                Some(Lookup::Miss(mut guard)) => match self.ttl(statement, &read.meaning, read.ttl) {
                    Ok(ttl) => {
                        absence = Some(guard.absence());
                        self.cross_check_prepared(&read.prepared, &read.meaning);
                        guard.is_of(statement.fingerprint, &self.session.database.name);
                        Some(Fill { guard: Box::new(guard), ttl })
                    }
                    Err(off) => {
                        reason = off;
                        None
                    }
                },
                Some(Lookup::Refused(refusal)) => {
                    reason = refusal.label();
                    None
                }
                Some(Lookup::Hit(_)) | None => None,
            });
        }
        if fills.iter().all(Option::is_none) {
            return FillPlan { outcome: CacheOutcome::Miss, ..FillPlan::none(reason) };
        }
        let room = batch.cache.max_result_bytes();
        FillPlan::of_batch(Fills::Several(Several { fills, at: 0, sent: 0, room }), absence)
    }

    /// What one of them depends on.
    fn read_by<'r>(&self, read: &'r Read) -> Deps<'r> {
        let relations = read.meaning.cacheable.as_deref().unwrap_or_default();
        Deps { relations, row: self.row_bound(&read.meaning, &read.prepared, read.bind.clone()) }
    }

    /// The reads that a request consists of.
    fn reads(&mut self, request: Request, facts: &Facts) -> Result<Vec<Read>, &'static str> {
        self.session_may_ask(facts)?;
        let is_batch = request.kind == RequestKind::Sync
            && facts.executed as usize <= MAX_READS
            && facts.boundary == Boundary::None
            && facts.written.is_nothing()
            && facts.effects.is_empty();
        if !is_batch {
            return Err("not_one_statement");
        }
        if self.is_strict(facts) {
            return Err("strict");
        }
        if !self.session.reads_committed() {
            return Err("one_snapshot");
        }
        // The catalog answers for the session, which holds the steps.
        let steps = std::mem::take(&mut self.session.steps);
        let reads = self.reads_of(&steps);
        self.session.steps = steps;
        reads
    }

    fn reads_of(&mut self, mut steps: &[Located]) -> Result<Vec<Read>, &'static str> {
        let mut reads = Vec::new();
        loop {
            // A portal with a name lives on: it could not be bound again, and be executed again behind another.
            let laid = Laid::first(steps).filter(|laid| laid.portal_is_unnamed).ok_or("batch_shape")?;
            let meaning = self.session.meaning_once(&laid.prepared.statement, Effects::default());
            if let Err(bypass) = &meaning.cacheable {
                return Err(bypass.label());
            }
            if self.is_doubtful(&laid.prepared.statement) {
                return Err("doubted");
            }
            let ttl = self.usual_ttl(laid.prepared.statement.hints.cache)?;
            let (ends, prepared, bind) = (laid.is_last(), Arc::clone(laid.prepared), laid.bind.clone());
            reads.push(Read { shape: laid.shape, prepared, bind, meaning, ttl, entry: None });
            if ends {
                return Ok(reads);
            }
            steps = laid.rest;
        }
    }
}
