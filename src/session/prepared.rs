//! Prepared statements that outlive the server connection they were parsed on.
//!
//! A client's name maps to a statement of the process; a server knows it as `pgweir_N`. Two clients share a statement
//! only if text, parameter types and catalog epoch are the same to the byte: after DDL a new Parse is a new statement,
//! as it would be on a connection of the client's own.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use dashmap::DashMap;

use crate::sql::Statement;

/// Names a statement on every server connection; never used twice in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatementId(u64);

impl StatementId {
    /// Our own question for the relations that a transaction has written.
    pub const LOCK_SET: Self = Self(0);

    /// What names on servers begin with.
    pub const PREFIX: &str = "pgweir_";

    /// The name that servers know.
    #[must_use]
    pub fn server_name(self) -> String {
        format!("{}{}", Self::PREFIX, self.0)
    }
}

/// A parsed statement as its clients share it.
#[derive(Debug)]
pub struct Prepared {
    /// Names it on servers.
    pub id: StatementId,
    /// The name that servers know, as bytes.
    pub server_name: Box<[u8]>,
    /// Its text.
    pub text: Box<[u8]>,
    /// Parameter type OIDs as in `Parse`, count included.
    pub types: Box<[u8]>,
    /// What it means.
    pub statement: Arc<Statement>,
    /// The catalog epoch in which it was parsed.
    pub epoch: u64,
    /// Within which its text means the same to everybody; `None`: it is one session's own.
    pub scope: Option<Arc<str>>,
    /// Within which it was parsed; `None`: its names may have meant something else then.
    pub parsed_in: Option<Arc<str>>,
    /// A server has taken it: every other one of the database will.
    pub is_proven: AtomicBool,
}

/// Text, types, catalog epoch, and the database and user for whom its names have their meaning.
type Identity = (Box<[u8]>, Box<[u8]>, u64, Arc<str>);

/// Every statement that some client of the process holds.
#[derive(Debug, Default)]
pub struct StatementRegistry {
    statements: DashMap<Identity, Weak<Prepared>>,
    next: AtomicU64,
    sweep_at: AtomicU64,
}

/// Dead entries are swept when the registry has grown to this many more than it held after the last sweep.
const SWEEP_STEP: u64 = 1024;

impl StatementRegistry {
    /// The shared statement of this text.
    pub fn intern(
        &self,
        text: &[u8],
        types: &[u8],
        epoch: u64,
        scope: &Arc<str>,
        analyze: impl FnOnce() -> Arc<Statement>,
    ) -> Arc<Prepared> {
        let identity = (text.into(), types.into(), epoch, Arc::clone(scope));
        if let Some(found) = self.statements.get(&identity).and_then(|found| found.upgrade()) {
            return found;
        }
        self.sweep();
        let scopes = (Some(Arc::clone(scope)), Some(Arc::clone(scope)));
        let fresh = self.number(text, types, epoch, scopes, analyze());
        self.statements.insert(identity, Arc::downgrade(&fresh));
        fresh
    }

    /// A statement that nobody else shares: the unnamed one, and those that mean something else to each session
    /// (`parsed_in` is `None`).
    pub fn fresh(
        &self,
        text: &[u8],
        types: &[u8],
        epoch: u64,
        parsed_in: Option<Arc<str>>,
        statement: Arc<Statement>,
    ) -> Arc<Prepared> {
        self.number(text, types, epoch, (None, parsed_in), statement)
    }

    fn number(
        &self,
        text: &[u8],
        types: &[u8],
        epoch: u64,
        (scope, parsed_in): (Option<Arc<str>>, Option<Arc<str>>),
        statement: Arc<Statement>,
    ) -> Arc<Prepared> {
        let id = StatementId(self.next.fetch_add(1, Ordering::Relaxed) + 1);
        Arc::new(Prepared {
            id,
            server_name: id.server_name().into_bytes().into(),
            text: text.into(),
            types: types.into(),
            statement,
            epoch,
            scope,
            parsed_in,
            is_proven: AtomicBool::new(false),
        })
    }

    fn sweep(&self) {
        let len = self.statements.len() as u64;
        if len >= self.sweep_at.load(Ordering::Relaxed) + SWEEP_STEP {
            self.statements.retain(|_, statement| statement.strong_count() > 0);
            self.sweep_at.store(self.statements.len() as u64, Ordering::Relaxed);
        }
    }

    /// Statements known, dead ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.statements.len()
    }

    /// No statement is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }
}

/// What a name stands for.
#[derive(Debug)]
struct Named {
    prepared: Arc<Prepared>,
    /// The statement that the client's `Parse` gave the name to.
    given_by: StatementId,
}

/// One client's names.
#[derive(Debug, Default)]
pub struct PreparedNames {
    named: HashMap<Box<[u8]>, Named, foldhash::fast::RandomState>,
    unnamed: Option<Arc<Prepared>>,
}

impl PreparedNames {
    /// What the client calls so; the empty name is the unnamed statement.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&Arc<Prepared>> {
        if name.is_empty() { self.unnamed.as_ref() } else { self.named.get(name).map(|named| &named.prepared) }
    }

    /// The client prepared it. What had the name before comes back.
    pub fn insert(&mut self, name: &[u8], prepared: Arc<Prepared>) -> Option<Arc<Prepared>> {
        if name.is_empty() {
            return self.unnamed.replace(prepared);
        }
        let named = Named { given_by: prepared.id, prepared };
        self.named.insert(name.into(), named).map(|before| before.prepared)
    }

    /// From now on the name stands for another statement of the same text: what becomes of the client's `Parse`
    /// becomes of the name as before.
    pub fn substitute(&mut self, name: &[u8], prepared: Arc<Prepared>) {
        if let Some(named) = self.named.get_mut(name) {
            named.prepared = prepared;
        }
    }

    /// What the client calls the statement that servers know by this name.
    #[must_use]
    pub fn name_of(&self, server_name: &[u8]) -> Option<&[u8]> {
        let mut named = self.named.iter();
        named.find(|(_, named)| *named.prepared.server_name == *server_name).map(|(name, _)| &**name)
    }

    /// The client closed it.
    pub fn remove(&mut self, name: &[u8]) -> Option<Arc<Prepared>> {
        if name.is_empty() { self.unnamed.take() } else { self.named.remove(name).map(|named| named.prepared) }
    }

    /// It was not prepared after all. A later statement of the same name, sent behind it, stays.
    pub fn take_away(&mut self, name: &[u8], id: StatementId) {
        let is_given_by_it = match name.is_empty() {
            true => self.unnamed.as_ref().is_some_and(|prepared| prepared.id == id),
            false => self.named.get(name).is_some_and(|named| named.given_by == id),
        };
        if is_given_by_it {
            self.remove(name);
        }
    }

    /// It was not closed after all. A later statement of the same name, sent behind it, stays.
    pub fn give_back(&mut self, name: &[u8], prepared: Arc<Prepared>) {
        if self.get(name).is_none() {
            self.insert(name, prepared);
        }
    }

    /// `DEALLOCATE ALL` or `DISCARD ALL`: only statements that are being prepared behind it stay.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8]) -> bool) {
        self.named.retain(|name, _| keep(name));
        if !keep(b"") {
            self.unnamed = None;
        }
    }

    /// Every statement with the name that the client has given it.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Arc<Prepared>)> {
        let unnamed = self.unnamed.iter().map(|prepared| (&b""[..], prepared));
        self.named.iter().map(|(name, named)| (&**name, &named.prepared)).chain(unnamed)
    }

    /// Bytes of all their names, texts and types.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.iter().map(|(name, prepared)| name.len() + prepared.text.len() + prepared.types.len()).sum()
    }

    /// Named statements held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.named.len()
    }

    /// No named statement is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }
}

/// What one server connection has prepared, least recently used first out.
#[derive(Debug, Default)]
pub struct ServerStatements {
    used: HashMap<StatementId, u64, foldhash::fast::RandomState>,
    clock: u64,
    /// The unnamed statement it holds.
    pub unnamed: Option<StatementId>,
}

impl ServerStatements {
    /// Is it prepared there? Counts as a use.
    pub fn touch(&mut self, id: StatementId) -> bool {
        self.clock += 1;
        match self.used.get_mut(&id) {
            Some(used) => {
                *used = self.clock;
                true
            }
            None => false,
        }
    }

    /// It will be, once its Parse has been answered.
    pub fn insert(&mut self, id: StatementId) {
        self.clock += 1;
        self.used.insert(id, self.clock);
    }

    /// It is not.
    pub fn remove(&mut self, id: StatementId) {
        self.used.remove(&id);
        if self.unnamed == Some(id) {
            self.unnamed = None;
        }
    }

    /// `DEALLOCATE ALL` or `DISCARD ALL`.
    pub fn clear(&mut self) {
        self.retain(|_| false);
    }

    /// As [`Self::clear`], but statements that are being prepared behind it stay.
    pub fn retain(&mut self, mut keep: impl FnMut(StatementId) -> bool) {
        self.used.retain(|id, _| keep(*id));
        self.unnamed = self.unnamed.filter(|id| keep(*id));
    }

    /// The least recently used statement beyond `limit`, taken off the list; to be closed when no batch is under way.
    pub fn evict(&mut self, limit: usize) -> Option<StatementId> {
        if self.used.len() <= limit {
            return None;
        }
        let oldest = self.used.iter().min_by_key(|(_, used)| **used).map(|(id, _)| *id)?;
        self.used.remove(&oldest);
        Some(oldest)
    }

    /// Statements prepared.
    #[must_use]
    pub fn len(&self) -> usize {
        self.used.len()
    }

    /// Nothing is prepared.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_statement_is_evicted_first() {
        let mut server = ServerStatements::default();
        for id in 1..=3 {
            server.insert(StatementId(id));
        }
        assert!(server.touch(StatementId(1)));
        assert_eq!(server.evict(2), Some(StatementId(2)));
        assert_eq!(server.evict(2), None);
        assert!(!server.touch(StatementId(2)));
    }

    fn prepared(id: u64) -> Arc<Prepared> {
        let statement = crate::sql::Analyzer::new(1).analyze("select 1");
        let text = Box::default();
        Arc::new(Prepared {
            id: StatementId(id),
            server_name: Box::default(),
            text,
            types: Box::default(),
            statement,
            epoch: 0,
            scope: None,
            parsed_in: None,
            is_proven: AtomicBool::new(false),
        })
    }

    #[test]
    fn what_an_error_takes_back_leaves_later_statements_alone() {
        let mut names = PreparedNames::default();
        for name in [&b""[..], b"s"] {
            names.insert(name, prepared(2));
            names.take_away(name, StatementId(1));
            names.give_back(name, prepared(1));
            assert_eq!(names.get(name).map(|kept| kept.id), Some(StatementId(2)));
            names.take_away(name, StatementId(2));
            names.give_back(name, prepared(1));
            assert_eq!(names.get(name).map(|kept| kept.id), Some(StatementId(1)));
        }
    }

    #[test]
    fn a_name_whose_statement_was_substituted_goes_with_the_parse_that_gave_it() {
        let mut names = PreparedNames::default();
        names.insert(b"s", prepared(7));
        names.substitute(b"s", prepared(8));
        assert_eq!(names.get(b"s").unwrap().id, StatementId(8));
        names.take_away(b"s", StatementId(8));
        assert_eq!(names.len(), 1, "not what the client's Parse prepared");
        names.take_away(b"s", StatementId(7));
        assert!(names.is_empty());
        names.substitute(b"s", prepared(9));
        assert!(names.is_empty(), "nothing to substitute");
    }

    #[test]
    fn a_removed_unnamed_statement_is_no_longer_on_the_server() {
        let mut server = ServerStatements { unnamed: Some(StatementId(7)), ..ServerStatements::default() };
        server.remove(StatementId(7));
        assert_eq!(server.unnamed, None);
    }
}
