//! Log lines: PgBouncer's form by default, JSON on request, to stderr and to a file that can be
//! reopened.
//!
//! Events carry a fixed phrase and fields. Two fields are special in PgBouncer's form: `origin`
//! (see [`Origin`]) goes before the message, and `fatal = true` turns ERROR into FATAL.

mod line;
mod origin;
mod output;
mod syslog;

use std::{io, path::PathBuf};

use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    layer::SubscriberExt,
    reload::{self, Handle},
};

use self::syslog::Syslog;
pub use self::{
    line::PgbouncerLine,
    origin::{Origin, Side},
    output::{LogFile, LogOutput},
    syslog::SyslogSettings,
};

/// Target of lines about connections that begin: `log_connections`.
pub const CONNECTIONS: &str = "pgweir::connections";
/// Target of lines about connections that end: `log_disconnections`.
pub const DISCONNECTIONS: &str = "pgweir::disconnections";
/// Target of lines about errors that clients are told: `log_pooler_errors`.
pub const POOLER_ERRORS: &str = "pgweir::pooler_errors";

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogForm {
    /// `2026-11-21 11:42:21.793 UTC [PID] LOG C-0x..: db/user@addr:port message`
    #[default]
    Pgbouncer,
    /// One JSON object a line.
    Json,
}

/// What the log is configured to be.
#[derive(Clone, Debug, Default)]
pub struct LogSettings {
    /// Lines also go to this file.
    pub logfile: Option<PathBuf>,
    /// `-q` and `-d`: nothing to stderr.
    pub quiet: bool,
    /// `-v` per step: 1 is DEBUG, 2 is NOISE.
    pub verbose: u8,
    /// Lines of PgBouncer or JSON.
    pub form: LogForm,
    /// Lines also go to the system's log.
    pub syslog: Option<SyslogSettings>,
    /// Targets whose lines nobody wants, such as [`CONNECTIONS`].
    pub silent: Vec<&'static str>,
}

/// The running log: what RELOAD and SIGHUP may do to it.
pub struct Logging {
    output: LogOutput,
    syslog: Syslog,
    filter: Handle<Targets, Registry>,
}

impl Logging {
    /// Installs the log for the whole process; once.
    pub fn install(settings: &LogSettings) -> io::Result<Self> {
        let (subscriber, logging) = Self::build(settings)?;
        tracing::subscriber::set_global_default(subscriber).map_err(io::Error::other)?;
        Ok(logging)
    }

    /// The subscriber and its control, for tests and for `install`.
    pub fn build(settings: &LogSettings) -> io::Result<(impl Subscriber + Send + Sync + use<>, Self)> {
        let output = LogOutput::open(settings.logfile.as_deref(), settings.quiet)?;
        let (filter, handle) = reload::Layer::new(filter(settings));
        let syslog = Syslog::default();
        syslog.set(settings.syslog.as_ref());
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(output.clone());
        let lines: Box<dyn Layer<_> + Send + Sync> = match settings.form {
            LogForm::Pgbouncer => Box::new(lines.event_format(PgbouncerLine)),
            LogForm::Json => Box::new(lines.json().flatten_event(true).with_current_span(false)),
        };
        let subscriber = Registry::default().with(filter).with(lines).with(syslog.clone());
        Ok((subscriber, Self { output, syslog, filter: handle }))
    }

    /// Puts other settings in force, but for form and standard error, which stay. The file is opened again in any
    /// case: a rotation may have moved it away.
    ///
    /// # Errors
    /// The file cannot be opened; the old one stays in use, and the rest holds.
    pub fn apply(&self, settings: &LogSettings) -> io::Result<()> {
        // Fails only after the subscriber is gone, and then nobody listens.
        let _ = self.filter.reload(filter(settings));
        self.syslog.set(settings.syslog.as_ref());
        self.output.set_file(settings.logfile.as_deref())
    }

    /// Nothing more to standard error: there is none any more.
    pub fn leave_stderr(&self) {
        self.output.leave_stderr();
    }
}

/// Libraries speak only when something is wrong.
fn filter(settings: &LogSettings) -> Targets {
    let ours = match settings.verbose {
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let all = Targets::new().with_default(LevelFilter::WARN).with_target("pgweir", ours);
    settings.silent.iter().fold(all, |all, target| all.with_target(*target, LevelFilter::OFF))
}

#[cfg(test)]
mod tests;
