//! A second opinion: what PostgreSQL itself has made of a statement, against what was found here.
//!
//! `debug_print_rewritten` shows the tree of a query when names are resolved, views are put in and rules are applied. It
//! names each relation and function by its oid. Whatever is in there and speaks against a kept answer must have been found
//! by the analysis, too: that one works from the text alone.
//! <https://www.postgresql.org/docs/current/runtime-config-logging.html#GUC-DEBUG-PRINT-REWRITTEN>

use super::{Bypass, Meaning, RelationOid, Snapshot, judge::Judge, names::Path, tree::TreeUses};

/// What the analysis has missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// A relation is read whose change would not void the answer.
    Relation(RelationOid),
    /// The answer should not be kept, for this reason.
    Bypass(Bypass),
}

impl Missed {
    /// The metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Relation(_) => "missed_relation",
            Self::Bypass(_) => "missed_reason",
        }
    }
}

impl Snapshot {
    /// What was missed of a statement of this meaning, whose rewritten tree as `pg_node_tree` is one of `trees`; `None`:
    /// nothing. One whose answers are not kept can have nothing missed.
    #[must_use]
    pub fn missed<'t>(&self, trees: impl Iterator<Item = &'t str>, meaning: &Meaning) -> Option<Missed> {
        let known = meaning.cacheable.as_deref().ok()?;
        let mut judge = Judge::new(self, &Path::Anywhere);
        trees.for_each(|tree| judge.uses(&TreeUses::scan(tree)));
        let lacking = judge.verdict.reads.iter().map(|oid| RelationOid(*oid)).find(|oid| !known.contains(oid));
        // What a policy asks for is in the key of an answer.
        let reason = judge.verdict.bypass.filter(|_| judge.verdict.guarded.is_none());
        lacking.map(Missed::Relation).or(reason.map(Missed::Bypass))
    }
}
