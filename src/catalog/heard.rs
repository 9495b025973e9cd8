//! Writes that bypass the proxy: which relations the primary's replication stream tells of, and what hangs on what it
//! tells.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{
    RelationOid, Snapshot, closure,
    relation::{Relation, RelationKind},
    rows::HeardRows,
};

/// Marks the relations whose changes would go unheard.
pub(super) fn mark(relations: &mut HashMap<u32, Relation>, heard: &HeardRows) {
    let published: HashSet<u32> = heard.published.iter().copied().collect();
    let triggered: HashSet<u32> = heard.triggered.iter().copied().collect();
    let unheard: Vec<u32> = relations
        .iter()
        .filter(|(oid, relation)| match relation.kind {
            RelationKind::Table => {
                let lineage = lineage(relations, **oid);
                let is_published = published.contains(*oid)
                    || heard.via_root && lineage.iter().any(|ancestor| published.contains(ancestor));
                // A statement on a parent fires the triggers of the parent only.
                let tells = triggered.contains(*oid) && lineage.iter().all(|ancestor| triggered.contains(ancestor));
                !is_published && !tells
            }
            RelationKind::MaterializedView => !heard.definitions,
            // Its rows are in its partitions, each of which is looked at.
            RelationKind::Partitioned => false,
            RelationKind::View | RelationKind::Foreign | RelationKind::Sequence | RelationKind::Other => false,
        })
        .map(|(oid, _)| *oid)
        .collect();
    for oid in unheard {
        if let Some(relation) = relations.get_mut(&oid) {
            relation.heard = false;
        }
    }
}

/// All that it is a partition or a child of.
fn lineage(relations: &HashMap<u32, Relation>, oid: u32) -> HashSet<u32> {
    let (mut seen, mut open) = (HashSet::new(), vec![oid]);
    while let Some(relation) = open.pop().and_then(|next| relations.get(&next)) {
        open.extend(relation.parents.iter().filter(|parent| seen.insert(**parent)));
    }
    seen
}

impl Snapshot {
    /// The relations to void for a transaction that the stream has told of. `rows`: their own rows have changed, and a
    /// partitioned table has none, so that it stands for its partitions. `named`: a statement has named them, and may
    /// have changed their children as well. `None`: one of them is not known here.
    #[must_use]
    pub fn expand_heard(&self, rows: &[u32], named: &[u32]) -> Option<Vec<RelationOid>> {
        let mut found = BTreeSet::new();
        for oid in rows {
            let is_parent_only = self.relation(*oid)?.kind != RelationKind::Partitioned;
            self.family(*oid, is_parent_only, &mut found);
        }
        for oid in named {
            self.relation(*oid)?;
            self.family(*oid, false, &mut found);
        }
        Some(found.into_iter().map(RelationOid).collect())
    }

    fn family(&self, oid: u32, is_alone: bool, found: &mut BTreeSet<u32>) {
        let (mut seen, mut open) = (HashSet::from([oid]), vec![oid]);
        while let Some(next) = open.pop() {
            found.insert(next);
            closure::each_ancestor(self, next, |ancestor| _ = found.insert(ancestor));
            let children = self.relation(next).filter(|_| !is_alone).map(|relation| &relation.children);
            open.extend(children.into_iter().flatten().filter(|child| seen.insert(**child)));
        }
    }
}
