//! The console: the virtual database `pgbouncer`, reachable as `pgweir` too. Grammar, tables and
//! messages are pure; what happens, happens behind [`ConsoleState`].

pub mod command;
mod error;
pub mod reply;
pub mod rows;
mod session;
pub mod show;
mod state;
mod table;

use std::sync::Arc;

use tokio::sync::Notify;

use self::{
    command::{Command, Show},
    rows::PauseState,
};
pub use self::{
    error::ConsoleError,
    session::{ConsoleSession, Next},
    state::{Act, ConsoleState, PauseTicket},
    table::{Cell, Column, Table, Type},
};

/// First line of `--version`; tools look for PgBouncer's version in it.
pub const VERSION: &str = concat!("PgBouncer 1.25.2 (pgweir ", env!("CARGO_PKG_VERSION"), ")");

/// Names under which clients reach the console.
pub const DATABASES: [&str; 2] = ["pgbouncer", "pgweir"];

/// ParameterStatus messages after login.
pub const LOGIN_PARAMETERS: [(&str, &str); 7] = [
    ("server_version", "1.25.2/bouncer"),
    ("client_encoding", "UTF8"),
    ("server_encoding", "UTF8"),
    ("DateStyle", "ISO"),
    ("TimeZone", "GMT"),
    ("standard_conforming_strings", "on"),
    ("is_superuser", "on"),
];

/// What somebody logged in to the console may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// `admin_users`, or the process' own user over the unix socket.
    Admin,
    /// `stats_users`: SHOW, and what drivers set at login.
    Stats,
}

/// A NOTICE before the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Field `M`.
    pub message: &'static str,
    /// Field `D`.
    pub detail: Option<&'static str>,
}

/// What a command came to; `reply` makes messages of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Rows.
    Table(Table),
    /// Carried out.
    Done {
        /// Of CommandComplete.
        tag: String,
        /// Sent before it.
        notice: Option<Notice>,
    },
    /// Not carried out; the session lives on.
    Failed(ConsoleError),
    /// No answer: the process is about to end, and the connection with it.
    Silent,
}

/// Runs commands against the process.
#[derive(Clone)]
pub struct Console {
    state: Arc<dyn ConsoleState>,
}

impl Console {
    /// A console over this process.
    pub fn new(state: Arc<dyn ConsoleState>) -> Self {
        Self { state }
    }

    /// The columns the answer to `text` will have, for Describe; `None`: no rows.
    pub fn columns(&self, text: &str) -> Option<&'static [Column]> {
        match command::parse(text) {
            Ok(Command::Show(show)) => show::columns(&show, self.state.stats_columns()),
            _ => None,
        }
    }

    /// Reads and carries out one command. What waits, as PAUSE and WAIT_CLOSE do, is given up when `cancelled` is
    /// notified, as by ^C in psql; a PAUSE is taken back then. Dropping the future takes nothing back.
    pub async fn run(&self, text: &str, privilege: Privilege, cancelled: &Notify) -> Outcome {
        match command::parse(text) {
            Ok(command) => self.carry_out(command, privilege, cancelled).await.unwrap_or_else(Outcome::Failed),
            Err(error) => Outcome::Failed(error),
        }
    }

    async fn carry_out(
        &self,
        command: Command,
        privilege: Privilege,
        cancelled: &Notify,
    ) -> Result<Outcome, ConsoleError> {
        match command {
            Command::Show(Show::Help) => Ok(done("SHOW", Some(HELP))),
            Command::Show(Show::Fds) => {
                require_admin(privilege)?;
                Err(ConsoleError::NotSupported)
            }
            Command::Show(show) => Ok(Outcome::Table(show::table(&show, &*self.state)?)),
            Command::SetIgnored => Ok(done("SET", Some(SET_IGNORED))),
            command => {
                require_admin(privilege)?;
                tracing::info!(command = command.verb(), "console command issued");
                self.control_until(command, cancelled).await
            }
        }
    }

    async fn control_until(&self, command: Command, cancelled: &Notify) -> Result<Outcome, ConsoleError> {
        match &command {
            Command::Pause(database) => self.pause(database.as_deref(), cancelled).await?,
            Command::Suspend => self.suspend(cancelled).await?,
            _ => return self.control_until_done(command, cancelled).await,
        }
        Ok(done(command.verb(), None))
    }

    async fn control_until_done(&self, command: Command, cancelled: &Notify) -> Result<Outcome, ConsoleError> {
        // Both branches are cancel safe: what was begun goes on, only the wait for it ends.
        tokio::select! {
            biased;
            outcome = self.control(command) => outcome,
            () = cancelled.notified() => Err(ConsoleError::Cancelled),
        }
    }

    async fn control(&self, command: Command) -> Result<Outcome, ConsoleError> {
        let tag = command.verb();
        match &command {
            Command::Set { key, value } => {
                self.state.set(key, value).await?;
                return Ok(done(format!("SET {key}={value}"), None));
            }
            Command::Shutdown(command::Shutdown::Immediate) => {
                self.state.shutdown(command::Shutdown::Immediate).await?;
                return Ok(Outcome::Silent);
            }
            command => self.act(command)?.await?,
        }
        Ok(done(tag, None))
    }

    /// The call behind each verb, its arguments checked as PgBouncer checks them.
    fn act<'a>(&'a self, command: &'a Command) -> Result<Act<'a>, ConsoleError> {
        let state = &*self.state;
        Ok(match command {
            Command::Show(_) | Command::SetIgnored | Command::Set { .. } | Command::Pause(_) | Command::Suspend => {
                return Err(ConsoleError::NotSupported);
            }
            Command::Reload => state.reload(),
            Command::Resume(database) => state.resume(database.as_deref()),
            Command::Shutdown(mode) => state.shutdown(*mode),
            Command::Kill(database) => {
                self.not_while_paused()?;
                state.kill(not_the_console("kill", database)?)
            }
            Command::KillClient(id) => state.kill_client(id.ok_or(ConsoleError::InvalidClientPointer)?),
            Command::Reconnect(name) => state.reconnect(not_the_console("reconnect", name)?),
            Command::WaitClose(name) => state.wait_close(not_the_console("wait in", name)?),
            Command::Disable(name) => state.disable(named(not_the_console("disable", name)?)?),
            Command::Enable(name) => state.enable(named(not_the_console("enable", name)?)?),
            Command::FlushCache(target) => state.flush_cache(target),
            Command::Ban(member) => state.ban(member),
            Command::Unban(member) => state.unban(member),
        })
    }

    async fn pause(&self, database: Option<&str>, cancelled: &Notify) -> Result<(), ConsoleError> {
        self.not_while_paused()?;
        refuse_console("pause", database)?;
        let ticket = self.state.pause(database)?;
        self.settle(self.state.paused(&ticket), &ticket, cancelled).await
    }

    async fn suspend(&self, cancelled: &Notify) -> Result<(), ConsoleError> {
        let ticket = self.state.suspend()?;
        self.settle(self.state.suspended(&ticket), &ticket, cancelled).await
    }

    async fn settle(&self, act: Act<'_>, ticket: &PauseTicket, cancelled: &Notify) -> Result<(), ConsoleError> {
        // Both branches are cancel safe: the pause is in force, only the wait ends.
        tokio::select! {
            biased;
            outcome = act => outcome,
            () = cancelled.notified() => {
                self.state.take_back_pause(ticket);
                Err(ConsoleError::Cancelled)
            }
        }
    }

    fn not_while_paused(&self) -> Result<(), ConsoleError> {
        match self.state.pause_state() {
            PauseState::Active => Ok(()),
            PauseState::Paused | PauseState::Suspended => Err(ConsoleError::AlreadyPaused),
        }
    }
}

fn require_admin(privilege: Privilege) -> Result<(), ConsoleError> {
    match privilege {
        Privilege::Admin => Ok(()),
        Privilege::Stats => Err(ConsoleError::AdminNeeded),
    }
}

fn not_the_console<'a>(verb: &'static str, database: &'a Option<String>) -> Result<Option<&'a str>, ConsoleError> {
    refuse_console(verb, database.as_deref())?;
    Ok(database.as_deref())
}

fn refuse_console(verb: &'static str, database: Option<&str>) -> Result<(), ConsoleError> {
    match database {
        Some(name) if DATABASES.contains(&name) => Err(ConsoleError::ConsoleDatabase(verb, name.to_owned())),
        _ => Ok(()),
    }
}

fn named(database: Option<&str>) -> Result<&str, ConsoleError> {
    database.ok_or(ConsoleError::DatabaseRequired)
}

fn done(tag: impl Into<String>, notice: Option<Notice>) -> Outcome {
    Outcome::Done { tag: tag.into(), notice }
}

const SET_IGNORED: Notice = Notice { message: "SET ignored", detail: None };

const HELP: Notice = Notice {
    message: "Console usage",
    detail: Some(
        "
\tSHOW HELP|CONFIG|DATABASES|POOLS|CLIENTS|SERVERS|USERS|VERSION
\tSHOW PEERS|PEER_POOLS
\tSHOW FDS|SOCKETS|ACTIVE_SOCKETS|LISTS|MEM|STATE
\tSHOW DNS_HOSTS|DNS_ZONES
\tSHOW STATS|STATS_TOTALS|STATS_AVERAGES|TOTALS
\tSHOW REPLICAS|CACHE|CACHE TABLES|PINS
\tSHOW QUERIES [<rows>]
\tSHOW SLOW [<rows>]
\tSHOW ROUTE [FOR <db>[/<user>]] <sql>
\tSET key = arg
\tRELOAD
\tPAUSE [<db>]
\tRESUME [<db>]
\tDISABLE <db>
\tENABLE <db>
\tRECONNECT [<db>]
\tKILL [<db>]
\tKILL_CLIENT <client_id>
\tSUSPEND
\tFLUSH CACHE [<db>[.<schema>.<table>]]
\tBAN <member>
\tUNBAN <member>
\tSHUTDOWN
\tSHUTDOWN WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS
\tWAIT_CLOSE [<db>]",
    ),
};

#[cfg(test)]
mod tests;
