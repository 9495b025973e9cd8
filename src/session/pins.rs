//! What ties a client to its server connection between transactions.
//!
//! The grammar says what a statement may leave behind. Whether it did, the server itself is asked, with one query behind
//! the statement: so a pin is neither missed (a function that listens) nor kept for nothing (a lock that was released).

use std::sync::Arc;

use super::SessionSettings;
use crate::{catalog::Effects, session::parameters::TRACKED};

/// Reasons for which a client keeps its server connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PinSet(u16);

impl PinSet {
    /// It listens on a channel.
    pub const LISTEN: Self = Self(1);
    /// It has temporary relations.
    pub const TEMP: Self = Self(1 << 1);
    /// It holds a session-level advisory lock.
    pub const ADVISORY_LOCK: Self = Self(1 << 2);
    /// It has statements prepared by SQL.
    pub const SQL_PREPARE: Self = Self(1 << 3);
    /// It has set more than is carried from server to server.
    pub const SET_PARAMETER: Self = Self(1 << 4);
    /// It has a cursor WITH HOLD.
    pub const HOLD_CURSOR: Self = Self(1 << 5);
    /// It has loaded a library.
    pub const LOAD: Self = Self(1 << 6);
    /// It has prepared a statement too long to be held here.
    pub const OVERSIZED_STATEMENT: Self = Self(1 << 7);
    /// It may have set a parameter that PostgreSQL does not list, under a name that is not known.
    pub const UNNAMED_PARAMETER: Self = Self(1 << 8);
    /// It may have called `nextval()`, where somebody asks for `currval()` or `lastval()`.
    pub const SEQUENCE: Self = Self(1 << 9);

    /// Every reason with its label.
    pub const LABELS: [(Self, &'static str); 10] = [
        (Self::LISTEN, "listen"),
        (Self::TEMP, "temp_table"),
        (Self::ADVISORY_LOCK, "advisory_lock"),
        (Self::SQL_PREPARE, "sql_prepare"),
        (Self::SET_PARAMETER, "set_parameter"),
        (Self::HOLD_CURSOR, "hold_cursor"),
        (Self::LOAD, "load"),
        (Self::OVERSIZED_STATEMENT, "oversized_statement"),
        (Self::UNNAMED_PARAMETER, "unnamed_parameter"),
        (Self::SEQUENCE, "sequence"),
    ];

    /// Nothing pins.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Both together.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in this and not in the other.
    #[must_use]
    pub fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Is all of `other` in it?
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits, for a shared atomic.
    #[must_use]
    pub fn bits(self) -> u16 {
        self.0
    }

    /// Back from a shared atomic.
    #[must_use]
    pub fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// Labels of what is set.
    pub fn labels(self) -> impl Iterator<Item = &'static str> {
        Self::LABELS.into_iter().filter(move |(pin, _)| self.contains(*pin)).map(|(_, label)| label)
    }

    /// What the server cannot be asked about.
    #[must_use]
    pub fn unobservable(self) -> Self {
        let others = Self::OVERSIZED_STATEMENT.union(Self::UNNAMED_PARAMETER).union(Self::SEQUENCE);
        self.intersection(Self::LOAD.union(others))
    }

    /// What a statement may leave behind for certain reasons of grammar.
    #[must_use]
    pub fn suspected(effects: Effects) -> Self {
        let pairs = [
            (Effects::LISTEN, Self::LISTEN),
            (Effects::TEMP, Self::TEMP),
            (Effects::ADVISORY_LOCK, Self::ADVISORY_LOCK),
            (Effects::SQL_PREPARE, Self::SQL_PREPARE),
            (Effects::SET_PARAMETER, Self::SET_PARAMETER),
            (Effects::HOLD_CURSOR, Self::HOLD_CURSOR),
            (Effects::LOAD, Self::LOAD),
        ];
        let suspects = pairs.into_iter().filter(|(effect, _)| effects.contains(*effect));
        suspects.fold(Self::default(), |set, (_, pin)| set.union(pin))
    }
}

/// Asks for the settings of a session of `user`, as one JSON object; its only parameter means nothing.
#[must_use]
pub fn settings_question(user: &str, custom: &[Box<str>]) -> String {
    let mut text = String::from("SELECT ");
    push_settings(&mut text, user, custom);
    text.push_str(", $1::pg_catalog.text");
    text
}

/// `role` is no row of `pg_settings`. That it is `none` means nothing where every session begins so, and something where
/// one may begin as somebody else (`ALTER ROLE … SET role`).
fn push_settings(text: &mut String, user: &str, custom: &[Box<str>]) {
    text.push_str(
        "(WITH known AS MATERIALIZED (SELECT name, setting, source FROM pg_catalog.pg_settings) \
         SELECT pg_catalog.json_object_agg(name, setting) FROM (\
         SELECT name, setting FROM known WHERE source OPERATOR(pg_catalog.=) 'session'::pg_catalog.text \
         AND name OPERATOR(pg_catalog.<>) ALL ('{",
    );
    text.push_str(&TRACKED.join(","));
    // What a transaction has said of itself may be left there as a setting of the session's: a standby would refuse it.
    text.push_str(
        ",transaction_deferrable,transaction_isolation,transaction_read_only}'::pg_catalog.text[]) \
         UNION ALL SELECT 'role', pg_catalog.current_setting('role') \
         WHERE pg_catalog.current_setting('role') OPERATOR(pg_catalog.<>) 'none'::pg_catalog.text \
         OR EXISTS (SELECT FROM pg_catalog.pg_db_role_setting AS begun, pg_catalog.unnest(begun.setconfig) AS one \
         WHERE pg_catalog.starts_with(one, 'role=')) \
         UNION ALL SELECT 'session_authorization', session_user \
         WHERE session_user OPERATOR(pg_catalog.<>) ",
    );
    super::parameters::push_literal(text, user);
    text.push_str("::pg_catalog.name");
    if !custom.is_empty() {
        // Letters, digits, `_`, `$` and dots: nothing to be quoted.
        text.push_str(
            " UNION ALL SELECT custom.name, pg_catalog.current_setting(custom.name, true) FROM pg_catalog.unnest('{",
        );
        text.push_str(&custom.join(","));
        text.push_str(
            "}'::pg_catalog.text[]) AS custom(name) \
             WHERE pg_catalog.current_setting(custom.name, true) OPERATOR(pg_catalog.<>) ''::pg_catalog.text \
             AND custom.name OPERATOR(pg_catalog.<>) ALL (ARRAY(SELECT known.name FROM known))",
        );
    }
    text.push_str(") AS set)::pg_catalog.text");
}

/// Asks the server what the session holds on to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    text: String,
    custom: Arc<[Box<str>]>,
}

/// What the server has said.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// What ties the session to its server.
    pub pins: PinSet,
    /// What is carried to others; `None` if it cannot be, which is a reason for a pin.
    pub settings: Option<SessionSettings>,
}

/// In the order of the probe's columns.
const PROBED: [PinSet; 5] =
    [PinSet::LISTEN, PinSet::TEMP, PinSet::ADVISORY_LOCK, PinSet::SQL_PREPARE, PinSet::HOLD_CURSOR];

impl Probe {
    /// The probe for sessions that logged in as `user`. Its operators are named in full: the session that is asked about
    /// may have others in its search path.
    #[must_use]
    pub fn new(user: &str, custom: &Arc<[Box<str>]>) -> Self {
        let mut text = String::from(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_listening_channels()), \
             EXISTS (SELECT FROM pg_catalog.pg_depend \
             WHERE pg_catalog.pg_my_temp_schema() OPERATOR(pg_catalog.<>) 0::pg_catalog.oid \
             AND refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass::pg_catalog.oid \
             AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()), \
             EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory'::pg_catalog.text \
             AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()), \
             EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql), \
             EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable), ",
        );
        push_settings(&mut text, user, custom);
        Self { text, custom: Arc::clone(custom) }
    }

    /// Does it ask for the settings that are known by now?
    #[must_use]
    pub fn asks_for(&self, custom: &Arc<[Box<str>]>) -> bool {
        Arc::ptr_eq(&self.custom, custom)
    }

    /// Does its answer say something about this setting?
    #[must_use]
    pub fn covers(&self, name: &str) -> bool {
        !name.contains('.') || self.custom.binary_search_by(|known| (**known).cmp(name)).is_ok()
    }

    /// The query.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Reads the one row of the answer; `None` if it is no answer of this query.
    pub fn read<'a>(mut columns: impl Iterator<Item = Option<&'a [u8]>>) -> Option<Held> {
        let mut pins = PinSet::default();
        for pin in PROBED {
            if columns.next()?? == b"t" {
                pins = pins.union(pin);
            }
        }
        let settings = SessionSettings::read(columns.next()?);
        if settings.is_none() {
            pins = pins.union(PinSet::SET_PARAMETER);
        }
        Some(Held { pins, settings })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_probe_names_what_pins() {
        let flags = [b"f", b"t", b"f", b"f", b"f"].map(|column| Some(&column[..]));
        let answer = |settings| Probe::read(flags.into_iter().chain([settings]));
        let work_mem = SessionSettings::new([("work_mem", "64")]);
        assert_eq!(answer(Some(br#"{"work_mem":"64"}"#)), Some(Held { pins: PinSet::TEMP, settings: Some(work_mem) }));
        let none = Held { pins: PinSet::TEMP, settings: Some(SessionSettings::default()) };
        assert_eq!(answer(None), Some(none));
        let pins = PinSet::TEMP.union(PinSet::SET_PARAMETER);
        assert_eq!(answer(Some(b"\xff")), Some(Held { pins, settings: None }));
    }

    #[test]
    fn an_answer_cut_short_is_no_answer() {
        assert_eq!(Probe::read([Some(&b"f"[..])].into_iter()), None);
        assert_eq!(Probe::read([Some(&b"f"[..]); 5].into_iter()), None);
    }

    #[test]
    fn labels_name_every_reason_once() {
        let all = PinSet::LABELS.iter().fold(PinSet::default(), |set, (pin, _)| set.union(*pin));
        assert_eq!(all.labels().count(), PinSet::LABELS.len());
    }
}
