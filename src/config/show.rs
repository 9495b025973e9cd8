//! Settings by name: SHOW CONFIG and SET, and what must hold between them.

use super::{
    Config,
    choice::{CacheMode, PrimaryReads, ReadWriteSplit, ReadYourWrites, RoleDetection},
    error::{ConfigError, Problem},
    setting::{Applies, Section},
};

/// A row of SHOW CONFIG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShowRow {
    /// PgBouncer's name, or `section.name`.
    pub key: String,
    /// `None` is NULL.
    pub value: Option<String>,
    /// `None` is NULL.
    pub default: Option<String>,
    /// Whether RELOAD and SET change it.
    pub changeable: bool,
}

/// A section whose type does not matter.
pub(super) trait AnySection {
    fn set_text(&mut self, name: String, key: &str, text: &str) -> Result<(), Problem>;
    fn is_fixed(&self, key: &str) -> bool;
    fn rows(&self, prefix: &str) -> Vec<ShowRow>;
}

impl<S: Section> AnySection for S {
    fn set_text(&mut self, name: String, key: &str, text: &str) -> Result<(), Problem> {
        self.set(key, text).map_err(|refused| refused.problem::<S>(name, key, text))
    }

    fn is_fixed(&self, key: &str) -> bool {
        S::setting(key).is_some_and(|setting| setting.applies == Applies::AtStart)
    }

    fn rows(&self, prefix: &str) -> Vec<ShowRow> {
        let default = S::default();
        let row = |setting: &super::setting::Setting<S>| ShowRow {
            key: format!("{prefix}{}", setting.name),
            value: (setting.show)(self),
            default: (setting.show_default)(&default),
            changeable: setting.applies == Applies::OnReload,
        };
        S::TABLE.iter().map(row).collect()
    }
}

impl Config {
    /// The sections that PgBouncer does not have.
    pub const OWN_SECTIONS: [&str; 6] = ["routing", "cache", "insight", "control", "http", "sessions"];

    fn own(&self, section: &str) -> Option<&dyn AnySection> {
        Some(match section {
            "routing" => &self.routing,
            "cache" => &self.cache,
            "insight" => &self.insight,
            "control" => &self.control,
            "http" => &self.http,
            "sessions" => &self.sessions,
            _ => return None,
        })
    }

    fn own_mut(&mut self, section: &str) -> Option<&mut dyn AnySection> {
        Some(match section {
            "routing" => &mut self.routing,
            "cache" => &mut self.cache,
            "insight" => &mut self.insight,
            "control" => &mut self.control,
            "http" => &mut self.http,
            "sessions" => &mut self.sessions,
            _ => return None,
        })
    }

    /// PgBouncer's settings in its order, then ours.
    pub fn show(&self) -> Vec<ShowRow> {
        let mut rows = self.pgbouncer.rows("");
        for section in Config::OWN_SECTIONS {
            rows.extend(self.own(section).into_iter().flat_map(|own| own.rows(&format!("{section}."))));
        }
        rows
    }

    /// SET of the console: `key` as SHOW CONFIG prints it. What applies only at start is ignored without a word.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
        let mut changed = self.clone();
        changed.set_unchecked(key, value).map_err(|problem| problem.at(None))?;
        changed.check_together().map_err(|problem| problem.at(None))?;
        *self = changed;
        Ok(())
    }

    fn set_unchecked(&mut self, key: &str, value: &str) -> Result<(), Problem> {
        match key.split_once('.') {
            Some((section, key)) if self.own(section).is_some_and(|own| own.is_fixed(key)) => Ok(()),
            Some((section, key)) => self.set_in_own(section, key, value),
            None if AnySection::is_fixed(&self.pgbouncer, key) => Ok(()),
            None => self.set_in_main(key, value),
        }
    }

    pub(super) fn set_in_main(&mut self, key: &str, value: &str) -> Result<(), Problem> {
        self.pgbouncer.set_text(key.to_owned(), key, value)
    }

    pub(super) fn set_in_own(&mut self, section: &str, key: &str, value: &str) -> Result<(), Problem> {
        let name = format!("{section}.{key}");
        match self.own_mut(section) {
            Some(own) => own.set_text(name, key, value),
            None => Err(Problem::new("a known key", "an unknown one").of(name)),
        }
    }

    /// What no single setting can say. A problem names the key that asks for the other.
    pub(super) fn check_together(&self) -> Result<(), Problem> {
        if self.cache.redis_url.is_some() && self.cache.secret.is_none() {
            return Err(Problem::new("cache.secret beside it", "none").of("cache.redis_url"));
        }
        self.check_equals()?;
        // What one client sets is found by the next: nobody knows what a name means to either.
        let needs_own_sessions = match (self.routing.read_write_split, self.cache.enabled) {
            (ReadWriteSplit::On | ReadWriteSplit::Log, _) => Some("routing.read_write_split"),
            (_, CacheMode::On | CacheMode::Observe) => Some("cache.enabled"),
            _ => None,
        };
        match needs_own_sessions.filter(|_| !self.sessions.transparent_sessions) {
            Some(key) => Err(Problem::new("sessions.transparent_sessions = 1 beside it", "0").of(key)),
            None => Ok(()),
        }
    }

    /// What cannot be kept up where each of several members commits by itself (`role = any`).
    fn check_equals(&self) -> Result<(), Problem> {
        let Some(database) = self.databases.values().chain(&self.fallback).find(|database| database.has_equals())
        else {
            return Ok(());
        };
        let refused = [
            // What one has committed is on the others later: no stamp covers that.
            (self.cache.enabled == CacheMode::On, "cache.enabled", "0 or observe", "1"),
            (self.cache.wal_invalidation, "cache.wal_invalidation", "0", "1"),
            // Nobody sees what was written by way of another member before it has come.
            (
                self.routing.read_your_writes == Some(ReadYourWrites::Database),
                "routing.read_your_writes",
                "session or off",
                "database",
            ),
            // All of them serve reads, and who takes writes has to be asked.
            (self.routing.primary_reads == PrimaryReads::Never, "routing.primary_reads", "fallback or always", "never"),
            (self.routing.role_detection == RoleDetection::Off, "routing.role_detection", "auto", "off"),
        ];
        match refused.into_iter().find(|(is_set, ..)| *is_set) {
            Some((_, key, expected, found)) => {
                let expected = format!("{expected} beside role=any in [replicas] of {}", database.name);
                Err(Problem::new(expected, found).of(key))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
