//! What a process has to do with its surroundings: user, pidfile, errors at start.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use nix::unistd::{Pid, Uid, User, initgroups, setgid, setuid};

use super::Options;
use crate::config::{Config, ConfigError};

/// The process cannot start, or cannot reload.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// A file is wrong.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// As PgBouncer.
    #[error("PgBouncer should not run as root")]
    Root,
    /// `user=` names nobody.
    #[error("user {0}: no such user")]
    NoSuchUser(String),
    /// Not allowed to become that user.
    #[error("cannot become user {user}: {source}")]
    Become {
        /// Whom.
        user: String,
        /// Why.
        #[source]
        source: nix::Error,
    },
    /// Another process has the pidfile.
    #[error("pidfile '{0}' exists, another instance running?")]
    PidFileTaken(PathBuf),
    /// `-d` without one: nobody could find the process again.
    #[error("daemon needs pidfile configured")]
    PidFileNeeded,
    /// `-R` without a unix socket: there is no way to the running process.
    #[error("cannot reboot if unix dir not configured")]
    NoSocketToTakeOver,
    /// `-R`: the running process serves on.
    #[error("cannot take over from the running process: {0}")]
    TakeOver(#[source] io::Error),
    /// Going to the background.
    #[error("cannot become a daemon: {0}")]
    Daemon(#[source] nix::Error),
    /// The pidfile cannot be written.
    #[error("pidfile {path}: {source}")]
    PidFile {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `logfile` cannot be opened.
    #[error("logfile: {0}")]
    Log(#[source] io::Error),
    /// Nobody would be accepted any more.
    #[error("an accept loop has ended")]
    AcceptEnded,
    /// `slow_query_log` cannot be opened.
    #[error("slow_query_log: {0}")]
    SlowLog(#[source] io::Error),
    /// Redis cannot be level two of the cache.
    #[error("{0}")]
    LevelTwo(#[source] crate::cache::shared::SharedError),
    /// No thread, no runtime.
    #[error("runtime: {0}")]
    Runtime(#[source] io::Error),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Neither TCP nor a unix socket.
    #[error("nowhere to listen on")]
    NowhereToListen,
    /// Routing and caching ask the servers, and nobody is named who may.
    #[error("database {0}: [control] user or user= is needed for routing and caching")]
    NoControlUser(String),
    /// The control plane cannot be built.
    #[error("database {database}: {source}")]
    Control {
        /// Whose.
        database: String,
        /// Why.
        #[source]
        source: crate::control::ControlError,
    },
    /// The operating system gives no random numbers.
    #[error("the operating system gives no random numbers")]
    Random,
}

/// Leaves root behind, or refuses to stay it.
pub(super) fn become_user(options: &Options, config: &Config) -> Result<(), ProcessError> {
    let name = options.user.clone().or_else(|| config.pgbouncer.user.clone());
    let Some(name) = name else {
        return if Uid::effective().is_root() { Err(ProcessError::Root) } else { Ok(()) };
    };
    if !Uid::effective().is_root() {
        return Ok(());
    }
    let user = User::from_name(&name).ok().flatten().ok_or_else(|| ProcessError::NoSuchUser(name.clone()))?;
    if user.uid.is_root() {
        return Err(ProcessError::Root);
    }
    let denied = |source| ProcessError::Become { user: name.clone(), source };
    let c_name = std::ffi::CString::new(name.as_str()).map_err(|_| ProcessError::NoSuchUser(name.clone()))?;
    initgroups(&c_name, user.gid).map_err(denied)?;
    setgid(user.gid).map_err(denied)?;
    setuid(user.uid).map_err(denied)
}

/// Goes to the background: nobody waits for it, no terminal belongs to it, its three standard descriptors lead nowhere.
/// The working directory stays, because relative names are meant from there. Only before any thread runs: a fork copies
/// none but the calling one.
pub(super) fn daemonise(options: &Options, config: &Config) -> Result<(), ProcessError> {
    if config.pgbouncer.pidfile.is_empty() {
        return Err(ProcessError::PidFileNeeded);
    }
    nix::unistd::daemon(true, false).map_err(ProcessError::Daemon)?;
    (options.forked)();
    Ok(())
}

/// Whether a process of this number runs, whosever it is.
fn runs(pid: i32) -> bool {
    pid <= 0 || nix::sys::signal::kill(Pid::from_raw(pid), None) != Err(nix::Error::ESRCH)
}

/// Refuses to start beside a running process; what a dead one has left is removed. A file that names no process is
/// taken for one that is being written.
pub(super) fn check_pidfile(config: &Config) -> Result<(), ProcessError> {
    let Some(path) = super::path_of(&config.pgbouncer.pidfile) else { return Ok(()) };
    let failed = |source| ProcessError::PidFile { path: path.clone(), source };
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text.map_err(failed)?,
    };
    if text.trim().parse().map_or(true, runs) {
        return Err(ProcessError::PidFileTaken(path));
    }
    tracing::info!("stale pidfile, removing");
    fs::remove_file(&path).map_err(failed)
}

/// The file with the number of this process, as long as it is the one that serves.
#[derive(Debug)]
pub(super) struct PidFile {
    path: Option<PathBuf>,
    is_ours: AtomicBool,
}

impl PidFile {
    pub(super) fn new(config: &Config) -> Self {
        Self { path: super::path_of(&config.pgbouncer.pidfile), is_ours: AtomicBool::new(false) }
    }

    /// Writes the number of the calling process into a file that is not there yet.
    pub(super) fn write(&self) -> Result<(), ProcessError> {
        let Some(path) = &self.path else { return Ok(()) };
        let written = File::create_new(path).and_then(|mut file| writeln!(file, "{}", std::process::id()));
        written.map_err(|source| ProcessError::PidFile { path: path.clone(), source })?;
        self.is_ours.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Writes the number of the calling process, whatever is in the file.
    pub(super) fn replace(&self) -> Result<(), ProcessError> {
        let Some(path) = &self.path else { return Ok(()) };
        let written = fs::write(path, format!("{}\n", std::process::id()));
        written.map_err(|source| ProcessError::PidFile { path: path.clone(), source })?;
        self.is_ours.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Removes it, if it is ours.
    pub(super) fn remove(&self) {
        let ours = self.path.as_ref().filter(|_| self.is_ours.swap(false, Ordering::Relaxed));
        if let Some(path) = ours
            && let Err(error) = fs::remove_file(path)
        {
            tracing::warn!(%error, "pidfile not removed");
        }
    }
}
