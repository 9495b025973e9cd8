//! From what the files say to a `Config`.

use std::collections::BTreeMap;

use super::{
    Config, connect_string,
    entries::{DatabaseConfig, MemberSection, PeerConfig, ReplicaConfig, UserConfig},
    environment::{self, Environment},
    error::{ConfigError, Location, Problem},
    ini::{self, Event, ReadInclude},
    lifetime::LifetimeConfig,
    setting::Section,
    supported,
};

type Pairs = Vec<(String, String)>;

/// The section that lines belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum In {
    Main,
    Databases,
    Replicas,
    Users,
    Peers,
    CacheTtl,
    /// One of the sections that PgBouncer does not have.
    Own(&'static str),
}

impl In {
    fn named(name: &str) -> Option<In> {
        Some(match name {
            "pgbouncer" | "pgweir" => In::Main,
            "databases" => In::Databases,
            "replicas" => In::Replicas,
            "users" => In::Users,
            "peers" => In::Peers,
            "cache_ttl" => In::CacheTtl,
            _ => In::Own(Config::OWN_SECTIONS.into_iter().find(|own| *own == name)?),
        })
    }
}

/// An entry of `[replicas]`; it may stand before its database.
struct PendingReplica {
    location: Location,
    key: String,
    pairs: Pairs,
}

struct Reader<'a> {
    environment: Environment<'a>,
    config: Config,
    section: Option<In>,
    has_main: bool,
    replicas: Vec<PendingReplica>,
    /// Where our own keys were last set, for what can be checked only at the end.
    places: BTreeMap<String, Location>,
}

pub(super) fn read(
    text: &str,
    file: &str,
    environment: Environment<'_>,
    include: ReadInclude<'_>,
) -> Result<Config, ConfigError> {
    let mut reader = Reader {
        environment,
        config: Config::default(),
        section: None,
        has_main: false,
        replicas: Vec::new(),
        places: BTreeMap::new(),
    };
    ini::read(text, file, include, &mut |location, event| reader.take(location, event))?;
    reader.finish(file)
}

impl Reader<'_> {
    fn take(&mut self, location: &Location, event: Event<'_>) -> Result<(), Problem> {
        match event {
            Event::Section(name) => self.enter(name),
            Event::Pair { key, value } => self.pair(location, key, value),
        }
    }

    fn enter(&mut self, name: &str) -> Result<(), Problem> {
        let section = In::named(name).ok_or_else(|| {
            let own = Config::OWN_SECTIONS.join(", ");
            let expected = format!("a section (pgbouncer, databases, replicas, users, peers, cache_ttl, {own})");
            Problem::new(expected, format!("[{name}]"))
        })?;
        if section == In::Main {
            self.has_main = true;
            self.config.pgbouncer.reset();
        }
        self.section = Some(section);
        Ok(())
    }

    fn pair(&mut self, location: &Location, key: &str, value: &str) -> Result<(), Problem> {
        let section = self.section.ok_or_else(|| Problem::new("a [section] first", "a value").of(key))?;
        match section {
            In::Main => self.config.set_in_main(alias(key), value),
            In::Databases => self.database(key, value),
            In::Replicas => self.replica(location, key, value),
            In::Users => self.user(key, value),
            In::Peers => self.peer(key, value),
            In::CacheTtl => self.lifetime(key, value),
            In::Own(section) => self.own(location, section, key, value),
        }
    }

    fn own(&mut self, location: &Location, section: &str, key: &str, value: &str) -> Result<(), Problem> {
        let name = format!("{section}.{key}");
        let value = environment::replace(value, self.environment).map_err(|problem| problem.of(&name))?;
        self.config.set_in_own(section, key, &value)?;
        self.places.insert(name, location.clone());
        Ok(())
    }

    fn database(&mut self, name: &str, value: &str) -> Result<(), Problem> {
        if name.is_empty() {
            return Err(Problem::new("a name", "nothing"));
        }
        if supported::is_console(name) {
            return Err(Problem::new("a name that is not the console's", format!("`{name}`")).of(name));
        }
        let mut database = DatabaseConfig { name: name.to_owned(), ..DatabaseConfig::default() };
        for (key, value) in pairs(name, value)? {
            let value = match key.as_str() {
                "password" => environment::replace_whole(&value, self.environment),
                _ => Ok(value),
            };
            let value = value.map_err(|problem| problem.of(format!("{name}.{key}")))?;
            set(&mut database, name, &key, &value)?;
        }
        match name {
            DatabaseConfig::FALLBACK => self.config.fallback = Some(database),
            _ => drop(self.config.databases.insert(name.to_owned(), database)),
        }
        Ok(())
    }

    /// Only taken apart here: its database may follow.
    fn replica(&mut self, location: &Location, name: &str, value: &str) -> Result<(), Problem> {
        let mut pairs = pairs(name, value)?;
        for (key, value) in &mut pairs {
            let replaced = environment::replace(value, self.environment);
            *value = replaced.map_err(|problem| problem.of(format!("{name}.{key}")))?;
        }
        self.replicas.retain(|replica| replica.key != name);
        self.replicas.push(PendingReplica { location: location.clone(), key: name.to_owned(), pairs });
        Ok(())
    }

    fn user(&mut self, name: &str, value: &str) -> Result<(), Problem> {
        let mut user = UserConfig::default();
        for (key, value) in pairs(name, value)? {
            set(&mut user, name, &key, &value)?;
        }
        self.config.users.insert(name.to_owned(), user);
        Ok(())
    }

    fn peer(&mut self, name: &str, value: &str) -> Result<(), Problem> {
        let id = name.parse().ok().filter(|id| *id > 0);
        let id: u16 = id.ok_or_else(|| Problem::new("a peer id from 1 to 65535", format!("`{name}`")).of(name))?;
        let mut peer = PeerConfig::default();
        for (key, value) in pairs(name, value)? {
            set(&mut peer, name, &key, &value)?;
        }
        if peer.host.is_empty() {
            return Err(Problem::new("host=", "none").of(name));
        }
        self.config.peers.insert(id, peer);
        Ok(())
    }

    /// The last of two for the same holds, as everywhere.
    fn lifetime(&mut self, key: &str, value: &str) -> Result<(), Problem> {
        let value = environment::replace(value, self.environment).map_err(|problem| problem.of(key))?;
        let entry = LifetimeConfig::parse(key, &value)?;
        self.config.cache_ttl.retain(|known| known.subject != entry.subject);
        self.config.cache_ttl.push(entry);
        Ok(())
    }

    fn finish(mut self, file: &str) -> Result<Config, ConfigError> {
        if !self.has_main {
            let whole = Location { file: file.to_owned(), line: 0 };
            return Err(Problem::new("a section [pgbouncer]", "none").at(Some(whole)));
        }
        for pending in std::mem::take(&mut self.replicas) {
            let location = pending.location.clone();
            join(&mut self.config, pending).map_err(|problem| problem.at(Some(location)))?;
        }
        let together = self.config.check_together();
        together.map_err(|problem| {
            let place = problem.key.as_ref().and_then(|key| self.places.get(key));
            let place = place.cloned().unwrap_or(Location { file: file.to_owned(), line: 0 });
            problem.at(Some(place))
        })?;
        Ok(self.config)
    }
}

/// Adds a replica to its database.
fn join(config: &mut Config, pending: PendingReplica) -> Result<(), Problem> {
    let PendingReplica { key, pairs, .. } = pending;
    let (database, name) = key
        .rsplit_once('.')
        .filter(|(_, name)| !name.is_empty())
        .ok_or_else(|| Problem::new("database.replica", format!("`{key}`")).of(&key))?;
    let database = match database {
        DatabaseConfig::FALLBACK => config.fallback.as_mut(),
        name => config.databases.get_mut(name),
    }
    .ok_or_else(|| Problem::new("a database of [databases]", format!("`{database}`")).of(&key))?;
    let replica = replica(database, &key, name, &pairs)?;
    database.replicas.push(replica);
    Ok(())
}

fn replica(database: &DatabaseConfig, key: &str, name: &str, pairs: &Pairs) -> Result<ReplicaConfig, Problem> {
    let inherited = DatabaseConfig { host: String::new(), replicas: Vec::new(), ..database.clone() };
    let (mut parameters, mut member) = (inherited, MemberSection::default());
    for (parameter, value) in pairs {
        match MemberSection::setting(parameter) {
            Some(_) => set(&mut member, key, parameter, value)?,
            None => set(&mut parameters, key, parameter, value)?,
        }
    }
    if parameters.host.is_empty() {
        return Err(Problem::new("host=", "none").of(key));
    }
    let MemberSection { weight, max_lag, role } = member;
    Ok(ReplicaConfig { name: name.to_owned(), parameters, weight, max_lag, role })
}

fn pairs(name: &str, text: &str) -> Result<Pairs, Problem> {
    connect_string::parse(text).map_err(|problem| match &problem.key {
        Some(key) => {
            let key = format!("{name}.{key}");
            problem.of(key)
        }
        None => problem.of(name),
    })
}

/// One key of an entry, named `entry.key` in errors.
fn set<S: Section>(section: &mut S, entry: &str, key: &str, text: &str) -> Result<(), Problem> {
    let key = alias(key);
    section.set(key, text).map_err(|refused| refused.problem::<S>(format!("{entry}.{key}"), key, text))
}

/// Other names that PgBouncer knows.
fn alias(key: &str) -> &str {
    match key {
        "service_name" => "job_name",
        "reserve_pool" => "reserve_pool_size",
        key => key,
    }
}

#[cfg(test)]
mod tests;
