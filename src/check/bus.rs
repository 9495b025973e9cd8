//! Would this process and the others that cache a database understand each other?

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    Problem,
    entries::{Entry, Whom},
    login::{LONGEST_STATEMENT, target},
    print,
};
use crate::{
    cache::{
        bus::{
            frame::{FrameError, Message, NodeId, Seal},
            transport::{Carried, try_out},
        },
        shared::Way,
    },
    cluster::coherence::sharers,
    config::{Coherence, Config, Lines},
    control::{Deadlines, Session},
    net::tls::{ConnectTls, trusted_file},
};

/// Processes that know of each other say something ten times a second.
const LISTENS: Duration = Duration::from_millis(1_000);

/// What was heard on the channel of one database.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    /// By whom we would be understood.
    others: BTreeSet<NodeId>,
    /// Messages under another secret.
    strange: usize,
    /// Messages of another version.
    other_version: usize,
}

impl Heard {
    fn of(seal: &Seal, messages: &[Vec<u8>]) -> Self {
        let mut heard = Self::default();
        for message in messages {
            match seal.take(message) {
                Ok(message) => _ = heard.others.insert(message.from),
                Err(FrameError::Version) => heard.other_version += 1,
                Err(FrameError::Seal | FrameError::Malformed) => heard.strange += 1,
            }
        }
        heard
    }

    /// The setting to look at, and what is wrong, where `listed` share the database.
    fn problems(&self, listed: &BTreeSet<NodeId>) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.strange > 0 {
            problems
                .push(("secret", "secret: another process uses another secret: neither answers from its cache".into()));
        }
        if self.other_version > 0 {
            let what =
                "redis_url: another process is of another version: neither answers from its cache until one has gone";
            problems.push(("redis_url", what.to_owned()));
        }
        let silent = listed.iter().filter(|node| !self.others.contains(*node)).count();
        // One that is alone has nobody to talk to.
        if problems.is_empty() && listed.len() > 1 && silent > 0 {
            let what = format!(
                "redis_url: {silent} of {} other processes share the database and are not heard: they use another Redis, or are stuck",
                listed.len()
            );
            problems.push(("redis_url", what));
        }
        problems
    }
}

/// Asks each primary who shares its database, and listens to them.
pub(super) async fn problems(
    config: &Config,
    lines: &Lines,
    primaries: &[Entry],
    tls: &Arc<ConnectTls>,
    longest: Duration,
) -> Vec<Problem> {
    let cache = &config.cache;
    let (Some(url), Some(secret)) = (&cache.redis_url, &cache.secret) else { return Vec::new() };
    // What is wrong with these has been said.
    let roots = trusted_file("cache.redis_tls_ca_file", &cache.redis_tls_ca_file).unwrap_or_default();
    let Ok(way) = Way::parse(url.reveal(), roots) else { return Vec::new() };
    if cache.coherence == Coherence::Off {
        return Vec::new();
    }
    let mut problems = Vec::new();
    let mut asked = BTreeSet::new();
    for entry in primaries {
        let Some((channel, listed)) =
            ask(entry, tls, longest).await.filter(|(channel, _)| asked.insert(channel.clone()))
        else {
            continue;
        };
        let seal = Seal::new(secret.reveal(), &channel);
        let mut said = |key: &str, what: String| {
            let what = format!("{}: {what}", entry.database);
            problems.push(Problem { place: lines.of_key(&["cache"], key), what });
        };
        match try_out(way.clone(), &channel, &seal.put(&nothing()), LISTENS).await {
            Ok(Carried { round_trip, heard }) => {
                let line = format_args!(
                    "{}: Redis carries a message in {:.1} ms; {} the database",
                    entry.database,
                    round_trip.as_secs_f64() * 1000.0,
                    others(listed.len())
                );
                print(&mut std::io::stdout().lock(), line);
                for (key, what) in Heard::of(&seal, &heard).problems(&listed) {
                    said(key, what);
                }
            }
            Err(error) => said("redis_url", format!("redis_url: no messages to other processes: {error}")),
        }
    }
    problems
}

fn others(count: usize) -> String {
    match count {
        1 => "1 other process shares".to_owned(),
        count => format!("{count} other processes share"),
    }
}

/// Nothing at all, by somebody whom nobody knows.
fn nothing() -> Message {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    Message { from: NodeId(now), sequence: 0, told: Vec::new(), notes: Vec::new() }
}

/// The channel of a database and who shares it. That a server cannot be asked has been said.
async fn ask(entry: &Entry, tls: &Arc<ConnectTls>, longest: Duration) -> Option<(String, BTreeSet<NodeId>)> {
    let Whom::User(user, password) = &entry.whom else { return None };
    let target = target(entry, user, password.clone(), tls);
    let deadlines = Deadlines { connect: longest, statement: LONGEST_STATEMENT };
    let asked = async { sharers(&Session::open(&target, deadlines).await.ok()?).await.ok()? };
    tokio::time::timeout(longest + LONGEST_STATEMENT, asked).await.ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(from: u64) -> Message {
        Message { from: NodeId(from), ..nothing() }
    }

    #[track_caller]
    fn check(messages: &[Vec<u8>], listed: &[u64], expected: &[&str]) {
        let listed = listed.iter().copied().map(NodeId).collect();
        let problems = Heard::of(&Seal::new("secret", "shop"), messages).problems(&listed);
        let said: Vec<_> = problems.iter().map(|(_, what)| what.split(": ").nth(1).unwrap()).collect();
        assert_eq!(said, expected);
    }

    #[test]
    fn whoever_is_not_understood_or_not_heard_is_a_problem() {
        let known = |from| Seal::new("secret", "shop").put(&message(from));
        let stranger = Seal::new("other", "shop").put(&message(7));
        let silent = "1 of 2 other processes share the database and are not heard";
        check(&[], &[], &[]);
        check(&[], &[5], &[]);
        check(&[known(5), known(6), known(5)], &[5, 6], &[]);
        check(&[known(5)], &[5, 6], &[silent]);
        check(&[known(5), stranger], &[5, 6], &["another process uses another secret"]);
        check(&[b"x".to_vec()], &[5], &["another process uses another secret"]);
        let old = Seal::new("secret", "shop").put_as_before(&message(6));
        check(&[known(5), old], &[5, 6], &["another process is of another version"]);
    }
}
