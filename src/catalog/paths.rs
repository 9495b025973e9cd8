//! The search paths of sessions: those that they begin with, and those that they have set.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    names::{Names, Path, path},
    rights::Rights,
    rows::SnapshotRows,
};

/// What one takes, without the list of its schemas.
pub const PATH_BYTES: usize = size_of::<(Arc<Path>, u32)>() + size_of::<Arc<Path>>() + size_of::<Path>();

/// Different paths of one snapshot; sessions that would need one more are understood without one.
const MOST_PATHS: usize = 10_000;

/// Who is asked for where no role is named.
const NOBODY: &str = "";

/// The numbers of paths that are not numbered one by one.
pub(super) const ANYWHERE: u32 = u32::MAX;
pub(super) const SHADOWED: u32 = u32::MAX - 1;

/// The search paths of one snapshot, numbered: two sessions have the same number only if names mean the same to both.
pub(super) struct Paths {
    rights: Rights,
    /// `search_path` of roles that have one of their own, and that of the others; `None`: not known.
    settings: HashMap<Box<str>, Box<str>>,
    default: Option<Box<str>>,
    /// Roles whose sessions begin as another one; nobody's name: all.
    disguised: HashSet<Option<Box<str>>>,
    /// What each role begins with.
    of_roles: HashMap<Box<str>, u32>,
    numbered: Mutex<Numbered>,
}

#[derive(Default)]
struct Numbered {
    numbers: HashMap<Arc<Path>, u32>,
    paths: Vec<Arc<Path>>,
}

impl Paths {
    pub(super) fn new(rows: &SnapshotRows, names: &Names) -> Self {
        let settings = rows.role_search_paths.iter().map(|(role, path)| (role.as_str().into(), path.as_str().into()));
        let mut paths = Self {
            rights: Rights::new(rows),
            settings: settings.collect(),
            default: rows.search_path.as_deref().map(Into::into),
            disguised: rows.disguised_roles.iter().map(|role| role.as_deref().map(Into::into)).collect(),
            of_roles: HashMap::new(),
            numbered: Mutex::default(),
        };
        let number = |role: &str| paths.resolve(role, None, None, names);
        let of_roles = paths.rights.roles().map(|role| (role.into(), number(role)));
        let nobodys = paths.default.as_deref().map(|setting| path(setting, None, names));
        let nobodys = nobodys.map_or(ANYWHERE, |path| paths.number(path));
        paths.of_roles = of_roles.chain([(NOBODY.into(), nobodys)]).collect();
        paths
    }

    pub(super) fn rights(&self) -> &Rights {
        &self.rights
    }

    /// What sessions of `role` begin with.
    pub(super) fn of(&self, role: &str) -> u32 {
        self.of_roles.get(role).copied().unwrap_or(ANYWHERE)
    }

    /// The path of a session of `user` that has taken another role, or set another `search_path`.
    pub(super) fn resolve(&self, user: &str, role: Option<&str>, setting: Option<&str>, names: &Names) -> u32 {
        if role.is_none() && (self.disguised.contains(&None) || self.disguised.contains(&Some(user.into()))) {
            return ANYWHERE;
        }
        let role = role.unwrap_or(user);
        let own = || self.settings.get(user).or(self.default.as_ref()).map(|setting| &**setting);
        let (Some(setting), Some(rights)) = (setting.or_else(own), self.rights.of(role)) else { return ANYWHERE };
        self.number(path(setting, Some((role, &rights)), names))
    }

    fn number(&self, path: Path) -> u32 {
        if !matches!(path, Path::Known(_)) {
            return ANYWHERE;
        }
        let mut numbered = self.numbered();
        if let Some(number) = numbered.numbers.get(&path) {
            return *number;
        }
        let Some(number) = u32::try_from(numbered.paths.len()).ok().filter(|_| numbered.paths.len() < MOST_PATHS)
        else {
            return ANYWHERE;
        };
        let path = Arc::new(path);
        numbered.paths.push(Arc::clone(&path));
        numbered.numbers.insert(path, number);
        number
    }

    pub(super) fn get(&self, number: u32) -> Arc<Path> {
        let numbered = match number {
            ANYWHERE | SHADOWED => None,
            number => self.numbered().paths.get(number as usize).cloned(),
        };
        numbered.unwrap_or_else(|| Arc::new(if number == SHADOWED { Path::Shadowed } else { Path::Anywhere }))
    }

    /// How many there are, and how many there may be.
    pub(super) fn occupancy(&self) -> (usize, usize) {
        (self.numbered().paths.len(), MOST_PATHS)
    }

    fn numbered(&self) -> MutexGuard<'_, Numbered> {
        self.numbered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
