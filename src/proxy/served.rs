//! One database that is being served, and who watches it.

use std::sync::{Arc, OnceLock};

use super::{control_plane::ControlPlane, directory::Shared, members::section_named};
use crate::{cluster::Database, config::DatabaseConfig, routing::MemberState};

/// A database that is being served.
pub(super) struct Served {
    pub database: Arc<Database>,
    pub section: DatabaseConfig,
    pub control: OnceLock<Arc<ControlPlane>>,
}

impl Served {
    /// Begins to watch it, if it is known as whom.
    pub(super) fn start(&self, shared: &Shared) {
        if let Some(control) = self.control.get() {
            control.start(shared);
        }
    }

    /// It is watched by `plane` from now on; false if somebody else does so, or if nobody shall any more.
    pub(super) fn watch(&self, plane: Arc<ControlPlane>, shared: &Shared) -> bool {
        let is_first = !self.database.is_retired() && self.control.set(plane).is_ok();
        if is_first {
            self.start(shared);
        }
        is_first
    }

    pub(super) fn stop(&self) {
        self.database.retire();
        if let Some(control) = self.control.get() {
            control.stop();
        }
    }

    /// State of the member of that name, if it will be the same server.
    pub(super) fn state_of(&self, next: &DatabaseConfig, member: &str) -> Option<&MemberState> {
        let (here, there) = (section_named(&self.section, member)?, section_named(next, member)?);
        let id = self.database.member_named(member).filter(|_| !here.needs_new_connections(there))?;
        self.database.topology.member(id).map(|member| &*member.state)
    }
}
