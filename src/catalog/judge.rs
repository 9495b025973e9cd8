//! Gathers what one statement reads, calls and writes into one verdict.

use std::collections::{BTreeSet, HashSet};

use super::{
    AccessReason, Bypass, Effects, Keyed, Snapshot, builtin,
    closure::Closure,
    function::{Conduct, Reach},
    names::{Found, Path},
    sharing::Needs,
};
use crate::sql::{Action, CallUse, Facts, Flags, Name, Target};

/// The verdict so far about one statement.
#[derive(Default)]
pub(super) struct Verdict {
    pub(super) primary: Option<AccessReason>,
    pub(super) bypass: Option<Bypass>,
    /// Row security applies; was there no other reason before it?
    pub(super) guarded: Option<bool>,
    /// Settings that policies choose rows by.
    pub(super) settings: BTreeSet<Box<str>>,
    /// Relations whose change voids the answer.
    pub(super) reads: BTreeSet<u32>,
    /// Relations written, where they are known.
    pub(super) written: BTreeSet<u32>,
    /// All relations read, named or written.
    pub(super) touched: BTreeSet<u32>,
    pub(super) reach: Reach,
    pub(super) effects: Effects,
    pub(super) catalog_change: bool,
    pub(super) deferred_constraints: bool,
    /// Something beyond relations changes: a sequence, a row lock, a random state.
    pub(super) leaves_traces: bool,
    /// The rows of its one table that it is about.
    pub(super) keyed: Option<Keyed>,
    /// Something reads a relation that the statement does not name.
    pub(super) reads_unnamed: bool,
    /// No answer that is kept changes, but what a replica has not replayed yet would be missed: comments, indexes.
    pub(super) moves_fence: bool,
}

impl Verdict {
    pub(super) fn primary(&mut self, reason: AccessReason) {
        self.primary.get_or_insert(reason);
    }

    pub(super) fn bypass(&mut self, reason: Bypass) {
        self.bypass.get_or_insert(reason);
    }

    pub(super) fn refuse(&mut self, access: AccessReason, bypass: Bypass) {
        self.primary(access);
        self.bypass(bypass);
    }

    pub(super) fn reaches(&mut self, reach: Reach) {
        self.reach = self.reach.max(reach);
    }
}

/// Resolves the facts of one statement along one search path.
pub(super) struct Judge<'s> {
    pub(super) snapshot: &'s Snapshot,
    pub(super) path: &'s Path,
    pub(super) verdict: Verdict,
    /// It looks into a body for whether a label lies, and for nothing else.
    pub(super) is_probe: bool,
    /// What the statement needs rights to, where somebody asks.
    pub(super) needs: Option<Box<Needs>>,
    /// Relations and functions looked at: definitions may be shared.
    pub(super) seen_relations: HashSet<u32>,
    seen_functions: HashSet<u32>,
    seen_types: HashSet<u32>,
}

impl<'s> Judge<'s> {
    pub(super) fn new(snapshot: &'s Snapshot, path: &'s Path) -> Self {
        Self {
            snapshot,
            path,
            verdict: Verdict::default(),
            is_probe: false,
            needs: None,
            seen_relations: HashSet::new(),
            seen_functions: HashSet::new(),
            seen_types: HashSet::new(),
        }
    }

    /// One that knows what was looked at here already.
    pub(super) fn probe(&self, path: &'s Path) -> Self {
        Self {
            is_probe: true,
            seen_relations: self.seen_relations.clone(),
            seen_functions: self.seen_functions.clone(),
            ..Self::new(self.snapshot, path)
        }
    }

    pub(super) fn facts(&mut self, facts: &Facts) {
        self.targets(&facts.writes);
        flags(facts.flags, &mut self.verdict);
        if *self.path == Path::Shadowed && names_without_schema(facts) {
            self.verdict.reaches(Reach::Locks);
        }
        facts.reads.iter().for_each(|name| self.read_named(name));
        facts.calls.iter().for_each(|call| self.call(call));
        facts.operators.iter().for_each(|name| self.operator(name));
        facts.types.iter().for_each(|name| self.named_type(name));
        facts.fields.iter().for_each(|field| self.field(field));
        self.computes();
    }

    fn read_named(&mut self, name: &Name) {
        match self.snapshot.names.relation(name, self.path) {
            Found::One(oid) => self.read(oid),
            Found::Several(oids) => {
                self.verdict.refuse(AccessReason::Unresolved, Bypass::Unresolved);
                oids.into_iter().for_each(|oid| self.read(oid));
            }
            // It may be a view made a moment ago, with anything inside.
            Found::Nothing => self.opaque(AccessReason::Unresolved, Bypass::Unresolved),
        }
    }

    pub(super) fn opaque(&mut self, access: AccessReason, bypass: Bypass) {
        self.behaves(Conduct::opaque(access, bypass));
    }

    fn call(&mut self, call: &CallUse) {
        let functions = &self.snapshot.functions;
        let named = self.snapshot.names.functions(&call.name, self.path);
        if &*call.name.name == "set_config" {
            self.set_config(call);
            if let [oid] = *named
                && !Snapshot::is_user_function(oid)
            {
                return self.calls_set_config(oid);
            }
        }
        let fitting: Vec<u32> = named.iter().copied().filter(|oid| functions.accepts(*oid, call.arguments)).collect();
        let candidates = if fitting.is_empty() { named } else { fitting };
        if candidates.is_empty() {
            return match call.arguments {
                // A type's name used like a function is a cast.
                1 => self.named_type(&call.name),
                _ => self.opaque(AccessReason::Unresolved, Bypass::Unresolved),
            };
        }
        for oid in candidates {
            self.function(oid);
            if functions.get(oid).is_some_and(|row| call.arguments < row.arguments) {
                self.stands_in(oid);
            }
        }
        // So may a type that has its name from a function.
        if call.arguments == 1 {
            self.users_type(&call.name);
        }
    }

    /// Arguments are left out of a call.
    pub(super) fn stands_in(&mut self, function: u32) {
        if let Some(uses) = self.snapshot.functions.default_values(function) {
            self.uses(uses);
        }
    }

    fn users_type(&mut self, name: &Name) {
        match self.snapshot.names.named_type(name, self.path) {
            Found::One(oid) if Snapshot::is_user_function(oid) => self.uses_type(oid),
            _ => {}
        }
    }

    /// The proxy follows it like SET.
    fn set_config(&mut self, call: &CallUse) {
        let effects = match call.local {
            true => local_effects(call.setting.as_deref()),
            false if call.setting.as_deref().is_some_and(crate::sql::is_tracked_setting) => Effects::default(),
            false => Effects::SET_PARAMETER,
        };
        self.verdict.effects.insert(effects);
    }

    /// What it sets is known, or asked for by name; a view that calls it as well sets something else.
    fn calls_set_config(&mut self, oid: u32) {
        if let Some(needs) = &mut self.needs {
            needs.function(oid);
        }
        let mut conduct = self.snapshot.functions.conduct(oid);
        conduct.effects = Effects::default();
        self.behaves(conduct);
    }

    pub(super) fn function(&mut self, oid: u32) {
        if let Some(needs) = &mut self.needs {
            needs.function(oid);
        }
        if self.passes(oid) {
            self.behaves(self.snapshot.functions.conduct(oid));
        }
    }

    /// Values go into a function and come out of it; false if it was looked at before.
    pub(super) fn passes(&mut self, oid: u32) -> bool {
        let is_new = self.seen_functions.insert(oid);
        let row = self.snapshot.functions.get(oid).filter(|_| is_new);
        for oid in row.into_iter().flat_map(|row| &row.types) {
            self.holds(*oid);
            // What becomes a value of a domain is checked.
            if self.snapshot.type_row(*oid).is_some_and(|row| row.kind == 'd') {
                self.uses_type(*oid);
            }
        }
        is_new
    }

    pub(super) fn behaves(&mut self, conduct: Conduct) {
        if let Some(reason) = conduct.primary {
            self.verdict.primary(reason);
        }
        if let Some(bypass) = conduct.bypass {
            self.verdict.bypass(bypass);
        }
        self.verdict.leaves_traces |= conduct.primary == Some(AccessReason::VolatileFunction);
        self.verdict.reaches(conduct.reach);
        self.verdict.effects.insert(conduct.effects);
        self.verdict.catalog_change |= conduct.catalog_change;
        for body in &conduct.body {
            self.uses(body);
        }
        // Where rows of a table are read by key, a body that reads the same table reads other rows of it.
        self.verdict.reads_unnamed |= !conduct.labelled.is_empty();
        for function in &conduct.labelled {
            self.look_into(*function);
        }
    }

    pub(super) fn operator(&mut self, name: &Name) {
        let functions = self.snapshot.names.operators(name, self.path);
        let users = functions.into_iter().filter(|oid| Snapshot::is_user_function(*oid));
        users.for_each(|oid| self.function(oid));
    }

    fn named_type(&mut self, name: &Name) {
        match self.snapshot.names.named_type(name, self.path) {
            Found::One(oid) => self.uses_type(oid),
            Found::Several(oids) => {
                let user_made = oids.iter().any(|oid| Snapshot::is_user_function(*oid));
                if user_made {
                    self.verdict.refuse(AccessReason::Unresolved, Bypass::Unresolved);
                }
                oids.into_iter().for_each(|oid| self.uses_type(oid));
            }
            Found::Nothing => self.opaque(AccessReason::Unresolved, Bypass::Unresolved),
        }
    }

    pub(super) fn uses_type(&mut self, oid: u32) {
        self.holds(oid);
        let Some(row) = self.snapshot.type_row(oid) else {
            return;
        };
        if Snapshot::is_system_type(row) {
            if builtin::is_clock_type(&row.name) {
                self.verdict.bypass(Bypass::Clock);
            }
            if builtin::is_catalog_type(row.name.trim_start_matches('_')) {
                self.verdict.bypass(Bypass::UnstableType);
            }
            return;
        }
        for function in &row.functions {
            if self.snapshot.functions.conduct(*function).bypass.is_some() {
                self.verdict.bypass(Bypass::UnstableType);
            }
            self.runs_unnamed(*function);
        }
        if row.kind == 'd' && row.base != oid {
            self.uses_type(row.base);
        }
        for part in &row.parts {
            if self.seen_types.insert(*part) {
                self.uses_type(*part);
            }
        }
    }

    /// `x.field` is a function call where `x` has no such column.
    pub(super) fn field(&mut self, field: &str) {
        let functions = &self.snapshot.functions;
        let candidates: Vec<u32> = self
            .snapshot
            .names
            .functions_anywhere(field)
            .filter(|oid| functions.get(*oid).is_some_and(|row| row.takes_row))
            .collect();
        candidates.into_iter().for_each(|oid| self.function(oid));
    }

    fn targets(&mut self, targets: &[Target]) {
        if targets.is_empty() {
            return;
        }
        self.verdict.refuse(AccessReason::Write, Bypass::NotARead);
        let mut closure = Closure::new(self.snapshot);
        for target in targets {
            match self.snapshot.names.relation(&target.name, self.path) {
                Found::One(oid) => {
                    self.verdict.touched.insert(oid);
                    closure.write(oid, target);
                }
                // Of tables with the same name in many schemas one is meant, and its lock will tell.
                Found::Several(oids) => match *oids {
                    [oid] => closure.write(oid, target),
                    _ => closure.unresolved(),
                },
                Found::Nothing => closure.unresolved(),
            }
        }
        let Closure { written, reach, functions, effects, deferred_constraints, catalog_change, .. } = closure;
        self.verdict.touched.extend(&written);
        self.verdict.written.extend(written);
        self.verdict.reaches(reach);
        self.verdict.effects.insert(effects);
        self.verdict.deferred_constraints |= deferred_constraints;
        self.verdict.catalog_change |= catalog_change;
        functions.into_iter().for_each(|oid| self.function(oid));
        let written: Vec<u32> = self.verdict.written.iter().copied().collect();
        for relation in written.iter().filter_map(|oid| self.snapshot.relation(*oid)) {
            self.holds(relation.row_type);
        }
        if targets.iter().any(|target| target.action == Action::Refresh) {
            self.refreshed();
        }
    }

    /// A refresh runs the query of the materialised view.
    fn refreshed(&mut self) {
        let snapshot = self.snapshot;
        let written: Vec<u32> = self.verdict.written.iter().copied().collect();
        for definition in written.iter().filter_map(|oid| snapshot.relation(*oid)?.definition.as_ref()) {
            self.uses(definition);
        }
    }
}

fn names_without_schema(facts: &Facts) -> bool {
    let written = facts.writes.iter().map(|target| &target.name);
    facts.reads.iter().chain(&facts.types).chain(written).any(|name| name.schema.is_none())
}

/// What SET LOCAL of `setting` leaves behind until the transaction ends; `None` is a name that is not known.
pub(super) fn local_effects(setting: Option<&str>) -> Effects {
    let names =
        matches!(setting, None | Some("search_path" | "role" | "session_authorization" | "session_replication_role"));
    match names {
        true => Effects::LOCAL_SETTING | Effects::LOCAL_NAMES,
        false => Effects::LOCAL_SETTING,
    }
}

/// What the grammar alone tells.
pub(super) fn flags(flags: Flags, verdict: &mut Verdict) {
    if flags.contains(Flags::UNKNOWN) || flags.contains(Flags::FOREIGN_DATABASE) {
        verdict.refuse(AccessReason::Unparsed, Bypass::Unparsed);
        verdict.reaches(Reach::Locks);
        verdict.effects.insert(Effects::OPAQUE);
    }
    if flags.contains(Flags::ROW_LOCK) {
        verdict.refuse(AccessReason::RowLock, Bypass::RowLock);
        verdict.leaves_traces = true;
    }
    if flags.contains(Flags::CLOCK) || flags.contains(Flags::CLOCK_LITERAL) || flags.contains(Flags::COMPUTED_DATE) {
        verdict.bypass(Bypass::Clock);
    }
    if flags.contains(Flags::IDENTITY) {
        verdict.bypass(Bypass::SessionState);
    }
    if flags.contains(Flags::SAMPLE) {
        verdict.bypass(Bypass::Sample);
    }
    if flags.contains(Flags::SYSTEM_COLUMN) {
        verdict.bypass(Bypass::SystemColumn);
    }
}
