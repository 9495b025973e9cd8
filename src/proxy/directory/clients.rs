//! What clients ask the installation.

use std::sync::Arc;

use super::Installation;
use crate::{
    auth::{Secret, scram::ClientKeys},
    client::{Directory, Finding, KeyOwner, Unserved},
    cluster::{Database, Listener},
    config::DatabaseConfig,
    pool::{Greeting, Pool, PoolKey},
    proxy::{
        control_plane::ControlPlane,
        members::{login_parameters, section_named},
        served::Served,
    },
    routing::MemberId,
};

impl Directory for Installation {
    fn database(&self, name: &str) -> Result<Arc<Database>, Unserved> {
        self.find_or_make(name).map(|served| Arc::clone(&served.database))
    }

    fn logged_in(&self, database: &Arc<Database>, user: &str) -> bool {
        let Some(served) = self.find(&database.name).filter(|served| served.control.get().is_none()) else {
            return false;
        };
        // One at a time: a plane that is made says who is primary.
        let _turn = self.changing();
        if served.control.get().is_some() || served.database.is_retired() {
            return false;
        }
        let memory = served.memory_for(&served.section);
        match ControlPlane::new(&served.database, &served.section, &self.settings(), &self.shared, Some(user), memory) {
            Ok(plane) => served.watch(plane, &self.shared),
            Err(error) => {
                tracing::warn!(%error, "catalog cannot be read");
                false
            }
        }
    }

    fn is_known_after_restart(&self, database: &str, user: &str) -> bool {
        let settings = self.settings();
        let Some(section) = settings.config.database(database) else { return false };
        section.password.is_some()
            || match settings.users.secret(user) {
                Some(Secret::Plain(_) | Secret::Md5(_)) => true,
                Some(Secret::Scram(_)) => false,
                Some(Secret::None) | None => settings.config.auth_user(&section).is_none(),
            }
    }

    fn greeting_of_others(&self, database: &Arc<Database>, pool: &Pool) -> Option<Greeting> {
        let own = self.find(&database.name)?;
        let key = pool.key();
        let catalog = database.catalog();
        let is_usual = |user: &str| catalog.as_ref().is_some_and(|catalog| catalog.snapshot.is_usual(user));
        let is_alias = |served: &Served| {
            Arc::ptr_eq(&served.database.real, &database.real)
                && served.section.connect_query == own.section.connect_query
                && login_parameters(&served.section) == login_parameters(&own.section)
        };
        let is_same_server = |there: &PoolKey| match there.database == key.database {
            true => there.member == key.member,
            // Entries agree on who is their first member and on nothing else.
            false => {
                there.member == there.database
                    && key.member == key.database
                    && self.find(&there.database).is_some_and(|served| is_alias(&served))
            }
        };
        let is_alike = |there: &PoolKey| there.user == key.user || is_usual(&there.user) && is_usual(&key.user);
        let others = self.shared.pools.all().into_iter();
        let mut others = others.filter(|other| is_same_server(other.key()) && is_alike(other.key()));
        others.find_map(|other| Some(other.greeting()?.told_to(&key.user)))
    }

    fn listener(&self, database: &Arc<Database>) -> Option<Arc<Listener>> {
        let served = self.find_or_make(&database.name).ok()?;
        Some(served.control.get()?.listener(&self.shared))
    }

    fn is_disabled(&self, name: &str) -> bool {
        self.switches().is_disabled(name)
    }

    fn remember_keys(&self, owner: KeyOwner<'_>, user: &str, keys: ClientKeys) {
        self.users.remember_keys(owner, user, keys);
    }

    fn find_user<'a>(&'a self, database: Option<&'a DatabaseConfig>, user: &'a str, again: bool) -> Finding<'a> {
        let settings = self.settings();
        let is_disabled = |name: &str| self.switches().is_disabled(name);
        Box::pin(async move { self.users.find(&settings, database, user, again, is_disabled).await })
    }

    fn pool(&self, database: &Arc<Database>, user: &Arc<str>, member: MemberId) -> Option<Arc<Pool>> {
        let served = self.find_or_make(&database.name).ok()?;
        // The caller's numbers may be those before a RELOAD.
        let member = Arc::clone(database.member_name(member)?);
        section_named(&served.section, &member)?;
        let key = PoolKey { database: Arc::clone(&database.name), user: Arc::clone(user), member };
        let make = || self.make_pool(&key, &served);
        self.shared.pools.get_or_try_insert(&key, make)
    }
}
