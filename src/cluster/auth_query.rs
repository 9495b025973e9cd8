//! Users that only a server knows: `auth_query`.
//!
//! It runs on connections of its own, whose `search_path` is empty and which never see a parameter of a client, so that
//! no client decides which objects the query means (CVE-2025-12819).

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use moka::sync::Cache;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
    time::timeout,
};

use crate::{
    auth::{Credentials, Secret},
    clock::Clock,
    net::Address,
    server::{AskError, ConnectError, Idle, Login, Row, ServerConnection, ask, connect},
};

/// Connections to one server, as one user.
const CONNECTIONS: usize = 4;
/// For the query itself. The server is told the same.
const QUERY_DEADLINE: Duration = Duration::from_secs(10);
/// Users that are remembered.
const REMEMBERED: u64 = 100_000;
/// Questions that are being asked. Beyond, logins fail at once.
const FLIGHTS: usize = 10_000;
/// Idle connections are closed after this time.
const IDLE: Duration = Duration::from_secs(60);
/// These connections belong to no worker.
const NO_WORKER: usize = usize::MAX;

/// A user of a database.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UserKey {
    /// Whose clients ask; empty for the console.
    pub database: String,
    /// The name that was asked for, or that the query gave.
    pub user: String,
}

/// Whom to ask, and what.
#[derive(Clone, Debug)]
pub struct Question {
    /// The server and the user that asks.
    pub login: Login,
    /// With one parameter, the user's name.
    pub query: String,
    /// `server_connect_timeout`.
    pub connect_timeout: Duration,
}

/// A user that a server knows.
#[derive(Debug)]
pub struct Found {
    /// The name there.
    pub user: String,
    /// What is stored there.
    pub credentials: Arc<Credentials>,
    asked_at: u64,
}

/// An answer, and whether it is not for this question that the server was asked.
#[derive(Clone, Debug)]
pub struct Answer {
    /// `None`: the server does not know the user.
    pub found: Option<Arc<Found>>,
    /// Somebody else has asked, a short time ago or at this moment.
    pub is_remembered: bool,
}

/// Why there is no answer. It is for the log.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// No answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// It is not name and secret.
    #[error("expected 2 columns from auth_query, not {0}")]
    Columns(u16),
    /// The name is NULL.
    #[error("auth_query response contained null user name")]
    NullUser,
    /// It is not UTF-8.
    #[error("auth_query response is not UTF-8")]
    Encoding,
    /// It took too long.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// The process ends.
    #[error("nobody asks any more")]
    Gone,
    /// The server is too slow for so many logins.
    #[error("too many users are being asked for")]
    TooMany,
}

type Outcome = Result<Option<Arc<Found>>, Arc<QueryError>>;

/// A question that is being asked.
struct Flight {
    number: u64,
    started: u64,
    outcome: watch::Receiver<Option<Outcome>>,
}

/// The connections to one server.
struct Asked {
    turns: Semaphore,
    idle: Mutex<Vec<(ServerConnection<Idle>, u64)>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct ServerKey {
    address: Address,
    database: String,
    user: String,
}

/// Asks servers for users, on the control runtime. Questions about the same user are asked once.
pub struct AuthQueries {
    /// By the names that were asked for.
    remembered: Cache<UserKey, Arc<Found>, foldhash::fast::RandomState>,
    /// By the names that were found.
    secrets: Cache<UserKey, Arc<Credentials>, foldhash::fast::RandomState>,
    flights: Mutex<HashMap<UserKey, Flight>>,
    servers: Mutex<HashMap<ServerKey, Arc<Asked>>>,
    numbers: AtomicU64,
    /// What was heard before, no login believes.
    valid_since: AtomicU64,
    /// The form of the secret that was found last: what an unknown user shall look like.
    by_scram: AtomicBool,
    clock: Clock,
    control: Handle,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AuthQueries {
    /// Nothing is known yet. Questions are asked on the runtime of `control`.
    #[must_use]
    pub fn new(clock: Clock, control: Handle) -> Arc<Self> {
        Arc::new(Self {
            remembered: Cache::builder().max_capacity(REMEMBERED).build_with_hasher(Default::default()),
            secrets: Cache::builder().max_capacity(REMEMBERED).build_with_hasher(Default::default()),
            flights: Mutex::default(),
            servers: Mutex::default(),
            numbers: AtomicU64::new(0),
            valid_since: AtomicU64::new(0),
            by_scram: AtomicBool::new(true),
            clock,
            control,
        })
    }

    /// What was last heard of the secret of a user who was found so, however long ago: servers are logged in to with it.
    pub fn secret(&self, key: &UserKey) -> Option<Arc<Credentials>> {
        self.secrets.get(key)
    }

    /// Users who are remembered, and how many may be; a moment behind.
    pub fn occupancy(&self) -> (u64, u64) {
        (self.remembered.entry_count(), REMEMBERED)
    }

    /// Questions under way, and how many there may be.
    pub fn questions(&self) -> (u64, u64) {
        (lock(&self.flights).len() as u64, FLIGHTS as u64)
    }

    /// Whether users that are found have SCRAM secrets.
    pub fn finds_scram(&self) -> bool {
        self.by_scram.load(Ordering::Relaxed)
    }

    /// Who this is. What is known is good for `ttl` nanoseconds; `again` wants a question that begins now.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn find(
        self: &Arc<Self>,
        key: UserKey,
        question: Question,
        ttl: u64,
        again: bool,
    ) -> Result<Answer, Arc<QueryError>> {
        let now = self.clock.now();
        let oldest = now.saturating_sub(ttl).max(self.valid_since.load(Ordering::Relaxed));
        if !again
            && ttl > 0
            && let Some(found) = self.remembered.get(&key).filter(|found| found.asked_at >= oldest)
        {
            return Ok(Answer { found: Some(found), is_remembered: true });
        }
        let (mut outcome, is_remembered) = self.board(key, question, now, again)?;
        let outcome = outcome.wait_for(Option::is_some).await.map_err(|_| Arc::new(QueryError::Gone))?.clone();
        outcome.unwrap_or_else(|| Err(Arc::new(QueryError::Gone))).map(|found| Answer { found, is_remembered })
    }

    /// Joins a question that is being asked, or asks it; true if it was joined.
    fn board(
        self: &Arc<Self>,
        key: UserKey,
        question: Question,
        now: u64,
        again: bool,
    ) -> Result<(watch::Receiver<Option<Outcome>>, bool), Arc<QueryError>> {
        let mut flights = lock(&self.flights);
        if let Some(flight) = flights.get(&key).filter(|flight| !again || flight.started >= now) {
            return Ok((flight.outcome.clone(), true));
        }
        if flights.len() >= FLIGHTS {
            return Err(Arc::new(QueryError::TooMany));
        }
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (sender, outcome) = watch::channel(None);
        flights.insert(key.clone(), Flight { number, started: now, outcome: outcome.clone() });
        self.control.spawn(fly(Landing { queries: Arc::downgrade(self), key, number }, question, sender));
        Ok((outcome, false))
    }

    async fn look_up(&self, key: &UserKey, question: &Question) -> Outcome {
        let deadline = question.connect_timeout.saturating_add(QUERY_DEADLINE);
        let asked = timeout(deadline, self.ask(key, question)).await;
        let found = asked.unwrap_or(Err(QueryError::Deadline(deadline))).map_err(Arc::new)?;
        let Some((user, secret)) = found else {
            self.remembered.invalidate(key);
            return Ok(None);
        };
        let is_scram = matches!(secret, Secret::Scram(_));
        self.by_scram.store(is_scram, Ordering::Relaxed);
        let before = self.remembered.get(key).filter(|before| *before.credentials.secret() == secret);
        let credentials =
            before.map_or_else(|| Arc::new(Credentials::new(secret)), |before| Arc::clone(&before.credentials));
        let found = Arc::new(Found { user, credentials, asked_at: self.clock.now() });
        self.secrets.insert(UserKey { user: found.user.clone(), ..key.clone() }, Arc::clone(&found.credentials));
        self.remembered.insert(key.clone(), Arc::clone(&found));
        Ok(Some(found))
    }

    async fn ask(&self, key: &UserKey, question: &Question) -> Result<Option<(String, Secret)>, QueryError> {
        let server = self.server(&question.login);
        let _turn = server.turns.acquire().await.map_err(|_| QueryError::Gone)?;
        let (connection, columns, row) = loop {
            let rested = lock(&server.idle).pop();
            let Some((mut connection, _)) = rested else {
                let connecting = connect(&question.login, 0, self.clock.now(), NO_WORKER);
                let connected = timeout(question.connect_timeout, Box::pin(connecting)).await;
                let late = |_| ConnectError::Timeout(question.login.address.clone());
                let (connection, _) = connected.map_err(late)??;
                break ask(connection.begin(), &question.query, &key.user).await?;
            };
            if !connection.is_reusable() {
                continue;
            }
            match ask(connection.begin(), &question.query, &key.user).await {
                // It has rested too long for somebody in between.
                Err(AskError::Io(_)) => {}
                answer => break answer?,
            }
        };
        lock(&server.idle).push((connection, self.clock.now()));
        if columns != 2 {
            return Err(QueryError::Columns(columns));
        }
        row.map(name_and_secret).transpose()
    }

    fn server(&self, login: &Login) -> Arc<Asked> {
        let (address, database, user) = (login.address.clone(), login.database.clone(), login.user.clone());
        let key = ServerKey { address, database, user };
        let new = || Arc::new(Asked { turns: Semaphore::new(CONNECTIONS), idle: Mutex::default() });
        Arc::clone(lock(&self.servers).entry(key).or_insert_with(new))
    }

    /// Closes connections that nobody has needed for a while, or at all with `all`.
    pub fn maintain(&self, all: bool) {
        let oldest = self.clock.now().saturating_sub(IDLE.as_nanos() as u64);
        let mut servers = lock(&self.servers);
        servers.retain(|_, server| {
            let mut idle = lock(&server.idle);
            idle.retain(|(_, since)| !all && *since >= oldest);
            !idle.is_empty() || Arc::strong_count(server) > 1
        });
    }

    /// Another configuration may ask another question. Secrets stay, for servers that are logged in to.
    pub fn forget(&self) {
        self.maintain(true);
        self.valid_since.store(self.clock.now(), Ordering::Relaxed);
    }
}

/// The end of a flight: whoever comes later begins another.
struct Landing {
    queries: Weak<AuthQueries>,
    key: UserKey,
    number: u64,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let Some(queries) = self.queries.upgrade() else { return };
        let mut flights = lock(&queries.flights);
        if flights.get(&self.key).is_some_and(|flight| flight.number == self.number) {
            flights.remove(&self.key);
        }
    }
}

async fn fly(landing: Landing, question: Question, sender: watch::Sender<Option<Outcome>>) {
    let Some(queries) = landing.queries.upgrade() else { return };
    let outcome = queries.look_up(&landing.key, &question).await;
    drop(landing);
    sender.send_replace(Some(outcome));
}

/// A secret that is NULL is one that nobody can know.
fn name_and_secret(row: Row) -> Result<(String, Secret), QueryError> {
    let text = |value: Vec<u8>| String::from_utf8(value).map_err(|_| QueryError::Encoding);
    let mut values = row.into_iter();
    let user = values.next().flatten().ok_or(QueryError::NullUser)?;
    let secret = values.next().flatten().map(text).transpose()?;
    Ok((text(user)?, secret.as_deref().map_or(Secret::None, Secret::parse)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The only place that reads a row; the secret by its form.
    #[track_caller]
    fn check(row: [Option<&[u8]>; 2], expected: Result<(&str, &str), &str>) {
        let row = row.iter().map(|value| value.map(<[u8]>::to_vec)).collect();
        let found = name_and_secret(row).map(|(user, secret)| (user, format!("{secret:?}")));
        let expected = expected.map(|(user, secret)| (user.to_owned(), secret.to_owned()));
        assert_eq!(found.map_err(|error| error.to_string()), expected.map_err(str::to_owned));
    }

    #[test]
    fn the_columns_are_name_and_secret() {
        check([Some(b"ann"), Some(b"secret")], Ok(("ann", "Plain(***)")));
        check([Some(b"ann"), Some(b"md5aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")], Ok(("ann", "Md5(***)")));
    }

    #[test]
    fn no_password_fits_a_secret_that_is_null_or_empty() {
        check([Some(b"ann"), None], Ok(("ann", "None")));
        check([Some(b"ann"), Some(b"")], Ok(("ann", "None")));
    }

    #[test]
    fn a_user_without_a_name_is_none() {
        check([None, Some(b"secret")], Err("auth_query response contained null user name"));
        check([Some(b"\xff"), Some(b"secret")], Err("auth_query response is not UTF-8"));
    }
}
