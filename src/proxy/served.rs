//! One database that is being served, and who watches it.

use std::sync::{Arc, OnceLock};

use super::{
    control_plane::{ControlPlane, Memory},
    directory::Shared,
    members::{members, section_named},
};
use crate::{
    cluster::Database,
    config::DatabaseConfig,
    routing::{MemberId, MemberState},
};

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

    /// What those who watch its members then shall know of them.
    pub(super) fn memory_for(&self, next: &DatabaseConfig) -> Memory {
        let primary = self.primary_of(next);
        let configured = || Memory::of_configured(primary);
        let of_plane = |plane: &Arc<ControlPlane>| plane.memory().renumbered(primary);
        self.control.get().filter(|plane| plane.watches_members()).map_or_else(configured, of_plane)
    }

    /// What those who watched it until now have learnt while it was built.
    pub(super) fn catch_up(&self, before: &Self) {
        let is_same = Arc::ptr_eq(&self.database.real, &before.database.real);
        if let Some(plane) = self.control.get().filter(|_| is_same) {
            plane.catch_up(before.memory_for(&self.section));
        }
    }

    /// The primary's number there, if it will be the same server.
    fn primary_of(&self, next: &DatabaseConfig) -> Option<MemberId> {
        let primary = self.database.member_name(self.database.primary()?)?;
        self.state_of(next, primary)?;
        let index = members(next).iter().position(|(name, _)| **name == **primary)?;
        Some(MemberId(index as u16))
    }

    /// Do all numbers of members mean the same servers there?
    pub(super) fn has_members_of(&self, next: &DatabaseConfig) -> bool {
        let names = members(next).into_iter().map(|(name, _)| name);
        let known = self.database.member_names.iter().map(|name| name.to_string());
        names.eq(known) && self.database.member_names.iter().all(|name| self.state_of(next, name).is_some())
    }
}
