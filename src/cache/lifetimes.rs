//! How long an answer may be kept: as its statement's hint says, else its shape, else the tables that it reads.
//!
//! Time says nothing of what a write makes void: a longer life is never a staler answer where writes are heard of.

use std::time::Duration;

use crate::{
    config::{LifetimeConfig, Subject},
    sql::Fingerprint,
};

/// How long an answer may be kept; the shorter is the lesser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lifetime {
    /// Not at all.
    Off,
    /// Nanoseconds.
    Bounded(u64),
    /// Until a write makes it void.
    UntilVoid,
}

impl Lifetime {
    /// Zero is [`Self::UntilVoid`].
    #[must_use]
    pub fn of_nanos(nanos: u64) -> Self {
        if nanos == 0 { Self::UntilVoid } else { Self::Bounded(nanos) }
    }

    /// Nanoseconds, where it ends by itself.
    #[must_use]
    pub fn nanos(self) -> Option<u64> {
        if let Self::Bounded(nanos) = self { Some(nanos) } else { None }
    }
}

/// What `[cache_ttl]` says of relations with these names.
#[derive(Clone, Debug, PartialEq)]
struct Rule {
    schema: Box<str>,
    /// `None`: every relation of the schema.
    relation: Option<Box<str>>,
    lifetime: Lifetime,
}

/// What `[cache] ttl` and `[cache_ttl]` say of one database.
#[derive(Clone, Debug, PartialEq)]
pub struct Lifetimes {
    /// Where nothing else is said.
    usual: Lifetime,
    shapes: Box<[(Fingerprint, Lifetime)]>,
    /// The first that fits holds.
    rules: Box<[Rule]>,
}

impl Lifetimes {
    /// Of the database that clients know by this name. `ttl`: nanoseconds, 0 is until a write makes an answer void.
    #[must_use]
    pub fn new(ttl: u64, database: &str, entries: &[LifetimeConfig]) -> Self {
        let lifetime = |entry: &LifetimeConfig| {
            entry.ttl.map_or(Lifetime::Off, |ttl| Lifetime::of_nanos(u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX)))
        };
        let (mut shapes, mut rules) = (Vec::new(), Vec::new());
        for entry in entries {
            match &entry.subject {
                Subject::Shape(shape) => shapes.push((Fingerprint(*shape), lifetime(entry))),
                Subject::Relations { database: of, schema, relation } => {
                    if of.as_ref().is_none_or(|of| of == database) {
                        let relation = relation.as_deref().map(Box::from);
                        let precision = (relation.is_some(), of.is_some());
                        rules.push((
                            precision,
                            Rule { schema: schema.as_str().into(), relation, lifetime: lifetime(entry) },
                        ));
                    }
                }
            }
        }
        rules.sort_by_key(|(precision, _)| std::cmp::Reverse(*precision));
        let rules = rules.into_iter().map(|(_, rule)| rule).collect();
        Self { usual: Lifetime::of_nanos(ttl), shapes: shapes.into(), rules }
    }

    /// Where nothing is said of shape or tables.
    #[must_use]
    pub fn usual(&self) -> Lifetime {
        self.usual
    }

    /// The longest life that something has.
    #[must_use]
    pub fn longest(&self) -> Lifetime {
        let said = self.shapes.iter().map(|(_, lifetime)| *lifetime).chain(self.rules.iter().map(|rule| rule.lifetime));
        said.fold(self.usual, Lifetime::max)
    }

    /// Is it the same for all answers?
    #[must_use]
    pub fn are_all_alike(&self) -> bool {
        self.shapes.is_empty() && self.rules.is_empty()
    }

    /// What is said of answers of this shape.
    #[must_use]
    pub fn of_shape(&self, shape: Fingerprint) -> Option<Lifetime> {
        self.shapes.iter().find(|(known, _)| *known == shape).map(|(_, lifetime)| *lifetime)
    }

    /// What is said of this relation.
    #[must_use]
    pub fn of_relation(&self, schema: &str, relation: &str) -> Option<Lifetime> {
        let fits =
            |rule: &&Rule| *rule.schema == *schema && rule.relation.as_ref().is_none_or(|wanted| **wanted == *relation);
        self.rules.iter().find(fits).map(|rule| rule.lifetime)
    }
}

/// Seconds, as in the configuration.
impl std::fmt::Display for Lifetime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Bounded(nanos) => write!(f, "{}", Duration::from_nanos(*nanos).as_secs_f64()),
            Self::UntilVoid => f.write_str("0"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Database, schema, relation, nanoseconds.
    type Entry = (Option<&'static str>, &'static str, Option<&'static str>, Option<u64>);

    fn lifetimes(entries: &[Entry]) -> Lifetimes {
        let entries: Vec<_> = entries
            .iter()
            .map(|(database, schema, relation, ttl)| LifetimeConfig {
                subject: Subject::Relations {
                    database: database.map(str::to_owned),
                    schema: (*schema).to_owned(),
                    relation: relation.map(str::to_owned),
                },
                ttl: ttl.map(Duration::from_nanos),
            })
            .collect();
        Lifetimes::new(60, "shop", &entries)
    }

    #[test]
    fn the_most_precise_entry_holds_whatever_their_order() {
        let known = lifetimes(&[
            (None, "public", None, Some(1)),
            (None, "public", Some("orders"), Some(3)),
            (Some("shop"), "public", None, Some(2)),
            (Some("shop"), "public", Some("orders"), Some(4)),
            (Some("other"), "public", Some("orders"), Some(5)),
            (None, "public", Some("items"), None),
        ]);
        assert_eq!(known.of_relation("public", "orders"), Some(Lifetime::Bounded(4)));
        assert_eq!(known.of_relation("public", "items"), Some(Lifetime::Off));
        assert_eq!(known.of_relation("public", "customers"), Some(Lifetime::Bounded(2)));
        assert_eq!(known.of_relation("reports", "orders"), None);
    }

    #[test]
    fn an_entry_for_another_database_says_nothing() {
        assert!(lifetimes(&[(Some("other"), "public", None, Some(1))]).are_all_alike());
        assert!(!lifetimes(&[(Some("shop"), "public", None, Some(1))]).are_all_alike());
    }

    #[test]
    fn a_shape_is_known_by_its_fingerprint() {
        let entry = LifetimeConfig { subject: Subject::Shape(7), ttl: Some(Duration::ZERO) };
        let known = Lifetimes::new(0, "shop", &[entry]);
        assert_eq!(known.of_shape(Fingerprint(7)), Some(Lifetime::UntilVoid));
        assert_eq!(known.of_shape(Fingerprint(8)), None);
        assert_eq!(known.usual(), Lifetime::UntilVoid);
    }

    #[test]
    fn the_shorter_life_is_the_lesser_one() {
        let mut all = [Lifetime::UntilVoid, Lifetime::Bounded(9), Lifetime::Off, Lifetime::Bounded(3)];
        all.sort();
        assert_eq!(all, [Lifetime::Off, Lifetime::Bounded(3), Lifetime::Bounded(9), Lifetime::UntilVoid]);
        assert_eq!(all.map(Lifetime::nanos), [None, Some(3), Some(9), None]);
        assert_eq!(Lifetime::of_nanos(1_500_000_000).to_string(), "1.5");
    }
}
