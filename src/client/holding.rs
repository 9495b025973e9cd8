//! What a session holds on to, as its server says.

use super::Client;
use crate::session::{Held, PinSet};

/// Attempts to learn what a session holds on to.
const MOST_PROBES: u8 = 4;

impl Client {
    /// What the session holds on to is not known. It is asked for again; if that is in vain, nobody else may have the
    /// server.
    pub(super) fn probe_again(&mut self) {
        self.session.is_probed = false;
        if self.probe_failures < MOST_PROBES {
            self.session.must_probe = true;
        } else {
            self.probe_failures = 0;
            self.set_pins(self.session.pins.union(PinSet::UNNAMED_PARAMETER));
        }
    }

    /// The server has said what the session holds on to, and what it has set.
    pub(super) fn take_held(&mut self, held: Held) {
        self.probe_failures = 0;
        self.session.is_probed = false;
        self.set_pins(held.pins.union(self.session.pins.unobservable()));
        let (Some(settings), Some(link)) = (held.settings, &mut self.link) else { return };
        // What was not asked about is as it was.
        let covers = |name: &str| self.probe.as_ref().is_none_or(|probe| probe.covers(name));
        let core = link.server.core_mut();
        core.settings = core.settings.but_for(covers).below(&settings);
        let settings = self.session.settings.but_for(covers).below(&settings.beyond(&core.began_with));
        self.session.has_set(&settings);
        self.is_out_of_step =
            !self.session.pins.is_empty() && *core.settings_for(&self.session.settings) != core.settings;
    }

    pub(super) fn set_pins(&mut self, pins: PinSet) {
        if let Some(link) = &self.link
            && let Some(pinned) = link.pool.count_pins(self.session.pins, pins)
        {
            let most = self.context.settings().config.sessions.max_pinned;
            self.is_one_too_many = most > 0 && pinned > most;
        }
        self.session.pins = pins;
        self.info.set_pins(pins, self.context.clock.now());
    }
}
