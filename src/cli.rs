//! What the command line may say: PgBouncer's flags, and subcommands of our own.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand, error::ErrorKind};

use crate::config::value::SettingValue;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// Serve.
    Run(RunOptions),
    /// Load the configuration and log in to every server.
    Check {
        /// The configuration file.
        config: PathBuf,
    },
    /// A throw-away cluster with sample traffic.
    Demo {
        /// When to end; `None`: when interrupted.
        duration: Option<Duration>,
        /// Where to listen; `None`: 6432, or any other port if that is taken.
        port: Option<u16>,
    },
    /// Print the reference configuration.
    Reference,
    /// The performance report of a running process.
    Report {
        /// Its configuration file.
        config: PathBuf,
        /// As a page, not as text.
        html: bool,
    },
    /// Print this on standard output and end well: help or version.
    Print(String),
}

/// How to serve: PgBouncer's flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// The configuration file.
    pub config: PathBuf,
    /// `-d`: in the background.
    pub daemon: bool,
    /// `-q`: nothing on standard error.
    pub quiet: bool,
    /// `-v`, as often as given.
    pub verbose: u8,
    /// `-u`: the user to become.
    pub user: Option<String>,
    /// `-R`: take over from the running process.
    pub reboot: bool,
}

/// A command line that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError {
    /// For standard error, line feed included.
    pub message: String,
    /// 1 for PgBouncer's part of the command line, 2 for a subcommand.
    pub exit_code: u8,
}

/// The first line answers tools that look for PgBouncer.
pub fn version() -> String {
    format!("PgBouncer 1.25.2 (pgweir {})", env!("CARGO_PKG_VERSION"))
}

#[derive(Parser)]
#[command(
    name = "pgweir",
    about = "pgweir stands between applications and PostgreSQL: it pools, routes, caches and explains.",
    override_usage = "pgweir [OPTION]... CONFIG_FILE\n       pgweir COMMAND",
    disable_version_flag = true,
    disable_help_subcommand = true,
    infer_long_args = true,
    args_override_self = true,
    args_conflicts_with_subcommands = true,
    subcommand_precedence_over_arg = true
)]
struct CommandLine {
    #[command(flatten)]
    run: Run,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Args)]
struct Run {
    /// Run in background (as a daemon)
    #[arg(short, long)]
    daemon: bool,
    /// Run quietly
    #[arg(short, long)]
    quiet: bool,
    /// Do an online reboot
    #[arg(short = 'R', long)]
    reboot: bool,
    /// Assume identity of USERNAME
    #[arg(short, long, value_name = "USERNAME")]
    user: Option<String>,
    /// Increase verbosity
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
    /// Show version, then exit
    #[arg(short = 'V', long)]
    version: bool,
    /// pgbouncer.ini
    #[arg(value_name = "CONFIG_FILE")]
    config: Vec<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Load everything, log in to every server, and print what is wrong
    Check {
        /// The configuration file
        #[arg(value_name = "CONFIG_FILE")]
        config: PathBuf,
    },
    /// Start a throw-away cluster with pgweir in front and sample traffic
    Demo {
        /// End by itself after so many seconds
        #[arg(long, value_name = "SECONDS", value_parser = seconds)]
        duration: Option<Duration>,
        /// Listen on this port instead of 6432
        #[arg(long)]
        port: Option<u16>,
    },
    /// Print the reference configuration
    Reference,
    /// Print the performance report of a running pgweir
    Report {
        /// As a page, not as text
        #[arg(long)]
        html: bool,
        /// The configuration file
        #[arg(value_name = "CONFIG_FILE")]
        config: PathBuf,
    },
}

/// `30`, `0.5`, and with the unit written out: `30s`.
fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text);
    Duration::parse(number).ok_or_else(|| format!("expected {}", Duration::EXPECTED))
}

/// Reads a command line; `arguments` begins with the program's name.
pub fn parse<I, T>(arguments: I) -> Result<Invocation, UsageError>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    match CommandLine::try_parse_from(&arguments) {
        Ok(CommandLine { command: Some(command), .. }) => Ok(command.into()),
        Ok(CommandLine { run, .. }) => run.invocation(),
        Err(error) if error.kind() == ErrorKind::DisplayHelp => Ok(Invocation::Print(error.to_string())),
        Err(error) => Err(UsageError::from_clap(&error, is_command(&arguments))),
    }
}

/// Whether the first argument names a subcommand.
fn is_command(arguments: &[OsString]) -> bool {
    let first = arguments.get(1).and_then(|first| first.to_str());
    first.is_some_and(|first| ["check", "demo", "reference", "report"].contains(&first))
}

impl Run {
    fn invocation(self) -> Result<Invocation, UsageError> {
        if self.version {
            return Ok(Invocation::Print(version() + "\n"));
        }
        let Ok([config]) = <[PathBuf; 1]>::try_from(self.config) else {
            return Err(UsageError::new("no configuration file specified", 1));
        };
        let Run { daemon, quiet, reboot, user, verbose, .. } = Run { config: Vec::new(), ..self };
        Ok(Invocation::Run(RunOptions { config, daemon, quiet, verbose, user, reboot }))
    }
}

impl From<Command> for Invocation {
    fn from(command: Command) -> Invocation {
        match command {
            Command::Check { config } => Invocation::Check { config },
            Command::Demo { duration, port } => Invocation::Demo { duration, port },
            Command::Reference => Invocation::Reference,
            Command::Report { html, config } => Invocation::Report { config, html },
        }
    }
}

impl UsageError {
    fn new(message: &str, exit_code: u8) -> UsageError {
        let message = format!("pgweir: {message}\nTry \"pgweir --help\" for more information.\n");
        UsageError { message, exit_code }
    }

    /// What clap says, in one line.
    fn from_clap(error: &clap::Error, is_command: bool) -> UsageError {
        let text = error.to_string();
        let lines = text.lines().take_while(|line| !line.is_empty());
        let line = lines.map(str::trim).collect::<Vec<_>>().join(" ");
        let message = line.strip_prefix("error: ").unwrap_or(&line);
        UsageError::new(message, if is_command { 2 } else { 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The only place that reads a command line; a usage error is its exit code.
    #[track_caller]
    fn check(line: &str, expected: Result<Invocation, u8>) {
        let arguments = ["pgweir"].into_iter().chain(line.split_whitespace());
        assert_eq!(parse(arguments).map_err(|error| error.exit_code), expected, "{line}");
    }

    fn run() -> RunOptions {
        RunOptions { config: PathBuf::from("a.ini"), ..RunOptions::default() }
    }

    #[test]
    fn the_flags_of_pgbouncer_mean_what_they_mean_there() {
        check("a.ini", Ok(Invocation::Run(run())));
        check("-d -q a.ini", Ok(Invocation::Run(RunOptions { daemon: true, quiet: true, ..run() })));
        check("a.ini -vvv", Ok(Invocation::Run(RunOptions { verbose: 3, ..run() })));
        check("-v --verbose a.ini", Ok(Invocation::Run(RunOptions { verbose: 2, ..run() })));
        check("-Ru pg a.ini", Ok(Invocation::Run(RunOptions { reboot: true, user: Some("pg".into()), ..run() })));
        check("--user=pg a.ini", Ok(Invocation::Run(RunOptions { user: Some("pg".into()), ..run() })));
        check("-q -q a.ini", Ok(Invocation::Run(RunOptions { quiet: true, ..run() })));
        check("--daem a.ini", Ok(Invocation::Run(RunOptions { daemon: true, ..run() })));
    }

    #[test]
    fn exactly_one_file_must_be_named() {
        check("", Err(1));
        check("-d", Err(1));
        check("a.ini b.ini", Err(1));
    }

    #[test]
    fn a_flag_that_nobody_knows_is_a_usage_error_of_pgbouncer() {
        check("-x a.ini", Err(1));
        check("--nothing a.ini", Err(1));
        check("-u", Err(1));
    }

    #[test]
    fn version_and_help_need_no_file() {
        for line in ["-V", "--version", "-qV a.ini"] {
            check(line, Ok(Invocation::Print(version() + "\n")));
        }
        for line in ["-h", "--help", "check --help"] {
            let arguments = ["pgweir"].into_iter().chain(line.split_whitespace());
            assert!(matches!(parse(arguments), Ok(Invocation::Print(help)) if help.contains("Usage")), "{line}");
        }
    }

    #[test]
    fn subcommands_have_arguments_of_their_own() {
        let config = PathBuf::from("a.ini");
        check("check a.ini", Ok(Invocation::Check { config: config.clone() }));
        check("demo", Ok(Invocation::Demo { duration: None, port: None }));
        check("demo --duration 2.5", Ok(Invocation::Demo { duration: Some(Duration::from_millis(2500)), port: None }));
        check("demo --duration=30s", Ok(Invocation::Demo { duration: Some(Duration::from_secs(30)), port: None }));
        check("demo --port 7000", Ok(Invocation::Demo { duration: None, port: Some(7000) }));
        check("reference", Ok(Invocation::Reference));
        check("report a.ini", Ok(Invocation::Report { config: config.clone(), html: false }));
        check("report --html a.ini", Ok(Invocation::Report { config, html: true }));
    }

    #[test]
    fn wrong_usage_of_a_subcommand_exits_with_2() {
        for line in ["check", "check a b", "demo --duration soon", "demo a.ini", "reference x", "report --pdf a.ini"] {
            check(line, Err(2));
        }
    }

    #[test]
    fn a_usage_error_is_two_lines() {
        let error = parse(["pgweir", "check"]).unwrap_err();
        assert_eq!(error.message.lines().count(), 2, "{}", error.message);
        assert!(error.message.starts_with("pgweir: "), "{}", error.message);
    }
}
