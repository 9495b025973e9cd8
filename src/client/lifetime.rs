//! How long an answer is kept.

use super::{Client, cached::Asking, facts::Facts};
use crate::{
    cache::Lifetime,
    catalog::Meaning,
    sql::{CacheHint, Statement},
};

impl Client {
    /// How long an answer is kept at most, as far as that costs nothing to know; the reason if nobody is to be asked.
    pub(super) fn usual_ttl(&self, hint: Option<CacheHint>) -> Result<Option<u64>, &'static str> {
        match hint {
            Some(CacheHint::No) => Err("hint_nocache"),
            Some(CacheHint::Ttl(bound)) => Ok(Some(bound.as_nanos() as u64)),
            _ => Ok(self.session.database.settings.lifetimes.usual().nanos()),
        }
    }

    /// How long the answer that is to be brought is kept; the reason if it is not.
    pub(super) fn ttl_of(&self, asking: &Asking, facts: &Facts) -> Result<Option<u64>, &'static str> {
        match (&facts.statement, &facts.meaning) {
            (Some(statement), Some(meaning)) => self.ttl(statement, meaning, asking.ttl),
            _ => Ok(asking.ttl),
        }
    }

    /// What is said of its shape and of its tables is looked for only now, when no answer is there.
    pub(super) fn ttl(
        &self,
        statement: &Statement,
        meaning: &Meaning,
        usual: Option<u64>,
    ) -> Result<Option<u64>, &'static str> {
        let lifetimes = &self.session.database.settings.lifetimes;
        if lifetimes.are_all_alike() || matches!(statement.hints.cache, Some(CacheHint::Ttl(_))) {
            return Ok(usual);
        }
        let of_relations = || -> Option<Lifetime> {
            let catalog = self.session.database.catalog()?;
            let reads = meaning.cacheable.iter().flatten().chain(&meaning.relations);
            let said = |schema: &str, relation: &str| lifetimes.of_relation(schema, relation);
            reads.filter_map(|relation| catalog.snapshot.said_of(*relation, said, lifetimes.usual())).min()
        };
        match lifetimes.of_shape(statement.fingerprint).or_else(of_relations).unwrap_or(lifetimes.usual()) {
            Lifetime::Off => Err("ttl_off"),
            lifetime => Ok(lifetime.nanos()),
        }
    }
}
