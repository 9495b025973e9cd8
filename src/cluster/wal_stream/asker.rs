//! Questions to the primary beside its stream.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{Client, Statement, types::PgLsn};

use super::StreamError;
use crate::{
    cache::wal::Answer,
    cluster::{
        catalog_loader::FIRST_WITH_MESSAGES,
        probe::{self, SIZES},
    },
    control::{Deadlines, Session, Target},
    lsn::{Lsn, WalGeometry},
};

/// The snapshot of a statement is taken before its functions run, so the position is read later.
/// `txid_current_snapshot()` is what servers before PostgreSQL 13 have as well.
const QUESTION: &str = "
    SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.txid_current_snapshot()::pg_catalog.text,
           CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL ELSE pg_catalog.pg_current_wal_insert_lsn() END";
const VERSION: &str = "SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4";
const SLOT: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = $1 AND active)";
/// Its commit writes everything before it to disk and waits for no standby.
const FLUSH: &str = "
    BEGIN READ WRITE; SET LOCAL synchronous_commit = local;
    SELECT pg_catalog.pg_logical_emit_message(true, 'pgweir', 'tick'); COMMIT";

/// A connection for questions.
pub(super) struct Asker {
    session: Session,
    question: Statement,
    geometry: WalGeometry,
    version: i32,
    longest: Duration,
}

impl Asker {
    pub(super) async fn open(target: &Target, longest: Duration) -> Result<Self, StreamError> {
        let session = Session::open(target, Deadlines { connect: longest, statement: longest }).await?;
        let prepare = async {
            let client = session.client();
            let question = client.prepare(QUESTION).await?;
            let version = client.query_one(VERSION, &[]).await?.try_get(0)?;
            let geometry = probe::geometry(&client.query(SIZES, &[]).await?)?;
            Ok::<_, tokio_postgres::Error>((question, version, geometry))
        };
        let (question, version, geometry) =
            timeout(longest, prepare).await.map_err(|_| StreamError::Late("first question"))??;
        Ok(Self { session, question, geometry, version, longest })
    }

    pub(super) fn client(&self) -> &Client {
        self.session.client()
    }

    /// Does the stream carry messages of triggers?
    pub(super) fn hears_messages(&self) -> bool {
        self.version >= FIRST_WITH_MESSAGES
    }

    /// Is this the server that has made the slot?
    pub(super) async fn sees_slot(&self, slot: &str) -> Result<bool, StreamError> {
        let row = timeout(self.longest, self.client().query_one(SLOT, &[&slot])).await;
        Ok(row.map_err(|_| StreamError::Late("look for the slot"))??.try_get(0)?)
    }

    /// `asked_at` is now, and nothing is sent before.
    pub(super) async fn ask(&self, asked_at: u64, ticket: u64) -> Result<Answer, StreamError> {
        let row = timeout(self.longest, self.client().query_one(&self.question, &[])).await;
        let row = row.map_err(|_| StreamError::Late("question"))??;
        let inserted: Option<PgLsn> = row.try_get(2)?;
        let inserted = inserted.filter(|_| row.try_get(0).is_ok_and(|in_recovery: bool| !in_recovery));
        let inserted = Lsn::new(inserted.ok_or(StreamError::NotPrimary)?.into());
        let visibility = row.try_get::<_, &str>(1)?.parse()?;
        Ok(Answer { asked_at, ticket, visibility, inserted: inserted.end_of_last_record(self.geometry) })
    }

    /// Has the log written out that nobody waits for. If that cannot be, it comes by itself, later.
    pub(super) async fn flush(&self) {
        if let Ok(Err(error)) = timeout(self.longest, self.client().batch_execute(FLUSH)).await {
            tracing::debug!(%error, "log not flushed");
            _ = timeout(self.longest, self.client().batch_execute("ROLLBACK")).await;
        }
    }
}
