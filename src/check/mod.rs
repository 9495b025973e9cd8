//! `pgweir check CONFIG.ini`: what would go wrong, before it does.
//!
//! Loads the configuration, logs in to every server it names and says what is wrong, with the line to change.

mod authentication;
mod bus;
mod entries;
mod login;

use std::{fmt, io::Write, path::Path, sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task::JoinSet};

use self::{
    entries::{Entry, entries},
    login::{Login, Member},
};
use crate::{
    auth::UserList,
    config::{Config, ConfigError, Lines, Location},
    net::tls::{ConnectTls, TlsSetup, trusted_file},
};

/// Logins at the same time; a server that does not answer costs `server_connect_timeout`.
const LOGINS_AT_ONCE: usize = 8;

const LONGEST_LOGIN: Duration = Duration::from_secs(15);

/// One thing that is wrong.
struct Problem {
    place: Option<Location>,
    what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(formatter, "{place}: {}", self.what),
            None => formatter.write_str(&self.what),
        }
    }
}

/// Checks a configuration file; the exit code is 0 if nothing is wrong, else 1. Brings a runtime of its own.
pub fn run(file: &Path) -> u8 {
    let problems = match Config::load(file) {
        Ok(config) => check(file, &config),
        Err(error) => vec![Problem { place: None, what: error.to_string() }],
    };
    for problem in &problems {
        print(&mut std::io::stderr().lock(), format_args!("pgweir: {problem}"));
    }
    let verdict = match problems.len() {
        0 => "fine".to_owned(),
        1 => "1 problem".to_owned(),
        count => format!("{count} problems"),
    };
    print(&mut std::io::stdout().lock(), format_args!("{}: {verdict}", file.display()));
    u8::from(!problems.is_empty())
}

fn check(file: &Path, config: &Config) -> Vec<Problem> {
    let lines = Lines::read(file);
    let (users, mut problems) = users(config, &lines);
    let tls = TlsSetup::load(&config.pgbouncer).unwrap_or_else(|error| {
        let location = error.key.as_deref().and_then(|key| lines.of_main_key(key));
        problems.push(Problem { place: None, what: ConfigError { location, ..error }.to_string() });
        TlsSetup::default()
    });
    problems.extend(authentication::problems(config, &lines));
    let entries = entries(config, &users, &lines);
    if entries.is_empty() && config.fallback.is_none() {
        problems.push(Problem { place: lines.file(), what: "no database in [databases]".to_owned() });
    }
    for key in config.without_effect() {
        let place = match key.split_once('.') {
            Some((section, key)) => lines.of_key(&[section], key),
            None => lines.of_main_key(&key),
        };
        let note = Problem { place, what: format!("note: {key} has no effect in this version") };
        print(&mut std::io::stderr().lock(), format_args!("pgweir: {note}"));
    }
    for key in config.pgbouncer.asks_for_old_tls() {
        let what = format!("note: {key}: TLS 1.0 and 1.1 are not built, the newer versions are used");
        let note = Problem { place: lines.of_main_key(key), what };
        print(&mut std::io::stderr().lock(), format_args!("pgweir: {note}"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => {
            let deadline = longest_login(config);
            let primaries: Vec<_> = entries.iter().filter(|entry| !entry.is_replica).cloned().collect();
            problems.extend(runtime.block_on(log_in_everywhere(deadline, entries, Arc::clone(&tls.connect))));
            problems.extend(runtime.block_on(authentication::ask(config, &users, &lines, deadline, &tls.connect)));
            match runtime.block_on(redis(config, &lines)) {
                Some(problem) => problems.push(problem),
                None => {
                    problems.extend(runtime.block_on(bus::problems(config, &lines, &primaries, &tls.connect, deadline)))
                }
            }
        }
        Err(error) => problems.push(Problem { place: None, what: format!("cannot start a runtime: {error}") }),
    }
    problems
}

/// Does Redis let us in, if the cache is to use it?
async fn redis(config: &Config, lines: &Lines) -> Option<Problem> {
    const CA_FILE: &str = "redis_tls_ca_file";
    let problem = |key: &str, what: String| Problem { place: lines.of_key(&["cache"], key), what };
    let roots = match trusted_file(&format!("cache.{CA_FILE}"), &config.cache.redis_tls_ca_file) {
        Ok(roots) => roots,
        Err(error) => return Some(problem(CA_FILE, error.to_string())),
    };
    let settings = crate::proxy::wanted_level_two(&config.cache, roots)?;
    let outcome = crate::cache::shared::try_out(&settings).await;
    outcome.err().map(|error| problem("redis_url", format!("redis_url: {error}")))
}

/// `auth_file`, and what is wrong with it.
fn users(config: &Config, lines: &Lines) -> (UserList, Vec<Problem>) {
    let Some(name) = &config.pgbouncer.auth_file else {
        return (UserList::default(), Vec::new());
    };
    let text = match std::fs::read_to_string(name) {
        Ok(text) => text,
        Err(error) => {
            let what = format!("auth_file: expected a readable file, got {name}: {error}");
            return (UserList::default(), vec![Problem { place: lines.of_main_key("auth_file"), what }]);
        }
    };
    let users = UserList::parse(&text);
    let broken = users.broken_line().map(|line| Problem {
        place: Some(Location { file: name.clone(), line }),
        what: "expected \"user\" \"secret\"; this line and all after it are ignored".to_owned(),
    });
    (users, broken.into_iter().collect())
}

fn longest_login(config: &Config) -> Duration {
    let deadline = config.pgbouncer.server_connect_timeout;
    // 0 waits forever, and a check must come to an end.
    if deadline.is_zero() { LONGEST_LOGIN } else { deadline }
}

/// Every server in turn of the file, a few at the same time.
async fn log_in_everywhere(deadline: Duration, entries: Vec<Entry>, tls: Arc<ConnectTls>) -> Vec<Problem> {
    let turns = Arc::new(Semaphore::new(LOGINS_AT_ONCE));
    let mut logins = JoinSet::new();
    for (number, entry) in entries.into_iter().enumerate() {
        let (turns, tls) = (Arc::clone(&turns), Arc::clone(&tls));
        logins.spawn(async move {
            // The semaphore is never closed; without a turn the login would only be one more at the same time.
            let _turn = turns.acquire().await.ok();
            let login = login::attempt(&entry, &tls, deadline).await;
            (number, entry, login)
        });
    }
    let mut logins = logins.join_all().await;
    logins.sort_by_key(|(number, ..)| *number);
    let judged: Vec<_> = logins.into_iter().map(|(_, entry, login)| (entry, login)).collect();
    report(&judged)
}

/// Prints who answered and returns who did not, or is not what the file says.
fn report(logins: &[(Entry, Login)]) -> Vec<Problem> {
    let mut out = std::io::stdout().lock();
    let mut problems = Vec::new();
    for (entry, login) in logins {
        let primary = logins.iter().find_map(|(other, login)| match login {
            Login::In(member) if other.database == entry.database && !other.is_replica => Some(member),
            _ => None,
        });
        let what = match login {
            Login::In(member) => {
                print(&mut out, format_args!("{entry}: {member}"));
                for lack in &member.lacks {
                    let what =
                        format!("{entry}: {}{lack}", if lack.is_note() { "note: " } else { "wal_invalidation: " });
                    let problem = Problem { place: entry.place.clone(), what };
                    match lack.is_note() {
                        true => print(&mut std::io::stderr().lock(), format_args!("pgweir: {problem}")),
                        false => problems.push(problem),
                    }
                }
                misplaced(entry, member, primary)
            }
            Login::Listens if entry.is_watched => {
                Some("routing and caching ask the server: expected user= here or in [control], got none".to_owned())
            }
            Login::Listens => {
                print(&mut out, format_args!("{entry}: accepts connections; no user to log in as is configured"));
                None
            }
            Login::Failed(what) => Some(what.clone()),
        };
        let problem = |what| Problem { place: entry.place.clone(), what: format!("{entry}: {what}") };
        problems.extend(what.map(problem));
    }
    problems
}

fn misplaced(entry: &Entry, member: &Member, primary: Option<&Member>) -> Option<String> {
    if !entry.is_replica {
        return None;
    }
    let is_stranger = primary.is_some_and(|primary| {
        primary.system_identifier.zip(member.system_identifier).is_some_and(|(one, other)| one != other)
    });
    // A cluster of its own is what such a member is to be.
    let is_equal = entry.may_be_primary && !member.in_recovery;
    if is_stranger && !is_equal {
        return Some(format!("this is a server of another cluster than {}'s", entry.database));
    }
    (!member.in_recovery && !entry.may_be_primary).then(|| "this is no replica: it takes writes".to_owned())
}

/// A reader that went away is no reason to fail.
fn print(out: &mut impl Write, text: fmt::Arguments<'_>) {
    let _gone = writeln!(out, "{text}");
}

#[cfg(test)]
mod tests {
    use super::{entries::Whom, *};

    fn entry(is_replica: bool) -> Entry {
        Entry {
            name: if is_replica { "shop.r1" } else { "shop" }.to_owned(),
            database: "shop".to_owned(),
            place: None,
            host: "db1".to_owned(),
            port: 5432,
            dbname: "shop".to_owned(),
            whom: Whom::Nobody,
            is_replica,
            may_be_primary: false,
            is_watched: false,
            publication: None,
        }
    }

    fn member(in_recovery: bool, system_identifier: u64) -> Member {
        Member { version: "15.18".to_owned(), in_recovery, system_identifier: Some(system_identifier), lacks: vec![] }
    }

    #[track_caller]
    fn check(entry: &Entry, member: Member, expected: Option<&str>) {
        let primary = super::tests::member(false, 1);
        assert_eq!(misplaced(entry, &member, Some(&primary)).as_deref(), expected);
    }

    #[test]
    fn a_replica_must_be_one_and_of_the_same_cluster() {
        check(&entry(true), member(true, 1), None);
        check(&entry(true), member(false, 1), Some("this is no replica: it takes writes"));
        check(&entry(true), member(true, 2), Some("this is a server of another cluster than shop's"));
    }

    #[test]
    fn a_member_of_any_role_may_take_writes() {
        let any = Entry { may_be_primary: true, ..entry(true) };
        check(&any, member(false, 1), None);
        check(&any, member(false, 2), None);
        check(&any, member(true, 2), Some("this is a server of another cluster than shop's"));
    }

    #[test]
    fn a_primary_in_recovery_is_a_matter_of_failover_not_of_the_file() {
        check(&entry(false), member(true, 1), None);
    }
}
