//! A connection to Redis, of whichever kind.

use redis::{Pipeline, RedisError, RedisResult, aio::MultiplexedConnection, cluster_async::ClusterConnection};

use super::breaker::Cause;

/// A handle: clones share the sockets, and requests of all threads stand in one queue.
#[derive(Clone)]
pub(super) enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// A value on its way there: its key, itself, and for how long it stays, in milliseconds.
pub(super) struct Stored {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub lifetime_ms: u32,
}

impl Connection {
    /// At most so many bytes of a value (nothing, if there is none), and for how many milliseconds it will stay; negative:
    /// for ever, or it is gone. A longer value than was stored does not come here whole.
    pub(super) async fn read(&mut self, key: &[u8], limit: usize) -> RedisResult<(Vec<u8>, i64)> {
        let mut both = redis::pipe();
        both.cmd("GETRANGE").arg(key).arg(0).arg(limit).cmd("PTTL").arg(key);
        self.run(&both).await
    }

    pub(super) async fn write(&mut self, values: &[Stored]) -> RedisResult<()> {
        let set = |stored: &Stored, all: &mut Pipeline| {
            let set = all.cmd("SET").arg(&stored.key).arg(&stored.value);
            set.arg("PX").arg(stored.lifetime_ms).ignore();
        };
        match self {
            Self::One(_) => {
                let mut all = redis::pipe();
                values.iter().for_each(|stored| set(stored, &mut all));
                self.run(&all).await
            }
            // Each has a place of its own there.
            Self::Cluster(_) => {
                for stored in values {
                    let mut one = redis::pipe();
                    set(stored, &mut one);
                    self.run::<()>(&one).await?;
                }
                Ok(())
            }
        }
    }

    pub(super) async fn ping(&mut self) -> RedisResult<()> {
        let ping = redis::cmd("PING");
        match self {
            Self::One(connection) => ping.exec_async(connection).await,
            Self::Cluster(connection) => ping.exec_async(connection).await,
        }
    }

    async fn run<T: redis::FromRedisValue>(&mut self, commands: &Pipeline) -> RedisResult<T> {
        match self {
            Self::One(connection) => commands.query_async(connection).await,
            Self::Cluster(connection) => commands.query_async(connection).await,
        }
    }
}

/// What an error means for whether to go on.
pub(super) fn cause(error: &RedisError) -> Cause {
    if error.is_timeout() {
        Cause::Timeout
    } else if error.is_io_error() || error.is_connection_dropped() || error.is_unrecoverable_error() {
        Cause::Lost
    } else {
        Cause::Refused
    }
}
