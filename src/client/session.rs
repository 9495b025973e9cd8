//! What one client has said so far, and what its next request means.

mod key;

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use super::{
    context::Context,
    facts::{Facts, Written},
    lazy_begin::Lazy,
    read_only::ReadOnly,
    rows::{self, Bound},
};
use crate::{
    cache::{CatalogEpoch, KeyBuffer, KeyPrefix},
    catalog::{self, Effects, Meaning, PathNumber, Row},
    cluster::{Database, LoadedCatalog},
    lsn::Lsn,
    protocol::{FrameError, frontend, frontend::Target, frontend::tag},
    routing::{Fence, MemberId},
    session::{
        Parameters, PinSet, Prepared, PreparedNames, Sequences, SessionSettings, Undo, is_custom, parameters::tracked,
        request::frames,
    },
    sql::{DiscardTarget, RouteHint, Statement, StatementKind},
};

/// One message of an extended request, understood.
#[derive(Debug)]
pub(super) enum Step {
    /// `Parse`. `is_taken`: the name is in use, and the server shall say so.
    Parse { prepared: Arc<Prepared>, is_taken: bool, undo: Undo },
    /// `Parse` of a statement too long to be kept.
    LongParse,
    /// `Bind`; `None`: the server shall say that it does not exist.
    Bind { prepared: Option<Arc<Prepared>>, is_unnamed: bool, portal_is_unnamed: bool },
    /// `Describe` of a statement.
    DescribeStatement { prepared: Option<Arc<Prepared>> },
    /// `Describe` of a portal: the one bound last?
    DescribePortal { is_bound_last: bool },
    /// `Execute`.
    Execute { commits: bool, max_rows: i32, is_bound_last: bool },
    /// `Close` of a statement that is known.
    CloseStatement { undo: Undo },
    /// `Close` of anything else.
    CloseOther,
    /// `Sync`
    Sync,
    /// `Flush`
    Flush,
}

impl Step {
    /// Does it prepare a statement under a name?
    pub(super) fn names_statement(&self) -> bool {
        match self {
            Self::Parse { undo: Undo::Unname(name), .. } => !name.is_empty(),
            Self::Parse { .. } | Self::LongParse => true,
            _ => false,
        }
    }
}

/// A step and where it stands in its request.
#[derive(Debug)]
pub(super) struct Located {
    pub step: Step,
    pub range: Range<usize>,
}

/// SessionSettings of the client's own, by `SET pgweir.…`.
#[derive(Debug, Default)]
pub(super) struct OwnSettings {
    pub route: Option<RouteHint>,
    pub cache_is_off: bool,
    /// Reads see every write, also those that bypass the proxy.
    pub is_strict: bool,
    pub max_staleness: Option<u64>,
    /// What a replica must have replayed to serve its reads; 0 is nothing.
    pub min_lsn: Lsn,
}

/// What the open transaction has written so far.
#[derive(Debug, Default)]
pub(super) struct TransactionWrites {
    pub written: Written,
    pub catalog_change: bool,
    /// It may have called `nextval()`.
    pub advances_sequences: bool,
    /// The catalog that its first statement was understood with.
    pub epoch: Option<CatalogEpoch>,
    /// Names may mean something else until it ends.
    pub has_own_names: bool,
    /// It has asked so far what anybody may ask, by statements that have a snapshot each.
    pub only_asks: bool,
    /// Its last unnamed portal is none that its server knows: the cache has answered.
    pub has_no_portal: bool,
    /// It runs on a replica.
    pub read_only: Option<Box<ReadOnly>>,
    /// A plain BEGIN has opened it, and nothing has needed the primary so far.
    pub lazy: Option<Box<Lazy>>,
}

/// One client's session.
pub(super) struct Session {
    pub context: Arc<Context>,
    pub database: Arc<Database>,
    pub user: Arc<str>,
    /// Within it a text means the same to everybody; `None`: to be worked out.
    scope: Option<Arc<str>>,
    pub names: PreparedNames,
    pub parameters: Parameters,
    /// What it has set beyond those.
    pub settings: SessionSettings,
    /// Where it may have called `nextval()`.
    pub sequences: Sequences,
    /// What it began with, by its start-up packet: RESET returns there.
    pub began_with: SessionSettings,
    /// Its state follows it from server to server, or ties it to one; else as under PgBouncer.
    pub is_transparent: bool,
    pub pins: PinSet,
    /// What its last requests may have left behind, not asked yet.
    pub suspects: PinSet,
    /// The server shall be asked what the session holds on to.
    pub must_probe: bool,
    /// It has been asked and has not answered.
    pub is_probed: bool,
    /// How string literals are read may have changed, and the server has not said.
    pub strings_change: bool,
    /// How literals are read when a statement is parsed may have changed, and the server has not said.
    pub scope_changes: bool,
    /// When the server connection that it holds was opened.
    pub server_opened: u64,
    pub fence: Fence,
    /// Of several members that take writes, the one that it was given last.
    pub home: Option<MemberId>,
    pub transaction: TransactionWrites,
    pub own: OwnSettings,
    /// How old data may be that it reads, where neither it nor a hint says, nanoseconds.
    pub max_staleness: Option<u64>,
    pub steps: Vec<Located>,
    pub key: KeyBuffer,
    key_prefix: Option<KeyPrefix>,
    /// That of answers which it shares with other roles.
    shared_prefix: Option<KeyPrefix>,
    last_meaning: Option<(Arc<Statement>, Names, Arc<Meaning>)>,
    pub(super) catalog: Option<Arc<LoadedCatalog>>,
    catalog_version: u64,
    /// Where its names are looked up by that catalog, as far as it has not set anything that the server has not told.
    pub(super) path: PathNumber,
}

/// What is known of the names in a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    /// They are looked up along the path of the session.
    Along,
    /// They are looked up along another one.
    Anywhere,
    /// They may be those of temporary objects.
    Shadowed,
}

/// Longest `Parse` text that is kept to be prepared again elsewhere.
const KEPT_TEXT_BYTES: usize = 1024 * 1024;

/// SET or RESET of `standard_conforming_strings`: what is sent behind it is read by other rules.
fn changes_strings(kind: &StatementKind) -> bool {
    match kind {
        StatementKind::Set { name, .. } => &**name == "standard_conforming_strings",
        StatementKind::Reset { name } => name.as_deref().is_none_or(|name| name == "standard_conforming_strings"),
        _ => false,
    }
}

/// SET or RESET of a parameter that [`Session::scope`] names.
fn changes_scope(kind: &StatementKind) -> bool {
    match kind {
        StatementKind::Set { name, .. } => tracked(name).is_some(),
        StatementKind::Reset { .. } | StatementKind::Discard(DiscardTarget::All) => true,
        _ => false,
    }
}

/// Where a session of `user` that has set this looks for names.
fn path(database: &Database, catalog: Option<&LoadedCatalog>, user: &str, settings: &SessionSettings) -> PathNumber {
    match catalog.map(|catalog| &catalog.snapshot) {
        None => PathNumber::UNKNOWN,
        Some(_) if database.settings.has_own_names || settings.change_triggers() => PathNumber::UNKNOWN,
        Some(snapshot) if settings.change_names() => snapshot.path_along(user, settings.role(), settings.search_path()),
        Some(snapshot) => snapshot.path_of(user),
    }
}

fn custom_names(settings: &SessionSettings) -> impl Iterator<Item = &str> {
    settings.iter().map(|(name, _)| name).filter(|name| is_custom(name))
}

impl Session {
    pub(super) fn new(
        context: Arc<Context>,
        database: Arc<Database>,
        user: Arc<str>,
        parameters: Parameters,
        began_with: SessionSettings,
    ) -> Self {
        let is_transparent = context.settings().config.sessions.transparent_sessions;
        let mut suspects = PinSet::default();
        if !database.real.custom_settings.learn(custom_names(&began_with)) {
            suspects = PinSet::UNNAMED_PARAMETER;
        }
        let catalog_version = database.real.catalog_version();
        let catalog = database.catalog();
        let settings = began_with.below(&SessionSettings::default());
        let path = path(&database, catalog.as_deref(), &user, &settings);
        Self {
            scope: None,
            context,
            database,
            user,
            names: PreparedNames::default(),
            parameters,
            settings,
            sequences: Sequences::default(),
            began_with,
            is_transparent,
            pins: PinSet::default(),
            suspects,
            must_probe: false,
            is_probed: false,
            strings_change: false,
            scope_changes: false,
            server_opened: u64::MAX,
            fence: Fence::NONE,
            home: None,
            transaction: TransactionWrites::default(),
            own: OwnSettings::default(),
            max_staleness: None,
            steps: Vec::new(),
            key: KeyBuffer::default(),
            key_prefix: None,
            shared_prefix: None,
            last_meaning: None,
            catalog,
            catalog_version,
            path,
        }
    }

    /// Goes on with the database that is served under the name now; false if there is none.
    pub(super) fn rejoin(&mut self) -> bool {
        let Ok(database) = self.context.directory.database(&self.database.name) else { return false };
        self.scope = None;
        let home = self.home.and_then(|home| self.database.member_name(home));
        self.home = home.and_then(|home| database.member_named(home));
        self.database = database;
        self.take_catalog(self.database.real.catalog_version());
        true
    }

    /// The catalog in force, asked for again only when it has changed.
    pub(super) fn catalog(&mut self) -> Option<&Arc<LoadedCatalog>> {
        let version = self.database.real.catalog_version();
        if version != self.catalog_version {
            self.take_catalog(version);
        }
        self.catalog.as_ref()
    }

    /// The one that its statements are understood by.
    pub(super) fn known_catalog(&self) -> Option<&LoadedCatalog> {
        self.catalog.as_deref()
    }

    fn take_catalog(&mut self, version: u64) {
        self.catalog_version = version;
        self.catalog = self.database.catalog();
        self.path = path(&self.database, self.catalog.as_deref(), &self.user, &self.settings);
        self.forget_prefixes();
    }

    fn forget_prefixes(&mut self) {
        self.key_prefix = None;
        self.shared_prefix = None;
    }

    fn set(&mut self, settings: SessionSettings) {
        self.path = path(&self.database, self.catalog.as_deref(), &self.user, &settings);
        self.settings = settings;
        self.forget_prefixes();
        self.scope = None;
    }

    /// Database, user, and the parameters by which parse analysis reads literals: `'2026-01-01'::timestamptz` is a
    /// constant from then on.
    fn scope(&mut self) -> Arc<str> {
        let Self { scope, database, user, parameters, settings, .. } = self;
        let scope = scope.get_or_insert_with(|| {
            let mut scope = format!("{}\0{user}", database.name);
            for name in ["DateStyle", "TimeZone", "IntervalStyle", "client_encoding", "standard_conforming_strings"] {
                scope.push('\0');
                scope.push_str(parameters.get(name).unwrap_or_default());
            }
            for (name, value) in settings.iter() {
                scope.extend(["\0", name, "=", value]);
            }
            scope.into()
        });
        Arc::clone(scope)
    }

    /// May the names in a statement mean something to this session alone? Then nobody shares its `Parse`: the server
    /// fixes parameter types and columns when it parses.
    fn has_own_meanings(&self, statement: &Statement) -> bool {
        let runs_another = statement.parts.iter().any(|part| part.kind == StatementKind::Execute);
        runs_another || self.may_shadow() || self.has_own_names() || self.strings_change || self.scope_changes
    }

    /// Relations of the session's own may stand before those of the catalog.
    fn may_shadow(&self) -> bool {
        self.must_probe || self.is_probed || self.pins.union(self.suspects).contains(PinSet::TEMP)
    }

    /// Names may be looked up along a path of the session's own.
    fn has_own_names(&self) -> bool {
        self.transaction.has_own_names
            || self.pins.union(self.suspects).contains(PinSet::SET_PARAMETER)
            || self.server_opened < self.database.real.defaults_since()
    }

    /// Do its transactions run serializable, unless they say otherwise? They may, where nobody knows.
    pub(super) fn is_serializable(&self) -> bool {
        match self.settings.isolation() {
            Some(level) => level.eq_ignore_ascii_case("serializable"),
            None if self.database.settings.has_own_isolation => true,
            None => self.catalog.as_ref().is_some_and(|catalog| catalog.snapshot.is_serializable(&self.user)),
        }
    }

    /// Has each statement of its transactions a snapshot of its own, unless they say otherwise?
    pub(super) fn reads_committed(&self) -> bool {
        match self.settings.isolation() {
            Some(level) => catalog::reads_committed(level),
            None if self.database.settings.has_own_isolation => false,
            None => self.catalog.as_ref().is_some_and(|catalog| catalog.snapshot.reads_committed(&self.user)),
        }
    }

    fn epoch(&mut self) -> Option<CatalogEpoch> {
        self.catalog().map(|catalog| catalog.epoch)
    }

    /// What names mean behind statements of the same request that have these effects.
    fn names_behind(&self, before: Effects) -> Names {
        if self.may_shadow() || before.may_shadow() {
            Names::Shadowed
        } else if self.has_own_names() || before.intersects(Effects::NEW_NAMES) {
            Names::Anywhere
        } else {
            Names::Along
        }
    }

    fn meaning(&mut self, statement: &Arc<Statement>, names: Names) -> Arc<Meaning> {
        self.catalog();
        let cells = &self.database.cells;
        match &self.catalog {
            // Definitions have changed and nobody has read them yet.
            Some(catalog) if !cells.is_in_force(catalog.epoch) => Arc::new(catalog::meaning_without_catalog(statement)),
            Some(catalog) => match names {
                Names::Along => self.within_its_rows(catalog.snapshot.meaning_along(statement, self.path)),
                Names::Anywhere => catalog.snapshot.meaning_anywhere(statement),
                Names::Shadowed => catalog.snapshot.meaning_shadowed(statement),
            },
            None => Arc::new(catalog::meaning_without_catalog(statement)),
        }
    }

    /// Does it run a statement that looks like a read and is known to write?
    pub(super) fn has_learned_write(&self, facts: &Facts) -> bool {
        let learned = &self.database.real.learned_writes;
        if learned.is_empty() {
            return false;
        }
        let is_learned = |statement: &Statement| learned.contains(statement.fingerprint);
        let binds_one = self.steps.iter().any(|located| match &located.step {
            Step::Bind { prepared: Some(prepared), .. } => is_learned(&prepared.statement),
            _ => false,
        });
        binds_one || facts.statement.as_deref().is_some_and(is_learned)
    }

    /// As [`Self::meaning`], asked for the same statement again and again within one request, of which something ran before.
    pub(super) fn meaning_once(&mut self, statement: &Arc<Statement>, before: Effects) -> Arc<Meaning> {
        let names = self.names_behind(before);
        if let Some((last, known, meaning)) = &self.last_meaning
            && Arc::ptr_eq(last, statement)
            && *known == names
        {
            return Arc::clone(meaning);
        }
        let meaning = self.meaning(statement, names);
        self.last_meaning = Some((Arc::clone(statement), names, Arc::clone(&meaning)));
        meaning
    }

    /// Are its literals read as every server reads them that has not been told otherwise?
    pub(super) fn has_standard_strings(&self) -> bool {
        !self.strings_change && self.parameters.get("standard_conforming_strings") != Some("off")
    }

    /// `client_encoding`
    pub(super) fn speaks_utf8(&self) -> bool {
        self.parameters.get("client_encoding") == Some("UTF8")
    }

    fn analyze(&mut self, text: &[u8]) -> Option<Arc<Statement>> {
        let text = std::str::from_utf8(text).ok()?;
        if !self.has_standard_strings() {
            return Some(self.context.analyzer.describe_nonstandard(text));
        }
        let statement = self.context.analyzer.analyze(text);
        self.strings_change = statement.parts.iter().any(|part| changes_strings(&part.kind));
        self.scope_changes |= statement.parts.iter().any(|part| changes_scope(&part.kind));
        Some(statement)
    }

    /// The rows that a request writes, where somebody has to know.
    fn rows_written(&self, meaning: &Meaning, text: &[u8], bound: Option<Bound<'_>>) -> Option<Vec<Row>> {
        self.database.marks_writes().then(|| rows::written(meaning, text, bound))?
    }

    /// What a simple query means. It ends the unnamed statement, as on the server.
    pub(super) fn read_query(&mut self, text: &[u8]) -> Facts {
        self.names.remove(b"");
        let Some(statement) = self.analyze(text) else {
            return Facts::opaque("not_utf8");
        };
        let mut facts = Facts { epoch: self.epoch(), ..Facts::new() };
        let names = self.names_behind(Effects::default());
        let meaning = self.meaning(&statement, names);
        let rows = self.rows_written(&meaning, text, None);
        facts.execute_on(&statement, meaning, rows);
        facts
    }

    /// What an extended request means; leaves its steps in `self.steps`.
    pub(super) fn read_extended(&mut self, request: &[u8]) -> Result<Facts, FrameError> {
        self.steps.clear();
        self.last_meaning = None;
        let mut facts = Facts { epoch: self.epoch(), ..Facts::new() };
        let (mut bound_commits, mut bound_last) = (false, None);
        let mut at = 0;
        for frame in frames(request) {
            let range = at..at + frame.len();
            at = range.end;
            let step = match frame.first().copied().unwrap_or_default() {
                tag::PARSE => self.read_parse(frame, &mut facts)?,
                tag::BIND => {
                    let (portal, name, values) = frontend::bind(frame)?;
                    bound_last = Some(portal);
                    let prepared = self.named(name);
                    if let Some(prepared) = &prepared {
                        let meaning = self.meaning_once(&prepared.statement, facts.effects);
                        bound_commits = !meaning.transaction.is_empty();
                        let is_current = self.knows_types_of(prepared);
                        let bound = Bound::new(values, &prepared.types, is_current);
                        let rows = self.rows_written(&meaning, &prepared.text, Some(bound));
                        facts.execute_on(&prepared.statement, meaning, rows);
                    } else {
                        facts.execute_unknown();
                    }
                    Step::Bind { prepared, is_unnamed: name.is_empty(), portal_is_unnamed: portal.is_empty() }
                }
                tag::DESCRIBE => match frontend::target(frame)? {
                    (Target::Portal, portal) => Step::DescribePortal { is_bound_last: bound_last == Some(portal) },
                    (Target::Statement, name) => {
                        let prepared = self.named(name);
                        if let Some(prepared) = &prepared {
                            let meaning = self.meaning_once(&prepared.statement, facts.effects);
                            facts.mention(&prepared.statement, &meaning);
                        }
                        Step::DescribeStatement { prepared }
                    }
                },
                tag::EXECUTE => {
                    let (portal, max_rows) = frontend::execute(frame)?;
                    Step::Execute { commits: bound_commits, max_rows, is_bound_last: bound_last == Some(portal) }
                }
                tag::CLOSE => match frontend::target(frame)? {
                    (Target::Statement, name) => match self.names.remove(name) {
                        Some(prepared) => Step::CloseStatement { undo: Undo::Rename(name.into(), prepared) },
                        None => Step::CloseOther,
                    },
                    (Target::Portal, _) => Step::CloseOther,
                },
                tag::SYNC => Step::Sync,
                _ => Step::Flush,
            };
            self.steps.push(Located { step, range });
        }
        Ok(facts)
    }

    /// Is there nothing of it that only this process, or one server connection, knows?
    pub(super) fn can_change_process(&self) -> bool {
        self.pins.is_empty() && self.suspects.is_empty() && !self.must_probe && !self.is_probed && !self.strings_change
    }

    /// A statement that servers have taken from this client in another process.
    pub(super) fn remember_statement(&mut self, name: &[u8], text: &[u8], types: &[u8]) {
        let mut message = Vec::new();
        frontend::put_parse(&mut message, name, text, types);
        if let Ok(Step::Parse { prepared, .. }) = self.read_parse(&message, &mut Facts::default()) {
            prepared.is_proven.store(true, Ordering::Relaxed);
        }
    }

    fn read_parse(&mut self, frame: &[u8], facts: &mut Facts) -> Result<Step, FrameError> {
        let (name, text, types) = frontend::parse(frame)?;
        if text.len() > KEPT_TEXT_BYTES {
            facts.needs_primary = true;
            facts.reason = "oversized";
            facts.written.add(&Written::Anything);
            return Ok(Step::LongParse);
        }
        let epoch = self.database.real.ddl_epoch();
        if name.is_empty()
            && let Some(same) = self.named(name)
            && same.epoch == epoch
            && !self.strings_change
            && self.parameters.get("standard_conforming_strings") != Some("off")
            && *same.text == *text
            && *same.types == *types
        {
            let meaning = self.meaning_once(&same.statement, facts.effects);
            facts.mention(&same.statement, &meaning);
            return Ok(Step::Parse { prepared: same, is_taken: false, undo: Undo::Unname(Box::default()) });
        }
        let statement = self.analyze(text);
        let is_text = statement.is_some();
        let statement = statement.unwrap_or_else(|| self.context.analyzer.analyze("\u{0}"));
        let scope = (!self.has_own_meanings(&statement)).then(|| self.scope());
        let registry = &self.context.statements;
        let prepared = match scope {
            Some(scope) if !name.is_empty() => registry.intern(text, types, epoch, &scope, || Arc::clone(&statement)),
            parsed_in => registry.fresh(text, types, epoch, parsed_in, Arc::clone(&statement)),
        };
        if is_text {
            let meaning = self.meaning_once(&statement, facts.effects);
            facts.mention(&statement, &meaning);
        } else {
            facts.needs_primary = true;
            facts.reason = "not_utf8";
        }
        if let Some(holder) = self.named(name).filter(|_| !name.is_empty()) {
            return Ok(Step::Parse { prepared: holder, is_taken: true, undo: Undo::Nothing });
        }
        self.names.insert(name, Arc::clone(&prepared));
        Ok(Step::Parse { prepared, is_taken: false, undo: Undo::Unname(name.into()) })
    }

    /// What a name means behind the messages read so far. Names change as messages are read; what the server then
    /// does not carry out is taken back when its error arrives.
    ///
    /// A statement that is shared with others must not be parsed again, on another server, by settings or names that
    /// only this session has by now: it becomes another statement then.
    fn named(&mut self, name: &[u8]) -> Option<Arc<Prepared>> {
        let prepared = Arc::clone(self.names.get(name)?);
        let Some(scope) = &prepared.scope else { return Some(prepared) };
        if !prepared.is_proven.load(Ordering::Relaxed) {
            // Its Parse is under way and may be voided: the server shall say so. Nobody else has it.
            return Some(prepared);
        }
        let is_own = self.has_own_meanings(&prepared.statement);
        let here = self.scope();
        if !is_own && (Arc::ptr_eq(scope, &here) || **scope == *here) {
            return Some(prepared);
        }
        let Prepared { text, types, epoch, statement, .. } = &*prepared;
        let registry = &self.context.statements;
        let other = match is_own {
            true => registry.fresh(text, types, *epoch, None, Arc::clone(statement)),
            false => registry.intern(text, types, *epoch, &here, || Arc::clone(statement)),
        };
        self.names.substitute(name, Arc::clone(&other));
        Some(other)
    }

    /// An error that calls a statement by the name that only servers know, with the client's name instead.
    pub(super) fn in_own_words(&self, error: &[u8]) -> Option<Vec<u8>> {
        let at = memchr::memmem::find(error, b"\"pgweir_")?;
        let quoted = error.get(at + 1..)?;
        let server_name = quoted.get(..memchr::memchr(b'"', quoted)?)?;
        let name = self.names.name_of(server_name)?;
        let mut own = error.get(..=at)?.to_vec();
        own.extend_from_slice(name);
        own.extend_from_slice(quoted.get(server_name.len()..)?);
        let length = u32::try_from(own.len() - 1).ok()?;
        own.get_mut(1..5)?.copy_from_slice(&length.to_be_bytes());
        Some(own)
    }

    /// Does `track_extra_parameters` name it? The tracked ones need no mention there.
    pub(super) fn tracks_extra(&self, name: &str) -> bool {
        let settings = self.context.settings();
        tracked(name).is_none() && settings.config.pgbouncer.track_extra_parameters.contains(name)
    }

    /// Names of settings that the server is to be asked about; false if they do not fit.
    pub(super) fn learn_settings<'a>(&self, names: impl Iterator<Item = &'a str>) -> bool {
        self.database.real.custom_settings.learn(names)
    }

    /// Goes on with what it had set in another process.
    pub(super) fn resume(&mut self, settings: SessionSettings) {
        if !self.learn_settings(custom_names(&settings)) {
            self.suspects = self.suspects.union(PinSet::UNNAMED_PARAMETER);
        }
        self.set(settings);
    }

    /// The server has said what the session has set, so far as it can be carried.
    pub(super) fn has_set(&mut self, settings: &SessionSettings) {
        let settings = self.began_with.below(settings);
        if settings != self.settings {
            self.set(settings);
        }
    }

    /// A tracked parameter has another value.
    pub(super) fn set_parameter(&mut self, name: &str, value: &str) {
        if self.parameters.set(name, value) {
            self.forget_prefixes();
            self.scope = None;
        }
    }
}
