//! Lines to the system's log, beside the other outputs.

use std::{
    ffi::CString,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nix::syslog::{Facility, LogFlags, Priority, Severity, openlog, syslog};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{Layer, layer::Context};

use super::line::Parts;

/// `syslog`, `syslog_ident` and `syslog_facility`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyslogSettings {
    /// The name in front of each line.
    pub ident: String,
    /// One of PgBouncer's names; another one is `daemon`.
    pub facility: String,
}

/// The layer; clones share what is in force.
#[derive(Clone, Debug, Default)]
pub(super) struct Syslog(Arc<Mutex<Option<SyslogSettings>>>);

impl Syslog {
    /// Opens it, or closes it. The C library keeps the name for good, so each different one is kept in memory.
    pub(super) fn set(&self, wanted: Option<&SyslogSettings>) {
        let mut in_force = self.in_force();
        if in_force.as_ref() == wanted {
            return;
        }
        if let Some(settings) = wanted {
            let ident = CString::new(settings.ident.replace('\0', "")).unwrap_or_default();
            // Fails only for a name that holds a zero.
            let _ = openlog(Some(Box::leak(ident.into_boxed_c_str())), LogFlags::LOG_PID, facility(&settings.facility));
        }
        *in_force = wanted.cloned();
    }

    fn in_force(&self) -> MutexGuard<'_, Option<SyslogSettings>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for Syslog {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some(facility) = self.in_force().as_ref().map(|settings| facility(&settings.facility)) else { return };
        let parts = Parts::of(event);
        let priority = Priority::new(severity(*event.metadata().level(), parts.is_fatal()), facility);
        // There is nobody to tell that the system's log is gone.
        let _ = syslog(priority, &parts.text());
    }
}

fn severity(level: Level, is_fatal: bool) -> Severity {
    match level {
        Level::ERROR if is_fatal => Severity::LOG_CRIT,
        Level::ERROR => Severity::LOG_ERR,
        Level::WARN => Severity::LOG_WARNING,
        Level::INFO => Severity::LOG_INFO,
        Level::DEBUG | Level::TRACE => Severity::LOG_DEBUG,
    }
}

fn facility(name: &str) -> Facility {
    match name {
        "auth" | "authpriv" => Facility::LOG_AUTH,
        "user" => Facility::LOG_USER,
        "local0" => Facility::LOG_LOCAL0,
        "local1" => Facility::LOG_LOCAL1,
        "local2" => Facility::LOG_LOCAL2,
        "local3" => Facility::LOG_LOCAL3,
        "local4" => Facility::LOG_LOCAL4,
        "local5" => Facility::LOG_LOCAL5,
        "local6" => Facility::LOG_LOCAL6,
        "local7" => Facility::LOG_LOCAL7,
        _ => Facility::LOG_DAEMON,
    }
}
