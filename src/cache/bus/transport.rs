//! Who carries messages between proxies: Redis, by publish and subscribe.

use std::time::{Duration, Instant};

use redis::aio::{MultiplexedConnection, PubSub};
use tokio::time::{Instant as Deadline, sleep, timeout, timeout_at};

use crate::cache::shared::{AddressError, Way};

/// For a message to be taken, or a connection to be made.
const DEADLINE: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(100);
/// Messages that are heard while it is tried out.
const MOST_HEARD: usize = 1_000;

/// The way out. What cannot be said in time is lost; the others notice by its number.
pub trait Speak: Send {
    /// Says it to all. False: it may be lost.
    fn say(&mut self, channel: &str, message: Vec<u8>) -> impl Future<Output = bool> + Send;
}

/// The way in.
pub trait Listen: Send {
    /// What somebody has said on that channel since the last call, this process included, in the order in which each has said
    /// it. Cancel safe.
    fn listen(&mut self, channel: &str) -> impl Future<Output = Vec<u8>> + Send;
}

/// Says through one connection to Redis.
pub struct RedisSpeaker {
    way: Way,
    connection: Option<MultiplexedConnection>,
}

impl RedisSpeaker {
    /// Connects when there is something to say.
    pub fn new(way: Way) -> Self {
        Self { way, connection: None }
    }

    async fn publish(&mut self, channel: &str, message: &[u8]) -> Result<(), AddressError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => self.connection.insert(connect(&self.way).await?),
        };
        Ok(redis::cmd("PUBLISH").arg(channel).arg(message).query_async::<()>(connection).await?)
    }
}

async fn connect(way: &Way) -> Result<MultiplexedConnection, AddressError> {
    let mut failure = AddressError::Service;
    for client in way.clients().await? {
        match client.get_multiplexed_async_connection().await {
            Ok(connection) => return Ok(connection),
            Err(error) => failure = error.into(),
        }
    }
    Err(failure)
}

impl Speak for RedisSpeaker {
    async fn say(&mut self, channel: &str, message: Vec<u8>) -> bool {
        let failure = match timeout(DEADLINE, self.publish(channel, &message)).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        tracing::debug!(failure, "message to other proxies lost");
        // What is under way on it must not overtake what is said on the next one.
        self.connection = None;
        sleep(PAUSE).await;
        false
    }
}

/// Listens on one connection to Redis.
pub struct RedisListener {
    way: Way,
    subscription: Option<(String, PubSub)>,
}

impl RedisListener {
    /// Connects with the first call.
    pub fn new(way: Way) -> Self {
        Self { way, subscription: None }
    }

    async fn subscribe(&self, channel: &str) -> Result<PubSub, AddressError> {
        let mut failure = AddressError::Service;
        for client in self.way.clients().await? {
            match client.get_async_pubsub().await {
                Ok(mut subscription) => {
                    subscription.subscribe(channel).await?;
                    return Ok(subscription);
                }
                Err(error) => failure = error.into(),
            }
        }
        Err(failure)
    }

    /// A subscription to that channel.
    async fn subscription(&mut self, channel: &str) -> Option<&mut PubSub> {
        if self.subscription.as_ref().is_none_or(|(subscribed, _)| subscribed != channel) {
            self.subscription = None;
            match timeout(DEADLINE, self.subscribe(channel)).await {
                Ok(Ok(subscription)) => self.subscription = Some((channel.to_owned(), subscription)),
                Ok(Err(error)) => tracing::debug!(%error, "other proxies cannot be heard"),
                Err(_) => tracing::debug!("other proxies cannot be heard: no answer in time"),
            }
        }
        self.subscription.as_mut().map(|(_, subscription)| subscription)
    }
}

impl Listen for RedisListener {
    async fn listen(&mut self, channel: &str) -> Vec<u8> {
        use futures_util::StreamExt;
        loop {
            let heard = match self.subscription(channel).await {
                Some(subscription) => subscription.on_message().next().await,
                None => None,
            };
            match heard {
                Some(message) => return message.get_payload_bytes().to_vec(),
                None => {
                    self.subscription = None;
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// What has come of an attempt.
#[derive(Debug)]
pub struct Carried {
    /// Until what was said was heard.
    pub round_trip: Duration,
    /// What others have said meanwhile.
    pub heard: Vec<Vec<u8>>,
}

/// Says `message` on that channel, and listens there for so long.
///
/// # Errors
/// Messages are not carried; why, without a word of the secret.
pub async fn try_out(way: Way, channel: &str, message: &[u8], for_long: Duration) -> Result<Carried, String> {
    use futures_util::StreamExt;
    const LATE: &str = "no answer in time";
    let listener = RedisListener::new(way.clone());
    let subscribed = timeout(DEADLINE, listener.subscribe(channel)).await.map_err(|_| LATE.to_owned())?;
    let mut subscription = subscribed.map_err(|error| format!("SUBSCRIBE: {error}"))?;
    let mut speaker = RedisSpeaker::new(way);
    let (said_at, until) = (Instant::now(), Deadline::now() + for_long);
    let said = timeout(DEADLINE, speaker.publish(channel, message)).await.map_err(|_| LATE.to_owned())?;
    said.map_err(|error| format!("PUBLISH: {error}"))?;
    let (mut round_trip, mut heard) = (None, Vec::new());
    let mut messages = subscription.on_message();
    while let Ok(Some(one)) = timeout_at(until, messages.next()).await {
        match one.get_payload_bytes() {
            own if own == message => round_trip = round_trip.or_else(|| Some(said_at.elapsed())),
            other if heard.len() < MOST_HEARD => heard.push(other.to_vec()),
            _ => break,
        }
    }
    let round_trip = round_trip.ok_or_else(|| "what is said is not heard".to_owned())?;
    Ok(Carried { round_trip, heard })
}
