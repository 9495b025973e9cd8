//! A server that ends with its owner.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::process::Command;

use super::{error::DemoError, scratch::Scratch};

const LONGEST_STOP: Duration = Duration::from_secs(5);
const LOG_LINES: usize = 30;

/// A running program; dropping it stops it and waits until it is gone.
pub(super) struct Process {
    name: &'static str,
    child: Child,
    stop: Signal,
    log: PathBuf,
}

impl Process {
    /// Starts a program that writes its log into the scratch directory and ends on `stop`.
    pub(super) fn start(
        name: &'static str,
        mut command: Command,
        stop: Signal,
        scratch: &Scratch,
    ) -> Result<Self, DemoError> {
        let log = scratch.write(&format!("{name}.log"), "")?;
        let open =
            || File::options().append(true).open(&log).map_err(DemoError::doing(format!("open the log of {name}")));
        let command = command.as_std_mut().stdout(open()?).stderr(open()?);
        let child = command.spawn().map_err(DemoError::doing(format!("start {name}")))?;
        Ok(Self { name, child, stop, log })
    }

    /// Its exit status, once it has ended.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The end of its log.
    pub(super) fn log(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default();
        format!("--- {}.log\n{}", self.name, tail.join("\n"))
    }

    /// It did not come up.
    pub(super) fn silent(&self) -> DemoError {
        DemoError::Silent { program: self.name.to_owned(), log: self.log() }
    }

    fn signal(&self, signal: Signal) {
        let Ok(id) = i32::try_from(self.child.id()) else {
            return;
        };
        // A process that has ended meanwhile is what is wanted.
        let _ended = kill(Pid::from_raw(id), signal);
    }

    fn ends_within(&mut self, longest: Duration) -> bool {
        let started = Instant::now();
        while self.ended().is_none() {
            if started.elapsed() > longest {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
        true
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_some() {
            return;
        }
        self.signal(self.stop);
        if !self.ends_within(LONGEST_STOP) {
            self.signal(Signal::SIGKILL);
            self.ends_within(LONGEST_STOP);
        }
    }
}
