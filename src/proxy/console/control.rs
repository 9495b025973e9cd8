//! What the console does to the process.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::timeout;

use crate::{
    admin::{self, ConsoleError, PauseTicket, command::FlushTarget},
    client::{Signal, random},
    pool::Pool,
    proxy::{Proxy, suspension, switches::Standing},
    routing::MemberId,
};

/// How often PAUSE and its like look whether what they wait for has come.
pub(in crate::proxy) const POLL: Duration = Duration::from_millis(20);
/// How long KILL waits for those that it has told to leave.
const FAREWELL: Duration = Duration::from_secs(2);

type Done = Result<(), ConsoleError>;

/// Polls: what is waited for is rare, and nobody is to be told.
async fn wait_until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(POLL).await;
    }
}

/// A name that is configured, or that `*` makes a database of.
fn known(proxy: &Proxy, database: Option<&str>) -> Done {
    match database {
        Some(name) if proxy.installation.find_or_make(name).is_err() => {
            Err(ConsoleError::NoSuchDatabase(name.to_owned()))
        }
        _ => Ok(()),
    }
}

/// The pools of a database, or all.
fn pools_of(proxy: &Proxy, database: Option<&str>) -> Vec<Arc<Pool>> {
    let mut pools = proxy.context.pools.all();
    pools.retain(|pool| database.is_none_or(|name| *pool.key().database == *name));
    pools
}

pub(super) fn pause(proxy: &Proxy, database: Option<&str>) -> Result<PauseTicket, ConsoleError> {
    known(proxy, database)?;
    proxy.installation.switch(|switches| switches.pause(database)).ok_or(ConsoleError::AlreadyPaused)
}

/// Ready when all server connections are gone, or somebody has ended the pause.
pub(super) async fn paused(proxy: Arc<Proxy>, ticket: &PauseTicket) -> Done {
    let mut standing = Standing::Waits;
    wait_until(|| {
        let are_left = pools_of(&proxy, ticket.database.as_deref()).iter().any(|pool| !pool.is_empty());
        standing = proxy.installation.switches().standing(ticket, are_left);
        standing != Standing::Waits
    })
    .await;
    if standing == Standing::Resumed { Err(ConsoleError::Resumed) } else { Ok(()) }
}

pub(super) fn resume(proxy: &Proxy, database: Option<&str>) -> Done {
    let Some(name) = database else {
        if proxy.context.is_shutting_down.load(Ordering::Relaxed) {
            return Err(ConsoleError::ShuttingDown);
        }
        let was_paused = proxy.installation.switch(|switches| switches.resume(None));
        suspension::follow(proxy);
        return if was_paused { Ok(()) } else { Err(ConsoleError::NotPaused) };
    };
    if proxy.installation.find(name).is_none() && !admin::DATABASES.contains(&name) {
        return Err(ConsoleError::NoSuchDatabase(name.to_owned()));
    }
    let was_paused = proxy.installation.switch(|switches| switches.resume(Some(name)));
    if was_paused { Ok(()) } else { Err(ConsoleError::DatabaseNotPaused(name.to_owned())) }
}

/// Ends clients and servers, and leaves paused every database that it was for: all that have a pool where none is named.
pub(super) async fn kill(proxy: Arc<Proxy>, database: Option<&str>) -> Done {
    known(&proxy, database)?;
    let named = database.map(str::to_owned).into_iter();
    let pooled = pools_of(&proxy, database).into_iter().map(|pool| pool.key().database.to_string());
    let names: BTreeSet<String> = named.chain(pooled).collect();
    proxy.installation.switch(|switches| {
        for name in &names {
            switches.pause_by_name(name);
        }
    });
    let clients = || proxy.context.clients.iter().filter(|client| names.contains(&*client.database));
    clients().for_each(|client| client.send(Signal::Remove));
    let are_gone = || clients().next().is_none() && pools_of(&proxy, database).iter().all(|pool| pool.is_empty());
    _ = timeout(FAREWELL, wait_until(are_gone)).await;
    Ok(())
}

pub(super) async fn kill_client(proxy: Arc<Proxy>, id: u64) -> Done {
    let client = proxy.context.clients.get(&id).map(|client| Arc::clone(client.value()));
    client.ok_or(ConsoleError::ClientNotFound)?.send(Signal::Disconnect);
    _ = timeout(FAREWELL, wait_until(|| !proxy.context.clients.contains_key(&id))).await;
    Ok(())
}

pub(super) fn reconnect(proxy: &Proxy, database: Option<&str>) -> Done {
    known(proxy, database)?;
    pools_of(proxy, database).iter().for_each(|pool| pool.renew());
    Ok(())
}

/// Ready when no connection is left that is to be replaced.
pub(super) async fn wait_close(proxy: Arc<Proxy>, database: Option<&str>) -> Done {
    known(&proxy, database)?;
    let has_worn = |pool: &Arc<Pool>| pool.servers().iter().any(|server| pool.is_worn(server));
    wait_until(|| !pools_of(&proxy, database).iter().any(has_worn)).await;
    Ok(())
}

pub(super) fn disable(proxy: &Proxy, database: &str) -> Done {
    known(proxy, Some(database))?;
    proxy.installation.switch(|switches| switches.disable(database, true));
    Ok(())
}

pub(super) fn enable(proxy: &Proxy, database: &str) -> Done {
    if proxy.installation.find(database).is_none() {
        return Err(ConsoleError::NoSuchDatabase(database.to_owned()));
    }
    proxy.installation.switch(|switches| switches.disable(database, false));
    Ok(())
}

pub(super) fn flush_cache(proxy: &Proxy, target: &FlushTarget) -> Done {
    let now = proxy.context.clock.now();
    match target {
        FlushTarget::All => {
            for served in proxy.installation.all() {
                served.database.cells.flush(None, now, random);
            }
        }
        FlushTarget::Database(name) => {
            let served = proxy.installation.find(name);
            let served = served.ok_or_else(|| ConsoleError::NoSuchDatabase(name.clone()))?;
            served.database.cells.flush(None, now, random);
        }
        FlushTarget::Table { database, schema, table } => {
            let served = proxy.installation.find(database);
            let served = served.ok_or_else(|| ConsoleError::NoSuchDatabase(database.clone()))?;
            let catalog = served.database.catalog();
            let relation = catalog.as_ref().and_then(|catalog| catalog.snapshot.relation_named(schema, table));
            let unknown = || ConsoleError::NoSuchTable(format!("{schema}.{table}"));
            served.database.cells.flush(Some(relation.ok_or_else(unknown)?), now, random);
        }
    }
    Ok(())
}

/// Nothing is sent to the member until that is taken back.
pub(super) fn set_ban(proxy: &Proxy, name: &str, is_banned: bool) -> Done {
    for served in proxy.installation.all() {
        let members = served.database.topology.members();
        if let Some(member) = members.iter().find(|member| *member.name == *name && member.id != MemberId(0)) {
            member.state.set_banned(is_banned);
            return Ok(());
        }
    }
    Err(ConsoleError::NoSuchMember(name.to_owned()))
}
