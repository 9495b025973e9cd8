//! One event as PgBouncer writes it.

use std::{
    fmt::{self, Write},
    time::SystemTime,
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use crate::telemetry::timestamp::Utc;

/// `2026-11-21 11:42:21.793 UTC [PID] LOG C-0x..: db/user@addr:port message: field=value`
#[derive(Clone, Copy, Debug, Default)]
pub struct PgbouncerLine;

impl<S, N> FormatEvent<S, N> for PgbouncerLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let parts = Parts::of(event);
        let level = level(*event.metadata().level(), parts.fatal);
        let time = Utc::new(SystemTime::now());
        // Asked for each line: with -d the process becomes another one after the log is open.
        writeln!(writer, "{} [{}] {level} {}", time.log(), std::process::id(), parts.text())
    }
}

fn level(level: Level, fatal: bool) -> &'static str {
    match level {
        Level::ERROR if fatal => "FATAL",
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "LOG",
        Level::DEBUG => "DEBUG",
        Level::TRACE => "NOISE",
    }
}

/// An event's fields, sorted by what a line does with them.
#[derive(Default)]
pub(super) struct Parts {
    origin: String,
    message: String,
    fields: String,
    fatal: bool,
}

impl Parts {
    pub(super) fn of(event: &Event<'_>) -> Self {
        let mut parts = Self::default();
        event.record(&mut parts);
        parts
    }

    /// Is it the end of the process?
    pub(super) fn is_fatal(&self) -> bool {
        self.fatal
    }

    /// A line is one line, whatever a peer put into a name or an error text.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for part in [&self.origin, &self.message].into_iter().filter(|part| !part.is_empty()) {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(part);
        }
        if !self.fields.is_empty() {
            text.push(':');
            text.push_str(&self.fields);
        }
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    }

    fn put(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "origin" => self.origin.write_fmt(value),
            "message" => self.message.write_fmt(value),
            name => write!(self.fields, " {name}={value}"),
        };
    }
}

impl Visit for Parts {
    fn record_bool(&mut self, field: &Field, value: bool) {
        if field.name() == "fatal" {
            self.fatal = value;
        } else {
            self.put(field, format_args!("{}", if value { "yes" } else { "no" }));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format_args!("{value:?}"));
    }
}
