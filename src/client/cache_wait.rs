//! Answers that somebody else is about to have.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{
    Client, ClientError,
    cached::{Asked, Asking, FillPlan, Said},
    facts::Facts,
};
use crate::{
    cache::{Entry, FillGuard, Flight, Landing, local::SharedQuestion},
    insight::CacheOutcome,
    pool::CheckoutError,
    session::request::Request,
};

/// One who has joined so many flights asks for himself.
const FLIGHTS_JOINED: usize = 2;

/// Nobody waits longer for a leader, who may have a client that does not read.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Nobody gives up earlier.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// So many times the usual cost of a question is more than it costs.
const COSTS_WAITED: u64 = 4;

/// How long to wait for somebody's answer to a question that usually costs so many microseconds.
pub(super) fn patience(usual_cost: Option<u32>) -> Duration {
    usual_cost.map_or(LONGEST_WAIT, |cost| {
        Duration::from_micros(COSTS_WAITED * u64::from(cost)).clamp(SHORTEST_WAIT, LONGEST_WAIT)
    })
}

/// A request whose answer may be had from somebody.
pub(super) struct Waiting {
    pub asking: Asking,
    pub on: On,
}

/// From whom.
pub(super) enum On {
    /// A client that asks the same.
    Flight(Arc<Flight>, Duration),
    /// Redis; others wait for this one meanwhile.
    Shared(Box<FillGuard>, Box<SharedQuestion>),
}

/// What came of waiting.
pub(super) enum Awaited {
    /// The client has its answer.
    Answered,
    /// A server must be asked after all.
    Fill(FillPlan),
    /// The client has cancelled its request.
    Cancelled,
}

/// What one wait has brought.
enum Brought {
    Answer(Arc<Entry>, CacheOutcome),
    /// Nothing: this one is asked for as planned.
    Nothing(Box<FillGuard>),
    /// Nothing, or too late: it is looked up anew.
    Again {
        /// By waiting for others once more, if there are some.
        may_wait: bool,
    },
    Cancelled,
}

impl Client {
    /// Waits for somebody else's answer and gives it to the client. Whatever happens to that one, this one goes on.
    pub(super) async fn wait_for_answer(
        &mut self,
        request: Request,
        facts: &Facts,
        waiting: Waiting,
    ) -> Result<Awaited, ClientError> {
        self.has_waited = false;
        let Waiting { mut asking, mut on } = waiting;
        let mut flights = 0;
        loop {
            let brought = match on {
                On::Flight(flight, patience) => {
                    flights += 1;
                    self.join(flight, patience, flights < FLIGHTS_JOINED).await?
                }
                On::Shared(fill, question) => self.ask_shared(fill, *question, asking.ttl).await?,
            };
            let now = self.context.clock.now();
            self.info.waited(now);
            let fill = match brought {
                Brought::Answer(entry, _) if !asking.takes_all(&entry) => FillPlan::too_long(),
                Brought::Answer(entry, outcome) => {
                    if outcome == CacheOutcome::Joined {
                        asking.cache.note_joined();
                    }
                    self.answer_from_cache(&entry, request, facts, &asking, (outcome, outcome.label()));
                    return Ok(Awaited::Answered);
                }
                Brought::Cancelled => return Ok(Awaited::Cancelled),
                Brought::Nothing(fill) => FillPlan::keeping(fill, asking.ttl),
                Brought::Again { may_wait } => match self.look_up(request, facts, &asking, now) {
                    Said::Answered => return Ok(Awaited::Answered),
                    Said::TooLong => FillPlan::too_long(),
                    Said::Refused(refusal) => FillPlan::none(refusal.label()),
                    Said::Missing(fill) if !may_wait => self.plan_alone(fill, facts, &asking),
                    Said::Missing(fill) => match self.plan(fill, facts, asking) {
                        Asked::Answered => return Ok(Awaited::Answered),
                        Asked::Fill(fill) => fill,
                        Asked::Settle => FillPlan::none("strict"),
                        Asked::Wait(again) => {
                            Waiting { asking, on } = *again;
                            continue;
                        }
                    },
                },
            };
            return Ok(Awaited::Fill(FillPlan { has_waited: true, ..fill }));
        }
    }

    /// Waits for the end of somebody's flight.
    async fn join(&mut self, flight: Arc<Flight>, patience: Duration, may_wait: bool) -> Result<Brought, ClientError> {
        let landed = async move { Ok(timeout(patience, flight.landed()).await.unwrap_or(Landing::Unshared)) };
        Ok(match self.wait_watching(None, true, Box::pin(landed)).await {
            Ok(Some(Landing::Arrived(entry))) => Brought::Answer(entry, CacheOutcome::Joined),
            Ok(Some(Landing::Lost)) => Brought::Again { may_wait },
            Ok(Some(Landing::Unshared)) => Brought::Again { may_wait: false },
            Ok(None) => Brought::Cancelled,
            Err(error) if is_late(&error) => Brought::Again { may_wait: false },
            Err(error) => return Err(error),
        })
    }

    /// Asks Redis.
    async fn ask_shared(
        &mut self,
        fill: Box<FillGuard>,
        question: SharedQuestion,
        ttl: Option<u64>,
    ) -> Result<Brought, ClientError> {
        let asked = async move { Ok(question.ask().await) };
        let found = match self.wait_watching(None, true, Box::pin(asked)).await {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(Brought::Cancelled),
            Err(error) if is_late(&error) => None,
            Err(error) => return Err(error),
        };
        let fill = match found {
            Some(found) => match fill.adopt(found, ttl, self.context.clock.now()) {
                Ok(entry) => return Ok(Brought::Answer(entry, CacheOutcome::SharedHit)),
                Err(fill) => fill,
            },
            None => fill,
        };
        // A write has passed meanwhile: what would be brought by these stamps could not be kept.
        Ok(if fill.is_current() { Brought::Nothing(fill) } else { Brought::Again { may_wait: false } })
    }
}

/// Late for one who waits for a server; it has not begun to.
fn is_late(error: &ClientError) -> bool {
    matches!(error, ClientError::Checkout(CheckoutError::WaitTimeout { .. }) | ClientError::Overdue(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(usual_cost: Option<u32>, expected: Duration) {
        assert_eq!(patience(usual_cost), expected, "{usual_cost:?}");
    }

    #[test]
    fn one_waits_longer_for_what_usually_takes_longer_and_never_for_ever() {
        check(None, Duration::from_secs(10));
        check(Some(0), Duration::from_secs(1));
        check(Some(1_000_000), Duration::from_secs(4));
        check(Some(u32::MAX), Duration::from_secs(10));
    }
}
