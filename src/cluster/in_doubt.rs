//! Commits whose connection was lost before the answer: did they happen, and when is it over?
//!
//! Nobody can say whether the commit happened, but once its backend has left the server it has happened or never
//! will, and then it is safe to void what it may have written and to lift the fence. Until then the fence stays.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use crate::{
    control::{Control, ControlError},
    routing::MemberId,
};

/// Lost connections waited for at once. Each was a server connection, so real numbers stay far below.
pub const MAX_WAITING: usize = 65_536;

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A server clock set back by less than this between two polls cannot make an old backend look young.
const CLOCK_SLACK: Duration = Duration::from_secs(60);

/// `backend_start` is NULL where the control user may not see it (it is no member of `pg_read_all_stats`).
const QUESTION: &str = "\
    SELECT pid, backend_start::text, extract(epoch FROM clock_timestamp() - backend_start)::float8 \
      FROM pg_stat_activity WHERE pid = ANY($1)";

/// The server process whose last answer is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The server it runs on.
    pub member: MemberId,
    /// From `BackendKeyData`.
    pub pid: i32,
}

/// [`MAX_WAITING`] is reached; what the backend may have written must stay fenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many lost commits are in doubt")]
pub struct Full;

/// The lost commits of one cluster.
#[derive(Default)]
pub struct InDoubt {
    waiting: Mutex<Vec<Waiting>>,
    added: Notify,
}

struct Waiting {
    backend: Backend,
    since: Instant,
    /// `backend_start` of the process first seen under this pid.
    first_start: Option<String>,
    settled: Box<dyn FnOnce() + Send>,
}

/// A process that is there now.
#[derive(Clone, Debug, PartialEq)]
struct Running {
    start: Option<String>,
    age: Option<Duration>,
}

impl InDoubt {
    /// Calls `settled` once, when `backend` is certainly gone.
    pub fn watch(&self, backend: Backend, settled: impl FnOnce() + Send + 'static) -> Result<(), Full> {
        let settled = Box::new(settled);
        let mut waiting = self.lock();
        if waiting.len() >= MAX_WAITING {
            return Err(Full);
        }
        waiting.push(Waiting { backend, since: Instant::now(), first_start: None, settled });
        drop(waiting);
        self.added.notify_one();
        Ok(())
    }

    /// Settles everything on `member` unasked: after a failover the lost primary's backends decide nothing any more.
    /// To be called after the new epoch has begun.
    pub fn abandon(&self, member: MemberId) {
        self.settle(|waiting| waiting.backend.member == member);
    }

    /// Commits in doubt now.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Is none in doubt?
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Polls while anything is in doubt, until `stop`. What is in doubt then is never settled.
    pub async fn run(&self, control: &Control, stop: &CancellationToken) {
        // Cancel safe: an answer that is not looked at settles nothing.
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.poll_while_in_doubt(control) => {}
        }
    }

    async fn poll_while_in_doubt(&self, control: &Control) {
        loop {
            self.added.notified().await;
            let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
            while !self.is_empty() {
                self.poll(control).await;
                tokio::time::sleep(backoff.pause(getrandom::u64().unwrap_or(0))).await;
            }
        }
    }

    async fn poll(&self, control: &Control) {
        for (member, pids) in self.pids() {
            match running(control, member, &pids).await {
                Ok(running) => self.compare(member, &pids, &running),
                // A server that is down may still come back with the commit: the fence stays.
                Err(error) => {
                    tracing::debug!(member = member.0, %error, "cannot ask for backends in doubt");
                }
            }
        }
    }

    fn pids(&self) -> BTreeMap<MemberId, Vec<i32>> {
        let mut pids = BTreeMap::<_, Vec<_>>::new();
        for waiting in self.lock().iter() {
            pids.entry(waiting.backend.member).or_default().push(waiting.backend.pid);
        }
        pids
    }

    /// `asked` keeps those apart that came while the question was on its way.
    fn compare(&self, member: MemberId, asked: &[i32], running: &HashMap<i32, Running>) {
        self.settle(|waiting| {
            let Backend { member: on, pid } = waiting.backend;
            if on != member || !asked.contains(&pid) {
                return false;
            }
            let seen = running.get(&pid);
            let is_gone = is_gone(seen, waiting.first_start.as_deref(), waiting.since.elapsed());
            if let (None, Some(seen)) = (&waiting.first_start, seen) {
                waiting.first_start.clone_from(&seen.start);
            }
            is_gone
        });
    }

    fn settle(&self, is_settled: impl FnMut(&mut Waiting) -> bool) {
        let settled: Vec<Waiting> = self.lock().extract_if(.., is_settled).collect();
        for waiting in settled {
            tracing::info!(member = waiting.backend.member.0, pid = waiting.backend.pid, "commit in doubt settled");
            (waiting.settled)();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gone, or another process has got its number.
fn is_gone(seen: Option<&Running>, first_start: Option<&str>, waited: Duration) -> bool {
    let Some(seen) = seen else {
        return true;
    };
    let is_another = first_start.is_some_and(|first| seen.start.as_deref().is_some_and(|now| now != first));
    let is_too_young = seen.age.is_some_and(|age| age + CLOCK_SLACK < waited);
    is_another || is_too_young
}

async fn running(control: &Control, member: MemberId, pids: &[i32]) -> Result<HashMap<i32, Running>, ControlError> {
    let rows = control.query(member.0, QUESTION, &[&pids]).await?;
    let mut running = HashMap::with_capacity(rows.len());
    for row in rows {
        let age = row.try_get::<_, Option<f64>>(2)?;
        let age = age.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        running.insert(row.try_get(0)?, Running { start: row.try_get(1)?, age });
    }
    Ok(running)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    const MEMBER: MemberId = MemberId(0);

    fn running(start: Option<&str>, age_seconds: Option<u64>) -> Running {
        Running { start: start.map(str::to_owned), age: age_seconds.map(Duration::from_secs) }
    }

    #[track_caller]
    fn check(seen: Option<Running>, first_start: Option<&str>, waited_seconds: u64, gone: bool) {
        let waited = Duration::from_secs(waited_seconds);
        assert_eq!(is_gone(seen.as_ref(), first_start, waited), gone, "{seen:?}");
    }

    #[test]
    fn a_backend_that_is_not_listed_is_gone() {
        check(None, None, 0, true);
    }

    #[test]
    fn a_backend_that_is_still_listed_is_waited_for() {
        check(Some(running(Some("10:00"), Some(5))), None, 1, false);
        check(Some(running(Some("10:00"), Some(5))), Some("10:00"), 1, false);
        check(Some(running(Some("10:00"), Some(3600))), Some("10:00"), 600, false);
    }

    #[test]
    fn a_number_given_to_another_process_means_gone() {
        check(Some(running(Some("10:05"), Some(1))), Some("10:00"), 2, true);
        check(Some(running(Some("10:05"), Some(1))), None, 120, true);
    }

    #[test]
    fn a_clock_that_was_set_back_a_little_does_not_end_the_wait() {
        check(Some(running(Some("10:00"), Some(1))), None, 30, false);
    }

    #[test]
    fn without_the_right_to_see_start_times_the_number_alone_decides() {
        check(Some(running(None, None)), None, 3600, false);
    }

    #[test]
    fn each_lost_commit_is_settled_once_and_alone() {
        let (in_doubt, settled) = (InDoubt::default(), Arc::new(AtomicUsize::new(0)));
        for pid in [1, 2, 3] {
            let settled = Arc::clone(&settled);
            let backend = Backend { member: MEMBER, pid };
            in_doubt
                .watch(backend, move || {
                    settled.fetch_add(1, Ordering::Relaxed);
                })
                .unwrap();
        }
        let still_there = HashMap::from([(2, running(Some("10:00"), Some(5)))]);
        in_doubt.compare(MEMBER, &[1, 2], &still_there);
        assert_eq!((settled.load(Ordering::Relaxed), in_doubt.len()), (1, 2));
        in_doubt.compare(MemberId(1), &[2, 3], &HashMap::new());
        assert_eq!(in_doubt.len(), 2, "another member's answer says nothing");
        in_doubt.abandon(MEMBER);
        assert_eq!((settled.load(Ordering::Relaxed), in_doubt.len()), (3, 0));
    }
}
