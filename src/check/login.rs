//! Logging in to one server.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use tokio::{
    net::{TcpStream, UnixStream},
    time::timeout,
};

use super::entries::{Entry, Whom};
use crate::{
    cluster::wal_preflight::{self, Lack},
    control::{ControlError, Deadlines, Session, Target},
    net::tls::ConnectTls,
};

pub(super) const LONGEST_STATEMENT: Duration = Duration::from_secs(5);

/// `pg_control_system()` may be closed to the user; nothing hangs on it.
const QUESTION: &str = "SELECT current_setting('server_version'), pg_is_in_recovery()";
const SYSTEM: &str = "SELECT system_identifier FROM pg_control_system()";

/// What a server is.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) version: String,
    pub(super) in_recovery: bool,
    pub(super) system_identifier: Option<u64>,
    /// Of what it takes to hear of writes that bypass the proxy.
    pub(super) lacks: Vec<Lack>,
}

impl fmt::Display for Member {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = if self.in_recovery { "replica" } else { "primary" };
        write!(formatter, "{role}, PostgreSQL {}", self.version)
    }
}

/// How far it went.
#[derive(Clone, Debug)]
pub(super) enum Login {
    /// Logged in.
    In(Member),
    /// It accepts connections; whether a login works, only a client could find out.
    Listens,
    /// Not even that, or not the login.
    Failed(String),
}

pub(super) async fn attempt(entry: &Entry, tls: &Arc<ConnectTls>, longest: Duration) -> Login {
    let outcome = match &entry.whom {
        Whom::User(user, password) => look(entry, user, password.clone(), tls, longest).await.map(Login::In),
        Whom::Nobody => reach(entry, longest).await.map(|()| Login::Listens),
        Whom::HashOnly(user) => Err(format!("auth_file has only a hash for {user}: set its password in [control]")),
    };
    outcome.unwrap_or_else(Login::Failed)
}

/// Where that is, and as whom.
pub(super) fn target(entry: &Entry, user: &str, password: Option<String>, tls: &Arc<ConnectTls>) -> Target {
    Target {
        host: entry.host.clone(),
        port: entry.port,
        database: entry.dbname.clone(),
        user: user.to_owned(),
        password,
        tls: Arc::clone(tls),
    }
}

async fn look(
    entry: &Entry,
    user: &str,
    password: Option<String>,
    tls: &Arc<ConnectTls>,
    longest: Duration,
) -> Result<Member, String> {
    let target = target(entry, user, password, tls);
    let deadlines = Deadlines { connect: longest, statement: LONGEST_STATEMENT };
    let asked = ask(&target, deadlines, entry.publication.as_deref());
    match timeout(longest + LONGEST_STATEMENT, asked).await {
        Ok(Ok(member)) => Ok(member),
        Ok(Err(error)) => Err(format!("cannot log in as {user}: {error}")),
        Err(_) => Err(format!("logged in as {user}, but no statement is answered")),
    }
}

async fn ask(target: &Target, deadlines: Deadlines, publication: Option<&str>) -> Result<Member, ControlError> {
    let session = Session::open(target, deadlines).await?;
    let client = session.client();
    let row = client.query_one(QUESTION, &[]).await?;
    let system = client.query_one(SYSTEM, &[]).await.ok();
    let lacks = match publication {
        Some(publication) => wal_preflight::look(client, publication).await?.lacks(publication),
        None => Vec::new(),
    };
    Ok(Member {
        lacks,
        version: row.try_get(0)?,
        in_recovery: row.try_get(1)?,
        system_identifier: system.and_then(|row| row.try_get::<_, i64>(0).ok()).map(i64::cast_unsigned),
    })
}

/// Whether somebody listens there.
async fn reach(entry: &Entry, longest: Duration) -> Result<(), String> {
    let connected = async {
        if entry.host.starts_with('/') {
            let socket = Path::new(&entry.host).join(format!(".s.PGSQL.{}", entry.port));
            UnixStream::connect(socket).await.map(drop)
        } else {
            TcpStream::connect((entry.host.as_str(), entry.port)).await.map(drop)
        }
    };
    match timeout(longest, connected).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("cannot connect: {error}")),
        Err(_) => Err(format!("cannot connect: no answer within {} s", longest.as_secs_f64())),
    }
}
