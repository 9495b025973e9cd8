//! The grammar of console commands. PgBouncer's own commands are read as its regular expressions
//! read them: words are `[0-9a-z_]+` in any case or `"quoted"`, one command a message, one `;`.

mod cursor;
mod show;

use self::cursor::Cursor;
pub use self::show::{RouteTarget, Show};
use super::ConsoleError;

/// A command, understood but not yet allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// SHOW, and its synonym SELECT.
    Show(Show),
    /// SET of a setting.
    Set {
        /// `key`, or `section.key`.
        key: String,
        /// As written, without its quotes.
        value: String,
    },
    /// SET of something drivers set at login; ignored with a notice.
    SetIgnored,
    /// Read the configuration again.
    Reload,
    /// Take servers away from a database, or from all.
    Pause(Option<String>),
    /// Undo PAUSE.
    Resume(Option<String>),
    /// Stop the process.
    Shutdown(Shutdown),
    /// Close clients and servers at once.
    Kill(Option<String>),
    /// Close one client; `None`: not a number.
    KillClient(Option<u64>),
    /// Replace server connections as they become free.
    Reconnect(Option<String>),
    /// Wait until replaced connections are gone.
    WaitClose(Option<String>),
    /// Refuse logins.
    Disable(Option<String>),
    /// Undo DISABLE.
    Enable(Option<String>),
    /// Flush buffers and stop reading.
    Suspend,
    /// Void cached answers.
    FlushCache(FlushTarget),
    /// Send nothing to a member.
    Ban(String),
    /// Undo BAN.
    Unban(String),
}

impl Command {
    /// For the log, without arguments: a value may be a secret.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Show(_) => "SHOW",
            Self::Set { .. } | Self::SetIgnored => "SET",
            Self::Reload => "RELOAD",
            Self::Pause(_) => "PAUSE",
            Self::Resume(_) => "RESUME",
            Self::Shutdown(_) => "SHUTDOWN",
            Self::Kill(_) => "KILL",
            Self::KillClient(_) => "KILL_CLIENT",
            Self::Reconnect(_) => "RECONNECT",
            Self::WaitClose(_) => "WAIT_CLOSE",
            Self::Disable(_) => "DISABLE",
            Self::Enable(_) => "ENABLE",
            Self::Suspend => "SUSPEND",
            Self::FlushCache(_) => "FLUSH CACHE",
            Self::Ban(_) => "BAN",
            Self::Unban(_) => "UNBAN",
        }
    }
}

/// When SHUTDOWN stops the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// At once.
    Immediate,
    /// When no server connection is busy.
    WaitForServers,
    /// When no client is left.
    WaitForClients,
}

/// Whose cached answers FLUSH CACHE voids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlushTarget {
    /// Everybody's.
    All,
    /// Of one database.
    Database(String),
    /// Those that used one table.
    Table {
        /// Name as clients use it.
        database: String,
        /// Schema of the table.
        schema: String,
        /// The table.
        table: String,
    },
}

/// What drivers ask or set without looking whether it is needed: name and answer.
pub const FAKED_PARAMETERS: [(&str, &str); 5] = [
    ("client_encoding", "UTF-8"),
    ("default_transaction_isolation", "read committed"),
    ("standard_conforming_strings", "on"),
    ("datestyle", "ISO"),
    ("timezone", "GMT"),
];

/// Reads one message.
pub fn parse(text: &str) -> Result<Command, ConsoleError> {
    read(Cursor::new(text)).ok_or_else(|| ConsoleError::invalid(text))
}

fn read(mut cursor: Cursor<'_>) -> Option<Command> {
    cursor.skip_space();
    let verb = cursor.word()?.to_ascii_lowercase();
    let command = match verb.as_str() {
        "show" | "select" => return show::read(cursor).map(Command::Show),
        "set" => return read_set(cursor),
        "reload" => Command::Reload,
        "suspend" => Command::Suspend,
        "shutdown" => Command::Shutdown(shutdown_mode(cursor.argument()?)?),
        "pause" => Command::Pause(cursor.argument()?),
        "resume" => Command::Resume(cursor.argument()?),
        "kill" => Command::Kill(cursor.argument()?),
        "reconnect" => Command::Reconnect(cursor.argument()?),
        "wait_close" => Command::WaitClose(cursor.argument()?),
        "disable" => Command::Disable(cursor.argument()?),
        "enable" => Command::Enable(cursor.argument()?),
        "kill_client" => Command::KillClient(cursor.argument()?.and_then(|id| id.parse().ok())),
        "ban" => Command::Ban(cursor.path_argument()?.join(".")),
        "unban" => Command::Unban(cursor.path_argument()?.join(".")),
        "flush" => Command::FlushCache(flush_target(&mut cursor)?),
        _ => return None,
    };
    cursor.is_at_end().then_some(command)
}

fn shutdown_mode(argument: Option<String>) -> Option<Shutdown> {
    match argument.map(|mode| mode.to_ascii_lowercase()).as_deref() {
        None => Some(Shutdown::Immediate),
        Some("wait_for_servers") => Some(Shutdown::WaitForServers),
        Some("wait_for_clients") => Some(Shutdown::WaitForClients),
        Some(_) => None,
    }
}

fn flush_target(cursor: &mut Cursor<'_>) -> Option<FlushTarget> {
    let what = cursor.argument()??;
    if !what.eq_ignore_ascii_case("cache") {
        return None;
    }
    if cursor.is_at_end() {
        return Some(FlushTarget::All);
    }
    match <[String; 3]>::try_from(cursor.path_argument()?) {
        Ok([database, schema, table]) => Some(FlushTarget::Table { database, schema, table }),
        Err(path) => match <[String; 1]>::try_from(path) {
            Ok([database]) => Some(FlushTarget::Database(database)),
            Err(_) => None,
        },
    }
}

fn read_set(mut cursor: Cursor<'_>) -> Option<Command> {
    let key = cursor.path_argument()?.join(".");
    cursor.skip_space();
    if !cursor.take("=") && !cursor.take_ignoring_case("to") {
        return None;
    }
    cursor.skip_space();
    let value = cursor.value()?;
    if !cursor.is_at_end() {
        return None;
    }
    let is_faked = FAKED_PARAMETERS.iter().any(|(name, _)| name.eq_ignore_ascii_case(&key));
    Some(if is_faked { Command::SetIgnored } else { Command::Set { key, value } })
}

#[cfg(test)]
mod tests;
