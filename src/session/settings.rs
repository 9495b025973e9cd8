//! What a session has set beyond the parameters that PostgreSQL reports: carried from server to server.
//!
//! <https://www.postgresql.org/docs/current/config-setting.html#CONFIG-SETTING-SQL>

use std::{collections::BTreeMap, sync::Arc};

use super::parameters::{push_literal, tracked};

/// SessionSettings beyond this many are not carried: the session keeps its server.
const MAX_SETTINGS: usize = 64;
/// Nor are names and values beyond this many bytes.
const MAX_BYTES: usize = 8 * 1024;

/// `SET ROLE`; set last, because it takes rights away.
const ROLE: &str = "role";
/// `SET SESSION AUTHORIZATION`, of which RESET also resets the role.
const SESSION_AUTHORIZATION: &str = "session_authorization";

/// A server that carries it may end what brings it to other settings.
const STATEMENT_TIMEOUT: &str = "statement_timeout";

/// Whoever has set these may set them again, on any server and to any value that was taken once: no server refuses.
const NEVER_REFUSED: [&str; 32] = [
    "array_nulls",
    "backslash_quote",
    "bytea_output",
    "check_function_bodies",
    "client_min_messages",
    "constraint_exclusion",
    "cursor_tuple_fraction",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "effective_cache_size",
    "escape_string_warning",
    "extra_float_digits",
    "from_collapse_limit",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "jit",
    "join_collapse_limit",
    "lock_timeout",
    "maintenance_work_mem",
    "max_parallel_workers_per_gather",
    "plan_cache_mode",
    "quote_all_identifiers",
    "random_page_cost",
    "row_security",
    "search_path",
    "seq_page_cost",
    STATEMENT_TIMEOUT,
    "synchronous_commit",
    "transaction_timeout",
    "work_mem",
    "xmloption",
];

fn may_be_refused(name: &str) -> bool {
    let is_planners = name.starts_with("enable_");
    !name.contains('.') && !is_planners && !NEVER_REFUSED.contains(&name)
}

/// Where names are looked up.
const SEARCH_PATH: &str = "search_path";
/// With these, names are looked up elsewhere than in the user's other sessions.
const CHANGE_NAMES: [&str; 3] = [SEARCH_PATH, ROLE, SESSION_AUTHORIZATION];
/// With it, other triggers and rules are in force.
const REPLICATION_ROLE: &str = "session_replication_role";

/// Does a setting of that name change what names mean, or what a write sets off?
#[must_use]
pub fn changes_names(name: &str) -> bool {
    CHANGE_NAMES.contains(&name) || name == REPLICATION_ROLE
}

/// With these, a standby may refuse what brings it there, or the transactions that follow.
const NEED_PRIMARY: [&str; 8] = [
    ROLE,
    SESSION_AUTHORIZATION,
    REPLICATION_ROLE,
    "row_security",
    ISOLATION,
    "default_transaction_read_only",
    "default_transaction_deferrable",
    "check_function_bodies",
];

/// How transactions run that do not say.
const ISOLATION: &str = "default_transaction_isolation";

/// Names, in PostgreSQL's spelling, and values as `set_config` takes them; sorted by name. A session without any shares
/// nothing and owns nothing.
#[derive(Clone, Debug, Default)]
pub struct SessionSettings(Option<Arc<[Setting]>>);

/// Name and value.
type Setting = (Box<str>, Box<str>);

impl PartialEq for SessionSettings {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(own), Some(others)) => Arc::ptr_eq(own, others) || own == others,
            _ => false,
        }
    }
}

impl SessionSettings {
    /// The last word on a name holds.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let sorted: BTreeMap<&str, &str> = pairs.into_iter().collect();
        let pairs: Vec<_> = sorted.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self((!pairs.is_empty()).then(|| pairs.into()))
    }

    /// Reads the object of names and values that the server was asked for; `None` if it cannot be carried.
    #[must_use]
    pub fn read(json: Option<&[u8]>) -> Option<Self> {
        let Some(json) = json else { return Some(Self::default()) };
        let values: BTreeMap<String, String> = serde_json::from_slice(json).ok()?;
        let bytes: usize = values.iter().map(|(name, value)| name.len() + value.len()).sum();
        // Names of our own are compared with these, and PostgreSQL does not tell cases apart.
        let values: BTreeMap<String, String> =
            values.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
        let fits = values.len() <= MAX_SETTINGS && bytes <= MAX_BYTES;
        fits.then(|| Self::new(values.iter().map(|(name, value)| (&**name, &**value))))
    }

    /// Is nothing set?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|pairs| pairs.iter()).map(|(name, value)| (&**name, &**value))
    }

    /// The value of a setting, under PostgreSQL's spelling of its name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// These, and where they say nothing what `set` says; tracked parameters, which follow a client by themselves, are
    /// left out of these.
    #[must_use]
    pub fn below(&self, set: &Self) -> Self {
        let untracked = || self.iter().filter(|(name, _)| tracked(name).is_none());
        if untracked().all(|(name, _)| set.get(name).is_some()) {
            return set.clone();
        }
        Self::new(untracked().chain(set.iter()))
    }

    /// Those whose names are not covered.
    #[must_use]
    pub fn but_for(&self, covers: impl Fn(&str) -> bool) -> Self {
        match self.iter().all(|(name, _)| covers(name)) {
            true => Self::default(),
            false => Self::new(self.iter().filter(|(name, _)| !covers(name))),
        }
    }

    /// These but for what is the same in `others`.
    #[must_use]
    pub fn beyond(&self, others: &Self) -> Self {
        match others.0 {
            None => self.clone(),
            Some(_) => Self::new(self.iter().filter(|(name, value)| others.get(name) != Some(value))),
        }
    }

    /// With another value, or none where there is nothing.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        Self::new(self.iter().chain([(name, value)]))
    }

    /// Do they change what names mean?
    #[must_use]
    pub fn change_names(&self) -> bool {
        self.iter().any(|(name, _)| CHANGE_NAMES.contains(&name))
    }

    /// Do they change what a write sets off?
    #[must_use]
    pub fn change_triggers(&self) -> bool {
        self.get(REPLICATION_ROLE).is_some()
    }

    /// Does the primary serve all that is asked for with them?
    #[must_use]
    pub fn need_primary(&self) -> bool {
        self.iter().any(|(name, _)| NEED_PRIMARY.contains(&name))
    }

    /// Where names are looked up, as PostgreSQL spells it.
    #[must_use]
    pub fn search_path(&self) -> Option<&str> {
        self.get(SEARCH_PATH)
    }

    /// Those that are not [`Self::search_path`].
    pub fn but_for_search_path(&self) -> impl Iterator<Item = (&str, &str)> {
        self.iter().filter(|(name, _)| *name != SEARCH_PATH)
    }

    /// Whose rights it has, where not those of its user.
    #[must_use]
    pub fn role(&self) -> Option<&str> {
        self.get(ROLE).or_else(|| self.get(SESSION_AUTHORIZATION))
    }

    /// How its transactions run that do not say.
    #[must_use]
    pub fn isolation(&self) -> Option<&str> {
        self.get(ISOLATION)
    }

    /// May a server that is set to `server` refuse what brings it to these? Then nothing may be sent behind it before it
    /// has answered.
    #[must_use]
    pub fn may_be_refused(&self, server: &Self) -> bool {
        if self == server {
            return false;
        }
        let differs = |one: &Self, other: &Self| {
            one.iter().any(|(name, value)| may_be_refused(name) && other.get(name) != Some(value))
        };
        server.are_of_somebody_else()
            || server.get(STATEMENT_TIMEOUT).is_some()
            || differs(self, server)
            || differs(server, self)
    }

    fn are_of_somebody_else(&self) -> bool {
        self.role().is_some()
    }

    /// One query string that brings a server from `server` to these, carried out whole or not at all; `None` if it has them.
    #[must_use]
    pub fn restore(&self, server: &Self) -> Option<String> {
        if self == server {
            return None;
        }
        let mut text = String::new();
        // Rights first: who has other rights may not be allowed to set what follows.
        let resets_rights = server.are_of_somebody_else();
        if resets_rights {
            text.push_str("RESET SESSION AUTHORIZATION;RESET ROLE;");
        }
        let is_right = |name: &str| name == ROLE || name == SESSION_AUTHORIZATION;
        for (name, _) in server.iter().filter(|(name, _)| !is_right(name) && self.get(name).is_none()) {
            text.push_str("RESET ");
            push_name(&mut text, name);
            text.push(';');
        }
        let plain = self.iter().filter(|(name, value)| !is_right(name) && server.get(name) != Some(*value));
        let rights = [SESSION_AUTHORIZATION, ROLE].into_iter().filter_map(|name| Some((name, self.get(name)?)));
        let is_set_again = |(name, value): &(&str, &str)| resets_rights || server.get(name) != Some(*value);
        for (name, value) in plain.chain(rights.filter(is_set_again)) {
            push_set(&mut text, name, value, false);
        }
        Some(text)
    }

    /// The statements behind a RESET, which returns to what the server began with and not to what this session asked
    /// for at its start: all of these, or the one that was reset; `None` if there is nothing to do.
    #[must_use]
    pub fn again(&self, reset: Option<&str>) -> Option<String> {
        let mut text = String::new();
        for (name, value) in self.iter() {
            if reset.is_none_or(|reset| reset.eq_ignore_ascii_case(name)) {
                push_set(&mut text, name, value, false);
            }
        }
        (!text.is_empty()).then_some(text)
    }
}

/// `set_config`, because `SET` reads a list of names where the value of a list is meant.
pub fn push_set(text: &mut String, name: &str, value: &str, is_local: bool) {
    text.push_str("SELECT pg_catalog.set_config(");
    push_literal(text, name);
    text.push(',');
    push_literal(text, value);
    text.push_str(if is_local { ",true);" } else { ",false);" });
}

/// A name with dots, each part quoted.
fn push_name(text: &mut String, name: &str) {
    for (at, part) in name.split('.').enumerate() {
        if at > 0 {
            text.push('.');
        }
        text.push('"');
        text.push_str(&part.replace('"', "\"\""));
        text.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> SessionSettings {
        SessionSettings::new(pairs.iter().copied())
    }

    #[track_caller]
    fn restores(server: &[(&str, &str)], client: &[(&str, &str)], expected: Option<(&str, bool)>) {
        let (client, server) = (of(client), of(server));
        let text = client.restore(&server);
        assert_eq!(text.as_deref().map(|text| (text, client.may_be_refused(&server))), expected);
    }

    #[test]
    fn a_server_is_brought_to_the_settings_of_its_client() {
        restores(&[], &[], None);
        restores(&[("work_mem", "64")], &[("work_mem", "64")], None);
        restores(&[("work_mem", "64"), ("my.x", "1")], &[("work_mem", "64")], Some(("RESET \"my\".\"x\";", false)));
        restores(
            &[("work_mem", "64")],
            &[("search_path", "a, \"b\""), ("work_mem", "128")],
            Some((
                "SELECT pg_catalog.set_config('search_path','a, \"b\"',false);SELECT pg_catalog.set_config('work_mem','128',false);",
                false,
            )),
        );
    }

    #[test]
    fn rights_are_taken_back_first_and_given_last() {
        let role = "SELECT pg_catalog.set_config('role','r',false);";
        restores(&[("role", "r")], &[], Some(("RESET SESSION AUTHORIZATION;RESET ROLE;", true)));
        restores(&[("log_statement", "all")], &[], Some(("RESET \"log_statement\";", true)));
        restores(&[("statement_timeout", "1")], &[], Some(("RESET \"statement_timeout\";", true)));
        restores(&[], &[("role", "r")], Some((role, true)));
        restores(
            &[("role", "r")],
            &[("role", "r"), ("work_mem", "64")],
            Some((
                &format!(
                    "RESET SESSION AUTHORIZATION;RESET ROLE;SELECT pg_catalog.set_config('work_mem','64',false);{role}"
                ),
                true,
            )),
        );
    }

    #[test]
    fn what_the_client_began_with_stands_behind_what_it_has_set() {
        let began = of(&[("search_path", "a"), ("work_mem", "64"), ("TimeZone", "UTC")]);
        assert_eq!(
            began.below(&of(&[("work_mem", "1")])).iter().collect::<Vec<_>>(),
            [("search_path", "a"), ("work_mem", "1")]
        );
        assert_eq!(SessionSettings::default().below(&of(&[("work_mem", "1")])), of(&[("work_mem", "1")]));
    }

    #[test]
    fn a_reset_is_followed_by_what_the_session_began_with() {
        let began = of(&[("search_path", "a"), ("TimeZone", "UTC")]);
        assert_eq!(began.again(Some("work_mem")), None);
        assert_eq!(
            began.again(Some("timezone")).as_deref(),
            Some("SELECT pg_catalog.set_config('TimeZone','UTC',false);")
        );
        assert_eq!(SessionSettings::default().again(None), None);
    }

    #[test]
    fn what_is_set_says_where_names_are_looked_up_and_who_may_be_asked() {
        for (pairs, change_names, need_primary, role) in [
            (&[][..], false, false, None),
            (&[("work_mem", "64")], false, false, None),
            (&[("search_path", "a")], true, false, None),
            (&[("default_transaction_read_only", "on")], false, true, None),
            (&[("role", "r")], true, true, Some("r")),
            (&[("session_authorization", "s")], true, true, Some("s")),
            (&[("session_authorization", "s"), ("role", "r")], true, true, Some("r")),
        ] {
            let set = of(pairs);
            assert_eq!((set.change_names(), set.need_primary(), set.role()), (change_names, need_primary, role));
        }
    }

    #[test]
    fn what_does_not_fit_is_not_carried() {
        assert_eq!(SessionSettings::read(None), Some(SessionSettings::default()));
        assert_eq!(SessionSettings::read(Some(br#"{"work_mem":"64"}"#)), Some(of(&[("work_mem", "64")])));
        assert_eq!(SessionSettings::read(Some(b"\xff")), None);
        let long = format!(r#"{{"my.x":"{}"}}"#, "x".repeat(MAX_BYTES));
        assert_eq!(SessionSettings::read(Some(long.as_bytes())), None);
    }
}
