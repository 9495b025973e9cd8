//! What is known of users beyond auth_file: answers to auth_query, keys that SCRAM logins have shown.

use std::{sync::Arc, time::Duration};

use dashmap::DashMap;

use super::{
    directory::Shared,
    members::{address, login_parameters, member_section},
};
use crate::{
    auth::{Secret, scram::ClientKeys},
    client::{AuthQueryError, FoundUser, KeyOwner, Lookup, Settings},
    clock::nanos,
    cluster::auth_query::{Answer, AuthQueries, Question, UserKey},
    config::DatabaseConfig,
    net::SocketOptions,
    routing::MemberId,
    server::{Dialer, Login, Resolver},
};

/// Users whose keys are remembered.
const MAX_KEYS: usize = 100_000;

/// Shared by logins of clients and logins to servers.
pub(super) struct Users {
    queries: Arc<AuthQueries>,
    /// What the last SCRAM login of each user has shown. Those of auth_file belong to no database.
    keys: DashMap<(Option<String>, String), ClientKeys>,
    resolver: Arc<Resolver>,
}

impl Users {
    pub(super) fn new(shared: &Shared) -> Self {
        let queries = AuthQueries::new(shared.clock, shared.handle.clone());
        Self { queries, keys: DashMap::default(), resolver: Arc::clone(&shared.resolver) }
    }

    pub(super) fn remember_keys(&self, owner: KeyOwner<'_>, user: &str, keys: ClientKeys) {
        let database = match owner {
            KeyOwner::Listed => None,
            KeyOwner::Of(database) => Some(database.to_owned()),
        };
        let key = (database, user.to_owned());
        if self.keys.len() < MAX_KEYS || self.keys.contains_key(&key) {
            self.keys.insert(key, keys);
        }
    }

    /// What a server is logged in to with, as `user` of the database: auth_file comes before auth_query.
    pub(super) fn secret(
        &self,
        settings: &Settings,
        database: &str,
        user: &str,
    ) -> (Option<Secret>, Option<ClientKeys>) {
        let keys = |database: Option<&str>| {
            let key = (database.map(str::to_owned), user.to_owned());
            self.keys.get(&key).map(|keys| keys.clone())
        };
        let listed = settings.users.secret(user).cloned();
        if listed.as_ref().is_some_and(|secret| *secret != Secret::None) {
            return (listed, keys(None));
        }
        let key = UserKey { database: database.to_owned(), user: user.to_owned() };
        match self.queries.secret(&key) {
            Some(found) => (Some(found.secret().clone()), keys(Some(database))),
            None => (listed, None),
        }
    }

    /// Users whom auth_query has found.
    pub(super) fn queries(&self) -> &AuthQueries {
        &self.queries
    }

    /// Users whose SCRAM keys are remembered, and how many may be.
    pub(super) fn keys(&self) -> (u64, u64) {
        (self.keys.len() as u64, MAX_KEYS as u64)
    }

    /// Closes connections that nobody has needed for a while.
    pub(super) fn maintain(&self) {
        self.queries.maintain(false);
    }

    /// The configuration has changed.
    pub(super) fn forget(&self) {
        self.queries.forget();
    }

    /// Asks a server for a user, as clients of `section` (or of the console) want it.
    pub(super) async fn find(
        &self,
        settings: &Settings,
        section: Option<&DatabaseConfig>,
        user: &str,
        again: bool,
        is_disabled: impl Fn(&str) -> bool,
    ) -> Result<Lookup, AuthQueryError> {
        let config = &settings.config;
        let main = &config.pgbouncer;
        let auth_user = match section {
            Some(section) => config.auth_user(section),
            None => main.auth_user.as_deref(),
        };
        let Some(auth_user) = auth_user.filter(|user| !user.is_empty()) else { return Ok(Lookup::Nobody) };
        let (named, query) = match section {
            Some(section) => (config.auth_dbname(section), config.auth_query(section)),
            None => (main.auth_dbname.as_deref(), main.auth_query.as_str()),
        };
        if let Some(name) = named.filter(|name| is_disabled(name)) {
            return Err(AuthQueryError::Disabled(name.to_owned()));
        }
        let own = || section.map(|section| section.name.as_str());
        let name = named.or_else(own).ok_or(AuthQueryError::Console)?;
        let asked = config.database(name).ok_or_else(|| AuthQueryError::NoDatabase(name.to_owned()))?;
        let question = Question {
            login: self.login(settings, &asked, auth_user),
            query: query.to_owned(),
            connect_timeout: settings.config.server_connect_timeout().min(LONGEST_CONNECT),
        };
        let database = section.map(|section| section.name.clone()).unwrap_or_default();
        let key = UserKey { database, user: user.to_owned() };
        let ttl = nanos(main.auth_query_cache_ttl);
        let answer = self.queries.find(key, question, ttl, again).await;
        let Answer { found, is_remembered } = answer.inspect_err(|error| {
            tracing::error!(db = name, "error in auth_query: {error}");
        })?;
        Ok(match found {
            None => Lookup::Unknown { by_scram: self.queries.finds_scram() },
            Some(found) => Lookup::Found(FoundUser {
                user: found.user.clone(),
                credentials: Arc::clone(&found.credentials),
                is_remembered,
            }),
        })
    }

    /// Nothing of a client, and no path on which the query's names could be found elsewhere.
    fn login(&self, settings: &Settings, section: &DatabaseConfig, auth_user: &str) -> Login {
        let section = member_section(section, MemberId(0)).unwrap_or(section);
        let is_its_own = section.user.as_deref().is_none_or(|user| user == auth_user);
        let own = section.password.as_ref().filter(|_| is_its_own).map(|password| Secret::parse(password.reveal()));
        let (listed, keys) = self.secret(settings, &section.name, auth_user);
        let mut parameters = login_parameters(section);
        parameters.push(("options".to_owned(), OPTIONS.to_owned()));
        Login {
            address: address(section, &settings.config),
            user: auth_user.to_owned(),
            secret: own.or(listed),
            keys,
            database: section.server_dbname().to_owned(),
            parameters,
            dialer: Dialer {
                resolver: Arc::clone(&self.resolver),
                socket: SocketOptions::of(&settings.config.pgbouncer),
            },
            tls: Arc::clone(&settings.tls.connect),
        }
    }
}

/// As long as `auth_query::QUERY_DEADLINE`.
const OPTIONS: &str = "-c search_path= -c statement_timeout=10000";
/// Where server_connect_timeout is off, a login has to end all the same.
const LONGEST_CONNECT: Duration = Duration::from_secs(60);
