//! What an operator has switched off: PAUSE, KILL and DISABLE, until RESUME and ENABLE.

use std::collections::BTreeSet;

/// The switches of the process. Each holds on its own: RESUME after PAUSE leaves a database paused that was paused by
/// its name.
#[derive(Debug, Default)]
pub(super) struct Switches {
    /// PAUSE without a name.
    pub all_paused: bool,
    paused: BTreeSet<String>,
    disabled: BTreeSet<String>,
}

impl Switches {
    /// Switches PAUSE of one database; false if it was so already.
    pub(super) fn pause(&mut self, database: &str, is_paused: bool) -> bool {
        switch(&mut self.paused, database, is_paused)
    }

    /// Switches DISABLE of one database.
    pub(super) fn disable(&mut self, database: &str, is_disabled: bool) {
        switch(&mut self.disabled, database, is_disabled);
    }

    /// Has this database been paused by its name?
    pub(super) fn is_paused_by_name(&self, database: &str) -> bool {
        self.paused.contains(database)
    }

    /// Are no server connections of this database lent?
    pub(super) fn is_paused(&self, database: &str) -> bool {
        self.all_paused || self.is_paused_by_name(database)
    }

    /// Are logins refused?
    pub(super) fn is_disabled(&self, database: &str) -> bool {
        self.disabled.contains(database)
    }

    /// Databases that are gone have no switches.
    pub(super) fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.paused.retain(|name| is_there(name));
        self.disabled.retain(|name| is_there(name));
    }
}

fn switch(names: &mut BTreeSet<String>, name: &str, is_on: bool) -> bool {
    if is_on { names.insert(name.to_owned()) } else { names.remove(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_paused_by_name_stays_so_when_all_are_resumed() {
        let mut switches = Switches::default();
        assert!(switches.pause("shop", true));
        assert!(!switches.pause("shop", true));
        switches.all_paused = true;
        assert!(switches.is_paused("other"));
        switches.all_paused = false;
        assert!(switches.is_paused("shop") && !switches.is_paused("other"));
        assert!(switches.pause("shop", false));
        assert!(!switches.is_paused("shop"));
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let mut switches = Switches::default();
        switches.pause("a", true);
        switches.disable("a", true);
        switches.disable("b", true);
        switches.retain(|name| name == "b");
        assert!(!switches.is_paused("a") && !switches.is_disabled("a") && switches.is_disabled("b"));
    }
}
