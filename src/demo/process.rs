//! A program that ends with its owner.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{process::Command, time::sleep};

use super::{error::DemoError, scratch::Scratch};

const LONGEST_STOP: Duration = Duration::from_secs(5);
const LONGEST_ADOPTION: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
const LOG_LINES: usize = 30;

/// A running program with the programs that it runs itself; dropping it stops them and waits until they are gone.
pub(super) struct Process {
    name: String,
    child: Child,
    stop: Signal,
    log: PathBuf,
}

impl Process {
    /// Starts a program that leads a process group, writes its log into the scratch directory and ends on `stop`.
    pub(super) fn start(
        name: impl Into<String>,
        mut command: Command,
        stop: Signal,
        scratch: &Scratch,
    ) -> Result<Self, DemoError> {
        let name = name.into();
        let log = scratch.write(&format!("{name}.log"), "")?;
        let open =
            || File::options().append(true).open(&log).map_err(DemoError::doing(format!("open the log of {name}")));
        let command = command.as_std_mut().stdout(open()?).stderr(open()?);
        let child = command.spawn().map_err(DemoError::doing(format!("start {name}")))?;
        Ok(Self { name, child, stop, log })
    }

    /// Runs a program to its end and returns what it printed.
    pub(super) async fn run(name: &str, command: Command, scratch: &Scratch) -> Result<String, DemoError> {
        let mut process = Self::start(name, command, Signal::SIGKILL, scratch)?;
        loop {
            match process.ended() {
                Some(status) if status.success() => return Ok(process.output()),
                Some(_) => return Err(DemoError::Program { program: process.name.clone(), said: process.output() }),
                None => sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// Its exit status, once it has ended.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The end of its log.
    pub(super) fn log(&self) -> String {
        let text = self.output();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default();
        format!("--- {}.log\n{}", self.name, tail.join("\n"))
    }

    /// It did not come up.
    pub(super) fn silent(&self) -> DemoError {
        DemoError::Silent { program: self.name.clone(), log: self.log() }
    }

    fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn signal(&self, signal: impl Into<Option<Signal>>) -> nix::Result<()> {
        let group = i32::try_from(self.child.id()).map_err(|_| nix::Error::ESRCH)?;
        killpg(Pid::from_raw(group), signal)
    }

    fn ends_within(&mut self, longest: Duration) -> bool {
        let started = Instant::now();
        while self.ended().is_none() {
            if started.elapsed() > longest {
                return false;
            }
            thread::sleep(LOOK_AGAIN);
        }
        // Whoever adopted the others may take his time to notice that they are dead, or never do it.
        let started = Instant::now();
        while self.signal(None).is_ok() && started.elapsed() < LONGEST_ADOPTION {
            thread::sleep(LOOK_AGAIN);
        }
        true
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_some() && self.signal(None).is_err() {
            return;
        }
        // Those that have ended meanwhile are what is wanted.
        let _ended = self.signal(self.stop);
        if !self.ends_within(LONGEST_STOP) {
            let _ended = self.signal(Signal::SIGKILL);
            self.ends_within(LONGEST_STOP);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::demo::programs::Programs;

    fn is_running(id: &str) -> bool {
        let state = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // Whoever adopted it may not have noticed its end yet.
        !state.is_empty() && !state.contains(") Z ")
    }

    #[tokio::test]
    async fn an_interrupted_program_takes_the_programs_that_it_runs_with_it() {
        let programs = Programs::find().unwrap();
        let scratch = Scratch::create(programs.runner()).unwrap();
        let mut shell = programs.command("/bin/sh".as_ref());
        let note = scratch.path("started");
        shell.args(["-c", "sleep 600 & echo $! >$0.new; mv $0.new $0; wait"]).arg(&note);
        let started = async {
            while !note.exists() {
                tokio::task::yield_now().await;
            }
        };
        // Cancel safe: the program ends with its future, which is what is tried here.
        tokio::select! {
            ended = Process::run("shell", shell, &scratch) => panic!("{ended:?}"),
            outcome = timeout(Duration::from_secs(30), started) => outcome.unwrap(),
        }
        let id = fs::read_to_string(&note).unwrap();
        assert!(!is_running(id.trim()), "{id}");
    }

    #[tokio::test]
    async fn what_a_program_printed_is_returned_and_is_the_error_when_it_fails() {
        let programs = Programs::find().unwrap();
        let scratch = Scratch::create(programs.runner()).unwrap();
        let shell = |script| {
            let mut shell = programs.command("/bin/sh".as_ref());
            shell.args(["-c", script]);
            shell
        };
        assert_eq!(Process::run("good", shell("echo done"), &scratch).await.unwrap(), "done\n");
        let error = Process::run("bad", shell("echo no room >&2; exit 3"), &scratch).await.unwrap_err();
        assert_eq!(error.to_string(), "bad failed\nno room\n");
    }
}
