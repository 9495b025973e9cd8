//! How many clients may be there: `max_db_client_connections` and `max_user_client_connections`.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Which limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crowded {
    /// `max_db_client_connections`
    Database,
    /// `max_user_client_connections`
    User,
}

impl Crowded {
    /// In PgBouncer's words.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Database => "client connections exceeded (max_db_client_connections)",
            Self::User => "client connections exceeded (max_user_client_connections)",
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    databases: HashMap<Arc<str>, usize>,
    users: HashMap<Arc<str>, usize>,
}

/// Counts clients from the beginning of their login to their end.
#[derive(Debug, Default)]
pub struct Admissions {
    counts: Mutex<Counts>,
}

/// One client is counted; dropping it counts it out.
#[derive(Debug)]
pub struct Admission {
    admissions: Arc<Admissions>,
    database: Arc<str>,
    user: Arc<str>,
}

impl Admissions {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more client of `database` and `user`, of which there may be so many; 0 is unlimited.
    ///
    /// # Errors
    /// There are as many already.
    pub fn admit(
        self: &Arc<Self>,
        (database, most_of_database): (Arc<str>, usize),
        (user, most_of_user): (Arc<str>, usize),
    ) -> Result<Admission, Crowded> {
        let mut counts = self.counts();
        let is_full = |count: Option<&usize>, most: usize| most > 0 && count.copied().unwrap_or(0) >= most;
        if is_full(counts.databases.get(&database), most_of_database) {
            return Err(Crowded::Database);
        }
        if is_full(counts.users.get(&user), most_of_user) {
            return Err(Crowded::User);
        }
        *counts.databases.entry(Arc::clone(&database)).or_default() += 1;
        *counts.users.entry(Arc::clone(&user)).or_default() += 1;
        Ok(Admission { admissions: Arc::clone(self), database, user })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut counts = self.admissions.counts();
        let Counts { databases, users } = &mut *counts;
        for (counts, name) in [(databases, &self.database), (users, &self.user)] {
            if let Some(count) = counts.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(name);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(admissions: &Arc<Admissions>, database: &str, user: &str) -> Result<Admission, Crowded> {
        admissions.admit((database.into(), 2), (user.into(), 1))
    }

    #[test]
    fn each_database_and_each_user_has_so_many_clients_and_one_that_leaves_makes_room() {
        let admissions = Arc::new(Admissions::default());
        let first = admit(&admissions, "db", "u1").unwrap();
        assert_eq!(admit(&admissions, "other", "u1").err(), Some(Crowded::User));
        let second = admit(&admissions, "db", "u2").unwrap();
        assert_eq!(admit(&admissions, "db", "u3").err(), Some(Crowded::Database));
        drop(second);
        let third = admit(&admissions, "db", "u3").unwrap();
        drop((first, third));
        let counts = admissions.counts();
        assert!(counts.databases.is_empty() && counts.users.is_empty());
    }

    #[test]
    fn zero_is_no_limit() {
        let admissions = Arc::new(Admissions::default());
        let all: Vec<_> = (0..9).map(|_| admissions.admit(("db".into(), 0), ("u".into(), 0)).unwrap()).collect();
        assert_eq!(all.len(), 9);
    }
}
