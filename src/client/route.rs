//! Finds a server for a request.

mod behind;
mod equals;

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{Ordering, fence},
    },
    time::Duration,
};

use tokio::time::timeout;

use super::{
    Client, ClientError,
    again::Again,
    cached::FillPlan,
    deadlines,
    decide::{Place, View},
    facts::Facts,
    info::{Activity, Signal},
    link::Link,
};
use crate::{
    cluster::Database,
    insight::Route,
    net::poll_pump,
    pool::{Asking, CheckedOut, CheckoutError, Patience, Pool},
    routing::{Freshness, Health, MemberId, MemberState, RouteReason},
    server::{ExecuteError, Idle, ServerConnection, execute},
    session::{
        SessionSettings,
        request::{REQUEST_LIMIT_BYTES, RequestKind},
    },
};

/// Where a request runs, and why.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placement {
    pub member: MemberId,
    pub route: Route,
    pub reason: &'static str,
    /// How long it waited for a server, nanoseconds.
    pub queued: u64,
    /// The server was assigned for this request.
    pub is_assigned: bool,
}

impl Placement {
    /// On the connection that the client holds anyway.
    pub(super) fn joined(link: &Link) -> Self {
        Self { member: link.member, route: route_of(link.is_primary), reason: "held", queued: 0, is_assigned: false }
    }
}

fn route_of(is_primary: bool) -> Route {
    if is_primary { Route::Primary } else { Route::Replica }
}

/// Replicas that are tried for a request before the primary serves it.
const REPLICAS_TRIED: usize = 2;

/// The reason where a replica gives nobody a connection.
const UNREACHABLE: &str = "replica_unreachable";

/// No sample has been taken since the connection was opened.
const YOUNG: &str = "young_connection";

/// What came of asking a replica for a connection.
enum Replied {
    Found(ServerConnection<Idle>),
    /// The primary serves, for this reason.
    Unfit(&'static str),
    /// Another one may do; why not this one.
    Elsewhere(&'static str),
    /// The client has cancelled its request.
    Cancelled,
}

impl Client {
    /// Gets a server connection for a request; `None` if the client cancelled it while it waited.
    pub(super) async fn link_up(
        &mut self,
        kind: RequestKind,
        facts: &Facts,
        fill: &FillPlan,
    ) -> Result<Option<Placement>, ClientError> {
        self.has_waited = fill.has_waited;
        let mut may_rejoin = true;
        loop {
            let placed = self.link_up_here(kind, facts, fill).await;
            let Err(ClientError::Checkout(error)) = &placed else { return placed };
            let goes_on = match error {
                // Another pool has taken its place.
                CheckoutError::Closed => std::mem::take(&mut may_rejoin) && self.rejoin(),
                // Another member is the primary, or what is known of that is elsewhere now: it is placed anew.
                CheckoutError::Moved => !self.session.database.is_retired() || self.rejoin(),
                _ => false,
            };
            if !goes_on {
                return placed;
            }
        }
    }

    /// After a RELOAD: goes on with the database and the pools that are in force; false if there are none.
    pub(super) fn rejoin(&mut self) -> bool {
        self.member_pools.clear();
        let is_served = self.session.rejoin();
        self.session.max_staleness = self.session.database.settings.max_staleness_of(&self.info.user);
        if let Some(link) = &mut self.link {
            // Members are numbered anew. One that is gone is nobody.
            let member = self.session.database.member_named(&link.pool.key().member);
            link.member = member.unwrap_or(MemberId(u16::MAX));
            // It may be a server of another database than the one whose answers are asked for from now on.
            self.session.transaction.only_asks = false;
            self.pending.tie();
        }
        is_served
    }

    pub(super) async fn link_up_here(
        &mut self,
        kind: RequestKind,
        facts: &Facts,
        fill: &FillPlan,
    ) -> Result<Option<Placement>, ClientError> {
        let asked = self.request_started;
        let mut avoid = match self.again {
            Again::Second(second) if !self.has_waited => Some(second.avoid),
            _ => None,
        };
        let is_whole = matches!(kind, RequestKind::Simple | RequestKind::Sync);
        let mut found_on = None;
        let mut reason = "";
        let mut is_awaited = false;
        for _ in 0..REPLICAS_TRIED {
            // Of one who has waited, nothing that was so when it asked counts.
            let placed = if self.has_waited { self.context.clock.now() } else { asked };
            let decision = self.view().decide(facts, is_whole, fill.fence(), avoid, placed);
            if let Place::Behind(place) = decision.place {
                reason = match Box::pin(self.wait_on_replica(place, facts, placed)).await? {
                    Replied::Found(server) => {
                        found_on = Some((place.member, server));
                        behind::WAITED
                    }
                    Replied::Unfit(why) | Replied::Elsewhere(why) => why,
                    Replied::Cancelled => return Ok(None),
                };
                break;
            }
            let Place::Replica { member, opened_before } = decision.place else {
                is_awaited = decision.place == Place::Awaited;
                // That a replica was not reached says more than that no other will do.
                reason = if reason.is_empty() { decision.reason } else { reason };
                break;
            };
            reason = decision.reason;
            match self.check_out_replica(member, facts, opened_before, placed).await? {
                Replied::Found(server) => found_on = Some((member, server)),
                Replied::Unfit(why) => {
                    is_awaited = why == YOUNG && self.session.database.topology.waits_for_replica();
                    reason = why;
                }
                Replied::Cancelled => return Ok(None),
                Replied::Elsewhere(why) => {
                    is_awaited = self.session.database.topology.waits_for_replica();
                    (reason, avoid) = (why, Some(member));
                    continue;
                }
            }
            break;
        }
        if is_awaited && found_on.is_none() {
            return match Box::pin(self.wait_for_replica(facts, fill, reason)).await? {
                true => Err(ClientError::Checkout(CheckoutError::Moved)),
                false => Ok(None),
            };
        }
        let is_primary = found_on.is_none();
        let (member, mut server) = match found_on {
            Some(found) => found,
            None => {
                let wanted = self.session.sequences.server().filter(|_| facts.asks_for_sequences);
                let Some(found) = self.check_out_primary(wanted).await? else { return Ok(None) };
                found
            }
        };
        let (mut member, mut is_primary) = (member, is_primary);
        while let Some((changes, wanted)) = self.changes_for(&server) {
            let is_as_opened = server.core().settings == server.core().began_with;
            let deadline = self.context.settings().config.server_connect_timeout();
            match Box::pin(restore(server, changes, wanted, deadline)).await {
                Ok(restored) => {
                    server = restored;
                    break;
                }
                // What others have set may stand in the way, a statement_timeout say: that connection is closed.
                Err(ClientError::SettingsLost(_)) if !is_as_opened => {
                    (is_primary, reason) = (true, "settings_refused");
                    let Some(other) = self.check_out_primary(None).await? else { return Ok(None) };
                    (member, server) = other;
                }
                Err(ClientError::ServerGone(error)) if !is_primary => {
                    tracing::warn!(member = ?self.session.database.member_name(member), %error, "replica lost");
                    (is_primary, reason) = (true, UNREACHABLE);
                    let Some(other) = self.check_out_primary(None).await? else { return Ok(None) };
                    (member, server) = other;
                }
                Err(error) => return Err(error),
            }
        }
        let now = if self.has_waited { self.context.clock.now() } else { asked };
        server.assign(self.info.id, now);
        self.info.set_server(&server.core().info);
        self.info.set_activity(Activity::Active);
        // While it waited, another may have taken the primary's place, or the replica may have gone. Who says so looks at
        // who holds a server behind that. No await follows.
        fence(Ordering::SeqCst);
        let has_gone = if is_primary { !self.is_primary(member) } else { self.is_down(member) };
        if has_gone {
            self.info.set_activity(Activity::Idle);
            self.give_back_unused(member, server);
            return Err(ClientError::Checkout(CheckoutError::Moved));
        }
        let Some(pool) = self.pool(member) else {
            return Err(ClientError::Checkout(CheckoutError::Closed));
        };
        self.session.server_opened = server.core().info.connected_at;
        if let Some(member) = self.session.database.topology.member(member) {
            member.state.started();
        }
        let mut link =
            Link::new(server, pool, member, is_primary, self.info.id, self.spare_replies.take().unwrap_or_default());
        if facts.asks_for_sequences {
            link.pool.asks_for_sequences(now);
        }
        link.synchronise(&self.session, self.info.id, now);
        self.link = Some(link);
        self.transaction_started = self.request_started;
        let queued = now.saturating_sub(asked);
        Ok(Some(Placement { member, route: route_of(is_primary), reason, queued, is_assigned: true }))
    }

    /// Asks a replica for a connection that is older than this.
    async fn check_out_replica(
        &mut self,
        member: MemberId,
        facts: &Facts,
        opened_before: u64,
        now: u64,
    ) -> Result<Replied, ClientError> {
        let database = &self.session.database;
        let Some(state) = self.state_of(member) else { return Ok(Replied::Elsewhere(UNREACHABLE)) };
        let settled = match self.freshness(facts) {
            Freshness::Any => Some(0),
            _ => state.settled_at(database.real.defaults_since()),
        };
        let Some(settled) = settled else { return Ok(Replied::Unfit("settings_not_replayed")) };
        if !state.admits(now) {
            return Ok(Replied::Elsewhere(RouteReason::ReplicaBanned.label()));
        }
        let found = self.check_out(member, settled, None, Patience::None).await;
        let (now, draw) = match &found {
            Ok(Some(_)) => (0, 0),
            _ => (self.context.clock.now(), self.draw.next()),
        };
        let Some(state) = self.state_of(member) else { return Ok(Replied::Elsewhere(UNREACHABLE)) };
        match found {
            Ok(Some(found)) => {
                state.reached();
                if found.core().info.connected_at < opened_before {
                    return Ok(Replied::Found(found));
                }
                // The sample says nothing about a server that may have restarted since.
                self.give_back_unused(member, found);
                Ok(Replied::Unfit(YOUNG))
            }
            Ok(None) => {
                state.not_tried(now);
                Ok(Replied::Cancelled)
            }
            Err(ClientError::Checkout(error)) if error.is_servers_fault() => {
                tracing::warn!(member = ?self.session.database.member_name(member), %error, "replica not reached");
                match error.concerns_everybody() {
                    true => state.not_reached(now, draw),
                    false => state.not_tried(now),
                }
                Ok(Replied::Elsewhere(UNREACHABLE))
            }
            Err(error) => {
                state.not_tried(now);
                Err(error)
            }
        }
    }

    fn state_of(&self, member: MemberId) -> Option<&MemberState> {
        self.session.database.topology.member(member).map(|member| &*member.state)
    }

    /// Is it a member that answers nobody, and may another one do?
    pub(super) fn is_down(&self, member: MemberId) -> bool {
        let database = &self.session.database;
        let is_sole = database.primary() == Some(member) && !database.topology.has_equals();
        !is_sole && self.state_of(member).is_some_and(|state| state.health() == Health::Down)
    }

    /// What brings a server to the session's settings, where it may refuse that, and what it is set to then.
    fn changes_for(&self, server: &ServerConnection<Idle>) -> Option<(Vec<String>, SessionSettings)> {
        let core = server.core();
        let is_custom = |name: &&str| name.contains('.');
        // Learning takes a lock.
        if core.began_with.iter().map(|(name, _)| name).any(|name| is_custom(&name)) {
            self.session.learn_settings(core.began_with.iter().map(|(name, _)| name).filter(is_custom));
        }
        let wanted = core.settings_for(&self.session.settings);
        if !wanted.may_be_refused(&core.settings) {
            return None;
        }
        let change = wanted.restore(&core.settings)?;
        let encoding = self.session.parameters.get("client_encoding").unwrap_or_default();
        let is_recoded = core.parameters.get("client_encoding") != Some(encoding);
        let recoding = is_recoded.then(|| format!("SET client_encoding='{encoding}'"));
        // A timeout that strikes as its statement ends is told with the next one: that is to be one of our own.
        let echo = core.settings.get("statement_timeout").map(|_| String::new());
        Some((recoding.into_iter().chain([change]).chain(echo).collect(), wanted.into_owned()))
    }

    fn is_primary(&self, member: MemberId) -> bool {
        let database = &self.session.database;
        (database.primary() == Some(member) || database.topology.takes_writes(member)) && !database.is_retired()
    }

    /// A connection to the primary, once there is one; where several members take writes, to the one whose turn it is.
    pub(super) async fn check_out_primary(
        &mut self,
        wanted: Option<u64>,
    ) -> Result<Option<(MemberId, ServerConnection<Idle>)>, ClientError> {
        if self.session.database.topology.has_equals() {
            return Box::pin(self.check_out_equal(wanted)).await;
        }
        self.check_out_sole(wanted).await
    }

    async fn check_out_sole(
        &mut self,
        wanted: Option<u64>,
    ) -> Result<Option<(MemberId, ServerConnection<Idle>)>, ClientError> {
        let primary = match self.session.database.primary() {
            Some(primary) => primary,
            None => match Box::pin(self.wait_for_primary()).await? {
                Some(primary) => primary,
                None => return Ok(None),
            },
        };
        let since = self.session.database.real.defaults_since();
        let patience = patience(&self.session.database, primary);
        Ok(self.check_out(primary, since, wanted, patience).await?.map(|server| (primary, server)))
    }

    /// What is known of the session.
    pub(super) fn view(&self) -> View<'_> {
        let session = &self.session;
        View {
            database: &session.database,
            catalog: session.known_catalog(),
            user: &session.user,
            settings: &session.settings,
            own: &session.own,
            max_staleness: session.max_staleness,
            keeps_server: self.keeps_server,
            fence: session.fence,
            home: session.home,
        }
    }

    /// How fresh a read must be.
    pub(super) fn freshness(&self, facts: &Facts) -> Freshness {
        self.view().freshness(facts)
    }

    /// Waits for a replica that can serve (`primary_reads = never`); false if the client cancelled its request.
    async fn wait_for_replica(
        &mut self,
        facts: &Facts,
        fill: &FillPlan,
        reason: &'static str,
    ) -> Result<bool, ClientError> {
        let demand = self.view().demand(facts, fill.fence(), self.context.clock.now());
        let (database, context) = (Arc::clone(&self.session.database), Arc::clone(&self.context));
        tracing::debug!(client = self.info.id, db = %database.name, reason, "no replica serves: the read waits for one");
        let served = async move {
            // Retired or not, the request is placed anew.
            database.member_serves(&demand, || context.clock.now()).await;
            Ok(())
        };
        match self.wait_for(None, Box::pin(served)).await {
            Err(ClientError::Checkout(CheckoutError::WaitTimeout { waited, .. })) => {
                let pins = format!("no replica can serve it ({reason}), and primary_reads is never");
                Err(CheckoutError::WaitTimeout { waited, pins }.into())
            }
            waited => Ok(waited?.is_some()),
        }
    }

    fn pool(&mut self, member: MemberId) -> Option<Arc<Pool>> {
        let at = usize::from(member.0);
        if self.member_pools.len() <= at {
            self.member_pools.resize(at + 1, None);
        }
        let slot = self.member_pools.get_mut(at)?;
        if slot.is_none() {
            *slot = self.context.directory.pool(&self.session.database, &self.session.user, member);
        }
        slot.clone()
    }

    pub(super) fn give_back_unused(&mut self, member: MemberId, server: ServerConnection<Idle>) {
        if let Some(pool) = self.pool(member) {
            pool.check_in(server, self.answered.max(self.request_started));
        }
    }

    /// A connection opened at `since` or later, the `wanted` one if it is idle; older ones are closed, because they have settings that sessions no
    /// longer begin with.
    pub(super) async fn check_out(
        &mut self,
        member: MemberId,
        since: u64,
        wanted: Option<u64>,
        patience: Patience,
    ) -> Result<Option<ServerConnection<Idle>>, ClientError> {
        loop {
            let found = self.check_out_any(member, wanted, patience).await?;
            match found {
                Some(old) if old.core().info.connected_at < since => drop(old),
                found => return Ok(found),
            }
        }
    }

    /// A connection; `None` if the client cancelled its request while it waited.
    pub(super) async fn check_out_any(
        &mut self,
        member: MemberId,
        wanted: Option<u64>,
        patience: Patience,
    ) -> Result<Option<ServerConnection<Idle>>, ClientError> {
        let Some(pool) = self.pool(member) else {
            return Err(ClientError::Checkout(CheckoutError::Closed));
        };
        // Patience ends by a nudge, not by a timer.
        let asking = Asking { worker: self.worker, wait: Duration::ZERO, wanted, patience };
        match pool.check_out(asking)? {
            CheckedOut::Now(server) => Ok(Some(server)),
            // An idle client pays for what a waiting one keeps, unless that is kept apart.
            CheckedOut::Later(server) => match Box::pin(self.wait_for(Some(member), server)).await {
                Err(ClientError::Checkout(CheckoutError::WaitTimeout { waited, .. })) => {
                    Err(pool.wait_timeout(waited).into())
                }
                waited => waited,
            },
        }
    }

    /// `None` if the client cancelled its request while it waited.
    async fn wait_for_primary(&mut self) -> Result<Option<MemberId>, ClientError> {
        let database = Arc::clone(&self.session.database);
        tracing::debug!(client = self.info.id, db = %database.name, "no member is primary: the request waits for one");
        let known = async move { database.primary_known().await.ok_or(CheckoutError::Moved) };
        match self.wait_for(None, Box::pin(known)).await {
            Err(ClientError::Checkout(CheckoutError::WaitTimeout { waited, .. })) => {
                Err(CheckoutError::WaitTimeout { waited, pins: "no member takes writes".to_owned() }.into())
            }
            waited => waited,
        }
    }

    /// Waits for something, of `member` perhaps, and watches the client meanwhile; `None` if it cancelled its request.
    async fn wait_for<T>(
        &mut self,
        member: Option<MemberId>,
        wanted: Pin<Box<dyn Future<Output = Result<T, CheckoutError>> + Send>>,
    ) -> Result<Option<T>, ClientError> {
        self.wait_watching(member, false, wanted).await
    }

    /// The same for one who is not to be told that it waits for long, if `is_notified`.
    pub(super) async fn wait_watching<T>(
        &mut self,
        member: Option<MemberId>,
        mut is_notified: bool,
        wanted: Pin<Box<dyn Future<Output = Result<T, CheckoutError>> + Send>>,
    ) -> Result<Option<T>, ClientError> {
        let mut wanted = wanted;
        let info = Arc::clone(&self.info);
        // An older wish to be woken would be served first.
        self.signalled = None;
        // A wish that came as the last wait ended was for the request before.
        info.take_cancel();
        let since = if self.has_waited { info.waits_since() } else { self.context.clock.now() };
        info.wait_since(since);
        self.has_waited = true;
        let waited = loop {
            let has_room = self.io.inbox.len() < REQUEST_LIMIT_BYTES;
            if info.take_nudge() {
                // It may hang: another one serves.
                if member.is_some_and(|member| self.is_down(member)) {
                    break Err(CheckoutError::Moved.into());
                }
                match self.check_patience(since, is_notified) {
                    Ok(true) => {
                        is_notified = true;
                        deadlines::put_queued(self.io.outbox.buffer());
                    }
                    Ok(false) => {}
                    Err(late) => break Err(late),
                }
            }
            let io = &mut self.io;
            // Each branch is cancel safe: a checkout stays pinned, a read loses nothing, a signal stays set.
            tokio::select! {
                biased;
                waited = &mut wanted => break waited.map(Some).map_err(ClientError::from),
                () = info.signalled() => match info.signal() {
                    Signal::CancelWait => {
                        info.take_cancel();
                        break Ok(None);
                    }
                    Signal::Drain => break Err(ClientError::ShuttingDown),
                    other => if let Some(end) = other.end() {
                        break Err(end);
                    },
                },
                pumped = poll_fn(|cx| poll_pump(io, None, has_room, cx)) => if let Err(error) = pumped {
                    break Err(error.into());
                },
            }
        };
        info.set_activity(Activity::Idle);
        waited
    }

    /// The link is gone: nothing points at it any more.
    pub(super) fn note_unlinked(&self, member: MemberId) {
        self.info.set_activity(Activity::Idle);
        if let Some(member) = self.session.database.topology.member(member) {
            member.state.finished();
        }
    }
}

/// How long one waits for a member that cannot be reached.
pub(super) fn patience(database: &Database, member: MemberId) -> Patience {
    match database.primary() == Some(member) {
        true if database.may_fail_over() => Patience::ForFailover,
        true => Patience::UntilHopeless,
        false => Patience::None,
    }
}

/// Brings a server to settings that it may refuse, before anything that needs them is sent.
async fn restore(
    server: ServerConnection<Idle>,
    changes: Vec<String>,
    settings: SessionSettings,
    deadline: Duration,
) -> Result<ServerConnection<Idle>, ClientError> {
    let mut server = server;
    // One message each: what comes in one is read in one encoding.
    for change in changes {
        server = match timeout(deadline, execute(server.begin(), &change)).await {
            Ok(Ok(server)) => server,
            Ok(Err(ExecuteError::Refused { frame })) => return Err(ClientError::SettingsLost(frame)),
            Ok(Err(ExecuteError::Io(error))) => return Err(ClientError::ServerGone(error)),
            Ok(Err(ExecuteError::Frame(_))) => return Err(ClientError::ServerProtocol("an answer to SET")),
            Err(_) => return Err(ClientError::ServerGone(std::io::ErrorKind::TimedOut.into())),
        };
    }
    server.carries(settings);
    Ok(server)
}
