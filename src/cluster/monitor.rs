//! One task per member that asks it, many times a second, where it stands.

use std::{sync::Arc, time::Duration};

use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{backoff::Backoff, probe::Probe, roles::Lineage};
use crate::{
    clock::Clock,
    control::{ControlError, Deadlines, FailureKind, Target},
    lsn::Lsn,
    routing::MemberId,
};

/// A login may not hold a member's return up for longer than this.
const LONGEST_LOGIN: Duration = Duration::from_secs(2);
/// An answer later than this tells nothing about now.
const LONGEST_PROBE: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Where a member stood at some moment between `sent_at` and `received_at`, nanoseconds on the process clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Before the question left; what committed earlier is below a primary's `lsn`.
    pub sent_at: u64,
    /// After the answer came.
    pub received_at: u64,
    /// A replica, or a primary?
    pub in_recovery: bool,
    /// A primary's end of the last record, a replica's replay position (0 until it has replayed anything).
    pub lsn: Lsn,
    /// A primary's timeline; the one a replica streams, `None` while it does not or where the control user may not ask.
    pub timeline: Option<u32>,
    /// Same for all members of one cluster; `None` where the control user may not ask.
    pub system_identifier: Option<u64>,
}

impl Sample {
    /// Which history `lsn` belongs to.
    pub fn lineage(&self) -> Lineage {
        Lineage { system_identifier: self.system_identifier, timeline: self.timeline }
    }
}

/// Who wants to know. Called from the monitor's tasks: must not block.
pub trait SampleSink: Send + Sync + 'static {
    /// `member` answered.
    fn sampled(&self, member: MemberId, sample: Sample);
    /// `member` did not answer, or not in time.
    fn failed(&self, member: MemberId, kind: FailureKind);
}

/// One member to watch.
#[derive(Clone, Debug, PartialEq)]
pub struct Watched {
    /// Its name in every report.
    pub member: MemberId,
    /// Where it is.
    pub target: Target,
    /// `lag_check_interval`.
    pub interval: Duration,
}

/// Starts a task for each member on the caller's runtime; they end when `stop` is cancelled.
pub fn spawn<S: SampleSink>(
    members: Vec<Watched>,
    sink: &Arc<S>,
    clock: Clock,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) {
    for member in members {
        let (sink, stop) = (Arc::clone(sink), stop.clone());
        tracker.spawn(async move {
            // Cancel safe: the probe's connection closes when it is dropped, and nothing else is held.
            tokio::select! {
                () = stop.cancelled() => {}
                () = watch(&member, sink.as_ref(), clock) => {}
            }
        });
    }
}

/// Never returns; a failure closes the connection, is reported and followed by a pause.
async fn watch<S: SampleSink>(watched: &Watched, sink: &S, clock: Clock) {
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut ticks = tokio::time::interval(watched.interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let error = sample_until_failure(watched, sink, clock, &mut ticks, &mut backoff).await;
        let kind = error.kind();
        tracing::debug!(member = watched.member.0, reason = kind.label(), %error, "probe failed");
        sink.failed(watched.member, kind);
        tokio::time::sleep(backoff.pause(draw())).await;
    }
}

async fn sample_until_failure<S: SampleSink>(
    watched: &Watched,
    sink: &S,
    clock: Clock,
    ticks: &mut Interval,
    backoff: &mut Backoff,
) -> ControlError {
    let deadlines = Deadlines { connect: LONGEST_LOGIN, statement: LONGEST_PROBE };
    let probe = match Probe::open(&watched.target, deadlines).await {
        Ok(probe) => probe,
        Err(error) => return error,
    };
    loop {
        ticks.tick().await;
        let sent_at = clock.now();
        match probe.ask().await {
            Ok(answer) => {
                backoff.reset();
                sink.sampled(watched.member, answer.at(sent_at, clock.now()));
            }
            Err(error) => return error,
        }
    }
}

/// Jitter only; where the system has no randomness, members are asked together.
fn draw() -> u64 {
    getrandom::u64().unwrap_or(0)
}
