//! What an operator has switched off: PAUSE, KILL and DISABLE, until RESUME and ENABLE.

use std::collections::{BTreeMap, BTreeSet};

use crate::admin::{ConsoleError, PauseTicket, rows::PauseState};

/// The switches of the process. Each holds on its own: RESUME after PAUSE leaves a database paused that was paused by
/// its name.
#[derive(Debug, Default)]
pub(super) struct Switches {
    all: Option<Hold>,
    paused: BTreeMap<String, Hold>,
    disabled: BTreeSet<String>,
    last: u64,
}

/// One pause, from the first that asks for it to RESUME. Of several operators each may ask for it, and take back only
/// what he has asked for himself.
#[derive(Debug)]
struct Hold {
    number: u64,
    wanted_by: u32,
    /// Of all: by SUSPEND, which goes on lending to those who wait.
    is_suspension: bool,
}

/// How a PAUSE stands that waits for server connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Some are lent.
    Waits,
    /// None are left.
    Reached,
    /// Another operator has ended this pause, though there may be a later one.
    Resumed,
}

impl Switches {
    /// PAUSE of a database, or of all; `None` if all are paused already.
    pub(super) fn pause(&mut self, database: Option<&str>) -> Option<PauseTicket> {
        if self.all.is_some() {
            return None;
        }
        let number = match database {
            Some(name) => self.pause_by_name(name),
            None => {
                self.last += 1;
                self.all.insert(Hold { number: self.last, wanted_by: 1, is_suspension: false }).number
            }
        };
        Some(PauseTicket { database: database.map(str::to_owned), number })
    }

    /// SUSPEND.
    ///
    /// # Errors
    /// Something is paused: who waits for a server there would never be served, and never rest.
    pub(super) fn suspend(&mut self) -> Result<PauseTicket, ConsoleError> {
        if self.all.is_some() {
            return Err(ConsoleError::AlreadyPaused);
        }
        if !self.paused.is_empty() {
            return Err(ConsoleError::PausedDatabases);
        }
        self.last += 1;
        self.all = Some(Hold { number: self.last, wanted_by: 1, is_suspension: true });
        Ok(PauseTicket { database: None, number: self.last })
    }

    /// PAUSE of one database, which KILL asks for as well; the pause's number.
    pub(super) fn pause_by_name(&mut self, database: &str) -> u64 {
        let Self { paused, last, .. } = self;
        let hold = paused.entry(database.to_owned()).or_insert_with(|| {
            *last += 1;
            Hold { number: *last, wanted_by: 0, is_suspension: false }
        });
        hold.wanted_by = hold.wanted_by.saturating_add(1);
        hold.number
    }

    /// RESUME of a database, or of all; false if there was nothing to end.
    pub(super) fn resume(&mut self, database: Option<&str>) -> bool {
        match database {
            Some(name) => self.paused.remove(name).is_some(),
            None => self.all.take().is_some(),
        }
    }

    /// One operator does not want his pause any more. It goes on if others asked for it, too, and a later one is none
    /// of his business.
    pub(super) fn take_back(&mut self, ticket: &PauseTicket) {
        let hold = match &ticket.database {
            Some(name) => self.paused.get_mut(name),
            None => self.all.as_mut(),
        };
        let Some(hold) = hold.filter(|hold| hold.number == ticket.number) else { return };
        hold.wanted_by = hold.wanted_by.saturating_sub(1);
        if hold.wanted_by == 0 {
            self.resume(ticket.database.as_deref());
        }
    }

    /// How that pause stands, given whether server connections are left, or clients that do not rest.
    pub(super) fn standing(&self, ticket: &PauseTicket, are_left: bool) -> Standing {
        let hold = match &ticket.database {
            Some(name) => self.paused.get(name),
            None => self.all.as_ref(),
        };
        match hold {
            Some(hold) if hold.number == ticket.number && are_left => Standing::Waits,
            Some(hold) if hold.number == ticket.number => Standing::Reached,
            _ => Standing::Resumed,
        }
    }

    /// Switches DISABLE of one database.
    pub(super) fn disable(&mut self, database: &str, is_disabled: bool) {
        if is_disabled {
            self.disabled.insert(database.to_owned());
        } else {
            self.disabled.remove(database);
        }
    }

    /// What holds for all databases.
    pub(super) fn state_of_all(&self) -> PauseState {
        match &self.all {
            None => PauseState::Active,
            Some(hold) if hold.is_suspension => PauseState::Suspended,
            Some(_) => PauseState::Paused,
        }
    }

    /// Has this database been paused by its name?
    pub(super) fn is_paused_by_name(&self, database: &str) -> bool {
        self.paused.contains_key(database)
    }

    /// Are no server connections of this database lent?
    pub(super) fn is_paused(&self, database: &str) -> bool {
        self.state_of_all() == PauseState::Paused || self.is_paused_by_name(database)
    }

    /// Are logins refused?
    pub(super) fn is_disabled(&self, database: &str) -> bool {
        self.disabled.contains(database)
    }

    /// Databases that are gone have no switches.
    pub(super) fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.paused.retain(|name, _| is_there(name));
        self.disabled.retain(|name| is_there(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an operator does: `Pause` keeps its ticket, `TakeBack` and `Leave` are about the operator's last one.
    #[derive(Clone, Copy)]
    enum Act {
        Pause(Option<&'static str>),
        Resume(Option<&'static str>),
        Kill(&'static str),
        TakeBack,
    }
    use Act::{Kill, Pause, Resume, TakeBack};

    const SHOP: Option<&str> = Some("shop");
    const A: usize = 0;
    const B: usize = 1;

    /// Acts of two operators; then how the pauses stand that they asked for last, while connections are lent, and
    /// whether `shop` is paused.
    #[track_caller]
    fn check(acts: &[(usize, Act)], standings: [Option<Standing>; 2], is_paused: bool) {
        let mut switches = Switches::default();
        let mut tickets: [Option<PauseTicket>; 2] = [None, None];
        for (operator, act) in acts {
            match act {
                Pause(database) => tickets[*operator] = Some(switches.pause(*database).expect("not paused yet")),
                Resume(database) => assert!(switches.resume(*database)),
                Kill(database) => _ = switches.pause_by_name(database),
                TakeBack => switches.take_back(tickets[*operator].as_ref().expect("a pause")),
            }
        }
        assert_eq!(tickets.map(|ticket| ticket.map(|ticket| switches.standing(&ticket, true))), standings);
        assert_eq!(switches.is_paused("shop"), is_paused);
    }

    #[test]
    fn nobody_ends_a_pause_that_another_operator_asked_for() {
        let (waits, resumed) = (Some(Standing::Waits), Some(Standing::Resumed));
        for database in [None, SHOP] {
            let (pause, resume) = (Pause(database), Resume(database));
            check(&[(A, pause)], [waits, None], true);
            check(&[(A, pause), (A, TakeBack)], [resumed, None], false);
            check(&[(A, pause), (B, resume)], [resumed, None], false);
            check(&[(A, pause), (B, resume), (A, TakeBack)], [resumed, None], false);
            check(&[(A, pause), (B, resume), (B, pause)], [resumed, waits], true);
            check(&[(A, pause), (B, resume), (B, pause), (A, TakeBack)], [resumed, waits], true);
            check(&[(A, pause), (B, resume), (B, pause), (A, TakeBack), (B, TakeBack)], [resumed, resumed], false);
        }
        let pause = Pause(SHOP);
        check(&[(A, pause), (B, pause)], [waits, waits], true);
        check(&[(A, pause), (B, pause), (A, TakeBack)], [waits, waits], true);
        check(&[(A, pause), (B, pause), (A, TakeBack), (B, TakeBack)], [resumed, resumed], false);
        check(&[(A, pause), (B, pause), (A, Resume(SHOP))], [resumed, resumed], false);
        check(&[(A, pause), (B, Kill("shop")), (A, TakeBack)], [waits, None], true);
        check(&[(A, pause), (B, Pause(None)), (A, TakeBack)], [resumed, waits], true);
        check(&[(A, pause), (B, Pause(None)), (B, TakeBack)], [waits, resumed], true);
        check(&[(A, pause), (B, Pause(Some("other"))), (B, TakeBack)], [waits, resumed], true);
    }

    #[test]
    fn a_pause_is_reached_when_no_connection_is_left_unless_it_was_ended() {
        let mut switches = Switches::default();
        let ticket = switches.pause(None).expect("not paused yet");
        assert_eq!(switches.standing(&ticket, false), Standing::Reached);
        switches.resume(None);
        assert_eq!(switches.standing(&ticket, false), Standing::Resumed);
    }

    #[test]
    fn what_is_paused_as_a_whole_is_not_paused_again() {
        let mut switches = Switches::default();
        assert!(switches.pause(None).is_some());
        assert_eq!((switches.pause(None), switches.pause(SHOP)), (None, None));
        assert!(!switches.resume(SHOP));
    }

    #[test]
    fn a_suspension_lends_on_and_tolerates_no_pause_beside_it() {
        let mut switches = Switches::default();
        switches.pause_by_name("shop");
        assert_eq!(switches.suspend().err(), Some(ConsoleError::PausedDatabases));
        switches.resume(SHOP);
        let ticket = switches.suspend().expect("nothing is paused");
        assert_eq!(switches.state_of_all(), PauseState::Suspended);
        assert!(!switches.is_paused("shop"));
        assert_eq!(switches.suspend().err(), Some(ConsoleError::AlreadyPaused));
        assert_eq!(switches.pause(None), None);
        assert_eq!(switches.standing(&ticket, true), Standing::Waits);
        assert!(switches.resume(None));
        assert_eq!(switches.standing(&ticket, true), Standing::Resumed);
        assert_eq!(switches.state_of_all(), PauseState::Active);
    }

    #[test]
    fn a_database_paused_by_name_stays_so_when_all_are_resumed() {
        let mut switches = Switches::default();
        switches.pause_by_name("shop");
        switches.pause(None);
        assert!(switches.is_paused("other"));
        assert!(switches.resume(None));
        assert!(switches.is_paused("shop") && !switches.is_paused("other"));
        assert!(switches.resume(SHOP));
        assert!(!switches.is_paused("shop"));
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let mut switches = Switches::default();
        switches.pause_by_name("a");
        switches.disable("a", true);
        switches.disable("b", true);
        switches.retain(|name| name == "b");
        assert!(!switches.is_paused("a") && !switches.is_disabled("a") && switches.is_disabled("b"));
    }
}
