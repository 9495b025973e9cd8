//! Who may use which schema, read which relation and call which function. PostgreSQL leaves schemas that a role may not use
//! out of its search path.
//!
//! As `pg_namespace_aclmask`, `pg_class_aclmask` and `has_privs_of_role` decide:
//! <https://www.postgresql.org/docs/current/role-membership.html>

use std::collections::{HashMap, HashSet};

use super::rows::SnapshotRows;

/// Everybody, as a grantee.
const PUBLIC: u32 = 0;
/// Whoever has the rights of this role may read every table; since PostgreSQL 14.
const READ_EVERYTHING: &str = "pg_read_all_data";
/// Whoever has the rights of one of these may use every schema.
const USE_EVERYTHING: [&str; 2] = [READ_EVERYTHING, "pg_write_all_data"];

#[derive(Clone, Copy)]
struct Role {
    oid: u32,
    is_superuser: bool,
}

/// Roles, whose rights they have, and who may use which schema.
pub(super) struct Rights {
    roles: HashMap<Box<str>, Role>,
    /// The roles whose rights a role has directly.
    heirs: HashMap<u32, Vec<u32>>,
    /// Grantees of USAGE of each schema.
    users: HashMap<u32, HashSet<u32>>,
    use_everything: Vec<u32>,
    read_everything: Option<u32>,
    /// Roles that no policy holds back, and those that policies are for.
    bypassing: HashSet<u32>,
    policy_roles: HashSet<u32>,
    /// Grantees of SELECT of each relation.
    readers: HashMap<u32, Box<[u32]>>,
    /// Grantees of EXECUTE of functions that not everybody may call.
    callers: HashMap<u32, Box<[u32]>>,
}

/// The rights of one role.
pub(super) struct RightsOf<'r> {
    all: &'r Rights,
    is_superuser: bool,
    /// Itself, and all whose rights it has.
    held: HashSet<u32>,
}

impl Rights {
    pub(super) fn new(rows: &SnapshotRows) -> Self {
        let role =
            |row: &super::RoleRow| (row.name.as_str().into(), Role { oid: row.oid, is_superuser: row.superuser });
        let roles: HashMap<Box<str>, Role> = rows.roles.iter().map(role).collect();
        let mut heirs: HashMap<u32, Vec<u32>> = HashMap::new();
        for (member, role) in &rows.memberships {
            heirs.entry(*member).or_default().push(*role);
        }
        let users = rows.schemas.iter().map(|row| (row.oid, row.users.iter().copied().collect())).collect();
        let use_everything = USE_EVERYTHING.iter().filter_map(|name| Some(roles.get(*name)?.oid)).collect();
        let callers = rows.restricted.iter().map(|row| (row.function, row.users.as_slice().into()));
        Self {
            read_everything: roles.get(READ_EVERYTHING).map(|role| role.oid),
            readers: rows.readers.iter().map(|(oid, grantees)| (*oid, grantees.as_slice().into())).collect(),
            callers: callers.collect(),
            bypassing: rows.bypassing_roles.iter().copied().collect(),
            policy_roles: rows.policy_roles.iter().copied().collect(),
            roles,
            heirs,
            users,
            use_everything,
        }
    }

    pub(super) fn roles(&self) -> impl Iterator<Item = &str> {
        self.roles.keys().map(|name| &**name)
    }

    /// `pg_roles.oid`
    pub(super) fn oid(&self, role: &str) -> Option<u32> {
        self.roles.get(role).map(|role| role.oid)
    }

    /// `None`: nobody knows of such a role.
    pub(super) fn of(&self, role: &str) -> Option<RightsOf<'_>> {
        let Role { oid, is_superuser } = *self.roles.get(role)?;
        Some(RightsOf { all: self, is_superuser, held: self.held(oid) })
    }

    fn held(&self, role: u32) -> HashSet<u32> {
        let mut held = HashSet::from([role]);
        let mut open = vec![role];
        while let Some(next) = open.pop() {
            open.extend(self.heirs.get(&next).into_iter().flatten().copied().filter(|role| held.insert(*role)));
        }
        held
    }

    /// What of this a session goes on with that runs when it changes.
    pub(super) fn standing(&self) -> Standing {
        let held = |role: &Role| {
            let mut held: Vec<u32> = self.held(role.oid).into_iter().collect();
            held.sort_unstable();
            held
        };
        let roles = self.roles.iter().map(|(name, role)| (role.oid, (name.clone(), role.is_superuser, held(role))));
        let grantees = self.users.values().flatten().chain(&self.use_everything).copied();
        Standing {
            roles: roles.collect(),
            grantees: grantees.collect(),
            bypassing: self.bypassing.clone(),
            policy_roles: self.policy_roles.clone(),
        }
    }
}

/// Until PostgreSQL 16 a session whose role gets other rights, or another name, goes on with the schemas that it has
/// looked up before; it notices changes of the schemas themselves.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// Name, superuser, and whose rights it has, sorted.
    roles: HashMap<u32, (Box<str>, bool, Vec<u32>)>,
    /// Roles that it matters to have the rights of.
    grantees: HashSet<u32>,
    bypassing: HashSet<u32>,
    policy_roles: HashSet<u32>,
}

impl Standing {
    /// Does a role that was there before look in other schemas by now, for another reason than the schemas?
    pub(super) fn differs_from(&self, earlier: &Self) -> bool {
        let matters = |role: &&u32| self.grantees.contains(*role);
        self.roles.iter().any(|(oid, (name, is_superuser, held))| {
            earlier.roles.get(oid).is_some_and(|(old_name, was_superuser, old)| {
                (name, is_superuser) != (old_name, was_superuser)
                    || (held != old && !held.iter().filter(matters).eq(old.iter().filter(matters)))
            })
        })
    }
}

impl Standing {
    /// May a session see other rows than one that begins now, by a statement that it has prepared? PostgreSQL plans such a
    /// statement anew when policies change, but not when roles do.
    pub(super) fn shows_other_rows(&self, earlier: &Self) -> bool {
        let matters = |role: &&u32| self.policy_roles.contains(*role);
        // What a role that is new was in between is not known.
        let differs = |(oid, (_, is_superuser, held)): (&u32, &(Box<str>, bool, Vec<u32>))| {
            earlier.roles.get(oid).is_none_or(|(_, was_superuser, old)| {
                is_superuser != was_superuser
                    || self.bypassing.contains(oid) != earlier.bypassing.contains(oid)
                    || !held.iter().filter(matters).eq(old.iter().filter(matters))
            })
        };
        !self.policy_roles.is_empty() && self.roles.iter().any(differs)
    }
}

impl RightsOf<'_> {
    /// Is that schema part of a search path which names it?
    pub(super) fn may_use(&self, schema: u32) -> bool {
        let all = self.all;
        self.is_superuser
            || all.users.get(&schema).is_some_and(|users| users.iter().any(|grantee| self.is(grantee)))
            || all.use_everything.iter().any(|role| self.held.contains(role))
    }

    /// May it read every column of that relation?
    pub(super) fn may_read(&self, relation: u32) -> bool {
        let all = self.all;
        self.is_superuser
            || all.readers.get(&relation).is_some_and(|readers| readers.iter().any(|grantee| self.is(grantee)))
            || all.read_everything.is_some_and(|role| self.held.contains(&role))
    }

    /// May it call that function?
    pub(super) fn may_call(&self, function: u32) -> bool {
        let callers = self.all.callers.get(&function);
        self.is_superuser || callers.is_none_or(|callers| callers.iter().any(|grantee| self.is(grantee)))
    }

    fn is(&self, grantee: &u32) -> bool {
        *grantee == PUBLIC || self.held.contains(grantee)
    }
}
