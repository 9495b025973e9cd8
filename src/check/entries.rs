//! Which servers a configuration names, and as whom to log in there; pure.

use std::fmt;

use crate::{
    auth::{Secret, UserList},
    config::{CacheMode, Config, DatabaseConfig, Host, Lines, Location, ReadWriteSplit, ReplicaRole},
};

/// One host of one entry.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// `shop`, or `shop.r1`.
    pub(super) name: String,
    /// The entry of `[databases]` it belongs to.
    pub(super) database: String,
    pub(super) place: Option<Location>,
    /// Host name, address or socket directory.
    pub(super) host: String,
    pub(super) port: u16,
    /// The server's name for the database.
    pub(super) dbname: String,
    pub(super) whom: Whom,
    pub(super) is_replica: bool,
    pub(super) may_be_primary: bool,
    /// Routing or caching asks this server on its own account.
    pub(super) is_watched: bool,
    /// Writes that bypass the proxy shall be heard of there, through this publication.
    pub(super) publication: Option<String>,
}

/// As whom to log in.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Whom {
    /// This user, with the password if there is one.
    User(String, Option<String>),
    /// This user, of whom only a hash is known.
    HashOnly(String),
    /// Only clients bring users.
    Nobody,
}

/// Without the password.
impl fmt::Debug for Whom {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user, _) | Self::HashOnly(user) => write!(formatter, "Whom({user})"),
            Self::Nobody => formatter.write_str("Nobody"),
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({}:{})", self.name, self.host, self.port)
    }
}

/// All servers in the order of their names; the fallback entry names no database that one could log in to.
pub(super) fn entries(config: &Config, users: &UserList, lines: &Lines) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (name, database) in &config.databases {
        let place = lines.of_key(&["databases"], name);
        let whom = whom(config, database, users);
        let splits_reads = config.routing.read_write_split != ReadWriteSplit::Off && !database.replicas.is_empty();
        let is_watched = splits_reads || database.has_equals() || config.cache.enabled == CacheMode::On;
        let hears = config.cache.enabled != CacheMode::Off && config.cache.wal_invalidation;
        let publication = hears.then(|| config.cache.wal_publication.clone());
        let entry = |name: &str, place: &Option<Location>, parameters: &DatabaseConfig, host: Host<'_>| Entry {
            name: name.to_owned(),
            database: database.name.clone(),
            place: place.clone(),
            host: directory_or_name(config, host),
            port: parameters.port,
            dbname: parameters.server_dbname().to_owned(),
            whom: whom.clone(),
            is_replica: false,
            may_be_primary: true,
            is_watched,
            publication: publication.clone(),
        };
        entries.extend(database.hosts().map(|host| entry(name, &place, database, host)));
        for replica in &database.replicas {
            let name = format!("{name}.{}", replica.name);
            let place = lines.of_key(&["replicas"], &name);
            let may_be_primary = replica.role == ReplicaRole::Any;
            entries.extend(replica.parameters.hosts().map(|host| Entry {
                is_replica: true,
                may_be_primary,
                publication: None,
                ..entry(&name, &place, &replica.parameters, host)
            }));
        }
    }
    entries
}

fn directory_or_name(config: &Config, host: Host<'_>) -> String {
    match host {
        Host::Default => config.pgbouncer.unix_socket_dir.clone(),
        Host::Unix(host) | Host::Tcp(host) => host.to_owned(),
    }
}

/// The control plane's user: `[control]`, else the database's, else `auth_user`.
fn whom(config: &Config, database: &DatabaseConfig, users: &UserList) -> Whom {
    let control = config.control.user.as_deref().map(|user| (user, config.control.password.as_ref()));
    let own = || database.user.as_deref().map(|user| (user, database.password.as_ref()));
    let auth_user = || config.auth_user(database).map(|user| (user, None));
    let Some((user, password)) = control.or_else(own).or_else(auth_user) else {
        return Whom::Nobody;
    };
    let known = |password| Whom::User(user.to_owned(), password);
    match (password, users.secret(user)) {
        (Some(password), _) => known(Some(password.reveal().to_owned())),
        (None, Some(Secret::Plain(password))) => known(Some(password.to_string())),
        (None, Some(Secret::Md5(_) | Secret::Scram(_))) => Whom::HashOnly(user.to_owned()),
        (None, Some(Secret::None) | None) => known(None),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[track_caller]
    fn read(text: &str, users: &str) -> Vec<Entry> {
        let include = |_: &str| Err(io::ErrorKind::NotFound.into());
        let config = Config::parse(text, "p.ini", &|_| None, &include).unwrap();
        entries(&config, &UserList::parse(users), &Lines::read(std::path::Path::new("/nonexistent")))
    }

    #[track_caller]
    fn check_whom(text: &str, users: &str, expected: Whom) {
        assert!(read(text, users).iter().all(|entry| entry.whom == expected), "{:?}", read(text, users));
    }

    fn user(name: &str, password: Option<&str>) -> Whom {
        Whom::User(name.to_owned(), password.map(str::to_owned))
    }

    #[test]
    fn every_host_of_every_entry_is_a_server() {
        let text =
            "[databases]\nshop = host=a,b port=5433\n[replicas]\nshop.r1 = host=c\n[pgbouncer]\nauth_type = trust\n";
        let shown: Vec<_> = read(text, "").iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["shop (a:5433)", "shop (b:5433)", "shop.r1 (c:5433)"]);
    }

    #[test]
    fn the_control_user_comes_before_the_databases_and_that_before_auth_user() {
        let database =
            "[databases]\nshop = host=a user=app password=one\n[pgbouncer]\nauth_type = trust\nauth_user = asks\n";
        check_whom(database, "", user("app", Some("one")));
        check_whom(&format!("{database}[control]\nuser = watch\npassword = two\n"), "", user("watch", Some("two")));
        let plain = "[databases]\nshop = host=a\n[pgbouncer]\nauth_type = trust\n";
        check_whom(plain, "", Whom::Nobody);
        check_whom(&format!("{plain}auth_user = asks\n"), "\"asks\" \"three\"\n", user("asks", Some("three")));
    }

    #[test]
    fn routing_and_caching_watch_their_servers() {
        let watched = |text: &str| read(text, "").iter().all(|entry| entry.is_watched);
        let plain = "[databases]\nshop = host=a\n[pgbouncer]\nauth_type = trust\n";
        assert!(!watched(plain));
        assert!(!watched(&format!("{plain}[routing]\nread_write_split = 1\n")));
        assert!(watched(&format!("{plain}[routing]\nread_write_split = 1\n[replicas]\nshop.r1 = host=b\n")));
        assert!(watched(&format!("{plain}[cache]\nenabled = 1\n")));
    }

    #[test]
    fn a_hash_is_no_password_to_log_in_with() {
        let text = "[databases]\nshop = host=a user=app\n[pgbouncer]\nauth_type = trust\n";
        let hash = format!("\"app\" \"md5{}\"\n", "0".repeat(32));
        check_whom(text, &hash, Whom::HashOnly("app".to_owned()));
        check_whom(text, "", user("app", None));
    }
}
