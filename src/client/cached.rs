//! Answers from the cache.

use super::{
    Client,
    facts::{Boundary, Facts},
    pending::Pending,
    session::Step,
};
use crate::{
    cache::{FillGuard, Lookup},
    insight::{CacheOutcome, Route, Work},
    lsn::Lsn,
    protocol::{TransactionStatus, backend, frontend},
    routing::{Fence, Freshness},
    session::request::{Request, RequestKind},
    sql::{CacheHint, names_the_clock},
};

/// Whether the answer will be kept.
#[derive(Debug)]
pub(super) struct FillPlan {
    pub guard: Option<(Box<FillGuard>, Option<u64>)>,
    pub outcome: CacheOutcome,
    pub reason: &'static str,
}

impl FillPlan {
    /// It will not.
    pub(super) fn none(reason: &'static str) -> Self {
        Self { guard: None, outcome: CacheOutcome::Bypass, reason }
    }

    /// What a replica must have replayed to bring it.
    pub(super) fn fence(&self) -> Option<Fence> {
        self.guard.as_ref().map(|(guard, _)| guard.fence())
    }
}

/// What the cache said.
pub(super) enum Asked {
    /// The client has its answer.
    Answered,
    /// A server must be asked.
    Fill(FillPlan),
}

/// How a request that can be answered from the cache is put together.
struct Shape {
    parses: bool,
    is_described: bool,
}

impl Client {
    /// Answers a request from the cache, or says what becomes of the answer.
    pub(super) fn ask_cache(&mut self, request: Request, facts: &Facts) -> Asked {
        let Some(cache) = self.session.database.cache.clone() else {
            return Asked::Fill(FillPlan { outcome: CacheOutcome::Off, ..FillPlan::none("off") });
        };
        let (shape, ttl) = match self.cacheable_shape(request, facts) {
            Ok(found) => found,
            Err(reason) => return Asked::Fill(FillPlan::none(reason)),
        };
        let Some(deps) = facts.meaning.as_ref().and_then(|meaning| meaning.cacheable.as_deref().ok()) else {
            return Asked::Fill(FillPlan::none("not_a_read"));
        };
        let Some(epoch) = facts.epoch else {
            return Asked::Fill(FillPlan::none("catalog_not_loaded"));
        };
        if !self.build_key(request, &shape) {
            return Asked::Fill(FillPlan::none("parameters"));
        }
        let cells = &self.session.database.cells;
        match cache.lookup(self.session.key.as_bytes(), cells, deps, epoch, self.request_started) {
            Lookup::Hit(entry) => {
                let out = self.io.outbox.buffer();
                let before = out.len();
                if request.kind == RequestKind::Sync {
                    if shape.parses {
                        out.extend_from_slice(backend::PARSE_COMPLETE);
                    }
                    out.extend_from_slice(backend::BIND_COMPLETE);
                }
                if let Some(description) = &entry.row_description {
                    out.extend_from_slice(description);
                }
                out.extend_from_slice(&entry.rows);
                out.extend_from_slice(&entry.command_complete);
                out.extend_from_slice(backend::ready_for_query(TransactionStatus::Idle));
                let sent = (out.len() - before) as u64;
                self.drop_request(request.bytes);
                self.observe_hit(request, facts, entry.row_count, sent);
                Asked::Answered
            }
            // The next reader of the same text may not accept what this one does.
            Lookup::Miss(_) if self.freshness(facts) != Freshness::Fenced => {
                Asked::Fill(FillPlan { outcome: CacheOutcome::Miss, ..FillPlan::none("stale_read") })
            }
            Lookup::Miss(fill) => Asked::Fill(FillPlan {
                guard: Some((Box::new(fill), ttl)),
                outcome: CacheOutcome::Miss,
                reason: "miss",
            }),
            Lookup::Refused(refusal) => Asked::Fill(FillPlan::none(refusal.label())),
        }
    }

    fn observe_hit(&self, request: Request, facts: &Facts, rows: u64, sent: u64) {
        let now = self.context.clock.now();
        self.observe(
            &Pending {
                statement: facts.statement.clone(),
                started: self.request_started,
                queued: 0,
                route: Route::Cache,
                route_reason: "cached",
                member: None,
                cache: CacheOutcome::Hit,
                cache_reason: "hit",
                rows,
                sent,
                received: request.bytes as u64,
                work: Work { transactions: 1, ..Work::default() },
                sqlstate: None,
                is_whole: true,
                unit: None,
                fill: None,
            },
            now,
        );
    }

    /// May the cache be asked? The reason if not.
    fn cacheable_shape(&self, request: Request, facts: &Facts) -> Result<(Shape, Option<u64>), &'static str> {
        let default_ttl = self.session.database.settings.cache_ttl;
        let ttl = match facts.cache_hint() {
            Some(CacheHint::No) => return Err("hint_nocache"),
            Some(CacheHint::Ttl(bound)) => Some(bound.as_nanos() as u64),
            _ => default_ttl,
        };
        if self.session.own.cache_is_off {
            return Err("session_off");
        }
        if self.session.own.min_lsn > Lsn::default() {
            // Of writes elsewhere the cache knows nothing.
            return Err("min_lsn");
        }
        if self.keeps_server {
            return Err("session_pooling");
        }
        let Some(meaning) = &facts.meaning else {
            return Err("not_one_statement");
        };
        if self.session.is_serializable() {
            return Err("serializable");
        }
        if let Err(bypass) = &meaning.cacheable {
            return Err(bypass.label());
        }
        if facts.boundary != Boundary::None || !facts.written.is_nothing() || !facts.effects.is_empty() {
            return Err("not_a_read");
        }
        let shape = match request.kind {
            RequestKind::Simple => Shape { parses: false, is_described: true },
            RequestKind::Sync => self.extended_shape()?,
            _ => return Err("open_batch"),
        };
        Ok((shape, ttl))
    }

    /// `[Parse] Bind [Describe portal] Execute Sync`, all rows asked for.
    fn extended_shape(&self) -> Result<Shape, &'static str> {
        let mut steps = self.session.steps.iter().map(|located| &located.step).peekable();
        let parses = steps.next_if(|step| matches!(step, Step::Parse { is_taken: false, .. })).is_some();
        if steps.next_if(|step| matches!(step, Step::Bind { prepared: Some(_), .. })).is_none() {
            return Err("batch_shape");
        }
        let is_described = steps.next_if(|step| matches!(step, Step::DescribePortal)).is_some();
        match (steps.next(), steps.next(), steps.next()) {
            (Some(Step::Execute { max_rows: 0, .. }), Some(Step::Sync), None) => Ok(Shape { parses, is_described }),
            (Some(Step::Execute { .. }), Some(Step::Sync), None) => Err("row_limit"),
            _ => Err("batch_shape"),
        }
    }

    fn build_key(&mut self, request: Request, shape: &Shape) -> bool {
        let Some(prefix) = self.session.key_prefix().cloned() else { return false };
        let bytes = self.io.inbox.unread().get(..request.bytes).unwrap_or_default();
        if request.kind == RequestKind::Simple {
            let Ok(text) = frontend::query(bytes) else { return false };
            self.session.key.simple(&prefix, text);
            return true;
        }
        let bind = self.session.steps.iter().find_map(|located| match &located.step {
            Step::Bind { prepared: Some(prepared), .. } => Some((prepared, located.range.clone())),
            _ => None,
        });
        let Some((prepared, range)) = bind else { return false };
        let Ok((_, _, rest)) = frontend::bind(bytes.get(range).unwrap_or_default()) else { return false };
        // `$1 = 'now'` is another question each second.
        if frontend::parameters(rest).flatten().any(names_the_clock) {
            return false;
        }
        let (types, _) = prepared.types.get(2..).unwrap_or_default().as_chunks::<4>();
        let types: Vec<u32> = types.iter().map(|oid| u32::from_be_bytes(*oid)).collect();
        self.session.key.extended(&prefix, &prepared.text, &types, rest, shape.is_described).is_ok()
    }
}
