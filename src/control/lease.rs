//! The right to use one pooled control connection.

use std::{
    future::Future,
    ops::Deref,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use deadpool_postgres::Object;
use tokio_postgres::{Client, Row, types::ToSql};

use super::{Act, ControlError};

/// A control connection until it is dropped.
///
/// One whose work was cut off (deadline, dropped future) is closed and not reused: the server may still be busy with it.
pub struct Lease {
    client: Option<Object>,
    deadline: Duration,
    is_cut_off: AtomicBool,
}

impl Lease {
    pub(super) fn new(client: Object, deadline: Duration) -> Self {
        Self { client: Some(client), deadline, is_cut_off: AtomicBool::new(false) }
    }

    /// Runs one statement within the statement deadline.
    pub async fn query(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, ControlError> {
        let client = self.client()?;
        Ok(self.within(self.deadline, client.query(sql, parameters)).await??)
    }

    /// Runs work on this connection (see [`Lease::client`]) until `deadline`.
    pub async fn within<T>(&self, deadline: Duration, work: impl Future<Output = T>) -> Result<T, ControlError> {
        self.is_cut_off.store(true, Ordering::Relaxed);
        let outcome = tokio::time::timeout(deadline, work).await;
        self.is_cut_off.store(outcome.is_err(), Ordering::Relaxed);
        outcome.map_err(|_| ControlError::Deadline { act: Act::Statement, after: deadline })
    }

    /// Closes the connection: the next lease has one that was opened later.
    pub fn close(mut self) {
        *self.is_cut_off.get_mut() = true;
    }

    /// The connection, for work of several statements.
    pub fn client(&self) -> Result<&Client, ControlError> {
        self.client.as_ref().map(|object| object.deref().deref()).ok_or(ControlError::Closed)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(client) = self.client.take().filter(|_| *self.is_cut_off.get_mut()) {
            drop(Object::take(client));
        }
    }
}
