//! Which relations a write changes, without asking the server.

use std::collections::{BTreeSet, HashSet};

use super::{
    Effects, Snapshot,
    function::Reach,
    relation::{Relation, RelationKind},
    rows::ForeignKeyRow,
    source::Body,
};
use crate::{
    ablation::Ablation,
    sql::{Action, Target},
};

/// The columns an UPDATE sets; `None` where they are not known.
type Columns<'t> = Option<&'t [Box<str>]>;

/// Grows with each target; what it cannot follow makes it opaque.
pub(super) struct Closure<'s> {
    snapshot: &'s Snapshot,
    pub(super) written: BTreeSet<u32>,
    pub(super) reach: Reach,
    /// Functions that run on the way.
    pub(super) functions: BTreeSet<u32>,
    pub(super) effects: Effects,
    pub(super) deferred_constraints: bool,
    pub(super) catalog_change: bool,
    /// With the columns of which target: their address tells them apart.
    seen: HashSet<(u32, Step, Option<*const Box<str>>)>,
}

/// What happens to one relation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Insert,
    Update,
    /// Some columns change, none of which a foreign key refers to.
    UpdatePlain,
    Delete,
    Truncate,
    TruncateCascade,
    Refresh,
}

impl<'s> Closure<'s> {
    pub(super) fn new(snapshot: &'s Snapshot) -> Self {
        Self {
            snapshot,
            written: BTreeSet::new(),
            reach: Reach::Nothing,
            functions: BTreeSet::new(),
            effects: Effects::default(),
            deferred_constraints: false,
            catalog_change: false,
            seen: HashSet::new(),
        }
    }

    pub(super) fn unresolved(&mut self) {
        self.reach = self.reach.max(Reach::Locks);
    }

    /// The statement writes to `oid` as `target` says.
    pub(super) fn write(&mut self, oid: u32, target: &Target) {
        let step = match target.action {
            Action::Insert => Step::Insert,
            Action::Update => Step::Update,
            Action::Delete => Step::Delete,
            Action::Truncate { cascade: false } => Step::Truncate,
            Action::Truncate { cascade: true } => Step::TruncateCascade,
            Action::Refresh => Step::Refresh,
        };
        self.step(oid, step, target.columns.as_deref(), !target.only);
    }

    fn step(&mut self, oid: u32, step: Step, columns: Columns<'_>, descend: bool) {
        let snapshot = self.snapshot;
        let Some(relation) = snapshot.relation(oid) else {
            return self.unresolved();
        };
        if !self.seen.insert((oid, step, columns.map(<[_]>::as_ptr))) {
            return;
        }
        if relation.system {
            self.catalog_change = true;
            self.reach = Reach::Database;
            // Behind pg_settings stands a rule of the server's own that sets.
            self.effects.insert(Effects::OPAQUE);
            return;
        }
        self.hooks(relation);
        match relation.kind {
            RelationKind::View => self.view(relation, step),
            // A foreign table may be a table of this very database, written by another session.
            RelationKind::Foreign => self.reach = Reach::Database,
            RelationKind::MaterializedView => self.touch(oid),
            RelationKind::Table | RelationKind::Partitioned => {
                self.touch(oid);
                // Of a part, other columns may be referred to than of the whole, and of a view none ever are.
                let here = match step {
                    Step::Update if !touches_a_key(relation, columns) => Step::UpdatePlain,
                    step => step,
                };
                self.keys(relation, here);
                self.descend(relation, step, columns, descend);
            }
            RelationKind::Sequence | RelationKind::Other => self.unresolved(),
        }
    }

    /// Code of the user that a write to `relation` runs.
    fn hooks(&mut self, relation: &Relation) {
        self.deferred_constraints |= relation.deferrable_triggers;
        if relation.write_rules {
            self.unresolved();
            self.effects.insert(Effects::OPAQUE);
        }
        for trigger in &relation.triggers {
            let (body, effects) = self.snapshot.functions.trigger(*trigger);
            if body != Body::Computes {
                self.unresolved();
            }
            self.effects.insert(effects);
        }
        if relation.has_identity {
            self.effects.insert(Effects::NEXTVAL);
        }
        self.functions.extend(relation.write_functions.iter().copied());
        for oid in &relation.write_functions {
            let conduct = self.snapshot.functions.conduct(*oid);
            // A user function that is not plainly immutable may hide a write.
            if Snapshot::is_user_function(*oid) && conduct.bypass.is_some() && conduct.reach == Reach::Nothing {
                let harmless = self.snapshot.functions.get(*oid).is_some_and(|row| row.language == "c");
                if !harmless {
                    self.unresolved();
                }
            }
        }
        for policy in &relation.policies {
            self.functions.extend(policy.functions.iter().copied());
        }
    }

    fn touch(&mut self, oid: u32) {
        self.written.insert(oid);
        let written = &mut self.written;
        each_ancestor(self.snapshot, oid, |ancestor| {
            written.insert(ancestor);
        });
    }

    /// Writing to a view without rules or triggers writes to its one base relation; the others it names
    /// cost a little too much voiding.
    fn view(&mut self, view: &Relation, step: Step) {
        let Some(definition) = view.definition.as_ref().filter(|_| view.triggers.is_empty()) else {
            return self.unresolved();
        };
        self.functions.extend(definition.functions.iter().copied());
        for oid in &definition.relations {
            match self.snapshot.relation(*oid) {
                Some(base) if base.system => {}
                _ => self.step(*oid, step, None, true),
            }
        }
    }

    fn keys(&mut self, relation: &Relation, step: Step) {
        if Ablation::Cascades.is_left_out() {
            return;
        }
        // Before PostgreSQL 15 an update that moves a row between partitions deletes it.
        let may_move = relation.kind == RelationKind::Partitioned;
        for key in &relation.referenced_by {
            match step {
                Step::TruncateCascade => self.step(key.child, step, None, true),
                Step::Delete => self.deleted(key),
                Step::Update => self.updated(key),
                Step::UpdatePlain | Step::Insert | Step::Truncate | Step::Refresh => {}
            }
            if may_move && matches!(step, Step::Update | Step::UpdatePlain) {
                self.deleted(key);
            }
        }
    }

    /// What the deletion of a row does to a table that refers to it.
    fn deleted(&mut self, key: &ForeignKeyRow) {
        match key.on_delete {
            'a' | 'r' => {}
            'c' => self.step(key.child, Step::Delete, None, true),
            _ => self.step(key.child, Step::Update, None, true),
        }
    }

    /// What a new key does to a table that refers to it.
    fn updated(&mut self, key: &ForeignKeyRow) {
        if !matches!(key.on_update, 'a' | 'r') {
            self.step(key.child, Step::Update, None, true);
        }
    }

    /// Rows written through a parent may lie in any child.
    fn descend(&mut self, relation: &Relation, step: Step, columns: Columns<'_>, descend: bool) {
        if Ablation::Descendants.is_left_out() {
            return;
        }
        let routed = relation.kind == RelationKind::Partitioned;
        if !routed && (!descend || step == Step::Insert) {
            return;
        }
        // An update may move a row to another partition: a delete here, an insert there.
        let moved = routed && step == Step::Update;
        for child in &relation.children {
            self.step(*child, step, columns, true);
            if moved {
                self.step(*child, Step::Delete, None, true);
            }
        }
    }
}

/// Could an update of these columns change a column that a foreign key refers to?
fn touches_a_key(relation: &Relation, columns: Columns<'_>) -> bool {
    let Some(columns) = columns else {
        return true;
    };
    // A trigger may assign to any column, and a generated column follows others.
    if relation.generated_columns || !relation.triggers.is_empty() {
        return true;
    }
    let refers = |key: &ForeignKeyRow| key.parent_columns.iter().any(|name| columns.iter().any(|set| **set == **name));
    relation.referenced_by.iter().any(refers)
}

/// Calls `visit` for each table that `oid` is a partition or an inheritance child of, at any distance.
pub(super) fn each_ancestor(snapshot: &Snapshot, oid: u32, mut visit: impl FnMut(u32)) {
    if Ablation::Ancestors.is_left_out() {
        return;
    }
    let mut seen = HashSet::new();
    let mut open = vec![oid];
    while let Some(next) = open.pop() {
        let Some(relation) = snapshot.relation(next) else {
            continue;
        };
        for parent in relation.parents.iter().copied().filter(|parent| seen.insert(*parent)) {
            visit(parent);
            open.push(parent);
        }
    }
}
