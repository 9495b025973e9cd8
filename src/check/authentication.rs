//! Whether those who shall come in can: rules, and the query that finds users.

use std::{sync::Arc, time::Duration};

use super::Problem;
use crate::{
    auth::{Secret, UserList},
    config::{AuthType, Config, DatabaseConfig, Host, Lines},
    control::{Deadlines, Session, Target},
    net::tls::ConnectTls,
};

/// What the files alone show.
pub(super) fn problems(config: &Config, lines: &Lines) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Err(error) = crate::proxy::read_rules(config) {
        problems.push(Problem { place: None, what: error.to_string() });
    }
    for (name, database) in &config.databases {
        let place = lines.of_key(&["databases"], name);
        if config.pgbouncer.auth_type == AuthType::Any && database.user.is_none() {
            let what = "auth_type = any: expected user=, got none".to_owned();
            problems.push(Problem { place: place.clone(), what });
        }
        let asked = config.auth_user(database).and(config.auth_dbname(database));
        if let Some(asked) = asked.filter(|asked| config.database(asked).is_none()) {
            let what = format!("auth_dbname: expected a database of [databases], got {asked}");
            problems.push(Problem { place, what });
        }
    }
    problems
}

/// Runs auth_query once for each server, user and query that it would be asked of.
pub(super) async fn ask(
    config: &Config,
    users: &UserList,
    lines: &Lines,
    longest: Duration,
    tls: &Arc<ConnectTls>,
) -> Vec<Problem> {
    let mut problems: Vec<Problem> = Vec::new();
    let mut asked = Vec::new();
    for (name, database) in &config.databases {
        let Some(user) = config.auth_user(database) else { continue };
        let query = config.auth_query(database);
        let where_to = config.auth_dbname(database).unwrap_or(name);
        let Some(section) = config.database(where_to) else { continue };
        let Some(target) = target(config, &section, user, users, tls) else { continue };
        if asked.contains(&(target.clone(), query)) {
            continue;
        }
        if let Err(what) = ask_one(&target, query, longest).await {
            let place = lines.of_key(&["databases"], name);
            problems.push(Problem { place, what: format!("auth_query: {what}") });
        }
        asked.push((target, query));
    }
    problems
}

/// `None` where only a hash of the password is known, which is enough for pgweir itself.
fn target(
    config: &Config,
    section: &DatabaseConfig,
    user: &str,
    users: &UserList,
    tls: &Arc<ConnectTls>,
) -> Option<Target> {
    let is_its_own = section.user.as_deref().is_none_or(|own| own == user);
    let own = section.password.as_ref().filter(|_| is_its_own).map(|password| password.reveal().to_owned());
    let password = match (own, users.secret(user)) {
        (Some(password), _) => Some(password),
        (None, Some(Secret::Plain(password))) => Some(password.to_string()),
        (None, Some(Secret::Md5(_) | Secret::Scram(_))) => return None,
        (None, Some(Secret::None) | None) => None,
    };
    let host = match section.hosts().next()? {
        Host::Default => config.pgbouncer.unix_socket_dir.clone(),
        Host::Unix(host) | Host::Tcp(host) => host.to_owned(),
    };
    let (port, database) = (section.port, section.server_dbname().to_owned());
    Some(Target { host, port, database, user: user.to_owned(), password, tls: Arc::clone(tls) })
}

async fn ask_one(target: &Target, query: &str, longest: Duration) -> Result<(), String> {
    let deadlines = Deadlines { connect: longest, ..Deadlines::default() };
    let session = Session::open(target, deadlines).await.map_err(|error| error.to_string())?;
    let told = |error: tokio_postgres::Error| match error.as_db_error() {
        Some(error) => error.message().to_owned(),
        None => error.to_string(),
    };
    let asking = async {
        let client = session.client();
        client.batch_execute("SET search_path = ''").await.map_err(told)?;
        let statement = client.prepare(query).await.map_err(told)?;
        match (statement.columns().len(), statement.params().len()) {
            (2, 1) => client.query(&statement, &[&target.user]).await.map(drop).map_err(told),
            (2, parameters) => Err(format!("expected 1 parameter, got {parameters}")),
            (columns, _) => Err(format!("expected 2 columns, got {columns}")),
        }
    };
    let late = |_| "no answer in time".to_owned();
    tokio::time::timeout(deadlines.statement, asking).await.map_err(late)?
}
