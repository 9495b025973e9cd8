//! Level two: answers in Redis, which is believed nothing.
//!
//! The stamps that an answer was captured with are part of the name under which it lies. So nothing is ever deleted on a
//! write: a reader of after the write asks for another name. Redis may forget, go back in time, or hand out what somebody
//! has written there: what is no authentic answer to this very question at these very stamps is a miss (`codec`), and
//! what is one is looked at once more by the stamps of the moment when it arrives.
//!
//! Nobody waits for Redis longer than the deadline, and nobody at all while the breaker is open. Two tasks on the control
//! thread do what takes longer: the keeper connects and tries, the writer puts answers there, from a queue that drops what
//! does not fit.

mod address;
pub mod breaker;
pub mod codec;
mod connection;
mod figures;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use tokio::{
    sync::{Notify, mpsc},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use self::{
    address::Target,
    breaker::{Breaker, Told},
    codec::Secrets,
    connection::{Connection, Stored},
    figures::Figures,
};
pub use self::{
    address::{AddressError, Way},
    breaker::Cause,
    codec::{Question, Refusal, Value},
    figures::{Reading, SharedStats, Writing},
};
use super::{entry::Entry, invalidation::Captured, key::Key};
use crate::{ablation::Ablation, clock::Clock};

/// Answers that wait to be written, and their bytes; more are dropped.
const WAITING: usize = 256;
const WAITING_BYTES: usize = 16 << 20;
/// Written by one message.
const WRITTEN_AT_ONCE: usize = 32;
/// No answer lies there for longer: those whose stamps have moved are garbage.
const LIFETIME_MS: u64 = 10 * 60 * 1000;
/// How long the keeper tries to connect, and the writer to write. Nobody's query waits for either.
const OWN_DEADLINE: Duration = Duration::from_secs(1);
/// The log tells of the same trouble once in so long, nanoseconds.
const TOLD_AGAIN_NS: u64 = 60_000_000_000;

/// What is configured.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedSettings {
    /// One of the spellings of `redis_url`.
    pub url: String,
    /// What keys are derived from.
    pub secret: String,
    /// Whom to trust, in PEM; `None`: whom the system trusts.
    pub roots: Option<Vec<u8>>,
}

impl std::fmt::Debug for SharedSettings {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("***")
    }
}

/// Level two is not usable as configured.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    /// `redis_url`.
    #[error("cache.redis_url: {0}")]
    Address(#[from] AddressError),
    /// `secret`.
    #[error("cache.secret: no keys can be derived from it")]
    Secret,
}

/// An answer to be written.
struct Offer {
    cluster: Arc<str>,
    key: Key,
    entry: Arc<Entry>,
}

/// What was found.
#[derive(Debug)]
pub struct Found {
    /// The answer.
    pub value: Value,
    /// For how long it may be kept, in nanoseconds.
    pub remaining: u64,
}

#[derive(Default)]
struct Link {
    breaker: Breaker,
    connection: Option<Connection>,
    /// What the log was told last, and when.
    told: Option<(Cause, u64)>,
}

/// Level two of the cache. Stopped when it is dropped.
pub struct SharedCache {
    inner: Arc<Inner>,
    stop: CancellationToken,
}

struct Inner {
    settings: SharedSettings,
    secrets: Secrets,
    deadline: AtomicU64,
    min_cost_us: AtomicU32,
    link: Mutex<Link>,
    /// The breaker has opened.
    opened: Notify,
    offers: mpsc::Sender<Offer>,
    waiting_bytes: AtomicUsize,
    figures: Figures,
    clock: Clock,
}

impl std::fmt::Debug for SharedCache {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("SharedCache").field(&self.inner.link().breaker).finish()
    }
}

impl Drop for SharedCache {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl SharedCache {
    /// Begins to connect; `spawn` runs its tasks until `stop`, or until this is dropped. `limits` are those of
    /// [`Self::set_limits`].
    pub fn start(
        settings: SharedSettings,
        limits: (Duration, Duration),
        clock: Clock,
        stop: &CancellationToken,
        spawn: impl Fn(std::pin::Pin<Box<dyn Future<Output = ()> + Send>>),
    ) -> Result<Arc<Self>, SharedError> {
        let target = Target::parse(&settings.url, settings.roots.clone())?;
        let secrets = Secrets::derive(&settings.secret).ok_or(SharedError::Secret)?;
        let (offers, waiting) = mpsc::channel(WAITING);
        let inner = Arc::new(Inner {
            settings,
            secrets,
            deadline: AtomicU64::new(0),
            min_cost_us: AtomicU32::new(0),
            link: Mutex::default(),
            opened: Notify::new(),
            offers,
            waiting_bytes: AtomicUsize::new(0),
            figures: Figures::default(),
            clock,
        });
        let stop = stop.child_token();
        let shared = Arc::new(Self { inner: Arc::clone(&inner), stop: stop.clone() });
        shared.set_limits(limits.0, limits.1);
        let is_sentinel = target.may_move();
        let (keeper, writer) = (Arc::clone(&inner), inner);
        let kept = stop.clone();
        spawn(Box::pin(async move { _ = kept.run_until_cancelled(keeper.keep(target)).await }));
        spawn(Box::pin(async move { _ = stop.run_until_cancelled(writer.write(waiting, is_sentinel)).await }));
        Ok(shared)
    }

    /// What it was started with.
    pub fn settings(&self) -> &SharedSettings {
        &self.inner.settings
    }

    /// How long a query may wait for Redis, and from what cost on it does.
    pub fn set_limits(&self, deadline: Duration, min_cost: Duration) {
        self.inner.deadline.store(crate::clock::nanos(deadline), Ordering::Relaxed);
        let min_cost = u32::try_from(min_cost.as_micros()).unwrap_or(u32::MAX);
        self.inner.min_cost_us.store(min_cost, Ordering::Relaxed);
    }

    /// Is it worth the way for statements that usually cost so much? For those of unknown cost it is: whoever begins
    /// anew may find what others have paid for.
    pub fn is_worth(&self, usual_cost: Option<u32>) -> bool {
        usual_cost.is_none_or(|cost| cost >= self.inner.min_cost_us.load(Ordering::Relaxed))
    }

    /// Counts a reader who would be sent there; false: he does not go now.
    pub fn admits(&self) -> bool {
        let is_up = self.inner.link().breaker.refusal().is_none();
        if !is_up {
            self.inner.figures.read(Reading::Unavailable);
        }
        is_up
    }

    /// What a question is known by there.
    pub(super) fn question(&self, key: &Key, captured: &Captured) -> Question {
        self.inner.question(key, captured)
    }

    /// Asks for an answer of at most `max_bytes`. Whatever goes wrong is counted, and nothing was found.
    pub async fn get(self: Arc<Self>, cluster: Arc<str>, question: Question, max_bytes: usize) -> Option<Found> {
        self.inner.get(&cluster, &question, max_bytes).await
    }

    /// A write overtook what was found.
    pub(super) fn note_overtaken(&self) {
        self.inner.figures.read(Reading::Overtaken);
    }

    /// What was found is answered with.
    pub(super) fn note_hit(&self) {
        self.inner.figures.read(Reading::Hit);
    }

    /// Puts an answer there, when its turn comes.
    pub(super) fn offer(&self, cluster: Arc<str>, key: Key, entry: Arc<Entry>) {
        let inner = &self.inner;
        let bytes = entry.wire_bytes();
        let is_full = inner.waiting_bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > WAITING_BYTES;
        if is_full || inner.offers.try_send(Offer { cluster, key, entry }).is_err() {
            inner.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            inner.figures.wrote(Writing::Dropped, 1);
        }
    }

    /// What it is and has done.
    pub fn stats(&self) -> SharedStats {
        let inner = &self.inner;
        SharedStats {
            refusal: inner.link().breaker.refusal(),
            waiting: (WAITING - inner.offers.capacity()) as u64,
            waiting_limit: WAITING as u64,
            ..inner.figures.stats()
        }
    }
}

/// Connects once and says hello: does what is configured lead to a Redis that lets us in?
///
/// # Errors
/// It does not; why, without a word of the secret.
pub async fn try_out(settings: &SharedSettings) -> Result<(), String> {
    let mut target = Target::parse(&settings.url, settings.roots.clone()).map_err(|error| error.to_string())?;
    let connected = async { target.connect(OWN_DEADLINE).await?.ping().await };
    match timeout(OWN_DEADLINE, connected).await {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(_) => Err("no answer within a second".to_owned()),
    }
}

fn draw() -> u64 {
    getrandom::u64().unwrap_or_default()
}

impl Inner {
    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wall_ms(&self, now: u64) -> u64 {
        self.clock.wall(now).duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }

    fn question(&self, key: &Key, captured: &Captured) -> Question {
        let mut stamps = Vec::new();
        if !Ablation::StampsInNames.is_left_out() {
            captured.encode_into(&mut stamps);
        }
        self.secrets.question(key.as_bytes(), &stamps)
    }

    fn connection(&self) -> Option<Connection> {
        let link = self.link();
        link.connection.clone().filter(|_| link.breaker.refusal().is_none())
    }

    async fn get(&self, cluster: &str, question: &Question, max_bytes: usize) -> Option<Found> {
        let Some(mut connection) = self.connection() else {
            self.figures.read(Reading::Unavailable);
            return None;
        };
        let key = question.redis_key(cluster);
        let deadline = Duration::from_nanos(self.deadline.load(Ordering::Relaxed));
        let read = connection.read(&key, max_bytes.saturating_add(codec::OVERHEAD_BYTES));
        let (bytes, remaining_ms) = match timeout(deadline, read).await {
            Ok(Ok(found)) => {
                self.link().breaker.succeeded();
                found
            }
            Ok(Err(error)) => {
                let cause = connection::cause(&error);
                tracing::debug!(%error, "an answer was not read from Redis");
                self.figures.read(if cause == Cause::Timeout { Reading::Timeout } else { Reading::Error });
                self.failed(cause);
                return None;
            }
            Err(_) => {
                self.figures.read(Reading::Timeout);
                self.failed(Cause::Timeout);
                return None;
            }
        };
        if bytes.is_empty() {
            self.figures.read(Reading::Absent);
            return None;
        }
        let now_ms = self.wall_ms(self.clock.now());
        let found = codec::decode(&self.secrets, question, bytes, max_bytes, now_ms).and_then(|value| {
            match u64::try_from(remaining_ms) {
                Ok(left) if left <= u64::from(value.lifetime_ms) => Ok(Found { value, remaining: left * 1_000_000 }),
                // Gone while it was read.
                _ if remaining_ms == -2 => Ok(Found { value, remaining: 0 }),
                _ => Err(Refusal::Lifetime),
            }
        });
        match found {
            Ok(found) if found.remaining == 0 => {
                self.figures.read(Reading::Absent);
                None
            }
            Ok(found) => Some(found),
            Err(refusal) => {
                tracing::debug!(db = cluster, reason = refusal.label(), "what lies in Redis is no answer");
                self.figures.refused(refusal);
                None
            }
        }
    }

    fn failed(&self, cause: Cause) {
        let now = self.clock.now();
        let is_told = {
            let mut link = self.link();
            if link.breaker.failed(cause, now, draw()) == Told::Nothing {
                return;
            }
            link.tell(cause, now)
        };
        self.figures.opened(cause);
        if is_told {
            tracing::warn!(reason = cause.label(), "Redis is left alone: the cache goes on in memory");
        }
        self.opened.notify_one();
    }

    /// Connects, and tries again when it has been left alone for long enough.
    async fn keep(self: Arc<Self>, mut target: Target) {
        loop {
            let Some(due) = self.link().breaker.due() else {
                self.opened.notified().await;
                continue;
            };
            let now = self.clock.now();
            if due > now {
                tokio::time::sleep(Duration::from_nanos(due - now)).await;
            }
            let was = {
                let mut link = self.link();
                let was = link.breaker.refusal();
                if !link.breaker.begin_trial(self.clock.now()) {
                    continue;
                }
                was
            };
            let outcome = self.attempt(&mut target, was).await;
            let now = self.clock.now();
            let mut link = self.link();
            match outcome {
                Ok(connection) => {
                    link.connection = Some(connection);
                    link.breaker.tried(Ok(()), now, draw());
                    if was == Some(Cause::Starting) || link.told.is_some() {
                        tracing::info!("Redis is reached: answers are shared");
                    }
                    // Trouble that comes and goes is told of once.
                    link.told = link.told.filter(|(_, at)| now.saturating_sub(*at) < TOLD_AGAIN_NS);
                }
                Err((cause, error)) => {
                    link.connection = None;
                    link.breaker.tried(Err(cause), now, draw());
                    if link.tell(cause, now) {
                        tracing::warn!(reason = cause.label(), %error, "Redis is not reached: the cache goes on in memory");
                    }
                }
            }
        }
    }

    /// The one trial.
    async fn attempt(&self, target: &mut Target, was: Option<Cause>) -> Result<Connection, (Cause, String)> {
        let deadline = Duration::from_nanos(self.deadline.load(Ordering::Relaxed));
        let known = self.link().connection.take().filter(|_| was == Some(Cause::Timeout));
        if let Some(mut connection) = known
            && matches!(timeout(deadline, connection.ping()).await, Ok(Ok(())))
        {
            return Ok(connection);
        }
        let mut connection = match timeout(OWN_DEADLINE, target.connect(OWN_DEADLINE)).await {
            Ok(connected) => connected.map_err(|error| (Cause::Connect, error.to_string()))?,
            Err(_) => return Err((Cause::Connect, "no connection in time".to_owned())),
        };
        match timeout(deadline, connection.ping()).await {
            Ok(Ok(())) => Ok(connection),
            Ok(Err(error)) => Err((connection::cause(&error), error.to_string())),
            Err(_) => Err((Cause::Timeout, "no answer in time".to_owned())),
        }
    }

    /// Writes what was offered.
    async fn write(self: Arc<Self>, mut waiting: mpsc::Receiver<Offer>, may_move: bool) {
        let mut offers = Vec::with_capacity(WRITTEN_AT_ONCE);
        while waiting.recv_many(&mut offers, WRITTEN_AT_ONCE).await > 0 {
            let connection = self.connection();
            let values: Vec<_> =
                offers.drain(..).filter_map(|offer| self.prepare(&offer, connection.is_some())).collect();
            let Some(mut connection) = connection.filter(|_| !values.is_empty()) else { continue };
            match timeout(OWN_DEADLINE, connection.write(&values)).await {
                Ok(Ok(())) => self.figures.wrote(Writing::Stored, values.len()),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "answers were not written to Redis");
                    self.figures.wrote(Writing::Failed, values.len());
                    let is_elsewhere = may_move && error.code() == Some("READONLY");
                    match connection::cause(&error) {
                        // Another server takes writes now.
                        Cause::Refused if is_elsewhere => self.failed(Cause::Lost),
                        // It may be full: what it has it still gives.
                        Cause::Refused => {}
                        cause => self.failed(cause),
                    }
                }
                Err(_) => {
                    self.figures.wrote(Writing::Failed, values.len());
                    self.failed(Cause::Timeout);
                }
            }
        }
    }

    /// An offer as it is written; `None`, and counted, if it is not to be.
    fn prepare(&self, offer: &Offer, is_up: bool) -> Option<Stored> {
        let entry = &offer.entry;
        self.waiting_bytes.fetch_sub(entry.wire_bytes(), Ordering::Relaxed);
        if !is_up {
            self.figures.wrote(Writing::Unavailable, 1);
            return None;
        }
        let now = self.clock.now();
        let left_ms = entry.expires_at.map_or(LIFETIME_MS, |end| end.saturating_sub(now) / 1_000_000).min(LIFETIME_MS);
        if left_ms == 0 || !entry.is_current() {
            self.figures.wrote(Writing::Void, 1);
            return None;
        }
        let question = self.question(&offer.key, &entry.captured);
        let value = Value {
            row_description: entry.row_description.clone(),
            rows: entry.rows.clone(),
            command_complete: entry.command_complete.clone(),
            row_count: entry.row_count,
            cost_us: entry.cost_us,
            filled_at_ms: self.wall_ms(entry.filled_at),
            lifetime_ms: left_ms as u32,
        };
        let key = question.redis_key(&offer.cluster);
        let value = codec::encode(&self.secrets, &question, &value)?;
        Some(Stored { key, value, lifetime_ms: left_ms as u32 })
    }
}

impl Link {
    /// Shall the log be told of this?
    fn tell(&mut self, cause: Cause, now: u64) -> bool {
        let is_known = self.told.is_some_and(|(told, at)| told == cause && now.saturating_sub(at) < TOLD_AGAIN_NS);
        if !is_known {
            self.told = Some((cause, now));
        }
        !is_known
    }
}
