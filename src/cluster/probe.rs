//! The question itself, on a connection that stays open.

use std::time::Duration;

use tokio_postgres::{Row, Statement, types::PgLsn};

use super::monitor::Sample;
use crate::{
    control::{Act, ControlError, Deadlines, Session, Target},
    lsn::{Lsn, WalGeometry},
};

/// Asks for the role once, so a promotion in between cannot pair one role with the other's position.
const QUESTION: &str = "\
    SELECT r.in_recovery, \
           CASE WHEN r.in_recovery THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END, \
           CASE WHEN r.in_recovery THEN (SELECT lpad(to_hex(received_tli), 8, '0') FROM pg_stat_wal_receiver) \
                ELSE substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END \
      FROM (SELECT pg_is_in_recovery() AS in_recovery OFFSET 0) AS r";

/// What does not change while a connection lives.
pub(super) const SIZES: &str = "\
    SELECT name, setting FROM pg_settings \
     WHERE name = 'wal_block_size' OR (name = 'wal_segment_size' AND unit = 'B')";
const SYSTEM: &str = "SELECT system_identifier FROM pg_control_system()";

/// One member's own connection.
pub(super) struct Probe {
    session: Session,
    question: Statement,
    geometry: WalGeometry,
    system_identifier: Option<u64>,
    deadline: Duration,
}

/// An answer without its times.
pub(super) struct Answer {
    in_recovery: bool,
    lsn: Lsn,
    timeline: Option<u32>,
    system_identifier: Option<u64>,
}

impl Probe {
    pub(super) async fn open(target: &Target, deadlines: Deadlines) -> Result<Self, ControlError> {
        let session = Session::open(target, deadlines).await?;
        let prepare = async {
            let client = session.client();
            let question = client.prepare(QUESTION).await?;
            let geometry = geometry(&client.query(SIZES, &[]).await?)?;
            // Refused to some control users; nothing hangs on it.
            let system = client.query_one(SYSTEM, &[]).await.ok();
            Ok::<_, tokio_postgres::Error>((question, geometry, system))
        };
        let (question, geometry, system) = within(deadlines.connect, prepare).await??;
        let system_identifier = system.and_then(|row| row.try_get::<_, i64>(0).ok()).map(i64::cast_unsigned);
        Ok(Self { session, question, geometry, system_identifier, deadline: deadlines.statement })
    }

    pub(super) async fn ask(&self) -> Result<Answer, ControlError> {
        let asked = self.session.client().query_one(&self.question, &[]);
        let row = within(self.deadline, asked).await??;
        let in_recovery = row.try_get(0)?;
        let position = row.try_get::<_, Option<PgLsn>>(1)?.map_or(Lsn::new(0), |lsn| Lsn::new(lsn.into()));
        let lsn = if in_recovery { position } else { position.end_of_last_record(self.geometry) };
        let timeline = row.try_get::<_, Option<&str>>(2)?.and_then(|hex| u32::from_str_radix(hex, 16).ok());
        Ok(Answer { in_recovery, lsn, timeline, system_identifier: self.system_identifier })
    }
}

impl Answer {
    pub(super) fn at(self, sent_at: u64, received_at: u64) -> Sample {
        let Self { in_recovery, lsn, timeline, system_identifier } = self;
        Sample { sent_at, received_at, in_recovery, lsn, timeline, system_identifier }
    }
}

/// What cannot be read keeps a value that is safe for every server.
pub(super) fn geometry(rows: &[Row]) -> Result<WalGeometry, tokio_postgres::Error> {
    let mut geometry = WalGeometry::default();
    for row in rows {
        let Ok(bytes) = row.try_get::<_, &str>(1)?.parse() else {
            continue;
        };
        match row.try_get::<_, &str>(0)? {
            "wal_block_size" => geometry.page_bytes = bytes,
            _ => geometry.segment_bytes = bytes,
        }
    }
    Ok(geometry)
}

async fn within<T>(after: Duration, work: impl Future<Output = T>) -> Result<T, ControlError> {
    let late = |_| ControlError::Deadline { act: Act::Statement, after };
    tokio::time::timeout(after, work).await.map_err(late)
}
