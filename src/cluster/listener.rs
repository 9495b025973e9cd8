//! One connection per database that listens for all of its clients, so that none of them holds a server connection for
//! it. Notifications reach a client in the order in which PostgreSQL sends them.
//!
//! <https://www.postgresql.org/docs/current/sql-notify.html>

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, Interval, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::Database;
use crate::{
    control::{ControlError, Deadlines, Notification, Session, Target},
    protocol::backend,
    routing::MemberId,
};

/// Wishes that wait for the connection.
const MAX_WISHES: usize = 1024;
/// Notifications that wait to be handed out; of 8 kB at most each.
const MAX_WAITING: usize = 8192;
/// Notifications that a client has not taken yet, in bytes.
const MAX_MAIL_BYTES: usize = 1 << 20;
/// Answered behind everything that was committed before it; `pg_stat_activity` shows it.
const FENCE: &str = "SELECT 'pgweir listens'";
/// How often it is made sure that the connection lives and is the primary's.
const LOOK: Duration = Duration::from_secs(5);
/// For so long nobody tries again to connect.
const RETRY: Duration = Duration::from_secs(1);

/// Why a client may have missed notifications.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    /// The connection that listened is gone.
    #[error("connection that listened for notifications was lost, some may have been missed")]
    Lost,
    /// The client does not take them.
    #[error("more than 1 MB of notifications that the client has not read")]
    Full,
}

/// Notifications for one client.
#[derive(Debug)]
pub struct Mailbox {
    mail: Mutex<Mail>,
    has_mail: AtomicBool,
    /// Wakes the client's task.
    woken: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Mail {
    frames: Vec<u8>,
    failure: Option<MailError>,
}

impl Mailbox {
    /// An empty one; `woken` is told of each change.
    #[must_use]
    pub fn new(woken: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { mail: Mutex::default(), has_mail: AtomicBool::new(false), woken })
    }

    /// Is there something to take?
    #[must_use]
    pub fn has_mail(&self) -> bool {
        self.has_mail.load(Ordering::Acquire)
    }

    /// Moves what has come to `out`, whole messages of the protocol.
    ///
    /// # Errors
    /// Some may be missing.
    pub fn take(&self, out: &mut Vec<u8>) -> Result<(), MailError> {
        let mut mail = self.mail.lock().unwrap_or_else(PoisonError::into_inner);
        self.has_mail.store(false, Ordering::Release);
        out.append(&mut mail.frames);
        mail.failure.map_or(Ok(()), Err)
    }

    /// Puts one in. True if there was none before: its client is to be woken.
    fn deliver(&self, frame: &[u8]) -> bool {
        self.change(|mail| {
            if mail.failure.is_none() {
                match mail.frames.len() + frame.len() > MAX_MAIL_BYTES {
                    true => mail.failure = Some(MailError::Full),
                    false => mail.frames.extend_from_slice(frame),
                }
            }
        })
    }

    fn lose(&self) {
        self.change(|mail| mail.failure = mail.failure.or(Some(MailError::Lost)));
        self.woken.notify_one();
    }

    fn change(&self, change: impl FnOnce(&mut Mail)) -> bool {
        change(&mut self.mail.lock().unwrap_or_else(PoisonError::into_inner));
        !self.has_mail.swap(true, Ordering::AcqRel)
    }
}

/// What a client asks for; each is answered when it holds.
enum Wish {
    Listen {
        channel: Box<str>,
        mailbox: Arc<Mailbox>,
        done: oneshot::Sender<bool>,
    },
    /// `None`: every channel.
    Unlisten {
        channel: Option<Box<str>>,
        mailbox: Arc<Mailbox>,
        done: oneshot::Sender<bool>,
    },
}

/// Asks the task that listens.
#[derive(Debug)]
pub struct Listener {
    wishes: mpsc::Sender<Wish>,
}

impl Listener {
    /// The handle and the work, which its caller runs until `stop`. No connection is open while nobody listens.
    pub fn new(
        database: Arc<Database>,
        targets: Vec<(MemberId, Target)>,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (wishes, asked) = mpsc::channel(MAX_WISHES);
        let (notify, notified) = mpsc::channel(MAX_WAITING);
        let work =
            Work { database, targets, session: None, subscribers: HashMap::new(), notify, notified, failed_at: None };
        (Self { wishes }, work.run(asked, stop))
    }

    /// From now on, what is notified on `channel` comes to `mailbox`; false if nobody can listen. Cancel safe.
    pub async fn listen(&self, channel: &str, mailbox: &Arc<Mailbox>) -> bool {
        let (done, outcome) = oneshot::channel();
        self.wish(Wish::Listen { channel: channel.into(), mailbox: Arc::clone(mailbox), done }, outcome).await
    }

    /// Nothing of `channel`, or of any, comes any more. Cancel safe.
    pub async fn unlisten(&self, channel: Option<&str>, mailbox: &Arc<Mailbox>) {
        let (done, outcome) = oneshot::channel();
        let channel = channel.map(Into::into);
        self.wish(Wish::Unlisten { channel, mailbox: Arc::clone(mailbox), done }, outcome).await;
    }

    /// What was committed before now has come to the mailbox. Cancel safe.
    pub async fn hear_out(&self, mailbox: &Arc<Mailbox>) {
        // No channel has an empty name.
        self.unlisten(Some(""), mailbox).await;
    }

    /// As [`Self::unlisten`] of every channel, for one who does not wait for it.
    pub fn leave(&self, mailbox: &Arc<Mailbox>) {
        let (done, _) = oneshot::channel();
        let wish = Wish::Unlisten { channel: None, mailbox: Arc::clone(mailbox), done };
        if self.wishes.try_send(wish).is_err() {
            tracing::debug!("a listener that has left is forgotten with its next notification");
        }
    }

    async fn wish(&self, wish: Wish, outcome: oneshot::Receiver<bool>) -> bool {
        self.wishes.send(wish).await.is_ok() && outcome.await.unwrap_or(false)
    }
}

/// The connection that listens, and of which member.
struct Open {
    session: Session,
    member: MemberId,
}

struct Work {
    database: Arc<Database>,
    targets: Vec<(MemberId, Target)>,
    session: Option<Open>,
    subscribers: HashMap<Box<str>, Vec<Arc<Mailbox>>>,
    notify: mpsc::Sender<Notification>,
    notified: mpsc::Receiver<Notification>,
    failed_at: Option<Instant>,
}

fn look() -> Interval {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    look
}

impl Work {
    async fn run(mut self, mut asked: mpsc::Receiver<Wish>, stop: CancellationToken) {
        let mut look = look();
        loop {
            // Each branch is cancel safe.
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(notification) = self.notified.recv() => {
                    // Those of one transaction come together, and are read one by one.
                    tokio::task::yield_now().await;
                    self.hand_out_from(notification);
                }
                wish = asked.recv() => match wish {
                    Some(wish) => self.take(wish).await,
                    None => break,
                },
                _ = look.tick(), if self.session.is_some() => self.hear_out().await,
            }
            self.look_after_session();
        }
        self.lose();
    }

    /// This one and all that have come by now; a client is woken once for what is its.
    fn hand_out_from(&mut self, first: Notification) {
        let mut waiting = Vec::new();
        let mut next = Some(first);
        while let Some(notification) = next {
            self.hand_out(&notification, &mut waiting);
            next = self.notified.try_recv().ok();
        }
        for mailbox in waiting {
            mailbox.woken.notify_one();
        }
    }

    fn hand_out(&mut self, notification: &Notification, waiting: &mut Vec<Arc<Mailbox>>) {
        let Some(subscribers) = self.subscribers.get_mut(notification.channel()) else { return };
        let mut frame = Vec::new();
        backend::put_notification(
            &mut frame,
            notification.process_id(),
            notification.channel(),
            notification.payload(),
        );
        // One that nobody else holds belongs to a client that is gone.
        subscribers.retain(|mailbox| Arc::strong_count(mailbox) > 1);
        for mailbox in subscribers {
            if mailbox.deliver(&frame) {
                waiting.push(Arc::clone(mailbox));
            }
        }
    }

    async fn take(&mut self, wish: Wish) {
        match wish {
            Wish::Listen { channel, mailbox, done } => {
                let listens = match self.begin(&channel).await {
                    Ok(()) => {
                        let subscribers = self.subscribers.entry(channel).or_default();
                        if !subscribers.iter().any(|known| Arc::ptr_eq(known, &mailbox)) {
                            subscribers.push(mailbox);
                        }
                        true
                    }
                    Err(error) => {
                        tracing::warn!(db = %self.database.name, %error, "nobody listens for its clients");
                        false
                    }
                };
                // A client that has gone meanwhile is found with the next notification.
                let _gone = done.send(listens);
            }
            Wish::Unlisten { channel, mailbox, done } => {
                self.hear_out().await;
                for (name, subscribers) in &mut self.subscribers {
                    if channel.as_ref().is_none_or(|channel| channel == name) {
                        subscribers.retain(|known| !Arc::ptr_eq(known, &mailbox));
                    }
                }
                let _gone = done.send(true);
                self.end_unused().await;
            }
        }
    }

    /// Makes sure that the connection listens on `channel`.
    async fn begin(&mut self, channel: &str) -> Result<(), ControlError> {
        let primary = self.database.primary().ok_or(ControlError::Closed)?;
        if self.session.as_ref().is_some_and(|open| open.member != primary) {
            self.lose();
        }
        if self.session.is_none() {
            if self.failed_at.is_some_and(|failed| failed.elapsed() < RETRY) {
                return Err(ControlError::Closed);
            }
            let unknown = || ControlError::UnknownMember(primary.0);
            let (_, target) = self.targets.iter().find(|(member, _)| *member == primary).ok_or_else(unknown)?;
            let opened = Session::open_listening(target, Deadlines::default(), self.notify.clone()).await;
            self.failed_at = opened.is_err().then(Instant::now);
            let session = opened?;
            self.session = Some(Open { session, member: primary });
        }
        if self.subscribers.contains_key(channel) {
            return Ok(());
        }
        let told = self.tell(format!("LISTEN {}", quoted(channel))).await;
        if told.is_err() {
            self.lose();
        }
        told
    }

    /// Hands out everything that was committed before now: the server sends it in front of the answer to a query.
    async fn hear_out(&mut self) {
        if self.session.is_some() && self.tell(FENCE.to_owned()).await.is_err() {
            self.lose();
        }
        if let Ok(first) = self.notified.try_recv() {
            self.hand_out_from(first);
        }
    }

    /// Channels without a client are given up; without any, the connection is.
    async fn end_unused(&mut self) {
        let unused: Vec<_> = self.subscribers.extract_if(|_, subscribers| subscribers.is_empty()).collect();
        if self.subscribers.is_empty() {
            self.session = None;
        }
        for (channel, _) in unused {
            if self.session.is_some() && self.tell(format!("UNLISTEN {}", quoted(&channel))).await.is_err() {
                self.lose();
            }
        }
    }

    async fn tell(&self, statement: String) -> Result<(), ControlError> {
        let Some(open) = &self.session else { return Err(ControlError::Closed) };
        let after = Deadlines::default().statement;
        let told = timeout(after, open.session.client().batch_execute(&statement)).await;
        told.map_err(|_| ControlError::Deadline { act: crate::control::Act::Statement, after })?.map_err(Into::into)
    }

    /// A connection that has broken, or that is no longer the primary's, hears nothing.
    fn look_after_session(&mut self) {
        let Some(open) = &self.session else { return };
        if open.session.client().is_closed() || Some(open.member) != self.database.primary() {
            self.lose();
        }
    }

    fn lose(&mut self) {
        self.session = None;
        for mailbox in self.subscribers.drain().flat_map(|(_, subscribers)| subscribers) {
            mailbox.lose();
        }
    }
}

fn quoted(channel: &str) -> String {
    format!("\"{}\"", channel.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_takes_nothing_loses_its_subscription_and_not_the_memory_of_all() {
        let mailbox = Mailbox::new(Arc::default());
        let frame = vec![b'A'; MAX_MAIL_BYTES / 4];
        for _ in 0..5 {
            mailbox.deliver(&frame);
        }
        let mut out = Vec::new();
        assert!(mailbox.has_mail());
        assert_eq!(mailbox.take(&mut out), Err(MailError::Full));
        assert_eq!(out.len(), MAX_MAIL_BYTES);
        assert!(!mailbox.has_mail());
    }

    #[test]
    fn what_came_before_the_loss_is_still_delivered() {
        let mailbox = Mailbox::new(Arc::default());
        mailbox.deliver(b"one");
        mailbox.lose();
        let mut out = Vec::new();
        assert_eq!((mailbox.take(&mut out), &*out), (Err(MailError::Lost), &b"one"[..]));
    }

    #[test]
    fn a_channel_is_named_as_it_is_written() {
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
    }
}
