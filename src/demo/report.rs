//! The figures of a demonstration in words, and the verdict; pure.

use std::{
    fmt::{self, Write},
    time::Duration,
};

use super::{proxy::Metrics, traffic::Tally};

/// What the console says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures {
    /// Why the console did not answer the last time.
    pub(super) missing: Option<String>,
    pub(super) members: Vec<MemberFigures>,
    pub(super) cache: CacheFigures,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct MemberFigures {
    pub(super) name: String,
    pub(super) role: String,
    pub(super) weight: u64,
    pub(super) requests: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct CacheFigures {
    pub(super) hits: u64,
    pub(super) misses: u64,
}

impl Figures {
    fn replicas(&self) -> impl Iterator<Item = &MemberFigures> {
        self.members.iter().filter(|member| member.role == "replica")
    }
}

impl CacheFigures {
    /// Of the reads the cache was asked for.
    fn hit_percent(self) -> f64 {
        percent(self.hits, self.hits + self.misses)
    }
}

/// What was not as promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Statements failed.
    Failed(u64),
    /// Nothing was sent.
    Idle,
    /// A replica served nothing.
    UnusedReplica(String),
    /// There are not two replicas.
    Replicas(usize),
    /// The cache answered nothing.
    UnusedCache,
    /// The console did not answer.
    NoFigures(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(failed) => write!(formatter, "{failed} statements failed"),
            Self::Idle => formatter.write_str("no statement was sent"),
            Self::UnusedReplica(name) => write!(formatter, "{name} served no read"),
            Self::Replicas(count) => write!(formatter, "the console knows {count} replicas instead of 2"),
            Self::UnusedCache => formatter.write_str("the cache answered no read"),
            Self::NoFigures(why) => write!(formatter, "no figures: {why}"),
        }
    }
}

/// Fine, or everything that was wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict(Vec<Fault>);

impl Verdict {
    pub(super) fn of(tally: &Tally, figures: &Figures) -> Self {
        let mut faults = Vec::new();
        if tally.failed() > 0 {
            faults.push(Fault::Failed(tally.failed()));
        }
        if tally.sent() == 0 {
            faults.push(Fault::Idle);
        }
        faults.extend(figures.missing.clone().map(Fault::NoFigures));
        let replicas = figures.replicas().count();
        if replicas != 2 {
            faults.push(Fault::Replicas(replicas));
        }
        let unused = figures.replicas().filter(|replica| replica.requests == 0);
        faults.extend(unused.map(|replica| Fault::UnusedReplica(replica.name.clone())));
        if figures.cache.hits == 0 {
            faults.push(Fault::UnusedCache);
        }
        Self(faults)
    }

    pub(super) fn is_fine(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn has_failures(&self) -> bool {
        self.0.iter().any(|fault| matches!(fault, Fault::Failed(_)))
    }
}

/// One line a second.
pub(super) fn live_line(elapsed: Duration, tally: &Tally, figures: &Figures) -> String {
    let mut line = format!("{:>5} s  {:>8} sent  {} failed", elapsed.as_secs(), tally.sent(), tally.failed());
    let [middle, high] = percentiles(tally);
    write_to(&mut line, format_args!("  p50 {middle:.2} ms  p99 {high:.2} ms"));
    for member in &figures.members {
        write_to(&mut line, format_args!("  {} {}", member.name, member.requests));
    }
    write_to(&mut line, format_args!("  cache {:.0} %", figures.cache.hit_percent()));
    line
}

/// What is printed at the end.
pub(super) fn summary(
    elapsed: Duration,
    tally: &Tally,
    figures: &Figures,
    http_port: u16,
    metrics: Option<&Metrics>,
    verdict: &Verdict,
) -> String {
    let mut text = String::from("\n");
    let mut line = |name: &str, value: fmt::Arguments<'_>| write_to(&mut text, format_args!("{name:<20}{value}\n"));
    let per_second = ratio(tally.sent(), elapsed.as_secs().max(1));
    line("statements sent", format_args!("{} ({per_second:.0} a second)", tally.sent()));
    line("statements failed", format_args!("{}", tally.failed()));
    for mistake in tally.mistakes() {
        line("", format_args!("{mistake}"));
    }
    let served = |member: &MemberFigures| format!("{} {} (weight {})", member.name, member.requests, member.weight);
    line("reads per replica", format_args!("{}", join(figures.replicas().map(served), ", ")));
    let (asked, got) = ratios(figures);
    line("ratio of reads", format_args!("{got} where the weights ask for {asked}"));
    let CacheFigures { hits, misses } = figures.cache;
    line("cache hit ratio", format_args!("{:.1} % ({hits} of {})", figures.cache.hit_percent(), hits + misses));
    let [middle, high] = percentiles(tally);
    line("latency", format_args!("p50 {middle:.2} ms, p99 {high:.2} ms"));
    let pages = format!("http://127.0.0.1:{http_port}/");
    line("dashboard", format_args!("{pages}"));
    match metrics {
        Some(Metrics { samples, requests }) => {
            line("metrics", format_args!("{pages}metrics ({samples} samples, pgweir_requests_total {requests:.0})"));
        }
        None => line("metrics", format_args!("{pages}metrics does not answer")),
    }
    match verdict.is_fine() {
        true => line("verdict", format_args!("fine: no failure, reads on both replicas and from the cache")),
        false => line("verdict", format_args!("not as promised: {}", join(verdict.0.iter(), "; "))),
    }
    text.truncate(text.trim_end().len());
    text
}

/// Weights and served reads, each relative to the smallest: `2 : 1`.
fn ratios(figures: &Figures) -> (String, String) {
    let relative = |of: fn(&MemberFigures) -> u64, digits: usize| {
        let least = figures.replicas().map(of).min().unwrap_or(0).max(1);
        let shares = figures.replicas().map(|replica| format!("{:.digits$}", ratio(of(replica), least)));
        join(shares, " : ")
    };
    (relative(|member| member.weight, 0), relative(|member| member.requests, 2))
}

fn percentiles(tally: &Tally) -> [f64; 2] {
    [500, 990].map(|per_mille| tally.latency().percentile(per_mille).as_secs_f64() * 1e3)
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { ratio(part, whole) * 100.0 }
}

fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

fn join<T: fmt::Display>(parts: impl Iterator<Item = T>, between: &str) -> String {
    parts.map(|part| part.to_string()).collect::<Vec<_>>().join(between)
}

fn write_to(text: &mut String, part: fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _infallible = text.write_fmt(part);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, role: &str, weight: u64, requests: u64) -> MemberFigures {
        MemberFigures { name: name.to_owned(), role: role.to_owned(), weight, requests }
    }

    fn figures() -> Figures {
        Figures {
            missing: None,
            members: vec![
                member("primary", "primary", 0, 90),
                member("r1", "replica", 2, 402),
                member("r2", "replica", 1, 200),
            ],
            cache: CacheFigures { hits: 300, misses: 100 },
        }
    }

    fn tally() -> Tally {
        let tally = Tally::default();
        tally.succeeded(Duration::from_millis(1));
        tally
    }

    #[track_caller]
    fn check(tally: &Tally, figures: &Figures, faults: &[Fault]) {
        assert_eq!(Verdict::of(tally, figures).0, faults);
    }

    #[test]
    fn reads_on_both_replicas_and_in_the_cache_without_a_failure_are_fine() {
        check(&tally(), &figures(), &[]);
    }

    #[test]
    fn everything_that_is_missing_is_named() {
        check(&Tally::default(), &figures(), &[Fault::Idle]);
        let unused =
            Figures { members: vec![member("r1", "replica", 2, 4), member("r2", "replica", 1, 0)], ..figures() };
        check(&tally(), &unused, &[Fault::UnusedReplica("r2".to_owned())]);
        let cold = Figures { cache: CacheFigures { hits: 0, misses: 9 }, ..figures() };
        check(&tally(), &cold, &[Fault::UnusedCache]);
        check(&tally(), &Figures::default(), &[Fault::Replicas(0), Fault::UnusedCache]);
        let silent = Figures { missing: Some("no answer".to_owned()), ..figures() };
        check(&tally(), &silent, &[Fault::NoFigures("no answer".to_owned())]);
        let failing = tally();
        failing.failed_because("read", "connection closed");
        check(&failing, &figures(), &[Fault::Failed(1)]);
    }

    #[test]
    fn the_summary_sets_the_reads_against_the_weights() {
        let (tally, figures) = (tally(), figures());
        let text = summary(Duration::from_secs(1), &tally, &figures, 9127, None, &Verdict::of(&tally, &figures));
        assert!(text.contains("2.01 : 1.00 where the weights ask for 2 : 1"), "{text}");
        assert!(text.contains("75.0 % (300 of 400)"), "{text}");
        assert!(text.contains("r1 402 (weight 2), r2 200 (weight 1)"), "{text}");
    }
}
