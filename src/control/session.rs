//! One connection of its own, outside the pools: probes keep theirs open, `check` opens one to look.

use std::{future::poll_fn, time::Duration};

use tokio::{sync::mpsc, task::AbortHandle};
use tokio_postgres::{AsyncMessage, Client, Notification};

use super::{Act, ControlError, Deadlines, Target, tls::Connector};

/// A logged-in connection; dropping it closes the socket at once, even where the server hangs.
pub struct Session {
    client: Client,
    driver: AbortHandle,
}

/// A notice, or something of the kind.
#[derive(Clone, Debug)]
pub struct ServerMessage {
    /// Its primary message.
    pub text: String,
    /// Its detail.
    pub detail: Option<String>,
}

impl Session {
    /// Logs in to `target` on the caller's runtime.
    pub async fn open(target: &Target, deadlines: Deadlines) -> Result<Self, ControlError> {
        let config = target.client_config(deadlines);
        let login = within(Act::Connect, deadlines.connect, Box::pin(config.connect(Connector::new(&target.tls))));
        let (client, connection) = login.await??;
        let driver = tokio::spawn(async move {
            // Whoever waits for an answer on `client` is told of the same error.
            let _ended = connection.await;
        });
        Ok(Self { client, driver: driver.abort_handle() })
    }

    /// As [`Self::open`]; notifications go to `sink`. Where that is full the connection ends: none may be missing unseen.
    pub async fn open_listening(
        target: &Target,
        deadlines: Deadlines,
        sink: mpsc::Sender<Notification>,
    ) -> Result<Self, ControlError> {
        let hear = move |message| match message {
            AsyncMessage::Notification(notification) => sink.try_send(notification).is_ok(),
            _ => true,
        };
        Self::open_with(target, deadlines, hear).await
    }

    /// The same with what the server says beside its answers, which comes to `sink` before the answer.
    pub async fn open_hearing(
        target: &Target,
        deadlines: Deadlines,
        sink: mpsc::Sender<ServerMessage>,
    ) -> Result<Self, ControlError> {
        let hear = move |message| match message {
            AsyncMessage::Notice(notice) => {
                let detail = notice.detail().map(str::to_owned);
                sink.try_send(ServerMessage { text: notice.message().to_owned(), detail }).is_ok()
            }
            _ => true,
        };
        Self::open_with(target, deadlines, hear).await
    }

    /// `hear` says false where a message finds no room.
    async fn open_with(
        target: &Target,
        deadlines: Deadlines,
        mut hear: impl FnMut(AsyncMessage) -> bool + Send + 'static,
    ) -> Result<Self, ControlError> {
        let config = target.client_config(deadlines);
        let login = within(Act::Connect, deadlines.connect, Box::pin(config.connect(Connector::new(&target.tls))));
        let (client, mut connection) = login.await??;
        let driver = tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if !hear(message) {
                    tracing::warn!("more messages of the server than can be handed out");
                    return;
                }
            }
        });
        Ok(Self { client, driver: driver.abort_handle() })
    }

    /// The client half.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Waits for `work` for so long.
pub async fn within<T>(act: Act, after: Duration, work: impl Future<Output = T>) -> Result<T, ControlError> {
    tokio::time::timeout(after, work).await.map_err(|_| ControlError::Deadline { act, after })
}
