//! The control plane's own connections to PostgreSQL: catalog loads, EXPLAIN, `auth_query`, in-doubt checks.
//!
//! Client traffic never comes here, so a full client pool cannot starve a probe and a slow catalog query
//! cannot hold a client up. Everything runs on the runtime of the caller, and every await has a deadline.

mod error;
mod lease;
mod session;
mod target;
mod tls;

use std::{fmt, time::Duration};

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
pub use tokio_postgres::Notification;
use tokio_postgres::{Row, types::ToSql};

use self::tls::Connector;
pub use self::{
    error::{Act, ControlError, FailureKind},
    lease::Lease,
    session::{ServerMessage, Session, within},
    target::{Deadlines, Target},
};

/// What the control plane calls itself in `pg_stat_activity`.
pub const APPLICATION_NAME: &str = "pgweir-control";

/// Connections the control plane may hold to one member; they come out of the server's `max_connections`.
pub const CONNECTIONS_PER_MEMBER: usize = 3;

/// A small pool for each member of one database's cluster; a member's index is its place in `new`'s list.
pub struct Control {
    pools: Box<[Pool]>,
    deadlines: Deadlines,
}

impl Control {
    /// Opens nothing yet: a member that is down costs nothing until somebody asks for it.
    pub fn new(targets: &[Target], deadlines: Deadlines) -> Result<Self, ControlError> {
        let pools = targets.iter().map(|target| pool(target, deadlines)).collect::<Result<_, _>>()?;
        Ok(Self { pools, deadlines })
    }

    /// A connection to `member` until the lease is dropped.
    pub async fn lease(&self, member: u16) -> Result<Lease, ControlError> {
        let pool = self.pools.get(usize::from(member)).ok_or(ControlError::UnknownMember(member))?;
        match pool.get().await {
            Ok(client) => Ok(Lease::new(client, self.deadlines.statement)),
            Err(error) => Err(ControlError::from_pool(error, self.deadlines)),
        }
    }

    /// Runs one statement on `member` within the statement deadline.
    pub async fn query(
        &self,
        member: u16,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, ControlError> {
        self.lease(member).await?.query(sql, parameters).await
    }

    /// Longest time one statement of the control plane may take.
    pub fn statement_deadline(&self) -> Duration {
        self.deadlines.statement
    }

    /// Members this control plane knows.
    pub fn members(&self) -> usize {
        self.pools.len()
    }

    /// Closes idle connections and refuses further leases; leases that are out end with their holder.
    pub fn close(&self) {
        self.pools.iter().for_each(Pool::close);
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Control").field("members", &self.pools.len()).finish_non_exhaustive()
    }
}

fn pool(target: &Target, deadlines: Deadlines) -> Result<Pool, ControlError> {
    let recycling_method = RecyclingMethod::Fast;
    let manager = Manager::from_config(
        target.client_config(deadlines),
        Connector::new(&target.tls),
        ManagerConfig { recycling_method },
    );
    Pool::builder(manager)
        .max_size(CONNECTIONS_PER_MEMBER)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(deadlines.statement))
        .create_timeout(Some(deadlines.connect))
        .recycle_timeout(Some(deadlines.connect))
        .build()
        .map_err(|error| ControlError::Setup(error.to_string()))
}
