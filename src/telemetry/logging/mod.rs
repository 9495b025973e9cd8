//! Log lines: PgBouncer's form by default, JSON on request, to stderr and to a file that can be
//! reopened.
//!
//! Events carry a fixed phrase and fields. Two fields are special in PgBouncer's form: `origin`
//! (see [`Origin`]) goes before the message, and `fatal = true` turns ERROR into FATAL.

mod line;
mod origin;
mod output;

use std::{io, path::PathBuf};

use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    layer::SubscriberExt,
    reload::{self, Handle},
};

pub use self::{
    line::PgbouncerLine,
    origin::{Origin, Side},
    output::{LogFile, LogOutput},
};

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
}

/// The running log: what RELOAD and SIGHUP may do to it.
pub struct Logging {
    output: LogOutput,
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
        let (filter, handle) = reload::Layer::new(filter(settings.verbose));
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(output.clone());
        let lines: Box<dyn Layer<_> + Send + Sync> = match settings.form {
            LogForm::Pgbouncer => Box::new(lines.event_format(PgbouncerLine::new())),
            LogForm::Json => Box::new(lines.json().flatten_event(true).with_current_span(false)),
        };
        let subscriber = Registry::default().with(filter).with(lines);
        Ok((subscriber, Self { output, filter: handle }))
    }

    /// Closes the file and opens it again, after a rotation moved it away.
    pub fn reopen(&self) -> io::Result<()> {
        self.output.reopen()
    }

    /// Another file, or none; the old one stays where the new one cannot be opened.
    pub fn set_logfile(&self, path: Option<PathBuf>) -> io::Result<()> {
        self.output.set_file(path)
    }

    /// `verbose` of the configuration.
    pub fn set_verbose(&self, verbose: u8) {
        // Fails only after the subscriber is gone, and then nobody listens.
        let _ = self.filter.reload(filter(verbose));
    }
}

/// Libraries speak only when something is wrong.
fn filter(verbose: u8) -> Targets {
    let ours = match verbose {
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    Targets::new().with_default(LevelFilter::WARN).with_target("pgweir", ours)
}

#[cfg(test)]
mod tests;
