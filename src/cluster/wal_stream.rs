//! Follows the logical replication stream of a primary, so that writes that bypass the proxy void cached answers.
//!
//! One task reads the stream and acknowledges what it has read; beside it, on a connection of its own, at most one
//! question at a time is asked: which transactions can be seen, and how long the log is. What both mean is up to
//! [`Backlog`]. Whatever goes wrong closes the cache of this database until a new stream has begun, and voids all
//! of it: the slot is temporary, and nothing tells what was missed.

use std::{
    convert::Infallible,
    future::pending,
    pin::Pin,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use self::asker::Asker;
use super::{
    Database, DirectSettings,
    backoff::Backoff,
    direct_writes::StreamEpoch,
    wal_preflight::{self, Lack, quoted},
};
#[cfg(debug_assertions)]
use crate::ablation::Ablation;
use crate::{
    cache::wal::{
        Answer, Backlog, Changes, DecodeError, Decoder, HEAD_BYTES, Message, Overflow, Settled, SnapshotError, Told,
        put_status,
    },
    catalog::{RelationOid, Row},
    clock::Clock,
    control::{ControlError, Target},
    routing::MemberId,
    server::{ConnectError, Login, ReplicationConnection, ReplicationError},
};

mod asker;

/// Until a connection is there, or an answer on it.
const LONGEST_ANSWER: Duration = Duration::from_secs(5);
/// A slot is made once all transactions have ended that ran when it was asked for.
const LONGEST_SLOT: Duration = Duration::from_secs(600);
/// Then it is said that one of them takes long.
const SLOT_IS_LATE: Duration = Duration::from_secs(5);
/// A stream that says nothing for so long, although it was asked to, is lost.
const LONGEST_SILENCE: Duration = Duration::from_secs(15);
/// Between two questions, unless somebody waits for the answer.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
/// Between two looks at transactions that stay unseen, behind a synchronous standby for example.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// Between two attempts.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(2);

/// How often progress is asked for.
const SLOWEST_TICK: Duration = Duration::from_millis(250);
const FASTEST_TICK: Duration = Duration::from_millis(10);

/// Why the stream ended, or did not begin.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The server is not made for it.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Lacks(Vec<Lack>),
    /// No connection for the stream.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The stream broke.
    #[error(transparent)]
    Stream(#[from] ReplicationError),
    /// It says what cannot be understood.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A question was not answered.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The answer is none.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// More waits than may.
    #[error(transparent)]
    Overflow(#[from] Overflow),
    /// Somebody took too long.
    #[error("no answer in time: {0}")]
    Late(&'static str),
    /// The stream is another server's than the answers.
    #[error("stream and questions do not go to one server")]
    TwoServers,
    /// It is not the primary, or not any more.
    #[error("the primary has changed")]
    NotPrimary,
    /// The configuration knows no such member.
    #[error("no such member")]
    NoMember,
}

impl StreamError {
    /// The metric label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Lacks(_) => "server_not_ready",
            Self::Connect(_) => "connect",
            Self::Stream(_) => "stream",
            Self::Decode(_) => "decode",
            Self::Control(_) | Self::Snapshot(_) => "question",
            Self::Overflow(_) => "overflow",
            Self::Late(_) => "timeout",
            Self::TwoServers => "two_servers",
            Self::NotPrimary | Self::NoMember => "primary_changed",
        }
    }
}

impl From<tokio_postgres::Error> for StreamError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Control(error.into())
    }
}

impl From<std::io::Error> for StreamError {
    fn from(error: std::io::Error) -> Self {
        Self::Stream(error.into())
    }
}

/// How to reach one member.
#[derive(Clone, Debug)]
pub struct Source {
    /// For the stream.
    pub login: Login,
    /// For questions.
    pub target: Target,
}

/// Follows the streams of one database's primaries.
pub struct WalStream {
    database: Arc<Database>,
    settings: DirectSettings,
    members: Box<[Source]>,
    clock: Clock,
    ids: Arc<AtomicU64>,
}

type Question<'a> = Pin<Box<dyn Future<Output = Result<Answer, StreamError>> + Send + 'a>>;

fn draw() -> u64 {
    getrandom::u64().unwrap_or(1)
}

impl WalStream {
    /// Members in the order of their ids; `ids` numbers connections.
    #[must_use]
    pub fn new(
        database: Arc<Database>,
        settings: DirectSettings,
        members: Vec<Source>,
        clock: Clock,
        ids: Arc<AtomicU64>,
    ) -> Self {
        Self { database, settings, members: members.into(), clock, ids }
    }

    /// Runs until `stop`; `ended` is told why a stream ended, or did not begin.
    pub async fn run(&self, stop: &CancellationToken, ended: impl Fn(&StreamError)) {
        let direct = &self.database.real.direct;
        // Both are cancel safe: connections close when they are dropped, and the slot goes with its own.
        let turn = tokio::select! {
            () = stop.cancelled() => return,
            turn = direct.turn() => turn,
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.follow_primaries(ended) => {}
        }
        direct.lost(false);
        drop(turn);
    }

    async fn follow_primaries(&self, ended: impl Fn(&StreamError)) {
        let direct = &self.database.real.direct;
        let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        let mut said = String::new();
        loop {
            let epoch = direct.epoch();
            let Some(primary) = self.database.primary_known().await else { return };
            let mut has_begun = false;
            let Err(error) = self.follow(primary, epoch, &mut has_begun).await;
            direct.lost(has_begun);
            ended(&error);
            // What is said again and again is said once.
            let what = error.to_string();
            if has_begun || what != said {
                tracing::warn!(db = %self.database.name, reason = error.label(), error = %what,
                    "writes that bypass the proxy are not heard of: the cache is closed");
                said = what;
            }
            if has_begun {
                backoff.reset();
            }
            sleep(backoff.pause(draw())).await;
        }
    }

    /// Never returns unless something goes wrong.
    async fn follow(
        &self,
        member: MemberId,
        epoch: StreamEpoch,
        has_begun: &mut bool,
    ) -> Result<Infallible, StreamError> {
        let Source { login, target } = self.members.get(usize::from(member.0)).ok_or(StreamError::NoMember)?;
        let asker = Asker::open(target, LONGEST_ANSWER).await?;
        self.check(&asker).await?;
        let id = self.ids.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let opened = ReplicationConnection::open(login.clone(), id, self.clock.now());
        let mut stream = timeout(LONGEST_ANSWER, Box::pin(opened)).await.map_err(|_| StreamError::Late("login"))??;
        let slot = format!("pgweir_{:016x}", draw());
        self.make_slot(&mut stream, &slot).await?;
        if !asker.sees_slot(&slot).await? {
            return Err(StreamError::TwoServers);
        }
        // Behind the slot: what was committed before it and cannot be seen yet is in progress here.
        let first = asker.ask(self.clock.now(), self.database.real.direct.wanted()).await?;
        let backlog = Backlog::new(first);
        #[cfg(debug_assertions)]
        let backlog = if Ablation::Visibility.is_left_out() { backlog.ablated() } else { backlog };
        let start = start_command(&slot, &self.settings.publication, asker.hears_messages());
        timeout(LONGEST_ANSWER, stream.start(&start)).await.map_err(|_| StreamError::Late("start of the stream"))??;
        if !self.database.real.direct.begin(epoch, self.clock.now(), draw) {
            return Err(StreamError::NotPrimary);
        }
        *has_begun = true;
        tracing::info!(db = %self.database.name, publication = %self.settings.publication,
            "writes that bypass the proxy are heard of");
        self.listen(&mut stream, &asker, backlog, epoch).await
    }

    /// Says what the server lacks; an error if nothing would be heard.
    async fn check(&self, asker: &Asker) -> Result<(), StreamError> {
        let publication = &*self.settings.publication;
        let found = timeout(LONGEST_ANSWER, wal_preflight::look(asker.client(), publication));
        let found = found.await.map_err(|_| StreamError::Late("look at the server"))??;
        let (fatal, others): (Vec<_>, Vec<_>) = found.lacks(publication).into_iter().partition(Lack::is_fatal);
        if !fatal.is_empty() {
            return Err(StreamError::Lacks(fatal));
        }
        for lack in others {
            match lack.is_note() {
                true => tracing::info!(db = %self.database.name, "{lack}"),
                false => tracing::error!(db = %self.database.name, "{lack}"),
            }
        }
        Ok(())
    }

    async fn make_slot(&self, stream: &mut ReplicationConnection, slot: &str) -> Result<(), StreamError> {
        let command = format!("CREATE_REPLICATION_SLOT {slot} TEMPORARY LOGICAL pgoutput NOEXPORT_SNAPSHOT");
        let mut made = Box::pin(timeout(LONGEST_SLOT, stream.execute(&command)));
        let made = match timeout(SLOT_IS_LATE, &mut made).await {
            Ok(made) => made,
            Err(_) => {
                tracing::warn!(db = %self.database.name, "the replication slot waits for transactions that are running");
                made.await
            }
        };
        Ok(made.map_err(|_| StreamError::Late("replication slot"))??)
    }

    async fn listen(
        &self,
        stream: &mut ReplicationConnection,
        asker: &Asker,
        mut backlog: Backlog,
        epoch: StreamEpoch,
    ) -> Result<Infallible, StreamError> {
        let direct = &self.database.real.direct;
        let mut decoder = Decoder::default();
        let mut ticks = interval(self.tick());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asking: Option<Question<'_>> = None;
        let mut pace = Pace::new();
        let (mut ticket, mut position, mut heard_at) = (direct.wanted(), backlog.position(), Instant::now());
        loop {
            let mut reply = false;
            while let Some(heard) =
                stream.take(HEAD_BYTES, |head| hear(head, &mut decoder, &mut backlog, &mut reply))?
            {
                heard?;
            }
            self.settle(&mut backlog, epoch)?;
            if reply {
                self.tell(stream, &backlog, false).await?;
            }
            pace.note(backlog.waiting());
            if asking.is_none() && (direct.wanted() > ticket || pace.is_due()) {
                ticket = direct.wanted();
                pace.asks();
                asking = Some(Box::pin(asker.ask(self.clock.now(), ticket)));
            }
            // All branches are cancel safe.
            tokio::select! {
                read = stream.read() => {
                    read?;
                    heard_at = Instant::now();
                }
                answer = answered(&mut asking) => {
                    asking = None;
                    backlog.answered(answer?);
                    pace.answered(backlog.waiting());
                }
                () = direct.asked(), if asking.is_none() => {}
                () = pace.due(), if asking.is_none() => {}
                _ = ticks.tick() => {
                    if heard_at.elapsed() > LONGEST_SILENCE {
                        return Err(StreamError::Late("word of the stream"));
                    }
                    // A log that nobody flushes is not sent: idle walwriters take seconds.
                    let is_stuck = backlog.behind_since().is_some() && backlog.position() == position;
                    position = backlog.position();
                    self.tell(stream, &backlog, true).await?;
                    if asking.is_none() {
                        ticket = direct.wanted();
                        pace.asks();
                        let asked = asker.ask(self.clock.now(), ticket);
                        asking = Some(match is_stuck {
                            false => Box::pin(asked),
                            true => Box::pin(async move {
                                asker.flush().await;
                                asked.await
                            }),
                        });
                    }
                }
            }
        }
    }

    /// Four times within what is promised.
    fn tick(&self) -> Duration {
        (Duration::from_nanos(self.settings.max_staleness) / 4).clamp(FASTEST_TICK, SLOWEST_TICK)
    }

    /// The server may forget what has come. `asks`: it shall say how far it is.
    async fn tell(&self, stream: &mut ReplicationConnection, backlog: &Backlog, asks: bool) -> Result<(), StreamError> {
        let told = stream.write(|out| put_status(out, backlog.position(), asks));
        Ok(timeout(LONGEST_ANSWER, told).await.map_err(|_| StreamError::Late("room for a word"))??)
    }

    fn settle(&self, backlog: &mut Backlog, epoch: StreamEpoch) -> Result<(), StreamError> {
        let direct = &self.database.real.direct;
        let Settled { changes, horizon, ticket } = backlog.settle();
        if !changes.is_empty() {
            self.void(&changes);
        }
        direct.note(backlog.behind_since(), backlog.waiting());
        if let Some(horizon) = horizon {
            let until = horizon.saturating_add(self.settings.max_staleness);
            if !direct.hear(epoch, horizon, until) {
                return Err(StreamError::NotPrimary);
            }
        }
        if let Some(ticket) = ticket {
            direct.settle(ticket);
        }
        Ok(())
    }

    fn void(&self, changes: &Changes) {
        let real = &self.database.real;
        let now = self.clock.now();
        let touched = self.touched(changes);
        let names_some = changes.names_any();
        if changes.definitions {
            real.cells.void(None, now, draw);
            real.catalog_changed(draw);
        } else if names_some || changes.everything {
            match &touched {
                Some((relations, rows)) => real.cells.void_rows(relations, rows, now, draw),
                None => real.cells.void(None, now, draw),
            }
        }
        if changes.doubt || names_some && touched.is_none() {
            real.catalog_doubted.notify_one();
        }
    }

    /// What hangs on them: relations, and rows of others on which nothing else hangs. `None`: anything may.
    fn touched(&self, changes: &Changes) -> Option<(Vec<RelationOid>, Vec<Row>)> {
        let catalog = self.database.catalog().filter(|catalog| self.database.cells.is_in_force(catalog.epoch))?;
        let (mut whole, mut rows) = (changes.rows.clone(), Vec::new());
        for of_one in changes.keys.chunk_by(|one, other| one.relation == other.relation) {
            let Some(Row { relation, .. }) = of_one.first() else { continue };
            match *catalog.snapshot.expand_heard(&[relation.0], &[])? == [*relation] {
                true => rows.extend_from_slice(of_one),
                false => whole.push(relation.0),
            }
        }
        let known = catalog.snapshot.expand_heard(&whole, &changes.named)?;
        (!changes.everything).then_some((known, rows))
    }
}

/// `messages` came with PostgreSQL 14.
fn start_command(slot: &str, publication: &str, hears_messages: bool) -> String {
    // A list of identifiers inside of a literal.
    let name = format!("\"{}\"", publication.replace('"', "\"\"")).replace('\'', "''");
    let messages = if hears_messages { ", messages 'true'" } else { "" };
    let slot = quoted(slot);
    format!("START_REPLICATION SLOT {slot} LOGICAL 0/0 (proto_version '1', publication_names '{name}'{messages})")
}

/// One message of the stream.
fn hear(head: &[u8], decoder: &mut Decoder, backlog: &mut Backlog, reply: &mut bool) -> Result<(), StreamError> {
    match Message::read(head)? {
        Message::Keepalive { end, reply: wanted } => {
            backlog.reached(end);
            *reply |= wanted;
        }
        Message::Data(payload) => match decoder.take(payload)? {
            Told::Nothing => {}
            Told::Committed(transaction) => backlog.committed(transaction)?,
            Told::Said(changes) => backlog.said(&changes),
        },
    }
    Ok(())
}

async fn answered(asking: &mut Option<Question<'_>>) -> Result<Answer, StreamError> {
    match asking {
        Some(question) => question.await,
        None => pending().await,
    }
}

/// When the next look at transactions that cannot be seen yet is due.
struct Pace {
    asked_at: Instant,
    due: Option<Instant>,
    pause: Duration,
    waiting: usize,
}

impl Pace {
    fn new() -> Self {
        Self { asked_at: Instant::now(), due: None, pause: SHORTEST_PAUSE, waiting: 0 }
    }

    /// So many wait now: more than before are looked at soon.
    fn note(&mut self, waiting: usize) {
        if waiting > self.waiting || (waiting > 0 && self.due.is_none()) {
            self.pause = SHORTEST_PAUSE;
            self.due = Some(self.asked_at + self.pause);
        }
        self.waiting = waiting;
    }

    fn asks(&mut self) {
        self.asked_at = Instant::now();
        self.due = None;
    }

    /// Those that stay are looked at less and less often.
    fn answered(&mut self, waiting: usize) {
        self.pause = if waiting < self.waiting { SHORTEST_PAUSE } else { (self.pause * 2).min(LONGEST_PAUSE) };
        self.waiting = waiting;
        self.due = (waiting > 0).then(|| self.asked_at + self.pause);
    }

    fn is_due(&self) -> bool {
        self.due.is_some_and(|due| due <= Instant::now())
    }

    async fn due(&self) {
        match self.due {
            Some(due) => sleep_until(due).await,
            None => pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_publication_is_an_identifier_inside_of_a_literal() {
        let command = start_command("s", "My \"own\" 'one'", true);
        let expected = "START_REPLICATION SLOT s LOGICAL 0/0 (proto_version '1', \
                        publication_names '\"My \"\"own\"\" ''one''\"', messages 'true')";
        assert_eq!(command, expected);
        assert!(!start_command("s", "p", false).contains("messages"));
    }

    #[tokio::test]
    async fn what_stays_unseen_is_looked_at_less_often_and_what_is_new_at_once() {
        let mut pace = Pace::new();
        pace.note(0);
        assert!(!pace.is_due());
        pace.note(1);
        pace.due().await;
        let began = Instant::now();
        for _ in 0..10 {
            pace.asks();
            pace.answered(1);
            pace.note(1);
            pace.due().await;
        }
        assert!(began.elapsed() > Duration::from_millis(200), "{:?}", began.elapsed());
        pace.note(2);
        assert!(pace.is_due(), "one more");
        pace.asks();
        pace.answered(0);
        assert!(pace.due.is_none());
    }
}
