//! How a function behaves, as far as the catalog tells.

use std::collections::{HashMap, HashSet};

use super::{
    AccessReason, Bypass, Effects,
    builtin::{self, FIRST_USER_OID, Stable},
    mentions::{Source, Sources},
    names::Names,
    rows::{FunctionRow, SnapshotRows},
    source::{Body, judge},
    tree::TreeUses,
};

/// What a function may write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// Nothing that an answer could hang on.
    #[default]
    Nothing,
    /// Whatever the locks of its transaction tell.
    Locks,
    /// More than they tell.
    Database,
}

/// How one function behaves, or the worst of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Conduct {
    /// Why only the primary may run it.
    pub(super) primary: Option<AccessReason>,
    /// Why its result is not kept.
    pub(super) bypass: Option<Bypass>,
    pub(super) reach: Reach,
    pub(super) effects: Effects,
    pub(super) catalog_change: bool,
    /// What its body reads, where that is known exactly.
    pub(super) body: Vec<TreeUses>,
    /// Functions whose label is to be tried by what their bodies name.
    pub(super) labelled: Vec<u32>,
}

impl Conduct {
    /// Code that cannot be seen into: it may do anything.
    pub(super) fn opaque(reason: AccessReason, bypass: Bypass) -> Self {
        Self {
            primary: Some(reason),
            bypass: Some(bypass),
            reach: Reach::Locks,
            effects: Effects::OPAQUE,
            ..Self::default()
        }
    }

    fn uncached(bypass: Bypass) -> Self {
        Self { bypass: Some(bypass), ..Self::default() }
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.primary = self.primary.or(other.primary);
        self.bypass = self.bypass.or(other.bypass);
        self.reach = self.reach.max(other.reach);
        self.effects.insert(other.effects);
        self.catalog_change |= other.catalog_change;
        self.body.extend(other.body);
        self.labelled.extend(other.labelled);
    }
}

/// All functions of the database.
pub(super) struct Functions {
    by_oid: HashMap<u32, FunctionRow>,
    catalog_schema: Option<u32>,
    /// What the bodies of volatile PL/pgSQL functions can do.
    bodies: HashMap<u32, (Body, Effects)>,
    /// What the bodies of all others name.
    sources: Sources,
    /// What stands in for arguments that are left out.
    default_values: HashMap<u32, TreeUses>,
    /// Some trigger of the database may do anything, and so may what writes to its table.
    opaque_triggers: bool,
}

impl Functions {
    pub(super) fn new(rows: &SnapshotRows, names: &Names) -> Self {
        let by_oid: HashMap<u32, FunctionRow> = rows.functions.iter().map(|row| (row.oid, row.clone())).collect();
        let mut functions = Self {
            by_oid,
            catalog_schema: names.schema_oid("pg_catalog"),
            bodies: HashMap::new(),
            sources: Sources::new(rows, names),
            default_values: rows.functions.iter().filter_map(default_values).collect(),
            opaque_triggers: false,
        };
        let is_volatile =
            |oid: u32| oid >= FIRST_USER_OID && functions.get(oid).is_none_or(|row| row.volatility == 'v');
        // An operator has no word.
        if !rows.operators.iter().any(|row| is_volatile(row.function)) {
            functions.bodies = bodies(&rows.functions);
        }
        functions.opaque_triggers =
            rows.triggers.iter().any(|trigger| functions.hook(trigger.function).0 == Body::Opaque);
        functions
    }

    /// What a trigger function does beside changing the row at hand.
    pub(super) fn trigger(&self, oid: u32) -> (Body, Effects) {
        self.spread(self.hook(oid))
    }

    fn hook(&self, oid: u32) -> (Body, Effects) {
        match self.get(oid) {
            Some(row) if row.oid < FIRST_USER_OID => (Body::Computes, Effects::default()),
            Some(row) if row.language == "c" => (Body::RunsSql, Effects::default()),
            _ => self.body(oid),
        }
    }

    fn body(&self, oid: u32) -> (Body, Effects) {
        self.bodies.get(&oid).copied().unwrap_or((Body::Opaque, Effects::OPAQUE))
    }

    /// SQL may write to a table with triggers.
    fn spread(&self, (body, mut effects): (Body, Effects)) -> (Body, Effects) {
        if body == Body::RunsSql && self.opaque_triggers {
            effects.insert(Effects::OPAQUE);
        }
        (body, effects)
    }

    /// What a call evaluates in place of arguments that it leaves out.
    pub(super) fn default_values(&self, oid: u32) -> Option<&TreeUses> {
        self.default_values.get(&oid)
    }

    pub(super) fn source(&self, oid: u32) -> Option<&Source> {
        self.sources.get(oid)
    }

    pub(super) fn get(&self, oid: u32) -> Option<&FunctionRow> {
        self.by_oid.get(&oid)
    }

    /// Can it be called with that many arguments?
    pub(super) fn accepts(&self, oid: u32, arguments: u16) -> bool {
        self.get(oid).is_some_and(|row| {
            let least = row.arguments.saturating_sub(row.defaults).saturating_sub(u16::from(row.variadic));
            arguments >= least && (row.variadic || arguments <= row.arguments)
        })
    }

    pub(super) fn conduct(&self, oid: u32) -> Conduct {
        self.conduct_within(oid, &mut HashSet::new())
    }

    fn conduct_within(&self, oid: u32, seen: &mut HashSet<u32>) -> Conduct {
        let Some(row) = self.get(oid) else {
            return Conduct::opaque(AccessReason::Unresolved, Bypass::Unresolved);
        };
        if !seen.insert(oid) {
            return Conduct::default();
        }
        match (row.oid < FIRST_USER_OID && Some(row.schema) == self.catalog_schema, row.kind) {
            (true, _) => builtin_conduct(row),
            (false, 'a') => self.aggregate(row, seen),
            (false, _) => self.user_function(row, seen),
        }
    }

    /// The volatility of an aggregate says nothing about its transition function.
    fn aggregate(&self, row: &FunctionRow, seen: &mut HashSet<u32>) -> Conduct {
        if row.support.is_empty() {
            return Conduct::opaque(AccessReason::VolatileFunction, Bypass::UserFunction);
        }
        let mut worst = Conduct::default();
        for support in &row.support {
            worst.merge(self.conduct_within(*support, seen));
        }
        worst
    }

    fn user_function(&self, row: &FunctionRow, seen: &mut HashSet<u32>) -> Conduct {
        match row.volatility {
            'i' | 's' => self.labelled(row, seen),
            _ if row.language == "c" && builtin::harmless_extension(&row.name) => {
                Conduct { primary: Some(AccessReason::VolatileFunction), ..Conduct::uncached(Bypass::VolatileFunction) }
            }
            _ if row.oid < FIRST_USER_OID => {
                Conduct { primary: Some(AccessReason::ServerState), ..Conduct::uncached(Bypass::ServerState) }
            }
            _ => self.volatile(row),
        }
    }

    /// The body of a function that promises to change nothing, where PostgreSQL stores it resolved.
    pub(super) fn resolved_body(&self, oid: u32) -> Option<&str> {
        self.get(oid).filter(|row| row.volatility != 'v').and_then(resolved_body)
    }

    /// A function that promises to change nothing.
    fn labelled(&self, row: &FunctionRow, seen: &mut HashSet<u32>) -> Conduct {
        if let Some(body) = resolved_body(row) {
            return self.sql_body(body, seen);
        }
        let mut conduct = match (row.volatility, row.language.as_str()) {
            ('i', "internal" | "c" | "sql") => Conduct::default(),
            ('i', _) => Conduct::uncached(Bypass::UserFunction),
            _ => Conduct::uncached(Bypass::StableFunction),
        };
        if self.sources.get(row.oid).is_some() {
            conduct.labelled.push(row.oid);
        }
        conduct
    }

    fn volatile(&self, row: &FunctionRow) -> Conduct {
        let (body, effects) = self.spread(self.body(row.oid));
        let reach = match body {
            _ if builtin::writes_elsewhere(&row.name) => Reach::Database,
            Body::Computes => Reach::Nothing,
            Body::RunsSql | Body::Opaque => Reach::Locks,
        };
        Conduct {
            primary: Some(AccessReason::VolatileFunction),
            reach,
            effects,
            ..Conduct::uncached(Bypass::VolatileFunction)
        }
    }

    /// A BEGIN ATOMIC body is stored resolved, so it can be read like a view.
    fn sql_body(&self, body: &str, seen: &mut HashSet<u32>) -> Conduct {
        let mut uses = TreeUses::scan(body);
        let mut worst = Conduct::default();
        for function in std::mem::take(&mut uses.functions) {
            worst.merge(self.conduct_within(function, seen));
        }
        worst.body.push(uses);
        worst
    }
}

fn resolved_body(row: &FunctionRow) -> Option<&str> {
    row.body.as_deref().filter(|_| row.oid >= FIRST_USER_OID && row.kind != 'a')
}

fn default_values(row: &FunctionRow) -> Option<(u32, TreeUses)> {
    Some((row.oid, TreeUses::scan(row.default_values.as_deref()?)))
}

/// Judges the bodies of volatile PL/pgSQL functions. Calling another volatile function of a user counts as
/// doing anything.
fn bodies(rows: &[FunctionRow]) -> HashMap<u32, (Body, Effects)> {
    let users = || rows.iter().filter(|row| row.oid >= FIRST_USER_OID);
    let opaque = |row: &&FunctionRow| row.volatility == 'v' || row.kind == 'a';
    let suspicious: HashSet<&str> = users().filter(opaque).map(|row| row.name.as_str()).collect();
    let judged = |row: &FunctionRow| {
        let source = row.source.as_deref().filter(|_| row.volatility == 'v' && row.language == "plpgsql")?;
        Some((row.oid, judge(source, |word| suspicious.contains(word))))
    };
    users().filter_map(judged).collect()
}

fn builtin_conduct(row: &FunctionRow) -> Conduct {
    let name = row.name.as_str();
    let mut conduct = match row.volatility {
        _ if builtin::runs_queries(name) => match row.volatility {
            'i' => Conduct::default(),
            _ => Conduct::opaque(AccessReason::VolatileFunction, Bypass::VolatileFunction),
        },
        'i' => Conduct::default(),
        's' => match builtin::stable(name, row.arguments) {
            Stable::Cacheable => Conduct::default(),
            Stable::Clock => Conduct::uncached(Bypass::Clock),
            Stable::SameEverywhere => Conduct::uncached(Bypass::SessionState),
            Stable::ServerState => {
                Conduct { primary: Some(AccessReason::ServerState), ..Conduct::uncached(Bypass::ServerState) }
            }
        },
        _ => Conduct { primary: Some(AccessReason::VolatileFunction), ..Conduct::uncached(Bypass::VolatileFunction) },
    };
    conduct.effects.insert(builtin::effects(name));
    conduct.catalog_change |= builtin::changes_catalog(name);
    conduct
}
