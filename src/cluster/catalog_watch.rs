//! Keeps the snapshot of a database's catalog current, or says that there is none to trust.
//!
//! What a catalog is, is not known here: a [`CatalogSource`] fingerprints it, loads it and wants the outcome.

use std::{error::Error, future::Future, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

/// When to look and when to stop believing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Between two looks at the fingerprint.
    pub interval: Duration,
    /// For one fingerprint or one load.
    pub deadline: Duration,
    /// Without a good look for this long, the snapshot is no longer to be used.
    pub trust: Duration,
    /// Between two looks because of errors.
    pub between_doubts: Duration,
}

/// Who asks the watch not to wait for its time.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'n> {
    /// A statement that changes the catalog has passed: the snapshot is known to be wrong.
    pub reload: &'n Notify,
    /// An error says that something is missing or has changed: the snapshot may be wrong.
    pub look: &'n Notify,
}

impl Default for Pace {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { interval: seconds(2), deadline: seconds(10), trust: seconds(15), between_doubts: seconds(1) }
    }
}

/// What the watch asks of others.
pub trait CatalogSource: Send + Sync + 'static {
    /// All that is known of a catalog.
    type Snapshot: Send;
    /// Why it cannot be known.
    type Failure: Error + Send;

    /// A number that changes whenever the catalog does; cheap.
    fn fingerprint(&self) -> impl Future<Output = Result<u64, Self::Failure>> + Send;

    /// The whole catalog, whose fingerprint was that a moment ago; dear.
    fn load(&self, fingerprint: u64) -> impl Future<Output = Result<Self::Snapshot, Self::Failure>> + Send;

    /// Must the snapshot that was published last not be used any more?
    fn is_outdated(&self) -> bool;

    /// A new snapshot, or `None`: the last one must no longer be used. Must not block.
    fn publish(&self, snapshot: Option<Self::Snapshot>);
}

/// Runs until `stop`.
///
/// Where the snapshot is known to be wrong and no new one can be had at once, `None` is published.
pub async fn run<S: CatalogSource>(source: &S, pace: Pace, asked: Asked<'_>, stop: &CancellationToken) {
    // Cancel safe: a load that is cut off has published nothing.
    tokio::select! {
        () = stop.cancelled() => {}
        () = watch(source, pace, asked) => {}
    }
}

async fn watch<S: CatalogSource>(source: &S, pace: Pace, asked: Asked<'_>) {
    let mut trust = Trust::new(pace.trust);
    let mut is_requested = false;
    let mut doubted_from = Instant::now();
    loop {
        let step = trust.looked(fingerprint(source, pace).await, is_requested, Instant::now().into_std());
        let step = match step {
            Step::Load(fingerprint) => {
                let snapshot = load(source, fingerprint, pace).await;
                let is_loaded = snapshot.is_some();
                if is_loaded {
                    source.publish(snapshot);
                }
                trust.loaded(fingerprint, is_loaded, is_requested, Instant::now().into_std())
            }
            other => other,
        };
        if step == Step::Distrust {
            tracing::warn!("catalog unknown: reads go to the primary, nothing is cached");
            source.publish(None);
        }
        // All branches are cancel safe.
        let is_announced = tokio::select! {
            () = asked.reload.notified() => true,
            () = doubted(asked.look, doubted_from) => {
                doubted_from = Instant::now() + pace.between_doubts;
                false
            }
            () = sleep(pace.interval) => false,
        };
        is_requested = is_announced || source.is_outdated();
    }
}

/// A doubt that comes earlier is kept until then.
async fn doubted(look: &Notify, from: Instant) {
    sleep_until(from).await;
    look.notified().await;
}

async fn fingerprint<S: CatalogSource>(source: &S, pace: Pace) -> Option<u64> {
    known("fingerprint", timeout(pace.deadline, source.fingerprint()).await.ok())
}

async fn load<S: CatalogSource>(source: &S, fingerprint: u64, pace: Pace) -> Option<S::Snapshot> {
    known("load", timeout(pace.deadline, source.load(fingerprint)).await.ok())
}

fn known<T, E: Error>(act: &'static str, outcome: Option<Result<T, E>>) -> Option<T> {
    match outcome {
        Some(Ok(value)) => return Some(value),
        Some(Err(error)) => tracing::debug!(act, %error, "catalog not available"),
        None => tracing::debug!(act, "catalog not available in time"),
    }
    None
}

/// What to do after a look; pure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    Load(u64),
    Distrust,
}

/// What is published and how long it may be believed.
struct Trust {
    span: Duration,
    /// Fingerprint taken before the published snapshot was loaded: what changed in between shows at the next look.
    published: Option<u64>,
    good_at: Option<std::time::Instant>,
}

impl Trust {
    fn new(span: Duration) -> Self {
        Self { span, published: None, good_at: None }
    }

    fn looked(&mut self, fingerprint: Option<u64>, is_requested: bool, now: std::time::Instant) -> Step {
        match fingerprint {
            Some(same) if self.published == Some(same) && !is_requested => {
                self.good_at = Some(now);
                Step::Nothing
            }
            Some(changed) => Step::Load(changed),
            None => self.failed(is_requested, now),
        }
    }

    fn loaded(&mut self, fingerprint: u64, is_loaded: bool, is_requested: bool, now: std::time::Instant) -> Step {
        if !is_loaded {
            // The fingerprint has moved or a change was announced: the published snapshot is wrong, not only old.
            return self.failed(is_requested || self.published.is_some(), now);
        }
        self.published = Some(fingerprint);
        self.good_at = Some(now);
        Step::Nothing
    }

    fn failed(&mut self, is_known_wrong: bool, now: std::time::Instant) -> Step {
        let is_old = self.good_at.is_none_or(|at| now.saturating_duration_since(at) >= self.span);
        if self.published.is_some() && (is_known_wrong || is_old) {
            self.published = None;
            return Step::Distrust;
        }
        Step::Nothing
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const SPAN: Duration = Duration::from_secs(15);

    /// A watch that has published a snapshot of fingerprint 1 at the returned moment.
    fn published() -> (Trust, std::time::Instant) {
        let (mut trust, now) = (Trust::new(SPAN), std::time::Instant::now());
        assert_eq!(trust.looked(Some(1), false, now), Step::Load(1));
        assert_eq!(trust.loaded(1, true, false, now), Step::Nothing);
        (trust, now)
    }

    #[test]
    fn an_unchanged_catalog_is_not_loaded_again() {
        let (mut trust, now) = published();
        assert_eq!(trust.looked(Some(1), false, now), Step::Nothing);
    }

    #[test]
    fn a_changed_catalog_is_loaded() {
        let (mut trust, now) = published();
        assert_eq!(trust.looked(Some(2), false, now), Step::Load(2));
    }

    #[test]
    fn a_request_loads_even_what_looks_unchanged() {
        let (mut trust, now) = published();
        assert_eq!(trust.looked(Some(1), true, now), Step::Load(1));
    }

    #[test]
    fn a_silent_server_is_trusted_for_a_while_and_then_no_more() {
        let (mut trust, now) = published();
        assert_eq!(trust.looked(None, false, now + Duration::from_secs(14)), Step::Nothing);
        assert_eq!(trust.looked(None, false, now + SPAN), Step::Distrust);
        assert_eq!(trust.looked(None, false, now + SPAN), Step::Nothing, "said once");
        assert_eq!(trust.looked(Some(1), false, now + SPAN), Step::Load(1), "and loaded again");
    }

    #[test]
    fn a_change_that_cannot_be_loaded_ends_the_trust_at_once() {
        let (mut trust, now) = published();
        assert_eq!(trust.looked(Some(2), false, now), Step::Load(2));
        assert_eq!(trust.loaded(2, false, false, now), Step::Distrust);
        let (mut trust, now) = published();
        assert_eq!(trust.looked(None, true, now), Step::Distrust);
    }

    /// Every look shows something new; nothing comes by itself.
    #[derive(Default)]
    struct Restless {
        looks: AtomicU64,
        looked: Notify,
        published: AtomicU64,
    }

    impl CatalogSource for Restless {
        type Snapshot = u64;
        type Failure = std::fmt::Error;

        async fn fingerprint(&self) -> Result<u64, Self::Failure> {
            Ok(self.looks.fetch_add(1, Ordering::SeqCst) + 1)
        }

        async fn load(&self, fingerprint: u64) -> Result<u64, Self::Failure> {
            Ok(fingerprint)
        }

        fn is_outdated(&self) -> bool {
            false
        }

        fn publish(&self, snapshot: Option<u64>) {
            self.published.store(snapshot.unwrap_or(0), Ordering::SeqCst);
            self.looked.notify_one();
        }
    }

    #[tokio::test]
    async fn a_doubt_is_looked_into_at_once_and_those_that_follow_wait() {
        let day = Duration::from_secs(86_400);
        let pace = Pace { interval: day, between_doubts: day, ..Pace::default() };
        let (source, reload, look, stop) =
            (Restless::default(), Notify::new(), Notify::new(), CancellationToken::new());
        let told = async {
            source.looked.notified().await;
            look.notify_one();
            source.looked.notified().await;
            assert_eq!(source.published.load(Ordering::SeqCst), 2, "no timer has brought it about");
            look.notify_one();
            for number in 3..40 {
                reload.notify_one();
                source.looked.notified().await;
                assert_eq!(source.published.load(Ordering::SeqCst), number, "the second doubt waits for its time");
            }
            stop.cancel();
        };
        tokio::join!(run(&source, pace, Asked { reload: &reload, look: &look }, &stop), told);
    }

    #[test]
    fn nothing_is_said_before_anything_was_published() {
        let (mut trust, now) = (Trust::new(SPAN), std::time::Instant::now());
        assert_eq!(trust.looked(None, true, now), Step::Nothing);
    }
}
