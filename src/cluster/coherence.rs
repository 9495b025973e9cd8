//! Keeps this process a member among the proxies that cache the same database, and carries what they tell each other.
//!
//! What is told and what follows from it is decided in `cache::bus`. Here the primary is asked who is a member, by locks that
//! end with their sessions, and Redis carries messages.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{Database, under_way::Asker};
use crate::{
    cache::bus::{
        Bus,
        frame::{FrameError, Message, NodeId, Seal},
        transport::{Listen, Speak},
    },
    clock::Clock,
    control::{Act, ControlError, Deadlines, Session, Target, within},
    routing::MemberId,
};

/// Between two looks at the list of members.
const LIST_EVERY: Duration = Duration::from_millis(200);
/// What time asks for is done as often as this.
const TICK: Duration = Duration::from_millis(20);
const PAUSE: Duration = Duration::from_millis(100);
/// A primary that is slow for a moment shall not cost the membership: a late list is worth nothing, the next one is.
const DEADLINES: Deadlines = Deadlines { connect: Duration::from_secs(2), statement: Duration::from_secs(5) };

/// Attempts to have its lock, with a pause between them, after which another name is easier to have: a session of before
/// that the server has not missed yet is gone by then.
const TAKEN_FOR_GOOD: u32 = 80;

/// The upper 16 bits of the number of an advisory lock of ours; a node is the other 48.
/// <https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS>
const LOCK_MARK: i64 = 0x7077;
const NODE_BITS: u32 = 48;

/// What tells this database from others, to whoever holds a session on the same primary; anybody may ask for it.
const IDENTITY: &str = "\
    SELECT (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::pg_catalog.int8, \
           (SELECT oid::pg_catalog.int8 FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()), \
           pg_catalog.pg_is_in_recovery()";
/// A lock must not outlive its holder's way to the server: by default a connection that is lost in silence stays for hours.
const WATCHFUL: [&str; 5] = [
    "SET idle_session_timeout = '5s'",
    "SET tcp_keepalives_idle = 2",
    "SET tcp_keepalives_interval = 1",
    "SET tcp_keepalives_count = 3",
    "SET tcp_user_timeout = '5s'",
];
const LOCK: &str = "SELECT pg_catalog.pg_try_advisory_lock($1)";
const LIST: &str = "\
    SELECT (classid::pg_catalog.int8 << 32) | objid::pg_catalog.int8 FROM pg_catalog.pg_locks \
     WHERE NOT pg_catalog.pg_is_in_recovery() AND locktype = 'advisory' AND objsubid = 1 AND granted AND classid::pg_catalog.int8 >> 16 = $1 \
       AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())";

/// A name for this process, sharing a database from now on: older ones are smaller.
#[must_use]
pub fn new_node(random: u64) -> NodeId {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    NodeId(((seconds & 0xffff_ffff) << 16) | (random & 0xffff))
}

/// Why this process is not a member.
#[derive(Debug, thiserror::Error)]
enum MembershipError {
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("another process has its name")]
    Taken,
    #[error("the primary has changed")]
    Moved,
}

impl From<tokio_postgres::Error> for MembershipError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Control(error.into())
    }
}

/// What this process needs to be a member.
pub struct Membership {
    /// The database.
    pub database: Arc<Database>,
    /// Its members, by id.
    pub targets: Vec<Target>,
    /// What it has told and heard.
    pub bus: Arc<Bus>,
    /// The secret of the cache.
    pub secret: String,
    /// The clock of the process.
    pub clock: Clock,
    /// A random number.
    pub draw: fn() -> u64,
}

impl Membership {
    /// Somebody will [`Self::run`] it.
    pub fn begin(&self) {
        self.database.real.carriers.fetch_add(1, Ordering::AcqRel);
    }

    /// Until `stop`. Where several entries lead to the same database one of them carries at a time, and the last one says
    /// farewell: because the process ends, if `process` has been cancelled, else because nothing is cached any more.
    pub async fn run(
        &self,
        mut speaker: impl Speak,
        mut listener: impl Listen,
        stop: &CancellationToken,
        process: &CancellationToken,
    ) {
        let real = &self.database.real;
        // Cancel safe.
        let turn = tokio::select! {
            () = stop.cancelled() => None,
            turn = real.carrying.lock() => Some(turn),
        };
        let channel = match turn {
            Some(_) => self.carry(&mut speaker, &mut listener, stop).await,
            None => None,
        };
        if real.carriers.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        self.bus.work(|member, cells, _| member.leave(cells));
        if let (Some(channel), Some(message)) = (channel, self.message()) {
            speaker.say(&channel, Seal::new(&self.secret, &channel).put(&message)).await;
        }
        // Where the process ends, what is still written waits for its end.
        if !process.is_cancelled() {
            self.bus.leave();
        }
    }

    /// Returns the channel of the database.
    async fn carry(
        &self,
        speaker: &mut impl Speak,
        listener: &mut impl Listen,
        stop: &CancellationToken,
    ) -> Option<String> {
        self.bus.rejoin(new_node((self.draw)()));
        let (channel, known) = watch::channel(None::<String>);
        // Cancel safe: what is lost in between shows by its number.
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.be_listed(&channel) => {}
            () = self.listen(listener, known.clone()) => {}
            () = self.speak(speaker, known.clone()) => {}
            () = self.tick() => {}
        }
        known.borrow().clone()
    }

    async fn tick(&self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.bus.work(|member, cells, now| member.tick(cells, now, (self.draw)()));
        }
    }

    async fn listen(&self, listener: &mut impl Listen, mut known: watch::Receiver<Option<String>>) {
        while let Some((channel, seal)) = self.channel(&mut known).await {
            // Cancel safe, both.
            while let Some(bytes) = tokio::select! {
                _ = known.changed() => None,
                bytes = listener.listen(&channel) => Some(bytes),
            } {
                self.hear(&seal, &bytes);
            }
        }
    }

    /// Waits until the name of the channel is known; `None` if nobody will say it any more. Cancel safe.
    async fn channel(&self, known: &mut watch::Receiver<Option<String>>) -> Option<(String, Seal)> {
        let channel = known.wait_for(Option::is_some).await.ok()?.clone()?;
        let seal = Seal::new(&self.secret, &channel);
        Some((channel, seal))
    }

    fn hear(&self, seal: &Seal, bytes: &[u8]) {
        let message = match seal.take(bytes) {
            Ok(message) => message,
            Err(error @ FrameError::Version) => return tracing::warn!(%error, "another proxy is not understood"),
            Err(error) => return tracing::warn!(%error, "message from somebody who is no proxy of this database"),
        };
        let catalog = self.bus.work(|member, cells, now| {
            let catalog = member.hear(cells, message, now, (self.draw)());
            member.tick(cells, now, (self.draw)());
            catalog
        });
        if catalog == Some(true) {
            self.database.catalog_changed(self.draw);
        }
    }

    fn message(&self) -> Option<Message> {
        self.bus.work(|member, cells, now| member.take_message(cells, now)).flatten()
    }

    async fn speak(&self, speaker: &mut impl Speak, mut known: watch::Receiver<Option<String>>) {
        while let Some((channel, seal)) = self.channel(&mut known).await {
            while known.has_changed().is_ok_and(|has_changed| !has_changed) {
                match self.message() {
                    Some(message) => _ = speaker.say(&channel, seal.put(&message)).await,
                    None => tokio::select! {
                        () = self.bus.spoken() => {}
                        _ = known.changed() => known.mark_changed(),
                    },
                }
            }
        }
    }

    async fn be_listed(&self, channel: &watch::Sender<Option<String>>) {
        let mut taken = 0;
        loop {
            let Err(error) = self.hold_lock(channel).await else { continue };
            taken = if matches!(error, MembershipError::Taken) { taken + 1 } else { 0 };
            if taken > TAKEN_FOR_GOOD {
                taken = 0;
                self.bus.rename(new_node((self.draw)()));
            }
            tracing::warn!(db = %self.database.name, %error, "not a member among the proxies of this database: nothing is cached");
            sleep(PAUSE).await;
        }
    }

    /// Holds the lock that makes it a member, and lists the others, until something fails.
    async fn hold_lock(&self, channel: &watch::Sender<Option<String>>) -> Result<(), MembershipError> {
        let Some(primary) = self.database.primary() else {
            sleep(PAUSE).await;
            return Ok(());
        };
        let Some(target) = self.targets.get(usize::from(primary.0)) else { return Err(MembershipError::Moved) };
        let session = Session::open(target, DEADLINES).await?;
        for setting in WATCHFUL {
            // Not every server knows all of them.
            let set = session.client().batch_execute(setting);
            if let Err(error) = within(Act::Statement, DEADLINES.statement, set).await? {
                tracing::debug!(%error, setting, "not set");
            }
        }
        let name = within(Act::Statement, DEADLINES.statement, self.lock(&session)).await??;
        channel.send_if_modified(|known| {
            let is_new = known.as_deref() != Some(&*name);
            *known = Some(name);
            is_new
        });
        self.bus.work(|member, cells, now| member.joined(cells, now));
        // Cancel safe, both: what was asked for and is not looked at changes nothing. A list must not wait for a look.
        tokio::select! {
            ended = self.list_members(&session, primary) => ended,
            never = self.keep_looking(primary) => match never {},
        }
    }

    async fn list_members(&self, session: &Session, primary: MemberId) -> Result<(), MembershipError> {
        let mut looks = interval(LIST_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            if self.database.primary() != Some(primary) {
                return Err(MembershipError::Moved);
            }
            let asked_at = self.clock.now();
            let members = within(Act::Statement, DEADLINES.statement, list(session)).await??;
            if !members.contains(&self.bus.node()) {
                return Err(MembershipError::Taken);
            }
            self.bus.work(|member, cells, now| {
                member.listed(cells, asked_at, now, &members);
                member.tick(cells, now, (self.draw)());
            });
        }
    }

    /// Asks what is under way on the primary, whenever that must be known.
    async fn keep_looking(&self, primary: MemberId) -> Infallible {
        let mut asker = Asker::new(&self.targets);
        let mut ticks = interval(LIST_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.bus.work(|member, _, now| member.wants_look(now)) != Some(true) {
                asker.rest();
                continue;
            }
            let asked_at = self.clock.now();
            let Some(found) = asker.ask(&self.database, primary).await else { continue };
            let catalog = self.bus.work(|member, cells, now| {
                let catalog = member.looked(cells, asked_at, now, (self.draw)(), &found);
                member.tick(cells, now, (self.draw)());
                catalog
            });
            if catalog == Some(true) {
                self.database.catalog_changed(self.draw);
            }
        }
    }

    /// The name of the channel of this database.
    async fn lock(&self, session: &Session) -> Result<String, MembershipError> {
        let client = session.client();
        let channel = channel(session).await?.ok_or(MembershipError::Moved)?;
        let number = (LOCK_MARK << NODE_BITS) | self.bus.node().0 as i64;
        match client.query_one(LOCK, &[&number]).await?.try_get(0)? {
            true => Ok(channel),
            false => Err(MembershipError::Taken),
        }
    }
}

/// The name of the channel of this database; `None` on a replica.
async fn channel(session: &Session) -> Result<Option<String>, tokio_postgres::Error> {
    let identity = session.client().query_one(IDENTITY, &[]).await?;
    let (server, database): (i64, i64) = (identity.try_get(0)?, identity.try_get(1)?);
    let is_replica: bool = identity.try_get(2)?;
    Ok((!is_replica).then(|| format!("pgweir:{}:{database}:bus", server.cast_unsigned())))
}

/// Who shares this database, and on which channel; `None` on a replica.
///
/// # Errors
/// The server does not say.
pub async fn sharers(session: &Session) -> Result<Option<(String, BTreeSet<NodeId>)>, ControlError> {
    match channel(session).await? {
        Some(channel) => Ok(Some((channel, list(session).await?))),
        None => Ok(None),
    }
}

async fn list(session: &Session) -> Result<BTreeSet<NodeId>, tokio_postgres::Error> {
    let rows = session.client().query(LIST, &[&LOCK_MARK]).await?;
    let node = |row: &tokio_postgres::Row| {
        row.try_get::<_, i64>(0).map(|number| NodeId(number as u64 & ((1 << NODE_BITS) - 1)))
    };
    rows.iter().map(node).collect()
}
