//! A connection to a replica that is waited for (`wait_for_lsn_timeout`).

use std::time::Duration;

use tokio::time::timeout;

use super::{
    super::{Client, ClientError, facts::Facts},
    Replied, UNREACHABLE,
};
use crate::{
    routing::{Behind, RouteReason},
    server,
};

/// The reason where a replica was waited for, and had replayed enough in time.
pub(super) const WAITED: &str = "waited";
/// It had not.
const WAIT_TIMEOUT: &str = "wait_timeout";
/// It cannot say, or is no replica any more.
const WAIT_FAILED: &str = "wait_failed";
/// The first version with WAIT FOR.
const WAITS_SINCE: u32 = 19;
/// An answer to it that is so late will not come.
const LATE: Duration = Duration::from_secs(1);

impl Client {
    /// A connection to a replica that has replayed what the read must see, if it does so in time: PostgreSQL 19 says when.
    ///
    /// The question is not sent along with the read: that would run whatever the answer is. The client is not heard
    /// meanwhile.
    /// <https://www.postgresql.org/docs/19/sql-wait-for.html>
    pub(super) async fn wait_on_replica(
        &mut self,
        behind: Behind,
        facts: &Facts,
        now: u64,
    ) -> Result<Replied, ClientError> {
        let Behind { member, position, opened_before } = behind;
        let not_replayed = Replied::Unfit(RouteReason::NotReplayed.label());
        let greeting = self.pool(member).and_then(|pool| pool.greeting());
        let version = greeting.as_ref().and_then(|greeting| greeting.version());
        if version.is_none_or(|version| version < WAITS_SINCE) {
            return Ok(not_replayed);
        }
        let server = match self.check_out_replica(member, facts, opened_before, now).await? {
            Replied::Found(server) => server,
            other => return Ok(other),
        };
        let wait = Duration::from_nanos(self.session.database.topology.wait_for_lsn());
        let command = format!("WAIT FOR LSN '{position}' WITH (TIMEOUT '{}ms', NO_THROW)", wait.as_millis().max(1));
        self.has_waited = true;
        let answer = match timeout(wait.saturating_add(LATE), server::command(server.begin(), &command)).await {
            Ok(answer) => answer,
            Err(_) => return Ok(Replied::Unfit(UNREACHABLE)),
        };
        let (server, status) = match answer {
            Ok((server, _, row)) => (server, row.and_then(|row| row.into_iter().next().flatten())),
            Err(error) => {
                tracing::warn!(member = ?self.session.database.member_name(member), %error, "WAIT FOR failed");
                return Ok(Replied::Unfit(WAIT_FAILED));
            }
        };
        match status.as_deref() {
            Some(b"success") => Ok(Replied::Found(server)),
            status => {
                self.give_back_unused(member, server);
                Ok(Replied::Unfit(if status == Some(b"timeout") { WAIT_TIMEOUT } else { WAIT_FAILED }))
            }
        }
    }
}
