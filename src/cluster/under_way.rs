//! Asks a primary which of its server processes may still write something.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Database;
use crate::{
    cache::{UnderWay, invalidation::Closure},
    catalog::RelationOid,
    clock::Clock,
    control::{APPLICATION_NAME, Act, ControlError, Deadlines, Session, Target, within},
    routing::MemberId,
};

/// A server with many sessions may take its time; meanwhile nothing is served that depends on it.
const DEADLINES: Deadlines = Deadlines { connect: Duration::from_secs(2), statement: Duration::from_secs(60) };
const PAUSE: Duration = Duration::from_millis(100);
/// Between two looks at whether one is due.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// One row for each session of this database that is in a transaction, or busy as far as that may be known, and what it has
/// locked. Every transaction has a lock on itself. Who only keeps others from changing a table writes nothing: VACUUM,
/// ANALYZE. Definitions take a stronger lock than rows, or a transaction id and no lock on any relation. Whoever sends
/// changes is always busy, and counts where it is in a transaction. `$1` is what proxies call themselves.
pub const QUERY: &str = "\
    WITH RECURSIVE lock AS MATERIALIZED ( \
        SELECT pid, virtualtransaction, locktype, mode, granted, relation FROM pg_catalog.pg_locks \
         WHERE pid IS NOT NULL AND (locktype IN ('virtualxid', 'transactionid') OR locktype = 'relation' AND relation >= 16384 \
           AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()))), \
    locked AS MATERIALIZED ( \
        SELECT virtualtransaction, relation, pg_catalog.bool_or(mode <> 'RowExclusiveLock') AS is_strong FROM lock \
         WHERE locktype = 'relation' AND mode NOT IN ('AccessShareLock', 'RowShareLock', 'ShareUpdateExclusiveLock') \
         GROUP BY virtualtransaction, relation), \
    above(relation, ancestor) AS ( \
        SELECT DISTINCT relation, relation FROM locked \
        UNION SELECT above.relation, inhparent FROM above JOIN pg_catalog.pg_inherits ON inhrelid = ancestor), \
    written AS MATERIALIZED ( \
        SELECT virtualtransaction, pg_catalog.array_agg(DISTINCT ancestor) AS relations, pg_catalog.bool_or(is_strong) AS is_strong \
          FROM locked JOIN above USING (relation) GROUP BY virtualtransaction), \
    transaction AS MATERIALIZED ( \
        SELECT pid, virtualtransaction, \
               pg_catalog.bool_or(locktype = 'transactionid' AND mode = 'ExclusiveLock' AND granted) AS has_id, \
               pg_catalog.bool_or(locktype = 'relation' AND mode = 'RowShareLock') AS locks_rows \
          FROM lock GROUP BY pid, virtualtransaction \
        HAVING pg_catalog.bool_or(locktype = 'virtualxid' AND mode = 'ExclusiveLock' AND granted)) \
    SELECT a.pid, coalesce(t.virtualtransaction, ''), a.pid = pg_catalog.pg_backend_pid(), \
           coalesce(w.relations, '{}'), coalesce(w.is_strong, t.has_id AND NOT t.locks_rows, false), \
           coalesce(a.state NOT LIKE 'idle%', true) \
      FROM pg_catalog.pg_stat_activity a LEFT JOIN transaction t USING (pid) LEFT JOIN written w USING (virtualtransaction) \
     WHERE a.datid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) \
       AND a.usesysid IS NOT NULL AND coalesce(a.backend_type, '') <> 'parallel worker' \
       AND (t.pid IS NOT NULL OR a.state IN ('active', 'fastpath function call') AND a.backend_type IS DISTINCT FROM 'walsender') \
       AND (a.pid = pg_catalog.pg_backend_pid() OR NOT (a.application_name = $1 AND a.usename = pg_catalog.current_user())) \
       AND NOT pg_catalog.pg_is_in_recovery()";

/// What is under way in the database of that session; `None` if its server is a primary no longer.
pub(super) async fn under_way(session: &Session) -> Result<Option<Vec<UnderWay>>, ControlError> {
    let asked = async { session.client().query(QUERY, &[&APPLICATION_NAME]).await };
    let since = Instant::now();
    let rows = within(Act::Statement, DEADLINES.statement, asked).await??;
    tracing::debug!(rows = rows.len(), took = ?since.elapsed(), "asked what is under way");
    let (mut found, mut is_primary) = (Vec::with_capacity(rows.len()), false);
    for row in &rows {
        if row.try_get::<_, bool>(2)? {
            is_primary = true;
            continue;
        }
        let relations: Vec<u32> = row.try_get(3)?;
        found.push(UnderWay {
            process_id: row.try_get(0)?,
            transaction: row.try_get::<_, String>(1)?.into(),
            relations: relations.into_iter().map(RelationOid).collect(),
            catalog: row.try_get(4)?,
            is_busy: row.try_get(5)?,
        });
    }
    Ok(is_primary.then_some(found))
}

/// A session for such questions, opened when the first one is asked.
pub(super) struct Asker<'a> {
    targets: &'a [Target],
    session: Option<(MemberId, Session)>,
    /// The last question had no answer, and that was said.
    has_failed: bool,
}

impl<'a> Asker<'a> {
    /// `targets` are the members of a database, by id.
    pub(super) fn new(targets: &'a [Target]) -> Self {
        Self { targets, session: None, has_failed: false }
    }

    /// Nothing is asked for a while: nobody holds a connection meanwhile.
    pub(super) fn rest(&mut self) {
        self.session = None;
    }

    /// What is under way on that member; `None` if it is not the primary, or cannot be asked. What is wrong was logged.
    pub(super) async fn ask(&mut self, database: &Database, primary: MemberId) -> Option<Vec<UnderWay>> {
        match self.try_ask(primary).await {
            Ok(found) => {
                self.has_failed = false;
                found
            }
            Err(error) => {
                self.session = None;
                if !std::mem::replace(&mut self.has_failed, true) {
                    tracing::warn!(db = %database.name, %error, "nobody knows what is under way: nothing is cached");
                }
                sleep(PAUSE).await;
                None
            }
        }
    }

    async fn try_ask(&mut self, primary: MemberId) -> Result<Option<Vec<UnderWay>>, ControlError> {
        if self.session.as_ref().is_none_or(|(of, _)| *of != primary) {
            let target = self.targets.get(usize::from(primary.0)).ok_or(ControlError::UnknownMember(primary.0))?;
            self.session = Some((primary, Session::open(target, DEADLINES).await?));
        }
        match &self.session {
            Some((_, session)) => under_way(session).await,
            None => Ok(None),
        }
    }
}

/// Looks before a process that shares its cache with no other one keeps the first answer, and until all that it found is over.
pub struct FirstLook {
    /// The database.
    pub database: Arc<Database>,
    /// Its members, by id.
    pub targets: Vec<Target>,
    /// No other proxy is told of writes; else those who are see to it.
    pub is_alone: bool,
    /// The clock of the process.
    pub clock: Clock,
    /// A random number.
    pub draw: fn() -> u64,
}

impl FirstLook {
    /// Closes the cache until somebody has looked. To be called before anything is answered, and to be followed by [`Self::run`].
    pub fn begin(&self) {
        if self.is_alone && !self.database.real.is_looked_at() {
            self.database.cells.close(Closure::UnderWay);
        }
    }

    /// Until all that was found is over, or `stop`: whoever watches the database then goes on.
    pub async fn run(&self, stop: &CancellationToken) {
        // Cancel safe: an answer that is not looked at changes nothing.
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.look() => {}
        }
    }

    async fn look(&self) {
        let real = &self.database.real;
        let mut unattended = real.unattended.lock().await;
        if self.is_alone && !real.is_looked_at() {
            unattended.want_look(0, true);
        }
        let mut asker = Asker::new(&self.targets);
        while unattended.must_look() || !unattended.is_over() {
            if !unattended.wants_look(self.clock.now()) {
                asker.rest();
                sleep(LOOK_EVERY).await;
                continue;
            }
            let Some(primary) = self.database.primary() else {
                sleep(PAUSE).await;
                continue;
            };
            let asked_at = self.clock.now();
            let Some(found) = asker.ask(&self.database, primary).await else { continue };
            let over = unattended.looked(&self.database.cells, asked_at, asked_at, &found);
            let mut catalog = false;
            for guard in over {
                catalog |= guard.set().catalog;
                // No client waits to be told.
                _ = guard.committed(self.clock.now(), self.draw);
            }
            if catalog {
                self.database.catalog_changed(self.draw);
            }
            self.end_closure();
        }
        // Where somebody else had looked meanwhile.
        self.end_closure();
    }

    fn end_closure(&self) {
        if self.is_alone {
            self.database.real.looked_at();
        }
        self.database.cells.resume(Closure::UnderWay);
    }
}
