//! The state of one database's definitions at one moment.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use dashmap::DashMap;

use super::{
    Meaning, RelationOid,
    builtin::{self, FIRST_USER_OID},
    closure,
    function::Functions,
    kinds,
    names::{Found, Names, Path},
    paths::{ANYWHERE, Paths, SHADOWED},
    relation::{Relation, RelationKind, relations},
    rights::{RightsOf, Standing},
    rows::{SnapshotRows, TypeRow},
    sharing::{self, Sharing},
    tree::settings_set_in,
    unseen::Unseen,
};
use crate::sql::{Name, Statement};

/// Meanings remembered per snapshot; it is cleared when full, and with every new snapshot.
const MOST_MEANINGS: usize = 20_000;

/// What is remembered of a statement and a role takes as much.
pub const SHARING_BYTES: usize = size_of::<((MemoKey, u32), bool)>();

/// What one database says about itself. Immutable but for the memo of meanings.
pub struct Snapshot {
    database_oid: u32,
    server_version_num: u32,
    pub(super) names: Names,
    paths: Paths,
    /// `default_transaction_isolation`, as it was typed, where a role has none of its own; `None`: not known.
    isolation: Option<String>,
    role_isolations: HashMap<String, String>,
    peculiar_roles: HashSet<Box<str>>,
    session_defaults: Arc<SessionDefaults>,
    knows_session_defaults: bool,
    custom_settings: Vec<String>,
    relations: HashMap<u32, Relation>,
    pub(super) functions: Functions,
    types: HashMap<u32, TypeRow>,
    plumbing: HashSet<u32>,
    /// What PostgreSQL may run unseen.
    pub(super) unseen: Unseen,
    /// Some user trigger may wait for the commit.
    pub(super) deferrable_triggers: bool,
    pub(super) sharing: Sharing,
    memo: DashMap<MemoKey, Arc<Meaning>, BuildHasherDefault<IdentityIsHash>>,
    held: AtomicUsize,
    /// Whether an answer is anybody's, by role; as many as meanings, and empty where nobody asks.
    shared: DashMap<(MemoKey, u32), bool, BuildHasherDefault<IdentityIsHash>>,
}

/// A search path of one snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PathNumber(u32);

impl PathNumber {
    /// None is known: a name without a schema stands for every object of that name.
    pub const UNKNOWN: Self = Self(ANYWHERE);
}

/// What sessions begin with, and what those go on with that have begun already.
#[derive(Debug, PartialEq, Eq)]
pub struct SessionDefaults {
    settings: u64,
    standing: Standing,
}

impl SessionDefaults {
    /// May a session that began by `earlier` have other settings, or look in other schemas, than one that begins by these?
    #[must_use]
    pub fn differ_from(&self, earlier: &Self) -> bool {
        self.settings != earlier.settings || self.standing.differs_from(&earlier.standing)
    }

    /// May a session that began by `earlier` see other rows than one that begins by these, where policies choose them?
    #[must_use]
    pub fn show_other_rows(&self, earlier: &Self) -> bool {
        self.standing.shows_other_rows(&earlier.standing)
    }
}

impl Snapshot {
    /// Builds the look-ups.
    pub fn new(mut rows: SnapshotRows) -> Self {
        let names = Names::new(&rows);
        let functions = Functions::new(&rows, &names);
        let paths = Paths::new(&rows, &names);
        let relations = relations(&rows);
        let of_policies =
            relations.values().flat_map(|relation| &relation.policies).flat_map(|policy| &policy.settings);
        let trees = rows.rules.iter().map(|rule| &rule.action).chain(rows.expressions.iter().map(|row| &row.tree));
        let bodies = rows.functions.iter().filter_map(|function| function.body.as_ref());
        let set = trees.chain(bodies).flat_map(|tree| settings_set_in(tree));
        let more: Vec<String> = of_policies.cloned().chain(set).map(String::from).collect();
        rows.custom_settings.extend(more);
        let mut settings = DefaultHasher::new();
        (&rows.search_path, &rows.isolation, &rows.settings).hash(&mut settings);
        let session_defaults = SessionDefaults { settings: settings.finish(), standing: paths.rights().standing() };
        let mut snapshot = Self {
            isolation: rows.isolation.clone(),
            role_isolations: rows.role_isolations.iter().cloned().collect(),
            peculiar_roles: rows.peculiar_roles.iter().map(|role| role.as_str().into()).collect(),
            session_defaults: Arc::new(session_defaults),
            knows_session_defaults: rows.search_path.is_some() && rows.isolation.is_some(),
            custom_settings: std::mem::take(&mut rows.custom_settings),
            database_oid: rows.database_oid,
            server_version_num: rows.server_version_num,
            paths,
            relations,
            sharing: Sharing::new(&rows, &names, &functions),
            types: rows.types.iter().map(|row| (row.oid, row.clone())).collect(),
            plumbing: rows.plumbing.iter().copied().collect(),
            unseen: Unseen::default(),
            deferrable_triggers: rows.triggers.iter().any(|trigger| trigger.deferrable),
            names,
            functions,
            memo: DashMap::default(),
            held: AtomicUsize::new(0),
            shared: DashMap::default(),
        };
        snapshot.unseen = Unseen::new(&rows, &snapshot);
        snapshot
    }

    /// What `statement` means to a session of `user` whose search path is the default of that user.
    pub fn meaning(&self, statement: &Arc<Statement>, user: &str) -> Arc<Meaning> {
        self.meaning_along(statement, self.path_of(user))
    }

    /// The search path that sessions of `user` begin with; of use with this snapshot only.
    pub fn path_of(&self, user: &str) -> PathNumber {
        PathNumber(self.paths.of(user))
    }

    /// The search path of a session of `user` that runs as `role` and has set `search_path`, where it has; of use with this
    /// snapshot only. `search_path` is as PostgreSQL shows it.
    pub fn path_along(&self, user: &str, role: Option<&str>, search_path: Option<&str>) -> PathNumber {
        PathNumber(self.paths.resolve(user, role, search_path, &self.names))
    }

    /// The schemas of a path in order; `None` if they are not known.
    pub fn schemas_of(&self, path: PathNumber) -> Option<Vec<u32>> {
        match &*self.paths.get(path.0) {
            Path::Known(schemas) => Some(schemas.clone()),
            Path::Anywhere | Path::Shadowed => None,
        }
    }

    #[cfg(test)]
    pub(super) fn path(&self, path: PathNumber) -> Arc<Path> {
        self.paths.get(path.0)
    }

    /// Search paths that are numbered, and how many may be.
    pub fn paths(&self) -> (usize, usize) {
        self.paths.occupancy()
    }

    /// As [`Self::meaning`], for a caller that asks often.
    pub fn meaning_along(&self, statement: &Arc<Statement>, path: PathNumber) -> Arc<Meaning> {
        self.remembered(statement, path.0)
    }

    /// What `statement` means where the search path is not known: names without a schema stand for every
    /// object of that name.
    ///
    /// For transactions that have changed `search_path` or their role, and wherever the server has not said yet what is set:
    /// writes still cover whatever may be meant, and nothing is read from a replica or cached on the word of a name.
    pub fn meaning_anywhere(&self, statement: &Arc<Statement>) -> Arc<Meaning> {
        self.remembered(statement, ANYWHERE)
    }

    /// What `statement` means in a session that owns temporary objects, or may own some: a name without a
    /// schema may be a temporary view over any table, or a temporary table with triggers.
    pub fn meaning_shadowed(&self, statement: &Arc<Statement>) -> Arc<Meaning> {
        self.remembered(statement, SHADOWED)
    }

    fn remembered(&self, statement: &Statement, path: u32) -> Arc<Meaning> {
        let key = MemoKey { identity: statement.identity(), path };
        if let Some(meaning) = self.memo.get(&key) {
            return Arc::clone(&meaning);
        }
        let meaning = Arc::new(kinds::meaning(statement, Some((self, &self.paths.get(path)))));
        if self.held.load(Ordering::Relaxed) >= MOST_MEANINGS {
            self.memo.clear();
            self.held.store(0, Ordering::Relaxed);
        }
        if self.memo.insert(key, Arc::clone(&meaning)).is_none() {
            self.held.fetch_add(1, Ordering::Relaxed);
        }
        meaning
    }

    /// Is what a server answers a session of `role` that looks for names along `path` what it answers everybody of whom the
    /// same is true? Of use for statements whose answers may be kept.
    pub fn is_anybodys(&self, statement: &Statement, path: PathNumber, role: &str) -> bool {
        let Some(oid) = self.paths.rights().oid(role) else { return false };
        let key = (MemoKey { identity: statement.identity(), path: path.0 }, oid);
        if let Some(known) = self.shared.get(&key) {
            return *known;
        }
        let is_anybodys = sharing::apart(self, statement, &self.paths.get(path.0), role).is_none();
        if self.shared.len() >= MOST_MEANINGS {
            self.shared.clear();
        }
        self.shared.insert(key, is_anybodys);
        is_anybodys
    }

    /// Of how many statements and roles it is remembered whether the answer is anybody's, and of how many it may be.
    pub fn sharings(&self) -> (usize, usize) {
        (self.shared.len(), MOST_MEANINGS)
    }

    pub(super) fn rights_of(&self, role: &str) -> Option<RightsOf<'_>> {
        self.paths.rights().of(role)
    }

    /// The relations to void for a lock set read from `pg_locks`: ancestors are added, system catalogs,
    /// sequences, indexes and toast tables are left out.
    pub fn expand_locked(&self, locked: &[u32]) -> Vec<RelationOid> {
        let mut found: Vec<u32> = Vec::new();
        for oid in locked.iter().copied().filter(|oid| self.holds_rows(*oid)) {
            found.push(oid);
            closure::each_ancestor(self, oid, |ancestor| found.push(ancestor));
        }
        found.sort_unstable();
        found.dedup();
        found.into_iter().map(RelationOid).collect()
    }

    /// A relation that is not known may be a table made a moment ago.
    fn holds_rows(&self, oid: u32) -> bool {
        let sequence = self.relation(oid).is_some_and(|relation| relation.kind == RelationKind::Sequence);
        oid >= FIRST_USER_OID && !self.plumbing.contains(&oid) && !sequence
    }

    /// `schema.name` of a relation.
    pub fn relation_name(&self, relation: RelationOid) -> Option<String> {
        let found = self.relation(relation.0)?;
        Some(format!("{}.{}", self.names.schema_name(found.schema)?, found.name))
    }

    /// What is `said` of a relation by schema and name, else of the closest table that it is a partition or heir of; `None`
    /// also for a view of which nothing is said: its tables are what counts.
    pub fn said_of<T: Copy>(
        &self,
        relation: RelationOid,
        said: impl Fn(&str, &str) -> Option<T>,
        usual: T,
    ) -> Option<T> {
        let own = |oid: &u32| {
            let found = self.relation(*oid)?;
            said(self.names.schema_name(found.schema)?, &found.name)
        };
        let (mut seen, mut generation) = (HashSet::from([relation.0]), vec![relation.0]);
        while !generation.is_empty() {
            if let Some(value) = generation.iter().find_map(own) {
                return Some(value);
            }
            let parents = generation.iter().filter_map(|oid| self.relation(*oid)).flat_map(|found| &found.parents);
            generation = parents.copied().filter(|parent| seen.insert(*parent)).collect();
        }
        let is_view = self.relation(relation.0).is_some_and(|found| found.kind == RelationKind::View);
        (!is_view).then_some(usual)
    }

    /// The relation of that name.
    pub fn relation_named(&self, schema: &str, name: &str) -> Option<RelationOid> {
        let name = Name { schema: Some(schema.into()), name: name.into() };
        match self.names.relation(&name, &Path::Anywhere) {
            Found::One(oid) => Some(RelationOid(oid)),
            _ => None,
        }
    }

    /// Does a new session of `user` run its transactions serializable? A replica refuses those, and an answer
    /// from the cache would leave no trace for the detection of conflicts.
    pub fn is_serializable(&self, user: &str) -> bool {
        self.isolation(user).is_none_or(|level| level.eq_ignore_ascii_case("serializable"))
    }

    /// Does a new session of `user` run its transactions so that each statement has a snapshot of its own?
    pub fn reads_committed(&self, user: &str) -> bool {
        self.isolation(user).is_some_and(reads_committed)
    }

    fn isolation(&self, user: &str) -> Option<&str> {
        self.role_isolations.get(user).or(self.isolation.as_ref()).map(String::as_str)
    }

    /// Do servers report the same to `user` as to others, but for the name?
    pub fn is_usual(&self, user: &str) -> bool {
        !self.peculiar_roles.contains(user)
    }

    /// Settings with a dot in their names that functions and views of the database may set, or policies ask for, in lower
    /// case.
    #[must_use]
    pub fn custom_settings(&self) -> &[String] {
        &self.custom_settings
    }

    /// What sessions begin with.
    pub fn session_defaults(&self) -> &Arc<SessionDefaults> {
        &self.session_defaults
    }

    /// Could it be told what sessions begin with?
    pub fn knows_session_defaults(&self) -> bool {
        self.knows_session_defaults
    }

    /// `pg_database.oid`
    pub fn database_oid(&self) -> u32 {
        self.database_oid
    }

    /// `server_version_num`
    pub fn server_version_num(&self) -> u32 {
        self.server_version_num
    }

    pub(super) fn relation(&self, oid: u32) -> Option<&Relation> {
        self.relations.get(&oid)
    }

    /// Does the server read values of that type without any code of users?
    pub fn is_plain_type(&self, oid: u32) -> bool {
        oid < FIRST_USER_OID || self.types.get(&oid).is_some_and(|row| row.kind == 'e')
    }

    pub(super) fn type_row(&self, oid: u32) -> Option<&TypeRow> {
        self.types.get(&oid)
    }

    /// True for a type that comes with the server.
    pub(super) fn is_system_type(row: &TypeRow) -> bool {
        row.oid < FIRST_USER_OID
    }

    /// Is the function a user's own?
    pub(super) fn is_user_function(oid: u32) -> bool {
        oid >= builtin::FIRST_USER_OID
    }
}

/// Has each statement of a transaction that is isolated so a snapshot of its own?
#[must_use]
pub fn reads_committed(isolation: &str) -> bool {
    let levels = ["read committed", "read uncommitted"];
    levels.iter().any(|level| isolation.eq_ignore_ascii_case(level))
}

#[derive(PartialEq, Eq, Hash)]
struct MemoKey {
    identity: u128,
    path: u32,
}

/// The identity of a statement is a hash already.
#[derive(Default)]
struct IdentityIsHash(u64);

impl std::hash::Hasher for IdentityIsHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u128(&mut self, identity: u128) {
        self.0 ^= identity as u64;
    }

    fn write_u32(&mut self, path: u32) {
        self.0 = self.0.rotate_left(11) ^ u64::from(path).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
