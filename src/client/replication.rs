//! Replication connections: a server connection of their own, and every byte passes. Where it may write, others hear of it
//! first ([`judge`]).
//!
//! <https://www.postgresql.org/docs/current/protocol-replication.html>

mod judge;

use std::{future::poll_fn, sync::Arc};

use tokio::time::timeout;

use self::judge::{Judge, Unheard};
use super::{
    ClientError,
    admission::Admission,
    cancel::OwnKey,
    context::Context,
    info::{Activity, ClientInfo},
    login::Request,
    unheard::HEARD_WITHIN,
    visitor::Visitor,
};
use crate::{
    cache::invalidation::{Origin, Ticket},
    cluster::Database,
    net::{Endpoint, PeerError, poll_pump},
    pool::{Asking, Pool},
    protocol::backend,
    routing::MemberId,
    server::{Busy, ServerConnection},
};

/// What a walsender is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replication {
    /// `replication=database`: changes of one database.
    Logical,
    /// `replication=true`: the WAL as it is, of no database.
    Physical,
}

impl Replication {
    /// The value of the start-up parameter; an error is the text to refuse it with.
    pub(super) fn read(value: &str) -> Result<Option<Self>, String> {
        match value.to_ascii_lowercase().as_str() {
            "database" => Ok(Some(Self::Logical)),
            "true" | "on" | "yes" | "1" => Ok(Some(Self::Physical)),
            "" | "false" | "off" | "no" | "0" => Ok(None),
            _ => Err(format!("invalid value for parameter \"replication\": \"{value}\"")),
        }
    }

    /// As the log and SHOW CLIENTS call it.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Logical => "logical",
            Self::Physical => "physical",
        }
    }

    fn parameter(self) -> &'static str {
        match self {
            Self::Logical => "database",
            Self::Physical => "true",
        }
    }
}

/// A client with its own walsender.
pub(super) struct Replica {
    pub info: Arc<ClientInfo>,
    pub key: OwnKey,
    server: ServerConnection<Busy>,
    pool: Arc<Pool>,
    database: Arc<Database>,
    /// It may run SQL.
    judge: Option<Judge>,
    _admission: Admission,
}

/// Opens the server connection in the place of one of the pool's: the limits hold. What the client asks for at its start
/// goes to the server as it is.
pub(super) async fn open(
    io: &mut Endpoint,
    (context, visitor): (&Arc<Context>, &Visitor),
    (database, pool, asking): (&Arc<Database>, &Arc<Pool>, Asking),
    (request, replication): (&Request, Replication),
    admission: Admission,
) -> Result<Replica, ClientError> {
    let mut more = request.parameters.clone();
    more.retain(|(name, _)| !name.starts_with("pgweir."));
    more.push(("replication".to_owned(), replication.parameter().to_owned()));
    let place = pool.check_out(asking)?.ready().await?;
    let (server, reported) = Box::pin(pool.dedicate(place, &more, asking.worker)).await.map_err(ClientError::from)?;
    let mut info = ClientInfo::new(
        visitor.id,
        request.database.as_str().into(),
        request.user.as_str().into(),
        visitor.peer,
        &io.stream,
        visitor.accepted_at,
        request.application_name.clone(),
    );
    info.replication = replication.label();
    let info = Arc::new(info);
    server.assign(info.id, context.clock.now());
    server.core().info.gate.hold(info.id);
    info.set_server(&server.core().info);
    info.set_activity(Activity::Active);
    let key =
        context.cancel_keys.issue(&info, context.settings().config.pgbouncer.peer_id as u16, super::login::draws());
    let out = io.outbox.buffer();
    super::login::negotiate(out, request);
    out.extend_from_slice(backend::AUTHENTICATION_OK);
    for (name, value) in &reported {
        backend::put_parameter_status(out, name, value);
    }
    super::login::end_login(io, context, &info, key, "").await?;
    let judge = (replication == Replication::Logical).then(|| {
        let member = database.member_named(&pool.key().member).unwrap_or(MemberId(0));
        let process_id = server.core().info.remote_pid as i32;
        let origin = Origin { entry: database.entry, member, process_id };
        Judge::new(Arc::clone(database), origin, super::random)
    });
    let (pool, database) = (Arc::clone(pool), Arc::clone(database));
    Ok(Replica { info, key, server: server.begin(), pool, database, judge, _admission: admission })
}

/// Until one of the two leaves. The server connection is closed then: it is nobody else's.
pub(super) async fn serve(mut io: Endpoint, mut replica: Box<Replica>, context: &Arc<Context>) {
    let info = Arc::clone(&replica.info);
    let end = relay(&mut io, &mut replica, context, &info).await;
    let error = end.err().unwrap_or(ClientError::Terminated);
    context.clients.remove(&info.id);
    context.cancel_keys.revoke(replica.key);
    replica.server.core().info.gate.let_go();
    _ = replica.server.core().info.end.set("client disconnected");
    Visitor::of(&info).log_end(context, &error);
    context.tally.ended(&error);
    let is_told = matches!(
        error,
        ClientError::ShuttingDown | ClientError::Disconnected | ClientError::DatabaseRemoved | ClientError::Deposed
    );
    if is_told {
        super::say_farewell(&mut io, &error).await;
    }
}

async fn relay(
    io: &mut Endpoint,
    replica: &mut Replica,
    context: &Context,
    info: &ClientInfo,
) -> Result<(), ClientError> {
    let Replica { server, pool, database, judge, .. } = replica;
    server.core_mut().endpoint.change_task();
    loop {
        if pool.is_deposed(&server.core().info) {
            return Err(ClientError::Deposed);
        }
        let from_server = &mut server.core_mut().endpoint;
        match judge {
            Some(judge) => {
                let told = judge.take_server(&mut from_server.inbox, || context.clock.now())?;
                be_heard(database, info, told).await?;
                let begun = judge.take_client(&mut io.inbox, &context.analyzer)?;
                be_heard(database, info, begun).await?;
                if told != Unheard::Nothing || begun != Unheard::Nothing {
                    continue;
                }
            }
            None => {
                io.inbox.pass(io.inbox.unread().len());
                from_server.inbox.pass(from_server.inbox.unread().len());
            }
        }
        let pumped = poll_fn(|cx| {
            if info.comes_to_rest(|| io.is_at_rest() && from_server.is_at_rest()) {
                return std::task::Poll::Pending;
            }
            poll_pump(io, Some(from_server), true, cx)
        });
        // Both branches are cancel safe: what was read stays in the buffers.
        tokio::select! {
            pumped = pumped => {
                pumped.map_err(|error: PeerError| ClientError::from(error))?;
            }
            () = info.signalled() => if let Some(end) = info.signal().end() {
                return Err(end);
            },
        }
    }
}

/// Waits until other proxies have heard of what is about to pass; nothing leaves meanwhile, in either direction.
async fn be_heard(database: &Database, info: &ClientInfo, unheard: Unheard) -> Result<(), ClientError> {
    let (ticket, may_be_committed) = match unheard {
        Unheard::Nothing | Unheard::Commit(Ticket::NONE) | Unheard::End(Ticket::NONE) => return Ok(()),
        Unheard::Commit(ticket) => (ticket, false),
        Unheard::End(ticket) => (ticket, true),
    };
    let Some(bus) = database.real.bus() else { return Ok(()) };
    let heard = timeout(HEARD_WITHIN, bus.heard(ticket));
    tokio::pin!(heard);
    loop {
        // Both branches are cancel safe.
        tokio::select! {
            heard = &mut heard => return heard.map_err(|_| ClientError::Unheard { may_be_committed }),
            () = info.signalled() => if let Some(end) = info.signal().end() {
                return Err(end);
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameter_is_read_as_postgresql_reads_it() {
        assert_eq!(Replication::read("database"), Ok(Some(Replication::Logical)));
        assert_eq!(Replication::read("TRUE"), Ok(Some(Replication::Physical)));
        assert_eq!(Replication::read("off"), Ok(None));
        assert!(Replication::read("maybe").is_err());
    }
}
