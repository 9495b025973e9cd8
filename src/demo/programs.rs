//! Where the programs of this machine are, and as whom they run.

use std::{
    cmp::Reverse,
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use nix::unistd::{Uid, User};
use tokio::process::Command;

use super::{error::DemoError, process::Process, scratch::Scratch};

const POSTGRES_PLACES: &str = "PATH and /usr/lib/postgresql/*/bin";

/// PostgreSQL and pgweir refuse root, so root runs them as somebody else.
pub(super) struct Programs {
    /// Directory of one PostgreSQL version's server programs.
    postgres: PathBuf,
    redis: Option<PathBuf>,
    runner: Option<User>,
}

impl Programs {
    pub(super) fn find() -> Result<Self, DemoError> {
        let needed = ["initdb", "postgres", "pg_basebackup"];
        let has_all = |directory: &PathBuf| needed.iter().all(|program| directory.join(program).is_file());
        let postgres =
            debian_directories().into_iter().chain(path_directories()).find(has_all).ok_or(DemoError::NotFound {
                program: "PostgreSQL's server",
                looked_in: POSTGRES_PLACES,
                package: "postgresql",
            })?;
        let mut redis = path_directories().into_iter().map(|directory| directory.join("redis-server"));
        let runner = Uid::effective().is_root().then(unprivileged).transpose()?;
        Ok(Self { postgres, redis: redis.find(|program| program.is_file()), runner })
    }

    pub(super) fn runner(&self) -> Option<&User> {
        self.runner.as_ref()
    }

    pub(super) fn postgres(&self, program: &str) -> PathBuf {
        self.postgres.join(program)
    }

    pub(super) fn redis(&self) -> Option<&Path> {
        self.redis.as_deref()
    }

    pub(super) async fn postgres_version(&self, scratch: &Scratch) -> Result<String, DemoError> {
        let mut command = self.command(&self.postgres("postgres"));
        command.arg("--version");
        Ok(Process::run("version", command, scratch).await?.trim().replace("postgres (PostgreSQL)", "PostgreSQL"))
    }

    /// A command of the servers' user without input, in a process group of its own; what the shell says about PostgreSQL does not reach it.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = std::process::Command::new(program);
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            command.env_remove(name);
        }
        // Ctrl-C in a terminal is for the demo alone: it stops the others in order.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdin(Stdio::null()).current_dir("/").env("LC_ALL", "C");
        let mut command = Command::from(command);
        if let Some(runner) = &self.runner {
            command.uid(runner.uid.as_raw()).gid(runner.gid.as_raw());
        }
        command
    }
}

fn unprivileged() -> Result<User, DemoError> {
    let named = |name| User::from_name(name).ok().flatten();
    named("postgres").or_else(|| named("nobody")).ok_or(DemoError::NobodyToRunAs)
}

fn path_directories() -> Vec<PathBuf> {
    env::var_os("PATH").map_or_else(Vec::new, |path| env::split_paths(&path).collect())
}

/// Newest version first.
fn debian_directories() -> Vec<PathBuf> {
    let entries = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version_of = |name: &str| name.split('.').next().and_then(|major| major.parse::<u32>().ok());
    let mut versions: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| Some((version_of(entry.file_name().to_str()?)?, entry.path().join("bin"))))
        .collect();
    versions.sort_by_key(|(version, _)| Reverse(*version));
    versions.into_iter().map(|(_, directory)| directory).collect()
}
