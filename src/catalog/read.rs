//! What reading a relation hangs on.

use super::{
    AccessReason, Bypass,
    judge::Judge,
    relation::{Relation, RelationKind},
    tree::{TreeUses, asks_setting},
};
use crate::ablation::Ablation;

impl Judge<'_> {
    /// The statement reads a relation, by itself or through a view.
    pub(super) fn read(&mut self, oid: u32) {
        if let Some(needs) = &mut self.needs {
            needs.relation(oid);
        }
        if !self.seen_relations.insert(oid) {
            return;
        }
        let Some(relation) = self.snapshot.relation(oid) else {
            return self.opaque(AccessReason::Unresolved, Bypass::Unresolved);
        };
        self.verdict.touched.insert(oid);
        if relation.system {
            return self.verdict.refuse(AccessReason::SystemRelation, Bypass::SystemRelation);
        }
        self.verdict.reads.insert(oid);
        self.holds(relation.row_type);
        match relation.kind {
            RelationKind::Table | RelationKind::Partitioned => self.read_table(relation),
            RelationKind::MaterializedView => self.read_stored(relation),
            RelationKind::View => match &relation.definition {
                Some(definition) => self.read_view(definition, relation.security_invoker),
                None => self.opaque(AccessReason::Unresolved, Bypass::Unresolved),
            },
            RelationKind::Foreign | RelationKind::Sequence | RelationKind::Other => {
                self.verdict.refuse(AccessReason::NotReplicated, Bypass::UntrackedRelation);
            }
        }
    }

    /// By the rights of the view's owner, or of whoever runs the statement, whoever asks the view.
    fn read_view(&mut self, definition: &TreeUses, by_caller: bool) {
        if Ablation::Views.is_left_out() {
            return;
        }
        let outer = self.needs.as_mut().map(|needs| std::mem::replace(&mut needs.as_owner, !by_caller));
        self.uses(definition);
        if let (Some(needs), Some(outer)) = (&mut self.needs, outer) {
            needs.as_owner = outer;
        }
    }

    fn read_table(&mut self, relation: &Relation) {
        self.read_stored(relation);
        if relation.row_security {
            let is_first = self.verdict.bypass.is_none();
            self.verdict.guarded.get_or_insert(is_first);
            relation.policies.iter().for_each(|policy| self.applies(policy));
        }
        for child in &relation.children {
            self.read_child(*child);
        }
    }

    /// Children are covered by their parent as far as changes go, but may be stored elsewhere.
    fn read_child(&mut self, oid: u32) {
        let Some(relation) = self.snapshot.relation(oid) else {
            return self.verdict.refuse(AccessReason::Unresolved, Bypass::Unresolved);
        };
        match relation.kind {
            RelationKind::Table | RelationKind::Partitioned => self.read_stored(relation),
            _ => self.verdict.refuse(AccessReason::NotReplicated, Bypass::UntrackedRelation),
        }
        for child in &relation.children {
            self.read_child(*child);
        }
    }

    fn read_stored(&mut self, relation: &Relation) {
        if !relation.permanent {
            self.verdict.refuse(AccessReason::NotReplicated, Bypass::UntrackedRelation);
        }
        if !relation.heard {
            self.verdict.bypass(match relation.kind {
                RelationKind::MaterializedView => Bypass::RefreshUnheard,
                _ => Bypass::NotPublished,
            });
        }
        if relation.unstable_columns {
            self.verdict.bypass(Bypass::UnstableType);
        }
    }

    /// What a view, a policy or a function body refers to.
    pub(super) fn uses(&mut self, uses: &TreeUses) {
        uses.functions.iter().for_each(|oid| self.function(*oid));
        if uses.identity {
            self.verdict.bypass(Bypass::SessionState);
        }
        self.uses_besides(uses);
    }

    /// A policy may choose rows by who asks and by settings: both are in the key of an answer. Not so where a body that is
    /// not stored resolved may ask for them.
    fn applies(&mut self, policy: &TreeUses) {
        for oid in &policy.functions {
            if let Some(body) = self.snapshot.functions.resolved_body(*oid) {
                if self.passes(*oid) {
                    self.applies(&TreeUses::scan(body));
                }
                continue;
            }
            let mut conduct = self.snapshot.functions.conduct(*oid);
            if !conduct.labelled.is_empty() {
                self.verdict.bypass(Bypass::UserFunction);
            }
            if asks_setting(*oid) && !policy.other_settings {
                conduct.bypass = None;
                self.behaves(conduct);
            } else {
                self.function(*oid);
            }
        }
        self.verdict.settings.extend(policy.settings.iter().cloned());
        if policy.place {
            self.verdict.bypass(Bypass::SessionState);
        }
        self.uses_besides(policy);
    }

    fn uses_besides(&mut self, uses: &TreeUses) {
        self.verdict.reads_unnamed |= !uses.relations.is_empty();
        uses.relations.iter().for_each(|oid| self.read(*oid));
        uses.types.iter().for_each(|oid| self.uses_type(*oid));
        if uses.row_lock {
            self.verdict.refuse(AccessReason::RowLock, Bypass::RowLock);
        }
        if uses.nextval {
            self.verdict.refuse(AccessReason::VolatileFunction, Bypass::VolatileFunction);
        }
        if uses.clock {
            self.verdict.bypass(Bypass::Clock);
        }
        if uses.sample {
            self.verdict.bypass(Bypass::Sample);
        }
        if uses.system_column {
            self.verdict.bypass(Bypass::SystemColumn);
        }
    }
}
