//! What of a session is part of the key of its answers, and who gets the same ones.

use std::sync::Arc;

use super::Session;
use crate::{
    cache::{ANYBODY, KeyPrefix},
    catalog::{self, Meaning, PathNumber},
    session::Prepared,
    sql::Statement,
};

impl Session {
    /// Where policies choose rows by what is known of the session, and that is in the key of its answers, these are kept.
    /// A setting that it has not set itself may be the role's, and nothing or empty from one server to the next.
    pub(super) fn within_its_rows(&self, meaning: Arc<Meaning>) -> Arc<Meaning> {
        match &meaning.scoped {
            Some(scoped) if self.database.settings.scopes_row_security && self.knows(&scoped.settings) => {
                Arc::clone(&scoped.meaning)
            }
            _ => meaning,
        }
    }

    fn knows(&self, settings: &[Box<str>]) -> bool {
        self.is_transparent
            && self.pins.is_empty()
            && self.suspects.is_empty()
            && settings.iter().all(|name| self.settings.get(name).is_some_and(|value| !value.is_empty()))
    }

    /// Has the server given its parameters the types that they would get now? Not where the catalog was another one when it
    /// was parsed, or names may have meant something else.
    pub(in crate::client) fn knows_types_of(&self, prepared: &Prepared) -> bool {
        let is_here = match (&prepared.parsed_in, &self.scope) {
            (Some(there), Some(here)) => Arc::ptr_eq(there, here) || there == here,
            _ => false,
        };
        is_here && prepared.epoch == self.database.real.ddl_epoch()
    }

    /// Is a value of each of these types, as `Parse` declares them, read the same way for everybody? A domain's checks may
    /// ask who reads it.
    pub(in crate::client) fn reads_parameters_of(&self, types: &[u8]) -> bool {
        let (types, _) = types.get(2..).unwrap_or_default().as_chunks::<4>();
        let is_plain = |oid| self.catalog.as_ref().is_some_and(|catalog| catalog.snapshot.is_plain_type(oid));
        types.iter().map(|oid| u32::from_be_bytes(*oid)).all(is_plain)
    }

    /// The prefix of the cache key of `statement`, which the session is about to run.
    pub(in crate::client) fn key_prefix(&mut self, statement: &Statement) -> Option<&KeyPrefix> {
        match self.database.settings.shares_answers && self.shares(statement) {
            true => self.shared_prefix(),
            false => self.own_prefix(),
        }
    }

    /// Does it get the answer that everybody gets who may read as much? Not where it runs as another role, or where
    /// anything of what it has set is not known.
    fn shares(&self, statement: &Statement) -> bool {
        let Some(catalog) = &self.catalog else { return false };
        self.settings.role().is_none()
            && self.pins.is_empty()
            && self.suspects.is_empty()
            && !self.may_shadow()
            && !self.has_own_names()
            && catalog.snapshot.is_anybodys(statement, self.path, &self.user)
    }

    /// Where it looks for names as its user does by itself, it shares the answers of those sessions of the user who have set
    /// nothing; elsewhere those of who looks there as well, whatever they have called it.
    fn own_prefix(&mut self) -> Option<&KeyPrefix> {
        if self.key_prefix.is_none() {
            // The one that the request was understood by.
            let snapshot = &self.catalog.as_ref()?.snapshot;
            let path = self.path;
            let is_usual = path == snapshot.path_of(&self.user);
            let schemas = snapshot.schemas_of(path).filter(|_| !is_usual).map(|schemas| format!("{schemas:?}"));
            let text = self.settings.search_path().filter(|_| path == PathNumber::UNKNOWN);
            let looks = [("schemas", schemas.as_deref()), ("search_path", text)];
            self.key_prefix = Some(self.prefix(snapshot, &self.user, looks));
        }
        self.key_prefix.as_ref()
    }

    /// Users begin with different paths, so the schemas are always told.
    fn shared_prefix(&mut self) -> Option<&KeyPrefix> {
        if self.shared_prefix.is_none() {
            let snapshot = &self.catalog.as_ref()?.snapshot;
            let schemas = format!("{:?}", snapshot.schemas_of(self.path)?);
            self.shared_prefix =
                Some(self.prefix(snapshot, ANYBODY, [("schemas", Some(&schemas)), ("search_path", None)]));
        }
        self.shared_prefix.as_ref()
    }

    /// `looks`: where names are looked up.
    fn prefix(&self, snapshot: &catalog::Snapshot, user: &str, looks: [(&str, Option<&str>); 2]) -> KeyPrefix {
        let looks = looks.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let tracked = self.parameters.iter().map(|(name, value): (&str, _)| (name, value));
        let parameters: Vec<_> = tracked.chain(self.settings.but_for_search_path()).chain(looks).collect();
        KeyPrefix::new(&self.database.name, snapshot.database_oid(), user, parameters)
    }
}
