//! Asks the primary what it makes of statements whose answers are kept (`[cache] cross_check`).
//!
//! Each shape is put before it once, as it was sent, along the same search path: `PREPARE` resolves its names and runs
//! nothing. What the primary shows of it is compared with what was found here ([`catalog::Missed`]). A shape of which
//! something was missed is doubted: it is not answered from the cache any more, and everything that is kept is void.
//!
//! [`catalog::Missed`]: crate::catalog::Missed

use std::{
    hash::BuildHasher,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dashmap::DashMap;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{Database, LoadedCatalog};
use crate::{
    catalog::{Meaning, Missed, PathNumber},
    clock::Clock,
    control::{Act, ControlError, Deadlines, ServerMessage, Session, Target, within},
    sql::Fingerprint,
    telemetry::metrics::{SharedMetrics, families},
};

/// Statements that wait to be checked; further ones are left for when they come again.
const WAITING: usize = 64;
/// Statements that are known to have been checked; then all are forgotten.
const CHECKED: usize = 20_000;
/// Shapes that may be doubted: beyond, every shape is.
const DOUBTED: usize = 1000;
/// For one statement.
const DEADLINE: Duration = Duration::from_secs(10);
/// A connection that nobody has needed for so long is closed.
const IDLE: Duration = Duration::from_secs(60);
/// Behind a failure.
const PAUSE: Duration = Duration::from_secs(5);
/// Of one statement there are few messages, one for each tree.
const MESSAGES: usize = 1024;

/// Nothing is written, and the server's log gets neither statements nor trees: that is a superuser's to set, or of whom he
/// lets (`GRANT SET ON PARAMETER log_min_messages`, PostgreSQL 15).
const SETTINGS: &str = "SET log_min_messages = fatal; SET default_transaction_read_only = on; \
    SET debug_print_rewritten = on; SET debug_pretty_print = off; SET client_min_messages = log";
/// Sets the search path to these schemas and no others.
const SET_PATH: &str = "SELECT pg_catalog.set_config('search_path', (\
    SELECT coalesce(pg_catalog.string_agg(pg_catalog.quote_ident(n.nspname), ',' ORDER BY s.place), '\"\"') \
    FROM pg_catalog.unnest($1::pg_catalog.oid[]) WITH ORDINALITY AS s(oid, place) \
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) s.oid), false)";
/// Where names are looked up then: a schema that may not be used is passed over.
const PATH: &str = "SELECT ARRAY(SELECT n.oid FROM pg_catalog.unnest(pg_catalog.current_schemas(true)) \
    WITH ORDINALITY AS s(name, place) JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) s.name \
    ORDER BY s.place)";
/// How types are spelled there; 0 is one that the server is to find out.
const TYPES: &str = "SELECT coalesce(pg_catalog.string_agg(CASE t.oid WHEN 0 THEN 'unknown' \
    ELSE pg_catalog.format_type(t.oid, NULL) END, ',' ORDER BY t.place), '') \
    FROM pg_catalog.unnest($1::pg_catalog.oid[]) WITH ORDINALITY AS t(oid, place)";
/// What the title of a tree is.
const TITLE: &str = "rewritten parse tree:";

/// A statement to check.
pub struct Case {
    /// Its shape.
    pub shape: Fingerprint,
    /// As it was sent.
    pub text: Box<str>,
    /// Types of its parameters as `Parse` names them.
    pub types: Vec<u32>,
    /// Where its names are looked up.
    pub path: PathNumber,
    /// What was found.
    pub meaning: Arc<Meaning>,
    /// By which catalog.
    pub catalog: Arc<LoadedCatalog>,
}

/// What has been checked, what waits for that, and what is doubted.
#[derive(Debug)]
pub struct CrossChecks {
    waiting: mpsc::Sender<Case>,
    /// Until somebody checks them.
    cases: Mutex<Option<mpsc::Receiver<Case>>>,
    checked: DashMap<u64, (), foldhash::fast::RandomState>,
    doubted: DashMap<Fingerprint, (), foldhash::fast::RandomState>,
    hasher: foldhash::fast::RandomState,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Case").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl Default for CrossChecks {
    fn default() -> Self {
        let (waiting, cases) = mpsc::channel(WAITING);
        Self {
            waiting,
            cases: Mutex::new(Some(cases)),
            checked: DashMap::default(),
            doubted: DashMap::default(),
            hasher: foldhash::fast::RandomState::default(),
        }
    }
}

impl CrossChecks {
    /// Is nothing of that shape to be answered from the cache?
    #[must_use]
    pub fn doubts(&self, shape: Fingerprint) -> bool {
        !self.doubted.is_empty() && (self.doubted.contains_key(&shape) || self.doubted.len() >= DOUBTED)
    }

    /// How many shapes are doubted, and how many may be.
    #[must_use]
    pub fn doubted(&self) -> (usize, usize) {
        (self.doubted.len(), DOUBTED)
    }

    /// How many statements are known to have been checked, and how many may be.
    #[must_use]
    pub fn checked(&self) -> (usize, usize) {
        (self.checked.len(), CHECKED)
    }

    /// Puts a statement forward unless its shape has been, along that path and by that catalog.
    pub fn propose(
        &self,
        shape: Fingerprint,
        path: PathNumber,
        catalog: &LoadedCatalog,
        case: impl FnOnce() -> Option<Case>,
    ) {
        let number = self.hasher.hash_one((shape, path, catalog.fingerprint));
        if self.checked.contains_key(&number) {
            return;
        }
        if self.checked.len() >= CHECKED {
            self.checked.clear();
        }
        let Ok(place) = self.waiting.try_reserve() else { return };
        if let Some(case) = case() {
            place.send(case);
        }
        self.checked.insert(number, ());
    }
}

/// Why a statement could not be checked.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error("no member is primary")]
    NoPrimary,
    #[error("the control user may not set log_min_messages: statements would get into the server's log ({0})")]
    Logged(tokio_postgres::Error),
    #[error("the control user may not use all schemas that the statement's names are looked up in")]
    Schemas,
    #[error("the server has shown no tree")]
    NoTree,
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Server(#[from] tokio_postgres::Error),
}

/// Puts statements before the primary.
pub struct Checker {
    /// Whose statements.
    pub database: Arc<Database>,
    /// Its members, by number.
    pub targets: Vec<Target>,
    /// The process's clock.
    pub clock: Clock,
    /// Outcomes are counted there.
    pub metrics: SharedMetrics,
    /// A random number.
    pub draw: fn() -> u64,
}

/// A connection, and what the server says beside its answers.
struct Connection {
    session: Session,
    told: mpsc::Receiver<ServerMessage>,
    member: u16,
}

impl Checker {
    /// Checks what is proposed, one after the other, until `stop`.
    pub async fn run(self, stop: &CancellationToken) {
        let Some(checks) = &self.database.cross_checks else { return };
        let Some(mut cases) = checks.cases.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let mut connection = None;
        loop {
            // Cancel safe: a case is taken, or it stays.
            let case = tokio::select! {
                () = stop.cancelled() => return,
                case = timeout(IDLE, cases.recv()) => case,
            };
            let case = match case {
                Ok(Some(case)) => case,
                Ok(None) => return,
                Err(_) => {
                    connection = None;
                    continue;
                }
            };
            // Cancel safe: nothing of it outlives the connection.
            let outcome = tokio::select! {
                () = stop.cancelled() => return,
                outcome = self.check(&mut connection, &case) => outcome,
            };
            match outcome {
                Ok(None) => self.count("agreed"),
                Ok(Some(missed)) => self.doubt(checks, &case, missed),
                Err(CheckError::Server(error)) if error.as_db_error().is_some() => {
                    tracing::debug!(db = %self.database.name, shape = %case.shape, %error, "statement not checked");
                    self.count("not_checked");
                }
                Err(error) => {
                    let is_ours = matches!(error, CheckError::Schemas | CheckError::NoTree);
                    tracing::warn!(db = %self.database.name, shape = %case.shape, %error, "statement not checked");
                    self.count("not_checked");
                    if !is_ours {
                        connection = None;
                        tokio::select! {
                            () = stop.cancelled() => return,
                            () = tokio::time::sleep(PAUSE) => {}
                        }
                    }
                }
            }
        }
    }

    fn count(&self, outcome: &'static str) {
        let labels = [("database", &*self.database.name), ("outcome", outcome)];
        self.metrics.counter(&families::CACHE_CROSS_CHECKS, &labels).increment();
    }

    fn doubt(&self, checks: &CrossChecks, case: &Case, missed: Missed) {
        let what = match missed {
            Missed::Relation(relation) => {
                let name = case.catalog.snapshot.relation_name(relation);
                format!("it reads {}", name.unwrap_or_else(|| relation.0.to_string()))
            }
            Missed::Bypass(reason) => format!("its answer is not to be kept: {}", reason.label()),
        };
        // An alarm: whoever reads it should report the statement's form.
        tracing::error!(
            db = %self.database.name, shape = %case.shape,
            "the analysis has missed something of a statement, which is not cached any more: {what}"
        );
        if checks.doubted.len() < DOUBTED {
            checks.doubted.insert(case.shape, ());
        }
        self.database.cells.flush(None, self.clock.now(), self.draw);
        self.count(missed.label());
    }

    async fn check(&self, open: &mut Option<Connection>, case: &Case) -> Result<Option<Missed>, CheckError> {
        let primary = self.database.primary().ok_or(CheckError::NoPrimary)?.0;
        if open.as_ref().is_none_or(|connection| connection.member != primary) {
            *open = Some(self.open(primary).await?);
        }
        let Some(connection) = open else { return Err(CheckError::NoPrimary) };
        let trees = within(Act::Statement, DEADLINE, connection.trees(case)).await??;
        Ok(case.catalog.snapshot.missed(trees.iter().map(String::as_str), &case.meaning))
    }

    async fn open(&self, member: u16) -> Result<Connection, CheckError> {
        let target = self.targets.get(usize::from(member)).ok_or(ControlError::UnknownMember(member))?;
        let (sink, told) = mpsc::channel(MESSAGES);
        let session = Session::open_hearing(target, Deadlines::default(), sink).await?;
        let set = session.client().batch_execute(SETTINGS);
        within(Act::Statement, DEADLINE, set).await?.map_err(CheckError::Logged)?;
        Ok(Connection { session, told, member })
    }
}

impl Connection {
    /// What the server has made of it. As messages of the extended protocol, so that one text is one statement however its
    /// literals are read.
    async fn trees(&mut self, case: &Case) -> Result<Vec<String>, CheckError> {
        let client = self.session.client();
        let schemas = case.catalog.snapshot.schemas_of(case.path).ok_or(CheckError::Schemas)?;
        client.execute(SET_PATH, &[&schemas]).await?;
        let found: Vec<u32> = client.query_one(PATH, &[]).await?.try_get(0)?;
        if found != schemas {
            return Err(CheckError::Schemas);
        }
        let types: String = client.query_one(TYPES, &[&case.types]).await?.try_get(0)?;
        let types = if types.is_empty() { types } else { format!("({types})") };
        while self.told.try_recv().is_ok() {}
        let prepared = client.execute(&format!("PREPARE pgweir_cross_check{types} AS {}", case.text), &[]).await;
        let mut trees = Vec::new();
        while let Ok(message) = self.told.try_recv() {
            trees.extend(message.detail.filter(|_| message.text == TITLE));
        }
        prepared?;
        client.execute("DEALLOCATE pgweir_cross_check", &[]).await?;
        // One is that of PREPARE itself.
        if trees.len() < 2 { Err(CheckError::NoTree) } else { Ok(trees) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_bound_every_shape_is_doubted() {
        let checks = CrossChecks::default();
        assert!(!checks.doubts(Fingerprint(5_000)));
        for shape in 0..DOUBTED as u128 {
            checks.doubted.insert(Fingerprint(shape), ());
        }
        assert!(checks.doubts(Fingerprint(1)) && checks.doubts(Fingerprint(5_000)));
    }
}
